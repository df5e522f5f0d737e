#include "edge/state.h"

/* A frame whose answer matters to the client needs an id to carry it; the others may have 0. */
static bool needs_id(Client__Request__BodyCase kind)
{
    switch (kind) {
    case CLIENT__REQUEST__BODY_HELLO:
    case CLIENT__REQUEST__BODY_ACK:
    case CLIENT__REQUEST__BODY_STATE:
    case CLIENT__REQUEST__BODY_PING:
        return false;
    default:
        return true;
    }
}

static void take_ack(edge_core *core, edge_session *s, uint64_t id, const Client__Ack *ack, mesh_time now)
{
    if (ack->inbox_seq > s->forwarded) {
        edge_core_error(core, s, id, FAULT_ACK_BEYOND, 0, NULL, now);
        return;
    }
    if (ack->inbox_seq >= s->acked) {
        s->acked = ack->inbox_seq;
        if (s->acked > s->acked_sent && !s->ack_waits) {
            s->ack_waits = true;
            TAILQ_INSERT_TAIL(&core->ack_queue, s, ack);
        }
    }
    edge_core_done(core, s, id, now);
}

static void take_ping(edge_core *core, edge_session *s, uint64_t id, mesh_time now)
{
    Client__Pong pong = CLIENT__PONG__INIT;
    pong.inbox_head = s->head;
    pong.server_time_ms = (uint64_t)now.wall;
    Client__Event event = CLIENT__EVENT__INIT;
    event.id = id;
    event.body_case = CLIENT__EVENT__BODY_PONG;
    event.pong = &pong;
    edge_core_put(core, s, &event, now);
}

/* What it says is remembered for whoever will want to know; nothing depends on it yet. */
static void take_state(edge_core *core, edge_session *s, uint64_t id, const Client__State *state, mesh_time now)
{
    s->inactive = state->state == CLIENT__ACTIVITY__ACTIVITY_INACTIVE;
    edge_core_done(core, s, id, now);
}

/* Those that the mesh answers. */
static void take_meshed(edge_core *core, edge_session *s, const Client__Request *r, mesh_time now, mesh_out *out)
{
    switch (r->body_case) {
    case CLIENT__REQUEST__BODY_SEND:
        edge_uplink_send(core, s, r->id, r->send, now, out);
        break;
    case CLIENT__REQUEST__BODY_READ:
        edge_uplink_read(core, s, r->id, r->read, now, out);
        break;
    case CLIENT__REQUEST__BODY_HISTORY:
        edge_uplink_history(core, s, r->id, r->history, now, out);
        break;
    case CLIENT__REQUEST__BODY_CHATS:
        edge_uplink_chats(core, s, r->id, r->chats, now, out);
        break;
    case CLIENT__REQUEST__BODY_MEMBERS:
        edge_uplink_members(core, s, r->id, r->members, now, out);
        break;
    case CLIENT__REQUEST__BODY_CHAT_CREATE:
        edge_uplink_chat_create(core, s, r->id, r->chat_create, now, out);
        break;
    case CLIENT__REQUEST__BODY_CHAT_UPDATE:
        edge_uplink_chat_update(core, s, r->id, r->chat_update, now, out);
        break;
    case CLIENT__REQUEST__BODY_CHAT_ADD:
        edge_uplink_chat_add(core, s, r->id, r->chat_add, now, out);
        break;
    case CLIENT__REQUEST__BODY_CHAT_REMOVE:
        edge_uplink_chat_remove(core, s, r->id, r->chat_remove, now, out);
        break;
    case CLIENT__REQUEST__BODY_CHAT_LEAVE:
        edge_uplink_chat_leave(core, s, r->id, r->chat_leave, now, out);
        break;
    case CLIENT__REQUEST__BODY_PROFILE:
        edge_uplink_profile(core, s, r->id, r->profile, now, out);
        break;
    default:
        edge_core_error(core, s, r->id, FAULT_UNKNOWN_TYPE, 0, NULL, now);
        break;
    }
}

void edge_request_take(edge_core *core, edge_session *s, const Client__Request *request, mesh_time now, mesh_out *out)
{
    if (s->state == EDGE_HELLO && request->body_case != CLIENT__REQUEST__BODY_HELLO) {
        edge_core_error(core, s, request->id, FAULT_HELLO_FIRST, 0, NULL, now);
        return;
    }
    if (request->id == 0 && needs_id(request->body_case)) {
        edge_core_error(core, s, 0, FAULT_INVALID, 0, "id: must be above 0 for a request with an answer", now);
        return;
    }
    switch (request->body_case) {
    case CLIENT__REQUEST__BODY_HELLO:
        edge_hello_take(core, s, request->id, request->hello, now, out);
        break;
    case CLIENT__REQUEST__BODY_ACK:
        take_ack(core, s, request->id, request->ack, now);
        break;
    case CLIENT__REQUEST__BODY_PING:
        take_ping(core, s, request->id, now);
        break;
    case CLIENT__REQUEST__BODY_STATE:
        take_state(core, s, request->id, request->state, now);
        break;
    case CLIENT__REQUEST__BODY_REFRESH:
        edge_hello_refresh(core, s, request->id, request->refresh, now);
        break;
    default:
        take_meshed(core, s, request, now, out);
        break;
    }
}
