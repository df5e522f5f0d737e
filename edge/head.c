#include "edge/head.h"

#include <ctype.h>
#include <string.h>
#include <strings.h>

typedef struct header_line {
    mesh_slice name;
    mesh_slice value;
} header_line;

static const char *const TOKEN_ARGUMENTS[] = { "token", "access_token", "jwt", "auth", "authorization" };

bool edge_head_is(mesh_slice s, const char *text)
{
    return s.size == strlen(text) && strncasecmp((const char *)s.data, text, s.size) == 0;
}

static bool starts(mesh_slice s, const char *text)
{
    size_t n = strlen(text);
    return s.size >= n && strncasecmp((const char *)s.data, text, n) == 0;
}

static mesh_slice slice(const uint8_t *from, const uint8_t *to)
{
    return (mesh_slice){ .data = from, .size = (size_t)(to - from) };
}

static mesh_slice trim(mesh_slice s)
{
    while (s.size > 0 && (s.data[0] == ' ' || s.data[0] == '\t')) {
        s.data++;
        s.size--;
    }
    while (s.size > 0 && (s.data[s.size - 1] == ' ' || s.data[s.size - 1] == '\t')) {
        s.size--;
    }
    return s;
}

static bool is_tchar(uint8_t c)
{
    return isalnum(c) || (c != 0 && strchr("!#$%&'*+-.^_`|~", c) != NULL);
}

/* The next piece of a list between separators, trimmed; false: the list is used up. */
static bool next_piece(mesh_slice *list, uint8_t separator, mesh_slice *piece)
{
    if (list->data == NULL || list->size == 0) {
        return false;
    }
    const uint8_t *end = list->data + list->size;
    const uint8_t *cut = memchr(list->data, separator, list->size);
    *piece = trim(slice(list->data, cut ? cut : end));
    *list = cut ? slice(cut + 1, end) : (mesh_slice){ 0 };
    return true;
}

static bool list_has(mesh_slice list, const char *text)
{
    mesh_slice piece;
    while (next_piece(&list, ',', &piece)) {
        if (edge_head_is(piece, text)) {
            return true;
        }
    }
    return false;
}

static mesh_err parse_request_line(mesh_slice line, edge_head *head)
{
    const uint8_t *end = line.data + line.size;
    const uint8_t *sp1 = memchr(line.data, ' ', line.size);
    const uint8_t *sp2 = sp1 ? memchr(sp1 + 1, ' ', (size_t)(end - sp1 - 1)) : NULL;
    if (!sp2 || sp1 == line.data || sp1[1] != '/') {
        return MESH_MALFORMED;
    }
    mesh_slice version = slice(sp2 + 1, end);
    if (version.size != 8 || memcmp(version.data, "HTTP/1.", 7) != 0 ||
        (version.data[7] != '1' && version.data[7] != '0')) {
        return MESH_MALFORMED;
    }
    mesh_slice method = slice(line.data, sp1);
    for (size_t i = 0; i < method.size; i++) {
        if (!is_tchar(method.data[i])) {
            return MESH_MALFORMED;
        }
    }
    head->method = EDGE_OTHER_METHOD;
    if (method.size == 3 && memcmp(method.data, "GET", 3) == 0) {
        head->method = EDGE_GET;
    } else if (method.size == 4 && memcmp(method.data, "HEAD", 4) == 0) {
        head->method = EDGE_HEAD;
    }
    for (const uint8_t *p = sp1 + 1; p < sp2; p++) {
        if (*p <= 0x20 || *p >= 0x7f) {
            return MESH_MALFORMED;
        }
    }
    const uint8_t *mark = memchr(sp1 + 1, '?', (size_t)(sp2 - sp1 - 1));
    head->path = slice(sp1 + 1, mark ? mark : sp2);
    head->query = mark ? slice(mark + 1, sp2) : (mesh_slice){ 0 };
    return MESH_OK;
}

static mesh_err split_header(mesh_slice line, header_line *out)
{
    const uint8_t *colon = memchr(line.data, ':', line.size);
    if (!colon || colon == line.data) {
        return MESH_MALFORMED;
    }
    for (const uint8_t *p = line.data; p < colon; p++) {
        if (!is_tchar(*p)) { /* also a folded line and a blank before the colon */
            return MESH_MALFORMED;
        }
    }
    for (const uint8_t *p = colon + 1; p < line.data + line.size; p++) {
        if ((*p < 0x20 && *p != '\t') || *p == 0x7f) {
            return MESH_MALFORMED;
        }
    }
    out->name = slice(line.data, colon);
    out->value = trim(slice(colon + 1, line.data + line.size));
    return MESH_OK;
}

static mesh_err take_once(mesh_slice *field, mesh_slice value)
{
    if (field->data) {
        return MESH_MALFORMED;
    }
    *field = value;
    return MESH_OK;
}

static mesh_err take_protocols(edge_head *head, mesh_slice list)
{
    mesh_slice piece;
    while (next_piece(&list, ',', &piece)) {
        bool json = piece.size == 14 && memcmp(piece.data, "parley.v1.json", 14) == 0;
        bool protobuf = piece.size == 18 && memcmp(piece.data, "parley.v1.protobuf", 18) == 0;
        if ((json || protobuf) && !head->offered) {
            head->offered = true;
            head->kind = json ? EDGE_JSON : EDGE_PROTOBUF;
        } else if (piece.size > 6 && memcmp(piece.data, "token.", 6) == 0) {
            if (piece.size - 6 > EDGE_HEAD_TOKEN_MAX || head->token.data) {
                return MESH_MALFORMED;
            }
            head->token = slice(piece.data + 6, piece.data + piece.size);
        }
    }
    return MESH_OK;
}

static mesh_err take_header(edge_head *head, const header_line *line, bool *connection, mesh_slice *upgrade)
{
    mesh_slice name = line->name;
    mesh_slice value = line->value;
    if (edge_head_is(name, "host")) {
        return take_once(&head->host, value);
    } else if (edge_head_is(name, "origin")) {
        return take_once(&head->origin, value);
    } else if (edge_head_is(name, "if-none-match")) {
        head->if_none_match = value;
    } else if (edge_head_is(name, "sec-websocket-key")) {
        return take_once(&head->ws_key, value);
    } else if (edge_head_is(name, "sec-websocket-version")) {
        head->version13 = edge_head_is(value, "13");
    } else if (edge_head_is(name, "sec-websocket-protocol")) {
        return take_protocols(head, value);
    } else if (edge_head_is(name, "upgrade")) {
        return take_once(upgrade, value);
    } else if (edge_head_is(name, "connection")) {
        *connection = *connection || list_has(value, "upgrade");
    } else if (edge_head_is(name, "x-forwarded-for") || edge_head_is(name, "forwarded")) {
        head->forwarded = true;
    } else if (edge_head_is(name, "transfer-encoding") ||
               (edge_head_is(name, "content-length") && !edge_head_is(value, "0"))) {
        head->body = true;
    }
    return MESH_OK;
}

static mesh_err parse_lines(mesh_slice bytes, edge_head *head)
{
    bool connection = false;
    mesh_slice upgrade = { 0 };
    const uint8_t *at = bytes.data;
    const uint8_t *end = bytes.data + bytes.size;
    for (int n = 0; at < end; n++) {
        const uint8_t *nl = memmem(at, (size_t)(end - at), "\r\n", 2);
        if (!nl || n > EDGE_HEAD_LINES || memchr(at, '\n', (size_t)(nl - at)) || memchr(at, '\r', (size_t)(nl - at))) {
            return MESH_MALFORMED;
        }
        mesh_slice line = slice(at, nl);
        at = nl + 2;
        mesh_err err = MESH_OK;
        if (n == 0) {
            err = parse_request_line(line, head);
        } else if (line.size > 0) { /* the empty line ends the head */
            header_line header;
            err = split_header(line, &header);
            if (err == MESH_OK) {
                err = take_header(head, &header, &connection, &upgrade);
            }
        }
        if (err != MESH_OK) {
            return err;
        }
    }
    head->upgrade = edge_head_is(upgrade, "websocket") && connection;
    return MESH_OK;
}

mesh_err edge_head_parse(mesh_slice bytes, edge_head *head, size_t *size_p)
{
    size_t look = bytes.size < EDGE_HEAD_MAX ? bytes.size : EDGE_HEAD_MAX;
    const uint8_t *end = look > 0 ? memmem(bytes.data, look, "\r\n\r\n", 4) : NULL;
    if (!end) {
        return look == EDGE_HEAD_MAX ? MESH_TOO_BIG : MESH_AGAIN;
    }
    edge_head parsed = { 0 };
    mesh_err err = parse_lines(slice(bytes.data, end + 4), &parsed);
    if (err == MESH_OK) {
        *head = parsed;
        *size_p = (size_t)(end + 4 - bytes.data);
    }
    return err;
}

/* Secrets in URLs end up in histories and in the logs of whatever stands between. */
static bool query_has_token(mesh_slice query)
{
    mesh_slice argument;
    while (next_piece(&query, '&', &argument)) {
        mesh_slice rest = argument;
        mesh_slice name = { 0 };
        if (!next_piece(&rest, '=', &name)) {
            continue;
        }
        for (size_t i = 0; i < sizeof TOKEN_ARGUMENTS / sizeof TOKEN_ARGUMENTS[0]; i++) {
            if (edge_head_is(name, TOKEN_ARGUMENTS[i])) {
                return true;
            }
        }
    }
    return false;
}

static mesh_slice without_suffix(mesh_slice s, const char *suffix)
{
    size_t n = strlen(suffix);
    if (s.size > n && memcmp(s.data + s.size - n, suffix, n) == 0) {
        s.size -= n;
    }
    return s;
}

/* Same host and port as the Host header; the scheme may differ where a proxy ends TLS. */
static bool same_host(mesh_slice origin, mesh_slice host)
{
    const char *port = NULL;
    if (starts(origin, "https://")) {
        origin = slice(origin.data + 8, origin.data + origin.size);
        port = ":443";
    } else if (starts(origin, "http://")) {
        origin = slice(origin.data + 7, origin.data + origin.size);
        port = ":80";
    } else {
        return false; /* "null" and what is not the web */
    }
    origin = without_suffix(origin, port);
    host = without_suffix(host, port);
    return origin.size > 0 && origin.size == host.size &&
           strncasecmp((const char *)origin.data, (const char *)host.data, host.size) == 0;
}

static bool origin_allowed(const edge_head *head, const char *origins)
{
    if (!head->origin.data || same_host(head->origin, head->host)) {
        return true;
    }
    if (strcmp(origins, "*") == 0) {
        return true;
    }
    mesh_slice list = { .data = (const uint8_t *)origins, .size = strlen(origins) };
    mesh_slice piece;
    while (next_piece(&list, ' ', &piece)) {
        if (piece.size > 0 && piece.size == head->origin.size &&
            strncasecmp((const char *)piece.data, (const char *)head->origin.data, piece.size) == 0) {
            return true;
        }
    }
    return false;
}

/* base64 of 16 bytes: 22 characters and "==". */
static bool key_valid(mesh_slice key)
{
    if (key.size != 24 || memcmp(key.data + 22, "==", 2) != 0) {
        return false;
    }
    for (size_t i = 0; i < 22; i++) {
        if (!isalnum(key.data[i]) && key.data[i] != '+' && key.data[i] != '/') {
            return false;
        }
    }
    return true;
}

static unsigned judge_upgrade(const edge_head *head, const char *origins)
{
    if (head->method != EDGE_GET) {
        return 405;
    }
    if (!head->version13) {
        return 426;
    }
    if (!key_valid(head->ws_key) || !head->offered || head->body) {
        return 400;
    }
    return origin_allowed(head, origins) ? 101 : 403;
}

unsigned edge_head_judge(const edge_head *head, const char *origins)
{
    bool ws_path = head->path.size == 6 && memcmp(head->path.data, "/v1/ws", 6) == 0;
    if (!head->host.data || query_has_token(head->query)) {
        return 400;
    }
    if (head->upgrade) {
        return ws_path ? judge_upgrade(head, origins) : 404;
    }
    if (head->method == EDGE_OTHER_METHOD) {
        return 405;
    }
    return ws_path ? 426 : 200;
}

void edge_head_put_upgrade(const edge_head *head, mesh_buf *out)
{
    mesh_buf_puts(out, "GET /v1/ws HTTP/1.1\r\nHost: edge\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                       "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: ");
    mesh_buf_put(out, head->ws_key.data, head->ws_key.size);
    mesh_buf_puts(out, "\r\nSec-WebSocket-Protocol: ");
    mesh_buf_puts(out, head->kind == EDGE_JSON ? "parley.v1.json" : "parley.v1.protobuf");
    mesh_buf_puts(out, "\r\n\r\n");
}
