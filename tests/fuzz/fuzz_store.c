/* A store's core, told anything a router could say: chunks are messages. */
#include <stdlib.h>

#include "store/core.h"
#include "tests/fuzz/fuzz.h"
#include "tests/sim/kv_mem.h"

static void turns(store_core *core, sim_disk *disk, mesh_time now, mesh_out *out, mesh_arena *arena)
{
    for (int i = 0; i < 3; i++) {
        (void)store_core_turn(core, now, out);
        fuzz_drain(out, arena);
        sim_disk_flush(disk);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static mesh_arena *arena;
    if (arena == NULL) {
        arena = mesh_arena_new();
    }
    char why[256];
    sim_disk *disk = sim_disk_new("fuzz", 1);
    store_kv *kv = NULL;
    store_core *core = NULL;
    store_kv_options options = { .write_buffer = 1 << 20, .block_cache = 1 << 20, .max_open_files = 100 };
    store_core_conf conf = { .conf = fuzz_conf_nodes(), .self = FUZZ_STORE, .seed = 1 };
    mesh_time now = { 1000, 1700000000000 };
    mesh_out *out = mesh_out_new(mesh_conf_nodes(conf.conf));
    if (store_kv_open("fuzz", &options, &kv, why, sizeof why) != MESH_OK ||
        store_core_new(&conf, kv, now, &core, why, sizeof why) != MESH_OK) {
        abort();
    }
    turns(core, disk, now, out, arena);
    store_core_up(core, FUZZ_ROUTER, 7, now, out);
    mesh_slice rest = { data, size }, packed;
    while (fuzz_chunk(&rest, &packed)) {
        ProtobufCMessage *msg;
        mesh_arena_reset(arena);
        now.mono += 1;
        now.wall += 1;
        if (mesh_wire_unpack(&mesh__msg__descriptor, packed, arena, &msg) == MESH_OK) {
            store_core_message(core, FUZZ_ROUTER, (const Mesh__Msg *)msg, packed, now, out);
        }
        turns(core, disk, now, out, arena);
    }
    store_core_destroy(&core);
    store_kv_close(&kv);
    sim_disk_destroy(&disk);
    mesh_out_destroy(&out);
    return 0;
}
