/* store/slot.h: slots that move from one shard to another, one by one, under load.
 *
 * An operator tells the leader of the shard that has the slot (SlotMove). From then on that leader, or whoever leads
 * after it, goes through the steps (store/mover.h); each of them is an entry in the log of the shard it changes, each
 * may be repeated, and nothing else in the mesh has to remember anything:
 *   1. SlotMove at the old shard. From this entry on it answers for the slot no more, neither writes nor reads: whoever
 *      asks is told FAULT_UNAVAILABLE, and routers ask again. The slot's rows stand still. What its outbox owes of
 *      chats in the slot becomes rows of the slot ('w'); it delivers nothing of them any more.
 *   2. SlotRows at the new shard: the slot's rows in the order of their keys, part by part, by way of a router. A part
 *      begins behind a key; one that does not begin where the last one ended changes nothing, and the answer says where
 *      to go on. With the last part come the era of the slot's inboxes (their cursors stay good), its fence and the
 *      highest id that its chats can hold. At the end of that entry the new shard answers for the slot.
 *   3. MapSet at shard 0: the map has the slot at the new shard, the ring's epoch is one higher. The old shard says it
 *      until its ring has it; after that the new shard does, should the map ever have it elsewhere.
 *   4. When the old shard's own log has that map: SlotGone, until all rows are deleted. Long entries which inboxes of
 *      this shard refer to stay behind as copies ('x').
 *   5. SlotOwed at the new shard: the rows 'w' join its outbox. Who has such an entry already answers DUP.
 * A slot counts how often it moved. What comes late of an earlier move is known by that and changes nothing. */
#ifndef STORE_SLOT_H
#define STORE_SLOT_H

#include "mesh/buf.h"
#include "mesh/err.h"
#include "mesh/id.h"
#include "mesh/wire.h"

#define STORE_SLOT_PART (200u * 1024) /* bytes of rows in one SlotRows, or one row: a log entry holds little else */
#define STORE_SLOT_OWED 96            /* items in one row 'w' */
/* Owed by the outbox, beyond which no slot begins to leave (FAULT_BUSY): the entry that takes along what is owed of the
 * slot's chats reads all rows of the outbox at once, which is 10 to 20 ms for so many. */
#define STORE_SLOT_MOVE_OWED_MAX 20000
#define STORE_SLOT_GONE_ROWS 2000     /* deleted by one SlotGone */
#define STORE_SLOT_AGAIN_MS 50        /* whoever asks for a slot that is elsewhere may ask again after this */
#define STORE_SLOT_TABLES "cdhimpuvw" /* that have the slot in their keys and move with it, ascending */

/* What this shard's log has said of a slot. It goes 0 -> LEAVING -> GONE -> ARRIVING -> HELD -> LEAVING ...; a shard
 * that never had the slot begins with ARRIVING. */
typedef enum store_slot_state {
    STORE_SLOT_BY_MAP = 0, /* it never moved: the map says whose it is */
    STORE_SLOT_LEAVING,    /* not answered for; the rows are here and stand still, or are being deleted */
    STORE_SLOT_GONE,
    STORE_SLOT_ARRIVING, /* some of its rows are here */
    STORE_SLOT_HELD      /* it came and is this shard's, whatever the map says yet */
} store_slot_state;

typedef struct store_slot {
    store_slot_state state;
    uint32_t shard;  /* leaving: to; arriving: from */
    uint64_t move;   /* how often it has moved as far as is known here */
    uint64_t mapped; /* shard 0: the last move that is in the map */
    mesh_buf after;  /* arriving: the last key that is here */
} store_slot;

struct store_fsm;
/* Read the slots' rows. Errors: MESH_CORRUPT. */
MESH_MUST mesh_err store_slot_load(struct store_fsm *fsm);
void store_slot_save(struct store_fsm *fsm, mesh_slot slot);
/* The slot that is leaving, MESH_SLOTS: none. There is one at a time. */
mesh_slot store_slot_leaving(const struct store_fsm *fsm);
/* This entry has to do with the slot: it is settled at its end. */
void store_slot_touch(struct store_fsm *fsm, mesh_slot slot);
/* At the end of an entry, before its rows are queued: what arrived whole is held; what begins to leave takes along what
 * is owed. fsm->error says if rows do not read back. */
void store_slot_settle(struct store_fsm *fsm);
/* And after that: nothing of those slots is kept in memory. */
void store_slot_forget(struct store_fsm *fsm);
/* Is this the key of a row that moves with the slot? */
bool store_slot_has(mesh_slot slot, mesh_slice key);

/* Rows of the slot with keys > after, ascending, up to STORE_SLOT_PART or one, as they go to the other shard: inbox
 * rows whole, whatever stays here. last: there are no more. Errors: MESH_CORRUPT. */
MESH_MUST mesh_err store_slot_part(struct store_fsm *fsm, mesh_arena *arena, mesh_slot slot, mesh_slice after,
                                   mesh_buf *rows, bool *last);

#endif
