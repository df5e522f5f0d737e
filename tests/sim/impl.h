/* tests/sim/impl.h: what the files of the simulator share. Times are fake microseconds unless a name says ms. */
#ifndef TESTS_SIM_IMPL_H
#define TESTS_SIM_IMPL_H

#include "mesh/alloc.h"
#include "mesh/rand.h"
#include "tests/sim/kv_mem.h"
#include "tests/sim/sim.h"

typedef int64_t sim_us;
typedef void sim_fn(sim *s, void *arg, uint64_t tag);

/* A first-in-first-out way with latency; items leave in order, each when it is due. */
typedef struct sim_item {
    struct sim_item *next;
    sim_us due;
    int kind;
    uint64_t span, boot;
    mesh_buf bytes;
} sim_item;
typedef struct sim_pipe {
    sim_item *first, **end;
    sim_us last_due;
    bool held;
} sim_pipe;

typedef struct sim_node {
    sim *s;
    mesh_peer self;
    mesh_role role;
    const char *name;
    bool alive, draining, reopening;
    uint64_t boot;
    sim_us paused_until;
    edge_core *edge;
    router_core *router;
    store_core *store;
    unsigned switches; /* to copies */
    store_kv *kv;
    uint32_t shard; /* a store's; so are the next ones */
    sim_disk *disk;
    char disk_path[32];          /* a name of its own */
    uint64_t kept_id, kept_last; /* of the disk that is remembered: whose, and how far its log goes at most */
    unsigned disk_times;
    bool disk_held, disk_full, disk_broken;
    bool disk_old;   /* an earlier copy, that neither was found out nor has caught up */
    bool disk_broke; /* since the process was started: it may have been mended before the process noticed */
    mesh_out *out;
    struct sim_input *inputs, **inputs_end;
    sim_us wake;       /* the planned turn, SIM_NEVER: none */
    uint64_t wake_tag; /* plans with another tag are void */
    unsigned spins;
    bool flushing;
    uint64_t *peer_boot; /* per peer that is up, as this process was told; 0 = down */
} sim_node;
#define SIM_NEVER INT64_MAX
#define SIM_READER "reader" /* a device of every user, the checker's */
#define SIM_TOKEN_KEY "a key for tests only, 32 bytes or more"

typedef enum sim_input_kind { IN_FRAME, IN_UP, IN_DOWN, IN_OPEN, IN_BYTES, IN_CLOSED, IN_WRITABLE } sim_input_kind;
typedef struct sim_input {
    struct sim_input *next;
    sim_input_kind kind;
    mesh_peer peer;
    uint64_t boot;
    struct sim_socket *socket;
    mesh_buf bytes;
} sim_input;

typedef struct sim_side {
    bool up, timer;
    uint64_t span, tag;
} sim_side;
typedef struct sim_link {
    sim *s;
    sim_node *end[2]; /* 0 dials, 1 listens */
    bool cut[2];      /* i: what end i sends */
    unsigned times;   /* its latencies are so many times longer */
    sim_side side[2];
    sim_pipe pipe[2]; /* i: from end i */
    uint64_t span;    /* of the newest try to connect */
    bool trying;
    uint64_t try_tag;
} sim_link;

typedef struct sim_socket { /* one WebSocket */
    sim *s;
    sim_client *client; /* NULL: the client has let go of it */
    sim_node *edge;
    uint64_t edge_boot;
    edge_session_id session;
    edge_codec_kind codec;
    bool opened;          /* the edge's core has it */
    sim_us stalled_until; /* the client does not read */
    bool blocked;         /* has something to write that does not go */
    mesh_buf part;        /* of a message that left in pieces */
    sim_pipe up, down;
    struct sim_socket *next;
} sim_socket;

typedef struct sim_event {
    sim_us at;
    uint64_t tie;
    sim_fn *fn;
    void *arg;
    uint64_t tag;
} sim_event;

typedef struct sim_loss {
    const sim_node *at, *from;
    int kind;
    unsigned left;
} sim_loss;
#define SIM_LOSSES 8

typedef struct sim_late { /* a message that comes later than it should */
    struct sim_late *next, **at;
    sim_node *to;
    mesh_peer from;
    bool any_span; /* also when the link went down in between */
    uint64_t boot; /* of the receiver */
    mesh_buf frame;
} sim_late;

struct sim {
    mesh_ms wall_jump; /* of the wall clock, all jumps together */
    sim_conf conf;
    mesh_conf *mesh;
    mesh_rand rand;
    sim_us now;
    sim_event *heap;
    size_t n_heap, heap_cap;
    uint64_t ties, hash, tags;
    sim_node *nodes;
    size_t n_nodes;
    sim_link *links;
    size_t n_links;
    sim_socket *sockets;
    sim_client *clients, **clients_end;
    sim_op *ops, **ops_end;
    unsigned net_times;
    bool settling;
    uint64_t n_msg_ids;
    sim_loss losses[SIM_LOSSES];
    size_t n_losses;
    sim_noise noise;
    sim_noise_counts noise_counts;
    sim_late *lates;
    struct sim_operator *op; /* NULL: none */
    struct sim_judge *judge;
    mesh_arena *arena;       /* of the frame being delivered */
    mesh_arena *event_arena; /* of the event a client is told */
    mesh_buf text, complaints, events;
};

/* sched.c */
void sim_at(sim *s, sim_us at, sim_fn *fn, void *arg, uint64_t tag);
sim_us sim_between(sim *s, sim_us low, sim_us high); /* a random time span, both ends included */
mesh_time sim_time(const sim *s);
void sim_mix(sim *s, uint64_t a, uint64_t b); /* into the hash of the run */
bool sim_tracing(const sim *s);
void sim_pipe_init(sim_pipe *p);
void sim_pipe_clear(sim_pipe *p);
void sim_pipe_lose_tail(sim *s, sim_pipe *p); /* a random part at the end is lost */
sim_item *sim_pipe_put(sim *s, sim_pipe *p, int kind, sim_us latency, sim_fn *deliver, void *arg, uint64_t tag);
sim_item *sim_pipe_take(sim *s, sim_pipe *p); /* the next one that is due; yours (sim_item_free) */
void sim_item_free(sim_item *item);
sim_us sim_latency(sim *s);

/* node.c */
sim_node *sim_node_find(sim *s, const char *name);
sim_input *sim_node_input(sim_node *n, sim_input_kind kind); /* appended; a turn is planned */
void sim_node_wake(sim_node *n, sim_us at);
void sim_node_boot(sim_node *n);
void sim_node_die(sim_node *n);
void sim_node_plan_sync(sim_node *n); /* a store's, when there is something to sync */

/* net.c */
void sim_net_init(sim *s);
void sim_net_fini(sim *s);
void sim_net_send(sim_node *from, mesh_peer to, mesh_buf *frame); /* takes the bytes */
void sim_net_started(sim_node *n);
void sim_net_died(sim_node *n);
void sim_net_review(sim *s);

/* noise.c */
/* How often this message is handed over now: 0, 1 or 2. It may come later, too. */
unsigned sim_noise_times(sim_node *to, mesh_peer from, const Mesh__Msg *msg, mesh_slice packed);
void sim_noise_down(sim_node *to, mesh_peer from); /* the link is down: what is late of it never comes */
void sim_noise_fini(sim *s);

/* operator.c */
void sim_operator_init(sim *s);
void sim_operator_fini(sim *s);
void sim_operator_message(sim_node *n, mesh_peer from, const Mesh__Msg *msg);
void sim_operator_settle(sim *s); /* whoever is out comes in again, now */

/* judge.c */
void sim_judge_init(sim *s);
void sim_judge_fini(sim *s);
void sim_judge_disk(sim_node *n);                                           /* watch what this store applies */
void sim_judge_message(sim_node *to, mesh_peer from, const Mesh__Msg *msg); /* somebody says that he leads */

/* socket.c */
sim_socket *sim_socket_open(sim_client *c, sim_node *edge);
void sim_socket_say(sim_socket *k, mesh_slice bytes);
void sim_socket_close(sim_socket *k);
void sim_sockets_of_dead(sim_node *edge);
void sim_sockets_fini(sim *s);
void sim_socket_input(sim_node *edge, sim_input *in, mesh_time now); /* the edge's shell: in */
void sim_socket_flush(sim_node *edge, mesh_time now);                /* and out */

/* sim_client.c, ask.c */
void sim_client_event(sim_client *c, mesh_slice bytes);
void sim_client_cut(sim_client *c, uint16_t code); /* the connection is gone */
void sim_clients_fini(sim *s);
void sim_op_issue_all(sim_client *c); /* after welcome */
void sim_op_answer(sim_client *c, const Client__Event *event);
void sim_op_disconnected(sim_client *c);
void sim_client_put(sim_client *c, const Client__Request *request);

/* check.c */
/* 0: none of that name. Prints a page: what is asked each millisecond goes by mesh_stats_get. */
unsigned long long sim_metric(sim *s, mesh_stats *stats, const char *node, const char *name);

/* check_replica.c */
void sim_check_replicas_wait(sim *s); /* until all replicas of each shard have applied the same, for a while */

/* dump.c */
void sim_dump(const ProtobufCMessage *m, mesh_buf *out); /* one line: name=value ... */

#endif
