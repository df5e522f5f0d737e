/* A slot leaves shard 1 for shard 2; then shard 0, salvaged from an older copy, says with a later epoch that it is
 * shard 0's. */
#include "store/kv_rows.h"
#include "store/mover.h"
#include "store/salvage.h"
#include "store/slot.h"
#include "tests/unit/store_rig.h"

static void store_node(rig *r, const char *name, uint32_t shard)
{
    mesh_node_conf other = { .role = MESH_STORE, .shard = shard };
    snprintf(other.name, sizeof other.name, "%s", name);
    snprintf(other.endpoint, sizeof other.endpoint, "inproc://%s", name);
    assert_int_equal(mesh_conf_add_node(r->conf, &other), MESH_OK);
}

static void say_ring(rig *r, uint64_t epoch, uint32_t shard)
{
    Mesh__RingNode router = MESH__RING_NODE__INIT;
    Mesh__RingNode *routers[1] = { &router };
    router.name = (char[]){ "router1" };
    router.boot = 11;
    Mesh__SlotRange range = MESH__SLOT_RANGE__INIT;
    Mesh__SlotRange *map[1] = { &range };
    Mesh__Ring ring = MESH__RING__INIT;
    range.first = 0;
    range.last = MESH_SLOTS - 1;
    range.shard = shard;
    ring.epoch = epoch;
    ring.n_routers = 1;
    ring.routers = routers;
    ring.n_map = shard > 0 ? 1 : 0;
    ring.map = map;
    MESH_MSG(msg, RING, ring, &ring);
    r->epoch = epoch;
    rig_give(r, RIG_R1, &msg);
    rig_run(r);
}

static void rows_that_nobody_has_taken_stay(void **state)
{
    (void)state;
    rig *r = mesh_alloc(sizeof *r);
    r->conf = mesh_conf_new();
    store_node(r, "store1", 1);
    rig_node(r, "router1", MESH_ROUTER);
    rig_node(r, "router2", MESH_ROUTER);
    rig_node(r, "edge1", MESH_EDGE);
    store_node(r, "store0", 0);
    store_node(r, "store2", 2);
    r->disk = sim_disk_new("/rig", 3);
    r->arena = mesh_arena_new();
    r->now = (mesh_time){ 1000000, RIG_WALL };
    r->out = mesh_out_new(mesh_conf_nodes(r->conf));
    r->epoch = 1;
    r->corr = 1000;
    rig_open(r);
    rig_run(r);
    store_core_up(r->core, RIG_R1, 11, r->now, r->out);
    rig_run(r);
    say_ring(r, 7, 1);
    Mesh__Msg *m = rig_hello(r, "ann", "phone", 0, UINT64_MAX);
    ASSERT_KIND(m, ATTACHED);
    assert_int_equal(rig_rows(r, "v"), 1);
    Mesh__SlotMove move = MESH__SLOT_MOVE__INIT;
    move.slot = mesh_id_slot(mesh_conf_hash_key(r->conf), rig_q(r, "ann"));
    move.shard = 2;
    MESH_MSG(msg, SLOT_MOVE, slot_move, &move);
    ASSERT_KIND(rig_ask(r, &msg), DONE);
    rig_run(r);
    assert_int_equal(rig_rows(r, "v"), 1); /* nobody has taken anything yet */
    say_ring(r, 7 + STORE_SALVAGE_EPOCHS, 0);
    rig_sleep(r, 1000);
    assert_int_equal(rig_rows(r, "v"), 1);
    rig_destroy(r);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(rows_that_nobody_has_taken_stay) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
