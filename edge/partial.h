/* edge/partial.h: WebSocket messages of which only a part has come, and how many bytes they hold over all sockets. Pure
 * accounting: edge/ws.c brings the pieces.
 *
 * A message is bounded by what its session may send (edge_core_input_max), all of them together by EDGE_PARTIAL_MAX:
 * the socket that would grow beyond it is refused, the others keep what they have. */
#ifndef EDGE_PARTIAL_H
#define EDGE_PARTIAL_H

#include "mesh/buf.h"
#include "mesh/err.h"

#define EDGE_PARTIAL_MAX (64u * 1024 * 1024) /* bytes allocated for half-received messages, of one edge */
#define EDGE_PARTIAL_AHEAD 65536u            /* allocated ahead of a frame's declared bytes: they may never come */

typedef struct edge_partial { /* zeroed: nothing has come */
    uint8_t *bytes;
    uint32_t size;
    uint32_t cap;
} edge_partial;

typedef struct edge_partial_pool {
    size_t held; /* bytes allocated over all edge_partial */
    size_t max;  /* EDGE_PARTIAL_MAX */
} edge_partial_pool;

/* Append a piece. declared: payload the frame has beyond it; max: of the whole message.
 * Errors: MESH_TOO_BIG the message is or declares itself over max; MESH_FULL the pool is; p is untouched. */
MESH_MUST mesh_err edge_partial_put(edge_partial_pool *pool, edge_partial *p, mesh_slice piece, uint64_t declared,
                                    size_t max);
void edge_partial_drop(edge_partial_pool *pool, edge_partial *p); /* to nothing; also of nothing */

#endif
