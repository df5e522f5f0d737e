/* The same as test_store_outbox_aside.c while users change router and shard. */
#include "store/core_state.h"
#include "store/outbox_state.h"
#include "tests/unit/outbox_rig.h"

/* Router2 takes everything and says nothing, but renews its lease: users that are router1's do not notice. When its
 * lease ends, what it was owed goes by router1. */
static void a_silent_router_hurts_only_its_users(void **state)
{
    (void)state;
    post *p = post_new(true);
    rig *r = p->r;
    p->by_router[RIG_R2] = SILENT;
    for (unsigned i = 0; i < 6000; i++) {
        say(p, i % 2 != 0, i / 2 % USERS);
        if (i % 40 == 39) {
            step(p);
        }
    }
    uint64_t aside = metric(p, STORE_M_OUTBOX_ASIDE);
    assert_in_range(aside, 1000, 5000);
    assert_int_equal(p->confirmed[0] + p->confirmed[1] + metric(p, STORE_M_OUTBOX_ITEMS), 6000);
    unsigned before = p->sent[0] + p->sent[1];
    p->two = false;
    store_core_down(r->core, RIG_R2, r->now, r->out);
    pass(p, STORE_LEASE_MS - STEP_MS);
    assert_true(metric(p, STORE_M_OUTBOX_ASIDE) >= aside);
    pass(p, 2000);
    assert_in_range(p->sent[0] + p->sent[1] - before, aside, aside + aside / 10);
    assert_all_there(p);
    post_destroy(p);
}

/* The same with users who move from router to router while their shard is dead. */
static void the_ring_changes_while_a_shard_is_dead(void **state)
{
    (void)state;
    post *p = post_new(true);
    rig *r = p->r;
    p->by_shard[1] = REFUSES;
    for (unsigned i = 0; i < 4000; i++) {
        say(p, true, i % USERS);
        say(p, false, i % USERS);
        if (i % 20 == 19) {
            step(p);
        }
        if (i % 1000 == 400) { /* leaves at once; and comes again */
            p->two = false;
            rig_lease(r, RIG_R2, 22, true);
            store_core_down(r->core, RIG_R2, r->now, r->out);
        } else if (i % 1000 == 800) {
            p->two = true;
            store_core_up(r->core, RIG_R2, 22, r->now, r->out);
            rig_lease(r, RIG_R2, 22, false);
        }
    }
    pass(p, 2000);
    assert_int_equal(p->confirmed[0], 4000);
    assert_true(metric(p, STORE_M_OUTBOX_ASIDE) > 3000);
    unsigned before = p->sent[1];
    p->by_shard[1] = WORKS;
    pass(p, 15000);
    assert_in_range(p->sent[1] - before, 4000, 2 * 4000);
    assert_all_there(p);
    post_destroy(p);
}

static void router2_leaves(post *p)
{
    p->two = false;
    rig_lease(p->r, RIG_R2, 22, true);
    store_core_down(p->r->core, RIG_R2, p->r->now, p->r->out);
    rig_run(p->r);
}

static unsigned user_of_router2(post *p)
{
    for (unsigned i = 0; i < USERS; i++) {
        if (slot_of(p->r, p->there[i]) == p->by_two) {
            return i;
        }
    }
    fail_msg("router2 has nobody");
    return 0;
}

/* A user of shard 1 is stored by shard 0 from now on. */
static void move(post *p, unsigned who)
{
    Mesh__MapSet set = MESH__MAP_SET__INIT;
    p->moved = slot_of(p->r, p->there[who]);
    set.slot = p->moved;
    set.move = 1;
    MESH_MSG(msg, MAP_SET, map_set, &set);
    ASSERT_KIND(rig_ask(p->r, &msg), DONE);
}

/* Somebody of the dead shard is stored by another one from now on. What is owed to him is aside in the lane of his
 * router, and in nobody's, since he had another router before. */
static void a_slot_changes_shard_while_its_own_is_dead(void **state)
{
    (void)state;
    post *p = post_new(true);
    p->by_shard[1] = SILENT;
    say_there(p, 2000);
    unsigned who = user_of_router2(p);
    router2_leaves(p);
    say_there(p, 400);
    assert_true(metric(p, STORE_M_OUTBOX_ASIDE) > 2300);
    move(p, who);
    assert_in_range(follow(p), 2, 20); /* all that may be his is looked at, a part in each turn */
    work(p);
    assert_int_equal(p->confirmed[0], p->said[USERS + who]);
    assert_whole(p, p->there[who], p->said[USERS + who]);
    pass(p, 3000);
    assert_int_equal(metric(p, STORE_M_OUTBOX_ITEMS), 2400 - p->said[USERS + who]);
    assert_in_range(metric(p, STORE_M_OUTBOX_WINDOW), 1, STORE_OUTBOX_PROBES);
    p->by_shard[1] = WORKS;
    pass(p, 12000);
    assert_all_there(p);
    post_destroy(p);
}

/* To some of shard 1, n notes, 20 in each step. */
static void say_to(post *p, const unsigned *users, size_t n_users, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        say(p, true, users[i % n_users]);
        if (i % 20 == 19) {
            step(p);
        }
    }
}

/* What is aside in nobody's lane is not touched while no router gets through to the shard; then it joins what its
 * users are owed in the lane of the router that they have now, in its place, so that no entry finds a gap. */
static void what_a_user_was_owed_first_comes_first(void **state)
{
    (void)state;
    unsigned users[USERS];
    size_t n = 0;
    post *p = post_new(true);
    p->by_shard[1] = SILENT;
    for (unsigned i = 0; i < USERS; i++) {
        say(p, true, i);
        work(p);
        if (p->by_two == slot_of(p->r, p->there[i])) {
            users[n++] = i;
        }
    }
    assert_in_range(n, 1, USERS - 1);
    say_to(p, users, n, 3000);
    router2_leaves(p);
    assert_int_equal(follow(p), 0);
    say_to(p, users, n, 2000);
    assert_true(metric(p, STORE_M_OUTBOX_ASIDE) > 4900);
    unsigned before = p->sent[1];
    p->by_shard[1] = WORKS;
    pass(p, 12000);
    assert_int_equal(metric(p, STORE_M_APPEND_GAPS), 0);
    assert_in_range(p->sent[1] - before, 5000, 5000 + USERS + 2 * STORE_OUTBOX_PROBES);
    assert_all_there(p);
    post_destroy(p);
}

/* It was aside for the users of each router, and comes back for all of them at once. */
static void an_entry_that_was_aside_twice_comes_back_once(void **state)
{
    (void)state;
    const unsigned n = 300;
    post *p = post_new(true);
    rig *r = p->r;
    char members[200] = "";
    for (unsigned i = 0; i < USERS; i++) {
        snprintf(members + strlen(members), sizeof members - strlen(members), "%s ", p->there[i]);
    }
    p->by_shard[1] = SILENT;
    rig_create(r, p->here[0], "g1", "c", members, MESH__HISTORY_RULE__HISTORY_ALL);
    work(p);
    unsigned who = user_of_router2(p);
    for (unsigned i = 1; i < n; i++) {
        rig_post_text(r, p->here[0], "g1", "hi");
        step(p);
    }
    assert_int_equal(p->confirmed[0], n);
    assert_true(metric(p, STORE_M_OUTBOX_ASIDE) > 2 * (n - 2 * STORE_OUTBOX_PROBES));
    assert_in_range(store_outbox_items(r->core->outbox), n - 2 * STORE_OUTBOX_PROBES, n + 2 * STORE_OUTBOX_PROBES);
    router2_leaves(p);
    work(p);
    move(p, who);
    pass(p, 3000);
    assert_in_range(p->sent[0] - n, n, n + 2 * STORE_OUTBOX_PROBES);
    p->by_shard[1] = WORKS;
    pass(p, 9000);
    assert_int_equal(metric(p, STORE_M_OUTBOX_ITEMS), 0);
    for (unsigned i = 0; i < USERS; i++) {
        assert_whole(p, p->there[i], n);
    }
    post_destroy(p);
}

/* What is in nobody's lane comes back by a router that then says nothing. */
static void what_comes_back_is_bounded(void **state)
{
    (void)state;
    post *p = post_new(true);
    uint64_t most = 0;
    p->by_router[RIG_R2] = SILENT;
    say_there(p, 6000);
    assert_true(metric(p, STORE_M_OUTBOX_ASIDE) > STORE_OUTBOX_BACK_MAX + 200);
    p->by_router[RIG_R1] = SILENT;
    router2_leaves(p);
    for (mesh_ms end = p->r->now.mono + STORE_OUTBOX_SICK_MS - 2 * STEP_MS; p->r->now.mono < end;) {
        step(p);
        uint64_t window = metric(p, STORE_M_OUTBOX_WINDOW);
        most = window > most ? window : most;
    }
    assert_in_range(most, STORE_OUTBOX_BACK_MAX, STORE_OUTBOX_BACK_MAX + STORE_OUTBOX_PROBES);
    p->by_router[RIG_R1] = WORKS;
    pass(p, 12000);
    assert_all_there(p);
    post_destroy(p);
}

/* Its router left the ring for a moment: what it was owed is in nobody's lane, and comes back by it. */
static void a_lane_with_nothing_in_it_is_well(void **state)
{
    (void)state;
    post *p = post_new(false);
    p->by_router[RIG_R1] = SILENT;
    say_there(p, 200);
    pass(p, 2000);
    assert_true(metric(p, STORE_M_OUTBOX_ASIDE) > 190);
    rig_lease(p->r, RIG_R1, 11, true);
    rig_run(p->r);
    p->by_router[RIG_R1] = WORKS;
    pass(p, 2000);
    assert_all_there(p);
    post_destroy(p);
}

/* One of its two probes goes to another shard. */
static void a_lane_with_a_probe_stays_sick(void **state)
{
    (void)state;
    post *p = post_new(false);
    p->by_shard[1] = SILENT;
    say(p, true, 0);
    say(p, true, 1);
    pass(p, 2000);
    assert_int_equal(metric(p, STORE_M_OUTBOX_WINDOW), 2);
    move(p, 0);
    work(p);
    assert_int_equal(p->confirmed[0], 1);
    assert_int_equal(metric(p, STORE_M_OUTBOX_WINDOW), 1);
    for (unsigned i = 0; i < 100; i++) {
        say(p, true, 1 + i % (USERS - 1));
    }
    work(p);
    assert_int_equal(metric(p, STORE_M_OUTBOX_WINDOW), STORE_OUTBOX_PROBES);
    p->by_shard[1] = WORKS;
    pass(p, 9000);
    assert_all_there(p);
    post_destroy(p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_silent_router_hurts_only_its_users),
        cmocka_unit_test(the_ring_changes_while_a_shard_is_dead),
        cmocka_unit_test(a_slot_changes_shard_while_its_own_is_dead),
        cmocka_unit_test(what_a_user_was_owed_first_comes_first),
        cmocka_unit_test(an_entry_that_was_aside_twice_comes_back_once),
        cmocka_unit_test(what_comes_back_is_bounded),
        cmocka_unit_test(a_lane_with_nothing_in_it_is_well),
        cmocka_unit_test(a_lane_with_a_probe_stays_sick),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
