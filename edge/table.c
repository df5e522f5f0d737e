#include <assert.h>
#include <inttypes.h>
#include <stdlib.h>

#include "edge/state.h"
#include "mesh/alloc.h"
#include "mesh/log.h"

mesh_peer edge_table_router(const edge_core *core, const char *key)
{
    mesh_peer peer = mesh_ring_router_of(core->ring, key);
    return peer != MESH_NO_PEER && core->peers[peer].up ? peer : MESH_NO_PEER;
}

void edge_table_stamp(edge_core *core, Mesh__Msg *msg, const char *key)
{
    msg->key = (char *)(uintptr_t)key;
    msg->epoch = mesh_ring_epoch(core->ring);
    msg->trace = mesh_rand_next(&core->rand);
}

static bool is_attach(const edge_request *r)
{
    return r->answer == MESH__MSG__BODY_ATTACHED;
}

static void count_waiting(edge_core *core, bool more)
{
    uint64_t n = mesh_stats_get(core->stats, EDGE_STAT_WAITING);
    mesh_stats_set(core->stats, EDGE_STAT_WAITING, more ? n + 1 : n - 1);
}

edge_request *edge_table_ask(edge_core *core, edge_session *s, uint64_t client_id, Mesh__Msg *msg, const char *key,
                             Mesh__Msg__BodyCase answer, mesh_time now, mesh_out *out)
{
    mesh_peer peer = edge_table_router(core, key);
    if (peer == MESH_NO_PEER) {
        return NULL;
    }
    edge_request *r = mesh_alloc(sizeof *r);
    core->last_corr += core->last_corr == UINT64_MAX ? 2 : 1; /* never 0 */
    r->corr = core->last_corr;
    r->session = s;
    r->client_id = client_id;
    r->answer = answer;
    r->peer = peer;
    mesh_ms ttl = is_attach(r) ? EDGE_ATTACH_MS : core->ttl_ms;
    r->deadline = now.mono + ttl;
    mesh_table_put(core->requests, mesh_table_u64(&r->corr), r);
    if (is_attach(r)) {
        TAILQ_INSERT_TAIL(&core->attaching, r, age);
    } else {
        TAILQ_INSERT_TAIL(&core->waiting, r, age);
        TAILQ_INSERT_TAIL(&s->requests, r, of_session);
        s->n_requests++;
        count_waiting(core, true);
        mesh_stats_add(core->stats, EDGE_STAT_REQUESTS, 1);
    }
    msg->corr = r->corr;
    msg->ttl_ms = (uint32_t)ttl;
    edge_table_stamp(core, msg, key);
    r->trace = msg->trace;
    mesh_log(MESH_DEBUG, "request", "trace=%016" PRIx64 " type=%s session=%016" PRIx64 " user=%s key=%s to=%s",
             r->trace, mesh_msg_kind_name(msg), s->id, s->user, key, mesh_conf_node(core->conf, peer)->name);
    mesh_out_put(out, peer, msg);
    return r;
}

void edge_table_log(const edge_request *r, const char *kind, uint32_t fault)
{
    mesh_log(MESH_DEBUG, "answer", "trace=%016" PRIx64 " type=%s fault=%s session=%016" PRIx64, r->trace, kind,
             fault == FAULT_NONE ? "none" : mesh_fault_get(fault)->name, r->session->id);
}

edge_request *edge_table_find(const edge_core *core, uint64_t corr)
{
    return mesh_table_get(core->requests, mesh_table_u64(&corr));
}

void edge_table_remove(edge_core *core, edge_request *r)
{
    mesh_table_remove(core->requests, mesh_table_u64(&r->corr));
    if (is_attach(r)) {
        TAILQ_REMOVE(&core->attaching, r, age);
    } else {
        TAILQ_REMOVE(&core->waiting, r, age);
        TAILQ_REMOVE(&r->session->requests, r, of_session);
        r->session->n_requests--;
        count_waiting(core, false);
    }
    free(r->name);
    free(r);
}

void edge_table_expire(edge_core *core, mesh_time now)
{
    edge_request *r;
    while ((r = TAILQ_FIRST(&core->waiting)) != NULL && r->deadline <= now.mono) {
        edge_session *s = r->session;
        uint64_t id = r->client_id;
        edge_table_log(r, "expired", FAULT_UNAVAILABLE);
        edge_table_remove(core, r);
        mesh_stats_add(core->stats, EDGE_STAT_EXPIRED, 1);
        edge_core_error(core, s, id, FAULT_UNAVAILABLE, 0, NULL, now);
    }
    while ((r = TAILQ_FIRST(&core->attaching)) != NULL && r->deadline <= now.mono) {
        edge_session *s = r->session;
        edge_table_log(r, "expired", FAULT_UNAVAILABLE);
        edge_table_remove(core, r);
        edge_attach_failed(core, s, FAULT_NONE, now);
    }
}

void edge_table_lost(edge_core *core, mesh_peer peer, mesh_time now)
{
    /* told only when all are out of the list: an error may close a session, and that takes more out of it */
    struct lost {
        edge_session *session;
        uint64_t id;
    } *lost = mesh_alloc((size_t)mesh_stats_get(core->stats, EDGE_STAT_WAITING) * sizeof *lost + 1);
    size_t n = 0;
    for (edge_request *r = TAILQ_FIRST(&core->waiting), *next; r != NULL; r = next) {
        next = TAILQ_NEXT(r, age);
        if (r->peer == peer) {
            lost[n++] = (struct lost){ r->session, r->client_id };
            edge_table_log(r, "lost", FAULT_UNAVAILABLE);
            edge_table_remove(core, r);
        }
    }
    mesh_stats_add(core->stats, EDGE_STAT_LOST, n);
    for (size_t i = 0; i < n; i++) {
        edge_core_error(core, lost[i].session, lost[i].id, FAULT_UNAVAILABLE, 0, NULL, now);
    }
    free(lost);
}

void edge_table_forget(edge_core *core, edge_session *s)
{
    edge_request *r;
    while ((r = TAILQ_FIRST(&s->requests)) != NULL) {
        edge_table_remove(core, r);
    }
}

mesh_ms edge_table_next(const edge_core *core)
{
    const edge_request *w = TAILQ_FIRST(&core->waiting);
    const edge_request *a = TAILQ_FIRST(&core->attaching);
    mesh_ms at = w == NULL ? MESH_NEVER : w->deadline;
    return a != NULL && a->deadline < at ? a->deadline : at;
}
