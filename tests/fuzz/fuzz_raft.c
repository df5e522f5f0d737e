/* What a replica of a group of three takes from the others, and what comes after it. First byte: bit 0, a joiner with
 * an empty log. Chunks: one byte what happens (time goes by, the disk writes, something is submitted, the log is
 * trimmed), or, from 8 on, a message. Sender, receiver and terms are made such that it is not refused for these alone.
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
    default:
        take(f, (mesh_slice){ chunk.data + 1, chunk.size - 1 });
        return;
    }
    store_consensus_step(f->cons, f->now);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const store_replica group[] = { { 1, "a" }, { 2, "b" }, { 3, "c" } };
    if (size == 0) {
        return 0;
    }
    char why[256];
    fuzzed f = { .disk = sim_disk_new("fuzz", 1), .now = { 1000, 0 } };
    store_consensus_conf conf = { .raft_id = 1, .cluster = "c", .address = "a", .seed = 1, .trail = TRAIL };
    conf.group = group;
    conf.n_group = (data[0] & 1) != 0 ? 0 : 3;
    conf.send = on_send;
    if (store_kv_open("fuzz", NULL, &f.kv, why, sizeof why) != MESH_OK ||
        store_consensus_open(&conf, f.kv, 0, f.now, on_committed, &f, &f.cons, why, sizeof why) != MESH_OK) {
        abort();
    }
    mesh_slice rest = { data + 1, size - 1 }, chunk;
    while (fuzz_chunk(&rest, &chunk)) {
        if (chunk.size > 0) {
            happen(&f, chunk);
        }
    }
    store_consensus_close(&f.cons);
    store_kv_close(&f.kv);
    sim_disk_destroy(&f.disk);
    return 0;
}
