#include <assert.h>
#include <jansson.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "edge/codec.h"
#include "edge/json.h"
#include "mesh/fault.h"

typedef struct reader {
    mesh_arena *arena;
    edge_json_error *error;
} reader;

static bool read_fields(reader *r, json_t *object, const ProtobufCMessageDescriptor *desc, ProtobufCMessage *message);

__attribute__((format(printf, 3, 4))) static bool refuse(edge_json_error *error, uint32_t fault, const char *format,
                                                         ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(error->detail, error->size, format, args);
    va_end(args);
    error->fault = fault;
    return false;
}

/* Depth and size before the parser sees it: jansson goes 2,048 deep and spends some 170 bytes on each "{}". */
static bool scan(mesh_slice line, edge_json_error *error)
{
    unsigned depth = 0;
    unsigned elements = 0;
    bool in_string = false;
    for (size_t i = 0; i < line.size; i++) {
        uint8_t c = line.data[i];
        if (in_string) {
            if (c == '\\') {
                i++;
            } else if (c == '"') {
                in_string = false;
            }
            continue;
        }
        if (c == '"') {
            in_string = true;
        } else if (c == '{' || c == '[') {
            depth++;
            elements++;
        } else if ((c == '}' || c == ']') && depth > 0) {
            depth--;
        } else if (c == ',') {
            elements++;
        }
        if (depth > EDGE_JSON_DEPTH) {
            return refuse(error, FAULT_MALFORMED, "nested deeper than %d", EDGE_JSON_DEPTH);
        }
        if (elements > EDGE_JSON_ELEMENTS) {
            return refuse(error, FAULT_MALFORMED, "more than %d elements", EDGE_JSON_ELEMENTS);
        }
    }
    return true;
}

static bool wrong(reader *r, const ProtobufCFieldDescriptor *field, const char *want)
{
    return refuse(r->error, FAULT_MALFORMED, "%s must be %s", field->name, want);
}

static bool read_uint(const json_t *value, uint64_t max, uint64_t *out)
{
    json_int_t n = json_integer_value(value);
    if (!json_is_integer(value) || n < 0 || (uint64_t)n > max) {
        return false;
    }
    *out = (uint64_t)n;
    return true;
}

static bool read_fixed64(const json_t *value, uint64_t *out)
{
    if (!json_is_string(value)) {
        return false;
    }
    const char *s = json_string_value(value);
    size_t n = json_string_length(value);
    uint64_t v = 0;
    for (size_t i = 0; i < n; i++) {
        if (s[i] < '0' || s[i] > '9') {
            return false;
        }
        uint64_t digit = (uint64_t)(s[i] - '0');
        if (v > (UINT64_MAX - digit) / 10) {
            return false;
        }
        v = v * 10 + digit;
    }
    *out = v;
    return n >= 1 && n <= 20;
}

static bool read_enum(const json_t *value, const ProtobufCEnumDescriptor *desc, int *out)
{
    if (!json_is_string(value)) {
        return false;
    }
    const char *s = json_string_value(value);
    size_t prefix = edge_json_enum_prefix(desc);
    for (unsigned i = 0; i < desc->n_values; i++) {
        const char *name = desc->values[i].name + prefix;
        size_t j = 0;
        while (s[j] != '\0' && name[j] != '\0' && s[j] == (name[j] >= 'A' && name[j] <= 'Z' ? name[j] + 32 : name[j])) {
            j++;
        }
        if (s[j] == '\0' && name[j] == '\0') {
            *out = desc->values[i].value;
            return true;
        }
    }
    return false;
}

static bool read_message(reader *r, json_t *value, const ProtobufCFieldDescriptor *field, ProtobufCMessage **out)
{
    if (!json_is_object(value)) {
        return wrong(r, field, "an object");
    }
    const ProtobufCMessageDescriptor *desc = field->descriptor;
    ProtobufCMessage *message = mesh_arena_alloc(r->arena, desc->sizeof_message);
    protobuf_c_message_init(desc, message);
    if (!read_fields(r, value, desc, message)) {
        return false;
    }
    *out = message;
    return true;
}

static bool read_value(reader *r, json_t *value, const ProtobufCFieldDescriptor *field, void *at)
{
    uint64_t n;
    switch (field->type) {
    case PROTOBUF_C_TYPE_STRING:
        if (!json_is_string(value)) {
            return wrong(r, field, "a string");
        }
        size_t size = json_string_length(value) + 1;
        char *copy = mesh_arena_alloc(r->arena, size);
        memcpy(copy, json_string_value(value), size);
        *(char **)at = copy;
        return true;
    case PROTOBUF_C_TYPE_UINT64:
        return read_uint(value, EDGE_JSON_INT_MAX, at) || wrong(r, field, "an integer from 0 to 2^53-1");
    case PROTOBUF_C_TYPE_FIXED64:
        return read_fixed64(value, at) || wrong(r, field, "a string of decimal digits");
    case PROTOBUF_C_TYPE_UINT32:
        if (!read_uint(value, UINT32_MAX, &n)) {
            return wrong(r, field, "an integer from 0 to 2^32-1");
        }
        *(uint32_t *)at = (uint32_t)n;
        return true;
    case PROTOBUF_C_TYPE_BOOL:
        *(protobuf_c_boolean *)at = json_is_true(value);
        return json_is_boolean(value) || wrong(r, field, "true or false");
    case PROTOBUF_C_TYPE_ENUM:
        return read_enum(value, field->descriptor, at) || wrong(r, field, "one of its documented words");
    case PROTOBUF_C_TYPE_MESSAGE:
        return read_message(r, value, field, at);
    default:
        assert(false); /* a field type that client.proto does not use */
        return false;
    }
}

static bool read_array(reader *r, json_t *value, const ProtobufCFieldDescriptor *field, char *base)
{
    if (!json_is_array(value)) {
        return wrong(r, field, "an array");
    }
    size_t n = json_array_size(value);
    bool wide = field->type == PROTOBUF_C_TYPE_STRING || field->type == PROTOBUF_C_TYPE_MESSAGE ||
                field->type == PROTOBUF_C_TYPE_UINT64 || field->type == PROTOBUF_C_TYPE_FIXED64;
    size_t size = wide ? sizeof(uint64_t) : sizeof(uint32_t);
    char *items = mesh_arena_alloc(r->arena, n * size + 1);
    for (size_t i = 0; i < n; i++) {
        if (!read_value(r, json_array_get(value, i), field, items + i * size)) {
            return false;
        }
    }
    if (n > 0) {
        *(size_t *)(void *)(base + field->quantifier_offset) = n;
        *(char **)(void *)(base + field->offset) = items;
    }
    return true;
}

static bool read_fields(reader *r, json_t *object, const ProtobufCMessageDescriptor *desc, ProtobufCMessage *message)
{
    const char *key;
    json_t *value;
    json_object_foreach(object, key, value)
    {
        const ProtobufCFieldDescriptor *field = protobuf_c_message_descriptor_get_field_by_name(desc, key);
        if (field == NULL || json_is_null(value)) {
            continue;
        }
        char *base = (char *)message;
        if (!(field->label == PROTOBUF_C_LABEL_REPEATED ? read_array(r, value, field, base)
                                                        : read_value(r, value, field, base + field->offset))) {
            return false;
        }
    }
    return true;
}

/* "chat.create" -> field chat_create, if it is a member of the oneof. The first "_" of a field's name is always "."
 * here. */
static const ProtobufCFieldDescriptor *find_body(const ProtobufCMessageDescriptor *desc, const char *type)
{
    char name[32];
    size_t n = strlen(type);
    const char *dot = strchr(type, '.');
    const char *underscore = strchr(type, '_');
    if (n >= sizeof name || (underscore != NULL && (dot == NULL || underscore < dot))) {
        return NULL;
    }
    memcpy(name, type, n + 1);
    if (dot != NULL) {
        name[dot - type] = '_';
    }
    const ProtobufCFieldDescriptor *field = protobuf_c_message_descriptor_get_field_by_name(desc, name);
    return field != NULL && (field->flags & PROTOBUF_C_FIELD_FLAG_ONEOF) != 0 ? field : NULL;
}

static bool read_frame(reader *r, json_t *root, const ProtobufCMessageDescriptor *desc, ProtobufCMessage *message,
                       uint64_t *id_p)
{
    if (!json_is_object(root)) {
        return refuse(r->error, FAULT_MALFORMED, "a frame must be an object");
    }
    char *base = (char *)message;
    json_t *id = json_object_get(root, "id");
    if (id != NULL && !json_is_null(id) && !read_uint(id, EDGE_JSON_INT_MAX, id_p)) {
        return refuse(r->error, FAULT_MALFORMED, "id must be an integer from 0 to 2^53-1");
    }
    const ProtobufCFieldDescriptor *id_field = protobuf_c_message_descriptor_get_field(desc, 1);
    *(uint64_t *)(void *)(base + id_field->offset) = *id_p;
    const json_t *type = json_object_get(root, "type");
    if (!json_is_string(type)) {
        return refuse(r->error, FAULT_MALFORMED, "type must be a string");
    }
    const ProtobufCFieldDescriptor *field = find_body(desc, json_string_value(type));
    if (field == NULL) {
        return refuse(r->error, FAULT_UNKNOWN_TYPE, "this type is not known here");
    }
    ProtobufCMessage **body = (ProtobufCMessage **)(void *)(base + field->offset);
    if (!read_message(r, root, field, body)) {
        return false;
    }
    *(uint32_t *)(void *)(base + field->quantifier_offset) = field->id;
    return true;
}

mesh_err edge_json_parse(mesh_slice line, const ProtobufCMessageDescriptor *desc, mesh_arena *arena,
                         ProtobufCMessage **message_p, uint64_t *id_p, edge_json_error *error)
{
    reader r = { arena, error };
    uint64_t id = 0;
    bool ok = scan(line, error);
    json_t *root = NULL;
    if (ok) {
        json_error_t why;
        root = json_loadb((const char *)line.data, line.size, JSON_REJECT_DUPLICATES, &why);
        ok = root != NULL || refuse(error, FAULT_MALFORMED, "not JSON: byte %d", why.position);
    }
    ProtobufCMessage *message = NULL;
    if (ok) {
        message = mesh_arena_alloc(arena, desc->sizeof_message);
        protobuf_c_message_init(desc, message);
        ok = read_frame(&r, root, desc, message, &id);
    }
    json_decref(root);
    *id_p = id;
    if (!ok) {
        return MESH_MALFORMED;
    }
    *message_p = message;
    return MESH_OK;
}
