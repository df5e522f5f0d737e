/* Items enter the window as log entries are applied, or from their rows when it has room again, and leave it when
 * nothing of them is owed. What happens in between: store/outbox_send.c. */
#include "store/outbox.h"

#include <stdlib.h>
#include <string.h>

#include "mesh/alloc.h"
#include "store/core.h"
#include "store/metrics.h"
#include "store/outbox_state.h"

#define LOAD_ITEMS 512 /* from rows in one turn: what finds its lanes sick takes no room of the window */

typedef store_outbox_item item;

/* ---- rows in memory ---- */

static store_outbox_row *row_new(store_outbox *ob, uint64_t index, size_t n)
{
    store_outbox_row *row = mesh_alloc(sizeof *row);
    *row = (store_outbox_row){ .index = index, .after = ob->rows };
    row->left = n + 1; /* one more, so that it outlives items that owe nobody */
    if (ob->rows != NULL) {
        ob->rows->before = row;
    }
    ob->rows = row;
    return row;
}

static void row_free(store_outbox *ob, store_outbox_row *row)
{
    if (row->before != NULL) {
        row->before->after = row->after;
    } else {
        ob->rows = row->after;
    }
    if (row->after != NULL) {
        row->after->before = row->before;
    }
    free(row);
}

void store_outbox_settle(store_outbox *ob, store_outbox_row *row)
{
    if (--row->left > 0) {
        return;
    }
    if (ob->n_done == ob->cap_done) {
        ob->cap_done = ob->cap_done == 0 ? 256 : 2 * ob->cap_done;
        ob->done = mesh_realloc(ob->done, ob->cap_done * sizeof *ob->done);
    }
    ob->done[ob->n_done++] = row->index;
    row_free(ob, row);
}

/* ---- items ---- */

static void item_free(item *it)
{
    for (size_t i = 0; i < it->n_parcels; i++) {
        free(it->parcels[i]);
    }
    free(it->parcels);
    free(it);
}

static void window_join(store_outbox *ob, item *it)
{
    it->before = ob->last;
    while (it->before != NULL && it->before->id > it->id) { /* it comes back */
        it->before = it->before->before;
    }
    it->after = it->before != NULL ? it->before->after : ob->first;
    *(it->before != NULL ? &it->before->after : &ob->first) = it;
    *(it->after != NULL ? &it->after->before : &ob->last) = it;
    ob->n_window++;
}

static void window_part(store_outbox *ob, item *it)
{
    *(it->before != NULL ? &it->before->after : &ob->first) = it->after;
    *(it->after != NULL ? &it->after->before : &ob->last) = it->before;
    ob->n_window--;
    ob->n_again -= it->again ? 1 : 0;
}

static void chat_join(store_outbox *ob, item *it)
{
    it->older = mesh_table_get(ob->chats, mesh_table_str(it->chat));
    while (it->older != NULL && it->older->seq > it->seq) {
        it->newer = it->older;
        it->older = it->older->older;
    }
    if (it->newer != NULL) {
        it->newer->older = it;
    } else {
        mesh_table_remove(ob->chats, mesh_table_str(it->chat)); /* its key was the older one's */
        mesh_table_put(ob->chats, mesh_table_str(it->chat), it);
    }
    if (it->older != NULL) {
        it->older->newer = it;
    }
}

static void chat_part(store_outbox *ob, item *it)
{
    if (it->newer != NULL) {
        it->newer->older = it->older;
    } else {
        mesh_table_remove(ob->chats, mesh_table_str(it->chat));
        if (it->older != NULL) {
            mesh_table_put(ob->chats, mesh_table_str(it->older->chat), it->older);
        }
    }
    if (it->older != NULL) {
        it->older->newer = it->newer;
    }
}

item *store_outbox_enter(store_outbox *ob, store_outbox_row *row, uint64_t id, const Mesh__Entry *entry)
{
    size_t size = strlen(entry->chat) + 1;
    item *it = mesh_alloc(sizeof *it + size);
    *it = (item){ .id = id, .row = row, .seq = entry->seq, .ts_ms = entry->ts_ms };
    memcpy(it->chat, entry->chat, size);
    row->ts_ms = row->ts_ms == 0 ? entry->ts_ms : row->ts_ms;
    mesh_table_put(ob->items, mesh_table_u64(&it->id), it);
    window_join(ob, it);
    chat_join(ob, it);
    return it;
}

void store_outbox_finish(store_outbox *ob, item *it)
{
    mesh_table_remove(ob->items, mesh_table_u64(&it->id));
    window_part(ob, it);
    chat_part(ob, it);
    ob->backlog--;
    store_outbox_settle(ob, it->row);
    item_free(it);
}

void store_outbox_split(store_outbox *ob, item *it, size_t only, const uint64_t *inbox_seqs, mesh_time now)
{
    store_chat *chat;
    if (store_chats_get(ob->fsm->chats, it->chat, &chat) != MESH_OK) {
        ob->fsm->error = MESH_CORRUPT;
        return;
    }
    store_splitter_begin(ob->splitter, only);
    for (size_t i = 0; i < chat->n_members; i++) {
        const store_member *member = chat->members[i];
        if (store_member_entitled(member, it->seq)) {
            store_splitter_add(ob->splitter, member->user, store_member_prev(member, it->seq),
                               inbox_seqs != NULL ? inbox_seqs[i] : 0);
        }
    }
    size_t n;
    store_parcel **parcels = store_splitter_end(ob->splitter, STORE_RESEND_MS, &ob->last_parcel, &n);
    store_outbox_attach(ob, it, parcels, n, only, now);
}

/* Take an item into the window and send it. */
static void admit(store_outbox *ob, store_outbox_row *row, size_t position, const store_owed *owed, mesh_time now,
                  mesh_out *out)
{
    item *it = store_outbox_enter(ob, row, row->index << STORE_OUTBOX_ROW_SHIFT | position, owed->entry);
    it->trace = owed->trace;
    store_outbox_split(ob, it, STORE_PARCEL_ALL, owed->inbox_seqs, now);
    if (it->n_parcels > 0) {
        store_outbox_send(ob, it, owed->entry, now, out);
    } else {
        store_outbox_finish(ob, it);
    }
}

/* Nobody's here: another shard delivers it, or nothing can. */
static void skip(store_outbox *ob, store_outbox_row *row)
{
    ob->backlog--;
    row->left--;
}

bool store_outbox_is_ours(const store_outbox *ob, const char *chat)
{
    return store_fsm_owns_id(ob->fsm, chat);
}

void store_outbox_slots(store_outbox *ob)
{
    for (item *it = ob->first; it != NULL;) {
        item *next = it->after;
        if (!store_outbox_is_ours(ob, it->chat)) {
            store_outbox_drop(ob, it);
        }
        it = next;
    }
}

bool store_outbox_has_room(const store_outbox *ob)
{
    return ob->n_window < STORE_OUTBOX_WINDOW;
}

void store_outbox_owe(store_outbox *ob, uint64_t index, mesh_time now, mesh_out *out)
{
    const store_fsm *fsm = ob->fsm;
    if (!ob->started || fsm->n_owed == 0) {
        return;
    }
    ob->backlog += fsm->n_owed;
    if (ob->waiting > 0) {
        ob->waiting++;
        return;
    }
    store_outbox_row *row = row_new(ob, index, fsm->n_owed);
    size_t i = 0;
    for (; i < fsm->n_owed && fsm->error == MESH_OK && store_outbox_has_room(ob); i++) {
        if (store_outbox_is_ours(ob, fsm->owed[i].entry->chat)) {
            admit(ob, row, i, &fsm->owed[i], now, out);
        } else {
            skip(ob, row);
        }
    }
    ob->next_load = i == fsm->n_owed ? index + 1 : index;
    if (i == fsm->n_owed) {
        store_outbox_settle(ob, row);
    } else {
        row->next = i;
        ob->part = row;
        ob->waiting = 1;
    }
}

/* ---- rows ---- */

mesh_err store_outbox_unpack(store_outbox *ob, mesh_slice value, const Store__OutboxRow **row_p)
{
    ProtobufCMessage *message;
    mesh_arena_reset(ob->row_arena);
    if (mesh_wire_unpack(&store__outbox_row__descriptor, value, ob->row_arena, &message) != MESH_OK) {
        return MESH_CORRUPT;
    }
    *row_p = (const Store__OutboxRow *)message;
    return MESH_OK;
}

mesh_err store_outbox_start(store_outbox *ob)
{
    store_key prefix;
    store_key_outboxes(&prefix);
    store_kv_iter *it = store_kv_iter_new(ob->fsm->kv, store_key_slice(&prefix));
    mesh_err err = MESH_OK;
    for (store_kv_iter_first(it); err == MESH_OK && store_kv_iter_valid(it); store_kv_iter_next(it)) {
        const Store__OutboxRow *row;
        err = store_outbox_unpack(ob, store_kv_iter_value(it), &row);
        if (err == MESH_OK) {
            ob->backlog += row->n_items;
            ob->waiting++;
        }
    }
    if (err == MESH_OK) {
        err = store_kv_iter_status(it);
    }
    store_kv_iter_destroy(&it);
    store_outbox_lanes_start(ob);
    ob->started = err == MESH_OK;
    return err;
}

/* Its items, from where it was left, as far as there is room. True: all were looked at. */
static bool admit_row(store_outbox *ob, store_outbox_row *row, const Store__OutboxRow *stored, size_t *left_p,
                      mesh_time now, mesh_out *out)
{
    for (; row->next < stored->n_items; row->next++, --*left_p) {
        const Store__OutboxItem *owed = stored->items[row->next];
        if (*left_p == 0 || !store_outbox_has_room(ob) || ob->fsm->error != MESH_OK) {
            return false;
        }
        if (!store_outbox_is_ours(ob, owed->chat)) {
            skip(ob, row);
            continue;
        }
        mesh_arena_reset(ob->arena);
        Mesh__Entry *entry = store_outbox_entry(ob, owed->chat, owed->seq);
        if (entry == NULL && ob->fsm->error != MESH_OK) {
            return false;
        }
        if (entry == NULL) {
            skip(ob, row); /* it is owed, and not there */
            continue;
        }
        admit(ob, row, row->next, &(store_owed){ .entry = entry }, now, out);
    }
    return true;
}

/* The oldest rows that wait, as far as the window has room. True: it has more. */
static bool load(store_outbox *ob, mesh_time now, mesh_out *out)
{
    store_key key;
    size_t left = LOAD_ITEMS;
    store_key_outboxes(&key);
    store_kv_iter *it = store_kv_iter_new(ob->fsm->kv, store_key_slice(&key));
    store_key_outbox(&key, ob->next_load);
    store_kv_iter_seek(it, store_key_slice(&key));
    while (ob->waiting > 0 && store_kv_iter_valid(it) && ob->fsm->error == MESH_OK) {
        const Store__OutboxRow *stored;
        if (store_outbox_unpack(ob, store_kv_iter_value(it), &stored) != MESH_OK) {
            ob->fsm->error = MESH_CORRUPT;
            break;
        }
        uint64_t index = store_key_number(store_kv_iter_key(it));
        store_outbox_row *row = ob->part != NULL ? ob->part : row_new(ob, index, stored->n_items);
        ob->part = row;
        ob->next_load = index;
        if (!admit_row(ob, row, stored, &left, now, out)) {
            break;
        }
        ob->part = NULL;
        ob->next_load = index + 1;
        ob->waiting--;
        store_outbox_settle(ob, row);
        store_kv_iter_next(it);
    }
    if (store_kv_iter_status(it) != MESH_OK) {
        ob->fsm->error = MESH_CORRUPT;
    }
    store_kv_iter_destroy(&it);
    store_chats_evict(ob->fsm->chats);
    return left == 0 && ob->waiting > 0;
}

/* ---- the turn ---- */

static void count(store_outbox *ob, mesh_time now)
{
    ob->most_aside = ob->n_aside > 0 ? store_outbox_most_aside(ob) : 0;
    uint64_t wall = now.wall > 0 ? (uint64_t)now.wall : 0;
    uint64_t oldest = ob->first != NULL ? ob->first->ts_ms : wall;
    uint64_t aside = ob->n_aside > 0 ? store_outbox_oldest_aside(ob) : wall;
    mesh_stats_set(ob->fsm->stats, STORE_M_OUTBOX_ITEMS, ob->backlog);
    mesh_stats_set(ob->fsm->stats, STORE_M_OUTBOX_WINDOW, ob->n_window);
    mesh_stats_set(ob->fsm->stats, STORE_M_OUTBOX_AGE_MS, wall > oldest ? wall - oldest : 0);
    mesh_stats_set(ob->fsm->stats, STORE_M_OUTBOX_ASIDE, ob->n_aside);
    mesh_stats_set(ob->fsm->stats, STORE_M_OUTBOX_ASIDE_AGE_MS, wall > aside ? wall - aside : 0);
}

/* Rows are loaded many at a time, and those that come back take none of that room. */
static bool may_load(const store_outbox *ob)
{
    return ob->waiting > 0 && ob->fsm->error == MESH_OK && ob->n_window - ob->n_again <= STORE_OUTBOX_WINDOW / 2 &&
           ob->n_aside < STORE_OUTBOX_BACKLOG_MAX;
}

mesh_ms store_outbox_turn(store_outbox *ob, mesh_time now, mesh_out *out)
{
    if (!ob->started) {
        return MESH_NEVER;
    }
    store_outbox_look(ob, now);
    bool more = ob->n_aside > 0 && store_outbox_bring_back(ob, now, out);
    if (may_load(ob)) {
        more = load(ob, now, out) || more;
    }
    store_outbox_send_due(ob, now, out);
    count(ob, now);
    mesh_ms next = more ? now.mono + 1 : ob->next_due;
    return ob->next_look < next ? ob->next_look : next;
}

size_t store_outbox_take_done(store_outbox *ob, uint64_t *indexes, size_t max)
{
    size_t n = ob->n_done < max ? ob->n_done : max;
    if (n > 0) {
        memcpy(indexes, ob->done, n * sizeof *indexes);
        ob->n_done -= n;
        memmove(ob->done, ob->done + n, ob->n_done * sizeof *ob->done);
    }
    return n;
}

size_t store_outbox_done(const store_outbox *ob)
{
    return ob->n_done;
}

uint64_t store_outbox_items(const store_outbox *ob)
{
    return ob->backlog - (ob->n_aside > ob->most_aside ? ob->n_aside - ob->most_aside : 0);
}

store_outbox *store_outbox_new(store_fsm *fsm)
{
    store_outbox *ob = mesh_alloc(sizeof *ob);
    ob->fsm = fsm;
    ob->items = mesh_table_new(fsm->hash_key);
    ob->chats = mesh_table_new(fsm->hash_key);
    ob->n_routers = mesh_conf_nodes(fsm->conf);
    ob->routers = mesh_alloc(ob->n_routers * sizeof *ob->routers);
    ob->splitter = store_splitter_new(fsm->ring, ob->n_routers, fsm->eras);
    ob->next_due = MESH_NEVER;
    ob->next_look = MESH_NEVER;
    ob->last_parcel = (uint32_t)(fsm->applied << 12); /* no answer to what an earlier leader sent fits one of this */
    ob->arena = mesh_arena_new();
    ob->row_arena = mesh_arena_new();
    return ob;
}

void store_outbox_destroy(store_outbox **ob_p)
{
    store_outbox *ob = *ob_p;
    if (ob == NULL) {
        return;
    }
    while (ob->first != NULL) {
        item *next = ob->first->after;
        item_free(ob->first);
        ob->first = next;
    }
    while (ob->rows != NULL) {
        row_free(ob, ob->rows);
    }
    store_outbox_lanes_fini(ob);
    mesh_table_destroy(&ob->items);
    mesh_table_destroy(&ob->chats);
    mesh_buf_fini(&ob->value);
    mesh_arena_destroy(&ob->arena);
    mesh_arena_destroy(&ob->row_arena);
    free(ob->routers);
    free(ob->done);
    store_splitter_destroy(&ob->splitter);
    free(ob);
    *ob_p = NULL;
}
