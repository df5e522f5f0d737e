/* What the store keeps in memory of rows has a size: one more, and the oldest goes and reads back as it was saved. */
#include "store/chat.h"
#include "store/fsm.h"
#include "store/user.h"
#include "tests/unit/store_rig.h"

/* An object that was changed in memory and not saved: as long as it is cached, the change is seen. */
#define CHANGED "changed in memory"
#define SAVED "as saved"

typedef struct cache {
    rig *r;
    store_rows *rows;
    store_chats *chats;
    store_users *users;
} cache;

static cache cache_new(void)
{
    rig *r = rig_ready();
    const mesh_hash_key *key = mesh_conf_hash_key(r->conf);
    return (cache){ r, store_rows_new(r->kv, key, 0), store_chats_new(r->kv, key), store_users_new(r->kv, key) };
}

static void cache_destroy(cache *c)
{
    store_users_destroy(&c->users);
    store_chats_destroy(&c->chats);
    store_rows_destroy(&c->rows);
    rig_destroy(c->r);
}

static char *numbered(char id[32], const char *prefix, unsigned n)
{
    snprintf(id, 32, "default/%s%06u", prefix, n);
    return id;
}

/* ---- chats ---- */

static void add_chat(cache *c, unsigned n, unsigned members)
{
    char id[32], user[32];
    store_chat *chat = store_chats_add(c->chats, numbered(id, "c", n), MESH__CHAT_KIND__CHAT_GROUP,
                                       MESH__HISTORY_RULE__HISTORY_FROM_JOIN, SAVED, "default/ann", 17);
    for (unsigned i = 0; i < members; i++) {
        store_member *member;
        Mesh__Role role = i == 0 ? MESH__ROLE__ROLE_OWNER : MESH__ROLE__ROLE_MEMBER;
        assert_int_equal(store_chat_join(chat, numbered(user, "u", i), role, i + 1, &member), MESH_OK);
    }
    assert_int_equal(store_chats_get(c->chats, id, &chat), MESH_OK); /* a use: now its members are counted */
}

static void save_chat(cache *c, unsigned n)
{
    char id[32];
    store_chat *chat;
    assert_int_equal(store_chats_get(c->chats, numbered(id, "c", n), &chat), MESH_OK);
    store_chat_save(chat, c->rows);
    for (size_t i = 0; i < chat->n_members; i++) {
        store_chat_save_member(chat, chat->members[i], c->rows);
    }
    assert_true(store_rows_commit(c->rows) > 0);
    store_chat_rename(chat, CHANGED);
}

/* Only chats that were saved have rows: another one that is not in the cache is not found. */
static bool has_chat(cache *c, unsigned n)
{
    char id[32];
    store_chat *chat;
    mesh_err err = store_chats_get(c->chats, numbered(id, "c", n), &chat);
    assert_true(err == MESH_OK || err == MESH_NOT_FOUND);
    return err == MESH_OK;
}

static const char *chat_name(cache *c, unsigned n)
{
    char id[32];
    store_chat *chat;
    assert_int_equal(store_chats_get(c->chats, numbered(id, "c", n), &chat), MESH_OK);
    return chat->name;
}

static void assert_read_back(cache *c, unsigned n, unsigned members)
{
    char id[32], user[32];
    store_chat *chat;
    assert_int_equal(store_chats_get(c->chats, numbered(id, "c", n), &chat), MESH_OK);
    assert_string_equal(chat->name, SAVED);
    assert_string_equal(chat->creator, "default/ann");
    assert_int_equal(chat->history, MESH__HISTORY_RULE__HISTORY_FROM_JOIN);
    assert_int_equal(chat->created_ms, 17);
    assert_int_equal(chat->n_members, members);
    assert_int_equal(chat->member_count, members);
    for (unsigned i = 0; i < members; i++) {
        const store_member *member = store_chat_member(chat, numbered(user, "u", i));
        assert_non_null(member);
        assert_int_equal(member->role, i == 0 ? MESH__ROLE__ROLE_OWNER : MESH__ROLE__ROLE_MEMBER);
        assert_false(store_member_entitled(member, i));
        assert_true(store_member_entitled(member, i + 1));
    }
}

static void so_many_chats_are_kept(void **state)
{
    (void)state;
    cache c = cache_new();
    for (unsigned i = 0; i < STORE_CHATS_MAX; i++) {
        add_chat(&c, i, i < 2 ? 3 : 0);
    }
    save_chat(&c, 0);
    save_chat(&c, 1);
    store_chats_evict(c.chats);
    for (unsigned i = 0; i < STORE_CHATS_MAX; i++) {
        assert_true(has_chat(&c, i));
    }
    assert_string_equal(chat_name(&c, 1), CHANGED);
    assert_string_equal(chat_name(&c, 0), CHANGED); /* used last: 2 is the oldest now, then 3 */
    add_chat(&c, STORE_CHATS_MAX, 0);
    add_chat(&c, STORE_CHATS_MAX + 1, 0);
    assert_true(has_chat(&c, 2)); /* nothing goes before evict; now 3 and 4 are the oldest */
    store_chats_evict(c.chats);
    assert_true(has_chat(&c, 2));
    assert_false(has_chat(&c, 3));
    assert_false(has_chat(&c, 4));
    for (unsigned i = 5; i < STORE_CHATS_MAX + 2; i++) {
        assert_true(has_chat(&c, i));
    }
    for (unsigned i = STORE_CHATS_MAX + 2; i < STORE_CHATS_MAX + 5; i++) { /* 1, 0 and 2 are the oldest by now */
        add_chat(&c, i, 0);
    }
    store_chats_evict(c.chats);
    assert_false(has_chat(&c, 2));
    assert_read_back(&c, 0, 3);
    assert_read_back(&c, 1, 3);
    cache_destroy(&c);
}

static void so_many_members_are_kept(void **state)
{
    (void)state;
    enum { EACH = 1000, CHATS = STORE_CHATS_MEMBERS_MAX / EACH };
    cache c = cache_new();
    for (unsigned i = 0; i < CHATS; i++) { /* each counts two more than it has: together the limit exactly */
        add_chat(&c, i, EACH - 2);
    }
    save_chat(&c, 0);
    assert_true(has_chat(&c, 0));
    store_chats_evict(c.chats);
    for (unsigned i = 0; i < CHATS; i++) {
        assert_true(has_chat(&c, i));
    }
    assert_string_equal(chat_name(&c, 0), CHANGED);
    add_chat(&c, CHATS, 0); /* beyond: 1 is the oldest */
    store_chats_evict(c.chats);
    assert_false(has_chat(&c, 1));
    for (unsigned i = 2; i < CHATS; i++) {
        assert_true(has_chat(&c, i));
    }
    assert_true(has_chat(&c, CHATS));
    add_chat(&c, CHATS + 1, EACH - 4); /* with what 1 left, below the limit again: nobody goes */
    store_chats_evict(c.chats);
    assert_string_equal(chat_name(&c, 0), CHANGED);
    for (unsigned i = 2; i <= CHATS + 1; i++) {
        assert_true(has_chat(&c, i));
    }
    add_chat(&c, CHATS + 2, 1); /* 0 is the oldest */
    store_chats_evict(c.chats);
    assert_read_back(&c, 0, EACH - 2);
    assert_true(has_chat(&c, 2));
    cache_destroy(&c);
}

/* ---- users ---- */

static store_user *get_user(cache *c, unsigned n)
{
    char id[32];
    store_user *user;
    assert_int_equal(store_users_get(c->users, numbered(id, "u", n), &user), MESH_OK);
    return user;
}

static void save_user(cache *c, unsigned n)
{
    store_user *user = get_user(c, n);
    store_key key;
    store_key_inbox(&key, user->slot, user->id, 41);
    store_rows_put(c->rows, &key, (mesh_slice){ (const uint8_t *)"x", 1 }, STORE_ROW_ONLY);
    user->head = 41;
    user->trimmed = 12;
    user->chats = 7;
    store_user_rename(user, SAVED);
    store_user_save(user, c->rows);
    assert_int_equal(store_users_load_devices(c->users, user), MESH_OK);
    store_device *device = store_user_add_device(user, "phone", c->rows);
    device->cursor = 33;
    device->generation = 2;
    device->used_ms = 99;
    store_user_save_device(user, device, c->rows);
    assert_true(store_rows_commit(c->rows) > 0);
    store_user_rename(user, CHANGED);
}

static void so_many_users_are_kept(void **state)
{
    (void)state;
    cache c = cache_new();
    save_user(&c, 0);
    for (unsigned i = 1; i < STORE_USERS_MAX; i++) {
        store_user_rename(get_user(&c, i), CHANGED);
    }
    store_users_evict(c.users);
    for (unsigned i = 0; i < STORE_USERS_MAX; i++) {
        assert_string_equal(get_user(&c, i)->name, CHANGED);
    }
    (void)get_user(&c, STORE_USERS_MAX);
    (void)get_user(&c, STORE_USERS_MAX + 1);
    store_users_evict(c.users); /* 0 and 1 go */
    for (unsigned i = 2; i < STORE_USERS_MAX; i++) {
        assert_string_equal(get_user(&c, i)->name, CHANGED);
    }
    assert_string_equal(get_user(&c, 1)->name, ""); /* never saved: empty, as everybody begins */
    store_user *user = get_user(&c, 0);
    assert_string_equal(user->name, SAVED);
    assert_int_equal(user->head, 41);
    assert_int_equal(user->trimmed, 12);
    assert_int_equal(user->chats, 7);
    assert_int_equal(store_users_load_devices(c.users, user), MESH_OK);
    assert_int_equal(user->n_devices, 1);
    const store_device *device = store_user_device(user, "phone");
    assert_non_null(device);
    assert_int_equal(device->cursor, 33);
    assert_int_equal(device->generation, 2);
    assert_int_equal(device->used_ms, 99);
    cache_destroy(&c);
}

/* ---- rows ---- */

static void hot_key(store_key *key, unsigned n)
{
    char chat[32];
    store_key_user_chat(key, 7, "default/ann", numbered(chat, "c", n));
}

static void put_hot(store_rows *rows, unsigned n)
{
    store_key key;
    hot_key(&key, n);
    store_rows_put(rows, &key, (mesh_slice){ (const uint8_t *)"memory", 6 }, STORE_ROW_HOT);
}

/* Another value behind the cache's back: who reads it has no row in memory. */
static void change_disk(rig *r, unsigned n)
{
    store_key key;
    hot_key(&key, n);
    store_kv_batch *batch = store_kv_batch_new();
    store_kv_batch_put(batch, store_key_slice(&key), (mesh_slice){ (const uint8_t *)"disk", 4 });
    (void)store_kv_write(r->kv, batch, false);
    store_kv_batch_destroy(&batch);
}

static bool is_hot(store_rows *rows, unsigned n, bool keep)
{
    store_key key;
    mesh_slice value;
    hot_key(&key, n);
    assert_int_equal(store_rows_get(rows, &key, keep, &value), MESH_OK);
    assert_true(value.size == 6 || value.size == 4);
    return value.size == 6;
}

/* The state machine's own rows: it is the one that names the limit. */
static void so_many_rows_are_hot(void **state)
{
    (void)state;
    rig *r = rig_ready();
    char why[256] = "";
    store_fsm *fsm;
    mesh_stats *stats = store_metrics_new();
    assert_int_equal(store_fsm_new(r->conf, 0, r->kv, stats, &fsm, why, sizeof why), MESH_OK);
    for (unsigned i = 0; i < STORE_ROWS_HOT; i++) {
        put_hot(fsm->rows, i);
        if (i % 1000 == 999) {
            assert_true(store_rows_commit(fsm->rows) > 0);
            (void)sim_disk_flush_all(r->disk);
        }
    }
    (void)store_rows_commit(fsm->rows);
    for (unsigned i = 0; i < 4; i++) {
        change_disk(r, i);
    }
    change_disk(r, STORE_ROWS_HOT - 1);
    assert_true(is_hot(fsm->rows, STORE_ROWS_HOT - 1, false));
    assert_true(is_hot(fsm->rows, 0, false)); /* used: 1 is the oldest now */
    put_hot(fsm->rows, STORE_ROWS_HOT);
    assert_true(is_hot(fsm->rows, 1, false)); /* nothing goes within an entry; now it is 2 */
    assert_true(store_rows_commit(fsm->rows) > 0);
    assert_false(is_hot(fsm->rows, 2, false)); /* read from disk, and not kept */
    assert_false(is_hot(fsm->rows, 2, true));  /* kept: one beyond the limit until the entry ends */
    assert_true(is_hot(fsm->rows, 0, false));
    assert_true(is_hot(fsm->rows, 1, false));
    assert_true(is_hot(fsm->rows, 3, false));
    (void)store_rows_commit(fsm->rows);
    for (unsigned i = 0; i < 4; i++) {
        assert_int_equal(is_hot(fsm->rows, i, false), i != 2); /* it is in memory with what it read */
    }
    assert_true(is_hot(fsm->rows, STORE_ROWS_HOT, false));
    store_fsm_destroy(&fsm);
    mesh_stats_destroy(&stats);
    rig_destroy(r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(so_many_chats_are_kept),
        cmocka_unit_test(so_many_members_are_kept),
        cmocka_unit_test(so_many_users_are_kept),
        cmocka_unit_test(so_many_rows_are_hot),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
