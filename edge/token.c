#include "edge/token.h"

#include <assert.h>
#include <errno.h>
#include <jwt.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "mesh/alloc.h"
#include "mesh/fault.h"
#include "mesh/utf8.h"

bool edge_token_name_valid(const char *name, size_t max_code_points)
{
    size_t n = strlen(name);
    size_t code_points;
    if (n == 0 || !mesh_utf8_valid((const uint8_t *)name, n, &code_points) || code_points > max_code_points) {
        return false;
    }
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)name[i];
        /* C0, DEL, and C1 as it looks in UTF-8 */
        if (c < 0x20 || c == 0x7f || (c == 0xc2 && (unsigned char)name[i + 1] < 0xa0)) {
            return false;
        }
    }
    return true;
}

/* Three parts of base64url, each with something in it, before the library decodes anything. */
static bool well_formed(const char *token)
{
    size_t n = strnlen(token, EDGE_TOKEN_MAX + 1);
    unsigned dots = 0;
    for (size_t i = 0; i < n; i++) {
        char c = token[i];
        if (c == '.') {
            dots++;
            if (i == 0 || token[i - 1] == '.' || i == n - 1) {
                return false;
            }
        } else if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
                     c == '_')) {
            return false;
        }
    }
    return n <= EDGE_TOKEN_MAX && dots == 2;
}

/* A whole number of seconds; absent, of another type or not positive: not found. */
static mesh_err get_time(jwt_t *jwt, const char *name, int64_t *out)
{
    char *raw = jwt_get_grants_json(jwt, name);
    if (raw == NULL) {
        return MESH_NOT_FOUND;
    }
    char *end;
    errno = 0;
    long long v = strtoll(raw, &end, 10);
    bool ok = errno == 0 && end != raw && *end == '\0' && v > 0 && v < INT64_MAX / 2000;
    free(raw);
    if (!ok) {
        return MESH_MALFORMED;
    }
    *out = v;
    return MESH_OK;
}

static bool get_tenant(jwt_t *jwt, char out[MESH_TENANT_MAX + 1])
{
    char *raw = jwt_get_grants_json(jwt, "tenant");
    const char *tenant = raw == NULL ? "default" : jwt_get_grant(jwt, "tenant");
    bool ok = tenant != NULL && mesh_tenant_valid(tenant);
    if (ok) {
        memcpy(out, tenant, strlen(tenant) + 1);
    }
    free(raw);
    return ok;
}

static uint32_t judge(jwt_t *jwt, int64_t now_s, int64_t skew_s, edge_token_claims *claims)
{
    int64_t nbf_s = 0;
    const char *user = jwt_get_grant(jwt, "sub");
    mesh_err nbf = get_time(jwt, "nbf", &nbf_s);
    if (jwt_get_alg(jwt) != JWT_ALG_HS256 || user == NULL || !mesh_id_valid(user) || !get_tenant(jwt, claims->tenant) ||
        get_time(jwt, "exp", &claims->exp_s) != MESH_OK || nbf == MESH_MALFORMED || nbf_s > now_s + skew_s) {
        return FAULT_UNAUTHORIZED;
    }
    if (claims->exp_s <= now_s - skew_s) {
        return FAULT_TOKEN_EXPIRED;
    }
    memcpy(claims->user, user, strlen(user) + 1);
    const char *name = jwt_get_grant(jwt, "name");
    if (name != NULL && edge_token_name_valid(name, EDGE_NAME_CODE_POINTS)) {
        memcpy(claims->name, name, strlen(name) + 1);
    }
    return FAULT_NONE;
}

mesh_err edge_token_check(mesh_slice key, const char *token, int64_t now_s, int64_t skew_s, edge_token_claims *out,
                          uint32_t *fault)
{
    assert(key.size > 0 && key.size <= INT_MAX);
    edge_token_claims claims = { 0 };
    jwt_t *jwt = NULL;
    *fault = FAULT_UNAUTHORIZED;
    if (well_formed(token) && jwt_decode(&jwt, token, key.data, (int)key.size) == 0 && jwt != NULL) {
        *fault = judge(jwt, now_s, skew_s, &claims);
    }
    jwt_free(jwt);
    if (*fault != FAULT_NONE) {
        return MESH_DENIED;
    }
    *out = claims;
    return MESH_OK;
}

char *edge_token_make(mesh_slice key, const char *user, const char *tenant, const char *name, int64_t now_s,
                      int64_t ttl_s)
{
    assert(key.size > 0 && key.size <= INT_MAX && mesh_id_valid(user));
    jwt_t *jwt = NULL;
    int rc = jwt_new(&jwt);
    assert(rc == 0);
    rc |= jwt_set_alg(jwt, JWT_ALG_HS256, key.data, (int)key.size);
    rc |= jwt_add_grant(jwt, "sub", user);
    rc |= jwt_add_grant_int(jwt, "iat", (long)now_s);
    rc |= jwt_add_grant_int(jwt, "exp", (long)(now_s + ttl_s));
    if (tenant != NULL) {
        rc |= jwt_add_grant(jwt, "tenant", tenant);
    }
    if (name != NULL) {
        rc |= jwt_add_grant(jwt, "name", name);
    }
    char *encoded = jwt_encode_str(jwt);
    assert(rc == 0 && encoded != NULL);
    char *token = mesh_strdup(encoded);
    free(encoded);
    jwt_free(jwt);
    return token;
}
