#include "store/rows.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "mesh/alloc.h"
#include "mesh/wire.h"
#include "store/lru.h"

typedef struct row {
    store_lru_node node; /* first: a node is its row */
    bool hot;
    bool dirty; /* in the list of this entry's rows */
    mesh_buf value;
    size_t key_size;
    uint8_t key[];
} row;

struct store_rows {
    store_kv *kv;
    store_kv_batch *batch;
    store_lru *table;
    size_t hot_max;
    mesh_buf scratch; /* what get read */
    mesh_buf packed;
    row **dirty; /* of the entry being applied */
    size_t n_dirty, cap_dirty;
};

store_rows *store_rows_new(store_kv *kv, const mesh_hash_key *hash_key, size_t hot_max)
{
    store_rows *rows = mesh_alloc(sizeof *rows);
    rows->kv = kv;
    rows->batch = store_kv_batch_new();
    rows->table = store_lru_new(hash_key);
    rows->hot_max = hot_max;
    return rows;
}

static void row_drop(store_rows *rows, row *r)
{
    store_lru_remove(rows->table, &r->node);
    mesh_buf_fini(&r->value);
    free(r);
}

void store_rows_destroy(store_rows **rows_p)
{
    store_rows *rows = *rows_p;
    if (rows == NULL) {
        return;
    }
    for (store_lru_node *node; (node = store_lru_oldest(rows->table)) != NULL;) {
        row_drop(rows, (row *)node);
    }
    store_lru_destroy(&rows->table);
    store_kv_batch_destroy(&rows->batch);
    mesh_buf_fini(&rows->scratch);
    mesh_buf_fini(&rows->packed);
    free(rows->dirty);
    free(rows);
    *rows_p = NULL;
}

static row *row_find(store_rows *rows, const store_key *key)
{
    return (row *)store_lru_find(rows->table, store_key_slice(key));
}

static row *row_add(store_rows *rows, const store_key *key)
{
    row *r = mesh_alloc(sizeof *r + key->size);
    r->key_size = key->size;
    memcpy(r->key, key->data, key->size);
    store_lru_put(rows->table, &r->node, (mesh_slice){ r->key, r->key_size });
    return r;
}

mesh_err store_rows_get(store_rows *rows, const store_key *key, bool hot, mesh_slice *value)
{
    row *r = row_find(rows, key);
    if (r != NULL) {
        *value = mesh_buf_slice(&r->value);
        return MESH_OK;
    }
    mesh_err err = store_kv_get(rows->kv, store_key_slice(key), &rows->scratch);
    if (err != MESH_OK) {
        return err;
    }
    *value = mesh_buf_slice(&rows->scratch);
    if (hot) {
        r = row_add(rows, key);
        r->hot = true;
        mesh_buf_put(&r->value, value->data, value->size);
    }
    return MESH_OK;
}

static void row_dirty(store_rows *rows, row *r)
{
    if (r->dirty) {
        return;
    }
    r->dirty = true;
    if (rows->n_dirty == rows->cap_dirty) {
        rows->cap_dirty = rows->cap_dirty == 0 ? 256 : 2 * rows->cap_dirty;
        rows->dirty = mesh_realloc(rows->dirty, rows->cap_dirty * sizeof *rows->dirty);
    }
    rows->dirty[rows->n_dirty++] = r;
}

void store_rows_put(store_rows *rows, const store_key *key, mesh_slice value, store_row_use use)
{
    store_kv_batch_put(rows->batch, store_key_slice(key), value);
    if (use == STORE_ROW_ONLY) {
        return;
    }
    row *r = row_find(rows, key);
    if (r == NULL) {
        r = row_add(rows, key);
    }
    r->hot = use == STORE_ROW_HOT;
    mesh_buf_clear(&r->value);
    mesh_buf_put(&r->value, value.data, value.size);
    row_dirty(rows, r);
}

void store_rows_pack(store_rows *rows, const store_key *key, const void *message, store_row_use use)
{
    mesh_buf_clear(&rows->packed);
    mesh_wire_pack(message, &rows->packed);
    store_rows_put(rows, key, mesh_buf_slice(&rows->packed), use);
}

void store_rows_delete(store_rows *rows, const store_key *key)
{
    store_kv_batch_delete(rows->batch, store_key_slice(key));
}

uint64_t store_rows_commit(store_rows *rows)
{
    for (size_t i = 0; i < rows->n_dirty; i++) {
        row *r = rows->dirty[i];
        r->dirty = false;
        if (!r->hot) {
            row_drop(rows, r);
        }
    }
    rows->n_dirty = 0;
    while (store_lru_count(rows->table) > rows->hot_max) {
        row_drop(rows, (row *)store_lru_oldest(rows->table));
    }
    if (store_kv_batch_rows(rows->batch) == 0) {
        return 0;
    }
    return store_kv_write(rows->kv, rows->batch, false);
}
