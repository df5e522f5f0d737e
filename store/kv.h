/* store/kv.h: one ordered key-value store with one writer, group commit and read-your-writes.
 *
 * kv.c is the real one (LevelDB; its only user). tests/sim/kv_mem.c implements the same header on a fake disk, chosen
 * by linking. Writes are queued and return at once; a writer thread joins what waits into one batch and one fdatasync
 * (group commit without a timer). Reads see everything queued (an ordered overlay over the database). A ticket is
 * durable when store_kv_durable has reached it; batches become durable in order, all of a batch or nothing.
 *
 * What goes wrong: any write or sync error is final for the handle (LevelDB 1.23 acks writes it will lose after a
 * failed one): store_kv_error tells, nothing becomes durable any more, the owner closes and opens again or exits.
 * Corrupt data: open refuses and names file and offset; it repairs nothing.
 *
 * A whole database can be replaced by a copy of another replica's: a view reads it out there, an incoming database is
 * filled beside the live one here, and a switch puts it in its place (below). */
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

/* Open or create the database in directory path (its parent must exist). A switch that was cut off is settled first:
 * see store_kv_switch. why says file and offset when data is refused. Errors: MESH_CORRUPT, MESH_IO, MESH_NO_SPACE. */
MESH_MUST mesh_err store_kv_open(const char *path, const store_kv_options *options, store_kv **kv_p, char *why,
                                 size_t why_size);
/* Waits for what is queued, then closes. No iterator and no view may be alive (asserted). */
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

/* ---- the whole database as it is on disk at one moment ---- */

typedef struct store_kv_view store_kv_view;

/* What is durable now, all of a batch or nothing of it; rows that are only queued are not in it. Later writes do not
 * show. Meant for long scans: it fills no cache, checks every checksum and holds up nothing but the deletion of what it
 * still shows. */
store_kv_view *store_kv_view_new(store_kv *kv);
void store_kv_view_destroy(store_kv_view **view_p);
/* As store_kv_get. Errors: MESH_NOT_FOUND, MESH_CORRUPT, MESH_IO; they do not end the handle. */
MESH_MUST mesh_err store_kv_view_get(store_kv_view *view, mesh_slice key, mesh_buf *out);
/* Append rows with keys > after (empty: from the first), ascending, in the form of store/kv_rows.h, while they fit into
 * max_bytes together; at least one, if there is one, however large. *end_p: no row is behind them. Reads the disk.
 * Errors: MESH_CORRUPT, MESH_IO: rows are as before the call; the handle is not ended. */
MESH_MUST mesh_err store_kv_view_read(store_kv_view *view, mesh_slice after, size_t max_bytes, mesh_buf *rows,
                                      bool *end_p);

/* ---- a database that is filled beside the live one, in <path>.incoming ---- */

typedef struct store_kv_incoming store_kv_incoming;

/* Open it, with what an earlier process has put, or make it. path is the live database's. A finished one is refused.
 * Errors: MESH_CORRUPT, MESH_IO, MESH_NO_SPACE, MESH_CONFLICT it is finished. */
MESH_MUST mesh_err store_kv_incoming_open(const char *path, const store_kv_options *options, store_kv_incoming **in_p,
                                          char *why, size_t why_size);
void store_kv_incoming_close(store_kv_incoming **in_p); /* what was put stays */
/* Add rows (store/kv_rows.h), their keys ascending and above all that are there, and replace the note, which says where
 * the copying stands. Rows and note go together or not at all; they are on disk when this returns.
 * Errors: MESH_MALFORMED rows are not of that form: nothing changed; MESH_IO, MESH_NO_SPACE, MESH_CORRUPT: finished,
 * close and discard. */
MESH_MUST mesh_err store_kv_incoming_put(store_kv_incoming *in, mesh_slice rows, mesh_slice note);
mesh_slice store_kv_incoming_note(const store_kv_incoming *in);     /* empty: none; borrowed until the next put */
mesh_slice store_kv_incoming_last_key(const store_kv_incoming *in); /* the same; of the rows that were put */
/* Everything is there: the note goes, the rows of extra are added (any keys; cleared for reuse), all is synced and
 * marked as finished, and the handle is closed, whatever comes out. Errors: MESH_IO, MESH_NO_SPACE, MESH_CORRUPT. */
MESH_MUST mesh_err store_kv_incoming_finish(store_kv_incoming **in_p, store_kv_batch *extra);
/* Delete it, whatever it holds; no handle to it may be open. Errors: MESH_IO. */
MESH_MUST mesh_err store_kv_incoming_discard(const char *path);

/* Put the finished <path>.incoming in the place of the database in path. No handle to either may be open.
 *   1. the incoming log files are checked as open does; a left-over <path>.old is deleted
 *   2. path -> <path>.old
 *   3. <path>.incoming -> path
 *   4. <path>.old is deleted
 * The directory is synced after 1, 2 and 3. Killed before 2 is done, the next store_kv_open finds path and a finished
 * incoming one and deletes the latter: path may have moved on since. Killed before 3 is done, it finds no path and goes
 * on with 3; without a finished incoming one it puts <path>.old back. Killed later, it deletes what is left of
 * <path>.old. An unfinished incoming one is left alone, for store_kv_incoming_open to go on with.
 * Errors: MESH_NOT_FOUND there is no finished one; MESH_CORRUPT; MESH_IO. Only an error of step 2 or later, which
 * MESH_IO may be, leaves something for the next open to settle. */
MESH_MUST mesh_err store_kv_switch(const char *path, char *why, size_t why_size);

/* ---- a database that is not to be trusted any more ---- */

#define STORE_QUARANTINES_MAX 3 /* kept beside path; nothing deletes them but a person */

/* Put the database in path aside, unread and unchanged, as <path>.quarantine-<stamp>, which kept names; what a cut-off
 * switch left in <path>.old goes with it, an incoming one is deleted. From before that until store_kv_regained,
 * store_kv_is_lost says so: what opens empty then is no first start. No handle may be open. Killed in between, the next
 * open finds path as it was. Errors: MESH_FULL STORE_QUARANTINES_MAX are there: nothing changed; MESH_IO,
 * MESH_NO_SPACE: path is as it was. */
MESH_MUST mesh_err store_kv_quarantine(const char *path, const char *stamp, char *kept, size_t kept_size);
bool store_kv_is_lost(const char *path);                /* the mark is the file <path>.lost */
MESH_MUST mesh_err store_kv_regained(const char *path); /* Errors: MESH_IO */

#endif
