/* edge/json.h: structs of client.pb-c.h to and from JSON, by their descriptors. Private to the codec. */
#ifndef EDGE_JSON_H
#define EDGE_JSON_H

#include <stdbool.h>

#include "mesh/wire.h"

#define EDGE_JSON_ELEMENTS 8192 /* commas, brackets and braces of one frame: bounds what parsing allocates */
#define EDGE_JSON_INT_MAX ((UINT64_C(1) << 53) - 1)

typedef struct edge_json_error {
    uint32_t fault; /* mesh/fault.h */
    char *detail;   /* where to say which field; size bytes */
    size_t size;
} edge_json_error;

/* One line to a message of type desc (Request or Event: `id` and a oneof `body`), borrowed from arena. *id_p is set
 * whenever it could be read, else 0. Errors: MESH_MALFORMED, error is filled in. */
MESH_MUST mesh_err edge_json_parse(mesh_slice line, const ProtobufCMessageDescriptor *desc, mesh_arena *arena,
                                   ProtobufCMessage **message_p, uint64_t *id_p, edge_json_error *error);

/* Append {"type":T,"id":N,...} and no line end. message is a Request or Event whose body is set. */
void edge_json_print(const ProtobufCMessage *message, mesh_buf *out);
/* Append `,"name":value` for each field of message that is not at its default. */
void edge_json_print_fields(const ProtobufCMessage *message, mesh_buf *out);
void edge_json_print_uint(uint64_t v, mesh_buf *out);

/* How many bytes the prefix of an enum's value names has: "ENTRY_KIND_" of EntryKind. */
size_t edge_json_enum_prefix(const ProtobufCEnumDescriptor *desc);

#endif
