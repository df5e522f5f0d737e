/* client/frame.h: the frames of parley.v1.protobuf as a client writes and reads them: a varint length, then that many
 * bytes of Request or Event (proto/client.proto). One WebSocket message is one or more of them. */
#ifndef CLIENT_FRAME_H
#define CLIENT_FRAME_H

#include "client.pb-c.h"
#include "mesh/wire.h"

#define CLIENT_FRAME_MAX (4u * 1024 * 1024) /* one event from the server; larger is malformed */
#define CLIENT_FRAME_HEAD_MAX 5u            /* bytes of the length before it */

/* Append one request as a frame. */
void client_frame_put(mesh_buf *out, const Client__Request *request);

/* Next event of a message; rest is moved past it. *event_p borrows from arena.
 * Errors: MESH_AGAIN nothing left; MESH_MALFORMED. */
MESH_MUST mesh_err client_frame_next(mesh_slice *rest, mesh_arena *arena, Client__Event **event_p);

/* How many bytes of whole frames from the start of bytes fit one WebSocket message: at most frames of them and at most
 * soft bytes, but never less than one. bytes are our own frames, one after the other. */
size_t client_frame_cut(mesh_slice bytes, unsigned frames, size_t soft);

#endif
