/* Consensus of a group of one, on the simulator's disk: what is committed when, and what a crash leaves. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "store/consensus.h"
#include "store/consensus_log.h"
#include "tests/sim/kv_mem.c" /* instead of the archive's */

/* The owner: for each committed entry one row with its payload and the applied index, in one unsynced batch. */
typedef struct owner {
    store_kv *kv;
    store_consensus *cons;
    store_kv_batch *batch;
    uint64_t applied, handed, own;
    uint64_t trail;
    mesh_time now;
    bool quiet; /* only count */
} owner;

static mesh_slice text(const char *s)
{
    return (mesh_slice){ (const uint8_t *)s, strlen(s) };
}

static mesh_slice row_key_of(char out[24], uint64_t index)
{
    return (mesh_slice){ (uint8_t *)out, (size_t)snprintf(out, 24, "m%020llu", (unsigned long long)index) };
}

static void committed(void *arg, uint64_t index, uint64_t term, mesh_slice payload, bool own)
{
    owner *o = arg;
    assert_true(index > o->applied);
    assert_true(term > 0);
    o->applied = index;
    o->handed++;
    o->own += own;
    if (o->quiet) {
        return;
    }
    char key[24];
    uint8_t number[8];
    mesh_put_u64be(number, index);
    store_kv_batch_put(o->batch, row_key_of(key, index), payload);
    store_kv_batch_put(o->batch, text("A"), (mesh_slice){ number, 8 });
    (void)store_kv_write(o->kv, o->batch, false);
}

static mesh_err owner_open_as(owner *o, const char *cluster, uint64_t raft_id, char why[256])
{
    if (o->kv == NULL) {
        char ignored[64];
        assert_int_equal(store_kv_open("disk", NULL, &o->kv, ignored, sizeof ignored), MESH_OK);
    }
    o->batch = store_kv_batch_new();
    mesh_buf value = { 0 };
    o->applied = store_kv_get(o->kv, text("A"), &value) == MESH_OK ? mesh_get_u64be(value.data) : 0;
    mesh_buf_fini(&value);
    o->handed = o->own = 0;
    o->now.mono += 10;
    store_replica self = { raft_id, "here" };
    store_consensus_conf conf = { .raft_id = raft_id,
                                  .cluster = cluster,
                                  .address = "here",
                                  .seed = 1,
                                  .trail = o->trail,
                                  .group = &self,
                                  .n_group = 1 };
    return store_consensus_open(&conf, o->kv, o->applied, o->now, committed, o, &o->cons, why, 256);
}

static void owner_open(owner *o)
{
    char why[256] = "";
    mesh_err err = owner_open_as(o, "c1", 77, why);
    if (err != MESH_OK) {
        fail_msg("open: %s: %s", mesh_err_name(err), why);
    }
}

static void owner_close(owner *o)
{
    store_consensus_close(&o->cons);
    store_kv_batch_destroy(&o->batch);
    store_kv_close(&o->kv);
}

static uint64_t submit(owner *o, const char *payload)
{
    uint64_t index = 0;
    assert_int_equal(store_consensus_submit(o->cons, text(payload), o->now, &index), MESH_OK);
    return index;
}

static void step(owner *o)
{
    o->now.mono++;
    store_consensus_step(o->cons, o->now);
}

static void new_group_leads_at_once(void **state)
{
    (void)state;
    sim_disk *disk = sim_disk_new("disk", 1);
    owner o = { 0 };
    owner_open(&o);
    assert_true(store_consensus_leader(o.cons));
    assert_int_equal(store_consensus_voters(o.cons), 1);
    assert_int_equal(store_consensus_term(o.cons), 1);
    assert_int_equal(store_consensus_uncommitted(o.cons), 0);
    assert_int_equal(store_consensus_deadline(o.cons), MESH_NEVER);
    assert_int_equal(o.handed, 0);
    assert_int_equal(submit(&o, "one"), 2); /* entry 1 is the configuration */
    owner_close(&o);
    sim_disk_destroy(&disk);
}

static void committed_only_when_durable(void **state)
{
    (void)state;
    sim_disk *disk = sim_disk_new("disk", 1);
    owner o = { 0 };
    owner_open(&o);
    submit(&o, "one");
    submit(&o, "");
    step(&o);
    assert_int_equal(o.handed, 0);
    assert_int_equal(store_consensus_uncommitted(o.cons), 2);
    assert_true(sim_disk_flush(disk));
    assert_int_equal(o.handed, 0);
    step(&o);
    assert_int_equal(o.handed, 2);
    assert_int_equal(o.own, 2);
    assert_int_equal(o.applied, 3);
    assert_int_equal(store_consensus_uncommitted(o.cons), 0);
    assert_false(sim_disk_flush(disk)); /* the owner's rows wait for nobody */
    mesh_buf value = { 0 };
    char key[24];
    assert_int_equal(store_kv_get(o.kv, row_key_of(key, 2), &value), MESH_OK);
    assert_int_equal(value.size, 3);
    assert_memory_equal(value.data, "one", 3);
    mesh_buf_fini(&value);
    owner_close(&o);
    sim_disk_destroy(&disk);
}

static void restart_hands_over_what_was_not_applied(void **state)
{
    (void)state;
    sim_disk *disk = sim_disk_new("disk", 1);
    owner o = { 0 };
    owner_open(&o);
    for (int i = 0; i < 10; i++) {
        submit(&o, "x");
    }
    sim_disk_flush(disk);
    o.quiet = true; /* committed, but the owner dies before it writes */
    step(&o);
    assert_int_equal(o.handed, 10);
    owner_close(&o);
    o.quiet = false;
    owner_open(&o);
    assert_int_equal(o.handed, 10); /* again, and not its own now */
    assert_int_equal(o.own, 0);
    assert_int_equal(o.applied, 11);
    submit(&o, "y");
    sim_disk_flush(disk);
    step(&o);
    assert_int_equal(o.handed, 11);
    owner_close(&o);
    owner_open(&o);
    assert_int_equal(o.handed, 0);
    assert_int_equal(o.applied, 12);
    assert_int_equal(store_consensus_last_index(o.cons), 12);
    owner_close(&o);
    sim_disk_destroy(&disk);
}

/* Every row 2..applied has the payload that was submitted under its index and committed. */
static void check_rows(owner *o, const uint64_t *sent, uint64_t acked)
{
    assert_true(o->applied >= acked);
    mesh_buf value = { 0 };
    for (uint64_t i = 2; i <= o->applied; i++) {
        char key[24];
        assert_int_equal(store_kv_get(o->kv, row_key_of(key, i), &value), MESH_OK);
        assert_true(value.size >= sizeof(uint64_t));
        assert_memory_equal(value.data, &sent[i], sizeof(uint64_t));
    }
    mesh_buf_fini(&value);
}

static void random_crashes_lose_nothing(void **state)
{
    (void)state;
    uint64_t trims = 0;
    for (uint64_t seed = 1; seed <= 60; seed++) {
        sim_disk *disk = sim_disk_new("disk", seed);
        mesh_rand r = { seed };
        owner o = { .trail = 64 * 1024 };
        uint64_t *sent = calloc(100000, sizeof *sent), acked = 0;
        char *payload = calloc(1, 40000);
        owner_open(&o);
        for (int i = 0; i < 1500; i++) {
            uint64_t what = mesh_rand_below(&r, 20);
            if (what < 8 && store_consensus_uncommitted(o.cons) < STORE_PIPELINE) {
                uint64_t id = mesh_rand_next(&r), index;
                size_t size = mesh_rand_below(&r, 4) == 0 ? mesh_rand_below(&r, 39000) : mesh_rand_below(&r, 200);
                memcpy(payload, &id, sizeof id);
                mesh_slice s = { (uint8_t *)payload, sizeof id + size };
                assert_int_equal(store_consensus_submit(o.cons, s, o.now, &index), MESH_OK);
                sent[index] = id;
            } else if (what < 14) {
                sim_disk_flush(disk);
            } else if (what < 18) {
                step(&o);
                acked = o.applied;
            } else if (what == 18) {
                uint64_t before = store_kv_counted(o.kv).batches;
                store_consensus_trim(o.cons, o.applied, o.now);
                trims += store_kv_counted(o.kv).batches > before;
            } else if (mesh_rand_below(&r, 5) == 0) {
                sim_disk_crash(disk, &r);
                owner_close(&o);
                owner_open(&o);
                check_rows(&o, sent, acked);
                acked = o.applied;
            }
        }
        owner_close(&o);
        owner_open(&o);
        check_rows(&o, sent, acked);
        owner_close(&o);
        sim_disk_destroy(&disk);
        free(payload);
        free(sent);
    }
    assert_true(trims > 100);
}

static void trim_keeps_the_trail(void **state)
{
    (void)state;
    sim_disk *disk = sim_disk_new("disk", 9);
    owner o = { .trail = 2u << 20 };
    owner_open(&o);
    char payload[1001];
    memset(payload, 'p', 1000);
    payload[1000] = 0;
    size_t most = 0;
    for (int i = 0; i < 20000; i++) {
        submit(&o, payload);
        sim_disk_flush(disk);
        step(&o);
        store_consensus_trim(o.cons, o.applied, o.now);
        size_t log_rows = sim_disk_rows(disk) - o.handed;
        most = log_rows > most ? log_rows : most;
        assert_true(log_rows > (size_t)i || log_rows * 1020 > o.trail);
    }
    assert_true(most < 8000);
    owner_close(&o);
    owner_open(&o);
    assert_int_equal(o.applied, 20001);
    assert_int_equal(store_consensus_voters(o.cons), 1);
    assert_int_equal(submit(&o, "after"), 20002);
    sim_disk_flush(disk);
    step(&o);
    assert_int_equal(o.applied, 20002);
    owner_close(&o);
    sim_disk_destroy(&disk);
}

/* A log that was held for long goes in portions. */
static void trim_deletes_a_portion_at_a_time(void **state)
{
    (void)state;
    enum { ENTRIES = 40000, AT_ONCE = 16384, BYTES = 119 };
    sim_disk *disk = sim_disk_new("disk", 9);
    owner o = { .trail = 64u << 10, .quiet = true };
    char payload[101];
    memset(payload, 'p', 100);
    payload[100] = 0;
    owner_open(&o);
    assert_int_equal(store_consensus_goes_on_from(o.cons), 0);
    for (int i = 0; i < ENTRIES; i++) {
        submit(&o, payload);
        sim_disk_flush(disk);
        step(&o);
    }
    uint64_t last = store_consensus_last_index(o.cons);
    assert_in_range(store_consensus_log_bytes(o.cons, last - 30000), 30000 * BYTES, 30000 * BYTES + 2048);
    assert_int_equal(store_consensus_log_bytes(o.cons, last), 0);
    assert_int_equal(store_consensus_log_bytes(o.cons, last + 7), 0);
    uint64_t from = 0;
    for (int i = 1; i <= 3; i++) {
        store_consensus_trim(o.cons, o.applied, o.now);
        submit(&o, payload);
        sim_disk_flush(disk);
        step(&o);
        uint64_t now = store_consensus_goes_on_from(o.cons);
        assert_true(now > from && now - from <= AT_ONCE + 1);
        from = now;
    }
    assert_true(store_consensus_log_bytes(o.cons, from) < 2 * o.trail);
    owner_close(&o);
    sim_disk_destroy(&disk);
}

/* Break the rows by `key` (deleted, or given value) and expect the open to be refused. */
static void expect_refused(mesh_slice key, const char *value, mesh_err want, const char *says)
{
    sim_disk *disk = sim_disk_new("disk", 9);
    owner o = { 0 };
    owner_open(&o);
    for (int i = 0; i < 5; i++) {
        submit(&o, "entry");
    }
    sim_disk_flush(disk);
    step(&o);
    if (value == NULL) {
        store_kv_batch_delete(o.batch, key);
    } else {
        store_kv_batch_put(o.batch, key, text(value));
    }
    (void)store_kv_write(o.kv, o.batch, true);
    owner_close(&o);
    char why[256] = "";
    assert_int_equal(owner_open_as(&o, "c1", 77, why), want);
    assert_null(o.cons);
    if (strstr(why, says) == NULL) {
        fail_msg("'%s' does not say '%s'", why, says);
    }
    owner_close(&o);
    sim_disk_destroy(&disk);
}

static mesh_slice bytes(const char *s, size_t n)
{
    return (mesh_slice){ (const uint8_t *)s, n };
}

static void damaged_rows_are_refused(void **state)
{
    (void)state;
    expect_refused(bytes("\0L\0\0\0\0\0\0\0\4", 10), NULL, MESH_CORRUPT, "a hole after index 3");
    expect_refused(bytes("\0L\0\0\0\0\0\0\0\1", 10), NULL, MESH_CORRUPT, "the first entry is missing");
    expect_refused(bytes("\0L\0\0\0\0\0\0\0\6", 10), NULL, MESH_CORRUPT, "applied index 6 does not fit the log 1..5");
    expect_refused(bytes("\0L\0\0\0\0\0\0\0\5", 10), "short", MESH_CORRUPT, "a row that is no entry after index 4");
    expect_refused(bytes("\0L\0\0\0\0\0\0\0\3x", 11), "short", MESH_CORRUPT, "a key of the wrong size");
    expect_refused(bytes("\0H", 2), NULL, MESH_CORRUPT, "log rows without");
    expect_refused(bytes("\0H", 2), "\xff\xff", MESH_CORRUPT, "the hard state cannot be read");
    expect_refused(bytes("\0S", 2), "\xff\xff", MESH_CORRUPT, "the snapshot's row cannot be read");
}

static void other_cluster_and_id(void **state)
{
    (void)state;
    sim_disk *disk = sim_disk_new("disk", 9);
    owner o = { 0 };
    owner_open(&o);
    submit(&o, "entry");
    owner_close(&o);
    char why[256] = "";
    assert_int_equal(owner_open_as(&o, "c2", 77, why), MESH_CONFLICT);
    assert_non_null(strstr(why, "c1"));
    owner_close(&o);
    assert_int_equal(owner_open_as(&o, "c1", 78, why), MESH_OK); /* the id on disk counts */
    assert_true(store_consensus_leader(o.cons));
    assert_int_equal(o.handed, 1);
    owner_close(&o);
    sim_disk_destroy(&disk);
}

static void nothing_commits_after_a_disk_error(void **state)
{
    (void)state;
    sim_disk *disk = sim_disk_new("disk", 9);
    owner o = { 0 };
    owner_open(&o);
    submit(&o, "good");
    sim_disk_flush(disk);
    step(&o);
    submit(&o, "lost");
    sim_disk_fail(disk, MESH_IO);
    sim_disk_flush(disk);
    step(&o);
    assert_int_equal(o.handed, 1);
    uint64_t index;
    assert_int_equal(store_consensus_submit(o.cons, text("later"), o.now, &index), MESH_STALE);
    assert_int_equal(store_consensus_deadline(o.cons), MESH_NEVER);
    store_consensus_trim(o.cons, o.applied, o.now);
    sim_disk_fail(disk, MESH_OK);
    step(&o);
    assert_int_equal(o.handed, 1);
    owner_close(&o);
    owner_open(&o);
    assert_true(o.applied >= 2);
    owner_close(&o);

    o = (owner){ 0 }; /* a disk that fails at the first write of all */
    sim_disk_destroy(&disk);
    disk = sim_disk_new("disk", 10);
    char why[256] = "";
    assert_int_equal(store_kv_open("disk", NULL, &o.kv, why, sizeof why), MESH_OK);
    sim_disk_fail(disk, MESH_NO_SPACE);
    assert_int_equal(owner_open_as(&o, "c1", 77, why), MESH_NO_SPACE);
    owner_close(&o);
    sim_disk_destroy(&disk);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(new_group_leads_at_once),
        cmocka_unit_test(committed_only_when_durable),
        cmocka_unit_test(restart_hands_over_what_was_not_applied),
        cmocka_unit_test(random_crashes_lose_nothing),
        cmocka_unit_test(trim_keeps_the_trail),
        cmocka_unit_test(trim_deletes_a_portion_at_a_time),
        cmocka_unit_test(damaged_rows_are_refused),
        cmocka_unit_test(other_cluster_and_id),
        cmocka_unit_test(nothing_commits_after_a_disk_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
