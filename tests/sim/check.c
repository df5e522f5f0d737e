/* tests/sim/check.c: the promises, judged from outside after the dust has settled. What was asked is in the ledger of
 * the clients, what was told is in their hands, and what is there is read by fresh clients (check_read.c). */
#include "tests/sim/check.h"

#include "mesh/id.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "store/metrics.h"

#define LIVE_MS 30000
#define WHOLE_MS 60000
#define QUIET_MS 15000 /* the longest pause before a parcel is sent again, and some */
#define LAST_MS 11000  /* two rounds of heads: a lost last entry is healed by then */

/* ---- settling ---- */

static const sim_client *not_live(sim *s)
{
    for (sim_client *c = s->clients; c; c = c->next) {
        if (!c->replaced && !sim_live(c)) {
            return c;
        }
    }
    return NULL;
}

static const sim_op *not_answered(sim *s)
{
    for (sim_op *op = s->ops; op; op = op->next_all) {
        if (op->state == OP_WAITING && !op->by->replaced) {
            return op;
        }
    }
    return NULL;
}

static bool settled(sim *s)
{
    return !not_live(s) && !not_answered(s);
}

unsigned long long sim_metric(sim *s, mesh_stats *stats, const char *node, const char *name)
{
    s->events.size = 0;
    mesh_stats_print(stats, node, &s->events);
    *mesh_buf_grow(&s->events, 1) = 0;
    for (const char *at = (const char *)s->events.data; (at = strstr(at, name)) != NULL; at++) {
        const char *line = at == (const char *)s->events.data ? at : at - 1;
        if (at == line || *line == '\n') {
            return strtoull(at + strcspn(at, " \n"), NULL, 10);
        }
    }
    return 0;
}

/* What a node still owes. Of a shard's replicas only the leader delivers. */
static unsigned long long left_at(sim_node *n)
{
    if (n->store) {
        mesh_stats *stats = store_core_stats(n->store);
        return mesh_stats_get(stats, STORE_M_LEADER)
                   ? mesh_stats_get(stats, STORE_M_OUTBOX_ITEMS) + mesh_stats_get(stats, STORE_M_SLOT_LEAVING)
                   : 0;
    }
    return n->router ? sim_metric(n->s, router_core_stats(n->router), n->name, "parley_router_inflight") : 0;
}

static bool same_cursors(sim *s)
{
    for (const sim_client *c = s->clients; c; c = c->next) {
        for (const sim_client *other = c->next; other; other = other->next) {
            if (strcmp(c->user, other->user) == 0 && !c->replaced && !other->replaced && c->cursor != other->cursor) {
                return false;
            }
        }
    }
    return true;
}

/* Nothing is owed, nothing waits for an answer, and the devices of each user are in step. */
static bool quiet(sim *s)
{
    for (size_t i = 0; i < s->n_nodes; i++) {
        if (left_at(&s->nodes[i])) {
            return false;
        }
    }
    for (uint32_t shard = 0; shard < s->conf.shards; shard++) {
        if (!sim_leader(s, shard)) {
            return false;
        }
    }
    return same_cursors(s);
}

static void heal_everything(sim *s)
{
    sim_trace(s, "everything heals");
    s->settling = true;
    sim_disk_free(s);
    sim_disk_slow(s, 1);
    sim_net_slow(s, 1);
    sim_disk_hold(s, false);
    sim_space(s, true);
    sim_heal_all(s);
    sim_lose_none(s);
    sim_noise_set(s, (sim_noise){ 0 });
    sim_operator_settle(s);
    for (size_t i = 0; i < s->n_nodes; i++) {
        if (s->nodes[i].draining) {
            sim_node_die(&s->nodes[i]);
        }
        if (!s->nodes[i].alive) {
            sim_node_boot(&s->nodes[i]);
        }
    }
    for (sim_client *c = s->clients; c; c = c->next) {
        sim_mute(c, false);
        c->sticky = false;
        if (!c->socket && !c->replaced) {
            sim_hello(c, NULL);
        }
    }
}

/* Whoever was taken out of a group is in it again. */
static void wait_whole(sim *s)
{
    mesh_ms end = sim_now(s) + WHOLE_MS;
    for (uint32_t shard = 0; s->op && shard < s->conf.shards; shard++) {
        while ((sim_operated(s, shard) || !sim_whole(s, shard)) && sim_now(s) < end) {
            sim_run(s, 250);
        }
        if (!sim_whole(s, shard)) {
            sim_complain(s, "not every store of shard %u is a member again", shard);
        }
    }
}

void sim_settle(sim *s)
{
    heal_everything(s);
    if (!SIM_WAIT(s, LIVE_MS, settled(s))) {
        const sim_client *c = not_live(s);
        const sim_op *op = not_answered(s);
        if (c) {
            sim_complain(s, "%s is not live %d s after everything healed (state %d at %s)", c->name, LIVE_MS / 1000,
                         (int)c->state, c->edge);
        }
        if (op) {
            sim_complain(s, "%s has no answer to request %d after %u tries, last error %u", op->by->name,
                         (int)op->request->body_case, op->tries, op->code);
        }
    }
    wait_whole(s);
    mesh_ms end = sim_now(s) + QUIET_MS;
    while (!quiet(s) && sim_now(s) < end) {
        sim_run(s, 250);
    }
    for (size_t i = 0; i < s->n_nodes; i++) {
        if (left_at(&s->nodes[i])) {
            sim_complain(s, "%s still has something to deliver or to answer", s->nodes[i].name);
        }
    }
    sim_run(s, LAST_MS);
    if (!settled(s)) {
        const sim_client *c = not_live(s);
        sim_complain(s, "somebody is not live any more though nothing happens: %s", c ? c->name : "");
    }
}

/* ---- who was entitled to what ---- */

static bool in_direct(const check *k, const char *chat, const char *user)
{
    mesh_qid me, other, id;
    mesh_err err = mesh_qid_make("default", user, &me);
    for (size_t i = 0; !err && i < k->n_users; i++) {
        err = mesh_qid_make("default", k->users[i], &other);
        mesh_id_direct(me.s, other.s, &id);
        if (!err && strcmp(mesh_qid_bare(id.s), chat) == 0) {
            return true;
        }
    }
    return false;
}

/* Play the chat's entries through one user's eyes. */
static void find_entitled(check *k, check_chat *chat, size_t u)
{
    const char *user = k->users[u];
    bool member = strncmp(chat->id, "d:", 2) == 0 && in_direct(k, chat->id, user);
    chat->entitled[u] = mesh_alloc(chat->n ? chat->n : 1);
    for (size_t i = 0; i < chat->n; i++) {
        const Client__Message *m = chat->entries[i];
        bool was = member;
        if (!m) {
            continue;
        }
        switch (m->kind) {
        case CLIENT__ENTRY_KIND__ENTRY_KIND_CREATED:
            member = member || sim_check_named(m, user) || strcmp(m->sender, user) == 0;
            break;
        case CLIENT__ENTRY_KIND__ENTRY_KIND_ADDED:
            member = member || sim_check_named(m, user);
            break;
        case CLIENT__ENTRY_KIND__ENTRY_KIND_REMOVED:
            member = member && !sim_check_named(m, user);
            break;
        case CLIENT__ENTRY_KIND__ENTRY_KIND_LEFT:
            member = member && strcmp(m->sender, user) != 0;
            break;
        default:
            break;
        }
        chat->entitled[u][i] = was || member;
    }
    chat->member[u] = member;
}

/* ---- one chat ---- */

static void check_order(check *k, const check_chat *chat)
{
    uint64_t id = 0, count = 0;
    for (size_t i = 0; i < chat->n; i++) {
        const Client__Message *m = chat->entries[i];
        if (!m) {
            sim_complain(k->s, "%s has no entry %zu of %zu", chat->id, i + 1, chat->n);
            return;
        }
        count += m->kind == CLIENT__ENTRY_KIND__ENTRY_KIND_TEXT;
        if (m->message_id <= id) {
            sim_complain(k->s, "%s %zu has an id that is not above the one before", chat->id, i + 1);
        }
        if (m->count != count) {
            sim_complain(k->s, "%s %zu counts %" PRIu64 ", there were %" PRIu64, chat->id, i + 1, m->count, count);
        }
        id = m->message_id;
        for (size_t j = 0; j < i && m->client_msg_id[0]; j++) {
            if (chat->entries[j] && strcmp(chat->entries[j]->client_msg_id, m->client_msg_id) == 0 &&
                strcmp(chat->entries[j]->sender, m->sender) == 0) {
                sim_complain(k->s, "%s holds %s of %s twice: %zu and %zu", chat->id, m->client_msg_id, m->sender, j + 1,
                             i + 1);
            }
        }
    }
}

/* The history this user was shown is what the rule of the chat says, no more and no less. */
static void check_view_of(check *k, const check_chat *chat, const check_view *view)
{
    const bool *entitled = chat->entitled[view->user];
    size_t last = 0, e = 0;
    for (size_t i = 0; i < chat->n; i++) {
        last = entitled[i] ? i + 1 : last;
    }
    for (size_t i = 0; i < chat->n; i++) {
        bool shown = e < view->n && view->entries[e]->seq == i + 1;
        bool due = chat->from_join ? entitled[i] : i < last;
        e += shown;
        if (shown != due) {
            sim_complain(k->s, "history of %s %s %zu to %s", chat->id, shown ? "shows" : "does not show", i + 1,
                         k->users[view->user]);
        }
    }
    if (view->last != last) {
        sim_complain(k->s, "history of %s says last is %" PRIu64 " to %s, not %zu", chat->id, view->last,
                     k->users[view->user], last);
    }
}

/* ---- inboxes and devices ---- */

static void check_inbox(check *k, size_t u)
{
    const sim_client *c = k->reader[u];
    size_t owed = 0;
    for (size_t i = 0; i < k->n_chats; i++) {
        const check_chat *chat = &k->chats[i];
        for (size_t e = 0; e < chat->n; e++) {
            owed += chat->entitled[u][e];
            if (chat->entitled[u][e] && !sim_find(c, chat->id, e + 1)) {
                sim_complain(k->s, "%s %zu never came to %s's inbox", chat->id, e + 1, c->user);
            }
        }
    }
    for (size_t g = 0; g < c->n_got; g++) {
        const Client__Message *m = c->got[g].message;
        const check_chat *chat = sim_check_chat(k, m->chat);
        if (!chat->entitled[u][m->seq - 1]) {
            sim_complain(k->s, "%s has %s %" PRIu64 ", was not a member then", c->user, m->chat, m->seq);
        }
    }
    if (owed != c->n_got) {
        sim_complain(k->s, "%s is owed %zu entries, has %zu", c->user, owed, c->n_got);
    }
}

static void check_device(check *k, const sim_client *c)
{
    size_t u = 0;
    while (strcmp(k->users[u], c->user) != 0) {
        u++;
    }
    const sim_client *all = k->reader[u];
    if (!c->has_cursor || c->replaced || c == all) {
        return;
    }
    if (c->cursor != all->cursor) {
        sim_complain(k->s, "%s has its inbox up to %" PRIu64 " of %" PRIu64, c->name, c->cursor, all->cursor);
    }
    for (size_t i = c->first; i < c->cursor && i < all->n_got; i++) {
        const Client__Message *m = all->got[i].message;
        const sim_got *got = sim_find(c, m->chat, m->seq);
        if (!got || got->inbox_seq != i + 1) {
            sim_complain(k->s, "%s %s inbox entry %zu, %s %" PRIu64, c->name, got ? "has elsewhere" : "never got",
                         i + 1, m->chat, m->seq);
        }
    }
    for (size_t g = 0; g < c->n_got; g++) {
        const Client__Message *m = c->got[g].message;
        if (!sim_find(all, m->chat, m->seq)) {
            sim_complain(k->s, "%s got %s %" PRIu64 ", not in the inbox of %s", c->name, m->chat, m->seq, c->user);
        }
    }
}

/* ---- the ledger ---- */

static bool same_send(const sim_op *op, const Client__Message *m)
{
    const Client__Send *send = op->request->send;
    return strcmp(op->by->user, m->sender) == 0 && strcmp(send->client_msg_id, m->client_msg_id) == 0 &&
           strcmp(send->body, m->body) == 0;
}

static void check_acked(check *k, const sim_op *op)
{
    const Client__Sent *sent = sim_sent(op);
    const check_chat *chat = sim_check_chat(k, sent->chat);
    const Client__Message *m = chat && sent->seq <= chat->n ? chat->entries[sent->seq - 1] : NULL;
    if (!m) {
        sim_complain(k->s, "acked %s to %s as %s %" PRIu64 ", and it is not there", sent->client_msg_id, op->by->name,
                     sent->chat, sent->seq);
        return;
    }
    if (sent->dup && op->request->body_case != CLIENT__REQUEST__BODY_SEND) {
        return; /* nothing was to be done: the chat's head stood for it */
    }
    if (m->message_id != sent->message_id || m->ts_ms != sent->ts_ms ||
        strcmp(m->client_msg_id, sent->client_msg_id) != 0 || strcmp(m->sender, op->by->user) != 0) {
        sim_complain(k->s, "acked %s to %s as %s %" PRIu64 ", there is %s of %s", sent->client_msg_id, op->by->name,
                     sent->chat, sent->seq, m->client_msg_id, m->sender);
    }
    if (op->request->body_case == CLIENT__REQUEST__BODY_SEND && !same_send(op, m)) {
        sim_complain(k->s, "%s %" PRIu64 " has another body than %s sent", sent->chat, sent->seq, op->by->name);
    }
}

static void check_ledger(check *k)
{
    for (const sim_op *op = k->s->ops; op; op = op->next_all) {
        if (sim_sent(op)) {
            check_acked(k, op);
        }
    }
    for (size_t i = 0; i < k->n_chats; i++) {
        for (size_t e = 0; e < k->chats[i].n; e++) {
            const Client__Message *m = k->chats[i].entries[e];
            bool asked = !m || m->kind != CLIENT__ENTRY_KIND__ENTRY_KIND_TEXT;
            for (const sim_op *op = k->s->ops; op && !asked; op = op->next_all) {
                /* a refusal says nothing about an earlier try that may still be on its way */
                asked = op->request->body_case == CLIENT__REQUEST__BODY_SEND && op->tries > (op->state == OP_REFUSED) &&
                        same_send(op, m);
            }
            if (!asked) {
                sim_complain(k->s, "%s %zu was refused, or nobody sent it", k->chats[i].id, e + 1);
            }
        }
    }
}

static void check_marker(check *k, const check_chat *chat, const Client__Member *member)
{
    if (member->read_seq > chat->n) {
        sim_complain(k->s, "%s has read %s up to %" PRIu64 " of %zu", member->user, chat->id, member->read_seq,
                     chat->n);
    }
    for (const sim_op *op = k->s->ops; op; op = op->next_all) {
        const Client__Request *r = op->request;
        if (r->body_case == CLIENT__REQUEST__BODY_READ && op->state == OP_DONE &&
            strcmp(r->read->chat, chat->id) == 0 && strcmp(op->by->user, member->user) == 0 &&
            r->read->seq > member->read_seq) {
            sim_complain(k->s, "%s read %s up to %" PRIu64 ", the marker is at %" PRIu64, member->user, chat->id,
                         r->read->seq, member->read_seq);
        }
    }
}

static void check_members(check *k, const check_chat *chat)
{
    size_t u = 0, n = 0;
    while (u < k->n_users && !chat->member[u]) {
        u++;
    }
    if (u == k->n_users) {
        return;
    }
    sim_op *op = sim_members(k->reader[u], chat->id);
    if (!SIM_WAIT(k->s, 10000, op->state != OP_WAITING) || op->state != OP_DONE) {
        sim_complain(k->s, "%s cannot list the members of %s: %u", k->users[u], chat->id, op->code);
        return;
    }
    const Client__MemberList *list = op->answer->members;
    for (size_t i = 0; i < k->n_users; i++) {
        n += chat->member[i];
    }
    if (list->n_members != n) {
        sim_complain(k->s, "%s has %zu members, says %zu", chat->id, n, list->n_members);
    }
    for (size_t i = 0; i < list->n_members; i++) {
        check_marker(k, chat, list->members[i]);
    }
}

void sim_check(sim *s)
{
    check k = { .s = s };
    sim_check_replicas_wait(s);
    sim_check_replicas(s);
    if (sim_check_read(&k)) {
        for (size_t i = 0; i < k.n_chats; i++) {
            check_chat *chat = &k.chats[i];
            for (const sim_op *op = s->ops; op; op = op->next_all) {
                const Client__Request *r = op->request;
                chat->from_join =
                    chat->from_join ||
                    (r->body_case == CLIENT__REQUEST__BODY_CHAT_CREATE && strcmp(sim_chat(op), chat->id) == 0 &&
                     r->chat_create->history == CLIENT__HISTORY_RULE__HISTORY_RULE_FROM_JOIN);
            }
            check_order(&k, chat);
            for (size_t u = 0; u < k.n_users; u++) {
                find_entitled(&k, chat, u);
            }
            for (size_t v = 0; v < chat->n_views; v++) {
                check_view_of(&k, chat, &chat->views[v]);
            }
            check_members(&k, chat);
        }
        for (size_t u = 0; u < k.n_users; u++) {
            check_inbox(&k, u);
            sim_check_list(&k, u);
        }
        for (const sim_client *c = s->clients; c; c = c->next) {
            check_device(&k, c);
        }
        check_ledger(&k);
    }
    sim_check_fini(&k);
}
