/* A Raft group that changes: members, transfer of leadership. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/unit/group_run.h"

static size_t members(const replica *r, store_replica_role list[STORE_MEMBERS_MAX])
{
    size_t n = store_consensus_configuration(r->cons, list, STORE_MEMBERS_MAX);
    for (size_t i = 0; i < n; i++) { /* an address that stays */
        const replica *member = by_id(r->g, list[i].raft_id);
        list[i].address = member != NULL ? member->name : list[i].address;
    }
    return n;
}

/* Submit the list at the leader and wait until it is committed. */
static void change(group *g, const store_replica_role *list, size_t n)
{
    mesh_err err = MESH_AGAIN;
    for (int i = 0; i < 5000 && err != MESH_OK; i++) {
        err = leader(g) != NULL ? store_consensus_change(leader(g)->cons, list, n, g->now) : MESH_AGAIN;
        assert_true(err == MESH_OK || err == MESH_AGAIN || err == MESH_STALE);
        tick(g);
    }
    assert_int_equal(err, MESH_OK);
    for (int i = 0; i < 5000 && store_consensus_changing(leader(g)->cons); i++) {
        tick(g);
    }
    assert_false(store_consensus_changing(leader(g)->cons));
}

static void catch_up(group *g, uint64_t id)
{
    assert_int_equal(store_consensus_catch_up(leader(g)->cons, id, g->now), MESH_OK);
    for (int i = 0; i < 5000 && store_consensus_catch_up_state(leader(g)->cons, id) != STORE_CATCH_UP_DONE; i++) {
        tick(g);
    }
    assert_int_equal(store_consensus_catch_up_state(leader(g)->cons, id), STORE_CATCH_UP_DONE);
}

/* Add r as a stand-by, let it catch up, give it a vote. */
static void add_voter(group *g, replica *r)
{
    store_replica_role list[STORE_MEMBERS_MAX];
    size_t n = members(leader(g), list);
    list[n] = (store_replica_role){ r->id, r->name, STORE_STANDBY };
    change(g, list, n + 1);
    run(g, 1000);
    assert_int_equal(r->applied, leader(g)->applied); /* hears what is committed, also from a leader that votes alone */
    catch_up(g, r->id);
    n = members(leader(g), list);
    list[n - 1].role = STORE_VOTER;
    change(g, list, n);
    uint64_t commit = store_consensus_commit(leader(g)->cons); /* the change itself: there is nothing to apply of it */
    assert_true(leader(g)->applied < commit);
    assert_int_equal(store_consensus_done(leader(g)->cons), commit);
}

static void remove_voter(group *g, uint64_t id)
{
    store_replica_role list[STORE_MEMBERS_MAX];
    size_t n = members(leader(g), list), at = 0;
    while (list[at].raft_id != id) {
        at++;
    }
    list[at].role = STORE_SPARE;
    change(g, list, n);
    n = members(leader(g), list);
    list[at] = list[n - 1];
    change(g, list, n - 1);
}

static void one_grows_to_three_and_shrinks(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 10; seed++) {
        group *g = group_new(1, seed);
        (void)elect(g, 10);
        for (int i = 0; i < 50; i++) {
            put(g, 500);
        }
        for (int i = 0; i < 2; i++) {
            replica *r = replica_new(g, true);
            replica_open(r);
            run(g, 1000);
            assert_int_equal(store_consensus_role(r->cons), STORE_FOLLOWER);
            assert_int_equal(store_consensus_last_index(r->cons), 0);
            if (seed % 2 == 0) {
                replica_crash(r); /* a joiner is nothing yet, and still nothing */
                replica_open(r);
            }
            add_voter(g, r);
            put(g, 500);
        }
        assert_int_equal(store_consensus_voters(leader(g)->cons), 3);
        replica_crash(leader(g)); /* any two of the three are a group */
        (void)elect(g, 3000);
        put(g, 500);
        heal(g);
        while (store_consensus_voters(leader(g)->cons) > 1) {
            store_replica_role list[STORE_MEMBERS_MAX];
            size_t n = members(leader(g), list);
            remove_voter(g, list[list[n - 1].raft_id == leader(g)->id ? n - 2 : n - 1].raft_id);
            put(g, 500);
        }
        replica *last = leader(g);
        uint64_t term = store_consensus_term(last->cons);
        replica_crash(last);
        replica_open(last);
        assert_true(store_consensus_leader(last->cons));
        assert_true(store_consensus_term(last->cons) > term);
        put(g, 500);
        assert_int_equal(g->malformed, 0);
        group_destroy(g);
    }
}

static void a_lost_replica_is_replaced(void **state)
{
    (void)state;
    group *g = group_new(3, 12);
    (void)elect(g, 2000);
    g->trail = 16 * 1024;
    for (size_t i = 0; i < 3; i++) {
        replica_crash(&g->r[i]);
        replica_open(&g->r[i]);
    }
    (void)elect(g, 2500);
    for (int i = 0; i < 100; i++) {
        put(g, 2000);
        trim_all(g);
    }
    replica *lost = not_leading(g);
    uint64_t lost_id = lost->id;
    replica_crash(lost);
    (void)elect(g, 2500);
    put(g, 10);
    replica *fresh = replica_new(g, true); /* under another id; its log is gone, so it copies the state */
    replica_open(fresh);
    store_replica_role list[STORE_MEMBERS_MAX];
    size_t n = members(leader(g), list);
    list[n++] = (store_replica_role){ fresh->id, fresh->name, STORE_STANDBY };
    change(g, list, n);
    run(g, 2000);
    assert_true(g->installs >= 1);
    catch_up(g, fresh->id);
    list[n - 1].role = STORE_VOTER;
    change(g, list, n);
    remove_voter(g, lost_id);
    assert_int_equal(store_consensus_voters(leader(g)->cons), 3);
    assert_null(lost->cons);
    g->n_first = 0;
    replica_open(lost); /* it comes back, and nobody listens */
    run(g, 3000);
    put(g, 10);
    assert_false(store_consensus_leader(lost->cons));
    heal(g);
    group_destroy(g);
}

static mesh_err try_change(group *g, const store_replica_role *list, size_t n)
{
    return store_consensus_change(leader(g)->cons, list, n, g->now);
}

static void changes_that_are_no_step(void **state)
{
    (void)state;
    group *g = group_new(3, 4);
    (void)elect(g, 2000);
    put(g, 10);
    store_replica_role a[STORE_MEMBERS_MAX + 1] = { 0 };
    size_t n = members(leader(g), a);
    assert_int_equal(n, 3);
    size_t own = 0;
    while (a[own].raft_id != leader(g)->id) {
        own++;
    }
    size_t other = own == 0 ? 1 : 0;
    assert_int_equal(try_change(g, a, n), MESH_OK); /* as it is */
    assert_false(store_consensus_changing(leader(g)->cons));
    assert_int_equal(try_change(g, a, 0), MESH_CONFLICT);
    a[3] = (store_replica_role){ 5, "new", STORE_VOTER };
    assert_int_equal(try_change(g, a, 4), MESH_DENIED);
    a[3] = (store_replica_role){ 5, a[0].address, STORE_STANDBY };
    assert_int_equal(try_change(g, a, 4), MESH_CONFLICT);
    a[3] = (store_replica_role){ a[0].raft_id, "new", STORE_STANDBY };
    assert_int_equal(try_change(g, a, 4), MESH_CONFLICT);
    a[3] = (store_replica_role){ 0, "new", STORE_STANDBY };
    assert_int_equal(try_change(g, a, 4), MESH_CONFLICT);
    a[3] = (store_replica_role){ 5, "", STORE_STANDBY };
    assert_int_equal(try_change(g, a, 4), MESH_CONFLICT);
    a[3] = (store_replica_role){ 5, "new", STORE_STANDBY };
    a[4] = (store_replica_role){ 6, "newer", STORE_SPARE };
    assert_int_equal(try_change(g, a, 5), MESH_DENIED);
    assert_int_equal(try_change(g, a, 2), MESH_DENIED); /* drops a voter */
    a[own].role = STORE_STANDBY;
    assert_int_equal(try_change(g, a, 3), MESH_DENIED);
    a[own].role = STORE_VOTER;
    const char *address = a[other].address;
    a[other].address = "moved";
    assert_int_equal(try_change(g, a, 3), MESH_DENIED);
    a[other].address = address;
    assert_int_equal(store_consensus_change(not_leading(g)->cons, a, 4, g->now), MESH_STALE);
    assert_int_equal(try_change(g, a, 4), MESH_OK);
    assert_int_equal(try_change(g, a, 3), MESH_AGAIN);
    run(g, 100);
    assert_false(store_consensus_changing(leader(g)->cons));
    assert_int_equal(store_consensus_catch_up(leader(g)->cons, a[other].raft_id, g->now), MESH_NOT_FOUND);
    assert_int_equal(store_consensus_catch_up(leader(g)->cons, 99, g->now), MESH_NOT_FOUND);
    assert_int_equal(store_consensus_catch_up(leader(g)->cons, 5, g->now), MESH_OK); /* nobody there */
    assert_int_equal(store_consensus_catch_up(leader(g)->cons, 5, g->now), MESH_AGAIN);
    assert_int_equal(try_change(g, a, 3), MESH_AGAIN);
    assert_int_equal(store_consensus_catch_up_state(leader(g)->cons, 5), STORE_CATCH_UP_RUNNING);
    run(g, 6000);
    assert_int_equal(store_consensus_catch_up_state(leader(g)->cons, 5), STORE_CATCH_UP_FAILED);
    assert_int_equal(try_change(g, a, 3), MESH_OK);
    group_destroy(g);
}

static void leadership_is_handed_over(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 10; seed++) {
        group *g = group_new(3, seed);
        (void)elect(g, 2000);
        put(g, 10);
        replica *old = leader(g), *next = not_leading(g);
        uint64_t reign = store_consensus_reign(old->cons), index;
        assert_int_equal(store_consensus_transfer(old->cons, old->id, g->now), MESH_NOT_FOUND);
        assert_int_equal(store_consensus_transfer(old->cons, 12345, g->now), MESH_NOT_FOUND);
        assert_int_equal(store_consensus_transfer(next->cons, old->id, g->now), MESH_STALE);
        assert_int_equal(store_consensus_transfer(old->cons, seed % 2 == 0 ? 0 : next->id, g->now), MESH_OK);
        assert_int_equal(store_consensus_submit(old->cons, text("12345678"), g->now, &index), MESH_STALE);
        assert_int_equal(store_consensus_transfer(old->cons, 0, g->now), MESH_STALE);
        for (int i = 0; i < 100 && (leader(g) == old || leader(g) == NULL); i++) {
            tick(g);
        }
        assert_true(leader(g) != NULL && leader(g) != old); /* far within an election timeout */
        assert_true(seed % 2 == 0 || leader(g) == by_id(g, next->id));
        assert_true(store_consensus_reign(old->cons) > reign);
        put(g, 10);
        heal(g);
        group_destroy(g);
    }
    group *g = group_new(1, 1);
    assert_int_equal(store_consensus_transfer(leader(g)->cons, 0, g->now), MESH_NOT_FOUND);
    group_destroy(g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_grows_to_three_and_shrinks),
        cmocka_unit_test(a_lost_replica_is_replaced),
        cmocka_unit_test(changes_that_are_no_step),
        cmocka_unit_test(leadership_is_handed_over),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
