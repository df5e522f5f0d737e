/* store/consensus_cache.h: the last entries of the log in memory, so that sending and applying them reads no disk. A
 * run of entries without holes; the oldest go when it is full. Internal to consensus. */
#ifndef STORE_CONSENSUS_CACHE_H
#define STORE_CONSENSUS_CACHE_H

#include "store/consensus_log.h"

#define STORE_CACHE_ENTRIES 512
#define STORE_CACHE_BYTES (4u * 1024 * 1024) /* payloads together; one that is larger is not kept */

typedef struct consensus_cache {
    struct consensus_cached *items; /* STORE_CACHE_ENTRIES, from the first entry on */
    uint64_t first, next;           /* indexes; equal: empty */
    size_t bytes;
} consensus_cache;

void consensus_cache_fini(consensus_cache *cache);
void consensus_cache_put(consensus_cache *cache, uint64_t index, uint64_t term, uint8_t type, mesh_slice payload);
void consensus_cache_cut(consensus_cache *cache, uint64_t from); /* from and all above */
/* entry borrows from the cache until the next put or cut. */
bool consensus_cache_get(const consensus_cache *cache, uint64_t index, consensus_entry *entry);

#endif
