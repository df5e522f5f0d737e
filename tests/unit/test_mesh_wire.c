/* mesh/wire.c, mesh/arena.c and mesh/out.c: what goes in comes out, and what others make up does no harm. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "client.pb-c.h"
#include "mesh/clock.h"
#include "mesh/out.h"
#include "mesh/rand.h"
#include "mesh/wire.h"

static mesh_err unpack(mesh_arena *arena, const ProtobufCMessageDescriptor *desc, const void *bytes, size_t n)
{
    ProtobufCMessage *message;
    return mesh_wire_unpack(desc, (mesh_slice){ bytes, n }, arena, &message);
}

#define REFUSED(desc, bytes) assert_int_equal(unpack(arena, &(desc), bytes, sizeof(bytes) - 1), MESH_MALFORMED)
#define TAKEN(desc, bytes) assert_int_equal(unpack(arena, &(desc), bytes, sizeof(bytes) - 1), MESH_OK)

static int arena_setup(void **state)
{
    *state = mesh_arena_new();
    return 0;
}

static int arena_teardown(void **state)
{
    mesh_arena *arena = *state;
    mesh_arena_destroy(&arena);
    assert_null(arena);
    return 0;
}

/* ---- round trips ---- */

static void put_send(mesh_buf *frame, uint64_t corr, const char *text)
{
    Mesh__Send send = MESH__SEND__INIT;
    send.user = "default/ann";
    send.chat = "default/g:x";
    send.client_msg_id = "c1";
    send.body.data = (uint8_t *)(uintptr_t)text;
    send.body.len = strlen(text);
    MESH_MSG(msg, SEND, send, &send);
    msg.corr = corr;
    msg.key = "default/g:x";
    mesh_frame_put(frame, &msg);
}

static void a_frame_gives_back_its_messages(void **state)
{
    mesh_arena *arena = *state;
    mesh_buf frame = { 0 };
    put_send(&frame, 1, "hi");
    put_send(&frame, UINT64_MAX, "h\xc3\xa4");
    mesh_frame_reader r;
    assert_int_equal(mesh_frame_open(&r, mesh_buf_slice(&frame)), MESH_OK);
    Mesh__Msg *msg;
    mesh_slice packed;
    assert_int_equal(mesh_frame_next(&r, arena, &msg, &packed), MESH_OK);
    assert_true(msg->corr == 1);
    assert_int_equal(msg->body_case, MESH__MSG__BODY_SEND);
    assert_string_equal(msg->send->user, "default/ann");
    assert_string_equal(msg->send->peer, "");
    assert_int_equal(msg->send->body.len, 2);
    assert_string_equal(mesh_msg_kind_name(msg), "send");
    assert_int_equal(mesh_frame_next(&r, arena, &msg, NULL), MESH_OK);
    assert_true(msg->corr == UINT64_MAX);
    assert_int_equal(mesh_frame_next(&r, arena, &msg, NULL), MESH_AGAIN);

    mesh_buf again = { 0 }; /* a packed message travels on unchanged */
    mesh_frame_put_packed(&again, packed);
    assert_int_equal(again.size, 1 + 4 + packed.size);
    assert_memory_equal(again.data, frame.data, again.size);
    mesh_buf_fini(&again);
    mesh_buf_fini(&frame);
}

static void every_shape_survives_the_round_trip(void **state)
{
    mesh_arena *arena = *state;
    uint64_t items[] = { 0, 1, 127, 128, UINT64_MAX };
    Mesh__OutboxDone done = MESH__OUTBOX_DONE__INIT;
    done.items = items;
    done.n_items = 5;
    Mesh__Attachment a1 = MESH__ATTACHMENT__INIT;
    a1.ref = "https://example.org/1";
    a1.size = 12345;
    Mesh__Attachment *attachments[] = { &a1, &a1 };
    char *users[] = { "default/a", "", "default/b" };
    Mesh__Entry entry = MESH__ENTRY__INIT;
    entry.kind = MESH__ENTRY_KIND__ENTRY_RENAMED;
    entry.attachments = attachments;
    entry.n_attachments = 2;
    entry.users = users;
    entry.n_users = 3;
    entry.name = NULL; /* absent */
    mesh_buf b = { 0 };
    ProtobufCMessage *out;

    mesh_wire_pack(&done, &b);
    assert_int_equal(b.size, mesh_wire_size(&done));
    assert_int_equal(mesh_wire_unpack(&mesh__outbox_done__descriptor, mesh_buf_slice(&b), arena, &out), MESH_OK);
    Mesh__OutboxDone *d = (Mesh__OutboxDone *)out;
    assert_int_equal(d->n_items, 5);
    assert_memory_equal(d->items, items, sizeof items);

    mesh_buf_clear(&b);
    mesh_wire_pack(&entry, &b);
    assert_int_equal(mesh_wire_unpack(&mesh__entry__descriptor, mesh_buf_slice(&b), arena, &out), MESH_OK);
    Mesh__Entry *e = (Mesh__Entry *)out;
    assert_int_equal(e->n_attachments, 2);
    assert_string_equal(e->attachments[1]->ref, a1.ref);
    assert_int_equal(e->n_users, 3);
    assert_string_equal(e->users[1], "");
    assert_string_equal(e->name, "");
    assert_int_equal(e->kind, MESH__ENTRY_KIND__ENTRY_RENAMED);
    mesh_buf_fini(&b);
}

static void an_empty_message_is_a_message(void **state)
{
    mesh_arena *arena = *state;
    ProtobufCMessage *out;
    assert_int_equal(mesh_wire_unpack(&mesh__msg__descriptor, (mesh_slice){ NULL, 0 }, arena, &out), MESH_OK);
    assert_string_equal(mesh_msg_kind_name((Mesh__Msg *)out), "none");
}

/* ---- what others make up ---- */

static void numbers_that_do_not_fit_are_refused(void **state)
{
    mesh_arena *arena = *state;
    TAKEN(mesh__msg__descriptor, "\x10\xff\xff\xff\xff\x0f");                           /* ttl_ms = 2^32 - 1 */
    REFUSED(mesh__msg__descriptor, "\x10\x80\x80\x80\x80\x10");                         /* 2^32 */
    TAKEN(mesh__msg__descriptor, "\x18\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01");       /* epoch = 2^64 - 1 */
    REFUSED(mesh__msg__descriptor, "\x18\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02");     /* above */
    REFUSED(mesh__msg__descriptor, "\x18\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"); /* 11 bytes */
    REFUSED(mesh__msg__descriptor, "\x18\x80");                                         /* cut */
    REFUSED(mesh__msg__descriptor, "\x09\x01\x02\x03");                                 /* fixed64 cut */
    TAKEN(mesh__lease__descriptor, "\x18\x01");                                         /* leaving = true */
    REFUSED(mesh__lease__descriptor, "\x18\x02");                                       /* not a bool */
    TAKEN(mesh__member__descriptor, "\x10\x03");                                        /* role = member */
    REFUSED(mesh__member__descriptor, "\x10\x04");                                      /* no such role */
    REFUSED(mesh__member__descriptor, "\x10\x81\x80\x80\x80\x10"); /* 2^32 + 1: would be cut to owner */
    REFUSED(mesh__member__descriptor, "\x10\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"); /* -1 */
}

static void tags_and_wire_types_must_be_right(void **state)
{
    mesh_arena *arena = *state;
    REFUSED(mesh__msg__descriptor, "\x00\x01");                     /* field 0 */
    REFUSED(mesh__msg__descriptor, "\x0b\x0c");                     /* group */
    REFUSED(mesh__msg__descriptor, "\x0e");                         /* wire type 6 */
    REFUSED(mesh__msg__descriptor, "\x08\x01");                     /* corr as a varint */
    REFUSED(mesh__msg__descriptor, "\x28\x01");                     /* key as a varint */
    REFUSED(mesh__msg__descriptor, "\x12\x01\x01");                 /* ttl_ms as bytes */
    REFUSED(mesh__msg__descriptor, "\xff\xff\xff\xff\xff\x01\x01"); /* tag of six bytes */
    REFUSED(mesh__msg__descriptor, "\x2a\x05"
                                   "abcd"); /* longer than there is */
    REFUSED(mesh__msg__descriptor, "\x2a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01");
    REFUSED(mesh__msg__descriptor, "\x2a\x81\x80\x80\x80\x80\x00"
                                   "a"); /* length of six bytes */
}

static void strings_are_utf8_without_nul(void **state)
{
    mesh_arena *arena = *state;
    TAKEN(mesh__msg__descriptor, "\x2a\x02\xc3\xa4");
    REFUSED(mesh__msg__descriptor, "\x2a\x01\xc3");
    REFUSED(mesh__msg__descriptor, "\x2a\x02"
                                   "a\0");
    REFUSED(mesh__msg__descriptor, "\x2a\x03\xed\xa0\x80"); /* surrogate */
    TAKEN(mesh__send__descriptor, "\x32\x02\xff\x00");      /* a body is bytes */
}

static void nothing_is_given_twice(void **state)
{
    mesh_arena *arena = *state;
    REFUSED(mesh__msg__descriptor, "\x10\x01\x10\x01");
    REFUSED(mesh__msg__descriptor, "\x5a\x00\x5a\x00"); /* node_ping twice: the library would merge them */
    REFUSED(mesh__msg__descriptor, "\x5a\x00\x62\x00"); /* ping and pong */
    TAKEN(mesh__heads__descriptor, "\x12\x00\x12\x00"); /* repeated */
}

static void unknown_fields_are_skipped(void **state)
{
    mesh_arena *arena = *state;
    ProtobufCMessage *out;
    static const char bytes[] = "\xa8\x3e\x05" /* 1000: varint */
                                "\xa2\x3e\x02zz"
                                "\xa1\x3e"
                                "12345678"
                                "\xa5\x3e"
                                "1234"
                                "\x10\x07";
    assert_int_equal(
        mesh_wire_unpack(&mesh__msg__descriptor, (mesh_slice){ (const uint8_t *)bytes, sizeof bytes - 1 }, arena, &out),
        MESH_OK);
    assert_int_equal(((Mesh__Msg *)out)->ttl_ms, 7);
    REFUSED(mesh__msg__descriptor, "\xa3\x3e\xa4\x3e"); /* an unknown group */
}

static void elements_are_bounded(void **state)
{
    mesh_arena *arena = *state;
    mesh_buf b = { 0 };
    for (unsigned i = 0; i < MESH_WIRE_ELEMENTS; i++) {
        mesh_buf_put(&b, "\x12\x00", 2);
    }
    assert_int_equal(unpack(arena, &mesh__heads__descriptor, b.data, b.size), MESH_OK);
    mesh_buf_put(&b, "\x12\x00", 2);
    assert_int_equal(unpack(arena, &mesh__heads__descriptor, b.data, b.size), MESH_MALFORMED);
    assert_int_equal(unpack(arena, &mesh__page__descriptor, b.data, b.size), MESH_MALFORMED);
    mesh_buf_clear(&b); /* unknown fields */
    for (unsigned i = 0; i <= MESH_WIRE_ELEMENTS; i++) {
        mesh_buf_put(&b, "\xa8\x3e\x01", 3);
    }
    assert_int_equal(unpack(arena, &mesh__done__descriptor, b.data, b.size), MESH_MALFORMED);
    mesh_buf_clear(&b); /* strings */
    for (unsigned i = 0; i <= MESH_WIRE_ELEMENTS; i++) {
        mesh_buf_put(&b, "\x6a\x00", 2);
    }
    assert_int_equal(unpack(arena, &mesh__entry__descriptor, b.data, b.size), MESH_MALFORMED);
    mesh_buf_clear(&b); /* packed numbers */
    mesh_buf_put(&b, "\x0a\x81\x40", 3);
    memset(mesh_buf_grow(&b, MESH_WIRE_ELEMENTS + 1), 1, MESH_WIRE_ELEMENTS + 1);
    assert_int_equal(unpack(arena, &mesh__outbox_done__descriptor, b.data, b.size), MESH_MALFORMED);
    mesh_buf_fini(&b);
}

/* A message of itself, as no .proto of ours has one: depth must hold whatever the schema. */
static const ProtobufCMessageDescriptor nested_descriptor;
typedef struct nested {
    ProtobufCMessage base;
    struct nested *inner;
} nested;
static void nested_init(nested *n)
{
    *n = (nested){ .base = PROTOBUF_C_MESSAGE_INIT(&nested_descriptor) };
}
static const ProtobufCFieldDescriptor nested_fields[] = {
    { "inner", 1, PROTOBUF_C_LABEL_NONE, PROTOBUF_C_TYPE_MESSAGE, 0, offsetof(nested, inner), &nested_descriptor, NULL,
      0, 0, NULL, NULL },
};
static const unsigned nested_by_name[] = { 0 };
static const ProtobufCIntRange nested_ranges[] = { { 1, 0 }, { 0, 1 } };
static const ProtobufCMessageDescriptor nested_descriptor = { PROTOBUF_C__MESSAGE_DESCRIPTOR_MAGIC,
                                                              "nested",
                                                              "Nested",
                                                              "Nested",
                                                              "",
                                                              sizeof(nested),
                                                              1,
                                                              nested_fields,
                                                              nested_by_name,
                                                              1,
                                                              nested_ranges,
                                                              (ProtobufCMessageInit)nested_init,
                                                              NULL,
                                                              NULL,
                                                              NULL };

static void depth_is_bounded(void **state)
{
    mesh_arena *arena = *state;
    uint8_t bytes[2 * 100];
    for (unsigned depth = 1; depth <= 60; depth++) { /* depth - 1 messages inside the first */
        size_t n = 2 * (depth - 1);
        for (size_t i = 0; i < n; i += 2) {
            bytes[i] = 0x0a;
            bytes[i + 1] = (uint8_t)(n - i - 2);
        }
        mesh_err expected = depth <= MESH_WIRE_DEPTH ? MESH_OK : MESH_MALFORMED;
        assert_int_equal(unpack(arena, &nested_descriptor, bytes, n), expected);
    }
}

/* ---- frames ---- */

static void broken_frames_are_refused(void **state)
{
    mesh_arena *arena = *state;
    mesh_frame_reader r;
    Mesh__Msg *msg;
    static const uint8_t zeros[8] = { 0 };
    assert_int_equal(mesh_frame_open(&r, (mesh_slice){ zeros, 0 }), MESH_MALFORMED);
    assert_int_equal(mesh_frame_open(&r, (mesh_slice){ zeros, 8 }), MESH_UNSUPPORTED);
    assert_int_equal(mesh_frame_open(&r, (mesh_slice){ zeros, MESH_FRAME_MAX + 1 }), MESH_MALFORMED);
    static const struct {
        const char *bytes;
        size_t n;
    } wrong[] = {
        { "\1\0\0\0", 4 },               /* half a length */
        { "\1\1\0\0\0", 5 },             /* nothing of one byte */
        { "\1\1\0\0\0\x0b", 6 },         /* a broken message */
        { "\1\xff\xff\xff\xff\1\1", 7 }, /* too long */
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        mesh_slice frame = { (const uint8_t *)wrong[i].bytes, wrong[i].n };
        assert_int_equal(mesh_frame_open(&r, frame), MESH_OK);
        assert_int_equal(mesh_frame_next(&r, arena, &msg, NULL), MESH_MALFORMED);
    }
    mesh_buf big = { 0 };
    *mesh_buf_grow(&big, 1) = MESH_FRAME_VERSION;
    mesh_put_u32le(mesh_buf_grow(&big, 4), MESH_MSG_MAX + 1);
    memset(mesh_buf_grow(&big, MESH_MSG_MAX + 1), 0, MESH_MSG_MAX + 1);
    assert_int_equal(mesh_frame_open(&r, mesh_buf_slice(&big)), MESH_OK);
    assert_int_equal(mesh_frame_next(&r, arena, &msg, NULL), MESH_MALFORMED);
    mesh_buf_fini(&big);
}

static void read_all(mesh_arena *arena, mesh_slice frame)
{
    mesh_frame_reader r;
    Mesh__Msg *msg;
    if (mesh_frame_open(&r, frame) == MESH_OK) {
        while (mesh_frame_next(&r, arena, &msg, NULL) == MESH_OK) {
            assert_non_null(mesh_msg_kind_name(msg));
            (void)mesh_wire_size(msg); /* walks all of it: pointers and lengths must be good */
        }
    }
    mesh_arena_reset(arena);
}

static void damaged_bytes_do_no_harm(void **state)
{
    mesh_arena *arena = *state;
    mesh_rand r = { 20261121 };
    mesh_buf good = { 0 };
    put_send(&good, 5, "some text");
    Mesh__Recipient to = MESH__RECIPIENT__INIT;
    to.user = "default/bob";
    Mesh__Recipient *tos[] = { &to, &to, &to };
    Mesh__Entry entry = MESH__ENTRY__INIT;
    entry.chat = "default/g:x";
    entry.sender = "default/ann";
    Mesh__Deliver deliver = MESH__DELIVER__INIT;
    deliver.entry = &entry;
    deliver.users = tos;
    deliver.n_users = 3;
    MESH_MSG(msg, DELIVER, deliver, &deliver);
    mesh_frame_put(&good, &msg);
    for (unsigned round = 0; round < 20000; round++) {
        uint8_t *bytes = malloc(good.size); /* exactly as large, so that reading past the end is seen */
        size_t n = mesh_rand_below(&r, 4) == 0 ? (size_t)mesh_rand_below(&r, good.size + 1) : good.size;
        memcpy(bytes, good.data, good.size);
        for (uint64_t changes = mesh_rand_below(&r, 6); changes > 0; changes--) {
            bytes[mesh_rand_below(&r, good.size)] = (uint8_t)mesh_rand_next(&r);
        }
        uint8_t *cut = realloc(bytes, n > 0 ? n : 1);
        assert_non_null(cut);
        read_all(arena, (mesh_slice){ cut, n });
        ProtobufCMessage *out;
        (void)!mesh_wire_unpack(&client__request__descriptor, (mesh_slice){ cut, n }, arena, &out);
        mesh_arena_reset(arena);
        free(cut);
    }
    mesh_buf_fini(&good);
}

/* ---- arena ---- */

static void an_arena_gives_aligned_zeroed_memory_again_and_again(void **state)
{
    mesh_arena *arena = *state;
    for (int round = 0; round < 3; round++) {
        for (size_t size = 0; size < 300000; size = size * 3 + 1) {
            uint8_t *p = mesh_arena_alloc(arena, size);
            assert_int_equal((uintptr_t)p % 16, 0);
            for (size_t i = 0; i < size; i++) {
                assert_int_equal(p[i], 0);
            }
            memset(p, 0xaa, size);
        }
        char *big = mesh_arena_grab(arena, 8 * 1024 * 1024); /* more than a reset keeps */
        big[0] = 'x';
        assert_string_equal(mesh_arena_strdup(arena, "text"), "text");
        mesh_arena_reset(arena);
    }
}

/* ---- out ---- */

static void out_batches_per_peer_in_start_order(void **state)
{
    (void)state;
    mesh_out *out = mesh_out_new(3);
    Mesh__NodePing ping = MESH__NODE_PING__INIT;
    MESH_MSG(msg, NODE_PING, node_ping, &ping);
    mesh_out_put(out, 2, &msg);
    mesh_out_put(out, 0, &msg);
    mesh_out_put(out, 2, &msg);
    size_t one = 4 + mesh_wire_size(&msg);
    assert_int_equal(mesh_out_bytes(out), 2 + 3 * one);
    mesh_peer peer;
    mesh_buf frame;
    assert_true(mesh_out_take(out, &peer, &frame));
    assert_int_equal(peer, 2);
    assert_int_equal(frame.size, 1 + 2 * one);
    mesh_buf_fini(&frame);
    mesh_out_put(out, 2, &msg); /* a new frame, behind peer 0's */
    assert_true(mesh_out_take(out, &peer, &frame));
    assert_int_equal(peer, 0);
    mesh_buf_fini(&frame);
    assert_true(mesh_out_take(out, &peer, &frame));
    assert_int_equal(peer, 2);
    mesh_buf_fini(&frame);
    assert_false(mesh_out_take(out, &peer, &frame));
    assert_int_equal(mesh_out_bytes(out), 0);
    mesh_out_put(out, 1, &msg); /* left over on purpose */
    mesh_out_destroy(&out);
    assert_null(out);
}

static void out_closes_frames_at_their_size(void **state)
{
    (void)state;
    mesh_out *out = mesh_out_new(1);
    uint8_t *body = calloc(1, 100000);
    Mesh__Send send = MESH__SEND__INIT;
    send.body.data = body;
    send.body.len = 100000;
    MESH_MSG(msg, SEND, send, &send);
    for (int i = 0; i < 7; i++) {
        mesh_out_put(out, 0, &msg);
    }
    mesh_peer peer;
    mesh_buf frame;
    unsigned frames = 0;
    for (; mesh_out_take(out, &peer, &frame); frames++) {
        assert_true(frame.size < MESH_FRAME_SOFT_MAX + 100100);
        mesh_buf_fini(&frame);
    }
    assert_int_equal(frames, 3); /* 3 + 3 + 1 */
    free(body);
    mesh_out_destroy(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_frame_gives_back_its_messages, arena_setup, arena_teardown),
        cmocka_unit_test_setup_teardown(every_shape_survives_the_round_trip, arena_setup, arena_teardown),
        cmocka_unit_test_setup_teardown(an_empty_message_is_a_message, arena_setup, arena_teardown),
        cmocka_unit_test_setup_teardown(numbers_that_do_not_fit_are_refused, arena_setup, arena_teardown),
        cmocka_unit_test_setup_teardown(tags_and_wire_types_must_be_right, arena_setup, arena_teardown),
        cmocka_unit_test_setup_teardown(strings_are_utf8_without_nul, arena_setup, arena_teardown),
        cmocka_unit_test_setup_teardown(nothing_is_given_twice, arena_setup, arena_teardown),
        cmocka_unit_test_setup_teardown(unknown_fields_are_skipped, arena_setup, arena_teardown),
        cmocka_unit_test_setup_teardown(elements_are_bounded, arena_setup, arena_teardown),
        cmocka_unit_test_setup_teardown(depth_is_bounded, arena_setup, arena_teardown),
        cmocka_unit_test_setup_teardown(broken_frames_are_refused, arena_setup, arena_teardown),
        cmocka_unit_test_setup_teardown(damaged_bytes_do_no_harm, arena_setup, arena_teardown),
        cmocka_unit_test_setup_teardown(an_arena_gives_aligned_zeroed_memory_again_and_again, arena_setup,
                                        arena_teardown),
        cmocka_unit_test(out_batches_per_peer_in_start_order),
        cmocka_unit_test(out_closes_frames_at_their_size),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
