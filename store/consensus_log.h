/* store/consensus_log.h: the rows of consensus in the kv, and what is kept of the log in memory.
 *
 *   \0H            Store__HardRow   term, vote, raft id, cluster, format
 *   \0L be64 index u64be term, u8 type, payload: no second encoding around payloads of 256 KiB
 *   \0S            Store__SnapRow   index and term the state machine's rows stand for at least, committed configuration
 *   \0I            empty            there when the state machine's rows may stand for more than the log: they were
 * copied
 *   \0C            Store__ConfirmedRow   store/consensus_confirmed.c
 *
 * In memory: where terms begin, which entries are configurations (with their bytes), and marks of the log's size, to
 * cut it by bytes. Internal to consensus; no libraft here. */
#ifndef STORE_CONSENSUS_LOG_H
#define STORE_CONSENSUS_LOG_H

#include "store/kv.h"

#define STORE_LOG_TRAIL (64u * 1024 * 1024) /* bytes of log kept for laggards */
#define STORE_LOG_MARKS 64                  /* to a trail: how finely the log can be cut */
#define STORE_FORMAT 2                      /* of the rows; 1 had no slot in its keys and cannot be read */

typedef struct consensus_hard {
    uint64_t term, voted_for, raft_id;
} consensus_hard;

typedef struct consensus_snapshot {
    uint64_t index, term, conf_index; /* index 0 = none */
    mesh_buf conf;
} consensus_snapshot;

typedef struct consensus_entry {
    uint64_t term;
    uint8_t type;
    mesh_slice payload;
} consensus_entry;

typedef struct consensus_note { /* a term's first index, a configuration, or a mark */
    uint64_t index, value;      /* value: term, or bytes before index since the start */
    mesh_buf bytes;
} consensus_note;

typedef struct consensus_notes {
    consensus_note *items;
    size_t n, cap;
} consensus_notes;

typedef struct consensus_log {
    uint64_t first, last; /* empty: last = first - 1 */
    uint64_t bytes;       /* ever appended, as the marks count */
    uint64_t trail;       /* bytes to keep */
    consensus_notes terms, changes, marks;
} consensus_log;

typedef struct consensus_cut {
    uint64_t first; /* the log's first entry afterwards */
    uint64_t entries, bytes;
} consensus_cut;

void consensus_log_init(consensus_log *log, uint64_t trail);
void consensus_log_fini(consensus_log *log); /* and empty again */

/* Errors: MESH_NOT_FOUND; MESH_CORRUPT; MESH_UNSUPPORTED a later format. *cluster_p is the caller's. */
MESH_MUST mesh_err consensus_hard_get(store_kv *kv, consensus_hard *hard, char **cluster_p, char *why, size_t why_size);
void consensus_hard_put(store_kv_batch *batch, const consensus_hard *hard, const char *cluster);
void consensus_snapshot_put(store_kv_batch *batch, const consensus_snapshot *snapshot);

/* The rows may be ahead of the log, until the log has come to where they are. */
void consensus_ahead_put(store_kv_batch *batch, bool ahead);
MESH_MUST mesh_err consensus_ahead_get(store_kv *kv, bool *ahead_p); /* Errors: as store_kv_get */

bool consensus_log_is_empty(store_kv *kv);                     /* neither log rows nor a snapshot */
void consensus_log_clear(store_kv *kv, store_kv_batch *batch); /* all its rows go */
/* Read all rows. Errors: MESH_CORRUPT a hole, terms that go back, or rows that cannot be read; MESH_IO. */
MESH_MUST mesh_err consensus_log_load(store_kv *kv, consensus_log *log, consensus_snapshot *snapshot, char *why,
                                      size_t why_size);
/* entry borrows from row. Errors: MESH_NOT_FOUND, MESH_CORRUPT. */
MESH_MUST mesh_err consensus_log_read(store_kv *kv, uint64_t index, mesh_buf *row, consensus_entry *entry);

void consensus_log_append(consensus_log *log, store_kv_batch *batch, uint64_t term, uint8_t type, mesh_slice payload);
void consensus_log_cut_tail(consensus_log *log, uint64_t from, store_kv_batch *batch); /* [from..last], if any */
/* Of the entries after index, as finely as the marks are set. */
uint64_t consensus_log_bytes_after(const consensus_log *log, uint64_t index);
/* What can go so that the trail or more is kept, and nothing above applied goes. */
consensus_cut consensus_log_plan_cut(const consensus_log *log, uint64_t applied);
void consensus_log_cut_head(consensus_log *log, consensus_cut cut, store_kv_batch *batch);

uint64_t consensus_log_term(const consensus_log *log, uint64_t index); /* of an entry that is in the log */
uint64_t consensus_log_last_term(const consensus_log *log, const consensus_snapshot *snapshot);
bool consensus_log_is_change(const consensus_log *log, uint64_t index);
mesh_slice consensus_log_change(const consensus_log *log, uint64_t index); /* its payload */

#endif
