/* store/consensus.h: this replica's part in its shard's Raft group. With store/consensus_*.c the only caller of libraft
 * (exactly 0.22.1), through its pure core raft_step. Hard state, log and snapshot metadata are rows of the same
 * store_kv as the data.
 *
 *   submit(payload) -> log row queued with sync, and sent to the others -> durable on a majority of the voters
 *                   -> raft commits -> committed(index, payload) to the owner, on every replica
 *
 * A group of one voter elects itself at start and commits on its own fsync: the same code path as three. An entry is
 * handed to the owner exactly once per start, in index order, from the applied index on; the owner writes its own rows
 * and STORE_APPLIED in one unsynced batch: same WAL, same order, so a lost tail is only what the log still has. An
 * entry may be handed over before it is on this replica's own disk: its row was queued before, and reads see it.
 *
 * No sockets, no clock, no randomness: what is to be sent goes out through a callback, what came in through
 * store_consensus_receive. Messages may be lost, doubled, late and out of order.
 *
 * A replica that needs more than the leader's log still has wants a copy of the state: see
 * store_consensus_wants_state. */
#ifndef STORE_CONSENSUS_H
#define STORE_CONSENSUS_H

#include "mesh.pb-c.h"
#include "mesh/clock.h"
#include "store/kv.h"

#define STORE_PIPELINE 4             /* entries the owner lets be uncommitted: the rest gathers */
#define STORE_ELECTION_MS 300        /* a follower that hears nothing for one to two of these stands for election */
#define STORE_HEARTBEAT_MS 50        /* a leader is heard at least this often */
#define STORE_MEMBERS_MAX 16         /* of a configuration, voters or not */
#define STORE_CONFIRMED_SAVE_MS 1000 /* what replicas have confirmed is written at most this often */
#define STORE_ADDRESS_SIZE 256       /* of a replica's address, with the NUL */
#define STORE_LOG_ENTRY_MAX                                                                                            \
    (1020u * 1024) /* bytes of one payload: a message with one such entry is below MESH_MSG_MAX */
#define STORE_APPEND_SOFT_MAX (256u * 1024) /* entries of one message: closed at this size, or after one if larger */
#define STORE_APPEND_ENTRIES 64             /* in one message, and sent to one replica and not yet confirmed */
#define STORE_APPEND_BURST                                                                                             \
    (4u * 1024 * 1024) /* bytes of entries sent to one replica at once; the rest waits for its answer */

typedef struct store_consensus store_consensus;

typedef struct store_replica {
    uint64_t raft_id;    /* never 0; never used again for a replica that lost its data */
    const char *address; /* the node's name */
} store_replica;

typedef enum store_member_role {                    /* numbers as in libraft, and on disk */
                                 STORE_STANDBY = 0, /* gets the log, has no vote */
                                 STORE_VOTER = 1,
                                 STORE_SPARE = 2, /* gets nothing, has no vote */
} store_member_role;

typedef struct store_replica_role {
    uint64_t raft_id;
    const char *address;
    store_member_role role;
} store_replica_role;

/* msg and to_address are borrowed for the call. Losing it is always allowed; waiting is not. Must not call back. */
typedef void store_send(void *arg, uint64_t to, const char *to_address, const Mesh__Raft *msg);

/* payload is borrowed for the call. own: it was submitted here, since this start, and the leadership was not lost
 * since. May call store_consensus_submit, nothing else that changes anything. */
typedef void store_committed(void *arg, uint64_t index, uint64_t term, mesh_slice payload, bool own);

typedef struct store_consensus_conf {
    uint64_t raft_id;    /* used when the database is new; otherwise the one on disk counts */
    const char *cluster; /* an existing database of another cluster is refused */
    const char *address; /* of this replica, in the configuration */
    uint64_t seed;       /* different in each replica, or their elections collide */
    uint64_t trail;      /* bytes of log kept for laggards; 0 = 64 MiB */
    /* What a new database is made of. The same on all replicas of the group in whatever order, and raft_id is in it.
     * n_group 0: a joiner. It starts with an empty log and waits until a leader has added it. */
    const store_replica *group;
    size_t n_group;
    uint32_t shard;                    /* named in each message */
    mesh_ms election_ms, heartbeat_ms; /* 0 = the defaults above */
    store_send *send;                  /* called with the arg of committed; NULL: nobody to talk to */
} store_consensus_conf;

/* Load from kv, bootstrapping a new group when it is empty, and start. applied: the owner's applied index (0 = none).
 * Entries after it that are committed come through committed, some maybe before this returns. Errors: MESH_CORRUPT a
 * hole in the log or rows that do not fit; MESH_CONFLICT another cluster's data; MESH_UNSUPPORTED data of a later
 * format; what ended the kv. */
MESH_MUST mesh_err store_consensus_open(const store_consensus_conf *conf, store_kv *kv, uint64_t applied, mesh_time now,
                                        store_committed *committed, void *arg, store_consensus **cons_p, char *why,
                                        size_t why_size);
void store_consensus_close(store_consensus **cons_p);
/* The raft id in this database. 0: none, an open would make a new one. */
uint64_t store_consensus_stored_id(store_kv *kv);

/* ---- running ---- */

/* Append an entry. payload is copied. Errors: MESH_STALE not the leader, or a transfer of leadership runs;
 * MESH_TOO_BIG more than STORE_LOG_ENTRY_MAX. */
MESH_MUST mesh_err store_consensus_submit(store_consensus *cons, mesh_slice payload, mesh_time now, uint64_t *index_p);
/* A message from another replica; the link knows that msg->from_address is who sent it. May call committed. Errors,
 * with nothing changed: MESH_MALFORMED no replica that works says this; MESH_STALE not for this replica (any more), too
 * late, or nothing is taken just now; what ended the kv. */
MESH_MUST mesh_err store_consensus_receive(store_consensus *cons, const Mesh__Raft *msg, mesh_time now);
/* The kv made progress (or time passed): may call committed. */
void store_consensus_step(store_consensus *cons, mesh_time now);
mesh_ms store_consensus_deadline(const store_consensus *cons);
/* Drop log entries up to applied (its batch on disk), keeping trail bytes or more for laggards. Call it often: it acts
 * only when more than 4096 entries or more than the trail can go, and drops at most 16384 at once. */
void store_consensus_trim(store_consensus *cons, uint64_t applied, mesh_time now);

/* ---- how it is ---- */

typedef enum store_role { STORE_FOLLOWER, STORE_CANDIDATE, STORE_LEADER, STORE_WANTS_STATE } store_role;

store_role store_consensus_role(const store_consensus *cons);
bool store_consensus_leader(const store_consensus *cons); /* role is STORE_LEADER */
/* Leader, and all that earlier leaders left was handed over: the owner's rows are all there is. */
bool store_consensus_ready(const store_consensus *cons);
/* Grows with every gain and every loss of leadership. An entry submitted under another number than this one and not yet
 * handed over is unknown: it may be lost, or be committed later as somebody else's. */
uint64_t store_consensus_reign(const store_consensus *cons);
/* "" when unknown; this replica's own when it leads. Borrowed until the next call that is not const. */
const char *store_consensus_leader_address(const store_consensus *cons);
uint64_t store_consensus_id(const store_consensus *cons); /* the raft id in force */
unsigned store_consensus_voters(const store_consensus *cons);
/* Entries in the log and not yet known to be committed. */
unsigned store_consensus_uncommitted(const store_consensus *cons);
uint64_t store_consensus_term(const store_consensus *cons);
uint64_t store_consensus_last_index(const store_consensus *cons);
uint64_t store_consensus_commit(const store_consensus *cons);
/* The lowest entry after which this log can go on at a replica that has it. */
uint64_t store_consensus_goes_on_from(const store_consensus *cons);
/* Bytes of the entries after index, to within a STORE_LOG_MARKS-th of the trail; 0: it has none. */
uint64_t store_consensus_log_bytes(const store_consensus *cons, uint64_t index);
/* It leads, or once since the open it had all that its leader called committed. */
bool store_consensus_follows(const store_consensus *cons);
/* Up to here every committed entry has been given to the owner, or is one that the owner has nothing to do with (a
 * change of membership): equal to commit when nothing is left to apply. */
uint64_t store_consensus_done(const store_consensus *cons);
/* What the replica is known to have on disk of this leader's log; 0 = nothing is known, or not the leader. */
uint64_t store_consensus_match(const store_consensus *cons, uint64_t raft_id);

/* ---- what replicas have confirmed ---- */

/* All up to index is committed, and was on this replica's disk. That is true for ever, whoever leads and whatever the
 * term: a replica of this id with a shorter log has not the data that it had. The leader sees it, the others are told;
 * everybody keeps it, over restarts what is older than STORE_CONFIRMED_SAVE_MS. */
typedef struct store_confirmed {
    uint64_t raft_id, index;
} store_confirmed;

uint64_t store_consensus_confirmed(const store_consensus *cons, uint64_t raft_id); /* 0: nothing is known */
size_t store_consensus_confirmed_all(const store_consensus *cons, store_confirmed list[STORE_MEMBERS_MAX]);
/* A peer's word. Of an id that is no member here nothing is kept. */
void store_consensus_learn(store_consensus *cons, uint64_t raft_id, uint64_t index);
void store_consensus_take_stock(store_consensus *cons); /* at the leader: learn what members have confirmed by now */
uint64_t store_consensus_learnt(const store_consensus *cons); /* grows with everything that is learnt */
/* This replica's log is shorter than what it had confirmed: it must not vote, nor confirm anything. */
bool store_consensus_forgot(const store_consensus *cons);

/* ---- members ---- */

/* Submit a whole new configuration. At most one member may differ, so that any two majorities meet: added (not as a
 * voter), another role, or gone (not while a voter; the leader transfers first). A new voter should be caught up, see
 * below. It is in force at once and done when store_consensus_changing is false again. Errors: MESH_STALE not the
 * leader; MESH_AGAIN a change, a catch-up or the first entry of this leader is still under way, or a new voter has not
 * got the log up to the configuration in force; MESH_CONFLICT the list itself is no configuration; MESH_DENIED more
 * than one step. */
MESH_MUST mesh_err store_consensus_change(store_consensus *cons, const store_replica_role *list, size_t n,
                                          mesh_time now);
bool store_consensus_changing(
    const store_consensus *cons); /* the configuration in force is not known to be committed */
/* Members in force, at most cap into list; returns how many there are. Addresses are borrowed until the next call that
 * is not const. */
size_t store_consensus_configuration(const store_consensus *cons, store_replica_role *list, size_t cap);

typedef enum store_catch_up {
    STORE_CATCH_UP_NONE,
    STORE_CATCH_UP_RUNNING,
    STORE_CATCH_UP_FAILED,
    STORE_CATCH_UP_DONE
} store_catch_up;

/* Watch a member without a vote come close to the end of the log. It fails when that takes too long; ask again then.
 * Errors: MESH_STALE not the leader; MESH_NOT_FOUND no such member, or it votes; MESH_AGAIN one runs. */
MESH_MUST mesh_err store_consensus_catch_up(store_consensus *cons, uint64_t raft_id, mesh_time now);
store_catch_up store_consensus_catch_up_state(const store_consensus *cons, uint64_t raft_id);
/* Hand the leadership to a voter (0: the one that is furthest). Nothing can be submitted until it is done or an
 * election timeout has passed. Errors: MESH_STALE not the leader or one runs; MESH_NOT_FOUND no such other voter. */
MESH_MUST mesh_err store_consensus_transfer(store_consensus *cons, uint64_t raft_id, mesh_time now);

/* ---- a copy of the state instead of the log ---- */

/* What the copy must stand for at least: a state with applied >= index holds all up to there. */
typedef struct store_manifest {
    uint64_t index, term, conf_index;
    mesh_slice conf; /* borrowed until the close */
} store_manifest;

/* True: the leader has trimmed what this replica lacks. From then on nothing is stepped here: messages are refused, no
 * timer runs. The owner fetches the shard's rows (store/transfer.h) from any replica whose applied index is
 * manifest->index or more, adds store_consensus_install_put in the last batch, closes this and opens the copy. When
 * that fails it closes and opens the old database again, which forgets the wish. A replica that has itself applied
 * manifest->index or more fetches nothing: it puts the rows into its own database, closes and opens. */
bool store_consensus_wants_state(const store_consensus *cons, store_manifest *manifest, const char **leader_address);
/* What makes a copy this replica's database: its own id, term and vote, the manifest, and an empty log. own: the
 * database in use, whose log goes, or NULL for a copy, which has none. cons wants state. Write the batch with sync. */
void store_consensus_install_put(const store_consensus *cons, store_kv *own, store_kv_batch *batch);
/* What makes rows without a log, which stand for index (> 0) of term (> 0), the database of a new group of one voter:
 * hard state and snapshot for conf->raft_id, conf->address and conf->cluster. An open then leads a later term. */
void store_consensus_found_put(const store_consensus_conf *conf, uint64_t index, uint64_t term, store_kv_batch *batch);
/* What the database of a stopped replica says of its part in its group. Whether the end of a log is committed is known
 * by a majority, and on the disk of one replica only in part: a commit index is not written down. */
typedef struct store_left {
    uint64_t raft_id, term;           /* term: the highest it has heard of */
    uint64_t last;                    /* entry that it has, in the log or in its rows */
    uint64_t proven;                  /* all up to here is committed; what follows, up to last, may be or not */
    unsigned voters;                  /* of the last configuration in the log; 0: there is none */
    bool alone;                       /* it is the only one of them: all it has is committed */
    char address[STORE_ADDRESS_SIZE]; /* in that configuration, "" when it is not there */
} store_left;
/* applied: of the rows. Errors: MESH_CORRUPT a hole in the log, rows that do not fit, no store's database;
 * MESH_UNSUPPORTED another format; MESH_IO. */
MESH_MUST mesh_err store_consensus_left(store_kv *kv, uint64_t applied, store_left *left, char *why, size_t why_size);

#endif
