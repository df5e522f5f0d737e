#include <string.h>

#include "edge/state.h"

char *edge_event_bare(const char *qid)
{
    return (char *)(uintptr_t)(qid[0] == '\0' ? qid : mesh_qid_bare(qid));
}

static void *copy_array(mesh_arena *arena, size_t n)
{
    return mesh_arena_alloc(arena, n * sizeof(void *) + 1);
}

static Client__Attachment **attachments(mesh_arena *arena, Mesh__Attachment *const *from, size_t n)
{
    Client__Attachment **to = copy_array(arena, n);
    for (size_t i = 0; i < n; i++) {
        to[i] = mesh_arena_alloc(arena, sizeof *to[i]);
        client__attachment__init(to[i]);
        to[i]->ref = from[i]->ref;
        to[i]->name = from[i]->name;
        to[i]->content_type = from[i]->content_type;
        to[i]->size = from[i]->size;
    }
    return to;
}

void edge_event_message(mesh_arena *arena, const Mesh__Entry *entry, Client__Message *out)
{
    client__message__init(out);
    out->chat = edge_event_bare(entry->chat);
    out->seq = entry->seq;
    out->message_id = entry->id;
    out->ts_ms = entry->ts_ms;
    out->kind = (Client__EntryKind)entry->kind;
    out->sender = edge_event_bare(entry->sender);
    out->sender_name = entry->sender_name;
    out->client_msg_id = entry->client_msg_id;
    out->content_type = entry->content_type;
    if (entry->body.len > 0) {
        out->body = mesh_arena_alloc(arena, entry->body.len + 1);
        memcpy(out->body, entry->body.data, entry->body.len);
    }
    out->n_attachments = entry->n_attachments;
    out->attachments = attachments(arena, entry->attachments, entry->n_attachments);
    out->count = entry->count;
    out->n_users = entry->n_users;
    out->users = copy_array(arena, entry->n_users);
    for (size_t i = 0; i < entry->n_users; i++) {
        out->users[i] = edge_event_bare(entry->users[i]);
    }
    out->name = entry->name;
    out->chat_kind = (Client__ChatKind)entry->chat_kind;
}

Client__Summary **edge_event_summaries(mesh_arena *arena, Mesh__Summary *const *chats, size_t n)
{
    Client__Summary **to = copy_array(arena, n);
    for (size_t i = 0; i < n; i++) {
        const Mesh__Summary *from = chats[i];
        Client__Summary *s = to[i] = mesh_arena_alloc(arena, sizeof *s);
        client__summary__init(s);
        s->chat = edge_event_bare(from->chat);
        s->kind = (Client__ChatKind)from->kind;
        s->name = from->name;
        s->peer = edge_event_bare(from->peer);
        if (from->last != NULL) {
            s->last = mesh_arena_alloc(arena, sizeof *s->last);
            edge_event_message(arena, from->last, s->last);
        }
        s->unread = from->unread;
        s->read_seq = from->read_seq;
        s->member_count = from->member_count;
        s->role = (Client__Role)from->role;
        s->inbox_seq = from->inbox_seq;
        s->unavailable = from->unavailable;
    }
    return to;
}
