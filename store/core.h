/* store/core.h: one replica of one shard, as a pure step over a store_kv: messages and time in, messages out.
 *
 * The replicas of a shard are a Raft group (store/consensus.h, store/group.h). The leader does what follows; the others
 * apply the same log and say who leads.
 *
 * Writes (send, chat_create, chat_edit, read, attach, inbox_ack, append, profile, and the store's own ring_set,
 * genesis, outbox_done) are gathered as they come and become one log entry (a mesh frame of the packed messages, led by
 * a stamp) per round; when it is committed they are applied in order and each is answered. Reads (history, members,
 * heads, user_chats, inbox_read) are answered by the leader when it is known to lead still: see store/reign.c. Applying
 * is deterministic: nothing but the entry's bytes and the rows decides, so replay after a crash gives the same rows.
 *
 * What goes wrong: not the leader -> FAULT_NOT_LEADER; gather buffer full -> FAULT_BUSY; free space under the watermark
 * -> FAULT_DISK_FULL for writes, and the leadership goes to a replica that has space, if there is one; the kv failed ->
 * store_core_error, nothing is answered any more. The owner then drops what the core has put out since its last turn,
 * too: it may rest on what could not be read. */
#ifndef STORE_CORE_H
#define STORE_CORE_H

#include "mesh/clock.h"
#include "mesh/conf.h"
#include "mesh/out.h"
#include "mesh/stats.h"
#include "store/kv.h"

#define STORE_ENTRY_SOFT_MAX (256u * 1024)         /* a log entry is closed at this size, or after one message */
#define STORE_READS_MAX (4u * 1024 * 1024)         /* bytes of reads waiting for a leader's proof; beyond: FAULT_BUSY */
#define STORE_MSG_MAX (1000u * 1024)               /* one message from a router; with its frame it fits a log entry */
#define STORE_GATHER_MAX (16u * 1024 * 1024)       /* bytes waiting for a log entry; beyond: FAULT_BUSY */
#define STORE_OUTBOX_WINDOW 4096                   /* items being delivered; the rest waits in rows */
#define STORE_OUTBOX_BACKLOG_MAX 1000000           /* items owed; beyond: sends are answered FAULT_BUSY */
#define STORE_OUTBOX_FLIGHT_MAX (8u * 1024 * 1024) /* bytes of parcels one router has not answered; the rest waits */
#define STORE_OUTBOX_SICK_MS 1500 /* a lane (router, shard) that confirms nothing for so long keeps its probes only */
#define STORE_OUTBOX_SICK_FULL_MS 500 /* the same while the window is full */
#define STORE_OUTBOX_PROBES 4         /* the oldest parcels of such a lane; the others are put aside */
#define STORE_OUTBOX_BACK_MAX 1024    /* items of the window that were put aside and came back */
#define STORE_OUTBOX_LANE_BACK 256    /* parcels of one lane among them: the others find room, too */
#define STORE_RESEND_MS 1000          /* a parcel without answer is sent again; doubles up to 8 times this */
#define STORE_SPACE_HANDOVER_MS 10000 /* a leader short of space hands over once in this time at most */
#define STORE_LEASE_MS 2500           /* a router not heard of for this long leaves the ring */
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
    uint64_t seed;            /* era and raft id of a new database, election jitter */
    const char *path;         /* of the kv, for a copy beside it; NULL: this replica can take none. Copied */
    bool lost;                /* store_kv_is_lost: it had data, and has not voted since */
    store_kv_options options; /* of such a copy */
    mesh_stats *stats;        /* store_metrics_new; borrowed: counters go on from core to core. NULL: its own */
} store_core_conf;

/* What the owner has to do, in whose hands the database is. */
typedef enum store_verdict {
    STORE_GO_ON,
    STORE_REOPEN,       /* destroy this core, close the kv, open both again */
    STORE_REOPEN_LATER, /* the same after a while: this disk could not take a copy */
    STORE_SWITCH,       /* the same, with store_kv_switch in between: a copy of another replica's rows is ready */
    STORE_QUARANTINE    /* the same, with store_kv_quarantine in between: a peer says that this data is out of date */
} store_verdict;

/* Start on an open kv (borrowed for the core's life): loads, replays the log. why says what is refused.
 * Errors: MESH_CORRUPT, MESH_CONFLICT another cluster's data. */
MESH_MUST mesh_err store_core_new(const store_core_conf *conf, store_kv *kv, mesh_time now, store_core **core_p,
                                  char *why, size_t why_size);
void store_core_destroy(store_core **core_p);

/* One message from a router, an operator or another store of the shard. Bad ones are counted and dropped. msg and
 * packed are borrowed for the call. */
void store_core_message(store_core *core, mesh_peer from, const Mesh__Msg *msg, mesh_slice packed, mesh_time now,
                        mesh_out *out);
void store_core_up(store_core *core, mesh_peer peer, uint64_t boot, mesh_time now, mesh_out *out);
void store_core_down(store_core *core, mesh_peer peer, mesh_time now, mesh_out *out);
/* End of turn: submit what was gathered, take in what became durable, resend, expire leases. Returns the next deadline.
 */
mesh_ms store_core_turn(store_core *core, mesh_time now, mesh_out *out);
store_verdict store_core_verdict(const store_core *core);    /* look after each turn */
bool store_core_votes(const store_core *core);               /* a voter of its group: no longer lost */
void store_core_refuse_all(store_core *core, mesh_out *out); /* whoever waits: FAULT_NOT_LEADER; before it goes */
void store_core_leave(store_core *core);                     /* about to stop: leads no longer than it must */
void store_core_set_space(store_core *core, bool enough);    /* the watermark, judged by the shell */
mesh_err store_core_error(const store_core *core);           /* MESH_OK, or why this core is finished */
bool store_core_quiet(const store_core *core);               /* nothing gathered and nothing uncommitted: may stop */
mesh_stats *store_core_stats(store_core *core);              /* borrowed */
/* As Prometheus text, what has no fixed list: the members of the group with what is known of their logs, the live
 * routers and how many slots each shard has. */
void store_core_print_group(const store_core *core, mesh_buf *out);

#endif
