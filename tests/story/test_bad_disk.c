/* Disks that flip bits, come back with old data, break and fill up: of three replicas the one with the bad disk goes
 * out, begins anew and has everything again, and nobody sees it. */
#include "store/core.h"
#include "store/metrics.h"
#include "story.h"

static sim *replicas_new(uint64_t seed)
{
    return sim_new((sim_conf){ .edges = 1, .routers = 1, .replicas = 3, .seed = seed });
}

static const char *leader_of(sim *s, char name[32])
{
    WITHIN(s, 10000, sim_leader(s, 0));
    snprintf(name, 32, "%s", sim_leader(s, 0));
    return name;
}

static const char *follower_of(sim *s, char name[32])
{
    char leader[32];
    leader_of(s, leader);
    snprintf(name, 32, "%s", strcmp(leader, "store3") == 0 ? "store2" : "store3");
    return name;
}

static void talk(sim *s, sim_client *from, const char *to, int n)
{
    for (int i = 0; i < n; i++) {
        story_acked(s, sim_send(from, to, "one of many"), 15000);
    }
}

/* While it runs: rows that are still queued are on no disk. */
static void flip(sim *s, const char *store)
{
    bool done = false;
    for (int i = 0; i < 100 && !done; i++) {
        done = sim_disk_flip_at(s, store, false);
        sim_run(s, 5);
    }
    assert_true(done);
}

/* It was put aside once more, and has all again. */
static void rebuilt(sim *s, const char *store, unsigned times)
{
    WITHIN(s, 20000, sim_disk_quarantines_at(s, store) == times && sim_disk_sound(s, store) == 3);
}

STORY(a_flipped_bit_found_at_start)
{
    (void)state;
    for (uint64_t seed = 0; seed < 4; seed++) {
        sim *s = replicas_new(1100 + seed);
        sim_client *ann = story_person(s, "ann", "phone", "edge1");
        sim_client *bob = story_person(s, "bob", "phone", "edge1");
        char store[32];
        talk(s, ann, "bob", 10);
        seed % 2 ? leader_of(s, store) : follower_of(s, store);
        sim_kill(s, store);
        assert_true(sim_disk_flip_at(s, store, true));
        talk(s, ann, "bob", 5);
        sim_start(s, store);
        rebuilt(s, store, 1);
        talk(s, ann, "bob", 5);
        WITHIN(s, 5000, bob->n_got == 20);
        sim_kill(s, store); /* what it has now is good */
        sim_start(s, store);
        sim_run(s, 3000);
        rebuilt(s, store, 1);
        story_end(&s);
    }
}

/* A page is whole, or it is no page: never less because of what cannot be read. */
static void read_all(sim *s, sim_client *c, const char *chat, unsigned n)
{
    for (int i = 0; i < 3; i++) {
        sim_op *op = sim_history(c, chat, 0, 0, false, 50);
        WITHIN(s, 15000, op->state != OP_WAITING);
        if (op->state == OP_DONE) {
            assert_int_equal(op->answer->page->n_messages, n);
        }
    }
}

STORY(a_flipped_bit_found_when_it_is_read)
{
    (void)state;
    unsigned found = 0;
    for (uint64_t seed = 0; seed < 12; seed++) {
        sim *s = replicas_new(1120 + seed);
        sim_client *ann = story_person(s, "ann", "phone", "edge1");
        sim_client *bob = story_person(s, "bob", "phone", "edge1");
        char store[32];
        const char *chat = story_acked(s, sim_send(ann, "bob", "the first"), 15000)->chat;
        talk(s, ann, "bob", 4);
        bool seen = false;
        for (unsigned flips = 0; flips < 6 && !seen; flips++) {
            leader_of(s, store);
            sim_kill(s, store); /* so that it has to read at all */
            sim_start(s, store);
            if (seed % 2) {
                leader_of(s, store);
            }
            flip(s, store);
            talk(s, ann, "bob", 1);
            read_all(s, bob, chat, 6 + flips);
            seen = sim_disk_quarantines_at(s, store) > 0;
            if (!seen) {
                sim_kill(s, store);
                sim_start(s, store);
                sim_run(s, 1000);
                seen = sim_disk_quarantines_at(s, store) > 0;
            }
            if (!seen) { /* nobody has read it */
                sim_kill(s, store);
                sim_disk_wipe_at(s, store);
                sim_start(s, store);
            }
            WITHIN(s, 20000, sim_disk_sound(s, store) == 3 && sim_replicas_even(s, store)); /* never two at a time */
        }
        found += seen;
        story_end(&s);
    }
    assert_true(found > 0);
}

STORY(an_old_copy_of_a_member)
{
    (void)state;
    for (uint64_t seed = 0; seed < 6; seed++) {
        sim *s = replicas_new(1150 + seed);
        sim_client *ann = story_person(s, "ann", "phone", "edge1");
        sim_client *bob = story_person(s, "bob", "phone", "edge1");
        char store[32];
        talk(s, ann, "bob", 3);
        follower_of(s, store);
        sim_disk_keep_at(s, store);
        talk(s, ann, "bob", 3 + 5 * (int)seed);
        sim_run(s, 500);
        sim_kill(s, store);
        assert_true(sim_disk_stale_at(s, store));
        sim_start(s, store);
        rebuilt(s, store, 1);
        WITHIN(s, 5000, bob->n_got == 6 + 5 * seed);
        story_end(&s);
    }
}

STORY(an_old_copy_of_one_that_was_replaced)
{
    (void)state;
    sim *s = replicas_new(1160);
    sim_client *ann = story_person(s, "ann", "phone", "edge1");
    char store[32];
    talk(s, ann, "bob", 3);
    follower_of(s, store);
    sim_disk_keep_at(s, store);
    sim_kill(s, store);
    assert_true(sim_disk_flip_at(s, store, true));
    sim_start(s, store);
    rebuilt(s, store, 1);
    talk(s, ann, "bob", 3);
    sim_run(s, 1000);
    sim_kill(s, store);
    assert_true(sim_disk_stale_at(s, store)); /* under the id that was taken out */
    sim_start(s, store);
    rebuilt(s, store, 2);
    talk(s, ann, "bob", 3);
    story_end(&s);
}

/* Restarts and changes of leaders, with what was not synced lost each time, are no reason to put anything aside. */
STORY(nobody_is_called_stale_for_nothing)
{
    (void)state;
    for (uint64_t seed = 0; seed < 8; seed++) {
        sim *s = replicas_new(1170 + seed);
        sim_client *ann = story_person(s, "ann", "phone", "edge1");
        for (unsigned round = 0; round < 10; round++) {
            char store[32];
            snprintf(store, sizeof store, "store%u", 1 + (unsigned)sim_random(s, 3));
            for (int i = 0; i < 10; i++) {
                sim_send(ann, "bob", "on its way when one dies");
            }
            sim_run(s, (mesh_ms)sim_random(s, 12));
            sim_kill(s, store);
            sim_run(s, (mesh_ms)sim_random(s, 900));
            sim_start(s, store);
            sim_run(s, (mesh_ms)sim_random(s, 500));
        }
        for (unsigned i = 1; i <= 3; i++) {
            char store[32];
            snprintf(store, sizeof store, "store%u", i);
            assert_int_equal(sim_disk_quarantines_at(s, store), 0);
        }
        story_end(&s);
    }
}

STORY(all_are_lost_and_nobody_begins_anew)
{
    (void)state;
    for (unsigned wiped = 0; wiped < 2; wiped++) {
        sim *s = replicas_new(1180 + wiped);
        sim_client *ann = story_person(s, "ann", "phone", "edge1");
        talk(s, ann, "bob", 3);
        for (unsigned i = 1; i <= 3; i++) {
            char store[32];
            snprintf(store, sizeof store, "store%u", i);
            sim_kill(s, store);
            if (i <= wiped) { /* the first of the config, which would found */
                sim_disk_wipe_at(s, store);
            } else {
                assert_true(sim_disk_flip_at(s, store, true));
            }
        }
        sim_start(s, "store1");
        sim_start(s, "store2");
        sim_start(s, "store3");
        sim_op *op = sim_send(ann, "bob", "to nobody");
        sim_run(s, 20000);
        assert_null(sim_leader(s, 0));
        assert_int_equal(op->state, OP_WAITING);
        sim_kill(s, "store1");
        sim_start(s, "store1"); /* it still knows */
        sim_run(s, 20000);
        assert_null(sim_leader(s, 0));
        assert_int_equal(sim_disk_sound(s, "store1"), wiped);
        sim_destroy(&s);
    }
}

STORY(a_write_fails_at_the_leader)
{
    (void)state;
    for (uint64_t seed = 0; seed < 8; seed++) {
        sim *s = replicas_new(1190 + seed);
        sim_client *ann = story_person(s, "ann", "phone", "edge1");
        sim_client *bob = story_person(s, "bob", "phone", "edge1");
        char old[32];
        leader_of(s, old);
        for (int i = 0; i < 20; i++) {
            sim_send(ann, "bob", "some are acked, some are on their way");
        }
        sim_run(s, (mesh_ms)seed);
        sim_disk_break_at(s, old);
        WITHIN(s, 5000, !sim_alive(s, old));
        WITHIN(s, 5000, sim_leader(s, 0));
        WITHIN(s, 20000, bob->n_got == 20);
        sim_start(s, old);
        story_end(&s);
    }
}

STORY(no_space_at_one)
{
    (void)state;
    for (uint64_t seed = 0; seed < 4; seed++) {
        sim *s = replicas_new(1200 + seed);
        sim_client *ann = story_person(s, "ann", "phone", "edge1");
        sim_client *bob = story_person(s, "bob", "phone", "edge1");
        char full[32], now[32];
        talk(s, ann, "bob", 3);
        seed % 2 ? leader_of(s, full) : follower_of(s, full);
        sim_disk_fill_at(s, full);
        talk(s, ann, "bob", 10);
        WITHIN(s, 5000, !sim_store_at(s, full)); /* closed, and waits */
        assert_string_not_equal(leader_of(s, now), full);
        sim_disk_free_at(s, full);
        WITHIN(s, 10000, sim_store_at(s, full));
        WITHIN(s, 5000, bob->n_got == 13);
        assert_int_equal(sim_disk_quarantines_at(s, full), 0);
        story_end(&s);
    }
}

/* How often somebody of shard 0 became the leader since these processes began. */
static uint64_t reigns(sim *s)
{
    uint64_t n = 0;
    for (unsigned i = 1; i <= sim_stores(s); i++) {
        char name[32];
        snprintf(name, sizeof name, "store%u", i);
        store_core *core = sim_store_at(s, name);
        n += core != NULL ? mesh_stats_get(store_core_stats(core), STORE_M_REIGNS) : 0;
    }
    return n;
}

STORY(the_leader_is_short_of_space)
{
    (void)state;
    for (uint64_t seed = 0; seed < 4; seed++) {
        sim *s = replicas_new(1210 + seed);
        sim_client *ann = story_person(s, "ann", "phone", "edge1");
        char leader[32], follower[32], now[32];
        talk(s, ann, "bob", 1);
        leader_of(s, leader);
        follower_of(s, follower);
        sim_space_at(s, follower, false);
        sim_run(s, 100); /* the leader hears of it */
        sim_space_at(s, leader, false);
        story_acked(s, sim_send(ann, "bob", "somebody else has room"), 8000);
        leader_of(s, now);
        assert_string_not_equal(now, leader);
        assert_string_not_equal(now, follower);
        sim_run(s, 3 * STORE_SPACE_HANDOVER_MS);
        assert_string_equal(sim_leader(s, 0), now);
        sim_space(s, true);
        story_end(&s);
    }
}

STORY(a_replica_with_space_is_down)
{
    (void)state;
    sim *s = replicas_new(1220);
    sim_client *ann = story_person(s, "ann", "phone", "edge1");
    char leader[32], dead[32];
    talk(s, ann, "bob", 1);
    leader_of(s, leader);
    follower_of(s, dead);
    sim_kill(s, dead);
    for (unsigned i = 1; i <= 3; i++) {
        char name[32];
        snprintf(name, sizeof name, "store%u", i);
        if (strcmp(name, dead) != 0) {
            sim_space_at(s, name, false);
        }
    }
    sim_run(s, 1000); /* one may pass it on before it hears that the other is short, too */
    leader_of(s, leader);
    uint64_t before = reigns(s);
    sim_op *send = sim_send(ann, "bob", "no room");
    sim_run(s, 3 * STORE_SPACE_HANDOVER_MS);
    assert_string_equal(sim_leader(s, 0), leader);
    assert_int_equal(reigns(s), before);
    sim_start(s, dead); /* it has room, catches up, and is asked next */
    story_acked(s, send, 3 * STORE_SPACE_HANDOVER_MS);
    assert_string_equal(sim_leader(s, 0), dead);
    sim_space(s, true);
    story_end(&s);
}

STORY(all_replicas_are_short_of_space)
{
    (void)state;
    sim *s = replicas_new(1230);
    sim_client *ann = story_person(s, "ann", "phone", "edge1");
    char leader[32], follower[32];
    const char *chat = story_acked(s, sim_send(ann, "bob", "before"), 5000)->chat;
    sim_space(s, false);
    sim_run(s, 1000); /* one may pass it on before it hears that the others are short, too */
    leader_of(s, leader);
    uint64_t before = reigns(s);
    sim_op *send = sim_send(ann, "bob", "no room");
    sim_run(s, 3 * STORE_SPACE_HANDOVER_MS);
    assert_int_equal(send->state, OP_WAITING);
    assert_int_equal(send->code, FAULT_DISK_FULL);
    assert_string_equal(sim_leader(s, 0), leader);
    assert_int_equal(reigns(s), before); /* nobody passes it on */
    sim_op *history = sim_history(ann, chat, 0, 0, false, 10);
    WITHIN(s, 1000, history->state == OP_DONE);
    follower_of(s, follower);
    sim_space_at(s, follower, true);
    assert_int_equal(story_acked(s, send, 3 * STORE_SPACE_HANDOVER_MS)->seq, 2);
    assert_string_equal(sim_leader(s, 0), follower);
    sim_space(s, true);
    story_end(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_flipped_bit_found_at_start),
        cmocka_unit_test(a_flipped_bit_found_when_it_is_read),
        cmocka_unit_test(an_old_copy_of_a_member),
        cmocka_unit_test(an_old_copy_of_one_that_was_replaced),
        cmocka_unit_test(nobody_is_called_stale_for_nothing),
        cmocka_unit_test(all_are_lost_and_nobody_begins_anew),
        cmocka_unit_test(a_write_fails_at_the_leader),
        cmocka_unit_test(no_space_at_one),
        cmocka_unit_test(the_leader_is_short_of_space),
        cmocka_unit_test(a_replica_with_space_is_down),
        cmocka_unit_test(all_replicas_are_short_of_space),
    };
    return cmocka_run_group_tests_name("story bad disk", tests, NULL, NULL);
}
