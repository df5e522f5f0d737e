/* Between link and database.
 *
 *   stopping: RUN -> GRACE: still serving -> FINISH: takes no more requests, finishes what is in the log, for which it
 * still talks to the other stores of the shard -> gone.
 *
 * While the database is closed (store/database.h) the links stay up and every request is answered, reads too.
 * Everything that was acked is on the disk and is there when it opens again. */
#include "store/serve.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "mesh/alloc.h"
#include "mesh/fault.h"
#include "mesh/link.h"
#include "mesh/log.h"
#include "mesh/rand.h"
#include "mesh/version.h"
#include "store/database.h"

typedef enum serve_state { SERVE_RUN, SERVE_GRACE, SERVE_FINISH } serve_state;

typedef struct serve {
    const mesh_conf *conf;
    mesh_peer self;
    const mesh_node_conf *node;
    serve_state state;
    mesh_ms grace_until, stop_at;
    unsigned routers_up;
    bool alone; /* no other store in the shard */
    mesh_loop *loop;
    mesh_link *link;
    store_database *database;
} serve;

/* ---- between link and core ---- */

/* What an operator may want of a store whatever its database does. */
static void operate(serve *s, mesh_peer from, const Mesh__Msg *msg)
{
    static char closed[] = "its database is closed";
    bool drain = msg->operate->op == MESH__OPERATE_OP__OPERATE_DRAIN;
    Mesh__Done done = MESH__DONE__INIT;
    Mesh__Fault fault = MESH__FAULT__INIT;
    fault.code = FAULT_UNAVAILABLE;
    fault.detail = closed;
    MESH_MSG(yes, DONE, done, &done);
    MESH_MSG(no, FAULT, fault, &fault);
    Mesh__Msg *answer = drain ? &yes : &no;
    answer->corr = msg->corr;
    mesh_out_put(store_database_out(s->database), from, answer);
    if (drain) {
        mesh_log(MESH_INFO, "drained_by", "operator=%s", mesh_conf_node(s->conf, from)->name);
        mesh_loop_stop_all();
    }
}

static void on_message(void *arg, mesh_peer from, const Mesh__Msg *msg, mesh_slice packed, mesh_time now)
{
    serve *s = arg;
    if (msg->body_case == MESH__MSG__BODY_OPERATE &&
        (store_database_core(s->database) == NULL || msg->operate->op == MESH__OPERATE_OP__OPERATE_DRAIN)) {
        operate(s, from, msg);
        return;
    }
    if (s->state == SERVE_FINISH && mesh_conf_node(s->conf, from)->role != MESH_STORE) {
        return;
    }
    if (msg->trace != 0) {
        mesh_log(MESH_DEBUG, "received", "trace=%016" PRIx64 " type=%s from=%s", msg->trace, mesh_msg_kind_name(msg),
                 mesh_conf_node(s->conf, from)->name);
    }
    store_database_message(s->database, from, msg, packed, now);
}

static void on_up(void *arg, mesh_peer peer, uint64_t boot, mesh_time now)
{
    serve *s = arg;
    s->routers_up += mesh_conf_node(s->conf, peer)->role == MESH_ROUTER;
    store_database_up(s->database, peer, boot, now);
}

static void on_down(void *arg, mesh_peer peer, mesh_time now)
{
    serve *s = arg;
    s->routers_up -= mesh_conf_node(s->conf, peer)->role == MESH_ROUTER;
    store_database_down(s->database, peer, now);
}

static void print_stats(void *arg, mesh_buf *out)
{
    serve *s = arg;
    store_database_print_stats(s->database, out);
    mesh_link_print_stats(s->link, s->node->name, out);
}

/* ---- the loop ---- */

static mesh_ms earlier(mesh_ms a, mesh_ms b)
{
    return a < b ? a : b;
}

static bool is_inproc(const serve *s)
{
    return strncmp(s->node->endpoint, "inproc://", 9) == 0;
}

/* Over inproc all nodes stop together: the routers are drained through this store, so it goes last. */
static void check_stop(serve *s, mesh_time now)
{
    if (s->state == SERVE_RUN && mesh_loop_stopping()) {
        s->state = SERVE_GRACE;
        s->grace_until = now.mono + (is_inproc(s) ? STORE_WAIT_ROUTERS_MS : STORE_GRACE_MS);
        s->stop_at = s->grace_until + (is_inproc(s) ? STORE_GRACE_MS : STORE_STOP_MS);
        mesh_log(MESH_INFO, "store_stopping", "routers=%u", s->routers_up);
        store_core *core = store_database_core(s->database);
        if (core != NULL) {
            store_core_leave(core);
        }
    }
    if (s->state == SERVE_GRACE && (s->routers_up == 0 || now.mono >= s->grace_until)) {
        s->state = SERVE_FINISH;
    }
}

static bool is_quiet(const serve *s)
{
    const store_core *core = store_database_core(s->database);
    return core == NULL || store_core_quiet(core);
}

static mesh_ms turn(void *arg, mesh_time now)
{
    serve *s = arg;
    check_stop(s, now);
    bool more = (s->state != SERVE_FINISH || !s->alone) && mesh_link_receive(s->link, now);
    mesh_ms next = mesh_link_tick(s->link, now);
    next = earlier(next, store_database_turn(s->database, now));
    mesh_link_send(s->link, store_database_out(s->database), now);
    if (s->state == SERVE_GRACE) {
        next = earlier(next, s->grace_until);
    } else if (s->state == SERVE_FINISH) {
        next = earlier(next, s->stop_at);
        if (is_quiet(s) || now.mono >= s->stop_at) {
            mesh_loop_stop(s->loop);
        }
    }
    return more ? now.mono : next;
}

/* ---- start and stop ---- */

/* Of two stores of a shard the earlier in the node list dials. */
static void dial_peers(serve *s)
{
    mesh_peer stores[MESH_REPLICAS_MAX];
    size_t n = mesh_conf_stores(s->conf, s->node->shard, stores);
    for (size_t i = 0; i < n; i++) {
        if (stores[i] > s->self) {
            mesh_link_dial(s->link, stores[i]);
        }
    }
}

/* Returns an exit status, 0: running. A disk that is full at start is waited for like one that fills up later. */
static int start(serve *s)
{
    static const mesh_link_handler handler = {
        .message = on_message, .up = on_up, .down = on_down, .stats = print_stats
    };
    if (store_database_new(s->conf, s->self, s->loop, &s->database) != MESH_OK) {
        return 1;
    }
    int status = store_database_open(s->database, mesh_clock_now());
    if (status != 0) {
        return status;
    }
    uint64_t boot = mesh_rand_seed();
    mesh_err err = mesh_link_new(s->loop, s->conf, s->self, boot, &handler, s, &s->link);
    if (err != MESH_OK) {
        mesh_log(MESH_ERROR, "store_not_started", "error=%s", mesh_err_name(err));
        return 1;
    }
    dial_peers(s);
    mesh_log(MESH_INFO, "store_started", "version=%s endpoint=%s shard=%" PRIu32 " path=%s boot=%016" PRIx64,
             MESH_VERSION, s->node->endpoint, s->node->shard, store_database_path(s->database), boot);
    return 0;
}

int store_serve_run(const mesh_conf *conf, mesh_peer self)
{
    serve *s = mesh_alloc(sizeof *s);
    s->conf = conf;
    s->self = self;
    s->node = mesh_conf_node(conf, self);
    mesh_peer stores[MESH_REPLICAS_MAX];
    s->alone = mesh_conf_stores(conf, s->node->shard, stores) == 1;
    s->loop = mesh_loop_new(turn, s);
    int status = start(s);
    if (status == 0) {
        mesh_loop_run(s->loop);
        status = store_database_status(s->database);
        mesh_log(MESH_INFO, "store_stopped", "status=%d quiet=%d", status, is_quiet(s));
    }
    mesh_link_destroy(&s->link);
    store_database_destroy(&s->database);
    mesh_loop_destroy(&s->loop);
    free(s);
    return status;
}
