/* One turn: what came over the links -> the core's time -> what clients shall get, written at once -> what the mesh
 * shall get. Sockets were read before, in the poll; so all that happened since the last turn leaves in one frame per
 * peer. */
#include "edge/serve.h"

#include <ctype.h>
#include <fcntl.h>
#include <sodium.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "edge/listener.h"
#include "edge/ws.h"
#include "mesh/fault.h"
#include "mesh/link.h"
#include "mesh/log.h"
#include "mesh/rand.h"

#define FILES_MAX 1000000 /* libwebsockets' tables have a row for each possible descriptor, and break above 10 M */
#define SPARE_FILES 900   /* or a tenth, if that is less: for links, and for the store when it is in this process */

typedef enum serve_state { SERVE_RUN, SERVE_DRAIN, SERVE_STOPPED } serve_state;

typedef struct serve {
    const mesh_conf *conf;
    const char *name;
    serve_state state;
    mesh_ms stop_at;
    mesh_buf token_key;
    mesh_loop *loop;
    mesh_link *link;
    mesh_out *out;
    edge_core *core;
    edge_http *http;
    edge_listener *listener;
    edge_ws *ws;
} serve;

/* ---- between link and core ---- */

/* An operator's order, handed on by a router. */
static void operate(serve *s, mesh_peer from, const Mesh__Msg *msg)
{
    bool drain = msg->operate->op == MESH__OPERATE_OP__OPERATE_DRAIN && strcmp(msg->operate->node, s->name) == 0;
    Mesh__Done done = MESH__DONE__INIT;
    Mesh__Fault fault = MESH__FAULT__INIT;
    fault.code = FAULT_UNKNOWN_TYPE;
    MESH_MSG(yes, DONE, done, &done);
    MESH_MSG(no, FAULT, fault, &fault);
    Mesh__Msg *answer = drain ? &yes : &no;
    answer->corr = msg->corr;
    mesh_out_put(s->out, from, answer);
    if (drain) {
        mesh_log(MESH_INFO, "drained_by", "way=%s", mesh_conf_node(s->conf, from)->name);
        mesh_loop_stop_all();
    }
}

static void on_message(void *arg, mesh_peer from, const Mesh__Msg *msg, mesh_slice packed, mesh_time now)
{
    serve *s = arg;
    if (msg->body_case == MESH__MSG__BODY_OPERATE) {
        operate(s, from, msg);
        return;
    }
    edge_core_message(s->core, from, msg, packed, now, s->out);
}

static void on_up(void *arg, mesh_peer peer, uint64_t boot, mesh_time now)
{
    serve *s = arg;
    edge_core_up(s->core, peer, boot, now, s->out);
}

static void on_down(void *arg, mesh_peer peer, mesh_time now)
{
    serve *s = arg;
    edge_core_down(s->core, peer, now, s->out);
}

static void print_stats(void *arg, mesh_buf *out)
{
    serve *s = arg;
    mesh_stats_print(edge_core_stats(s->core), s->name, out);
    edge_ws_print_stats(s->ws, s->name, out);
    edge_listener_print_stats(s->listener, s->name, out);
    mesh_link_print_stats(s->link, s->name, out);
}

/* ---- between sockets and core ---- */

static mesh_err on_open(void *arg, const edge_head *head, edge_session_id *session_p)
{
    serve *s = arg;
    char token[EDGE_HEAD_TOKEN_MAX + 1];
    memcpy(token, head->token.size > 0 ? (const char *)head->token.data : "", head->token.size);
    token[head->token.size] = '\0';
    mesh_err err =
        edge_core_open(s->core, head->kind, head->token.size > 0 ? token : NULL, mesh_clock_now(), session_p);
    sodium_memzero(token, sizeof token);
    return err;
}

static void on_adopt(void *arg, edge_session_id session, edge_codec_kind kind, int fd, edge_address *address,
                     mesh_slice request)
{
    serve *s = arg;
    edge_ws_adopt(s->ws, session, kind, fd, address, request);
}

static void on_release(void *arg, edge_address *address)
{
    serve *s = arg;
    edge_listener_release(s->listener, address);
}

/* ---- the loop ---- */

static mesh_ms earlier(mesh_ms a, mesh_ms b)
{
    return a < b ? a : b;
}

static void start_drain(serve *s, mesh_time now)
{
    mesh_log(MESH_INFO, "edge_draining", "sockets=%zu sessions=%zu", edge_ws_sockets(s->ws),
             edge_core_sessions(s->core));
    s->state = SERVE_DRAIN;
    s->stop_at = now.mono + EDGE_STOP_MS;
    edge_listener_stop(s->listener);
    edge_core_drain(s->core, now);
}

static mesh_ms turn(void *arg, mesh_time now)
{
    serve *s = arg;
    if (s->state == SERVE_STOPPED) { /* the loop only turns to let go of things */
        return MESH_NEVER;
    }
    if (s->state == SERVE_RUN && mesh_loop_stopping()) {
        start_drain(s, now);
    }
    bool more = mesh_link_receive(s->link, now);
    mesh_ms next = edge_core_turn(s->core, now, s->out);
    edge_ws_flush(s->ws, now);
    mesh_link_send(s->link, s->out, now);
    edge_ws_resume(s->ws);
    next = earlier(next, mesh_link_tick(s->link, now));
    next = earlier(next, edge_listener_tick(s->listener, now.mono));
    next = earlier(next, edge_ws_tick(s->ws, now));
    if (s->state == SERVE_DRAIN) {
        if (edge_ws_sockets(s->ws) == 0 || now.mono >= s->stop_at) {
            s->state = SERVE_STOPPED;
            mesh_loop_stop(s->loop);
        }
        next = earlier(next, s->stop_at);
    }
    return more ? now.mono : next;
}

/* ---- start and stop ---- */

static size_t raise_file_limit(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0) {
        return 1024;
    }
    rlim_t wanted = limit.rlim_max < FILES_MAX ? limit.rlim_max : FILES_MAX;
    if (limit.rlim_cur != wanted) {
        struct rlimit raised = { .rlim_cur = wanted, .rlim_max = limit.rlim_max };
        wanted = setrlimit(RLIMIT_NOFILE, &raised) == 0 ? wanted : limit.rlim_cur;
    }
    return (size_t)wanted;
}

static size_t max_sockets(const mesh_conf *conf, size_t files)
{
    size_t spare = files / 10 < SPARE_FILES ? files / 10 : SPARE_FILES;
    size_t configured = (size_t)mesh_conf_int(conf, "edge.max_sockets");
    return configured < files - spare ? configured : files - spare;
}

static mesh_err read_token_key(const char *path, mesh_buf *key)
{
    uint8_t bytes[4096];
    struct stat st;
    int fd = path[0] != '\0' ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    ssize_t n = fd >= 0 ? read(fd, bytes, sizeof bytes) : -1;
    if (fd >= 0) {
        if (fstat(fd, &st) == 0 && (st.st_mode & 077) != 0) {
            mesh_log(MESH_WARN, "token_key_open_to_others", "file=%s", path);
        }
        close(fd);
    }
    while (n > 0 && isspace(bytes[n - 1])) {
        n--;
    }
    if (n < EDGE_TOKEN_KEY_MIN) {
        mesh_log(MESH_ERROR, "token_key_refused", "file=%s error=%s setting=%s", path,
                 n < 0 ? "cannot be read" : "shorter than 32 bytes", "edge.token_key_file");
        return n < 0 ? MESH_IO : MESH_MALFORMED;
    }
    mesh_buf_put(key, bytes, (size_t)n);
    sodium_memzero(bytes, sizeof bytes);
    return MESH_OK;
}

static mesh_err start_http(serve *s)
{
    const char *web_dir = mesh_conf_str(s->conf, "edge.web_dir");
    mesh_err err = edge_http_new(web_dir, &s->http);
    if (err == MESH_IO) { /* chats matter more than their page */
        mesh_log(MESH_WARN, "web_dir_unreadable", "dir=%s", web_dir);
        err = edge_http_new("", &s->http);
    }
    return err;
}

static mesh_err start_sockets(serve *s)
{
    static const edge_caller_handler handler = { .open = on_open, .adopt = on_adopt, .metrics = print_stats };
    uv_loop_t *uv = mesh_loop_uv(s->loop);
    size_t files = raise_file_limit();
    edge_ws_conf ws_conf = { .uv = uv, .core = s->core, .out = s->out, .release = on_release, .release_arg = s };
    edge_listener_conf conf = { .uv = uv,
                                .host = mesh_conf_str(s->conf, "edge.host"),
                                .port = (int)mesh_conf_int(s->conf, "edge.port"),
                                .reuse_port = mesh_conf_int(s->conf, "edge.reuse_port") != 0,
                                .max_sockets = max_sockets(s->conf, files),
                                .max_per_address = (size_t)mesh_conf_int(s->conf, "edge.max_sockets_per_address"),
                                .origins = mesh_conf_str(s->conf, "edge.origins"),
                                .http = s->http };
    mesh_err err = edge_ws_new(&ws_conf, &s->ws);
    if (err == MESH_OK) {
        err = edge_listener_new(&conf, &handler, s, &s->listener);
    }
    if (err == MESH_OK) {
        char url[192];
        snprintf(url, sizeof url, strchr(conf.host, ':') ? "http://[%s]:%d/" : "http://%s:%d/", conf.host,
                 edge_listener_port(s->listener));
        mesh_log(MESH_INFO, "edge_started", "url=%s max_sockets=%zu files=%zu", url, conf.max_sockets,
                 edge_http_files(s->http));
    }
    return err;
}

static mesh_err start(serve *s, mesh_peer self)
{
    static const mesh_link_handler handler = {
        .message = on_message, .up = on_up, .down = on_down, .stats = print_stats
    };
    mesh_err err = read_token_key(mesh_conf_str(s->conf, "edge.token_key_file"), &s->token_key);
    if (err == MESH_OK) {
        err = start_http(s);
    }
    if (err != MESH_OK) {
        return err;
    }
    s->out = mesh_out_new(mesh_conf_nodes(s->conf));
    s->loop = mesh_loop_new(turn, s);
    edge_core_conf core_conf = {
        .conf = s->conf, .self = self, .seed = mesh_rand_seed(), .token_key = mesh_buf_slice(&s->token_key)
    };
    s->core = edge_core_new(&core_conf, mesh_clock_now());
    err = mesh_link_new(s->loop, s->conf, self, mesh_rand_seed(), &handler, s, &s->link);
    if (err == MESH_OK) {
        err = start_sockets(s);
    }
    for (mesh_peer peer = 0; err == MESH_OK && peer < mesh_conf_nodes(s->conf); peer++) {
        if (mesh_conf_node(s->conf, peer)->role == MESH_ROUTER) {
            mesh_link_dial(s->link, peer);
        }
    }
    return err;
}

static void stop(serve *s)
{
    s->state = SERVE_STOPPED;
    if (s->core) {
        edge_ws_destroy(&s->ws); /* sockets go first: they belong to the core and to the listener's count */
        edge_listener_destroy(&s->listener);
        if (s->link) {
            mesh_link_send(s->link, s->out, mesh_clock_now());
            mesh_link_destroy(&s->link);
        }
        edge_core_destroy(&s->core);
        mesh_loop_destroy(&s->loop);
        mesh_out_destroy(&s->out);
    }
    edge_http_destroy(&s->http);
    if (s->token_key.size > 0) {
        sodium_memzero(s->token_key.data, s->token_key.size);
    }
    mesh_buf_fini(&s->token_key);
}

int edge_serve_run(const mesh_conf *conf, mesh_peer self)
{
    serve s = { .conf = conf, .name = mesh_conf_node(conf, self)->name, .state = SERVE_RUN };
    mesh_err err = start(&s, self);
    if (err == MESH_OK) {
        mesh_loop_run(s.loop);
        mesh_log(MESH_INFO, "edge_stopped", "sockets=%zu", edge_ws_sockets(s.ws));
    } else {
        mesh_log(MESH_ERROR, "edge_not_started", "error=%s", mesh_err_name(err));
    }
    stop(&s);
    return err == MESH_OK ? 0 : 1;
}
