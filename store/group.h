/* store/group.h: how a shard's Raft group begins, how a replica comes into it and whom it replaces there.
 *
 * The stores of a shard tell each other what they are (Replica): when a link comes up, when it changes, and every
 * STORE_GROUP_TELL_MS until they are members.
 *
 *   no data  --all the others are up and have none either, and this one is the first of them in the config--> founds
 *            --another one has data--> joins: a new raft id, an empty log
 *   joining  --the leader hears of it: adds it without a vote, waits until it has caught up, gives it a vote, and
 *              takes out whoever had its address before--> member
 *
 * So a first start, a replica added to the config, and one whose disk was lost are one path. A replica that lost its
 * data never comes back under its old id, whose votes and acknowledgements it has forgotten. A shard of one store
 * founds at once.
 *
 * A store that an operator takes out stays in the configuration as a spare and has no voter: that is how every leader
 * to come knows that it is not to come back by itself, whatever its id. Adding it again makes the spare a standby, and
 * the rest is joining.
 *
 * A replica whose data was put aside (store_kv_quarantine) is lost until it votes again: it joins like an empty one,
 * but while any is lost nobody founds. When none of the others has data either, the shard stands still and says so
 * (store_group_all_lost): a new group would hide that everything acked is gone.
 *
 * A copy of a member's data that is older than what the member has confirmed (somebody put it back) must not vote: it
 * has forgotten acknowledgements that made entries committed. What a raft id has confirmed and is committed is true for
 * ever, so the leader tells all of it when it has grown, every STORE_GROUP_TELL_MS at most, everybody keeps it, also on
 * disk (store_consensus_confirmed), and everybody says it when a link comes up. A replica that hears of itself more
 * than its log has puts its data aside, whoever says so. Its own row proves nothing: it is of the same copy.
 *
 * It must hear that before it votes. So no vote is asked for or given over a link before the other side was heard, and
 * a replica that starts with data asks for none and gives none, to nobody, before all other voters were heard. A store
 * that is down must not hold up the others, so both end after STORE_FIT_WAIT_MS, not counting time in which the process
 * got no turn.
 *
 * In its own reign a leader knows more: what a replica has confirmed and is not committed yet. And it knows which ids
 * are in the configuration no more. It says both (unfit); the replica believes it when the leader's term is not below
 * its own. An outdated leader can say neither: a log is cut, and an id added, only in a later term than its own, which
 * the replica then has.
 *
 * What is not detected: an old copy that hears nobody who knows better within STORE_FIT_WAIT_MS, because all of them
 * are down or cut off, and then votes for a replica that lacks the entries, too. That takes two faults at once. And a
 * copy that is younger than the last word: what was confirmed in the last STORE_GROUP_TELL_MS of a leader that died
 * since, or in the last STORE_CONFIRMED_SAVE_MS when all have died since, may be known to nobody.
 *
 * A spare is told that it has no vote and asks for none until a leader sends it entries again.
 *
 * What goes wrong: some store is down at the very first start -> the shard waits for it, since it might have data; a
 * replica with the data of an id that was taken out -> nobody listens to it, and it says so (store_group_is_former). */
#ifndef STORE_GROUP_H
#define STORE_GROUP_H

#include "mesh/clock.h"
#include "mesh/conf.h"
#include "mesh/out.h"
#include "store/consensus.h"

#define STORE_GROUP_TELL_MS 250
#define STORE_FIT_WAIT_MS 1500     /* a replica that starts waits so long for the others before it votes */
#define STORE_GROUP_SILENT_MS 5000 /* without data, and nothing happens: say so, once */
/* Raised with every new kind of log entry. A leader writes the new kind only while store_group_level is as high. */
#define STORE_GROUP_LEVEL 2
#define STORE_GROUP_LEVEL_ATTACH_ONCE 2 /* attach_once */
#define STORE_GROUP_ADDRESS (MESH_NODE_NAME_MAX + 18)

typedef struct store_group store_group;

typedef enum store_group_way { STORE_GROUP_WAIT, STORE_GROUP_FOUND, STORE_GROUP_JOIN } store_group_way;

/* conf is borrowed. lost: this replica's data was put aside, and it has not voted since. */
store_group *store_group_new(const mesh_conf *conf, mesh_peer self, bool lost);
void store_group_destroy(store_group **group_p);
size_t store_group_stores(const store_group *group); /* of the shard, in the config */

/* A replica's address in the configuration is its node's name and its raft id, "store2.8f00ba5e12345678": libraft wants
 * it unique, and a node may be there twice while its new replica takes the place of its old one. Returns out. */
const char *store_group_address(const char *node, uint64_t raft_id, char out[STORE_GROUP_ADDRESS]);
/* The name in an address, "" when there is none. Returns out. */
char *store_group_node(const char *address, char out[MESH_NODE_NAME_MAX + 1]);

void store_group_set_space(store_group *group, bool enough); /* of this replica's disk; the others are told */
void store_group_up(store_group *group, mesh_peer peer);     /* another store of the shard */
void store_group_down(store_group *group, mesh_peer peer);
/* Errors: MESH_MALFORMED no such state, another shard, or not from a store of the shard. */
MESH_MUST mesh_err store_group_heard(store_group *group, mesh_peer peer, const Mesh__Replica *msg);

/* What a replica without data does now. */
store_group_way store_group_decide(const store_group *group);
/* Tell the others what this replica is, if it is time; cons NULL: it has no data. Returns the next deadline. */
mesh_ms store_group_tell(store_group *group, store_consensus *cons, mesh_time now, mesh_out *out);
/* The leader's next step towards every store that was heard being a voter, and nobody else having its address. */
void store_group_lead(store_group *group, store_consensus *cons, mesh_time now, mesh_out *out);
/* After store_group_heard, in any role: learn what it knows, and tell it when it has forgotten what it had confirmed.
 */
void store_group_judge(store_group *group, store_consensus *cons, mesh_peer peer, const Mesh__Replica *msg,
                       mesh_out *out);
/* After store_group_judge: by this word this replica is unfit, and its data is to be put aside. */
bool store_group_is_unfit(const store_consensus *cons, const Mesh__Replica *msg);

/* ---- votes ---- */

/* Once, when consensus was opened on data that was there before: no votes until all are heard that could know better.
 */
void store_group_started(store_group *group, const store_consensus *cons);
bool store_group_waits(store_group *group, const store_consensus *cons); /* still */
/* Whether consensus may see this message of a peer, and whether the peer may see this one: all but those that could
 * make a leader while one of both may have forgotten something. Losing them is always allowed. */
bool store_group_takes(store_group *group, const store_consensus *cons, mesh_peer from, const Mesh__Raft *msg);
bool store_group_gives(store_group *group, const store_consensus *cons, mesh_peer to, const Mesh__Raft *msg);

/* Some replica is lost, all were heard, and none of them has data. */
bool store_group_all_lost(const store_group *group, const store_consensus *cons);
/* Another voter that is up and has not said that it is short of space, the one that is furthest; 0: there is none. One
 * of an older version never says so. */
uint64_t store_group_roomy(const store_group *group, const store_consensus *cons);
/* The lowest level of all voters; 0: one of them was not heard. */
uint32_t store_group_level(const store_group *group, const store_consensus *cons);

/* ---- an operator's wishes, at the leader: one step each, to be asked again until it is so ---- */

/* Is this node taken out? */
bool store_group_removed(const store_consensus *cons, const char *node);
/* The vote goes first. OK: submitted, or nothing is left to do. Errors: MESH_NOT_FOUND it is no member; MESH_DENIED it
 * leads (hand over first), or is the last voter; MESH_AGAIN, MESH_STALE as store_consensus_change. */
MESH_MUST mesh_err store_group_remove(store_consensus *cons, const char *node, mesh_time now);
/* OK: submitted, or it may be a member already. Errors: as store_consensus_change. */
MESH_MUST mesh_err store_group_add(store_consensus *cons, const char *node, mesh_time now);
/* Hand the leadership to this node, "": to the one that is furthest. Errors: MESH_NOT_FOUND no other voter is it;
 * MESH_STALE as store_consensus_transfer. */
MESH_MUST mesh_err store_group_transfer(store_consensus *cons, const char *node, mesh_time now);

/* ---- how it is ---- */

bool store_group_votes(const store_consensus *cons);
/* The log says that this replica was a member and is none. */
bool store_group_is_former(const store_consensus *cons);

#endif
