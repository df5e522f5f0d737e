/* client/session_in.c: what the server says. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "client/session_priv.h"
#include "mesh/alloc.h"
#include "mesh/fault.h"
#include "mesh/table.h"

static mesh_ms asked_delay(client_session *s, uint32_t after_ms)
{
    mesh_ms after = after_ms > 0 ? after_ms : CLIENT_BACKOFF_BASE_MS;
    return after + client_session_draw(s, after / 2);
}

/* True when this error is about the whole session and has been dealt with. */
static bool session_error(client_session *s, uint64_t id, const Client__Error *e, mesh_ms now)
{
    bool hello = s->state == CLIENT_HELLO && (id == s->hello_id || id == 0);
    switch (e->retry) {
    case CLIENT__RETRY__RETRY_RESYNC:
        s->cursor.known = false;
        client_session_give_up(s, e->message, now);
        return true;
    case CLIENT__RETRY__RETRY_REAUTH:
        client_session_end(s, e->code, e->message);
        return true;
    case CLIENT__RETRY__RETRY_SAME:
    case CLIENT__RETRY__RETRY_LATER:
        if (hello) {
            client_session_give_up(s, e->message, now + asked_delay(s, e->after_ms));
        }
        return hello;
    default:
        if (hello || e->code == FAULT_REPLACED) {
            client_session_end(s, e->code, e->message);
            return true;
        }
        return false;
    }
}

static void on_answer(client_session *s, const Client__Event *event, mesh_ms now)
{
    s->failures = 0;
    if (event->body_case == CLIENT__EVENT__BODY_ERROR) {
        const Client__Error *e = event->error;
        if (session_error(s, event->id, e, now)) {
            return;
        }
        bool again = e->retry == CLIENT__RETRY__RETRY_SAME || e->retry == CLIENT__RETRY__RETRY_LATER;
        if (again && client_requests_delay(&s->requests, event->id, now + asked_delay(s, e->after_ms))) {
            s->counts.repeats++;
            return;
        }
    }
    /* what is not waited for any more was answered twice, because it was sent twice */
    if (client_requests_remove(&s->requests, event->id) && s->handler->answer) {
        s->handler->answer(s->arg, event->id, event);
    }
}

static void on_welcome(client_session *s, const Client__Welcome *welcome)
{
    if (s->state != CLIENT_HELLO) {
        s->counts.malformed++;
        return;
    }
    s->heartbeat = welcome->heartbeat_ms >= 100 ? welcome->heartbeat_ms : CLIENT_HEARTBEAT_MS;
    client_session_move(s, CLIENT_READY);
    if (s->handler->welcome) {
        s->handler->welcome(s->arg, welcome);
    }
}

/* False: this (chat, seq) was told before. */
static bool mark_seen(client_session *s, const char *chat, uint64_t seq)
{
    if (!s->marks) {
        s->marks = mesh_table_new_seeded(s->rand.state);
    }
    client_mark *mark = mesh_table_get(s->marks, mesh_table_str(chat));
    if (!mark) {
        size_t size = strlen(chat) + 1;
        mark = mesh_alloc(sizeof *mark + size);
        memcpy(mark->chat, chat, size);
        mesh_table_put(s->marks, mesh_table_str(mark->chat), mark);
    }
    bool fresh = seq > mark->seq;
    if (fresh) {
        mark->seq = seq;
    }
    return fresh;
}

static void on_message(client_session *s, const Client__Message *m, mesh_ms now)
{
    if (s->cursor.known && m->era == s->cursor.era && m->inbox_seq <= s->cursor.inbox_seq) {
        s->counts.duplicates++;
        return;
    }
    if (!s->cursor.known || m->era != s->cursor.era || m->inbox_seq != s->cursor.inbox_seq + 1) {
        s->counts.gaps++;
        client_session_give_up(s, "a hole in the inbox", now);
        return;
    }
    s->cursor.inbox_seq = m->inbox_seq;
    s->failures = 0;
    if (mark_seen(s, m->chat, m->seq)) {
        s->counts.messages++;
        if (s->handler->message) {
            s->handler->message(s->arg, m);
        }
    } else {
        s->counts.duplicates++;
    }
    if (s->cursor.inbox_seq - s->acked >= CLIENT_ACK_ENTRIES) {
        client_session_put_ack(s, now);
    } else {
        s->ack_at = client_session_earlier(s->ack_at, now + CLIENT_ACK_MS);
    }
}

static void on_resync(client_session *s, const Client__Resync *resync)
{
    if (!s->cursor.known || s->cursor.era != resync->era) {
        client_session_forget(s); /* seqs of another era say nothing */
    }
    s->cursor = (client_cursor){ true, resync->era, resync->inbox_seq };
    s->acked = resync->inbox_seq;
    s->ack_at = MESH_NEVER;
    s->counts.resyncs++;
    if (s->handler->resync) {
        s->handler->resync(s->arg, resync);
    }
}

/* The server knows of more than has come. Once may be entries on their way; twice without a step forward is a hole. */
static void look_at_head(client_session *s, uint64_t head, mesh_ms now)
{
    if (!s->cursor.known || head <= s->cursor.inbox_seq) {
        s->suspect.known = false;
        return;
    }
    if (s->suspect.known && s->suspect.inbox_seq == s->cursor.inbox_seq && s->suspect.era == s->cursor.era) {
        s->counts.gaps++;
        client_session_give_up(s, "the inbox head is ahead", now + client_session_backoff(s));
        return;
    }
    s->suspect = s->cursor;
    s->ping_at = now + CLIENT_SUSPECT_MS;
}

static void on_live(client_session *s, const Client__Live *live, mesh_ms now)
{
    s->failures = 0;
    if (live->era == s->cursor.era) {
        look_at_head(s, live->inbox_seq, now);
    }
    if (s->handler->live) {
        s->handler->live(s->arg, live);
    }
}

static void on_event(client_session *s, const Client__Event *event, mesh_ms now)
{
    switch ((int)event->body_case) {
    case CLIENT__EVENT__BODY_WELCOME:
        on_welcome(s, event->welcome);
        break;
    case CLIENT__EVENT__BODY_MESSAGE:
        on_message(s, event->message, now);
        break;
    case CLIENT__EVENT__BODY_LIVE:
        on_live(s, event->live, now);
        break;
    case CLIENT__EVENT__BODY_RESYNC:
        on_resync(s, event->resync);
        break;
    case CLIENT__EVENT__BODY_RECONNECT:
        s->reconnect_at = now + event->reconnect->after_ms + client_session_draw(s, event->reconnect->jitter_ms);
        break;
    case CLIENT__EVENT__BODY_PONG:
        if (event->id == s->ping_id) {
            s->ping_id = 0;
            look_at_head(s, event->pong->inbox_head, now);
        }
        break;
    case CLIENT__EVENT__BODY__NOT_SET:
        break; /* a kind of event from a newer server */
    default:
        on_answer(s, event, now);
        break;
    }
}

void client_session_input(client_session *s, mesh_slice bytes, mesh_arena *arena, mesh_ms now)
{
    s->last_in = now;
    s->ask_at = MESH_NEVER;
    while (client_session_connected(s)) {
        mesh_arena_reset(arena);
        Client__Event *event;
        mesh_err err = client_frame_next(&bytes, arena, &event);
        if (err == MESH_AGAIN) {
            break;
        }
        if (err != MESH_OK) {
            s->counts.malformed++;
            client_session_give_up(s, "the server sent nonsense", now + client_session_backoff(s));
            break;
        }
        on_event(s, event, now);
    }
    if (s->state == CLIENT_READY) {
        client_session_pump(s, now);
    }
}
