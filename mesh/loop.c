/* mesh/loop.c: one turn per libuv iteration, and the stop flag.
 *
 * Order in one iteration: timers -> prepare: turn, then every ready() -> poll (blocks at most until the deadline) -> fd
 * callbacks -> next iteration. The turn sits in `prepare` because that is the last step before the poll: whatever a
 * timer or an fd callback of the iteration before caused is drained and flushed before the loop may block. An active
 * idle handle makes the poll return at once; that is how "again" is said to libuv.
 *
 * Stopping: SIGTERM sets the flag and writes one byte to a pipe that is never read. Every loop watches its read end,
 * wakes once, and stops watching, so no table of loops is needed and the handler does nothing but write(2). */
#include "mesh/loop.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "mesh/alloc.h"
#include "mesh/log.h"

typedef struct watch { /* heap: libuv keeps the handle until its close callback */
    uv_poll_t poll;
    int fd;
    struct watch *next;
} watch;

struct mesh_loop {
    uv_loop_t uv;
    uv_prepare_t prepare;
    uv_idle_t idle;
    uv_timer_t timer;
    uv_async_t async;
    uv_poll_t stop_poll;
    watch *watches;
    struct {
        mesh_loop_ready *ready;
        void *arg;
    } readies[MESH_LOOP_READY];
    mesh_loop_turn *turn;
    void *arg;
};

static struct {
    atomic_bool stopping;
    pthread_once_t once;
    int pipe[2];
} stop = { .once = PTHREAD_ONCE_INIT, .pipe = { -1, -1 } };

static void stop_init(void)
{
    int rc = pipe2(stop.pipe, O_CLOEXEC | O_NONBLOCK);
    assert(rc == 0);
}

static void on_signal(int signum)
{
    (void)signum;
    int saved = errno;
    atomic_store(&stop.stopping, true);
    ssize_t n = write(stop.pipe[1], "", 1);
    (void)n; /* full means it was said before */
    errno = saved;
}

void mesh_loop_signals(void)
{
    pthread_once(&stop.once, stop_init);
    struct sigaction action = { .sa_handler = on_signal, .sa_flags = SA_RESTART };
    sigemptyset(&action.sa_mask);
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGINT, &action, NULL);
    struct sigaction ignore = { .sa_handler = SIG_IGN };
    sigemptyset(&ignore.sa_mask);
    sigaction(SIGPIPE, &ignore, NULL);
}

bool mesh_loop_stopping(void)
{
    return atomic_load(&stop.stopping);
}

void mesh_loop_stop_all(void)
{
    pthread_once(&stop.once, stop_init);
    on_signal(0);
}

static void on_nothing_idle(uv_idle_t *idle)
{
    (void)idle;
}

static void on_nothing_timer(uv_timer_t *timer)
{
    (void)timer;
}

static void on_nothing_async(uv_async_t *async)
{
    (void)async;
}

static void on_nothing_poll(uv_poll_t *poll, int status, int events)
{
    (void)poll;
    (void)status;
    (void)events;
}

static void on_stop_poll(uv_poll_t *poll, int status, int events)
{
    (void)status;
    (void)events;
    uv_poll_stop(poll); /* the byte stays in the pipe for the other loops */
}

static bool any_ready(const mesh_loop *loop)
{
    for (size_t i = 0; i < MESH_LOOP_READY; i++) {
        if (loop->readies[i].ready != NULL && loop->readies[i].ready(loop->readies[i].arg)) {
            return true;
        }
    }
    return false;
}

static void on_prepare(uv_prepare_t *prepare)
{
    mesh_loop *loop = prepare->data;
    mesh_ms deadline = loop->turn(loop->arg, mesh_clock_now());
    mesh_ms now = mesh_clock_now().mono;

    uv_timer_stop(&loop->timer);
    if (deadline <= now || any_ready(loop)) {
        uv_idle_start(&loop->idle, on_nothing_idle);
        return;
    }
    uv_idle_stop(&loop->idle);
    if (deadline != MESH_NEVER) {
        uv_update_time(&loop->uv); /* libuv counts from its cached time; the turn may have been long */
        uv_timer_start(&loop->timer, on_nothing_timer, (uint64_t)(deadline - now), 0);
    }
}

mesh_loop *mesh_loop_new(mesh_loop_turn *turn, void *arg)
{
    assert(turn != NULL);
    pthread_once(&stop.once, stop_init);
    mesh_loop *loop = mesh_alloc(sizeof *loop);
    loop->turn = turn;
    loop->arg = arg;

    int rc = uv_loop_init(&loop->uv);
    assert(rc == 0);
    rc = uv_prepare_init(&loop->uv, &loop->prepare);
    assert(rc == 0);
    loop->prepare.data = loop;
    uv_prepare_start(&loop->prepare, on_prepare);
    uv_idle_init(&loop->uv, &loop->idle);
    uv_timer_init(&loop->uv, &loop->timer);
    rc = uv_async_init(&loop->uv, &loop->async, on_nothing_async);
    assert(rc == 0);
    rc = uv_poll_init(&loop->uv, &loop->stop_poll, stop.pipe[0]);
    assert(rc == 0);
    uv_poll_start(&loop->stop_poll, UV_READABLE, on_stop_poll);
    return loop;
}

static void on_watch_closed(uv_handle_t *handle)
{
    free(handle->data);
}

void mesh_loop_destroy(mesh_loop **loop_p)
{
    mesh_loop *loop = *loop_p;
    if (loop == NULL) {
        return;
    }
    while (loop->watches != NULL) {
        mesh_loop_unwatch_fd(loop, loop->watches->fd);
    }
    uv_prepare_stop(&loop->prepare);
    uv_close((uv_handle_t *)&loop->prepare, NULL);
    uv_close((uv_handle_t *)&loop->idle, NULL);
    uv_close((uv_handle_t *)&loop->timer, NULL);
    uv_close((uv_handle_t *)&loop->async, NULL);
    uv_close((uv_handle_t *)&loop->stop_poll, NULL);
    int busy = UV_EBUSY;
    for (int tries = 0; tries < 1000 && busy != 0; tries++) {
        uv_run(&loop->uv, UV_RUN_NOWAIT);
        busy = uv_loop_close(&loop->uv);
    }
    if (busy != 0) { /* a guest of the loop has left handles open: freeing under it would be worse than the leak */
        mesh_log(MESH_WARN, "loop_busy", "error=%s", uv_strerror(busy));
    } else {
        free(loop);
    }
    *loop_p = NULL;
}

uv_loop_t *mesh_loop_uv(mesh_loop *loop)
{
    return &loop->uv;
}

void mesh_loop_watch_fd(mesh_loop *loop, int fd)
{
    watch *w = mesh_alloc(sizeof *w);
    w->fd = fd;
    int rc = uv_poll_init(&loop->uv, &w->poll, fd);
    assert(rc == 0);
    w->poll.data = w;
    rc = uv_poll_start(&w->poll, UV_READABLE, on_nothing_poll);
    assert(rc == 0);
    w->next = loop->watches;
    loop->watches = w;
}

void mesh_loop_unwatch_fd(mesh_loop *loop, int fd)
{
    for (watch **w_p = &loop->watches; *w_p != NULL; w_p = &(*w_p)->next) {
        watch *w = *w_p;
        if (w->fd == fd) {
            *w_p = w->next;
            uv_poll_stop(&w->poll);
            uv_close((uv_handle_t *)&w->poll, on_watch_closed);
            return;
        }
    }
    assert(false && "fd is not watched");
}

void mesh_loop_watch_ready(mesh_loop *loop, mesh_loop_ready *ready, void *arg)
{
    for (size_t i = 0; i < MESH_LOOP_READY; i++) {
        if (loop->readies[i].ready == NULL) {
            loop->readies[i].ready = ready;
            loop->readies[i].arg = arg;
            return;
        }
    }
    assert(false && "MESH_LOOP_READY is too small");
}

void mesh_loop_unwatch_ready(mesh_loop *loop, void *arg)
{
    for (size_t i = 0; i < MESH_LOOP_READY; i++) {
        if (loop->readies[i].arg == arg) {
            loop->readies[i].ready = NULL;
            loop->readies[i].arg = NULL;
        }
    }
}

void mesh_loop_run(mesh_loop *loop)
{
    uv_run(&loop->uv, UV_RUN_DEFAULT);
}

void mesh_loop_stop(mesh_loop *loop)
{
    uv_stop(&loop->uv);
}

void mesh_loop_wake(mesh_loop *loop)
{
    uv_async_send(&loop->async);
}
