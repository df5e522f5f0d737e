/* store/leases.h: which routers are live, at the leader of shard 0. A router renews its lease; one that does not, that
 * leaves, or that comes back with another boot changes the ring, through the log. Time in which this store itself did
 * nothing (a stopped process, a slow disk) is not held against anybody. */
#ifndef STORE_LEASES_H
#define STORE_LEASES_H

#include "mesh/clock.h"
#include "mesh/ring.h"

typedef struct store_leases store_leases;

store_leases *store_leases_new(const mesh_conf *conf, const mesh_ring *ring); /* both borrowed */
void store_leases_destroy(store_leases **leases_p);

void store_leases_start(store_leases *leases, mesh_time now); /* every router of the ring gets a full lease */
void store_leases_seen(store_leases *leases, mesh_time now);  /* this store is running: call it before anything else */
/* Errors: MESH_MALFORMED a lease in another node's name. */
MESH_MUST mesh_err store_leases_renew(store_leases *leases, mesh_peer from, const Mesh__Lease *lease, mesh_time now);
/* Does the ring have to change? Then set is filled with what it must be, by name; it borrows from arena. The first
 * one of all also has the map: the slots divided evenly among the shards of the config. */
bool store_leases_differ(store_leases *leases, mesh_time now, mesh_arena *arena, Mesh__RingSet *set);
mesh_ms store_leases_deadline(const store_leases *leases); /* of the next look at them */

#endif
