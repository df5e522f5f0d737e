#include "store/lru.h"

#include <assert.h>
#include <czmq.h>
#include <sodium.h>
#include <string.h>

#include "mesh/alloc.h"

struct store_lru {
    const mesh_hash_key *hash_key;
    zhashx_t *table;
    zlistx_t *ages; /* oldest first */
};

static size_t node_hash(const void *key)
{
    return (size_t)((const store_lru_node *)key)->hash;
}

static int node_compare(const void *a, const void *b)
{
    const store_lru_node *x = a;
    const store_lru_node *y = b;
    if (x->hash != y->hash || x->key.size != y->key.size) {
        return 1;
    }
    return memcmp(x->key.data, y->key.data, x->key.size);
}

store_lru *store_lru_new(const mesh_hash_key *hash_key)
{
    store_lru *lru = mesh_alloc(sizeof *lru);
    lru->hash_key = hash_key;
    lru->table = zhashx_new();
    lru->ages = zlistx_new();
    zhashx_set_key_duplicator(lru->table, NULL);
    zhashx_set_key_destructor(lru->table, NULL);
    zhashx_set_key_hasher(lru->table, node_hash);
    zhashx_set_key_comparator(lru->table, node_compare);
    return lru;
}

void store_lru_destroy(store_lru **lru_p)
{
    store_lru *lru = *lru_p;
    if (lru == NULL) {
        return;
    }
    zhashx_destroy(&lru->table);
    zlistx_destroy(&lru->ages);
    free(lru);
    *lru_p = NULL;
}

static store_lru_node probe(const store_lru *lru, mesh_slice key)
{
    unsigned char hash[crypto_shorthash_siphash24_BYTES];
    store_lru_node node = { .key = key };
    crypto_shorthash_siphash24(hash, key.data, key.size, lru->hash_key->bytes);
    memcpy(&node.hash, hash, sizeof node.hash);
    return node;
}

store_lru_node *store_lru_find(store_lru *lru, mesh_slice key)
{
    store_lru_node wanted = probe(lru, key);
    store_lru_node *node = zhashx_lookup(lru->table, &wanted);
    if (node != NULL) {
        zlistx_move_end(lru->ages, node->handle);
    }
    return node;
}

void store_lru_put(store_lru *lru, store_lru_node *node, mesh_slice key)
{
    *node = probe(lru, key);
    int rc = zhashx_insert(lru->table, node, node);
    assert(rc == 0);
    node->handle = zlistx_add_end(lru->ages, node);
}

void store_lru_remove(store_lru *lru, store_lru_node *node)
{
    zhashx_delete(lru->table, node);
    zlistx_delete(lru->ages, node->handle);
    node->handle = NULL;
}

store_lru_node *store_lru_oldest(store_lru *lru)
{
    return zlistx_head(lru->ages);
}

size_t store_lru_count(store_lru *lru)
{
    return zhashx_size(lru->table);
}
