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
    store_copy_count(core);
    core->taken = (store_fetch_counts){ 0 };
    core->verdict = err == MESH_OK ? STORE_SWITCH : STORE_REOPEN_LATER;
    store_fetch_destroy(&core->fetch);
}

/* ---- the log that is needed after it ---- */

/* This replica's own lack: the log after this index; 0: none. */
static uint64_t lacks(const store_core *core, bool *copies_p)
{
    store_manifest manifest;
    const char *leader;
    *copies_p = false;
    if (core->cons != NULL && store_consensus_wants_state(core->cons, &manifest, &leader)) {
        *copies_p = true;
        return manifest.index; /* however much further the rows will be, the log goes on from here */
    }
    /* a new replica's copy may know no configuration that it is in: whether it belongs here, the others judge */
    bool none = core->cons == NULL || store_consensus_follows(core->cons);
    return none ? 0 : store_consensus_last_index(core->cons);
}

static mesh_ms say(store_core *core)
{
    bool copies;
    uint64_t index = lacks(core, &copies);
    return store_hold_say(core->hold, index, copies, core->up, core->now, core->out);
}

static mesh_err heard(store_core *core, mesh_peer from, const Mesh__StateHold *msg)
{
    if (core->cons != NULL && store_group_removed(core->cons, mesh_conf_node(core->conf, from)->name)) {
        return MESH_OK; /* it gets nothing more, so it would say this for ever */
    }
    uint64_t first = core->cons != NULL ? store_consensus_goes_on_from(core->cons) : 0;
    return store_hold_heard(core->hold, from, msg, first, core->now);
}

static bool may_keep(const store_core *core, uint64_t index)
{
    uint64_t limit = (uint64_t)mesh_conf_int(core->conf, "store.log_hold_mib") << 20;
    uint64_t last = store_consensus_last_index(core->cons);
    return core->enough_space &&
           store_hold_fits(store_consensus_log_bytes(core->cons, index), index < last ? last - index : 0, limit);
}

static void say_dropped(store_core *core, uint64_t index, bool dropped)
{
    if (dropped && !core->hold_dropped) {
        mesh_stats_add(core->stats, STORE_M_HOLDS_DROPPED, 1);
        mesh_log(MESH_WARN, "log_hold_dropped", "shard=%u index=%llu held_mib=%llu reason=%s next=%s", core->fsm->shard,
                 (unsigned long long)index, (unsigned long long)(store_consensus_log_bytes(core->cons, index) >> 20),
                 core->enough_space ? "store.log_hold_mib" : "space",
                 "the replica that needs this part of the log begins again with another copy");
    }
    core->hold_dropped = dropped;
}

uint64_t store_copy_keeps(store_core *core)
{
    uint64_t words[MESH_REPLICAS_MAX + 1], kept = STORE_HOLD_NONE, dropped = STORE_HOLD_NONE;
    size_t n = store_hold_words(core->hold, store_consensus_goes_on_from(core->cons), core->now, words);
    words[n++] = store_transfer_oldest(core->transfer);
    for (size_t i = 0; i < n; i++) {
        uint64_t *least = words[i] == STORE_TRANSFER_NONE || may_keep(core, words[i]) ? &kept : &dropped;
        *least = words[i] < *least ? words[i] : *least;
    }
    mesh_stats_set(core->stats, STORE_M_LOG_HELD,
                   kept != STORE_HOLD_NONE ? store_consensus_log_bytes(core->cons, kept) : 0);
    say_dropped(core, dropped, dropped != STORE_HOLD_NONE);
    return kept;
}

/* ---- both ---- */

void store_copy_count(store_core *core)
{
    store_transfer_counts given =
        core->transfer != NULL ? store_transfer_counted(core->transfer) : (store_transfer_counts){ 0 };
    store_fetch_counts taken = core->fetch != NULL ? store_fetch_counted(core->fetch) : core->taken;
    mesh_stats_add(core->stats, STORE_M_COPY_SESSIONS, given.sessions - core->given.sessions);
    mesh_stats_add(core->stats, STORE_M_COPY_GIVEN, given.bytes - core->given.bytes);
    mesh_stats_add(core->stats, STORE_M_COPY_REFUSED, given.refused - core->given.refused);
    mesh_stats_add(core->stats, STORE_M_COPY_BAD_ASKS, given.bad - core->given.bad);
    mesh_stats_add(core->stats, STORE_M_COPY_BEGUN, taken.begun - core->taken.begun);
    mesh_stats_add(core->stats, STORE_M_COPY_TAKEN, taken.bytes - core->taken.bytes);
    mesh_stats_add(core->stats, STORE_M_COPY_BAD, taken.rows_bad - core->taken.rows_bad);
    mesh_stats_set(core->stats, STORE_M_COPY_INDEX, core->fetch != NULL ? store_fetch_index(core->fetch) : 0);
    mesh_stats_set(core->stats, STORE_M_COPY_BYTES, core->fetch != NULL ? taken.bytes : 0);
    core->given = given;
    core->taken = taken;
}

mesh_ms store_copy_turn(store_core *core)
{
    mesh_ms next = store_transfer_turn(core->transfer, core->now, core->out);
    mesh_ms word = say(core);
    next = word < next ? word : next;
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

mesh_err store_copy_message(store_core *core, mesh_peer from, const Mesh__Msg *msg)
{
    if (msg->body_case == MESH__MSG__BODY_STATE_HOLD) {
        return heard(core, from, msg->state_hold);
    }
    if (store_transfer_takes(msg)) {
        store_transfer_message(core->transfer, from, msg, core->now, core->out);
        return MESH_OK;
    }
    if (core->fetch != NULL && store_fetch_takes(core->fetch, msg)) {
        store_fetch_message(core->fetch, from, msg, core->now, core->out);
        return MESH_OK;
    }
    bool late = msg->body_case == MESH__MSG__BODY_STATE_CHUNK || msg->body_case == MESH__MSG__BODY_FAULT;
    return late ? MESH_OK : MESH_MALFORMED;
}
