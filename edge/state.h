/* edge/state.h: what the files of the edge core share. Private to edge/.
 *
 * Up:   request.c looks at a client's frame -> hello.c, uplink.c (checks, qualified ids) -> table.c remembers the
 * request. Down: core.c sorts mesh messages -> answer.c (to one request), downlink.c (pushed), attach.c (attached) ->
 * event.c makes client events of them. timer.c is the wheel of everything a session waits for. */
#ifndef EDGE_STATE_H
#define EDGE_STATE_H

#include "edge/codec.h"
#include "edge/session.h"
#include "mesh/fault.h"
#include "mesh/rand.h"
#include "mesh/table.h"

#define EDGE_TICK_MS 100
#define EDGE_WHEEL 1024          /* buckets of a tick; what is further away is looked at again after a round */
#define EDGE_ATTACH_MS 2000      /* an attach without an answer is sent again */
#define EDGE_ATTACH_RETRY_MS 100 /* first pause after a refused attach, doubled up to EDGE_ATTACH_MS */
#define EDGE_UNHEARD_MS 15000    /* three rounds of heads that do not name a session: its router does not have it */
#define EDGE_ROUTER_WAIT_MS 500  /* look again for a router when there is none */
#define EDGE_ANSWERS_MAX (EDGE_SENDQ_MAX + 1024u * 1024) /* bytes queued with answers; beyond: closed as slow */
#define EDGE_LIMITED_MAX 1000 /* refused frames, less what edge.rate has forgiven since; beyond: closed as flood */
#define EDGE_CLOSE_MS 30000   /* a closed session's last bytes may take this long */
#define EDGE_LINGER_MS 1000   /* from `reconnect` to close, so that answers on their way still come */
#define EDGE_DRAIN_JITTER_MS 1000
#define EDGE_CREDIT 256     /* as ROUTER_CREDIT: told in welcome, and a session without credit is not stuck */
#define EDGE_GROUP_MAX 1000 /* members of a group */
#define EDGE_CHATS_MAX 100  /* chats of one page */

typedef enum edge_stat {
    EDGE_STAT_SESSIONS,
    EDGE_STAT_OPENED,
    EDGE_STAT_HELLOS,
    EDGE_STAT_REFUSED_TOKENS,
    EDGE_STAT_FRAMES,
    EDGE_STAT_MALFORMED,
    EDGE_STAT_ERRORS,
    EDGE_STAT_LIMITED,
    EDGE_STAT_REQUESTS,
    EDGE_STAT_WAITING,
    EDGE_STAT_EXPIRED,
    EDGE_STAT_LOST,
    EDGE_STAT_LATE,
    EDGE_STAT_MESH_MALFORMED,
    EDGE_STAT_PUSHED,
    EDGE_STAT_DUPLICATES,
    EDGE_STAT_STRAYS,
    EDGE_STAT_GAPS,
    EDGE_STAT_STUCK,
    EDGE_STAT_UNHEARD,
    EDGE_STAT_STARVED,
    EDGE_STAT_ATTACHES,
    EDGE_STAT_ATTACH_RETRIES,
    EDGE_STAT_RESYNCS,
    EDGE_STAT_ACKS,
    EDGE_STAT_EPOCH,
    EDGE_STAT_CLOSED_REPLACED,
    EDGE_STAT_CLOSED_HELLO,
    EDGE_STAT_CLOSED_SILENT,
    EDGE_STAT_CLOSED_SLOW,
    EDGE_STAT_CLOSED_FLOOD,
    EDGE_STAT_CLOSED_DRAINING,
    EDGE_STAT_CLOSED_TOKEN,
    EDGE_STAT_CLOSED_OTHER,
    EDGE_STATS
} edge_stat;

struct edge_request { /* one message to a router that has an answer to come */
    uint64_t corr;    /* key of the core's table */
    edge_session *session;
    uint64_t client_id;
    uint64_t trace;
    Mesh__Msg__BodyCase answer; /* the kind it must have, if it is not a fault */
    mesh_peer peer;
    mesh_ms deadline;
    char *name; /* of a profile: becomes the session's when it is done; else NULL */
    TAILQ_ENTRY(edge_request) age;
    TAILQ_ENTRY(edge_request) of_session;
};

TAILQ_HEAD(edge_session_list, edge_session);
TAILQ_HEAD(edge_request_list, edge_request);

typedef struct edge_peer_state {
    bool up;
    uint64_t boot;
} edge_peer_state;

struct edge_core {
    const mesh_conf *conf;
    mesh_peer self;
    mesh_slice token_key;
    int64_t rate, burst, skew_s;
    mesh_ms heartbeat_ms, ttl_ms, drain_ms;
    size_t max_sessions;

    mesh_rand rand;
    mesh_ring *ring;
    mesh_stats *stats;
    mesh_arena *arena; /* for what is decoded or built within one call */
    edge_codec_push push;
    edge_peer_state *peers; /* by peer */

    mesh_table *sessions; /* by id; owns nothing: `all` does */
    struct edge_session_list all, ready, attach_queue, ack_queue;
    mesh_table *requests;               /* by corr */
    struct edge_request_list waiting;   /* of clients, oldest first, which is also by deadline */
    struct edge_request_list attaching; /* attaches, oldest first */
    uint64_t last_corr;
    bool draining;

    struct edge_session_list wheel[EDGE_WHEEL];
    int64_t tick; /* the last one that was looked at */
};

/* ---- stat.c ---- */
mesh_stats *edge_stat_new(void);

/* ---- core.c ---- */
edge_session *edge_core_find(const edge_core *core, edge_session_id id); /* NULL: not here */
void edge_core_close(edge_core *core, edge_session *s, edge_close code, mesh_time now);

/* ---- core_out.c ---- */
/* Queue one event. A session that is closed takes nothing; one with too much queued is closed as slow. */
void edge_core_put(edge_core *core, edge_session *s, const Client__Event *event, mesh_time now);
/* The error event of fault; detail NULL: the table's message. after_ms 0: the table's. */
void edge_core_error(edge_core *core, edge_session *s, uint64_t id, uint32_t fault, uint32_t after_ms,
                     const char *detail, mesh_time now);
void edge_core_done(edge_core *core, edge_session *s, uint64_t id, mesh_time now); /* nothing when id is 0 */
void edge_core_ready(edge_core *core, edge_session *s); /* there is something for the shell to do */
void edge_core_unready(edge_core *core, edge_session *s);

/* ---- timer.c ---- */
void edge_timer_place(edge_core *core, edge_session *s,
                      mesh_time now); /* after anything that may bring its time closer */
void edge_timer_remove(edge_core *core, edge_session *s);
void edge_timer_turn(edge_core *core, mesh_time now);
mesh_ms edge_timer_next(const edge_core *core);

/* ---- table.c: requests on their way ---- */
/* Send msg to the router that owns key and remember who asked; an attach has no client_id. NULL: no such router is up,
 * nothing was sent. */
edge_request *edge_table_ask(edge_core *core, edge_session *s, uint64_t client_id, Mesh__Msg *msg, const char *key,
                             Mesh__Msg__BodyCase answer, mesh_time now, mesh_out *out);
edge_request *edge_table_find(const edge_core *core, uint64_t corr);
void edge_table_log(const edge_request *r, const char *kind, uint32_t fault); /* the end of r's trace */
void edge_table_remove(edge_core *core, edge_request *r);                     /* and free it */
void edge_table_expire(edge_core *core, mesh_time now);
void edge_table_lost(edge_core *core, mesh_peer peer,
                     mesh_time now);                      /* answers unavailable to all that waits for peer */
void edge_table_forget(edge_core *core, edge_session *s); /* all of a session */
mesh_ms edge_table_next(const edge_core *core);
/* The router of key if it is in the ring and up, else MESH_NO_PEER. */
mesh_peer edge_table_router(const edge_core *core, const char *key);
/* Fill what every message carries; corr and ttl stay as they are. */
void edge_table_stamp(edge_core *core, Mesh__Msg *msg, const char *key);

/* ---- request.c ---- */
void edge_request_take(edge_core *core, edge_session *s, const Client__Request *request, mesh_time now, mesh_out *out);

/* ---- hello.c ---- */
void edge_hello_take(edge_core *core, edge_session *s, uint64_t id, const Client__Hello *hello, mesh_time now,
                     mesh_out *out);
void edge_hello_refresh(edge_core *core, edge_session *s, uint64_t id, const Client__Refresh *refresh, mesh_time now);

/* ---- uplink.c: requests that the mesh answers; field checks, then one message to the router of their key ---- */
void edge_uplink_send(edge_core *core, edge_session *s, uint64_t id, const Client__Send *send, mesh_time now,
                      mesh_out *out);
void edge_uplink_read(edge_core *core, edge_session *s, uint64_t id, const Client__Read *read, mesh_time now,
                      mesh_out *out);
void edge_uplink_history(edge_core *core, edge_session *s, uint64_t id, const Client__History *history, mesh_time now,
                         mesh_out *out);
void edge_uplink_chats(edge_core *core, edge_session *s, uint64_t id, const Client__Chats *chats, mesh_time now,
                       mesh_out *out);
void edge_uplink_members(edge_core *core, edge_session *s, uint64_t id, const Client__Members *members, mesh_time now,
                         mesh_out *out);
void edge_uplink_profile(edge_core *core, edge_session *s, uint64_t id, const Client__Profile *profile, mesh_time now,
                         mesh_out *out);
/* ---- uplink_chat.c: what makes and changes chats ---- */
void edge_uplink_chat_create(edge_core *core, edge_session *s, uint64_t id, const Client__ChatCreate *create,
                             mesh_time now, mesh_out *out);
void edge_uplink_chat_update(edge_core *core, edge_session *s, uint64_t id, const Client__ChatUpdate *update,
                             mesh_time now, mesh_out *out);
void edge_uplink_chat_add(edge_core *core, edge_session *s, uint64_t id, const Client__ChatAdd *add, mesh_time now,
                          mesh_out *out);
void edge_uplink_chat_remove(edge_core *core, edge_session *s, uint64_t id, const Client__ChatRemove *remove,
                             mesh_time now, mesh_out *out);
void edge_uplink_chat_leave(edge_core *core, edge_session *s, uint64_t id, const Client__ChatLeave *leave,
                            mesh_time now, mesh_out *out);
/* What both files use: the qualified id in the session's tenant, borrowed from the arena; NULL when id is not valid. */
char *edge_uplink_qualify(edge_core *core, const edge_session *s, const char *id);
/* Send msg as a client's request, or answer unavailable. */
edge_request *edge_uplink_ask(edge_core *core, edge_session *s, uint64_t id, Mesh__Msg *msg, const char *key,
                              Mesh__Msg__BodyCase answer, mesh_time now, mesh_out *out);
void edge_uplink_invalid(edge_core *core, edge_session *s, uint64_t id, const char *detail, mesh_time now);

/* ---- answer.c ---- */
void edge_answer_take(edge_core *core, mesh_peer from, const Mesh__Msg *msg, mesh_time now);

/* ---- downlink.c: what routers push ---- */
void edge_downlink_live(edge_core *core, mesh_peer from, const Mesh__Live *live, mesh_time now);
void edge_downlink_heads(edge_core *core, mesh_peer from, const Mesh__SessionHeads *heads, mesh_time now);
void edge_downlink_replaced(edge_core *core, mesh_peer from, const Mesh__Replaced *replaced, mesh_time now);
void edge_downlink_acks(edge_core *core, mesh_time now, mesh_out *out); /* those that wait, one per session */

/* ---- attach.c ---- */
void edge_attach_want(edge_core *core, edge_session *s); /* again, soon; nothing if one is queued or on its way */
void edge_attach_send(edge_core *core, edge_session *s, mesh_time now, mesh_out *out);
void edge_attach_done(edge_core *core, edge_session *s, const Mesh__Attached *attached, mesh_time now);
void edge_attach_failed(edge_core *core, edge_session *s, uint32_t fault, mesh_time now);
void edge_attach_starve(edge_core *core, edge_session *s);
void edge_attach_stop(edge_core *core, edge_session *s);                   /* to NONE; the session is ending */
void edge_attach_reached(edge_core *core, edge_session *s, mesh_time now); /* says live when it is time */
void edge_attach_ring(edge_core *core, mesh_time now);                     /* the ring changed */
void edge_attach_up(edge_core *core, mesh_peer peer);
void edge_attach_down(edge_core *core, mesh_peer peer, mesh_time now);
void edge_attach_turn(edge_core *core, mesh_time now, mesh_out *out);

/* ---- event.c: structs of the mesh as the client sees them: tenant stripped, borrowed from the arena ---- */
void edge_event_message(mesh_arena *arena, const Mesh__Entry *entry, Client__Message *out);
Client__Summary **edge_event_summaries(mesh_arena *arena, Mesh__Summary *const *chats, size_t n);
char *edge_event_bare(const char *qid);

#endif
