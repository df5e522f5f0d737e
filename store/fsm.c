/* The happy path: store_fsm_apply opens the frame, gives each message to its handler, which reads through rows, chats
 * and users and writes into rows' batch; at the end the outbox row and the applied row join it and it is queued. Nobody
 * waits for it to be on disk, so a crash may lose it: then the log, which was synced before, brings the entry again,
 * and the rows are as before it. */
#include "store/fsm.h"

#include <assert.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mesh/alloc.h"
#include "store/core.h"
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

static mesh_err load_applied(store_fsm *fsm)
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
    fsm->arena = mesh_arena_new();
    fsm->owed = mesh_alloc(STORE_ENTRY_OPS * sizeof *fsm->owed);

    snprintf(why, why_size, "a row of the shard does not read back");
    mesh_err err = load_shard(fsm, why, why_size);
    if (err == MESH_OK) {
        err = load_applied(fsm);
    }
    if (err == MESH_OK) {
        err = load_ring(fsm);
    }
    if (err == MESH_OK) {
        err = load_fences(fsm);
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
    case MESH__MSG__BODY_INBOX_ACK:
        return store_apply_inbox_ack;
    case MESH__MSG__BODY_PROFILE:
        return store_apply_profile;
    case MESH__MSG__BODY_GENESIS:
        return store_apply_genesis;
    case MESH__MSG__BODY_RING_SET:
        return store_apply_ring_set;
    case MESH__MSG__BODY_OUTBOX_DONE:
        return store_apply_outbox_done;
    default:
        return NULL;
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
        if (handler != NULL) {
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
    write_applied_row(fsm);
    fsm->ticket = store_rows_commit(fsm->rows);
    store_fsm_evict(fsm);
    mesh_stats_add(fsm->stats, STORE_M_ENTRIES, 1);
    return MESH_OK;
}

/* ---- for handlers ---- */

void store_fsm_fault(mesh_arena *arena, Mesh__Msg *answer, mesh_fault code)
{
    Mesh__Fault *fault = mesh_arena_alloc(arena, sizeof *fault);
    mesh__fault__init(fault);
    fault->code = (uint32_t)code;
    fault->after_ms = mesh_fault_get(fault->code)->after_ms;
    answer->body_case = MESH__MSG__BODY_FAULT;
    answer->fault = fault;
}

void store_fsm_broken(store_fsm *fsm, mesh_arena *arena, Mesh__Msg *answer)
{
    fsm->error = MESH_CORRUPT;
    store_fsm_fault(arena, answer, FAULT_UNAVAILABLE);
}

void store_fsm_done(mesh_arena *arena, Mesh__Msg *answer)
{
    answer->done = mesh_arena_alloc(arena, sizeof *answer->done);
    mesh__done__init(answer->done);
    answer->body_case = MESH__MSG__BODY_DONE;
}

mesh_fault store_fsm_room(store_fsm *fsm, const char *const *users, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        store_user *user;
        if (store_users_get(fsm->users, users[i], &user) != MESH_OK) {
            fsm->error = MESH_CORRUPT;
            return FAULT_UNAVAILABLE;
        }
        if (user->chats >= STORE_USER_CHATS_MAX) {
            return FAULT_TOO_MANY_CHATS;
        }
    }
    return FAULT_NONE;
}

uint64_t store_fsm_hash(store_fsm *fsm, Mesh__Msg__BodyCase kind, const void *request)
{
    mesh_buf_clear(&fsm->scratch);
    mesh_buf_put(&fsm->scratch, (uint8_t[1]){ (uint8_t)kind }, 1);
    mesh_wire_pack(request, &fsm->scratch);
    uint64_t hash;
    unsigned char bytes[crypto_shorthash_siphash24_BYTES];
    crypto_shorthash_siphash24(bytes, fsm->scratch.data, fsm->scratch.size, fsm->hash_key->bytes);
    memcpy(&hash, bytes, sizeof hash);
    return hash;
}

bool store_fsm_seen(store_fsm *fsm, const char *chat, const char *user, const char *client_msg_id, uint64_t hash,
                    Mesh__Msg *answer)
{
    store_key key;
    mesh_slice value;
    ProtobufCMessage *row;
    store_key_dedupe(&key, chat, user, client_msg_id);
    mesh_err err = store_rows_get(fsm->rows, &key, false, &value);
    if (err == MESH_NOT_FOUND) {
        return false;
    }
    if (err != MESH_OK || mesh_wire_unpack(&store__dedupe_row__descriptor, value, fsm->arena, &row) != MESH_OK) {
        store_fsm_broken(fsm, fsm->arena, answer);
        return true;
    }
    const Store__DedupeRow *old = (const Store__DedupeRow *)row;
    Mesh__Entry *entry;
    if (old->hash != hash) {
        mesh_stats_add(fsm->stats, STORE_M_CONFLICTS, 1);
        store_fsm_fault(fsm->arena, answer, FAULT_CONFLICT);
    } else if (store_fsm_entry(fsm, fsm->arena, chat, old->seq, &entry) != MESH_OK) {
        store_fsm_broken(fsm, fsm->arena, answer);
    } else {
        store_fsm_sent(fsm, entry, client_msg_id, true, answer);
    }
    return true;
}

void store_fsm_remember(store_fsm *fsm, const char *chat, const char *user, const char *client_msg_id, uint64_t hash,
                        uint64_t seq)
{
    Store__DedupeRow row = STORE__DEDUPE_ROW__INIT;
    row.seq = seq;
    row.hash = hash;
    store_key key;
    store_key_dedupe(&key, chat, user, client_msg_id);
    store_rows_pack(fsm->rows, &key, &row, STORE_ROW_ENTRY);
}

mesh_err store_fsm_entry(store_fsm *fsm, mesh_arena *arena, const char *chat, uint64_t seq, Mesh__Entry **entry_p)
{
    store_key key;
    mesh_slice value;
    ProtobufCMessage *message;
    store_key_entry(&key, chat, seq);
    mesh_err err = store_rows_get(fsm->rows, &key, false, &value);
    if (err != MESH_OK) {
        return err;
    }
    if (mesh_wire_unpack(&mesh__entry__descriptor, value, arena, &message) != MESH_OK) {
        return MESH_CORRUPT;
    }
    *entry_p = (Mesh__Entry *)message;
    (*entry_p)->chat = mesh_arena_strdup(arena, chat);
    return MESH_OK;
}

/* Protobuf's structs hold char *, but nothing is ever written through them. */
static char *borrowed(const char *s)
{
    return (char *)(uintptr_t)s;
}

Mesh__Entry *store_fsm_entry_new(store_fsm *fsm, Mesh__EntryKind kind, const char *sender, const char *sender_name,
                                 const char *client_msg_id)
{
    Mesh__Entry *entry = mesh_arena_alloc(fsm->arena, sizeof *entry);
    mesh__entry__init(entry);
    entry->kind = kind;
    entry->sender = borrowed(sender);
    entry->sender_name = borrowed(sender_name);
    entry->client_msg_id = borrowed(client_msg_id);
    return entry;
}

void store_fsm_store(store_fsm *fsm, store_chat *chat, Mesh__Entry *entry)
{
    static char none[] = "";
    uint64_t id = fsm->stamp << 22 | (uint64_t)(fsm->shard & 1023) << 12;
    fsm->last_id = id > fsm->last_id ? id : fsm->last_id + 1;
    entry->seq = ++chat->head_seq;
    entry->id = fsm->last_id;
    entry->ts_ms = fsm->stamp;
    entry->count = chat->head_count + (entry->kind == MESH__ENTRY_KIND__ENTRY_TEXT ? 1 : 0);
    chat->head_count = entry->count;
    chat->head_id = entry->id;
    chat->head_ts = entry->ts_ms;

    store_key key;
    store_key_entry(&key, chat->id, entry->seq);
    entry->chat = none; /* it is in the key */
    store_rows_pack(fsm->rows, &key, entry, STORE_ROW_ENTRY);
    entry->chat = mesh_arena_strdup(fsm->arena, chat->id);
    assert(fsm->n_owed < STORE_ENTRY_OPS);
    fsm->owed[fsm->n_owed++] = (store_owed){ entry, NULL };
    mesh_stats_add(fsm->stats, STORE_M_MESSAGES, 1);
}

void store_fsm_sent(store_fsm *fsm, const Mesh__Entry *entry, const char *client_msg_id, bool dup, Mesh__Msg *answer)
{
    Mesh__Sent *sent = mesh_arena_alloc(fsm->arena, sizeof *sent);
    mesh__sent__init(sent);
    sent->chat = entry->chat;
    sent->seq = entry->seq;
    sent->id = entry->id;
    sent->ts_ms = entry->ts_ms;
    sent->dup = dup;
    sent->durable = borrowed(fsm->durable);
    sent->client_msg_id = borrowed(client_msg_id);
    answer->body_case = MESH__MSG__BODY_SENT;
    answer->sent = sent;
    if (dup) {
        mesh_stats_add(fsm->stats, STORE_M_DUPS, 1);
    }
}
