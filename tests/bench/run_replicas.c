/* What replication costs: one replica and three take turns within a run; and what it costs when the chat and an inbox
 * are of different shards. */
#include <stdio.h>

#include "tests/bench/bench.h"
#include "tests/bench/load.h"

#define PACED_PER_S 500

typedef struct measured {
    double rate, p50, p99;
} measured;

/* A cluster of its own: nothing of the other one runs meanwhile. Adds a share of what it measures. */
static void measure(const bench_options *options, const cluster_plan *plan, double share, measured *sum)
{
    cluster c;
    load l;
    double seconds = options->quick ? 4 : 15;
    cluster_start_as(&c, options, plan);
    driver *d = load_driver(&c, "p", options->pairs);
    load_init(&l, d, options->pairs, options->window);
    load_warm_up(&l, 2);
    cluster_store_counts before = cluster_store_counted(&c);
    double cpu[3] = { cluster_cpu(&c, "edge"), cluster_cpu(&c, "router"), cluster_cpu(&c, "store") };
    double rate = load_rate(&l, seconds);
    cpu[0] = cluster_cpu(&c, "edge") - cpu[0];
    cpu[1] = cluster_cpu(&c, "router") - cpu[1];
    cpu[2] = cluster_cpu(&c, "store") - cpu[2];
    load_settle(&l);
    cluster_store_counts after = cluster_store_counted(&c);
    l.window = 0;
    l.per_s = PACED_PER_S;
    load_run(&l, 1);
    load_settle(&l);
    load_take_latency(&l, (size_t)(seconds * PACED_PER_S * 2));
    load_run(&l, seconds);
    load_settle(&l);
    double p50 = load_latency(&l, 50), p99 = load_latency(&l, 99);
    printf(
        "    %u of %u: %.0f messages/s, %.1f messages per log entry; p50 %.2f ms, p99 %.2f ms; cores used: edges %.2f "
        "router %.2f stores %.2f\n",
        plan->shards, plan->replicas, rate,
        (double)(after.messages - before.messages) / (double)(after.entries - before.entries), p50, p99,
        cpu[0] / seconds, cpu[1] / seconds, cpu[2] / seconds);
    sum->rate += share * rate;
    sum->p50 += share * p50;
    sum->p99 += share * p99;
    load_fini(&l);
    driver_destroy(&d);
    cluster_stop(&c);
}

void figure_replicas(const bench_options *options)
{
    static const cluster_plan one = { .edges = 2, .routers = 1, .shards = 1, .replicas = 1 };
    static const cluster_plan three = { .edges = 2, .routers = 1, .shards = 1, .replicas = 3 };
    measured of_one = { 0 }, of_three = { 0 };
    for (int half = 0; half < 2; half++) {
        measure(options, &one, 0.5, &of_one);
        measure(options, &three, 0.5, &of_three);
    }
    result_put("one_replica_throughput", of_one.rate, "messages/s");
    result_put("three_replicas_throughput", of_three.rate, "messages/s");
    result_put("three_replicas_of_one", of_three.rate / of_one.rate, "ratio");
    result_put("one_replica_latency_p50", of_one.p50, "ms");
    result_put("one_replica_latency_p99", of_one.p99, "ms");
    result_put("three_replicas_latency_p50", of_three.p50, "ms");
    result_put("three_replicas_latency_p99", of_three.p99, "ms");
}

/* The hash decides: a chat and its two inboxes are of the same shard in a quarter of the cases. */
void figure_cross_shard(const bench_options *options)
{
    static const cluster_plan plan = { .edges = 2, .routers = 1, .shards = 2, .replicas = 1 };
    measured m = { 0 };
    measure(options, &plan, 1, &m);
    result_put("cross_shard_throughput", m.rate, "messages/s");
    result_put("cross_shard_latency_p50", m.p50, "ms");
    result_put("cross_shard_latency_p99", m.p99, "ms");
}
