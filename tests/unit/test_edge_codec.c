/* The client frames in both codecs: every message type there and back, and everything that must be refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "edge/codec.h"
#include "edge/json.h"
#include "mesh/fault.h"
#include "mesh/rand.h"

static mesh_arena *arena;

static int setup(void **state)
{
    (void)state;
    arena = mesh_arena_new();
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    mesh_arena_destroy(&arena);
    return 0;
}

static mesh_slice text(const char *s)
{
    return (mesh_slice){ (const uint8_t *)s, strlen(s) };
}

/* ---- random messages, by descriptor ---- */

static ProtobufCMessage *random_message(mesh_rand *r, const ProtobufCMessageDescriptor *desc);

static char *random_string(mesh_rand *r)
{
    static const char *pieces[] = { "a",
                                    "Z",
                                    " ",
                                    "\"",
                                    "\\",
                                    "/",
                                    "\n",
                                    "\t",
                                    "\x01",
                                    "\x7f",
                                    "\xc3\xa4",
                                    "\xe2\x82\xac",
                                    "\xf0\x9f\x98\x80",
                                    "\xe2\x80\xa8",
                                    "{",
                                    "]",
                                    ":",
                                    "," };
    char *s = mesh_arena_alloc(arena, 64);
    for (uint64_t n = mesh_rand_below(r, 12); n > 0; n--) {
        strcat(s, pieces[mesh_rand_below(r, sizeof pieces / sizeof *pieces)]);
    }
    return s;
}

static void random_value(mesh_rand *r, const ProtobufCFieldDescriptor *field, void *at)
{
    switch (field->type) {
    case PROTOBUF_C_TYPE_STRING:
        *(char **)at = random_string(r);
        break;
    case PROTOBUF_C_TYPE_UINT64:
        *(uint64_t *)at = mesh_rand_next(r) >> (11 + mesh_rand_below(r, 53));
        break;
    case PROTOBUF_C_TYPE_FIXED64:
        *(uint64_t *)at = mesh_rand_next(r) >> mesh_rand_below(r, 64);
        break;
    case PROTOBUF_C_TYPE_UINT32:
        *(uint32_t *)at = (uint32_t)mesh_rand_next(r);
        break;
    case PROTOBUF_C_TYPE_BOOL:
        *(protobuf_c_boolean *)at = (protobuf_c_boolean)mesh_rand_below(r, 2);
        break;
    case PROTOBUF_C_TYPE_ENUM: {
        const ProtobufCEnumDescriptor *e = field->descriptor;
        *(int *)at = e->values[mesh_rand_below(r, e->n_values)].value;
        break;
    }
    case PROTOBUF_C_TYPE_MESSAGE:
        *(ProtobufCMessage **)at = random_message(r, field->descriptor);
        break;
    default:
        fail();
    }
}

static ProtobufCMessage *random_message(mesh_rand *r, const ProtobufCMessageDescriptor *desc)
{
    ProtobufCMessage *m = mesh_arena_alloc(arena, desc->sizeof_message);
    protobuf_c_message_init(desc, m);
    for (unsigned i = 0; i < desc->n_fields; i++) {
        const ProtobufCFieldDescriptor *field = &desc->fields[i];
        char *base = (char *)m;
        if (mesh_rand_below(r, 4) == 0) {
            continue;
        }
        if (field->label == PROTOBUF_C_LABEL_REPEATED) {
            size_t n = mesh_rand_below(r, 4);
            char *items = mesh_arena_alloc(arena, 4 * 8);
            for (size_t j = 0; j < n; j++) {
                random_value(r, field, items + j * 8); /* strings and messages only, in this schema */
            }
            *(size_t *)(void *)(base + field->quantifier_offset) = n;
            *(char **)(void *)(base + field->offset) = items;
        } else {
            random_value(r, field, base + field->offset);
        }
    }
    return m;
}

/* A Request or Event with this member of its oneof. */
static ProtobufCMessage *random_frame(mesh_rand *r, const ProtobufCMessageDescriptor *desc, unsigned body)
{
    ProtobufCMessage *m = mesh_arena_alloc(arena, desc->sizeof_message);
    protobuf_c_message_init(desc, m);
    const ProtobufCFieldDescriptor *field = &desc->fields[body];
    char *base = (char *)m;
    random_value(r, &desc->fields[0], base + desc->fields[0].offset);
    *(ProtobufCMessage **)(void *)(base + field->offset) = random_message(r, field->descriptor);
    *(uint32_t *)(void *)(base + field->quantifier_offset) = field->id;
    return m;
}

static void encode(edge_codec_kind kind, const ProtobufCMessage *m, mesh_buf *out)
{
    if (m->descriptor == &client__request__descriptor) {
        edge_codec_put_request(kind, (const Client__Request *)m, out);
    } else {
        edge_codec_put_event(kind, (const Client__Event *)m, out);
    }
}

static ProtobufCMessage *decode(edge_codec_kind kind, const ProtobufCMessageDescriptor *desc, const mesh_buf *from)
{
    edge_codec_reader reader;
    edge_codec_open(&reader, kind, mesh_buf_slice(from));
    ProtobufCMessage *m = NULL;
    if (desc == &client__request__descriptor) {
        Client__Request *request = NULL;
        uint64_t id;
        uint32_t fault;
        char detail[96];
        mesh_err err = edge_codec_request(&reader, arena, &request, &id, &fault, detail, sizeof detail);
        if (err != MESH_OK) {
            fail_msg("%s: %.*s", detail, (int)from->size, (const char *)from->data);
        }
        assert_true(id == request->id);
        m = &request->base;
        assert_int_equal(edge_codec_request(&reader, arena, &request, &id, &fault, detail, sizeof detail), MESH_AGAIN);
    } else {
        Client__Event *event = NULL;
        assert_int_equal(edge_codec_event(&reader, arena, &event), MESH_OK);
        m = &event->base;
        assert_int_equal(edge_codec_event(&reader, arena, &event), MESH_AGAIN);
    }
    return m;
}

static void every_type_there_and_back(void **state)
{
    (void)state;
    const ProtobufCMessageDescriptor *frames[] = { &client__request__descriptor, &client__event__descriptor };
    mesh_rand r = { 42 };
    mesh_buf json = { 0 }, protobuf = { 0 }, json2 = { 0 }, protobuf2 = { 0 };
    for (size_t f = 0; f < 2; f++) {
        for (unsigned body = 1; body < frames[f]->n_fields; body++) {
            for (int round = 0; round < 50; round++) {
                mesh_arena_reset(arena);
                ProtobufCMessage *m = random_frame(&r, frames[f], body);
                mesh_buf_clear(&json);
                mesh_buf_clear(&protobuf);
                mesh_buf_clear(&json2);
                mesh_buf_clear(&protobuf2);
                encode(EDGE_JSON, m, &json);
                assert_int_equal(json.data[json.size - 1], '\n');
                encode(EDGE_PROTOBUF, decode(EDGE_JSON, frames[f], &json), &protobuf);
                encode(EDGE_PROTOBUF, m, &protobuf2); /* struct -> protobuf is what JSON -> struct -> protobuf is */
                assert_int_equal(protobuf.size, protobuf2.size);
                assert_memory_equal(protobuf.data, protobuf2.data, protobuf.size);
                encode(EDGE_JSON, decode(EDGE_PROTOBUF, frames[f], &protobuf), &json2);
                assert_int_equal(json.size, json2.size);
                assert_memory_equal(json.data, json2.data, json.size);
            }
        }
    }
    mesh_buf_fini(&json);
    mesh_buf_fini(&protobuf);
    mesh_buf_fini(&json2);
    mesh_buf_fini(&protobuf2);
}

/* ---- the exact look ---- */

static void what_json_looks_like(void **state)
{
    (void)state;
    Client__Attachment file = CLIENT__ATTACHMENT__INIT;
    file.ref = (char *)"r";
    Client__Attachment *files[] = { &file };
    char *users[] = { (char *)"bob", (char *)"eve" };
    Client__Message m = CLIENT__MESSAGE__INIT;
    m.chat = (char *)"room";
    m.seq = 9007199254740991;
    m.message_id = UINT64_MAX;
    m.kind = CLIENT__ENTRY_KIND__ENTRY_KIND_TEXT;
    m.body = (char *)"a\"\\\n\x01\xc3\xa4";
    m.n_attachments = 1;
    m.attachments = files;
    m.n_users = 2;
    m.users = users;
    m.chat_kind = CLIENT__CHAT_KIND__CHAT_KIND_DIRECT;
    Client__Event event = CLIENT__EVENT__INIT;
    event.id = 7;
    event.body_case = CLIENT__EVENT__BODY_MESSAGE;
    event.message = &m;
    mesh_buf out = { 0 };
    edge_codec_put_event(EDGE_JSON, &event, &out);
    mesh_buf_put(&out, "", 1);
    assert_string_equal(
        (char *)out.data,
        "{\"type\":\"message\",\"id\":7,\"chat\":\"room\",\"seq\":9007199254740991,"
        "\"message_id\":\"18446744073709551615\",\"kind\":\"text\",\"body\":\"a\\\"\\\\\\n\\u0001\xc3\xa4\","
        "\"attachments\":[{\"ref\":\"r\"}],\"users\":[\"bob\",\"eve\"],\"chat_kind\":\"direct\"}\n");
    mesh_buf_clear(&out);
    Client__Done done = CLIENT__DONE__INIT;
    Client__Event bare = CLIENT__EVENT__INIT;
    bare.body_case = CLIENT__EVENT__BODY_DONE;
    bare.done = &done;
    edge_codec_put_event(EDGE_JSON, &bare, &out);
    mesh_buf_put(&out, "", 1);
    assert_string_equal((char *)out.data, "{\"type\":\"done\"}\n");
    mesh_buf_clear(&out);
    Client__ChatCreate create = CLIENT__CHAT_CREATE__INIT;
    create.history = CLIENT__HISTORY_RULE__HISTORY_RULE_FROM_JOIN;
    Client__Request request = CLIENT__REQUEST__INIT;
    request.body_case = CLIENT__REQUEST__BODY_CHAT_CREATE;
    request.chat_create = &create;
    edge_codec_put_request(EDGE_JSON, &request, &out);
    mesh_buf_put(&out, "", 1);
    assert_string_equal((char *)out.data, "{\"type\":\"chat.create\",\"history\":\"from_join\"}\n");
    mesh_buf_fini(&out);
}

/* The pushed form of an entry is, field for field, the event printed whole. */
static void a_push_is_the_same_event(void **state)
{
    (void)state;
    mesh_rand r = { 7 };
    edge_codec_push push = { 0 };
    mesh_buf out = { 0 };
    for (int round = 0; round < 300; round++) {
        mesh_arena_reset(arena);
        Client__Message *m = (Client__Message *)random_message(&r, &client__message__descriptor);
        m->inbox_seq = 0;
        edge_codec_push_open(&push, m);
        for (uint64_t seq = 1; seq < EDGE_JSON_INT_MAX; seq = seq * 129 + 1) {
            for (int kind = 0; kind < 2; kind++) {
                mesh_buf_clear(&out);
                edge_codec_push_put(&push, (edge_codec_kind)kind, seq, &out);
                Client__Event *event = (Client__Event *)decode((edge_codec_kind)kind, &client__event__descriptor, &out);
                assert_int_equal(event->body_case, CLIENT__EVENT__BODY_MESSAGE);
                assert_true(event->id == 0 && event->message->inbox_seq == seq);
                event->message->inbox_seq = 0;
                mesh_buf a = { 0 }, b = { 0 };
                mesh_wire_pack(event->message, &a);
                mesh_wire_pack(m, &b);
                assert_int_equal(a.size, b.size);
                assert_memory_equal(a.data, b.data, a.size);
                mesh_buf_fini(&a);
                mesh_buf_fini(&b);
            }
        }
    }
    edge_codec_push_fini(&push);
    mesh_buf_fini(&out);
}

/* ---- what is refused ---- */

static uint32_t fault_of(edge_codec_kind kind, mesh_slice bytes, uint64_t *id, char detail[96])
{
    edge_codec_reader reader;
    edge_codec_open(&reader, kind, bytes);
    Client__Request *request = NULL;
    uint32_t fault = 0;
    mesh_arena_reset(arena);
    mesh_err err = edge_codec_request(&reader, arena, &request, id, &fault, detail, 96);
    assert_int_equal(err, fault == FAULT_NONE ? MESH_OK : MESH_MALFORMED);
    return fault;
}

static void malformed_json(void **state)
{
    (void)state;
    static const struct {
        const char *line;
        uint32_t fault;
        uint64_t id;
    } rows[] = {
        { "x", FAULT_MALFORMED, 0 },
        { "null", FAULT_MALFORMED, 0 },
        { "7", FAULT_MALFORMED, 0 },
        { "\"ping\"", FAULT_MALFORMED, 0 },
        { "[]", FAULT_MALFORMED, 0 },
        { "[{\"type\":\"ping\"}]", FAULT_MALFORMED, 0 },
        { "{", FAULT_MALFORMED, 0 },
        { "{}", FAULT_MALFORMED, 0 },
        { "{\"id\":4}", FAULT_MALFORMED, 4 },
        { "{\"type\":\"ping\"", FAULT_MALFORMED, 0 },
        { "{\"type\":\"ping\"}}", FAULT_MALFORMED, 0 },
        { "{\"type\":\"ping\"} x", FAULT_MALFORMED, 0 },
        { "{\"type\":\"ping\"}{\"type\":\"ping\"}", FAULT_MALFORMED, 0 },
        { "{'type':'ping'}", FAULT_MALFORMED, 0 },
        { "{type:\"ping\"}", FAULT_MALFORMED, 0 },
        { "{\"type\":\"ping\",}", FAULT_MALFORMED, 0 },
        { "{\"type\":\"ping\" /* x */}", FAULT_MALFORMED, 0 },
        { "{\"type\":\"ping\",\"type\":\"ping\"}", FAULT_MALFORMED, 0 },
        { "{\"type\":\"ping\",\"id\":1,\"id\":2}", FAULT_MALFORMED, 0 },
        { "{\"type\":\"ping\",\"x\":{\"a\":1,\"a\":1}}", FAULT_MALFORMED, 0 },
        { "{\"type\":7}", FAULT_MALFORMED, 0 },
        { "{\"type\":null,\"id\":3}", FAULT_MALFORMED, 3 },
        { "{\"type\":\"ping\",\"id\":-1}", FAULT_MALFORMED, 0 },
        { "{\"type\":\"ping\",\"id\":1.0}", FAULT_MALFORMED, 0 },
        { "{\"type\":\"ping\",\"id\":1e2}", FAULT_MALFORMED, 0 },
        { "{\"type\":\"ping\",\"id\":\"1\"}", FAULT_MALFORMED, 0 },
        { "{\"type\":\"ping\",\"id\":01}", FAULT_MALFORMED, 0 },
        { "{\"type\":\"ping\",\"id\":NaN}", FAULT_MALFORMED, 0 },
        { "{\"type\":\"ping\",\"id\":9007199254740992}", FAULT_MALFORMED, 0 },
        { "{\"type\":\"ping\",\"id\":99999999999999999999}", FAULT_MALFORMED, 0 },
        { "{\"type\":\"nope\",\"id\":5}", FAULT_UNKNOWN_TYPE, 5 },
        { "{\"type\":\"\",\"id\":5}", FAULT_UNKNOWN_TYPE, 5 },
        { "{\"type\":\"id\",\"id\":5}", FAULT_UNKNOWN_TYPE, 5 },
        { "{\"type\":\"Ping\"}", FAULT_UNKNOWN_TYPE, 0 },
        { "{\"type\":\"chat_create\"}", FAULT_UNKNOWN_TYPE, 0 },
        { "{\"type\":\"chat.create.x\"}", FAULT_UNKNOWN_TYPE, 0 },
        { "{\"type\":\"welcome\"}", FAULT_UNKNOWN_TYPE, 0 },
        { "{\"type\":\"a very long type that is no type at all and longer than any\"}", FAULT_UNKNOWN_TYPE, 0 },
        { "{\"type\":\"send\",\"id\":6,\"chat\":7}", FAULT_MALFORMED, 6 },
        { "{\"type\":\"send\",\"id\":6,\"chat\":[\"a\"]}", FAULT_MALFORMED, 6 },
        { "{\"type\":\"send\",\"id\":6,\"chat\":true}", FAULT_MALFORMED, 6 },
        { "{\"type\":\"send\",\"id\":6,\"attachments\":{}}", FAULT_MALFORMED, 6 },
        { "{\"type\":\"send\",\"id\":6,\"attachments\":[1]}", FAULT_MALFORMED, 6 },
        { "{\"type\":\"send\",\"id\":6,\"attachments\":[null]}", FAULT_MALFORMED, 6 },
        { "{\"type\":\"send\",\"id\":6,\"attachments\":[{\"size\":\"1\"}]}", FAULT_MALFORMED, 6 },
        { "{\"type\":\"send\",\"id\":6,\"attachments\":[{\"size\":9007199254740992}]}", FAULT_MALFORMED, 6 },
        { "{\"type\":\"hello\",\"cursor\":7}", FAULT_MALFORMED, 0 },
        { "{\"type\":\"hello\",\"cursor\":{\"era\":7}}", FAULT_MALFORMED, 0 },
        { "{\"type\":\"hello\",\"cursor\":{\"era\":\"\"}}", FAULT_MALFORMED, 0 },
        { "{\"type\":\"hello\",\"cursor\":{\"era\":\"-1\"}}", FAULT_MALFORMED, 0 },
        { "{\"type\":\"hello\",\"cursor\":{\"era\":\"0x1\"}}", FAULT_MALFORMED, 0 },
        { "{\"type\":\"hello\",\"cursor\":{\"era\":\"18446744073709551616\"}}", FAULT_MALFORMED, 0 },
        { "{\"type\":\"hello\",\"cursor\":{\"era\":\"000000000000000000001\"}}", FAULT_MALFORMED, 0 },
        { "{\"type\":\"hello\",\"features\":[1]}", FAULT_MALFORMED, 0 },
        { "{\"type\":\"hello\",\"attempt\":-1}", FAULT_MALFORMED, 0 },
        { "{\"type\":\"hello\",\"attempt\":1.0}", FAULT_MALFORMED, 0 },
        { "{\"type\":\"hello\",\"attempt\":\"1\"}", FAULT_MALFORMED, 0 },
        { "{\"type\":\"hello\",\"attempt\":9007199254740992}", FAULT_MALFORMED, 0 },
        { "{\"type\":\"history\",\"id\":8,\"limit\":4294967296}", FAULT_MALFORMED, 8 },
        { "{\"type\":\"history\",\"id\":8,\"limit\":-1}", FAULT_MALFORMED, 8 },
        { "{\"type\":\"history\",\"id\":8,\"from_start\":1}", FAULT_MALFORMED, 8 },
        { "{\"type\":\"state\",\"id\":8,\"state\":\"ACTIVE\"}", FAULT_MALFORMED, 8 },
        { "{\"type\":\"state\",\"id\":8,\"state\":\"\"}", FAULT_MALFORMED, 8 },
        { "{\"type\":\"state\",\"id\":8,\"state\":\"activ\"}", FAULT_MALFORMED, 8 },
        { "{\"type\":\"state\",\"id\":8,\"state\":\"activee\"}", FAULT_MALFORMED, 8 },
        { "{\"type\":\"state\",\"id\":8,\"state\":0}", FAULT_MALFORMED, 8 },
        { "{\"type\":\"send\",\"body\":\"\\u0000\"}", FAULT_MALFORMED, 0 },
        { "{\"type\":\"send\",\"body\":\"a\\u0000b\"}", FAULT_MALFORMED, 0 },
        { "{\"type\":\"send\",\"b\\u0000\":\"x\"}", FAULT_MALFORMED, 0 },
        { "{\"type\":\"send\",\"body\":\"\\ud800\"}", FAULT_MALFORMED, 0 },
        { "{\"type\":\"send\",\"body\":\"\\udc00\"}", FAULT_MALFORMED, 0 },
        { "{\"type\":\"send\",\"body\":\"\\ud800\\ud800\"}", FAULT_MALFORMED, 0 },
        { "{\"type\":\"send\",\"body\":\"\\ud800x\"}", FAULT_MALFORMED, 0 },
        { "{\"type\":\"send\",\"body\":\"\xff\"}", FAULT_MALFORMED, 0 },
        { "{\"type\":\"send\",\"body\":\"\xc0\x80\"}", FAULT_MALFORMED, 0 },
        { "{\"type\":\"send\",\"body\":\"\xed\xa0\x80\"}", FAULT_MALFORMED, 0 },
        { "{\"type\":\"send\",\"body\":\"\xf4\x90\x80\x80\"}", FAULT_MALFORMED, 0 },
        { "{\"type\":\"send\",\"body\":\"\xc3\"}", FAULT_MALFORMED, 0 },
        { "{\"type\":\"send\",\"body\":\"\x01\"}", FAULT_MALFORMED, 0 },
        { "{\"type\":\"send\",\"body\":\"\t\"}", FAULT_MALFORMED, 0 },
        { "{\"type\":\"send\",\"body\":\"\\x\"}", FAULT_MALFORMED, 0 },
        { "{\"type\":\"send\",\"body\":\"x", FAULT_MALFORMED, 0 },
        { "\xef\xbb\xbf{\"type\":\"ping\"}", FAULT_MALFORMED, 0 },
        /* and what is good, so that the table can fail both ways */
        { "{\"type\":\"ping\"}", FAULT_NONE, 0 },
        { " {\"id\":9007199254740991 , \"type\":\"ping\"}\r", FAULT_NONE, 9007199254740991 },
        { "{\"type\":\"ping\",\"id\":null,\"other\":{\"x\":[1.5,null,{}]}}", FAULT_NONE, 0 },
        { "{\"type\":\"send\",\"chat\":null,\"attachments\":null,\"body\":\"\\ud83d\\ude00\"}", FAULT_NONE, 0 },
        { "{\"type\":\"state\",\"state\":\"inactive\"}", FAULT_NONE, 0 },
        { "{\"type\":\"hello\",\"attempt\":9007199254740991}", FAULT_NONE, 0 },
        { "{\"type\":\"hello\",\"attempt\":0}", FAULT_NONE, 0 },
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char detail[96];
        uint64_t id = 99;
        uint32_t fault = fault_of(EDGE_JSON, text(rows[i].line), &id, detail);
        if (fault != rows[i].fault || id != rows[i].id) {
            fail_msg("%s: fault %u id %llu (%s)", rows[i].line, fault, (unsigned long long)id, detail);
        }
        assert_true((fault == FAULT_NONE) == (detail[0] == '\0'));
    }
    uint64_t id;
    char detail[96];
    mesh_slice raw_nul = { (const uint8_t *)"{\"type\":\"ping\0\"}", 16 };
    assert_int_equal(fault_of(EDGE_JSON, raw_nul, &id, detail), FAULT_MALFORMED);
}

static void depth_and_size_are_bounded(void **state)
{
    (void)state;
    uint64_t id;
    char detail[96];
    mesh_buf b = { 0 };
    /* x is nested in the frame itself: 31 more are the last that is good */
    for (int depth = 30; depth <= 33; depth++) {
        mesh_buf_clear(&b);
        mesh_buf_puts(&b, "{\"type\":\"ping\",\"s\":\"[[[[{{{{\\\"[[\",\"x\":");
        for (int i = 0; i < depth; i++) {
            mesh_buf_puts(&b, "[");
        }
        for (int i = 0; i < depth; i++) {
            mesh_buf_puts(&b, "]");
        }
        mesh_buf_puts(&b, "}");
        assert_int_equal(fault_of(EDGE_JSON, mesh_buf_slice(&b), &id, detail),
                         depth <= 31 ? FAULT_NONE : FAULT_MALFORMED);
    }
    mesh_buf_clear(&b);
    for (int i = 0; i < 100000; i++) {
        mesh_buf_puts(&b, "[");
    }
    assert_int_equal(fault_of(EDGE_JSON, mesh_buf_slice(&b), &id, detail), FAULT_MALFORMED);
    mesh_buf_clear(&b);
    mesh_buf_puts(&b, "{\"type\":\"ping\",\"x\":[{}");
    for (int i = 0; i < 100000; i++) {
        mesh_buf_puts(&b, ",{}");
    }
    mesh_buf_puts(&b, "]}");
    assert_int_equal(fault_of(EDGE_JSON, mesh_buf_slice(&b), &id, detail), FAULT_MALFORMED);
    mesh_buf_fini(&b);
}

static void lines_are_read_one_by_one(void **state)
{
    (void)state;
    edge_codec_reader reader;
    edge_codec_open(&reader, EDGE_JSON,
                    text("\n\n{\"type\":\"ping\",\"id\":1}\r\n \t\r\nnonsense\n{\"type\":\"ping\",\"id\":2}\n\n"));
    Client__Request *request = NULL;
    uint64_t id;
    uint32_t fault;
    char detail[96];
    assert_int_equal(edge_codec_request(&reader, arena, &request, &id, &fault, detail, sizeof detail), MESH_OK);
    assert_true(id == 1);
    assert_int_equal(edge_codec_request(&reader, arena, &request, &id, &fault, detail, sizeof detail), MESH_MALFORMED);
    assert_int_equal(edge_codec_request(&reader, arena, &request, &id, &fault, detail, sizeof detail), MESH_OK);
    assert_true(id == 2);
    assert_int_equal(edge_codec_request(&reader, arena, &request, &id, &fault, detail, sizeof detail), MESH_AGAIN);
    edge_codec_open(&reader, EDGE_JSON, text(""));
    assert_int_equal(edge_codec_request(&reader, arena, &request, &id, &fault, detail, sizeof detail), MESH_AGAIN);
}

static void malformed_protobuf(void **state)
{
    (void)state;
    static const struct {
        const char *bytes;
        size_t size;
        uint32_t fault;
        uint64_t id;
    } rows[] = {
        { "\x05", 1, FAULT_MALFORMED, 0 },                        /* length beyond the message */
        { "\x80", 1, FAULT_MALFORMED, 0 },                        /* cut length */
        { "\xff\xff\xff\xff\xff\xff", 6, FAULT_MALFORMED, 0 },    /* endless length */
        { "\x00", 1, FAULT_UNKNOWN_TYPE, 0 },                     /* empty request */
        { "\x02\x08\x05", 3, FAULT_UNKNOWN_TYPE, 5 },             /* an id only */
        { "\x05\x08\x05\xfa\x06\x00", 6, FAULT_UNKNOWN_TYPE, 5 }, /* a type of the future: field 111 */
        { "\x02\x72\x05", 3, FAULT_MALFORMED, 0 },                /* ping longer than the frame */
        { "\x02\x70\x00", 3, FAULT_MALFORMED, 0 },                /* ping of another wire type */
        { "\x05\x1a\x03\x0a\x01\xff", 6, FAULT_MALFORMED, 0 },    /* send.chat not UTF-8 */
        { "\x06\x1a\x04\x2a\x02"
          "a\x00",
          7, FAULT_MALFORMED, 0 },                                                      /* send.body with NUL */
        { "\x04\x7a\x02\x08\x07", 5, FAULT_MALFORMED, 0 },                              /* state.state 7 */
        { "\x0b\x08\x80\x80\x80\x80\x80\x80\x80\x10\x72\x00", 12, FAULT_MALFORMED, 0 }, /* id 2^53 */
        { "\x0b\x22\x09\x08\x80\x80\x80\x80\x80\x80\x80\x10", 12, FAULT_MALFORMED, 0 }, /* ack.inbox_seq 2^53 */
        { "\x0b\x12\x09\x30\x80\x80\x80\x80\x80\x80\x80\x10", 12, FAULT_MALFORMED, 0 }, /* hello.attempt 2^53 */
        { "\x0b\x12\x09\x30\xff\xff\xff\xff\xff\xff\xff\x0f", 12, FAULT_NONE, 0 },      /* 2^53-1 */
        { "\x04\x08\x05\x72\x00", 5, FAULT_NONE, 5 },                                   /* ping */
        { "\x04\x7a\x02\x08\x01", 5, FAULT_NONE, 0 },                                   /* state inactive */
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char detail[96];
        uint64_t id = 99;
        uint32_t fault =
            fault_of(EDGE_PROTOBUF, (mesh_slice){ (const uint8_t *)rows[i].bytes, rows[i].size }, &id, detail);
        if (fault != rows[i].fault || id != rows[i].id) {
            fail_msg("row %zu: fault %u id %llu (%s)", i, fault, (unsigned long long)id, detail);
        }
    }
    /* a bad frame does not hide the next one, a bad length does */
    edge_codec_reader reader;
    Client__Request *request = NULL;
    uint64_t id;
    uint32_t fault;
    char detail[96];
    edge_codec_open(&reader, EDGE_PROTOBUF, (mesh_slice){ (const uint8_t *)"\x02\x70\x00\x02\x72\x00\x09\x72", 8 });
    assert_int_equal(edge_codec_request(&reader, arena, &request, &id, &fault, detail, sizeof detail), MESH_MALFORMED);
    assert_int_equal(edge_codec_request(&reader, arena, &request, &id, &fault, detail, sizeof detail), MESH_OK);
    assert_int_equal(edge_codec_request(&reader, arena, &request, &id, &fault, detail, sizeof detail), MESH_MALFORMED);
    assert_int_equal(edge_codec_request(&reader, arena, &request, &id, &fault, detail, sizeof detail), MESH_AGAIN);
}

/* Good frames, cut and with bits turned: any answer, but one. */
static void damaged_frames_do_no_harm(void **state)
{
    (void)state;
    mesh_rand r = { 99 };
    for (int round = 0; round < 3000; round++) {
        mesh_arena_reset(arena);
        edge_codec_kind kind = (edge_codec_kind)(round % 2);
        mesh_buf b = { 0 };
        unsigned body = 1 + (unsigned)mesh_rand_below(&r, client__request__descriptor.n_fields - 1);
        encode(kind, random_frame(&r, &client__request__descriptor, body), &b);
        for (uint64_t n = mesh_rand_below(&r, 4); n > 0; n--) {
            b.data[mesh_rand_below(&r, b.size)] ^= (uint8_t)(1u << mesh_rand_below(&r, 8));
        }
        edge_codec_reader reader;
        edge_codec_open(&reader, kind, (mesh_slice){ b.data, b.size - (size_t)mesh_rand_below(&r, b.size / 2 + 1) });
        mesh_err err;
        do {
            Client__Request *request = NULL;
            uint64_t id;
            uint32_t fault;
            char detail[96];
            err = edge_codec_request(&reader, arena, &request, &id, &fault, detail, sizeof detail);
            assert_true(err == MESH_AGAIN || (err == MESH_OK) == (fault == FAULT_NONE));
        } while (err != MESH_AGAIN);
        mesh_buf_fini(&b);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_type_there_and_back),  cmocka_unit_test(what_json_looks_like),
        cmocka_unit_test(a_push_is_the_same_event),   cmocka_unit_test(malformed_json),
        cmocka_unit_test(depth_and_size_are_bounded), cmocka_unit_test(lines_are_read_one_by_one),
        cmocka_unit_test(malformed_protobuf),         cmocka_unit_test(damaged_frames_do_no_harm),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
