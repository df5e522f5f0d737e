/* store/kv_batch.h: the rows of one store_kv_batch in one buffer. Internal to the two implementations of store/kv.h. */
#ifndef STORE_KV_BATCH_H
#define STORE_KV_BATCH_H

#include "store/kv.h"

struct store_kv_batch {
    mesh_buf rows; /* per row: key size, value size or KV_DELETED (both u32, native order), key, value */
    size_t count;
};

typedef struct store_kv_row {
    mesh_slice key, value; /* borrowed from the buffer */
    bool deleted;
} store_kv_row;

/* Row at *at; moves *at behind it. False at the end. */
bool store_kv_batch_next(const mesh_buf *rows, size_t *at, store_kv_row *row);

#endif
