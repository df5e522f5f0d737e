/* mesh/link.h: a node's authenticated links to other nodes over ZeroMQ.
 *
 * A dialer (edge to routers, router to stores, store to the later ones of its shard) has one DEALER per peer; a
 * listener has one ROUTER. Both carry frames (mesh/wire.h) both ways. Over tcp, CURVE is always on, also on loopback: a
 * ZAP handler maps the key to the node name of the config, and a NodeHello whose name is another's is refused and
 * counted. Identity on a ROUTER is node name + boot nonce, never reused. ZMTP heartbeats are not used (libzmq 4.3.4
 * aborts in them): every LINK_PING_MS the link asks with NodePing, which the peer answers from the loop that does its
 * work, so that a stuck node is a dead node; silence for LINK_DEAD_MS is `down`. A queued send proves nothing: every
 * request needs its own id, deadline and retry.
 *
 * Lost: what was queued when a peer goes down. Never: reordered or doubled within one up..down span. */
#ifndef MESH_LINK_H
#define MESH_LINK_H

#include "mesh/conf.h"
#include "mesh/loop.h"
#include "mesh/out.h"
#include "mesh/wire.h"

#define LINK_PING_MS 500
#define LINK_DEAD_MS 2000
#define LINK_QUEUE_MAX (64u * 1024 * 1024) /* bytes waiting for one peer; beyond: it is down */
#define LINK_DRAIN_FRAMES 256              /* frames read per turn and socket */

typedef struct mesh_link mesh_link;

typedef struct mesh_link_handler {
    /* msg and packed are borrowed for the call. Node messages (hello, ping, pong, stats) never come here. */
    void (*message)(void *arg, mesh_peer from, const Mesh__Msg *msg, mesh_slice packed, mesh_time now);
    void (*up)(void *arg, mesh_peer peer, uint64_t boot, mesh_time now); /* hello done; also when the peer was reborn */
    void (*down)(void *arg, mesh_peer peer, mesh_time now);
    void (*stats)(void *arg, mesh_buf *out); /* print all metrics, the link's too, for a Stats request */
} mesh_link_handler;

/* The process-wide ZeroMQ context, its limits and its ZAP handler (with a self-test: a random key must be refused).
 * secret keys come from keys_dir/<name>.key. Call once before any link; not needed when all endpoints are inproc.
 * Errors: MESH_IO no key file; MESH_DENIED the self-test let a stranger in. */
MESH_MUST mesh_err mesh_link_setup(const mesh_conf *conf, const char *keys_dir);
void mesh_link_teardown(void);

/* self: this node. Binds self's endpoint when it has one. boot: random per start.
 * Errors: MESH_IO bind failed. */
MESH_MUST mesh_err mesh_link_new(mesh_loop *loop, const mesh_conf *conf, mesh_peer self, uint64_t boot,
                                 const mesh_link_handler *handler, void *arg, mesh_link **link_p);
void mesh_link_destroy(mesh_link **link_p);
void mesh_link_dial(mesh_link *link, mesh_peer peer); /* keeps trying; up tells when it is there */

bool mesh_link_receive(mesh_link *link, mesh_time now); /* drain with a budget; true: there may be more */
void mesh_link_send(mesh_link *link, mesh_out *out,
                    mesh_time now); /* every frame of out; to a peer that is not up: dropped, counted */
mesh_ms mesh_link_tick(mesh_link *link, mesh_time now); /* pings and deaths; returns the next deadline */

/* Make a keypair: writes <keys_dir>/<name>.key (0600) and gives the public part in z85. Errors: MESH_IO. */
MESH_MUST mesh_err mesh_link_make_key(const char *keys_dir, const char *name, char public_key[41]);

/* Statistics for the owner's metrics page. */
void mesh_link_print_stats(const mesh_link *link, const char *node, mesh_buf *out);

#endif
