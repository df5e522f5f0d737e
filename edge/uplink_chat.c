#include <stdlib.h>
#include <string.h>

#include "edge/state.h"
#include "edge/token.h"

#define CHAT_NAME_CODE_POINTS 128

static int by_id(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Qualify ids, in byte order and each once, so that the same request said again is the same bytes; without is left out
 * (NULL: nobody). False: one is not valid. */
static bool qualify_all(edge_core *core, const edge_session *s, char *const *ids, size_t n, const char *without,
                        char ***out, size_t *n_out)
{
    char **qids = mesh_arena_alloc(core->arena, n * sizeof *qids + 1);
    for (size_t i = 0; i < n; i++) {
        qids[i] = edge_uplink_qualify(core, s, ids[i]);
        if (qids[i] == NULL) {
            return false;
        }
    }
    qsort(qids, n, sizeof *qids, by_id);
    size_t kept = 0;
    for (size_t i = 0; i < n; i++) {
        if ((kept == 0 || strcmp(qids[kept - 1], qids[i]) != 0) && (without == NULL || strcmp(qids[i], without) != 0)) {
            qids[kept++] = qids[i];
        }
    }
    *out = qids;
    *n_out = kept;
    return true;
}

static const char *wrong_create(const Client__ChatCreate *create)
{
    if (!mesh_id_valid(create->client_msg_id)) {
        return "client_msg_id: must be an id";
    }
    if (create->kind == CLIENT__CHAT_KIND__CHAT_KIND_DIRECT && create->n_members != 1) {
        return "members: a direct chat has exactly one";
    }
    if (create->kind == CLIENT__CHAT_KIND__CHAT_KIND_DIRECT && create->name[0] != '\0') {
        return "name: a direct chat has none";
    }
    if (create->name[0] != '\0' && !edge_token_name_valid(create->name, CHAT_NAME_CODE_POINTS)) {
        return "name: at most 128 characters without control characters";
    }
    return NULL;
}

void edge_uplink_chat_create(edge_core *core, edge_session *s, uint64_t id, const Client__ChatCreate *create,
                             mesh_time now, mesh_out *out)
{
    const char *wrong = wrong_create(create);
    if (wrong == NULL && create->n_members > EDGE_GROUP_MAX - 1) {
        edge_core_error(core, s, id, FAULT_TOO_MANY_MEMBERS, 0, NULL, now);
        return;
    }
    bool direct = create->kind == CLIENT__CHAT_KIND__CHAT_KIND_DIRECT;
    Mesh__ChatCreate to = MESH__CHAT_CREATE__INIT;
    if (wrong == NULL && !qualify_all(core, s, create->members, create->n_members, direct ? NULL : s->user, &to.members,
                                      &to.n_members)) {
        wrong = "members: must be ids";
    }
    if (wrong != NULL) {
        edge_uplink_invalid(core, s, id, wrong, now);
        return;
    }
    mesh_qid chat;
    if (direct) {
        mesh_id_direct(s->user, to.members[0], &chat);
    } else {
        mesh_id_group(s->user, create->client_msg_id, &chat);
    }
    to.user = s->user;
    to.chat = chat.s;
    to.client_msg_id = create->client_msg_id;
    to.kind = direct ? MESH__CHAT_KIND__CHAT_DIRECT : MESH__CHAT_KIND__CHAT_GROUP;
    to.name = create->name;
    to.history = (Mesh__HistoryRule)create->history;
    if (s->name != NULL) {
        to.user_name = s->name;
    }
    MESH_MSG(msg, CHAT_CREATE, chat_create, &to);
    edge_uplink_ask(core, s, id, &msg, to.chat, MESH__MSG__BODY_SENT, now, out);
}

/* What the four edits share; to has op, name and members set. */
static void edit(edge_core *core, edge_session *s, uint64_t id, const char *chat, char *client_msg_id,
                 Mesh__ChatEdit *to, mesh_time now, mesh_out *out)
{
    to->chat = edge_uplink_qualify(core, s, chat);
    if (to->chat == NULL || !mesh_id_valid(client_msg_id)) {
        edge_uplink_invalid(core, s, id, to->chat == NULL ? "chat: must be an id" : "client_msg_id: must be an id",
                            now);
        return;
    }
    to->user = s->user;
    to->client_msg_id = client_msg_id;
    if (s->name != NULL) {
        to->user_name = s->name;
    }
    MESH_MSG(msg, CHAT_EDIT, chat_edit, to);
    edge_uplink_ask(core, s, id, &msg, to->chat, MESH__MSG__BODY_SENT, now, out);
}

/* False: answered with an error. */
static bool edit_members(edge_core *core, edge_session *s, uint64_t id, char *const *ids, size_t n, Mesh__ChatEdit *to,
                         mesh_time now)
{
    if (n > EDGE_GROUP_MAX - 1) {
        edge_core_error(core, s, id, FAULT_TOO_MANY_MEMBERS, 0, NULL, now);
        return false;
    }
    if (n == 0 || !qualify_all(core, s, ids, n, NULL, &to->members, &to->n_members)) {
        edge_uplink_invalid(core, s, id, n == 0 ? "members: at least one" : "members: must be ids", now);
        return false;
    }
    return true;
}

void edge_uplink_chat_update(edge_core *core, edge_session *s, uint64_t id, const Client__ChatUpdate *update,
                             mesh_time now, mesh_out *out)
{
    if (!edge_token_name_valid(update->name, CHAT_NAME_CODE_POINTS)) {
        edge_uplink_invalid(core, s, id, "name: 1 to 128 characters without control characters", now);
        return;
    }
    Mesh__ChatEdit to = MESH__CHAT_EDIT__INIT;
    to.op = MESH__EDIT_OP__EDIT_RENAME;
    to.name = update->name;
    edit(core, s, id, update->chat, update->client_msg_id, &to, now, out);
}

void edge_uplink_chat_add(edge_core *core, edge_session *s, uint64_t id, const Client__ChatAdd *add, mesh_time now,
                          mesh_out *out)
{
    Mesh__ChatEdit to = MESH__CHAT_EDIT__INIT;
    to.op = MESH__EDIT_OP__EDIT_ADD;
    if (edit_members(core, s, id, add->members, add->n_members, &to, now)) {
        edit(core, s, id, add->chat, add->client_msg_id, &to, now, out);
    }
}

void edge_uplink_chat_remove(edge_core *core, edge_session *s, uint64_t id, const Client__ChatRemove *remove,
                             mesh_time now, mesh_out *out)
{
    Mesh__ChatEdit to = MESH__CHAT_EDIT__INIT;
    to.op = MESH__EDIT_OP__EDIT_REMOVE;
    if (edit_members(core, s, id, remove->members, remove->n_members, &to, now)) {
        edit(core, s, id, remove->chat, remove->client_msg_id, &to, now, out);
    }
}

void edge_uplink_chat_leave(edge_core *core, edge_session *s, uint64_t id, const Client__ChatLeave *leave,
                            mesh_time now, mesh_out *out)
{
    Mesh__ChatEdit to = MESH__CHAT_EDIT__INIT;
    to.op = MESH__EDIT_OP__EDIT_LEAVE;
    edit(core, s, id, leave->chat, leave->client_msg_id, &to, now, out);
}
