/* router/requests.h: requests to stores that have no answer yet, by correlation id, and in the order in which they
 * expire. Bounded by ROUTER_INFLIGHT_MAX, and what is kept of them by ROUTER_HELD_BYTES_MAX; both are shared by the
 * shards (router/share.h). Nearly all have the same time to live, so a new one's place is searched from the newest on.
 *
 * A request also stands in one of four lists that say what comes next: TRIED (a store has it; at `due` that store has
 * been silent for too long), PAUSED (to be sent at `due`), PARKED (no store is there to send it to), UNSENT (it waits
 * for other requests and is never sent itself). TRIED and PAUSED are in order of `due`; a new one's place is searched
 * from the last on, and nearly always it is there. */
#ifndef ROUTER_REQUESTS_H
#define ROUTER_REQUESTS_H

#include "mesh/buf.h"
#include "mesh/clock.h"
#include "mesh/conf.h"

typedef enum router_request_kind {
    ROUTER_FORWARD, /* an edge's request, answered as it comes */
    ROUTER_ATTACH,
    ROUTER_ACK,
    ROUTER_CHATS_ROWS,  /* first step of a chat list */
    ROUTER_CHATS_LIST,  /* second: never sent, waits for the next ones */
    ROUTER_CHATS_HEADS, /* its part of one shard; from_corr: of the list */
    ROUTER_APPEND,
    ROUTER_PULL,
    ROUTER_RELAY /* a store's, of another shard */
} router_request_kind;

typedef enum router_request_list {
    ROUTER_TRIED,
    ROUTER_PAUSED,
    ROUTER_PARKED,
    ROUTER_UNSENT,
    ROUTER_REQUEST_LISTS
} router_request_list;

typedef struct router_request {
    uint64_t corr; /* ours */
    router_request_kind kind;
    uint32_t charged; /* the shard whose share of the limits it takes: the one it was first for */
    uint32_t shard;
    bool bound; /* to that shard; otherwise it is asked of whoever stores the slot when it is sent */
    mesh_slot slot;
    mesh_peer to;   /* the store asked last, MESH_NO_PEER: none yet */
    mesh_peer from; /* who gets the answer: an edge, the outbox's store, or MESH_NO_PEER */
    uint64_t from_corr;
    uint64_t trace;
    mesh_ms deadline;
    uint64_t session; /* attach, ack, pull, chats of a resync */
    bool has_more;    /* chats: of the first step */
    uint8_t *held;    /* append: the packed Deliver; chats: the user's id, the list; freed with the request */
    size_t held_size;
    struct router_request *older, *newer;
    router_request_list list;
    mesh_ms due;
    struct router_request *prev, *next; /* in its list */
    size_t kept_size;
    uint8_t kept[]; /* what is sent: the packed message without corr and ttl_ms */
} router_request;

typedef struct router_requests router_requests;

/* corr starts from boot, so answers of an earlier life match nothing. conf: borrowed for its life */
router_requests *router_requests_new(const mesh_conf *conf, uint64_t boot);
void router_requests_destroy(router_requests **requests_p);
/* A zeroed request with its corr, kind, shard and deadline set, in the table, PARKED; kept, of kept_size bytes, is to
 * be written. NULL when full. Borrowed. */
router_request *router_requests_add(router_requests *requests, router_request_kind kind, uint32_t shard,
                                    mesh_ms deadline, size_t kept_size);
/* A new corr: an answer to the old one is nobody's. */
void router_requests_rename(router_requests *requests, router_request *req);
router_request *router_requests_find(const router_requests *requests, uint64_t corr); /* NULL: not there */
void router_requests_remove(router_requests *requests, router_request *req);          /* frees it and what it held */
router_request *router_requests_oldest(const router_requests *requests);              /* the first to expire */
size_t router_requests_count(const router_requests *requests);

/* Into this list, wherever it was. */
void router_requests_move(router_requests *requests, router_request *req, router_request_list list, mesh_ms due);
router_request *router_requests_first(const router_requests *requests, router_request_list list); /* NULL: empty */

#endif
