/* client/cmd_serve.c: all roles in this process, one thread each, over inproc. */
#include <errno.h>
#include <netdb.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "client/args.h"
#include "client/cmd.h"
#include "client/data.h"
#include "client/probe.h"
#include "client/roles.h"
#include "mesh/link.h"
#include "mesh/loop.h"

#define START_MS 30000
#define DRAIN_MS "1000" /* there is no other edge to go to: clients need not leave slowly */

typedef struct role_thread {
    const mesh_conf *conf;
    mesh_peer self;
    pthread_t thread;
    int code;
} role_thread;

static void *run(void *arg)
{
    role_thread *t = arg;
    const mesh_node_conf *node = mesh_conf_node(t->conf, t->self);
    mesh_log_setup(node->name, client_roles_level(t->conf));
    t->code = client_roles_run(node->role, t->conf, t->self);
    mesh_loop_stop_all(); /* one without the others is of no use */
    return NULL;
}

static void greet(const char *dir, int port, const char *program)
{
    char *ann = client_data_token(dir, "ann", NULL, "Ann", CLIENT_TOKEN_TTL_S);
    char *bob = client_data_token(dir, "bob", NULL, "Bob", CLIENT_TOKEN_TTL_S);
    printf("parley is up in this process; data in %s\n\n"
           "  open  http://127.0.0.1:%d/\n\n"
           "  ann   %s\n"
           "  bob   %s\n\n"
           "next, in other terminals:\n"
           "  %s chat --user ann --port %d --data %s\n"
           "  %s chat --user bob --port %d --data %s\n"
           "  %s replay tests/data/ubuntu-irc/2004-12-25.train-c.txt --port %d --data %s\n",
           dir, port, ann ? ann : "", bob ? bob : "", program, port, dir, program, port, dir, program, port, dir);
    fflush(stdout);
    free(ann);
    free(bob);
}

/* The edge would say so too, but only in its log, among the lines of the others as they stop. */
static bool port_is_free(const mesh_conf *conf)
{
    const char *host = mesh_conf_str(conf, "edge.host");
    const char *port = mesh_conf_str(conf, "edge.port");
    struct addrinfo hints = { .ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE | AI_NUMERICSERV };
    struct addrinfo *info = NULL;
    if (getaddrinfo(host, port, &hints, &info) != 0) {
        return true; /* not known here: the edge tells why */
    }
    int on = 1;
    int fd = socket(info->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    bool taken = fd >= 0 && setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) == 0 &&
                 bind(fd, info->ai_addr, info->ai_addrlen) != 0 && errno == EADDRINUSE;
    if (fd >= 0) {
        close(fd);
    }
    freeaddrinfo(info);
    if (taken) {
        client_args_fail("port %s is taken by another process: choose one with --port", port);
    }
    return !taken;
}

static bool await_message(const char *dir, const mesh_conf *conf)
{
    client_url url = { .host = "127.0.0.1", .port = (int)mesh_conf_int(conf, "edge.port"), .path = "/v1/ws" };
    char why[256];
    char *token = client_data_token(dir, CLIENT_PROBE_USER, NULL, NULL, 600);
    mesh_err err = token ? client_probe(&url, token, START_MS, why, sizeof why) : MESH_IO;
    free(token);
    if (token && err != MESH_OK && !mesh_loop_stopping()) {
        client_args_fail("no message came through: %s", why);
    }
    return err == MESH_OK;
}

static mesh_ms idle_turn(void *arg, mesh_time now)
{
    (void)now;
    if (mesh_loop_stopping()) {
        mesh_loop_stop(*(mesh_loop **)arg);
    }
    return MESH_NEVER;
}

static void await_stop(void)
{
    mesh_loop *loop = NULL;
    loop = mesh_loop_new(idle_turn, &loop);
    mesh_loop_run(loop);
    mesh_loop_destroy(&loop);
}

static int run_all(const char *dir, const mesh_conf *conf, const char *program)
{
    size_t n = mesh_conf_nodes(conf);
    role_thread threads[MESH_NODES_MAX];
    size_t started = 0;
    for (size_t i = 0; i < n; i++) {
        threads[i] = (role_thread){ .conf = conf, .self = (mesh_peer)i };
        if (pthread_create(&threads[i].thread, NULL, run, &threads[i]) != 0) {
            mesh_loop_stop_all();
            break;
        }
        started++;
    }
    bool up = started == n && await_message(dir, conf);
    if (up) {
        greet(dir, (int)mesh_conf_int(conf, "edge.port"), program);
        await_stop();
    }
    mesh_loop_stop_all();
    int code = up ? 0 : 1;
    for (size_t i = 0; i < started; i++) {
        pthread_join(threads[i].thread, NULL);
        code = threads[i].code ? threads[i].code : code;
    }
    return code;
}

static bool all_inproc(const mesh_conf *conf)
{
    for (size_t i = 0; i < mesh_conf_nodes(conf); i++) {
        const mesh_node_conf *node = mesh_conf_node(conf, (mesh_peer)i);
        if (node->role == MESH_OPERATOR || node->public_key[0]) {
            return false;
        }
    }
    return true;
}

static mesh_conf *prepare(const char *dir, int64_t port)
{
    char why[512];
    client_data_plan plan = { .dir = dir,
                              .edges = 1,
                              .routers = 1,
                              .shards = 1,
                              .replicas = 1,
                              .port = port ? (int)port : 8080,
                              .one_process = true };
    mesh_err err = client_data_exists(dir, "cluster.conf") ? MESH_OK : client_data_make(&plan, why, sizeof why);
    if (err != MESH_OK) {
        client_args_fail("%s", why);
        return NULL;
    }
    char *path = client_data_path(dir, "cluster.conf");
    mesh_conf *conf = client_data_conf(path);
    free(path);
    char number[24];
    snprintf(number, sizeof number, "%lld", (long long)port);
    bool ok = conf && client_roles_place(conf, dir) && mesh_conf_set(conf, "edge.drain_ms", DRAIN_MS) == MESH_OK &&
              mesh_conf_set(conf, "edge.reuse_port", "0") == MESH_OK && /* nobody else's clients */
              (port == 0 || mesh_conf_set(conf, "edge.port", number) == MESH_OK);
    if (ok && !all_inproc(conf)) {
        client_args_fail("%s is a cluster of processes: scripts/cluster.sh up --data %s runs it", dir, dir);
        ok = false;
    }
    if (!ok || !port_is_free(conf)) {
        mesh_conf_destroy(&conf);
    }
    return conf;
}

int client_cmd_serve(int argc, char **argv)
{
    const char *dir = NULL, *port = NULL;
    const client_option options[] = {
        { "data", "DIR", "everything is kept here; made at the first start", &dir },
        { "port", "PORT", "for clients and the web page (8080)", &port },
        { NULL, NULL, NULL, NULL },
    };
    const client_args args = { "parley serve --data DIR [--port PORT]",
                               "Runs an edge, a router and a store in this one process, until SIGTERM.",
                               options,
                               NULL,
                               0,
                               0 };
    int code;
    int64_t number;
    if (client_args_parse(&args, argc, argv, &code) < 0) {
        return code;
    }
    if (!dir) {
        return client_args_fail("--data is missing (usage: %s)", args.usage);
    }
    if (!client_args_int("port", port, 0, 1, 65535, &number)) {
        return CLIENT_EXIT_USAGE;
    }
    mesh_loop_signals();
    mesh_conf *conf = prepare(dir, number);
    if (!conf) {
        return 1;
    }
    char program[512];
    ssize_t n = readlink("/proc/self/exe", program, sizeof program - 1);
    program[n > 0 ? n : 0] = '\0';
    code = run_all(dir, conf, n > 0 ? program : "parley");
    mesh_link_teardown();
    mesh_conf_destroy(&conf);
    return code;
}
