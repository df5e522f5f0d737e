/* router/orders.h: an operator's orders at a router. Edges listen to nobody, so what is for an edge goes over the link
 * that the edge has opened to a router, and its answer the same way back. */
#ifndef ROUTER_ORDERS_H
#define ROUTER_ORDERS_H

#include "mesh/conf.h"
#include "mesh/out.h"

#define ROUTER_ORDERS_MAX                                                                                              \
    256 /* orders on their way; beyond: the oldest is forgotten, and its asker's deadline passes                       \
         */

typedef struct router_orders router_orders;

router_orders *router_orders_new(const mesh_conf *conf, mesh_peer self); /* conf is borrowed */
void router_orders_destroy(router_orders **orders_p);
void router_orders_up(router_orders *orders, mesh_peer peer);
void router_orders_down(router_orders *orders, mesh_peer peer);

/* An Operate from an operator: passed on, or answered at once. True: this router itself is to drain. */
bool router_orders_take(router_orders *orders, mesh_peer from, const Mesh__Msg *msg, mesh_out *out);
/* A message from an edge. True: it answers an order and went back to whoever gave it. */
bool router_orders_answer(router_orders *orders, mesh_peer from, const Mesh__Msg *msg, mesh_out *out);

#endif
