/* client/roles.h: from the command line to the roles' run functions. */
#ifndef CLIENT_ROLES_H
#define CLIENT_ROLES_H

#include <stdbool.h>

#include "mesh/conf.h"
#include "mesh/log.h"

mesh_level client_roles_level(const mesh_conf *conf); /* log.level */
/* A config that names no store.path gets dir, in which each store has a directory of its name. False: one line was
 * printed. */
bool client_roles_place(mesh_conf *conf, const char *dir);
/* Run node self in this thread until it has stopped. Returns an exit status. */
int client_roles_run(mesh_role role, const mesh_conf *conf, mesh_peer self);

#endif
