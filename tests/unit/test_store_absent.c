/* Rows that name an entry which is not there: the store goes on without it, and no replica is taken out. A row that
 * does not read back is something else: this replica's data is not to be used. */
#include "store/core_state.h"
#include "store/slot.h"
#include "tests/unit/store_rig.h"

static char long_text[3 * STORE_INBOX_INLINE];

static mesh_slot slot_of(rig *r, const char *qid)
{
    return mesh_id_slot(mesh_conf_hash_key(r->conf), qid);
}

/* The core begins anew, on rows that were changed behind its back. */
static void change_row(rig *r, const store_key *key, const char *value)
{
    store_kv_batch *batch = store_kv_batch_new();
    if (value != NULL) {
        store_kv_batch_put(batch, store_key_slice(key), (mesh_slice){ (const uint8_t *)value, strlen(value) });
    } else {
        store_kv_batch_delete(batch, store_key_slice(key));
    }
    assert_int_equal(store_kv_wait(r->kv, store_kv_write(r->kv, batch, true)), MESH_OK);
    store_kv_batch_destroy(&batch);
    rig_close(r);
    rig_open(r);
    rig_with_router(r);
    rig_sleep(r, 3000);
    rig_lease(r, RIG_R1, 11, false);
    rig_run(r);
}

/* All that was said has arrived. */
static void empty_outbox(rig *r)
{
    store_kv_batch *batch = store_kv_batch_new();
    store_kv_iter *it = store_kv_iter_new(r->kv, (mesh_slice){ (const uint8_t *)"o", 1 });
    for (store_kv_iter_first(it); store_kv_iter_valid(it); store_kv_iter_next(it)) {
        store_kv_batch_delete(batch, store_kv_iter_key(it));
    }
    store_kv_iter_destroy(&it);
    assert_int_equal(store_kv_wait(r->kv, store_kv_write(r->kv, batch, true)), MESH_OK);
    store_kv_batch_destroy(&batch);
}

static void change_entry(rig *r, const char *chat, uint64_t seq, const char *value)
{
    store_key key;
    store_key_entry(&key, slot_of(r, chat), chat, seq);
    change_row(r, &key, value);
}

static uint64_t absent(rig *r)
{
    return mesh_stats_get(store_core_stats(r->core), STORE_M_ABSENT);
}

/* Three messages of ann to bob, the second one long. */
static rig *talked(const char **chat_p)
{
    rig *r = rig_ready();
    memset(long_text, 'x', sizeof long_text - 1);
    (void)rig_say(r, "ann", "bob", "one");
    Mesh__Msg *sent = rig_send(r, "ann", rig_direct(r, "ann", "bob"), "bob", "second", long_text);
    assert_int_equal(sent->sent->seq, 2);
    (void)rig_say(r, "ann", "bob", "three");
    *chat_p = rig_direct(r, "ann", "bob");
    return r;
}

static void an_inbox_row_whose_entry_is_gone_has_no_body(void **state)
{
    (void)state;
    const char *chat;
    rig *r = talked(&chat);
    assert_int_equal(rig_inbox(r, "bob", 0, 10)->entries[1]->entry->body.len, strlen(long_text));
    change_entry(r, chat, 2, NULL);
    uint64_t before = absent(r); /* the outbox owes it, too */
    Mesh__InboxPage *page = rig_inbox(r, "bob", 0, 10);
    assert_int_equal(page->n_entries, 3);
    const Mesh__Entry *entry = page->entries[1]->entry;
    assert_true(entry->seq == 2 && entry->body.len == 0 && !entry->body_elsewhere);
    assert_int_equal(absent(r), before + 1);
    assert_int_equal(store_core_error(r->core), MESH_OK);
    rig_destroy(r);
}

static void a_page_goes_round_a_hole(void **state)
{
    (void)state;
    const char *chat;
    rig *r = talked(&chat);
    (void)rig_say(r, "ann", "bob", "four");
    change_entry(r, chat, 2, NULL);
    change_entry(r, chat, 3, NULL);
    Mesh__History up = MESH__HISTORY__INIT, down = MESH__HISTORY__INIT, at = MESH__HISTORY__INIT;
    up.from_start = true;
    Mesh__Msg *page = rig_history(r, "bob", chat, up);
    ASSERT_KIND(page, PAGE);
    assert_string_equal(rig_seqs(r, page->page), "1 4");
    assert_string_equal(rig_seqs(r, rig_history(r, "bob", chat, down)->page), "1 4");
    down.before = 4;
    assert_string_equal(rig_seqs(r, rig_history(r, "bob", chat, down)->page), "1");
    at.around = 3;
    at.limit = 3;
    assert_string_equal(rig_seqs(r, rig_history(r, "bob", chat, at)->page), "1 4");
    change_entry(r, chat, 1, NULL); /* and at the end of what there is */
    down.before = 4;
    assert_string_equal(rig_seqs(r, rig_history(r, "bob", chat, down)->page), "");
    assert_true(absent(r) >= 1);
    assert_int_equal(store_core_error(r->core), MESH_OK);
    rig_destroy(r);
}

static Mesh__Msg *mark_read(rig *r, const char *chat, uint64_t seq)
{
    Mesh__Read read = MESH__READ__INIT;
    read.user = rig_q(r, "bob");
    read.chat = (char *)(uintptr_t)chat;
    read.seq = seq;
    MESH_MSG(msg, READ, read, &read);
    msg.key = read.chat;
    return rig_ask(r, &msg);
}

static void requests_about_it_change_nothing_else(void **state)
{
    (void)state;
    const char *chat;
    rig *r = talked(&chat);
    change_entry(r, chat, 2, NULL);
    uint64_t before = absent(r);
    ASSERT_FAULT(rig_send(r, "ann", chat, "bob", "second", long_text), FAULT_UNAVAILABLE); /* its answer is gone */
    ASSERT_FAULT(rig_send(r, "ann", chat, "bob", "second", "other"), FAULT_CONFLICT);
    ASSERT_KIND(mark_read(r, chat, 2), DONE);
    ASSERT_KIND(mark_read(r, chat, 3), DONE);
    assert_int_equal(absent(r), before + 2);
    assert_int_equal(rig_say(r, "ann", "bob", "on it goes")->seq, 4);
    assert_int_equal(store_core_error(r->core), MESH_OK);
    rig_destroy(r);
}

static const rig_seen *last_deliver(const rig *r)
{
    const rig_seen *last = NULL;
    for (size_t i = 0; i < r->n_seen; i++) {
        last = r->seen[i].msg->body_case == MESH__MSG__BODY_DELIVER ? &r->seen[i] : last;
    }
    assert_non_null(last);
    return last;
}

/* An inbox has 1 and was told to put 3 behind 2. As 2 is not there, 3 comes again, to be put behind 1. */
static void three_follows_one(rig *r)
{
    const rig_seen *first = last_deliver(r);
    const Mesh__Deliver *three = first->msg->deliver;
    char *user = three->users[0]->user;
    assert_int_equal(three->users[0]->prev, 2);
    Mesh__Gap gap = MESH__GAP__INIT, *gaps[] = { &gap };
    gap.user = user;
    gap.expected = 1;
    Mesh__Delivered delivered = MESH__DELIVERED__INIT;
    delivered.item = three->item;
    delivered.parcel = three->parcel;
    delivered.n_gaps = 1;
    delivered.gaps = gaps;
    MESH_MSG(msg, DELIVERED, delivered, &delivered);
    mesh_peer router = first->to;
    rig_forget(r);
    rig_give(r, router, &msg);
    rig_sleep(r, 200);
    const Mesh__Deliver *again = last_deliver(r)->msg->deliver;
    assert_int_equal(again->entry->seq, 3);
    assert_string_equal(again->users[0]->user, user);
    assert_int_equal(again->users[0]->prev, 1);
}

/* What came with a slot is owed; one of it is not there. */
static void the_rest_of_what_is_owed_is_sent(void **state)
{
    (void)state;
    const char *chat;
    rig *r = talked(&chat);
    Store__OutboxItem items[2];
    Store__OutboxItem *list[2] = { &items[0], &items[1] };
    Store__OutboxRow owed = STORE__OUTBOX_ROW__INIT;
    mesh_buf value = { 0 };
    store_key key;
    for (uint64_t i = 0; i < 2; i++) {
        store__outbox_item__init(&items[i]);
        items[i].chat = (char *)(uintptr_t)chat;
        items[i].seq = 2 + i;
    }
    owed.n_items = 2;
    owed.items = list;
    mesh_wire_pack(&owed, &value);
    mesh_buf_put(&value, "", 1);
    value.size--;
    empty_outbox(r);
    change_entry(r, chat, 2, NULL);
    rig_forget(r);
    store_key_owed(&key, slot_of(r, chat), 1);
    change_row(r, &key, (const char *)value.data);
    assert_int_equal(store_core_error(r->core), MESH_OK);
    assert_int_equal(rig_rows(r, "w"), 0);
    bool three = false;
    for (size_t i = 0; i < r->n_seen; i++) {
        const Mesh__Msg *msg = r->seen[i].msg;
        if (msg->body_case == MESH__MSG__BODY_DELIVER) {
            assert_int_equal(msg->deliver->entry->seq, 3);
            three = true;
        }
    }
    assert_true(three);
    assert_int_equal(absent(r), 1);
    three_follows_one(r);
    mesh_buf_fini(&value);
    rig_destroy(r);
}

/* The same of an outbox row that a new leader finds. */
static void an_outbox_row_is_done_without_it(void **state)
{
    (void)state;
    const char *chat;
    rig *r = talked(&chat);
    Store__OutboxItem item = STORE__OUTBOX_ITEM__INIT;
    Store__OutboxItem *list[1] = { &item };
    Store__OutboxRow owed = STORE__OUTBOX_ROW__INIT;
    mesh_buf value = { 0 };
    store_key key;
    item.chat = (char *)(uintptr_t)chat;
    item.seq = 9;
    owed.n_items = 1;
    owed.items = list;
    mesh_wire_pack(&owed, &value);
    mesh_buf_put(&value, "", 1);
    empty_outbox(r);
    store_key_outbox(&key, 1);
    change_row(r, &key, (const char *)value.data);
    assert_int_equal(store_core_error(r->core), MESH_OK);
    assert_int_equal(absent(r), 1);
    rig_sleep(r, 1000);
    assert_int_equal(rig_rows(r, "o"), 0);
    mesh_buf_fini(&value);
    rig_destroy(r);
}

static void a_slot_moves_without_the_body(void **state)
{
    (void)state;
    const char *chat;
    rig *r = talked(&chat);
    change_entry(r, chat, 2, NULL);
    mesh_buf rows = { 0 };
    bool last;
    uint64_t before = absent(r);
    mesh_slot slot = slot_of(r, rig_q(r, "bob"));
    assert_int_equal(store_slot_part(r->core->fsm, r->arena, slot, (mesh_slice){ NULL, 0 }, &rows, &last), MESH_OK);
    assert_true(last && rows.size < strlen(long_text));
    assert_int_equal(absent(r), before + 1);
    mesh_buf_fini(&rows);
    rig_destroy(r);
}

/* The same places, but the row is there and is none: this disk cannot be trusted. */
static void a_row_that_does_not_read_back_ends_it(void **state)
{
    (void)state;
    for (int i = 0; i < 4; i++) {
        const char *chat;
        rig *r = talked(&chat);
        empty_outbox(r);
        change_entry(r, chat, 2, "\xff\xff\xff");
        assert_int_equal(store_core_error(r->core), MESH_OK);
        if (i == 0) {
            Mesh__InboxRead read = MESH__INBOX_READ__INIT;
            read.user = rig_q(r, "bob");
            MESH_MSG(msg, INBOX_READ, inbox_read, &read);
            msg.key = read.user;
            ASSERT_FAULT(rig_ask(r, &msg), FAULT_UNAVAILABLE);
        } else if (i == 1) {
            ASSERT_FAULT(rig_history(r, "bob", chat, (Mesh__History)MESH__HISTORY__INIT), FAULT_UNAVAILABLE);
        } else {
            Mesh__Send send = rig_send_body(r, "ann", chat, "bob", "second", long_text);
            MESH_MSG(msg, SEND, send, &send);
            Mesh__Read read = MESH__READ__INIT;
            read.user = rig_q(r, "bob");
            read.chat = (char *)(uintptr_t)chat;
            read.seq = 2;
            MESH_MSG(mark, READ, read, &read);
            msg.key = mark.key = send.chat;
            rig_post(r, RIG_R1, i == 2 ? &msg : &mark);
            rig_run(r);
        }
        assert_int_equal(store_core_error(r->core), MESH_CORRUPT);
        assert_int_equal(absent(r), 0);
        rig_destroy(r);
    }
}

/* An inbox row refers to a long entry that is here. Whether it is cannot be told: no row is written for that. */
static void an_append_needs_to_know_whether_it_is_here(void **state)
{
    (void)state;
    const char *chat;
    rig *r = talked(&chat);
    rig_close(r); /* what was read before is not at hand */
    rig_open(r);
    rig_with_router(r);
    rig_sleep(r, 3000);
    rig_lease(r, RIG_R1, 11, false);
    rig_run(r);
    store_key key;
    store_key_entry(&key, slot_of(r, chat), chat, 2);
    sim_disk_flip_row(r->disk, store_key_slice(&key));
    Mesh__Entry entry = rig_entry(r, chat, 2, "ann", long_text);
    Mesh__Recipient cat = MESH__RECIPIENT__INIT, *users[] = { &cat };
    cat.user = rig_q(r, "cat");
    Mesh__Append append = MESH__APPEND__INIT;
    append.entry = &entry;
    append.n_users = 1;
    append.users = users;
    MESH_MSG(msg, APPEND, append, &append);
    msg.key = cat.user;
    size_t before = rig_rows(r, "i");
    uint64_t applied = r->core->fsm->applied;
    (void)rig_post(r, RIG_R1, &msg);
    rig_run(r);
    assert_int_equal(store_core_error(r->core), MESH_CORRUPT);
    assert_int_equal(r->core->fsm->applied, applied);
    assert_int_equal(rig_rows(r, "i"), before);
    rig_destroy(r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_inbox_row_whose_entry_is_gone_has_no_body),
        cmocka_unit_test(a_page_goes_round_a_hole),
        cmocka_unit_test(requests_about_it_change_nothing_else),
        cmocka_unit_test(the_rest_of_what_is_owed_is_sent),
        cmocka_unit_test(an_outbox_row_is_done_without_it),
        cmocka_unit_test(a_slot_moves_without_the_body),
        cmocka_unit_test(a_row_that_does_not_read_back_ends_it),
        cmocka_unit_test(an_append_needs_to_know_whether_it_is_here),
    };
    return cmocka_run_group_tests_name("store absent", tests, NULL, NULL);
}
