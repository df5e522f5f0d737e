/* router/serve.c: between link and core, nothing else. Stopping: RUN -> (over inproc: WAIT for the edges) -> LEAVE ->
 * gone. */
#include "router/serve.h"

#include <inttypes.h>
#include <string.h>

#include "mesh/link.h"
#include "mesh/log.h"
#include "mesh/rand.h"
#include "mesh/version.h"
#include "router/core.h"
#include "router/orders.h"

typedef enum serve_state { SERVE_RUN, SERVE_WAIT, SERVE_LEAVE } serve_state;

typedef struct serve {
    const mesh_conf *conf;
    mesh_peer self;
    const mesh_node_conf *node;
    serve_state state;
    mesh_ms stop_at; /* of the state it is in */
    mesh_ms last_at; /* of all of them */
    unsigned edges_up, stores_up;
    mesh_loop *loop;
    mesh_link *link;
    mesh_out *out;
    router_core *core;
    router_orders *orders;
} serve;

static void on_message(void *arg, mesh_peer from, const Mesh__Msg *msg, mesh_slice packed, mesh_time now)
{
    serve *s = arg;
    if (msg->body_case == MESH__MSG__BODY_OPERATE) {
        if (router_orders_take(s->orders, from, msg, s->out)) {
            mesh_log(MESH_INFO, "drained_by", "operator=%s", mesh_conf_node(s->conf, from)->name);
            mesh_loop_stop_all();
        }
        return;
    }
    if (mesh_conf_node(s->conf, from)->role == MESH_EDGE && router_orders_answer(s->orders, from, msg, s->out)) {
        return;
    }
    router_core_message(s->core, from, msg, packed, now, s->out);
}

static void on_up(void *arg, mesh_peer peer, uint64_t boot, mesh_time now)
{
    serve *s = arg;
    s->edges_up += mesh_conf_node(s->conf, peer)->role == MESH_EDGE;
    s->stores_up += mesh_conf_node(s->conf, peer)->role == MESH_STORE;
    router_orders_up(s->orders, peer);
    router_core_up(s->core, peer, boot, now, s->out);
}

static void on_down(void *arg, mesh_peer peer, mesh_time now)
{
    serve *s = arg;
    s->edges_up -= mesh_conf_node(s->conf, peer)->role == MESH_EDGE;
    s->stores_up -= mesh_conf_node(s->conf, peer)->role == MESH_STORE;
    router_orders_down(s->orders, peer);
    router_core_down(s->core, peer, now, s->out);
}

static void print_stats(void *arg, mesh_buf *out)
{
    serve *s = arg;
    mesh_stats_print(router_core_stats(s->core), s->node->name, out);
    mesh_link_print_stats(s->link, s->node->name, out);
}

static mesh_ms earlier(mesh_ms a, mesh_ms b)
{
    return a < b ? a : b;
}

static bool is_inproc(const serve *s)
{
    return strncmp(s->node->endpoint, "inproc://", 9) == 0;
}

static void start_leaving(serve *s, mesh_time now)
{
    mesh_log(MESH_INFO, "router_leaving", "edges=%u", s->edges_up);
    s->state = SERVE_LEAVE;
    s->stop_at = earlier(now.mono + ROUTER_STOP_MS, s->last_at);
    router_core_leave(s->core, now, s->out);
}

static void check_stop(serve *s, mesh_time now)
{
    if (s->state == SERVE_RUN && mesh_loop_stopping()) {
        s->state = SERVE_WAIT;
        s->stop_at = now.mono + (is_inproc(s) ? ROUTER_WAIT_EDGES_MS : 0);
        s->last_at = now.mono + ROUTER_LAST_MS;
    }
    if (s->state == SERVE_WAIT && (s->edges_up == 0 || now.mono >= s->stop_at)) {
        start_leaving(s, now);
    }
    if (s->state == SERVE_LEAVE && s->stores_up == 0) {
        s->stop_at = earlier(s->stop_at, now.mono + ROUTER_ALONE_MS);
    }
}

static mesh_ms turn(void *arg, mesh_time now)
{
    serve *s = arg;
    bool more = mesh_link_receive(s->link, now);
    mesh_ms next = mesh_link_tick(s->link, now);
    check_stop(s, now);
    next = earlier(next, router_core_turn(s->core, now, s->out));
    mesh_link_send(s->link, s->out, now);
    if (s->state != SERVE_RUN) {
        next = earlier(next, s->stop_at);
    }
    if (s->state == SERVE_LEAVE && (router_core_quiet(s->core, now) || now.mono >= s->stop_at)) {
        mesh_loop_stop(s->loop);
        next = MESH_NEVER;
    }
    return more ? now.mono : next;
}

static mesh_err start(serve *s)
{
    static const mesh_link_handler handler = {
        .message = on_message, .up = on_up, .down = on_down, .stats = print_stats
    };
    uint64_t boot = mesh_rand_seed();
    router_core_conf core_conf = { .conf = s->conf, .self = s->self, .boot = boot };
    s->out = mesh_out_new(mesh_conf_nodes(s->conf));
    s->loop = mesh_loop_new(turn, s);
    s->orders = router_orders_new(s->conf, s->self);
    s->core = router_core_new(&core_conf, mesh_clock_now());
    mesh_err err = mesh_link_new(s->loop, s->conf, s->self, boot, &handler, s, &s->link);
    if (err != MESH_OK) {
        return err;
    }
    for (mesh_peer peer = 0; peer < mesh_conf_nodes(s->conf); peer++) {
        if (mesh_conf_node(s->conf, peer)->role == MESH_STORE) {
            mesh_link_dial(s->link, peer);
        }
    }
    mesh_log(MESH_INFO, "router_started", "version=%s endpoint=%s boot=%016" PRIx64, MESH_VERSION, s->node->endpoint,
             boot);
    return MESH_OK;
}

int router_serve_run(const mesh_conf *conf, mesh_peer self)
{
    serve s = { .conf = conf, .self = self, .node = mesh_conf_node(conf, self), .state = SERVE_RUN };
    mesh_err err = start(&s);
    if (err == MESH_OK) {
        mesh_loop_run(s.loop);
        mesh_log(MESH_INFO, "router_stopped", "quiet=%d", router_core_quiet(s.core, mesh_clock_now()));
    } else {
        mesh_log(MESH_ERROR, "router_not_started", "error=%s", mesh_err_name(err));
    }
    mesh_link_destroy(&s.link);
    router_core_destroy(&s.core);
    router_orders_destroy(&s.orders);
    mesh_loop_destroy(&s.loop);
    mesh_out_destroy(&s.out);
    return err == MESH_OK ? 0 : 1;
}
