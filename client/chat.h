/* client/chat.h: what `parley chat` shows and does, apart from terminal and socket: a line typed in -> requests to the
 * session; what the session tells -> text to print. Every message is shown once, whatever happened to connections. */
#ifndef CLIENT_CHAT_H
#define CLIENT_CHAT_H

#include "client/session.h"
#include "mesh/id.h"

typedef struct client_chat client_chat;

typedef struct client_chat_conf {
    bool tty;                                        /* a person is typing: the typed line is on the screen already */
    void (*print)(void *arg, const char *text);      /* whole lines */
    void (*stored)(void *arg, client_cursor cursor); /* everything up to here was printed; may be NULL */
    void (*hello)(void *arg, uint64_t attempt);      /* a hello of this number is about to be said; may be NULL */
    void *arg;
} client_chat_conf;

client_chat *client_chat_new(const client_chat_conf *conf);
void client_chat_destroy(client_chat **chat_p);

/* The calls to give to the session, with the chat as arg. */
const client_handler *client_chat_handler(void);
void client_chat_set_session(client_chat *chat, client_session *session); /* borrowed; before the first line */

/* One line typed, without its newline. False: /quit. */
bool client_chat_line(client_chat *chat, const char *line);
/* What was typed last has to be answered before the next line, which begins with next, makes sense: a new chat, a name.
 */
bool client_chat_busy(const client_chat *chat, char next);
/* After each turn: tells the server what has been read. */
void client_chat_flush(client_chat *chat);
/* After each turn: asks again for what the last list of chats could not tell, with growing pauses. Returns when it
 * wants the next turn at the latest. */
mesh_ms client_chat_turn(client_chat *chat, mesh_ms now);

#endif
