#include <stdio.h>

#include "client/args.h"
#include "client/cmd.h"
#include "client/data.h"

#define SHARDS_MAX 16

int client_cmd_init(int argc, char **argv)
{
    const char *dir = NULL, *edges = NULL, *routers = NULL, *shards = NULL, *replicas = NULL, *port = NULL;
    const client_option options[] = {
        { "data", "DIR", "where to make it", &dir },
        { "edges", "N", "(2)", &edges },
        { "routers", "N", "(2)", &routers },
        { "shards", "N", "(1)", &shards },
        { "replicas", "N", "stores of each shard: 1, 3 or 5 (1)", &replicas },
        { "port", "PORT", "the edges' shared port (8080); the other nodes listen from PORT+1000 on, on loopback",
          &port },
        { NULL, NULL, NULL, NULL },
    };
    const client_args args = { "parley init --data DIR [options]",
                               "Makes DIR/cluster.conf, a key for every node and for the operator, and the token key.",
                               options,
                               NULL,
                               0,
                               0 };
    int code;
    int64_t n_edges, n_routers, n_shards, n_replicas, number;
    if (client_args_parse(&args, argc, argv, &code) < 0) {
        return code;
    }
    if (!dir) {
        return client_args_fail("--data is missing (usage: %s)", args.usage);
    }
    if (!client_args_int("edges", edges, 2, 1, 64, &n_edges) ||
        !client_args_int("routers", routers, 2, 1, 64, &n_routers) ||
        !client_args_int("shards", shards, 1, 1, SHARDS_MAX, &n_shards) ||
        !client_args_int("replicas", replicas, 1, 1, MESH_REPLICAS_MAX, &n_replicas) ||
        !client_args_int("port", port, 8080, 1, 65535, &number)) {
        return CLIENT_EXIT_USAGE;
    }
    if (n_replicas % 2 == 0) {
        return client_args_fail("--replicas must be 1, 3 or %d", MESH_REPLICAS_MAX);
    }
    client_data_plan plan = { .dir = dir,
                              .edges = (unsigned)n_edges,
                              .routers = (unsigned)n_routers,
                              .shards = (unsigned)n_shards,
                              .replicas = (unsigned)n_replicas,
                              .port = (int)number };
    char why[512];
    mesh_err err = client_data_make(&plan, why, sizeof why);
    if (err != MESH_OK) {
        client_args_fail("%s", why);
        return 1;
    }
    return 0;
}
