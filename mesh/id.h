/* mesh/id.h: ids of users, chats and devices.
 *
 * A client sees "alice"; inside the mesh it is always tenant-qualified, "default/alice", put there by the edge and
 * never shown. Both parts are 1..64 bytes of [A-Za-z0-9_.:-]; a tenant is 1..32 of [a-z0-9-]. */
#ifndef MESH_ID_H
#define MESH_ID_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "mesh/err.h"

#define MESH_ID_MAX 64     /* bytes of a bare id */
#define MESH_TENANT_MAX 32 /* bytes of a tenant */
#define MESH_QID_MAX (MESH_TENANT_MAX + 1 + MESH_ID_MAX)
#define MESH_SLOTS 4096

typedef struct mesh_qid { /* a qualified id by value */
    char s[MESH_QID_MAX + 1];
} mesh_qid;
typedef struct mesh_hash_key { /* of the cluster; belongs to its config and its backups */
    uint8_t bytes[16];
} mesh_hash_key;
typedef uint16_t mesh_slot; /* 0..MESH_SLOTS-1 */

bool mesh_id_valid(const char *id);             /* bare id */
bool mesh_id_valid_n(const char *id, size_t n); /* the same for n bytes that may hold NUL */
bool mesh_tenant_valid(const char *tenant);
bool mesh_qid_valid(const char *qid);

/* Errors: MESH_MALFORMED tenant or id is not valid; out untouched. */
MESH_MUST mesh_err mesh_qid_make(const char *tenant, const char *id, mesh_qid *out);
const char *mesh_qid_bare(const char *qid); /* the part after '/'; borrowed from qid */

/* The chat both sides of a pair meet in: "tenant/d:" + base32 of BLAKE2b-160(tenant 0x00 a 0x00 b), a <= b.
 * a and b are qualified ids of the same tenant. */
void mesh_id_direct(const char *a, const char *b, mesh_qid *out);
bool mesh_id_is_direct(const char *qid);
/* The id of a group from who made it and the request's own id: "tenant/g:" + base32 of BLAKE2b-160. Repeatable. */
void mesh_id_group(const char *creator, const char *client_msg_id, mesh_qid *out);

/* Keyed 64-bit SipHash-2-4 of a qualified id; the slot is its top 12 bits. */
uint64_t mesh_id_hash(const mesh_hash_key *key, const char *qid);
mesh_slot mesh_id_slot(const mesh_hash_key *key, const char *qid);

#endif
