/* tests/sim/sim_client.c: a client that trusts nobody. It speaks the real codec, keeps every entry it is given, and
 * complains at once about what no client should ever see: a hole or a repeat in its inbox numbers, an entry whose
 * content differs from the same entry seen before, a resync it did not ask for, an answer to a question it did not put.
 */
#include "tests/sim/impl.h"

#include "edge/close.h"
#include "edge/codec.h"
#include "mesh/fault.h"

#include <assert.h>
#include <inttypes.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PING_MS 20000
#define CLOSE_FINAL(code) ((code) >= 4000 && (code) < 4100)

static void connect_now(sim *s, void *arg, uint64_t tag);

/* ---- token ---- */

static void base64(const void *p, size_t n, mesh_buf *out)
{
    size_t room = sodium_base64_encoded_len(n, sodium_base64_VARIANT_URLSAFE_NO_PADDING);
    char *at = (char *)mesh_buf_grow(out, room);
    sodium_bin2base64(at, room, p, n, sodium_base64_VARIANT_URLSAFE_NO_PADDING);
    out->size -= room - strlen(at);
}

static void put_token(const sim_client *c, mesh_buf *out)
{
    static const char head[] = "{\"alg\":\"HS256\",\"typ\":\"JWT\"}";
    char claims[256];
    snprintf(claims, sizeof claims, "{\"exp\":%lld,\"iat\":%lld,\"sub\":\"%s\",\"tenant\":\"default\"}",
             SIM_WALL_MS / 1000 + 360000LL, SIM_WALL_MS / 1000 - 60LL, c->user);
    base64(head, strlen(head), out);
    mesh_buf_puts(out, ".");
    base64(claims, strlen(claims), out);
    crypto_auth_hmacsha256_state mac;
    uint8_t sum[crypto_auth_hmacsha256_BYTES];
    crypto_auth_hmacsha256_init(&mac, (const uint8_t *)SIM_TOKEN_KEY, strlen(SIM_TOKEN_KEY));
    crypto_auth_hmacsha256_update(&mac, out->data, out->size);
    crypto_auth_hmacsha256_final(&mac, sum);
    mesh_buf_puts(out, ".");
    base64(sum, sizeof sum, out);
    *mesh_buf_grow(out, 1) = 0;
}

/* ---- connection ---- */

static void leave_when_live(sim *s, void *arg, uint64_t tag)
{
    sim_client *c = arg;
    if (s->settling) {
        return;
    }
    if (sim_live(c)) {
        sim_bye(c);
    } else {
        sim_at(s, s->now + 50000, leave_when_live, c, tag);
    }
}

/* Every user has one more device, which shows itself once, before anything is in the inbox, and then stays away until
 * the end: so nothing is trimmed, and the checker can read all of it. */
static void make_reader(sim *s, const char *user)
{
    for (sim_client *c = s->clients; c; c = c->next) {
        if (strcmp(c->user, user) == 0) {
            return;
        }
    }
    sim_client *c = sim_client_new(s, user, SIM_READER);
    sim_hello(c, NULL);
    leave_when_live(s, c, 0);
}

sim_client *sim_client_new(sim *s, const char *user, const char *device)
{
    if (strcmp(device, SIM_READER) != 0 && !s->conf.no_readers) {
        make_reader(s, user);
    }
    sim_client *c = mesh_alloc(sizeof *c);
    c->s = s;
    snprintf(c->user, sizeof c->user, "%s", user);
    snprintf(c->device, sizeof c->device, "%s", device);
    snprintf(c->name, sizeof c->name, "%s/%s", user, device);
    c->arena = mesh_arena_new();
    c->log = mesh_alloc(sizeof *c->log);
    c->ops_end = &c->ops;
    c->codec = sim_random(s, 2) ? EDGE_JSON : EDGE_PROTOBUF;
    *s->clients_end = c;
    s->clients_end = &c->next;
    return c;
}

sim_client *sim_clients(sim *s)
{
    return s->clients;
}

void sim_clients_fini(sim *s)
{
    while (s->ops) {
        sim_op *op = s->ops;
        s->ops = op->next_all;
        free(op);
    }
    while (s->clients) {
        sim_client *c = s->clients;
        s->clients = c->next;
        mesh_arena_destroy(&c->arena);
        mesh_buf_fini(c->log);
        free(c->log);
        free(c->got);
        free(c);
    }
}

void sim_client_put(sim_client *c, const Client__Request *request)
{
    mesh_buf bytes = { 0 };
    edge_codec_put_request(c->codec, request, &bytes);
    sim_socket_say(c->socket, mesh_buf_slice(&bytes));
    mesh_buf_fini(&bytes);
}

/* The wall clock, but always higher than the last one: as a client does that keeps nothing. */
static uint64_t next_attempt(const sim_client *c)
{
    uint64_t wall = (uint64_t)(SIM_WALL_MS + sim_now(c->s) - SIM_EPOCH_MS);
    return wall > c->attempt ? wall : c->attempt + 1;
}

static void say_hello(sim_client *c)
{
    Client__Cursor cursor = CLIENT__CURSOR__INIT;
    Client__Hello hello = CLIENT__HELLO__INIT;
    Client__Request request = CLIENT__REQUEST__INIT;
    mesh_buf token = { 0 };
    put_token(c, &token);
    cursor.era = c->era;
    cursor.inbox_seq = c->cursor;
    hello.token = (char *)token.data;
    hello.device = c->device;
    hello.cursor = c->has_cursor ? &cursor : NULL;
    hello.attempt = c->attempt = next_attempt(c);
    request.id = ++c->next_id;
    request.body_case = CLIENT__REQUEST__BODY_HELLO;
    request.hello = &hello;
    c->has_hello_cursor = c->has_cursor;
    c->acked = c->cursor > c->acked ? c->cursor : c->acked; /* a cursor says: all of this is kept */
    c->said_hello = true;
    c->hellos++;
    c->state = SIM_HELLO;
    sim_trace(c->s, "%s: hello to %s, cursor %" PRIu64, c->name, c->edge, c->has_cursor ? c->cursor : 0);
    sim_client_put(c, &request);
    mesh_buf_fini(&token);
}

static sim_node *choose_edge(sim_client *c)
{
    sim *s = c->s;
    sim_node *alive[MESH_NODES_MAX];
    size_t n = 0;
    for (size_t i = 0; i < s->n_nodes; i++) {
        sim_node *e = &s->nodes[i];
        bool wanted = !c->sticky || strcmp(e->name, c->edge) == 0;
        if (e->role == MESH_EDGE && e->alive && !e->draining && wanted) {
            alive[n++] = e;
        }
    }
    return n ? alive[sim_random(s, n)] : NULL;
}

static void connect_to(sim_client *c, sim_node *edge)
{
    snprintf(c->edge, sizeof c->edge, "%s", edge->name);
    c->state = SIM_CONNECTING;
    c->retry_timer++;
    c->socket = sim_socket_open(c, edge);
    say_hello(c);
}

static void connect_later(sim_client *c, mesh_ms ms)
{
    sim_at(c->s, c->s->now + ms * 1000, connect_now, c, ++c->retry_timer);
}

static void connect_now(sim *s, void *arg, uint64_t tag)
{
    sim_client *c = arg;
    (void)s;
    if (tag != c->retry_timer || c->socket || c->stay_away) {
        return;
    }
    sim_node *edge = choose_edge(c);
    if (edge) {
        connect_to(c, edge);
    } else {
        connect_later(c, 200);
    }
}

static void offline(sim_client *c)
{
    c->socket = NULL;
    c->state = SIM_OFFLINE;
    c->ack_timer++;
    c->ack_due = false;
    sim_op_disconnected(c);
}

/* Another client with the name of this device. */
static bool has_rival(const sim_client *c)
{
    for (const sim_client *other = c->s->clients; other; other = other->next) {
        if (other != c && strcmp(other->name, c->name) == 0) {
            return true;
        }
    }
    return false;
}

void sim_client_cut(sim_client *c, uint16_t code)
{
    sim_trace(c->s, "%s: closed by %s with %u", c->name, c->edge, code);
    offline(c);
    c->close_code = code;
    if (code == EDGE_CLOSE_REPLACED && !has_rival(c)) { /* all its earlier connections have lower numbers */
        sim_complain(c->s, "%s was replaced by nobody", c->name);
    }
    c->replaced += code == EDGE_CLOSE_REPLACED;
    if (!c->stay_away && !CLOSE_FINAL(code)) {
        c->reconnects++;
        connect_later(c, (mesh_ms)sim_between(c->s, 20, 400));
    }
}

void sim_hello(sim_client *c, const char *edge)
{
    c->stay_away = false;
    if (c->socket) {
        sim_bye(c);
        c->stay_away = false;
    }
    if (edge && sim_node_find(c->s, edge)->alive) {
        connect_to(c, sim_node_find(c->s, edge));
    } else {
        connect_later(c, 0);
    }
}

void sim_bye(sim_client *c)
{
    c->stay_away = true;
    c->retry_timer++;
    if (c->socket) {
        sim_trace(c->s, "%s: closes", c->name);
        sim_socket_close(c->socket);
        offline(c);
    }
}

void sim_vanish(sim_client *c)
{
    c->stay_away = true;
    c->retry_timer++;
    if (c->socket) {
        sim_trace(c->s, "%s: vanishes", c->name);
        c->socket->client = NULL;
        offline(c);
    }
}

void sim_forget(sim_client *c, uint64_t back)
{
    assert(!c->socket);
    uint64_t least = c->acked > c->first ? c->acked : c->first;
    c->cursor = c->cursor > least + back ? c->cursor - back : least < c->cursor ? least : c->cursor;
}

bool sim_live(const sim_client *c)
{
    return c->state == SIM_LIVE;
}

/* ---- acks and pings ---- */

static void ack_now(sim *s, void *arg, uint64_t tag)
{
    sim_client *c = arg;
    if (tag != c->ack_timer || !c->socket || c->state < SIM_WELCOME) {
        return;
    }
    c->ack_due = false;
    if (c->acked >= c->cursor) {
        return;
    }
    c->acked = c->cursor;
    Client__Ack ack = CLIENT__ACK__INIT;
    Client__Request request = CLIENT__REQUEST__INIT;
    ack.inbox_seq = c->cursor;
    request.body_case = CLIENT__REQUEST__BODY_ACK;
    request.ack = &ack;
    sim_trace(s, "%s: ack %" PRIu64, c->name, c->cursor);
    sim_client_put(c, &request);
}

static void plan_ack(sim_client *c)
{
    if (!c->mute && !c->ack_due) {
        c->ack_due = true;
        sim_at(c->s, c->s->now + sim_between(c->s, 0, c->ack_ms * 1000), ack_now, c, ++c->ack_timer);
    }
}

void sim_mute(sim_client *c, bool mute)
{
    c->mute = mute;
    if (!mute && c->socket && c->state >= SIM_WELCOME && c->acked < c->cursor) {
        plan_ack(c);
    }
}

static void ping(sim *s, void *arg, uint64_t tag)
{
    sim_client *c = arg;
    if (!c->socket || c->hellos != tag) {
        return;
    }
    Client__Ping body = CLIENT__PING__INIT;
    Client__Request request = CLIENT__REQUEST__INIT;
    request.body_case = CLIENT__REQUEST__BODY_PING;
    request.ping = &body;
    sim_client_put(c, &request);
    sim_at(s, s->now + PING_MS * 1000, ping, c, tag);
}

/* ---- what it is told ---- */

static void keep(sim_client *c, const Client__Message *m)
{
    if (c->n_got == c->got_cap) {
        c->got_cap = c->got_cap ? c->got_cap * 2 : 64;
        c->got = mesh_realloc(c->got, c->got_cap * sizeof *c->got);
    }
    mesh_buf bytes = { 0 };
    ProtobufCMessage *copy = NULL;
    mesh_wire_pack(m, &bytes);
    mesh_err err = mesh_wire_unpack(&client__message__descriptor, mesh_buf_slice(&bytes), c->arena, &copy);
    assert(!err);
    mesh_buf_fini(&bytes);
    c->got[c->n_got++] = (sim_got){
        .era = m->era, .inbox_seq = m->inbox_seq, .at = sim_now(c->s), .message = (const Client__Message *)copy
    };
}

const sim_got *sim_find(const sim_client *c, const char *chat, uint64_t seq)
{
    for (size_t i = 0; i < c->n_got; i++) {
        if (c->got[i].message->seq == seq && strcmp(c->got[i].message->chat, chat) == 0) {
            return &c->got[i];
        }
    }
    return NULL;
}

static bool same_bytes(const void *a, const void *b)
{
    mesh_buf x = { 0 }, y = { 0 };
    mesh_wire_pack(a, &x);
    mesh_wire_pack(b, &y);
    bool same = x.size == y.size && memcmp(x.data, y.data, x.size) == 0;
    mesh_buf_fini(&x);
    mesh_buf_fini(&y);
    return same;
}

static void on_message(sim_client *c, const Client__Message *m)
{
    sim *s = c->s;
    if (c->state < SIM_WELCOME) {
        sim_complain(s, "%s got an entry before welcome", c->name);
    }
    if (!c->has_cursor || m->era != c->era) {
        sim_complain(s, "%s got an entry of era %" PRIx64 ", knows %" PRIx64, c->name, m->era, c->era);
        return;
    }
    if (m->inbox_seq != c->cursor + 1) {
        sim_complain(s, "%s got inbox entry %" PRIu64 " after %" PRIu64, c->name, m->inbox_seq, c->cursor);
        return;
    }
    const sim_got *old = sim_find(c, m->chat, m->seq);
    if (old && !same_bytes(old->message, m)) {
        sim_complain(s, "%s got %s %" PRIu64 " twice with different content", c->name, m->chat, m->seq);
    }
    for (size_t i = c->n_got; !old && i-- > 0;) {
        if (strcmp(c->got[i].message->chat, m->chat) == 0) {
            if (c->got[i].message->seq > m->seq) {
                sim_complain(s, "%s got %s %" PRIu64 " after %" PRIu64, c->name, m->chat, m->seq,
                             c->got[i].message->seq);
            }
            break;
        }
    }
    c->cursor = m->inbox_seq;
    keep(c, m);
    plan_ack(c);
    mesh_buf_printf(c->log, "message %s %" PRIu64 " %s %s\n", m->chat, m->seq, m->sender,
                    m->kind == CLIENT__ENTRY_KIND__ENTRY_KIND_TEXT
                        ? m->body
                        : protobuf_c_enum_descriptor_get_value(&client__entry_kind__descriptor, (int)m->kind)->name);
}

static void on_resync(sim_client *c, const Client__Resync *r)
{
    if (c->has_hello_cursor && !c->resync_fine) {
        sim_complain(c->s, "%s got a resync though it had cursor %" PRIu64, c->name, c->cursor);
    }
    c->resyncs++;
    c->has_cursor = true;
    c->era = r->era;
    c->cursor = c->first = c->acked = r->inbox_seq;
    mesh_buf bytes = { 0 };
    ProtobufCMessage *copy = NULL;
    mesh_wire_pack(r, &bytes);
    mesh_err err = mesh_wire_unpack(&client__resync__descriptor, mesh_buf_slice(&bytes), c->arena, &copy);
    assert(!err);
    mesh_buf_fini(&bytes);
    c->resync = (Client__Resync *)copy;
    mesh_buf_puts(c->log, "resync\n");
}

static void on_live(sim_client *c, const Client__Live *l)
{
    if (l->era != c->era || l->inbox_seq > c->cursor) {
        sim_complain(c->s, "%s was called live at %" PRIu64 ", has %" PRIu64, c->name, l->inbox_seq, c->cursor);
    }
    c->state = SIM_LIVE;
    c->lives++;
    mesh_buf_puts(c->log, "live\n");
}

static void on_error(sim_client *c, const Client__Event *e)
{
    mesh_buf_printf(c->log, "error %s\n", e->error->name);
    if (e->id) {
        sim_op_answer(c, e);
    }
}

static void take_event(sim_client *c, const Client__Event *e)
{
    switch (e->body_case) {
    case CLIENT__EVENT__BODY_WELCOME:
        c->state = SIM_WELCOME;
        sim_at(c->s, c->s->now + PING_MS * 1000, ping, c, c->hellos);
        mesh_buf_puts(c->log, "welcome\n");
        sim_op_issue_all(c);
        break;
    case CLIENT__EVENT__BODY_MESSAGE:
        on_message(c, e->message);
        break;
    case CLIENT__EVENT__BODY_RESYNC:
        on_resync(c, e->resync);
        break;
    case CLIENT__EVENT__BODY_LIVE:
        on_live(c, e->live);
        break;
    case CLIENT__EVENT__BODY_ERROR:
        on_error(c, e);
        break;
    case CLIENT__EVENT__BODY_RECONNECT: {
        sim_socket_close(c->socket);
        offline(c);
        c->reconnects++;
        mesh_buf_puts(c->log, "reconnect\n");
        connect_later(c, (mesh_ms)(e->reconnect->after_ms + sim_random(c->s, e->reconnect->jitter_ms + 1u)));
        break;
    }
    case CLIENT__EVENT__BODY_PONG:
        c->pong_head = e->pong->inbox_head;
        break;
    default:
        sim_op_answer(c, e);
    }
}

void sim_client_event(sim_client *c, mesh_slice bytes)
{
    sim *s = c->s;
    edge_codec_reader r;
    edge_codec_open(&r, c->codec, bytes);
    mesh_err err = MESH_OK;
    while (!err && c->socket) {
        mesh_arena_reset(s->event_arena);
        Client__Event *e = NULL;
        err = edge_codec_event(&r, s->event_arena, &e);
        if (err) {
            break;
        }
        if (sim_tracing(s)) {
            s->events.size = 0;
            sim_dump(&e->base, &s->events);
            sim_trace(s, "%s: told %.*s", c->name, (int)s->events.size, (const char *)s->events.data);
        }
        sim_mix(s, 20 + (uint64_t)e->body_case, e->id + c->cursor);
        take_event(c, e);
    }
    if (err && err != MESH_AGAIN) {
        sim_complain(s, "%s got a malformed frame", c->name);
    }
}

const char *sim_saw(sim_client *c)
{
    mesh_buf *b = c->log;
    size_t n = b->size - c->n_seen;
    uint8_t *end = mesh_buf_grow(b, 1);
    *end = 0;
    const char *text = (const char *)end - n;
    c->n_seen = b->size;
    return text;
}
