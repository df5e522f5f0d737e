/* store/omap.h: an ordered map from byte strings to byte strings, in memory.
 *
 * A treap with parent links; its priorities come from a seed, so the same calls give the same tree. The map borrows the
 * bytes of keys and values: whoever puts them keeps them alive until the node is deleted or given other bytes. A node
 * stays where it is until it is deleted, so a pointer to it is a cursor that outlives other changes.
 *
 * Source: Seidel, Aragon: Randomized Search Trees (1996). */
#ifndef STORE_OMAP_H
#define STORE_OMAP_H

#include <stdbool.h>

#include "mesh/buf.h"

typedef struct store_omap store_omap;

typedef struct store_omap_node {
    mesh_slice key;   /* borrowed; may be replaced by equal bytes elsewhere, never by others */
    mesh_slice value; /* borrowed; the owner's to set, as the two below */
    uint64_t tag;
    bool gone; /* a tombstone, for an owner who needs them; the map itself does not care */
    /* the map's own */
    uint64_t priority;
    struct store_omap_node *parent, *left, *right;
} store_omap_node;

store_omap *store_omap_new(uint64_t seed);
void store_omap_destroy(store_omap **map_p);
size_t store_omap_count(const store_omap *map);

/* < 0, 0, > 0 as memcmp, a shorter string before its extensions. */
int store_omap_compare(mesh_slice a, mesh_slice b);

/* Each returns NULL when there is none. */
store_omap_node *store_omap_get(const store_omap *map, mesh_slice key);
store_omap_node *store_omap_lower_bound(const store_omap *map, mesh_slice key); /* first >= key */
store_omap_node *store_omap_last_le(const store_omap *map, mesh_slice key);     /* last <= key */
store_omap_node *store_omap_first(const store_omap *map);
store_omap_node *store_omap_last(const store_omap *map);
store_omap_node *store_omap_next(const store_omap_node *node);
store_omap_node *store_omap_prev(const store_omap_node *node);

/* The node of key, made when there was none (*added_p tells; value empty, tag 0). Its key borrows from `key` from now
 * on. */
store_omap_node *store_omap_put(store_omap *map, mesh_slice key, bool *added_p);
void store_omap_delete(store_omap *map, store_omap_node *node);

#endif
