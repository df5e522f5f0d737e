/* client/replay.c: the phases: every person's device connects (CONNECT) -> the groups are made (CREATE) -> lines flow
 * (PLAY) -> everything has arrived, or nothing has for too long (DONE). turn() looks at every group and sends what may go;
 * the sessions' callbacks only note what came.
 *
 * A person's display name belongs to the person, not to a group: before a line is sent under another nick, and only when
 * none of the person's lines is on its way in any group, a profile request puts the name right. */
#include "client/replay.h"

#include <assert.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mesh/alloc.h"
#include "mesh/rand.h"
#include "mesh/table.h"

#define ACTION_TYPE "text/x-irc-action"
#define NONE ((size_t)-1)

typedef enum phase { PHASE_CONNECT, PHASE_CREATE, PHASE_PLAY, PHASE_DONE } phase;

typedef struct person {
    client_replay *replay;
    client_irc_user user;
    client_conn *conn;
    client_session *session;
    char name[CLIENT_IRC_NICK_MAX + 1]; /* at the server; empty: not set yet */
    char new_name[CLIENT_IRC_NICK_MAX + 1];
    uint64_t profile_id; /* on its way, 0: none */
    unsigned flying;     /* lines on their way */
    bool ready;
} person;

typedef struct line { /* what every member must get */
    size_t person;
    bool action;
    char nick[CLIENT_IRC_NICK_MAX + 1];
    char *body;
} line;

typedef struct member {
    person *who;
    uint8_t *seen; /* a bit per line */
    size_t next;   /* one above the highest line seen */
    uint64_t seq;  /* highest seq of the chat seen */
} member;

typedef struct channel {
    client_irc_log log; /* emptied once its lines are taken over */
    size_t *people;     /* log's user index -> person index */
    char name[129];
    char chat[MESH_ID_MAX + 1];
    uint64_t create_id; /* on its way, 0: none */
    member *members;    /* as log.users */
    size_t next;        /* entry of the log to send next */
    size_t sent;        /* lines acked */
    uint64_t send_id;   /* on its way, 0: none */
    uint64_t last_seq;  /* of the last ack */
    size_t next_line;   /* line the next message is */
    line *expect;
    size_t n_expect;
} channel;

struct client_replay {
    client_replay_conf conf;
    phase phase;
    mesh_rand rand;
    person **people;
    size_t n_people;
    zhashx_t *by_id; /* user id -> person */
    channel *groups;
    size_t n_groups;
    zhashx_t *by_chat; /* chat id -> channel */
    mesh_ms progress_at;
    mesh_ms play_at;
    uint64_t started; /* lines sent, for the speed */
    uint64_t acks;
    bool moved; /* something came since the last turn */
    client_replay_result result;
    char trouble[200];
};

static void trouble(client_replay *r, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void trouble(client_replay *r, const char *format, ...)
{
    if (!r->trouble[0]) {
        va_list list;
        va_start(list, format);
        vsnprintf(r->trouble, sizeof r->trouble, format, list);
        va_end(list);
    }
}

/* ---- what must arrive ---- */

static void expect_log(channel *g)
{
    g->expect = mesh_alloc((g->log.lines + 1) * sizeof *g->expect);
    for (size_t i = 0; i < g->log.n_entries; i++) {
        const client_irc_entry *e = &g->log.entries[i];
        if (e->kind != CLIENT_IRC_RENAME) {
            line *l = &g->expect[g->n_expect++];
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
static bool expect_row(client_replay *r, channel *g, char *row)
{
    char *cell[5];
    for (size_t i = 0; i < 5; i++) {
        cell[i] = strsep(&row, "\t");
        if (!cell[i]) {
            return false;
        }
    }
    const person *who = zhashx_lookup(r->by_id, cell[1]);
    bool action = strcmp(cell[3], "action") == 0;
    if (row || strtoull(cell[0], NULL, 10) != g->n_expect || g->n_expect >= g->log.lines || !who ||
        strlen(cell[2]) > CLIENT_IRC_NICK_MAX || (!action && strcmp(cell[3], "text") != 0)) {
        return false;
    }
    line l = { .action = action, .body = unhex(cell[4]) };
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

static mesh_err expect_file(client_replay *r, channel *g, const char *path, char *why, size_t why_size)
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

static bool line_same(const client_replay *r, const line *l, const Client__Message *m)
{
    const char *type = l->action ? ACTION_TYPE : "text/plain";
    bool typed = strcmp(m->content_type, type) == 0 || (!l->action && m->content_type[0] == '\0');
    return typed && strcmp(m->body, l->body) == 0 && strcmp(m->sender_name, l->nick) == 0 &&
           strcmp(m->sender, r->people[l->person]->user.id) == 0;
}

static void take_line(client_replay *r, const channel *g, member *to, const Client__Message *m)
{
    const char *dash = strrchr(m->client_msg_id, '-');
    size_t i = dash ? strtoull(dash + 1, NULL, 10) : NONE;
    if (i >= g->n_expect || !line_same(r, &g->expect[i], m)) {
        r->result.changed++;
        trouble(r, "%s got something else as line %zu: seq %llu '%.60s'", to->who->user.id, i,
                (unsigned long long)m->seq, m->body);
        return;
    }
    if (to->seen[i / 8] & (1u << (i % 8))) {
        r->result.doubled++;
        trouble(r, "%s got line %zu twice", to->who->user.id, i);
        return;
    }
    if (i < to->next || m->seq <= to->seq) {
        r->result.reordered++;
        trouble(r, "%s got line %zu (seq %llu) after line %zu (seq %llu)", to->who->user.id, i,
                (unsigned long long)m->seq, to->next, (unsigned long long)to->seq);
    }
    to->seen[i / 8] = (uint8_t)(to->seen[i / 8] | 1u << (i % 8));
    to->next = i + 1 > to->next ? i + 1 : to->next;
    to->seq = m->seq > to->seq ? m->seq : to->seq;
    r->result.deliveries++;
}

static void on_message(void *arg, const Client__Message *m)
{
    person *p = arg;
    client_replay *r = p->replay;
    channel *g = zhashx_lookup(r->by_chat, m->chat);
    r->moved = true;
    if (!g || m->kind != CLIENT__ENTRY_KIND__ENTRY_KIND_TEXT) {
        return;
    }
    for (size_t i = 0; i < g->log.n_users; i++) {
        if (g->members[i].who == p) {
            take_line(r, g, &g->members[i], m);
        }
    }
}

static void on_live(void *arg, const Client__Live *live)
{
    (void)live;
    person *p = arg;
    p->ready = true;
    p->replay->moved = true;
}

static void on_resync(void *arg, const Client__Resync *resync)
{
    (void)resync;
    person *p = arg;
    if (p->ready) {
        trouble(p->replay, "%s had to resync", p->user.id);
    }
}

static void on_state(void *arg, client_state state)
{
    person *p = arg;
    if (state == CLIENT_STOPPED) {
        trouble(p->replay, "%s was turned away: %s", p->user.id, client_session_why(p->session));
        p->replay->phase = PHASE_DONE;
    }
}

/* ---- answers ---- */

static void refused(client_replay *r, const char *what, const Client__Event *event)
{
    const Client__Error *e = event->body_case == CLIENT__EVENT__BODY_ERROR ? event->error : NULL;
    trouble(r, "%s was refused: %s", what, e ? e->message : "another kind of answer came");
    r->phase = PHASE_DONE;
}

static void on_line_acked(client_replay *r, channel *g, person *p, const Client__Event *event)
{
    g->send_id = 0;
    p->flying--;
    if (event->body_case != CLIENT__EVENT__BODY_ACK) {
        refused(r, "a line", event);
        return;
    }
    if (event->ack->seq <= g->last_seq) {
        r->result.reordered++;
        trouble(r, "line %zu has seq %llu, the one before %llu", g->sent, (unsigned long long)event->ack->seq,
                (unsigned long long)g->last_seq);
    }
    g->last_seq = event->ack->seq;
    g->sent++;
    g->next++;
    r->result.lines++;
    r->acks++;
    if (r->conf.cut_every && r->acks % r->conf.cut_every == 0) {
        client_conn_cut(r->people[mesh_rand_below(&r->rand, r->n_people)]->conn);
    }
}

static void on_answer(void *arg, uint64_t id, const Client__Event *event)
{
    person *p = arg;
    client_replay *r = p->replay;
    r->moved = true;
    if (id == p->profile_id) {
        p->profile_id = 0;
        snprintf(p->name, sizeof p->name, "%s", p->new_name);
        if (event->body_case != CLIENT__EVENT__BODY_DONE) {
            refused(r, p->new_name, event);
        }
        return;
    }
    for (size_t i = 0; i < r->n_groups; i++) {
        channel *g = &r->groups[i];
        /* ids are per session */
        if (id == g->create_id && r->people[g->people[0]] == p) {
            g->create_id = 0;
            if (event->body_case != CLIENT__EVENT__BODY_ACK) {
                refused(r, g->name, event);
                return;
            }
            snprintf(g->chat, sizeof g->chat, "%s", event->ack->chat);
            zhashx_update(r->by_chat, g->chat, g);
            return;
        }
        if (id == g->send_id && g->next < g->log.n_entries && r->people[g->people[g->log.entries[g->next].user]] == p) {
            on_line_acked(r, g, p, event);
            return;
        }
    }
}

static const client_handler handler = {
    .state = on_state,
    .message = on_message,
    .resync = on_resync,
    .live = on_live,
    .answer = on_answer,
};

/* ---- asking ---- */

static void create_group(client_replay *r, channel *g)
{
    char msg_id[MESH_ID_MAX + 1];
    snprintf(msg_id, sizeof msg_id, "r%016llx-group%zu", (unsigned long long)r->conf.seed, (size_t)(g - r->groups));
    char **others = mesh_alloc((g->log.n_users + 1) * sizeof *others);
    for (size_t i = 1; i < g->log.n_users; i++) {
        others[i - 1] = r->people[g->people[i]]->user.id;
    }
    Client__ChatCreate create = CLIENT__CHAT_CREATE__INIT;
    create.client_msg_id = msg_id;
    create.name = g->name;
    create.members = others;
    create.n_members = g->log.n_users - 1;
    Client__Request request = CLIENT__REQUEST__INIT;
    request.body_case = CLIENT__REQUEST__BODY_CHAT_CREATE;
    request.chat_create = &create;
    mesh_err err = client_session_request(r->people[g->people[0]]->session, &request, &g->create_id);
    if (err != MESH_OK) {
        trouble(r, "no request is taken: %s", mesh_err_name(err));
        r->phase = PHASE_DONE;
    }
    free(others);
}

/* True: the person's lines go out under this name. */
static bool named(client_replay *r, person *p, const char *name)
{
    if (p->profile_id != 0) {
        return false;
    }
    if (strcmp(p->name, name) == 0) {
        return true;
    }
    if (p->flying > 0) {
        return false;
    }
    Client__Profile profile = CLIENT__PROFILE__INIT;
    snprintf(p->new_name, sizeof p->new_name, "%s", name);
    profile.name = p->new_name;
    Client__Request request = CLIENT__REQUEST__INIT;
    request.body_case = CLIENT__REQUEST__BODY_PROFILE;
    request.profile = &profile;
    if (client_session_request(p->session, &request, &p->profile_id) != MESH_OK) {
        r->phase = PHASE_DONE;
    }
    return false;
}

static void send_line(client_replay *r, channel *g, person *p, const client_irc_entry *e)
{
    char msg_id[MESH_ID_MAX + 1];
    snprintf(msg_id, sizeof msg_id, "r%016llx-%zu-%zu", (unsigned long long)r->conf.seed, (size_t)(g - r->groups), g->next_line);
    Client__Send send = CLIENT__SEND__INIT;
    send.chat = g->chat;
    send.client_msg_id = msg_id;
    send.content_type = e->kind == CLIENT_IRC_ACTION ? (char *)ACTION_TYPE : (char *)"";
    send.body = e->text;
    Client__Request request = CLIENT__REQUEST__INIT;
    request.body_case = CLIENT__REQUEST__BODY_SEND;
    request.send = &send;
    if (client_session_request(p->session, &request, &g->send_id) == MESH_OK) {
        g->next_line++;
        p->flying++;
        r->started++;
    } else {
        r->phase = PHASE_DONE;
    }
}

static void step_group(client_replay *r, channel *g, mesh_ms now)
{
    while (g->send_id == 0 && g->next < g->log.n_entries && r->phase == PHASE_PLAY) {
        const client_irc_entry *e = &g->log.entries[g->next];
        person *p = r->people[g->people[e->user]];
        if (r->conf.speed > 0 && (double)(now - r->play_at) * r->conf.speed / 1000 < (double)r->started) {
            return;
        }
        if (!named(r, p, e->nick)) {
            return;
        }
        if (e->kind == CLIENT_IRC_RENAME) {
            g->next++;
        } else {
            send_line(r, g, p, e);
        }
    }
}

/* ---- phases ---- */

static bool all_ready(const client_replay *r)
{
    for (size_t i = 0; i < r->n_people; i++) {
        if (!r->people[i]->ready) {
            return false;
        }
    }
    return true;
}

static bool all_made(const client_replay *r)
{
    for (size_t i = 0; i < r->n_groups; i++) {
        if (!r->groups[i].chat[0]) {
            return false;
        }
    }
    return true;
}

static uint64_t owed(const client_replay *r)
{
    uint64_t n = 0;
    for (size_t i = 0; i < r->n_groups; i++) {
        n += (uint64_t)r->groups[i].n_expect * r->groups[i].log.n_users;
    }
    return n;
}

static uint64_t all_lines(const client_replay *r)
{
    uint64_t n = 0;
    for (size_t i = 0; i < r->n_groups; i++) {
        n += r->groups[i].n_expect;
    }
    return n;
}

static void step(client_replay *r, mesh_ms now)
{
    if (r->phase == PHASE_CONNECT && all_ready(r)) {
        r->phase = PHASE_CREATE;
        for (size_t i = 0; i < r->n_groups; i++) {
            create_group(r, &r->groups[i]);
        }
    }
    if (r->phase == PHASE_CREATE && all_made(r)) {
        r->phase = PHASE_PLAY;
        r->play_at = now;
    }
    if (r->phase == PHASE_PLAY) {
        for (size_t i = 0; i < r->n_groups; i++) {
            step_group(r, &r->groups[i], now);
        }
        if (r->result.lines == all_lines(r) && r->result.deliveries + r->result.changed >= owed(r)) {
            r->phase = PHASE_DONE;
        }
    }
}

mesh_ms client_replay_turn(client_replay *r, mesh_ms now)
{
    if (r->moved) {
        r->moved = false;
        r->progress_at = now;
    }
    step(r, now);
    if (r->phase != PHASE_DONE && now - r->progress_at > r->conf.patience) {
        trouble(r, "nothing moved for %lld s (%s)", (long long)(r->conf.patience / 1000),
                r->phase == PHASE_CONNECT ? "connecting" : r->phase == PHASE_CREATE ? "making groups" : "playing");
        r->phase = PHASE_DONE;
    }
    if (r->phase == PHASE_PLAY && r->conf.speed > 0) {
        double next = (double)r->started * 1000 / r->conf.speed;
        mesh_ms at = r->play_at + (mesh_ms)ceil(next);
        return at > now ? at : now + 5; /* due already: what it waits for wakes the loop, or soon */
    }
    return now + 100;
}

bool client_replay_done(const client_replay *r)
{
    return r->phase == PHASE_DONE;
}

const char *client_replay_trouble(const client_replay *r)
{
    return r->trouble;
}

client_replay_result client_replay_result_get(const client_replay *r)
{
    client_replay_result result = r->result;
    result.unsent = all_lines(r) - result.lines;
    result.missing = owed(r) - result.deliveries;
    for (size_t i = 0; i < r->n_people; i++) {
        result.reconnects += client_session_counts(r->people[i]->session)->connects - 1;
    }
    return result;
}

/* ---- life ---- */

client_replay *client_replay_new(const client_replay_conf *conf, mesh_ms now)
{
    client_replay *r = mesh_alloc(sizeof *r);
    r->conf = *conf;
    r->rand.state = conf->seed;
    r->by_id = mesh_table_str();
    r->by_chat = mesh_table_str();
    r->progress_at = now;
    return r;
}

static person *add_person(client_replay *r, const client_irc_user *user)
{
    char *token = r->conf.token(r->conf.arg, user->id);
    if (!token) {
        return NULL;
    }
    person *p = mesh_alloc(sizeof *p);
    p->replay = r;
    p->user = *user;
    client_session_conf conf = { .token = token, .device = "replay", .software = "parley replay", .seed = mesh_rand_next(&r->rand) };
    p->conn = client_socket_open(r->conf.socket, &r->conf.url, NULL, &conf, &handler, p);
    p->session = client_conn_session(p->conn);
    free(token);
    r->people = mesh_realloc(r->people, (r->n_people + 1) * sizeof *r->people);
    r->people[r->n_people++] = p;
    zhashx_update(r->by_id, p->user.id, p);
    return p;
}

static size_t person_index(client_replay *r, const client_irc_user *user)
{
    const person *p = zhashx_lookup(r->by_id, user->id);
    if (!p) {
        return add_person(r, user) ? r->n_people - 1 : NONE;
    }
    size_t i = 0;
    while (r->people[i] != p) {
        i++;
    }
    return i;
}

mesh_err client_replay_add(client_replay *r, client_irc_log *log, const char *name, const char *expect, char *why, size_t why_size)
{
    r->groups = mesh_realloc(r->groups, (r->n_groups + 1) * sizeof *r->groups);
    channel *g = &r->groups[r->n_groups++];
    *g = (channel){ .log = *log };
    *log = (client_irc_log){ 0 };
    snprintf(g->name, sizeof g->name, "%s", name);
    g->people = mesh_alloc((g->log.n_users + 1) * sizeof *g->people);
    g->members = mesh_alloc((g->log.n_users + 1) * sizeof *g->members);
    for (size_t i = 0; i < g->log.n_users; i++) {
        g->people[i] = person_index(r, &g->log.users[i]);
        if (g->people[i] == NONE) {
            snprintf(why, why_size, "no token for %s", g->log.users[i].id);
            return MESH_MALFORMED;
        }
        g->members[i].who = r->people[g->people[i]];
        g->members[i].seen = mesh_alloc(g->log.lines / 8 + 1);
    }
    if (g->log.lines == 0) {
        snprintf(why, why_size, "there is no message in it");
        return MESH_MALFORMED;
    }
    if (expect) {
        return expect_file(r, g, expect, why, why_size);
    }
    expect_log(g);
    return MESH_OK;
}

static void group_fini(channel *g)
{
    for (size_t i = 0; i < g->n_expect; i++) {
        free(g->expect[i].body);
    }
    for (size_t i = 0; i < g->log.n_users; i++) {
        free(g->members[i].seen);
    }
    free(g->expect);
    free(g->members);
    free(g->people);
    client_irc_fini(&g->log);
}

void client_replay_destroy(client_replay **r_p)
{
    client_replay *r = *r_p;
    if (!r) {
        return;
    }
    for (size_t i = 0; i < r->n_groups; i++) {
        group_fini(&r->groups[i]);
    }
    for (size_t i = 0; i < r->n_people; i++) {
        client_conn_close(&r->people[i]->conn);
        free(r->people[i]);
    }
    zhashx_destroy(&r->by_id);
    zhashx_destroy(&r->by_chat);
    free(r->people);
    free(r->groups);
    free(r);
    *r_p = NULL;
}
