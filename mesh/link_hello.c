/* mesh/link_hello.c: a name is believed when the key, the identity and the hello all say it. */
#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mesh/link_priv.h"
#include "mesh/log.h"

void mesh_link_rid(char *rid, const char *name, uint64_t boot, uint64_t number)
{
    int n = snprintf(rid, LINK_RID_MAX + 1, "%s.%016" PRIx64 ".%" PRIu64, name, boot, number);
    assert(n > 0 && n <= LINK_RID_MAX);
}

/* The number of an identity that is exactly name.boot.number. */
static bool rid_number(const char *rid, const char *name, uint64_t boot, uint64_t *number_p)
{
    const char *last = strrchr(rid, '.');
    if (last == NULL || strlen(name) > MESH_NODE_NAME_MAX) {
        return false;
    }
    uint64_t number = strtoull(last + 1, NULL, 10);
    char expected[LINK_RID_MAX + 1];
    mesh_link_rid(expected, name, boot, number);
    *number_p = number;
    return strcmp(rid, expected) == 0;
}

/* Dialers go one way: edge -> router -> store, and of two stores of a shard the earlier in the node list dials the
 * later. An operator may ask anybody. */
static bool may_dial(const mesh_link *link, mesh_peer from, mesh_peer to)
{
    const mesh_node_conf *dialer = link->peers[from].node;
    const mesh_node_conf *listener = link->peers[to].node;
    switch (dialer->role) {
    case MESH_EDGE:
        return listener->role == MESH_ROUTER;
    case MESH_ROUTER:
        return listener->role == MESH_STORE;
    case MESH_OPERATOR:
        return true;
    case MESH_STORE:
        return listener->role == MESH_STORE && dialer->shard == listener->shard && from < to;
    case MESH_ROLES:
    default:
        return false;
    }
}

static void refuse(mesh_link *link, unsigned stat, const char *claimed, const char *user, const char *reason)
{
    mesh_stats_add(link->stats, stat, 1);
    mesh_log(MESH_WARN, "hello_refused", "claimed=%s key_of=%s reason=%s", claimed, user != NULL ? user : "", reason);
}

bool mesh_link_hello_versions_meet(const Mesh__NodeHello *hello)
{
    return hello->min_version <= LINK_VERSION && hello->max_version >= LINK_VERSION_MIN;
}

static bool same_cluster(mesh_link *link, const char *user, const Mesh__NodeHello *hello)
{
    if (!mesh_link_hello_versions_meet(hello)) {
        char reason[128];
        snprintf(reason, sizeof reason,
                 "it speaks versions %" PRIu32 " to %" PRIu32
                 " of node links and this node %d to %d; upgrade the older",
                 hello->min_version, hello->max_version, LINK_VERSION_MIN, LINK_VERSION);
        refuse(link, LINK_STAT_REFUSED_VERSION, hello->node, user, reason);
        return false;
    }
    if (strcmp(hello->cluster, mesh_conf_str(link->conf, "cluster.name")) != 0) {
        refuse(link, LINK_STAT_REFUSED_CLUSTER, hello->node, user, "another cluster");
        return false;
    }
    return true;
}

mesh_link_peer *mesh_link_hello_inbound(mesh_link *link, const char *rid, const char *user,
                                        const Mesh__NodeHello *hello, uint64_t *number_p)
{
    if (!same_cluster(link, user, hello)) {
        return NULL;
    }
    mesh_peer index = mesh_conf_find(link->conf, hello->node);
    const char *reason = NULL;
    if (link->secure && (user == NULL || strcmp(user, hello->node) != 0)) {
        reason = "the key is another's";
    } else if (index == MESH_NO_PEER || index == link->self) {
        reason = "unknown node";
    } else if (strcmp(hello->role, mesh_role_name(link->peers[index].node->role)) != 0 ||
               !may_dial(link, index, link->self)) {
        reason = "not of this role";
    } else if (hello->boot == 0 || !rid_number(rid, hello->node, hello->boot, number_p)) {
        reason = "identity does not match";
    } else if (link->peers[index].dialed) {
        reason = "dialed by us";
    }
    if (reason != NULL) {
        refuse(link, LINK_STAT_REFUSED_NAME, hello->node, user, reason);
        return NULL;
    }
    return &link->peers[index];
}

bool mesh_link_hello_answer(mesh_link *link, const mesh_link_peer *peer, const Mesh__NodeHello *hello)
{
    if (!same_cluster(link, peer->node->name, hello)) {
        return false;
    }
    if (strcmp(hello->node, peer->node->name) != 0 || strcmp(hello->role, mesh_role_name(peer->node->role)) != 0 ||
        hello->boot == 0) {
        refuse(link, LINK_STAT_REFUSED_NAME, hello->node, peer->node->name, "not the node that was dialed");
        return false;
    }
    return true;
}
