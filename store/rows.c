#include "store/rows.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "mesh/alloc.h"
#include "mesh/table.h"
#include "mesh/wire.h"

typedef struct row {
    bool hot;
    bool dirty; /* in the list of this entry's rows */
    mesh_buf value;
    size_t key_size;
    uint8_t key[];
} row;

struct store_rows {
    store_kv *kv;
    store_kv_batch *batch;
    mesh_table *table; /* the longest unused first */
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
    rows->table = mesh_table_new(hash_key);
    rows->hot_max = hot_max;
    return rows;
}

static void row_free(row *r)
{
    mesh_buf_fini(&r->value);
    free(r);
}

void store_rows_destroy(store_rows **rows_p)
{
    store_rows *rows = *rows_p;
    if (rows == NULL) {
        return;
    }
    for (row *r; (r = mesh_table_take(rows->table)) != NULL;) {
        row_free(r);
    }
    mesh_table_destroy(&rows->table);
    store_kv_batch_destroy(&rows->batch);
    mesh_buf_fini(&rows->scratch);
    mesh_buf_fini(&rows->packed);
    free(rows->dirty);
    free(rows);
    *rows_p = NULL;
}

static mesh_slice row_key(const row *r)
{
    return (mesh_slice){ r->key, r->key_size };
}

static row *row_find(store_rows *rows, const store_key *key)
{
    return mesh_table_touch(rows->table, store_key_slice(key));
}

static row *row_add(store_rows *rows, const store_key *key)
{
    row *r = mesh_alloc(sizeof *r + key->size);
    r->key_size = key->size;
    memcpy(r->key, key->data, key->size);
    mesh_table_put(rows->table, row_key(r), r);
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
            row_free(mesh_table_remove(rows->table, row_key(r)));
        }
    }
    rows->n_dirty = 0;
    while (mesh_table_size(rows->table) > rows->hot_max) {
        row_free(mesh_table_take(rows->table));
    }
    if (store_kv_batch_rows(rows->batch) == 0) {
        return 0;
    }
    return store_kv_write(rows->kv, rows->batch, false);
}

void store_rows_forget(store_rows *rows, mesh_slot slot)
{
    for (row *r = mesh_table_first(rows->table); r != NULL; r = mesh_table_next(rows->table)) {
        if (r->key_size > STORE_KEY_SLOT && r->key[1] == slot >> 8 && r->key[2] == (slot & 0xff)) {
            row_free(mesh_table_remove(rows->table, row_key(r)));
        }
    }
}
