/* A chat list in two steps: which chats the user has, from the user's store; then each one's name, last entry and
 * unread count from the chats' store. The same for a client's request and for a session that starts from resync. */
#include "mesh/alloc.h"
#include "router/state.h"

#define CHATS_RESYNC 50

static router_request *ask_rows(router_core *core, const char *user, uint64_t before, uint32_t limit, mesh_peer from,
                                uint64_t corr, uint64_t trace, uint32_t ttl_ms, mesh_time now, mesh_out *out)
{
    Mesh__UserChats rows = MESH__USER_CHATS__INIT;
    rows.user = (char *)user;
    rows.before = before;
    rows.limit = limit;
    MESH_MSG(msg, USER_CHATS, user_chats, &rows);
    msg.key = (char *)user;
    msg.corr = corr;
    msg.trace = trace;
    msg.ttl_ms = ttl_ms;
    router_request *req = router_core_ask(core, ROUTER_CHATS_ROWS, user, &msg, from, now, out);
    if (req) {
        req->held_size = strlen(user) + 1;
        req->held = mesh_memdup(user, req->held_size);
    }
    return req;
}

void router_chats_ask(router_core *core, mesh_peer from, const Mesh__Msg *msg, mesh_time now, mesh_out *out)
{
    const Mesh__Chats *chats = msg->chats;
    if (strcmp(chats->user, msg->key) != 0) {
        mesh_stats_add(core->stats, ROUTER_STAT_MALFORMED, 1);
        router_core_fault(core, from, msg->corr, msg->trace, FAULT_MALFORMED, out);
        return;
    }
    (void)ask_rows(core, chats->user, chats->before, chats->limit, from, msg->corr, msg->trace, msg->ttl_ms, now, out);
}

void router_chats_for_session(router_core *core, router_session *s, const router_request *attach, mesh_time now,
                              mesh_out *out)
{
    router_request *req =
        ask_rows(core, s->user->qid, 0, CHATS_RESYNC, attach->from, attach->from_corr, attach->trace, 0, now, out);
    if (!req) {
        router_registry_release(core->registry, s); /* the edge has its fault and tries again */
        return;
    }
    req->session = s->id;
    s->attach_corr = req->corr;
}

static void done(router_core *core, router_request *req, Mesh__ChatList *list, mesh_time now, mesh_out *out)
{
    if (req->session) {
        router_attach_synced(core, req, list, now, out);
        return;
    }
    MESH_MSG(msg, CHAT_LIST, chat_list, list);
    router_core_answer(core, req, &msg, out);
}

static void failed(router_core *core, router_request *req, const Mesh__Msg *answer, mesh_out *out)
{
    router_core_answer(core, req, answer, out);
    if (req->session) {
        router_attach_failed(core, req);
    }
}

/* Of both steps together: what the first has used is gone. An attach's list has all the time of a new request. */
static uint32_t left(const router_request *req, mesh_time now)
{
    if (req->session) {
        return 0;
    }
    mesh_ms ms = req->deadline - now.mono;
    return ms > 1 ? (uint32_t)ms : 1;
}

void router_chats_rows(router_core *core, router_request *req, const Mesh__Msg *answer, mesh_time now, mesh_out *out)
{
    if (answer->body_case != MESH__MSG__BODY_USER_CHAT_PAGE) {
        failed(core, req, answer, out);
        return;
    }
    const Mesh__UserChatPage *page = answer->user_chat_page;
    if (page->n_chats == 0) {
        Mesh__ChatList none = MESH__CHAT_LIST__INIT;
        done(core, req, &none, now, out);
        return;
    }
    Mesh__Heads heads = MESH__HEADS__INIT;
    heads.user = (char *)req->held;
    heads.chats = page->chats;
    heads.n_chats = page->n_chats;
    MESH_MSG(msg, HEADS, heads, &heads);
    msg.corr = req->from_corr;
    msg.trace = req->trace;
    msg.ttl_ms = left(req, now);
    msg.key = page->chats[0]->chat;
    router_request *second = router_core_ask(core, ROUTER_CHATS_HEADS, msg.key, &msg, req->from, now, out);
    if (!second) {
        if (req->session) {
            router_attach_failed(core, req);
        }
        return;
    }
    second->has_more = page->has_more;
    second->session = req->session;
    router_session *s = req->session ? router_registry_find(core->registry, req->session) : NULL;
    if (s && s->attach_corr == req->corr) {
        s->attach_corr = second->corr;
    }
}

void router_chats_heads(router_core *core, router_request *req, const Mesh__Msg *answer, mesh_time now, mesh_out *out)
{
    if (answer->body_case != MESH__MSG__BODY_CHAT_LIST) {
        failed(core, req, answer, out);
        return;
    }
    Mesh__ChatList list = *answer->chat_list;
    list.has_more = req->has_more;
    done(core, req, &list, now, out);
}
