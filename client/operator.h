/* client/operator.h: the operator's side of the node links: dials routers and stores with the operator's key, asks for
 * metrics and gives orders. Edges are reached by way of the routers. One thread; every call that waits drives the
 * links itself, and ends when mesh_loop_stopping says so. */
#ifndef CLIENT_OPERATOR_H
#define CLIENT_OPERATOR_H

#include "mesh.pb-c.h"
#include "mesh/clock.h"
#include "mesh/conf.h"
#include "mesh/out.h"

#define CLIENT_OPERATOR_UP_MS 1500  /* a node that did not answer a hello by then counts as down */
#define CLIENT_OPERATOR_ASK_MS 1500 /* for metrics */
#define CLIENT_OPERATOR_ORDER_MS 3000

typedef struct client_operator client_operator;

typedef struct client_answer {
    bool answered, done;
    uint32_t code; /* mesh/fault.h */
    char detail[256];
    char leader[MESH_NODE_NAME_MAX + 1]; /* with FAULT_NOT_LEADER */
} client_answer;

/* Load dir/cluster.conf and open the links with dir/keys/operator.key. NULL: one line was printed. */
client_operator *client_operator_open(const char *dir);
void client_operator_close(client_operator **op_p);
const mesh_conf *client_operator_conf(const client_operator *op); /* borrowed */

/* Ask every node for its metrics. texts: by node, NULL: it did not answer in time; borrowed until the next look. */
const char *const *client_operator_look(client_operator *op);
/* Give an order to a node; one to an edge goes by way of a router. Waits for the answer. */
client_answer client_operator_order(client_operator *op, mesh_peer to, Mesh__OperateOp order, const char *node);
/* Tell the leader of the shard that has a slot to give it to another. */
client_answer client_operator_move(client_operator *op, mesh_peer leader, mesh_slot slot, uint32_t shard);
void client_operator_sleep(client_operator *op, mesh_ms ms); /* the links stay up meanwhile */

/* Something else that is done over the links: what a node says goes to message; turn comes after it, every few ms at
 * the latest, and ends the run with false. */
typedef struct client_operator_task {
    void (*message)(void *arg, mesh_peer from, const Mesh__Msg *msg, mesh_time now, mesh_out *out);
    bool (*turn)(void *arg, mesh_time now, mesh_out *out);
    void *arg;
} client_operator_task;
void client_operator_run(client_operator *op, const client_operator_task *task);

#endif
