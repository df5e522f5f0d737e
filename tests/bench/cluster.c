/* A cluster to measure: real processes, as scripts/cluster.sh starts them, in a directory of their own. */
#include <arpa/inet.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "client/data.h"
#include "mesh/link.h"
#include "mesh/rand.h"
#include "tests/bench/bench.h"

#define PORT_OF_ROUTERS 1000 /* `parley init` puts the nodes' ports this far above the edges' */

static void die(const char *what)
{
    fprintf(stderr, "bench: %s\n", what);
    exit(1);
}

static void shell(const char *command)
{
    if (system(command) != 0) {
        die(command);
    }
}

static bool port_is_free(uint16_t port)
{
    struct sockaddr_in a = { .sin_family = AF_INET,
                             .sin_port = htons(port),
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    bool is = fd >= 0 && bind(fd, (struct sockaddr *)&a, sizeof a) == 0;
    if (fd >= 0) {
        close(fd);
    }
    return is;
}

static uint16_t free_port(void)
{
    mesh_rand r = { mesh_rand_seed() };
    for (;;) {
        uint16_t port = (uint16_t)(20000 + mesh_rand_below(&r, 8000));
        bool is = port_is_free(port);
        for (uint16_t i = 0; i < BENCH_NODES && is; i++) {
            is = port_is_free((uint16_t)(port + PORT_OF_ROUTERS + i));
        }
        if (is) {
            return port;
        }
    }
}

static pid_t spawn(const cluster *c, const char *role, const char *name)
{
    char program[256], conf[128], keys[128], log[160];
    (void)snprintf(program, sizeof program, "%s/parley", c->options->build);
    (void)snprintf(conf, sizeof conf, "%s/cluster.conf", c->dir);
    (void)snprintf(keys, sizeof keys, "%s/keys", c->dir);
    (void)snprintf(log, sizeof log, "%s/%s.log", c->dir, name);
    pid_t pid = fork();
    if (pid < 0) {
        die("fork");
    }
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGTERM);
        int fd = open(log, O_WRONLY | O_CREAT | O_APPEND, 0600);
        if (fd < 0 || dup2(fd, 1) < 0 || dup2(fd, 2) < 0) {
            _exit(1);
        }
        execl(program, program, role, "--conf", conf, "--keys", keys, "--node", name, "--data", c->dir, (char *)NULL);
        _exit(127);
    }
    return pid;
}

static void list_nodes(cluster *c)
{
    char command[256], name[33], role[16];
    (void)snprintf(command, sizeof command, "%s/parley config nodes %s/cluster.conf", c->options->build, c->dir);
    FILE *list = popen(command, "re");
    char line[256];
    while (list != NULL && fgets(line, sizeof line, list) != NULL) {
        if (sscanf(line, "%32s %15s", name, role) == 2 && strcmp(role, "operator") != 0 && c->n < BENCH_NODES) {
            memcpy(c->nodes[c->n].name, name, sizeof name);
            memcpy(c->nodes[c->n++].role, role, sizeof role);
        }
    }
    if (list == NULL || pclose(list) != 0) {
        die(command);
    }
}

void cluster_start(cluster *c, const bench_options *options, unsigned edges)
{
    static const char *const order[] = { "store", "router", "edge" };
    *c = (cluster){ .options = options, .port = free_port() };
    (void)snprintf(c->dir, sizeof c->dir, "/tmp/parley-bench-XXXXXX");
    if (mkdtemp(c->dir) == NULL) {
        die("no directory in /tmp");
    }
    char command[512];
    (void)snprintf(command, sizeof command, "%s/parley init --data %s/d --edges %u --routers 1 --port %u >/dev/null",
                   options->build, c->dir, edges, c->port);
    shell(command);
    (void)snprintf(c->dir + strlen(c->dir), 3, "/d");
    /* one session may send as much as it can: what is measured is not the limit */
    setenv("PARLEY_EDGE_RATE", "1000000", 1);
    setenv("PARLEY_EDGE_BURST", "1000000", 1);
    list_nodes(c);
    for (size_t r = 0; r < 3; r++) {
        for (unsigned i = 0; i < c->n; i++) {
            if (strcmp(c->nodes[i].role, order[r]) == 0) {
                c->nodes[i].pid = spawn(c, order[r], c->nodes[i].name);
            }
        }
    }
    char key[160];
    (void)snprintf(key, sizeof key, "%s/token.key", c->dir);
    if (client_data_token_key(key, &c->token_key) != MESH_OK) {
        die("no token key");
    }
    (void)snprintf(command, sizeof command, "%s/parley wait --data %s --port %u >/dev/null", options->build, c->dir,
                   c->port);
    shell(command);
}

void cluster_stop(cluster *c)
{
    static const char *const order[] = { "edge", "router", "store" };
    for (size_t r = 0; r < 3; r++) {
        for (unsigned i = 0; i < c->n; i++) {
            if (strcmp(c->nodes[i].role, order[r]) == 0) {
                int status;
                kill(c->nodes[i].pid, r == 0 ? SIGKILL : SIGTERM); /* an edge would wait for its clients to go */
                waitpid(c->nodes[i].pid, &status, 0);
            }
        }
    }
    char command[128];
    if (getenv("BENCH_KEEP") == NULL) {
        c->dir[strlen(c->dir) - 2] = '\0';
        (void)snprintf(command, sizeof command, "rm -rf %s", c->dir);
        shell(command);
    }
    mesh_buf_fini(&c->token_key);
}

driver *cluster_driver(const cluster *c, const char *prefix, unsigned clients)
{
    return driver_new(c->port, mesh_buf_slice(&c->token_key), prefix, clients);
}

/* ---- what the store counts ---- */

typedef struct asked {
    mesh_loop *loop;
    mesh_link *link;
    mesh_out *out;
    mesh_peer store;
    mesh_ms until;
    cluster_store_counts counts;
    bool answered;
} asked;

static uint64_t metric(const char *text, const char *name)
{
    uint64_t sum = 0;
    size_t n = strlen(name);
    for (const char *line = text; line != NULL; line = strchr(line, '\n'), line += line != NULL) {
        if (strncmp(line, name, n) == 0 && line[n] == '{') {
            const char *end = strchr(line, '}');
            sum += end != NULL ? strtoull(end + 1, NULL, 10) : 0;
        }
    }
    return sum;
}

static void on_message(void *arg, mesh_peer from, const Mesh__Msg *msg, mesh_slice packed, mesh_time now)
{
    (void)packed;
    (void)now;
    asked *a = arg;
    if (msg->body_case == MESH__MSG__BODY_STATS_TEXT && from == a->store) {
        const char *text = msg->stats_text->text;
        a->counts = (cluster_store_counts){
            .messages = metric(text, "parley_store_messages_total"),
            .rows = metric(text, "parley_store_kv_rows_total"),
            .row_bytes = metric(text, "parley_store_kv_bytes_total"),
            .syncs = metric(text, "parley_store_kv_syncs_total"),
            .entries = metric(text, "parley_store_entries_total"),
            .appends = metric(text, "parley_store_appends_total"),
            .acks = metric(text, "parley_store_acks_total"),
            .trimmed = metric(text, "parley_store_trimmed_total"),
            .resent = metric(text, "parley_store_parcels_resent_total"),
        };
        a->answered = true;
    }
}

static void on_up(void *arg, mesh_peer peer, uint64_t boot, mesh_time now)
{
    (void)boot;
    (void)now;
    asked *a = arg;
    Mesh__Stats stats = MESH__STATS__INIT;
    MESH_MSG(msg, STATS, stats, &stats);
    msg.corr = 1;
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
    if (a->answered || now.mono >= a->until) {
        mesh_loop_stop(a->loop);
    }
    return more ? now.mono : (next < a->until ? next : a->until);
}

cluster_store_counts cluster_store_counted(const cluster *c)
{
    static const mesh_link_handler handler = { on_message, on_up, on_down, NULL };
    char path[128], keys[128];
    (void)snprintf(path, sizeof path, "%s/cluster.conf", c->dir);
    (void)snprintf(keys, sizeof keys, "%s/keys", c->dir);
    mesh_conf *conf = client_data_conf(path);
    if (conf == NULL || mesh_link_setup(conf, keys) != MESH_OK) {
        die("cannot ask the store");
    }
    asked a = { .until = mesh_clock_now().mono + 10000 };
    for (unsigned i = 0; i < c->n; i++) {
        if (strcmp(c->nodes[i].role, "store") == 0) {
            a.store = mesh_conf_find(conf, c->nodes[i].name);
        }
    }
    a.out = mesh_out_new(mesh_conf_nodes(conf));
    a.loop = mesh_loop_new(turn, &a);
    if (mesh_link_new(a.loop, conf, mesh_conf_find(conf, "operator"), mesh_rand_seed(), &handler, &a, &a.link) !=
        MESH_OK) {
        die("cannot ask the store");
    }
    mesh_link_dial(a.link, a.store);
    mesh_loop_run(a.loop);
    mesh_link_destroy(&a.link);
    mesh_loop_destroy(&a.loop);
    mesh_out_destroy(&a.out);
    mesh_link_teardown();
    mesh_conf_destroy(&conf);
    if (!a.answered) {
        die("the store does not answer");
    }
    return a.counts;
}

/* ---- what the kernel counts ---- */

uint64_t cluster_rss(const cluster *c, const char *role)
{
    uint64_t sum = 0;
    for (unsigned i = 0; i < c->n; i++) {
        char path[64], line[256];
        unsigned long long kib;
        (void)snprintf(path, sizeof path, "/proc/%d/status", (int)c->nodes[i].pid);
        FILE *f = strcmp(c->nodes[i].role, role) == 0 ? fopen(path, "re") : NULL;
        while (f != NULL && fgets(line, sizeof line, f) != NULL) {
            if (sscanf(line, "VmRSS: %llu kB", &kib) == 1) {
                sum += kib * 1024;
            }
        }
        if (f != NULL) {
            (void)fclose(f);
        }
    }
    return sum;
}

double cluster_cpu(const cluster *c, const char *role)
{
    double sum = 0;
    for (unsigned i = 0; i < c->n; i++) {
        char path[64];
        unsigned long long user = 0, system_ = 0;
        (void)snprintf(path, sizeof path, "/proc/%d/stat", (int)c->nodes[i].pid);
        FILE *f = strcmp(c->nodes[i].role, role) == 0 ? fopen(path, "re") : NULL;
        if (f != NULL) {
            if (fscanf(f, "%*d (%*[^)]) %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %llu %llu", &user, &system_) == 2) {
                sum += (double)(user + system_) / (double)sysconf(_SC_CLK_TCK);
            }
            (void)fclose(f);
        }
    }
    return sum;
}
