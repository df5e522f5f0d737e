/* router/state.h: what the files of the router core share. Private to router/. */
#ifndef ROUTER_STATE_H
#define ROUTER_STATE_H

#include <stdlib.h>
#include <string.h>

#include "mesh/fault.h"
#include "router/core.h"
#include "router/leaders.h"
#include "router/registry.h"
#include "router/requests.h"
#include "router/share.h"

typedef enum router_stat {
    ROUTER_STAT_FORWARDED,
    ROUTER_STAT_FAULTS,
    ROUTER_STAT_MALFORMED,
    ROUTER_STAT_LATE,
    ROUTER_STAT_EXPIRED,
    ROUTER_STAT_BUSY,
    ROUTER_STAT_DELIVERS,
    ROUTER_STAT_DELIVER_RETRY,
    ROUTER_STAT_GAPS,
    ROUTER_STAT_LIVE,
    ROUTER_STAT_PULLS,
    ROUTER_STAT_PULLED,
    ROUTER_STAT_ATTACHES,
    ROUTER_STAT_REPLACED,
    ROUTER_STAT_NOT_OWNER,
    ROUTER_STAT_SESSIONS,
    ROUTER_STAT_INFLIGHT,
    ROUTER_STAT_EPOCH,
    ROUTER_STAT_RESENT,
    ROUTER_STAT_LEADER_CHANGES,
    ROUTER_STAT_UNAVAILABLE,
    ROUTER_STATS /* then one per shard: is its leader known */
} router_stat;

struct router_core {
    const mesh_conf *conf;
    mesh_peer self;
    uint64_t boot;
    mesh_ms ttl_ms;
    mesh_ring *ring;
    router_leaders *leaders;
    router_requests *requests;
    router_registry *registry;
    mesh_stats *stats;
    mesh_stat_info *stat_infos;
    struct shard_label *shard_labels;
    mesh_arena *arena; /* for what is built or decoded within one call */
    bool *up;          /* by peer */
    mesh_ms *heard;    /* by peer: when a store last answered as one that leads */
    mesh_ms *told;     /* by peer: when a store that acted on an earlier ring was last told this one */
    bool leaving;
    router_share *held_bytes; /* deliveries waiting for their append's answer */
    mesh_ms next_lease;
    mesh_peer lease_to;  /* the store asked last */
    mesh_ms lease_since; /* when it was first asked without an answer; MESH_NEVER: it does not owe one */
    mesh_ms next_heads;
    size_t heads_at; /* which slice of the registry is next */
    struct router_target {
        mesh_peer edge;
        uint64_t session;
        uint64_t inbox_seq, era;
    } * targets; /* scratch of one append's answer */
    size_t targets_cap;
};

/* ---- core.c ---- */
void router_core_fault(router_core *core, mesh_peer to, uint64_t corr, uint64_t trace, mesh_fault code, mesh_out *out);
/* Remember a request to the shard of key and send msg to its leader, now or as soon as there is one, under its own
 * corr. NULL: a fault was answered instead (to `from`, when from is a peer) or, for requests of the router's own,
 * nothing was sent. */
router_request *router_core_ask(router_core *core, router_request_kind kind, const char *key, const Mesh__Msg *msg,
                                mesh_peer from, mesh_time now, mesh_out *out);
/* The same, of this shard, whatever the map says. */
router_request *router_core_ask_shard(router_core *core, router_request_kind kind, uint32_t shard, const Mesh__Msg *msg,
                                      mesh_peer from, mesh_time now, mesh_out *out);
/* Give the answer to whoever asked. */
void router_core_answer(router_core *core, const router_request *req, const Mesh__Msg *answer, mesh_out *out);

mesh_peer router_core_store_of(const router_core *core, const char *key); /* whom to tell; MESH_NO_PEER: nobody is up */
void router_core_heard(router_core *core, mesh_peer store, mesh_time now); /* it answered as one that leads */

/* ---- tries.c ---- */
void router_tries_send(router_core *core, router_request *req, mesh_time now,
                       mesh_out *out); /* now or when it can be */
/* The store said NOT_LEADER or UNAVAILABLE; req: what it was asked, NULL when that is not known (any more). */
void router_tries_refused(router_core *core, mesh_peer store, router_request *req, const Mesh__Fault *fault,
                          mesh_time now, mesh_out *out);
void router_tries_ring(router_core *core, mesh_time now, mesh_out *out); /* the ring changed */
void router_tries_up(router_core *core, mesh_peer store, mesh_time now, mesh_out *out);
void router_tries_down(router_core *core, mesh_peer store, mesh_time now, mesh_out *out);
/* Errors: as router_leaders_leading. */
MESH_MUST mesh_err router_tries_leading(router_core *core, mesh_peer store, uint64_t term, mesh_time now,
                                        mesh_out *out);
mesh_ms router_tries_turn(router_core *core, mesh_time now, mesh_out *out); /* when it has something to do next */

/* ---- relay.c ---- */
void router_relay_ask(router_core *core, mesh_peer from, const Mesh__Msg *msg, mesh_time now, mesh_out *out);

/* ---- lease.c ---- */
void router_lease_renew(router_core *core, mesh_time now, mesh_out *out);
void router_lease_ring(router_core *core, mesh_peer from, const Mesh__Msg *msg, mesh_time now, mesh_out *out);
/* A store that refused something: was it the lease? Then it is asked again soon, of whoever is next. */
bool router_lease_refused(router_core *core, mesh_peer store, uint64_t corr, mesh_time now);
void router_lease_up(router_core *core, mesh_peer store, mesh_time now, mesh_out *out);
void router_lease_moved(router_core *core, mesh_peer store, mesh_time now); /* this store leads, or is gone */
/* Tell the ring to a peer that has no other way to learn it: an edge, or a store of another shard than 0. */
void router_lease_push(router_core *core, mesh_peer peer, mesh_out *out);
/* A store said something and acts on this epoch: is it behind? */
void router_lease_behind(router_core *core, mesh_peer store, uint64_t epoch, mesh_time now, mesh_out *out);

/* ---- attach.c ---- */
void router_attach_ask(router_core *core, mesh_peer from, const Mesh__Msg *msg, mesh_time now, mesh_out *out);
void router_attach_done(router_core *core, router_request *req, const Mesh__Msg *answer, mesh_time now, mesh_out *out);
void router_attach_synced(router_core *core, router_request *req, Mesh__ChatList *list, mesh_time now, mesh_out *out);
void router_attach_failed(router_core *core, const router_request *req);
void router_attach_detach(router_core *core, const Mesh__Detach *detach, mesh_out *out);
void router_attach_ack(router_core *core, const Mesh__Msg *msg, mesh_time now, mesh_out *out);
void router_attach_ack_done(router_core *core, const router_request *req, const Mesh__Msg *answer, mesh_time now,
                            mesh_out *out);
void router_attach_ack_next(router_core *core, router_session *s, mesh_time now, mesh_out *out);
/* The session's user is another router's: its edge is told, should it not see so by the ring. */
void router_attach_moved(router_core *core, router_session *s, mesh_out *out);
/* The session cannot go on from where it is: its edge is told to attach anew, and the client starts from resync. */
void router_attach_resync(router_core *core, router_session *s, mesh_out *out);

/* ---- chats.c: the chat list in two steps ---- */
void router_chats_ask(router_core *core, mesh_peer from, const Mesh__Msg *msg, mesh_time now, mesh_out *out);
void router_chats_for_session(router_core *core, router_session *s, const router_request *attach, mesh_time now,
                              mesh_out *out);
void router_chats_rows(router_core *core, router_request *req, const Mesh__Msg *answer, mesh_time now, mesh_out *out);
void router_chats_heads(router_core *core, const router_request *req, const Mesh__Msg *answer, mesh_time now,
                        mesh_out *out);
void router_chats_late(router_core *core, router_request *list, mesh_time now, mesh_out *out); /* its time is over */

/* ---- fanout.c ---- */
void router_fanout_deliver(router_core *core, mesh_peer from, const Mesh__Msg *msg, mesh_slice packed, mesh_time now,
                           mesh_out *out);
void router_fanout_appended(router_core *core, router_request *req, const Mesh__Msg *answer, mesh_time now,
                            mesh_out *out);
void router_fanout_page(router_core *core, const router_request *req, const Mesh__Msg *answer, mesh_time now,
                        mesh_out *out);
void router_fanout_feed(router_core *core, router_session *s, mesh_time now, mesh_out *out); /* pull if it lags */
void router_fanout_forget(router_core *core, router_request *req); /* free what an append held */
void router_fanout_heads(router_core *core, mesh_time now, mesh_out *out);

#endif
