/* genesis, ring_set, outbox_done: what the store says to itself through the log.
 *
 * The ring's row is made of the log and of the row before it. fsm->ring is not: it leaves out routers that this
 * replica's config does not know, and while a new config is rolled out the replicas' configs differ. Only the epoch and
 * the map, which no config has a part in, are taken from it. */
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
    Mesh__Ring *before = mesh_ring_message(fsm->ring, fsm->arena);
    ring.n_map = set->n_map > 0 ? set->n_map : before->n_map;
    ring.map = set->n_map > 0 ? set->map : before->map;
    if (mesh_ring_set(fsm->ring, &ring) != MESH_OK) {
        fsm->error = MESH_CORRUPT;
        return;
    }
    store_key key;
    store_key_ring(&key);
    store_rows_pack(fsm->rows, &key, &ring, STORE_ROW_ENTRY);
    fsm->ring_changed = true;
}

/* Not shard 0: what shard 0 decided, as a router told it. In the log, so that all replicas of this shard know the same
 * map when they apply what comes after it. An older one changes nothing. */
void store_apply_ring(store_fsm *fsm, const Mesh__Msg *msg, Mesh__Msg *answer)
{
    (void)answer;
    if (fsm->shard == 0 || mesh_ring_set(fsm->ring, msg->ring) != MESH_OK) {
        return;
    }
    store_key key;
    store_key_ring(&key);
    store_rows_pack(fsm->rows, &key, msg->ring, STORE_ROW_ENTRY);
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
