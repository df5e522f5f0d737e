/* router/serve.h: a router, running. */
#ifndef ROUTER_SERVE_H
#define ROUTER_SERVE_H

#include "mesh/conf.h"

#define ROUTER_STOP_MS 10000       /* after it began to leave, a router is gone by then, quiet or not */
#define ROUTER_ALONE_MS 1000       /* the same when no store is there that could take it out of the ring */
#define ROUTER_WAIT_EDGES_MS 27500 /* one process only: so long edges may drain through it before it leaves */
#define ROUTER_LAST_MS 29000       /* one process only: from the signal on, gone by then */

/* Run node self (a router of conf) in the calling thread until mesh_loop_stopping(), then give up the lease, answer
 * what is in flight, and come back. Over inproc every node of the mesh stops at the same time, so it first waits for
 * its edges. Signals, the log and, with tcp endpoints, mesh_link_setup are the caller's, before. 0, or 1 when it could
 * not start. */
int router_serve_run(const mesh_conf *conf, mesh_peer self);

#endif
