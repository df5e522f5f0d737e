#include "tests/bench/trickle.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mesh/alloc.h"
#include "mesh/clock.h"

#define LIMIT_US (30u * 1000000)
#define RETRY_US 20000 /* when the error does not say when */

typedef struct sender {
    uint64_t number, arrived;    /* of the last message sent; of the last that arrived */
    uint64_t first_id;           /* of the request that sent it first: a late answer to an earlier one has a lower id */
    uint64_t issued_us;          /* first */
    uint64_t tried_us, due_us;   /* last; when it is due again, or the next */
    bool waiting;                /* for its ack */
    bool acked_new, arrived_new; /* one that was sent after the mark */
} sender;

struct trickle {
    driver *d;
    unsigned n, pause_us;
    sender *senders;
    bool closing; /* nothing new is sent */
    uint64_t mark_us, first_acked_us, all_us;
    unsigned whole; /* senders with both */
    uint64_t retries;
    bool taking;
    uint32_t *latency_us;
    size_t n_latency, cap_latency;
    bool (*enough)(const trickle *t);
};

trickle *trickle_new(driver *d, unsigned pairs, unsigned pause_ms)
{
    trickle *t = mesh_alloc(sizeof *t);
    t->d = d;
    t->n = pairs;
    t->pause_us = pause_ms * 1000;
    t->senders = mesh_alloc(pairs * sizeof *t->senders);
    for (unsigned i = 0; i < pairs; i++) { /* not all at once */
        t->senders[i].due_us = mesh_clock_us() + (uint64_t)t->pause_us * i / pairs;
    }
    return t;
}

void trickle_destroy(trickle **t_p)
{
    free((*t_p)->senders);
    free((*t_p)->latency_us);
    free(*t_p);
    *t_p = NULL;
}

static void give_up(const driver_conn *c, const char *what)
{
    fprintf(stderr, "bench: %s: %s\n", c->user, what);
    exit(1);
}

static void send_one(trickle *t, unsigned i, uint64_t now)
{
    sender *s = &t->senders[i];
    driver_conn *c = driver_get(t->d, 2 * i);
    char body[64], id[64];
    bool again = s->waiting;
    if (!again) {
        s->number++;
        s->issued_us = now;
        s->waiting = true;
    }
    t->retries += again;
    (void)snprintf(id, sizeof id, "%s-%" PRIu64, c->user, s->number);
    (void)snprintf(body, sizeof body, "%016" PRIx64 " %016" PRIx64, s->issued_us, s->number);
    uint64_t request = driver_send_as(t->d, c, id, driver_get(t->d, 2 * i + 1)->user, body);
    s->first_id = again ? s->first_id : request;
    s->tried_us = now;
    s->due_us = now + TRICKLE_ANSWER_MS * 1000u;
}

static void note(trickle *t, const sender *s, bool was_whole)
{
    if (!was_whole && s->acked_new && s->arrived_new && ++t->whole == t->n) {
        t->all_us = mesh_clock_us();
    }
}

static void on_sent(void *arg, driver_conn *c, uint64_t id, const Client__Sent *sent)
{
    (void)sent;
    trickle *t = arg;
    sender *s = &t->senders[c->index / 2];
    if (!s->waiting || id < s->first_id) {
        return; /* the answer to an earlier try of what was acked meanwhile */
    }
    uint64_t now = mesh_clock_us();
    s->waiting = false;
    s->due_us = now + t->pause_us;
    if (t->mark_us != 0 && s->issued_us > t->mark_us) {
        bool was_whole = s->acked_new && s->arrived_new;
        s->acked_new = true;
        t->first_acked_us = t->first_acked_us != 0 ? t->first_acked_us : now;
        note(t, s, was_whole);
    }
}

static void on_fault(void *arg, driver_conn *c, uint64_t id, const Client__Error *error)
{
    trickle *t = arg;
    sender *s = &t->senders[c->index / 2];
    if (error->retry != CLIENT__RETRY__RETRY_SAME) {
        give_up(c, error->name);
    }
    if (c->index % 2 == 0 && s->waiting && id >= s->first_id) {
        s->due_us = mesh_clock_us() + (error->after_ms > 0 ? error->after_ms * 1000u : RETRY_US);
    }
}

static void take_latency(trickle *t, uint64_t us)
{
    if (t->n_latency == t->cap_latency) {
        t->cap_latency = t->cap_latency > 0 ? 2 * t->cap_latency : 4096;
        t->latency_us = mesh_realloc(t->latency_us, t->cap_latency * sizeof *t->latency_us);
    }
    t->latency_us[t->n_latency++] = (uint32_t)us;
}

static void on_message(void *arg, driver_conn *c, const Client__Message *message, uint64_t now)
{
    (void)now;
    trickle *t = arg;
    sender *s = &t->senders[c->index / 2];
    uint64_t issued_us, number;
    if (c->index % 2 == 0) {
        return; /* one's own message, seen on one's own device */
    }
    if (sscanf(message->body, "%16" SCNx64 " %16" SCNx64, &issued_us, &number) != 2 || number != s->arrived + 1) {
        give_up(c, "a message is lost or doubled");
    }
    s->arrived = number;
    if (t->taking) {
        take_latency(t, mesh_clock_us() - issued_us);
    }
    if (t->mark_us != 0 && issued_us > t->mark_us) {
        bool was_whole = s->acked_new && s->arrived_new;
        s->arrived_new = true;
        note(t, s, was_whole);
    }
}

static bool on_turn(void *arg, uint64_t now)
{
    trickle *t = arg;
    for (unsigned i = 0; i < t->n; i++) {
        const sender *s = &t->senders[i];
        if (now >= s->due_us && (s->waiting || !t->closing)) {
            send_one(t, i, now);
        }
    }
    return t->enough == NULL || !t->enough(t);
}

static bool run(trickle *t, uint64_t us, bool (*enough)(const trickle *t))
{
    static const driver_handler handler = {
        .sent = on_sent, .message = on_message, .fault = on_fault, .turn = on_turn
    };
    t->enough = enough;
    driver_run(t->d, &handler, t, mesh_clock_us() + us, 1000);
    return enough == NULL || enough(t);
}

static void must(bool ok, const char *what)
{
    if (!ok) {
        fprintf(stderr, "bench: after %u s: %s\n", LIMIT_US / 1000000, what);
        exit(1);
    }
}

void trickle_run(trickle *t, double seconds)
{
    (void)run(t, (uint64_t)(seconds * 1e6), NULL);
}

void trickle_mark(trickle *t)
{
    t->mark_us = mesh_clock_us();
    t->first_acked_us = t->all_us = 0;
    t->whole = 0;
    for (unsigned i = 0; i < t->n; i++) {
        t->senders[i].acked_new = t->senders[i].arrived_new = false;
    }
}

static bool is_acked(const trickle *t)
{
    return t->first_acked_us != 0;
}

static bool is_all(const trickle *t)
{
    return t->all_us != 0;
}

static bool is_settled(const trickle *t)
{
    for (unsigned i = 0; i < t->n; i++) {
        if (t->senders[i].waiting || t->senders[i].arrived != t->senders[i].number) {
            return false;
        }
    }
    return true;
}

uint64_t trickle_until_acked(trickle *t)
{
    must(run(t, LIMIT_US, is_acked), "nothing is acked");
    return t->first_acked_us;
}

uint64_t trickle_until_all(trickle *t)
{
    must(run(t, LIMIT_US, is_all), "not everybody's messages are acked and arrive");
    return t->all_us;
}

void trickle_take_latency(trickle *t)
{
    t->taking = true;
    t->n_latency = 0;
}

static int by_size(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

double trickle_latency(trickle *t, unsigned percent)
{
    must(t->n_latency > 0, "nothing has arrived");
    qsort(t->latency_us, t->n_latency, sizeof *t->latency_us, by_size);
    size_t at = t->n_latency * percent / 100;
    return t->latency_us[at < t->n_latency ? at : t->n_latency - 1] / 1e3;
}

uint64_t trickle_settle(trickle *t, uint64_t *retries_p)
{
    t->closing = true;
    must(run(t, LIMIT_US, is_settled), "messages are lost");
    t->closing = false;
    uint64_t sum = 0;
    for (unsigned i = 0; i < t->n; i++) {
        sum += t->senders[i].number;
    }
    *retries_p = t->retries;
    return sum;
}
