/* A slot that leaves a shard, one that comes to it, and the map of shard 0: what is late, doubled or nonsense changes
 * nothing. Whole moves: tests/story/test_move.c. */
#include "store/kv_rows.h"
#include "store/mover.h"
#include "store/slot.h"
#include "tests/unit/store_rig.h"

#define ERA UINT64_C(0x1234)

/* This store is shard 0; the slots of the upper half are shard 1's. */
static rig *sharded(void)
{
    rig *r = mesh_alloc(sizeof *r);
    r->conf = mesh_conf_new();
    rig_node(r, "store1", MESH_STORE);
    rig_node(r, "router1", MESH_ROUTER);
    rig_node(r, "router2", MESH_ROUTER);
    rig_node(r, "edge1", MESH_EDGE);
    mesh_node_conf other = { .role = MESH_STORE, .shard = 1 };
    snprintf(other.name, sizeof other.name, "store2");
    snprintf(other.endpoint, sizeof other.endpoint, "inproc://store2");
    assert_int_equal(mesh_conf_add_node(r->conf, &other), MESH_OK);
    r->disk = sim_disk_new("/rig", 3);
    r->arena = mesh_arena_new();
    r->now = (mesh_time){ 1000000, RIG_WALL };
    r->out = mesh_out_new(mesh_conf_nodes(r->conf));
    r->epoch = 1;
    r->corr = 1000;
    rig_open(r);
    return rig_with_router(r);
}

static mesh_slot slot_of(rig *r, const char *qid)
{
    return mesh_id_slot(mesh_conf_hash_key(r->conf), qid);
}

/* Somebody whose slot is in the lower or the upper half. */
static const char *somebody(rig *r, bool upper)
{
    for (unsigned i = 0;; i++) {
        char name[16];
        snprintf(name, sizeof name, "u%u", i);
        if ((slot_of(r, rig_q(r, name)) >= MESH_SLOTS / 2) == upper) {
            return mesh_arena_strdup(r->arena, name);
        }
    }
}

/* Somebody whose chat with themselves is this shard's. */
static const char *talks_here(rig *r)
{
    for (unsigned i = 0;; i++) {
        char name[16];
        snprintf(name, sizeof name, "t%u", i);
        if (slot_of(r, rig_direct(r, name, name)) < MESH_SLOTS / 2) {
            return mesh_arena_strdup(r->arena, name);
        }
    }
}

static Mesh__Msg *ask_move(rig *r, uint32_t slot, uint32_t shard)
{
    Mesh__SlotMove move = MESH__SLOT_MOVE__INIT;
    move.slot = slot;
    move.shard = shard;
    MESH_MSG(msg, SLOT_MOVE, slot_move, &move);
    return rig_ask(r, &msg);
}

static Mesh__Msg *ask_map(rig *r, uint32_t slot, uint32_t shard, uint64_t move)
{
    Mesh__MapSet set = MESH__MAP_SET__INIT;
    set.slot = slot;
    set.shard = shard;
    set.move = move;
    MESH_MSG(msg, MAP_SET, map_set, &set);
    return rig_ask(r, &msg);
}

/* The last request to another shard, NULL: none since rig_forget. */
static Mesh__Msg *asked(rig *r, Mesh__Msg__BodyCase kind)
{
    for (size_t i = r->n_seen; i-- > 0;) {
        if (r->seen[i].msg->body_case == kind) {
            return r->seen[i].msg;
        }
    }
    return NULL;
}

static void answer_taken(rig *r, const Mesh__Msg *request, bool whole, mesh_slice after)
{
    Mesh__SlotTaken t = MESH__SLOT_TAKEN__INIT;
    t.slot = request->slot_rows->slot;
    t.move = request->slot_rows->move;
    t.whole = whole;
    t.after = (ProtobufCBinaryData){ after.size, (uint8_t *)(uintptr_t)after.data };
    MESH_MSG(msg, SLOT_TAKEN, slot_taken, &t);
    msg.corr = request->corr;
    rig_give(r, RIG_R1, &msg);
    rig_run(r);
}

static void a_slot_that_leaves_is_not_answered_for(void **state)
{
    (void)state;
    rig *r = sharded();
    const char *ann = somebody(r, false);
    mesh_slot slot = slot_of(r, rig_q(r, ann));
    ASSERT_KIND(rig_hello(r, ann, "phone", 0, UINT64_MAX), ATTACHED);
    ASSERT_FAULT(ask_move(r, slot, 0), FAULT_INVALID);
    ASSERT_FAULT(ask_move(r, slot, 2), FAULT_INVALID);
    ASSERT_FAULT(ask_move(r, MESH_SLOTS - 1, 1), FAULT_NOT_FOUND); /* not this shard's */
    ASSERT_KIND(ask_move(r, slot, 1), DONE);
    ASSERT_KIND(ask_move(r, slot, 1), DONE); /* again */
    ASSERT_FAULT(ask_move(r, slot + 1u, 1), FAULT_BUSY);
    Mesh__Msg *refused = rig_hello(r, ann, "phone", 0, UINT64_MAX);
    ASSERT_FAULT(refused, FAULT_UNAVAILABLE);
    assert_int_equal(refused->fault->after_ms, STORE_SLOT_AGAIN_MS);
    ASSERT_FAULT(rig_ack(r, ann, "phone", 0), FAULT_UNAVAILABLE);
    Mesh__Entry entry = rig_entry(r, rig_q(r, "far"), 1, "zoe", "hi");
    Mesh__Msg *appended = rig_append(r, &entry, 0, ann);
    assert_int_equal(appended->appended->results[0]->state, MESH__APPEND_STATE__APPEND_REFUSED);
    rig_destroy(r);
}

/* The rows go; the map is asked for; when it is there, the rows are deleted. Restarted at each step. */
static void the_way_out_goes_on_after_a_restart(void **state)
{
    (void)state;
    rig *r = sharded();
    const char *ann = somebody(r, false);
    mesh_slot slot = slot_of(r, rig_q(r, ann));
    uint64_t era = rig_hello(r, ann, "phone", 0, UINT64_MAX)->attached->era;
    ASSERT_KIND(ask_move(r, slot, 1), DONE);
    for (int life = 0; life < 2; life++) {
        Mesh__Msg *request = asked(r, MESH__MSG__BODY_SLOT_ROWS);
        assert_non_null(request);
        const Mesh__SlotRows *part = request->slot_rows;
        mesh_slice rows = { part->rows.data, part->rows.len };
        mesh_slice key, value;
        assert_true(part->last && part->era == era && part->move == 1 && part->shard == 1 && part->after.len == 0);
        assert_int_equal(store_kv_rows_next(&rows, &key, &value), MESH_OK);
        assert_int_equal(key.data[0], 'v'); /* the device is all there is */
        assert_int_equal(rows.size, 0);
        if (life == 0) {
            rig_close(r);
            rig_open(r);
            rig_forget(r);
            rig_with_router(r);
            rig_sleep(r, 3000);
            rig_lease(r, RIG_R1, 11, false);
            rig_run(r);
        } else {
            answer_taken(r, request, true, (mesh_slice){ NULL, 0 });
        }
    }
    const Mesh__Msg *set = asked(r, MESH__MSG__BODY_MAP_SET);
    assert_non_null(set);
    assert_true(set->map_set->slot == slot && set->map_set->shard == 1 && set->map_set->move == 1);
    assert_int_equal(rig_rows(r, "v"), 1);
    ASSERT_KIND(ask_map(r, slot, 1, 1), DONE); /* this store is shard 0 too */
    rig_run(r);
    assert_int_equal(rig_rows(r, "v"), 0);
    assert_int_equal(rig_rows(r, "s"), 1);
    ASSERT_FAULT(ask_move(r, slot, 1), FAULT_NOT_FOUND);
    rig_destroy(r);
}

static void the_map_goes_forward_only(void **state)
{
    (void)state;
    rig *r = sharded();
    rig_forget(r);
    ASSERT_KIND(ask_map(r, 5, 1, 1), DONE);
    uint64_t epoch = asked(r, MESH__MSG__BODY_RING)->ring->epoch;
    assert_int_equal(asked(r, MESH__MSG__BODY_RING)->ring->n_map, 2);
    ASSERT_KIND(ask_map(r, 5, 0, 2), DONE);
    assert_int_equal(asked(r, MESH__MSG__BODY_RING)->ring->epoch, epoch + 1);
    assert_int_equal(asked(r, MESH__MSG__BODY_RING)->ring->n_map, 1);
    rig_forget(r);
    ASSERT_KIND(ask_map(r, 5, 1, 1), DONE); /* late */
    ASSERT_KIND(ask_map(r, 5, 0, 2), DONE); /* again */
    assert_null(asked(r, MESH__MSG__BODY_RING));
    ASSERT_FAULT(ask_map(r, 5, MESH_NODES_MAX, 3), FAULT_MALFORMED);
    ASSERT_FAULT(ask_map(r, MESH_SLOTS, 1, 3), FAULT_MALFORMED);
    ASSERT_FAULT(ask_map(r, 5, 1, 0), FAULT_MALFORMED);
    rig_destroy(r);
}

/* ---- the way in ---- */

static void put_inbox(mesh_buf *rows, rig *r, const char *user, uint64_t seq)
{
    store_key key;
    mesh_buf value = { 0 };
    Mesh__Entry entry = rig_entry(r, rig_q(r, "far"), seq, "zoe", "hi");
    mesh_wire_pack(&entry, &value);
    store_key_inbox(&key, slot_of(r, rig_q(r, user)), rig_q(r, user), seq);
    store_kv_rows_put(rows, store_key_slice(&key), mesh_buf_slice(&value));
    mesh_buf_fini(&value);
}

static Mesh__Msg *give_part(rig *r, const char *user, uint64_t move, mesh_slice after, mesh_slice rows, bool last)
{
    Mesh__SlotRows part = MESH__SLOT_ROWS__INIT;
    part.slot = slot_of(r, rig_q(r, user));
    part.from = 1;
    part.move = move;
    part.after = (ProtobufCBinaryData){ after.size, (uint8_t *)(uintptr_t)after.data };
    part.rows = (ProtobufCBinaryData){ rows.size, (uint8_t *)(uintptr_t)rows.data };
    part.last = last;
    part.era = ERA;
    part.fence = 1;
    part.last_id = UINT64_C(1) << 62;
    MESH_MSG(msg, SLOT_ROWS, slot_rows, &part);
    return rig_ask(r, &msg);
}

static void a_slot_that_comes_keeps_order_and_era(void **state)
{
    (void)state;
    rig *r = sharded();
    const char *bob = somebody(r, true);
    const char *qid = rig_q(r, bob);
    const mesh_slice none = { NULL, 0 };
    mesh_buf first = { 0 }, second = { 0 }, bad = { 0 };
    store_key key;
    put_inbox(&first, r, bob, 1);
    put_inbox(&first, r, bob, 2);
    put_inbox(&second, r, bob, 3);
    put_inbox(&bad, r, somebody(r, false), 1);
    store_key_inbox(&key, slot_of(r, qid), qid, 2);
    mesh_slice after = store_key_slice(&key);

    ASSERT_FAULT(rig_hello(r, bob, "phone", 0, UINT64_MAX), FAULT_UNAVAILABLE);
    ASSERT_FAULT(give_part(r, bob, 1, none, mesh_buf_slice(&bad), false), FAULT_MALFORMED);
    ASSERT_FAULT(give_part(r, bob, 0, none, mesh_buf_slice(&first), false), FAULT_MALFORMED);
    Mesh__SlotTaken *t = give_part(r, bob, 1, after, mesh_buf_slice(&second), true)->slot_taken; /* too early */
    assert_true(!t->whole && t->after.len == 0);
    assert_int_equal(rig_rows(r, "i"), 0);
    t = give_part(r, bob, 1, none, mesh_buf_slice(&first), false)->slot_taken;
    assert_true(!t->whole && t->after.len == after.size);
    t = give_part(r, bob, 1, none, mesh_buf_slice(&first), false)->slot_taken; /* again */
    assert_true(!t->whole && t->after.len == after.size);
    rig_close(r);
    rig_open(r);
    rig_with_router(r);
    rig_lease(r, RIG_R1, 11, false);
    rig_run(r);
    ASSERT_FAULT(rig_hello(r, bob, "phone", 0, UINT64_MAX), FAULT_UNAVAILABLE);
    t = give_part(r, bob, 1, after, mesh_buf_slice(&second), true)->slot_taken;
    assert_true(t->whole);
    Mesh__Attached *attached = rig_hello(r, bob, "phone", ERA, 2)->attached; /* before the map knows */
    assert_non_null(attached);
    assert_true(attached->era == ERA && attached->head == 3 && !attached->resync);
    Mesh__Entry entry = rig_entry(r, rig_q(r, "far"), 1, "zoe", "hi");
    Mesh__Msg *appended = rig_append(r, &entry, 0, bob);
    assert_int_equal(appended->appended->results[0]->inbox_seq, 4);
    assert_true(appended->appended->results[0]->era == ERA);
    const char *ann = talks_here(r);
    assert_true(rig_say(r, ann, ann, "later than all that came")->id > UINT64_C(1) << 62);
    t = give_part(r, bob, 1, none, mesh_buf_slice(&first), true)->slot_taken; /* late, and nonsense */
    assert_true(t->whole);
    assert_int_equal(rig_inbox(r, bob, 0, 10)->head, 4);
    ASSERT_FAULT(give_part(r, bob, 2, none, mesh_buf_slice(&first), true), FAULT_INVALID); /* it is here */
    mesh_buf_fini(&first);
    mesh_buf_fini(&second);
    mesh_buf_fini(&bad);
    rig_destroy(r);
}

/* The rows of an entry are not there to be read before it is over: what comes in the same one is refused. */
static void what_comes_with_the_last_part_is_too_early(void **state)
{
    (void)state;
    rig *r = sharded();
    const char *bob = somebody(r, true);
    mesh_buf rows = { 0 };
    put_inbox(&rows, r, bob, 1);
    Mesh__SlotRows part = MESH__SLOT_ROWS__INIT;
    part.slot = slot_of(r, rig_q(r, bob));
    part.move = 1;
    part.rows = (ProtobufCBinaryData){ rows.size, rows.data };
    part.last = true;
    part.era = ERA;
    MESH_MSG(msg, SLOT_ROWS, slot_rows, &part);
    uint64_t corr = rig_post(r, RIG_R1, &msg);
    Mesh__Entry entry = rig_entry(r, rig_q(r, "far"), 9, "zoe", "hi");
    Mesh__Msg *appended = rig_append(r, &entry, 0, bob);
    assert_int_equal(appended->appended->results[0]->state, MESH__APPEND_STATE__APPEND_REFUSED);
    assert_true(rig_answer(r, corr)->slot_taken->whole);
    assert_int_equal(rig_inbox(r, bob, 0, 10)->head, 1);
    mesh_buf_fini(&rows);
    rig_destroy(r);
}

/* Shard 0 was told by the shard it came from, and forgot. */
static void a_slot_that_came_is_put_into_the_map(void **state)
{
    (void)state;
    rig *r = sharded();
    const char *bob = somebody(r, true);
    mesh_slot slot = slot_of(r, rig_q(r, bob));
    mesh_buf rows = { 0 };
    put_inbox(&rows, r, bob, 1);
    assert_true(give_part(r, bob, 3, (mesh_slice){ NULL, 0 }, mesh_buf_slice(&rows), true)->slot_taken->whole);
    for (int i = 0; i < 3; i++) { /* until the map has it */
        rig_forget(r);
        for (int s = 0; s < STORE_MOVER_MAP_MS / 1000; s++) {
            rig_lease(r, RIG_R1, 11, false);
            rig_sleep(r, 1000);
        }
        const Mesh__Msg *set = asked(r, MESH__MSG__BODY_MAP_SET);
        assert_non_null(set);
        assert_true(set->map_set->slot == slot && set->map_set->shard == 0 && set->map_set->move == 3);
    }
    rig_forget(r);
    rig_lease(r, RIG_R2, 22, false); /* another ring, and still not in it: said at once */
    rig_run(r);
    rig_sleep(r, 100);
    assert_non_null(asked(r, MESH__MSG__BODY_MAP_SET));
    ASSERT_KIND(ask_map(r, slot, 0, 3), DONE);
    rig_forget(r);
    for (int s = 0; s < 3 * STORE_MOVER_MAP_MS / 1000; s++) {
        rig_lease(r, RIG_R1, 11, false);
        rig_sleep(r, 1000);
    }
    assert_null(asked(r, MESH__MSG__BODY_MAP_SET));
    mesh_buf_fini(&rows);
    rig_destroy(r);
}

/* So many that they are not all named at once. */
static void many_slots_that_came_take_turns(void **state)
{
    (void)state;
    rig *r = sharded();
    bool named[MESH_SLOTS] = { false };
    for (unsigned i = 0; i < STORE_MOVER_MAPS + 10; i++) {
        Mesh__SlotRows part = MESH__SLOT_ROWS__INIT;
        part.slot = MESH_SLOTS - 1 - 7 * i;
        part.from = 1;
        part.move = 1;
        part.last = true;
        part.era = ERA;
        MESH_MSG(msg, SLOT_ROWS, slot_rows, &part);
        ASSERT_KIND(rig_ask(r, &msg), SLOT_TAKEN);
    }
    for (unsigned round = 1; round <= 2; round++) {
        unsigned n = 0, different = 0;
        rig_forget(r);
        for (int s = 0; s < STORE_MOVER_MAP_MS / 1000; s++) {
            rig_lease(r, RIG_R1, 11, false);
            rig_sleep(r, 1000);
        }
        for (size_t i = 0; i < r->n_seen; i++) {
            const Mesh__Msg *msg = r->seen[i].msg;
            if (msg->body_case == MESH__MSG__BODY_MAP_SET) {
                n++;
                named[msg->map_set->slot] = true;
            }
        }
        for (unsigned slot = 0; slot < MESH_SLOTS; slot++) {
            different += named[slot];
        }
        assert_int_equal(n, STORE_MOVER_MAPS);
        assert_int_equal(different, round == 1 ? STORE_MOVER_MAPS : STORE_MOVER_MAPS + 10);
    }
    rig_destroy(r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_slot_that_leaves_is_not_answered_for),
        cmocka_unit_test(the_way_out_goes_on_after_a_restart),
        cmocka_unit_test(the_map_goes_forward_only),
        cmocka_unit_test(a_slot_that_comes_keeps_order_and_era),
        cmocka_unit_test(what_comes_with_the_last_part_is_too_early),
        cmocka_unit_test(a_slot_that_came_is_put_into_the_map),
        cmocka_unit_test(many_slots_that_came_take_turns),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
