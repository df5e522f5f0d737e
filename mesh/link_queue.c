/* mesh/link_queue.c: order is kept by one rule: while anything waits for a peer, everything new waits behind it. */
#include <stdlib.h>

#include "mesh/alloc.h"
#include "mesh/link_priv.h"

static void broke(mesh_link *link, mesh_link_peer *peer)
{
    peer->broken = true;
    link->urgent = true;
}

static mesh_link_sent give(mesh_link *link, mesh_link_peer *peer, zmq_msg_t *frame)
{
    if (peer->dialed) {
        return peer->socket != NULL ? mesh_link_sock_send(peer->socket, NULL, frame) : MESH_LINK_GONE;
    }
    return mesh_link_sock_send(link->listener, peer->rid, frame);
}

static uint64_t count_msgs(const uint8_t *frame, size_t size)
{
    uint64_t n = 0;
    for (size_t at = 1; at + 4 <= size; at += 4 + mesh_get_u32le(frame + at)) {
        n++;
    }
    return n;
}

static void count_out(mesh_link *link, zmq_msg_t *frame)
{
    mesh_stats_add(link->stats, LINK_STAT_FRAMES_OUT, 1);
    mesh_stats_add(link->stats, LINK_STAT_BYTES_OUT, zmq_msg_size(frame));
    mesh_stats_add(link->stats, LINK_STAT_MSGS_OUT, count_msgs(zmq_msg_data(frame), zmq_msg_size(frame)));
}

void mesh_link_queue_put(mesh_link *link, mesh_link_peer *peer, zmq_msg_t *frame)
{
    mesh_link_sent sent = MESH_LINK_WAIT;
    size_t size = zmq_msg_size(frame);
    if (peer->broken) {
        sent = MESH_LINK_GONE;
    } else {
        count_out(link, frame);
        if (peer->first == NULL) {
            sent = give(link, peer, frame);
        }
    }
    if (sent == MESH_LINK_WAIT && peer->waiting + size <= LINK_QUEUE_MAX) {
        mesh_link_wait *wait = mesh_alloc(sizeof *wait);
        zmq_msg_init(&wait->frame);
        zmq_msg_move(&wait->frame, frame);
        if (peer->first == NULL) {
            peer->last = &peer->first;
        }
        *peer->last = wait;
        peer->last = &wait->next;
        peer->waiting += size;
        mesh_stats_add(link->stats, LINK_STAT_WAITED, 1);
    } else if (sent != MESH_LINK_SENT) {
        if (sent == MESH_LINK_WAIT) {
            mesh_stats_add(link->stats, LINK_STAT_OVERFLOWS, 1);
        }
        mesh_stats_add(link->stats, LINK_STAT_DROPPED_OUT, 1);
        broke(link, peer);
    }
    zmq_msg_close(frame);
}

void mesh_link_queue_flush(mesh_link *link, mesh_link_peer *peer)
{
    while (peer->first != NULL && !peer->broken) {
        mesh_link_wait *wait = peer->first;
        size_t size = zmq_msg_size(&wait->frame);
        mesh_link_sent sent = give(link, peer, &wait->frame);
        if (sent == MESH_LINK_WAIT) {
            return;
        }
        if (sent == MESH_LINK_GONE) {
            broke(link, peer);
            return;
        }
        peer->first = wait->next;
        peer->waiting -= size;
        zmq_msg_close(&wait->frame);
        free(wait);
    }
}

void mesh_link_queue_clear(mesh_link_peer *peer)
{
    while (peer->first != NULL) {
        mesh_link_wait *wait = peer->first;
        peer->first = wait->next;
        zmq_msg_close(&wait->frame);
        free(wait);
    }
    peer->waiting = 0;
}
