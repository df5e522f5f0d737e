/* router/leaders.h: which store of each shard to ask: who is up, who leads as far as known, who is tried next.
 *
 * A shard's target is the store that requests go to. It is known to lead when it said so (Leading) or answered; a store
 * that refuses, goes down or keeps silent is not, and the target moves: to the one it names, when that one is up, else
 * to the next one up. Each such move begins a pause, ROUTER_PAUSE_MIN_MS, twice as long each time, up to
 * ROUTER_PAUSE_MAX_MS, in which nothing is sent to the shard; an answer or a Leading ends it. Only what the target does
 * counts: a hundred refusals of a store that is not asked any more are one. A shard of one store has nobody to move to:
 * its target is always that store. */
#ifndef ROUTER_LEADERS_H
#define ROUTER_LEADERS_H

#include "mesh/clock.h"
#include "mesh/conf.h"

#define ROUTER_PAUSE_MIN_MS 20
#define ROUTER_PAUSE_MAX_MS 500

typedef struct router_leaders router_leaders;

router_leaders *router_leaders_new(const mesh_conf *conf); /* all down; conf borrowed for its life */
void router_leaders_destroy(router_leaders **leaders_p);

/* Whom to ask. MESH_NO_PEER: no store of the shard is up, or it has none. */
mesh_peer router_leaders_target(const router_leaders *leaders, uint32_t shard);
mesh_ms router_leaders_ready_at(const router_leaders *leaders, uint32_t shard); /* not before; 0: at once */
bool router_leaders_known(const router_leaders *leaders, uint32_t shard);       /* the target is known to lead */
uint64_t router_leaders_term(const router_leaders *leaders, uint32_t shard);    /* the highest said; 0: none yet */
size_t router_leaders_stores(const router_leaders *leaders, uint32_t shard);    /* how many the shard has */

/* Shards that have stores, i < count, by number. */
size_t router_leaders_count(const router_leaders *leaders);
uint32_t router_leaders_shard(const router_leaders *leaders, size_t i);
uint64_t router_leaders_changes(const router_leaders *leaders); /* another store than before is known to lead */

/* What stores do; `store` is one of the config's stores. */
void router_leaders_up(router_leaders *leaders, mesh_peer store);
void router_leaders_down(router_leaders *leaders, mesh_peer store, mesh_time now);
void router_leaders_answered(router_leaders *leaders, mesh_peer store);
void router_leaders_refused(router_leaders *leaders, mesh_peer store, mesh_peer hint, mesh_time now); /* or NO_PEER */
void router_leaders_silent(router_leaders *leaders, mesh_peer store, mesh_time now);
/* It says that it leads. Errors: MESH_STALE a leader of a later term is known, or the store is down; nothing changed.
 */
MESH_MUST mesh_err router_leaders_leading(router_leaders *leaders, mesh_peer store, uint64_t term);

#endif
