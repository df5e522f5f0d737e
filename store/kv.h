/* store/kv.h: one ordered key-value store with one writer, group commit and read-your-writes.
 *
 * kv.c is the real one (LevelDB; its only user). tests/sim/kv_mem.c implements the same header on a fake disk, chosen
 * by linking. Writes are queued and return at once; a writer thread joins what waits into one batch and one fdatasync
 * (group commit without a timer). Reads see everything queued (an ordered overlay over the database). A ticket is
 * durable when store_kv_durable has reached it; batches become durable in order, all of a batch or nothing.
 *
 * What goes wrong: any write or sync error is final for the handle (LevelDB 1.23 acks writes it will lose after a
 * failed one): store_kv_error tells, nothing becomes durable any more, the owner closes and opens again or exits.
 * Corrupt data: open refuses and names file and offset; it repairs nothing. */
#ifndef STORE_KV_H
#define STORE_KV_H

#include <stdbool.h>

#include "mesh/buf.h"
#include "mesh/err.h"

#define STORE_KV_QUEUE_MAX                                                                                             \
    (64u * 1024 * 1024) /* queued bytes; beyond: store_kv_full is true and the core gathers no more */

typedef struct store_kv store_kv;
typedef struct store_kv_iter store_kv_iter;
typedef struct store_kv_batch store_kv_batch;

typedef struct store_kv_options {
    uint64_t write_buffer; /* bytes; 64 MiB */
    uint64_t block_cache;  /* bytes */
    int max_open_files;
} store_kv_options;

/* Open or create the database in directory path (its parent must exist). why says file and offset when data is refused.
 * Errors: MESH_CORRUPT, MESH_IO, MESH_NO_SPACE. */
MESH_MUST mesh_err store_kv_open(const char *path, const store_kv_options *options, store_kv **kv_p, char *why,
                                 size_t why_size);
/* Waits for what is queued, then closes. No iterator may be alive. */
void store_kv_close(store_kv **kv_p);

/* Value of key into out (cleared first). Errors: MESH_NOT_FOUND, MESH_CORRUPT. */
MESH_MUST mesh_err store_kv_get(store_kv *kv, mesh_slice key, mesh_buf *out);

/* All keys that begin with prefix, ascending; created before the first valid entry: call a seek or first/last. Sees
 * what was queued when it was made, and perhaps what is queued later; short-lived: destroy it within the same step. */
store_kv_iter *store_kv_iter_new(store_kv *kv, mesh_slice prefix);
void store_kv_iter_destroy(store_kv_iter **it_p);
void store_kv_iter_first(store_kv_iter *it);
void store_kv_iter_last(store_kv_iter *it);
void store_kv_iter_seek(store_kv_iter *it, mesh_slice key);      /* first key >= key */
void store_kv_iter_seek_back(store_kv_iter *it, mesh_slice key); /* last key <= key */
void store_kv_iter_next(store_kv_iter *it);
void store_kv_iter_prev(store_kv_iter *it);
bool store_kv_iter_valid(const store_kv_iter *it);
mesh_slice store_kv_iter_key(const store_kv_iter *it); /* borrowed until the iterator moves */
mesh_slice store_kv_iter_value(const store_kv_iter *it);
/* After every scan: a short scan is not the end. Errors: MESH_CORRUPT, MESH_IO. */
MESH_MUST mesh_err store_kv_iter_status(const store_kv_iter *it);

store_kv_batch *store_kv_batch_new(void);
void store_kv_batch_destroy(store_kv_batch **batch_p);
void store_kv_batch_put(store_kv_batch *batch, mesh_slice key, mesh_slice value);
void store_kv_batch_delete(store_kv_batch *batch, mesh_slice key);
size_t store_kv_batch_rows(const store_kv_batch *batch);

/* Queue a batch (its rows move into the queue; batch is cleared for reuse). sync: the caller will wait for it to be
 * durable; an unsynced batch becomes durable with the next synced one, or a little later by itself. Returns its ticket:
 * 1, 2, 3 ... */
uint64_t store_kv_write(store_kv *kv, store_kv_batch *batch, bool sync);
uint64_t store_kv_durable(store_kv *kv); /* highest ticket known to be on disk through a sync */
/* Block until ticket is durable. Only for Raft's term and vote, which must be on disk before anything is sent.
 * Errors: as store_kv_error. */
MESH_MUST mesh_err store_kv_wait(store_kv *kv, uint64_t ticket);
bool store_kv_full(const store_kv *kv);
/* MESH_OK, or why this handle is finished: MESH_IO (exit), MESH_NO_SPACE (close, wait, open again), MESH_CORRUPT. */
mesh_err store_kv_error(const store_kv *kv);
int store_kv_fd(store_kv *kv); /* readable when durable or error may have moved; -1 in memory */
void store_kv_fd_clear(store_kv *kv);
/* Free bytes where the database lives. */
uint64_t store_kv_free_bytes(store_kv *kv);

typedef struct store_kv_counts {
    uint64_t rows, row_bytes, syncs, batches, queued_bytes;
} store_kv_counts;
store_kv_counts store_kv_counted(const store_kv *kv);

#endif
