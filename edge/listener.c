#include "edge/listener.h"

#include <assert.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "mesh/alloc.h"
#include "mesh/log.h"

#define RETRY_ACCEPT_MS 200 /* after the kernel had no descriptor or memory for us */

enum { STAT_ACCEPTED, STAT_SOCKETS, STAT_ADDRESSES, STAT_ADDRESS_FULL, STAT_STOPPED, STATS };

static const mesh_stat_info STAT_INFOS[STATS] = {
    [STAT_ACCEPTED] = { "parley_edge_accepted_total", "Sockets accepted.", MESH_COUNTER, NULL },
    [STAT_SOCKETS] = { "parley_edge_sockets", "Sockets open.", MESH_GAUGE, NULL },
    [STAT_ADDRESSES] = { "parley_edge_addresses", "Addresses with a socket here.", MESH_GAUGE, NULL },
    [STAT_ADDRESS_FULL] = { "parley_edge_address_full_total", "Sockets closed: their address holds too many.",
                            MESH_COUNTER, NULL },
    [STAT_STOPPED] = { "parley_edge_accept_stopped_total", "Times accepting stopped for lack of room.", MESH_COUNTER,
                       NULL },
};

struct edge_listener {
    edge_listener_conf conf;
    edge_callers *callers;
    uv_poll_t *poll; /* heap: closes after the listener */
    int fd;
    int port;
    bool paused;
    bool stopped;
    mesh_ms retry_at;
    size_t sockets;
    edge_address_table *addresses;
    mesh_stats *stats;
};

static void on_accept(uv_poll_t *poll, int status, int events);

static bool has_room(const edge_listener *l)
{
    return l->sockets < l->conf.max_sockets;
}

static void pause_accepting(edge_listener *l, mesh_ms retry_at)
{
    uv_poll_stop(l->poll);
    l->paused = true;
    l->retry_at = retry_at;
    mesh_stats_add(l->stats, STAT_STOPPED, 1);
    mesh_log(MESH_WARN, "accept_stopped", "sockets=%zu max=%zu", l->sockets, l->conf.max_sockets);
}

static void resume_accepting(edge_listener *l)
{
    l->paused = false;
    l->retry_at = MESH_NEVER;
    uv_poll_start(l->poll, UV_READABLE, on_accept);
}

/* False: nothing to accept now. */
static bool accept_one(edge_listener *l)
{
    struct sockaddr_storage peer;
    socklen_t size = sizeof peer;
    int fd = accept4(l->fd, (struct sockaddr *)&peer, &size, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0) {
        if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
            pause_accepting(l, mesh_clock_now().mono + RETRY_ACCEPT_MS);
        }
        return errno == ECONNABORTED || errno == EINTR;
    }
    mesh_stats_add(l->stats, STAT_ACCEPTED, 1);
    edge_address *address;
    if (edge_address_hold(l->addresses, (struct sockaddr *)&peer, &address) != MESH_OK) {
        mesh_stats_add(l->stats, STAT_ADDRESS_FULL, 1);
        close(fd);
        return true;
    }
    l->sockets++;
    edge_callers_add(l->callers, fd, address);
    return true;
}

static void on_accept(uv_poll_t *poll, int status, int events)
{
    (void)status;
    (void)events;
    edge_listener *l = poll->data;
    for (int i = 0; i < EDGE_LISTENER_BUDGET && !l->paused; i++) {
        if (!has_room(l)) {
            pause_accepting(l, MESH_NEVER);
        } else if (!accept_one(l)) {
            break;
        }
    }
}

static mesh_err open_socket(edge_listener *l, const struct addrinfo *info)
{
    int on = 1;
    int off = 0;
    l->fd = socket(info->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (l->fd < 0) {
        return MESH_IO;
    }
    setsockopt(l->fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    setsockopt(l->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on); /* accepted sockets inherit both */
    setsockopt(l->fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
    if (info->ai_family == AF_INET6) {
        setsockopt(l->fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off);
    }
    if (l->conf.reuse_port) {
        setsockopt(l->fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof on);
    }
    if (bind(l->fd, info->ai_addr, info->ai_addrlen) != 0 || listen(l->fd, EDGE_LISTENER_BACKLOG) != 0) {
        return errno == EADDRINUSE ? MESH_CONFLICT : MESH_IO;
    }
    struct sockaddr_storage self;
    socklen_t size = sizeof self;
    if (getsockname(l->fd, (struct sockaddr *)&self, &size) != 0) {
        return MESH_IO;
    }
    l->port = ntohs(self.ss_family == AF_INET6 ? ((struct sockaddr_in6 *)(void *)&self)->sin6_port
                                               : ((struct sockaddr_in *)(void *)&self)->sin_port);
    return MESH_OK;
}

static mesh_err open_port(edge_listener *l)
{
    char port[8];
    snprintf(port, sizeof port, "%d", l->conf.port);
    struct addrinfo hints = { .ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE | AI_NUMERICSERV };
    struct addrinfo *info = NULL;
    int rc = getaddrinfo(l->conf.host, port, &hints, &info);
    mesh_err err = MESH_IO;
    const char *why = rc != 0 ? gai_strerror(rc) : NULL;
    if (rc == 0) {
        err = open_socket(l, info);
        why = err == MESH_OK ? NULL : strerror(errno);
        freeaddrinfo(info);
    }
    if (err != MESH_OK) {
        mesh_log(MESH_ERROR, "listen_failed", "host=%s port=%d error=%s", l->conf.host, l->conf.port, why);
    }
    return err;
}

static void release_caller(void *arg, edge_address *address)
{
    edge_listener_release(arg, address);
}

mesh_err edge_listener_new(const edge_listener_conf *conf, const edge_caller_handler *handler, void *arg,
                           edge_listener **listener_p)
{
    edge_listener *l = mesh_alloc(sizeof *l);
    l->conf = *conf;
    l->fd = -1;
    l->retry_at = MESH_NEVER;
    mesh_err err = open_port(l);
    if (err != MESH_OK) {
        if (l->fd >= 0) {
            close(l->fd);
        }
        free(l);
        return err;
    }
    l->addresses = edge_address_new(conf->max_per_address);
    l->stats = mesh_stats_new(STAT_INFOS, STATS);
    l->callers = edge_callers_new(&(edge_caller_conf){ .uv = conf->uv,
                                                       .http = conf->http,
                                                       .origins = conf->origins,
                                                       .handler = handler,
                                                       .handler_arg = arg,
                                                       .release = release_caller,
                                                       .release_arg = l });
    l->poll = mesh_alloc(sizeof *l->poll);
    int rc = uv_poll_init(conf->uv, l->poll, l->fd);
    assert(rc == 0);
    l->poll->data = l;
    resume_accepting(l);
    *listener_p = l;
    return MESH_OK;
}

static void free_poll(uv_handle_t *handle)
{
    free(handle); /* the handle is the first and only thing in its block */
}

void edge_listener_stop(edge_listener *l)
{
    if (l->stopped) {
        return;
    }
    on_accept(l->poll, 0, 0); /* who is in the backlog gets an answer rather than a reset */
    edge_callers_drain(l->callers);
    l->stopped = true;
    l->retry_at = MESH_NEVER;
    uv_close((uv_handle_t *)l->poll, free_poll);
    l->poll = NULL;
    close(l->fd);
    l->fd = -1;
}

void edge_listener_destroy(edge_listener **listener_p)
{
    edge_listener *l = *listener_p;
    if (!l) {
        return;
    }
    edge_listener_stop(l);
    edge_callers_destroy(&l->callers);
    edge_address_destroy(&l->addresses);
    mesh_stats_destroy(&l->stats);
    free(l);
    *listener_p = NULL;
}

int edge_listener_port(const edge_listener *l)
{
    return l->port;
}

void edge_listener_release(edge_listener *l, edge_address *address)
{
    edge_address_drop(l->addresses, address);
    l->sockets--;
    /* not at the very edge, so that one socket coming and going does not switch it to and fro */
    if (l->paused && !l->stopped && l->retry_at == MESH_NEVER &&
        l->sockets < l->conf.max_sockets - l->conf.max_sockets / 100) {
        resume_accepting(l);
    }
}

mesh_ms edge_listener_tick(edge_listener *l, mesh_ms now)
{
    if (now >= l->retry_at && !l->stopped) {
        resume_accepting(l);
    }
    mesh_ms next = edge_callers_tick(l->callers, now);
    return next < l->retry_at ? next : l->retry_at;
}

void edge_listener_print_stats(edge_listener *l, const char *node, mesh_buf *out)
{
    mesh_stats_set(l->stats, STAT_SOCKETS, l->sockets);
    mesh_stats_set(l->stats, STAT_ADDRESSES, edge_address_count(l->addresses));
    mesh_stats_print(l->stats, node, out);
    edge_callers_print_stats(l->callers, node, out);
}
