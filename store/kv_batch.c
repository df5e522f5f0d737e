#include "store/kv_batch.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "mesh/alloc.h"

#define KV_DELETED UINT32_MAX

store_kv_batch *store_kv_batch_new(void)
{
    return mesh_alloc(sizeof(store_kv_batch));
}

void store_kv_batch_destroy(store_kv_batch **batch_p)
{
    if (*batch_p != NULL) {
        mesh_buf_fini(&(*batch_p)->rows);
        free(*batch_p);
        *batch_p = NULL;
    }
}

static void add(store_kv_batch *batch, mesh_slice key, mesh_slice value, uint32_t value_size)
{
    assert(key.size < KV_DELETED && value.size < KV_DELETED);
    uint32_t head[2] = { (uint32_t)key.size, value_size };
    uint8_t *p = mesh_buf_grow(&batch->rows, sizeof head + key.size + value.size);
    memcpy(p, head, sizeof head);
    memcpy(p + sizeof head, key.data, key.size);
    if (value.size > 0) {
        memcpy(p + sizeof head + key.size, value.data, value.size);
    }
    batch->count++;
}

void store_kv_batch_put(store_kv_batch *batch, mesh_slice key, mesh_slice value)
{
    add(batch, key, value, (uint32_t)value.size);
}

void store_kv_batch_delete(store_kv_batch *batch, mesh_slice key)
{
    add(batch, key, (mesh_slice){ NULL, 0 }, KV_DELETED);
}

size_t store_kv_batch_rows(const store_kv_batch *batch)
{
    return batch->count;
}

bool store_kv_batch_next(const mesh_buf *rows, size_t *at, store_kv_row *row)
{
    if (*at == rows->size) {
        return false;
    }
    uint32_t head[2];
    memcpy(head, rows->data + *at, sizeof head);
    const uint8_t *p = rows->data + *at + sizeof head;
    row->deleted = head[1] == KV_DELETED;
    row->key = (mesh_slice){ p, head[0] };
    row->value = (mesh_slice){ p + head[0], row->deleted ? 0 : head[1] };
    *at += sizeof head + row->key.size + row->value.size;
    return true;
}
