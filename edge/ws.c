#include "edge/ws.h"

#include <assert.h>
#include <libwebsockets.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#include "edge/partial.h"
#include "mesh/alloc.h"
#include "mesh/fault.h"
#include "mesh/log.h"
#include "mesh/table.h"

#define RX_BUFFER 1024 /* per connection, for ever: the largest part of an idle one */
#define TX_PACKET 65536
#define CLOSE_REASON_MAX 123 /* a control frame carries 125 bytes */
#define DESTROY_TURNS 1000

enum {
    STAT_OPEN,
    STAT_MESSAGES_IN,
    STAT_MESSAGES_OUT,
    STAT_BYTES_IN,
    STAT_BYTES_OUT,
    STAT_PARTIAL,
    STAT_PARTIAL_FULL,
    STAT_TOO_BIG,
    STAT_WRONG_OPCODE,
    STAT_CLOSED_BY_US,
    STAT_BLOCKED,
    STAT_PAUSED,
    STAT_ADOPT_FAILED,
    STATS
};

static const mesh_stat_info STAT_INFOS[STATS] = {
    [STAT_OPEN] = { "parley_edge_websockets", "WebSockets open.", MESH_GAUGE, NULL },
    [STAT_MESSAGES_IN] = { "parley_edge_ws_messages_total", "WebSocket messages.", MESH_COUNTER, "dir=\"in\"" },
    [STAT_MESSAGES_OUT] = { "parley_edge_ws_messages_total", "WebSocket messages.", MESH_COUNTER, "dir=\"out\"" },
    [STAT_BYTES_IN] = { "parley_edge_ws_bytes_total", "Payload bytes of WebSocket messages.", MESH_COUNTER,
                        "dir=\"in\"" },
    [STAT_BYTES_OUT] = { "parley_edge_ws_bytes_total", "Payload bytes of WebSocket messages.", MESH_COUNTER,
                         "dir=\"out\"" },
    [STAT_PARTIAL] = { "parley_edge_ws_partial_bytes", "Bytes held for messages of which a part has come.", MESH_GAUGE,
                       NULL },
    [STAT_PARTIAL_FULL] = { "parley_edge_ws_partial_full_total",
                            "Messages cut because all half-received ones together held too much.", MESH_COUNTER, NULL },
    [STAT_TOO_BIG] = { "parley_edge_ws_too_big_total", "Messages cut at the size limit.", MESH_COUNTER, NULL },
    [STAT_WRONG_OPCODE] = { "parley_edge_ws_wrong_opcode_total", "Text for protobuf or binary for JSON.", MESH_COUNTER,
                            NULL },
    [STAT_CLOSED_BY_US] = { "parley_edge_ws_closed_total", "WebSockets the edge closed.", MESH_COUNTER, NULL },
    [STAT_BLOCKED] = { "parley_edge_ws_blocked_total", "Times a client did not take what was there for it.",
                       MESH_COUNTER, NULL },
    [STAT_PAUSED] = { "parley_edge_ws_paused_total", "Times a socket was not read on because the mesh was behind.",
                      MESH_COUNTER, NULL },
    [STAT_ADOPT_FAILED] = { "parley_edge_ws_adopt_failed_total", "Upgrades that libwebsockets did not finish.",
                            MESH_COUNTER, NULL },
};

typedef struct socket_state { /* libwebsockets' per-session memory: small, there are many */
    edge_session_id id;       /* 0: the core knows nothing of it any more */
    struct lws *wsi;
    edge_address *address;
    edge_partial partial; /* a message being put together */
    uint32_t turn;        /* last turn that looked at it */
    uint8_t kind;
    uint8_t begun;    /* a part of the message being written has left */
    uint8_t skipping; /* the rest of the message coming in is refused */
    uint8_t waiting;  /* for WRITEABLE */
    uint8_t paused;
    uint8_t closing; /* our close frame is out; in the list */
    mesh_ms close_at;
    TAILQ_ENTRY(socket_state) close;
} socket_state;

TAILQ_HEAD(socket_list, socket_state);

struct edge_ws {
    edge_ws_conf conf;
    struct lws_context *context;
    struct lws_vhost *vhost;
    struct lws_protocols protocols[3];
    lws_retry_bo_t no_validity_timers;
    mesh_table *sockets; /* session id -> socket_state */
    mesh_table *blocked; /* the same, of those that wait for WRITEABLE with something to write */
    mesh_ms look_at;
    struct socket_list closing; /* the one that waits longest first */
    size_t open;
    edge_partial_pool partials;
    mesh_buf paused; /* session ids */
    uint32_t turn;
    struct {
        bool pending;
        edge_session_id session;
        edge_codec_kind kind;
        edge_address *address;
    } adopting; /* lws finishes an upgrade inside the adopt call, but gives no argument along */
    uint8_t piece[LWS_PRE + EDGE_WS_PIECE];
    mesh_stats *stats;
};

/* ---- leaving ---- */

/* The core's session ends now, even if the socket takes its time. */
static void leave_core(edge_ws *ws, socket_state *s, mesh_time now)
{
    if (s->id != 0) {
        edge_session_id id = s->id;
        mesh_table_remove(ws->sockets, mesh_table_u64(&s->id));
        mesh_table_remove(ws->blocked, mesh_table_u64(&s->id));
        s->waiting = 0;
        s->id = 0;
        edge_partial_drop(&ws->partials, &s->partial);
        edge_core_closed(ws->conf.core, id, now, ws->conf.out);
    }
}

/* Its place in the closing list: now for who is to be killed, EDGE_WS_CLOSE_MS from now for who owes an answer. */
static void wait_for_close(edge_ws *ws, socket_state *s, mesh_ms close_at, bool first)
{
    s->closing = 1;
    s->close_at = close_at;
    if (first) {
        TAILQ_INSERT_HEAD(&ws->closing, s, close);
    } else {
        TAILQ_INSERT_TAIL(&ws->closing, s, close);
    }
}

/* Not at once: libwebsockets may be further down the stack. */
static void kill_socket(edge_ws *ws, socket_state *s, mesh_time now)
{
    leave_core(ws, s, now);
    wait_for_close(ws, s, now.mono, true);
}

/* Debian's lws closes twice when a WRITEABLE callback returns -1 on libuv, and the second time loses the close frame;
 * so the frame is written here, behind what lws may still hold. The peer's answer ends the socket, or the timeout. */
static void start_close(edge_ws *ws, socket_state *s, uint16_t code, const char *reason, mesh_time now)
{
    uint8_t frame[LWS_PRE + 4 + CLOSE_REASON_MAX];
    uint8_t *at = frame + LWS_PRE;
    size_t size = strnlen(reason ? reason : "", CLOSE_REASON_MAX);
    at[0] = 0x88; /* close, in one piece: RFC 6455 section 5.5.1 */
    at[1] = (uint8_t)(2 + size);
    at[2] = (uint8_t)(code >> 8);
    at[3] = (uint8_t)code;
    memcpy(at + 4, reason ? reason : "", size);
    leave_core(ws, s, now);
    mesh_stats_add(ws->stats, STAT_CLOSED_BY_US, 1);
    bool sent = lws_write(s->wsi, at, 4 + size, LWS_WRITE_HTTP) >= 0; /* raw */
    wait_for_close(ws, s, sent ? now.mono + EDGE_WS_CLOSE_MS : now.mono, !sent);
}

static void closed(edge_ws *ws, socket_state *s)
{
    leave_core(ws, s, mesh_clock_now());
    if (s->closing) {
        TAILQ_REMOVE(&ws->closing, s, close);
        s->closing = 0;
    }
    edge_partial_drop(&ws->partials, &s->partial);
    ws->open--;
    edge_address *address = s->address;
    s->address = NULL;
    ws->conf.release(ws->conf.release_arg, address);
}

/* ---- out ---- */

/* False: the socket is broken. */
static bool write_piece(edge_ws *ws, socket_state *s, mesh_slice pending, mesh_time now)
{
    /* what the core shows is one message, and stays what it is until all of it was taken */
    size_t size = pending.size < EDGE_WS_PIECE ? pending.size : EDGE_WS_PIECE;
    bool last = size == pending.size;
    int how = s->begun ? LWS_WRITE_CONTINUATION : s->kind == EDGE_JSON ? LWS_WRITE_TEXT : LWS_WRITE_BINARY;
    if (!last) {
        how |= LWS_WRITE_NO_FIN;
    }
    memcpy(ws->piece + LWS_PRE, pending.data, size);
    if (lws_write(s->wsi, ws->piece + LWS_PRE, size, (enum lws_write_protocol)how) < (int)size) {
        return false;
    }
    s->begun = !last;
    mesh_stats_add(ws->stats, STAT_BYTES_OUT, size);
    mesh_stats_add(ws->stats, STAT_MESSAGES_OUT, last);
    edge_core_wrote(ws->conf.core, s->id, size, now, ws->conf.out);
    return true;
}

static void block(edge_ws *ws, socket_state *s)
{
    lws_callback_on_writable(s->wsi);
    if (!s->waiting) {
        s->waiting = 1;
        mesh_table_put(ws->blocked, mesh_table_u64(&s->id), s);
    }
}

static void unblock(edge_ws *ws, socket_state *s)
{
    if (s->waiting) {
        s->waiting = 0;
        mesh_table_remove(ws->blocked, mesh_table_u64(&s->id));
    }
}

/* Write what the core holds for s until it or the socket is exhausted. */
static void write_pending(edge_ws *ws, socket_state *s, mesh_time now)
{
    unblock(ws, s);
    for (int i = 0; s->id != 0; i++) {
        bool stuck = lws_partial_buffered(s->wsi) != 0;
        if (stuck || i == EDGE_WS_PIECES_PER_TURN) {
            mesh_stats_add(ws->stats, STAT_BLOCKED, stuck);
            block(ws, s);
            return;
        }
        uint16_t code = 0;
        const char *reason = NULL;
        mesh_slice pending = edge_core_pending(ws->conf.core, s->id, &code, &reason);
        if (pending.size == 0 && code != 0) {
            start_close(ws, s, code, reason, now);
        } else if (pending.size == 0) {
            edge_core_wrote(ws->conf.core, s->id, 0, now, ws->conf.out); /* seen: it may become ready again */
            return;
        } else if (!write_piece(ws, s, pending, now)) {
            kill_socket(ws, s, now);
        }
    }
}

/* A blocked socket may never become writable again, so its verdict has to be asked for. */
static void look_at_blocked(edge_ws *ws, mesh_time now)
{
    for (socket_state *s = mesh_table_first(ws->blocked); s; s = mesh_table_next(ws->blocked)) {
        uint16_t code = 0;
        const char *reason = NULL;
        mesh_slice pending = edge_core_pending(ws->conf.core, s->id, &code, &reason);
        if (pending.size == 0 && code != 0) {
            start_close(ws, s, code, reason, now);
        }
    }
}

/* lws keeps its timeouts in one list that is searched from its start: a timeout for each of many closing sockets would
 * stop the loop for seconds. So the wait is ours. */
static mesh_ms kill_closing(edge_ws *ws, mesh_ms now)
{
    socket_state *s = TAILQ_FIRST(&ws->closing);
    for (int i = 0; s && now >= s->close_at && i < EDGE_WS_KILLS_PER_TURN; i++) {
        TAILQ_REMOVE(&ws->closing, s, close);
        s->closing = 0;
        lws_set_timeout(s->wsi, PENDING_TIMEOUT_USER_OK, LWS_TO_KILL_SYNC);
        s = TAILQ_FIRST(&ws->closing);
    }
    return s ? s->close_at : MESH_NEVER;
}

mesh_ms edge_ws_tick(edge_ws *ws, mesh_time now)
{
    mesh_ms next = kill_closing(ws, now.mono);
    if (mesh_table_size(ws->blocked) == 0) {
        ws->look_at = MESH_NEVER;
    } else if (ws->look_at == MESH_NEVER) {
        ws->look_at = now.mono + EDGE_WS_LOOK_MS;
    } else if (now.mono >= ws->look_at) {
        look_at_blocked(ws, now);
        ws->look_at = now.mono + EDGE_WS_LOOK_MS;
    }
    return next < ws->look_at ? next : ws->look_at;
}

void edge_ws_flush(edge_ws *ws, mesh_time now)
{
    edge_session_id id;
    ws->turn++;
    while (edge_core_next_ready(ws->conf.core, &id)) {
        socket_state *s = mesh_table_get(ws->sockets, mesh_table_u64(&id));
        if (!s) {
            edge_core_closed(ws->conf.core, id, now, ws->conf.out);
            continue;
        }
        if (s->turn == ws->turn) { /* once around: who is left waits for its socket */
            break;
        }
        s->turn = ws->turn;
        if (!s->waiting) {
            write_pending(ws, s, now);
        }
    }
}

/* ---- in ---- */

static void pause_reading(edge_ws *ws, socket_state *s)
{
    if (!s->paused) {
        s->paused = 1;
        mesh_buf_put(&ws->paused, &s->id, sizeof s->id);
        mesh_stats_add(ws->stats, STAT_PAUSED, 1);
        lws_rx_flow_control(s->wsi, 0);
    }
}

void edge_ws_resume(edge_ws *ws)
{
    for (size_t at = 0; at < ws->paused.size; at += sizeof(edge_session_id)) {
        edge_session_id id;
        memcpy(&id, ws->paused.data + at, sizeof id);
        socket_state *s = mesh_table_get(ws->sockets, mesh_table_u64(&id));
        if (s) {
            s->paused = 0;
            lws_rx_flow_control(s->wsi, 1);
        }
    }
    mesh_buf_clear(&ws->paused);
}

static void refuse(edge_ws *ws, socket_state *s, uint32_t fault, unsigned stat, mesh_time now)
{
    edge_partial_drop(&ws->partials, &s->partial);
    s->skipping = 1;
    mesh_stats_add(ws->stats, stat, 1);
    edge_core_refuse(ws->conf.core, s->id, fault, now);
}

/* The last piece of a message; of a small one that came whole, the only one, and no copy is made. */
static void take_message(edge_ws *ws, socket_state *s, mesh_slice piece, mesh_time now)
{
    mesh_slice whole = s->partial.bytes ? (mesh_slice){ .data = s->partial.bytes, .size = s->partial.size } : piece;
    mesh_stats_add(ws->stats, STAT_MESSAGES_IN, 1);
    edge_core_input(ws->conf.core, s->id, whole, now, ws->conf.out);
    edge_partial_drop(&ws->partials, &s->partial);
    if (mesh_out_bytes(ws->conf.out) > EDGE_WS_OUT_HIGH) {
        pause_reading(ws, s);
    }
}

static void receive(edge_ws *ws, socket_state *s, const uint8_t *in, size_t size)
{
    mesh_time now = mesh_clock_now();
    uint64_t declared = lws_remaining_packet_payload(s->wsi);
    bool final = lws_is_final_fragment(s->wsi);
    if (s->id == 0) {
        return;
    }
    mesh_slice piece = { .data = in, .size = size };
    size_t max = edge_core_input_max(ws->conf.core, s->id);
    mesh_stats_add(ws->stats, STAT_BYTES_IN, size);
    if (s->skipping) {
        edge_core_pong(ws->conf.core, s->id, now);
    } else if (lws_frame_is_binary(s->wsi) != (s->kind == EDGE_PROTOBUF)) {
        refuse(ws, s, FAULT_MALFORMED, STAT_WRONG_OPCODE, now);
    } else if (final && !s->partial.bytes && size <= max) {
        take_message(ws, s, piece, now);
    } else {
        mesh_err err = edge_partial_put(&ws->partials, &s->partial, piece, declared, max);
        if (err != MESH_OK) {
            refuse(ws, s, FAULT_TOO_BIG, err == MESH_FULL ? STAT_PARTIAL_FULL : STAT_TOO_BIG, now);
        } else if (final) {
            take_message(ws, s, piece, now);
        } else {
            edge_core_pong(ws->conf.core, s->id, now);
        }
    }
    if (final) {
        s->skipping = 0;
    }
}

/* ---- libwebsockets' callback, taken apart ---- */

static int established(edge_ws *ws, struct lws *wsi, socket_state *s)
{
    if (!ws->adopting.pending) {
        return -1;
    }
    *s = (socket_state){
        .id = ws->adopting.session, .wsi = wsi, .address = ws->adopting.address, .kind = (uint8_t)ws->adopting.kind
    };
    ws->adopting.pending = false;
    ws->open++;
    mesh_table_put(ws->sockets, mesh_table_u64(&s->id), s);
    return 0;
}

/* The peer's close, or its answer to ours. */
static int peer_closes(edge_ws *ws, socket_state *s)
{
    leave_core(ws, s, mesh_clock_now());
    return s->closing ? -1 : 0; /* 0: lws answers with the same code */
}

static int on_lws(struct lws *wsi, enum lws_callback_reasons reason, void *user, void *in, size_t size)
{
    socket_state *s = user;
    edge_ws *ws = lws_context_user(lws_get_context(wsi));
    switch ((int)reason) {
    case LWS_CALLBACK_ESTABLISHED:
        return established(ws, wsi, s);
    case LWS_CALLBACK_RECEIVE:
        receive(ws, s, in, size);
        return 0;
    case LWS_CALLBACK_RECEIVE_PONG:
        if (s->id != 0) {
            edge_core_pong(ws->conf.core, s->id, mesh_clock_now());
        }
        return 0;
    case LWS_CALLBACK_SERVER_WRITEABLE:
        write_pending(ws, s, mesh_clock_now());
        return 0;
    case LWS_CALLBACK_WS_PEER_INITIATED_CLOSE:
        return peer_closes(ws, s);
    case LWS_CALLBACK_CLOSED:
        closed(ws, s);
        return 0;
    case LWS_CALLBACK_HTTP: /* only handshakes come here */
        return -1;
    default:
        return 0;
    }
}

void edge_ws_adopt(edge_ws *ws, edge_session_id session, edge_codec_kind kind, int fd, edge_address *address,
                   mesh_slice request)
{
    ws->adopting.pending = true;
    ws->adopting.session = session;
    ws->adopting.kind = kind;
    ws->adopting.address = address;
    struct lws *wsi = lws_adopt_socket_vhost_readbuf(ws->vhost, fd, (const char *)request.data, request.size);
    if (!ws->adopting.pending) {
        return; /* established; if it is gone again, CLOSED has told */
    }
    ws->adopting.pending = false;
    mesh_stats_add(ws->stats, STAT_ADOPT_FAILED, 1);
    edge_core_closed(ws->conf.core, session, mesh_clock_now(), ws->conf.out);
    ws->conf.release(ws->conf.release_arg, address);
    if (wsi) {
        lws_set_timeout(wsi, PENDING_TIMEOUT_USER_OK, LWS_TO_KILL_SYNC);
    }
}

/* ---- start and stop ---- */

static void on_lws_log(int level, const char *line)
{
    mesh_log(level == LLL_ERR ? MESH_ERROR : MESH_WARN, "libwebsockets", "line=%.*s", (int)strcspn(line, "\n"), line);
}

static void drop_lws_log(int level, const char *line)
{
    (void)level;
    (void)line;
}

static void on_lws_signal(void *handle, int signum)
{
    (void)handle;
    (void)signum; /* signals are mesh/loop's; without this lws would stop at SIGTERM */
}

static struct lws_protocols protocol(const char *name)
{
    return (struct lws_protocols){ .name = name,
                                   .callback = on_lws,
                                   .per_session_data_size = sizeof(socket_state),
                                   .rx_buffer_size = RX_BUFFER,
                                   .tx_packet_size = TX_PACKET };
}

static bool start_lws(edge_ws *ws)
{
    void *loops[1] = { ws->conf.uv };
    ws->protocols[0] = protocol("parley.v1.json");
    ws->protocols[1] = protocol("parley.v1.protobuf");
    struct lws_context_creation_info info = {
        .port = CONTEXT_PORT_NO_LISTEN_SERVER,
        .protocols = ws->protocols,
        .options = LWS_SERVER_OPTION_LIBUV | LWS_SERVER_OPTION_EXPLICIT_VHOSTS | LWS_SERVER_OPTION_VALIDATE_UTF8,
        .foreign_loops = loops,
        .signal_cb = on_lws_signal,
        .user = ws,
        .gid = -1,
        .uid = -1,
        .timeout_secs = 5,
        .alpn = "http/1.1",
        .retry_and_idle_policy = &ws->no_validity_timers,
        .vhost_name = "edge",
    };
    lws_set_log_level(LLL_ERR | LLL_WARN, on_lws_log);
    ws->context = lws_create_context(&info);
    ws->vhost = ws->context ? lws_create_vhost(ws->context, &info) : NULL;
    /* from here on its lines are about clients' nonsense, which is counted instead; the level is the process's, and a
     * client library in it may raise it again */
    lws_set_log_level(0, drop_lws_log);
    return ws->vhost != NULL;
}

mesh_err edge_ws_new(const edge_ws_conf *conf, edge_ws **ws_p)
{
    edge_ws *ws = mesh_alloc(sizeof *ws);
    ws->conf = *conf;
    ws->sockets = mesh_table_new(NULL);
    ws->blocked = mesh_table_new(NULL);
    TAILQ_INIT(&ws->closing);
    ws->look_at = MESH_NEVER;
    ws->partials.max = EDGE_PARTIAL_MAX;
    ws->stats = mesh_stats_new(STAT_INFOS, STATS);
    mesh_buf_init(&ws->paused);
    if (!start_lws(ws)) {
        mesh_log(MESH_ERROR, "libwebsockets_failed", "hint=%s", "is libwebsockets-evlib-uv installed?");
        edge_ws_destroy(&ws);
        return MESH_IO;
    }
    *ws_p = ws;
    return MESH_OK;
}

static void see_closing(uv_handle_t *handle, void *arg)
{
    bool *closing = arg;
    *closing = *closing || uv_is_closing(handle);
}

void edge_ws_destroy(edge_ws **ws_p)
{
    edge_ws *ws = *ws_p;
    if (!ws) {
        return;
    }
    if (ws->context) { /* the first call starts closing, the loop finishes it, the second call frees */
        lws_context_destroy(ws->context);
        bool closing = true;
        for (int i = 0; i < DESTROY_TURNS && closing; i++) {
            uv_run(ws->conf.uv, UV_RUN_NOWAIT);
            closing = false;
            uv_walk(ws->conf.uv, see_closing, &closing);
        }
        lws_context_destroy(ws->context);
    }
    mesh_table_destroy(&ws->sockets);
    mesh_table_destroy(&ws->blocked);
    mesh_stats_destroy(&ws->stats);
    mesh_buf_fini(&ws->paused);
    free(ws);
    *ws_p = NULL;
}

size_t edge_ws_sockets(const edge_ws *ws)
{
    return ws->open;
}

void edge_ws_print_stats(edge_ws *ws, const char *node, mesh_buf *out)
{
    mesh_stats_set(ws->stats, STAT_OPEN, ws->open);
    mesh_stats_set(ws->stats, STAT_PARTIAL, ws->partials.held);
    mesh_stats_print(ws->stats, node, out);
}
