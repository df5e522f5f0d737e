#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "client/args.h"
#include "client/cmd.h"
#include "client/data.h"

static void print_nodes(const mesh_conf *conf)
{
    for (size_t i = 0; i < mesh_conf_nodes(conf); i++) {
        const mesh_node_conf *node = mesh_conf_node(conf, (mesh_peer)i);
        printf("%s %s %s", node->name, mesh_role_name(node->role), node->endpoint);
        if (node->role == MESH_STORE) {
            printf(" %u", node->shard);
        }
        putchar('\n');
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

static void print_problem(void *arg, const char *what)
{
    client_args_fail("%s: %s", (const char *)arg, what);
}

/* Files of this machine that edges cannot do without. Only a path that leads nowhere is a problem: who may read the
 * key is not for who asks to say. */
static size_t check_file(const char *conf_path, const char *setting, const char *path)
{
    bool gone = path[0] != '\0' && access(path, F_OK) != 0 && (errno == ENOENT || errno == ENOTDIR);
    if (gone) {
        client_args_fail("%s: %s: %s: %s", conf_path, setting, path, strerror(errno));
    }
    return gone;
}

static int check(const mesh_conf *conf, const char *path)
{
    size_t n = mesh_conf_check(conf, print_problem, (void *)(uintptr_t)path);
    const char *web_dir = mesh_conf_str(conf, "edge.web_dir");
    char *page = client_data_path(web_dir, "index.html");
    n += check_file(path, "edge.token_key_file", mesh_conf_str(conf, "edge.token_key_file"));
    n += web_dir[0] ? check_file(path, "edge.web_dir", page) : 0; /* empty: none is served */
    free(page);
    if (n > 0) {
        return 1;
    }
    printf("%s is good: %zu nodes\n", path, mesh_conf_nodes(conf));
    return 0;
}

int client_cmd_config(int argc, char **argv)
{
    const client_option options[] = { { NULL, NULL, NULL, NULL } };
    const char *words[3] = { NULL, NULL, NULL };
    const client_args args = { "parley config check FILE | show FILE | nodes FILE | get FILE SECTION.KEY | defaults",
                               "check: is FILE good for a cluster, are the edges' files there?  show: every setting in "
                               "force  nodes: name, role and endpoint of each, and a store's shard  get: one value\n"
                               "defaults: every setting with its default",
                               options,
                               words,
                               1,
                               3 };
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
        code = check(conf, words[1]);
    }
    mesh_conf_destroy(&conf);
    return code;
}
