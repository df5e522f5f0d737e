/* store/kv_iter.c: overlay and LevelDB as one ordered sequence.
 *
 * Two cursors walk in the same direction; the smaller key (walking back: the larger) is the current entry. Where both
 * have the same key the overlay wins, and a tombstone there hides both. Turning round places both anew. While an
 * iterator lives, nothing leaves the overlay, so its cursor stays good; rows written meanwhile may be seen. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "mesh/alloc.h"
#include "store/kv_leveldb.h"

struct store_kv_iter {
    store_kv *kv;
    leveldb_iterator_t *db;
    const store_omap_node *over;
    mesh_buf prefix;
    mesh_buf past;   /* first key behind the prefix's range; empty: there is none */
    mesh_buf turned; /* where we stood when turning round */
    enum { AT_NOTHING, AT_DB, AT_OVERLAY } at;
    bool backward;
};

store_kv_iter *store_kv_iter_new(store_kv *kv, mesh_slice prefix)
{
    store_kv_iter *it = mesh_alloc(sizeof *it);
    it->kv = kv;
    it->db = leveldb_create_iterator(kv->base.db, kv->base.read);
    kv->iterators++;
    mesh_buf_put(&it->prefix, prefix.data, prefix.size);
    size_t n = prefix.size;
    while (n > 0 && prefix.data[n - 1] == 0xff) {
        n--;
    }
    if (n > 0) {
        mesh_buf_put(&it->past, prefix.data, n);
        it->past.data[n - 1]++;
    }
    return it;
}

void store_kv_iter_destroy(store_kv_iter **it_p)
{
    store_kv_iter *it = *it_p;
    if (it == NULL) {
        return;
    }
    (void)!store_kv_iter_status(
        it); /* a block that cannot be read is skipped: whoever has not asked, the handle knows */
    leveldb_iter_destroy(it->db);
    it->kv->iterators--;
    mesh_buf_fini(&it->prefix);
    mesh_buf_fini(&it->past);
    mesh_buf_fini(&it->turned);
    free(it);
    *it_p = NULL;
}

static mesh_slice db_key(const store_kv_iter *it)
{
    size_t size;
    const char *key = leveldb_iter_key(it->db, &size);
    return (mesh_slice){ (const uint8_t *)key, size };
}

static bool in_range(const store_kv_iter *it, mesh_slice key)
{
    return key.size >= it->prefix.size &&
           (it->prefix.size == 0 || memcmp(key.data, it->prefix.data, it->prefix.size) == 0);
}

static void db_step(store_kv_iter *it)
{
    if (it->backward) {
        leveldb_iter_prev(it->db);
    } else {
        leveldb_iter_next(it->db);
    }
}

static const store_omap_node *over_step(const store_kv_iter *it)
{
    return it->backward ? store_omap_prev(it->over) : store_omap_next(it->over);
}

/* Both cursors stand at or beyond the place; find the entry they mean. */
static void settle(store_kv_iter *it)
{
    for (;;) {
        bool db = leveldb_iter_valid(it->db) && in_range(it, db_key(it));
        bool over = it->over != NULL && in_range(it, it->over->key);
        if (!db && !over) {
            it->at = AT_NOTHING;
            return;
        }
        int c = !over ? -1 : !db ? 1 : store_omap_compare(db_key(it), it->over->key);
        if (c != 0 && db && over && it->backward) {
            c = -c;
        }
        if (c < 0) {
            it->at = AT_DB;
            return;
        }
        if (c == 0) {
            db_step(it); /* the overlay's is newer */
        } else if (!it->over->gone) {
            it->at = AT_OVERLAY;
            return;
        } else {
            it->over = over_step(it);
        }
    }
}

/* Place both cursors at the first key >= key (backward: the last <= key), or strictly beyond it. */
static void place(store_kv_iter *it, mesh_slice key, bool backward, bool beyond)
{
    it->backward = backward;
    leveldb_iter_seek(it->db, (const char *)key.data, key.size);
    bool hit = leveldb_iter_valid(it->db) && store_omap_compare(db_key(it), key) == 0;
    if (backward) {
        if (!leveldb_iter_valid(it->db)) {
            leveldb_iter_seek_to_last(it->db);
        } else if (!hit || beyond) {
            leveldb_iter_prev(it->db);
        }
        it->over = store_omap_last_le(it->kv->overlay, key);
    } else {
        if (hit && beyond) {
            leveldb_iter_next(it->db);
        }
        it->over = store_omap_lower_bound(it->kv->overlay, key);
    }
    if (beyond && it->over != NULL && store_omap_compare(it->over->key, key) == 0) {
        it->over = over_step(it);
    }
    settle(it);
}

void store_kv_iter_first(store_kv_iter *it)
{
    place(it, mesh_buf_slice(&it->prefix), false, false);
}

void store_kv_iter_last(store_kv_iter *it)
{
    if (it->past.size > 0) {
        place(it, mesh_buf_slice(&it->past), true, true);
        return;
    }
    it->backward = true;
    leveldb_iter_seek_to_last(it->db);
    it->over = store_omap_last(it->kv->overlay);
    settle(it);
}

void store_kv_iter_seek(store_kv_iter *it, mesh_slice key)
{
    mesh_slice prefix = mesh_buf_slice(&it->prefix);
    place(it, store_omap_compare(key, prefix) < 0 ? prefix : key, false, false);
}

void store_kv_iter_seek_back(store_kv_iter *it, mesh_slice key)
{
    if (it->past.size > 0 && store_omap_compare(key, mesh_buf_slice(&it->past)) >= 0) {
        store_kv_iter_last(it);
        return;
    }
    place(it, key, true, false);
}

/* One entry on in the direction asked for. */
static void step(store_kv_iter *it, bool backward)
{
    assert(it->at != AT_NOTHING);
    if (it->backward != backward) {
        mesh_slice key = store_kv_iter_key(it);
        mesh_buf_clear(&it->turned);
        mesh_buf_put(&it->turned, key.data, key.size);
        place(it, mesh_buf_slice(&it->turned), backward, true);
        return;
    }
    if (it->at == AT_DB) {
        db_step(it);
    } else {
        it->over = over_step(it);
    }
    settle(it);
}

void store_kv_iter_next(store_kv_iter *it)
{
    step(it, false);
}

void store_kv_iter_prev(store_kv_iter *it)
{
    step(it, true);
}

bool store_kv_iter_valid(const store_kv_iter *it)
{
    return it->at != AT_NOTHING;
}

mesh_slice store_kv_iter_key(const store_kv_iter *it)
{
    assert(it->at != AT_NOTHING);
    return it->at == AT_DB ? db_key(it) : it->over->key;
}

mesh_slice store_kv_iter_value(const store_kv_iter *it)
{
    assert(it->at != AT_NOTHING);
    if (it->at == AT_OVERLAY) {
        return it->over->value;
    }
    size_t size;
    const char *value = leveldb_iter_value(it->db, &size);
    return (mesh_slice){ (const uint8_t *)value, size };
}

mesh_err store_kv_iter_status(const store_kv_iter *it)
{
    char *message = NULL;
    leveldb_iter_get_error(it->db, &message);
    if (message == NULL) {
        return MESH_OK;
    }
    mesh_err err = store_kv_leveldb_take(message);
    store_kv_fail(it->kv, err);
    return err;
}
