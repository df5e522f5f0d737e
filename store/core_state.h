/* store/core_state.h: what the files of the store's core share. Private to store/core*.c, store/reign.c, store/copy.c.
 */
#ifndef STORE_CORE_STATE_H
#define STORE_CORE_STATE_H

#include "mesh/fault.h"
#include "mesh/rand.h"
#include "store/consensus.h"
#include "store/core.h"
#include "store/fetch.h"
#include "store/fsm.h"
#include "store/gather.h"
#include "store/group.h"
#include "store/hold.h"
#include "store/leases.h"
#include "store/mover.h"
#include "store/outbox.h"
#include "store/transfer.h"

typedef struct store_read_waiting { /* a read that waits until this replica is known to lead still */
    struct store_read_waiting *next;
    uint64_t index; /* 0: no entry after it is submitted yet */
    mesh_peer from;
    size_t size;
    uint8_t packed[];
} store_read_waiting;

struct store_core {
    const mesh_conf *conf;
    mesh_peer self;
    const char *name; /* of this node */
    char *path;       /* NULL: no copy of another replica's rows can be put anywhere */
    store_kv_options options;
    store_kv *kv;
    mesh_stats *stats;
    bool own_stats;
    store_fsm *fsm;
    store_consensus *cons; /* NULL: no data, and not decided yet how it begins */
    store_group *group;
    store_transfer *transfer;
    store_fetch *fetch; /* NULL: not needed */
    store_hold *hold;
    bool hold_dropped;           /* somebody needs more of the log than is kept */
    store_transfer_counts given; /* as last counted */
    store_fetch_counts taken;
    store_verdict verdict;
    mesh_rand rand;
    mesh_arena *arena; /* of one message or turn */
    uint64_t *up;      /* boot by peer, 0: down */
    bool enough_space, leaving, said_lost;
    mesh_ms next_handover;
    uint64_t safe_applied, trimmed; /* durable; what the log was last trimmed with */
    uint64_t sample_applied, sample_ticket;
    mesh_err error;
    mesh_buf scratch;
    /* of the present reign, all gone when it ends */
    uint64_t reign;
    bool leads;               /* this reign is ours */
    bool opening_sent, ready; /* its first entry */
    bool ring_pending;        /* a RingSet or Ring is in the log and not applied */
    mesh_ms done_since;       /* MESH_NEVER: no finished outbox row waits */
    store_gather *gather;
    store_outbox *outbox;
    store_mover *mover;
    store_leases *leases; /* NULL: not shard 0 */
    store_read_waiting *reads, **reads_end;
    size_t reads_bytes;
    uint64_t ring_heard; /* not shard 0: epoch of the newest ring on its way into the log */
    /* while store_core_message or store_core_turn runs */
    mesh_time now;
    mesh_out *out;
    store_gathered *applying;
};

/* ---- core_answer.c ---- */
void store_core_answer(store_core *core, mesh_peer to, const Mesh__Msg *msg, uint64_t corr, Mesh__Msg *answer);
void store_core_refuse(store_core *core, mesh_peer to, const Mesh__Msg *msg, mesh_fault code);
void store_core_answer_ring(store_core *core, mesh_peer to, uint64_t corr);
/* To every router that is up: the ring (shard 0), and that this replica leads. */
void store_core_tell_routers(store_core *core);
void store_core_tell_router(store_core *core, mesh_peer router);
/* Reads the leader answers: at once when nobody else could lead, else after an entry of its own (store/reign.c). */
void store_core_read(store_core *core, mesh_peer from, const Mesh__Msg *msg);

/* ---- operate.c: what an operator wants of the leader ---- */
void store_core_operate(store_core *core, mesh_peer from, const Mesh__Msg *msg);

/* ---- reign.c ---- */
/* Leadership came or went: begin or end a reign. Call it after whatever may have stepped consensus. */
void store_reign_check(store_core *core);
void store_reign_refuse(store_core *core); /* everybody who waits */
void store_reign_committed(void *arg, uint64_t index, uint64_t term, mesh_slice payload, bool own);
/* What this store itself wants in the log, and everything that gathered, goes in. Returns the next deadline. */
mesh_ms store_reign_turn(store_core *core);
void store_reign_ring(store_core *core, const Mesh__Ring *ring); /* not shard 0: a router's word */
/* Errors: MESH_FULL too much waits. */
MESH_MUST mesh_err store_reign_wait(store_core *core, mesh_peer from, mesh_slice packed);
void store_reign_forget(store_core *core, mesh_peer peer);

/* ---- copy.c: a copy of another replica's rows instead of the log ---- */
mesh_ms store_copy_turn(store_core *core);
/* Errors: MESH_MALFORMED it is for neither side of a copy, or nonsense. */
MESH_MUST mesh_err store_copy_message(store_core *core, mesh_peer from, const Mesh__Msg *msg);
/* The index above which the log is kept for replicas that are behind; STORE_HOLD_NONE. cons is open. */
uint64_t store_copy_keeps(store_core *core);
void store_copy_count(store_core *core); /* into the stats, before they are shown, and before fetch is destroyed */

#endif
