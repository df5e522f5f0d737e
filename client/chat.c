/* client/chat.c: the model of the terminal client: chats, which is open, what is on its way. Commands are in
 * client/chat_commands.c; both share client/chat_priv.h.
 *
 * Once: the session tells every inbox entry once. One's own lines are shown when their ack comes, so their inbox entry
 * is not shown again (own); a page shown by /open leaves out what was shown before, and an entry that comes after such
 * a page already showed it is not repeated (low, high: the seqs of a chat shown so far, without holes). */
#include "client/chat.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/chat_priv.h"
#include "client/term.h"
#include "mesh/alloc.h"
#include "mesh/table.h"

client_chat *client_chat_new(const client_chat_conf *conf)
{
    client_chat *chat = mesh_alloc(sizeof *chat);
    chat->conf = *conf;
    chat->rooms = mesh_table_new(NULL);
    chat->own = mesh_table_new(NULL);
    return chat;
}

void client_chat_destroy(client_chat **chat_p)
{
    client_chat *chat = *chat_p;
    if (!chat) {
        return;
    }
    for (client_room *room; (room = mesh_table_take(chat->rooms));) {
        free(room->name);
        free(room);
    }
    for (char *id; (id = mesh_table_take(chat->own));) {
        free(id);
    }
    mesh_table_destroy(&chat->rooms);
    mesh_table_destroy(&chat->own);
    while (chat->asks) {
        client_ask *next = chat->asks->next;
        free(chat->asks->text);
        free(chat->asks);
        chat->asks = next;
    }
    mesh_buf_fini(&chat->line);
    free(chat);
    *chat_p = NULL;
}

void client_chat_set_session(client_chat *chat, client_session *session)
{
    chat->session = session;
}

/* ---- printing ---- */

mesh_buf *client_chat_begin(client_chat *chat)
{
    mesh_buf_clear(&chat->line);
    return &chat->line;
}

void client_chat_end(client_chat *chat)
{
    mesh_buf_put(&chat->line, "\n", 2); /* with its NUL */
    chat->conf.print(chat->conf.arg, (const char *)chat->line.data);
}

void client_chat_say(client_chat *chat, const char *format, ...)
{
    char text[600];
    va_list list;
    va_start(list, format);
    vsnprintf(text, sizeof text, format, list);
    va_end(list);
    mesh_buf *line = client_chat_begin(chat);
    client_term_clean(text, NULL, line);
    client_chat_end(chat);
}

void client_chat_disown(client_chat *chat, const char *msg_id)
{
    free(mesh_table_remove(chat->own, mesh_table_str(msg_id)));
}

/* ---- rooms ---- */

client_room *client_chat_room(client_chat *chat, const char *id)
{
    client_room *room = mesh_table_get(chat->rooms, mesh_table_str(id));
    if (!room) {
        room = mesh_alloc(sizeof *room);
        snprintf(room->id, sizeof room->id, "%s", id);
        room->name = mesh_strdup(id);
        mesh_table_put(chat->rooms, mesh_table_str(room->id), room);
    }
    return room;
}

void client_chat_name_room(client_room *room, const char *name)
{
    if (name[0]) {
        char *copy = mesh_strdup(name);
        free(room->name);
        room->name = copy;
    }
}

/* ---- messages ---- */

static const char *author(const Client__Message *m)
{
    return m->sender_name[0] ? m->sender_name : m->sender;
}

static void put_users(mesh_buf *line, const Client__Message *m)
{
    for (size_t i = 0; i < m->n_users; i++) {
        mesh_buf_puts(line, i ? ", " : "");
        client_term_clean(m->users[i], NULL, line);
    }
}

static void put_event(mesh_buf *line, const Client__Message *m)
{
    mesh_buf_puts(line, "-- ");
    client_term_clean(author(m), NULL, line);
    switch ((int)m->kind) {
    case CLIENT__ENTRY_KIND__ENTRY_KIND_CREATED:
        mesh_buf_puts(line, " made this chat: ");
        client_term_clean(m->name, NULL, line);
        break;
    case CLIENT__ENTRY_KIND__ENTRY_KIND_ADDED:
        mesh_buf_puts(line, " added ");
        put_users(line, m);
        break;
    case CLIENT__ENTRY_KIND__ENTRY_KIND_REMOVED:
        mesh_buf_puts(line, " removed ");
        put_users(line, m);
        break;
    case CLIENT__ENTRY_KIND__ENTRY_KIND_LEFT:
        mesh_buf_puts(line, " left");
        break;
    case CLIENT__ENTRY_KIND__ENTRY_KIND_RENAMED:
        mesh_buf_puts(line, " named this chat ");
        client_term_clean(m->name, NULL, line);
        break;
    default:
        mesh_buf_puts(line, " did something this version does not know");
        break;
    }
}

void client_chat_show(client_chat *chat, const client_room *room, const Client__Message *m, const char *mark)
{
    mesh_buf *line = client_chat_begin(chat);
    char when[6];
    client_term_time(m->ts_ms, when);
    mesh_buf_printf(line, "%s%s ", mark, when);
    if (strcmp(room->id, chat->open) != 0) {
        mesh_buf_puts(line, "[");
        client_term_clean(room->name, NULL, line);
        mesh_buf_puts(line, "] ");
    }
    if (m->kind == CLIENT__ENTRY_KIND__ENTRY_KIND_TEXT) {
        bool action = strcmp(m->content_type, "text/x-irc-action") == 0;
        mesh_buf_puts(line, action ? "* " : "");
        client_term_clean(author(m), NULL, line);
        mesh_buf_puts(line, action ? " " : ": ");
        client_term_clean(m->body, "      ", line);
        for (size_t i = 0; i < m->n_attachments; i++) {
            mesh_buf_puts(line, "\n      attached: ");
            client_term_clean(m->attachments[i]->name, NULL, line);
            mesh_buf_puts(line, " ");
            client_term_clean(m->attachments[i]->ref, NULL, line);
        }
    } else {
        put_event(line, m);
    }
    client_chat_end(chat);
}

/* One's own line, when it is on the server's disk. */
static void show_sent(client_chat *chat, const client_ask *ask, const Client__Sent *sent)
{
    const client_room *room = client_chat_room(chat, sent->chat);
    mesh_buf *line = client_chat_begin(chat);
    char when[6];
    client_term_time(sent->ts_ms, when);
    mesh_buf_printf(line, "%s ", when);
    if (chat->conf.tty) {
        mesh_buf_puts(line, "\xe2\x9c\x93");
    } else {
        if (strcmp(room->id, chat->open) != 0) {
            mesh_buf_puts(line, "[");
            client_term_clean(room->name, NULL, line);
            mesh_buf_puts(line, "] ");
        }
        client_term_clean(chat->name[0] ? chat->name : chat->user, NULL, line);
        mesh_buf_puts(line, ": ");
        client_term_clean(ask->text, "      ", line);
        mesh_buf_puts(line, " \xe2\x9c\x93");
    }
    client_chat_end(chat);
}

static void on_message(void *arg, const Client__Message *m)
{
    client_chat *chat = arg;
    client_room *room = client_chat_room(chat, m->chat);
    bool membership = m->kind == CLIENT__ENTRY_KIND__ENTRY_KIND_CREATED ||
                      m->kind == CLIENT__ENTRY_KIND__ENTRY_KIND_ADDED ||
                      m->kind == CLIENT__ENTRY_KIND__ENTRY_KIND_RENAMED;
    if (membership && m->chat_kind != CLIENT__CHAT_KIND__CHAT_KIND_DIRECT) {
        client_chat_name_room(room, m->name);
    } else if (strncmp(m->chat, "d:", 2) == 0 && !room->direct && strcmp(m->sender, chat->user) != 0) {
        char name[MESH_ID_MAX + 2];
        room->direct = true;
        snprintf(room->peer, sizeof room->peer, "%s", m->sender);
        snprintf(name, sizeof name, "@%s", m->sender);
        client_chat_name_room(room, name);
    }
    bool own = mesh_table_get(chat->own, mesh_table_str(m->client_msg_id)) && strcmp(m->sender, chat->user) == 0;
    bool shown = own || (m->seq >= room->low && m->seq <= room->high);
    if (own) {
        client_chat_disown(chat, m->client_msg_id);
    }
    if (m->seq > room->high) {
        room->low = room->high ? room->low : m->seq;
        room->high = m->seq;
    }
    if (!shown) {
        client_chat_show(chat, room, m, "");
    }
    if (strcmp(chat->open, m->chat) == 0 && strcmp(m->sender, chat->user) != 0) {
        room->to_read = m->seq;
    }
    if (chat->conf.stored) {
        chat->conf.stored(chat->conf.arg, client_session_cursor(chat->session));
    }
}

/* ---- other news ---- */

static void on_state(void *arg, client_state state)
{
    client_chat *chat = arg;
    const char *why = client_session_why(chat->session);
    if (state == CLIENT_HELLO && chat->conf.hello) {
        chat->conf.hello(chat->conf.arg, client_session_attempt(chat->session));
    }
    if (state == CLIENT_WAITING && !chat->offline) {
        chat->offline = true;
        client_chat_say(chat, "(offline: %s; trying again)", why);
    } else if (state == CLIENT_STOPPED && client_session_stop_code(chat->session) != 1000) {
        client_chat_say(chat, "(the server said no: %s)", why);
    }
}

static void on_welcome(void *arg, const Client__Welcome *welcome)
{
    client_chat *chat = arg;
    snprintf(chat->user, sizeof chat->user, "%s", welcome->user);
    snprintf(chat->name, sizeof chat->name, "%s", welcome->name);
    if (!chat->greeted) {
        chat->greeted = true;
        client_chat_say(chat, "(%s%s%s is here; /help lists the commands)", welcome->name,
                        welcome->name[0] ? " as @" : "@", welcome->user);
        if (client_session_cursor(chat->session).known) {
            client_chat_ask_list(chat, 0); /* a known cursor brings no list by itself */
        }
    } else if (chat->offline) {
        client_chat_say(chat, "(online again)");
    }
    chat->offline = false;
}

static void on_resync(void *arg, const Client__Resync *resync)
{
    client_chat *chat = arg;
    client_chat_show_list(chat, resync->chats, resync->n_chats, resync->has_more, true);
    if (chat->conf.stored) {
        chat->conf.stored(chat->conf.arg, client_session_cursor(chat->session));
    }
}

client_ask *client_chat_ask(client_chat *chat, client_ask_kind kind, uint64_t id, const char *text)
{
    client_ask *ask = mesh_alloc(sizeof *ask);
    ask->kind = kind;
    ask->id = id;
    ask->text = mesh_strdup(text);
    client_ask **end = &chat->asks;
    while (*end) {
        end = &(*end)->next;
    }
    *end = ask;
    return ask;
}

static client_ask *take_ask(client_chat *chat, uint64_t id)
{
    for (client_ask **p = &chat->asks; *p; p = &(*p)->next) {
        if ((*p)->id == id) {
            client_ask *ask = *p;
            *p = ask->next;
            return ask;
        }
    }
    return NULL;
}

static void on_sent(client_chat *chat, const client_ask *ask, const Client__Sent *sent)
{
    client_room *room = client_chat_room(chat, sent->chat);
    if (ask->kind == CLIENT_ASK_NEW) {
        client_chat_name_room(room, ask->text);
        client_chat_open(chat, room);
        return;
    }
    if (ask->kind != CLIENT_ASK_SEND) {
        return; /* of an edit: its entry comes through the inbox */
    }
    if (ask->peer[0] && strcmp(room->name, room->id) == 0) {
        char name[MESH_ID_MAX + 2];
        room->direct = true;
        snprintf(room->peer, sizeof room->peer, "%s", ask->peer);
        snprintf(name, sizeof name, "@%s", ask->peer);
        client_chat_name_room(room, name);
    }
    if (ask->peer[0] && strcmp(chat->open_peer, ask->peer) == 0 && !chat->open[0]) {
        snprintf(chat->open, sizeof chat->open, "%s", room->id);
    }
    show_sent(chat, ask, sent);
}

static void on_answer(void *arg, uint64_t id, const Client__Event *event)
{
    client_chat *chat = arg;
    client_ask *ask = take_ask(chat, id);
    if (!ask) {
        return;
    }
    switch ((int)event->body_case) {
    case CLIENT__EVENT__BODY_ERROR:
        if (ask->kind == CLIENT_ASK_AGAIN) {
            client_chat_listed_again(chat, NULL, true);
            break;
        }
        client_chat_disown(chat, ask->msg_id);
        client_chat_say(chat, "! %s (%s)%s%s", event->error->message, event->error->name, ask->text[0] ? ": " : "",
                        ask->text);
        break;
    case CLIENT__EVENT__BODY_ACK:
        on_sent(chat, ask, event->ack);
        break;
    case CLIENT__EVENT__BODY_CHATS:
        if (ask->kind == CLIENT_ASK_AGAIN) {
            client_chat_listed_again(chat, event->chats, ask->text[0] == '\0');
            break;
        }
        client_chat_show_list(chat, event->chats->chats, event->chats->n_chats, event->chats->has_more,
                              ask->text[0] == '\0');
        break;
    case CLIENT__EVENT__BODY_PAGE:
        client_chat_show_page(chat, event->page, ask->kind == CLIENT_ASK_OPEN);
        break;
    case CLIENT__EVENT__BODY_MEMBERS:
        client_chat_show_members(chat, event->members);
        break;
    case CLIENT__EVENT__BODY_DONE:
        if (ask->kind == CLIENT_ASK_NAME) {
            snprintf(chat->name, sizeof chat->name, "%s", ask->text);
            client_chat_say(chat, "(you are now %s)", ask->text);
        }
        break;
    default:
        break;
    }
    free(ask->text);
    free(ask);
}

const client_handler *client_chat_handler(void)
{
    static const client_handler handler = {
        .state = on_state,
        .welcome = on_welcome,
        .message = on_message,
        .resync = on_resync,
        .answer = on_answer,
    };
    return &handler;
}

bool client_chat_busy(const client_chat *chat, char next)
{
    if (!chat->greeted || !chat->listed_once) {
        return true;
    }
    for (const client_ask *ask = chat->asks; ask; ask = ask->next) {
        if (ask->kind != CLIENT_ASK_AGAIN && (ask->kind != CLIENT_ASK_SEND || !chat->open[0] || next == '/')) {
            return true;
        }
    }
    return false;
}
