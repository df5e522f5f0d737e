/* What the tests of the edge core share: one edge driven by hand. The test is the sockets and the routers. */
#ifndef TESTS_UNIT_EDGE_WORLD_H
#define TESTS_UNIT_EDGE_WORLD_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "edge/codec.h"
#include "edge/core.h"
#include "edge/token.h"
#include "mesh/alloc.h"
#include "mesh/fault.h"
#include "mesh/log.h"

enum { EDGE1, ROUTER1, ROUTER2, PEERS };
#define ERA UINT64_C(0xfedcba9876543210)
#define ERA_TEXT "18364758544493064720"
#define SENT_MAX 8192

static const mesh_slice world_key = { (const uint8_t *)"0123456789abcdef0123456789abcdef", 32 };

typedef struct world {
    mesh_conf *conf;
    edge_core *core;
    mesh_out *out;
    mesh_arena *arena;
    mesh_time now;
    uint64_t epoch;
    char *token; /* alice, good for an hour */
    mesh_buf heard;
    uint16_t close_code; /* as last shown */
    char close_reason[124];
    size_t n_sent;
    struct {
        mesh_peer to;
        Mesh__Msg *msg;
    } sent[SENT_MAX]; /* what the core said to the mesh since the last collect */
} world;

static inline mesh_slice text(const char *s)
{
    return (mesh_slice){ (const uint8_t *)s, strlen(s) };
}

static inline size_t collect(world *w)
{
    mesh_peer peer;
    mesh_buf frame = { 0 };
    mesh_arena_reset(w->arena);
    w->n_sent = 0;
    while (mesh_out_take(w->out, &peer, &frame)) {
        mesh_frame_reader reader;
        Mesh__Msg *msg;
        assert_int_equal(mesh_frame_open(&reader, mesh_buf_slice(&frame)), MESH_OK);
        while (mesh_frame_next(&reader, w->arena, &msg, NULL) == MESH_OK) {
            assert_true(w->n_sent < SENT_MAX);
            assert_true(msg->epoch == w->epoch && msg->key[0] != '\0');
            w->sent[w->n_sent].to = peer;
            w->sent[w->n_sent++].msg = msg;
        }
        mesh_buf_fini(&frame);
        frame = (mesh_buf){ 0 };
    }
    return w->n_sent;
}

/* The one message the core said since the last collect. */
static inline Mesh__Msg *only(world *w, mesh_peer to, Mesh__Msg__BodyCase kind)
{
    assert_int_equal(collect(w), 1);
    assert_int_equal(w->sent[0].to, to);
    assert_int_equal(w->sent[0].msg->body_case, kind);
    return w->sent[0].msg;
}

static inline void quiet(world *w)
{
    assert_int_equal(collect(w), 0);
}

static inline void mesh_says(world *w, mesh_peer from, const Mesh__Msg *msg)
{
    mesh_buf packed = { 0 };
    mesh_wire_pack(msg, &packed);
    edge_core_message(w->core, from, msg, mesh_buf_slice(&packed), w->now, w->out);
    mesh_buf_fini(&packed);
}

static inline void set_ring(world *w, bool one, bool two)
{
    Mesh__RingNode nodes[2] = { MESH__RING_NODE__INIT, MESH__RING_NODE__INIT };
    Mesh__RingNode *list[2];
    Mesh__Ring ring = MESH__RING__INIT;
    nodes[0].name = (char *)"router1";
    nodes[0].boot = 101;
    nodes[1].name = (char *)"router2";
    nodes[1].boot = 102;
    ring.epoch = ++w->epoch;
    if (one) {
        list[ring.n_routers++] = &nodes[0];
    }
    if (two) {
        list[ring.n_routers++] = &nodes[1];
    }
    ring.routers = list;
    MESH_MSG(msg, RING, ring, &ring);
    mesh_says(w, ROUTER1, &msg);
}

static inline mesh_ms turn(world *w)
{
    return edge_core_turn(w->core, w->now, w->out);
}

static inline mesh_ms later(world *w, mesh_ms ms)
{
    w->now.mono += ms;
    w->now.wall += ms;
    return turn(w);
}

static inline uint64_t stat(world *w, const char *name)
{
    mesh_buf page = { 0 };
    mesh_stats_print(edge_core_stats(w->core), "edge1", &page);
    mesh_buf_put(&page, "", 1);
    for (char *line = strtok((char *)page.data, "\n"); line != NULL; line = strtok(NULL, "\n")) {
        if (strncmp(line, name, strlen(name)) == 0) {
            uint64_t v = strtoull(strrchr(line, ' ') + 1, NULL, 10);
            mesh_buf_fini(&page);
            return v;
        }
    }
    fail_msg("no metric %s", name);
    return 0;
}

static inline edge_session_id open_socket(world *w, edge_codec_kind kind, const char *token)
{
    edge_session_id id = 0;
    assert_int_equal(edge_core_open(w->core, kind, token, w->now, &id), MESH_OK);
    return id;
}

static inline void says(world *w, edge_session_id id, const char *format, ...) __attribute__((format(printf, 3, 4)));
static inline void says(world *w, edge_session_id id, const char *format, ...)
{
    mesh_buf line = { 0 };
    va_list args;
    va_start(args, format);
    va_list again;
    va_copy(again, args);
    int n = vsnprintf(NULL, 0, format, args);
    char *p = (char *)mesh_buf_grow(&line, (size_t)n + 1);
    vsnprintf(p, (size_t)n + 1, format, again);
    va_end(again);
    va_end(args);
    edge_core_input(w->core, id, (mesh_slice){ line.data, (size_t)n }, w->now, w->out);
    mesh_buf_fini(&line);
}

/* All that waits for the socket of id, as the shell takes it; the text is borrowed until the next call. Other sockets
 * that were ready stay so. */
static inline const char *hears(world *w, edge_session_id id)
{
    edge_session_id ready;
    while (edge_core_next_ready(w->core, &ready)) {
        /* taken; pending works all the same, and each is read by its own test */
    }
    mesh_buf_clear(&w->heard);
    for (;;) {
        const char *reason;
        mesh_slice pending = edge_core_pending(w->core, id, &w->close_code, &reason);
        snprintf(w->close_reason, sizeof w->close_reason, "%s", reason);
        if (pending.size == 0) {
            break;
        }
        mesh_buf_put(&w->heard, pending.data, pending.size);
        edge_core_wrote(w->core, id, pending.size, w->now, w->out);
    }
    mesh_buf_put(&w->heard, "", 1);
    return (const char *)w->heard.data;
}

static inline void assert_closed(world *w, edge_session_id id, uint16_t code)
{
    hears(w, id);
    assert_int_equal(w->close_code, code);
}

/* The error the socket of id hears, and nothing else. */
static inline void assert_error(world *w, edge_session_id id, uint64_t request, uint32_t code)
{
    mesh_arena *arena = mesh_arena_new();
    edge_codec_reader reader;
    Client__Event *event = NULL;
    const char *heard = hears(w, id);
    edge_codec_open(&reader, EDGE_JSON, text(heard));
    if (edge_codec_event(&reader, arena, &event) != MESH_OK || event->body_case != CLIENT__EVENT__BODY_ERROR ||
        event->error->code != code || event->id != request) {
        fail_msg("not error %u for %llu: %s", code, (unsigned long long)request, heard);
    }
    assert_string_equal(event->error->name, mesh_fault_get(code)->name);
    assert_int_equal(event->error->retry, mesh_fault_get(code)->retry);
    assert_true(event->error->message[0] != '\0');
    if (edge_codec_event(&reader, arena, &event) != MESH_AGAIN) {
        fail_msg("more than an error: %s", heard);
    }
    mesh_arena_destroy(&arena);
}

typedef struct attached_as {
    uint64_t head;
    uint64_t after;
    bool resync;
    const char *name;
} attached_as;

/* Answer the attach on its way (the only message there is). */
static inline void attached(world *w, mesh_peer router, attached_as as)
{
    Mesh__Msg *ask = only(w, router, MESH__MSG__BODY_ATTACH);
    Mesh__Attached a = MESH__ATTACHED__INIT;
    a.session = ask->attach->session;
    a.era = ERA;
    a.head = as.head;
    a.after = as.after;
    a.resync = as.resync;
    a.generation = 3;
    if (as.name != NULL) {
        a.name = (char *)(uintptr_t)as.name;
    }
    MESH_MSG(msg, ATTACHED, attached, &a);
    msg.corr = ask->corr;
    mesh_says(w, router, &msg);
}

#define ATTEMPT 77 /* number of their hello */

/* A session of alice's that is live, with everything up to head forwarded and acked; its welcome was read. */
static inline edge_session_id login_at(world *w, edge_codec_kind kind, const char *device, uint64_t head)
{
    edge_session_id id = open_socket(w, kind, w->token);
    Client__Cursor cursor = CLIENT__CURSOR__INIT;
    cursor.era = ERA;
    cursor.inbox_seq = head;
    Client__Hello hello = CLIENT__HELLO__INIT;
    hello.device = (char *)(uintptr_t)device;
    hello.cursor = &cursor;
    hello.attempt = ATTEMPT;
    Client__Request request = CLIENT__REQUEST__INIT;
    request.body_case = CLIENT__REQUEST__BODY_HELLO;
    request.hello = &hello;
    mesh_buf frame = { 0 };
    edge_codec_put_request(kind, &request, &frame);
    edge_core_input(w->core, id, mesh_buf_slice(&frame), w->now, w->out);
    mesh_buf_fini(&frame);
    attached(w, ROUTER1, (attached_as){ .head = head, .after = head });
    hears(w, id);
    quiet(w);
    return id;
}

static inline edge_session_id login(world *w)
{
    return login_at(w, EDGE_JSON, "phone", 10);
}

static inline void live(world *w, mesh_peer from, const edge_session_id *ids, size_t n, uint64_t inbox_seq,
                        const char *body)
{
    Mesh__Entry entry = MESH__ENTRY__INIT;
    entry.chat = (char *)"default/room";
    entry.seq = inbox_seq;
    entry.kind = MESH__ENTRY_KIND__ENTRY_TEXT;
    entry.sender = (char *)"default/bob";
    entry.body = (ProtobufCBinaryData){ strlen(body), (uint8_t *)(uintptr_t)body };
    Mesh__Live l = MESH__LIVE__INIT;
    l.entry = &entry;
    l.era = ERA;
    Mesh__Target *targets = mesh_alloc(n * sizeof *targets);
    Mesh__Target **list = mesh_alloc(n * sizeof *list);
    for (size_t i = 0; i < n; i++) {
        mesh__target__init(&targets[i]);
        targets[i].session = ids[i];
        targets[i].inbox_seq = inbox_seq;
        list[i] = &targets[i];
    }
    l.n_targets = n;
    l.targets = list;
    MESH_MSG(msg, LIVE, live, &l);
    mesh_says(w, from, &msg);
    free(list);
    free(targets);
}

static inline void heads(world *w, mesh_peer from, edge_session_id id, uint64_t head)
{
    Mesh__Target target = MESH__TARGET__INIT;
    Mesh__Target *list[] = { &target };
    target.session = id;
    target.inbox_seq = head;
    Mesh__SessionHeads h = MESH__SESSION_HEADS__INIT;
    h.n_heads = 1;
    h.heads = list;
    MESH_MSG(msg, SESSION_HEADS, session_heads, &h);
    mesh_says(w, from, &msg);
}

static inline void fault(world *w, mesh_peer from, uint64_t corr, uint32_t code)
{
    Mesh__Fault f = MESH__FAULT__INIT;
    f.code = code;
    MESH_MSG(msg, FAULT, fault, &f);
    msg.corr = corr;
    mesh_says(w, from, &msg);
}

static inline void answer(world *w, mesh_peer from, uint64_t corr, Mesh__Msg *msg)
{
    msg->corr = corr;
    mesh_says(w, from, msg);
}

static inline void done(world *w, uint64_t corr)
{
    Mesh__Done d = MESH__DONE__INIT;
    MESH_MSG(msg, DONE, done, &d);
    answer(w, ROUTER1, corr, &msg);
}

static inline void message_text(char out[256], uint64_t inbox_seq, const char *body)
{
    snprintf(
        out, 256,
        "{\"type\":\"message\",\"chat\":\"room\",\"seq\":%llu,\"kind\":\"text\",\"sender\":\"bob\",\"body\":\"%s\","
        "\"era\":\"" ERA_TEXT "\",\"inbox_seq\":%llu}\n",
        (unsigned long long)inbox_seq, body, (unsigned long long)inbox_seq);
}

static inline int world_setup(void **state)
{
    static const char *names[] = { "edge1", "router1", "router2" };
    world *w = mesh_alloc(sizeof *w);
    mesh_log_level(MESH_WARN);
    w->conf = mesh_conf_new();
    assert_int_equal(mesh_conf_set(w->conf, "cluster.tenants", "default acme"), MESH_OK);
    for (size_t i = 0; i < PEERS; i++) {
        mesh_node_conf node = { .role = i == EDGE1 ? MESH_EDGE : MESH_ROUTER };
        snprintf(node.name, sizeof node.name, "%s", names[i]);
        if (i != EDGE1) {
            snprintf(node.endpoint, sizeof node.endpoint, "inproc://%s", names[i]);
        }
        assert_int_equal(mesh_conf_add_node(w->conf, &node), MESH_OK);
    }
    w->now = (mesh_time){ 1000000, 1800000000000 };
    w->token = edge_token_make(world_key, "alice", NULL, NULL, w->now.wall / 1000, 3600);
    w->arena = mesh_arena_new();
    w->out = mesh_out_new(PEERS);
    w->core = edge_core_new(&(edge_core_conf){ w->conf, EDGE1, 7, world_key }, w->now);
    edge_core_up(w->core, ROUTER1, 101, w->now, w->out);
    set_ring(w, true, false);
    quiet(w);
    *state = w;
    return 0;
}

static inline int world_teardown(void **state)
{
    world *w = *state;
    edge_core_destroy(&w->core);
    mesh_out_destroy(&w->out);
    mesh_arena_destroy(&w->arena);
    mesh_conf_destroy(&w->conf);
    mesh_buf_fini(&w->heard);
    free(w->token);
    free(w);
    return 0;
}

#define WORLD(test) cmocka_unit_test_setup_teardown(test, world_setup, world_teardown)

#endif
