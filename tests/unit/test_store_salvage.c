/* Damaged databases: what the scanner says, what open refuses, what salvage saves. The images are what a power cut
 * leaves: a closed database whose newest log file lost, or garbled, what came after the last sync. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <dirent.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "mesh/wire.h"
#include "store.pb-c.h"
#include "store/consensus.h"
#include "store/key.h"
#include "store/salvage.h"
#include "tests/unit/salvage_group.h"
#include "tests/unit/shell.h"

#define MESSAGES 40
#define ROOM_SLOT 77 /* any: a salvage goes by what the keys say */
#define BOB_SLOT 4000

static char root[64];
static char log_file[512]; /* of the image, while it stands at image() */
static const store_kv_options options = { 4u << 20, 4u << 20, 200 };

static const char *at_root(const char *name)
{
    static char paths[64][128];
    static unsigned next;
    char *path = paths[next++ % 64];
    snprintf(path, sizeof paths[0], "%s/%s", root, name);
    return path;
}

/* ---- an image: a log, and the rows of one chat with one reader ---- */

static void pack(store_kv_batch *batch, const store_key *key, const void *message)
{
    mesh_buf value = { 0 };
    mesh_wire_pack(message, &value);
    store_kv_batch_put(batch, store_key_slice(key), mesh_buf_slice(&value));
    mesh_buf_fini(&value);
}

static void put_message(store_kv_batch *batch, uint64_t index, uint64_t seq)
{
    store_key key;
    char cmid[16];
    char body[] = "a body that is long enough to matter";
    Mesh__Entry entry = MESH__ENTRY__INIT;
    entry.chat = (char[]){ "default/room" };
    entry.seq = seq;
    entry.body.data = (uint8_t *)body;
    entry.body.len = sizeof body;
    store_key_entry(&key, ROOM_SLOT, "default/room", seq);
    pack(batch, &key, &entry);
    store_key_inbox(&key, BOB_SLOT, "default/bob", seq);
    pack(batch, &key, &entry);
    Store__DedupeRow dedupe = STORE__DEDUPE_ROW__INIT;
    dedupe.seq = seq;
    snprintf(cmid, sizeof cmid, "m%d", (int)seq);
    store_key_dedupe(&key, ROOM_SLOT, "default/room", "default/ann", cmid);
    pack(batch, &key, &dedupe);
    Store__UserChatRow user_chat = STORE__USER_CHAT_ROW__INIT;
    user_chat.last_seq = user_chat.inbox_seq = seq;
    store_key_user_chat(&key, BOB_SLOT, "default/bob", "default/room");
    pack(batch, &key, &user_chat);
    Store__AppliedRow applied = STORE__APPLIED_ROW__INIT;
    applied.index = index;
    applied.term = 1;
    store_key_applied(&key);
    pack(batch, &key, &applied);
}

typedef struct writer {
    store_kv *kv;
    store_kv_batch *batch;
    uint64_t seq;
} writer;

static void committed(void *arg, uint64_t index, uint64_t term, mesh_slice payload, bool own)
{
    (void)term;
    (void)payload;
    (void)own;
    writer *w = arg;
    put_message(w->batch, index, ++w->seq);
    assert_int_equal(store_kv_wait(w->kv, store_kv_write(w->kv, w->batch, false)), MESH_OK);
}

static mesh_err open_at(const char *path, store_kv **kv_p, char why[512])
{
    return store_kv_open(path, &options, kv_p, why, 512);
}

static void find_log(const char *path)
{
    DIR *dir = opendir(path);
    assert_non_null(dir);
    for (struct dirent *e = readdir(dir); e != NULL; e = readdir(dir)) {
        if (strstr(e->d_name, ".log") != NULL) {
            snprintf(log_file, sizeof log_file, "%s/%s", path, e->d_name);
        }
    }
    closedir(dir);
}

/* A fresh one at "image": n messages, each in a log entry of its own, each its own record. */
static const char *image(int n)
{
    static char path[128];
    snprintf(path, sizeof path, "%s/image", root);
    char why[512] = "";
    writer w = { .batch = store_kv_batch_new() };
    store_consensus *cons = NULL;
    store_replica self = { 7, "here" };
    store_consensus_conf conf = {
        .raft_id = 7, .cluster = "c", .address = "here", .seed = 1, .group = &self, .n_group = 1
    };
    mesh_time now = { 1000, 0 };
    shell("rm -rf %s %s", path, at_root("to"));
    assert_int_equal(open_at(path, &w.kv, why), MESH_OK);
    assert_int_equal(store_consensus_open(&conf, w.kv, 0, now, committed, &w, &cons, why, sizeof why), MESH_OK);
    for (int i = 0; i < n; i++) {
        uint64_t index;
        assert_int_equal(store_consensus_submit(cons, (mesh_slice){ (const uint8_t *)"payload", 7 }, now, &index),
                         MESH_OK);
        while (w.seq < (uint64_t)i + 1) {
            store_consensus_step(cons, now);
        }
    }
    store_consensus_close(&cons);
    store_kv_close(&w.kv);
    store_kv_batch_destroy(&w.batch);
    find_log(path);
    return path;
}

static uint64_t size_of(const char *file)
{
    store_salvage_found found;
    assert_int_equal(store_salvage_scan(file, &found), MESH_OK);
    return found.size;
}

/* Where the last record begins. */
static uint64_t last_record(const char *file)
{
    store_salvage_found found;
    uint64_t size = size_of(file);
    char copy[600];
    snprintf(copy, sizeof copy, "%s.cut", file);
    shell("cp %s %s && truncate -s %llu %s", file, copy, (unsigned long long)size - 1, copy);
    assert_int_equal(store_salvage_scan(copy, &found), MESH_OK);
    assert_true(found.bad);
    unlink(copy);
    return found.good_end;
}

/* ---- salvage, and what it said ---- */

static char said[100000];
static bool check_untouched = true;

static mesh_err salvage(const char *from, const char *acks_text)
{
    char *text = NULL;
    size_t size = 0;
    FILE *report = open_memstream(&text, &size);
    FILE *acks = acks_text != NULL ? fmemopen((void *)(uintptr_t)acks_text, strlen(acks_text), "r") : NULL;
    shell("rm -rf %s", at_root("to"));
    if (check_untouched) {
        shell("cd %s && cksum * > %s", from, at_root("before"));
    }
    mesh_err err = store_salvage_run(from, at_root("to"), NULL, NULL, acks, report);
    if (check_untouched) {
        shell("cd %s && cksum * | cmp - %s", from, at_root("before"));
    }
    fclose(report);
    if (acks != NULL) {
        fclose(acks);
    }
    snprintf(said, sizeof said, "%s", text);
    free(text);
    return err;
}

static void expect_said(const char *what)
{
    if (strstr(said, what) == NULL) {
        fail_msg("the report does not say '%s':\n%s", what, said);
    }
}

static void expect_messages(const char *path, uint64_t n)
{
    char why[512] = "";
    store_kv *kv = NULL;
    mesh_buf value = { 0 };
    store_key key;
    if (open_at(path, &kv, why) != MESH_OK) {
        fail_msg("%s", why);
    }
    for (uint64_t seq = 1; seq <= n + 1; seq++) {
        store_key_entry(&key, ROOM_SLOT, "default/room", seq);
        assert_int_equal(store_kv_get(kv, store_key_slice(&key), &value), seq <= n ? MESH_OK : MESH_NOT_FOUND);
    }
    mesh_buf_fini(&value);
    store_kv_close(&kv);
}

/* ---- the tests ---- */

static void whole_image(void **state)
{
    (void)state;
    const char *path = image(MESSAGES);
    store_salvage_found found;
    assert_int_equal(store_salvage_scan(log_file, &found), MESH_OK);
    assert_false(found.bad);
    assert_int_equal(found.good_end, found.size);
    assert_int_equal(found.records, 1 + 2 * MESSAGES); /* bootstrap, and entry and rows of each */
    assert_int_equal(salvage(path, "room 1\nroom 40\ndefault/room 7\n"), MESH_OK);
    expect_said("salvaged: 164 rows, 0 missing\n"); /* 41 of the log, 40 each of m, i, d, and H, A, u */
    expect_messages(at_root("to"), MESSAGES);
    assert_int_equal(store_salvage_run(path, at_root("to"), NULL, NULL, NULL, stdout), MESH_CONFLICT);
}

/* The last record torn at each of its bytes: nothing before it is lost, by open or by salvage. */
static void torn_at_every_byte(void **state)
{
    (void)state;
    const char *path = image(5);
    uint64_t from = last_record(log_file), size = size_of(log_file);
    assert_true(size - from > 100);
    char why[512];
    shell("cp -r %s %s", path, at_root("whole"));
    check_untouched = false; /* the others look */
    for (uint64_t cut = from; cut < size; cut++) {
        shell("rm -rf %s && cp -r %s %s && truncate -s %llu %s", path, at_root("whole"), path, (unsigned long long)cut,
              log_file);
        store_salvage_found found;
        assert_int_equal(store_salvage_scan(log_file, &found), MESH_OK);
        assert_int_equal(found.bad, cut > from);
        assert_int_equal(found.good_end, from);
        assert_false(found.valid_after);
        if ((cut - from) % 6 < 2) {
            assert_int_equal(salvage(path, NULL), MESH_OK);
            expect_said("unapplied: 1 log entries");
            expect_said("0 missing");
            expect_messages(at_root("to"), 4);
        }
        store_kv *kv = NULL;
        assert_int_equal(open_at(path, &kv, why), MESH_OK); /* LevelDB takes a clean tear for the end */
        store_kv_close(&kv);
        expect_messages(path, 4);
    }
    check_untouched = true;
    shell("rm -rf %s", at_root("whole"));
}

/* The last record half written: its first bytes right, then garbage or zeroes. */
static void garbage_end(void **state)
{
    (void)state;
    int refused = 0;
    for (int zero = 0; zero < 2; zero++) {
        for (unsigned keep = 0; keep < 60; keep += 7) {
            const char *path = image(5);
            uint64_t from = last_record(log_file);
            shell("n=$(($(stat -c %%s %s) - %llu)); truncate -s %llu %s; head -c $n %s >> %s", log_file,
                  (unsigned long long)(from + keep), (unsigned long long)(from + keep), log_file,
                  zero ? "/dev/zero" : "/dev/urandom", log_file);
            char why[512] = "";
            store_kv *kv = NULL;
            store_salvage_found found;
            assert_int_equal(store_salvage_scan(log_file, &found), MESH_OK);
            assert_false(found.valid_after);
            shell("cd %s && cksum * > %s", path, at_root("before"));
            mesh_err err = open_at(path, &kv, why);
            store_kv_close(&kv);
            if (err != MESH_OK) {
                shell("cd %s && cksum * | cmp - %s", path, at_root("before")); /* not even LevelDB's own LOG */
                assert_int_equal(err, MESH_CORRUPT);
                assert_non_null(strstr(why, log_file));
                assert_non_null(strstr(why, "nothing good follows"));
                assert_int_equal(salvage(path, NULL), MESH_OK);
                expect_said("cut: ");
                expect_said("0 missing");
                expect_messages(at_root("to"), 4);
                refused++;
            } else { /* zeroes right behind a record are space; a length beyond the file's end is a clean tear */
                if (found.bad && strstr(found.reason, "cut off") == NULL) {
                    fail_msg("opened, but %s (keep %u, zero %d)", found.reason, keep, zero);
                }
                expect_messages(path, 4);
            }
        }
    }
    assert_true(refused > 5);
}

/* Damage with good records behind it: both refuse, with file and offset. */
static void damage_in_the_middle(void **state)
{
    (void)state;
    for (int at = 20; at < 3000; at += 53) { /* somewhere in a length, a type, a checksum, a payload */
        const char *path = image(MESSAGES);
        char why[512] = "", offset[64];
        store_kv *kv = NULL;
        store_salvage_found found;
        shell("printf '\\377\\000\\377' | dd of=%s bs=1 seek=%d conv=notrunc 2>/dev/null", log_file, at);
        assert_int_equal(store_salvage_scan(log_file, &found), MESH_OK);
        assert_true(found.bad && found.valid_after);
        assert_true(found.bad_offset <= (uint64_t)at + 2 && found.good_end <= found.bad_offset);
        shell("cd %s && cksum * > %s", path, at_root("before"));
        assert_int_equal(open_at(path, &kv, why), MESH_CORRUPT);
        shell("cd %s && cksum * | cmp - %s", path, at_root("before"));
        assert_non_null(strstr(why, log_file));
        assert_non_null(strstr(why, "good records follow"));
        assert_int_equal(salvage(path, NULL), MESH_CORRUPT);
        snprintf(offset, sizeof offset, "at offset %llu of ", (unsigned long long)found.bad_offset);
        expect_said("refused: ");
        expect_said(offset);
        expect_said("good records follow");
    }
}

/* A record of several blocks that was being written: later pieces may be on disk while earlier ones are not. */
static void torn_long_record(void **state)
{
    (void)state;
    const char *path = image(3);
    char why[512] = "";
    store_kv *kv = NULL;
    uint8_t *big = calloc(1, 150000);
    for (size_t i = 0; i < 150000; i++) {
        big[i] = (uint8_t)(i * 7 + i / 251);
    }
    assert_int_equal(open_at(path, &kv, why), MESH_OK);
    store_kv_batch *batch = store_kv_batch_new();
    store_kv_batch_put(batch, (mesh_slice){ (const uint8_t *)"before", 6 }, (mesh_slice){ big, 10 });
    assert_int_equal(store_kv_wait(kv, store_kv_write(kv, batch, true)), MESH_OK);
    store_kv_batch_put(batch, (mesh_slice){ (const uint8_t *)"zz", 2 }, (mesh_slice){ big, 150000 });
    assert_int_equal(store_kv_wait(kv, store_kv_write(kv, batch, true)), MESH_OK);
    store_kv_close(&kv);
    find_log(path);
    uint64_t from = last_record(log_file);
    shell("dd if=/dev/zero of=%s bs=1 seek=%llu count=40000 conv=notrunc 2>/dev/null", log_file,
          (unsigned long long)from);
    store_salvage_found found;
    assert_int_equal(store_salvage_scan(log_file, &found), MESH_OK);
    assert_true(found.bad);
    assert_false(found.valid_after); /* middle and last pieces follow, no beginning */
    assert_int_equal(found.good_end, from);
    assert_int_equal(salvage(path, NULL), MESH_OK);
    expect_said("0 missing");
    expect_messages(at_root("to"), 3);

    /* the same hole with a whole record after it: that one was acked after the long one */
    shell("cp %s %s.torn", log_file, log_file);
    path = image(3);
    assert_int_equal(open_at(path, &kv, why), MESH_OK);
    store_kv_batch_put(batch, (mesh_slice){ (const uint8_t *)"zz", 2 }, (mesh_slice){ big, 150000 });
    assert_int_equal(store_kv_wait(kv, store_kv_write(kv, batch, true)), MESH_OK);
    store_kv_batch_put(batch, (mesh_slice){ (const uint8_t *)"after", 5 }, (mesh_slice){ big, 10 });
    assert_int_equal(store_kv_wait(kv, store_kv_write(kv, batch, true)), MESH_OK);
    store_kv_close(&kv);
    store_kv_batch_destroy(&batch);
    find_log(path);
    shell("dd if=/dev/zero of=%s bs=1 count=40000 conv=notrunc 2>/dev/null", log_file);
    assert_int_equal(salvage(path, NULL), MESH_CORRUPT);
    expect_said("good records follow");
    free(big);
}

/* An older log file has no right to a torn end: the newer one was written after it. */
static void older_log_is_torn(void **state)
{
    (void)state;
    const char *path = image(5);
    shell("cp %s %s/000099.log && truncate -s -3 %s", log_file, path, log_file);
    char why[512] = "";
    store_kv *kv = NULL;
    assert_int_equal(open_at(path, &kv, why), MESH_CORRUPT);
    assert_non_null(strstr(why, log_file));
    assert_int_equal(salvage(path, NULL), MESH_CORRUPT);
    expect_said(strrchr(log_file, '/'));
}

/* A crash while opening leaves the torn file with an empty newer one, or one that is no longer needed: neither is
 * damage. */
static void crash_while_opening(void **state)
{
    (void)state;
    const char *path = image(5);
    char why[512] = "";
    store_kv *kv = NULL;
    shell("truncate -s -3 %s && : > %s/000099.log", log_file, path);
    shell("cp %s %s", log_file, at_root("torn.log"));
    assert_int_equal(salvage(path, NULL), MESH_OK);
    expect_said("cut: ");
    expect_messages(at_root("to"), 4);
    assert_int_equal(open_at(path, &kv, why), MESH_OK);
    store_kv_close(&kv);
    expect_messages(path, 4);
    shell("cp %s %s/000003.log", at_root("torn.log"), path);
    assert_int_equal(salvage(path, NULL), MESH_OK);
    expect_messages(at_root("to"), 4);
    expect_messages(path, 4);
}

static void change_rows(const char *path, void (*change)(store_kv_batch *batch))
{
    char why[512] = "";
    store_kv *kv = NULL;
    store_kv_batch *batch = store_kv_batch_new();
    assert_int_equal(open_at(path, &kv, why), MESH_OK);
    change(batch);
    assert_int_equal(store_kv_wait(kv, store_kv_write(kv, batch, true)), MESH_OK);
    store_kv_batch_destroy(&batch);
    store_kv_close(&kv);
}

static void lose_rows(store_kv_batch *batch)
{
    store_key key;
    for (uint64_t seq = 7; seq <= 9; seq++) {
        store_key_entry(&key, ROOM_SLOT, "default/room", seq);
        store_kv_batch_delete(batch, store_key_slice(&key));
    }
    store_key_entry(&key, ROOM_SLOT, "default/room", 1);
    store_kv_batch_delete(batch, store_key_slice(&key));
    store_key_entry(&key, ROOM_SLOT, "default/room", MESSAGES);
    store_kv_batch_delete(batch, store_key_slice(&key));
    store_key_inbox(&key, BOB_SLOT, "default/bob", 3);
    store_kv_batch_delete(batch, store_key_slice(&key));
    Store__DeviceRow device = STORE__DEVICE_ROW__INIT;
    device.cursor = MESSAGES + 2;
    store_key_device(&key, BOB_SLOT, "default/bob", "phone");
    pack(batch, &key, &device);
    Store__OutboxItem item = STORE__OUTBOX_ITEM__INIT;
    Store__OutboxItem *items[] = { &item };
    Store__OutboxRow outbox = STORE__OUTBOX_ROW__INIT;
    item.chat = (char[]){ "default/room" };
    item.seq = MESSAGES + 1;
    outbox.n_items = 1;
    outbox.items = items;
    store_key_outbox(&key, 30);
    pack(batch, &key, &outbox);
    Store__UserChatRow elsewhere = STORE__USER_CHAT_ROW__INIT; /* a chat of another shard: cannot be judged here */
    elsewhere.last_seq = 1000;
    store_key_user_chat(&key, BOB_SLOT, "default/bob", "default/far");
    pack(batch, &key, &elsewhere);
}

static void missing_things_are_named(void **state)
{
    (void)state;
    const char *path = image(MESSAGES);
    change_rows(path, lose_rows);
    assert_int_equal(salvage(path, "room 5\nroom 9\nroom 77\nother/room 1\n"), MESH_OK);
    static const char *const lines[] = {
        "missing chat=default/room seq=1\n",       "missing chat=default/room seq=7\n",
        "missing chat=default/room seq=8\n",       "missing chat=default/room seq=9\n",
        "missing chat=default/room seq=40\n",      "missing chat=default/room seq=41\n",
        "missing user=default/bob inbox_seq=3\n",  "missing user=default/bob inbox_seq=41\n",
        "missing user=default/bob inbox_seq=42\n", "missing chat=default/room seq=77\n",
        "missing chat=other/room seq=1\n",
    };
    for (size_t i = 0; i < sizeof lines / sizeof lines[0]; i++) {
        expect_said(lines[i]);
    }
    expect_said(" rows, 11 missing\n"); /* each once */
    assert_null(strstr(said, "far"));
    assert_int_equal(salvage(path, "room\n"), MESH_MALFORMED);
    assert_int_equal(salvage(path, "room 1 x\n"), MESH_MALFORMED);
    assert_int_equal(salvage(path, "no/such/id 1\n"), MESH_MALFORMED);
}

static void lose_log_row(store_kv_batch *batch)
{
    store_kv_batch_delete(batch, (mesh_slice){ (const uint8_t *)"\0L\0\0\0\0\0\0\0\5", 10 });
}

static void trim_inbox(store_kv_batch *batch)
{
    store_key key;
    Store__UserRow user = STORE__USER_ROW__INIT;
    user.trimmed = 10;
    store_key_user(&key, BOB_SLOT, "default/bob");
    pack(batch, &key, &user);
    for (uint64_t seq = 1; seq <= 10; seq++) {
        store_key_inbox(&key, BOB_SLOT, "default/bob", seq);
        store_kv_batch_delete(batch, store_key_slice(&key));
    }
}

static void log_hole_and_trimmed_inbox(void **state)
{
    (void)state;
    const char *path = image(MESSAGES);
    change_rows(path, trim_inbox);
    assert_int_equal(salvage(path, NULL), MESH_OK);
    expect_said(" 0 missing\n");
    change_rows(path, lose_log_row);
    assert_int_equal(salvage(path, NULL), MESH_CORRUPT);
    expect_said("the log has a hole after index 4");
}

static mesh_err replay_fails(void *arg, const char *path, char *why, size_t why_size)
{
    snprintf(why, why_size, "called with %s", path);
    *(int *)arg += 1;
    return MESH_CORRUPT;
}

static void replay_is_asked(void **state)
{
    (void)state;
    const char *path = image(3);
    int calls = 0;
    char *text = NULL;
    size_t size = 0;
    FILE *report = open_memstream(&text, &size);
    assert_int_equal(store_salvage_run(path, at_root("to"), replay_fails, &calls, NULL, report), MESH_CORRUPT);
    fclose(report);
    assert_int_equal(calls, 1);
    assert_non_null(strstr(text, "called with "));
    free(text);
    shell("rm -rf %s", at_root("to"));
    assert_int_equal(store_salvage_run(at_root("nothing"), at_root("to"), NULL, NULL, NULL, stderr), MESH_IO);
}

static int make_root(void **state)
{
    (void)state;
    snprintf(root, sizeof root,
             "/dev/shm/parley-salvage-XXXXXX"); /* memory: no power is cut here, so syncs need not cost */
    if (mkdtemp(root) != NULL) {
        return 0;
    }
    snprintf(root, sizeof root, "/tmp/parley-salvage-XXXXXX");
    return mkdtemp(root) == NULL;
}

static int remove_root(void **state)
{
    (void)state;
    char rm[128];
    snprintf(rm, sizeof rm, "rm -rf %s", root);
    return system(rm);
}

/* 0: the database has none. */
static uint64_t era_at(const char *path)
{
    char why[512] = "";
    store_kv *kv = NULL;
    store_key key;
    mesh_buf value = { 0 };
    uint64_t era = 0;
    mesh_arena *arena = mesh_arena_new();
    ProtobufCMessage *row;
    assert_int_equal(open_at(path, &kv, why), MESH_OK);
    store_key_shard(&key);
    if (store_kv_get(kv, store_key_slice(&key), &value) == MESH_OK) {
        assert_int_equal(mesh_wire_unpack(&store__shard_row__descriptor, mesh_buf_slice(&value), arena, &row), MESH_OK);
        assert_string_equal(((const Store__ShardRow *)row)->cluster, "c");
        era = ((const Store__ShardRow *)row)->era;
    }
    mesh_buf_fini(&value);
    mesh_arena_destroy(&arena);
    store_kv_close(&kv);
    return era;
}

static void a_copy_that_takes_over_has_a_new_era(void **state)
{
    (void)state;
    const char *path = image(3);
    char why[512] = "";
    uint64_t eras[2];
    assert_int_equal(store_salvage_new_era(path, &eras[0], why, sizeof why), MESH_OK);
    assert_int_not_equal(eras[0], 0);
    assert_true(era_at(path) == eras[0]);
    assert_int_equal(store_salvage_new_era(path, &eras[1], why, sizeof why), MESH_OK);
    assert_true(era_at(path) == eras[1] && eras[1] != eras[0]);
    expect_messages(path, 3);
    find_log(path);
    assert_int_equal(salvage(path, NULL), MESH_OK);
    uint64_t salvaged = era_at(at_root("to"));
    assert_true(salvaged != 0 && salvaged != eras[1]);
    assert_true(era_at(path) == eras[1]);

    assert_int_equal(store_salvage_new_era(at_root("nothing"), &eras[0], why, sizeof why), MESH_NOT_FOUND);
    assert_non_null(strstr(why, "nothing"));
    shell("! test -e %s", at_root("nothing"));
    store_kv *kv = NULL;
    assert_int_equal(open_at(at_root("empty"), &kv, why), MESH_OK);
    assert_int_not_equal(store_salvage_new_era(at_root("empty"), &eras[0], why, sizeof why), MESH_OK); /* it is open */
    store_kv_close(&kv);
    assert_int_equal(store_salvage_new_era(at_root("empty"), &eras[0], why, sizeof why), MESH_NOT_FOUND);
    assert_non_null(strstr(why, "no store"));
}

/* ---- a replica of a group of several ---- */

#define SAID 5 /* messages that were acked */

static store_salvage_replica replica;

static mesh_err salvage_replica(const char *from, bool cut)
{
    char *text = NULL;
    size_t size = 0;
    FILE *report = open_memstream(&text, &size);
    shell("rm -rf %s; cd %s && cksum * > %s", at_root("to"), from, at_root("before"));
    replica.from = from;
    replica.cut = cut;
    replica.report = report;
    mesh_err err = store_salvage_run(from, at_root("to"), store_salvage_replay_replica, &replica, NULL, report);
    shell("cd %s && cksum * | cmp - %s", from, at_root("before"));
    fclose(report);
    snprintf(said, sizeof said, "%s", text);
    free(text);
    return err;
}

/* The state machine's rows, but the era, into hex lines. */
static char *rows_of(const char *path)
{
    char why[512] = "", *text = NULL;
    size_t size = 0;
    store_kv *kv = NULL;
    FILE *out = open_memstream(&text, &size);
    store_key shard;
    store_key_shard(&shard);
    assert_int_equal(open_at(path, &kv, why), MESH_OK);
    store_kv_iter *it = store_kv_iter_new(kv, (mesh_slice){ NULL, 0 });
    for (store_kv_iter_first(it); store_kv_iter_valid(it); store_kv_iter_next(it)) {
        mesh_slice key = store_kv_iter_key(it), value = store_kv_iter_value(it);
        if (key.data[0] == 0 || key.data[0] == store_key_slice(&shard).data[0]) {
            continue;
        }
        for (size_t i = 0; i < key.size; i++) {
            fprintf(out, "%02x", key.data[i]);
        }
        fputc('=', out);
        for (size_t i = 0; i < value.size; i++) {
            fprintf(out, "%02x", value.data[i]);
        }
        fputc('\n', out);
    }
    assert_int_equal(store_kv_iter_status(it), MESH_OK);
    store_kv_iter_destroy(&it);
    store_kv_close(&kv);
    fclose(out);
    return text;
}

static void expect_same_rows(const char *a, const char *b)
{
    char *of_a = rows_of(a), *of_b = rows_of(b);
    assert_string_equal(of_a, of_b);
    free(of_a);
    free(of_b);
}

/* Of the one chat there is. */
static unsigned messages_in(const char *path)
{
    char why[512] = "";
    unsigned n = 0;
    store_kv *kv = NULL;
    store_key key;
    mesh_slice entries;
    assert_int_equal(open_at(path, &kv, why), MESH_OK);
    store_key_entry(&key, 0, "x", 1);
    entries = (mesh_slice){ store_key_slice(&key).data, 1 };
    store_kv_iter *it = store_kv_iter_new(kv, entries);
    for (store_kv_iter_first(it); store_kv_iter_valid(it); store_kv_iter_next(it)) {
        n++;
    }
    store_kv_iter_destroy(&it);
    store_kv_close(&kv);
    return n;
}

static char *store_at(size_t i)
{
    static char paths[TRIO][160];
    snprintf(paths[i], sizeof paths[i], "%s/group/store%zu", root, i + 1);
    return paths[i];
}

/* Three replicas with SAID messages, all applied on all. */
static trio *make_trio(void)
{
    shell("rm -rf %s && mkdir %s", at_root("group"), at_root("group"));
    trio *t = trio_new(at_root("group"));
    for (size_t i = 0; i < TRIO; i++) {
        trio_start(t, i);
    }
    trio_settle(t);
    for (unsigned i = 0; i < SAID; i++) {
        trio_say_acked(t);
    }
    trio_settle(t);
    replica = (store_salvage_replica){ .conf = t->conf };
    return t;
}

static void stop_all(trio *t)
{
    for (size_t i = 0; i < TRIO; i++) {
        trio_stop(t, i);
    }
}

/* The copy takes its store's place, the others begin empty: all three vote again and have the same rows. */
static void rejoin(trio *t, size_t place)
{
    char *before = rows_of(at_root("to"));
    shell("rm -rf %s/store*; mv %s %s", at_root("group"), at_root("to"), store_at(place));
    trio_start(t, place);
    for (unsigned turn = 0; turn < TRIO_TURNS && trio_leader(t) != place; turn++) {
        trio_turn(t);
    }
    assert_int_equal(trio_leader(t), place); /* alone */
    assert_int_equal(trio_stat(t, place, STORE_M_VOTERS), 1);
    for (size_t i = 0; i < TRIO; i++) {
        if (i != place) {
            trio_start(t, i);
        }
    }
    trio_settle(t);
    stop_all(t);
    for (size_t i = 0; i < TRIO; i++) {
        char *after = rows_of(store_at(i));
        assert_string_equal(before, after);
        free(after);
    }
    free(before);
}

static void a_replica_becomes_a_group_of_one(void **state)
{
    (void)state;
    trio *t = make_trio();
    size_t follower = (trio_leader(t) + 1) % TRIO;
    char name[32];
    stop_all(t);
    assert_int_equal(messages_in(store_at(follower)), SAID);
    for (size_t i = 0; i < TRIO; i++) {
        assert_int_equal(salvage_replica(store_at(i), false), MESH_OK);
        snprintf(name, sizeof name, "replica: store%zu, one of 3 ", i + 1);
        expect_said(name);
        expect_said("unproven: 0 entries of the log that may or may not have been committed\n");
        snprintf(name, sizeof name, "group of one voter, store%zu,", i + 1);
        expect_said(name);
        expect_said(" 0 missing\n");
        expect_same_rows(at_root("to"), store_at(follower));
    }
    assert_int_equal(salvage_replica(store_at(follower), true), MESH_OK);
    expect_same_rows(at_root("to"), store_at(follower));
    rejoin(t, follower);
    trio_destroy(t);
}

/* A follower has entries that the leader never heard it has: whether they are committed nobody can say. */
static void what_is_not_proven_is_kept_or_cut(void **state)
{
    (void)state;
    trio *t = make_trio();
    size_t leader = trio_leader(t), follower = (leader + 1) % TRIO, other = (leader + 2) % TRIO;
    trio_stop(t, other);
    t->deaf[follower][leader] = true;
    uint64_t last = trio_stat(t, leader, STORE_M_LAST), corr = 0;
    for (unsigned i = 0; i < 2; i++) { /* an entry each */
        corr = trio_say(t, leader);
        trio_turn(t);
        trio_turn(t);
    }
    assert_int_equal(trio_stat(t, follower, STORE_M_LAST), last + 2);
    assert_true(t->answered != corr);
    trio_stop(t, leader);
    trio_stop(t, follower);
    expect_same_rows(store_at(follower), store_at(other));

    assert_int_equal(salvage_replica(store_at(follower), true), MESH_OK);
    expect_said("unproven: 2 entries of the log that may or may not have been committed: cut\n");
    assert_int_equal(messages_in(at_root("to")), SAID);
    expect_same_rows(at_root("to"), store_at(other));
    assert_int_equal(salvage_replica(store_at(follower), false), MESH_OK);
    expect_said("unproven: 2 entries of the log that may or may not have been committed: applied\n");
    expect_said(" 0 missing\n");
    assert_int_equal(messages_in(at_root("to")), SAID + 2);
    t->deaf[follower][leader] = false;
    rejoin(t, follower);
    trio_destroy(t);
}

/* Only what consensus has: a machine went down before it wrote any row. The last configurations prove what was before.
 */
static void rows_come_from_the_log(void **state)
{
    (void)state;
    trio *t = make_trio();
    size_t leader = trio_leader(t);
    stop_all(t);
    char why[512] = "";
    store_kv *from = NULL, *to = NULL;
    store_kv_batch *batch = store_kv_batch_new();
    store_key applied;
    store_key_applied(&applied);
    shell("rm -rf %s", at_root("store9.quarantine-then"));
    assert_int_equal(open_at(store_at(leader), &from, why), MESH_OK);
    assert_int_equal(open_at(at_root("store9.quarantine-then"), &to, why), MESH_OK);
    store_kv_iter *it = store_kv_iter_new(from, (mesh_slice){ (const uint8_t *)"", 1 });
    for (store_kv_iter_first(it); store_kv_iter_valid(it); store_kv_iter_next(it)) {
        store_kv_batch_put(batch, store_kv_iter_key(it), store_kv_iter_value(it));
    }
    store_kv_iter_destroy(&it);
    store_kv_batch_delete(batch, store_key_slice(&applied));
    assert_int_equal(store_kv_wait(to, store_kv_write(to, batch, true)), MESH_OK);
    store_kv_batch_destroy(&batch);
    store_kv_close(&from);
    store_kv_close(&to);

    assert_int_equal(salvage_replica(at_root("store9.quarantine-then"), false), MESH_OK);
    expect_same_rows(at_root("to"), store_at(leader));
    expect_said("applied: ");
    expect_said(": applied\n");
    assert_int_equal(salvage_replica(at_root("store9.quarantine-then"), true), MESH_OK);
    expect_said("applied: ");
    expect_said(": cut\n");
    assert_int_equal(messages_in(at_root("to")), 0);

    replica.node = "store7";
    assert_int_equal(salvage_replica(store_at(leader), false), MESH_MALFORMED);
    expect_said("the config has no store store7");
    replica.node = leader == 2 ? "store1" : "store3"; /* another place of the same shard */
    assert_int_equal(salvage_replica(store_at(leader), false), MESH_OK);
    expect_said(leader == 2 ? "group of one voter, store1," : "group of one voter, store3,");
    trio_destroy(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(whole_image),
        cmocka_unit_test(torn_at_every_byte),
        cmocka_unit_test(garbage_end),
        cmocka_unit_test(damage_in_the_middle),
        cmocka_unit_test(torn_long_record),
        cmocka_unit_test(older_log_is_torn),
        cmocka_unit_test(crash_while_opening),
        cmocka_unit_test(missing_things_are_named),
        cmocka_unit_test(log_hole_and_trimmed_inbox),
        cmocka_unit_test(replay_is_asked),
        cmocka_unit_test(a_copy_that_takes_over_has_a_new_era),
        cmocka_unit_test(a_replica_becomes_a_group_of_one),
        cmocka_unit_test(what_is_not_proven_is_kept_or_cut),
        cmocka_unit_test(rows_come_from_the_log),
    };
    return cmocka_run_group_tests(tests, make_root, remove_root);
}
