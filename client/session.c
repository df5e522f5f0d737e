#include "client/session.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/session_priv.h"
#include "mesh/alloc.h"

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

void client_session_move(client_session *s, client_state to)
{
    assert(states[s->state].next & (1u << to));
    s->state = to;
    if (s->handler->state) {
        s->handler->state(s->arg, to);
    }
}

/* ---- life ---- */

client_session *client_session_new(const client_session_conf *conf, const client_handler *handler, void *arg,
                                   mesh_ms now)
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
    s->attempt_base = conf->attempt;
    s->attempt_from = now;
    s->heartbeat = CLIENT_HEARTBEAT_MS;
    s->connect_at = now;
    s->ask_at = s->ack_at = s->ping_at = s->reconnect_at = s->retry_at = s->oldest_sent = MESH_NEVER;
    return s;
}

void client_session_forget(client_session *s)
{
    for (void *mark; s->marks && (mark = mesh_table_take(s->marks));) {
        free(mark);
    }
    mesh_table_destroy(&s->marks);
}

void client_session_destroy(client_session **s_p)
{
    client_session *s = *s_p;
    if (!s) {
        return;
    }
    client_session_forget(s);
    client_requests_fini(&s->requests);
    mesh_buf_fini(&s->out);
    free(s->token);
    free(s->device);
    free(s->software);
    free(s);
    *s_p = NULL;
}

mesh_ms client_session_draw(client_session *s, mesh_ms limit)
{
    return (mesh_ms)mesh_rand_below(&s->rand, (uint64_t)limit + 1);
}

/* Full jitter: random between nothing and the doubled-up limit, so that a crowd does not come back as one. */
mesh_ms client_session_backoff(client_session *s)
{
    mesh_ms limit = CLIENT_BACKOFF_BASE_MS;
    for (unsigned i = 0; i < s->failures && limit < CLIENT_BACKOFF_CAP_MS; i++) {
        limit *= 2;
    }
    s->failures++;
    return client_session_draw(s, client_session_earlier(limit, CLIENT_BACKOFF_CAP_MS));
}

static void note(client_session *s, const char *why)
{
    snprintf(s->why, sizeof s->why, "%s", why);
}

void client_session_give_up(client_session *s, const char *why, mesh_ms connect_at)
{
    note(s, why);
    s->connect_at = connect_at;
    client_session_move(s, CLIENT_CLOSING);
}

void client_session_end(client_session *s, uint32_t code, const char *why)
{
    note(s, why);
    s->stop_code = code;
    if (s->state == CLIENT_WAITING) {
        client_session_move(s, CLIENT_STOPPED);
    } else if (s->state != CLIENT_STOPPED && s->state != CLIENT_CLOSING) {
        client_session_move(s, CLIENT_CLOSING);
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

/* ---- the transport ---- */

void client_session_on_work(client_session *s, void (*work)(void *arg), void *arg)
{
    s->work = work;
    s->work_arg = arg;
}

static mesh_ms turn_ready(client_session *s, mesh_ms now)
{
    if (s->retry_at <= now) {
        client_session_pump(s, now);
    }
    if (s->ack_at <= now) {
        client_session_put_ack(s, now);
    }
    if (s->ping_id == 0 && (s->ping_at <= now || s->last_out + s->heartbeat <= now)) {
        client_session_put_ping(s, now);
    }
    if (s->ask_at != MESH_NEVER && s->ask_at + CLIENT_STEP_MS <= now) {
        client_session_give_up(s, "the server fell silent", now + client_session_backoff(s));
        return now;
    }
    if (s->oldest_sent != MESH_NEVER && s->oldest_sent + CLIENT_ANSWER_MS <= now) {
        client_session_give_up(s, "a request was not answered", now + client_session_backoff(s));
        return now;
    }
    if (s->reconnect_at <= now) {
        client_session_give_up(s, "told to reconnect", now);
        return now;
    }
    mesh_ms next = client_session_earlier(s->reconnect_at, client_session_earlier(s->retry_at, s->ack_at));
    if (s->ping_id == 0) {
        next = client_session_earlier(next, client_session_earlier(s->ping_at, s->last_out + s->heartbeat));
    }
    if (s->ask_at != MESH_NEVER) {
        next = client_session_earlier(next, s->ask_at + CLIENT_STEP_MS);
    }
    return s->oldest_sent == MESH_NEVER ? next : client_session_earlier(next, s->oldest_sent + CLIENT_ANSWER_MS);
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
        client_session_give_up(s, s->state == CLIENT_HELLO ? "no welcome" : "no connection",
                               now + client_session_backoff(s));
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
    client_session_move(s, CLIENT_CONNECTING);
}

/* By the clock, but always higher than the last: the server lets the highest of a device have it. */
static void count_hello(client_session *s, mesh_ms now)
{
    if (s->attempt_base > 0) {
        uint64_t by_clock = s->attempt_base + (uint64_t)(now - s->attempt_from);
        s->attempt = by_clock > s->attempt ? by_clock : s->attempt + 1;
    }
}

void client_session_opened(client_session *s, mesh_ms now)
{
    if (s->state != CLIENT_CONNECTING) {
        return; /* given up in the meantime: it will be closed */
    }
    s->step_at = s->last_in = now;
    s->acked = s->cursor.known ? s->cursor.inbox_seq : 0;
    count_hello(s, now);
    client_session_move(s, CLIENT_HELLO);
    client_session_put_hello(s, now);
}

static mesh_ms next_connect(client_session *s, uint32_t close_code, mesh_ms now)
{
    if (s->reconnect_at != MESH_NEVER) {
        return s->reconnect_at;
    }
    if (close_code / 100 == 42 && s->failures < 3) {
        s->failures++;
        return now + client_session_draw(s, CLIENT_BACKOFF_BASE_MS);
    }
    return now + client_session_backoff(s);
}

void client_session_closed(client_session *s, uint32_t close_code, mesh_ms now)
{
    if (s->state == CLIENT_WAITING || s->state == CLIENT_STOPPED) {
        return;
    }
    if (s->state != CLIENT_CLOSING) {
        char why[CLIENT_WHY_MAX];
        snprintf(why, sizeof why, close_code ? "closed by the server (%u)" : "the connection broke", close_code);
        /* 43xx: the token is refused, the owner has to bring another; 40xx and 1009: the same again would fail again */
        if (close_code / 100 == 40 || close_code / 100 == 43 || close_code == 1009) {
            s->stop_code = s->stop_code ? s->stop_code : close_code;
        }
        s->connect_at = next_connect(s, close_code, now);
        note(s, why);
    }
    forget_connection(s);
    client_session_move(s, s->stop_code ? CLIENT_STOPPED : CLIENT_WAITING);
}

bool client_session_pending(const client_session *s)
{
    return (client_session_connected(s) || s->state == CLIENT_CLOSING) && s->out.size > 0;
}

bool client_session_take(client_session *s, mesh_buf *out, mesh_ms now)
{
    if (s->state == CLIENT_READY && s->retry_at <= now) {
        client_session_pump(s, now);
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
        client_session_move(s, CLIENT_WAITING);
        if (s->work) {
            s->work(s->work_arg);
        }
    }
}

void client_session_stop(client_session *s, mesh_ms now)
{
    if (s->state == CLIENT_READY) {
        client_session_put_ack(s, now);
    }
    client_session_end(s, 1000, "stopped");
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

uint64_t client_session_attempt(const client_session *s)
{
    return s->attempt;
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
