/* store/mover.h: at a leader: takes a slot that is leaving to its new shard, step by step, and what came with a slot
 * and is owed into the outbox. See store/slot.h. It keeps nothing that a later leader would need: the rows and the
 * other shards' answers say where a move stands.
 *
 * Requests to other shards go to any router that is up, one at a time. No answer -> again, by way of the next router;
 * refused -> again after the time that was named. It never gives up: a slot that left has to arrive.
 *
 * The leader of the shard that a slot came to looks now and then whether the map has it there, and says so to shard 0
 * if not (MapSet, with the count of the move, so that an older one changes nothing): the shard it came from is done
 * with it once its own ring was right, and shard 0 may be an older copy since (store/salvage.h). */
#ifndef STORE_MOVER_H
#define STORE_MOVER_H

#include "mesh/out.h"
#include "store/fsm.h"

#define STORE_MOVER_TRY_MS 2000 /* for an answer */
#define STORE_MOVER_MAP_MS 5000 /* between two looks at what came and the map has elsewhere ... */
#define STORE_MOVER_MAPS 64     /* ... of which so many are named at once */

typedef struct store_mover store_mover;

store_mover *store_mover_new(store_fsm *fsm, uint64_t seed); /* fsm is borrowed; seed: of its requests' corr */
void store_mover_destroy(store_mover **mover_p);

/* An entry was applied: look again at what there is to do. */
void store_mover_applied(store_mover *mover);
/* The next message for this shard's own log, when there is one; it borrows from arena. */
bool store_mover_wants(store_mover *mover, mesh_arena *arena, Mesh__Msg *msg);
/* Ask another shard, if it is time. up: boot by peer, 0: down. Returns the next deadline. */
mesh_ms store_mover_turn(store_mover *mover, const uint64_t *up, mesh_time now, mesh_out *out);
/* slot_taken, done or fault of a router. */
void store_mover_heard(store_mover *mover, const Mesh__Msg *msg, mesh_time now);
void store_mover_down(store_mover *mover, mesh_peer router); /* what it was asked is asked again */

#endif
