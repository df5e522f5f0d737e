/* A chat list in two steps: which chats the user has, from the user's store; then each one's name, last entry and
 * unread count from the chats' stores, one shard after the other. The same for a client's request and for a session
 * that starts from resync. */
#include <assert.h>

#include "mesh/alloc.h"
#include "router/state.h"

#define CHATS_RESYNC 50
#define PREVIEW_BYTES 256u
#define LIST_BYTES (256u * 1024)
#define LIST_ELEMENTS 4096u

static router_request *ask_rows(router_core *core, const char *user, uint64_t before, uint32_t limit, mesh_peer from,
                                uint64_t corr, uint64_t trace, uint32_t ttl_ms, mesh_time now, mesh_out *out)
{
    Mesh__UserChats rows = MESH__USER_CHATS__INIT;
    rows.user = (char *)user;
    rows.before = before;
    rows.limit = limit;
    MESH_MSG(msg, USER_CHATS, user_chats, &rows);
    msg.key = (char *)user;
    msg.corr = corr;
    msg.trace = trace;
    msg.ttl_ms = ttl_ms;
    router_request *req = router_core_ask(core, ROUTER_CHATS_ROWS, user, &msg, from, now, out);
    if (req) {
        req->held_size = strlen(user) + 1;
        req->held = mesh_memdup(user, req->held_size);
    }
    return req;
}

void router_chats_ask(router_core *core, mesh_peer from, const Mesh__Msg *msg, mesh_time now, mesh_out *out)
{
    const Mesh__Chats *chats = msg->chats;
    if (strcmp(chats->user, msg->key) != 0) {
        mesh_stats_add(core->stats, ROUTER_STAT_MALFORMED, 1);
        router_core_fault(core, from, msg->corr, msg->trace, FAULT_MALFORMED, out);
        return;
    }
    (void)ask_rows(core, chats->user, chats->before, chats->limit, from, msg->corr, msg->trace, msg->ttl_ms, now, out);
}

void router_chats_for_session(router_core *core, router_session *s, const router_request *attach, mesh_time now,
                              mesh_out *out)
{
    router_request *req =
        ask_rows(core, s->user->qid, 0, CHATS_RESYNC, attach->from, attach->from_corr, attach->trace, 0, now, out);
    if (!req) {
        router_registry_release(core->registry, s); /* the edge has its fault and tries again */
        return;
    }
    req->session = s->id;
    s->attach_corr = req->corr;
}

static void done(router_core *core, router_request *req, Mesh__ChatList *list, mesh_time now, mesh_out *out)
{
    if (req->session) {
        router_attach_synced(core, req, list, now, out);
        return;
    }
    MESH_MSG(msg, CHAT_LIST, chat_list, list);
    router_core_answer(core, req, &msg, out);
}

static void failed(router_core *core, router_request *req, const Mesh__Msg *answer, mesh_out *out)
{
    router_core_answer(core, req, answer, out);
    if (req->session) {
        router_attach_failed(core, req);
    }
}

/* Of both steps together: what the first has used is gone. An attach's list has all the time of a new request. */
static uint32_t left(const router_request *req, mesh_time now)
{
    if (req->session) {
        return 0;
    }
    mesh_ms ms = req->deadline - now.mono;
    return ms > 1 ? (uint32_t)ms : 1;
}

/* What is left to be asked and what was said, in the request: the size of the first in 4 bytes, then both packed. */
static void keep_rest(router_request *req, const Mesh__Heads *rest, const Mesh__ChatList *got)
{
    mesh_buf held = { 0 };
    uint32_t size = (uint32_t)mesh_wire_size(rest);
    mesh_buf_put(&held, &size, sizeof size);
    mesh_wire_pack(rest, &held);
    mesh_wire_pack(got, &held);
    req->held = held.data;
    req->held_size = held.size;
}

static const void *unpack_own(router_core *core, const ProtobufCMessageDescriptor *type, const uint8_t *bytes,
                              size_t size)
{
    ProtobufCMessage *message = NULL;
    mesh_err err = mesh_wire_unpack(type, (mesh_slice){ bytes, size }, core->arena, &message);
    assert(err == MESH_OK);
    return message;
}

/* Borrowed from the arena. */
static void kept_rest(router_core *core, const router_request *req, const Mesh__Heads **rest,
                      const Mesh__ChatList **got)
{
    uint32_t size;
    memcpy(&size, req->held, sizeof size);
    const uint8_t *first = req->held + sizeof size;
    *rest = unpack_own(core, &mesh__heads__descriptor, first, size);
    *got = unpack_own(core, &mesh__chat_list__descriptor, first + size, req->held_size - sizeof size - size);
}

/* Ask the store of the first chat for all of its shard; the others wait in the request. got: what other shards have
 * said. */
static void ask_heads(router_core *core, const router_request *req, const Mesh__Heads *heads, const Mesh__ChatList *got,
                      mesh_time now, mesh_out *out)
{
    uint32_t shard = mesh_ring_shard_of(core->ring, heads->chats[0]->chat);
    Mesh__Heads now_asked = *heads;
    Mesh__Heads rest = *heads;
    now_asked.n_chats = rest.n_chats = 0;
    now_asked.chats = mesh_arena_alloc(core->arena, heads->n_chats * sizeof *heads->chats);
    rest.chats = mesh_arena_alloc(core->arena, heads->n_chats * sizeof *heads->chats);
    for (size_t i = 0; i < heads->n_chats; i++) {
        bool here = mesh_ring_shard_of(core->ring, heads->chats[i]->chat) == shard;
        *(here ? &now_asked.chats[now_asked.n_chats++] : &rest.chats[rest.n_chats++]) = heads->chats[i];
    }
    MESH_MSG(msg, HEADS, heads, &now_asked);
    msg.corr = req->from_corr;
    msg.trace = req->trace;
    msg.ttl_ms = left(req, now);
    msg.key = heads->chats[0]->chat;
    router_request *next = router_core_ask(core, ROUTER_CHATS_HEADS, msg.key, &msg, req->from, now, out);
    if (!next) {
        if (req->session) {
            router_attach_failed(core, req);
        }
        return;
    }
    next->has_more = req->has_more;
    next->session = req->session;
    keep_rest(next, &rest, got);
    router_session *s = req->session ? router_registry_find(core->registry, req->session) : NULL;
    if (s && s->attach_corr == req->corr) {
        s->attach_corr = next->corr;
    }
}

void router_chats_rows(router_core *core, router_request *req, const Mesh__Msg *answer, mesh_time now, mesh_out *out)
{
    if (answer->body_case != MESH__MSG__BODY_USER_CHAT_PAGE) {
        failed(core, req, answer, out);
        return;
    }
    const Mesh__UserChatPage *page = answer->user_chat_page;
    Mesh__ChatList none = MESH__CHAT_LIST__INIT;
    if (page->n_chats == 0) {
        done(core, req, &none, now, out);
        return;
    }
    Mesh__Heads heads = MESH__HEADS__INIT;
    heads.user = (char *)req->held;
    heads.chats = page->chats;
    heads.n_chats = page->n_chats;
    req->has_more = page->has_more;
    ask_heads(core, req, &heads, &none, now, out);
}

static int compare_newest(const void *a, const void *b)
{
    uint64_t x = (*(Mesh__Summary *const *)a)->inbox_seq;
    uint64_t y = (*(Mesh__Summary *const *)b)->inbox_seq;
    return (x < y) - (x > y);
}

/* What several shards said, each within a page's bounds, must be within them together: the rest is cut to previews. */
static void shorten(Mesh__ChatList *list)
{
    size_t bytes = 0;
    size_t elements = 0;
    for (size_t i = 0; i < list->n_chats; i++) {
        Mesh__Entry *last = list->chats[i]->last;
        bytes += mesh_wire_size(list->chats[i]);
        elements += last ? last->n_users + last->n_attachments : 0;
        if (!last || (bytes <= LIST_BYTES && elements <= LIST_ELEMENTS)) {
            continue;
        }
        last->n_users = last->n_attachments = 0;
        size_t size = last->body.len > PREVIEW_BYTES ? PREVIEW_BYTES : last->body.len;
        while (size > 0 && size < last->body.len && (last->body.data[size] & 0xc0) == 0x80) {
            size--; /* not within a character */
        }
        last->body.len = size;
    }
}

/* The lists of all shards as one, newest first as a single store puts them. */
static void join(router_core *core, const Mesh__ChatList *other, Mesh__ChatList *list)
{
    Mesh__Summary **all = mesh_arena_alloc(core->arena, (list->n_chats + other->n_chats + 1) * sizeof *all);
    size_t n = 0;
    for (size_t i = 0; i < other->n_chats; i++) {
        all[n++] = other->chats[i];
    }
    for (size_t i = 0; i < list->n_chats; i++) {
        all[n++] = list->chats[i];
    }
    qsort(all, n, sizeof *all, compare_newest);
    list->chats = all;
    list->n_chats = n;
    shorten(list);
}

/* What is left to be asked, and what a store could not say because its slot is on the way. */
static Mesh__Heads with_elsewhere(router_core *core, const Mesh__Heads *rest, const Mesh__ChatList *list)
{
    Mesh__Heads all = *rest;
    all.chats = mesh_arena_alloc(core->arena, (rest->n_chats + list->n_elsewhere + 1) * sizeof *all.chats);
    all.n_chats = 0;
    for (size_t i = 0; i < rest->n_chats; i++) {
        all.chats[all.n_chats++] = rest->chats[i];
    }
    for (size_t i = 0; i < list->n_elsewhere; i++) {
        all.chats[all.n_chats++] = list->elsewhere[i];
    }
    return all;
}

void router_chats_heads(router_core *core, router_request *req, const Mesh__Msg *answer, mesh_time now, mesh_out *out)
{
    if (answer->body_case != MESH__MSG__BODY_CHAT_LIST) {
        failed(core, req, answer, out);
        return;
    }
    Mesh__ChatList list = *answer->chat_list;
    list.has_more = req->has_more;
    const Mesh__Heads *left_over;
    const Mesh__ChatList *got;
    kept_rest(core, req, &left_over, &got);
    Mesh__Heads rest = with_elsewhere(core, left_over, answer->chat_list);
    list.n_elsewhere = 0;
    if (got->n_chats > 0) {
        join(core, got, &list);
    }
    if (rest.n_chats > 0) {
        ask_heads(core, req, &rest, &list, now, out);
        return;
    }
    done(core, req, &list, now, out);
}
