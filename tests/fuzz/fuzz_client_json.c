/* What clients send, in JSON. */
#include "edge/codec.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static mesh_arena *arena;
    if (arena == NULL) {
        arena = mesh_arena_new();
    }
    edge_codec_reader reader;
    Client__Request *request;
    uint64_t id;
    uint32_t fault;
    char detail[128];
    mesh_buf again = { 0 };
    edge_codec_open(&reader, EDGE_JSON, (mesh_slice){ data, size });
    for (unsigned n = 0; n < EDGE_FRAMES_PER_MESSAGE; n++) {
        mesh_arena_reset(arena);
        mesh_err err = edge_codec_request(&reader, arena, &request, &id, &fault, detail, sizeof detail);
        if (err == MESH_AGAIN) {
            break;
        }
        if (err == MESH_OK) {
            mesh_buf_clear(&again);
            edge_codec_put_request(EDGE_PROTOBUF, request, &again);
            edge_codec_put_request(EDGE_JSON, request, &again);
        }
    }
    mesh_buf_fini(&again);
    return 0;
}
