/* A WebSocket message from the server as its pieces come: what is passed on, and how much is taken. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "client/partial.h"
#include "mesh/alloc.h"

static mesh_slice text(const char *s)
{
    return (mesh_slice){ (const uint8_t *)s, strlen(s) };
}

static void one_piece_is_not_copied(void **state)
{
    (void)state;
    mesh_buf in = { 0 };
    mesh_slice whole, piece = text("all of it");
    assert_int_equal(client_partial_put(&in, piece, true, &whole), MESH_OK);
    assert_ptr_equal(whole.data, piece.data);
    assert_int_equal(whole.size, piece.size);
    assert_null(in.data);
    client_partial_clear(&in);
}

static void pieces_become_one(void **state)
{
    (void)state;
    mesh_buf in = { 0 };
    mesh_slice whole;
    for (int round = 0; round < 2; round++) {
        assert_int_equal(client_partial_put(&in, text("one, "), false, &whole), MESH_AGAIN);
        assert_int_equal(client_partial_put(&in, text("two"), false, &whole), MESH_AGAIN);
        assert_int_equal(client_partial_put(&in, text(""), true, &whole), MESH_OK); /* an empty last fragment */
        assert_int_equal(whole.size, 8);
        assert_memory_equal(whole.data, "one, two", 8);
        client_partial_clear(&in);
    }
    mesh_buf_fini(&in);
}

/* An event of the largest size, its length before it, in pieces of any size and in one; a byte more is too much. */
static void the_largest_event_fits(void **state)
{
    (void)state;
    enum { EVENT = CLIENT_FRAME_MAX, HEAD = 4 }; /* bytes of that length */
    uint8_t *bytes = mesh_alloc(CLIENT_MESSAGE_MAX + 1);
    static const size_t steps[] = { 1024, 65536, EVENT, EVENT + HEAD };
    for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) {
        mesh_buf in = { 0 };
        mesh_slice whole = { 0 };
        mesh_err err = MESH_AGAIN;
        for (size_t at = 0; at < EVENT + HEAD; at += steps[i]) {
            size_t rest = EVENT + HEAD - at;
            assert_int_equal(err, MESH_AGAIN);
            err = client_partial_put(&in, (mesh_slice){ bytes + at, rest < steps[i] ? rest : steps[i] },
                                     rest <= steps[i], &whole);
        }
        assert_int_equal(err, MESH_OK);
        assert_int_equal(whole.size, EVENT + HEAD);
        client_partial_clear(&in);
        assert_true(in.cap <= CLIENT_PARTIAL_KEEP); /* nor is so much kept */
        mesh_buf_fini(&in);
    }
    mesh_buf in = { 0 };
    mesh_slice whole;
    assert_int_equal(client_partial_put(&in, (mesh_slice){ bytes, CLIENT_MESSAGE_MAX }, true, &whole), MESH_OK);
    assert_int_equal(client_partial_put(&in, (mesh_slice){ bytes, CLIENT_MESSAGE_MAX + 1 }, true, &whole),
                     MESH_TOO_BIG);
    assert_int_equal(client_partial_put(&in, (mesh_slice){ bytes, CLIENT_MESSAGE_MAX }, false, &whole), MESH_AGAIN);
    assert_int_equal(client_partial_put(&in, (mesh_slice){ bytes, 1 }, false, &whole), MESH_TOO_BIG);
    assert_int_equal(in.size, CLIENT_MESSAGE_MAX);
    mesh_buf_fini(&in);
    free(bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_piece_is_not_copied),
        cmocka_unit_test(pieces_become_one),
        cmocka_unit_test(the_largest_event_fits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
