/* Items enter the window as log entries are applied, or from their rows when it has room again, and leave it when
 * nothing of them is owed. What happens in between: store/outbox_send.c. */
#include "store/outbox.h"

#include <stdlib.h>
#include <string.h>

#include "mesh/alloc.h"
#include "mesh/table.h"
#include "store/core.h"
#include "store/metrics.h"
#include "store/outbox_state.h"

typedef store_outbox_item item;

static void item_free(item *it)
{
    for (size_t i = 0; i < it->n_parcels; i++) {
        free(it->parcels[i]);
    }
    free(it->parcels);
    free(it);
}

/* ---- items ---- */

static void row_finish(store_outbox *ob, store_outbox_row *row)
{
    if (ob->n_done == ob->cap_done) {
        ob->cap_done = ob->cap_done == 0 ? 256 : 2 * ob->cap_done;
        ob->done = mesh_realloc(ob->done, ob->cap_done * sizeof *ob->done);
    }
    ob->done[ob->n_done++] = row->index;
    free(row);
}

static void chat_join(store_outbox *ob, item *it)
{
    it->older = mesh_table_get(ob->chats, mesh_table_str(it->chat));
    if (it->older != NULL) {
        it->older->newer = it;
        mesh_table_remove(ob->chats, mesh_table_str(it->chat)); /* its key was the older one's */
    }
    mesh_table_put(ob->chats, mesh_table_str(it->chat), it);
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

void store_outbox_finish(store_outbox *ob, item *it)
{
    mesh_table_remove(ob->items, mesh_table_u64(&it->id));
    zlistx_delete(ob->order, it->handle);
    chat_part(ob, it);
    ob->backlog--;
    if (--it->row->left == 0) {
        row_finish(ob, it->row);
    }
    item_free(it);
}

/* Take an item into the window and send it. */
static void admit(store_outbox *ob, store_outbox_row *row, size_t position, const store_owed *owed, mesh_time now,
                  mesh_out *out)
{
    Mesh__Entry *entry = owed->entry;
    store_chat *chat;
    if (store_chats_get(ob->fsm->chats, entry->chat, &chat) != MESH_OK) {
        ob->fsm->error = MESH_CORRUPT;
        return;
    }
    size_t size = strlen(entry->chat) + 1;
    item *it = mesh_alloc(sizeof *it + size);
    it->id = row->index << STORE_OUTBOX_ROW_SHIFT | position;
    it->row = row;
    it->seq = entry->seq;
    it->ts_ms = entry->ts_ms;
    it->trace = owed->trace;
    memcpy(it->chat, entry->chat, size);
    mesh_table_put(ob->items, mesh_table_u64(&it->id), it);
    it->handle = zlistx_add_end(ob->order, it);
    chat_join(ob, it);

    store_splitter_begin(ob->splitter);
    for (size_t i = 0; i < chat->n_members; i++) {
        const store_member *member = chat->members[i];
        if (store_member_entitled(member, entry->seq)) {
            store_splitter_add(ob->splitter, member->user, store_member_prev(member, entry->seq),
                               owed->inbox_seqs != NULL ? owed->inbox_seqs[i] : 0);
        }
    }
    it->parcels = store_splitter_end(ob->splitter, STORE_RESEND_MS, &it->last_parcel, &it->n_parcels);
    if (it->n_parcels == 0) {
        store_outbox_finish(ob, it);
    } else {
        store_outbox_send(ob, it, entry, now, out);
    }
}

/* Nobody's here any more: another shard delivers it. */
static void skip(store_outbox *ob, store_outbox_row *row)
{
    ob->backlog--;
    row->left--;
}

static bool is_ours(const store_outbox *ob, const char *chat)
{
    return store_fsm_owns_id(ob->fsm, chat);
}

void store_outbox_slots(store_outbox *ob)
{
    for (item *it = zlistx_first(ob->order); it != NULL;) {
        item *next = zlistx_next(ob->order);
        if (!is_ours(ob, it->chat)) {
            store_outbox_drop(ob, it);
        }
        it = next;
    }
}

static bool window_has_room(const store_outbox *ob, size_t n)
{
    return zlistx_size(ob->order) + n <= STORE_OUTBOX_WINDOW;
}

static store_outbox_row *row_new(uint64_t index, size_t n)
{
    store_outbox_row *row = mesh_alloc(sizeof *row);
    *row = (store_outbox_row){ .index = index, .left = n };
    return row;
}

/* All its items were looked at, or broken rows were found on the way: then nothing of it is ever finished, and it lives
 * as long as those that came into the window. */
static void row_admitted(store_outbox *ob, store_outbox_row *row)
{
    const item *last = zlistx_tail(ob->order);
    if (--row->left == 0) {
        row_finish(ob, row);
    } else if (ob->fsm->error != MESH_OK && (last == NULL || last->row != row)) {
        free(row);
    }
}

void store_outbox_owe(store_outbox *ob, uint64_t index, mesh_time now, mesh_out *out)
{
    const store_fsm *fsm = ob->fsm;
    if (!ob->started || fsm->n_owed == 0) {
        return;
    }
    ob->backlog += fsm->n_owed;
    if (ob->waiting > 0 || !window_has_room(ob, fsm->n_owed)) {
        ob->waiting++;
        return;
    }
    ob->next_load = index + 1;
    store_outbox_row *row = row_new(index, fsm->n_owed + 1); /* one more, so that it outlives items that owe nobody */
    for (size_t i = 0; i < fsm->n_owed && fsm->error == MESH_OK; i++) {
        if (is_ours(ob, fsm->owed[i].entry->chat)) {
            admit(ob, row, i, &fsm->owed[i], now, out);
        } else {
            skip(ob, row);
        }
    }
    row_admitted(ob, row);
}

/* ---- rows ---- */

static mesh_err unpack_row(mesh_slice value, mesh_arena *arena, const Store__OutboxRow **row_p)
{
    ProtobufCMessage *message;
    mesh_err err = mesh_wire_unpack(&store__outbox_row__descriptor, value, arena, &message);
    if (err != MESH_OK) {
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
        mesh_arena_reset(ob->arena);
        err = unpack_row(store_kv_iter_value(it), ob->arena, &row);
        if (err == MESH_OK) {
            ob->backlog += row->n_items;
            ob->waiting++;
        }
    }
    if (err == MESH_OK) {
        err = store_kv_iter_status(it);
    }
    store_kv_iter_destroy(&it);
    ob->started = err == MESH_OK;
    return err;
}

static void admit_row(store_outbox *ob, uint64_t index, const Store__OutboxRow *stored, mesh_time now, mesh_out *out)
{
    store_outbox_row *row = row_new(index, stored->n_items + 1);
    for (size_t i = 0; i < stored->n_items && ob->fsm->error == MESH_OK; i++) {
        if (!is_ours(ob, stored->items[i]->chat)) {
            skip(ob, row);
            continue;
        }
        Mesh__Entry *entry = store_outbox_entry(ob, stored->items[i]->chat, stored->items[i]->seq);
        if (entry != NULL) {
            admit(ob, row, i, &(store_owed){ .entry = entry }, now, out);
        } else if (ob->fsm->error == MESH_OK) {
            skip(ob, row); /* it is owed, and not there */
        }
    }
    row_admitted(ob, row);
}

/* The oldest rows that wait, as far as the window has room. The arena is not reset while a row is in it. */
static void load(store_outbox *ob, mesh_time now, mesh_out *out)
{
    store_key key;
    store_key_outboxes(&key);
    store_kv_iter *it = store_kv_iter_new(ob->fsm->kv, store_key_slice(&key));
    store_key_outbox(&key, ob->next_load);
    store_kv_iter_seek(it, store_key_slice(&key));
    while (ob->waiting > 0 && store_kv_iter_valid(it) && ob->fsm->error == MESH_OK) {
        const Store__OutboxRow *row;
        mesh_arena_reset(ob->arena);
        if (unpack_row(store_kv_iter_value(it), ob->arena, &row) != MESH_OK) {
            ob->fsm->error = MESH_CORRUPT;
            break;
        }
        if (!window_has_room(ob, row->n_items)) {
            break;
        }
        uint64_t index = store_key_number(store_kv_iter_key(it));
        admit_row(ob, index, row, now, out);
        ob->next_load = index + 1;
        ob->waiting--;
        store_kv_iter_next(it);
    }
    if (store_kv_iter_status(it) != MESH_OK) {
        ob->fsm->error = MESH_CORRUPT;
    }
    store_kv_iter_destroy(&it);
    store_chats_evict(ob->fsm->chats);
}

/* ---- the turn ---- */

mesh_ms store_outbox_turn(store_outbox *ob, mesh_time now, mesh_out *out)
{
    if (!ob->started) {
        return MESH_NEVER;
    }
    if (ob->waiting > 0 && zlistx_size(ob->order) <= STORE_OUTBOX_WINDOW / 2) {
        load(ob, now, out);
    }
    store_outbox_send_due(ob, now, out);
    const item *oldest = zlistx_head(ob->order);
    uint64_t wall = now.wall > 0 ? (uint64_t)now.wall : 0;
    uint64_t age = oldest != NULL && wall > oldest->ts_ms ? wall - oldest->ts_ms : 0;
    mesh_stats_set(ob->fsm->stats, STORE_M_OUTBOX_ITEMS, ob->backlog);
    mesh_stats_set(ob->fsm->stats, STORE_M_OUTBOX_WINDOW, zlistx_size(ob->order));
    mesh_stats_set(ob->fsm->stats, STORE_M_OUTBOX_AGE_MS, age);
    return ob->next_due;
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
    return ob->backlog;
}

store_outbox *store_outbox_new(store_fsm *fsm)
{
    store_outbox *ob = mesh_alloc(sizeof *ob);
    ob->fsm = fsm;
    ob->items = mesh_table_new(fsm->hash_key);
    ob->chats = mesh_table_new(fsm->hash_key);
    ob->order = zlistx_new();
    ob->n_routers = mesh_conf_nodes(fsm->conf);
    ob->routers = mesh_alloc(ob->n_routers * sizeof *ob->routers);
    ob->splitter = store_splitter_new(fsm->ring, ob->n_routers, fsm->eras);
    ob->next_due = MESH_NEVER;
    ob->arena = mesh_arena_new();
    return ob;
}

void store_outbox_destroy(store_outbox **ob_p)
{
    store_outbox *ob = *ob_p;
    if (ob == NULL) {
        return;
    }
    for (item *it = zlistx_first(ob->order); it != NULL;) { /* a row's items stand together */
        item *next = zlistx_next(ob->order);
        if (next == NULL || next->row != it->row) {
            free(it->row);
        }
        item_free(it);
        it = next;
    }
    mesh_table_destroy(&ob->items);
    mesh_table_destroy(&ob->chats);
    zlistx_destroy(&ob->order);
    mesh_arena_destroy(&ob->arena);
    free(ob->routers);
    free(ob->done);
    store_splitter_destroy(&ob->splitter);
    free(ob);
    *ob_p = NULL;
}
