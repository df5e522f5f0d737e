/* tests/unit/group_run.h: a group as time goes by: ticks, elections, submitting, and coming to rest. */
#ifndef TESTS_GROUP_RUN_H
#define TESTS_GROUP_RUN_H

#include "tests/unit/group_rig.h"

/* ---- time ---- */

/* The configuration in force is the last one in the log, and counts as committed when it was handed over. */
static inline void look_at_members(const replica *r)
{
    const store_consensus *cons = r->cons;
    const consensus_notes *changes = &cons->log.changes;
    const consensus_note *last = changes->n > 0 ? &changes->items[changes->n - 1] : NULL;
    mesh_slice bytes = mesh_buf_slice(last != NULL ? &last->bytes : &cons->snapshot.conf);
    struct raft_buffer buf;
    if (cons->raft.configuration.n == 0) {
        assert_int_equal(bytes.size, 0);
        return;
    }
    assert_int_equal(raft_configuration_encode(&cons->raft.configuration, &buf), 0);
    assert_int_equal(buf.len, bytes.size);
    assert_memory_equal(buf.base, bytes.data, bytes.size);
    raft_free(buf.base);
    uint64_t pending = cons->raft.configuration_uncommitted_index, done = cons->raft.configuration_committed_index;
    assert_true(pending == 0 || (pending > cons->passed && pending == last->index));
    for (size_t i = 0; i < changes->n; i++) {
        bool committed = changes->items[i].index <= cons->passed;
        assert_true(!committed || changes->items[i].index <= done);
    }
}

static inline void look(group *g, replica *r)
{
    bool leads = store_consensus_leader(r->cons);
    uint64_t term = store_consensus_term(r->cons), reign = store_consensus_reign(r->cons);
    assert_true(term < TERMS);
    if (leads && !g->lies) {
        assert_true(g->leader_of[term] == 0 || g->leader_of[term] == r->id);
        g->leader_of[term] = r->id;
    }
    assert_true(leads == r->led ? reign == r->reign || reign >= r->reign + 2 : reign > r->reign);
    assert_int_equal(store_consensus_ready(r->cons) && !leads, 0);
    if (g->now.mono % 16 == 0 && !g->lies && store_consensus_role(r->cons) != STORE_WANTS_STATE) {
        look_at_members(r);
    }
    r->led = leads;
    r->reign = reign;
}

/* One millisecond. */
static inline void tick(group *g)
{
    g->now.mono++;
    deliver_packets(g);
    for (size_t i = 0; i < g->n; i++) {
        replica *r = &g->r[i];
        if (r->cons == NULL) {
            continue;
        }
        bool moved = false;
        if (r->flush_at == 0 && sim_disk_has_pending(r->disk)) {
            r->flush_at = g->now.mono + (mesh_ms)below(g, (uint64_t)g->disk);
        } else if (r->flush_at != 0 && g->now.mono >= r->flush_at) {
            moved = sim_disk_flush(r->disk);
            r->flush_at = 0;
        }
        if (moved || g->now.mono >= store_consensus_deadline(r->cons)) {
            store_consensus_step(r->cons, g->now);
        }
        if (store_consensus_role(r->cons) == STORE_WANTS_STATE) {
            r->fetch_at = r->fetch_at == 0 ? g->now.mono + 20 : r->fetch_at;
            if (g->now.mono >= r->fetch_at && !fetch_state(r)) {
                replica_close(r);
                replica_open(r);
            }
        }
        look(g, r);
    }
}

static inline void run(group *g, mesh_ms ms)
{
    for (mesh_ms i = 0; i < ms; i++) {
        tick(g);
    }
}

static inline replica *leader(group *g)
{
    replica *best = NULL;
    for (size_t i = 0; i < g->n; i++) {
        replica *r = &g->r[i];
        if (r->cons != NULL && store_consensus_leader(r->cons) &&
            (best == NULL || store_consensus_term(r->cons) > store_consensus_term(best->cons))) {
            best = r;
        }
    }
    return best;
}

/* For whoever looks into a failure. */
static inline void dump(const group *g)
{
    for (size_t i = 0; i < g->n; i++) {
        const replica *r = &g->r[i];
        if (r->cons == NULL) {
            print_message("%s dead\n", r->name);
            continue;
        }
        store_replica_role list[STORE_MEMBERS_MAX];
        size_t n = store_consensus_configuration(r->cons, list, STORE_MEMBERS_MAX);
        print_message("%s role %d term %llu last %llu commit %llu applied %llu:", r->name,
                      (int)store_consensus_role(r->cons), (unsigned long long)store_consensus_term(r->cons),
                      (unsigned long long)store_consensus_last_index(r->cons),
                      (unsigned long long)store_consensus_commit(r->cons), (unsigned long long)r->applied);
        for (size_t j = 0; j < n; j++) {
            print_message(" %s/%d", list[j].address, (int)list[j].role);
        }
        print_message("%s\n", store_consensus_changing(r->cons) ? " changing" : "");
    }
}

/* Until somebody leads and is ready; how long that took. */
static inline mesh_ms elect(group *g, mesh_ms within)
{
    mesh_ms start = g->now.mono;
    while (leader(g) == NULL || !store_consensus_ready(leader(g)->cons)) {
        tick(g);
        if (g->now.mono - start > within) {
            dump(g);
            fail_msg("no leader within %lld ms", (long long)within);
        }
    }
    return g->now.mono - start;
}

static inline replica *by_id(group *g, uint64_t id)
{
    for (size_t i = 0; i < g->n; i++) {
        if (g->r[i].id == id) {
            return &g->r[i];
        }
    }
    return NULL;
}

static inline replica *not_leading(group *g)
{
    return leader(g) == &g->r[0] ? &g->r[1] : &g->r[0];
}

static inline void trim_all(group *g)
{
    for (size_t i = 0; i < g->n; i++) {
        if (g->r[i].cons != NULL) {
            store_consensus_trim(g->r[i].cons, g->r[i].applied, g->now);
        }
    }
    run(g, 20);
}

/* ---- submitting ---- */

static inline uint64_t submit(replica *r, size_t size)
{
    group *g = r->g;
    assert_true(g->n_subs + 1 < ENTRIES);
    uint64_t index = 0, sub = ++g->n_subs;
    uint8_t *payload = mesh_alloc(8 + size);
    mesh_put_u64be(payload, sub);
    g->subs[sub] = (submission){ .by = r->self, .boot = r->boot, .reign = store_consensus_reign(r->cons) };
    mesh_err err = store_consensus_submit(r->cons, (mesh_slice){ payload, 8 + size }, g->now, &index);
    free(payload);
    g->subs[sub].index = err == MESH_OK ? index : 0;
    assert_true(err == MESH_OK || err == MESH_STALE);
    return err == MESH_OK ? sub : 0;
}

/* Submit and wait until it is committed here. */
static inline void put(group *g, size_t size)
{
    uint64_t sub = submit(leader(g), size);
    assert_true(sub != 0);
    for (int i = 0; !g->subs[sub].acked; i++) {
        assert_true(i < 2000);
        tick(g);
    }
}

/* ---- in the end ---- */

static inline bool is_served(const replica *lead, const replica *r)
{
    store_replica_role list[STORE_MEMBERS_MAX];
    size_t n = store_consensus_configuration(lead->cons, list, STORE_MEMBERS_MAX);
    for (size_t i = 0; i < n; i++) {
        if (list[i].raft_id == r->id) {
            return list[i].role != STORE_SPARE;
        }
    }
    return false;
}

static inline bool converged(group *g)
{
    const replica *lead = leader(g);
    if (lead == NULL || !store_consensus_ready(lead->cons) || store_consensus_uncommitted(lead->cons) > 0) {
        return false;
    }
    for (size_t i = 0; i < g->n; i++) {
        const replica *r = &g->r[i];
        if (is_served(lead, r) && (r->applied != lead->applied || store_consensus_role(r->cons) == STORE_WANTS_STATE)) {
            return false;
        }
    }
    return lead->applied == g->last_seen;
}

static inline void check_rows(const replica *r)
{
    const group *g = r->g;
    mesh_buf value = { 0 };
    for (uint64_t i = 1; i <= g->last_seen; i++) {
        char key[24];
        if (g->seen[i].term != 0) {
            assert_int_equal(store_kv_get(r->kv, row_key_of(key, i), &value), MESH_OK);
            assert_int_equal(mesh_get_u64be(value.data), g->seen[i].sub);
        }
    }
    mesh_buf_fini(&value);
}

/* Heal all, start all, and see that everything that was acked is everywhere. */
static inline void heal(group *g)
{
    memset(g->cut, 0, sizeof g->cut);
    g->drop = g->twice = 0;
    g->delay = 3;
    g->disk = 4;
    g->lose = NULL;
    for (size_t i = 0; i < g->n; i++) {
        if (g->r[i].cons == NULL) {
            replica_open(&g->r[i]);
        }
    }
    for (int i = 0; i < 30 && !converged(g); i++) {
        (void)elect(g, 5000);
        (void)submit(leader(g), 10);
        run(g, 1000);
    }
    if (!converged(g)) {
        dump(g);
        fail_msg("the group does not come to rest");
    }
    for (size_t i = 0; i < g->n; i++) {
        if (is_served(leader(g), &g->r[i])) {
            check_rows(&g->r[i]);
        }
    }
    for (uint64_t s = 1; s <= g->n_subs; s++) {
        assert_true(!g->subs[s].acked || g->seen[g->subs[s].index].sub == s);
    }
}

#endif
