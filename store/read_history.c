/* history: entries of a chat, ascending, only those the asker may see. With the rule `all` a present member sees
 * everything and a removed one everything up to the last removal; with from_join only the spans count. */
#include <string.h>

#include "store/core.h"
#include "store/read.h"

#define DEFAULT_ROWS 50

typedef struct view {
    store_fsm *fsm;
    mesh_arena *arena;
    const store_chat *chat;
    store_span ranges[STORE_SPANS_MAX]; /* ascending, closed */
    unsigned n_ranges;
    size_t bytes, elements; /* of what was taken */
} view;

static void view_open(view *v, const store_member *member)
{
    uint64_t end = store_member_end(member, v->chat->head_seq);
    if (v->chat->history == MESH__HISTORY_RULE__HISTORY_ALL) {
        v->ranges[0] = (store_span){ 1, end };
        v->n_ranges = 1;
        return;
    }
    for (unsigned i = 0; i < member->n_spans; i++) {
        v->ranges[i] = member->spans[i];
        if (v->ranges[i].to == 0) {
            v->ranges[i].to = end;
        }
    }
    v->n_ranges = member->n_spans;
}

/* First visible seq >= seq; 0: none. */
static uint64_t visible_from(const view *v, uint64_t seq)
{
    for (unsigned i = 0; i < v->n_ranges; i++) {
        if (seq <= v->ranges[i].to) {
            return seq > v->ranges[i].from ? seq : v->ranges[i].from;
        }
    }
    return 0;
}

/* Last visible seq <= seq; 0: none. */
static uint64_t visible_upto(const view *v, uint64_t seq)
{
    for (unsigned i = v->n_ranges; i-- > 0;) {
        if (seq >= v->ranges[i].from) {
            return seq < v->ranges[i].to ? seq : v->ranges[i].to;
        }
    }
    return 0;
}

/* Seqs have no holes; but if there is one: the next visible seq behind it. */
static uint64_t beyond_hole(const view *v, store_kv_iter *it, uint64_t seq, bool up)
{
    store_key key;
    store_fsm_absent(v->fsm, v->chat->id, seq);
    store_key_entry(&key, v->chat->slot, v->chat->id, seq);
    store_kv_iter_seek(it, store_key_slice(&key)); /* the first above it */
    if (!up) {
        store_kv_iter_valid(it) ? store_kv_iter_prev(it) : store_kv_iter_last(it);
    }
    if (!store_kv_iter_valid(it)) {
        return 0;
    }
    uint64_t number = store_key_number(store_kv_iter_key(it));
    return up ? visible_from(v, number) : visible_upto(v, number);
}

/* Take up to limit entries from seq on, in direction step. Returns the next visible seq that was not taken, 0 for none.
 * Within a page's bytes and elements, but at least one entry when it is the first of the page. */
static mesh_err take(view *v, uint64_t seq, bool up, size_t limit, Mesh__Entry **to, size_t *n_p, uint64_t *next_p)
{
    size_t n = 0;
    store_key key;
    store_key_entries(&key, v->chat->slot, v->chat->id);
    store_kv_iter *it = store_kv_iter_new(v->fsm->kv, store_key_slice(&key));
    uint64_t at = 0; /* where the iterator stands */
    mesh_err err = MESH_OK;
    while (seq != 0 && n < limit) {
        if (at != 0 && seq == (up ? at + 1 : at - 1)) {
            up ? store_kv_iter_next(it) : store_kv_iter_prev(it);
        } else {
            store_key_entry(&key, v->chat->slot, v->chat->id, seq);
            store_kv_iter_seek(it, store_key_slice(&key));
        }
        ProtobufCMessage *message;
        if (!store_kv_iter_valid(it) || store_key_number(store_kv_iter_key(it)) != seq) {
            if (store_kv_iter_status(it) != MESH_OK) {
                err = MESH_CORRUPT;
                break;
            }
            seq = beyond_hole(v, it, seq, up);
            at = 0;
            continue;
        }
        mesh_slice value = store_kv_iter_value(it);
        if (v->bytes > 0 && v->bytes + value.size > STORE_PAGE_BYTES) {
            break;
        }
        if (mesh_wire_unpack(&mesh__entry__descriptor, value, v->arena, &message) != MESH_OK) {
            err = MESH_CORRUPT;
            break;
        }
        size_t elements = store_read_elements((const Mesh__Entry *)message);
        if (v->bytes > 0 && v->elements + elements > STORE_PAGE_ELEMENTS) {
            break;
        }
        at = seq;
        v->bytes += value.size;
        v->elements += elements;
        to[n++] = (Mesh__Entry *)message;
        seq = up ? visible_from(v, seq + 1) : visible_upto(v, seq - 1);
    }
    store_kv_iter_destroy(&it);
    *n_p = n;
    *next_p = seq;
    return err;
}

static void reverse(Mesh__Entry **list, size_t n)
{
    for (size_t i = 0; i < n / 2; i++) {
        Mesh__Entry *swap = list[i];
        list[i] = list[n - 1 - i];
        list[n - 1 - i] = swap;
    }
}

static mesh_err fill_page(view *v, const Mesh__History *history, Mesh__Page *page)
{
    size_t limit = history->limit == 0 ? DEFAULT_ROWS : history->limit;
    limit = limit > STORE_PAGE_ROWS ? STORE_PAGE_ROWS : limit;
    page->entries = mesh_arena_alloc(v->arena, (limit + 1) * sizeof *page->entries);
    uint64_t next;
    mesh_err err;
    uint64_t head = v->chat->head_seq; /* what is asked for may be any number */
    if (history->after > 0 || history->from_start) {
        uint64_t after = history->after < head ? history->after : head;
        err = take(v, visible_from(v, after + 1), true, limit, page->entries, &page->n_entries, &next);
        page->has_more = next != 0;
        return err;
    }
    uint64_t last = history->before > 0 ? history->before - 1 : history->around > 0 ? history->around : head;
    last = last < head ? last : head;
    size_t older = history->around > 0 && history->before == 0 ? (limit + 1) / 2 : limit;
    err = take(v, visible_upto(v, last), false, older, page->entries, &page->n_entries, &next);
    reverse(page->entries, page->n_entries);
    page->has_more = next != 0;
    if (err == MESH_OK && older < limit) {
        size_t n;
        err = take(v, visible_from(v, last + 1), true, limit - page->n_entries, page->entries + page->n_entries, &n,
                   &next);
        page->n_entries += n;
        page->has_more_after = next != 0;
    } else if (history->around > 0 && history->before == 0) {
        page->has_more_after = visible_from(v, last + 1) != 0;
    }
    return err;
}

void store_read_history(store_fsm *fsm, mesh_arena *arena, const Mesh__Msg *msg, Mesh__Msg *answer)
{
    const Mesh__History *history = msg->history;
    store_chat *chat;
    mesh_err err = store_chats_get(fsm->chats, history->chat, &chat);
    const store_member *member = err == MESH_OK ? store_chat_member(chat, history->user) : NULL;
    if (err != MESH_OK && err != MESH_NOT_FOUND) {
        store_fsm_broken(fsm, arena, answer);
        return;
    }
    if (member == NULL) {
        store_fsm_fault(arena, answer, FAULT_NOT_FOUND);
        return;
    }
    view v = { .fsm = fsm, .arena = arena, .chat = chat };
    view_open(&v, member);
    Mesh__Page *page = mesh_arena_alloc(arena, sizeof *page);
    mesh__page__init(page);
    page->chat = mesh_arena_strdup(arena, chat->id);
    page->oldest_available = visible_from(&v, 1);
    page->last_seq = visible_upto(&v, UINT64_MAX);
    if (fill_page(&v, history, page) != MESH_OK) {
        store_fsm_broken(fsm, arena, answer);
        return;
    }
    for (size_t i = 0; i < page->n_entries; i++) {
        page->entries[i]->chat = page->chat;
    }
    answer->body_case = MESH__MSG__BODY_PAGE;
    answer->page = page;
}
