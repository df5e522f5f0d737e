#include "store/mover.h"

#include <stdlib.h>
#include <string.h>

#include "mesh/alloc.h"
#include "store/slot.h"

#define MAP_WAIT_MS 1000 /* after the map was set: for the ring to come; then it is set again */
#define REFUSED_MAX_MS 1000

struct store_mover {
    store_fsm *fsm;
    mesh_arena *arena;
    mesh_buf rows;
    mesh_slot slot; /* that is leaving; MESH_SLOTS: none */
    uint64_t move;
    mesh_buf after; /* the other shard has all rows up to this key */
    bool whole;     /* and everything */
    uint64_t corr;  /* of the request on its way, 0: none */
    uint64_t next_corr;
    mesh_peer via; /* the router that was asked last */
    mesh_ms due;   /* when to ask */
    bool logging;  /* a message of ours is in the log and not applied */
    bool owed;     /* there may be rows of moved slots that the outbox has to take */
    /* of slots that came: */
    mesh_ms map_due;    /* when to look whether the map has them; MESH_NEVER: it was not looked yet */
    uint64_t map_epoch; /* of the map that was looked at */
    mesh_slot map_at;
    mesh_peer map_via;
};

store_mover *store_mover_new(store_fsm *fsm, uint64_t seed)
{
    store_mover *mover = mesh_alloc(sizeof *mover);
    mover->fsm = fsm;
    mover->arena = mesh_arena_new();
    mover->slot = MESH_SLOTS;
    mover->next_corr = seed;
    mover->via = mover->map_via = MESH_NO_PEER;
    mover->map_due = MESH_NEVER;
    store_mover_applied(mover);
    mover->owed = true;
    return mover;
}

void store_mover_destroy(store_mover **mover_p)
{
    store_mover *mover = *mover_p;
    if (mover != NULL) {
        mesh_arena_destroy(&mover->arena);
        mesh_buf_fini(&mover->rows);
        mesh_buf_fini(&mover->after);
        free(mover);
        *mover_p = NULL;
    }
}

static void begin(store_mover *mover, mesh_slot slot)
{
    mover->slot = slot;
    mover->move = slot < MESH_SLOTS ? mover->fsm->slots[slot].move : 0;
    mesh_buf_clear(&mover->after);
    mover->whole = false;
    mover->corr = 0;
    mover->due = 0;
}

void store_mover_applied(store_mover *mover)
{
    const store_fsm *fsm = mover->fsm;
    mover->logging = false;
    mover->owed = true;
    mesh_slot slot = store_slot_leaving(fsm);
    if (slot != mover->slot || (slot < MESH_SLOTS && fsm->slots[slot].move != mover->move)) {
        begin(mover, slot);
    }
}

/* ---- this shard's own log ---- */

/* The first slot with rows that are owed and that is this shard's; MESH_SLOTS: none. */
static mesh_slot find_owed(store_mover *mover)
{
    mesh_slot found = MESH_SLOTS;
    static const uint8_t table = 'w';
    store_kv_iter *it = store_kv_iter_new(mover->fsm->kv, (mesh_slice){ &table, 1 });
    store_kv_iter_first(it);
    while (found == MESH_SLOTS && store_kv_iter_valid(it)) {
        mesh_slice key = store_kv_iter_key(it);
        unsigned slot = key.size > STORE_KEY_SLOT ? (unsigned)key.data[1] << 8 | key.data[2] : MESH_SLOTS;
        if (slot < MESH_SLOTS && store_fsm_owns(mover->fsm, (mesh_slot)slot)) {
            found = (mesh_slot)slot;
        } else if (slot + 1 < MESH_SLOTS) { /* not this one's */
            store_key next;
            store_key_slot_rows(&next, 'w', (mesh_slot)(slot + 1));
            store_kv_iter_seek(it, store_key_slice(&next));
        } else {
            break;
        }
    }
    if (store_kv_iter_status(it) != MESH_OK) {
        mover->fsm->error = MESH_CORRUPT;
    }
    store_kv_iter_destroy(&it);
    return found;
}

/* The map says that it is not this shard's. That alone proves nothing: the map of a salvaged shard 0 may be an old one,
 * and the rows may be nowhere else. They go only when the new shard has said that it has all of them. */
static bool map_has_it(const store_mover *mover)
{
    return mesh_ring_shard(mover->fsm->ring, mover->slot) != mover->fsm->shard;
}

bool store_mover_wants(store_mover *mover, mesh_arena *arena, Mesh__Msg *msg)
{
    if (mover->logging) {
        return false;
    }
    mesh__msg__init(msg);
    if (mover->slot < MESH_SLOTS && mover->whole && map_has_it(mover)) {
        msg->body_case = MESH__MSG__BODY_SLOT_GONE;
        msg->slot_gone = mesh_arena_alloc(arena, sizeof *msg->slot_gone);
        mesh__slot_gone__init(msg->slot_gone);
        msg->slot_gone->slot = mover->slot;
        msg->slot_gone->move = mover->move;
        return mover->logging = true;
    }
    mesh_slot owed = MESH_SLOTS;
    if (mover->owed) {
        owed = find_owed(mover);
    }
    mover->owed = false;
    if (owed == MESH_SLOTS) {
        return false;
    }
    msg->body_case = MESH__MSG__BODY_SLOT_OWED;
    msg->slot_owed = mesh_arena_alloc(arena, sizeof *msg->slot_owed);
    mesh__slot_owed__init(msg->slot_owed);
    msg->slot_owed->slot = owed;
    return mover->logging = true;
}

/* ---- other shards ---- */

/* The next router that is up, after via, the one asked last. */
static bool next_router(const store_mover *mover, const uint64_t *up, mesh_peer *via)
{
    const mesh_conf *conf = mover->fsm->conf;
    size_t n = mesh_conf_nodes(conf);
    size_t from = *via == MESH_NO_PEER ? 0 : (size_t)*via + 1;
    for (size_t i = 0; i < n; i++) {
        mesh_peer peer = (mesh_peer)((from + i) % n);
        if (up[peer] != 0 && mesh_conf_node(conf, peer)->role == MESH_ROUTER) {
            *via = peer;
            return true;
        }
    }
    return false;
}

static void send(store_mover *mover, Mesh__Msg *msg, mesh_time now, mesh_out *out)
{
    mover->corr = ++mover->next_corr;
    mover->corr += mover->corr == 0;
    msg->corr = mover->corr;
    msg->ttl_ms = STORE_MOVER_TRY_MS;
    msg->epoch = mesh_ring_epoch(mover->fsm->ring);
    mesh_out_put(out, mover->via, msg);
    mover->due = now.mono + STORE_MOVER_TRY_MS;
}

static void send_rows(store_mover *mover, mesh_time now, mesh_out *out)
{
    store_fsm *fsm = mover->fsm;
    Mesh__SlotRows part = MESH__SLOT_ROWS__INIT;
    bool last;
    mesh_arena_reset(mover->arena);
    if (store_slot_part(fsm, mover->arena, mover->slot, mesh_buf_slice(&mover->after), &mover->rows, &last) !=
        MESH_OK) {
        fsm->error = MESH_CORRUPT;
        return;
    }
    part.slot = mover->slot;
    part.from = fsm->shard;
    part.shard = fsm->slots[mover->slot].shard;
    part.move = mover->move;
    part.after = (ProtobufCBinaryData){ mover->after.size, mover->after.data };
    part.rows = (ProtobufCBinaryData){ mover->rows.size, mover->rows.data };
    part.last = last;
    part.era = store_fsm_era(fsm, mover->slot);
    part.fence = fsm->fences[mover->slot];
    part.last_id = fsm->last_id;
    MESH_MSG(msg, SLOT_ROWS, slot_rows, &part);
    send(mover, &msg, now, out);
}

static void send_map(store_mover *mover, mesh_time now, mesh_out *out)
{
    Mesh__MapSet set = MESH__MAP_SET__INIT;
    set.slot = mover->slot;
    set.shard = mover->fsm->slots[mover->slot].shard;
    set.move = mover->move;
    MESH_MSG(msg, MAP_SET, map_set, &set);
    send(mover, &msg, now, out);
}

/* What came and is not where the map has it: shard 0 forgot, or never heard. Nobody waits for the answer: the next ring
 * is it. While the shard it came from still says it itself, this changes nothing. */
static void repeat_maps(store_mover *mover, const uint64_t *up, mesh_out *out)
{
    const store_fsm *fsm = mover->fsm;
    unsigned sent = 0;
    for (unsigned i = 0; i < MESH_SLOTS && sent < STORE_MOVER_MAPS; i++) {
        mesh_slot slot = mover->map_at;
        mover->map_at = (mesh_slot)((slot + 1) % MESH_SLOTS);
        if (fsm->slots[slot].state != STORE_SLOT_HELD || mesh_ring_shard(fsm->ring, slot) == fsm->shard) {
            continue;
        }
        if (sent == 0 && !next_router(mover, up, &mover->map_via)) {
            break;
        }
        Mesh__MapSet set = MESH__MAP_SET__INIT;
        set.slot = slot;
        set.shard = fsm->shard;
        set.move = fsm->slots[slot].move;
        MESH_MSG(msg, MAP_SET, map_set, &set);
        msg.corr = ++mover->next_corr;
        msg.corr += msg.corr == 0;
        msg.ttl_ms = STORE_MOVER_TRY_MS;
        msg.epoch = mesh_ring_epoch(fsm->ring);
        mesh_out_put(out, mover->map_via, &msg);
        sent++;
    }
}

static mesh_ms turn_maps(store_mover *mover, const uint64_t *up, mesh_time now, mesh_out *out)
{
    bool first = mover->map_due == MESH_NEVER; /* a map that is right may be on its way */
    uint64_t epoch = mesh_ring_epoch(mover->fsm->ring);
    if (first || now.mono >= mover->map_due || epoch != mover->map_epoch) {
        mover->map_epoch = epoch;
        mover->map_due = now.mono + STORE_MOVER_MAP_MS;
        if (!first && epoch > 0) {
            repeat_maps(mover, up, out);
        }
    }
    return mover->map_due;
}

static mesh_ms turn_leaving(store_mover *mover, const uint64_t *up, mesh_time now, mesh_out *out)
{
    if (mover->slot == MESH_SLOTS || (mover->whole && map_has_it(mover))) {
        return MESH_NEVER;
    }
    if (now.mono < mover->due) {
        return mover->due;
    }
    if (!next_router(mover, up, &mover->via)) {
        return MESH_NEVER; /* one that comes up is seen at the next turn */
    }
    if (mover->whole) {
        send_map(mover, now, out);
    } else {
        send_rows(mover, now, out);
    }
    return mover->due;
}

mesh_ms store_mover_turn(store_mover *mover, const uint64_t *up, mesh_time now, mesh_out *out)
{
    if (!mover->fsm->sharded) {
        return MESH_NEVER;
    }
    mesh_ms maps = turn_maps(mover, up, now, out);
    mesh_ms leaving = turn_leaving(mover, up, now, out);
    return leaving < maps ? leaving : maps;
}

void store_mover_heard(store_mover *mover, const Mesh__Msg *msg, mesh_time now)
{
    if (mover->corr == 0 || msg->corr != mover->corr) {
        return;
    }
    mover->corr = 0;
    if (msg->body_case == MESH__MSG__BODY_FAULT) {
        mesh_ms after = msg->fault->after_ms < REFUSED_MAX_MS ? (mesh_ms)msg->fault->after_ms : REFUSED_MAX_MS;
        mover->due = now.mono + (after > STORE_SLOT_AGAIN_MS ? after : STORE_SLOT_AGAIN_MS);
    } else if (msg->body_case == MESH__MSG__BODY_DONE) {
        mover->due = now.mono + MAP_WAIT_MS;
    } else {
        const Mesh__SlotTaken *t = msg->slot_taken;
        mover->whole = t->whole;
        mesh_buf_clear(&mover->after);
        if (t->after.len > 0) {
            mesh_buf_put(&mover->after, t->after.data, t->after.len);
        }
        mover->due = now.mono;
    }
}

void store_mover_down(store_mover *mover, mesh_peer router)
{
    if (mover->via == router && mover->corr != 0) {
        mover->corr = 0;
        mover->due = 0;
    }
}
