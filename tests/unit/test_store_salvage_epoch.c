/* A salvaged copy in a cluster that went on: which rings and fences it begins with. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <unistd.h>

#include "store.pb-c.h"
#include "store/core_state.h"
#include "store/key.h"
#include "store/salvage.h"
#include "tests/unit/salvage_group.h"
#include "tests/unit/shell.h"

static char root[64];

static store_kv *open_kv(const char *path)
{
    char why[512] = "";
    store_kv *kv = NULL;
    store_kv_options options = { .write_buffer = 4u << 20, .block_cache = 1u << 20, .max_open_files = 100 };
    if (store_kv_open(path, &options, &kv, why, sizeof why) != MESH_OK) {
        fail_msg("%s: %s", path, why);
    }
    return kv;
}

static uint64_t fence_of(store_kv *kv, mesh_slot slot)
{
    mesh_buf value = { 0 };
    store_key key;
    store_key_fence(&key, slot);
    uint64_t fence = store_kv_get(kv, store_key_slice(&key), &value) == MESH_OK ? mesh_get_u64be(value.data) : 0;
    mesh_buf_fini(&value);
    return fence;
}

static void ring_of(store_kv *kv, uint64_t *epoch, size_t *routers, size_t *ranges)
{
    mesh_buf value = { 0 };
    mesh_arena *arena = mesh_arena_new();
    ProtobufCMessage *row;
    store_key key;
    store_key_ring(&key);
    assert_int_equal(store_kv_get(kv, store_key_slice(&key), &value), MESH_OK);
    assert_int_equal(mesh_wire_unpack(&mesh__ring__descriptor, mesh_buf_slice(&value), arena, &row), MESH_OK);
    *epoch = ((const Mesh__Ring *)row)->epoch;
    *routers = ((const Mesh__Ring *)row)->n_routers;
    *ranges = ((const Mesh__Ring *)row)->n_map;
    mesh_arena_destroy(&arena);
    mesh_buf_fini(&value);
}

/* A ring of epoch 7 with a router and a map, and a fence of slot 9 that is newer than it. */
static void put_rows(store_kv *kv)
{
    Mesh__RingNode router = MESH__RING_NODE__INIT;
    Mesh__RingNode *routers[1] = { &router };
    Mesh__SlotRange range = MESH__SLOT_RANGE__INIT;
    Mesh__SlotRange *map[1] = { &range };
    Mesh__Ring ring = MESH__RING__INIT;
    router.name = (char[]){ "a_router_of_another_config" };
    router.boot = 3;
    range.first = 100;
    range.last = 200;
    range.shard = 1;
    ring.epoch = 7;
    ring.n_routers = ring.n_map = 1;
    ring.routers = routers;
    ring.map = map;
    mesh_buf value = { 0 };
    uint8_t fence[8];
    store_key key;
    store_kv_batch *batch = store_kv_batch_new();
    mesh_wire_pack(&ring, &value);
    store_key_ring(&key);
    store_kv_batch_put(batch, store_key_slice(&key), mesh_buf_slice(&value));
    mesh_put_u64be(fence, 8);
    store_key_fence(&key, 9);
    store_kv_batch_put(batch, store_key_slice(&key), (mesh_slice){ fence, sizeof fence });
    assert_int_equal(store_kv_wait(kv, store_kv_write(kv, batch, true)), MESH_OK);
    store_kv_batch_destroy(&batch);
    mesh_buf_fini(&value);
}

static void epochs_of_each_shard(void **state)
{
    (void)state;
    char path[128];
    snprintf(path, sizeof path, "%s/rows", root);
    for (unsigned i = 0; i < 4; i++) {
        uint32_t shard = i % 2;
        bool whole = i >= 2;
        uint64_t raised = 1, epoch;
        size_t routers, ranges;
        shell("rm -rf %s", path);
        store_kv *kv = open_kv(path);
        assert_int_equal(store_salvage_raise_epoch(kv, shard, whole, &raised), MESH_OK);
        assert_int_equal(raised, 0); /* no ring: nothing to raise */
        assert_int_equal(fence_of(kv, 9), 0);
        put_rows(kv);
        assert_int_equal(store_salvage_raise_epoch(kv, shard, whole, &raised), MESH_OK);
        assert_int_equal(raised, shard == 0 ? 8 + STORE_SALVAGE_EPOCHS : 8);
        ring_of(kv, &epoch, &routers, &ranges);
        assert_int_equal(epoch, shard == 0 ? raised : 7); /* another shard has to take the ring that is in force */
        assert_int_equal(routers, shard == 0 && !whole ? 0 : 1);
        assert_int_equal(ranges, 1);
        assert_int_equal(fence_of(kv, 0), raised);
        assert_int_equal(fence_of(kv, 9), raised);
        assert_int_equal(fence_of(kv, MESH_SLOTS - 1), raised);
        store_kv_close(&kv);
    }
}

static void lease(trio *t, uint64_t boot)
{
    size_t leader = trio_leader(t);
    Mesh__Lease renewal = MESH__LEASE__INIT;
    mesh_buf packed = { 0 };
    renewal.router = (char[]){ "router1" };
    renewal.boot = boot;
    MESH_MSG(msg, LEASE, lease, &renewal);
    mesh_wire_pack(&msg, &packed);
    store_core_message(t->core[leader], TRIO_ROUTER, &msg, mesh_buf_slice(&packed), t->now, t->out[leader]);
    mesh_buf_fini(&packed);
}

static uint64_t epoch_after_lease(trio *t, uint64_t boot)
{
    size_t leader = trio_leader(t);
    uint64_t before = trio_stat(t, leader, STORE_M_RING_EPOCH);
    for (unsigned turn = 0; turn < TRIO_TURNS && trio_stat(t, leader, STORE_M_RING_EPOCH) == before; turn++) {
        lease(t, boot);
        trio_turn(t);
    }
    return trio_stat(t, leader, STORE_M_RING_EPOCH);
}

/* The copy was taken early; what its group decided after that, the routers still have. */
static void a_group_that_is_salvaged_begins_above_all_rings(void **state)
{
    (void)state;
    char from[160], to[128];
    trio *t = trio_new(root);
    for (size_t i = 0; i < TRIO; i++) {
        trio_start(t, i);
    }
    trio_settle(t);
    uint64_t copied = epoch_after_lease(t, 11);
    trio_settle(t);
    trio_stop(t, 2);
    uint64_t lost = epoch_after_lease(t, 12); /* the same router, born again */
    assert_true(copied > 0 && lost == copied + 1);
    trio_stop(t, 0);
    trio_stop(t, 1);
    snprintf(to, sizeof to, "%s/to", root);
    store_salvage_replica replica = { .conf = t->conf, .from = trio_path(t, 2, from) };
    FILE *report = tmpfile();
    assert_int_equal(store_salvage_run(from, to, store_salvage_replay_replica, &replica, NULL, report), MESH_OK);
    fclose(report);
    shell("rm -rf %s/store* && mv %s %s", root, to, from);
    trio_start(t, 2);
    for (unsigned turn = 0; turn < TRIO_TURNS && trio_leader(t) != 2; turn++) {
        trio_turn(t);
    }
    assert_int_equal(epoch_after_lease(t, 12), copied + STORE_SALVAGE_EPOCHS + 1); /* not `lost`: that one is taken */
    trio_start(t, 0);
    trio_start(t, 1);
    trio_settle(t);
    trio_say_acked(t);
    trio_settle(t);
    for (size_t i = 0; i < TRIO; i++) {
        assert_int_equal(trio_stat(t, i, STORE_M_RING_EPOCH), copied + STORE_SALVAGE_EPOCHS + 1);
    }
    trio_destroy(t);
}

/* A store that was the only voter has its whole log; who joins its copy must not be given that, but the rows. */
static void who_joins_the_copy_of_a_lone_store_has_its_rows(void **state)
{
    (void)state;
    char from[160], to[128];
    trio *t = trio_new(root);
    for (size_t i = 0; i < TRIO; i++) {
        trio_start(t, i);
    }
    for (unsigned turn = 0; turn < TRIO_TURNS && trio_leader(t) == TRIO; turn++) {
        trio_turn(t);
    }
    size_t lone = trio_leader(t);
    assert_int_equal(trio_stat(t, lone, STORE_M_VOTERS), 1);
    for (size_t i = 0; i < TRIO; i++) {
        if (i != lone) {
            trio_stop(t, i);
        }
    }
    uint64_t copied = epoch_after_lease(t, 11);
    assert_int_equal(trio_stat(t, lone, STORE_M_VOTERS), 1);
    trio_say_acked(t);
    trio_stop(t, lone);
    snprintf(to, sizeof to, "%s/to", root);
    store_salvage_replica replica = { .conf = t->conf, .from = trio_path(t, lone, from) };
    FILE *report = tmpfile();
    assert_int_equal(store_salvage_run(from, to, store_salvage_replay_replica, &replica, NULL, report), MESH_OK);
    fclose(report);
    shell("rm -rf %s/store* && mv %s %s", root, to, from);
    for (size_t i = 0; i < TRIO; i++) {
        trio_start(t, i);
    }
    trio_settle(t);
    for (size_t i = 0; i < TRIO; i++) {
        assert_true(trio_stat(t, i, STORE_M_RING_EPOCH) == copied + STORE_SALVAGE_EPOCHS);
        assert_true(t->core[i]->fsm->era == t->core[lone]->fsm->era);
    }
    trio_destroy(t);
}

static int setup(void **state)
{
    (void)state;
    snprintf(root, sizeof root, "/tmp/parley-epoch.XXXXXX");
    return mkdtemp(root) != NULL ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    shell("rm -rf %s", root);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(epochs_of_each_shard, setup, teardown),
        cmocka_unit_test_setup_teardown(who_joins_the_copy_of_a_lone_store_has_its_rows, setup, teardown),
        cmocka_unit_test_setup_teardown(a_group_that_is_salvaged_begins_above_all_rings, setup, teardown),
    };
    return cmocka_run_group_tests_name("store salvage epoch", tests, NULL, NULL);
}
