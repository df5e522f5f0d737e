#include "store/slot.h"

#include <stdlib.h>
#include <string.h>

#include "mesh/alloc.h"
#include "store/core.h"
#include "store/fsm.h"
#include "store/kv_rows.h"

/* ---- its row ---- */

static mesh_err load_row(store_fsm *fsm, mesh_slot slot, mesh_slice value)
{
    ProtobufCMessage *message;
    if (mesh_wire_unpack(&store__slot_row__descriptor, value, fsm->arena, &message) != MESH_OK) {
        return MESH_CORRUPT;
    }
    const Store__SlotRow *row = (const Store__SlotRow *)message;
    store_slot *s = &fsm->slots[slot];
    if (row->state > STORE_SLOT_HELD || row->after.len > STORE_KEY_MAX) {
        return MESH_CORRUPT;
    }
    s->state = (store_slot_state)row->state;
    s->shard = row->shard;
    s->move = row->move;
    s->mapped = row->mapped;
    if (row->after.len > 0) {
        mesh_buf_put(&s->after, row->after.data, row->after.len);
    }
    fsm->eras[slot] = row->era;
    return MESH_OK;
}

mesh_err store_slot_load(store_fsm *fsm)
{
    store_key prefix;
    mesh_err err = MESH_OK;
    store_key_slots(&prefix);
    store_kv_iter *it = store_kv_iter_new(fsm->kv, store_key_slice(&prefix));
    for (store_kv_iter_first(it); err == MESH_OK && store_kv_iter_valid(it); store_kv_iter_next(it)) {
        mesh_slice key = store_kv_iter_key(it);
        unsigned slot = key.size == STORE_KEY_SLOT ? (unsigned)key.data[1] << 8 | key.data[2] : MESH_SLOTS;
        err = slot < MESH_SLOTS ? load_row(fsm, (mesh_slot)slot, store_kv_iter_value(it)) : MESH_CORRUPT;
    }
    err = err == MESH_OK ? store_kv_iter_status(it) : err;
    store_kv_iter_destroy(&it);
    return err;
}

void store_slot_save(store_fsm *fsm, mesh_slot slot)
{
    const store_slot *s = &fsm->slots[slot];
    Store__SlotRow row = STORE__SLOT_ROW__INIT;
    store_key key;
    row.state = (uint32_t)s->state;
    row.shard = s->shard;
    row.move = s->move;
    row.mapped = s->mapped;
    row.era = fsm->eras[slot];
    row.after.data = s->after.data;
    row.after.len = s->after.size;
    store_key_slot(&key, slot);
    store_rows_pack(fsm->rows, &key, &row, STORE_ROW_ONLY);
}

mesh_slot store_slot_leaving(const store_fsm *fsm)
{
    mesh_slot slot = 0;
    while (slot < MESH_SLOTS && fsm->slots[slot].state != STORE_SLOT_LEAVING) {
        slot++;
    }
    return slot;
}

bool store_slot_has(mesh_slot slot, mesh_slice key)
{
    return key.size > STORE_KEY_SLOT && key.data[0] != 0 && strchr(STORE_SLOT_TABLES, key.data[0]) != NULL &&
           key.data[1] == slot >> 8 && key.data[2] == (slot & 0xff);
}

/* ---- the end of an entry ---- */

void store_slot_touch(store_fsm *fsm, mesh_slot slot)
{
    if (fsm->n_moved == fsm->cap_moved) {
        fsm->cap_moved = fsm->cap_moved == 0 ? 4 : 2 * fsm->cap_moved;
        fsm->moved = mesh_realloc(fsm->moved, fsm->cap_moved * sizeof *fsm->moved);
    }
    fsm->moved[fsm->n_moved++] = slot;
    fsm->slots_changed = true;
}

typedef struct collector {
    store_fsm *fsm;
    mesh_slot slot;
    uint64_t number; /* of the next row */
    Store__OutboxItem items[STORE_SLOT_OWED];
    Store__OutboxItem *list[STORE_SLOT_OWED];
    size_t n;
} collector;

static void write_owed(collector *c)
{
    Store__OutboxRow row = STORE__OUTBOX_ROW__INIT;
    store_key key;
    if (c->n > 0) {
        row.n_items = c->n;
        row.items = c->list;
        store_key_owed(&key, c->slot, c->number++);
        store_rows_pack(c->fsm->rows, &key, &row, STORE_ROW_ONLY);
    }
    c->n = 0;
}

static void collect(collector *c, const char *chat, uint64_t seq)
{
    if (mesh_id_slot(c->fsm->hash_key, chat) != c->slot) {
        return;
    }
    Store__OutboxItem *item = &c->items[c->n];
    store__outbox_item__init(item);
    item->chat = mesh_arena_strdup(c->fsm->arena, chat);
    item->seq = seq;
    c->list[c->n++] = item;
    if (c->n == STORE_SLOT_OWED) {
        write_owed(c);
    }
}

/* Behind those that came with the slot and are still owed. */
static mesh_err first_number(store_fsm *fsm, mesh_slot slot, uint64_t *number_p)
{
    store_key prefix;
    store_key_slot_rows(&prefix, 'w', slot);
    store_kv_iter *it = store_kv_iter_new(fsm->kv, store_key_slice(&prefix));
    store_kv_iter_last(it);
    *number_p = store_kv_iter_valid(it) ? store_key_number(store_kv_iter_key(it)) + 1 : 1;
    mesh_err err = store_kv_iter_status(it);
    store_kv_iter_destroy(&it);
    return err;
}

/* All that the outbox has of chats in the slot. Some may be delivered, and not yet known to be: they are owed again.
 * What this very entry owes is in no row yet. */
static mesh_err collect_owed(store_fsm *fsm, mesh_slot slot)
{
    collector *c = mesh_arena_alloc(fsm->arena, sizeof *c);
    store_key prefix;
    c->fsm = fsm;
    c->slot = slot;
    mesh_err err = first_number(fsm, slot, &c->number);
    store_key_outboxes(&prefix);
    store_kv_iter *it = store_kv_iter_new(fsm->kv, store_key_slice(&prefix));
    for (store_kv_iter_first(it); err == MESH_OK && store_kv_iter_valid(it); store_kv_iter_next(it)) {
        ProtobufCMessage *message;
        err = mesh_wire_unpack(&store__outbox_row__descriptor, store_kv_iter_value(it), fsm->arena, &message);
        const Store__OutboxRow *row = (const Store__OutboxRow *)message;
        for (size_t i = 0; err == MESH_OK && i < row->n_items; i++) {
            collect(c, row->items[i]->chat, row->items[i]->seq);
        }
    }
    err = err == MESH_OK ? store_kv_iter_status(it) : err;
    store_kv_iter_destroy(&it);
    for (size_t i = 0; i < fsm->n_owed; i++) {
        collect(c, fsm->owed[i].entry->chat, fsm->owed[i].entry->seq);
    }
    write_owed(c);
    return err;
}

void store_slot_settle(store_fsm *fsm)
{
    for (size_t i = 0; i < fsm->n_moved && fsm->error == MESH_OK; i++) {
        mesh_slot slot = fsm->moved[i];
        store_slot *s = &fsm->slots[slot];
        if (s->state == STORE_SLOT_LEAVING && s->after.size == 0) {
            if (collect_owed(fsm, slot) != MESH_OK) {
                fsm->error = MESH_CORRUPT;
            }
        } else if (s->state == STORE_SLOT_ARRIVING) {
            s->state = STORE_SLOT_HELD;
            mesh_buf_clear(&s->after);
            store_slot_save(fsm, slot);
        }
    }
}

void store_slot_forget(store_fsm *fsm)
{
    for (size_t i = 0; i < fsm->n_moved; i++) {
        store_chats_forget(fsm->chats, fsm->moved[i]);
        store_users_forget(fsm->users, fsm->moved[i]);
        store_rows_forget(fsm->rows, fsm->moved[i]);
    }
}

/* ---- parts ---- */

/* An inbox row that only says where the entry is becomes the entry: its chat need not be where the inbox goes. */
static mesh_err whole_row(store_fsm *fsm, mesh_arena *arena, mesh_slice value, mesh_buf *whole)
{
    ProtobufCMessage *message;
    Mesh__Entry *entry;
    if (mesh_wire_unpack(&mesh__entry__descriptor, value, arena, &message) != MESH_OK) {
        return MESH_CORRUPT;
    }
    entry = (Mesh__Entry *)message;
    if (entry->body_elsewhere) {
        mesh_err err = store_fsm_long_entry(fsm, arena, entry->chat, entry->seq, &entry);
        if (err == MESH_NOT_FOUND) {
            store_fsm_absent(fsm, entry->chat, entry->seq);
            entry->body_elsewhere = false; /* nor is it where the inbox goes */
        } else if (err != MESH_OK) {
            return MESH_CORRUPT;
        }
    }
    mesh_buf_clear(whole);
    mesh_wire_pack(entry, whole);
    return MESH_OK;
}

typedef struct part {
    store_fsm *fsm;
    mesh_arena *arena;
    mesh_buf *rows;
    mesh_buf whole; /* an inbox row */
    bool full;
} part;

static mesh_err put_row(part *p, char table, mesh_slice key, mesh_slice value)
{
    if (table == 'i') {
        mesh_err err = whole_row(p->fsm, p->arena, value, &p->whole);
        if (err != MESH_OK) {
            return err;
        }
        value = mesh_buf_slice(&p->whole);
    }
    size_t size = STORE_KV_ROW_HEAD + key.size + value.size;
    p->full = p->rows->size > 0 && p->rows->size + size > STORE_SLOT_PART;
    if (!p->full) {
        store_kv_rows_put(p->rows, key, value);
    }
    return MESH_OK;
}

static bool same_key(mesh_slice a, mesh_slice b)
{
    return a.size == b.size && memcmp(a.data, b.data, a.size) == 0;
}

static mesh_err put_table(part *p, mesh_slot slot, char table, mesh_slice after)
{
    store_key prefix;
    mesh_err err = MESH_OK;
    store_key_slot_rows(&prefix, table, slot);
    store_kv_iter *it = store_kv_iter_new(p->fsm->kv, store_key_slice(&prefix));
    if (after.size > 0 && after.data[0] == (uint8_t)table) {
        store_kv_iter_seek(it, after);
        if (store_kv_iter_valid(it) && same_key(store_kv_iter_key(it), after)) {
            store_kv_iter_next(it);
        }
    } else {
        store_kv_iter_first(it);
    }
    for (; err == MESH_OK && !p->full && store_kv_iter_valid(it);) {
        err = put_row(p, table, store_kv_iter_key(it), store_kv_iter_value(it));
        if (err == MESH_OK && !p->full) {
            store_kv_iter_next(it);
        }
    }
    err = err == MESH_OK ? store_kv_iter_status(it) : err;
    store_kv_iter_destroy(&it);
    return err;
}

mesh_err store_slot_part(store_fsm *fsm, mesh_arena *arena, mesh_slot slot, mesh_slice after, mesh_buf *rows,
                         bool *last)
{
    part p = { .fsm = fsm, .arena = arena, .rows = rows };
    mesh_err err = MESH_OK;
    mesh_buf_clear(rows);
    for (const char *table = STORE_SLOT_TABLES; *table != '\0' && err == MESH_OK && !p.full; table++) {
        if (after.size == 0 || after.data[0] <= (uint8_t)*table) {
            err = put_table(&p, slot, *table, after);
        }
    }
    mesh_buf_fini(&p.whole);
    *last = !p.full;
    return err;
}
