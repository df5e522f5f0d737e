/* Attach: the only way a session becomes live. Registered first, then told to the store through the log; its answer
 * says where to go on. Deliveries that come in between only raise the session's head. */
#include "mesh/alloc.h"
#include "router/state.h"

/* The session is gone here, and its edge is told why. */
static void part(router_core *core, router_session *s, mesh_fault code, mesh_out *out)
{
    Mesh__Replaced replaced = MESH__REPLACED__INIT;
    replaced.session = s->id;
    replaced.code = (uint32_t)code;
    MESH_MSG(msg, REPLACED, replaced, &replaced);
    msg.epoch = mesh_ring_epoch(core->ring);
    mesh_out_put(out, s->edge, &msg);
    router_registry_release(core->registry, s);
}

static void replace(router_core *core, router_session *s, mesh_out *out)
{
    mesh_stats_add(core->stats, ROUTER_STAT_REPLACED, 1);
    part(core, s, FAULT_REPLACED, out);
}

void router_attach_resync(router_core *core, router_session *s, mesh_out *out)
{
    part(core, s, FAULT_RESYNC, out);
}

void router_attach_moved(router_core *core, router_session *s, mesh_out *out)
{
    part(core, s, FAULT_NOT_OWNER, out);
}

/* A user has as many sessions as devices may be: one too many pushes out the one whose socket is the oldest. */
static void make_room(router_core *core, const char *user_qid, mesh_out *out)
{
    const router_user *user = router_registry_user(core->registry, user_qid);
    router_session *oldest = NULL;
    unsigned n = 0;
    for (router_session *s = user ? user->sessions : NULL; s; s = s->sibling) {
        oldest = !oldest || s->opened_at < oldest->opened_at ? s : oldest;
        n++;
    }
    if (n >= ROUTER_USER_SESSIONS_MAX) {
        replace(core, oldest, out);
    }
}

/* The session an attach is about: the one registered under its id, else a new one. NULL: limit, or an id of another
 * user. */
static router_session *session_for(router_core *core, mesh_peer from, const Mesh__Attach *attach, mesh_out *out)
{
    router_session *s = router_registry_find(core->registry, attach->session);
    if (!s) {
        make_room(core, attach->user, out);
        return router_registry_claim(core->registry, attach->session, attach->user, attach->device, from);
    }
    if (strcmp(s->user->qid, attach->user) != 0 || strcmp(s->device, attach->device) != 0) {
        return NULL;
    }
    s->edge = from;
    s->state = ROUTER_ATTACHING;
    s->pulling = 0; /* that page goes on from elsewhere */
    return s;
}

/* Did this session say hello after the one that attaches? The device's own count knows, if it keeps one. Else the
 * sockets' ages tell: they are wrong by what a frame was under way, or by as long as an edge was stuck before it saw
 * the socket. */
static bool is_later(const router_session *s, const Mesh__Attach *attach, mesh_ms opened_at)
{
    if (s->attempt > 0 && attach->attempt > 0 && s->attempt != attach->attempt) {
        return s->attempt > attach->attempt;
    }
    return s->opened_at > opened_at;
}

/* The later hello wins, whichever attach comes first: one that waited long for its attach must not push out the session
 * that its own client has had since. Errors: MESH_STALE a later session of this device is here; MESH_AGAIN an earlier
 * one is just being attached. *generation is raised above those of earlier ones. */
static mesh_err rivals(const router_core *core, const Mesh__Attach *attach, mesh_ms opened_at, uint64_t *generation)
{
    const router_user *user = router_registry_user(core->registry, attach->user);
    for (const router_session *s = user ? user->sessions : NULL; s; s = s->sibling) {
        if (s->id == attach->session || strcmp(s->device, attach->device) != 0) {
            continue;
        }
        if (is_later(s, attach, opened_at)) {
            return MESH_STALE;
        }
        if (s->state == ROUTER_ATTACHING && !attach->fresh) {
            return MESH_AGAIN;
        }
        *generation = *generation > s->generation ? *generation : s->generation + 1;
    }
    return MESH_OK;
}

/* Refused: what was registered under its id is gone too. */
static void refuse(router_core *core, mesh_peer from, const Mesh__Msg *msg, mesh_fault code, mesh_out *out)
{
    router_session *s = router_registry_find(core->registry, msg->attach->session);
    if (s && strcmp(s->user->qid, msg->attach->user) == 0) {
        router_registry_release(core->registry, s);
    }
    router_core_fault(core, from, msg->corr, msg->trace, code, out);
}

/* An edge that asks again while the store is slow only wants to hear the same answer: asking the store anew would make
 * it slower, and make the answer that is on its way void. */
static bool still_asked(router_core *core, mesh_peer from, const Mesh__Msg *msg)
{
    const router_session *s = router_registry_find(core->registry, msg->attach->session);
    if (!s || s->state == ROUTER_LIVE || s->edge != from || strcmp(s->user->qid, msg->attach->user) != 0 ||
        s->asked_after != msg->attach->after) {
        return false;
    }
    router_request *req = router_requests_find(core->requests, s->attach_corr);
    if (req) {
        req->from_corr = msg->corr;
    }
    return req != NULL;
}

void router_attach_ask(router_core *core, mesh_peer from, const Mesh__Msg *msg, mesh_time now, mesh_out *out)
{
    const Mesh__Attach *attach = msg->attach;
    if (!mesh_id_valid(attach->device) || strcmp(attach->user, msg->key) != 0 || attach->session == 0) {
        mesh_stats_add(core->stats, ROUTER_STAT_MALFORMED, 1);
        router_core_fault(core, from, msg->corr, msg->trace, FAULT_MALFORMED, out);
        return;
    }
    if (core->leaving || mesh_ring_boot(core->ring, core->self) != core->boot ||
        mesh_ring_router_of(core->ring, attach->user) != core->self) {
        mesh_stats_add(core->stats, ROUTER_STAT_NOT_OWNER, 1);
        router_core_fault(core, from, msg->corr, msg->trace, FAULT_NOT_OWNER, out);
        return;
    }
    if (still_asked(core, from, msg)) {
        return;
    }
    mesh_ms opened_at = now.mono - (mesh_ms)(attach->age_ms < INT32_MAX ? attach->age_ms : INT32_MAX);
    Mesh__Attach claim = *attach;
    Mesh__Msg forward = *msg;
    forward.attach = &claim;
    mesh_err err = rivals(core, attach, opened_at, &claim.generation);
    if (err) {
        mesh_stats_add(core->stats, err == MESH_STALE ? ROUTER_STAT_REPLACED : ROUTER_STAT_BUSY, 1);
        refuse(core, from, msg, err == MESH_STALE ? FAULT_REPLACED : FAULT_BUSY, out);
        return;
    }
    router_session *s = session_for(core, from, attach, out);
    if (!s) {
        mesh_stats_add(core->stats, ROUTER_STAT_BUSY, 1);
        router_core_fault(core, from, msg->corr, msg->trace, FAULT_BUSY, out);
        return;
    }
    s->acked = attach->fresh || attach->acked > attach->after ? attach->after : attach->acked;
    s->opened_at = opened_at;
    s->attempt = attach->attempt;
    s->asked_after = attach->after;
    router_request *req = router_core_ask(core, ROUTER_ATTACH, attach->user, &forward, from, now, out);
    if (!req) {
        router_registry_release(core->registry, s);
        return;
    }
    req->session = s->id;
    s->attach_corr = req->corr;
}

/* A device has one live session: the highest generation. */
static void replace_older(router_core *core, const router_session *s, mesh_out *out)
{
    router_session *next;
    for (router_session *other = s->user->sessions; other; other = next) {
        next = other->sibling;
        if (other != s && other->state != ROUTER_ATTACHING && other->generation < s->generation &&
            strcmp(other->device, s->device) == 0) {
            replace(core, other, out);
        }
    }
}

void router_attach_done(router_core *core, router_request *req, const Mesh__Msg *answer, mesh_time now, mesh_out *out)
{
    router_session *s = router_registry_find(core->registry, req->session);
    if (!s || s->attach_corr != req->corr) {
        return; /* gone, or attached anew since: that attach has its own answer */
    }
    if (answer->body_case != MESH__MSG__BODY_ATTACHED) {
        router_registry_release(core->registry, s);
        router_core_answer(core, req, answer, out);
        return;
    }
    const Mesh__Attached *attached = answer->attached;
    mesh_stats_add(core->stats, ROUTER_STAT_ATTACHES, 1);
    s->generation = attached->generation;
    s->era = attached->era;
    s->head = attached->head > s->head ? attached->head : s->head;
    s->next = (attached->resync ? attached->head : attached->after) + 1;
    if (attached->resync) {
        s->acked = attached->head;
    }
    s->ack_sent = s->acked;
    replace_older(core, s, out);
    if (attached->resync) {
        s->state = ROUTER_SYNCING;
        free(s->name);
        s->name = mesh_strdup(attached->name);
        router_chats_for_session(core, s, req, now, out);
        return;
    }
    s->state = ROUTER_LIVE;
    router_core_answer(core, req, answer, out);
    router_fanout_feed(core, s, now, out);
}

/* The chat list of a resync is there: now the edge is told, and what came after the head begins to flow. */
void router_attach_synced(router_core *core, router_request *req, Mesh__ChatList *list, mesh_time now, mesh_out *out)
{
    router_session *s = router_registry_find(core->registry, req->session);
    if (!s || s->state != ROUTER_SYNCING || s->attach_corr != req->corr) {
        return;
    }
    Mesh__Attached attached = MESH__ATTACHED__INIT;
    attached.session = s->id;
    attached.era = s->era;
    attached.head = s->next - 1;
    attached.after = s->next - 1;
    attached.resync = true;
    attached.generation = s->generation;
    attached.name = s->name;
    attached.chats = list->chats;
    attached.n_chats = list->n_chats;
    attached.has_more = list->has_more;
    MESH_MSG(msg, ATTACHED, attached, &attached);
    router_core_answer(core, req, &msg, out);
    free(s->name);
    s->name = NULL;
    s->state = ROUTER_LIVE;
    router_fanout_feed(core, s, now, out);
}

void router_attach_failed(router_core *core, const router_request *req)
{
    router_session *s = router_registry_find(core->registry, req->session);
    if (s && s->state == ROUTER_SYNCING && s->attach_corr == req->corr) {
        router_registry_release(core->registry, s);
    }
}

/* ---- acks: at most one per session on its way to the store; they are cumulative ---- */

static router_request *ack_store(router_core *core, router_session *s, bool answer, mesh_time now, mesh_out *out)
{
    Mesh__InboxAck ack = MESH__INBOX_ACK__INIT;
    ack.user = s->user->qid;
    ack.device = s->device;
    ack.session = s->id;
    ack.inbox_seq = s->acked;
    MESH_MSG(msg, INBOX_ACK, inbox_ack, &ack);
    msg.key = s->user->qid;
    msg.epoch = mesh_ring_epoch(core->ring);
    if (answer) {
        return router_core_ask(core, ROUTER_ACK, s->user->qid, &msg, MESH_NO_PEER, now, out);
    }
    mesh_peer store = router_core_store_of(core, s->user->qid);
    if (store != MESH_NO_PEER) {
        mesh_out_put(out, store, &msg);
    }
    return NULL;
}

void router_attach_ack_next(router_core *core, router_session *s, mesh_time now, mesh_out *out)
{
    if (s->state != ROUTER_LIVE || s->ack_flying || s->acked <= s->ack_sent) {
        return;
    }
    router_request *req = ack_store(core, s, true, now, out);
    if (req) {
        req->session = s->id;
        s->ack_flying = true;
        s->ack_sent = s->acked;
    } /* else the next ack or the next round of heads carries it */
}

void router_attach_ack(router_core *core, const Mesh__Msg *msg, mesh_time now, mesh_out *out)
{
    const Mesh__InboxAck *ack = msg->inbox_ack;
    router_session *s = router_registry_find(core->registry, ack->session);
    if (!s || s->state != ROUTER_LIVE || ack->inbox_seq <= s->acked || ack->inbox_seq >= s->next) {
        return; /* an ack of what was not sent moves nothing */
    }
    s->acked = ack->inbox_seq;
    router_attach_ack_next(core, s, now, out);
    router_fanout_feed(core, s, now, out);
}

void router_attach_ack_done(router_core *core, const router_request *req, const Mesh__Msg *answer, mesh_time now,
                            mesh_out *out)
{
    router_session *s = router_registry_find(core->registry, req->session);
    if (!s) {
        return;
    }
    s->ack_flying = false;
    if (answer->body_case != MESH__MSG__BODY_DONE) {
        s->ack_sent = 0; /* said again by the next ack or the next round of heads, not at once: the store is not well */
        return;
    }
    router_attach_ack_next(core, s, now, out);
}

void router_attach_detach(router_core *core, const Mesh__Detach *detach, mesh_out *out)
{
    router_session *s = router_registry_find(core->registry, detach->session);
    if (s && strcmp(s->user->qid, detach->user) == 0) {
        if (s->acked > s->ack_sent) {
            (void)ack_store(core, s, false, (mesh_time){ 0, 0 }, out);
        }
        router_registry_release(core->registry, s);
    }
}
