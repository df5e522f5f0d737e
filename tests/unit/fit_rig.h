/* tests/unit/fit_rig.h: a Raft group (group_rig.h) whose replicas also tell each other what they are (store/group.h),
 * over links that go up and down. One that is called unfit is stopped. */
#ifndef TESTS_FIT_RIG_H
#define TESTS_FIT_RIG_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "mesh/out.h"
#include "store/group.h"
#include "tests/unit/group_run.h"

#define FITS 3

typedef struct fits {
    group *g;
    mesh_conf *conf;
    store_group *fit[FITS];
    mesh_out *out[FITS];
    bool linked[FITS][FITS];
    bool unfit[FITS];
    mesh_ms late[FITS][FITS]; /* a link is not up before */
    unsigned votes[FITS];     /* asked for by this one, and let out */
    bool led[FITS];           /* at any time since it was cleared */
} fits;

static fits *rig; /* for hooks that get no argument */

static inline bool lost_on_its_way(const packet *p, const Mesh__Raft *msg)
{
    const store_consensus *cons = rig->g->r[p->from].cons;
    bool gives = store_group_gives(rig->fit[p->from], cons, (mesh_peer)p->to, msg);
    rig->votes[p->from] += gives && msg->kind == MESH__RAFT_KIND__RAFT_VOTE;
    return !gives || !rig->linked[p->from][p->to];
}

static inline bool let_in(group *g, size_t to, Mesh__Raft *msg)
{
    mesh_peer from = (mesh_peer)by_id(g, msg->from)->self;
    return rig->linked[from][to] && store_group_takes(rig->fit[to], g->r[to].cons, from, msg);
}

static inline void fits_start(fits *f, size_t i)
{
    replica *r = &f->g->r[i];
    if (r->cons == NULL) {
        replica_open(r);
    }
    f->unfit[i] = false;
    f->fit[i] = store_group_new(f->conf, (mesh_peer)i, false);
    store_group_started(f->fit[i], r->cons);
}

static inline void fits_stop(fits *f, size_t i)
{
    replica_crash(&f->g->r[i]);
    store_group_destroy(&f->fit[i]);
    for (size_t j = 0; j < FITS; j++) {
        f->linked[i][j] = f->linked[j][i] = false;
        if (j != i && f->fit[j] != NULL) {
            store_group_down(f->fit[j], (mesh_peer)i);
        }
    }
}

/* store0 .. store2 have data and know each other. */
static inline fits *fits_new(uint64_t seed)
{
    fits *f = mesh_alloc(sizeof *f);
    rig = f;
    f->conf = mesh_conf_new();
    for (unsigned i = 0; i < FITS; i++) {
        mesh_node_conf node = { .role = MESH_STORE };
        snprintf(node.name, sizeof node.name, "node%u", i); /* as the rig names them */
        snprintf(node.endpoint, sizeof node.endpoint, "inproc://%s", node.name);
        assert_int_equal(mesh_conf_add_node(f->conf, &node), MESH_OK);
        f->out[i] = mesh_out_new(FITS);
    }
    f->g = group_new(FITS, seed);
    for (size_t i = 0; i < FITS; i++) {
        fits_start(f, i);
    }
    f->g->lose = lost_on_its_way;
    f->g->change = let_in;
    return f;
}

static inline void fits_destroy(fits *f)
{
    group_destroy(f->g);
    for (size_t i = 0; i < FITS; i++) {
        store_group_destroy(&f->fit[i]);
        mesh_out_destroy(&f->out[i]);
    }
    mesh_conf_destroy(&f->conf);
    free(f);
}

static inline void fits_cut(fits *f, size_t i, size_t j, bool cut)
{
    f->g->cut[i][j] = f->g->cut[j][i] = cut;
}

static inline void settle_links(fits *f)
{
    for (size_t i = 0; i < FITS; i++) {
        for (size_t j = 0; j < FITS; j++) {
            bool can =
                i != j && f->fit[i] != NULL && f->fit[j] != NULL && !f->g->cut[i][j] && f->g->now.mono >= f->late[i][j];
            if (can && !f->linked[i][j]) {
                store_group_up(f->fit[i], (mesh_peer)j);
            } else if (!can && f->linked[i][j] && f->fit[i] != NULL) {
                store_group_down(f->fit[i], (mesh_peer)j);
            }
            f->linked[i][j] = can;
        }
    }
}

/* As store/core.c does. */
static inline void hear(fits *f, size_t from, size_t to, const Mesh__Replica *msg)
{
    store_consensus *cons = f->g->r[to].cons;
    if (f->fit[to] == NULL || !f->linked[to][from]) {
        return;
    }
    assert_int_equal(store_group_heard(f->fit[to], (mesh_peer)from, msg), MESH_OK);
    store_group_judge(f->fit[to], cons, (mesh_peer)from, msg, f->out[to]);
    f->unfit[to] = f->unfit[to] || store_group_is_unfit(cons, msg);
}

static inline void deliver_words(fits *f, size_t from)
{
    mesh_peer to;
    mesh_buf frame;
    while (mesh_out_take(f->out[from], &to, &frame)) {
        mesh_frame_reader reader;
        mesh_arena *arena = mesh_arena_new();
        Mesh__Msg *msg;
        mesh_slice packed;
        assert_int_equal(mesh_frame_open(&reader, mesh_buf_slice(&frame)), MESH_OK);
        while (mesh_frame_next(&reader, arena, &msg, &packed) == MESH_OK) {
            hear(f, from, to, msg->replica);
        }
        mesh_arena_destroy(&arena);
        mesh_buf_fini(&frame);
    }
}

static inline void fits_tick(fits *f)
{
    settle_links(f);
    tick(f->g);
    for (size_t i = 0; i < FITS; i++) {
        if (f->fit[i] != NULL) {
            (void)store_group_tell(f->fit[i], f->g->r[i].cons, f->g->now, f->out[i]);
            f->led[i] = f->led[i] || store_consensus_leader(f->g->r[i].cons);
        }
    }
    for (size_t i = 0; i < FITS; i++) {
        deliver_words(f, i);
    }
    for (size_t i = 0; i < FITS; i++) {
        if (f->fit[i] != NULL && f->unfit[i]) {
            fits_stop(f, i); /* its data is put aside */
        }
    }
}

static inline void fits_run(fits *f, mesh_ms ms)
{
    for (mesh_ms i = 0; i < ms; i++) {
        fits_tick(f);
    }
}

/* Until somebody leads and is ready. Returns how long it took. */
static inline mesh_ms fits_elect(fits *f, mesh_ms within)
{
    mesh_ms start = f->g->now.mono;
    while (leader(f->g) == NULL || !store_consensus_ready(leader(f->g)->cons)) {
        fits_tick(f);
        if (f->g->now.mono - start > within) {
            dump(f->g);
            fail_msg("no leader within %lld ms", (long long)within);
        }
    }
    return f->g->now.mono - start;
}

static inline void fits_put(fits *f, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        uint64_t sub = submit(leader(f->g), 50);
        assert_true(sub != 0);
        for (int ms = 0; !f->g->subs[sub].acked; ms++) {
            assert_true(ms < 2000);
            fits_tick(f);
        }
    }
}

/* Everything that was acked is where the leader is. */
static inline void fits_nothing_lost(fits *f)
{
    (void)fits_elect(f, 5000);
    fits_put(f, 3);
    check_rows(leader(f->g));
    for (uint64_t s = 1; s <= f->g->n_subs; s++) {
        assert_true(!f->g->subs[s].acked || f->g->seen[f->g->subs[s].index].sub == s);
    }
}

/* A leader, and two others. */
typedef struct scene {
    fits *f;
    size_t lead, old, other;
} scene;

static inline scene scene_begin(uint64_t seed)
{
    fits *f = fits_new(seed);
    (void)fits_elect(f, 3000);
    fits_put(f, 10);
    scene s = { .f = f, .lead = leader(f->g)->self };
    s.old = (s.lead + 1 + seed % 2) % FITS;
    s.other = FITS - s.lead - s.old;
    return s;
}

/* The disk of one has been remembered before more was put. */
static inline scene scene_new(uint64_t seed)
{
    scene s = scene_begin(seed);
    fits_run(s.f, 100);
    sim_disk_keep(s.f->g->r[s.old].disk);
    fits_put(s.f, 10);
    fits_run(s.f, STORE_CONFIRMED_SAVE_MS + 2 * STORE_GROUP_TELL_MS); /* so that all know, and on disk */
    return s;
}

#endif
