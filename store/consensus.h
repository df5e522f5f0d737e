/* store/consensus.h: this replica's part in its shard's Raft group. The only file that calls libraft (exactly 0.22.1),
 * through its pure core raft_step. Hard state, log and snapshot metadata are rows of the same store_kv as the data.
 *
 *   submit(payload) -> log row queued with sync -> durable -> raft commits -> committed(index, payload) to the owner
 *
 * A group of one voter elects itself at start and commits on its own fsync: the same code path as three. An entry is
 * handed to the owner exactly once per start, in index order, from the applied index on; the owner writes its own rows
 * and STORE_APPLIED in one unsynced batch: same WAL, same order, so a lost tail is only what the log still has. */
#ifndef STORE_CONSENSUS_H
#define STORE_CONSENSUS_H

#include "mesh/clock.h"
#include "store/kv.h"

typedef struct store_consensus store_consensus;

typedef struct store_consensus_conf {
    uint64_t raft_id;    /* used when the database is new; otherwise the one on disk counts */
    const char *cluster; /* an existing database of another cluster is refused */
    const char *address; /* of this replica, in the configuration */
    uint64_t seed;
    uint64_t trail; /* bytes of log kept for laggards; 0 = 64 MiB */
} store_consensus_conf;

/* payload is borrowed for the call. own: it was submitted here and since this start. */
typedef void store_committed(void *arg, uint64_t index, uint64_t term, mesh_slice payload, bool own);

/* Load from kv, bootstrapping a new group of one when it is empty, and start. applied: the owner's applied index (0 =
 * none). Entries after it that are committed come through committed, some maybe before this returns. Errors:
 * MESH_CORRUPT a hole in the log or rows that do not fit; MESH_CONFLICT another cluster's data; MESH_UNSUPPORTED data
 * of a later format; what ended the kv. */
MESH_MUST mesh_err store_consensus_open(const store_consensus_conf *conf, store_kv *kv, uint64_t applied, mesh_time now,
                                        store_committed *committed, void *arg, store_consensus **cons_p, char *why,
                                        size_t why_size);
void store_consensus_close(store_consensus **cons_p);

bool store_consensus_leader(const store_consensus *cons);
unsigned store_consensus_voters(const store_consensus *cons);
/* Entries submitted and not yet committed. The owner keeps it at STORE_PIPELINE or fewer: the rest gathers. */
unsigned store_consensus_uncommitted(const store_consensus *cons);
#define STORE_PIPELINE 4

/* Append an entry. payload is copied. Errors: MESH_STALE not the leader. */
MESH_MUST mesh_err store_consensus_submit(store_consensus *cons, mesh_slice payload, mesh_time now, uint64_t *index_p);
/* The kv made progress (or time passed): may call committed. */
void store_consensus_step(store_consensus *cons, mesh_time now);
mesh_ms store_consensus_deadline(const store_consensus *cons);
/* Drop log entries up to applied (its batch queued in the kv), keeping trail bytes or more for laggards. Call it often:
 * it acts only when more than 4096 entries or more than the trail can go. */
void store_consensus_trim(store_consensus *cons, uint64_t applied, mesh_time now);
uint64_t store_consensus_term(const store_consensus *cons);
uint64_t store_consensus_last_index(const store_consensus *cons);

#endif
