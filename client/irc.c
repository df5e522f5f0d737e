#include "client/irc.h"

#include <assert.h>
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mesh/alloc.h"
#include "mesh/table.h"
#include "mesh/utf8.h"

/* ---- a line ---- */

static mesh_slice cut(mesh_slice s, size_t from)
{
    return (mesh_slice){ s.data + from, s.size - from };
}

/* Where what starts in s, s.size when nowhere. */
static size_t find(mesh_slice s, const char *what)
{
    size_t n = strlen(what);
    const uint8_t *at = s.size >= n ? memmem(s.data, s.size, what, n) : NULL;
    return at ? (size_t)(at - s.data) : s.size;
}

static bool starts(mesh_slice s, const char *what)
{
    size_t n = strlen(what);
    return s.size >= n && memcmp(s.data, what, n) == 0;
}

static mesh_err parse_notice(mesh_slice line, client_irc_line *out)
{
    static const char renamed[] = " is now known as ";
    mesh_slice rest = cut(line, 3);
    *out = (client_irc_line){ .kind = CLIENT_IRC_SKIP };
    if (!starts(rest, " ")) {
        return MESH_OK;
    }
    rest = cut(rest, 1);
    size_t at = find(rest, renamed);
    /* a nick has no blanks: anything longer is somebody quoting such a line */
    bool rename = at > 0 && at < rest.size && find((mesh_slice){ rest.data, at }, " ") == at;
    if (rename && rest.size > at + sizeof renamed - 1) {
        *out = (client_irc_line){ CLIENT_IRC_RENAME, { rest.data, at }, cut(rest, at + sizeof renamed - 1) };
    }
    return MESH_OK;
}

static bool has_clock(mesh_slice line)
{
    return line.size >= 8 && line.data[0] == '[' && isdigit(line.data[1]) && isdigit(line.data[2]) &&
           line.data[3] == ':' && isdigit(line.data[4]) && isdigit(line.data[5]) && line.data[6] == ']' &&
           line.data[7] == ' ';
}

mesh_err client_irc_parse(mesh_slice line, client_irc_line *out)
{
    if (starts(line, "===")) {
        return parse_notice(line, out);
    }
    if (!has_clock(line)) {
        return MESH_MALFORMED;
    }
    mesh_slice rest = cut(line, 8);
    while (starts(rest, " ")) {
        rest = cut(rest, 1);
    }
    client_irc_line parsed = { .kind = starts(rest, "<") ? CLIENT_IRC_TEXT : CLIENT_IRC_ACTION };
    if (!starts(rest, "<") && !starts(rest, "* ")) {
        return MESH_MALFORMED;
    }
    bool text = parsed.kind == CLIENT_IRC_TEXT;
    rest = cut(rest, text ? 1 : 2);
    size_t end = find(rest, text ? ">" : " ");
    parsed.nick = (mesh_slice){ rest.data, end };
    if (end == 0 || (text && end == rest.size)) {
        return MESH_MALFORMED;
    }
    rest = cut(rest, text ? end + 1 : end);
    if (rest.size > 0 && rest.data[0] != ' ') {
        return MESH_MALFORMED;
    }
    parsed.text = rest.size > 0 ? cut(rest, 1) : rest;
    if (parsed.text.size == 0) {
        parsed.kind = CLIENT_IRC_SKIP;
    }
    *out = parsed;
    return MESH_OK;
}

/* ---- ids ---- */

static bool plain(uint8_t c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '-';
}

mesh_err client_irc_id(mesh_slice nick, char out[MESH_ID_MAX + 1])
{
    static const char digits[] = "0123456789abcdef";
    char id[MESH_ID_MAX + 1];
    size_t n = 0;
    if (nick.size == 0) {
        return MESH_MALFORMED;
    }
    for (size_t i = 0; i < nick.size; i++) {
        uint8_t c = nick.data[i];
        if (n + (plain(c) ? 1 : 3) > MESH_ID_MAX) {
            return MESH_TOO_BIG;
        }
        if (plain(c)) {
            id[n++] = (char)c;
        } else {
            id[n++] = '.';
            id[n++] = digits[c >> 4];
            id[n++] = digits[c & 15];
        }
    }
    id[n] = '\0';
    memcpy(out, id, n + 1);
    return MESH_OK;
}

static int hex(char c)
{
    if (c >= '0' && c <= '9') {
        return c - '0';
    }
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

mesh_err client_irc_nick(const char *id, char out[MESH_ID_MAX + 1])
{
    char nick[MESH_ID_MAX + 1];
    size_t n = 0;
    if (id[0] == '\0' || strlen(id) > MESH_ID_MAX) {
        return MESH_MALFORMED;
    }
    for (const char *p = id; *p; p++) {
        if (plain((uint8_t)*p)) {
            nick[n++] = *p;
            continue;
        }
        int high = *p == '.' ? hex(p[1]) : -1;
        int low = high >= 0 ? hex(p[2]) : -1;
        if (low < 0 || plain((uint8_t)(high << 4 | low))) {
            return MESH_MALFORMED;
        }
        nick[n++] = (char)(high << 4 | low);
        p += 2;
    }
    nick[n] = '\0';
    memcpy(out, nick, n + 1);
    return MESH_OK;
}

/* ---- a log ---- */

typedef struct nick_user {
    size_t user;
    char nick[CLIENT_IRC_NICK_MAX + 1]; /* its own: entries move while the log grows */
} nick_user;

typedef struct reader {
    client_irc_log log;
    size_t users_cap;
    size_t entries_cap;
    mesh_table *first; /* first nick -> nick_user */
    mesh_table *live;  /* nick in use -> nick_user */
} reader;

static void set_nick(mesh_table *nicks, const char *nick, size_t user)
{
    nick_user *n = mesh_table_get(nicks, mesh_table_str(nick));
    if (!n) {
        n = mesh_alloc(sizeof *n);
        snprintf(n->nick, sizeof n->nick, "%s", nick);
        mesh_table_put(nicks, mesh_table_str(n->nick), n);
    }
    n->user = user;
}

static mesh_err add_user(reader *r, const char *nick, size_t *user_p)
{
    client_irc_user user = { .id = "" };
    mesh_err err = client_irc_id((mesh_slice){ (const uint8_t *)nick, strlen(nick) }, user.id);
    if (err != MESH_OK) {
        return err;
    }
    snprintf(user.nick, sizeof user.nick, "%s", nick);
    client_irc_log *log = &r->log;
    if (log->n_users == r->users_cap) {
        r->users_cap = r->users_cap ? 2 * r->users_cap : 64;
        log->users = mesh_realloc(log->users, r->users_cap * sizeof *log->users);
    }
    *user_p = log->n_users;
    log->users[log->n_users++] = user;
    set_nick(r->first, nick, *user_p);
    return MESH_OK;
}

static mesh_err who_is(reader *r, const char *nick, size_t *user_p)
{
    const nick_user *known = mesh_table_get(r->live, mesh_table_str(nick));
    if (!known) {
        known = mesh_table_get(r->first, mesh_table_str(nick));
    }
    mesh_err err = MESH_OK;
    if (known) {
        *user_p = known->user;
    } else {
        err = add_user(r, nick, user_p);
    }
    if (err == MESH_OK) {
        set_nick(r->live, nick, *user_p);
    }
    return err;
}

static mesh_err nick_string(mesh_slice nick, char out[CLIENT_IRC_NICK_MAX + 1])
{
    if (nick.size == 0 || nick.size > CLIENT_IRC_NICK_MAX) {
        return nick.size ? MESH_TOO_BIG : MESH_MALFORMED;
    }
    memcpy(out, nick.data, nick.size);
    out[nick.size] = '\0';
    return MESH_OK;
}

static mesh_err add_line(reader *r, const client_irc_line *line)
{
    client_irc_log *log = &r->log;
    if (line->kind == CLIENT_IRC_SKIP) {
        log->skipped++;
        return MESH_OK;
    }
    client_irc_entry entry = { .kind = line->kind };
    mesh_err err = nick_string(line->nick, entry.nick);
    if (err == MESH_OK) {
        err = who_is(r, entry.nick, &entry.user);
    }
    if (err == MESH_OK && line->kind == CLIENT_IRC_RENAME) {
        free(mesh_table_remove(r->live, mesh_table_str(entry.nick)));
        err = nick_string(line->text, entry.nick);
    }
    if (err != MESH_OK) {
        return err;
    }
    if (line->kind == CLIENT_IRC_RENAME) {
        set_nick(r->live, entry.nick, entry.user);
        log->renames++;
    } else {
        entry.text = mesh_alloc(line->text.size + 1);
        memcpy(entry.text, line->text.data, line->text.size);
        log->lines++;
    }
    if (log->n_entries == r->entries_cap) {
        r->entries_cap = r->entries_cap ? 2 * r->entries_cap : 1024;
        log->entries = mesh_realloc(log->entries, r->entries_cap * sizeof *log->entries);
    }
    log->entries[log->n_entries++] = entry;
    return MESH_OK;
}

static mesh_err read_lines(reader *r, mesh_slice bytes, char *why, size_t why_size)
{
    for (size_t n = 1; bytes.size > 0; n++) {
        size_t end = find(bytes, "\n");
        mesh_slice text = { bytes.data, end };
        bytes = end < bytes.size ? cut(bytes, end + 1) : cut(bytes, end);
        if (text.size == 0) {
            continue;
        }
        const char *what = "is not valid UTF-8";
        mesh_err err = MESH_MALFORMED;
        client_irc_line line;
        if (mesh_utf8_valid(text.data, text.size, NULL) && !memchr(text.data, 0, text.size)) {
            what = "has no form of an IRC log";
            err = client_irc_parse(text, &line);
        }
        if (err == MESH_OK) {
            what = "has a nick that is too long for an id";
            err = add_line(r, &line);
        }
        if (err != MESH_OK) {
            snprintf(why, why_size, "line %zu %s", n, what);
            return MESH_MALFORMED;
        }
    }
    return MESH_OK;
}

static void nicks_destroy(mesh_table **nicks_p)
{
    for (nick_user *n; (n = mesh_table_take(*nicks_p));) {
        free(n);
    }
    mesh_table_destroy(nicks_p);
}

mesh_err client_irc_read(mesh_slice bytes, client_irc_log *log, char *why, size_t why_size)
{
    reader r = { .first = mesh_table_new(NULL), .live = mesh_table_new(NULL) };
    mesh_err err = read_lines(&r, bytes, why, why_size);
    nicks_destroy(&r.first);
    nicks_destroy(&r.live);
    if (err == MESH_OK) {
        *log = r.log;
    } else {
        client_irc_fini(&r.log);
    }
    return err;
}

mesh_err client_irc_load(const char *path, client_irc_log *log, char *why, size_t why_size)
{
    FILE *file = fopen(path, "rb");
    if (!file) {
        snprintf(why, why_size, "%s", strerror(errno));
        return MESH_IO;
    }
    mesh_buf bytes = { 0 };
    mesh_err err = MESH_OK;
    for (;;) {
        size_t n = fread(mesh_buf_grow(&bytes, 65536), 1, 65536, file);
        bytes.size -= 65536 - n;
        if (n == 0) {
            break;
        }
        if (bytes.size > CLIENT_IRC_FILE_MAX) {
            snprintf(why, why_size, "larger than %u MiB", CLIENT_IRC_FILE_MAX >> 20);
            err = MESH_TOO_BIG;
            break;
        }
    }
    if (err == MESH_OK && ferror(file)) {
        snprintf(why, why_size, "reading failed");
        err = MESH_IO;
    }
    fclose(file);
    if (err == MESH_OK) {
        err = client_irc_read(mesh_buf_slice(&bytes), log, why, why_size);
    }
    mesh_buf_fini(&bytes);
    return err;
}

void client_irc_fini(client_irc_log *log)
{
    for (size_t i = 0; i < log->n_entries; i++) {
        free(log->entries[i].text);
    }
    free(log->entries);
    free(log->users);
    *log = (client_irc_log){ 0 };
}
