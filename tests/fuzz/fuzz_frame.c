/* Frames between nodes, and what is in them. */
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static mesh_arena *arena;
    if (arena == NULL) {
        arena = mesh_arena_new();
    }
    mesh_frame_reader reader;
    mesh_slice packed;
    Mesh__Msg *msg;
    mesh_err err = mesh_frame_open(&reader, (mesh_slice){ data, size });
    while (err == MESH_OK) {
        mesh_arena_reset(arena);
        err = mesh_frame_next(&reader, arena, &msg, &packed);
        if (err == MESH_OK) {
            (void)mesh_msg_kind_name(msg);
            fuzz_round_trip(&msg->base, arena);
        }
    }
    return 0;
}
