/* The happy path: a write is checked and its packed bytes join the entry that gathers; at the end of the turn the entry
 * is submitted, unless STORE_PIPELINE entries are on their way: then it gathers on, and that is the group commit. The
 * kv's writer syncs it, consensus commits it on a majority, store_fsm applies it on every replica, and the leader sends
 * what it answers to whoever asked, known by position (store/reign.c).
 *
 * A replica without data does nothing until it is decided how it begins (store/group.h). One that is not the leader
 * says who is. Before a reign's first entry is applied a read could go back in time, so everybody is told
 * FAULT_UNAVAILABLE.
 *
 * An asker that goes down is forgotten: its request stays in the log, and asking again finds it there. */
#include "store/core.h"

#include <stdlib.h>

#include "mesh/alloc.h"
#include "mesh/log.h"
#include "store/core_state.h"
#include "store/metrics.h"

#define TRIM_EVERY 64         /* applied entries between two looks at the log's tail */
#define HANDOVER_EVERY_MS 500 /* a leader that leaves tries to hand over this often */

/* ---- links ---- */

void store_core_down(store_core *core, mesh_peer peer, mesh_time now, mesh_out *out)
{
    (void)now;
    (void)out;
    core->up[peer] = 0;
    store_group_down(core->group, peer);
    store_reign_forget(core, peer);
    store_outbox_down(core->outbox, peer);
    store_mover_down(core->mover, peer);
}

void store_core_up(store_core *core, mesh_peer peer, uint64_t boot, mesh_time now, mesh_out *out)
{
    if (store_core_error(core) != MESH_OK) {
        return;
    }
    if (core->up[peer] != 0) {
        store_core_down(core, peer, now, out); /* reborn: what it asked before, nobody waits for */
    }
    core->up[peer] = boot != 0 ? boot : 1;
    store_group_up(core->group, peer);
    if (core->fetch != NULL && store_transfer_is_replica(core->conf, core->self, peer)) {
        store_fetch_offer(core->fetch, peer);
    }
    if (mesh_conf_node(core->conf, peer)->role != MESH_ROUTER || !core->ready) {
        return;
    }
    core->now = now;
    core->out = out;
    mesh_arena_reset(core->arena);
    store_core_tell_router(core, peer);
    store_outbox_up(core->outbox, peer, now, out);
    core->out = NULL;
}

/* ---- the turn ---- */

/* Log entries whose rows are on disk are not needed for a restart; those that replicas which are behind lack are. */
static void trim_log(store_core *core)
{
    if (core->sample_ticket != 0 && store_kv_durable(core->kv) >= core->sample_ticket) {
        core->safe_applied = core->sample_applied;
        core->sample_ticket = 0;
    }
    if (core->sample_ticket == 0 && core->fsm->applied > core->safe_applied) {
        core->sample_applied = core->fsm->applied;
        core->sample_ticket = core->fsm->ticket;
    }
    uint64_t kept = store_copy_keeps(core);
    uint64_t upto = core->safe_applied < kept ? core->safe_applied : kept;
    if (upto >= core->trimmed + TRIM_EVERY) {
        core->trimmed = upto;
        store_consensus_trim(core->cons, upto, core->now);
    }
}

static mesh_ms earliest(mesh_ms a, mesh_ms b)
{
    return a < b ? a : b;
}

static void on_send(void *arg, uint64_t to, const char *to_address, const Mesh__Raft *raft)
{
    (void)to;
    store_core *core = arg;
    char name[MESH_NODE_NAME_MAX + 1];
    mesh_peer peer = mesh_conf_find(core->conf, store_group_node(to_address, name));
    if (core->out != NULL && peer != MESH_NO_PEER && core->up[peer] != 0 &&
        store_group_gives(core->group, core->cons, peer, raft)) {
        MESH_MSG(msg, RAFT, raft, (Mesh__Raft *)(uintptr_t)raft);
        mesh_out_put(core->out, peer, &msg);
    }
}

/* found: make a group of this replica alone, if the database is new; otherwise a new one waits to be added. */
static mesh_err open_consensus(store_core *core, bool found, char *why, size_t why_size)
{
    char address[STORE_GROUP_ADDRESS];
    uint64_t id = store_consensus_stored_id(core->kv);
    id = id != 0 ? id : mesh_rand_next(&core->rand) | 1;
    store_replica self = { id, store_group_address(core->name, id, address) };
    store_consensus_conf conf = {
        .raft_id = self.raft_id,
        .cluster = mesh_conf_str(core->conf, "cluster.name"),
        .address = address,
        .seed = mesh_rand_next(&core->rand),
        .trail = (uint64_t)mesh_conf_int(core->conf, "store.log_trail_kib") << 10,
        .group = found ? &self : NULL,
        .n_group = found ? 1 : 0,
        .shard = core->fsm->shard,
        .election_ms = mesh_conf_int(core->conf, "store.election_ms"),
        .heartbeat_ms = mesh_conf_int(core->conf, "store.heartbeat_ms"),
        .send = on_send,
    };
    return store_consensus_open(&conf, core->kv, core->fsm->applied, core->now, store_reign_committed, core,
                                &core->cons, why, why_size);
}

static void say_all_lost(store_core *core)
{
    bool all = store_group_all_lost(core->group, core->cons);
    if (all && !core->said_lost) {
        mesh_log(MESH_ERROR, "all_replicas_lost", "shard=%u next=%s", core->fsm->shard,
                 "nothing is begun anew, or all that was acked would be gone; restore a backup, or see what the "
                 "quarantined directories still hold with: parley store salvage");
    }
    core->said_lost = all;
}

static void begin(store_core *core)
{
    char why[256] = "";
    store_group_way way = store_group_decide(core->group);
    if (way == STORE_GROUP_WAIT) {
        say_all_lost(core);
        return;
    }
    mesh_err err = open_consensus(core, way == STORE_GROUP_FOUND, why, sizeof why);
    if (err != MESH_OK) {
        core->error = err;
    }
}

/* One that leaves: to anybody. One that is short of space: only to one that is not; when all are, each stays where it
 * is. */
static void hand_over(store_core *core)
{
    if (core->now.mono < core->next_handover || store_consensus_voters(core->cons) < 2) {
        return;
    }
    if (core->leaving) {
        core->next_handover = core->now.mono + HANDOVER_EVERY_MS;
        (void)!store_consensus_transfer(core->cons, 0, core->now);
        return;
    }
    uint64_t to = core->enough_space ? 0 : store_group_roomy(core->group, core->cons);
    if (to != 0) {
        core->next_handover = core->now.mono + STORE_SPACE_HANDOVER_MS;
        mesh_err err = store_consensus_transfer(core->cons, to, core->now);
        mesh_log(MESH_INFO, "handing_over", "shard=%u reason=space_low to=%016llx result=%s", core->fsm->shard,
                 (unsigned long long)to, mesh_err_name(err));
    }
}

static mesh_ms turn_consensus(store_core *core)
{
    store_consensus_step(core->cons, core->now);
    store_reign_check(core);
    if (store_core_error(core) != MESH_OK) {
        return MESH_NEVER;
    }
    if (core->leads && core->ready) {
        store_group_lead(core->group, core->cons, core->now, core->out);
        hand_over(core);
    }
    mesh_ms next = store_reign_turn(core);
    store_reign_check(core);
    trim_log(core);
    return earliest(next, store_consensus_deadline(core->cons));
}

mesh_ms store_core_turn(store_core *core, mesh_time now, mesh_out *out)
{
    if (store_core_error(core) != MESH_OK || core->verdict != STORE_GO_ON) {
        return MESH_NEVER;
    }
    core->now = now;
    core->out = out;
    if (core->leases != NULL) {
        store_leases_seen(core->leases, now);
    }
    if (core->cons == NULL) {
        begin(core);
    }
    mesh_ms next = core->cons != NULL ? turn_consensus(core) : MESH_NEVER;
    next = earliest(next, store_copy_turn(core));
    next = earliest(next, store_group_tell(core->group, core->cons, now, out));
    core->out = NULL;
    return next;
}

/* ---- life ---- */

/* A lone store begins at once. One of several that has no data waits for what the others are. */
static mesh_err begin_or_wait(store_core *core, char *why, size_t why_size)
{
    if (store_group_stores(core->group) > 1 && store_consensus_stored_id(core->kv) == 0) {
        return MESH_OK;
    }
    mesh_err err = open_consensus(core, true, why, why_size);
    if (err == MESH_OK) {
        store_group_started(core->group, core->cons);
    }
    return err;
}

static store_core *new_core(const store_core_conf *conf, store_kv *kv, mesh_time now)
{
    store_core *core = mesh_alloc(sizeof *core);
    core->conf = conf->conf;
    core->self = conf->self;
    core->name = mesh_conf_node(conf->conf, conf->self)->name;
    core->path = conf->path != NULL ? mesh_strdup(conf->path) : NULL;
    core->options = conf->options;
    core->kv = kv;
    core->now = now;
    core->rand.state = conf->seed;
    core->own_stats = conf->stats == NULL;
    core->stats = core->own_stats ? store_metrics_new() : conf->stats;
    store_metrics_begin(core->stats);
    core->arena = mesh_arena_new();
    core->gather = store_gather_new();
    core->up = mesh_alloc(mesh_conf_nodes(core->conf) * sizeof *core->up);
    core->enough_space = true;
    core->done_since = MESH_NEVER;
    core->reads_end = &core->reads;
    core->group = store_group_new(core->conf, core->self, conf->lost);
    core->hold = store_hold_new(core->conf, core->self);
    return core;
}

mesh_err store_core_new(const store_core_conf *conf, store_kv *kv, mesh_time now, store_core **core_p, char *why,
                        size_t why_size)
{
    store_core *core = new_core(conf, kv, now);
    uint32_t shard = mesh_conf_node(core->conf, core->self)->shard;
    store_transfer_conf transfer = { .conf = core->conf,
                                     .self = core->self,
                                     .boot = mesh_rand_next(&core->rand),
                                     .rate = (uint64_t)mesh_conf_int(core->conf, "store.copy_mib_s") << 20 };
    core->transfer = store_transfer_new(&transfer, kv);
    mesh_err err = store_fsm_new(core->conf, shard, kv, core->stats, &core->fsm, why, why_size);
    if (err == MESH_OK) {
        core->outbox = store_outbox_new(core->fsm);
        core->mover = store_mover_new(core->fsm, mesh_rand_next(&core->rand));
        core->leases = shard == 0 ? store_leases_new(core->conf, core->fsm->ring) : NULL;
        err = begin_or_wait(core, why, why_size);
    }
    if (err == MESH_OK) {
        store_reign_check(core);
        err = store_core_error(core);
    }
    if (err != MESH_OK) {
        store_core_destroy(&core);
        return err;
    }
    *core_p = core;
    return MESH_OK;
}

static void drop_reads(store_core *core)
{
    while (core->reads != NULL) {
        store_read_waiting *r = core->reads;
        core->reads = r->next;
        free(r);
    }
}

void store_core_destroy(store_core **core_p)
{
    store_core *core = *core_p;
    if (core == NULL) {
        return;
    }
    store_copy_count(core);
    if (core->cons != NULL) {
        store_consensus_close(&core->cons);
    }
    if (core->fetch != NULL) {
        store_fetch_destroy(&core->fetch);
    }
    store_transfer_destroy(&core->transfer);
    store_group_destroy(&core->group);
    store_hold_destroy(&core->hold);
    store_outbox_destroy(&core->outbox);
    store_mover_destroy(&core->mover);
    store_leases_destroy(&core->leases);
    store_fsm_destroy(&core->fsm);
    store_gather_destroy(&core->gather);
    drop_reads(core);
    mesh_arena_destroy(&core->arena);
    if (core->own_stats) {
        mesh_stats_destroy(&core->stats);
    }
    mesh_buf_fini(&core->scratch);
    free(core->path);
    free(core->up);
    free(core);
    *core_p = NULL;
}

void store_core_set_space(store_core *core, bool enough)
{
    core->enough_space = enough;
    store_group_set_space(core->group, enough);
}

void store_core_refuse_all(store_core *core, mesh_out *out)
{
    core->out = out;
    store_reign_refuse(core);
    core->out = NULL;
}

void store_core_leave(store_core *core)
{
    core->next_handover = core->leaving ? core->next_handover : 0;
    core->leaving = true;
}

store_verdict store_core_verdict(const store_core *core)
{
    return core->verdict;
}

bool store_core_votes(const store_core *core)
{
    return core->cons != NULL && store_group_votes(core->cons);
}

mesh_err store_core_error(const store_core *core)
{
    mesh_err err = store_kv_error(core->kv);
    if (err == MESH_OK) {
        err = core->fsm->error;
    }
    return err != MESH_OK ? err : core->error;
}

bool store_core_quiet(const store_core *core)
{
    bool hands_over = core->leaving && core->leads && store_consensus_voters(core->cons) > 1;
    return store_gather_empty(core->gather) && core->reads == NULL && !hands_over;
}

static void count(store_core *core)
{
    unsigned routers = 0;
    for (size_t i = 0; i < mesh_conf_nodes(core->conf); i++) {
        routers += mesh_ring_has(core->fsm->ring, (mesh_peer)i) ? 1 : 0;
    }
    mesh_stats_set(core->stats, STORE_M_GATHERED_BYTES, store_gather_bytes(core->gather));
    mesh_stats_set(core->stats, STORE_M_RING_EPOCH, mesh_ring_epoch(core->fsm->ring));
    mesh_stats_set(core->stats, STORE_M_RING_ROUTERS, routers);
    mesh_stats_set(core->stats, STORE_M_SLOT_LEAVING, store_slot_leaving(core->fsm) < MESH_SLOTS ? 1 : 0);
    mesh_stats_set(core->stats, STORE_M_APPLIED, core->fsm->applied);
    mesh_stats_set(core->stats, STORE_M_LEADER, core->leads ? 1 : 0);
    if (core->cons != NULL) {
        mesh_stats_set(core->stats, STORE_M_TERM, store_consensus_term(core->cons));
        mesh_stats_set(core->stats, STORE_M_VOTERS, store_consensus_voters(core->cons));
        mesh_stats_set(core->stats, STORE_M_VOTES, store_group_votes(core->cons) ? 1 : 0);
        mesh_stats_set(core->stats, STORE_M_LAST, store_consensus_last_index(core->cons));
        mesh_stats_set(core->stats, STORE_M_LEVEL, store_group_level(core->group, core->cons));
        mesh_stats_set(core->stats, STORE_M_COMMIT, store_consensus_commit(core->cons));
        mesh_stats_set(core->stats, STORE_M_DONE, store_consensus_done(core->cons));
        mesh_stats_set(core->stats, STORE_M_FORMER, store_group_is_former(core->cons) ? 1 : 0);
    }
    store_metrics_kv(core->stats, core->kv);
    store_copy_count(core);
}

mesh_stats *store_core_stats(store_core *core)
{
    count(core);
    return core->stats;
}
