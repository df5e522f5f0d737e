/* edge/http.h: answers to plain HTTP: the web page's files, /healthz, and /metrics for loopback peers.
 *
 * The files are read into memory at start and found by exact name, so no request ever reaches the file system: there is
 * nothing to traverse. Every answer closes the connection and carries the security headers. */
#ifndef EDGE_HTTP_H
#define EDGE_HTTP_H

#include "edge/head.h"

#define EDGE_HTTP_FILES_MAX 64
#define EDGE_HTTP_BYTES_MAX (4u * 1024 * 1024) /* of all files together */
#define EDGE_HTTP_DEPTH_MAX 8

typedef struct edge_http edge_http;

typedef struct edge_http_reply { /* head: yours, mesh_buf_fini; body: borrowed from the edge_http, may be empty */
    mesh_buf head;
    mesh_slice body;
} edge_http_reply;

typedef struct edge_http_asker {
    bool loopback;                             /* the peer's address is of this machine */
    bool draining;                             /* /healthz says so, with 503 */
    void (*metrics)(void *arg, mesh_buf *out); /* prints /metrics */
    void *arg;
} edge_http_asker;

/* Read the files below web_dir; empty: none. Names that would need escaping in a URL, hidden ones and symbolic links
 * are left out. Errors: MESH_IO web_dir or a file cannot be read; MESH_TOO_BIG more than the limits above. */
MESH_MUST mesh_err edge_http_new(const char *web_dir, edge_http **http_p);
void edge_http_destroy(edge_http **http_p);
size_t edge_http_files(const edge_http *http);

/* The whole answer. status: edge_head_judge's verdict (200 = look for it), or an error to report; head may be NULL
 * then. */
void edge_http_answer(const edge_http *http, const edge_head *head, unsigned status, const edge_http_asker *asker,
                      edge_http_reply *reply);

#endif
