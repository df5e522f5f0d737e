/* Two replicas whose configs differ, as while a new one is rolled out, apply the same log: they have the same rows. */
#include "store/fsm.h"
#include "tests/unit/store_rig.h"

typedef struct twin {
    mesh_conf *conf;
    sim_disk *disk;
    store_kv *kv;
    mesh_stats *stats;
    store_fsm *fsm;
} twin;

typedef struct twins {
    uint32_t shard;
    twin t[2];
    uint64_t index;
    mesh_buf entry; /* that is being made */
} twins;

static void add(mesh_conf *conf, const char *name, mesh_role role, uint32_t shard)
{
    mesh_node_conf node = { .role = role, .shard = shard };
    snprintf(node.name, sizeof node.name, "%s", name);
    snprintf(node.endpoint, sizeof node.endpoint, "inproc://%s", name);
    assert_int_equal(mesh_conf_add_node(conf, &node), MESH_OK);
}

static void twin_open(twin *t, uint32_t shard)
{
    char why[256] = "", path[32];
    snprintf(path, sizeof path, "/twin%p", (void *)t);
    store_kv_options options = { .write_buffer = 1 << 20, .block_cache = 1 << 20, .max_open_files = 100 };
    assert_int_equal(store_kv_open(path, &options, &t->kv, why, sizeof why), MESH_OK);
    assert_int_equal(store_fsm_new(t->conf, shard, t->kv, t->stats, &t->fsm, why, sizeof why), MESH_OK);
}

/* The second one does not know router2 yet, and has the others in another order. */
static void twins_open(twins *ts, uint32_t shard)
{
    *ts = (twins){ .shard = shard };
    for (size_t i = 0; i < 2; i++) {
        twin *t = &ts->t[i];
        char path[32];
        snprintf(path, sizeof path, "/twin%p", (void *)t);
        t->conf = mesh_conf_new();
        add(t->conf, i == 0 ? "router1" : "router3", MESH_ROUTER, 0);
        add(t->conf, "store1", MESH_STORE, 0);
        add(t->conf, "store2", MESH_STORE, 1);
        add(t->conf, i == 0 ? "router3" : "router1", MESH_ROUTER, 0);
        if (i == 0) {
            add(t->conf, "router2", MESH_ROUTER, 0);
        }
        t->disk = sim_disk_new(path, 3);
        t->stats = store_metrics_new();
        twin_open(t, shard);
    }
}

static void twins_close(twins *ts)
{
    for (size_t i = 0; i < 2; i++) {
        twin *t = &ts->t[i];
        store_fsm_destroy(&t->fsm);
        store_kv_close(&t->kv);
        sim_disk_destroy(&t->disk);
        mesh_stats_destroy(&t->stats);
        mesh_conf_destroy(&t->conf);
    }
    mesh_buf_fini(&ts->entry);
}

static void no_answer(void *arg, size_t at, const Mesh__Msg *msg, Mesh__Msg *answer)
{
    (void)arg;
    (void)at;
    (void)msg;
    (void)answer;
}

/* What was put into the entry is applied by both. */
static void apply(twins *ts)
{
    static const uint8_t stamp[STORE_STAMP_SIZE] = { 0, 0, 0, 0, 1 };
    mesh_buf payload = { 0 };
    mesh_buf_put(&payload, stamp, sizeof stamp);
    mesh_buf_put(&payload, ts->entry.data, ts->entry.size);
    mesh_buf_clear(&ts->entry);
    ts->index++;
    for (size_t i = 0; i < 2; i++) {
        assert_int_equal(store_fsm_apply(ts->t[i].fsm, ts->index, 1, mesh_buf_slice(&payload), no_answer, NULL),
                         MESH_OK);
        sim_disk_flush_all(ts->t[i].disk);
    }
    mesh_buf_fini(&payload);
}

static void expect_same_rows(twins *ts)
{
    const mesh_slice all = { (const uint8_t *)"", 0 };
    store_kv_iter *a = store_kv_iter_new(ts->t[0].kv, all), *b = store_kv_iter_new(ts->t[1].kv, all);
    store_kv_iter_first(a);
    store_kv_iter_first(b);
    unsigned rows = 0;
    while (store_kv_iter_valid(a) && store_kv_iter_valid(b)) {
        mesh_slice key[2] = { store_kv_iter_key(a), store_kv_iter_key(b) };
        mesh_slice value[2] = { store_kv_iter_value(a), store_kv_iter_value(b) };
        assert_int_equal(key[0].size, key[1].size);
        assert_memory_equal(key[0].data, key[1].data, key[0].size);
        assert_int_equal(value[0].size, value[1].size);
        assert_memory_equal(value[0].data, value[1].data, value[0].size);
        rows++;
        store_kv_iter_next(a);
        store_kv_iter_next(b);
    }
    assert_true(rows > 0);
    assert_false(store_kv_iter_valid(a) || store_kv_iter_valid(b));
    store_kv_iter_destroy(&a);
    store_kv_iter_destroy(&b);
}

/* What the first one's rows say. */
static void expect_ring(twins *ts, uint64_t epoch, size_t routers, mesh_slot slot, uint32_t shard)
{
    mesh_buf value = { 0 };
    mesh_arena *arena = mesh_arena_new();
    ProtobufCMessage *stored;
    store_key key;
    store_key_ring(&key);
    assert_int_equal(store_kv_get(ts->t[0].kv, store_key_slice(&key), &value), MESH_OK);
    assert_int_equal(mesh_wire_unpack(&mesh__ring__descriptor, mesh_buf_slice(&value), arena, &stored), MESH_OK);
    assert_int_equal(((const Mesh__Ring *)stored)->epoch, epoch);
    assert_int_equal(((const Mesh__Ring *)stored)->n_routers, routers);
    mesh_arena_destroy(&arena);
    mesh_buf_fini(&value);
    for (size_t i = 0; i < 2; i++) {
        assert_int_equal(mesh_ring_shard(ts->t[i].fsm->ring, slot), shard);
        assert_int_equal(mesh_ring_epoch(ts->t[i].fsm->ring), epoch);
    }
}

static char *const names[] = { (char[]){ "router1" }, (char[]){ "router2" }, (char[]){ "router3" } };

static void put_ring_set(twins *ts, size_t n, bool map)
{
    Mesh__RingNode nodes[3];
    Mesh__RingNode *list[3];
    mesh_arena *arena = mesh_arena_new();
    Mesh__RingSet set = MESH__RING_SET__INIT;
    for (size_t i = 0; i < n; i++) {
        mesh__ring_node__init(&nodes[i]);
        nodes[i].name = names[i];
        nodes[i].boot = 7 + i;
        list[i] = &nodes[i];
    }
    set.n_routers = n;
    set.routers = list;
    if (map) {
        mesh_ring_even_map(2, arena, &set);
    }
    MESH_MSG(msg, RING_SET, ring_set, &set);
    mesh_frame_put(&ts->entry, &msg);
    mesh_arena_destroy(&arena);
}

static void put_map_set(twins *ts, uint32_t slot, uint32_t shard, uint64_t move)
{
    Mesh__MapSet set = MESH__MAP_SET__INIT;
    set.slot = slot;
    set.shard = shard;
    set.move = move;
    MESH_MSG(msg, MAP_SET, map_set, &set);
    mesh_frame_put(&ts->entry, &msg);
}

static void the_ring_and_its_map(void **state)
{
    (void)state;
    twins ts;
    twins_open(&ts, 0);
    put_ring_set(&ts, 3, true);
    apply(&ts);
    expect_same_rows(&ts);
    put_map_set(&ts, 5, 1, 1);
    apply(&ts);
    expect_same_rows(&ts);
    expect_ring(&ts, 2, 3, 5, 1);
    put_ring_set(&ts, 3, false); /* and in one entry: each sees what the one before it wrote */
    put_map_set(&ts, 6, 1, 1);
    put_map_set(&ts, 7, 1, 1);
    put_ring_set(&ts, 2, false);
    put_map_set(&ts, 5, 0, 2);
    apply(&ts);
    expect_same_rows(&ts);
    expect_ring(&ts, 7, 2, 7, 1);
    expect_ring(&ts, 7, 2, 5, 0);
    for (size_t i = 0; i < 2; i++) { /* after a restart, too */
        store_fsm_destroy(&ts.t[i].fsm);
        store_kv_close(&ts.t[i].kv);
        twin_open(&ts.t[i], 0);
    }
    put_map_set(&ts, 9, 1, 1);
    apply(&ts);
    expect_same_rows(&ts);
    expect_ring(&ts, 8, 2, 6, 1);
    twins_close(&ts);
}

static void a_ring_that_was_heard(void **state)
{
    (void)state;
    twins ts;
    twins_open(&ts, 1);
    Mesh__RingNode node = MESH__RING_NODE__INIT;
    Mesh__RingNode *nodes[1] = { &node };
    Mesh__SlotRange range = MESH__SLOT_RANGE__INIT;
    Mesh__SlotRange *map[1] = { &range };
    Mesh__Ring ring = MESH__RING__INIT;
    node.name = names[1];
    node.boot = 4;
    range.first = 10;
    range.last = 20;
    range.shard = 1;
    ring.n_routers = ring.n_map = 1;
    ring.routers = nodes;
    ring.map = map;
    for (uint64_t epoch = 9; epoch >= 8; epoch--) { /* then an older one */
        ring.epoch = epoch;
        range.last = epoch == 9 ? 20 : 12;
        MESH_MSG(msg, RING, ring, &ring);
        mesh_frame_put(&ts.entry, &msg);
        apply(&ts);
        expect_same_rows(&ts);
        expect_ring(&ts, 9, 1, 20, 1);
    }
    twins_close(&ts);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_ring_and_its_map),
        cmocka_unit_test(a_ring_that_was_heard),
    };
    return cmocka_run_group_tests_name("store twins", tests, NULL, NULL);
}
