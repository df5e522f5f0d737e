/* slot_move, slot_rows, map_set, slot_gone, slot_owed: the steps of a slot's way to another shard. See store/slot.h. */
#include <string.h>

#include "store/check.h"
#include "store/core.h"
#include "store/fsm.h"
#include "store/kv_rows.h"
#include "store/metrics.h"

#define GONE_BYTES (256u * 1024) /* of long entries that one SlotGone copies */

/* Nothing else is ever put into the log. */
static bool is_sound(store_fsm *fsm, bool sound)
{
    if (!sound) {
        fsm->error = MESH_CORRUPT;
    }
    return sound;
}

/* ---- at the shard it leaves ---- */

void store_apply_slot_move(store_fsm *fsm, const Mesh__Msg *msg, Mesh__Msg *answer)
{
    const Mesh__SlotMove *m = msg->slot_move;
    if (!is_sound(fsm, store_check_fields(msg))) {
        return;
    }
    mesh_slot slot = (mesh_slot)m->slot;
    store_slot *s = &fsm->slots[slot];
    if (s->state == STORE_SLOT_LEAVING && s->shard == m->shard) {
        store_fsm_done(fsm->arena, answer); /* asked again */
    } else if (m->shard == fsm->shard) {
        store_fsm_fault(fsm->arena, answer, FAULT_INVALID);
    } else if (store_slot_leaving(fsm) < MESH_SLOTS) {
        store_fsm_fault(fsm->arena, answer, FAULT_BUSY); /* one after the other */
    } else if (!store_fsm_owns(fsm, slot)) {
        store_fsm_fault(fsm->arena, answer, FAULT_NOT_FOUND);
    } else if (mesh_ring_shard(fsm->ring, slot) != fsm->shard) {
        store_fsm_fault(fsm->arena, answer, FAULT_UNAVAILABLE); /* it came just now: the map must know that first */
    } else {
        s->state = STORE_SLOT_LEAVING;
        s->shard = m->shard;
        s->move++;
        store_slot_save(fsm, slot);
        store_slot_touch(fsm, slot);
        store_fsm_done(fsm->arena, answer);
    }
}

/* Inboxes of this shard may refer to a long entry: it stays readable for them. */
static void keep_copy(store_fsm *fsm, mesh_slice key, mesh_slice value)
{
    store_key copy;
    memcpy(copy.data, key.data, key.size);
    copy.size = key.size;
    copy.data[0] = 'x';
    store_rows_put(fsm->rows, &copy, value, STORE_ROW_ONLY);
}

typedef struct gone {
    size_t rows, copied;
} gone;

static mesh_err delete_some(store_fsm *fsm, mesh_slot slot, char table, gone *g)
{
    store_key key;
    store_key_slot_rows(&key, table, slot);
    store_kv_iter *it = store_kv_iter_new(fsm->kv, store_key_slice(&key));
    for (store_kv_iter_first(it); store_kv_iter_valid(it) && g->rows < STORE_SLOT_GONE_ROWS && g->copied < GONE_BYTES;
         store_kv_iter_next(it)) {
        mesh_slice k = store_kv_iter_key(it);
        mesh_slice value = store_kv_iter_value(it);
        if (table == 'm' && value.size > STORE_INBOX_INLINE) {
            keep_copy(fsm, k, value);
            g->copied += value.size;
        }
        memcpy(key.data, k.data, k.size);
        key.size = k.size;
        store_rows_delete(fsm->rows, &key);
        g->rows++;
    }
    mesh_err err = store_kv_iter_status(it);
    store_kv_iter_destroy(&it);
    return err;
}

void store_apply_slot_gone(store_fsm *fsm, const Mesh__Msg *msg, Mesh__Msg *answer)
{
    (void)answer;
    if (!is_sound(fsm, msg->slot_gone->slot < MESH_SLOTS)) {
        return;
    }
    mesh_slot slot = (mesh_slot)msg->slot_gone->slot;
    store_slot *s = &fsm->slots[slot];
    gone g = { 0 };
    if (s->state != STORE_SLOT_LEAVING || s->move != msg->slot_gone->move ||
        mesh_ring_shard(fsm->ring, slot) == fsm->shard) {
        return;
    }
    for (const char *table = STORE_SLOT_TABLES; *table != '\0'; table++) {
        if (delete_some(fsm, slot, *table, &g) != MESH_OK) {
            fsm->error = MESH_CORRUPT;
            return;
        }
    }
    fsm->slots_changed = true;
    if (g.rows == 0) {
        s->state = STORE_SLOT_GONE;
        fsm->eras[slot] = 0;
        store_slot_save(fsm, slot);
        mesh_stats_add(fsm->stats, STORE_M_SLOTS_LEFT, 1);
    }
}

/* ---- at the shard it comes to ---- */

static void taken(store_fsm *fsm, const Mesh__SlotRows *part, bool whole, Mesh__Msg *answer)
{
    const store_slot *s = &fsm->slots[part->slot];
    Mesh__SlotTaken *t = mesh_arena_alloc(fsm->arena, sizeof *t);
    mesh__slot_taken__init(t);
    t->slot = part->slot;
    t->move = part->move;
    t->whole = whole;
    t->after.len = s->after.size;
    t->after.data = mesh_arena_alloc(fsm->arena, s->after.size + 1);
    if (s->after.size > 0) {
        memcpy(t->after.data, s->after.data, s->after.size);
    }
    answer->body_case = MESH__MSG__BODY_SLOT_TAKEN;
    answer->slot_taken = t;
}

static void put_rows(store_fsm *fsm, store_slot *s, mesh_slice rows)
{
    mesh_slice key, value;
    store_key copy;
    while (store_kv_rows_next(&rows, &key, &value) == MESH_OK) {
        memcpy(copy.data, key.data, key.size);
        copy.size = key.size;
        store_rows_put(fsm->rows, &copy, value, STORE_ROW_ONLY);
        mesh_buf_clear(&s->after);
        mesh_buf_put(&s->after, key.data, key.size);
    }
}

static void raise_fence(store_fsm *fsm, mesh_slot slot, uint64_t fence)
{
    uint8_t value[8];
    store_key key;
    if (fence > fsm->fences[slot]) {
        fsm->fences[slot] = fence;
        fsm->fence_max = fence > fsm->fence_max ? fence : fsm->fence_max;
        mesh_put_u64be(value, fence);
        store_key_fence(&key, slot);
        store_rows_put(fsm->rows, &key, (mesh_slice){ value, sizeof value }, STORE_ROW_ONLY);
    }
}

/* Whole in this entry, and this shard's from the next one on: what comes later in this one could not see the rows. */
static void arrive(store_fsm *fsm, const Mesh__SlotRows *part)
{
    mesh_slot slot = (mesh_slot)part->slot;
    raise_fence(fsm, slot, part->fence);
    fsm->eras[slot] = part->era != fsm->era ? part->era : 0;
    fsm->last_id = part->last_id > fsm->last_id ? part->last_id : fsm->last_id;
    store_slot_touch(fsm, slot);
    mesh_stats_add(fsm->stats, STORE_M_SLOTS_CAME, 1);
}

static bool is_touched(const store_fsm *fsm, mesh_slot slot)
{
    size_t i = 0;
    while (i < fsm->n_moved && fsm->moved[i] != slot) {
        i++;
    }
    return i < fsm->n_moved;
}

/* Does it begin where the last one ended? */
static bool goes_on(const Mesh__SlotRows *part, const store_slot *s)
{
    return part->after.len == s->after.size &&
           (s->after.size == 0 || memcmp(part->after.data, s->after.data, s->after.size) == 0);
}

void store_apply_slot_rows(store_fsm *fsm, const Mesh__Msg *msg, Mesh__Msg *answer)
{
    const Mesh__SlotRows *part = msg->slot_rows;
    if (!is_sound(fsm, store_check_fields(msg))) {
        return;
    }
    mesh_slot slot = (mesh_slot)part->slot;
    store_slot *s = &fsm->slots[slot];
    bool arriving = s->state == STORE_SLOT_ARRIVING;
    if (part->shard != fsm->shard) {
        store_fsm_fault(fsm->arena, answer, FAULT_INVALID);
        return;
    }
    if (part->move < s->move || (part->move == s->move && (!arriving || is_touched(fsm, slot)))) {
        taken(fsm, part, true, answer);
        return;
    }
    if (part->move > s->move) {
        if (s->state == STORE_SLOT_LEAVING) { /* of the move before this one: its rows have to go first */
            store_fsm_elsewhere(fsm->arena, answer);
            return;
        }
        if (s->state == STORE_SLOT_HELD || arriving) {
            store_fsm_fault(fsm->arena, answer, FAULT_INVALID);
            return;
        }
        s->state = STORE_SLOT_ARRIVING;
        s->move = part->move;
        s->shard = part->from;
        mesh_buf_clear(&s->after);
    }
    if (!goes_on(part, s)) {
        store_slot_save(fsm, slot);
        taken(fsm, part, false, answer);
        return;
    }
    put_rows(fsm, s, (mesh_slice){ part->rows.data, part->rows.len });
    if (part->last) {
        arrive(fsm, part);
    }
    store_slot_save(fsm, slot);
    taken(fsm, part, part->last, answer);
}

/* Items of the first row 'w', into what this entry owes. */
static mesh_err take_owed(store_fsm *fsm, mesh_slice value)
{
    ProtobufCMessage *message;
    if (mesh_wire_unpack(&store__outbox_row__descriptor, value, fsm->arena, &message) != MESH_OK) {
        return MESH_CORRUPT;
    }
    const Store__OutboxRow *row = (const Store__OutboxRow *)message;
    for (size_t i = 0; i < row->n_items && i < STORE_SLOT_OWED; i++) {
        const Store__OutboxItem *item = row->items[i];
        Mesh__Entry *entry;
        mesh_err err =
            store_fsm_entry(fsm, fsm->arena, mesh_id_slot(fsm->hash_key, item->chat), item->chat, item->seq, &entry);
        if (err == MESH_NOT_FOUND) {
            store_fsm_absent(fsm, item->chat, item->seq);
            continue;
        }
        if (err != MESH_OK) {
            return MESH_CORRUPT;
        }
        fsm->owed[fsm->n_owed++] = (store_owed){ .entry = entry };
    }
    return MESH_OK;
}

void store_apply_slot_owed(store_fsm *fsm, const Mesh__Msg *msg, Mesh__Msg *answer)
{
    (void)answer;
    if (!is_sound(fsm, msg->slot_owed->slot < MESH_SLOTS)) {
        return;
    }
    mesh_slot slot = (mesh_slot)msg->slot_owed->slot;
    store_key key;
    if (fsm->took_owed || !store_fsm_owns(fsm, slot)) {
        return;
    }
    store_key_slot_rows(&key, 'w', slot);
    store_kv_iter *it = store_kv_iter_new(fsm->kv, store_key_slice(&key));
    store_kv_iter_first(it);
    mesh_err err = MESH_OK;
    if (store_kv_iter_valid(it)) {
        store_key_owed(&key, slot, store_key_number(store_kv_iter_key(it)));
        err = take_owed(fsm, store_kv_iter_value(it));
        store_rows_delete(fsm->rows, &key);
        fsm->took_owed = true;
    }
    err = err == MESH_OK ? store_kv_iter_status(it) : err;
    store_kv_iter_destroy(&it);
    if (err != MESH_OK) {
        fsm->error = MESH_CORRUPT;
    }
}

/* ---- at shard 0 ---- */

/* The ring as it stands in its row: with routers that this replica's config does not know, too. NULL: fsm->error. */
static Mesh__Ring *stored_ring(store_fsm *fsm)
{
    ProtobufCMessage *row;
    mesh_slice value;
    store_key key;
    store_key_ring(&key);
    if (store_rows_get(fsm->rows, &key, false, &value) != MESH_OK ||
        mesh_wire_unpack(&mesh__ring__descriptor, value, fsm->arena, &row) != MESH_OK) {
        fsm->error = MESH_CORRUPT;
        return NULL;
    }
    return (Mesh__Ring *)row;
}

void store_apply_map_set(store_fsm *fsm, const Mesh__Msg *msg, Mesh__Msg *answer)
{
    const Mesh__MapSet *set = msg->map_set;
    if (!is_sound(fsm, store_check_fields(msg))) {
        return;
    }
    mesh_slot slot = (mesh_slot)set->slot;
    if (fsm->shard != 0 || mesh_ring_epoch(fsm->ring) == 0) {
        store_fsm_fault(fsm->arena, answer, FAULT_INVALID);
        return;
    }
    store_fsm_done(fsm->arena, answer);
    if (set->move <= fsm->slots[slot].mapped) {
        return;
    }
    Mesh__Ring *ring = stored_ring(fsm);
    if (ring == NULL) {
        return;
    }
    const Mesh__Ring *moved = mesh_ring_moved(fsm->ring, slot, set->shard, fsm->arena);
    ring->epoch = moved->epoch;
    ring->n_map = moved->n_map;
    ring->map = moved->map;
    if (mesh_ring_set(fsm->ring, ring) != MESH_OK) {
        fsm->error = MESH_CORRUPT;
        return;
    }
    store_key key;
    store_key_ring(&key);
    store_rows_pack(fsm->rows, &key, ring, STORE_ROW_ENTRY);
    fsm->slots[slot].mapped = set->move;
    store_slot_save(fsm, slot);
    fsm->ring_changed = true;
}
