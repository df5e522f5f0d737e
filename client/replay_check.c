#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/replay_priv.h"
#include "mesh/alloc.h"

#define NONE ((size_t)-1)

/* ---- what must arrive ---- */

void client_replay_expect_log(client_replay_group *g)
{
    g->expect = mesh_alloc((g->log.lines + 1) * sizeof *g->expect);
    for (size_t i = 0; i < g->log.n_entries; i++) {
        const client_irc_entry *e = &g->log.entries[i];
        if (e->kind != CLIENT_IRC_RENAME) {
            client_replay_line *l = &g->expect[g->n_expect++];
            l->person = g->people[e->user];
            l->action = e->kind == CLIENT_IRC_ACTION;
            snprintf(l->nick, sizeof l->nick, "%s", e->nick);
            l->body = mesh_strdup(e->text);
        }
    }
}

static char *unhex(const char *hex)
{
    size_t n = strlen(hex);
    char *out = mesh_alloc(n / 2 + 1);
    for (size_t i = 0; i + 1 < n; i += 2) {
        unsigned byte;
        if (sscanf(hex + i, "%2x", &byte) != 1 || byte == 0) {
            free(out);
            return NULL;
        }
        out[i / 2] = (char)byte;
    }
    return out;
}

/* index TAB user TAB name TAB kind TAB hex */
static bool expect_row(client_replay *r, client_replay_group *g, char *row)
{
    char *cell[5];
    for (size_t i = 0; i < 5; i++) {
        cell[i] = strsep(&row, "\t");
        if (!cell[i]) {
            return false;
        }
    }
    const client_replay_person *who = mesh_table_get(r->by_id, mesh_table_str(cell[1]));
    bool action = strcmp(cell[3], "action") == 0;
    if (row || strtoull(cell[0], NULL, 10) != g->n_expect || g->n_expect >= g->log.lines || !who ||
        strlen(cell[2]) > CLIENT_IRC_NICK_MAX || (!action && strcmp(cell[3], "text") != 0)) {
        return false;
    }
    client_replay_line l = { .action = action, .body = unhex(cell[4]) };
    snprintf(l.nick, sizeof l.nick, "%s", cell[2]);
    for (size_t i = 0; i < r->n_people; i++) {
        l.person = r->people[i] == who ? i : l.person;
    }
    if (!l.body) {
        return false;
    }
    g->expect[g->n_expect++] = l;
    return true;
}

mesh_err client_replay_expect_file(client_replay *r, client_replay_group *g, const char *path, char *why,
                                   size_t why_size)
{
    FILE *file = fopen(path, "re");
    char *row = NULL;
    size_t cap = 0;
    ssize_t n;
    mesh_err err = file ? MESH_OK : MESH_IO;
    g->expect = mesh_alloc((g->log.lines + 1) * sizeof *g->expect);
    while (err == MESH_OK && (n = getline(&row, &cap, file)) > 0) {
        row[n - (row[n - 1] == '\n')] = '\0';
        if (!expect_row(r, g, row)) {
            snprintf(why, why_size, "%s: line %zu is not of this log", path, g->n_expect + 1);
            err = MESH_MALFORMED;
        }
    }
    if (!file) {
        snprintf(why, why_size, "%s: %s", path, strerror(errno));
    } else if (err == MESH_OK && g->n_expect != g->log.lines) {
        snprintf(why, why_size, "%s has %zu lines, the log has %zu messages", path, g->n_expect, g->log.lines);
        err = MESH_MALFORMED;
    }
    free(row);
    if (file) {
        fclose(file);
    }
    return err;
}

/* ---- what arrives ---- */

static bool line_same(const client_replay *r, const client_replay_line *l, const Client__Message *m)
{
    const char *type = l->action ? CLIENT_REPLAY_ACTION : "text/plain";
    bool typed = strcmp(m->content_type, type) == 0 || (!l->action && m->content_type[0] == '\0');
    return typed && strcmp(m->body, l->body) == 0 && strcmp(m->sender_name, l->nick) == 0 &&
           strcmp(m->sender, r->people[l->person]->user.id) == 0;
}

void client_replay_take(client_replay *r, const client_replay_group *g, client_replay_member *to,
                        const Client__Message *m)
{
    const char *dash = strrchr(m->client_msg_id, '-');
    size_t i = dash ? strtoull(dash + 1, NULL, 10) : NONE;
    if (i >= g->n_expect || !line_same(r, &g->expect[i], m)) {
        r->result.changed++;
        client_replay_note(r, "%s got something else as line %zu: seq %llu '%.60s'", to->who->user.id, i,
                           (unsigned long long)m->seq, m->body);
        return;
    }
    if (to->seen[i / 8] & (1u << (i % 8))) {
        r->result.doubled++;
        client_replay_note(r, "%s got line %zu twice", to->who->user.id, i);
        return;
    }
    if (i < to->next || m->seq <= to->seq) {
        r->result.reordered++;
        client_replay_note(r, "%s got line %zu (seq %llu) after line %zu (seq %llu)", to->who->user.id, i,
                           (unsigned long long)m->seq, to->next, (unsigned long long)to->seq);
    }
    to->seen[i / 8] = (uint8_t)(to->seen[i / 8] | 1u << (i % 8));
    to->next = i + 1 > to->next ? i + 1 : to->next;
    to->seq = m->seq > to->seq ? m->seq : to->seq;
    r->result.deliveries++;
}
