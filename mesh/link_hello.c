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

/* Dialers go one way: edge -> router -> store. An operator may ask anybody. */
static bool may_dial(mesh_role from, mesh_role to)
{
    switch (from) {
    case MESH_EDGE:
        return to == MESH_ROUTER;
    case MESH_ROUTER:
        return to == MESH_STORE;
    case MESH_OPERATOR:
        return true;
    case MESH_STORE:
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

static bool same_cluster(mesh_link *link, const char *user, const Mesh__NodeHello *hello)
{
    if (hello->min_version > LINK_VERSION || hello->max_version < LINK_VERSION) {
        refuse(link, LINK_STAT_REFUSED_VERSION, hello->node, user, "another version");
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
               !may_dial(link->peers[index].node->role, link->node->role)) {
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
