/* genesis, ring_set, outbox_done: what the store says to itself through the log. */
#include <string.h>

#include "store/fsm.h"

void store_apply_genesis(store_fsm *fsm, const Mesh__Msg *msg, Mesh__Msg *answer)
{
    (void)answer;
    if (fsm->era != 0) {
        return; /* the first one counts */
    }
    Store__ShardRow row = STORE__SHARD_ROW__INIT;
    row.era = msg->genesis->era;
    row.cluster = msg->genesis->cluster;
    store_key key;
    store_key_shard(&key);
    store_rows_pack(fsm->rows, &key, &row, STORE_ROW_ONLY);
    fsm->era = row.era;
}

void store_apply_ring_set(store_fsm *fsm, const Mesh__Msg *msg, Mesh__Msg *answer)
{
    (void)answer;
    const Mesh__RingSet *set = msg->ring_set;
    Mesh__Ring ring = MESH__RING__INIT;
    ring.epoch = mesh_ring_epoch(fsm->ring) + 1;
    ring.n_routers = set->n_routers;
    ring.routers = set->routers;
    if (mesh_ring_set(fsm->ring, &ring) != MESH_OK) {
        fsm->error = MESH_CORRUPT;
        return;
    }
    Store__RingRow row = STORE__RING_ROW__INIT;
    row.epoch = ring.epoch;
    row.n_names = set->n_routers;
    row.names = mesh_arena_alloc(fsm->arena, (set->n_routers + 1) * sizeof *row.names);
    row.n_boots = set->n_routers;
    row.boots = mesh_arena_alloc(fsm->arena, (set->n_routers + 1) * sizeof *row.boots);
    for (size_t i = 0; i < set->n_routers; i++) {
        row.names[i] = set->routers[i]->name;
        row.boots[i] = set->routers[i]->boot;
    }
    store_key key;
    store_key_ring(&key);
    store_rows_pack(fsm->rows, &key, &row, STORE_ROW_ONLY);
    fsm->ring_changed = true;
}

void store_apply_outbox_done(store_fsm *fsm, const Mesh__Msg *msg, Mesh__Msg *answer)
{
    (void)answer;
    for (size_t i = 0; i < msg->outbox_done->n_items; i++) {
        store_key key;
        store_key_outbox(&key, msg->outbox_done->items[i]);
        store_rows_delete(fsm->rows, &key);
    }
}
