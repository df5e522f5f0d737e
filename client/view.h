/* client/view.h: a cluster as its nodes' metrics show it, beside what the config says. Pure: text in, text out. */
#ifndef CLIENT_VIEW_H
#define CLIENT_VIEW_H

#include "mesh/buf.h"
#include "mesh/conf.h"

#define CLIENT_VIEW_NO_SHARD UINT32_MAX
#define CLIENT_VIEW_LAG_MAX 2000 /* entries; a replica that is further behind is a problem */

typedef enum client_member_role {
    CLIENT_NO_MEMBER, /* of the group, as its leader sees it; also while there is no leader */
    CLIENT_TAKEN_OUT, /* by an operator */
    CLIENT_STANDBY,
    CLIENT_VOTER
} client_member_role;

typedef struct client_node_view {
    const mesh_node_conf *node; /* borrowed from the config */
    bool up;
    char version[32];
    uint64_t uptime_s, started_ms;
    uint64_t epoch; /* of its ring */
    bool live;      /* routers: in the ring of shard 0's leader */
    bool listed;    /* routers: that leader's config has it */
    bool other;     /* it runs with another config than the operator's */
    bool fresh;     /* some node runs with another config, and this one seems to be new in the operator's */
    /* stores */
    bool leader, open, space_low;
    client_member_role role;
    uint64_t term, last, commit;
    uint64_t applied; /* nothing is left to apply up to here, whether the entries change rows or not */
    uint64_t on_disk; /* as its leader knows */
    uint64_t lag;     /* entries the leader has and it is not known to have */
} client_node_view;

typedef struct client_shard_view {
    mesh_peer leader; /* MESH_NO_PEER: none */
    unsigned stores, voters;
    uint64_t slots, term;
} client_shard_view;

typedef struct client_view client_view;

/* texts: by node of the config, NULL: it did not answer. Both are borrowed for the call only, conf for the view's life.
 */
client_view *client_view_new(const mesh_conf *conf, const char *const *texts);
void client_view_destroy(client_view **view_p);

size_t client_view_nodes(const client_view *view); /* of the config */
const client_node_view *client_view_node(const client_view *view, mesh_peer peer);
uint64_t client_view_epoch(const client_view *view); /* of the ring in force, as far as any store knows */
size_t client_view_shards(const client_view *view);
const client_shard_view *client_view_shard(const client_view *view, uint32_t shard);
/* The shard that has a slot, by the map of shard 0's leader; CLIENT_VIEW_NO_SHARD: it is not known. */
uint32_t client_view_shard_of(const client_view *view, mesh_slot slot);
/* What is not as the config says, a line each, in the order of the config. */
size_t client_view_problems(const client_view *view);
const char *client_view_problem(const client_view *view, size_t i);
/* Those that are there for another reason than that nodes run with an older config. */
size_t client_view_serious(const client_view *view);

/* ---- view_print.c ---- */
void client_view_text(const client_view *view, mesh_buf *out); /* for people: one screen */
void client_view_json(const client_view *view, mesh_buf *out); /* one object, one line */

#endif
