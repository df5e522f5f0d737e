/* A Raft group of several voters, one story at a time: leaders that fall, tails that are replaced, and laggards. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/unit/group_run.h"

static void cut_off(group *g, const replica *r, bool cut)
{
    for (size_t i = 0; i < g->n; i++) {
        g->cut[r->self][i] = g->cut[i][r->self] = cut;
    }
}

static void a_dead_leader_is_replaced(void **state)
{
    (void)state;
    mesh_ms worst = 0;
    for (uint64_t seed = 1; seed <= 20; seed++) {
        group *g = group_new(3, seed);
        (void)elect(g, 2000);
        put(g, 100);
        replica *old = leader(g);
        uint64_t term = store_consensus_term(old->cons);
        replica_crash(old);
        mesh_ms took = elect(g, 2500);
        worst = took > worst ? took : worst;
        assert_true(store_consensus_term(leader(g)->cons) > term);
        put(g, 100);
        replica_open(old);
        heal(g);
        assert_int_equal(old->handed + old->own, old->handed);
        group_destroy(g);
    }
    assert_true(worst <= 2500);
}

static void a_leader_without_a_majority_steps_down(void **state)
{
    (void)state;
    group *g = group_new(3, 5);
    (void)elect(g, 2000);
    put(g, 10);
    replica *old = leader(g);
    uint64_t reign = store_consensus_reign(old->cons);
    cut_off(g, old, true);
    run(g, 3 * STORE_ELECTION_MS);
    assert_false(store_consensus_leader(old->cons));
    assert_int_equal(store_consensus_reign(old->cons), reign + 1);
    assert_string_equal(store_consensus_leader_address(old->cons), "");
    uint64_t index;
    assert_int_equal(store_consensus_submit(old->cons, text("late"), g->now, &index), MESH_STALE);
    cut_off(g, old, false);
    heal(g);
    group_destroy(g);
}

/* A leader that is cut off writes what nobody else gets; others decide otherwise, and its tail goes. */
static void an_uncommitted_tail_is_replaced(void **state)
{
    (void)state;
    group *g = group_new(3, 7);
    (void)elect(g, 2000);
    put(g, 10);
    replica *old = leader(g);
    uint64_t handed = old->handed;
    cut_off(g, old, true);
    uint64_t lost[3];
    for (int i = 0; i < 3; i++) {
        lost[i] = submit(old, 50);
    }
    assert_int_equal(store_consensus_uncommitted(old->cons), 3);
    run(g, 20); /* on its own disk */
    uint64_t last = store_consensus_last_index(old->cons);
    while (leader(g) == NULL || leader(g) == old) {
        tick(g);
    }
    put(g, 10);
    assert_int_equal(store_consensus_last_index(old->cons), last);
    assert_int_equal(old->handed, handed);
    cut_off(g, old, false);
    heal(g);
    for (int i = 0; i < 3; i++) {
        assert_false(g->subs[lost[i]].acked);
        assert_int_equal(g->subs[lost[i]].committed, 0);
    }
    assert_true(store_consensus_uncommitted(old->cons) < 3);
    group_destroy(g);
}

/* Sent, the leader lost, committed by the next one: not its own any more. */
static void a_disowned_entry_is_somebody_elses(void **state)
{
    (void)state;
    group *g = group_new(3, 8);
    (void)elect(g, 2000);
    put(g, 10);
    replica *old = leader(g);
    for (size_t i = 0; i < g->n; i++) {
        g->cut[i][old->self] = true; /* it is heard, and hears nothing */
    }
    uint64_t sub = submit(old, 50);
    run(g, 10);
    assert_int_equal(g->subs[sub].committed, 0);
    while (leader(g) == NULL || leader(g) == old) {
        tick(g);
    }
    uint64_t own = old->own;
    cut_off(g, old, false);
    heal(g);
    assert_true(g->subs[sub].committed > 0); /* the others had it */
    assert_false(g->subs[sub].acked);
    assert_true(old == leader(g) || old->own == own);
    group_destroy(g);
}

static void a_laggard_within_the_trail_reads_the_log(void **state)
{
    (void)state;
    group *g = group_new(3, 9);
    g->trail = 0; /* the default: all of this fits */
    (void)elect(g, 2000);
    replica *late = not_leading(g);
    replica_crash(late);
    (void)elect(g, 2500);
    for (int i = 0; i < 300; i++) {
        put(g, 4000);
        trim_all(g);
    }
    replica_open(late);
    heal(g);
    assert_int_equal(g->installs, 0);
    group_destroy(g);
}

static size_t largest, longest; /* entries: bytes of a message that has several, and their number */

static bool measure(group *g, size_t to, Mesh__Raft *msg)
{
    size_t bytes = 0;
    (void)g;
    (void)to;
    for (size_t i = 0; i < msg->n_entries; i++) {
        bytes += msg->entries[i]->payload.len;
    }
    largest = msg->n_entries > 1 && bytes > largest ? bytes : largest;
    longest = msg->n_entries > longest ? msg->n_entries : longest;
    return true;
}

static void entries_travel_in_bounded_messages(void **state)
{
    (void)state;
    group *g = group_new(3, 10);
    (void)elect(g, 2000);
    replica *late = not_leading(g);
    replica_crash(late);
    (void)elect(g, 2500);
    for (int i = 0; i < 300; i++) {
        put(g, 100);
    }
    for (int i = 0; i < 60; i++) {
        put(g, i % 3 == 0 ? 300000 : 100000);
    }
    put(g, STORE_LOG_ENTRY_MAX - 8);
    uint8_t *much = mesh_alloc(STORE_LOG_ENTRY_MAX + 1);
    uint64_t index;
    mesh_slice payload = { much, STORE_LOG_ENTRY_MAX + 1 };
    assert_int_equal(store_consensus_submit(leader(g)->cons, payload, g->now, &index), MESH_TOO_BIG);
    free(much);
    replica_open(late);
    g->change = measure;
    for (int i = 0; i < 1000 && late->applied < g->last_seen; i++) {
        tick(g);
    }
    assert_int_equal(late->applied, g->last_seen);
    assert_true(largest > STORE_APPEND_SOFT_MAX / 2 && largest <= STORE_APPEND_SOFT_MAX);
    assert_int_equal(longest, STORE_APPEND_ENTRIES);
    heal(g);
    assert_int_equal(g->installs, 0);
    group_destroy(g);
}

static void a_laggard_beyond_the_trail_copies_the_state(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 10; seed++) {
        group *g = group_new(3, seed);
        (void)elect(g, 2000);
        g->trail = 16 * 1024; /* for those that start again */
        for (size_t i = 0; i < 3; i++) {
            replica_crash(&g->r[i]);
            replica_open(&g->r[i]);
        }
        (void)elect(g, 2500);
        replica *late = not_leading(g);
        replica_crash(late);
        (void)elect(g, 2500);
        for (int i = 0; i < 100; i++) {
            put(g, 2000);
            trim_all(g);
        }
        replica_open(late);
        heal(g);
        assert_true(g->installs >= 1);
        assert_int_equal(late->applied, leader(g)->applied);
        replica_close(late); /* and it is a database like any other */
        replica_open(late);
        for (int i = 0; i < 20; i++) {
            put(g, 2000);
        }
        heal(g);
        group_destroy(g);
    }
}

/* The owner gave up: the old database forgets that a copy was wanted, and asks again. */
static void a_failed_copy_is_wanted_again(void **state)
{
    (void)state;
    group *g = group_new(3, 3);
    g->trail = 16 * 1024;
    for (size_t i = 0; i < 3; i++) {
        replica_crash(&g->r[i]);
        replica_open(&g->r[i]);
    }
    (void)elect(g, 2500);
    replica *late = not_leading(g);
    replica_crash(late);
    (void)elect(g, 2500);
    for (int i = 0; i < 100; i++) {
        put(g, 2000);
        trim_all(g);
    }
    replica_open(late);
    for (int tries = 0; tries < 3; tries++) {
        while (store_consensus_role(late->cons) != STORE_WANTS_STATE) {
            tick(g);
        }
        store_manifest m;
        const char *from;
        assert_true(store_consensus_wants_state(late->cons, &m, &from));
        assert_true(m.index > late->applied && m.conf.size > 0 && m.conf_index > 0);
        assert_string_equal(from, leader(g)->name);
        assert_int_equal(store_consensus_deadline(late->cons), MESH_NEVER);
        replica_close(late);
        replica_open(late);
        assert_false(store_consensus_wants_state(late->cons, &m, &from));
    }
    heal(g);
    group_destroy(g);
}

/* A replica may come to a later term than the others and have less than they (it was elected to by word of a leader
 * that hands over, and nobody heard it). The core's answer to a pre-vote of an earlier term does not name the later
 * one, so the one that could be elected would not hear of it. */
static void the_one_with_less_is_of_a_later_term(void **state)
{
    (void)state;
    group *g = group_new(3, 21);
    (void)elect(g, 5000);
    replica *old = leader(g), *less = not_leading(g), *more = NULL;
    for (size_t i = 0; i < g->n; i++) {
        more = &g->r[i] != old && &g->r[i] != less ? &g->r[i] : more;
    }
    run(g, 200);
    replica_close(less);
    put(g, 100);
    put(g, 100);
    run(g, 200);
    replica_crash(old);
    store_kv_batch *batch = store_kv_batch_new();
    char why[256] = "";
    consensus_hard hard;
    char *cluster = NULL;
    assert_int_equal(store_kv_open(less->path, NULL, &less->kv, why, sizeof why), MESH_OK);
    assert_int_equal(consensus_hard_get(less->kv, &hard, &cluster, why, sizeof why), MESH_OK);
    hard.term += 15;
    hard.voted_for = less->id;
    consensus_hard_put(batch, &hard, cluster);
    assert_int_equal(store_kv_wait(less->kv, store_kv_write(less->kv, batch, true)), MESH_OK);
    store_kv_batch_destroy(&batch);
    store_kv_close(&less->kv);
    free(cluster);
    replica_open(less);
    (void)elect(g, 5000);
    assert_true(store_consensus_leader(more->cons));
    heal(g);
    group_destroy(g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_dead_leader_is_replaced),
        cmocka_unit_test(a_leader_without_a_majority_steps_down),
        cmocka_unit_test(an_uncommitted_tail_is_replaced),
        cmocka_unit_test(a_disowned_entry_is_somebody_elses),
        cmocka_unit_test(a_laggard_within_the_trail_reads_the_log),
        cmocka_unit_test(entries_travel_in_bounded_messages),
        cmocka_unit_test(a_laggard_beyond_the_trail_copies_the_state),
        cmocka_unit_test(a_failed_copy_is_wanted_again),
        cmocka_unit_test(the_one_with_less_is_of_a_later_term),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
