/* store/consensus_priv.h: what the files of consensus share. With store/consensus*.c the only place that knows libraft.
 *
 *   consensus.c          open, close, submit, step, trim
 *   consensus_step.c     one event through raft_step, and what it asks for
 *   consensus_send.c     messages out
 *   consensus_receive.c  messages in: what may reach the core, and in which pieces
 *   consensus_members.c  configurations, members, transfer of leadership, the wish for a copy of the state
 *   consensus_confirmed.c  what every replica has confirmed
 *   consensus_log.c      rows; consensus_cache.c: the last entries in memory */
#ifndef STORE_CONSENSUS_PRIV_H
#define STORE_CONSENSUS_PRIV_H

#include <raft.h>

#include "mesh/wire.h"
#include "store/consensus.h"
#include "store/consensus_cache.h"
#include "store/consensus_log.h"

#if !defined(RAFT_VERSION_NUMBER) || RAFT_VERSION_NUMBER != 2201
#error "store/consensus*.c are written for libraft 0.22.1: memory ownership differs in others"
#endif

typedef struct consensus_flight { /* a queued log write */
    struct consensus_flight *next;
    uint64_t ticket, last;
} consensus_flight;

typedef struct consensus_own { /* submitted here, not yet handed over */
    struct consensus_own *next;
    uint64_t index, term;
    size_t size;
    uint8_t *payload; /* from raft_malloc: the core wants a batch it could own */
} consensus_own;

struct store_consensus {
    struct raft raft;
    struct raft_update update; /* outlives the call: closing writes to it once more */
    store_kv *kv;
    store_kv_batch *batch;
    char *cluster;
    uint32_t shard;
    store_committed *committed;
    store_send *send;
    void *arg;
    consensus_flight *flights, *flights_last;
    consensus_own *own, *own_last;
    consensus_log log;
    consensus_cache cache;
    mesh_arena *arena; /* of one message that is sent */
    uint64_t passed, applied;
    uint64_t snapshot_ticket; /* a trim being written, 0 = none */
    consensus_snapshot snapshot;
    bool follows; /* once since the open: all that the leader called committed was here */
    bool ahead;   /* the rows stand for more than the log: STORE_AHEAD's row is there */
    bool delivering;
    mesh_ms now, last_timeout, heartbeat_ms;
    mesh_ms heard_at;         /* from a leader of the term in force */
    uint64_t reign, ready_at; /* leader: once `passed` is here, nothing of earlier leaders is left */
    bool led;
    uint64_t caught_up; /* a member that had all when it was asked for, 0 = none */
    bool wants_state;
    consensus_snapshot wanted;
    char *wanted_from;
    store_confirmed confirmed[STORE_MEMBERS_MAX];
    size_t n_confirmed;
    uint64_t learnt, learnt_saved; /* how often something was learnt, and when last written */
    mesh_ms save_at;               /* not before */
};

static inline bool consensus_failed(const store_consensus *cons)
{
    return store_kv_error(cons->kv) != MESH_OK;
}

static inline struct raft *consensus_core(const store_consensus *cons)
{
    return (struct raft *)(uintptr_t)&cons->raft; /* the core's getters are not const; they change nothing */
}

/* ---- consensus_step.c ---- */

/* One event through the core. On MESH_OK whatever it asked for is done or under way. Errors: MESH_STALE the core
 * refuses (not the leader); else what ended the kv. */
MESH_MUST mesh_err consensus_step(store_consensus *cons, struct raft_event *event, mesh_time now);
void consensus_deliver(store_consensus *cons); /* hand over what is committed */
void consensus_own_add(store_consensus *cons, consensus_own *own);
void consensus_own_drop_all(store_consensus *cons);
/* The term of an entry; 0 = not in the log, nor the snapshot's. */
uint64_t consensus_term_of(const store_consensus *cons, uint64_t index);
/* An entry of the log, from memory or through row. Errors: MESH_NOT_FOUND, MESH_CORRUPT. */
MESH_MUST mesh_err consensus_entry_get(store_consensus *cons, uint64_t index, mesh_buf *row, consensus_entry *entry);

/* ---- consensus_send.c ---- */

void consensus_send_messages(store_consensus *cons); /* those of the last update */

/* ---- consensus_confirmed.c ---- */

void consensus_confirmed_put(const store_consensus *cons, store_kv_batch *batch);
MESH_MUST mesh_err consensus_confirmed_load(store_consensus *cons);  /* Errors: MESH_CORRUPT, MESH_IO */
mesh_ms consensus_confirmed_due(const store_consensus *cons);        /* when the row is to be written */
void consensus_confirmed_save(store_consensus *cons, mesh_time now); /* if it is due */

/* ---- consensus_members.c ---- */

/* Are these bytes a configuration the core can take? It checks no bounds itself. */
bool consensus_conf_check(mesh_slice bytes);
/* The same, and decode it. The caller closes it, or gives it to the core. */
bool consensus_conf_decode(mesh_slice bytes, struct raft_configuration *out);
const struct raft_server *consensus_member(const store_consensus *cons, uint64_t raft_id);
/* The bytes of the group's first configuration, to be freed by raft_free. */
struct raft_buffer consensus_conf_first(const store_consensus_conf *conf);
void consensus_want_state(store_consensus *cons, struct raft_snapshot_metadata *metadata);

#endif
