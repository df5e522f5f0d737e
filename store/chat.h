/* store/chat.h: a chat as the store has it: what it is, its head, and everybody who is or was a member.
 *
 * A member's spans [from, to] say all about entitlement: an entry is theirs when its seq is in a span; `prev` of seq s
 * is s - 1 inside a span, or the end of the span before. Spans only grow at the end, so who an old entry belongs to
 * never changes. Objects are cached (oldest evicted first, never while an entry is applied); their rows are the truth.
 */
#ifndef STORE_CHAT_H
#define STORE_CHAT_H

#include "mesh/wire.h"
#include "store/rows.h"

#define STORE_MEMBER_ROWS_MAX 20000    /* present and former members of one chat */
#define STORE_CHATS_MAX 20000          /* objects kept */
#define STORE_CHATS_MEMBERS_MAX 500000 /* of all objects kept, each counted with two more than it has */

typedef struct store_span {
    uint64_t from, to; /* to 0: still a member */
} store_span;

typedef struct store_member {
    Mesh__Role role; /* ROLE_NONE: removed */
    uint64_t read_seq, read_count;
    unsigned n_spans;
    store_span *spans;
    char user[];
} store_member;

typedef struct store_chat {
    char *id;
    mesh_slot slot;
    Mesh__ChatKind kind;
    Mesh__HistoryRule history;
    char *name, *creator;
    uint32_t member_count; /* present ones */
    uint64_t created_ms;
    uint64_t head_seq, head_count, head_id, head_ts; /* of the last entry; 0 before the first */
    size_t n_members, cap_members;
    store_member **members; /* present and former, by user id */
    size_t counted;         /* what it is in the cache's size */
} store_chat;

typedef struct store_chats store_chats;

store_chats *store_chats_new(store_kv *kv, const mesh_hash_key *hash_key); /* both borrowed */
void store_chats_destroy(store_chats **chats_p);
/* The chat, borrowed until the next evict. Errors: MESH_NOT_FOUND, MESH_CORRUPT. */
MESH_MUST mesh_err store_chats_get(store_chats *chats, const char *id, store_chat **chat_p);
/* A new chat without members or entries, only in memory until it is saved. There is none with this id. */
store_chat *store_chats_add(store_chats *chats, const char *id, Mesh__ChatKind kind, Mesh__HistoryRule history,
                            const char *name, const char *creator, uint64_t created_ms);
void store_chats_evict(store_chats *chats);                  /* down to the limits; between entries only */
void store_chats_forget(store_chats *chats, mesh_slot slot); /* all of a slot; between entries only */

void store_chat_rename(store_chat *chat, const char *name);
void store_chat_save(const store_chat *chat, store_rows *rows);
void store_chat_save_member(const store_chat *chat, const store_member *member, store_rows *rows);

store_member *store_chat_member(const store_chat *chat, const char *user); /* present or former; NULL: a stranger */
size_t store_chat_place_after(const store_chat *chat, const char *user);   /* index of the first member above user */
/* Make user a member from seq on, as a new one or again. Errors: MESH_FULL too many spans or member rows. */
MESH_MUST mesh_err store_chat_join(store_chat *chat, const char *user, Mesh__Role role, uint64_t seq,
                                   store_member **member_p);
/* A present member's last entry is seq. */
void store_chat_part(store_chat *chat, store_member *member, uint64_t seq);

bool store_member_present(const store_member *member);
bool store_member_entitled(const store_member *member, uint64_t seq);
/* Last seq below `seq` this member was entitled to, 0 if none. seq is in a span. */
uint64_t store_member_prev(const store_member *member, uint64_t seq);
/* First seq above `seq` this member is entitled to; 0 if none is known (an open span always has one). */
uint64_t store_member_next(const store_member *member, uint64_t seq);
uint64_t store_member_end(const store_member *member, uint64_t head); /* last seq entitled to, head being the chat's */

#endif
