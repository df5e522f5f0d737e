/* Each order is one step that a node takes or refuses; whether it came to be is seen in the metrics, and it is given
 * again until it is so or time is up. So a leader that falls in between costs a moment and nothing else. */
#include "client/cluster.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/args.h"
#include "mesh/fault.h"
#include "mesh/loop.h"

#define AGAIN_MS 200

bool client_cluster_open(client_cluster *c, const char *dir)
{
    mesh_loop_signals();
    *c = (client_cluster){ .op = client_operator_open(dir) };
    c->conf = c->op != NULL ? client_operator_conf(c->op) : NULL;
    return c->op != NULL;
}

void client_cluster_close(client_cluster *c)
{
    client_view_destroy(&c->view);
    client_operator_close(&c->op);
}

void client_cluster_look(client_cluster *c)
{
    client_view_destroy(&c->view);
    c->view = client_view_new(c->conf, client_operator_look(c->op));
}

mesh_peer client_cluster_node(const client_cluster *c, const char *name, mesh_role role)
{
    mesh_peer peer = mesh_conf_find(c->conf, name);
    mesh_role is = peer != MESH_NO_PEER ? mesh_conf_node(c->conf, peer)->role : MESH_OPERATOR;
    bool wanted = role == MESH_ROLES ? is != MESH_OPERATOR : is == role;
    return wanted ? peer : MESH_NO_PEER;
}

static const char *name_of(const client_cluster *c, mesh_peer peer)
{
    return mesh_conf_node(c->conf, peer)->name;
}

/* True: time is up, or somebody wants it to end. */
static bool is_over(mesh_ms end)
{
    return mesh_clock_now().mono >= end || mesh_loop_stopping();
}

static int fail(const char *what, const char *node, const char *why)
{
    client_args_fail("%s: %s: %s", node, what, why[0] != '\0' ? why : "refused");
    return 1;
}

/* ---- status ---- */

int client_cluster_status(client_cluster *c, bool json)
{
    mesh_buf out = { 0 };
    client_cluster_look(c);
    if (json) {
        client_view_json(c->view, &out);
    } else {
        client_view_text(c->view, &out);
    }
    (void)fwrite(out.data, 1, out.size, stdout);
    mesh_buf_fini(&out);
    return client_view_problems(c->view) > 0 ? 1 : 0;
}

/* ---- drain ---- */

int client_cluster_drain(client_cluster *c, mesh_peer peer)
{
    const char *name = name_of(c, peer);
    client_cluster_look(c);
    uint64_t started = client_view_node(c->view, peer)->started_ms;
    if (!client_view_node(c->view, peer)->up) {
        return fail("drain", name, "it is down");
    }
    client_answer answer = client_operator_order(c->op, peer, MESH__OPERATE_OP__OPERATE_DRAIN, name);
    if (!answer.done) {
        return fail("drain", name, answer.detail);
    }
    mesh_ms begin = mesh_clock_now().mono;
    for (;;) {
        client_cluster_look(c);
        const client_node_view *n = client_view_node(c->view, peer);
        if (!n->up || n->started_ms != started) {
            break;
        }
        if (is_over(begin + CLIENT_CLUSTER_DRAIN_MS)) {
            return fail("drain", name, "it was told to, and is there still");
        }
        client_operator_sleep(c->op, AGAIN_MS);
    }
    printf("%s drained in %.1f s\n", name, (double)(mesh_clock_now().mono - begin) / 1000);
    (void)fflush(stdout);
    return 0;
}

/* ---- leaders and members ---- */

static mesh_peer leader_of(const client_cluster *c, uint32_t shard)
{
    return client_view_shard(c->view, shard)->leader;
}

/* An order to the leader of a shard. done: it took it. Otherwise why: refused for good (false), or worth another try.
 */
static client_answer order_leader(client_cluster *c, uint32_t shard, Mesh__OperateOp op, const char *node)
{
    mesh_peer leader = leader_of(c, shard);
    if (leader == MESH_NO_PEER) {
        return (client_answer){ .detail = "the shard has no leader" };
    }
    return client_operator_order(c->op, leader, op, node);
}

static bool is_final(const client_answer *answer)
{
    return answer->answered && !answer->done &&
           (answer->code == FAULT_NOT_FOUND || answer->code == FAULT_DENIED || answer->code == FAULT_UNKNOWN_TYPE);
}

int client_cluster_transfer(client_cluster *c, uint32_t shard, const char *to)
{
    char what[32];
    snprintf(what, sizeof what, "shard %" PRIu32, shard);
    client_cluster_look(c);
    mesh_peer before = leader_of(c, shard);
    mesh_peer wanted = to[0] != '\0' ? mesh_conf_find(c->conf, to) : MESH_NO_PEER;
    client_answer answer = { 0 };
    mesh_ms begin = mesh_clock_now().mono;
    if (before != MESH_NO_PEER && before == wanted) {
        printf("%s leads shard %" PRIu32 " already\n", to, shard);
        return 0;
    }
    for (bool told = false; !is_over(begin + CLIENT_CLUSTER_TRANSFER_MS); client_operator_sleep(c->op, AGAIN_MS / 4)) {
        if (!told) {
            answer = order_leader(c, shard, MESH__OPERATE_OP__OPERATE_TRANSFER, to);
            told = answer.done;
        }
        if (is_final(&answer)) {
            break;
        }
        client_cluster_look(c);
        mesh_peer now = leader_of(c, shard);
        if (now != MESH_NO_PEER && now != before && (wanted == MESH_NO_PEER || now == wanted)) {
            printf("%s leads shard %" PRIu32 " now\n", name_of(c, now), shard);
            return 0;
        }
        if (now != MESH_NO_PEER && told && now == before) {
            told = mesh_clock_now().mono - begin < CLIENT_CLUSTER_TRANSFER_MS / 2; /* once more */
        }
    }
    return fail(what, "transfer-leader", answer.done ? "the leadership did not move in time" : answer.detail);
}

/* One order towards the store being out of its group. */
static client_answer push_out(client_cluster *c, mesh_peer store)
{
    const mesh_node_conf *node = mesh_conf_node(c->conf, store);
    if (leader_of(c, node->shard) != store) {
        return order_leader(c, node->shard, MESH__OPERATE_OP__OPERATE_REMOVE, node->name);
    }
    client_answer answer = order_leader(c, node->shard, MESH__OPERATE_OP__OPERATE_TRANSFER, "");
    if (is_final(&answer)) {
        snprintf(answer.detail, sizeof answer.detail, "it leads and is the last voter");
    }
    return answer;
}

int client_cluster_remove_store(client_cluster *c, mesh_peer store)
{
    const mesh_node_conf *node = mesh_conf_node(c->conf, store);
    client_answer answer = { 0 };
    mesh_ms end = mesh_clock_now().mono + CLIENT_CLUSTER_CHANGE_MS;
    uint64_t change = 0; /* the leader's last entry when the change was first seen: it counts when that is committed */
    for (; !is_over(end); client_operator_sleep(c->op, AGAIN_MS)) {
        client_cluster_look(c);
        mesh_peer leader = leader_of(c, node->shard);
        bool out = leader != MESH_NO_PEER && client_view_node(c->view, store)->role == CLIENT_TAKEN_OUT;
        if (out && change != 0 && client_view_node(c->view, leader)->commit >= change) {
            const client_shard_view *shard = client_view_shard(c->view, node->shard);
            printf("%s is out of shard %" PRIu32 ", which has %u voters now\n", node->name, node->shard, shard->voters);
            return 0;
        }
        if (out) {
            change = change != 0 ? change : client_view_node(c->view, leader)->last;
            continue;
        }
        change = 0;
        answer = push_out(c, store);
        if (is_final(&answer)) {
            break;
        }
    }
    return fail("remove-store", node->name, answer.done ? "not in time; see parley cluster status" : answer.detail);
}

int client_cluster_add_store(client_cluster *c, mesh_peer store)
{
    const mesh_node_conf *node = mesh_conf_node(c->conf, store);
    client_answer answer = { 0 };
    mesh_ms end = mesh_clock_now().mono + CLIENT_CLUSTER_JOIN_MS;
    uint64_t shown = UINT64_MAX;
    for (; !is_over(end); client_operator_sleep(c->op, AGAIN_MS)) {
        client_cluster_look(c);
        const client_node_view *n = client_view_node(c->view, store);
        bool known = leader_of(c, node->shard) != MESH_NO_PEER;
        if (known && n->role == CLIENT_VOTER) {
            printf("%s is a voter of shard %" PRIu32 "\n", node->name, node->shard);
            return 0;
        }
        if (known && n->role == CLIENT_STANDBY && n->lag != shown) {
            shown = n->lag;
            printf("%s catches up: %" PRIu64 " entries behind\n", node->name, n->lag);
            (void)fflush(stdout);
        }
        if (known && n->role == CLIENT_TAKEN_OUT) {
            answer = order_leader(c, node->shard, MESH__OPERATE_OP__OPERATE_ADD, node->name);
        }
        if (known && n->role != CLIENT_TAKEN_OUT && !n->up) {
            return fail("add-store", node->name, "it may join, but it is down: start it, it comes in by itself");
        }
        if (is_final(&answer)) {
            break;
        }
    }
    return fail("add-store", node->name, is_final(&answer) ? answer.detail : "not in time; see parley cluster status");
}
