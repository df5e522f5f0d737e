/* tests/sim/dump.c: any protobuf message on one line, for the trace. */
#include "tests/sim/impl.h"

#include <inttypes.h>
#include <string.h>

#define TEXT_MAX 40

static void dump_one(const ProtobufCFieldDescriptor *f, const void *at, mesh_buf *out)
{
    switch (f->type) {
    case PROTOBUF_C_TYPE_STRING:
        mesh_buf_printf(out, "%.*s", TEXT_MAX, *(char *const *)at);
        break;
    case PROTOBUF_C_TYPE_BYTES: {
        const ProtobufCBinaryData *b = at;
        mesh_buf_printf(out, "\"%.*s\"", (int)(b->len < TEXT_MAX ? b->len : TEXT_MAX), (const char *)b->data);
        break;
    }
    case PROTOBUF_C_TYPE_MESSAGE:
        mesh_buf_puts(out, "{");
        if (*(ProtobufCMessage *const *)at) {
            sim_dump(*(ProtobufCMessage *const *)at, out);
        }
        mesh_buf_puts(out, "}");
        break;
    case PROTOBUF_C_TYPE_FIXED64:
        mesh_buf_printf(out, "%" PRIx64, *(const uint64_t *)at);
        break;
    case PROTOBUF_C_TYPE_UINT64:
        mesh_buf_printf(out, "%" PRIu64, *(const uint64_t *)at);
        break;
    case PROTOBUF_C_TYPE_ENUM: {
        const ProtobufCEnumValue *v = protobuf_c_enum_descriptor_get_value(f->descriptor, *(const int *)at);
        mesh_buf_puts(out, v ? v->name : "?");
        break;
    }
    default:
        mesh_buf_printf(out, "%d", *(const int *)at);
    }
}

static size_t width(const ProtobufCFieldDescriptor *f)
{
    switch (f->type) {
    case PROTOBUF_C_TYPE_STRING:
    case PROTOBUF_C_TYPE_MESSAGE:
        return sizeof(void *);
    case PROTOBUF_C_TYPE_BYTES:
        return sizeof(ProtobufCBinaryData);
    case PROTOBUF_C_TYPE_FIXED64:
    case PROTOBUF_C_TYPE_UINT64:
        return sizeof(uint64_t);
    default:
        return sizeof(int);
    }
}

static bool absent(const ProtobufCFieldDescriptor *f, const char *base)
{
    if (f->flags & PROTOBUF_C_FIELD_FLAG_ONEOF) {
        return *(const uint32_t *)(base + f->quantifier_offset) != f->id;
    }
    static const char zeros[16];
    const char *at = base + f->offset;
    if (f->type == PROTOBUF_C_TYPE_STRING) {
        return !*(char *const *)at || !**(char *const *)at;
    }
    return memcmp(at, zeros, width(f)) == 0;
}

void sim_dump(const ProtobufCMessage *m, mesh_buf *out)
{
    const char *base = (const char *)m;
    const char *gap = "";
    for (unsigned i = 0; i < m->descriptor->n_fields; i++) {
        const ProtobufCFieldDescriptor *f = &m->descriptor->fields[i];
        if (f->label == PROTOBUF_C_LABEL_REPEATED) {
            size_t n = *(const size_t *)(base + f->quantifier_offset);
            if (n) {
                mesh_buf_printf(out, "%s%s=[", gap, f->name);
                const char *array = *(char *const *)(base + f->offset);
                for (size_t k = 0; k < n && k < 6; k++) {
                    mesh_buf_puts(out, k ? " " : "");
                    dump_one(f, array + k * width(f), out);
                }
                mesh_buf_puts(out, n > 6 ? " ...]" : "]");
                gap = " ";
            }
        } else if (!absent(f, base)) {
            mesh_buf_printf(out, "%s%s=", gap, f->name);
            dump_one(f, base + f->offset, out);
            gap = " ";
        }
    }
}
