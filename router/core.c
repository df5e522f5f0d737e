/* The dispatcher of the router core. The happy path of a chat request: remember, forward to the leader of the shard,
 * answer the edge. It fails three ways: the shard's only store is down already (told at once), the deadline passes
 * (told then; the outcome is unknown, and the client's own retry is idempotent), the table is full (busy). What happens
 * in between, when a store goes away or another one leads, is router/tries.c. */
#include "router/core.h"

#include <inttypes.h>

#include "mesh/alloc.h"
#include "mesh/log.h"
#include "router/state.h"

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
    [ROUTER_STAT_RESENT] = { "parley_router_resent_total", "requests sent again to a store", MESH_COUNTER, NULL },
    [ROUTER_STAT_LEADER_CHANGES] = { "parley_router_leader_changes_total", "another store leads a shard", MESH_COUNTER,
                                     NULL },
    [ROUTER_STAT_UNAVAILABLE] = { "parley_router_listed_unavailable_total",
                                  "chats listed without what their shard would say", MESH_COUNTER, NULL },
};

struct shard_label {
    char text[sizeof "shard=\"4294967295\""];
};

/* One row per shard after the fixed ones. */
static void make_stats(router_core *core)
{
    size_t n = router_leaders_count(core->leaders);
    core->stat_infos = mesh_alloc((ROUTER_STATS + n) * sizeof *core->stat_infos);
    core->shard_labels = mesh_alloc(n * sizeof *core->shard_labels);
    memcpy(core->stat_infos, stat_infos, sizeof stat_infos);
    for (size_t i = 0; i < n; i++) {
        char *label = core->shard_labels[i].text;
        (void)snprintf(label, sizeof core->shard_labels[i].text, "shard=\"%" PRIu32 "\"",
                       router_leaders_shard(core->leaders, i));
        core->stat_infos[ROUTER_STATS + i] =
            (mesh_stat_info){ "parley_router_leader_known", "1: the shard's leader is known", MESH_GAUGE, label };
    }
    core->stats = mesh_stats_new(core->stat_infos, (unsigned)(ROUTER_STATS + n));
}

router_core *router_core_new(const router_core_conf *conf, mesh_time now)
{
    router_core *core = mesh_alloc(sizeof *core);
    core->conf = conf->conf;
    core->self = conf->self;
    core->boot = conf->boot;
    core->ttl_ms = mesh_conf_int(conf->conf, "router.ttl_ms");
    core->ring = mesh_ring_new(conf->conf);
    core->leaders = router_leaders_new(conf->conf);
    core->requests = router_requests_new(conf->conf, conf->boot);
    core->held_bytes = router_share_new(conf->conf, ROUTER_DELIVER_BYTES_MAX);
    core->registry =
        router_registry_new(mesh_conf_hash_key(conf->conf), (size_t)mesh_conf_int(conf->conf, "router.sessions_max"));
    make_stats(core);
    core->arena = mesh_arena_new();
    core->up = mesh_alloc(mesh_conf_nodes(conf->conf) * sizeof *core->up);
    core->heard = mesh_alloc(mesh_conf_nodes(conf->conf) * sizeof *core->heard);
    core->told = mesh_alloc(mesh_conf_nodes(conf->conf) * sizeof *core->told);
    core->next_lease = now.mono;
    core->lease_to = MESH_NO_PEER;
    core->lease_since = MESH_NEVER;
    core->next_heads = now.mono;
    return core;
}

void router_core_destroy(router_core **core_p)
{
    router_core *core = *core_p;
    if (core) {
        router_leaders_destroy(&core->leaders);
        router_requests_destroy(&core->requests);
        router_share_destroy(&core->held_bytes);
        router_registry_destroy(&core->registry);
        mesh_ring_destroy(&core->ring);
        mesh_stats_destroy(&core->stats);
        mesh_arena_destroy(&core->arena);
        free(core->stat_infos);
        free(core->shard_labels);
        free(core->targets);
        free(core->heard);
        free(core->told);
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

/* A shard of one store that is down already has nobody else; what is waited for otherwise comes back soon, or another
 * takes over. */
static bool hopeless(const router_core *core, uint32_t shard)
{
    return router_leaders_stores(core->leaders, shard) < 2 &&
           router_leaders_target(core->leaders, shard) == MESH_NO_PEER;
}

typedef struct way { /* to the shard of a slot, or bound to one */
    uint32_t shard;
    bool bound;
    mesh_slot slot;
} way;

static router_request *ask(router_core *core, router_request_kind kind, way w, const Mesh__Msg *msg, mesh_peer from,
                           mesh_time now, mesh_out *out)
{
    uint32_t shard = w.shard;
    if (hopeless(core, shard)) {
        router_core_fault(core, from, msg->corr, msg->trace, FAULT_UNAVAILABLE, out);
        return NULL;
    }
    Mesh__Msg forward = *msg;
    forward.corr = 0; /* these two are put before it each time it is sent */
    forward.ttl_ms = 0;
    forward.epoch = mesh_ring_epoch(core->ring);
    size_t size = mesh_wire_size(&forward);
    router_request *req = router_requests_add(core->requests, kind, shard, now.mono + time_left(core, msg), size);
    if (!req) {
        mesh_stats_add(core->stats, ROUTER_STAT_BUSY, 1);
        router_core_fault(core, from, msg->corr, msg->trace, FAULT_BUSY, out);
        return NULL;
    }
    mesh_wire_pack_to(&forward, req->kept, size);
    req->bound = w.bound;
    req->slot = w.slot;
    req->from = from;
    req->from_corr = msg->corr;
    req->trace = msg->trace;
    router_tries_send(core, req, now, out);
    if (req->trace != 0) {
        mesh_log(MESH_DEBUG, "forwarded", "trace=%016" PRIx64 " type=%s key=%s to=%s", req->trace,
                 mesh_msg_kind_name(msg), msg->key,
                 req->to == MESH_NO_PEER ? "nobody yet" : mesh_conf_node(core->conf, req->to)->name);
    }
    return req;
}

router_request *router_core_ask(router_core *core, router_request_kind kind, const char *key, const Mesh__Msg *msg,
                                mesh_peer from, mesh_time now, mesh_out *out)
{
    mesh_slot slot = mesh_ring_slot(core->ring, key);
    return ask(core, kind, (way){ mesh_ring_shard(core->ring, slot), false, slot }, msg, from, now, out);
}

router_request *router_core_ask_shard(router_core *core, router_request_kind kind, uint32_t shard, const Mesh__Msg *msg,
                                      mesh_peer from, mesh_time now, mesh_out *out)
{
    return ask(core, kind, (way){ shard, true, 0 }, msg, from, now, out);
}

mesh_peer router_core_store_of(const router_core *core, const char *key)
{
    return router_leaders_target(core->leaders, mesh_ring_shard_of(core->ring, key));
}

void router_core_heard(router_core *core, mesh_peer store, mesh_time now)
{
    core->heard[store] = now.mono;
    router_leaders_answered(core->leaders, store);
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
    case ROUTER_RELAY:
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
    case ROUTER_CHATS_LIST:
        router_chats_late(core, req, now, out);
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

static void leading(router_core *core, mesh_peer from, const Mesh__Leading *says, mesh_time now, mesh_out *out)
{
    if (says->shard != mesh_conf_node(core->conf, from)->shard) {
        mesh_stats_add(core->stats, ROUTER_STAT_MALFORMED, 1);
        return;
    }
    router_lease_push(core, from, out); /* as a follower it took no ring */
    if (router_tries_leading(core, from, says->term, now, out) == MESH_OK) {
        router_lease_moved(core, from, now);
    }
}

static void answered(router_core *core, mesh_peer from, const Mesh__Msg *msg, mesh_time now, mesh_out *out)
{
    router_request *req = router_requests_find(core->requests, msg->corr);
    bool refused = msg->body_case == MESH__MSG__BODY_FAULT &&
                   (msg->fault->code == FAULT_NOT_LEADER || msg->fault->code == FAULT_UNAVAILABLE);
    if (refused) {
        router_tries_refused(core, from, req, msg->fault, now, out);
        if (router_lease_refused(core, from, msg->corr, now)) {
            return;
        }
    }
    if (!req || req->shard != mesh_conf_node(core->conf, from)->shard) {
        mesh_stats_add(core->stats, ROUTER_STAT_LATE, 1);
    } else if (!refused) { /* of this try or an earlier one: it is true either way */
        if (msg->body_case != MESH__MSG__BODY_FAULT || msg->fault->code != FAULT_DISK_FULL) {
            router_core_heard(core, from, now); /* a full disk is told by a store that does not lead, too */
        }
        finish(core, req, msg, now, out);
    }
}

static void store_message(router_core *core, mesh_peer from, const Mesh__Msg *msg, mesh_slice packed, mesh_time now,
                          mesh_out *out)
{
    switch (msg->body_case) {
    case MESH__MSG__BODY_DELIVER:
        router_fanout_deliver(core, from, msg, packed, now, out);
        break;
    case MESH__MSG__BODY_SLOT_ROWS:
    case MESH__MSG__BODY_MAP_SET:
        router_relay_ask(core, from, msg, now, out);
        break;
    case MESH__MSG__BODY_RING:
        router_lease_ring(core, from, msg, now, out);
        break;
    case MESH__MSG__BODY_LEADING:
        leading(core, from, msg->leading, now, out);
        break;
    default:
        answered(core, from, msg, now, out);
    }
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
        router_lease_behind(core, from, msg->epoch, now, out);
        break;
    default:
        mesh_stats_add(core->stats, ROUTER_STAT_MALFORMED, 1);
    }
}

static void store_down(router_core *core, mesh_peer store, mesh_time now, mesh_out *out)
{
    router_tries_down(core, store, now, out);
    router_lease_moved(core, store, now);
}

static void edge_down(router_core *core, mesh_peer edge)
{
    for (size_t i = router_registry_count(core->registry); i-- > 0;) {
        router_session *s = router_registry_at(core->registry, i);
        if (s->edge == edge) {
            router_registry_release(core->registry, s);
        }
    }
}

void router_core_up(router_core *core, mesh_peer peer, uint64_t boot, mesh_time now, mesh_out *out)
{
    (void)boot;
    mesh_arena_reset(core->arena);
    mesh_role role = mesh_conf_node(core->conf, peer)->role;
    if (role == MESH_STORE && core->up[peer]) { /* reborn: what it was asked is lost */
        store_down(core, peer, now, out);
    }
    core->up[peer] = true;
    if (role == MESH_STORE) {
        router_tries_up(core, peer, now, out);
        router_lease_up(core, peer, now, out);
    }
    router_lease_push(core, peer, out);
}

void router_core_down(router_core *core, mesh_peer peer, mesh_time now, mesh_out *out)
{
    mesh_arena_reset(core->arena);
    core->up[peer] = false;
    mesh_role role = mesh_conf_node(core->conf, peer)->role;
    if (role == MESH_EDGE) {
        edge_down(core, peer);
    } else if (role == MESH_STORE) {
        store_down(core, peer, now, out);
    }
}

static void set_gauges(router_core *core)
{
    mesh_stats_set(core->stats, ROUTER_STAT_SESSIONS, router_registry_count(core->registry));
    mesh_stats_set(core->stats, ROUTER_STAT_INFLIGHT, router_requests_count(core->requests));
    mesh_stats_set(core->stats, ROUTER_STAT_LEADER_CHANGES, router_leaders_changes(core->leaders));
    for (size_t i = 0; i < router_leaders_count(core->leaders); i++) {
        bool known = router_leaders_known(core->leaders, router_leaders_shard(core->leaders, i));
        mesh_stats_set(core->stats, (unsigned)(ROUTER_STATS + i), known);
    }
}

mesh_ms router_core_turn(router_core *core, mesh_time now, mesh_out *out)
{
    mesh_arena_reset(core->arena);
    if (now.mono >= core->next_lease) {
        router_lease_renew(core, now, out);
    }
    router_request *oldest;
    while ((oldest = router_requests_oldest(core->requests)) && oldest->deadline <= now.mono) {
        mesh_stats_add(core->stats, ROUTER_STAT_EXPIRED, 1);
        fail(core, oldest, now, out);
    }
    router_fanout_heads(core, now, out);
    mesh_ms next = router_tries_turn(core, now, out);
    set_gauges(core);
    next = core->next_lease < next ? core->next_lease : next;
    next = core->next_heads < next ? core->next_heads : next;
    oldest = router_requests_oldest(core->requests);
    return oldest && oldest->deadline < next ? oldest->deadline : next;
}

void router_core_leave(router_core *core, mesh_time now, mesh_out *out)
{
    core->leaving = true;
    router_lease_renew(core, now, out);
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
