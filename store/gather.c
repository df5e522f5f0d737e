#include "store/gather.h"

#include <assert.h>
#include <czmq.h>
#include <stdlib.h>

#include "mesh/alloc.h"
#include "store/core.h"
#include "store/fsm.h"

#define HEAD_SIZE (STORE_STAMP_SIZE + 1) /* stamp and the frame's version */
#define SPARE_ENTRIES 8

struct store_gather {
    zlistx_t *gathering, *submitted; /* of store_gathered, oldest first */
    zlistx_t *spare;                 /* their memory is used again */
    size_t bytes;
};

store_gather *store_gather_new(void)
{
    store_gather *gather = mesh_alloc(sizeof *gather);
    gather->gathering = zlistx_new();
    gather->submitted = zlistx_new();
    gather->spare = zlistx_new();
    return gather;
}

static void entry_free(store_gathered *entry)
{
    mesh_buf_fini(&entry->payload);
    free(entry->waiters);
    free(entry);
}

static void destroy_list(zlistx_t **list_p)
{
    for (store_gathered *entry = zlistx_first(*list_p); entry != NULL; entry = zlistx_next(*list_p)) {
        entry_free(entry);
    }
    zlistx_destroy(list_p);
}

void store_gather_destroy(store_gather **gather_p)
{
    store_gather *gather = *gather_p;
    if (gather == NULL) {
        return;
    }
    destroy_list(&gather->gathering);
    destroy_list(&gather->submitted);
    destroy_list(&gather->spare);
    free(gather);
    *gather_p = NULL;
}

static store_gathered *entry_new(store_gather *gather)
{
    static const uint8_t head[HEAD_SIZE] = { [STORE_STAMP_SIZE] = MESH_FRAME_VERSION };
    store_gathered *entry = zlistx_detach(gather->spare, NULL);
    if (entry == NULL) {
        entry = mesh_alloc(sizeof *entry);
    }
    mesh_buf_clear(&entry->payload);
    mesh_buf_put(&entry->payload, head, sizeof head);
    entry->n = 0;
    return entry;
}

void store_gather_put(store_gather *gather, mesh_peer from, uint64_t corr, mesh_slice packed)
{
    store_gathered *entry = zlistx_tail(gather->gathering);
    if (entry == NULL || entry->n >= STORE_ENTRY_OPS ||
        (entry->n > 0 && entry->payload.size + packed.size > STORE_ENTRY_SOFT_MAX)) {
        entry = entry_new(gather);
        zlistx_add_end(gather->gathering, entry);
    }
    size_t before = entry->payload.size;
    mesh_frame_put_packed(&entry->payload, packed);
    gather->bytes += entry->payload.size - before;
    if (entry->n == entry->cap) {
        entry->cap = entry->cap == 0 ? 64 : 2 * entry->cap;
        entry->waiters = mesh_realloc(entry->waiters, entry->cap * sizeof *entry->waiters);
    }
    entry->waiters[entry->n++] = (store_waiter){ from, corr };
}

size_t store_gather_bytes(const store_gather *gather)
{
    return gather->bytes;
}

bool store_gather_waits(const store_gather *gather)
{
    return zlistx_size(gather->gathering) > 0;
}

bool store_gather_empty(const store_gather *gather)
{
    return zlistx_size(gather->gathering) == 0 && zlistx_size(gather->submitted) == 0;
}

mesh_slice store_gather_submit(store_gather *gather, mesh_ms wall)
{
    store_gathered *entry = zlistx_detach(gather->gathering, NULL);
    assert(entry != NULL);
    uint64_t stamp = wall > 0 ? (uint64_t)wall : 0;
    mesh_put_u32le(entry->payload.data, (uint32_t)stamp);
    mesh_put_u32le(entry->payload.data + 4, (uint32_t)(stamp >> 32));
    gather->bytes -= entry->payload.size - HEAD_SIZE;
    zlistx_add_end(gather->submitted, entry);
    return mesh_buf_slice(&entry->payload);
}

void store_gather_recall(store_gather *gather)
{
    (void)zlistx_last(gather->submitted);
    store_gathered *entry = zlistx_detach_cur(gather->submitted);
    gather->bytes += entry->payload.size - HEAD_SIZE;
    zlistx_add_start(gather->gathering, entry);
}

store_gathered *store_gather_drop(store_gather *gather)
{
    store_gathered *entry = zlistx_detach(gather->gathering, NULL);
    gather->bytes -= entry != NULL ? entry->payload.size - HEAD_SIZE : 0;
    return entry;
}

store_gathered *store_gather_committed(store_gather *gather)
{
    return zlistx_detach(gather->submitted, NULL);
}

void store_gather_done(store_gather *gather, store_gathered *entry)
{
    if (zlistx_size(gather->spare) >= SPARE_ENTRIES || entry->payload.cap > 4 * STORE_ENTRY_SOFT_MAX) {
        entry_free(entry);
    } else {
        zlistx_add_end(gather->spare, entry);
    }
}

static void forget_in(zlistx_t *list, mesh_peer peer)
{
    for (store_gathered *entry = zlistx_first(list); entry != NULL; entry = zlistx_next(list)) {
        for (size_t i = 0; i < entry->n; i++) {
            if (entry->waiters[i].from == peer) {
                entry->waiters[i].from = MESH_NO_PEER;
            }
        }
    }
}

void store_gather_forget(store_gather *gather, mesh_peer peer)
{
    forget_in(gather->gathering, peer);
    forget_in(gather->submitted, peer);
}
