/* mesh/link_priv.h: what mesh/link*.c share about one link. */
#ifndef MESH_LINK_PRIV_H
#define MESH_LINK_PRIV_H

#include "mesh/link.h"
#include "mesh/link_sock.h"
#include "mesh/stats.h"
#include "mesh/table.h"

#define LINK_HELLO_MS 300      /* between two hellos that are not answered */
#define LINK_RETRY_MS 5        /* a queue that zmq does not take is tried again, also when no fd says so */
#define LINK_LINGER_MS 1000    /* for what is queued when a link is destroyed */
#define LINK_FRAME_MSGS 65536u /* messages in one frame; more is malformed */
#define LINK_RID_MAX (MESH_NODE_NAME_MAX + 1 + 16 + 1 + 20)
#define LINK_OLD_BOOTS 4
#define LINK_VERSION 1     /* of what nodes say to each other; the highest this release speaks */
#define LINK_VERSION_MIN 1 /* and the lowest: that of the release before, so that the two work together */

typedef enum mesh_link_state {
    LINK_AWAY,  /* not up, and the next step is the peer's */
    LINK_HELLO, /* dialed: saying hello until it is answered */
    LINK_UP,
    LINK_STATES
} mesh_link_state;

typedef struct mesh_link_wait { /* a frame zmq does not take yet */
    struct mesh_link_wait *next;
    zmq_msg_t frame;
} mesh_link_wait;

typedef struct mesh_link_peer {
    mesh_peer index;
    const mesh_node_conf *node;
    mesh_link_state state;
    bool dialed;
    bool connected;    /* dialed: the handshake is done, a hello can go out */
    bool broken;       /* its connection is known to be gone: acted on in the next tick */
    uint64_t boot;     /* the peer's, as of its last hello */
    uint64_t socket_n; /* number in the identity: of our sockets when dialed, of theirs when not */
    char rid[LINK_RID_MAX + 1];
    uint64_t old_boots[LINK_OLD_BOOTS]; /* replaced by a later one: what still comes from them is late */
    unsigned n_old_boots;
    void *socket; /* DEALER; NULL when not dialed or when making it failed */
    void *monitor;
    int fd, monitor_fd;
    mesh_ms heard;
    mesh_ms next_ping;
    mesh_ms next_hello;
    mesh_ms made; /* when the socket was */
    mesh_link_wait *first, **last;
    size_t waiting; /* bytes */
} mesh_link_peer;

enum {
    LINK_STAT_FRAMES_IN,
    LINK_STAT_FRAMES_OUT,
    LINK_STAT_MSGS_IN,
    LINK_STAT_MSGS_OUT,
    LINK_STAT_BYTES_IN,
    LINK_STAT_BYTES_OUT,
    LINK_STAT_MALFORMED,
    LINK_STAT_REFUSED_KEY,
    LINK_STAT_REFUSED_NAME,
    LINK_STAT_REFUSED_CLUSTER,
    LINK_STAT_REFUSED_VERSION,
    LINK_STAT_REFUSED_LATE,
    LINK_STAT_DENIED,
    LINK_STAT_DROPPED_IN,
    LINK_STAT_DROPPED_OUT,
    LINK_STAT_WAITED,
    LINK_STAT_OVERFLOWS,
    LINK_STAT_UPS,
    LINK_STAT_DOWNS,
    LINK_STAT_PEERS_UP,
    LINK_STATS
};

struct mesh_link {
    mesh_loop *loop; /* NULL: driven by hand */
    const mesh_conf *conf;
    mesh_peer self;
    const mesh_node_conf *node;
    uint64_t boot;
    mesh_time began;
    mesh_link_handler handler;
    void *arg;
    mesh_link_keys keys;
    bool secure; /* the listener is under CURVE */
    void *listener;
    int listener_fd;
    mesh_link_peer *peers; /* by node index */
    size_t n_peers;
    mesh_table *by_rid; /* rid -> mesh_link_peer that is up */
    bool urgent;        /* some peer is broken: tick before the loop sleeps */
    mesh_arena *arena;
    struct {
        Mesh__Msg *msg;
        mesh_slice packed;
    } * inbox; /* the messages of the frame at hand */
    size_t inbox_cap;
    mesh_stats *stats;
};

/* ---- link_hello.c: who may be whom ---- */

/* name.boot.number; rid of size LINK_RID_MAX + 1 */
void mesh_link_rid(char *rid, const char *name, uint64_t boot, uint64_t number);
/* Judge a hello that came to our listener from identity rid over a connection whose key belongs to user (NULL: inproc).
 * Returns the peer it may become, and the number in its identity; NULL: refused, counted and logged. */
mesh_link_peer *mesh_link_hello_inbound(mesh_link *link, const char *rid, const char *user,
                                        const Mesh__NodeHello *hello, uint64_t *number_p);
/* Is there a version that both speak? */
bool mesh_link_hello_versions_meet(const Mesh__NodeHello *hello);
/* Judge the answer of a peer we dialed. */
bool mesh_link_hello_answer(mesh_link *link, const mesh_link_peer *peer, const Mesh__NodeHello *hello);

/* ---- link_queue.c: frames on their way out to one peer ---- */

/* Send frame (taken) to a peer, behind what already waits. Marks the peer broken when it is gone or its queue is full.
 */
void mesh_link_queue_put(mesh_link *link, mesh_link_peer *peer, zmq_msg_t *frame);
void mesh_link_queue_flush(mesh_link *link, mesh_link_peer *peer);
void mesh_link_queue_clear(mesh_link_peer *peer);

/* ---- link_peer.c: up, down, and what two links say to each other ---- */

void mesh_link_peer_say(mesh_link *link, mesh_link_peer *peer, const Mesh__Msg *msg);
void mesh_link_peer_hello(mesh_link *link, mesh_link_peer *peer); /* of our own */
void mesh_link_peer_redial(mesh_link *link, mesh_link_peer *peer, mesh_time now);
void mesh_link_peer_hang_up(mesh_link *link, mesh_link_peer *peer, int linger_ms);
void mesh_link_peer_up(mesh_link *link, mesh_link_peer *peer, uint64_t boot, mesh_time now);
void mesh_link_peer_down(mesh_link *link, mesh_link_peer *peer, mesh_time now, const char *reason);
/* A hello from the listener's side or the dialer's. Returns the peer when it is up now, else NULL. */
mesh_link_peer *mesh_link_peer_heard_hello(mesh_link *link, mesh_link_peer *dialed, const char *rid, const char *user,
                                           const Mesh__NodeHello *hello, mesh_time now);

#endif
