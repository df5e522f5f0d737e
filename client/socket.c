/* client/socket.c: the happy path: client_socket_open -> the conn is marked -> flush (uv_prepare, once per loop turn)
 * asks the session what it wants and begins a handshake -> ESTABLISHED -> the session's bytes are written at once where
 * the socket takes them, else on WRITEABLE -> RECEIVE is put together and given to the session.
 *
 * Whatever a callback causes is only marked; flush does it, after all callbacks of the turn. So no session is entered
 * twice, and what a turn produced for one socket leaves in one write. Going wrong: CONNECTION_ERROR, CLOSED or the
 * wsi's destruction, whichever comes first, is told to the session once (gone). */
#include "client/socket.h"

#include <assert.h>
#include <libwebsockets.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "client/partial.h"
#include "mesh/alloc.h"

struct client_conn {
    client_socket *cs;
    client_session *session;
    struct lws *wsi;
    client_conn *next; /* in marked or parked */
    bool listed;       /* in one of the two */
    bool shaking;      /* counted in cs->shaking */
    bool open;         /* ESTABLISHED came */
    bool dead;         /* closed by the owner; freed when its timer handle is */
    uint16_t close_code;
    mesh_ms armed; /* when the timer fires, MESH_NEVER: not running */
    uv_timer_t timer;
    mesh_buf in; /* a message of which more is to come */
    client_url url;
    char local[46];
};

typedef struct conn_list {
    client_conn *head;
    client_conn *tail;
} conn_list;

struct client_socket {
    uv_loop_t *loop;
    struct lws_context *context;
    uv_prepare_t prepare;
    uv_idle_t idle; /* running while something is marked: the loop must not block */
    conn_list marked;
    conn_list batch;  /* of marked, being served */
    conn_list parked; /* want to connect, but too many are at it */
    unsigned shaking;
    unsigned conns;
    mesh_arena *arena;
    mesh_buf tx;
};

static mesh_ms now_ms(void)
{
    return mesh_clock_now().mono;
}

/* ---- lists ---- */

static void list_put(conn_list *list, client_conn *conn)
{
    conn->next = NULL;
    if (list->tail) {
        list->tail->next = conn;
    } else {
        list->head = conn;
    }
    list->tail = conn;
    conn->listed = true;
}

static client_conn *list_take(conn_list *list)
{
    client_conn *conn = list->head;
    if (conn) {
        list->head = conn->next;
        if (!list->head) {
            list->tail = NULL;
        }
        conn->listed = false;
    }
    return conn;
}

static void list_remove(conn_list *list, client_conn *conn)
{
    conn_list kept = { NULL, NULL };
    client_conn *other;
    while ((other = list_take(list)) != NULL) {
        if (other != conn) {
            list_put(&kept, other);
        }
    }
    *list = kept;
}

static void on_idle(uv_idle_t *idle)
{
    (void)idle;
}

static void mark(client_conn *conn)
{
    if (!conn->listed && !conn->dead) {
        list_put(&conn->cs->marked, conn);
        uv_idle_start(&conn->cs->idle, on_idle);
    }
}

static void on_work(void *arg)
{
    mark(arg);
}

/* ---- the connection ---- */

static void shaken(client_conn *conn)
{
    if (conn->shaking) {
        conn->shaking = false;
        conn->cs->shaking--;
        client_conn *next = list_take(&conn->cs->parked);
        if (next) {
            mark(next);
        }
    }
}

static void detach(client_conn *conn)
{
    if (conn->wsi) {
        lws_set_opaque_user_data(conn->wsi, NULL);
        conn->wsi = NULL;
    }
    conn->open = false;
    mesh_buf_fini(&conn->in);
    mesh_buf_init(&conn->in);
    shaken(conn);
}

static void gone(client_conn *conn)
{
    uint16_t code = conn->close_code;
    detach(conn);
    conn->close_code = 0;
    client_session_closed(conn->session, code, now_ms());
    mark(conn);
}

static void hang_up(client_conn *conn)
{
    struct lws *wsi = conn->wsi;
    detach(conn);
    if (wsi) {
        lws_set_timeout(wsi, PENDING_TIMEOUT_USER_OK, LWS_TO_KILL_ASYNC);
    }
}

static void dial(client_conn *conn)
{
    client_socket *cs = conn->cs;
    struct lws_client_connect_info info = { 0 };
    info.context = cs->context;
    info.address = conn->url.host;
    info.host = conn->url.host;
    info.port = conn->url.port;
    info.path = conn->url.path;
    info.protocol = "parley.v1.protobuf";
    info.local_protocol_name = "parley.v1.protobuf";
    info.iface = conn->local[0] ? conn->local : NULL;
    info.opaque_user_data = conn;
    info.pwsi = &conn->wsi;
    conn->shaking = true;
    conn->close_code = 0;
    cs->shaking++;
    client_session_connecting(conn->session, now_ms());
    struct lws *wsi = lws_client_connect_via_info(&info);
    /* a failure may or may not have been told by a callback before this returns */
    if (!wsi && conn->shaking) {
        conn->wsi = NULL;
        gone(conn);
    }
}

static void flush_bytes(client_conn *conn)
{
    client_socket *cs = conn->cs;
    while (conn->wsi && conn->open && client_session_pending(conn->session)) {
        if (lws_partial_buffered(conn->wsi) || lws_send_pipe_choked(conn->wsi)) {
            lws_callback_on_writable(conn->wsi);
            return;
        }
        mesh_buf_clear(&cs->tx);
        mesh_buf_grow(&cs->tx, LWS_PRE);
        if (!client_session_take(conn->session, &cs->tx, now_ms())) {
            return;
        }
        size_t n = cs->tx.size - LWS_PRE;
        if (lws_write(conn->wsi, cs->tx.data + LWS_PRE, n, LWS_WRITE_BINARY) < (int)n) {
            hang_up(conn);
            client_session_closed(conn->session, 0, now_ms());
            mark(conn);
            return;
        }
    }
}

static void on_timer(uv_timer_t *timer)
{
    client_conn *conn = timer->data;
    conn->armed = MESH_NEVER;
    mark(conn);
}

/* Timers only move to the front; one that fires early finds nothing to do and is set again. */
static void arm(client_conn *conn, mesh_ms next, mesh_ms now)
{
    if (next < conn->armed) {
        conn->armed = next;
        uv_timer_start(&conn->timer, on_timer, next > now ? (uint64_t)(next - now) : 0, 0);
    }
}

static void service(client_conn *conn, mesh_ms now)
{
    client_socket *cs = conn->cs;
    mesh_ms next = client_session_turn(conn->session, now);
    switch (client_session_want(conn->session, now)) {
    case CLIENT_WANT_CONNECT:
        if (cs->shaking >= CLIENT_SOCKET_CONNECTING) {
            list_put(&cs->parked, conn);
            return;
        }
        dial(conn);
        mark(conn);
        return;
    case CLIENT_WANT_CLOSE:
        flush_bytes(conn);
        hang_up(conn);
        client_session_closed(conn->session, 0, now);
        mark(conn);
        return;
    default:
        break;
    }
    flush_bytes(conn);
    arm(conn, next, now);
}

static void on_prepare(uv_prepare_t *prepare)
{
    client_socket *cs = prepare->data;
    cs->batch = cs->marked;
    cs->marked = (conn_list){ NULL, NULL };
    if (cs->batch.head) {
        uv_update_time(cs->loop);
    }
    mesh_ms now = now_ms();
    for (client_conn *conn; (conn = list_take(&cs->batch)) != NULL;) {
        service(conn, now);
    }
    if (!cs->marked.head) {
        uv_idle_stop(&cs->idle);
    }
}

/* ---- libwebsockets ---- */

static int on_receive(client_conn *conn, struct lws *wsi, const uint8_t *data, size_t size)
{
    if (lws_is_first_fragment(wsi)) {
        client_partial_clear(&conn->in);
    }
    bool last = lws_is_final_fragment(wsi) && lws_remaining_packet_payload(wsi) == 0;
    mesh_slice whole;
    mesh_err err = client_partial_put(&conn->in, (mesh_slice){ data, size }, last, &whole);
    if (err == MESH_OK) {
        client_session_input(conn->session, whole, conn->cs->arena, now_ms());
        client_partial_clear(&conn->in);
        mark(conn);
    }
    return err == MESH_TOO_BIG ? -1 : 0;
}

static int on_lws(struct lws *wsi, enum lws_callback_reasons reason, void *user, void *in, size_t size)
{
    (void)user;
    client_conn *conn = wsi ? lws_get_opaque_user_data(wsi) : NULL;
    switch ((int)reason) {
    case LWS_CALLBACK_CLIENT_ESTABLISHED:
        if (!conn) {
            return -1;
        }
        conn->wsi = wsi;
        conn->open = true;
        shaken(conn);
        client_session_opened(conn->session, now_ms());
        mark(conn);
        return 0;
    case LWS_CALLBACK_CLIENT_RECEIVE:
        return conn ? on_receive(conn, wsi, in, size) : -1;
    case LWS_CALLBACK_CLIENT_WRITEABLE:
        if (conn) {
            flush_bytes(conn);
        }
        return conn ? 0 : -1;
    case LWS_CALLBACK_WS_PEER_INITIATED_CLOSE:
        if (conn && size >= 2) {
            const uint8_t *p = in;
            conn->close_code = (uint16_t)(p[0] << 8 | p[1]);
        }
        return 0;
    case LWS_CALLBACK_CLIENT_CONNECTION_ERROR:
    case LWS_CALLBACK_CLIENT_CLOSED:
    case LWS_CALLBACK_WSI_DESTROY:
        if (conn) {
            conn->wsi = wsi;
            gone(conn);
        }
        return 0;
    default:
        return 0;
    }
}

static void on_signal(void *handle, int signum)
{
    (void)handle;
    (void)signum; /* signals are the loop's business; without this callback lws would take SIGTERM and stop by itself */
}

/* ---- driver ---- */

static void raise_files(unsigned files)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0) {
        return;
    }
    rlim_t want = (rlim_t)files + 256;
    if (limit.rlim_cur < want || limit.rlim_cur > 1000000) {
        /* lws makes tables of this size, and above 10 million falls back to a small one */
        limit.rlim_cur = limit.rlim_max < want ? limit.rlim_max : want;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
}

mesh_err client_socket_new(uv_loop_t *loop, unsigned files, client_socket **cs_p)
{
    static const struct lws_protocols protocols[] = {
        { "parley.v1.protobuf", on_lws, 0, 1024, 0, NULL, 65536 },
        { NULL, NULL, 0, 0, 0, NULL, 0 },
    };
    static const lws_retry_bo_t no_idle_checks = { 0 };

    raise_files(files);
    lws_set_log_level(LLL_ERR, NULL);
    client_socket *cs = mesh_alloc(sizeof *cs);
    cs->loop = loop;
    void *loops[] = { loop };
    struct lws_context_creation_info info = { 0 };
    info.port = CONTEXT_PORT_NO_LISTEN;
    info.protocols = protocols;
    info.options = LWS_SERVER_OPTION_LIBUV;
    info.foreign_loops = loops;
    info.signal_cb = on_signal;
    info.gid = -1;
    info.uid = -1;
    info.timeout_secs = CLIENT_STEP_MS / 1000;
    info.retry_and_idle_policy = &no_idle_checks;
    cs->context = lws_create_context(&info);
    if (!cs->context) {
        free(cs);
        return MESH_IO;
    }
    cs->arena = mesh_arena_new();
    uv_prepare_init(loop, &cs->prepare);
    cs->prepare.data = cs;
    uv_prepare_start(&cs->prepare, on_prepare);
    uv_idle_init(loop, &cs->idle);
    *cs_p = cs;
    return MESH_OK;
}

void client_socket_destroy(client_socket **cs_p)
{
    client_socket *cs = *cs_p;
    if (!cs) {
        return;
    }
    assert(cs->conns == 0);
    /* on a foreign loop lws needs two calls: the first asks its handles to close, the second frees what they used */
    lws_context_destroy(cs->context);
    for (int i = 0; i < 20; i++) {
        uv_run(cs->loop, UV_RUN_NOWAIT);
    }
    lws_context_destroy(cs->context);
    uv_close((uv_handle_t *)&cs->prepare, NULL);
    uv_close((uv_handle_t *)&cs->idle, NULL);
    uv_run(cs->loop, UV_RUN_NOWAIT);
    mesh_arena_destroy(&cs->arena);
    mesh_buf_fini(&cs->tx);
    free(cs);
    *cs_p = NULL;
}

client_conn *client_socket_open(client_socket *cs, const client_url *url, const char *local,
                                const client_session_conf *conf, const client_handler *handler, void *arg)
{
    client_conn *conn = mesh_alloc(sizeof *conn);
    conn->cs = cs;
    conn->url = *url;
    snprintf(conn->local, sizeof conn->local, "%s", local ? local : "");
    conn->armed = MESH_NEVER;
    conn->session = client_session_new(conf, handler, arg, now_ms());
    client_session_on_work(conn->session, on_work, conn);
    uv_timer_init(cs->loop, &conn->timer);
    conn->timer.data = conn;
    cs->conns++;
    mark(conn);
    return conn;
}

client_session *client_conn_session(client_conn *conn)
{
    return conn->session;
}

static void on_timer_closed(uv_handle_t *handle)
{
    free(handle->data);
}

void client_conn_close(client_conn **conn_p)
{
    client_conn *conn = *conn_p;
    if (!conn) {
        return;
    }
    hang_up(conn);
    if (conn->listed) {
        list_remove(&conn->cs->marked, conn);
        list_remove(&conn->cs->batch, conn);
        list_remove(&conn->cs->parked, conn);
    }
    conn->dead = true;
    conn->cs->conns--;
    client_session_destroy(&conn->session);
    uv_close((uv_handle_t *)&conn->timer, on_timer_closed);
    *conn_p = NULL;
}

void client_conn_cut(client_conn *conn)
{
    if (conn->wsi) {
        hang_up(conn);
        client_session_closed(conn->session, 0, now_ms());
        mark(conn);
    }
}
