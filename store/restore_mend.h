/* store/restore_mend.h: shards that were copied at different times, made to fit. See store/restore.h. Internal. */
#ifndef STORE_RESTORE_MEND_H
#define STORE_RESTORE_MEND_H

#include "mesh/ring.h"
#include "store/restore.h"

typedef struct restore_shard {
    store_kv *kv;          /* the backup's, only read */
    store_kv_batch *extra; /* rows that are put over those of kv */
    uint32_t level;
    uint64_t index, term, last_id; /* of the applied row; each outbox row that is added counts as one more entry */
} restore_shard;

/* shards[0..n): by number. ring: who stores what, the same for all. Errors: MESH_CORRUPT, MESH_IO. */
MESH_MUST mesh_err restore_mend(const mesh_ring *ring, restore_shard *shards, size_t n, store_restore_counts *counts);

#endif
