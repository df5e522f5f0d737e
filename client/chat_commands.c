/* client/chat_commands.c: what can be typed, and the pages that are shown. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/chat_priv.h"
#include "client/term.h"
#include "mesh/alloc.h"

#define OPEN_PAGE 20
#define PEOPLE_MAX 1000

/* ---- pages and members ---- */

void client_chat_show_page(client_chat *chat, const Client__Page *page, bool only_new)
{
    client_room *room = client_chat_room(chat, page->chat);
    uint64_t low = room->low, high = room->high;
    for (size_t i = 0; i < page->n_messages; i++) {
        const Client__Message *m = page->messages[i];
        bool own = mesh_table_get(chat->own, mesh_table_str(m->client_msg_id)) != NULL;
        bool shown = own || (high > 0 && m->seq >= low);
        if (!only_new || !shown) {
            client_chat_show(chat, room, m, only_new ? "" : "| ");
        }
        if (only_new && high == 0) {
            room->low = room->high ? room->low : m->seq;
            room->high = m->seq;
        }
        if (only_new && strcmp(chat->open, room->id) == 0) {
            room->to_read = m->seq > room->to_read ? m->seq : room->to_read;
        }
    }
    if (only_new && high > 0 && page->n_messages > 0 && page->messages[0]->seq < low) {
        room->low = page->messages[0]->seq;
    }
    if (!only_new) {
        client_chat_say(chat, page->has_more ? "| (more before this)" : "| (the beginning)");
    }
}

void client_chat_show_members(client_chat *chat, const Client__MemberList *list)
{
    static const char *const roles[] = { "none", "owner", "admin", "member" };
    for (size_t i = 0; i < list->n_members; i++) {
        unsigned role = (unsigned)list->members[i]->role;
        client_chat_say(chat, "  @%s  %s", list->members[i]->user, role < 4 ? roles[role] : "?");
    }
    if (list->has_more) {
        client_chat_say(chat, "  ... and more");
    }
}

/* ---- asking ---- */

static void request(client_chat *chat, Client__Request *r, client_ask_kind kind, const char *text, const char *msg_id)
{
    uint64_t id;
    mesh_err err = client_session_request(chat->session, r, &id);
    if (err != MESH_OK) {
        client_chat_say(chat, "! not sent (%s): %s", err == MESH_FULL ? "too much is waiting" : "closed", text);
        return;
    }
    client_ask *ask = client_chat_ask(chat, kind, id, text);
    snprintf(ask->msg_id, sizeof ask->msg_id, "%s", msg_id);
    if (kind == CLIENT_ASK_SEND) {
        if (!mesh_table_get(chat->own, mesh_table_str(msg_id))) {
            char *copy = mesh_strdup(msg_id);
            mesh_table_put(chat->own, mesh_table_str(copy), copy);
        }
        snprintf(ask->peer, sizeof ask->peer, "%s", chat->open[0] ? "" : chat->open_peer);
    }
}

static void ask_page(client_chat *chat, const char *id, uint32_t limit, client_ask_kind kind)
{
    Client__History history = CLIENT__HISTORY__INIT;
    history.chat = (char *)id;
    history.limit = limit;
    Client__Request r = CLIENT__REQUEST__INIT;
    r.body_case = CLIENT__REQUEST__BODY_HISTORY;
    r.history = &history;
    request(chat, &r, kind, "", "");
}

void client_chat_open(client_chat *chat, client_room *room)
{
    snprintf(chat->open, sizeof chat->open, "%s", room->id);
    chat->open_peer[0] = '\0';
    client_chat_say(chat, "-- %s --", room->name);
}

static bool need_open(client_chat *chat)
{
    if (!chat->open[0]) {
        client_chat_say(chat, "! no chat is open (/list, /open CHAT or /open @user)");
    }
    return chat->open[0] != '\0';
}

static void send_text(client_chat *chat, const char *text)
{
    if (!chat->open[0] && !chat->open_peer[0]) {
        need_open(chat);
        return;
    }
    char msg_id[33];
    client_session_msg_id(chat->session, msg_id);
    Client__Send send = CLIENT__SEND__INIT;
    send.chat = chat->open;
    send.to = chat->open[0] ? (char *)"" : chat->open_peer;
    send.client_msg_id = msg_id;
    send.body = (char *)text;
    Client__Request r = CLIENT__REQUEST__INIT;
    r.body_case = CLIENT__REQUEST__BODY_SEND;
    r.send = &send;
    request(chat, &r, CLIENT_ASK_SEND, text, msg_id);
}

/* ---- commands: each gets the rest of its line ---- */

static bool cmd_list(client_chat *chat, char *rest)
{
    (void)rest;
    client_chat_ask_list(chat, 0);
    return true;
}

static client_room *find_room(client_chat *chat, const char *what)
{
    client_room *room = mesh_table_get(chat->rooms, mesh_table_str(what));
    char *end;
    unsigned long number = strtoul(what, &end, 10);
    if (!room && *end == '\0' && number >= 1 && number <= chat->n_listed) {
        room = client_chat_room(chat, chat->listed[number - 1]);
    }
    for (client_room *r = mesh_table_first(chat->rooms); r && !room; r = mesh_table_next(chat->rooms)) {
        bool peer = what[0] == '@' && strcmp(r->peer, what + 1) == 0;
        if (peer || (what[0] != '@' && strcmp(r->name, what) == 0)) {
            room = r;
        }
    }
    return room;
}

static bool cmd_open(client_chat *chat, char *rest)
{
    client_room *room = find_room(chat, rest);
    if (room) {
        client_chat_open(chat, room);
        ask_page(chat, room->id, OPEN_PAGE, CLIENT_ASK_OPEN);
    } else if (rest[0] == '@' && mesh_id_valid(rest + 1)) {
        chat->open[0] = '\0';
        snprintf(chat->open_peer, sizeof chat->open_peer, "%s", rest + 1);
        client_chat_say(chat, "-- %s --", rest);
    } else if (mesh_id_valid(rest)) { /* not in the list, but it may be there */
        ask_page(chat, rest, OPEN_PAGE, CLIENT_ASK_OPEN);
        client_chat_open(chat, client_chat_room(chat, rest));
    } else {
        client_chat_say(chat, "! /open CHAT, /open @user or /open NUMBER of the list");
    }
    return true;
}

/* The @names in text; they point into it. What is before the first is left in text, without blanks at its end. */
static size_t take_people(char *text, char *people[PEOPLE_MAX])
{
    size_t n = 0;
    char *first = strchr(text, '@');
    if (!first) {
        return 0;
    }
    char *state = NULL;
    for (char *word = strtok_r(first, " ", &state); word && n < PEOPLE_MAX; word = strtok_r(NULL, " ", &state)) {
        people[n++] = word[0] == '@' ? word + 1 : word;
    }
    *first = '\0';
    for (size_t end = strlen(text); end > 0 && text[end - 1] == ' '; end--) {
        text[end - 1] = '\0';
    }
    return n;
}

static bool people_valid(client_chat *chat, char **people, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (!mesh_id_valid(people[i])) {
            client_chat_say(chat, "! '%s' is no user id", people[i]);
            return false;
        }
    }
    return true;
}

static bool cmd_new(client_chat *chat, char *rest)
{
    char *people[PEOPLE_MAX];
    size_t n = take_people(rest, people);
    if (!rest[0]) {
        client_chat_say(chat, "! /new NAME @user @user ...");
    } else if (people_valid(chat, people, n)) {
        char msg_id[33];
        client_session_msg_id(chat->session, msg_id);
        Client__ChatCreate create = CLIENT__CHAT_CREATE__INIT;
        create.client_msg_id = msg_id;
        create.name = rest;
        create.members = people;
        create.n_members = n;
        Client__Request r = CLIENT__REQUEST__INIT;
        r.body_case = CLIENT__REQUEST__BODY_CHAT_CREATE;
        r.chat_create = &create;
        request(chat, &r, CLIENT_ASK_NEW, rest, msg_id);
    }
    return true;
}

/* Of the open chat. 0: it was said what is wrong. */
static size_t people_of_open(client_chat *chat, char *rest, char *people[PEOPLE_MAX], const char *command)
{
    size_t n = take_people(rest, people);
    if (n == 0) {
        client_chat_say(chat, "! %s @user ...", command);
    }
    return n > 0 && need_open(chat) && people_valid(chat, people, n) ? n : 0;
}

static bool cmd_add(client_chat *chat, char *rest)
{
    char *people[PEOPLE_MAX];
    char msg_id[33];
    Client__ChatAdd add = CLIENT__CHAT_ADD__INIT;
    add.n_members = people_of_open(chat, rest, people, "/add");
    if (add.n_members > 0) {
        client_session_msg_id(chat->session, msg_id);
        add.chat = chat->open;
        add.client_msg_id = msg_id;
        add.members = people;
        Client__Request r = CLIENT__REQUEST__INIT;
        r.body_case = CLIENT__REQUEST__BODY_CHAT_ADD;
        r.chat_add = &add;
        request(chat, &r, CLIENT_ASK_EDIT, "/add", msg_id);
    }
    return true;
}

static bool cmd_remove(client_chat *chat, char *rest)
{
    char *people[PEOPLE_MAX];
    char msg_id[33];
    Client__ChatRemove remove = CLIENT__CHAT_REMOVE__INIT;
    remove.n_members = people_of_open(chat, rest, people, "/remove");
    if (remove.n_members > 0) {
        client_session_msg_id(chat->session, msg_id);
        remove.chat = chat->open;
        remove.client_msg_id = msg_id;
        remove.members = people;
        Client__Request r = CLIENT__REQUEST__INIT;
        r.body_case = CLIENT__REQUEST__BODY_CHAT_REMOVE;
        r.chat_remove = &remove;
        request(chat, &r, CLIENT_ASK_EDIT, "/remove", msg_id);
    }
    return true;
}

static bool cmd_leave(client_chat *chat, char *rest)
{
    (void)rest;
    if (need_open(chat)) {
        char msg_id[33];
        client_session_msg_id(chat->session, msg_id);
        Client__ChatLeave leave = CLIENT__CHAT_LEAVE__INIT;
        leave.chat = chat->open;
        leave.client_msg_id = msg_id;
        Client__Request r = CLIENT__REQUEST__INIT;
        r.body_case = CLIENT__REQUEST__BODY_CHAT_LEAVE;
        r.chat_leave = &leave;
        request(chat, &r, CLIENT_ASK_EDIT, "/leave", msg_id);
    }
    return true;
}

static bool cmd_rename(client_chat *chat, char *rest)
{
    if (!rest[0]) {
        client_chat_say(chat, "! /rename NAME");
    } else if (need_open(chat)) {
        char msg_id[33];
        client_session_msg_id(chat->session, msg_id);
        Client__ChatUpdate update = CLIENT__CHAT_UPDATE__INIT;
        update.chat = chat->open;
        update.client_msg_id = msg_id;
        update.name = rest;
        Client__Request r = CLIENT__REQUEST__INIT;
        r.body_case = CLIENT__REQUEST__BODY_CHAT_UPDATE;
        r.chat_update = &update;
        request(chat, &r, CLIENT_ASK_EDIT, "/rename", msg_id);
    }
    return true;
}

static bool cmd_who(client_chat *chat, char *rest)
{
    (void)rest;
    if (need_open(chat)) {
        Client__Members members = CLIENT__MEMBERS__INIT;
        members.chat = chat->open;
        Client__Request r = CLIENT__REQUEST__INIT;
        r.body_case = CLIENT__REQUEST__BODY_MEMBERS;
        r.members = &members;
        request(chat, &r, CLIENT_ASK_WHO, "", "");
    }
    return true;
}

static bool cmd_history(client_chat *chat, char *rest)
{
    long n = rest[0] ? strtol(rest, NULL, 10) : 50;
    if (n < 1 || n > 200) {
        client_chat_say(chat, "! /history N, from 1 to 200");
    } else if (need_open(chat)) {
        ask_page(chat, chat->open, (uint32_t)n, CLIENT_ASK_HISTORY);
    }
    return true;
}

static bool cmd_name(client_chat *chat, char *rest)
{
    if (!rest[0]) {
        client_chat_say(chat, "! /name NAME");
        return true;
    }
    Client__Profile profile = CLIENT__PROFILE__INIT;
    profile.name = rest;
    Client__Request r = CLIENT__REQUEST__INIT;
    r.body_case = CLIENT__REQUEST__BODY_PROFILE;
    r.profile = &profile;
    request(chat, &r, CLIENT_ASK_NAME, rest, "");
    return true;
}

static bool cmd_quit(client_chat *chat, char *rest)
{
    (void)chat;
    (void)rest;
    return false;
}

static bool cmd_help(client_chat *chat, char *rest);

static const struct {
    const char *name;
    bool (*run)(client_chat *chat, char *rest);
    const char *help;
} commands[] = {
    { "list", cmd_list, "/list                  your chats" },
    { "open", cmd_open, "/open CHAT|@user|N     talk there: what you type is sent to it" },
    { "new", cmd_new, "/new NAME @a @b        make a group" },
    { "add", cmd_add, "/add @u ...            add to the open group" },
    { "remove", cmd_remove, "/remove @u ...         remove from it" },
    { "leave", cmd_leave, "/leave                 leave it" },
    { "rename", cmd_rename, "/rename NAME           name it" },
    { "who", cmd_who, "/who                   its members" },
    { "history", cmd_history, "/history [N]           its last N entries" },
    { "name", cmd_name, "/name NAME             your own display name" },
    { "help", cmd_help, "//text                 send text that begins with /" },
    { "quit", cmd_quit, "/quit                  leave the program" },
};
#define COMMANDS (sizeof commands / sizeof *commands)

static bool cmd_help(client_chat *chat, char *rest)
{
    (void)rest;
    for (size_t i = 0; i < COMMANDS; i++) {
        client_chat_say(chat, "  %s", commands[i].help);
    }
    return true;
}

bool client_chat_line(client_chat *chat, const char *typed)
{
    if (typed[0] == '\0') {
        return true;
    }
    if (typed[0] != '/' || typed[1] == '/') {
        send_text(chat, typed + (typed[0] == '/'));
        return true;
    }
    char *line = mesh_strdup(typed + 1);
    char *rest = line + strcspn(line, " ");
    if (*rest) {
        *rest++ = '\0';
        rest += strspn(rest, " ");
    }
    bool go_on = true;
    size_t i = 0;
    while (i < COMMANDS && strcmp(commands[i].name, line) != 0) {
        i++;
    }
    if (i < COMMANDS) {
        go_on = commands[i].run(chat, rest);
    } else {
        client_chat_say(chat, "! there is no /%s (/help)", line);
    }
    free(line);
    return go_on;
}

void client_chat_flush(client_chat *chat)
{
    client_room *room = chat->open[0] ? mesh_table_get(chat->rooms, mesh_table_str(chat->open)) : NULL;
    if (!room || room->to_read <= room->read || client_session_state(chat->session) != CLIENT_READY) {
        return;
    }
    Client__Read mark = CLIENT__READ__INIT;
    mark.chat = room->id;
    mark.seq = room->read = room->to_read;
    Client__Request r = CLIENT__REQUEST__INIT;
    r.body_case = CLIENT__REQUEST__BODY_READ;
    r.read = &mark;
    /* forgotten when it fails: the next one says more */
    mesh_err err = client_session_request(chat->session, &r, NULL);
    (void)err;
}
