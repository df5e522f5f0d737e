/* edge/codec.h: client frames to and from the structs of client.pb-c.h, in both subprotocols. JSON is driven by the
 * protobuf descriptors, so both have the same fields for ever; the rules are at the top of proto/client.proto. Parsing
 * is jansson's (the only one of four that rejects every malformed input tried), with duplicate keys rejected and a
 * depth limit of EDGE_JSON_DEPTH; printing is our own escaping printer (ten times cheaper). */
#ifndef EDGE_CODEC_H
#define EDGE_CODEC_H

#include "client.pb-c.h"
#include "edge/core.h"
#include "mesh/wire.h"

#define EDGE_JSON_DEPTH 32

/* Walks the frames of one WebSocket message. */
typedef struct edge_codec_reader {
    edge_codec_kind kind;
    mesh_slice rest;
} edge_codec_reader;

void edge_codec_open(edge_codec_reader *r, edge_codec_kind kind, mesh_slice message);
/* Next request (or event), borrowed from arena. *fault: FAULT_NONE, or FAULT_MALFORMED / FAULT_UNKNOWN_TYPE /
 * FAULT_INVALID for this frame; *id is the frame's request id when it could be read, else 0; detail (size >= 96) says
 * which field. The reader goes on with the next frame where that is possible. Errors: MESH_AGAIN no more;
 * MESH_MALFORMED (fault is set). */
MESH_MUST mesh_err edge_codec_request(edge_codec_reader *r, mesh_arena *arena, Client__Request **request_p,
                                      uint64_t *id, uint32_t *fault, char *detail, size_t detail_size);
MESH_MUST mesh_err edge_codec_event(edge_codec_reader *r, mesh_arena *arena, Client__Event **event_p); /* for clients */

/* Append one frame to out: a line, or varint length + bytes. */
void edge_codec_put_event(edge_codec_kind kind, const Client__Event *event, mesh_buf *out);
void edge_codec_put_request(edge_codec_kind kind, const Client__Request *request, mesh_buf *out); /* for clients */

/* One `message` event for many sessions: all but its inbox_seq is encoded once per codec. Zero-initialise; one object
 * serves one message after the other and keeps its memory. */
typedef struct edge_codec_push {
    const Client__Message *message;
    mesh_buf encoded[2]; /* by edge_codec_kind; empty until the first session of that kind */
} edge_codec_push;

void edge_codec_push_fini(edge_codec_push *push);
/* message: era set, inbox_seq 0; borrowed until the next open. */
void edge_codec_push_open(edge_codec_push *push, const Client__Message *message);
/* Append the event with this inbox_seq (> 0) as one frame. */
void edge_codec_push_put(edge_codec_push *push, edge_codec_kind kind, uint64_t inbox_seq, mesh_buf *out);

#endif
