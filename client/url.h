/* client/url.h: where an edge is. */
#ifndef CLIENT_URL_H
#define CLIENT_URL_H

#include "mesh/err.h"

typedef struct client_url {
    char host[128];
    int port;
    char path[128];
} client_url;

/* ws://host[:port][/path]; the path defaults to /v1/ws.
 * Errors: MESH_MALFORMED; MESH_UNSUPPORTED wss. */
MESH_MUST mesh_err client_url_parse(const char *text, client_url *out);

#endif
