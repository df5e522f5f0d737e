/* Tokens: what is accepted, and everything that must not be. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <jwt.h>

#include "edge/token.h"
#include "mesh/fault.h"

static const mesh_slice key = { (const uint8_t *)"0123456789abcdef0123456789abcdef", 32 };
#define NOW INT64_C(1800000000)

/* Encoded and signed by the library under any algorithm, with any claims. */
static char *sign(jwt_alg_t alg, mesh_slice with, const char *claims)
{
    jwt_t *jwt;
    assert_int_equal(jwt_new(&jwt), 0);
    if (alg != JWT_ALG_NONE) {
        assert_int_equal(jwt_set_alg(jwt, alg, with.data, (int)with.size), 0);
    }
    assert_int_equal(jwt_add_grants_json(jwt, claims), 0);
    char *token = jwt_encode_str(jwt);
    assert_non_null(token);
    jwt_free(jwt);
    return token;
}

static uint32_t check(const char *token, int64_t now, edge_token_claims *out)
{
    uint32_t fault = 12345;
    edge_token_claims before;
    memset(out, 0x5a, sizeof *out);
    before = *out;
    mesh_err err = edge_token_check(key, token, now, 60, out, &fault);
    assert_int_equal(err, fault == FAULT_NONE ? MESH_OK : MESH_DENIED);
    if (err != MESH_OK) {
        assert_memory_equal(&before, out, sizeof before);
    }
    return fault;
}

static uint32_t check_claims(const char *claims, edge_token_claims *out)
{
    char *token = sign(JWT_ALG_HS256, key, claims);
    uint32_t fault = check(token, NOW, out);
    free(token);
    return fault;
}

static void made_tokens_are_good(void **state)
{
    (void)state;
    edge_token_claims c;
    char *token = edge_token_make(key, "alice", NULL, NULL, NOW, 3600);
    assert_int_equal(check(token, NOW, &c), FAULT_NONE);
    assert_string_equal(c.user, "alice");
    assert_string_equal(c.tenant, "default");
    assert_string_equal(c.name, "");
    assert_int_equal(c.exp_s, NOW + 3600);
    free(token);
    token = edge_token_make(key, "bob", "acme",
                            "B\xc3\xb6"
                            "b",
                            NOW, 60);
    assert_int_equal(check(token, NOW, &c), FAULT_NONE);
    assert_string_equal(c.tenant, "acme");
    assert_string_equal(c.name, "B\xc3\xb6"
                                "b");
    free(token);
}

static void time_is_kept(void **state)
{
    (void)state;
    edge_token_claims c;
    char *token = edge_token_make(key, "alice", NULL, NULL, NOW, 100);
    assert_int_equal(check(token, NOW + 159, &c), FAULT_NONE);
    assert_int_equal(check(token, NOW + 160, &c), FAULT_TOKEN_EXPIRED);
    free(token);
    assert_int_equal(check_claims("{\"sub\":\"a\",\"exp\":1800000100,\"nbf\":1800000060}", &c), FAULT_NONE);
    assert_int_equal(check_claims("{\"sub\":\"a\",\"exp\":1800000100,\"nbf\":1800000061}", &c), FAULT_UNAUTHORIZED);
}

static void bad_claims_are_refused(void **state)
{
    (void)state;
    static const char *bad[] = {
        "{\"exp\":1800000100}",                               /* no sub */
        "{\"sub\":\"\",\"exp\":1800000100}",                  /* empty */
        "{\"sub\":\"a/b\",\"exp\":1800000100}",               /* not an id: would leave its tenant */
        "{\"sub\":7,\"exp\":1800000100}",                     /* not a string */
        "{\"sub\":\"a\"}",                                    /* no exp */
        "{\"sub\":\"a\",\"exp\":\"1800000100\"}",             /* a string */
        "{\"sub\":\"a\",\"exp\":1800000100.5}",               /* a fraction */
        "{\"sub\":\"a\",\"exp\":-1}",                         /* negative */
        "{\"sub\":\"a\",\"exp\":9223372036854775807}",        /* would overflow */
        "{\"sub\":\"a\",\"exp\":null}",                       /* nothing */
        "{\"sub\":\"a\",\"exp\":1800000100,\"nbf\":\"x\"}",   /* nbf of another type */
        "{\"sub\":\"a\",\"exp\":1800000100,\"tenant\":\"\"}", /* not a tenant */
        "{\"sub\":\"a\",\"exp\":1800000100,\"tenant\":\"a/b\"}",
        "{\"sub\":\"a\",\"exp\":1800000100,\"tenant\":5}",
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        edge_token_claims c;
        print_message("%s\n", bad[i]);
        assert_int_equal(check_claims(bad[i], &c), FAULT_UNAUTHORIZED);
    }
    /* a name that is not fit for one is left out */
    edge_token_claims c;
    assert_int_equal(check_claims("{\"sub\":\"a\",\"exp\":1800000100,\"name\":\"a\\nb\"}", &c), FAULT_NONE);
    assert_string_equal(c.name, "");
}

static void other_algorithms_are_refused(void **state)
{
    (void)state;
    edge_token_claims c;
    const char *good = "{\"sub\":\"a\",\"exp\":1800000100}";
    jwt_alg_t others[] = { JWT_ALG_NONE, JWT_ALG_HS384, JWT_ALG_HS512 };
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        char *token = sign(others[i], key, good);
        assert_int_equal(check(token, NOW, &c), FAULT_UNAUTHORIZED);
        free(token);
    }
    /* {"alg":"none"} and {"alg":"RS256"} with a signature that is something, and one whose alg the library does not
     * know */
    static const char *heads[] = { "eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0", "eyJhbGciOiJSUzI1NiIsInR5cCI6IkpXVCJ9",
                                   "eyJhbGciOiJYWCJ9" };
    char *signed_one = sign(JWT_ALG_HS256, key, good);
    const char *body = strchr(signed_one, '.');
    for (size_t i = 0; i < sizeof heads / sizeof *heads; i++) {
        char token[512];
        snprintf(token, sizeof token, "%s%s", heads[i], body);
        assert_int_equal(check(token, NOW, &c), FAULT_UNAUTHORIZED);
        *strrchr(token, '.') = '\0'; /* no signature at all */
        assert_int_equal(check(token, NOW, &c), FAULT_UNAUTHORIZED);
        strcat(token, ".");
        assert_int_equal(check(token, NOW, &c), FAULT_UNAUTHORIZED);
    }
    free(signed_one);
}

static void forged_and_broken_are_refused(void **state)
{
    (void)state;
    edge_token_claims c;
    mesh_slice other = { (const uint8_t *)"another key, another key, another", 32 };
    char *token = edge_token_make(other, "alice", NULL, NULL, NOW, 3600);
    assert_int_equal(check(token, NOW, &c), FAULT_UNAUTHORIZED);
    free(token);
    token = edge_token_make(key, "alice", NULL, NULL, NOW, 3600);
    for (size_t i = 0; token[i] != '\0'; i++) { /* any one character changed: never somebody else, seldom still good */
        char was = token[i];
        token[i] = was == 'A' ? 'B' : 'A';
        if (check(token, NOW, &c) == FAULT_NONE) {
            assert_string_equal(c.user, "alice"); /* only the unused bits of a last character */
        }
        token[i] = was;
    }
    for (size_t n = strlen(token); n-- > 0;) { /* cut anywhere */
        token[n] = '\0';
        assert_int_equal(check(token, NOW, &c), FAULT_UNAUTHORIZED);
    }
    free(token);
    char *huge = malloc(EDGE_TOKEN_MAX + 2);
    memset(huge, 'a', EDGE_TOKEN_MAX + 1);
    huge[EDGE_TOKEN_MAX + 1] = '\0';
    huge[10] = huge[20] = '.';
    assert_int_equal(check(huge, NOW, &c), FAULT_UNAUTHORIZED);
    free(huge);
    static const char *broken[] = {
        "", ".", "..", "...", "a.b.c", "a..b", "a.b.", ".a.b", "a b.c.d", "\xff.\xff.\xff"
    };
    for (size_t i = 0; i < sizeof broken / sizeof *broken; i++) {
        assert_int_equal(check(broken[i], NOW, &c), FAULT_UNAUTHORIZED);
    }
}

static void names(void **state)
{
    (void)state;
    assert_true(edge_token_name_valid("a", 1));
    assert_false(edge_token_name_valid("", 1));
    assert_true(edge_token_name_valid("\xc3\xa4\xc3\xa4", 2));
    assert_false(edge_token_name_valid("\xc3\xa4\xc3\xa4", 1));
    assert_false(edge_token_name_valid("a\tb", 9));
    assert_false(edge_token_name_valid("a\x7f", 9));
    assert_false(edge_token_name_valid("a\xc2\x85", 9)); /* C1 */
    assert_true(edge_token_name_valid("a\xc2\xa0"
                                      "b",
                                      9));
    assert_false(edge_token_name_valid("\xc0\x80", 9));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(made_tokens_are_good),          cmocka_unit_test(time_is_kept),
        cmocka_unit_test(bad_claims_are_refused),        cmocka_unit_test(other_algorithms_are_refused),
        cmocka_unit_test(forged_and_broken_are_refused), cmocka_unit_test(names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
