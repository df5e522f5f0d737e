/* mesh/wire.h: the one door to protobuf-c.
 *
 * The generated structs (mesh.pb-c.h, client.pb-c.h, store.pb-c.h) are plain data and are used as such everywhere;
 * packing and unpacking happens only here, because the library alone is not safe on bytes from outside: it recurses
 * without bound, allocates 50 times what it reads, and takes NUL and broken UTF-8 in strings. wire_unpack first walks
 * the bytes by descriptor (depth, number of submessages and repeated elements, UTF-8, no NUL, known enum values) and
 * only then unpacks into an arena.
 *
 * Source: protobuf encoding, https://protobuf.dev/programming-guides/encoding/ */
#ifndef MESH_WIRE_H
#define MESH_WIRE_H

#include <protobuf-c/protobuf-c.h>

#include "mesh.pb-c.h"
#include "mesh/buf.h"
#include "mesh/err.h"

#define MESH_WIRE_DEPTH 8       /* nested messages */
#define MESH_WIRE_ELEMENTS 8192 /* submessages + repeated elements in one message */
#define MESH_FRAME_VERSION 1
#define MESH_FRAME_SOFT_MAX (256 * 1024) /* a frame is closed at this size, or after one message if that is larger */
#define MESH_MSG_MAX (1024 * 1024)       /* one packed Msg */
#define MESH_FRAME_MAX (4 * 1024 * 1024) /* larger is malformed */

/* A bump allocator for what unpack returns; reset per frame. Keeps its memory over resets. In mesh/arena.c. */
typedef struct mesh_arena mesh_arena;
mesh_arena *mesh_arena_new(void);
void mesh_arena_destroy(mesh_arena **arena_p);
void mesh_arena_reset(mesh_arena *arena);               /* everything from it is gone */
void *mesh_arena_alloc(mesh_arena *arena, size_t size); /* zeroed, 16-byte aligned; lives until reset */
void *mesh_arena_grab(mesh_arena *arena, size_t size);  /* the same, not zeroed */
char *mesh_arena_strdup(mesh_arena *arena, const char *s);

/* Unpack one message of type desc. *out_p borrows from arena until its reset. A field that is not repeated, given
 * twice, is malformed, and so is a second member of a oneof: no encoder writes these. Unknown fields count as elements.
 * Errors: MESH_MALFORMED (out_p untouched). */
MESH_MUST mesh_err mesh_wire_unpack(const ProtobufCMessageDescriptor *desc, mesh_slice bytes, mesh_arena *arena,
                                    ProtobufCMessage **out_p);
/* Append the packed message (of any generated type) to out. */
void mesh_wire_pack(const void *message, mesh_buf *out);
size_t mesh_wire_size(const void *message);
void mesh_wire_pack_to(const void *message, uint8_t *to, size_t size); /* size: what mesh_wire_size said */

/* ---- frames: byte version, then per message u32le length + Msg ---- */
void mesh_frame_put(mesh_buf *frame, const Mesh__Msg *msg);         /* starts the frame when it is empty */
void mesh_frame_put_packed(mesh_buf *frame, mesh_slice packed_msg); /* the same, already packed */
/* The same for what a Msg without corr and ttl_ms was packed to: these two are put before it. */
void mesh_frame_put_kept(mesh_buf *frame, uint64_t corr, uint32_t ttl_ms, mesh_slice kept);

typedef struct mesh_frame_reader {
    mesh_slice rest;
} mesh_frame_reader;
/* Errors: MESH_MALFORMED too large or empty; MESH_UNSUPPORTED another version. */
MESH_MUST mesh_err mesh_frame_open(mesh_frame_reader *r, mesh_slice frame);
/* Next message; msg_p borrows from arena, packed_p (may be NULL) from the frame.
 * Errors: MESH_AGAIN no more, and nothing left over; MESH_MALFORMED. */
MESH_MUST mesh_err mesh_frame_next(mesh_frame_reader *r, mesh_arena *arena, Mesh__Msg **msg_p, mesh_slice *packed_p);

/* Printable name of a Msg's kind ("send", "attach" ...), never NULL. */
const char *mesh_msg_kind_name(const Mesh__Msg *msg);
/* Short form for building: MESH_MSG(SEND, send, &send, corr, ttl ...) is written out at each place; this fills the
 * oneof. */
#define MESH_MSG(name, KIND, field, value)                                                                             \
    Mesh__Msg name = MESH__MSG__INIT;                                                                                  \
    name.body_case = MESH__MSG__BODY_##KIND;                                                                           \
    name.field = (value)

#endif
