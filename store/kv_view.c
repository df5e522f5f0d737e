/* store/kv_view.c: a LevelDB snapshot and an iterator on it. The overlay is not looked at: what is not written yet is
 * not in the view. */
#include <stdlib.h>

#include "mesh/alloc.h"
#include "store/kv_leveldb.h"
#include "store/kv_rows.h"

struct store_kv_view {
    store_kv *kv;
    const leveldb_snapshot_t *snapshot;
    leveldb_readoptions_t *read;
    leveldb_iterator_t *it;
};

store_kv_view *store_kv_view_new(store_kv *kv)
{
    store_kv_view *view = mesh_alloc(sizeof *view);
    view->kv = kv;
    view->snapshot = leveldb_create_snapshot(kv->base.db);
    view->read = leveldb_readoptions_create();
    leveldb_readoptions_set_snapshot(view->read, view->snapshot);
    leveldb_readoptions_set_verify_checksums(view->read, 1);
    leveldb_readoptions_set_fill_cache(view->read, 0);
    view->it = leveldb_create_iterator(kv->base.db, view->read);
    kv->views++;
    return view;
}

void store_kv_view_destroy(store_kv_view **view_p)
{
    store_kv_view *view = *view_p;
    if (view == NULL) {
        return;
    }
    leveldb_iter_destroy(view->it);
    leveldb_readoptions_destroy(view->read);
    leveldb_release_snapshot(view->kv->base.db, view->snapshot);
    view->kv->views--;
    free(view);
    *view_p = NULL;
}

mesh_err store_kv_view_get(store_kv_view *view, mesh_slice key, mesh_buf *out)
{
    mesh_buf_clear(out);
    char *message = NULL;
    size_t size = 0;
    char *value = leveldb_get(view->kv->base.db, view->read, (const char *)key.data, key.size, &size, &message);
    if (message != NULL) {
        return store_kv_leveldb_take(message);
    }
    if (value == NULL) {
        return MESH_NOT_FOUND;
    }
    mesh_buf_put(out, value, size);
    leveldb_free(value);
    return MESH_OK;
}

static mesh_slice it_key(const store_kv_view *view)
{
    size_t size;
    const char *key = leveldb_iter_key(view->it, &size);
    return (mesh_slice){ (const uint8_t *)key, size };
}

/* At the first row behind `after`. */
static void place(store_kv_view *view, mesh_slice after)
{
    if (after.size == 0) {
        leveldb_iter_seek_to_first(view->it);
        return;
    }
    leveldb_iter_seek(view->it, (const char *)after.data, after.size);
    if (leveldb_iter_valid(view->it) && store_omap_compare(it_key(view), after) == 0) {
        leveldb_iter_next(view->it);
    }
}

mesh_err store_kv_view_read(store_kv_view *view, mesh_slice after, size_t max_bytes, mesh_buf *rows, bool *end_p)
{
    size_t before = rows->size;
    place(view, after);
    while (leveldb_iter_valid(view->it)) {
        size_t size;
        mesh_slice key = it_key(view);
        const char *data = leveldb_iter_value(view->it, &size);
        if (rows->size > before && rows->size - before + STORE_KV_ROW_HEAD + key.size + size > max_bytes) {
            break;
        }
        store_kv_rows_put(rows, key, (mesh_slice){ (const uint8_t *)data, size });
        leveldb_iter_next(view->it);
    }
    char *message = NULL;
    leveldb_iter_get_error(view->it, &message);
    if (message != NULL) {
        rows->size = before;
        return store_kv_leveldb_take(message);
    }
    *end_p = leveldb_iter_valid(view->it) == 0;
    return MESH_OK;
}
