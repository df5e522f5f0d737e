/* A replica whose disk is an old copy: it is found, whoever leads, and makes nobody leader before. */
#include "tests/unit/fit_rig.h"

static void start_old(const scene *s)
{
    if (s->f->fit[s->old] != NULL) {
        fits_stop(s->f, s->old);
    }
    assert_true(sim_disk_put_back(s->f->g->r[s->old].disk));
    fits_start(s->f, s->old);
}

static void is_found(const scene *s, mesh_ms within)
{
    for (mesh_ms ms = 0; ms < within && !s->f->unfit[s->old]; ms++) {
        fits_tick(s->f);
    }
    assert_true(s->f->unfit[s->old]);
    for (size_t i = 0; i < FITS; i++) {
        assert_int_equal(s->f->unfit[i], i == s->old);
    }
}

static void an_old_copy_under_another_leader(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 12; seed++) {
        scene s = scene_new(seed);
        fits_stop(s.f, s.old); /* whoever leads from now on has never had a confirmation of it */
        mesh_err err = store_consensus_transfer(s.f->g->r[s.lead].cons, s.f->g->r[s.other].id, s.f->g->now);
        assert_int_equal(err, MESH_OK);
        while (leader(s.f->g) == NULL || leader(s.f->g)->self != s.other) {
            fits_tick(s.f);
        }
        assert_int_equal(store_consensus_match(s.f->g->r[s.other].cons, s.f->g->r[s.old].id), 0);
        if (seed % 3 == 1) {
            fits_cut(s.f, s.old, s.lead, true); /* only the new one can tell */
        } else if (seed % 3 == 2) {
            fits_cut(s.f, s.old, s.other, true);
        }
        start_old(&s);
        is_found(&s, 500);
        fits_nothing_lost(s.f);
        fits_destroy(s.f);
    }
}

static void an_old_copy_when_all_begin_again(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 12; seed++) {
        scene s = scene_new(seed);
        for (size_t i = 0; i < FITS; i++) {
            fits_stop(s.f, i);
        }
        start_old(&s);
        fits_run(s.f, (mesh_ms)(seed * 200)); /* it may wait in vain for a while */
        fits_start(s.f, s.lead);
        fits_start(s.f, s.other);
        is_found(&s, 1000);
        fits_nothing_lost(s.f);
        fits_destroy(s.f);
    }
}

/* The one that knew it best is down; the other was told. Better no leader than one without what was acked. */
static void an_old_copy_while_the_leader_is_down(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 6; seed++) {
        scene s = scene_new(seed);
        fits_stop(s.f, s.lead);
        fits_stop(s.f, s.old);
        if (seed % 2) {
            fits_stop(s.f, s.other); /* and it has that on disk */
            fits_start(s.f, s.other);
        }
        start_old(&s);
        is_found(&s, 500);
        fits_run(s.f, 5000);
        assert_null(leader(s.f->g));
        fits_start(s.f, s.lead);
        fits_nothing_lost(s.f);
        fits_destroy(s.f);
    }
}

/* The old leader's own disk. */
static void an_old_copy_of_a_leader(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 6; seed++) {
        scene s = scene_new(seed);
        sim_disk_keep(s.f->g->r[s.lead].disk);
        fits_put(s.f, 10);
        fits_run(s.f, 2 * STORE_GROUP_TELL_MS);
        size_t old = s.lead;
        fits_stop(s.f, old);
        (void)fits_elect(s.f, 3000);
        s.lead = leader(s.f->g)->self;
        s.other = FITS - old - s.lead;
        s.old = old;
        start_old(&s);
        is_found(&s, 500);
        fits_nothing_lost(s.f);
        fits_destroy(s.f);
    }
}

/* A replica that was cut off lacks what was acked, and so does the old copy: together they would be a majority. The
 * leader that has it hears both a little later than they hear each other. */
static void two_that_lack_it_do_not_elect_each_other(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 12; seed++) {
        scene s = scene_begin(seed);
        fits *f = s.f;
        fits_run(f, 500);
        fits_cut(f, s.other, s.lead, true);
        fits_cut(f, s.other, s.old, true);
        sim_disk_keep(f->g->r[s.old].disk);
        fits_put(f, 10); /* on the other two */
        fits_run(f, 2000);
        fits_stop(f, s.old);
        fits_run(f, 2000); /* nobody leads: the one alone has stepped down */
        assert_null(leader(f->g));
        fits_cut(f, s.other, s.old, false);
        f->late[s.old][s.lead] = f->late[s.lead][s.old] = f->g->now.mono + STORE_FIT_WAIT_MS - 100;
        memset(f->led, 0, sizeof f->led);
        start_old(&s);
        is_found(&s, STORE_FIT_WAIT_MS);
        fits_run(f, 3000);
        assert_false(f->led[s.other] || f->led[s.old]);
        fits_cut(f, s.other, s.lead, false);
        fits_nothing_lost(f);
        assert_int_equal(leader(f->g)->self, s.lead);
        fits_destroy(f);
    }
}

/* A link that comes up late carries no vote before both have said what they know. */
static void no_vote_before_a_word(void **state)
{
    (void)state;
    fits *f = fits_new(3);
    fits_run(f, 1);
    Mesh__Raft vote = MESH__RAFT__INIT, beat = MESH__RAFT__INIT;
    Mesh__Replica word = MESH__REPLICA__INIT;
    vote.kind = MESH__RAFT_KIND__RAFT_VOTE;
    beat.kind = MESH__RAFT_KIND__RAFT_APPEND;
    (void)fits_elect(f, 3000);
    const store_consensus *cons = f->g->r[0].cons;
    store_group *told = f->fit[0];
    assert_false(store_group_waits(told, cons));
    assert_true(store_group_takes(told, cons, 1, &vote) && store_group_gives(told, cons, 1, &vote));
    store_group_down(told, 1);
    assert_false(store_group_takes(told, cons, 1, &vote));
    store_group_up(told, 1);
    assert_false(store_group_takes(told, cons, 1, &vote) || store_group_gives(told, cons, 1, &vote));
    assert_true(store_group_takes(told, cons, 1, &beat) && store_group_gives(told, cons, 1, &beat));
    assert_true(store_group_takes(told, cons, 2, &vote));
    word.state = MESH__REPLICA_STATE__REPLICA_MEMBER;
    word.raft_id = f->g->r[1].id;
    assert_int_equal(store_group_heard(told, 1, &word), MESH_OK);
    assert_true(store_group_takes(told, cons, 1, &vote));
    store_group_up(told, 1); /* one that says nothing, an older version perhaps */
    mesh_time later = { f->g->now.mono, 0 };
    (void)store_group_tell(told, f->g->r[0].cons, later, f->out[0]);
    later.mono += 100 * STORE_FIT_WAIT_MS; /* it was stopped, and has not listened */
    (void)store_group_tell(told, f->g->r[0].cons, later, f->out[0]);
    assert_false(store_group_takes(told, cons, 1, &vote));
    for (mesh_ms ms = STORE_GROUP_TELL_MS; ms < STORE_FIT_WAIT_MS; ms++) {
        assert_false(store_group_takes(told, cons, 1, &vote));
        later.mono++;
        (void)store_group_tell(told, f->g->r[0].cons, later, f->out[0]);
    }
    assert_true(store_group_takes(told, cons, 1, &vote));
    fits_destroy(f);
}

static void all_begin_again_and_nobody_waits_long(void **state)
{
    (void)state;
    mesh_ms worst = 0, worst_two = 0, worst_kill = 0;
    for (uint64_t seed = 1; seed <= 40; seed++) {
        fits *f = fits_new(seed);
        mesh_ms first = fits_elect(f, 3000);
        fits_put(f, 5);
        fits_run(f, 500);
        for (size_t i = 0; i < FITS; i++) {
            fits_stop(f, i);
        }
        for (size_t i = 0; i < FITS; i++) {
            fits_run(f, 30); /* not at the same moment */
            fits_start(f, i);
        }
        mesh_ms all = fits_elect(f, 3000);
        fits_run(f, 500);
        fits_stop(f, leader(f->g)->self); /* the others run */
        mesh_ms kill = fits_elect(f, 3000);
        for (size_t i = 0; i < FITS; i++) {
            if (f->fit[i] != NULL) {
                fits_stop(f, i);
                fits_start(f, i);
            }
        }
        mesh_ms two = fits_elect(f, 5000);
        worst = all > worst ? all : worst;
        worst = first > worst ? first : worst;
        worst_kill = kill > worst_kill ? kill : worst_kill;
        worst_two = two > worst_two ? two : worst_two;
        fits_nothing_lost(f);
        fits_destroy(f);
    }
    print_message("all: %lld ms, a leader killed: %lld ms, two of three: %lld ms\n", (long long)worst,
                  (long long)worst_kill, (long long)worst_two);
    assert_true(worst < 1600 && worst_kill < 1600 && worst_two < STORE_FIT_WAIT_MS + 1600);
}

/* Crashes that lose what was not synced, cuts, changes of leaders, copies: no reason to put anything aside. */
static void nobody_is_unfit_for_nothing(void **state)
{
    (void)state;
    uint64_t acked = 0, installs = 0;
    for (uint64_t seed = 1; seed <= 60; seed++) {
        fits *f = fits_new(seed);
        f->g->trail = seed % 2 ? 4 * 1024 : 0;
        mesh_ms end = f->g->now.mono + 6000;
        while (f->g->now.mono < end) {
            size_t i = below(f->g, FITS);
            replica *lead = leader(f->g);
            if (lead != NULL && store_consensus_uncommitted(lead->cons) < 20 && below(f->g, 4) == 0) {
                (void)submit(lead, below(f->g, 2000));
            }
            if (f->fit[i] != NULL && below(f->g, 30) == 0) {
                store_consensus_trim(f->g->r[i].cons, f->g->r[i].applied, f->g->now);
            }
            switch (below(f->g, 400)) {
            case 0:
                if (f->fit[i] != NULL) {
                    fits_stop(f, i);
                }
                break;
            case 1:
            case 2:
                if (f->fit[i] == NULL) {
                    fits_start(f, i);
                }
                break;
            case 3:
                fits_cut(f, i, (i + 1) % FITS, true);
                break;
            case 4:
                memset(f->g->cut, 0, sizeof f->g->cut);
                break;
            default:
                break;
            }
            fits_tick(f);
            assert_false(f->unfit[0] || f->unfit[1] || f->unfit[2]);
        }
        memset(f->g->cut, 0, sizeof f->g->cut);
        for (size_t i = 0; i < FITS; i++) {
            if (f->fit[i] == NULL) {
                fits_start(f, i);
            }
        }
        fits_run(f, 3000);
        assert_false(f->unfit[0] || f->unfit[1] || f->unfit[2]);
        fits_nothing_lost(f);
        for (uint64_t s = 1; s <= f->g->n_subs; s++) {
            acked += f->g->subs[s].acked;
        }
        installs += f->g->installs;
        fits_destroy(f);
    }
    assert_true(acked > 1000 && installs > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_old_copy_under_another_leader),         cmocka_unit_test(an_old_copy_when_all_begin_again),
        cmocka_unit_test(an_old_copy_while_the_leader_is_down),     cmocka_unit_test(an_old_copy_of_a_leader),
        cmocka_unit_test(two_that_lack_it_do_not_elect_each_other), cmocka_unit_test(no_vote_before_a_word),
        cmocka_unit_test(all_begin_again_and_nobody_waits_long),    cmocka_unit_test(nobody_is_unfit_for_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
