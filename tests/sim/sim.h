/* tests/sim/sim.h: a whole mesh in one thread on a fake clock, network and disk, from a seed.
 *
 * The cores are the shipped ones (edge, router, store with its consensus); only the shells are replaced. Time moves
 * from event to event, so a minute costs milliseconds; every random choice (latency, fsync time, order of what happens
 * at the same moment, what a crash loses) comes from one seed, so a run repeats. Frames between nodes are real bytes.
 *
 * The network keeps what mesh/link.h promises and nothing more: per directed pair first in, first out; a cut holds
 * frames back and they go on when it heals in time; silence for LINK_DEAD_MS is `down`, and what was queued then is
 * lost. On top of that single messages may be lost, doubled and late (sim_noise_set), of the kinds that can bear it.
 *
 * Two judges watch all the time: what each replica applied (judge.c) and who leads (judge.c). What breaks a promise
 * there is complained of at once.
 *
 *   sim *s = sim_new((sim_conf){.edges = 2, .routers = 1, .seed = 7});
 *   sim_client *ann = sim_client_new(s, "ann", "phone");
 *   sim_hello(ann, "edge1");
 *   sim_op *hi = sim_send(ann, "bob", "hi");
 *   SIM_UNTIL(s, 1000, hi->state == OP_DONE);
 *   sim_destroy(&s);
 *
 * Clients (sim_client.c) are simple and suspicious: they keep all that they were told, and whatever breaks a promise is
 * written down at once (sim_complain). The ledger of their requests is what check.c judges the stores by. */
#ifndef TESTS_SIM_SIM_H
#define TESTS_SIM_SIM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "client.pb-c.h"
#include "edge/core.h"
#include "mesh/clock.h"
#include "router/core.h"
#include "store/core.h"

typedef struct sim sim;
typedef struct sim_client sim_client;

typedef struct sim_conf {
    unsigned edges, routers;   /* edge1.., router1.. */
    unsigned shards, replicas; /* 0 = 1; store1.., shard-major: of 2 shards with 3 replicas store4 to 6 are shard 1 */
    unsigned log_trail_kib;    /* 0 = the default */
    unsigned copy_mib_s, log_hold_mib; /* 0 = the default */
    uint64_t seed;
    bool trace;        /* keep the readable trace (it costs; the hash is always there) */
    bool echo;         /* and print it as it comes */
    bool warm_later;   /* do not wait for the ring in sim_new */
    bool no_readers;   /* no device of the checker's that keeps inboxes from being trimmed: sim_check cannot be used */
    bool has_operator; /* a node "operator1" with links to the stores: sim_remove_store, sim_transfer_leader */
} sim_conf;

/* ---- the mesh ---- */
sim *sim_new(sim_conf conf); /* all nodes started; returns when every edge has a ring with every router */
void sim_destroy(sim **s_p);
mesh_ms sim_now(const sim *s); /* monotonic ms; starts at SIM_EPOCH_MS */
uint64_t sim_random(sim *s, uint64_t below);
void sim_run(sim *s, mesh_ms ms);
bool sim_step(sim *s, mesh_ms until); /* one event, if it is due by then; false: none, and the clock stands at until */
uint64_t sim_hash(const sim *s);      /* of everything that happened: two runs of one seed have the same */
const char *sim_trace_text(sim *s);   /* borrowed until the next event */
void sim_trace(sim *s, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* A promise was broken. Kept, up to a limit; sim_complaints is empty when all is well. */
void sim_complain(sim *s, const char *format, ...) __attribute__((format(printf, 2, 3)));
const char *sim_complaints(const sim *s);

/* Run until cond holds, for at most ms. Evaluates to whether it came to hold. */
#define SIM_WAIT(s, ms, cond)                                                                                          \
    __extension__({                                                                                                    \
        mesh_ms sim_until_ = sim_now(s) + (ms);                                                                        \
        while (!(cond) && sim_step((s), sim_until_)) {                                                                 \
        }                                                                                                              \
        (cond);                                                                                                        \
    })

/* ---- faults; nodes by name ---- */
void sim_kill(sim *s, const char *node);  /* kill -9: a store also loses a random part of what was not synced */
void sim_start(sim *s, const char *node); /* again, with a new boot, on the same disk */
bool sim_alive(sim *s, const char *node);
void sim_pause(sim *s, const char *node, mesh_ms ms); /* the process gets no turn for so long */
void sim_cut(sim *s, const char *a, const char *b);   /* both ways */
void sim_cut_one(sim *s, const char *from, const char *to);
void sim_heal(sim *s, const char *a, const char *b);
void sim_heal_all(sim *s);
bool sim_linked(sim *s, const char *a, const char *b); /* up on both sides */
/* Messages of this kind (Mesh__Msg body case) that `from` (NULL: anybody) sends to node vanish, n of them: what a link
 * never does, to make what only a fault elsewhere could cause. sim_lose_none ends it. */
void sim_lose(sim *s, const char *node, const char *from, int kind, unsigned n);
void sim_lose_none(sim *s);
/* The wall clock of every node and client jumps by so much, forward or back; time itself goes on. */
void sim_clock_jump(sim *s, mesh_ms by);
void sim_net_slow(sim *s, unsigned times); /* latencies are so many times longer; 1 = normal */
/* Between these two frames take so many times longer, both ways. 1 = normal. */
void sim_link_slow(sim *s, const char *a, const char *b, unsigned times);
/* Of 10,000 messages so many are lost, come twice, or late by up to late_ms, so that others overtake them: where the
 * kind of message can bear that (noise.c says which, and why not the others). All zero: none. */
typedef struct sim_noise {
    unsigned lost, twice, late;
    mesh_ms late_ms;
} sim_noise;
typedef struct sim_noise_counts {
    uint64_t lost, twice, late;
} sim_noise_counts;
void sim_noise_set(sim *s, sim_noise noise);
sim_noise_counts sim_noise_counted(const sim *s); /* since sim_new */
/* Disks: of one store, or of all when store is NULL. */
void sim_disk_slow_at(sim *s, const char *store, unsigned times); /* each sync takes so many times longer; 1 = normal */
void sim_disk_fill_at(sim *s, const char *store); /* the next write fails with MESH_NO_SPACE, and opening too ... */
void sim_disk_free_at(sim *s, const char *store); /* ... until there is space again; also mends a broken disk */
void sim_disk_break_at(sim *s,
                       const char *store); /* the next write fails with MESH_IO: the process ends; a start mends */
void sim_disk_wipe_at(sim *s, const char *store); /* of a dead store: it has a new one */
/* A bit of some row flips, see sim_disk_flip. False: there is no row. */
bool sim_disk_flip_at(sim *s, const char *store, bool at_open);
void sim_disk_keep_at(sim *s, const char *store);  /* remember the disk as it is now ... */
bool sim_disk_stale_at(sim *s, const char *store); /* ... a dead store has it again. False: nothing was kept */
/* It dies and starts again on the disk that was kept. When all the others run and know that it has had more since, it
 * must be found and put aside; otherwise nothing happens (false), unless they have all there is. */
bool sim_disk_old_at(sim *s, const char *store);
/* Replicas of this store's shard whose data is whole, as far as anybody can know: neither flipped nor in quarantine and
 * not yet a voter again. */
unsigned sim_disk_sound(sim *s, const char *store);
bool sim_replicas_even(sim *s, const char *store);           /* all of its shard run, and have the same log and rows */
unsigned sim_disk_quarantines_at(sim *s, const char *store); /* how often */
unsigned sim_switches_at(sim *s, const char *store);         /* to a copy of another replica's rows: how often */
void sim_disk_hold_at(sim *s, const char *store, bool hold); /* nothing becomes durable while held */
void sim_space_at(sim *s, const char *store, bool enough);   /* the watermark, as the shell judges it */
void sim_disk_slow(sim *s, unsigned times);                  /* the same for all stores */
void sim_disk_fill(sim *s);
void sim_disk_free(sim *s);
void sim_disk_hold(sim *s, bool hold);
void sim_space(sim *s, bool enough);
void sim_drain(sim *s, const char *node); /* SIGTERM of an edge or a router: goes when it is quiet */

edge_core *sim_edge(sim *s, const char *node); /* NULL when dead */
router_core *sim_router(sim *s, const char *node);
store_core *sim_store(sim *s);                      /* store1's */
store_core *sim_store_at(sim *s, const char *node); /* NULL when dead or its disk is full */
unsigned sim_stores(const sim *s);                  /* store1 .. storeN */
const char *sim_leader(sim *s, uint32_t shard);     /* the store that leads it and serves, or NULL */
uint64_t sim_epoch(sim *s, const char *edge);       /* of the ring this edge acts on; 0 when dead */
bool sim_ring_has(sim *s, const char *edge, const char *router);
uint32_t sim_shard(sim *s, const char *qid); /* that stores this id, by the same ring */
unsigned sim_slot(sim *s, const char *qid);
/* As an operator would: tell the leader of the shard that has the slot to give it to another one. False: nobody leads
 * there. Whether it is done, sim_moving and the ring say. */
bool sim_move_slot(sim *s, unsigned slot, uint32_t shard);
/* As `parley cluster` does, by messages of the operator's: an order to whoever leads, again every 200 ms until it is
 * so. One at a time for a shard. False: another one is under way there, or a disk of the shard is not sound, or not all
 * of its stores vote: then a store less could be one too many. */
bool sim_transfer_leader(sim *s, uint32_t shard, const char *to); /* "": whoever is furthest; given up after 5 s */
/* Out of its group, for so long, then in again; when that cannot be done in 10 s it is in again at once. wipe: its
 * disk is another one when it comes back. */
bool sim_remove_store(sim *s, const char *store, mesh_ms stay_out, bool wipe);
bool sim_operated(sim *s, uint32_t shard); /* such an order is under way */
bool sim_whole(sim *s, uint32_t shard);    /* it has a leader for which each of its stores votes, and nobody else */
bool sim_moving(sim *s); /* a slot is on its way, as far as leaders know, or a shard has no leader that could */
const char *sim_owner(sim *s, const char *qid); /* router that owns this id by the newest ring of any edge, or NULL */

/* ---- clients ---- */
typedef enum sim_op_state {
    OP_WAITING, /* not answered yet */
    OP_DONE,    /* answered with what it asked for */
    OP_REFUSED, /* a final error: code */
    OP_LOST     /* the connection went, or an error that leaves the outcome open, and it is not tried again */
} sim_op_state;

/* A request, and what became of it. Lives as long as the simulation. */
typedef struct sim_op {
    sim_client *by;
    Client__Request *request; /* as first given; borrowed */
    uint64_t id;              /* of the last try */
    unsigned tries;
    bool keep; /* try again until there is a final answer */
    sim_op_state state;
    uint32_t code; /* last error */
    mesh_ms asked, answered;
    Client__Event *answer;   /* the last answer, NULL before; borrowed */
    struct sim_op *next;     /* of this client, in order */
    struct sim_op *next_all; /* of all clients, in order */
} sim_op;

typedef struct sim_got { /* one inbox entry as received */
    uint64_t era;
    uint64_t inbox_seq;
    mesh_ms at;
    const Client__Message *message;
} sim_got;

typedef enum sim_client_state { SIM_OFFLINE, SIM_CONNECTING, SIM_HELLO, SIM_WELCOME, SIM_LIVE } sim_client_state;

struct sim_client { /* for tests to look at; changed through the functions below, except the settings */
    sim *s;
    char user[72], device[72];
    edge_codec_kind codec; /* setting */
    sim_client_state state;
    char edge[MESH_NODE_NAME_MAX + 1]; /* connected to, or last connected to */
    /* settings */
    bool sticky;      /* reconnect to the same edge only; otherwise to any that lives */
    bool stay_away;   /* do not reconnect */
    bool mute;        /* does not ack */
    mesh_ms ack_ms;   /* acks after up to so long; 0 = at once */
    bool resync_fine; /* a resync in answer to a cursor is no broken promise */
    /* what it knows */
    bool has_cursor;
    uint64_t era, cursor; /* received and kept up to here */
    uint64_t acked;
    uint64_t first; /* inbox_seq of its first resync: nothing before is owed to this device */
    unsigned resyncs, hellos, lives, replaced, reconnects;
    uint16_t close_code; /* of the last close by the server */
    sim_got *got;
    size_t n_got;
    Client__Resync *resync; /* the last one; borrowed */
    uint64_t pong_head;
    /* the rest is sim_client.c's */
    struct sim_socket *socket;
    struct mesh_arena *arena;
    sim_op *ops, **ops_end;
    sim_client *next;
    uint64_t next_id, ack_timer, retry_timer;
    size_t got_cap, n_seen;
    bool ack_due, has_hello_cursor, said_hello;
    uint64_t attempt; /* number of its last hello */
    char name[160];
    struct mesh_buf *log;
};

sim_client *sim_client_new(sim *s, const char *user, const char *device); /* offline */
sim_client *sim_clients(sim *s);                                          /* first; go on with ->next */
void sim_hello(sim_client *c, const char *edge); /* connect (NULL: to any) and stay connected */
void sim_bye(sim_client *c);                     /* close, and stay offline */
void sim_vanish(sim_client *c);                  /* gone without a close: the edge does not know */
void sim_forget(sim_client *c, uint64_t back);   /* its disk lost the last `back` entries it had */
void sim_mute(sim_client *c, bool mute);         /* does not ack until told to */
void sim_stall(sim_client *c, mesh_ms ms);       /* does not read from its socket for so long */
bool sim_live(const sim_client *c);

/* Requests. Those that change something are kept (tried again) until there is a final answer. All strings are copied.
 */
sim_op *sim_send(sim_client *c, const char *to_user, const char *text);
sim_op *sim_post(sim_client *c, const char *chat, const char *text);
sim_op *sim_create(sim_client *c, const char *name, const char *members, bool from_join); /* members: space separated */
sim_op *sim_add(sim_client *c, const char *chat, const char *members);
sim_op *sim_remove(sim_client *c, const char *chat, const char *members);
sim_op *sim_leave(sim_client *c, const char *chat);
sim_op *sim_rename(sim_client *c, const char *chat, const char *name);
sim_op *sim_read(sim_client *c, const char *chat, uint64_t seq);
sim_op *sim_history(sim_client *c, const char *chat, uint64_t before, uint64_t after, bool from_start, unsigned limit);
sim_op *sim_members(sim_client *c, const char *chat);
sim_op *sim_chats(sim_client *c, uint64_t before);
sim_op *sim_profile(sim_client *c, const char *name);
sim_op *sim_ask(sim_client *c, const Client__Request *request, bool keep); /* anything; id is put in */
sim_op *sim_again(sim_client *c, const sim_op *op); /* the same request, client_msg_id and all, as a new operation */
sim_op *sim_ops(sim *s);                            /* the ledger: every operation, go on with ->next_all */

const Client__Sent *sim_sent(const sim_op *op); /* of an op that is DONE with an ack, else NULL */
const char *sim_chat(const sim_op *op);         /* its chat */
const sim_got *sim_find(const sim_client *c, const char *chat, uint64_t seq); /* first received, or NULL */
/* What c was told since the last call, one line each without times: "message d:.. 1 ann hi". */
const char *sim_saw(sim_client *c);

/* ---- the end ---- */
void sim_settle(
    sim *s); /* heal all, start all, everybody online, wait until all is delivered; complains if it never is */
void sim_check(sim *s); /* after sim_settle: every promise, from outside; complains */
/* At any time: replicas of a shard that have applied as much hold the same rows, but for Raft's own; complains. */
void sim_check_replicas(sim *s);

#define SIM_EPOCH_MS 1000000
#define SIM_WALL_MS 1795305600000

#endif
