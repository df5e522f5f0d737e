/* client/cmd_status.c: the nodes are asked over node links with the operator's key; edges that no router told of, over
 * HTTP. Edges share a port, so whoever answers says which one it is, and asking goes on until all have, or luck has run
 * out. */
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
#include "client/operator.h"
#include "mesh/alloc.h"
#include "mesh/loop.h"

#define HTTP_MS 500
#define TRIES_PER_EDGE 24
#define HTTP_MAX (1024 * 1024)

typedef struct asked {
    const mesh_conf *conf;
    bool remote;        /* nodes are processes of their own; otherwise the edge is all that can be reached */
    const char **texts; /* per node of the config: its metrics, NULL: no answer; borrowed */
    char **http;        /* what was asked over HTTP */
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
    size_t missing = 0;
    for (size_t i = 0; i < mesh_conf_nodes(a->conf); i++) {
        missing += mesh_conf_node(a->conf, (mesh_peer)i)->role == MESH_EDGE && a->texts[i] == NULL;
    }
    int port = (int)mesh_conf_int(a->conf, "edge.port");
    bool ok = true;
    for (size_t tries = missing * TRIES_PER_EDGE; ok && tries > 0 && missing > 0; tries--) {
        mesh_buf text = { 0 };
        ok = http_metrics(port, &text);
        mesh_peer peer = ok ? who_answered(a->conf, http_body(&text)) : MESH_NO_PEER;
        if (peer != MESH_NO_PEER && a->texts[peer] == NULL) {
            a->texts[peer] = a->http[peer] = mesh_strdup(http_body(&text));
            missing--;
        }
        mesh_buf_fini(&text);
    }
}

/* ---- the command ---- */

static int print_all(const asked *a)
{
    int down = 0;
    for (size_t i = 0; i < mesh_conf_nodes(a->conf); i++) {
        const mesh_node_conf *node = mesh_conf_node(a->conf, (mesh_peer)i);
        if (node->role == MESH_OPERATOR || (!a->remote && node->role != MESH_EDGE)) {
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

static int ask_and_print(const mesh_conf *conf, client_operator *op, bool raw)
{
    size_t n = mesh_conf_nodes(conf);
    asked a = { .conf = conf, .remote = op != NULL };
    a.texts = mesh_alloc(n * sizeof *a.texts + 1);
    a.http = mesh_alloc(n * sizeof *a.http + 1);
    if (op != NULL) {
        memcpy(a.texts, client_operator_look(op), n * sizeof *a.texts);
    }
    ask_edges(&a);
    int code = 0;
    if (raw) {
        print_raw(&a);
    } else {
        code = print_all(&a);
    }
    for (size_t i = 0; i < n; i++) {
        free(a.http[i]);
    }
    free(a.http);
    free(a.texts);
    return code;
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
    bool remote = mesh_conf_find(conf, "operator") != MESH_NO_PEER;
    client_operator *op = remote ? client_operator_open(dir) : NULL;
    mesh_loop_signals();
    code = remote && op == NULL ? 1 : ask_and_print(conf, op, raw != NULL);
    client_operator_close(&op);
    mesh_conf_destroy(&conf);
    return code;
}
