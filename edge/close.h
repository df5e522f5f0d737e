/* edge/close.h: every WebSocket close code the edge uses, in one table; docs/protocol.md lists the same. 40xx do not
 * retry, 41xx back off, 42xx reconnect now elsewhere, 43xx get a new token; 1009 is WebSocket's own (RFC 6455, 7.4.1).
 */
#ifndef EDGE_CLOSE_H
#define EDGE_CLOSE_H

#include <stdint.h>

typedef enum edge_close {
    EDGE_CLOSE_TOO_BIG = 1009,       /* a message over EDGE_FRAME_MAX */
    EDGE_CLOSE_MALFORMED = 4000,     /* not the subprotocol: a binary message in JSON, broken UTF-8 on the socket */
    EDGE_CLOSE_REPLACED = 4001,      /* a newer session of this device */
    EDGE_CLOSE_HELLO_TIMEOUT = 4100, /* no hello within EDGE_HELLO_MS */
    EDGE_CLOSE_SILENT = 4101,        /* nothing came for two heartbeats */
    EDGE_CLOSE_SLOW = 4102,          /* does not read: answers piled up, or nothing left for two heartbeats */
    EDGE_CLOSE_FLOOD = 4103,         /* went on and on beyond the rate limit */
    EDGE_CLOSE_DRAINING = 4200,      /* this edge is going down */
    EDGE_CLOSE_UNAUTHORIZED = 4300,
    EDGE_CLOSE_TOKEN_EXPIRED = 4301
} edge_close;

typedef struct edge_close_info {
    edge_close code;
    const char *name;   /* snake_case, stable */
    const char *reason; /* of the close frame, at most 123 bytes */
} edge_close_info;

const edge_close_info *edge_close_get(uint16_t code); /* NULL: not one of ours */
const edge_close_info *edge_close_at(unsigned i);     /* row i, NULL past the end */
/* The code a session is closed with for a fault that ends it. */
edge_close edge_close_of_fault(uint32_t fault);

#endif
