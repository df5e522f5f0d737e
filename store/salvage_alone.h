/* store/salvage_alone.h: a copy of one of several replicas made the database of a group of one. Internal to salvage. */
#ifndef STORE_SALVAGE_ALONE_H
#define STORE_SALVAGE_ALONE_H

#include "store/consensus.h"
#include "store/salvage.h"

/* store_consensus_left, with the applied index of the rows. Errors: the same. */
MESH_MUST mesh_err store_salvage_left(store_kv *kv, store_left *left, char *why, size_t why_size);
/* Apply what is proven, and the rest of the log unless r->cut; then no log, and a new group of self alone.
 * Errors: as store_salvage_replay_replica. */
MESH_MUST mesh_err store_salvage_alone(const store_salvage_replica *r, mesh_peer self, const store_left *left,
                                       store_kv *kv, char *why, size_t why_size);

#endif
