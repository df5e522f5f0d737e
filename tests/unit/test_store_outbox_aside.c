/* A router or a shard that confirms nothing: what it is owed is put aside, everybody else's goes on, and when it is
 * back everything comes, in order and once. */
#include "store/core_state.h"
#include "store/outbox_state.h"
#include "tests/unit/outbox_rig.h"

/* Shard 1 confirms nothing while more than two windows are owed to it; users of shard 0 do not notice. */
static void hurt_only_itself(manner m)
{
    post *p = post_new(false);
    const unsigned n = 2 * STORE_OUTBOX_WINDOW + 500;
    unsigned here = 0;
    p->by_shard[1] = m;
    for (unsigned said = 0; said < n; said += 40) {
        for (unsigned i = 0; i < 40; i++) {
            say(p, true, i % USERS);
            say(p, false, i % USERS);
        }
        here += 40;
        step(p);
        assert_int_equal(p->confirmed[0], here); /* all of them, in the very step */
    }
    assert_true(metric(p, STORE_M_OUTBOX_ASIDE) > 2 * STORE_OUTBOX_WINDOW);
    assert_in_range(metric(p, STORE_M_OUTBOX_WINDOW), 1, STORE_OUTBOX_PROBES);
    assert_true(metric(p, STORE_M_OUTBOX_ASIDE_AGE_MS) > 8000);
    assert_int_equal(p->confirmed[1], 0);
    unsigned while_sick = p->sent[1];
    assert_in_range(while_sick, 1200, m == SILENT ? 3000 : 8000); /* nearly all before it was found to be sick */
    pass(p, 60000);
    assert_in_range(p->sent[1] - while_sick, 20, 50); /* probes, every 8 s */
    while_sick = p->sent[1];
    p->by_shard[1] = WORKS;
    pass(p, 12000);
    assert_in_range(p->sent[1] - while_sick, n, n + n / 10);
    assert_all_there(p);
    post_destroy(p);
}

static void a_silent_shard_hurts_only_itself(void **state)
{
    (void)state;
    hurt_only_itself(SILENT);
}

static void a_refusing_shard_hurts_only_itself(void **state)
{
    (void)state;
    hurt_only_itself(REFUSES);
}

/* So many at once that the window is full before the shard can be known to be sick. */
static void a_full_window_is_a_reason_to_look_sooner(void **state)
{
    (void)state;
    post *p = post_new(false);
    p->by_shard[1] = SILENT;
    for (unsigned i = 0; i < STORE_OUTBOX_WINDOW + 100; i++) {
        say(p, true, i % USERS);
        if (i % 100 == 99) {
            rig_run(p->r);
        }
    }
    say(p, false, 0);
    work(p);
    assert_int_equal(p->confirmed[0], 0);
    assert_int_equal(metric(p, STORE_M_OUTBOX_WINDOW), STORE_OUTBOX_WINDOW);
    assert_in_range(p->r->next, p->r->now.mono, p->r->now.mono + STORE_OUTBOX_SICK_FULL_MS);
    pass(p, STORE_OUTBOX_SICK_FULL_MS);
    assert_int_equal(p->confirmed[0], 1);
    p->by_shard[1] = WORKS;
    pass(p, 10000);
    assert_all_there(p);
    post_destroy(p);
}

/* Its members of shard 0 are served by the parcel that is theirs; the other one is put aside alone. */
static void a_group_is_served_in_part(void **state)
{
    (void)state;
    post *p = post_new(false);
    rig *r = p->r;
    char members[200] = "";
    for (unsigned i = 0; i < USERS; i++) {
        snprintf(members + strlen(members), sizeof members - strlen(members), "%s %s ", p->here[i], p->there[i]);
    }
    p->by_shard[1] = REFUSES;
    rig_create(r, p->here[0], "g1", "c", members, MESH__HISTORY_RULE__HISTORY_ALL);
    work(p);
    for (unsigned i = 1; i < 200; i++) {
        rig_post_text(r, p->here[i % USERS], "g1", "hi");
        step(p);
        assert_int_equal(p->confirmed[0], i + 1);
    }
    assert_int_equal(metric(p, STORE_M_OUTBOX_WINDOW), STORE_OUTBOX_PROBES);
    assert_int_equal(metric(p, STORE_M_OUTBOX_ITEMS), 200);
    p->by_shard[1] = WORKS;
    unsigned before = p->sent[0];
    pass(p, 9000);
    assert_int_equal(metric(p, STORE_M_OUTBOX_ITEMS), 0);
    assert_int_equal(p->sent[0], before); /* who had it is not asked again */
    for (unsigned i = 0; i < USERS; i++) {
        assert_whole(p, p->here[i], 200);
        assert_whole(p, p->there[i], 200);
    }
    post_destroy(p);
}

/* It confirms, and stops again in the middle of what comes back, over and over. */
static void a_shard_that_is_well_and_sick_again(void **state)
{
    (void)state;
    post *p = post_new(false);
    p->by_shard[1] = SILENT;
    for (unsigned i = 0; i < 3000; i++) {
        say(p, true, i % USERS);
        if (i % 30 == 0) {
            step(p);
        }
    }
    for (unsigned round = 0; round < 20; round++) {
        p->by_shard[1] = round % 2 == 0 ? WORKS : round % 4 == 1 ? REFUSES : SILENT;
        for (unsigned i = 0; i < 40; i++) {
            say(p, true, i % USERS);
            say(p, false, i % USERS);
            step(p);
        }
        assert_int_equal(p->confirmed[0], 40 * (round + 1));
    }
    p->by_shard[1] = WORKS;
    pass(p, 12000);
    assert_all_there(p);
    post_destroy(p);
}

/* What waited for a router comes when its link does, not with the next probe. */
static void a_router_that_comes_up_gets_what_is_aside(void **state)
{
    (void)state;
    post *p = post_new(false);
    rig *r = p->r;
    store_core_down(r->core, RIG_R1, r->now, r->out);
    for (unsigned i = 0; i < 3000; i++) {
        say(p, i % 2 != 0, i / 2 % USERS);
        if (i % 50 == 49) {
            step(p);
        }
    }
    assert_int_equal(p->sent[0] + p->sent[1], 0);
    assert_true(metric(p, STORE_M_OUTBOX_ASIDE) > 2900);
    store_core_up(r->core, RIG_R1, 11, r->now, r->out);
    pass(p, 500);
    assert_int_equal(p->sent[0] + p->sent[1], 3000);
    assert_all_there(p);
    post_destroy(p);
}

/* It has the benefit of the doubt, but does not take the room of the others that come back. */
static void a_lane_does_not_take_all_the_room(void **state)
{
    (void)state;
    post *p = post_new(false);
    rig *r = p->r;
    p->by_shard[1] = SILENT;
    say_there(p, 2000);
    pass(p, 2 * STORE_OUTBOX_SICK_MS);
    assert_true(metric(p, STORE_M_OUTBOX_ASIDE) > 1900);
    store_core_down(r->core, RIG_R1, r->now, r->out);
    store_core_up(r->core, RIG_R1, 11, r->now, r->out);
    pass(p, 500);
    assert_int_equal(metric(p, STORE_M_OUTBOX_WINDOW), STORE_OUTBOX_LANE_BACK);
    p->by_shard[1] = WORKS;
    pass(p, 12000);
    assert_all_there(p);
    post_destroy(p);
}

static void what_is_aside_survives_a_restart(void **state)
{
    (void)state;
    post *p = post_new(false);
    rig *r = p->r;
    p->by_shard[1] = SILENT;
    for (unsigned i = 0; i < STORE_OUTBOX_WINDOW + 1000; i++) {
        say(p, true, i % USERS);
        say(p, false, i % USERS);
        if (i % 50 == 49) {
            step(p);
        }
    }
    pass(p, 500);
    rig_close(r);
    rig_open(r);
    rig_run(r);
    rig_forget(r);
    p->at = 0;
    store_core_up(r->core, RIG_R1, 11, r->now, r->out);
    pass(p, 3000); /* all rows are looked at again: who had something is asked again, the rest is put aside again */
    assert_true(metric(p, STORE_M_OUTBOX_ASIDE) > STORE_OUTBOX_WINDOW);
    assert_in_range(p->confirmed[0], STORE_OUTBOX_WINDOW + 1000, 2 * (STORE_OUTBOX_WINDOW + 1000));
    unsigned here = p->confirmed[0];
    say(p, false, 0);
    step(p);
    assert_int_equal(p->confirmed[0], here + 1);
    p->by_shard[1] = WORKS;
    pass(p, 12000);
    assert_all_there(p);
    post_destroy(p);
}

/* A row of as many items as a log entry may owe is begun as soon as there is any room. */
static void a_long_row_comes_in_pieces(void **state)
{
    (void)state;
    static Store__OutboxItem items[STORE_ENTRY_OWED];
    static Store__OutboxItem *list[STORE_ENTRY_OWED];
    post *p = post_new(false);
    rig *r = p->r;
    say(p, true, 0);
    work(p);
    pass(p, 500);
    rig_close(r);
    rig_open(r);
    for (size_t i = 0; i < STORE_ENTRY_OWED; i++) {
        store__outbox_item__init(&items[i]);
        items[i].chat = rig_direct(r, p->there[0], p->there[0]);
        items[i].seq = 1;
        list[i] = &items[i];
    }
    Store__OutboxRow owes = STORE__OUTBOX_ROW__INIT;
    owes.n_items = STORE_ENTRY_OWED;
    owes.items = list;
    mesh_buf value = { 0 };
    store_key key;
    store_key_outbox(&key, 1u << 20);
    mesh_wire_pack(&owes, &value);
    store_kv_batch *batch = store_kv_batch_new();
    store_kv_batch_put(batch, store_key_slice(&key), mesh_buf_slice(&value));
    store_kv_write(r->kv, batch, true);
    store_kv_batch_destroy(&batch);
    mesh_buf_fini(&value);
    rig_run(r);
    rig_forget(r);
    p->at = 0;
    p->by_shard[1] = SILENT;
    store_core_up(r->core, RIG_R1, 11, r->now, r->out);
    work(p);
    assert_in_range(metric(p, STORE_M_OUTBOX_WINDOW), STORE_OUTBOX_WINDOW / 2, STORE_OUTBOX_WINDOW);
    assert_int_equal(metric(p, STORE_M_OUTBOX_ITEMS), STORE_ENTRY_OWED);
    p->by_shard[1] = WORKS;
    pass(p, 12000);
    assert_all_there(p);
    post_destroy(p);
}

/* Of what finds its lanes sick, too, so that a turn has an end. */
static void rows_are_read_in_turns(void **state)
{
    (void)state;
    enum { LOAD_ITEMS = 512, N = STORE_OUTBOX_WINDOW / 2 };
    post *p = post_new(false);
    rig *r = p->r;
    p->by_shard[1] = SILENT;
    for (unsigned i = 0; i < N; i++) {
        say(p, true, i % USERS);
    }
    work(p);
    rig_close(r);
    rig_open(r);
    uint64_t was = 0;
    uint64_t most = 0;
    do {
        rig_turn(r);
        uint64_t n = mesh_stats_get(store_core_stats(r->core), STORE_M_OUTBOX_WINDOW);
        most = n - was > most ? n - was : most;
        was = n;
    } while (sim_disk_flush(r->disk) || r->next <= r->now.mono + 1);
    assert_int_equal(most, LOAD_ITEMS);
    assert_int_equal(was, N);
    post_destroy(p);
}

/* The rows are the place where it all waits; what is aside is in memory. */
static void no_rows_are_read_for_what_would_be_aside_too_much(void **state)
{
    (void)state;
    post *p = post_new(false);
    rig *r = p->r;
    p->by_shard[1] = SILENT;
    for (unsigned i = 0; i < 100; i++) {
        say(p, true, i % USERS);
    }
    work(p);
    rig_close(r);
    rig_open(r);
    while (!r->core->ready) { /* it leads, and has not read a row yet */
        r->core->outbox->n_aside = STORE_OUTBOX_BACKLOG_MAX;
        rig_turn(r);
        (void)sim_disk_flush(r->disk);
    }
    r->core->outbox->n_aside = STORE_OUTBOX_BACKLOG_MAX;
    pass(p, 1000);
    assert_int_equal(mesh_stats_get(store_core_stats(r->core), STORE_M_OUTBOX_WINDOW), 0);
    r->core->outbox->n_aside = STORE_OUTBOX_BACKLOG_MAX - 1;
    step(p);
    assert_int_equal(mesh_stats_get(store_core_stats(r->core), STORE_M_OUTBOX_WINDOW), 100);
    r->core->outbox->n_aside = 0;
    post_destroy(p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_silent_shard_hurts_only_itself),
        cmocka_unit_test(a_refusing_shard_hurts_only_itself),
        cmocka_unit_test(a_full_window_is_a_reason_to_look_sooner),
        cmocka_unit_test(a_group_is_served_in_part),
        cmocka_unit_test(a_shard_that_is_well_and_sick_again),
        cmocka_unit_test(a_router_that_comes_up_gets_what_is_aside),
        cmocka_unit_test(a_lane_does_not_take_all_the_room),
        cmocka_unit_test(what_is_aside_survives_a_restart),
        cmocka_unit_test(a_long_row_comes_in_pieces),
        cmocka_unit_test(rows_are_read_in_turns),
        cmocka_unit_test(no_rows_are_read_for_what_would_be_aside_too_much),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
