/* edge/token.h: the one door to libjwt. The library alone is not safe: an empty key accepts any signature, exp and nbf
 * are never looked at, and the algorithm is the token's choice. Here it is HS256 only, with a non-empty key, an exp
 * that is required, and nbf honoured. Source: RFC 7519; RFC 8725 (what goes wrong). */
#ifndef EDGE_TOKEN_H
#define EDGE_TOKEN_H

#include <stdbool.h>

#include "mesh/buf.h"
#include "mesh/err.h"
#include "mesh/id.h"

#define EDGE_TOKEN_MAX 4096      /* bytes of a token */
#define EDGE_NAME_CODE_POINTS 64 /* of a display name */
#define EDGE_NAME_MAX (4 * EDGE_NAME_CODE_POINTS)

typedef struct edge_token_claims {
    char user[MESH_ID_MAX + 1]; /* sub: a valid bare id */
    char tenant[MESH_TENANT_MAX +
                1];               /* "default" when the token names none; whether it exists is the caller's to check */
    char name[EDGE_NAME_MAX + 1]; /* display name; empty when absent or not fit for one */
    int64_t exp_s;                /* unix seconds */
} edge_token_claims;

/* A display name: UTF-8 without control characters, 1..max_code_points. */
bool edge_token_name_valid(const char *name, size_t max_code_points);

/* Check token (at most EDGE_TOKEN_MAX bytes) at now_s, unix seconds; skew_s of grace at both ends.
 * Errors: MESH_DENIED, *fault is FAULT_UNAUTHORIZED, or FAULT_TOKEN_EXPIRED when only its time is over; out untouched.
 */
MESH_MUST mesh_err edge_token_check(mesh_slice key, const char *token, int64_t now_s, int64_t skew_s,
                                    edge_token_claims *out, uint32_t *fault);

/* A new token, yours (free). tenant and name may be NULL. key must not be empty and user must be a valid id. */
char *edge_token_make(mesh_slice key, const char *user, const char *tenant, const char *name, int64_t now_s,
                      int64_t ttl_s);

#endif
