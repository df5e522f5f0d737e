#include "store/key.h"

#include <assert.h>
#include <string.h>

static void start(store_key *key, char table)
{
    key->data[0] = (uint8_t)table;
    key->size = 1;
}

static void put_bytes(store_key *key, const void *bytes, size_t n)
{
    assert(n <= STORE_KEY_MAX - key->size);
    memcpy(key->data + key->size, bytes, n);
    key->size += n;
}

static void put_id(store_key *key, const char *id)
{
    put_bytes(key, id, strlen(id));
}

static void put_id_end(store_key *key, const char *id)
{
    put_bytes(key, id, strlen(id) + 1); /* the NUL is the separator */
}

static void put_slot(store_key *key, mesh_slot slot)
{
    put_bytes(key, (uint8_t[2]){ (uint8_t)(slot >> 8), (uint8_t)slot }, 2);
}

static void put_number(store_key *key, uint64_t number)
{
    uint8_t be[8];
    mesh_put_u64be(be, number);
    put_bytes(key, be, sizeof be);
}

static void one(store_key *key, char table, mesh_slot slot, const char *id)
{
    start(key, table);
    put_slot(key, slot);
    put_id(key, id);
}

static void prefix(store_key *key, char table, mesh_slot slot, const char *id)
{
    start(key, table);
    put_slot(key, slot);
    put_id_end(key, id);
}

static void numbered(store_key *key, char table, mesh_slot slot, const char *id, uint64_t number)
{
    prefix(key, table, slot, id);
    put_number(key, number);
}

static void pair(store_key *key, char table, mesh_slot slot, const char *a, const char *b)
{
    prefix(key, table, slot, a);
    put_id(key, b);
}

mesh_slice store_key_slice(const store_key *key)
{
    return (mesh_slice){ key->data, key->size };
}

void store_key_applied(store_key *key)
{
    start(key, '\0');
    put_bytes(key, "A", 1);
}

void store_key_shard(store_key *key)
{
    start(key, 'e');
}

void store_key_ring(store_key *key)
{
    start(key, 'g');
}

void store_key_fence(store_key *key, mesh_slot slot)
{
    start(key, 'f');
    put_slot(key, slot);
}

void store_key_fences(store_key *key)
{
    start(key, 'f');
}

void store_key_chat(store_key *key, mesh_slot slot, const char *chat)
{
    one(key, 'c', slot, chat);
}

void store_key_entry(store_key *key, mesh_slot slot, const char *chat, uint64_t seq)
{
    numbered(key, 'm', slot, chat, seq);
}

void store_key_entries(store_key *key, mesh_slot slot, const char *chat)
{
    prefix(key, 'm', slot, chat);
}

void store_key_dedupe(store_key *key, mesh_slot slot, const char *chat, const char *sender, const char *client_msg_id)
{
    prefix(key, 'd', slot, chat);
    put_id_end(key, sender);
    put_id(key, client_msg_id);
}

void store_key_member(store_key *key, mesh_slot slot, const char *chat, const char *user)
{
    pair(key, 'p', slot, chat, user);
}

void store_key_members(store_key *key, mesh_slot slot, const char *chat)
{
    prefix(key, 'p', slot, chat);
}

void store_key_inbox(store_key *key, mesh_slot slot, const char *user, uint64_t inbox_seq)
{
    numbered(key, 'i', slot, user, inbox_seq);
}

void store_key_inboxes(store_key *key, mesh_slot slot, const char *user)
{
    prefix(key, 'i', slot, user);
}

void store_key_user_chat(store_key *key, mesh_slot slot, const char *user, const char *chat)
{
    pair(key, 'u', slot, user, chat);
}

void store_key_user_chats(store_key *key, mesh_slot slot, const char *user)
{
    prefix(key, 'u', slot, user);
}

void store_key_device(store_key *key, mesh_slot slot, const char *user, const char *device)
{
    pair(key, 'v', slot, user, device);
}

void store_key_devices(store_key *key, mesh_slot slot, const char *user)
{
    prefix(key, 'v', slot, user);
}

void store_key_user(store_key *key, mesh_slot slot, const char *user)
{
    one(key, 'h', slot, user);
}

void store_key_slot(store_key *key, mesh_slot slot)
{
    store_key_slot_rows(key, 's', slot);
}

void store_key_slots(store_key *key)
{
    start(key, 's');
}

void store_key_slot_rows(store_key *key, char table, mesh_slot slot)
{
    start(key, table);
    put_slot(key, slot);
}

void store_key_owed(store_key *key, mesh_slot slot, uint64_t number)
{
    store_key_slot_rows(key, 'w', slot);
    put_number(key, number);
}

void store_key_copied(store_key *key, mesh_slot slot, const char *chat, uint64_t seq)
{
    numbered(key, 'x', slot, chat, seq);
}

void store_key_outbox(store_key *key, uint64_t index)
{
    start(key, 'o');
    put_number(key, index);
}

void store_key_outboxes(store_key *key)
{
    start(key, 'o');
}

uint64_t store_key_number(mesh_slice key)
{
    return key.size >= 8 ? mesh_get_u64be(key.data + key.size - 8) : 0;
}

mesh_slice store_key_rest(mesh_slice key, const store_key *before)
{
    assert(key.size >= before->size);
    return (mesh_slice){ key.data + before->size, key.size - before->size };
}
