/* edge/caller.h: accepted sockets that are not WebSockets: their request heads are read, plain HTTP is answered, and
 * what may become a WebSocket is handed over.
 *
 * A caller: HEAD (reading the request head, EDGE_CALLER_HEAD_MS) -> handed over, or REPLY (writing the answer,
 * EDGE_CALLER_REPLY_MS) -> LINGER (said all; waits for the peer's end so that no reset eats the answer,
 * EDGE_CALLER_LINGER_MS) -> closed. Bytes of incomplete heads are bounded over all callers; beyond: 503. One loop
 * thread. */
#ifndef EDGE_CALLER_H
#define EDGE_CALLER_H

#include <uv.h>

#include "edge/address.h"
#include "edge/http.h"

#define EDGE_CALLER_HEAD_MS 10000
#define EDGE_CALLER_REPLY_MS 30000
#define EDGE_CALLER_LINGER_MS 2000
#define EDGE_CALLER_SCAN_MS 500                  /* deadlines are looked at this often */
#define EDGE_CALLER_HELD_MAX (16u * 1024 * 1024) /* bytes of incomplete heads */

typedef struct edge_callers edge_callers;

typedef struct edge_caller_handler {
    /* An upgrade was judged fine: make a session. Errors: MESH_FULL, answered with 503. */
    mesh_err (*open)(void *arg, const edge_head *head, edge_session_id *session_p);
    /* Take the socket of that session: fd is yours now; address goes back to the listener when it is closed.
     * request: a minimal handshake, then what the client sent after its own; borrowed for the call. */
    void (*adopt)(void *arg, edge_session_id session, edge_codec_kind kind, int fd, edge_address *address,
                  mesh_slice request);
    void (*metrics)(void *arg, mesh_buf *out); /* prints /metrics */
} edge_caller_handler;

typedef struct edge_caller_conf {
    uv_loop_t *uv; /* borrowed for the life of the callers, as all below */
    const edge_http *http;
    const char *origins; /* see edge_head_judge */
    const edge_caller_handler *handler;
    void *handler_arg;
    void (*release)(void *arg, edge_address *address); /* a caller's socket was closed */
    void *release_arg;
} edge_caller_conf;

edge_callers *edge_callers_new(const edge_caller_conf *conf);
void edge_callers_destroy(
    edge_callers **callers_p); /* closes who is left; libuv frees their handles in its next turns */

void edge_callers_add(edge_callers *callers, int fd, edge_address *address); /* takes fd, nonblocking */
void edge_callers_drain(edge_callers *callers); /* from now on upgrades and /healthz are answered 503 */
mesh_ms edge_callers_tick(edge_callers *callers, mesh_ms now);
void edge_callers_print_stats(edge_callers *callers, const char *node, mesh_buf *out);

#endif
