/* A replica's rows on their way to another one, over a network that loses, doubles, delays and damages, on fake disks.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "mesh/fault.h"
#include "store.pb-c.h"
#include "store/fetch.h"
#include "store/key.h"
#include "store/transfer.h"
#include "tests/sim/kv_mem.c" /* instead of the archive's */

#define STORES 5
#define ROWS 220
#define ROW_BYTES 14000 /* about 3 MB, 12 chunks */
#define WANTED 100

typedef struct node {
    char path[16];
    sim_disk *disk;
    store_kv *kv;
    store_transfer *transfer;
    store_fetch *fetch;
    mesh_out *out;
    uint64_t boot, index; /* index: of the applied row */
    mesh_ms next;         /* deadlines of both */
    bool down;
} node;

typedef struct packet {
    struct packet *next;
    mesh_ms at;
    mesh_peer from, to;
    mesh_buf bytes;
} packet;

typedef struct net {
    mesh_conf *conf;
    node nodes[STORES];
    packet *first; /* by time */
    mesh_rand rand;
    mesh_arena *arena;
    mesh_time now;
    unsigned lose, twice, spoil; /* in 1000 */
    mesh_ms delay;               /* up to */
    mesh_peer spoiler;           /* all chunks from it are damaged */
    uint64_t rate, chunks, most_per_turn;
    bool writes; /* servers go on writing */
} net;

static mesh_slice text(const char *s)
{
    return (mesh_slice){ (const uint8_t *)s, strlen(s) };
}

/* ---- rows ---- */

static void put_applied(node *n, store_kv_batch *batch, uint64_t index)
{
    Store__AppliedRow stands = STORE__APPLIED_ROW__INIT;
    mesh_buf value = { 0 };
    store_key key;
    stands.index = index;
    stands.term = 1;
    mesh_wire_pack(&stands, &value);
    store_key_applied(&key);
    store_kv_batch_put(batch, store_key_slice(&key), mesh_buf_slice(&value));
    mesh_buf_fini(&value);
    n->index = index;
}

/* One log entry's worth of rows. */
static void write_entry(node *n)
{
    char key[32];
    store_kv_batch *batch = store_kv_batch_new();
    snprintf(key, sizeof key, "w%06d", (int)n->index + 1);
    store_kv_batch_put(batch, text(key), text("later"));
    store_kv_batch_delete(batch, text("m/gone"));
    snprintf(key, sizeof key, "m/%04d", (int)(n->index % 10)); /* and an old row gets another value */
    store_kv_batch_put(batch, text(key), text("other"));
    put_applied(n, batch, n->index + 1);
    (void)store_kv_write(n->kv, batch, true);
    store_kv_batch_destroy(&batch);
}

static void fill(node *n)
{
    static char value[ROW_BYTES];
    char key[32];
    store_kv_batch *batch = store_kv_batch_new();
    store_kv_batch_put(batch, (mesh_slice){ (const uint8_t *)"\0H", 2 }, text("hard"));
    store_kv_batch_put(batch, (mesh_slice){ (const uint8_t *)"\0S", 2 }, text("snapshot"));
    store_kv_batch_put(batch, (mesh_slice){ (const uint8_t *)"\0Labcdefgh", 10 }, text("log entry"));
    for (int i = 0; i < ROWS; i++) {
        memset(value, 'a' + i % 26, sizeof value);
        snprintf(key, sizeof key, "m/%04d", i);
        store_kv_batch_put(batch, text(key), (mesh_slice){ (const uint8_t *)value, sizeof value });
    }
    store_kv_batch_put(batch, text("m/gone"), text("not for long"));
    store_kv_batch_put(batch, text("c/empty"), text(""));
    static uint8_t large[600000];
    store_kv_batch_put(batch, text("m/large"), (mesh_slice){ large, sizeof large });
    put_applied(n, batch, WANTED);
    assert_int_equal(store_kv_wait(n->kv, store_kv_write(n->kv, batch, true)), MESH_OK);
    store_kv_batch_destroy(&batch);
}

/* ---- the nodes ---- */

static void node_open(net *w, size_t i)
{
    node *n = &w->nodes[i];
    char why[128] = "";
    assert_int_equal(store_kv_open(n->path, NULL, &n->kv, why, sizeof why), MESH_OK);
    store_transfer_conf conf = { w->conf, (mesh_peer)i, ++n->boot * 1000000007 + i, w->rate };
    n->transfer = store_transfer_new(&conf, n->kv);
    n->next = 0;
    n->down = false;
}

static void node_close(node *n)
{
    n->down = true;
    store_transfer_destroy(&n->transfer);
    store_kv_close(&n->kv);
}

static void fetch_begin(net *w, size_t i, const mesh_peer *peers, size_t n)
{
    store_fetch_conf conf = {
        .conf = w->conf, .self = (mesh_peer)i, .path = w->nodes[i].path, .seed = mesh_rand_next(&w->rand)
    };
    w->nodes[i].fetch = store_fetch_new(&conf, peers, n, WANTED, w->now);
    w->nodes[i].next = 0;
}

static net *net_new(uint64_t seed, size_t servers)
{
    net *w = mesh_alloc(sizeof *w);
    w->conf = mesh_conf_new();
    w->rand.state = seed;
    w->arena = mesh_arena_new();
    w->now = (mesh_time){ 1000, 1700000000000 };
    w->delay = 3;
    w->spoiler = MESH_NO_PEER;
    for (size_t i = 0; i < STORES; i++) {
        mesh_node_conf conf = { .role = MESH_STORE };
        snprintf(conf.name, sizeof conf.name, "store%d", (int)i);
        snprintf(conf.endpoint, sizeof conf.endpoint, "inproc://store%d", (int)i);
        assert_int_equal(mesh_conf_add_node(w->conf, &conf), MESH_OK);
    }
    mesh_node_conf router = { .role = MESH_ROUTER, .name = "router1", .endpoint = "inproc://router1" };
    assert_int_equal(mesh_conf_add_node(w->conf, &router), MESH_OK);
    for (size_t i = 0; i < STORES; i++) {
        node *n = &w->nodes[i];
        snprintf(n->path, sizeof n->path, "/store%d", (int)i);
        n->disk = sim_disk_new(n->path, seed + i);
        n->out = mesh_out_new(mesh_conf_nodes(w->conf));
        node_open(w, i);
        if (i < servers) {
            fill(n);
        }
    }
    return w;
}

static void net_destroy(net *w)
{
    for (size_t i = 0; i < STORES; i++) {
        node *n = &w->nodes[i];
        store_fetch_destroy(&n->fetch);
        node_close(n);
        sim_disk_destroy(&n->disk);
        mesh_out_destroy(&n->out);
    }
    while (w->first != NULL) {
        packet *p = w->first;
        w->first = p->next;
        mesh_buf_fini(&p->bytes);
        free(p);
    }
    mesh_arena_destroy(&w->arena);
    mesh_conf_destroy(&w->conf);
    free(w);
}

/* ---- the network ---- */

static bool one_in(net *w, unsigned of_1000)
{
    return mesh_rand_below(&w->rand, 1000) < of_1000;
}

static void post(net *w, mesh_peer from, mesh_peer to, mesh_slice packed)
{
    packet *p = mesh_alloc(sizeof *p);
    p->at = w->now.mono + 1 + (mesh_ms)mesh_rand_below(&w->rand, (uint64_t)w->delay);
    p->from = from;
    p->to = to;
    mesh_buf_put(&p->bytes, packed.data, packed.size);
    packet **link = &w->first;
    while (*link != NULL && (*link)->at <= p->at) {
        link = &(*link)->next;
    }
    p->next = *link;
    *link = p;
}

/* Damage some bytes of what the chunk carries; the message still decodes. */
static void spoil(net *w, const Mesh__Msg *msg, mesh_buf *out)
{
    Mesh__StateChunk *chunk = msg->state_chunk;
    uint8_t *at = chunk->rows.len > 0 && one_in(w, 800) ? chunk->rows.data + mesh_rand_below(&w->rand, chunk->rows.len)
                                                        : chunk->sum.data + mesh_rand_below(&w->rand, chunk->sum.len);
    *at ^= (uint8_t)(1 + mesh_rand_below(&w->rand, 255));
    mesh_wire_pack(msg, out);
}

static void collect(net *w, size_t i)
{
    mesh_peer to;
    mesh_buf frame, spoilt = { 0 };
    while (mesh_out_take(w->nodes[i].out, &to, &frame)) {
        mesh_frame_reader r;
        Mesh__Msg *msg;
        mesh_slice packed;
        assert_int_equal(mesh_frame_open(&r, mesh_buf_slice(&frame)), MESH_OK);
        while (mesh_frame_next(&r, w->arena, &msg, &packed) == MESH_OK) {
            bool chunk = msg->body_case == MESH__MSG__BODY_STATE_CHUNK;
            w->chunks += chunk;
            if (chunk && (i == w->spoiler || one_in(w, w->spoil))) {
                mesh_buf_clear(&spoilt);
                spoil(w, msg, &spoilt);
                packed = mesh_buf_slice(&spoilt);
            }
            for (unsigned copies = 1 + one_in(w, w->twice); copies > 0; copies--) {
                if (!one_in(w, w->lose)) {
                    post(w, (mesh_peer)i, to, packed);
                }
            }
        }
        mesh_buf_fini(&frame);
        mesh_arena_reset(w->arena);
    }
    mesh_buf_fini(&spoilt);
}

static void node_turn(net *w, size_t i)
{
    node *n = &w->nodes[i];
    uint64_t before = store_transfer_counted(n->transfer).chunks;
    n->next = store_transfer_turn(n->transfer, w->now, n->out);
    uint64_t given = store_transfer_counted(n->transfer).chunks - before;
    w->most_per_turn = given > w->most_per_turn ? given : w->most_per_turn;
    if (n->fetch != NULL) {
        mesh_ms next = store_fetch_turn(n->fetch, w->now, n->out);
        n->next = next < n->next ? next : n->next;
    }
    collect(w, i);
}

static void deliver(net *w, packet *p)
{
    node *n = &w->nodes[p->to];
    ProtobufCMessage *m;
    assert_int_equal(mesh_wire_unpack(&mesh__msg__descriptor, mesh_buf_slice(&p->bytes), w->arena, &m), MESH_OK);
    const Mesh__Msg *msg = (const Mesh__Msg *)m;
    if (n->down) {
        return;
    }
    if (store_transfer_takes(msg)) {
        store_transfer_message(n->transfer, p->from, msg, w->now, n->out);
    } else if (n->fetch != NULL && store_fetch_takes(n->fetch, msg)) {
        store_fetch_message(n->fetch, p->from, msg, w->now, n->out);
    }
    mesh_arena_reset(w->arena);
    node_turn(w, p->to);
}

/* One step of time: to the next packet or deadline, but not beyond until. */
static void step(net *w, mesh_ms until)
{
    mesh_ms next = w->first != NULL && w->first->at < until ? w->first->at : until;
    for (size_t i = 0; i < STORES; i++) {
        next = w->nodes[i].next < next ? w->nodes[i].next : next;
    }
    w->now.mono = next > w->now.mono ? next : w->now.mono;
    if (w->first != NULL && w->first->at <= w->now.mono) {
        packet *p = w->first;
        w->first = p->next;
        deliver(w, p);
        mesh_buf_fini(&p->bytes);
        free(p);
    }
    for (size_t i = 0; i < STORES; i++) {
        node *n = &w->nodes[i];
        if (!n->down && n->next <= w->now.mono) {
            node_turn(w, i);
        }
        if (w->writes && !n->down && n->index > 0) {
            write_entry(n);
            if (one_in(w, 500)) {
                sim_disk_flush(n->disk);
            }
        }
        n->next = n->down ? MESH_NEVER : n->next;
    }
}

static void run_for(net *w, mesh_ms ms)
{
    for (mesh_ms end = w->now.mono + ms; w->now.mono < end;) {
        step(w, end);
    }
}

static mesh_err run_fetch(net *w, size_t i, mesh_ms limit)
{
    mesh_ms end = w->now.mono + limit;
    while (store_fetch_state(w->nodes[i].fetch) == MESH_AGAIN && w->now.mono < end) {
        step(w, end);
    }
    return store_fetch_state(w->nodes[i].fetch);
}

static void run_chunks(net *w, size_t i, uint64_t n)
{
    mesh_ms end = w->now.mono + 60000;
    while (store_fetch_counted(w->nodes[i].fetch).chunks < n && w->now.mono < end) {
        step(w, end);
    }
    assert_int_equal(store_fetch_counted(w->nodes[i].fetch).chunks, n);
}

/* ---- what must come out ---- */

static void expect_row(store_kv *kv, const char *key, mesh_slice value)
{
    mesh_buf got = { 0 };
    if (store_kv_get(kv, text(key), &got) != MESH_OK || store_omap_compare(mesh_buf_slice(&got), value) != 0) {
        fail_msg("row %s is not as it was", key);
    }
    mesh_buf_fini(&got);
}

/* The rows of index, and of nothing later; of consensus, only what the receiver put itself. */
static void expect_copy(store_kv *kv, uint64_t index)
{
    static char value[ROW_BYTES], large[600000];
    char key[32];
    size_t n = 0;
    for (int i = 0; i < ROWS; i++) {
        memset(value, 'a' + i % 26, sizeof value);
        snprintf(key, sizeof key, "m/%04d", i);
        bool other = index >= WANTED + 1 + (uint64_t)i && i < 10;
        expect_row(kv, key, other ? text("other") : (mesh_slice){ (const uint8_t *)value, sizeof value });
    }
    for (uint64_t i = WANTED + 1; i <= index; i++) {
        snprintf(key, sizeof key, "w%06d", (int)i);
        expect_row(kv, key, text("later"));
    }
    expect_row(kv, "m/large", (mesh_slice){ (const uint8_t *)large, sizeof large });
    expect_row(kv, "c/empty", text(""));
    store_kv_iter *it = store_kv_iter_new(kv, (mesh_slice){ (const uint8_t *)"", 0 });
    for (store_kv_iter_first(it); store_kv_iter_valid(it); store_kv_iter_next(it)) {
        n++;
    }
    store_kv_iter_destroy(&it);
    assert_int_equal(n, ROWS + 2 + (index - WANTED) + (index == WANTED) + 2); /* 2: applied, and hard */
    mesh_buf got = { 0 };
    assert_int_equal(store_kv_get(kv, (mesh_slice){ (const uint8_t *)"\0H", 2 }, &got), MESH_OK);
    assert_int_equal(store_omap_compare(mesh_buf_slice(&got), text("own")), 0);
    assert_int_equal(store_kv_get(kv, (mesh_slice){ (const uint8_t *)"\0A", 2 }, &got), MESH_OK);
    uint64_t applied = 0;
    assert_int_equal(store_transfer_applied(mesh_buf_slice(&got), &applied), MESH_OK);
    assert_int_equal(applied, index);
    mesh_buf_fini(&got);
}

static void finish(node *n)
{
    store_kv_batch *extra = store_kv_batch_new();
    store_kv_batch_put(extra, (mesh_slice){ (const uint8_t *)"\0H", 2 }, text("own"));
    assert_int_equal(store_fetch_finish(n->fetch, extra), MESH_OK);
    assert_int_equal(store_kv_batch_rows(extra), 0);
    assert_int_equal(store_fetch_state(n->fetch), MESH_OK);
    store_kv_batch_destroy(&extra);
    store_fetch_destroy(&n->fetch);
}

static void finish_and_check(net *w, size_t i)
{
    node *n = &w->nodes[i];
    char why[128] = "";
    uint64_t index = store_fetch_index(n->fetch);
    finish(n);
    node_close(n);
    assert_int_equal(store_kv_switch(n->path, why, sizeof why), MESH_OK);
    node_open(w, i);
    expect_copy(n->kv, index);
}

/* ---- tests ---- */

static void whole_copy(void **state)
{
    (void)state;
    net *w = net_new(1, 1);
    node *server = &w->nodes[0];
    mesh_peer peers[] = { 0 };
    assert_true(store_transfer_oldest(server->transfer) == STORE_TRANSFER_NONE);
    fetch_begin(w, 1, peers, 1);
    assert_int_equal(store_fetch_index(w->nodes[1].fetch), 0);
    run_chunks(w, 1, 3);
    assert_int_equal(store_transfer_oldest(server->transfer), WANTED);
    for (int i = 0; i < 30; i++) { /* none of it may show */
        write_entry(server);
    }
    sim_disk_flush(server->disk);
    assert_int_equal(run_fetch(w, 1, 1000), MESH_OK);
    run_for(w, 20); /* the server hears that it is done, and holds the log for what comes next */
    assert_int_equal(store_transfer_oldest(server->transfer), WANTED);
    assert_true(server->next <= w->now.mono + STORE_TRANSFER_GRACE_MS);
    run_for(w, STORE_TRANSFER_GRACE_MS);
    assert_true(store_transfer_oldest(server->transfer) == STORE_TRANSFER_NONE);
    store_transfer_counts given = store_transfer_counted(server->transfer);
    store_fetch_counts got = store_fetch_counted(w->nodes[1].fetch);
    assert_int_equal(given.sessions, 1);
    assert_int_equal(given.chunks, got.chunks);
    assert_int_equal(given.bytes, got.bytes);
    assert_true(got.chunks >= 13);
    assert_int_equal(w->most_per_turn, 1);
    assert_int_equal(store_fetch_index(w->nodes[1].fetch), WANTED);
    finish_and_check(w, 1);
    net_destroy(w);
}

static void queued_rows_are_not_given(void **state)
{
    (void)state;
    net *w = net_new(2, 1);
    mesh_peer peers[] = { 0 };
    write_entry(&w->nodes[0]); /* not on disk yet */
    fetch_begin(w, 1, peers, 1);
    assert_int_equal(run_fetch(w, 1, 1000), MESH_OK);
    assert_int_equal(store_fetch_index(w->nodes[1].fetch), WANTED);
    finish_and_check(w, 1);
    net_destroy(w);
}

static void bad_network(void **state)
{
    (void)state;
    uint64_t begun = 0, bad = 0, again = 0;
    for (uint64_t seed = 1; seed <= 40; seed++) {
        net *w = net_new(seed, 3);
        mesh_peer peers[] = { 2, 0, 1 };
        w->lose = 60;
        w->twice = 100;
        w->spoil = 15;
        w->delay = 300;
        w->writes = true;
        fetch_begin(w, 3, peers, 3);
        if (run_fetch(w, 3, 3600000) != MESH_OK) {
            fail_msg("seed %d does not come to an end", (int)seed);
        }
        begun += store_fetch_counted(w->nodes[3].fetch).begun;
        bad += store_fetch_counted(w->nodes[3].fetch).rows_bad;
        for (int i = 0; i < 3; i++) {
            again += store_transfer_counted(w->nodes[i].transfer).again;
        }
        finish_and_check(w, 3);
        net_destroy(w);
    }
    assert_true(begun > 45 && bad > 5 && again > 20); /* it did happen */
}

static void server_restarted(void **state)
{
    (void)state;
    net *w = net_new(3, 1);
    mesh_peer peers[] = { 0 };
    fetch_begin(w, 1, peers, 1);
    run_chunks(w, 1, 5);
    node_close(&w->nodes[0]);
    node_open(w, 0);
    write_entry(&w->nodes[0]);
    sim_disk_flush(w->nodes[0].disk);
    assert_int_equal(run_fetch(w, 1, 10000), MESH_OK);
    assert_int_equal(store_fetch_counted(w->nodes[1].fetch).begun, 2);
    assert_int_equal(store_fetch_index(w->nodes[1].fetch), WANTED + 1);
    assert_int_equal(store_fetch_counted(w->nodes[1].fetch).rows_bad, 0);
    finish_and_check(w, 1);
    net_destroy(w);
}

static void server_gone(void **state)
{
    (void)state;
    net *w = net_new(4, 2);
    mesh_peer peers[] = { 0, 1 };
    fetch_begin(w, 2, peers, 2);
    run_chunks(w, 2, 5);
    w->nodes[0].down = true;
    mesh_ms before = w->now.mono;
    assert_int_equal(run_fetch(w, 2, 60000), MESH_OK);
    assert_true(w->now.mono - before < STORE_FETCH_ASK_MS * STORE_FETCH_TRIES + 1000);
    assert_int_equal(store_transfer_counted(w->nodes[1].transfer).sessions, 1);
    finish_and_check(w, 2);
    net_destroy(w);
}

/* How the receiver goes down: in order, by a crash, or after the last chunk. */
static void receiver_restarted(void **state)
{
    (void)state;
    for (int how = 0; how < 3; how++) {
        net *w = net_new(5, 2);
        node *n = &w->nodes[2];
        mesh_peer peers[] = { 0, 1 }, turned[] = { 1, 0 };
        fetch_begin(w, 2, peers, 2);
        if (how < 2) {
            run_chunks(w, 2, 6);
        } else {
            assert_int_equal(run_fetch(w, 2, 1000), MESH_OK);
        }
        uint64_t had = store_fetch_counted(n->fetch).chunks;
        if (how == 1) {
            store_transfer_destroy(&n->transfer);
            sim_disk_crash(n->disk, &w->rand);
        }
        store_fetch_destroy(&n->fetch);
        node_close(n);
        run_for(w, 1000);
        node_open(w, 2);
        fetch_begin(w, 2, turned, 2);
        if (how == 2) {
            assert_int_equal(store_fetch_state(n->fetch), MESH_OK);
        }
        assert_int_equal(run_fetch(w, 2, 5000), MESH_OK);
        store_fetch_counts got = store_fetch_counted(n->fetch);
        assert_int_equal(got.resumed, 1);
        assert_int_equal(got.begun, 0);
        assert_int_equal(store_transfer_counted(w->nodes[0].transfer).sessions, 1);
        assert_int_equal(store_transfer_counted(w->nodes[1].transfer).sessions, 0);
        assert_true(how == 2 ? got.chunks == 0
                             : got.chunks + had == store_transfer_counted(w->nodes[0].transfer).chunks -
                                                       store_transfer_counted(w->nodes[0].transfer).again);
        finish_and_check(w, 2);
        net_destroy(w);
    }
}

static void session_gone_when_the_receiver_returns(void **state)
{
    (void)state;
    net *w = net_new(6, 1);
    node *n = &w->nodes[1];
    mesh_peer peers[] = { 0 };
    fetch_begin(w, 1, peers, 1);
    run_chunks(w, 1, 6);
    store_fetch_destroy(&n->fetch);
    run_for(w, STORE_TRANSFER_IDLE_MS - 100);
    assert_int_equal(store_transfer_oldest(w->nodes[0].transfer), WANTED);
    run_for(w, 200);
    assert_true(store_transfer_oldest(w->nodes[0].transfer) == STORE_TRANSFER_NONE);
    fetch_begin(w, 1, peers, 1);
    assert_int_equal(run_fetch(w, 1, 5000), MESH_OK);
    assert_int_equal(store_fetch_counted(n->fetch).resumed, 1);
    assert_int_equal(store_fetch_counted(n->fetch).begun, 1);
    finish_and_check(w, 1);
    net_destroy(w);
}

static void more_receivers_than_sessions(void **state)
{
    (void)state;
    net *w = net_new(7, 1);
    mesh_peer peers[] = { 0 };
    for (size_t i = 1; i <= 3; i++) {
        fetch_begin(w, i, peers, 1);
    }
    for (size_t i = 1; i <= 3; i++) {
        assert_int_equal(run_fetch(w, i, 10000), MESH_OK);
    }
    assert_true(store_transfer_counted(w->nodes[0].transfer).refused > 0); /* one had to wait */
    assert_int_equal(store_transfer_counted(w->nodes[0].transfer).sessions, 3);
    assert_int_equal(w->most_per_turn, 1);
    for (size_t i = 1; i <= 3; i++) {
        finish_and_check(w, i);
    }
    net_destroy(w);
}

static void rate_is_kept(void **state)
{
    (void)state;
    net *w = net_new(8, 1);
    mesh_peer peers[] = { 0 };
    w->rate = 1000000;
    node_close(&w->nodes[0]);
    node_open(w, 0);
    mesh_ms begin = w->now.mono;
    fetch_begin(w, 1, peers, 1);
    fetch_begin(w, 2, peers, 1);
    assert_int_equal(run_fetch(w, 1, 60000), MESH_OK);
    assert_int_equal(run_fetch(w, 2, 60000), MESH_OK);
    uint64_t bytes = store_transfer_counted(w->nodes[0].transfer).bytes;
    mesh_ms took = w->now.mono - begin;
    assert_true(bytes > 7000000 && took > (mesh_ms)(bytes - 700000) / 1000 && took < (mesh_ms)bytes / 1000 + 1000);
    assert_int_equal(store_fetch_counted(w->nodes[1].fetch).begun, 1);
    finish_and_check(w, 1);
    finish_and_check(w, 2);
    net_destroy(w);
}

static void lowest_rate_ends(void **state)
{
    (void)state;
    net *w = net_new(9, 1);
    mesh_peer peers[] = { 0 };
    w->rate = 1;
    node_close(&w->nodes[0]);
    node_open(w, 0);
    fetch_begin(w, 1, peers, 1);
    fetch_begin(w, 2, peers, 1);
    assert_int_equal(run_fetch(w, 1, 60000), MESH_OK);
    assert_int_equal(run_fetch(w, 2, 60000), MESH_OK);
    assert_int_equal(store_fetch_counted(w->nodes[1].fetch).begun, 1);
    assert_int_equal(store_fetch_counted(w->nodes[2].fetch).begun, 1);
    net_destroy(w);
}

static void peers_that_cannot(void **state)
{
    (void)state;
    net *w = net_new(10, 4);
    mesh_peer peers[] = { 0, 1, 2, 3 };
    store_kv_batch *batch = store_kv_batch_new();
    put_applied(&w->nodes[0], batch, WANTED - 1); /* behind */
    assert_int_equal(store_kv_wait(w->nodes[0].kv, store_kv_write(w->nodes[0].kv, batch, true)), MESH_OK);
    store_kv_batch_destroy(&batch);
    sim_disk_fail(w->nodes[1].disk, MESH_CORRUPT); /* cannot be read */
    w->spoiler = 2;
    fetch_begin(w, 4, peers, 4);
    assert_int_equal(run_fetch(w, 4, 5000), MESH_OK);
    for (size_t i = 0; i < 2; i++) {
        assert_int_equal(store_transfer_counted(w->nodes[i].transfer).refused, 1);
        assert_int_equal(store_transfer_counted(w->nodes[i].transfer).chunks, 0);
        assert_int_equal(store_kv_error(w->nodes[i].kv), MESH_OK);
    }
    assert_int_equal(store_fetch_counted(w->nodes[4].fetch).rows_bad, 1);
    sim_disk_fail(w->nodes[1].disk, MESH_OK);
    finish_and_check(w, 4);
    net_destroy(w);
}

static void waits_for_a_peer_to_catch_up(void **state)
{
    (void)state;
    net *w = net_new(11, 1);
    mesh_peer peers[] = { 0 };
    store_kv_batch *batch = store_kv_batch_new();
    put_applied(&w->nodes[0], batch, WANTED - 1);
    assert_int_equal(store_kv_wait(w->nodes[0].kv, store_kv_write(w->nodes[0].kv, batch, true)), MESH_OK);
    fetch_begin(w, 1, peers, 1);
    run_for(w, 5500);
    assert_int_equal(store_fetch_state(w->nodes[1].fetch), MESH_AGAIN);
    uint64_t refused = store_transfer_counted(w->nodes[0].transfer).refused;
    assert_true(refused >= 5 && refused <= 6); /* one ask a second */
    put_applied(&w->nodes[0], batch, WANTED);
    assert_int_equal(store_kv_wait(w->nodes[0].kv, store_kv_write(w->nodes[0].kv, batch, true)), MESH_OK);
    assert_int_equal(run_fetch(w, 1, 5000), MESH_OK);
    store_kv_batch_destroy(&batch);
    finish_and_check(w, 1);
    net_destroy(w);
}

static void full_disk(void **state)
{
    (void)state;
    net *w = net_new(12, 1);
    node *n = &w->nodes[1];
    mesh_peer peers[] = { 0 };
    fetch_begin(w, 1, peers, 1);
    run_chunks(w, 1, 4);
    sim_disk_fail(n->disk, MESH_NO_SPACE);
    assert_int_equal(run_fetch(w, 1, 5000), MESH_NO_SPACE);
    assert_true(store_fetch_turn(n->fetch, w->now, n->out) == MESH_NEVER);
    run_for(w, 100);
    assert_true(store_transfer_oldest(w->nodes[0].transfer) == STORE_TRANSFER_NONE); /* it was told */
    store_fetch_destroy(&n->fetch);
    fetch_begin(w, 1, peers, 1); /* still full */
    assert_int_equal(store_fetch_state(n->fetch), MESH_NO_SPACE);
    store_fetch_destroy(&n->fetch);
    sim_disk_fail(n->disk, MESH_OK);
    assert_int_equal(store_kv_incoming_discard(n->path), MESH_OK);
    fetch_begin(w, 1, peers, 1);
    assert_int_equal(run_fetch(w, 1, 5000), MESH_OK);
    assert_int_equal(store_fetch_counted(n->fetch).resumed, 0);
    finish_and_check(w, 1);
    net_destroy(w);
}

static void ask(net *w, mesh_peer from, uint64_t corr, const char *cluster, uint64_t session, uint64_t chunk)
{
    Mesh__StateAsk body = MESH__STATE_ASK__INIT;
    body.cluster = (char *)(uintptr_t)cluster;
    body.session = session;
    body.chunk = chunk;
    MESH_MSG(msg, STATE_ASK, state_ask, &body);
    msg.corr = corr;
    store_transfer_message(w->nodes[0].transfer, from, &msg, w->now, w->nodes[0].out);
    mesh_ms next = 0;
    while (next <= w->now.mono) {
        next = store_transfer_turn(w->nodes[0].transfer, w->now, w->nodes[0].out);
    }
}

/* What the server answered: the code of a fault, or a negative number of chunk; 0 = nothing. */
static int answer(net *w, uint64_t *session)
{
    mesh_peer to;
    mesh_buf frame;
    int what = 0;
    while (mesh_out_take(w->nodes[0].out, &to, &frame)) {
        mesh_frame_reader r;
        Mesh__Msg *msg;
        assert_int_equal(mesh_frame_open(&r, mesh_buf_slice(&frame)), MESH_OK);
        while (mesh_frame_next(&r, w->arena, &msg, NULL) == MESH_OK) {
            assert_int_equal(what, 0);
            if (msg->body_case == MESH__MSG__BODY_FAULT) {
                what = (int)msg->fault->code;
            } else {
                what = -(int)msg->state_chunk->chunk;
                *session = msg->state_chunk->session;
            }
        }
        mesh_buf_fini(&frame);
    }
    mesh_arena_reset(w->arena);
    return what;
}

static void odd_asks(void **state)
{
    (void)state;
    net *w = net_new(13, 1);
    const char *cluster = mesh_conf_str(w->conf, "cluster.name");
    uint64_t s = 0, other = 0;
    ask(w, 5, 1, cluster, 0, 1); /* a router */
    assert_int_equal(answer(w, &s), FAULT_DENIED);
    ask(w, 1, 1, "elsewhere", 0, 1);
    assert_int_equal(answer(w, &s), FAULT_DENIED);
    ask(w, 0, 1, cluster, 0, 1); /* itself */
    assert_int_equal(answer(w, &s), FAULT_DENIED);
    ask(w, 1, 1, cluster, 77, 2);
    assert_int_equal(answer(w, &s), FAULT_NOT_FOUND);
    ask(w, 1, 0, cluster, 0, 1);
    ask(w, 1, 1, cluster, 0, 2);
    ask(w, 1, 1, cluster, 0, 0);
    assert_int_equal(answer(w, &s), 0);
    assert_int_equal(store_transfer_counted(w->nodes[0].transfer).bad, 3);
    ask(w, 1, 10, cluster, 0, 1);
    assert_int_equal(answer(w, &s), -1);
    ask(w, 1, 10, cluster, 0, 1); /* the same again: the same session */
    assert_int_equal(answer(w, &other), -1);
    assert_true(s == other);
    ask(w, 2, 11, cluster, s, 2); /* another's */
    assert_int_equal(answer(w, &other), FAULT_NOT_FOUND);
    ask(w, 1, 12, cluster, s, 3);
    assert_int_equal(answer(w, &other), 0);
    assert_int_equal(store_transfer_counted(w->nodes[0].transfer).bad, 4);
    ask(w, 1, 12, cluster, s, 2);
    assert_int_equal(answer(w, &other), -2);
    ask(w, 1, 10, cluster, 0, 1); /* late */
    assert_int_equal(answer(w, &other), 0);
    ask(w, 1, 13, cluster, 0, 1); /* begins anew: the first one is over */
    assert_int_equal(answer(w, &other), -1);
    assert_true(s != other);
    ask(w, 1, 14, cluster, s, 3);
    assert_int_equal(answer(w, &other), FAULT_NOT_FOUND);
    ask(w, 2, 15, cluster, 0, 1);
    assert_int_equal(answer(w, &other), -1);
    ask(w, 3, 16, cluster, 0, 1); /* a third */
    assert_int_equal(answer(w, &other), FAULT_BUSY);
    node_close(&w->nodes[0]); /* after a restart it gives other ids, so no old one is taken for a new one */
    node_open(w, 0);
    ask(w, 1, 10, cluster, 0, 1);
    assert_int_equal(answer(w, &other), -1);
    assert_true(s != other);
    ask(w, 1, 17, cluster, s, 2);
    assert_int_equal(answer(w, &other), FAULT_NOT_FOUND);
    net_destroy(w);
}

typedef struct bad_chunk {
    const char *what, *first, *second; /* capitals: rows of consensus */
    bool lead;                         /* the applied row goes first */
    bool sum, digest;                  /* is wrong */
} bad_chunk;

static void row_named(mesh_buf *rows, const char *name, mesh_slice value)
{
    char key[16] = "\0";
    size_t raft = name[0] < 'a';
    memcpy(key + raft, name, strlen(name));
    store_kv_rows_put(rows, (mesh_slice){ (const uint8_t *)key, raft + strlen(name) }, value);
}

/* The taker is given this as the only chunk. */
static void give_chunk(const bad_chunk *bad, mesh_slice applied, bool good)
{
    net *w = net_new(14, 0);
    node *n = &w->nodes[1];
    mesh_peer peers[] = { 0 }, to;
    mesh_buf rows = { 0 }, frame;
    Mesh__Msg *got = NULL;
    mesh_frame_reader r;
    fetch_begin(w, 1, peers, 1);
    (void)store_fetch_turn(n->fetch, w->now, n->out);
    assert_true(mesh_out_take(n->out, &to, &frame));
    assert_int_equal(mesh_frame_open(&r, mesh_buf_slice(&frame)), MESH_OK);
    assert_int_equal(mesh_frame_next(&r, w->arena, &got, NULL), MESH_OK);
    if (bad->lead) {
        row_named(&rows, "A", applied);
    }
    row_named(&rows, bad->first, applied);
    row_named(&rows, bad->second, text("x"));
    uint8_t sum[STORE_TRANSFER_SUM], digest[STORE_TRANSFER_SUM] = { 0 };
    Mesh__StateChunk chunk = MESH__STATE_CHUNK__INIT;
    chunk.session = 5;
    chunk.chunk = 1;
    chunk.index = WANTED;
    chunk.last = 1;
    chunk.rows = (ProtobufCBinaryData){ rows.size, rows.data };
    store_transfer_sum(&chunk, sum);
    store_transfer_chain(digest, sum);
    sum[7] ^= bad->sum;
    digest[9] ^= bad->digest;
    chunk.sum = (ProtobufCBinaryData){ sizeof sum, sum };
    chunk.digest = (ProtobufCBinaryData){ sizeof digest, digest };
    MESH_MSG(msg, STATE_CHUNK, state_chunk, &chunk);
    msg.corr = got->corr + 1; /* not what was asked */
    store_fetch_message(n->fetch, 0, &msg, w->now, n->out);
    msg.corr--;
    store_fetch_message(n->fetch, 2, &msg, w->now, n->out); /* not who was asked */
    assert_int_equal(store_fetch_counted(n->fetch).rows_bad, 0);
    store_fetch_message(n->fetch, 0, &msg, w->now, n->out);
    if (store_fetch_state(n->fetch) != (good ? MESH_OK : MESH_AGAIN) ||
        store_fetch_counted(n->fetch).rows_bad != !good) {
        fail_msg("%s: %s", good ? "refused" : "taken", bad->what);
    }
    mesh_buf_fini(&rows);
    mesh_buf_fini(&frame);
    net_destroy(w);
}

static void rows_that_must_not_come(void **state)
{
    (void)state;
    static const bad_chunk good = { .what = "good", .first = "m1", .second = "m2", .lead = true };
    static const bad_chunk bad[] = {
        { .what = "no applied row", .first = "m1", .second = "m2" },
        { .what = "another row in its place", .first = "H", .second = "m" },
        { .what = "keys go back", .first = "m2", .second = "m1", .lead = true },
        { .what = "a key twice", .first = "m1", .second = "m1", .lead = true },
        { .what = "hard state", .first = "H", .second = "m1", .lead = true },
        { .what = "a row of the log", .first = "L00000000", .second = "m", .lead = true },
        { .what = "the note's key", .first = "I", .second = "m", .lead = true },
        { .what = "checksum", .first = "m1", .second = "m2", .lead = true, .sum = true },
        { .what = "digest", .first = "m1", .second = "m2", .lead = true, .digest = true },
    };
    mesh_buf applied = { 0 };
    Store__AppliedRow stands = STORE__APPLIED_ROW__INIT;
    stands.index = WANTED;
    mesh_wire_pack(&stands, &applied);
    give_chunk(&good, mesh_buf_slice(&applied), true);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        give_chunk(&bad[i], mesh_buf_slice(&applied), false);
    }
    mesh_buf_clear(&applied);
    stands.index = WANTED + 1; /* not what the chunk says */
    mesh_wire_pack(&stands, &applied);
    give_chunk(&good, mesh_buf_slice(&applied), false);
    mesh_buf_fini(&applied);
}

/* The switch is killed after each of its steps; the next open settles it, one way or the other. */
static void killed_in_the_switch(void **state)
{
    (void)state;
    for (unsigned steps = 0; steps <= 3; steps++) {
        net *w = net_new(15, 1);
        node *n = &w->nodes[1];
        mesh_peer peers[] = { 0 };
        char why[128] = "";
        store_kv_batch *batch = store_kv_batch_new();
        store_kv_batch_put(batch, text("before"), text("1"));
        assert_int_equal(store_kv_wait(n->kv, store_kv_write(n->kv, batch, true)), MESH_OK);
        store_kv_batch_destroy(&batch);
        fetch_begin(w, 1, peers, 1);
        assert_int_equal(run_fetch(w, 1, 5000), MESH_OK);
        finish(n);
        node_close(n);
        sim_disk_kill_switch(n->disk, steps);
        assert_int_equal(store_kv_switch(n->path, why, sizeof why), steps == 3 ? MESH_OK : MESH_IO);
        node_open(w, 1);
        if (steps == 0) { /* undone */
            mesh_buf got = { 0 };
            assert_int_equal(store_kv_get(n->kv, text("before"), &got), MESH_OK);
            assert_int_equal(sim_disk_rows(n->disk), 1);
            mesh_buf_fini(&got);
        } else {
            expect_copy(n->kv, WANTED);
        }
        node_close(n);
        assert_int_equal(store_kv_switch(n->path, why, sizeof why), MESH_NOT_FOUND); /* nothing is left over */
        node_open(w, 1);
        net_destroy(w);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(whole_copy),
        cmocka_unit_test(queued_rows_are_not_given),
        cmocka_unit_test(bad_network),
        cmocka_unit_test(server_restarted),
        cmocka_unit_test(server_gone),
        cmocka_unit_test(receiver_restarted),
        cmocka_unit_test(session_gone_when_the_receiver_returns),
        cmocka_unit_test(more_receivers_than_sessions),
        cmocka_unit_test(rate_is_kept),
        cmocka_unit_test(lowest_rate_ends),
        cmocka_unit_test(peers_that_cannot),
        cmocka_unit_test(waits_for_a_peer_to_catch_up),
        cmocka_unit_test(full_disk),
        cmocka_unit_test(odd_asks),
        cmocka_unit_test(rows_that_must_not_come),
        cmocka_unit_test(killed_in_the_switch),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
