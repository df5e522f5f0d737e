/* tests/unit/outbox_rig.h: a store's outbox, with routers and shards behind them that work, are silent or refuse.
 * Included by the tests of what is put aside. */
#ifndef TESTS_UNIT_OUTBOX_RIG_H
#define TESTS_UNIT_OUTBOX_RIG_H

#include "store/fsm.h"
#include "tests/unit/store_rig.h"

#define STEP_MS 50
#define USERS 8 /* of each kind */

typedef enum manner { WORKS, SILENT, REFUSES } manner;

/* The routers, and the shards behind them: this store stands for both. The lower half of the slots is stored here, the
 * upper half by shard 1. */
typedef struct post {
    rig *r;
    size_t at;           /* what of seen was looked at */
    manner by_router[4]; /* by peer: of the router */
    manner by_shard[2];  /* of the shard, whichever the router */
    bool two;            /* router2 renews its lease */
    unsigned sent[2];    /* parcels, by shard */
    unsigned confirmed[2];
    mesh_slot moved;                        /* of the upper half, and stored by shard 0 now */
    mesh_slot by_two;                       /* of the user of shard 1 of whom router2 heard last */
    const char *here[USERS], *there[USERS]; /* names of users of shard 0, of shard 1 */
    unsigned said[2 * USERS];               /* to oneself, by user: here, then there */
} post;

static mesh_slot slot_of(rig *r, const char *name)
{
    return mesh_id_slot(mesh_conf_hash_key(r->conf), rig_q(r, name));
}

static const char *find_user(rig *r, unsigned *i, bool upper)
{
    for (;; (*i)++) {
        char name[16];
        snprintf(name, sizeof name, "u%u", *i);
        if ((slot_of(r, name) >= MESH_SLOTS / 2) == upper) {
            (*i)++;
            return mesh_arena_strdup(r->arena, name);
        }
    }
}

static void find_users(post *p)
{
    unsigned lower = 0;
    unsigned upper = 0;
    for (unsigned i = 0; i < USERS; i++) {
        p->here[i] = find_user(p->r, &lower, false);
        p->there[i] = find_user(p->r, &upper, true);
    }
}

static post *post_new(bool two)
{
    post *p = mesh_alloc(sizeof *p);
    rig *r = rig_new();
    store_core_destroy(&r->core);
    rig_set_apart(r, MESH_SLOTS / 2);
    rig_open_core(r);
    r->epoch = 2;
    rig_with_router(r);
    p->r = r;
    p->two = two;
    p->moved = MESH_SLOTS;
    if (two) {
        store_core_up(r->core, RIG_R2, 22, r->now, r->out);
        rig_lease(r, RIG_R2, 22, false);
        rig_run(r);
        rig_forget(r);
    }
    find_users(p);
    return p;
}

static void post_destroy(post *p)
{
    rig_destroy(p->r);
    free(p);
}

static uint64_t metric(post *p, enum store_metric which)
{
    rig_turn(p->r);
    return mesh_stats_get(store_core_stats(p->r->core), which);
}

static void refuse(post *p, mesh_peer router, const Mesh__Deliver *deliver)
{
    Mesh__Delivered delivered = MESH__DELIVERED__INIT;
    delivered.item = deliver->item;
    delivered.parcel = deliver->parcel;
    delivered.retry = true;
    MESH_MSG(msg, DELIVERED, delivered, &delivered);
    rig_give(p->r, router, &msg);
}

static void work_one(post *p, mesh_peer router, const Mesh__Deliver *deliver)
{
    mesh_slot slot = slot_of(p->r, strchr(deliver->users[0]->user, '/') + 1);
    unsigned shard = slot >= MESH_SLOTS / 2 && slot != p->moved;
    manner m = p->by_router[router] != WORKS ? p->by_router[router] : p->by_shard[shard];
    p->sent[shard]++;
    p->by_two = shard == 1 && router == RIG_R2 ? slot : p->by_two;
    if (m == WORKS) {
        p->confirmed[shard]++;
        rig_relay(p->r, router, deliver, false);
    } else if (m == REFUSES) {
        refuse(p, router, deliver);
    }
}

/* Everything that can be done at this moment. */
static void work(post *p)
{
    rig *r = p->r;
    rig_run(r);
    for (bool more = true; more;) {
        more = false;
        for (; p->at < r->n_seen; p->at++) {
            rig_seen seen = r->seen[p->at];
            if (seen.msg->body_case == MESH__MSG__BODY_DELIVER) {
                work_one(p, seen.to, seen.msg->deliver);
                more = true;
            }
            if (p->at > RIG_SEEN / 2) {
                memmove(r->seen, r->seen + p->at + 1, (r->n_seen - p->at - 1) * sizeof *r->seen);
                r->n_seen -= p->at + 1;
                p->at = (size_t)-1;
            }
        }
        rig_run(r);
    }
}

static void step(post *p)
{
    rig *r = p->r;
    r->now.mono += STEP_MS;
    r->now.wall += STEP_MS;
    rig_lease(r, RIG_R1, 11, false);
    if (p->two) {
        rig_lease(r, RIG_R2, 22, false);
    }
    work(p);
}

static void pass(post *p, mesh_ms ms)
{
    for (mesh_ms end = p->r->now.mono + ms; p->r->now.mono < end;) {
        step(p);
    }
}

/* A note to oneself: one parcel. */
static void say(post *p, bool there, unsigned who)
{
    rig *r = p->r;
    const char *user = there ? p->there[who] : p->here[who];
    Mesh__Send send = rig_send_body(r, user, rig_direct(r, user, user), user, rig_id(r), "a note");
    MESH_MSG(msg, SEND, send, &send);
    msg.key = send.chat;
    rig_post(r, RIG_R1, &msg);
    p->said[(there ? USERS : 0) + who]++;
}

/* Of shard 1, n of them, 20 in each step. */
static void say_there(post *p, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        say(p, true, i % USERS);
        if (i % 20 == 19) {
            step(p);
        }
    }
}

/* Turns that the store wants at once, without an answer from anybody: how many. */
static unsigned follow(post *p)
{
    unsigned n = 0;
    for (; p->r->next <= p->r->now.mono + 1; n++) {
        p->r->now.mono = p->r->next;
        rig_turn(p->r);
    }
    return n;
}

/* Every entry of the user's inbox is seq 1, 2, 3 ... n of its chat. */
static void assert_whole(post *p, const char *user, uint64_t n)
{
    for (uint64_t at = 0; at < n;) {
        Mesh__InboxPage *page = rig_inbox(p->r, user, at, 200);
        assert_int_equal(page->head, n);
        assert_true(page->n_entries > 0);
        for (size_t i = 0; i < page->n_entries; i++) {
            at++;
            assert_int_equal(page->entries[i]->inbox_seq, at);
            assert_int_equal(page->entries[i]->entry->seq, at);
        }
        rig_forget(p->r);
        p->at = 0;
    }
}

static void assert_all_there(post *p)
{
    assert_int_equal(metric(p, STORE_M_OUTBOX_ITEMS), 0);
    assert_int_equal(metric(p, STORE_M_OUTBOX_ASIDE), 0);
    assert_int_equal(metric(p, STORE_M_OUTBOX_ASIDE_AGE_MS), 0);
    pass(p, 500);
    assert_int_equal(rig_rows(p->r, "o"), 0);
    for (unsigned i = 0; i < USERS; i++) {
        assert_whole(p, p->here[i], p->said[i]);
        assert_whole(p, p->there[i], p->said[USERS + i]);
    }
}

#endif
