/* client/session.h: one device's conversation with parley, as a pure step: bytes and time in, bytes and calls out. No
 * socket, no clock, random numbers only from a seed; client/socket.c drives it over WebSocket, tests/sim over a fake
 * net.
 *
 * WAITING (until the time to connect) -> CONNECTING -> HELLO (socket open, hello said) -> READY (welcome came) ->
 * CLOSING (the transport has to go) -> WAITING; or STOPPED, when trying again would be wrong (close code 40xx, refused
 * token).
 *
 * In. Every inbox entry must be cursor + 1: lower is dropped, higher is a hole and ends the connection, so that the
 * server sends everything after the cursor again. What is told to the owner is told once per (era, chat, seq). An entry
 * counts as stored when `message` has returned; acks are cumulative, one per CLIENT_ACK_ENTRIES entries or
 * CLIENT_ACK_MS. A lost last entry shows in pong: an inbox head beyond the cursor twice in a row without progress is a
 * hole too.
 *
 * Out. A request is kept until its answer is final: it is sent again, byte for byte (the same client_msg_id), after a
 * reconnect and after an error that says `same` or `later`, when its after_ms is over. At most CLIENT_WINDOW are on
 * their way.
 *
 * What goes wrong: connection lost or silent -> full-jitter backoff (Brooker, "Exponential Backoff And Jitter", 2015);
 * `reconnect` -> new connection after after_ms + random(jitter_ms); nonsense from the server -> counted, connection
 * ended. */
#ifndef CLIENT_SESSION_H
#define CLIENT_SESSION_H

#include <stdbool.h>

#include "client/frame.h"
#include "mesh/clock.h"

#define CLIENT_BACKOFF_BASE_MS 200
#define CLIENT_BACKOFF_CAP_MS 10000
#define CLIENT_ACK_MS 50
#define CLIENT_ACK_ENTRIES 32
#define CLIENT_STEP_MS 10000     /* for connecting, for welcome, and for any sign of life when an answer is due */
#define CLIENT_ANSWER_MS 30000   /* a request without an answer for this long ends the connection (it is sent again) */
#define CLIENT_SUSPECT_MS 5000   /* from one look at the inbox head to the next when it is ahead of us */
#define CLIENT_WINDOW 100        /* requests on their way without an answer */
#define CLIENT_REQUESTS_MAX 8192 /* requests kept altogether */
#define CLIENT_MESSAGE_FRAMES 200
#define CLIENT_MESSAGE_BYTES (256u * 1024) /* of one WebSocket message, or one frame if that is larger */

typedef enum client_state {
    CLIENT_WAITING,
    CLIENT_CONNECTING,
    CLIENT_HELLO,
    CLIENT_READY,
    CLIENT_CLOSING,
    CLIENT_STOPPED,
    CLIENT_STATES
} client_state;

typedef enum client_want { CLIENT_WANT_NOTHING, CLIENT_WANT_CONNECT, CLIENT_WANT_CLOSE } client_want;

typedef struct client_cursor {
    bool known;
    uint64_t era;
    uint64_t inbox_seq;
} client_cursor;

/* Calls to the owner; each may be NULL. What they are given is borrowed for the call. They may add requests; they must
 * not destroy the session. */
typedef struct client_handler {
    void (*state)(void *arg, client_state state); /* after every move */
    void (*welcome)(void *arg, const Client__Welcome *welcome);
    void (*message)(void *arg,
                    const Client__Message *message); /* once each, in inbox order; the cursor is already on it */
    void (*resync)(void *arg, const Client__Resync *resync); /* the cursor is already the new one */
    void (*live)(void *arg, const Client__Live *live);
    void (*answer)(void *arg, uint64_t id,
                   const Client__Event *event); /* final: an answer, or an error not to be repeated */
} client_handler;

typedef struct client_session_conf {
    const char *token;    /* copied */
    const char *device;   /* copied */
    const char *software; /* free text for the operator's log, at most 64 bytes; copied */
    client_cursor cursor; /* where to go on */
    uint64_t attempt;     /* number of a hello said now; later ones get it plus the milliseconds since. 0: no numbers */
    uint64_t seed;        /* jitter and client_msg_ids: two sessions of a user must not share it */
    bool in_order;        /* what changes a chat leaves one at a time, each after the answer of the one before */
} client_session_conf;

typedef struct client_counts { /* since new */
    uint64_t connects, messages, duplicates, gaps, resyncs, repeats, malformed, acks;
} client_counts;

typedef struct client_session client_session;

client_session *client_session_new(const client_session_conf *conf, const client_handler *handler, void *arg,
                                   mesh_ms now);
void client_session_destroy(client_session **s_p);

/* ---- for the owner ---- */
/* Send request when possible; its id is set here and its bytes are copied. *id_p (may be NULL) names the answer.
 * Errors: MESH_FULL CLIENT_REQUESTS_MAX are waiting; MESH_CLOSED the session is stopped. */
MESH_MUST mesh_err client_session_request(client_session *s, Client__Request *request, uint64_t *id_p);
/* Shorter for text to a chat; exactly one of chat and to is not NULL; content_type may be NULL. Errors: as above. */
MESH_MUST mesh_err client_session_send(client_session *s, const char *chat, const char *to, const char *content_type,
                                       const char *body, uint64_t *id_p);
/* A client_msg_id nobody else uses. */
void client_session_msg_id(client_session *s, char out[33]);
void client_session_set_token(client_session *s, const char *token); /* for the next hello; a stopped one tries again */
void client_session_stop(client_session *s, mesh_ms now);            /* close and stay closed */
client_state client_session_state(const client_session *s);
client_cursor client_session_cursor(const client_session *s);
/* Number of the last hello, 0: none yet. In the move to CLIENT_HELLO it is that of the hello about to be said. */
uint64_t client_session_attempt(const client_session *s);
size_t client_session_waiting(const client_session *s);     /* requests without a final answer */
const char *client_session_why(const client_session *s);    /* the last error that ended a connection; never NULL */
uint32_t client_session_stop_code(const client_session *s); /* fault or close code that stopped it; 0: not stopped */
const client_counts *client_session_counts(const client_session *s);
const char *client_state_name(client_state state);

/* ---- for the transport ---- */
/* Called whenever the session has got something to do from outside the transport's own calls. */
void client_session_on_work(client_session *s, void (*work)(void *arg), void *arg);
mesh_ms client_session_turn(client_session *s,
                            mesh_ms now); /* timers; returns the time of the next, MESH_NEVER for none */
client_want client_session_want(const client_session *s, mesh_ms now);
void client_session_connecting(client_session *s, mesh_ms now); /* after WANT_CONNECT: it was begun */
void client_session_opened(client_session *s, mesh_ms now);
/* The transport is gone, asked for or not. close_code: WebSocket's, 0 when there was none. */
void client_session_closed(client_session *s, uint32_t close_code, mesh_ms now);
/* One whole WebSocket message. arena is reset and used for the call; it may be shared by all sessions. */
void client_session_input(client_session *s, mesh_slice bytes, mesh_arena *arena, mesh_ms now);
bool client_session_pending(const client_session *s);                    /* client_session_take would give something */
bool client_session_take(client_session *s, mesh_buf *out, mesh_ms now); /* next WebSocket message, appended to out */

#endif
