/* A chat list in two steps: which chats the user has, from the user's store; then each one's name, last entry and
 * unread count from the chats' stores, all shards at once. The same for a client's request and for a session that
 * starts from resync.
 *
 * The second step is a request that is never sent itself (ROUTER_CHATS_LIST): it knows who gets the list, what was said
 * so far and of which chats nothing was; and one request per shard (ROUTER_CHATS_HEADS), which has the first one's
 * corr. A shard that does not answer in time is not waited for: the list has its chats with what the user's store
 * knows, marked unavailable. */
#include <assert.h>

#include "mesh/alloc.h"
#include "router/state.h"

#define CHATS_RESYNC 50
#define LIST_CHATS 200u /* of a page; no store tells more */
#define LIST_BYTES (256u * 1024)
#define LIST_ELEMENTS 4096u
#define PREVIEW_BYTES 256u  /* of a body beyond these two */
#define SUMMARY_BYTES 3072u /* of all of such a summary; a store's is shorter */

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
    list->has_more = req->has_more;
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

/* The second step ends this long after it began, and well before whoever asked stops waiting. */
static mesh_ms list_wait(const router_core *core, const router_request *req, mesh_time now)
{
    mesh_ms half = (req->session ? core->ttl_ms : req->deadline - now.mono) / 2;
    return half < ROUTER_LIST_WAIT_MS ? half : ROUTER_LIST_WAIT_MS;
}

/* Chats of which nothing was said yet, and what was said of the others: the size of the first in 4 bytes, then both
 * packed. */
static void keep(router_request *list, const Mesh__Heads *open, const Mesh__ChatList *got)
{
    mesh_buf held = { 0 };
    uint32_t size = (uint32_t)mesh_wire_size(open);
    mesh_buf_put(&held, &size, sizeof size);
    mesh_wire_pack(open, &held);
    mesh_wire_pack(got, &held);
    free(list->held);
    list->held = held.data;
    list->held_size = held.size;
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
static void kept(router_core *core, const router_request *list, const Mesh__Heads **open, const Mesh__ChatList **got)
{
    uint32_t size;
    memcpy(&size, list->held, sizeof size);
    const uint8_t *first = list->held + sizeof size;
    *open = unpack_own(core, &mesh__heads__descriptor, first, size);
    *got = unpack_own(core, &mesh__chat_list__descriptor, first + size, list->held_size - sizeof size - size);
}

static bool has(Mesh__HeadAsk *const *chats, size_t n, const char *chat)
{
    for (size_t i = 0; i < n; i++) {
        if (strcmp(chats[i]->chat, chat) == 0) {
            return true;
        }
    }
    return false;
}

static Mesh__Heads without(router_core *core, const Mesh__Heads *heads, Mesh__HeadAsk *const *chats, size_t n)
{
    Mesh__Heads rest = *heads;
    rest.n_chats = 0;
    rest.chats = mesh_arena_alloc(core->arena, (heads->n_chats + 1) * sizeof *rest.chats);
    for (size_t i = 0; i < heads->n_chats; i++) {
        if (!has(chats, n, heads->chats[i]->chat)) {
            rest.chats[rest.n_chats++] = heads->chats[i];
        }
    }
    return rest;
}

/* What the user's store knows of a chat whose own store says nothing. */
static void say_unavailable(Mesh__Summary *s, char *chat, uint64_t inbox_seq)
{
    mesh__summary__init(s);
    s->chat = chat;
    s->kind = mesh_id_is_direct(chat) ? MESH__CHAT_KIND__CHAT_DIRECT : MESH__CHAT_KIND__CHAT_GROUP;
    s->inbox_seq = inbox_seq;
    s->unavailable = true;
}

static Mesh__ChatList unavailable(router_core *core, const Mesh__Heads *heads)
{
    Mesh__ChatList list = MESH__CHAT_LIST__INIT;
    list.chats = mesh_arena_alloc(core->arena, (heads->n_chats + 1) * sizeof *list.chats);
    for (size_t i = 0; i < heads->n_chats; i++) {
        Mesh__Summary *s = list.chats[list.n_chats++] = mesh_arena_alloc(core->arena, sizeof *s);
        say_unavailable(s, heads->chats[i]->chat, heads->chats[i]->inbox_seq);
    }
    mesh_stats_add(core->stats, ROUTER_STAT_UNAVAILABLE, list.n_chats);
    return list;
}

static int compare_newest(const void *a, const void *b)
{
    uint64_t x = (*(Mesh__Summary *const *)a)->inbox_seq;
    uint64_t y = (*(Mesh__Summary *const *)b)->inbox_seq;
    return (x < y) - (x > y);
}

/* As mesh/wire.c counts, but for the summary and its entry. */
static size_t elements_of(const Mesh__Summary *s)
{
    size_t n = s->base.n_unknown_fields;
    if (s->last) {
        n += s->last->base.n_unknown_fields + s->last->n_users + s->last->n_attachments;
        for (size_t i = 0; i < s->last->n_attachments; i++) {
            n += s->last->attachments[i]->base.n_unknown_fields;
        }
    }
    return n;
}

static void cut_entry(Mesh__Entry *last)
{
    last->base.n_unknown_fields = 0;
    last->n_users = last->n_attachments = 0;
    size_t size = last->body.len > PREVIEW_BYTES ? PREVIEW_BYTES : last->body.len;
    while (size > 0 && size < last->body.len && (last->body.data[size] & 0xc0) == 0x80) {
        size--; /* not within a character */
    }
    last->body.len = size;
}

/* What several shards said, each within a page's bounds, must be within them together: the rest is cut to previews. So
 * it fits a message, whatever they said. */
static void shorten(router_core *core, Mesh__ChatList *list)
{
    size_t bytes = 0;
    size_t elements = 0;
    for (size_t i = 0; i < list->n_chats; i++) {
        Mesh__Summary *s = list->chats[i];
        bytes += mesh_wire_size(s);
        elements += elements_of(s);
        if (bytes <= LIST_BYTES && elements <= LIST_ELEMENTS) {
            continue;
        }
        s->base.n_unknown_fields = 0;
        if (s->last) {
            cut_entry(s->last);
        }
        if (mesh_wire_size(s) > SUMMARY_BYTES) {
            say_unavailable(s, s->chat, s->inbox_seq);
            mesh_stats_add(core->stats, ROUTER_STAT_MALFORMED, 1);
        }
    }
}

/* The lists of several shards as one, newest first as a single store puts them. */
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
    shorten(core, list);
}

/* All that can be said of these chats; with the last of them the list goes out, and is removed. */
static void learn(router_core *core, router_request *list, const Mesh__Heads *chats, Mesh__ChatList said, mesh_time now,
                  mesh_out *out)
{
    const Mesh__Heads *open;
    const Mesh__ChatList *got;
    kept(core, list, &open, &got);
    Mesh__Heads rest = without(core, open, chats->chats, chats->n_chats);
    join(core, got, &said);
    if (rest.n_chats > 0) {
        keep(list, &rest, &said);
        return;
    }
    done(core, list, &said, now, out);
    router_requests_remove(core->requests, list);
}

/* Of one shard. */
static void ask_part(router_core *core, router_request *list, Mesh__Heads *part, mesh_time now, mesh_out *out)
{
    MESH_MSG(msg, HEADS, heads, part);
    mesh_ms left = list->deadline - now.mono;
    msg.corr = list->corr;
    msg.trace = list->trace;
    msg.ttl_ms = left > 1 ? (uint32_t)left : 1;
    msg.key = part->chats[0]->chat;
    if (!router_core_ask(core, ROUTER_CHATS_HEADS, msg.key, &msg, MESH_NO_PEER, now, out)) {
        learn(core, list, part, unavailable(core, part), now, out);
    }
}

/* The list waits for all of them, so it is there until the last part is asked. */
static void ask_heads(router_core *core, router_request *list, const Mesh__Heads *heads, mesh_time now, mesh_out *out)
{
    bool *asked = mesh_arena_alloc(core->arena, heads->n_chats * sizeof *asked + 1);
    for (size_t i = 0; i < heads->n_chats; i++) {
        uint32_t shard = mesh_ring_shard_of(core->ring, heads->chats[i]->chat);
        Mesh__Heads part = *heads;
        part.n_chats = 0;
        part.chats = mesh_arena_alloc(core->arena, heads->n_chats * sizeof *part.chats);
        for (size_t j = i; j < heads->n_chats; j++) {
            if (!asked[j] && mesh_ring_shard_of(core->ring, heads->chats[j]->chat) == shard) {
                asked[j] = true;
                part.chats[part.n_chats++] = heads->chats[j];
            }
        }
        if (part.n_chats > 0) {
            ask_part(core, list, &part, now, out);
        }
    }
}

static void begin_list(router_core *core, const router_request *req, const Mesh__Heads *heads, mesh_time now,
                       mesh_out *out)
{
    Mesh__ChatList none = MESH__CHAT_LIST__INIT;
    router_session *s = req->session ? router_registry_find(core->registry, req->session) : NULL;
    router_request *list =
        router_requests_add(core->requests, ROUTER_CHATS_LIST, req->shard, now.mono + list_wait(core, req, now), 0);
    if (!list) {
        mesh_stats_add(core->stats, ROUTER_STAT_BUSY, 1);
        router_core_fault(core, req->from, req->from_corr, req->trace, FAULT_BUSY, out);
        router_attach_failed(core, req);
        return;
    }
    list->bound = true; /* to no shard: it stays as it is when slots move */
    list->from = req->from;
    list->from_corr = req->from_corr;
    list->trace = req->trace;
    list->session = req->session;
    list->has_more = req->has_more;
    router_requests_move(core->requests, list, ROUTER_UNSENT, MESH_NEVER);
    if (s && s->attach_corr == req->corr) {
        s->attach_corr = list->corr;
    }
    keep(list, heads, &none);
    ask_heads(core, list, heads, now, out);
}

/* Ids, each once, and no more than a page has: any other row is malformed. */
static Mesh__Heads rows_of(router_core *core, const Mesh__UserChatPage *page)
{
    Mesh__Heads heads = MESH__HEADS__INIT;
    heads.chats = mesh_arena_alloc(core->arena, LIST_CHATS * sizeof *heads.chats);
    for (size_t i = 0; i < page->n_chats; i++) {
        char *chat = page->chats[i]->chat;
        if (heads.n_chats < LIST_CHATS && mesh_qid_valid(chat) && !has(heads.chats, heads.n_chats, chat)) {
            heads.chats[heads.n_chats++] = page->chats[i];
        } else {
            mesh_stats_add(core->stats, ROUTER_STAT_MALFORMED, 1);
        }
    }
    return heads;
}

void router_chats_rows(router_core *core, router_request *req, const Mesh__Msg *answer, mesh_time now, mesh_out *out)
{
    if (answer->body_case != MESH__MSG__BODY_USER_CHAT_PAGE) {
        failed(core, req, answer, out);
        return;
    }
    const Mesh__UserChatPage *page = answer->user_chat_page;
    Mesh__ChatList none = MESH__CHAT_LIST__INIT;
    Mesh__Heads heads = rows_of(core, page);
    if (heads.n_chats == 0) {
        done(core, req, &none, now, out);
        return;
    }
    req->has_more = page->has_more;
    heads.user = (char *)req->held;
    begin_list(core, req, &heads, now, out);
}

/* Of what a store says, a summary of each chat that it was asked for; any other is malformed. */
static Mesh__ChatList only_asked(router_core *core, const Mesh__Heads *asked, const Mesh__ChatList *said)
{
    Mesh__ChatList list = MESH__CHAT_LIST__INIT;
    bool *seen = mesh_arena_alloc(core->arena, asked->n_chats * sizeof *seen + 1);
    list.chats = mesh_arena_alloc(core->arena, (asked->n_chats + 1) * sizeof *list.chats);
    for (size_t i = 0; i < said->n_chats; i++) {
        size_t at = 0;
        while (at < asked->n_chats && (seen[at] || strcmp(asked->chats[at]->chat, said->chats[i]->chat) != 0)) {
            at++;
        }
        if (at < asked->n_chats) {
            seen[at] = true;
            list.chats[list.n_chats++] = said->chats[i];
        } else {
            mesh_stats_add(core->stats, ROUTER_STAT_MALFORMED, 1);
        }
    }
    return list;
}

void router_chats_heads(router_core *core, const router_request *req, const Mesh__Msg *answer, mesh_time now,
                        mesh_out *out)
{
    router_request *list = router_requests_find(core->requests, req->from_corr);
    if (!list) {
        return; /* it did not wait for this */
    }
    const Mesh__Msg *asked = unpack_own(core, &mesh__msg__descriptor, req->kept, req->kept_size);
    if (answer->body_case != MESH__MSG__BODY_CHAT_LIST) {
        learn(core, list, asked->heads, unavailable(core, asked->heads), now, out);
        return;
    }
    const Mesh__ChatList *said = answer->chat_list;
    Mesh__Heads told = without(core, asked->heads, said->elsewhere, said->n_elsewhere);
    Mesh__Heads again = without(core, asked->heads, told.chats, told.n_chats); /* their slot is on the way */
    learn(core, list, &told, only_asked(core, &told, said), now, out);
    if (again.n_chats > 0) {
        ask_heads(core, list, &again, now, out);
    }
}

void router_chats_late(router_core *core, router_request *list, mesh_time now, mesh_out *out)
{
    const Mesh__Heads *open;
    const Mesh__ChatList *got;
    kept(core, list, &open, &got);
    Mesh__ChatList all = unavailable(core, open);
    join(core, got, &all);
    done(core, list, &all, now, out);
}
