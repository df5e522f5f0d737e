/* One reign: from when this replica becomes its group's leader until it is not any more.
 *
 * It begins with an entry of its own (Genesis into a new database). When that is applied, everything that was ever
 * acked is applied too, and the replica is ready: the outbox starts from its rows, leases begin anew, routers are told.
 * When it ends, whoever waits is told FAULT_NOT_LEADER: what was submitted may be lost or may yet be committed, and
 * asking the next leader the same again finds out which.
 *
 * A leader that was stopped or cut off does not know that there is another. What it writes is never committed, so no
 * write of it is answered. A read is answered after an entry that was submitted when the read was there already is
 * committed: then no later leader had been elected before that entry, and the read sees all that was acked when it was
 * asked. All reads of a turn share one entry, with the writes. A group of one voter has no other leader to fear and
 * reads at once. */
#include <stdlib.h>
#include <string.h>

#include "mesh/alloc.h"
#include "mesh/log.h"
#include "store/core_state.h"
#include "store/metrics.h"

#define DONE_WAIT_MS 200 /* OutboxDone waits so long for company */

static void gather_own(store_core *core, const Mesh__Msg *msg)
{
    mesh_buf_clear(&core->scratch);
    mesh_wire_pack(msg, &core->scratch);
    store_gather_put(core->gather, MESH_NO_PEER, 0, mesh_buf_slice(&core->scratch));
}

static void gather_nothing(store_core *core)
{
    Mesh__OutboxDone nothing = MESH__OUTBOX_DONE__INIT;
    MESH_MSG(msg, OUTBOX_DONE, outbox_done, &nothing);
    gather_own(core, &msg);
}

/* ---- reads that wait ---- */

mesh_err store_reign_wait(store_core *core, mesh_peer from, mesh_slice packed)
{
    if (core->reads_bytes + packed.size > STORE_READS_MAX) {
        return MESH_FULL;
    }
    store_read_waiting *r = mesh_alloc(sizeof *r + packed.size);
    r->from = from;
    r->size = packed.size;
    memcpy(r->packed, packed.data, packed.size);
    *core->reads_end = r;
    core->reads_end = &r->next;
    core->reads_bytes += r->size;
    return MESH_OK;
}

static const Mesh__Msg *read_message(store_core *core, const store_read_waiting *r)
{
    ProtobufCMessage *message;
    mesh_arena_reset(core->arena);
    mesh_slice packed = { r->packed, r->size };
    mesh_err err = mesh_wire_unpack(&mesh__msg__descriptor, packed, core->arena, &message);
    return err == MESH_OK ? (const Mesh__Msg *)message : NULL; /* it was unpacked before */
}

/* The first that waits, out of the list. */
static store_read_waiting *read_take(store_core *core)
{
    store_read_waiting *r = core->reads;
    core->reads = r->next;
    core->reads_end = core->reads != NULL ? core->reads_end : &core->reads;
    core->reads_bytes -= r->size;
    return r;
}

static void answer_reads(store_core *core, uint64_t index)
{
    while (core->reads != NULL && core->reads->index != 0 && core->reads->index <= index) {
        store_read_waiting *r = read_take(core);
        const Mesh__Msg *msg = read_message(core, r);
        if (msg != NULL && r->from != MESH_NO_PEER) {
            store_core_read(core, r->from, msg);
        }
        free(r);
    }
}

static void refuse_reads(store_core *core)
{
    while (core->reads != NULL) {
        store_read_waiting *r = read_take(core);
        const Mesh__Msg *msg = read_message(core, r);
        if (msg != NULL) {
            store_core_refuse(core, r->from, msg, FAULT_NOT_LEADER);
        }
        free(r);
    }
}

static void stamp_reads(store_core *core, uint64_t index)
{
    for (store_read_waiting *r = core->reads; r != NULL; r = r->next) {
        r->index = r->index == 0 ? index : r->index;
    }
}

static bool reads_unstamped(const store_core *core)
{
    const store_read_waiting *r = core->reads;
    while (r != NULL && r->index != 0) {
        r = r->next;
    }
    return r != NULL;
}

void store_reign_forget(store_core *core, mesh_peer peer)
{
    store_gather_forget(core->gather, peer);
    for (store_read_waiting *r = core->reads; r != NULL; r = r->next) {
        r->from = r->from == peer ? MESH_NO_PEER : r->from;
    }
}

/* ---- beginning and end ---- */

static void refuse_entry(store_core *core, store_gathered *entry)
{
    Mesh__Msg nothing = MESH__MSG__INIT;
    for (size_t i = 0; i < entry->n; i++) {
        nothing.corr = entry->waiters[i].corr;
        store_core_refuse(core, entry->waiters[i].from, &nothing, FAULT_NOT_LEADER);
    }
    store_gather_done(core->gather, entry);
}

void store_reign_refuse(store_core *core)
{
    store_gathered *entry;
    while ((entry = store_gather_committed(core->gather)) != NULL) {
        refuse_entry(core, entry);
    }
    while ((entry = store_gather_drop(core->gather)) != NULL) {
        refuse_entry(core, entry);
    }
    refuse_reads(core);
}

static void reset(store_core *core)
{
    core->opening_sent = false;
    core->ready = false;
    core->ring_pending = false;
    core->ring_heard = 0;
    core->done_since = MESH_NEVER;
    store_outbox_destroy(&core->outbox);
    core->outbox = store_outbox_new(core->fsm);
    store_mover_destroy(&core->mover);
    core->mover = store_mover_new(core->fsm, mesh_rand_next(&core->rand));
    if (core->leases != NULL) {
        store_leases_destroy(&core->leases);
        core->leases = store_leases_new(core->conf, core->fsm->ring);
    }
}

void store_reign_check(store_core *core)
{
    if (core->cons == NULL || store_consensus_reign(core->cons) == core->reign) {
        return;
    }
    store_reign_refuse(core);
    if (core->leads) {
        mesh_log(MESH_INFO, "leadership_lost", "shard=%u term=%llu", core->fsm->shard,
                 (unsigned long long)store_consensus_term(core->cons));
    }
    reset(core);
    core->reign = store_consensus_reign(core->cons);
    core->leads = store_consensus_leader(core->cons);
    if (core->leads) {
        mesh_stats_add(core->stats, STORE_M_REIGNS, 1);
        mesh_log(MESH_INFO, "leading", "shard=%u term=%llu", core->fsm->shard,
                 (unsigned long long)store_consensus_term(core->cons));
    }
}

/* The first own entry of this reign. */
static void gather_opening(store_core *core)
{
    core->opening_sent = true;
    if (core->fsm->era != 0) {
        gather_nothing(core);
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

static void become_ready(store_core *core)
{
    core->ready = true;
    core->error = store_outbox_start(core->outbox);
    store_mover_applied(core->mover); /* what earlier leaders began is applied now */
    for (size_t i = 0; i < mesh_conf_nodes(core->conf); i++) {
        if (core->up[i] != 0 && mesh_conf_node(core->conf, (mesh_peer)i)->role == MESH_ROUTER && core->out != NULL) {
            store_outbox_up(core->outbox, (mesh_peer)i, core->now, core->out);
        }
    }
    if (core->leases != NULL) {
        store_leases_start(core->leases, core->now);
    }
    store_core_tell_routers(core);
}

/* ---- committed ---- */

static void on_answer(void *arg, size_t at, const Mesh__Msg *msg, Mesh__Msg *answer)
{
    store_core *core = arg;
    if (core->applying == NULL) {
        return;
    }
    if (at < core->applying->n) {
        store_waiter w = core->applying->waiters[at];
        store_core_answer(core, w.from, msg, w.corr, answer);
    }
    if (msg->body_case == MESH__MSG__BODY_SLOT_GONE || msg->body_case == MESH__MSG__BODY_SLOT_OWED) {
        store_mover_applied(core->mover);
    }
    if (msg->body_case == MESH__MSG__BODY_RING_SET || msg->body_case == MESH__MSG__BODY_RING) {
        core->ring_pending = false;
    }
}

static void applied_own(store_core *core, uint64_t index)
{
    if (!core->ready) {
        become_ready(core); /* the outbox row of this very entry, if any, is counted by it */
    } else {
        store_outbox_owe(core->outbox, index, core->now, core->out);
    }
    if (core->fsm->slots_changed) {
        store_outbox_slots(core->outbox);
    }
    if (core->fsm->slots_changed || core->fsm->took_owed) {
        store_mover_applied(core->mover);
    }
    if (core->fsm->ring_changed) {
        store_core_tell_routers(core);
        store_outbox_ring(core->outbox, core->now, core->out);
    }
}

void store_reign_committed(void *arg, uint64_t index, uint64_t term, mesh_slice payload, bool own)
{
    store_core *core = arg;
    if (store_core_error(core) != MESH_OK) {
        return;
    }
    core->applying = own ? store_gather_committed(core->gather) : NULL;
    core->fsm->durable = core->cons != NULL && store_consensus_voters(core->cons) > 1 ? "quorum" : "disk";
    mesh_err err = store_fsm_apply(core->fsm, index, term, payload, on_answer, core);
    if (core->applying != NULL) {
        store_gathered *entry = core->applying;
        if (err == MESH_OK) {
            applied_own(core, index);
        }
        core->applying = NULL;
        store_gather_done(core->gather, entry);
        if (err == MESH_OK) {
            answer_reads(core, index);
        }
    }
}

/* ---- the turn ---- */

void store_reign_ring(store_core *core, const Mesh__Ring *ring)
{
    if (core->leases != NULL || !core->ready || ring->epoch <= mesh_ring_epoch(core->fsm->ring) ||
        ring->epoch <= core->ring_heard) {
        return;
    }
    core->ring_heard = ring->epoch;
    MESH_MSG(msg, RING, ring, (Mesh__Ring *)(uintptr_t)ring);
    gather_own(core, &msg);
}

static void gather_ring(store_core *core)
{
    Mesh__RingSet set;
    mesh_arena_reset(core->arena);
    if (core->leases != NULL && !core->ring_pending &&
        store_leases_differ(core->leases, core->now, core->arena, &set)) {
        MESH_MSG(msg, RING_SET, ring_set, &set);
        gather_own(core, &msg);
        core->ring_pending = true;
    }
}

static void gather_move(store_core *core)
{
    Mesh__Msg msg;
    mesh_arena_reset(core->arena);
    if (store_mover_wants(core->mover, core->arena, &msg)) {
        gather_own(core, &msg);
    }
}

/* Finished outbox rows leave with the next entry, or alone after a while. */
static void gather_done(store_core *core)
{
    uint64_t indexes[STORE_ENTRY_OPS];
    if (store_outbox_done(core->outbox) == 0) {
        return;
    }
    if (core->done_since == MESH_NEVER) {
        core->done_since = core->now.mono;
    }
    if (!store_gather_waits(core->gather) && core->now.mono < core->done_since + DONE_WAIT_MS) {
        return;
    }
    Mesh__OutboxDone done = MESH__OUTBOX_DONE__INIT;
    done.n_items = store_outbox_take_done(core->outbox, indexes, STORE_ENTRY_OPS);
    done.items = indexes;
    MESH_MSG(msg, OUTBOX_DONE, outbox_done, &done);
    gather_own(core, &msg);
    core->done_since = store_outbox_done(core->outbox) > 0 ? core->now.mono : MESH_NEVER;
}

static void submit(store_core *core)
{
    if (!store_gather_waits(core->gather) && reads_unstamped(core)) {
        gather_nothing(core);
    }
    while (store_consensus_uncommitted(core->cons) < STORE_PIPELINE && store_gather_waits(core->gather)) {
        uint64_t index;
        mesh_slice payload = store_gather_submit(core->gather, core->now.wall);
        if (store_consensus_submit(core->cons, payload, core->now, &index) != MESH_OK) {
            store_gather_recall(
                core->gather); /* leadership is being handed over, or gone: the reign's end settles it */
            break;
        }
        stamp_reads(core, index);
    }
}

static mesh_ms earliest(mesh_ms a, mesh_ms b)
{
    return a < b ? a : b;
}

mesh_ms store_reign_turn(store_core *core)
{
    mesh_ms next = MESH_NEVER;
    if (!core->leads || store_core_error(core) != MESH_OK) {
        return next;
    }
    if (!core->opening_sent) {
        gather_opening(core);
    }
    if (core->ready) {
        next = store_outbox_turn(core->outbox, core->now, core->out);
        gather_ring(core);
        gather_move(core);
        next = earliest(next, store_mover_turn(core->mover, core->up, core->now, core->out));
        gather_done(core);
        if (core->done_since != MESH_NEVER) {
            next = earliest(next, core->done_since + DONE_WAIT_MS);
        }
        if (core->leases != NULL && !core->ring_pending) {
            next = earliest(next, store_leases_deadline(core->leases));
        }
    }
    submit(core);
    return next;
}
