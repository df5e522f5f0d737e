#include "edge/partial.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "mesh/alloc.h"

static size_t smaller(size_t a, size_t b)
{
    return a < b ? a : b;
}

mesh_err edge_partial_put(edge_partial_pool *pool, edge_partial *p, mesh_slice piece, uint64_t declared, size_t max)
{
    size_t need = p->size + piece.size;
    if (need > max || declared > max - need) {
        return MESH_TOO_BIG;
    }
    if (need > p->cap) {
        size_t cap = need + smaller((size_t)declared, EDGE_PARTIAL_AHEAD);
        cap = smaller(cap < 2 * (size_t)p->cap ? 2 * (size_t)p->cap : cap, max);
        if (pool->held + (cap - p->cap) > pool->max) {
            return MESH_FULL;
        }
        p->bytes = mesh_realloc(p->bytes, cap);
        pool->held += cap - p->cap;
        p->cap = (uint32_t)cap;
    }
    if (piece.size > 0) {
        memcpy(p->bytes + p->size, piece.data, piece.size);
        p->size = (uint32_t)need;
    }
    return MESH_OK;
}

void edge_partial_drop(edge_partial_pool *pool, edge_partial *p)
{
    assert(pool->held >= p->cap);
    pool->held -= p->cap;
    free(p->bytes);
    *p = (edge_partial){ 0 };
}
