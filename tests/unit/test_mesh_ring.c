/* mesh/ring.c: the same ring for everybody, few slots move, nothing older is taken. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "mesh/ring.h"

#define ROUTERS 5

static mesh_conf *conf_new(bool reversed)
{
    mesh_conf *conf = mesh_conf_new();
    for (int i = 0; i < ROUTERS; i++) {
        mesh_node_conf node = { .role = MESH_ROUTER };
        int n = reversed ? ROUTERS - i : i + 1;
        (void)snprintf(node.name, sizeof node.name, "router%d", n);
        (void)snprintf(node.endpoint, sizeof node.endpoint, "inproc://router%d", n);
        assert_int_equal(mesh_conf_add_node(conf, &node), MESH_OK);
    }
    mesh_node_conf other = { .name = "store2", .role = MESH_STORE, .endpoint = "inproc://store2", .shard = 1 };
    mesh_node_conf store = { .name = "store1", .role = MESH_STORE, .endpoint = "inproc://store1" };
    assert_int_equal(mesh_conf_add_node(conf, &other), MESH_OK);
    assert_int_equal(mesh_conf_add_node(conf, &store), MESH_OK);
    return conf;
}

/* routers: numbers, 0 ends */
static mesh_err set(mesh_ring *ring, uint64_t epoch, const int *routers)
{
    char names[8][16];
    Mesh__RingNode nodes[8];
    Mesh__RingNode *pointers[8];
    Mesh__Ring message = MESH__RING__INIT;
    message.epoch = epoch;
    message.routers = pointers;
    for (; routers[message.n_routers] != 0; message.n_routers++) {
        size_t i = message.n_routers;
        (void)snprintf(names[i], sizeof names[i], "router%d", routers[i]);
        nodes[i] = (Mesh__RingNode)MESH__RING_NODE__INIT;
        nodes[i].name = names[i];
        nodes[i].boot = 100u + (uint64_t)routers[i];
        pointers[i] = &nodes[i];
    }
    return mesh_ring_set(ring, &message);
}

static const char *owner_name(const mesh_conf *conf, const mesh_ring *ring, mesh_slot slot)
{
    mesh_peer peer = mesh_ring_router(ring, slot);
    return peer == MESH_NO_PEER ? "" : mesh_conf_node(conf, peer)->name;
}

static void an_empty_ring_owns_nothing(void **state)
{
    (void)state;
    mesh_conf *conf = conf_new(false);
    mesh_ring *ring = mesh_ring_new(conf);
    assert_true(mesh_ring_epoch(ring) == 0);
    assert_int_equal(mesh_ring_router(ring, 0), MESH_NO_PEER);
    assert_int_equal(mesh_ring_router_of(ring, "default/ann"), MESH_NO_PEER);
    assert_int_equal(mesh_ring_store_of(ring, "default/ann"), mesh_conf_find(conf, "store1"));
    assert_false(mesh_ring_has(ring, 0));
    assert_int_equal(set(ring, 1, (int[]){ 1, 2, 0 }), MESH_OK);
    assert_int_not_equal(mesh_ring_router(ring, 0), MESH_NO_PEER);
    assert_int_equal(set(ring, 2, (int[]){ 0 }), MESH_OK); /* everybody died */
    assert_int_equal(mesh_ring_router(ring, 0), MESH_NO_PEER);
    mesh_ring_destroy(&ring);
    assert_null(ring);
    mesh_conf_destroy(&conf);
}

static void only_newer_rings_are_taken(void **state)
{
    (void)state;
    mesh_conf *conf = conf_new(false);
    mesh_ring *ring = mesh_ring_new(conf);
    assert_int_equal(set(ring, 5, (int[]){ 1, 2, 77, 2, 0 }), MESH_OK); /* 77 is not known, 2 is there twice */
    assert_true(mesh_ring_epoch(ring) == 5);
    assert_int_equal(set(ring, 5, (int[]){ 3, 0 }), MESH_STALE);
    assert_int_equal(set(ring, 4, (int[]){ 3, 0 }), MESH_STALE);
    mesh_peer one = mesh_conf_find(conf, "router1");
    assert_true(mesh_ring_has(ring, one));
    assert_true(mesh_ring_boot(ring, one) == 101);
    assert_false(mesh_ring_has(ring, mesh_conf_find(conf, "router3")));
    assert_true(mesh_ring_boot(ring, mesh_conf_find(conf, "router3")) == 0);
    assert_false(mesh_ring_has(ring, MESH_NO_PEER));
    mesh_ring_destroy(&ring);
    mesh_conf_destroy(&conf);
}

static void everybody_computes_the_same_ring(void **state)
{
    (void)state;
    mesh_conf *a = conf_new(false);
    mesh_conf *b = conf_new(true);
    mesh_ring *ra = mesh_ring_new(a);
    mesh_ring *rb = mesh_ring_new(b);
    assert_int_equal(set(ra, 1, (int[]){ 1, 2, 3, 4, 0 }), MESH_OK);
    assert_int_equal(set(rb, 9, (int[]){ 4, 2, 1, 3, 0 }), MESH_OK);
    for (unsigned slot = 0; slot < MESH_SLOTS; slot++) {
        assert_string_equal(owner_name(a, ra, (mesh_slot)slot), owner_name(b, rb, (mesh_slot)slot));
    }
    mesh_ring_destroy(&ra);
    mesh_ring_destroy(&rb);
    mesh_conf_destroy(&a);
    mesh_conf_destroy(&b);
}

static void slots_are_spread_and_few_move(void **state)
{
    (void)state;
    mesh_conf *conf = conf_new(false);
    mesh_ring *four = mesh_ring_new(conf);
    mesh_ring *five = mesh_ring_new(conf);
    assert_int_equal(set(four, 1, (int[]){ 1, 2, 3, 4, 0 }), MESH_OK);
    assert_int_equal(set(five, 1, (int[]){ 1, 2, 3, 4, 5, 0 }), MESH_OK);
    unsigned owned[ROUTERS] = { 0 };
    unsigned moved = 0;
    for (unsigned slot = 0; slot < MESH_SLOTS; slot++) {
        mesh_peer before = mesh_ring_router(four, (mesh_slot)slot);
        mesh_peer after = mesh_ring_router(five, (mesh_slot)slot);
        owned[after]++;
        if (before != after) {
            assert_int_equal(after, mesh_conf_find(conf, "router5")); /* to the new one only */
            moved++;
        }
    }
    assert_in_range(moved, MESH_SLOTS / 5 - 150, MESH_SLOTS / 5 + 150);
    for (unsigned i = 0; i < ROUTERS; i++) {
        assert_in_range(owned[i], MESH_SLOTS / 5 - 150, MESH_SLOTS / 5 + 150);
    }
    mesh_ring_destroy(&four);
    mesh_ring_destroy(&five);
    mesh_conf_destroy(&conf);
}

static void a_ring_travels_as_a_message(void **state)
{
    (void)state;
    mesh_conf *conf = conf_new(false);
    mesh_ring *ring = mesh_ring_new(conf);
    mesh_ring *copy = mesh_ring_new(conf);
    mesh_arena *arena = mesh_arena_new();
    assert_int_equal(set(ring, 7, (int[]){ 5, 2, 0 }), MESH_OK);
    Mesh__Ring *message = mesh_ring_message(ring, arena);
    assert_int_equal(message->n_routers, 2);
    mesh_buf packed = { 0 };
    mesh_wire_pack(message, &packed);
    ProtobufCMessage *out;
    assert_int_equal(mesh_wire_unpack(&mesh__ring__descriptor, mesh_buf_slice(&packed), arena, &out), MESH_OK);
    assert_int_equal(mesh_ring_set(copy, (Mesh__Ring *)out), MESH_OK);
    assert_true(mesh_ring_epoch(copy) == 7);
    for (unsigned slot = 0; slot < MESH_SLOTS; slot++) {
        assert_int_equal(mesh_ring_router(ring, (mesh_slot)slot), mesh_ring_router(copy, (mesh_slot)slot));
    }
    assert_true(mesh_ring_boot(copy, mesh_conf_find(conf, "router5")) == 105);
    mesh_slot slot = mesh_id_slot(mesh_conf_hash_key(conf), "default/ann");
    assert_int_equal(mesh_ring_router_of(copy, "default/ann"), mesh_ring_router(copy, slot));
    mesh_buf_fini(&packed);
    mesh_arena_destroy(&arena);
    mesh_ring_destroy(&ring);
    mesh_ring_destroy(&copy);
    mesh_conf_destroy(&conf);
}

/* Slots can be given to another shard one by one; the map survives being sent on. */
static void the_map_says_which_shard_stores_a_slot(void **state)
{
    (void)state;
    mesh_conf *conf = conf_new(false);
    mesh_ring *ring = mesh_ring_new(conf);
    mesh_slot slot = mesh_id_slot(mesh_conf_hash_key(conf), "default/ann");
    assert_string_equal(mesh_conf_node(conf, mesh_ring_store_of(ring, "default/ann"))->name, "store1");
    Mesh__SlotRange range = MESH__SLOT_RANGE__INIT;
    Mesh__SlotRange *map[] = { &range };
    Mesh__Ring from = MESH__RING__INIT;
    from.epoch = 1;
    from.map = map;
    from.n_map = 1;
    range.shard = 1;
    range.last = MESH_SLOTS; /* there is no such slot */
    assert_int_equal(mesh_ring_set(ring, &from), MESH_MALFORMED);
    assert_int_equal(mesh_ring_epoch(ring), 0);
    range.first = range.last = slot;
    assert_int_equal(mesh_ring_set(ring, &from), MESH_OK);
    assert_string_equal(mesh_conf_node(conf, mesh_ring_store_of(ring, "default/ann"))->name, "store2");
    mesh_arena *arena = mesh_arena_new();
    Mesh__Ring *sent = mesh_ring_message(ring, arena);
    assert_int_equal(sent->n_map, 1);
    assert_int_equal(sent->map[0]->first, slot);
    assert_int_equal(sent->map[0]->last, slot);
    assert_int_equal(sent->map[0]->shard, 1);
    mesh_arena_destroy(&arena);
    mesh_ring_destroy(&ring);
    mesh_conf_destroy(&conf);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_map_says_which_shard_stores_a_slot),
        cmocka_unit_test(an_empty_ring_owns_nothing),
        cmocka_unit_test(only_newer_rings_are_taken),
        cmocka_unit_test(everybody_computes_the_same_ring),
        cmocka_unit_test(slots_are_spread_and_few_move),
        cmocka_unit_test(a_ring_travels_as_a_message),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
