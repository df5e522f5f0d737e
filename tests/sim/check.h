/* tests/sim/check.h: what the checker has found out from outside: each user's whole inbox, each user's view of each
 * chat's history, and the chats put together from these. */
#ifndef TESTS_SIM_CHECK_H
#define TESTS_SIM_CHECK_H

#include "tests/sim/impl.h"

#define SIM_CHECK_USERS 64

typedef struct check_view { /* one user's history of one chat */
    size_t user;
    uint64_t oldest, last;
    const Client__Message **entries; /* ascending */
    size_t n;
} check_view;

typedef struct check_chat {
    char id[72];
    bool from_join;
    const Client__Message **entries; /* entries[seq - 1]; NULL: nobody could read it */
    size_t n;
    bool *entitled[SIM_CHECK_USERS]; /* [user][seq - 1] */
    bool member[SIM_CHECK_USERS];    /* at the end */
    check_view *views;
    size_t n_views;
} check_chat;

typedef struct check {
    sim *s;
    const char *users[SIM_CHECK_USERS];
    sim_client *reader[SIM_CHECK_USERS]; /* a fresh device that has read the inbox from its first entry */
    size_t n_users;
    check_chat *chats;
    size_t n_chats;
} check;

check_chat *sim_check_chat(check *k, const char *id); /* NULL: nobody knows it */
/* check_read.c: gather all of it through fresh clients. False: could not. */
bool sim_check_read(check *k);
void sim_check_fini(check *k);
void sim_check_list(check *k, size_t user);                       /* check_list.c: what `chats` says to this user */
bool sim_check_named(const Client__Message *m, const char *user); /* is among the entry's users */

#endif
