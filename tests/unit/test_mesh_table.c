/* Tests of mesh/table.h. The model is an array sorted by key, whose items also know when they were put. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "mesh/alloc.h"
#include "mesh/rand.h"
#include "mesh/table.h"

#define KEYS 700 /* of the model test: enough to grow often, few enough to collide with what is there */
#define STEPS 60000
#define MANY 1000000
#define MANY_MS 2000 /* of the processor, not of the clock: others may run too */

static const mesh_hash_key KEY = { { 1, 2, 3 } };

typedef struct item {
    uint64_t id;
    char name[32];
    uint64_t since; /* number of the put or touch that placed it */
    bool in;
} item;

/* ---- the model ---- */

typedef struct model {
    item *sorted[KEYS]; /* by name */
    size_t n;
} model;

static size_t model_at(const model *m, const char *name)
{
    size_t low = 0, high = m->n;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (strcmp(m->sorted[middle]->name, name) < 0) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

static item *model_get(const model *m, const char *name)
{
    size_t at = model_at(m, name);
    return at < m->n && strcmp(m->sorted[at]->name, name) == 0 ? m->sorted[at] : NULL;
}

static void model_put(model *m, item *it)
{
    size_t at = model_at(m, it->name);
    memmove(m->sorted + at + 1, m->sorted + at, (m->n - at) * sizeof *m->sorted);
    m->sorted[at] = it;
    m->n++;
}

static void model_remove(model *m, const item *it)
{
    size_t at = model_at(m, it->name);
    assert_ptr_equal(m->sorted[at], it);
    m->n--;
    memmove(m->sorted + at, m->sorted + at + 1, (m->n - at) * sizeof *m->sorted);
}

static item *model_oldest(const model *m)
{
    item *oldest = NULL;
    for (size_t i = 0; i < m->n; i++) {
        oldest = oldest == NULL || m->sorted[i]->since < oldest->since ? m->sorted[i] : oldest;
    }
    return oldest;
}

static void check_all(mesh_table *table, const model *m)
{
    uint64_t last = 0;
    size_t n = 0;
    for (item *it = mesh_table_first(table); it != NULL; it = mesh_table_next(table)) {
        assert_true(it->since > last);
        assert_ptr_equal(model_get(m, it->name), it);
        last = it->since;
        n++;
    }
    assert_int_equal(n, m->n);
}

static mesh_slice key_of(const item *it, bool numbers)
{
    return numbers ? mesh_table_u64(&it->id) : mesh_table_str(it->name);
}

static void run_model(uint64_t seed, bool numbers)
{
    mesh_rand rand = { seed };
    mesh_table *table = mesh_table_new_seeded(seed);
    model m = { .n = 0 };
    item *items = mesh_alloc(KEYS * sizeof *items);
    size_t most = 0;
    for (size_t i = 0; i < KEYS; i++) {
        items[i].id = i << 32;
        (void)snprintf(items[i].name, sizeof items[i].name, "default/%zu", i);
    }
    for (uint64_t step = 1; step <= STEPS; step++) {
        item *it = &items[mesh_rand_below(&rand, KEYS)];
        item same = *it; /* found by what its key says, not by where it is */
        const item *known = model_get(&m, it->name);
        bool growing = step / 5000 % 2 == 0;
        uint64_t what = mesh_rand_below(&rand, 10);
        if (what < (growing ? 6u : 2u)) {
            if (known == NULL) {
                mesh_table_put(table, key_of(it, numbers), it);
                it->since = step;
                model_put(&m, it);
            }
        } else if (what < 8) {
            assert_ptr_equal(mesh_table_remove(table, key_of(&same, numbers)), known);
            if (known != NULL) {
                model_remove(&m, it);
            }
        } else if (what < 9) {
            assert_ptr_equal(mesh_table_touch(table, key_of(&same, numbers)), known);
            it->since = known != NULL ? step : it->since;
        } else {
            assert_ptr_equal(mesh_table_oldest(table), model_oldest(&m));
            item *taken = mesh_table_take(table);
            assert_ptr_equal(taken, model_oldest(&m));
            if (taken != NULL) {
                model_remove(&m, taken);
            }
        }
        most = m.n > most ? m.n : most;
        assert_ptr_equal(mesh_table_get(table, key_of(&same, numbers)), model_get(&m, same.name));
        assert_int_equal(mesh_table_size(table), m.n);
        if (step % 500 == 0) {
            check_all(table, &m);
        }
    }
    assert_true(most > KEYS / 4);
    assert_true(mesh_table_room(table) < MESH_TABLE_GROWTH * most);
    mesh_table_destroy(&table);
    assert_null(table);
    free(items);
}

static void it_does_what_a_sorted_array_does(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 5; seed++) {
        run_model(seed, false);
        run_model(seed, true);
    }
}

/* ---- growth ---- */

static void room_holds(const mesh_table *table, size_t most)
{
    size_t bound = MESH_TABLE_GROWTH * most;
    assert_true(mesh_table_room(table) >= most);
    assert_true(mesh_table_room(table) < (bound > MESH_TABLE_FIRST ? bound : MESH_TABLE_FIRST + 1));
}

/* Numbers that agree in all but a few bits, wherever those are, are as good as any. */
static void room_depends_on_the_number_of_items_only(void **state)
{
    (void)state;
    enum { N = 40000 };
    uint64_t *ids = mesh_alloc(N * sizeof *ids);
    for (unsigned shift = 0; shift <= 48; shift += 16) {
        for (uint64_t seed = 1; seed <= 3; seed++) {
            mesh_table *table = mesh_table_new_seeded(seed);
            for (size_t i = 0; i < N; i++) {
                ids[i] = (uint64_t)i << shift | (shift == 48 ? i >> 16 : 0);
                mesh_table_put(table, mesh_table_u64(&ids[i]), &ids[i]);
                room_holds(table, i + 1);
            }
            assert_int_equal(mesh_table_room(table), 65536);
            mesh_table_destroy(&table);
        }
    }
    free(ids);
}

static void places_of_removed_items_are_used_again(void **state)
{
    (void)state;
    enum { KEPT = 100, TURNS = 100000 };
    uint64_t *ids = mesh_alloc(TURNS * sizeof *ids);
    mesh_table *table = mesh_table_new(&KEY);
    for (size_t i = 0; i < TURNS; i++) {
        ids[i] = i;
        mesh_table_put(table, mesh_table_u64(&ids[i]), &ids[i]);
        if (i >= KEPT) {
            assert_ptr_equal(mesh_table_remove(table, mesh_table_u64(&ids[i - KEPT])), &ids[i - KEPT]);
        }
    }
    room_holds(table, KEPT + 1);
    mesh_table_destroy(&table);
    free(ids);
}

static void a_million_items_are_quick(void **state)
{
    (void)state;
    uint64_t *ids = mesh_alloc(MANY * sizeof *ids);
    mesh_table *table = mesh_table_new(&KEY);
    clock_t start = clock();
    for (size_t i = 0; i < MANY; i++) {
        ids[i] = (uint64_t)i << 20;
        mesh_table_put(table, mesh_table_u64(&ids[i]), &ids[i]);
    }
    size_t found = 0;
    for (size_t i = 0; i < MANY; i++) {
        found += mesh_table_get(table, mesh_table_u64(&ids[i])) == &ids[i];
    }
    assert_int_equal(found, MANY);
    assert_true(mesh_table_room(table) * MESH_TABLE_BYTES <= (size_t)MANY * MESH_TABLE_GROWTH * MESH_TABLE_BYTES);
    for (size_t i = 0; i < MANY; i++) {
        assert_non_null(mesh_table_remove(table, mesh_table_u64(&ids[i])));
    }
    assert_int_equal(mesh_table_size(table), 0);
    long took = (long)((clock() - start) * 1000 / CLOCKS_PER_SEC);
    print_message("%d items put, got, removed in %ld ms\n", MANY, took);
    assert_true(took < MANY_MS);
    mesh_table_destroy(&table);
    free(ids);
}

/* ---- order, keys ---- */

static void the_order_is_the_same_under_all_hash_keys(void **state)
{
    (void)state;
    enum { N = 300 };
    uint64_t ids[N];
    mesh_table *tables[] = { mesh_table_new(NULL), mesh_table_new(&KEY), mesh_table_new_seeded(1) };
    for (size_t t = 0; t < 3; t++) {
        for (size_t i = 0; i < N; i++) {
            ids[i] = i;
            mesh_table_put(tables[t], mesh_table_u64(&ids[i]), &ids[i]);
        }
        for (size_t i = 0; i < N; i += 3) {
            assert_ptr_equal(mesh_table_touch(tables[t], mesh_table_u64(&ids[i])), &ids[i]);
        }
    }
    const void *at = mesh_table_first(tables[0]);
    assert_ptr_equal(at, &ids[1]);
    assert_ptr_equal(mesh_table_first(tables[1]), at);
    assert_ptr_equal(mesh_table_first(tables[2]), at);
    for (; at != NULL; at = mesh_table_next(tables[0])) {
        if (at != &ids[1]) {
            assert_ptr_equal(mesh_table_next(tables[1]), at);
            assert_ptr_equal(mesh_table_next(tables[2]), at);
        }
    }
    for (size_t t = 0; t < 3; t++) {
        mesh_table_destroy(&tables[t]);
    }
}

static void items_may_go_while_they_are_walked(void **state)
{
    (void)state;
    enum { N = 100 };
    uint64_t ids[N];
    for (size_t ahead = 0; ahead < 3; ahead++) { /* the one at hand, the next, the one after */
        mesh_table *table = mesh_table_new(&KEY);
        for (size_t i = 0; i < N; i++) {
            ids[i] = i;
            mesh_table_put(table, mesh_table_u64(&ids[i]), &ids[i]);
        }
        bool gone[N + 3] = { false };
        uint64_t last = 0;
        size_t seen = 0, removed = 0;
        for (uint64_t *id = mesh_table_first(table); id != NULL; id = mesh_table_next(table)) {
            assert_false(gone[*id]);
            assert_true(seen == 0 || *id > last);
            last = *id;
            seen++;
            uint64_t victim = *id + ahead;
            removed += mesh_table_remove(table, mesh_table_u64(&victim)) != NULL;
            gone[victim] = true;
        }
        assert_int_equal(mesh_table_size(table), N - removed);
        assert_int_equal(seen, ahead == 0 ? N : N - removed);
        assert_null(mesh_table_next(table));
        mesh_table_destroy(&table);
    }
}

static void keys_are_whole_runs_of_bytes(void **state)
{
    (void)state;
    mesh_table *table = mesh_table_new(&KEY);
    static const uint8_t bytes[] = { 'a', 0, 'b' };
    int items[4];
    for (size_t size = 0; size <= 3; size++) {
        mesh_table_put(table, (mesh_slice){ bytes, size }, &items[size]);
    }
    assert_ptr_equal(mesh_table_get(table, mesh_table_str("a")), &items[1]);
    assert_ptr_equal(mesh_table_get(table, mesh_table_str("")), &items[0]);
    assert_null(mesh_table_get(table, mesh_table_str("b")));
    assert_ptr_equal(mesh_table_remove(table, (mesh_slice){ bytes, 2 }), &items[2]);
    assert_ptr_equal(mesh_table_get(table, (mesh_slice){ bytes, 3 }), &items[3]);
    assert_null(mesh_table_get(table, (mesh_slice){ bytes, 2 }));
    mesh_table_destroy(&table);
    mesh_table_destroy(&table);
}

static void an_empty_table_has_nothing(void **state)
{
    (void)state;
    mesh_table *table = mesh_table_new(&KEY);
    assert_null(mesh_table_first(table));
    assert_null(mesh_table_next(table));
    assert_null(mesh_table_oldest(table));
    assert_null(mesh_table_take(table));
    assert_null(mesh_table_touch(table, mesh_table_str("a")));
    assert_null(mesh_table_remove(table, mesh_table_str("a")));
    assert_int_equal(mesh_table_size(table), 0);
    assert_int_equal(mesh_table_room(table), MESH_TABLE_FIRST);
    mesh_table_destroy(&table);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_does_what_a_sorted_array_does),
        cmocka_unit_test(room_depends_on_the_number_of_items_only),
        cmocka_unit_test(places_of_removed_items_are_used_again),
        cmocka_unit_test(a_million_items_are_quick),
        cmocka_unit_test(the_order_is_the_same_under_all_hash_keys),
        cmocka_unit_test(items_may_go_while_they_are_walked),
        cmocka_unit_test(keys_are_whole_runs_of_bytes),
        cmocka_unit_test(an_empty_table_has_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
