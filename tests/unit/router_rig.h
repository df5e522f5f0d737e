/* tests/unit/router_rig.h: a router core driven by hand: the test is the edges and the stores. */
#ifndef TESTS_UNIT_ROUTER_RIG_H
#define TESTS_UNIT_ROUTER_RIG_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "mesh/alloc.h"
#include "mesh/fault.h"
#include "router/core.h"
#include "router/leaders.h"

#define RIG_SENT_MAX 4096

typedef struct fixture {
    mesh_conf *conf;
    router_leaders *leaders; /* of tests of the table alone */
    router_core *core;
    mesh_out *out;
    mesh_arena *arena;
    mesh_time now;
    uint64_t epoch;
    uint64_t era; /* of what the store answers */
    struct {
        mesh_peer to;
        Mesh__Msg *msg;
    } sent[RIG_SENT_MAX]; /* what the core said since the last collect */
    size_t n_sent;
} fixture;

static inline void add_node(mesh_conf *conf, const char *name, mesh_role role, uint32_t shard)
{
    mesh_node_conf node = { .role = role, .shard = shard };
    snprintf(node.name, sizeof node.name, "%s", name);
    if (role != MESH_EDGE) {
        snprintf(node.endpoint, sizeof node.endpoint, "inproc://%s", name);
    }
    assert_int_equal(mesh_conf_add_node(conf, &node), MESH_OK);
}

static inline void collect(fixture *f)
{
    mesh_peer peer;
    mesh_buf frame = { 0 };
    f->n_sent = 0;
    while (mesh_out_take(f->out, &peer, &frame)) {
        mesh_frame_reader reader;
        Mesh__Msg *msg;
        uint8_t *copy = mesh_arena_alloc(f->arena, frame.size);
        memcpy(copy, frame.data, frame.size);
        assert_int_equal(mesh_frame_open(&reader, (mesh_slice){ copy, frame.size }), MESH_OK);
        while (mesh_frame_next(&reader, f->arena, &msg, NULL) == MESH_OK) {
            assert_true(f->n_sent < RIG_SENT_MAX);
            f->sent[f->n_sent].to = peer;
            f->sent[f->n_sent++].msg = msg;
        }
        mesh_buf_fini(&frame);
    }
}

static inline size_t count(const fixture *f, Mesh__Msg__BodyCase kind)
{
    size_t n = 0;
    for (size_t i = 0; i < f->n_sent; i++) {
        n += f->sent[i].msg->body_case == kind;
    }
    return n;
}

/* The only message of this kind to this peer among what was just collected. */
static inline Mesh__Msg *only(fixture *f, mesh_peer to, Mesh__Msg__BodyCase kind)
{
    Mesh__Msg *found = NULL;
    for (size_t i = 0; i < f->n_sent; i++) {
        if (f->sent[i].to == to && f->sent[i].msg->body_case == kind) {
            assert_null(found);
            found = f->sent[i].msg;
        }
    }
    assert_non_null(found);
    return found;
}

static inline void say(fixture *f, mesh_peer from, const Mesh__Msg *msg)
{
    mesh_buf packed = { 0 };
    mesh_wire_pack(msg, &packed);
    router_core_message(f->core, from, msg, mesh_buf_slice(&packed), f->now, f->out);
    mesh_buf_fini(&packed);
    collect(f);
}

static inline void up(fixture *f, mesh_peer peer)
{
    router_core_up(f->core, peer, 5, f->now, f->out);
    collect(f);
}

static inline void down(fixture *f, mesh_peer peer)
{
    router_core_down(f->core, peer, f->now, f->out);
    collect(f);
}

/* Time passes, and the loop comes by at its end only. */
static inline void pass(fixture *f, mesh_ms ms)
{
    f->now.mono += ms;
    router_core_turn(f->core, f->now, f->out);
    collect(f);
}

/* A core of this config, which has told nobody anything. conf: taken. */
static inline fixture *rig_new(mesh_conf *conf, mesh_peer self, uint64_t boot)
{
    fixture *f = mesh_alloc(sizeof *f);
    f->conf = conf;
    f->now = (mesh_time){ 1000, 1700000000000 };
    f->arena = mesh_arena_new();
    f->era = 1;
    f->out = mesh_out_new(mesh_conf_nodes(conf));
    f->core = router_core_new(&(router_core_conf){ conf, self, boot }, f->now);
    return f;
}

static inline int teardown(void **state)
{
    fixture *f = *state;
    router_core_destroy(&f->core);
    mesh_out_destroy(&f->out);
    mesh_arena_destroy(&f->arena);
    mesh_conf_destroy(&f->conf);
    free(f);
    return 0;
}

/* The value of a metric. */
static inline unsigned long long metric_of(fixture *f, const char *name)
{
    mesh_buf page = { 0 };
    char want[96];
    snprintf(want, sizeof want, "\n%s{", name);
    mesh_stats_print(router_core_stats(f->core), "router1", &page);
    mesh_buf_put(&page, "", 1);
    const char *at = strstr((const char *)page.data, want);
    assert_non_null(at);
    unsigned long long value = strtoull(strchr(at, ' '), NULL, 10);
    mesh_buf_fini(&page);
    return value;
}

#endif
