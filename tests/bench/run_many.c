/* Many clients: idle ones, all at once, and all in one group. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "mesh/alloc.h"
#include "mesh/clock.h"
#include "tests/bench/bench.h"

#define IDLE_CLIENTS 19000
#define IDLE_WARM 200 /* connected before the first look, so that what is made once is there */
#define STORM_CLIENTS 5000
#define GROUP_MEMBERS 100
#define GROUP_SENDERS 10
#define HEARTBEAT_MS 30000 /* the default of edge.heartbeat_ms */

/* One edge: all connections are one process's. */
void figure_idle(const bench_options *options)
{
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    unsigned n = options->quick ? 4000 : IDLE_CLIENTS;
    if (files.rlim_cur < n + 200) {
        n = (unsigned)files.rlim_cur - 200;
        printf("    only %u connections: ulimit -n\n", n);
    }
    cluster c;
    cluster_start(&c, options, 1);
    driver *d = cluster_driver(&c, "i", n);
    driver_connect(d, 0, IDLE_WARM);
    uint64_t before = cluster_rss(&c, "edge");
    double seconds = driver_connect(d, IDLE_WARM, n);
    driver_rest(d, 5, HEARTBEAT_MS);
    uint64_t after = cluster_rss(&c, "edge");
    double rest = options->quick ? 5 : 30;
    double cpu = cluster_cpu(&c, "edge"), router = cluster_cpu(&c, "router");
    driver_rest(d, rest, HEARTBEAT_MS);
    cpu = cluster_cpu(&c, "edge") - cpu;
    router = cluster_cpu(&c, "router") - router;
    result_put("idle_connection_rss", (double)(after - before) / (n - IDLE_WARM), "bytes of edge RSS");
    result_put("idle_connections", n, "connections");
    result_put("idle_edge_cpu", cpu / rest * 100, "% of a core");
    printf("    connected in %.1f s; router %.1f%% of a core\n", seconds, router / rest * 100);
    driver_destroy(&d);
    cluster_stop(&c);
}

void figure_storm(const bench_options *options)
{
    cluster c;
    cluster_start(&c, options, 2);
    driver *d = cluster_driver(&c, "k", STORM_CLIENTS);
    double cpu[3] = { cluster_cpu(&c, "edge"), cluster_cpu(&c, "router"), cluster_cpu(&c, "store") };
    double seconds = driver_connect(d, 0, STORM_CLIENTS);
    result_put("connect_storm", seconds, "s for 5,000 clients");
    printf("    cpu seconds: edges %.2f router %.2f store %.2f\n", cluster_cpu(&c, "edge") - cpu[0],
           cluster_cpu(&c, "router") - cpu[1], cluster_cpu(&c, "store") - cpu[2]);
    driver_destroy(&d);
    cluster_stop(&c);
}

/* ---- group ---- */

typedef struct group {
    driver *d;
    char chat[80];
    unsigned window, outstanding;
    uint64_t sent, deliveries;
    uint64_t *seq; /* per member: the last seq of the chat */
    bool made;
} group;

static void on_sent(void *arg, driver_conn *c, uint64_t id, const Client__Sent *sent)
{
    (void)c;
    (void)id;
    group *g = arg;
    if (!g->made) {
        (void)snprintf(g->chat, sizeof g->chat, "%s", sent->chat);
        g->made = true;
    }
}

static void on_message(void *arg, driver_conn *c, const Client__Message *message, uint64_t now)
{
    (void)now;
    group *g = arg;
    if (message->seq != g->seq[c->index] + 1) {
        fprintf(stderr, "bench: %s: seq %llu after %llu\n", c->user, (unsigned long long)message->seq,
                (unsigned long long)g->seq[c->index]);
        exit(1);
    }
    g->seq[c->index] = message->seq;
    g->deliveries++;
    if (c->index == 0 && message->kind == CLIENT__ENTRY_KIND__ENTRY_KIND_TEXT) {
        g->outstanding--;
    }
}

static bool on_turn(void *arg, uint64_t now)
{
    (void)now;
    static const char body[] = "sixty-four bytes of text, as one line of a lively room may be...";
    group *g = arg;
    while (g->made && g->outstanding < g->window) {
        driver_send(g->d, driver_get(g->d, (unsigned)(g->sent++ % GROUP_SENDERS)), g->chat, NULL, body);
        g->outstanding++;
    }
    return true;
}

static void make_group(group *g)
{
    char *members[GROUP_MEMBERS];
    for (unsigned i = 1; i < GROUP_MEMBERS; i++) {
        members[i - 1] = driver_get(g->d, i)->user;
    }
    Client__ChatCreate create = CLIENT__CHAT_CREATE__INIT;
    create.client_msg_id = "room";
    create.name = "room";
    create.n_members = GROUP_MEMBERS - 1;
    create.members = members;
    Client__Request request = CLIENT__REQUEST__INIT;
    request.body_case = CLIENT__REQUEST__BODY_CHAT_CREATE;
    request.chat_create = &create;
    driver_request(g->d, driver_get(g->d, 0), &request);
}

void figure_group(const bench_options *options)
{
    static const driver_handler handler = { .sent = on_sent, .message = on_message, .turn = on_turn };
    double seconds = options->quick ? 4 : 20;
    cluster c;
    cluster_start(&c, options, 2);
    group g = { .d = cluster_driver(&c, "g", GROUP_MEMBERS), .window = 64 };
    g.seq = mesh_alloc(GROUP_MEMBERS * sizeof *g.seq);
    driver_connect(g.d, 0, GROUP_MEMBERS);
    make_group(&g);
    driver_run(g.d, &handler, &g, mesh_clock_us() + 2000000, 0);
    double cpu[3] = { cluster_cpu(&c, "edge"), cluster_cpu(&c, "router"), cluster_cpu(&c, "store") };
    uint64_t before = g.deliveries, begin = mesh_clock_us();
    driver_run(g.d, &handler, &g, begin + (uint64_t)(seconds * 1e6), 0);
    double took = (double)(mesh_clock_us() - begin) / 1e6;
    result_put("group_deliveries", (double)(g.deliveries - before) / took, "deliveries/s in a group of 100");
    printf("    cores used: edges %.2f router %.2f store %.2f\n", (cluster_cpu(&c, "edge") - cpu[0]) / took,
           (cluster_cpu(&c, "router") - cpu[1]) / took, (cluster_cpu(&c, "store") - cpu[2]) / took);
    free(g.seq);
    driver_destroy(&g.d);
    cluster_stop(&c);
}
