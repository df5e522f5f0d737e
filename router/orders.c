#include "router/orders.h"

#include <stdlib.h>

#include "mesh/alloc.h"
#include "mesh/fault.h"

typedef struct order {
    mesh_peer from, edge;
    uint64_t from_corr, corr; /* theirs, ours; 0: free */
} order;

struct router_orders {
    const mesh_conf *conf;
    mesh_peer self;
    bool *up; /* by peer */
    uint64_t last_corr;
    order list[ROUTER_ORDERS_MAX]; /* by corr modulo its size */
};

router_orders *router_orders_new(const mesh_conf *conf, mesh_peer self)
{
    router_orders *orders = mesh_alloc(sizeof *orders);
    orders->conf = conf;
    orders->self = self;
    orders->up = mesh_alloc(mesh_conf_nodes(conf) * sizeof *orders->up);
    return orders;
}

void router_orders_destroy(router_orders **orders_p)
{
    router_orders *orders = *orders_p;
    if (orders != NULL) {
        free(orders->up);
        free(orders);
        *orders_p = NULL;
    }
}

void router_orders_up(router_orders *orders, mesh_peer peer)
{
    orders->up[peer] = true;
}

void router_orders_down(router_orders *orders, mesh_peer peer)
{
    orders->up[peer] = false;
}

static void refuse(mesh_peer to, uint64_t corr, mesh_fault code, const char *detail, mesh_out *out)
{
    Mesh__Fault fault = MESH__FAULT__INIT;
    fault.code = (uint32_t)code;
    fault.detail = (char *)(uintptr_t)detail;
    MESH_MSG(msg, FAULT, fault, &fault);
    msg.corr = corr;
    mesh_out_put(out, to, &msg);
}

static void pass_on(router_orders *orders, mesh_peer from, mesh_peer edge, const Mesh__Msg *msg, mesh_out *out)
{
    uint64_t corr = ++orders->last_corr;
    orders->list[corr % ROUTER_ORDERS_MAX] = (order){ from, edge, msg->corr, corr };
    Mesh__Stats stats = MESH__STATS__INIT;
    MESH_MSG(ask, STATS, stats, &stats);
    MESH_MSG(drain, OPERATE, operate, msg->operate);
    Mesh__Msg *onward = msg->operate->op == MESH__OPERATE_OP__OPERATE_STATS ? &ask : &drain;
    onward->corr = corr;
    mesh_out_put(out, edge, onward);
}

bool router_orders_take(router_orders *orders, mesh_peer from, const Mesh__Msg *msg, mesh_out *out)
{
    const Mesh__Operate *o = msg->operate;
    bool drain = o->op == MESH__OPERATE_OP__OPERATE_DRAIN;
    mesh_peer node = mesh_conf_find(orders->conf, o->node);
    if (!drain && o->op != MESH__OPERATE_OP__OPERATE_STATS) {
        refuse(from, msg->corr, FAULT_UNKNOWN_TYPE, "a router does not know this order", out);
    } else if (drain && node == orders->self) {
        Mesh__Done done = MESH__DONE__INIT;
        MESH_MSG(answer, DONE, done, &done);
        answer.corr = msg->corr;
        mesh_out_put(out, from, &answer);
        return true;
    } else if (node == MESH_NO_PEER || mesh_conf_node(orders->conf, node)->role != MESH_EDGE) {
        refuse(from, msg->corr, FAULT_NOT_FOUND, "the router's config has no such edge", out);
    } else if (!orders->up[node]) {
        refuse(from, msg->corr, FAULT_UNAVAILABLE, "the edge has no link to this router", out);
    } else {
        pass_on(orders, from, node, msg, out);
    }
    return false;
}

bool router_orders_answer(router_orders *orders, mesh_peer from, const Mesh__Msg *msg, mesh_out *out)
{
    order *o = &orders->list[msg->corr % ROUTER_ORDERS_MAX];
    bool kind = msg->body_case == MESH__MSG__BODY_STATS_TEXT || msg->body_case == MESH__MSG__BODY_DONE ||
                msg->body_case == MESH__MSG__BODY_FAULT;
    if (!kind || msg->corr == 0 || o->corr != msg->corr || o->edge != from) {
        return false;
    }
    Mesh__Msg back = *msg;
    back.corr = o->from_corr;
    if (orders->up[o->from]) {
        mesh_out_put(out, o->from, &back);
    }
    *o = (order){ 0 };
    return true;
}
