/* The simulator's key-value store: the same header, the same model, and what its fake disk keeps. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/sim/kv_mem.c" /* instead of the archive's */
#include "tests/unit/kv_model.h"

static store_kv *open_ok(const char *path)
{
    store_kv *kv = NULL;
    char why[128] = "";
    assert_int_equal(store_kv_open(path, NULL, &kv, why, sizeof why), MESH_OK);
    return kv;
}

static void same_as_a_model(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 6; seed++) {
        sim_disk *disk = sim_disk_new("disk", seed);
        mesh_rand r = { seed };
        kv_model *m = calloc(1, sizeof *m);
        store_kv_batch *batch = store_kv_batch_new();
        store_kv *kv = open_ok("disk");
        for (int i = 0; i < 500; i++) {
            model_write(m, kv, batch, &r, mesh_rand_below(&r, 4) == 0);
            model_walk(m, kv, &r);
            if (i % 100 == 99) {
                model_check(m, kv);
                store_kv_close(&kv);
                kv = open_ok("disk");
                model_check(m, kv);
            }
        }
        store_kv_close(&kv);
        store_kv_batch_destroy(&batch);
        sim_disk_destroy(&disk);
        free(m);
    }
}

/* After a crash the rows are those of some moment between the last durable batch and the last queued one. */
static void crash_keeps_a_prefix(void **state)
{
    (void)state;
    uint64_t kept_all = 0, kept_none = 0;
    for (uint64_t seed = 1; seed <= 300; seed++) {
        sim_disk *disk = sim_disk_new("disk", seed);
        mesh_rand r = { seed };
        store_kv_batch *batch = store_kv_batch_new();
        kv_model *m = calloc(30, sizeof *m); /* m[i]: after i batches */
        store_kv *kv = open_ok("disk");
        uint64_t n = 1 + mesh_rand_below(&r, 28);
        for (uint64_t i = 1; i <= n; i++) {
            m[i] = m[i - 1];
            model_write(&m[i], kv, batch, &r, mesh_rand_below(&r, 3) == 0);
            if (mesh_rand_below(&r, 6) == 0) {
                bool pending = sim_disk_has_pending(disk);
                assert_int_equal(sim_disk_flush(disk), pending);
                assert_false(sim_disk_has_pending(disk));
            }
        }
        uint64_t durable = store_kv_durable(kv);
        uint64_t hash = 0;
        sim_disk_crash(disk, &r);
        hash = sim_disk_hash(disk);
        assert_false(sim_disk_is_open(disk));
        (void)store_kv_write(kv, batch, true); /* a dead handle's writes go nowhere */
        store_kv_close(&kv);
        assert_int_equal(sim_disk_hash(disk), hash);
        kv = open_ok("disk");
        mesh_buf value = { 0 };
        uint64_t match = 0;
        for (uint64_t i = durable; i <= n && match == 0; i++) {
            bool same = true;
            for (size_t k = 0; k < MODEL_KEYS && same; k++) {
                char key[16];
                bool there = store_kv_get(kv, text(model_key(key, k)), &value) == MESH_OK;
                same = there == (m[i].value[k][0] != 0) &&
                       (!there || store_omap_compare(mesh_buf_slice(&value), text(m[i].value[k])) == 0);
            }
            match = same ? i + 1 : 0;
        }
        assert_true(match > 0);
        kept_all += match == n + 1;
        kept_none += match == durable + 1 && durable < n;
        mesh_buf_fini(&value);
        store_kv_close(&kv);
        store_kv_batch_destroy(&batch);
        sim_disk_destroy(&disk);
        free(m);
    }
    assert_true(kept_all > 10 && kept_none > 10);
}

static void failed_disk_is_final(void **state)
{
    (void)state;
    sim_disk *disk = sim_disk_new("disk", 3);
    store_kv *kv = open_ok("disk");
    store_kv_batch *batch = store_kv_batch_new();
    store_kv_batch_put(batch, text("a"), text("1"));
    assert_int_equal(store_kv_wait(kv, store_kv_write(kv, batch, true)), MESH_OK);
    sim_disk_fail(disk, MESH_NO_SPACE);
    store_kv_batch_put(batch, text("a"), text("2"));
    uint64_t ticket = store_kv_write(kv, batch, true);
    assert_true(sim_disk_flush(disk));
    assert_int_equal(store_kv_error(kv), MESH_NO_SPACE);
    assert_int_equal(store_kv_wait(kv, ticket), MESH_NO_SPACE);
    sim_disk_fail(disk, MESH_OK); /* space is back: not for this handle */
    assert_false(sim_disk_flush(disk));
    assert_int_equal(store_kv_durable(kv), ticket - 1);
    store_kv_close(&kv);
    kv = open_ok("disk");
    assert_int_equal(store_kv_error(kv), MESH_OK);
    char why[64];
    store_kv *second = NULL;
    assert_int_equal(store_kv_open("disk", NULL, &second, why, sizeof why), MESH_IO);
    assert_int_equal(store_kv_open("nothing", NULL, &second, why, sizeof why), MESH_IO);
    store_kv_close(&kv);
    sim_disk_refuse(disk, MESH_CORRUPT);
    assert_int_equal(store_kv_open("disk", NULL, &second, why, sizeof why), MESH_CORRUPT);
    store_kv_batch_destroy(&batch);
    sim_disk_destroy(&disk);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(same_as_a_model),
        cmocka_unit_test(crash_keeps_a_prefix),
        cmocka_unit_test(failed_disk_is_final),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
