/* tests/sim/sched.c: fake time. Events leave a heap by time; what is due at the same moment goes in an order drawn from
 * the seed, so that no test leans on an order that nobody promised. */
#include "tests/sim/impl.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define COMPLAINTS_MAX 4000
#define TRACE_MAX (4u << 20)

static bool before(const sim_event *a, const sim_event *b)
{
    return a->at != b->at ? a->at < b->at : a->tie < b->tie;
}

static void sift_up(sim_event *heap, size_t i)
{
    while (i > 0 && before(&heap[i], &heap[(i - 1) / 2])) {
        sim_event t = heap[i];
        heap[i] = heap[(i - 1) / 2];
        heap[(i - 1) / 2] = t;
        i = (i - 1) / 2;
    }
}

static void sift_down(sim_event *heap, size_t n)
{
    for (size_t i = 0;;) {
        size_t least = i;
        for (size_t child = 2 * i + 1; child <= 2 * i + 2; child++) {
            if (child < n && before(&heap[child], &heap[least])) {
                least = child;
            }
        }
        if (least == i) {
            return;
        }
        sim_event t = heap[i];
        heap[i] = heap[least];
        heap[least] = t;
        i = least;
    }
}

void sim_at(sim *s, sim_us at, sim_fn *fn, void *arg, uint64_t tag)
{
    if (s->n_heap == s->heap_cap) {
        s->heap_cap = s->heap_cap ? s->heap_cap * 2 : 256;
        s->heap = mesh_realloc(s->heap, s->heap_cap * sizeof *s->heap);
    }
    uint64_t tie = (mesh_rand_next(&s->rand) << 32) | (s->ties++ & UINT32_MAX);
    s->heap[s->n_heap] = (sim_event){ .at = at > s->now ? at : s->now, .tie = tie, .fn = fn, .arg = arg, .tag = tag };
    sift_up(s->heap, s->n_heap++);
}

bool sim_step(sim *s, mesh_ms until)
{
    if (s->n_heap == 0 || s->heap[0].at > until * 1000) {
        s->now = until * 1000 > s->now ? until * 1000 : s->now;
        return false;
    }
    sim_event e = s->heap[0];
    s->heap[0] = s->heap[--s->n_heap];
    sift_down(s->heap, s->n_heap);
    s->now = e.at;
    e.fn(s, e.arg, e.tag);
    return true;
}

void sim_run(sim *s, mesh_ms ms)
{
    mesh_ms until = sim_now(s) + ms;
    while (sim_step(s, until)) {
    }
}

mesh_ms sim_now(const sim *s)
{
    return s->now / 1000;
}

mesh_time sim_time(const sim *s)
{
    return (mesh_time){ .mono = sim_now(s), .wall = SIM_WALL_MS + sim_now(s) - SIM_EPOCH_MS + s->wall_jump };
}

uint64_t sim_random(sim *s, uint64_t below)
{
    return mesh_rand_below(&s->rand, below);
}

sim_us sim_between(sim *s, sim_us low, sim_us high)
{
    return low + (sim_us)mesh_rand_below(&s->rand, (uint64_t)(high - low) + 1);
}

/* Mostly quick, now and then slow: what reorders things in practice is the odd one out. */
sim_us sim_latency(sim *s)
{
    sim_us us = sim_random(s, 16) == 0 ? sim_between(s, 1000, 8000) : sim_between(s, 50, 900);
    return us * (sim_us)s->net_times;
}

void sim_clock_jump(sim *s, mesh_ms by)
{
    sim_trace(s, "the clock jumps by %lld ms", (long long)by);
    s->wall_jump += by;
}

void sim_net_slow(sim *s, unsigned times)
{
    s->net_times = times;
}

void sim_mix(sim *s, uint64_t a, uint64_t b)
{
    uint64_t x = s->hash ^ (a * 0x9e3779b97f4a7c15u) ^ ((uint64_t)s->now << 20);
    x = (x ^ (x >> 29)) * 0xbf58476d1ce4e5b9u + b;
    s->hash = (x ^ (x >> 32)) * 0x94d049bb133111ebu;
}

uint64_t sim_hash(const sim *s)
{
    return s->hash;
}

bool sim_tracing(const sim *s)
{
    return s->conf.trace || s->conf.echo;
}

void sim_trace(sim *s, const char *format, ...)
{
    if (!sim_tracing(s)) {
        return;
    }
    char line[512];
    int at = snprintf(line, sizeof line, "[%8.3f] ", (double)(s->now - SIM_EPOCH_MS * 1000) / 1000.0);
    va_list args;
    va_start(args, format);
    vsnprintf(line + at, sizeof line - (size_t)at, format, args);
    va_end(args);
    mesh_buf_puts(&s->text, line);
    mesh_buf_puts(&s->text, "\n");
    if (s->text.size > TRACE_MAX) {
        mesh_buf_shift(&s->text, s->text.size / 2);
    }
    if (s->conf.echo) {
        puts(line);
    }
}

const char *sim_trace_text(sim *s)
{
    *mesh_buf_grow(&s->text, 1) = 0;
    s->text.size--;
    return (const char *)s->text.data;
}

void sim_complain(sim *s, const char *format, ...)
{
    char line[512];
    va_list args;
    va_start(args, format);
    vsnprintf(line, sizeof line, format, args);
    va_end(args);
    sim_trace(s, "BROKEN %s", line);
    sim_mix(s, 99, 0);
    if (s->complaints.size < COMPLAINTS_MAX) {
        mesh_buf_printf(&s->complaints, "[%8.3f] %s\n", (double)(s->now - SIM_EPOCH_MS * 1000) / 1000.0, line);
    }
}

const char *sim_complaints(const sim *s)
{
    if (!s->complaints.size) {
        return "";
    }
    mesh_buf *b = (mesh_buf *)&s->complaints; /* only the NUL behind the text */
    *mesh_buf_grow(b, 1) = 0;
    b->size--;
    return (const char *)b->data;
}

/* ---- pipes ---- */

void sim_pipe_init(sim_pipe *p)
{
    *p = (sim_pipe){ 0 };
    p->end = &p->first;
}

void sim_item_free(sim_item *item)
{
    if (item) {
        mesh_buf_fini(&item->bytes);
        free(item);
    }
}

void sim_pipe_clear(sim_pipe *p)
{
    while (p->first) {
        sim_item *item = p->first;
        p->first = item->next;
        sim_item_free(item);
    }
    p->end = &p->first;
}

void sim_pipe_lose_tail(sim *s, sim_pipe *p)
{
    size_t n = 0;
    for (sim_item *i = p->first; i; i = i->next) {
        n++;
    }
    size_t keep = n ? sim_random(s, n + 1) : 0;
    sim_item **end = &p->first;
    for (size_t i = 0; i < keep; i++) {
        end = &(*end)->next;
    }
    sim_pipe rest = { .first = *end };
    *end = NULL;
    p->end = end;
    sim_pipe_clear(&rest);
}

sim_item *sim_pipe_put(sim *s, sim_pipe *p, int kind, sim_us latency, sim_fn *deliver, void *arg, uint64_t tag)
{
    sim_item *item = mesh_alloc(sizeof *item);
    item->kind = kind;
    item->due = s->now + latency;
    if (item->due < p->last_due) {
        item->due = p->last_due;
    }
    p->last_due = item->due;
    *p->end = item;
    p->end = &item->next;
    sim_at(s, item->due, deliver, arg, tag);
    return item;
}

sim_item *sim_pipe_take(sim *s, sim_pipe *p)
{
    sim_item *item = p->first;
    if (!item || item->due > s->now || p->held) {
        return NULL;
    }
    p->first = item->next;
    if (!p->first) {
        p->end = &p->first;
    }
    item->next = NULL;
    return item;
}
