#include <stdio.h>
#include <string.h>

#include "client/args.h"
#include "client/cmd.h"
#include "client/data.h"

static void print_nodes(const mesh_conf *conf)
{
    for (size_t i = 0; i < mesh_conf_nodes(conf); i++) {
        const mesh_node_conf *node = mesh_conf_node(conf, (mesh_peer)i);
        printf("%s %s %s\n", node->name, mesh_role_name(node->role), node->endpoint);
    }
}

static int print_setting(const mesh_conf *conf, const char *name)
{
    for (unsigned i = 0; mesh_conf_setting(i); i++) {
        if (strcmp(mesh_conf_setting(i)->name, name) == 0) {
            puts(mesh_conf_str(conf, name));
            return 0;
        }
    }
    return client_args_fail("there is no setting '%s' (parley config defaults lists them)", name);
}

static int print_defaults(void)
{
    mesh_conf *conf = mesh_conf_new();
    mesh_conf_dump(conf, stdout);
    mesh_conf_destroy(&conf);
    return 0;
}

int client_cmd_config(int argc, char **argv)
{
    const client_option options[] = { { NULL, NULL, NULL, NULL } };
    const char *words[3] = { NULL, NULL, NULL };
    const client_args args = {
        "parley config check FILE | show FILE | nodes FILE | get FILE SECTION.KEY | defaults",
        "check: is FILE good?  show: every setting in force  nodes: name, role and endpoint of each  get: one value\n"
        "defaults: every setting with its default",
        options,
        words,
        1,
        3
    };
    int code;
    int n = client_args_parse(&args, argc, argv, &code);
    if (n < 0) {
        return code;
    }
    const char *what = words[0];
    if (strcmp(what, "defaults") == 0 && n == 1) {
        return print_defaults();
    }
    bool get = strcmp(what, "get") == 0;
    bool known = get || strcmp(what, "check") == 0 || strcmp(what, "show") == 0 || strcmp(what, "nodes") == 0;
    if (!known || n != (get ? 3 : 2)) {
        return client_args_fail("usage: %s", args.usage);
    }
    mesh_conf *conf = client_data_conf(words[1]);
    if (!conf) {
        return 1;
    }
    code = 0;
    if (get) {
        code = print_setting(conf, words[2]);
    } else if (strcmp(what, "nodes") == 0) {
        print_nodes(conf);
    } else if (strcmp(what, "show") == 0) {
        mesh_conf_dump(conf, stdout);
    } else {
        printf("%s is good: %zu nodes\n", words[1], mesh_conf_nodes(conf));
    }
    mesh_conf_destroy(&conf);
    return code;
}
