#include <assert.h>
#include <string.h>

#include "edge/json.h"

/* What a byte becomes in a string: 0 itself, 'u' six characters, anything else a backslash and that. */
static const char escapes[256] = {
    ['\b'] = 'b', ['\t'] = 't', ['\n'] = 'n', ['\f'] = 'f', ['\r'] = 'r', ['"'] = '"', ['\\'] = '\\',
    [0] = 'u',    [1] = 'u',    [2] = 'u',    [3] = 'u',    [4] = 'u',    [5] = 'u',   [6] = 'u',
    [7] = 'u',    [11] = 'u',   [14] = 'u',   [15] = 'u',   [16] = 'u',   [17] = 'u',  [18] = 'u',
    [19] = 'u',   [20] = 'u',   [21] = 'u',   [22] = 'u',   [23] = 'u',   [24] = 'u',  [25] = 'u',
    [26] = 'u',   [27] = 'u',   [28] = 'u',   [29] = 'u',   [30] = 'u',   [31] = 'u',  [127] = 'u',
};

static void put_string(const char *s, mesh_buf *out)
{
    mesh_buf_put(out, "\"", 1);
    const char *run = s;
    for (; *s != '\0'; s++) {
        unsigned char c = (unsigned char)*s;
        char e = escapes[c];
        if (e == 0) {
            continue;
        }
        mesh_buf_put(out, run, (size_t)(s - run));
        run = s + 1;
        if (e == 'u') {
            static const char hex[] = "0123456789abcdef";
            char six[6] = { '\\', 'u', '0', '0', hex[c >> 4], hex[c & 15] };
            mesh_buf_put(out, six, sizeof six);
        } else {
            char two[2] = { '\\', e };
            mesh_buf_put(out, two, sizeof two);
        }
    }
    mesh_buf_put(out, run, (size_t)(s - run));
    mesh_buf_put(out, "\"", 1);
}

void edge_json_print_uint(uint64_t v, mesh_buf *out)
{
    char digits[20];
    size_t at = sizeof digits;
    do {
        digits[--at] = (char)('0' + v % 10);
        v /= 10;
    } while (v != 0);
    mesh_buf_put(out, digits + at, sizeof digits - at);
}

size_t edge_json_enum_prefix(const ProtobufCEnumDescriptor *desc)
{
    size_t n = 1; /* the last "_" */
    for (const char *s = desc->short_name; *s != '\0'; s++) {
        n += *s >= 'A' && *s <= 'Z' && s != desc->short_name ? 2 : 1;
    }
    return n;
}

static void put_enum(const ProtobufCEnumDescriptor *desc, int value, mesh_buf *out)
{
    const ProtobufCEnumValue *v = protobuf_c_enum_descriptor_get_value(desc, value);
    assert(v != NULL);
    mesh_buf_put(out, "\"", 1);
    for (const char *s = v->name + edge_json_enum_prefix(desc); *s != '\0'; s++) {
        char c = *s >= 'A' && *s <= 'Z' ? (char)(*s - 'A' + 'a') : *s;
        mesh_buf_put(out, &c, 1);
    }
    mesh_buf_put(out, "\"", 1);
}

static void put_object(const ProtobufCMessage *message, mesh_buf *out)
{
    size_t start = out->size;
    edge_json_print_fields(message, out);
    if (out->size == start) {
        mesh_buf_put(out, "{", 1);
    } else {
        out->data[start] = '{'; /* over the first comma */
    }
    mesh_buf_put(out, "}", 1);
}

static void put_value(const ProtobufCFieldDescriptor *field, const void *at, mesh_buf *out)
{
    switch (field->type) {
    case PROTOBUF_C_TYPE_STRING:
        put_string(*(char *const *)at, out);
        break;
    case PROTOBUF_C_TYPE_UINT64:
        edge_json_print_uint(*(const uint64_t *)at, out);
        break;
    case PROTOBUF_C_TYPE_FIXED64:
        mesh_buf_put(out, "\"", 1);
        edge_json_print_uint(*(const uint64_t *)at, out);
        mesh_buf_put(out, "\"", 1);
        break;
    case PROTOBUF_C_TYPE_UINT32:
        edge_json_print_uint(*(const uint32_t *)at, out);
        break;
    case PROTOBUF_C_TYPE_BOOL:
        mesh_buf_puts(out, *(const protobuf_c_boolean *)at ? "true" : "false");
        break;
    case PROTOBUF_C_TYPE_ENUM:
        put_enum(field->descriptor, *(const int *)at, out);
        break;
    case PROTOBUF_C_TYPE_MESSAGE:
        put_object(*(ProtobufCMessage *const *)at, out);
        break;
    default:
        assert(false); /* a field type that client.proto does not use */
    }
}

static size_t element_size(ProtobufCType type)
{
    switch (type) {
    case PROTOBUF_C_TYPE_UINT64:
    case PROTOBUF_C_TYPE_FIXED64:
        return sizeof(uint64_t);
    case PROTOBUF_C_TYPE_STRING:
    case PROTOBUF_C_TYPE_MESSAGE:
        return sizeof(void *);
    default:
        return sizeof(uint32_t);
    }
}

static bool is_default(const ProtobufCFieldDescriptor *field, const void *at)
{
    switch (field->type) {
    case PROTOBUF_C_TYPE_STRING: {
        const char *s = *(char *const *)at;
        return s == NULL || *s == '\0';
    }
    case PROTOBUF_C_TYPE_MESSAGE:
        return *(void *const *)at == NULL;
    case PROTOBUF_C_TYPE_UINT64:
    case PROTOBUF_C_TYPE_FIXED64:
        return *(const uint64_t *)at == 0;
    default:
        return *(const uint32_t *)at == 0;
    }
}

static void put_name(const ProtobufCFieldDescriptor *field, mesh_buf *out)
{
    size_t n = strlen(field->name);
    uint8_t *p = mesh_buf_grow(out, n + 4);
    p[0] = ',';
    p[1] = '"';
    memcpy(p + 2, field->name, n);
    p[n + 2] = '"';
    p[n + 3] = ':';
}

static void put_array(const ProtobufCFieldDescriptor *field, const char *items, size_t n, mesh_buf *out)
{
    mesh_buf_put(out, "[", 1);
    for (size_t i = 0; i < n; i++) {
        if (i > 0) {
            mesh_buf_put(out, ",", 1);
        }
        put_value(field, items + i * element_size(field->type), out);
    }
    mesh_buf_put(out, "]", 1);
}

void edge_json_print_fields(const ProtobufCMessage *message, mesh_buf *out)
{
    const char *base = (const char *)message;
    const ProtobufCMessageDescriptor *desc = message->descriptor;
    for (unsigned i = 0; i < desc->n_fields; i++) {
        const ProtobufCFieldDescriptor *field = &desc->fields[i];
        const void *at = base + field->offset;
        if (field->label == PROTOBUF_C_LABEL_REPEATED) {
            size_t n = *(const size_t *)(const void *)(base + field->quantifier_offset);
            if (n > 0) {
                put_name(field, out);
                put_array(field, *(const char *const *)at, n, out);
            }
        } else if (!is_default(field, at)) {
            put_name(field, out);
            put_value(field, at, out);
        }
    }
}

/* The set member of the oneof; its case number is the field's. */
static const ProtobufCFieldDescriptor *body_field(const ProtobufCMessage *message)
{
    const ProtobufCMessageDescriptor *desc = message->descriptor;
    for (unsigned i = 0; i < desc->n_fields; i++) {
        const ProtobufCFieldDescriptor *field = &desc->fields[i];
        if ((field->flags & PROTOBUF_C_FIELD_FLAG_ONEOF) != 0 &&
            *(const uint32_t *)(const void *)((const char *)message + field->quantifier_offset) == field->id) {
            return field;
        }
    }
    return NULL;
}

void edge_json_print(const ProtobufCMessage *message, mesh_buf *out)
{
    const ProtobufCFieldDescriptor *body = body_field(message);
    assert(body != NULL);
    mesh_buf_puts(out, "{\"type\":\"");
    size_t type = out->size;
    mesh_buf_puts(out, body->name);
    uint8_t *dot = memchr(out->data + type, '_', out->size - type);
    if (dot != NULL) {
        *dot = '.';
    }
    mesh_buf_put(out, "\"", 1);
    const ProtobufCFieldDescriptor *id = protobuf_c_message_descriptor_get_field(message->descriptor, 1);
    const char *base = (const char *)message;
    if (!is_default(id, base + id->offset)) {
        put_name(id, out);
        put_value(id, base + id->offset, out);
    }
    edge_json_print_fields(*(ProtobufCMessage *const *)(const void *)(base + body->offset), out);
    mesh_buf_put(out, "}", 1);
}
