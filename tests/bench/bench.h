/* tests/bench/bench.h: what the figures share: a cluster to measure, and where results go. */
#ifndef TESTS_BENCH_H
#define TESTS_BENCH_H

#include <stdbool.h>
#include <sys/types.h>

#include "tests/bench/driver.h"

#define BENCH_NODES 16

typedef struct bench_options {
    const char *build; /* directory of the programs */
    double seconds;    /* of the sustained run */
    bool quick;
    unsigned pairs, window; /* of 1:1 at saturation */
    const char *command;    /* that was given, for the results */
} bench_options;

/* ---- cluster.c ---- */

typedef struct cluster_plan {
    unsigned edges, routers, shards, replicas;
} cluster_plan;

typedef struct cluster_node {
    char name[33], role[16];
    unsigned shard; /* of a store */
    pid_t pid;      /* 0: it does not run */
} cluster_node;

typedef struct cluster {
    const bench_options *options;
    char dir[64];
    uint16_t port;
    cluster_plan plan;
    mesh_buf token_key;
    cluster_node nodes[BENCH_NODES];
    unsigned n;
} cluster;

/* Make keys and config in a fresh directory, start every node, wait for a real message, and until the cluster is whole.
 * Exits when that fails. cluster_start: with one router and one store. */
void cluster_start(cluster *c, const bench_options *options, unsigned edges);
void cluster_start_as(cluster *c, const bench_options *options, const cluster_plan *plan);
void cluster_start_stores(cluster *c, const bench_options *options, const cluster_plan *plan); /* and nothing else */
void cluster_stop(cluster *c); /* SIGTERM, wait, remove the directory */
driver *cluster_driver(const cluster *c, const char *prefix, unsigned clients);
void cluster_kill(cluster *c, unsigned node); /* kill -9; it is gone when this returns */
void cluster_wipe(cluster *c, unsigned node); /* remove a store's directory; it must not run */
void cluster_run(cluster *c, unsigned node);  /* start one that does not run */

/* ---- cluster_stats.c ---- */

/* Each of these asks every node for its metrics, over node links with the operator's key: within a tenth of a second
 * when all are up, and about two where one is not. */

/* The node that leads a shard; BENCH_NODES: nobody says so. */
unsigned cluster_leader(const cluster *c, unsigned shard);

typedef struct cluster_progress { /* {0} at first */
    uint64_t commit[BENCH_NODES]; /* by shard: the leader's, at the last look */
} cluster_progress;

/* One look: is all as the config says (client/view.h), has every store applied what its leader had committed at the
 * look before, and does it know the newest ring? */
bool cluster_is_whole(const cluster *c, cluster_progress *progress);

typedef struct cluster_store_counts {
    uint64_t messages, rows, row_bytes, syncs, entries, appends, acks, trimmed, resent;
} cluster_store_counts;

/* What the leaders of all shards have counted, summed. */
cluster_store_counts cluster_store_counted(const cluster *c);
void cluster_print_stores(const cluster *c);              /* log entries, batches and syncs of each, since its start */
uint64_t cluster_rss(const cluster *c, const char *role); /* bytes, sum over the role's processes */
double cluster_cpu(const cluster *c, const char *role);   /* seconds of CPU so far */

/* ---- result.c ---- */

void result_load(const char *path); /* what an earlier run wrote is kept for figures that are not measured now */
void result_put(const char *name, double value, const char *unit);
void result_save(const char *path);
void result_command(const char *command);

/* ---- the figures ---- */

void figure_one_to_one(const bench_options *options); /* run_pairs.c */
void figure_latency(const bench_options *options);
void figure_ratio(const bench_options *options);
void figure_fsyncs(const bench_options *options);
void figure_idle(const bench_options *options); /* run_many.c */
void figure_storm(const bench_options *options);
void figure_group(const bench_options *options);
void figure_replicas(const bench_options *options); /* run_replicas.c */
void figure_cross_shard(const bench_options *options);
void figure_store_alone(const bench_options *options); /* run_store.c */
void figure_leader_kill(const bench_options *options); /* run_kills.c */
void figure_router_kill(const bench_options *options);
void figure_slots_move(const bench_options *options); /* run_slots.c */
void figure_copy(const bench_options *options);       /* run_copy.c */

#endif
