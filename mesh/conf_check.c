/* mesh/conf_check.c: what no single line of a config can be blamed for. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "mesh/conf.h"

typedef struct check {
    const mesh_conf *conf;
    mesh_conf_problem *problem;
    void *arg;
    size_t found;
} check;

static void say(check *c, const char *format, ...) __attribute__((format(printf, 2, 3)));

static void say(check *c, const char *format, ...)
{
    char what[512];
    va_list args;
    va_start(args, format);
    (void)vsnprintf(what, sizeof what, format, args);
    va_end(args);
    c->found++;
    c->problem(c->arg, what);
}

static size_t count(const check *c, mesh_role role)
{
    size_t n = 0;
    for (size_t i = 0; i < mesh_conf_nodes(c->conf); i++) {
        n += mesh_conf_node(c->conf, (mesh_peer)i)->role == role;
    }
    return n;
}

static void check_roles(check *c)
{
    static const mesh_role needed[] = { MESH_STORE, MESH_ROUTER, MESH_EDGE };
    if (mesh_conf_nodes(c->conf) == 0) {
        say(c, "node: the cluster has no nodes");
        return;
    }
    for (size_t i = 0; i < sizeof needed / sizeof *needed; i++) {
        if (count(c, needed[i]) == 0) {
            say(c, "node: the cluster has no %s", mesh_role_name(needed[i]));
        }
    }
}

static const mesh_node_conf *first_store(const check *c, uint32_t shard)
{
    mesh_peer stores[MESH_REPLICAS_MAX];
    return mesh_conf_stores(c->conf, shard, stores) > 0 ? mesh_conf_node(c->conf, stores[0]) : NULL;
}

static size_t count_stores(const check *c, uint32_t shard)
{
    size_t n = 0;
    for (size_t i = 0; i < mesh_conf_nodes(c->conf); i++) {
        const mesh_node_conf *node = mesh_conf_node(c->conf, (mesh_peer)i);
        n += node->role == MESH_STORE && node->shard == shard;
    }
    return n;
}

static void check_shards(check *c)
{
    if (count(c, MESH_STORE) > 0 && first_store(c, 0) == NULL) { /* without a store that is said already */
        say(c, "node: no store has shard 0, which keeps the ring");
    }
    for (size_t i = 0; i < mesh_conf_nodes(c->conf); i++) {
        const mesh_node_conf *node = mesh_conf_node(c->conf, (mesh_peer)i);
        if (node->role != MESH_STORE || first_store(c, node->shard) != node) {
            continue;
        }
        size_t n = count_stores(c, node->shard);
        if (n != 1 && n != 3 && n != MESH_REPLICAS_MAX) {
            say(c, "node %s: shard %u has %zu stores; a shard has 1, 3 or %d", node->name, node->shard, n,
                MESH_REPLICAS_MAX);
        }
        if (node->shard > 1 && first_store(c, node->shard - 1) == NULL) {
            say(c, "node %s: shard %u, but no store has shard %u; shards are numbered 0, 1, 2 ...", node->name,
                node->shard, node->shard - 1);
        }
    }
}

static bool is_tcp(const mesh_node_conf *node)
{
    return strncmp(node->endpoint, "tcp://", 6) == 0;
}

/* One thread per node and inproc, or one process per node, tcp and keys: nothing in between. */
static void check_links(check *c)
{
    const char *tcp = NULL;
    const char *inproc = NULL;
    for (size_t i = 0; i < mesh_conf_nodes(c->conf); i++) {
        const mesh_node_conf *node = mesh_conf_node(c->conf, (mesh_peer)i);
        if (node->endpoint[0] != '\0') {
            *(is_tcp(node) ? &tcp : &inproc) = node->name;
        }
    }
    if (tcp && inproc) {
        say(c, "node %s: its endpoint is inproc, that of %s is tcp", inproc, tcp);
    }
    for (size_t i = 0; tcp && i < mesh_conf_nodes(c->conf); i++) {
        const mesh_node_conf *node = mesh_conf_node(c->conf, (mesh_peer)i);
        if (node->public_key[0] == '\0') {
            say(c, "node %s: no public_key, and links over tcp are encrypted", node->name);
        }
    }
}

size_t mesh_conf_check(const mesh_conf *conf, mesh_conf_problem *problem, void *arg)
{
    check c = { .conf = conf, .problem = problem, .arg = arg };
    check_roles(&c);
    check_shards(&c);
    check_links(&c);
    if (count(&c, MESH_EDGE) > 0 && mesh_conf_str(conf, "edge.token_key_file")[0] == '\0') {
        say(&c, "edge.token_key_file: not set, and edges check tokens with it");
    }
    return c.found;
}

/* ---- sum: FNV-1a ---- */

static uint32_t add_text(uint32_t sum, const char *text)
{
    do {
        sum = (sum ^ (uint8_t)*text) * 16777619u;
    } while (*text++ != '\0');
    return sum;
}

uint32_t mesh_conf_sum(const mesh_conf *conf)
{
    uint32_t sum = add_text(2166136261u, mesh_conf_str(conf, "cluster.name"));
    sum = add_text(sum, mesh_conf_str(conf, "cluster.tenants"));
    for (size_t i = 0; i < mesh_conf_nodes(conf); i++) {
        const mesh_node_conf *node = mesh_conf_node(conf, (mesh_peer)i);
        char shard[16];
        snprintf(shard, sizeof shard, "%u", node->shard);
        sum = add_text(add_text(sum, node->name), mesh_role_name(node->role));
        sum = add_text(add_text(add_text(sum, node->endpoint), node->public_key), shard);
    }
    return sum;
}

/* ---- environment ---- */

/* Does text, after PARLEY_, begin with the name of a section and '_'? */
static bool of_a_section(const char *text)
{
    const mesh_setting *setting;
    for (unsigned i = 0; (setting = mesh_conf_setting(i)) != NULL; i++) {
        size_t n = strcspn(setting->name, ".");
        if (strncasecmp(text, setting->name, n) == 0 && text[n] == '_') {
            return true;
        }
    }
    return false;
}

static bool is_setting(const char *text, size_t size)
{
    const mesh_setting *setting;
    for (unsigned i = 0; (setting = mesh_conf_setting(i)) != NULL; i++) {
        size_t n = strcspn(setting->name, ".");
        if (strlen(setting->name) == size && strncasecmp(text, setting->name, n) == 0 && text[n] == '_' &&
            strncasecmp(text + n + 1, setting->name + n + 1, size - n - 1) == 0) {
            return true;
        }
    }
    return false;
}

size_t mesh_conf_check_environment(char *const *environment, mesh_conf_problem *problem, void *arg)
{
    check c = { .problem = problem, .arg = arg };
    for (; *environment != NULL; environment++) {
        const char *text = *environment;
        size_t size = strcspn(text, "=");
        if (strncmp(text, "PARLEY_", 7) == 0 && of_a_section(text + 7) && !is_setting(text + 7, size - 7)) {
            say(&c, "%.*s: in the environment, but no such setting", (int)(size < 200 ? size : 200), text);
        }
    }
    return c.found;
}
