/* client/socket.h: many client sessions over WebSocket in one thread, on a libuv loop. The only file of client/ that
 * calls libwebsockets; what is said and when is client/session.h's business.
 *
 * A connection that has to go is not negotiated about: it is cut off from its session and killed, and the session may
 * connect again at once. At most CLIENT_SOCKET_CONNECTING handshakes are under way, so that thousands of sessions do
 * not overrun the listen queue; the others wait their turn. */
#ifndef CLIENT_SOCKET_H
#define CLIENT_SOCKET_H

#include <uv.h>

#include "client/session.h"
#include "client/url.h"

#define CLIENT_SOCKET_CONNECTING 512

typedef struct client_socket client_socket; /* the driver */
typedef struct client_conn client_conn;     /* one session and its connection, if any */

/* loop is borrowed for the driver's life. files: sockets to make room for (RLIMIT_NOFILE is raised as far as allowed).
 * Errors: MESH_IO libwebsockets does not start. */
MESH_MUST mesh_err client_socket_new(uv_loop_t *loop, unsigned files, client_socket **cs_p);
/* All its connections must be closed. Runs the loop shortly, so that handles can close. */
void client_socket_destroy(client_socket **cs_p);

/* Start a session; it connects by itself, again and again, until it is stopped or closed.
 * local: address to connect from, e.g. "127.0.0.5", NULL for any; copied. url is copied. */
client_conn *client_socket_open(client_socket *cs, const client_url *url, const char *local,
                                const client_session_conf *conf, const client_handler *handler, void *arg);
client_session *client_conn_session(client_conn *conn); /* borrowed */
/* Hang up and forget. Not from a callback of this session. */
void client_conn_close(client_conn **conn_p);
/* Break the connection as a network failure would (for tests): the session will come back. */
void client_conn_cut(client_conn *conn);

#endif
