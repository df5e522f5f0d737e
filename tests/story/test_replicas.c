/* Three stores per shard: any one of them may go, and what was acked stays. */
#include "story.h"

static sim *replicas_new(unsigned shards, uint64_t seed)
{
    return sim_new((sim_conf){ .edges = 1, .routers = 2, .shards = shards, .replicas = 3, .seed = seed });
}

/* Somebody else leads the shard. */
static bool succeeded(sim *s, uint32_t shard, const char *old)
{
    const char *leader = sim_leader(s, shard);
    return leader && strcmp(leader, old) != 0;
}

STORY(acked_by_a_majority)
{
    (void)state;
    sim *s = replicas_new(1, 1000);
    sim_client *ann = story_person(s, "ann", "phone", "edge1");
    sim_client *bob = story_person(s, "bob", "phone", "edge1");
    assert_string_equal(story_acked(s, sim_send(ann, "bob", "hi"), 1000)->durable, "quorum");
    char leader[32];
    story_leader(s, 0, leader);
    for (unsigned i = 1; i <= 3; i++) { /* nobody else can write: there is no majority */
        char store[32];
        snprintf(store, sizeof store, "store%u", i);
        if (strcmp(store, leader) != 0) {
            sim_disk_hold_at(s, store, true);
        }
    }
    sim_op *op = sim_send(ann, "bob", "on one disk only");
    sim_run(s, 400);
    assert_int_equal(op->state, OP_WAITING);
    sim_disk_hold(s, false);
    story_acked(s, op, 10000);
    WITHIN(s, 5000, bob->n_got == 2);
    story_end(&s);
}

STORY(the_leader_dies)
{
    (void)state;
    for (uint64_t seed = 0; seed < 6; seed++) {
        sim *s = replicas_new(2, 1010 + seed);
        sim_client *ann = story_person(s, "ann", "phone", "edge1");
        sim_client *hal = story_person(s, "hal", "phone", "edge1");
        for (int i = 0; i < 20; i++) {
            sim_send(ann, "hal", "some are acked, some are not");
        }
        sim_run(s, (mesh_ms)seed);
        char old[2][32];
        for (uint32_t shard = 0; shard < 2; shard++) {
            story_leader(s, shard, old[shard]);
            sim_kill(s, old[shard]);
        }
        WITHIN(s, 5000, succeeded(s, 0, old[0]) && succeeded(s, 1, old[1]));
        WITHIN(s, 15000, hal->n_got == 20);
        story_acked(s, sim_send(hal, "ann", "with two of three"), 5000);
        sim_start(s, old[0]);
        sim_start(s, old[1]);
        story_end(&s);
    }
}

STORY(a_leader_that_nobody_hears)
{
    (void)state;
    sim *s = replicas_new(1, 1020);
    sim_client *ann = story_person(s, "ann", "phone", "edge1");
    sim_client *bob = story_person(s, "bob", "phone", "edge1");
    story_acked(s, sim_send(ann, "bob", "before"), 1000);
    char old[32];
    story_leader(s, 0, old);
    for (unsigned i = 1; i <= 3; i++) {
        char store[32];
        snprintf(store, sizeof store, "store%u", i);
        if (strcmp(store, old) != 0) {
            sim_cut_one(s, old, store); /* it still hears them */
        }
    }
    sim_op *op = sim_send(ann, "bob", "while it is alone");
    story_acked(s, op, 15000);
    WITHIN(s, 5000, bob->n_got == 2);
    sim_heal_all(s);
    story_end(&s);
}

STORY(one_disk_breaks_and_one_is_full)
{
    (void)state;
    sim *s = replicas_new(1, 1030);
    sim_client *ann = story_person(s, "ann", "phone", "edge1");
    sim_client *bob = story_person(s, "bob", "phone", "edge1");
    char old[32];
    story_leader(s, 0, old);
    sim_disk_break_at(s, old);
    for (int i = 0; i < 5; i++) {
        story_acked(s, sim_send(ann, "bob", "on the other two"), 15000);
    }
    assert_false(sim_alive(s, old));
    sim_start(s, old);
    sim_run(s, 2000);
    story_leader(s, 0, old);
    sim_disk_fill_at(s, old);
    for (int i = 0; i < 5; i++) {
        story_acked(s, sim_send(ann, "bob", "again on two"), 15000);
    }
    sim_disk_free_at(s, old);
    WITHIN(s, 5000, bob->n_got == 10);
    story_end(&s);
}

STORY(all_lose_power_at_once)
{
    (void)state;
    for (uint64_t seed = 0; seed < 6; seed++) {
        sim *s = replicas_new(1, 1040 + seed);
        sim_client *ann = story_person(s, "ann", "phone", "edge1");
        sim_client *bob = story_person(s, "bob", "phone", "edge1");
        for (int i = 0; i < 30; i++) {
            sim_send(ann, "bob", "acked or not");
        }
        sim_run(s, 2 + 2 * (mesh_ms)seed);
        sim_kill(s, "store1");
        sim_kill(s, "store2");
        sim_kill(s, "store3");
        sim_run(s, 1000);
        sim_start(s, "store3");
        sim_start(s, "store1");
        WITHIN(s, 20000, bob->n_got == 30);
        sim_start(s, "store2");
        story_end(&s);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(acked_by_a_majority),        cmocka_unit_test(the_leader_dies),
        cmocka_unit_test(a_leader_that_nobody_hears), cmocka_unit_test(one_disk_breaks_and_one_is_full),
        cmocka_unit_test(all_lose_power_at_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
