/* mesh/link_peer.c: one peer's way between away, hello and up.
 *
 *   dialed:   HELLO --answer--> UP --silence, lost connection, full queue--> HELLO, with a fresh socket and identity
 *   listener: AWAY  --hello---> UP --the same---> AWAY, its identity forgotten
 *
 * An identity is name.boot.number and is used by one socket only, so a frame of an earlier span can never be taken for
 * one of this span: the dialer's old socket is closed before the new one says hello, and the listener lets in only a
 * higher number of the same boot, or a boot that was not replaced before. When only the listener gave a dialer up, it
 * answers nothing any more, and the dialer's own silence rule brings it back. */
#include <assert.h>
#include <inttypes.h>
#include <string.h>

#include "mesh/link_priv.h"
#include "mesh/log.h"

#define TO(state) (1u << (state))
static const struct {
    const char *name;
    unsigned next;
} states[LINK_STATES] = {
    [LINK_AWAY] = { "away", TO(LINK_HELLO) | TO(LINK_UP) },
    [LINK_HELLO] = { "hello", TO(LINK_UP) },
    [LINK_UP] = { "up", TO(LINK_HELLO) | TO(LINK_AWAY) },
};

static void move_to(mesh_link_peer *peer, mesh_link_state state)
{
    assert((states[peer->state].next & TO(state)) != 0);
    peer->state = state;
}

void mesh_link_peer_say(mesh_link *link, mesh_link_peer *peer, const Mesh__Msg *msg)
{
    mesh_buf bytes = { 0 };
    mesh_frame_put(&bytes, msg);
    zmq_msg_t frame;
    int rc = zmq_msg_init_size(&frame, bytes.size);
    assert(rc == 0);
    memcpy(zmq_msg_data(&frame), bytes.data, bytes.size);
    mesh_buf_fini(&bytes);
    if (peer->state == LINK_HELLO) { /* nothing queues up for a peer that is not there */
        if (peer->socket != NULL) {
            (void)mesh_link_sock_send(peer->socket, NULL, &frame);
        }
        zmq_msg_close(&frame);
    } else {
        mesh_link_queue_put(link, peer, &frame);
    }
}

static Mesh__NodeHello own_hello(const mesh_link *link)
{
    Mesh__NodeHello hello = MESH__NODE_HELLO__INIT;
    hello.node = (char *)link->node->name;
    hello.role = (char *)mesh_role_name(link->node->role);
    hello.boot = link->boot;
    hello.cluster = (char *)mesh_conf_str(link->conf, "cluster.name");
    hello.min_version = LINK_VERSION_MIN;
    hello.max_version = LINK_VERSION;
    return hello;
}

void mesh_link_peer_hello(mesh_link *link, mesh_link_peer *peer)
{
    Mesh__NodeHello hello = own_hello(link);
    MESH_MSG(msg, NODE_HELLO, node_hello, &hello);
    mesh_link_peer_say(link, peer, &msg);
}

/* To a dialer that is refused for its version: from our hello it sees why, and its log says so too. */
static void show_versions(mesh_link *link, const char *rid)
{
    Mesh__NodeHello hello = own_hello(link);
    MESH_MSG(msg, NODE_HELLO, node_hello, &hello);
    mesh_buf bytes = { 0 };
    zmq_msg_t frame;
    mesh_frame_put(&bytes, &msg);
    int rc = zmq_msg_init_size(&frame, bytes.size);
    assert(rc == 0);
    memcpy(zmq_msg_data(&frame), bytes.data, bytes.size);
    mesh_buf_fini(&bytes);
    (void)mesh_link_sock_send(link->listener, rid, &frame);
    zmq_msg_close(&frame);
}

void mesh_link_peer_hang_up(mesh_link *link, mesh_link_peer *peer, int linger_ms)
{
    if (peer->socket != NULL) {
        if (link->loop != NULL) {
            mesh_loop_unwatch_fd(link->loop, peer->fd);
            mesh_loop_unwatch_fd(link->loop, peer->monitor_fd);
        }
        mesh_link_sock_close(&peer->socket, &peer->monitor, linger_ms);
    }
}

void mesh_link_peer_redial(mesh_link *link, mesh_link_peer *peer, mesh_time now)
{
    mesh_link_peer_hang_up(link, peer, 0);
    peer->broken = false;
    peer->made = now.mono;
    peer->connected = strncmp(peer->node->endpoint, "inproc://", 9) == 0; /* no handshake, so no event */
    peer->next_hello = now.mono;
    peer->socket_n++;
    mesh_link_rid(peer->rid, link->node->name, link->boot, peer->socket_n);
    peer->socket = mesh_link_sock_dial(peer->node, peer->rid, peer->connected ? NULL : &link->keys, &peer->monitor);
    if (peer->socket == NULL) {
        mesh_log(MESH_ERROR, "dial_failed", "peer=%s endpoint=%s reason=%s", peer->node->name, peer->node->endpoint,
                 zmq_strerror(zmq_errno()));
    } else {
        peer->fd = mesh_link_sock_fd(peer->socket);
        peer->monitor_fd = mesh_link_sock_fd(peer->monitor);
        if (link->loop != NULL) {
            mesh_loop_watch_fd(link->loop, peer->fd);
            mesh_loop_watch_fd(link->loop, peer->monitor_fd);
        }
    }
    if (peer->state != LINK_HELLO) {
        move_to(peer, LINK_HELLO);
    }
}

void mesh_link_peer_up(mesh_link *link, mesh_link_peer *peer, uint64_t boot, mesh_time now)
{
    move_to(peer, LINK_UP);
    peer->broken = false;
    peer->boot = boot;
    peer->heard = now.mono;
    peer->next_ping = now.mono + LINK_PING_MS;
    mesh_stats_add(link->stats, LINK_STAT_UPS, 1);
    mesh_stats_set(link->stats, LINK_STAT_PEERS_UP, mesh_stats_get(link->stats, LINK_STAT_PEERS_UP) + 1);
    mesh_log(MESH_INFO, "peer_up", "peer=%s boot=%016" PRIx64, peer->node->name, boot);
    if (link->handler.up != NULL) {
        link->handler.up(link->arg, peer->index, boot, now);
    }
}

void mesh_link_peer_down(mesh_link *link, mesh_link_peer *peer, mesh_time now, const char *reason)
{
    assert(peer->state == LINK_UP);
    mesh_link_queue_clear(peer);
    if (peer->dialed) {
        mesh_link_peer_redial(link, peer, now);
    } else {
        mesh_table_remove(link->by_rid, mesh_table_str(peer->rid));
        move_to(peer, LINK_AWAY);
        peer->broken = false;
    }
    mesh_stats_add(link->stats, LINK_STAT_DOWNS, 1);
    mesh_stats_set(link->stats, LINK_STAT_PEERS_UP, mesh_stats_get(link->stats, LINK_STAT_PEERS_UP) - 1);
    mesh_log(MESH_INFO, "peer_down", "peer=%s reason=%s", peer->node->name, reason);
    if (link->handler.down != NULL) {
        link->handler.down(link->arg, peer->index, now);
    }
}

static bool is_late(const mesh_link_peer *peer, uint64_t boot, uint64_t number)
{
    for (unsigned i = 0; i < peer->n_old_boots && i < LINK_OLD_BOOTS; i++) {
        if (peer->old_boots[i] == boot) {
            return true;
        }
    }
    return boot == peer->boot && number <= peer->socket_n;
}

static mesh_link_peer *accept_hello(mesh_link *link, mesh_link_peer *peer, const char *rid, uint64_t boot,
                                    uint64_t number, mesh_time now)
{
    if (peer->state == LINK_UP && strcmp(peer->rid, rid) == 0) { /* our answer was slow, it asked again */
        mesh_link_peer_hello(link, peer);
        return peer;
    }
    if (is_late(peer, boot, number)) {
        mesh_stats_add(link->stats, LINK_STAT_REFUSED_LATE, 1);
        return NULL;
    }
    if (peer->state == LINK_UP) {
        mesh_link_peer_down(link, peer, now, "came back with a new connection");
    }
    if (peer->boot != 0 && peer->boot != boot && peer->node->role != MESH_OPERATOR) {
        peer->old_boots[peer->n_old_boots++ % LINK_OLD_BOOTS] = peer->boot;
    }
    memcpy(peer->rid, rid, strlen(rid) + 1);
    peer->socket_n = number;
    mesh_table_put(link->by_rid, mesh_table_str(peer->rid), peer);
    mesh_link_peer_hello(link, peer);
    mesh_link_peer_up(link, peer, boot, now);
    return peer;
}

mesh_link_peer *mesh_link_peer_heard_hello(mesh_link *link, mesh_link_peer *dialed, const char *rid, const char *user,
                                           const Mesh__NodeHello *hello, mesh_time now)
{
    if (dialed != NULL) {
        /* broken: the connection this answer came over is gone, the next one is another identity's */
        if (dialed->broken || !mesh_link_hello_answer(link, dialed, hello)) {
            return NULL;
        }
        if (dialed->state == LINK_HELLO) {
            mesh_link_peer_up(link, dialed, hello->boot, now);
        } else if (dialed->boot != hello->boot) {
            dialed->broken = true;
            link->urgent = true;
        }
        return dialed;
    }
    uint64_t number;
    mesh_link_peer *peer = mesh_link_hello_inbound(link, rid, user, hello, &number);
    if (peer == NULL && !mesh_link_hello_versions_meet(hello)) {
        show_versions(link, rid);
    }
    return peer != NULL ? accept_hello(link, peer, rid, hello->boot, number, now) : NULL;
}
