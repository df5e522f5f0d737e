/* client/cluster.h: what the subcommands of `parley cluster` share. Private to client/cluster*.c and cmd_cluster.c.
 * Every function prints what it did on stdout, and what went wrong as one line on stderr. */
#ifndef CLIENT_CLUSTER_H
#define CLIENT_CLUSTER_H

#include "client/operator.h"
#include "client/view.h"

#define CLIENT_CLUSTER_DRAIN_MS 40000   /* a node that drains is gone by then */
#define CLIENT_CLUSTER_TRANSFER_MS 5000 /* a leadership is handed over within 2 s, or the old leader leads again */
#define CLIENT_CLUSTER_CHANGE_MS 20000  /* a store is out of its group */
#define CLIENT_CLUSTER_JOIN_MS 600000   /* a store has caught up and votes */
#define CLIENT_CLUSTER_SLOT_MS 120000   /* a slot is where it shall be */
#define CLIENT_CLUSTER_GREEN_S 120      /* after a restart the cluster is whole again */

typedef struct client_cluster {
    client_operator *op;
    const mesh_conf *conf; /* the operator's; borrowed */
    client_view *view;     /* as of the last look */
} client_cluster;

/* False: one line was printed. */
bool client_cluster_open(client_cluster *c, const char *dir);
void client_cluster_close(client_cluster *c);
void client_cluster_look(client_cluster *c);
/* The node of this name; MESH_NO_PEER: there is none, or none of this role (MESH_ROLES: any but an operator). */
mesh_peer client_cluster_node(const client_cluster *c, const char *name, mesh_role role);

/* The exit status of each: 0 done, 1 not. */
int client_cluster_status(client_cluster *c, bool json);
int client_cluster_drain(client_cluster *c, mesh_peer peer);
int client_cluster_transfer(client_cluster *c, uint32_t shard, const char *to); /* to "": whoever is furthest */
int client_cluster_remove_store(client_cluster *c, mesh_peer store);
int client_cluster_add_store(client_cluster *c, mesh_peer store); /* of the config */

/* Slots first to last go to a shard, or, count > 0, so many of those that the fullest shards have. One after the other.
 */
typedef struct client_slots {
    mesh_slot first, last;
    unsigned count;
} client_slots;
int client_cluster_move(client_cluster *c, uint32_t shard, client_slots slots);
/* The next slot to move, MESH_SLOTS: none is left. */
unsigned client_cluster_next_slot(const client_view *view, uint32_t shard, client_slots slots);

/* Every node in turn: routers, stores, edges. command: what starts {node} again, NULL: somebody else does. */
int client_cluster_roll(client_cluster *c, const char *command, mesh_ms green_ms);

/* A new node in dir/cluster.conf, with a key in dir/keys: both or neither is there afterwards. */
int client_cluster_extend(const char *dir, const mesh_node_conf *node);
/* A config's text with one more node at the end of its list. False: it has no list of nodes. */
bool client_cluster_insert(const char *text, const mesh_node_conf *node, mesh_buf *out);
/* command with every {node} replaced. Yours. */
char *client_cluster_fill(const char *command, const char *node);

#endif
