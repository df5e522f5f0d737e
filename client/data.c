#include "client/data.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "client/args.h"
#include "edge/token.h"
#include "mesh/alloc.h"
#include "mesh/link.h"

#define TOKEN_KEY_BYTES 32
#define TOKEN_KEY_MIN 32
#define PORTS_ABOVE 1000 /* the nodes listen this far above the clients' port, on loopback */

char *client_data_path(const char *dir, const char *name)
{
    size_t size = strlen(dir) + strlen(name) + 2;
    char *path = mesh_alloc(size);
    snprintf(path, size, "%s/%s", dir, name);
    return path;
}

bool client_data_exists(const char *dir, const char *name)
{
    char *path = client_data_path(dir, name);
    bool there = access(path, F_OK) == 0;
    free(path);
    return there;
}

/* ---- making ---- */

/* Written beside its place and renamed: whole or absent. */
static mesh_err write_file(const char *path, mesh_slice bytes, mode_t mode)
{
    char *draft = mesh_alloc(strlen(path) + 5);
    sprintf(draft, "%s.new", path);
    int fd = open(draft, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, mode);
    bool ok = fd >= 0 && write(fd, bytes.data, bytes.size) == (ssize_t)bytes.size && fsync(fd) == 0;
    if (fd >= 0) {
        ok = close(fd) == 0 && ok;
    }
    ok = ok && rename(draft, path) == 0;
    free(draft);
    return ok ? MESH_OK : MESH_IO;
}

static void random_hex(char *out, size_t bytes)
{
    int rc = sodium_init();
    if (rc < 0) {
        abort();
    }
    for (size_t i = 0; i < bytes; i++) {
        sprintf(out + 2 * i, "%02x", randombytes_random() & 0xff);
    }
}

static mesh_err make_dirs(const char *dir)
{
    char *path = mesh_strdup(dir);
    mesh_err err = MESH_OK;
    for (char *p = path + 1; err == MESH_OK; p++) {
        if (*p == '/' || *p == '\0') {
            char c = *p;
            *p = '\0';
            if (mkdir(path, 0755) != 0 && errno != EEXIST) {
                err = MESH_IO;
            }
            *p = c;
            if (c == '\0') {
                break;
            }
        }
    }
    free(path);
    return err;
}

/* shard: of a store; -1 for the others. */
static mesh_err put_node(mesh_buf *text, const client_data_plan *plan, const char *keys, const char *role,
                         const char *name, int port, int shard)
{
    char public_key[41] = "";
    mesh_err err = plan->one_process ? MESH_OK : mesh_link_make_key(keys, name, public_key);
    if (err != MESH_OK) {
        return err;
    }
    mesh_buf_printf(text, "    %s\n        role = %s\n", name, role);
    if (port > 0 && plan->one_process) {
        mesh_buf_printf(text, "        endpoint = \"inproc://%s\"\n", name);
    } else if (port > 0) {
        mesh_buf_printf(text, "        endpoint = \"tcp://127.0.0.1:%d\"\n", port);
    }
    if (public_key[0]) {
        mesh_buf_printf(text, "        public_key = \"%s\"\n", public_key);
    }
    if (shard >= 0) {
        mesh_buf_printf(text, "        shard = %d\n", shard);
    }
    return MESH_OK;
}

/* n nodes of a role, the first at port; 0: they do not listen. per_shard: how many of them make a shard; 0: none. */
static mesh_err put_role(mesh_buf *text, const client_data_plan *plan, const char *keys, const char *role, unsigned n,
                         int port, unsigned per_shard)
{
    mesh_err err = MESH_OK;
    for (unsigned i = 0; i < n && err == MESH_OK; i++) {
        char name[MESH_NODE_NAME_MAX + 1];
        snprintf(name, sizeof name, "%s%u", role, i + 1);
        err = put_node(text, plan, keys, role, name, port > 0 ? port + (int)i : 0,
                       per_shard > 0 ? (int)(i / per_shard) : -1);
    }
    return err;
}

static mesh_err put_nodes(mesh_buf *text, const client_data_plan *plan, const char *keys)
{
    int base = plan->port < 60000 ? plan->port + PORTS_ABOVE : plan->port - PORTS_ABOVE;
    unsigned stores = plan->shards * plan->replicas;
    mesh_buf_puts(text, "node\n");
    mesh_err err = put_role(text, plan, keys, "store", stores, base, plan->replicas);
    if (err == MESH_OK) {
        err = put_role(text, plan, keys, "router", plan->routers, base + (int)stores, 0);
    }
    if (err == MESH_OK) {
        err = put_role(text, plan, keys, "edge", plan->edges, 0, 0);
    }
    return err == MESH_OK && !plan->one_process ? put_node(text, plan, keys, "operator", "operator", 0, -1) : err;
}

bool client_data_web_dir(char *out, size_t size)
{
    char exe[PATH_MAX];
    ssize_t n = readlink("/proc/self/exe", exe, sizeof exe - 1);
    exe[n > 0 ? n : 0] = '\0';
    char *slash = strrchr(exe, '/');
    if (slash) {
        *slash = '\0';
    }
    static const char *const places[] = { "/../share/parley/web", "/../../web" }; /* from the program; else ./web */
    for (size_t i = 0; i < 3; i++) {
        char path[PATH_MAX + 32];
        char page[PATH_MAX + 64];
        char real[PATH_MAX];
        snprintf(path, sizeof path, "%s%s", i < 2 ? exe : ".", i < 2 ? places[i] : "/web");
        snprintf(page, sizeof page, "%s/index.html", path);
        if (access(page, R_OK) == 0 && realpath(path, real) && strlen(real) < size) {
            snprintf(out, size, "%s", real);
            return true;
        }
    }
    return false;
}

static mesh_err make_token_key(const char *path)
{
    if (access(path, F_OK) == 0) {
        return MESH_OK;
    }
    char hex[2 * TOKEN_KEY_BYTES + 2];
    random_hex(hex, TOKEN_KEY_BYTES);
    strcat(hex, "\n");
    return write_file(path, (mesh_slice){ (const uint8_t *)hex, strlen(hex) }, 0600);
}

static mesh_err make_conf(const client_data_plan *plan, const char *conf_path, const char *keys, const char *token_key)
{
    char hash_key[33];
    random_hex(hash_key, 16);
    char real[PATH_MAX];
    char web[PATH_MAX];
    mesh_buf text = { 0 };
    mesh_buf_printf(&text,
                    "# made by `parley init`; `parley config defaults` shows every setting\n"
                    "cluster\n    name = \"parley\"\n    hash_key = \"%s\"\n    tenants = \"default\"\n",
                    hash_key);
    mesh_err err = put_nodes(&text, plan, keys);
    mesh_buf_printf(&text, "edge\n    port = %d\n    token_key_file = \"%s\"\n", plan->port,
                    realpath(token_key, real) ? real : token_key);
    if (client_data_web_dir(web, sizeof web)) {
        mesh_buf_printf(&text, "    web_dir = \"%s\"\n", web);
    }
    if (err == MESH_OK) {
        err = write_file(conf_path, mesh_buf_slice(&text), 0644);
    }
    mesh_buf_fini(&text);
    return err;
}

mesh_err client_data_make(const client_data_plan *plan, char *why, size_t why_size)
{
    char *conf_path = client_data_path(plan->dir, "cluster.conf");
    char *keys = client_data_path(plan->dir, "keys");
    char *token_key = client_data_path(plan->dir, "token.key");
    mesh_err err = MESH_OK;
    if (access(conf_path, F_OK) == 0) {
        snprintf(why, why_size, "%s is there already", conf_path);
        err = MESH_CONFLICT;
    }
    if (err == MESH_OK) {
        snprintf(why, why_size, "%s: ", plan->dir);
        err = make_dirs(plan->dir);
    }
    if (err == MESH_OK && !plan->one_process) {
        err = make_dirs(keys);
        chmod(keys, 0700);
    }
    if (err == MESH_OK) {
        err = make_token_key(token_key);
    }
    if (err == MESH_OK) {
        err = make_conf(plan, conf_path, keys, token_key);
    }
    if (err == MESH_IO) {
        snprintf(why, why_size, "%s: %s", plan->dir, strerror(errno));
    }
    free(conf_path);
    free(keys);
    free(token_key);
    return err;
}

/* ---- finding ---- */

static void warn(void *arg, const char *what)
{
    (void)arg;
    fprintf(stderr, "parley: warning: %s\n", what);
}

mesh_conf *client_data_conf(const char *path)
{
    char why[512] = "";
    mesh_conf *conf = mesh_conf_new();
    mesh_err err = mesh_conf_load(conf, path, why, sizeof why);
    if (err != MESH_OK) {
        client_args_fail("%s", why[0] ? why : mesh_err_name(err));
        mesh_conf_destroy(&conf);
    } else {
        mesh_conf_check_environment(environ, warn, NULL);
    }
    return conf;
}

mesh_err client_data_token_key(const char *path, mesh_buf *key)
{
    uint8_t bytes[4096];
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd >= 0 ? read(fd, bytes, sizeof bytes) : -1;
    if (fd >= 0) {
        close(fd);
    }
    if (n < 0) {
        return MESH_IO;
    }
    while (n > 0 && isspace(bytes[n - 1])) {
        n--;
    }
    if (n < TOKEN_KEY_MIN) {
        return MESH_MALFORMED;
    }
    mesh_buf_put(key, bytes, (size_t)n);
    sodium_memzero(bytes, sizeof bytes);
    return MESH_OK;
}

char *client_data_token(const char *dir, const char *user, const char *tenant, const char *name, int64_t ttl_s)
{
    char *path = client_data_path(dir, "token.key");
    char *token = NULL;
    mesh_buf key = { 0 };
    mesh_err err = client_data_token_key(path, &key);
    if (err != MESH_OK) {
        client_args_fail("%s: %s", path, err == MESH_IO ? strerror(errno) : "no token key");
    } else if (!mesh_id_valid(user)) {
        client_args_fail("'%s' is no user id: 1 to 64 of A-Z a-z 0-9 _ . : -", user);
    } else {
        token = edge_token_make(mesh_buf_slice(&key), user, tenant, name, mesh_clock_now().wall / 1000, ttl_s);
    }
    mesh_buf_fini(&key);
    free(path);
    return token;
}

static bool target_of_dir(const char *dir, client_url *out)
{
    char *path = client_data_path(dir, "cluster.conf");
    mesh_conf *conf = client_data_conf(path);
    free(path);
    if (!conf) {
        return false;
    }
    out->port = (int)mesh_conf_int(conf, "edge.port");
    const char *host = mesh_conf_str(conf, "edge.host");
    if (host[0] && strcmp(host, "0.0.0.0") != 0 && strlen(host) < sizeof out->host) {
        snprintf(out->host, sizeof out->host, "%s", host);
    }
    mesh_conf_destroy(&conf);
    return true;
}

bool client_data_target(const char *url, const char *port, const char *dir, client_url *out)
{
    client_url target = { .host = "127.0.0.1", .port = 8080, .path = "/v1/ws" };
    int64_t number;
    if (url) {
        mesh_err err = client_url_parse(url, &target);
        if (err != MESH_OK) {
            client_args_fail("%s %s", url,
                             err == MESH_UNSUPPORTED ? "is TLS, which is not spoken here"
                                                     : "is no address like ws://127.0.0.1:8080/v1/ws");
            return false;
        }
    } else if (port) {
        if (!client_args_int("port", port, 0, 1, 65535, &number)) {
            return false;
        }
        target.port = (int)number;
    } else if (dir && client_data_exists(dir, "cluster.conf") && !target_of_dir(dir, &target)) {
        return false;
    }
    *out = target;
    return true;
}
