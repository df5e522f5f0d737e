/* members, heads, user_chats, inbox_read. A list ends at its limit of rows, bytes and elements, whichever is first. */
#include "store/read.h"

#include <stdlib.h>
#include <string.h>

#include "store/core.h"

#define CHATS_LIMIT 100
#define CHATS_DEFAULT 50
#define PREVIEW_BYTES 256
#define CHATS_SLACK 2000 /* rows of chats that were on their way when the user reached STORE_USER_CHATS_MAX */

static size_t clamp(uint32_t limit, size_t fallback, size_t max)
{
    size_t n = limit == 0 ? fallback : limit;
    return n > max ? max : n;
}

size_t store_read_elements(const Mesh__Entry *entry)
{
    return 2 + entry->n_users + entry->n_attachments;
}

/* ---- members ---- */

void store_read_members(store_fsm *fsm, mesh_arena *arena, const Mesh__Msg *msg, Mesh__Msg *answer)
{
    const Mesh__Members *ask = msg->members;
    store_chat *chat;
    mesh_err err = store_chats_get(fsm->chats, ask->chat, &chat);
    const store_member *by = err == MESH_OK ? store_chat_member(chat, ask->user) : NULL;
    if (err != MESH_OK && err != MESH_NOT_FOUND) {
        store_fsm_broken(fsm, arena, answer);
        return;
    }
    if (by == NULL || !store_member_present(by)) {
        store_fsm_fault(arena, answer, by == NULL ? FAULT_NOT_FOUND : FAULT_DENIED);
        return;
    }
    size_t limit = clamp(ask->limit, STORE_PAGE_ROWS, STORE_PAGE_ROWS);
    Mesh__MemberList *list = mesh_arena_alloc(arena, sizeof *list);
    mesh__member_list__init(list);
    list->chat = mesh_arena_strdup(arena, chat->id);
    list->members = mesh_arena_alloc(arena, limit * sizeof *list->members);
    for (size_t i = store_chat_place_after(chat, ask->after); i < chat->n_members; i++) {
        const store_member *member = chat->members[i];
        if (!store_member_present(member)) {
            continue;
        }
        if (list->n_members == limit) {
            list->has_more = true;
            break;
        }
        Mesh__Member *m = mesh_arena_alloc(arena, sizeof *m);
        mesh__member__init(m);
        m->user = mesh_arena_strdup(arena, member->user);
        m->role = member->role;
        m->read_seq = member->read_seq;
        list->members[list->n_members++] = m;
    }
    answer->body_case = MESH__MSG__BODY_MEMBER_LIST;
    answer->member_list = list;
}

/* ---- heads ---- */

static void summary_peer(mesh_arena *arena, const store_chat *chat, const char *user, Mesh__Summary *summary)
{
    for (size_t i = 0; i < chat->n_members; i++) {
        if (strcmp(chat->members[i]->user, user) != 0 || chat->n_members == 1) {
            summary->peer = mesh_arena_strdup(arena, chat->members[i]->user);
        }
    }
}

/* Errors: MESH_NOT_FOUND the last entry is not there; MESH_CORRUPT. */
static mesh_err summarize(store_fsm *fsm, mesh_arena *arena, const store_chat *chat, const store_member *member,
                          const Mesh__HeadAsk *ask, Mesh__Summary *summary)
{
    mesh__summary__init(summary);
    summary->chat = mesh_arena_strdup(arena, chat->id);
    summary->kind = chat->kind;
    summary->name = mesh_arena_strdup(arena, chat->name);
    if (chat->kind == MESH__CHAT_KIND__CHAT_DIRECT) {
        summary_peer(arena, chat, member->user, summary);
    }
    uint64_t end = store_member_end(member, chat->head_seq);
    mesh_err err = store_fsm_entry(fsm, arena, chat->slot, chat->id, end, &summary->last);
    if (err == MESH_NOT_FOUND) {
        store_fsm_absent(fsm, chat->id, end);
    }
    if (err != MESH_OK) {
        return err;
    }
    uint64_t seen = member->read_count > ask->own_count ? member->read_count : ask->own_count;
    /* own_count comes from the inbox, where one's own entry arrives a little later than here */
    bool own = strcmp(summary->last->sender, member->user) == 0;
    summary->unread = !own && summary->last->count > seen ? summary->last->count - seen : 0;
    summary->read_seq = member->read_seq;
    if (store_member_present(member)) {
        summary->member_count = chat->member_count;
    } else { /* as it was when they went: what came after is not theirs to know */
        summary->name = summary->last->name;
    }
    summary->role = member->role;
    summary->inbox_seq = ask->inbox_seq;
    return MESH_OK;
}

/* A list of chats is a preview: where whole last entries would pass a page's bounds, their beginnings do. */
static void shorten(Mesh__Entry *last)
{
    last->n_users = 0;
    last->n_attachments = 0;
    if (last->body.len > PREVIEW_BYTES) {
        last->body.len = PREVIEW_BYTES;
        while (last->body.len > 0 && (last->body.data[last->body.len] & 0xc0) == 0x80) {
            last->body.len--; /* not within a character */
        }
    }
}

void store_read_heads(store_fsm *fsm, mesh_arena *arena, const Mesh__Msg *msg, Mesh__Msg *answer)
{
    const Mesh__Heads *heads = msg->heads;
    Mesh__ChatList *list = mesh_arena_alloc(arena, sizeof *list);
    size_t bytes = 0;
    size_t elements = 0;
    mesh__chat_list__init(list);
    list->chats = mesh_arena_alloc(arena, (heads->n_chats + 1) * sizeof *list->chats);
    list->elsewhere = mesh_arena_alloc(arena, (heads->n_chats + 1) * sizeof *list->elsewhere);
    for (size_t i = 0; i < heads->n_chats; i++) {
        store_chat *chat;
        if (!store_fsm_owns_id(fsm, heads->chats[i]->chat)) {
            list->elsewhere[list->n_elsewhere++] =
                heads->chats[i]; /* lives as long as the request, which the arena does */
            continue;
        }
        mesh_err err = store_chats_get(fsm->chats, heads->chats[i]->chat, &chat);
        const store_member *member = err == MESH_OK ? store_chat_member(chat, heads->user) : NULL;
        if (err != MESH_OK && err != MESH_NOT_FOUND) {
            store_fsm_broken(fsm, arena, answer);
            return;
        }
        if (member == NULL || chat->head_seq == 0) {
            continue;
        }
        Mesh__Summary *summary = mesh_arena_alloc(arena, sizeof *summary);
        err = summarize(fsm, arena, chat, member, heads->chats[i], summary);
        if (err == MESH_NOT_FOUND) {
            continue;
        }
        if (err != MESH_OK) {
            store_fsm_broken(fsm, arena, answer);
            return;
        }
        size_t size = mesh_wire_size(summary);
        if (list->n_chats > 0 &&
            (bytes + size > STORE_PAGE_BYTES || elements + store_read_elements(summary->last) > STORE_PAGE_ELEMENTS)) {
            shorten(summary->last);
            size = mesh_wire_size(summary);
        }
        bytes += size;
        elements += store_read_elements(summary->last);
        list->chats[list->n_chats++] = summary;
    }
    answer->body_case = MESH__MSG__BODY_CHAT_LIST;
    answer->chat_list = list;
}

/* ---- user_chats ---- */

typedef struct position {
    uint64_t inbox_seq;
    uint64_t own_count;
    char *chat;
} position;

/* The newest `max` below `before`, newest first; one more than asked for tells that there is more. */
static void keep_newest(position *best, size_t *n, size_t max, position p, mesh_arena *arena, mesh_slice chat)
{
    if (*n == max && best[max - 1].inbox_seq >= p.inbox_seq) {
        return;
    }
    p.chat = mesh_arena_alloc(arena, chat.size + 1);
    memcpy(p.chat, chat.data, chat.size);
    size_t at = *n < max ? (*n)++ : max - 1;
    while (at > 0 && best[at - 1].inbox_seq < p.inbox_seq) {
        best[at] = best[at - 1];
        at--;
    }
    best[at] = p;
}

static mesh_err scan_user_chats(store_fsm *fsm, mesh_arena *arena, const Mesh__UserChats *ask, position *best,
                                size_t max, size_t *n_p)
{
    store_key prefix;
    store_key_user_chats(&prefix, fsm->slot, ask->user);
    store_kv_iter *it = store_kv_iter_new(fsm->kv, store_key_slice(&prefix));
    mesh_err err = MESH_OK;
    size_t rows = 0;
    *n_p = 0;
    for (store_kv_iter_first(it); store_kv_iter_valid(it) && rows < STORE_USER_CHATS_MAX + CHATS_SLACK;
         store_kv_iter_next(it), rows++) {
        ProtobufCMessage *message;
        err = mesh_wire_unpack(&store__user_chat_row__descriptor, store_kv_iter_value(it), arena, &message);
        if (err != MESH_OK) {
            break;
        }
        const Store__UserChatRow *row = (const Store__UserChatRow *)message;
        if (ask->before == 0 || row->inbox_seq < ask->before) {
            position p = { .inbox_seq = row->inbox_seq, .own_count = row->own_count };
            keep_newest(best, n_p, max, p, arena, store_key_rest(store_kv_iter_key(it), &prefix));
        }
    }
    if (err == MESH_OK) {
        err = store_kv_iter_status(it);
    }
    store_kv_iter_destroy(&it);
    return err;
}

void store_read_user_chats(store_fsm *fsm, mesh_arena *arena, const Mesh__Msg *msg, Mesh__Msg *answer)
{
    const Mesh__UserChats *ask = msg->user_chats;
    size_t limit = clamp(ask->limit, CHATS_DEFAULT, CHATS_LIMIT);
    position best[CHATS_LIMIT + 1];
    size_t n;
    if (scan_user_chats(fsm, arena, ask, best, limit + 1, &n) != MESH_OK) {
        store_fsm_broken(fsm, arena, answer);
        return;
    }
    Mesh__UserChatPage *page = mesh_arena_alloc(arena, sizeof *page);
    mesh__user_chat_page__init(page);
    page->has_more = n > limit;
    page->n_chats = n > limit ? limit : n;
    page->chats = mesh_arena_alloc(arena, (page->n_chats + 1) * sizeof *page->chats);
    for (size_t i = 0; i < page->n_chats; i++) {
        page->chats[i] = mesh_arena_alloc(arena, sizeof *page->chats[i]);
        mesh__head_ask__init(page->chats[i]);
        page->chats[i]->chat = best[i].chat;
        page->chats[i]->own_count = best[i].own_count;
        page->chats[i]->inbox_seq = best[i].inbox_seq;
    }
    answer->body_case = MESH__MSG__BODY_USER_CHAT_PAGE;
    answer->user_chat_page = page;
}

/* ---- inbox_read ---- */

/* A long entry's row only says where it is. */
static mesh_err fill_entry(store_fsm *fsm, mesh_arena *arena, Mesh__Entry **entry_p)
{
    Mesh__Entry *whole;
    if (!(*entry_p)->body_elsewhere) {
        return MESH_OK;
    }
    mesh_err err = store_fsm_long_entry(fsm, arena, (*entry_p)->chat, (*entry_p)->seq, &whole);
    if (err == MESH_OK) {
        *entry_p = whole;
    } else if (err == MESH_NOT_FOUND) {
        store_fsm_absent(fsm, (*entry_p)->chat, (*entry_p)->seq);
        (*entry_p)->body_elsewhere = false; /* the reader gets one without a body, or would never get past it */
        err = MESH_OK;
    }
    return err;
}

static mesh_err read_rows(store_fsm *fsm, mesh_arena *arena, const Mesh__InboxRead *ask, size_t limit,
                          Mesh__InboxPage *page)
{
    store_key key;
    store_key_inboxes(&key, fsm->slot, ask->user);
    store_kv_iter *it = store_kv_iter_new(fsm->kv, store_key_slice(&key));
    size_t bytes = 0;
    size_t elements = 0;
    mesh_err err = MESH_OK;
    store_key_inbox(&key, fsm->slot, ask->user, ask->after + 1);
    for (store_kv_iter_seek(it, store_key_slice(&key)); store_kv_iter_valid(it) && page->n_entries < limit;
         store_kv_iter_next(it)) {
        ProtobufCMessage *message;
        mesh_slice value = store_kv_iter_value(it);
        err = mesh_wire_unpack(&mesh__entry__descriptor, value, arena, &message);
        if (err != MESH_OK) {
            break;
        }
        Mesh__Entry *entry = (Mesh__Entry *)message;
        bool elsewhere = entry->body_elsewhere;
        err = fill_entry(fsm, arena, &entry);
        if (err != MESH_OK) {
            break;
        }
        bytes += elsewhere ? mesh_wire_size(entry) : value.size;
        elements += store_read_elements(entry);
        if (page->n_entries > 0 && (bytes > STORE_PAGE_BYTES || elements > STORE_PAGE_ELEMENTS)) {
            break;
        }
        Mesh__InboxEntry *row = mesh_arena_alloc(arena, sizeof *row);
        mesh__inbox_entry__init(row);
        row->inbox_seq = store_key_number(store_kv_iter_key(it));
        row->entry = entry;
        page->entries[page->n_entries++] = row;
    }
    if (err == MESH_OK) {
        err = store_kv_iter_status(it);
    }
    store_kv_iter_destroy(&it);
    return err;
}

void store_read_inbox(store_fsm *fsm, mesh_arena *arena, const Mesh__Msg *msg, Mesh__Msg *answer)
{
    const Mesh__InboxRead *ask = msg->inbox_read;
    store_user *user;
    if (store_users_get(fsm->users, ask->user, &user) != MESH_OK) {
        store_fsm_broken(fsm, arena, answer);
        return;
    }
    size_t limit = clamp(ask->limit, STORE_PAGE_ROWS, STORE_PAGE_ROWS);
    Mesh__InboxPage *page = mesh_arena_alloc(arena, sizeof *page);
    mesh__inbox_page__init(page);
    page->head = user->head;
    page->era = store_fsm_era(fsm, user->slot);
    page->trimmed = ask->after < user->trimmed;
    page->entries = mesh_arena_alloc(arena, limit * sizeof *page->entries);
    if (!page->trimmed && ask->after < user->head && read_rows(fsm, arena, ask, limit, page) != MESH_OK) {
        store_fsm_broken(fsm, arena, answer);
        return;
    }
    answer->body_case = MESH__MSG__BODY_INBOX_PAGE;
    answer->inbox_page = page;
}

/* ---- any ---- */

void store_read(store_fsm *fsm, mesh_arena *arena, const Mesh__Msg *msg, Mesh__Msg *answer)
{
    fsm->slot = mesh_id_slot(fsm->hash_key, msg->key);
    if (!store_fsm_owns(fsm, fsm->slot)) {
        store_fsm_elsewhere(arena, answer);
        return;
    }
    switch (msg->body_case) {
    case MESH__MSG__BODY_HISTORY:
        store_read_history(fsm, arena, msg, answer);
        break;
    case MESH__MSG__BODY_MEMBERS:
        store_read_members(fsm, arena, msg, answer);
        break;
    case MESH__MSG__BODY_HEADS:
        store_read_heads(fsm, arena, msg, answer);
        break;
    case MESH__MSG__BODY_USER_CHATS:
        store_read_user_chats(fsm, arena, msg, answer);
        break;
    default:
        store_read_inbox(fsm, arena, msg, answer);
        break;
    }
}
