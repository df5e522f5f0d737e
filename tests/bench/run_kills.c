/* kill -9 of a leader and of a router under a steady trickle of messages: how long until people are served again. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mesh/clock.h"
#include "mesh/rand.h"
#include "tests/bench/bench.h"
#include "tests/bench/trickle.h"

#define PAIRS 24
#define PAUSE_MS 50
#define KILLS_MAX 64
#define WHOLE_US (60u * 1000000) /* a node that was started again must be back within */

typedef struct run {
    cluster c;
    driver *d;
    trickle *t;
    mesh_rand rand;
    double s[KILLS_MAX]; /* what each kill took */
    unsigned n;
} run;

static void begin(run *r, const bench_options *options, const cluster_plan *plan)
{
    *r = (run){ .rand = { mesh_rand_seed() } };
    cluster_start_as(&r->c, options, plan);
    r->d = cluster_driver(&r->c, "k", 2 * PAIRS);
    driver_connect(r->d, 0, 2 * PAIRS);
    r->t = trickle_new(r->d, PAIRS, PAUSE_MS);
    trickle_run(r->t, 1);
}

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void end(run *r, const char *p50, const char *max)
{
    uint64_t retries;
    uint64_t messages = trickle_settle(r->t, &retries);
    qsort(r->s, r->n, sizeof *r->s, by_size);
    result_put(p50, r->s[r->n / 2], "s");
    result_put(max, r->s[r->n - 1], "s");
    printf("    %u kills, fastest %.2f s; %llu messages, each acked and delivered once; %llu tries more\n", r->n,
           r->s[0], (unsigned long long)messages, (unsigned long long)retries);
    trickle_destroy(&r->t);
    driver_destroy(&r->d);
    cluster_stop(&r->c);
}

/* Start the node again, and go on until it is as before. */
static void restore(run *r, unsigned node)
{
    cluster_progress progress = { 0 };
    uint64_t begun = mesh_clock_us();
    cluster_run(&r->c, node);
    while (!cluster_is_whole(&r->c, &progress)) {
        if (mesh_clock_us() - begun > WHOLE_US) {
            fprintf(stderr, "bench: %s is not back\n", r->c.nodes[node].name);
            exit(1);
        }
        trickle_run(r->t, 0.2);
    }
    trickle_run(r->t, 0.3 + (double)mesh_rand_below(&r->rand, 400) / 1e3);
}

void figure_leader_kill(const bench_options *options)
{
    const cluster_plan plan = { .edges = 2, .routers = 1, .shards = 1, .replicas = 3 };
    run r;
    begin(&r, options, &plan);
    for (unsigned kills = options->quick ? 5 : 50; r.n < kills;) {
        unsigned leader = cluster_leader(&r.c, 0);
        trickle_run(r.t, 0.1);
        if (leader == BENCH_NODES) {
            continue;
        }
        uint64_t at = mesh_clock_us();
        cluster_kill(&r.c, leader);
        trickle_mark(r.t);
        r.s[r.n++] = (double)(trickle_until_acked(r.t) - at) / 1e6;
        restore(&r, leader);
    }
    end(&r, "leader_kill_p50", "leader_kill_max");
}

/* Not only those whose slots it owned: everybody must be served again. */
void figure_router_kill(const bench_options *options)
{
    const cluster_plan plan = { .edges = 2, .routers = 3, .shards = 1, .replicas = 1 };
    run r;
    begin(&r, options, &plan);
    for (unsigned kills = options->quick ? 3 : 50, node = 0; r.n < kills; node = (node + 1) % r.c.n) {
        if (strcmp(r.c.nodes[node].role, "router") != 0) {
            continue;
        }
        uint64_t at = mesh_clock_us();
        cluster_kill(&r.c, node);
        trickle_mark(r.t);
        r.s[r.n++] = (double)(trickle_until_all(r.t) - at) / 1e6;
        restore(&r, node);
    }
    end(&r, "router_kill_p50", "router_kill_max");
}
