/* Tokens: '1' and then header, newline and claims, which are signed here with the right key, so that what is behind the
 * signature is reached; anything else is the token itself. */
#include <assert.h>
#include <sodium.h>
#include <string.h>

#include "edge/token.h"
#include "tests/fuzz/fuzz.h"

static const char key[] = "0123456789abcdef0123456789abcdef";

static void put_base64(mesh_buf *out, const uint8_t *bytes, size_t n)
{
    size_t room = sodium_base64_encoded_len(n, sodium_base64_VARIANT_URLSAFE_NO_PADDING);
    char *text = (char *)mesh_buf_grow(out, room);
    sodium_bin2base64(text, room, bytes, n, sodium_base64_VARIANT_URLSAFE_NO_PADDING);
    out->size -= room - strlen(text);
}

static void sign(mesh_buf *token, const uint8_t *data, size_t size)
{
    const uint8_t *newline = size > 0 ? memchr(data, '\n', size) : NULL;
    size_t head = newline != NULL ? (size_t)(newline - data) : size;
    put_base64(token, data, head);
    mesh_buf_puts(token, ".");
    if (newline != NULL) {
        put_base64(token, newline + 1, size - head - 1);
    }
    crypto_auth_hmacsha256_state state;
    uint8_t mac[crypto_auth_hmacsha256_BYTES];
    crypto_auth_hmacsha256_init(&state, (const uint8_t *)key, sizeof key - 1);
    crypto_auth_hmacsha256_update(&state, token->data, token->size);
    crypto_auth_hmacsha256_final(&state, mac);
    mesh_buf_puts(token, ".");
    put_base64(token, mac, sizeof mac);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    mesh_buf token = { 0 };
    if (size > 0 && data[0] == '1') {
        sign(&token, data + 1, size - 1);
    } else {
        mesh_buf_put(&token, data, size);
    }
    mesh_buf_put(&token, "", 1);
    edge_token_claims claims;
    uint32_t fault = 0;
    mesh_slice with = { (const uint8_t *)key, sizeof key - 1 };
    if (strlen((const char *)token.data) <= EDGE_TOKEN_MAX &&
        edge_token_check(with, (const char *)token.data, 1700000000, 60, &claims, &fault) == MESH_OK) {
        assert(mesh_id_valid(claims.user));
        assert(claims.name[0] == '\0' || edge_token_name_valid(claims.name, EDGE_NAME_CODE_POINTS));
        assert(claims.exp_s > 1700000000 - 61);
    }
    mesh_buf_fini(&token);
    return 0;
}
