/* The ordered map against a sorted array, over random calls. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mesh/rand.h"
#include "store/omap.h"

#define KEYS 300

static char names[KEYS][12];

static mesh_slice key_of(size_t i)
{
    return (mesh_slice){ (const uint8_t *)names[i], strlen(names[i]) };
}

static void make_names(void)
{
    for (size_t i = 0; i < KEYS; i++) { /* sorted, of different lengths, some a prefix of others */
        snprintf(names[i], sizeof names[i], i % 3 == 0 ? "k%03zu" : "k%03zu%c", i / 3 * 3, (int)('a' + i % 3));
    }
}

static void compares_like_memcmp(void **state)
{
    (void)state;
    mesh_slice a = { (const uint8_t *)"a\xff", 2 }, b = { (const uint8_t *)"b", 1 }, none = { NULL, 0 };
    assert_true(store_omap_compare(a, b) < 0);
    assert_true(store_omap_compare(b, a) > 0);
    assert_true(store_omap_compare(none, b) < 0);
    assert_int_equal(store_omap_compare(none, none), 0);
    mesh_slice ab = { (const uint8_t *)"a\xff\0", 3 };
    assert_true(store_omap_compare(a, ab) < 0);
}

static void check_all(const store_omap *map, const bool *in)
{
    const store_omap_node *n = store_omap_first(map);
    size_t count = 0;
    for (size_t i = 0; i < KEYS; i++) {
        if (in[i]) {
            assert_non_null(n);
            assert_int_equal(store_omap_compare(n->key, key_of(i)), 0);
            assert_int_equal(n->tag, i);
            n = store_omap_next(n);
            count++;
        }
    }
    assert_null(n);
    assert_int_equal(store_omap_count(map), count);
    n = store_omap_last(map);
    for (size_t i = KEYS; i-- > 0;) {
        if (in[i]) {
            assert_int_equal(n->tag, i);
            n = store_omap_prev(n);
        }
    }
    assert_null(n);
}

static void same_as_an_array(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 20; seed++) {
        mesh_rand r = { seed };
        bool in[KEYS] = { false };
        store_omap *map = store_omap_new(seed);
        for (int i = 0; i < 3000; i++) {
            size_t k = mesh_rand_below(&r, KEYS);
            if (mesh_rand_below(&r, 5) < (seed % 2 == 0 ? 2u : 3u)) {
                bool added;
                store_omap_node *n = store_omap_put(map, key_of(k), &added);
                assert_int_equal(added, !in[k]);
                n->tag = k;
                in[k] = true;
            } else if (in[k]) {
                store_omap_delete(map, store_omap_get(map, key_of(k)));
                in[k] = false;
            }
            assert_int_equal(store_omap_get(map, key_of(k)) != NULL, in[k]);
            size_t lower = k, upper = k;
            while (lower < KEYS && !in[lower]) {
                lower++;
            }
            while (upper < KEYS && !in[upper]) {
                upper--; /* wraps around at 0 */
            }
            const store_omap_node *n = store_omap_lower_bound(map, key_of(k));
            assert_int_equal(n == NULL ? KEYS : n->tag, lower);
            n = store_omap_last_le(map, key_of(k));
            assert_int_equal(n == NULL ? SIZE_MAX : n->tag, upper < KEYS ? upper : SIZE_MAX);
            if (i % 100 == 0) {
                check_all(map, in);
            }
        }
        store_omap_destroy(&map);
        assert_null(map);
    }
}

static void nodes_stay_where_they_are(void **state)
{
    (void)state;
    store_omap *map = store_omap_new(7);
    bool added;
    store_omap_node *n = store_omap_put(map, key_of(100), &added);
    for (size_t i = 0; i < KEYS; i++) {
        store_omap_node *other = store_omap_put(map, key_of(i), &added);
        assert_int_equal(other == n, i == 100);
    }
    for (size_t i = 0; i < KEYS; i++) {
        if (i != 100) {
            store_omap_delete(map, store_omap_get(map, key_of(i)));
        }
    }
    assert_ptr_equal(store_omap_first(map), n);
    assert_ptr_equal(store_omap_last(map), n);
    store_omap_destroy(&map);
}

int main(void)
{
    make_names();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(compares_like_memcmp),
        cmocka_unit_test(same_as_an_array),
        cmocka_unit_test(nodes_stay_where_they_are),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
