/* store/salvage_epoch.c: routers, edges and the other shards of the cluster go on, and keep the newest ring they have
 * heard of. The copy may lack the last rings of its shard, and what the last attaches made of its fences. */
#include <inttypes.h>
#include <string.h>

#include "mesh/wire.h"
#include "store.pb-c.h"
#include "store/key.h"
#include "store/salvage.h"

static mesh_err read_ring(store_kv *kv, mesh_arena *arena, Mesh__Ring **ring_p)
{
    mesh_buf value = { 0 };
    ProtobufCMessage *row;
    store_key key;
    store_key_ring(&key);
    mesh_err err = store_kv_get(kv, store_key_slice(&key), &value);
    if (err == MESH_OK && mesh_wire_unpack(&mesh__ring__descriptor, mesh_buf_slice(&value), arena, &row) != MESH_OK) {
        err = MESH_CORRUPT;
    }
    if (err == MESH_OK) {
        *ring_p = (Mesh__Ring *)row;
    }
    mesh_buf_fini(&value);
    return err;
}

static mesh_err highest_fence(store_kv *kv, uint64_t *epoch)
{
    store_key prefix;
    mesh_err err = MESH_OK;
    store_key_fences(&prefix);
    store_kv_iter *it = store_kv_iter_new(kv, store_key_slice(&prefix));
    for (store_kv_iter_first(it); err == MESH_OK && store_kv_iter_valid(it); store_kv_iter_next(it)) {
        mesh_slice value = store_kv_iter_value(it);
        err = value.size == 8 ? MESH_OK : MESH_CORRUPT;
        uint64_t fence = err == MESH_OK ? mesh_get_u64be(value.data) : 0;
        *epoch = fence > *epoch ? fence : *epoch;
    }
    err = err == MESH_OK ? store_kv_iter_status(it) : err;
    store_kv_iter_destroy(&it);
    return err;
}

static void put_ring(Mesh__Ring *ring, uint64_t epoch, bool whole, store_kv_batch *batch)
{
    mesh_buf value = { 0 };
    store_key key;
    ring->epoch = epoch;
    ring->n_routers = whole ? ring->n_routers : 0;
    store_key_ring(&key);
    mesh_wire_pack(ring, &value);
    store_kv_batch_put(batch, store_key_slice(&key), mesh_buf_slice(&value));
    mesh_buf_fini(&value);
}

static void put_fences(uint64_t epoch, store_kv_batch *batch)
{
    uint8_t value[8];
    store_key key;
    mesh_put_u64be(value, epoch);
    for (unsigned slot = 0; slot < MESH_SLOTS; slot++) {
        store_key_fence(&key, (mesh_slot)slot);
        store_kv_batch_put(batch, store_key_slice(&key), (mesh_slice){ value, sizeof value });
    }
}

mesh_err store_salvage_raise_epoch(store_kv *kv, uint32_t shard, bool whole, uint64_t *epoch_p)
{
    mesh_arena *arena = mesh_arena_new();
    store_kv_batch *batch = store_kv_batch_new();
    Mesh__Ring *ring = NULL;
    uint64_t epoch = 0;
    mesh_err err = read_ring(kv, arena, &ring);
    if (err == MESH_OK) {
        epoch = ring->epoch;
        err = highest_fence(kv, &epoch);
    } else if (err == MESH_NOT_FOUND) { /* no router was ever there */
        err = MESH_OK;
    }
    if (err == MESH_OK && epoch > 0) {
        if (shard == 0) {
            epoch += STORE_SALVAGE_EPOCHS;
            put_ring(ring, epoch, whole, batch);
        }
        put_fences(epoch, batch);
        err = store_kv_wait(kv, store_kv_write(kv, batch, true));
    }
    if (err == MESH_OK) {
        *epoch_p = epoch;
    }
    store_kv_batch_destroy(&batch);
    mesh_arena_destroy(&arena);
    return err;
}
