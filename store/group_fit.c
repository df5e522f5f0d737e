/* store/group_fit.c: what replicas tell each other of themselves and of what they have confirmed, and who is fit to
 * vote. The reasons are in store/group.h. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "mesh/log.h"
#include "store/group_priv.h"

#define INDEX_MAX (1ull << 56) /* more is nonsense */

/* ---- telling ---- */

typedef struct word { /* a Replica and what it points to */
    Mesh__Replica replica;
    Mesh__Confirmed items[STORE_MEMBERS_MAX], *confirmed[STORE_MEMBERS_MAX];
} word;

static void add_confirmed(const store_consensus *cons, word *w)
{
    store_confirmed list[STORE_MEMBERS_MAX];
    w->replica.n_confirmed = store_consensus_confirmed_all(cons, list);
    w->replica.confirmed = w->confirmed;
    for (size_t i = 0; i < w->replica.n_confirmed; i++) {
        mesh__confirmed__init(&w->items[i]);
        w->items[i].raft_id = list[i].raft_id;
        w->items[i].index = list[i].index;
        w->confirmed[i] = &w->items[i];
    }
}

static void describe(const store_group *group, const store_consensus *cons, word *w)
{
    Mesh__Replica *self = &w->replica;
    mesh__replica__init(self);
    self->shard = mesh_conf_node(group->conf, group->self)->shard;
    self->state = state_of(cons, group->lost);
    self->lost = group->lost;
    self->level = STORE_GROUP_LEVEL;
    self->low_space = group->low_space;
    if (cons != NULL) {
        self->raft_id = store_consensus_id(cons);
        self->term = store_consensus_term(cons);
        self->last_index = store_consensus_last_index(cons);
        add_confirmed(cons, w);
    }
}

/* The raft id at this place, if it is known here to have no vote; for ever, as long as this one leads. */
static uint64_t spare_at(const store_group *group, const store_consensus *cons, size_t at)
{
    store_replica_role list[STORE_MEMBERS_MAX];
    if (cons == NULL || !store_consensus_leader(cons) || store_consensus_changing(cons)) {
        return 0;
    }
    size_t n = members(cons, list);
    const store_replica_role *member = member_of(list, n, group->replicas[at].raft_id);
    return member != NULL && member->role == STORE_SPARE ? member->raft_id : 0;
}

void group_tell_one(const store_group *group, const store_consensus *cons, size_t at, uint64_t unfit, mesh_out *out)
{
    word w;
    describe(group, cons, &w);
    w.replica.unfit = unfit;
    w.replica.asks = !group->replicas[at].heard;
    w.replica.no_vote = spare_at(group, cons, at);
    MESH_MSG(msg, REPLICA, replica, &w.replica);
    mesh_out_put(out, group->peers[at], &msg);
}

/* The leader has seen that somebody confirmed more. */
static bool has_learnt(const store_group *group, store_consensus *cons)
{
    if (cons == NULL || !store_consensus_leader(cons)) {
        return false;
    }
    store_consensus_take_stock(cons);
    return store_consensus_learnt(cons) != group->told_learnt;
}

/* Its link is new, and it has not been heard. */
static bool is_awaited(const store_group *group, const replica *r)
{
    return !r->heard && group->awake < r->up_at + STORE_FIT_WAIT_MS;
}

/* Tell those who want to hear it, or all. True: somebody is awaited. */
static bool tell_peers(store_group *group, const store_consensus *cons, bool all, bool due, mesh_out *out)
{
    bool awaits = false;
    for (size_t i = 0; i < group->n; i++) {
        replica *r = &group->replicas[i];
        if (!r->up) {
            continue;
        }
        r->up_at = r->up_at == 0 ? group->awake : r->up_at;
        bool awaited = is_awaited(group, r);
        if (all || r->asks || (due && awaited)) {
            group_tell_one(group, cons, i, 0, out);
            r->asks = false;
        }
        awaits = awaits || awaited;
    }
    return awaits;
}

/* A process that was stopped, or slow to begin, has not listened meanwhile. */
static void pass_time(store_group *group, mesh_time now)
{
    mesh_ms passed = group->seen > 0 ? now.mono - group->seen : 1;
    group->awake += passed < STORE_GROUP_TELL_MS ? passed : STORE_GROUP_TELL_MS;
    group->seen = now.mono;
}

static void say_silent(store_group *group, const store_consensus *cons, mesh_time now);

mesh_ms store_group_tell(store_group *group, store_consensus *cons, mesh_time now, mesh_out *out)
{
    if (group->n == 1) {
        return MESH_NEVER;
    }
    pass_time(group, now);
    if (group->lost && cons != NULL && store_group_votes(cons)) {
        group->lost = false; /* it has a part in the group again */
    }
    Mesh__ReplicaState state = state_of(cons, group->lost);
    bool settled = state == MESH__REPLICA_STATE__REPLICA_MEMBER;
    bool learnt = has_learnt(group, cons), due = now.mono >= group->next_tell;
    bool all = !group->told || state != group->told_state || (due && (learnt || !settled));
    bool awaits = tell_peers(group, cons, all, due, out);
    if (all) {
        group->told = true;
        group->told_state = state;
        group->told_learnt = learnt ? store_consensus_learnt(cons) : group->told_learnt;
        learnt = false;
    }
    if (all || (due && awaits)) {
        group->next_tell = now.mono + STORE_GROUP_TELL_MS;
    }
    say_silent(group, cons, now);
    mesh_ms next = settled && !awaits && !learnt ? MESH_NEVER : group->next_tell;
    mesh_ms look = store_group_waits(group, cons) ? now.mono + STORE_GROUP_TELL_MS : MESH_NEVER; /* at the time */
    return look < next ? look : next;
}

/* ---- judging ---- */

bool group_is_word(const Mesh__Replica *msg)
{
    bool ok = msg->n_confirmed <= STORE_MEMBERS_MAX;
    for (size_t i = 0; ok && i < msg->n_confirmed; i++) {
        ok = msg->confirmed[i]->raft_id != 0 && msg->confirmed[i]->index <= INDEX_MAX;
    }
    return ok;
}

static void call_stale(const store_group *group, const store_consensus *cons, mesh_peer peer, const Mesh__Replica *msg,
                       mesh_out *out)
{
    mesh_log(MESH_ERROR, "stale_replica", "node=%s last_index=%" PRIu64 " confirmed=%" PRIu64,
             mesh_conf_node(group->conf, peer)->name, msg->last_index, store_consensus_match(cons, msg->raft_id));
    for (size_t i = 0; i < group->n; i++) {
        if (group->peers[i] == peer) {
            group_tell_one(group, cons, i, msg->raft_id, out);
        }
    }
}

void store_group_judge(store_group *group, store_consensus *cons, mesh_peer peer, const Mesh__Replica *msg,
                       mesh_out *out)
{
    if (cons == NULL) {
        return;
    }
    for (size_t i = 0; i < msg->n_confirmed; i++) {
        store_consensus_learn(cons, msg->confirmed[i]->raft_id, msg->confirmed[i]->index);
    }
    bool by_leader = msg->term >= store_consensus_term(cons) && !store_consensus_leader(cons);
    group->no_vote = group->no_vote || (by_leader && msg->no_vote != 0 && msg->no_vote == store_consensus_id(cons));
    if (msg->raft_id == 0) {
        return;
    }
    if (store_consensus_leader(cons) && msg->term <= store_consensus_term(cons) &&
        msg->last_index < store_consensus_match(cons, msg->raft_id)) {
        call_stale(group, cons, peer, msg, out);
    } else if (msg->last_index < store_consensus_confirmed(cons, msg->raft_id)) {
        find(group, peer)->asks = true; /* it sees for itself, if it has not seen it yet */
    }
}

bool store_group_is_unfit(const store_consensus *cons, const Mesh__Replica *msg)
{
    return cons != NULL &&
           (store_consensus_forgot(cons) || (msg->unfit != 0 && msg->unfit == store_consensus_id(cons) &&
                                             msg->term >= store_consensus_term(cons) && !store_consensus_leader(cons)));
}

/* ---- voting ---- */

void store_group_started(store_group *group, const store_consensus *cons)
{
    group->waits = store_consensus_voters(cons) > 1;
}

/* Every other store that has a vote was heard. */
static bool all_voters_heard(const store_group *group, const store_consensus *cons)
{
    store_replica_role list[STORE_MEMBERS_MAX];
    char node[MESH_NODE_NAME_MAX + 1];
    size_t n = members(cons, list);
    for (size_t i = 0; i < n; i++) {
        mesh_peer peer = mesh_conf_find(group->conf, store_group_node(list[i].address, node));
        for (size_t j = 0; list[i].role == STORE_VOTER && j < group->n; j++) {
            if (group->peers[j] == peer && peer != group->self && !group->replicas[j].heard) {
                return false;
            }
        }
    }
    return true;
}

bool store_group_waits(store_group *group, const store_consensus *cons)
{
    group->waits = group->waits && group->awake < STORE_FIT_WAIT_MS && !all_voters_heard(group, cons);
    return group->waits;
}

static bool may_vote_with(store_group *group, const store_consensus *cons, mesh_peer peer)
{
    const replica *r = find(group, peer);
    bool known = r != NULL && (r->heard || (r->up_at != 0 && !is_awaited(group, r)));
    return known && !store_group_waits(group, cons);
}

bool store_group_takes(store_group *group, const store_consensus *cons, mesh_peer from, const Mesh__Raft *msg)
{
    switch (msg->kind) {
    case MESH__RAFT_KIND__RAFT_VOTE:
    case MESH__RAFT_KIND__RAFT_ELECT_NOW:
        return may_vote_with(group, cons, from);
    case MESH__RAFT_KIND__RAFT_APPEND:
    case MESH__RAFT_KIND__RAFT_INSTALL:
        group->no_vote = false; /* spares get nothing */
        return true;
    default:
        return true;
    }
}

bool store_group_gives(store_group *group, const store_consensus *cons, mesh_peer to, const Mesh__Raft *msg)
{
    return msg->kind != MESH__RAFT_KIND__RAFT_VOTE || (!group->no_vote && may_vote_with(group, cons, to));
}

/* ---- silence ---- */

static const char *name_of(const replica *r)
{
    static const char *const names[] = {
        [MESH__REPLICA_STATE__REPLICA_EMPTY] = "empty",   [MESH__REPLICA_STATE__REPLICA_JOINING] = "joining",
        [MESH__REPLICA_STATE__REPLICA_MEMBER] = "member", [MESH__REPLICA_STATE__REPLICA_FORMER] = "former",
        [MESH__REPLICA_STATE__REPLICA_LOST] = "lost",
    };
    return r->heard ? names[r->state] : "not_heard";
}

/* What a person can do about it. */
static const char *advice(const store_group *group)
{
    bool all_heard = true, member = false;
    for (size_t i = 0; i < group->n; i++) {
        const replica *r = &group->replicas[i];
        all_heard = all_heard && (r->heard || group->peers[i] == group->self);
        member = member || (r->heard && r->state == MESH__REPLICA_STATE__REPLICA_MEMBER);
    }
    return member       ? "no leader takes it in: a majority of the members must run and hear each other"
           : !all_heard ? "start the stores that are not heard, and look at their links: they may have data"
                        : "no store has data, but one was told that another had: restore a backup; if nothing was ever "
                          "stored, stop the stores of the shard, remove their directories and start them";
}

/* One without data, or in whose log nothing is, and that gets nothing. */
static bool is_silent(const store_group *group, const store_consensus *cons)
{
    bool nothing =
        cons == NULL || (store_consensus_last_index(cons) == 0 && store_consensus_role(cons) != STORE_WANTS_STATE);
    return nothing && !store_group_all_lost(group, cons); /* that is said elsewhere */
}

static void say_silent(store_group *group, const store_consensus *cons, mesh_time now)
{
    char stores[MESH_REPLICAS_MAX * (MESH_NODE_NAME_MAX + 16)] = "";
    if (!is_silent(group, cons)) {
        group->silent_since = 0;
        group->said_silent = false;
        return;
    }
    group->silent_since = group->silent_since == 0 ? now.mono : group->silent_since;
    if (group->said_silent || now.mono < group->silent_since + STORE_GROUP_SILENT_MS) {
        return;
    }
    for (size_t i = 0, used = 0; i < group->n; i++) {
        if (group->peers[i] != group->self) {
            used += (size_t)snprintf(stores + used, sizeof stores - used, "%s%s:%s", used > 0 ? "," : "",
                                     mesh_conf_node(group->conf, group->peers[i])->name, name_of(&group->replicas[i]));
        }
    }
    group->said_silent = true;
    mesh_log(MESH_WARN, "nothing_to_begin_with", "shard=%u this=%s stores=%s next=%s",
             mesh_conf_node(group->conf, group->self)->shard,
             cons != NULL  ? "joining"
             : group->lost ? "lost"
                           : "empty",
             stores, advice(group));
}
