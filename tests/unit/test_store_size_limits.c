/* How much the store takes in, holds and sends at once: log entries, pages, what is owed, what a chat remembers. */
#include "store/chat.h"
#include "store/fsm.h"
#include "store/gather.h"
#include "store/salvage_check.h"
#include "tests/unit/store_rig.h"

static char *filled(rig *r, size_t n)
{
    char *text = mesh_arena_alloc(r->arena, n + 1);
    memset(text, 'x', n);
    return text;
}

static uint64_t owed(rig *r)
{
    rig_turn(r);
    return mesh_stats_get(store_core_stats(r->core), STORE_M_OUTBOX_ITEMS);
}

static uint64_t applied(rig *r)
{
    store_key key;
    mesh_buf value = { 0 };
    ProtobufCMessage *message;
    store_key_applied(&key);
    assert_int_equal(store_kv_get(r->kv, store_key_slice(&key), &value), MESH_OK);
    assert_int_equal(mesh_wire_unpack(&store__applied_row__descriptor, mesh_buf_slice(&value), r->arena, &message),
                     MESH_OK);
    mesh_buf_fini(&value);
    return ((const Store__AppliedRow *)message)->index;
}

static void write_row(rig *r, const store_key *key, const void *message)
{
    mesh_buf packed = { 0 };
    store_kv_batch *batch = store_kv_batch_new();
    mesh_wire_pack(message, &packed);
    store_kv_batch_put(batch, store_key_slice(key), mesh_buf_slice(&packed));
    (void)store_kv_write(r->kv, batch, true);
    store_kv_batch_destroy(&batch);
    mesh_buf_fini(&packed);
}

static uint64_t post_send(rig *r, const char *user, const char *peer, const char *text)
{
    Mesh__Send send = rig_send_body(r, user, rig_direct(r, user, peer), peer, rig_id(r), text);
    MESH_MSG(msg, SEND, send, &send);
    msg.key = send.chat;
    return rig_post(r, RIG_R1, &msg);
}

/* ---- what is owed ---- */

/* n items of the chat's first entry, in rows of log entries that are far ahead. */
static void seed_outbox(rig *r, char *chat, size_t n)
{
    static Store__OutboxItem items[STORE_ENTRY_OPS];
    static Store__OutboxItem *list[STORE_ENTRY_OPS];
    for (size_t i = 0; i < STORE_ENTRY_OPS; i++) {
        store__outbox_item__init(&items[i]);
        items[i].chat = chat;
        items[i].seq = 1;
        list[i] = &items[i];
    }
    for (uint64_t index = 1u << 20; n > 0; index++) {
        Store__OutboxRow owes = STORE__OUTBOX_ROW__INIT;
        owes.n_items = n < STORE_ENTRY_OPS ? n : STORE_ENTRY_OPS;
        owes.items = list;
        n -= owes.n_items;
        store_key key;
        store_key_outbox(&key, index);
        write_row(r, &key, &owes);
    }
}

/* The router confirms the first parcel it has not confirmed yet. */
static void confirm_one(rig *r)
{
    for (size_t i = 0; i < r->n_seen; i++) {
        const Mesh__Msg *seen = r->seen[i].msg;
        if (seen->body_case == MESH__MSG__BODY_DELIVER && seen->deliver->item != 0) {
            Mesh__Delivered delivered = MESH__DELIVERED__INIT;
            delivered.item = seen->deliver->item;
            delivered.parcel = seen->deliver->parcel;
            seen->deliver->item = 0;
            MESH_MSG(msg, DELIVERED, delivered, &delivered);
            rig_give(r, r->seen[i].to, &msg);
            rig_run(r);
            return;
        }
    }
    fail_msg("nothing was sent");
}

static void sends_wait_while_too_much_is_owed(void **state)
{
    (void)state;
    rig *r = rig_ready();
    rig_say(r, "ann", "bob", "hi"); /* the first item owed */
    rig_create(r, "ann", "g1", "c", "bob", MESH__HISTORY_RULE__HISTORY_ALL);
    assert_int_equal(owed(r), 2);
    rig_close(r);
    rig_open(r);
    rig_forget(r); /* what an earlier leader sent is not what is confirmed to this one */
    seed_outbox(r, rig_direct(r, "ann", "bob"), STORE_OUTBOX_BACKLOG_MAX - 3);
    rig_run(r);
    assert_int_equal(owed(r), STORE_OUTBOX_BACKLOG_MAX - 1);
    rig_say(r, "ann", "bob", "the last one");
    assert_int_equal(owed(r), STORE_OUTBOX_BACKLOG_MAX);
    char *direct = rig_direct(r, "ann", "bob");
    ASSERT_FAULT(rig_send(r, "ann", direct, "bob", "m", "one more"), FAULT_BUSY);
    ASSERT_FAULT(rig_create(r, "ann", "g2", "d", "bob", MESH__HISTORY_RULE__HISTORY_ALL), FAULT_BUSY);
    ASSERT_FAULT(rig_edit(r, "ann", "g1", "e", MESH__EDIT_OP__EDIT_ADD, "cat"), FAULT_BUSY);
    /* what owes nobody anything goes on */
    ASSERT_KIND(rig_hello(r, "bob", "phone", 0, UINT64_MAX), ATTACHED);
    ASSERT_KIND(rig_history(r, "bob", direct, (Mesh__History)MESH__HISTORY__INIT), PAGE);
    assert_int_equal(owed(r), STORE_OUTBOX_BACKLOG_MAX);
    store_core_up(r->core, RIG_R1, 11, r->now, r->out);
    rig_lease(r, RIG_R1, 11, false);
    rig_run(r);
    confirm_one(r);
    assert_int_equal(owed(r), STORE_OUTBOX_BACKLOG_MAX - 1);
    ASSERT_KIND(rig_send(r, "ann", direct, "bob", "m", "one more"), SENT);
    ASSERT_FAULT(rig_send(r, "ann", direct, "bob", "n", "and one"), FAULT_BUSY);
    rig_destroy(r);
}

/* What a router lacks is sent at once up to a page's bytes, and the next time from there. */
static void a_gap_is_filled_a_page_at_a_time(void **state)
{
    (void)state;
    enum { SIZE = 60000, N = 12 };
    rig *r = rig_ready();
    for (unsigned i = 0; i < N; i++) {
        rig_say(r, "ann", "bob", filled(r, SIZE));
    }
    const Mesh__Deliver *last = NULL;
    for (size_t i = 0; i < r->n_seen; i++) {
        if (r->seen[i].msg->body_case == MESH__MSG__BODY_DELIVER) {
            last = r->seen[i].msg->deliver;
        }
    }
    assert_non_null(last);
    assert_int_equal(last->entry->seq, N);
    while (owed(r) > 1) {
        confirm_one(r);
    }
    uint64_t next = 1;
    for (unsigned round = 0; next < N; round++) {
        assert_true(round < N);
        Mesh__Gap gap = MESH__GAP__INIT;
        Mesh__Gap *gaps[] = { &gap };
        gap.user = rig_q(r, "bob");
        gap.expected = next - 1;
        Mesh__Delivered delivered = MESH__DELIVERED__INIT;
        delivered.item = last->item;
        delivered.parcel = last->parcel;
        delivered.n_gaps = 1;
        delivered.gaps = gaps;
        MESH_MSG(msg, DELIVERED, delivered, &delivered);
        rig_forget(r);
        rig_give(r, RIG_R1, &msg);
        size_t bytes = 0;
        for (size_t i = 0; i < r->n_seen; i++) {
            ASSERT_KIND(r->seen[i].msg, DELIVER);
            assert_int_equal(r->seen[i].msg->deliver->entry->seq, next++);
            assert_in_range(bytes, 0, STORE_PAGE_BYTES - 1); /* before this one there was room */
            bytes += r->seen[i].msg->deliver->entry->body.len;
        }
        assert_true(next == N || bytes >= STORE_PAGE_BYTES - SIZE);
        assert_true(r->n_seen > 0);
    }
    rig_destroy(r);
}

/* ---- what a chat remembers ---- */

/* Former members of a group: there from its first entry to its first. */
static void seed_former_members(rig *r, const char *chat, size_t n)
{
    Store__Span span = STORE__SPAN__INIT;
    Store__Span *spans[] = { &span };
    Store__MemberRow member = STORE__MEMBER_ROW__INIT;
    span.from = 1;
    span.to = 1;
    member.spans = spans;
    member.n_spans = 1;
    for (size_t i = 0; i < n; i++) {
        char user[32];
        snprintf(user, sizeof user, "default/f%05zu", i);
        store_key key;
        store_key_member(&key, mesh_id_slot(mesh_conf_hash_key(r->conf), chat), chat, user);
        write_row(r, &key, &member);
    }
}

static void a_chat_remembers_so_many_members(void **state)
{
    (void)state;
    rig *r = rig_ready();
    rig_create(r, "ann", "g1", "c", "bob", MESH__HISTORY_RULE__HISTORY_ALL);
    rig_close(r);
    rig_open(r);
    seed_former_members(r, rig_q(r, "g1"), STORE_MEMBER_ROWS_MAX - 4);
    rig_run(r);
    ASSERT_KIND(rig_edit(r, "ann", "g1", "1", MESH__EDIT_OP__EDIT_ADD, "cat"), SENT);
    ASSERT_FAULT(rig_edit(r, "ann", "g1", "2", MESH__EDIT_OP__EDIT_ADD, "dan eve"), FAULT_TOO_MANY_MEMBERS);
    ASSERT_KIND(rig_edit(r, "ann", "g1", "3", MESH__EDIT_OP__EDIT_ADD, "dan"), SENT); /* the limit exactly */
    ASSERT_FAULT(rig_edit(r, "ann", "g1", "4", MESH__EDIT_OP__EDIT_ADD, "eve"), FAULT_TOO_MANY_MEMBERS);
    ASSERT_KIND(rig_edit(r, "ann", "g1", "5", MESH__EDIT_OP__EDIT_REMOVE, "dan"), SENT);
    ASSERT_FAULT(rig_edit(r, "ann", "g1", "6", MESH__EDIT_OP__EDIT_ADD, "eve"), FAULT_TOO_MANY_MEMBERS);
    ASSERT_KIND(rig_edit(r, "ann", "g1", "7", MESH__EDIT_OP__EDIT_ADD, "dan f00007"), SENT); /* no new rows */
    ASSERT_KIND(rig_post_text(r, "f00007", "g1", "here again"), SENT);
    rig_close(r); /* and it loads with that many */
    rig_open(r);
    rig_run(r);
    ASSERT_KIND(rig_post_text(r, "dan", "g1", "here too"), SENT);
    ASSERT_FAULT(rig_edit(r, "ann", "g1", "8", MESH__EDIT_OP__EDIT_ADD, "eve"), FAULT_TOO_MANY_MEMBERS);
    assert_int_equal(store_core_error(r->core), MESH_OK);
    rig_destroy(r);
}

/* ---- log entries ---- */

/* Submit the oldest entry that gathers. Returns its size. */
static size_t submit_one(store_gather *gather, size_t *n_p)
{
    mesh_slice payload = store_gather_submit(gather, RIG_WALL);
    store_gathered *entry = store_gather_committed(gather);
    assert_int_equal(entry->payload.size, payload.size);
    *n_p = entry->n;
    store_gather_done(gather, entry);
    return payload.size;
}

static void a_log_entry_is_closed_at_its_size(void **state)
{
    (void)state;
    enum { SIZE = 1000, N = 2000, BIG = 300000 };
    static const uint8_t bytes[BIG];
    store_gather *gather = store_gather_new();
    for (unsigned i = 0; i < N; i++) {
        store_gather_put(gather, RIG_R1, i, (mesh_slice){ bytes, SIZE });
    }
    size_t total = 0, n;
    assert_true(store_gather_bytes(gather) > N * SIZE);
    while (store_gather_waits(gather)) {
        size_t size = submit_one(gather, &n);
        total += n;
        assert_true(size <= STORE_ENTRY_SOFT_MAX + SIZE);
        assert_true(total == N || size > STORE_ENTRY_SOFT_MAX - SIZE - 16);
    }
    assert_int_equal(total, N);
    assert_int_equal(store_gather_bytes(gather), 0);
    /* one that is larger stands alone */
    store_gather_put(gather, RIG_R1, 1, (mesh_slice){ bytes, SIZE });
    store_gather_put(gather, RIG_R1, 2, (mesh_slice){ bytes, BIG });
    store_gather_put(gather, RIG_R1, 3, (mesh_slice){ bytes, SIZE });
    store_gather_put(gather, RIG_R1, 4, (mesh_slice){ bytes, SIZE });
    assert_true(submit_one(gather, &n) < 2 * SIZE);
    assert_int_equal(n, 1);
    assert_true(submit_one(gather, &n) > BIG);
    assert_int_equal(n, 1);
    assert_true(submit_one(gather, &n) < 3 * SIZE);
    assert_int_equal(n, 2);
    /* and so many small ones are the most in one */
    for (unsigned i = 0; i < STORE_ENTRY_OPS + 1; i++) {
        store_gather_put(gather, RIG_R1, i, (mesh_slice){ bytes, 20 });
    }
    assert_true(submit_one(gather, &n) < STORE_ENTRY_SOFT_MAX / 2);
    assert_int_equal(n, STORE_ENTRY_OPS);
    (void)submit_one(gather, &n);
    assert_int_equal(n, 1);
    assert_true(store_gather_empty(gather));
    store_gather_destroy(&gather);
}

static void what_comes_together_becomes_several_log_entries(void **state)
{
    (void)state;
    enum { SIZE = 100000, N = 20 };
    rig *r = rig_ready();
    uint64_t corr[N];
    uint64_t before = applied(r);
    for (unsigned i = 0; i < N; i++) {
        corr[i] = post_send(r, "ann", "bob", filled(r, SIZE));
    }
    rig_run(r);
    assert_int_equal(applied(r), before + N / (STORE_ENTRY_SOFT_MAX / SIZE));
    for (unsigned i = 0; i < N; i++) {
        ASSERT_KIND(rig_answer(r, corr[i]), SENT);
        assert_int_equal(rig_answer(r, corr[i])->sent->seq, i + 1);
    }
    before = applied(r);
    uint64_t big = post_send(r, "ann", "bob", filled(r, 2 * STORE_ENTRY_SOFT_MAX));
    uint64_t small = post_send(r, "ann", "bob", "small");
    rig_run(r);
    assert_int_equal(applied(r), before + 2);
    assert_int_equal(rig_answer(r, big)->sent->seq, N + 1);
    assert_int_equal(rig_answer(r, small)->sent->seq, N + 2);
    rig_destroy(r);
}

/* ---- the disk's queue ---- */

static void nothing_is_written_while_the_disk_is_behind(void **state)
{
    (void)state;
    rig *r = rig_ready();
    char *direct = rig_direct(r, "ann", "bob");
    rig_say(r, "ann", "bob", "hi");
    mesh_slice value = { (const uint8_t *)filled(r, 1 << 20), 1 << 20 };
    store_kv_batch *batch = store_kv_batch_new();
    while (!store_kv_full(r->kv)) {
        assert_true(store_kv_counted(r->kv).queued_bytes <= STORE_KV_QUEUE_MAX);
        store_kv_batch_put(batch, (mesh_slice){ (const uint8_t *)"~", 1 }, value);
        (void)store_kv_write(r->kv, batch, true);
    }
    assert_true(store_kv_counted(r->kv).queued_bytes > STORE_KV_QUEUE_MAX);
    store_kv_batch_destroy(&batch);
    uint64_t corr = post_send(r, "ann", "bob", "no");
    ASSERT_FAULT(rig_answer(r, corr), FAULT_BUSY);
    Mesh__InboxAck ack = MESH__INBOX_ACK__INIT;
    ack.user = rig_q(r, "bob");
    ack.device = mesh_arena_strdup(r->arena, "phone");
    MESH_MSG(msg, INBOX_ACK, inbox_ack, &ack);
    msg.key = ack.user;
    corr = rig_post(r, RIG_R1, &msg);
    ASSERT_FAULT(rig_answer(r, corr), FAULT_BUSY);
    Mesh__History history = MESH__HISTORY__INIT;
    assert_string_equal(rig_seqs(r, rig_history(r, "bob", direct, history)->page), "1"); /* reads go on */
    while (sim_disk_flush(r->disk)) {
    }
    assert_false(store_kv_full(r->kv));
    ASSERT_KIND(rig_send(r, "ann", direct, "bob", "m", "yes"), SENT);
    rig_destroy(r);
}

/* ---- what is missing ---- */

/* A device that has seen n entries of an inbox without rows. Returns the lines about it. */
static unsigned report_of(rig *r, uint64_t n, uint64_t *missing)
{
    Store__DeviceRow device = STORE__DEVICE_ROW__INIT;
    store_key key;
    device.cursor = n;
    store_key_device(&key, mesh_id_slot(mesh_conf_hash_key(r->conf), "default/zoe"), "default/zoe", "phone");
    write_row(r, &key, &device);
    FILE *report = tmpfile();
    assert_non_null(report);
    salvage_totals totals;
    char why[256] = "";
    assert_int_equal(store_salvage_check(r->kv, NULL, report, &totals, why, sizeof why), MESH_OK);
    *missing = totals.missing;
    rewind(report);
    unsigned lines = 0;
    for (int c; (c = fgetc(report)) != EOF;) {
        lines += c == '\n' ? 1 : 0;
    }
    fclose(report);
    return lines;
}

static void a_hole_is_reported_in_so_many_lines(void **state)
{
    (void)state;
    enum { LINES = 10000 }; /* MISSING_PER_GAP_MAX of store/salvage_check.c */
    uint64_t missing;
    rig *r = rig_ready();
    assert_int_equal(report_of(r, LINES, &missing), LINES);
    assert_int_equal(missing, LINES);
    assert_int_equal(report_of(r, LINES + 1, &missing), LINES + 1); /* the last one says how far it goes */
    assert_int_equal(missing, LINES + 1);
    assert_int_equal(report_of(r, UINT64_C(1) << 60, &missing), LINES + 1);
    assert_int_equal(missing, UINT64_C(1) << 60);
    rig_destroy(r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sends_wait_while_too_much_is_owed),
        cmocka_unit_test(a_gap_is_filled_a_page_at_a_time),
        cmocka_unit_test(a_chat_remembers_so_many_members),
        cmocka_unit_test(a_log_entry_is_closed_at_its_size),
        cmocka_unit_test(what_comes_together_becomes_several_log_entries),
        cmocka_unit_test(nothing_is_written_while_the_disk_is_behind),
        cmocka_unit_test(a_hole_is_reported_in_so_many_lines),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
