/* mesh/table.h: items by key, in the order in which they were put: the one table of the tree.
 *
 * A key is a run of bytes that lives in its item and is borrowed: it must not change or go while the item is in the
 * table. The table owns neither keys nor items. Keys are compared byte by byte; mesh_table_u64 and mesh_table_str make
 * keys of numbers and strings.
 *
 * Chains in a table that doubles when there are as many items as slots; it never shrinks. get, put, remove, touch: O(1)
 * on average, put O(items) when it doubles; first, next, take: O(1). Memory depends only on the most items it ever
 * held: mesh_table_room of them, MESH_TABLE_BYTES each.
 *
 * Hashed with SipHash-2-4 under a key that whoever chooses ids does not know, so nobody can make a chain long on
 * purpose. Not czmq's zhashx: its hash has no key, and it grows whenever one chain is long, by chance to hundreds of
 * megabytes. The order of iteration does not depend on the hash key: two tables that see the same calls answer the
 * same. */
#ifndef MESH_TABLE_H
#define MESH_TABLE_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "mesh/buf.h"
#include "mesh/id.h"

#define MESH_TABLE_FIRST 8        /* room of a new table, in items */
#define MESH_TABLE_GROWTH 2       /* room is less than this times the most items held, or MESH_TABLE_FIRST */
#define MESH_TABLE_BYTES 44u      /* per item of room */
#define MESH_TABLE_MAX (1u << 31) /* items; more are our own mistake */

typedef struct mesh_table mesh_table;

mesh_table *mesh_table_new(const mesh_hash_key *key); /* copied; NULL: a random one; cores are given theirs */
mesh_table *mesh_table_new_seeded(uint64_t seed);     /* the hash key comes from the seed */
void mesh_table_destroy(mesh_table **table_p);        /* not the items: they are the owner's */

static inline mesh_slice mesh_table_u64(const uint64_t *key)
{
    return (mesh_slice){ (const uint8_t *)key, sizeof *key };
}

static inline mesh_slice mesh_table_str(const char *key)
{
    return (mesh_slice){ (const uint8_t *)key, strlen(key) };
}

void *mesh_table_get(const mesh_table *table, mesh_slice key); /* NULL: not there */
void *mesh_table_touch(mesh_table *table, mesh_slice key);     /* the same, and it is now the last in order */
/* item, not NULL, as the last in order. There must be none with this key. */
void mesh_table_put(mesh_table *table, mesh_slice key, void *item);
/* Out of the table; the key may be the item's own. NULL: not there. */
void *mesh_table_remove(mesh_table *table, mesh_slice key);
size_t mesh_table_size(const mesh_table *table);
size_t mesh_table_room(const mesh_table *table); /* items it can hold without growing */

/* The items from the longest in the table to the last one put or touched; NULL: no more. Any item may be removed
 * meanwhile, and comes no more; what is put or touched meanwhile may come or not. One iteration at a time. */
void *mesh_table_first(mesh_table *table);
void *mesh_table_next(mesh_table *table);
void *mesh_table_oldest(const mesh_table *table); /* what first would give; NULL: empty */
void *mesh_table_take(mesh_table *table);         /* the same, removed */

#endif
