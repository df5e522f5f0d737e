/* tests/sim/kv_mem_iter.h: a part of kv_mem.c, which alone includes it: iterators. */
#ifndef SIM_KV_MEM_ITER_H
#define SIM_KV_MEM_ITER_H

struct store_kv_iter {
    store_kv *kv;
    const store_omap_node *node; /* in the prefix, or NULL */
    uint64_t deletes;            /* of the disk when node was found */
    bool bad;                    /* it came to the row that is flipped */
    mesh_buf prefix, key;        /* key: of node, to find the place again when rows went away */
};

store_kv_iter *store_kv_iter_new(store_kv *kv, mesh_slice prefix)
{
    store_kv_iter *it = mesh_alloc(sizeof *it);
    it->kv = kv;
    kv->iterators++;
    mesh_buf_put(&it->prefix, prefix.data, prefix.size);
    return it;
}

void store_kv_iter_destroy(store_kv_iter **it_p)
{
    store_kv_iter *it = *it_p;
    if (it != NULL) {
        it->kv->iterators--;
        mesh_buf_fini(&it->prefix);
        mesh_buf_fini(&it->key);
        free(it);
        *it_p = NULL;
    }
}

static bool has_prefix(const store_kv_iter *it, mesh_slice key)
{
    return key.size >= it->prefix.size &&
           (it->prefix.size == 0 || memcmp(key.data, it->prefix.data, it->prefix.size) == 0);
}

static const store_omap *rows_of(const store_kv_iter *it)
{
    return it->kv->disk != NULL ? it->kv->disk->rows : NULL;
}

static void stand(store_kv_iter *it, const store_omap_node *node)
{
    it->node = node != NULL && has_prefix(it, node->key) ? node : NULL;
    if (it->node != NULL && is_flipped(it->kv->disk, node->key)) {
        it->kv->error = MESH_CORRUPT;
        it->bad = true;
        it->node = NULL;
    }
    if (it->node != NULL) {
        it->deletes = it->kv->disk->deletes;
        mesh_buf_clear(&it->key);
        mesh_buf_put(&it->key, node->key.data, node->key.size);
    }
}

void store_kv_iter_seek(store_kv_iter *it, mesh_slice key)
{
    mesh_slice prefix = mesh_buf_slice(&it->prefix);
    const store_omap *rows = rows_of(it);
    stand(it, rows == NULL ? NULL : store_omap_lower_bound(rows, store_omap_compare(key, prefix) < 0 ? prefix : key));
}

void store_kv_iter_first(store_kv_iter *it)
{
    store_kv_iter_seek(it, mesh_buf_slice(&it->prefix));
}

void store_kv_iter_last(store_kv_iter *it)
{
    const store_omap *rows = rows_of(it);
    mesh_buf past = { 0 };
    size_t n = it->prefix.size;
    while (n > 0 && it->prefix.data[n - 1] == 0xff) {
        n--;
    }
    const store_omap_node *node = NULL;
    if (rows != NULL && n == 0) {
        node = store_omap_last(rows);
    } else if (rows != NULL) {
        mesh_buf_put(&past, it->prefix.data, n);
        past.data[n - 1]++;
        node = store_omap_last_le(rows, mesh_buf_slice(&past));
        if (node != NULL && store_omap_compare(node->key, mesh_buf_slice(&past)) == 0) {
            node = store_omap_prev(node);
        }
    }
    mesh_buf_fini(&past);
    stand(it, node);
}

void store_kv_iter_seek_back(store_kv_iter *it, mesh_slice key)
{
    const store_omap *rows = rows_of(it);
    if (!has_prefix(it, key) && store_omap_compare(key, mesh_buf_slice(&it->prefix)) > 0) {
        store_kv_iter_last(it);
        return;
    }
    stand(it, rows == NULL ? NULL : store_omap_last_le(rows, key));
}

/* The node under the cursor, or NULL when rows went away since: then the key tells where it was. */
static const store_omap_node *still(const store_kv_iter *it)
{
    assert(it->node != NULL);
    if (rows_of(it) == NULL) {
        return NULL;
    }
    return it->deletes == it->kv->disk->deletes ? it->node : store_omap_get(rows_of(it), mesh_buf_slice(&it->key));
}

void store_kv_iter_next(store_kv_iter *it)
{
    const store_omap_node *node = still(it);
    if (node != NULL) {
        stand(it, store_omap_next(node));
    } else {
        store_kv_iter_seek(it, mesh_buf_slice(&it->key));
    }
}

void store_kv_iter_prev(store_kv_iter *it)
{
    const store_omap_node *node = still(it);
    if (node != NULL) {
        stand(it, store_omap_prev(node));
    } else {
        store_kv_iter_seek_back(it, mesh_buf_slice(&it->key));
    }
}

bool store_kv_iter_valid(const store_kv_iter *it)
{
    return it->node != NULL;
}

mesh_slice store_kv_iter_key(const store_kv_iter *it)
{
    assert(it->node != NULL);
    return mesh_buf_slice(&it->key);
}

mesh_slice store_kv_iter_value(const store_kv_iter *it)
{
    const store_omap_node *node = still(it);
    return node != NULL ? node->value : (mesh_slice){ NULL, 0 };
}

mesh_err store_kv_iter_status(const store_kv_iter *it)
{
    return it->bad ? MESH_CORRUPT : MESH_OK;
}

#endif
