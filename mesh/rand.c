#include "mesh/rand.h"

#include <assert.h>
#include <sodium.h>

uint64_t mesh_rand_next(mesh_rand *r)
{
    r->state += UINT64_C(0x9e3779b97f4a7c15);
    uint64_t z = r->state;
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

uint64_t mesh_rand_below(mesh_rand *r, uint64_t limit)
{
    assert(limit > 0);
    /* draws below 2^64 mod limit are thrown away, so that every value is equally likely */
    uint64_t floor = (0 - limit) % limit;
    uint64_t v;
    do {
        v = mesh_rand_next(r);
    } while (v < floor);
    return v % limit;
}

uint64_t mesh_rand_seed(void)
{
    int rc = sodium_init();
    assert(rc >= 0);
    uint64_t seed;
    do {
        randombytes_buf(&seed, sizeof seed);
    } while (seed == 0);
    return seed;
}
