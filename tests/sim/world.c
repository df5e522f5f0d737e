/* tests/sim/world.c: the mesh as a whole: its making and its end, faults by the names of nodes, and looks inside. */
#include "tests/sim/impl.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mesh/log.h"

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

void sim_disk_slow(sim *s, unsigned times)
{
    s->disk_times = times;
}

void sim_disk_hold(sim *s, bool hold)
{
    s->disk_held = hold;
    sim_node *n = sim_node_find(s, "store1");
    if (!hold && n->store) {
        sim_node_plan_sync(n);
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
    mesh_node_conf node = { .role = role };
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
                (!sim_linked(s, edge->name, router->name) ||
                 !mesh_ring_has(edge_core_ring(edge->edge), router->self))) {
                return false;
            }
        }
    }
    return true;
}

sim *sim_new(sim_conf conf)
{
    mesh_log_level(MESH_WARN); /* the trace tells the story; sessions that come and go would drown it */
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
        s->nodes[i] = (sim_node){ .s = s, .self = i, .role = node->role, .name = node->name };
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
