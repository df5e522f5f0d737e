/* One person writes to one other: throughput at saturation, latency at a fixed rate, the same against the bare parts,
 * and how many messages share an fsync. */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "mesh/clock.h"
#include "tests/bench/bench.h"
#include "tests/bench/load.h"

static const char *const roles[3] = { "edge", "router", "store" };

static void take_cpu(const cluster *c, double cpu[4])
{
    for (int i = 0; i < 3; i++) {
        cpu[i] = cluster_cpu(c, roles[i]);
    }
    cpu[3] = (double)clock() / CLOCKS_PER_SEC;
}

static void print_cpu(const cluster *c, const double before[4], double seconds)
{
    double now[4];
    take_cpu(c, now);
    printf("    cores used: edges %.2f router %.2f store %.2f driver %.2f\n", (now[0] - before[0]) / seconds,
           (now[1] - before[1]) / seconds, (now[2] - before[2]) / seconds, (now[3] - before[3]) / seconds);
}

void figure_one_to_one(const bench_options *options)
{
    cluster c;
    load l;
    cluster_start(&c, options, 2);
    driver *d = load_driver(&c, "p", options->pairs);
    load_init(&l, d, options->pairs, options->window);
    load_warm_up(&l, 2);
    cluster_store_counts before = cluster_store_counted(&c);
    double cpu[4];
    take_cpu(&c, cpu);
    uint64_t acks = driver_counted(d)->acks;
    double seconds = options->seconds;
    double rate = load_rate(&l, seconds);
    double pause = (double)l.longest_us / 1e3;
    print_cpu(&c, cpu, seconds);
    load_settle(&l);
    cluster_store_counts after = cluster_store_counted(&c);
    double n = (double)(after.messages - before.messages);
    result_put("one_to_one_throughput", rate, "messages/s");
    result_put("one_to_one_longest_pause", pause, "ms");
    double trimmed = (double)(after.trimmed - before.trimmed);
    result_put("one_to_one_rows", ((double)(after.rows - before.rows) - trimmed) / n, "rows/message");
    result_put("one_to_one_rows_trimmed", trimmed / n, "rows deleted/message");
    result_put("one_to_one_row_bytes", (double)(after.row_bytes - before.row_bytes) / n, "bytes/message");
    result_put("one_to_one_messages_per_fsync", n / (double)(after.syncs - before.syncs), "messages");
    printf("    %.0f messages, %.1f acks of clients per 100, %.1f cursor moves, %.2f log entries, %.2f sent again\n", n,
           (double)(driver_counted(d)->acks - acks) * 100 / n, (double)(after.acks - before.acks) * 100 / n,
           (double)(after.entries - before.entries) * 100 / n, (double)(after.resent - before.resent) * 100 / n);
    load_fini(&l);
    driver_destroy(&d);
    cluster_stop(&c);
}

void figure_latency(const bench_options *options)
{
    cluster c;
    load l;
    double seconds = options->quick ? 5 : 30;
    cluster_start(&c, options, 2);
    driver *d = load_driver(&c, "p", 100);
    load_init(&l, d, 100, 0);
    load_warm_up(&l, 1);
    l.per_s = 1000;
    load_run(&l, 1);
    load_settle(&l);
    load_take_latency(&l, (size_t)(seconds * 1200));
    cluster_store_counts before = cluster_store_counted(&c);
    load_run(&l, seconds);
    cluster_store_counts after = cluster_store_counted(&c);
    double n = (double)(after.messages - before.messages);
    result_put("one_to_one_latency_p50", load_latency(&l, 50), "ms");
    result_put("one_to_one_latency_p99", load_latency(&l, 99), "ms");
    result_put("one_to_one_latency_max", load_latency(&l, 100), "ms");
    printf("    per message: %.2f fsyncs, %.2f log entries, %.2f cursor moves\n",
           (double)(after.syncs - before.syncs) / n, (double)(after.entries - before.entries) / n,
           (double)(after.acks - before.acks) / n);
    load_settle(&l);
    load_fini(&l);
    driver_destroy(&d);
    cluster_stop(&c);
}

typedef struct bare_result {
    double rate, rows, row_bytes;
} bare_result;

static bare_result run_bare(const bench_options *options, unsigned commits, double seconds)
{
    char command[256], line[512] = "";
    bare_result r = { 0 };
    (void)snprintf(command, sizeof command, "%s/tests/bench/bare --pairs %u --window %u --commits %u --seconds %.1f",
                   options->build, options->pairs, options->window, commits, seconds);
    FILE *f = popen(command, "re");
    if (f == NULL || fgets(line, sizeof line, f) == NULL || pclose(f) != 0 ||
        sscanf(line, "{\"messages_per_s\": %lf, \"rows_per_message\": %lf, \"row_bytes_per_message\": %lf", &r.rate,
               &r.rows, &r.row_bytes) != 3) {
        fprintf(stderr, "bench: %s failed\n", command);
        exit(1);
    }
    return r;
}

/* Bare with two commits and with one, real, and again: what else happens on the machine hits both. */
void figure_ratio(const bench_options *options)
{
    cluster c;
    load l;
    double seconds = options->quick ? 4 : 15, real = 0, bare = 0, once = 0;
    bare_result r = { 0 };
    cluster_start(&c, options, 2);
    driver *d = load_driver(&c, "p", options->pairs);
    load_init(&l, d, options->pairs, options->window);
    load_warm_up(&l, 2);
    for (int half = 0; half < 2; half++) {
        once += run_bare(options, 1, seconds).rate / 2;
        r = run_bare(options, 2, seconds);
        bare += r.rate / 2;
        real += load_rate(&l, seconds) / 2;
        load_settle(&l);
    }
    result_put("bare_throughput", bare, "messages/s");
    result_put("bare_rows", r.rows, "rows/message");
    result_put("bare_row_bytes", r.row_bytes, "bytes/message");
    result_put("one_to_one_of_bare", real / bare, "ratio");
    result_put("bare_one_commit_throughput", once, "messages/s");
    result_put("one_to_one_of_bare_one_commit", real / once, "ratio");
    printf("    real in the same run: %.0f messages/s\n", real);
    load_fini(&l);
    driver_destroy(&d);
    cluster_stop(&c);
}

void figure_fsyncs(const bench_options *options)
{
    static const unsigned senders[] = { 1, 100, 1000 };
    cluster c;
    cluster_start(&c, options, 2);
    for (size_t i = 0; i < sizeof senders / sizeof *senders; i++) {
        char prefix[16], name[64];
        load l;
        (void)snprintf(prefix, sizeof prefix, "s%zu-", i);
        driver *d = load_driver(&c, prefix, senders[i]);
        load_init(&l, d, senders[i], 1);
        l.by_answer = true;
        load_warm_up(&l, 1);
        cluster_store_counts before = cluster_store_counted(&c);
        double rate = load_rate(&l, options->quick ? 3 : 10);
        load_settle(&l);
        cluster_store_counts after = cluster_store_counted(&c);
        (void)snprintf(name, sizeof name, "messages_per_fsync_%u_senders", senders[i]);
        result_put(name, (double)(after.messages - before.messages) / (double)(after.syncs - before.syncs), "messages");
        printf("    %.0f messages/s\n", rate);
        load_fini(&l);
        driver_destroy(&d);
    }
    cluster_stop(&c);
}
