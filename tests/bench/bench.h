/* tests/bench/bench.h: what the figures share: a cluster to measure, and where results go. */
#ifndef TESTS_BENCH_H
#define TESTS_BENCH_H

#include <stdbool.h>
#include <sys/types.h>

#include "tests/bench/driver.h"

#define BENCH_NODES 8

typedef struct bench_options {
    const char *build; /* directory of the programs */
    double seconds;    /* of the sustained run */
    bool quick;
    unsigned pairs, window; /* of 1:1 at saturation */
    const char *command;    /* that was given, for the results */
} bench_options;

/* ---- cluster.c ---- */

typedef struct cluster_node {
    char name[33], role[16];
    pid_t pid;
} cluster_node;

typedef struct cluster {
    const bench_options *options;
    char dir[64];
    uint16_t port;
    mesh_buf token_key;
    cluster_node nodes[BENCH_NODES];
    unsigned n;
} cluster;

/* Make keys and config in a fresh directory, start every node, wait for a real message. Exits when that fails. */
void cluster_start(cluster *c, const bench_options *options, unsigned edges);
void cluster_stop(cluster *c); /* SIGTERM, wait, remove the directory */
driver *cluster_driver(const cluster *c, const char *prefix, unsigned clients);

typedef struct cluster_store_counts {
    uint64_t messages, rows, row_bytes, syncs, entries, appends, acks, trimmed, resent;
} cluster_store_counts;

/* What the store has counted, asked over a node link with the operator's key. */
cluster_store_counts cluster_store_counted(const cluster *c);
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

#endif
