/* A replica is wiped and gets everything again while its shard serves. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "mesh/clock.h"
#include "tests/bench/bench.h"
#include "tests/bench/load.h"

#define FILL_PAIRS 8
#define FILL_WINDOW 4
#define PAIRS 100
#define PER_S 300
#define LIMIT_S 600

/* Write texts until there are so many bytes of them. Returns how many GB there are. */
static double fill(const cluster *c, double bytes)
{
    load l;
    driver *d = load_driver(c, "f", FILL_PAIRS);
    load_init(&l, d, FILL_PAIRS, FILL_WINDOW);
    load_warm_up(&l, 0.5);
    l.body = LOAD_BODY_MAX;
    uint64_t before = l.arrived, begun = mesh_clock_us();
    while ((double)(l.arrived - before) * LOAD_BODY_MAX < bytes) {
        load_run(&l, 1);
    }
    load_settle(&l);
    double gb = (double)(l.arrived - before) * LOAD_BODY_MAX / 1e9;
    printf("    %.2f GB of texts in %.0f s\n", gb, (double)(mesh_clock_us() - begun) / 1e6);
    load_fini(&l);
    driver_destroy(&d);
    return gb;
}

/* Asks until the wiped replica is as good as the others; a process of its own, so that the load has no pauses. */
static pid_t watch(const cluster *c)
{
    (void)fflush(stdout);
    pid_t pid = fork();
    if (pid < 0) {
        perror("fork");
        exit(1);
    }
    if (pid == 0) {
        cluster_progress progress = { 0 };
        for (int i = 0; i < LIMIT_S * 4; i++) {
            if (cluster_is_whole(c, &progress)) {
                _exit(0);
            }
            (void)usleep(250000);
        }
        _exit(1);
    }
    return pid;
}

typedef struct copying {
    pid_t watcher;
    bool over;
    uint64_t over_us;
} copying;

static bool is_over(void *arg)
{
    copying *w = arg;
    int status;
    if (!w->over && waitpid(w->watcher, &status, WNOHANG) == w->watcher) {
        if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
            fprintf(stderr, "bench: the wiped replica is not back\n");
            exit(1);
        }
        w->over = true;
        w->over_us = mesh_clock_us();
    }
    return w->over;
}

static unsigned a_follower(const cluster *c)
{
    unsigned leader = cluster_leader(c, 0);
    for (unsigned i = 0; i < c->n; i++) {
        if (i != leader && leader < BENCH_NODES && strcmp(c->nodes[i].role, "store") == 0) {
            return i;
        }
    }
    fprintf(stderr, "bench: the shard has no leader\n");
    exit(1);
}

/* Below 128 MiB of log the log alone may be what it gets. */
static void must_have_copied(const cluster *c, unsigned node)
{
    char command[256];
    (void)snprintf(command, sizeof command, "grep -q event=copy_ended %s/%s.log", c->dir, c->nodes[node].name);
    if (system(command) != 0) {
        fprintf(stderr, "bench: there was no copy: the log was all it needed\n");
        exit(1);
    }
}

void figure_copy(const bench_options *options)
{
    const cluster_plan plan = { .edges = 2, .routers = 1, .shards = 1, .replicas = 3 };
    cluster c;
    load l;
    cluster_start_as(&c, options, &plan);
    double gb = fill(&c, options->quick ? 200e6 : 600e6);
    driver *d = load_driver(&c, "p", PAIRS);
    load_init(&l, d, PAIRS, 0);
    load_warm_up(&l, 1);
    l.per_s = PER_S;
    load_run(&l, 5); /* what is left of filling is compacted */
    load_take_latency(&l, LIMIT_S * PER_S);
    load_run(&l, options->quick ? 5 : 20);
    double before = load_latency(&l, 99);
    unsigned node = a_follower(&c);
    cluster_kill(&c, node);
    cluster_wipe(&c, node);
    load_run(&l, 1);
    load_take_latency(&l, LIMIT_S * PER_S);
    cluster_run(&c, node);
    copying w = { .watcher = watch(&c) };
    uint64_t begun = mesh_clock_us();
    l.done = is_over;
    l.done_arg = &w;
    load_run(&l, LIMIT_S);
    l.done = NULL;
    double seconds = (double)(w.over_us - begun) / 1e6;
    result_put("copy_p99_before", before, "ms");
    result_put("copy_p99", load_latency(&l, 99), "ms");
    result_put("catch_up_s_per_gb", seconds / gb, "s per GB of texts");
    must_have_copied(&c, node);
    printf("    the copy took %.1f s; worst %.0f ms\n", seconds, load_latency(&l, 100));
    load_settle(&l);
    load_fini(&l);
    driver_destroy(&d);
    cluster_stop(&c);
}
