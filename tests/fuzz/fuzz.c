#include "tests/fuzz/fuzz.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "mesh/log.h"

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc;
    (void)argv;
    mesh_log_level(MESH_ERROR);
    return freopen("/dev/null", "w", stdout) != NULL ? 0 : 1; /* zconfig prints what it does not like */
}

void fuzz_round_trip(const ProtobufCMessage *message, mesh_arena *arena)
{
    mesh_buf once = { 0 }, twice = { 0 };
    ProtobufCMessage *again;
    mesh_wire_pack(message, &once);
    if (mesh_wire_unpack(message->descriptor, mesh_buf_slice(&once), arena, &again) == MESH_OK) {
        mesh_wire_pack(again, &twice);
        if (twice.size != once.size || memcmp(twice.data, once.data, once.size) != 0) {
            abort();
        }
    } else if (message->n_unknown_fields == 0) {
        abort(); /* what we read we must be able to write */
    }
    mesh_buf_fini(&once);
    mesh_buf_fini(&twice);
}

const char *fuzz_file(mesh_slice bytes)
{
    static char path[32];
    static int fd = -1;
    if (fd < 0) {
        fd = memfd_create("fuzz", MFD_CLOEXEC);
        (void)snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    }
    if (fd < 0 || ftruncate(fd, 0) != 0 || pwrite(fd, bytes.data, bytes.size, 0) != (ssize_t)bytes.size) {
        abort();
    }
    return path;
}

const mesh_conf *fuzz_conf_nodes(void)
{
    static mesh_conf *conf;
    static const mesh_node_conf nodes[] = {
        [FUZZ_EDGE] = { .name = "edge1", .role = MESH_EDGE },
        [FUZZ_EDGE_2] = { .name = "edge2", .role = MESH_EDGE },
        [FUZZ_ROUTER] = { .name = "router1", .role = MESH_ROUTER, .endpoint = "inproc://router1" },
        [FUZZ_STORE] = { .name = "store1", .role = MESH_STORE, .endpoint = "inproc://store1" },
    };
    if (conf == NULL) {
        conf = mesh_conf_new();
        for (size_t i = 0; i < sizeof nodes / sizeof *nodes; i++) {
            if (mesh_conf_add_node(conf, &nodes[i]) != MESH_OK) {
                abort();
            }
        }
    }
    return conf;
}

void fuzz_drain(mesh_out *out, mesh_arena *arena)
{
    mesh_peer peer;
    mesh_buf frame;
    while (mesh_out_take(out, &peer, &frame)) {
        mesh_frame_reader reader;
        Mesh__Msg *msg;
        mesh_err err = mesh_frame_open(&reader, mesh_buf_slice(&frame));
        while (err == MESH_OK) {
            mesh_arena_reset(arena);
            err = mesh_frame_next(&reader, arena, &msg, NULL);
        }
        if (err != MESH_AGAIN) {
            abort(); /* a core has written what nobody can read */
        }
        mesh_buf_fini(&frame);
    }
}

int fuzz_chunk(mesh_slice *rest, mesh_slice *chunk)
{
    if (rest->size < 2) {
        return 0;
    }
    size_t n = (size_t)(rest->data[0] | rest->data[1] << 8);
    rest->data += 2;
    rest->size -= 2;
    n = n < rest->size ? n : rest->size;
    *chunk = (mesh_slice){ rest->data, n };
    rest->data += n;
    rest->size -= n;
    return 1;
}
