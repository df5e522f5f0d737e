/* tests/unit/client_rig.h: a client's session against a server made of hand-written events. */
#ifndef TESTS_UNIT_CLIENT_RIG_H
#define TESTS_UNIT_CLIENT_RIG_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "client/session.h"
#include "mesh/fault.h"

#define ERA 77u

typedef struct fixture {
    client_session *s;
    mesh_ms now;
    mesh_arena *arena;
    mesh_arena *parsed; /* of the requests below */
    mesh_buf taken;
    Client__Request *requests[512]; /* what the client sent last */
    size_t n_requests;
    char told[1024]; /* what the owner was told */
    uint64_t answered;
    uint32_t answer_code; /* of an error */
} fixture;

static inline void tell(fixture *f, const char *format, ...) __attribute__((format(printf, 2, 3)));
static inline void tell(fixture *f, const char *format, ...)
{
    size_t n = strlen(f->told);
    va_list list;
    va_start(list, format);
    vsnprintf(f->told + n, sizeof f->told - n, format, list);
    va_end(list);
}

static inline void told(fixture *f, const char *want)
{
    assert_string_equal(f->told, want);
    f->told[0] = '\0';
}

static inline void take(fixture *f)
{
    f->n_requests = 0;
    mesh_arena_reset(f->parsed);
    mesh_buf_clear(&f->taken);
    while (client_session_take(f->s, &f->taken, f->now)) {
    }
    mesh_slice rest = mesh_buf_slice(&f->taken);
    while (rest.size > 0) {
        size_t n = client_frame_cut(rest, 1, 0);
        size_t head = n < 130 ? 1 : n < 16386 ? 2 : 3;
        ProtobufCMessage *m;
        assert_int_equal(
            mesh_wire_unpack(&client__request__descriptor, (mesh_slice){ rest.data + head, n - head }, f->parsed, &m),
            MESH_OK);
        assert_true(f->n_requests < 512);
        f->requests[f->n_requests++] = (Client__Request *)m;
        rest.data += n;
        rest.size -= n;
    }
}

static inline void input(fixture *f, Client__Event *event)
{
    mesh_buf bytes = { 0 };
    size_t size = mesh_wire_size(event);
    for (; size >= 0x80; size >>= 7) {
        uint8_t byte = (uint8_t)(size | 0x80);
        mesh_buf_put(&bytes, &byte, 1);
    }
    uint8_t byte = (uint8_t)size;
    mesh_buf_put(&bytes, &byte, 1);
    mesh_wire_pack(event, &bytes);
    client_session_input(f->s, mesh_buf_slice(&bytes), f->arena, f->now);
    mesh_buf_fini(&bytes);
}

static inline void welcome(fixture *f)
{
    Client__Welcome w = CLIENT__WELCOME__INIT;
    w.heartbeat_ms = 30000;
    Client__Event e = CLIENT__EVENT__INIT;
    e.id = f->n_requests ? f->requests[0]->id : 0;
    e.body_case = CLIENT__EVENT__BODY_WELCOME;
    e.welcome = &w;
    input(f, &e);
}

/* Connect and say hello; the hello is requests[0]. */
static inline void dial(fixture *f)
{
    assert_int_equal(client_session_want(f->s, f->now), CLIENT_WANT_CONNECT);
    client_session_connecting(f->s, f->now);
    client_session_opened(f->s, f->now);
    take(f);
    assert_int_equal(f->n_requests, 1);
    assert_int_equal(f->requests[0]->body_case, CLIENT__REQUEST__BODY_HELLO);
}

static inline void come_live(fixture *f)
{
    dial(f);
    welcome(f);
    assert_int_equal(client_session_state(f->s), CLIENT_READY);
}

static inline int teardown(void **state)
{
    fixture *f = *state;
    client_session_destroy(&f->s);
    mesh_arena_destroy(&f->arena);
    mesh_arena_destroy(&f->parsed);
    mesh_buf_fini(&f->taken);
    free(f);
    return 0;
}

#endif
