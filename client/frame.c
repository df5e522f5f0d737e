#include "client/frame.h"

#include <assert.h>

static size_t varint_put(uint8_t out[10], uint64_t v)
{
    size_t n = 0;
    while (v >= 0x80) {
        out[n++] = (uint8_t)(v | 0x80);
        v >>= 7;
    }
    out[n++] = (uint8_t)v;
    return n;
}

/* Bytes the varint takes, 0 when it is cut off or too long for a frame's length. */
static size_t varint_get(mesh_slice in, uint64_t *v_p)
{
    uint64_t v = 0;
    for (size_t i = 0; i < in.size && i < CLIENT_FRAME_HEAD_MAX; i++) {
        v |= (uint64_t)(in.data[i] & 0x7f) << (7 * i);
        if (!(in.data[i] & 0x80)) {
            *v_p = v;
            return i + 1;
        }
    }
    return 0;
}

void client_frame_put(mesh_buf *out, const Client__Request *request)
{
    uint8_t head[10];
    mesh_buf_put(out, head, varint_put(head, mesh_wire_size(request)));
    mesh_wire_pack(request, out);
}

mesh_err client_frame_next(mesh_slice *rest, mesh_arena *arena, Client__Event **event_p)
{
    if (rest->size == 0) {
        return MESH_AGAIN;
    }
    uint64_t size;
    size_t head = varint_get(*rest, &size);
    if (head == 0 || size > CLIENT_FRAME_MAX || size > rest->size - head) {
        return MESH_MALFORMED;
    }
    mesh_slice body = { rest->data + head, (size_t)size };
    ProtobufCMessage *event;
    mesh_err err = mesh_wire_unpack(&client__event__descriptor, body, arena, &event);
    if (err == MESH_OK) {
        rest->data += head + body.size;
        rest->size -= head + body.size;
        *event_p = (Client__Event *)event;
    }
    return err;
}

size_t client_frame_cut(mesh_slice bytes, unsigned frames, size_t soft)
{
    size_t at = 0;
    for (unsigned n = 0; n < frames && at < bytes.size; n++) {
        uint64_t size;
        size_t head = varint_get((mesh_slice){ bytes.data + at, bytes.size - at }, &size);
        assert(head > 0 && size <= bytes.size - at - head);
        size_t next = at + head + (size_t)size;
        if (n > 0 && next > soft) {
            break;
        }
        at = next;
    }
    return at;
}
