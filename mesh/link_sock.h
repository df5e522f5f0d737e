/* mesh/link_sock.h: the ZeroMQ sockets of a link, with every option that is not the library's default. Used by
 * mesh/link*.c only. Nothing here blocks. */
#ifndef MESH_LINK_SOCK_H
#define MESH_LINK_SOCK_H

#include <zmq.h>

#include "mesh/link_auth.h"

#define MESH_LINK_HWM 256 /* frames in one pipe; bytes are bounded by LINK_QUEUE_MAX */

typedef enum mesh_link_event {
    MESH_LINK_NONE,
    MESH_LINK_CONNECTED,
    MESH_LINK_DISCONNECTED,
    MESH_LINK_REFUSED
} mesh_link_event;

typedef enum mesh_link_sent {
    MESH_LINK_SENT, /* msg is taken */
    MESH_LINK_WAIT, /* not now; msg is still yours */
    MESH_LINK_GONE  /* there is nobody of that identity any more; msg is still yours */
} mesh_link_sent;

/* A listener bound to endpoint; keys NULL for inproc. NULL: errno of libzmq tells why. */
void *mesh_link_sock_listen(const char *endpoint, const mesh_link_keys *keys);
/* A dialer on its way to `to`, known there as rid. keys NULL for inproc. monitor_p: its events. NULL: errno tells why.
 */
void *mesh_link_sock_dial(const mesh_node_conf *to, const char *rid, const mesh_link_keys *keys, void **monitor_p);
void mesh_link_sock_close(void **socket_p, void **monitor_p, int linger_ms);
int mesh_link_sock_fd(void *socket);
bool mesh_link_sock_readable(void *socket); /* also takes in what other threads have told the socket */
mesh_link_event mesh_link_sock_event(void *monitor);

/* The next frame; rid (NULL for a dialer) gets the sender's identity. frame is initialised by the caller.
 * Errors: MESH_AGAIN none; MESH_MALFORMED not [identity] frame: thrown away; MESH_CLOSED the context is going away. */
MESH_MUST mesh_err mesh_link_sock_receive(void *socket, zmq_msg_t *rid, zmq_msg_t *frame);
/* rid NULL for a dialer. */
mesh_link_sent mesh_link_sock_send(void *socket, const char *rid, zmq_msg_t *frame);

#endif
