/* What replicas know of each other: how long it is kept, what is not taken, and what follows from it besides votes. */
#include "tests/unit/fit_rig.h"

#include "store.pb-c.h"
#include "store/transfer.h"
#include "tests/unit/capture.h"

/* ---- what is known, and for how long ---- */

static void what_is_known_is_kept(void **state)
{
    (void)state;
    scene s = scene_new(5);
    group *g = s.f->g;
    for (size_t i = 0; i < FITS; i++) {
        for (size_t j = 0; j < FITS; j++) {
            uint64_t known = store_consensus_confirmed(g->r[i].cons, g->r[j].id);
            assert_true(known > 10 && known <= store_consensus_last_index(g->r[j].cons));
        }
    }
    store_consensus *cons = g->r[s.other].cons;
    uint64_t known = store_consensus_confirmed(cons, g->r[s.old].id), learnt = store_consensus_learnt(cons);
    store_consensus_learn(cons, g->r[s.old].id, known - 1); /* late */
    store_consensus_learn(cons, 4711, 5);                   /* nobody's */
    assert_int_equal(store_consensus_learnt(cons), learnt);
    assert_int_equal(store_consensus_confirmed(cons, 4711), 0);
    store_consensus_learn(cons, g->r[s.old].id, known + 1);
    assert_int_equal(store_consensus_learnt(cons), learnt + 1);
    mesh_ms due = store_consensus_deadline(cons);
    assert_true(due <= g->now.mono + STORE_CONFIRMED_SAVE_MS);
    fits_run(s.f, STORE_CONFIRMED_SAVE_MS + 20);
    mesh_buf kept = { 0 };
    mesh_slice key = { (const uint8_t *)"\0C", 2 };
    assert_int_equal(store_kv_get(g->r[s.other].kv, key, &kept), MESH_OK);
    assert_false(store_transfer_copies(key)); /* it is of this replica alone */
    mesh_buf_fini(&kept);
    fits_stop(s.f, s.other);
    fits_start(s.f, s.other);
    assert_int_equal(store_consensus_confirmed(g->r[s.other].cons, g->r[s.old].id), known + 1);
    fits_destroy(s.f);
}

/* Two quicker followers commit what the leader's own disk does not have yet, and then never gets. */
static void a_leader_confirms_what_is_on_its_own_disk(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 6; seed++) {
        fits *f = fits_new(seed);
        (void)fits_elect(f, 3000);
        fits_put(f, 5);
        fits_run(f, 500);
        replica *lead = leader(f->g);
        uint64_t last = store_consensus_last_index(lead->cons);
        lead->flush_at = f->g->now.mono + 5000;
        fits_put(f, 5);
        fits_run(f, 2 * STORE_GROUP_TELL_MS);
        for (size_t i = 0; i < FITS; i++) {
            assert_int_equal(store_consensus_confirmed(f->g->r[i].cons, lead->id), last);
        }
        fits_stop(f, lead->self);
        fits_start(f, lead->self);
        fits_run(f, 2000);
        assert_false(f->unfit[lead->self]);
        fits_nothing_lost(f);
        fits_destroy(f);
    }
}

/* The end of its log went, and the row did not. */
static void a_log_that_ends_too_early_is_refused(void **state)
{
    (void)state;
    scene s = scene_new(6);
    replica *r = &s.f->g->r[s.old];
    char why[256] = "", key[10] = { 0, 'L' };
    uint64_t last = store_consensus_last_index(r->cons);
    store_kv_batch *batch = store_kv_batch_new();
    mesh_put_u64be((uint8_t *)key + 2, last);
    store_kv_batch_delete(batch, (mesh_slice){ (uint8_t *)key, sizeof key });
    (void)store_kv_write(r->kv, batch, true);
    store_kv_batch_destroy(&batch);
    (void)sim_disk_flush_all(r->disk);
    fits_stop(s.f, s.old);
    assert_int_equal(replica_try_open(r, why), MESH_CORRUPT);
    assert_non_null(strstr(why, "confirmed"));
    store_kv_batch_destroy(&r->batch);
    store_kv_close(&r->kv);
    fits_destroy(s.f);
}

/* Nobody wrote such a row: there would be no room for all who come. */
static void a_row_that_names_a_replica_twice_is_refused(void **state)
{
    (void)state;
    uint64_t other = 4711, wrong[] = { other, 0 }, indexes[] = { 1, 1 };
    for (size_t i = 0; i < 2; i++) {
        scene s = scene_new(7);
        replica *r = &s.f->g->r[s.old];
        char why[256] = "";
        uint8_t key[] = { 0, 'C' };
        mesh_buf value = { 0 };
        Store__ConfirmedRow named = STORE__CONFIRMED_ROW__INIT;
        named.n_raft_ids = named.n_indexes = 2;
        named.raft_ids = (uint64_t[]){ other, wrong[i] };
        named.indexes = indexes;
        mesh_wire_pack(&named, &value);
        store_kv_batch *batch = store_kv_batch_new();
        store_kv_batch_put(batch, (mesh_slice){ key, sizeof key }, mesh_buf_slice(&value));
        (void)store_kv_write(r->kv, batch, true);
        store_kv_batch_destroy(&batch);
        mesh_buf_fini(&value);
        (void)sim_disk_flush_all(r->disk);
        fits_stop(s.f, s.old);
        assert_int_equal(replica_try_open(r, why), MESH_CORRUPT);
        assert_non_null(strstr(why, "confirmed"));
        store_kv_batch_destroy(&r->batch);
        store_kv_close(&r->kv);
        fits_destroy(s.f);
    }
}

static void no_more_than_members(void **state)
{
    (void)state;
    fits *f = fits_new(1);
    Mesh__Confirmed item = MESH__CONFIRMED__INIT, *items[STORE_MEMBERS_MAX + 1];
    Mesh__Replica word = MESH__REPLICA__INIT;
    word.state = MESH__REPLICA_STATE__REPLICA_MEMBER;
    word.raft_id = f->g->r[1].id;
    word.confirmed = items;
    item.raft_id = 4711;
    item.index = 7;
    for (size_t i = 0; i <= STORE_MEMBERS_MAX; i++) {
        items[i] = &item;
    }
    word.n_confirmed = STORE_MEMBERS_MAX;
    assert_int_equal(store_group_heard(f->fit[0], 1, &word), MESH_OK);
    word.n_confirmed = STORE_MEMBERS_MAX + 1;
    assert_int_equal(store_group_heard(f->fit[0], 1, &word), MESH_MALFORMED);
    word.n_confirmed = 1;
    item.index = (1ull << 56) + 1;
    assert_int_equal(store_group_heard(f->fit[0], 1, &word), MESH_MALFORMED);
    item = (Mesh__Confirmed)MESH__CONFIRMED__INIT;
    assert_int_equal(store_group_heard(f->fit[0], 1, &word), MESH_MALFORMED);
    fits_destroy(f);
}

/* A configuration as large as may be, many times over: who is gone makes room for who comes. */
static void who_is_gone_makes_room(void **state)
{
    (void)state;
    fits *f = fits_new(2);
    (void)fits_elect(f, 3000);
    fits_put(f, 2);
    char names[4][16];
    for (uint64_t round = 0; round < 8; round++) {
        store_replica_role list[STORE_MEMBERS_MAX];
        size_t n = store_consensus_configuration(leader(f->g)->cons, list, STORE_MEMBERS_MAX);
        while (n > FITS) {
            n--;
            while (store_consensus_change(leader(f->g)->cons, list, n, f->g->now) != MESH_OK) {
                fits_tick(f);
            }
            fits_run(f, 20);
            n = store_consensus_configuration(leader(f->g)->cons, list, STORE_MEMBERS_MAX);
        }
        for (uint64_t k = 0; k < 4; k++) {
            n = store_consensus_configuration(leader(f->g)->cons, list, STORE_MEMBERS_MAX);
            snprintf(names[k], sizeof names[k], "gone%u", (unsigned)k);
            list[n] = (store_replica_role){ 5000 + 4 * round + k, names[k], STORE_SPARE };
            while (store_consensus_change(leader(f->g)->cons, list, n + 1, f->g->now) != MESH_OK) {
                fits_tick(f);
            }
            fits_run(f, 20);
            store_consensus_learn(leader(f->g)->cons, 5000 + 4 * round + k, 3);
            assert_int_equal(store_consensus_confirmed(leader(f->g)->cons, 5000 + 4 * round + k), 3);
        }
        assert_int_equal(store_consensus_confirmed_all(leader(f->g)->cons, (store_confirmed[STORE_MEMBERS_MAX]){ 0 }),
                         FITS + 4);
    }
    fits_destroy(f);
}

/* ---- quiet ---- */

static void a_spare_asks_for_no_votes(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 4; seed++) {
        fits *f = fits_new(seed);
        (void)fits_elect(f, 3000);
        fits_put(f, 3);
        size_t out = (leader(f->g)->self + 1) % FITS;
        assert_int_equal(store_group_remove(leader(f->g)->cons, f->g->r[out].name, f->g->now), MESH_OK);
        fits_run(f, 500);
        memset(f->votes, 0, sizeof f->votes);
        fits_run(f, 5000); /* it gets nothing, and would stand for election */
        assert_int_equal(f->votes[out], 0);
        fits_stop(f, out);
        fits_start(f, out);
        fits_run(f, 5000);
        assert_int_equal(f->votes[out], 0);
        assert_int_equal(store_group_add(leader(f->g)->cons, f->g->r[out].name, f->g->now), MESH_OK);
        fits_run(f, 500);
        store_replica_role list[STORE_MEMBERS_MAX];
        size_t n = store_consensus_configuration(leader(f->g)->cons, list, STORE_MEMBERS_MAX);
        for (size_t i = 0; i < n; i++) {
            list[i].role = STORE_VOTER;
        }
        assert_int_equal(store_consensus_change(leader(f->g)->cons, list, n, f->g->now), MESH_OK);
        fits_run(f, 500);
        Mesh__Raft vote = MESH__RAFT__INIT;
        vote.kind = MESH__RAFT_KIND__RAFT_VOTE;
        size_t lead = leader(f->g)->self;
        assert_true(store_group_gives(f->fit[out], f->g->r[out].cons, (mesh_peer)lead, &vote));
        fits_stop(f, lead); /* now it is needed */
        fits_nothing_lost(f);
        fits_destroy(f);
    }
}

/* ---- silence ---- */

static size_t log_of_tells(store_group *told, mesh_ms from, mesh_ms to, mesh_out *out, char *text, size_t size)
{
    capture c;
    capture_start(&c);
    for (mesh_ms at = from; at < to; at += 50) {
        mesh_buf frame;
        mesh_peer peer;
        (void)store_group_tell(told, NULL, (mesh_time){ at, 0 }, out);
        while (mesh_out_take(out, &peer, &frame)) {
            mesh_buf_fini(&frame);
        }
    }
    return capture_stop(&c, text, size);
}

static void the_one_without_data_says_whom_it_waits_for(void **state)
{
    (void)state;
    fits *f = fits_new(1); /* for its configuration */
    store_group *told = store_group_new(f->conf, 0, false);
    Mesh__Replica word = MESH__REPLICA__INIT;
    char text[4096];
    word.state = MESH__REPLICA_STATE__REPLICA_JOINING;
    word.raft_id = 7;
    store_group_up(told, 1);
    assert_int_equal(store_group_heard(told, 1, &word), MESH_OK);
    assert_int_equal(log_of_tells(told, 1000, 1000 + STORE_GROUP_SILENT_MS, f->out[0], text, sizeof text), 0);
    (void)log_of_tells(told, 1000 + STORE_GROUP_SILENT_MS, 8000, f->out[0], text, sizeof text);
    assert_non_null(
        strstr(text, "event=nothing_to_begin_with shard=0 this=empty stores=node1:joining,node2:not_heard"));
    assert_non_null(strstr(text, "start the stores that are not heard"));
    assert_null(strstr(strstr(text, "nothing_to") + 1, "nothing_to")); /* once */
    store_group_destroy(&told);
    told = store_group_new(f->conf, 0, false);
    store_group_up(told, 1);
    store_group_up(told, 2);
    assert_int_equal(store_group_heard(told, 1, &word), MESH_OK);
    assert_int_equal(store_group_heard(told, 2, &word), MESH_OK);
    assert_int_equal(store_group_decide(told), STORE_GROUP_WAIT);
    (void)log_of_tells(told, 1000, 8000, f->out[0], text, sizeof text);
    assert_non_null(strstr(text, "stores=node1:joining,node2:joining"));
    assert_non_null(strstr(text, "no store has data"));
    store_group_destroy(&told);
    fits_destroy(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_known_is_kept),
        cmocka_unit_test(a_leader_confirms_what_is_on_its_own_disk),
        cmocka_unit_test(a_log_that_ends_too_early_is_refused),
        cmocka_unit_test(a_row_that_names_a_replica_twice_is_refused),
        cmocka_unit_test(no_more_than_members),
        cmocka_unit_test(who_is_gone_makes_room),
        cmocka_unit_test(a_spare_asks_for_no_votes),
        cmocka_unit_test(the_one_without_data_says_whom_it_waits_for),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
