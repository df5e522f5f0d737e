#include "store/leases.h"

#include <stdlib.h>
#include <string.h>

#include "mesh/alloc.h"

#define STALL_MS 500 /* a gap between two turns that counts as not having run */

typedef struct lease {
    bool live;
    uint64_t boot;
    mesh_ms until;
} lease;

struct store_leases {
    const mesh_conf *conf;
    const mesh_ring *ring;
    mesh_ms length; /* of a lease */
    mesh_ms last_seen;
    size_t n;
    lease *of; /* by peer */
};

store_leases *store_leases_new(const mesh_conf *conf, const mesh_ring *ring)
{
    store_leases *leases = mesh_alloc(sizeof *leases);
    leases->conf = conf;
    leases->ring = ring;
    leases->length = mesh_conf_int(conf, "store.lease_ms");
    leases->last_seen = MESH_NEVER;
    leases->n = mesh_conf_nodes(conf);
    leases->of = mesh_alloc(leases->n * sizeof *leases->of);
    return leases;
}

void store_leases_destroy(store_leases **leases_p)
{
    store_leases *leases = *leases_p;
    if (leases != NULL) {
        free(leases->of);
        free(leases);
        *leases_p = NULL;
    }
}

void store_leases_start(store_leases *leases, mesh_time now)
{
    for (size_t i = 0; i < leases->n; i++) {
        if (mesh_ring_has(leases->ring, (mesh_peer)i) && !leases->of[i].live) {
            leases->of[i] = (lease){ .live = true,
                                     .boot = mesh_ring_boot(leases->ring, (mesh_peer)i),
                                     .until = now.mono + leases->length };
        }
    }
}

void store_leases_seen(store_leases *leases, mesh_time now)
{
    mesh_ms gap = leases->last_seen == MESH_NEVER ? 0 : now.mono - leases->last_seen;
    leases->last_seen = now.mono;
    for (size_t i = 0; gap >= STALL_MS && i < leases->n; i++) {
        leases->of[i].until += gap;
    }
}

mesh_err store_leases_renew(store_leases *leases, mesh_peer from, const Mesh__Lease *renewal, mesh_time now)
{
    const mesh_node_conf *node = mesh_conf_node(leases->conf, from);
    if (node->role != MESH_ROUTER || strcmp(node->name, renewal->router) != 0) {
        return MESH_MALFORMED;
    }
    leases->of[from] = (lease){ .live = !renewal->leaving, .boot = renewal->boot, .until = now.mono + leases->length };
    return MESH_OK;
}

static bool is_live(const store_leases *leases, size_t peer, mesh_time now)
{
    return leases->of[peer].live && leases->of[peer].until > now.mono;
}

static int compare_names(const void *a, const void *b)
{
    return strcmp((*(Mesh__RingNode *const *)a)->name, (*(Mesh__RingNode *const *)b)->name);
}

bool store_leases_differ(store_leases *leases, mesh_time now, mesh_arena *arena, Mesh__RingSet *set)
{
    bool differ = false;
    size_t n = 0;
    for (size_t i = 0; i < leases->n; i++) {
        bool live = is_live(leases, i, now);
        bool had = mesh_ring_has(leases->ring, (mesh_peer)i);
        leases->of[i].live = live;
        n += live ? 1 : 0;
        differ = differ || live != had || (live && mesh_ring_boot(leases->ring, (mesh_peer)i) != leases->of[i].boot);
    }
    if (!differ) {
        return false;
    }
    mesh__ring_set__init(set);
    set->routers = mesh_arena_alloc(arena, (n + 1) * sizeof *set->routers);
    for (size_t i = 0; i < leases->n; i++) {
        if (leases->of[i].live) {
            Mesh__RingNode *node = mesh_arena_alloc(arena, sizeof *node);
            mesh__ring_node__init(node);
            node->name = mesh_arena_strdup(arena, mesh_conf_node(leases->conf, (mesh_peer)i)->name);
            node->boot = leases->of[i].boot;
            set->routers[set->n_routers++] = node;
        }
    }
    size_t shards = mesh_conf_shards(leases->conf);
    if (mesh_ring_epoch(leases->ring) == 0 && shards > 1) {
        mesh_ring_even_map((uint32_t)shards, arena, set);
    }
    qsort(set->routers, set->n_routers, sizeof *set->routers, compare_names);
    return true;
}

mesh_ms store_leases_deadline(const store_leases *leases)
{
    mesh_ms next = MESH_NEVER;
    for (size_t i = 0; i < leases->n; i++) {
        if (leases->of[i].live && leases->of[i].until < next) {
            next = leases->of[i].until;
        }
    }
    /* with little to do the turns must not lie so far apart that they look like a stall */
    mesh_ms look = leases->last_seen == MESH_NEVER ? MESH_NEVER : leases->last_seen + STALL_MS / 2;
    return next != MESH_NEVER && look < next ? look : next;
}
