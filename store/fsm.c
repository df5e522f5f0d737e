/* The happy path: store_fsm_apply opens the frame, gives each message to its handler, which reads through rows, chats
 * and users and writes into rows' batch; at the end the outbox row and the applied row join it and it is queued. Nobody
 * waits for it to be on disk, so a crash may lose it: then the log, which was synced before, brings the entry again,
 * and the rows are as before it. */
#include "store/fsm.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mesh/alloc.h"
#include "mesh/log.h"
#include "store/core.h"
#include "store/group.h"
#include "store/metrics.h"

/* ---- loading ---- */

/* A single row. Returns MESH_NOT_FOUND when there is none; row_p is untouched then. */
static mesh_err load_row(store_fsm *fsm, const store_key *key, const ProtobufCMessageDescriptor *desc,
                         ProtobufCMessage **row_p)
{
    mesh_err err = store_kv_get(fsm->kv, store_key_slice(key), &fsm->scratch);
    if (err == MESH_OK && mesh_wire_unpack(desc, mesh_buf_slice(&fsm->scratch), fsm->arena, row_p) != MESH_OK) {
        err = MESH_CORRUPT;
    }
    return err;
}

/* A version that does not know all that was applied would write rows without what it does not know. */
static mesh_err load_applied(store_fsm *fsm, char *why, size_t why_size)
{
    store_key key;
    store_key_applied(&key);
    ProtobufCMessage *row;
    mesh_err err = load_row(fsm, &key, &store__applied_row__descriptor, &row);
    if (err == MESH_OK) {
        const Store__AppliedRow *applied = (const Store__AppliedRow *)row;
        fsm->applied = applied->index;
        fsm->term = applied->term;
        fsm->last_id = applied->last_id;
        fsm->level = applied->level;
    }
    if (fsm->level > STORE_GROUP_LEVEL) {
        snprintf(why, why_size,
                 "a later version wrote its log (level %u, this one knows up to %u); downgrade is not possible",
                 (unsigned)fsm->level, (unsigned)STORE_GROUP_LEVEL);
        return MESH_UNSUPPORTED;
    }
    return err == MESH_NOT_FOUND ? MESH_OK : err;
}

static mesh_err load_shard(store_fsm *fsm, char *why, size_t why_size)
{
    store_key key;
    store_key_shard(&key);
    ProtobufCMessage *row;
    mesh_err err = load_row(fsm, &key, &store__shard_row__descriptor, &row);
    if (err != MESH_OK) {
        return err == MESH_NOT_FOUND ? MESH_OK : err;
    }
    const Store__ShardRow *shard = (const Store__ShardRow *)row;
    const char *cluster = mesh_conf_str(fsm->conf, "cluster.name");
    if (strcmp(shard->cluster, cluster) != 0) {
        snprintf(why, why_size, "the data belongs to cluster \"%s\", not \"%s\"", shard->cluster, cluster);
        return MESH_CONFLICT;
    }
    fsm->era = shard->era;
    return MESH_OK;
}

static mesh_err load_ring(store_fsm *fsm)
{
    store_key key;
    store_key_ring(&key);
    ProtobufCMessage *message;
    mesh_err err = load_row(fsm, &key, &mesh__ring__descriptor, &message);
    if (err != MESH_OK) {
        return err == MESH_NOT_FOUND ? MESH_OK : err;
    }
    return mesh_ring_set(fsm->ring, (const Mesh__Ring *)message) == MESH_OK ? MESH_OK : MESH_CORRUPT;
}

static mesh_err load_fences(store_fsm *fsm)
{
    store_key prefix;
    store_key_fences(&prefix);
    store_kv_iter *it = store_kv_iter_new(fsm->kv, store_key_slice(&prefix));
    mesh_err err = MESH_OK;
    for (store_kv_iter_first(it); err == MESH_OK && store_kv_iter_valid(it); store_kv_iter_next(it)) {
        mesh_slice slot = store_key_rest(store_kv_iter_key(it), &prefix);
        mesh_slice value = store_kv_iter_value(it);
        unsigned n = slot.size == 2 ? (unsigned)slot.data[0] << 8 | slot.data[1] : MESH_SLOTS;
        if (n >= MESH_SLOTS || value.size != 8) {
            err = MESH_CORRUPT;
        } else {
            fsm->fences[n] = mesh_get_u64be(value.data);
            fsm->fence_max = fsm->fences[n] > fsm->fence_max ? fsm->fences[n] : fsm->fence_max;
        }
    }
    if (err == MESH_OK) {
        err = store_kv_iter_status(it);
    }
    store_kv_iter_destroy(&it);
    return err;
}

mesh_err store_fsm_new(const mesh_conf *conf, uint32_t shard, store_kv *kv, mesh_stats *stats, store_fsm **fsm_p,
                       char *why, size_t why_size)
{
    store_fsm *fsm = mesh_alloc(sizeof *fsm);
    fsm->conf = conf;
    fsm->hash_key = mesh_conf_hash_key(conf);
    fsm->kv = kv;
    fsm->stats = stats;
    fsm->shard = shard;
    fsm->durable = "disk";
    fsm->rows = store_rows_new(kv, fsm->hash_key, STORE_ROWS_HOT);
    fsm->chats = store_chats_new(kv, fsm->hash_key);
    fsm->users = store_users_new(kv, fsm->hash_key);
    fsm->ring = mesh_ring_new(conf);
    fsm->slots = mesh_alloc(MESH_SLOTS * sizeof *fsm->slots);
    fsm->sharded = mesh_conf_shards(conf) > 1;
    fsm->arena = mesh_arena_new();
    fsm->owed = mesh_alloc(STORE_ENTRY_OWED * sizeof *fsm->owed);

    snprintf(why, why_size, "a row of the shard does not read back");
    mesh_err err = load_shard(fsm, why, why_size);
    if (err == MESH_OK) {
        err = load_applied(fsm, why, why_size);
    }
    if (err == MESH_OK) {
        err = load_ring(fsm);
    }
    if (err == MESH_OK) {
        err = load_fences(fsm);
    }
    if (err == MESH_OK) {
        err = store_slot_load(fsm);
    }
    if (err != MESH_OK) {
        store_fsm_destroy(&fsm);
        return err;
    }
    *fsm_p = fsm;
    return MESH_OK;
}

void store_fsm_destroy(store_fsm **fsm_p)
{
    store_fsm *fsm = *fsm_p;
    if (fsm == NULL) {
        return;
    }
    store_rows_destroy(&fsm->rows);
    store_chats_destroy(&fsm->chats);
    store_users_destroy(&fsm->users);
    mesh_ring_destroy(&fsm->ring);
    mesh_arena_destroy(&fsm->arena);
    mesh_buf_fini(&fsm->scratch);
    for (size_t i = 0; i < MESH_SLOTS; i++) {
        mesh_buf_fini(&fsm->slots[i].after);
    }
    free(fsm->slots);
    free(fsm->moved);
    free(fsm->owed);
    free(fsm);
    *fsm_p = NULL;
}

void store_fsm_evict(store_fsm *fsm)
{
    store_chats_evict(fsm->chats);
    store_users_evict(fsm->users);
}

/* ---- applying ---- */

static store_fsm_handler *handler_of(Mesh__Msg__BodyCase kind)
{
    switch (kind) {
    case MESH__MSG__BODY_SEND:
        return store_apply_send;
    case MESH__MSG__BODY_CHAT_CREATE:
        return store_apply_chat_create;
    case MESH__MSG__BODY_CHAT_EDIT:
        return store_apply_chat_edit;
    case MESH__MSG__BODY_READ:
        return store_apply_read;
    case MESH__MSG__BODY_APPEND:
        return store_apply_append;
    case MESH__MSG__BODY_ATTACH:
        return store_apply_attach;
    case MESH__MSG__BODY_ATTACH_ONCE:
        return store_apply_attach_once;
    case MESH__MSG__BODY_INBOX_ACK:
        return store_apply_inbox_ack;
    case MESH__MSG__BODY_PROFILE:
        return store_apply_profile;
    case MESH__MSG__BODY_GENESIS:
        return store_apply_genesis;
    case MESH__MSG__BODY_RING_SET:
        return store_apply_ring_set;
    case MESH__MSG__BODY_RING:
        return store_apply_ring;
    case MESH__MSG__BODY_OUTBOX_DONE:
        return store_apply_outbox_done;
    case MESH__MSG__BODY_SLOT_MOVE:
        return store_apply_slot_move;
    case MESH__MSG__BODY_SLOT_ROWS:
        return store_apply_slot_rows;
    case MESH__MSG__BODY_MAP_SET:
        return store_apply_map_set;
    case MESH__MSG__BODY_SLOT_GONE:
        return store_apply_slot_gone;
    case MESH__MSG__BODY_SLOT_OWED:
        return store_apply_slot_owed;
    default:
        return NULL;
    }
}

/* The level (store/group.h) from which on a version knows this kind; 0: all do. */
static uint32_t level_of(Mesh__Msg__BodyCase kind)
{
    return kind == MESH__MSG__BODY_ATTACH_ONCE ? STORE_GROUP_LEVEL_ATTACH_ONCE : 0;
}

/* Is its key's slot to be this shard's? An append has users of several slots: each is looked at. */
static bool is_keyed(Mesh__Msg__BodyCase kind)
{
    switch (kind) {
    case MESH__MSG__BODY_SEND:
    case MESH__MSG__BODY_CHAT_CREATE:
    case MESH__MSG__BODY_CHAT_EDIT:
    case MESH__MSG__BODY_READ:
    case MESH__MSG__BODY_ATTACH:
    case MESH__MSG__BODY_ATTACH_ONCE:
    case MESH__MSG__BODY_INBOX_ACK:
    case MESH__MSG__BODY_PROFILE:
        return true;
    default:
        return false;
    }
}

static void write_outbox_row(store_fsm *fsm, uint64_t index)
{
    if (fsm->n_owed == 0) {
        return;
    }
    Store__OutboxItem *items = mesh_arena_alloc(fsm->arena, fsm->n_owed * sizeof *items);
    Store__OutboxItem **list = mesh_arena_alloc(fsm->arena, fsm->n_owed * sizeof *list);
    for (size_t i = 0; i < fsm->n_owed; i++) {
        store__outbox_item__init(&items[i]);
        items[i].chat = fsm->owed[i].entry->chat;
        items[i].seq = fsm->owed[i].entry->seq;
        list[i] = &items[i];
    }
    Store__OutboxRow row = STORE__OUTBOX_ROW__INIT;
    row.n_items = fsm->n_owed;
    row.items = list;
    store_key key;
    store_key_outbox(&key, index);
    store_rows_pack(fsm->rows, &key, &row, STORE_ROW_ONLY);
}

static void write_applied_row(store_fsm *fsm)
{
    Store__AppliedRow row = STORE__APPLIED_ROW__INIT;
    row.index = fsm->applied;
    row.term = fsm->term;
    row.last_id = fsm->last_id;
    row.level = fsm->level;
    store_key key;
    store_key_applied(&key);
    store_rows_pack(fsm->rows, &key, &row, STORE_ROW_ONLY);
}

/* Every message of the frame to its handler. */
static mesh_err apply_frame(store_fsm *fsm, mesh_slice frame, store_fsm_answered *answered, void *arg)
{
    mesh_frame_reader reader;
    mesh_err err = mesh_frame_open(&reader, frame);
    for (size_t at = 0; err == MESH_OK; at++) {
        Mesh__Msg *msg;
        err = mesh_frame_next(&reader, fsm->arena, &msg, NULL);
        if (err != MESH_OK) {
            break;
        }
        store_fsm_handler *handler = handler_of(msg->body_case);
        Mesh__Msg answer = MESH__MSG__INIT;
        if (at >= STORE_ENTRY_OPS) {
            return MESH_CORRUPT;
        }
        if (handler == NULL) { /* replicas that know it do something with it: to skip it would be to differ */
            mesh_log(MESH_ERROR, "entry_unknown", "kind=%d reason=%s next=%s", (int)msg->body_case,
                     "an entry of the log is of a kind this version does not know; a later version wrote it",
                     "downgrade is not possible: run that version, or restore a backup");
            return MESH_UNSUPPORTED;
        }
        uint32_t level = level_of(msg->body_case);
        fsm->level = level > fsm->level ? level : fsm->level;
        fsm->slot = mesh_id_slot(fsm->hash_key, msg->key);
        if (is_keyed(msg->body_case) && !store_fsm_owns(fsm, fsm->slot)) {
            store_fsm_elsewhere(fsm->arena, &answer);
        } else {
            fsm->trace = msg->trace;
            handler(fsm, msg, &answer);
        }
        if (fsm->error != MESH_OK) {
            return fsm->error;
        }
        mesh_stats_add(fsm->stats, STORE_M_OPS, 1);
        answered(arg, at, msg, &answer);
    }
    return err == MESH_AGAIN ? MESH_OK : MESH_CORRUPT;
}

mesh_err store_fsm_apply(store_fsm *fsm, uint64_t index, uint64_t term, mesh_slice payload,
                         store_fsm_answered *answered, void *arg)
{
    if (fsm->error != MESH_OK) {
        return fsm->error;
    }
    mesh_arena_reset(fsm->arena);
    fsm->n_owed = 0;
    fsm->ring_changed = false;
    fsm->slots_changed = false;
    fsm->n_moved = 0;
    fsm->took_owed = false;
    if (index <= fsm->applied) {
        return MESH_OK;
    }
    if (payload.size <= STORE_STAMP_SIZE) {
        return fsm->error = MESH_CORRUPT;
    }
    fsm->stamp = (uint64_t)mesh_get_u32le(payload.data + 4) << 32 | mesh_get_u32le(payload.data);
    mesh_slice frame = { payload.data + STORE_STAMP_SIZE, payload.size - STORE_STAMP_SIZE };
    mesh_err err = apply_frame(fsm, frame, answered, arg);
    if (err == MESH_OK) {
        store_apply_inboxes(fsm);
        err = fsm->error;
    }
    if (err != MESH_OK) {
        return fsm->error = err;
    }
    fsm->applied = index;
    fsm->term = term;
    write_outbox_row(fsm, index);
    store_slot_settle(fsm);
    if (fsm->error != MESH_OK) {
        return fsm->error;
    }
    write_applied_row(fsm);
    fsm->ticket = store_rows_commit(fsm->rows);
    store_slot_forget(fsm);
    store_fsm_evict(fsm);
    mesh_stats_add(fsm->stats, STORE_M_ENTRIES, 1);
    return MESH_OK;
}

/* ---- whose slot ---- */

bool store_fsm_owns(const store_fsm *fsm, mesh_slot slot)
{
    switch (fsm->slots[slot].state) {
    case STORE_SLOT_HELD:
        return true;
    case STORE_SLOT_BY_MAP:
        return !fsm->sharded || mesh_ring_shard(fsm->ring, slot) == fsm->shard;
    default:
        return false;
    }
}

bool store_fsm_owns_id(const store_fsm *fsm, const char *qid)
{
    return store_fsm_owns(fsm, mesh_id_slot(fsm->hash_key, qid));
}

uint64_t store_fsm_era(const store_fsm *fsm, mesh_slot slot)
{
    return fsm->eras[slot] != 0 ? fsm->eras[slot] : fsm->era;
}
