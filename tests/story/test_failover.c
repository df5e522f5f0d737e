/* Nodes die, are cut off, come back. */
#include "story.h"

#define SEEDS 8 /* of the stories about a crash: what it loses is drawn from the seed */

/* A user whose slot this router owns. */
static void user_of(sim *s, const char *router, char out[16])
{
    for (unsigned i = 0; i < 1000; i++) {
        char qid[32];
        snprintf(out, 16, "user%u", i);
        snprintf(qid, sizeof qid, "default/%s", out);
        if (strcmp(sim_owner(s, qid), router) == 0) {
            return;
        }
    }
    fail();
}

STORY(router_dies)
{
    (void)state;
    sim *s = story_new(2, 2, 31);
    char here[16], there[16];
    user_of(s, "router1", here);
    user_of(s, "router2", there);
    sim_client *ann = story_person(s, here, "phone", "edge1");
    sim_client *bob = story_person(s, there, "phone", "edge2");
    for (int i = 0; i < 10; i++) {
        sim_send(ann, there, "before");
        sim_send(bob, here, "before");
    }
    uint64_t epoch = sim_epoch(s, "edge1");
    sim_kill(s, "router1");
    WITHIN(s, 5000, sim_epoch(s, "edge1") > epoch && sim_epoch(s, "edge2") > epoch);
    assert_false(sim_ring_has(s, "edge1", "router1"));
    sim_op *op = sim_send(bob, here, "after");
    story_acked(s, op, 3000);
    WITHIN(s, 3000, ann->n_got == 21 && bob->n_got == 21);
    assert_int_equal(ann->reconnects + bob->reconnects, 0); /* sockets never noticed */
    epoch = sim_epoch(s, "edge1");
    sim_start(s, "router1");
    WITHIN(s, 5000, sim_epoch(s, "edge1") > epoch && sim_ring_has(s, "edge1", "router1"));
    story_acked(s, sim_send(ann, there, "and back"), 3000);
    WITHIN(s, 3000, bob->n_got == 22);
    story_end(&s);
}

STORY(router_reborn_before_its_lease_ends)
{
    (void)state;
    sim *s = story_new(2, 1, 32);
    sim_client *ann = story_person(s, "ann", "phone", "edge1");
    sim_client *bob = story_person(s, "bob", "phone", "edge2");
    sim_kill(s, "router1");
    sim_op *op = sim_send(ann, "bob", "while it is away");
    sim_run(s, 200);
    sim_start(s, "router1");
    story_acked(s, op, 6000);
    WITHIN(s, 6000, bob->n_got == 1 && ann->n_got == 1);
    assert_int_equal(ann->reconnects + bob->reconnects, 0);
    story_end(&s);
}

STORY(edge_dies)
{
    (void)state;
    sim *s = story_new(2, 2, 33);
    sim_client *ann = story_person(s, "ann", "phone", "edge1");
    sim_client *bob = story_person(s, "bob", "phone", "edge2");
    for (int i = 0; i < 20; i++) {
        sim_send(ann, "bob", "text");
    }
    sim_run(s, 5);
    sim_kill(s, "edge1");
    WITHIN(s, 2000, sim_live(ann) && strcmp(ann->edge, "edge2") == 0);
    WITHIN(s, 3000, bob->n_got == 20 && ann->n_got == 20);
    story_end(&s);
}

STORY(store_dies_before_the_sync)
{
    (void)state;
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        sim *s = story_new(1, 1, 40 + seed);
        sim_client *ann = story_person(s, "ann", "phone", "edge1");
        sim_client *bob = story_person(s, "bob", "phone", "edge1");
        sim_run(s, 600);
        sim_disk_hold(s, true);
        sim_op *op = sim_send(ann, "bob", "not on disk yet");
        sim_run(s, 300);
        assert_int_equal(op->state, OP_WAITING);
        assert_int_equal(bob->n_got, 0);
        sim_kill(s, "store1");
        sim_disk_hold(s, false);
        sim_start(s, "store1");
        const Client__Sent *sent = story_acked(s, op, 8000);
        assert_int_equal(sent->seq, 1);
        WITHIN(s, 10000, bob->n_got == 1 && ann->n_got == 1);
        story_end(&s);
    }
}

STORY(store_dies_between_commit_and_ack)
{
    (void)state;
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        sim *s = story_new(1, 1, 60 + seed);
        sim_client *ann = story_person(s, "ann", "phone", "edge1");
        sim_client *bob = story_person(s, "bob", "phone", "edge1");
        sim_lose(s, "router1", "store1", MESH__MSG__BODY_SENT, 1);
        sim_op *op = sim_send(ann, "bob", "committed, not told");
        WITHIN(s, 1000, bob->n_got == 1);
        assert_int_equal(op->state, OP_WAITING);
        sim_kill(s, "store1");
        sim_start(s, "store1");
        const Client__Sent *sent = story_acked(s, op, 10000);
        assert_true(sent->dup);
        assert_int_equal(sent->seq, 1);
        story_end(&s);
    }
}

STORY(store_dies_under_load)
{
    (void)state;
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        sim *s = story_new(2, 2, 80 + seed);
        sim_client *ann = story_person(s, "ann", "phone", "edge1");
        sim_client *bob = story_person(s, "bob", "phone", "edge2");
        for (int i = 0; i < 60; i++) {
            sim_send(i % 2 ? ann : bob, i % 2 ? "bob" : "ann", "text");
            sim_run(s, (mesh_ms)sim_random(s, 4));
            if (i % 20 == 10) {
                sim_kill(s, "store1");
                sim_start(s, "store1");
            }
        }
        WITHIN(s, 15000, ann->n_got == 60 && bob->n_got == 60);
        story_end(&s);
    }
}

STORY(store_cut_off_for_a_while)
{
    (void)state;
    sim *s = story_new(1, 1, 34);
    sim_client *ann = story_person(s, "ann", "phone", "edge1");
    sim_client *bob = story_person(s, "bob", "phone", "edge1");
    sim_cut(s, "router1", "store1");
    sim_op *op = sim_send(ann, "bob", "patience");
    sim_run(s, 8000);
    assert_int_equal(op->state, OP_WAITING);
    assert_true(op->code == FAULT_UNAVAILABLE);
    assert_true(sim_live(ann) && sim_live(bob));
    sim_heal(s, "router1", "store1");
    story_acked(s, op, 6000);
    WITHIN(s, 10000, bob->n_got == 1);
    story_end(&s);
}

STORY(deposed_router_can_do_nothing)
{
    (void)state;
    sim *s = story_new(2, 2, 35);
    char bob_id[16];
    user_of(s, "router1", bob_id);
    sim_client *bob = story_person(s, bob_id, "phone", "edge1");
    uint64_t epoch = sim_epoch(s, "edge1");
    /* router1 and edge2 do not hear of the new ring, and the store does not hear that router1 lives */
    sim_lose(s, "store1", "router1", MESH__MSG__BODY_LEASE, UINT32_MAX);
    sim_lose(s, "router1", NULL, MESH__MSG__BODY_RING, UINT32_MAX);
    sim_lose(s, "edge2", NULL, MESH__MSG__BODY_RING, UINT32_MAX);
    WITHIN(s, 5000, sim_epoch(s, "edge1") > epoch);
    assert_true(sim_ring_has(s, "edge2", "router1"));
    assert_false(sim_ring_has(s, "edge1", "router1"));
    sim_run(s, 1500); /* bob's session moves to router2: the fence of his slot is up */
    sim_client *other = sim_client_new(s, bob_id, "laptop");
    other->sticky = true;
    sim_hello(other, "edge2");
    sim_run(s, 3000);
    assert_false(sim_live(other)); /* the deposed router cannot attach it */
    sim_client *ann = story_person(s, "ann", "phone", "edge1");
    story_acked(s, sim_send(ann, bob_id, "hi"), 1000);
    WITHIN(s, 12000, bob->n_got == 1);
    assert_int_equal(other->n_got, 0);
    sim_lose_none(s);
    WITHIN(s, 6000, sim_live(other));
    story_acked(s, sim_send(ann, bob_id, "both of you"), 3000);
    WITHIN(s, 3000, bob->n_got == 2 && other->cursor == bob->cursor);
    story_end(&s);
}

STORY(router_cut_off_from_the_store)
{
    (void)state;
    sim *s = story_new(2, 2, 38);
    char bob_id[16];
    user_of(s, "router1", bob_id);
    sim_client *bob = story_person(s, bob_id, "phone", "edge1");
    sim_client *ann = story_person(s, "ann", "phone", "edge2");
    uint64_t epoch = sim_epoch(s, "edge1");
    sim_cut(s, "router1", "store1");
    sim_op *op = sim_send(ann, bob_id, "go round it");
    WITHIN(s, 5000, sim_epoch(s, "edge1") > epoch && sim_epoch(s, "edge2") > epoch);
    assert_false(sim_ring_has(s, "edge1", "router1"));
    story_acked(s, op, 6000);
    WITHIN(s, 3000, bob->n_got == 1);
    story_acked(s, sim_send(ann, bob_id, "and again"), 1000);
    WITHIN(s, 1000, bob->n_got == 2);
    epoch = sim_epoch(s, "edge1");
    sim_heal(s, "router1", "store1");
    WITHIN(s, 5000, sim_epoch(s, "edge1") > epoch && sim_ring_has(s, "edge1", "router1"));
    story_acked(s, sim_send(ann, bob_id, "the old way"), 2000);
    WITHIN(s, 3000, bob->n_got == 3);
    assert_int_equal(bob->reconnects, 0);
    story_end(&s);
}

STORY(edge_cut_off_from_one_router)
{
    (void)state;
    sim *s = story_new(2, 2, 39);
    char bob_id[16];
    user_of(s, "router1", bob_id);
    sim_client *bob = story_person(s, bob_id, "phone", "edge1");
    sim_client *ann = story_person(s, "ann", "phone", "edge2");
    sim_cut(s, "edge1", "router1");
    for (int i = 0; i < 5; i++) {
        story_acked(s, sim_send(ann, bob_id, "into the dark"), 6000);
    }
    sim_run(s, 8000);
    assert_true(sim_ring_has(s, "edge1", "router1")); /* it lives: only this edge cannot see it */
    assert_int_equal(bob->n_got, 0);
    sim_heal(s, "edge1", "router1");
    WITHIN(s, 5000, bob->n_got == 5);
    assert_int_equal(bob->reconnects, 0);
    story_end(&s);
}

STORY(one_destination_down_does_not_hold_up_others)
{
    (void)state;
    sim *s = story_new(1, 2, 36);
    char down[16], up[16];
    user_of(s, "router1", down);
    user_of(s, "router2", up);
    sim_client *here = story_person(s, up, "phone", "edge1");
    sim_client *there = story_person(s, down, "phone", "edge1");
    const char *chat = NULL;
    while (!chat) { /* until its own slot is on router2 */
        char qid[128];
        const char *made = story_acked(s, sim_create(here, "group", down, false), 1000)->chat;
        snprintf(qid, sizeof qid, "default/%s", made);
        chat = strcmp(sim_owner(s, qid), "router2") == 0 ? made : NULL;
    }
    sim_run(s, 300);
    size_t before = here->n_got, owed = there->n_got;
    sim_kill(s, "router1");
    for (int i = 0; i < 10; i++) {
        sim_post(here, chat, "still here");
    }
    WITHIN(s, 300, here->n_got == before + 10); /* long before anybody knows that router1 is dead */
    assert_int_equal(there->n_got, owed);
    WITHIN(s, 12000, there->n_got == owed + 10);
    story_end(&s);
}

STORY(stopped_router_is_a_dead_router)
{
    (void)state;
    sim *s = story_new(2, 2, 37);
    char bob_id[16];
    user_of(s, "router1", bob_id);
    sim_client *bob = story_person(s, bob_id, "phone", "edge1");
    sim_client *ann = story_person(s, "ann", "phone", "edge2");
    sim_pause(s, "router1", 8000);
    sim_op *op = sim_send(ann, bob_id, "hi");
    WITHIN(s, 5000, !sim_ring_has(s, "edge1", "router1"));
    story_acked(s, op, 6000);
    WITHIN(s, 10000, bob->n_got == 1);
    sim_run(s, 8000); /* it wakes up, and finds out */
    story_acked(s, sim_send(ann, bob_id, "again"), 3000);
    WITHIN(s, 3000, bob->n_got == 2);
    story_end(&s);
}

/* A router that hears nothing of the store is as good as dead, though all that it says arrives. */
STORY(a_router_that_hears_nothing_leaves_the_ring)
{
    (void)state;
    for (uint64_t seed = 0; seed < 4; seed++) {
        sim *s = story_new(2, 2, 240 + seed);
        sim_client *ann = story_person(s, "ann", "phone", "edge1");
        sim_client *bob = story_person(s, "bob", "phone", "edge2");
        const char *chat = story_acked(s, sim_send(ann, "bob", "one"), 1000)->chat;
        sim_cut_one(s, "store1", "router1");
        WITHIN(s, 5000, !sim_ring_has(s, "edge1", "router1") && !sim_ring_has(s, "edge2", "router1"));
        story_acked(s, sim_send(ann, "bob", "two"), 1000);
        WITHIN(s, 1000, sim_find(bob, chat, 2) != NULL);
        sim_heal_all(s);
        WITHIN(s, 5000, sim_ring_has(s, "edge1", "router1"));
        story_end(&s);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(router_dies),
        cmocka_unit_test(router_reborn_before_its_lease_ends),
        cmocka_unit_test(edge_dies),
        cmocka_unit_test(store_dies_before_the_sync),
        cmocka_unit_test(store_dies_between_commit_and_ack),
        cmocka_unit_test(store_dies_under_load),
        cmocka_unit_test(store_cut_off_for_a_while),
        cmocka_unit_test(deposed_router_can_do_nothing),
        cmocka_unit_test(router_cut_off_from_the_store),
        cmocka_unit_test(edge_cut_off_from_one_router),
        cmocka_unit_test(one_destination_down_does_not_hold_up_others),
        cmocka_unit_test(stopped_router_is_a_dead_router),
        cmocka_unit_test(a_router_that_hears_nothing_leaves_the_ring),
    };
    return cmocka_run_group_tests_name("story failover", tests, NULL, NULL);
}
