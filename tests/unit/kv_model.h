/* tests/unit/kv_model.h: store/kv.h against a sorted model, whichever implementation is linked. */
#ifndef TESTS_KV_MODEL_H
#define TESTS_KV_MODEL_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mesh/rand.h"
#include "store/kv.h"
#include "store/omap.h"

#define MODEL_KEYS 400

typedef struct kv_model {
    char value[MODEL_KEYS][24]; /* "" = absent */
} kv_model;

static mesh_slice text(const char *s)
{
    return (mesh_slice){ (const uint8_t *)s, strlen(s) };
}

/* Three prefixes: "a", "b" and 0xff, which has no successor. */
static const char *model_key(char out[16], size_t i)
{
    snprintf(out, 16, "%c%04zu", i % 3 == 0 ? 'a' : i % 3 == 1 ? 'b' : '\xff', i);
    return out;
}

static void model_write(kv_model *m, store_kv *kv, store_kv_batch *batch, mesh_rand *r, bool sync)
{
    size_t rows = 1 + (size_t)mesh_rand_below(r, 8);
    for (size_t n = 0; n < rows; n++) {
        char key[16];
        size_t i = (size_t)mesh_rand_below(r, MODEL_KEYS);
        model_key(key, i);
        if (mesh_rand_below(r, 3) == 0) {
            store_kv_batch_delete(batch, text(key));
            m->value[i][0] = 0;
        } else {
            snprintf(m->value[i], sizeof m->value[i], "v%u", (unsigned)mesh_rand_below(r, 1000000));
            store_kv_batch_put(batch, text(key), text(m->value[i]));
        }
    }
    assert_int_equal(store_kv_batch_rows(batch), rows);
    (void)store_kv_write(kv, batch, sync);
    assert_int_equal(store_kv_batch_rows(batch), 0);
}

/* Index of the model's neighbour of `from` (inclusive) among keys with first byte c; MODEL_KEYS if none. Keys of one
 * first byte are every third, in order. */
static size_t model_seek(const kv_model *m, char c, const char *from, bool backward)
{
    size_t best = MODEL_KEYS;
    for (size_t i = c == 'a' ? 0 : c == 'b' ? 1 : 2; i < MODEL_KEYS; i += 3) {
        if (m->value[i][0] == 0) {
            continue;
        }
        char key[16];
        int cmp = from == NULL ? 0 : strcmp(model_key(key, i), from);
        if (!backward && cmp >= 0) {
            return i;
        }
        best = backward && cmp <= 0 ? i : best;
    }
    return best;
}

static void model_expect(const kv_model *m, const store_kv_iter *it, size_t i)
{
    assert_int_equal(store_kv_iter_valid(it), i < MODEL_KEYS);
    if (i < MODEL_KEYS) {
        char key[16];
        assert_int_equal(store_omap_compare(store_kv_iter_key(it), text(model_key(key, i))), 0);
        assert_int_equal(store_omap_compare(store_kv_iter_value(it), text(m->value[i])), 0);
    }
}

/* A random walk of one iterator. */
static void model_walk(const kv_model *m, store_kv *kv, mesh_rand *r)
{
    char c = "ab\xff"[mesh_rand_below(r, 3)];
    char prefix[2] = { c, 0 }, from[16];
    store_kv_iter *it = store_kv_iter_new(kv, text(prefix));
    size_t i = MODEL_KEYS;
    for (int step = 0; step < 12; step++) {
        uint64_t what = mesh_rand_below(r, i < MODEL_KEYS ? 12 : 4);
        model_key(from, (size_t)mesh_rand_below(r, MODEL_KEYS));
        if (mesh_rand_below(r, 4) == 0) {
            from[2] = '!'; /* a key that is not there */
        }
        if (what == 0) {
            store_kv_iter_first(it);
            i = model_seek(m, c, NULL, false);
        } else if (what == 1) {
            store_kv_iter_last(it);
            i = model_seek(m, c, NULL, true);
        } else if (what == 2) {
            store_kv_iter_seek(it, text(from));
            i = model_seek(m, c, from, false);
        } else if (what == 3) {
            store_kv_iter_seek_back(it, text(from));
            i = model_seek(m, c, from, true);
        } else {
            char here[20];
            model_key(here, i);
            if (what < 8) {
                strcat(here, "+");
                store_kv_iter_next(it);
                i = model_seek(m, c, here, false);
            } else {
                here[4]--; /* just below: nothing lies between */
                strcat(here, "~");
                store_kv_iter_prev(it);
                i = model_seek(m, c, here, true);
            }
        }
        model_expect(m, it, i);
    }
    assert_int_equal(store_kv_iter_status(it), MESH_OK);
    store_kv_iter_destroy(&it);
}

static void model_check(const kv_model *m, store_kv *kv)
{
    mesh_buf value = { 0 };
    for (size_t i = 0; i < MODEL_KEYS; i++) {
        char key[16];
        mesh_err err = store_kv_get(kv, text(model_key(key, i)), &value);
        assert_int_equal(err, m->value[i][0] != 0 ? MESH_OK : MESH_NOT_FOUND);
        if (err == MESH_OK) {
            assert_int_equal(store_omap_compare(mesh_buf_slice(&value), text(m->value[i])), 0);
        }
    }
    mesh_buf_fini(&value);
}

#endif
