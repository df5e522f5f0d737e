/* tests/bench/bench.c: starts real clusters, measures them, and writes build/bench.json: {name: {value, unit,
 * command}}. */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "mesh/log.h"
#include "tests/bench/bench.h"

static const struct {
    const char *name;
    void (*run)(const bench_options *options);
} figures[] = {
    { "one_to_one_throughput", figure_one_to_one }, { "one_to_one_latency", figure_latency },
    { "one_to_one_of_bare", figure_ratio },         { "messages_per_fsync", figure_fsyncs },
    { "group_deliveries", figure_group },           { "connect_storm", figure_storm },
    { "idle_connection_rss", figure_idle },         { "replicas_throughput", figure_replicas },
    { "store_alone", figure_store_alone },          { "cross_shard", figure_cross_shard },
    { "leader_kill", figure_leader_kill },          { "router_kill", figure_router_kill },
    { "copy_while_serving", figure_copy },          { "slots_move", figure_slots_move },
};
#define FIGURES (sizeof figures / sizeof *figures)

/* Of a list with commas; NULL: everything. A longer name is the group's whose name it begins with. */
static bool is_wanted(const char *list, const char *figure)
{
    size_t size = strlen(figure);
    bool wanted = list == NULL;
    for (const char *at = list; !wanted && at != NULL; at = strchr(at, ',')) {
        at += *at == ',' ? 1 : 0;
        wanted = strncmp(at, figure, size) == 0;
    }
    return wanted;
}

static int usage(void)
{
    fprintf(stderr, "usage: bench [--build DIR] [--only NAME,...] [--seconds N] [--quick] [--pairs N] [--window N] "
                    "[--out FILE]\nfigures:");
    for (size_t i = 0; i < FIGURES; i++) {
        fprintf(stderr, " %s", figures[i].name);
    }
    fprintf(stderr, "\n");
    return 2;
}

int main(int argc, char **argv)
{
    static const struct option long_options[] = { { "build", 1, 0, 'b' },   { "only", 1, 0, 'o' },
                                                  { "seconds", 1, 0, 's' }, { "quick", 0, 0, 'q' },
                                                  { "pairs", 1, 0, 'p' },   { "window", 1, 0, 'w' },
                                                  { "out", 1, 0, 'f' },     { 0 } };
    bench_options options = { .build = "build/release", .seconds = 0, .pairs = 100, .window = 8 };
    const char *only = NULL, *out = "build/bench.json";
    for (int o; (o = getopt_long(argc, argv, "", long_options, NULL)) != -1;) {
        switch (o) {
        case 'b':
            options.build = optarg;
            break;
        case 'o':
            only = optarg;
            break;
        case 's':
            options.seconds = atof(optarg);
            break;
        case 'q':
            options.quick = true;
            break;
        case 'p':
            options.pairs = (unsigned)atoi(optarg);
            break;
        case 'w':
            options.window = (unsigned)atoi(optarg);
            break;
        case 'f':
            out = optarg;
            break;
        default:
            return usage();
        }
    }
    if (options.seconds <= 0) {
        options.seconds = options.quick ? 5 : 120;
    }
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    mesh_log_level(MESH_ERROR);
    result_load(out);
    unsigned done = 0;
    for (size_t i = 0; i < FIGURES; i++) {
        if (is_wanted(only, figures[i].name)) {
            char command[256];
            (void)snprintf(command, sizeof command, "make bench BENCH_ARGS=\"%s--only %s\"",
                           options.quick ? "--quick " : "", figures[i].name);
            result_command(command);
            figures[i].run(&options);
            done++;
        }
    }
    result_save(out);
    return done > 0 ? 0 : usage();
}
