#include "edge/ws_priv.h"

#include <stdlib.h>
#include <string.h>

#include "mesh/alloc.h"
#include "mesh/fault.h"
#include "mesh/log.h"

#define RX_BUFFER 1024 /* per connection, for ever: the largest part of an idle one */
#define TX_PACKET 65536
#define DESTROY_TURNS 1000

static const mesh_stat_info STAT_INFOS[EDGE_WS_STATS] = {
    [EDGE_WS_STAT_OPEN] = { "parley_edge_websockets", "WebSockets open.", MESH_GAUGE, NULL },
    [EDGE_WS_STAT_MESSAGES_IN] = { "parley_edge_ws_messages_total", "WebSocket messages.", MESH_COUNTER, "dir=\"in\"" },
    [EDGE_WS_STAT_MESSAGES_OUT] = { "parley_edge_ws_messages_total", "WebSocket messages.", MESH_COUNTER,
                                    "dir=\"out\"" },
    [EDGE_WS_STAT_BYTES_IN] = { "parley_edge_ws_bytes_total", "Payload bytes of WebSocket messages.", MESH_COUNTER,
                                "dir=\"in\"" },
    [EDGE_WS_STAT_BYTES_OUT] = { "parley_edge_ws_bytes_total", "Payload bytes of WebSocket messages.", MESH_COUNTER,
                                 "dir=\"out\"" },
    [EDGE_WS_STAT_PARTIAL] = { "parley_edge_ws_partial_bytes", "Bytes held for messages of which a part has come.",
                               MESH_GAUGE, NULL },
    [EDGE_WS_STAT_PARTIAL_FULL] = { "parley_edge_ws_partial_full_total",
                                    "Messages cut because all half-received ones together held too much.", MESH_COUNTER,
                                    NULL },
    [EDGE_WS_STAT_TOO_BIG] = { "parley_edge_ws_too_big_total", "Messages cut at the size limit.", MESH_COUNTER, NULL },
    [EDGE_WS_STAT_WRONG_OPCODE] = { "parley_edge_ws_wrong_opcode_total", "Text for protobuf or binary for JSON.",
                                    MESH_COUNTER, NULL },
    [EDGE_WS_STAT_CLOSED_BY_US] = { "parley_edge_ws_closed_total", "WebSockets the edge closed.", MESH_COUNTER, NULL },
    [EDGE_WS_STAT_BLOCKED] = { "parley_edge_ws_blocked_total", "Times a client did not take what was there for it.",
                               MESH_COUNTER, NULL },
    [EDGE_WS_STAT_PAUSED] = { "parley_edge_ws_paused_total",
                              "Times a socket was not read on because the mesh was behind.", MESH_COUNTER, NULL },
    [EDGE_WS_STAT_ADOPT_FAILED] = { "parley_edge_ws_adopt_failed_total", "Upgrades that libwebsockets did not finish.",
                                    MESH_COUNTER, NULL },
};

/* ---- in ---- */

static void pause_reading(edge_ws *ws, edge_ws_socket *s)
{
    if (!s->paused) {
        s->paused = 1;
        mesh_buf_put(&ws->paused, &s->id, sizeof s->id);
        mesh_stats_add(ws->stats, EDGE_WS_STAT_PAUSED, 1);
        lws_rx_flow_control(s->wsi, 0);
    }
}

void edge_ws_resume(edge_ws *ws)
{
    for (size_t at = 0; at < ws->paused.size; at += sizeof(edge_session_id)) {
        edge_session_id id;
        memcpy(&id, ws->paused.data + at, sizeof id);
        edge_ws_socket *s = mesh_table_get(ws->sockets, mesh_table_u64(&id));
        if (s) {
            s->paused = 0;
            lws_rx_flow_control(s->wsi, 1);
        }
    }
    mesh_buf_clear(&ws->paused);
}

static void refuse(edge_ws *ws, edge_ws_socket *s, uint32_t fault, unsigned stat, mesh_time now)
{
    edge_partial_drop(&ws->partials, &s->partial);
    s->skipping = 1;
    mesh_stats_add(ws->stats, stat, 1);
    edge_core_refuse(ws->conf.core, s->id, fault, now);
}

/* The last piece of a message; of a small one that came whole, the only one, and no copy is made. */
static void take_message(edge_ws *ws, edge_ws_socket *s, mesh_slice piece, mesh_time now)
{
    mesh_slice whole = s->partial.bytes ? (mesh_slice){ .data = s->partial.bytes, .size = s->partial.size } : piece;
    mesh_stats_add(ws->stats, EDGE_WS_STAT_MESSAGES_IN, 1);
    edge_core_input(ws->conf.core, s->id, whole, now, ws->conf.out);
    edge_partial_drop(&ws->partials, &s->partial);
    if (mesh_out_bytes(ws->conf.out) > EDGE_WS_OUT_HIGH) {
        pause_reading(ws, s);
    }
}

static void receive(edge_ws *ws, edge_ws_socket *s, const uint8_t *in, size_t size)
{
    mesh_time now = mesh_clock_now();
    uint64_t declared = lws_remaining_packet_payload(s->wsi);
    bool final = lws_is_final_fragment(s->wsi);
    if (s->id == 0) {
        return;
    }
    mesh_slice piece = { .data = in, .size = size };
    size_t max = edge_core_input_max(ws->conf.core, s->id);
    mesh_stats_add(ws->stats, EDGE_WS_STAT_BYTES_IN, size);
    if (s->skipping) {
        edge_core_pong(ws->conf.core, s->id, now);
    } else if (lws_frame_is_binary(s->wsi) != (s->kind == EDGE_PROTOBUF)) {
        refuse(ws, s, FAULT_MALFORMED, EDGE_WS_STAT_WRONG_OPCODE, now);
    } else if (final && !s->partial.bytes && size <= max) {
        take_message(ws, s, piece, now);
    } else {
        mesh_err err = edge_partial_put(&ws->partials, &s->partial, piece, declared, max);
        if (err != MESH_OK) {
            refuse(ws, s, FAULT_TOO_BIG, err == MESH_FULL ? EDGE_WS_STAT_PARTIAL_FULL : EDGE_WS_STAT_TOO_BIG, now);
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

static int established(edge_ws *ws, struct lws *wsi, edge_ws_socket *s)
{
    if (!ws->adopting.pending) {
        return -1;
    }
    *s = (edge_ws_socket){
        .id = ws->adopting.session, .wsi = wsi, .address = ws->adopting.address, .kind = (uint8_t)ws->adopting.kind
    };
    ws->adopting.pending = false;
    ws->open++;
    mesh_table_put(ws->sockets, mesh_table_u64(&s->id), s);
    return 0;
}

/* The peer's close, or its answer to ours. */
static int peer_closes(edge_ws *ws, edge_ws_socket *s)
{
    edge_ws_leave(ws, s, mesh_clock_now());
    return s->closing ? -1 : 0; /* 0: lws answers with the same code */
}

static int on_lws(struct lws *wsi, enum lws_callback_reasons reason, void *user, void *in, size_t size)
{
    edge_ws_socket *s = user;
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
        edge_ws_write(ws, s, mesh_clock_now());
        return 0;
    case LWS_CALLBACK_WS_PEER_INITIATED_CLOSE:
        return peer_closes(ws, s);
    case LWS_CALLBACK_CLOSED:
        edge_ws_gone(ws, s, mesh_clock_now());
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
    mesh_stats_add(ws->stats, EDGE_WS_STAT_ADOPT_FAILED, 1);
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
                                   .per_session_data_size = sizeof(edge_ws_socket),
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
    ws->stats = mesh_stats_new(STAT_INFOS, EDGE_WS_STATS);
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
    mesh_stats_set(ws->stats, EDGE_WS_STAT_OPEN, ws->open);
    mesh_stats_set(ws->stats, EDGE_WS_STAT_PARTIAL, ws->partials.held);
    mesh_stats_print(ws->stats, node, out);
}
