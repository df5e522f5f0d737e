/* router/requests.h: requests sent to stores that have no answer yet, by correlation id, and in the order in which they
 * expire. Bounded by ROUTER_INFLIGHT_MAX. Nearly all have the same time to live, so a new one's place is searched from
 * the newest on. */
#ifndef ROUTER_REQUESTS_H
#define ROUTER_REQUESTS_H

#include "mesh/clock.h"
#include "mesh/conf.h"

typedef enum router_request_kind {
    ROUTER_FORWARD, /* an edge's request, answered as it comes */
    ROUTER_ATTACH,
    ROUTER_ACK,
    ROUTER_CHATS_ROWS,  /* first step of a chat list */
    ROUTER_CHATS_HEADS, /* second */
    ROUTER_APPEND,
    ROUTER_PULL
} router_request_kind;

typedef struct router_request {
    uint64_t corr; /* ours */
    router_request_kind kind;
    mesh_peer to;   /* the store asked */
    mesh_peer from; /* who gets the answer: an edge, the outbox's store, or MESH_NO_PEER */
    uint64_t from_corr;
    uint64_t trace;
    mesh_ms deadline;
    uint64_t session; /* attach, ack, pull, chats of a resync */
    bool has_more;    /* chats: of the first step */
    uint8_t *held;    /* append: the packed Deliver; chats: the user's id; freed with the request */
    size_t held_size;
    struct router_request *older, *newer;
} router_request;

typedef struct router_requests router_requests;

router_requests *
router_requests_new(uint64_t boot); /* corr starts from boot, so answers of an earlier life match nothing */
void router_requests_destroy(router_requests **requests_p);
/* A zeroed request with its corr, kind and deadline set, in the table. NULL when full. Borrowed. */
router_request *router_requests_add(router_requests *requests, router_request_kind kind, mesh_ms deadline);
router_request *router_requests_find(const router_requests *requests, uint64_t corr); /* NULL: not there */
void router_requests_remove(router_requests *requests, router_request *req);          /* frees it and what it held */
router_request *router_requests_oldest(const router_requests *requests);              /* the first to expire */
size_t router_requests_count(const router_requests *requests);

#endif
