/* client/requests.h: the requests of one session that have no final answer yet, oldest first, as packed frames. Used by
 * client/session.c alone. */
#ifndef CLIENT_REQUESTS_H
#define CLIENT_REQUESTS_H

#include <stdbool.h>

#include "mesh/buf.h"
#include "mesh/clock.h"

typedef struct client_request client_request;
typedef struct client_requests { /* zero-initialise */
    client_request *head;
    client_request *tail;
    size_t count;
    size_t sent; /* on their way */
} client_requests;

void client_requests_fini(client_requests *q);
/* frame is copied. ordered: not to pass, nor be passed by, another ordered one when pumped in order. */
void client_requests_add(client_requests *q, uint64_t id, bool ordered, mesh_slice frame);
bool client_requests_remove(client_requests *q, uint64_t id); /* false: no such request */
bool client_requests_delay(client_requests *q, uint64_t id,
                           mesh_ms due); /* send again at due; false: no such request */
size_t
client_requests_rewind(client_requests *q); /* the connection is gone: all are to be sent again; how many were out */

typedef struct client_pumped {
    mesh_ms next;   /* when a delayed one is due, MESH_NEVER for none */
    mesh_ms oldest; /* when the oldest one on its way was sent, MESH_NEVER for none */
    size_t put;     /* how many were appended to out now */
} client_pumped;
/* Append what may go now, while fewer than window are on their way. */
client_pumped client_requests_pump(client_requests *q, bool in_order, size_t window, mesh_ms now, mesh_buf *out);

#endif
