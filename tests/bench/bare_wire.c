/* Records and sockets of the bare parts. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zmq.h>

#include "tests/bench/bare.h"

/* Bytes of each kind as the system has them for a body of 64 bytes, measured from its encodings. An APPEND has no
 * counterpart where chat and inboxes are of one shard: its size makes the bytes in the database the same. */
static const uint32_t sizes[BARE_KINDS] = {
    [BARE_SEND] = 119,      [BARE_SENT] = 105,      [BARE_MESSAGE] = 184, [BARE_ACK] = 16,
    [BARE_MESH_SEND] = 252, [BARE_MESH_SENT] = 132, [BARE_DELIVER] = 258, [BARE_APPEND] = 28,
    [BARE_APPENDED] = 44,   [BARE_DELIVERED] = 24,  [BARE_LIVE] = 224,    [BARE_MESH_ACK] = 80,
};

void bare_check(int ok, const char *what)
{
    if (!ok) {
        fprintf(stderr, "bare: %s: %s\n", what, errno != 0 ? zmq_strerror(errno) : "failed");
        exit(1);
    }
}

const char *bare_filler(void)
{
    static char filler[4096];
    if (filler[0] == '\0') {
        uint64_t x = 88172645463325252u;
        for (size_t i = 0; i < sizeof filler; i++) {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            filler[i] = (char)('a' + x % 26);
        }
    }
    return filler;
}

void bare_put(mesh_buf *out, bare_kind kind, uint32_t pair, uint32_t n)
{
    bare_record head = { sizes[kind], kind, pair, n };
    uint8_t *p = mesh_buf_grow(out, head.size);
    memcpy(p, &head, sizeof head);
    memcpy(p + sizeof head, bare_filler() + (pair * 64 + n) % 2048, head.size - sizeof head);
}

const bare_record *bare_next(const mesh_buf *bytes, size_t *at)
{
    bare_record head;
    if (bytes->size - *at < sizeof head) {
        return NULL;
    }
    memcpy(&head, bytes->data + *at, sizeof head);
    if (bytes->size - *at < head.size) {
        return NULL;
    }
    static bare_record copy; /* records are not aligned */
    copy = head;
    *at += head.size;
    return &copy;
}

static void set_common(void *socket)
{
    int hwm = 256, linger = 0;
    bare_check(zmq_setsockopt(socket, ZMQ_SNDHWM, &hwm, sizeof hwm) == 0, "ZMQ_SNDHWM");
    bare_check(zmq_setsockopt(socket, ZMQ_RCVHWM, &hwm, sizeof hwm) == 0, "ZMQ_RCVHWM");
    bare_check(zmq_setsockopt(socket, ZMQ_LINGER, &linger, sizeof linger) == 0, "ZMQ_LINGER");
}

void *bare_listen(void *context, const char *endpoint, const bare_keys *keys)
{
    void *socket = zmq_socket(context, ZMQ_ROUTER);
    bare_check(socket != NULL, "ROUTER");
    set_common(socket);
    int yes = 1;
    bare_check(zmq_setsockopt(socket, ZMQ_ROUTER_MANDATORY, &yes, sizeof yes) == 0, "ZMQ_ROUTER_MANDATORY");
    bare_check(zmq_setsockopt(socket, ZMQ_CURVE_SERVER, &yes, sizeof yes) == 0, "ZMQ_CURVE_SERVER");
    bare_check(zmq_setsockopt(socket, ZMQ_CURVE_SECRETKEY, keys->secret_key, 41) == 0, "ZMQ_CURVE_SECRETKEY");
    bare_check(zmq_bind(socket, endpoint) == 0, endpoint);
    return socket;
}

void *bare_dial(void *context, const char *endpoint, const bare_keys *to, const bare_keys *own, const char *name)
{
    void *socket = zmq_socket(context, ZMQ_DEALER);
    bare_check(socket != NULL, "DEALER");
    set_common(socket);
    bare_check(zmq_setsockopt(socket, ZMQ_ROUTING_ID, name, strlen(name)) == 0, "ZMQ_ROUTING_ID");
    bare_check(zmq_setsockopt(socket, ZMQ_CURVE_SERVERKEY, to->public_key, 41) == 0, "ZMQ_CURVE_SERVERKEY");
    bare_check(zmq_setsockopt(socket, ZMQ_CURVE_PUBLICKEY, own->public_key, 41) == 0, "ZMQ_CURVE_PUBLICKEY");
    bare_check(zmq_setsockopt(socket, ZMQ_CURVE_SECRETKEY, own->secret_key, 41) == 0, "ZMQ_CURVE_SECRETKEY");
    bare_check(zmq_connect(socket, endpoint) == 0, endpoint);
    return socket;
}

void bare_send(void *socket, const char *to, mesh_buf *frame)
{
    if (to != NULL) {
        bare_check(zmq_send(socket, to, strlen(to), ZMQ_SNDMORE) >= 0, "send");
    }
    bare_check(zmq_send(socket, frame->data, frame->size, 0) >= 0, "send");
    mesh_buf_clear(frame);
}

int bare_receive(void *socket, char *from, mesh_buf *frame)
{
    zmq_msg_t part;
    zmq_msg_init(&part);
    if (zmq_msg_recv(&part, socket, ZMQ_DONTWAIT) < 0) {
        bare_check(errno == EAGAIN || errno == EINTR, "receive");
        zmq_msg_close(&part);
        return 0;
    }
    if (from != NULL) {
        size_t n = zmq_msg_size(&part);
        bare_check(n < 8, "a sender's name");
        memcpy(from, zmq_msg_data(&part), n);
        from[n] = '\0';
        bare_check(zmq_msg_recv(&part, socket, ZMQ_DONTWAIT) >= 0, "receive");
    }
    mesh_buf_clear(frame);
    mesh_buf_put(frame, zmq_msg_data(&part), zmq_msg_size(&part));
    zmq_msg_close(&part);
    return 1;
}
