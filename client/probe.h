/* client/probe.h: does a message get through? A user's session sends to itself and waits for its own message. */
#ifndef CLIENT_PROBE_H
#define CLIENT_PROBE_H

#include "client/socket.h"

#define CLIENT_PROBE_USER "parley-probe"

/* Blocks for at most limit_ms, running a loop of its own; what stood in the way goes to why.
 * Errors: MESH_CLOSED time is over or the process is to stop; MESH_DENIED refused for good; MESH_IO no sockets. */
MESH_MUST mesh_err client_probe(const client_url *url, const char *token, mesh_ms limit_ms, char *why, size_t why_size);

#endif
