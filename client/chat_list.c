/* client/chat_list.c: the list of chats: asked for page by page, shown, and asked for again in silence as long as the
 * server could not tell something of all of them. */
#include <stdio.h>
#include <string.h>

#include "client/chat_priv.h"
#include "client/term.h"

static void ask_page(client_chat *chat, client_ask_kind kind, uint64_t before)
{
    Client__Chats chats = CLIENT__CHATS__INIT;
    chats.before = before;
    chats.limit = 100;
    Client__Request request = CLIENT__REQUEST__INIT;
    request.body_case = CLIENT__REQUEST__BODY_CHATS;
    request.chats = &chats;
    uint64_t id;
    if (client_session_request(chat->session, &request, &id) == MESH_OK) {
        client_chat_ask(chat, kind, id, before ? "more" : "");
        chat->asking_again = chat->asking_again || kind == CLIENT_ASK_AGAIN;
    }
}

void client_chat_ask_list(client_chat *chat, uint64_t before)
{
    ask_page(chat, CLIENT_ASK_LIST, before);
}

/* Where the next page goes on. */
static uint64_t least_of(Client__Summary *const *list, size_t n)
{
    uint64_t least = 0;
    for (size_t i = 0; i < n; i++) {
        least = least == 0 || list[i]->inbox_seq < least ? list[i]->inbox_seq : least;
    }
    return least;
}

/* What is known of it now. True: it was not before. */
static bool learn(client_chat *chat, const Client__Summary *summary)
{
    client_room *room = client_chat_room(chat, summary->chat);
    bool news = room->unavailable && !summary->unavailable;
    room->unavailable = summary->unavailable;
    if (summary->unavailable) { /* it keeps the name that it had */
        chat->n_unavailable++;
        return false;
    }
    room->direct = summary->kind == CLIENT__CHAT_KIND__CHAT_KIND_DIRECT;
    if (room->direct && summary->peer[0]) {
        char name[MESH_ID_MAX + 2];
        snprintf(name, sizeof name, "@%s", summary->peer);
        client_chat_name_room(room, name);
        snprintf(room->peer, sizeof room->peer, "%s", summary->peer);
    } else {
        client_chat_name_room(room, summary->name);
    }
    return news;
}

/* ---- shown ---- */

static void put_last(mesh_buf *line, const Client__Message *last)
{
    char when[6];
    client_term_time(last->ts_ms, when);
    mesh_buf_printf(line, "  %s ", when);
    client_term_clean(last->sender_name[0] ? last->sender_name : last->sender, NULL, line);
    if (last->kind == CLIENT__ENTRY_KIND__ENTRY_KIND_TEXT) {
        char start[61]; /* cut between characters */
        size_t n = strnlen(last->body, sizeof start - 1);
        while (last->body[n] && n > 0 && ((unsigned char)last->body[n] & 0xc0) == 0x80) {
            n--;
        }
        memcpy(start, last->body, n);
        start[n] = '\0';
        mesh_buf_puts(line, ": ");
        client_term_clean(start, NULL, line);
        mesh_buf_puts(line, last->body[n] ? "..." : "");
    }
}

static void put_chat(mesh_buf *line, const client_room *room, const Client__Summary *summary)
{
    client_term_clean(room->name, NULL, line);
    if (summary->unread) {
        mesh_buf_printf(line, " (%llu new)", (unsigned long long)summary->unread);
    }
    if (summary->last) {
        put_last(line, summary->last);
    }
    mesh_buf_puts(line, summary->unavailable ? "  (not available now)" : "");
}

void client_chat_show_list(client_chat *chat, Client__Summary **list, size_t n, bool has_more, bool first)
{
    if (first) {
        chat->n_listed = 0;
        chat->n_unavailable = 0;
        client_chat_say(chat, n ? "chats:" : "(no chats yet: /open @user or /new NAME @user @user)");
    }
    for (size_t i = 0; i < n; i++) {
        (void)learn(chat, list[i]);
        const client_room *room = client_chat_room(chat, list[i]->chat);
        mesh_buf *line = client_chat_begin(chat);
        if (chat->n_listed < CLIENT_CHAT_LISTED) {
            snprintf(chat->listed[chat->n_listed++], sizeof chat->listed[0], "%s", room->id);
            mesh_buf_printf(line, "%3zu  ", chat->n_listed);
        } else {
            mesh_buf_puts(line, "  -  ");
        }
        put_chat(line, room, list[i]);
        client_chat_end(chat);
    }
    chat->listed_once = true;
    uint64_t least = least_of(list, n);
    if (has_more && least > 0) {
        client_chat_ask_list(chat, least);
    }
}

/* ---- again ---- */

void client_chat_listed_again(client_chat *chat, const Client__ChatList *list, bool first)
{
    chat->asking_again = false;
    if (list == NULL) {
        return; /* refused */
    }
    chat->n_unavailable = first ? 0 : chat->n_unavailable;
    for (size_t i = 0; i < list->n_chats; i++) {
        if (learn(chat, list->chats[i])) {
            mesh_buf *line = client_chat_begin(chat);
            mesh_buf_puts(line, "(available again: ");
            put_chat(line, client_chat_room(chat, list->chats[i]->chat), list->chats[i]);
            mesh_buf_puts(line, ")");
            client_chat_end(chat);
        }
    }
    uint64_t least = least_of(list->chats, list->n_chats);
    if (list->has_more && least > 0) {
        ask_page(chat, CLIENT_ASK_AGAIN, least);
    }
}

mesh_ms client_chat_turn(client_chat *chat, mesh_ms now)
{
    if (chat->n_unavailable == 0) {
        chat->again_at = chat->again_ms = 0;
        return MESH_NEVER;
    }
    if (chat->asking_again || client_session_state(chat->session) != CLIENT_READY) {
        return MESH_NEVER; /* there is a turn when that changes */
    }
    if (chat->again_at == 0) {
        chat->again_ms = chat->again_ms == 0 ? CLIENT_CHAT_AGAIN_MS : chat->again_ms * 2;
        chat->again_ms = chat->again_ms < CLIENT_CHAT_AGAIN_MAX_MS ? chat->again_ms : CLIENT_CHAT_AGAIN_MAX_MS;
        chat->again_at = now + chat->again_ms;
    }
    if (now < chat->again_at) {
        return chat->again_at;
    }
    chat->again_at = 0;
    ask_page(chat, CLIENT_ASK_AGAIN, 0);
    return MESH_NEVER;
}
