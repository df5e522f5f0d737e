#include <assert.h>
#include <stdlib.h>

#include "edge/state.h"
#include "mesh/alloc.h"

static_assert((int)CLIENT__ENTRY_KIND__ENTRY_KIND_RENAMED == (int)MESH__ENTRY_KIND__ENTRY_RENAMED, "kinds differ");
static_assert((int)CLIENT__ROLE__ROLE_MEMBER == (int)MESH__ROLE__ROLE_MEMBER, "roles differ");
static_assert((int)CLIENT__CHAT_KIND__CHAT_KIND_DIRECT == (int)MESH__CHAT_KIND__CHAT_DIRECT, "chat kinds differ");
static_assert((int)CLIENT__RETRY__RETRY_RESYNC == (int)MESH_RETRY_RESYNC, "retries differ");

static void put(edge_core *core, edge_session *s, uint64_t id, Client__Event *event, mesh_time now)
{
    event->id = id;
    edge_core_put(core, s, event, now);
}

static void put_sent(edge_core *core, edge_session *s, uint64_t id, const Mesh__Sent *sent, mesh_time now)
{
    Client__Sent ack = CLIENT__SENT__INIT;
    ack.state = CLIENT__SENT_STATE__SENT_STATE_SENT;
    ack.durable = sent->durable;
    ack.chat = edge_event_bare(sent->chat);
    ack.seq = sent->seq;
    ack.message_id = sent->id;
    ack.ts_ms = sent->ts_ms;
    ack.dup = sent->dup;
    ack.client_msg_id = sent->client_msg_id;
    Client__Event event = CLIENT__EVENT__INIT;
    event.body_case = CLIENT__EVENT__BODY_ACK;
    event.ack = &ack;
    put(core, s, id, &event, now);
}

static void put_page(edge_core *core, edge_session *s, uint64_t id, const Mesh__Page *from, mesh_time now)
{
    Client__Page page = CLIENT__PAGE__INIT;
    page.chat = edge_event_bare(from->chat);
    page.n_messages = from->n_entries;
    page.messages = mesh_arena_alloc(core->arena, from->n_entries * sizeof *page.messages + 1);
    for (size_t i = 0; i < from->n_entries; i++) {
        page.messages[i] = mesh_arena_alloc(core->arena, sizeof **page.messages);
        edge_event_message(core->arena, from->entries[i], page.messages[i]);
    }
    page.has_more = from->has_more;
    page.has_more_after = from->has_more_after;
    page.oldest_available = from->oldest_available;
    page.last_seq = from->last_seq;
    Client__Event event = CLIENT__EVENT__INIT;
    event.body_case = CLIENT__EVENT__BODY_PAGE;
    event.page = &page;
    put(core, s, id, &event, now);
}

static void put_members(edge_core *core, edge_session *s, uint64_t id, const Mesh__MemberList *from, mesh_time now)
{
    Client__MemberList list = CLIENT__MEMBER_LIST__INIT;
    list.chat = edge_event_bare(from->chat);
    list.n_members = from->n_members;
    list.members = mesh_arena_alloc(core->arena, from->n_members * sizeof *list.members + 1);
    for (size_t i = 0; i < from->n_members; i++) {
        Client__Member *m = list.members[i] = mesh_arena_alloc(core->arena, sizeof *m);
        client__member__init(m);
        m->user = edge_event_bare(from->members[i]->user);
        m->role = (Client__Role)from->members[i]->role;
        m->read_seq = from->members[i]->read_seq;
    }
    list.has_more = from->has_more;
    Client__Event event = CLIENT__EVENT__INIT;
    event.body_case = CLIENT__EVENT__BODY_MEMBERS;
    event.members = &list;
    put(core, s, id, &event, now);
}

static void put_chats(edge_core *core, edge_session *s, uint64_t id, const Mesh__ChatList *from, mesh_time now)
{
    Client__ChatList list = CLIENT__CHAT_LIST__INIT;
    list.n_chats = from->n_chats;
    list.chats = edge_event_summaries(core->arena, from->chats, from->n_chats);
    list.has_more = from->has_more;
    Client__Event event = CLIENT__EVENT__INIT;
    event.body_case = CLIENT__EVENT__BODY_CHATS;
    event.chats = &list;
    put(core, s, id, &event, now);
}

/* r is gone when its answer is given: what is needed of it was taken over before. */
static void give(edge_core *core, edge_session *s, uint64_t id, const Mesh__Msg *msg, mesh_time now)
{
    switch (msg->body_case) {
    case MESH__MSG__BODY_FAULT: {
        const mesh_fault_info *info = mesh_fault_get(msg->fault->code);
        edge_core_error(core, s, id, (uint32_t)info->code, msg->fault->after_ms, NULL, now);
        break;
    }
    case MESH__MSG__BODY_SENT:
        put_sent(core, s, id, msg->sent, now);
        break;
    case MESH__MSG__BODY_PAGE:
        put_page(core, s, id, msg->page, now);
        break;
    case MESH__MSG__BODY_MEMBER_LIST:
        put_members(core, s, id, msg->member_list, now);
        break;
    case MESH__MSG__BODY_CHAT_LIST:
        put_chats(core, s, id, msg->chat_list, now);
        break;
    default:
        edge_core_done(core, s, id, now);
        break;
    }
}

void edge_answer_take(edge_core *core, mesh_peer from, const Mesh__Msg *msg, mesh_time now)
{
    edge_request *r = edge_table_find(core, msg->corr);
    if (r == NULL) {
        mesh_stats_add(core->stats, EDGE_STAT_LATE, 1);
        return;
    }
    edge_session *s = r->session;
    bool fault = msg->body_case == MESH__MSG__BODY_FAULT;
    bool attach = r->answer == MESH__MSG__BODY_ATTACHED;
    if (r->peer != from || (!fault && msg->body_case != r->answer) ||
        (attach && !fault && msg->attached->session != s->id)) {
        mesh_stats_add(core->stats, EDGE_STAT_MESH_MALFORMED, 1);
        return;
    }
    uint64_t id = r->client_id;
    if (r->name != NULL && !fault) {
        free(s->name);
        s->name = r->name;
        r->name = NULL;
    }
    edge_table_log(r, mesh_msg_kind_name(msg), fault ? msg->fault->code : FAULT_NONE);
    edge_table_remove(core, r);
    if (!attach) {
        give(core, s, id, msg, now);
    } else if (fault) {
        edge_attach_failed(core, s, msg->fault->code, now);
    } else {
        edge_attach_done(core, s, msg->attached, now);
    }
}
