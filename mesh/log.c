#include "mesh/log.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "mesh/clock.h"
#include "mesh/utf8.h"

#define LINE_SIZE 4096 /* one write of at most PIPE_BUF bytes is never mixed with another's */
#define LOG_RATE 200
#define EVENTS 128

typedef struct event_rate {
    const char *event;
    mesh_ms second;
    unsigned lines;
    uint64_t left_out;
} event_rate;

atomic_int mesh_log_threshold = MESH_INFO;
static _Thread_local char node_name[64] = "-";
static _Thread_local event_rate rates[EVENTS];

void mesh_log_setup(const char *node, mesh_level level)
{
    mesh_log_node_set(node);
    mesh_log_level(level);
}

const char *mesh_log_node(void)
{
    return node_name;
}

void mesh_log_node_set(const char *node)
{
    (void)snprintf(node_name, sizeof node_name, "%s", node);
}

void mesh_log_level(mesh_level level)
{
    atomic_store_explicit(&mesh_log_threshold, (int)level, memory_order_relaxed);
}

mesh_level mesh_log_level_of(const char *name)
{
    static const char *const names[] = { "debug", "info", "warn", "error" };
    for (int i = 0; i < 4; i++) {
        if (strcmp(names[i], name) == 0) {
            return (mesh_level)i;
        }
    }
    return MESH_INFO;
}

/* ---- a line, built in place and cut at its end ---- */

typedef struct line {
    char text[LINE_SIZE];
    size_t size;
} line;

static void put(line *l, const char *bytes, size_t n)
{
    size_t room = LINE_SIZE - 1 - l->size; /* one kept for the newline */
    if (n > room) {
        n = room;
    }
    memcpy(l->text + l->size, bytes, n);
    l->size += n;
}

static void puts_raw(line *l, const char *s)
{
    put(l, s, strlen(s));
}

/* Bytes of text at s that may stand in a quoted value as they are: 0 = this byte must be escaped. */
static size_t plain(const uint8_t *s, size_t n)
{
    uint8_t c = s[0];
    if (c < 0x80) {
        return c >= ' ' && c != 0x7f && c != '"' && c != '\\' ? 1 : 0;
    }
    for (size_t size = 2; size <= 4 && size <= n; size++) {
        size_t points;
        if (mesh_utf8_valid(s, size, &points) && points == 1) {
            bool control = c == 0xc2 && s[1] < 0xa0;                                   /* C1 */
            bool breaks = c == 0xe2 && s[1] == 0x80 && (s[2] == 0xa8 || s[2] == 0xa9); /* line separators */
            return control || breaks ? 0 : size;
        }
    }
    return 0;
}

static bool needs_quotes(const char *s, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)s[i];
        if (c <= ' ' || c >= 0x7f || c == '"' || c == '\\' || c == '=') {
            return true;
        }
    }
    return n == 0;
}

static void put_value(line *l, const char *s, size_t n)
{
    if (!needs_quotes(s, n)) {
        put(l, s, n);
        return;
    }
    put(l, "\"", 1);
    for (size_t i = 0; i < n;) {
        size_t size = plain((const uint8_t *)s + i, n - i);
        if (size > 0) {
            put(l, s + i, size);
            i += size;
            continue;
        }
        char escape[8];
        unsigned char c = (unsigned char)s[i++];
        int k = c == '\n'               ? snprintf(escape, sizeof escape, "\\n")
                : c == '"' || c == '\\' ? snprintf(escape, sizeof escape, "\\%c", c)
                                        : snprintf(escape, sizeof escape, "\\x%02x", c);
        put(l, escape, (size_t)k);
    }
    put(l, "\"", 1);
}

/* ---- the format: literals are ours, what %s brings is not ---- */

typedef struct args {
    va_list list;
} args;

/* One conversion: [begin, end) is "%...x". The prefix is kept for snprintf; * is replaced by its number. */
typedef struct conversion {
    char spec[48];
    int precision; /* -1 = none */
    enum { PLAIN, LONG, LONG_LONG, SIZE } length;
    char kind;
} conversion;

static const char *scan_number(const char *p, args *a, char *out, size_t size, int *value)
{
    if (*p == '*') {
        *value = va_arg(a->list, int);
        p++;
    } else {
        *value = 0;
        while (*p >= '0' && *p <= '9' && *value < 1000) {
            *value = *value * 10 + (*p++ - '0');
        }
    }
    (void)snprintf(out, size, "%d", *value);
    return p;
}

static const char *scan_length(const char *p, conversion *c)
{
    c->length = PLAIN;
    while (*p == 'h') { /* promoted to int */
        p++;
    }
    if (*p == 'z' || *p == 't' || *p == 'j') {
        c->length = SIZE;
        p++;
    }
    for (; *p == 'l'; p++) {
        c->length = c->length == LONG ? LONG_LONG : LONG;
    }
    return p;
}

static const char *scan(const char *p, args *a, conversion *c)
{
    char flags[8] = "";
    char width[16] = "";
    char precision[16] = "";
    size_t n = strspn(p, "-+ #0");
    memcpy(flags, p, n < sizeof flags ? n : 0);
    p += n;
    if (*p == '*' || (*p >= '1' && *p <= '9')) {
        int ignored;
        p = scan_number(p, a, width, sizeof width, &ignored);
    }
    c->precision = -1;
    if (*p == '.') {
        p = scan_number(p + 1, a, precision, sizeof precision, &c->precision);
    }
    p = scan_length(p, c);
    c->kind = *p;
    static const char *const lengths[] = { [PLAIN] = "", [LONG] = "l", [LONG_LONG] = "ll", [SIZE] = "z" };
    (void)snprintf(c->spec, sizeof c->spec, "%%%s%s%s%s%s%c", flags, width, c->precision >= 0 ? "." : "", precision,
                   c->kind == 'p' || strchr("fegFEGaA", c->kind) != NULL ? "" : lengths[c->length], c->kind);
    return *p != '\0' ? p + 1 : p;
}

static void put_integer(line *l, const conversion *c, args *a)
{
    char text[64];
    int n = 0;
    switch (c->length) {
    case PLAIN:
        n = snprintf(text, sizeof text, c->spec, va_arg(a->list, int));
        break;
    case LONG:
        n = snprintf(text, sizeof text, c->spec, va_arg(a->list, long));
        break;
    case LONG_LONG:
        n = snprintf(text, sizeof text, c->spec, va_arg(a->list, long long));
        break;
    case SIZE:
        n = snprintf(text, sizeof text, c->spec, va_arg(a->list, size_t));
        break;
    }
    if (n > 0) {
        put(l, text, (size_t)n < sizeof text ? (size_t)n : sizeof text - 1);
    }
}

static void put_conversion(line *l, const conversion *c, args *a)
{
    char text[64];
    switch (c->kind) {
    case 's': {
        const char *s = va_arg(a->list, const char *);
        s = s != NULL ? s : "";
        put_value(l, s, c->precision >= 0 ? strnlen(s, (size_t)c->precision) : strlen(s));
        break;
    }
    case 'c': {
        char one = (char)va_arg(a->list, int);
        put_value(l, &one, 1);
        break;
    }
    case 'p':
        (void)snprintf(text, sizeof text, "%p", va_arg(a->list, void *));
        puts_raw(l, text);
        break;
    case 'd':
    case 'i':
    case 'u':
    case 'x':
    case 'X':
    case 'o':
        put_integer(l, c, a);
        break;
    default: /* f, e, g: the others are refused by the compiler's check of the format */
        (void)snprintf(text, sizeof text, c->spec, va_arg(a->list, double));
        puts_raw(l, text);
        break;
    }
}

static void put_format(line *l, const char *format, args *a)
{
    for (const char *p = format; *p != '\0';) {
        size_t n = strcspn(p, "%");
        put(l, p, n);
        p += n;
        if (p[0] == '%' && p[1] == '%') {
            put(l, "%", 1);
            p += 2;
        } else if (*p == '%') {
            conversion c;
            p = scan(p + 1, a, &c);
            put_conversion(l, &c, a);
        }
    }
}

/* ---- rate, head and write ---- */

/* Events are literals of the program, so the table never overflows by what clients do; more than EVENTS share a row. */
static event_rate *rate_of(const char *event)
{
    for (size_t i = 0; i < EVENTS; i++) {
        event_rate *r = &rates[i];
        if (r->event == NULL) {
            r->event = event;
            return r;
        }
        if (r->event == event || strcmp(r->event, event) == 0) {
            return r;
        }
    }
    return &rates[EVENTS - 1];
}

static bool within_rate(const char *event, mesh_ms now, uint64_t *left_out)
{
    event_rate *r = rate_of(event);
    if (r->second != now / 1000) {
        r->second = now / 1000;
        r->lines = 0;
    }
    if (r->lines >= LOG_RATE) {
        r->left_out++;
        return false;
    }
    r->lines++;
    *left_out = r->left_out;
    r->left_out = 0;
    return true;
}

static void put_head(line *l, mesh_ms wall, mesh_level level, const char *event)
{
    static const char *const names[] = { "debug", "info", "warn", "error" };
    time_t seconds = (time_t)(wall / 1000);
    struct tm tm;
    char stamp[32];
    (void)gmtime_r(&seconds, &tm);
    size_t n = strftime(stamp, sizeof stamp, "%Y-%m-%dT%H:%M:%S", &tm);
    put(l, "ts=", 3);
    put(l, stamp, n);
    (void)snprintf(stamp, sizeof stamp, ".%03dZ", (int)(wall % 1000));
    puts_raw(l, stamp);
    puts_raw(l, " level=");
    puts_raw(l, names[level]);
    puts_raw(l, " node=");
    put_value(l, node_name, strlen(node_name));
    puts_raw(l, " event=");
    put_value(l, event, strlen(event));
}

void mesh_log_write(mesh_level level, const char *event, const char *format, ...)
{
    int saved = errno;
    mesh_time now = mesh_clock_now();
    uint64_t left_out = 0;
    if (level == MESH_DEBUG || within_rate(event, now.mono, &left_out)) {
        line l;
        l.size = 0;
        put_head(&l, now.wall, level, event);
        if (left_out > 0) {
            char text[40];
            (void)snprintf(text, sizeof text, " left_out=%" PRIu64, left_out);
            puts_raw(&l, text);
        }
        put(&l, " ", 1);
        args a;
        va_start(a.list, format);
        put_format(&l, format, &a);
        va_end(a.list);
        l.text[l.size++] = '\n';
        ssize_t written = write(STDERR_FILENO, l.text, l.size);
        (void)written; /* nobody left to tell */
    }
    errno = saved;
}
