/* mesh/link_auth.h: the process's ZeroMQ context, who may connect to it, and this machine's own keys. Used by
 * mesh/link*.c only; what everybody may call is in mesh/link.h. */
#ifndef MESH_LINK_AUTH_H
#define MESH_LINK_AUTH_H

#include <stdint.h>

#include "mesh/conf.h"

#define MESH_LINK_KEY_SIZE 41           /* z85 and its NUL */
#define MESH_LINK_ZAP_DOMAIN "parley"   /* libzmq asks the ZAP handler only when a domain is set */
#define MESH_LINK_ZAP_ENFORCE_DOMAIN 93 /* ZMQ_ZAP_ENFORCE_DOMAIN: a draft name, but in every build by number */

typedef struct mesh_link_keys { /* z85 */
    char public_key[MESH_LINK_KEY_SIZE];
    char secret_key[MESH_LINK_KEY_SIZE];
} mesh_link_keys;

/* The context; made on first use, gone after mesh_link_teardown. Never NULL. */
void *mesh_link_auth_context(void);
/* Keys the ZAP handler has refused since setup, over the whole process. */
uint64_t mesh_link_auth_refused(void);
/* The keys of a node of this machine. mesh_link_setup must have been called.
 * Errors: MESH_IO no such file, readable by others, not a key, or not the pair of the config's public key. */
MESH_MUST mesh_err mesh_link_auth_own(const mesh_node_conf *node, mesh_link_keys *keys);
/* Put a socket under the handler's eyes: CURVE server with these keys. Before bind. */
void mesh_link_auth_guard(void *socket, const mesh_link_keys *keys);

/* Read a secret key file. Errors: MESH_IO; a log line says why. */
MESH_MUST mesh_err mesh_link_keys_read(const char *keys_dir, const char *name, mesh_link_keys *keys);

#endif
