/* The lease this router holds with shard 0, and the ring that comes of it. Renewed with whoever leads shard 0: the
 * answer is the ring. Refused, or without an answer for ROUTER_TRY_MS, it goes to the next store, by the same table as
 * requests. */
#include "router/state.h"

#define LEASE_CORR 1 /* any but 0: the answer is a ring, which is taken whoever asked */
#define LEASE_SHARD 0

/* Who has no other way to learn the ring: edges, and the stores of all shards but the one that makes it. */
static bool hears_ring(const router_core *core, mesh_peer peer)
{
    const mesh_node_conf *node = mesh_conf_node(core->conf, peer);
    return node->role == MESH_EDGE || (node->role == MESH_STORE && node->shard != LEASE_SHARD);
}

void router_lease_push(router_core *core, mesh_peer peer, mesh_out *out)
{
    if (!hears_ring(core, peer) || mesh_ring_epoch(core->ring) == 0) {
        return;
    }
    MESH_MSG(msg, RING, ring, mesh_ring_message(core->ring, core->arena));
    msg.epoch = mesh_ring_epoch(core->ring);
    mesh_out_put(out, peer, &msg);
}

void router_lease_behind(router_core *core, mesh_peer store, uint64_t epoch, mesh_time now, mesh_out *out)
{
    if (epoch >= mesh_ring_epoch(core->ring) || now.mono < core->told[store] + ROUTER_TOLD_MS) {
        return;
    }
    core->told[store] = now.mono;
    router_lease_push(core, store, out);
}

static bool owns(const router_core *core, mesh_slot slot)
{
    return mesh_ring_router(core->ring, slot) == core->self;
}

/* The edges attach anew what moved, by the ring. One that heard of this ring only together with a later one, in which
 * the slot is back here, does not see that it was away: so each session's edge is told, after the ring. */
static void drop_moved(router_core *core, mesh_out *out)
{
    bool member = mesh_ring_boot(core->ring, core->self) == core->boot;
    for (size_t i = router_registry_count(core->registry); i-- > 0;) {
        router_session *s = router_registry_at(core->registry, i);
        if (!member || !owns(core, s->user->slot)) {
            router_attach_moved(core, s, out);
        }
    }
}

void router_lease_ring(router_core *core, mesh_peer from, const Mesh__Msg *msg, mesh_time now, mesh_out *out)
{
    if (msg->corr == LEASE_CORR) {
        router_core_heard(core, from, now);
        core->lease_since = core->lease_to == from ? MESH_NEVER : core->lease_since;
    }
    if (mesh_ring_set(core->ring, msg->ring) != MESH_OK) { /* not newer: the usual answer to a lease */
        if (msg->ring->epoch < mesh_ring_epoch(core->ring)) {
            router_lease_push(core, from, out); /* it has just opened its database: the link was up all the time */
        }
        return;
    }
    mesh_stats_set(core->stats, ROUTER_STAT_EPOCH, mesh_ring_epoch(core->ring));
    for (size_t i = 0; i < mesh_conf_nodes(core->conf); i++) {
        if (core->up[i]) {
            router_lease_push(core, (mesh_peer)i, out);
        }
    }
    drop_moved(core, out);
    router_tries_ring(core, now, out);
}

/* Nothing heard of the store since it was first asked without an answer. */
static bool silent(const router_core *core, mesh_peer store, mesh_time now)
{
    return core->lease_to == store && core->lease_since < MESH_NEVER && now.mono - core->lease_since >= ROUTER_TRY_MS &&
           core->heard[store] <= core->lease_since;
}

void router_lease_renew(router_core *core, mesh_time now, mesh_out *out)
{
    core->next_lease = now.mono + ROUTER_LEASE_RENEW_MS;
    mesh_peer store = router_leaders_target(core->leaders, LEASE_SHARD);
    if (store == MESH_NO_PEER) {
        return;
    }
    if (silent(core, store, now)) {
        core->lease_since = MESH_NEVER;
        router_leaders_silent(core->leaders, store, now);
        store = router_leaders_target(core->leaders, LEASE_SHARD);
    }
    mesh_ms ready_at = router_leaders_ready_at(core->leaders, LEASE_SHARD);
    if (ready_at > now.mono) {
        core->next_lease = ready_at;
        return;
    }
    if (core->lease_to != store || core->lease_since == MESH_NEVER) {
        core->lease_to = store;
        core->lease_since = now.mono;
    }
    Mesh__Lease lease = MESH__LEASE__INIT;
    lease.router = (char *)mesh_conf_node(core->conf, core->self)->name;
    lease.boot = core->boot;
    lease.leaving = core->leaving;
    MESH_MSG(msg, LEASE, lease, &lease);
    msg.corr = LEASE_CORR;
    msg.epoch = mesh_ring_epoch(core->ring);
    mesh_out_put(out, store, &msg);
}

bool router_lease_refused(router_core *core, mesh_peer store, uint64_t corr, mesh_time now)
{
    if (corr != LEASE_CORR) {
        return false;
    }
    if (core->lease_to == store) {
        core->lease_since = MESH_NEVER;
    }
    mesh_ms soonest = now.mono + ROUTER_PAUSE_MIN_MS;
    mesh_ms ready_at = router_leaders_ready_at(core->leaders, LEASE_SHARD);
    mesh_ms again = ready_at > soonest ? ready_at : soonest;
    core->next_lease = again < core->next_lease ? again : core->next_lease;
    return true;
}

void router_lease_up(router_core *core, mesh_peer store, mesh_time now, mesh_out *out)
{
    if (router_leaders_target(core->leaders, LEASE_SHARD) == store) {
        router_lease_renew(core, now, out);
    }
}

void router_lease_moved(router_core *core, mesh_peer store, mesh_time now)
{
    if (mesh_conf_node(core->conf, store)->shard == LEASE_SHARD) {
        core->next_lease = now.mono;
    }
}
