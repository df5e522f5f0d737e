/* Leases and the ring, the outbox, and what a crash may and may not do. */
#include "tests/unit/store_rig.h"

/* ---- the ring ---- */

static const Mesh__Ring *last_ring(rig *r, mesh_peer to)
{
    for (size_t i = r->n_seen; i-- > 0;) {
        if (r->seen[i].to == to && r->seen[i].msg->body_case == MESH__MSG__BODY_RING) {
            return r->seen[i].msg->ring;
        }
    }
    return NULL;
}

static void the_ring_is_pushed_when_it_changes(void **state)
{
    (void)state;
    rig *r = rig_new();
    rig_run(r);
    store_core_up(r->core, RIG_R1, 11, r->now, r->out);
    store_core_up(r->core, RIG_R2, 22, r->now, r->out);
    rig_lease(r, RIG_R2, 22, false);
    rig_run(r);
    const Mesh__Ring *ring = last_ring(r, RIG_R1);
    assert_non_null(ring);
    assert_int_equal(ring->epoch, 1);
    assert_int_equal(ring->n_routers, 1);
    assert_string_equal(ring->routers[0]->name, "router2");
    assert_int_equal(ring->routers[0]->boot, 22);
    rig_lease(r, RIG_R1, 11, false);
    rig_run(r);
    assert_int_equal(last_ring(r, RIG_R2)->epoch, 2);
    assert_int_equal(last_ring(r, RIG_R2)->n_routers, 2);
    rig_forget(r);
    rig_lease(r, RIG_R1, 11, false);
    rig_run(r);
    assert_null(last_ring(r, RIG_R1)); /* nothing changed */
    rig_lease(r, RIG_R1, 12, false);   /* reborn */
    rig_run(r);
    assert_int_equal(last_ring(r, RIG_R1)->epoch, 3);
    rig_lease(r, RIG_R2, 22, true); /* leaves */
    rig_run(r);
    assert_int_equal(last_ring(r, RIG_R1)->epoch, 4);
    assert_int_equal(last_ring(r, RIG_R1)->n_routers, 1);
    rig_destroy(r);
}

static void a_lease_is_answered_with_the_ring(void **state)
{
    (void)state;
    rig *r = rig_ready();
    Mesh__Lease lease = MESH__LEASE__INIT;
    lease.router = mesh_arena_strdup(r->arena, "router1");
    lease.boot = 11;
    MESH_MSG(msg, LEASE, lease, &lease);
    Mesh__Msg *answer = rig_ask(r, &msg);
    ASSERT_KIND(answer, RING);
    assert_int_equal(answer->ring->epoch, 1);
    ASSERT_FAULT(rig_ask_from(r, RIG_R2, &msg), FAULT_MALFORMED); /* in another's name */
    rig_destroy(r);
}

static void a_silent_router_leaves_the_ring(void **state)
{
    (void)state;
    rig *r = rig_ready();
    store_core_up(r->core, RIG_R2, 22, r->now, r->out);
    rig_lease(r, RIG_R2, 22, false);
    rig_run(r);
    assert_true(r->next <= r->now.mono + STORE_LEASE_MS);
    for (int i = 0; i < 5; i++) {
        rig_sleep(r, 500);
        rig_lease(r, RIG_R1, 11, false);
        rig_run(r);
    }
    assert_int_equal(last_ring(r, RIG_R1)->n_routers, 1);
    assert_string_equal(last_ring(r, RIG_R1)->routers[0]->name, "router1");
    assert_int_equal(last_ring(r, RIG_R1)->epoch, 3);
    rig_destroy(r);
}

static void a_restart_gives_every_router_time(void **state)
{
    (void)state;
    rig *r = rig_ready();
    r->now.mono += 60000;
    rig_close(r);
    rig_open(r);
    rig_run(r);
    rig_forget(r);
    rig_sleep(r, STORE_LEASE_MS - 100);
    rig_lease(r, RIG_R1, 11, false);
    rig_sleep(r, STORE_LEASE_MS - 100);
    store_core_up(r->core, RIG_R1, 11, r->now, r->out);
    rig_drain(r);
    assert_int_equal(last_ring(r, RIG_R1)->epoch, 1);
    rig_sleep(r, STORE_LEASE_MS);
    assert_int_equal(last_ring(r, RIG_R1)->epoch, 2);
    assert_int_equal(last_ring(r, RIG_R1)->n_routers, 0);
    rig_destroy(r);
}

static void a_stopped_store_does_not_blame_the_routers(void **state)
{
    (void)state;
    rig *r = rig_ready();
    rig_forget(r);
    r->now.mono += 30000; /* this process did not run */
    rig_turn(r);
    rig_run(r);
    assert_null(last_ring(r, RIG_R1));
    rig_destroy(r);
}

/* ---- a router that does what routers do ---- */

typedef struct relay {
    size_t at; /* what of seen was looked at */
    unsigned delivers, tracked;
    bool deaf[4]; /* by peer: takes everything and says nothing */
    bool two;     /* router2 lives too, while it is not deaf */
    bool mute;    /* appends, but the answer is lost on the way */
} relay;

static void relay_all(rig *r, relay *y)
{
    rig_run(r);
    while (y->at < r->n_seen) {
        rig_seen seen = r->seen[y->at++];
        if (seen.msg->body_case == MESH__MSG__BODY_DELIVER && !y->deaf[seen.to]) {
            y->delivers++;
            y->tracked += seen.msg->deliver->item != 0 ? 1 : 0;
            rig_relay(r, seen.to, seen.msg->deliver, y->mute);
            rig_run(r);
        }
    }
}

/* Time passes, the router works, leases are renewed. */
static void relay_for(rig *r, relay *y, mesh_ms ms)
{
    for (mesh_ms end = r->now.mono + ms; r->now.mono < end;) {
        r->now.mono += 50;
        r->now.wall += 50;
        rig_lease(r, RIG_R1, 11, false);
        if (y->two && !y->deaf[RIG_R2]) {
            rig_lease(r, RIG_R2, 22, false);
        }
        relay_all(r, y);
    }
}

static size_t delivers_seen(const rig *r)
{
    size_t n = 0;
    for (size_t i = 0; i < r->n_seen; i++) {
        n += r->seen[i].msg->body_case == MESH__MSG__BODY_DELIVER ? 1 : 0;
    }
    return n;
}

static const Mesh__Deliver *deliver_at(const rig *r, size_t n)
{
    for (size_t i = 0; i < r->n_seen; i++) {
        if (r->seen[i].msg->body_case == MESH__MSG__BODY_DELIVER && n-- == 0) {
            return r->seen[i].msg->deliver;
        }
    }
    return NULL;
}

static uint64_t owed(rig *r)
{
    rig_turn(r);
    return mesh_stats_get(store_core_stats(r->core), STORE_M_OUTBOX_ITEMS);
}

/* Every entry of user's inbox is seq 1, 2, 3 ... n of its chat. */
static void assert_whole(rig *r, const char *user, uint64_t n)
{
    uint64_t at = 0;
    while (at < n) {
        Mesh__InboxPage *page = rig_inbox(r, user, at, 200);
        assert_int_equal(page->head, n);
        assert_true(page->n_entries > 0);
        for (size_t i = 0; i < page->n_entries; i++) {
            at++;
            assert_int_equal(page->entries[i]->inbox_seq, at);
            assert_int_equal(page->entries[i]->entry->seq, at);
        }
    }
}

static void an_entry_reaches_everybodys_inbox(void **state)
{
    (void)state;
    rig *r = rig_ready_apart();
    relay y = { 0 };
    rig_say(r, "ann", "bob", "hi");
    assert_int_equal(delivers_seen(r), 1);
    const Mesh__Deliver *deliver = deliver_at(r, 0);
    assert_int_not_equal(deliver->item, 0);
    assert_int_equal(deliver->n_users, 2);
    assert_string_equal(deliver->users[0]->user, "default/ann");
    assert_int_equal(deliver->users[0]->prev, 0);
    assert_string_equal(deliver->entry->chat, rig_direct(r, "ann", "bob"));
    assert_int_equal(rig_rows(r, "o"), 1);
    assert_int_equal(owed(r), 1);
    relay_all(r, &y);
    assert_int_equal(owed(r), 0);
    relay_for(r, &y, 300);
    assert_int_equal(rig_rows(r, "o"), 0);
    rig_say(r, "bob", "ann", "ho");
    relay_for(r, &y, 300);
    assert_int_equal(deliver_at(r, 1)->users[1]->prev, 1);
    assert_whole(r, "ann", 2);
    assert_whole(r, "bob", 2);
    relay_for(r, &y, 10000);
    assert_int_equal(y.delivers, 2); /* nothing is sent again */
    rig_destroy(r);
}

static void prev_leads_over_the_time_away(void **state)
{
    (void)state;
    rig *r = rig_ready_apart();
    relay y = { 0 };
    rig_create(r, "ann", "g1", "c", "bob", MESH__HISTORY_RULE__HISTORY_ALL);
    rig_edit(r, "ann", "g1", "a", MESH__EDIT_OP__EDIT_ADD, "cat"); /* 2 */
    rig_post_text(r, "ann", "g1", "3");
    rig_edit(r, "ann", "g1", "r", MESH__EDIT_OP__EDIT_REMOVE, "cat"); /* 4 */
    rig_post_text(r, "ann", "g1", "5");
    rig_edit(r, "ann", "g1", "b", MESH__EDIT_OP__EDIT_ADD, "cat"); /* 6 */
    rig_post_text(r, "ann", "g1", "7");
    relay_for(r, &y, 500);
    static const struct {
        uint64_t seq, prev;
    } cat[] = { { 2, 0 }, { 3, 2 }, { 4, 3 }, { 6, 4 }, { 7, 6 } };
    size_t n = 0;
    for (size_t i = 0; i < delivers_seen(r); i++) {
        const Mesh__Deliver *deliver = deliver_at(r, i);
        for (size_t u = 0; u < deliver->n_users; u++) {
            if (strcmp(deliver->users[u]->user, "default/cat") == 0) {
                assert_int_equal(deliver->entry->seq, cat[n].seq);
                assert_int_equal(deliver->users[u]->prev, cat[n].prev);
                n++;
            }
        }
    }
    assert_int_equal(n, 5);
    Mesh__InboxPage *page = rig_inbox(r, "cat", 0, 50);
    assert_int_equal(page->n_entries, 5);
    assert_int_equal(page->entries[3]->entry->seq, 6);
    assert_whole(r, "bob", 7);
    rig_destroy(r);
}

static void a_lost_parcel_is_sent_again_and_again(void **state)
{
    (void)state;
    rig *r = rig_ready_apart();
    relay y = { .deaf = { [RIG_R1] = true } };
    rig_say(r, "ann", "bob", "hi");
    assert_int_equal(delivers_seen(r), 1);
    relay_for(r, &y, 950);
    assert_int_equal(delivers_seen(r), 1);
    relay_for(r, &y, 100);
    assert_int_equal(delivers_seen(r), 2);
    relay_for(r, &y, 1900);
    assert_int_equal(delivers_seen(r), 2);
    relay_for(r, &y, 200);
    assert_int_equal(delivers_seen(r), 3);
    relay_for(r, &y, 60000);
    size_t n = delivers_seen(r);
    assert_in_range(n, 9, 12); /* 4 s, then every 8 s */
    y.deaf[RIG_R1] = false;
    relay_for(r, &y, 9000);
    assert_int_equal(owed(r), 0);
    assert_whole(r, "bob", 1);
    rig_destroy(r);
}

static void a_lost_answer_doubles_nothing(void **state)
{
    (void)state;
    rig *r = rig_ready_apart();
    relay y = { .mute = true };
    for (int i = 0; i < 10; i++) {
        rig_say(r, "ann", "bob", "hi");
        relay_all(r, &y);
    }
    assert_int_equal(owed(r), 10);
    assert_whole(r, "bob", 10);
    y.mute = false;
    relay_for(r, &y, 3000);
    assert_int_equal(owed(r), 0);
    assert_whole(r, "bob", 10);
    rig_destroy(r);
}

static uint64_t gap_entries(rig *r)
{
    return mesh_stats_get(store_core_stats(r->core), STORE_M_GAP_SENT);
}

/* The router says it delivered and did not: what it never appended is missing when the next parcel comes. */
static void pretend(rig *r, relay *y)
{
    for (; y->at < r->n_seen; y->at++) {
        const rig_seen *seen = &r->seen[y->at];
        if (seen->msg->body_case == MESH__MSG__BODY_DELIVER) {
            Mesh__Delivered delivered = MESH__DELIVERED__INIT;
            delivered.item = seen->msg->deliver->item;
            delivered.parcel = seen->msg->deliver->parcel;
            MESH_MSG(msg, DELIVERED, delivered, &delivered);
            rig_give(r, seen->to, &msg);
        }
    }
}

static void a_gap_is_filled_before_the_parcel_comes_again(void **state)
{
    (void)state;
    rig *r = rig_ready_apart();
    relay y = { 0 };
    for (int i = 0; i < 300; i++) { /* more than fills gaps at once */
        rig_say(r, "ann", "bob", "hi");
    }
    pretend(r, &y);
    assert_int_equal(owed(r), 0);
    rig_say(r, "ann", "bob", "last");
    relay_all(r, &y);
    assert_true(mesh_stats_get(store_core_stats(r->core), STORE_M_APPEND_GAPS) > 0);
    relay_for(r, &y, 300);
    assert_whole(r, "bob", 301);
    assert_whole(r, "ann", 301);
    assert_int_equal(gap_entries(r), 300); /* each once, to both of them */
    relay_for(r, &y, 2000);
    assert_int_equal(owed(r), 0);
    assert_int_equal(gap_entries(r), 300);
    rig_destroy(r);
}

static void each_gets_what_is_missing(void **state)
{
    (void)state;
    rig *r = rig_ready_apart();
    relay y = { 0 };
    rig_create(r, "ann", "g1", "c", "bob", MESH__HISTORY_RULE__HISTORY_ALL);
    rig_post_text(r, "ann", "g1", "2");
    relay_for(r, &y, 100);
    rig_edit(r, "ann", "g1", "a", MESH__EDIT_OP__EDIT_ADD, "cat"); /* 3 */
    rig_post_text(r, "ann", "g1", "4");
    pretend(r, &y);
    rig_post_text(r, "ann", "g1", "5");
    relay_for(r, &y, 300);
    assert_whole(r, "ann", 5);
    assert_whole(r, "bob", 5);
    Mesh__InboxPage *page = rig_inbox(r, "cat", 0, 50);
    assert_int_equal(page->n_entries, 3);
    assert_int_equal(page->entries[0]->entry->seq, 3);
    assert_int_equal(page->entries[2]->entry->seq, 5);
    assert_int_equal(gap_entries(r), 2);
    rig_destroy(r);
}

static void what_is_owed_anyway_fills_no_gap(void **state)
{
    (void)state;
    rig *r = rig_ready_apart();
    relay y = { .deaf = { [RIG_R1] = true } };
    for (int i = 0; i < 300; i++) {
        rig_say(r, "ann", "bob", "hi");
    }
    relay_all(r, &y);
    y.deaf[RIG_R1] = false;
    y.at = r->n_seen; /* the first 300 are lost; the next ones come through */
    for (int i = 0; i < 20; i++) {
        rig_say(r, "ann", "bob", "late");
    }
    relay_all(r, &y);
    assert_true(mesh_stats_get(store_core_stats(r->core), STORE_M_APPEND_GAPS) > 0);
    size_t sent = delivers_seen(r);
    relay_for(r, &y, 900);
    assert_in_range(delivers_seen(r) - sent, 20, 20 * 6); /* tries come later and later */
    relay_for(r, &y, 400); /* the lost ones are due, and each one that arrives wakes the next */
    assert_int_equal(owed(r), 0);
    assert_whole(r, "bob", 320);
    assert_whole(r, "ann", 320);
    assert_int_equal(gap_entries(r), 0);
    rig_destroy(r);
}

static void a_retry_is_honoured(void **state)
{
    (void)state;
    rig *r = rig_ready_apart();
    relay y = { .deaf = { [RIG_R1] = true } };
    rig_say(r, "ann", "bob", "hi");
    const Mesh__Deliver *deliver = deliver_at(r, 0);
    Mesh__Delivered again = MESH__DELIVERED__INIT;
    again.item = deliver->item;
    again.parcel = deliver->parcel;
    again.retry = true;
    MESH_MSG(msg, DELIVERED, delivered, &again);
    rig_give(r, RIG_R1, &msg);
    assert_int_equal(delivers_seen(r), 1);
    relay_for(r, &y, 100);
    assert_int_equal(delivers_seen(r), 2);
    again.retry = false;
    again.parcel += 7;
    rig_give(r, RIG_R1, &msg); /* no such parcel */
    again.parcel -= 7;
    again.item += 1;
    rig_give(r, RIG_R1, &msg); /* no such item */
    again.item -= 1;
    rig_give(r, RIG_R2, &msg); /* not this router's */
    assert_int_equal(owed(r), 1);
    rig_give(r, RIG_R1, &msg);
    assert_int_equal(owed(r), 0);
    rig_destroy(r);
}

static void retries_come_later_and_later(void **state)
{
    (void)state;
    rig *r = rig_ready_apart();
    size_t at = 0;
    rig_say(r, "ann", "bob", "hi");
    for (int i = 0; i < 60 * 20; i++) { /* a minute */
        for (; at < r->n_seen; at++) {
            if (r->seen[at].msg->body_case == MESH__MSG__BODY_DELIVER) {
                Mesh__Delivered again = MESH__DELIVERED__INIT;
                again.item = r->seen[at].msg->deliver->item;
                again.parcel = r->seen[at].msg->deliver->parcel;
                again.retry = true;
                MESH_MSG(msg, DELIVERED, delivered, &again);
                rig_give(r, RIG_R1, &msg);
            }
        }
        rig_lease(r, RIG_R1, 11, false);
        rig_sleep(r, 50);
    }
    assert_in_range(delivers_seen(r), 10, 20); /* 50, 100 ... 6400 ms, then every 8 s */
    rig_destroy(r);
}

static void nobody_is_up_then_somebody_is(void **state)
{
    (void)state;
    rig *r = rig_ready_apart();
    relay y = { 0 };
    store_core_down(r->core, RIG_R1, r->now, r->out);
    for (int i = 0; i < 5; i++) {
        rig_say(r, "ann", "bob", "hi");
    }
    assert_int_equal(delivers_seen(r), 0);
    store_core_up(r->core, RIG_R1, 11, r->now, r->out);
    rig_drain(r);
    assert_int_equal(delivers_seen(r), 5); /* at once, in order */
    for (size_t i = 0; i < 5; i++) {
        assert_int_equal(deliver_at(r, i)->entry->seq, i + 1);
    }
    relay_for(r, &y, 500);
    assert_int_equal(owed(r), 0);
    rig_destroy(r);
}

static void a_ring_change_splits_anew(void **state)
{
    (void)state;
    rig *r = rig_ready_apart();
    relay y = { .two = true, .deaf = { [RIG_R2] = true } };
    store_core_up(r->core, RIG_R2, 22, r->now, r->out);
    rig_lease(r, RIG_R2, 22, false);
    rig_run(r);
    char names[200 * 6] = "";
    for (int i = 0; i < 200; i++) {
        sprintf(names + strlen(names), "u%03d ", i);
    }
    rig_create(r, "ann", "g1", "c", names, MESH__HISTORY_RULE__HISTORY_ALL);
    assert_int_equal(delivers_seen(r), 2);
    assert_int_equal(deliver_at(r, 0)->n_users + deliver_at(r, 1)->n_users, 201);
    assert_in_range(deliver_at(r, 0)->n_users, 50, 150);
    relay_all(r, &y);
    assert_int_equal(owed(r), 1);
    relay_for(r, &y, 2700); /* router2 says nothing and does not renew: it is out, its users are router1's */
    assert_int_equal(last_ring(r, RIG_R1)->n_routers, 1);
    assert_int_equal(owed(r), 0);
    assert_whole(r, "ann", 1);
    assert_whole(r, "u000", 1);
    assert_whole(r, "u199", 1);
    rig_destroy(r);
}

static void what_stays_with_its_router_is_not_sent_again(void **state)
{
    (void)state;
    rig *r = rig_ready_apart();
    relay y = { .two = true, .deaf = { [RIG_R1] = true } };
    char names[200 * 6] = "";
    for (int i = 0; i < 200; i++) {
        sprintf(names + strlen(names), "u%03d ", i);
    }
    rig_create(r, "ann", "g1", "c", names, MESH__HISTORY_RULE__HISTORY_ALL);
    rig_say(r, "ann", "ann", "a note"); /* one user: a parcel that moves whole or not at all */
    rig_say(r, "u000", "u000", "another");
    rig_say(r, "u001", "u001", "another");
    rig_say(r, "u002", "u002", "another");
    assert_int_equal(delivers_seen(r), 5);
    store_core_up(r->core, RIG_R2, 22, r->now, r->out);
    rig_lease(r, RIG_R2, 22, false);
    rig_run(r);
    assert_int_equal(last_ring(r, RIG_R2)->n_routers, 2);
    size_t again = 0, moved = 0, group = 0;
    for (size_t i = 0, n = 0; i < r->n_seen; i++) {
        const Mesh__Msg *msg = r->seen[i].msg;
        if (msg->body_case != MESH__MSG__BODY_DELIVER || n++ < 5) {
            continue;
        }
        moved += r->seen[i].to == RIG_R2 ? msg->deliver->n_users : 0;
        again += r->seen[i].to == RIG_R1 && msg->deliver->n_users == 1 ? 1 : 0;
        group += r->seen[i].to == RIG_R1 ? 1 : 0;
    }
    assert_true(moved > 0);
    assert_int_equal(again, 0); /* those notes were on their way already */
    assert_int_equal(group, 1); /* this one lost half its users */
    y.deaf[RIG_R1] = false;
    y.at = 0;
    relay_for(r, &y, 200); /* the answers to what was sent before count for what was kept */
    assert_int_equal(owed(r), 0);
    assert_whole(r, "u199", 1);
    rig_destroy(r);
}

static size_t packed_size(const rig_seen *seen)
{
    return seen->msg->body_case == MESH__MSG__BODY_DELIVER ? mesh_wire_size(seen->msg) : 0;
}

static void what_a_router_has_not_confirmed_is_bounded(void **state)
{
    (void)state;
    rig *r = rig_ready_apart();
    relay y = { 0 };
    char *text = mesh_alloc(8001);
    memset(text, 'x', 8000);
    store_core_down(r->core, RIG_R1, r->now, r->out);
    for (unsigned i = 0; i < STORE_OUTBOX_WINDOW; i++) {
        Mesh__Send send = rig_send_body(r, "ann", rig_direct(r, "ann", "bob"), "bob", rig_id(r), text);
        MESH_MSG(msg, SEND, send, &send);
        msg.key = send.chat;
        rig_post(r, RIG_R2, &msg);
        if (i % 64 == 63) {
            rig_run(r);
            rig_forget(r);
        }
    }
    rig_run(r);
    rig_forget(r);
    assert_int_equal(owed(r), STORE_OUTBOX_WINDOW);
    store_core_up(r->core, RIG_R1, 11, r->now, r->out);
    assert_in_range(mesh_out_bytes(r->out), STORE_OUTBOX_FLIGHT_MAX, STORE_OUTBOX_FLIGHT_MAX + 20000);
    rig_drain(r);
    size_t open = 0; /* bytes seen and not answered */
    size_t most = 0;
    size_t counted = 0;
    uint64_t last = 0;
    while (y.at < r->n_seen) {
        for (; counted < r->n_seen; counted++) {
            open += packed_size(&r->seen[counted]);
        }
        most = open > most ? open : most;
        rig_seen seen = r->seen[y.at++];
        if (seen.msg->body_case == MESH__MSG__BODY_DELIVER) {
            assert_int_equal(seen.msg->deliver->entry->seq, ++last); /* in order, each once */
            open -= packed_size(&seen);
            rig_relay(r, seen.to, seen.msg->deliver, false);
            rig_run(r);
        }
    }
    assert_in_range(most, STORE_OUTBOX_FLIGHT_MAX, STORE_OUTBOX_FLIGHT_MAX + 20000);
    assert_int_equal(last, STORE_OUTBOX_WINDOW);
    assert_int_equal(owed(r), 0);
    assert_whole(r, "bob", STORE_OUTBOX_WINDOW);
    free(text);
    rig_destroy(r);
}

/* The answers get lost with the link: what was on its way does not count for the next one. */
static void a_lost_link_frees_its_room(void **state)
{
    (void)state;
    rig *r = rig_ready_apart();
    relay y = { .deaf = { [RIG_R1] = true } };
    char *text = mesh_alloc(100001);
    memset(text, 'x', 100000);
    for (int i = 0; i < 200; i++) {
        rig_say(r, "ann", "bob", text);
    }
    size_t sent = delivers_seen(r);
    assert_in_range(sent, 80, 90);
    relay_for(r, &y, 900);
    assert_int_equal(delivers_seen(r), sent);
    relay_for(r, &y, 1500); /* late answers: sent again, nothing else */
    assert_in_range(delivers_seen(r), sent + 80, 2 * sent);
    store_core_down(r->core, RIG_R1, r->now, r->out);
    sent = delivers_seen(r);
    store_core_up(r->core, RIG_R1, 12, r->now, r->out);
    rig_drain(r);
    assert_in_range(delivers_seen(r), sent + 80, sent + 90);
    assert_int_equal(deliver_at(r, sent)->entry->seq, 1);
    y.deaf[RIG_R1] = false;
    y.at = r->n_seen - (delivers_seen(r) - sent);
    relay_for(r, &y, 1000);
    assert_int_equal(owed(r), 0);
    assert_whole(r, "bob", 200);
    free(text);
    rig_destroy(r);
}

static void a_restart_delivers_what_is_owed(void **state)
{
    (void)state;
    rig *r = rig_ready_apart();
    relay y = { .deaf = { [RIG_R1] = true } };
    for (int i = 0; i < 20; i++) {
        rig_say(r, "ann", "bob", "hi");
    }
    rig_close(r);
    rig_open(r);
    rig_run(r);
    assert_int_equal(owed(r), 20);
    y.at = r->n_seen;
    y.deaf[RIG_R1] = false;
    store_core_up(r->core, RIG_R1, 11, r->now, r->out);
    rig_drain(r);
    relay_for(r, &y, 500);
    assert_int_equal(owed(r), 0);
    assert_int_equal(rig_rows(r, "o"), 0);
    assert_whole(r, "bob", 20);
    rig_destroy(r);
}

static void what_does_not_fit_the_window_waits_in_rows(void **state)
{
    (void)state;
    rig *r = rig_ready_apart();
    relay y = { 0 };
    store_core_down(r->core, RIG_R1, r->now, r->out);
    const unsigned n = STORE_OUTBOX_WINDOW + 500;
    for (unsigned i = 0; i < n; i++) {
        Mesh__Send send = rig_send_body(r, "ann", rig_direct(r, "ann", "bob"), "bob", rig_id(r), "hi");
        MESH_MSG(msg, SEND, send, &send);
        msg.key = send.chat;
        rig_post(r, RIG_R2, &msg);
        if (i % 100 == 99) {
            rig_run(r);
            rig_forget(r);
        }
    }
    rig_run(r);
    assert_int_equal(owed(r), n);
    assert_true(mesh_stats_get(store_core_stats(r->core), STORE_M_OUTBOX_WINDOW) <= STORE_OUTBOX_WINDOW);
    rig_forget(r);
    store_core_up(r->core, RIG_R1, 11, r->now, r->out);
    for (unsigned i = 0; i < 40 && owed(r) > 0; i++) {
        relay_for(r, &y, 50);
        if (y.at == r->n_seen) {
            rig_forget(r);
            y.at = 0;
        }
    }
    assert_int_equal(owed(r), 0);
    assert_whole(r, "bob", n);
    relay_for(r, &y, 500);
    assert_int_equal(rig_rows(r, "o"), 0);
    rig_destroy(r);
}

/* ---- replay and crashes ---- */

/* Hash of all rows but Raft's own and the applied index. */
static uint64_t state_hash(rig *r)
{
    store_kv_iter *it = store_kv_iter_new(r->kv, (mesh_slice){ NULL, 0 });
    uint64_t hash = 14695981039346656037u;
    for (store_kv_iter_first(it); store_kv_iter_valid(it); store_kv_iter_next(it)) {
        mesh_slice parts[2] = { store_kv_iter_key(it), store_kv_iter_value(it) };
        for (unsigned p = 0; p < 2 && parts[0].data[0] != 0; p++) {
            for (size_t i = 0; i < parts[p].size; i++) {
                hash = (hash ^ parts[p].data[i]) * 1099511628211u;
            }
        }
    }
    assert_int_equal(store_kv_iter_status(it), MESH_OK);
    store_kv_iter_destroy(&it);
    return hash;
}

static const char *const people[] = { "ann", "bob", "cat", "dan", "eve" };

/* One random request; many are refused. */
static void random_request(rig *r, mesh_rand *rand)
{
    const char *user = people[mesh_rand_below(rand, 5)];
    const char *other = people[mesh_rand_below(rand, 5)];
    char id[16];
    char group[8];
    snprintf(id, sizeof id, "x%u", (unsigned)mesh_rand_below(rand, 200));
    snprintf(group, sizeof group, "g%u", (unsigned)mesh_rand_below(rand, 3));
    switch (mesh_rand_below(rand, 10)) {
    case 0:
        rig_create(r, user, group, id, other, (Mesh__HistoryRule)mesh_rand_below(rand, 2));
        break;
    case 1:
        rig_edit(r, user, group, id, MESH__EDIT_OP__EDIT_ADD, other);
        break;
    case 2:
        rig_edit(r, user, group, id, mesh_rand_below(rand, 2) ? MESH__EDIT_OP__EDIT_REMOVE : MESH__EDIT_OP__EDIT_LEAVE,
                 other);
        break;
    case 3:
        rig_hello(r, user, other, 0, mesh_rand_below(rand, 2) ? UINT64_MAX : 3);
        break;
    case 4:
        rig_ack(r, user, other, mesh_rand_below(rand, 200));
        break;
    case 5:
    case 6:
        rig_send(r, user, rig_q(r, group), NULL, id, other);
        break;
    default:
        rig_send(r, user, rig_direct(r, user, other), other, id, "hi");
        break;
    }
}

static void replaying_the_log_gives_the_same_rows(void **state)
{
    (void)state;
    rig *r = rig_ready();
    relay y = { 0 };
    mesh_rand rand = { 42 };
    for (int i = 0; i < 2000; i++) {
        random_request(r, &rand);
        r->now.mono += (mesh_ms)mesh_rand_below(&rand, 30);
        r->now.wall += (mesh_ms)mesh_rand_below(&rand, 30);
        rig_lease(r, RIG_R1, 11, false);
        relay_all(r, &y);
        if (r->n_seen > RIG_SEEN / 2) {
            rig_forget(r);
            y.at = 0;
        }
    }
    relay_for(r, &y, 500);
    uint64_t hash = state_hash(r);
    assert_true(rig_rows(r, "m") > 300);
    assert_true(rig_rows(r, "i") > 500);

    /* Take away everything but the log: the applied index and every row of the state. */
    store_kv_batch *batch = store_kv_batch_new();
    store_kv_iter *it = store_kv_iter_new(r->kv, (mesh_slice){ NULL, 0 });
    for (store_kv_iter_first(it); store_kv_iter_valid(it); store_kv_iter_next(it)) {
        mesh_slice key = store_kv_iter_key(it);
        if (key.data[0] != 0 || (key.size == 2 && key.data[1] == 'A')) {
            store_kv_batch_delete(batch, key);
        }
    }
    store_kv_iter_destroy(&it);
    store_core_destroy(&r->core);
    store_kv_write(r->kv, batch, true);
    sim_disk_flush(r->disk);
    assert_int_equal(rig_rows(r, "m"), 0);
    store_kv_batch_destroy(&batch);
    store_kv_close(&r->kv);
    rig_open(r);
    rig_run(r);
    assert_true(state_hash(r) == hash);
    rig_destroy(r);
}

/* What is acked is there after any crash, with the same seq, once; seqs have no holes. */
static void a_crash_loses_nothing_that_was_acked(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 60; seed++) {
        rig *r = seed % 2 == 0 ? rig_ready() : rig_ready_apart();
        mesh_rand rand = { seed };
        relay y = { 0 };
        uint64_t acked[400] = { 0 };
        unsigned n = 0;
        for (unsigned crash = 0; crash < 5; crash++) {
            unsigned steps = 1 + (unsigned)mesh_rand_below(&rand, 60);
            uint64_t corrs[400] = { 0 };
            for (unsigned i = 0; i < steps && n < 400; i++) {
                char id[16];
                snprintf(id, sizeof id, "m%u", n);
                Mesh__Send send = rig_send_body(r, "ann", rig_direct(r, "ann", "bob"), "bob", id, "hi");
                MESH_MSG(msg, SEND, send, &send);
                msg.key = send.chat;
                corrs[n++] = rig_post(r, RIG_R1, &msg);
                if (mesh_rand_below(&rand, 2)) {
                    rig_turn(r);
                }
                if (mesh_rand_below(&rand, 4) == 0) {
                    sim_disk_flush(r->disk);
                }
                if (mesh_rand_below(&rand, 8) == 0) {
                    relay_all(r, &y);
                }
            }
            for (unsigned i = 0; i < n; i++) {
                const Mesh__Msg *answer = corrs[i] != 0 ? rig_answer(r, corrs[i]) : NULL;
                if (answer != NULL) {
                    ASSERT_KIND(answer, SENT);
                    acked[i] = answer->sent->seq;
                }
            }
            sim_disk_crash(r->disk, &rand);
            rig_close(r);
            rig_open(r);
            rig_run(r);
            store_core_up(r->core, RIG_R1, 11, r->now, r->out);
            rig_drain(r);
        }
        bool used[401] = { false };
        for (unsigned i = 0; i < n; i++) { /* ask again for all: the outcome is known now */
            char id[16];
            snprintf(id, sizeof id, "m%u", i);
            Mesh__Sent *sent = rig_send(r, "ann", rig_direct(r, "ann", "bob"), "bob", id, "hi")->sent;
            assert_true(acked[i] == 0 || (sent->dup && sent->seq == acked[i]));
            assert_in_range(sent->seq, 1, n);
            assert_false(used[sent->seq]);
            used[sent->seq] = true;
        }
        y.at = 0;
        while (y.at < r->n_seen && r->seen[y.at].msg->body_case != MESH__MSG__BODY_DELIVER) {
            y.at++;
        }
        relay_for(r, &y, 3000);
        assert_int_equal(owed(r), 0);
        assert_whole(r, "bob", n);
        assert_whole(r, "ann", n);
        rig_destroy(r);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_ring_is_pushed_when_it_changes),
        cmocka_unit_test(a_lease_is_answered_with_the_ring),
        cmocka_unit_test(a_silent_router_leaves_the_ring),
        cmocka_unit_test(a_restart_gives_every_router_time),
        cmocka_unit_test(a_stopped_store_does_not_blame_the_routers),
        cmocka_unit_test(an_entry_reaches_everybodys_inbox),
        cmocka_unit_test(prev_leads_over_the_time_away),
        cmocka_unit_test(a_lost_parcel_is_sent_again_and_again),
        cmocka_unit_test(a_lost_answer_doubles_nothing),
        cmocka_unit_test(a_gap_is_filled_before_the_parcel_comes_again),
        cmocka_unit_test(each_gets_what_is_missing),
        cmocka_unit_test(what_is_owed_anyway_fills_no_gap),
        cmocka_unit_test(a_retry_is_honoured),
        cmocka_unit_test(retries_come_later_and_later),
        cmocka_unit_test(nobody_is_up_then_somebody_is),
        cmocka_unit_test(a_ring_change_splits_anew),
        cmocka_unit_test(what_stays_with_its_router_is_not_sent_again),
        cmocka_unit_test(what_a_router_has_not_confirmed_is_bounded),
        cmocka_unit_test(a_lost_link_frees_its_room),
        cmocka_unit_test(a_restart_delivers_what_is_owed),
        cmocka_unit_test(what_does_not_fit_the_window_waits_in_rows),
        cmocka_unit_test(replaying_the_log_gives_the_same_rows),
        cmocka_unit_test(a_crash_loses_nothing_that_was_acked),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
