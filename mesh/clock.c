#include "mesh/clock.h"

#include <assert.h>
#include <time.h>

static struct timespec now(clockid_t clock)
{
    struct timespec ts;
    int rc = clock_gettime(clock, &ts);
    assert(rc == 0);
    return ts;
}

static mesh_ms to_ms(struct timespec ts)
{
    return (mesh_ms)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

mesh_time mesh_clock_now(void)
{
    return (mesh_time){ .mono = to_ms(now(CLOCK_MONOTONIC)), .wall = to_ms(now(CLOCK_REALTIME)) };
}

uint64_t mesh_clock_us(void)
{
    struct timespec ts = now(CLOCK_MONOTONIC);
    return (uint64_t)ts.tv_sec * 1000000u + (uint64_t)ts.tv_nsec / 1000u;
}
