/* client/replay_priv.h: shared by client/replay.c (the phases) and client/replay_check.c (what must arrive, and did it)
 * only. */
#ifndef CLIENT_REPLAY_PRIV_H
#define CLIENT_REPLAY_PRIV_H

#include "client/replay.h"
#include "mesh/rand.h"
#include "mesh/table.h"

#define CLIENT_REPLAY_ACTION "text/x-irc-action"

typedef enum client_replay_phase { PHASE_CONNECT, PHASE_CREATE, PHASE_PLAY, PHASE_DONE } client_replay_phase;

typedef struct client_replay_person {
    client_replay *replay;
    client_irc_user user;
    client_conn *conn;
    client_session *session;
    char name[CLIENT_IRC_NICK_MAX + 1]; /* at the server; empty: not set yet */
    char new_name[CLIENT_IRC_NICK_MAX + 1];
    uint64_t profile_id; /* on its way, 0: none */
    unsigned flying;     /* lines on their way */
    bool ready;
} client_replay_person;

typedef struct client_replay_line { /* what every member must get */
    size_t person;
    bool action;
    char nick[CLIENT_IRC_NICK_MAX + 1];
    char *body;
} client_replay_line;

typedef struct client_replay_member {
    client_replay_person *who;
    uint8_t *seen; /* a bit per line */
    size_t next;   /* one above the highest line seen */
    uint64_t seq;  /* highest seq of the chat seen */
} client_replay_member;

typedef struct client_replay_group {
    client_irc_log log;
    size_t *people; /* log's user index -> person index */
    char name[129];
    char chat[MESH_ID_MAX + 1];
    uint64_t create_id;            /* on its way, 0: none */
    client_replay_member *members; /* as log.users */
    size_t next;                   /* entry of the log to send next */
    size_t sent;                   /* lines acked */
    uint64_t send_id;              /* on its way, 0: none */
    uint64_t last_seq;             /* of the last ack */
    size_t next_line;              /* line the next message is */
    client_replay_line *expect;
    size_t n_expect;
} client_replay_group;

struct client_replay {
    client_replay_conf conf;
    client_replay_phase phase;
    mesh_rand rand;
    client_replay_person **people;
    size_t n_people;
    mesh_table *by_id; /* user id -> person */
    client_replay_group *groups;
    size_t n_groups;
    mesh_table *by_chat; /* chat id -> group */
    mesh_ms progress_at;
    mesh_ms play_at;
    uint64_t started; /* lines sent, for the speed */
    uint64_t acks;
    bool moved; /* something came since the last turn */
    client_replay_result result;
    char trouble[200];
};

/* replay.c: remember what went wrong first. */
void client_replay_note(client_replay *r, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* replay_check.c: what must arrive, from the log itself or from a list. Errors: MESH_IO, MESH_MALFORMED; why says which
 * line. */
void client_replay_expect_log(client_replay_group *g);
MESH_MUST mesh_err client_replay_expect_file(client_replay *r, client_replay_group *g, const char *path, char *why,
                                             size_t why_size);
/* A message of the group has arrived at a member's device: is it the right one? */
void client_replay_take(client_replay *r, const client_replay_group *g, client_replay_member *to,
                        const Client__Message *m);

#endif
