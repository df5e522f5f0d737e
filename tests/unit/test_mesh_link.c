/* Two links over real sockets on the loopback, driven by hand: the clock can be moved, the sockets cannot, so every
 * wait is "turn until it is so, or fail". */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zmq.h>

#include "mesh/alloc.h"
#include "mesh/link.h"
#include "mesh/link_auth.h"
#include "mesh/link_priv.h"
#include "mesh/log.h"
#include "tests/unit/capture.h"

#define WAIT_MS 20000 /* a bound, never a delay */

enum { EDGE1, EDGE2, ROUTER1, OPS, STORE1, STORE2, STORE3, OTHER, N_NODES }; /* OTHER: of another shard */
static const char *const names[N_NODES] = { "edge1", "edge2", "router1", "ops", "store1", "store2", "store3", "other" };
static const mesh_role roles[N_NODES] = { MESH_EDGE,  MESH_EDGE,  MESH_ROUTER, MESH_OPERATOR,
                                          MESH_STORE, MESH_STORE, MESH_STORE,  MESH_STORE };
static char dir[] = "/tmp/parley-test-link-XXXXXX";
static char public_keys[N_NODES][MESH_LINK_KEY_SIZE];
static mesh_conf *conf; /* over tcp */
static char setup_log[16384];

typedef struct node {
    mesh_link *link;
    mesh_out *out;
    mesh_ms skew; /* added to the clock */
    bool frozen;  /* gets no turn */
    unsigned ups, downs;
    mesh_peer last_up;
    uint64_t last_boot;
    uint64_t got;  /* messages */
    uint64_t next; /* item expected next */
    bool out_of_order;
    char text[65536]; /* of the last StatsText */
} node;

static void set(mesh_conf *c, const char *name, const char *value)
{
    assert_int_equal(mesh_conf_set(c, name, value), MESH_OK);
}

static unsigned free_port(void)
{
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in at = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t size = sizeof at;
    assert_int_equal(bind(fd, (struct sockaddr *)&at, size), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&at, &size), 0);
    close(fd);
    return ntohs(at.sin_port);
}

/* endpoint: of the router; stores have one of their own, only over tcp. */
static void add_nodes(mesh_conf *c, const char *endpoint, bool keys)
{
    for (size_t i = 0; i < N_NODES; i++) {
        mesh_node_conf n = { .role = roles[i], .shard = i == OTHER };
        strcpy(n.name, names[i]);
        if (i == ROUTER1) {
            strcpy(n.endpoint, endpoint);
        } else if (n.role == MESH_STORE && keys) {
            snprintf(n.endpoint, sizeof n.endpoint, "tcp://127.0.0.1:%u", free_port());
        } else if (n.role == MESH_STORE) {
            snprintf(n.endpoint, sizeof n.endpoint, "%s-%s", endpoint, n.name);
        }
        if (keys) {
            strcpy(n.public_key, public_keys[i]);
        }
        assert_int_equal(mesh_conf_add_node(c, &n), MESH_OK);
    }
}

static mesh_conf *tcp_conf(void)
{
    char endpoint[64];
    mesh_conf *c = mesh_conf_new();
    snprintf(endpoint, sizeof endpoint, "tcp://127.0.0.1:%u", free_port());
    add_nodes(c, endpoint, true);
    return c;
}

/* ---- a node whose owner counts ---- */

static void on_message(void *arg, mesh_peer from, const Mesh__Msg *msg, mesh_slice packed, mesh_time now)
{
    (void)now;
    (void)from;
    node *n = arg;
    assert_true(packed.size > 0);
    if (msg->body_case == MESH__MSG__BODY_STATS_TEXT) {
        snprintf(n->text, sizeof n->text, "%s", msg->stats_text->text);
    } else if (msg->body_case == MESH__MSG__BODY_DELIVER) {
        n->out_of_order = n->out_of_order || msg->deliver->item != n->next;
        n->next = msg->deliver->item + 1;
    }
    n->got++;
}

static void on_up(void *arg, mesh_peer peer, uint64_t boot, mesh_time now)
{
    (void)now;
    node *n = arg;
    n->ups++;
    n->last_up = peer;
    n->last_boot = boot;
}

static void on_down(void *arg, mesh_peer peer, mesh_time now)
{
    (void)now;
    (void)peer;
    ((node *)arg)->downs++;
}

static void on_stats(void *arg, mesh_buf *out)
{
    node *n = arg;
    mesh_buf_puts(out, "of_the_owner 1\n");
    mesh_link_print_stats(n->link, "router1", out);
}

static const mesh_link_handler handler = { on_message, on_up, on_down, on_stats };

static void start(node *n, mesh_conf *c, mesh_peer self, uint64_t boot)
{
    memset(n, 0, sizeof *n);
    n->out = mesh_out_new(N_NODES);
    mesh_ms give_up = mesh_clock_now().mono + WAIT_MS;
    mesh_log_level(MESH_ERROR + 1); /* the port is free only when zmq's own thread has closed the last test's socket */
    while (mesh_link_new(NULL, c, self, boot, &handler, n, &n->link) != MESH_OK) {
        assert_true(mesh_clock_now().mono < give_up);
        poll(NULL, 0, 1);
    }
    mesh_log_level(MESH_ERROR);
}

static void stop(node *n)
{
    mesh_link_destroy(&n->link);
    mesh_out_destroy(&n->out);
}

static mesh_time now_of(const node *n)
{
    mesh_time now = mesh_clock_now();
    now.mono += n->skew;
    return now;
}

static void turn(node *n)
{
    if (n->link == NULL || n->frozen) {
        return;
    }
    mesh_time now = now_of(n);
    mesh_link_receive(n->link, now);
    mesh_link_tick(n->link, now);
    mesh_link_send(n->link, n->out, now);
}

#define TURN_UNTIL(a, b, what)                                                                                         \
    do {                                                                                                               \
        mesh_ms give_up_ = mesh_clock_now().mono + WAIT_MS;                                                            \
        while (!(what)) {                                                                                              \
            assert_true(mesh_clock_now().mono < give_up_);                                                             \
            turn(a);                                                                                                   \
            turn(b);                                                                                                   \
            poll(NULL, 0, 1);                                                                                          \
        }                                                                                                              \
    } while (0)

static void put_deliver(mesh_out *out, mesh_peer to, uint64_t item)
{
    Mesh__Deliver deliver = MESH__DELIVER__INIT;
    deliver.item = item;
    MESH_MSG(msg, DELIVER, deliver, &deliver);
    mesh_out_put(out, to, &msg);
}

static uint64_t stat_of(const mesh_link *link, const char *row)
{
    mesh_buf text = { 0 };
    mesh_link_print_stats(link, "n", &text);
    mesh_buf_put(&text, "", 1);
    const char *at = strstr((const char *)text.data, row);
    assert_non_null(at);
    at = strchr(at, '}');
    assert_non_null(at);
    uint64_t value = strtoull(at + 1, NULL, 10);
    mesh_buf_fini(&text);
    return value;
}

#define MALFORMED "parley_link_malformed_total{"
#define REFUSED_NAME "parley_link_refused_total{node=\"n\",reason=\"name\"}"
#define REFUSED_KEY "parley_link_refused_total{node=\"n\",reason=\"key\"}"
#define REFUSED_CLUSTER "parley_link_refused_total{node=\"n\",reason=\"cluster\"}"
#define REFUSED_VERSION "parley_link_refused_total{node=\"n\",reason=\"version\"}"
#define REFUSED_LATE "parley_link_refused_total{node=\"n\",reason=\"late\"}"
#define DROPPED_IN "parley_link_dropped_total{node=\"n\",way=\"in\"}"

/* ---- a bare socket, for what a link of ours would never do ---- */

static void *raw_dialer(const char *rid, const mesh_link_keys *keys)
{
    void *s = zmq_socket(mesh_link_auth_context(), ZMQ_DEALER);
    const int none = 0;
    const mesh_node_conf *to = mesh_conf_node(conf, ROUTER1);
    zmq_setsockopt(s, ZMQ_LINGER, &none, sizeof none);
    zmq_setsockopt(s, ZMQ_ROUTING_ID, rid, strlen(rid));
    zmq_setsockopt(s, ZMQ_CURVE_SERVERKEY, to->public_key, MESH_LINK_KEY_SIZE);
    zmq_setsockopt(s, ZMQ_CURVE_PUBLICKEY, keys->public_key, MESH_LINK_KEY_SIZE);
    zmq_setsockopt(s, ZMQ_CURVE_SECRETKEY, keys->secret_key, MESH_LINK_KEY_SIZE);
    assert_int_equal(zmq_connect(s, to->endpoint), 0);
    return s;
}

static void raw_hello_of(void *s, const char *name, uint64_t boot, const char *cluster, uint32_t min, uint32_t max)
{
    Mesh__NodeHello hello = MESH__NODE_HELLO__INIT;
    hello.node = (char *)name;
    hello.role = "edge";
    hello.boot = boot;
    hello.cluster = (char *)cluster;
    hello.min_version = min;
    hello.max_version = max;
    MESH_MSG(msg, NODE_HELLO, node_hello, &hello);
    mesh_buf frame = { 0 };
    mesh_frame_put(&frame, &msg);
    assert_true(zmq_send(s, frame.data, frame.size, 0) >= 0);
    mesh_buf_fini(&frame);
}

static void raw_hello(void *s, const char *name, uint64_t boot, const char *cluster)
{
    raw_hello_of(s, name, boot, cluster, LINK_VERSION, LINK_VERSION);
}

static void raw_deliver(void *s, const char *tail, size_t tail_size)
{
    Mesh__Deliver deliver = MESH__DELIVER__INIT;
    MESH_MSG(msg, DELIVER, deliver, &deliver);
    mesh_buf frame = { 0 };
    mesh_frame_put(&frame, &msg);
    mesh_buf_put(&frame, tail, tail_size);
    assert_true(zmq_send(s, frame.data, frame.size, 0) >= 0);
    mesh_buf_fini(&frame);
}

static void own_keys(size_t i, mesh_link_keys *keys)
{
    assert_int_equal(mesh_link_auth_own(mesh_conf_node(conf, (mesh_peer)i), keys), MESH_OK);
}

/* ---- stories ---- */

static void pair(node *edge, node *router)
{
    start(router, conf, ROUTER1, 900);
    start(edge, conf, EDGE1, 100);
    mesh_link_dial(edge->link, ROUTER1);
    TURN_UNTIL(edge, router, edge->ups == 1 && router->ups == 1);
    assert_int_equal(router->last_up, EDGE1);
    assert_int_equal(router->last_boot, 100);
    assert_int_equal(edge->last_boot, 900);
}

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

/* ---- the same under real loops: a lost wake-up would cost a ping interval each ---- */

#define ROUNDS 2000
typedef struct looped {
    mesh_loop *loop;
    node n;
    mesh_conf *conf;
    mesh_peer self, to;
    uint64_t rounds;
    bool done;
} looped;

static void echo(void *arg, mesh_peer from, const Mesh__Msg *msg, mesh_slice packed, mesh_time now)
{
    (void)packed;
    (void)now;
    looped *l = arg;
    uint64_t item = msg->deliver->item;
    l->rounds++;
    if (l->self == ROUTER1 || item + 1 < ROUNDS) {
        put_deliver(l->n.out, from, l->self == ROUTER1 ? item : item + 1);
    }
    l->done = item + 1 == ROUNDS;
}

static void kick(void *arg, mesh_peer peer, uint64_t boot, mesh_time now)
{
    (void)boot;
    (void)now;
    looped *l = arg;
    if (l->self != ROUTER1) {
        put_deliver(l->n.out, peer, 0);
    }
}

static mesh_ms looped_turn(void *arg, mesh_time now)
{
    looped *l = arg;
    bool more = mesh_link_receive(l->n.link, now);
    mesh_ms next = mesh_link_tick(l->n.link, now);
    mesh_link_send(l->n.link, l->n.out, now);
    if (l->done) {
        mesh_loop_stop(l->loop);
    }
    return more ? now.mono : next;
}

static void *looped_run(void *arg)
{
    looped *l = arg;
    const mesh_link_handler h = { echo, kick, NULL, NULL };
    l->n.out = mesh_out_new(N_NODES);
    mesh_err err = mesh_link_new(l->loop, l->conf, l->self, 1 + l->self, &h, l, &l->n.link);
    if (err == MESH_OK) {
        if (l->self != ROUTER1) {
            mesh_link_dial(l->n.link, ROUTER1);
        }
        mesh_loop_run(l->loop);
        mesh_link_destroy(&l->n.link);
    }
    mesh_out_destroy(&l->n.out);
    return NULL;
}

static void ping_pong(mesh_conf *c)
{
    static looped edge, router;
    edge = (looped){ .conf = c, .self = EDGE1 };
    router = (looped){ .conf = c, .self = ROUTER1 };
    edge.loop = mesh_loop_new(looped_turn, &edge);
    router.loop = mesh_loop_new(looped_turn, &router);
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, looped_run, &router), 0);
    mesh_ms before = mesh_clock_now().mono;
    looped_run(&edge);
    assert_int_equal(edge.rounds, ROUNDS);
    assert_true(mesh_clock_now().mono - before < WAIT_MS);
    pthread_join(thread, NULL);
    assert_int_equal(router.rounds, ROUNDS);
    mesh_loop_destroy(&edge.loop);
    mesh_loop_destroy(&router.loop);
}

static void loops_lose_no_wake_up(void **state)
{
    (void)state;
    ping_pong(conf);
    mesh_conf *c = mesh_conf_new();
    add_nodes(c, "inproc://test-loop", false);
    ping_pong(c);
    mesh_conf_destroy(&c);
}

typedef struct counted {
    mesh_loop *loop;
    atomic_uint turns;
} counted;

static mesh_ms count_turns(void *arg, mesh_time now)
{
    counted *c = arg;
    unsigned turns = ++c->turns;
    if (mesh_loop_stopping()) {
        mesh_loop_stop(c->loop);
    }
    return turns < 5 ? now.mono : turns < 8 ? now.mono + 2 : MESH_NEVER;
}

static void *run_counted(void *arg)
{
    mesh_loop_run(((counted *)arg)->loop);
    return NULL;
}

static void wait_turns(counted *c, unsigned turns)
{
    mesh_ms give_up = mesh_clock_now().mono + WAIT_MS;
    while (c->turns < turns) {
        assert_true(mesh_clock_now().mono < give_up);
        poll(NULL, 0, 1);
    }
}

/* Deadlines past, near and none; a wake from another thread; the signal stops every loop. */
static void loops_wake_when_they_must(void **state)
{
    (void)state;
    mesh_loop_signals();
    counted loops[2] = { 0 };
    pthread_t threads[2];
    for (size_t i = 0; i < 2; i++) {
        loops[i].loop = mesh_loop_new(count_turns, &loops[i]);
        assert_int_equal(pthread_create(&threads[i], NULL, run_counted, &loops[i]), 0);
    }
    for (size_t i = 0; i < 2; i++) {
        wait_turns(&loops[i], 8);
        unsigned before = loops[i].turns;
        mesh_loop_wake(loops[i].loop);
        wait_turns(&loops[i], before + 1);
    }
    assert_false(mesh_loop_stopping());
    kill(getpid(), SIGTERM);
    for (size_t i = 0; i < 2; i++) {
        pthread_join(threads[i], NULL);
        assert_true(loops[i].turns < 100); /* none of them spun */
        mesh_loop_destroy(&loops[i].loop);
    }
    assert_true(mesh_loop_stopping());
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

static int setup(void **state)
{
    (void)state;
    mesh_log_setup("test", MESH_ERROR);
    if (mkdtemp(dir) == NULL) {
        return -1;
    }
    for (size_t i = 0; i < N_NODES; i++) {
        if (mesh_link_make_key(dir, names[i], public_keys[i]) != MESH_OK) {
            return -1;
        }
    }
    conf = tcp_conf();
    set(conf, "cluster.name", "parley");
    capture c;
    mesh_log_level(MESH_WARN);
    capture_start(&c);
    mesh_err err = mesh_link_setup(conf, dir);
    (void)capture_stop(&c, setup_log, sizeof setup_log);
    mesh_log_level(MESH_ERROR);
    return err == MESH_OK ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    mesh_link_teardown();
    mesh_conf_destroy(&conf);
    for (size_t i = 0; i < N_NODES; i++) {
        char path[256];
        snprintf(path, sizeof path, "%s/%s.key", dir, names[i]);
        unlink(path);
    }
    return rmdir(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_self_test_is_neither_counted_nor_logged),
        cmocka_unit_test(comes_up_and_talks_both_ways),
        cmocka_unit_test(ten_thousand_arrive_in_order),
        cmocka_unit_test(a_full_queue_takes_the_peer_down),
        cmocka_unit_test(a_reborn_peer_is_down_then_up),
        cmocka_unit_test(a_strangers_key_is_refused),
        cmocka_unit_test(a_known_key_cannot_take_anothers_name),
        cmocka_unit_test(another_cluster_is_refused),
        cmocka_unit_test(versions_must_meet),
        cmocka_unit_test(a_malformed_frame_is_counted_and_nothing_else),
        cmocka_unit_test(a_late_hello_is_not_a_rebirth),
        cmocka_unit_test(a_silent_peer_goes_down_and_comes_back),
        cmocka_unit_test(a_lost_connection_is_noticed_at_once),
        cmocka_unit_test(stores_of_a_shard_have_one_link),
        cmocka_unit_test(other_stores_may_not_dial),
        cmocka_unit_test(an_operator_may_only_ask),
        cmocka_unit_test(an_order_is_not_for_everybody),
        cmocka_unit_test(inproc_needs_no_keys),
        cmocka_unit_test(loops_lose_no_wake_up),
        cmocka_unit_test(loops_wake_when_they_must),
        cmocka_unit_test(keys_are_kept_to_oneself),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
