/* mesh/ring.c: the same ring for everybody, few slots move, nothing older is taken. And who goes by its map of shards:
 * store/leases.c makes the first, store/parcel.c splits by it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "mesh/ring.h"
#include "store/leases.h"
#include "store/parcel.h"

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
    range.last = 0;
    range.shard = MESH_NODES_MAX; /* nor so many shards */
    assert_int_equal(mesh_ring_set(ring, &from), MESH_MALFORMED);
    range.shard = 1;
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

/* Every slot is in one range, the ranges differ by one slot at most, and the ring that takes the map says the same. */
static void an_even_map_gives_each_shard_its_part(void **state)
{
    (void)state;
    mesh_conf *conf = conf_new(false);
    mesh_ring *ring = mesh_ring_new(conf);
    mesh_arena *arena = mesh_arena_new();
    for (uint32_t shards = 1; shards <= 7; shards++) {
        Mesh__RingSet set = MESH__RING_SET__INIT;
        mesh_ring_even_map(shards, arena, &set);
        assert_int_equal(set.n_map, shards);
        uint32_t next = 0;
        for (uint32_t i = 0; i < shards; i++) {
            assert_int_equal(set.map[i]->first, next);
            assert_int_equal(set.map[i]->shard, i);
            next = set.map[i]->last + 1;
            assert_in_range(next - set.map[i]->first, MESH_SLOTS / shards, MESH_SLOTS / shards + 1);
        }
        assert_int_equal(next, MESH_SLOTS);
        Mesh__Ring from = MESH__RING__INIT;
        from.epoch = shards;
        from.map = set.map;
        from.n_map = set.n_map;
        assert_int_equal(mesh_ring_set(ring, &from), MESH_OK);
        for (uint32_t i = 0; i < shards; i++) {
            assert_int_equal(mesh_ring_shard(ring, (mesh_slot)set.map[i]->first), i);
            assert_int_equal(mesh_ring_shard(ring, (mesh_slot)set.map[i]->last), i);
        }
    }
    mesh_slot slot = mesh_id_slot(mesh_conf_hash_key(conf), "default/ann");
    assert_int_equal(mesh_ring_slot(ring, "default/ann"), slot);
    assert_int_equal(mesh_ring_shard_of(ring, "default/ann"), mesh_ring_shard(ring, slot));
    mesh_arena_destroy(&arena);
    mesh_ring_destroy(&ring);
    mesh_conf_destroy(&conf);
}

/* The first RingSet of a cluster with several shards has the map; no other has: what is stored stays where it is. */
static void only_the_first_ring_has_the_map(void **state)
{
    (void)state;
    mesh_conf *conf = conf_new(false); /* two shards */
    mesh_ring *ring = mesh_ring_new(conf);
    mesh_arena *arena = mesh_arena_new();
    store_leases *leases = store_leases_new(conf, ring);
    mesh_time now = { 1000, 1000 };
    Mesh__RingSet first;
    Mesh__RingSet second;
    Mesh__Lease lease = MESH__LEASE__INIT;
    lease.router = (char *)"router1";
    lease.boot = 7;
    assert_int_equal(store_leases_renew(leases, mesh_conf_find(conf, "router1"), &lease, now), MESH_OK);
    assert_true(store_leases_differ(leases, now, arena, &first));
    assert_int_equal(first.n_map, 2);
    assert_int_equal(first.map[1]->first, MESH_SLOTS / 2);
    assert_int_equal(set(ring, 1, (int[]){ 1, 0 }), MESH_OK); /* a ring from before there were two */
    lease.boot = 8;
    assert_int_equal(store_leases_renew(leases, mesh_conf_find(conf, "router1"), &lease, now), MESH_OK);
    assert_true(store_leases_differ(leases, now, arena, &second));
    assert_int_equal(second.n_routers, 1);
    assert_int_equal(second.n_map, 0);
    store_leases_destroy(&leases);
    mesh_arena_destroy(&arena);
    mesh_ring_destroy(&ring);
    mesh_conf_destroy(&conf);
}

/* Each (router, shard) gets a parcel of its own, and nobody is left out or in two. */
static void parcels_are_of_one_router_and_one_shard(void **state)
{
    (void)state;
    mesh_conf *conf = conf_new(false);
    mesh_ring *ring = mesh_ring_new(conf);
    mesh_arena *arena = mesh_arena_new();
    store_splitter *splitter = store_splitter_new(ring, mesh_conf_nodes(conf), NULL);
    char users[100][24];
    uint32_t last = 0;
    for (int round = 0; round < 2; round++) { /* first without a ring: nobody's, of shard 0 */
        size_t n;
        size_t seen = 0;
        store_splitter_begin(splitter, STORE_PARCEL_ALL);
        for (int i = 0; i < 100; i++) {
            (void)snprintf(users[i], sizeof users[i], "default/user%02d", i);
            store_splitter_add(splitter, users[i], 1, 0);
        }
        store_parcel **parcels = store_splitter_end(splitter, 10, &last, &n);
        assert_int_equal(n, round == 0 ? 1 : 4);
        for (size_t i = 0; i < n; i++) {
            seen += parcels[i]->n;
            for (size_t k = 0; k < parcels[i]->n; k++) {
                assert_int_equal(mesh_ring_router_of(ring, parcels[i]->users[k].user), parcels[i]->peer);
                assert_int_equal(mesh_ring_shard_of(ring, parcels[i]->users[k].user),
                                 mesh_ring_shard_of(ring, parcels[i]->users[0].user));
            }
            free(parcels[i]);
        }
        free(parcels);
        assert_int_equal(seen, 100);
        Mesh__RingSet map = MESH__RING_SET__INIT;
        Mesh__RingNode nodes[2] = { MESH__RING_NODE__INIT, MESH__RING_NODE__INIT };
        Mesh__RingNode *routers[] = { &nodes[0], &nodes[1] };
        nodes[0].name = (char *)"router1";
        nodes[1].name = (char *)"router2";
        mesh_ring_even_map(2, arena, &map);
        Mesh__Ring from = MESH__RING__INIT;
        from.epoch = 1 + (uint64_t)round;
        from.map = map.map;
        from.n_map = map.n_map;
        from.routers = routers;
        from.n_routers = 2;
        assert_int_equal(mesh_ring_set(ring, &from), MESH_OK);
    }
    store_splitter_destroy(&splitter);
    mesh_arena_destroy(&arena);
    mesh_ring_destroy(&ring);
    mesh_conf_destroy(&conf);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_map_says_which_shard_stores_a_slot),
        cmocka_unit_test(an_even_map_gives_each_shard_its_part),
        cmocka_unit_test(only_the_first_ring_has_the_map),
        cmocka_unit_test(parcels_are_of_one_router_and_one_shard),
        cmocka_unit_test(an_empty_ring_owns_nothing),
        cmocka_unit_test(only_newer_rings_are_taken),
        cmocka_unit_test(everybody_computes_the_same_ring),
        cmocka_unit_test(slots_are_spread_and_few_move),
        cmocka_unit_test(a_ring_travels_as_a_message),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
