/* A table of the database is gone while it is open: LevelDB says of its keys that there are none. That is this disk,
 * and not a row that no replica has. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "store/fsm.h"

static char path[64];

static store_kv *open_kv(void)
{
    char why[512] = "";
    store_kv *kv = NULL;
    store_kv_options options = { .write_buffer = 1u << 20, .block_cache = 1u << 20, .max_open_files = 100 };
    if (store_kv_open(path, &options, &kv, why, sizeof why) != MESH_OK) {
        fail_msg("%s", why);
    }
    return kv;
}

static void an_entry_in_a_lost_table_is_not_absent(void **state)
{
    (void)state;
    char command[128];
    store_key key;
    mesh_buf value = { 0 };
    Mesh__Entry row = MESH__ENTRY__INIT, *entry;
    snprintf(path, sizeof path, "/tmp/parley-lost.XXXXXX");
    assert_non_null(mkdtemp(path));
    store_kv *kv = open_kv();
    store_kv_batch *batch = store_kv_batch_new();
    mesh_wire_pack(&row, &value);
    store_key_entry(&key, 5, "default/room", 1);
    store_kv_batch_put(batch, store_key_slice(&key), mesh_buf_slice(&value));
    assert_int_equal(store_kv_wait(kv, store_kv_write(kv, batch, true)), MESH_OK);
    store_kv_batch_destroy(&batch);
    store_kv_close(&kv);
    kv = open_kv(); /* what was in the log becomes a table ... */
    store_kv_close(&kv);
    kv = open_kv(); /* ... which nobody has opened yet */

    mesh_conf *conf = mesh_conf_new();
    mesh_arena *arena = mesh_arena_new();
    store_fsm fsm = { .kv = kv, .rows = store_rows_new(kv, mesh_conf_hash_key(conf), 10) };
    fsm.hash_key = mesh_conf_hash_key(conf);
    snprintf(command, sizeof command, "rm %s/*.ldb", path);
    assert_int_equal(system(command), 0);
    assert_int_equal(store_fsm_entry(&fsm, arena, 5, "default/room", 1, &entry), MESH_CORRUPT);
    assert_int_equal(store_fsm_long_entry(&fsm, arena, "default/room", 1, &entry), MESH_CORRUPT);
    mesh_buf_fini(&fsm.scratch);
    store_rows_destroy(&fsm.rows);
    mesh_arena_destroy(&arena);
    mesh_conf_destroy(&conf);
    mesh_buf_fini(&value);
    store_kv_close(&kv);
    snprintf(command, sizeof command, "rm -rf %s", path);
    assert_int_equal(system(command), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(an_entry_in_a_lost_table_is_not_absent) };
    return cmocka_run_group_tests_name("store lost file", tests, NULL, NULL);
}
