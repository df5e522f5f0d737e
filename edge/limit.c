#include "edge/limit.h"

#include <assert.h>

void edge_limit_init(edge_limit *limit, int64_t burst, mesh_ms now)
{
    *limit = (edge_limit){ .level = burst * 1000, .at = now };
}

bool edge_limit_take(edge_limit *limit, int64_t rate, int64_t burst, int64_t cost, mesh_ms now, uint32_t *after_ms)
{
    assert(rate > 0 && burst > 0 && now >= limit->at);
    /* rate per second is exactly rate thousandths per millisecond */
    int64_t full = burst * 1000;
    mesh_ms passed = now - limit->at;
    limit->level = passed >= full / rate + 1 ? full : limit->level + passed * rate;
    limit->level = limit->level > full ? full : limit->level;
    limit->at = now;
    if (limit->level < cost) {
        *after_ms = (uint32_t)((cost - limit->level + rate - 1) / rate);
        return false;
    }
    limit->level -= cost;
    return true;
}
