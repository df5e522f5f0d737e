/* tests/sim/check_replica.c: the replicas of a shard are one machine: what has applied the same log holds the same
 * rows. Only Raft's own rows, which begin with a zero byte, are each replica's. */
#include "tests/sim/impl.h"

#include <inttypes.h>
#include <string.h>

#include "store.pb-c.h"
#include "store/key.h"
#include "store/metrics.h"

#define CATCH_UP_MS 10000

/* 0: nothing yet, or not open. */
static uint64_t applied_of(sim_node *n)
{
    store_key key;
    mesh_buf value = { 0 };
    ProtobufCMessage *row;
    uint64_t index = 0;
    if (!n->store) {
        return 0;
    }
    store_key_applied(&key);
    mesh_err err = store_kv_get(n->kv, store_key_slice(&key), &value);
    if (err == MESH_OK) {
        mesh_arena_reset(n->s->arena);
        err = mesh_wire_unpack(&store__applied_row__descriptor, mesh_buf_slice(&value), n->s->arena, &row);
        if (err == MESH_OK) {
            index = ((const Store__AppliedRow *)row)->index;
        } else {
            sim_complain(n->s, "%s: its applied index does not read back", n->name);
        }
    }
    mesh_buf_fini(&value);
    return index;
}

static bool is_rafts(mesh_slice key)
{
    return key.size > 0 && key.data[0] == 0;
}

static void skip_rafts(store_kv_iter *it)
{
    while (store_kv_iter_valid(it) && is_rafts(store_kv_iter_key(it))) {
        store_kv_iter_next(it);
    }
}

static int compare_slices(mesh_slice a, mesh_slice b)
{
    size_t n = a.size < b.size ? a.size : b.size;
    int c = n ? memcmp(a.data, b.data, n) : 0;
    return c ? c : (a.size > b.size) - (a.size < b.size);
}

/* A key with what cannot be read shown as dots. */
static void complain_of(sim *s, const sim_node *a, const sim_node *b, mesh_slice key, const char *what)
{
    char text[96];
    size_t n = key.size < sizeof text - 1 ? key.size : sizeof text - 1;
    for (size_t i = 0; i < n; i++) {
        text[i] = key.data[i] > ' ' && key.data[i] < 127 ? (char)key.data[i] : '.';
    }
    text[n] = 0;
    sim_complain(s, "%s and %s have applied the same, and row %s %s", a->name, b->name, text, what);
}

static void compare_rows(sim_node *a, sim_node *b)
{
    store_kv_iter *x = store_kv_iter_new(a->kv, (mesh_slice){ 0 });
    store_kv_iter *y = store_kv_iter_new(b->kv, (mesh_slice){ 0 });
    store_kv_iter_first(x);
    store_kv_iter_first(y);
    for (;; store_kv_iter_next(x), store_kv_iter_next(y)) {
        skip_rafts(x);
        skip_rafts(y);
        bool more_x = store_kv_iter_valid(x), more_y = store_kv_iter_valid(y);
        if (!more_x && !more_y) {
            break;
        }
        int c = !more_y ? -1 : !more_x ? 1 : compare_slices(store_kv_iter_key(x), store_kv_iter_key(y));
        if (c != 0) {
            complain_of(a->s, a, b, store_kv_iter_key(c < 0 ? x : y),
                        c < 0 ? "is not in the second" : "not in the first");
            break;
        }
        if (compare_slices(store_kv_iter_value(x), store_kv_iter_value(y)) != 0) {
            complain_of(a->s, a, b, store_kv_iter_key(x), "differs");
            break;
        }
    }
    store_kv_iter_destroy(&x);
    store_kv_iter_destroy(&y);
}

/* The next store of n's shard, or NULL. */
static sim_node *next_replica(sim_node *n)
{
    sim *s = n->s;
    for (size_t i = (size_t)n->self + 1; i < s->n_nodes; i++) {
        if (s->nodes[i].role == MESH_STORE && s->nodes[i].shard == n->shard) {
            return &s->nodes[i];
        }
    }
    return NULL;
}

void sim_check_replicas(sim *s)
{
    for (size_t i = 0; i < s->n_nodes; i++) {
        sim_node *a = &s->nodes[i];
        uint64_t applied = a->role == MESH_STORE ? applied_of(a) : 0;
        for (sim_node *b = applied ? next_replica(a) : NULL; b; b = next_replica(b)) {
            if (applied_of(b) == applied && !sim_disk_is_flipped(a->disk) && !sim_disk_is_flipped(b->disk)) {
                compare_rows(a, b);
            }
        }
    }
}

bool sim_replicas_even(sim *s, const char *store)
{
    const sim_node *mine = sim_node_find(s, store);
    uint64_t last = 0, applied = 0;
    for (size_t i = 0; i < s->n_nodes; i++) {
        sim_node *n = &s->nodes[i];
        if (n->role != MESH_STORE || n->shard != mine->shard) {
            continue;
        }
        if (!n->store || n->paused_until > s->now || !store_core_votes(n->store) || sim_disk_has_pending(n->disk)) {
            return false;
        }
        uint64_t its_last = mesh_stats_get(store_core_stats(n->store), STORE_M_LAST);
        if (last != 0 && (its_last != last || applied_of(n) != applied)) {
            return false;
        }
        last = its_last;
        applied = applied_of(n);
    }
    return last != 0;
}

static sim_node *behind(sim *s)
{
    for (size_t i = 0; i < s->n_nodes; i++) {
        sim_node *a = &s->nodes[i];
        sim_node *b = a->role == MESH_STORE ? next_replica(a) : NULL;
        if (b && applied_of(a) != applied_of(b)) {
            return applied_of(a) < applied_of(b) ? a : b;
        }
    }
    return NULL;
}

void sim_check_replicas_wait(sim *s)
{
    if (!SIM_WAIT(s, CATCH_UP_MS, !behind(s))) {
        sim_complain(s, "%s has applied only up to %" PRIu64 ", not all its shard has", behind(s)->name,
                     applied_of(behind(s)));
    }
}
