#include "tests/bench/driver.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#include "edge/token.h"
#include "mesh/alloc.h"
#include "mesh/clock.h"

#define READ_BYTES 65536
#define ADDRESSES 16 /* 127.0.0.2 and on */

struct driver {
    uint16_t port;
    int epoll, timer;
    driver_conn *conns;
    unsigned n, handshakes;
    driver_conn **dirty;
    size_t n_dirty;
    mesh_arena *arena;
    mesh_buf frame;
    const driver_handler *handler;
    void *arg;
    driver_counts counts;
    uint64_t swept_us;
};

static void give_up(const driver_conn *c, const char *what)
{
    fprintf(stderr, "bench: client %s: %s (%s)\n", c->user, what, strerror(errno));
    exit(1);
}

driver *driver_new(uint16_t port, mesh_slice key, const char *prefix, unsigned n)
{
    driver *d = mesh_alloc(sizeof *d);
    d->port = port;
    d->n = n;
    d->conns = mesh_alloc(n * sizeof *d->conns);
    d->dirty = mesh_alloc(n * sizeof(driver_conn *));
    d->arena = mesh_arena_new();
    d->epoll = epoll_create1(EPOLL_CLOEXEC);
    d->timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    struct epoll_event event = { .events = EPOLLIN, .data.ptr = NULL };
    epoll_ctl(d->epoll, EPOLL_CTL_ADD, d->timer, &event);
    for (unsigned i = 0; i < n; i++) {
        driver_conn *c = &d->conns[i];
        c->fd = -1;
        c->index = i;
        (void)snprintf(c->user, sizeof c->user, "%s%u", prefix, i);
        c->token = edge_token_make(key, c->user, NULL, NULL, (int64_t)time(NULL), 24 * 3600);
    }
    return d;
}

void driver_destroy(driver **d_p)
{
    driver *d = *d_p;
    for (unsigned i = 0; i < d->n; i++) {
        driver_conn *c = &d->conns[i];
        if (c->fd >= 0) {
            close(c->fd);
        }
        mesh_buf_fini(&c->in);
        mesh_buf_fini(&c->out);
        free(c->token);
    }
    close(d->epoll);
    close(d->timer);
    mesh_arena_destroy(&d->arena);
    mesh_buf_fini(&d->frame);
    free(d->conns);
    free(d->dirty);
    free(d);
    *d_p = NULL;
}

driver_conn *driver_get(driver *d, unsigned i)
{
    return &d->conns[i];
}

const driver_counts *driver_counted(const driver *d)
{
    return &d->counts;
}

/* ---- out ---- */

static void mark(driver *d, driver_conn *c)
{
    if (!c->dirty) {
        c->dirty = true;
        d->dirty[d->n_dirty++] = c;
    }
}

/* A whole binary message. The mask is zero: legal, and nothing has to be computed. */
static void put_websocket(mesh_buf *out, const mesh_buf *payload)
{
    uint8_t head[8] = { 0x82 };
    size_t n = payload->size, size = 2;
    if (n < 126) {
        head[1] = (uint8_t)(0x80 | n);
    } else {
        head[1] = 0x80 | 126;
        head[2] = (uint8_t)(n >> 8);
        head[3] = (uint8_t)n;
        size = 4;
    }
    mesh_buf_put(out, head, size);
    mesh_buf_put(out, "\0\0\0\0", 4);
    mesh_buf_put(out, payload->data, n);
}

uint64_t driver_request(driver *d, driver_conn *c, Client__Request *request)
{
    bool answered = request->body_case != CLIENT__REQUEST__BODY_ACK && request->body_case != CLIENT__REQUEST__BODY_PING;
    request->id = answered ? ++c->next_id : 0;
    size_t n = mesh_wire_size(request);
    uint8_t length[3] = { (uint8_t)(n | 0x80), (uint8_t)(n >> 7) };
    mesh_buf_clear(&d->frame);
    if (n < 128) {
        length[0] = (uint8_t)n;
        mesh_buf_put(&d->frame, length, 1);
    } else {
        mesh_buf_put(&d->frame, length, 2); /* our requests are below 16 KiB */
    }
    mesh_wire_pack(request, &d->frame);
    put_websocket(&c->out, &d->frame);
    mark(d, c);
    return request->id;
}

static uint64_t put_send(driver *d, driver_conn *c, const char *id, const char *chat, const char *to, const char *body)
{
    static char none[] = "";
    Client__Send send = CLIENT__SEND__INIT;
    send.chat = chat != NULL ? (char *)(uintptr_t)chat : none;
    send.to = to != NULL ? (char *)(uintptr_t)to : none;
    send.client_msg_id = (char *)(uintptr_t)id;
    send.body = (char *)(uintptr_t)body;
    Client__Request request = CLIENT__REQUEST__INIT;
    request.body_case = CLIENT__REQUEST__BODY_SEND;
    request.send = &send;
    return driver_request(d, c, &request);
}

uint64_t driver_send(driver *d, driver_conn *c, const char *chat, const char *to, const char *body)
{
    char id[40];
    (void)snprintf(id, sizeof id, "%016llx%016llx", (unsigned long long)c->era, (unsigned long long)c->next_id);
    return put_send(d, c, id, chat, to, body);
}

uint64_t driver_send_as(driver *d, driver_conn *c, const char *client_msg_id, const char *to, const char *body)
{
    return put_send(d, c, client_msg_id, NULL, to, body);
}

static void put_ack(driver *d, driver_conn *c)
{
    Client__Ack ack = CLIENT__ACK__INIT;
    ack.inbox_seq = c->cursor;
    Client__Request request = CLIENT__REQUEST__INIT;
    request.body_case = CLIENT__REQUEST__BODY_ACK;
    request.ack = &ack;
    driver_request(d, c, &request);
    c->acked = c->cursor;
    c->waiting_us = 0;
    d->counts.acks++;
}

static void put_hello(driver *d, driver_conn *c)
{
    Client__Hello hello = CLIENT__HELLO__INIT;
    hello.token = c->token;
    hello.device = "bench";
    Client__Request request = CLIENT__REQUEST__INIT;
    request.body_case = CLIENT__REQUEST__BODY_HELLO;
    request.hello = &hello;
    driver_request(d, c, &request);
}

static void put_ping(driver *d, driver_conn *c)
{
    Client__Ping ping = CLIENT__PING__INIT;
    Client__Request request = CLIENT__REQUEST__INIT;
    request.body_case = CLIENT__REQUEST__BODY_PING;
    request.ping = &ping;
    driver_request(d, c, &request);
}

static void watch(driver *d, driver_conn *c, int op, uint32_t events)
{
    struct epoll_event event = { .events = events, .data.ptr = c };
    if (epoll_ctl(d->epoll, op, c->fd, &event) != 0) {
        give_up(c, "epoll_ctl");
    }
}

static void flush(driver *d)
{
    for (size_t i = 0; i < d->n_dirty; i++) {
        driver_conn *c = d->dirty[i];
        c->dirty = false;
        ssize_t n = send(c->fd, c->out.data, c->out.size, MSG_NOSIGNAL);
        if (n < 0 && errno != EAGAIN) {
            give_up(c, "send");
        }
        mesh_buf_shift(&c->out, n > 0 ? (size_t)n : 0);
        if (c->out.size > 0) {
            watch(d, c, EPOLL_CTL_MOD, EPOLLIN | EPOLLOUT);
        }
    }
    d->n_dirty = 0;
}

/* ---- in ---- */

static void on_message(driver *d, driver_conn *c, const Client__Message *message, uint64_t now)
{
    if (message->inbox_seq != c->cursor + 1) {
        give_up(c, "an inbox entry is missing or came twice");
    }
    c->cursor = message->inbox_seq;
    c->waiting_us = c->waiting_us != 0 ? c->waiting_us : now;
    d->counts.messages++;
    if (d->handler != NULL && d->handler->message != NULL) {
        d->handler->message(d->arg, c, message, now);
    }
    if (c->cursor - c->acked >= DRIVER_ACK_ENTRIES) {
        put_ack(d, c);
    }
}

static void on_error(driver *d, driver_conn *c, const Client__Event *event)
{
    const Client__Error *error = event->error;
    d->counts.errors++;
    if (d->handler != NULL && d->handler->fault != NULL) {
        d->handler->fault(d->arg, c, event->id, error);
        return;
    }
    fprintf(stderr, "bench: client %s: error %u %s %s\n", c->user, error->code, error->name, error->message);
    if (d->counts.errors > 20) {
        exit(1);
    }
}

static void on_event(driver *d, driver_conn *c, const Client__Event *event, uint64_t now)
{
    switch (event->body_case) {
    case CLIENT__EVENT__BODY_MESSAGE:
        on_message(d, c, event->message, now);
        break;
    case CLIENT__EVENT__BODY_ACK:
        d->counts.sent++;
        if (d->handler != NULL && d->handler->sent != NULL) {
            d->handler->sent(d->arg, c, event->id, event->ack);
        }
        break;
    case CLIENT__EVENT__BODY_RESYNC:
        c->cursor = event->resync->inbox_seq;
        c->acked = c->cursor;
        c->era = event->resync->era;
        break;
    case CLIENT__EVENT__BODY_LIVE:
        if (c->state != DRIVER_LIVE) {
            c->state = DRIVER_LIVE;
            d->handshakes--;
            d->counts.live++;
            if (d->handler != NULL && d->handler->live != NULL) {
                d->handler->live(d->arg, c);
            }
        }
        break;
    case CLIENT__EVENT__BODY_ERROR:
        on_error(d, c, event);
        break;
    default:
        break;
    }
}

static void on_events(driver *d, driver_conn *c, mesh_slice rest, uint64_t now)
{
    while (rest.size > 0) {
        size_t n = 0, at = 0;
        do {
            n |= (size_t)(rest.data[at] & 0x7f) << (7 * at);
        } while ((rest.data[at++] & 0x80) != 0 && at < rest.size && at < 4);
        ProtobufCMessage *event;
        mesh_arena_reset(d->arena);
        if (n > rest.size - at || mesh_wire_unpack(&client__event__descriptor, (mesh_slice){ rest.data + at, n },
                                                   d->arena, &event) != MESH_OK) {
            give_up(c, "an event that cannot be read");
        }
        on_event(d, c, (const Client__Event *)event, now);
        rest.data += at + n;
        rest.size -= at + n;
    }
}

/* WebSocket messages of a server: not masked, not fragmented by parley. */
static size_t on_frames(driver *d, driver_conn *c, uint64_t now)
{
    size_t at = 0;
    for (;;) {
        const uint8_t *p = c->in.data + at;
        size_t room = c->in.size - at, head = 2;
        if (room < 2) {
            return at;
        }
        size_t n = p[1] & 0x7f;
        if (n == 126) {
            head = 4;
            n = room < 4 ? SIZE_MAX : (size_t)(p[2] << 8 | p[3]);
        } else if (n == 127) {
            head = 10;
            n = room < 10 ? SIZE_MAX : (size_t)mesh_get_u64be(p + 2);
        }
        if (room < head || n > room - head) {
            return at;
        }
        if ((p[0] & 0x0f) == 0x08) {
            errno = 0;
            give_up(c, "the edge has closed the connection");
        }
        if ((p[0] & 0x0f) == 0x02) {
            on_events(d, c, (mesh_slice){ p + head, n }, now);
        }
        at += head + n;
    }
}

static void on_readable(driver *d, driver_conn *c, uint64_t now)
{
    uint8_t *p = mesh_buf_grow(&c->in, READ_BYTES);
    ssize_t got = recv(c->fd, p, READ_BYTES, 0);
    c->in.size -= READ_BYTES - (size_t)(got > 0 ? got : 0);
    if (got == 0 || (got < 0 && errno != EAGAIN)) {
        give_up(c, "the connection is gone");
    }
    if (c->state == DRIVER_UPGRADING) {
        const uint8_t *end = memmem(c->in.data, c->in.size, "\r\n\r\n", 4);
        if (end == NULL) {
            return;
        }
        if (strncmp((const char *)c->in.data, "HTTP/1.1 101", 12) != 0) {
            give_up(c, "the upgrade was refused");
        }
        mesh_buf_shift(&c->in, (size_t)(end + 4 - c->in.data));
        c->state = DRIVER_HELLO;
        put_hello(d, c);
    }
    mesh_buf_shift(&c->in, on_frames(d, c, now));
    if (c->in.size == 0 && c->in.cap >= READ_BYTES && d->n > 2000) {
        mesh_buf_fini(&c->in); /* thousands of clients: their buffers would not fit */
        mesh_buf_init(&c->in);
    }
}

static void on_writable(driver *d, driver_conn *c)
{
    if (c->state == DRIVER_CONNECTING_TCP) {
        static const char upgrade[] = "GET /v1/ws HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\n"
                                      "Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
                                      "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: parley.v1.protobuf\r\n\r\n";
        int error = 0;
        socklen_t size = sizeof error;
        getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &size);
        errno = error;
        if (error != 0) {
            give_up(c, "connect");
        }
        mesh_buf_puts(&c->out, upgrade);
        c->state = DRIVER_UPGRADING;
    }
    watch(d, c, EPOLL_CTL_MOD, EPOLLIN);
    mark(d, c);
}

static void dial(driver *d, driver_conn *c)
{
    struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons(d->port) };
    struct sockaddr_in from = { .sin_family = AF_INET };
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    from.sin_addr.s_addr = htonl(INADDR_LOOPBACK + 1 + c->index % ADDRESSES);
    int yes = 1;
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (c->fd < 0 || setsockopt(c->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &yes, sizeof yes) != 0 ||
        setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes) != 0 ||
        bind(c->fd, (struct sockaddr *)&from, sizeof from) != 0 ||
        (connect(c->fd, (struct sockaddr *)&to, sizeof to) != 0 && errno != EINPROGRESS)) {
        give_up(c, "connect");
    }
    c->state = DRIVER_CONNECTING_TCP;
    d->handshakes++;
    watch(d, c, EPOLL_CTL_ADD, EPOLLOUT);
}

/* ---- the loop ---- */

static void sweep_acks(driver *d, uint64_t now)
{
    if (now - d->swept_us < DRIVER_ACK_US / 5) {
        return;
    }
    d->swept_us = now;
    for (unsigned i = 0; i < d->n; i++) {
        driver_conn *c = &d->conns[i];
        if (c->waiting_us != 0 && now - c->waiting_us >= DRIVER_ACK_US) {
            put_ack(d, c);
        }
    }
}

static void round_of_events(driver *d, int timeout_ms)
{
    struct epoll_event ready[512];
    flush(d);
    int n = epoll_wait(d->epoll, ready, 512, timeout_ms);
    uint64_t now = mesh_clock_us();
    for (int i = 0; i < n; i++) {
        driver_conn *c = ready[i].data.ptr;
        if (c == NULL) {
            uint64_t ticks;
            ssize_t got = read(d->timer, &ticks, sizeof ticks);
            (void)got;
            continue;
        }
        if ((ready[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR)) != 0 && c->state >= DRIVER_UPGRADING) {
            on_readable(d, c, now);
        }
        if ((ready[i].events & (EPOLLOUT | EPOLLERR)) != 0) {
            on_writable(d, c);
        }
    }
    sweep_acks(d, now);
}

double driver_connect(driver *d, unsigned from, unsigned to)
{
    uint64_t begin = mesh_clock_us();
    uint64_t goal = d->counts.live + (to - from);
    unsigned next = from;
    d->handler = NULL;
    while (d->counts.live < goal) {
        while (next < to && d->handshakes < DRIVER_CONNECTING) {
            dial(d, &d->conns[next++]);
        }
        round_of_events(d, 100);
        if (mesh_clock_us() - begin > 60u * 1000000) {
            fprintf(stderr, "bench: only %llu of %llu clients are live after a minute\n",
                    (unsigned long long)d->counts.live, (unsigned long long)goal);
            exit(1);
        }
    }
    return (double)(mesh_clock_us() - begin) / 1e6;
}

void driver_run(driver *d, const driver_handler *handler, void *arg, uint64_t until_us, unsigned tick_us)
{
    struct itimerspec every = { { 0, (long)tick_us * 1000 }, { 0, (long)tick_us * 1000 } };
    timerfd_settime(d->timer, 0, &every, NULL);
    d->handler = handler;
    d->arg = arg;
    bool more = true;
    for (uint64_t now = mesh_clock_us(); more && now < until_us; now = mesh_clock_us()) {
        round_of_events(d, 10);
        more = handler->turn == NULL || handler->turn(arg, mesh_clock_us());
    }
    flush(d);
    every = (struct itimerspec){ 0 };
    timerfd_settime(d->timer, 0, &every, NULL);
    d->handler = NULL;
}

void driver_rest(driver *d, double seconds, unsigned heartbeat_ms)
{
    uint64_t begin = mesh_clock_us(), done = 0;
    double per_us = (double)d->n / (heartbeat_ms * 1e3);
    for (uint64_t t = 0; (double)t < seconds * 1e6; t = mesh_clock_us() - begin) {
        for (; (double)done < (double)t * per_us; done++) {
            put_ping(d, &d->conns[done % d->n]);
        }
        round_of_events(d, 10);
    }
}
