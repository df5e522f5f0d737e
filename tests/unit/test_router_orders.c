/* An operator's orders at a router. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#include "mesh/fault.h"
#include "router/orders.h"

enum { ROUTER, EDGE1, EDGE2, OPERATOR, NODES };
static const char *const names[NODES] = { "router1", "edge1", "edge2", "operator" };
static const mesh_role roles[NODES] = { MESH_ROUTER, MESH_EDGE, MESH_EDGE, MESH_OPERATOR };

typedef struct rig {
    mesh_conf *conf;
    router_orders *orders;
    mesh_out *out;
    mesh_arena *arena;
    mesh_peer to; /* of the last message */
    Mesh__Msg *msg;
} rig;

static int setup(void **state)
{
    static rig r;
    r = (rig){ .conf = mesh_conf_new(), .out = mesh_out_new(NODES), .arena = mesh_arena_new() };
    for (size_t i = 0; i < NODES; i++) {
        mesh_node_conf node = { .role = roles[i] };
        snprintf(node.name, sizeof node.name, "%s", names[i]);
        snprintf(node.endpoint, sizeof node.endpoint, "%s", i == ROUTER ? "inproc://router1" : "");
        assert_int_equal(mesh_conf_add_node(r.conf, &node), MESH_OK);
    }
    r.orders = router_orders_new(r.conf, ROUTER);
    router_orders_up(r.orders, OPERATOR);
    router_orders_up(r.orders, EDGE1);
    *state = &r;
    return 0;
}

static int teardown(void **state)
{
    rig *r = *state;
    router_orders_destroy(&r->orders);
    mesh_out_destroy(&r->out);
    mesh_arena_destroy(&r->arena);
    mesh_conf_destroy(&r->conf);
    return 0;
}

/* The one message that was sent; false: none. */
static bool sent(rig *r)
{
    mesh_buf frame;
    mesh_frame_reader reader;
    if (!mesh_out_take(r->out, &r->to, &frame)) {
        return false;
    }
    uint8_t *copy = mesh_arena_alloc(r->arena, frame.size);
    memcpy(copy, frame.data, frame.size);
    assert_int_equal(mesh_frame_open(&reader, (mesh_slice){ copy, frame.size }), MESH_OK);
    assert_int_equal(mesh_frame_next(&reader, r->arena, &r->msg, NULL), MESH_OK);
    Mesh__Msg *more;
    assert_int_equal(mesh_frame_next(&reader, r->arena, &more, NULL), MESH_AGAIN);
    mesh_buf_fini(&frame);
    return true;
}

static bool order(rig *r, Mesh__OperateOp op, const char *node, uint64_t corr)
{
    Mesh__Operate operate = MESH__OPERATE__INIT;
    operate.op = op;
    operate.node = (char *)(uintptr_t)node;
    MESH_MSG(msg, OPERATE, operate, &operate);
    msg.corr = corr;
    bool drain = router_orders_take(r->orders, OPERATOR, &msg, r->out);
    assert_true(sent(r));
    return drain;
}

static bool answer(rig *r, mesh_peer from, uint64_t corr)
{
    Mesh__StatsText text = MESH__STATS_TEXT__INIT;
    static char said[] = "x 1\n";
    text.text = said;
    MESH_MSG(msg, STATS_TEXT, stats_text, &text);
    msg.corr = corr;
    return router_orders_answer(r->orders, from, &msg, r->out);
}

static void an_edge_is_asked_and_its_answer_goes_back(void **state)
{
    rig *r = *state;
    assert_false(order(r, MESH__OPERATE_OP__OPERATE_STATS, "edge1", 77));
    assert_int_equal(r->to, EDGE1);
    assert_int_equal(r->msg->body_case, MESH__MSG__BODY_STATS);
    uint64_t corr = r->msg->corr;
    assert_false(answer(r, EDGE2, corr)); /* another's */
    assert_false(answer(r, EDGE1, corr + 1));
    assert_false(answer(r, EDGE1, 0));
    assert_true(answer(r, EDGE1, corr));
    assert_true(sent(r));
    assert_int_equal(r->to, OPERATOR);
    assert_int_equal(r->msg->corr, 77);
    assert_string_equal(r->msg->stats_text->text, "x 1\n");
    assert_false(answer(r, EDGE1, corr)); /* once */
}

static void a_drain_goes_to_the_edge_or_to_the_router(void **state)
{
    rig *r = *state;
    assert_false(order(r, MESH__OPERATE_OP__OPERATE_DRAIN, "edge1", 5));
    assert_int_equal(r->to, EDGE1);
    assert_int_equal(r->msg->operate->op, MESH__OPERATE_OP__OPERATE_DRAIN);
    assert_true(order(r, MESH__OPERATE_OP__OPERATE_DRAIN, "router1", 6));
    assert_int_equal(r->to, OPERATOR);
    assert_int_equal(r->msg->body_case, MESH__MSG__BODY_DONE);
    assert_int_equal(r->msg->corr, 6);
}

static void refused(rig *r, Mesh__OperateOp op, const char *node, mesh_fault code)
{
    assert_false(order(r, op, node, 9));
    assert_int_equal(r->to, OPERATOR);
    assert_int_equal(r->msg->body_case, MESH__MSG__BODY_FAULT);
    assert_int_equal(r->msg->fault->code, code);
    assert_int_equal(r->msg->corr, 9);
}

static void what_cannot_be_is_refused(void **state)
{
    rig *r = *state;
    refused(r, MESH__OPERATE_OP__OPERATE_STATS, "edge2", FAULT_UNAVAILABLE); /* it is not up */
    refused(r, MESH__OPERATE_OP__OPERATE_STATS, "router1", FAULT_NOT_FOUND);
    refused(r, MESH__OPERATE_OP__OPERATE_DRAIN, "", FAULT_NOT_FOUND);
    refused(r, MESH__OPERATE_OP__OPERATE_DRAIN, "operator", FAULT_NOT_FOUND);
    refused(r, MESH__OPERATE_OP__OPERATE_REMOVE, "edge1", FAULT_UNKNOWN_TYPE);
}

static void only_so_many_are_remembered(void **state)
{
    rig *r = *state;
    assert_false(order(r, MESH__OPERATE_OP__OPERATE_STATS, "edge1", 1));
    uint64_t first = r->msg->corr;
    for (uint64_t i = 0; i < ROUTER_ORDERS_MAX; i++) {
        assert_false(order(r, MESH__OPERATE_OP__OPERATE_STATS, "edge1", 2 + i));
    }
    assert_false(answer(r, EDGE1, first));
    assert_true(answer(r, EDGE1, first + 1));
}

/* The operator went away before the answer came. */
static void nobody_is_told_who_is_gone(void **state)
{
    rig *r = *state;
    assert_false(order(r, MESH__OPERATE_OP__OPERATE_STATS, "edge1", 1));
    router_orders_down(r->orders, OPERATOR);
    assert_true(answer(r, EDGE1, r->msg->corr));
    assert_false(sent(r));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(an_edge_is_asked_and_its_answer_goes_back, setup, teardown),
        cmocka_unit_test_setup_teardown(a_drain_goes_to_the_edge_or_to_the_router, setup, teardown),
        cmocka_unit_test_setup_teardown(what_cannot_be_is_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(only_so_many_are_remembered, setup, teardown),
        cmocka_unit_test_setup_teardown(nobody_is_told_who_is_gone, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
