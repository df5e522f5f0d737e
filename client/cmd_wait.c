#include <stdio.h>
#include <stdlib.h>

#include "client/args.h"
#include "client/cmd.h"
#include "client/data.h"
#include "client/probe.h"
#include "mesh/loop.h"

int client_cmd_wait(int argc, char **argv)
{
    const char *url = NULL, *port = NULL, *dir = "data", *limit = NULL;
    const client_option options[] = {
        { "url", "URL", "where clients connect (ws://127.0.0.1:8080/v1/ws)", &url },
        { "port", "PORT", "the same on this machine", &port },
        { "data", "DIR", "the cluster's directory, for its port and token key (data)", &dir },
        { "limit", "SECONDS", "give up after (30)", &limit },
        { NULL, NULL, NULL, NULL },
    };
    const client_args args = { "parley wait [options]",
                               "Waits until a real message went through: a user sends to itself and receives it.",
                               options,
                               NULL,
                               0,
                               0 };
    int code;
    int64_t seconds;
    client_url target;
    if (client_args_parse(&args, argc, argv, &code) < 0) {
        return code;
    }
    if (!client_args_int("limit", limit, 30, 1, 3600, &seconds) || !client_data_target(url, port, dir, &target)) {
        return CLIENT_EXIT_USAGE;
    }
    char *token = client_data_token(dir, CLIENT_PROBE_USER, NULL, NULL, 600);
    if (!token) {
        return 1;
    }
    mesh_loop_signals();
    char why[256];
    mesh_err err = client_probe(&target, token, seconds * 1000, why, sizeof why);
    free(token);
    if (err != MESH_OK) {
        fprintf(stderr, "parley: no message came through %s:%d: %s\n", target.host, target.port, why);
        return 1;
    }
    return 0;
}
