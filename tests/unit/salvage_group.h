/* tests/unit/salvage_group.h: three replicas of a shard in one process, on real databases, asked like a router asks.
 * Time is made up and passes fast; disks are waited for. */
#ifndef TESTS_UNIT_SALVAGE_GROUP_H
#define TESTS_UNIT_SALVAGE_GROUP_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "mesh/alloc.h"
#include "mesh/wire.h"
#include "store/core.h"
#include "store/metrics.h"

#define TRIO 3 /* peers 0, 1, 2; then the router */
#define TRIO_ROUTER 3
#define TRIO_TURNS 20000 /* beyond: it does not come */

typedef struct trio {
    mesh_conf *conf;
    char root[128];
    store_kv *kv[TRIO];
    store_core *core[TRIO]; /* NULL: down */
    mesh_out *out[TRIO];
    bool deaf[TRIO + 1][TRIO + 1]; /* [from][to]: nothing arrives */
    mesh_time now;
    uint64_t seed, corr;
    uint64_t answered; /* corr of the last Sent */
} trio;

static char *trio_path(const trio *t, size_t i, char out[160])
{
    snprintf(out, 160, "%s/store%zu", t->root, i + 1);
    return out;
}

static mesh_conf *trio_conf(void)
{
    mesh_conf *conf = mesh_conf_new();
    assert_int_equal(mesh_conf_set(conf, "cluster.name", "trio"), MESH_OK);
    for (unsigned i = 0; i <= TRIO; i++) {
        mesh_node_conf node = { .role = i < TRIO ? MESH_STORE : MESH_ROUTER };
        snprintf(node.name, sizeof node.name, i < TRIO ? "store%u" : "router%u", i < TRIO ? i + 1 : 1);
        snprintf(node.endpoint, sizeof node.endpoint, "inproc://%s", node.name);
        assert_int_equal(mesh_conf_add_node(conf, &node), MESH_OK);
    }
    return conf;
}

static void trio_start(trio *t, size_t i)
{
    char path[160], why[512] = "";
    store_kv_options options = { .write_buffer = 4u << 20, .block_cache = 1u << 20, .max_open_files = 100 };
    store_core_conf conf = { .conf = t->conf, .self = (mesh_peer)i, .seed = ++t->seed, .options = options };
    conf.path = trio_path(t, i, path);
    if (store_kv_open(path, &options, &t->kv[i], why, sizeof why) != MESH_OK ||
        store_core_new(&conf, t->kv[i], t->now, &t->core[i], why, sizeof why) != MESH_OK) {
        fail_msg("%s: %s", path, why);
    }
    for (size_t j = 0; j <= TRIO; j++) {
        if (j < TRIO && j != i && t->core[j] != NULL) {
            store_core_up(t->core[j], (mesh_peer)i, t->seed, t->now, t->out[j]);
        }
        if (j != i && (j == TRIO_ROUTER || t->core[j] != NULL)) {
            store_core_up(t->core[i], (mesh_peer)j, j + 1, t->now, t->out[i]);
        }
    }
}

static void trio_stop(trio *t, size_t i)
{
    store_core_destroy(&t->core[i]);
    store_kv_close(&t->kv[i]);
    for (size_t j = 0; j < TRIO; j++) {
        if (t->core[j] != NULL) {
            store_core_down(t->core[j], (mesh_peer)i, t->now, t->out[j]);
        }
    }
}

static trio *trio_new(const char *root)
{
    trio *t = mesh_alloc(sizeof *t);
    t->conf = trio_conf();
    t->now = (mesh_time){ 1000, 1700000000000 };
    snprintf(t->root, sizeof t->root, "%s", root);
    for (size_t i = 0; i < TRIO; i++) {
        t->out[i] = mesh_out_new(mesh_conf_nodes(t->conf));
    }
    return t;
}

static void trio_destroy(trio *t)
{
    for (size_t i = 0; i < TRIO; i++) {
        if (t->core[i] != NULL) {
            trio_stop(t, i);
        }
        mesh_out_destroy(&t->out[i]);
    }
    mesh_conf_destroy(&t->conf);
    free(t);
}

static void trio_deliver(trio *t, mesh_peer from, mesh_peer to, mesh_slice frame)
{
    mesh_frame_reader reader;
    mesh_arena *arena = mesh_arena_new();
    Mesh__Msg *msg;
    mesh_slice packed;
    assert_int_equal(mesh_frame_open(&reader, frame), MESH_OK);
    while (mesh_frame_next(&reader, arena, &msg, &packed) == MESH_OK) {
        if (to == TRIO_ROUTER) {
            t->answered = msg->body_case == MESH__MSG__BODY_SENT ? msg->corr : t->answered;
        } else if (to < TRIO && t->core[to] != NULL && !t->deaf[from][to]) {
            store_core_message(t->core[to], from, msg, packed, t->now, t->out[to]);
        }
    }
    mesh_arena_destroy(&arena);
}

static void trio_obey(trio *t, size_t i)
{
    char path[160], why[512] = "";
    store_verdict verdict = store_core_verdict(t->core[i]);
    if (verdict != STORE_GO_ON) {
        assert_true(verdict == STORE_SWITCH || verdict == STORE_REOPEN);
        trio_stop(t, i);
        if (verdict == STORE_SWITCH) {
            assert_int_equal(store_kv_switch(trio_path(t, i, path), why, sizeof why), MESH_OK);
        }
        trio_start(t, i);
    }
}

static void trio_turn(trio *t)
{
    t->now.mono += 5;
    t->now.wall += 5;
    for (size_t i = 0; i < TRIO; i++) {
        mesh_peer to;
        mesh_buf frame;
        if (t->core[i] == NULL) {
            continue;
        }
        store_core_turn(t->core[i], t->now, t->out[i]);
        assert_int_equal(store_core_error(t->core[i]), MESH_OK);
        while (mesh_out_take(t->out[i], &to, &frame)) {
            trio_deliver(t, (mesh_peer)i, to, mesh_buf_slice(&frame));
            mesh_buf_fini(&frame);
        }
        store_kv_batch *nothing = store_kv_batch_new(); /* all that was queued is on disk once this is */
        store_kv_batch_put(nothing, (mesh_slice){ (const uint8_t *)"\0test", 5 }, (mesh_slice){ NULL, 0 });
        assert_int_equal(store_kv_wait(t->kv[i], store_kv_write(t->kv[i], nothing, true)), MESH_OK);
        store_kv_batch_destroy(&nothing);
        trio_obey(t, i);
    }
}

static uint64_t trio_stat(trio *t, size_t i, unsigned metric)
{
    return (uint64_t)mesh_stats_get(store_core_stats(t->core[i]), metric);
}

/* Who leads; TRIO: nobody. */
static size_t trio_leader(trio *t)
{
    for (size_t i = 0; i < TRIO; i++) {
        if (t->core[i] != NULL && trio_stat(t, i, STORE_M_LEADER) == 1) {
            return i;
        }
    }
    return TRIO;
}

/* A leader, and all have a vote and the same rows. */
static void trio_settle(trio *t)
{
    for (unsigned turn = 0; turn < TRIO_TURNS; turn++) {
        trio_turn(t);
        size_t leader = trio_leader(t);
        bool all =
            leader < TRIO && trio_stat(t, leader, STORE_M_VOTERS) == TRIO && trio_stat(t, leader, STORE_M_APPLIED) > 0;
        for (size_t i = 0; i < TRIO && all; i++) {
            all = store_core_votes(t->core[i]) && store_core_quiet(t->core[i]) &&
                  trio_stat(t, i, STORE_M_APPLIED) == trio_stat(t, leader, STORE_M_APPLIED) &&
                  trio_stat(t, i, STORE_M_COMMIT) == trio_stat(t, leader, STORE_M_LAST);
        }
        if (all) {
            return;
        }
    }
    fail_msg("the group does not settle");
}

/* Ann says something to Bob. Returns the request's corr. */
static uint64_t trio_say(trio *t, size_t leader)
{
    char id[32], body[] = "a body that is long enough to matter";
    mesh_qid ann, bob, chat;
    assert_int_equal(mesh_qid_make("default", "ann", &ann), MESH_OK);
    assert_int_equal(mesh_qid_make("default", "bob", &bob), MESH_OK);
    mesh_id_direct(ann.s, bob.s, &chat);
    snprintf(id, sizeof id, "id%u", (unsigned)++t->corr);
    Mesh__Send send = MESH__SEND__INIT;
    send.user = ann.s;
    send.user_name = (char[]){ "ann" };
    send.chat = chat.s;
    send.peer = bob.s;
    send.client_msg_id = id;
    send.content_type = (char[]){ "text/plain" };
    send.body = (ProtobufCBinaryData){ sizeof body, (uint8_t *)body };
    MESH_MSG(msg, SEND, send, &send);
    mesh_buf frame = { 0 };
    msg.key = send.chat;
    msg.corr = t->corr;
    mesh_wire_pack(&msg, &frame);
    store_core_message(t->core[leader], TRIO_ROUTER, &msg, mesh_buf_slice(&frame), t->now, t->out[leader]);
    mesh_buf_fini(&frame);
    return t->corr;
}

static void trio_say_acked(trio *t)
{
    size_t leader = trio_leader(t);
    uint64_t corr = trio_say(t, leader);
    for (unsigned turn = 0; turn < TRIO_TURNS && t->answered != corr; turn++) {
        trio_turn(t);
    }
    assert_int_equal(t->answered, corr);
}

#endif
