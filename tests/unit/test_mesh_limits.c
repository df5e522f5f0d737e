/* What mesh/ still takes at each limit, and the first that it does not: frames, messages, lines of a config, names. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "mesh/alloc.h"
#include "mesh/conf.h"
#include "mesh/wire.h"

/* ---- frames ---- */

/* A packed message of exactly size bytes. */
static void pack_of(mesh_buf *packed, size_t size)
{
    uint8_t *body = mesh_alloc(size);
    Mesh__Send send = MESH__SEND__INIT;
    MESH_MSG(msg, SEND, send, &send);
    send.body = (ProtobufCBinaryData){ size, body };
    send.body.len -= mesh_wire_size(&msg) - size;
    assert_int_equal(mesh_wire_size(&msg), size);
    mesh_wire_pack(&msg, packed);
    free(body);
}

static mesh_err read_one(mesh_slice packed)
{
    mesh_arena *arena = mesh_arena_new();
    mesh_buf frame = { 0 };
    mesh_frame_reader reader;
    Mesh__Msg *msg;
    *mesh_buf_grow(&frame, 1) = MESH_FRAME_VERSION;
    mesh_put_u32le(mesh_buf_grow(&frame, 4), (uint32_t)packed.size);
    mesh_buf_put(&frame, packed.data, packed.size);
    assert_int_equal(mesh_frame_open(&reader, mesh_buf_slice(&frame)), MESH_OK);
    mesh_err err = mesh_frame_next(&reader, arena, &msg, NULL);
    if (err == MESH_OK) {
        assert_int_equal(mesh_wire_size(msg), packed.size);
        assert_int_equal(mesh_frame_next(&reader, arena, &msg, NULL), MESH_AGAIN);
    }
    mesh_buf_fini(&frame);
    mesh_arena_destroy(&arena);
    return err;
}

static void messages_are_bounded(void **state)
{
    (void)state;
    mesh_buf packed = { 0 };
    pack_of(&packed, MESH_MSG_MAX);
    assert_int_equal(read_one(mesh_buf_slice(&packed)), MESH_OK);
    mesh_buf_clear(&packed);
    pack_of(&packed, MESH_MSG_MAX + 1);
    assert_int_equal(read_one(mesh_buf_slice(&packed)), MESH_MALFORMED);
    mesh_buf_fini(&packed);
}

static void frames_are_bounded(void **state)
{
    (void)state;
    mesh_frame_reader reader;
    uint8_t *bytes = mesh_alloc(MESH_FRAME_MAX + 1);
    bytes[0] = MESH_FRAME_VERSION;
    assert_int_equal(mesh_frame_open(&reader, (mesh_slice){ bytes, MESH_FRAME_MAX }), MESH_OK);
    assert_int_equal(mesh_frame_open(&reader, (mesh_slice){ bytes, MESH_FRAME_MAX + 1 }), MESH_MALFORMED);
    free(bytes);
}

/* ---- config ---- */

enum { LINE = 1000 }; /* LINE_MAX_BYTES of mesh/conf_file.c */

static char why[300];

static mesh_err load(const mesh_buf *text)
{
    char path[] = "/tmp/parley-conf-XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text->data, text->size), (ssize_t)text->size);
    (void)close(fd);
    mesh_conf *conf = mesh_conf_new();
    why[0] = '\0';
    mesh_err err = mesh_conf_load(conf, path, why, sizeof why);
    mesh_conf_destroy(&conf);
    (void)unlink(path);
    return err;
}

static void put_config(mesh_buf *text)
{
    mesh_buf_clear(text);
    mesh_buf_puts(text, "cluster\n    hash_key = \"000102030405060708090a0b0c0d0e0f\"\n");
}

static void lines_of_a_config_are_bounded(void **state)
{
    (void)state;
    mesh_buf text = { 0 };
    for (size_t over = 0; over < 2; over++) {
        put_config(&text);
        memset(mesh_buf_grow(&text, LINE + over), '#', LINE + over);
        mesh_buf_puts(&text, "\nlog\n    level = debug\n");
        assert_int_equal(load(&text), over == 0 ? MESH_OK : MESH_MALFORMED);
        assert_true((strstr(why, ":3: line too long") != NULL) == (over == 1));
    }
    mesh_buf_fini(&text);
}

static void names_of_nodes_are_bounded(void **state)
{
    (void)state;
    mesh_buf text = { 0 };
    for (size_t over = 0; over < 2; over++) {
        put_config(&text);
        mesh_buf_puts(&text, "node\n    ");
        memset(mesh_buf_grow(&text, MESH_NODE_NAME_MAX + over), 'n', MESH_NODE_NAME_MAX + over);
        mesh_buf_puts(&text, "\n        role = edge\n");
        assert_int_equal(load(&text), over == 0 ? MESH_OK : MESH_MALFORMED);
        if ((strstr(why, "name too long") != NULL) != (over == 1)) {
            fail_msg("%s", why);
        }
    }
    mesh_buf_fini(&text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(messages_are_bounded),
        cmocka_unit_test(frames_are_bounded),
        cmocka_unit_test(lines_of_a_config_are_bounded),
        cmocka_unit_test(names_of_nodes_are_bounded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
