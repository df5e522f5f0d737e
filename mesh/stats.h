/* mesh/stats.h: counters and gauges of one node, printed in Prometheus text format. One thread owns one object; a
 * counter is an index in the owner's own enum, so counting is one add. */
#ifndef MESH_STATS_H
#define MESH_STATS_H

#include <stdint.h>

#include "mesh/buf.h"

typedef enum mesh_stat_type { MESH_COUNTER, MESH_GAUGE } mesh_stat_type;
typedef struct mesh_stat_info {
    const char *name; /* parley_edge_frames_total */
    const char *help;
    mesh_stat_type type;
    const char *labels; /* NULL, or name="value",... */
} mesh_stat_info;

typedef struct mesh_stats mesh_stats;
mesh_stats *mesh_stats_new(const mesh_stat_info *infos, unsigned n); /* infos borrowed for ever */
void mesh_stats_destroy(mesh_stats **stats_p);
void mesh_stats_add(mesh_stats *stats, unsigned i, uint64_t n);
void mesh_stats_set(mesh_stats *stats, unsigned i, uint64_t value);
uint64_t mesh_stats_get(const mesh_stats *stats, unsigned i);
void mesh_stats_print(const mesh_stats *stats, const char *node, mesh_buf *out);

#endif
