#include "router/registry.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mesh/alloc.h"
#include "mesh/table.h"
#include "router/core.h"

struct router_registry {
    const mesh_hash_key *key;
    size_t max;
    mesh_table *by_id;
    mesh_table *users;
    router_session **all;
    size_t count;
    size_t cap;
};

router_registry *router_registry_new(const mesh_hash_key *key, size_t max)
{
    router_registry *registry = mesh_alloc(sizeof *registry);
    registry->key = key;
    registry->max = max;
    registry->by_id = mesh_table_new(key);
    registry->users = mesh_table_new(key);
    return registry;
}

void router_registry_destroy(router_registry **registry_p)
{
    router_registry *registry = *registry_p;
    if (registry) {
        while (registry->count > 0) {
            router_registry_release(registry, registry->all[registry->count - 1]);
        }
        mesh_table_destroy(&registry->by_id);
        mesh_table_destroy(&registry->users);
        free(registry->all);
        free(registry);
        *registry_p = NULL;
    }
}

static router_user *user_hold(router_registry *registry, const char *qid)
{
    router_user *user = mesh_table_get(registry->users, mesh_table_str(qid));
    if (!user) {
        user = mesh_alloc(sizeof *user);
        user->qid = mesh_strdup(qid);
        user->slot = mesh_id_slot(registry->key, qid);
        mesh_table_put(registry->users, mesh_table_str(user->qid), user);
    }
    return user;
}

router_session *router_registry_claim(router_registry *registry, uint64_t id, const char *user_qid, const char *device,
                                      mesh_peer edge)
{
    assert(!router_registry_find(registry, id));
    if (registry->count >= registry->max) {
        return NULL;
    }
    if (registry->count == registry->cap) {
        registry->cap = registry->cap ? registry->cap * 2 : 64;
        registry->all = mesh_realloc(registry->all, registry->cap * sizeof *registry->all);
    }
    router_session *session = mesh_alloc(sizeof *session);
    session->id = id;
    session->edge = edge;
    snprintf(session->device, sizeof session->device, "%s", device);
    session->user = user_hold(registry, user_qid);
    session->sibling = session->user->sessions;
    session->user->sessions = session;
    session->index = registry->count;
    registry->all[registry->count++] = session;
    mesh_table_put(registry->by_id, mesh_table_u64(&session->id), session);
    return session;
}

void router_registry_release(router_registry *registry, router_session *session)
{
    router_user *user = session->user;
    router_session **at = &user->sessions;
    while (*at != session) {
        at = &(*at)->sibling;
    }
    *at = session->sibling;
    if (!user->sessions) {
        mesh_table_remove(registry->users, mesh_table_str(user->qid));
        free(user->qid);
        free(user);
    }
    registry->count--;
    registry->all[session->index] = registry->all[registry->count];
    registry->all[session->index]->index = session->index;
    mesh_table_remove(registry->by_id, mesh_table_u64(&session->id));
    free(session->name);
    free(session);
}

router_session *router_registry_find(const router_registry *registry, uint64_t id)
{
    return mesh_table_get(registry->by_id, mesh_table_u64(&id));
}

router_user *router_registry_user(const router_registry *registry, const char *user_qid)
{
    return mesh_table_get(registry->users, mesh_table_str(user_qid));
}

size_t router_registry_count(const router_registry *registry)
{
    return registry->count;
}

router_session *router_registry_at(const router_registry *registry, size_t i)
{
    assert(i < registry->count);
    return registry->all[i];
}
