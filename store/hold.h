/* store/hold.h: which part of the log replicas that are behind still need.
 *
 * A replica that was started and does not follow its leader yet says to every store of its shard after which index it
 * needs the log (StateHold): its last entry, or, while it fetches a copy of the rows, what the copy will be installed
 * with. It says so at once and every STORE_HOLD_SAY_MS, over the switch to the copy and on, until it follows; then it
 * says 0. Every store keeps its log above the lowest index it was told, leader or not: whoever leads next must have it,
 * too. Otherwise a shard under load would trim, while a long copy is made, what the receiver needs after it.
 *
 * A word counts for STORE_TRANSFER_GRACE_MS. One about entries that this store does not have any more changes nothing.
 * The owner does not keep what passes its limits (store.log_hold_mib, STORE_HOLD_ENTRIES, too little space): the log is
 * trimmed then, and the receiver begins again with another copy. */
#ifndef STORE_HOLD_H
#define STORE_HOLD_H

#include "mesh/clock.h"
#include "mesh/conf.h"
#include "mesh/out.h"

#define STORE_HOLD_SAY_MS 1000
#define STORE_HOLD_ENTRIES 2000000 /* of the log, kept for replicas that are behind: each costs some memory */
#define STORE_HOLD_NONE UINT64_MAX

typedef struct store_hold store_hold;

/* conf is borrowed. */
store_hold *store_hold_new(const mesh_conf *conf, mesh_peer self);
void store_hold_destroy(store_hold **hold_p);

/* ---- a replica that is behind ---- */

/* Say it, if it is time. index: the log after it is needed; 0: none is. copies: it is what a copy will have, which is
 * told at once. up: 0 for a peer that is down. Returns the next deadline. */
mesh_ms store_hold_say(store_hold *hold, uint64_t index, bool copies, const uint64_t *up, mesh_time now, mesh_out *out);

/* ---- the others ---- */

/* first: the lowest index after which this store's log can go on (store/consensus.h). Errors: MESH_MALFORMED not from
 * another store of the shard, or about another shard. */
MESH_MUST mesh_err store_hold_heard(store_hold *hold, mesh_peer peer, const Mesh__StateHold *msg, uint64_t first,
                                    mesh_time now);
/* May so much log be kept for replicas that are behind? limit: in bytes. */
bool store_hold_fits(uint64_t bytes, uint64_t entries, uint64_t limit);
/* The indices that count now, in the order of the config; none below first. Returns how many. */
size_t store_hold_words(const store_hold *hold, uint64_t first, mesh_time now, uint64_t words[MESH_REPLICAS_MAX]);

#endif
