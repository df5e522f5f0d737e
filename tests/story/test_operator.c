/* An operator changes the members of a group while it serves: stores go and come back, with their data or without, and
 * the leadership is handed over. */
#include "tests/story/story.h"

static sim *three(void)
{
    return sim_new((sim_conf){ .edges = 1, .routers = 1, .replicas = 3, .seed = 7, .has_operator = true });
}

static void go_on(sim *s, sim_client *ann, const char *text)
{
    sim_op *op = sim_send(ann, "bob", text);
    assert_true(SIM_WAIT(s, 5000, op->state == OP_DONE));
}

/* Removed, left behind by what happens meanwhile, and a member again. */
static void go_and_come(bool wipe)
{
    sim *s = three();
    sim_client *ann = sim_client_new(s, "ann", "phone");
    sim_hello(ann, "edge1");
    go_on(s, ann, "before");
    assert_true(sim_whole(s, 0));
    assert_true(sim_remove_store(s, "store2", 2000, wipe));
    assert_true(SIM_WAIT(s, 2000, !sim_whole(s, 0)));
    go_on(s, ann, "without it");
    assert_true(SIM_WAIT(s, 10000, !sim_operated(s, 0)));
    assert_true(sim_whole(s, 0));
    sim_settle(s);
    sim_check(s);
    assert_string_equal(sim_complaints(s), "");
    sim_destroy(&s);
}

static void a_store_goes_and_comes_back(void **state)
{
    (void)state;
    go_and_come(false);
}

static void a_store_goes_and_comes_back_empty(void **state)
{
    (void)state;
    go_and_come(true);
}

static void the_leader_goes(void **state)
{
    (void)state;
    sim *s = three();
    char leader[32];
    snprintf(leader, sizeof leader, "%s", sim_leader(s, 0));
    assert_true(sim_remove_store(s, leader, 1000, false));
    assert_true(SIM_WAIT(s, 5000, !sim_whole(s, 0) && sim_leader(s, 0)));
    assert_string_not_equal(sim_leader(s, 0), leader);
    assert_true(SIM_WAIT(s, 10000, !sim_operated(s, 0)));
    assert_true(sim_whole(s, 0));
    sim_destroy(&s);
}

static void leadership_is_handed_over(void **state)
{
    (void)state;
    sim *s = three();
    assert_true(sim_transfer_leader(s, 0, "store3"));
    assert_true(SIM_WAIT(s, 5000, sim_leader(s, 0) && strcmp(sim_leader(s, 0), "store3") == 0));
    assert_false(sim_remove_store(s, "store1", 0, false)); /* one thing after the other */
    assert_true(SIM_WAIT(s, 5000, !sim_operated(s, 0)));
    assert_string_equal(sim_complaints(s), "");
    sim_destroy(&s);
}

/* Its links stay up while it is closed for want of space, so nobody has news for it. Whoever leads brings stores in. */
static void a_leader_that_was_closed_brings_stores_in(void **state)
{
    (void)state;
    sim *s = three();
    assert_true(sim_transfer_leader(s, 0, "store3"));
    assert_true(SIM_WAIT(s, 5000, sim_leader(s, 0) && strcmp(sim_leader(s, 0), "store3") == 0));
    assert_true(SIM_WAIT(s, 6000, !sim_operated(s, 0)));
    sim_disk_fill_at(s, "store1");
    sim_client *ann = sim_client_new(s, "ann", "phone");
    sim_hello(ann, "edge1");
    go_on(s, ann, "store1 cannot write this");
    assert_true(SIM_WAIT(s, 5000, !sim_store_at(s, "store1")));
    sim_disk_free_at(s, "store1");
    assert_true(SIM_WAIT(s, 5000, sim_store_at(s, "store1")));
    assert_true(SIM_WAIT(s, 5000, sim_whole(s, 0)));
    assert_true(sim_transfer_leader(s, 0, "store1"));
    assert_true(SIM_WAIT(s, 5000, sim_leader(s, 0) && strcmp(sim_leader(s, 0), "store1") == 0));
    assert_true(SIM_WAIT(s, 6000, !sim_operated(s, 0)));
    assert_true(sim_remove_store(s, "store2", 500, false));
    assert_true(SIM_WAIT(s, 2000, !sim_whole(s, 0)));
    assert_true(SIM_WAIT(s, 10000, !sim_operated(s, 0)));
    assert_string_equal(sim_leader(s, 0), "store1");
    sim_settle(s);
    sim_check(s);
    assert_string_equal(sim_complaints(s), "");
    sim_destroy(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_store_goes_and_comes_back),
        cmocka_unit_test(a_store_goes_and_comes_back_empty),
        cmocka_unit_test(the_leader_goes),
        cmocka_unit_test(leadership_is_handed_over),
        cmocka_unit_test(a_leader_that_was_closed_brings_stores_in),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
