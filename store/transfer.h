/* store/transfer.h: a replica's rows, given to other replicas of the shard, or to an operator who makes a backup, in
 * chunks: the serving side, and what both sides must agree on. The receiving side is store/fetch.h.
 *
 * The receiver pulls: it asks for a chunk (StateAsk), and for the next one when it has put that on its disk. A session
 * is a view of the database (store/kv.h) and how far it was read, so a receiver gets the rows of one moment however
 * long it takes, and writes go on meanwhile. An ask for the chunk given last gives the same bytes again: asks and
 * chunks may be lost, doubled and late.
 *
 * What is given: the applied row (\0A), which says which index the rows stand for, then every row that is not
 * consensus's own (\0H, \0L, \0S). Each chunk has a checksum, which also chains the chunks: the last one carries the
 * digest of all, so nothing can be missing, doubled or from another session.
 *
 * What goes wrong, answered by Fault: the sender is neither a store of this shard nor an operator, or of another
 * cluster -> FAULT_DENIED; this replica's disk is behind what is wanted, or cannot be read -> FAULT_UNAVAILABLE;
 * STORE_TRANSFER_SESSIONS are open -> FAULT_BUSY; the session is not known, because it was idle, its receiver began
 * another, or this store was restarted -> FAULT_NOT_FOUND. Nonsense is counted and dropped. */
#ifndef STORE_TRANSFER_H
#define STORE_TRANSFER_H

#include "mesh/clock.h"
#include "mesh/conf.h"
#include "mesh/out.h"
#include "store/kv.h"

#define STORE_TRANSFER_CHUNK (256u * 1024)    /* bytes of rows in a chunk, or one row if that is larger */
#define STORE_TRANSFER_ROWS_MAX (960u * 1024) /* no row is so large; with the rest it must fit into a message */
#define STORE_TRANSFER_SESSIONS 2             /* at a time, of different receivers */
#define STORE_TRANSFER_IDLE_MS 5000           /* a session that nobody asked for this long is over */
#define STORE_TRANSFER_GRACE_MS                                                                                        \
    30000 /* a receiver that has everything needs the log from there on: it is held for so long */
#define STORE_TRANSFER_RATE_MIN (256u * 1024) /* a lower limit counts as this: receivers would give up */
#define STORE_TRANSFER_NONE UINT64_MAX        /* no session holds the log */
#define STORE_TRANSFER_SUM 32                 /* bytes of a checksum and of the digest (BLAKE2b) */

typedef struct store_transfer store_transfer;

typedef struct store_transfer_conf {
    const mesh_conf *conf; /* borrowed for the object's life */
    mesh_peer self;        /* a store */
    uint64_t boot;         /* another one in each process: session ids grow from it */
    uint64_t rate;         /* bytes a second, all sessions together; 0 = no limit */
} store_transfer_conf;

typedef struct store_transfer_counts {
    uint64_t sessions, chunks, again, bytes; /* opened; given; of these a second time; of rows */
    uint64_t refused, bad;                   /* asks answered by a fault; nonsense dropped */
} store_transfer_counts;

/* kv is borrowed; destroy this before it is closed. */
store_transfer *store_transfer_new(const store_transfer_conf *conf, store_kv *kv);
void store_transfer_destroy(store_transfer **transfer_p);

/* Is it for store_transfer_message? (StateAsk, StateDone.) */
bool store_transfer_takes(const Mesh__Msg *msg);
/* One such message from peer. Faults go to out at once, chunks with a turn. msg is borrowed for the call. */
void store_transfer_message(store_transfer *transfer, mesh_peer from, const Mesh__Msg *msg, mesh_time now,
                            mesh_out *out);
/* Give one chunk at most, if one is due; end idle sessions. Returns the next deadline, MESH_NEVER if there is none;
 * now, if another chunk is due already. */
mesh_ms store_transfer_turn(store_transfer *transfer, mesh_time now, mesh_out *out);

/* The lowest index that the rows of a replica's open session, or of one that was given whole in the last
 * STORE_TRANSFER_GRACE_MS, stand for: the log above it is still needed, by whoever gets them. An operator needs none.
 * STORE_TRANSFER_NONE: there is none. Moves with messages and turns. */
uint64_t store_transfer_oldest(const store_transfer *transfer);
store_transfer_counts store_transfer_counted(const store_transfer *transfer);

/* ---- what both sides agree on ---- */

/* The checksum of a chunk: of everything in it but sum and digest. */
void store_transfer_sum(const Mesh__StateChunk *chunk, uint8_t sum[STORE_TRANSFER_SUM]);
/* Take one more chunk's checksum into the digest, which is all 0 at first. */
void store_transfer_chain(uint8_t digest[STORE_TRANSFER_SUM], const uint8_t sum[STORE_TRANSFER_SUM]);
/* May this row be copied? The applied row and all tables; nothing else that begins with 0x00. */
bool store_transfer_copies(mesh_slice key);
/* The index in a value of the applied row. Errors: MESH_MALFORMED. */
MESH_MUST mesh_err store_transfer_applied(mesh_slice value, uint64_t *index_p);
/* Is peer another store of self's shard? */
bool store_transfer_is_replica(const mesh_conf *conf, mesh_peer self, mesh_peer peer);

#endif
