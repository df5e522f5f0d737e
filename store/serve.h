/* store/serve.h: a store replica, running. */
#ifndef STORE_SERVE_H
#define STORE_SERVE_H

#include "mesh/conf.h"

#define STORE_GRACE_MS 500  /* after the stop signal it still serves so long: routers finish what they had sent */
#define STORE_STOP_MS 10000 /* and is gone by then, quiet or not: what is not acked may be lost, nothing else */
#define STORE_WAIT_ROUTERS_MS 29300 /* one process only: so long routers may drain through it */

/* Run node self (a store of conf) in the calling thread until mesh_loop_stopping(), then finish what is under way and
 * come back. Its database is the directory <store.path>/<node name>; store.path is made when it is not there. Signals,
 * the log and, with tcp endpoints, mesh_link_setup are the caller's, before. Returns an exit status: 0 stopped as
 * asked; 1 could not start, or the disk failed under it; 2 the data was refused at start: nothing was touched, the log
 * says which file and what to do. */
int store_serve_run(const mesh_conf *conf, mesh_peer self);

#endif
