/* Inboxes that are in the chat's own shard: written by the very log entry that makes the message. */
#include "tests/unit/store_rig.h"

#include "mesh/ring.h"
#include "store/fsm.h"

static const Mesh__Deliver *last_deliver(const rig *r)
{
    for (size_t i = r->n_seen; i-- > 0;) {
        if (r->seen[i].msg->body_case == MESH__MSG__BODY_DELIVER) {
            return r->seen[i].msg->deliver;
        }
    }
    return NULL;
}

/* The last one with this recipient: those of another shard have their own. */
static const Mesh__Deliver *deliver_to(rig *r, const char *user)
{
    const char *qid = rig_q(r, user);
    for (size_t i = r->n_seen; i-- > 0;) {
        const Mesh__Msg *msg = r->seen[i].msg;
        for (size_t k = 0; msg->body_case == MESH__MSG__BODY_DELIVER && k < msg->deliver->n_users; k++) {
            if (strcmp(msg->deliver->users[k]->user, qid) == 0) {
                return msg->deliver;
            }
        }
    }
    return NULL;
}

static uint64_t inbox_seq_of(rig *r, const Mesh__Deliver *deliver, const char *user)
{
    const char *qid = rig_q(r, user);
    for (size_t i = 0; i < deliver->n_users; i++) {
        if (strcmp(deliver->users[i]->user, qid) == 0) {
            return deliver->users[i]->inbox_seq;
        }
    }
    fail_msg("%s is no recipient", user);
    return 0;
}

static uint64_t stat_of(rig *r, unsigned stat)
{
    return mesh_stats_get(store_core_stats(r->core), stat);
}

static void confirm(rig *r, const Mesh__Deliver *deliver)
{
    Mesh__Delivered delivered = MESH__DELIVERED__INIT;
    delivered.item = deliver->item;
    delivered.parcel = deliver->parcel;
    MESH_MSG(msg, DELIVERED, delivered, &delivered);
    rig_give(r, RIG_R1, &msg);
    rig_run(r);
}

static void a_message_is_in_both_inboxes_by_its_own_commit(void **state)
{
    (void)state;
    rig *r = rig_ready();
    uint64_t entries = stat_of(r, STORE_M_ENTRIES);
    rig_say(r, "ann", "bob", "one");
    assert_int_equal(stat_of(r, STORE_M_ENTRIES), entries + 1);
    const Mesh__Deliver *deliver = last_deliver(r);
    assert_non_null(deliver);
    assert_int_not_equal(deliver->era, 0);
    assert_int_equal(inbox_seq_of(r, deliver, "ann"), 1);
    assert_int_equal(inbox_seq_of(r, deliver, "bob"), 1);
    Mesh__InboxPage *page = rig_inbox(r, "bob", 0, 10);
    assert_int_equal(page->head, 1);
    assert_int_equal(page->era, deliver->era);
    assert_int_equal(page->entries[0]->entry->seq, 1);
    assert_int_equal(stat_of(r, STORE_M_OUTBOX_ITEMS), 1); /* the router has yet to tell the sessions */
    confirm(r, deliver);
    assert_int_equal(stat_of(r, STORE_M_OUTBOX_ITEMS), 0);
    rig_destroy(r);
}

/* A name whose slot is in the upper half. */
static const char *upper_name(rig *r)
{
    for (unsigned i = 0;; i++) {
        char name[16];
        snprintf(name, sizeof name, "u%u", i);
        if (mesh_id_slot(mesh_conf_hash_key(r->conf), rig_q(r, name)) >= MESH_SLOTS / 2) {
            return mesh_arena_strdup(r->arena, name);
        }
    }
}

static const char *lower_name(rig *r)
{
    for (unsigned i = 0;; i++) {
        char name[16];
        snprintf(name, sizeof name, "l%u", i);
        if (mesh_id_slot(mesh_conf_hash_key(r->conf), rig_q(r, name)) < MESH_SLOTS / 2) {
            return mesh_arena_strdup(r->arena, name);
        }
    }
}

static void inboxes_of_another_shard_are_left_to_the_outbox(void **state)
{
    (void)state;
    rig *r = rig_new();
    store_core_destroy(&r->core);
    rig_set_apart(r, MESH_SLOTS / 2);
    rig_open_core(r);
    r->epoch = 2;
    rig_with_router(r);
    const char *here = lower_name(r);
    const char *there = upper_name(r);
    rig_say(r, here, there, "one");
    assert_int_equal(inbox_seq_of(r, deliver_to(r, here), here), 1);
    const Mesh__Deliver *deliver = deliver_to(r, there);
    assert_int_equal(inbox_seq_of(r, deliver, there), 0);
    assert_int_equal(rig_inbox(r, there, 0, 10)->head, 0);
    Mesh__Msg *answer = rig_append(r, deliver->entry, 0, there);
    assert_int_equal(answer->appended->results[0]->state, MESH__APPEND_STATE__APPEND_DONE);
    rig_destroy(r);
}

static void a_router_of_a_newer_ring_makes_every_recipient_need_an_append(void **state)
{
    (void)state;
    rig *r = rig_ready();
    r->epoch = 9;
    ASSERT_KIND(rig_hello(r, "bob", "phone", 0, UINT64_MAX), ATTACHED);
    rig_say(r, "ann", "bob", "one");
    assert_int_equal(last_deliver(r)->era, 0);
    rig_close(r); /* the fence is found again */
    rig_open(r);
    rig_with_router(r);
    rig_say(r, "ann", "bob", "two");
    assert_int_equal(last_deliver(r)->era, 0);
    for (uint64_t boot = 12; boot < 24; boot++) { /* the ring passes it */
        rig_lease(r, RIG_R1, boot, false);
        rig_run(r);
    }
    rig_say(r, "ann", "bob", "three");
    assert_int_not_equal(last_deliver(r)->era, 0);
    rig_destroy(r);
}

static void what_is_sent_again_after_a_restart_is_found_there(void **state)
{
    (void)state;
    rig *r = rig_ready();
    rig_say(r, "ann", "bob", "one");
    rig_forget(r);
    rig_close(r);
    rig_open(r);
    rig_with_router(r);
    rig_say(r, "ann", "bob", "two"); /* what rig_with_router saw was forgotten: time brings the first one again */
    rig_sleep(r, STORE_RESEND_MS);
    const Mesh__Deliver *first = NULL;
    for (size_t i = 0; i < r->n_seen; i++) {
        const Mesh__Msg *msg = r->seen[i].msg;
        if (msg->body_case == MESH__MSG__BODY_DELIVER && msg->deliver->entry->seq == 1) {
            first = msg->deliver;
        }
    }
    assert_non_null(first);
    assert_int_equal(inbox_seq_of(r, first, "bob"), 0);
    Mesh__Msg *answer = rig_append(r, first->entry, 0, "ann bob");
    for (unsigned i = 0; i < 2; i++) {
        assert_int_equal(answer->appended->results[i]->state, MESH__APPEND_STATE__APPEND_DUP);
        assert_int_equal(answer->appended->results[i]->inbox_seq, 2);
    }
    rig_destroy(r);
}

/* The members' names, m000 m001 ... */
static char *many_names(rig *r, unsigned n)
{
    mesh_buf names = { 0 };
    for (unsigned i = 0; i < n; i++) {
        char name[16];
        snprintf(name, sizeof name, "m%03u ", i);
        mesh_buf_puts(&names, name);
    }
    mesh_buf_put(&names, "", 1);
    char *copy = mesh_arena_strdup(r->arena, (char *)names.data);
    mesh_buf_fini(&names);
    return copy;
}

static void an_entry_writes_so_many_inboxes_and_no_more(void **state)
{
    (void)state;
    rig *r = rig_ready();
    enum { FIT = STORE_ENTRY_APPENDS_MAX / STORE_GROUP_MEMBERS_MAX, SENDS = FIT + 2 };
    rig_create(r, "m000", "crowd", "c1", many_names(r, STORE_GROUP_MEMBERS_MAX), MESH__HISTORY_RULE__HISTORY_ALL);
    for (unsigned i = 0; i < SENDS; i++) { /* all in one turn: one log entry */
        Mesh__Send send = rig_send_body(r, "m000", rig_q(r, "crowd"), NULL, rig_id(r), "hi");
        MESH_MSG(msg, SEND, send, &send);
        msg.key = send.chat;
        msg.corr = ++r->corr;
        rig_give(r, RIG_R1, &msg);
    }
    uint64_t entries = stat_of(r, STORE_M_ENTRIES);
    rig_forget(r);
    rig_run(r);
    assert_int_equal(stat_of(r, STORE_M_ENTRIES), entries + 1);
    assert_int_equal(rig_inbox(r, "m999", 0, 1)->head, 1 + FIT); /* the chat's first entry was one of its own */

    /* What comes next waits for its predecessors: the outbox brings them in order. */
    rig_post_text(r, "m000", "crowd", "later");
    assert_int_equal(rig_inbox(r, "m999", 0, 1)->head, 1 + FIT);
    assert_int_equal(inbox_seq_of(r, last_deliver(r), "m999"), 0);
    Mesh__Entry next = rig_entry(r, rig_q(r, "crowd"), 1 + FIT + 1, "m000", "hi");
    ASSERT_KIND(rig_append(r, &next, 1 + FIT, "m999"), APPENDED);
    assert_int_equal(rig_inbox(r, "m999", 0, 1)->head, 1 + FIT + 1);
    rig_destroy(r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_message_is_in_both_inboxes_by_its_own_commit),
        cmocka_unit_test(inboxes_of_another_shard_are_left_to_the_outbox),
        cmocka_unit_test(a_router_of_a_newer_ring_makes_every_recipient_need_an_append),
        cmocka_unit_test(what_is_sent_again_after_a_restart_is_found_there),
        cmocka_unit_test(an_entry_writes_so_many_inboxes_and_no_more),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
