/* edge/serve.h: an edge, running. */
#ifndef EDGE_SERVE_H
#define EDGE_SERVE_H

#include "mesh/conf.h"

#define EDGE_TOKEN_KEY_MIN 32 /* bytes of edge.token_key_file, without white space at its end */
#define EDGE_STOP_MS 27000    /* after SIGTERM the edge is gone by then, drained or not */

/* Run node self (an edge of conf) in the calling thread until mesh_loop_stopping(), then drain: no new sockets, clients
 * are told to reconnect, and back when the last one is gone. Signals, the log and, with tcp endpoints, mesh_link_setup
 * are the caller's, before. 0, or 1 when it could not start (the log says why). */
int edge_serve_run(const mesh_conf *conf, mesh_peer self);

#endif
