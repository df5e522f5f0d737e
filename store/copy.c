/* Both sides of a copy: rows for a replica whose lack the log does not hold any more.
 *
 * Giving: any replica gives views of its rows; while one is open, the log above it is kept. Getting: consensus says
 * that it wants the state and does nothing more; the copy fills another database beside this one. When it is whole, the
 * verdict is STORE_SWITCH: the owner closes this core and its database, puts the copy in its place and opens it. When
 * this disk cannot take it, the verdict is STORE_REOPEN_LATER: opened again, the replica begins once more. */
#include <string.h>

#include "mesh/log.h"
#include "store/core_state.h"
#include "store/metrics.h"

/* The leader last: it has enough to do. */
static size_t sources(const store_core *core, const char *leader_address, mesh_peer *peers)
{
    mesh_peer stores[MESH_REPLICAS_MAX];
    size_t n = 0;
    size_t n_stores = mesh_conf_stores(core->conf, core->fsm->shard, stores);
    mesh_peer last = MESH_NO_PEER;
    char leader[MESH_NODE_NAME_MAX + 1];
    store_group_node(leader_address, leader);
    for (size_t i = 0; i < n_stores; i++) {
        if (stores[i] == core->self) {
            continue;
        }
        if (strcmp(mesh_conf_node(core->conf, stores[i])->name, leader) == 0) {
            last = stores[i];
        } else if (core->up[stores[i]] != 0) {
            peers[n++] = stores[i];
        }
    }
    if (last != MESH_NO_PEER) {
        peers[n++] = last;
    }
    return n;
}

static void begin(store_core *core)
{
    store_manifest manifest;
    const char *leader;
    mesh_peer peers[MESH_REPLICAS_MAX];
    if (!store_consensus_wants_state(core->cons, &manifest, &leader)) {
        return;
    }
    if (core->fsm->applied >= manifest.index) { /* only the log is missing, not the rows */
        store_kv_batch *batch = store_kv_batch_new();
        store_consensus_install_put(core->cons, core->kv, batch);
        mesh_err err = store_kv_wait(core->kv, store_kv_write(core->kv, batch, true));
        store_kv_batch_destroy(&batch);
        core->verdict = err == MESH_OK ? STORE_REOPEN : STORE_GO_ON; /* else the kv's error says more */
        return;
    }
    if (core->path == NULL) {
        return;
    }
    size_t n = sources(core, leader, peers);
    if (n == 0) {
        return; /* nobody is up; later */
    }
    store_fetch_conf conf = { .conf = core->conf,
                              .self = core->self,
                              .path = core->path,
                              .options = core->options,
                              .seed = mesh_rand_next(&core->rand) };
    mesh_log(MESH_INFO, "copy_begun", "shard=%u index=%llu", core->fsm->shard, (unsigned long long)manifest.index);
    core->fetch = store_fetch_new(&conf, peers, n, manifest.index, core->now);
}

static void end(store_core *core, mesh_err err)
{
    if (err == MESH_OK) {
        store_kv_batch *extra = store_kv_batch_new();
        store_consensus_install_put(core->cons, NULL, extra);
        err = store_fetch_finish(core->fetch, extra);
        store_kv_batch_destroy(&extra);
    }
    mesh_log(err == MESH_OK ? MESH_INFO : MESH_ERROR, "copy_ended", "shard=%u index=%llu error=%s", core->fsm->shard,
             (unsigned long long)store_fetch_index(core->fetch), mesh_err_name(err));
    mesh_stats_add(core->stats, err == MESH_OK ? STORE_M_COPIES : STORE_M_COPIES_FAILED, 1);
    core->verdict = err == MESH_OK ? STORE_SWITCH : STORE_REOPEN_LATER;
    store_fetch_destroy(&core->fetch);
}

mesh_ms store_copy_turn(store_core *core)
{
    mesh_ms next = store_transfer_turn(core->transfer, core->now, core->out);
    if (core->cons == NULL || core->verdict != STORE_GO_ON) {
        return next;
    }
    if (core->fetch == NULL) {
        begin(core);
    }
    if (core->verdict != STORE_GO_ON) {
        return next;
    }
    if (core->fetch != NULL) {
        mesh_ms due = store_fetch_turn(core->fetch, core->now, core->out);
        next = due < next ? due : next;
        mesh_err err = store_fetch_state(core->fetch);
        if (err != MESH_AGAIN) {
            end(core, err);
        }
    }
    return next;
}

bool store_copy_message(store_core *core, mesh_peer from, const Mesh__Msg *msg)
{
    if (store_transfer_takes(msg)) {
        store_transfer_message(core->transfer, from, msg, core->now, core->out);
        return true;
    }
    if (core->fetch != NULL && store_fetch_takes(core->fetch, msg)) {
        store_fetch_message(core->fetch, from, msg, core->now, core->out);
        return true;
    }
    return msg->body_case == MESH__MSG__BODY_STATE_CHUNK || msg->body_case == MESH__MSG__BODY_FAULT; /* late */
}
