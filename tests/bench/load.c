#include "tests/bench/load.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mesh/alloc.h"
#include "mesh/clock.h"

void load_init(load *l, driver *d, unsigned pairs, unsigned window)
{
    *l = (load){ .d = d, .n = pairs, .window = window, .body = LOAD_BODY, .rand = { 1 } };
    l->pairs = mesh_alloc(pairs * sizeof *l->pairs);
    l->marked = mesh_alloc(pairs * sizeof *l->marked);
}

void load_fini(load *l)
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
    char body[LOAD_BODY_MAX + 1];
    int n = snprintf(body, sizeof body, "%016" PRIx64 " %016" PRIx64 " ", now, ++l->pairs[i].sent);
    memset(body + n, 'x', (size_t)((int)l->body - n));
    for (unsigned k = (unsigned)n; k < l->body && l->body > LOAD_BODY; k++) { /* nothing a disk could compress */
        body[k] = (char)('#' + (int)mesh_rand_below(&l->rand, 90));
    }
    body[l->body] = '\0';
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
    return l->done == NULL || !l->done(l->done_arg);
}

static const driver_handler handler = { .sent = on_sent, .message = on_message, .turn = on_turn };

void load_run(load *l, double seconds)
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
void load_settle(load *l)
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

double load_rate(load *l, double seconds)
{
    uint64_t arrived = l->arrived, begin = mesh_clock_us();
    load_run(l, seconds);
    return (double)(l->arrived - arrived) / ((double)(mesh_clock_us() - begin) / 1e6);
}

void load_warm_up(load *l, double seconds)
{
    unsigned window = l->window;
    l->window = window > 0 ? window : 1;
    load_run(l, seconds);
    load_settle(l);
    l->window = window;
}

driver *load_driver(const cluster *c, const char *prefix, unsigned pairs)
{
    driver *d = cluster_driver(c, prefix, 2 * pairs);
    driver_connect(d, 0, 2 * pairs);
    return d;
}

void load_take_latency(load *l, size_t most)
{
    free(l->latency_us);
    l->latency_us = mesh_alloc(most * sizeof *l->latency_us);
    l->max_latency = most;
    l->n_latency = 0;
}

static int by_size(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

double load_latency(load *l, unsigned percent)
{
    if (l->n_latency == 0) {
        fprintf(stderr, "bench: no message has arrived\n");
        exit(1);
    }
    qsort(l->latency_us, l->n_latency, sizeof *l->latency_us, by_size);
    size_t at = l->n_latency * percent / 100;
    return l->latency_us[at < l->n_latency ? at : l->n_latency - 1] / 1e3;
}
