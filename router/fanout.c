/* From the outbox to the sessions: Deliver says each user's inbox_seq where chat and inbox are of one shard; for the
 * others Append at the users' store, whose answer says it. Then Live to the sessions whose turn that is, and Delivered.
 * A session that lags, for whatever reason, is fed page by page from the store by the same rule: only entry `next`,
 * only while it has credit. */
#include "mesh/alloc.h"
#include "router/state.h"

#define HEADS_SLICES 50 /* sessions are walked in this many slices per ROUTER_HEADS_MS */
#define HEADS_PER_MSG 1000

static void delivered(router_core *core, mesh_peer to, const Mesh__Deliver *deliver, Mesh__Delivered *answer,
                      mesh_out *out)
{
    if (deliver->item == 0) {
        return; /* the outbox filling a gap: it does not wait for this one */
    }
    answer->item = deliver->item;
    answer->parcel = deliver->parcel;
    MESH_MSG(msg, DELIVERED, delivered, answer);
    msg.epoch = mesh_ring_epoch(core->ring);
    mesh_out_put(out, to, &msg);
    if (answer->retry) {
        mesh_stats_add(core->stats, ROUTER_STAT_DELIVER_RETRY, 1);
    }
}

static void retry_later(router_core *core, mesh_peer to, const Mesh__Deliver *deliver, mesh_out *out)
{
    Mesh__Delivered answer = MESH__DELIVERED__INIT;
    answer.retry = true;
    delivered(core, to, deliver, &answer, out);
}

static bool owns_all(const router_core *core, const Mesh__Deliver *deliver)
{
    if (mesh_ring_boot(core->ring, core->self) != core->boot) {
        return false;
    }
    for (size_t i = 0; i < deliver->n_users; i++) {
        if (mesh_ring_router_of(core->ring, deliver->users[i]->user) != core->self) {
            return false;
        }
    }
    return true;
}

static bool deliver_valid(const Mesh__Deliver *deliver)
{
    if (!deliver->entry || deliver->n_users == 0 || !mesh_qid_valid(deliver->entry->chat)) {
        return false;
    }
    for (size_t i = 0; i < deliver->n_users; i++) {
        if (!mesh_qid_valid(deliver->users[i]->user)) {
            return false;
        }
    }
    return true;
}

void router_fanout_forget(router_core *core, router_request *req)
{
    router_share_give(core->held_bytes, req->charged, req->held_size);
    free(req->held);
    req->held = NULL;
    req->held_size = 0;
}

/* ---- to the sessions ---- */

static bool may_send(const router_session *s, uint64_t inbox_seq)
{
    return s->state == ROUTER_LIVE && s->next == inbox_seq && s->next - 1 - s->acked < ROUTER_CREDIT;
}

static void add_target(router_core *core, size_t n, const router_session *s, uint64_t era, uint64_t inbox_seq)
{
    if (n == core->targets_cap) {
        core->targets_cap = core->targets_cap ? core->targets_cap * 2 : 256;
        core->targets = mesh_realloc(core->targets, core->targets_cap * sizeof *core->targets);
    }
    core->targets[n] = (struct router_target){ s->edge, s->id, inbox_seq, era };
}

/* One Live per edge and era that has some of the targets, or several where they are very many. */
static void send_live(router_core *core, Mesh__Entry *entry, uint64_t trace, size_t n, mesh_out *out)
{
    Mesh__Target *all = mesh_arena_alloc(core->arena, n * sizeof *all);
    Mesh__Target **of_edge = mesh_arena_alloc(core->arena, n * sizeof *of_edge);
    mesh_stats_add(core->stats, ROUTER_STAT_LIVE, n);
    for (size_t left = n; left > 0;) {
        mesh_peer edge = core->targets[0].edge;
        uint64_t era = core->targets[0].era;
        size_t mine = 0;
        size_t rest = 0;
        for (size_t i = 0; i < left; i++) {
            if (core->targets[i].edge != edge || core->targets[i].era != era || mine == ROUTER_LIVE_TARGETS) {
                core->targets[rest++] = core->targets[i];
                continue;
            }
            Mesh__Target *target = &all[mine];
            mesh__target__init(target);
            target->session = core->targets[i].session;
            target->inbox_seq = core->targets[i].inbox_seq;
            of_edge[mine++] = target;
        }
        Mesh__Live live = MESH__LIVE__INIT;
        live.entry = entry;
        live.era = era;
        live.targets = of_edge;
        live.n_targets = mine;
        MESH_MSG(msg, LIVE, live, &live);
        msg.trace = trace;
        msg.epoch = mesh_ring_epoch(core->ring);
        mesh_out_put(out, edge, &msg);
        left = rest;
    }
}

/* inbox_seq is now in this user's inbox: whose turn is it? */
static size_t offer(router_core *core, const char *user_qid, uint64_t era, uint64_t inbox_seq, bool at_hand, size_t n)
{
    router_user *user = router_registry_user(core->registry, user_qid);
    for (router_session *s = user ? user->sessions : NULL; s; s = s->sibling) {
        if (s->state == ROUTER_LIVE && s->era != era) { /* it counts anew: the page this asks for will say so */
            s->head = s->next > s->head ? s->next : s->head;
            continue;
        }
        if (inbox_seq > s->head) {
            s->head = inbox_seq;
        }
        if (at_hand && may_send(s, inbox_seq)) {
            add_target(core, n++, s, era, inbox_seq);
            s->next++;
        }
    }
    return n;
}

static void feed_user(router_core *core, const char *user_qid, mesh_time now, mesh_out *out)
{
    router_user *user = router_registry_user(core->registry, user_qid);
    for (router_session *s = user ? user->sessions : NULL; s; s = s->sibling) {
        router_fanout_feed(core, s, now, out);
    }
}

/* Is the entry in this user's inbox already? The store did both in one commit. */
static bool is_appended(const Mesh__Deliver *deliver, size_t i)
{
    return deliver->era != 0 && deliver->users[i]->inbox_seq != 0;
}

/* Give it to the sessions of those. The others, into rest. */
static size_t offer_appended(router_core *core, const Mesh__Deliver *deliver, uint64_t trace, Mesh__Recipient **rest,
                             mesh_time now, mesh_out *out)
{
    size_t n = 0;
    size_t n_rest = 0;
    for (size_t i = 0; i < deliver->n_users; i++) {
        if (is_appended(deliver, i)) {
            const Mesh__Recipient *user = deliver->users[i];
            n = offer(core, user->user, user->era != 0 ? user->era : deliver->era, user->inbox_seq, true, n);
        } else {
            rest[n_rest++] = deliver->users[i];
        }
    }
    if (n > 0) {
        send_live(core, deliver->entry, trace, n, out);
    }
    for (size_t i = 0; i < deliver->n_users; i++) {
        if (is_appended(deliver, i)) {
            feed_user(core, deliver->users[i]->user, now, out);
        }
    }
    return n_rest;
}

void router_fanout_deliver(router_core *core, mesh_peer from, const Mesh__Msg *msg, mesh_slice packed, mesh_time now,
                           mesh_out *out)
{
    const Mesh__Deliver *deliver = msg->deliver;
    if (!deliver_valid(deliver)) {
        mesh_stats_add(core->stats, ROUTER_STAT_MALFORMED, 1);
        return;
    }
    mesh_stats_add(core->stats, ROUTER_STAT_DELIVERS, 1);
    /* a head that rises without the ring's owner being told is one that its sessions never hear of */
    if (!owns_all(core, deliver)) {
        retry_later(core, from, deliver, out);
        return;
    }
    Mesh__Append append = MESH__APPEND__INIT;
    append.entry = deliver->entry;
    append.users = mesh_arena_alloc(core->arena, deliver->n_users * sizeof *append.users);
    append.n_users = offer_appended(core, deliver, msg->trace, append.users, now, out);
    if (append.n_users == 0) {
        Mesh__Delivered done = MESH__DELIVERED__INIT;
        delivered(core, from, deliver, &done, out);
        return;
    }
    MESH_MSG(ask, APPEND, append, &append);
    ask.trace = msg->trace;
    ask.key = append.users[0]->user; /* a parcel's users are of one shard */
    uint32_t shard = mesh_ring_shard_of(core->ring, ask.key);
    if (!router_share_take(core->held_bytes, shard, packed.size)) {
        retry_later(core, from, deliver, out);
        return;
    }
    router_request *req = router_core_ask(core, ROUTER_APPEND, ask.key, &ask, MESH_NO_PEER, now, out);
    if (!req) {
        router_share_give(core->held_bytes, shard, packed.size);
        retry_later(core, from, deliver, out);
        return;
    }
    req->from = from;
    req->held = mesh_memdup(packed.data, packed.size);
    req->held_size = packed.size;
}

static void take_results(router_core *core, const Mesh__Deliver *deliver, const Mesh__Appended *appended,
                         uint64_t trace, Mesh__Delivered *answer, mesh_time now, mesh_out *out)
{
    size_t n = 0;
    Mesh__Gap *gaps = mesh_arena_alloc(core->arena, deliver->n_users * sizeof *gaps);
    answer->gaps = mesh_arena_alloc(core->arena, deliver->n_users * sizeof *answer->gaps);
    size_t asked = 0; /* results are of those who were not there yet */
    for (size_t i = 0; i < deliver->n_users; i++) {
        if (is_appended(deliver, i)) {
            continue;
        }
        const Mesh__AppendResult *result = appended->results[asked++];
        char *user = deliver->users[i]->user;
        uint64_t era = result->era != 0 ? result->era : appended->era;
        switch (result->state) {
        case MESH__APPEND_STATE__APPEND_DONE:
            n = offer(core, user, era, result->inbox_seq, true, n);
            break;
        case MESH__APPEND_STATE__APPEND_DUP:
            n = offer(core, user, era, result->inbox_seq, false, n);
            break;
        case MESH__APPEND_STATE__APPEND_GAP:
            mesh__gap__init(&gaps[answer->n_gaps]);
            gaps[answer->n_gaps].user = user;
            gaps[answer->n_gaps].expected = result->expected;
            answer->gaps[answer->n_gaps] = &gaps[answer->n_gaps];
            answer->n_gaps++;
            mesh_stats_add(core->stats, ROUTER_STAT_GAPS, 1);
            break;
        default: /* refused: a newer epoch is in force; the outbox goes by the newer ring, and so shall we */
            answer->retry = true;
            core->next_lease = now.mono;
        }
    }
    if (n > 0) {
        send_live(core, deliver->entry, trace, n, out);
    }
    for (size_t i = 0; i < deliver->n_users; i++) {
        feed_user(core, deliver->users[i]->user, now, out);
    }
}

static size_t count_asked(const Mesh__Deliver *deliver)
{
    size_t n = 0;
    for (size_t i = 0; i < deliver->n_users; i++) {
        n += is_appended(deliver, i) ? 0 : 1;
    }
    return n;
}

void router_fanout_appended(router_core *core, router_request *req, const Mesh__Msg *answer, mesh_time now,
                            mesh_out *out)
{
    ProtobufCMessage *held = NULL;
    mesh_err err =
        mesh_wire_unpack(&mesh__msg__descriptor, (mesh_slice){ req->held, req->held_size }, core->arena, &held);
    assert(err == MESH_OK); /* it was unpacked before */
    const Mesh__Deliver *deliver = ((const Mesh__Msg *)held)->deliver;
    Mesh__Delivered result = MESH__DELIVERED__INIT;
    if (answer->body_case == MESH__MSG__BODY_APPENDED && answer->appended->n_results == count_asked(deliver)) {
        take_results(core, deliver, answer->appended, ((const Mesh__Msg *)held)->trace, &result, now, out);
    } else {
        result.retry = true;
    }
    delivered(core, req->from, deliver, &result, out);
    router_fanout_forget(core, req);
}

/* ---- feeding from the store ---- */

void router_fanout_feed(router_core *core, router_session *s, mesh_time now, mesh_out *out)
{
    if (s->state != ROUTER_LIVE || s->pulling != 0 || s->next > s->head || !may_send(s, s->next)) {
        return;
    }
    Mesh__InboxRead read = MESH__INBOX_READ__INIT;
    uint64_t credit = ROUTER_CREDIT - (s->next - 1 - s->acked);
    read.user = s->user->qid;
    read.after = s->next - 1;
    read.limit = credit < ROUTER_PULL_ROWS ? (uint32_t)credit : ROUTER_PULL_ROWS;
    MESH_MSG(msg, INBOX_READ, inbox_read, &read);
    msg.key = s->user->qid;
    router_request *req = router_core_ask(core, ROUTER_PULL, s->user->qid, &msg, MESH_NO_PEER, now, out);
    if (req) {
        req->session = s->id;
        s->pulling = req->corr;
        mesh_stats_add(core->stats, ROUTER_STAT_PULLS, 1);
    } /* else the next append or the next round of heads tries again */
}

void router_fanout_page(router_core *core, const router_request *req, const Mesh__Msg *answer, mesh_time now,
                        mesh_out *out)
{
    router_session *s = router_registry_find(core->registry, req->session);
    if (!s || s->pulling != req->corr) {
        return; /* gone, or attached anew since: it goes on from elsewhere, and reads for itself */
    }
    s->pulling = 0;
    if (answer->body_case != MESH__MSG__BODY_INBOX_PAGE) {
        return; /* the store is slow or down: the next round of heads tries again */
    }
    const Mesh__InboxPage *page = answer->inbox_page;
    bool moved = false;
    bool hole = page->n_entries > 0 && page->entries[0]->inbox_seq > s->next;
    if (page->trimmed || page->era != s->era || hole) {
        router_attach_resync(core, s, out);
        return;
    }
    s->head = page->head > s->head ? page->head : s->head;
    for (size_t i = 0; i < page->n_entries; i++) {
        const Mesh__InboxEntry *entry = page->entries[i];
        if (entry->entry && may_send(s, entry->inbox_seq)) {
            add_target(core, 0, s, page->era, entry->inbox_seq);
            send_live(core, entry->entry, 0, 1, out);
            mesh_stats_add(core->stats, ROUTER_STAT_PULLED, 1);
            s->next++;
            moved = true;
        }
    }
    if (moved) {
        router_fanout_feed(core, s, now, out);
    }
}

/* ---- heads: so that a lost last entry is seen too ---- */

static void flush_heads(router_core *core, mesh_peer edge, Mesh__Target **heads, size_t n, mesh_out *out)
{
    Mesh__SessionHeads message = MESH__SESSION_HEADS__INIT;
    message.heads = heads;
    message.n_heads = n;
    MESH_MSG(msg, SESSION_HEADS, session_heads, &message);
    msg.epoch = mesh_ring_epoch(core->ring);
    mesh_out_put(out, edge, &msg);
}

/* Heads of the sessions [from, to) that one edge has. */
static void heads_of_edge(router_core *core, mesh_peer edge, size_t from, size_t to, mesh_out *out)
{
    Mesh__Target **heads = mesh_arena_alloc(core->arena, HEADS_PER_MSG * sizeof *heads);
    Mesh__Target *all = mesh_arena_alloc(core->arena, HEADS_PER_MSG * sizeof *all);
    size_t n = 0;
    for (size_t i = from; i < to; i++) {
        const router_session *s = router_registry_at(core->registry, i);
        if (s->edge != edge || s->state != ROUTER_LIVE) {
            continue;
        }
        mesh__target__init(&all[n]);
        all[n].session = s->id;
        all[n].inbox_seq = s->head;
        heads[n] = &all[n];
        if (++n == HEADS_PER_MSG) {
            flush_heads(core, edge, heads, n, out);
            n = 0;
        }
    }
    if (n > 0) {
        flush_heads(core, edge, heads, n, out);
    }
}

void router_fanout_heads(router_core *core, mesh_time now, mesh_out *out)
{
    if (now.mono < core->next_heads) {
        return;
    }
    core->next_heads = now.mono + ROUTER_HEADS_MS / HEADS_SLICES;
    size_t count = router_registry_count(core->registry);
    size_t from = count * core->heads_at / HEADS_SLICES;
    size_t to = count * (core->heads_at + 1) / HEADS_SLICES;
    core->heads_at = (core->heads_at + 1) % HEADS_SLICES;
    for (size_t i = from; i < to; i++) {
        router_session *s = router_registry_at(core->registry, i);
        router_attach_ack_next(core, s, now, out);
        router_fanout_feed(core, s, now, out);
    }
    for (size_t p = 0; to > from && p < mesh_conf_nodes(core->conf); p++) {
        if (core->up[p] && mesh_conf_node(core->conf, (mesh_peer)p)->role == MESH_EDGE) {
            heads_of_edge(core, (mesh_peer)p, from, to, out);
        }
    }
}
