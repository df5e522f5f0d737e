/* edge/partial.c by itself, and edge/ws.c over a pair of sockets: the test is the client. */
#include <fcntl.h>
#include <libwebsockets.h>
#include <sys/socket.h>
#include <uv.h>

#include "edge/partial.h"
#include "edge/ws.h"

#include "capture.h"
#define stat world_stat /* the name is taken: uv.h brings the system call */
#include "edge_world.h"

#define WAIT_TURNS 2000

/* ---- half-received messages ---- */

static mesh_err put(edge_partial_pool *pool, edge_partial *p, size_t size, uint64_t declared, size_t max)
{
    static uint8_t bytes[EDGE_FRAME_MAX + 1];
    return edge_partial_put(pool, p, (mesh_slice){ bytes, size }, declared, max);
}

static void a_message_grows_up_to_its_limit(void **state)
{
    (void)state;
    edge_partial_pool pool = { .max = EDGE_PARTIAL_MAX };
    edge_partial p = { 0 };
    assert_int_equal(put(&pool, &p, EDGE_FRAME_MAX + 1, 0, EDGE_FRAME_MAX), MESH_TOO_BIG);
    assert_int_equal(put(&pool, &p, 1, EDGE_FRAME_MAX, EDGE_FRAME_MAX), MESH_TOO_BIG);
    assert_int_equal(put(&pool, &p, 1, UINT64_MAX, EDGE_FRAME_MAX), MESH_TOO_BIG);
    assert_true(p.bytes == NULL && pool.held == 0);
    assert_int_equal(
        edge_partial_put(&pool, &p, (mesh_slice){ (const uint8_t *)"ab", 2 }, EDGE_FRAME_MAX - 2, EDGE_FRAME_MAX),
        MESH_OK);
    assert_int_equal(p.cap, 2 + EDGE_PARTIAL_AHEAD); /* what is declared may never come */
    assert_int_equal(edge_partial_put(&pool, &p, (mesh_slice){ NULL, 0 }, 0, EDGE_FRAME_MAX), MESH_OK);
    while (p.size < EDGE_FRAME_MAX) {
        size_t rest = EDGE_FRAME_MAX - p.size;
        assert_int_equal(put(&pool, &p, rest < 1000 ? rest : 1000, 0, EDGE_FRAME_MAX), MESH_OK);
        assert_true(pool.held == p.cap && p.cap <= EDGE_FRAME_MAX);
    }
    assert_memory_equal(p.bytes, "ab\0\0", 4);
    assert_int_equal(put(&pool, &p, 1, 0, EDGE_FRAME_MAX), MESH_TOO_BIG);
    assert_int_equal(p.size, EDGE_FRAME_MAX);
    edge_partial_drop(&pool, &p);
    edge_partial_drop(&pool, &p);
    assert_true(p.bytes == NULL && p.size == 0 && pool.held == 0);
}

/* Strangers that say hello with nothing but beginnings fill their 8 KiB each; who would go beyond the sum is refused,
 * and there is room again when one is gone. */
static void all_messages_together_are_bounded(void **state)
{
    (void)state;
    enum { N = EDGE_PARTIAL_MAX / EDGE_HELLO_FRAME_MAX };
    edge_partial_pool pool = { .max = EDGE_PARTIAL_MAX };
    edge_partial *all = mesh_alloc((N + 1) * sizeof *all);
    for (size_t i = 0; i < N; i++) {
        assert_int_equal(put(&pool, &all[i], EDGE_HELLO_FRAME_MAX, 0, EDGE_HELLO_FRAME_MAX), MESH_OK);
    }
    assert_int_equal(pool.held, EDGE_PARTIAL_MAX);
    assert_int_equal(put(&pool, &all[N], 1, 0, EDGE_HELLO_FRAME_MAX), MESH_FULL);
    assert_true(all[N].bytes == NULL && pool.held == EDGE_PARTIAL_MAX);
    edge_partial_drop(&pool, &all[7]);
    assert_int_equal(put(&pool, &all[N], 1, 0, EDGE_HELLO_FRAME_MAX), MESH_OK);
    for (size_t i = 0; i <= N; i++) {
        edge_partial_drop(&pool, &all[i]);
    }
    assert_int_equal(pool.held, 0);
    free(all);
}

/* ---- over a socket ---- */

typedef struct shell {
    world *w;
    uv_loop_t uv;
    edge_ws *ws;
    unsigned released;
} shell;

static void release(void *arg, edge_address *address)
{
    (void)address;
    ((shell *)arg)->released++;
}

static int shell_setup(void **state)
{
    int rc = world_setup(state);
    shell *h = mesh_alloc(sizeof *h);
    h->w = *state;
    rc |= uv_loop_init(&h->uv);
    edge_ws_conf conf = { .uv = &h->uv, .core = h->w->core, .out = h->w->out, .release = release, .release_arg = h };
    assert_int_equal(edge_ws_new(&conf, &h->ws), MESH_OK);
    *state = h;
    return rc;
}

static int shell_teardown(void **state)
{
    shell *h = *state;
    void *w = h->w;
    edge_ws_destroy(&h->ws);
    uv_run(&h->uv, UV_RUN_NOWAIT);
    (void)uv_loop_close(&h->uv);
    free(h);
    return world_teardown(&w);
}

static void turn_shell(shell *h)
{
    mesh_time now = mesh_clock_now();
    uv_run(&h->uv, UV_RUN_NOWAIT);
    edge_ws_flush(h->ws, now);
    (void)edge_ws_tick(h->ws, now);
    edge_ws_resume(h->ws);
}

static uint64_t shell_stat(shell *h, const char *name)
{
    mesh_buf page = { 0 };
    edge_ws_print_stats(h->ws, "edge1", &page);
    mesh_buf_put(&page, "", 1);
    char *row = strstr((char *)page.data, name);
    while (row != NULL && row != (char *)page.data && row[-1] != '\n') {
        row = strstr(row + 1, name);
    }
    assert_non_null(row);
    uint64_t value = strtoull(strchr(row, ' ') + 1, NULL, 10);
    mesh_buf_fini(&page);
    return value;
}

/* The client's end of a WebSocket; its upgrade has been answered. */
static int connect_client(shell *h, edge_session_id *session)
{
    static const char request[] = "GET /v1/ws HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                                  "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
                                  "Sec-WebSocket-Protocol: parley.v1.json\r\n\r\n";
    int fds[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds), 0);
    assert_int_equal(edge_core_open(h->w->core, EDGE_JSON, h->w->token, mesh_clock_now(), session), MESH_OK);
    edge_ws_adopt(h->ws, *session, EDGE_JSON, fds[0], NULL, text(request));
    assert_int_equal(edge_ws_sockets(h->ws), 1);
    char head[1024];
    size_t size = 0;
    for (int i = 0; i < WAIT_TURNS && memmem(head, size, "\r\n\r\n", 4) == NULL; i++) {
        turn_shell(h);
        ssize_t n = recv(fds[1], head + size, 1, 0);
        size += n > 0 ? (size_t)n : 0;
    }
    assert_memory_equal(head, "HTTP/1.1 101 ", 13);
    return fds[1];
}

/* One masked frame, the mask zero; declared: the length it claims. */
static void send_frame(shell *h, int fd, uint8_t first, const void *payload, size_t size, uint64_t declared)
{
    uint8_t head[14] = { first, 0x80 | 127 };
    for (int i = 0; i < 8; i++) {
        head[2 + i] = (uint8_t)(declared >> (56 - 8 * i));
    }
    mesh_buf frame = { 0 };
    mesh_buf_put(&frame, head, sizeof head);
    mesh_buf_put(&frame, payload, size);
    size_t sent = 0;
    for (int i = 0; i < WAIT_TURNS && sent < frame.size; i++) {
        ssize_t n = send(fd, frame.data + sent, frame.size - sent, MSG_NOSIGNAL);
        sent += n > 0 ? (size_t)n : 0;
        turn_shell(h);
    }
    mesh_buf_fini(&frame);
}

/* The code of the close frame that comes, 0: none within the turns. Texts before it are dropped. */
static unsigned closing(shell *h, int fd)
{
    uint8_t bytes[4096];
    size_t size = 0;
    for (int i = 0; i < WAIT_TURNS && size + 256 < sizeof bytes; i++) {
        turn_shell(h);
        ssize_t n = recv(fd, bytes + size, sizeof bytes - size, 0);
        size += n > 0 ? (size_t)n : 0;
        for (size_t at = 0; at + 4 <= size;) {
            size_t length = bytes[at + 1] == 126 ? (size_t)bytes[at + 2] << 8 | bytes[at + 3] : bytes[at + 1];
            if (bytes[at] == 0x88) {
                return (unsigned)bytes[at + 2] << 8 | bytes[at + 3];
            }
            at += 2 + (bytes[at + 1] == 126 ? 2u : 0u) + length;
        }
    }
    return 0;
}

static void turns(shell *h, int n)
{
    for (int i = 0; i < n; i++) {
        turn_shell(h);
    }
}

static void a_stranger_holds_little(void **state)
{
    shell *h = *state;
    static char spaces[EDGE_HELLO_FRAME_MAX];
    memset(spaces, ' ', sizeof spaces);
    edge_session_id id;
    int fd = connect_client(h, &id);
    send_frame(h, fd, 0x01, spaces, 1000, 1000);
    turns(h, 10);
    assert_in_range(shell_stat(h, "parley_edge_ws_partial_bytes"), 1000, EDGE_HELLO_FRAME_MAX);
    send_frame(h, fd, 0x00, spaces, EDGE_HELLO_FRAME_MAX - 1000, EDGE_HELLO_FRAME_MAX - 1000);
    turns(h, 10);
    assert_int_equal(shell_stat(h, "parley_edge_ws_partial_bytes"), EDGE_HELLO_FRAME_MAX);
    assert_int_equal(shell_stat(h, "parley_edge_ws_too_big_total"), 0);
    send_frame(h, fd, 0x00, " ", 1, 1);
    assert_int_equal(closing(h, fd), 1009);
    assert_int_equal(shell_stat(h, "parley_edge_ws_partial_bytes"), 0);
    assert_int_equal(shell_stat(h, "parley_edge_ws_too_big_total"), 1);
    close(fd);
    turns(h, 20);
    assert_int_equal(h->released, 1);
}

static void a_declared_length_is_cut_before_its_bytes(void **state)
{
    shell *h = *state;
    edge_session_id id;
    int fd = connect_client(h, &id);
    send_frame(h, fd, 0x81, "x", 1, EDGE_HELLO_FRAME_MAX + 1);
    assert_int_equal(closing(h, fd), 1009);
    close(fd);
}

static void who_is_known_may_send_more(void **state)
{
    shell *h = *state;
    static const char hello[] = "{\"type\":\"hello\",\"device\":\"phone\"}";
    edge_session_id id;
    h->w->now = mesh_clock_now();
    free(h->w->token);
    h->w->token = edge_token_make(world_key, "alice", NULL, NULL, h->w->now.wall / 1000, 3600);
    int fd = connect_client(h, &id);
    send_frame(h, fd, 0x81, hello, sizeof hello - 1, sizeof hello - 1);
    turns(h, 10);
    only(h->w, ROUTER1, MESH__MSG__BODY_ATTACH);
    char *ping = mesh_alloc(EDGE_FRAME_MAX);
    memset(ping, ' ', EDGE_FRAME_MAX);
    memcpy(ping, "{\"type\":\"ping\",\"id\":5}", 22);
    send_frame(h, fd, 0x81, ping, EDGE_FRAME_MAX, EDGE_FRAME_MAX);
    turns(h, WAIT_TURNS); /* a kilobyte each */
    assert_int_equal(shell_stat(h, "parley_edge_ws_messages_total{node=\"edge1\",dir=\"in\"}"), 2);
    assert_int_equal(shell_stat(h, "parley_edge_ws_too_big_total"), 0);
    send_frame(h, fd, 0x81, ping, EDGE_FRAME_MAX, EDGE_FRAME_MAX + 1);
    assert_int_equal(closing(h, fd), 1009);
    free(ping);
    close(fd);
}

static void metrics_name_each_family_once(void **state)
{
    shell *h = *state;
    mesh_buf page = { 0 };
    edge_ws_print_stats(h->ws, "edge1", &page);
    mesh_stats_print(edge_core_stats(h->w->core), "edge1", &page);
    mesh_buf_put(&page, "", 1);
    char *seen[256];
    size_t n = 0;
    char family[128] = "";
    for (char *line = strtok((char *)page.data, "\n"); line != NULL; line = strtok(NULL, "\n")) {
        if (strncmp(line, "# HELP ", 7) == 0) {
            for (size_t i = 0; i < n; i++) {
                assert_string_not_equal(seen[i], line);
            }
            seen[n++] = line;
            assert_int_equal(sscanf(line, "# HELP %127s", family), 1);
        } else if (line[0] != '#') { /* rows stand under their own name */
            assert_memory_equal(line, family, strlen(family));
            assert_int_equal(line[strlen(family)], '{');
        }
    }
    assert_true(n > 30);
    mesh_buf_fini(&page);
}

static void an_upgrade_logs_nothing(void **state)
{
    shell *h = *state;
    capture c;
    static char log[16384];
    edge_session_id id;
    mesh_log_level(MESH_INFO);
    lws_set_log_level(LLL_ERR | LLL_WARN, NULL); /* as a client in the same process may */
    capture_start(&c);
    int fd = connect_client(h, &id);
    (void)capture_stop(&c, log, sizeof log);
    mesh_log_level(MESH_WARN);
    assert_string_equal(log, "");
    close(fd);
}

#define SHELL(test) cmocka_unit_test_setup_teardown(test, shell_setup, shell_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_message_grows_up_to_its_limit),
        cmocka_unit_test(all_messages_together_are_bounded),
        SHELL(a_stranger_holds_little),
        SHELL(a_declared_length_is_cut_before_its_bytes),
        SHELL(who_is_known_may_send_more),
        SHELL(metrics_name_each_family_once),
        SHELL(an_upgrade_logs_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
