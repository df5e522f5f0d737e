/* router/core.h: one router, as a pure step: messages and time in, messages out. Everything in it is soft state,
 * rebuilt from edges and stores; no promise rests on it.
 *
 * Chat requests: remembered under a correlation id of its own, sent to the leader of the chat's shard, answered to the
 * edge. `chats` takes two steps: the user's rows from store(user), then heads from store(chat), put together here; a
 * chat whose shard does not answer within ROUTER_LIST_WAIT_MS is listed as unavailable. User side: sessions are
 * attached here; deliver from an outbox becomes append at store(user); what was appended is given to the live sessions
 * whose `next` it is; other sessions are fed from the store by inbox_read. Then the outbox is told.
 *
 * A session is sent only entry `next`, while next - 1 - acked < ROUTER_CREDIT. From memory if at hand (the append that
 * was just answered), otherwise by inbox_read, one at a time per session. A live entry beyond next only raises `head`.
 *
 * What goes wrong: a store does not lead, is down or says nothing -> the request is sent again to whoever leads the
 * shard (router/leaders.h, router/tries.c), FAULT_UNAVAILABLE at its deadline, or at once when the shard's only store
 * is down already; in-flight table or its bytes full -> FAULT_BUSY; edge down -> its sessions are forgotten; not the
 * owner of the slot by its ring -> FAULT_NOT_OWNER with the epoch; refused by a store with NOT_OWNER -> every session
 * of that slot is dropped and the edges re-attach by the ring. */
#ifndef ROUTER_CORE_H
#define ROUTER_CORE_H

#include "mesh/clock.h"
#include "mesh/conf.h"
#include "mesh/out.h"
#include "mesh/ring.h"
#include "mesh/stats.h"

#define ROUTER_INFLIGHT_MAX 65536 /* requests without an answer */
#define ROUTER_HELD_BYTES_MAX                                                                                          \
    (64u * 1024 * 1024)             /* of requests without an answer, kept to be sent again; beyond: FAULT_BUSY */
#define ROUTER_TRY_MS 1000          /* a store without any answer for so long is not the one to wait for */
#define ROUTER_LIST_WAIT_MS 1500    /* a chat list waits no longer for the chats' shards, nor half its asker's time */
#define ROUTER_USER_SESSIONS_MAX 20 /* of one user; one more replaces the longest attached */
#define ROUTER_LIVE_TARGETS 1000    /* in one Live; more targets of an edge go in another */
#define ROUTER_CREDIT 256           /* unacked entries per session */
#define ROUTER_TOLD_MS 500          /* a store that acts on an earlier ring is told this one so often at most */
#define ROUTER_HEADS_MS 5000        /* every live session's head is repeated this often */
#define ROUTER_LEASE_RENEW_MS 500
#define ROUTER_PULL_ROWS 128 /* entries per inbox_read */
#define ROUTER_DELIVER_BYTES_MAX                                                                                       \
    (32u * 1024 * 1024) /* deliveries held for their append's answer; beyond: Delivered.retry */

typedef struct router_core router_core;

typedef struct router_core_conf {
    const mesh_conf *conf; /* borrowed for the core's life */
    mesh_peer self;
    uint64_t boot;
} router_core_conf;

router_core *router_core_new(const router_core_conf *conf, mesh_time now);
void router_core_destroy(router_core **core_p);
void router_core_message(router_core *core, mesh_peer from, const Mesh__Msg *msg, mesh_slice packed, mesh_time now,
                         mesh_out *out);
void router_core_up(router_core *core, mesh_peer peer, uint64_t boot, mesh_time now, mesh_out *out);
void router_core_down(router_core *core, mesh_peer peer, mesh_time now, mesh_out *out);
mesh_ms router_core_turn(router_core *core, mesh_time now,
                         mesh_out *out); /* deadlines, lease, heads; returns the next */
void router_core_leave(router_core *core, mesh_time now,
                       mesh_out *out);                          /* drain: give up the lease, take nothing new */
bool router_core_quiet(const router_core *core, mesh_time now); /* out of the ring, nothing in flight: may stop */
mesh_stats *router_core_stats(router_core *core);

#endif
