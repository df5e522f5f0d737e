/* tests/sim/node.c: the nodes' shells on fake time: what the *_serve files do on a real clock, in as few lines.
 *
 * A turn takes everything that came in, hands it to the core in order, gives the core its turn, sends what it wants
 * sent, and plans the next turn for the time the core asked for. */
#include "tests/sim/impl.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SPINS_MAX 2000 /* turns in a row that a core asks for at once without anything coming in */
#define REOPEN_MS 1000

sim_node *sim_node_find(sim *s, const char *name)
{
    for (size_t i = 0; i < s->n_nodes; i++) {
        if (strcmp(s->nodes[i].name, name) == 0) {
            return &s->nodes[i];
        }
    }
    assert(!"no such node");
    return NULL;
}

static void turn(sim *s, void *arg, uint64_t tag);

void sim_node_wake(sim_node *n, sim_us at)
{
    sim *s = n->s;
    at = at > s->now ? at : s->now;
    at = at > n->paused_until ? at : n->paused_until;
    if (at < n->wake) {
        n->wake = at;
        sim_at(s, at, turn, n, ++n->wake_tag);
    }
}

sim_input *sim_node_input(sim_node *n, sim_input_kind kind)
{
    sim_input *in = mesh_alloc(sizeof *in);
    in->kind = kind;
    *n->inputs_end = in;
    n->inputs_end = &in->next;
    n->spins = 0;
    sim_node_wake(n, n->s->now + sim_between(n->s, 0, 150));
    return in;
}

static sim_input *take_input(sim_node *n)
{
    sim_input *in = n->inputs;
    if (in) {
        n->inputs = in->next;
        if (!n->inputs) {
            n->inputs_end = &n->inputs;
        }
    }
    return in;
}

static void free_input(sim_input *in)
{
    mesh_buf_fini(&in->bytes);
    free(in);
}

/* ---- frames ---- */

static void trace_message(sim_node *n, mesh_peer from, const Mesh__Msg *msg)
{
    sim *s = n->s;
    s->events.size = 0;
    sim_dump(&msg->base, &s->events);
    sim_trace(s, "%s <- %s: %s %.*s", n->name, mesh_conf_node(s->mesh, from)->name, mesh_msg_kind_name(msg),
              (int)s->events.size, (const char *)s->events.data);
}

static bool is_lost(sim_node *n, mesh_peer from, const Mesh__Msg *msg)
{
    sim *s = n->s;
    for (size_t i = 0; i < s->n_losses; i++) {
        sim_loss *l = &s->losses[i];
        if (l->at == n && (!l->from || l->from->self == from) && l->kind == (int)msg->body_case && l->left) {
            l->left--;
            sim_trace(s, "%s: that was lost", n->name);
            return true;
        }
    }
    return false;
}

static void take_message(sim_node *n, mesh_peer from, const Mesh__Msg *msg, mesh_slice packed)
{
    mesh_time now = sim_time(n->s);
    if (n->s->n_losses && is_lost(n, from, msg)) {
        return;
    }
    sim_judge_message(n, from, msg);
    if (n->role == MESH_OPERATOR) {
        sim_operator_message(n, from, msg);
    } else if (n->edge) {
        edge_core_message(n->edge, from, msg, packed, now, n->out);
    } else if (n->router) {
        router_core_message(n->router, from, msg, packed, now, n->out);
    } else if (n->store) {
        store_core_message(n->store, from, msg, packed, now, n->out);
    }
}

static void take_frame(sim_node *n, mesh_peer from, mesh_slice frame)
{
    sim *s = n->s;
    mesh_frame_reader r;
    mesh_err err = mesh_frame_open(&r, frame);
    sim_mix(s, (uint64_t)n->self << 32 | from, frame.size);
    while (!err) {
        mesh_arena_reset(s->arena);
        Mesh__Msg *msg = NULL;
        mesh_slice packed;
        err = mesh_frame_next(&r, s->arena, &msg, &packed);
        if (!err) {
            if (sim_tracing(s)) {
                trace_message(n, from, msg);
            }
            for (unsigned times = sim_noise_times(n, from, msg, packed); times > 0; times--) {
                take_message(n, from, msg, packed);
            }
        }
    }
    if (err != MESH_AGAIN) {
        sim_complain(s, "%s got a malformed frame from %s", n->name, mesh_conf_node(s->mesh, from)->name);
    }
}

static void peer_up(sim_node *n, mesh_peer peer, uint64_t boot)
{
    mesh_time now = sim_time(n->s);
    n->peer_boot[peer] = boot;
    if (n->edge) {
        edge_core_up(n->edge, peer, boot, now, n->out);
    } else if (n->router) {
        router_core_up(n->router, peer, boot, now, n->out);
    } else if (n->store) {
        store_core_up(n->store, peer, boot, now, n->out);
    }
}

static void peer_down(sim_node *n, mesh_peer peer)
{
    mesh_time now = sim_time(n->s);
    n->peer_boot[peer] = 0;
    sim_noise_down(n, peer);
    if (n->edge) {
        edge_core_down(n->edge, peer, now, n->out);
    } else if (n->router) {
        router_core_down(n->router, peer, now, n->out);
    } else if (n->store) {
        store_core_down(n->store, peer, now, n->out);
    }
}

static void take_in(sim_node *n, sim_input *in)
{
    switch (in->kind) {
    case IN_FRAME:
        take_frame(n, in->peer, mesh_buf_slice(&in->bytes));
        break;
    case IN_UP:
        peer_up(n, in->peer, in->boot);
        break;
    case IN_DOWN:
        peer_down(n, in->peer);
        break;
    default:
        sim_socket_input(n, in, sim_time(n->s));
    }
}

/* ---- the store's disk ---- */

static void reopen(sim *s, void *arg, uint64_t boot);

static mesh_err try_open(sim_node *n, char *why, size_t why_size)
{
    sim *s = n->s;
    store_kv_options options = { .write_buffer = 1u << 20 };
    mesh_err err = store_kv_open(n->disk_path, &options, &n->kv, why, why_size);
    if (!err) {
        store_core_conf conf = {
            .conf = s->mesh, .self = n->self, .seed = mesh_rand_next(&s->rand), .path = n->disk_path, .options = options
        };
        conf.lost = store_kv_is_lost(n->disk_path);
        err = store_core_new(&conf, n->kv, sim_time(s), &n->store, why, why_size);
        if (err) {
            store_kv_close(&n->kv);
        }
    }
    return err;
}

static void quarantine(sim_node *n, const char *why)
{
    char kept[64];
    mesh_err err = store_kv_quarantine(n->disk_path, "then", kept, sizeof kept);
    assert(!err);
    n->disk_old = false;
    sim_trace(n->s, "%s: quarantined: %s", n->name, why);
}

static bool store_open(sim_node *n)
{
    sim *s = n->s;
    char why[256] = "";
    mesh_err err = try_open(n, why, sizeof why);
    if (err == MESH_CORRUPT && s->conf.replicas > 1 && sim_disk_is_flipped(n->disk)) {
        quarantine(n, why);
        err = try_open(n, why, sizeof why);
    }
    bool broke = err == MESH_IO && n->disk_broke;
    if (err && err != MESH_NO_SPACE && !broke) {
        sim_complain(s, "%s does not open: %s, %s", n->name, mesh_err_name(err), why);
    }
    return !err;
}

/* A write or a read failed: the process ends. */
static void die_of_disk(sim_node *n, const char *what)
{
    sim_trace(n->s, "%s: %s", n->name, what);
    sim_node_die(n);
    if (!n->disk_broken) { /* mended before it noticed: whoever starts nodes again has been here */
        sim_node_boot(n);
    }
}

/* The disk is full: this core is finished. Closed, and opened again when there is space, with the links kept. Any other
 * failure ends the process. */
static void store_failed(sim_node *n)
{
    sim *s = n->s;
    mesh_err err = store_core_error(n->store);
    if (err == MESH_IO && n->disk_broke) {
        die_of_disk(n, "a write failed");
        return;
    }
    bool flipped = err == MESH_CORRUPT && s->conf.replicas > 1 && sim_disk_is_flipped(n->disk);
    if (err != MESH_NO_SPACE && !flipped) {
        sim_complain(s, "%s failed: %s", n->name, mesh_err_name(err));
    }
    sim_trace(s, "%s: %s, closed", n->name, flipped ? "a row does not read back" : "out of space");
    store_core_destroy(&n->store);
    store_kv_close(&n->kv);
    n->reopening = true;
    if (flipped) {
        quarantine(n, "found while it ran");
        sim_at(s, s->now, reopen, n, n->boot);
        return;
    }
    sim_at(s, s->now + REOPEN_MS * 1000, reopen, n, n->boot);
}

static void reopen(sim *s, void *arg, uint64_t boot)
{
    sim_node *n = arg;
    if (!n->alive || n->boot != boot) {
        return;
    }
    if (!store_open(n)) {
        if (n->disk_broke && !n->disk_full) {
            die_of_disk(n, "it cannot be opened");
        } else {
            sim_at(s, s->now + REOPEN_MS * 1000, reopen, n, boot);
        }
        return;
    }
    sim_trace(s, "%s: open again", n->name);
    n->reopening = false;
    for (mesh_peer p = 0; p < s->n_nodes; p++) {
        if (n->peer_boot[p]) {
            store_core_up(n->store, p, n->peer_boot[p], sim_time(s), n->out);
        }
    }
    sim_node_wake(n, s->now);
}

/* A copy of another replica's rows is ready, or could not be taken. */
static void store_replaced(sim_node *n, store_verdict verdict)
{
    sim *s = n->s;
    char why[256] = "";
    store_core_destroy(&n->store);
    store_kv_close(&n->kv);
    if (verdict == STORE_SWITCH) {
        n->switches++;
        mesh_err err = store_kv_switch(n->disk_path, why, sizeof why);
        if (err) {
            sim_complain(s, "%s does not switch: %s, %s", n->name, mesh_err_name(err), why);
        }
    }
    if (verdict == STORE_QUARANTINE) {
        quarantine(n, "another replica says it is out of date");
    } else {
        sim_trace(s, "%s: %s", n->name, verdict == STORE_SWITCH ? "switched to a copy" : "gave up a copy");
    }
    n->reopening = true;
    sim_at(s, s->now + (verdict == STORE_REOPEN_LATER ? REOPEN_MS * 1000 : 0), reopen, n, n->boot);
}

static void synced(sim *s, void *arg, uint64_t boot)
{
    sim_node *n = arg;
    if (!n->alive || n->boot != boot) {
        return;
    }
    n->flushing = false;
    if (n->disk_held) {
        return;
    }
    sim_disk_flush(n->disk);
    n->spins = 0;
    sim_node_wake(n, s->now);
}

void sim_node_plan_sync(sim_node *n)
{
    sim *s = n->s;
    if (!n->flushing && !n->disk_held && sim_disk_has_pending(n->disk)) {
        n->flushing = true;
        sim_us takes = sim_between(s, 200, 1500) * (sim_us)n->disk_times;
        sim_at(s, s->now + takes, synced, n, n->boot);
    }
}

/* ---- a turn ---- */

static mesh_ms core_turn(sim_node *n)
{
    mesh_time now = sim_time(n->s);
    if (n->edge) {
        return edge_core_turn(n->edge, now, n->out);
    }
    if (n->router) {
        return router_core_turn(n->router, now, n->out);
    }
    return n->store ? store_core_turn(n->store, now, n->out) : MESH_NEVER;
}

static void send_out(sim_node *n)
{
    mesh_peer to;
    mesh_buf frame = { 0 };
    while (mesh_out_take(n->out, &to, &frame)) {
        sim_net_send(n, to, &frame);
        frame = (mesh_buf){ 0 };
    }
}

static void maybe_stop(sim_node *n)
{
    if (!n->draining) {
        return;
    }
    if ((n->edge && edge_core_sessions(n->edge) == 0) || (n->router && router_core_quiet(n->router, sim_time(n->s)))) {
        sim_trace(n->s, "%s: drained", n->name);
        sim_node_die(n);
    }
}

static void turn(sim *s, void *arg, uint64_t tag)
{
    sim_node *n = arg;
    if (tag != n->wake_tag || !n->alive) {
        return;
    }
    n->wake = SIM_NEVER;
    if (n->paused_until > s->now) {
        sim_node_wake(n, n->paused_until);
        return;
    }
    for (sim_input *in; (in = take_input(n)) != NULL; free_input(in)) {
        take_in(n, in);
    }
    mesh_ms next = core_turn(n);
    if (n->edge) {
        sim_socket_flush(n, sim_time(s));
    }
    if (n->store && (store_core_error(n->store) || store_core_verdict(n->store) == STORE_QUARANTINE)) {
        mesh_out_destroy(&n->out); /* it may rest on what could not be read */
        n->out = mesh_out_new(s->n_nodes);
    }
    send_out(n);
    if (n->store) {
        if (store_core_error(n->store)) {
            store_failed(n);
            return;
        }
        if (store_core_votes(n->store) && store_kv_is_lost(n->disk_path)) {
            mesh_err err = store_kv_regained(n->disk_path);
            assert(!err);
            sim_trace(s, "%s: has its data again", n->name);
        }
        store_verdict verdict = store_core_verdict(n->store);
        if (verdict != STORE_GO_ON) {
            store_replaced(n, verdict);
            return;
        }
        sim_node_plan_sync(n);
    }
    if (next != MESH_NEVER) {
        if (next <= sim_now(s)) {
            if (++n->spins == SPINS_MAX) {
                sim_complain(s, "%s asks for turn after turn with nothing to do", n->name);
            }
            sim_node_wake(n, s->now + 100);
        } else {
            n->spins = 0;
            sim_node_wake(n, next * 1000);
        }
    }
    maybe_stop(n);
}

/* ---- life and death ---- */

static void boot_store(sim_node *n)
{
    n->disk_broke = false;
    if (n->disk_broken) {
        n->disk_broken = false;
        sim_disk_fail(n->disk, n->disk_full ? MESH_NO_SPACE : MESH_OK);
    }
    if (!store_open(n)) {
        n->reopening = true;
        sim_at(n->s, n->s->now + REOPEN_MS * 1000, reopen, n, n->boot);
    }
}

void sim_node_boot(sim_node *n)
{
    sim *s = n->s;
    assert(!n->alive);
    n->alive = true;
    n->draining = n->flushing = n->reopening = false;
    n->boot = mesh_rand_next(&s->rand) | 1;
    n->paused_until = 0;
    n->wake = SIM_NEVER;
    n->spins = 0;
    n->out = mesh_out_new(s->n_nodes);
    memset(n->peer_boot, 0, s->n_nodes * sizeof *n->peer_boot);
    mesh_time now = sim_time(s);
    sim_trace(s, "%s: started", n->name);
    sim_mix(s, 1, n->self);
    if (n->role == MESH_EDGE) {
        edge_core_conf conf = { .conf = s->mesh,
                                .self = n->self,
                                .seed = mesh_rand_next(&s->rand),
                                .token_key = { (const uint8_t *)SIM_TOKEN_KEY, strlen(SIM_TOKEN_KEY) } };
        n->edge = edge_core_new(&conf, now);
    } else if (n->role == MESH_ROUTER) {
        router_core_conf conf = { .conf = s->mesh, .self = n->self, .boot = n->boot };
        n->router = router_core_new(&conf, now);
    } else if (n->role == MESH_STORE) {
        boot_store(n);
    }
    sim_net_started(n);
    sim_node_wake(n, s->now);
}

static void destroy_core(sim_node *n)
{
    if (n->edge) {
        edge_core_destroy(&n->edge);
    }
    if (n->router) {
        router_core_destroy(&n->router);
    }
    if (n->store) {
        store_core_destroy(&n->store);
    }
    if (n->kv) {
        store_kv_close(&n->kv);
    }
}

void sim_node_die(sim_node *n)
{
    sim *s = n->s;
    if (!n->alive) {
        return;
    }
    n->alive = false;
    n->wake_tag++;
    sim_trace(s, "%s: dead", n->name);
    sim_mix(s, 2, n->self);
    if (n->role == MESH_STORE && sim_disk_is_open(n->disk)) {
        sim_disk_crash(n->disk, &s->rand);
    }
    destroy_core(n);
    mesh_out_destroy(&n->out);
    for (sim_input *in; (in = take_input(n)) != NULL; free_input(in)) {
    }
    sim_net_died(n);
    if (n->role == MESH_EDGE) {
        sim_sockets_of_dead(n);
    }
}
