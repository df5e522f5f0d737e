/* What becomes of the sessions a router has: pages that were asked for before, and rings that take them away. And who
 * else is told of rings. */
#include "tests/unit/router_rig.h"

enum { EDGE1, ROUTER1, STORE1, STORE2 }; /* of shard 0 and shard 1 */
#define BOOT 77
#define SESSION 1
#define USER "default/bob"

static void set_ring(fixture *f, bool member)
{
    Mesh__RingNode node = MESH__RING_NODE__INIT;
    Mesh__RingNode *list[] = { &node };
    node.name = "router1";
    node.boot = BOOT;
    Mesh__Ring ring = MESH__RING__INIT;
    ring.epoch = ++f->epoch;
    ring.routers = list;
    ring.n_routers = member ? 1 : 0;
    MESH_MSG(msg, RING, ring, &ring);
    say(f, STORE1, &msg);
}

static int setup(void **state)
{
    mesh_conf *conf = mesh_conf_new();
    add_node(conf, "edge1", MESH_EDGE, 0);
    add_node(conf, "router1", MESH_ROUTER, 0);
    add_node(conf, "store1", MESH_STORE, 0);
    add_node(conf, "store2", MESH_STORE, 1);
    fixture *f = rig_new(conf, ROUTER1, BOOT);
    up(f, EDGE1);
    up(f, STORE1);
    up(f, STORE2);
    set_ring(f, true);
    *state = f;
    return 0;
}

/* From `after`; the inbox is at head. */
static void attach(fixture *f, uint64_t after, uint64_t head)
{
    Mesh__Attach ask = MESH__ATTACH__INIT;
    ask.user = USER;
    ask.device = "phone";
    ask.session = SESSION;
    ask.has_cursor = true;
    ask.after = after;
    MESH_MSG(msg, ATTACH, attach, &ask);
    msg.key = ask.user;
    msg.corr = 500;
    say(f, EDGE1, &msg);
    uint64_t corr = only(f, STORE1, MESH__MSG__BODY_ATTACH)->corr;
    Mesh__Attached body = MESH__ATTACHED__INIT;
    body.session = SESSION;
    body.generation = 1;
    body.after = after;
    body.head = head;
    body.era = f->era;
    MESH_MSG(answer, ATTACHED, attached, &body);
    answer.corr = corr;
    say(f, STORE1, &answer);
    only(f, EDGE1, MESH__MSG__BODY_ATTACHED);
}

static uint64_t reads_after(fixture *f, uint64_t after)
{
    Mesh__Msg *msg = only(f, STORE1, MESH__MSG__BODY_INBOX_READ);
    assert_int_equal(msg->inbox_read->after, after);
    return msg->corr;
}

static void page(fixture *f, uint64_t corr, uint64_t from, uint64_t to)
{
    Mesh__InboxEntry entries[8];
    Mesh__InboxEntry *list[8];
    Mesh__Entry entry = MESH__ENTRY__INIT;
    entry.chat = "default/g:x";
    Mesh__InboxPage body = MESH__INBOX_PAGE__INIT;
    body.entries = list;
    body.head = to;
    body.era = f->era;
    for (uint64_t i = from; i <= to; i++) {
        mesh__inbox_entry__init(&entries[body.n_entries]);
        entries[body.n_entries].inbox_seq = i;
        entries[body.n_entries].entry = &entry;
        list[body.n_entries] = &entries[body.n_entries];
        body.n_entries++;
    }
    MESH_MSG(msg, INBOX_PAGE, inbox_page, &body);
    msg.corr = corr;
    say(f, STORE1, &msg);
}

/* The edge missed some of what was sent and goes on from before it, while the next page is on its way. */
static void a_page_of_an_earlier_attach_is_void(void **state)
{
    fixture *f = *state;
    attach(f, 10, 12);
    uint64_t first = reads_after(f, 10);
    attach(f, 5, 12);
    uint64_t second = reads_after(f, 5);
    page(f, first, 11, 12);
    assert_int_equal(f->n_sent, 0); /* neither a hole, nor the end of the page that is on its way */
    page(f, second, 6, 12);
    assert_int_equal(count(f, MESH__MSG__BODY_LIVE), 7);
}

static void an_earlier_page_that_failed_changes_nothing(void **state)
{
    fixture *f = *state;
    attach(f, 10, 12);
    uint64_t first = reads_after(f, 10);
    attach(f, 5, 12);
    uint64_t second = reads_after(f, 5);
    Mesh__Fault fault = MESH__FAULT__INIT;
    fault.code = FAULT_BUSY;
    MESH_MSG(msg, FAULT, fault, &fault);
    msg.corr = first;
    say(f, STORE1, &msg);
    for (mesh_ms end = f->now.mono + ROUTER_HEADS_MS - 50; f->now.mono < end;) {
        pass(f, 50);
        assert_int_equal(count(f, MESH__MSG__BODY_INBOX_READ), 0); /* one is on its way */
    }
    page(f, second, 6, 12);
    assert_int_equal(count(f, MESH__MSG__BODY_LIVE), 7);
}

static void who_loses_its_router_is_told_after_the_ring(void **state)
{
    fixture *f = *state;
    attach(f, 10, 10);
    set_ring(f, true);
    assert_int_equal(count(f, MESH__MSG__BODY_REPLACED), 0);
    set_ring(f, false);
    assert_int_equal(f->sent[0].msg->body_case, MESH__MSG__BODY_RING);
    Mesh__Replaced *told = only(f, EDGE1, MESH__MSG__BODY_REPLACED)->replaced;
    assert_int_equal(told->session, SESSION);
    assert_int_equal(told->code, FAULT_NOT_OWNER);
    set_ring(f, true); /* its own again: the session is not */
    assert_int_equal(count(f, MESH__MSG__BODY_REPLACED), 0);
    pass(f, ROUTER_HEADS_MS);
    assert_int_equal(count(f, MESH__MSG__BODY_SESSION_HEADS), 0);
}

static size_t rings_after_word(fixture *f, mesh_peer from, uint64_t epoch)
{
    Mesh__Done done = MESH__DONE__INIT;
    MESH_MSG(msg, DONE, done, &done);
    msg.corr = 12345; /* nobody waits for it */
    msg.epoch = epoch;
    say(f, from, &msg);
    for (size_t i = 0; i < f->n_sent; i++) {
        assert_true(f->sent[i].to == from && f->sent[i].msg->ring->epoch == f->epoch);
    }
    return f->n_sent;
}

/* It may have had no database when the ring came, and what it said since, that it leads, need not have come here. */
static void a_store_that_is_behind_is_told_the_ring(void **state)
{
    fixture *f = *state;
    set_ring(f, true);
    assert_int_equal(count(f, MESH__MSG__BODY_RING), 2); /* the edge, and the store of the other shard */
    assert_int_equal(rings_after_word(f, STORE2, f->epoch), 0);
    assert_int_equal(rings_after_word(f, STORE2, f->epoch + 1), 0);
    assert_int_equal(rings_after_word(f, STORE2, f->epoch - 1), 1);
    f->now.mono += ROUTER_TOLD_MS - 1;
    assert_int_equal(rings_after_word(f, STORE2, f->epoch - 1), 0); /* it may be on its way into the log */
    f->now.mono += 1;
    assert_int_equal(rings_after_word(f, STORE2, 0), 1);
    assert_int_equal(rings_after_word(f, STORE1, f->epoch - 1), 0); /* where rings are made */
}

#define STORY(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        STORY(a_page_of_an_earlier_attach_is_void),
        STORY(an_earlier_page_that_failed_changes_nothing),
        STORY(who_loses_its_router_is_told_after_the_ring),
        STORY(a_store_that_is_behind_is_told_the_ring),
    };
    return cmocka_run_group_tests_name("router session", tests, NULL, NULL);
}
