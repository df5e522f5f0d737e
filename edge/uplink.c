#include <string.h>

#include "edge/state.h"
#include "edge/token.h"
#include "mesh/alloc.h"
#include "mesh/utf8.h"

#define ATTACHMENTS_MAX 10
#define REF_MAX 1024
#define FILE_NAME_MAX 255
#define CONTENT_TYPE_MAX 64
#define PAGE_DEFAULT 50

char *edge_uplink_qualify(edge_core *core, const edge_session *s, const char *id)
{
    if (!mesh_id_valid(id)) {
        return NULL;
    }
    size_t tenant = (size_t)(mesh_qid_bare(s->user) - s->user); /* with the "/" */
    size_t n = strlen(id);
    char *qid = mesh_arena_alloc(core->arena, tenant + n + 1);
    memcpy(qid, s->user, tenant);
    memcpy(qid + tenant, id, n + 1);
    return qid;
}

void edge_uplink_invalid(edge_core *core, edge_session *s, uint64_t id, const char *detail, mesh_time now)
{
    edge_core_error(core, s, id, FAULT_INVALID, 0, detail, now);
}

edge_request *edge_uplink_ask(edge_core *core, edge_session *s, uint64_t id, Mesh__Msg *msg, const char *key,
                              Mesh__Msg__BodyCase answer, mesh_time now, mesh_out *out)
{
    if (s->n_requests >= EDGE_REQUESTS_MAX) {
        edge_core_error(core, s, id, FAULT_BUSY, 0, "too many requests without an answer", now);
        return NULL;
    }
    edge_request *r = edge_table_ask(core, s, id, msg, key, answer, now, out);
    if (r == NULL) {
        edge_core_error(core, s, id, FAULT_UNAVAILABLE, 0, NULL, now);
    }
    return r;
}

static bool printable(const char *s, size_t max)
{
    size_t n = strnlen(s, max + 1);
    for (size_t i = 0; i < n; i++) {
        if (s[i] < 0x20 || s[i] > 0x7e) {
            return false;
        }
    }
    return n <= max;
}

static const char *wrong_attachment(const Client__Attachment *a)
{
    if (a->ref[0] == '\0' || strnlen(a->ref, REF_MAX + 1) > REF_MAX) {
        return "attachments.ref: 1 to 1024 bytes";
    }
    if (strnlen(a->name, FILE_NAME_MAX + 1) > FILE_NAME_MAX ||
        (a->name[0] != '\0' && !edge_token_name_valid(a->name, FILE_NAME_MAX))) {
        return "attachments.name: at most 255 bytes without control characters";
    }
    if (!printable(a->content_type, CONTENT_TYPE_MAX)) {
        return "attachments.content_type: at most 64 printable ASCII characters";
    }
    return NULL;
}

static const char *wrong_send(const Client__Send *send)
{
    if ((send->chat[0] == '\0') == (send->to[0] == '\0')) {
        return "chat, to: exactly one must be set";
    }
    if (!mesh_id_valid(send->client_msg_id)) {
        return "client_msg_id: must be an id";
    }
    if (!printable(send->content_type, CONTENT_TYPE_MAX)) {
        return "content_type: at most 64 printable ASCII characters";
    }
    if (send->body[0] == '\0' && send->n_attachments == 0) {
        return "body: must not be empty without attachments";
    }
    if (send->n_attachments > ATTACHMENTS_MAX) {
        return "attachments: at most 10";
    }
    for (size_t i = 0; i < send->n_attachments; i++) {
        const char *wrong = wrong_attachment(send->attachments[i]);
        if (wrong != NULL) {
            return wrong;
        }
    }
    return NULL;
}

static bool text_too_long(const char *body)
{
    size_t n = strlen(body);
    size_t code_points = n;
    return n > EDGE_TEXT_MAX &&
           (!mesh_utf8_valid((const uint8_t *)body, n, &code_points) || code_points > EDGE_TEXT_MAX);
}

static Mesh__Attachment **attachments(mesh_arena *arena, const Client__Send *send)
{
    Mesh__Attachment **to = mesh_arena_alloc(arena, send->n_attachments * sizeof *to + 1);
    for (size_t i = 0; i < send->n_attachments; i++) {
        to[i] = mesh_arena_alloc(arena, sizeof **to);
        mesh__attachment__init(to[i]);
        to[i]->ref = send->attachments[i]->ref;
        to[i]->name = send->attachments[i]->name;
        to[i]->content_type = send->attachments[i]->content_type;
        to[i]->size = send->attachments[i]->size;
    }
    return to;
}

void edge_uplink_send(edge_core *core, edge_session *s, uint64_t id, const Client__Send *send, mesh_time now,
                      mesh_out *out)
{
    const char *wrong = wrong_send(send);
    bool direct = send->to[0] != '\0';
    char *other = edge_uplink_qualify(core, s, direct ? send->to : send->chat);
    if (wrong == NULL && other == NULL) {
        wrong = direct ? "to: must be an id" : "chat: must be an id";
    }
    if (wrong != NULL) {
        edge_uplink_invalid(core, s, id, wrong, now);
        return;
    }
    if (text_too_long(send->body)) {
        edge_core_error(core, s, id, FAULT_TEXT_TOO_LONG, 0, NULL, now);
        return;
    }
    static char plain[] = "text/plain";
    mesh_qid meeting;
    Mesh__Send to = MESH__SEND__INIT;
    to.user = s->user;
    to.chat = other;
    if (direct) {
        mesh_id_direct(s->user, other, &meeting);
        to.chat = meeting.s;
        to.peer = other;
    }
    to.client_msg_id = send->client_msg_id;
    to.content_type = send->content_type[0] == '\0' ? plain : send->content_type;
    to.body = (ProtobufCBinaryData){ strlen(send->body), (uint8_t *)send->body };
    to.n_attachments = send->n_attachments;
    to.attachments = attachments(core->arena, send);
    if (s->name != NULL) {
        to.user_name = s->name;
    }
    MESH_MSG(msg, SEND, send, &to);
    edge_uplink_ask(core, s, id, &msg, to.chat, MESH__MSG__BODY_SENT, now, out);
}

void edge_uplink_read(edge_core *core, edge_session *s, uint64_t id, const Client__Read *read, mesh_time now,
                      mesh_out *out)
{
    char *chat = edge_uplink_qualify(core, s, read->chat);
    if (chat == NULL || read->seq == 0) {
        edge_uplink_invalid(core, s, id, chat == NULL ? "chat: must be an id" : "seq: must be above 0", now);
        return;
    }
    Mesh__Read to = MESH__READ__INIT;
    to.user = s->user;
    to.chat = chat;
    to.seq = read->seq;
    MESH_MSG(msg, READ, read, &to);
    edge_uplink_ask(core, s, id, &msg, chat, MESH__MSG__BODY_DONE, now, out);
}

void edge_uplink_history(edge_core *core, edge_session *s, uint64_t id, const Client__History *history, mesh_time now,
                         mesh_out *out)
{
    char *chat = edge_uplink_qualify(core, s, history->chat);
    const char *wrong = NULL;
    if (chat == NULL) {
        wrong = "chat: must be an id";
    } else if ((history->before != 0) + (history->after != 0) + (history->around != 0) + (history->from_start != 0) >
               1) {
        wrong = "before, after, around, from_start: at most one may be set";
    } else if (history->limit > EDGE_PAGE_MAX) {
        wrong = "limit: at most 200";
    }
    if (wrong != NULL) {
        edge_uplink_invalid(core, s, id, wrong, now);
        return;
    }
    Mesh__History to = MESH__HISTORY__INIT;
    to.user = s->user;
    to.chat = chat;
    to.before = history->before;
    to.after = history->after;
    to.around = history->around;
    to.from_start = history->from_start;
    to.limit = history->limit == 0 ? PAGE_DEFAULT : history->limit;
    MESH_MSG(msg, HISTORY, history, &to);
    edge_uplink_ask(core, s, id, &msg, chat, MESH__MSG__BODY_PAGE, now, out);
}

void edge_uplink_chats(edge_core *core, edge_session *s, uint64_t id, const Client__Chats *chats, mesh_time now,
                       mesh_out *out)
{
    if (chats->limit > EDGE_CHATS_MAX) {
        edge_uplink_invalid(core, s, id, "limit: at most 100", now);
        return;
    }
    Mesh__Chats to = MESH__CHATS__INIT;
    to.user = s->user;
    to.before = chats->before;
    to.limit = chats->limit == 0 ? PAGE_DEFAULT : chats->limit;
    MESH_MSG(msg, CHATS, chats, &to);
    edge_uplink_ask(core, s, id, &msg, s->user, MESH__MSG__BODY_CHAT_LIST, now, out);
}

void edge_uplink_members(edge_core *core, edge_session *s, uint64_t id, const Client__Members *members, mesh_time now,
                         mesh_out *out)
{
    char *chat = edge_uplink_qualify(core, s, members->chat);
    char *after = members->after[0] == '\0' ? members->after : edge_uplink_qualify(core, s, members->after);
    const char *wrong = NULL;
    if (chat == NULL) {
        wrong = "chat: must be an id";
    } else if (after == NULL) {
        wrong = "after: must be an id";
    } else if (members->limit > EDGE_PAGE_MAX) {
        wrong = "limit: at most 200";
    }
    if (wrong != NULL) {
        edge_uplink_invalid(core, s, id, wrong, now);
        return;
    }
    Mesh__Members to = MESH__MEMBERS__INIT;
    to.user = s->user;
    to.chat = chat;
    to.after = after;
    to.limit = members->limit == 0 ? EDGE_PAGE_MAX : members->limit;
    MESH_MSG(msg, MEMBERS, members, &to);
    edge_uplink_ask(core, s, id, &msg, chat, MESH__MSG__BODY_MEMBER_LIST, now, out);
}

void edge_uplink_profile(edge_core *core, edge_session *s, uint64_t id, const Client__Profile *profile, mesh_time now,
                         mesh_out *out)
{
    if (!edge_token_name_valid(profile->name, EDGE_NAME_CODE_POINTS)) {
        edge_uplink_invalid(core, s, id, "name: 1 to 64 characters without control characters", now);
        return;
    }
    Mesh__Profile to = MESH__PROFILE__INIT;
    to.user = s->user;
    to.name = profile->name;
    MESH_MSG(msg, PROFILE, profile, &to);
    edge_request *r = edge_uplink_ask(core, s, id, &msg, s->user, MESH__MSG__BODY_DONE, now, out);
    if (r != NULL) {
        r->name = mesh_strdup(profile->name);
    }
}
