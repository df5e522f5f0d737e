/* Backups: what the manifest says and what is refused; restores: what is refused, and how shards that were copied at
 * different times are made to fit. Real databases, written here row by row. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "mesh/ring.h"
#include "mesh/wire.h"
#include "store.pb-c.h"
#include "store/backup.h"
#include "store/fetch.h"
#include "store/key.h"
#include "store/restore.h"
#include "store/salvage.h"
#include "store/slot.h"
#include "store/transfer.h"
#include "tests/unit/shell.h"

#define KEY "000102030405060708090a0b0c0d0e0f"
#define INDEX 100
#define TERM 3
#define EPOCH 5
#define FENCE 9
#define WHY 2048

static char root[64];
static char backup_dir[128], place[128];
static mesh_conf *conf;
static mesh_ring *ring;
static char why[WHY];

/* ---- a cluster of two shards ---- */

static mesh_conf *make_conf(const char *hash_key, unsigned shards, unsigned replicas)
{
    mesh_conf *made = mesh_conf_new();
    assert_int_equal(mesh_conf_set(made, "cluster.hash_key", hash_key), MESH_OK);
    assert_int_equal(mesh_conf_set(made, "cluster.name", "there"), MESH_OK);
    assert_int_equal(mesh_conf_set(made, "store.path", place), MESH_OK);
    for (unsigned i = 0; i < shards * replicas; i++) {
        mesh_node_conf node = { .role = MESH_STORE, .shard = i / replicas };
        snprintf(node.name, sizeof node.name, "store%u", i + 1);
        snprintf(node.endpoint, sizeof node.endpoint, "inproc://store%u", i + 1);
        assert_int_equal(mesh_conf_add_node(made, &node), MESH_OK);
    }
    mesh_node_conf router = { .role = MESH_ROUTER, .name = "router1", .endpoint = "inproc://router1" };
    assert_int_equal(mesh_conf_add_node(made, &router), MESH_OK);
    return made;
}

/* A chat or user of this shard: "default/<what><n>". */
static const char *id_of(const char *what, uint32_t shard)
{
    static char ids[64][32];
    static unsigned next;
    char *id = ids[next++ % 64];
    for (unsigned n = 0;; n++) {
        snprintf(id, sizeof ids[0], "default/%s%u", what, n);
        if (mesh_ring_shard_of(ring, id) == shard) {
            return id;
        }
    }
}

typedef struct shard_rows {
    store_kv *kv;
    store_kv_batch *batch;
} shard_rows;

static shard_rows to[2];

static void pack(store_kv_batch *batch, const store_key *key, const void *message)
{
    mesh_buf value = { 0 };
    mesh_wire_pack(message, &value);
    store_kv_batch_put(batch, store_key_slice(key), mesh_buf_slice(&value));
    mesh_buf_fini(&value);
}

static Mesh__Ring *ring_row(uint64_t epoch, uint32_t cut)
{
    static Mesh__RingNode router;
    static Mesh__RingNode *routers[1] = { &router };
    static Mesh__SlotRange ranges[2];
    static Mesh__SlotRange *map[2] = { &ranges[0], &ranges[1] };
    static Mesh__Ring row;
    mesh__ring__init(&row);
    mesh__ring_node__init(&router);
    static char name[] = "router1";
    router.name = name;
    router.boot = 7;
    for (unsigned i = 0; i < 2; i++) {
        mesh__slot_range__init(&ranges[i]);
        ranges[i].first = i == 0 ? 0 : cut;
        ranges[i].last = i == 0 ? cut - 1 : MESH_SLOTS - 1;
        ranges[i].shard = i;
    }
    row.epoch = epoch;
    row.n_routers = 1;
    row.routers = routers;
    row.n_map = 2;
    row.map = map;
    return &row;
}

static void open_shard(unsigned i)
{
    char path[STORE_BACKUP_PATH];
    store_kv_options options = { 4u << 20, 4u << 20, 200 };
    assert_int_equal(store_kv_open(store_backup_path(path, backup_dir, i), &options, &to[i].kv, why, WHY), MESH_OK);
    to[i].batch = store_kv_batch_new();
}

/* What every shard has. */
static void put_base(unsigned i)
{
    store_key key;
    Store__AppliedRow applied = STORE__APPLIED_ROW__INIT;
    Store__ShardRow shard = STORE__SHARD_ROW__INIT;
    uint8_t fence[8];
    applied.index = INDEX;
    applied.term = TERM;
    applied.last_id = 4711;
    store_key_applied(&key);
    pack(to[i].batch, &key, &applied);
    shard.era = 11 + i;
    static char cluster[] = "here";
    shard.cluster = cluster;
    store_key_shard(&key);
    pack(to[i].batch, &key, &shard);
    store_key_ring(&key);
    pack(to[i].batch, &key, ring_row(EPOCH + i, MESH_SLOTS / 2));
    mesh_put_u64be(fence, i == 1 ? FENCE : 2);
    store_key_fence(&key, 12);
    store_kv_batch_put(to[i].batch, store_key_slice(&key), (mesh_slice){ fence, sizeof fence });
}

static void close_shards(void)
{
    for (unsigned i = 0; i < 2; i++) {
        assert_int_equal(store_kv_wait(to[i].kv, store_kv_write(to[i].kv, to[i].batch, true)), MESH_OK);
        store_kv_batch_destroy(&to[i].batch);
        store_kv_close(&to[i].kv);
    }
}

static void open_shards(void)
{
    for (unsigned i = 0; i < 2; i++) {
        open_shard(i);
        put_base(i);
    }
}

static mesh_err save(void)
{
    store_backup *backup = store_backup_new(conf);
    for (unsigned i = 0; i < 2; i++) {
        assert_int_equal(store_backup_read(backup_dir, i, &backup->shards[i], why, WHY), MESH_OK);
    }
    mesh_err err = store_backup_save(backup, backup_dir, why, WHY);
    store_backup_destroy(&backup);
    return err;
}

static mesh_err check(void)
{
    store_backup *backup = NULL;
    mesh_err err = store_backup_load(backup_dir, &backup, why, WHY);
    err = err == MESH_OK ? store_backup_check(backup, backup_dir, why, WHY) : err;
    store_backup_destroy(&backup);
    return err;
}

static mesh_err restore(const mesh_conf *into, store_restore_counts *counts)
{
    store_restore_counts unused;
    return store_restore_run(into, backup_dir, counts != NULL ? counts : &unused, why, WHY);
}

static int setup(void **state)
{
    (void)state;
    snprintf(root, sizeof root, "/tmp/parley-restore-XXXXXX");
    assert_non_null(mkdtemp(root));
    snprintf(backup_dir, sizeof backup_dir, "%s/backup", root);
    snprintf(place, sizeof place, "%s/new", root);
    shell("mkdir %s", backup_dir);
    conf = make_conf(KEY, 2, 1);
    ring = mesh_ring_new(conf);
    assert_int_equal(mesh_ring_set(ring, ring_row(EPOCH, MESH_SLOTS / 2)), MESH_OK);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    mesh_ring_destroy(&ring);
    mesh_conf_destroy(&conf);
    shell("rm -rf %s", root);
    return 0;
}

/* ---- backups ---- */

static void a_manifest_says_what_was_saved(void **state)
{
    (void)state;
    store_backup *backup = NULL;
    assert_int_equal(store_backup_load(backup_dir, &backup, why, WHY), MESH_NOT_FOUND);
    assert_false(store_backup_is_saved(backup_dir));
    open_shards();
    close_shards();
    assert_int_equal(save(), MESH_OK);
    assert_true(store_backup_is_saved(backup_dir));
    assert_int_equal(store_backup_load(backup_dir, &backup, why, WHY), MESH_OK);
    assert_string_equal(backup->hash_key, KEY);
    assert_string_equal(backup->cluster, "there");
    assert_string_equal(backup->tenants, "default");
    assert_int_equal(backup->n_shards, 2);
    for (unsigned i = 0; i < 2; i++) {
        store_backup_shard found;
        assert_int_equal(store_backup_read(backup_dir, i, &found, why, WHY), MESH_OK);
        assert_memory_equal(found.digest, backup->shards[i].digest, sizeof found.digest);
        assert_true(backup->shards[i].there);
        assert_int_equal(backup->shards[i].index, INDEX);
        assert_int_equal(backup->shards[i].era, 11 + i);
        assert_int_equal(backup->shards[i].rows, 4);
    }
    store_backup_destroy(&backup);
    assert_int_equal(check(), MESH_OK);
}

static void a_changed_manifest_is_refused(void **state)
{
    (void)state;
    open_shards();
    close_shards();
    const char *const harms[] = { "sed -i 's/index 100/index 101/'", "sed -i '$d'", "truncate -s -1", "truncate -s 0",
                                  "sed -i 's/^cluster/custer/'" };
    for (size_t i = 0; i < sizeof harms / sizeof *harms; i++) {
        assert_int_equal(save(), MESH_OK);
        assert_int_equal(check(), MESH_OK);
        shell("%s %s/manifest", harms[i], backup_dir);
        assert_int_equal(check(), MESH_MALFORMED);
        assert_int_equal(restore(conf, NULL), MESH_MALFORMED);
    }
    assert_int_equal(save(), MESH_OK);
    shell("sed -i 's/parley-backup 1/parley-backup 2/' %s/manifest", backup_dir);
    assert_int_equal(check(), MESH_UNSUPPORTED);
    assert_int_not_equal(access(place, F_OK), 0);
}

static void a_check_finds_other_rows(void **state)
{
    (void)state;
    store_key key;
    open_shards();
    close_shards();
    assert_int_equal(save(), MESH_OK);
    open_shard(0);
    open_shard(1);
    store_key_fence(&key, 13);
    store_kv_batch_put(to[1].batch, store_key_slice(&key), (mesh_slice){ (const uint8_t *)"12345678", 8 });
    close_shards();
    assert_int_equal(check(), MESH_CORRUPT);
    assert_non_null(strstr(why, "shard-1"));
    assert_int_equal(restore(conf, NULL), MESH_CORRUPT);
    shell("rm -r %s/shard-1", backup_dir);
    assert_int_equal(check(), MESH_NOT_FOUND);
    assert_int_not_equal(access(place, F_OK), 0);
}

/* ---- pulling the rows ---- */

typedef struct pull {
    mesh_conf *conf;
    mesh_peer store, who;
    store_transfer *transfer;
    store_fetch *fetch;
    mesh_out *asks, *answers;
    mesh_arena *arena;
    mesh_time now;
    unsigned faults;
} pull;

/* One side's messages to the other. */
static void carry(pull *p, mesh_out *out, bool to_store)
{
    mesh_peer peer;
    mesh_buf frame;
    while (mesh_out_take(out, &peer, &frame)) {
        mesh_frame_reader r;
        Mesh__Msg *msg;
        assert_int_equal(mesh_frame_open(&r, mesh_buf_slice(&frame)), MESH_OK);
        while (mesh_frame_next(&r, p->arena, &msg, NULL) == MESH_OK) {
            p->faults += msg->body_case == MESH__MSG__BODY_FAULT;
            if (to_store) {
                store_transfer_message(p->transfer, p->who, msg, p->now, p->answers);
            } else if (store_fetch_takes(p->fetch, msg)) {
                store_fetch_message(p->fetch, p->store, msg, p->now, p->asks);
            }
        }
        mesh_buf_fini(&frame);
        mesh_arena_reset(p->arena);
    }
}

/* Rows of shard 1 into the place, asked for by this node. Ends when all came, or after some time. */
static mesh_err pull_rows(const char *who, const char *path, uint64_t wanted, unsigned *faults)
{
    pull p = { .conf = make_conf(KEY, 2, 1), .now = { .mono = 1000 } };
    mesh_node_conf node = { .role = MESH_OPERATOR, .name = "operator" };
    assert_int_equal(mesh_conf_add_node(p.conf, &node), MESH_OK);
    p.store = mesh_conf_find(p.conf, "store2");
    p.who = mesh_conf_find(p.conf, who);
    store_transfer_conf gives = { .conf = p.conf, .self = p.store, .boot = 3 };
    store_fetch_conf gets = {
        .conf = p.conf, .self = p.who, .path = path, .options = { 4u << 20, 4u << 20, 200 }, .seed = 5
    };
    p.asks = mesh_out_new(mesh_conf_nodes(p.conf));
    p.answers = mesh_out_new(mesh_conf_nodes(p.conf));
    p.arena = mesh_arena_new();
    p.transfer = store_transfer_new(&gives, to[1].kv);
    p.fetch = store_fetch_new(&gets, &p.store, 1, wanted, p.now);
    for (unsigned i = 0; i < 100 && store_fetch_state(p.fetch) == MESH_AGAIN; i++, p.now.mono++) {
        (void)store_fetch_turn(p.fetch, p.now, p.asks);
        carry(&p, p.asks, true);
        (void)store_transfer_turn(p.transfer, p.now, p.answers);
        assert_int_equal(store_transfer_oldest(p.transfer), STORE_TRANSFER_NONE); /* no backup keeps the log */
        carry(&p, p.answers, false);
    }
    carry(&p, p.asks, true);
    assert_int_equal(store_transfer_oldest(p.transfer), STORE_TRANSFER_NONE);
    mesh_err err = store_fetch_state(p.fetch);
    if (err == MESH_OK) {
        store_kv_batch *nothing = store_kv_batch_new();
        err = store_fetch_finish(p.fetch, nothing);
        store_kv_batch_destroy(&nothing);
    }
    *faults = p.faults;
    store_fetch_destroy(&p.fetch);
    store_transfer_destroy(&p.transfer);
    mesh_out_destroy(&p.asks);
    mesh_out_destroy(&p.answers);
    mesh_arena_destroy(&p.arena);
    mesh_conf_destroy(&p.conf);
    return err;
}

static void an_operator_gets_the_rows_and_others_do_not(void **state)
{
    (void)state;
    char path[256];
    unsigned faults;
    snprintf(path, sizeof path, "%s/shard-1", root);
    open_shards();
    assert_int_equal(store_kv_wait(to[1].kv, store_kv_write(to[1].kv, to[1].batch, true)), MESH_OK);
    assert_int_equal(pull_rows("router1", path, INDEX, &faults), MESH_AGAIN);
    assert_int_equal(faults, 1);
    assert_int_equal(pull_rows("store1", path, INDEX, &faults), MESH_AGAIN);
    assert_int_equal(faults, 1);
    assert_int_equal(pull_rows("operator", path, INDEX + 1, &faults), MESH_AGAIN); /* it has not come so far */
    assert_int_equal(faults, 1);
    assert_int_equal(pull_rows("operator", path, INDEX, &faults), MESH_OK);
    assert_int_equal(store_kv_switch(path, why, WHY), MESH_OK);
    close_shards();
    store_backup_shard got, want;
    assert_int_equal(store_backup_read(root, 1, &got, why, WHY), MESH_OK);
    assert_int_equal(store_backup_read(backup_dir, 1, &want, why, WHY), MESH_OK);
    assert_int_equal(got.rows, want.rows);
    assert_memory_equal(got.digest, want.digest, sizeof got.digest);
}

/* ---- what a restore refuses ---- */

static void refused(const mesh_conf *into, mesh_err err, const char *says)
{
    assert_int_equal(restore(into, NULL), err);
    if (strstr(why, says) == NULL) {
        fail_msg("it says: %s", why);
    }
}

static void a_restore_refuses_what_does_not_fit(void **state)
{
    (void)state;
    open_shards();
    close_shards();
    refused(conf, MESH_NOT_FOUND, "manifest");
    assert_int_equal(save(), MESH_OK);
    mesh_conf *other = make_conf("ff0102030405060708090a0b0c0d0e0f", 2, 1);
    refused(other, MESH_CONFLICT, "hash_key");
    mesh_conf_destroy(&other);
    other = make_conf(KEY, 3, 1);
    refused(other, MESH_CONFLICT, "number of shards");
    mesh_conf_destroy(&other);
    store_backup *backup = store_backup_new(conf);
    assert_int_equal(store_backup_read(backup_dir, 1, &backup->shards[1], why, WHY), MESH_OK);
    assert_int_equal(store_backup_save(backup, backup_dir, why, WHY), MESH_OK);
    refused(conf, MESH_CONFLICT, "not all shards");
    backup->data_format++;
    assert_int_equal(store_backup_save(backup, backup_dir, why, WHY), MESH_OK);
    refused(conf, MESH_UNSUPPORTED, "format");
    store_backup_destroy(&backup);
    assert_int_not_equal(access(place, F_OK), 0);
}

static void a_restore_refuses_stores_with_data(void **state)
{
    (void)state;
    open_shards();
    close_shards();
    assert_int_equal(save(), MESH_OK);
    mesh_conf *three = make_conf(KEY, 2, 3);
    shell("mkdir -p %s/store5 && touch %s/store5/000003.log", place, place);
    refused(three, MESH_CONFLICT, "store5");
    shell("test $(ls %s | wc -l) = 1", place);
    shell("rm %s/store5/000003.log", place);
    assert_int_equal(restore(three, NULL), MESH_OK); /* an empty directory is no data */
    shell("test -e %s/store1/CURRENT -a -e %s/store4/CURRENT -a ! -e %s/store2", place, place, place);
    refused(three, MESH_CONFLICT, "store1");
    mesh_conf_destroy(&three);
}

static void shards_with_different_maps_do_not_belong_together(void **state)
{
    (void)state;
    store_key key;
    open_shards();
    assert_int_equal(store_kv_wait(to[0].kv, store_kv_write(to[0].kv, to[0].batch, true)), MESH_OK);
    store_key_ring(&key);
    pack(to[1].batch, &key, ring_row(EPOCH + 1, MESH_SLOTS / 2 + 1));
    close_shards();
    assert_int_equal(store_restore_fits(conf, backup_dir, why, WHY), MESH_CONFLICT);
    assert_int_equal(save(), MESH_OK);
    refused(conf, MESH_CONFLICT, "moving");
    assert_int_not_equal(access(place, F_OK), 0);
}

static void put_slot(unsigned shard, mesh_slot slot, unsigned slot_state)
{
    store_key key;
    Store__SlotRow row = STORE__SLOT_ROW__INIT;
    row.state = slot_state;
    row.era = 77;
    store_key_slot(&key, slot);
    pack(to[shard].batch, &key, &row);
}

/* Slot 1 is shard 0's by the map, the last one shard 1's. */
static void slots_on_their_way_are_refused(void **state)
{
    (void)state;
    const struct {
        unsigned shard;
        mesh_slot slot;
        unsigned state;
        mesh_err err;
    } cases[] = {
        { 0, 1, STORE_SLOT_LEAVING, MESH_CONFLICT },     { 1, 1, STORE_SLOT_ARRIVING, MESH_CONFLICT },
        { 1, 1, STORE_SLOT_HELD, MESH_CONFLICT },        { 0, 1, STORE_SLOT_GONE, MESH_CONFLICT },
        { 1, MESH_SLOTS - 1, STORE_SLOT_HELD, MESH_OK }, { 0, MESH_SLOTS - 1, STORE_SLOT_GONE, MESH_OK },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        open_shards();
        put_slot(cases[i].shard, cases[i].slot, cases[i].state);
        close_shards();
        assert_int_equal(store_restore_fits(conf, backup_dir, why, WHY), cases[i].err);
        shell("rm -r %s/shard-0 %s/shard-1", backup_dir, backup_dir);
    }
}

/* ---- what it makes ---- */

static void put_entry(unsigned shard, const char *chat, uint64_t seq)
{
    store_key key;
    Mesh__Entry entry = MESH__ENTRY__INIT;
    entry.seq = entry.count = seq;
    store_key_entry(&key, mesh_ring_slot(ring, chat), chat, seq);
    pack(to[shard].batch, &key, &entry);
}

static void put_member(unsigned shard, const char *chat, const char *user, uint64_t from, uint64_t until)
{
    store_key key;
    Store__Span span = STORE__SPAN__INIT;
    Store__Span *spans[1] = { &span };
    Store__MemberRow row = STORE__MEMBER_ROW__INIT;
    span.from = from;
    span.to = until;
    row.n_spans = 1;
    row.spans = spans;
    store_key_member(&key, mesh_ring_slot(ring, chat), chat, user);
    pack(to[shard].batch, &key, &row);
}

static void put_position(unsigned shard, const char *user, const char *chat, uint64_t seq)
{
    store_key key;
    Store__UserChatRow row = STORE__USER_CHAT_ROW__INIT;
    row.last_seq = row.own_count = row.inbox_seq = seq;
    store_key_user_chat(&key, mesh_ring_slot(ring, user), user, chat);
    pack(to[shard].batch, &key, &row);
}

static void put_user(unsigned shard, const char *user, uint64_t chats)
{
    store_key key;
    Store__UserRow row = STORE__USER_ROW__INIT;
    row.chats = chats;
    store_key_user(&key, mesh_ring_slot(ring, user), user);
    pack(to[shard].batch, &key, &row);
}

static store_kv *open_made(const char *store)
{
    char path[256];
    store_kv *kv;
    store_kv_options options = { 4u << 20, 4u << 20, 200 };
    snprintf(path, sizeof path, "%s/%s", place, store);
    assert_int_equal(store_kv_open(path, &options, &kv, why, WHY), MESH_OK);
    return kv;
}

static const void *get(store_kv *kv, const store_key *key, const ProtobufCMessageDescriptor *desc, mesh_arena *arena)
{
    mesh_buf value = { 0 };
    ProtobufCMessage *row = NULL;
    mesh_err err = store_kv_get(kv, store_key_slice(key), &value);
    if (err == MESH_OK) {
        assert_int_equal(mesh_wire_unpack(desc, mesh_buf_slice(&value), arena, &row), MESH_OK);
    } else {
        assert_int_equal(err, MESH_NOT_FOUND);
    }
    mesh_buf_fini(&value);
    return row;
}

static const Store__UserChatRow *position(store_kv *kv, const char *user, const char *chat, mesh_arena *arena)
{
    store_key key;
    store_key_user_chat(&key, mesh_ring_slot(ring, user), user, chat);
    return get(kv, &key, &store__user_chat_row__descriptor, arena);
}

static void an_inbox_that_is_ahead_goes_back(void **state)
{
    (void)state;
    const char *chat = id_of("chat", 0), *unknown = id_of("none", 0), *own = id_of("own", 1);
    const char *left = id_of("left", 0), *ann = id_of("ann", 1);
    store_restore_counts counts;
    store_key key;
    open_shards();
    for (uint64_t seq = 1; seq <= 5; seq++) {
        put_entry(0, chat, seq);
        put_entry(0, left, seq);
    }
    put_member(0, chat, ann, 1, 0);
    put_member(0, left, ann, 2, 4);
    put_position(1, ann, chat, 7);
    put_position(1, ann, unknown, 3);
    put_position(1, ann, left, 4);
    put_position(1, ann, own, 9); /* of this shard: it is not for the restore to say what is right */
    put_user(1, ann, 4);
    close_shards();
    assert_int_equal(save(), MESH_OK);
    assert_int_equal(restore(conf, &counts), MESH_OK);
    assert_int_equal(counts.back, 2);
    assert_int_equal(counts.left, 1);
    assert_int_equal(counts.owed, 0);
    mesh_arena *arena = mesh_arena_new();
    store_kv *kv = open_made("store2");
    assert_int_equal(position(kv, ann, chat, arena)->last_seq, 5);
    assert_int_equal(position(kv, ann, chat, arena)->own_count, 5);
    assert_int_equal(position(kv, ann, left, arena)->last_seq, 4);
    assert_int_equal(position(kv, ann, own, arena)->last_seq, 9);
    assert_null(position(kv, ann, unknown, arena));
    store_key_user(&key, mesh_ring_slot(ring, ann), ann);
    assert_int_equal(((const Store__UserRow *)get(kv, &key, &store__user_row__descriptor, arena))->chats, 3);
    store_kv_close(&kv);
    mesh_arena_destroy(&arena);
}

static void an_inbox_that_is_behind_is_owed_again(void **state)
{
    (void)state;
    const char *chat = id_of("chat", 1), *even = id_of("even", 1);
    const char *bob = id_of("bob", 0), *new = id_of("new", 0), *gone = id_of("gone", 0), *here = id_of("here", 1);
    store_restore_counts counts;
    store_key key;
    open_shards();
    for (uint64_t seq = 1; seq <= 9; seq++) {
        put_entry(1, chat, seq);
        put_entry(1, even, seq);
    }
    put_member(1, chat, bob, 1, 0);
    put_member(1, chat, new, 8, 0);
    put_member(1, chat, gone, 1, 6);
    put_member(1, chat, here, 1, 0);
    put_member(1, even, bob, 1, 0);
    put_position(0, bob, chat, 4);
    put_position(0, gone, chat, 2);
    put_position(0, bob, even, 9);
    close_shards();
    assert_int_equal(save(), MESH_OK);
    assert_int_equal(restore(conf, &counts), MESH_OK);
    assert_int_equal(counts.back, 0);
    assert_int_equal(counts.owed, 2);
    mesh_arena *arena = mesh_arena_new();
    store_kv *kv = open_made("store2");
    store_key_outbox(&key, INDEX + 1);
    const Store__OutboxRow *row = get(kv, &key, &store__outbox_row__descriptor, arena);
    assert_non_null(row);
    assert_int_equal(row->n_items, 2);
    assert_string_equal(row->items[0]->chat, chat);
    assert_int_equal(row->items[0]->seq, 6);
    assert_int_equal(row->items[1]->seq, 9);
    store_key_applied(&key);
    assert_int_equal(((const Store__AppliedRow *)get(kv, &key, &store__applied_row__descriptor, arena))->index,
                     INDEX + 1);
    store_kv_close(&kv);
    mesh_arena_destroy(&arena);
}

static void a_restored_store_leads_with_a_new_era(void **state)
{
    (void)state;
    store_key key;
    char path[256];
    open_shards();
    put_slot(1, MESH_SLOTS - 1, STORE_SLOT_HELD);
    close_shards();
    assert_int_equal(save(), MESH_OK);
    shell("mkdir -p %s/store1.incoming && touch %s/store1.incoming/FINISHED", place, place); /* of a try before */
    assert_int_equal(restore(conf, NULL), MESH_OK);
    assert_int_equal(check(), MESH_OK); /* the backup is as it was */
    mesh_arena *arena = mesh_arena_new();
    uint64_t eras[2];
    for (unsigned i = 0; i < 2; i++) {
        store_kv *kv = open_made(i == 0 ? "store1" : "store2");
        store_key_shard(&key);
        const Store__ShardRow *shard = get(kv, &key, &store__shard_row__descriptor, arena);
        eras[i] = shard->era;
        assert_true(eras[i] != 0 && eras[i] != 11 + i);
        assert_string_equal(shard->cluster, "there");
        store_key_slot(&key, MESH_SLOTS - 1);
        const Store__SlotRow *moved = get(kv, &key, &store__slot_row__descriptor, arena);
        assert_true(i == 0 || (moved->state == STORE_SLOT_HELD && moved->era == 0)); /* it has the shard's */
        store_key_ring(&key);
        const Mesh__Ring *row = get(kv, &key, &mesh__ring__descriptor, arena);
        assert_int_equal(row->epoch, FENCE); /* above every fence and every ring, once it is raised */
        assert_int_equal(row->n_routers, 0);
        assert_int_equal(row->n_map, 1); /* what is in no range is shard 0's */
        store_key_applied(&key);
        const Store__AppliedRow *applied = get(kv, &key, &store__applied_row__descriptor, arena);
        assert_int_equal(applied->index, INDEX);
        assert_int_equal(applied->last_id, 4711);
        store_kv_close(&kv);
    }
    assert_true(eras[0] != eras[1]);
    mesh_arena_destroy(&arena);
    snprintf(path, sizeof path, "%s/store1", place);
    assert_int_equal(store_salvage_replay_core(conf, path, why, WHY), MESH_OK); /* it leads, and applies its opening */
    assert_int_equal(store_salvage_replay_core(conf, path, why, WHY), MESH_OK);
    store_kv *kv = open_made("store1");
    arena = mesh_arena_new();
    store_key_applied(&key);
    assert_true(((const Store__AppliedRow *)get(kv, &key, &store__applied_row__descriptor, arena))->index > INDEX);
    store_kv_close(&kv);
    mesh_arena_destroy(&arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_manifest_says_what_was_saved, setup, teardown),
        cmocka_unit_test_setup_teardown(a_changed_manifest_is_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(a_check_finds_other_rows, setup, teardown),
        cmocka_unit_test_setup_teardown(an_operator_gets_the_rows_and_others_do_not, setup, teardown),
        cmocka_unit_test_setup_teardown(a_restore_refuses_what_does_not_fit, setup, teardown),
        cmocka_unit_test_setup_teardown(a_restore_refuses_stores_with_data, setup, teardown),
        cmocka_unit_test_setup_teardown(shards_with_different_maps_do_not_belong_together, setup, teardown),
        cmocka_unit_test_setup_teardown(slots_on_their_way_are_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(an_inbox_that_is_ahead_goes_back, setup, teardown),
        cmocka_unit_test_setup_teardown(an_inbox_that_is_behind_is_owed_again, setup, teardown),
        cmocka_unit_test_setup_teardown(a_restored_store_leads_with_a_new_era, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
