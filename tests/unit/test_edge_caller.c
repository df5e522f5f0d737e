/* edge/caller.c over pairs of sockets: who is not a WebSocket yet has little time and little room. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>
#include <uv.h>

#include "edge/caller.h"
#include "mesh/alloc.h"

#define BODY_SIZE (512 * 1024) /* more than a socket takes at once */

typedef struct fixture {
    uv_loop_t uv;
    edge_callers *callers;
    edge_address_table *addresses;
    edge_http *http;
    char dir[64];
    size_t open; /* callers not closed */
} fixture;

static mesh_err refuse_upgrade(void *arg, const edge_head *head, edge_session_id *session_p)
{
    (void)arg;
    (void)head;
    (void)session_p;
    return MESH_FULL;
}

static void release(void *arg, edge_address *address)
{
    fixture *f = arg;
    edge_address_drop(f->addresses, address);
    f->open--;
}

static int setup(void **state)
{
    static const edge_caller_handler handler = { .open = refuse_upgrade };
    fixture *f = mesh_alloc(sizeof *f);
    char path[96];
    strcpy(f->dir, "/tmp/parley-caller-XXXXXX");
    assert_non_null(mkdtemp(f->dir));
    snprintf(path, sizeof path, "%s/index.html", f->dir);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    for (int i = 0; i < BODY_SIZE; i++) {
        fputc('x', file);
    }
    fclose(file);
    assert_int_equal(uv_loop_init(&f->uv), 0);
    assert_int_equal(edge_http_new(f->dir, &f->http), MESH_OK);
    unlink(path);
    rmdir(f->dir);
    f->addresses = edge_address_new(10000);
    f->callers = edge_callers_new(&(edge_caller_conf){ .uv = &f->uv,
                                                       .http = f->http,
                                                       .origins = "",
                                                       .handler = &handler,
                                                       .handler_arg = f,
                                                       .release = release,
                                                       .release_arg = f });
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    fixture *f = *state;
    edge_callers_destroy(&f->callers);
    assert_int_equal(f->open, 0);
    uv_run(&f->uv, UV_RUN_NOWAIT);
    assert_int_equal(uv_loop_close(&f->uv), 0);
    edge_address_destroy(&f->addresses);
    edge_http_destroy(&f->http);
    free(f);
    return 0;
}

/* A caller that has sent size bytes of request; its own end. */
static int call(fixture *f, const char *request, size_t size)
{
    int fds[2];
    struct sockaddr_in peer = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    edge_address *address;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds), 0);
    assert_int_equal(edge_address_hold(f->addresses, (struct sockaddr *)&peer, &address), MESH_OK);
    assert_int_equal(send(fds[1], request, size, MSG_NOSIGNAL), (ssize_t)size);
    f->open++;
    edge_callers_add(f->callers, fds[0], address);
    return fds[1];
}

static void turn(fixture *f)
{
    for (int i = 0; i < 5; i++) {
        uv_run(&f->uv, UV_RUN_NOWAIT);
    }
}

/* At ms from now, as the loop would look; the caller's deadline counts from before. */
static void look_at(fixture *f, mesh_ms ms)
{
    (void)edge_callers_tick(f->callers, mesh_clock_now().mono + ms);
}

static void a_head_has_its_time(void **state)
{
    fixture *f = *state;
    int fd = call(f, "GET / HT", 8);
    turn(f);
    look_at(f, EDGE_CALLER_HEAD_MS - 1000);
    assert_int_equal(f->open, 1);
    look_at(f, EDGE_CALLER_HEAD_MS + EDGE_CALLER_SCAN_MS);
    assert_int_equal(f->open, 0);
    char byte;
    assert_int_equal(recv(fd, &byte, 1, 0), 0);
    close(fd);
}

/* Deadlines are looked at only so often. */
static void looking_is_paced(void **state)
{
    fixture *f = *state;
    mesh_ms now = mesh_clock_now().mono;
    assert_true(edge_callers_tick(f->callers, now) == MESH_NEVER);
    int fd = call(f, "GET / HT", 8);
    mesh_ms next = edge_callers_tick(f->callers, now);
    assert_in_range(next - now, EDGE_CALLER_SCAN_MS, EDGE_CALLER_SCAN_MS + 5000);
    assert_true(edge_callers_tick(f->callers, next) == next + EDGE_CALLER_SCAN_MS);
    close(fd);
    turn(f);
    assert_int_equal(f->open, 0);
}

static void an_answer_has_its_time(void **state)
{
    fixture *f = *state;
    static const char request[] = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    int fd = call(f, request, sizeof request - 1); /* and reads nothing */
    turn(f);
    look_at(f, EDGE_CALLER_REPLY_MS - 1000);
    assert_int_equal(f->open, 1);
    look_at(f, EDGE_CALLER_REPLY_MS + EDGE_CALLER_SCAN_MS);
    assert_int_equal(f->open, 0);
    close(fd);
}

static void who_has_its_answer_lingers_a_little(void **state)
{
    fixture *f = *state;
    static const char request[] = "GET /none HTTP/1.1\r\nHost: a\r\n\r\n";
    int fd = call(f, request, sizeof request - 1);
    char reply[1024];
    assert_true(recv(fd, reply, sizeof reply, 0) > 0);
    assert_memory_equal(reply, "HTTP/1.1 404 ", 13);
    assert_int_equal(recv(fd, reply, sizeof reply, 0), 0); /* said all */
    turn(f);
    look_at(f, EDGE_CALLER_LINGER_MS - 1000);
    assert_int_equal(f->open, 1);
    look_at(f, EDGE_CALLER_LINGER_MS + EDGE_CALLER_SCAN_MS);
    assert_int_equal(f->open, 0);
    close(fd);
}

static void incomplete_heads_are_bounded(void **state)
{
    fixture *f = *state;
    enum { EACH = EDGE_HEAD_MAX - 1, FITS = EDGE_CALLER_HELD_MAX / EACH };
    struct rlimit files;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &files), 0);
    struct rlimit raised = { .rlim_cur = files.rlim_max, .rlim_max = files.rlim_max };
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &raised), 0);
    if (files.rlim_max < FITS + 64) {
        skip(); /* not that many sockets may be open here */
    }
    static char head[EACH];
    memset(head, 'x', sizeof head);
    memcpy(head, "GET / HTTP/1.1\r\nX: ", 19);
    for (size_t i = 0; i < FITS; i++) {
        close(call(f, head, sizeof head)); /* the edge has not looked yet: it still waits for the rest */
    }
    assert_int_equal(f->open, FITS);
    int fd = call(f, head, sizeof head);
    char reply[1024] = "";
    assert_true(recv(fd, reply, sizeof reply, 0) > 0);
    assert_memory_equal(reply, "HTTP/1.1 503 ", 13);
    close(fd);
    turn(f); /* all have hung up, and there is room again */
    assert_int_equal(f->open, 0);
    fd = call(f, head, sizeof head);
    assert_int_equal(recv(fd, reply, sizeof reply, 0), -1);
    close(fd);
    turn(f);
}

#define STORY(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        STORY(a_head_has_its_time),          STORY(looking_is_paced),
        STORY(an_answer_has_its_time),       STORY(who_has_its_answer_lingers_a_little),
        STORY(incomplete_heads_are_bounded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
