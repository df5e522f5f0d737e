/* send and read: what members do to a chat. */
#include <string.h>

#include "store/fsm.h"
#include "store/metrics.h"

static char empty[] = "";

/* A direct chat comes into being with its first message: user and peer are its members from seq 1 on. */
static mesh_fault make_direct(store_fsm *fsm, const Mesh__Send *send, store_chat **chat_p)
{
    if (send->peer[0] == '\0') {
        return FAULT_NOT_FOUND;
    }
    mesh_qid direct;
    mesh_id_direct(send->user, send->peer, &direct);
    if (strcmp(direct.s, send->chat) != 0) {
        return FAULT_INVALID;
    }
    const char *const users[2] = { send->user, send->peer };
    mesh_fault fault = store_fsm_room(fsm, users, 2);
    if (fault != FAULT_NONE) {
        return fault;
    }
    store_chat *chat = store_chats_add(fsm->chats, send->chat, MESH__CHAT_KIND__CHAT_DIRECT,
                                       MESH__HISTORY_RULE__HISTORY_ALL, "", send->user, fsm->stamp);
    for (unsigned i = 0; i < 2; i++) {
        store_member *member;
        if (store_chat_member(chat, users[i]) == NULL &&
            store_chat_join(chat, users[i], MESH__ROLE__ROLE_MEMBER, 1, &member) == MESH_OK) {
            store_chat_save_member(chat, member, fsm->rows);
        }
    }
    store_chat_save(chat, fsm->rows);
    *chat_p = chat;
    return FAULT_NONE;
}

static mesh_fault find_chat(store_fsm *fsm, const Mesh__Send *send, store_chat **chat_p)
{
    mesh_err err = store_chats_get(fsm->chats, send->chat, chat_p);
    if (err == MESH_NOT_FOUND) {
        return make_direct(fsm, send, chat_p);
    }
    if (err != MESH_OK) {
        fsm->error = err;
        return FAULT_UNAVAILABLE;
    }
    const store_member *member = store_chat_member(*chat_p, send->user);
    if (member == NULL) {
        return FAULT_NOT_FOUND;
    }
    return store_member_present(member) ? FAULT_NONE : FAULT_DENIED;
}

void store_apply_send(store_fsm *fsm, const Mesh__Msg *msg, Mesh__Msg *answer)
{
    const Mesh__Send *send = msg->send;
    Mesh__Send content = *send;
    content.user_name = empty; /* a repetition after a rename is still the same request */
    content.peer = empty;      /* and so is one that names the chat and not the user */
    uint64_t hash = store_fsm_hash(fsm, msg->body_case, &content);
    if (store_fsm_seen(fsm, send->chat, send->user, send->client_msg_id, hash, answer)) {
        return;
    }
    store_chat *chat;
    mesh_fault fault = find_chat(fsm, send, &chat);
    if (fault != FAULT_NONE) {
        store_fsm_fault(fsm->arena, answer, fault);
        return;
    }
    Mesh__Entry *entry =
        store_fsm_entry_new(fsm, MESH__ENTRY_KIND__ENTRY_TEXT, send->user, send->user_name, send->client_msg_id);
    entry->content_type = send->content_type;
    entry->body = send->body;
    entry->n_attachments = send->n_attachments;
    entry->attachments = send->attachments;
    store_fsm_store(fsm, chat, entry);
    store_fsm_remember(fsm, send->chat, send->user, send->client_msg_id, hash, entry->seq);
    store_fsm_sent(fsm, entry, send->client_msg_id, false, answer);
}

/* Read up to seq. An entry that is not there has no count: what is unread stays as it was. */
static void apply_mark(store_fsm *fsm, store_chat *chat, store_member *member, uint64_t seq, Mesh__Msg *answer)
{
    Mesh__Entry *entry;
    mesh_err err = store_fsm_entry(fsm, fsm->arena, chat->slot, chat->id, seq, &entry);
    if (err != MESH_OK && err != MESH_NOT_FOUND) {
        store_fsm_broken(fsm, fsm->arena, answer);
        return;
    }
    member->read_seq = seq;
    if (err == MESH_NOT_FOUND) {
        store_fsm_absent(fsm, chat->id, seq);
    } else if (entry->count > member->read_count) {
        member->read_count = entry->count;
    }
    store_chat_save_member(chat, member, fsm->rows);
    store_fsm_done(fsm->arena, answer);
}

void store_apply_read(store_fsm *fsm, const Mesh__Msg *msg, Mesh__Msg *answer)
{
    const Mesh__Read *read = msg->read;
    store_chat *chat;
    mesh_err err = store_chats_get(fsm->chats, read->chat, &chat);
    store_member *member = err == MESH_OK ? store_chat_member(chat, read->user) : NULL;
    if (err != MESH_OK && err != MESH_NOT_FOUND) {
        store_fsm_broken(fsm, fsm->arena, answer);
    } else if (member == NULL) {
        store_fsm_fault(fsm->arena, answer, FAULT_NOT_FOUND);
    } else if (read->seq > store_member_end(member, chat->head_seq)) {
        store_fsm_fault(fsm->arena, answer, FAULT_INVALID);
    } else if (read->seq <= member->read_seq) {
        store_fsm_done(fsm->arena, answer);
    } else {
        apply_mark(fsm, chat, member, read->seq, answer);
    }
}
