/* edge/session.h: one socket's session: its state, its queue of bytes to write, its place on the timer wheel.
 *
 * HELLO      socket open, nothing proven
 * ATTACHING  token good, no Attached yet: nothing is known of the inbox
 * REPLAYING  welcome sent, the inbox flows, `live` not yet said
 * LIVE       the head of the attach was reached
 * DRAINING   told to reconnect elsewhere; the inbox still flows
 * CLOSED     the close code waits behind what is queued; what comes in is not looked at
 *
 * The attach beside it: WAIT (until attach_at, a router up or a new ring) -> QUEUED (this or a later turn) -> SENT ->
 * DONE, and from DONE again to QUEUED at a gap, a ring change or a lost router, or to STARVED when the queue is full:
 * then it is taken up again when half of that has gone out. NONE before hello and at the end. */
#ifndef EDGE_SESSION_H
#define EDGE_SESSION_H

#include <sys/queue.h>

#include "edge/close.h"
#include "edge/core.h"
#include "edge/limit.h"

typedef enum edge_state {
    EDGE_HELLO,
    EDGE_ATTACHING,
    EDGE_REPLAYING,
    EDGE_LIVE,
    EDGE_DRAINING,
    EDGE_CLOSED,
    EDGE_STATES
} edge_state;

typedef enum edge_attach_state {
    EDGE_ATTACH_NONE,
    EDGE_ATTACH_WAIT,
    EDGE_ATTACH_QUEUED,
    EDGE_ATTACH_SENT,
    EDGE_ATTACH_DONE,
    EDGE_ATTACH_STARVED,
    EDGE_ATTACH_STATES
} edge_attach_state;

/* Whether the shell has to be told of it: IDLE nothing to write, READY in the list, TAKEN given out by next_ready. */
typedef enum edge_ready { EDGE_IDLE, EDGE_READY, EDGE_TAKEN } edge_ready;

typedef struct edge_request edge_request;
typedef struct edge_session edge_session;

struct edge_session {
    edge_session_id id;               /* key of the core's table */
    TAILQ_ENTRY(edge_session) all;    /* in the order they were opened */
    TAILQ_ENTRY(edge_session) ready;  /* while ready_state is READY */
    TAILQ_ENTRY(edge_session) wheel;  /* always; slot says where */
    TAILQ_ENTRY(edge_session) attach; /* while attach_state is QUEUED */
    TAILQ_ENTRY(edge_session) ack;    /* while ack_waits */
    TAILQ_HEAD(, edge_request) requests;
    unsigned n_requests;
    uint16_t slot;

    edge_state state;
    edge_attach_state attach_state;
    edge_ready ready_state;
    edge_codec_kind codec;
    bool ack_waits;   /* acked is to be told to the router */
    bool inactive;    /* what the client said with `state` */
    bool close_shown; /* the shell was given close_code */
    uint16_t close_code;

    char *token;  /* of the socket, until hello */
    char *user;   /* qualified; NULL before hello */
    char *device; /* bare */
    char *name;   /* display name; NULL: none */
    uint64_t hello_id;
    uint64_t attempt; /* the hello's number by the device's own count, 0: none */

    bool has_cursor; /* an inbox position is known: from hello or from Attached */
    bool attached_once;
    uint64_t era;
    uint64_t forwarded; /* last inbox entry given to the client */
    uint64_t acked;     /* last one it has stored */
    uint64_t acked_sent;
    uint64_t head;     /* of the inbox, as far as known */
    uint64_t live_at;  /* `live` is said when forwarded reaches it */
    uint64_t stuck_at; /* forwarded + 1 when the last heads showed more than was forwarded; 0: they did not */
    uint64_t generation;
    uint64_t attach_corr; /* of the attach on its way */
    mesh_peer router;     /* that the last attach went to */
    uint8_t attach_tries; /* without success */

    mesh_ms opened;
    mesh_ms seen;        /* last sign of life */
    mesh_ms token_until; /* monotonic */
    mesh_ms attach_at;   /* WAIT: try again then */
    mesh_ms heard_at;    /* DONE: its router last said something of this session */
    mesh_ms drain_at;    /* say reconnect then; MESH_NEVER: not draining */
    mesh_ms closed_at;   /* CLOSED since; DRAINING: close then */
    mesh_ms progress_at; /* the queue was empty, or some of it went out */

    edge_limit limit;
    edge_limit patience; /* refusals it may still cause: they come back at the rate, and none left is a flood */
    mesh_buf queue;      /* whole frames, but for what was written of the first */
    size_t queue_start;  /* bytes of queue that were written */
    size_t chunk;        /* bytes shown to the shell and not yet written: they stay one piece */
};

const char *edge_state_name(edge_state state);
/* The one place where state changes; a move that the table does not allow is our mistake. */
void edge_session_move(edge_session *s, edge_state to);

/* ---- queue ---- */
size_t edge_session_queued(const edge_session *s);
/* What to write next: whole frames, about EDGE_CHUNK bytes of them, or what is left of the last answer. */
mesh_slice edge_session_chunk(edge_session *s);
void edge_session_taken(edge_session *s, size_t bytes); /* at most queued; memory is freed when nothing is left */
void edge_session_drop_queue(edge_session *s);

#define EDGE_CHUNK (64u * 1024)

#endif
