/* tests/random/use.c: what people do, at random. */
#include "tests/random/plan.h"

#include <stdio.h>
#include <string.h>

#define TEXT_MAX 90000

unsigned plan_pick(plan *p, unsigned below)
{
    return (unsigned)sim_random(p->s, below);
}

sim_client *plan_client(plan *p)
{
    return p->client[plan_pick(p, p->devices)];
}

static const char *any_user(plan *p)
{
    return plan_client(p)->user;
}

/* A group some create was acked for, or NULL. */
static const char *any_group(plan *p)
{
    const char *found = NULL;
    unsigned n = 0;
    for (sim_op *op = sim_ops(p->s); op; op = op->next_all) {
        if (op->request->body_case == CLIENT__REQUEST__BODY_CHAT_CREATE && sim_sent(op) && plan_pick(p, ++n) == 0) {
            found = sim_chat(op);
        }
    }
    return found;
}

const char *plan_chat(plan *p, const sim_client *c, uint64_t *seq)
{
    if (!c->n_got) {
        return NULL;
    }
    const Client__Message *m = c->got[plan_pick(p, (unsigned)c->n_got)].message;
    *seq = m->seq;
    return m->chat;
}

static void fill_text(plan *p, char *text, size_t size)
{
    size_t n = plan_pick(p, 20) == 0 ? 600 + plan_pick(p, 1200) : 3 + plan_pick(p, 40);
    n = plan_pick(p, 200) == 0 ? plan_pick(p, TEXT_MAX) : n;
    int at = snprintf(text, size, "text %u ", ++p->texts);
    for (size_t i = (size_t)at; i < n && i + 1 < size; i++) {
        text[i] = (char)('a' + (char)(i * 7 % 26));
        text[i + 1] = 0;
    }
}

void plan_send(plan *p)
{
    static char text[TEXT_MAX + 1];
    sim_client *c = plan_client(p);
    const char *group = any_group(p);
    fill_text(p, text, sizeof text);
    sim_op *op = group && plan_pick(p, 2) ? sim_post(c, group, text) : sim_send(c, any_user(p), text);
    op->keep = plan_pick(p, 8) != 0;
}

static sim_op *any_send(plan *p)
{
    sim_op *found = NULL;
    unsigned n = 0;
    for (sim_op *op = sim_ops(p->s); op; op = op->next_all) {
        if (op->request->body_case == CLIENT__REQUEST__BODY_SEND && plan_pick(p, ++n) == 0) {
            found = op;
        }
    }
    return found;
}

/* The same request over another socket, now and then with another body under the same id. */
static void act_again(plan *p)
{
    sim_op *old = any_send(p);
    sim_client *c = plan_client(p);
    if (!old || strcmp(c->user, old->by->user) != 0) {
        return;
    }
    if (plan_pick(p, 4)) {
        sim_again(c, old);
        return;
    }
    Client__Send send = *old->request->send;
    Client__Request request = *old->request;
    send.body = (char *)"something else";
    request.send = &send;
    sim_ask(c, &request, true);
}

static void act_group(plan *p)
{
    sim_client *c = plan_client(p);
    const char *chat = any_group(p);
    char who[256];
    snprintf(who, sizeof who, "%s", any_user(p));
    if (!chat || plan_pick(p, 12) == 0) {
        if (plan_pick(p, 2)) {
            snprintf(who + strlen(who), sizeof who - strlen(who), " %s", any_user(p));
        }
        sim_create(c, "a group", who, plan_pick(p, 2));
        return;
    }
    switch (plan_pick(p, 8)) {
    case 0:
        sim_rename(c, chat, "another name");
        break;
    case 1:
        sim_leave(c, chat);
        break;
    case 2:
    case 3:
        sim_remove(c, chat, who);
        break;
    default:
        sim_add(c, chat, who);
    }
}

static void act_read(plan *p)
{
    sim_client *c = plan_client(p);
    uint64_t seq = 0;
    const char *chat = plan_chat(p, c, &seq);
    if (!chat) {
        return;
    }
    switch (plan_pick(p, 5)) {
    case 0:
        sim_history(c, chat, plan_pick(p, 2) ? seq : 0, 0, false, 1 + plan_pick(p, 50));
        break;
    case 1:
        sim_members(c, chat);
        break;
    case 2:
        sim_chats(c, 0);
        break;
    default:
        sim_read(c, chat, seq);
    }
}

static void act_connection(plan *p)
{
    sim_client *c = plan_client(p);
    if (c->stay_away) {
        if (plan_pick(p, 3) == 0) {
            sim_forget(c, plan_pick(p, 10));
        }
        sim_hello(c, NULL);
        return;
    }
    switch (plan_pick(p, 6)) {
    case 0:
        sim_bye(c);
        break;
    case 1:
        sim_vanish(c);
        break;
    case 2:
        sim_vanish(c);
        sim_hello(c, NULL);
        break;
    case 3:
        sim_stall(c, plan_pick(p, plan_pick(p, 2) ? 100 : 4000));
        break;
    case 4:
        sim_profile(c, plan_pick(p, 2) ? "A Name" : "Another Name");
        break;
    default:
        sim_mute(c, !c->mute);
    }
}

void plan_use(plan *p)
{
    unsigned n = plan_pick(p, 100);
    if (n < 62) {
        plan_send(p);
    } else if (n < 67) {
        act_again(p);
    } else if (n < 77) {
        act_group(p);
    } else if (n < 87) {
        act_read(p);
    } else {
        act_connection(p);
    }
}
