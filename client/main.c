/* client/main.c: the parley command: picks the subcommand. */
#include <stdio.h>
#include <string.h>

#include "client/args.h"
#include "client/cmd.h"
#include "mesh/version.h"

static int cmd_version(int argc, char **argv);
static int cmd_help(int argc, char **argv);

static const struct {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *help;
} commands[] = {
    { "serve", client_cmd_serve, "run everything in this one process" },
    { "edge", client_cmd_edge, "run an edge: clients connect here" },
    { "router", client_cmd_router, "run a router" },
    { "store", client_cmd_store,
      "run a store; `store salvage` looks at a damaged one, `store new-era` is for a restored one" },
    { "init", client_cmd_init, "make config and keys of a cluster" },
    { "config", client_cmd_config, "check a config, show the defaults, list the nodes" },
    { "token", client_cmd_token, "make a token for a user" },
    { "status", client_cmd_status, "one line per node" },
    { "backup", client_cmd_backup, "copy a cluster's data while it serves, or check a copy" },
    { "restore", client_cmd_restore, "make the stores of a new cluster from a backup" },
    { "cluster", client_cmd_cluster, "look at a running cluster, drain, add and remove nodes, restart it" },
    { "wait", client_cmd_wait, "wait until a real message went through" },
    { "chat", client_cmd_chat, "talk, in the terminal" },
    { "replay", client_cmd_replay, "play IRC logs through a cluster and check every delivery" },
    { "version", cmd_version, "print the version" },
    { "help", cmd_help, "print this" },
};
#define COMMANDS (sizeof commands / sizeof *commands)

static int cmd_version(int argc, char **argv)
{
    (void)argc;
    (void)argv;
    puts("parley " MESH_VERSION);
    return 0;
}

static int cmd_help(int argc, char **argv)
{
    (void)argc;
    (void)argv;
    puts("usage: parley COMMAND [options]      (parley COMMAND --help tells more)");
    for (size_t i = 0; i < COMMANDS; i++) {
        printf("  %-8s %s\n", commands[i].name, commands[i].help);
    }
    return 0;
}

int main(int argc, char **argv)
{
    if (argc < 2) {
        return client_args_fail("no command given (parley help lists them)");
    }
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0) {
        return cmd_help(argc, argv);
    }
    if (strcmp(argv[1], "--version") == 0) {
        return cmd_version(argc, argv);
    }
    for (size_t i = 0; i < COMMANDS; i++) {
        if (strcmp(commands[i].name, argv[1]) == 0) {
            return commands[i].run(argc - 1, argv + 1);
        }
    }
    return client_args_fail("unknown command '%s' (parley help lists them)", argv[1]);
}
