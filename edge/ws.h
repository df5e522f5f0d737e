/* edge/ws.h: the one door to libwebsockets: WebSocket framing between sockets and the edge core.
 *
 * In: RECEIVE brings pieces of any size; a message is put together here (allocated with its first piece, freed with its
 * last; whole small ones are passed on without a copy) and handed to edge_core_input. At edge_core_input_max, counting
 * what the frame declares, or when all half-received messages hold too much (edge/partial.h), it is cut:
 * edge_core_refuse, the rest is read and forgotten, and memory stays flat. Out: what
 * edge_core_pending shows leaves as one WebSocket message, in pieces of EDGE_WS_PIECE, each only when libwebsockets
 * holds nothing of the piece before. So a client that does not read costs one piece here, and the rest waits in the
 * core, which bounds it.
 *
 * Known and accepted of lws 4.1.6: unmasked client frames are taken (it does not tell), pings over 125 bytes and a
 * second ping before the first one's pong are dropped without a word. */
#ifndef EDGE_WS_H
#define EDGE_WS_H

#include <uv.h>

#include "edge/address.h"
#include "edge/core.h"

#define EDGE_WS_PIECE (64u * 1024) /* with its frame header within lws' limit of one send */
#define EDGE_WS_PIECES_PER_TURN 8  /* of one session */
#define EDGE_WS_CLOSE_MS 5000      /* for a close frame to get out */
#define EDGE_WS_LOOK_MS 1000       /* how often blocked sockets are looked at */
#define EDGE_WS_KILLS_PER_TURN 256
#define EDGE_WS_OUT_HIGH (8u * 1024 * 1024) /* bytes for the mesh in one turn; above: sockets are not read on in it */

typedef struct edge_ws edge_ws;

typedef struct edge_ws_conf {
    uv_loop_t *uv; /* borrowed for the life of the edge_ws, as all below */
    edge_core *core;
    mesh_out *out;                                     /* what the core wants sent */
    void (*release)(void *arg, edge_address *address); /* an adopted socket is closed */
    void *release_arg;
} edge_ws_conf;

/* Errors: MESH_IO libwebsockets or its libuv plugin does not start (logged). */
MESH_MUST mesh_err edge_ws_new(const edge_ws_conf *conf, edge_ws **ws_p);
/* Cuts all sockets, tells the core, and turns the loop until libwebsockets has let go of it. Not from within the loop.
 */
void edge_ws_destroy(edge_ws **ws_p);

/* Make fd the socket of session, which is ended if that fails. Takes fd and address; see edge_caller_handler. */
void edge_ws_adopt(edge_ws *ws, edge_session_id session, edge_codec_kind kind, int fd, edge_address *address,
                   mesh_slice request);
void edge_ws_flush(edge_ws *ws, mesh_time now);   /* write what is ready; once per turn */
void edge_ws_resume(edge_ws *ws);                 /* the mesh took what there was: read on; once per turn */
mesh_ms edge_ws_tick(edge_ws *ws, mesh_time now); /* blocked sockets; returns the next deadline */
size_t edge_ws_sockets(const edge_ws *ws);        /* open, also those on their way to being closed */
void edge_ws_print_stats(edge_ws *ws, const char *node, mesh_buf *out);

#endif
