#include "store/user.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "mesh/alloc.h"
#include "mesh/table.h"
#include "mesh/wire.h"
#include "store.pb-c.h"
#include "store/core.h"

struct store_users {
    store_kv *kv;
    const mesh_hash_key *hash_key;
    mesh_table *table; /* the longest unused first */
    mesh_arena *arena;
    mesh_buf value;
};

store_users *store_users_new(store_kv *kv, const mesh_hash_key *hash_key)
{
    store_users *users = mesh_alloc(sizeof *users);
    users->kv = kv;
    users->hash_key = hash_key;
    users->table = mesh_table_new(hash_key);
    users->arena = mesh_arena_new();
    return users;
}

static void user_free(store_user *user)
{
    free(user->devices);
    free(user->name);
    free(user->id);
    free(user);
}

static void evict_oldest(store_users *users)
{
    user_free(mesh_table_take(users->table));
}

void store_users_destroy(store_users **users_p)
{
    store_users *users = *users_p;
    if (users == NULL) {
        return;
    }
    while (mesh_table_size(users->table) > 0) {
        evict_oldest(users);
    }
    mesh_table_destroy(&users->table);
    mesh_arena_destroy(&users->arena);
    mesh_buf_fini(&users->value);
    free(users);
    *users_p = NULL;
}

void store_users_evict(store_users *users)
{
    while (mesh_table_size(users->table) > STORE_USERS_MAX) {
        evict_oldest(users);
    }
}

void store_users_forget(store_users *users, mesh_slot slot)
{
    for (store_user *user = mesh_table_first(users->table); user != NULL; user = mesh_table_next(users->table)) {
        if (user->slot == slot) {
            mesh_table_remove(users->table, mesh_table_str(user->id));
            user_free(user);
        }
    }
}

static mesh_err load_row(store_users *users, store_user *user)
{
    store_key key;
    store_key_user(&key, user->slot, user->id);
    mesh_err err = store_kv_get(users->kv, store_key_slice(&key), &users->value);
    if (err == MESH_NOT_FOUND) {
        user->name = mesh_strdup("");
        return MESH_OK;
    }
    ProtobufCMessage *message;
    if (err != MESH_OK || mesh_wire_unpack(&store__user_row__descriptor, mesh_buf_slice(&users->value), users->arena,
                                           &message) != MESH_OK) {
        return MESH_CORRUPT;
    }
    const Store__UserRow *row = (const Store__UserRow *)message;
    user->name = mesh_strdup(row->name);
    user->trimmed = row->trimmed;
    user->chats = row->chats;
    return MESH_OK;
}

static mesh_err load_head(store_users *users, store_user *user)
{
    store_key prefix;
    store_key_inboxes(&prefix, user->slot, user->id);
    store_kv_iter *it = store_kv_iter_new(users->kv, store_key_slice(&prefix));
    store_kv_iter_last(it);
    mesh_err err = MESH_OK;
    if (store_kv_iter_valid(it)) {
        user->head = store_key_number(store_kv_iter_key(it));
    } else {
        err = store_kv_iter_status(it);
    }
    store_kv_iter_destroy(&it);
    return err;
}

mesh_err store_users_get(store_users *users, const char *id, store_user **user_p)
{
    store_user *user = mesh_table_touch(users->table, mesh_table_str(id));
    if (user != NULL) {
        *user_p = user;
        return MESH_OK;
    }
    mesh_arena_reset(users->arena);
    user = mesh_alloc(sizeof *user);
    user->id = mesh_strdup(id);
    user->slot = mesh_id_slot(users->hash_key, id);
    mesh_err err = load_row(users, user);
    if (err == MESH_OK) {
        err = load_head(users, user);
    }
    if (err != MESH_OK) {
        user_free(user);
        return err;
    }
    mesh_table_put(users->table, mesh_table_str(user->id), user);
    *user_p = user;
    return MESH_OK;
}

static mesh_err load_device(store_users *users, store_user *user, mesh_slice id, mesh_slice value)
{
    ProtobufCMessage *message;
    if (id.size > MESH_ID_MAX || user->n_devices > STORE_DEVICES_MAX ||
        mesh_wire_unpack(&store__device_row__descriptor, value, users->arena, &message) != MESH_OK) {
        return MESH_CORRUPT;
    }
    const Store__DeviceRow *row = (const Store__DeviceRow *)message;
    store_device *device = &user->devices[user->n_devices++];
    *device = (store_device){ .cursor = row->cursor,
                              .generation = row->generation,
                              .used_ms = row->used_ms,
                              .attempt = row->attempt,
                              .session = row->session };
    memcpy(device->id, id.data, id.size);
    return MESH_OK;
}

mesh_err store_users_load_devices(store_users *users, store_user *user)
{
    if (user->devices_loaded) {
        return MESH_OK;
    }
    mesh_arena_reset(users->arena);
    free(user->devices);
    user->devices = mesh_alloc((STORE_DEVICES_MAX + 1) * sizeof *user->devices);
    user->n_devices = 0;
    store_key prefix;
    store_key_devices(&prefix, user->slot, user->id);
    store_kv_iter *it = store_kv_iter_new(users->kv, store_key_slice(&prefix));
    mesh_err err = MESH_OK;
    for (store_kv_iter_first(it); err == MESH_OK && store_kv_iter_valid(it); store_kv_iter_next(it)) {
        err = load_device(users, user, store_key_rest(store_kv_iter_key(it), &prefix), store_kv_iter_value(it));
    }
    if (err == MESH_OK) {
        err = store_kv_iter_status(it);
    }
    store_kv_iter_destroy(&it);
    user->devices_loaded = err == MESH_OK;
    return err;
}

void store_user_rename(store_user *user, const char *name)
{
    free(user->name);
    user->name = mesh_strdup(name);
}

void store_user_save(const store_user *user, store_rows *rows)
{
    Store__UserRow row = STORE__USER_ROW__INIT;
    row.name = user->name;
    row.trimmed = user->trimmed;
    row.chats = user->chats;
    store_key key;
    store_key_user(&key, user->slot, user->id);
    store_rows_pack(rows, &key, &row, STORE_ROW_ONLY);
}

void store_user_save_device(const store_user *user, const store_device *device, store_rows *rows)
{
    Store__DeviceRow row = STORE__DEVICE_ROW__INIT;
    row.cursor = device->cursor;
    row.generation = device->generation;
    row.used_ms = device->used_ms;
    row.attempt = device->attempt;
    row.session = device->session;
    store_key key;
    store_key_device(&key, user->slot, user->id, device->id);
    store_rows_pack(rows, &key, &row, STORE_ROW_ONLY);
}

store_device *store_user_device(store_user *user, const char *id)
{
    assert(user->devices_loaded);
    for (size_t i = 0; i < user->n_devices; i++) {
        if (strcmp(user->devices[i].id, id) == 0) {
            return &user->devices[i];
        }
    }
    return NULL;
}

static void drop_device(store_user *user, size_t i, store_rows *rows)
{
    store_key key;
    store_key_device(&key, user->slot, user->id, user->devices[i].id);
    store_rows_delete(rows, &key);
    user->n_devices--;
    memmove(user->devices + i, user->devices + i + 1, (user->n_devices - i) * sizeof *user->devices);
}

store_device *store_user_add_device(store_user *user, const char *id, store_rows *rows)
{
    assert(user->devices_loaded);
    if (user->n_devices >= STORE_DEVICES_MAX) {
        size_t oldest = 0;
        for (size_t i = 1; i < user->n_devices; i++) {
            if (user->devices[i].used_ms < user->devices[oldest].used_ms) {
                oldest = i;
            }
        }
        drop_device(user, oldest, rows);
    }
    size_t at = 0;
    while (at < user->n_devices && strcmp(user->devices[at].id, id) < 0) {
        at++;
    }
    memmove(user->devices + at + 1, user->devices + at, (user->n_devices - at) * sizeof *user->devices);
    user->n_devices++;
    user->devices[at] = (store_device){ 0 };
    assert(strlen(id) <= MESH_ID_MAX);
    memcpy(user->devices[at].id, id, strlen(id));
    return &user->devices[at];
}
