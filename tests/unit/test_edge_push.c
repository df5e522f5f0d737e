/* What the edge core pushes down to a session, what is acked up, and the queue to the socket. */
#include "edge_world.h"

#include "edge/state.h"

/* ---- entries ---- */

static void lower_is_dropped_and_higher_attaches_again(void **state)
{
    world *w = *state;
    edge_session_id id = login(w);
    live(w, ROUTER1, &id, 1, 10, "old");
    live(w, ROUTER1, &id, 1, 3, "older");
    assert_string_equal(hears(w, id), "");
    assert_int_equal(stat(w, "parley_edge_duplicates_total"), 2);
    turn(w);
    quiet(w);
    live(w, ROUTER1, &id, 1, 12, "too early");
    live(w, ROUTER1, &id, 1, 13, "too early as well");
    live(w, ROUTER1, &id, 1, 11, "on an attachment that is given up");
    assert_string_equal(hears(w, id), "");
    turn(w);
    assert_int_equal(stat(w, "parley_edge_gaps_total"), 1);
    Mesh__Attach *attach = only(w, ROUTER1, MESH__MSG__BODY_ATTACH)->attach;
    assert_true(!attach->fresh && attach->after == 10);
    later(w, 2000);
    attached(w, ROUTER1, (attached_as){ .head = 13, .after = 10 });
    for (uint64_t seq = 11; seq <= 13; seq++) {
        char want[256];
        live(w, ROUTER1, &id, 1, seq, "x");
        message_text(want, seq, "x");
        assert_string_equal(hears(w, id), want);
    }
}

static void another_era_is_a_stray(void **state)
{
    world *w = *state;
    edge_session_id id = login(w);
    Mesh__Entry entry = MESH__ENTRY__INIT;
    Mesh__Target target = MESH__TARGET__INIT;
    Mesh__Target *list[] = { &target };
    target.session = id;
    target.inbox_seq = 11;
    Mesh__Live l = MESH__LIVE__INIT;
    l.entry = &entry;
    l.era = ERA + 1;
    l.n_targets = 1;
    l.targets = list;
    MESH_MSG(msg, LIVE, live, &l);
    mesh_says(w, ROUTER1, &msg);
    l.entry = NULL; /* and one without an entry is nonsense */
    mesh_says(w, ROUTER1, &msg);
    assert_string_equal(hears(w, id), "");
    assert_int_equal(stat(w, "parley_edge_strays_total"), 1);
    assert_int_equal(stat(w, "parley_edge_mesh_malformed_total"), 1);
}

static void one_live_for_many(void **state)
{
    world *w = *state;
    edge_session_id ids[4];
    ids[0] = login_at(w, EDGE_JSON, "a", 10);
    ids[1] = login_at(w, EDGE_PROTOBUF, "b", 10);
    ids[2] = 12345; /* gone */
    ids[3] = login_at(w, EDGE_JSON, "c", 10);
    live(w, ROUTER1, ids, 4, 11, "hi");
    char want[256];
    message_text(want, 11, "hi");
    assert_string_equal(hears(w, ids[0]), want);
    assert_string_equal(hears(w, ids[3]), want);
    hears(w, ids[1]);
    edge_codec_reader reader;
    Client__Event *event = NULL;
    mesh_arena *arena = mesh_arena_new();
    edge_codec_open(&reader, EDGE_PROTOBUF, (mesh_slice){ w->heard.data, w->heard.size - 1 });
    assert_int_equal(edge_codec_event(&reader, arena, &event), MESH_OK);
    assert_string_equal(event->message->body, "hi");
    assert_true(event->message->inbox_seq == 11 && event->message->era == ERA);
    assert_int_equal(edge_codec_event(&reader, arena, &event), MESH_AGAIN);
    mesh_arena_destroy(&arena);
    assert_int_equal(stat(w, "parley_edge_strays_total"), 1);
}

static void a_lost_last_entry_shows_in_the_heads(void **state)
{
    world *w = *state;
    edge_session_id id = login(w);
    heads(w, ROUTER1, id, 10);
    heads(w, ROUTER1, id, 11);
    turn(w);
    quiet(w); /* the first time it may be on its way */
    live(w, ROUTER1, &id, 1, 11, "x");
    heads(w, ROUTER1, id, 12);
    turn(w);
    quiet(w); /* there was progress */
    says(w, id, "{\"type\":\"ping\",\"id\":3}");
    assert_non_null(
        strstr(hears(w, id), "{\"type\":\"pong\",\"id\":3,\"inbox_head\":12,\"server_time_ms\":1800000000000}"));
    heads(w, ROUTER2, id, 12); /* not its router */
    turn(w);
    quiet(w);
    heads(w, ROUTER1, id, 12);
    turn(w);
    assert_true(only(w, ROUTER1, MESH__MSG__BODY_ATTACH)->attach->after == 11);
    assert_int_equal(stat(w, "parley_edge_stuck_total"), 1);
}

static void without_credit_nothing_is_stuck(void **state)
{
    world *w = *state;
    edge_session_id id = login(w);
    for (uint64_t seq = 11; seq <= 10 + 256; seq++) {
        live(w, ROUTER1, &id, 1, seq, "x");
    }
    hears(w, id);
    for (int i = 0; i < 5; i++) {
        heads(w, ROUTER1, id, 500);
    }
    turn(w);
    quiet(w);
    says(w, id, "{\"type\":\"ack\",\"inbox_seq\":11}");
    turn(w);
    only(w, ROUTER1, MESH__MSG__BODY_INBOX_ACK);
    heads(w, ROUTER1, id, 500);
    heads(w, ROUTER1, id, 500);
    turn(w);
    only(w, ROUTER1, MESH__MSG__BODY_ATTACH);
}

/* The router that gave a session up may have said so in vain. */
static void a_session_that_its_router_names_no_more_attaches_again(void **state)
{
    world *w = *state;
    edge_session_id id = login(w);
    for (uint64_t seq = 11; seq <= 13; seq++) { /* heads or an entry: it has it */
        later(w, EDGE_UNHEARD_MS - 200);
        heads(w, ROUTER1, id, seq - 1);
        later(w, EDGE_UNHEARD_MS - 200);
        live(w, ROUTER1, &id, 1, seq, "x");
        edge_core_pong(w->core, id, w->now);
        hears(w, id);
    }
    heads(w, ROUTER1, id + 1, 13);
    later(w, EDGE_UNHEARD_MS - 200);
    heads(w, ROUTER2, id, 13); /* not its router */
    quiet(w);
    later(w, 400);
    Mesh__Msg *ask = only(w, ROUTER1, MESH__MSG__BODY_ATTACH);
    assert_true(!ask->attach->fresh && ask->attach->after == 13);
    assert_int_equal(stat(w, "parley_edge_unheard_total"), 1);
    later(w, 2000); /* without an answer it asks on, as ever */
    attached(w, ROUTER1, (attached_as){ .head = 13, .after = 13 });
    later(w, EDGE_UNHEARD_MS - 200);
    only(w, ROUTER1, MESH__MSG__BODY_INBOX_ACK); /* said again with each attach, and that is all */
    assert_int_equal(stat(w, "parley_edge_unheard_total"), 1);
}

/* ---- acks ---- */

static void acks_are_cumulative_and_coalesced(void **state)
{
    world *w = *state;
    edge_session_id id = login(w);
    for (uint64_t seq = 11; seq <= 20; seq++) {
        live(w, ROUTER1, &id, 1, seq, "x");
    }
    hears(w, id);
    says(w, id, "{\"type\":\"ack\",\"inbox_seq\":12}\n{\"type\":\"ack\",\"inbox_seq\":15,\"id\":4}");
    says(w, id, "{\"type\":\"ack\",\"inbox_seq\":14}"); /* lower: nothing */
    assert_string_equal(hears(w, id), "{\"type\":\"done\",\"id\":4}\n");
    quiet(w);
    turn(w);
    Mesh__Msg *msg = only(w, ROUTER1, MESH__MSG__BODY_INBOX_ACK);
    assert_string_equal(msg->inbox_ack->user, "default/alice");
    assert_string_equal(msg->inbox_ack->device, "phone");
    assert_true(msg->inbox_ack->session == id && msg->inbox_ack->inbox_seq == 15 && msg->corr == 0);
    turn(w);
    quiet(w);
    says(w, id, "{\"type\":\"ack\",\"inbox_seq\":15}"); /* said before */
    turn(w);
    quiet(w);
    says(w, id, "{\"type\":\"ack\",\"id\":5,\"inbox_seq\":21}");
    assert_error(w, id, 5, FAULT_ACK_BEYOND);
    turn(w);
    quiet(w);
    says(w, id, "{\"type\":\"ack\",\"inbox_seq\":20}");
    turn(w);
    assert_true(only(w, ROUTER1, MESH__MSG__BODY_INBOX_ACK)->inbox_ack->inbox_seq == 20);
}

static void acks_while_attaching_are_not_lost(void **state)
{
    world *w = *state;
    edge_session_id id = login(w);
    live(w, ROUTER1, &id, 1, 11, "x");
    hears(w, id);
    edge_core_up(w->core, ROUTER1, 104, w->now, w->out);
    turn(w);
    assert_true(collect(w) == 1 && w->sent[0].msg->attach->acked == 10);
    uint64_t corr = w->sent[0].msg->corr;
    says(w, id, "{\"type\":\"ack\",\"inbox_seq\":11}");
    turn(w);
    quiet(w);
    Mesh__Attached a = MESH__ATTACHED__INIT;
    a.session = id;
    a.era = ERA;
    a.head = a.after = 11;
    MESH_MSG(msg, ATTACHED, attached, &a);
    msg.corr = corr;
    mesh_says(w, ROUTER1, &msg);
    turn(w);
    assert_true(only(w, ROUTER1, MESH__MSG__BODY_INBOX_ACK)->inbox_ack->inbox_seq == 11);
}

/* ---- the queue to the socket ---- */

static char *long_body(size_t n)
{
    char *body = mesh_alloc(n + 1);
    memset(body, 'x', n);
    return body;
}

static void a_full_queue_starves_and_comes_back(void **state)
{
    world *w = *state;
    edge_session_id id = login(w);
    char *body = long_body(100000);
    uint64_t seq = 11;
    while (stat(w, "parley_edge_starved_total") == 0) {
        live(w, ROUTER1, &id, 1, seq++, body);
        assert_true(seq < 30);
    }
    uint64_t last = seq - 2; /* the one before was the last that was taken */
    assert_true(last == 10 + 11);
    live(w, ROUTER1, &id, 1, seq, body); /* dropped */
    heads(w, ROUTER1, id, 100);
    heads(w, ROUTER1, id, 100);
    heads(w, ROUTER1, id, 100);
    turn(w);
    quiet(w);
    uint16_t code;
    const char *reason;
    size_t taken = 0;
    while (collect(w) == 0) {
        mesh_slice pending = edge_core_pending(w->core, id, &code, &reason);
        assert_int_equal(code, 0);
        assert_true(pending.size > 0 && pending.data[pending.size - 1] == '\n'); /* whole frames */
        assert_memory_equal(pending.data, "{\"type\":\"message\"", 17);
        taken += pending.size;
        edge_core_wrote(w->core, id, pending.size, w->now, w->out);
        turn(w);
    }
    assert_true(taken > EDGE_SENDQ_MAX / 2 && taken < EDGE_SENDQ_MAX);
    assert_int_equal(w->sent[0].msg->body_case, MESH__MSG__BODY_ATTACH);
    assert_true(!w->sent[0].msg->attach->fresh && w->sent[0].msg->attach->after == last);
    free(body);
}

static void answers_beyond_the_queue_close(void **state)
{
    world *w = *state;
    edge_session_id id = login(w);
    char *body = long_body(50000);
    for (int i = 0; i < 42; i++) {
        says(w, id, "{\"type\":\"history\",\"id\":%d,\"chat\":\"room\"}", i + 1);
        uint64_t corr = only(w, ROUTER1, MESH__MSG__BODY_HISTORY)->corr;
        Mesh__Entry entry = MESH__ENTRY__INIT;
        Mesh__Entry *entries[] = { &entry };
        entry.body = (ProtobufCBinaryData){ 50000, (uint8_t *)body };
        Mesh__Page page = MESH__PAGE__INIT;
        page.n_entries = 1;
        page.entries = entries;
        MESH_MSG(msg, PAGE, page, &page);
        msg.corr = corr;
        mesh_says(w, ROUTER1, &msg);
        uint16_t code;
        const char *reason;
        size_t left = edge_core_pending(w->core, id, &code, &reason).size;
        assert_int_equal(code, i < 41 ? 0 : 4102);
        assert_true((left > 0) == (i < 41));
    }
    free(body);
}

static void a_reader_that_stops_is_closed(void **state)
{
    world *w = *state;
    edge_session_id id = login(w);
    live(w, ROUTER1, &id, 1, 11, "x");
    uint16_t code;
    const char *reason;
    for (int i = 0; i < 59; i++) { /* not silent, but taking nothing */
        later(w, 1000);
        edge_core_pong(w->core, id, w->now);
        assert_true(edge_core_pending(w->core, id, &code, &reason).size > 0);
        assert_int_equal(code, 0);
    }
    edge_core_wrote(w->core, id, 1, w->now, w->out); /* one byte is progress */
    for (int i = 0; i < 59; i++) {
        later(w, 1000);
        edge_core_pong(w->core, id, w->now);
        edge_core_pending(w->core, id, &code, &reason);
        assert_int_equal(code, 0);
    }
    later(w, 1200);
    assert_int_equal(edge_core_pending(w->core, id, &code, &reason).size, 0);
    assert_int_equal(code, 4102);
    assert_string_equal(reason, "reading too slowly");
}

static void ready_goes_around(void **state)
{
    world *w = *state;
    edge_session_id ids[3];
    edge_session_id got;
    for (int i = 0; i < 3; i++) {
        char device[2] = { (char)('a' + i), '\0' };
        ids[i] = login_at(w, EDGE_JSON, device, 10);
    }
    assert_false(edge_core_next_ready(w->core, &got));
    live(w, ROUTER1, ids, 3, 11, "x");
    live(w, ROUTER1, ids, 3, 12, "y");
    for (int i = 0; i < 3; i++) {
        assert_true(edge_core_next_ready(w->core, &got));
        assert_true(got == ids[i]); /* once each */
    }
    assert_false(edge_core_next_ready(w->core, &got));
    uint16_t code;
    const char *reason;
    mesh_slice pending = edge_core_pending(w->core, ids[1], &code, &reason);
    edge_core_wrote(w->core, ids[1], pending.size - 10, w->now, w->out);
    assert_true(edge_core_next_ready(w->core, &got)); /* something is left */
    assert_true(got == ids[1]);
    assert_int_equal(edge_core_pending(w->core, ids[1], &code, &reason).size, 10);
    edge_core_wrote(w->core, ids[1], 10, w->now, w->out);
    assert_false(edge_core_next_ready(w->core, &got));
    live(w, ROUTER1, ids, 3, 13, "z"); /* the others are with the shell already */
    assert_true(edge_core_next_ready(w->core, &got) && got == ids[1]);
    assert_false(edge_core_next_ready(w->core, &got));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        WORLD(lower_is_dropped_and_higher_attaches_again),
        WORLD(another_era_is_a_stray),
        WORLD(one_live_for_many),
        WORLD(a_lost_last_entry_shows_in_the_heads),
        WORLD(without_credit_nothing_is_stuck),
        WORLD(a_session_that_its_router_names_no_more_attaches_again),
        WORLD(acks_are_cumulative_and_coalesced),
        WORLD(acks_while_attaching_are_not_lost),
        WORLD(a_full_queue_starves_and_comes_back),
        WORLD(answers_beyond_the_queue_close),
        WORLD(a_reader_that_stops_is_closed),
        WORLD(ready_goes_around),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
