/* Links that come up, carry messages, and notice that the other side is gone. */
#include "tests/unit/link_rig.h"

static void comes_up_and_talks_both_ways(void **state)
{
    (void)state;
    static node edge, router;
    pair(&edge, &router);
    put_deliver(edge.out, ROUTER1, 0);
    put_deliver(router.out, EDGE1, 0);
    TURN_UNTIL(&edge, &router, edge.got == 1 && router.got == 1);
    assert_int_equal(edge.downs + router.downs, 0);
    stop(&edge);
    stop(&router);
}

static void ten_thousand_arrive_in_order(void **state)
{
    (void)state;
    static node edge, router;
    pair(&edge, &router);
    router.frozen = true; /* so that zmq's pipe fills and frames wait in the link */
    for (uint64_t i = 0; i < 10000; i++) {
        put_deliver(edge.out, ROUTER1, i); /* one frame each */
        mesh_link_send(edge.link, edge.out, now_of(&edge));
    }
    router.frozen = false;
    TURN_UNTIL(&edge, &router, router.got == 10000);
    assert_false(router.out_of_order);
    for (uint64_t i = 0; i < 10000; i++) {
        put_deliver(router.out, EDGE1, i); /* few large frames */
    }
    TURN_UNTIL(&edge, &router, edge.got == 10000);
    assert_false(edge.out_of_order);
    assert_int_equal(edge.downs + router.downs, 0);
    stop(&edge);
    stop(&router);
}

static void a_full_queue_takes_the_peer_down(void **state)
{
    (void)state;
    static node edge, router;
    pair(&edge, &router);
    router.frozen = true;
    char *body = mesh_alloc(1000 * 1000);
    Mesh__StatsText text = MESH__STATS_TEXT__INIT;
    memset(body, 'x', 1000 * 1000 - 1);
    text.text = body;
    MESH_MSG(msg, STATS_TEXT, stats_text, &text);
    unsigned sent = 0;
    mesh_time now = now_of(&edge); /* stands still: silence is not what this is about */
    while (edge.downs == 0) {
        assert_true(++sent < 1000); /* zmq's two pipes, tcp and LINK_QUEUE_MAX hold less than that */
        mesh_out_put(edge.out, ROUTER1, &msg);
        mesh_link_send(edge.link, edge.out, now);
        mesh_link_tick(edge.link, now);
    }
    free(body);
    assert_int_equal(stat_of(edge.link, "parley_link_overflows_total{"), 1);
    router.frozen = false;
    TURN_UNTIL(&edge, &router, edge.ups == 2 && router.ups == 2);
    assert_int_equal(router.downs, 1);
    stop(&edge);
    stop(&router);
}

static void a_reborn_peer_is_down_then_up(void **state)
{
    (void)state;
    static node edge, router;
    pair(&edge, &router);
    stop(&edge);
    start(&edge, conf, EDGE1, 101);
    mesh_link_dial(edge.link, ROUTER1);
    TURN_UNTIL(&edge, &router, edge.ups == 1 && router.ups == 2);
    assert_int_equal(router.downs, 1);
    assert_int_equal(router.last_boot, 101);
    stop(&router); /* and the other way round */
    start(&router, conf, ROUTER1, 901);
    TURN_UNTIL(&edge, &router, edge.ups == 2 && router.ups == 1);
    assert_int_equal(edge.downs, 1);
    assert_int_equal(edge.last_boot, 901);
    put_deliver(edge.out, ROUTER1, 0);
    TURN_UNTIL(&edge, &router, router.got == 1);
    stop(&edge);
    stop(&router);
}

static void a_silent_peer_goes_down_and_comes_back(void **state)
{
    (void)state;
    static node edge, router;
    pair(&edge, &router);
    edge.frozen = true;
    put_deliver(edge.out, ROUTER1, 0); /* said before the silence, sent after it: never delivered */
    router.skew += LINK_DEAD_MS;
    TURN_UNTIL(&edge, &router, router.downs == 1);
    put_deliver(router.out, EDGE1, 0); /* nobody there */
    edge.frozen = false;
    edge.skew += LINK_DEAD_MS / 2;
    turn(&edge); /* it does not know yet */
    TURN_UNTIL(&edge, &router, stat_of(router.link, DROPPED_IN) > 0);
    assert_int_equal(edge.downs, 0);
    TURN_UNTIL(&edge, &router, edge.downs == 1 && edge.ups == 2 && router.ups == 2);
    assert_int_equal(router.got, 0);
    assert_int_equal(edge.got, 0);
    put_deliver(edge.out, ROUTER1, 0);
    put_deliver(router.out, EDGE1, 0);
    TURN_UNTIL(&edge, &router, edge.got == 1 && router.got == 1);
    stop(&edge);
    stop(&router);
}

static void a_lost_connection_is_noticed_at_once(void **state)
{
    (void)state;
    static node edge, router;
    pair(&edge, &router);
    mesh_ms before = mesh_clock_now().mono;
    stop(&router);
    TURN_UNTIL(&edge, &router, edge.downs == 1);
    assert_true(mesh_clock_now().mono - before < LINK_DEAD_MS);
    stop(&edge);
}

static void stores_of_a_shard_have_one_link(void **state)
{
    (void)state;
    static node first, second;
    start(&first, conf, STORE1, 100);
    start(&second, conf, STORE2, 200);
    mesh_link_dial(first.link, STORE2);
    TURN_UNTIL(&first, &second, first.ups == 1 && second.ups == 1);
    assert_int_equal(first.last_up, STORE2);
    assert_int_equal(second.last_up, STORE1);
    assert_int_equal(second.last_boot, 100);
    put_deliver(first.out, STORE2, 0);
    put_deliver(second.out, STORE1, 0);
    TURN_UNTIL(&first, &second, first.got == 1 && second.got == 1);
    stop(&second); /* a store that comes back is dialed again */
    TURN_UNTIL(&first, &second, first.downs == 1);
    start(&second, conf, STORE2, 201);
    TURN_UNTIL(&first, &second, first.ups == 2 && second.ups == 1);
    assert_int_equal(first.last_boot, 201);
    stop(&first);
    stop(&second);
}

static void inproc_needs_no_keys(void **state)
{
    (void)state;
    static node edge, router;
    mesh_conf *c = mesh_conf_new();
    add_nodes(c, "inproc://test-router1", false);
    start(&edge, c, EDGE1, 100);
    mesh_link_dial(edge.link, ROUTER1); /* before anybody listens */
    turn(&edge);
    start(&router, c, ROUTER1, 900);
    TURN_UNTIL(&edge, &router, edge.ups == 1 && router.ups == 1);
    put_deliver(edge.out, ROUTER1, 0);
    put_deliver(router.out, EDGE1, 0);
    TURN_UNTIL(&edge, &router, edge.got == 1 && router.got == 1);
    stop(&router);
    edge.skew += LINK_DEAD_MS; /* no tcp that could tell */
    TURN_UNTIL(&edge, &router, edge.downs == 1);
    start(&router, c, ROUTER1, 901);
    TURN_UNTIL(&edge, &router, edge.ups == 2 && router.ups == 1);
    stop(&edge);
    stop(&router);
    mesh_conf_destroy(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(comes_up_and_talks_both_ways),
        cmocka_unit_test(ten_thousand_arrive_in_order),
        cmocka_unit_test(a_full_queue_takes_the_peer_down),
        cmocka_unit_test(a_reborn_peer_is_down_then_up),
        cmocka_unit_test(a_silent_peer_goes_down_and_comes_back),
        cmocka_unit_test(a_lost_connection_is_noticed_at_once),
        cmocka_unit_test(stores_of_a_shard_have_one_link),
        cmocka_unit_test(inproc_needs_no_keys),
    };
    return cmocka_run_group_tests(tests, link_setup, link_teardown);
}
