/* store/key.h: the keys of LevelDB's rows: a table byte, ids each ended by 0x00 where something follows, big-endian
 * numbers. Ids hold no 0x00, so no id is a prefix of another one's keys. What belongs to a chat or a user has the slot
 * of its id (2 bytes, big-endian) behind the table byte, so that in each table the rows of a slot stand together: a
 * slot moves as it is (store/slot.h). The rows themselves: proto/store.proto; the table of all keys:
 * docs/architecture.md. */
#ifndef STORE_KEY_H
#define STORE_KEY_H

#include "mesh/buf.h"
#include "mesh/id.h"

#define STORE_KEY_MAX 288 /* the longest is a dedupe key: 3 + 97 + 1 + 97 + 1 + MESH_ID_MAX */
#define STORE_KEY_SLOT 3  /* bytes before the id: table and slot */

typedef struct store_key {
    size_t size;
    uint8_t data[STORE_KEY_MAX];
} store_key;

mesh_slice store_key_slice(const store_key *key); /* borrowed from key */

void store_key_applied(store_key *key);
void store_key_shard(store_key *key);
void store_key_ring(store_key *key);
void store_key_fence(store_key *key, mesh_slot slot);
void store_key_fences(store_key *key); /* this and the other plurals: the prefix of all */
void store_key_chat(store_key *key, mesh_slot slot, const char *chat);
void store_key_entry(store_key *key, mesh_slot slot, const char *chat, uint64_t seq);
void store_key_entries(store_key *key, mesh_slot slot, const char *chat);
void store_key_dedupe(store_key *key, mesh_slot slot, const char *chat, const char *sender, const char *client_msg_id);
void store_key_member(store_key *key, mesh_slot slot, const char *chat, const char *user);
void store_key_members(store_key *key, mesh_slot slot, const char *chat);
void store_key_inbox(store_key *key, mesh_slot slot, const char *user, uint64_t inbox_seq);
void store_key_inboxes(store_key *key, mesh_slot slot, const char *user);
void store_key_user_chat(store_key *key, mesh_slot slot, const char *user, const char *chat);
void store_key_user_chats(store_key *key, mesh_slot slot, const char *user);
void store_key_device(store_key *key, mesh_slot slot, const char *user, const char *device);
void store_key_devices(store_key *key, mesh_slot slot, const char *user);
void store_key_user(store_key *key, mesh_slot slot, const char *user);
void store_key_slot(store_key *key, mesh_slot slot);
void store_key_slots(store_key *key);
void store_key_slot_rows(store_key *key, char table, mesh_slot slot); /* the prefix of a slot's rows in a table */
void store_key_owed(store_key *key, mesh_slot slot, uint64_t number);
void store_key_copied(store_key *key, mesh_slot slot, const char *chat, uint64_t seq);
void store_key_outbox(store_key *key, uint64_t index);
void store_key_outboxes(store_key *key);

/* The last 8 bytes of a key that ends in a number. */
uint64_t store_key_number(mesh_slice key);
/* What of key comes after prefix. */
mesh_slice store_key_rest(mesh_slice key, const store_key *prefix);

#endif
