#include "client/session.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/requests.h"
#include "mesh/alloc.h"
#include "mesh/fault.h"
#include "mesh/rand.h"
#include "mesh/table.h"

#define HEARTBEAT_DEFAULT_MS 30000
#define WHY_MAX 160

typedef struct chat_mark { /* highest seq of a chat told to the owner in this era */
    uint64_t seq;
    char chat[];
} chat_mark;

struct client_session {
    const client_handler *handler;
    void *arg;
    void (*work)(void *arg);
    void *work_arg;
    char *token;
    char *device;
    char *software;
    bool in_order;
    client_state state;
    mesh_rand rand;
    uint64_t next_id;
    client_cursor cursor;
    zhashx_t *marks; /* chat -> chat_mark; made with the first message */
    client_requests requests;
    mesh_buf out; /* frames ready to leave */
    uint64_t hello_id;
    uint64_t ping_id; /* of the ping on its way, 0: none */
    uint64_t acked;
    uint32_t stop_code;
    unsigned failures; /* connections in a row that came to nothing */
    mesh_ms connect_at;
    mesh_ms step_at;      /* when CONNECTING or HELLO began */
    mesh_ms heartbeat;
    mesh_ms last_in;
    mesh_ms last_out;
    mesh_ms ask_at;       /* first thing sent since last_in that calls for an answer, MESH_NEVER: none */
    mesh_ms ack_at;       /* MESH_NEVER: nothing to ack */
    mesh_ms ping_at;      /* an early look at the head, MESH_NEVER: none */
    mesh_ms reconnect_at; /* told to move, MESH_NEVER: no */
    mesh_ms retry_at;     /* a delayed request is due */
    mesh_ms oldest_sent;
    client_cursor suspect; /* where the cursor stood when the head was last seen beyond it */
    client_counts counts;
    char why[WHY_MAX];
};

#define TO(s) (1u << CLIENT_##s)
static const struct {
    const char *name;
    unsigned next;
} states[CLIENT_STATES] = {
    [CLIENT_WAITING] = { "waiting", TO(CONNECTING) | TO(STOPPED) },
    [CLIENT_CONNECTING] = { "connecting", TO(HELLO) | TO(CLOSING) | TO(WAITING) | TO(STOPPED) },
    [CLIENT_HELLO] = { "hello", TO(READY) | TO(CLOSING) | TO(WAITING) | TO(STOPPED) },
    [CLIENT_READY] = { "ready", TO(CLOSING) | TO(WAITING) | TO(STOPPED) },
    [CLIENT_CLOSING] = { "closing", TO(WAITING) | TO(STOPPED) },
    [CLIENT_STOPPED] = { "stopped", TO(WAITING) },
};

const char *client_state_name(client_state state)
{
    return states[state].name;
}

static void move(client_session *s, client_state to)
{
    assert(states[s->state].next & (1u << to));
    s->state = to;
    if (s->handler->state) {
        s->handler->state(s->arg, to);
    }
}

static bool connected(const client_session *s)
{
    return s->state == CLIENT_HELLO || s->state == CLIENT_READY;
}

static mesh_ms earlier(mesh_ms a, mesh_ms b)
{
    return a < b ? a : b;
}

/* ---- life ---- */

client_session *client_session_new(const client_session_conf *conf, const client_handler *handler, void *arg, mesh_ms now)
{
    client_session *s = mesh_alloc(sizeof *s);
    s->handler = handler;
    s->arg = arg;
    s->token = mesh_strdup(conf->token);
    s->device = mesh_strdup(conf->device);
    s->software = mesh_strdup(conf->software ? conf->software : "");
    s->in_order = conf->in_order;
    s->rand.state = conf->seed;
    s->cursor = conf->cursor;
    s->heartbeat = HEARTBEAT_DEFAULT_MS;
    s->connect_at = now;
    s->ask_at = s->ack_at = s->ping_at = s->reconnect_at = s->retry_at = s->oldest_sent = MESH_NEVER;
    return s;
}

void client_session_destroy(client_session **s_p)
{
    client_session *s = *s_p;
    if (!s) {
        return;
    }
    zhashx_destroy(&s->marks);
    client_requests_fini(&s->requests);
    mesh_buf_fini(&s->out);
    free(s->token);
    free(s->device);
    free(s->software);
    free(s);
    *s_p = NULL;
}

static mesh_ms draw(client_session *s, mesh_ms limit)
{
    return (mesh_ms)mesh_rand_below(&s->rand, (uint64_t)limit + 1);
}

/* Full jitter: random between nothing and the doubled-up limit, so that a crowd does not come back as one. */
static mesh_ms backoff(client_session *s)
{
    mesh_ms limit = CLIENT_BACKOFF_BASE_MS;
    for (unsigned i = 0; i < s->failures && limit < CLIENT_BACKOFF_CAP_MS; i++) {
        limit *= 2;
    }
    s->failures++;
    return draw(s, earlier(limit, CLIENT_BACKOFF_CAP_MS));
}

static void note(client_session *s, const char *why)
{
    snprintf(s->why, sizeof s->why, "%s", why);
}

/* The connection is of no more use: the transport shall close it; connect again at connect_at. */
static void give_up(client_session *s, const char *why, mesh_ms connect_at)
{
    note(s, why);
    s->connect_at = connect_at;
    move(s, CLIENT_CLOSING);
}

static void stop(client_session *s, uint32_t code, const char *why)
{
    note(s, why);
    s->stop_code = code;
    if (s->state == CLIENT_WAITING) {
        move(s, CLIENT_STOPPED);
    } else if (s->state != CLIENT_STOPPED && s->state != CLIENT_CLOSING) {
        move(s, CLIENT_CLOSING);
    }
}

static void forget_connection(client_session *s)
{
    s->counts.repeats += client_requests_rewind(&s->requests);
    mesh_buf_clear(&s->out);
    s->hello_id = s->ping_id = 0;
    s->ask_at = s->ack_at = s->ping_at = s->reconnect_at = s->oldest_sent = MESH_NEVER;
    s->suspect.known = false;
}

/* ---- out ---- */

static void put_frame(client_session *s, Client__Request *request, mesh_ms now)
{
    client_frame_put(&s->out, request);
    s->last_out = now;
    if (request->id != 0) {
        s->ask_at = earlier(s->ask_at, now);
    }
}

static void put_hello(client_session *s, mesh_ms now)
{
    Client__Cursor cursor = CLIENT__CURSOR__INIT;
    cursor.era = s->cursor.era;
    cursor.inbox_seq = s->cursor.inbox_seq;
    Client__Hello hello = CLIENT__HELLO__INIT;
    hello.token = s->token;
    hello.device = s->device;
    hello.client = s->software;
    hello.cursor = s->cursor.known ? &cursor : NULL;
    Client__Request request = CLIENT__REQUEST__INIT;
    request.id = s->hello_id = ++s->next_id;
    request.body_case = CLIENT__REQUEST__BODY_HELLO;
    request.hello = &hello;
    put_frame(s, &request, now);
}

static void put_ping(client_session *s, mesh_ms now)
{
    Client__Ping ping = CLIENT__PING__INIT;
    Client__Request request = CLIENT__REQUEST__INIT;
    request.id = s->ping_id = ++s->next_id;
    request.body_case = CLIENT__REQUEST__BODY_PING;
    request.ping = &ping;
    put_frame(s, &request, now);
    s->ping_at = MESH_NEVER;
}

static void put_ack(client_session *s, mesh_ms now)
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

static void pump(client_session *s, mesh_ms now)
{
    client_pumped pumped = client_requests_pump(&s->requests, s->in_order, CLIENT_WINDOW, now, &s->out);
    s->retry_at = pumped.next;
    s->oldest_sent = pumped.oldest;
    if (pumped.put > 0) {
        s->last_out = now;
        s->ask_at = earlier(s->ask_at, now);
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

/* ---- in ---- */

static mesh_ms asked_delay(client_session *s, uint32_t after_ms)
{
    mesh_ms after = after_ms > 0 ? after_ms : CLIENT_BACKOFF_BASE_MS;
    return after + draw(s, after / 2);
}

/* True when this error is about the whole session and has been dealt with. */
static bool session_error(client_session *s, uint64_t id, const Client__Error *e, mesh_ms now)
{
    bool hello = s->state == CLIENT_HELLO && (id == s->hello_id || id == 0);
    switch (e->retry) {
    case CLIENT__RETRY__RETRY_RESYNC:
        s->cursor.known = false;
        give_up(s, e->message, now);
        return true;
    case CLIENT__RETRY__RETRY_REAUTH:
        stop(s, e->code, e->message);
        return true;
    case CLIENT__RETRY__RETRY_SAME:
    case CLIENT__RETRY__RETRY_LATER:
        if (hello) {
            give_up(s, e->message, now + asked_delay(s, e->after_ms));
        }
        return hello;
    default:
        if (hello || e->code == FAULT_REPLACED) {
            stop(s, e->code, e->message);
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
    s->heartbeat = welcome->heartbeat_ms >= 100 ? welcome->heartbeat_ms : HEARTBEAT_DEFAULT_MS;
    move(s, CLIENT_READY);
    if (s->handler->welcome) {
        s->handler->welcome(s->arg, welcome);
    }
}

static void mark_free(void **mark_p)
{
    free(*mark_p);
    *mark_p = NULL;
}

/* False: this (chat, seq) was told before. */
static bool mark_seen(client_session *s, const char *chat, uint64_t seq)
{
    if (!s->marks) {
        s->marks = mesh_table_str();
        zhashx_set_destructor(s->marks, mark_free);
    }
    chat_mark *mark = zhashx_lookup(s->marks, chat);
    if (!mark) {
        size_t size = strlen(chat) + 1;
        mark = mesh_alloc(sizeof *mark + size);
        memcpy(mark->chat, chat, size);
        int rc = zhashx_insert(s->marks, mark->chat, mark);
        assert(rc == 0);
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
        give_up(s, "a hole in the inbox", now);
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
        put_ack(s, now);
    } else {
        s->ack_at = earlier(s->ack_at, now + CLIENT_ACK_MS);
    }
}

static void on_resync(client_session *s, const Client__Resync *resync)
{
    if (!s->cursor.known || s->cursor.era != resync->era) {
        zhashx_destroy(&s->marks); /* seqs of another era say nothing */
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
        give_up(s, "the inbox head is ahead", now + backoff(s));
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
        s->reconnect_at = now + event->reconnect->after_ms + draw(s, event->reconnect->jitter_ms);
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
    while (connected(s)) {
        mesh_arena_reset(arena);
        Client__Event *event;
        mesh_err err = client_frame_next(&bytes, arena, &event);
        if (err == MESH_AGAIN) {
            break;
        }
        if (err != MESH_OK) {
            s->counts.malformed++;
            give_up(s, "the server sent nonsense", now + backoff(s));
            break;
        }
        on_event(s, event, now);
    }
    if (s->state == CLIENT_READY) {
        pump(s, now);
    }
}

/* ---- the transport ---- */

void client_session_on_work(client_session *s, void (*work)(void *arg), void *arg)
{
    s->work = work;
    s->work_arg = arg;
}

static mesh_ms turn_ready(client_session *s, mesh_ms now)
{
    if (s->retry_at <= now) {
        pump(s, now);
    }
    if (s->ack_at <= now) {
        put_ack(s, now);
    }
    if (s->ping_id == 0 && (s->ping_at <= now || s->last_out + s->heartbeat <= now)) {
        put_ping(s, now);
    }
    if (s->ask_at != MESH_NEVER && s->ask_at + CLIENT_STEP_MS <= now) {
        give_up(s, "the server fell silent", now + backoff(s));
        return now;
    }
    if (s->oldest_sent != MESH_NEVER && s->oldest_sent + CLIENT_ANSWER_MS <= now) {
        give_up(s, "a request was not answered", now + backoff(s));
        return now;
    }
    if (s->reconnect_at <= now) {
        give_up(s, "told to reconnect", now);
        return now;
    }
    mesh_ms next = earlier(s->reconnect_at, earlier(s->retry_at, s->ack_at));
    if (s->ping_id == 0) {
        next = earlier(next, earlier(s->ping_at, s->last_out + s->heartbeat));
    }
    if (s->ask_at != MESH_NEVER) {
        next = earlier(next, s->ask_at + CLIENT_STEP_MS);
    }
    return s->oldest_sent == MESH_NEVER ? next : earlier(next, s->oldest_sent + CLIENT_ANSWER_MS);
}

mesh_ms client_session_turn(client_session *s, mesh_ms now)
{
    switch (s->state) {
    case CLIENT_WAITING:
        return s->connect_at;
    case CLIENT_CONNECTING:
    case CLIENT_HELLO:
        if (s->step_at + CLIENT_STEP_MS > now) {
            return s->step_at + CLIENT_STEP_MS;
        }
        give_up(s, s->state == CLIENT_HELLO ? "no welcome" : "no connection", now + backoff(s));
        return now;
    case CLIENT_READY:
        return turn_ready(s, now);
    case CLIENT_CLOSING:
        return now;
    default:
        return MESH_NEVER;
    }
}

client_want client_session_want(const client_session *s, mesh_ms now)
{
    if (s->state == CLIENT_WAITING && s->connect_at <= now) {
        return CLIENT_WANT_CONNECT;
    }
    return s->state == CLIENT_CLOSING ? CLIENT_WANT_CLOSE : CLIENT_WANT_NOTHING;
}

void client_session_connecting(client_session *s, mesh_ms now)
{
    s->step_at = now;
    s->counts.connects++;
    move(s, CLIENT_CONNECTING);
}

void client_session_opened(client_session *s, mesh_ms now)
{
    if (s->state != CLIENT_CONNECTING) {
        return; /* given up in the meantime: it will be closed */
    }
    s->step_at = s->last_in = now;
    s->acked = s->cursor.known ? s->cursor.inbox_seq : 0;
    move(s, CLIENT_HELLO);
    put_hello(s, now);
}

static mesh_ms next_connect(client_session *s, uint32_t close_code, mesh_ms now)
{
    if (s->reconnect_at != MESH_NEVER) {
        return s->reconnect_at;
    }
    if (close_code / 100 == 42 && s->failures < 3) {
        s->failures++;
        return now + draw(s, CLIENT_BACKOFF_BASE_MS);
    }
    return now + backoff(s);
}

void client_session_closed(client_session *s, uint32_t close_code, mesh_ms now)
{
    if (s->state == CLIENT_WAITING || s->state == CLIENT_STOPPED) {
        return;
    }
    if (s->state != CLIENT_CLOSING) {
        char why[WHY_MAX];
        snprintf(why, sizeof why, close_code ? "closed by the server (%u)" : "the connection broke", close_code);
        /* 43xx: the token is refused, the owner has to bring another; 40xx and 1009: the same again would fail again */
        if (close_code / 100 == 40 || close_code / 100 == 43 || close_code == 1009) {
            s->stop_code = s->stop_code ? s->stop_code : close_code;
        }
        s->connect_at = next_connect(s, close_code, now);
        note(s, why);
    }
    forget_connection(s);
    move(s, s->stop_code ? CLIENT_STOPPED : CLIENT_WAITING);
}

bool client_session_pending(const client_session *s)
{
    return (connected(s) || s->state == CLIENT_CLOSING) && s->out.size > 0;
}

bool client_session_take(client_session *s, mesh_buf *out, mesh_ms now)
{
    if (s->state == CLIENT_READY && s->retry_at <= now) {
        pump(s, now);
    }
    if (!client_session_pending(s)) {
        return false;
    }
    size_t n = client_frame_cut(mesh_buf_slice(&s->out), CLIENT_MESSAGE_FRAMES, CLIENT_MESSAGE_BYTES);
    mesh_buf_put(out, s->out.data, n);
    mesh_buf_shift(&s->out, n);
    if (s->out.size == 0 && s->out.cap > 4096) {
        mesh_buf_fini(&s->out); /* thousands of idle sessions shall not each keep their largest burst */
        mesh_buf_init(&s->out);
    }
    return true;
}

/* ---- the owner ---- */

void client_session_set_token(client_session *s, const char *token)
{
    char *copy = mesh_strdup(token);
    free(s->token);
    s->token = copy;
    if (s->state == CLIENT_STOPPED) {
        s->stop_code = 0;
        s->connect_at = 0;
        move(s, CLIENT_WAITING);
        if (s->work) {
            s->work(s->work_arg);
        }
    }
}

void client_session_stop(client_session *s, mesh_ms now)
{
    if (s->state == CLIENT_READY) {
        put_ack(s, now);
    }
    stop(s, 1000, "stopped");
    if (s->work) {
        s->work(s->work_arg);
    }
}

client_state client_session_state(const client_session *s)
{
    return s->state;
}

client_cursor client_session_cursor(const client_session *s)
{
    return s->cursor;
}

size_t client_session_waiting(const client_session *s)
{
    return s->requests.count;
}

const char *client_session_why(const client_session *s)
{
    return s->why;
}

uint32_t client_session_stop_code(const client_session *s)
{
    return s->stop_code;
}

const client_counts *client_session_counts(const client_session *s)
{
    return &s->counts;
}
