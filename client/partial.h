/* client/partial.h: a WebSocket message from the server, put together from its pieces. */
#ifndef CLIENT_PARTIAL_H
#define CLIENT_PARTIAL_H

#include <stdbool.h>

#include "client/frame.h"

#define CLIENT_MESSAGE_MAX (CLIENT_FRAME_MAX + CLIENT_FRAME_HEAD_MAX) /* room for the largest event as a frame */
#define CLIENT_PARTIAL_KEEP (64u * 1024)                              /* memory kept from message to message */

/* Append a piece to the message in `in`. *whole_p is the message, borrowed until the next call: from `in`, or from the
 * piece where that is all of it. Errors: MESH_AGAIN more is to come; MESH_TOO_BIG over CLIENT_MESSAGE_MAX. */
MESH_MUST mesh_err client_partial_put(mesh_buf *in, mesh_slice piece, bool last, mesh_slice *whole_p);
void client_partial_clear(mesh_buf *in); /* the next piece begins a message */

#endif
