/* store/core_message.c: what comes to the core: who may say what, and where it goes. */
#include <string.h>

#include "mesh/log.h"
#include "store/check.h"
#include "store/core_state.h"
#include "store/metrics.h"

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
    case MESH__MSG__BODY_MAP_SET:
        grows = false;
        break;
    default:
        break;
    }
    if (grows && !core->enough_space) {
        return FAULT_DISK_FULL;
    }
    if (msg->body_case == MESH__MSG__BODY_SLOT_MOVE && store_outbox_items(core->outbox) >= STORE_SLOT_MOVE_OWED_MAX) {
        return FAULT_BUSY;
    }
    if (store_gather_bytes(core->gather) >= STORE_GATHER_MAX || store_kv_full(core->kv) ||
        (sends && store_outbox_items(core->outbox) >= STORE_OUTBOX_BACKLOG_MAX)) {
        return FAULT_BUSY;
    }
    return FAULT_NONE;
}

static void on_other(store_core *core, mesh_peer from, const Mesh__Msg *msg)
{
    if (msg->body_case == MESH__MSG__BODY_DELIVERED) {
        store_outbox_delivered(core->outbox, from, msg->delivered, core->now, core->out);
    } else if (msg->body_case == MESH__MSG__BODY_RING) {
        store_reign_ring(core, msg->ring);
    } else if (core->leases == NULL) {
        store_core_refuse(core, from, msg, FAULT_NOT_LEADER);
    } else if (store_leases_renew(core->leases, from, msg->lease, core->now) != MESH_OK) {
        mesh_stats_add(core->stats, STORE_M_BAD_MESSAGES, 1);
        store_core_refuse(core, from, msg, FAULT_MALFORMED);
    } else if (msg->corr != 0) {
        store_core_answer_ring(core, from, msg->corr);
    }
}

/* A slot on its way, or a router's map of another time. What is in the log already may change it: applying looks again.
 * An append has users of several slots. */
static bool stored_elsewhere(const store_core *core, store_kind kind, const Mesh__Msg *msg)
{
    return kind != STORE_KIND_OTHER && msg->key[0] != '\0' && msg->body_case != MESH__MSG__BODY_APPEND &&
           !store_fsm_owns_id(core->fsm, msg->key);
}

static void refuse_elsewhere(store_core *core, mesh_peer from, const Mesh__Msg *msg)
{
    Mesh__Msg answer = MESH__MSG__INIT;
    store_fsm_elsewhere(core->arena, &answer);
    store_core_answer(core, from, msg, msg->corr, &answer);
}

/* A slot can only go to a shard that the config knows. */
static bool goes_nowhere(const store_core *core, const Mesh__Msg *msg)
{
    return msg->body_case == MESH__MSG__BODY_SLOT_MOVE && msg->slot_move->shard >= mesh_conf_shards(core->conf);
}

static void on_read(store_core *core, mesh_peer from, const Mesh__Msg *msg, mesh_slice packed)
{
    if (store_consensus_voters(core->cons) == 1) {
        store_core_read(core, from, msg);
    } else if (store_reign_wait(core, from, packed) != MESH_OK) {
        store_core_refuse(core, from, msg, FAULT_BUSY);
    }
}

/* As it goes into the log: an attach as one that may be repeated, once every voter knows that kind. */
static mesh_slice log_form(store_core *core, const Mesh__Msg *msg, mesh_slice packed)
{
    if (msg->body_case != MESH__MSG__BODY_ATTACH ||
        store_group_level(core->group, core->cons) < STORE_GROUP_LEVEL_ATTACH_ONCE) {
        return packed;
    }
    Mesh__Msg once = *msg;
    once.body_case = MESH__MSG__BODY_ATTACH_ONCE;
    once.attach_once = msg->attach;
    mesh_buf_clear(&core->scratch);
    mesh_wire_pack(&once, &core->scratch);
    return mesh_buf_slice(&core->scratch);
}

static void on_write(store_core *core, mesh_peer from, const Mesh__Msg *msg, mesh_slice packed)
{
    mesh_fault fault = may_write(core, msg);
    if (fault == FAULT_NONE) {
        store_gather_put(core->gather, from, msg->corr, log_form(core, msg, packed));
    } else {
        mesh_stats_add(core->stats, STORE_M_SPACE_REFUSED, fault == FAULT_DISK_FULL ? 1 : 0);
        store_core_refuse(core, from, msg, fault);
    }
}

static void from_router(store_core *core, mesh_peer from, const Mesh__Msg *msg, mesh_slice packed)
{
    store_kind kind = store_check_kind(msg);
    if (kind == STORE_KIND_UNKNOWN || packed.size > STORE_MSG_MAX || !store_check_fields(msg)) {
        mesh_stats_add(core->stats, STORE_M_BAD_MESSAGES, 1);
        store_core_refuse(core, from, msg, FAULT_MALFORMED);
    } else if (kind == STORE_KIND_ANSWER) {
        if (core->ready) {
            store_mover_heard(core->mover, msg, core->now);
        }
    } else if (!core->leads) {
        store_core_refuse(core, from, msg, FAULT_NOT_LEADER);
    } else if (!core->ready) {
        store_core_refuse(core, from, msg, FAULT_UNAVAILABLE);
    } else if (stored_elsewhere(core, kind, msg)) {
        refuse_elsewhere(core, from, msg);
    } else if (goes_nowhere(core, msg)) {
        store_core_refuse(core, from, msg, FAULT_INVALID);
    } else if (kind == STORE_KIND_READ) {
        on_read(core, from, msg, packed);
    } else if (kind == STORE_KIND_OTHER) {
        on_other(core, from, msg);
    } else {
        on_write(core, from, msg, packed);
    }
}

static mesh_err on_replica(store_core *core, mesh_peer from, const Mesh__Replica *msg)
{
    mesh_err err = store_group_heard(core->group, from, msg);
    if (err == MESH_OK) {
        store_group_judge(core->group, core->cons, from, msg, core->out);
    }
    if (err == MESH_OK && store_group_is_unfit(core->cons, msg)) {
        mesh_log(MESH_ERROR, "data_is_stale", "shard=%u raft_id=%016llx last_index=%llu said_by=%s", core->fsm->shard,
                 (unsigned long long)store_consensus_id(core->cons),
                 (unsigned long long)store_consensus_last_index(core->cons), mesh_conf_node(core->conf, from)->name);
        core->verdict = STORE_QUARANTINE;
    }
    return err;
}

static void from_replica(store_core *core, mesh_peer from, const Mesh__Msg *msg)
{
    mesh_err err = MESH_OK;
    if (msg->body_case == MESH__MSG__BODY_REPLICA) {
        err = on_replica(core, from, msg->replica);
    } else if (msg->body_case == MESH__MSG__BODY_RAFT) {
        char name[MESH_NODE_NAME_MAX + 1];
        bool its_own =
            strcmp(store_group_node(msg->raft->from_address, name), mesh_conf_node(core->conf, from)->name) == 0;
        err = !its_own             ? MESH_MALFORMED
              : core->cons == NULL ? MESH_STALE
              : !store_group_takes(core->group, core->cons, from, msg->raft)
                  ? MESH_STALE
                  : store_consensus_receive(core->cons, msg->raft, core->now);
    } else {
        err = store_copy_message(core, from, msg);
    }
    mesh_stats_add(core->stats, STORE_M_BAD_MESSAGES, err == MESH_MALFORMED ? 1 : 0);
    store_reign_check(core);
}

void store_core_message(store_core *core, mesh_peer from, const Mesh__Msg *msg, mesh_slice packed, mesh_time now,
                        mesh_out *out)
{
    if (store_core_error(core) != MESH_OK || core->verdict != STORE_GO_ON) {
        return;
    }
    core->now = now;
    core->out = out;
    mesh_arena_reset(core->arena);
    if (core->leases != NULL) {
        store_leases_seen(core->leases, now);
    }
    if (store_transfer_is_replica(core->conf, core->self, from)) {
        from_replica(core, from, msg);
    } else if (mesh_conf_node(core->conf, from)->role == MESH_ROUTER) {
        from_router(core, from, msg, packed);
    } else if (mesh_conf_node(core->conf, from)->role == MESH_OPERATOR && msg->body_case == MESH__MSG__BODY_SLOT_MOVE) {
        from_router(core, from, msg, packed);
    } else if (mesh_conf_node(core->conf, from)->role == MESH_OPERATOR && msg->body_case == MESH__MSG__BODY_OPERATE) {
        store_core_operate(core, from, msg);
        store_reign_check(core);
    } else if (mesh_conf_node(core->conf, from)->role == MESH_OPERATOR && store_transfer_takes(msg)) {
        store_transfer_message(core->transfer, from, msg, now, out);
    } else {
        mesh_stats_add(core->stats, STORE_M_BAD_MESSAGES, 1);
        store_core_refuse(core, from, msg, FAULT_MALFORMED);
    }
    core->out = NULL;
}
