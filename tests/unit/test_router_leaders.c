/* Whom the router asks: the table by itself, and the core over a shard of three stores. The test is the edge and the
 * stores. */
#include "tests/unit/router_rig.h"

enum { EDGE, ROUTER, S1, S2, S3, LONE, PEERS };
static const char *const names[PEERS] = { "edge1", "router1", "s1", "s2", "s3", "lone" };
#define BOOT 77
#define TTL_MS 5000
#define FIRST_PAUSE ROUTER_PAUSE_MIN_MS

/* ---- the table ---- */

static mesh_time at(mesh_ms mono)
{
    return (mesh_time){ mono, 0 };
}

/* s1, s2, s3 are shard 0; lone is shard 7. */
static mesh_conf *make_conf(void)
{
    mesh_conf *conf = mesh_conf_new();
    for (mesh_peer i = 0; i < PEERS; i++) {
        mesh_role role = i == EDGE ? MESH_EDGE : i == ROUTER ? MESH_ROUTER : MESH_STORE;
        add_node(conf, names[i], role, i == LONE ? 7 : 0);
    }
    return conf;
}

static int table_setup(void **state)
{
    fixture *f = mesh_alloc(sizeof *f);
    f->conf = make_conf();
    f->leaders = router_leaders_new(f->conf);
    *state = f;
    return 0;
}

static int table_teardown(void **state)
{
    fixture *f = *state;
    router_leaders_destroy(&f->leaders);
    mesh_conf_destroy(&f->conf);
    free(f);
    return 0;
}

static void all_up(fixture *f)
{
    router_leaders_up(f->leaders, S1);
    router_leaders_up(f->leaders, S2);
    router_leaders_up(f->leaders, S3);
}

static void shards_are_the_configs(void **state)
{
    fixture *f = *state;
    assert_int_equal(router_leaders_count(f->leaders), 2);
    assert_int_equal(router_leaders_shard(f->leaders, 0), 0);
    assert_int_equal(router_leaders_shard(f->leaders, 1), 7);
    assert_int_equal(router_leaders_stores(f->leaders, 0), 3);
    assert_int_equal(router_leaders_stores(f->leaders, 7), 1);
    assert_int_equal(router_leaders_stores(f->leaders, 1), 0);
    assert_int_equal(router_leaders_target(f->leaders, 1), MESH_NO_PEER);
    assert_int_equal(router_leaders_target(f->leaders, 0), MESH_NO_PEER);
    router_leaders_up(f->leaders, S2);
    assert_int_equal(router_leaders_target(f->leaders, 0), S2);
    assert_int_equal(router_leaders_ready_at(f->leaders, 0), 0);
    router_leaders_up(f->leaders, S1); /* one that comes later changes nothing */
    assert_int_equal(router_leaders_target(f->leaders, 0), S2);
    assert_int_equal(router_leaders_target(f->leaders, 7), MESH_NO_PEER);
}

static void a_hint_is_followed_if_it_can_be(void **state)
{
    fixture *f = *state;
    router_leaders_up(f->leaders, S1);
    router_leaders_up(f->leaders, S2);
    router_leaders_up(f->leaders, LONE);
    router_leaders_refused(f->leaders, S1, S3, at(0)); /* down: the next one up */
    assert_int_equal(router_leaders_target(f->leaders, 0), S2);
    router_leaders_up(f->leaders, S3);
    router_leaders_refused(f->leaders, S2, S1, at(0));
    assert_int_equal(router_leaders_target(f->leaders, 0), S1);
    router_leaders_refused(f->leaders, S1, S1, at(0)); /* itself */
    assert_int_equal(router_leaders_target(f->leaders, 0), S2);
    router_leaders_refused(f->leaders, S2, LONE, at(0)); /* of another shard */
    assert_int_equal(router_leaders_target(f->leaders, 0), S3);
    router_leaders_refused(f->leaders, S3, MESH_NO_PEER, at(0)); /* round robin */
    assert_int_equal(router_leaders_target(f->leaders, 0), S1);
    router_leaders_refused(f->leaders, S3, S2, at(0)); /* is not asked any more */
    assert_int_equal(router_leaders_target(f->leaders, 0), S1);
}

static void pauses_double_and_a_success_ends_them(void **state)
{
    static const mesh_ms pauses[] = { 20, 40, 80, 160, 320, 500, 500 };
    fixture *f = *state;
    all_up(f);
    for (size_t i = 0; i < sizeof pauses / sizeof *pauses; i++) {
        router_leaders_refused(f->leaders, router_leaders_target(f->leaders, 0), MESH_NO_PEER, at(1000));
        assert_int_equal(router_leaders_ready_at(f->leaders, 0), 1000 + pauses[i]);
    }
    mesh_peer target = router_leaders_target(f->leaders, 0);
    router_leaders_answered(f->leaders, target == S1 ? S2 : S1); /* late, of one that was asked before */
    assert_int_equal(router_leaders_ready_at(f->leaders, 0), 1500);
    router_leaders_answered(f->leaders, target);
    assert_int_equal(router_leaders_ready_at(f->leaders, 0), 0);
    assert_true(router_leaders_known(f->leaders, 0));
    router_leaders_refused(f->leaders, target, MESH_NO_PEER, at(2000));
    assert_int_equal(router_leaders_ready_at(f->leaders, 0), 2000 + FIRST_PAUSE);
}

static void down_and_silence_move_on(void **state)
{
    fixture *f = *state;
    all_up(f);
    router_leaders_answered(f->leaders, S1);
    router_leaders_down(f->leaders, S3, at(0)); /* not the one that leads */
    assert_true(router_leaders_known(f->leaders, 0));
    assert_int_equal(router_leaders_target(f->leaders, 0), S1);
    router_leaders_down(f->leaders, S1, at(0));
    assert_false(router_leaders_known(f->leaders, 0));
    assert_int_equal(router_leaders_target(f->leaders, 0), S2);
    router_leaders_up(f->leaders, S1);
    router_leaders_silent(f->leaders, S2, at(0));
    assert_int_equal(router_leaders_target(f->leaders, 0), S1); /* s3 is down */
    router_leaders_down(f->leaders, S1, at(0));
    router_leaders_down(f->leaders, S2, at(0));
    assert_int_equal(router_leaders_target(f->leaders, 0), MESH_NO_PEER);
    router_leaders_up(f->leaders, S3);
    assert_int_equal(router_leaders_target(f->leaders, 0), S3);
    assert_int_equal(router_leaders_ready_at(f->leaders, 0), 0);
}

static void a_lone_store_stays_the_target(void **state)
{
    fixture *f = *state;
    router_leaders_up(f->leaders, LONE);
    router_leaders_answered(f->leaders, LONE);
    router_leaders_silent(f->leaders, LONE, at(0));
    assert_true(router_leaders_known(f->leaders, 7));
    router_leaders_refused(f->leaders, LONE, MESH_NO_PEER, at(0));
    assert_int_equal(router_leaders_target(f->leaders, 7), LONE);
    assert_int_equal(router_leaders_ready_at(f->leaders, 7), FIRST_PAUSE);
    router_leaders_down(f->leaders, LONE, at(0));
    assert_int_equal(router_leaders_target(f->leaders, 7), MESH_NO_PEER);
}

static void a_leader_of_an_old_term_is_not_believed(void **state)
{
    fixture *f = *state;
    all_up(f);
    assert_int_equal(router_leaders_leading(f->leaders, S2, 4), MESH_OK);
    assert_int_equal(router_leaders_target(f->leaders, 0), S2);
    assert_int_equal(router_leaders_leading(f->leaders, S1, 3), MESH_STALE);
    assert_int_equal(router_leaders_target(f->leaders, 0), S2);
    assert_int_equal(router_leaders_leading(f->leaders, S2, 4), MESH_OK); /* said again */
    assert_int_equal(router_leaders_changes(f->leaders), 0);
    router_leaders_refused(f->leaders, S2, S1, at(0));
    assert_int_equal(router_leaders_leading(f->leaders, S3, 5), MESH_OK);
    assert_int_equal(router_leaders_target(f->leaders, 0), S3);
    assert_int_equal(router_leaders_ready_at(f->leaders, 0), 0);
    assert_int_equal(router_leaders_changes(f->leaders), 1);
    router_leaders_down(f->leaders, S1, at(0));
    assert_int_equal(router_leaders_leading(f->leaders, S1, 9), MESH_STALE); /* is not there */
}

/* ---- the core ---- */

/* The same, and to nobody else. */
static Mesh__Msg *lone(fixture *f, mesh_peer to, Mesh__Msg__BodyCase kind)
{
    assert_int_equal(count(f, kind), 1);
    return only(f, to, kind);
}

static void nothing(const fixture *f, Mesh__Msg__BodyCase kind)
{
    assert_int_equal(count(f, kind), 0);
}

static void set_ring(fixture *f, mesh_peer from, uint64_t epoch, uint64_t corr)
{
    Mesh__RingNode node = MESH__RING_NODE__INIT;
    Mesh__RingNode *list[] = { &node };
    node.name = "router1";
    node.boot = BOOT;
    Mesh__Ring ring = MESH__RING__INIT;
    ring.epoch = epoch;
    ring.routers = list;
    ring.n_routers = 1;
    MESH_MSG(msg, RING, ring, &ring);
    msg.corr = corr;
    say(f, from, &msg);
}

static int setup(void **state)
{
    fixture *f = rig_new(make_conf(), ROUTER, BOOT);
    up(f, EDGE);
    up(f, S1);
    up(f, S2);
    up(f, S3);
    set_ring(f, S1, 1, 1);
    *state = f;
    return 0;
}

static void send_text(fixture *f, uint64_t corr, uint32_t ttl_ms, size_t size)
{
    Mesh__Send send = MESH__SEND__INIT;
    send.user = "default/ann";
    send.chat = "default/g:x";
    send.client_msg_id = "m1";
    send.body = (ProtobufCBinaryData){ size, mesh_alloc(size + 1) };
    MESH_MSG(msg, SEND, send, &send);
    msg.key = send.chat;
    msg.corr = corr;
    msg.ttl_ms = ttl_ms;
    msg.trace = 9;
    say(f, EDGE, &msg);
    free(send.body.data);
}

static uint64_t asked(fixture *f, mesh_peer store)
{
    const Mesh__Msg *msg = lone(f, store, MESH__MSG__BODY_SEND);
    assert_string_equal(msg->key, "default/g:x");
    assert_string_equal(msg->send->client_msg_id, "m1");
    assert_int_equal(msg->trace, 9);
    assert_int_equal(msg->epoch, 1);
    return msg->corr;
}

/* Another try of it, which has a corr of its own. */
static uint64_t asked_anew(fixture *f, mesh_peer store, uint64_t before)
{
    uint64_t corr = asked(f, store);
    assert_int_not_equal(corr, before);
    return corr;
}

static void sent(fixture *f, mesh_peer store, uint64_t corr, uint64_t seq)
{
    Mesh__Sent body = MESH__SENT__INIT;
    body.seq = seq;
    MESH_MSG(msg, SENT, sent, &body);
    msg.corr = corr;
    say(f, store, &msg);
}

static void refuse(fixture *f, mesh_peer store, uint64_t corr, const char *hint)
{
    Mesh__Fault fault = MESH__FAULT__INIT;
    fault.code = FAULT_NOT_LEADER;
    fault.leader = (char *)hint;
    MESH_MSG(msg, FAULT, fault, &fault);
    msg.corr = corr;
    say(f, store, &msg);
}

static void say_leading(fixture *f, mesh_peer store, uint32_t shard, uint64_t term)
{
    Mesh__Leading leading = MESH__LEADING__INIT;
    leading.shard = shard;
    leading.term = term;
    MESH_MSG(msg, LEADING, leading, &leading);
    say(f, store, &msg);
}

static bool metric(fixture *f, const char *line)
{
    mesh_buf page = { 0 };
    mesh_stats_print(router_core_stats(f->core), "router1", &page);
    mesh_buf_put(&page, "", 1);
    bool there = strstr((const char *)page.data, line) != NULL;
    mesh_buf_fini(&page);
    return there;
}

static void expect_fault(fixture *f, uint64_t corr, uint32_t code)
{
    const Mesh__Msg *msg = lone(f, EDGE, MESH__MSG__BODY_FAULT);
    assert_int_equal(msg->corr, corr);
    assert_int_equal(msg->fault->code, code);
}

static void a_refused_request_follows_the_hint(void **state)
{
    fixture *f = *state;
    send_text(f, 42, 3000, 10);
    uint64_t corr = asked(f, S1);
    assert_int_equal(lone(f, S1, MESH__MSG__BODY_SEND)->ttl_ms, 3000);
    refuse(f, S1, corr, "s3");
    assert_int_equal(f->n_sent, 0);
    send_text(f, 43, 0, 10); /* the shard pauses for new ones too */
    nothing(f, MESH__MSG__BODY_SEND);
    pass(f, FIRST_PAUSE - 1);
    nothing(f, MESH__MSG__BODY_SEND);
    pass(f, 1);
    assert_int_equal(count(f, MESH__MSG__BODY_SEND), 2);
    assert_int_equal(f->sent[0].to, S3);
    assert_int_not_equal(f->sent[0].msg->corr, corr); /* in its order, with the time that is left */
    corr = f->sent[0].msg->corr;
    assert_int_equal(f->sent[0].msg->ttl_ms, 3000 - FIRST_PAUSE);
    assert_int_equal(f->sent[0].msg->send->body.len, 10);
    sent(f, S3, corr, 7);
    assert_int_equal(lone(f, EDGE, MESH__MSG__BODY_SENT)->corr, 42);
    pass(f, 0);
    assert_true(metric(f, "parley_router_resent_total{node=\"router1\"} 1\n"));
    assert_true(metric(f, "parley_router_leader_changes_total{node=\"router1\"} 1\n"));
    assert_true(metric(f, "parley_router_leader_known{node=\"router1\",shard=\"0\"} 1\n"));
    assert_true(metric(f, "parley_router_leader_known{node=\"router1\",shard=\"7\"} 0\n"));
}

/* During an election nobody knows: each is asked in turn, slower and slower, until one says that it leads. */
static void without_a_hint_the_stores_are_asked_in_turn(void **state)
{
    static const mesh_peer turns[] = { S1, S2, S3, S1 };
    fixture *f = *state;
    mesh_ms pause = ROUTER_PAUSE_MIN_MS;
    send_text(f, 42, 0, 10);
    uint64_t corr = 0;
    for (size_t i = 0; i < sizeof turns / sizeof *turns; i++, pause *= 2) {
        corr = asked_anew(f, turns[i], corr);
        refuse(f, turns[i], corr, "");
        nothing(f, MESH__MSG__BODY_SEND);
        if (i + 1 < sizeof turns / sizeof *turns) {
            pass(f, pause);
        }
    }
    pass(f, 1);
    assert_true(metric(f, "parley_router_leader_known{node=\"router1\",shard=\"0\"} 0\n"));
    say_leading(f, S3, 0, 2);
    corr = asked_anew(f, S3, corr); /* at once */
}

static void the_leader_goes_down_in_the_middle(void **state)
{
    fixture *f = *state;
    send_text(f, 42, 0, 10);
    uint64_t corr = asked(f, S1);
    down(f, S1);
    nothing(f, MESH__MSG__BODY_FAULT);
    pass(f, FIRST_PAUSE);
    corr = asked_anew(f, S2, corr);
    down(f, S2);
    down(f, S3);
    pass(f, 1000); /* nobody is there: it waits */
    nothing(f, MESH__MSG__BODY_SEND);
    send_text(f, 43, 0, 10); /* and so does one that comes now */
    assert_int_equal(f->n_sent, 0);
    up(f, S3);
    assert_int_equal(count(f, MESH__MSG__BODY_SEND), 2);
    assert_int_equal(f->sent[0].to, S3);
    router_core_up(f->core, S3, 6, f->now, f->out); /* reborn, and nobody noticed that it went */
    pass(f, ROUTER_PAUSE_MAX_MS);
    assert_int_equal(count(f, MESH__MSG__BODY_SEND), 2);
    corr = f->sent[0].msg->corr;
    sent(f, S3, corr, 7);
    assert_int_equal(lone(f, EDGE, MESH__MSG__BODY_SENT)->corr, 42);
}

static void a_silent_store_is_not_waited_for(void **state)
{
    fixture *f = *state;
    send_text(f, 42, 0, 10);
    uint64_t corr = asked(f, S1);
    pass(f, ROUTER_TRY_MS - 1);
    nothing(f, MESH__MSG__BODY_SEND);
    pass(f, 1);
    pass(f, FIRST_PAUSE);
    corr = asked_anew(f, S2, corr);
    refuse(f, S2, corr, "s1"); /* it still believes in that one */
    pass(f, 2 * FIRST_PAUSE);
    corr = asked_anew(f, S1, corr);
    say_leading(f, S3, 0, 2); /* what the others have is not waited for */
    corr = asked_anew(f, S3, corr);
    refuse(f, S1, corr, "s3"); /* late */
    assert_int_equal(f->n_sent, 0);
    pass(f, 100);
    nothing(f, MESH__MSG__BODY_SEND);
    sent(f, S3, corr, 7);
    assert_int_equal(lone(f, EDGE, MESH__MSG__BODY_SENT)->corr, 42);
}

/* A store that answers others is slow, not gone: the same again would make it slower. */
static void a_slow_store_is_not_asked_twice(void **state)
{
    fixture *f = *state;
    send_text(f, 42, 0, 10);
    uint64_t corr = asked(f, S1);
    for (unsigned i = 0; i < 4; i++) {
        pass(f, ROUTER_TRY_MS / 2);
        send_text(f, 50 + i, 0, 10);
        sent(f, S1, asked(f, S1), i + 1);
        set_ring(f, S1, 1, 1); /* the lease */
        pass(f, ROUTER_TRY_MS / 2);
        nothing(f, MESH__MSG__BODY_SEND);
    }
    sent(f, S1, corr, 9);
    assert_int_equal(lone(f, EDGE, MESH__MSG__BODY_SENT)->corr, 42);
}

/* An earlier try may have been denied what a later one may do: what it is answered is nobody's. */
static void only_the_last_try_counts(void **state)
{
    fixture *f = *state;
    send_text(f, 42, 0, 10);
    uint64_t first = asked(f, S1);
    pass(f, ROUTER_TRY_MS);
    pass(f, FIRST_PAUSE);
    uint64_t last = asked_anew(f, S2, first);
    Mesh__Fault fault = MESH__FAULT__INIT;
    fault.code = FAULT_DENIED;
    MESH_MSG(msg, FAULT, fault, &fault);
    msg.corr = first;
    say(f, S1, &msg);
    assert_int_equal(f->n_sent, 0);
    assert_true(metric(f, "parley_router_late_total{node=\"router1\"} 1\n"));
    sent(f, S2, last, 7);
    assert_int_equal(lone(f, EDGE, MESH__MSG__BODY_SENT)->corr, 42);
}

static void a_store_that_is_not_ready_is_asked_again(void **state)
{
    fixture *f = *state;
    send_text(f, 42, 0, 10);
    Mesh__Fault fault = MESH__FAULT__INIT;
    fault.code = FAULT_UNAVAILABLE;
    fault.after_ms = 250;
    MESH_MSG(msg, FAULT, fault, &fault);
    msg.corr = asked(f, S1);
    uint64_t corr = msg.corr;
    say(f, S1, &msg);
    assert_int_equal(f->n_sent, 0);
    send_text(f, 43, 0, 10); /* others need not wait for it */
    sent(f, S1, asked(f, S1), 1);
    pass(f, 249);
    nothing(f, MESH__MSG__BODY_SEND);
    pass(f, 1);
    corr = asked_anew(f, S1, corr);
}

static void the_deadline_ends_it_all(void **state)
{
    fixture *f = *state;
    send_text(f, 42, 0, 10);
    mesh_ms end = f->now.mono + TTL_MS;
    while (f->now.mono < end - 1) {
        for (size_t i = 0; i < f->n_sent; i++) {
            const Mesh__Msg *msg = f->sent[i].msg;
            assert_false(msg->body_case == MESH__MSG__BODY_FAULT);
            if (msg->body_case == MESH__MSG__BODY_SEND) {
                assert_in_range(msg->ttl_ms, 1, end - f->now.mono);
                Mesh__Fault fault = MESH__FAULT__INIT;
                fault.code = FAULT_NOT_LEADER;
                MESH_MSG(answer, FAULT, fault, &fault);
                answer.corr = msg->corr;
                router_core_message(f->core, f->sent[i].to, &answer, (mesh_slice){ NULL, 0 }, f->now, f->out);
            }
        }
        pass(f, 1);
        mesh_arena_reset(f->arena);
        collect(f);
    }
    assert_int_equal(count(f, MESH__MSG__BODY_FAULT), 0);
    pass(f, 1);
    expect_fault(f, 42, FAULT_UNAVAILABLE);
    pass(f, 1000);
    nothing(f, MESH__MSG__BODY_SEND);
}

static void what_is_kept_is_bounded(void **state)
{
    fixture *f = *state;
    const size_t size = 500 * 1024;
    const size_t max = ROUTER_HELD_BYTES_MAX / 16 * 9; /* the common half, and one of eight shards' parts */
    uint64_t n = 0;
    uint64_t first = 0;
    for (;; n++) {
        mesh_arena_reset(f->arena);
        send_text(f, n + 1, 0, size);
        if (count(f, MESH__MSG__BODY_FAULT) > 0) {
            break;
        }
        first = first ? first : asked(f, S1);
        assert_true(n < max / size);
    }
    assert_int_equal(n, max / size);
    expect_fault(f, n + 1, FAULT_BUSY);
    sent(f, S1, first, 1);
    send_text(f, n + 2, 0, size); /* one is done: there is room for one */
    asked(f, S1);
}

static void the_lease_follows_the_leader(void **state)
{
    fixture *f = *state;
    pass(f, ROUTER_LEASE_RENEW_MS);
    uint64_t corr = lone(f, S1, MESH__MSG__BODY_LEASE)->corr;
    refuse(f, S1, corr, "s2");
    pass(f, FIRST_PAUSE);
    lone(f, S2, MESH__MSG__BODY_LEASE);
    set_ring(f, S2, 1, corr); /* nothing new: the usual answer */
    nothing(f, MESH__MSG__BODY_RING);
    say_leading(f, S3, 0, 5);
    pass(f, 0);
    lone(f, S3, MESH__MSG__BODY_LEASE);
    set_ring(f, S3, 2, corr);
    lone(f, EDGE, MESH__MSG__BODY_RING);
    set_ring(f, S1, 1, 0); /* older */
    nothing(f, MESH__MSG__BODY_RING);
    down(f, S3);
    pass(f, FIRST_PAUSE);
    lone(f, S1, MESH__MSG__BODY_LEASE);
}

/* Nothing but the lease is asked, and nothing is answered. */
static void the_lease_leaves_a_silent_store(void **state)
{
    fixture *f = *state;
    mesh_ms end = f->now.mono + ROUTER_TRY_MS + ROUTER_LEASE_RENEW_MS + FIRST_PAUSE;
    size_t to_s2 = 0;
    while (f->now.mono < end) {
        pass(f, 10);
        for (size_t i = 0; i < f->n_sent; i++) {
            to_s2 += f->sent[i].to == S2 && f->sent[i].msg->body_case == MESH__MSG__BODY_LEASE;
        }
    }
    assert_int_equal(to_s2, 1);
}

/* What was just asked of S1 is refused, and comes to S2 the same. Then S1 leads again, for the next kind. */
static uint64_t bounces(fixture *f, Mesh__Msg__BodyCase kind, uint64_t term)
{
    mesh_buf first = { 0 };
    mesh_buf second = { 0 };
    Mesh__Msg *msg = lone(f, S1, kind);
    uint64_t corr = msg->corr;
    assert_int_not_equal(corr, 0);
    msg->ttl_ms = 0;
    mesh_wire_pack(msg, &first);
    refuse(f, S1, corr, "s2");
    pass(f, FIRST_PAUSE);
    msg = lone(f, S2, kind);
    assert_in_range(msg->ttl_ms, 1, TTL_MS - FIRST_PAUSE);
    assert_int_not_equal(msg->corr, corr);
    msg->corr = corr;
    msg->ttl_ms = 0;
    mesh_wire_pack(msg, &second);
    assert_int_equal(first.size, second.size);
    assert_memory_equal(first.data, second.data, first.size);
    mesh_buf_fini(&first);
    mesh_buf_fini(&second);
    say_leading(f, S1, 0, term);
    return lone(f, S1, kind)->corr; /* S2 has not answered yet */
}

static void say_attached(fixture *f, mesh_peer from, uint64_t corr, uint64_t generation, bool resync)
{
    Mesh__Attached attached = MESH__ATTACHED__INIT;
    attached.session = 1;
    attached.generation = generation;
    attached.era = 1;
    attached.resync = resync;
    MESH_MSG(answer, ATTACHED, attached, &attached);
    answer.corr = corr;
    say(f, from, &answer);
}

static void ask_attach(fixture *f)
{
    Mesh__Attach body = MESH__ATTACH__INIT;
    body.user = "default/bob";
    body.device = "phone";
    body.session = 1;
    body.fresh = true;
    MESH_MSG(ask, ATTACH, attach, &body);
    ask.key = body.user;
    ask.corr = 8;
    say(f, EDGE, &ask);
}

static void attach_and_resync(fixture *f)
{
    ask_attach(f);
    say_attached(f, S2, bounces(f, MESH__MSG__BODY_ATTACH, 1), 1, true);
    Mesh__HeadAsk chat = MESH__HEAD_ASK__INIT;
    Mesh__HeadAsk *chats[] = { &chat };
    chat.chat = "default/g:x";
    Mesh__UserChatPage page = MESH__USER_CHAT_PAGE__INIT;
    page.chats = chats;
    page.n_chats = 1;
    MESH_MSG(rows, USER_CHAT_PAGE, user_chat_page, &page);
    rows.corr = bounces(f, MESH__MSG__BODY_USER_CHATS, 2);
    say(f, S1, &rows);
    Mesh__ChatList list = MESH__CHAT_LIST__INIT;
    MESH_MSG(heads, CHAT_LIST, chat_list, &list);
    heads.corr = bounces(f, MESH__MSG__BODY_HEADS, 3);
    say(f, S2, &heads);
    assert_int_equal(lone(f, EDGE, MESH__MSG__BODY_ATTACHED)->corr, 8);
}

static void append_pull_and_ack(fixture *f)
{
    Mesh__Entry entry = MESH__ENTRY__INIT;
    entry.chat = "default/g:x";
    entry.seq = 1;
    Mesh__Recipient recipient = MESH__RECIPIENT__INIT;
    Mesh__Recipient *users[] = { &recipient };
    recipient.user = "default/bob";
    Mesh__Deliver body = MESH__DELIVER__INIT;
    body.item = 900;
    body.entry = &entry;
    body.users = users;
    body.n_users = 1;
    MESH_MSG(deliver, DELIVER, deliver, &body);
    say(f, S3, &deliver);
    Mesh__AppendResult result = MESH__APPEND_RESULT__INIT;
    Mesh__AppendResult *results[] = { &result };
    result.state = MESH__APPEND_STATE__APPEND_DUP; /* the first try was done after all */
    result.inbox_seq = 1;
    Mesh__Appended appended = MESH__APPENDED__INIT;
    appended.results = results;
    appended.n_results = 1;
    appended.era = 1;
    MESH_MSG(done, APPENDED, appended, &appended);
    done.corr = bounces(f, MESH__MSG__BODY_APPEND, 4);
    say(f, S1, &done);
    assert_int_equal(lone(f, S3, MESH__MSG__BODY_DELIVERED)->delivered->item, 900); /* whoever sent it */
    Mesh__InboxEntry row = MESH__INBOX_ENTRY__INIT;
    Mesh__InboxEntry *rows[] = { &row };
    row.inbox_seq = 1;
    row.entry = &entry;
    Mesh__InboxPage page = MESH__INBOX_PAGE__INIT;
    page.entries = rows;
    page.n_entries = page.head = page.era = 1;
    MESH_MSG(pulled, INBOX_PAGE, inbox_page, &page);
    pulled.corr = bounces(f, MESH__MSG__BODY_INBOX_READ, 5);
    say(f, S1, &pulled);
    lone(f, EDGE, MESH__MSG__BODY_LIVE);
    Mesh__InboxAck ack = MESH__INBOX_ACK__INIT;
    ack.user = "default/bob";
    ack.device = "phone";
    ack.session = ack.inbox_seq = 1;
    MESH_MSG(acked, INBOX_ACK, inbox_ack, &ack);
    acked.key = ack.user;
    say(f, EDGE, &acked);
    bounces(f, MESH__MSG__BODY_INBOX_ACK, 6);
}

static void every_kind_is_sent_again(void **state)
{
    attach_and_resync(*state);
    append_pull_and_ack(*state);
}

/* Each try may have raised the device's generation: what an earlier one says may be too low by now. */
static void an_attach_takes_the_answer_of_its_last_try(void **state)
{
    fixture *f = *state;
    ask_attach(f);
    uint64_t first = lone(f, S1, MESH__MSG__BODY_ATTACH)->corr;
    down(f, S1);
    pass(f, FIRST_PAUSE);
    uint64_t last = lone(f, S2, MESH__MSG__BODY_ATTACH)->corr;
    up(f, S1);
    say_attached(f, S1, first, 1, false);
    assert_int_equal(f->n_sent, 0);
    say_attached(f, S2, last, 2, false);
    assert_int_equal(lone(f, EDGE, MESH__MSG__BODY_ATTACHED)->attached->generation, 2);
}

/* In a later term it has nothing of what it was asked before; said again in the same term it still has it. */
static void a_later_term_of_the_same_store_is_asked_again(void **state)
{
    fixture *f = *state;
    say_leading(f, S1, 0, 5);
    send_text(f, 42, 0, 10);
    uint64_t corr = asked(f, S1);
    ask_attach(f);
    uint64_t first = lone(f, S1, MESH__MSG__BODY_ATTACH)->corr;
    say_leading(f, S1, 0, 5);
    nothing(f, MESH__MSG__BODY_SEND);
    say_leading(f, S1, 0, 6);
    corr = asked_anew(f, S1, corr);
    assert_int_not_equal(lone(f, S1, MESH__MSG__BODY_ATTACH)->corr, first);
    sent(f, S1, corr, 7);
    assert_int_equal(lone(f, EDGE, MESH__MSG__BODY_SENT)->corr, 42);
    say_leading(f, S1, 0, 7);
    nothing(f, MESH__MSG__BODY_SEND);
}

static void an_old_term_changes_nothing(void **state)
{
    fixture *f = *state;
    say_leading(f, S2, 0, 5);
    say_leading(f, S1, 0, 4);
    say_leading(f, S3, 7, 9); /* not its shard */
    assert_true(metric(f, "parley_router_malformed_total{node=\"router1\"} 1\n"));
    send_text(f, 42, 0, 10);
    asked(f, S2);
}

/* A router that leaves is not done while something waits to be sent again. */
static void quiet_waits_for_what_is_sent_again(void **state)
{
    fixture *f = *state;
    send_text(f, 42, 0, 10);
    uint64_t corr = asked(f, S1);
    router_core_leave(f->core, f->now, f->out);
    Mesh__Ring ring = MESH__RING__INIT;
    ring.epoch = 2;
    MESH_MSG(msg, RING, ring, &ring);
    say(f, S1, &msg);
    assert_true(lone(f, S1, MESH__MSG__BODY_LEASE)->lease->leaving);
    down(f, S1);
    assert_false(router_core_quiet(f->core, f->now));
    pass(f, FIRST_PAUSE);
    assert_true(lone(f, S2, MESH__MSG__BODY_LEASE)->lease->leaving); /* said to the next one too */
    corr = only(f, S2, MESH__MSG__BODY_SEND)->corr;
    sent(f, S2, corr, 7);
    assert_true(router_core_quiet(f->core, f->now));
}

/* ---- slots that move ---- */

/* The next ring: all slots are shard 7's. */
static void give_all_to_lone(fixture *f)
{
    Mesh__RingNode node = MESH__RING_NODE__INIT;
    Mesh__RingNode *list[] = { &node };
    Mesh__SlotRange range = MESH__SLOT_RANGE__INIT;
    Mesh__SlotRange *map[] = { &range };
    Mesh__Ring ring = MESH__RING__INIT;
    node.name = "router1";
    node.boot = BOOT;
    range.last = MESH_SLOTS - 1;
    range.shard = 7;
    ring.epoch = 2;
    ring.routers = list;
    ring.n_routers = 1;
    ring.map = map;
    ring.n_map = 1;
    MESH_MSG(msg, RING, ring, &ring);
    say(f, S1, &msg);
}

static void what_waits_goes_where_its_slot_has_gone(void **state)
{
    fixture *f = *state;
    up(f, LONE);
    send_text(f, 42, 0, 10);
    uint64_t corr = asked(f, S1); /* has no answer yet */
    send_text(f, 43, 0, 10);
    uint64_t second = asked(f, S1);
    Mesh__Fault fault = MESH__FAULT__INIT;
    fault.code = FAULT_UNAVAILABLE;
    fault.after_ms = 50;
    MESH_MSG(no, FAULT, fault, &fault);
    no.corr = second;
    say(f, S1, &no); /* and this one pauses */
    give_all_to_lone(f);
    assert_int_equal(count(f, MESH__MSG__BODY_SEND), 2);
    uint64_t anew[2] = { 0 };
    for (size_t i = 0, n = 0; i < f->n_sent; i++) {
        if (f->sent[i].msg->body_case == MESH__MSG__BODY_SEND) {
            assert_int_equal(f->sent[i].to, LONE);
            anew[n++] = f->sent[i].msg->corr;
        }
    }
    sent(f, S1, corr, 7); /* the old shard's word comes too late: the new one says the same */
    nothing(f, MESH__MSG__BODY_SENT);
    sent(f, LONE, anew[0], 7);
    assert_int_equal(lone(f, EDGE, MESH__MSG__BODY_SENT)->corr, 42);
    sent(f, LONE, anew[1], 8);
    assert_int_equal(lone(f, EDGE, MESH__MSG__BODY_SENT)->corr, 43);
}

static void a_store_asks_another_shard(void **state)
{
    fixture *f = *state;
    Mesh__SlotRows part = MESH__SLOT_ROWS__INIT;
    part.slot = 5;
    part.shard = 7;
    part.move = 1;
    MESH_MSG(msg, SLOT_ROWS, slot_rows, &part);
    msg.corr = 99;
    say(f, S1, &msg); /* nobody is there */
    assert_int_equal(lone(f, S1, MESH__MSG__BODY_FAULT)->fault->code, FAULT_UNAVAILABLE);
    up(f, LONE);
    say(f, S1, &msg);
    uint64_t corr = lone(f, LONE, MESH__MSG__BODY_SLOT_ROWS)->corr;
    give_all_to_lone(f); /* the map has no say in it */
    nothing(f, MESH__MSG__BODY_SLOT_ROWS);
    Mesh__SlotTaken taken = MESH__SLOT_TAKEN__INIT;
    taken.slot = 5;
    taken.whole = true;
    MESH_MSG(yes, SLOT_TAKEN, slot_taken, &taken);
    yes.corr = corr;
    say(f, LONE, &yes);
    assert_true(lone(f, S1, MESH__MSG__BODY_SLOT_TAKEN)->corr == 99);
    Mesh__MapSet set = MESH__MAP_SET__INIT;
    set.move = 1;
    MESH_MSG(map, MAP_SET, map_set, &set);
    map.corr = 100;
    say(f, LONE, &map);
    lone(f, S1, MESH__MSG__BODY_MAP_SET);
    part.shard = 3; /* there is no such shard */
    say(f, S1, &msg);
    assert_int_equal(lone(f, S1, MESH__MSG__BODY_FAULT)->fault->code, FAULT_UNAVAILABLE);
}

#define TABLE(name) cmocka_unit_test_setup_teardown(name, table_setup, table_teardown)
#define STORY(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
int main(void)
{
    const struct CMUnitTest tests[] = {
        TABLE(shards_are_the_configs),
        TABLE(a_hint_is_followed_if_it_can_be),
        TABLE(pauses_double_and_a_success_ends_them),
        TABLE(down_and_silence_move_on),
        TABLE(a_lone_store_stays_the_target),
        TABLE(a_leader_of_an_old_term_is_not_believed),
        STORY(a_refused_request_follows_the_hint),
        STORY(without_a_hint_the_stores_are_asked_in_turn),
        STORY(the_leader_goes_down_in_the_middle),
        STORY(a_silent_store_is_not_waited_for),
        STORY(a_slow_store_is_not_asked_twice),
        STORY(only_the_last_try_counts),
        STORY(a_store_that_is_not_ready_is_asked_again),
        STORY(the_deadline_ends_it_all),
        STORY(what_is_kept_is_bounded),
        STORY(the_lease_follows_the_leader),
        STORY(the_lease_leaves_a_silent_store),
        STORY(every_kind_is_sent_again),
        STORY(an_attach_takes_the_answer_of_its_last_try),
        STORY(a_later_term_of_the_same_store_is_asked_again),
        STORY(an_old_term_changes_nothing),
        STORY(quiet_waits_for_what_is_sent_again),
        STORY(what_waits_goes_where_its_slot_has_gone),
        STORY(a_store_asks_another_shard),
    };
    return cmocka_run_group_tests_name("router leaders", tests, NULL, NULL);
}
