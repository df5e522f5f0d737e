/* The edge's side of HTTP that needs no socket: request heads, verdicts, answers, and the table of addresses. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "edge/address.h"
#include "edge/http.h"

#define UPGRADE                                                                                                        \
    "GET /v1/ws HTTP/1.1\r\nHost: chat.example:8080\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n"      \
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
#define JSON "Sec-WebSocket-Protocol: parley.v1.json\r\n"

static mesh_slice text(const char *s)
{
    return (mesh_slice){ .data = (const uint8_t *)s, .size = strlen(s) };
}

static bool same(mesh_slice s, const char *want)
{
    return s.size == strlen(want) && memcmp(s.data, want, s.size) == 0;
}

static unsigned judge(const char *request, const char *origins)
{
    edge_head head;
    size_t size;
    assert_int_equal(edge_head_parse(text(request), &head, &size), MESH_OK);
    assert_int_equal(size, strlen(request));
    return edge_head_judge(&head, origins);
}

static void malformed(const char *request, size_t n)
{
    edge_head head;
    size_t size;
    mesh_slice bytes = { .data = (const uint8_t *)request, .size = n };
    assert_int_equal(edge_head_parse(bytes, &head, &size), MESH_MALFORMED);
}

static void test_head_is_read(void **state)
{
    (void)state;
    static const char request[] = UPGRADE "Origin: https://chat.example\r\n"
                                          "Sec-WebSocket-Protocol: x, parley.v1.protobuf , token.a.b.c\r\n"
                                          "Sec-WebSocket-Protocol: parley.v1.json\r\n\r\nmore";
    edge_head head;
    size_t size;
    assert_int_equal(edge_head_parse(text(request), &head, &size), MESH_OK);
    assert_string_equal(request + size, "more");
    assert_true(same(head.path, "/v1/ws"));
    assert_true(same(head.host, "chat.example:8080"));
    assert_true(same(head.origin, "https://chat.example"));
    assert_true(same(head.token, "a.b.c"));
    assert_true(head.upgrade && head.version13 && head.offered && !head.body && !head.forwarded);
    assert_int_equal(head.kind, EDGE_PROTOBUF);
    assert_int_equal(head.method, EDGE_GET);
}

static void test_head_comes_in_any_pieces(void **state)
{
    (void)state;
    static const char request[] = UPGRADE JSON "\r\n";
    edge_head head;
    size_t size;
    for (size_t n = 0; n < sizeof request - 1; n++) {
        mesh_slice part = { .data = (const uint8_t *)request, .size = n };
        assert_int_equal(edge_head_parse(part, &head, &size), MESH_AGAIN);
    }
    assert_int_equal(edge_head_parse(text(request), &head, &size), MESH_OK);
}

static void test_head_has_a_limit(void **state)
{
    (void)state;
    char *big = malloc(EDGE_HEAD_MAX + 64);
    assert_non_null(big);
    int at = snprintf(big, 64, "GET / HTTP/1.1\r\nHost: a\r\nX: ");
    memset(big + at, 'x', EDGE_HEAD_MAX);
    edge_head head;
    size_t size;
    mesh_slice bytes = { .data = (uint8_t *)big, .size = EDGE_HEAD_MAX - 1 };
    assert_int_equal(edge_head_parse(bytes, &head, &size), MESH_AGAIN);
    bytes.size = EDGE_HEAD_MAX;
    assert_int_equal(edge_head_parse(bytes, &head, &size), MESH_TOO_BIG);
    memcpy(big + EDGE_HEAD_MAX - 4, "\r\n\r\n", 4);
    assert_int_equal(edge_head_parse(bytes, &head, &size), MESH_OK);
    free(big);
}

static void test_tokens_have_a_limit(void **state)
{
    (void)state;
    static char request[EDGE_HEAD_MAX];
    int at = snprintf(request, sizeof request, UPGRADE "Sec-WebSocket-Protocol: parley.v1.json, token.");
    memset(request + at, 't', EDGE_HEAD_TOKEN_MAX + 1);
    strcpy(request + at + EDGE_HEAD_TOKEN_MAX, "\r\n\r\n");
    edge_head head;
    size_t size;
    assert_int_equal(edge_head_parse(text(request), &head, &size), MESH_OK);
    assert_int_equal(head.token.size, EDGE_HEAD_TOKEN_MAX);
    strcpy(request + at + EDGE_HEAD_TOKEN_MAX, "t\r\n\r\n");
    malformed(request, strlen(request));
}

static void test_head_is_strict(void **state)
{
    (void)state;
    static const char nul[] = "GET / HTTP/1.1\r\nHost: a\0b\r\n\r\n";
    malformed(nul, sizeof nul - 1);
    static const char *const bad[] = {
        "\r\n\r\n",
        "GET\r\n\r\n",
        "GET /\r\n\r\n",
        "GET / HTTP/2.0\r\n\r\n",
        "GET / HTTP/1.1 \r\n\r\n",
        "GET  / HTTP/1.1\r\n\r\n",
        "G\tT / HTTP/1.1\r\n\r\n",
        "GET http://a/ HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /\x7f HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\nX: b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\rX: b\r\n\r\n",
        "GET / HTTP/1.1\r\nX: a\r\n b\r\n\r\n",
        "GET / HTTP/1.1\r\nX : a\r\n\r\n",
        "GET / HTTP/1.1\r\n: a\r\n\r\n",
        "GET / HTTP/1.1\r\nX\r\n\r\n",
        "GET / HTTP/1.1\r\nOrigin: a\r\nOrigin: b\r\n\r\n",
        "GET / HTTP/1.1\r\nSec-WebSocket-Protocol: token.a, token.b\r\n\r\n",
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        malformed(bad[i], strlen(bad[i]));
    }
}

static void test_upgrades_are_judged(void **state)
{
    (void)state;
    assert_int_equal(judge(UPGRADE JSON "\r\n", ""), 101);
    assert_int_equal(judge(UPGRADE "\r\n", ""), 400);
    assert_int_equal(judge(UPGRADE "Sec-WebSocket-Protocol: token.a\r\n\r\n", ""), 400);
    assert_int_equal(judge(UPGRADE JSON "Content-Length: 1\r\n\r\n", ""), 400);
    assert_int_equal(judge("GET /v1/ws HTTP/1.1\r\nHost: a\r\n\r\n", ""), 426);
    assert_int_equal(judge("GET /v1/ws?x=1 HTTP/1.1\r\nHost: a\r\n\r\n", ""), 426);
    assert_int_equal(judge("GET /v1/ws?x=1&Token=abc HTTP/1.1\r\nHost: a\r\n\r\n", ""), 400);
    assert_int_equal(judge("GET /?access_token HTTP/1.1\r\nHost: a\r\n\r\n", ""), 400);
    assert_int_equal(judge("GET /v2 HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n", ""),
                     404);
    assert_int_equal(judge("GET / HTTP/1.1\r\nHost: a\r\nUpgrade: h2c\r\nConnection: upgrade\r\n\r\n", ""), 200);
    assert_int_equal(judge("PUT / HTTP/1.1\r\nHost: a\r\n\r\n", ""), 405);
    assert_int_equal(judge("GET / HTTP/1.1\r\n\r\n", ""), 400);
    assert_int_equal(judge("HEAD / HTTP/1.0\r\nHost: a\r\n\r\n", ""), 200);
}

static void test_origins(void **state)
{
    (void)state;
    static const struct {
        const char *origin;
        const char *allowed;
        unsigned status;
    } rows[] = {
        { "http://chat.example:8080", "", 101 },
        { "HTTPS://Chat.Example:8080", "", 101 },
        { "http://chat.example", "", 403 },
        { "http://chat.example:8081", "", 403 },
        { "http://chat.example:8080.evil", "", 403 },
        { "http://evil/chat.example:8080", "", 403 },
        { "chat.example:8080", "", 403 },
        { "null", "", 403 },
        { "", "", 403 },
        { "https://app.example", "https://other.example https://app.example", 101 },
        { "https://app.example", "https://app.example.org", 403 },
        { "https://app.example", "app.example", 403 },
        { "https://any.example", "*", 101 },
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        char request[1024];
        snprintf(request, sizeof request, UPGRADE JSON "Origin: %s\r\n\r\n", rows[i].origin);
        assert_int_equal(judge(request, rows[i].allowed), rows[i].status);
    }
    assert_int_equal(judge("GET /v1/ws HTTP/1.1\r\nHost: a:80\r\nOrigin: http://a\r\nUpgrade: websocket\r\n"
                           "Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
                           "Sec-WebSocket-Version: 13\r\n" JSON "\r\n",
                           ""),
                     101);
}

static void test_the_token_stays_here(void **state)
{
    (void)state;
    edge_head head;
    size_t size;
    mesh_buf out = { 0 };
    assert_int_equal(
        edge_head_parse(text(UPGRADE "Sec-WebSocket-Protocol: parley.v1.json, token.secret\r\n\r\n"), &head, &size),
        MESH_OK);
    edge_head_put_upgrade(&head, &out);
    assert_null(memmem(out.data, out.size, "secret", 6));
    assert_int_equal(edge_head_parse(mesh_buf_slice(&out), &head, &size), MESH_OK);
    assert_int_equal(edge_head_judge(&head, ""), 101);
    assert_true(same(head.ws_key, "dGhlIHNhbXBsZSBub25jZQ=="));
    mesh_buf_fini(&out);
}

/* ---- answers ---- */

static void print_metrics(void *arg, mesh_buf *out)
{
    (void)arg;
    mesh_buf_puts(out, "parley_x 1\n");
}

typedef struct web {
    char dir[64];
    edge_http *http;
} web;

static void put_file(const char *dir, const char *name, const char *bytes)
{
    char path[128];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs(bytes, f);
    fclose(f);
}

static int web_setup(void **state)
{
    web *w = calloc(1, sizeof *w);
    assert_non_null(w);
    strcpy(w->dir, "/tmp/parley-web-XXXXXX");
    assert_non_null(mkdtemp(w->dir));
    char sub[80];
    char link[96];
    snprintf(sub, sizeof sub, "%s/js", w->dir);
    snprintf(link, sizeof link, "%s/passwd.txt", w->dir);
    assert_int_equal(mkdir(sub, 0700), 0);
    assert_int_equal(symlink("/etc/passwd", link), 0);
    put_file(w->dir, "index.html", "<p>hello");
    put_file(w->dir, ".hidden", "no");
    put_file(w->dir, "a b.txt", "no");
    put_file(sub, "app.mjs", "export {};");
    assert_int_equal(edge_http_new(w->dir, &w->http), MESH_OK);
    *state = w;
    return 0;
}

static int web_teardown(void **state)
{
    web *w = *state;
    char command[128];
    edge_http_destroy(&w->http);
    snprintf(command, sizeof command, "rm -rf %s", w->dir);
    int rc = system(command);
    free(w);
    return rc;
}

/* Head and body of the answer, as one string; yours. */
static char *ask_as(const web *w, const char *lines, bool loopback, bool draining)
{
    char request[512];
    snprintf(request, sizeof request, "%s\r\nHost: a\r\n\r\n", lines);
    edge_head head;
    size_t size;
    assert_int_equal(edge_head_parse(text(request), &head, &size), MESH_OK);
    edge_http_asker asker = { .loopback = loopback, .draining = draining, .metrics = print_metrics };
    edge_http_reply reply;
    edge_http_answer(w->http, &head, edge_head_judge(&head, ""), &asker, &reply);
    mesh_buf_put(&reply.head, reply.body.data ? reply.body.data : (const uint8_t *)"", reply.body.size);
    mesh_buf_put(&reply.head, "", 1);
    return (char *)reply.head.data;
}

static void expect(const web *w, const char *lines, const char *start, const char *has)
{
    char *answer = ask_as(w, lines, true, false);
    assert_memory_equal(answer, start, strlen(start));
    assert_non_null(strstr(answer, has));
    assert_non_null(strstr(answer, "Content-Security-Policy: default-src 'self'; connect-src 'self' ws: wss:"));
    assert_non_null(strstr(answer, "X-Content-Type-Options: nosniff\r\nReferrer-Policy: no-referrer\r\n"));
    assert_non_null(strstr(answer, "Connection: close\r\n"));
    free(answer);
}

static void test_files_are_answered(void **state)
{
    web *w = *state;
    assert_int_equal(edge_http_files(w->http), 2);
    expect(w, "GET / HTTP/1.1", "HTTP/1.1 200 ", "\r\n\r\n<p>hello");
    expect(w, "GET /index.html?v=2 HTTP/1.1", "HTTP/1.1 200 ", "Content-Type: text/html; charset=utf-8\r\n");
    expect(w, "GET /js/app.mjs HTTP/1.1", "HTTP/1.1 200 ", "Content-Type: text/javascript; charset=utf-8\r\n");
    static const char *const absent[] = {
        "/.hidden",   "/a b.txt",       "/a%20b.txt",        "/passwd.txt",  "/js",        "/js/",
        "/index.htm", "/../etc/passwd", "/js/../index.html", "//index.html", "/INDEX.HTML"
    };
    for (size_t i = 0; i < sizeof absent / sizeof absent[0]; i++) {
        char lines[128];
        snprintf(lines, sizeof lines, "GET %s HTTP/1.1", absent[i]);
        if (!strchr(absent[i], ' ')) {
            expect(w, lines, "HTTP/1.1 404 ", "not found");
        }
    }
}

static void test_head_and_etag(void **state)
{
    web *w = *state;
    char *answer = ask_as(w, "HEAD / HTTP/1.1", true, false);
    assert_non_null(strstr(answer, "Content-Length: 8\r\n"));
    assert_string_equal(strstr(answer, "\r\n\r\n"), "\r\n\r\n");
    char etag[64] = "";
    assert_int_equal(sscanf(strstr(answer, "ETag: "), "ETag: %63s", etag), 1);
    free(answer);
    char lines[160];
    snprintf(lines, sizeof lines, "GET / HTTP/1.1\r\nIf-None-Match: %s", etag);
    expect(w, lines, "HTTP/1.1 304 ", etag);
}

static void test_health_and_metrics(void **state)
{
    web *w = *state;
    expect(w, "GET /healthz HTTP/1.1", "HTTP/1.1 200 ", "\r\n\r\nok\n");
    expect(w, "GET /metrics HTTP/1.1", "HTTP/1.1 200 ", "\r\n\r\nparley_x 1\n");
    expect(w, "GET /metrics HTTP/1.1\r\nX-Forwarded-For: 1.2.3.4", "HTTP/1.1 404 ", "not found");
    expect(w, "GET /metrics HTTP/1.1\r\nForwarded: for=1.2.3.4", "HTTP/1.1 404 ", "not found");
    char *answer = ask_as(w, "GET /metrics HTTP/1.1", false, false);
    assert_memory_equal(answer, "HTTP/1.1 404 ", 13);
    free(answer);
    answer = ask_as(w, "GET /healthz HTTP/1.1", true, true);
    assert_memory_equal(answer, "HTTP/1.1 503 ", 13);
    free(answer);
}

static void test_web_dir_has_limits(void **state)
{
    web *w = *state;
    edge_http *http = NULL;
    assert_int_equal(edge_http_new("/nonexistent", &http), MESH_IO);
    for (int i = 0; i < EDGE_HTTP_FILES_MAX; i++) {
        char name[24];
        snprintf(name, sizeof name, "f%d.txt", i);
        put_file(w->dir, name, "x");
    }
    assert_int_equal(edge_http_new(w->dir, &http), MESH_TOO_BIG);
    assert_null(http);
    assert_int_equal(edge_http_new("", &http), MESH_OK);
    assert_int_equal(edge_http_files(http), 0);
    edge_http_destroy(&http);
}

static void test_web_dir_has_so_many_bytes(void **state)
{
    web *w = *state;
    edge_http *http = NULL;
    char path[128];
    snprintf(path, sizeof path, "%s/big.txt", w->dir);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fclose(f);
    const size_t others = strlen("<p>hello") + strlen("export {};");
    assert_int_equal(truncate(path, (off_t)(EDGE_HTTP_BYTES_MAX - others)), 0);
    assert_int_equal(edge_http_new(w->dir, &http), MESH_OK);
    assert_int_equal(edge_http_files(http), 3);
    edge_http_destroy(&http);
    assert_int_equal(truncate(path, (off_t)(EDGE_HTTP_BYTES_MAX - others + 1)), 0);
    assert_int_equal(edge_http_new(w->dir, &http), MESH_TOO_BIG);
    assert_null(http);
}

/* Directories below the last one that is looked into, and paths that are too long, are left out. */
static void test_web_dir_has_so_many_levels(void **state)
{
    web *w = *state;
    edge_http *http = NULL;
    char dir[128];
    size_t at = (size_t)snprintf(dir, sizeof dir, "%s", w->dir);
    for (int depth = 2; depth <= EDGE_HTTP_DEPTH_MAX; depth++) {
        at += (size_t)snprintf(dir + at, sizeof dir - at, "/d");
        assert_int_equal(mkdir(dir, 0700), 0);
    }
    put_file(dir, "last.txt", "x");
    assert_int_equal(edge_http_new(w->dir, &http), MESH_OK);
    assert_int_equal(edge_http_files(http), 3);
    edge_http_destroy(&http);
    strcpy(dir + at, "/d");
    assert_int_equal(mkdir(dir, 0700), 0);
    put_file(dir, "beyond.txt", "x");
    assert_int_equal(edge_http_new(w->dir, &http), MESH_OK);
    assert_int_equal(edge_http_files(http), 3);
    edge_http_destroy(&http);
}

/* ---- addresses ---- */

static struct sockaddr_storage address_of(const char *s)
{
    struct sockaddr_storage out = { 0 };
    struct sockaddr_in *v4 = (void *)&out;
    struct sockaddr_in6 *v6 = (void *)&out;
    if (inet_pton(AF_INET, s, &v4->sin_addr) == 1) {
        v4->sin_family = AF_INET;
    } else {
        assert_int_equal(inet_pton(AF_INET6, s, &v6->sin6_addr), 1);
        v6->sin6_family = AF_INET6;
    }
    return out;
}

static mesh_err hold(edge_address_table *table, const char *s, edge_address **out)
{
    struct sockaddr_storage peer = address_of(s);
    return edge_address_hold(table, (struct sockaddr *)&peer, out);
}

static void test_addresses_are_counted(void **state)
{
    (void)state;
    edge_address_table *table = edge_address_new(2);
    edge_address *a[5];
    assert_int_equal(hold(table, "10.0.0.1", &a[0]), MESH_OK);
    assert_int_equal(hold(table, "::ffff:10.0.0.1", &a[1]), MESH_OK); /* the same one */
    assert_ptr_equal(a[0], a[1]);
    assert_int_equal(hold(table, "10.0.0.1", &a[2]), MESH_FULL);
    assert_int_equal(hold(table, "2001:db8::1", &a[2]), MESH_OK);
    assert_int_equal(hold(table, "2001:db8::ffff:1", &a[3]), MESH_OK); /* the same /64 */
    assert_int_equal(hold(table, "2001:db8::2", &a[4]), MESH_FULL);
    assert_int_equal(hold(table, "2001:db8:0:1::1", &a[4]), MESH_OK);
    assert_int_equal(edge_address_count(table), 3);
    for (size_t i = 0; i < 5; i++) {
        edge_address_drop(table, a[i]);
    }
    assert_int_equal(edge_address_count(table), 0);
    assert_int_equal(hold(table, "10.0.0.1", &a[0]), MESH_OK);
    edge_address_drop(table, a[0]);
    edge_address_destroy(&table);
}

static void test_loopback(void **state)
{
    (void)state;
    static const struct {
        const char *address;
        bool loopback;
    } rows[] = { { "127.0.0.1", true },        { "127.9.9.9", true },  { "::1", true },
                 { "::ffff:127.0.0.1", true }, { "128.0.0.1", false }, { "::2", false },
                 { "::ffff:10.0.0.1", false } };
    edge_address_table *table = edge_address_new(10);
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        edge_address *a;
        assert_int_equal(hold(table, rows[i].address, &a), MESH_OK);
        assert_int_equal(edge_address_loopback(a), rows[i].loopback);
        edge_address_drop(table, a);
    }
    edge_address_destroy(&table);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_head_is_read),
        cmocka_unit_test(test_head_comes_in_any_pieces),
        cmocka_unit_test(test_head_has_a_limit),
        cmocka_unit_test(test_tokens_have_a_limit),
        cmocka_unit_test(test_head_is_strict),
        cmocka_unit_test(test_upgrades_are_judged),
        cmocka_unit_test(test_origins),
        cmocka_unit_test(test_the_token_stays_here),
        cmocka_unit_test_setup_teardown(test_files_are_answered, web_setup, web_teardown),
        cmocka_unit_test_setup_teardown(test_head_and_etag, web_setup, web_teardown),
        cmocka_unit_test_setup_teardown(test_health_and_metrics, web_setup, web_teardown),
        cmocka_unit_test_setup_teardown(test_web_dir_has_limits, web_setup, web_teardown),
        cmocka_unit_test_setup_teardown(test_web_dir_has_so_many_bytes, web_setup, web_teardown),
        cmocka_unit_test_setup_teardown(test_web_dir_has_so_many_levels, web_setup, web_teardown),
        cmocka_unit_test(test_addresses_are_counted),
        cmocka_unit_test(test_loopback),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
