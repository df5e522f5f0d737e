#include "client/roles.h"

#include <stdio.h>
#include <string.h>

#include "client/args.h"
#include "edge/serve.h"
#include "router/serve.h"
#include "store/serve.h"

mesh_level client_roles_level(const mesh_conf *conf)
{
    static const char *const names[] = { "debug", "info", "warn", "error" };
    const char *level = mesh_conf_str(conf, "log.level");
    for (unsigned i = 0; i < sizeof names / sizeof *names; i++) {
        if (strcmp(names[i], level) == 0) {
            return (mesh_level)i;
        }
    }
    return MESH_INFO;
}

bool client_roles_place(mesh_conf *conf, const char *dir)
{
    if (mesh_conf_str(conf, "store.path")[0] != '\0') {
        return true;
    }
    bool ok = mesh_conf_set(conf, "store.path", dir) == MESH_OK;
    if (!ok) {
        client_args_fail("%s is no place for a database: too long, or with control characters", dir);
    }
    return ok;
}

int client_roles_run(mesh_role role, const mesh_conf *conf, mesh_peer self)
{
    switch (role) {
    case MESH_EDGE:
        return edge_serve_run(conf, self);
    case MESH_ROUTER:
        return router_serve_run(conf, self);
    case MESH_STORE:
        return store_serve_run(conf, self);
    default:
        return client_args_fail("%s is not a role that runs", mesh_role_name(role));
    }
}
