/* A router's core, told anything an edge or a store could say: chunks are one byte, whose parity says who speaks, and a
 * message. */
#include "router/core.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static mesh_arena *arena;
    if (arena == NULL) {
        arena = mesh_arena_new();
    }
    router_core_conf conf = { .conf = fuzz_conf_nodes(), .self = FUZZ_ROUTER, .boot = 7 };
    mesh_time now = { 1000, 1700000000000 };
    mesh_out *out = mesh_out_new(mesh_conf_nodes(conf.conf));
    router_core *core = router_core_new(&conf, now);
    router_core_up(core, FUZZ_STORE, 3, now, out);
    router_core_up(core, FUZZ_EDGE, 5, now, out);
    mesh_slice rest = { data, size }, packed;
    while (fuzz_chunk(&rest, &packed)) {
        if (packed.size == 0) {
            continue;
        }
        mesh_peer from = (packed.data[0] & 1) != 0 ? FUZZ_STORE : FUZZ_EDGE;
        ProtobufCMessage *msg;
        packed.data++;
        packed.size--;
        mesh_arena_reset(arena);
        now.mono += 20;
        now.wall += 20;
        if (mesh_wire_unpack(&mesh__msg__descriptor, packed, arena, &msg) == MESH_OK) {
            router_core_message(core, from, (const Mesh__Msg *)msg, packed, now, out);
        }
        (void)router_core_turn(core, now, out);
        fuzz_drain(out, arena);
    }
    router_core_down(core, FUZZ_EDGE, now, out);
    router_core_down(core, FUZZ_STORE, now, out);
    router_core_destroy(&core);
    mesh_out_destroy(&out);
    return 0;
}
