/* store/core.h: one replica of one shard, as a pure step over a store_kv: messages and time in, messages out.
 *
 * Writes (send, chat_create, chat_edit, read, attach, inbox_ack, append, profile, and the store's own ring_set,
 * genesis, outbox_done) are gathered as they come and become one log entry (a mesh frame of the packed messages, led by
 * a stamp) per round; when it is committed they are applied in order and each is answered. Reads (history, members,
 * heads, user_chats, inbox_read) are answered at once by the leader. Applying is deterministic: nothing but the entry's
 * bytes and the rows decides, so replay after a crash gives the same rows.
 *
 * What goes wrong: not the leader -> FAULT_NOT_LEADER; gather buffer full -> FAULT_BUSY; free space under the watermark
 * -> FAULT_DISK_FULL for writes; the kv failed -> store_core_error, nothing is answered any more. */
#ifndef STORE_CORE_H
#define STORE_CORE_H

#include "mesh/clock.h"
#include "mesh/conf.h"
#include "mesh/out.h"
#include "mesh/stats.h"
#include "store/kv.h"

#define STORE_ENTRY_SOFT_MAX (256u * 1024)         /* a log entry is closed at this size, or after one message */
#define STORE_GATHER_MAX (16u * 1024 * 1024)       /* bytes waiting for a log entry; beyond: FAULT_BUSY */
#define STORE_OUTBOX_WINDOW 4096                   /* items being delivered; the rest waits in rows */
#define STORE_OUTBOX_BACKLOG_MAX 1000000           /* items owed; beyond: sends are answered FAULT_BUSY */
#define STORE_OUTBOX_FLIGHT_MAX (8u * 1024 * 1024) /* bytes of parcels one router has not answered; the rest waits */
#define STORE_RESEND_MS 1000 /* a parcel without answer is sent again; doubles up to 8 times this */
#define STORE_LEASE_MS 2500  /* a router not heard of for this long leaves the ring */
#define STORE_GROUP_MEMBERS_MAX 1000
#define STORE_DEVICES_MAX 20
#define STORE_USER_CHATS_MAX 10000 /* in the list; beyond: no new chat with this user is begun */
#define STORE_SPANS_MAX 64         /* times one user may be re-added to one chat */
#define STORE_INBOX_KEEP_MS (30LL * 24 * 3600 * 1000)
#define STORE_INBOX_INLINE 512 /* longer bodies are read from the chat on delivery */
#define STORE_PAGE_BYTES (256u * 1024)
#define STORE_PAGE_ROWS 200
#define STORE_PAGE_ELEMENTS 4096 /* as mesh/wire.c counts: a page passes no receiver's MESH_WIRE_ELEMENTS */

typedef struct store_core store_core;

typedef struct store_core_conf {
    const mesh_conf *conf; /* borrowed for the core's life */
    mesh_peer self;
    uint64_t seed; /* era and raft id of a new database, election jitter */
} store_core_conf;

/* Start on an open kv (borrowed for the core's life): loads, replays the log. why says what is refused.
 * Errors: MESH_CORRUPT, MESH_CONFLICT another cluster's data. */
MESH_MUST mesh_err store_core_new(const store_core_conf *conf, store_kv *kv, mesh_time now, store_core **core_p,
                                  char *why, size_t why_size);
void store_core_destroy(store_core **core_p);

/* One message from a router. Bad ones are counted and dropped. msg and packed are borrowed for the call. */
void store_core_message(store_core *core, mesh_peer from, const Mesh__Msg *msg, mesh_slice packed, mesh_time now,
                        mesh_out *out);
void store_core_up(store_core *core, mesh_peer peer, uint64_t boot, mesh_time now, mesh_out *out);
void store_core_down(store_core *core, mesh_peer peer, mesh_time now, mesh_out *out);
/* End of turn: submit what was gathered, take in what became durable, resend, expire leases. Returns the next deadline.
 */
mesh_ms store_core_turn(store_core *core, mesh_time now, mesh_out *out);
void store_core_set_space(store_core *core, bool enough); /* the watermark, judged by the shell */
mesh_err store_core_error(const store_core *core);        /* MESH_OK, or why this core is finished */
bool store_core_quiet(const store_core *core);            /* nothing gathered and nothing uncommitted: may stop */
mesh_stats *store_core_stats(store_core *core);           /* borrowed */

#endif
