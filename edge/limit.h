/* edge/limit.h: a token bucket in thousandths of a request. Source: RFC 2697, section 3. */
#ifndef EDGE_LIMIT_H
#define EDGE_LIMIT_H

#include <stdbool.h>

#include "mesh/clock.h"

#define EDGE_LIMIT_REQUEST 1000 /* thousandths one request costs */
#define EDGE_LIMIT_ACK 100      /* an ack costs a tenth: a device that is fed fast acks often */

typedef struct edge_limit {
    int64_t level; /* thousandths left */
    mesh_ms at;    /* when level was right */
} edge_limit;

void edge_limit_init(edge_limit *limit, int64_t burst, mesh_ms now); /* full */
/* Take cost thousandths from a bucket that gains rate requests a second up to burst requests. False: not enough,
 * nothing taken, *after_ms (at least 1) says when there will be. */
bool edge_limit_take(edge_limit *limit, int64_t rate, int64_t burst, int64_t cost, mesh_ms now, uint32_t *after_ms);

#endif
