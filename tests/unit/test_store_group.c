/* A Raft group of several voters: what a seed brings, with every promise of tests/unit/group_rig.h looked at all the
 * time. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/unit/group_run.h"

static void three_and_five_elect_and_commit(void **state)
{
    (void)state;
    for (size_t n = 1; n <= 5; n += 2) {
        group *g = group_new(n, 40 + n);
        (void)elect(g, 2000);
        assert_int_equal(store_consensus_voters(leader(g)->cons), n);
        for (int i = 0; i < 100; i++) {
            put(g, below(g, 3000));
        }
        heal(g);
        for (size_t i = 0; i < n; i++) {
            assert_string_equal(store_consensus_leader_address(g->r[i].cons), leader(g)->name);
        }
        assert_int_equal(g->malformed, 0);
        group_destroy(g);
    }
}

/* ---- whatever happens ---- */

typedef struct totals {
    uint64_t acked, lost, installs, crashes, terms, changes;
} totals;

static void change_members(group *g, totals *t)
{
    replica *lead = leader(g);
    store_replica_role list[STORE_MEMBERS_MAX];
    if (lead == NULL) {
        return;
    }
    size_t n = store_consensus_configuration(lead->cons, list, STORE_MEMBERS_MAX);
    replica *r = &g->r[below(g, g->n)];
    size_t at = 0;
    while (at < n && list[at].raft_id != r->id) {
        at++;
    }
    if (at == n) {
        list[n++] = (store_replica_role){ r->id, r->name, below(g, 3) == 0 ? STORE_SPARE : STORE_STANDBY };
    } else if (list[at].role == STORE_VOTER) {
        list[at].role = store_consensus_voters(lead->cons) > 3 ? STORE_STANDBY : STORE_VOTER;
    } else if (below(g, 6) == 0) {
        list[at] = list[--n];
    } else {
        list[at].role = store_consensus_match(lead->cons, r->id) > 0 ? STORE_VOTER : STORE_STANDBY;
    }
    mesh_err err = store_consensus_change(lead->cons, list, n, g->now);
    assert_true(err == MESH_OK || err == MESH_STALE || err == MESH_AGAIN || err == MESH_DENIED);
    t->changes += err == MESH_OK && store_consensus_changing(lead->cons);
}

static void fault(group *g, totals *t, bool members)
{
    replica *r = &g->r[below(g, g->n)], *other = &g->r[below(g, g->n)];
    switch (below(g, members ? 12 : 9)) {
    case 0:
    case 1:
        if (r->cons != NULL) {
            replica_crash(r);
            t->crashes++;
        }
        break;
    case 2:
    case 3:
        if (r->cons == NULL) {
            replica_open(r);
        }
        break;
    case 4:
        g->cut[r->self][other->self] = true; /* one way */
        break;
    case 5:
        memset(g->cut, 0, sizeof g->cut);
        break;
    case 6:
        g->drop = (unsigned)(below(g, 3) * below(g, 100));
        g->twice = (unsigned)(below(g, 3) * below(g, 100));
        g->delay = 2 + (mesh_ms)(below(g, 3) == 0 ? below(g, 400) : below(g, 10));
        g->disk = 2 + (mesh_ms)(below(g, 3) == 0 ? below(g, 400) : below(g, 10));
        break;
    case 7:
        if (r->cons != NULL && store_consensus_leader(r->cons)) {
            mesh_err err = store_consensus_transfer(r->cons, below(g, 2) == 0 ? 0 : other->id, g->now);
            assert_true(err == MESH_OK || err == MESH_STALE || err == MESH_NOT_FOUND);
        }
        break;
    case 8:
        if (r->cons != NULL && leader(g) == r) {
            mesh_err err = store_consensus_catch_up(r->cons, other->id, g->now);
            assert_true(err == MESH_OK || err == MESH_STALE || err == MESH_AGAIN || err == MESH_NOT_FOUND);
        }
        break;
    default:
        change_members(g, t);
        break;
    }
}

static void work(group *g)
{
    for (size_t i = 0; i < g->n; i++) {
        replica *r = &g->r[i];
        if (r->cons == NULL) {
            continue;
        }
        if (store_consensus_leader(r->cons) && store_consensus_uncommitted(r->cons) < 20 && below(g, 10) == 0) {
            (void)submit(r, below(g, 20) == 0 ? below(g, 20000) : below(g, 300));
        }
        if (below(g, 50) == 0) {
            store_consensus_trim(r->cons, r->applied, g->now);
        }
    }
}

static void one_seed(uint64_t seed, totals *t)
{
    bool members = seed % 3 == 0;
    group *g = group_new(seed % 2 == 0 ? 3 : 5, seed);
    g->trail = 16 * 1024;
    for (int i = 0; members && i < 2; i++) {
        replica_open(replica_new(g, true));
    }
    mesh_ms end = g->now.mono + 4000;
    while (g->now.mono < end) {
        work(g);
        if (below(g, 100) == 0) {
            fault(g, t, members);
        }
        tick(g);
    }
    heal(g);
    assert_int_equal(g->malformed, 0);
    for (uint64_t s = 1; s <= g->n_subs; s++) {
        t->acked += g->subs[s].acked;
        t->lost += g->subs[s].index != 0 && g->subs[s].committed == 0;
    }
    t->installs += g->installs;
    t->terms += store_consensus_term(leader(g)->cons);
    group_destroy(g);
}

static void whatever_happens(void **state)
{
    (void)state;
    totals t = { 0 };
    const char *only = getenv("GROUP_SEED"), *many = getenv("GROUP_SEEDS");
    uint64_t first = only != NULL ? strtoull(only, NULL, 10) : 1;
    uint64_t last = only != NULL ? first : many != NULL ? strtoull(many, NULL, 10) : 300;
    for (uint64_t seed = first; seed <= last; seed++) {
        if (many != NULL) {
            fprintf(stderr, "seed %llu\n", (unsigned long long)seed);
        }
        one_seed(seed, &t);
    }
    print_message("%llu acked, %llu lost, %llu copies, %llu crashes, %llu terms, %llu changes\n",
                  (unsigned long long)t.acked, (unsigned long long)t.lost, (unsigned long long)t.installs,
                  (unsigned long long)t.crashes, (unsigned long long)t.terms, (unsigned long long)t.changes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(three_and_five_elect_and_commit),
        cmocka_unit_test(whatever_happens),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
