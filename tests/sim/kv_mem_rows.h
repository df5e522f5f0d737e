/* tests/sim/kv_mem_rows.h: a part of kv_mem.c, which alone includes it: rows, the map that holds them, and the sum of
 * their hashes. */
#ifndef SIM_KV_MEM_ROWS_H
#define SIM_KV_MEM_ROWS_H

static row *row_of(const store_omap_node *node)
{
    return (row *)(uintptr_t)node->tag;
}

static mesh_slice row_key(const row *r)
{
    return (mesh_slice){ r->bytes, r->key_size };
}

static uint64_t hash_bytes(uint64_t h, const uint8_t *data, size_t size)
{
    uint64_t word;
    for (; size >= sizeof word; size -= sizeof word, data += sizeof word) {
        memcpy(&word, data, sizeof word);
        h = (h ^ word) * 0x9e3779b97f4a7c15u;
        h ^= h >> 32;
    }
    word = size;
    memcpy(&word, data, size);
    h = (h ^ word ^ (uint64_t)size << 56) * 0xbf58476d1ce4e5b9u;
    return h ^ h >> 29;
}

static row *row_new(mesh_slice key, mesh_slice value)
{
    row *r = mesh_alloc(sizeof *r + key.size + value.size);
    r->key_size = key.size;
    r->value_size = value.size;
    memcpy(r->bytes, key.data, key.size);
    if (value.size > 0) {
        memcpy(r->bytes + key.size, value.data, value.size);
    }
    r->hash = hash_bytes(hash_bytes(key.size, r->bytes, key.size), r->bytes + key.size, value.size);
    return r;
}

static uint64_t share(const row *r) /* in the digest */
{
    return r != NULL && r->key_size > 0 && r->bytes[0] != 0 ? r->hash : 0;
}

static row *row_copy(const row *r)
{
    return r != NULL ? row_new(row_key(r), (mesh_slice){ r->bytes + r->key_size, r->value_size }) : NULL;
}

/* Make r (or, with NULL, nothing) the row of key; returns what was there. */
static row *map_set(store_omap *rows, mesh_slice key, row *r)
{
    if (r == NULL) {
        store_omap_node *node = store_omap_get(rows, key);
        if (node == NULL) {
            return NULL;
        }
        row *old = row_of(node);
        store_omap_delete(rows, node);
        return old;
    }
    bool added;
    store_omap_node *node = store_omap_put(rows, row_key(r), &added);
    row *old = added ? NULL : row_of(node);
    node->value = (mesh_slice){ r->bytes + r->key_size, r->value_size };
    node->tag = (uintptr_t)r;
    return old;
}

static bool is_flipped(const sim_disk *disk, mesh_slice key)
{
    return disk->flipped.size > 0 && store_omap_compare(mesh_buf_slice(&disk->flipped), key) == 0;
}

static row *rows_set(sim_disk *disk, mesh_slice key, row *r)
{
    row *old = map_set(disk->rows, key, r);
    disk->digest += share(r) - share(old);
    if (is_flipped(disk, key)) {
        mesh_buf_clear(&disk->flipped);
    }
    disk->deletes += r == NULL && old != NULL;
    return old;
}

static void map_destroy(store_omap **rows_p)
{
    for (store_omap_node *n = *rows_p != NULL ? store_omap_first(*rows_p) : NULL; n != NULL; n = store_omap_next(n)) {
        free(row_of(n));
    }
    if (*rows_p != NULL) {
        store_omap_destroy(rows_p);
    }
}

/* Rows came or went as a whole. */
static void sum_up(sim_disk *disk)
{
    disk->digest = 0;
    for (const store_omap_node *n = store_omap_first(disk->rows); n != NULL; n = store_omap_next(n)) {
        disk->digest += share(row_of(n));
    }
}

#endif
