/* A look asks every node that is up, and each one that comes up while it lasts; an edge is asked for at every router
 * that is up, and the first answer counts. A round number in the correlation id keeps late answers apart. */
#include "client/operator.h"

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/args.h"
#include "client/data.h"
#include "client/metrics.h"
#include "mesh/alloc.h"
#include "mesh/link.h"
#include "mesh/log.h"
#include "mesh/loop.h"
#include "mesh/rand.h"
#include "mesh/version.h"

#define POLL_MS 2
#define REST_MS 400 /* of a look: when all that are up have answered, the others get no longer than this */

struct client_operator {
    mesh_conf *conf;
    mesh_link *link;
    mesh_out *out;
    mesh_ms opened, looked;
    uint64_t round; /* of looks and orders */
    bool looking;
    bool *up;     /* by node */
    char **texts; /* by node */
    uint64_t order_corr;
    client_answer answer;
    const client_operator_task *task; /* while it runs */
};

static mesh_role role_of(const client_operator *op, size_t i)
{
    return mesh_conf_node(op->conf, (mesh_peer)i)->role;
}

static uint64_t corr_of(const client_operator *op, size_t node)
{
    return op->round << 16 | (node + 1);
}

/* ---- asking ---- */

static void ask_edge(client_operator *op, mesh_peer router, size_t edge)
{
    Mesh__Operate order = MESH__OPERATE__INIT;
    order.op = MESH__OPERATE_OP__OPERATE_STATS;
    order.node = (char *)(uintptr_t)mesh_conf_node(op->conf, (mesh_peer)edge)->name;
    MESH_MSG(msg, OPERATE, operate, &order);
    msg.corr = corr_of(op, edge);
    mesh_out_put(op->out, router, &msg);
}

static void ask(client_operator *op, mesh_peer peer)
{
    Mesh__Stats stats = MESH__STATS__INIT;
    MESH_MSG(msg, STATS, stats, &stats);
    msg.corr = corr_of(op, peer);
    mesh_out_put(op->out, peer, &msg);
    for (size_t i = 0; role_of(op, peer) == MESH_ROUTER && i < mesh_conf_nodes(op->conf); i++) {
        if (role_of(op, i) == MESH_EDGE && op->texts[i] == NULL) {
            ask_edge(op, peer, i);
        }
    }
}

static void take_text(client_operator *op, const Mesh__Msg *msg)
{
    size_t node = (size_t)(msg->corr & 0xffff) - 1;
    if (op->looking && msg->corr >> 16 == op->round && node < mesh_conf_nodes(op->conf) && op->texts[node] == NULL) {
        op->texts[node] = mesh_strdup(msg->stats_text->text);
    }
}

static void take_fault(client_operator *op, const Mesh__Fault *fault)
{
    op->answer.code = fault->code;
    snprintf(op->answer.detail, sizeof op->answer.detail, "%s", fault->detail);
    snprintf(op->answer.leader, sizeof op->answer.leader, "%s", fault->leader);
}

static void on_message(void *arg, mesh_peer from, const Mesh__Msg *msg, mesh_slice packed, mesh_time now)
{
    (void)packed;
    client_operator *op = arg;
    bool mine = op->order_corr != 0 && msg->corr == op->order_corr;
    if (op->task != NULL) {
        op->task->message(op->task->arg, from, msg, now, op->out);
    } else if (msg->body_case == MESH__MSG__BODY_STATS_TEXT) {
        take_text(op, msg);
    } else if (mine && (msg->body_case == MESH__MSG__BODY_DONE || msg->body_case == MESH__MSG__BODY_FAULT)) {
        op->answer.answered = true;
        op->answer.done = msg->body_case == MESH__MSG__BODY_DONE;
        if (!op->answer.done) {
            take_fault(op, msg->fault);
        }
    }
}

static void on_up(void *arg, mesh_peer peer, uint64_t boot, mesh_time now)
{
    (void)boot;
    (void)now;
    client_operator *op = arg;
    op->up[peer] = true;
    if (op->looking) {
        ask(op, peer);
    }
}

static void on_down(void *arg, mesh_peer peer, mesh_time now)
{
    (void)now;
    client_operator *op = arg;
    op->up[peer] = false;
}

/* ---- driving the links ---- */

typedef bool is_done(client_operator *op);

static void drive(client_operator *op, mesh_ms end, is_done *done)
{
    for (;;) {
        mesh_time now = mesh_clock_now();
        bool more = mesh_link_receive(op->link, now);
        (void)mesh_link_tick(op->link, now);
        bool over = now.mono >= end || mesh_loop_stopping() || (done != NULL && done(op));
        mesh_link_send(op->link, op->out, now);
        if (over) {
            return;
        }
        if (!more) {
            (void)poll(NULL, 0, POLL_MS);
        }
    }
}

static bool all_up(client_operator *op)
{
    for (size_t i = 0; i < mesh_conf_nodes(op->conf); i++) {
        if (!op->up[i] && (role_of(op, i) == MESH_ROUTER || role_of(op, i) == MESH_STORE)) {
            return false;
        }
    }
    return true;
}

static bool all_told(client_operator *op)
{
    bool all = true, all_up_told = true;
    for (size_t i = 0; i < mesh_conf_nodes(op->conf); i++) {
        bool told = op->texts[i] != NULL || role_of(op, i) == MESH_OPERATOR;
        all = all && told;
        all_up_told = all_up_told && (told || !op->up[i]);
    }
    return all || (all_up_told && mesh_clock_now().mono - op->looked >= REST_MS);
}

/* Links that were opened just now get the time they need. */
static void wait_for_links(client_operator *op)
{
    mesh_ms end = op->opened + CLIENT_OPERATOR_UP_MS;
    if (mesh_clock_now().mono < end) {
        drive(op, end, all_up);
    }
}

static bool answered(client_operator *op)
{
    return op->answer.answered;
}

const char *const *client_operator_look(client_operator *op)
{
    wait_for_links(op);
    op->round++;
    op->looked = mesh_clock_now().mono;
    op->looking = true;
    for (size_t i = 0; i < mesh_conf_nodes(op->conf); i++) {
        free(op->texts[i]);
        op->texts[i] = NULL;
    }
    for (size_t i = 0; i < mesh_conf_nodes(op->conf); i++) {
        if (op->up[i]) {
            ask(op, (mesh_peer)i);
        }
    }
    drive(op, op->looked + CLIENT_OPERATOR_ASK_MS, all_told);
    op->looking = false;
    return (const char *const *)op->texts;
}

/* ---- orders ---- */

static void say_and_wait(client_operator *op, mesh_peer way, Mesh__Msg *msg)
{
    op->round++;
    msg->corr = op->order_corr = corr_of(op, way);
    op->answer = (client_answer){ 0 };
    mesh_out_put(op->out, way, msg);
    drive(op, mesh_clock_now().mono + CLIENT_OPERATOR_ORDER_MS, answered);
    op->order_corr = 0;
    if (!op->answer.answered) {
        snprintf(op->answer.detail, sizeof op->answer.detail, "no answer");
    }
}

client_answer client_operator_order(client_operator *op, mesh_peer to, Mesh__OperateOp order, const char *node)
{
    bool edge = role_of(op, to) == MESH_EDGE;
    Mesh__Operate operate = MESH__OPERATE__INIT;
    operate.op = order;
    operate.node = (char *)(uintptr_t)node;
    MESH_MSG(msg, OPERATE, operate, &operate);
    op->answer = (client_answer){ .detail = "it cannot be reached" };
    wait_for_links(op);
    for (size_t i = 0; i < mesh_conf_nodes(op->conf) && !op->answer.done; i++) {
        bool way = edge ? role_of(op, i) == MESH_ROUTER : i == to;
        if (way && op->up[i]) {
            say_and_wait(op, (mesh_peer)i, &msg);
        }
    }
    return op->answer;
}

client_answer client_operator_move(client_operator *op, mesh_peer leader, mesh_slot slot, uint32_t shard)
{
    Mesh__SlotMove move = MESH__SLOT_MOVE__INIT;
    move.slot = slot;
    move.shard = shard;
    MESH_MSG(msg, SLOT_MOVE, slot_move, &move);
    say_and_wait(op, leader, &msg);
    return op->answer;
}

void client_operator_sleep(client_operator *op, mesh_ms ms)
{
    drive(op, mesh_clock_now().mono + ms, NULL);
}

/* ---- something else ---- */

static bool task_over(client_operator *op)
{
    return !op->task->turn(op->task->arg, mesh_clock_now(), op->out);
}

void client_operator_run(client_operator *op, const client_operator_task *task)
{
    op->task = task;
    drive(op, MESH_NEVER, task_over);
    op->task = NULL;
}

/* ---- life ---- */

static bool open_links(client_operator *op, const char *dir)
{
    static const mesh_link_handler handler = { on_message, on_up, on_down, NULL };
    mesh_peer self = mesh_conf_find(op->conf, "operator");
    if (self == MESH_NO_PEER || mesh_conf_node(op->conf, self)->role != MESH_OPERATOR) {
        client_args_fail("%s/cluster.conf has no operator node: all is one process there", dir);
        return false;
    }
    char *keys = client_data_path(dir, "keys");
    mesh_err err = mesh_link_setup(op->conf, keys);
    if (err == MESH_OK && mesh_link_new(NULL, op->conf, self, mesh_rand_seed(), &handler, op, &op->link) != MESH_OK) {
        mesh_link_teardown();
        err = MESH_IO;
    }
    if (err != MESH_OK) {
        client_args_fail("the links cannot be set up with the keys in %s: %s", keys, mesh_err_name(err));
    }
    free(keys);
    return err == MESH_OK;
}

client_operator *client_operator_open(const char *dir)
{
    char *path = client_data_path(dir, "cluster.conf");
    mesh_conf *conf = client_data_conf(path);
    free(path);
    if (conf == NULL) {
        return NULL;
    }
    mesh_log_setup("operator", MESH_ERROR);
    client_operator *op = mesh_alloc(sizeof *op);
    op->conf = conf;
    op->out = mesh_out_new(mesh_conf_nodes(conf));
    op->up = mesh_alloc(mesh_conf_nodes(conf) * sizeof *op->up + 1);
    op->texts = mesh_alloc(mesh_conf_nodes(conf) * sizeof *op->texts + 1);
    op->opened = mesh_clock_now().mono;
    if (!open_links(op, dir)) {
        client_operator_close(&op);
        return NULL;
    }
    for (size_t i = 0; i < mesh_conf_nodes(conf); i++) {
        if (role_of(op, i) == MESH_ROUTER || role_of(op, i) == MESH_STORE) {
            mesh_link_dial(op->link, (mesh_peer)i);
        }
    }
    return op;
}

/* A node that this parley cannot speak with looks as if it were down. */
static void tell_refusals(const client_operator *op)
{
    mesh_buf text = { 0 };
    mesh_link_print_stats(op->link, "operator", &text);
    mesh_buf_put(&text, "", 1);
    if (client_metrics_sum((const char *)text.data, "parley_link_refused_total", "reason=\"version\"") > 0) {
        client_args_fail("nodes were heard that speak other versions of node links than parley " MESH_VERSION
                         ": use the parley that they run (their logs say which)");
    }
    mesh_buf_fini(&text);
}

void client_operator_close(client_operator **op_p)
{
    client_operator *op = *op_p;
    if (op == NULL) {
        return;
    }
    if (op->link != NULL) {
        tell_refusals(op);
        mesh_link_destroy(&op->link);
        mesh_link_teardown();
    }
    for (size_t i = 0; i < mesh_conf_nodes(op->conf); i++) {
        free(op->texts[i]);
    }
    mesh_out_destroy(&op->out);
    mesh_conf_destroy(&op->conf);
    free(op->texts);
    free(op->up);
    free(op);
    *op_p = NULL;
}

const mesh_conf *client_operator_conf(const client_operator *op)
{
    return op->conf;
}
