/* store/salvage_era.c: a copy that stands in for the database it was taken from may lack what clients were given since.
 * A new era tells them: no cursor of the old one is believed, each starts from a resync. */
#include <inttypes.h>
#include <stdio.h>
#include <unistd.h>

#include "mesh/rand.h"
#include "mesh/wire.h"
#include "store.pb-c.h"
#include "store/key.h"
#include "store/salvage.h"

static mesh_err read_row(store_kv *kv, mesh_slice key, const ProtobufCMessageDescriptor *desc, mesh_arena *arena,
                         ProtobufCMessage **row_p)
{
    mesh_buf value = { 0 };
    mesh_err err = store_kv_get(kv, key, &value);
    if (err == MESH_OK && mesh_wire_unpack(desc, mesh_buf_slice(&value), arena, row_p) != MESH_OK) {
        err = MESH_CORRUPT;
    }
    mesh_buf_fini(&value);
    return err;
}

/* The shard's row; or, when the log holds it still, one that goes before the log's: the first one counts. */
static mesh_err shard_row(store_kv *kv, mesh_arena *arena, Store__ShardRow *row)
{
    ProtobufCMessage *stored;
    store_key key;
    store_key_shard(&key);
    store__shard_row__init(row);
    mesh_err err = read_row(kv, store_key_slice(&key), &store__shard_row__descriptor, arena, &stored);
    if (err == MESH_OK) {
        *row = *(const Store__ShardRow *)stored;
    } else if (err == MESH_NOT_FOUND) {
        err = read_row(kv, (mesh_slice){ (const uint8_t *)"\0H", 2 }, &store__hard_row__descriptor, arena, &stored);
        if (err == MESH_OK) {
            row->cluster = ((const Store__HardRow *)stored)->cluster;
        }
    }
    return err;
}

/* Slots that came from other shards lose the era they brought. */
static mesh_err forget_slot_eras(store_kv *kv, mesh_arena *arena, store_kv_batch *batch)
{
    store_key prefix;
    mesh_buf value = { 0 };
    mesh_err err = MESH_OK;
    store_key_slots(&prefix);
    store_kv_iter *it = store_kv_iter_new(kv, store_key_slice(&prefix));
    for (store_kv_iter_first(it); err == MESH_OK && store_kv_iter_valid(it); store_kv_iter_next(it)) {
        ProtobufCMessage *message;
        if (mesh_wire_unpack(&store__slot_row__descriptor, store_kv_iter_value(it), arena, &message) != MESH_OK) {
            err = MESH_CORRUPT;
        } else if (((Store__SlotRow *)message)->era != 0) {
            ((Store__SlotRow *)message)->era = 0;
            mesh_buf_clear(&value);
            mesh_wire_pack(message, &value);
            store_kv_batch_put(batch, store_kv_iter_key(it), mesh_buf_slice(&value));
        }
    }
    err = err == MESH_OK ? store_kv_iter_status(it) : err;
    store_kv_iter_destroy(&it);
    mesh_buf_fini(&value);
    return err;
}

mesh_err store_salvage_era_row(store_kv *kv, uint64_t era, const char *cluster, store_kv_batch *batch)
{
    mesh_arena *arena = mesh_arena_new();
    Store__ShardRow row;
    mesh_err err = shard_row(kv, arena, &row);
    if (err == MESH_OK) {
        err = forget_slot_eras(kv, arena, batch);
    }
    if (err == MESH_OK) {
        mesh_buf value = { 0 };
        store_key key;
        row.era = era;
        row.cluster = cluster != NULL ? (char *)(uintptr_t)cluster : row.cluster;
        store_key_shard(&key);
        mesh_wire_pack(&row, &value);
        store_kv_batch_put(batch, store_key_slice(&key), mesh_buf_slice(&value));
        mesh_buf_fini(&value);
    }
    mesh_arena_destroy(&arena);
    return err;
}

mesh_err store_salvage_put_era(store_kv *kv, uint64_t era)
{
    store_kv_batch *batch = store_kv_batch_new();
    mesh_err err = store_salvage_era_row(kv, era, NULL, batch);
    if (err == MESH_OK) {
        err = store_kv_wait(kv, store_kv_write(kv, batch, true));
    }
    store_kv_batch_destroy(&batch);
    return err;
}

mesh_err store_salvage_new_era(const char *path, uint64_t *era_p, char *why, size_t why_size)
{
    char file[4096];
    store_kv *kv = NULL;
    store_kv_options options = { .write_buffer = 64u << 20, .block_cache = 64u << 20, .max_open_files = 500 };
    snprintf(file, sizeof file, "%s/CURRENT", path);
    if (access(file, F_OK) != 0) { /* opening would make a new one */
        snprintf(why, why_size, "%s holds no database", path);
        return MESH_NOT_FOUND;
    }
    mesh_err err = store_kv_open(path, &options, &kv, why, why_size);
    if (err != MESH_OK) {
        return err;
    }
    uint64_t era = mesh_rand_seed();
    err = store_salvage_put_era(kv, era);
    store_kv_close(&kv);
    if (err != MESH_OK) {
        snprintf(why, why_size, "%s: %s", path,
                 err == MESH_NOT_FOUND ? "a database, but no store's" : "the era's row cannot be read or written");
        return err;
    }
    *era_p = era;
    return MESH_OK;
}
