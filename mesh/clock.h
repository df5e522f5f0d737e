/* mesh/clock.h: the only file that reads a clock. Cores get the time as an argument. */
#ifndef MESH_CLOCK_H
#define MESH_CLOCK_H

#include <stdint.h>

typedef int64_t mesh_ms; /* milliseconds; monotonic unless a name says wall */
#define MESH_NEVER INT64_MAX

typedef struct mesh_time {
    mesh_ms mono; /* CLOCK_MONOTONIC; never goes back within a process */
    mesh_ms wall; /* since 1970; may jump; stamps only, never orders anything */
} mesh_time;

mesh_time mesh_clock_now(void);
uint64_t mesh_clock_us(void); /* CLOCK_MONOTONIC microseconds, for measuring only */

#endif
