/* A replica's rows from outside: chunks of input are rows to put (0), messages to the giving side (1), messages to the
 * receiving side as they are (2) or with checksums and correlation put right (3), and time (4). */
#include <stdlib.h>
#include <string.h>

#include "store/fetch.h"
#include "store/hold.h"
#include "store/kv_rows.h"
#include "store/transfer.h"
#include "tests/fuzz/fuzz.h"
#include "tests/sim/kv_mem.h"

enum { GIVER, TAKER, OTHER, PEERS };

typedef struct world {
    store_kv *kv;
    store_transfer *transfer;
    store_hold *hold;
    store_fetch *fetch;
    store_kv_incoming *in;
    mesh_out *out;
    mesh_arena *arena, *answers;
    mesh_time now;
    uint64_t corr; /* of the taker's last ask */
    uint64_t chunks, begun;
    uint8_t digest[STORE_TRANSFER_SUM], next_digest[STORE_TRANSFER_SUM];
} world;

static const mesh_conf *conf_stores(void)
{
    static mesh_conf *conf;
    static const mesh_node_conf nodes[PEERS] = {
        { .name = "store1", .role = MESH_STORE, .endpoint = "inproc://store1" },
        { .name = "store2", .role = MESH_STORE, .endpoint = "inproc://store2" },
        { .name = "store3", .role = MESH_STORE, .endpoint = "inproc://store3" },
    };
    if (conf == NULL) {
        conf = mesh_conf_new();
        for (size_t i = 0; i < PEERS; i++) {
            if (mesh_conf_add_node(conf, &nodes[i]) != MESH_OK) {
                abort();
            }
        }
    }
    return conf;
}

static void put_rows(world *w, mesh_slice rows)
{
    mesh_buf before = { 0 };
    mesh_slice last = store_kv_incoming_last_key(w->in);
    mesh_buf_put(&before, last.data != NULL ? last.data : (const uint8_t *)"", last.size);
    mesh_err err = store_kv_incoming_put(w->in, rows, (mesh_slice){ (const uint8_t *)"note", 4 });
    mesh_slice after = store_kv_incoming_last_key(w->in);
    bool same = after.size == before.size && (after.size == 0 || memcmp(after.data, before.data, after.size) == 0);
    if ((err != MESH_OK && err != MESH_MALFORMED) || same != (err != MESH_OK || rows.size == 0)) {
        abort();
    }
    mesh_buf_fini(&before);
}

/* Read what was sent; keep what the taker asks for. */
static void drain(world *w)
{
    mesh_peer to;
    mesh_buf frame;
    while (mesh_out_take(w->out, &to, &frame)) {
        mesh_frame_reader r;
        Mesh__Msg *msg;
        mesh_err err = mesh_frame_open(&r, mesh_buf_slice(&frame));
        while (err == MESH_OK && (err = mesh_frame_next(&r, w->answers, &msg, NULL)) == MESH_OK) {
            if (msg->body_case == MESH__MSG__BODY_STATE_ASK) {
                w->corr = msg->corr;
            }
        }
        if (err != MESH_AGAIN) {
            abort();
        }
        mesh_arena_reset(w->answers);
        mesh_buf_fini(&frame);
    }
}

static void put_right(world *w, Mesh__Msg *msg, uint8_t sum[STORE_TRANSFER_SUM])
{
    Mesh__StateChunk *chunk = msg->state_chunk;
    msg->corr = w->corr;
    store_transfer_sum(chunk, sum);
    memcpy(w->next_digest, w->digest, STORE_TRANSFER_SUM);
    store_transfer_chain(w->next_digest, sum);
    chunk->sum = (ProtobufCBinaryData){ STORE_TRANSFER_SUM, sum };
    chunk->digest = (ProtobufCBinaryData){ STORE_TRANSFER_SUM, w->next_digest };
}

static void tell_taker(world *w, Mesh__Msg *msg, bool right)
{
    uint8_t sum[STORE_TRANSFER_SUM];
    if (right) {
        msg->corr = w->corr;
    }
    if (right && msg->body_case == MESH__MSG__BODY_STATE_CHUNK) {
        put_right(w, msg, sum);
    }
    if (store_fetch_takes(w->fetch, msg)) {
        store_fetch_message(w->fetch, GIVER, msg, w->now, w->out);
    }
    store_fetch_counts counts = store_fetch_counted(w->fetch);
    if (counts.begun != w->begun) {
        memset(w->digest, 0, sizeof w->digest);
    } else if (counts.chunks != w->chunks) {
        memcpy(w->digest, w->next_digest, sizeof w->digest);
    }
    w->begun = counts.begun;
    w->chunks = counts.chunks;
}

/* The log begins with 3. */
static void tell_hold(world *w, const Mesh__Msg *msg)
{
    uint64_t words[MESH_REPLICAS_MAX], index = msg->state_hold->index;
    mesh_err err = store_hold_heard(w->hold, msg->key[0] == 'x' ? OTHER : TAKER, msg->state_hold, 3, w->now);
    size_t n = store_hold_words(w->hold, 3, w->now, words);
    bool found = false;
    for (size_t i = 0; i < n; i++) {
        if (words[i] < 3 || words[i] == STORE_HOLD_NONE) {
            abort();
        }
        found = found || words[i] == index;
    }
    if (n > 2 || (err == MESH_OK && index >= 3 && !found)) {
        abort();
    }
}

static void one(world *w, uint8_t what, mesh_slice bytes)
{
    ProtobufCMessage *m = NULL;
    mesh_arena_reset(w->arena);
    if (what == 0) {
        put_rows(w, bytes);
    } else if (what == 4) {
        w->now.mono += bytes.size > 0 ? bytes.data[0] * 100 : 1;
    } else if (mesh_wire_unpack(&mesh__msg__descriptor, bytes, w->arena, &m) == MESH_OK) {
        Mesh__Msg *msg = (Mesh__Msg *)m;
        if (what != 1) {
            tell_taker(w, msg, what == 3);
        } else if (msg->body_case == MESH__MSG__BODY_STATE_HOLD) {
            tell_hold(w, msg);
        } else if (store_transfer_takes(msg)) {
            store_transfer_message(w->transfer, msg->key[0] == 'x' ? OTHER : TAKER, msg, w->now, w->out);
        }
    }
    (void)store_transfer_turn(w->transfer, w->now, w->out);
    (void)store_fetch_turn(w->fetch, w->now, w->out);
    drain(w);
}

static void fill(store_kv *kv)
{
    store_kv_batch *batch = store_kv_batch_new();
    static const char *const rows[][2] = { { "c/x", "1" }, { "m/x1", "22" }, { "u", "" } };
    static const uint8_t applied[] = { 0, 'A' }, index[] = { 8, 7 };
    for (size_t i = 0; i < 3; i++) {
        store_kv_batch_put(batch, (mesh_slice){ (const uint8_t *)rows[i][0], strlen(rows[i][0]) },
                           (mesh_slice){ (const uint8_t *)rows[i][1], strlen(rows[i][1]) });
    }
    store_kv_batch_put(batch, (mesh_slice){ applied, 2 }, (mesh_slice){ index, 2 });
    (void)store_kv_write(kv, batch, true);
    store_kv_batch_destroy(&batch);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char why[256];
    world w = { .now = { 1000, 1700000000000 } };
    const mesh_conf *conf = conf_stores();
    mesh_peer peers[] = { GIVER };
    sim_disk *disks[PEERS] = { sim_disk_new("giver", 1), sim_disk_new("taker", 1), sim_disk_new("rows", 1) };
    store_kv_options options = { .write_buffer = 1 << 20, .block_cache = 1 << 20, .max_open_files = 100 };
    if (store_kv_open("giver", &options, &w.kv, why, sizeof why) != MESH_OK ||
        store_kv_incoming_open("rows", &options, &w.in, why, sizeof why) != MESH_OK) {
        abort();
    }
    fill(w.kv);
    sim_disk_flush_all(disks[0]);
    store_transfer_conf giver = { .conf = conf, .self = GIVER, .boot = 1, .rate = 0 };
    store_fetch_conf taker = { .conf = conf, .self = TAKER, .path = "taker", .options = options, .seed = 1 };
    w.out = mesh_out_new(PEERS);
    w.arena = mesh_arena_new();
    w.answers = mesh_arena_new();
    w.transfer = store_transfer_new(&giver, w.kv);
    w.hold = store_hold_new(conf, GIVER);
    w.fetch = store_fetch_new(&taker, peers, 1, 5, w.now);
    one(&w, 4, (mesh_slice){ NULL, 0 });
    w.begun = 1;
    for (mesh_slice rest = { data, size }, chunk; fuzz_chunk(&rest, &chunk);) {
        if (chunk.size > 0) {
            one(&w, chunk.data[0] % 5, (mesh_slice){ chunk.data + 1, chunk.size - 1 });
        }
    }
    store_kv_incoming_close(&w.in);
    store_fetch_destroy(&w.fetch);
    store_transfer_destroy(&w.transfer);
    store_hold_destroy(&w.hold);
    store_kv_close(&w.kv);
    mesh_out_destroy(&w.out);
    mesh_arena_destroy(&w.arena);
    mesh_arena_destroy(&w.answers);
    for (size_t i = 0; i < PEERS; i++) {
        sim_disk_destroy(&disks[i]);
    }
    return 0;
}
