/* tests/sim/check_read.c: find out what the mesh holds, the way any client could: a fresh device for every user reads
 * the whole inbox, then the whole history of every chat it heard of. */
#include "tests/sim/check.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ANSWER_MS 10000

static void add_user(check *k, const char *user)
{
    size_t i = 0;
    while (i < k->n_users && strcmp(k->users[i], user) != 0) {
        i++;
    }
    if (i == k->n_users && *user) {
        assert(i < SIM_CHECK_USERS);
        k->users[k->n_users++] = user;
    }
}

/* Everybody with a client, and everybody somebody spoke of. */
static void find_users(check *k)
{
    for (sim_client *c = k->s->clients; c; c = c->next) {
        add_user(k, c->user);
    }
    for (const sim_op *op = k->s->ops; op; op = op->next_all) {
        const Client__Request *r = op->request;
        bool create = r->body_case == CLIENT__REQUEST__BODY_CHAT_CREATE;
        bool add = r->body_case == CLIENT__REQUEST__BODY_CHAT_ADD;
        size_t n = create ? r->chat_create->n_members : add ? r->chat_add->n_members : 0;
        for (size_t i = 0; i < n; i++) {
            add_user(k, create ? r->chat_create->members[i] : r->chat_add->members[i]);
        }
        if (r->body_case == CLIENT__REQUEST__BODY_SEND) {
            add_user(k, r->send->to);
        }
    }
}

static bool all_live(const check *k)
{
    for (size_t i = 0; i < k->n_users; i++) {
        if (!sim_live(k->reader[i])) {
            return false;
        }
    }
    return true;
}

/* Readers have been there from the start, or else go back to it: a cursor of 0 asks for everything. */
static bool read_inboxes(check *k)
{
    for (sim_client *c = k->s->clients; c; c = c->next) {
        for (size_t i = 0; strcmp(c->device, SIM_READER) == 0 && i < k->n_users; i++) {
            if (strcmp(k->users[i], c->user) == 0) {
                k->reader[i] = c;
            }
        }
    }
    for (size_t i = 0; i < k->n_users; i++) {
        if (!k->reader[i]) {
            k->reader[i] = sim_client_new(k->s, k->users[i], SIM_READER);
            sim_hello(k->reader[i], NULL);
        }
    }
    if (!SIM_WAIT(k->s, ANSWER_MS, all_live(k))) {
        sim_complain(k->s, "a new device does not become live");
        return false;
    }
    for (size_t i = 0; i < k->n_users; i++) {
        sim_client *c = k->reader[i];
        if (c->first > 0) {
            sim_bye(c);
            c->cursor = c->acked = c->first = c->n_got = 0;
            sim_hello(c, NULL);
        }
    }
    if (!SIM_WAIT(k->s, ANSWER_MS, all_live(k))) {
        sim_complain(k->s, "a device that asks for everything does not become live");
        return false;
    }
    for (size_t i = 0; i < k->n_users; i++) {
        const sim_client *c = k->reader[i];
        for (size_t g = 0; g < c->n_got; g++) {
            if (c->got[g].inbox_seq != g + 1) {
                sim_complain(k->s, "%s has inbox entry %" PRIu64 " in place %zu", c->name, c->got[g].inbox_seq, g + 1);
                return false;
            }
        }
    }
    return true;
}

check_chat *sim_check_chat(check *k, const char *id)
{
    for (size_t i = 0; i < k->n_chats; i++) {
        if (strcmp(k->chats[i].id, id) == 0) {
            return &k->chats[i];
        }
    }
    return NULL;
}

static check_chat *add_chat(check *k, const char *id)
{
    check_chat *old = sim_check_chat(k, id);
    if (old) {
        return old;
    }
    k->chats = mesh_realloc(k->chats, (k->n_chats + 1) * sizeof *k->chats);
    check_chat *chat = &k->chats[k->n_chats++];
    *chat = (check_chat){ 0 };
    snprintf(chat->id, sizeof chat->id, "%s", id);
    return chat;
}

static void put_entry(check_view *view, const Client__Message *m)
{
    view->entries = mesh_realloc(view->entries, (view->n + 1) * sizeof *view->entries);
    view->entries[view->n++] = m;
}

static bool read_history(check *k, check_chat *chat, size_t user)
{
    chat->views = mesh_realloc(chat->views, (chat->n_views + 1) * sizeof *chat->views);
    check_view *view = &chat->views[chat->n_views++];
    *view = (check_view){ .user = user };
    sim_client *c = k->reader[user];
    for (uint64_t after = 0;;) {
        unsigned limit = 1 + (unsigned)sim_random(k->s, 200);
        sim_op *op = sim_history(c, chat->id, 0, after, after == 0, limit);
        bool answered = SIM_WAIT(k->s, ANSWER_MS, op->state != OP_WAITING);
        if (!answered || op->state != OP_DONE || op->answer->body_case != CLIENT__EVENT__BODY_PAGE) {
            sim_complain(k->s, "%s cannot read %s: state %d code %u", c->name, chat->id, (int)op->state, op->code);
            return false;
        }
        const Client__Page *page = op->answer->page;
        for (size_t i = 0; i < page->n_messages; i++) {
            if (page->messages[i]->seq <= after || strcmp(page->messages[i]->chat, chat->id) != 0) {
                sim_complain(k->s, "%s asked for %s after %" PRIu64 ", got %s %" PRIu64, c->name, chat->id, after,
                             page->messages[i]->chat, page->messages[i]->seq);
                return false;
            }
            after = page->messages[i]->seq;
            put_entry(view, page->messages[i]);
        }
        view->oldest = page->oldest_available;
        view->last = page->last_seq;
        if (!page->has_more) {
            return true;
        }
        if (!page->n_messages) {
            sim_complain(k->s, "%s: an empty page of %s says there is more", c->name, chat->id);
            return false;
        }
    }
}

static bool same_entry(const Client__Message *a, const Client__Message *b)
{
    Client__Message x = *a, y = *b;
    x.inbox_seq = y.inbox_seq = x.era = y.era = 0;
    mesh_buf p = { 0 }, q = { 0 };
    mesh_wire_pack(&x, &p);
    mesh_wire_pack(&y, &q);
    bool same = p.size == q.size && memcmp(p.data, q.data, p.size) == 0;
    mesh_buf_fini(&p);
    mesh_buf_fini(&q);
    return same;
}

static void put_together(check *k, check_chat *chat, const Client__Message *m, const char *who)
{
    if (m->seq == 0) {
        sim_complain(k->s, "%s has an entry of %s with seq 0", who, chat->id);
        return;
    }
    if (m->seq > chat->n) {
        chat->entries = mesh_realloc(chat->entries, m->seq * sizeof *chat->entries);
        memset(chat->entries + chat->n, 0, (m->seq - chat->n) * sizeof *chat->entries);
        chat->n = m->seq;
    }
    const Client__Message **at = &chat->entries[m->seq - 1];
    if (!*at) {
        *at = m;
    } else if (!same_entry(*at, m)) {
        sim_complain(k->s, "%s %" PRIu64 " is another entry for %s", chat->id, m->seq, who);
    }
}

bool sim_check_read(check *k)
{
    find_users(k);
    if (!read_inboxes(k)) {
        return false;
    }
    for (size_t u = 0; u < k->n_users; u++) {
        const sim_client *c = k->reader[u];
        for (size_t i = 0; i < c->n_got; i++) {
            add_chat(k, c->got[i].message->chat);
        }
    }
    for (size_t i = 0; i < k->n_chats; i++) {
        check_chat *chat = &k->chats[i];
        for (size_t u = 0; u < k->n_users; u++) {
            const sim_client *c = k->reader[u];
            bool knows = false;
            for (size_t g = 0; g < c->n_got; g++) {
                if (strcmp(c->got[g].message->chat, chat->id) == 0) {
                    put_together(k, chat, c->got[g].message, k->users[u]);
                    knows = true;
                }
            }
            if (knows && !read_history(k, chat, u)) {
                return false;
            }
        }
        for (size_t v = 0; v < chat->n_views; v++) {
            for (size_t e = 0; e < chat->views[v].n; e++) {
                put_together(k, chat, chat->views[v].entries[e], k->users[chat->views[v].user]);
            }
        }
    }
    return true;
}

void sim_check_fini(check *k)
{
    for (size_t i = 0; i < k->n_chats; i++) {
        check_chat *chat = &k->chats[i];
        for (size_t v = 0; v < chat->n_views; v++) {
            free(chat->views[v].entries);
        }
        for (size_t u = 0; u < k->n_users; u++) {
            free(chat->entitled[u]);
        }
        free(chat->views);
        free(chat->entries);
    }
    free(k->chats);
}
