/* How a session gets its inbox, and gets it again. Refused or without an answer: tried again, paced, for as long as the
 * socket lives; only REPLACED ends it. The first attach is `fresh` until one succeeded; if an answer was lost the
 * device's generation was raised more than once, which harms nobody. */
#include <stdio.h>
#include <stdlib.h>

#include "edge/state.h"
#include "mesh/alloc.h"

static void leave(edge_core *core, edge_session *s)
{
    if (s->attach_state == EDGE_ATTACH_QUEUED) {
        TAILQ_REMOVE(&core->attach_queue, s, attach);
    } else if (s->attach_state == EDGE_ATTACH_SENT) {
        edge_request *r = edge_table_find(core, s->attach_corr);
        if (r != NULL) {
            edge_table_remove(core, r);
        }
    }
}

static void move(edge_core *core, edge_session *s, edge_attach_state to)
{
    leave(core, s);
    s->attach_state = to;
    if (to == EDGE_ATTACH_QUEUED) {
        TAILQ_INSERT_TAIL(&core->attach_queue, s, attach);
    }
}

static void rest(edge_core *core, edge_session *s, mesh_ms ms, mesh_time now)
{
    move(core, s, EDGE_ATTACH_WAIT);
    s->attach_at = now.mono + ms;
    edge_timer_place(core, s, now);
}

void edge_attach_want(edge_core *core, edge_session *s)
{
    if (s->attach_state != EDGE_ATTACH_QUEUED && s->attach_state != EDGE_ATTACH_SENT) {
        move(core, s, EDGE_ATTACH_QUEUED);
    }
}

void edge_attach_starve(edge_core *core, edge_session *s)
{
    mesh_stats_add(core->stats, EDGE_STAT_STARVED, 1);
    move(core, s, EDGE_ATTACH_STARVED);
}

void edge_attach_stop(edge_core *core, edge_session *s)
{
    move(core, s, EDGE_ATTACH_NONE);
}

void edge_attach_send(edge_core *core, edge_session *s, mesh_time now, mesh_out *out)
{
    Mesh__Attach attach = MESH__ATTACH__INIT;
    attach.user = s->user;
    attach.device = s->device;
    attach.session = s->id;
    attach.has_cursor = s->has_cursor;
    attach.era = s->era;
    attach.after = s->forwarded;
    attach.fresh = !s->attached_once;
    attach.generation = s->generation;
    attach.acked = s->acked;
    attach.attempt = s->attempt;
    attach.age_ms = now.mono > s->opened ? (uint64_t)(now.mono - s->opened) : 0;
    attach.edge = (char *)(uintptr_t)mesh_conf_node(core->conf, core->self)->name;
    MESH_MSG(msg, ATTACH, attach, &attach);
    edge_request *r = edge_table_ask(core, s, 0, &msg, s->user, MESH__MSG__BODY_ATTACHED, now, out);
    if (r == NULL) {
        s->router = MESH_NO_PEER;
        rest(core, s, EDGE_ROUTER_WAIT_MS, now);
        return;
    }
    move(core, s, EDGE_ATTACH_SENT);
    s->attach_corr = r->corr;
    s->router = r->peer;
    s->acked_sent = attach.fresh ? s->acked : 0; /* an ack that went to a lost router is said again */
    mesh_stats_add(core->stats, EDGE_STAT_ATTACHES, 1);
}

void edge_attach_turn(edge_core *core, mesh_time now, mesh_out *out)
{
    edge_session *s;
    for (unsigned n = 0; n < EDGE_ATTACH_PER_TURN && (s = TAILQ_FIRST(&core->attach_queue)) != NULL; n++) {
        edge_attach_send(core, s, now, out);
    }
}

static void say_welcome(edge_core *core, edge_session *s, mesh_time now)
{
    char session[17];
    snprintf(session, sizeof session, "%016llx", (unsigned long long)s->id);
    Client__Limits limits = CLIENT__LIMITS__INIT;
    limits.frame_bytes = EDGE_FRAME_MAX;
    limits.text_code_points = EDGE_TEXT_MAX;
    limits.group_members = EDGE_GROUP_MAX;
    limits.page = EDGE_PAGE_MAX;
    limits.unacked = EDGE_CREDIT;
    Client__Welcome welcome = CLIENT__WELCOME__INIT;
    welcome.session = session;
    welcome.user = edge_event_bare(s->user);
    welcome.name = s->name;
    welcome.server_time_ms = (uint64_t)now.wall;
    welcome.heartbeat_ms = (uint32_t)core->heartbeat_ms;
    welcome.limits = &limits;
    welcome.node = (char *)(uintptr_t)mesh_conf_node(core->conf, core->self)->name;
    Client__Event event = CLIENT__EVENT__INIT;
    event.id = s->hello_id;
    event.body_case = CLIENT__EVENT__BODY_WELCOME;
    event.welcome = &welcome;
    edge_core_put(core, s, &event, now);
}

static void say_resync(edge_core *core, edge_session *s, const Mesh__Attached *attached, mesh_time now)
{
    Client__Resync resync = CLIENT__RESYNC__INIT;
    resync.era = attached->era;
    resync.inbox_seq = attached->head;
    resync.n_chats = attached->n_chats;
    resync.chats = edge_event_summaries(core->arena, attached->chats, attached->n_chats);
    resync.has_more = attached->has_more;
    Client__Event event = CLIENT__EVENT__INIT;
    event.body_case = CLIENT__EVENT__BODY_RESYNC;
    event.resync = &resync;
    mesh_stats_add(core->stats, EDGE_STAT_RESYNCS, 1);
    edge_core_put(core, s, &event, now);
}

void edge_attach_reached(edge_core *core, edge_session *s, mesh_time now)
{
    if (s->state != EDGE_REPLAYING || s->forwarded < s->live_at) {
        return;
    }
    edge_session_move(s, EDGE_LIVE);
    Client__Live live = CLIENT__LIVE__INIT;
    live.inbox_seq = s->forwarded;
    live.era = s->era;
    Client__Event event = CLIENT__EVENT__INIT;
    event.body_case = CLIENT__EVENT__BODY_LIVE;
    event.live = &live;
    edge_core_put(core, s, &event, now);
}

/* The first Attached: the stored display name wins over the token's, and the client hears welcome. */
static void first_attached(edge_core *core, edge_session *s, const Mesh__Attached *attached, mesh_time now)
{
    s->attached_once = true;
    if (attached->name[0] != '\0') {
        free(s->name);
        s->name = mesh_strdup(attached->name);
    }
    if (s->name == NULL) {
        s->name = mesh_strdup("");
    }
    say_welcome(core, s, now);
}

void edge_attach_done(edge_core *core, edge_session *s, const Mesh__Attached *attached, mesh_time now)
{
    if (s->state == EDGE_DRAINING && !s->attached_once) {
        move(core, s, EDGE_ATTACH_NONE); /* told to go before it was let in */
        return;
    }
    bool first = !s->attached_once;
    move(core, s, EDGE_ATTACH_DONE);
    s->attach_tries = 0;
    s->stuck_at = 0;
    s->heard_at = now.mono;
    edge_timer_place(core, s, now);
    s->generation = attached->generation;
    s->era = attached->era;
    s->head = attached->head;
    if (first) {
        first_attached(core, s, attached, now);
    }
    if (attached->resync) {
        s->has_cursor = true;
        s->forwarded = attached->head;
        s->acked = attached->head;
        s->acked_sent = 0;
        say_resync(core, s, attached, now);
    } else if (s->acked > s->acked_sent && !s->ack_waits) {
        s->ack_waits = true;
        TAILQ_INSERT_TAIL(&core->ack_queue, s, ack);
    }
    if (s->state == EDGE_ATTACHING || (s->state == EDGE_LIVE && attached->resync)) {
        edge_session_move(s, EDGE_REPLAYING);
        s->live_at = attached->head;
    } else if (s->state == EDGE_REPLAYING && attached->resync) {
        s->live_at = attached->head;
    }
    edge_attach_reached(core, s, now);
}

void edge_attach_failed(edge_core *core, edge_session *s, uint32_t fault, mesh_time now)
{
    if (fault == FAULT_REPLACED) {
        edge_core_error(core, s, 0, FAULT_REPLACED, 0, NULL, now);
        edge_core_close(core, s, EDGE_CLOSE_REPLACED, now);
        return;
    }
    mesh_stats_add(core->stats, EDGE_STAT_ATTACH_RETRIES, 1);
    if (fault == FAULT_NONE) { /* no answer: two seconds are over already */
        move(core, s, EDGE_ATTACH_QUEUED);
        return;
    }
    mesh_ms pause = EDGE_ATTACH_RETRY_MS << (s->attach_tries < 5 ? s->attach_tries++ : 5);
    pause = pause < EDGE_ATTACH_MS ? pause : EDGE_ATTACH_MS;
    rest(core, s, pause / 2 + (mesh_ms)mesh_rand_below(&core->rand, (uint64_t)pause), now);
}

void edge_attach_ring(edge_core *core, mesh_time now)
{
    for (edge_session *s = TAILQ_FIRST(&core->all); s != NULL; s = TAILQ_NEXT(s, all)) {
        if (s->attach_state != EDGE_ATTACH_WAIT && s->attach_state != EDGE_ATTACH_SENT &&
            s->attach_state != EDGE_ATTACH_DONE) {
            continue;
        }
        mesh_peer owner = edge_table_router(core, s->user);
        if (owner == s->router && s->attach_state != EDGE_ATTACH_WAIT) {
            continue;
        }
        if (owner == MESH_NO_PEER) {
            rest(core, s, EDGE_ROUTER_WAIT_MS, now);
        } else {
            move(core, s, EDGE_ATTACH_QUEUED);
        }
    }
}

void edge_attach_up(edge_core *core, mesh_peer peer)
{
    for (edge_session *s = TAILQ_FIRST(&core->all); s != NULL; s = TAILQ_NEXT(s, all)) {
        if (s->attach_state == EDGE_ATTACH_WAIT && edge_table_router(core, s->user) == peer) {
            move(core, s, EDGE_ATTACH_QUEUED);
        }
    }
}

void edge_attach_down(edge_core *core, mesh_peer peer, mesh_time now)
{
    for (edge_session *s = TAILQ_FIRST(&core->all); s != NULL; s = TAILQ_NEXT(s, all)) {
        if (s->router != peer) {
            continue;
        }
        s->router = MESH_NO_PEER;
        if (s->attach_state == EDGE_ATTACH_SENT || s->attach_state == EDGE_ATTACH_DONE) {
            rest(core, s, EDGE_ROUTER_WAIT_MS, now);
        }
    }
}
