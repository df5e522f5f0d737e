/* A router or a shard that confirms nothing: what it is owed is put aside, everybody else's goes on, and when it is
 * back everything comes, in order and once. */
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

static void confirm(post *p, mesh_peer router, const Mesh__Deliver *deliver)
{
    rig *r = p->r;
    Mesh__Append append = MESH__APPEND__INIT;
    append.entry = deliver->entry;
    append.n_users = deliver->n_users;
    append.users = deliver->users;
    MESH_MSG(msg, APPEND, append, &append);
    Mesh__Msg *answer = rig_ask_from(r, router, &msg);
    ASSERT_KIND(answer, APPENDED);
    Mesh__Delivered delivered = MESH__DELIVERED__INIT;
    delivered.item = deliver->item;
    delivered.parcel = deliver->parcel;
    delivered.gaps = mesh_arena_alloc(r->arena, deliver->n_users * sizeof *delivered.gaps);
    for (size_t i = 0; i < deliver->n_users; i++) {
        const Mesh__AppendResult *result = answer->appended->results[i];
        assert_int_not_equal(result->state, MESH__APPEND_STATE__APPEND_REFUSED);
        if (result->state == MESH__APPEND_STATE__APPEND_GAP) {
            Mesh__Gap *gap = mesh_arena_alloc(r->arena, sizeof *gap);
            mesh__gap__init(gap);
            gap->user = deliver->users[i]->user;
            gap->expected = result->expected;
            delivered.gaps[delivered.n_gaps++] = gap;
        }
    }
    MESH_MSG(done, DELIVERED, delivered, &delivered);
    if (deliver->item != 0) {
        rig_give(r, router, &done);
    }
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
    if (m == WORKS) {
        p->confirmed[shard]++;
        confirm(p, router, deliver);
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

/* Shard 1 confirms nothing while more than two windows are owed to it; users of shard 0 do not notice. */
static void hurt_only_itself(manner m)
{
    post *p = post_new(false);
    const unsigned n = 2 * STORE_OUTBOX_WINDOW + 500;
    unsigned here = 0;
    p->by_shard[1] = m;
    for (unsigned said = 0; said < n; said += 40) {
        for (unsigned i = 0; i < 40; i++) {
            say(p, true, i % USERS);
            say(p, false, i % USERS);
        }
        here += 40;
        step(p);
        assert_int_equal(p->confirmed[0], here); /* all of them, in the very step */
    }
    assert_true(metric(p, STORE_M_OUTBOX_ASIDE) > 2 * STORE_OUTBOX_WINDOW);
    assert_in_range(metric(p, STORE_M_OUTBOX_WINDOW), 1, STORE_OUTBOX_PROBES);
    assert_true(metric(p, STORE_M_OUTBOX_ASIDE_AGE_MS) > 8000);
    assert_int_equal(p->confirmed[1], 0);
    unsigned while_sick = p->sent[1];
    assert_in_range(while_sick, 1200, m == SILENT ? 3000 : 8000); /* nearly all before it was found to be sick */
    pass(p, 60000);
    assert_in_range(p->sent[1] - while_sick, 20, 50); /* probes, every 8 s */
    while_sick = p->sent[1];
    p->by_shard[1] = WORKS;
    pass(p, 12000);
    assert_in_range(p->sent[1] - while_sick, n, n + n / 10);
    assert_all_there(p);
    post_destroy(p);
}

static void a_silent_shard_hurts_only_itself(void **state)
{
    (void)state;
    hurt_only_itself(SILENT);
}

static void a_refusing_shard_hurts_only_itself(void **state)
{
    (void)state;
    hurt_only_itself(REFUSES);
}

/* So many at once that the window is full before the shard can be known to be sick. */
static void a_full_window_is_a_reason_to_look_sooner(void **state)
{
    (void)state;
    post *p = post_new(false);
    p->by_shard[1] = SILENT;
    for (unsigned i = 0; i < STORE_OUTBOX_WINDOW + 100; i++) {
        say(p, true, i % USERS);
        if (i % 100 == 99) {
            rig_run(p->r);
        }
    }
    say(p, false, 0);
    work(p);
    assert_int_equal(p->confirmed[0], 0);
    assert_int_equal(metric(p, STORE_M_OUTBOX_WINDOW), STORE_OUTBOX_WINDOW);
    assert_in_range(p->r->next, p->r->now.mono, p->r->now.mono + STORE_OUTBOX_SICK_FULL_MS);
    pass(p, STORE_OUTBOX_SICK_FULL_MS);
    assert_int_equal(p->confirmed[0], 1);
    p->by_shard[1] = WORKS;
    pass(p, 10000);
    assert_all_there(p);
    post_destroy(p);
}

/* Its members of shard 0 are served by the parcel that is theirs; the other one is put aside alone. */
static void a_group_is_served_in_part(void **state)
{
    (void)state;
    post *p = post_new(false);
    rig *r = p->r;
    char members[200] = "";
    for (unsigned i = 0; i < USERS; i++) {
        snprintf(members + strlen(members), sizeof members - strlen(members), "%s %s ", p->here[i], p->there[i]);
    }
    p->by_shard[1] = REFUSES;
    rig_create(r, p->here[0], "g1", "c", members, MESH__HISTORY_RULE__HISTORY_ALL);
    work(p);
    for (unsigned i = 1; i < 200; i++) {
        rig_post_text(r, p->here[i % USERS], "g1", "hi");
        step(p);
        assert_int_equal(p->confirmed[0], i + 1);
    }
    assert_int_equal(metric(p, STORE_M_OUTBOX_WINDOW), STORE_OUTBOX_PROBES);
    assert_int_equal(metric(p, STORE_M_OUTBOX_ITEMS), 200);
    p->by_shard[1] = WORKS;
    unsigned before = p->sent[0];
    pass(p, 9000);
    assert_int_equal(metric(p, STORE_M_OUTBOX_ITEMS), 0);
    assert_int_equal(p->sent[0], before); /* who had it is not asked again */
    for (unsigned i = 0; i < USERS; i++) {
        assert_whole(p, p->here[i], 200);
        assert_whole(p, p->there[i], 200);
    }
    post_destroy(p);
}

/* It confirms, and stops again in the middle of what comes back, over and over. */
static void a_shard_that_is_well_and_sick_again(void **state)
{
    (void)state;
    post *p = post_new(false);
    p->by_shard[1] = SILENT;
    for (unsigned i = 0; i < 3000; i++) {
        say(p, true, i % USERS);
        if (i % 30 == 0) {
            step(p);
        }
    }
    for (unsigned round = 0; round < 20; round++) {
        p->by_shard[1] = round % 2 == 0 ? WORKS : round % 4 == 1 ? REFUSES : SILENT;
        for (unsigned i = 0; i < 40; i++) {
            say(p, true, i % USERS);
            say(p, false, i % USERS);
            step(p);
        }
        assert_int_equal(p->confirmed[0], 40 * (round + 1));
    }
    p->by_shard[1] = WORKS;
    pass(p, 12000);
    assert_all_there(p);
    post_destroy(p);
}

/* Router2 takes everything and says nothing, but renews its lease: users that are router1's do not notice. When its
 * lease ends, what it was owed goes by router1. */
static void a_silent_router_hurts_only_its_users(void **state)
{
    (void)state;
    post *p = post_new(true);
    rig *r = p->r;
    p->by_router[RIG_R2] = SILENT;
    for (unsigned i = 0; i < 6000; i++) {
        say(p, i % 2 != 0, i / 2 % USERS);
        if (i % 40 == 39) {
            step(p);
        }
    }
    uint64_t aside = metric(p, STORE_M_OUTBOX_ASIDE);
    assert_in_range(aside, 1000, 5000);
    assert_int_equal(p->confirmed[0] + p->confirmed[1] + metric(p, STORE_M_OUTBOX_ITEMS), 6000);
    unsigned before = p->sent[0] + p->sent[1];
    p->two = false;
    store_core_down(r->core, RIG_R2, r->now, r->out);
    pass(p, STORE_LEASE_MS - STEP_MS);
    assert_true(metric(p, STORE_M_OUTBOX_ASIDE) >= aside);
    pass(p, 2000);
    assert_in_range(p->sent[0] + p->sent[1] - before, aside, aside + aside / 10);
    assert_all_there(p);
    post_destroy(p);
}

/* The same with users who move from router to router while their shard is dead. */
static void the_ring_changes_while_a_shard_is_dead(void **state)
{
    (void)state;
    post *p = post_new(true);
    rig *r = p->r;
    p->by_shard[1] = REFUSES;
    for (unsigned i = 0; i < 4000; i++) {
        say(p, true, i % USERS);
        say(p, false, i % USERS);
        if (i % 20 == 19) {
            step(p);
        }
        if (i % 1000 == 400) { /* leaves at once; and comes again */
            p->two = false;
            rig_lease(r, RIG_R2, 22, true);
            store_core_down(r->core, RIG_R2, r->now, r->out);
        } else if (i % 1000 == 800) {
            p->two = true;
            store_core_up(r->core, RIG_R2, 22, r->now, r->out);
            rig_lease(r, RIG_R2, 22, false);
        }
    }
    pass(p, 2000);
    assert_int_equal(p->confirmed[0], 4000);
    assert_true(metric(p, STORE_M_OUTBOX_ASIDE) > 3000);
    unsigned before = p->sent[1];
    p->by_shard[1] = WORKS;
    pass(p, 15000);
    assert_in_range(p->sent[1] - before, 4000, 2 * 4000);
    assert_all_there(p);
    post_destroy(p);
}

/* Somebody of the dead shard is stored by another one from now on. */
static void a_slot_changes_shard_while_its_own_is_dead(void **state)
{
    (void)state;
    post *p = post_new(false);
    rig *r = p->r;
    p->by_shard[1] = SILENT;
    for (unsigned i = 0; i < 2000; i++) {
        say(p, true, i % USERS);
        if (i % 20 == 19) {
            step(p);
        }
    }
    uint64_t aside = metric(p, STORE_M_OUTBOX_ASIDE);
    assert_true(aside > 1900);
    p->moved = slot_of(r, p->there[0]);
    Mesh__MapSet set = MESH__MAP_SET__INIT;
    set.slot = p->moved;
    set.move = 1;
    MESH_MSG(msg, MAP_SET, map_set, &set);
    ASSERT_KIND(rig_ask(r, &msg), DONE);
    pass(p, 3000);
    assert_int_equal(metric(p, STORE_M_OUTBOX_ITEMS), 2000 - p->said[USERS]);
    assert_in_range(metric(p, STORE_M_OUTBOX_WINDOW), 1, STORE_OUTBOX_PROBES);
    assert_whole(p, p->there[0], p->said[USERS]);
    p->by_shard[1] = WORKS;
    pass(p, 12000);
    assert_all_there(p);
    post_destroy(p);
}

/* What waited for a router comes when its link does, not with the next probe. */
static void a_router_that_comes_up_gets_what_is_aside(void **state)
{
    (void)state;
    post *p = post_new(false);
    rig *r = p->r;
    store_core_down(r->core, RIG_R1, r->now, r->out);
    for (unsigned i = 0; i < 3000; i++) {
        say(p, i % 2 != 0, i / 2 % USERS);
        if (i % 50 == 49) {
            step(p);
        }
    }
    assert_int_equal(p->sent[0] + p->sent[1], 0);
    assert_true(metric(p, STORE_M_OUTBOX_ASIDE) > 2900);
    store_core_up(r->core, RIG_R1, 11, r->now, r->out);
    pass(p, 500);
    assert_int_equal(p->sent[0] + p->sent[1], 3000);
    assert_all_there(p);
    post_destroy(p);
}

static void what_is_aside_survives_a_restart(void **state)
{
    (void)state;
    post *p = post_new(false);
    rig *r = p->r;
    p->by_shard[1] = SILENT;
    for (unsigned i = 0; i < STORE_OUTBOX_WINDOW + 1000; i++) {
        say(p, true, i % USERS);
        say(p, false, i % USERS);
        if (i % 50 == 49) {
            step(p);
        }
    }
    pass(p, 500);
    rig_close(r);
    rig_open(r);
    rig_run(r);
    rig_forget(r);
    p->at = 0;
    store_core_up(r->core, RIG_R1, 11, r->now, r->out);
    pass(p, 3000); /* all rows are looked at again: who had something is asked again, the rest is put aside again */
    assert_true(metric(p, STORE_M_OUTBOX_ASIDE) > STORE_OUTBOX_WINDOW);
    assert_in_range(p->confirmed[0], STORE_OUTBOX_WINDOW + 1000, 2 * (STORE_OUTBOX_WINDOW + 1000));
    unsigned here = p->confirmed[0];
    say(p, false, 0);
    step(p);
    assert_int_equal(p->confirmed[0], here + 1);
    p->by_shard[1] = WORKS;
    pass(p, 12000);
    assert_all_there(p);
    post_destroy(p);
}

/* A row of as many items as a log entry may owe is begun as soon as there is any room. */
static void a_long_row_comes_in_pieces(void **state)
{
    (void)state;
    static Store__OutboxItem items[STORE_ENTRY_OWED];
    static Store__OutboxItem *list[STORE_ENTRY_OWED];
    post *p = post_new(false);
    rig *r = p->r;
    say(p, true, 0);
    work(p);
    pass(p, 500);
    rig_close(r);
    rig_open(r);
    for (size_t i = 0; i < STORE_ENTRY_OWED; i++) {
        store__outbox_item__init(&items[i]);
        items[i].chat = rig_direct(r, p->there[0], p->there[0]);
        items[i].seq = 1;
        list[i] = &items[i];
    }
    Store__OutboxRow owes = STORE__OUTBOX_ROW__INIT;
    owes.n_items = STORE_ENTRY_OWED;
    owes.items = list;
    mesh_buf value = { 0 };
    store_key key;
    store_key_outbox(&key, 1u << 20);
    mesh_wire_pack(&owes, &value);
    store_kv_batch *batch = store_kv_batch_new();
    store_kv_batch_put(batch, store_key_slice(&key), mesh_buf_slice(&value));
    store_kv_write(r->kv, batch, true);
    store_kv_batch_destroy(&batch);
    mesh_buf_fini(&value);
    rig_run(r);
    rig_forget(r);
    p->at = 0;
    p->by_shard[1] = SILENT;
    store_core_up(r->core, RIG_R1, 11, r->now, r->out);
    work(p);
    assert_in_range(metric(p, STORE_M_OUTBOX_WINDOW), STORE_OUTBOX_WINDOW / 2, STORE_OUTBOX_WINDOW);
    assert_int_equal(metric(p, STORE_M_OUTBOX_ITEMS), STORE_ENTRY_OWED);
    p->by_shard[1] = WORKS;
    pass(p, 12000);
    assert_all_there(p);
    post_destroy(p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_silent_shard_hurts_only_itself),
        cmocka_unit_test(a_refusing_shard_hurts_only_itself),
        cmocka_unit_test(a_full_window_is_a_reason_to_look_sooner),
        cmocka_unit_test(a_group_is_served_in_part),
        cmocka_unit_test(a_shard_that_is_well_and_sick_again),
        cmocka_unit_test(a_silent_router_hurts_only_its_users),
        cmocka_unit_test(the_ring_changes_while_a_shard_is_dead),
        cmocka_unit_test(a_slot_changes_shard_while_its_own_is_dead),
        cmocka_unit_test(a_router_that_comes_up_gets_what_is_aside),
        cmocka_unit_test(what_is_aside_survives_a_restart),
        cmocka_unit_test(a_long_row_comes_in_pieces),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
