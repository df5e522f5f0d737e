#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mesh/alloc.h"
#include "mesh/log.h"
#include "store/group_priv.h"

store_group *store_group_new(const mesh_conf *conf, mesh_peer self, bool lost)
{
    store_group *group = mesh_alloc(sizeof *group);
    group->conf = conf;
    group->self = self;
    group->lost = lost;
    group->n = mesh_conf_stores(conf, mesh_conf_node(conf, self)->shard, group->peers);
    return group;
}

void store_group_destroy(store_group **group_p)
{
    free(*group_p);
    *group_p = NULL;
}

size_t store_group_stores(const store_group *group)
{
    return group->n;
}

const char *store_group_address(const char *node, uint64_t raft_id, char out[STORE_GROUP_ADDRESS])
{
    snprintf(out, STORE_GROUP_ADDRESS, "%s.%016" PRIx64, node, raft_id);
    return out;
}

char *store_group_node(const char *address, char out[MESH_NODE_NAME_MAX + 1])
{
    size_t size = strcspn(address, ".");
    size = size <= MESH_NODE_NAME_MAX ? size : 0;
    memcpy(out, address, size);
    out[size] = '\0';
    return out;
}

void store_group_set_space(store_group *group, bool enough)
{
    if (group->low_space == enough) {
        group->low_space = !enough;
        group->told = false;
    }
}

void store_group_up(store_group *group, mesh_peer peer)
{
    replica *r = find(group, peer);
    if (r != NULL) {
        *r = (replica){ .up = true };
        group->told = false;
    }
}

void store_group_down(store_group *group, mesh_peer peer)
{
    replica *r = find(group, peer);
    if (r != NULL) {
        *r = (replica){ 0 };
    }
}

mesh_err store_group_heard(store_group *group, mesh_peer peer, const Mesh__Replica *msg)
{
    replica *r = find(group, peer);
    if (r == NULL || msg->shard != mesh_conf_node(group->conf, group->self)->shard ||
        msg->state < MESH__REPLICA_STATE__REPLICA_EMPTY || msg->state > MESH__REPLICA_STATE__REPLICA_LOST ||
        has_no_data(msg->state) != (msg->raft_id == 0) || !group_is_word(msg)) {
        return MESH_MALFORMED;
    }
    r->heard = true;
    r->lost = msg->lost || msg->state == MESH__REPLICA_STATE__REPLICA_LOST;
    r->state = msg->state;
    r->raft_id = msg->raft_id;
    r->term = msg->term;
    r->level = msg->level;
    r->low_space = msg->low_space;
    r->asks = r->asks || msg->asks;
    if (has_no_data(msg->state) && group->told_state == MESH__REPLICA_STATE__REPLICA_MEMBER) {
        group->told = false; /* its link may have been up all the time: it does not know any more what this one is */
    }
    return MESH_OK;
}

store_group_way store_group_decide(const store_group *group)
{
    bool all_empty = !group->lost;
    for (size_t i = 0; i < group->n; i++) {
        const replica *r = &group->replicas[i];
        if (group->peers[i] == group->self) {
            continue;
        }
        if (r->heard &&
            (r->state == MESH__REPLICA_STATE__REPLICA_MEMBER || r->state == MESH__REPLICA_STATE__REPLICA_FORMER)) {
            return STORE_GROUP_JOIN;
        }
        /* one that joins has heard of somebody with data */
        all_empty = all_empty && r->heard && !r->lost && r->state == MESH__REPLICA_STATE__REPLICA_EMPTY;
    }
    return all_empty && group->peers[0] == group->self ? STORE_GROUP_FOUND : STORE_GROUP_WAIT;
}

bool store_group_all_lost(const store_group *group, const store_consensus *cons)
{
    bool lost = group->lost, data = cons != NULL && store_consensus_last_index(cons) > 0;
    for (size_t i = 0; i < group->n; i++) {
        const replica *r = &group->replicas[i];
        if (group->peers[i] != group->self) {
            lost = lost || r->lost;
            data = data || !r->heard || r->state == MESH__REPLICA_STATE__REPLICA_MEMBER ||
                   r->state == MESH__REPLICA_STATE__REPLICA_FORMER;
        }
    }
    return lost && !data;
}

/* ---- how it is ---- */

bool store_group_votes(const store_consensus *cons)
{
    store_replica_role list[STORE_MEMBERS_MAX];
    size_t n = members(cons, list);
    const store_replica_role *self = member_of(list, n, store_consensus_id(cons));
    return self != NULL && self->role == STORE_VOTER;
}

bool store_group_is_former(const store_consensus *cons)
{
    return state_of(cons, false) == MESH__REPLICA_STATE__REPLICA_FORMER;
}

/* What was heard says it is a member, or was one; the configuration in force, which is committed, says it is none. */
static void judge_stranger(const store_group *group, const store_consensus *cons, size_t at, replica *r, mesh_time now,
                           mesh_out *out)
{
    bool claims = r->state == MESH__REPLICA_STATE__REPLICA_MEMBER || r->state == MESH__REPLICA_STATE__REPLICA_FORMER;
    if (claims && r->term <= store_consensus_term(cons) && now.mono >= r->next_word) {
        r->next_word = now.mono + STORE_GROUP_TELL_MS;
        group_tell_one(group, cons, at, r->raft_id, out);
    }
}

/* ---- leading ---- */

static void change(store_consensus *cons, const store_replica_role *list, size_t n, const char *what, const char *who,
                   mesh_time now)
{
    mesh_err err = store_consensus_change(cons, list, n, now);
    if (err == MESH_OK) {
        mesh_log(MESH_INFO, "membership", "%s=%s", what, who);
    } /* else later: one change at a time */
}

static bool is_of(const store_replica_role *member, const char *node)
{
    char name[MESH_NODE_NAME_MAX + 1];
    return strcmp(store_group_node(member->address, name), node) == 0;
}

/* The first member of this node with this role, NULL: none. */
static store_replica_role *with_role(store_replica_role *list, size_t n, const char *node, store_member_role role)
{
    for (size_t i = 0; i < n; i++) {
        if (list[i].role == role && is_of(&list[i], node)) {
            return &list[i];
        }
    }
    return NULL;
}

/* While a replica takes the place of the node's old one, the old one may be a spare, but then the new one votes. */
static bool is_removed(store_replica_role *list, size_t n, const char *node)
{
    return with_role(list, n, node, STORE_SPARE) != NULL && with_role(list, n, node, STORE_VOTER) == NULL;
}

bool store_group_removed(const store_consensus *cons, const char *node)
{
    store_replica_role list[STORE_MEMBERS_MAX];
    size_t n = members(cons, list);
    return is_removed(list, n, node);
}

/* What joined of a node before it was taken out. */
static bool keep_out(store_consensus *cons, const char *node, mesh_time now)
{
    store_replica_role list[STORE_MEMBERS_MAX];
    size_t n = members(cons, list);
    store_replica_role *stray = with_role(list, n, node, STORE_STANDBY);
    if (stray != NULL) {
        *stray = list[n - 1];
        change(cons, list, n - 1, "removed", node, now);
    }
    return stray != NULL;
}

/* A step for the replica `id` of this node. False: nothing is left to do for it. */
static bool bring_in(store_consensus *cons, const char *node, uint64_t id, bool joining, mesh_time now)
{
    char address[STORE_GROUP_ADDRESS];
    store_replica_role list[STORE_MEMBERS_MAX + 1];
    size_t n = members(cons, list);
    store_replica_role *member = (store_replica_role *)(uintptr_t)member_of(list, n, id);
    if (member == NULL) {
        if (!joining || n >= STORE_MEMBERS_MAX) {
            return false;
        }
        list[n] = (store_replica_role){ id, store_group_address(node, id, address), STORE_STANDBY };
        change(cons, list, n + 1, "added", node, now);
        return true;
    }
    if (member->role == STORE_VOTER) {
        return false;
    }
    switch (store_consensus_catch_up_state(cons, id)) {
    case STORE_CATCH_UP_DONE:
        member->role = STORE_VOTER;
        change(cons, list, n, "voter", node, now);
        break;
    case STORE_CATCH_UP_RUNNING:
        break;
    default:
        (void)!store_consensus_catch_up(cons, id, now); /* one at a time: again later */
    }
    return true;
}

/* Whoever else is of this node was it before: first the vote, then the rest. */
static bool take_out(store_consensus *cons, const char *node, uint64_t id, mesh_time now)
{
    store_replica_role list[STORE_MEMBERS_MAX];
    size_t n = members(cons, list);
    for (size_t i = 0; i < n; i++) {
        if (list[i].raft_id == id || !is_of(&list[i], node)) {
            continue;
        }
        if (list[i].role == STORE_VOTER) {
            list[i].role = STORE_SPARE;
            change(cons, list, n, "no_voter", node, now);
        } else {
            list[i] = list[n - 1];
            change(cons, list, n - 1, "removed", node, now);
        }
        return true;
    }
    return false;
}

void store_group_lead(store_group *group, store_consensus *cons, mesh_time now, mesh_out *out)
{
    if (group->n == 1 || store_consensus_changing(cons)) {
        return;
    }
    for (size_t i = 0; i < group->n; i++) {
        replica *r = &group->replicas[i];
        const char *node = mesh_conf_node(group->conf, group->peers[i])->name;
        bool mine = group->peers[i] == group->self;
        uint64_t id = mine ? store_consensus_id(cons) : r->raft_id;
        if (!mine && (!r->up || !r->heard || has_no_data(r->state))) {
            continue;
        }
        if (store_group_removed(cons, node)) {
            if (keep_out(cons, node, now)) {
                return;
            }
            continue;
        }
        bool joining = r->state == MESH__REPLICA_STATE__REPLICA_JOINING;
        if (bring_in(cons, node, id, joining, now)) {
            return; /* one thing after the other */
        }
        store_replica_role list[STORE_MEMBERS_MAX];
        size_t n = members(cons, list);
        const store_replica_role *member = member_of(list, n, id);
        if (member == NULL) {
            judge_stranger(group, cons, i, r, now, out);
        }
        if (member != NULL && member->role == STORE_VOTER && take_out(cons, node, id, now)) {
            return;
        }
    }
}

uint64_t store_group_roomy(const store_group *group, const store_consensus *cons)
{
    store_replica_role list[STORE_MEMBERS_MAX];
    size_t n = members(cons, list);
    uint64_t found = 0, furthest = 0;
    for (size_t i = 0; i < group->n; i++) {
        const replica *r = &group->replicas[i];
        const store_replica_role *member = r->raft_id != 0 ? member_of(list, n, r->raft_id) : NULL;
        if (!r->up || !r->heard || r->low_space || member == NULL || member->role != STORE_VOTER) {
            continue;
        }
        uint64_t match = store_consensus_match(cons, r->raft_id);
        if (found == 0 || match > furthest) {
            found = r->raft_id;
            furthest = match;
        }
    }
    return found;
}

uint32_t store_group_level(const store_group *group, const store_consensus *cons)
{
    store_replica_role list[STORE_MEMBERS_MAX];
    size_t n = members(cons, list);
    uint32_t lowest = STORE_GROUP_LEVEL;
    for (size_t i = 0; i < n; i++) {
        uint32_t level = list[i].raft_id == store_consensus_id(cons) ? STORE_GROUP_LEVEL : 0;
        for (size_t j = 0; j < group->n; j++) {
            const replica *r = &group->replicas[j];
            level = r->heard && r->raft_id == list[i].raft_id ? r->level : level;
        }
        lowest = list[i].role == STORE_VOTER && level < lowest ? level : lowest;
    }
    return lowest;
}

/* ---- an operator's wishes ---- */

static mesh_err wish(store_consensus *cons, store_replica_role *member, store_member_role role,
                     const store_replica_role *list, size_t n, const char *what, const char *node, mesh_time now)
{
    member->role = role;
    mesh_err err = store_consensus_change(cons, list, n, now);
    if (err == MESH_OK) {
        mesh_log(MESH_INFO, "membership", "%s=%s by=operator", what, node);
    }
    return err;
}

mesh_err store_group_remove(store_consensus *cons, const char *node, mesh_time now)
{
    store_replica_role list[STORE_MEMBERS_MAX];
    size_t n = members(cons, list);
    store_replica_role *voter = with_role(list, n, node, STORE_VOTER);
    store_replica_role *standby = with_role(list, n, node, STORE_STANDBY);
    if (is_removed(list, n, node)) {
        return MESH_OK;
    }
    if (voter == NULL && standby == NULL) {
        return MESH_NOT_FOUND;
    }
    if (voter != NULL && (voter->raft_id == store_consensus_id(cons) || store_consensus_voters(cons) == 1)) {
        return MESH_DENIED;
    }
    return wish(cons, voter != NULL ? voter : standby, STORE_SPARE, list, n, "taken_out", node, now);
}

mesh_err store_group_add(store_consensus *cons, const char *node, mesh_time now)
{
    store_replica_role list[STORE_MEMBERS_MAX];
    size_t n = members(cons, list);
    if (!is_removed(list, n, node)) {
        return MESH_OK;
    }
    return wish(cons, with_role(list, n, node, STORE_SPARE), STORE_STANDBY, list, n, "added_again", node, now);
}

mesh_err store_group_transfer(store_consensus *cons, const char *node, mesh_time now)
{
    store_replica_role list[STORE_MEMBERS_MAX];
    size_t n = members(cons, list);
    store_replica_role *to = node[0] != '\0' ? with_role(list, n, node, STORE_VOTER) : NULL;
    if (node[0] != '\0' && to == NULL) {
        return MESH_NOT_FOUND;
    }
    return store_consensus_transfer(cons, to != NULL ? to->raft_id : 0, now);
}
