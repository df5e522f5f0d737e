/* client/chat_priv.h: shared by client/chat*.c only. */
#ifndef CLIENT_CHAT_PRIV_H
#define CLIENT_CHAT_PRIV_H

#include "client/chat.h"
#include "mesh/table.h"

#define CLIENT_CHAT_LISTED 1000        /* numbers that /open takes */
#define CLIENT_CHAT_AGAIN_MS 2000      /* pause before an incomplete list is asked for again; then twice as long ... */
#define CLIENT_CHAT_AGAIN_MAX_MS 60000 /* ... up to this */

typedef struct client_room { /* a chat as far as it is known here */
    char id[MESH_ID_MAX + 1];
    char peer[MESH_ID_MAX + 1]; /* direct: the other user */
    char *name;                 /* the id until better is known */
    bool direct;
    bool unavailable;   /* when it was listed last */
    uint64_t low, high; /* seqs shown so far, without holes; high 0: none */
    uint64_t to_read;   /* shown in the open chat */
    uint64_t read;      /* told to the server */
} client_room;

typedef enum client_ask_kind {
    CLIENT_ASK_SEND,
    CLIENT_ASK_NEW,
    CLIENT_ASK_EDIT,
    CLIENT_ASK_LIST,
    CLIENT_ASK_AGAIN, /* the same, in silence */
    CLIENT_ASK_OPEN,
    CLIENT_ASK_HISTORY,
    CLIENT_ASK_WHO,
    CLIENT_ASK_NAME
} client_ask_kind;

typedef struct client_ask { /* a request on its way */
    struct client_ask *next;
    client_ask_kind kind;
    uint64_t id;
    char *text; /* what was typed */
    char msg_id[33];
    char peer[MESH_ID_MAX + 1];
} client_ask;

struct client_chat {
    client_chat_conf conf;
    client_session *session;
    char user[MESH_ID_MAX + 1];
    char name[300];
    bool greeted;
    bool listed_once;
    bool offline;
    char open[MESH_ID_MAX + 1];      /* the open chat, empty: none, or a direct one that does not exist yet: */
    char open_peer[MESH_ID_MAX + 1]; /* with this user */
    mesh_table *rooms;               /* id -> client_room */
    mesh_table *own;                 /* client_msg_id of lines whose inbox entry has not come -> its copy */
    client_ask *asks;
    char listed[CLIENT_CHAT_LISTED][MESH_ID_MAX + 1]; /* ids in the order of the last list */
    size_t n_listed;
    size_t n_unavailable; /* of the last list */
    bool asking_again;
    mesh_ms again_at, again_ms; /* 0: not planned */
    mesh_buf line;
};

/* chat.c */
void client_chat_disown(client_chat *chat, const char *msg_id); /* a line of ours is not waited for any more */
mesh_buf *client_chat_begin(client_chat *chat); /* start a line in the chat's buffer; client_chat_end prints it */
void client_chat_end(client_chat *chat);
void client_chat_say(client_chat *chat, const char *format, ...) __attribute__((format(printf, 2, 3)));
client_room *client_chat_room(client_chat *chat, const char *id); /* made when it is not known */
void client_chat_name_room(client_room *room, const char *name);
void client_chat_show(client_chat *chat, const client_room *room, const Client__Message *m, const char *mark);
client_ask *client_chat_ask(client_chat *chat, client_ask_kind kind, uint64_t id, const char *text);

/* chat_commands.c */
void client_chat_open(client_chat *chat, client_room *room);
void client_chat_show_page(client_chat *chat, const Client__Page *page, bool only_new);
void client_chat_show_members(client_chat *chat, const Client__MemberList *list);

/* chat_list.c */
void client_chat_ask_list(client_chat *chat, uint64_t before);
void client_chat_show_list(client_chat *chat, Client__Summary **list, size_t n, bool has_more, bool first);
void client_chat_listed_again(client_chat *chat, const Client__ChatList *list, bool first); /* NULL: refused */

#endif
