/* router/registry.h: the live sessions of the users whose slots this router owns: which edge has them, what each was
 * sent and has acknowledged. Soft state: an edge tells it anew by attaching. */
#ifndef ROUTER_REGISTRY_H
#define ROUTER_REGISTRY_H

#include "mesh/clock.h"
#include "mesh/conf.h"

typedef enum router_session_state {
    ROUTER_ATTACHING, /* registered; `next` not known yet: only head may rise */
    ROUTER_SYNCING,   /* starts from resync: the chat list is being read before anything is sent */
    ROUTER_LIVE       /* entry `next` is sent as soon as it is there and credit allows */
} router_session_state;

typedef struct router_user router_user;

typedef struct router_session {
    uint64_t id;
    router_user *user;
    struct router_session *sibling; /* next session of the same user */
    size_t index;                   /* in the registry's dense list */
    mesh_peer edge;
    router_session_state state;
    char device[MESH_ID_MAX + 1];
    uint64_t attach_corr; /* of the attach on its way; an older one's answer is void */
    uint64_t asked_after; /* what that attach asked to go on from */
    mesh_ms opened_at;    /* when its socket was opened, by this node's clock */
    uint64_t attempt;     /* its hello's number by the device's own count, 0: none */
    uint64_t generation;
    uint64_t era;
    uint64_t next;     /* inbox_seq to be sent next */
    uint64_t acked;    /* cumulative, by the device */
    uint64_t head;     /* highest inbox_seq known to exist */
    uint64_t ack_sent; /* highest told to the store */
    uint64_t pulling;  /* corr of the page on its way, 0: none; an older one's answer is void */
    bool ack_flying;
    char *name; /* display name, kept while syncing; NULL otherwise */
} router_session;

struct router_user {
    char *qid;
    mesh_slot slot;
    router_session *sessions;
};

typedef struct router_registry router_registry;

router_registry *router_registry_new(const mesh_hash_key *key, size_t max); /* key borrowed; max: sessions */
void router_registry_destroy(router_registry **registry_p);

/* A new session in state ATTACHING. NULL when there are max already. The id must not be in use. Borrowed. */
router_session *router_registry_claim(router_registry *registry, uint64_t id, const char *user_qid, const char *device,
                                      mesh_peer edge);
void router_registry_release(router_registry *registry, router_session *session);
router_session *router_registry_find(const router_registry *registry, uint64_t id);       /* NULL: not there */
router_user *router_registry_user(const router_registry *registry, const char *user_qid); /* NULL: no session here */
size_t router_registry_count(const router_registry *registry);
router_session *router_registry_at(const router_registry *registry, size_t i); /* dense, any order; moves on release */

#endif
