/* What replicas that are behind say about the log, and who listens. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "mesh/alloc.h"
#include "store/core.h"
#include "store/hold.h"
#include "store/metrics.h"
#include "store/transfer.h"
#include "tests/sim/kv_mem.c" /* instead of the archive's */

enum { S1, S2, S3, ELSEWHERE, ROUTER, OPERATOR, NODES };
#define SHARD 1

typedef struct world {
    mesh_conf *conf;
    store_hold *hold;
    mesh_out *out;
    mesh_time now;
    uint64_t up[NODES];
    mesh_arena *arena;
} world;

static mesh_conf *conf_new(void)
{
    static const mesh_node_conf nodes[NODES] = {
        { .name = "store1", .role = MESH_STORE, .shard = SHARD, .endpoint = "inproc://store1" },
        { .name = "store2", .role = MESH_STORE, .shard = SHARD, .endpoint = "inproc://store2" },
        { .name = "store3", .role = MESH_STORE, .shard = SHARD, .endpoint = "inproc://store3" },
        { .name = "store4", .role = MESH_STORE, .shard = 0, .endpoint = "inproc://store4" },
        { .name = "router1", .role = MESH_ROUTER, .endpoint = "inproc://router1" },
        { .name = "operator", .role = MESH_OPERATOR },
    };
    mesh_conf *conf = mesh_conf_new();
    for (size_t i = 0; i < NODES; i++) {
        assert_int_equal(mesh_conf_add_node(conf, &nodes[i]), MESH_OK);
    }
    return conf;
}

static world *world_new(void)
{
    world *w = mesh_alloc(sizeof *w);
    w->conf = conf_new();
    w->hold = store_hold_new(w->conf, S1);
    w->out = mesh_out_new(NODES);
    w->now = (mesh_time){ 1000, 0 };
    w->arena = mesh_arena_new();
    for (size_t i = 0; i < NODES; i++) {
        w->up[i] = 1;
    }
    return w;
}

static void world_destroy(world *w)
{
    store_hold_destroy(&w->hold);
    mesh_out_destroy(&w->out);
    mesh_arena_destroy(&w->arena);
    mesh_conf_destroy(&w->conf);
    free(w);
}

/* ---- saying ---- */

/* What was put out: a bit for each peer that is told just this. */
static unsigned told(world *w, uint64_t index)
{
    unsigned peers = 0;
    mesh_peer to;
    mesh_buf frame;
    while (mesh_out_take(w->out, &to, &frame)) {
        mesh_frame_reader r;
        Mesh__Msg *msg;
        mesh_arena_reset(w->arena);
        assert_int_equal(mesh_frame_open(&r, mesh_buf_slice(&frame)), MESH_OK);
        assert_int_equal(mesh_frame_next(&r, w->arena, &msg, NULL), MESH_OK);
        assert_int_equal(msg->body_case, MESH__MSG__BODY_STATE_HOLD);
        assert_int_equal(msg->state_hold->shard, SHARD);
        assert_int_equal(msg->state_hold->index, index);
        assert_int_equal(mesh_frame_next(&r, w->arena, &msg, NULL), MESH_AGAIN);
        peers |= 1u << to;
        mesh_buf_fini(&frame);
    }
    return peers;
}

static void said_again_and_again_until_it_follows(void **state)
{
    (void)state;
    const unsigned all = 1u << S2 | 1u << S3;
    world *w = world_new();
    assert_int_equal(store_hold_say(w->hold, 0, false, w->up, w->now, w->out), MESH_NEVER);
    assert_int_equal(told(w, 0), 0); /* nobody was told otherwise */
    assert_int_equal(store_hold_say(w->hold, 7, false, w->up, w->now, w->out), w->now.mono + STORE_HOLD_SAY_MS);
    assert_int_equal(told(w, 7), all);
    w->now.mono += STORE_HOLD_SAY_MS - 1;
    assert_int_equal(store_hold_say(w->hold, 8, false, w->up, w->now, w->out), w->now.mono + 1);
    assert_int_equal(told(w, 8), 0); /* it gets on: no hurry */
    (void)store_hold_say(w->hold, 100, true, w->up, w->now, w->out);
    assert_int_equal(told(w, 100), all); /* a copy: at once */
    w->now.mono += STORE_HOLD_SAY_MS;
    w->up[S2] = 0;
    (void)store_hold_say(w->hold, 100, true, w->up, w->now, w->out);
    assert_int_equal(told(w, 100), 1u << S3);
    w->up[S2] = 2;
    assert_int_equal(store_hold_say(w->hold, 0, false, w->up, w->now, w->out), MESH_NEVER);
    assert_int_equal(told(w, 0), all);
    w->now.mono += 10 * STORE_HOLD_SAY_MS;
    (void)store_hold_say(w->hold, 0, false, w->up, w->now, w->out);
    assert_int_equal(told(w, 0), 0); /* once is enough: it ends by itself, too */
    world_destroy(w);
}

/* ---- listening ---- */

static mesh_err hear(world *w, mesh_peer from, uint32_t shard, uint64_t index, uint64_t first)
{
    Mesh__StateHold msg = MESH__STATE_HOLD__INIT;
    msg.shard = shard;
    msg.index = index;
    return store_hold_heard(w->hold, from, &msg, first, w->now);
}

/* The lowest of the words that count. */
static uint64_t lowest(world *w, uint64_t first)
{
    uint64_t words[MESH_REPLICAS_MAX], least = STORE_HOLD_NONE;
    size_t n = store_hold_words(w->hold, first, w->now, words);
    for (size_t i = 0; i < n; i++) {
        least = words[i] < least ? words[i] : least;
    }
    return least;
}

static void counts_for_a_while(void **state)
{
    (void)state;
    world *w = world_new();
    assert_int_equal(lowest(w, 0), STORE_HOLD_NONE);
    assert_int_equal(hear(w, S2, SHARD, 50, 10), MESH_OK);
    assert_int_equal(hear(w, S3, SHARD, 70, 10), MESH_OK);
    assert_int_equal(lowest(w, 10), 50);
    w->now.mono += STORE_TRANSFER_GRACE_MS - 1;
    assert_int_equal(hear(w, S3, SHARD, 71, 10), MESH_OK); /* renewed */
    assert_int_equal(lowest(w, 10), 50);
    w->now.mono++;
    assert_int_equal(lowest(w, 10), 71);
    assert_int_equal(hear(w, S3, SHARD, 0, 10), MESH_OK); /* it follows */
    assert_int_equal(lowest(w, 10), STORE_HOLD_NONE);
    world_destroy(w);
}

static void what_is_gone_is_not_held(void **state)
{
    (void)state;
    world *w = world_new();
    assert_int_equal(hear(w, S2, SHARD, 100, 100), MESH_OK);
    assert_int_equal(lowest(w, 100), 100);
    assert_int_equal(hear(w, S2, SHARD, 5, 100), MESH_OK); /* started again on its old rows: it will need 100 yet */
    assert_int_equal(lowest(w, 100), 100);
    assert_int_equal(lowest(w, 101), STORE_HOLD_NONE); /* trimmed all the same */
    assert_int_equal(hear(w, S3, SHARD, 99, 100), MESH_OK);
    assert_int_equal(lowest(w, 100), 100);
    world_destroy(w);
}

static void nonsense(void **state)
{
    (void)state;
    world *w = world_new();
    assert_int_equal(hear(w, ELSEWHERE, 0, 50, 0), MESH_MALFORMED);
    assert_int_equal(hear(w, ELSEWHERE, SHARD, 50, 0), MESH_MALFORMED);
    assert_int_equal(hear(w, ROUTER, SHARD, 50, 0), MESH_MALFORMED);
    assert_int_equal(hear(w, OPERATOR, SHARD, 50, 0), MESH_MALFORMED);
    assert_int_equal(hear(w, S1, SHARD, 50, 0), MESH_MALFORMED);
    assert_int_equal(hear(w, S2, 0, 50, 0), MESH_MALFORMED);
    assert_int_equal(hear(w, S2, SHARD, STORE_HOLD_NONE, 0), MESH_MALFORMED);
    assert_int_equal(lowest(w, 0), STORE_HOLD_NONE);
    world_destroy(w);
}

static void limits(void **state)
{
    (void)state;
    assert_true(store_hold_fits(1000, STORE_HOLD_ENTRIES, 1000));
    assert_false(store_hold_fits(1001, STORE_HOLD_ENTRIES, 1000));
    assert_false(store_hold_fits(1000, STORE_HOLD_ENTRIES + 1, 1000));
    assert_false(store_hold_fits(1, 1, 0)); /* store.log_hold_mib=0 */
}

/* The same through a core: counted, and nothing else. */
static void a_core_counts_nonsense(void **state)
{
    (void)state;
    char why[256];
    world *w = world_new();
    sim_disk *disk = sim_disk_new("hold", 1);
    store_kv *kv = NULL;
    store_core *core = NULL;
    store_core_conf conf = { .conf = w->conf, .self = S1, .seed = 1 };
    assert_int_equal(store_kv_open("hold", NULL, &kv, why, sizeof why), MESH_OK);
    assert_int_equal(store_core_new(&conf, kv, w->now, &core, why, sizeof why), MESH_OK);
    static const struct {
        mesh_peer from;
        uint32_t shard;
        unsigned bad;
    } words[] = {
        { S2, SHARD, 0 }, { S2, 0, 1 }, { ELSEWHERE, SHARD, 1 }, { ROUTER, SHARD, 1 }, { OPERATOR, SHARD, 1 }
    };
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        Mesh__StateHold word = MESH__STATE_HOLD__INIT;
        word.shard = words[i].shard;
        word.index = 9;
        MESH_MSG(msg, STATE_HOLD, state_hold, &word);
        mesh_buf packed = { 0 };
        mesh_wire_pack(&msg, &packed);
        uint64_t before = mesh_stats_get(store_core_stats(core), STORE_M_BAD_MESSAGES);
        store_core_message(core, words[i].from, &msg, mesh_buf_slice(&packed), w->now, w->out);
        assert_int_equal(mesh_stats_get(store_core_stats(core), STORE_M_BAD_MESSAGES) - before, words[i].bad);
        mesh_buf_fini(&packed);
    }
    store_core_destroy(&core);
    store_kv_close(&kv);
    sim_disk_destroy(&disk);
    world_destroy(w);
}

/* Counters of one core go on in the next; gauges begin anew. */
static void counters_outlive_a_core(void **state)
{
    (void)state;
    char why[256];
    world *w = world_new();
    mesh_stats *stats = store_metrics_new();
    sim_disk *disk = sim_disk_new("hold", 1);
    for (uint64_t i = 0; i < 2; i++) {
        store_kv *kv = NULL;
        store_core *core = NULL;
        store_core_conf conf = { .conf = w->conf, .self = S1, .seed = 1, .stats = stats };
        assert_int_equal(store_kv_open("hold", NULL, &kv, why, sizeof why), MESH_OK);
        assert_int_equal(store_core_new(&conf, kv, w->now, &core, why, sizeof why), MESH_OK);
        assert_int_equal(mesh_stats_get(store_core_stats(core), STORE_M_COPIES), i);
        assert_int_equal(mesh_stats_get(store_core_stats(core), STORE_M_VOTES), 0);
        Mesh__StateAsk ask = MESH__STATE_ASK__INIT; /* this store is empty: it is refused */
        ask.cluster = "parley";
        ask.shard = SHARD;
        ask.wanted = 5;
        ask.chunk = 1;
        MESH_MSG(msg, STATE_ASK, state_ask, &ask);
        msg.corr = i + 1;
        store_core_message(core, S2, &msg, (mesh_slice){ (const uint8_t *)"", 0 }, w->now, w->out);
        mesh_stats_add(stats, STORE_M_COPIES, 1);
        mesh_stats_set(stats, STORE_M_VOTES, 1);
        store_core_destroy(&core);
        store_kv_close(&kv);
        assert_int_equal(mesh_stats_get(stats, STORE_M_COPY_REFUSED), i + 1);
    }
    mesh_stats_destroy(&stats);
    sim_disk_destroy(&disk);
    world_destroy(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(said_again_and_again_until_it_follows),
        cmocka_unit_test(counts_for_a_while),
        cmocka_unit_test(what_is_gone_is_not_held),
        cmocka_unit_test(nonsense),
        cmocka_unit_test(limits),
        cmocka_unit_test(a_core_counts_nonsense),
        cmocka_unit_test(counters_outlive_a_core),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
