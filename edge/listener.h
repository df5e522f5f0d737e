/* edge/listener.h: the port. Accepts and counts sockets; who is accepted is a caller first (edge/caller.h).
 * libwebsockets 4.1 cannot share a port, so the edge listens by itself.
 *
 * Limits: sockets in all, and sockets of one address (edge/address.h). At the first one accepting stops until there is
 * room again, so that the kernel's backlog or another edge on the same port takes the rest; at the second the socket is
 * closed at once. One loop thread. */
#ifndef EDGE_LISTENER_H
#define EDGE_LISTENER_H

#include "edge/caller.h"

#define EDGE_LISTENER_BACKLOG 4096
#define EDGE_LISTENER_BUDGET 256 /* accepts in one go, so that a storm does not starve who is connected */

typedef struct edge_listener edge_listener;

typedef struct edge_listener_conf {
    uv_loop_t *uv;    /* borrowed for the listener's life, as all below */
    const char *host; /* "::" = all addresses of both families */
    int port;         /* 0: any free one */
    bool reuse_port;  /* several edges may share the port */
    size_t max_sockets;
    size_t max_per_address;
    const char *origins; /* see edge_head_judge */
    const edge_http *http;
} edge_listener_conf;

/* Errors: MESH_CONFLICT the port is in use; MESH_IO no such address here, or no right to that port; each with a log
 * line. */
MESH_MUST mesh_err edge_listener_new(const edge_listener_conf *conf, const edge_caller_handler *handler, void *arg,
                                     edge_listener **listener_p);
/* All adopted sockets must have been released. Handles of libuv close with the loop's next turns. */
void edge_listener_destroy(edge_listener **listener_p);

int edge_listener_port(const edge_listener *listener);
void edge_listener_stop(edge_listener *listener); /* no new sockets; the port is free; callers are finished */
void edge_listener_release(edge_listener *listener, edge_address *address); /* a socket given to adopt is closed */
mesh_ms edge_listener_tick(edge_listener *listener, mesh_ms now);           /* deadlines; returns the next one */
void edge_listener_print_stats(edge_listener *listener, const char *node, mesh_buf *out);

#endif
