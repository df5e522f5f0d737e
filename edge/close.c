#include "edge/close.h"

#include <stddef.h>

#include "mesh/fault.h"

static const edge_close_info closes[] = {
    { EDGE_CLOSE_TOO_BIG, "too_big", "message too big" },
    { EDGE_CLOSE_MALFORMED, "malformed", "not this subprotocol" },
    { EDGE_CLOSE_REPLACED, "replaced", "a newer session of this device" },
    { EDGE_CLOSE_HELLO_TIMEOUT, "hello_timeout", "no hello in time" },
    { EDGE_CLOSE_SILENT, "silent", "nothing heard for two heartbeats" },
    { EDGE_CLOSE_SLOW, "slow", "reading too slowly" },
    { EDGE_CLOSE_FLOOD, "flood", "far beyond the rate limit" },
    { EDGE_CLOSE_DRAINING, "draining", "this edge is going down" },
    { EDGE_CLOSE_UNAUTHORIZED, "unauthorized", "token missing or not valid" },
    { EDGE_CLOSE_TOKEN_EXPIRED, "token_expired", "the token has ended" },
};
#define CLOSES (sizeof closes / sizeof *closes)

const edge_close_info *edge_close_get(uint16_t code)
{
    for (size_t i = 0; i < CLOSES; i++) {
        if ((uint16_t)closes[i].code == code) {
            return &closes[i];
        }
    }
    return NULL;
}

const edge_close_info *edge_close_at(unsigned i)
{
    return i < CLOSES ? &closes[i] : NULL;
}

edge_close edge_close_of_fault(uint32_t fault)
{
    switch (fault) {
    case FAULT_TOO_BIG:
        return EDGE_CLOSE_TOO_BIG;
    case FAULT_REPLACED:
        return EDGE_CLOSE_REPLACED;
    case FAULT_UNAUTHORIZED:
        return EDGE_CLOSE_UNAUTHORIZED;
    case FAULT_TOKEN_EXPIRED:
        return EDGE_CLOSE_TOKEN_EXPIRED;
    default:
        return EDGE_CLOSE_MALFORMED;
    }
}
