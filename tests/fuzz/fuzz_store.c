/* A core of one of three stores, told anything the others could say. Chunks are one byte and a message. The byte: bits
 * 0 and 1 say who speaks, the rest how much time has passed, in steps of STEP_MS. Where a message names raft id 1, this
 * store's own is put: it could not be guessed. */
#include <stdlib.h>

#include "store/core.h"
#include "store/core_state.h"
#include "tests/fuzz/fuzz.h"
#include "tests/sim/kv_mem.h"

#define STEP_MS 20

enum { ROUTER, SELF, OTHER, THIRD, OPERATOR, PEERS };

static const mesh_peer speakers[] = { ROUTER, OTHER, THIRD, OPERATOR };

static const mesh_conf *conf_stores(void)
{
    static mesh_conf *conf;
    static const mesh_node_conf nodes[PEERS] = {
        [ROUTER] = { .name = "router1", .role = MESH_ROUTER, .endpoint = "inproc://router1" },
        [SELF] = { .name = "store1", .role = MESH_STORE, .endpoint = "inproc://store1" },
        [OTHER] = { .name = "store2", .role = MESH_STORE, .endpoint = "inproc://store2" },
        [THIRD] = { .name = "store3", .role = MESH_STORE, .endpoint = "inproc://store3" },
        [OPERATOR] = { .name = "operator", .role = MESH_OPERATOR },
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

static void turns(store_core *core, sim_disk *disk, mesh_time now, mesh_out *out, mesh_arena *arena)
{
    for (int i = 0; i < 3; i++) {
        (void)store_core_turn(core, now, out);
        fuzz_drain(out, arena);
        sim_disk_flush(disk);
    }
}

static void put_right(const store_core *core, Mesh__Msg *msg)
{
    uint64_t self = core->cons != NULL ? store_consensus_id(core->cons) : 1;
    if (msg->body_case == MESH__MSG__BODY_RAFT) {
        msg->raft->to = msg->raft->to == 1 ? self : msg->raft->to;
    } else if (msg->body_case == MESH__MSG__BODY_REPLICA) {
        Mesh__Replica *word = msg->replica;
        word->unfit = word->unfit == 1 ? self : word->unfit;
        word->no_vote = word->no_vote == 1 ? self : word->no_vote;
        for (size_t i = 0; i < word->n_confirmed; i++) {
            uint64_t id = word->confirmed[i]->raft_id;
            word->confirmed[i]->raft_id = id == 1 ? self : id;
        }
    }
}

static void talk(store_core *core, sim_disk *disk, mesh_time now, mesh_slice rest, mesh_out *out)
{
    static mesh_arena *arena;
    arena = arena == NULL ? mesh_arena_new() : arena;
    turns(core, disk, now, out, arena);
    for (size_t i = 0; i < sizeof speakers / sizeof *speakers; i++) {
        store_core_up(core, speakers[i], 7, now, out);
    }
    mesh_slice packed;
    while (store_core_verdict(core) == STORE_GO_ON && fuzz_chunk(&rest, &packed)) {
        if (packed.size == 0) {
            continue;
        }
        ProtobufCMessage *msg;
        mesh_peer from = speakers[packed.data[0] % 4];
        mesh_ms passed = 1 + (mesh_ms)(packed.data[0] / 4u) * STEP_MS;
        packed.data++;
        packed.size--;
        mesh_arena_reset(arena);
        now.mono += passed;
        now.wall += passed;
        if (mesh_wire_unpack(&mesh__msg__descriptor, packed, arena, &msg) == MESH_OK) {
            put_right(core, (Mesh__Msg *)msg);
            store_core_message(core, from, (const Mesh__Msg *)msg, packed, now, out);
        }
        turns(core, disk, now, out, arena);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char why[256];
    sim_disk *disk = sim_disk_new("fuzz", 1);
    store_kv *kv = NULL;
    store_core *core = NULL;
    store_kv_options options = { .write_buffer = 1 << 20, .block_cache = 1 << 20, .max_open_files = 100 };
    store_core_conf conf = { .conf = conf_stores(), .self = SELF, .seed = 1, .path = "fuzz", .options = options };
    mesh_time now = { 1000, 1700000000000 };
    mesh_out *out = mesh_out_new(mesh_conf_nodes(conf.conf));
    if (store_kv_open("fuzz", &options, &kv, why, sizeof why) != MESH_OK ||
        store_core_new(&conf, kv, now, &core, why, sizeof why) != MESH_OK) {
        abort();
    }
    talk(core, disk, now, (mesh_slice){ data, size }, out);
    store_core_destroy(&core);
    store_kv_close(&kv);
    sim_disk_destroy(&disk);
    mesh_out_destroy(&out);
    return 0;
}
