#include "mesh/conf.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "mesh/alloc.h"
#include "mesh/utf8.h"

#define INT(name, fallback, min, max, comment)                                                                         \
    {                                                                                                                  \
        name, MESH_SETTING_INT, fallback, min, max, comment                                                            \
    }
#define TEXT(name, fallback, comment)                                                                                  \
    {                                                                                                                  \
        name, MESH_SETTING_TEXT, fallback, 0, 0, comment                                                               \
    }

static const mesh_setting settings[] = {
    { "cluster.name", MESH_SETTING_NAME, "parley", 0, 0, "Nodes of another cluster are refused." },
    { "cluster.hash_key", MESH_SETTING_HEX, "00000000000000000000000000000000", 0, 0,
      "Places users and chats in slots. Never changes; part of every backup." },
    { "cluster.tenants", MESH_SETTING_TENANTS, "default", 0, 0, "Space separated." },
    TEXT("edge.host", "127.0.0.1", "Address to listen on for clients."),
    INT("edge.port", "8080", 0, 65535, "Port for WebSocket, the web page, health and metrics; 0 = any free one."),
    INT("edge.reuse_port", "1", 0, 1, "1: several edges of a machine may share the port."),
    INT("edge.rate", "100", 1, 1000000, "Requests a second one session may make for long."),
    INT("edge.burst", "500", 1, 1000000, "Requests one session may make at once."),
    TEXT("edge.origins", "", "Browser origins let in, space separated; empty = the page's own only, * = all."),
    TEXT("edge.web_dir", "", "Directory of the web page; empty = none is served."),
    TEXT("edge.token_key_file", "", "File with the HS256 key of the tokens, at least 32 bytes."),
    INT("edge.token_skew_s", "60", 0, 60, "Clock difference allowed to who makes the tokens."),
    INT("edge.max_sockets", "100000", 1, 10000000, "Sockets one edge holds."),
    INT("edge.max_sockets_per_address", "20000", 1, 10000000, "Sockets one address may hold on an edge."),
    INT("edge.heartbeat_ms", "30000", 1000, 600000, "A client silent for two of these is closed."),
    INT("edge.drain_ms", "20000", 0, 600000, "Clients are told to go over this long when the edge stops."),
    INT("router.sessions_max", "1000000", 1, 100000000, "Sessions one router holds."),
    INT("router.ttl_ms", "5000", 100, 60000, "A request not answered by then is unavailable."),
    TEXT("store.path", "",
         "Directory in which each store keeps its database, under its own name; empty = the data directory."),
    INT("store.write_buffer_mib", "64", 1, 4096, "LevelDB write buffer."),
    INT("store.block_cache_mib", "128", 1, 65536, "LevelDB block cache."),
    INT("store.max_open_files", "1000", 64, 100000, "LevelDB table files kept open."),
    INT("store.free_min_mib", "256", 0, 1048576, "With less free on the disk than this, writes are refused."),
    INT("store.log_trail_kib", "65536", 16, 67108864,
        "Log kept for replicas that were away; one that misses more gets a copy of the rows."),
    INT("store.log_hold_mib", "4096", 0, 67108864,
        "At most so much more log is kept for replicas that are getting a copy or come back; 0 = none."),
    INT("store.election_ms", "300", 50, 60000, "A replica that hears nothing of a leader for this long seeks to lead."),
    INT("store.heartbeat_ms", "50", 5, 10000, "A leader is heard at least this often; a fraction of election_ms."),
    INT("store.copy_mib_s", "64", 0, 100000, "A replica gives copies of its rows no faster than this; 0 = no limit."),
    INT("store.lease_ms", "2500", 500, 60000, "A router that has not renewed for this long is out of the ring."),
    { "log.level", MESH_SETTING_LEVEL, "info", 0, 0, "debug, info, warn or error." },
};
#define SETTINGS (sizeof settings / sizeof *settings)

typedef struct value {
    char *text;
    int64_t number; /* INT only */
} value;

struct mesh_conf {
    value values[SETTINGS];
    mesh_hash_key hash_key;
    mesh_node_conf *nodes;
    size_t n_nodes;
};

const mesh_setting *mesh_conf_setting(unsigned i)
{
    return i < SETTINGS ? &settings[i] : NULL;
}

static size_t index_of(const char *name)
{
    for (size_t i = 0; i < SETTINGS; i++) {
        if (strcmp(settings[i].name, name) == 0) {
            return i;
        }
    }
    return SETTINGS;
}

/* ---- values ---- */

static bool parse_int(const mesh_setting *setting, const char *text, int64_t *out)
{
    const char *p = text[0] == '-' ? text + 1 : text;
    size_t digits = strspn(p, "0123456789");
    if (digits == 0 || digits > 18 || p[digits] != '\0') {
        return false;
    }
    *out = strtoll(text, NULL, 10);
    return *out >= setting->min && *out <= setting->max;
}

/* What a quoted ZPL value can hold, so that a dump reads back the same. */
static bool text_valid(const char *text)
{
    size_t n = strlen(text);
    if (n > MESH_SETTING_MAX || !mesh_utf8_valid((const uint8_t *)text, n, NULL)) {
        return false;
    }
    for (size_t i = 0; i < n; i++) {
        if ((unsigned char)text[i] < ' ' || text[i] == 0x7f) {
            return false;
        }
    }
    return strchr(text, '"') == NULL || strchr(text, '\'') == NULL;
}

static bool name_valid(const char *name)
{
    size_t n = strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789-");
    return n >= 1 && n <= MESH_NODE_NAME_MAX && name[n] == '\0';
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9') {
        return c - '0';
    }
    if (c >= 'a' && c <= 'f') {
        return c - 'a' + 10;
    }
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

static bool parse_hash_key(const char *text, mesh_hash_key *out)
{
    if (strlen(text) != 2 * sizeof out->bytes) {
        return false;
    }
    mesh_hash_key key;
    for (size_t i = 0; i < sizeof key.bytes; i++) {
        int high = hex_digit(text[2 * i]);
        int low = hex_digit(text[2 * i + 1]);
        if (high < 0 || low < 0) {
            return false;
        }
        key.bytes[i] = (uint8_t)(high << 4 | low);
    }
    *out = key;
    return true;
}

/* Next space separated word at *p, its size in *n; NULL: no more. */
static const char *next_word(const char **p, size_t *n)
{
    const char *start = *p + strspn(*p, " ");
    *n = strcspn(start, " ");
    *p = start + *n;
    return *n > 0 ? start : NULL;
}

static bool tenants_valid(const char *text)
{
    size_t n;
    size_t count = 0;
    for (const char *word; (word = next_word(&text, &n)) != NULL; count++) {
        char tenant[MESH_TENANT_MAX + 1];
        if (n > MESH_TENANT_MAX) {
            return false;
        }
        memcpy(tenant, word, n);
        tenant[n] = '\0';
        if (!mesh_tenant_valid(tenant)) {
            return false;
        }
    }
    return count > 0;
}

static bool level_valid(const char *text)
{
    return strcmp(text, "debug") == 0 || strcmp(text, "info") == 0 || strcmp(text, "warn") == 0 ||
           strcmp(text, "error") == 0;
}

static bool value_valid(const mesh_setting *setting, const char *text, int64_t *number)
{
    mesh_hash_key key;
    if (!text_valid(text)) {
        return false;
    }
    switch (setting->type) {
    case MESH_SETTING_INT:
        return parse_int(setting, text, number);
    case MESH_SETTING_NAME:
        return name_valid(text);
    case MESH_SETTING_HEX:
        return parse_hash_key(text, &key);
    case MESH_SETTING_TENANTS:
        return tenants_valid(text);
    case MESH_SETTING_LEVEL:
        return level_valid(text);
    case MESH_SETTING_TEXT:
    default:
        return true;
    }
}

mesh_err mesh_conf_set(mesh_conf *conf, const char *name, const char *text)
{
    size_t i = index_of(name);
    int64_t number = 0;
    if (i == SETTINGS || !value_valid(&settings[i], text, &number)) {
        return MESH_MALFORMED;
    }
    char *copy = mesh_strdup(text); /* text may be the old value */
    free(conf->values[i].text);
    conf->values[i] = (value){ copy, number };
    if (settings[i].type == MESH_SETTING_HEX) {
        bool ok = parse_hash_key(copy, &conf->hash_key);
        assert(ok);
    }
    return MESH_OK;
}

mesh_conf *mesh_conf_new(void)
{
    mesh_conf *conf = mesh_alloc(sizeof *conf);
    for (size_t i = 0; i < SETTINGS; i++) {
        mesh_err err = mesh_conf_set(conf, settings[i].name, settings[i].fallback);
        assert(err == MESH_OK);
    }
    return conf;
}

void mesh_conf_destroy(mesh_conf **conf_p)
{
    mesh_conf *conf = *conf_p;
    if (conf == NULL) {
        return;
    }
    for (size_t i = 0; i < SETTINGS; i++) {
        free(conf->values[i].text);
    }
    free(conf->nodes);
    free(conf);
    *conf_p = NULL;
}

int64_t mesh_conf_int(const mesh_conf *conf, const char *name)
{
    size_t i = index_of(name);
    assert(i < SETTINGS && settings[i].type == MESH_SETTING_INT);
    return conf->values[i].number;
}

const char *mesh_conf_str(const mesh_conf *conf, const char *name)
{
    size_t i = index_of(name);
    assert(i < SETTINGS);
    return conf->values[i].text;
}

const mesh_hash_key *mesh_conf_hash_key(const mesh_conf *conf)
{
    return &conf->hash_key;
}

bool mesh_conf_has_tenant(const mesh_conf *conf, const char *tenant)
{
    const char *rest = mesh_conf_str(conf, "cluster.tenants");
    size_t size = strlen(tenant);
    size_t n;
    for (const char *word; (word = next_word(&rest, &n)) != NULL;) {
        if (n == size && memcmp(word, tenant, n) == 0) {
            return true;
        }
    }
    return false;
}

/* ---- nodes ---- */

const char *mesh_role_name(mesh_role role)
{
    static const char *const names[MESH_ROLES] = { "edge", "router", "store", "operator" };
    return (unsigned)role < MESH_ROLES ? names[role] : "unknown";
}

static bool endpoint_valid(const mesh_node_conf *node)
{
    const char *endpoint = node->endpoint;
    size_t n = strnlen(endpoint, sizeof node->endpoint);
    if (n == sizeof node->endpoint || !text_valid(endpoint)) {
        return false;
    }
    bool listens = node->role == MESH_ROUTER || node->role == MESH_STORE;
    if (!listens) {
        return n == 0;
    }
    return (strncmp(endpoint, "tcp://", 6) == 0 && n > 6) || (strncmp(endpoint, "inproc://", 9) == 0 && n > 9);
}

static bool public_key_valid(const char *key)
{
    size_t n = strspn(key, "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#");
    return key[n] == '\0' && (n == 0 || n == 40);
}

mesh_err mesh_conf_add_node(mesh_conf *conf, const mesh_node_conf *node)
{
    if (!name_valid(node->name) || (unsigned)node->role >= MESH_ROLES || !endpoint_valid(node) ||
        !public_key_valid(node->public_key)) {
        return MESH_MALFORMED;
    }
    for (size_t i = 0; i < conf->n_nodes; i++) {
        const mesh_node_conf *other = &conf->nodes[i];
        bool same_key = node->public_key[0] != '\0' && strcmp(other->public_key, node->public_key) == 0;
        bool same_endpoint = node->endpoint[0] != '\0' && strcmp(other->endpoint, node->endpoint) == 0;
        if (same_key || same_endpoint || strcmp(other->name, node->name) == 0) {
            return MESH_CONFLICT;
        }
    }
    if (conf->n_nodes == MESH_NODES_MAX) {
        return MESH_FULL;
    }
    if (conf->nodes == NULL) { /* all at once: pointers to nodes stay good */
        conf->nodes = mesh_alloc(MESH_NODES_MAX * sizeof *conf->nodes);
    }
    conf->nodes[conf->n_nodes++] = *node;
    return MESH_OK;
}

size_t mesh_conf_nodes(const mesh_conf *conf)
{
    return conf->n_nodes;
}

const mesh_node_conf *mesh_conf_node(const mesh_conf *conf, mesh_peer peer)
{
    assert(peer < conf->n_nodes);
    return &conf->nodes[peer];
}

mesh_peer mesh_conf_find(const mesh_conf *conf, const char *name)
{
    for (size_t i = 0; i < conf->n_nodes; i++) {
        if (strcmp(conf->nodes[i].name, name) == 0) {
            return (mesh_peer)i;
        }
    }
    return MESH_NO_PEER;
}

size_t mesh_conf_shards(const mesh_conf *conf)
{
    size_t shards = 0;
    for (size_t i = 0; i < conf->n_nodes; i++) {
        if (conf->nodes[i].role == MESH_STORE && conf->nodes[i].shard >= shards) {
            shards = (size_t)conf->nodes[i].shard + 1;
        }
    }
    return shards;
}

size_t mesh_conf_stores(const mesh_conf *conf, uint32_t shard, mesh_peer stores[MESH_REPLICAS_MAX])
{
    size_t n = 0;
    for (size_t i = 0; i < conf->n_nodes && n < MESH_REPLICAS_MAX; i++) {
        if (conf->nodes[i].role == MESH_STORE && conf->nodes[i].shard == shard) {
            stores[n++] = (mesh_peer)i;
        }
    }
    return n;
}
