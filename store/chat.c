#include "store/chat.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "mesh/alloc.h"
#include "mesh/table.h"
#include "store.pb-c.h"
#include "store/core.h"

struct store_chats {
    store_kv *kv;
    const mesh_hash_key *hash_key;
    mesh_table *table; /* the longest unused first */
    mesh_arena *arena; /* of loading */
    mesh_buf value;
    size_t members; /* of all chats kept */
};

store_chats *store_chats_new(store_kv *kv, const mesh_hash_key *hash_key)
{
    store_chats *chats = mesh_alloc(sizeof *chats);
    chats->kv = kv;
    chats->hash_key = hash_key;
    chats->table = mesh_table_new(hash_key);
    chats->arena = mesh_arena_new();
    return chats;
}

static void chat_free(store_chat *chat)
{
    for (size_t i = 0; i < chat->n_members; i++) {
        free(chat->members[i]->spans);
        free(chat->members[i]);
    }
    free(chat->members);
    free(chat->name);
    free(chat->creator);
    free(chat->id);
    free(chat);
}

static void evict_oldest(store_chats *chats)
{
    store_chat *chat = mesh_table_take(chats->table);
    chats->members -= chat->counted;
    chat_free(chat);
}

void store_chats_destroy(store_chats **chats_p)
{
    store_chats *chats = *chats_p;
    if (chats == NULL) {
        return;
    }
    while (mesh_table_size(chats->table) > 0) {
        evict_oldest(chats);
    }
    mesh_table_destroy(&chats->table);
    mesh_arena_destroy(&chats->arena);
    mesh_buf_fini(&chats->value);
    free(chats);
    *chats_p = NULL;
}

/* Members come and a chat is added before it has any: what it weighs is seen anew at each use. */
static void weigh(store_chats *chats, store_chat *chat)
{
    chats->members -= chat->counted;
    chat->counted = chat->n_members + 2;
    chats->members += chat->counted;
}

void store_chats_evict(store_chats *chats)
{
    while (mesh_table_size(chats->table) > STORE_CHATS_MAX ||
           (chats->members > STORE_CHATS_MEMBERS_MAX && mesh_table_size(chats->table) > 1)) {
        evict_oldest(chats);
    }
}

void store_chats_forget(store_chats *chats, mesh_slot slot)
{
    for (store_chat *chat = mesh_table_first(chats->table); chat != NULL; chat = mesh_table_next(chats->table)) {
        if (chat->slot == slot) {
            mesh_table_remove(chats->table, mesh_table_str(chat->id));
            chats->members -= chat->counted;
            chat_free(chat);
        }
    }
}

/* ---- members ---- */

/* Index of user, or where it belongs. */
static size_t member_place(const store_chat *chat, const char *user, bool *found)
{
    size_t low = 0;
    size_t high = chat->n_members;
    *found = false;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        int order = strcmp(chat->members[middle]->user, user);
        if (order == 0) {
            *found = true;
            return middle;
        }
        if (order < 0) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

store_member *store_chat_member(const store_chat *chat, const char *user)
{
    bool found;
    size_t i = member_place(chat, user, &found);
    return found ? chat->members[i] : NULL;
}

size_t store_chat_place_after(const store_chat *chat, const char *user)
{
    bool found;
    size_t i = member_place(chat, user, &found);
    return found ? i + 1 : i;
}

static store_member *member_insert(store_chat *chat, size_t at, const char *user, size_t size)
{
    store_member *member = mesh_alloc(sizeof *member + size + 1);
    memcpy(member->user, user, size);
    if (chat->n_members == chat->cap_members) {
        chat->cap_members = chat->cap_members == 0 ? 2 : 2 * chat->cap_members;
        chat->members = mesh_realloc(chat->members, chat->cap_members * sizeof *chat->members);
    }
    memmove(chat->members + at + 1, chat->members + at, (chat->n_members - at) * sizeof *chat->members);
    chat->members[at] = member;
    chat->n_members++;
    return member;
}

static void span_add(store_member *member, uint64_t from, uint64_t to)
{
    member->spans = mesh_realloc(member->spans, (member->n_spans + 1) * sizeof *member->spans);
    member->spans[member->n_spans++] = (store_span){ from, to };
}

mesh_err store_chat_join(store_chat *chat, const char *user, Mesh__Role role, uint64_t seq, store_member **member_p)
{
    bool found;
    size_t at = member_place(chat, user, &found);
    if (!found && chat->n_members >= STORE_MEMBER_ROWS_MAX) {
        return MESH_FULL;
    }
    if (found && chat->members[at]->n_spans >= STORE_SPANS_MAX) {
        return MESH_FULL;
    }
    store_member *member = found ? chat->members[at] : member_insert(chat, at, user, strlen(user));
    assert(!store_member_present(member));
    span_add(member, seq, 0);
    member->role = role;
    chat->member_count++;
    *member_p = member;
    return MESH_OK;
}

void store_chat_part(store_chat *chat, store_member *member, uint64_t seq)
{
    assert(store_member_present(member));
    member->spans[member->n_spans - 1].to = seq;
    member->role = MESH__ROLE__ROLE_NONE;
    chat->member_count--;
}

bool store_member_present(const store_member *member)
{
    return member->n_spans > 0 && member->spans[member->n_spans - 1].to == 0;
}

static bool span_has(store_span span, uint64_t seq)
{
    return span.from <= seq && (span.to == 0 || seq <= span.to);
}

bool store_member_entitled(const store_member *member, uint64_t seq)
{
    if (store_member_end(member, seq) < seq) {
        return false; /* gone for longer: of a chat's many former members nothing else is looked at */
    }
    for (unsigned i = member->n_spans; i-- > 0;) {
        if (span_has(member->spans[i], seq)) {
            return true;
        }
    }
    return false;
}

uint64_t store_member_prev(const store_member *member, uint64_t seq)
{
    for (unsigned i = member->n_spans; i-- > 0;) {
        if (member->spans[i].from < seq) {
            uint64_t to = member->spans[i].to;
            return to == 0 || to >= seq ? seq - 1 : to;
        }
    }
    return 0;
}

uint64_t store_member_next(const store_member *member, uint64_t seq)
{
    for (unsigned i = 0; i < member->n_spans; i++) {
        store_span span = member->spans[i];
        if (span.to == 0 || span.to > seq) {
            return span.from > seq ? span.from : seq + 1;
        }
    }
    return 0;
}

uint64_t store_member_end(const store_member *member, uint64_t head)
{
    if (member->n_spans == 0) {
        return 0;
    }
    uint64_t to = member->spans[member->n_spans - 1].to;
    return to == 0 ? head : to;
}

/* ---- rows ---- */

void store_chat_rename(store_chat *chat, const char *name)
{
    free(chat->name);
    chat->name = mesh_strdup(name);
}

void store_chat_save(const store_chat *chat, store_rows *rows)
{
    Store__ChatRow row = STORE__CHAT_ROW__INIT;
    row.kind = (uint32_t)chat->kind;
    row.history = (uint32_t)chat->history;
    row.name = chat->name;
    row.creator = chat->creator;
    row.member_count = chat->member_count;
    row.created_ms = chat->created_ms;
    store_key key;
    store_key_chat(&key, chat->slot, chat->id);
    store_rows_pack(rows, &key, &row, STORE_ROW_ONLY);
}

void store_chat_save_member(const store_chat *chat, const store_member *member, store_rows *rows)
{
    Store__Span spans[STORE_SPANS_MAX];
    Store__Span *list[STORE_SPANS_MAX];
    Store__MemberRow row = STORE__MEMBER_ROW__INIT;
    assert(member->n_spans <= STORE_SPANS_MAX);
    for (unsigned i = 0; i < member->n_spans; i++) {
        store__span__init(&spans[i]);
        spans[i].from = member->spans[i].from;
        spans[i].to = member->spans[i].to;
        list[i] = &spans[i];
    }
    row.role = (uint32_t)member->role;
    row.n_spans = member->n_spans;
    row.spans = list;
    row.read_seq = member->read_seq;
    row.read_count = member->read_count;
    store_key key;
    store_key_member(&key, chat->slot, chat->id, member->user);
    store_rows_pack(rows, &key, &row, STORE_ROW_ONLY);
}

static mesh_err load_meta(store_chats *chats, const char *id, store_chat *chat)
{
    store_key key;
    chat->slot = mesh_id_slot(chats->hash_key, id);
    store_key_chat(&key, chat->slot, id);
    mesh_err err = store_kv_get(chats->kv, store_key_slice(&key), &chats->value);
    if (err != MESH_OK) {
        return err;
    }
    ProtobufCMessage *message;
    err = mesh_wire_unpack(&store__chat_row__descriptor, mesh_buf_slice(&chats->value), chats->arena, &message);
    if (err != MESH_OK) {
        return MESH_CORRUPT;
    }
    const Store__ChatRow *row = (const Store__ChatRow *)message;
    chat->id = mesh_strdup(id);
    chat->kind = (Mesh__ChatKind)row->kind;
    chat->history = (Mesh__HistoryRule)row->history;
    chat->name = mesh_strdup(row->name);
    chat->creator = mesh_strdup(row->creator);
    chat->member_count = row->member_count;
    chat->created_ms = row->created_ms;
    return MESH_OK;
}

static mesh_err load_head(store_chats *chats, store_chat *chat)
{
    store_key prefix;
    store_key_entries(&prefix, chat->slot, chat->id);
    store_kv_iter *it = store_kv_iter_new(chats->kv, store_key_slice(&prefix));
    mesh_err err = MESH_OK;
    ProtobufCMessage *message;
    store_kv_iter_last(it);
    if (store_kv_iter_valid(it)) {
        err = mesh_wire_unpack(&mesh__entry__descriptor, store_kv_iter_value(it), chats->arena, &message);
        if (err != MESH_OK) {
            err = MESH_CORRUPT;
        } else {
            const Mesh__Entry *entry = (const Mesh__Entry *)message;
            chat->head_seq = store_key_number(store_kv_iter_key(it));
            chat->head_count = entry->count;
            chat->head_id = entry->id;
            chat->head_ts = entry->ts_ms;
        }
    } else {
        err = store_kv_iter_status(it);
    }
    store_kv_iter_destroy(&it);
    return err;
}

static mesh_err load_member(store_chats *chats, store_chat *chat, mesh_slice user, mesh_slice value)
{
    ProtobufCMessage *message;
    if (user.size > MESH_QID_MAX || chat->n_members >= STORE_MEMBER_ROWS_MAX ||
        mesh_wire_unpack(&store__member_row__descriptor, value, chats->arena, &message) != MESH_OK) {
        return MESH_CORRUPT;
    }
    const Store__MemberRow *row = (const Store__MemberRow *)message;
    if (row->n_spans > STORE_SPANS_MAX) {
        return MESH_CORRUPT;
    }
    store_member *member = member_insert(chat, chat->n_members, (const char *)user.data, user.size);
    member->role = (Mesh__Role)row->role;
    member->read_seq = row->read_seq;
    member->read_count = row->read_count;
    for (size_t i = 0; i < row->n_spans; i++) {
        span_add(member, row->spans[i]->from, row->spans[i]->to);
    }
    return MESH_OK;
}

static mesh_err load_members(store_chats *chats, store_chat *chat)
{
    store_key prefix;
    store_key_members(&prefix, chat->slot, chat->id);
    store_kv_iter *it = store_kv_iter_new(chats->kv, store_key_slice(&prefix));
    mesh_err err = MESH_OK;
    for (store_kv_iter_first(it); err == MESH_OK && store_kv_iter_valid(it); store_kv_iter_next(it)) {
        err = load_member(chats, chat, store_key_rest(store_kv_iter_key(it), &prefix), store_kv_iter_value(it));
    }
    if (err == MESH_OK) {
        err = store_kv_iter_status(it);
    }
    store_kv_iter_destroy(&it);
    return err;
}

static void chat_put(store_chats *chats, store_chat *chat)
{
    mesh_table_put(chats->table, mesh_table_str(chat->id), chat);
    weigh(chats, chat);
}

mesh_err store_chats_get(store_chats *chats, const char *id, store_chat **chat_p)
{
    store_chat *chat = mesh_table_touch(chats->table, mesh_table_str(id));
    if (chat != NULL) {
        weigh(chats, chat);
        *chat_p = chat;
        return MESH_OK;
    }
    mesh_arena_reset(chats->arena);
    chat = mesh_alloc(sizeof *chat);
    mesh_err err = load_meta(chats, id, chat);
    if (err == MESH_OK) {
        err = load_head(chats, chat);
    }
    if (err == MESH_OK) {
        err = load_members(chats, chat);
    }
    if (err != MESH_OK) {
        chat_free(chat);
        return err;
    }
    chat_put(chats, chat);
    *chat_p = chat;
    return MESH_OK;
}

store_chat *store_chats_add(store_chats *chats, const char *id, Mesh__ChatKind kind, Mesh__HistoryRule history,
                            const char *name, const char *creator, uint64_t created_ms)
{
    store_chat *chat = mesh_alloc(sizeof *chat);
    chat->id = mesh_strdup(id);
    chat->slot = mesh_id_slot(chats->hash_key, id);
    chat->kind = kind;
    chat->history = history;
    chat->name = mesh_strdup(name);
    chat->creator = mesh_strdup(creator);
    chat->created_ms = created_ms;
    chat_put(chats, chat);
    return chat;
}
