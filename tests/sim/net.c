/* tests/sim/net.c: the links between nodes, as mesh/link.h promises them and no better.
 *
 * A link has a dialer and a listener, each with its own opinion of whether it is up. The dialer tries: a try opens a
 * new span with a hello; the listener is up when it has that hello and answers with its own; the dialer is up when it
 * has the answer. Frames carry their span and count only within it. A cut holds frames back, as TCP does; when it heals
 * before anybody has given up, they go on late and in order. A side that hears nothing (its peer dead, paused, cut off,
 * or down itself) is down after a while of at most LINK_DEAD_MS, and then what it had queued is lost. */
#include "tests/sim/impl.h"

#include "mesh/link.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define SLOWEST_US 1500000 /* a frame that takes longer is one of a dead link: pings tell (mesh/link.h) */

enum { HELLO = 1, DATA = 2 };

static void review(sim_link *l);
static void dialer_try(sim *s, void *arg, uint64_t tag);

/* Of two stores of a shard the earlier one dials. */
static bool dials(const sim_node *a, const sim_node *b)
{
    return (a->role == MESH_EDGE && b->role == MESH_ROUTER) || (a->role == MESH_ROUTER && b->role == MESH_STORE) ||
           (a->role == MESH_STORE && b->role == MESH_STORE && a->shard == b->shard && a->self < b->self) ||
           (a->role == MESH_OPERATOR && b->role == MESH_STORE);
}

void sim_net_init(sim *s)
{
    s->links = mesh_alloc((s->n_nodes * s->n_nodes + 1) * sizeof *s->links);
    for (size_t i = 0; i < s->n_nodes; i++) {
        for (size_t j = 0; j < s->n_nodes; j++) {
            if (dials(&s->nodes[i], &s->nodes[j])) {
                sim_link *l = &s->links[s->n_links++];
                l->s = s;
                l->times = 1;
                l->end[0] = &s->nodes[i];
                l->end[1] = &s->nodes[j];
                sim_pipe_init(&l->pipe[0]);
                sim_pipe_init(&l->pipe[1]);
            }
        }
    }
}

void sim_net_fini(sim *s)
{
    for (size_t i = 0; i < s->n_links; i++) {
        sim_pipe_clear(&s->links[i].pipe[0]);
        sim_pipe_clear(&s->links[i].pipe[1]);
    }
    free(s->links);
}

static void go_up(sim_link *l, int i, uint64_t span, uint64_t boot)
{
    sim_side *side = &l->side[i];
    sim_node *n = l->end[i];
    if (side->up) { /* reborn on the other side: what was there is over */
        sim_node_input(n, IN_DOWN)->peer = l->end[!i]->self;
    }
    *side = (sim_side){ .up = true, .span = span, .tag = side->tag + 1 };
    sim_input *in = sim_node_input(n, IN_UP);
    in->peer = l->end[!i]->self;
    in->boot = boot;
    sim_trace(l->s, "%s: %s is up", n->name, l->end[!i]->name);
    sim_mix(l->s, 10, n->self);
}

static void go_down(sim_link *l, int i)
{
    sim *s = l->s;
    l->side[i].up = l->side[i].timer = false;
    l->side[i].tag++;
    if (l->pipe[i].held) {
        sim_pipe_clear(&l->pipe[i]);
    }
    sim_node_input(l->end[i], IN_DOWN)->peer = l->end[!i]->self;
    sim_trace(s, "%s: %s is down", l->end[i]->name, l->end[!i]->name);
    sim_mix(s, 11, l->end[i]->self);
    if (i == 0) {
        l->trying = true;
        sim_at(s, s->now + sim_between(s, 5000, 100000), dialer_try, l, ++l->try_tag);
    }
    review(l);
}

static void deliver(sim *s, void *arg, uint64_t d)
{
    sim_link *l = arg;
    sim_node *from = l->end[d], *to = l->end[!d];
    for (sim_item *item; (item = sim_pipe_take(s, &l->pipe[d])) != NULL; sim_item_free(item)) {
        if (!to->alive) {
            continue;
        }
        sim_side *side = &l->side[!d];
        if (item->kind == DATA) {
            if (side->up && side->span == item->span) {
                sim_input *in = sim_node_input(to, IN_FRAME);
                in->peer = from->self;
                in->bytes = item->bytes;
                item->bytes = (mesh_buf){ 0 };
            }
        } else if (d == 0) {
            go_up(l, 1, item->span, item->boot);
            sim_item *answer = sim_pipe_put(s, &l->pipe[1], HELLO, sim_latency(s), deliver, l, 1);
            answer->span = item->span;
            answer->boot = to->boot;
            review(l);
        } else if (item->span == l->span && !l->side[0].up) {
            l->trying = false;
            l->try_tag++;
            go_up(l, 0, item->span, item->boot);
            review(l);
        }
    }
}

static void dialer_try(sim *s, void *arg, uint64_t tag)
{
    sim_link *l = arg;
    if (tag != l->try_tag || !l->end[0]->alive || l->side[0].up) {
        return;
    }
    l->span++;
    sim_pipe_clear(&l->pipe[0]);
    sim_pipe_clear(&l->pipe[1]);
    sim_item *hello = sim_pipe_put(s, &l->pipe[0], HELLO, sim_latency(s), deliver, l, 0);
    hello->span = l->span;
    hello->boot = l->end[0]->boot;
    sim_at(s, s->now + sim_between(s, 100000, 1500000), dialer_try, l, tag);
    review(l);
}

static bool hears(const sim_link *l, int i)
{
    const sim_node *peer = l->end[!i];
    if (!peer->alive || peer->paused_until > l->s->now || l->cut[!i]) {
        return false;
    }
    if (i == 1) { /* the dialer's socket is there from the try on */
        return l->span == l->side[1].span && (l->side[0].up || l->trying);
    }
    return l->side[1].up && l->side[1].span == l->side[0].span;
}

static void silent(sim *s, void *arg, uint64_t tag)
{
    sim_link *l = arg;
    (void)s;
    for (int i = 0; i < 2; i++) {
        if (l->side[i].timer && l->side[i].tag * 2 + (uint64_t)i == tag) {
            go_down(l, i);
            return;
        }
    }
}

/* Start or stop the wait for a sign of life on both sides, whenever something changed. */
static void review(sim_link *l)
{
    sim *s = l->s;
    for (int i = 0; i < 2; i++) {
        sim_side *side = &l->side[i];
        if (!side->up) {
            continue;
        }
        bool hearing = hears(l, i);
        if (!hearing && !side->timer) {
            side->timer = true;
            side->tag++;
            sim_us least = l->end[!i]->alive ? (LINK_DEAD_MS - 500) * 1000 : 1000;
            sim_at(s, s->now + sim_between(s, least, LINK_DEAD_MS * 1000), silent, l, side->tag * 2 + (uint64_t)i);
        } else if (hearing && side->timer) {
            side->timer = false;
            side->tag++;
        }
    }
}

void sim_net_review(sim *s)
{
    for (size_t i = 0; i < s->n_links; i++) {
        review(&s->links[i]);
    }
}

void sim_net_send(sim_node *from, mesh_peer to, mesh_buf *frame)
{
    sim *s = from->s;
    for (size_t i = 0; i < s->n_links; i++) {
        sim_link *l = &s->links[i];
        int d = l->end[0] == from && l->end[1]->self == to ? 0 : l->end[1] == from && l->end[0]->self == to ? 1 : -1;
        if (d < 0) {
            continue;
        }
        if (!l->side[d].up) {
            sim_trace(s, "%s: frame for %s dropped, not up", from->name, l->end[!d]->name);
            break;
        }
        sim_us latency = sim_latency(s);
        if (l->times > 1) {
            sim_us slow = latency * (sim_us)l->times;
            latency = slow < SLOWEST_US ? slow : SLOWEST_US;
        }
        sim_item *item = sim_pipe_put(s, &l->pipe[d], DATA, latency, deliver, l, (uint64_t)d);
        item->span = l->side[d].span;
        item->bytes = *frame;
        *frame = (mesh_buf){ 0 };
        return;
    }
    mesh_buf_fini(frame);
}

void sim_net_started(sim_node *n)
{
    sim *s = n->s;
    for (size_t i = 0; i < s->n_links; i++) {
        sim_link *l = &s->links[i];
        if (l->end[0] == n) {
            l->trying = true;
            sim_at(s, s->now + sim_between(s, 1000, 20000), dialer_try, l, ++l->try_tag);
        } else if (l->end[1] == n && !l->side[0].up && l->end[0]->alive) {
            sim_at(s, s->now + sim_between(s, 1000, 100000), dialer_try, l, ++l->try_tag);
        }
        review(l);
    }
}

void sim_net_died(sim_node *n)
{
    sim *s = n->s;
    for (size_t i = 0; i < s->n_links; i++) {
        sim_link *l = &s->links[i];
        for (int e = 0; e < 2; e++) {
            if (l->end[e] != n) {
                continue;
            }
            l->side[e] = (sim_side){ .tag = l->side[e].tag + 1 };
            if (e == 0) {
                l->trying = false;
                l->try_tag++;
            }
            sim_pipe_lose_tail(s, &l->pipe[e]); /* what the kernel had taken still goes out */
            sim_pipe_clear(&l->pipe[!e]);
            review(l);
        }
    }
}

static void cut(sim *s, const char *a, const char *b, bool on, bool both)
{
    for (size_t i = 0; i < s->n_links; i++) {
        sim_link *l = &s->links[i];
        for (int e = 0; e < 2; e++) {
            bool forth = strcmp(l->end[e]->name, a) == 0 && strcmp(l->end[!e]->name, b) == 0;
            bool back = both && strcmp(l->end[e]->name, b) == 0 && strcmp(l->end[!e]->name, a) == 0;
            if (forth || back) {
                l->cut[e] = l->pipe[e].held = on;
                if (!on) {
                    sim_at(s, s->now, deliver, l, (uint64_t)e);
                }
            }
        }
        review(l);
    }
    sim_trace(s, "%s %s %s %s", on ? "cut" : "heal", a, both ? "and" : "to", b);
}

void sim_cut(sim *s, const char *a, const char *b)
{
    cut(s, a, b, true, true);
}

void sim_cut_one(sim *s, const char *from, const char *to)
{
    cut(s, from, to, true, false);
}

void sim_heal(sim *s, const char *a, const char *b)
{
    cut(s, a, b, false, true);
}

void sim_heal_all(sim *s)
{
    for (size_t i = 0; i < s->n_links; i++) {
        s->links[i].times = 1;
        if (s->links[i].cut[0] || s->links[i].cut[1]) {
            sim_heal(s, s->links[i].end[0]->name, s->links[i].end[1]->name);
        }
    }
}

void sim_link_slow(sim *s, const char *a, const char *b, unsigned times)
{
    for (size_t i = 0; i < s->n_links; i++) {
        sim_link *l = &s->links[i];
        for (int e = 0; e < 2; e++) {
            if (strcmp(l->end[e]->name, a) == 0 && strcmp(l->end[!e]->name, b) == 0) {
                l->times = times;
            }
        }
    }
    sim_trace(s, "%s and %s are %u times as far", a, b, times);
}

bool sim_linked(sim *s, const char *a, const char *b)
{
    for (size_t i = 0; i < s->n_links; i++) {
        sim_link *l = &s->links[i];
        if ((strcmp(l->end[0]->name, a) == 0 && strcmp(l->end[1]->name, b) == 0) ||
            (strcmp(l->end[0]->name, b) == 0 && strcmp(l->end[1]->name, a) == 0)) {
            return l->side[0].up && l->side[1].up && l->side[0].span == l->side[1].span;
        }
    }
    return false;
}
