/* Parcels on their way. A parcel is sent when its router is up and has less than STORE_OUTBOX_FLIGHT_MAX unanswered;
 * else it is held, and everything after it for that router, until answers or a lost link have made room. A parcel whose
 * answer is late no longer counts as on its way: it is sent again in its place of the order, by the same rule. */
#include <stdlib.h>
#include <string.h>

#include "mesh/alloc.h"
#include "store/core.h"
#include "store/metrics.h"
#include "store/outbox_state.h"

#define RETRY_MS 50     /* after a gap, or when the router asked for a retry; doubles while that goes on */
#define GAP_ENTRIES 256 /* sent at once to fill gaps */
#define WAIT_MAX (8 * STORE_RESEND_MS)

typedef store_outbox_item item;

/* ---- sending ---- */

void store_outbox_land(store_outbox *ob, store_parcel *p)
{
    if (p->flight > 0) {
        ob->routers[p->peer].flight -= p->flight;
        p->flight = 0;
    }
}

static mesh_ms twice(mesh_ms wait)
{
    return wait * 2 > WAIT_MAX ? WAIT_MAX : wait * 2;
}

static void due_at(store_outbox *ob, store_parcel *p, mesh_ms due)
{
    p->due = due;
    ob->next_due = due < ob->next_due ? due : ob->next_due;
}

static void send_parcel(store_outbox *ob, const item *it, store_parcel *p, Mesh__Entry *entry, mesh_time now,
                        mesh_out *out)
{
    Mesh__Deliver deliver = MESH__DELIVER__INIT;
    deliver.item = it->id;
    deliver.parcel = p->number;
    deliver.entry = entry;
    deliver.n_users = p->n;
    deliver.users = p->list;
    MESH_MSG(msg, DELIVER, deliver, &deliver);
    msg.trace = it->trace;
    msg.epoch = mesh_ring_epoch(ob->fsm->ring);
    /* A router of a newer ring than ours has attached users here: it must hear of new heads, and only an append, which
     * its fence refuses to the owner that we know, makes sure of that. */
    deliver.era = msg.epoch >= ob->fsm->fence_max ? ob->fsm->era : 0;
    mesh_out_put(out, p->peer, &msg);
    mesh_stats_add(ob->fsm->stats, p->sent ? STORE_M_RESENT : STORE_M_PARCELS, 1);
    p->backoff = p->sent ? twice(p->backoff) : p->backoff;
    p->sent = true;
    p->gap = false;
    p->flight = mesh_wire_size(&msg);
    ob->routers[p->peer].flight += p->flight;
    due_at(ob, p, now.mono + p->backoff);
}

bool store_outbox_reachable(const store_outbox *ob, mesh_peer router)
{
    return router != MESH_NO_PEER && ob->routers[router].up && mesh_ring_has(ob->fsm->ring, router);
}

Mesh__Entry *store_outbox_entry(store_outbox *ob, const char *chat, uint64_t seq)
{
    Mesh__Entry *entry;
    mesh_err err = store_fsm_entry(ob->fsm, ob->arena, mesh_ring_slot(ob->fsm->ring, chat), chat, seq, &entry);
    if (err == MESH_NOT_FOUND) {
        store_fsm_absent(ob->fsm, chat, seq);
    } else if (err != MESH_OK) {
        ob->fsm->error = MESH_CORRUPT;
    }
    return err == MESH_OK ? entry : NULL;
}

/* Is it this parcel's turn? One that is due and has no room is held. */
static bool may_go(store_outbox *ob, store_parcel *p, mesh_time now)
{
    if (!store_outbox_reachable(ob, p->peer)) {
        store_outbox_land(ob, p);
        p->due = MESH_NEVER;
        return false;
    }
    if (p->due > now.mono && p->due != MESH_NEVER) {
        due_at(ob, p, p->due);
        return false;
    }
    store_outbox_router *router = &ob->routers[p->peer];
    store_outbox_land(ob, p);
    router->holds = router->holds || router->flight >= STORE_OUTBOX_FLIGHT_MAX;
    if (router->holds) {
        p->due = 0;
        return false;
    }
    return true;
}

void store_outbox_send(store_outbox *ob, item *it, Mesh__Entry *entry, mesh_time now, mesh_out *out)
{
    for (size_t i = 0; i < it->n_parcels; i++) {
        if (!may_go(ob, it->parcels[i], now)) {
            continue;
        }
        if (entry == NULL) {
            mesh_arena_reset(ob->arena);
            entry = store_outbox_entry(ob, it->chat, it->seq);
            if (entry == NULL) {
                return;
            }
        }
        send_parcel(ob, it, it->parcels[i], entry, now, out);
    }
}

/* Room is worth a walk over the window when it is for many parcels. */
static bool has_room_again(const store_outbox *ob)
{
    for (size_t i = 0; i < ob->n_routers; i++) {
        if (ob->routers[i].holds && ob->routers[i].flight <= STORE_OUTBOX_FLIGHT_MAX / 2) {
            return true;
        }
    }
    return false;
}

/* The window is walked from its oldest item: what is held gets its turn before what comes later. */
static void let_go(store_outbox *ob)
{
    for (size_t i = 0; i < ob->n_routers; i++) {
        ob->routers[i].holds = false;
    }
}

void store_outbox_send_due(store_outbox *ob, mesh_time now, mesh_out *out)
{
    if (now.mono < ob->next_due && !has_room_again(ob)) {
        return;
    }
    let_go(ob);
    ob->next_due = MESH_NEVER;
    for (item *it = ob->first; it != NULL && ob->fsm->error == MESH_OK; it = it->after) {
        store_outbox_send(ob, it, NULL, now, out);
    }
}

/* ---- gaps ---- */

static int compare_recipient(const void *user, const void *recipient)
{
    return strcmp(user, ((const Mesh__Recipient *)recipient)->user);
}

static Mesh__Recipient *recipient(const store_parcel *p, const char *user)
{
    return bsearch(user, p->users, p->n, sizeof *p->users, compare_recipient);
}

static bool parcel_has(const store_parcel *p, const char *user)
{
    return recipient(p, user) != NULL;
}

/* Does an older item of the chat still owe this user? Then it closes the gap by itself when its turn comes. */
static bool owed_before(const item *it, const char *user)
{
    for (const item *older = it->older; older != NULL; older = older->older) {
        for (size_t i = 0; i < older->n_parcels; i++) {
            if (parcel_has(older->parcels[i], user)) {
                return true;
            }
        }
    }
    return false;
}

typedef struct lagging {
    const store_member *member;
    uint64_t have; /* the last seq in this user's inbox, once what was sent here has come */
    uint64_t next; /* seq this user needs next; UINT64_MAX: none */
} lagging;

static uint64_t next_of(const store_member *member, uint64_t have)
{
    uint64_t next = store_member_next(member, have);
    return next == 0 ? UINT64_MAX : next;
}

/* Users of the parcel whose gap nothing else closes. */
static size_t find_lagging(const item *it, const store_parcel *p, const store_chat *chat,
                           const Mesh__Delivered *delivered, lagging *who)
{
    size_t n = 0;
    for (size_t g = 0; g < delivered->n_gaps && n < p->n; g++) {
        const Mesh__Gap *gap = delivered->gaps[g];
        const store_member *member = parcel_has(p, gap->user) ? store_chat_member(chat, gap->user) : NULL;
        if (member != NULL && !owed_before(it, gap->user)) {
            who[n++] = (lagging){ member, gap->expected, next_of(member, gap->expected) };
        }
    }
    return n;
}

/* One entry to all of them who need it next. One that is not there (store_fsm_absent) is passed over: what follows it
 * then names what came before it. */
static size_t fill_one(store_outbox *ob, const item *it, mesh_peer to, uint64_t seq, lagging *who, size_t n,
                       mesh_out *out)
{
    Mesh__Recipient *users = mesh_arena_alloc(ob->arena, n * sizeof *users);
    Mesh__Deliver deliver = MESH__DELIVER__INIT;
    deliver.users = mesh_arena_alloc(ob->arena, n * sizeof *deliver.users);
    deliver.entry = store_outbox_entry(ob, it->chat, seq);
    for (size_t i = 0; i < n; i++) {
        if (who[i].next != seq) {
            continue;
        }
        who[i].next = next_of(who[i].member, seq);
        if (deliver.entry != NULL) {
            Mesh__Recipient *user = &users[deliver.n_users];
            mesh__recipient__init(user);
            user->user = mesh_arena_strdup(ob->arena, who[i].member->user);
            user->prev = who[i].have;
            who[i].have = seq;
            deliver.users[deliver.n_users++] = user;
        }
    }
    if (deliver.entry == NULL) {
        return 0;
    }
    MESH_MSG(msg, DELIVER, deliver, &deliver);
    msg.epoch = mesh_ring_epoch(ob->fsm->ring);
    mesh_out_put(out, to, &msg);
    mesh_stats_add(ob->fsm->stats, STORE_M_GAP_SENT, 1);
    return mesh_wire_size(&msg);
}

/* What is missing before the item, oldest first, as far as it is sent at once. */
static void fill_gaps(store_outbox *ob, const item *it, store_parcel *p, const Mesh__Delivered *delivered,
                      mesh_out *out)
{
    store_chat *chat;
    if (!store_outbox_reachable(ob, p->peer) || delivered->n_gaps == 0) {
        return;
    }
    if (store_chats_get(ob->fsm->chats, it->chat, &chat) != MESH_OK) {
        ob->fsm->error = MESH_CORRUPT;
        return;
    }
    mesh_arena_reset(ob->arena);
    lagging *who = mesh_arena_alloc(ob->arena, p->n * sizeof *who);
    size_t n = find_lagging(it, p, chat, delivered, who);
    size_t bytes = 0;
    for (unsigned sent = 0; sent < GAP_ENTRIES && bytes < STORE_PAGE_BYTES && ob->fsm->error == MESH_OK; sent++) {
        uint64_t seq = it->seq;
        for (size_t i = 0; i < n; i++) {
            seq = who[i].next < seq ? who[i].next : seq;
        }
        if (seq == it->seq) {
            break;
        }
        bytes += fill_one(ob, it, p->peer, seq, who, n, out);
    }
    for (size_t i = 0; i < n; i++) {
        if (who[i].next == it->seq) {
            recipient(p, who[i].member->user)->prev = who[i].have;
        }
    }
}

/* ---- answers ---- */

/* It arrived: what the router had to refuse because it lacked this one can come now. */
static void wake_newer(store_outbox *ob, const item *it, mesh_peer router, mesh_time now)
{
    for (size_t i = 0; it->newer != NULL && i < it->newer->n_parcels; i++) {
        store_parcel *p = it->newer->parcels[i];
        if (p->peer == router && p->gap) {
            p->retry = 0;
            due_at(ob, p, now.mono);
        }
    }
}

void store_outbox_remove(store_outbox *ob, item *it, size_t i)
{
    store_outbox_land(ob, it->parcels[i]);
    store_outbox_detach(ob, it->parcels[i]);
    free(it->parcels[i]);
    it->n_parcels--;
    memmove(it->parcels + i, it->parcels + i + 1, (it->n_parcels - i) * sizeof *it->parcels);
}

static void parcel_done(store_outbox *ob, item *it, size_t i, mesh_time now)
{
    wake_newer(ob, it, it->parcels[i]->peer, now);
    store_outbox_remove(ob, it, i);
    if (it->n_parcels == 0) {
        store_outbox_finish(ob, it);
    }
}

/* Its users have more than at the last try. */
static bool got_further(store_parcel *p, const Mesh__Delivered *delivered)
{
    uint64_t least = UINT64_MAX;
    for (size_t g = 0; g < delivered->n_gaps; g++) {
        least = delivered->gaps[g]->expected < least ? delivered->gaps[g]->expected : least;
    }
    p->gap = delivered->n_gaps > 0;
    bool further = p->gap && least > p->expected;
    p->expected = further ? least : p->expected;
    return further;
}

/* The next try comes soon while tries get further, else later and later. */
static void retry_later(store_outbox *ob, store_parcel *p, bool further, mesh_time now)
{
    p->retry = further ? 0 : p->retry;
    p->retry = p->retry == 0 ? RETRY_MS : twice(p->retry);
    p->backoff = STORE_RESEND_MS / 2; /* it answers: the next wait for an answer is a short one */
    due_at(ob, p, now.mono + p->retry);
}

void store_outbox_delivered(store_outbox *ob, mesh_peer from, const Mesh__Delivered *delivered, mesh_time now,
                            mesh_out *out)
{
    item *it = mesh_table_get(ob->items, mesh_table_u64(&delivered->item));
    size_t i = 0;
    while (it != NULL && i < it->n_parcels && it->parcels[i]->number != delivered->parcel) {
        i++;
    }
    if (it == NULL || i == it->n_parcels || it->parcels[i]->peer != from) {
        return;
    }
    store_parcel *p = it->parcels[i];
    store_outbox_land(ob, p);
    bool done = delivered->n_gaps == 0 && !delivered->retry;
    bool further = got_further(p, delivered);
    if (done || further) {
        store_outbox_progress(ob, p, done, now);
    }
    if (done) {
        parcel_done(ob, it, i, now);
        return;
    }
    fill_gaps(ob, it, p, delivered, out);
    retry_later(ob, p, further, now);
    store_chats_evict(ob->fsm->chats);
}

/* ---- links and the ring ---- */

void store_outbox_up(store_outbox *ob, mesh_peer router, mesh_time now, mesh_out *out)
{
    ob->routers[router].up = true;
    if (!mesh_ring_has(ob->fsm->ring, router)) {
        return;
    }
    for (item *it = ob->first; it != NULL && ob->fsm->error == MESH_OK; it = it->after) {
        for (size_t i = 0; i < it->n_parcels; i++) {
            store_parcel *p = it->parcels[i];
            if (p->peer == router) {
                p->due = now.mono;
                p->retry = 0;
                p->backoff = p->sent ? STORE_RESEND_MS / 2 : STORE_RESEND_MS;
            }
        }
        store_outbox_send(ob, it, NULL, now, out);
    }
    store_outbox_lanes_up(ob, router, now);
    if (ob->n_aside > 0) {
        store_outbox_bring_back(ob, now, out);
    }
}

void store_outbox_down(store_outbox *ob, mesh_peer router)
{
    for (item *it = ob->first; it != NULL; it = it->after) {
        for (size_t i = 0; i < it->n_parcels; i++) {
            if (it->parcels[i]->peer == router) {
                store_outbox_land(ob, it->parcels[i]);
                it->parcels[i]->due = MESH_NEVER;
            }
        }
    }
    ob->routers[router].up = false;
    ob->routers[router].holds = false;
}

void store_outbox_drop(store_outbox *ob, item *it)
{
    while (it->n_parcels > 0) {
        store_outbox_remove(ob, it, it->n_parcels - 1);
    }
    store_outbox_finish(ob, it);
}

static bool still_owns(const store_outbox *ob, const store_parcel *p)
{
    for (size_t k = 0; k < p->n; k++) {
        mesh_slot slot = mesh_ring_slot(ob->fsm->ring, p->users[k].user);
        if (mesh_ring_router(ob->fsm->ring, slot) != p->peer || mesh_ring_shard(ob->fsm->ring, slot) != p->shard) {
            return false;
        }
    }
    return p->peer != MESH_NO_PEER;
}

/* Split again what the item owes to users whose router or shard is another one now. The other parcels stay as they are;
 * those that a router refused can go: it may have waited for this very ring. */
static void split_again(store_outbox *ob, item *it, mesh_time now)
{
    size_t kept = 0;
    size_t moved = 0;
    store_parcel **others = mesh_alloc(it->n_parcels * sizeof *others);
    store_splitter_begin(ob->splitter, STORE_PARCEL_ALL);
    for (size_t i = 0; i < it->n_parcels; i++) {
        store_parcel *p = it->parcels[i];
        if (still_owns(ob, p)) {
            p->due = p->flight == 0 ? now.mono : p->due;
            p->retry = p->flight == 0 ? 0 : p->retry;
            it->parcels[kept++] = p;
            continue;
        }
        store_outbox_land(ob, p);
        store_outbox_detach(ob, p);
        others[moved++] = p;
        for (size_t k = 0; k < p->n; k++) {
            store_splitter_add(ob->splitter, p->users[k].user, p->users[k].prev, p->users[k].inbox_seq);
        }
    }
    it->n_parcels = kept;
    if (moved > 0) {
        size_t n;
        store_parcel **split = store_splitter_end(ob->splitter, STORE_RESEND_MS, &ob->last_parcel, &n);
        store_outbox_attach(ob, it, split, n, STORE_PARCEL_ALL, now);
    }
    for (size_t i = 0; i < moved; i++) {
        free(others[i]);
    }
    free(others);
}

void store_outbox_ring(store_outbox *ob, mesh_time now, mesh_out *out)
{
    let_go(ob);
    store_outbox_lanes_ring(ob);
    for (item *it = ob->first; it != NULL && ob->fsm->error == MESH_OK;) {
        item *next = it->after;
        split_again(ob, it, now);
        if (it->n_parcels > 0) {
            store_outbox_send(ob, it, NULL, now, out);
        } else {
            store_outbox_finish(ob, it);
        }
        it = next;
    }
}
