/* store/operate.c: an operator asks the leader for one step; it is submitted and that is the answer. Whether it came to
 * be, the operator sees in the metrics, and asks again if not. */
#include <inttypes.h>
#include <string.h>

#include "store/core_state.h"
#include "store/metrics.h"

static void refuse(store_core *core, mesh_peer to, const Mesh__Msg *msg, mesh_fault code, const char *detail)
{
    Mesh__Msg answer = MESH__MSG__INIT;
    Mesh__Fault fault = MESH__FAULT__INIT;
    fault.code = (uint32_t)code;
    fault.detail = (char *)(uintptr_t)detail;
    answer.body_case = MESH__MSG__BODY_FAULT;
    answer.fault = &fault;
    store_core_answer(core, to, msg, msg->corr, &answer);
}

static bool is_store_here(const store_core *core, const char *node)
{
    mesh_peer peer = mesh_conf_find(core->conf, node);
    return peer != MESH_NO_PEER && mesh_conf_node(core->conf, peer)->role == MESH_STORE &&
           mesh_conf_node(core->conf, peer)->shard == core->fsm->shard;
}

static mesh_err obey(store_core *core, const Mesh__Operate *order)
{
    switch (order->op) {
    case MESH__OPERATE_OP__OPERATE_TRANSFER:
        return store_group_transfer(core->cons, order->node, core->now);
    case MESH__OPERATE_OP__OPERATE_REMOVE:
        return store_group_remove(core->cons, order->node, core->now);
    case MESH__OPERATE_OP__OPERATE_ADD:
        return store_group_add(core->cons, order->node, core->now);
    default:
        return MESH_UNSUPPORTED;
    }
}

void store_core_operate(store_core *core, mesh_peer from, const Mesh__Msg *msg)
{
    const Mesh__Operate *order = msg->operate;
    Mesh__Msg answer = MESH__MSG__INIT;
    bool transfer = order->op == MESH__OPERATE_OP__OPERATE_TRANSFER;
    if (!core->leads || !core->ready) {
        store_core_refuse(core, from, msg, FAULT_NOT_LEADER);
        return;
    }
    if (!(transfer && order->node[0] == '\0') && !is_store_here(core, order->node)) {
        refuse(core, from, msg, FAULT_NOT_FOUND, "the leader's config has no such store in this shard");
        return;
    }
    switch (obey(core, order)) {
    case MESH_OK:
        store_fsm_done(core->arena, &answer);
        store_core_answer(core, from, msg, msg->corr, &answer);
        break;
    case MESH_NOT_FOUND:
        refuse(core, from, msg, FAULT_NOT_FOUND,
               transfer ? "no other voter could take over" : "it is no member of the group");
        break;
    case MESH_DENIED:
        refuse(core, from, msg, FAULT_DENIED, "it leads, or is the last voter");
        break;
    case MESH_UNSUPPORTED:
        refuse(core, from, msg, FAULT_UNKNOWN_TYPE, "a store does not know this order");
        break;
    default:
        refuse(core, from, msg, FAULT_BUSY, "another change is under way");
    }
}

/* ---- the group as text ---- */

static const char *role_name(store_member_role role)
{
    return role == STORE_VOTER ? "voter" : role == STORE_STANDBY ? "standby" : "spare";
}

static void print_members(const store_core *core, mesh_buf *out)
{
    store_replica_role list[STORE_MEMBERS_MAX];
    char name[MESH_NODE_NAME_MAX + 1];
    size_t n = core->cons != NULL ? store_consensus_configuration(core->cons, list, STORE_MEMBERS_MAX) : 0;
    mesh_buf_puts(out, "# HELP parley_store_member_index Members of the group; what the leader knows them to have on "
                       "disk, 0: nothing known.\n# TYPE parley_store_member_index gauge\n");
    for (size_t i = 0; i < n; i++) {
        bool self = list[i].raft_id == store_consensus_id(core->cons);
        uint64_t index =
            self ? store_consensus_last_index(core->cons) : store_consensus_match(core->cons, list[i].raft_id);
        mesh_buf_printf(out, "parley_store_member_index{node=\"%s\",member=\"%s\",role=\"%s\"} %" PRIu64 "\n",
                        core->name, store_group_node(list[i].address, name), role_name(list[i].role), index);
    }
}

static void print_slots(const store_core *core, mesh_buf *out)
{
    size_t shards = mesh_conf_shards(core->conf);
    uint32_t slots[MESH_NODES_MAX] = { 0 };
    for (unsigned slot = 0; slot < MESH_SLOTS; slot++) {
        uint32_t shard = mesh_ring_shard(core->fsm->ring, (mesh_slot)slot);
        slots[shard < MESH_NODES_MAX ? shard : 0]++;
    }
    mesh_buf_puts(out, "# HELP parley_store_slots Slots of each shard, by the map this store has.\n"
                       "# TYPE parley_store_slots gauge\n");
    for (size_t i = 0; i < shards; i++) {
        mesh_buf_printf(out, "parley_store_slots{node=\"%s\",shard=\"%zu\"} %" PRIu32 "\n", core->name, i, slots[i]);
    }
}

/* Neighbours with one shard as one line: its slots in the label, their number as the value. */
static void print_map(const store_core *core, mesh_buf *out)
{
    mesh_buf_puts(out, "# HELP parley_store_map Slots in a row that are in one shard, by the map this store has.\n"
                       "# TYPE parley_store_map gauge\n");
    for (unsigned first = 0, slot = 1; slot <= MESH_SLOTS; slot++) {
        uint32_t shard = mesh_ring_shard(core->fsm->ring, (mesh_slot)first);
        if (slot == MESH_SLOTS || mesh_ring_shard(core->fsm->ring, (mesh_slot)slot) != shard) {
            mesh_buf_printf(out, "parley_store_map{node=\"%s\",shard=\"%" PRIu32 "\",first=\"%u\",last=\"%u\"} %u\n",
                            core->name, shard, first, slot - 1, slot - first);
            first = slot;
        }
    }
}

void store_core_print_group(const store_core *core, mesh_buf *out)
{
    print_members(core, out);
    print_slots(core, out);
    print_map(core, out);
    mesh_buf_puts(out, "# HELP parley_store_router_live 1: the router is in the ring this store has.\n"
                       "# TYPE parley_store_router_live gauge\n");
    for (size_t i = 0; i < mesh_conf_nodes(core->conf); i++) {
        const mesh_node_conf *node = mesh_conf_node(core->conf, (mesh_peer)i);
        if (node->role == MESH_ROUTER) {
            mesh_buf_printf(out, "parley_store_router_live{node=\"%s\",router=\"%s\"} %d\n", core->name, node->name,
                            mesh_ring_has(core->fsm->ring, (mesh_peer)i));
        }
    }
}
