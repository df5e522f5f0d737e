/* One person writes to one other: throughput at saturation, latency at a fixed rate, the same against the bare parts,
 * and how many messages share an fsync. Client 2i writes to client 2i + 1. The body holds the message's number and when
 * it was sent; each must arrive once, in order. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "mesh/alloc.h"
#include "mesh/clock.h"
#include "tests/bench/bench.h"

#define BODY 64

typedef struct pair {
    uint64_t sent, arrived, answered;
    bool marked;
} pair;

typedef struct load {
    driver *d;
    unsigned n, window; /* window 0: paced */
    pair *pairs;
    unsigned *marked, n_marked;
    bool by_answer; /* the next message waits for the answer only, not for the arrival */
    uint64_t arrived, last_us, longest_us;
    /* paced */
    uint64_t begin_us, paced;
    double per_s;
    uint32_t *latency_us;
    size_t n_latency, max_latency;
} load;

static void load_init(load *l, driver *d, unsigned pairs, unsigned window)
{
    *l = (load){ .d = d, .n = pairs, .window = window };
    l->pairs = mesh_alloc(pairs * sizeof *l->pairs);
    l->marked = mesh_alloc(pairs * sizeof *l->marked);
}

static void load_fini(load *l)
{
    free(l->pairs);
    free(l->marked);
    free(l->latency_us);
}

static void mark(load *l, unsigned i)
{
    if (!l->pairs[i].marked) {
        l->pairs[i].marked = true;
        l->marked[l->n_marked++] = i;
    }
}

static void send_one(load *l, unsigned i, uint64_t now)
{
    char body[BODY + 1];
    int n = snprintf(body, sizeof body, "%016" PRIx64 " %016" PRIx64 " ", now, ++l->pairs[i].sent);
    memset(body + n, 'x', (size_t)(BODY - n));
    body[BODY] = '\0';
    driver_send(l->d, driver_get(l->d, 2 * i), NULL, driver_get(l->d, 2 * i + 1)->user, body);
}

static void on_sent(void *arg, driver_conn *c, uint64_t id, const Client__Sent *sent)
{
    (void)id;
    (void)sent;
    load *l = arg;
    l->pairs[c->index / 2].answered++;
    if (l->by_answer) {
        mark(l, c->index / 2);
    }
}

static void on_message(void *arg, driver_conn *c, const Client__Message *message, uint64_t now)
{
    load *l = arg;
    pair *p = &l->pairs[c->index / 2];
    uint64_t sent_us, number;
    if (c->index % 2 == 0) {
        return; /* one's own message, seen on one's own device */
    }
    if (sscanf(message->body, "%16" SCNx64 " %16" SCNx64, &sent_us, &number) != 2 || number != p->arrived + 1) {
        fprintf(stderr, "bench: %s: message out of order\n", c->user);
        exit(1);
    }
    p->arrived++;
    l->arrived++;
    uint64_t gap = now - l->last_us;
    l->longest_us = gap > l->longest_us ? gap : l->longest_us;
    l->last_us = now;
    if (l->n_latency < l->max_latency) {
        l->latency_us[l->n_latency++] = (uint32_t)(mesh_clock_us() - sent_us);
    }
    if (!l->by_answer) {
        mark(l, c->index / 2);
    }
}

static bool on_turn(void *arg, uint64_t now)
{
    load *l = arg;
    for (unsigned k = 0; k < l->n_marked; k++) {
        unsigned i = l->marked[k];
        pair *p = &l->pairs[i];
        p->marked = false;
        while (l->window > 0 && p->sent - (l->by_answer ? p->answered : p->arrived) < l->window) {
            send_one(l, i, now);
        }
    }
    l->n_marked = 0;
    while (l->per_s > 0 && (double)l->paced < (double)(now - l->begin_us) * l->per_s / 1e6) {
        send_one(l, (unsigned)(l->paced++ % l->n), now);
    }
    return true;
}

static const driver_handler handler = { .sent = on_sent, .message = on_message, .turn = on_turn };

static void run(load *l, double seconds)
{
    l->last_us = l->begin_us = mesh_clock_us();
    l->longest_us = 0;
    l->paced = 0;
    for (unsigned i = 0; i < l->n && l->window > 0; i++) {
        mark(l, i);
    }
    on_turn(l, l->begin_us);
    driver_run(l->d, &handler, l, l->begin_us + (uint64_t)(seconds * 1e6), l->per_s > 0 ? 500 : 0);
}

static bool all_arrived(void *arg, uint64_t now)
{
    (void)now;
    const load *l = arg;
    for (unsigned i = 0; i < l->n; i++) {
        if (l->pairs[i].arrived != l->pairs[i].sent || l->pairs[i].answered != l->pairs[i].sent) {
            return false;
        }
    }
    return true;
}

static bool not_all_arrived(void *arg, uint64_t now)
{
    return !all_arrived(arg, now);
}

/* Everything sent must have arrived and been answered. */
static void settle(load *l)
{
    driver_handler quiet = handler;
    quiet.turn = not_all_arrived;
    driver_run(l->d, &quiet, l, mesh_clock_us() + 10u * 1000000, 1000);
    l->n_marked = 0;
    for (unsigned i = 0; i < l->n; i++) {
        l->pairs[i].marked = false;
    }
    if (!all_arrived(l, 0)) {
        fprintf(stderr, "bench: messages have not arrived\n");
        exit(1);
    }
}

static double rate_of(load *l, double seconds)
{
    uint64_t arrived = l->arrived, begin = mesh_clock_us();
    run(l, seconds);
    return (double)(l->arrived - arrived) / ((double)(mesh_clock_us() - begin) / 1e6);
}

/* Direct chats are made by their first message: one each, then all is as it will be. */
static void warm_up(load *l, double seconds)
{
    unsigned window = l->window;
    l->window = window > 0 ? window : 1;
    run(l, seconds);
    settle(l);
    l->window = window;
}

static driver *pairs_of(const cluster *c, const char *prefix, unsigned pairs)
{
    driver *d = cluster_driver(c, prefix, 2 * pairs);
    driver_connect(d, 0, 2 * pairs);
    return d;
}

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
    driver *d = pairs_of(&c, "p", options->pairs);
    load_init(&l, d, options->pairs, options->window);
    warm_up(&l, 2);
    cluster_store_counts before = cluster_store_counted(&c);
    double cpu[4];
    take_cpu(&c, cpu);
    uint64_t acks = driver_counted(d)->acks;
    double seconds = options->seconds;
    double rate = rate_of(&l, seconds);
    double pause = (double)l.longest_us / 1e3;
    print_cpu(&c, cpu, seconds);
    settle(&l);
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

static int by_size(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

void figure_latency(const bench_options *options)
{
    cluster c;
    load l;
    double seconds = options->quick ? 5 : 30;
    cluster_start(&c, options, 2);
    driver *d = pairs_of(&c, "p", 100);
    load_init(&l, d, 100, 0);
    warm_up(&l, 1);
    l.per_s = 1000;
    run(&l, 1);
    settle(&l);
    l.max_latency = (size_t)(seconds * 1200);
    l.latency_us = mesh_alloc(l.max_latency * sizeof *l.latency_us);
    cluster_store_counts before = cluster_store_counted(&c);
    run(&l, seconds);
    cluster_store_counts after = cluster_store_counted(&c);
    double n = (double)(after.messages - before.messages);
    qsort(l.latency_us, l.n_latency, sizeof *l.latency_us, by_size);
    result_put("one_to_one_latency_p50", l.latency_us[l.n_latency / 2] / 1e3, "ms");
    result_put("one_to_one_latency_p99", l.latency_us[l.n_latency * 99 / 100] / 1e3, "ms");
    result_put("one_to_one_latency_max", l.latency_us[l.n_latency - 1] / 1e3, "ms");
    printf("    per message: %.2f fsyncs, %.2f log entries, %.2f cursor moves\n",
           (double)(after.syncs - before.syncs) / n, (double)(after.entries - before.entries) / n,
           (double)(after.acks - before.acks) / n);
    settle(&l);
    load_fini(&l);
    driver_destroy(&d);
    cluster_stop(&c);
}

typedef struct bare_result {
    double rate, rows, row_bytes;
} bare_result;

static bare_result run_bare(const bench_options *options, double seconds)
{
    char command[256], line[512] = "";
    bare_result r = { 0 };
    (void)snprintf(command, sizeof command, "%s/tests/bench/bare --pairs %u --window %u --seconds %.1f", options->build,
                   options->pairs, options->window, seconds);
    FILE *f = popen(command, "re");
    if (f == NULL || fgets(line, sizeof line, f) == NULL || pclose(f) != 0 ||
        sscanf(line, "{\"messages_per_s\": %lf, \"rows_per_message\": %lf, \"row_bytes_per_message\": %lf", &r.rate,
               &r.rows, &r.row_bytes) != 3) {
        fprintf(stderr, "bench: %s failed\n", command);
        exit(1);
    }
    return r;
}

/* Bare, real, bare, real: what else happens on the machine hits both. */
void figure_ratio(const bench_options *options)
{
    cluster c;
    load l;
    double seconds = options->quick ? 4 : 15, real = 0, bare = 0;
    bare_result r = { 0 };
    cluster_start(&c, options, 2);
    driver *d = pairs_of(&c, "p", options->pairs);
    load_init(&l, d, options->pairs, options->window);
    warm_up(&l, 2);
    for (int half = 0; half < 2; half++) {
        r = run_bare(options, seconds);
        bare += r.rate / 2;
        real += rate_of(&l, seconds) / 2;
        settle(&l);
    }
    result_put("bare_throughput", bare, "messages/s");
    result_put("bare_rows", r.rows, "rows/message");
    result_put("bare_row_bytes", r.row_bytes, "bytes/message");
    result_put("one_to_one_of_bare", real / bare, "ratio");
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
        driver *d = pairs_of(&c, prefix, senders[i]);
        load_init(&l, d, senders[i], 1);
        l.by_answer = true;
        warm_up(&l, 1);
        cluster_store_counts before = cluster_store_counted(&c);
        double rate = rate_of(&l, options->quick ? 3 : 10);
        settle(&l);
        cluster_store_counts after = cluster_store_counted(&c);
        (void)snprintf(name, sizeof name, "messages_per_fsync_%u_senders", senders[i]);
        result_put(name, (double)(after.messages - before.messages) / (double)(after.syncs - before.syncs), "messages");
        printf("    %.0f messages/s\n", rate);
        load_fini(&l);
        driver_destroy(&d);
    }
    cluster_stop(&c);
}
