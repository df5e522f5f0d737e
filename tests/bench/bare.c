/* tests/bench/bare.c: starts the bare parts and drives them at saturation: so many pairs, so many messages of each on
 * their way. Prints one line of JSON. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>
#include <zmq.h>

#include "mesh/alloc.h"
#include "mesh/clock.h"
#include "tests/bench/bare.h"

typedef struct conn {
    int fd;
    uint32_t pair;
    mesh_buf in;
} conn;

typedef struct driver {
    const bare_conf *conf;
    conn *conns; /* 2 * pair: the sender; 2 * pair + 1: the receiver */
    uint32_t *sent, *got, *acked, *next_due;
    uint32_t *dirty; /* pairs that may send */
    unsigned n_dirty;
    char *is_dirty;
    mesh_buf out;
    uint64_t delivered, last_us, longest_us;
    int epoll;
} driver;

static int listen_any(uint16_t *port)
{
    struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t n = sizeof a;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    bare_check(fd >= 0 && bind(fd, (struct sockaddr *)&a, n) == 0 && listen(fd, 4096) == 0 &&
                   getsockname(fd, (struct sockaddr *)&a, &n) == 0,
               "listen");
    *port = ntohs(a.sin_port);
    return fd;
}

static void endpoint(char *out, size_t size)
{
    uint16_t port;
    close(listen_any(&port));
    (void)snprintf(out, size, "tcp://127.0.0.1:%u", port);
}

static void connect_all(driver *d)
{
    for (unsigned id = 0; id < 2 * d->conf->pairs; id++) {
        conn *c = &d->conns[id];
        struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
        a.sin_port = htons(d->conf->port[bare_edge_of(id / 2, id % 2)]);
        c->pair = id / 2;
        c->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        int yes = 1;
        bare_check(c->fd >= 0 && connect(c->fd, (struct sockaddr *)&a, sizeof a) == 0 &&
                       setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes) == 0 &&
                       write(c->fd, &id, sizeof id) == sizeof id && fcntl(c->fd, F_SETFL, O_NONBLOCK) == 0,
                   "connect");
        struct epoll_event event = { .events = EPOLLIN, .data.ptr = c };
        bare_check(epoll_ctl(d->epoll, EPOLL_CTL_ADD, c->fd, &event) == 0, "epoll_ctl");
    }
}

static void mark(driver *d, uint32_t pair)
{
    if (!d->is_dirty[pair]) {
        d->is_dirty[pair] = 1;
        d->dirty[d->n_dirty++] = pair;
    }
}

static void send_out(driver *d, int fd)
{
    bare_check(send(fd, d->out.data, d->out.size, MSG_NOSIGNAL) == (ssize_t)d->out.size, "send to an edge");
    mesh_buf_clear(&d->out);
}

static void receive(driver *d, conn *c)
{
    uint8_t *p = mesh_buf_grow(&c->in, 65536);
    ssize_t got = recv(c->fd, p, 65536, 0);
    c->in.size -= 65536 - (size_t)(got > 0 ? got : 0);
    bare_check(got > 0 || errno == EAGAIN, "an edge is gone");
    size_t at = 0;
    const bare_record *r;
    while ((r = bare_next(&c->in, &at)) != NULL) {
        if (r->kind == BARE_MESSAGE) {
            d->delivered++;
            d->got[r->pair]++;
            mark(d, r->pair);
        }
    }
    mesh_buf_shift(&c->in, at);
    uint32_t pair = c->pair;
    if (d->got[pair] - d->acked[pair] >= BARE_ACK_EVERY) {
        d->acked[pair] = d->got[pair];
        bare_put(&d->out, BARE_ACK, pair, d->got[pair]);
        send_out(d, d->conns[2 * pair + 1].fd);
    }
}

static void send_marked(driver *d)
{
    for (unsigned i = 0; i < d->n_dirty; i++) {
        uint32_t pair = d->dirty[i];
        d->is_dirty[pair] = 0;
        while (d->sent[pair] - d->got[pair] < d->conf->window) {
            bare_put(&d->out, BARE_SEND, pair, d->sent[pair]++);
        }
        if (d->out.size > 0) {
            send_out(d, d->conns[2 * pair].fd);
        }
    }
    d->n_dirty = 0;
}

static void run_until(driver *d, uint64_t end_us)
{
    for (uint64_t now = mesh_clock_us(); now < end_us; now = mesh_clock_us()) {
        send_marked(d);
        struct epoll_event ready[256];
        uint64_t before = d->delivered;
        int n = epoll_wait(d->epoll, ready, 256, 100);
        for (int i = 0; i < n; i++) {
            receive(d, ready[i].data.ptr);
        }
        if (d->delivered != before) {
            uint64_t t = mesh_clock_us();
            uint64_t gap = t - d->last_us;
            d->longest_us = gap > d->longest_us ? gap : d->longest_us;
            d->last_us = t;
        }
    }
}

static void drive(const bare_conf *conf)
{
    driver d = { .conf = conf, .epoll = epoll_create1(EPOLL_CLOEXEC) };
    d.conns = mesh_alloc(2 * conf->pairs * sizeof *d.conns);
    d.sent = mesh_alloc(conf->pairs * sizeof *d.sent);
    d.got = mesh_alloc(conf->pairs * sizeof *d.got);
    d.acked = mesh_alloc(conf->pairs * sizeof *d.acked);
    d.dirty = mesh_alloc(conf->pairs * sizeof *d.dirty);
    d.is_dirty = mesh_alloc(conf->pairs);
    connect_all(&d);
    for (uint32_t pair = 0; pair < conf->pairs; pair++) {
        mark(&d, pair);
    }
    d.last_us = mesh_clock_us();
    run_until(&d, d.last_us + (uint64_t)(conf->warm_s * 1e6));
    uint64_t delivered = d.delivered, rows = conf->shared->rows, bytes = conf->shared->row_bytes;
    uint64_t syncs = conf->shared->syncs, from = mesh_clock_us();
    d.longest_us = 0;
    run_until(&d, from + (uint64_t)(conf->seconds * 1e6));
    double s = (double)(mesh_clock_us() - from) / 1e6, n = (double)(d.delivered - delivered);
    printf("{\"messages_per_s\": %.0f, \"rows_per_message\": %.2f, \"row_bytes_per_message\": %.0f, "
           "\"messages_per_sync\": %.1f, \"longest_pause_ms\": %.1f}\n",
           n / s, (double)(conf->shared->rows - rows) / n, (double)(conf->shared->row_bytes - bytes) / n,
           n / (double)(conf->shared->syncs - syncs), (double)d.longest_us / 1e3);
}

static pid_t start(const bare_conf *conf, unsigned what)
{
    pid_t pid = fork();
    bare_check(pid >= 0, "fork");
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (what == 0) {
            bare_store(conf);
        } else if (what == 1) {
            bare_router(conf);
        } else {
            bare_edge(conf, what - 2);
        }
        exit(0);
    }
    return pid;
}

int main(int argc, char **argv)
{
    bare_conf conf = { .pairs = 100, .window = 8, .warm_s = 1, .seconds = 10, .commits = 2 };
    static const struct option options[] = { { "pairs", 1, 0, 'p' }, { "window", 1, 0, 'w' },  { "seconds", 1, 0, 's' },
                                             { "warm", 1, 0, 'W' },  { "commits", 1, 0, 'c' }, { 0 } };
    for (int o; (o = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        switch (o) {
        case 'p':
            conf.pairs = (unsigned)atoi(optarg);
            break;
        case 'w':
            conf.window = (unsigned)atoi(optarg);
            break;
        case 's':
            conf.seconds = atof(optarg);
            break;
        case 'W':
            conf.warm_s = atof(optarg);
            break;
        case 'c':
            conf.commits = atoi(optarg) == 1 ? 1 : 2;
            break;
        default:
            fprintf(stderr, "usage: bare [--pairs N] [--window N] [--warm S] [--seconds S] [--commits 1|2]\n");
            return 2;
        }
    }
    const char *tmp = getenv("TMPDIR");
    (void)snprintf(conf.dir, sizeof conf.dir, "%s/parley-bare-XXXXXX", tmp != NULL ? tmp : "/tmp");
    bare_check(mkdtemp(conf.dir) != NULL, conf.dir);
    bare_keys *keys[3] = { &conf.router_key, &conf.store_key, &conf.client_key };
    for (int i = 0; i < 3; i++) {
        bare_check(zmq_curve_keypair(keys[i]->public_key, keys[i]->secret_key) == 0, "keys");
    }
    endpoint(conf.router, sizeof conf.router);
    endpoint(conf.store, sizeof conf.store);
    for (unsigned i = 0; i < BARE_EDGES; i++) {
        conf.listener[i] = listen_any(&conf.port[i]);
    }
    conf.shared = mmap(NULL, sizeof *conf.shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    bare_check(conf.shared != MAP_FAILED, "mmap");
    pid_t pids[2 + BARE_EDGES];
    for (unsigned i = 0; i < 2 + BARE_EDGES; i++) {
        pids[i] = start(&conf, i);
    }
    drive(&conf);
    fflush(stdout);
    for (unsigned i = 0; i < 2 + BARE_EDGES; i++) {
        kill(pids[i], SIGKILL);
        waitpid(pids[i], NULL, 0);
    }
    char command[200];
    (void)snprintf(command, sizeof command, "rm -rf '%s'", conf.dir);
    return system(command) == 0 ? 0 : 1;
}
