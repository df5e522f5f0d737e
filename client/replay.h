/* client/replay.h: plays IRC logs as the people in them, and checks at every member's device that every line arrives
 * once, in order, byte for byte. Each log is one group of all its people; a person in several logs is one user. The
 * next line of a log is sent when the one before is acked, so that the chat's order must be the file's; logs run side
 * by side. */
#ifndef CLIENT_REPLAY_H
#define CLIENT_REPLAY_H

#include "client/irc.h"
#include "client/socket.h"

typedef struct client_replay client_replay;

typedef struct client_replay_conf {
    client_socket *socket; /* borrowed for the replay's life */
    client_url url;
    /* A token for a user, to be freed; NULL: none, which ends the replay. */
    char *(*token)(void *arg, const char *user);
    void *arg;
    uint64_t seed;      /* of ids: two replays with the same seed are the same requests */
    double speed;       /* lines a second over all logs, 0 = as fast as acks come */
    unsigned cut_every; /* break a random device's connection after every so many acks; 0 = never */
    mesh_ms patience;   /* without any progress for this long the rest counts as missing */
} client_replay_conf;

typedef struct client_replay_result {
    uint64_t lines;      /* acked */
    uint64_t unsent;     /* never acked */
    uint64_t deliveries; /* right ones */
    uint64_t missing;
    uint64_t doubled;
    uint64_t reordered;
    uint64_t changed; /* arrived with another body, sender, name or kind; missing as well */
    uint64_t reconnects;
} client_replay_result;

/* Create and begin to connect. */
client_replay *client_replay_new(const client_replay_conf *conf, mesh_ms now);
void client_replay_destroy(client_replay **replay_p);
/* Before the first turn: play log (taken) in a group of this name. expect: what the devices must get, as written by
 * scripts/irc-list.mjs, NULL: what the log itself says. why tells the line that is wrong.
 * Errors: MESH_MALFORMED expect is no such list, or not of this log. */
MESH_MUST mesh_err client_replay_add(client_replay *replay, client_irc_log *log, const char *name, const char *expect,
                                     char *why, size_t why_size);
/* Returns when to call again at the latest. */
mesh_ms client_replay_turn(client_replay *replay, mesh_ms now);
bool client_replay_done(const client_replay *replay);
client_replay_result client_replay_result_get(const client_replay *replay);
const char *client_replay_trouble(const client_replay *replay); /* what went wrong first; empty: nothing */

#endif
