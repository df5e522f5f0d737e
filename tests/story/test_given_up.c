/* A router that gave its sessions up and owns their users again, before their edge saw a ring without it. */
#include "story.h"

#include "edge/state.h"

#define LEASE_OVER_MS 4000

/* The router is out of the ring for a while. Of that ring the edge hears nothing, only of the next one. */
static sim *router_gone_and_back(sim_client **ann, sim_client **bob, unsigned lost, uint64_t seed)
{
    sim *s = story_new(1, 1, seed);
    *ann = story_person(s, "ann", "phone", "edge1");
    *bob = story_person(s, "bob", "phone", "edge1");
    story_acked(s, sim_send(*ann, "bob", "before"), 500);
    WITHIN(s, 500, (*bob)->n_got == 1);
    unsigned long long attaches = story_edge_metric(s, "edge1", "parley_edge_attaches_total");
    sim_lose(s, "edge1", "router1", MESH__MSG__BODY_RING, 1);
    sim_lose(s, "edge1", "router1", MESH__MSG__BODY_REPLACED, lost);
    sim_cut(s, "router1", "store1");
    sim_run(s, LEASE_OVER_MS);
    assert_int_equal(story_edge_metric(s, "edge1", "parley_edge_attaches_total"), attaches);
    sim_heal(s, "router1", "store1");
    WITHIN(s, 5000, sim_linked(s, "router1", "store1"));
    return s;
}

STORY(an_edge_that_missed_a_ring_hears_that_its_sessions_are_gone)
{
    (void)state;
    sim_client *ann, *bob;
    sim *s = router_gone_and_back(&ann, &bob, 0, 41);
    WITHIN(s, 3000, story_edge_metric(s, "edge1", "parley_edge_attach_retries_total") > 0);
    sim_run(s, 1000);
    story_acked(s, sim_send(ann, "bob", "after"), 1000);
    WITHIN(s, 1000, bob->n_got == 2 && ann->n_got == 2);
    assert_int_equal(story_edge_metric(s, "edge1", "parley_edge_unheard_total"), 0);
    assert_int_equal(bob->resyncs, 1);
    story_end(&s);
}

STORY(an_edge_that_hears_nothing_of_its_sessions_attaches_them_again)
{
    (void)state;
    sim_client *ann, *bob;
    sim *s = router_gone_and_back(&ann, &bob, 100, 42);
    sim_run(s, 2000);
    story_acked(s, sim_send(ann, "bob", "after"), 1000);
    sim_run(s, 1000);
    assert_int_equal(bob->n_got, 1);
    WITHIN(s, EDGE_UNHEARD_MS + 1000, bob->n_got == 2 && ann->n_got == 2);
    assert_in_range(story_edge_metric(s, "edge1", "parley_edge_unheard_total"), 2, 3);
    assert_int_equal(bob->resyncs, 1);
    story_end(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_edge_that_missed_a_ring_hears_that_its_sessions_are_gone),
        cmocka_unit_test(an_edge_that_hears_nothing_of_its_sessions_attaches_them_again),
    };
    return cmocka_run_group_tests_name("story given up", tests, NULL, NULL);
}
