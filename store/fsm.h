/* store/fsm.h: the shard's state machine: log entries in, rows and answers out.
 *
 * A log entry is a stamp (u64 little-endian, wall milliseconds of the leader when it was submitted) and a mesh frame.
 * Applying it is deterministic: only its bytes and the rows decide, so every replica and every replay gets the same
 * rows. Of the config only what never changes in a cluster has a part in it (its name, its hash key, whether there is
 * one shard or several); nodes may differ between replicas while a config is rolled out. One entry is one batch with
 * the applied index in it, so an entry is in the rows whole or not at all. Handlers, one per kind of message, are in
 * store/apply_*.c; what they need of each other is here.
 *
 * What goes wrong, and the two are never mixed up:
 *   A row does not read back: LevelDB's checksum, a file that is gone (it refuses to open without it, and store_kv_open
 *     looks at those that LevelDB does not miss), bytes that are no such row -> this replica's disk. error is set and
 *     nothing is applied any more; the owner puts the data aside and gets another replica's.
 *   A row that reads back names an entry that is not there -> no replica has it, for all have the same rows; to put the
 *     data aside would take one replica after another out. It is said once and counted (store_fsm_absent), and all goes
 *     on without: a request that needs the entry is FAULT_UNAVAILABLE, an inbox row has no body, a list or a page or
 *     what is owed lacks it. The outcome is made of rows alone, so it is the same on every replica. */
#ifndef STORE_FSM_H
#define STORE_FSM_H

#include "mesh/clock.h"
#include "mesh/conf.h"
#include "mesh/fault.h"
#include "mesh/ring.h"
#include "mesh/stats.h"
#include "mesh/wire.h"
#include "store.pb-c.h"
#include "store/chat.h"
#include "store/rows.h"
#include "store/slot.h"
#include "store/user.h"

#define STORE_STAMP_SIZE 8
#define STORE_ENTRY_OPS 4000 /* messages in one log entry; also items in one outbox row (MESH_WIRE_ELEMENTS) */
/* Member rows (former ones too) of the chats whose inboxes the entry that makes the messages writes; beyond: the outbox
 * does. Part of what a log means, as all of apply: another number is another STORE_FORMAT. */
#define STORE_ENTRY_OWED (STORE_ENTRY_OPS + STORE_SLOT_OWED) /* items of one row of the outbox */
#define STORE_ENTRY_APPENDS_MAX 4096
#define STORE_ROWS_HOT 200000 /* rows kept after their entry: inbox positions of (user, chat) pairs */

/* An entry that was made: what the outbox owes. */
typedef struct store_owed {
    Mesh__Entry *entry;
    uint64_t trace; /* of the request that made it */
    /* by position in the chat's members: where it is in their inbox already, 0 = not. NULL: in none */
    uint64_t *inbox_seqs;
} store_owed;

typedef struct store_fsm {
    const mesh_conf *conf; /* borrowed, as kv and stats */
    const mesh_hash_key *hash_key;
    store_kv *kv;
    mesh_stats *stats;
    uint32_t shard;
    const char *durable; /* what an answer says: "disk" or "quorum" */
    /* rows held in memory */
    store_rows *rows;
    store_chats *chats;
    store_users *users;
    uint64_t era; /* 0: genesis is not applied yet */
    uint64_t applied, term, last_id;
    uint32_t level; /* the highest that an applied entry needed (store/group.h), 0: the first */
    uint64_t fences[MESH_SLOTS], fence_max;
    store_slot *slots;         /* by slot */
    uint64_t eras[MESH_SLOTS]; /* of inboxes that came from another shard; 0: the shard's own */
    bool sharded;              /* the config has several shards: in the only one, every slot is stored here */
    mesh_ring *ring;
    /* the entry being applied; what is in the arena lives until the next one */
    mesh_arena *arena;
    uint64_t stamp;
    uint64_t trace; /* of the message being applied */
    mesh_slot slot; /* of the key of the message being applied or read for */
    bool ring_changed;
    bool slots_changed; /* one is leaving, or came, or has gone */
    mesh_slot *moved;   /* slots that this entry has to do with once its messages are applied */
    size_t n_moved, cap_moved;
    bool took_owed;
    bool said_absent;
    store_owed *owed; /* in order */
    size_t n_owed;
    uint64_t ticket; /* of the last applied entry's batch */
    mesh_err error;
    mesh_buf scratch;
} store_fsm;

/* Load the state. why says what is refused. Errors: MESH_CORRUPT; MESH_CONFLICT rows of another cluster. */
MESH_MUST mesh_err store_fsm_new(const mesh_conf *conf, uint32_t shard, store_kv *kv, mesh_stats *stats,
                                 store_fsm **fsm_p, char *why, size_t why_size);
void store_fsm_destroy(store_fsm **fsm_p);

/* Called for each message of the entry, in order: position, the message, and its answer without corr (no body: none).
 */
typedef void store_fsm_answered(void *arg, size_t at, const Mesh__Msg *msg, Mesh__Msg *answer);
/* Apply one entry. Entries at or below fsm->applied are skipped. Errors: MESH_CORRUPT (kept in fsm->error). */
MESH_MUST mesh_err store_fsm_apply(store_fsm *fsm, uint64_t index, uint64_t term, mesh_slice payload,
                                   store_fsm_answered *answered, void *arg);
void store_fsm_evict(store_fsm *fsm); /* after reads outside an entry */

/* Does this shard answer for the slot now? The one place that says so: by what the log has said of the slot itself
 * (store/slot.h), and if it never moved, by the map in the log. */
bool store_fsm_owns(const store_fsm *fsm, mesh_slot slot);
bool store_fsm_owns_id(const store_fsm *fsm, const char *qid);
uint64_t store_fsm_era(const store_fsm *fsm, mesh_slot slot); /* of the inboxes in it */

/* ---- for handlers (store/fsm_entry.c) ---- */
typedef void store_fsm_handler(store_fsm *fsm, const Mesh__Msg *msg, Mesh__Msg *answer);
store_fsm_handler store_apply_send, store_apply_chat_create, store_apply_chat_edit, store_apply_read;
store_fsm_handler store_apply_append, store_apply_attach, store_apply_attach_once, store_apply_inbox_ack,
    store_apply_profile;
store_fsm_handler store_apply_genesis, store_apply_ring_set, store_apply_ring, store_apply_outbox_done;
store_fsm_handler store_apply_slot_move, store_apply_slot_rows, store_apply_map_set, store_apply_slot_gone;
store_fsm_handler store_apply_slot_owed;
/* At the end of a log entry: the entries it made go into the inboxes that are in this very shard, in the same commit,
 * as far as prev fits and STORE_ENTRY_APPENDS_MAX goes. The outbox appends to all others. */
void store_apply_inboxes(store_fsm *fsm);

void store_fsm_fault(mesh_arena *arena, Mesh__Msg *answer, mesh_fault code);
void store_fsm_elsewhere(mesh_arena *arena, Mesh__Msg *answer); /* not this shard's: ask again soon, by a newer map */
/* Rows did not read back: remember it, answer FAULT_UNAVAILABLE. */
void store_fsm_broken(store_fsm *fsm, mesh_arena *arena, Mesh__Msg *answer);
void store_fsm_done(mesh_arena *arena, Mesh__Msg *answer);
/* A row names this entry, and it is not there (MESH_NOT_FOUND of store_fsm_entry): count it, say it once. */
void store_fsm_absent(store_fsm *fsm, const char *chat, uint64_t seq);
/* err of store_fsm_entry: MESH_NOT_FOUND is absent, and FAULT_UNAVAILABLE; all else is broken. */
void store_fsm_missing(store_fsm *fsm, mesh_err err, const char *chat, uint64_t seq, Mesh__Msg *answer);

/* Have these users room for one more chat? FAULT_TOO_MANY_CHATS: one of them has not. FAULT_UNAVAILABLE: their rows did
 * not read back; fsm->error says so. Chats still on their way into an inbox are not counted, nor
 * users of another shard. */
mesh_fault store_fsm_room(store_fsm *fsm, const char *const *users, size_t n);

/* Hash of a request's content for its dedupe row. request: a copy with what may differ in a repetition blanked. */
uint64_t store_fsm_hash(store_fsm *fsm, Mesh__Msg__BodyCase kind, const void *request);
/* Was this request stored before? Then it is answered (the old Sent, or FAULT_CONFLICT) and true is returned. */
bool store_fsm_seen(store_fsm *fsm, const char *chat, const char *user, const char *client_msg_id, uint64_t hash,
                    Mesh__Msg *answer);
void store_fsm_remember(store_fsm *fsm, const char *chat, const char *user, const char *client_msg_id, uint64_t hash,
                        uint64_t seq);
/* The stored entry, with its chat put in; borrowed from arena. Errors: MESH_NOT_FOUND there is none, and the database
 * is sure of it; MESH_CORRUPT. */
MESH_MUST mesh_err store_fsm_entry(store_fsm *fsm, mesh_arena *arena, mesh_slot slot, const char *chat, uint64_t seq,
                                   Mesh__Entry **entry_p);
/* The same, of a chat that may have left this shard: what is long in inboxes here stayed. */
MESH_MUST mesh_err store_fsm_long_entry(store_fsm *fsm, mesh_arena *arena, const char *chat, uint64_t seq,
                                        Mesh__Entry **entry_p);
/* A new entry of the arena with kind, sender and request id set; the rest is the caller's. */
Mesh__Entry *store_fsm_entry_new(store_fsm *fsm, Mesh__EntryKind kind, const char *sender, const char *sender_name,
                                 const char *client_msg_id);
/* Give it the chat's next seq, id, count and time; write its row; owe it to the members. Chat and members are saved by
 * the caller. entry->users and the like are borrowed until the next log entry. */
void store_fsm_store(store_fsm *fsm, store_chat *chat, Mesh__Entry *entry);
void store_fsm_sent(store_fsm *fsm, const Mesh__Entry *entry, const char *client_msg_id, bool dup, Mesh__Msg *answer);

#endif
