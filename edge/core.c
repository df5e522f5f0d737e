/* The happy path of a frame: edge_core_input -> request.c -> uplink.c -> mesh_out; the answer: edge_core_message ->
 * answer.c -> edge_core_put -> the session's queue -> next_ready / pending / wrote. */
#include "edge/core.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "edge/state.h"
#include "mesh/alloc.h"
#include "mesh/log.h"

edge_core *edge_core_new(const edge_core_conf *conf, mesh_time now)
{
    assert(conf->token_key.size > 0);
    edge_core *core = mesh_alloc(sizeof *core);
    core->conf = conf->conf;
    core->self = conf->self;
    core->token_key = conf->token_key;
    core->rate = mesh_conf_int(conf->conf, "edge.rate");
    core->burst = mesh_conf_int(conf->conf, "edge.burst");
    core->skew_s = mesh_conf_int(conf->conf, "edge.token_skew_s");
    core->heartbeat_ms = mesh_conf_int(conf->conf, "edge.heartbeat_ms");
    core->drain_ms = mesh_conf_int(conf->conf, "edge.drain_ms");
    core->ttl_ms = mesh_conf_int(conf->conf, "router.ttl_ms");
    core->max_sessions = (size_t)mesh_conf_int(conf->conf, "edge.max_sockets");
    core->rand.state = conf->seed;
    core->ring = mesh_ring_new(conf->conf);
    core->stats = edge_stat_new();
    core->arena = mesh_arena_new();
    core->peers = mesh_alloc(mesh_conf_nodes(conf->conf) * sizeof *core->peers);
    core->sessions = mesh_table_new(mesh_conf_hash_key(conf->conf));
    core->requests = mesh_table_new(mesh_conf_hash_key(conf->conf));
    core->last_corr = mesh_rand_next(&core->rand);
    core->tick = now.mono / EDGE_TICK_MS;
    TAILQ_INIT(&core->all);
    TAILQ_INIT(&core->ready);
    TAILQ_INIT(&core->attach_queue);
    TAILQ_INIT(&core->ack_queue);
    TAILQ_INIT(&core->waiting);
    TAILQ_INIT(&core->attaching);
    for (size_t i = 0; i < EDGE_WHEEL; i++) {
        TAILQ_INIT(&core->wheel[i]);
    }
    return core;
}

static void leave_acks(edge_core *core, edge_session *s)
{
    if (s->ack_waits) {
        TAILQ_REMOVE(&core->ack_queue, s, ack);
        s->ack_waits = false;
    }
}

static void session_destroy(edge_core *core, edge_session *s)
{
    edge_table_forget(core, s);
    edge_attach_stop(core, s);
    leave_acks(core, s);
    edge_core_unready(core, s);
    edge_timer_remove(core, s);
    TAILQ_REMOVE(&core->all, s, all);
    mesh_table_remove(core->sessions, mesh_table_u64(&s->id));
    edge_session_drop_queue(s);
    free(s->token);
    free(s->user);
    free(s->device);
    free(s->name);
    free(s);
}

void edge_core_destroy(edge_core **core_p)
{
    edge_core *core = *core_p;
    if (core == NULL) {
        return;
    }
    for (edge_session *s = TAILQ_FIRST(&core->all); s != NULL; s = TAILQ_FIRST(&core->all)) {
        session_destroy(core, s);
    }
    mesh_table_destroy(&core->requests);
    mesh_table_destroy(&core->sessions);
    edge_codec_push_fini(&core->push);
    free(core->peers);
    mesh_arena_destroy(&core->arena);
    mesh_stats_destroy(&core->stats);
    mesh_ring_destroy(&core->ring);
    free(core);
    *core_p = NULL;
}

edge_session *edge_core_find(const edge_core *core, edge_session_id id)
{
    return mesh_table_get(core->sessions, mesh_table_u64(&id));
}

size_t edge_core_sessions(const edge_core *core)
{
    return mesh_table_size(core->sessions);
}

mesh_stats *edge_core_stats(edge_core *core)
{
    return core->stats;
}

const mesh_ring *edge_core_ring(const edge_core *core)
{
    return core->ring;
}

/* ---- sockets ---- */

mesh_err edge_core_open(edge_core *core, edge_codec_kind codec, const char *token, mesh_time now,
                        edge_session_id *session_p)
{
    if (core->draining || edge_core_sessions(core) >= core->max_sessions) {
        return MESH_FULL;
    }
    edge_session *s = mesh_alloc(sizeof *s);
    do {
        s->id = mesh_rand_next(&core->rand);
    } while (s->id == 0 || edge_core_find(core, s->id) != NULL);
    s->codec = codec;
    s->token = token == NULL ? NULL : mesh_strdup(token);
    s->router = MESH_NO_PEER;
    s->opened = s->seen = s->progress_at = now.mono;
    s->token_until = s->drain_at = MESH_NEVER;
    edge_limit_init(&s->limit, core->burst, now.mono);
    edge_limit_init(&s->patience, EDGE_LIMITED_MAX, now.mono);
    TAILQ_INIT(&s->requests);
    mesh_table_put(core->sessions, mesh_table_u64(&s->id), s);
    TAILQ_INSERT_TAIL(&core->all, s, all);
    TAILQ_INSERT_TAIL(&core->wheel[0], s, wheel);
    edge_timer_place(core, s, now);
    mesh_stats_add(core->stats, EDGE_STAT_OPENED, 1);
    mesh_stats_set(core->stats, EDGE_STAT_SESSIONS, edge_core_sessions(core));
    *session_p = s->id;
    return MESH_OK;
}

/* False: the frame is over the limit and was answered. */
static bool within_rate(edge_core *core, edge_session *s, uint64_t id, bool cheap, mesh_time now)
{
    uint32_t after_ms;
    uint32_t ignored;
    int64_t cost = cheap ? EDGE_LIMIT_ACK : EDGE_LIMIT_REQUEST;
    if (edge_limit_take(&s->limit, core->rate, core->burst, cost, now.mono, &after_ms)) {
        return true;
    }
    mesh_stats_add(core->stats, EDGE_STAT_LIMITED, 1);
    edge_core_error(core, s, id, FAULT_RATE_LIMITED, after_ms, NULL, now);
    if (!edge_limit_take(&s->patience, core->rate, EDGE_LIMITED_MAX, cost, now.mono, &ignored)) {
        edge_core_close(core, s, EDGE_CLOSE_FLOOD, now);
    }
    return false;
}

size_t edge_core_input_max(const edge_core *core, edge_session_id session)
{
    const edge_session *s = edge_core_find(core, session);
    return s != NULL && s->user != NULL ? EDGE_FRAME_MAX : EDGE_HELLO_FRAME_MAX;
}

void edge_core_input(edge_core *core, edge_session_id session, mesh_slice bytes, mesh_time now, mesh_out *out)
{
    edge_session *s = edge_core_find(core, session);
    if (s == NULL) {
        return;
    }
    s->seen = now.mono;
    edge_codec_reader reader;
    edge_codec_open(&reader, s->codec, bytes);
    for (unsigned n = 0; s->state != EDGE_CLOSED; n++) {
        mesh_arena_reset(core->arena);
        Client__Request *request = NULL;
        uint64_t id;
        uint32_t fault;
        char detail[96];
        mesh_err err = edge_codec_request(&reader, core->arena, &request, &id, &fault, detail, sizeof detail);
        if (err == MESH_AGAIN) {
            break;
        }
        mesh_stats_add(core->stats, EDGE_STAT_FRAMES, 1);
        bool ack = err == MESH_OK && request->body_case == CLIENT__REQUEST__BODY_ACK;
        if (!within_rate(core, s, id, ack, now)) {
            continue;
        }
        if (n >= EDGE_FRAMES_PER_MESSAGE) {
            mesh_stats_add(core->stats, EDGE_STAT_MALFORMED, 1);
            edge_core_error(core, s, id, FAULT_MALFORMED, 0, "too many frames in one message: the rest was not read",
                            now);
            break;
        }
        if (err != MESH_OK) {
            mesh_stats_add(core->stats, EDGE_STAT_MALFORMED, 1);
            edge_core_error(core, s, id, fault, 0, detail, now);
            continue;
        }
        edge_request_take(core, s, request, now, out);
    }
}

void edge_core_refuse(edge_core *core, edge_session_id session, uint32_t fault, mesh_time now)
{
    edge_session *s = edge_core_find(core, session);
    if (s != NULL && s->state != EDGE_CLOSED) {
        mesh_stats_add(core->stats, EDGE_STAT_MALFORMED, 1);
        edge_core_error(core, s, 0, fault, 0, NULL, now);
        edge_core_close(core, s, edge_close_of_fault(fault), now);
    }
}

static void log_end(const edge_session *s, mesh_time now)
{
    /* a socket that never proved anything is counted, and a line only for whoever looks closely */
    mesh_log(s->user != NULL ? MESH_INFO : MESH_DEBUG, "session_ended",
             "session=%016" PRIx64 " user=%s device=%s reason=%s ms=%" PRId64, s->id, s->user, s->device,
             s->state == EDGE_CLOSED ? edge_close_get(s->close_code)->name : "left", now.mono - s->opened);
}

void edge_core_closed(edge_core *core, edge_session_id session, mesh_time now, mesh_out *out)
{
    edge_session *s = edge_core_find(core, session);
    if (s == NULL) {
        return;
    }
    log_end(s, now);
    if (s->user != NULL && s->router != MESH_NO_PEER && core->peers[s->router].up) {
        Mesh__Detach detach = MESH__DETACH__INIT;
        detach.user = s->user;
        detach.session = s->id;
        MESH_MSG(msg, DETACH, detach, &detach);
        edge_table_stamp(core, &msg, s->user);
        mesh_out_put(out, s->router, &msg);
    }
    session_destroy(core, s);
    mesh_stats_set(core->stats, EDGE_STAT_SESSIONS, edge_core_sessions(core));
}

void edge_core_pong(edge_core *core, edge_session_id session, mesh_time now)
{
    edge_session *s = edge_core_find(core, session);
    if (s != NULL) {
        s->seen = now.mono;
    }
}

/* ---- its end ---- */

static edge_stat close_stat(edge_close code)
{
    switch (code) {
    case EDGE_CLOSE_REPLACED:
        return EDGE_STAT_CLOSED_REPLACED;
    case EDGE_CLOSE_HELLO_TIMEOUT:
        return EDGE_STAT_CLOSED_HELLO;
    case EDGE_CLOSE_SILENT:
        return EDGE_STAT_CLOSED_SILENT;
    case EDGE_CLOSE_SLOW:
        return EDGE_STAT_CLOSED_SLOW;
    case EDGE_CLOSE_FLOOD:
        return EDGE_STAT_CLOSED_FLOOD;
    case EDGE_CLOSE_DRAINING:
        return EDGE_STAT_CLOSED_DRAINING;
    case EDGE_CLOSE_UNAUTHORIZED:
    case EDGE_CLOSE_TOKEN_EXPIRED:
        return EDGE_STAT_CLOSED_TOKEN;
    default:
        return EDGE_STAT_CLOSED_OTHER;
    }
}

void edge_core_close(edge_core *core, edge_session *s, edge_close code, mesh_time now)
{
    if (s->state == EDGE_CLOSED) {
        return;
    }
    edge_session_move(s, EDGE_CLOSED);
    s->close_code = (uint16_t)code;
    s->closed_at = now.mono;
    edge_table_forget(core, s);
    edge_attach_stop(core, s);
    leave_acks(core, s);
    edge_timer_place(core, s, now);
    edge_core_ready(core, s);
    mesh_stats_add(core->stats, (unsigned)close_stat(code), 1);
}

void edge_core_drain(edge_core *core, mesh_time now)
{
    if (core->draining) {
        return;
    }
    core->draining = true;
    size_t n = edge_core_sessions(core);
    size_t i = 0;
    for (edge_session *s = TAILQ_FIRST(&core->all); s != NULL; s = TAILQ_NEXT(s, all)) {
        s->drain_at = now.mono + (mesh_ms)i++ * core->drain_ms / (mesh_ms)n;
        if (s->state == EDGE_HELLO) {
            edge_core_close(core, s, EDGE_CLOSE_DRAINING, now);
        } else {
            edge_timer_place(core, s, now);
        }
    }
}

/* ---- mesh ---- */

static void take_ring(edge_core *core, const Mesh__Ring *ring, mesh_time now)
{
    if (mesh_ring_set(core->ring, ring) != MESH_OK) {
        return; /* every router tells: most are not news */
    }
    mesh_stats_set(core->stats, EDGE_STAT_EPOCH, mesh_ring_epoch(core->ring));
    for (size_t i = 0; i < mesh_conf_nodes(core->conf); i++) {
        if (core->peers[i].up && !mesh_ring_has(core->ring, (mesh_peer)i)) {
            edge_table_lost(core, (mesh_peer)i, now);
        }
    }
    edge_attach_ring(core, now);
}

void edge_core_message(edge_core *core, mesh_peer from, const Mesh__Msg *msg, mesh_slice packed, mesh_time now,
                       mesh_out *out)
{
    (void)packed;
    (void)out;
    mesh_arena_reset(core->arena);
    switch (msg->body_case) {
    case MESH__MSG__BODY_RING:
        take_ring(core, msg->ring, now);
        break;
    case MESH__MSG__BODY_LIVE:
        if (msg->trace != 0) {
            mesh_log(MESH_DEBUG, "live", "trace=%016" PRIx64 " targets=%zu", msg->trace, msg->live->n_targets);
        }
        edge_downlink_live(core, from, msg->live, now);
        break;
    case MESH__MSG__BODY_SESSION_HEADS:
        edge_downlink_heads(core, from, msg->session_heads, now);
        break;
    case MESH__MSG__BODY_REPLACED:
        edge_downlink_replaced(core, from, msg->replaced, now);
        break;
    case MESH__MSG__BODY_FAULT:
    case MESH__MSG__BODY_SENT:
    case MESH__MSG__BODY_PAGE:
    case MESH__MSG__BODY_MEMBER_LIST:
    case MESH__MSG__BODY_CHAT_LIST:
    case MESH__MSG__BODY_DONE:
    case MESH__MSG__BODY_ATTACHED:
        edge_answer_take(core, from, msg, now);
        break;
    default:
        mesh_stats_add(core->stats, EDGE_STAT_MESH_MALFORMED, 1);
        break;
    }
}

void edge_core_down(edge_core *core, mesh_peer peer, mesh_time now, mesh_out *out)
{
    (void)out;
    core->peers[peer].up = false;
    edge_table_lost(core, peer, now);
    edge_attach_down(core, peer, now);
}

void edge_core_up(edge_core *core, mesh_peer peer, uint64_t boot, mesh_time now, mesh_out *out)
{
    if (core->peers[peer].up) {
        edge_core_down(core, peer, now, out); /* reborn: what it knew is gone */
    }
    core->peers[peer] = (edge_peer_state){ true, boot };
    edge_attach_up(core, peer);
}

mesh_ms edge_core_turn(edge_core *core, mesh_time now, mesh_out *out)
{
    mesh_arena_reset(core->arena);
    edge_table_expire(core, now);
    edge_timer_turn(core, now);
    edge_attach_turn(core, now, out);
    edge_downlink_acks(core, now, out);
    if (!TAILQ_EMPTY(&core->attach_queue)) {
        return now.mono;
    }
    mesh_ms timer = edge_timer_next(core);
    mesh_ms table = edge_table_next(core);
    return timer < table ? timer : table;
}
