/* client/cmd_node.c: runs one role in this process. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/args.h"
#include "client/cmd.h"
#include "client/data.h"
#include "client/roles.h"
#include "mesh/alloc.h"
#include "mesh/link.h"
#include "mesh/log.h"
#include "mesh/loop.h"

static bool find_self(const mesh_conf *conf, const char *path, const char *node, mesh_role role, mesh_peer *self)
{
    *self = mesh_conf_find(conf, node);
    if (*self == MESH_NO_PEER) {
        client_args_fail("%s knows no node '%s'", path, node);
        return false;
    }
    if (mesh_conf_node(conf, *self)->role != role) {
        client_args_fail("%s is no %s in %s", node, mesh_role_name(role), path);
        return false;
    }
    return true;
}

static int run(mesh_role role, mesh_conf *conf, mesh_peer self, const char *dir, const char *keys)
{
    const char *name = mesh_conf_node(conf, self)->name;
    mesh_log_setup(name, client_roles_level(conf));
    mesh_loop_signals();
    if (role == MESH_STORE && !client_roles_place(conf, dir)) {
        return 1;
    }
    mesh_err err = mesh_link_setup(conf, keys);
    if (err != MESH_OK) {
        client_args_fail("the links cannot be set up with the keys in %s: %s", keys, mesh_err_name(err));
        return 1;
    }
    int code = client_roles_run(role, conf, self);
    mesh_link_teardown();
    return code;
}

#define ABOUT "Runs one node until SIGTERM, which lets it drain first."
#define STORE_ABOUT                                                                                                    \
    "parley store salvage FROM TO: what can be saved of a damaged store's directory\n"                                 \
    "parley store new-era DIR: after a store's directory was put back, every device starts from a resync"

static int node(mesh_role role, int argc, char **argv)
{
    const char *conf_path = NULL, *name = NULL, *keys = NULL, *dir = NULL;
    const client_option options[] = {
        { "node", "NAME", "which node of the config this is", &name },
        { "data", "DIR", "the cluster's directory; a store's database is DIR/NAME (data)", &dir },
        { "conf", "FILE", "(DIR/cluster.conf)", &conf_path },
        { "keys", "DIR", "secret keys of the nodes of this machine (DIR/keys)", &keys },
        { NULL, NULL, NULL, NULL },
    };
    char usage[80];
    snprintf(usage, sizeof usage, "parley %s --node NAME [options]", mesh_role_name(role));
    const char *about = role == MESH_STORE ? ABOUT "\n" STORE_ABOUT : ABOUT;
    const client_args args = { usage, about, options, NULL, 0, 0 };
    int code;
    if (client_args_parse(&args, argc, argv, &code) < 0) {
        return code;
    }
    if (!name) {
        return client_args_fail("--node is missing (usage: %s)", usage);
    }
    dir = dir ? dir : "data";
    char *conf_file = conf_path ? mesh_strdup(conf_path) : client_data_path(dir, "cluster.conf");
    char *keys_dir = keys ? mesh_strdup(keys) : client_data_path(dir, "keys");
    mesh_conf *conf = client_data_conf(conf_file);
    mesh_peer self;
    code = 1;
    if (conf && find_self(conf, conf_file, name, role, &self)) {
        code = run(role, conf, self, dir, keys_dir);
    }
    mesh_conf_destroy(&conf);
    free(conf_file);
    free(keys_dir);
    return code;
}

int client_cmd_edge(int argc, char **argv)
{
    return node(MESH_EDGE, argc, argv);
}

int client_cmd_router(int argc, char **argv)
{
    return node(MESH_ROUTER, argc, argv);
}

int client_cmd_store(int argc, char **argv)
{
    if (argc > 1 && strcmp(argv[1], "salvage") == 0) {
        return client_cmd_salvage(argc - 1, argv + 1);
    }
    if (argc > 1 && strcmp(argv[1], "new-era") == 0) {
        return client_cmd_new_era(argc - 1, argv + 1);
    }
    return node(MESH_STORE, argc, argv);
}
