#include "store/check.h"

#include <string.h>

#include "mesh/conf.h"
#include "mesh/id.h"
#include "store/core.h"
#include "store/key.h"
#include "store/kv_rows.h"
#include "store/slot.h"

#define NAME_MAX_BYTES 1024 /* 128 code points of a name are at most 512 */
#define TYPE_MAX_BYTES 256
#define REF_MAX_BYTES 4096
#define ATTACHMENTS_MAX 64
#define ITEMS_MAX 8192

store_kind store_check_kind(const Mesh__Msg *msg)
{
    switch (msg->body_case) {
    case MESH__MSG__BODY_SEND:
    case MESH__MSG__BODY_CHAT_CREATE:
    case MESH__MSG__BODY_CHAT_EDIT:
    case MESH__MSG__BODY_READ:
    case MESH__MSG__BODY_ATTACH:
    case MESH__MSG__BODY_INBOX_ACK:
    case MESH__MSG__BODY_APPEND:
    case MESH__MSG__BODY_PROFILE:
    case MESH__MSG__BODY_SLOT_MOVE:
    case MESH__MSG__BODY_SLOT_ROWS:
    case MESH__MSG__BODY_MAP_SET:
        return STORE_KIND_WRITE;
    case MESH__MSG__BODY_HISTORY:
    case MESH__MSG__BODY_MEMBERS:
    case MESH__MSG__BODY_HEADS:
    case MESH__MSG__BODY_USER_CHATS:
    case MESH__MSG__BODY_INBOX_READ:
        return STORE_KIND_READ;
    case MESH__MSG__BODY_LEASE:
    case MESH__MSG__BODY_DELIVERED:
    case MESH__MSG__BODY_RING:
        return STORE_KIND_OTHER;
    case MESH__MSG__BODY_SLOT_TAKEN:
    case MESH__MSG__BODY_DONE:
    case MESH__MSG__BODY_FAULT:
        return STORE_KIND_ANSWER;
    default:
        return STORE_KIND_UNKNOWN;
    }
}

static bool same_tenant(const char *a, const char *b)
{
    size_t n = strcspn(a, "/") + 1;
    return strncmp(a, b, n) == 0;
}

static bool short_string(const char *s, size_t max)
{
    return strnlen(s, max + 1) <= max;
}

static bool user_and_chat(const char *key, const char *user, const char *chat)
{
    return mesh_qid_valid(user) && mesh_qid_valid(chat) && same_tenant(user, chat) && strcmp(key, chat) == 0;
}

static bool request_id(const char *id)
{
    return mesh_id_valid(id);
}

static bool users_of(char *const *users, size_t n, const char *like)
{
    for (size_t i = 0; i < n; i++) {
        if (!mesh_qid_valid(users[i]) || !same_tenant(like, users[i])) {
            return false;
        }
    }
    return n <= STORE_GROUP_MEMBERS_MAX + 1;
}

/* Ascending and each once, as the edge puts them: so that who applies it need not look for doubles. */
static bool members_of(char *const *users, size_t n, const char *like)
{
    for (size_t i = 1; i < n; i++) {
        if (strcmp(users[i - 1], users[i]) >= 0) {
            return false;
        }
    }
    return users_of(users, n, like);
}

static bool attachments(Mesh__Attachment *const *list, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (!short_string(list[i]->ref, REF_MAX_BYTES) || !short_string(list[i]->name, REF_MAX_BYTES) ||
            !short_string(list[i]->content_type, TYPE_MAX_BYTES)) {
            return false;
        }
    }
    return n <= ATTACHMENTS_MAX;
}

static bool check_send(const char *key, const Mesh__Send *m)
{
    bool peer = m->peer[0] == '\0' || (mesh_qid_valid(m->peer) && same_tenant(m->user, m->peer));
    return user_and_chat(key, m->user, m->chat) && peer && request_id(m->client_msg_id) &&
           short_string(m->content_type, TYPE_MAX_BYTES) && short_string(m->user_name, NAME_MAX_BYTES) &&
           attachments(m->attachments, m->n_attachments);
}

static bool check_create(const char *key, const Mesh__ChatCreate *m)
{
    return user_and_chat(key, m->user, m->chat) && request_id(m->client_msg_id) &&
           short_string(m->name, NAME_MAX_BYTES) && short_string(m->user_name, NAME_MAX_BYTES) &&
           members_of(m->members, m->n_members, m->user);
}

static bool check_edit(const char *key, const Mesh__ChatEdit *m)
{
    return user_and_chat(key, m->user, m->chat) && request_id(m->client_msg_id) &&
           short_string(m->name, NAME_MAX_BYTES) && short_string(m->user_name, NAME_MAX_BYTES) &&
           members_of(m->members, m->n_members, m->user);
}

static bool check_entry(const Mesh__Entry *m)
{
    return m != NULL && mesh_qid_valid(m->chat) && mesh_qid_valid(m->sender) && m->seq > 0 &&
           short_string(m->sender_name, NAME_MAX_BYTES) && short_string(m->name, NAME_MAX_BYTES) &&
           short_string(m->client_msg_id, MESH_ID_MAX) && short_string(m->content_type, TYPE_MAX_BYTES) &&
           attachments(m->attachments, m->n_attachments) && users_of(m->users, m->n_users, m->chat);
}

static bool check_append(const Mesh__Append *m)
{
    if (!check_entry(m->entry) || m->n_users == 0 || m->n_users > STORE_GROUP_MEMBERS_MAX + 1) {
        return false;
    }
    for (size_t i = 0; i < m->n_users; i++) {
        if (!mesh_qid_valid(m->users[i]->user) || m->users[i]->prev >= m->entry->seq) {
            return false;
        }
    }
    return true;
}

static bool keyed_user(const char *key, const char *user)
{
    return mesh_qid_valid(user) && strcmp(key, user) == 0;
}

static bool check_heads(const Mesh__Heads *m)
{
    for (size_t i = 0; i < m->n_chats; i++) {
        if (!mesh_qid_valid(m->chats[i]->chat)) {
            return false;
        }
    }
    return mesh_qid_valid(m->user) && m->n_chats <= STORE_PAGE_ROWS;
}

static bool check_delivered(const Mesh__Delivered *m)
{
    for (size_t i = 0; i < m->n_gaps; i++) {
        if (!mesh_qid_valid(m->gaps[i]->user)) {
            return false;
        }
    }
    return m->n_gaps <= ITEMS_MAX;
}

static bool check_slot(uint32_t slot, uint32_t shard)
{
    return slot < MESH_SLOTS && shard < MESH_NODES_MAX;
}

static bool check_rows(const Mesh__SlotRows *m)
{
    mesh_slice rows = { m->rows.data, m->rows.len };
    mesh_slice key, value;
    if (!check_slot(m->slot, m->shard) || m->move == 0 || m->after.len > STORE_KEY_MAX ||
        store_kv_rows_check(rows, (mesh_slice){ m->after.data, m->after.len }, NULL) != MESH_OK) {
        return false;
    }
    while (store_kv_rows_next(&rows, &key, &value) == MESH_OK) {
        if (key.size > STORE_KEY_MAX || !store_slot_has((mesh_slot)m->slot, key)) {
            return false;
        }
    }
    return true;
}

static bool check_taken(const Mesh__SlotTaken *m)
{
    return m->slot < MESH_SLOTS && m->after.len <= STORE_KEY_MAX;
}

bool store_check_fields(const Mesh__Msg *msg)
{
    const char *key = msg->key;
    switch (msg->body_case) {
    case MESH__MSG__BODY_SEND:
        return check_send(key, msg->send);
    case MESH__MSG__BODY_CHAT_CREATE:
        return check_create(key, msg->chat_create);
    case MESH__MSG__BODY_CHAT_EDIT:
        return check_edit(key, msg->chat_edit);
    case MESH__MSG__BODY_READ:
        return user_and_chat(key, msg->read->user, msg->read->chat);
    case MESH__MSG__BODY_HISTORY:
        return user_and_chat(key, msg->history->user, msg->history->chat);
    case MESH__MSG__BODY_MEMBERS:
        return user_and_chat(key, msg->members->user, msg->members->chat) &&
               (msg->members->after[0] == '\0' || mesh_qid_valid(msg->members->after));
    case MESH__MSG__BODY_ATTACH:
        return keyed_user(key, msg->attach->user) && mesh_id_valid(msg->attach->device);
    case MESH__MSG__BODY_INBOX_ACK:
        return keyed_user(key, msg->inbox_ack->user) && mesh_id_valid(msg->inbox_ack->device);
    case MESH__MSG__BODY_PROFILE:
        return keyed_user(key, msg->profile->user) && short_string(msg->profile->name, NAME_MAX_BYTES);
    case MESH__MSG__BODY_USER_CHATS:
        return keyed_user(key, msg->user_chats->user);
    case MESH__MSG__BODY_INBOX_READ:
        return keyed_user(key, msg->inbox_read->user);
    case MESH__MSG__BODY_APPEND:
        return check_append(msg->append);
    case MESH__MSG__BODY_HEADS:
        return check_heads(msg->heads);
    case MESH__MSG__BODY_LEASE:
        return short_string(msg->lease->router, MESH_NODE_NAME_MAX);
    case MESH__MSG__BODY_DELIVERED:
        return check_delivered(msg->delivered);
    case MESH__MSG__BODY_RING:
        return true; /* what is wrong with it, mesh_ring_set finds */
    case MESH__MSG__BODY_SLOT_MOVE:
        return check_slot(msg->slot_move->slot, msg->slot_move->shard);
    case MESH__MSG__BODY_SLOT_ROWS:
        return check_rows(msg->slot_rows);
    case MESH__MSG__BODY_MAP_SET:
        return check_slot(msg->map_set->slot, msg->map_set->shard) && msg->map_set->move > 0;
    case MESH__MSG__BODY_SLOT_TAKEN:
        return check_taken(msg->slot_taken);
    case MESH__MSG__BODY_DONE:
    case MESH__MSG__BODY_FAULT:
        return true;
    default:
        return false;
    }
}
