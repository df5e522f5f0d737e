#include "mesh/id.h"

#include <assert.h>
#include <sodium.h>
#include <string.h>

#define DIGEST 20 /* BLAKE2b-160 */
#define DIGEST32 (DIGEST * 8 / 5)

static void sodium_once(void)
{
    static _Thread_local bool done; /* sodium_init itself may be called again, from any thread, but takes a lock */
    if (!done) {
        int rc = sodium_init();
        assert(rc >= 0);
        done = true;
    }
}

static bool id_char(unsigned char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '.' ||
           c == ':' || c == '-';
}

static bool tenant_char(unsigned char c)
{
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-';
}

static bool tenant_valid_n(const char *tenant, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (!tenant_char((unsigned char)tenant[i])) {
            return false;
        }
    }
    return n >= 1 && n <= MESH_TENANT_MAX;
}

bool mesh_id_valid_n(const char *id, size_t n)
{
    if (n < 1 || n > MESH_ID_MAX) {
        return false;
    }
    for (size_t i = 0; i < n; i++) {
        if (!id_char((unsigned char)id[i])) {
            return false;
        }
    }
    return true;
}

bool mesh_id_valid(const char *id)
{
    return mesh_id_valid_n(id, strnlen(id, MESH_ID_MAX + 1));
}

bool mesh_tenant_valid(const char *tenant)
{
    return tenant_valid_n(tenant, strnlen(tenant, MESH_TENANT_MAX + 1));
}

bool mesh_qid_valid(const char *qid)
{
    const char *slash = memchr(qid, '/', strnlen(qid, MESH_TENANT_MAX + 1));
    return slash != NULL && tenant_valid_n(qid, (size_t)(slash - qid)) && mesh_id_valid(slash + 1);
}

mesh_err mesh_qid_make(const char *tenant, const char *id, mesh_qid *out)
{
    if (!mesh_tenant_valid(tenant) || !mesh_id_valid(id)) {
        return MESH_MALFORMED;
    }
    size_t t = strlen(tenant);
    memcpy(out->s, tenant, t);
    out->s[t] = '/';
    memcpy(out->s + t + 1, id, strlen(id) + 1);
    return MESH_OK;
}

const char *mesh_qid_bare(const char *qid)
{
    const char *slash = strchr(qid, '/');
    return slash != NULL ? slash + 1 : qid;
}

static void base32(const uint8_t digest[DIGEST], char out[DIGEST32 + 1])
{
    static const char alphabet[] = "abcdefghijklmnopqrstuvwxyz234567";
    uint32_t bits = 0;
    unsigned n = 0;
    char *to = out;
    for (unsigned i = 0; i < DIGEST; i++) {
        bits = bits << 8 | digest[i];
        n += 8;
        while (n >= 5) {
            n -= 5;
            *to++ = alphabet[bits >> n & 31];
        }
    }
    *to = '\0';
}

/* tenant/<letter>: + base32 of BLAKE2b-160(tenant 0 a 0 b) */
static void derive(const char *tenant, size_t tenant_size, char letter, const char *a, const char *b, mesh_qid *out)
{
    sodium_once();
    crypto_generichash_state state;
    uint8_t digest[DIGEST];
    crypto_generichash_init(&state, NULL, 0, DIGEST);
    crypto_generichash_update(&state, (const unsigned char *)tenant, tenant_size);
    crypto_generichash_update(&state, (const unsigned char *)"", 1);
    crypto_generichash_update(&state, (const unsigned char *)a, strlen(a) + 1); /* with its NUL */
    crypto_generichash_update(&state, (const unsigned char *)b, strlen(b));
    crypto_generichash_final(&state, digest, DIGEST);

    mesh_qid made;
    memcpy(made.s, tenant, tenant_size);
    char *to = made.s + tenant_size;
    *to++ = '/';
    *to++ = letter;
    *to++ = ':';
    base32(digest, to);
    *out = made; /* a and b may live in out */
}

static size_t tenant_size_of(const char *qid)
{
    const char *slash = strchr(qid, '/');
    assert(slash != NULL && slash - qid <= MESH_TENANT_MAX);
    return (size_t)(slash - qid);
}

void mesh_id_direct(const char *a, const char *b, mesh_qid *out)
{
    size_t t = tenant_size_of(a);
    assert(tenant_size_of(b) == t && memcmp(a, b, t) == 0);
    bool swap = strcmp(a, b) > 0;
    derive(a, t, 'd', swap ? b : a, swap ? a : b, out);
}

bool mesh_id_is_direct(const char *qid)
{
    const char *bare = mesh_qid_bare(qid);
    return bare[0] == 'd' && bare[1] == ':';
}

void mesh_id_group(const char *creator, const char *client_msg_id, mesh_qid *out)
{
    derive(creator, tenant_size_of(creator), 'g', creator, client_msg_id, out);
}

uint64_t mesh_id_hash(const mesh_hash_key *key, const char *qid)
{
    _Static_assert(crypto_shorthash_KEYBYTES == sizeof key->bytes, "SipHash key");
    uint8_t out[crypto_shorthash_BYTES];
    crypto_shorthash(out, (const unsigned char *)qid, strlen(qid), key->bytes);
    uint64_t h = 0;
    for (unsigned i = 0; i < sizeof out; i++) {
        h |= (uint64_t)out[i] << (8 * i); /* SipHash's own byte order */
    }
    return h;
}

mesh_slot mesh_id_slot(const mesh_hash_key *key, const char *qid)
{
    _Static_assert(MESH_SLOTS == 1 << 12, "top 12 bits");
    return (mesh_slot)(mesh_id_hash(key, qid) >> 52);
}
