/* edge/head.h: the head of an HTTP/1.1 request, read strictly, and what is to become of it. Pure: bytes in, verdict
 * out.
 *
 * The edge reads heads itself and gives libwebsockets a fresh, minimal one: lws 4.1 cuts the list of subprotocols at
 * 127 bytes (a token is longer), and takes unmatched upgrades (h2c) that nobody wants. What is not exactly an RFC 9112
 * head is refused: no bare CR or LF, no folded lines, no NUL, no second Host. Sources: RFC 9112 (HTTP/1.1), RFC 6455
 * section 4 (WebSocket handshake). */
#ifndef EDGE_HEAD_H
#define EDGE_HEAD_H

#include "edge/core.h"

#define EDGE_HEAD_MAX 8192  /* bytes up to and including the empty line */
#define EDGE_HEAD_LINES 100 /* header lines */
#define EDGE_HEAD_TOKEN_MAX 4096

typedef enum edge_method { EDGE_GET, EDGE_HEAD, EDGE_OTHER_METHOD } edge_method;

typedef struct edge_head { /* slices borrow from the bytes that were parsed; absent = size 0 and data NULL */
    edge_method method;
    mesh_slice path;  /* starts with '/' */
    mesh_slice query; /* without '?' */
    mesh_slice host;
    mesh_slice origin;
    mesh_slice if_none_match;
    mesh_slice ws_key;
    mesh_slice token; /* of the subprotocol entry token.<jwt> */
    bool upgrade;     /* Upgrade: websocket and Connection: upgrade */
    bool version13;
    bool offered; /* one of our subprotocols; kind says which came first */
    edge_codec_kind kind;
    bool forwarded; /* came through a proxy: Forwarded or X-Forwarded-For is there */
    bool body;      /* a body was announced */
} edge_head;

/* Parse the head at the start of bytes. *size_p: its length with the empty line; what follows belongs to the
 * connection. Errors: MESH_AGAIN not complete; MESH_TOO_BIG EDGE_HEAD_MAX without an end; MESH_MALFORMED. Outputs
 * untouched then. */
MESH_MUST mesh_err edge_head_parse(mesh_slice bytes, edge_head *head, size_t *size_p);

/* What to answer: 101 the WebSocket may open; 200 look for a file; else the status to refuse with: 400 (also a token in
 * the query, which would end up in logs), 403 foreign Origin, 404, 405, 426. origins: further allowed ones, space
 * separated; "*" = all. */
unsigned edge_head_judge(const edge_head *head, const char *origins);

/* Append the handshake request libwebsockets gets to see: only what judge allowed. */
void edge_head_put_upgrade(const edge_head *head, mesh_buf *out);

bool edge_head_is(mesh_slice s, const char *text); /* equal, letters in any case */

#endif
