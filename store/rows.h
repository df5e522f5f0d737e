/* store/rows.h: the rows that applying one log entry writes, before they are queued, and the hot ones after that.
 *
 * A log entry's writes are one batch, and a later message of the entry must see what an earlier one wrote: get looks at
 * the rows of the entry being applied, then at the hot rows, then at the kv. commit queues the batch. Nothing is
 * evicted within an entry, so the answer never depends on the cache's size. */
#ifndef STORE_ROWS_H
#define STORE_ROWS_H

#include "mesh/id.h"
#include "store/key.h"
#include "store/kv.h"

typedef struct store_rows store_rows;

/* kv and hash_key are borrowed. hot_max: rows kept after their entry. */
store_rows *store_rows_new(store_kv *kv, const mesh_hash_key *hash_key, size_t hot_max);
void store_rows_destroy(store_rows **rows_p);

/* value is borrowed until the next call. hot: keep it after this entry.
 * Errors: MESH_NOT_FOUND, MESH_CORRUPT. */
MESH_MUST mesh_err store_rows_get(store_rows *rows, const store_key *key, bool hot, mesh_slice *value);
typedef enum store_row_use {
    STORE_ROW_ONLY,  /* nobody reads it through store_rows_get */
    STORE_ROW_ENTRY, /* a later message of this entry may read it */
    STORE_ROW_HOT    /* and later entries will */
} store_row_use;

void store_rows_put(store_rows *rows, const store_key *key, mesh_slice value, store_row_use use);
void store_rows_pack(store_rows *rows, const store_key *key, const void *message, store_row_use use);
void store_rows_delete(store_rows *rows, const store_key *key); /* a row of STORE_ROW_ONLY */
/* Queue what was written as one batch (not synced). Returns its ticket, 0 when nothing was written. */
uint64_t store_rows_commit(store_rows *rows);
/* Hot rows of a slot are kept no more; between entries only. */
void store_rows_forget(store_rows *rows, mesh_slot slot);

#endif
