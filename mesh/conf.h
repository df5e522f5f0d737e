/* mesh/conf.h: a cluster's config: ZPL through zconfig, then environment overrides (PARLEY_SECTION_KEY).
 *
 *   cluster
 *       name = "demo"
 *       hash_key = "<32 hex>"          # of the slots; never changes; part of every backup
 *       tenants = "default"            # space separated
 *   node
 *       <name>
 *           role = edge|router|store|operator
 *           endpoint = tcp://127.0.0.1:7101     # routers and stores: where they listen
 *           public_key = <z85, 40 chars>
 *           shard = 0                            # stores: 1, 3 or 5 of each; shards are numbered from 0
 *   edge / router / store / log ...              # settings, each with its default: `parley config defaults`
 *
 * Node names are 1..32 of [a-z0-9-]. The secret key of a node is in <data>/keys/<name>.key (mode 0600), never here. */
#ifndef MESH_CONF_H
#define MESH_CONF_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "mesh/err.h"
#include "mesh/id.h"

#define MESH_NODES_MAX 256
#define MESH_NODE_NAME_MAX 32
#define MESH_NO_PEER UINT16_MAX
#define MESH_REPLICAS_MAX 5 /* stores of a shard */

typedef uint16_t
    mesh_peer; /* index in the config's node list; never leaves the process: on the wire nodes have names */
typedef enum mesh_role { MESH_EDGE, MESH_ROUTER, MESH_STORE, MESH_OPERATOR, MESH_ROLES } mesh_role;

typedef struct mesh_node_conf {
    char name[MESH_NODE_NAME_MAX + 1];
    mesh_role role;
    char endpoint[128];  /* empty for edges and operators */
    char public_key[41]; /* z85; empty with inproc */
    uint32_t shard;
} mesh_node_conf;

typedef struct mesh_conf mesh_conf;

typedef enum mesh_setting_type {
    MESH_SETTING_INT,
    MESH_SETTING_TEXT,    /* up to MESH_SETTING_MAX bytes of UTF-8 without control characters */
    MESH_SETTING_NAME,    /* like a node's name */
    MESH_SETTING_HEX,     /* 32 hex digits */
    MESH_SETTING_TENANTS, /* space separated, at least one */
    MESH_SETTING_LEVEL    /* debug, info, warn, error */
} mesh_setting_type;

#define MESH_SETTING_MAX 512
typedef struct mesh_setting { /* one row of the table in mesh/conf.c */
    const char *name;         /* section.key */
    mesh_setting_type type;
    const char *fallback; /* default, as text */
    int64_t min, max;     /* INT only */
    const char *comment;
} mesh_setting;

/* Row i, NULL past the end. Rows of a section stand together. */
const mesh_setting *mesh_conf_setting(unsigned i);

mesh_conf *mesh_conf_new(void); /* defaults, no nodes */
void mesh_conf_destroy(mesh_conf **conf_p);
/* Read path over the defaults, then the environment. cluster.hash_key must be in one of the two. why (of size why_size)
 * says where and the reason; after an error conf is good for destroying only.
 * Errors: MESH_IO, MESH_MALFORMED syntax, unknown or duplicate key, bad value, duplicate node. */
MESH_MUST mesh_err mesh_conf_load(mesh_conf *conf, const char *path, char *why, size_t why_size);
/* Problems come one by one, as a line that begins with the node or setting; borrowed for the call. */
typedef void mesh_conf_problem(void *arg, const char *what);
/* Could this config as a whole be a cluster: every role, 1, 3 or 5 stores per shard, shards numbered from 0 without a
 * hole, keys where links need them? Looks at no file. Returns how many problems there are. */
size_t mesh_conf_check(const mesh_conf *conf, mesh_conf_problem *problem, void *arg);
/* Variables that look like settings (PARLEY_EDGE_PROT) and are none, in a list like environ. Returns how many. */
size_t mesh_conf_check_environment(char *const *environment, mesh_conf_problem *problem, void *arg);

/* A number that two configs share when they describe the same cluster: its name, tenants and nodes, not settings. */
uint32_t mesh_conf_sum(const mesh_conf *conf);

void mesh_conf_dump(const mesh_conf *conf, FILE *to); /* every setting with its value and a comment */

/* Settings are declared in one table in mesh/conf.c with type, default, range and comment; asking for one that is not
 * declared asserts. Names are "section.key". */
int64_t mesh_conf_int(const mesh_conf *conf, const char *name);
const char *mesh_conf_str(const mesh_conf *conf, const char *name);                     /* borrowed */
MESH_MUST mesh_err mesh_conf_set(mesh_conf *conf, const char *name, const char *value); /* MESH_MALFORMED */

const mesh_hash_key *mesh_conf_hash_key(const mesh_conf *conf);
bool mesh_conf_has_tenant(const mesh_conf *conf, const char *tenant);
size_t mesh_conf_nodes(const mesh_conf *conf);
const mesh_node_conf *mesh_conf_node(const mesh_conf *conf, mesh_peer peer);
mesh_peer mesh_conf_find(const mesh_conf *conf, const char *name); /* MESH_NO_PEER when not there */
size_t mesh_conf_shards(const mesh_conf *conf); /* of a config that is checked: 0 .. N - 1; 0: no stores */
/* The stores of a shard, in the order of the node list, the first MESH_REPLICAS_MAX of them. Returns how many. */
size_t mesh_conf_stores(const mesh_conf *conf, uint32_t shard, mesh_peer stores[MESH_REPLICAS_MAX]);
/* Errors: MESH_FULL; MESH_MALFORMED a field is not valid; MESH_CONFLICT the name, key or endpoint is another node's. */
MESH_MUST mesh_err mesh_conf_add_node(mesh_conf *conf, const mesh_node_conf *node);
const char *mesh_role_name(mesh_role role);

#endif
