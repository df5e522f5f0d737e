/* store/outbox.h: what committed entries still have to cause: each member's inbox must get them.
 *
 * One row per log entry lists its items (chat, seq); the row is deleted by OutboxDone in the log when every item is
 * delivered. A window of items is in memory, in order. An item's recipients (who had the seq in a span, with their
 * prev) are split into parcels: one for each lane, which is the router that owns their slots and the shard that stores
 * them. A parcel is sent when its router is up and has less than STORE_OUTBOX_FLIGHT_MAX bytes unanswered, in order,
 * and sent again until it is confirmed.
 *
 * A lane that is down holds up only itself: one that confirms nothing for STORE_OUTBOX_SICK_MS has no more than
 * STORE_OUTBOX_PROBES parcels in the window, its oldest, which are sent again, later and later. All others are put
 * aside (store/outbox_lane.c): an id in memory, read from its row again when the lane has confirmed something, oldest
 * first, more and more at a time. While STORE_OUTBOX_BACKLOG_MAX are aside no more rows are read. The number of those
 * aside, once for each lane, and the age of the oldest are metrics.
 *
 * What goes wrong: no answer -> the parcel is sent again, after twice the time; the router died -> a ring change splits
 * anew what is owed to users who moved, in the window or aside; a gap -> an older item of the window that still owes
 * the user closes it, else the missing entries go first, then the parcel again; the router is busy -> again, later and
 * later; the window is full -> items wait in their rows, and lanes are judged after STORE_OUTBOX_SICK_FULL_MS; this
 * store dies -> the rows are read again, and who had it already answers DUP. Item 0 is no item: what fills a gap is not
 * tracked, the parcel after it proves it. */
#ifndef STORE_OUTBOX_H
#define STORE_OUTBOX_H

#include "mesh/clock.h"
#include "mesh/out.h"
#include "store/fsm.h"

#define STORE_OUTBOX_ROW_SHIFT 16 /* an item's id is its row's log index << 16 | position */

typedef struct store_outbox store_outbox;

store_outbox *store_outbox_new(store_fsm *fsm); /* borrowed; nothing is sent before start */
void store_outbox_destroy(store_outbox **ob_p);

/* Count what is owed and begin. Errors: MESH_CORRUPT. */
MESH_MUST mesh_err store_outbox_start(store_outbox *ob);
/* The entry of log index was applied: fsm->owed is what it owes. Before start nothing happens. */
void store_outbox_owe(store_outbox *ob, uint64_t index, mesh_time now, mesh_out *out);
/* Unknown items and parcels are ignored. */
void store_outbox_delivered(store_outbox *ob, mesh_peer from, const Mesh__Delivered *delivered, mesh_time now,
                            mesh_out *out);
void store_outbox_up(store_outbox *ob, mesh_peer router, mesh_time now, mesh_out *out);
void store_outbox_down(store_outbox *ob, mesh_peer router);
/* A slot left: what is owed of its chats goes with it. What is aside of them is dropped when its turn comes. */
void store_outbox_slots(store_outbox *ob);
void store_outbox_ring(store_outbox *ob, mesh_time now, mesh_out *out); /* fsm->ring changed */
/* Put aside, bring back, load from rows, send again what is due. Returns the next deadline. */
mesh_ms store_outbox_turn(store_outbox *ob, mesh_time now, mesh_out *out);

/* Rows that are done since the last call: at most max log indexes. */
size_t store_outbox_take_done(store_outbox *ob, uint64_t *indexes, size_t max);
size_t store_outbox_done(const store_outbox *ob);
/* Owed, in memory or not. Of what is aside only as many as the fullest lane has: most of it is the same items. */
uint64_t store_outbox_items(const store_outbox *ob);

#endif
