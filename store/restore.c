/* store/restore.c: read and refuse first; then fill a database beside each place; then put all in place. */
#include "store/restore.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "mesh/alloc.h"
#include "mesh/rand.h"
#include "mesh/wire.h"
#include "store.pb-c.h"
#include "store/consensus.h"
#include "store/consensus_log.h"
#include "store/group.h"
#include "store/key.h"
#include "store/kv_rows.h"
#include "store/restore_mend.h"
#include "store/salvage.h"
#include "store/slot.h"

#define READ_BYTES (256u * 1024)

typedef struct restore {
    const mesh_conf *conf;
    const char *dir;
    size_t n;
    restore_shard *shards;
    mesh_ring *ring; /* of shard 0, with the highest epoch; epoch 0: it has none */
    mesh_arena *arena;
    store_restore_counts *counts;
    char *why;
    size_t why_size;
} restore;

/* ---- what is refused ---- */

static const char *first_store(const restore *r, size_t shard)
{
    mesh_peer stores[MESH_REPLICAS_MAX];
    size_t n = mesh_conf_stores(r->conf, (uint32_t)shard, stores);
    return n > 0 ? mesh_conf_node(r->conf, stores[0])->name : NULL;
}

static char *place_of(const restore *r, const char *store, char path[STORE_BACKUP_PATH])
{
    int n = snprintf(path, STORE_BACKUP_PATH, "%s/%s", mesh_conf_str(r->conf, "store.path"), store);
    return n > 0 && n + 16 < STORE_BACKUP_PATH ? path : NULL;
}

static bool has_anything(const char *path)
{
    DIR *dir = opendir(path);
    bool any = dir == NULL && errno != ENOENT;
    for (struct dirent *e = dir != NULL ? readdir(dir) : NULL; e != NULL && !any; e = readdir(dir)) {
        any = strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0;
    }
    if (dir != NULL) {
        closedir(dir);
    }
    return any;
}

static mesh_err refuse(restore *r, mesh_err err, const char *what, const char *of)
{
    snprintf(r->why, r->why_size, "%s: %s", of, what);
    return err;
}

static mesh_err check_places(restore *r)
{
    for (size_t i = 0; i < mesh_conf_nodes(r->conf); i++) {
        const mesh_node_conf *node = mesh_conf_node(r->conf, (mesh_peer)i);
        char path[STORE_BACKUP_PATH];
        if (node->role != MESH_STORE) {
            continue;
        }
        if (place_of(r, node->name, path) == NULL) {
            return refuse(r, MESH_IO, "the path is too long", node->name);
        }
        if (has_anything(path)) {
            return refuse(r, MESH_CONFLICT, "there is data; a restore is for new stores only", path);
        }
    }
    return MESH_OK;
}

static mesh_err check_manifest(restore *r, const store_backup *backup)
{
    if (strcmp(backup->hash_key, mesh_conf_str(r->conf, "cluster.hash_key")) != 0) {
        return refuse(r, MESH_CONFLICT, "the config has another cluster.hash_key than the backup's manifest", r->dir);
    }
    if (backup->n_shards != mesh_conf_shards(r->conf)) {
        return refuse(r, MESH_CONFLICT, "the config has another number of shards than the backup", r->dir);
    }
    if (backup->data_format != STORE_FORMAT) {
        return refuse(r, MESH_UNSUPPORTED, "its data is of another format; restore it with the version that made it",
                      r->dir);
    }
    for (size_t i = 0; i < backup->n_shards; i++) {
        if (first_store(r, i) == NULL) {
            return refuse(r, MESH_CONFLICT, "the config has a shard without stores", r->dir);
        }
        if (!backup->shards[i].there) {
            return refuse(r, MESH_CONFLICT, "not all shards are in the backup", r->dir);
        }
    }
    return MESH_OK;
}

/* ---- loading ---- */

static mesh_err get_row(restore *r, size_t shard, const store_key *key, const ProtobufCMessageDescriptor *desc,
                        ProtobufCMessage **row_p)
{
    mesh_buf value = { 0 };
    mesh_err err = store_kv_get(r->shards[shard].kv, store_key_slice(key), &value);
    if (err == MESH_OK && mesh_wire_unpack(desc, mesh_buf_slice(&value), r->arena, row_p) != MESH_OK) {
        err = MESH_CORRUPT;
    }
    mesh_buf_fini(&value);
    return err;
}

static mesh_err load_shard(restore *r, size_t i)
{
    restore_shard *shard = &r->shards[i];
    ProtobufCMessage *row;
    store_key key;
    mesh_err err = store_backup_open(r->dir, i, &shard->kv, r->why, r->why_size);
    if (err != MESH_OK) {
        return err;
    }
    shard->extra = store_kv_batch_new();
    store_key_applied(&key);
    err = get_row(r, i, &key, &store__applied_row__descriptor, &row);
    if (err == MESH_OK) {
        const Store__AppliedRow *applied = (const Store__AppliedRow *)row;
        shard->index = applied->index;
        shard->term = applied->term;
        shard->last_id = applied->last_id;
        shard->level = applied->level;
    }
    if (err == MESH_OK && shard->level > STORE_GROUP_LEVEL) {
        snprintf(r->why, r->why_size, "shard %zu: a later version wrote its log; restore it with that version", i);
        return MESH_UNSUPPORTED;
    }
    if (err == MESH_NOT_FOUND || (err == MESH_OK && (shard->index == 0 || shard->term == 0))) {
        err = MESH_CORRUPT;
    }
    if (err != MESH_OK) {
        snprintf(r->why, r->why_size, "shard %zu: the applied index cannot be read", i);
    }
    return err;
}

/* The highest epoch in a shard's fences. */
static mesh_err fences_epoch(restore *r, size_t i, uint64_t *epoch)
{
    store_key prefix;
    store_key_fences(&prefix);
    store_kv_iter *it = store_kv_iter_new(r->shards[i].kv, store_key_slice(&prefix));
    for (store_kv_iter_first(it); store_kv_iter_valid(it); store_kv_iter_next(it)) {
        mesh_slice value = store_kv_iter_value(it);
        uint64_t fence = value.size == 8 ? mesh_get_u64be(value.data) : 0;
        *epoch = fence > *epoch ? fence : *epoch;
    }
    mesh_err err = store_kv_iter_status(it);
    store_kv_iter_destroy(&it);
    return err;
}

/* Does every slot belong to the same shard in both? */
static bool agree(const mesh_ring *a, const mesh_ring *b)
{
    for (unsigned slot = 0; slot < MESH_SLOTS; slot++) {
        if (mesh_ring_shard(a, (mesh_slot)slot) != mesh_ring_shard(b, (mesh_slot)slot)) {
            return false;
        }
    }
    return true;
}

static bool knows_all_shards(const restore *r)
{
    unsigned slot = 0;
    while (slot < MESH_SLOTS && mesh_ring_shard(r->ring, (mesh_slot)slot) < r->n) {
        slot++;
    }
    return slot == MESH_SLOTS;
}

static mesh_err load_ring(restore *r, size_t i, uint64_t *epoch)
{
    ProtobufCMessage *row;
    store_key key;
    store_key_ring(&key);
    mesh_err err = get_row(r, i, &key, &mesh__ring__descriptor, &row);
    if (err != MESH_OK) {
        return err == MESH_NOT_FOUND ? MESH_OK : err;
    }
    mesh_ring *ring = i == 0 ? r->ring : mesh_ring_new(r->conf);
    err = mesh_ring_set(ring, (const Mesh__Ring *)row) == MESH_OK ? MESH_OK : MESH_CORRUPT;
    if (err == MESH_OK && i == 0 && !knows_all_shards(r)) {
        err = refuse(r, MESH_CONFLICT, "the config has fewer shards than its map", r->dir);
    }
    if (err == MESH_OK && i > 0 && !agree(r->ring, ring)) {
        err = refuse(r, MESH_CONFLICT, "slots were moving between shards while it was made; make another one", r->dir);
    }
    *epoch = mesh_ring_epoch(ring) > *epoch ? mesh_ring_epoch(ring) : *epoch;
    if (i > 0) {
        mesh_ring_destroy(&ring);
    }
    return err;
}

/* A slot that moves, or moved between two copies, may be in both or in none: whose it is must be settled, and as the
 * map has it. */
static mesh_err check_slots(restore *r, size_t i)
{
    store_key prefix;
    mesh_err err = MESH_OK;
    store_key_slots(&prefix);
    store_kv_iter *it = store_kv_iter_new(r->shards[i].kv, store_key_slice(&prefix));
    for (store_kv_iter_first(it); err == MESH_OK && store_kv_iter_valid(it); store_kv_iter_next(it)) {
        mesh_slice rest = store_key_rest(store_kv_iter_key(it), &prefix);
        ProtobufCMessage *row;
        if (rest.size != 2 ||
            mesh_wire_unpack(&store__slot_row__descriptor, store_kv_iter_value(it), r->arena, &row) != MESH_OK) {
            err = MESH_CORRUPT;
            break;
        }
        unsigned slot = (unsigned)rest.data[0] << 8 | rest.data[1];
        unsigned state = ((const Store__SlotRow *)row)->state;
        bool mine = slot < MESH_SLOTS && mesh_ring_shard(r->ring, (mesh_slot)slot) == i;
        bool settled =
            state == STORE_SLOT_BY_MAP || (state == STORE_SLOT_HELD && mine) || (state == STORE_SLOT_GONE && !mine);
        if (!settled) {
            err = refuse(r, MESH_CONFLICT, "slots were moving between shards while it was made; make another one",
                         r->dir);
        }
    }
    err = err == MESH_OK ? store_kv_iter_status(it) : err;
    store_kv_iter_destroy(&it);
    return err;
}

/* Open everything. epoch: the highest that any shard knows. */
static mesh_err load(restore *r, uint64_t *epoch)
{
    mesh_err err = MESH_OK;
    *epoch = 0;
    for (size_t i = 0; i < r->n && err == MESH_OK; i++) {
        err = load_shard(r, i);
        err = err == MESH_OK ? load_ring(r, i, epoch) : err;
        err = err == MESH_OK ? check_slots(r, i) : err;
        err = err == MESH_OK ? fences_epoch(r, i, epoch) : err;
        if (err == MESH_CORRUPT && r->why[0] == '\0') {
            snprintf(r->why, r->why_size, "shard %zu: the ring or a fence cannot be read", i);
        }
    }
    return err;
}

/* ---- rows of its own ---- */

static void put_row(restore_shard *shard, const store_key *key, const void *row)
{
    mesh_buf value = { 0 };
    mesh_wire_pack(row, &value);
    store_kv_batch_put(shard->extra, store_key_slice(key), mesh_buf_slice(&value));
    mesh_buf_fini(&value);
}

static void put_ring(restore *r, size_t i, uint64_t epoch)
{
    store_key key;
    if (mesh_ring_epoch(r->ring) > 0) {
        Mesh__Ring *ring = mesh_ring_message(r->ring, r->arena);
        ring->epoch = epoch;
        ring->n_routers = 0;
        store_key_ring(&key);
        put_row(&r->shards[i], &key, ring);
    }
}

static void put_applied(restore_shard *shard)
{
    Store__AppliedRow row = STORE__APPLIED_ROW__INIT;
    store_key key;
    row.index = shard->index;
    row.term = shard->term;
    row.last_id = shard->last_id;
    row.level = shard->level;
    store_key_applied(&key);
    put_row(shard, &key, &row);
}

/* Era, ring, applied index and what founds a group of one. */
static mesh_err put_own(restore *r, size_t i, uint64_t epoch)
{
    restore_shard *shard = &r->shards[i];
    char address[STORE_GROUP_ADDRESS];
    const char *cluster = mesh_conf_str(r->conf, "cluster.name");
    store_consensus_conf founder = { .raft_id = mesh_rand_seed() | 1, .cluster = cluster };
    founder.address = store_group_address(first_store(r, i), founder.raft_id, address);
    put_ring(r, i, epoch);
    put_applied(shard);
    store_consensus_found_put(&founder, shard->index, shard->term, shard->extra);
    return store_salvage_era_row(shard->kv, mesh_rand_seed() | 1, cluster, shard->extra);
}

/* ---- writing ---- */

static mesh_err copy_rows(restore *r, restore_shard *shard, store_kv_incoming *in)
{
    static const uint8_t note[1] = { 'R' }; /* no copy that a store would go on with */
    store_kv_view *view = store_kv_view_new(shard->kv);
    mesh_buf rows = { 0 }, last = { 0 };
    bool end = false;
    mesh_err err = MESH_OK;
    while (err == MESH_OK && !end) {
        mesh_buf_clear(&rows);
        err = store_kv_view_read(view, mesh_buf_slice(&last), READ_BYTES, &rows, &end);
        err =
            err == MESH_OK ? store_kv_incoming_put(in, mesh_buf_slice(&rows), (mesh_slice){ note, sizeof note }) : err;
        mesh_slice rest = mesh_buf_slice(&rows), key = { NULL, 0 }, value;
        while (err == MESH_OK && store_kv_rows_next(&rest, &key, &value) == MESH_OK) {
            r->counts->rows++;
        }
        if (key.size > 0) {
            mesh_buf_clear(&last);
            mesh_buf_put(&last, key.data, key.size);
        }
    }
    store_kv_view_destroy(&view);
    mesh_buf_fini(&rows);
    mesh_buf_fini(&last);
    return err;
}

static mesh_err fill(restore *r, size_t i)
{
    char path[STORE_BACKUP_PATH];
    store_kv_options options = { .write_buffer = 64u << 20, .block_cache = 4u << 20, .max_open_files = 500 };
    store_kv_incoming *in = NULL;
    (void)place_of(r, first_store(r, i), path);
    mesh_err err = store_kv_incoming_discard(path); /* of a try that was cut off */
    err = err == MESH_OK ? store_kv_incoming_open(path, &options, &in, r->why, r->why_size) : err;
    err = err == MESH_OK ? copy_rows(r, &r->shards[i], in) : err;
    if (err == MESH_OK) {
        err = store_kv_incoming_finish(&in, r->shards[i].extra);
    }
    store_kv_incoming_close(&in);
    if (err != MESH_OK) {
        snprintf(r->why, r->why_size, "%s.incoming cannot be written: %s", path, mesh_err_name(err));
    }
    return err;
}

static mesh_err put_in_place(restore *r, size_t i)
{
    char path[STORE_BACKUP_PATH];
    (void)place_of(r, first_store(r, i), path);
    return store_kv_switch(path, r->why, r->why_size);
}

static mesh_err make(restore *r)
{
    uint64_t epoch;
    mesh_err err = load(r, &epoch);
    if (err == MESH_OK) {
        err = restore_mend(r->ring, r->shards, r->n, r->counts);
        if (err != MESH_OK) {
            snprintf(r->why, r->why_size, "the rows cannot be read: %s", mesh_err_name(err));
        }
    }
    for (size_t i = 0; i < r->n && err == MESH_OK; i++) {
        err = put_own(r, i, epoch);
    }
    const char *path = mesh_conf_str(r->conf, "store.path");
    if (err == MESH_OK && mkdir(path, 0700) != 0 && errno != EEXIST) {
        err = refuse(r, MESH_IO, strerror(errno), path);
    }
    for (size_t i = 0; i < r->n && err == MESH_OK; i++) {
        err = fill(r, i);
    }
    for (size_t i = 0; i < r->n && err == MESH_OK; i++) {
        err = put_in_place(r, i);
    }
    return err;
}

static void begin(restore *r, size_t n)
{
    r->n = n;
    r->shards = mesh_alloc(n * sizeof *r->shards);
    r->ring = mesh_ring_new(r->conf);
    r->arena = mesh_arena_new();
    r->why[0] = '\0';
}

static void end(restore *r)
{
    for (size_t i = 0; i < r->n; i++) {
        store_kv_batch_destroy(&r->shards[i].extra);
        if (r->shards[i].kv != NULL) {
            store_kv_close(&r->shards[i].kv);
        }
    }
    mesh_arena_destroy(&r->arena);
    mesh_ring_destroy(&r->ring);
    free(r->shards);
}

mesh_err store_restore_fits(const mesh_conf *conf, const char *dir, char *why, size_t why_size)
{
    uint64_t epoch;
    restore r = { .conf = conf, .dir = dir, .why = why, .why_size = why_size };
    begin(&r, mesh_conf_shards(conf));
    mesh_err err = load(&r, &epoch);
    end(&r);
    return err;
}

mesh_err store_restore_run(const mesh_conf *conf, const char *dir, store_restore_counts *counts, char *why,
                           size_t why_size)
{
    store_backup *backup = NULL;
    restore r = { .conf = conf, .dir = dir, .counts = counts, .why = why, .why_size = why_size };
    *counts = (store_restore_counts){ 0 };
    why[0] = '\0';
    mesh_err err = store_backup_load(dir, &backup, why, why_size);
    err = err == MESH_OK ? check_manifest(&r, backup) : err;
    err = err == MESH_OK ? check_places(&r) : err;
    err = err == MESH_OK ? store_backup_check(backup, dir, why, why_size) : err;
    if (err == MESH_OK) {
        begin(&r, backup->n_shards);
        err = make(&r);
        end(&r);
    }
    store_backup_destroy(&backup);
    return err;
}
