#include "mesh/stats.h"

#include <assert.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "mesh/alloc.h"

struct mesh_stats {
    const mesh_stat_info *infos;
    unsigned n;
    uint64_t values[];
};

/* Prometheus refuses a page on which the rows of one name are apart. */
static bool stands_together(const mesh_stat_info *infos, unsigned n)
{
    for (unsigned i = 2; i < n; i++) {
        for (unsigned k = 0; k + 1 < i; k++) {
            if (strcmp(infos[k].name, infos[i].name) == 0 && strcmp(infos[i - 1].name, infos[i].name) != 0) {
                return false;
            }
        }
    }
    return true;
}

mesh_stats *mesh_stats_new(const mesh_stat_info *infos, unsigned n)
{
    assert(stands_together(infos, n));
    mesh_stats *stats = mesh_alloc(sizeof *stats + n * sizeof *stats->values);
    stats->infos = infos;
    stats->n = n;
    return stats;
}

void mesh_stats_destroy(mesh_stats **stats_p)
{
    free(*stats_p);
    *stats_p = NULL;
}

void mesh_stats_add(mesh_stats *stats, unsigned i, uint64_t n)
{
    assert(i < stats->n);
    stats->values[i] += n;
}

void mesh_stats_set(mesh_stats *stats, unsigned i, uint64_t value)
{
    assert(i < stats->n);
    stats->values[i] = value;
}

uint64_t mesh_stats_get(const mesh_stats *stats, unsigned i)
{
    assert(i < stats->n);
    return stats->values[i];
}

void mesh_stats_print(const mesh_stats *stats, const char *node, mesh_buf *out)
{
    const char *last = "";
    for (unsigned i = 0; i < stats->n; i++) {
        const mesh_stat_info *info = &stats->infos[i];
        if (strcmp(info->name, last) != 0) { /* rows of one name that differ by labels stand together */
            mesh_buf_printf(out, "# HELP %s %s\n# TYPE %s %s\n", info->name, info->help, info->name,
                            info->type == MESH_COUNTER ? "counter" : "gauge");
            last = info->name;
        }
        bool more = info->labels != NULL && info->labels[0] != '\0';
        mesh_buf_printf(out, "%s{node=\"%s\"%s%s} %" PRIu64 "\n", info->name, node, more ? "," : "",
                        more ? info->labels : "", stats->values[i]);
    }
}
