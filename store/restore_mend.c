/* store/restore_mend.c: two walks over each shard: the inbox positions of its users against the chats of other shards,
 * and the members of its chats against the inboxes of other shards. */
#include "store/restore_mend.h"

#include <stdlib.h>
#include <string.h>

#include "mesh/alloc.h"
#include "mesh/wire.h"
#include "store.pb-c.h"
#include "store/core.h"
#include "store/key.h"

#define OWED_ROW (STORE_OUTBOX_WINDOW / 4) /* items in one outbox row */
#define TABLE_POSITIONS 'u'
#define TABLE_MEMBERS 'p'
#define KEY_HEAD STORE_KEY_SLOT /* bytes of a key before its first id */

typedef struct mender {
    const mesh_ring *ring;
    restore_shard *shards;
    size_t n, at; /* at: the shard that is walked */
    store_restore_counts *counts;
    mesh_arena *arena; /* of one row */
    mesh_buf value, key;
    /* the user whose positions come */
    mesh_buf user;
    uint64_t left; /* chats that are not in the list any more */
    /* the chat whose members come */
    mesh_buf chat;
    uint64_t head, *ends;
    size_t n_ends, cap_ends;
    /* what is owed and in no row yet */
    mesh_arena *owed_arena;
    Store__OutboxItem *owed[OWED_ROW];
    size_t n_owed;
} mender;

/* ---- rows ---- */

static mesh_err get_row(mender *m, const restore_shard *shard, const store_key *key,
                        const ProtobufCMessageDescriptor *desc, ProtobufCMessage **row_p)
{
    mesh_err err = store_kv_get(shard->kv, store_key_slice(key), &m->value);
    if (err != MESH_OK) {
        return err;
    }
    return mesh_wire_unpack(desc, mesh_buf_slice(&m->value), m->arena, row_p) == MESH_OK ? MESH_OK : MESH_CORRUPT;
}

static void put_row(restore_shard *shard, const store_key *key, const void *row)
{
    mesh_buf value = { 0 };
    mesh_wire_pack(row, &value);
    store_kv_batch_put(shard->extra, store_key_slice(key), mesh_buf_slice(&value));
    mesh_buf_fini(&value);
}

/* The chat's last entry. Errors: MESH_NOT_FOUND there is none. */
static mesh_err last_entry(mender *m, const restore_shard *shard, const char *chat, uint64_t *seq_p, uint64_t *count_p)
{
    store_key prefix;
    store_key_entries(&prefix, mesh_ring_slot(m->ring, chat), chat);
    store_kv_iter *it = store_kv_iter_new(shard->kv, store_key_slice(&prefix));
    store_kv_iter_last(it);
    mesh_err err = store_kv_iter_valid(it) ? MESH_OK : store_kv_iter_status(it);
    if (err == MESH_OK && !store_kv_iter_valid(it)) {
        err = MESH_NOT_FOUND;
    }
    ProtobufCMessage *entry;
    if (err == MESH_OK &&
        mesh_wire_unpack(&mesh__entry__descriptor, store_kv_iter_value(it), m->arena, &entry) != MESH_OK) {
        err = MESH_CORRUPT;
    }
    if (err == MESH_OK) {
        *seq_p = store_key_number(store_kv_iter_key(it));
        *count_p = ((const Mesh__Entry *)entry)->count;
    }
    store_kv_iter_destroy(&it);
    return err;
}

/* The last seq up to head that is in a span, 0 if none. */
static uint64_t end_of(const Store__MemberRow *member, uint64_t head)
{
    for (size_t i = member->n_spans; i-- > 0;) {
        const Store__Span *span = member->spans[i];
        uint64_t end = span->to != 0 && span->to < head ? span->to : head;
        if (end >= span->from) {
            return end;
        }
    }
    return 0;
}

typedef mesh_err row_fn(mender *m, const char *id, const char *second, const ProtobufCMessage *row);

/* Rows with two ids in their key, in order. */
static mesh_err each_row(mender *m, char table, const ProtobufCMessageDescriptor *desc, row_fn *fn)
{
    mesh_err err = MESH_OK;
    store_kv_iter *it = store_kv_iter_new(m->shards[m->at].kv, (mesh_slice){ (const uint8_t *)&table, 1 });
    for (store_kv_iter_first(it); err == MESH_OK && store_kv_iter_valid(it); store_kv_iter_next(it)) {
        mesh_slice key = store_kv_iter_key(it);
        ProtobufCMessage *row;
        mesh_buf_clear(&m->key);
        mesh_buf_put(&m->key, key.data, key.size);
        mesh_buf_put(&m->key, "", 1);
        const char *id = (const char *)m->key.data + KEY_HEAD;
        size_t size = key.size > KEY_HEAD ? strlen(id) : 0;
        mesh_arena_reset(m->arena);
        if (size == 0 || KEY_HEAD + size + 1 >= key.size ||
            mesh_wire_unpack(desc, store_kv_iter_value(it), m->arena, &row) != MESH_OK) {
            err = MESH_CORRUPT;
        } else if (mesh_ring_shard_of(m->ring, id) == m->at) { /* others are on their way, here or away */
            err = fn(m, id, id + size + 1, row);
        }
    }
    err = err == MESH_OK ? store_kv_iter_status(it) : err;
    store_kv_iter_destroy(&it);
    return err;
}

static bool is_now(const mesh_buf *now, const char *id)
{
    return now->size > 0 && strcmp((const char *)now->data, id) == 0;
}

static void set_now(mesh_buf *now, const char *id)
{
    mesh_buf_clear(now);
    mesh_buf_put(now, id, strlen(id) + 1);
}

/* ---- positions that are ahead of their chats ---- */

static mesh_err end_user(mender *m)
{
    restore_shard *shard = &m->shards[m->at];
    ProtobufCMessage *message;
    store_key key;
    if (m->left == 0) {
        return MESH_OK;
    }
    store_key_user(&key, mesh_ring_slot(m->ring, (const char *)m->user.data), (const char *)m->user.data);
    mesh_err err = get_row(m, shard, &key, &store__user_row__descriptor, &message);
    if (err == MESH_OK) {
        Store__UserRow *row = (Store__UserRow *)message;
        row->chats -= m->left < row->chats ? m->left : row->chats;
        put_row(shard, &key, row);
    }
    m->counts->left += m->left;
    m->left = 0;
    return err == MESH_NOT_FOUND ? MESH_OK : err;
}

/* How far the chat is for this user: 0: not at all. */
static mesh_err end_for(mender *m, const char *chat, const char *user, uint64_t *end_p, uint64_t *count_p)
{
    const restore_shard *shard = &m->shards[mesh_ring_shard_of(m->ring, chat)];
    ProtobufCMessage *member;
    store_key key;
    uint64_t head = 0;
    *end_p = 0;
    *count_p = 0;
    store_key_member(&key, mesh_ring_slot(m->ring, chat), chat, user);
    mesh_err err = get_row(m, shard, &key, &store__member_row__descriptor, &member);
    err = err == MESH_OK ? last_entry(m, shard, chat, &head, count_p) : err;
    if (err == MESH_OK) {
        *end_p = end_of((const Store__MemberRow *)member, head);
    }
    return err == MESH_NOT_FOUND ? MESH_OK : err;
}

static mesh_err on_position(mender *m, const char *user, const char *chat, const ProtobufCMessage *stored)
{
    Store__UserChatRow row = *(const Store__UserChatRow *)stored;
    uint64_t end, count;
    mesh_err err = MESH_OK;
    if (!is_now(&m->user, user)) {
        err = end_user(m);
        set_now(&m->user, user);
    }
    if (err != MESH_OK || mesh_ring_shard_of(m->ring, chat) == m->at) {
        return err;
    }
    err = end_for(m, chat, user, &end, &count);
    if (err != MESH_OK || row.last_seq <= end) {
        return err;
    }
    store_key key;
    store_key_user_chat(&key, mesh_ring_slot(m->ring, user), user, chat);
    m->counts->back++;
    if (end == 0) {
        store_kv_batch_delete(m->shards[m->at].extra, store_key_slice(&key));
        m->left++;
        return MESH_OK;
    }
    row.last_seq = end;
    row.own_count = row.own_count < count ? row.own_count : count;
    put_row(&m->shards[m->at], &key, &row);
    return MESH_OK;
}

/* ---- chats that are ahead of their members' inboxes ---- */

static void write_owed(mender *m)
{
    restore_shard *shard = &m->shards[m->at];
    Store__OutboxRow row = STORE__OUTBOX_ROW__INIT;
    store_key key;
    if (m->n_owed > 0) {
        row.n_items = m->n_owed;
        row.items = m->owed;
        store_key_outbox(&key, ++shard->index);
        put_row(shard, &key, &row);
        m->counts->owed += m->n_owed;
    }
    m->n_owed = 0;
    mesh_arena_reset(m->owed_arena);
}

/* What its members lack, lowest first, as the outbox wants a chat's items. */
static void end_chat(mender *m)
{
    for (size_t i = 0; i < m->n_ends; i++) {
        Store__OutboxItem *item = mesh_arena_alloc(m->owed_arena, sizeof *item);
        store__outbox_item__init(item);
        item->chat = mesh_arena_strdup(m->owed_arena, (const char *)m->chat.data);
        item->seq = m->ends[i];
        m->owed[m->n_owed++] = item;
        if (m->n_owed == OWED_ROW) {
            write_owed(m);
        }
    }
    m->n_ends = 0;
}

static void add_end(mender *m, uint64_t end)
{
    size_t at = m->n_ends;
    while (at > 0 && m->ends[at - 1] > end) {
        at--;
    }
    if (at > 0 && m->ends[at - 1] == end) {
        return;
    }
    if (m->n_ends == m->cap_ends) {
        m->cap_ends = m->cap_ends > 0 ? 2 * m->cap_ends : 16;
        m->ends = mesh_realloc(m->ends, m->cap_ends * sizeof *m->ends);
    }
    memmove(m->ends + at + 1, m->ends + at, (m->n_ends - at) * sizeof *m->ends);
    m->ends[at] = end;
    m->n_ends++;
}

static mesh_err on_member(mender *m, const char *chat, const char *user, const ProtobufCMessage *stored)
{
    const Store__MemberRow *member = (const Store__MemberRow *)stored;
    uint32_t shard = mesh_ring_shard_of(m->ring, user);
    uint64_t count, has = 0;
    mesh_err err = MESH_OK;
    if (!is_now(&m->chat, chat)) {
        end_chat(m);
        set_now(&m->chat, chat);
        err = last_entry(m, &m->shards[m->at], chat, &m->head, &count);
        m->head = err == MESH_OK ? m->head : 0;
        err = err == MESH_NOT_FOUND ? MESH_OK : err;
    }
    uint64_t end = err == MESH_OK ? end_of(member, m->head) : 0;
    if (err != MESH_OK || shard == m->at || end == 0) {
        return err;
    }
    ProtobufCMessage *row;
    store_key key;
    store_key_user_chat(&key, mesh_ring_slot(m->ring, user), user, chat);
    err = get_row(m, &m->shards[shard], &key, &store__user_chat_row__descriptor, &row);
    if (err == MESH_OK) {
        has = ((const Store__UserChatRow *)row)->last_seq;
    }
    if ((err == MESH_OK || err == MESH_NOT_FOUND) && has < end) {
        add_end(m, end);
    }
    return err == MESH_NOT_FOUND ? MESH_OK : err;
}

/* ---- all ---- */

static mesh_err mend_shard(mender *m)
{
    mesh_buf_clear(&m->user);
    mesh_buf_clear(&m->chat);
    mesh_err err = each_row(m, TABLE_POSITIONS, &store__user_chat_row__descriptor, on_position);
    err = err == MESH_OK ? end_user(m) : err;
    err = err == MESH_OK ? each_row(m, TABLE_MEMBERS, &store__member_row__descriptor, on_member) : err;
    if (err == MESH_OK) {
        end_chat(m);
        write_owed(m);
    }
    return err;
}

mesh_err restore_mend(const mesh_ring *ring, restore_shard *shards, size_t n, store_restore_counts *counts)
{
    mesh_err err = MESH_OK;
    mender *m = mesh_alloc(sizeof *m);
    m->ring = ring;
    m->shards = shards;
    m->n = n;
    m->counts = counts;
    m->arena = mesh_arena_new();
    m->owed_arena = mesh_arena_new();
    for (m->at = 0; m->at < n && n > 1 && err == MESH_OK; m->at++) {
        err = mend_shard(m);
    }
    mesh_arena_destroy(&m->arena);
    mesh_arena_destroy(&m->owed_arena);
    mesh_buf_fini(&m->value);
    mesh_buf_fini(&m->key);
    mesh_buf_fini(&m->user);
    mesh_buf_fini(&m->chat);
    free(m->ends);
    free(m);
    return err;
}
