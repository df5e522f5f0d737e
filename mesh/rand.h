/* mesh/rand.h: random numbers from a seed (splitmix64), so that cores repeat; and the seed itself from the system. */
#ifndef MESH_RAND_H
#define MESH_RAND_H

#include <stdint.h>

typedef struct mesh_rand {
    uint64_t state;
} mesh_rand;

uint64_t mesh_rand_next(mesh_rand *r);                  /* any 64 bits */
uint64_t mesh_rand_below(mesh_rand *r, uint64_t limit); /* 0..limit-1; limit > 0 */
uint64_t mesh_rand_seed(void);                          /* from libsodium's randombytes; never 0 */

#endif
