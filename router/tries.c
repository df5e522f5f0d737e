/* One try after the other to get a request to whoever leads its shard. Happy path: sent to the target at once,
 * answered. Otherwise it waits and is sent again, with the time that is left: the store refused (NOT_LEADER: after the
 * shard's pause; UNAVAILABLE: after the time it named), its link went down, another store says that it leads, or
 * nothing was heard of it for ROUTER_TRY_MS. All requests are idempotent at the store, so what two tries of one do is
 * done once. Only the answer to the last try counts, so each has a corr of its own: an earlier one may have been denied
 * what a later one may do. Nobody but the deadline gives a request up.
 *
 * Within one span of its link and one term a store that has not refused a request is not sent it twice: links lose
 * nothing then, and a store that is slow would only become slower. One that says that it leads in a later term has lost
 * what it was asked before, and is asked again. */
#include <inttypes.h>

#include "mesh/log.h"
#include "router/state.h"

static void name_anew(router_core *core, router_request *req)
{
    router_session *s = router_registry_find(core->registry, req->session);
    uint64_t old = req->corr;
    router_requests_rename(core->requests, req);
    if (s && s->attach_corr == old) {
        s->attach_corr = req->corr;
    }
    if (s && s->pulling == old) {
        s->pulling = req->corr;
    }
}

static void send_now(router_core *core, router_request *req, mesh_peer store, mesh_time now, mesh_out *out)
{
    mesh_ms left = req->deadline - now.mono;
    if (req->to != MESH_NO_PEER) {
        mesh_stats_add(core->stats, ROUTER_STAT_RESENT, 1);
        name_anew(core, req);
        if (req->trace != 0) {
            mesh_log(MESH_DEBUG, "resent", "trace=%016" PRIx64 " to=%s left_ms=%" PRId64, req->trace,
                     mesh_conf_node(core->conf, store)->name, left);
        }
    }
    req->to = store;
    mesh_out_put_kept(out, store, req->corr, left > 1 ? (uint32_t)left : 1, (mesh_slice){ req->kept, req->kept_size });
    router_requests_move(core->requests, req, ROUTER_TRIED, now.mono + ROUTER_TRY_MS);
}

static uint32_t shard_now(const router_core *core, const router_request *req)
{
    return req->bound ? req->shard : mesh_ring_shard(core->ring, req->slot);
}

void router_tries_send(router_core *core, router_request *req, mesh_time now, mesh_out *out)
{
    req->shard = shard_now(core, req); /* its slot may have moved since it was sent last */
    mesh_peer store = router_leaders_target(core->leaders, req->shard);
    mesh_ms ready_at = router_leaders_ready_at(core->leaders, req->shard);
    if (store == MESH_NO_PEER) {
        router_requests_move(core->requests, req, ROUTER_PARKED, MESH_NEVER);
    } else if (ready_at > now.mono) {
        router_requests_move(core->requests, req, ROUTER_PAUSED, ready_at);
    } else {
        send_now(core, req, store, now, out);
    }
}

/* ---- what stores do ---- */

void router_tries_refused(router_core *core, mesh_peer store, router_request *req, const Mesh__Fault *fault,
                          mesh_time now, mesh_out *out)
{
    if (fault->code == FAULT_NOT_LEADER) {
        router_leaders_refused(core->leaders, store, mesh_conf_find(core->conf, fault->leader), now);
    }
    if (!req || req->list != ROUTER_TRIED || req->to != store) {
        return; /* of an earlier try: another one is under way */
    }
    if (fault->code == FAULT_NOT_LEADER) {
        router_tries_send(core, req, now, out);
        return;
    }
    mesh_ms after = fault->after_ms < ROUTER_TRY_MS ? (mesh_ms)fault->after_ms : ROUTER_TRY_MS;
    after = after > ROUTER_PAUSE_MIN_MS ? after : ROUTER_PAUSE_MIN_MS;
    router_requests_move(core->requests, req, ROUTER_PAUSED, now.mono + after);
}

static void send_moved(router_core *core, router_request_list list, mesh_time now, mesh_out *out)
{
    router_request **picked =
        mesh_arena_grab(core->arena, (router_requests_count(core->requests) + 1) * sizeof(router_request *));
    size_t n = 0;
    for (router_request *req = router_requests_first(core->requests, list); req; req = req->next) {
        if (shard_now(core, req) != req->shard) {
            picked[n++] = req;
        }
    }
    for (size_t i = 0; i < n; i++) {
        router_tries_send(core, picked[i], now, out);
    }
}

typedef bool match(const router_request *req, uint32_t shard, mesh_peer store);

static bool asked_of(const router_request *req, uint32_t shard, mesh_peer store)
{
    (void)shard;
    return req->to == store;
}

static bool asked_of_another(const router_request *req, uint32_t shard, mesh_peer store)
{
    return req->shard == shard && req->to != store;
}

static bool of_shard(const router_request *req, uint32_t shard, mesh_peer store)
{
    (void)store;
    return req->shard == shard;
}

/* Those of a list that match, in its order. Sending moves them, so they are picked first. */
static void send_all(router_core *core, router_request_list list, match *matches, mesh_peer store, mesh_time now,
                     mesh_out *out)
{
    uint32_t shard = mesh_conf_node(core->conf, store)->shard;
    router_request **picked =
        mesh_arena_grab(core->arena, (router_requests_count(core->requests) + 1) * sizeof(router_request *));
    size_t n = 0;
    for (router_request *req = router_requests_first(core->requests, list); req; req = req->next) {
        if (matches(req, shard, store)) {
            picked[n++] = req;
        }
    }
    for (size_t i = 0; i < n; i++) {
        router_tries_send(core, picked[i], now, out);
    }
}

/* Whatever was asked of a shard that the slot has left is asked of the one that has it now. */
void router_tries_ring(router_core *core, mesh_time now, mesh_out *out)
{
    for (int list = 0; list < ROUTER_REQUEST_LISTS; list++) {
        send_moved(core, (router_request_list)list, now, out);
    }
}

void router_tries_up(router_core *core, mesh_peer store, mesh_time now, mesh_out *out)
{
    router_leaders_up(core->leaders, store);
    send_all(core, ROUTER_PARKED, of_shard, store, now, out);
}

void router_tries_down(router_core *core, mesh_peer store, mesh_time now, mesh_out *out)
{
    router_leaders_down(core->leaders, store, now);
    send_all(core, ROUTER_TRIED, asked_of, store, now, out);
}

mesh_err router_tries_leading(router_core *core, mesh_peer store, uint64_t term, mesh_time now, mesh_out *out)
{
    bool anew = term > router_leaders_term(core->leaders, mesh_conf_node(core->conf, store)->shard);
    mesh_err err = router_leaders_leading(core->leaders, store, term);
    if (err == MESH_OK) {
        send_all(core, ROUTER_TRIED, anew ? of_shard : asked_of_another, store, now, out);
        send_all(core, ROUTER_PAUSED, of_shard, store, now, out);
    }
    return err;
}

/* ---- time ---- */

static void overdue(router_core *core, router_request *req, mesh_time now, mesh_out *out)
{
    if (core->heard[req->to] <= req->due - ROUTER_TRY_MS) {
        router_leaders_silent(core->leaders, req->to, now);
    }
    if (router_leaders_target(core->leaders, req->shard) == req->to) {
        router_requests_move(core->requests, req, ROUTER_TRIED, now.mono + ROUTER_TRY_MS);
    } else {
        router_tries_send(core, req, now, out);
    }
}

mesh_ms router_tries_turn(router_core *core, mesh_time now, mesh_out *out)
{
    router_request *tried;
    router_request *paused;
    while ((tried = router_requests_first(core->requests, ROUTER_TRIED)) && tried->due <= now.mono) {
        overdue(core, tried, now, out);
    }
    while ((paused = router_requests_first(core->requests, ROUTER_PAUSED)) && paused->due <= now.mono) {
        router_tries_send(core, paused, now, out);
    }
    tried = router_requests_first(core->requests, ROUTER_TRIED);
    mesh_ms next = tried ? tried->due : MESH_NEVER;
    return paused && paused->due < next ? paused->due : next;
}
