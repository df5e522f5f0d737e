/* client/irc.h: IRC channel logs, as plain data: who said what, in which order.
 *
 *   [HH:MM] <nick> text           a message
 *   [HH:MM] * nick text           an action
 *   === nick is now known as new  a rename
 *   === anything else             joins, parts, topics: counted and skipped; so is a message without text
 *
 * A person is a user with one id for the whole log, made from the first nick they are seen with; the nick they use at
 * the time is their display name. A rename moves the nick's person to the new nick, whoever had it before. A nick
 * nobody has at the time belongs to the person first seen with it, else to a new one. scripts/irc-list.mjs says the
 * same, separately. */
#ifndef CLIENT_IRC_H
#define CLIENT_IRC_H

#include <czmq.h>

#include "mesh/buf.h"
#include "mesh/err.h"
#include "mesh/id.h"

#define CLIENT_IRC_NICK_MAX 64 /* bytes */
#define CLIENT_IRC_FILE_MAX (64u << 20)

typedef enum client_irc_kind { CLIENT_IRC_TEXT, CLIENT_IRC_ACTION, CLIENT_IRC_RENAME, CLIENT_IRC_SKIP } client_irc_kind;

typedef struct client_irc_line { /* borrowed from the line */
    client_irc_kind kind;
    mesh_slice nick;
    mesh_slice text; /* of a rename: the new nick */
} client_irc_line;

/* One line without its newline. Errors: MESH_MALFORMED not a form above. */
MESH_MUST mesh_err client_irc_parse(mesh_slice line, client_irc_line *out);

/* The id of a nick: each byte outside [A-Za-z0-9_-] becomes ".hh"; and back.
 * Errors: MESH_TOO_BIG the id would pass MESH_ID_MAX bytes; MESH_MALFORMED empty, or not such an id. */
MESH_MUST mesh_err client_irc_id(mesh_slice nick, char out[MESH_ID_MAX + 1]);
MESH_MUST mesh_err client_irc_nick(const char *id, char out[MESH_ID_MAX + 1]);

typedef struct client_irc_user {
    char id[MESH_ID_MAX + 1];
    char nick[CLIENT_IRC_NICK_MAX + 1]; /* the first */
} client_irc_user;

typedef struct client_irc_entry {
    client_irc_kind kind;               /* TEXT, ACTION or RENAME */
    size_t user;                        /* index */
    char nick[CLIENT_IRC_NICK_MAX + 1]; /* the display name from here on */
    char *text;                         /* NULL for a rename */
} client_irc_entry;

typedef struct client_irc_log {
    client_irc_user *users;
    size_t n_users;
    client_irc_entry *entries; /* in the file's order */
    size_t n_entries;
    size_t lines; /* entries that are messages or actions */
    size_t renames;
    size_t skipped;
} client_irc_log;

/* Errors: MESH_IO, MESH_TOO_BIG, MESH_MALFORMED (not UTF-8, a NUL, an unknown form, a nick that makes no id); why says
 * where. */
MESH_MUST mesh_err client_irc_load(const char *path, client_irc_log *log, char *why, size_t why_size);
/* The same from memory. */
MESH_MUST mesh_err client_irc_read(mesh_slice bytes, client_irc_log *log, char *why, size_t why_size);
void client_irc_fini(client_irc_log *log);

#endif
