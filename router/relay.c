/* What the leader of one shard asks of another: stores of different shards have no links. A request like any other, to
 * the shard it names; the answer goes back as it comes. */
#include "router/state.h"

#define MAP_SHARD 0

void router_relay_ask(router_core *core, mesh_peer from, const Mesh__Msg *msg, mesh_time now, mesh_out *out)
{
    bool rows = msg->body_case == MESH__MSG__BODY_SLOT_ROWS;
    if (msg->corr == 0) {
        mesh_stats_add(core->stats, ROUTER_STAT_MALFORMED, 1);
        return;
    }
    mesh_stats_add(core->stats, ROUTER_STAT_FORWARDED, 1);
    (void)router_core_ask_shard(core, ROUTER_RELAY, rows ? msg->slot_rows->shard : MAP_SHARD, msg, from, now, out);
}
