/* tests/unit/link_rig.h: two links over real sockets on the loopback, driven by hand: the clock can be moved, the
 * sockets cannot, so every wait is "turn until it is so, or fail". Test programs may run side by side: each has a
 * loopback address of its own. */
#ifndef TESTS_UNIT_LINK_RIG_H
#define TESTS_UNIT_LINK_RIG_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <poll.h>
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

static inline void set(mesh_conf *c, const char *name, const char *value)
{
    assert_int_equal(mesh_conf_set(c, name, value), MESH_OK);
}

/* An endpoint that is free, on an address that is this process's. */
static inline void free_endpoint(char *out, size_t size)
{
    uint32_t pid = (uint32_t)getpid();
    struct sockaddr_in at = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(0x7f000001 | (pid & 0xffff) << 8) };
    socklen_t at_size = sizeof at;
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&at, at_size), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&at, &at_size), 0);
    close(fd);
    snprintf(out, size, "tcp://%s:%u", inet_ntoa(at.sin_addr), ntohs(at.sin_port));
}

/* endpoint: of the router; stores have one of their own, only over tcp. */
static inline void add_nodes(mesh_conf *c, const char *endpoint, bool keys)
{
    for (size_t i = 0; i < N_NODES; i++) {
        mesh_node_conf n = { .role = roles[i], .shard = i == OTHER };
        strcpy(n.name, names[i]);
        if (i == ROUTER1) {
            strcpy(n.endpoint, endpoint);
        } else if (n.role == MESH_STORE && keys) {
            free_endpoint(n.endpoint, sizeof n.endpoint);
        } else if (n.role == MESH_STORE) {
            snprintf(n.endpoint, sizeof n.endpoint, "%s-%s", endpoint, n.name);
        }
        if (keys) {
            strcpy(n.public_key, public_keys[i]);
        }
        assert_int_equal(mesh_conf_add_node(c, &n), MESH_OK);
    }
}

static inline mesh_conf *tcp_conf(void)
{
    char endpoint[64];
    mesh_conf *c = mesh_conf_new();
    free_endpoint(endpoint, sizeof endpoint);
    add_nodes(c, endpoint, true);
    return c;
}

/* ---- a node whose owner counts ---- */

static inline void on_message(void *arg, mesh_peer from, const Mesh__Msg *msg, mesh_slice packed, mesh_time now)
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

static inline void on_up(void *arg, mesh_peer peer, uint64_t boot, mesh_time now)
{
    (void)now;
    node *n = arg;
    n->ups++;
    n->last_up = peer;
    n->last_boot = boot;
}

static inline void on_down(void *arg, mesh_peer peer, mesh_time now)
{
    (void)now;
    (void)peer;
    ((node *)arg)->downs++;
}

static inline void on_stats(void *arg, mesh_buf *out)
{
    node *n = arg;
    mesh_buf_puts(out, "of_the_owner 1\n");
    mesh_link_print_stats(n->link, "router1", out);
}

static const mesh_link_handler handler = { on_message, on_up, on_down, on_stats };

static inline void start(node *n, mesh_conf *c, mesh_peer self, uint64_t boot)
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

static inline void stop(node *n)
{
    mesh_link_destroy(&n->link);
    mesh_out_destroy(&n->out);
}

static inline mesh_time now_of(const node *n)
{
    mesh_time now = mesh_clock_now();
    now.mono += n->skew;
    return now;
}

static inline void turn(node *n)
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

static inline void put_deliver(mesh_out *out, mesh_peer to, uint64_t item)
{
    Mesh__Deliver deliver = MESH__DELIVER__INIT;
    deliver.item = item;
    MESH_MSG(msg, DELIVER, deliver, &deliver);
    mesh_out_put(out, to, &msg);
}

static inline uint64_t stat_of(const mesh_link *link, const char *row)
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

static inline void *raw_dialer(const char *rid, const mesh_link_keys *keys)
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

static inline void raw_hello_of(void *s, const char *name, uint64_t boot, const char *cluster, uint32_t min,
                                uint32_t max)
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

static inline void raw_hello(void *s, const char *name, uint64_t boot, const char *cluster)
{
    raw_hello_of(s, name, boot, cluster, LINK_VERSION, LINK_VERSION);
}

static inline void raw_deliver(void *s, const char *tail, size_t tail_size)
{
    Mesh__Deliver deliver = MESH__DELIVER__INIT;
    MESH_MSG(msg, DELIVER, deliver, &deliver);
    mesh_buf frame = { 0 };
    mesh_frame_put(&frame, &msg);
    mesh_buf_put(&frame, tail, tail_size);
    assert_true(zmq_send(s, frame.data, frame.size, 0) >= 0);
    mesh_buf_fini(&frame);
}

static inline void own_keys(size_t i, mesh_link_keys *keys)
{
    assert_int_equal(mesh_link_auth_own(mesh_conf_node(conf, (mesh_peer)i), keys), MESH_OK);
}

/* Both up, after the edge has dialed. */
static inline void pair(node *edge, node *router)
{
    start(router, conf, ROUTER1, 900);
    start(edge, conf, EDGE1, 100);
    mesh_link_dial(edge->link, ROUTER1);
    TURN_UNTIL(edge, router, edge->ups == 1 && router->ups == 1);
    assert_int_equal(router->last_up, EDGE1);
    assert_int_equal(router->last_boot, 100);
    assert_int_equal(edge->last_boot, 900);
}

/* ---- keys, config, log: once per program ---- */

static inline int link_setup(void **state)
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

static inline int link_teardown(void **state)
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

#endif
