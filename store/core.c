/* The happy path: a write is checked and its packed bytes join the entry that gathers; at the end of the turn the entry
 * is submitted, unless STORE_PIPELINE entries are on their way: then it gathers on, and that is the group commit. The
 * kv's writer syncs it, consensus commits it, store_fsm applies it, and what it answers goes to whoever asked, known by
 * position.
 *
 * Ready: after each start an entry of our own goes first (Genesis into a new database). Once it is applied, everything
 * acked before is applied too; until then a read could go back in time, so everybody is told FAULT_UNAVAILABLE.
 *
 * An asker that goes down is forgotten: its request stays in the log, and asking again finds it there. */
#include "store/core.h"

#include <assert.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "mesh/alloc.h"
#include "mesh/log.h"
#include "mesh/rand.h"
#include "store/check.h"
#include "store/consensus.h"
#include "store/fsm.h"
#include "store/gather.h"
#include "store/leases.h"
#include "store/metrics.h"
#include "store/outbox.h"
#include "store/read.h"

#define DONE_WAIT_MS 200 /* OutboxDone waits so long for company */
#define TRIM_EVERY 1024  /* applied entries between two looks at the log's tail */

struct store_core {
    const mesh_conf *conf;
    mesh_peer self;
    store_kv *kv;
    mesh_stats *stats;
    store_fsm *fsm;
    store_consensus *cons;
    store_outbox *outbox;
    store_leases *leases; /* NULL: not shard 0 */
    mesh_rand rand;
    mesh_arena *arena; /* of one message or turn */
    store_gather *gather;
    uint64_t *up; /* boot by peer, 0: down */
    bool enough_space;
    bool opening_sent, ready;       /* the first own entry */
    bool ring_pending;              /* a RingSet is in the log and not applied */
    mesh_ms done_since;             /* MESH_NEVER: no finished outbox row waits */
    uint64_t safe_applied, trimmed; /* durable; what the log was last trimmed with */
    uint64_t sample_applied, sample_ticket;
    mesh_err error;
    mesh_buf scratch;
    /* only while store_core_turn runs */
    mesh_time now;
    mesh_out *out;
    store_gathered *applying;
};

static void gather_own(store_core *core, const Mesh__Msg *msg)
{
    mesh_buf_clear(&core->scratch);
    mesh_wire_pack(msg, &core->scratch);
    store_gather_put(core->gather, MESH_NO_PEER, 0, mesh_buf_slice(&core->scratch));
}

/* ---- answers ---- */

static void send_answer(store_core *core, mesh_peer to, const Mesh__Msg *msg, uint64_t corr, Mesh__Msg *answer,
                        mesh_out *out)
{
    if (answer->body_case == MESH__MSG__BODY_FAULT) {
        store_metrics_fault(core->stats, answer->fault->code);
    }
    if (answer->body_case == MESH__MSG__BODY__NOT_SET || corr == 0 || to == MESH_NO_PEER || out == NULL) {
        return;
    }
    answer->corr = corr;
    answer->epoch = mesh_ring_epoch(core->fsm->ring);
    answer->trace = msg->trace;
    if (msg->trace != 0) {
        mesh_log(MESH_DEBUG, "answered", "trace=%016" PRIx64 " type=%s fault=%s", msg->trace,
                 mesh_msg_kind_name(answer),
                 answer->body_case == MESH__MSG__BODY_FAULT ? mesh_fault_get(answer->fault->code)->name : "none");
    }
    mesh_out_put(out, to, answer);
}

static void refuse(store_core *core, mesh_peer to, const Mesh__Msg *msg, mesh_fault code, mesh_out *out)
{
    Mesh__Msg answer = MESH__MSG__INIT;
    Mesh__Fault fault = MESH__FAULT__INIT;
    fault.code = (uint32_t)code;
    fault.after_ms = mesh_fault_get(fault.code)->after_ms;
    answer.body_case = MESH__MSG__BODY_FAULT;
    answer.fault = &fault;
    send_answer(core, to, msg, msg->corr, &answer, out);
}

static void answer_ring(store_core *core, mesh_peer to, uint64_t corr, mesh_out *out)
{
    MESH_MSG(msg, RING, ring, mesh_ring_message(core->fsm->ring, core->arena));
    msg.corr = corr;
    msg.epoch = mesh_ring_epoch(core->fsm->ring);
    mesh_out_put(out, to, &msg);
}

static void push_ring(store_core *core, mesh_out *out)
{
    mesh_arena_reset(core->arena);
    for (size_t i = 0; i < mesh_conf_nodes(core->conf); i++) {
        if (core->up[i] != 0 && mesh_conf_node(core->conf, (mesh_peer)i)->role == MESH_ROUTER) {
            answer_ring(core, (mesh_peer)i, 0, out);
        }
    }
}

/* ---- committed ---- */

static void on_answer(void *arg, size_t at, const Mesh__Msg *msg, Mesh__Msg *answer)
{
    store_core *core = arg;
    if (core->applying == NULL) {
        return;
    }
    assert(at < core->applying->n);
    store_waiter w = core->applying->waiters[at];
    send_answer(core, w.from, msg, w.corr, answer, core->out);
    if (msg->body_case == MESH__MSG__BODY_RING_SET) {
        core->ring_pending = false;
    }
}

static void become_ready(store_core *core)
{
    core->ready = true;
    core->error = store_outbox_start(core->outbox);
    if (core->leases != NULL) {
        store_leases_start(core->leases, core->now);
    }
    push_ring(core, core->out);
}

static void on_committed(void *arg, uint64_t index, uint64_t term, mesh_slice payload, bool own)
{
    store_core *core = arg;
    if (store_core_error(core) != MESH_OK) {
        return;
    }
    core->applying = own ? store_gather_committed(core->gather) : NULL;
    core->fsm->durable = core->cons != NULL && store_consensus_voters(core->cons) > 1 ? "quorum" : "disk";
    mesh_err err = store_fsm_apply(core->fsm, index, term, payload, on_answer, core);
    if (err == MESH_OK && core->applying != NULL) {
        if (!core->ready) {
            become_ready(core); /* the outbox row of this very entry, if any, is counted by it */
        } else {
            store_outbox_owe(core->outbox, index, core->now, core->out);
        }
        if (core->fsm->ring_changed) {
            push_ring(core, core->out);
            store_outbox_ring(core->outbox, core->now, core->out);
        }
    }
    if (core->applying != NULL) {
        store_gather_done(core->gather, core->applying);
        core->applying = NULL;
    }
}

/* ---- messages ---- */

static mesh_fault may_write(const store_core *core, const Mesh__Msg *msg)
{
    bool sends = false;
    bool grows = true; /* what lets people read on is allowed when space is short */
    switch (msg->body_case) {
    case MESH__MSG__BODY_SEND:
    case MESH__MSG__BODY_CHAT_CREATE:
    case MESH__MSG__BODY_CHAT_EDIT:
        sends = true;
        break;
    case MESH__MSG__BODY_ATTACH:
    case MESH__MSG__BODY_INBOX_ACK:
        grows = false;
        break;
    default:
        break;
    }
    if (grows && !core->enough_space) {
        return FAULT_DISK_FULL;
    }
    if (store_gather_bytes(core->gather) >= STORE_GATHER_MAX || store_kv_full(core->kv) ||
        (sends && store_outbox_items(core->outbox) >= STORE_OUTBOX_BACKLOG_MAX)) {
        return FAULT_BUSY;
    }
    return FAULT_NONE;
}

static void on_read(store_core *core, mesh_peer from, const Mesh__Msg *msg, mesh_out *out)
{
    Mesh__Msg answer = MESH__MSG__INIT;
    store_read(core->fsm, core->arena, msg, &answer);
    mesh_stats_add(core->stats, STORE_M_READS, 1);
    send_answer(core, from, msg, msg->corr, &answer, out);
    store_fsm_evict(core->fsm);
}

static void on_other(store_core *core, mesh_peer from, const Mesh__Msg *msg, mesh_time now, mesh_out *out)
{
    if (msg->body_case == MESH__MSG__BODY_DELIVERED) {
        store_outbox_delivered(core->outbox, from, msg->delivered, now, out);
    } else if (core->leases == NULL) {
        refuse(core, from, msg, FAULT_NOT_LEADER, out);
    } else if (store_leases_renew(core->leases, from, msg->lease, now) != MESH_OK) {
        mesh_stats_add(core->stats, STORE_M_BAD_MESSAGES, 1);
        refuse(core, from, msg, FAULT_MALFORMED, out);
    } else if (msg->corr != 0) {
        answer_ring(core, from, msg->corr, out);
    }
}

void store_core_message(store_core *core, mesh_peer from, const Mesh__Msg *msg, mesh_slice packed, mesh_time now,
                        mesh_out *out)
{
    if (store_core_error(core) != MESH_OK) {
        return;
    }
    mesh_arena_reset(core->arena);
    if (core->leases != NULL) {
        store_leases_seen(core->leases, now);
    }
    store_kind kind = store_check_kind(msg);
    if (kind == STORE_KIND_UNKNOWN || mesh_conf_node(core->conf, from)->role != MESH_ROUTER ||
        packed.size > MESH_MSG_MAX || !store_check_fields(msg)) {
        mesh_stats_add(core->stats, STORE_M_BAD_MESSAGES, 1);
        refuse(core, from, msg, FAULT_MALFORMED, out);
        return;
    }
    if (!store_consensus_leader(core->cons)) {
        refuse(core, from, msg, FAULT_NOT_LEADER, out);
        return;
    }
    if (!core->ready) {
        refuse(core, from, msg, FAULT_UNAVAILABLE, out);
        return;
    }
    if (kind == STORE_KIND_READ) {
        on_read(core, from, msg, out);
    } else if (kind == STORE_KIND_OTHER) {
        on_other(core, from, msg, now, out);
    } else {
        mesh_fault fault = may_write(core, msg);
        if (fault == FAULT_NONE) {
            store_gather_put(core->gather, from, msg->corr, packed);
        } else {
            mesh_stats_add(core->stats, STORE_M_SPACE_REFUSED, fault == FAULT_DISK_FULL ? 1 : 0);
            refuse(core, from, msg, fault, out);
        }
    }
}

/* ---- links ---- */

void store_core_down(store_core *core, mesh_peer peer, mesh_time now, mesh_out *out)
{
    (void)now;
    (void)out;
    core->up[peer] = 0;
    store_gather_forget(core->gather, peer);
    store_outbox_down(core->outbox, peer);
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
    if (mesh_conf_node(core->conf, peer)->role != MESH_ROUTER) {
        return;
    }
    mesh_arena_reset(core->arena);
    if (core->ready) {
        answer_ring(core, peer, 0, out);
    }
    store_outbox_up(core->outbox, peer, now, out);
}

/* ---- the turn ---- */

/* The first own entry of this start. */
static void gather_opening(store_core *core)
{
    core->opening_sent = true;
    if (core->fsm->era != 0) {
        Mesh__OutboxDone nothing = MESH__OUTBOX_DONE__INIT;
        MESH_MSG(msg, OUTBOX_DONE, outbox_done, &nothing);
        gather_own(core, &msg);
        return;
    }
    Mesh__Genesis genesis = MESH__GENESIS__INIT;
    do {
        genesis.era = mesh_rand_next(&core->rand);
    } while (genesis.era == 0);
    genesis.cluster = (char *)(uintptr_t)mesh_conf_str(core->conf, "cluster.name");
    MESH_MSG(msg, GENESIS, genesis, &genesis);
    gather_own(core, &msg);
}

static void gather_ring(store_core *core, mesh_time now)
{
    Mesh__RingSet set;
    mesh_arena_reset(core->arena);
    if (core->leases != NULL && !core->ring_pending && store_leases_differ(core->leases, now, core->arena, &set)) {
        MESH_MSG(msg, RING_SET, ring_set, &set);
        gather_own(core, &msg);
        core->ring_pending = true;
    }
}

/* Finished outbox rows leave with the next entry, or alone after a while. */
static void gather_done(store_core *core, mesh_time now)
{
    uint64_t indexes[STORE_ENTRY_OPS];
    if (store_outbox_done(core->outbox) == 0) {
        return;
    }
    if (core->done_since == MESH_NEVER) {
        core->done_since = now.mono;
    }
    if (!store_gather_waits(core->gather) && now.mono < core->done_since + DONE_WAIT_MS) {
        return;
    }
    Mesh__OutboxDone done = MESH__OUTBOX_DONE__INIT;
    done.n_items = store_outbox_take_done(core->outbox, indexes, STORE_ENTRY_OPS);
    done.items = indexes;
    MESH_MSG(msg, OUTBOX_DONE, outbox_done, &done);
    gather_own(core, &msg);
    core->done_since = store_outbox_done(core->outbox) > 0 ? now.mono : MESH_NEVER;
}

static void not_leader(store_core *core, const store_gathered *entry, mesh_out *out)
{
    Mesh__Msg nothing = MESH__MSG__INIT;
    for (size_t i = 0; i < entry->n; i++) {
        nothing.corr = entry->waiters[i].corr;
        refuse(core, entry->waiters[i].from, &nothing, FAULT_NOT_LEADER, out);
    }
}

static void submit(store_core *core, mesh_time now, mesh_out *out)
{
    while (store_consensus_uncommitted(core->cons) < STORE_PIPELINE && store_gather_waits(core->gather)) {
        uint64_t index;
        mesh_slice payload = store_gather_submit(core->gather, now.wall);
        if (store_consensus_submit(core->cons, payload, now, &index) != MESH_OK) {
            store_gathered *entry = store_gather_recall(core->gather);
            not_leader(core, entry, out);
            store_gather_done(core->gather, entry);
        }
    }
}

/* Log entries whose rows are on disk are not needed for a restart. */
static void trim_log(store_core *core, mesh_time now)
{
    if (core->sample_ticket != 0 && store_kv_durable(core->kv) >= core->sample_ticket) {
        core->safe_applied = core->sample_applied;
        core->sample_ticket = 0;
    }
    if (core->sample_ticket == 0 && core->fsm->applied > core->safe_applied) {
        core->sample_applied = core->fsm->applied;
        core->sample_ticket = core->fsm->ticket;
    }
    if (core->safe_applied >= core->trimmed + TRIM_EVERY) {
        core->trimmed = core->safe_applied;
        store_consensus_trim(core->cons, core->safe_applied, now);
    }
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
    mesh_stats_set(core->stats, STORE_M_LEADER, store_consensus_leader(core->cons) ? 1 : 0);
    store_metrics_kv(core->stats, core->kv);
}

static mesh_ms earliest(mesh_ms a, mesh_ms b)
{
    return a < b ? a : b;
}

mesh_ms store_core_turn(store_core *core, mesh_time now, mesh_out *out)
{
    if (store_core_error(core) != MESH_OK) {
        return MESH_NEVER;
    }
    core->now = now;
    core->out = out;
    if (core->leases != NULL) {
        store_leases_seen(core->leases, now);
    }
    store_consensus_step(core->cons, now);
    mesh_ms next = MESH_NEVER;
    if (store_consensus_leader(core->cons) && store_core_error(core) == MESH_OK) {
        if (!core->opening_sent) {
            gather_opening(core);
        }
        if (core->ready) {
            next = store_outbox_turn(core->outbox, now, out);
            gather_ring(core, now);
            gather_done(core, now);
            if (core->done_since != MESH_NEVER) {
                next = earliest(next, core->done_since + DONE_WAIT_MS);
            }
            if (core->leases != NULL && !core->ring_pending) {
                next = earliest(next, store_leases_deadline(core->leases));
            }
        }
        submit(core, now, out);
    }
    trim_log(core, now);
    core->out = NULL;
    return earliest(next, store_consensus_deadline(core->cons));
}

/* ---- life ---- */

mesh_err store_core_new(const store_core_conf *conf, store_kv *kv, mesh_time now, store_core **core_p, char *why,
                        size_t why_size)
{
    const mesh_node_conf *node = mesh_conf_node(conf->conf, conf->self);
    store_core *core = mesh_alloc(sizeof *core);
    core->conf = conf->conf;
    core->self = conf->self;
    core->kv = kv;
    core->now = now;
    core->rand.state = conf->seed;
    core->stats = store_metrics_new();
    core->arena = mesh_arena_new();
    core->gather = store_gather_new();
    core->up = mesh_alloc(mesh_conf_nodes(core->conf) * sizeof *core->up);
    core->enough_space = true;
    core->done_since = MESH_NEVER;
    mesh_err err = store_fsm_new(core->conf, node->shard, kv, core->stats, &core->fsm, why, why_size);
    if (err == MESH_OK) {
        core->outbox = store_outbox_new(core->fsm);
        core->leases = node->shard == 0 ? store_leases_new(core->conf, core->fsm->ring) : NULL;
        store_consensus_conf cons = {
            .raft_id = mesh_rand_next(&core->rand) | 1,
            .cluster = mesh_conf_str(core->conf, "cluster.name"),
            .address = node->endpoint,
            .seed = mesh_rand_next(&core->rand),
        };
        err = store_consensus_open(&cons, kv, core->fsm->applied, now, on_committed, core, &core->cons, why, why_size);
    }
    if (err == MESH_OK) {
        err = store_core_error(core);
    }
    if (err != MESH_OK) {
        store_core_destroy(&core);
        return err;
    }
    *core_p = core;
    return MESH_OK;
}

void store_core_destroy(store_core **core_p)
{
    store_core *core = *core_p;
    if (core == NULL) {
        return;
    }
    if (core->cons != NULL) {
        store_consensus_close(&core->cons);
    }
    store_outbox_destroy(&core->outbox);
    store_leases_destroy(&core->leases);
    store_fsm_destroy(&core->fsm);
    store_gather_destroy(&core->gather);
    mesh_arena_destroy(&core->arena);
    mesh_stats_destroy(&core->stats);
    mesh_buf_fini(&core->scratch);
    free(core->up);
    free(core);
    *core_p = NULL;
}

void store_core_set_space(store_core *core, bool enough)
{
    core->enough_space = enough;
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
    return store_gather_empty(core->gather);
}

mesh_stats *store_core_stats(store_core *core)
{
    count(core);
    return core->stats;
}
