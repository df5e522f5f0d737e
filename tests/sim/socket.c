/* tests/sim/socket.c: the WebSockets between clients and edges, and the edge's shell around them (what edge/ws.c does).
 * Messages arrive whole, in order, with latency. A dead edge closes its sockets a little later, and what was on its way
 * is partly lost. A socket that its client has let go of silently stays open at the edge. */
#include "tests/sim/impl.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

enum { OPEN = 1, BYTES, CLOSE };
#define FLUSH_MAX 100000 /* writes of one turn: more means that the core never runs dry */

static void arrive_up(sim *s, void *arg, uint64_t tag)
{
    sim_socket *k = arg;
    (void)tag;
    for (sim_item *item; (item = sim_pipe_take(s, &k->up)) != NULL; sim_item_free(item)) {
        if (!k->edge->alive || k->edge->boot != k->edge_boot) {
            continue;
        }
        sim_input *in = sim_node_input(k->edge, item->kind == OPEN    ? IN_OPEN
                                                : item->kind == BYTES ? IN_BYTES
                                                                      : IN_CLOSED);
        in->socket = k;
        in->bytes = item->bytes;
        item->bytes = (mesh_buf){ 0 };
    }
}

static void arrive_down(sim *s, void *arg, uint64_t tag)
{
    sim_socket *k = arg;
    (void)tag;
    for (sim_item *item; (item = sim_pipe_take(s, &k->down)) != NULL; sim_item_free(item)) {
        if (!k->client) {
            continue;
        }
        if (item->kind == BYTES) {
            sim_client_event(k->client, mesh_buf_slice(&item->bytes));
        } else {
            sim_client *c = k->client;
            k->client = NULL;
            sim_client_cut(c, (uint16_t)item->span);
        }
    }
}

sim_socket *sim_socket_open(sim_client *c, sim_node *edge)
{
    sim *s = c->s;
    sim_socket *k = mesh_alloc(sizeof *k);
    *k = (sim_socket){
        .s = s, .client = c, .edge = edge, .edge_boot = edge->boot, .codec = c->codec, .next = s->sockets
    };
    s->sockets = k;
    sim_pipe_init(&k->up);
    sim_pipe_init(&k->down);
    sim_pipe_put(s, &k->up, OPEN, sim_latency(s), arrive_up, k, 0);
    return k;
}

void sim_socket_say(sim_socket *k, mesh_slice bytes)
{
    sim_item *item = sim_pipe_put(k->s, &k->up, BYTES, sim_latency(k->s), arrive_up, k, 0);
    mesh_buf_put(&item->bytes, bytes.data, bytes.size);
}

void sim_socket_close(sim_socket *k)
{
    k->client = NULL;
    sim_pipe_put(k->s, &k->up, CLOSE, sim_latency(k->s), arrive_up, k, 0);
}

void sim_sockets_of_dead(sim_node *edge)
{
    sim *s = edge->s;
    for (sim_socket *k = s->sockets; k; k = k->next) {
        if (k->edge == edge && k->client) {
            k->opened = false;
            sim_pipe_lose_tail(s, &k->down);
            sim_pipe_put(s, &k->down, CLOSE, sim_between(s, 500, 50000), arrive_down, k, 0);
        }
    }
}

void sim_sockets_fini(sim *s)
{
    while (s->sockets) {
        sim_socket *k = s->sockets;
        s->sockets = k->next;
        sim_pipe_clear(&k->up);
        sim_pipe_clear(&k->down);
        mesh_buf_fini(&k->part);
        free(k);
    }
}

/* ---- at the edge ---- */

static void close_down(sim_socket *k, uint16_t code)
{
    k->opened = false;
    sim_item *item = sim_pipe_put(k->s, &k->down, CLOSE, sim_latency(k->s), arrive_down, k, 0);
    item->span = code;
}

static void write_one(sim_node *edge, sim_socket *k, mesh_time now);

void sim_socket_input(sim_node *edge, sim_input *in, mesh_time now)
{
    sim_socket *k = in->socket;
    switch (in->kind) {
    case IN_OPEN:
        if (edge_core_open(edge->edge, k->codec, NULL, now, &k->session) == MESH_OK) {
            k->opened = true;
        } else {
            close_down(k, 4100);
        }
        break;
    case IN_BYTES:
        if (k->opened) {
            edge_core_input(edge->edge, k->session, mesh_buf_slice(&in->bytes), now, edge->out);
        }
        break;
    case IN_CLOSED:
        if (k->opened) {
            k->opened = false;
            edge_core_closed(edge->edge, k->session, now, edge->out);
        }
        break;
    case IN_WRITABLE:
        if (k->opened && k->blocked && k->stalled_until <= edge->s->now) {
            k->blocked = false;
            write_one(edge, k, now);
        }
        break;
    default:
        assert(!"not a socket's input");
    }
}

static sim_socket *find(sim_node *edge, edge_session_id session)
{
    for (sim_socket *k = edge->s->sockets; k; k = k->next) {
        if (k->edge == edge && k->opened && k->edge_boot == edge->boot && k->session == session) {
            return k;
        }
    }
    return NULL;
}

/* One write of the shell: all that is shown, or now and then only a piece of it. */
static void write_one(sim_node *edge, sim_socket *k, mesh_time now)
{
    sim *s = edge->s;
    uint16_t code = 0;
    const char *reason = NULL;
    mesh_slice bytes = edge_core_pending(edge->edge, k->session, &code, &reason);
    size_t n = bytes.size > 1 && sim_random(s, 10) == 0 ? 1 + sim_random(s, bytes.size) : bytes.size;
    if (n) {
        mesh_buf_put(&k->part, bytes.data, n);
        sim_mix(s, k->edge->self, n);
        edge_core_wrote(edge->edge, k->session, n, now, edge->out);
    }
    if (n == bytes.size && k->part.size) {
        sim_item *item = sim_pipe_put(s, &k->down, BYTES, sim_latency(s), arrive_down, k, 0);
        item->bytes = k->part;
        k->part = (mesh_buf){ 0 };
    }
    if (code && n == bytes.size) {
        close_down(k, code);
        edge_core_closed(edge->edge, k->session, now, edge->out);
    }
}

void sim_socket_flush(sim_node *edge, mesh_time now)
{
    sim *s = edge->s;
    edge_session_id id;
    unsigned writes = 0;
    while (edge_core_next_ready(edge->edge, &id)) {
        sim_socket *k = find(edge, id);
        if (++writes > FLUSH_MAX || !k) {
            sim_complain(s, "%s %s", edge->name, k ? "is ready for ever" : "is ready for a socket that is closed");
            return;
        }
        if (k->stalled_until > s->now) {
            k->blocked = true;
        } else {
            write_one(edge, k, now);
        }
    }
}

static void writable(sim *s, void *arg, uint64_t tag)
{
    sim_socket *k = arg;
    (void)s;
    (void)tag;
    if (k->opened && k->edge->alive && k->edge->boot == k->edge_boot) {
        sim_node_input(k->edge, IN_WRITABLE)->socket = k;
    }
}

void sim_stall(sim_client *c, mesh_ms ms)
{
    sim *s = c->s;
    if (c->socket) {
        sim_trace(s, "%s: does not read for %lld ms", c->name, (long long)ms);
        c->socket->stalled_until = s->now + ms * 1000;
        sim_at(s, c->socket->stalled_until, writable, c->socket, 0);
    }
}
