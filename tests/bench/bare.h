/* tests/bench/bare.h: the bare parts of the 1:1 path, to compare the system with: tiny processes with the same sockets
 * (CURVE, DEALER to ROUTER), two commits, the same rows and bytes, one delivered frame. No protocol logic: a message is
 * a record of the right size whose filler nobody reads.
 *
 *   driver ══ TCP ══ edge 0, edge 1 ──DEALER→ROUTER── router ──DEALER→ROUTER── store
 *
 * SEND goes in at one edge; the store commits it (log row, then entry and dedupe rows) and answers SENT and DELIVER;
 * the router makes DELIVER an APPEND; the store commits that (log row, then two inbox and two position rows) and
 * answers APPENDED; the router makes that LIVE for the other edge, which writes it to the receiver's socket, and
 * DELIVERED for the store. Everything is batched per turn of a loop: one frame per peer, one write per socket, one sync
 * per group. */
#ifndef TESTS_BENCH_BARE_H
#define TESTS_BENCH_BARE_H

#include <stdatomic.h>
#include <stdint.h>

#include "mesh/buf.h"

#define BARE_EDGES 2
#define BARE_ACK_EVERY 32

typedef enum bare_kind {
    BARE_SEND, /* client -> edge */
    BARE_SENT, /* edge -> client */
    BARE_MESSAGE,
    BARE_ACK, /* client -> edge, one for BARE_ACK_EVERY messages */
    BARE_MESH_SEND,
    BARE_MESH_SENT,
    BARE_DELIVER,
    BARE_APPEND,
    BARE_APPENDED,
    BARE_DELIVERED,
    BARE_LIVE,
    BARE_MESH_ACK,
    BARE_KINDS
} bare_kind;

typedef struct bare_record { /* the head of every record; filler follows up to size */
    uint32_t size;
    uint32_t kind;
    uint32_t pair;
    uint32_t n;
} bare_record;

typedef struct bare_keys {
    char public_key[41], secret_key[41];
} bare_keys;

typedef struct bare_shared { /* mapped into all processes */
    atomic_uint_fast64_t rows, row_bytes, syncs, frames;
} bare_shared;

typedef struct bare_conf {
    unsigned pairs, window;
    double warm_s, seconds;
    char dir[128];
    char router[64], store[64]; /* endpoints */
    bare_keys router_key, store_key, client_key;
    int listener[BARE_EDGES];
    uint16_t port[BARE_EDGES];
    bare_shared *shared;
    unsigned commits; /* 2, or 1: the inbox rows join the first, and APPEND and APPENDED fall away */
} bare_conf;

/* A receiver is not on its sender's edge. */
static inline unsigned bare_edge_of(unsigned pair, unsigned receiver)
{
    return (pair + receiver) % BARE_EDGES;
}

/* Append one record with filler. */
void bare_put(mesh_buf *out, bare_kind kind, uint32_t pair, uint32_t n);
/* The next whole record of bytes at *at, NULL when there is none. */
const bare_record *bare_next(const mesh_buf *bytes, size_t *at);
const char *bare_filler(void);             /* 4 KiB that do not compress to nothing */
void bare_check(int ok, const char *what); /* or print and exit */

/* Processes: none of these returns. */
void bare_edge(const bare_conf *conf, unsigned self);
void bare_router(const bare_conf *conf);
void bare_store(const bare_conf *conf);

/* ---- sockets ---- */
void *bare_listen(void *context, const char *endpoint, const bare_keys *keys);
void *bare_dial(void *context, const char *endpoint, const bare_keys *to, const bare_keys *own, const char *name);
void bare_send(void *socket, const char *to, mesh_buf *frame); /* to NULL: a dialer; empties frame */
/* False: nothing there. from (size 8, may be NULL) gets the sender's name. */
int bare_receive(void *socket, char *from, mesh_buf *frame);

#endif
