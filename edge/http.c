#include "edge/http.h"

#include <assert.h>
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "mesh/alloc.h"
#include "mesh/log.h"

#define PATH_LENGTH_MAX 256

typedef struct web_file {
    char *path; /* as asked for: "/chat.js" */
    const char *type;
    char etag[36]; /* quoted */
    mesh_buf bytes;
} web_file;

struct edge_http {
    web_file files[EDGE_HTTP_FILES_MAX];
    size_t n_files;
    size_t bytes;
};

static const char SECURITY_HEADERS[] = "Content-Security-Policy: default-src 'self'; connect-src 'self' ws: wss:; "
                                       "img-src 'self' data:; object-src 'none'; "
                                       "base-uri 'none'; form-action 'self'; frame-ancestors 'none'\r\n"
                                       "X-Content-Type-Options: nosniff\r\n"
                                       "Referrer-Policy: no-referrer\r\n"
                                       "Cross-Origin-Opener-Policy: same-origin\r\n";

static const struct {
    const char *suffix;
    const char *type;
} TYPES[] = {
    { ".html", "text/html; charset=utf-8" },
    { ".js", "text/javascript; charset=utf-8" },
    { ".mjs", "text/javascript; charset=utf-8" },
    { ".css", "text/css; charset=utf-8" },
    { ".json", "application/json" },
    { ".webmanifest", "application/manifest+json" },
    { ".svg", "image/svg+xml" },
    { ".png", "image/png" },
    { ".ico", "image/x-icon" },
    { ".woff2", "font/woff2" },
    { ".txt", "text/plain; charset=utf-8" },
};

static const struct {
    unsigned status;
    const char *reason;
    const char *text;
    const char *header;
} STATUSES[] = {
    { 200, "OK", "ok\n", "" },
    { 400, "Bad Request", "bad request\n", "" },
    { 403, "Forbidden", "this origin may not connect\n", "" },
    { 404, "Not Found", "not found\n", "" },
    { 405, "Method Not Allowed", "only GET and HEAD\n", "Allow: GET, HEAD\r\n" },
    { 426, "Upgrade Required", "this is a WebSocket endpoint: parley.v1.json or parley.v1.protobuf\n",
      "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n" },
    { 431, "Request Header Fields Too Large", "request head too large\n", "" },
    { 503, "Service Unavailable", "no room, try another node\n", "Retry-After: 5\r\n" },
};

static const char *type_of(const char *path)
{
    size_t n = strlen(path);
    for (size_t i = 0; i < sizeof TYPES / sizeof TYPES[0]; i++) {
        size_t m = strlen(TYPES[i].suffix);
        if (n > m && strcmp(path + n - m, TYPES[i].suffix) == 0) {
            return TYPES[i].type;
        }
    }
    return "application/octet-stream";
}

static bool name_served(const char *name)
{
    if (name[0] == '.') {
        return false;
    }
    for (const char *p = name; *p; p++) {
        if (!isalnum((unsigned char)*p) && !strchr("._-", *p)) {
            return false;
        }
    }
    return true;
}

static mesh_err read_file(edge_http *http, int fd, size_t size, const char *path)
{
    if (http->n_files == EDGE_HTTP_FILES_MAX || size > EDGE_HTTP_BYTES_MAX - http->bytes) {
        mesh_log(MESH_ERROR, "web_dir_too_big", "file=%s files_max=%d bytes_max=%u", path, EDGE_HTTP_FILES_MAX,
                 EDGE_HTTP_BYTES_MAX);
        return MESH_TOO_BIG;
    }
    web_file *file = &http->files[http->n_files];
    mesh_buf_init(&file->bytes);
    while (file->bytes.size < size) {
        uint8_t piece[16384];
        size_t want = size - file->bytes.size < sizeof piece ? size - file->bytes.size : sizeof piece;
        ssize_t n = read(fd, piece, want);
        if (n <= 0) {
            mesh_buf_fini(&file->bytes);
            return MESH_IO;
        }
        mesh_buf_put(&file->bytes, piece, (size_t)n);
    }
    uint8_t hash[16];
    crypto_generichash(hash, sizeof hash, file->bytes.data, file->bytes.size, NULL, 0);
    file->etag[0] = '"';
    sodium_bin2hex(file->etag + 1, 33, hash, sizeof hash);
    file->etag[33] = '"';
    file->etag[34] = '\0';
    file->path = mesh_strdup(path);
    file->type = type_of(path);
    http->bytes += size;
    http->n_files++;
    return MESH_OK;
}

static mesh_err read_dir(edge_http *http, int dir_fd, const char *prefix, int depth);

static mesh_err read_entry(edge_http *http, int dir_fd, const char *prefix, const char *name, int depth)
{
    char path[PATH_LENGTH_MAX];
    int n = snprintf(path, sizeof path, "%s/%s", prefix, name);
    if (!name_served(name) || n < 0 || (size_t)n >= sizeof path) {
        return MESH_OK;
    }
    int fd = openat(dir_fd, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    struct stat st;
    if (fd < 0 || fstat(fd, &st) != 0) {
        bool link = fd < 0 && errno == ELOOP;
        if (fd >= 0) {
            close(fd);
        }
        return link ? MESH_OK : MESH_IO;
    }
    mesh_err err = MESH_OK;
    if (S_ISREG(st.st_mode)) {
        err = read_file(http, fd, (size_t)st.st_size, path);
    } else if (S_ISDIR(st.st_mode) && depth < EDGE_HTTP_DEPTH_MAX) {
        return read_dir(http, fd, path, depth + 1); /* takes fd */
    }
    close(fd);
    return err;
}

static mesh_err read_dir(edge_http *http, int dir_fd, const char *prefix, int depth)
{
    DIR *dir = fdopendir(dir_fd);
    if (!dir) {
        close(dir_fd);
        return MESH_IO;
    }
    mesh_err err = MESH_OK;
    struct dirent *entry;
    while (err == MESH_OK && (entry = readdir(dir)) != NULL) {
        err = read_entry(http, dir_fd, prefix, entry->d_name, depth);
    }
    closedir(dir);
    return err;
}

mesh_err edge_http_new(const char *web_dir, edge_http **http_p)
{
    edge_http *http = mesh_alloc(sizeof *http);
    mesh_err err = MESH_OK;
    if (web_dir[0] != '\0') {
        int fd = open(web_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        err = fd < 0 ? MESH_IO : read_dir(http, fd, "", 1);
    }
    if (err == MESH_OK) {
        *http_p = http;
    } else {
        edge_http_destroy(&http);
    }
    return err;
}

void edge_http_destroy(edge_http **http_p)
{
    edge_http *http = *http_p;
    if (http) {
        for (size_t i = 0; i < http->n_files; i++) {
            free(http->files[i].path);
            mesh_buf_fini(&http->files[i].bytes);
        }
        free(http);
        *http_p = NULL;
    }
}

size_t edge_http_files(const edge_http *http)
{
    return http->n_files;
}

static const web_file *find_file(const edge_http *http, mesh_slice path)
{
    const char *name = (const char *)path.data;
    size_t size = path.size;
    if (size == 1) {
        name = "/index.html";
        size = strlen(name);
    }
    for (size_t i = 0; i < http->n_files; i++) {
        if (strlen(http->files[i].path) == size && memcmp(http->files[i].path, name, size) == 0) {
            return &http->files[i];
        }
    }
    return NULL;
}

static void put_head(mesh_buf *out, unsigned status, const char *reason, const char *type, size_t length,
                     const char *extra)
{
    mesh_buf_printf(out, "HTTP/1.1 %u %s\r\nContent-Type: %s\r\nContent-Length: %zu\r\nConnection: close\r\n", status,
                    reason, type, length);
    mesh_buf_puts(out, extra);
    mesh_buf_puts(out, SECURITY_HEADERS);
    mesh_buf_puts(out, "\r\n");
}

static void answer_text(mesh_buf *out, unsigned status, bool with_body)
{
    size_t i = 0;
    while (STATUSES[i].status != status) {
        i++;
        assert(i < sizeof STATUSES / sizeof STATUSES[0]);
    }
    char extra[160];
    snprintf(extra, sizeof extra, "Cache-Control: no-store\r\n%s", STATUSES[i].header);
    put_head(out, status, STATUSES[i].reason, "text/plain; charset=utf-8", strlen(STATUSES[i].text), extra);
    if (with_body) {
        mesh_buf_puts(out, STATUSES[i].text);
    }
}

static void answer_file(const web_file *file, const edge_head *head, edge_http_reply *reply)
{
    char extra[128];
    snprintf(extra, sizeof extra, "Cache-Control: no-cache\r\nETag: %s\r\n", file->etag);
    if (edge_head_is(head->if_none_match, file->etag)) {
        mesh_buf_printf(&reply->head, "HTTP/1.1 304 Not Modified\r\nConnection: close\r\n%s%s\r\n", extra,
                        SECURITY_HEADERS);
        return;
    }
    put_head(&reply->head, 200, "OK", file->type, file->bytes.size, extra);
    if (head->method == EDGE_GET) {
        reply->body = mesh_buf_slice(&file->bytes);
    }
}

static void answer_metrics(const edge_http_asker *asker, bool with_body, mesh_buf *out)
{
    mesh_buf text;
    mesh_buf_init(&text);
    asker->metrics(asker->arg, &text);
    put_head(out, 200, "OK", "text/plain; version=0.0.4; charset=utf-8", text.size, "Cache-Control: no-store\r\n");
    if (with_body) {
        mesh_buf_put(out, text.data, text.size);
    }
    mesh_buf_fini(&text);
}

void edge_http_answer(const edge_http *http, const edge_head *head, unsigned status, const edge_http_asker *asker,
                      edge_http_reply *reply)
{
    *reply = (edge_http_reply){ 0 };
    mesh_buf_init(&reply->head);
    bool with_body = !head || head->method != EDGE_HEAD;
    if (status != 200) {
        answer_text(&reply->head, status, with_body);
    } else if (edge_head_is(head->path, "/healthz")) {
        answer_text(&reply->head, asker->draining ? 503 : 200, with_body);
    } else if (edge_head_is(head->path, "/metrics") && asker->loopback && !head->forwarded) {
        answer_metrics(asker, with_body, &reply->head);
    } else {
        const web_file *file = find_file(http, head->path);
        if (file) {
            answer_file(file, head, reply);
        } else {
            answer_text(&reply->head, 404, with_body);
        }
    }
}
