/* An edge's core, told anything a client or a router could say: chunks are one byte and a message; the byte's low bits
 * say who speaks: 0 the router, 1 a JSON client, 2 a protobuf client, 3 the next client comes. */
#include <stdlib.h>
#include <string.h>

#include "edge/core.h"
#include "edge/token.h"
#include "tests/fuzz/fuzz.h"

static const char key[] = "0123456789abcdef0123456789abcdef";

typedef struct edge_under_test {
    edge_core *core;
    mesh_out *out;
    mesh_arena *arena;
    edge_session_id clients[2]; /* JSON, protobuf */
    mesh_time now;
} edge_under_test;

static void open_clients(edge_under_test *e)
{
    for (int i = 0; i < 2; i++) {
        char *token = edge_token_make((mesh_slice){ (const uint8_t *)key, sizeof key - 1 }, "ann", NULL, "Ann",
                                      e->now.wall / 1000, 3600);
        (void)!edge_core_open(e->core, i == 0 ? EDGE_JSON : EDGE_PROTOBUF, token, e->now, &e->clients[i]);
        free(token);
    }
}

static void write_clients(edge_under_test *e)
{
    edge_session_id id;
    while (edge_core_next_ready(e->core, &id)) {
        uint16_t code = 0;
        const char *reason = NULL;
        mesh_slice bytes = edge_core_pending(e->core, id, &code, &reason);
        size_t n = bytes.size;
        if (n > 0) {
            edge_core_wrote(e->core, id, n, e->now, e->out);
        }
        if (code != 0) {
            edge_core_closed(e->core, id, e->now, e->out);
            for (int i = 0; i < 2; i++) {
                e->clients[i] = e->clients[i] == id ? 0 : e->clients[i];
            }
        } else if (n == 0) {
            break;
        }
    }
}

static void step(edge_under_test *e, uint8_t who, mesh_slice bytes)
{
    ProtobufCMessage *msg;
    if ((who & 3) == 3) {
        open_clients(e);
    } else if ((who & 3) == 0) {
        mesh_arena_reset(e->arena);
        if (mesh_wire_unpack(&mesh__msg__descriptor, bytes, e->arena, &msg) == MESH_OK) {
            edge_core_message(e->core, FUZZ_ROUTER, (const Mesh__Msg *)msg, bytes, e->now, e->out);
        }
    } else if (e->clients[(who & 3) - 1] != 0) {
        edge_core_input(e->core, e->clients[(who & 3) - 1], bytes, e->now, e->out);
    }
    (void)edge_core_turn(e->core, e->now, e->out);
    write_clients(e);
    fuzz_drain(e->out, e->arena);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static mesh_arena *arena;
    if (arena == NULL) {
        arena = mesh_arena_new();
    }
    edge_core_conf conf = {
        .conf = fuzz_conf_nodes(), .self = FUZZ_EDGE, .seed = 1, .token_key = { (const uint8_t *)key, sizeof key - 1 }
    };
    edge_under_test e = { .now = { 1000, 1700000000000 }, .arena = arena };
    e.core = edge_core_new(&conf, e.now);
    e.out = mesh_out_new(mesh_conf_nodes(conf.conf));
    edge_core_up(e.core, FUZZ_ROUTER, 7, e.now, e.out);
    mesh_slice rest = { data, size }, chunk;
    while (fuzz_chunk(&rest, &chunk)) {
        e.now.mono += 20;
        e.now.wall += 20;
        if (chunk.size > 0) {
            step(&e, chunk.data[0], (mesh_slice){ chunk.data + 1, chunk.size - 1 });
        }
    }
    edge_core_destroy(&e.core);
    mesh_out_destroy(&e.out);
    return 0;
}
