#include "edge/codec.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

#include "edge/json.h"
#include "mesh/fault.h"

#define VARINT_MAX 10

void edge_codec_open(edge_codec_reader *r, edge_codec_kind kind, mesh_slice message)
{
    *r = (edge_codec_reader){ kind, message };
}

static void put_varint(uint64_t v, mesh_buf *out)
{
    uint8_t bytes[VARINT_MAX];
    size_t n = 0;
    do {
        bytes[n++] = (uint8_t)((v & 0x7f) | (v > 0x7f ? 0x80 : 0));
        v >>= 7;
    } while (v != 0);
    mesh_buf_put(out, bytes, n);
}

static bool take_varint(mesh_slice *rest, uint64_t *out)
{
    uint64_t v = 0;
    for (size_t i = 0; i < 5 && i < rest->size; i++) {
        v |= (uint64_t)(rest->data[i] & 0x7f) << (7 * i);
        if (rest->data[i] < 0x80) {
            rest->data += i + 1;
            rest->size -= i + 1;
            *out = v;
            return true;
        }
    }
    return false;
}

static bool blank(mesh_slice line)
{
    for (size_t i = 0; i < line.size; i++) {
        if (line.data[i] != ' ' && line.data[i] != '\t' && line.data[i] != '\r') {
            return false;
        }
    }
    return true;
}

static bool take_line(mesh_slice *rest, mesh_slice *line)
{
    while (rest->size > 0) {
        const uint8_t *end = memchr(rest->data, '\n', rest->size);
        size_t n = end == NULL ? rest->size : (size_t)(end - rest->data);
        *line = (mesh_slice){ rest->data, n };
        rest->data += end == NULL ? n : n + 1;
        rest->size -= end == NULL ? n : n + 1;
        if (!blank(*line)) {
            return true;
        }
    }
    return false;
}

/* JSON cannot carry a number above 2^53-1, so neither may protobuf: what came in by one goes out by the other. */
static bool numbers_fit(const ProtobufCMessage *message)
{
    const char *base = (const char *)message;
    const ProtobufCMessageDescriptor *desc = message->descriptor;
    for (unsigned i = 0; i < desc->n_fields; i++) {
        const ProtobufCFieldDescriptor *field = &desc->fields[i];
        const void *at = base + field->offset;
        if (field->label == PROTOBUF_C_LABEL_REPEATED) {
            size_t n = *(const size_t *)(const void *)(base + field->quantifier_offset);
            for (size_t j = 0; field->type == PROTOBUF_C_TYPE_MESSAGE && j < n; j++) {
                if (!numbers_fit((*(ProtobufCMessage * *const *)at)[j])) {
                    return false;
                }
            }
        } else if ((field->flags & PROTOBUF_C_FIELD_FLAG_ONEOF) != 0 &&
                   *(const uint32_t *)(const void *)(base + field->quantifier_offset) != field->id) {
            continue;
        } else if (field->type == PROTOBUF_C_TYPE_UINT64 && *(const uint64_t *)at > EDGE_JSON_INT_MAX) {
            return false;
        } else if (field->type == PROTOBUF_C_TYPE_MESSAGE && *(void *const *)at != NULL &&
                   !numbers_fit(*(ProtobufCMessage *const *)at)) {
            return false;
        }
    }
    return true;
}

static mesh_err next_protobuf(mesh_slice *rest, const ProtobufCMessageDescriptor *desc, mesh_arena *arena,
                              ProtobufCMessage **message_p, edge_json_error *error)
{
    uint64_t size;
    if (rest->size == 0) {
        return MESH_AGAIN;
    }
    error->fault = FAULT_MALFORMED;
    if (!take_varint(rest, &size) || size > rest->size) {
        rest->size = 0; /* where the next frame starts is not known any more */
        snprintf(error->detail, error->size, "frame length beyond the message");
        return MESH_MALFORMED;
    }
    mesh_slice frame = { rest->data, (size_t)size };
    rest->data += size;
    rest->size -= (size_t)size;
    ProtobufCMessage *message;
    if (mesh_wire_unpack(desc, frame, arena, &message) != MESH_OK) {
        snprintf(error->detail, error->size, "not protobuf of this schema");
        return MESH_MALFORMED;
    }
    if (!numbers_fit(message)) {
        snprintf(error->detail, error->size, "a number is above 2^53-1");
        return MESH_MALFORMED;
    }
    *message_p = message;
    return MESH_OK;
}

mesh_err edge_codec_request(edge_codec_reader *r, mesh_arena *arena, Client__Request **request_p, uint64_t *id,
                            uint32_t *fault, char *detail, size_t detail_size)
{
    edge_json_error error = { FAULT_NONE, detail, detail_size };
    ProtobufCMessage *message = NULL;
    mesh_err err;
    *id = 0;
    *fault = FAULT_NONE;
    detail[0] = '\0';
    if (r->kind == EDGE_JSON) {
        mesh_slice line;
        err = take_line(&r->rest, &line)
                  ? edge_json_parse(line, &client__request__descriptor, arena, &message, id, &error)
                  : MESH_AGAIN;
    } else {
        err = next_protobuf(&r->rest, &client__request__descriptor, arena, &message, &error);
    }
    if (err == MESH_MALFORMED) {
        *fault = error.fault;
        return err;
    }
    if (err != MESH_OK) {
        return err;
    }
    Client__Request *request = (Client__Request *)message;
    *id = request->id;
    if (request->body_case == CLIENT__REQUEST__BODY__NOT_SET) {
        *fault = FAULT_UNKNOWN_TYPE;
        snprintf(detail, detail_size, "this type is not known here");
        return MESH_MALFORMED;
    }
    *request_p = request;
    return MESH_OK;
}

mesh_err edge_codec_event(edge_codec_reader *r, mesh_arena *arena, Client__Event **event_p)
{
    char detail[96];
    edge_json_error error = { FAULT_NONE, detail, sizeof detail };
    ProtobufCMessage *message = NULL;
    mesh_err err;
    if (r->kind == EDGE_JSON) {
        mesh_slice line;
        uint64_t id;
        err = take_line(&r->rest, &line)
                  ? edge_json_parse(line, &client__event__descriptor, arena, &message, &id, &error)
                  : MESH_AGAIN;
    } else {
        err = next_protobuf(&r->rest, &client__event__descriptor, arena, &message, &error);
    }
    if (err == MESH_OK && ((Client__Event *)message)->body_case == CLIENT__EVENT__BODY__NOT_SET) {
        err = MESH_MALFORMED;
    }
    if (err == MESH_OK) {
        *event_p = (Client__Event *)message;
    }
    return err;
}

static void put(edge_codec_kind kind, const ProtobufCMessage *message, mesh_buf *out)
{
    if (kind == EDGE_JSON) {
        edge_json_print(message, out);
        mesh_buf_put(out, "\n", 1);
    } else {
        put_varint(mesh_wire_size(message), out);
        mesh_wire_pack(message, out);
    }
}

void edge_codec_put_event(edge_codec_kind kind, const Client__Event *event, mesh_buf *out)
{
    put(kind, &event->base, out);
}

void edge_codec_put_request(edge_codec_kind kind, const Client__Request *request, mesh_buf *out)
{
    put(kind, &request->base, out);
}

/* ---- one entry for many sessions: all but its inbox_seq is encoded once ---- */

void edge_codec_push_fini(edge_codec_push *push)
{
    mesh_buf_fini(&push->encoded[EDGE_JSON]);
    mesh_buf_fini(&push->encoded[EDGE_PROTOBUF]);
}

void edge_codec_push_open(edge_codec_push *push, const Client__Message *message)
{
    assert(message->inbox_seq == 0);
    push->message = message;
    mesh_buf_clear(&push->encoded[EDGE_JSON]);
    mesh_buf_clear(&push->encoded[EDGE_PROTOBUF]);
}

void edge_codec_push_put(edge_codec_push *push, edge_codec_kind kind, uint64_t inbox_seq, mesh_buf *out)
{
    mesh_buf *encoded = &push->encoded[kind];
    if (kind == EDGE_JSON) {
        if (encoded->size == 0) {
            mesh_buf_puts(encoded, "{\"type\":\"message\"");
            edge_json_print_fields(&push->message->base, encoded);
            mesh_buf_puts(encoded, ",\"inbox_seq\":");
        }
        mesh_buf_put(out, encoded->data, encoded->size);
        edge_json_print_uint(inbox_seq, out);
        mesh_buf_put(out, "}\n", 2);
        return;
    }
    /* fields may come in any order: inbox_seq is put last, with the lengths around it made to fit */
    if (encoded->size == 0) {
        mesh_wire_pack(push->message, encoded);
    }
    uint8_t bytes[64];
    mesh_buf tail = { .data = bytes, .cap = sizeof bytes };
    put_varint(16 << 3, &tail); /* Message.inbox_seq, a varint */
    put_varint(inbox_seq, &tail);
    size_t message_size = encoded->size + tail.size;
    uint8_t head_bytes[64];
    mesh_buf head = { .data = head_bytes, .cap = sizeof head_bytes };
    put_varint(CLIENT__EVENT__BODY_MESSAGE << 3 | 2, &head);
    put_varint(message_size, &head);
    put_varint(head.size + message_size, out);
    mesh_buf_put(out, head.data, head.size);
    mesh_buf_put(out, encoded->data, encoded->size);
    mesh_buf_put(out, tail.data, tail.size);
}
