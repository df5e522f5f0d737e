/* edge/ws_priv.h: one WebSocket as ws.c (in, start, stop) and ws_out.c (out, leaving) share it. */
#ifndef EDGE_WS_PRIV_H
#define EDGE_WS_PRIV_H

#include <libwebsockets.h>
#include <sys/queue.h>

#include "edge/partial.h"
#include "edge/ws.h"
#include "mesh/table.h"

typedef enum edge_ws_stat {
    EDGE_WS_STAT_OPEN,
    EDGE_WS_STAT_MESSAGES_IN,
    EDGE_WS_STAT_MESSAGES_OUT,
    EDGE_WS_STAT_BYTES_IN,
    EDGE_WS_STAT_BYTES_OUT,
    EDGE_WS_STAT_PARTIAL,
    EDGE_WS_STAT_PARTIAL_FULL,
    EDGE_WS_STAT_TOO_BIG,
    EDGE_WS_STAT_WRONG_OPCODE,
    EDGE_WS_STAT_CLOSED_BY_US,
    EDGE_WS_STAT_BLOCKED,
    EDGE_WS_STAT_PAUSED,
    EDGE_WS_STAT_ADOPT_FAILED,
    EDGE_WS_STATS
} edge_ws_stat;

typedef struct edge_ws_socket { /* libwebsockets' per-session memory: small, there are many */
    edge_session_id id;         /* 0: the core knows nothing of it any more */
    struct lws *wsi;
    edge_address *address;
    edge_partial partial; /* a message being put together */
    uint32_t turn;        /* last turn that looked at it */
    uint8_t kind;
    uint8_t begun;    /* a part of the message being written has left */
    uint8_t skipping; /* the rest of the message coming in is refused */
    uint8_t waiting;  /* for WRITEABLE */
    uint8_t paused;
    uint8_t closing; /* our close frame is out; in the list */
    mesh_ms close_at;
    TAILQ_ENTRY(edge_ws_socket) close;
} edge_ws_socket;

TAILQ_HEAD(edge_ws_list, edge_ws_socket);

struct edge_ws {
    edge_ws_conf conf;
    struct lws_context *context;
    struct lws_vhost *vhost;
    struct lws_protocols protocols[3];
    lws_retry_bo_t no_validity_timers;
    mesh_table *sockets; /* session id -> edge_ws_socket */
    mesh_table *blocked; /* the same, of those that wait for WRITEABLE with something to write */
    mesh_ms look_at;
    struct edge_ws_list closing; /* the one that waits longest first */
    size_t open;
    edge_partial_pool partials;
    mesh_buf paused; /* session ids */
    uint32_t turn;
    struct {
        bool pending;
        edge_session_id session;
        edge_codec_kind kind;
        edge_address *address;
    } adopting; /* lws finishes an upgrade inside the adopt call, but gives no argument along */
    uint8_t piece[LWS_PRE + EDGE_WS_PIECE];
    mesh_stats *stats;
};

/* ---- ws_out.c ---- */
/* The core's session ends now, even if the socket takes its time. */
void edge_ws_leave(edge_ws *ws, edge_ws_socket *s, mesh_time now);
void edge_ws_gone(edge_ws *ws, edge_ws_socket *s, mesh_time now); /* libwebsockets has closed s */
/* Write what the core holds for s until it or the socket is exhausted. */
void edge_ws_write(edge_ws *ws, edge_ws_socket *s, mesh_time now);

#endif
