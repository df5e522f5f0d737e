#include "store/outbox.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "mesh/alloc.h"
#include "mesh/table.h"
#include "store/core.h"
#include "store/metrics.h"
#include "store/parcel.h"

#define RETRY_MS 50     /* after a gap was filled, or the router asked for a retry */
#define GAP_ENTRIES 256 /* sent at once to fill one gap */

typedef struct outbox_row {
    uint64_t index;
    size_t left;
} outbox_row;

typedef struct item {
    uint64_t id;
    outbox_row *row;
    uint64_t seq, ts_ms;
    void *handle;
    uint32_t last_parcel;
    size_t n_parcels;
    store_parcel **parcels;
    char chat[];
} item;

struct store_outbox {
    store_fsm *fsm;
    bool started;
    zhashx_t *items;  /* by id */
    zlistx_t *order;  /* the window, oldest first */
    bool *up;         /* by peer */
    uint64_t backlog; /* items owed, in memory or not */
    uint64_t waiting; /* rows that are not in memory */
    uint64_t next_load;
    mesh_ms next_due;
    uint64_t *done;
    size_t n_done, cap_done;
    store_splitter *splitter;
    mesh_arena *arena; /* of entries read back */
};

static void item_free(item *it)
{
    for (size_t i = 0; i < it->n_parcels; i++) {
        free(it->parcels[i]);
    }
    free(it->parcels);
    free(it);
}

/* ---- sending ---- */

static void send_parcel(store_outbox *ob, item *it, store_parcel *p, Mesh__Entry *entry, mesh_ms wait, mesh_time now,
                        mesh_out *out)
{
    Mesh__Deliver deliver = MESH__DELIVER__INIT;
    deliver.item = it->id;
    deliver.parcel = p->number;
    deliver.entry = entry;
    deliver.n_users = p->n;
    deliver.users = p->list;
    MESH_MSG(msg, DELIVER, deliver, &deliver);
    msg.epoch = mesh_ring_epoch(ob->fsm->ring);
    mesh_out_put(out, p->peer, &msg);
    mesh_stats_add(ob->fsm->stats, p->sent ? STORE_M_RESENT : STORE_M_PARCELS, 1);
    p->sent = true;
    p->due = now.mono + wait;
    ob->next_due = p->due < ob->next_due ? p->due : ob->next_due;
}

static bool reachable(const store_outbox *ob, mesh_peer peer)
{
    return peer != MESH_NO_PEER && ob->up[peer] && mesh_ring_has(ob->fsm->ring, peer);
}

/* The item's entry, from its row. NULL: rows are broken, and fsm->error says so. */
static Mesh__Entry *read_entry(store_outbox *ob, const char *chat, uint64_t seq)
{
    Mesh__Entry *entry;
    if (store_fsm_entry(ob->fsm, ob->arena, chat, seq, &entry) != MESH_OK) {
        ob->fsm->error = MESH_CORRUPT;
        return NULL;
    }
    return entry;
}

/* Send every parcel of the item that can be sent and is due by `by`. entry: NULL = read it when needed. */
static void send_item(store_outbox *ob, item *it, Mesh__Entry *entry, mesh_ms by, mesh_time now, mesh_out *out)
{
    for (size_t i = 0; i < it->n_parcels; i++) {
        store_parcel *p = it->parcels[i];
        if (!reachable(ob, p->peer)) {
            p->due = MESH_NEVER;
            continue;
        }
        if (p->due > by && p->due != MESH_NEVER) {
            ob->next_due = p->due < ob->next_due ? p->due : ob->next_due;
            continue;
        }
        if (entry == NULL) {
            mesh_arena_reset(ob->arena);
            entry = read_entry(ob, it->chat, it->seq);
            if (entry == NULL) {
                return;
            }
        }
        if (p->sent) {
            p->backoff = p->backoff * 2 > 8 * STORE_RESEND_MS ? 8 * STORE_RESEND_MS : p->backoff * 2;
        }
        send_parcel(ob, it, p, entry, p->backoff, now, out);
    }
}

/* ---- items ---- */

static void row_finish(store_outbox *ob, outbox_row *row)
{
    if (ob->n_done == ob->cap_done) {
        ob->cap_done = ob->cap_done == 0 ? 256 : 2 * ob->cap_done;
        ob->done = mesh_realloc(ob->done, ob->cap_done * sizeof *ob->done);
    }
    ob->done[ob->n_done++] = row->index;
    free(row);
}

static void item_finish(store_outbox *ob, item *it)
{
    zhashx_delete(ob->items, &it->id);
    zlistx_delete(ob->order, it->handle);
    ob->backlog--;
    if (--it->row->left == 0) {
        row_finish(ob, it->row);
    }
    item_free(it);
}

/* Take an item into the window and send it. */
static void admit(store_outbox *ob, outbox_row *row, size_t position, Mesh__Entry *entry, mesh_time now, mesh_out *out)
{
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
    memcpy(it->chat, entry->chat, size);
    zhashx_insert(ob->items, &it->id, it);
    it->handle = zlistx_add_end(ob->order, it);

    store_splitter_begin(ob->splitter);
    for (size_t i = 0; i < chat->n_members; i++) {
        const store_member *member = chat->members[i];
        if (store_member_entitled(member, entry->seq)) {
            store_splitter_add(ob->splitter, member->user, store_member_prev(member, entry->seq));
        }
    }
    it->parcels = store_splitter_end(ob->splitter, STORE_RESEND_MS, &it->last_parcel, &it->n_parcels);
    if (it->n_parcels == 0) {
        item_finish(ob, it);
    } else {
        send_item(ob, it, entry, now.mono, now, out);
    }
}

static bool window_has_room(const store_outbox *ob, size_t n)
{
    return zlistx_size(ob->order) + n <= STORE_OUTBOX_WINDOW;
}

static outbox_row *row_new(uint64_t index, size_t n)
{
    outbox_row *row = mesh_alloc(sizeof *row);
    *row = (outbox_row){ .index = index, .left = n };
    return row;
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
    outbox_row *row = row_new(index, fsm->n_owed + 1); /* one more, so that it outlives items that owe nobody */
    for (size_t i = 0; i < fsm->n_owed && fsm->error == MESH_OK; i++) {
        admit(ob, row, i, fsm->owed[i], now, out);
    }
    if (--row->left == 0) {
        row_finish(ob, row);
    }
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
    outbox_row *row = row_new(index, stored->n_items + 1);
    for (size_t i = 0; i < stored->n_items && ob->fsm->error == MESH_OK; i++) {
        Mesh__Entry *entry = read_entry(ob, stored->items[i]->chat, stored->items[i]->seq);
        if (entry != NULL) {
            admit(ob, row, i, entry, now, out);
        }
    }
    if (--row->left == 0) {
        row_finish(ob, row);
    }
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

/* ---- answers ---- */

/* Entries of the chat this user is entitled to after `have` and before the item, to the router that asked. */
static void fill_gap(store_outbox *ob, const item *it, mesh_peer to, const char *user, uint64_t have, mesh_out *out)
{
    store_chat *chat;
    if (store_chats_get(ob->fsm->chats, it->chat, &chat) != MESH_OK) {
        ob->fsm->error = MESH_CORRUPT;
        return;
    }
    const store_member *member = store_chat_member(chat, user);
    size_t bytes = 0;
    for (unsigned n = 0; member != NULL && n < GAP_ENTRIES && bytes < STORE_PAGE_BYTES; n++) {
        uint64_t seq = store_member_next(member, have);
        if (seq == 0 || seq >= it->seq) {
            break;
        }
        mesh_arena_reset(ob->arena);
        Mesh__Recipient recipient = MESH__RECIPIENT__INIT;
        Mesh__Recipient *list[1] = { &recipient };
        Mesh__Deliver deliver = MESH__DELIVER__INIT;
        recipient.user = mesh_arena_strdup(ob->arena, user);
        recipient.prev = store_member_prev(member, seq);
        deliver.entry = read_entry(ob, it->chat, seq);
        if (deliver.entry == NULL) {
            return;
        }
        deliver.n_users = 1;
        deliver.users = list;
        MESH_MSG(msg, DELIVER, deliver, &deliver);
        msg.epoch = mesh_ring_epoch(ob->fsm->ring);
        mesh_out_put(out, to, &msg);
        bytes += mesh_wire_size(deliver.entry);
        mesh_stats_add(ob->fsm->stats, STORE_M_GAP_SENT, 1);
        have = seq;
    }
}

static bool parcel_has(const store_parcel *p, const char *user)
{
    for (size_t i = 0; i < p->n; i++) {
        if (strcmp(p->users[i].user, user) == 0) {
            return true;
        }
    }
    return false;
}

static void parcel_done(store_outbox *ob, item *it, size_t i)
{
    free(it->parcels[i]);
    it->n_parcels--;
    memmove(it->parcels + i, it->parcels + i + 1, (it->n_parcels - i) * sizeof *it->parcels);
    if (it->n_parcels == 0) {
        item_finish(ob, it);
    }
}

void store_outbox_delivered(store_outbox *ob, mesh_peer from, const Mesh__Delivered *delivered, mesh_time now,
                            mesh_out *out)
{
    item *it = zhashx_lookup(ob->items, &delivered->item);
    size_t i = 0;
    while (it != NULL && i < it->n_parcels && it->parcels[i]->number != delivered->parcel) {
        i++;
    }
    if (it == NULL || i == it->n_parcels || it->parcels[i]->peer != from) {
        return;
    }
    store_parcel *p = it->parcels[i];
    if (delivered->n_gaps == 0 && !delivered->retry) {
        parcel_done(ob, it, i);
        return;
    }
    for (size_t g = 0; g < delivered->n_gaps; g++) {
        if (reachable(ob, from) && parcel_has(p, delivered->gaps[g]->user)) {
            fill_gap(ob, it, from, delivered->gaps[g]->user, delivered->gaps[g]->expected, out);
        }
    }
    p->due = now.mono + RETRY_MS;
    p->backoff = STORE_RESEND_MS / 2; /* it answers: the next wait is a short one */
    ob->next_due = p->due < ob->next_due ? p->due : ob->next_due;
    store_chats_evict(ob->fsm->chats);
}

void store_outbox_up(store_outbox *ob, mesh_peer router, mesh_time now, mesh_out *out)
{
    ob->up[router] = true;
    if (!mesh_ring_has(ob->fsm->ring, router)) {
        return;
    }
    for (item *it = zlistx_first(ob->order); it != NULL && ob->fsm->error == MESH_OK; it = zlistx_next(ob->order)) {
        for (size_t i = 0; i < it->n_parcels; i++) {
            store_parcel *p = it->parcels[i];
            if (p->peer == router) {
                p->due = now.mono;
                p->backoff = p->sent ? STORE_RESEND_MS / 2 : STORE_RESEND_MS;
            }
        }
        send_item(ob, it, NULL, now.mono, now, out);
    }
}

void store_outbox_down(store_outbox *ob, mesh_peer router)
{
    ob->up[router] = false; /* its parcels find out when they are due */
}

/* Split again what the item still owes. */
static void split_again(store_outbox *ob, item *it, mesh_time now, mesh_out *out)
{
    store_parcel **old = it->parcels;
    size_t n = it->n_parcels;
    store_splitter_begin(ob->splitter);
    for (size_t i = 0; i < n; i++) {
        for (size_t k = 0; k < old[i]->n; k++) {
            store_splitter_add(ob->splitter, old[i]->users[k].user, old[i]->users[k].prev);
        }
    }
    it->parcels = store_splitter_end(ob->splitter, STORE_RESEND_MS, &it->last_parcel, &it->n_parcels);
    for (size_t i = 0; i < n; i++) {
        free(old[i]);
    }
    free(old);
    send_item(ob, it, NULL, now.mono, now, out);
}

void store_outbox_ring(store_outbox *ob, mesh_time now, mesh_out *out)
{
    for (item *it = zlistx_first(ob->order); it != NULL && ob->fsm->error == MESH_OK; it = zlistx_next(ob->order)) {
        split_again(ob, it, now, out);
    }
}

mesh_ms store_outbox_turn(store_outbox *ob, mesh_time now, mesh_out *out)
{
    if (!ob->started) {
        return MESH_NEVER;
    }
    if (ob->waiting > 0 && zlistx_size(ob->order) <= STORE_OUTBOX_WINDOW / 2) {
        load(ob, now, out);
    }
    if (now.mono >= ob->next_due) {
        ob->next_due = MESH_NEVER;
        for (item *it = zlistx_first(ob->order); it != NULL && ob->fsm->error == MESH_OK; it = zlistx_next(ob->order)) {
            send_item(ob, it, NULL, now.mono, now, out);
        }
    }
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
    size_t peers = mesh_conf_nodes(fsm->conf);
    ob->fsm = fsm;
    ob->items = mesh_table_u64();
    ob->order = zlistx_new();
    ob->up = mesh_alloc(peers * sizeof *ob->up);
    ob->splitter = store_splitter_new(fsm->ring, peers);
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
    for (item *it = zlistx_first(ob->order); it != NULL; it = zlistx_next(ob->order)) {
        if (--it->row->left == 0) {
            free(it->row);
        }
        item_free(it);
    }
    zhashx_destroy(&ob->items);
    zlistx_destroy(&ob->order);
    mesh_arena_destroy(&ob->arena);
    free(ob->up);
    free(ob->done);
    store_splitter_destroy(&ob->splitter);
    free(ob);
    *ob_p = NULL;
}
