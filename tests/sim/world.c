/* tests/sim/world.c: the mesh as a whole: its making and its end, faults by the names of nodes, and looks inside. */
#include "tests/sim/impl.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mesh/log.h"
#include "store/metrics.h"

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
        .at = sim_node_find(s, node), .from = from ? sim_node_find(s, from) : NULL, .kind = kind, .left = n
    };
}

void sim_lose_none(sim *s)
{
    s->n_losses = 0;
}

/* ---- the disk ---- */

/* Each store, or the one of that name. */
static bool is_meant(const sim_node *n, const char *store)
{
    return n->role == MESH_STORE && (!store || strcmp(n->name, store) == 0);
}

void sim_disk_slow_at(sim *s, const char *store, unsigned times)
{
    for (size_t i = 0; i < s->n_nodes; i++) {
        if (is_meant(&s->nodes[i], store)) {
            s->nodes[i].disk_times = times;
        }
    }
}

void sim_disk_hold_at(sim *s, const char *store, bool hold)
{
    for (size_t i = 0; i < s->n_nodes; i++) {
        sim_node *n = &s->nodes[i];
        if (is_meant(n, store)) {
            n->disk_held = hold;
            if (!hold && n->store) {
                sim_node_plan_sync(n);
            }
        }
    }
}

void sim_disk_fill_at(sim *s, const char *store)
{
    sim_trace(s, "the disk of %s is full", store ? store : "every store");
    for (size_t i = 0; i < s->n_nodes; i++) {
        sim_node *n = &s->nodes[i];
        if (is_meant(n, store)) {
            n->disk_full = true;
            sim_disk_fail(n->disk, MESH_NO_SPACE);
            sim_disk_refuse(n->disk, MESH_NO_SPACE);
        }
    }
}

void sim_disk_free_at(sim *s, const char *store)
{
    sim_trace(s, "the disk of %s has space", store ? store : "every store");
    for (size_t i = 0; i < s->n_nodes; i++) {
        sim_node *n = &s->nodes[i];
        if (is_meant(n, store)) {
            n->disk_full = n->disk_broken = false;
            sim_disk_fail(n->disk, MESH_OK);
            sim_disk_refuse(n->disk, MESH_OK);
        }
    }
}

void sim_disk_break_at(sim *s, const char *store)
{
    sim_trace(s, "the disk of %s breaks", store ? store : "every store");
    for (size_t i = 0; i < s->n_nodes; i++) {
        sim_node *n = &s->nodes[i];
        if (is_meant(n, store) && n->store) {
            n->disk_broken = n->disk_broke = true;
            sim_disk_fail(n->disk, MESH_IO);
        }
    }
}

bool sim_disk_flip_at(sim *s, const char *store, bool at_open)
{
    sim_node *n = sim_node_find(s, store);
    bool done = sim_disk_flip(n->disk, &s->rand, at_open);
    sim_trace(s, "%s: a bit of a row flips%s", store, done ? "" : ": there is none");
    return done;
}

bool sim_disk_stale_at(sim *s, const char *store)
{
    sim_node *n = sim_node_find(s, store);
    assert(!n->alive);
    bool done = sim_disk_put_back(n->disk);
    n->disk_old = n->disk_old || done;
    sim_trace(s, "%s: has an old disk%s", store, done ? "" : ": none was kept");
    return done;
}

unsigned sim_disk_sound(sim *s, const char *store)
{
    uint32_t shard = sim_node_find(s, store)->shard;
    unsigned sound = 0;
    for (size_t i = 0; i < s->n_nodes; i++) {
        sim_node *n = &s->nodes[i];
        if (n->role != MESH_STORE || n->shard != shard) {
            continue;
        }
        n->disk_old = n->disk_old && !sim_replicas_even(s, n->name);
        sound += !n->disk_old && !sim_disk_is_flipped(n->disk) && !store_kv_is_lost(n->disk_path);
    }
    return sound;
}

unsigned sim_switches_at(sim *s, const char *store)
{
    return sim_node_find(s, store)->switches;
}

unsigned sim_disk_quarantines_at(sim *s, const char *store)
{
    return sim_disk_quarantines(sim_node_find(s, store)->disk);
}

void sim_space_at(sim *s, const char *store, bool enough)
{
    for (size_t i = 0; i < s->n_nodes; i++) {
        if (is_meant(&s->nodes[i], store) && s->nodes[i].store) {
            store_core_set_space(s->nodes[i].store, enough);
        }
    }
}

void sim_disk_slow(sim *s, unsigned times)
{
    sim_disk_slow_at(s, NULL, times);
}

void sim_disk_hold(sim *s, bool hold)
{
    sim_disk_hold_at(s, NULL, hold);
}

void sim_disk_fill(sim *s)
{
    sim_disk_fill_at(s, NULL);
}

void sim_disk_free(sim *s)
{
    sim_disk_free_at(s, NULL);
}

void sim_space(sim *s, bool enough)
{
    sim_space_at(s, NULL, enough);
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
    return sim_store_at(s, "store1");
}

store_core *sim_store_at(sim *s, const char *node)
{
    return sim_node_find(s, node)->store;
}

unsigned sim_stores(const sim *s)
{
    return s->conf.shards * s->conf.replicas;
}

const char *sim_leader(sim *s, uint32_t shard)
{
    for (size_t i = 0; i < s->n_nodes; i++) {
        sim_node *n = &s->nodes[i];
        if (n->store && n->shard == shard && mesh_stats_get(store_core_stats(n->store), STORE_M_LEADER)) {
            return n->name;
        }
    }
    return NULL;
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

static const mesh_ring *newest_ring(sim *s)
{
    const mesh_ring *best = NULL;
    for (size_t i = 0; i < s->n_nodes; i++) {
        const mesh_ring *ring = s->nodes[i].edge ? edge_core_ring(s->nodes[i].edge) : NULL;
        if (ring && (!best || mesh_ring_epoch(ring) > mesh_ring_epoch(best))) {
            best = ring;
        }
    }
    return best;
}

const char *sim_owner(sim *s, const char *qid)
{
    const mesh_ring *ring = newest_ring(s);
    mesh_peer peer = ring ? mesh_ring_router_of(ring, qid) : MESH_NO_PEER;
    return peer == MESH_NO_PEER ? NULL : mesh_conf_node(s->mesh, peer)->name;
}

uint32_t sim_shard(sim *s, const char *qid)
{
    const mesh_ring *ring = newest_ring(s);
    return ring ? mesh_ring_shard_of(ring, qid) : 0;
}

unsigned sim_slot(sim *s, const char *qid)
{
    return mesh_id_slot(mesh_conf_hash_key(s->mesh), qid);
}

static mesh_peer any_router(const sim *s)
{
    size_t i = 0;
    while (s->nodes[i].role != MESH_ROUTER) {
        i++;
    }
    return s->nodes[i].self;
}

bool sim_move_slot(sim *s, unsigned slot, uint32_t shard)
{
    const mesh_ring *ring = newest_ring(s);
    const char *leader = ring ? sim_leader(s, mesh_ring_shard(ring, (mesh_slot)slot)) : NULL;
    if (!leader) {
        return false;
    }
    sim_node *n = sim_node_find(s, leader);
    Mesh__SlotMove move = MESH__SLOT_MOVE__INIT;
    move.slot = slot;
    move.shard = shard;
    MESH_MSG(msg, SLOT_MOVE, slot_move, &move);
    mesh_buf packed = { 0 };
    mesh_wire_pack(&msg, &packed);
    sim_trace(s, "%s: slot %u is to go to shard %u", leader, slot, shard);
    store_core_message(n->store, any_router(s), &msg, mesh_buf_slice(&packed), sim_time(s), n->out);
    mesh_buf_fini(&packed);
    sim_node_wake(n, s->now);
    return true;
}

bool sim_moving(sim *s)
{
    for (uint32_t shard = 0; shard < s->conf.shards; shard++) {
        const char *leader = sim_leader(s, shard);
        if (!leader || mesh_stats_get(store_core_stats(sim_store_at(s, leader)), STORE_M_SLOT_LEAVING)) {
            return true;
        }
    }
    return false;
}

/* ---- the whole ---- */

static void add_node(sim *s, mesh_role role, unsigned n, uint32_t shard)
{
    mesh_node_conf node = { .role = role, .shard = shard };
    snprintf(node.name, sizeof node.name, "%s%u", mesh_role_name(role), n);
    if (role != MESH_EDGE && role != MESH_OPERATOR) {
        snprintf(node.endpoint, sizeof node.endpoint, "inproc://%s", node.name);
    }
    mesh_err err = mesh_conf_add_node(s->mesh, &node);
    assert(!err);
}

static void set_number(sim *s, const char *key, unsigned value)
{
    char text[16];
    snprintf(text, sizeof text, "%u", value);
    if (value) {
        mesh_err err = mesh_conf_set(s->mesh, key, text);
        assert(!err);
    }
}

static mesh_conf *make_conf(sim *s)
{
    s->mesh = mesh_conf_new();
    mesh_err err = mesh_conf_set(s->mesh, "cluster.hash_key", "000102030405060708090a0b0c0d0e0f");
    assert(!err);
    for (unsigned i = 1; i <= s->conf.edges; i++) {
        add_node(s, MESH_EDGE, i, 0);
    }
    for (unsigned i = 1; i <= s->conf.routers; i++) {
        add_node(s, MESH_ROUTER, i, 0);
    }
    for (unsigned i = 0; i < sim_stores(s); i++) {
        add_node(s, MESH_STORE, i + 1, i / s->conf.replicas);
    }
    if (s->conf.has_operator) {
        add_node(s, MESH_OPERATOR, 1, 0);
    }
    if (s->conf.log_trail_kib) {
        char kib[16];
        snprintf(kib, sizeof kib, "%u", s->conf.log_trail_kib);
        err = mesh_conf_set(s->mesh, "store.log_trail_kib", kib);
        assert(!err);
    }
    set_number(s, "store.copy_mib_s", s->conf.copy_mib_s);
    set_number(s, "store.log_hold_mib", s->conf.log_hold_mib);
    return s->mesh;
}

static bool warm(sim *s)
{
    for (uint32_t shard = 0; shard < s->conf.shards; shard++) {
        const char *leader = sim_leader(s, shard);
        if (!leader || mesh_stats_get(store_core_stats(sim_store_at(s, leader)), STORE_M_VOTERS) < s->conf.replicas) {
            return false;
        }
    }
    for (size_t i = 0; i < s->n_nodes; i++) {
        for (size_t j = 0; j < s->n_nodes; j++) {
            const sim_node *edge = &s->nodes[i], *router = &s->nodes[j];
            if (edge->role == MESH_EDGE && router->role == MESH_ROUTER &&
                (!sim_linked(s, edge->name, router->name) ||
                 !mesh_ring_has(edge_core_ring(edge->edge), router->self))) {
                return false;
            }
        }
    }
    return true;
}

static void make_disk(sim_node *n, uint32_t shard)
{
    static unsigned disks; /* only makes the name another one; nothing depends on it */
    n->shard = shard;
    n->disk_times = 1;
    snprintf(n->disk_path, sizeof n->disk_path, "sim-disk-%u", ++disks);
    n->disk = sim_disk_new(n->disk_path, mesh_rand_next(&n->s->rand));
    sim_judge_disk(n);
}

void sim_disk_wipe_at(sim *s, const char *store)
{
    sim_node *n = sim_node_find(s, store);
    assert(!n->alive);
    sim_disk_destroy(&n->disk);
    make_disk(n, n->shard);
    sim_trace(s, "%s: has a new disk", n->name);
}

sim *sim_new(sim_conf conf)
{
    mesh_log_level(MESH_WARN); /* the trace tells the story; sessions that come and go would drown it */
    sim *s = mesh_alloc(sizeof *s);
    s->conf = conf;
    s->conf.shards = conf.shards ? conf.shards : 1;
    s->conf.replicas = conf.replicas ? conf.replicas : 1;
    s->rand.state = conf.seed * 0x9e3779b97f4a7c15u + 1;
    s->now = SIM_EPOCH_MS * 1000LL;
    s->arena = mesh_arena_new();
    s->event_arena = mesh_arena_new();
    s->clients_end = &s->clients;
    s->ops_end = &s->ops;
    s->net_times = 1;
    const mesh_conf *mesh = make_conf(s);
    s->n_nodes = mesh_conf_nodes(mesh);
    s->nodes = mesh_alloc(s->n_nodes * sizeof *s->nodes);
    sim_judge_init(s);
    for (mesh_peer i = 0; i < s->n_nodes; i++) {
        const mesh_node_conf *node = mesh_conf_node(mesh, i);
        s->nodes[i] = (sim_node){ .s = s, .self = i, .role = node->role, .name = node->name };
        s->nodes[i].inputs_end = &s->nodes[i].inputs;
        s->nodes[i].peer_boot = mesh_alloc(s->n_nodes * sizeof(uint64_t));
        if (node->role == MESH_STORE) {
            make_disk(&s->nodes[i], node->shard);
        }
    }
    sim_net_init(s);
    if (conf.has_operator) {
        sim_operator_init(s);
    }
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
        if (s->nodes[i].disk) {
            sim_disk_destroy(&s->nodes[i].disk);
        }
    }
    sim_clients_fini(s);
    sim_sockets_fini(s);
    sim_net_fini(s);
    sim_noise_fini(s);
    sim_operator_fini(s);
    sim_judge_fini(s);
    free(s->nodes);
    free(s->heap);
    mesh_conf_destroy(&s->mesh);
    mesh_arena_destroy(&s->arena);
    mesh_arena_destroy(&s->event_arena);
    mesh_buf_fini(&s->text);
    mesh_buf_fini(&s->complaints);
    mesh_buf_fini(&s->events);
    free(s);
    *s_p = NULL;
}
