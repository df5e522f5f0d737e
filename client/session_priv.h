/* client/session_priv.h: shared by client/session.c (life, states, timers), client/session_in.c (what the server says)
 * and client/session_out.c (what is said to it) only. */
#ifndef CLIENT_SESSION_PRIV_H
#define CLIENT_SESSION_PRIV_H

#include "client/requests.h"
#include "client/session.h"
#include "mesh/rand.h"
#include "mesh/table.h"

#define CLIENT_HEARTBEAT_MS 30000 /* until welcome says otherwise */
#define CLIENT_WHY_MAX 160

typedef struct client_mark { /* highest seq of a chat told to the owner in this era */
    uint64_t seq;
    char chat[];
} client_mark;

struct client_session {
    const client_handler *handler;
    void *arg;
    void (*work)(void *arg);
    void *work_arg;
    char *token;
    char *device;
    char *software;
    bool in_order;
    client_state state;
    mesh_rand rand;
    uint64_t next_id;
    client_cursor cursor;
    mesh_table *marks; /* chat -> client_mark; made with the first message */
    client_requests requests;
    mesh_buf out; /* frames ready to leave */
    uint64_t hello_id;
    uint64_t attempt_base; /* for a hello at attempt_from, 0: hellos have no numbers */
    mesh_ms attempt_from;
    uint64_t attempt; /* of the last hello */
    uint64_t ping_id; /* of the ping on its way, 0: none */
    uint64_t acked;
    uint32_t stop_code;
    unsigned failures; /* connections in a row that came to nothing */
    mesh_ms connect_at;
    mesh_ms step_at; /* when CONNECTING or HELLO began */
    mesh_ms heartbeat;
    mesh_ms last_in;
    mesh_ms last_out;
    mesh_ms ask_at;       /* first thing sent since last_in that calls for an answer, MESH_NEVER: none */
    mesh_ms ack_at;       /* MESH_NEVER: nothing to ack */
    mesh_ms ping_at;      /* an early look at the head, MESH_NEVER: none */
    mesh_ms reconnect_at; /* told to move, MESH_NEVER: no */
    mesh_ms retry_at;     /* a delayed request is due */
    mesh_ms oldest_sent;
    client_cursor suspect; /* where the cursor stood when the head was last seen beyond it */
    client_counts counts;
    char why[CLIENT_WHY_MAX];
};

/* session.c */
void client_session_move(client_session *s, client_state to);
/* The connection is of no more use: the transport shall close it; connect again at connect_at. */
void client_session_give_up(client_session *s, const char *why, mesh_ms connect_at);
void client_session_forget(client_session *s);                              /* the marks */
void client_session_end(client_session *s, uint32_t code, const char *why); /* for good */
mesh_ms client_session_draw(client_session *s, mesh_ms limit);              /* 0..limit */
mesh_ms client_session_backoff(client_session *s); /* how long to wait after one more failure */

/* session_out.c */
void client_session_put_hello(client_session *s, mesh_ms now);
void client_session_put_ping(client_session *s, mesh_ms now);
void client_session_put_ack(client_session *s, mesh_ms now);
void client_session_pump(client_session *s, mesh_ms now); /* requests that may go now */

static inline bool client_session_connected(const client_session *s)
{
    return s->state == CLIENT_HELLO || s->state == CLIENT_READY;
}

static inline mesh_ms client_session_earlier(mesh_ms a, mesh_ms b)
{
    return a < b ? a : b;
}

#endif
