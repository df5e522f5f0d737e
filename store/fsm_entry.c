/* What the handlers of a log entry's messages need of each other: answers, dedupe keys, stored entries. */
#include <assert.h>
#include <inttypes.h>
#include <sodium.h>
#include <string.h>

#include "mesh/log.h"
#include "store/core.h"
#include "store/fsm.h"
#include "store/metrics.h"

/* ---- answers ---- */

void store_fsm_fault(mesh_arena *arena, Mesh__Msg *answer, mesh_fault code)
{
    Mesh__Fault *fault = mesh_arena_alloc(arena, sizeof *fault);
    mesh__fault__init(fault);
    fault->code = (uint32_t)code;
    fault->after_ms = mesh_fault_get(fault->code)->after_ms;
    answer->body_case = MESH__MSG__BODY_FAULT;
    answer->fault = fault;
}

void store_fsm_elsewhere(mesh_arena *arena, Mesh__Msg *answer)
{
    store_fsm_fault(arena, answer, FAULT_UNAVAILABLE);
    answer->fault->after_ms = STORE_SLOT_AGAIN_MS;
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
        if (!store_fsm_owns_id(fsm, users[i])) {
            continue; /* another shard knows */
        }
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

/* ---- requests that come twice ---- */

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
    store_key_dedupe(&key, fsm->slot, chat, user, client_msg_id);
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
        return true;
    }
    err = store_fsm_entry(fsm, fsm->arena, fsm->slot, chat, old->seq, &entry);
    if (err == MESH_OK) {
        store_fsm_sent(fsm, entry, client_msg_id, true, answer);
    } else {
        store_fsm_missing(fsm, err, chat, old->seq, answer);
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
    store_key_dedupe(&key, fsm->slot, chat, user, client_msg_id);
    store_rows_pack(fsm->rows, &key, &row, STORE_ROW_ENTRY);
}

/* ---- entries ---- */

/* LevelDB says of a key whose file is gone that there is none; an iterator says what is wrong. */
static mesh_err confirm_absent(store_fsm *fsm, const store_key *key)
{
    store_kv_iter *it = store_kv_iter_new(fsm->kv, store_key_slice(key));
    store_kv_iter_first(it);
    mesh_err err = store_kv_iter_status(it) != MESH_OK || store_kv_iter_valid(it) ? MESH_CORRUPT : MESH_NOT_FOUND;
    store_kv_iter_destroy(&it);
    return err;
}

void store_fsm_absent(store_fsm *fsm, const char *chat, uint64_t seq)
{
    mesh_stats_add(fsm->stats, STORE_M_ABSENT, 1);
    if (!fsm->said_absent) {
        fsm->said_absent = true;
        mesh_log(MESH_ERROR, "entry_absent", "shard=%u chat=%s seq=%" PRIu64 " reason=%s next=%s", fsm->shard, chat,
                 seq, "a row refers to an entry that is not there, and every replica has the same rows",
                 "what is asked for goes on without it; said once, parley_store_absent_rows_total counts");
    }
}

void store_fsm_missing(store_fsm *fsm, mesh_err err, const char *chat, uint64_t seq, Mesh__Msg *answer)
{
    if (err == MESH_NOT_FOUND) {
        store_fsm_absent(fsm, chat, seq);
        store_fsm_fault(fsm->arena, answer, FAULT_UNAVAILABLE);
    } else {
        store_fsm_broken(fsm, fsm->arena, answer);
    }
}

static mesh_err find_entry(store_fsm *fsm, mesh_arena *arena, mesh_slot slot, const char *chat, uint64_t seq,
                           Mesh__Entry **entry_p)
{
    store_key key;
    mesh_slice value;
    ProtobufCMessage *message;
    store_key_entry(&key, slot, chat, seq);
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

mesh_err store_fsm_entry(store_fsm *fsm, mesh_arena *arena, mesh_slot slot, const char *chat, uint64_t seq,
                         Mesh__Entry **entry_p)
{
    mesh_err err = find_entry(fsm, arena, slot, chat, seq, entry_p);
    if (err == MESH_NOT_FOUND) {
        store_key key;
        store_key_entry(&key, slot, chat, seq);
        err = confirm_absent(fsm, &key);
    }
    return err;
}

mesh_err store_fsm_long_entry(store_fsm *fsm, mesh_arena *arena, const char *chat, uint64_t seq, Mesh__Entry **entry_p)
{
    mesh_slot slot = mesh_id_slot(fsm->hash_key, chat);
    ProtobufCMessage *message;
    store_key key;
    mesh_err err = find_entry(fsm, arena, slot, chat, seq, entry_p);
    if (err != MESH_NOT_FOUND) {
        return err;
    }
    store_key_copied(&key, slot, chat, seq);
    err = store_kv_get(fsm->kv, store_key_slice(&key), &fsm->scratch);
    if (err == MESH_OK &&
        mesh_wire_unpack(&mesh__entry__descriptor, mesh_buf_slice(&fsm->scratch), arena, &message) != MESH_OK) {
        err = MESH_CORRUPT;
    }
    if (err == MESH_OK) {
        *entry_p = (Mesh__Entry *)message;
        (*entry_p)->chat = mesh_arena_strdup(arena, chat);
    } else if (err == MESH_NOT_FOUND) {
        err = confirm_absent(fsm, &key);
        store_key_entry(&key, slot, chat, seq);
        err = err == MESH_NOT_FOUND ? confirm_absent(fsm, &key) : err;
    }
    return err;
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
    store_key_entry(&key, chat->slot, chat->id, entry->seq);
    entry->chat = none; /* it is in the key */
    store_rows_pack(fsm->rows, &key, entry, STORE_ROW_ENTRY);
    entry->chat = mesh_arena_strdup(fsm->arena, chat->id);
    assert(fsm->n_owed < STORE_ENTRY_OWED);
    fsm->owed[fsm->n_owed++] = (store_owed){ entry, fsm->trace, NULL };
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
