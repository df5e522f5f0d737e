/* tests/sim/node.c: the nodes' shells on fake time: what the *_serve files do on a real clock, in as few lines.
 *
 * A turn takes everything that came in, hands it to the core in order, gives the core its turn, sends what it wants sent,
 * and plans the next turn for the time the core asked for. */
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
    if (n->edge) {
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
            take_message(n, from, msg, packed);
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

static bool store_open(sim_node *n)
{
    sim *s = n->s;
    char why[256] = "";
    store_kv_options options = {.write_buffer = 1u << 20};
    mesh_err err = store_kv_open(s->disk_path, &options, &n->kv, why, sizeof why);
    if (!err) {
        store_core_conf conf = {.conf = s->mesh, .self = n->self, .seed = mesh_rand_next(&s->rand)};
        err = store_core_new(&conf, n->kv, sim_time(s), &n->store, why, sizeof why);
        if (err) {
            store_kv_close(&n->kv);
        }
    }
    if (err && err != MESH_NO_SPACE) {
        sim_complain(s, "the store does not open: %s, %s", mesh_err_name(err), why);
    }
    return !err;
}

/* The disk is full: this core is finished. Closed, and opened again when there is space, with the links kept. */
static void store_failed(sim_node *n)
{
    sim *s = n->s;
    if (store_core_error(n->store) != MESH_NO_SPACE) {
        sim_complain(s, "the store failed: %s", mesh_err_name(store_core_error(n->store)));
    }
    sim_trace(s, "%s: out of space, closed", n->name);
    store_core_destroy(&n->store);
    store_kv_close(&n->kv);
    n->reopening = true;
    sim_at(s, s->now + REOPEN_MS * 1000, reopen, n, n->boot);
}

static void reopen(sim *s, void *arg, uint64_t boot)
{
    sim_node *n = arg;
    if (!n->alive || n->boot != boot) {
        return;
    }
    if (!store_open(n)) {
        sim_at(s, s->now + REOPEN_MS * 1000, reopen, n, boot);
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

static void synced(sim *s, void *arg, uint64_t boot)
{
    sim_node *n = arg;
    if (!n->alive || n->boot != boot) {
        return;
    }
    n->flushing = false;
    if (s->disk_held) {
        return;
    }
    sim_disk_flush(s->disk);
    n->spins = 0;
    sim_node_wake(n, s->now);
}

static void plan_sync(sim_node *n)
{
    sim *s = n->s;
    if (!n->flushing && !s->disk_held && sim_disk_has_pending(s->disk)) {
        n->flushing = true;
        sim_us takes = sim_between(s, 200, 1500) * (sim_us)s->disk_times;
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
    mesh_buf frame = {0};
    while (mesh_out_take(n->out, &to, &frame)) {
        sim_net_send(n, to, &frame);
        frame = (mesh_buf){0};
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
    send_out(n);
    if (n->store) {
        if (store_core_error(n->store)) {
            store_failed(n);
            return;
        }
        plan_sync(n);
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
        edge_core_conf conf = {.conf = s->mesh,
                               .self = n->self,
                               .seed = mesh_rand_next(&s->rand),
                               .token_key = {(const uint8_t *)SIM_TOKEN_KEY, strlen(SIM_TOKEN_KEY)}};
        n->edge = edge_core_new(&conf, now);
    } else if (n->role == MESH_ROUTER) {
        router_core_conf conf = {.conf = s->mesh, .self = n->self, .boot = n->boot};
        n->router = router_core_new(&conf, now);
    } else if (!store_open(n)) {
        n->reopening = true;
        sim_at(s, s->now + REOPEN_MS * 1000, reopen, n, n->boot);
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
    if (n->role == MESH_STORE && sim_disk_is_open(s->disk)) {
        sim_disk_crash(s->disk, &s->rand);
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

void sim_kill(sim *s, const char *node)
{
    sim_node_die(sim_node_find(s, node));
}

void sim_start(sim *s, const char *node)
{
    sim_node_boot(sim_node_find(s, node));
}

bool sim_alive(sim *s, const char *node)
{
    return sim_node_find(s, node)->alive;
}

static void unpaused(sim *s, void *arg, uint64_t boot)
{
    sim_node *n = arg;
    if (n->alive && n->boot == boot) {
        sim_trace(s, "%s: goes on", n->name);
        sim_net_review(s);
        sim_node_wake(n, s->now);
    }
}

void sim_pause(sim *s, const char *node, mesh_ms ms)
{
    sim_node *n = sim_node_find(s, node);
    n->paused_until = s->now + ms * 1000;
    sim_trace(s, "%s: stopped for %lld ms", n->name, (long long)ms);
    sim_net_review(s);
    sim_at(s, n->paused_until, unpaused, n, n->boot);
}

void sim_drain(sim *s, const char *node)
{
    sim_node *n = sim_node_find(s, node);
    sim_trace(s, "%s: drains", n->name);
    n->draining = true;
    if (n->edge) {
        edge_core_drain(n->edge, sim_time(s));
    } else {
        assert(n->router);
        router_core_leave(n->router, sim_time(s), n->out);
    }
    sim_node_wake(n, s->now);
}

void sim_lose(sim *s, const char *node, const char *from, int kind, unsigned n)
{
    assert(s->n_losses < SIM_LOSSES);
    s->losses[s->n_losses++] = (sim_loss){
        .at = sim_node_find(s, node), .from = from ? sim_node_find(s, from) : NULL, .kind = kind, .left = n};
}

void sim_lose_none(sim *s)
{
    s->n_losses = 0;
}

/* ---- the disk ---- */

void sim_disk_slow(sim *s, unsigned times)
{
    s->disk_times = times;
}

void sim_disk_hold(sim *s, bool hold)
{
    s->disk_held = hold;
    sim_node *n = sim_node_find(s, "store1");
    if (!hold && n->store) {
        plan_sync(n);
    }
}

void sim_disk_fill(sim *s)
{
    sim_trace(s, "the disk is full");
    s->disk_full = true;
    sim_disk_fail(s->disk, MESH_NO_SPACE);
    sim_disk_refuse(s->disk, MESH_NO_SPACE);
}

void sim_disk_free(sim *s)
{
    sim_trace(s, "the disk has space");
    s->disk_full = false;
    sim_disk_fail(s->disk, MESH_OK);
    sim_disk_refuse(s->disk, MESH_OK);
}

void sim_space(sim *s, bool enough)
{
    sim_node *n = sim_node_find(s, "store1");
    if (n->store) {
        store_core_set_space(n->store, enough);
    }
}

/* ---- looking inside ---- */

edge_core *sim_edge(sim *s, const char *node)
{
    return sim_node_find(s, node)->edge;
}

router_core *sim_router(sim *s, const char *node)
{
    return sim_node_find(s, node)->router;
}

store_core *sim_store(sim *s)
{
    return sim_node_find(s, "store1")->store;
}

uint64_t sim_epoch(sim *s, const char *edge)
{
    sim_node *n = sim_node_find(s, edge);
    return n->edge ? mesh_ring_epoch(edge_core_ring(n->edge)) : 0;
}

bool sim_ring_has(sim *s, const char *edge, const char *router)
{
    sim_node *n = sim_node_find(s, edge);
    return n->edge && mesh_ring_has(edge_core_ring(n->edge), sim_node_find(s, router)->self);
}

const char *sim_owner(sim *s, const char *qid)
{
    const mesh_ring *best = NULL;
    for (size_t i = 0; i < s->n_nodes; i++) {
        const mesh_ring *ring = s->nodes[i].edge ? edge_core_ring(s->nodes[i].edge) : NULL;
        if (ring && (!best || mesh_ring_epoch(ring) > mesh_ring_epoch(best))) {
            best = ring;
        }
    }
    mesh_peer peer = best ? mesh_ring_router_of(best, qid) : MESH_NO_PEER;
    return peer == MESH_NO_PEER ? NULL : mesh_conf_node(s->mesh, peer)->name;
}

/* ---- the whole ---- */

static void add_node(sim *s, mesh_role role, unsigned n)
{
    mesh_node_conf node = {.role = role};
    snprintf(node.name, sizeof node.name, "%s%u", mesh_role_name(role), n);
    if (role != MESH_EDGE) {
        snprintf(node.endpoint, sizeof node.endpoint, "inproc://%s", node.name);
    }
    mesh_err err = mesh_conf_add_node(s->mesh, &node);
    assert(!err);
}

static mesh_conf *make_conf(sim *s)
{
    s->mesh = mesh_conf_new();
    mesh_err err = mesh_conf_set(s->mesh, "cluster.hash_key", "000102030405060708090a0b0c0d0e0f");
    assert(!err);
    for (unsigned i = 1; i <= s->conf.edges; i++) {
        add_node(s, MESH_EDGE, i);
    }
    for (unsigned i = 1; i <= s->conf.routers; i++) {
        add_node(s, MESH_ROUTER, i);
    }
    add_node(s, MESH_STORE, 1);
    return s->mesh;
}

static bool warm(sim *s)
{
    for (size_t i = 0; i < s->n_nodes; i++) {
        for (size_t j = 0; j < s->n_nodes; j++) {
            const sim_node *edge = &s->nodes[i], *router = &s->nodes[j];
            if (edge->role == MESH_EDGE && router->role == MESH_ROUTER &&
                (!sim_linked(s, edge->name, router->name) || !mesh_ring_has(edge_core_ring(edge->edge), router->self))) {
                return false;
            }
        }
    }
    return true;
}

sim *sim_new(sim_conf conf)
{
    sim *s = mesh_alloc(sizeof *s);
    s->conf = conf;
    s->rand.state = conf.seed * 0x9e3779b97f4a7c15u + 1;
    s->now = SIM_EPOCH_MS * 1000LL;
    s->arena = mesh_arena_new();
    s->event_arena = mesh_arena_new();
    s->clients_end = &s->clients;
    s->ops_end = &s->ops;
    s->disk_times = s->net_times = 1;
    static unsigned disks; /* only makes the name another one; nothing depends on it */
    snprintf(s->disk_path, sizeof s->disk_path, "sim-disk-%u", ++disks);
    s->disk = sim_disk_new(s->disk_path, mesh_rand_next(&s->rand));
    const mesh_conf *mesh = make_conf(s);
    s->n_nodes = mesh_conf_nodes(mesh);
    s->nodes = mesh_alloc(s->n_nodes * sizeof *s->nodes);
    for (mesh_peer i = 0; i < s->n_nodes; i++) {
        const mesh_node_conf *node = mesh_conf_node(mesh, i);
        s->nodes[i] = (sim_node){.s = s, .self = i, .role = node->role, .name = node->name};
        s->nodes[i].inputs_end = &s->nodes[i].inputs;
        s->nodes[i].peer_boot = mesh_alloc(s->n_nodes * sizeof(uint64_t));
    }
    sim_net_init(s);
    for (size_t i = 0; i < s->n_nodes; i++) {
        sim_node_boot(&s->nodes[i]);
    }
    if (!conf.warm_later && !SIM_WAIT(s, 10000, warm(s))) {
        sim_complain(s, "no ring with every router within 10 s");
    }
    return s;
}

void sim_destroy(sim **s_p)
{
    sim *s = *s_p;
    if (!s) {
        return;
    }
    for (size_t i = 0; i < s->n_nodes; i++) {
        sim_node_die(&s->nodes[i]);
        free(s->nodes[i].peer_boot);
    }
    sim_clients_fini(s);
    sim_sockets_fini(s);
    sim_net_fini(s);
    free(s->nodes);
    free(s->heap);
    sim_disk_destroy(&s->disk);
    mesh_conf_destroy(&s->mesh);
    mesh_arena_destroy(&s->arena);
    mesh_arena_destroy(&s->event_arena);
    mesh_buf_fini(&s->text);
    mesh_buf_fini(&s->complaints);
    mesh_buf_fini(&s->events);
    free(s);
    *s_p = NULL;
}
