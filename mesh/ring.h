/* mesh/ring.h: which router owns a slot, and which shard stores it.
 *
 * slot -> router by rendezvous (highest random weight) hashing over the live routers: the same members in any order
 * give the same ring on every machine, and adding one of N moves about 1/N of the slots. slot -> shard from the map,
 * which comes with the ring and is kept by shard 0; a slot that is in no range is shard 0's.
 * Source: Thaler, Ravishankar, "Using Name-Based Mappings to Increase Hit Rates", 1998. */
#ifndef MESH_RING_H
#define MESH_RING_H

#include "mesh/conf.h"
#include "mesh/wire.h"

typedef struct mesh_ring mesh_ring;

mesh_ring *mesh_ring_new(const mesh_conf *conf); /* epoch 0, no routers; conf is borrowed for the ring's life */
void mesh_ring_destroy(mesh_ring **ring_p);

/* Take over a ring if it is newer. Routers that the config does not know are left out.
 * Errors: MESH_STALE epoch is not above the one held; MESH_MALFORMED a range of the map is none; nothing changed. */
MESH_MUST mesh_err mesh_ring_set(mesh_ring *ring, const Mesh__Ring *from);
uint64_t mesh_ring_epoch(const mesh_ring *ring);
/* The map of a new cluster: a range of equal length for each shard. It goes into the first RingSet and stays: a shard
 * that is added later has no slots until they are given to it. Borrows from arena. */
void mesh_ring_even_map(uint32_t shards, mesh_arena *arena, Mesh__RingSet *set);
/* The next ring: as a message, one epoch on, with this slot given to shard. Borrows from arena. */
Mesh__Ring *mesh_ring_moved(const mesh_ring *ring, mesh_slot slot, uint32_t shard, mesh_arena *arena);
/* As a message; arrays and strings borrow from arena. */
Mesh__Ring *mesh_ring_message(const mesh_ring *ring, mesh_arena *arena);

mesh_peer mesh_ring_router(const mesh_ring *ring, mesh_slot slot); /* MESH_NO_PEER: no live router */
mesh_peer mesh_ring_router_of(const mesh_ring *ring, const char *qid);
mesh_slot mesh_ring_slot(const mesh_ring *ring, const char *qid); /* by the config's hash key */
uint32_t mesh_ring_shard(const mesh_ring *ring, mesh_slot slot);
uint32_t mesh_ring_shard_of(const mesh_ring *ring, const char *qid);
mesh_peer mesh_ring_store_of(const mesh_ring *ring, const char *qid); /* the first store of the shard */
bool mesh_ring_has(const mesh_ring *ring, mesh_peer router);
uint64_t mesh_ring_boot(const mesh_ring *ring, mesh_peer router); /* 0 when not in the ring */

#endif
