/* client/replay.c: the phases: every person's device connects (CONNECT) -> the groups are made (CREATE) -> lines flow
 * (PLAY) -> everything has arrived, or nothing has for too long (DONE). turn() looks at every group and sends what may
 * go; the sessions' callbacks only note what came.
 *
 * A person's display name belongs to the person, not to a group: before a line is sent under another nick, and only
 * when none of the person's lines is on its way in any group, a profile request puts the name right. */
#include "client/replay.h"

#include <assert.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/replay_priv.h"
#include "mesh/alloc.h"
#include "mesh/table.h"

#define NONE ((size_t)-1)

void client_replay_note(client_replay *r, const char *format, ...)
{
    if (!r->trouble[0]) {
        va_list list;
        va_start(list, format);
        vsnprintf(r->trouble, sizeof r->trouble, format, list);
        va_end(list);
    }
}

static void on_message(void *arg, const Client__Message *m)
{
    client_replay_person *p = arg;
    client_replay *r = p->replay;
    client_replay_group *g = mesh_table_get(r->by_chat, mesh_table_str(m->chat));
    r->moved = true;
    if (!g || m->kind != CLIENT__ENTRY_KIND__ENTRY_KIND_TEXT) {
        return;
    }
    for (size_t i = 0; i < g->log.n_users; i++) {
        if (g->members[i].who == p) {
            client_replay_take(r, g, &g->members[i], m);
        }
    }
}

static void on_live(void *arg, const Client__Live *live)
{
    (void)live;
    client_replay_person *p = arg;
    p->ready = true;
    p->replay->moved = true;
}

static void on_resync(void *arg, const Client__Resync *resync)
{
    (void)resync;
    client_replay_person *p = arg;
    if (p->ready) {
        client_replay_note(p->replay, "%s had to resync", p->user.id);
    }
}

static void on_state(void *arg, client_state state)
{
    client_replay_person *p = arg;
    if (state == CLIENT_STOPPED) {
        client_replay_note(p->replay, "%s was turned away: %s", p->user.id, client_session_why(p->session));
        p->replay->phase = PHASE_DONE;
    }
}

/* ---- answers ---- */

static void refused(client_replay *r, const char *what, const Client__Event *event)
{
    const Client__Error *e = event->body_case == CLIENT__EVENT__BODY_ERROR ? event->error : NULL;
    client_replay_note(r, "%s was refused: %s", what, e ? e->message : "another kind of answer came");
    r->phase = PHASE_DONE;
}

static void on_line_acked(client_replay *r, client_replay_group *g, client_replay_person *p, const Client__Event *event)
{
    g->send_id = 0;
    p->flying--;
    if (event->body_case != CLIENT__EVENT__BODY_ACK) {
        refused(r, "a line", event);
        return;
    }
    if (event->ack->seq <= g->last_seq) {
        r->result.reordered++;
        client_replay_note(r, "line %zu has seq %llu, the one before %llu", g->sent,
                           (unsigned long long)event->ack->seq, (unsigned long long)g->last_seq);
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
    client_replay_person *p = arg;
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
        client_replay_group *g = &r->groups[i];
        /* ids are per session */
        if (id == g->create_id && r->people[g->people[0]] == p) {
            g->create_id = 0;
            if (event->body_case != CLIENT__EVENT__BODY_ACK) {
                refused(r, g->name, event);
                return;
            }
            snprintf(g->chat, sizeof g->chat, "%s", event->ack->chat);
            if (!mesh_table_get(r->by_chat, mesh_table_str(g->chat))) {
                mesh_table_put(r->by_chat, mesh_table_str(g->chat), g);
            }
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

static void create_group(client_replay *r, client_replay_group *g)
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
        client_replay_note(r, "no request is taken: %s", mesh_err_name(err));
        r->phase = PHASE_DONE;
    }
    free(others);
}

/* True: the person's lines go out under this name. */
static bool named(client_replay *r, client_replay_person *p, const char *name)
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

static void send_line(client_replay *r, client_replay_group *g, client_replay_person *p, const client_irc_entry *e)
{
    char msg_id[MESH_ID_MAX + 1];
    snprintf(msg_id, sizeof msg_id, "r%016llx-%zu-%zu", (unsigned long long)r->conf.seed, (size_t)(g - r->groups),
             g->next_line);
    Client__Send send = CLIENT__SEND__INIT;
    send.chat = g->chat;
    send.client_msg_id = msg_id;
    send.content_type = e->kind == CLIENT_IRC_ACTION ? (char *)CLIENT_REPLAY_ACTION : (char *)"";
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

static void step_group(client_replay *r, client_replay_group *g, mesh_ms now)
{
    while (g->send_id == 0 && g->next < g->log.n_entries && r->phase == PHASE_PLAY) {
        const client_irc_entry *e = &g->log.entries[g->next];
        client_replay_person *p = r->people[g->people[e->user]];
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
        client_replay_note(r, "nothing moved for %lld s (%s)", (long long)(r->conf.patience / 1000),
                           r->phase == PHASE_CONNECT  ? "connecting"
                           : r->phase == PHASE_CREATE ? "making groups"
                                                      : "playing");
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
    r->by_id = mesh_table_new_seeded(conf->seed);
    r->by_chat = mesh_table_new_seeded(conf->seed);
    r->progress_at = now;
    return r;
}

static client_replay_person *add_person(client_replay *r, const client_irc_user *user)
{
    char *token = r->conf.token(r->conf.arg, user->id);
    if (!token) {
        return NULL;
    }
    client_replay_person *p = mesh_alloc(sizeof *p);
    p->replay = r;
    p->user = *user;
    client_session_conf conf = { .token = token,
                                 .device = "replay",
                                 .software = "parley replay",
                                 .attempt = (uint64_t)mesh_clock_now().wall,
                                 .seed = mesh_rand_next(&r->rand) };
    p->conn = client_socket_open(r->conf.socket, &r->conf.url, NULL, &conf, &handler, p);
    p->session = client_conn_session(p->conn);
    free(token);
    r->people = mesh_realloc(r->people, (r->n_people + 1) * sizeof *r->people);
    r->people[r->n_people++] = p;
    mesh_table_put(r->by_id, mesh_table_str(p->user.id), p);
    return p;
}

static size_t person_index(client_replay *r, const client_irc_user *user)
{
    const client_replay_person *p = mesh_table_get(r->by_id, mesh_table_str(user->id));
    if (!p) {
        return add_person(r, user) ? r->n_people - 1 : NONE;
    }
    size_t i = 0;
    while (r->people[i] != p) {
        i++;
    }
    return i;
}

mesh_err client_replay_add(client_replay *r, client_irc_log *log, const char *name, const char *expect, char *why,
                           size_t why_size)
{
    r->groups = mesh_realloc(r->groups, (r->n_groups + 1) * sizeof *r->groups);
    client_replay_group *g = &r->groups[r->n_groups++];
    *g = (client_replay_group){ .log = *log };
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
        return client_replay_expect_file(r, g, expect, why, why_size);
    }
    client_replay_expect_log(g);
    return MESH_OK;
}

static void group_fini(client_replay_group *g)
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
    mesh_table_destroy(&r->by_id);
    mesh_table_destroy(&r->by_chat);
    free(r->people);
    free(r->groups);
    free(r);
    *r_p = NULL;
}
