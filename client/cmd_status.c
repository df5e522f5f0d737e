/* client/cmd_status.c: routers and stores are asked over node links with the operator's key; edges over HTTP. Edges
 * share a port, so whoever answers says which one it is, and asking goes on until all have, or luck has run out. */
#include <arpa/inet.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "client/args.h"
#include "client/cmd.h"
#include "client/data.h"
#include "client/metrics.h"
#include "mesh/alloc.h"
#include "mesh/link.h"
#include "mesh/log.h"
#include "mesh/rand.h"

#define ANSWER_MS 3000
#define HTTP_MS 500
#define TRIES_PER_EDGE 24
#define HTTP_MAX (1024 * 1024)

typedef struct asked {
    mesh_loop *loop;
    mesh_link *link;
    mesh_out *out;
    const mesh_conf *conf;
    mesh_ms until;
    size_t missing;
    char **texts; /* per node of the config: its metrics, NULL: no answer */
} asked;

/* ---- metrics ---- */

static void print_metrics(const mesh_node_conf *node, const char *text)
{
    static const struct {
        mesh_role role;
        const char *metric, *shown;
    } rows[] = {
        { MESH_EDGE, "parley_edge_sessions", "sessions" },
        { MESH_EDGE, "parley_edge_ring_epoch", "epoch" },
        { MESH_ROUTER, "parley_router_ring_epoch", "epoch" },
        { MESH_ROUTER, "parley_router_sessions", "sessions" },
        { MESH_ROUTER, "parley_router_inflight", "inflight" },
        { MESH_ROUTER, "parley_router_live_total", "live" },
        { MESH_STORE, "parley_store_leader", "leader" },
        { MESH_STORE, "parley_store_ring_epoch", "epoch" },
        { MESH_STORE, "parley_store_ring_routers", "routers" },
        { MESH_STORE, "parley_store_messages_total", "messages" },
        { MESH_STORE, "parley_store_outbox_items", "outbox" },
        { MESH_STORE, "parley_store_kv_syncs_total", "syncs" },
    };
    if (node->role == MESH_STORE) {
        printf("  shard %u", node->shard);
    }
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        if (rows[i].role == node->role) {
            printf("  %s %" PRIu64, rows[i].shown, client_metrics_sum(text, rows[i].metric, NULL));
        }
    }
}

/* ---- links ---- */

static void on_message(void *arg, mesh_peer from, const Mesh__Msg *msg, mesh_slice packed, mesh_time now)
{
    (void)packed;
    (void)now;
    asked *a = arg;
    if (msg->body_case == MESH__MSG__BODY_STATS_TEXT && !a->texts[from]) {
        a->texts[from] = mesh_strdup(msg->stats_text->text);
        a->missing--;
    }
}

static void on_up(void *arg, mesh_peer peer, uint64_t boot, mesh_time now)
{
    (void)boot;
    (void)now;
    asked *a = arg;
    Mesh__Stats stats = MESH__STATS__INIT;
    MESH_MSG(msg, STATS, stats, &stats);
    msg.corr = 1u + peer;
    mesh_out_put(a->out, peer, &msg);
}

static void on_down(void *arg, mesh_peer peer, mesh_time now)
{
    (void)arg;
    (void)peer;
    (void)now;
}

static mesh_ms turn(void *arg, mesh_time now)
{
    asked *a = arg;
    bool more = mesh_link_receive(a->link, now);
    mesh_link_send(a->link, a->out, now);
    mesh_ms next = mesh_link_tick(a->link, now);
    if (a->missing == 0 || now.mono >= a->until || mesh_loop_stopping()) {
        mesh_loop_stop(a->loop);
    }
    next = next < a->until ? next : a->until;
    return more ? now.mono : next;
}

static bool ask_links(asked *a, mesh_peer self)
{
    static const mesh_link_handler handler = { on_message, on_up, on_down, NULL };
    a->out = mesh_out_new(mesh_conf_nodes(a->conf));
    a->loop = mesh_loop_new(turn, a);
    a->until = mesh_clock_now().mono + ANSWER_MS;
    bool ok = mesh_link_new(a->loop, a->conf, self, mesh_rand_seed(), &handler, a, &a->link) == MESH_OK;
    if (ok) {
        for (size_t i = 0; i < mesh_conf_nodes(a->conf); i++) {
            mesh_role role = mesh_conf_node(a->conf, (mesh_peer)i)->role;
            if (role == MESH_ROUTER || role == MESH_STORE) {
                a->missing++;
                mesh_link_dial(a->link, (mesh_peer)i);
            }
        }
        mesh_loop_run(a->loop);
        mesh_link_destroy(&a->link);
    }
    mesh_loop_destroy(&a->loop);
    mesh_out_destroy(&a->out);
    return ok;
}

static bool ask_nodes(asked *a, const char *dir)
{
    mesh_peer self = mesh_conf_find(a->conf, "operator");
    if (self == MESH_NO_PEER || mesh_conf_node(a->conf, self)->role != MESH_OPERATOR) {
        return true; /* all in one process: the edge is all that can be reached */
    }
    char *keys = client_data_path(dir, "keys");
    mesh_err err = mesh_link_setup(a->conf, keys);
    bool ok = err == MESH_OK && ask_links(a, self);
    if (err == MESH_OK) {
        mesh_link_teardown();
    }
    free(keys);
    return ok;
}

/* ---- edges ---- */

static bool http_read(int fd, mesh_buf *out)
{
    static const char request[] = "GET /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n";
    if (send(fd, request, sizeof request - 1, MSG_NOSIGNAL) != (ssize_t)sizeof request - 1) {
        return false;
    }
    ssize_t n;
    do {
        n = recv(fd, mesh_buf_grow(out, 16384), 16384, 0);
        out->size -= 16384 - (n > 0 ? (size_t)n : 0);
    } while (n > 0 && out->size < HTTP_MAX);
    mesh_buf_put(out, "", 1);
    return n == 0 && strncmp((const char *)out->data, "HTTP/1.1 200", 12) == 0;
}

static bool http_metrics(int port, mesh_buf *out)
{
    struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons((uint16_t)port) };
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    struct timeval limit = { 0, HTTP_MS * 1000 };
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    bool ok = fd >= 0 && setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit) == 0 &&
              setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit) == 0 &&
              connect(fd, (struct sockaddr *)&to, sizeof to) == 0 && http_read(fd, out);
    if (fd >= 0) {
        close(fd);
    }
    return ok;
}

/* What stands below an answer's head; an edge closes after it, so it is neither chunked nor cut. */
static const char *http_body(const mesh_buf *answer)
{
    const char *end = strstr((const char *)answer->data, "\r\n\r\n");
    return end ? end + 4 : "";
}

static mesh_peer who_answered(const mesh_conf *conf, const char *text)
{
    char name[MESH_NODE_NAME_MAX + 1];
    const char *label = strstr(text, "node=\"");
    return label && sscanf(label, "node=\"%32[a-z0-9-]", name) == 1 ? mesh_conf_find(conf, name) : MESH_NO_PEER;
}

static void ask_edges(asked *a)
{
    size_t edges = 0;
    for (size_t i = 0; i < mesh_conf_nodes(a->conf); i++) {
        edges += mesh_conf_node(a->conf, (mesh_peer)i)->role == MESH_EDGE;
    }
    int port = (int)mesh_conf_int(a->conf, "edge.port");
    size_t seen = 0;
    for (size_t i = 0; i < edges * TRIES_PER_EDGE && seen < edges; i++) {
        mesh_buf text = { 0 };
        bool ok = http_metrics(port, &text);
        mesh_peer peer = ok ? who_answered(a->conf, http_body(&text)) : MESH_NO_PEER;
        if (peer != MESH_NO_PEER && !a->texts[peer]) {
            a->texts[peer] = mesh_strdup(http_body(&text));
            seen++;
        }
        mesh_buf_fini(&text);
        if (!ok) {
            return;
        }
    }
}

/* ---- the command ---- */

static int print_all(const asked *a)
{
    int down = 0;
    bool remote = mesh_conf_find(a->conf, "operator") != MESH_NO_PEER;
    for (size_t i = 0; i < mesh_conf_nodes(a->conf); i++) {
        const mesh_node_conf *node = mesh_conf_node(a->conf, (mesh_peer)i);
        if (node->role == MESH_OPERATOR || (!remote && node->role != MESH_EDGE)) {
            continue;
        }
        printf("%-10s %-7s %s", node->name, mesh_role_name(node->role), a->texts[i] ? "up  " : "down");
        if (a->texts[i]) {
            print_metrics(node, a->texts[i]);
        } else {
            down++;
        }
        putchar('\n');
    }
    return down ? 1 : 0;
}

/* One block per node, each Prometheus text of its own. */
static void print_raw(const asked *a)
{
    for (size_t i = 0; i < mesh_conf_nodes(a->conf); i++) {
        if (a->texts[i]) {
            printf("# node %s\n%s", mesh_conf_node(a->conf, (mesh_peer)i)->name, a->texts[i]);
        }
    }
}

int client_cmd_status(int argc, char **argv)
{
    const char *dir = "data", *raw = NULL;
    const client_option options[] = {
        { "data", "DIR", "the cluster's directory (data)", &dir },
        { "metrics", NULL, "print every metric instead, a block of Prometheus text per node", &raw },
        { NULL, NULL, NULL, NULL },
    };
    const client_args args = { "parley status [options]",
                               "One line per node: is it up, and its main figures. Exit status 1 when one is down.",
                               options,
                               NULL,
                               0,
                               0 };
    int code;
    if (client_args_parse(&args, argc, argv, &code) < 0) {
        return code;
    }
    char *path = client_data_path(dir, "cluster.conf");
    mesh_conf *conf = client_data_conf(path);
    free(path);
    if (!conf) {
        return 1;
    }
    mesh_log_setup("status", MESH_ERROR);
    mesh_loop_signals();
    asked a = { .conf = conf };
    a.texts = mesh_alloc(mesh_conf_nodes(conf) * sizeof *a.texts + 1);
    code = 1;
    if (ask_nodes(&a, dir)) {
        ask_edges(&a);
        if (raw) {
            print_raw(&a);
            code = 0;
        } else {
            code = print_all(&a);
        }
    } else {
        client_args_fail("the links cannot be set up with the keys in %s/keys", dir);
    }
    for (size_t i = 0; i < mesh_conf_nodes(conf); i++) {
        free(a.texts[i]);
    }
    free(a.texts);
    mesh_conf_destroy(&conf);
    return code;
}
