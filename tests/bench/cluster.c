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
    unsigned shard;
    (void)snprintf(command, sizeof command, "%s/parley config nodes %s/cluster.conf", c->options->build, c->dir);
    FILE *list = popen(command, "re");
    char line[256];
    while (list != NULL && fgets(line, sizeof line, list) != NULL) {
        shard = 0;
        if (sscanf(line, "%32s %15s %*s %u", name, role, &shard) >= 2 && strcmp(role, "operator") != 0) {
            if (c->n == BENCH_NODES) {
                die("too many nodes");
            }
            c->nodes[c->n].shard = shard;
            memcpy(c->nodes[c->n].name, name, sizeof name);
            memcpy(c->nodes[c->n++].role, role, sizeof role);
        }
    }
    if (list == NULL || pclose(list) != 0) {
        die(command);
    }
}

void cluster_kill(cluster *c, unsigned node)
{
    int status;
    kill(c->nodes[node].pid, SIGKILL);
    waitpid(c->nodes[node].pid, &status, 0);
    c->nodes[node].pid = 0;
}

void cluster_wipe(cluster *c, unsigned node)
{
    char command[256];
    (void)snprintf(command, sizeof command, "rm -r %s/%s", c->dir, c->nodes[node].name);
    shell(command);
}

void cluster_run(cluster *c, unsigned node)
{
    c->nodes[node].pid = spawn(c, c->nodes[node].role, c->nodes[node].name);
}

static void wait_until_whole(const cluster *c)
{
    cluster_progress progress = { 0 };
    for (int tries = 0; !cluster_is_whole(c, &progress); tries++) {
        if (tries == 100) {
            die("the cluster does not become whole");
        }
        (void)usleep(100000);
    }
}

static void init(cluster *c)
{
    char command[512];
    (void)snprintf(c->dir, sizeof c->dir, "/tmp/parley-bench-XXXXXX");
    if (mkdtemp(c->dir) == NULL) {
        die("no directory in /tmp");
    }
    (void)snprintf(command, sizeof command,
                   "%s/parley init --data %s/d --edges %u --routers %u --shards %u --replicas %u --port %u >/dev/null",
                   c->options->build, c->dir, c->plan.edges, c->plan.routers, c->plan.shards, c->plan.replicas,
                   c->port);
    shell(command);
    (void)snprintf(c->dir + strlen(c->dir), 3, "/d");
    list_nodes(c);
}

static void run_role(cluster *c, const char *role)
{
    for (unsigned i = 0; i < c->n; i++) {
        if (strcmp(c->nodes[i].role, role) == 0) {
            cluster_run(c, i);
        }
    }
}

void cluster_start_stores(cluster *c, const bench_options *options, const cluster_plan *plan)
{
    *c = (cluster){ .options = options, .port = free_port(), .plan = *plan };
    init(c);
    /* one session may send as much as it can: what is measured is not the limit */
    setenv("PARLEY_EDGE_RATE", "1000000", 1);
    setenv("PARLEY_EDGE_BURST", "1000000", 1);
    run_role(c, "store");
}

void cluster_start_as(cluster *c, const bench_options *options, const cluster_plan *plan)
{
    cluster_start_stores(c, options, plan);
    run_role(c, "router");
    run_role(c, "edge");
    char key[160], command[512];
    (void)snprintf(key, sizeof key, "%s/token.key", c->dir);
    if (client_data_token_key(key, &c->token_key) != MESH_OK) {
        die("no token key");
    }
    (void)snprintf(command, sizeof command, "%s/parley wait --data %s --port %u >/dev/null", options->build, c->dir,
                   c->port);
    shell(command);
    wait_until_whole(c);
}

void cluster_start(cluster *c, const bench_options *options, unsigned edges)
{
    const cluster_plan plan = { .edges = edges, .routers = 1, .shards = 1, .replicas = 1 };
    cluster_start_as(c, options, &plan);
}

void cluster_stop(cluster *c)
{
    static const char *const order[] = { "edge", "router", "store" };
    for (size_t r = 0; r < 3; r++) {
        for (unsigned i = 0; i < c->n; i++) {
            if (strcmp(c->nodes[i].role, order[r]) == 0 && c->nodes[i].pid > 0) {
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
