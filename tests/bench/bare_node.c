/* The edge and the router of the bare parts. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>
#include <zmq.h>

#include "mesh/alloc.h"
#include "tests/bench/bare.h"

#define DRAIN_FRAMES 256

/* ---- edge ---- */

typedef struct client {
    int fd;
    int dirty; /* is in the list of those to be written to */
    mesh_buf in, out;
} client;

typedef struct edge {
    unsigned n;
    client *clients; /* by pair and side: 2 * pair + receiver; those of the other edge have no fd */
    client **dirty;
    size_t n_dirty;
    void *router;
    mesh_buf frame, up;
    int epoll;
} edge;

static void accept_clients(edge *e, const bare_conf *conf, int listener)
{
    for (unsigned i = 0; i < conf->pairs; i++) {
        int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
        uint32_t id = 0;
        bare_check(fd >= 0 && read(fd, &id, sizeof id) == sizeof id && id < 2 * conf->pairs, "accept");
        bare_check(fcntl(fd, F_SETFL, O_NONBLOCK) == 0, "O_NONBLOCK");
        e->clients[id].fd = fd;
        struct epoll_event event = { .events = EPOLLIN, .data.ptr = &e->clients[id] };
        bare_check(epoll_ctl(e->epoll, EPOLL_CTL_ADD, fd, &event) == 0, "epoll_ctl");
    }
}

static void to_client(edge *e, uint32_t id, bare_kind kind, uint32_t pair, uint32_t n)
{
    client *c = &e->clients[id];
    bare_put(&c->out, kind, pair, n);
    if (!c->dirty) {
        c->dirty = 1;
        e->dirty[e->n_dirty++] = c;
    }
}

static void from_client(edge *e, client *c)
{
    uint8_t *p = mesh_buf_grow(&c->in, 16384);
    ssize_t got = recv(c->fd, p, 16384, 0);
    c->in.size -= 16384 - (size_t)(got > 0 ? got : 0);
    if (got == 0 || (got < 0 && errno != EAGAIN)) {
        exit(0); /* the driver is done */
    }
    size_t at = 0;
    const bare_record *r;
    while ((r = bare_next(&c->in, &at)) != NULL) {
        bare_put(&e->up, r->kind == BARE_SEND ? BARE_MESH_SEND : BARE_MESH_ACK, r->pair, r->n);
    }
    mesh_buf_shift(&c->in, at);
}

static void from_router(edge *e)
{
    for (int i = 0; i < DRAIN_FRAMES && bare_receive(e->router, NULL, &e->frame); i++) {
        size_t at = 0;
        const bare_record *r;
        while ((r = bare_next(&e->frame, &at)) != NULL) {
            if (r->kind == BARE_LIVE) {
                to_client(e, 2 * r->pair + 1, BARE_MESSAGE, r->pair, r->n);
            } else {
                to_client(e, 2 * r->pair, BARE_SENT, r->pair, r->n);
            }
        }
    }
}

static void flush_clients(edge *e)
{
    for (size_t i = 0; i < e->n_dirty; i++) {
        client *c = e->dirty[i];
        ssize_t n = send(c->fd, c->out.data, c->out.size, MSG_NOSIGNAL);
        if (n < 0 && errno != EAGAIN) {
            exit(0);
        }
        bare_check(n == (ssize_t)c->out.size, "a client's socket is full"); /* the window is far below its buffer */
        mesh_buf_clear(&c->out);
        c->dirty = 0;
    }
    e->n_dirty = 0;
}

void bare_edge(const bare_conf *conf, unsigned self)
{
    char name[8];
    (void)snprintf(name, sizeof name, "e%u", self);
    edge e = { .n = 2 * conf->pairs, .epoll = epoll_create1(EPOLL_CLOEXEC) };
    e.clients = mesh_alloc(e.n * sizeof *e.clients);
    e.dirty = mesh_alloc(e.n * sizeof(client *));
    void *context = zmq_ctx_new();
    e.router = bare_dial(context, conf->router, &conf->router_key, &conf->client_key, name);
    int fd = -1;
    size_t size = sizeof fd;
    bare_check(zmq_getsockopt(e.router, ZMQ_FD, &fd, &size) == 0, "ZMQ_FD");
    struct epoll_event event = { .events = EPOLLIN, .data.ptr = NULL };
    bare_check(epoll_ctl(e.epoll, EPOLL_CTL_ADD, fd, &event) == 0, "epoll_ctl");
    bare_send(e.router, NULL, &e.up); /* empty: the router knows us now */
    accept_clients(&e, conf, conf->listener[self]);
    for (;;) {
        int events = 0;
        size = sizeof events;
        bare_check(zmq_getsockopt(e.router, ZMQ_EVENTS, &events, &size) == 0, "ZMQ_EVENTS");
        struct epoll_event ready[256];
        int n = epoll_wait(e.epoll, ready, 256, (events & ZMQ_POLLIN) != 0 ? 0 : -1);
        for (int i = 0; i < n; i++) {
            if (ready[i].data.ptr != NULL) {
                from_client(&e, ready[i].data.ptr);
            }
        }
        from_router(&e);
        flush_clients(&e);
        if (e.up.size > 0) {
            bare_send(e.router, NULL, &e.up);
        }
    }
}

/* ---- router ---- */

typedef struct router {
    void *listener, *store;
    const bare_conf *conf;
    mesh_buf frame, up, down[BARE_EDGES];
} router;

static void from_edge(router *r)
{
    size_t at = 0;
    const bare_record *in;
    while ((in = bare_next(&r->frame, &at)) != NULL) {
        bare_put(&r->up, (bare_kind)in->kind, in->pair, in->n);
    }
}

static void from_store(router *r)
{
    size_t at = 0;
    const bare_record *in;
    while ((in = bare_next(&r->frame, &at)) != NULL) {
        if (in->kind == BARE_MESH_SENT) {
            bare_put(&r->down[bare_edge_of(in->pair, 0)], BARE_MESH_SENT, in->pair, in->n);
        } else if (in->kind == BARE_DELIVER && r->conf->commits == 2) {
            bare_put(&r->up, BARE_APPEND, in->pair, in->n);
        } else {
            bare_put(&r->down[bare_edge_of(in->pair, 1)], BARE_LIVE, in->pair, in->n);
            bare_put(&r->up, BARE_DELIVERED, in->pair, in->n);
        }
    }
}

void bare_router(const bare_conf *conf)
{
    static const char *const edges[BARE_EDGES] = { "e0", "e1" };
    router r = { .conf = conf };
    void *context = zmq_ctx_new();
    r.listener = bare_listen(context, conf->router, &conf->router_key);
    r.store = bare_dial(context, conf->store, &conf->store_key, &conf->client_key, "r0");
    char from[8];
    for (unsigned known = 0; known != 3;) { /* nothing can be sent to an edge before it was heard */
        zmq_pollitem_t item = { .socket = r.listener, .events = ZMQ_POLLIN };
        bare_check(zmq_poll(&item, 1, -1) >= 0 || errno == EINTR, "poll");
        if (bare_receive(r.listener, from, &r.frame)) {
            known |= 1u << (unsigned)(from[1] - '0');
            from_edge(&r);
        }
    }
    for (;;) {
        zmq_pollitem_t items[2] = { { .socket = r.listener, .events = ZMQ_POLLIN },
                                    { .socket = r.store, .events = ZMQ_POLLIN } };
        bare_check(zmq_poll(items, 2, -1) >= 0 || errno == EINTR, "poll");
        for (int i = 0; i < DRAIN_FRAMES && bare_receive(r.listener, from, &r.frame); i++) {
            from_edge(&r);
        }
        for (int i = 0; i < DRAIN_FRAMES && bare_receive(r.store, NULL, &r.frame); i++) {
            from_store(&r);
        }
        if (r.up.size > 0) {
            bare_send(r.store, NULL, &r.up);
        }
        for (unsigned i = 0; i < BARE_EDGES; i++) {
            if (r.down[i].size > 0) {
                bare_send(r.listener, edges[i], &r.down[i]);
            }
        }
    }
}
