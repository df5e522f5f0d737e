/* store/user.h: what the store keeps in memory of a user: inbox head, what is trimmed, name, devices. Every user
 * "exists": one without rows has an empty inbox. Cached like chats; the rows are the truth. */
#ifndef STORE_USER_H
#define STORE_USER_H

#include "mesh/id.h"
#include "store/rows.h"

#define STORE_USERS_MAX 100000 /* objects kept */

typedef struct store_device {
    char id[MESH_ID_MAX + 1];
    uint64_t cursor, generation, used_ms;
    uint64_t attempt; /* of the hello that holds it, 0: it had none */
    uint64_t session; /* that holds it, 0: not known */
} store_device;

typedef struct store_user {
    char *id;
    mesh_slot slot;
    char *name;
    uint64_t head;    /* inbox_seq of the last row, 0 before the first */
    uint64_t trimmed; /* rows up to here are gone; always below head when there is a row */
    uint64_t chats;   /* in their list: rows of (user, chat) */
    bool devices_loaded;
    size_t n_devices;
    store_device *devices; /* by id; room for one more than STORE_DEVICES_MAX once loaded */
} store_user;

typedef struct store_users store_users;

store_users *store_users_new(store_kv *kv, const mesh_hash_key *hash_key); /* both borrowed */
void store_users_destroy(store_users **users_p);
/* Borrowed until the next evict. Errors: MESH_CORRUPT. */
MESH_MUST mesh_err store_users_get(store_users *users, const char *id, store_user **user_p);
MESH_MUST mesh_err store_users_load_devices(store_users *users, store_user *user);
void store_users_evict(store_users *users);                  /* down to the limit; between entries only */
void store_users_forget(store_users *users, mesh_slot slot); /* all of a slot; between entries only */

void store_user_rename(store_user *user, const char *name);
void store_user_save(const store_user *user, store_rows *rows);
void store_user_save_device(const store_user *user, const store_device *device, store_rows *rows);

/* The devices must be loaded. */
store_device *store_user_device(store_user *user, const char *id); /* NULL: none */
/* A new device; the longest unused goes when there are too many. */
store_device *store_user_add_device(store_user *user, const char *id, store_rows *rows);

#endif
