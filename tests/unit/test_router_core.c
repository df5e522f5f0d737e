/* The router core, driven by hand: the test is the edge and the store. */
#include "tests/unit/router_rig.h"

enum { EDGE1, EDGE2, ROUTER1, ROUTER2, STORE1 };
#define BOOT 77

static void set_ring(fixture *f, bool both)
{
    Mesh__RingNode nodes[2] = { MESH__RING_NODE__INIT, MESH__RING_NODE__INIT };
    Mesh__RingNode *list[2] = { &nodes[0], &nodes[1] };
    nodes[0].name = "router1";
    nodes[0].boot = BOOT;
    nodes[1].name = "router2";
    nodes[1].boot = BOOT + 1;
    Mesh__Ring ring = MESH__RING__INIT;
    ring.epoch = ++f->epoch;
    ring.routers = list;
    ring.n_routers = both ? 2 : 1;
    MESH_MSG(msg, RING, ring, &ring);
    say(f, STORE1, &msg);
}

static int setup(void **state)
{
    mesh_conf *conf = mesh_conf_new();
    add_node(conf, "edge1", MESH_EDGE, 0);
    add_node(conf, "edge2", MESH_EDGE, 0);
    add_node(conf, "router1", MESH_ROUTER, 0);
    add_node(conf, "router2", MESH_ROUTER, 0);
    add_node(conf, "store1", MESH_STORE, 0);
    fixture *f = rig_new(conf, ROUTER1, BOOT);
    up(f, EDGE1);
    up(f, EDGE2);
    up(f, STORE1);
    assert_string_equal(only(f, STORE1, MESH__MSG__BODY_LEASE)->lease->router, "router1");
    set_ring(f, false);
    assert_int_equal(count(f, MESH__MSG__BODY_RING), 2); /* each edge is told */
    *state = f;
    return 0;
}

static void send_request(fixture *f, uint64_t corr)
{
    Mesh__Send send = MESH__SEND__INIT;
    send.user = "default/ann";
    send.chat = "default/g:x";
    send.client_msg_id = "m1";
    MESH_MSG(msg, SEND, send, &send);
    msg.key = send.chat;
    msg.corr = corr;
    msg.trace = 9;
    say(f, EDGE1, &msg);
}

static void expect_fault(fixture *f, mesh_peer to, uint64_t corr, uint32_t code)
{
    Mesh__Msg *msg = only(f, to, MESH__MSG__BODY_FAULT);
    assert_int_equal(msg->corr, corr);
    assert_int_equal(msg->fault->code, code);
}

static Mesh__Msg *attach_ask(fixture *f, mesh_peer edge, uint64_t session, const char *device, uint64_t after)
{
    Mesh__Attach attach = MESH__ATTACH__INIT;
    attach.user = "default/bob";
    attach.device = (char *)device;
    attach.session = session;
    attach.has_cursor = true;
    attach.after = after;
    attach.fresh = true;
    MESH_MSG(msg, ATTACH, attach, &attach);
    msg.key = attach.user;
    msg.corr = 500 + session;
    say(f, edge, &msg);
    return only(f, STORE1, MESH__MSG__BODY_ATTACH);
}

static void attached(fixture *f, uint64_t corr, uint64_t session, uint64_t generation, uint64_t after, uint64_t head,
                     bool resync)
{
    Mesh__Attached answer = MESH__ATTACHED__INIT;
    answer.session = session;
    answer.generation = generation;
    answer.after = after;
    answer.head = head;
    answer.era = 1;
    answer.resync = resync;
    MESH_MSG(msg, ATTACHED, attached, &answer);
    msg.corr = corr;
    say(f, STORE1, &msg);
}

static void attach(fixture *f, mesh_peer edge, uint64_t session, const char *device, uint64_t at)
{
    attached(f, attach_ask(f, edge, session, device, at)->corr, session, session, at, at, false);
    assert_int_equal(only(f, edge, MESH__MSG__BODY_ATTACHED)->corr, 500 + session);
}

static Mesh__Msg *deliver(fixture *f, uint64_t item, uint64_t seq)
{
    Mesh__Entry entry = MESH__ENTRY__INIT;
    entry.chat = "default/g:x";
    entry.seq = seq;
    Mesh__Recipient recipient = MESH__RECIPIENT__INIT;
    Mesh__Recipient *users[] = { &recipient };
    recipient.user = "default/bob";
    recipient.prev = seq - 1;
    Mesh__Deliver body = MESH__DELIVER__INIT;
    body.item = item;
    body.parcel = 3;
    body.entry = &entry;
    body.users = users;
    body.n_users = 1;
    MESH_MSG(msg, DELIVER, deliver, &body);
    say(f, STORE1, &msg);
    return count(f, MESH__MSG__BODY_APPEND) ? only(f, STORE1, MESH__MSG__BODY_APPEND) : NULL;
}

static void appended(fixture *f, uint64_t corr, Mesh__AppendState append_state, uint64_t inbox_seq, uint64_t expected)
{
    Mesh__AppendResult result = MESH__APPEND_RESULT__INIT;
    Mesh__AppendResult *results[] = { &result };
    result.state = append_state;
    result.inbox_seq = inbox_seq;
    result.expected = expected;
    Mesh__Appended body = MESH__APPENDED__INIT;
    body.results = results;
    body.n_results = 1;
    body.era = f->era;
    MESH_MSG(msg, APPENDED, appended, &body);
    msg.corr = corr;
    say(f, STORE1, &msg);
}

static void ack(fixture *f, uint64_t session, uint64_t inbox_seq)
{
    Mesh__InboxAck body = MESH__INBOX_ACK__INIT;
    body.user = "default/bob";
    body.device = "phone";
    body.session = session;
    body.inbox_seq = inbox_seq;
    MESH_MSG(msg, INBOX_ACK, inbox_ack, &body);
    msg.key = body.user;
    say(f, EDGE1, &msg);
}

static void page(fixture *f, uint64_t corr, uint64_t from, uint64_t to, uint64_t head)
{
    Mesh__InboxEntry entries[ROUTER_PULL_ROWS];
    Mesh__InboxEntry *list[ROUTER_PULL_ROWS];
    Mesh__Entry entry = MESH__ENTRY__INIT;
    entry.chat = "default/g:x";
    Mesh__InboxPage body = MESH__INBOX_PAGE__INIT;
    body.entries = list;
    body.head = head;
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

static void request_is_forwarded_and_answered(void **state)
{
    fixture *f = *state;
    send_request(f, 42);
    uint64_t corr = only(f, STORE1, MESH__MSG__BODY_SEND)->corr;
    assert_int_not_equal(corr, 42);
    Mesh__Sent sent = MESH__SENT__INIT;
    sent.seq = 7;
    MESH_MSG(answer, SENT, sent, &sent);
    answer.corr = corr;
    say(f, STORE1, &answer);
    Mesh__Msg *back = only(f, EDGE1, MESH__MSG__BODY_SENT);
    assert_int_equal(back->corr, 42);
    assert_int_equal(back->trace, 9);
    assert_int_equal(back->sent->seq, 7);
    say(f, STORE1, &answer); /* late and doubled: nobody waits */
    assert_int_equal(f->n_sent, 0);
}

static void deadline_and_store_down_answer_unavailable(void **state)
{
    fixture *f = *state;
    send_request(f, 42);
    f->now.mono += mesh_conf_int(f->conf, "router.ttl_ms");
    router_core_turn(f->core, f->now, f->out);
    collect(f);
    expect_fault(f, EDGE1, 42, FAULT_UNAVAILABLE);
    send_request(f, 43);
    uint64_t corr = only(f, STORE1, MESH__MSG__BODY_SEND)->corr;
    router_core_down(f->core, STORE1, f->now, f->out);
    collect(f);
    assert_int_equal(f->n_sent, 0); /* it may be back in time */
    send_request(f, 44);
    expect_fault(f, EDGE1, 44, FAULT_UNAVAILABLE); /* nobody is there, and nobody to take over */
    f->now.mono += 100;
    router_core_up(f->core, STORE1, 7, f->now, f->out);
    collect(f);
    assert_int_not_equal(only(f, STORE1, MESH__MSG__BODY_SEND)->corr, corr);
    router_core_down(f->core, STORE1, f->now, f->out);
    f->now.mono += mesh_conf_int(f->conf, "router.ttl_ms");
    router_core_turn(f->core, f->now, f->out);
    collect(f);
    expect_fault(f, EDGE1, 43, FAULT_UNAVAILABLE);
}

static void ask_with_ttl(fixture *f, uint64_t corr, uint32_t ttl_ms)
{
    Mesh__Read read = MESH__READ__INIT;
    read.user = "default/ann";
    read.chat = "default/g:x";
    read.seq = 1;
    MESH_MSG(msg, READ, read, &read);
    msg.key = read.chat;
    msg.corr = corr;
    msg.ttl_ms = ttl_ms;
    say(f, EDGE1, &msg);
}

/* The earlier of what the edge gives and what the router allows, whatever the order they came in. */
static void deadlines_are_the_askers(void **state)
{
    static const struct {
        uint32_t ttl_ms;
        uint32_t passed_on;
    } asks[] = { { 0, 5000 }, { 300, 300 }, { 60000, 5000 }, { 100, 100 }, { 200, 200 }, { 100, 100 }, { 1, 1 } };
    static const struct {
        mesh_ms at;
        size_t n; /* answered then */
        uint64_t first, last;
    } ends[] = { { 1, 1, 7, 7 },   { 99, 0, 0, 0 },  { 100, 2, 4, 6 },
                 { 299, 1, 5, 5 }, { 300, 1, 2, 2 }, { 5000, 2, 1, 3 } };
    fixture *f = *state;
    mesh_ms start = f->now.mono;
    for (uint64_t i = 0; i < sizeof asks / sizeof *asks; i++) {
        ask_with_ttl(f, i + 1, asks[i].ttl_ms);
        assert_int_equal(only(f, STORE1, MESH__MSG__BODY_READ)->ttl_ms, asks[i].passed_on);
    }
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++) {
        f->now.mono = start + ends[i].at;
        mesh_ms next = router_core_turn(f->core, f->now, f->out);
        collect(f);
        assert_int_equal(count(f, MESH__MSG__BODY_FAULT), ends[i].n);
        uint64_t seen[2] = { 0, 0 };
        size_t n = 0;
        for (size_t k = 0; k < f->n_sent; k++) {
            if (f->sent[k].msg->body_case == MESH__MSG__BODY_FAULT) {
                seen[n++ > 0] = f->sent[k].msg->corr;
            }
        }
        if (n > 0) {
            assert_int_equal(seen[0], ends[i].first);
            assert_int_equal(seen[n - 1], ends[i].last);
        }
        if (i == 1) {
            assert_int_equal(next, start + 100); /* the loop comes back for the next one */
        }
    }
    assert_true(router_core_turn(f->core, f->now, f->out) > f->now.mono);
}

/* An edge asks again after its two seconds; the attach that is on its way must be there still. */
static void an_attach_outlives_its_asker(void **state)
{
    fixture *f = *state;
    Mesh__Attach body = MESH__ATTACH__INIT;
    body.user = "default/bob";
    body.device = "phone";
    body.session = 1;
    body.fresh = true;
    MESH_MSG(msg, ATTACH, attach, &body);
    msg.key = body.user;
    msg.corr = 8;
    msg.ttl_ms = 2000;
    say(f, EDGE1, &msg);
    only(f, STORE1, MESH__MSG__BODY_ATTACH);
    f->now.mono += 2000;
    router_core_turn(f->core, f->now, f->out);
    collect(f);
    assert_int_equal(count(f, MESH__MSG__BODY_FAULT), 0);
    msg.corr = 9;
    say(f, EDGE1, &msg);
    assert_int_equal(count(f, MESH__MSG__BODY_ATTACH), 0);
}

static void inflight_is_bounded(void **state)
{
    fixture *f = *state;
    for (uint64_t i = 1; i <= ROUTER_INFLIGHT_MAX; i++) {
        send_request(f, i);
        assert_int_equal(f->n_sent, 1);
        mesh_arena_reset(f->arena);
    }
    send_request(f, 99999);
    expect_fault(f, EDGE1, 99999, FAULT_BUSY);
}

/* Parcels of half a megabyte, none of them answered by the users' store. */
static void held_deliveries_are_bounded(void **state)
{
    fixture *f = *state;
    const size_t size = 512 * 1024;
    Mesh__Entry entry = MESH__ENTRY__INIT;
    entry.chat = "default/g:x";
    entry.body = (ProtobufCBinaryData){ size, mesh_alloc(size) };
    Mesh__Recipient recipient = MESH__RECIPIENT__INIT;
    Mesh__Recipient *users[] = { &recipient };
    recipient.user = "default/bob";
    Mesh__Deliver body = MESH__DELIVER__INIT;
    body.entry = &entry;
    body.users = users;
    body.n_users = 1;
    MESH_MSG(msg, DELIVER, deliver, &body);
    size_t fits = 0;
    uint64_t corr = 0;
    for (bool full = false; !full; fits += !full) {
        assert_true(fits <= ROUTER_DELIVER_BYTES_MAX / size);
        body.item = entry.seq = fits + 1;
        mesh_arena_reset(f->arena);
        say(f, STORE1, &msg);
        full = count(f, MESH__MSG__BODY_DELIVERED) > 0;
        corr = full ? corr : only(f, STORE1, MESH__MSG__BODY_APPEND)->corr;
    }
    assert_int_equal(fits, ROUTER_DELIVER_BYTES_MAX / size - 1); /* each is a little more than its body */
    Mesh__Delivered *refused = only(f, STORE1, MESH__MSG__BODY_DELIVERED)->delivered;
    assert_true(refused->retry && refused->item == fits + 1);
    appended(f, corr, MESH__APPEND_STATE__APPEND_DONE, 1, 0); /* one is done: there is room for one */
    say(f, STORE1, &msg);
    only(f, STORE1, MESH__MSG__BODY_APPEND);
    free(entry.body.data);
}

static void sessions_are_bounded(void **state)
{
    fixture *f = *state;
    router_core_destroy(&f->core);
    assert_int_equal(mesh_conf_int(f->conf, "router.sessions_max"), 1000000);
    assert_int_equal(mesh_conf_set(f->conf, "router.sessions_max", "2"), MESH_OK);
    f->core = router_core_new(&(router_core_conf){ f->conf, ROUTER1, BOOT }, f->now);
    router_core_up(f->core, EDGE1, 5, f->now, f->out);
    router_core_up(f->core, STORE1, 6, f->now, f->out);
    set_ring(f, false);
    attach(f, EDGE1, 1, "a", 10);
    attach(f, EDGE1, 2, "b", 10);
    Mesh__Attach body = MESH__ATTACH__INIT;
    body.user = "default/bob";
    body.device = "c";
    body.session = 3;
    body.fresh = true;
    MESH_MSG(msg, ATTACH, attach, &body);
    msg.key = body.user;
    msg.corr = 9;
    say(f, EDGE1, &msg);
    expect_fault(f, EDGE1, 9, FAULT_BUSY);
    Mesh__Detach gone = MESH__DETACH__INIT;
    gone.user = "default/bob";
    gone.session = 1;
    MESH_MSG(detach, DETACH, detach, &gone);
    detach.key = gone.user;
    say(f, EDGE1, &detach);
    say(f, EDGE1, &msg);
    only(f, STORE1, MESH__MSG__BODY_ATTACH);
}

static void live_entry_goes_out_in_turn(void **state)
{
    fixture *f = *state;
    attach(f, EDGE1, 1, "phone", 10);
    attach(f, EDGE2, 2, "laptop", 10);
    appended(f, deliver(f, 900, 5)->corr, MESH__APPEND_STATE__APPEND_DONE, 11, 0);
    assert_int_equal(only(f, EDGE1, MESH__MSG__BODY_LIVE)->live->targets[0]->inbox_seq, 11);
    assert_int_equal(only(f, EDGE2, MESH__MSG__BODY_LIVE)->live->targets[0]->session, 2);
    Mesh__Delivered *done = only(f, STORE1, MESH__MSG__BODY_DELIVERED)->delivered;
    assert_int_equal(done->item, 900);
    assert_int_equal(done->parcel, 3);
    assert_false(done->retry);
    assert_int_equal(done->n_gaps, 0);
}

/* The store appended by itself where inbox_seq is not 0. */
static void deliver_to_two(fixture *f, uint64_t bob, uint64_t cid)
{
    Mesh__Entry entry = MESH__ENTRY__INIT;
    Mesh__Recipient users[2] = { MESH__RECIPIENT__INIT, MESH__RECIPIENT__INIT };
    Mesh__Recipient *list[2] = { &users[0], &users[1] };
    Mesh__Deliver body = MESH__DELIVER__INIT;
    entry.chat = "default/g:x";
    entry.seq = 5;
    users[0].user = "default/bob";
    users[0].inbox_seq = bob;
    users[1].user = "default/cid";
    users[1].inbox_seq = cid;
    body.item = 900;
    body.entry = &entry;
    body.users = list;
    body.n_users = 2;
    body.era = f->era;
    MESH_MSG(msg, DELIVER, deliver, &body);
    say(f, STORE1, &msg);
}

static void what_the_store_appended_itself_goes_out_at_once(void **state)
{
    fixture *f = *state;
    attach(f, EDGE1, 1, "phone", 10);
    deliver_to_two(f, 11, 3);
    assert_int_equal(count(f, MESH__MSG__BODY_APPEND), 0);
    assert_int_equal(only(f, EDGE1, MESH__MSG__BODY_LIVE)->live->targets[0]->inbox_seq, 11);
    assert_int_equal(only(f, EDGE1, MESH__MSG__BODY_LIVE)->live->era, f->era);
    assert_false(only(f, STORE1, MESH__MSG__BODY_DELIVERED)->delivered->retry);
    deliver_to_two(f, 11, 3); /* sent again: the session has moved on */
    assert_int_equal(count(f, MESH__MSG__BODY_LIVE), 0);
    assert_int_equal(only(f, STORE1, MESH__MSG__BODY_DELIVERED)->delivered->item, 900);
    deliver_to_two(f, 13, 4); /* beyond its next: that is pulled at once */
    assert_int_equal(count(f, MESH__MSG__BODY_LIVE), 0);
    assert_int_equal(only(f, STORE1, MESH__MSG__BODY_INBOX_READ)->inbox_read->after, 11);
}

static void only_who_lacks_it_is_appended_to(void **state)
{
    fixture *f = *state;
    attach(f, EDGE1, 1, "phone", 10);
    deliver_to_two(f, 0, 3);
    Mesh__Msg *append = only(f, STORE1, MESH__MSG__BODY_APPEND);
    assert_int_equal(append->append->n_users, 1);
    assert_string_equal(append->append->users[0]->user, "default/bob");
    assert_string_equal(append->key, "default/bob");
    assert_int_equal(count(f, MESH__MSG__BODY_DELIVERED), 0);
    appended(f, append->corr, MESH__APPEND_STATE__APPEND_DONE, 11, 0);
    assert_int_equal(only(f, EDGE1, MESH__MSG__BODY_LIVE)->live->targets[0]->inbox_seq, 11);
    assert_int_equal(only(f, STORE1, MESH__MSG__BODY_DELIVERED)->delivered->n_gaps, 0);

    f->era = 0; /* the inbox_seqs do not count */
    deliver_to_two(f, 12, 4);
    assert_int_equal(only(f, STORE1, MESH__MSG__BODY_APPEND)->append->n_users, 2);
}

static void entry_beyond_next_is_pulled_in_order(void **state)
{
    fixture *f = *state;
    attach(f, EDGE1, 1, "phone", 10);
    appended(f, deliver(f, 900, 5)->corr, MESH__APPEND_STATE__APPEND_DONE, 13, 0);
    assert_int_equal(count(f, MESH__MSG__BODY_LIVE), 0);
    Mesh__Msg *pull = only(f, STORE1, MESH__MSG__BODY_INBOX_READ);
    assert_int_equal(pull->inbox_read->after, 10);
    page(f, pull->corr, 11, 13, 13);
    assert_int_equal(count(f, MESH__MSG__BODY_LIVE), 3);
    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(f->sent[i].msg->live->targets[0]->inbox_seq, 11 + i);
    }
    assert_int_equal(count(f, MESH__MSG__BODY_INBOX_READ), 0); /* head reached */
}

static void gap_and_refusal_go_back_to_the_outbox(void **state)
{
    fixture *f = *state;
    appended(f, deliver(f, 900, 5)->corr, MESH__APPEND_STATE__APPEND_GAP, 0, 2);
    Mesh__Delivered *answer = only(f, STORE1, MESH__MSG__BODY_DELIVERED)->delivered;
    assert_int_equal(answer->n_gaps, 1);
    assert_string_equal(answer->gaps[0]->user, "default/bob");
    assert_int_equal(answer->gaps[0]->expected, 2);
    appended(f, deliver(f, 901, 6)->corr, MESH__APPEND_STATE__APPEND_REFUSED, 0, 0);
    assert_true(only(f, STORE1, MESH__MSG__BODY_DELIVERED)->delivered->retry);
}

static void doubled_append_only_raises_the_head(void **state)
{
    fixture *f = *state;
    attach(f, EDGE1, 1, "phone", 10);
    appended(f, deliver(f, 900, 5)->corr, MESH__APPEND_STATE__APPEND_DUP, 10, 0);
    assert_int_equal(count(f, MESH__MSG__BODY_LIVE), 0);
    assert_int_equal(count(f, MESH__MSG__BODY_INBOX_READ), 0);
    assert_false(only(f, STORE1, MESH__MSG__BODY_DELIVERED)->delivered->retry);
}

static void credit_pauses_a_session_that_does_not_ack(void **state)
{
    fixture *f = *state;
    attach(f, EDGE1, 1, "phone", 0);
    for (uint64_t i = 1; i <= ROUTER_CREDIT; i++) {
        appended(f, deliver(f, i, i)->corr, MESH__APPEND_STATE__APPEND_DONE, i, 0);
        assert_int_equal(count(f, MESH__MSG__BODY_LIVE), 1);
    }
    appended(f, deliver(f, 999, 999)->corr, MESH__APPEND_STATE__APPEND_DONE, ROUTER_CREDIT + 1, 0);
    assert_int_equal(count(f, MESH__MSG__BODY_LIVE), 0);
    assert_int_equal(count(f, MESH__MSG__BODY_INBOX_READ), 0);
    ack(f, 1, ROUTER_CREDIT + 5); /* beyond what was sent: nothing moves */
    assert_int_equal(f->n_sent, 0);
    ack(f, 1, 200);
    assert_int_equal(only(f, STORE1, MESH__MSG__BODY_INBOX_ACK)->inbox_ack->inbox_seq, 200);
    assert_int_equal(only(f, STORE1, MESH__MSG__BODY_INBOX_READ)->inbox_read->after, ROUTER_CREDIT);
}

static void acks_are_one_at_a_time_and_cumulative(void **state)
{
    fixture *f = *state;
    attach(f, EDGE1, 1, "phone", 0);
    for (uint64_t i = 1; i <= 9; i++) {
        appended(f, deliver(f, i, i)->corr, MESH__APPEND_STATE__APPEND_DONE, i, 0);
    }
    ack(f, 1, 3);
    uint64_t corr = only(f, STORE1, MESH__MSG__BODY_INBOX_ACK)->corr;
    ack(f, 1, 5);
    ack(f, 1, 9);
    assert_int_equal(f->n_sent, 0);
    Mesh__Done done = MESH__DONE__INIT;
    MESH_MSG(answer, DONE, done, &done);
    answer.corr = corr;
    say(f, STORE1, &answer);
    assert_int_equal(only(f, STORE1, MESH__MSG__BODY_INBOX_ACK)->inbox_ack->inbox_seq, 9);
}

static void ack_that_failed_is_said_again(void **state)
{
    fixture *f = *state;
    attach(f, EDGE1, 1, "phone", 0);
    appended(f, deliver(f, 1, 1)->corr, MESH__APPEND_STATE__APPEND_DONE, 1, 0);
    ack(f, 1, 1);
    Mesh__Fault fault = MESH__FAULT__INIT;
    fault.code = FAULT_UNAVAILABLE;
    MESH_MSG(answer, FAULT, fault, &fault);
    answer.corr = only(f, STORE1, MESH__MSG__BODY_INBOX_ACK)->corr;
    say(f, STORE1, &answer);
    assert_int_equal(count(f, MESH__MSG__BODY_INBOX_ACK), 0); /* not at once */
    size_t again = 0;
    for (mesh_ms end = f->now.mono + ROUTER_HEADS_MS; f->now.mono <= end; f->now.mono += 50) {
        router_core_turn(f->core, f->now, f->out);
        collect(f);
        again += count(f, MESH__MSG__BODY_INBOX_ACK);
    }
    assert_int_equal(again, 1);
}

static void slow_attach_is_asked_once_and_answered_to_the_last_asker(void **state)
{
    fixture *f = *state;
    uint64_t corr = attach_ask(f, EDGE1, 1, "phone", 10)->corr;
    Mesh__Attach again = MESH__ATTACH__INIT;
    again.user = "default/bob";
    again.device = "phone";
    again.session = 1;
    again.has_cursor = true;
    again.after = 10;
    again.fresh = true;
    MESH_MSG(msg, ATTACH, attach, &again);
    msg.key = again.user;
    msg.corr = 777;
    say(f, EDGE1, &msg);
    assert_int_equal(f->n_sent, 0);
    attached(f, corr, 1, 1, 10, 10, false);
    assert_int_equal(only(f, EDGE1, MESH__MSG__BODY_ATTACHED)->corr, 777);
}

static void twenty_sessions_of_a_user_are_the_limit(void **state)
{
    fixture *f = *state;
    char device[16];
    for (uint64_t i = 1; i <= ROUTER_USER_SESSIONS_MAX; i++) {
        f->now.mono++;
        snprintf(device, sizeof device, "d%d", (int)i);
        attach(f, EDGE1, i, device, 10);
    }
    f->now.mono++;
    attach_ask(f, EDGE2, 99, "one-more", 10);
    assert_int_equal(only(f, EDGE1, MESH__MSG__BODY_REPLACED)->replaced->session, 1);
}

static void another_era_means_resync(void **state)
{
    fixture *f = *state;
    attach(f, EDGE1, 1, "phone", 10);
    f->era = 2;
    appended(f, deliver(f, 900, 5)->corr, MESH__APPEND_STATE__APPEND_DONE, 3, 0);
    assert_int_equal(count(f, MESH__MSG__BODY_LIVE), 0);
    page(f, only(f, STORE1, MESH__MSG__BODY_INBOX_READ)->corr, 1, 0, 3);
    assert_int_equal(only(f, EDGE1, MESH__MSG__BODY_REPLACED)->replaced->code, FAULT_RESYNC);
}

static void hole_in_a_page_is_not_asked_for_again_and_again(void **state)
{
    fixture *f = *state;
    attach(f, EDGE1, 1, "phone", 10);
    appended(f, deliver(f, 900, 5)->corr, MESH__APPEND_STATE__APPEND_DONE, 15, 0);
    page(f, only(f, STORE1, MESH__MSG__BODY_INBOX_READ)->corr, 13, 15, 15);
    assert_int_equal(count(f, MESH__MSG__BODY_INBOX_READ), 0);
    assert_int_equal(only(f, EDGE1, MESH__MSG__BODY_REPLACED)->replaced->code, FAULT_RESYNC);
}

/* A group on one edge, larger than one Live may be. */
static void many_targets_go_in_several_frames(void **state)
{
    fixture *f = *state;
    enum { USERS = 1500 };
    static char names[USERS][24];
    static Mesh__Recipient recipients[USERS];
    static Mesh__Recipient *users[USERS];
    static Mesh__AppendResult results[USERS];
    static Mesh__AppendResult *list[USERS];
    for (int i = 0; i < USERS; i++) {
        snprintf(names[i], sizeof names[i], "default/u%d", i);
        Mesh__Attach body = MESH__ATTACH__INIT;
        body.user = names[i];
        body.device = "d";
        body.session = 1000 + (uint64_t)i;
        body.fresh = true;
        MESH_MSG(msg, ATTACH, attach, &body);
        msg.key = names[i];
        msg.corr = 1;
        say(f, EDGE1, &msg);
        attached(f, only(f, STORE1, MESH__MSG__BODY_ATTACH)->corr, body.session, 1, 0, 0, false);
        mesh_arena_reset(f->arena);
        mesh__recipient__init(&recipients[i]);
        recipients[i].user = names[i];
        users[i] = &recipients[i];
        mesh__append_result__init(&results[i]);
        results[i].state = MESH__APPEND_STATE__APPEND_DONE;
        results[i].inbox_seq = 1;
        list[i] = &results[i];
    }
    Mesh__Entry entry = MESH__ENTRY__INIT;
    entry.chat = "default/g:x";
    entry.seq = 1;
    Mesh__Deliver deliver_body = MESH__DELIVER__INIT;
    deliver_body.item = 1;
    deliver_body.entry = &entry;
    deliver_body.users = users;
    deliver_body.n_users = USERS;
    MESH_MSG(msg, DELIVER, deliver, &deliver_body);
    say(f, STORE1, &msg);
    Mesh__Appended body = MESH__APPENDED__INIT;
    body.results = list;
    body.n_results = USERS;
    body.era = 1;
    MESH_MSG(answer, APPENDED, appended, &body);
    answer.corr = only(f, STORE1, MESH__MSG__BODY_APPEND)->corr;
    say(f, STORE1, &answer);
    size_t targets = 0;
    for (size_t i = 0; i < f->n_sent; i++) {
        if (f->sent[i].msg->body_case == MESH__MSG__BODY_LIVE) {
            assert_true(f->sent[i].msg->live->n_targets <= ROUTER_LIVE_TARGETS);
            targets += f->sent[i].msg->live->n_targets;
        }
    }
    assert_int_equal(targets, USERS);
    assert_int_equal(count(f, MESH__MSG__BODY_LIVE), 2);
}

static void later_hello_of_a_device_wins(void **state)
{
    fixture *f = *state;
    attach(f, EDGE1, 1, "phone", 10);
    Mesh__Msg *ask = attach_ask(f, EDGE2, 2, "phone", 10);
    attached(f, ask->corr, 2, 2, 10, 10, false);
    assert_int_equal(only(f, EDGE1, MESH__MSG__BODY_REPLACED)->replaced->session, 1);
    appended(f, deliver(f, 900, 5)->corr, MESH__APPEND_STATE__APPEND_DONE, 11, 0);
    assert_int_equal(only(f, EDGE2, MESH__MSG__BODY_LIVE)->live->n_targets, 1);
}

/* A hello of bob's phone; its socket is of this age. */
static void hello(fixture *f, mesh_peer edge, uint64_t session, uint64_t attempt, uint64_t age_ms, uint64_t generation)
{
    Mesh__Attach body = MESH__ATTACH__INIT;
    body.user = "default/bob";
    body.device = "phone";
    body.session = session;
    body.has_cursor = true;
    body.after = 10;
    body.fresh = generation == 0;
    body.generation = generation;
    body.attempt = attempt;
    body.age_ms = age_ms;
    MESH_MSG(msg, ATTACH, attach, &body);
    msg.key = body.user;
    msg.corr = 500 + session;
    say(f, edge, &msg);
}

/* A socket that was let go of reached a stuck edge after the one that its client opened next. */
static void higher_attempt_wins_whatever_the_ages(void **state)
{
    fixture *f = *state;
    hello(f, EDGE1, 1, 7, 3000, 0);
    Mesh__Msg *ask = only(f, STORE1, MESH__MSG__BODY_ATTACH);
    assert_int_equal(ask->attach->attempt, 7);
    attached(f, ask->corr, 1, 1, 10, 10, false);
    hello(f, EDGE2, 2, 6, 0, 0); /* an older one on a newer socket */
    assert_int_equal(count(f, MESH__MSG__BODY_ATTACH), 0);
    expect_fault(f, EDGE2, 502, FAULT_REPLACED);
    assert_int_equal(count(f, MESH__MSG__BODY_REPLACED), 0);
    hello(f, EDGE2, 3, 8, 9000, 0); /* a newer one on an older socket */
    attached(f, only(f, STORE1, MESH__MSG__BODY_ATTACH)->corr, 3, 2, 10, 10, false);
    assert_int_equal(only(f, EDGE1, MESH__MSG__BODY_REPLACED)->replaced->session, 1);
    hello(f, EDGE1, 1, 7, 0, 1); /* the same session again keeps its number */
    expect_fault(f, EDGE1, 501, FAULT_REPLACED);
}

static void equal_or_absent_attempts_go_by_age(void **state)
{
    fixture *f = *state;
    hello(f, EDGE1, 1, 7, 3000, 0);
    attached(f, only(f, STORE1, MESH__MSG__BODY_ATTACH)->corr, 1, 1, 10, 10, false);
    hello(f, EDGE2, 2, 7, 4000, 0);
    expect_fault(f, EDGE2, 502, FAULT_REPLACED);
    hello(f, EDGE2, 3, 0, 4000, 0);
    expect_fault(f, EDGE2, 503, FAULT_REPLACED);
    hello(f, EDGE2, 4, 0, 2000, 0);
    attached(f, only(f, STORE1, MESH__MSG__BODY_ATTACH)->corr, 4, 2, 10, 10, false);
    assert_int_equal(only(f, EDGE1, MESH__MSG__BODY_REPLACED)->replaced->session, 1);
    hello(f, EDGE1, 5, 1, 3000, 0); /* the one that is here has none */
    expect_fault(f, EDGE1, 505, FAULT_REPLACED);
    hello(f, EDGE1, 6, 1, 1000, 0);
    attached(f, only(f, STORE1, MESH__MSG__BODY_ATTACH)->corr, 6, 3, 10, 10, false);
    assert_int_equal(only(f, EDGE2, MESH__MSG__BODY_REPLACED)->replaced->session, 4);
}

static void resync_brings_the_chats_before_anything_else(void **state)
{
    fixture *f = *state;
    Mesh__Msg *ask = attach_ask(f, EDGE1, 1, "phone", 0);
    attached(f, ask->corr, 1, 1, 0, 40, true);
    Mesh__Msg *rows_ask = only(f, STORE1, MESH__MSG__BODY_USER_CHATS);
    assert_int_equal(count(f, MESH__MSG__BODY_ATTACHED), 0);
    uint64_t rows_corr = rows_ask->corr;
    appended(f, deliver(f, 900, 5)->corr, MESH__APPEND_STATE__APPEND_DONE, 41, 0);
    assert_int_equal(count(f, MESH__MSG__BODY_LIVE), 0);
    Mesh__HeadAsk head = MESH__HEAD_ASK__INIT;
    Mesh__HeadAsk *heads[] = { &head };
    head.chat = "default/g:x";
    Mesh__UserChatPage rows = MESH__USER_CHAT_PAGE__INIT;
    rows.chats = heads;
    rows.n_chats = 1;
    rows.has_more = true;
    MESH_MSG(rows_msg, USER_CHAT_PAGE, user_chat_page, &rows);
    rows_msg.corr = rows_corr;
    say(f, STORE1, &rows_msg);
    Mesh__Msg *heads_ask = only(f, STORE1, MESH__MSG__BODY_HEADS);
    assert_string_equal(heads_ask->heads->user, "default/bob");
    Mesh__Summary summary = MESH__SUMMARY__INIT;
    Mesh__Summary *summaries[] = { &summary };
    summary.chat = "default/g:x";
    Mesh__ChatList list = MESH__CHAT_LIST__INIT;
    list.chats = summaries;
    list.n_chats = 1;
    MESH_MSG(list_msg, CHAT_LIST, chat_list, &list);
    list_msg.corr = heads_ask->corr;
    say(f, STORE1, &list_msg);
    Mesh__Attached *answer = only(f, EDGE1, MESH__MSG__BODY_ATTACHED)->attached;
    assert_true(answer->resync);
    assert_true(answer->has_more);
    assert_int_equal(answer->head, 40);
    assert_int_equal(answer->n_chats, 1);
    assert_int_equal(only(f, STORE1, MESH__MSG__BODY_INBOX_READ)->inbox_read->after, 40);
}

static void ring_change_drops_what_moved(void **state)
{
    fixture *f = *state;
    attach(f, EDGE1, 1, "phone", 10);
    set_ring(f, true);
    bool mine = false;
    Mesh__Msg *append = deliver(f, 900, 5);
    mine = append != NULL;
    if (!mine) { /* the slot went to router2: the outbox is to go by the newer ring */
        assert_true(only(f, STORE1, MESH__MSG__BODY_DELIVERED)->delivered->retry);
    } else {
        appended(f, append->corr, MESH__APPEND_STATE__APPEND_DONE, 11, 0);
        assert_int_equal(count(f, MESH__MSG__BODY_LIVE), 1);
    }
    size_t owned = 0;
    size_t refused = 0;
    for (int i = 0; i < 200; i++) {
        char user[32];
        snprintf(user, sizeof user, "default/u%d", i);
        Mesh__Attach body = MESH__ATTACH__INIT;
        body.user = user;
        body.device = "phone";
        body.session = 1000 + (uint64_t)i;
        MESH_MSG(msg, ATTACH, attach, &body);
        msg.key = user;
        msg.corr = 1;
        say(f, EDGE1, &msg);
        if (count(f, MESH__MSG__BODY_FAULT)) {
            expect_fault(f, EDGE1, 1, FAULT_NOT_OWNER);
            refused++;
        } else {
            owned++;
        }
    }
    assert_in_range(owned, 60, 140);
    assert_int_equal(owned + refused, 200);
}

static void lost_edge_takes_its_sessions_along(void **state)
{
    fixture *f = *state;
    attach(f, EDGE1, 1, "phone", 10);
    router_core_down(f->core, EDGE1, f->now, f->out);
    collect(f);
    appended(f, deliver(f, 900, 5)->corr, MESH__APPEND_STATE__APPEND_DONE, 11, 0);
    assert_int_equal(count(f, MESH__MSG__BODY_LIVE), 0);
    assert_int_equal(count(f, MESH__MSG__BODY_DELIVERED), 1);
}

static void heads_are_repeated(void **state)
{
    fixture *f = *state;
    attach(f, EDGE1, 1, "phone", 10);
    size_t seen = 0;
    for (mesh_ms end = f->now.mono + ROUTER_HEADS_MS; f->now.mono <= end; f->now.mono += 50) {
        router_core_turn(f->core, f->now, f->out);
        collect(f);
        for (size_t i = 0; i < f->n_sent; i++) {
            if (f->sent[i].msg->body_case == MESH__MSG__BODY_SESSION_HEADS) {
                assert_int_equal(f->sent[i].to, EDGE1);
                assert_int_equal(f->sent[i].msg->session_heads->heads[0]->inbox_seq, 10);
                seen++;
            }
        }
    }
    assert_true(seen >= 1);
}

static void malformed_messages_change_nothing(void **state)
{
    fixture *f = *state;
    Mesh__Send send = MESH__SEND__INIT;
    MESH_MSG(bad_key, SEND, send, &send);
    bad_key.key = "no tenant";
    bad_key.corr = 5;
    say(f, EDGE1, &bad_key);
    expect_fault(f, EDGE1, 5, FAULT_MALFORMED);
    Mesh__Deliver body = MESH__DELIVER__INIT;
    MESH_MSG(empty, DELIVER, deliver, &body);
    say(f, STORE1, &empty);
    assert_int_equal(f->n_sent, 0);
    Mesh__Genesis genesis = MESH__GENESIS__INIT;
    MESH_MSG(wrong, GENESIS, genesis, &genesis);
    wrong.key = "default/x";
    wrong.corr = 6;
    say(f, EDGE1, &wrong);
    expect_fault(f, EDGE1, 6, FAULT_MALFORMED);
}

static void leaving_gives_up_the_lease_and_ends(void **state)
{
    fixture *f = *state;
    router_core_leave(f->core, f->now, f->out);
    collect(f);
    assert_true(only(f, STORE1, MESH__MSG__BODY_LEASE)->lease->leaving);
    assert_false(router_core_quiet(f->core, f->now));
    Mesh__Ring ring = MESH__RING__INIT;
    ring.epoch = ++f->epoch;
    MESH_MSG(msg, RING, ring, &ring);
    say(f, STORE1, &msg);
    assert_true(router_core_quiet(f->core, f->now));
}

#define STORY(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
int main(void)
{
    const struct CMUnitTest tests[] = {
        STORY(request_is_forwarded_and_answered),
        STORY(deadline_and_store_down_answer_unavailable),
        STORY(deadlines_are_the_askers),
        STORY(an_attach_outlives_its_asker),
        STORY(inflight_is_bounded),
        STORY(held_deliveries_are_bounded),
        STORY(sessions_are_bounded),
        STORY(live_entry_goes_out_in_turn),
        STORY(what_the_store_appended_itself_goes_out_at_once),
        STORY(only_who_lacks_it_is_appended_to),
        STORY(entry_beyond_next_is_pulled_in_order),
        STORY(gap_and_refusal_go_back_to_the_outbox),
        STORY(doubled_append_only_raises_the_head),
        STORY(credit_pauses_a_session_that_does_not_ack),
        STORY(acks_are_one_at_a_time_and_cumulative),
        STORY(ack_that_failed_is_said_again),
        STORY(slow_attach_is_asked_once_and_answered_to_the_last_asker),
        STORY(twenty_sessions_of_a_user_are_the_limit),
        STORY(another_era_means_resync),
        STORY(hole_in_a_page_is_not_asked_for_again_and_again),
        STORY(many_targets_go_in_several_frames),
        STORY(later_hello_of_a_device_wins),
        STORY(higher_attempt_wins_whatever_the_ages),
        STORY(equal_or_absent_attempts_go_by_age),
        STORY(resync_brings_the_chats_before_anything_else),
        STORY(ring_change_drops_what_moved),
        STORY(lost_edge_takes_its_sessions_along),
        STORY(heads_are_repeated),
        STORY(malformed_messages_change_nothing),
        STORY(leaving_gives_up_the_lease_and_ends),
    };
    return cmocka_run_group_tests_name("router core", tests, NULL, NULL);
}
