/* client/data.h: a data directory, as the parley command makes and finds it:
 *
 *   cluster.conf      nodes and settings (mesh/conf.h)
 *   token.key         the key of the users' tokens: 32 random bytes in hex, mode 0600
 *   keys/<node>.key   secret keys of the nodes; operator.key is for `parley status` and `parley backup`
 *   <store>/          a store's database */
#ifndef CLIENT_DATA_H
#define CLIENT_DATA_H

#include "client/socket.h"
#include "mesh/conf.h"

#define CLIENT_TOKEN_TTL_S (30 * 24 * 3600)

typedef struct client_data_plan {
    const char *dir;
    unsigned edges;
    unsigned routers;
    unsigned shards;
    unsigned replicas; /* stores of each shard: 1, 3 or 5 */
    int port;          /* of the edges, shared */
    bool one_process;  /* nodes talk over inproc, without keys */
} client_data_plan;

/* dir/name. Yours. */
char *client_data_path(const char *dir, const char *name);
bool client_data_exists(const char *dir, const char *name);

/* Make the directory, keys and config of a new cluster. why gets the reason.
 * Errors: MESH_CONFLICT there is a cluster.conf already; MESH_IO. */
MESH_MUST mesh_err client_data_make(const client_data_plan *plan, char *why, size_t why_size);

/* Load a config; warns of variables that look like settings and are none. NULL: one line was printed. Yours. */
mesh_conf *client_data_conf(const char *path);

/* The key that signs tokens. Errors: MESH_IO it cannot be read; MESH_MALFORMED it is too short. */
MESH_MUST mesh_err client_data_token_key(const char *path, mesh_buf *key);
/* A token signed with dir/token.key; name and tenant may be NULL. NULL: one line was printed. Yours (free). */
char *client_data_token(const char *dir, const char *user, const char *tenant, const char *name, int64_t ttl_s);

/* Where clients connect: url, else 127.0.0.1 and port, else the edges of dir's config, else port 8080; each may be
 * NULL. False: one line was printed. */
bool client_data_target(const char *url, const char *port, const char *dir, client_url *out);

/* The web page's directory beside this program or in the working directory; false: there is none. */
bool client_data_web_dir(char *out, size_t size);

#endif
