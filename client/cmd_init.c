#include <stdio.h>

#include "client/args.h"
#include "client/cmd.h"
#include "client/data.h"

int client_cmd_init(int argc, char **argv)
{
    const char *dir = NULL, *edges = NULL, *routers = NULL, *port = NULL;
    const client_option options[] = {
        { "data", "DIR", "where to make it", &dir },
        { "edges", "N", "(2)", &edges },
        { "routers", "N", "(2)", &routers },
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
    int64_t n_edges, n_routers, number;
    if (client_args_parse(&args, argc, argv, &code) < 0) {
        return code;
    }
    if (!dir) {
        return client_args_fail("--data is missing (usage: %s)", args.usage);
    }
    if (!client_args_int("edges", edges, 2, 1, 64, &n_edges) ||
        !client_args_int("routers", routers, 2, 1, 64, &n_routers) ||
        !client_args_int("port", port, 8080, 1, 65535, &number)) {
        return CLIENT_EXIT_USAGE;
    }
    client_data_plan plan = { dir, (unsigned)n_edges, (unsigned)n_routers, (int)number, false };
    char why[512];
    mesh_err err = client_data_make(&plan, why, sizeof why);
    if (err != MESH_OK) {
        client_args_fail("%s", why);
        return 1;
    }
    return 0;
}
