/* edge/core.h: one edge, as a pure step. Sockets are numbers here: the shell (listener.c, ws.c) owns them, tells what
 * came in, and writes what edge_core_pending holds. Keeps nothing durable.
 *
 * A session: HELLO (socket open, nothing proven) -> ATTACHING (token good, attach on its way) -> REPLAYING (welcome
 * sent, inbox flowing) -> LIVE (head reached) -> DRAINING (told to reconnect) -> CLOSED. The edge forwards inbox entry
 * forwarded+1, drops what is not above, and re-attaches at anything higher: a gap is healed by the same request as a
 * login.
 *
 * Bad input: one documented error (mesh/fault.h) or close code, one metric, and nothing else changes. */
#ifndef EDGE_CORE_H
#define EDGE_CORE_H

#include "mesh/clock.h"
#include "mesh/conf.h"
#include "mesh/out.h"
#include "mesh/ring.h"
#include "mesh/stats.h"

#define EDGE_FRAME_MAX (512u * 1024)     /* one WebSocket message */
#define EDGE_HELLO_FRAME_MAX (8u * 1024) /* the same before hello: a stranger may not hold much; a token is 4 KiB */
#define EDGE_FRAMES_PER_MESSAGE 256      /* lines in one */
#define EDGE_TEXT_MAX 100000             /* code points of a body */
#define EDGE_SENDQ_MAX                                                                                                 \
    (1024u * 1024) /* bytes waiting for one socket; above: entries wait at the router, answers close it */
#define EDGE_HELLO_MS 10000
#define EDGE_REQUESTS_MAX 128    /* of one session without an answer; beyond: FAULT_BUSY */
#define EDGE_ATTACH_PER_TURN 256 /* re-attaches after a ring change, paced */
#define EDGE_PAGE_MAX 200

/* Close codes: edge/close.h. */

typedef enum edge_codec_kind { EDGE_JSON, EDGE_PROTOBUF } edge_codec_kind;
typedef uint64_t edge_session_id; /* random; unique over boots */

typedef struct edge_core edge_core;

typedef struct edge_core_conf {
    const mesh_conf *conf; /* borrowed for the core's life */
    mesh_peer self;
    uint64_t seed;        /* session ids, jitter */
    mesh_slice token_key; /* HS256 key, borrowed for the core's life; not empty */
} edge_core_conf;

edge_core *edge_core_new(const edge_core_conf *conf, mesh_time now);
void edge_core_destroy(edge_core **core_p);

/* ---- the sockets' side ---- */
/* A WebSocket was opened. token: from the second subprotocol entry, NULL if none. Errors: MESH_FULL. */
MESH_MUST mesh_err edge_core_open(edge_core *core, edge_codec_kind codec, const char *token, mesh_time now,
                                  edge_session_id *session_p);
/* The largest message session may send now: EDGE_FRAME_MAX, before hello EDGE_HELLO_FRAME_MAX. */
size_t edge_core_input_max(const edge_core *core, edge_session_id session);
/* One whole WebSocket message, at most edge_core_input_max (the shell cuts earlier). */
void edge_core_input(edge_core *core, edge_session_id session, mesh_slice bytes, mesh_time now, mesh_out *out);
/* The shell refused input itself: fault is what to tell and close with (FAULT_TOO_BIG, FAULT_MALFORMED). */
void edge_core_refuse(edge_core *core, edge_session_id session, uint32_t fault, mesh_time now);
void edge_core_closed(edge_core *core, edge_session_id session, mesh_time now, mesh_out *out);
void edge_core_pong(edge_core *core, edge_session_id session, mesh_time now); /* any sign of life on the socket */

/* The next session that has something to write or is to be closed; false: none. Round robin. It comes again after
 * edge_core_wrote when more is left, or when there is something new after all was written. */
bool edge_core_next_ready(edge_core *core, edge_session_id *session_p);
/* What waits for this session; the shell writes it as one WebSocket message (or several for protobuf) and says how much
 * was taken. borrowed until the next call on core. close_code: nonzero = close with it after the bytes. */
mesh_slice edge_core_pending(edge_core *core, edge_session_id session, uint16_t *close_code, const char **close_reason);
void edge_core_wrote(edge_core *core, edge_session_id session, size_t bytes, mesh_time now, mesh_out *out);

/* ---- the mesh's side ---- */
void edge_core_message(edge_core *core, mesh_peer from, const Mesh__Msg *msg, mesh_slice packed, mesh_time now,
                       mesh_out *out);
void edge_core_up(edge_core *core, mesh_peer peer, uint64_t boot, mesh_time now, mesh_out *out);
void edge_core_down(edge_core *core, mesh_peer peer, mesh_time now, mesh_out *out);
mesh_ms edge_core_turn(edge_core *core, mesh_time now, mesh_out *out);
void edge_core_drain(edge_core *core, mesh_time now); /* no new sockets; reconnect to all, spread over edge.drain_ms */
size_t edge_core_sessions(const edge_core *core);
mesh_stats *edge_core_stats(edge_core *core);
const mesh_ring *edge_core_ring(const edge_core *core);

#endif
