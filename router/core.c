/* The dispatcher of the router core, its ring and lease. The happy path of a chat request: remember, forward to the
 * store, answer the edge. It fails three ways: the store is down (told at once), the deadline passes (told then; the
 * outcome is unknown, and the client's own retry is idempotent), the table is full (busy). */
#include "router/core.h"

#include <inttypes.h>

#include "mesh/alloc.h"
#include "mesh/log.h"
#include "router/state.h"

#define LEASE_CORR 1

static const mesh_stat_info stat_infos[ROUTER_STATS] = {
    [ROUTER_STAT_FORWARDED] = { "parley_router_forwarded_total", "requests sent on to a store", MESH_COUNTER, NULL },
    [ROUTER_STAT_FAULTS] = { "parley_router_faults_total", "faults answered", MESH_COUNTER, NULL },
    [ROUTER_STAT_MALFORMED] = { "parley_router_malformed_total", "messages dropped as malformed", MESH_COUNTER, NULL },
    [ROUTER_STAT_LATE] = { "parley_router_late_total", "answers nobody waits for any more", MESH_COUNTER, NULL },
    [ROUTER_STAT_EXPIRED] = { "parley_router_expired_total", "requests past their deadline", MESH_COUNTER, NULL },
    [ROUTER_STAT_BUSY] = { "parley_router_busy_total", "requests refused at a limit", MESH_COUNTER, NULL },
    [ROUTER_STAT_DELIVERS] = { "parley_router_delivers_total", "parcels taken from outboxes", MESH_COUNTER, NULL },
    [ROUTER_STAT_DELIVER_RETRY] = { "parley_router_deliver_retry_total", "parcels sent back to be tried again",
                                    MESH_COUNTER, NULL },
    [ROUTER_STAT_GAPS] = { "parley_router_gaps_total", "appends that came before their predecessor", MESH_COUNTER,
                           NULL },
    [ROUTER_STAT_LIVE] = { "parley_router_live_total", "entries sent to sessions", MESH_COUNTER, NULL },
    [ROUTER_STAT_PULLS] = { "parley_router_pulls_total", "pages read to feed sessions", MESH_COUNTER, NULL },
    [ROUTER_STAT_PULLED] = { "parley_router_pulled_total", "entries fed from the store", MESH_COUNTER, NULL },
    [ROUTER_STAT_ATTACHES] = { "parley_router_attaches_total", "sessions attached", MESH_COUNTER, NULL },
    [ROUTER_STAT_REPLACED] = { "parley_router_replaced_total", "sessions replaced by a newer one of the device",
                               MESH_COUNTER, NULL },
    [ROUTER_STAT_NOT_OWNER] = { "parley_router_not_owner_total", "requests for slots owned elsewhere", MESH_COUNTER,
                                NULL },
    [ROUTER_STAT_SESSIONS] = { "parley_router_sessions", "sessions registered", MESH_GAUGE, NULL },
    [ROUTER_STAT_INFLIGHT] = { "parley_router_inflight", "requests without an answer", MESH_GAUGE, NULL },
    [ROUTER_STAT_EPOCH] = { "parley_router_ring_epoch", "epoch of the ring in force", MESH_GAUGE, NULL },
};

router_core *router_core_new(const router_core_conf *conf, mesh_time now)
{
    router_core *core = mesh_alloc(sizeof *core);
    core->conf = conf->conf;
    core->self = conf->self;
    core->boot = conf->boot;
    core->ttl_ms = mesh_conf_int(conf->conf, "router.ttl_ms");
    core->ring = mesh_ring_new(conf->conf);
    core->requests = router_requests_new(conf->boot);
    core->registry =
        router_registry_new(mesh_conf_hash_key(conf->conf), (size_t)mesh_conf_int(conf->conf, "router.sessions_max"));
    core->stats = mesh_stats_new(stat_infos, ROUTER_STATS);
    core->arena = mesh_arena_new();
    core->up = mesh_alloc(mesh_conf_nodes(conf->conf) * sizeof *core->up);
    core->next_lease = now.mono;
    core->next_heads = now.mono;
    return core;
}

void router_core_destroy(router_core **core_p)
{
    router_core *core = *core_p;
    if (core) {
        router_requests_destroy(&core->requests);
        router_registry_destroy(&core->registry);
        mesh_ring_destroy(&core->ring);
        mesh_stats_destroy(&core->stats);
        mesh_arena_destroy(&core->arena);
        free(core->targets);
        free(core->up);
        free(core);
        *core_p = NULL;
    }
}

void router_core_fault(router_core *core, mesh_peer to, uint64_t corr, uint64_t trace, mesh_fault code, mesh_out *out)
{
    mesh_stats_add(core->stats, ROUTER_STAT_FAULTS, 1);
    mesh_log(MESH_DEBUG, "fault", "trace=%016" PRIx64 " fault=%s", trace, mesh_fault_get((uint32_t)code)->name);
    if (corr == 0 || to == MESH_NO_PEER) {
        return;
    }
    Mesh__Fault fault = MESH__FAULT__INIT;
    fault.code = (uint32_t)code;
    fault.after_ms = mesh_fault_get((uint32_t)code)->after_ms;
    fault.expected = mesh_ring_epoch(core->ring);
    MESH_MSG(msg, FAULT, fault, &fault);
    msg.corr = corr;
    msg.trace = trace;
    msg.epoch = mesh_ring_epoch(core->ring);
    mesh_out_put(out, to, &msg);
}

/* Whoever asked said how long it waits; this router waits no longer than that, and not longer than its own limit. An
 * attach is the exception: asked again, it is the same one, so it outlives its asker's patience. */
static mesh_ms time_left(const router_core *core, const Mesh__Msg *msg)
{
    bool theirs = msg->ttl_ms != 0 && msg->ttl_ms < core->ttl_ms && msg->body_case != MESH__MSG__BODY_ATTACH;
    return theirs ? (mesh_ms)msg->ttl_ms : core->ttl_ms;
}

router_request *router_core_ask(router_core *core, router_request_kind kind, const char *key, const Mesh__Msg *msg,
                                mesh_peer from, mesh_time now, mesh_out *out)
{
    mesh_peer store = mesh_ring_store_of(core->ring, key);
    if (store == MESH_NO_PEER || !core->up[store]) {
        router_core_fault(core, from, msg->corr, msg->trace, FAULT_UNAVAILABLE, out);
        return NULL;
    }
    mesh_ms ttl = time_left(core, msg);
    router_request *req = router_requests_add(core->requests, kind, now.mono + ttl);
    if (!req) {
        mesh_stats_add(core->stats, ROUTER_STAT_BUSY, 1);
        router_core_fault(core, from, msg->corr, msg->trace, FAULT_BUSY, out);
        return NULL;
    }
    req->to = store;
    req->from = from;
    req->from_corr = msg->corr;
    req->trace = msg->trace;
    Mesh__Msg forward = *msg;
    forward.corr = req->corr;
    forward.epoch = mesh_ring_epoch(core->ring);
    forward.ttl_ms = (uint32_t)ttl;
    if (req->trace != 0) {
        mesh_log(MESH_DEBUG, "forwarded", "trace=%016" PRIx64 " type=%s key=%s to=%s", req->trace,
                 mesh_msg_kind_name(msg), key, mesh_conf_node(core->conf, store)->name);
    }
    mesh_out_put(out, store, &forward);
    return req;
}

void router_core_answer(router_core *core, const router_request *req, const Mesh__Msg *answer, mesh_out *out)
{
    if (req->from == MESH_NO_PEER || req->from_corr == 0) {
        return;
    }
    mesh_log(MESH_DEBUG, "answered", "trace=%016" PRIx64 " type=%s fault=%s", req->trace, mesh_msg_kind_name(answer),
             answer->body_case == MESH__MSG__BODY_FAULT ? mesh_fault_get(answer->fault->code)->name : "none");
    Mesh__Msg back = *answer;
    back.corr = req->from_corr;
    back.trace = req->trace;
    back.epoch = mesh_ring_epoch(core->ring);
    mesh_out_put(out, req->from, &back);
}

/* ---- the ring and the lease ---- */

static void push_ring(router_core *core, mesh_peer to, mesh_out *out)
{
    MESH_MSG(msg, RING, ring, mesh_ring_message(core->ring, core->arena));
    msg.epoch = mesh_ring_epoch(core->ring);
    mesh_out_put(out, to, &msg);
}

static bool owns(const router_core *core, mesh_slot slot)
{
    return mesh_ring_router(core->ring, slot) == core->self;
}

static void take_ring(router_core *core, const Mesh__Ring *ring, mesh_out *out)
{
    if (mesh_ring_set(core->ring, ring) != MESH_OK) {
        return; /* not newer: the usual answer to a lease */
    }
    mesh_stats_set(core->stats, ROUTER_STAT_EPOCH, mesh_ring_epoch(core->ring));
    /* the edges re-attach what moved: dropping it here is all there is to do */
    bool member = mesh_ring_boot(core->ring, core->self) == core->boot;
    for (size_t i = router_registry_count(core->registry); i-- > 0;) {
        router_session *s = router_registry_at(core->registry, i);
        if (!member || !owns(core, s->user->slot)) {
            router_registry_release(core->registry, s);
        }
    }
    for (size_t i = 0; i < mesh_conf_nodes(core->conf); i++) {
        if (core->up[i] && mesh_conf_node(core->conf, (mesh_peer)i)->role == MESH_EDGE) {
            push_ring(core, (mesh_peer)i, out);
        }
    }
}

/* Shard 0's store keeps the leases; the map's first store is asked until the shard has more. */
static void renew_lease(router_core *core, mesh_time now, mesh_out *out)
{
    core->next_lease = now.mono + ROUTER_LEASE_RENEW_MS;
    for (size_t i = 0; i < mesh_conf_nodes(core->conf); i++) {
        const mesh_node_conf *node = mesh_conf_node(core->conf, (mesh_peer)i);
        if (node->role != MESH_STORE || node->shard != 0 || !core->up[i]) {
            continue;
        }
        Mesh__Lease lease = MESH__LEASE__INIT;
        lease.router = (char *)mesh_conf_node(core->conf, core->self)->name;
        lease.boot = core->boot;
        lease.leaving = core->leaving;
        MESH_MSG(msg, LEASE, lease, &lease);
        msg.corr = LEASE_CORR; /* any but 0: the answer is a ring, which is taken whoever asked */
        msg.epoch = mesh_ring_epoch(core->ring);
        mesh_out_put(out, (mesh_peer)i, &msg);
    }
}

/* ---- messages ---- */

static void forward(router_core *core, mesh_peer from, const Mesh__Msg *msg, mesh_time now, mesh_out *out)
{
    mesh_stats_add(core->stats, ROUTER_STAT_FORWARDED, 1);
    (void)router_core_ask(core, ROUTER_FORWARD, msg->key, msg, from, now, out);
}

static void edge_message(router_core *core, mesh_peer from, const Mesh__Msg *msg, mesh_time now, mesh_out *out)
{
    if (msg->body_case == MESH__MSG__BODY_DETACH) {
        router_attach_detach(core, msg->detach, out);
        return;
    }
    if (!mesh_qid_valid(msg->key)) {
        mesh_stats_add(core->stats, ROUTER_STAT_MALFORMED, 1);
        router_core_fault(core, from, msg->corr, msg->trace, FAULT_MALFORMED, out);
        return;
    }
    switch (msg->body_case) {
    case MESH__MSG__BODY_SEND:
    case MESH__MSG__BODY_CHAT_CREATE:
    case MESH__MSG__BODY_CHAT_EDIT:
    case MESH__MSG__BODY_READ:
    case MESH__MSG__BODY_HISTORY:
    case MESH__MSG__BODY_MEMBERS:
    case MESH__MSG__BODY_PROFILE:
        forward(core, from, msg, now, out);
        break;
    case MESH__MSG__BODY_CHATS:
        router_chats_ask(core, from, msg, now, out);
        break;
    case MESH__MSG__BODY_ATTACH:
        router_attach_ask(core, from, msg, now, out);
        break;
    case MESH__MSG__BODY_INBOX_ACK:
        router_attach_ack(core, msg, now, out);
        break;
    default:
        mesh_stats_add(core->stats, ROUTER_STAT_MALFORMED, 1);
        router_core_fault(core, from, msg->corr, msg->trace, FAULT_MALFORMED, out);
    }
}

/* A request ends: with the store's answer, or with a fault in its place. */
static void finish(router_core *core, router_request *req, const Mesh__Msg *answer, mesh_time now, mesh_out *out)
{
    switch (req->kind) {
    case ROUTER_FORWARD:
        router_core_answer(core, req, answer, out);
        break;
    case ROUTER_ATTACH:
        router_attach_done(core, req, answer, now, out);
        break;
    case ROUTER_ACK:
        router_attach_ack_done(core, req, answer, now, out);
        break;
    case ROUTER_CHATS_ROWS:
        router_chats_rows(core, req, answer, now, out);
        break;
    case ROUTER_CHATS_HEADS:
        router_chats_heads(core, req, answer, now, out);
        break;
    case ROUTER_APPEND:
        router_fanout_appended(core, req, answer, now, out);
        break;
    case ROUTER_PULL:
        router_fanout_page(core, req, answer, now, out);
        break;
    }
    router_requests_remove(core->requests, req);
}

static void fail(router_core *core, router_request *req, mesh_time now, mesh_out *out)
{
    Mesh__Fault fault = MESH__FAULT__INIT;
    fault.code = FAULT_UNAVAILABLE;
    fault.after_ms = mesh_fault_get(FAULT_UNAVAILABLE)->after_ms;
    MESH_MSG(msg, FAULT, fault, &fault);
    mesh_stats_add(core->stats, ROUTER_STAT_FAULTS, 1);
    finish(core, req, &msg, now, out);
}

static void store_message(router_core *core, mesh_peer from, const Mesh__Msg *msg, mesh_slice packed, mesh_time now,
                          mesh_out *out)
{
    if (msg->body_case == MESH__MSG__BODY_DELIVER) {
        router_fanout_deliver(core, from, msg, packed, now, out);
        return;
    }
    if (msg->body_case == MESH__MSG__BODY_RING) {
        take_ring(core, msg->ring, out);
        return;
    }
    router_request *req = router_requests_find(core->requests, msg->corr);
    if (!req || req->to != from) {
        mesh_stats_add(core->stats, ROUTER_STAT_LATE, 1);
        return;
    }
    finish(core, req, msg, now, out);
}

void router_core_message(router_core *core, mesh_peer from, const Mesh__Msg *msg, mesh_slice packed, mesh_time now,
                         mesh_out *out)
{
    mesh_arena_reset(core->arena);
    switch (mesh_conf_node(core->conf, from)->role) {
    case MESH_EDGE:
        edge_message(core, from, msg, now, out);
        break;
    case MESH_STORE:
        store_message(core, from, msg, packed, now, out);
        break;
    default:
        mesh_stats_add(core->stats, ROUTER_STAT_MALFORMED, 1);
    }
}

void router_core_up(router_core *core, mesh_peer peer, uint64_t boot, mesh_time now, mesh_out *out)
{
    (void)boot;
    mesh_arena_reset(core->arena);
    core->up[peer] = true;
    mesh_role role = mesh_conf_node(core->conf, peer)->role;
    if (role == MESH_STORE) {
        renew_lease(core, now, out);
    } else if (role == MESH_EDGE && mesh_ring_epoch(core->ring) > 0) {
        push_ring(core, peer, out);
    }
}

void router_core_down(router_core *core, mesh_peer peer, mesh_time now, mesh_out *out)
{
    mesh_arena_reset(core->arena);
    core->up[peer] = false;
    if (mesh_conf_node(core->conf, peer)->role == MESH_EDGE) {
        for (size_t i = router_registry_count(core->registry); i-- > 0;) {
            router_session *s = router_registry_at(core->registry, i);
            if (s->edge == peer) {
                router_registry_release(core->registry, s);
            }
        }
        return;
    }
    router_request *newer = NULL;
    router_request *last = NULL; /* answers may ask again: those are not looked at */
    for (router_request *r = router_requests_oldest(core->requests); r; r = r->newer) {
        last = r;
    }
    uint64_t stop = last ? last->corr : 0;
    for (router_request *r = router_requests_oldest(core->requests); r; r = newer) {
        bool end = r->corr == stop;
        newer = r->newer;
        if (r->to == peer) {
            fail(core, r, now, out);
        }
        if (end) {
            break;
        }
    }
}

mesh_ms router_core_turn(router_core *core, mesh_time now, mesh_out *out)
{
    mesh_arena_reset(core->arena);
    if (now.mono >= core->next_lease) {
        renew_lease(core, now, out);
    }
    router_request *oldest;
    while ((oldest = router_requests_oldest(core->requests)) && oldest->deadline <= now.mono) {
        mesh_stats_add(core->stats, ROUTER_STAT_EXPIRED, 1);
        fail(core, oldest, now, out);
    }
    router_fanout_heads(core, now, out);
    mesh_stats_set(core->stats, ROUTER_STAT_SESSIONS, router_registry_count(core->registry));
    mesh_stats_set(core->stats, ROUTER_STAT_INFLIGHT, router_requests_count(core->requests));
    mesh_ms next = core->next_lease < core->next_heads ? core->next_lease : core->next_heads;
    return oldest && oldest->deadline < next ? oldest->deadline : next;
}

void router_core_leave(router_core *core, mesh_time now, mesh_out *out)
{
    core->leaving = true;
    renew_lease(core, now, out);
}

bool router_core_quiet(const router_core *core, mesh_time now)
{
    (void)now;
    return core->leaving && !mesh_ring_has(core->ring, core->self) && router_requests_count(core->requests) == 0;
}

mesh_stats *router_core_stats(router_core *core)
{
    return core->stats;
}
