/* client/session_out.c: what a session says: frames appended to `out`, and the queue of requests. */
#include <stdio.h>
#include <string.h>

#include "client/session_priv.h"

static void put_frame(client_session *s, Client__Request *request, mesh_ms now)
{
    client_frame_put(&s->out, request);
    s->last_out = now;
    if (request->id != 0) {
        s->ask_at = client_session_earlier(s->ask_at, now);
    }
}

void client_session_put_hello(client_session *s, mesh_ms now)
{
    Client__Cursor cursor = CLIENT__CURSOR__INIT;
    cursor.era = s->cursor.era;
    cursor.inbox_seq = s->cursor.inbox_seq;
    Client__Hello hello = CLIENT__HELLO__INIT;
    hello.token = s->token;
    hello.device = s->device;
    hello.client = s->software;
    hello.attempt = s->attempt;
    hello.cursor = s->cursor.known ? &cursor : NULL;
    Client__Request request = CLIENT__REQUEST__INIT;
    request.id = s->hello_id = ++s->next_id;
    request.body_case = CLIENT__REQUEST__BODY_HELLO;
    request.hello = &hello;
    put_frame(s, &request, now);
}

void client_session_put_ping(client_session *s, mesh_ms now)
{
    Client__Ping ping = CLIENT__PING__INIT;
    Client__Request request = CLIENT__REQUEST__INIT;
    request.id = s->ping_id = ++s->next_id;
    request.body_case = CLIENT__REQUEST__BODY_PING;
    request.ping = &ping;
    put_frame(s, &request, now);
    s->ping_at = MESH_NEVER;
}

void client_session_put_ack(client_session *s, mesh_ms now)
{
    s->ack_at = MESH_NEVER;
    if (s->cursor.inbox_seq <= s->acked) {
        return;
    }
    Client__Ack ack = CLIENT__ACK__INIT;
    ack.inbox_seq = s->acked = s->cursor.inbox_seq;
    Client__Request request = CLIENT__REQUEST__INIT;
    request.body_case = CLIENT__REQUEST__BODY_ACK;
    request.ack = &ack;
    put_frame(s, &request, now);
    s->counts.acks++;
}

void client_session_pump(client_session *s, mesh_ms now)
{
    client_pumped pumped = client_requests_pump(&s->requests, s->in_order, CLIENT_WINDOW, now, &s->out);
    s->retry_at = pumped.next;
    s->oldest_sent = pumped.oldest;
    if (pumped.put > 0) {
        s->last_out = now;
        s->ask_at = client_session_earlier(s->ask_at, now);
    }
}

static bool changes_order(Client__Request__BodyCase kind)
{
    switch ((int)kind) {
    case CLIENT__REQUEST__BODY_SEND:
    case CLIENT__REQUEST__BODY_READ:
    case CLIENT__REQUEST__BODY_CHAT_CREATE:
    case CLIENT__REQUEST__BODY_CHAT_UPDATE:
    case CLIENT__REQUEST__BODY_CHAT_ADD:
    case CLIENT__REQUEST__BODY_CHAT_REMOVE:
    case CLIENT__REQUEST__BODY_CHAT_LEAVE:
    case CLIENT__REQUEST__BODY_PROFILE:
        return true;
    default:
        return false;
    }
}

mesh_err client_session_request(client_session *s, Client__Request *request, uint64_t *id_p)
{
    if (s->stop_code != 0) {
        return MESH_CLOSED;
    }
    if (s->requests.count >= CLIENT_REQUESTS_MAX) {
        return MESH_FULL;
    }
    request->id = ++s->next_id;
    mesh_buf frame = { 0 };
    client_frame_put(&frame, request);
    client_requests_add(&s->requests, request->id, changes_order(request->body_case), mesh_buf_slice(&frame));
    mesh_buf_fini(&frame);
    s->retry_at = 0; /* look at the queue in the next turn */
    if (s->work) {
        s->work(s->work_arg);
    }
    if (id_p) {
        *id_p = request->id;
    }
    return MESH_OK;
}

void client_session_msg_id(client_session *s, char out[33])
{
    uint64_t a = mesh_rand_next(&s->rand);
    uint64_t b = mesh_rand_next(&s->rand);
    snprintf(out, 33, "%016llx%016llx", (unsigned long long)a, (unsigned long long)b);
}

mesh_err client_session_send(client_session *s, const char *chat, const char *to, const char *content_type,
                             const char *body, uint64_t *id_p)
{
    char msg_id[33];
    client_session_msg_id(s, msg_id);
    /* the generated structs want writable strings but packing only reads them */
    Client__Send send = CLIENT__SEND__INIT;
    send.chat = (char *)(chat ? chat : "");
    send.to = (char *)(to ? to : "");
    send.client_msg_id = msg_id;
    send.content_type = (char *)(content_type ? content_type : "");
    send.body = (char *)body;
    Client__Request request = CLIENT__REQUEST__INIT;
    request.body_case = CLIENT__REQUEST__BODY_SEND;
    request.send = &send;
    return client_session_request(s, &request, id_p);
}
