/* edge/ws_out.c: what leaves by a WebSocket, and how one is left. */
#include "edge/ws_priv.h"

#include <string.h>

#define CLOSE_REASON_MAX 123 /* a control frame carries 125 bytes */

/* ---- leaving ---- */

void edge_ws_leave(edge_ws *ws, edge_ws_socket *s, mesh_time now)
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
static void wait_for_close(edge_ws *ws, edge_ws_socket *s, mesh_ms close_at, bool first)
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
static void kill_socket(edge_ws *ws, edge_ws_socket *s, mesh_time now)
{
    edge_ws_leave(ws, s, now);
    wait_for_close(ws, s, now.mono, true);
}

/* Debian's lws closes twice when a WRITEABLE callback returns -1 on libuv, and the second time loses the close frame;
 * so the frame is written here, behind what lws may still hold. The peer's answer ends the socket, or the timeout. */
static void start_close(edge_ws *ws, edge_ws_socket *s, uint16_t code, const char *reason, mesh_time now)
{
    uint8_t frame[LWS_PRE + 4 + CLOSE_REASON_MAX];
    uint8_t *at = frame + LWS_PRE;
    size_t size = strnlen(reason ? reason : "", CLOSE_REASON_MAX);
    at[0] = 0x88; /* close, in one piece: RFC 6455 section 5.5.1 */
    at[1] = (uint8_t)(2 + size);
    at[2] = (uint8_t)(code >> 8);
    at[3] = (uint8_t)code;
    memcpy(at + 4, reason ? reason : "", size);
    edge_ws_leave(ws, s, now);
    mesh_stats_add(ws->stats, EDGE_WS_STAT_CLOSED_BY_US, 1);
    bool sent = lws_write(s->wsi, at, 4 + size, LWS_WRITE_HTTP) >= 0; /* raw */
    wait_for_close(ws, s, sent ? now.mono + EDGE_WS_CLOSE_MS : now.mono, !sent);
}

void edge_ws_gone(edge_ws *ws, edge_ws_socket *s, mesh_time now)
{
    edge_ws_leave(ws, s, now);
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
static bool write_piece(edge_ws *ws, edge_ws_socket *s, mesh_slice pending, mesh_time now)
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
    mesh_stats_add(ws->stats, EDGE_WS_STAT_BYTES_OUT, size);
    mesh_stats_add(ws->stats, EDGE_WS_STAT_MESSAGES_OUT, last);
    edge_core_wrote(ws->conf.core, s->id, size, now, ws->conf.out);
    return true;
}

static void block(edge_ws *ws, edge_ws_socket *s)
{
    lws_callback_on_writable(s->wsi);
    if (!s->waiting) {
        s->waiting = 1;
        mesh_table_put(ws->blocked, mesh_table_u64(&s->id), s);
    }
}

static void unblock(edge_ws *ws, edge_ws_socket *s)
{
    if (s->waiting) {
        s->waiting = 0;
        mesh_table_remove(ws->blocked, mesh_table_u64(&s->id));
    }
}

void edge_ws_write(edge_ws *ws, edge_ws_socket *s, mesh_time now)
{
    unblock(ws, s);
    for (int i = 0; s->id != 0; i++) {
        bool stuck = lws_partial_buffered(s->wsi) != 0;
        if (stuck || i == EDGE_WS_PIECES_PER_TURN) {
            mesh_stats_add(ws->stats, EDGE_WS_STAT_BLOCKED, stuck);
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
    for (edge_ws_socket *s = mesh_table_first(ws->blocked); s; s = mesh_table_next(ws->blocked)) {
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
    edge_ws_socket *s = TAILQ_FIRST(&ws->closing);
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
        edge_ws_socket *s = mesh_table_get(ws->sockets, mesh_table_u64(&id));
        if (!s) {
            edge_core_closed(ws->conf.core, id, now, ws->conf.out);
            continue;
        }
        if (s->turn == ws->turn) { /* once around: who is left waits for its socket */
            break;
        }
        s->turn = ws->turn;
        if (!s->waiting) {
            edge_ws_write(ws, s, now);
        }
    }
}
