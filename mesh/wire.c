#include "mesh/wire.h"

#include <assert.h>
#include <string.h>

#include "mesh/utf8.h"

/* ---- the walk: bytes from outside against a descriptor, before the library sees them ---- */

typedef struct walk {
    const uint8_t *p;
    const uint8_t *end;
    unsigned depth;
    unsigned elements; /* counted over the whole message */
} walk;

#define VARINT_MAX 10

static bool read_varint(walk *w, uint64_t *value)
{
    if (w->p < w->end && *w->p < 0x80) {
        *value = *w->p++;
        return true;
    }
    uint64_t v = 0;
    for (unsigned i = 0; i < VARINT_MAX && w->p < w->end; i++) {
        uint8_t c = *w->p++;
        if (i == VARINT_MAX - 1 && c > 1) {
            return false;
        }
        v |= (uint64_t)(c & 0x7f) << (7 * i);
        if (c < 0x80) {
            *value = v;
            return true;
        }
    }
    return false;
}

/* A length is at most five bytes: the library reads no more of it. */
static bool read_bytes(walk *w, mesh_slice *bytes)
{
    const uint8_t *start = w->p;
    uint64_t size;
    if (!read_varint(w, &size) || w->p - start > 5 || size > (size_t)(w->end - w->p)) {
        return false;
    }
    *bytes = (mesh_slice){ w->p, (size_t)size };
    w->p += size;
    return true;
}

static bool skip_fixed(walk *w, size_t n)
{
    if ((size_t)(w->end - w->p) < n) {
        return false;
    }
    w->p += n;
    return true;
}

static bool skip_unknown(walk *w, unsigned wire_type)
{
    uint64_t value;
    mesh_slice bytes;
    switch (wire_type) {
    case PROTOBUF_C_WIRE_TYPE_VARINT:
        return read_varint(w, &value);
    case PROTOBUF_C_WIRE_TYPE_64BIT:
        return skip_fixed(w, 8);
    case PROTOBUF_C_WIRE_TYPE_LENGTH_PREFIXED:
        return read_bytes(w, &bytes);
    case PROTOBUF_C_WIRE_TYPE_32BIT:
        return skip_fixed(w, 4);
    default: /* groups, and what is not defined */
        return false;
    }
}

static unsigned wire_type_of(ProtobufCType type)
{
    switch (type) {
    case PROTOBUF_C_TYPE_SFIXED32:
    case PROTOBUF_C_TYPE_FIXED32:
    case PROTOBUF_C_TYPE_FLOAT:
        return PROTOBUF_C_WIRE_TYPE_32BIT;
    case PROTOBUF_C_TYPE_SFIXED64:
    case PROTOBUF_C_TYPE_FIXED64:
    case PROTOBUF_C_TYPE_DOUBLE:
        return PROTOBUF_C_WIRE_TYPE_64BIT;
    case PROTOBUF_C_TYPE_STRING:
    case PROTOBUF_C_TYPE_BYTES:
    case PROTOBUF_C_TYPE_MESSAGE:
        return PROTOBUF_C_WIRE_TYPE_LENGTH_PREFIXED;
    default:
        return PROTOBUF_C_WIRE_TYPE_VARINT;
    }
}

/* The library cuts what does not fit, so a too large number would become another one. */
static bool varint_fits(const ProtobufCFieldDescriptor *field, uint64_t v)
{
    switch (field->type) {
    case PROTOBUF_C_TYPE_BOOL:
        return v <= 1;
    case PROTOBUF_C_TYPE_UINT32:
    case PROTOBUF_C_TYPE_SINT32:
        return v <= UINT32_MAX;
    case PROTOBUF_C_TYPE_INT32:
        return v <= INT32_MAX || v >= (uint64_t)INT32_MIN;
    case PROTOBUF_C_TYPE_ENUM:
        return v <= INT32_MAX && protobuf_c_enum_descriptor_get_value(field->descriptor, (int)v) != NULL;
    default:
        return true;
    }
}

static bool walk_scalar(walk *w, const ProtobufCFieldDescriptor *field, unsigned wire_type)
{
    uint64_t v;
    switch (wire_type) {
    case PROTOBUF_C_WIRE_TYPE_64BIT:
        return skip_fixed(w, 8);
    case PROTOBUF_C_WIRE_TYPE_32BIT:
        return skip_fixed(w, 4);
    default:
        return read_varint(w, &v) && varint_fits(field, v);
    }
}

static bool walk_packed(walk *w, const ProtobufCFieldDescriptor *field)
{
    mesh_slice bytes;
    if (!read_bytes(w, &bytes)) {
        return false;
    }
    walk inner = { .p = bytes.data, .end = bytes.data + bytes.size };
    unsigned wire_type = wire_type_of(field->type);
    while (inner.p < inner.end) {
        if (++w->elements > MESH_WIRE_ELEMENTS || !walk_scalar(&inner, field, wire_type)) {
            return false;
        }
    }
    return true;
}

static bool walk_message(walk *w, const ProtobufCMessageDescriptor *desc);

static bool walk_long(walk *w, const ProtobufCFieldDescriptor *field)
{
    mesh_slice bytes;
    if (!read_bytes(w, &bytes)) {
        return false;
    }
    switch (field->type) {
    case PROTOBUF_C_TYPE_BYTES:
        return true;
    case PROTOBUF_C_TYPE_STRING:
        return bytes.size == 0 ||
               (memchr(bytes.data, 0, bytes.size) == NULL && mesh_utf8_valid(bytes.data, bytes.size, NULL));
    default:
        break;
    }
    if (w->depth + 1 >= MESH_WIRE_DEPTH || ++w->elements > MESH_WIRE_ELEMENTS) {
        return false;
    }
    walk inner = { bytes.data, bytes.data + bytes.size, w->depth + 1, w->elements };
    bool ok = walk_message(&inner, field->descriptor);
    w->elements = inner.elements;
    return ok;
}

static bool walk_field(walk *w, const ProtobufCFieldDescriptor *field, unsigned wire_type)
{
    bool repeated = field->label == PROTOBUF_C_LABEL_REPEATED;
    unsigned expected = wire_type_of(field->type);
    if (repeated && expected != PROTOBUF_C_WIRE_TYPE_LENGTH_PREFIXED &&
        wire_type == PROTOBUF_C_WIRE_TYPE_LENGTH_PREFIXED) {
        return walk_packed(w, field);
    }
    if (wire_type != expected) {
        return false;
    }
    /* submessages are counted where they are entered */
    if (repeated && field->type != PROTOBUF_C_TYPE_MESSAGE && ++w->elements > MESH_WIRE_ELEMENTS) {
        return false;
    }
    return expected == PROTOBUF_C_WIRE_TYPE_LENGTH_PREFIXED ? walk_long(w, field) : walk_scalar(w, field, wire_type);
}

/* What a message has had so far. No message of ours has more than 64 fields or more than one oneof. */
typedef struct seen {
    uint64_t fields;
    unsigned oneof; /* offset of its case member; 0 = none yet */
} seen;

static bool first_time(seen *s, const ProtobufCMessageDescriptor *desc, const ProtobufCFieldDescriptor *field)
{
    if (field->label == PROTOBUF_C_LABEL_REPEATED) {
        return true;
    }
    uint64_t bit = UINT64_C(1) << (field - desc->fields);
    if ((s->fields & bit) != 0) {
        return false;
    }
    s->fields |= bit;
    if ((field->flags & PROTOBUF_C_FIELD_FLAG_ONEOF) != 0) {
        if (s->oneof == field->quantifier_offset) {
            return false;
        }
        s->oneof = field->quantifier_offset;
    }
    return true;
}

static bool walk_message(walk *w, const ProtobufCMessageDescriptor *desc)
{
    assert(desc->n_fields <= 64);
    seen s = { 0 };
    while (w->p < w->end) {
        const uint8_t *start = w->p;
        uint64_t tag;
        if (!read_varint(w, &tag) || w->p - start > 5 || tag > UINT32_MAX || tag >> 3 == 0) {
            return false;
        }
        unsigned wire_type = (unsigned)(tag & 7);
        const ProtobufCFieldDescriptor *field = protobuf_c_message_descriptor_get_field(desc, (unsigned)(tag >> 3));
        if (field == NULL) {
            if (++w->elements > MESH_WIRE_ELEMENTS || !skip_unknown(w, wire_type)) {
                return false;
            }
        } else if (!first_time(&s, desc, field) || !walk_field(w, field, wire_type)) {
            return false;
        }
    }
    return true;
}

/* ---- unpack and pack ---- */

static void *arena_alloc(void *arena, size_t size)
{
    return mesh_arena_grab(arena, size);
}

static void arena_free(void *arena, void *p)
{
    (void)arena;
    (void)p;
}

mesh_err mesh_wire_unpack(const ProtobufCMessageDescriptor *desc, mesh_slice bytes, mesh_arena *arena,
                          ProtobufCMessage **out_p)
{
    static const uint8_t nothing[1];
    const uint8_t *data = bytes.data != NULL ? bytes.data : nothing;
    walk w = { .p = data, .end = data + bytes.size };
    if (!walk_message(&w, desc)) {
        return MESH_MALFORMED;
    }
    ProtobufCAllocator allocator = { arena_alloc, arena_free, arena };
    ProtobufCMessage *message = protobuf_c_message_unpack(desc, &allocator, bytes.size, data);
    if (message == NULL) {
        return MESH_MALFORMED;
    }
    *out_p = message;
    return MESH_OK;
}

size_t mesh_wire_size(const void *message)
{
    return protobuf_c_message_get_packed_size(message);
}

void mesh_wire_pack(const void *message, mesh_buf *out)
{
    size_t size = protobuf_c_message_get_packed_size(message);
    size_t packed = protobuf_c_message_pack(message, mesh_buf_grow(out, size));
    assert(packed == size);
}

void mesh_wire_pack_to(const void *message, uint8_t *to, size_t size)
{
    size_t packed = protobuf_c_message_pack(message, to);
    assert(packed == size);
}

/* ---- frames ---- */

#define LENGTH_SIZE 4
#define MSG_HEAD_MAX 15 /* corr and ttl_ms: a tag and eight bytes, a tag and five */

static uint8_t *frame_item(mesh_buf *frame, size_t size)
{
    assert(size <= MESH_MSG_MAX); /* answers and entries are cut far below it */
    if (frame->size == 0) {
        *mesh_buf_grow(frame, 1) = MESH_FRAME_VERSION;
    }
    uint8_t *to = mesh_buf_grow(frame, LENGTH_SIZE + size);
    mesh_put_u32le(to, (uint32_t)size);
    return to + LENGTH_SIZE;
}

void mesh_frame_put(mesh_buf *frame, const Mesh__Msg *msg)
{
    size_t size = mesh__msg__get_packed_size(msg);
    size_t packed = mesh__msg__pack(msg, frame_item(frame, size));
    assert(packed == size);
}

void mesh_frame_put_packed(mesh_buf *frame, mesh_slice packed_msg)
{
    uint8_t *to = frame_item(frame, packed_msg.size);
    if (packed_msg.size > 0) {
        memcpy(to, packed_msg.data, packed_msg.size);
    }
}

/* Written by hand: the library looks at every field a Msg could have, and these are two. */
void mesh_frame_put_kept(mesh_buf *frame, uint64_t corr, uint32_t ttl_ms, mesh_slice kept)
{
    uint8_t head[MSG_HEAD_MAX];
    size_t n = 0;
    if (corr != 0) {
        head[n++] = 1 << 3 | PROTOBUF_C_WIRE_TYPE_64BIT;
        mesh_put_u32le(&head[n], (uint32_t)corr);
        mesh_put_u32le(&head[n + 4], (uint32_t)(corr >> 32));
        n += 8;
    }
    if (ttl_ms != 0) {
        head[n++] = 2 << 3 | PROTOBUF_C_WIRE_TYPE_VARINT;
        for (; ttl_ms >= 0x80; ttl_ms >>= 7) {
            head[n++] = (uint8_t)(ttl_ms | 0x80);
        }
        head[n++] = (uint8_t)ttl_ms;
    }
    uint8_t *to = frame_item(frame, n + kept.size);
    memcpy(to, head, n);
    if (kept.size > 0) {
        memcpy(to + n, kept.data, kept.size);
    }
}

mesh_err mesh_frame_open(mesh_frame_reader *r, mesh_slice frame)
{
    if (frame.size == 0 || frame.size > MESH_FRAME_MAX) {
        return MESH_MALFORMED;
    }
    if (frame.data[0] != MESH_FRAME_VERSION) {
        return MESH_UNSUPPORTED;
    }
    r->rest = (mesh_slice){ frame.data + 1, frame.size - 1 };
    return MESH_OK;
}

mesh_err mesh_frame_next(mesh_frame_reader *r, mesh_arena *arena, Mesh__Msg **msg_p, mesh_slice *packed_p)
{
    if (r->rest.size == 0) {
        return MESH_AGAIN;
    }
    if (r->rest.size < LENGTH_SIZE) {
        return MESH_MALFORMED;
    }
    size_t size = mesh_get_u32le(r->rest.data);
    if (size > MESH_MSG_MAX || size > r->rest.size - LENGTH_SIZE) {
        return MESH_MALFORMED;
    }
    mesh_slice packed = { r->rest.data + LENGTH_SIZE, size };
    ProtobufCMessage *message = NULL;
    mesh_err err = mesh_wire_unpack(&mesh__msg__descriptor, packed, arena, &message);
    if (err != MESH_OK) {
        return err;
    }
    r->rest.data += LENGTH_SIZE + size;
    r->rest.size -= LENGTH_SIZE + size;
    *msg_p = (Mesh__Msg *)message;
    if (packed_p != NULL) {
        *packed_p = packed;
    }
    return MESH_OK;
}

const char *mesh_msg_kind_name(const Mesh__Msg *msg)
{
    const ProtobufCFieldDescriptor *field = NULL;
    if (msg->body_case != MESH__MSG__BODY__NOT_SET) {
        field = protobuf_c_message_descriptor_get_field(&mesh__msg__descriptor, (unsigned)msg->body_case);
    }
    return field != NULL ? field->name : "none";
}
