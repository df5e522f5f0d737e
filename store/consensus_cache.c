#include "store/consensus_cache.h"

#include <stdlib.h>

#include "mesh/alloc.h"

typedef struct consensus_cached {
    uint64_t term;
    uint8_t type;
    size_t size;
    uint8_t *payload;
} consensus_cached;

static consensus_cached *at(const consensus_cache *cache, uint64_t index)
{
    return &cache->items[index % STORE_CACHE_ENTRIES];
}

static void drop(consensus_cache *cache, uint64_t index)
{
    consensus_cached *c = at(cache, index);
    cache->bytes -= c->size;
    free(c->payload);
    *c = (consensus_cached){ 0 };
}

static void drop_first(consensus_cache *cache)
{
    drop(cache, cache->first++);
}

void consensus_cache_cut(consensus_cache *cache, uint64_t from)
{
    while (cache->next > cache->first && cache->next > from) {
        drop(cache, --cache->next);
    }
}

void consensus_cache_fini(consensus_cache *cache)
{
    consensus_cache_cut(cache, 0);
    free(cache->items);
    *cache = (consensus_cache){ 0 };
}

void consensus_cache_put(consensus_cache *cache, uint64_t index, uint64_t term, uint8_t type, mesh_slice payload)
{
    if (index != cache->next || payload.size > STORE_CACHE_BYTES) {
        consensus_cache_cut(cache, 0);
        cache->first = cache->next = index;
    }
    if (payload.size > STORE_CACHE_BYTES) {
        return;
    }
    if (cache->items == NULL) {
        cache->items = mesh_alloc(STORE_CACHE_ENTRIES * sizeof *cache->items);
    }
    while (cache->next > cache->first &&
           (cache->next - cache->first == STORE_CACHE_ENTRIES || cache->bytes + payload.size > STORE_CACHE_BYTES)) {
        drop_first(cache);
    }
    *at(cache, index) = (consensus_cached){ term, type, payload.size, mesh_memdup(payload.data, payload.size) };
    cache->bytes += payload.size;
    cache->next++;
}

bool consensus_cache_get(const consensus_cache *cache, uint64_t index, consensus_entry *entry)
{
    if (index < cache->first || index >= cache->next) {
        return false;
    }
    const consensus_cached *c = at(cache, index);
    *entry = (consensus_entry){ c->term, c->type, { c->payload, c->size } };
    return true;
}
