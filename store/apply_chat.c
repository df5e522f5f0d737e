/* chat_create and chat_edit: who is in a chat, and what it is called. */
#include <string.h>

#include "store/core.h"
#include "store/fsm.h"

static char empty[] = "";

/* The first entry of a new chat: its members are in from here on. */
static void make_chat(store_fsm *fsm, const Mesh__ChatCreate *create, uint64_t hash, char **users, size_t n,
                      Mesh__Msg *answer)
{
    bool direct = create->kind == MESH__CHAT_KIND__CHAT_DIRECT;
    mesh_fault fault = store_fsm_room(fsm, (const char *const *)users, n);
    if (fault != FAULT_NONE) {
        store_fsm_fault(fsm->arena, answer, fault);
        return;
    }
    store_chat *chat = store_chats_add(fsm->chats, create->chat, create->kind, create->history,
                                       direct ? "" : create->name, create->user, fsm->stamp);
    for (size_t i = 0; i < n; i++) {
        Mesh__Role role = i == 0 && !direct ? MESH__ROLE__ROLE_OWNER : MESH__ROLE__ROLE_MEMBER;
        store_member *member;
        if (store_chat_join(chat, users[i], role, 1, &member) == MESH_OK) { /* n is bounded: there is room */
            store_chat_save_member(chat, member, fsm->rows);
        }
    }
    store_chat_save(chat, fsm->rows);
    Mesh__Entry *entry = store_fsm_entry_new(fsm, MESH__ENTRY_KIND__ENTRY_CREATED, create->user, create->user_name,
                                             create->client_msg_id);
    entry->name = chat->name;
    entry->users = users;
    entry->n_users = n;
    entry->chat_kind = create->kind;
    store_fsm_store(fsm, chat, entry);
    entry->name = mesh_arena_strdup(fsm->arena, chat->name);
    store_fsm_remember(fsm, create->chat, create->user, create->client_msg_id, hash, entry->seq);
    store_fsm_sent(fsm, entry, create->client_msg_id, false, answer);
}

static void create_direct(store_fsm *fsm, const Mesh__ChatCreate *create, uint64_t hash, Mesh__Msg *answer)
{
    mesh_qid direct;
    if (create->n_members != 1) {
        store_fsm_fault(fsm->arena, answer, FAULT_INVALID);
        return;
    }
    mesh_id_direct(create->user, create->members[0], &direct);
    if (strcmp(direct.s, create->chat) != 0) {
        store_fsm_fault(fsm->arena, answer, FAULT_INVALID);
        return;
    }
    store_chat *chat;
    Mesh__Entry *first;
    mesh_err err = store_chats_get(fsm->chats, create->chat, &chat);
    if (err == MESH_OK) {
        err = store_fsm_entry(fsm, fsm->arena, chat->slot, create->chat, 1, &first);
        if (err == MESH_OK) {
            store_fsm_sent(fsm, first, create->client_msg_id, true, answer);
        } else {
            store_fsm_missing(fsm, err, create->chat, 1, answer);
        }
    } else if (err != MESH_NOT_FOUND) {
        store_fsm_broken(fsm, fsm->arena, answer);
    } else {
        bool notes = strcmp(create->user, create->members[0]) == 0;
        char **users = mesh_arena_alloc(fsm->arena, 2 * sizeof *users);
        users[0] = create->user;
        users[1] = create->members[0];
        make_chat(fsm, create, hash, users, notes ? 1 : 2, answer);
    }
}

/* The creator, then the others by id, each once: as they come, store/check.h has seen to that. */
static char **distinct_members(store_fsm *fsm, const Mesh__ChatCreate *create, size_t *n_p)
{
    char **users = mesh_arena_alloc(fsm->arena, (create->n_members + 1) * sizeof *users);
    size_t n = 1;
    users[0] = create->user;
    for (size_t i = 0; i < create->n_members; i++) {
        if (strcmp(create->members[i], create->user) != 0) {
            users[n++] = create->members[i];
        }
    }
    *n_p = n;
    return users;
}

static void create_group(store_fsm *fsm, const Mesh__ChatCreate *create, uint64_t hash, Mesh__Msg *answer)
{
    store_chat *chat;
    size_t n;
    mesh_err err = store_chats_get(fsm->chats, create->chat, &chat);
    if (err == MESH_OK) {
        store_fsm_fault(fsm->arena, answer, FAULT_CONFLICT);
        return;
    }
    if (err != MESH_NOT_FOUND) {
        store_fsm_broken(fsm, fsm->arena, answer);
        return;
    }
    if (mesh_id_is_direct(create->chat)) {
        store_fsm_fault(fsm->arena, answer, FAULT_INVALID);
        return;
    }
    char **users = distinct_members(fsm, create, &n);
    if (n > STORE_GROUP_MEMBERS_MAX) {
        store_fsm_fault(fsm->arena, answer, FAULT_TOO_MANY_MEMBERS);
        return;
    }
    make_chat(fsm, create, hash, users, n, answer);
}

void store_apply_chat_create(store_fsm *fsm, const Mesh__Msg *msg, Mesh__Msg *answer)
{
    const Mesh__ChatCreate *create = msg->chat_create;
    Mesh__ChatCreate content = *create;
    content.user_name = empty;
    uint64_t hash = store_fsm_hash(fsm, msg->body_case, &content);
    if (store_fsm_seen(fsm, create->chat, create->user, create->client_msg_id, hash, answer)) {
        return;
    }
    if (create->kind == MESH__CHAT_KIND__CHAT_DIRECT) {
        create_direct(fsm, create, hash, answer);
    } else {
        create_group(fsm, create, hash, answer);
    }
}

/* ---- chat_edit ---- */

/* What an edit is about: filled by each operation's check, before anything is changed. */
typedef struct edit {
    const Mesh__ChatEdit *request;
    store_chat *chat;
    store_member *by;
    char **users; /* affected, each once */
    size_t n_users;
} edit;

static void edit_users_alloc(store_fsm *fsm, edit *e)
{
    e->users = mesh_arena_alloc(fsm->arena, (e->request->n_members + 1) * sizeof *e->users);
}

/* Those of the request who are not members yet. */
static mesh_fault check_add(store_fsm *fsm, edit *e)
{
    edit_users_alloc(fsm, e);
    size_t fresh = 0;
    for (size_t i = 0; i < e->request->n_members; i++) {
        char *user = e->request->members[i];
        const store_member *member = store_chat_member(e->chat, user);
        if (member != NULL && store_member_present(member)) {
            continue;
        }
        if (e->chat->member_count + e->n_users >= STORE_GROUP_MEMBERS_MAX) {
            return FAULT_TOO_MANY_MEMBERS;
        }
        if (member != NULL && member->n_spans >= STORE_SPANS_MAX) {
            return FAULT_INVALID;
        }
        fresh += member == NULL ? 1 : 0;
        e->users[e->n_users++] = user;
    }
    if (e->chat->n_members + fresh > STORE_MEMBER_ROWS_MAX) {
        return FAULT_TOO_MANY_MEMBERS;
    }
    return store_fsm_room(fsm, (const char *const *)e->users, e->n_users);
}

/* Those of the request who are members. */
static mesh_fault check_remove(store_fsm *fsm, edit *e)
{
    edit_users_alloc(fsm, e);
    for (size_t i = 0; i < e->request->n_members; i++) {
        char *user = e->request->members[i];
        const store_member *member = store_chat_member(e->chat, user);
        if (member == NULL || !store_member_present(member)) {
            continue;
        }
        if (member->role == MESH__ROLE__ROLE_OWNER) {
            return FAULT_DENIED;
        }
        e->users[e->n_users++] = user;
    }
    return FAULT_NONE;
}

static mesh_fault check_edit(store_fsm *fsm, edit *e)
{
    if (e->chat->kind == MESH__CHAT_KIND__CHAT_DIRECT) {
        return FAULT_DENIED;
    }
    bool manager = e->by->role == MESH__ROLE__ROLE_OWNER || e->by->role == MESH__ROLE__ROLE_ADMIN;
    if (e->request->op != MESH__EDIT_OP__EDIT_LEAVE && !manager) {
        return FAULT_DENIED;
    }
    switch (e->request->op) {
    case MESH__EDIT_OP__EDIT_ADD:
        return check_add(fsm, e);
    case MESH__EDIT_OP__EDIT_REMOVE:
        return check_remove(fsm, e);
    case MESH__EDIT_OP__EDIT_LEAVE:
        edit_users_alloc(fsm, e);
        e->users[e->n_users++] = e->request->user;
        return FAULT_NONE;
    case MESH__EDIT_OP__EDIT_RENAME:
        return FAULT_NONE;
    default:
        return FAULT_INVALID;
    }
}

static Mesh__EntryKind kind_of(Mesh__EditOp op)
{
    switch (op) {
    case MESH__EDIT_OP__EDIT_ADD:
        return MESH__ENTRY_KIND__ENTRY_ADDED;
    case MESH__EDIT_OP__EDIT_REMOVE:
        return MESH__ENTRY_KIND__ENTRY_REMOVED;
    case MESH__EDIT_OP__EDIT_LEAVE:
        return MESH__ENTRY_KIND__ENTRY_LEFT;
    default:
        return MESH__ENTRY_KIND__ENTRY_RENAMED;
    }
}

/* The owner goes: the earliest admin takes over, else the earliest member, by id among equals. */
static void pass_ownership(store_fsm *fsm, store_chat *chat)
{
    store_member *heir = NULL;
    for (size_t i = 0; i < chat->n_members; i++) {
        store_member *m = chat->members[i];
        if (!store_member_present(m)) {
            continue;
        }
        uint64_t since = m->spans[m->n_spans - 1].from;
        bool admin = m->role == MESH__ROLE__ROLE_ADMIN;
        bool heir_admin = heir != NULL && heir->role == MESH__ROLE__ROLE_ADMIN;
        if (heir == NULL || (admin && !heir_admin) ||
            (admin == heir_admin && since < heir->spans[heir->n_spans - 1].from)) {
            heir = m;
        }
    }
    if (heir != NULL) {
        heir->role = MESH__ROLE__ROLE_OWNER;
        store_chat_save_member(chat, heir, fsm->rows);
    }
}

/* The entry has its seq: spans open or close at it. Nothing here can fail: check_edit has seen to that. */
static void change_members(store_fsm *fsm, const edit *e, const Mesh__Entry *entry)
{
    bool add = e->request->op == MESH__EDIT_OP__EDIT_ADD;
    bool owner_leaves = e->request->op == MESH__EDIT_OP__EDIT_LEAVE && e->by->role == MESH__ROLE__ROLE_OWNER;
    for (size_t i = 0; i < e->n_users; i++) {
        store_member *member = store_chat_member(e->chat, e->users[i]);
        if (add) {
            if (store_chat_join(e->chat, e->users[i], MESH__ROLE__ROLE_MEMBER, entry->seq, &member) != MESH_OK) {
                continue;
            }
            if (member->read_count < entry->count) {
                member->read_count = entry->count; /* what was said before is not unread to a newcomer */
            }
        } else {
            store_chat_part(e->chat, member, entry->seq);
        }
        store_chat_save_member(e->chat, member, fsm->rows);
    }
    if (owner_leaves) {
        pass_ownership(fsm, e->chat);
    }
    if (e->request->op == MESH__EDIT_OP__EDIT_RENAME) {
        store_chat_rename(e->chat, e->request->name);
    }
    store_chat_save(e->chat, fsm->rows);
}

/* There was nothing to do: the head stands for it. */
static void sent_head(store_fsm *fsm, const edit *e, Mesh__Msg *answer)
{
    Mesh__Entry head = MESH__ENTRY__INIT;
    head.chat = e->request->chat;
    head.seq = e->chat->head_seq;
    head.id = e->chat->head_id;
    head.ts_ms = e->chat->head_ts;
    store_fsm_sent(fsm, &head, e->request->client_msg_id, true, answer);
}

void store_apply_chat_edit(store_fsm *fsm, const Mesh__Msg *msg, Mesh__Msg *answer)
{
    const Mesh__ChatEdit *request = msg->chat_edit;
    Mesh__ChatEdit content = *request;
    content.user_name = empty;
    uint64_t hash = store_fsm_hash(fsm, msg->body_case, &content);
    if (store_fsm_seen(fsm, request->chat, request->user, request->client_msg_id, hash, answer)) {
        return;
    }
    edit e = { .request = request };
    mesh_err err = store_chats_get(fsm->chats, request->chat, &e.chat);
    if (err != MESH_OK && err != MESH_NOT_FOUND) {
        store_fsm_broken(fsm, fsm->arena, answer);
        return;
    }
    e.by = err == MESH_OK ? store_chat_member(e.chat, request->user) : NULL;
    mesh_fault fault = e.by == NULL                  ? FAULT_NOT_FOUND
                       : !store_member_present(e.by) ? FAULT_DENIED
                                                     : check_edit(fsm, &e);
    if (fault != FAULT_NONE) {
        store_fsm_fault(fsm->arena, answer, fault);
        return;
    }
    if (e.n_users == 0 && request->op != MESH__EDIT_OP__EDIT_RENAME) {
        store_fsm_remember(fsm, request->chat, request->user, request->client_msg_id, hash, e.chat->head_seq);
        sent_head(fsm, &e, answer);
        return;
    }
    Mesh__Entry *entry =
        store_fsm_entry_new(fsm, kind_of(request->op), request->user, request->user_name, request->client_msg_id);
    entry->users = e.users;
    entry->n_users = e.n_users;
    /* with the name: a newcomer has no other way to it, and it is all a removed member may ever see of it */
    entry->name =
        request->op == MESH__EDIT_OP__EDIT_RENAME ? request->name : mesh_arena_strdup(fsm->arena, e.chat->name);
    store_fsm_store(fsm, e.chat, entry);
    change_members(fsm, &e, entry);
    store_fsm_remember(fsm, request->chat, request->user, request->client_msg_id, hash, entry->seq);
    store_fsm_sent(fsm, entry, request->client_msg_id, false, answer);
}
