/* What the core says to routers. */
#include <inttypes.h>
#include <string.h>

#include "mesh/log.h"
#include "store/core_state.h"
#include "store/metrics.h"
#include "store/read.h"

void store_core_answer(store_core *core, mesh_peer to, const Mesh__Msg *msg, uint64_t corr, Mesh__Msg *answer)
{
    if (answer->body_case == MESH__MSG__BODY_FAULT) {
        store_metrics_fault(core->stats, answer->fault->code);
    }
    if (answer->body_case == MESH__MSG__BODY__NOT_SET || corr == 0 || to == MESH_NO_PEER || core->out == NULL) {
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
    mesh_out_put(core->out, to, answer);
}

void store_core_refuse(store_core *core, mesh_peer to, const Mesh__Msg *msg, mesh_fault code)
{
    Mesh__Msg answer = MESH__MSG__INIT;
    Mesh__Fault fault = MESH__FAULT__INIT;
    char leader[MESH_NODE_NAME_MAX + 1];
    fault.code = (uint32_t)code;
    fault.after_ms = mesh_fault_get(fault.code)->after_ms;
    if (code == FAULT_NOT_LEADER && core->cons != NULL) {
        store_group_node(store_consensus_leader_address(core->cons), leader);
        /* itself: it leads, but its reign has not begun or has just ended: nobody in particular */
        if (strcmp(leader, core->name) != 0) {
            fault.leader = leader;
        }
    }
    answer.body_case = MESH__MSG__BODY_FAULT;
    answer.fault = &fault;
    store_core_answer(core, to, msg, msg->corr, &answer);
}

void store_core_answer_ring(store_core *core, mesh_peer to, uint64_t corr)
{
    MESH_MSG(msg, RING, ring, mesh_ring_message(core->fsm->ring, core->arena));
    msg.corr = corr;
    msg.epoch = mesh_ring_epoch(core->fsm->ring);
    mesh_out_put(core->out, to, &msg);
}

void store_core_tell_router(store_core *core, mesh_peer router)
{
    if (core->leases != NULL) {
        store_core_answer_ring(core, router, 0);
    }
    Mesh__Leading leading = MESH__LEADING__INIT;
    leading.shard = core->fsm->shard;
    leading.term = store_consensus_term(core->cons);
    MESH_MSG(msg, LEADING, leading, &leading);
    mesh_out_put(core->out, router, &msg);
}

void store_core_tell_routers(store_core *core)
{
    if (core->out == NULL) {
        return;
    }
    mesh_arena_reset(core->arena);
    for (size_t i = 0; i < mesh_conf_nodes(core->conf); i++) {
        if (core->up[i] != 0 && mesh_conf_node(core->conf, (mesh_peer)i)->role == MESH_ROUTER) {
            store_core_tell_router(core, (mesh_peer)i);
        }
    }
}

void store_core_read(store_core *core, mesh_peer from, const Mesh__Msg *msg)
{
    Mesh__Msg answer = MESH__MSG__INIT;
    store_read(core->fsm, core->arena, msg, &answer);
    mesh_stats_add(core->stats, STORE_M_READS, 1);
    store_core_answer(core, from, msg, msg->corr, &answer);
    store_fsm_evict(core->fsm);
}
