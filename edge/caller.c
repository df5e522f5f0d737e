#include "edge/caller.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "mesh/alloc.h"

#define LINGER_READS 16 /* of 4 KiB at once */

enum { STAT_CALLERS, STAT_BAD_HEADS, STAT_REFUSED, STAT_TIMEOUTS, STAT_REPLIES, STAT_UPGRADES, STATS };

static const mesh_stat_info STAT_INFOS[STATS] = {
    [STAT_CALLERS] = { "parley_edge_callers", "Sockets that are not a WebSocket yet, or plain HTTP.", MESH_GAUGE,
                       NULL },
    [STAT_BAD_HEADS] = { "parley_edge_bad_heads_total", "Requests that are not HTTP/1.1.", MESH_COUNTER, NULL },
    [STAT_REFUSED] = { "parley_edge_refused_total", "Requests not answered with 200, 304 or 101.", MESH_COUNTER, NULL },
    [STAT_TIMEOUTS] = { "parley_edge_caller_timeouts_total", "Sockets closed: request or answer took too long.",
                        MESH_COUNTER, NULL },
    [STAT_REPLIES] = { "parley_edge_http_replies_total", "Plain HTTP answers.", MESH_COUNTER, NULL },
    [STAT_UPGRADES] = { "parley_edge_upgrades_total", "Sockets that became WebSockets.", MESH_COUNTER, NULL },
};

typedef enum caller_state { CALLER_HEAD, CALLER_REPLY, CALLER_LINGER } caller_state;

typedef struct caller {
    uv_poll_t poll;
    edge_callers *set;
    struct caller *prev;
    struct caller *next;
    edge_address *address;
    mesh_ms deadline;
    int fd;
    caller_state state;
    bool polling; /* the libuv handle exists */
    mesh_buf in;  /* an incomplete head */
    edge_http_reply reply;
    size_t sent;
} caller;

struct edge_callers {
    edge_caller_conf conf;
    caller *first;
    size_t count;
    size_t held; /* bytes in all callers' `in` */
    mesh_ms scan_at;
    bool draining;
    mesh_stats *stats;
};

static void on_event(uv_poll_t *poll, int status, int events);

static void forget_input(caller *c)
{
    c->set->held -= c->in.size;
    mesh_buf_fini(&c->in);
    mesh_buf_init(&c->in);
}

static void free_handle(uv_handle_t *handle)
{
    free(handle->data);
}

/* The caller is gone; its descriptor and address are whoever's asked for them. */
static void end(caller *c)
{
    edge_callers *set = c->set;
    forget_input(c);
    mesh_buf_fini(&c->reply.head);
    if (c->prev) {
        c->prev->next = c->next;
    } else {
        set->first = c->next;
    }
    if (c->next) {
        c->next->prev = c->prev;
    }
    set->count--;
    if (c->polling) {
        uv_close((uv_handle_t *)&c->poll, free_handle); /* forgets the descriptor at once; only the memory waits */
    } else {
        free(c);
    }
}

static void hang_up(caller *c)
{
    edge_callers *set = c->set;
    edge_address *address = c->address;
    int fd = c->fd;
    end(c);
    close(fd);
    set->conf.release(set->conf.release_arg, address);
}

/* Have on_event called; the caller is gone when libuv refuses. */
static void watch(caller *c, int events)
{
    if (!c->polling) {
        if (uv_poll_init(c->set->conf.uv, &c->poll, c->fd) != 0) {
            hang_up(c);
            return;
        }
        c->polling = true;
        c->poll.data = c;
    }
    if (uv_poll_start(&c->poll, events, on_event) != 0) {
        hang_up(c);
    }
}

static void move(caller *c, caller_state state, mesh_ms ms)
{
    c->state = state;
    c->deadline = mesh_clock_now().mono + ms;
}

/* Read and forget until the peer's end: closing with unread bytes would reset the connection and lose the answer. */
static void linger(caller *c)
{
    uint8_t waste[4096];
    for (int i = 0; i < LINGER_READS; i++) {
        ssize_t n = recv(c->fd, waste, sizeof waste, 0);
        if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
            break;
        }
        if (n <= 0) {
            hang_up(c);
            return;
        }
    }
    watch(c, UV_READABLE);
}

static ssize_t send_rest(const caller *c)
{
    mesh_slice parts[2] = { mesh_buf_slice(&c->reply.head), c->reply.body };
    struct iovec iov[2];
    struct msghdr msg = { .msg_iov = iov };
    size_t skip = c->sent;
    for (int i = 0; i < 2; i++) {
        size_t cut = skip < parts[i].size ? skip : parts[i].size;
        if (parts[i].size > cut) {
            iov[msg.msg_iovlen].iov_base = (void *)(uintptr_t)(parts[i].data + cut);
            iov[msg.msg_iovlen].iov_len = parts[i].size - cut;
            msg.msg_iovlen++;
        }
        skip -= cut;
    }
    return sendmsg(c->fd, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);
}

static void write_reply(caller *c)
{
    while (c->sent < c->reply.head.size + c->reply.body.size) {
        ssize_t n = send_rest(c);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0 && errno == EAGAIN) {
            watch(c, UV_WRITABLE);
            return;
        }
        if (n < 0) {
            hang_up(c);
            return;
        }
        c->sent += (size_t)n;
    }
    shutdown(c->fd, SHUT_WR);
    move(c, CALLER_LINGER, EDGE_CALLER_LINGER_MS);
    linger(c);
}

static void reply(caller *c, const edge_head *head, unsigned status)
{
    edge_callers *set = c->set;
    edge_http_asker asker = { .loopback = edge_address_loopback(c->address),
                              .draining = set->draining,
                              .metrics = set->conf.handler->metrics,
                              .arg = set->conf.handler_arg };
    edge_http_answer(set->conf.http, head, status, &asker, &c->reply);
    mesh_stats_add(set->stats, STAT_REPLIES, 1);
    if (status != 200) {
        mesh_stats_add(set->stats, STAT_REFUSED, 1);
    }
    forget_input(c); /* and with it what head borrows */
    move(c, CALLER_REPLY, EDGE_CALLER_REPLY_MS);
    write_reply(c);
}

static void hand_over(caller *c, const edge_head *head, mesh_slice rest)
{
    edge_callers *set = c->set;
    edge_session_id session;
    if (set->draining || set->conf.handler->open(set->conf.handler_arg, head, &session) != MESH_OK) {
        reply(c, head, 503);
        return;
    }
    mesh_buf request;
    mesh_buf_init(&request);
    edge_head_put_upgrade(head, &request);
    mesh_buf_put(&request, rest.data, rest.size);
    edge_codec_kind kind = head->kind;
    edge_address *address = c->address;
    int fd = c->fd;
    end(c); /* before libuv is shown the descriptor again */
    mesh_stats_add(set->stats, STAT_UPGRADES, 1);
    set->conf.handler->adopt(set->conf.handler_arg, session, kind, fd, address, mesh_buf_slice(&request));
    mesh_buf_fini(&request);
}

/* bytes: all that came from c so far, in c->in or not yet. */
static void decide(caller *c, mesh_slice bytes)
{
    edge_callers *set = c->set;
    edge_head head;
    size_t size;
    mesh_err err = edge_head_parse(bytes, &head, &size);
    if (err == MESH_AGAIN) {
        if (c->in.size == 0) {
            mesh_buf_put(&c->in, bytes.data, bytes.size);
            set->held += bytes.size;
        }
        if (set->held > EDGE_CALLER_HELD_MAX) {
            reply(c, NULL, 503);
        } else {
            watch(c, UV_READABLE);
        }
        return;
    }
    if (err != MESH_OK) {
        mesh_stats_add(set->stats, STAT_BAD_HEADS, 1);
        reply(c, NULL, err == MESH_TOO_BIG ? 431 : 400);
        return;
    }
    unsigned verdict = edge_head_judge(&head, set->conf.origins);
    if (verdict == 101) {
        hand_over(c, &head, (mesh_slice){ .data = bytes.data + size, .size = bytes.size - size });
    } else {
        reply(c, &head, verdict);
    }
}

static void read_head(caller *c)
{
    uint8_t piece[EDGE_HEAD_MAX];
    assert(c->in.size < EDGE_HEAD_MAX);
    ssize_t n = recv(c->fd, piece, EDGE_HEAD_MAX - c->in.size, 0);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
        watch(c, UV_READABLE);
    } else if (n <= 0) {
        hang_up(c);
    } else if (c->in.size == 0) {
        decide(c, (mesh_slice){ .data = piece, .size = (size_t)n });
    } else {
        mesh_buf_put(&c->in, piece, (size_t)n);
        c->set->held += (size_t)n;
        decide(c, mesh_buf_slice(&c->in));
    }
}

static void on_event(uv_poll_t *poll, int status, int events)
{
    (void)events;
    caller *c = poll->data;
    if (status < 0) {
        hang_up(c);
    } else if (c->state == CALLER_HEAD) {
        read_head(c);
    } else if (c->state == CALLER_REPLY) {
        write_reply(c);
    } else {
        linger(c);
    }
}

edge_callers *edge_callers_new(const edge_caller_conf *conf)
{
    edge_callers *set = mesh_alloc(sizeof *set);
    set->conf = *conf;
    set->scan_at = MESH_NEVER;
    set->stats = mesh_stats_new(STAT_INFOS, STATS);
    return set;
}

void edge_callers_destroy(edge_callers **callers_p)
{
    edge_callers *set = *callers_p;
    if (set) {
        while (set->first) {
            hang_up(set->first);
        }
        mesh_stats_destroy(&set->stats);
        free(set);
        *callers_p = NULL;
    }
}

void edge_callers_add(edge_callers *set, int fd, edge_address *address)
{
    caller *c = mesh_alloc(sizeof *c);
    c->set = set;
    c->fd = fd;
    c->address = address;
    mesh_buf_init(&c->in);
    move(c, CALLER_HEAD, EDGE_CALLER_HEAD_MS);
    c->next = set->first;
    if (c->next) {
        c->next->prev = c;
    }
    set->first = c;
    set->count++;
    if (set->scan_at == MESH_NEVER) {
        set->scan_at = mesh_clock_now().mono + EDGE_CALLER_SCAN_MS;
    }
    read_head(c); /* often it is there already, and no watcher is needed */
}

void edge_callers_drain(edge_callers *set)
{
    set->draining = true;
}

mesh_ms edge_callers_tick(edge_callers *set, mesh_ms now)
{
    if (now < set->scan_at) {
        return set->scan_at;
    }
    for (caller *c = set->first, *after; c; c = after) {
        after = c->next;
        if (now >= c->deadline) {
            mesh_stats_add(set->stats, STAT_TIMEOUTS, 1);
            hang_up(c);
        }
    }
    set->scan_at = set->first ? now + EDGE_CALLER_SCAN_MS : MESH_NEVER;
    return set->scan_at;
}

void edge_callers_print_stats(edge_callers *set, const char *node, mesh_buf *out)
{
    mesh_stats_set(set->stats, STAT_CALLERS, set->count);
    mesh_stats_print(set->stats, node, out);
}
