/* mesh/link.c: what happens to a link in one turn.
 *
 *   receive: connection events -> frames of every socket, at most LINK_DRAIN_FRAMES each -> each frame unpacked whole
 *            -> node messages are answered here, the rest goes to the owner
 *   tick:    what broke goes down, who is due is pinged or said hello to, queues are tried again
 *   send:    the owner's frames, straight to zmq; what it does not take waits (link_queue.c)
 *
 * A frame counts only when all of it can be read. It is delivered only when its sender is up (link_peer.c), and over
 * CURVE only when the key of the connection it came over belongs to the name it uses. */
#include "mesh/link.h"

#include <assert.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "mesh/alloc.h"
#include "mesh/link_priv.h"
#include "mesh/log.h"
#include "mesh/version.h"

static const mesh_stat_info stat_infos[LINK_STATS] = {
    [LINK_STAT_FRAMES_IN] = { "parley_link_frames_total", "Frames over node links.", MESH_COUNTER, "way=\"in\"" },
    [LINK_STAT_FRAMES_OUT] = { "parley_link_frames_total", "Frames over node links.", MESH_COUNTER, "way=\"out\"" },
    [LINK_STAT_MSGS_IN] = { "parley_link_messages_total", "Messages over node links.", MESH_COUNTER, "way=\"in\"" },
    [LINK_STAT_MSGS_OUT] = { "parley_link_messages_total", "Messages over node links.", MESH_COUNTER, "way=\"out\"" },
    [LINK_STAT_BYTES_IN] = { "parley_link_bytes_total", "Bytes over node links.", MESH_COUNTER, "way=\"in\"" },
    [LINK_STAT_BYTES_OUT] = { "parley_link_bytes_total", "Bytes over node links.", MESH_COUNTER, "way=\"out\"" },
    [LINK_STAT_MALFORMED] = { "parley_link_malformed_total", "Frames that could not be read, dropped whole.",
                              MESH_COUNTER, NULL },
    [LINK_STAT_REFUSED_KEY] = { "parley_link_refused_total", "Nodes that were not let in.", MESH_COUNTER,
                                "reason=\"key\"" },
    [LINK_STAT_REFUSED_NAME] = { "parley_link_refused_total", "Nodes that were not let in.", MESH_COUNTER,
                                 "reason=\"name\"" },
    [LINK_STAT_REFUSED_CLUSTER] = { "parley_link_refused_total", "Nodes that were not let in.", MESH_COUNTER,
                                    "reason=\"cluster\"" },
    [LINK_STAT_REFUSED_VERSION] = { "parley_link_refused_total", "Nodes that were not let in.", MESH_COUNTER,
                                    "reason=\"version\"" },
    [LINK_STAT_REFUSED_LATE] = { "parley_link_refused_total", "Nodes that were not let in.", MESH_COUNTER,
                                 "reason=\"late\"" },
    [LINK_STAT_DENIED] = { "parley_link_denied_total", "Messages that are not the sender's to send.", MESH_COUNTER,
                           NULL },
    [LINK_STAT_DROPPED_IN] = { "parley_link_dropped_total", "Messages from, frames to a peer that was not up.",
                               MESH_COUNTER, "way=\"in\"" },
    [LINK_STAT_DROPPED_OUT] = { "parley_link_dropped_total", "Messages from, frames to a peer that was not up.",
                                MESH_COUNTER, "way=\"out\"" },
    [LINK_STAT_WAITED] = { "parley_link_waited_total", "Frames zmq did not take at once.", MESH_COUNTER, NULL },
    [LINK_STAT_OVERFLOWS] = { "parley_link_overflows_total", "Peers given up because their queue was full.",
                              MESH_COUNTER, NULL },
    [LINK_STAT_UPS] = { "parley_link_ups_total", "Times a peer came up.", MESH_COUNTER, NULL },
    [LINK_STAT_DOWNS] = { "parley_link_downs_total", "Times a peer went down.", MESH_COUNTER, NULL },
    [LINK_STAT_PEERS_UP] = { "parley_link_peers_up", "Peers that are up.", MESH_GAUGE, NULL },
};

/* ---- receive ---- */

static void take_events(mesh_link *link, mesh_link_peer *peer, mesh_time now)
{
    mesh_link_event event;
    while ((event = mesh_link_sock_event(peer->monitor)) != MESH_LINK_NONE) {
        switch (event) {
        case MESH_LINK_CONNECTED:
            peer->connected = true;
            peer->next_hello = now.mono;
            break;
        case MESH_LINK_REFUSED:
            mesh_log(MESH_WARN, "key_refused_by", "peer=%s", peer->node->name);
            break;
        case MESH_LINK_DISCONNECTED:
            /* or could not connect: frames that came before are still read, then the tick makes a fresh socket */
            peer->broken = true;
            link->urgent = true;
            break;
        case MESH_LINK_NONE:
        default:
            break;
        }
    }
}

/* Unpack every message of a frame before any is looked at. Returns their number, or -1. */
static long unpack_frame(mesh_link *link, mesh_slice bytes)
{
    mesh_arena_reset(link->arena);
    mesh_frame_reader reader;
    if (mesh_frame_open(&reader, bytes) != MESH_OK) {
        return -1;
    }
    for (size_t n = 0;; n++) {
        if (n == link->inbox_cap) {
            link->inbox_cap = link->inbox_cap == 0 ? 64 : 2 * link->inbox_cap;
            link->inbox = mesh_realloc(link->inbox, link->inbox_cap * sizeof *link->inbox);
        }
        mesh_err err = mesh_frame_next(&reader, link->arena, &link->inbox[n].msg, &link->inbox[n].packed);
        if (err == MESH_AGAIN) {
            return (long)n;
        }
        if (err != MESH_OK || n == LINK_FRAME_MSGS) {
            return -1;
        }
    }
}

static void answer_stats(mesh_link *link, mesh_link_peer *peer, const Mesh__Msg *ask)
{
    mesh_buf text = { 0 };
    if (link->handler.stats != NULL) {
        link->handler.stats(link->arg, &text);
    }
    if (text.size > MESH_MSG_MAX / 2) { /* cut at a line, so that it stays readable */
        text.size = MESH_MSG_MAX / 2;
        while (text.size > 0 && text.data[text.size - 1] != '\n') {
            text.size--;
        }
    }
    mesh_buf_put(&text, "", 1);
    Mesh__StatsText answer = MESH__STATS_TEXT__INIT;
    answer.text = (char *)text.data;
    MESH_MSG(msg, STATS_TEXT, stats_text, &answer);
    msg.corr = ask->corr;
    mesh_link_peer_say(link, peer, &msg);
    mesh_buf_fini(&text);
}

/* Messages between links. False: it is the owner's. */
static bool node_message(mesh_link *link, mesh_link_peer *peer, const Mesh__Msg *msg)
{
    switch (msg->body_case) {
    case MESH__MSG__BODY_NODE_PING: {
        Mesh__NodePong pong = MESH__NODE_PONG__INIT;
        pong.n = msg->node_ping->n;
        MESH_MSG(answer, NODE_PONG, node_pong, &pong);
        mesh_link_peer_say(link, peer, &answer);
        return true;
    }
    case MESH__MSG__BODY_NODE_PONG: /* that it came is all it says */
        return true;
    case MESH__MSG__BODY_STATS:
        answer_stats(link, peer, msg);
        return true;
    default:
        return false;
    }
}

/* A backup is made with the operator's key. */
static bool copies_state(const mesh_link *link, const Mesh__Msg *msg)
{
    return link->node->role == MESH_STORE &&
           (msg->body_case == MESH__MSG__BODY_STATE_ASK || msg->body_case == MESH__MSG__BODY_STATE_DONE);
}

/* An operator orders, copies a store's rows and nothing else, and nobody else orders but a router, which hands orders
 * on to edges. */
static bool may_say(const mesh_link *link, const mesh_link_peer *peer, const Mesh__Msg *msg)
{
    bool order = msg->body_case == MESH__MSG__BODY_OPERATE || msg->body_case == MESH__MSG__BODY_SLOT_MOVE;
    if (peer->node->role == MESH_OPERATOR) {
        return order || copies_state(link, msg);
    }
    return !order || (peer->node->role == MESH_ROUTER && link->node->role == MESH_EDGE);
}

/* peer: who it is from, when that is known already. rid: the identity it came from; NULL from a dialed peer. */
static void take_frame(mesh_link *link, mesh_link_peer *peer, const char *rid, const char *user, mesh_slice bytes,
                       mesh_time now)
{
    mesh_link_peer *dialed = rid == NULL ? peer : NULL;
    mesh_stats_add(link->stats, LINK_STAT_FRAMES_IN, 1);
    mesh_stats_add(link->stats, LINK_STAT_BYTES_IN, bytes.size);
    long n = unpack_frame(link, bytes);
    if (n < 0) {
        mesh_stats_add(link->stats, LINK_STAT_MALFORMED, 1);
        return;
    }
    mesh_stats_add(link->stats, LINK_STAT_MSGS_IN, (uint64_t)n);
    for (long i = 0; i < n; i++) {
        const Mesh__Msg *msg = link->inbox[i].msg;
        if (msg->body_case == MESH__MSG__BODY_NODE_HELLO) {
            peer = mesh_link_peer_heard_hello(link, dialed, rid, user, msg->node_hello, now);
            continue;
        }
        if (peer == NULL || peer->state != LINK_UP) {
            mesh_stats_add(link->stats, LINK_STAT_DROPPED_IN, 1);
            continue;
        }
        peer->heard = now.mono;
        if (node_message(link, peer, msg)) {
            continue;
        }
        if (!may_say(link, peer, msg)) {
            mesh_stats_add(link->stats, LINK_STAT_DENIED, 1);
        } else {
            link->handler.message(link->arg, peer->index, msg, link->inbox[i].packed, now);
        }
    }
}

static mesh_slice slice_of(zmq_msg_t *frame)
{
    return (mesh_slice){ zmq_msg_data(frame), zmq_msg_size(frame) };
}

static void take_from_listener(mesh_link *link, zmq_msg_t *id, zmq_msg_t *frame, mesh_time now)
{
    char rid[LINK_RID_MAX + 1];
    size_t size = zmq_msg_size(id);
    if (size > LINK_RID_MAX || memchr(zmq_msg_data(id), '\0', size) != NULL) { /* none of ours */
        mesh_stats_add(link->stats, LINK_STAT_MALFORMED, 1);
        return;
    }
    memcpy(rid, zmq_msg_data(id), size);
    rid[size] = '\0';
    const char *user = link->secure ? zmq_msg_gets(frame, "User-Id") : NULL;
    mesh_link_peer *peer = mesh_table_get(link->by_rid, mesh_table_str(rid));
    if (peer != NULL && link->secure && (user == NULL || strcmp(user, peer->node->name) != 0)) {
        mesh_stats_add(link->stats, LINK_STAT_REFUSED_NAME, 1); /* a known key, an identity that is another's */
        return;
    }
    take_frame(link, peer, rid, user, slice_of(frame), now);
}

/* peer NULL: the listener. True: the budget is used up, there may be more. */
static bool drain(mesh_link *link, mesh_link_peer *peer, mesh_time now)
{
    mesh_err err = MESH_OK;
    unsigned n = 0;
    void *socket = peer != NULL ? peer->socket : link->listener;
    for (; n < LINK_DRAIN_FRAMES && (err == MESH_OK || err == MESH_MALFORMED); n++) {
        zmq_msg_t id;
        zmq_msg_t frame;
        zmq_msg_init(&id);
        zmq_msg_init(&frame);
        err = mesh_link_sock_receive(socket, peer != NULL ? NULL : &id, &frame);
        if (err == MESH_MALFORMED) {
            mesh_stats_add(link->stats, LINK_STAT_MALFORMED, 1);
        } else if (err == MESH_OK && peer != NULL) {
            take_frame(link, peer, NULL, NULL, slice_of(&frame), now);
        } else if (err == MESH_OK) {
            take_from_listener(link, &id, &frame, now);
        }
        zmq_msg_close(&id);
        zmq_msg_close(&frame);
    }
    return n == LINK_DRAIN_FRAMES;
}

bool mesh_link_receive(mesh_link *link, mesh_time now)
{
    bool more = false;
    if (link->listener != NULL) {
        more = drain(link, NULL, now);
    }
    for (size_t i = 0; i < link->n_peers; i++) {
        mesh_link_peer *peer = &link->peers[i];
        if (peer->socket != NULL) {
            take_events(link, peer, now);
            more = drain(link, peer, now) || more;
        }
    }
    return more;
}

/* ---- send and tick ---- */

static void free_frame(void *data, void *hint)
{
    (void)hint;
    free(data);
}

void mesh_link_send(mesh_link *link, mesh_out *out, mesh_time now)
{
    (void)now;
    mesh_peer to;
    mesh_buf bytes;
    while (mesh_out_take(out, &to, &bytes)) {
        assert(to < link->n_peers);
        mesh_link_peer *peer = &link->peers[to];
        if (peer->state != LINK_UP) {
            mesh_stats_add(link->stats, LINK_STAT_DROPPED_OUT, 1);
            mesh_buf_fini(&bytes);
            continue;
        }
        zmq_msg_t frame; /* the buffer itself travels */
        int rc = zmq_msg_init_data(&frame, bytes.data, bytes.size, free_frame, NULL);
        assert(rc == 0);
        mesh_link_queue_put(link, peer, &frame);
    }
}

static mesh_ms earlier(mesh_ms a, mesh_ms b)
{
    return a < b ? a : b;
}

static mesh_ms tick_hello(mesh_link *link, mesh_link_peer *peer, mesh_time now)
{
    mesh_ms redial = peer->made + (peer->broken ? LINK_HELLO_MS : LINK_DEAD_MS);
    if (now.mono >= redial) {
        mesh_link_peer_redial(link, peer, now);
        redial = now.mono + LINK_DEAD_MS;
    }
    if (!peer->connected) {
        return redial;
    }
    if (now.mono >= peer->next_hello) {
        mesh_link_peer_hello(link, peer);
        peer->next_hello = now.mono + LINK_HELLO_MS;
    }
    return earlier(redial, peer->next_hello);
}

static mesh_ms tick_up(mesh_link *link, mesh_link_peer *peer, mesh_time now)
{
    mesh_link_queue_flush(link, peer);
    if (peer->broken) {
        mesh_link_peer_down(link, peer, now, "connection lost");
        return now.mono; /* the owner may have something to say to others */
    }
    if (now.mono - peer->heard >= LINK_DEAD_MS) {
        mesh_link_peer_down(link, peer, now, "silent");
        return now.mono;
    }
    if (now.mono >= peer->next_ping) {
        Mesh__NodePing ping = MESH__NODE_PING__INIT;
        ping.n = (uint64_t)now.mono;
        MESH_MSG(msg, NODE_PING, node_ping, &ping);
        mesh_link_peer_say(link, peer, &msg);
        peer->next_ping = now.mono + LINK_PING_MS;
    }
    mesh_ms next = earlier(peer->heard + LINK_DEAD_MS, peer->next_ping);
    return peer->first != NULL ? earlier(next, now.mono + LINK_RETRY_MS) : next;
}

mesh_ms mesh_link_tick(mesh_link *link, mesh_time now)
{
    link->urgent = false;
    mesh_ms next = MESH_NEVER;
    for (size_t i = 0; i < link->n_peers; i++) {
        mesh_link_peer *peer = &link->peers[i];
        if (peer->state == LINK_UP) {
            next = earlier(next, tick_up(link, peer, now));
        } else if (peer->state == LINK_HELLO) {
            next = earlier(next, tick_hello(link, peer, now));
        }
    }
    return link->urgent ? now.mono : next;
}

/* Every send may have taken the wake-up of a frame out of the socket's mailbox, so the loop asks before it sleeps. */
static bool ready(void *arg)
{
    mesh_link *link = arg;
    if (link->urgent || (link->listener != NULL && mesh_link_sock_readable(link->listener))) {
        return true;
    }
    for (size_t i = 0; i < link->n_peers; i++) {
        if (link->peers[i].socket != NULL && mesh_link_sock_readable(link->peers[i].socket)) {
            return true;
        }
    }
    return false;
}

/* ---- life ---- */

static bool is_plain(const char *endpoint)
{
    return strncmp(endpoint, "inproc://", 9) == 0;
}

/* One kind for the whole mesh: a listener that is secure for some and open for others would be open. */
static bool needs_keys(const mesh_conf *conf)
{
    for (size_t i = 0; i < mesh_conf_nodes(conf); i++) {
        const char *endpoint = mesh_conf_node(conf, (mesh_peer)i)->endpoint;
        if (endpoint[0] != '\0' && !is_plain(endpoint)) {
            return true;
        }
    }
    return false;
}

static mesh_err start(mesh_link *link)
{
    const char *endpoint = link->node->endpoint;
    if (needs_keys(link->conf)) {
        mesh_err err = mesh_link_auth_own(link->node, &link->keys);
        if (err != MESH_OK) {
            return err;
        }
    }
    if (endpoint[0] == '\0') {
        return MESH_OK;
    }
    link->secure = !is_plain(endpoint);
    link->listener = mesh_link_sock_listen(endpoint, link->secure ? &link->keys : NULL);
    if (link->listener == NULL) {
        mesh_log(MESH_ERROR, "bind_failed", "endpoint=%s reason=%s", endpoint, zmq_strerror(zmq_errno()));
        return MESH_IO;
    }
    link->listener_fd = mesh_link_sock_fd(link->listener);
    if (link->loop != NULL) {
        mesh_loop_watch_fd(link->loop, link->listener_fd);
    }
    return MESH_OK;
}

mesh_err mesh_link_new(mesh_loop *loop, const mesh_conf *conf, mesh_peer self, uint64_t boot,
                       const mesh_link_handler *handler, void *arg, mesh_link **link_p)
{
    assert(boot != 0 && self < mesh_conf_nodes(conf) && handler->message != NULL);
    mesh_link *link = mesh_alloc(sizeof *link);
    link->loop = loop;
    link->conf = conf;
    link->began = mesh_clock_now();
    link->self = self;
    link->node = mesh_conf_node(conf, self);
    link->boot = boot;
    link->handler = *handler;
    link->arg = arg;
    link->n_peers = mesh_conf_nodes(conf);
    link->peers = mesh_alloc(link->n_peers * sizeof *link->peers);
    for (size_t i = 0; i < link->n_peers; i++) {
        link->peers[i].index = (mesh_peer)i;
        link->peers[i].node = mesh_conf_node(conf, (mesh_peer)i);
    }
    link->by_rid = mesh_table_new(mesh_conf_hash_key(conf));
    link->arena = mesh_arena_new();
    link->stats = mesh_stats_new(stat_infos, LINK_STATS);
    if (loop != NULL) {
        mesh_loop_watch_ready(loop, ready, link);
    }
    mesh_err err = start(link);
    if (err != MESH_OK) {
        mesh_link_destroy(&link);
        return err;
    }
    *link_p = link;
    return MESH_OK;
}

void mesh_link_destroy(mesh_link **link_p)
{
    mesh_link *link = *link_p;
    if (link == NULL) {
        return;
    }
    for (size_t i = 0; i < link->n_peers; i++) {
        mesh_link_queue_clear(&link->peers[i]);
        mesh_link_peer_hang_up(link, &link->peers[i], LINK_LINGER_MS);
    }
    if (link->listener != NULL) {
        if (link->loop != NULL) {
            mesh_loop_unwatch_fd(link->loop, link->listener_fd);
        }
        mesh_link_sock_close(&link->listener, NULL, LINK_LINGER_MS);
    }
    if (link->loop != NULL) {
        mesh_loop_unwatch_ready(link->loop, link);
    }
    mesh_table_destroy(&link->by_rid);
    mesh_arena_destroy(&link->arena);
    mesh_stats_destroy(&link->stats);
    free(link->inbox);
    free(link->peers);
    explicit_bzero(&link->keys, sizeof link->keys);
    free(link);
    *link_p = NULL;
}

void mesh_link_dial(mesh_link *link, mesh_peer peer)
{
    assert(peer < link->n_peers && peer != link->self);
    mesh_link_peer *p = &link->peers[peer];
    assert(!p->dialed && p->node->endpoint[0] != '\0');
    p->dialed = true;
    mesh_link_peer_redial(link, p, mesh_clock_now());
}

void mesh_link_print_stats(const mesh_link *link, const char *node, mesh_buf *out)
{
    mesh_stats_set(link->stats, LINK_STAT_REFUSED_KEY, mesh_link_auth_refused());
    mesh_stats_print(link->stats, node, out);
    mesh_ms uptime = mesh_clock_now().mono - link->began.mono;
    mesh_buf_printf(out,
                    "# HELP parley_build_info Release, the versions of node links it speaks, and a sum of its config.\n"
                    "# TYPE parley_build_info gauge\n"
                    "parley_build_info{node=\"%s\",version=\"%s\",wire_min=\"%d\",wire_max=\"%d\",config=\"%08" PRIx32
                    "\"} 1\n"
                    "# HELP parley_start_time_ms When the node's links were opened, since 1970.\n"
                    "# TYPE parley_start_time_ms gauge\n"
                    "parley_start_time_ms{node=\"%s\"} %" PRId64 "\n"
                    "# HELP parley_uptime_seconds Time since then.\n"
                    "# TYPE parley_uptime_seconds gauge\n"
                    "parley_uptime_seconds{node=\"%s\"} %" PRId64 "\n",
                    node, MESH_VERSION, LINK_VERSION_MIN, LINK_VERSION, mesh_conf_sum(link->conf), node,
                    (int64_t)link->began.wall, node, (int64_t)(uptime / 1000));
}
