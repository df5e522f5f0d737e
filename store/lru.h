/* store/lru.h: a table by byte string that knows its oldest item: what the store's caches are made of. Items embed a
 * node; the table owns neither key bytes nor items. Hashed with the cluster's key, because clients choose parts of the
 * keys. */
#ifndef STORE_LRU_H
#define STORE_LRU_H

#include "mesh/buf.h"
#include "mesh/id.h"

typedef struct store_lru store_lru;

typedef struct store_lru_node store_lru_node;
struct store_lru_node {
    mesh_slice key; /* borrowed from the item that embeds this; set by store_lru_put */
    uint64_t hash;
    store_lru_node *next; /* in its slot */
    void *handle;
};

store_lru *store_lru_new(const mesh_hash_key *hash_key); /* borrowed for the table's life */
void store_lru_destroy(store_lru **lru_p);               /* items are the owner's: take them out first */

/* The node of key, now the youngest; NULL when there is none. */
store_lru_node *store_lru_find(store_lru *lru, mesh_slice key);
/* Put node as the youngest. key lives in the item and is in the table only once. */
void store_lru_put(store_lru *lru, store_lru_node *node, mesh_slice key);
void store_lru_remove(store_lru *lru, store_lru_node *node);
store_lru_node *store_lru_oldest(store_lru *lru); /* NULL when empty */
size_t store_lru_count(store_lru *lru);

#endif
