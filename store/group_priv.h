/* store/group_priv.h: what the files of the group share.
 *
 *   group.c      how a replica begins, joins and is replaced; an operator's wishes
 *   group_fit.c  what replicas tell each other, and who is fit to vote */
#ifndef STORE_GROUP_PRIV_H
#define STORE_GROUP_PRIV_H

#include "store/group.h"

typedef struct replica { /* what is known of another store */
    bool up, heard, lost, low_space;
    Mesh__ReplicaState state;
    uint64_t raft_id, term;
    uint32_t level;
    mesh_ms next_word; /* that it is out of the configuration: not before */
    mesh_ms up_at;     /* by `awake`, 0: the link is new */
    bool asks;         /* it wants to hear this one */
} replica;

struct store_group {
    const mesh_conf *conf;
    mesh_peer self;
    size_t n;
    mesh_peer peers[MESH_REPLICAS_MAX]; /* of the shard, this one among them, in the config's order */
    replica replicas[MESH_REPLICAS_MAX];
    bool lost, low_space; /* this one */
    bool told;
    Mesh__ReplicaState told_state;
    mesh_ms next_tell;
    uint64_t told_learnt; /* of what replicas have confirmed, at the leader */
    mesh_ms awake, seen; /* time that was seen to pass, and until when: it does not pass while the process is stopped */
    bool waits;          /* no votes yet */
    bool no_vote;        /* a leader said so, and no leader was heard since */
    mesh_ms silent_since; /* without data, and nothing happens; 0: it does */
    bool said_silent;
};

static inline replica *find(store_group *group, mesh_peer peer)
{
    for (size_t i = 0; i < group->n; i++) {
        if (group->peers[i] == peer && peer != group->self) {
            return &group->replicas[i];
        }
    }
    return NULL;
}

static inline bool has_no_data(Mesh__ReplicaState state)
{
    return state == MESH__REPLICA_STATE__REPLICA_EMPTY || state == MESH__REPLICA_STATE__REPLICA_LOST;
}

static inline size_t members(const store_consensus *cons, store_replica_role *list)
{
    return store_consensus_configuration(cons, list, STORE_MEMBERS_MAX);
}

static inline const store_replica_role *member_of(const store_replica_role *list, size_t n, uint64_t raft_id)
{
    for (size_t i = 0; i < n; i++) {
        if (list[i].raft_id == raft_id) {
            return &list[i];
        }
    }
    return NULL;
}

static inline Mesh__ReplicaState state_of(const store_consensus *cons, bool lost)
{
    store_replica_role list[STORE_MEMBERS_MAX];
    if (cons == NULL) {
        return lost ? MESH__REPLICA_STATE__REPLICA_LOST : MESH__REPLICA_STATE__REPLICA_EMPTY;
    }
    size_t n = members(cons, list);
    if (n == 0) {
        return MESH__REPLICA_STATE__REPLICA_JOINING;
    }
    return member_of(list, n, store_consensus_id(cons)) != NULL ? MESH__REPLICA_STATE__REPLICA_MEMBER
                                                                : MESH__REPLICA_STATE__REPLICA_FORMER;
}

bool group_is_word(const Mesh__Replica *msg); /* what it says was confirmed makes sense */
/* Tell the peer at this place of this replica. unfit: a raft id whose data is to be put aside; 0: of none. */
void group_tell_one(const store_group *group, const store_consensus *cons, size_t at, uint64_t unfit, mesh_out *out);

#endif
