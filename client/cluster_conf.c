/* client/cluster_conf.c: one more node in a config file. What stands there stays as it is, byte for byte. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "client/args.h"
#include "client/cluster.h"
#include "client/data.h"
#include "mesh/alloc.h"
#include "mesh/link.h"

#define FILE_MAX (1024 * 1024)

/* ---- text ---- */

static size_t line_size(const char *line)
{
    size_t n = strcspn(line, "\n");
    return line[n] == '\n' ? n + 1 : n;
}

static bool is_node_section(const char *line)
{
    return strncmp(line, "node", 4) == 0 && strspn(line + 4, " \t\r") == strcspn(line + 4, "\n#");
}

static bool begins_section(const char *line)
{
    return strchr(" \t\r\n#", line[0]) == NULL;
}

static void put_node(mesh_buf *out, const mesh_node_conf *node)
{
    mesh_buf_printf(out, "    %s\n        role = %s\n", node->name, mesh_role_name(node->role));
    if (node->endpoint[0] != '\0') {
        mesh_buf_printf(out, "        endpoint = \"%s\"\n", node->endpoint);
    }
    mesh_buf_printf(out, "        public_key = \"%s\"\n", node->public_key);
    if (node->role == MESH_STORE) {
        mesh_buf_printf(out, "        shard = %u\n", node->shard);
    }
}

bool client_cluster_insert(const char *text, const mesh_node_conf *node, mesh_buf *out)
{
    const char *end = NULL; /* after the last line of the list that says something */
    bool inside = false;
    for (const char *line = text; *line != '\0'; line += line_size(line)) {
        if (begins_section(line)) {
            inside = is_node_section(line);
        }
        if (inside && line[strspn(line, " \t\r")] != '\n' && line[0] != '#') {
            end = line + line_size(line);
        }
    }
    if (end == NULL) {
        return false;
    }
    mesh_buf_put(out, text, (size_t)(end - text));
    mesh_buf_puts(out, end[-1] == '\n' ? "" : "\n");
    put_node(out, node);
    mesh_buf_puts(out, end);
    return true;
}

/* ---- files ---- */

static char *read_text(const char *path)
{
    FILE *file = fopen(path, "re");
    char *text = file != NULL ? mesh_alloc(FILE_MAX + 1) : NULL;
    size_t n = file != NULL ? fread(text, 1, FILE_MAX + 1, file) : 0;
    bool bad = file == NULL || ferror(file) != 0 || n > FILE_MAX;
    if (file != NULL) {
        (void)fclose(file);
    }
    if (bad) {
        client_args_fail("%s: %s", path, n > FILE_MAX ? "larger than 1 MiB" : strerror(errno));
        free(text);
        return NULL;
    }
    text[n] = '\0';
    return text;
}

static bool write_text(const char *path, mesh_slice bytes)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    bool ok = fd >= 0 && write(fd, bytes.data, bytes.size) == (ssize_t)bytes.size && fsync(fd) == 0;
    if (fd >= 0) {
        ok = close(fd) == 0 && ok;
    }
    if (!ok) {
        client_args_fail("%s: %s", path, strerror(errno));
    }
    return ok;
}

static void hint(void *arg, const char *what)
{
    (void)arg;
    printf("still to do: %s\n", what);
}

/* Does the draft read as a config? What is odd about the whole is only said: stores come one by one. */
static bool check(const char *draft)
{
    mesh_conf *conf = client_data_conf(draft);
    if (conf != NULL) {
        (void)mesh_conf_check(conf, hint, NULL);
    }
    bool ok = conf != NULL;
    mesh_conf_destroy(&conf);
    return ok;
}

static bool put_in_place(const char *path, const char *text, const mesh_node_conf *node)
{
    mesh_buf next = { 0 };
    char *draft = mesh_alloc(strlen(path) + 5);
    sprintf(draft, "%s.new", path);
    bool ok = client_cluster_insert(text, node, &next);
    if (!ok) {
        client_args_fail("%s: it has no list of nodes", path);
    }
    ok = ok && write_text(draft, mesh_buf_slice(&next)) && check(draft);
    if (ok && rename(draft, path) != 0) {
        client_args_fail("%s: %s", path, strerror(errno));
        ok = false;
    }
    if (!ok) {
        (void)unlink(draft);
    }
    mesh_buf_fini(&next);
    free(draft);
    return ok;
}

static void print_next(const char *dir, const mesh_node_conf *node)
{
    printf("%s is in %s/cluster.conf, its key is %s/keys/%s.key. Next:\n"
           "  1. copy cluster.conf to every host, and the key to the host of %s only\n"
           "  2. start it there: systemctl enable --now parley-%s@%s\n"
           "  3. parley cluster roll     (the others read their config when they start)\n",
           node->name, dir, dir, node->name, node->name, mesh_role_name(node->role), node->name);
    if (node->role == MESH_STORE) {
        printf("It then joins shard %u and gets its rows by itself: parley cluster status\n", node->shard);
    }
}

int client_cluster_extend(const char *dir, const mesh_node_conf *node)
{
    mesh_node_conf full = *node;
    char *path = client_data_path(dir, "cluster.conf");
    char *keys = client_data_path(dir, "keys");
    char *key = mesh_alloc(strlen(keys) + MESH_NODE_NAME_MAX + 6);
    char *text = read_text(path);
    int code = 1;
    sprintf(key, "%s/%s.key", keys, node->name);
    if (text != NULL && access(key, F_OK) == 0) {
        client_args_fail("%s is there already", key);
    } else if (text != NULL && mesh_link_make_key(keys, node->name, full.public_key) != MESH_OK) {
        client_args_fail("%s: %s", key, strerror(errno));
    } else if (text != NULL && put_in_place(path, text, &full)) {
        print_next(dir, &full);
        code = 0;
    } else if (text != NULL) {
        (void)unlink(key);
    }
    free(text);
    free(key);
    free(keys);
    free(path);
    return code;
}
