/* Chains in a table that doubles. Not czmq's zhashx: that one also grows whenever a single chain is long, by chance to
 * hundreds of megabytes for a hundred thousand items. */
#include "store/lru.h"

#include <assert.h>
#include <czmq.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#include "mesh/alloc.h"

#define FIRST_SLOTS 64 /* a power of two, as all later sizes */

struct store_lru {
    const mesh_hash_key *hash_key;
    store_lru_node **slots;
    size_t n_slots, count;
    zlistx_t *ages; /* oldest first */
};

store_lru *store_lru_new(const mesh_hash_key *hash_key)
{
    store_lru *lru = mesh_alloc(sizeof *lru);
    lru->hash_key = hash_key;
    lru->n_slots = FIRST_SLOTS;
    lru->slots = mesh_alloc(lru->n_slots * sizeof *lru->slots);
    lru->ages = zlistx_new();
    return lru;
}

void store_lru_destroy(store_lru **lru_p)
{
    store_lru *lru = *lru_p;
    if (lru == NULL) {
        return;
    }
    zlistx_destroy(&lru->ages);
    free(lru->slots);
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

static bool is_same(const store_lru_node *a, const store_lru_node *b)
{
    return a->hash == b->hash && a->key.size == b->key.size && memcmp(a->key.data, b->key.data, a->key.size) == 0;
}

/* Where the node like this one is linked, or the end of its chain. */
static store_lru_node **link_of(const store_lru *lru, const store_lru_node *wanted)
{
    store_lru_node **link = &lru->slots[wanted->hash & (lru->n_slots - 1)];
    while (*link != NULL && !is_same(*link, wanted)) {
        link = &(*link)->next;
    }
    return link;
}

static void grow(store_lru *lru)
{
    store_lru_node **old = lru->slots;
    size_t n = lru->n_slots;
    lru->n_slots *= 2;
    lru->slots = mesh_alloc(lru->n_slots * sizeof *lru->slots);
    for (size_t i = 0; i < n; i++) {
        for (store_lru_node *node = old[i], *next; node != NULL; node = next) {
            store_lru_node **slot = &lru->slots[node->hash & (lru->n_slots - 1)];
            next = node->next;
            node->next = *slot;
            *slot = node;
        }
    }
    free(old);
}

store_lru_node *store_lru_find(store_lru *lru, mesh_slice key)
{
    store_lru_node wanted = probe(lru, key);
    store_lru_node *node = *link_of(lru, &wanted);
    if (node != NULL) {
        zlistx_move_end(lru->ages, node->handle);
    }
    return node;
}

void store_lru_put(store_lru *lru, store_lru_node *node, mesh_slice key)
{
    *node = probe(lru, key);
    if (lru->count == lru->n_slots) {
        grow(lru);
    }
    store_lru_node **link = link_of(lru, node);
    assert(*link == NULL);
    *link = node;
    lru->count++;
    node->handle = zlistx_add_end(lru->ages, node);
}

void store_lru_remove(store_lru *lru, store_lru_node *node)
{
    store_lru_node **link = link_of(lru, node);
    assert(*link == node);
    *link = node->next;
    lru->count--;
    zlistx_delete(lru->ages, node->handle);
    node->next = NULL;
    node->handle = NULL;
}

store_lru_node *store_lru_oldest(store_lru *lru)
{
    return zlistx_head(lru->ages);
}

size_t store_lru_count(store_lru *lru)
{
    return lru->count;
}
