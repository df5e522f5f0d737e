#include "store/kv_rows.h"

#include <assert.h>
#include <string.h>

#include "store/omap.h"

void store_kv_rows_put(mesh_buf *rows, mesh_slice key, mesh_slice value)
{
    assert(key.size > 0 && key.size <= UINT32_MAX && value.size <= UINT32_MAX);
    uint8_t *p = mesh_buf_grow(rows, STORE_KV_ROW_HEAD + key.size + value.size);
    mesh_put_u32le(p, (uint32_t)key.size);
    mesh_put_u32le(p + 4, (uint32_t)value.size);
    memcpy(p + STORE_KV_ROW_HEAD, key.data, key.size);
    if (value.size > 0) {
        memcpy(p + STORE_KV_ROW_HEAD + key.size, value.data, value.size);
    }
}

mesh_err store_kv_rows_next(mesh_slice *rest, mesh_slice *key, mesh_slice *value)
{
    if (rest->size == 0) {
        return MESH_AGAIN;
    }
    if (rest->size < STORE_KV_ROW_HEAD) {
        return MESH_MALFORMED;
    }
    size_t key_size = mesh_get_u32le(rest->data), value_size = mesh_get_u32le(rest->data + 4);
    size_t left = rest->size - STORE_KV_ROW_HEAD;
    if (key_size == 0 || key_size > left || value_size > left - key_size) {
        return MESH_MALFORMED;
    }
    *key = (mesh_slice){ rest->data + STORE_KV_ROW_HEAD, key_size };
    *value = (mesh_slice){ key->data + key_size, value_size };
    rest->data = value->data + value_size;
    rest->size = left - key_size - value_size;
    return MESH_OK;
}

mesh_err store_kv_rows_check(mesh_slice rows, mesh_slice after, mesh_slice *last_p)
{
    mesh_slice key, value, last = after;
    mesh_err err;
    while ((err = store_kv_rows_next(&rows, &key, &value)) == MESH_OK) {
        if (last.size > 0 && store_omap_compare(key, last) <= 0) {
            return MESH_MALFORMED;
        }
        last = key;
    }
    if (err == MESH_AGAIN && last_p != NULL) {
        *last_p = last;
    }
    return err == MESH_AGAIN ? MESH_OK : err;
}
