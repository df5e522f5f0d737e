/* tests/sim/ask.c: the requests of a simulated client, and the ledger of them that check.c judges by. A request that is
 * kept is put again with the same client_msg_id, after an error that allows it and after every reconnect, until it has
 * a final answer; one that is not kept is lost with its connection. */
#include "tests/sim/impl.h"

#include "edge/codec.h"
#include "mesh/fault.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MEMBERS_MAX 64

static void again(sim *s, void *arg, uint64_t tries);

static void issue(sim_op *op)
{
    sim_client *c = op->by;
    op->id = ++c->next_id;
    op->tries++;
    Client__Request request = *op->request;
    request.id = op->id;
    if (sim_tracing(c->s)) {
        c->s->events.size = 0;
        sim_dump(&request.base, &c->s->events);
        sim_trace(c->s, "%s: asks %.*s", c->name, (int)c->s->events.size, (const char *)c->s->events.data);
    }
    sim_client_put(c, &request);
}

static bool ready(const sim_client *c)
{
    return c->socket && c->state >= SIM_WELCOME;
}

sim_op *sim_ask(sim_client *c, const Client__Request *request, bool keep)
{
    sim_op *op = mesh_alloc(sizeof *op);
    mesh_buf bytes = { 0 };
    ProtobufCMessage *copy = NULL;
    mesh_wire_pack(request, &bytes);
    mesh_err err = mesh_wire_unpack(&client__request__descriptor, mesh_buf_slice(&bytes), c->arena, &copy);
    assert(!err);
    mesh_buf_fini(&bytes);
    *op = (sim_op){ .by = c, .request = (Client__Request *)copy, .keep = keep, .asked = sim_now(c->s) };
    *c->ops_end = op;
    c->ops_end = &op->next;
    *c->s->ops_end = op;
    c->s->ops_end = &op->next_all;
    if (ready(c)) {
        issue(op);
    }
    return op;
}

sim_op *sim_again(sim_client *c, const sim_op *op)
{
    return sim_ask(c, op->request, true);
}

sim_op *sim_ops(sim *s)
{
    return s->ops;
}

void sim_op_issue_all(sim_client *c)
{
    for (sim_op *op = c->ops; op; op = op->next) {
        if (op->state == OP_WAITING) {
            issue(op);
        }
    }
}

void sim_op_disconnected(sim_client *c)
{
    for (sim_op *op = c->ops; op; op = op->next) {
        if (op->state == OP_WAITING) {
            op->id = 0;
            if (!op->keep && op->tries) {
                op->state = OP_LOST;
            }
        }
    }
}

static void again(sim *s, void *arg, uint64_t tries)
{
    sim_op *op = arg;
    (void)s;
    if (op->state == OP_WAITING && op->tries == tries && ready(op->by)) {
        issue(op);
    }
}

static void on_fault(sim_op *op, const Client__Error *e)
{
    sim *s = op->by->s;
    op->code = e->code;
    op->id = 0;
    bool open = e->retry == CLIENT__RETRY__RETRY_SAME || e->retry == CLIENT__RETRY__RETRY_LATER;
    if (!open) {
        op->state = OP_REFUSED;
    } else if (!op->keep) {
        op->state = OP_LOST;
    } else {
        sim_us wait = (e->after_ms ? e->after_ms : 200) * 1000LL + sim_between(s, 0, 100000);
        sim_at(s, s->now + wait, again, op, op->tries);
    }
}

static void check_sent(const sim_op *op, const Client__Sent *sent)
{
    sim *s = op->by->s;
    if (sent->state != CLIENT__SENT_STATE__SENT_STATE_SENT || !sent->seq || !sent->message_id) {
        sim_complain(s, "%s got an ack without seq or id", op->by->name);
    }
    const Client__Request *r = op->request;
    const char *id = r->body_case == CLIENT__REQUEST__BODY_SEND          ? r->send->client_msg_id
                     : r->body_case == CLIENT__REQUEST__BODY_CHAT_CREATE ? r->chat_create->client_msg_id
                     : r->body_case == CLIENT__REQUEST__BODY_CHAT_UPDATE ? r->chat_update->client_msg_id
                     : r->body_case == CLIENT__REQUEST__BODY_CHAT_ADD    ? r->chat_add->client_msg_id
                     : r->body_case == CLIENT__REQUEST__BODY_CHAT_REMOVE ? r->chat_remove->client_msg_id
                     : r->body_case == CLIENT__REQUEST__BODY_CHAT_LEAVE  ? r->chat_leave->client_msg_id
                                                                         : "";
    if (strcmp(sent->client_msg_id, id) != 0) {
        sim_complain(s, "%s asked %s, acked %s", op->by->name, id, sent->client_msg_id);
    }
}

void sim_op_answer(sim_client *c, const Client__Event *e)
{
    sim_op *op = c->ops;
    while (op && (op->state != OP_WAITING || op->id != e->id)) {
        op = op->next;
    }
    if (!op || !e->id) {
        if (e->body_case != CLIENT__EVENT__BODY_ERROR) {
            sim_complain(c->s, "%s got an answer to nothing: %" PRIu64, c->name, e->id);
        }
        return;
    }
    mesh_buf bytes = { 0 };
    ProtobufCMessage *copy = NULL;
    mesh_wire_pack(e, &bytes);
    mesh_err err = mesh_wire_unpack(&client__event__descriptor, mesh_buf_slice(&bytes), c->arena, &copy);
    assert(!err);
    mesh_buf_fini(&bytes);
    op->answer = (Client__Event *)copy;
    op->answered = sim_now(c->s);
    if (e->body_case == CLIENT__EVENT__BODY_ERROR) {
        on_fault(op, e->error);
        return;
    }
    op->state = OP_DONE;
    if (e->body_case == CLIENT__EVENT__BODY_ACK) {
        check_sent(op, e->ack);
    }
}

const Client__Sent *sim_sent(const sim_op *op)
{
    return op->state == OP_DONE && op->answer->body_case == CLIENT__EVENT__BODY_ACK ? op->answer->ack : NULL;
}

const char *sim_chat(const sim_op *op)
{
    const Client__Sent *sent = sim_sent(op);
    return sent ? sent->chat : "";
}

/* ---- one function per kind ---- */

static char *new_id(sim_client *c, char out[32])
{
    snprintf(out, 32, "m%" PRIu64, ++c->s->n_msg_ids);
    return out;
}

static sim_op *text(sim_client *c, const char *chat, const char *to, const char *body)
{
    char id[32];
    Client__Send send = CLIENT__SEND__INIT;
    Client__Request request = CLIENT__REQUEST__INIT;
    send.chat = (char *)chat;
    send.to = (char *)to;
    send.body = (char *)body;
    send.client_msg_id = new_id(c, id);
    request.body_case = CLIENT__REQUEST__BODY_SEND;
    request.send = &send;
    return sim_ask(c, &request, true);
}

sim_op *sim_send(sim_client *c, const char *to_user, const char *body)
{
    return text(c, "", to_user, body);
}

sim_op *sim_post(sim_client *c, const char *chat, const char *body)
{
    return text(c, chat, "", body);
}

/* Space separated words into list, in buf (both of the caller). */
static size_t split(const char *words, char *buf, size_t size, char *list[MEMBERS_MAX])
{
    size_t n = 0;
    char *rest = NULL;
    snprintf(buf, size, "%s", words);
    for (char *w = strtok_r(buf, " ", &rest); w; w = strtok_r(NULL, " ", &rest)) {
        assert(n < MEMBERS_MAX);
        list[n++] = w;
    }
    return n;
}

sim_op *sim_create(sim_client *c, const char *name, const char *members, bool from_join)
{
    char id[32], buf[2048], *list[MEMBERS_MAX];
    Client__ChatCreate create = CLIENT__CHAT_CREATE__INIT;
    Client__Request request = CLIENT__REQUEST__INIT;
    create.client_msg_id = new_id(c, id);
    create.name = (char *)name;
    create.members = list;
    create.n_members = split(members, buf, sizeof buf, list);
    create.history = from_join ? CLIENT__HISTORY_RULE__HISTORY_RULE_FROM_JOIN : CLIENT__HISTORY_RULE__HISTORY_RULE_ALL;
    request.body_case = CLIENT__REQUEST__BODY_CHAT_CREATE;
    request.chat_create = &create;
    return sim_ask(c, &request, true);
}

sim_op *sim_add(sim_client *c, const char *chat, const char *members)
{
    char id[32], buf[2048], *list[MEMBERS_MAX];
    Client__ChatAdd add = CLIENT__CHAT_ADD__INIT;
    Client__Request request = CLIENT__REQUEST__INIT;
    add.chat = (char *)chat;
    add.client_msg_id = new_id(c, id);
    add.members = list;
    add.n_members = split(members, buf, sizeof buf, list);
    request.body_case = CLIENT__REQUEST__BODY_CHAT_ADD;
    request.chat_add = &add;
    return sim_ask(c, &request, true);
}

sim_op *sim_remove(sim_client *c, const char *chat, const char *members)
{
    char id[32], buf[2048], *list[MEMBERS_MAX];
    Client__ChatRemove removal = CLIENT__CHAT_REMOVE__INIT;
    Client__Request request = CLIENT__REQUEST__INIT;
    removal.chat = (char *)chat;
    removal.client_msg_id = new_id(c, id);
    removal.members = list;
    removal.n_members = split(members, buf, sizeof buf, list);
    request.body_case = CLIENT__REQUEST__BODY_CHAT_REMOVE;
    request.chat_remove = &removal;
    return sim_ask(c, &request, true);
}

sim_op *sim_leave(sim_client *c, const char *chat)
{
    char id[32];
    Client__ChatLeave leave = CLIENT__CHAT_LEAVE__INIT;
    Client__Request request = CLIENT__REQUEST__INIT;
    leave.chat = (char *)chat;
    leave.client_msg_id = new_id(c, id);
    request.body_case = CLIENT__REQUEST__BODY_CHAT_LEAVE;
    request.chat_leave = &leave;
    return sim_ask(c, &request, true);
}

sim_op *sim_rename(sim_client *c, const char *chat, const char *name)
{
    char id[32];
    Client__ChatUpdate update = CLIENT__CHAT_UPDATE__INIT;
    Client__Request request = CLIENT__REQUEST__INIT;
    update.chat = (char *)chat;
    update.client_msg_id = new_id(c, id);
    update.name = (char *)name;
    request.body_case = CLIENT__REQUEST__BODY_CHAT_UPDATE;
    request.chat_update = &update;
    return sim_ask(c, &request, true);
}

sim_op *sim_read(sim_client *c, const char *chat, uint64_t seq)
{
    Client__Read read = CLIENT__READ__INIT;
    Client__Request request = CLIENT__REQUEST__INIT;
    read.chat = (char *)chat;
    read.seq = seq;
    request.body_case = CLIENT__REQUEST__BODY_READ;
    request.read = &read;
    return sim_ask(c, &request, true);
}

sim_op *sim_history(sim_client *c, const char *chat, uint64_t before, uint64_t after, bool from_start, unsigned limit)
{
    Client__History history = CLIENT__HISTORY__INIT;
    Client__Request request = CLIENT__REQUEST__INIT;
    history.chat = (char *)chat;
    history.before = before;
    history.after = after;
    history.from_start = from_start;
    history.limit = limit;
    request.body_case = CLIENT__REQUEST__BODY_HISTORY;
    request.history = &history;
    return sim_ask(c, &request, false);
}

sim_op *sim_members(sim_client *c, const char *chat)
{
    Client__Members members = CLIENT__MEMBERS__INIT;
    Client__Request request = CLIENT__REQUEST__INIT;
    members.chat = (char *)chat;
    request.body_case = CLIENT__REQUEST__BODY_MEMBERS;
    request.members = &members;
    return sim_ask(c, &request, false);
}

sim_op *sim_chats(sim_client *c, uint64_t before)
{
    Client__Chats chats = CLIENT__CHATS__INIT;
    Client__Request request = CLIENT__REQUEST__INIT;
    chats.limit = before ? 10 : 3;
    chats.before = before;
    request.body_case = CLIENT__REQUEST__BODY_CHATS;
    request.chats = &chats;
    return sim_ask(c, &request, false);
}

sim_op *sim_profile(sim_client *c, const char *name)
{
    Client__Profile profile = CLIENT__PROFILE__INIT;
    Client__Request request = CLIENT__REQUEST__INIT;
    profile.name = (char *)name;
    request.body_case = CLIENT__REQUEST__BODY_PROFILE;
    request.profile = &profile;
    return sim_ask(c, &request, true);
}
