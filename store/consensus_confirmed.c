/* store/consensus_confirmed.c: what every replica is known to have confirmed, and its row.
 *
 *   \0C  Store__ConfirmedRow  raft id and index of each member
 *
 * The row is not exact: it is written at most every STORE_CONFIRMED_SAVE_MS. A lower index than is true is always
 * right. It is of this replica alone, so no copy of the rows has it; a copy that was installed gets the knowledge of
 * the replica that fetched it. */
#include <assert.h>
#include <stdio.h>
#include <string.h>

#include "store.pb-c.h"
#include "store/consensus_priv.h"

static const uint8_t row_key[2] = { 0, 'C' };

static store_confirmed *find(const store_consensus *cons, uint64_t raft_id)
{
    for (size_t i = 0; i < cons->n_confirmed; i++) {
        if (cons->confirmed[i].raft_id == raft_id) {
            return (store_confirmed *)(uintptr_t)&cons->confirmed[i];
        }
    }
    return NULL;
}

uint64_t store_consensus_confirmed(const store_consensus *cons, uint64_t raft_id)
{
    const store_confirmed *c = find(cons, raft_id);
    return c != NULL ? c->index : 0;
}

size_t store_consensus_confirmed_all(const store_consensus *cons, store_confirmed list[STORE_MEMBERS_MAX])
{
    memcpy(list, cons->confirmed, cons->n_confirmed * sizeof *list);
    return cons->n_confirmed;
}

uint64_t store_consensus_learnt(const store_consensus *cons)
{
    return cons->learnt;
}

bool store_consensus_forgot(const store_consensus *cons)
{
    return store_consensus_confirmed(cons, cons->raft.id) > store_consensus_last_index(cons);
}

/* A place for one more. What is no member any more has none. */
static store_confirmed *add(store_consensus *cons)
{
    size_t kept = 0;
    for (size_t i = 0; i < cons->n_confirmed; i++) {
        if (consensus_member(cons, cons->confirmed[i].raft_id) != NULL) {
            cons->confirmed[kept++] = cons->confirmed[i];
        }
    }
    assert(kept < STORE_MEMBERS_MAX); /* who is added is a member, and not among them */
    cons->n_confirmed = kept + 1;
    return &cons->confirmed[kept];
}

void store_consensus_learn(store_consensus *cons, uint64_t raft_id, uint64_t index)
{
    store_confirmed *c = find(cons, raft_id);
    if (consensus_member(cons, raft_id) == NULL || index <= (c != NULL ? c->index : 0)) {
        return;
    }
    c = c != NULL ? c : add(cons);
    *c = (store_confirmed){ raft_id, index };
    cons->learnt++;
}

void store_consensus_take_stock(store_consensus *cons)
{
    if (!store_consensus_leader(cons) || cons->raft.configuration.n < 2) {
        return;
    }
    uint64_t commit = raft_commit_index(&cons->raft);
    for (unsigned i = 0; i < cons->raft.configuration.n; i++) {
        uint64_t id = cons->raft.configuration.servers[i].id;
        /* what is committed may be on the leader's own disk only later */
        uint64_t index = id == cons->raft.id ? cons->raft.last_stored : store_consensus_match(cons, id);
        store_consensus_learn(cons, id, index < commit ? index : commit);
    }
}

/* ---- the row ---- */

void consensus_confirmed_put(const store_consensus *cons, store_kv_batch *batch)
{
    uint64_t ids[STORE_MEMBERS_MAX], indexes[STORE_MEMBERS_MAX];
    mesh_buf value = { 0 };
    Store__ConfirmedRow row = STORE__CONFIRMED_ROW__INIT;
    for (size_t i = 0; i < cons->n_confirmed; i++) {
        ids[i] = cons->confirmed[i].raft_id;
        indexes[i] = cons->confirmed[i].index;
    }
    row.raft_ids = ids;
    row.indexes = indexes;
    row.n_raft_ids = row.n_indexes = cons->n_confirmed;
    mesh_wire_pack(&row, &value);
    store_kv_batch_put(batch, (mesh_slice){ row_key, sizeof row_key }, mesh_buf_slice(&value));
    mesh_buf_fini(&value);
}

mesh_err consensus_confirmed_load(store_consensus *cons)
{
    mesh_buf value = { 0 };
    ProtobufCMessage *message;
    mesh_arena_reset(cons->arena);
    mesh_err err = store_kv_get(cons->kv, (mesh_slice){ row_key, sizeof row_key }, &value);
    if (err == MESH_OK) {
        err = mesh_wire_unpack(&store__confirmed_row__descriptor, mesh_buf_slice(&value), cons->arena, &message);
    }
    if (err == MESH_OK) {
        const Store__ConfirmedRow *row = (const Store__ConfirmedRow *)message;
        if (row->n_raft_ids != row->n_indexes || row->n_raft_ids > STORE_MEMBERS_MAX) {
            err = MESH_CORRUPT;
        }
        for (size_t i = 0; err == MESH_OK && i < row->n_raft_ids; i++) {
            bool good = row->raft_ids[i] != 0 && find(cons, row->raft_ids[i]) == NULL;
            err = good ? MESH_OK : MESH_CORRUPT;
            cons->confirmed[cons->n_confirmed++] = (store_confirmed){ row->raft_ids[i], row->indexes[i] };
        }
    }
    mesh_buf_fini(&value);
    return err == MESH_NOT_FOUND ? MESH_OK : err == MESH_MALFORMED ? MESH_CORRUPT : err;
}

mesh_ms consensus_confirmed_due(const store_consensus *cons)
{
    return cons->learnt != cons->learnt_saved ? cons->save_at : MESH_NEVER;
}

void consensus_confirmed_save(store_consensus *cons, mesh_time now)
{
    if (now.mono >= consensus_confirmed_due(cons)) {
        consensus_confirmed_put(cons, cons->batch);
        (void)store_kv_write(cons->kv, cons->batch, true);
        cons->learnt_saved = cons->learnt;
        cons->save_at = now.mono + STORE_CONFIRMED_SAVE_MS;
    }
}
