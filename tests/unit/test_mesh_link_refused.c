/* What a link does not take: strangers, wrong names, another cluster, frames and orders that are not for it. */
#include "tests/unit/link_rig.h"

/* Setup has just had a key refused to see that keys are refused. */
static void the_self_test_is_neither_counted_nor_logged(void **state)
{
    (void)state;
    assert_true(mesh_link_auth_refused() == 0);
    assert_string_equal(setup_log, "");
}

static void a_strangers_key_is_refused(void **state)
{
    (void)state;
    static node router, nobody;
    start(&router, conf, ROUTER1, 900);
    uint64_t before = stat_of(router.link, REFUSED_KEY);
    mesh_link_keys keys;
    zmq_curve_keypair(keys.public_key, keys.secret_key);
    capture c;
    static char log[16384];
    mesh_log_level(MESH_WARN);
    capture_start(&c);
    void *s = raw_dialer("edge1.0000000000000064.1", &keys);
    raw_hello(s, "edge1", 100, "parley");
    TURN_UNTIL(&router, &nobody, stat_of(router.link, REFUSED_KEY) > before);
    (void)capture_stop(&c, log, sizeof log);
    mesh_log_level(MESH_ERROR);
    if (strstr(log, " level=warn node=test event=link_key_refused address=127.0.0.1\n") == NULL) {
        fail_msg("the node is not named: %s", log);
    }
    assert_int_equal(router.ups, 0);
    assert_int_equal(stat_of(router.link, "parley_link_frames_total{node=\"n\",way=\"in\"}"), 0);
    zmq_close(s);
    stop(&router);
}

static void a_known_key_cannot_take_anothers_name(void **state)
{
    (void)state;
    static node router, edge;
    pair(&edge, &router);
    mesh_link_keys keys;
    own_keys(EDGE2, &keys);
    void *s = raw_dialer("edge1.00000000000000c8.1", &keys);
    raw_hello(s, "edge1", 200, "parley");
    TURN_UNTIL(&router, &edge, stat_of(router.link, REFUSED_NAME) == 1);
    raw_hello(s, "edge2", 200, "parley"); /* its own name, but an identity of another's */
    TURN_UNTIL(&router, &edge, stat_of(router.link, REFUSED_NAME) == 2);
    raw_deliver(s, "", 0);
    TURN_UNTIL(&router, &edge, stat_of(router.link, DROPPED_IN) == 1);
    void *t = raw_dialer("edge2.00000000000000c8.1", &keys);
    raw_hello(t, "edge2", 201, "parley"); /* an identity of another boot */
    TURN_UNTIL(&router, &edge, stat_of(router.link, REFUSED_NAME) == 3);
    assert_int_equal(router.ups, 1);
    assert_int_equal(router.downs, 0);
    assert_int_equal(router.got, 0);
    zmq_close(s);
    zmq_close(t);
    stop(&edge);
    stop(&router);
}

static void another_cluster_is_refused(void **state)
{
    (void)state;
    static node router, nobody;
    start(&router, conf, ROUTER1, 900);
    mesh_link_keys keys;
    own_keys(EDGE1, &keys);
    void *s = raw_dialer("edge1.0000000000000064.1", &keys);
    raw_hello(s, "edge1", 100, "elsewhere");
    TURN_UNTIL(&router, &nobody, stat_of(router.link, REFUSED_CLUSTER) == 1);
    assert_int_equal(router.ups, 0);
    raw_hello(s, "edge1", 100, "parley");
    TURN_UNTIL(&router, &nobody, router.ups == 1);
    zmq_close(s);
    stop(&router);
}

/* Without a version that both speak there is no link, and both can say why; with one there is. */
static void versions_must_meet(void **state)
{
    (void)state;
    static node router, nobody;
    static char log[16384], answer[4096];
    capture c;
    start(&router, conf, ROUTER1, 900);
    mesh_link_keys keys;
    own_keys(EDGE1, &keys);
    void *s = raw_dialer("edge1.0000000000000064.1", &keys);
    capture_start(&c);
    mesh_log_level(MESH_WARN);
    raw_hello_of(s, "edge1", 100, "parley", LINK_VERSION + 1, LINK_VERSION + 2);
    TURN_UNTIL(&router, &nobody, stat_of(router.link, REFUSED_VERSION) == 1);
    mesh_log_level(MESH_ERROR);
    (void)capture_stop(&c, log, sizeof log);
    assert_non_null(strstr(log, "event=hello_refused"));
    assert_non_null(strstr(log, "it speaks versions 2 to 3 of node links and this node 1 to 1"));
    assert_int_equal(router.ups, 0);
    int size = -1;
    TURN_UNTIL(&router, &nobody, (size = zmq_recv(s, answer, sizeof answer, ZMQ_DONTWAIT)) > 0);
    mesh_frame_reader reader;
    Mesh__Msg *msg;
    mesh_arena *arena = mesh_arena_new();
    assert_int_equal(mesh_frame_open(&reader, (mesh_slice){ (uint8_t *)answer, (size_t)size }), MESH_OK);
    assert_int_equal(mesh_frame_next(&reader, arena, &msg, NULL), MESH_OK);
    assert_int_equal(msg->body_case, MESH__MSG__BODY_NODE_HELLO); /* by which the other judges */
    assert_int_equal(msg->node_hello->max_version, LINK_VERSION);
    mesh_arena_destroy(&arena);
    raw_hello_of(s, "edge1", 100, "parley", 0, LINK_VERSION + 1); /* older and newer at once */
    TURN_UNTIL(&router, &nobody, router.ups == 1);
    zmq_close(s);
    stop(&router);
}

static void a_malformed_frame_is_counted_and_nothing_else(void **state)
{
    (void)state;
    static node router, nobody;
    start(&router, conf, ROUTER1, 900);
    mesh_link_keys keys;
    own_keys(EDGE1, &keys);
    void *s = raw_dialer("edge1.0000000000000064.1", &keys);
    zmq_send(s, "junk before hello", 17, 0);
    TURN_UNTIL(&router, &nobody, stat_of(router.link, MALFORMED) == 1);
    raw_hello(s, "edge1", 100, "parley");
    TURN_UNTIL(&router, &nobody, router.ups == 1);
    zmq_send(s, "", 0, 0);
    zmq_send(s, "\1\377\377\377\377", 5, 0);
    zmq_send(s, "\1\2\0\0\0\377\377", 7, 0);
    raw_deliver(s, "\3\0\0\0ab", 6); /* a good message, then half of one: none of it counts */
    zmq_send(s, "a", 1, ZMQ_SNDMORE);
    zmq_send(s, "b", 1, 0);
    TURN_UNTIL(&router, &nobody, stat_of(router.link, MALFORMED) == 6);
    assert_int_equal(router.got, 0);
    assert_int_equal(router.downs, 0);
    raw_deliver(s, "", 0);
    TURN_UNTIL(&router, &nobody, router.got == 1);
    zmq_close(s);
    stop(&router);
}

static void a_late_hello_is_not_a_rebirth(void **state)
{
    (void)state;
    static node router, edge;
    pair(&edge, &router);
    mesh_link_keys keys;
    own_keys(EDGE1, &keys);
    void *s = raw_dialer("edge1.00000000000000c8.1", &keys);
    raw_hello(s, "edge1", 200, "parley"); /* the next boot of edge1 */
    edge.frozen = true;
    TURN_UNTIL(&router, &edge, router.ups == 2);
    void *t = raw_dialer("edge1.0000000000000064.7", &keys);
    raw_hello(t, "edge1", 100, "parley"); /* the boot before it, from beyond the grave */
    TURN_UNTIL(&router, &edge, stat_of(router.link, REFUSED_LATE) == 1);
    assert_int_equal(router.last_boot, 200);
    assert_int_equal(router.downs, 1);
    zmq_close(s);
    zmq_close(t);
    stop(&edge);
    stop(&router);
}

static void refused_store(mesh_peer from, mesh_peer to)
{
    static node dialer, listener;
    start(&listener, conf, to, 900);
    start(&dialer, conf, from, 100);
    mesh_link_dial(dialer.link, to);
    TURN_UNTIL(&dialer, &listener, stat_of(listener.link, REFUSED_NAME) > 0);
    assert_int_equal(listener.ups + dialer.ups, 0);
    stop(&dialer);
    stop(&listener);
}

static void other_stores_may_not_dial(void **state)
{
    (void)state;
    refused_store(STORE2, STORE1); /* of two, the later one waits */
    refused_store(STORE3, STORE1);
    refused_store(STORE1, OTHER); /* a store of another shard */
    refused_store(OTHER, STORE3);
    refused_store(STORE1, ROUTER1);
    refused_store(EDGE1, STORE1);
}

static void put_order(mesh_out *out, mesh_peer to)
{
    Mesh__Operate operate = MESH__OPERATE__INIT;
    operate.op = MESH__OPERATE_OP__OPERATE_DRAIN;
    MESH_MSG(msg, OPERATE, operate, &operate);
    mesh_out_put(out, to, &msg);
}

static void an_operator_may_only_ask(void **state)
{
    (void)state;
    static node ops, router;
    start(&router, conf, ROUTER1, 900);
    start(&ops, conf, OPS, 300);
    mesh_link_dial(ops.link, ROUTER1);
    TURN_UNTIL(&ops, &router, ops.ups == 1 && router.ups == 1);
    Mesh__Stats stats = MESH__STATS__INIT;
    MESH_MSG(msg, STATS, stats, &stats);
    put_deliver(ops.out, ROUTER1, 0);
    mesh_out_put(ops.out, ROUTER1, &msg);
    TURN_UNTIL(&ops, &router, ops.got == 1);
    assert_non_null(strstr(ops.text, "of_the_owner 1\n"));
    assert_non_null(strstr(ops.text, "parley_link_peers_up{node=\"router1\"} 1\n"));
    assert_int_equal(router.got, 0);
    assert_int_equal(stat_of(router.link, "parley_link_denied_total{"), 1);
    put_order(ops.out, ROUTER1);
    TURN_UNTIL(&ops, &router, router.got == 1);
    stop(&ops);
    stop(&router);
}

/* Only an operator orders, and a router an edge. */
static void an_order_is_not_for_everybody(void **state)
{
    (void)state;
    static node edge, router;
    start(&router, conf, ROUTER1, 900);
    start(&edge, conf, EDGE1, 300);
    mesh_link_dial(edge.link, ROUTER1);
    TURN_UNTIL(&edge, &router, edge.ups == 1 && router.ups == 1);
    put_order(edge.out, ROUTER1);
    put_deliver(edge.out, ROUTER1, 0);
    TURN_UNTIL(&edge, &router, router.got == 1);
    assert_int_equal(router.next, 1);
    assert_int_equal(stat_of(router.link, "parley_link_denied_total{"), 1);
    put_order(router.out, EDGE1);
    TURN_UNTIL(&edge, &router, edge.got == 1);
    assert_int_equal(stat_of(edge.link, "parley_link_denied_total{"), 0);
    stop(&edge);
    stop(&router);
}

static void keys_are_kept_to_oneself(void **state)
{
    (void)state;
    char path[256];
    char key[MESH_LINK_KEY_SIZE];
    struct stat st;
    assert_int_equal(mesh_link_make_key(dir, "spare", key), MESH_OK);
    snprintf(path, sizeof path, "%s/spare.key", dir);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    mesh_link_keys keys;
    assert_int_equal(mesh_link_keys_read(dir, "spare", &keys), MESH_OK);
    assert_string_equal(keys.public_key, key);
    assert_int_equal(chmod(path, 0644), 0);
    assert_int_equal(mesh_link_keys_read(dir, "spare", &keys), MESH_IO);
    assert_int_equal(mesh_link_keys_read(dir, "absent", &keys), MESH_IO);
    mesh_node_conf wrong = { .name = "edge1" };
    strcpy(wrong.public_key, key);
    assert_int_equal(mesh_link_auth_own(&wrong, &keys), MESH_IO);
    unlink(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_self_test_is_neither_counted_nor_logged),
        cmocka_unit_test(a_strangers_key_is_refused),
        cmocka_unit_test(a_known_key_cannot_take_anothers_name),
        cmocka_unit_test(another_cluster_is_refused),
        cmocka_unit_test(versions_must_meet),
        cmocka_unit_test(a_malformed_frame_is_counted_and_nothing_else),
        cmocka_unit_test(a_late_hello_is_not_a_rebirth),
        cmocka_unit_test(other_stores_may_not_dial),
        cmocka_unit_test(an_operator_may_only_ask),
        cmocka_unit_test(an_order_is_not_for_everybody),
        cmocka_unit_test(keys_are_kept_to_oneself),
    };
    return cmocka_run_group_tests(tests, link_setup, link_teardown);
}
