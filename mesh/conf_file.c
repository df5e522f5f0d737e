#include <ctype.h>
#include <czmq.h>
#include <stdarg.h>
#include <string.h>

#include "mesh/buf.h"
#include "mesh/conf.h"

#define FILE_MAX (1024u * 1024)
#define LINE_MAX_BYTES 1000u /* zconfig reads past the end of the text after a line over 1,024 bytes */

typedef struct load {
    mesh_conf *conf;
    const char *path;
    char *why;
    size_t why_size;
    bool has_hash_key;
} load;

static mesh_err refuse(const load *l, const char *format, ...) __attribute__((format(printf, 2, 3)));

static mesh_err refuse(const load *l, const char *format, ...)
{
    if (l->why_size > 0) {
        va_list args;
        va_start(args, format);
        (void)vsnprintf(l->why, l->why_size, format, args);
        va_end(args);
    }
    return MESH_MALFORMED;
}

/* ---- text to tree ---- */

static mesh_err read_file(const load *l, mesh_buf *text)
{
    FILE *file = fopen(l->path, "re");
    if (file == NULL) {
        (void)refuse(l, "%s: %s", l->path, strerror(errno));
        return MESH_IO;
    }
    size_t n;
    do {
        n = fread(mesh_buf_grow(text, 4096), 1, 4096, file);
        text->size -= 4096 - n;
    } while (n > 0 && text->size <= FILE_MAX);
    bool failed = ferror(file) != 0;
    (void)fclose(file);
    if (failed) {
        (void)refuse(l, "%s: cannot be read", l->path);
        return MESH_IO;
    }
    if (text->size > FILE_MAX) {
        return refuse(l, "%s: larger than 1 MiB", l->path);
    }
    return MESH_OK;
}

static zconfig_t *parse(const void *text, size_t size)
{
    zchunk_t *chunk = zchunk_new(text, size);
    zconfig_t *root = zconfig_chunk_load(chunk);
    zchunk_destroy(&chunk);
    return root;
}

/* zconfig does not tell the line: it is the last one of the shortest beginning that is refused. */
static unsigned bad_line(mesh_slice text)
{
    unsigned line = 0;
    for (size_t end = 0; end < text.size;) {
        const uint8_t *newline = memchr(text.data + end, '\n', text.size - end);
        end = newline != NULL ? (size_t)(newline - text.data) + 1 : text.size;
        line++;
        zconfig_t *root = parse(text.data, end);
        if (root == NULL) {
            break;
        }
        zconfig_destroy(&root);
    }
    return line;
}

static mesh_err parse_text(const load *l, mesh_slice text, zconfig_t **root_p)
{
    unsigned line = 1;
    size_t length = 0;
    for (size_t i = 0; i < text.size; i++) {
        bool newline = text.data[i] == '\n';
        length = newline ? 0 : length + 1;
        if (text.data[i] == '\0' || length > LINE_MAX_BYTES) {
            return refuse(l, "%s:%u: %s", l->path, line, text.data[i] == '\0' ? "NUL byte" : "line too long");
        }
        line += newline;
    }
    *root_p = parse(text.data, text.size);
    if (*root_p == NULL) {
        return refuse(l, "%s:%u: not ZPL (indent by 4 spaces; key = value)", l->path, bad_line(text));
    }
    return MESH_OK;
}

/* ---- tree to config ---- */

/* zconfig keeps items of the same name beside each other and finds only the first. */
static bool is_duplicate(zconfig_t *first, zconfig_t *item)
{
    for (zconfig_t *other = first; other != item; other = zconfig_next(other)) {
        if (streq(zconfig_name(other), zconfig_name(item))) {
            return true;
        }
    }
    return false;
}

static const mesh_setting *find_setting(const char *name)
{
    const mesh_setting *setting = NULL;
    for (unsigned i = 0; (setting = mesh_conf_setting(i)) != NULL; i++) {
        if (streq(setting->name, name)) {
            break;
        }
    }
    return setting;
}

static mesh_err set(load *l, const mesh_setting *setting, const char *where, const char *value)
{
    if (mesh_conf_set(l->conf, setting->name, value) == MESH_OK) {
        l->has_hash_key |= setting->type == MESH_SETTING_HEX;
        return MESH_OK;
    }
    switch (setting->type) {
    case MESH_SETTING_INT:
        return refuse(l, "%s: '%s' is not a number from %lld to %lld", where, value, (long long)setting->min,
                      (long long)setting->max);
    case MESH_SETTING_NAME:
        return refuse(l, "%s: '%s' is not 1 to %d of [a-z0-9-]", where, value, MESH_NODE_NAME_MAX);
    case MESH_SETTING_HEX:
        return refuse(l, "%s: must be 32 hex digits", where);
    case MESH_SETTING_TENANTS:
        return refuse(l, "%s: '%s' is not a list of tenants, each 1 to %d of [a-z0-9-]", where, value, MESH_TENANT_MAX);
    case MESH_SETTING_LEVEL:
        return refuse(l, "%s: '%s' is not debug, info, warn or error", where, value);
    case MESH_SETTING_TEXT:
    default:
        return refuse(l, "%s: longer than %d bytes, or holds what cannot be written here", where, MESH_SETTING_MAX);
    }
}

static mesh_err load_section(load *l, zconfig_t *section)
{
    const char *section_name = zconfig_name(section);
    zconfig_t *first = zconfig_child(section);
    for (zconfig_t *item = first; item != NULL; item = zconfig_next(item)) {
        char name[64];
        char where[256];
        (void)snprintf(name, sizeof name, "%s.%s", section_name, zconfig_name(item));
        (void)snprintf(where, sizeof where, "%s: %s", l->path, name);
        const mesh_setting *setting = find_setting(name);
        if (setting == NULL) {
            return refuse(l, "%s: unknown setting", where);
        }
        if (is_duplicate(first, item)) {
            return refuse(l, "%s: given twice", where);
        }
        if (zconfig_child(item) != NULL) {
            return refuse(l, "%s: has lines below it", where);
        }
        mesh_err err = set(l, setting, where, zconfig_value(item));
        if (err != MESH_OK) {
            return err;
        }
    }
    return MESH_OK;
}

/* Copy value into a field of size bytes; false: it does not fit. */
static bool copy_field(char *to, size_t size, const char *value)
{
    size_t n = strlen(value);
    if (n >= size) {
        return false;
    }
    memcpy(to, value, n + 1);
    return true;
}

static bool parse_role(const char *value, mesh_role *role)
{
    for (int r = 0; r < MESH_ROLES; r++) {
        if (streq(value, mesh_role_name((mesh_role)r))) {
            *role = (mesh_role)r;
            return true;
        }
    }
    return false;
}

static bool parse_shard(const char *value, uint32_t *shard)
{
    size_t n = strspn(value, "0123456789");
    if (n == 0 || n > 4 || value[n] != '\0') {
        return false;
    }
    *shard = (uint32_t)strtoul(value, NULL, 10);
    return true;
}

static bool node_key(mesh_node_conf *node, const char *key, const char *value, bool *known)
{
    *known = true;
    if (streq(key, "role")) {
        return parse_role(value, &node->role);
    }
    if (streq(key, "endpoint")) {
        return copy_field(node->endpoint, sizeof node->endpoint, value);
    }
    if (streq(key, "public_key")) {
        return copy_field(node->public_key, sizeof node->public_key, value);
    }
    if (streq(key, "shard")) {
        return parse_shard(value, &node->shard);
    }
    *known = false;
    return false;
}

static mesh_err add_node(load *l, const mesh_node_conf *node, const char *where)
{
    mesh_err err = mesh_conf_add_node(l->conf, node);
    switch (err) {
    case MESH_OK:
        return MESH_OK;
    case MESH_CONFLICT:
        return refuse(l, "%s: name, key or endpoint is another node's too", where);
    case MESH_FULL:
        return refuse(l, "%s: more than %d nodes", where, MESH_NODES_MAX);
    default:
        return refuse(l,
                      "%s: name is 1 to %d of [a-z0-9-]; routers and stores have an endpoint (tcp:// or inproc://), "
                      "others none; public_key is 40 z85 characters in quotes",
                      where, MESH_NODE_NAME_MAX);
    }
}

static mesh_err load_node(load *l, zconfig_t *item)
{
    char where[256];
    (void)snprintf(where, sizeof where, "%s: node %s", l->path, zconfig_name(item));
    mesh_node_conf node = { .role = MESH_ROLES };
    if (zconfig_value(item)[0] != '\0' || !copy_field(node.name, sizeof node.name, zconfig_name(item))) {
        return refuse(l, "%s: name too long, or has a value", where);
    }
    zconfig_t *first = zconfig_child(item);
    for (zconfig_t *key = first; key != NULL; key = zconfig_next(key)) {
        bool known;
        if (is_duplicate(first, key)) {
            return refuse(l, "%s: %s given twice", where, zconfig_name(key));
        }
        bool good = node_key(&node, zconfig_name(key), zconfig_value(key), &known);
        if (!good || zconfig_child(key) != NULL) {
            return refuse(l, "%s: %s: %s", where, zconfig_name(key), known ? "bad value" : "unknown key");
        }
    }
    if (node.role == MESH_ROLES) {
        return refuse(l, "%s: no role", where);
    }
    return add_node(l, &node, where);
}

static mesh_err load_tree(load *l, zconfig_t *root)
{
    zconfig_t *first = zconfig_child(root);
    mesh_err err = MESH_OK;
    for (zconfig_t *section = first; section != NULL && err == MESH_OK; section = zconfig_next(section)) {
        const char *name = zconfig_name(section);
        if (zconfig_value(section)[0] != '\0') {
            return refuse(l, "%s: %s: a section has no value", l->path, name);
        }
        if (is_duplicate(first, section)) {
            return refuse(l, "%s: section %s given twice", l->path, name);
        }
        if (!streq(name, "node")) {
            err = load_section(l, section);
            continue;
        }
        for (zconfig_t *node = zconfig_child(section); node != NULL && err == MESH_OK; node = zconfig_next(node)) {
            err = load_node(l, node);
        }
    }
    return err;
}

/* PARLEY_EDGE_PORT for edge.port */
static mesh_err load_environment(load *l)
{
    const mesh_setting *setting;
    for (unsigned i = 0; (setting = mesh_conf_setting(i)) != NULL; i++) {
        char variable[96];
        int n = snprintf(variable, sizeof variable, "PARLEY_%s", setting->name);
        assert(n > 0 && (size_t)n < sizeof variable);
        for (char *p = variable; *p != '\0'; p++) {
            *p = *p == '.' ? '_' : (char)toupper((unsigned char)*p);
        }
        const char *value = getenv(variable);
        mesh_err err = value != NULL ? set(l, setting, variable, value) : MESH_OK;
        if (err != MESH_OK) {
            return err;
        }
    }
    return MESH_OK;
}

mesh_err mesh_conf_load(mesh_conf *conf, const char *path, char *why, size_t why_size)
{
    load l = { .conf = conf, .path = path, .why = why, .why_size = why_size };
    mesh_buf text = { 0 };
    zconfig_t *root = NULL;
    mesh_err err = read_file(&l, &text);
    if (err == MESH_OK) {
        err = parse_text(&l, mesh_buf_slice(&text), &root);
    }
    if (err == MESH_OK) {
        err = load_tree(&l, root);
    }
    if (err == MESH_OK) {
        err = load_environment(&l);
    }
    if (err == MESH_OK && !l.has_hash_key) {
        err = refuse(&l, "%s: cluster.hash_key is missing", path);
    }
    zconfig_destroy(&root);
    mesh_buf_fini(&text);
    return err;
}

/* ---- config to text ---- */

static void dump_value(FILE *to, const char *key, const char *value)
{
    char quote = strchr(value, '"') != NULL ? '\'' : '"';
    (void)fprintf(to, "%s = %c%s%c\n", key, quote, value, quote);
}

static void dump_node(FILE *to, const mesh_node_conf *node)
{
    (void)fprintf(to, "    %s\n        role = %s\n", node->name, mesh_role_name(node->role));
    if (node->endpoint[0] != '\0') {
        dump_value(to, "        endpoint", node->endpoint);
    }
    if (node->public_key[0] != '\0') {
        dump_value(to, "        public_key", node->public_key);
    }
    if (node->role == MESH_STORE) {
        (void)fprintf(to, "        shard = %u\n", node->shard);
    }
}

void mesh_conf_dump(const mesh_conf *conf, FILE *to)
{
    const mesh_setting *setting;
    size_t section_size = 0;
    const char *section = "";
    for (unsigned i = 0; (setting = mesh_conf_setting(i)) != NULL; i++) {
        const char *key = strchr(setting->name, '.') + 1;
        size_t size = (size_t)(key - setting->name);
        if (size != section_size || memcmp(setting->name, section, size) != 0) {
            section = setting->name;
            section_size = size;
            (void)fprintf(to, "%.*s\n", (int)size - 1, section);
        }
        (void)fprintf(to, "    # %s\n    ", setting->comment);
        if (setting->type == MESH_SETTING_INT) {
            (void)fprintf(to, "%s = %lld\n", key, (long long)mesh_conf_int(conf, setting->name));
        } else {
            dump_value(to, key, mesh_conf_str(conf, setting->name));
        }
    }
    size_t n = mesh_conf_nodes(conf);
    if (n > 0) {
        (void)fprintf(to, "node\n");
    }
    for (size_t i = 0; i < n; i++) {
        dump_node(to, mesh_conf_node(conf, (mesh_peer)i));
    }
}
