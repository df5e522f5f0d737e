/* What a replica of a group of three takes from the others, and what comes after it. First byte: bit 0, a joiner with
 * an empty log; bit 3, it starts again, and the first chunk is its row of what replicas have confirmed. Chunks: one
 * byte what happens (time goes by, the disk writes, something is submitted, the log is trimmed, a peer says what was
 * confirmed), or, from 8 on, a message. Sender, receiver and terms are made such that it is not refused for these
 * alone.
 */
#include <stdlib.h>
#include <string.h>

#include "store/consensus.h"
#include "tests/fuzz/fuzz.h"
#include "tests/sim/kv_mem.h"

#define TRAIL 4096

typedef struct fuzzed {
    store_kv *kv;
    store_consensus *cons;
    sim_disk *disk;
    mesh_time now;
    uint64_t applied;
} fuzzed;

static void on_committed(void *arg, uint64_t index, uint64_t term, mesh_slice payload, bool own)
{
    fuzzed *f = arg;
    (void)payload;
    (void)own;
    if (index <= f->applied || term == 0) {
        abort();
    }
    f->applied = index;
}

static void on_send(void *arg, uint64_t to, const char *to_address, const Mesh__Raft *msg)
{
    (void)arg;
    if (to == 0 || to_address[0] == 0 || msg->to != to || mesh_wire_size(msg) > MESH_MSG_MAX) {
        abort();
    }
}

static void take(fuzzed *f, mesh_slice bytes)
{
    static const char *const names[] = { "a", "b", "c", "d" };
    static mesh_arena *arena;
    arena = arena == NULL ? mesh_arena_new() : arena;
    mesh_arena_reset(arena);
    ProtobufCMessage *message;
    if (mesh_wire_unpack(&mesh__raft__descriptor, bytes, arena, &message) != MESH_OK) {
        return;
    }
    Mesh__Raft *msg = (Mesh__Raft *)message;
    msg->shard = 0;
    msg->to = 1;
    msg->from = 1 + msg->from % 4;
    msg->from_address = (char *)(uintptr_t)names[msg->from - 1];
    msg->term %= 64;
    mesh_err err = store_consensus_receive(f->cons, msg, f->now);
    (void)err;
}

/* A peer's word. No raft id may come to stand twice. */
static void learn(fuzzed *f, mesh_slice bytes)
{
    store_confirmed list[STORE_MEMBERS_MAX];
    for (size_t i = 0; i + 1 < bytes.size; i += 2) {
        store_consensus_learn(f->cons, bytes.data[i] % 6, bytes.data[i + 1]);
    }
    store_consensus_take_stock(f->cons);
    size_t n = store_consensus_confirmed_all(f->cons, list);
    for (size_t i = 0; i < n; i++) {
        for (size_t j = 0; j < i; j++) {
            if (list[i].raft_id == list[j].raft_id) {
                abort();
            }
        }
    }
}

static void happen(fuzzed *f, mesh_slice chunk)
{
    uint64_t index;
    switch (chunk.data[0]) {
    case 0:
        f->now.mono += 1000;
        break;
    case 1:
        f->now.mono += 60;
        break;
    case 2:
        (void)sim_disk_flush(f->disk);
        break;
    case 3:
        if (store_consensus_submit(f->cons, chunk, f->now, &index) != MESH_OK) {
            return;
        }
        break;
    case 4:
        store_consensus_trim(f->cons, f->applied, f->now);
        break;
    case 5:
        if (store_consensus_transfer(f->cons, 0, f->now) != MESH_OK) {
            return;
        }
        break;
    case 6:
        learn(f, (mesh_slice){ chunk.data + 1, chunk.size - 1 });
        break;
    default:
        take(f, (mesh_slice){ chunk.data + 1, chunk.size - 1 });
        return;
    }
    store_consensus_step(f->cons, f->now);
}

static mesh_err start(fuzzed *f, bool joins)
{
    static const store_replica group[] = { { 1, "a" }, { 2, "b" }, { 3, "c" } };
    char why[256];
    store_consensus_conf conf = { .raft_id = 1, .cluster = "c", .address = "a", .seed = 1, .trail = TRAIL };
    conf.group = group;
    conf.n_group = joins ? 0 : 3;
    conf.send = on_send;
    f->applied = 0;
    mesh_err err = store_kv_open("fuzz", NULL, &f->kv, why, sizeof why);
    return err != MESH_OK ? err
                          : store_consensus_open(&conf, f->kv, 0, f->now, on_committed, f, &f->cons, why, sizeof why);
}

static void stop(fuzzed *f)
{
    if (f->cons != NULL) {
        store_consensus_close(&f->cons);
    }
    store_kv_close(&f->kv);
}

/* Only nonsense in the row may keep it from starting. */
static bool start_again(fuzzed *f, bool joins, mesh_slice row)
{
    static const uint8_t key[] = { 0, 'C' };
    store_kv_batch *batch = store_kv_batch_new();
    store_kv_batch_put(batch, (mesh_slice){ key, sizeof key }, row);
    (void)store_kv_write(f->kv, batch, true);
    store_kv_batch_destroy(&batch);
    stop(f);
    mesh_err err = start(f, joins);
    if (err != MESH_OK && err != MESH_CORRUPT) {
        abort();
    }
    return err == MESH_OK;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0) {
        return 0;
    }
    fuzzed f = { .disk = sim_disk_new("fuzz", 1), .now = { 1000, 0 } };
    bool joins = (data[0] & 1) != 0, again = (data[0] & 8) != 0;
    if (start(&f, joins) != MESH_OK) {
        abort();
    }
    mesh_slice rest = { data + 1, size - 1 }, chunk;
    bool runs = !again || (fuzz_chunk(&rest, &chunk) && start_again(&f, joins, chunk));
    while (runs && fuzz_chunk(&rest, &chunk)) {
        if (chunk.size > 0) {
            happen(&f, chunk);
        }
    }
    stop(&f);
    sim_disk_destroy(&f.disk);
    return 0;
}
