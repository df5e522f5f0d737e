/* A replica gets a copy of its shard's rows while the shard is written to: one copy is enough. */
#include "story.h"

#include <limits.h>

#include "store/fetch.h"
#include "store/hold.h"
#include "store/transfer.h"

#define BIG 12000   /* bytes of a text that is there before */
#define BIGS 150    /* 1.8 MB of rows in the chat alone: about two seconds at 1 MiB/s */
#define SMALL 1500  /* bytes of one that comes meanwhile */
#define EVERY_MS 20 /* how often: some trails of 16 KiB while the copy is under way */

static void follower_of(sim *s, unsigned nth, char name[32])
{
    char leader[32];
    story_leader(s, 0, leader);
    for (unsigned i = 1; i <= sim_stores(s); i++) {
        snprintf(name, 32, "store%u", i);
        if (strcmp(name, leader) != 0 && nth-- == 0) {
            return;
        }
    }
    fail_msg("no such follower");
}

static const char *text_of(size_t size)
{
    static char text[BIG + 1];
    memset(text, 'x', size);
    text[size] = '\0';
    return text;
}

/* Stores with a short log, and one of them so far behind that it needs a copy. */
static sim *one_is_behind(sim_conf conf, char behind[32], sim_client **ann_p)
{
    uint64_t seed = conf.seed;
    conf.edges = 1;
    conf.routers = 1;
    conf.replicas = conf.replicas ? conf.replicas : 3;
    conf.log_trail_kib = 16;
    conf.copy_mib_s = 1;
    sim *s = sim_new(conf);
    sim_client *ann = story_person(s, "ann", "phone", "edge1");
    follower_of(s, seed % 2, behind);
    sim_kill(s, behind);
    for (int i = 0; i < BIGS; i++) {
        story_acked(s, sim_send(ann, "bob", text_of(BIG)), 5000);
    }
    *ann_p = ann;
    return s;
}

static bool is_level(sim *s, const char *store)
{
    char leader[32];
    story_leader(s, 0, leader);
    return story_store_metric(s, store, "parley_store_applied_index") + 20 >
           story_store_metric(s, leader, "parley_store_applied_index");
}

/* Writes go on for so long, and until the replica is level. */
static void write_on(sim *s, sim_client *ann, const char *behind, mesh_ms at_least, mesh_ms at_most)
{
    mesh_ms begun = sim_now(s);
    while (sim_now(s) - begun < at_least || !is_level(s, behind)) {
        sim_send(ann, "bob", text_of(SMALL));
        sim_run(s, EVERY_MS);
        if (sim_now(s) - begun > at_most) {
            fail_msg("%s is not level after %u copies", behind, sim_switches_at(s, behind));
        }
    }
}

/* Writes go on until so many bytes of the copy are there. */
static void write_until_copied(sim *s, sim_client *ann, const char *behind, unsigned long long bytes)
{
    mesh_ms begun = sim_now(s);
    while (story_store_metric(s, behind, "parley_store_copy_bytes") < bytes) {
        sim_send(ann, "bob", text_of(SMALL));
        sim_run(s, EVERY_MS);
        assert_true(sim_now(s) - begun < 20000);
    }
}

/* Of all stores but the one that gets the copy. */
static unsigned long long sum(sim *s, const char *but, const char *name)
{
    unsigned long long all = 0;
    for (unsigned i = 1; i <= sim_stores(s); i++) {
        char store[32];
        snprintf(store, sizeof store, "store%u", i);
        all += strcmp(store, but) != 0 ? story_store_metric(s, store, name) : 0;
    }
    return all;
}

/* The receiver knows of one that gives, and that one loses its disk. Without the copy there is no majority. */
STORY(one_that_comes_up_later_gives_too)
{
    (void)state;
    char behind[32], leader[32], other[32];
    sim_client *ann;
    sim *s = one_is_behind((sim_conf){ .seed = 2100 }, behind, &ann);
    story_leader(s, 0, leader);
    for (unsigned i = 0; i < 2; i++) {
        char name[32];
        follower_of(s, i, name);
        if (strcmp(name, behind) != 0) {
            snprintf(other, sizeof other, "%s", name);
        }
    }
    sim_cut(s, other, behind);
    sim_start(s, behind);
    write_until_copied(s, ann, behind, 200000);
    sim_kill(s, leader);
    sim_disk_wipe_at(s, leader);
    sim_start(s, leader);
    sim_heal(s, other, behind);
    WITHIN(s, 30000, sim_leader(s, 0) && is_level(s, behind));
    story_acked(s, sim_send(ann, "bob", "after all"), 10000);
    story_end(&s);
}

STORY(one_copy_is_enough_under_load)
{
    (void)state;
    for (uint64_t seed = 2000; seed < 2002; seed++) {
        char behind[32];
        sim_client *ann;
        sim *s = one_is_behind((sim_conf){ .seed = seed }, behind, &ann);
        sim_start(s, behind);
        write_until_copied(s, ann, behind, 1000000);
        assert_true(story_store_metric(s, behind, "parley_store_copy_index") > 0);
        assert_int_equal(sum(s, behind, "parley_store_copy_sessions_total"), 1);
        assert_true(sum(s, behind, "parley_store_copy_given_bytes_total") >= 1000000);
        write_on(s, ann, behind, 6000, 20000);
        assert_int_equal(sim_switches_at(s, behind), 1);
        sim_run(s, STORE_TRANSFER_GRACE_MS); /* whoever gave it holds a while without being told */
        assert_int_equal(sum(s, behind, "parley_store_log_held_bytes"), 0);
        assert_int_equal(sum(s, behind, "parley_store_log_holds_dropped_total"), 0);
        story_end(&s);
    }
}

/* The copy is in its place, but for a while the replica hears nothing more of the leader. */
static void keep_in_the_dark(sim *s, sim_client *ann, const char *behind, mesh_ms ms)
{
    mesh_ms begun = sim_now(s);
    while (sim_switches_at(s, behind) == 0) {
        sim_send(ann, "bob", text_of(SMALL));
        sim_run(s, 2);
        assert_true(sim_now(s) - begun < 20000);
    }
    sim_lose(s, behind, NULL, MESH__MSG__BODY_RAFT, UINT_MAX);
    for (begun = sim_now(s); sim_now(s) - begun < ms;) {
        sim_send(ann, "bob", text_of(SMALL));
        sim_run(s, 5 * EVERY_MS);
    }
    assert_true(story_store_metric(s, behind, "parley_store_applied_index") > 0);
    assert_false(is_level(s, behind));
    sim_lose_none(s);
}

STORY(the_log_is_kept_until_it_follows)
{
    (void)state;
    for (uint64_t seed = 2070; seed < 2072; seed++) {
        char behind[32];
        sim_client *ann;
        sim *s = one_is_behind((sim_conf){ .seed = seed }, behind, &ann);
        sim_start(s, behind);
        write_until_copied(s, ann, behind, 1000000);
        keep_in_the_dark(s, ann, behind, 3000);
        write_on(s, ann, behind, 2000, 20000);
        assert_int_equal(sim_switches_at(s, behind), 1);
        story_end(&s);
    }
}

/* Its disk is new, so it comes under another id, and is in no configuration that is as old as the copy. */
STORY(a_new_replica_needs_one_copy)
{
    (void)state;
    for (uint64_t seed = 2060; seed < 2061; seed++) {
        char behind[32];
        sim_client *ann;
        sim *s = one_is_behind((sim_conf){ .seed = seed }, behind, &ann);
        sim_disk_wipe_at(s, behind);
        sim_start(s, behind);
        write_until_copied(s, ann, behind, 1000000);
        keep_in_the_dark(s, ann, behind, STORE_TRANSFER_GRACE_MS + 2000);
        write_on(s, ann, behind, 1000, 30000);
        assert_int_equal(sim_switches_at(s, behind), 1);
        WITHIN(s, 10000, story_store_metric(s, behind, "parley_store_votes") == 1);
        story_end(&s);
    }
}

/* So long that what was said at the beginning counts no more. */
STORY(one_long_copy_is_enough)
{
    (void)state;
    char behind[32];
    sim_client *ann;
    sim *s = one_is_behind((sim_conf){ .seed = 2010 }, behind, &ann);
    sim_start(s, behind);
    mesh_ms begun = sim_now(s);
    for (unsigned i = 1; i <= 6; i++) {
        write_until_copied(s, ann, behind, i * 270000);
        sim_lose(s, behind, NULL, MESH__MSG__BODY_STATE_CHUNK, STORE_FETCH_TRIES - 1);
    }
    write_on(s, ann, behind, 1000, 60000);
    assert_true(sim_now(s) - begun > STORE_TRANSFER_GRACE_MS + 10000);
    assert_int_equal(sim_switches_at(s, behind), 1);
    story_end(&s);
}

/* Whoever leads next has the log, too. */
STORY(the_leader_dies_while_a_copy_is_made)
{
    (void)state;
    for (uint64_t seed = 2020; seed < 2022; seed++) {
        char behind[32], old[32];
        sim_client *ann;
        sim *s = one_is_behind((sim_conf){ .seed = seed, .replicas = 5 }, behind, &ann);
        sim_start(s, behind);
        write_until_copied(s, ann, behind, 700000);
        story_leader(s, 0, old);
        sim_kill(s, old);
        write_on(s, ann, behind, 8000, 40000);
        assert_int_equal(sim_switches_at(s, behind), 1);
        sim_start(s, old);
        story_end(&s);
    }
}

STORY(the_receiver_is_started_again)
{
    (void)state;
    for (uint64_t seed = 2030; seed < 2032; seed++) {
        char behind[32];
        sim_client *ann;
        sim *s = one_is_behind((sim_conf){ .seed = seed }, behind, &ann);
        sim_start(s, behind);
        write_until_copied(s, ann, behind, 700000);
        sim_kill(s, behind);
        write_on(s, ann, "store1", 1000, 5000); /* more than the trail */
        sim_start(s, behind);
        write_on(s, ann, behind, 4000, 20000);
        assert_int_equal(sim_switches_at(s, behind), 1);
        story_end(&s);
    }
}

/* Log is not kept where there is no room for it. The receiver begins again, when there is. */
STORY(too_little_space_for_the_log)
{
    (void)state;
    char behind[32];
    sim_client *ann;
    sim *s = one_is_behind((sim_conf){ .seed = 2040 }, behind, &ann);
    sim_start(s, behind);
    write_until_copied(s, ann, behind, 700000);
    sim_run(s, 500);
    for (unsigned i = 1; i <= 3; i++) {
        char store[32];
        snprintf(store, sizeof store, "store%u", i);
        if (strcmp(store, behind) != 0) {
            assert_true(story_store_metric(s, store, "parley_store_log_held_bytes") > 32768);
            sim_space_at(s, store, false);
        }
    }
    sim_run(s, 200);
    assert_int_equal(sum(s, behind, "parley_store_log_held_bytes"), 0);
    assert_int_equal(sum(s, behind, "parley_store_log_holds_dropped_total"), 2);
    sim_space(s, true);
    write_on(s, ann, behind, 8000, 40000);
    assert_int_equal(sim_switches_at(s, behind), 2);
    assert_int_equal(sum(s, behind, "parley_store_log_holds_dropped_total"), 2);
    story_end(&s);
}

STORY(too_much_log)
{
    (void)state;
    char behind[32];
    sim_client *ann;
    sim *s = one_is_behind((sim_conf){ .seed = 2050, .log_hold_mib = 1 }, behind, &ann);
    sim_start(s, behind);
    write_until_copied(s, ann, behind, 300000);
    assert_true(sum(s, behind, "parley_store_log_held_bytes") > 0);
    for (int i = 0; i < 100; i++) {
        sim_send(ann, "bob", text_of(BIG));
        sim_run(s, 10);
    }
    assert_int_equal(sum(s, behind, "parley_store_log_holds_dropped_total"), 2);
    write_on(s, ann, behind, 8000, 40000);
    assert_int_equal(sim_switches_at(s, behind), 2);
    story_end(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_copy_is_enough_under_load),        cmocka_unit_test(the_log_is_kept_until_it_follows),
        cmocka_unit_test(a_new_replica_needs_one_copy),         cmocka_unit_test(one_long_copy_is_enough),
        cmocka_unit_test(the_leader_dies_while_a_copy_is_made), cmocka_unit_test(the_receiver_is_started_again),
        cmocka_unit_test(too_little_space_for_the_log),         cmocka_unit_test(too_much_log),
        cmocka_unit_test(one_that_comes_up_later_gives_too),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
