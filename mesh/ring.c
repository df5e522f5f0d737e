#include "mesh/ring.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "mesh/alloc.h"

struct mesh_ring {
    const mesh_conf *conf;
    uint64_t epoch;
    uint64_t *weights; /* per peer: hash of the node's name */
    bool *live;        /* per peer */
    uint64_t *boots;   /* per peer; 0 when not live */
    size_t n_live;
    uint32_t shard[MESH_SLOTS];  /* the map */
    mesh_peer store[MESH_SLOTS]; /* first store of that shard */
    mesh_peer owner[MESH_SLOTS]; /* worked out when the ring is set: a lookup is one read */
};

static mesh_peer first_store(const mesh_conf *conf, uint32_t shard)
{
    for (size_t i = 0; i < mesh_conf_nodes(conf); i++) {
        const mesh_node_conf *node = mesh_conf_node(conf, (mesh_peer)i);
        if (node->role == MESH_STORE && node->shard == shard) {
            return (mesh_peer)i;
        }
    }
    return MESH_NO_PEER;
}

static void set_map(mesh_ring *ring, const Mesh__Ring *from)
{
    memset(ring->shard, 0, sizeof ring->shard);
    for (size_t i = 0; i < from->n_map; i++) {
        for (uint32_t slot = from->map[i]->first; slot <= from->map[i]->last; slot++) {
            ring->shard[slot] = from->map[i]->shard;
        }
    }
    for (size_t slot = 0; slot < MESH_SLOTS; slot++) {
        bool same = slot > 0 && ring->shard[slot] == ring->shard[slot - 1];
        ring->store[slot] = same ? ring->store[slot - 1] : first_store(ring->conf, ring->shard[slot]);
    }
}

static void no_owners(mesh_ring *ring)
{
    for (size_t i = 0; i < MESH_SLOTS; i++) {
        ring->owner[i] = MESH_NO_PEER;
    }
}

mesh_ring *mesh_ring_new(const mesh_conf *conf)
{
    size_t n = mesh_conf_nodes(conf);
    mesh_ring *ring = mesh_alloc(sizeof *ring);
    ring->conf = conf;
    ring->weights = mesh_alloc(n * sizeof *ring->weights);
    ring->live = mesh_alloc(n * sizeof *ring->live);
    ring->boots = mesh_alloc(n * sizeof *ring->boots);
    for (size_t i = 0; i < n; i++) {
        ring->weights[i] = mesh_id_hash(mesh_conf_hash_key(conf), mesh_conf_node(conf, (mesh_peer)i)->name);
    }
    no_owners(ring);
    set_map(ring, &(Mesh__Ring)MESH__RING__INIT);
    return ring;
}

void mesh_ring_destroy(mesh_ring **ring_p)
{
    mesh_ring *ring = *ring_p;
    if (ring == NULL) {
        return;
    }
    free(ring->weights);
    free(ring->live);
    free(ring->boots);
    free(ring);
    *ring_p = NULL;
}

static uint64_t mix(uint64_t name_hash, mesh_slot slot)
{
    uint64_t z = name_hash ^ ((uint64_t)slot + 1) * UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

static mesh_peer heaviest(const mesh_ring *ring, const mesh_peer *routers, size_t n, mesh_slot slot)
{
    mesh_peer best = MESH_NO_PEER;
    uint64_t best_weight = 0;
    for (size_t i = 0; i < n; i++) {
        uint64_t weight = mix(ring->weights[routers[i]], slot);
        if (best == MESH_NO_PEER || weight > best_weight) {
            best = routers[i];
            best_weight = weight;
        }
    }
    return best;
}

static void place_slots(mesh_ring *ring)
{
    mesh_peer routers[MESH_NODES_MAX];
    size_t n = 0;
    for (size_t i = 0; i < mesh_conf_nodes(ring->conf); i++) {
        if (ring->live[i]) {
            routers[n++] = (mesh_peer)i;
        }
    }
    ring->n_live = n;
    for (size_t slot = 0; slot < MESH_SLOTS; slot++) {
        ring->owner[slot] = heaviest(ring, routers, n, (mesh_slot)slot);
    }
}

static bool map_valid(const Mesh__Ring *from)
{
    for (size_t i = 0; i < from->n_map; i++) {
        if (from->map[i]->first > from->map[i]->last || from->map[i]->last >= MESH_SLOTS ||
            from->map[i]->shard >= MESH_NODES_MAX) {
            return false;
        }
    }
    return true;
}

/* As few ranges as there are runs of slots that are not shard 0's. */
static void put_map(const uint32_t *shards, mesh_arena *arena, Mesh__Ring *message)
{
    size_t runs = 0;
    for (size_t slot = 0; slot < MESH_SLOTS; slot++) {
        runs += shards[slot] != 0 && (slot == 0 || shards[slot] != shards[slot - 1]);
    }
    message->map = mesh_arena_alloc(arena, (runs + 1) * sizeof *message->map);
    Mesh__SlotRange *range = NULL;
    for (uint32_t slot = 0; slot < MESH_SLOTS; slot++) {
        if (shards[slot] == 0) {
            range = NULL;
        } else if (range != NULL && range->shard == shards[slot]) {
            range->last = slot;
        } else {
            range = mesh_arena_alloc(arena, sizeof *range);
            mesh__slot_range__init(range);
            range->first = range->last = slot;
            range->shard = shards[slot];
            message->map[message->n_map++] = range;
        }
    }
}

mesh_err mesh_ring_set(mesh_ring *ring, const Mesh__Ring *from)
{
    if (from->epoch <= ring->epoch) {
        return MESH_STALE;
    }
    if (!map_valid(from)) {
        return MESH_MALFORMED;
    }
    size_t n = mesh_conf_nodes(ring->conf);
    for (size_t i = 0; i < n; i++) {
        ring->live[i] = false;
        ring->boots[i] = 0;
    }
    for (size_t i = 0; i < from->n_routers; i++) {
        mesh_peer peer = mesh_conf_find(ring->conf, from->routers[i]->name);
        if (peer == MESH_NO_PEER || mesh_conf_node(ring->conf, peer)->role != MESH_ROUTER || ring->live[peer]) {
            continue;
        }
        ring->live[peer] = true;
        ring->boots[peer] = from->routers[i]->boot;
    }
    ring->epoch = from->epoch;
    set_map(ring, from);
    place_slots(ring);
    return MESH_OK;
}

void mesh_ring_even_map(uint32_t shards, mesh_arena *arena, Mesh__RingSet *set)
{
    assert(shards > 0 && shards <= MESH_SLOTS);
    set->n_map = shards;
    set->map = mesh_arena_alloc(arena, shards * sizeof *set->map);
    for (uint32_t i = 0; i < shards; i++) {
        set->map[i] = mesh_arena_alloc(arena, sizeof *set->map[i]);
        mesh__slot_range__init(set->map[i]);
        set->map[i]->first = i * MESH_SLOTS / shards;
        set->map[i]->last = (i + 1) * MESH_SLOTS / shards - 1;
        set->map[i]->shard = i;
    }
}

uint64_t mesh_ring_epoch(const mesh_ring *ring)
{
    return ring->epoch;
}

Mesh__Ring *mesh_ring_message(const mesh_ring *ring, mesh_arena *arena)
{
    Mesh__Ring *message = mesh_arena_alloc(arena, sizeof *message);
    mesh__ring__init(message);
    message->epoch = ring->epoch;
    message->routers = mesh_arena_alloc(arena, ring->n_live * sizeof *message->routers);
    for (size_t i = 0; i < mesh_conf_nodes(ring->conf); i++) {
        if (!ring->live[i]) {
            continue;
        }
        Mesh__RingNode *node = mesh_arena_alloc(arena, sizeof *node);
        mesh__ring_node__init(node);
        node->name = mesh_arena_strdup(arena, mesh_conf_node(ring->conf, (mesh_peer)i)->name);
        node->boot = ring->boots[i];
        message->routers[message->n_routers++] = node;
    }
    put_map(ring->shard, arena, message);
    return message;
}

Mesh__Ring *mesh_ring_moved(const mesh_ring *ring, mesh_slot slot, uint32_t shard, mesh_arena *arena)
{
    Mesh__Ring *message = mesh_ring_message(ring, arena);
    uint32_t *shards = mesh_arena_alloc(arena, sizeof ring->shard);
    memcpy(shards, ring->shard, sizeof ring->shard);
    shards[slot] = shard;
    message->epoch++;
    message->n_map = 0;
    put_map(shards, arena, message);
    return message;
}

mesh_peer mesh_ring_router(const mesh_ring *ring, mesh_slot slot)
{
    assert(slot < MESH_SLOTS);
    return ring->owner[slot];
}

mesh_peer mesh_ring_router_of(const mesh_ring *ring, const char *qid)
{
    return ring->owner[mesh_ring_slot(ring, qid)];
}

mesh_slot mesh_ring_slot(const mesh_ring *ring, const char *qid)
{
    return mesh_id_slot(mesh_conf_hash_key(ring->conf), qid);
}

uint32_t mesh_ring_shard(const mesh_ring *ring, mesh_slot slot)
{
    assert(slot < MESH_SLOTS);
    return ring->shard[slot];
}

uint32_t mesh_ring_shard_of(const mesh_ring *ring, const char *qid)
{
    return ring->shard[mesh_ring_slot(ring, qid)];
}

mesh_peer mesh_ring_store_of(const mesh_ring *ring, const char *qid)
{
    return ring->store[mesh_ring_slot(ring, qid)];
}

bool mesh_ring_has(const mesh_ring *ring, mesh_peer router)
{
    return router < mesh_conf_nodes(ring->conf) && ring->live[router];
}

uint64_t mesh_ring_boot(const mesh_ring *ring, mesh_peer router)
{
    return mesh_ring_has(ring, router) ? ring->boots[router] : 0;
}
