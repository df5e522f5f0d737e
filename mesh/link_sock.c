#include "mesh/link_sock.h"

#include <assert.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "mesh/wire.h"

#define NEVER_MS (24 * 3600 * 1000)

static void set_int(void *socket, int option, int value)
{
    int rc = zmq_setsockopt(socket, option, &value, sizeof value);
    assert(rc == 0);
}

static void set_common(void *socket)
{
    const int64_t max = MESH_FRAME_MAX;
    int rc = zmq_setsockopt(socket, ZMQ_MAXMSGSIZE, &max, sizeof max);
    assert(rc == 0);
    set_int(socket, ZMQ_HANDSHAKE_IVL, 3000);
    set_int(socket, ZMQ_SNDHWM, MESH_LINK_HWM);
    set_int(socket, ZMQ_RCVHWM, MESH_LINK_HWM);
    set_int(socket, ZMQ_SNDTIMEO, 0);
    set_int(socket, ZMQ_LINGER, 0);
    set_int(socket, ZMQ_TCP_KEEPALIVE, 1);
}

void *mesh_link_sock_listen(const char *endpoint, const mesh_link_keys *keys)
{
    void *socket = zmq_socket(mesh_link_auth_context(), ZMQ_ROUTER);
    if (socket == NULL) {
        return NULL;
    }
    set_common(socket);
    set_int(socket, ZMQ_ROUTER_MANDATORY, 1);
    if (keys != NULL) {
        mesh_link_auth_guard(socket, keys);
    }
    if (zmq_bind(socket, endpoint) != 0) {
        int saved = zmq_errno();
        zmq_close(socket);
        errno = saved;
        return NULL;
    }
    return socket;
}

static void *listen_to(void *socket)
{
    static atomic_uint_fast64_t number; /* an inproc name is never used twice in a process */
    char endpoint[64];
    (void)snprintf(endpoint, sizeof endpoint, "inproc://parley.monitor.%llu",
                   (unsigned long long)atomic_fetch_add(&number, 1));
    void *monitor = zmq_socket(mesh_link_auth_context(), ZMQ_PAIR);
    if (monitor == NULL) {
        return NULL;
    }
    set_int(monitor, ZMQ_LINGER, 0);
    if (zmq_socket_monitor(socket, endpoint,
                           ZMQ_EVENT_HANDSHAKE_SUCCEEDED | ZMQ_EVENT_DISCONNECTED | ZMQ_EVENT_CONNECT_RETRIED |
                               ZMQ_EVENT_HANDSHAKE_FAILED_AUTH) != 0 ||
        zmq_connect(monitor, endpoint) != 0) {
        int saved = zmq_errno();
        zmq_close(monitor);
        errno = saved;
        return NULL;
    }
    return monitor;
}

void *mesh_link_sock_dial(const mesh_node_conf *to, const char *rid, const mesh_link_keys *keys, void **monitor_p)
{
    void *socket = zmq_socket(mesh_link_auth_context(), ZMQ_DEALER);
    if (socket == NULL) {
        return NULL;
    }
    set_common(socket);
    /* One socket, one connection: link_peer.c makes a fresh socket when it fails or ends, long before libzmq would
     * connect this one again. ZMQ_IMMEDIATE stays off: with it 4.3.4 throws away, at the end of a connection, frames
     * that had come and were not read yet. Nothing queues up without it, because nothing is sent before the handshake
     * is done. */
    set_int(socket, ZMQ_RECONNECT_IVL, NEVER_MS);
    int rc = zmq_setsockopt(socket, ZMQ_ROUTING_ID, rid, strlen(rid));
    assert(rc == 0);
    bool ok = true;
    if (keys != NULL) {
        ok = zmq_setsockopt(socket, ZMQ_CURVE_SERVERKEY, to->public_key, MESH_LINK_KEY_SIZE) == 0 &&
             zmq_setsockopt(socket, ZMQ_CURVE_PUBLICKEY, keys->public_key, MESH_LINK_KEY_SIZE) == 0 &&
             zmq_setsockopt(socket, ZMQ_CURVE_SECRETKEY, keys->secret_key, MESH_LINK_KEY_SIZE) == 0;
    }
    void *monitor = ok ? listen_to(socket) : NULL;
    if (monitor == NULL || zmq_connect(socket, to->endpoint) != 0) {
        int saved = zmq_errno();
        mesh_link_sock_close(&socket, &monitor, 0);
        errno = saved;
        return NULL;
    }
    *monitor_p = monitor;
    return socket;
}

void mesh_link_sock_close(void **socket_p, void **monitor_p, int linger_ms)
{
    if (*socket_p != NULL) {
        if (monitor_p != NULL) {
            zmq_socket_monitor(*socket_p, NULL, 0);
        }
        set_int(*socket_p, ZMQ_LINGER, linger_ms);
        zmq_close(*socket_p);
        *socket_p = NULL;
    }
    if (monitor_p != NULL && *monitor_p != NULL) {
        zmq_close(*monitor_p);
        *monitor_p = NULL;
    }
}

int mesh_link_sock_fd(void *socket)
{
    int fd = -1;
    size_t size = sizeof fd;
    int rc = zmq_getsockopt(socket, ZMQ_FD, &fd, &size);
    assert(rc == 0);
    return fd;
}

bool mesh_link_sock_readable(void *socket)
{
    int events = 0;
    size_t size = sizeof events;
    int rc;
    do {
        rc = zmq_getsockopt(socket, ZMQ_EVENTS, &events, &size);
    } while (rc != 0 && zmq_errno() == EINTR);
    return rc == 0 && (events & ZMQ_POLLIN) != 0;
}

static int receive_part(void *socket, zmq_msg_t *part)
{
    int n;
    do {
        n = zmq_msg_recv(part, socket, ZMQ_DONTWAIT);
    } while (n < 0 && zmq_errno() == EINTR);
    return n;
}

/* The parts of a message arrive together, so what follows a first part is there. */
static void skip_parts(void *socket)
{
    zmq_msg_t part;
    zmq_msg_init(&part);
    bool more = true;
    while (more) {
        more = receive_part(socket, &part) >= 0 && zmq_msg_more(&part) != 0;
    }
    zmq_msg_close(&part);
}

mesh_err mesh_link_sock_receive(void *socket, zmq_msg_t *rid, zmq_msg_t *frame)
{
    zmq_msg_t *first = rid != NULL ? rid : frame;
    if (receive_part(socket, first) < 0) {
        return zmq_errno() == EAGAIN ? MESH_AGAIN : MESH_CLOSED;
    }
    if (rid != NULL) {
        if (zmq_msg_more(rid) == 0) {
            return MESH_MALFORMED;
        }
        if (receive_part(socket, frame) < 0) {
            return MESH_CLOSED;
        }
    }
    if (zmq_msg_more(frame) != 0) {
        skip_parts(socket);
        return MESH_MALFORMED;
    }
    return MESH_OK;
}

static int try_send(void *socket, const char *rid, zmq_msg_t *frame)
{
    if (rid != NULL) {
        int n;
        do {
            n = zmq_send(socket, rid, strlen(rid), ZMQ_SNDMORE | ZMQ_DONTWAIT);
        } while (n < 0 && zmq_errno() == EINTR);
        if (n < 0) {
            return -1;
        }
    }
    int n;
    do {
        n = zmq_msg_send(frame, socket, ZMQ_DONTWAIT);
    } while (n < 0 && zmq_errno() == EINTR);
    return n;
}

mesh_link_sent mesh_link_sock_send(void *socket, const char *rid, zmq_msg_t *frame)
{
    if (try_send(socket, rid, frame) >= 0) {
        return MESH_LINK_SENT;
    }
    if (zmq_errno() == EAGAIN) {
        /* A send that does not wait may leave "there is room again" unread in the socket's mailbox: read it, try again.
         */
        (void)mesh_link_sock_readable(socket);
        if (try_send(socket, rid, frame) >= 0) {
            return MESH_LINK_SENT;
        }
    }
    return zmq_errno() == EAGAIN ? MESH_LINK_WAIT : MESH_LINK_GONE;
}

mesh_link_event mesh_link_sock_event(void *monitor)
{
    mesh_link_event event = MESH_LINK_NONE;
    zmq_msg_t part;
    zmq_msg_init(&part);
    uint16_t kind = 0;
    if (receive_part(monitor, &part) >= 0) {
        if (zmq_msg_size(&part) >= sizeof kind) {
            memcpy(&kind, zmq_msg_data(&part), sizeof kind);
        }
        if (zmq_msg_more(&part) != 0) {
            skip_parts(monitor);
        }
    }
    zmq_msg_close(&part);
    switch (kind) {
    case ZMQ_EVENT_HANDSHAKE_SUCCEEDED:
        event = MESH_LINK_CONNECTED;
        break;
    case ZMQ_EVENT_DISCONNECTED:
    case ZMQ_EVENT_CONNECT_RETRIED: /* "would be, in a day": nobody listens there now */
        event = MESH_LINK_DISCONNECTED;
        break;
    case ZMQ_EVENT_HANDSHAKE_FAILED_AUTH:
        event = MESH_LINK_REFUSED;
        break;
    default: /* also "monitor stopped", which is not ours to act on */
        break;
    }
    return event;
}
