/* The edge core's sessions: hello, attach, and what time does to them. */
#include "edge_world.h"

/* ---- hello ---- */

static void hello_without_cursor_is_welcomed_and_resynced(void **state)
{
    world *w = *state;
    edge_session_id id = open_socket(w, EDGE_JSON, NULL);
    says(w, id, "{\"type\":\"hello\",\"id\":1,\"token\":\"%s\",\"device\":\"phone\"}", w->token);
    Mesh__Msg *ask = only(w, ROUTER1, MESH__MSG__BODY_ATTACH);
    assert_string_equal(ask->key, "default/alice");
    assert_string_equal(ask->attach->user, "default/alice");
    assert_string_equal(ask->attach->device, "phone");
    assert_string_equal(ask->attach->edge, "edge1");
    assert_true(ask->attach->session == id && ask->attach->fresh && !ask->attach->has_cursor && ask->corr != 0);
    assert_string_equal(hears(w, id), ""); /* welcome waits for the name */

    Mesh__Entry last = MESH__ENTRY__INIT;
    last.chat = (char *)"default/d:x";
    last.seq = 4;
    last.kind = MESH__ENTRY_KIND__ENTRY_TEXT;
    last.sender = (char *)"default/bob";
    Mesh__Summary summary = MESH__SUMMARY__INIT;
    Mesh__Summary *list[] = { &summary };
    summary.chat = (char *)"default/d:x";
    summary.kind = MESH__CHAT_KIND__CHAT_DIRECT;
    summary.peer = (char *)"default/bob";
    summary.last = &last;
    summary.unread = 2;
    Mesh__Attached a = MESH__ATTACHED__INIT;
    a.session = id;
    a.era = ERA;
    a.head = 10;
    a.resync = true;
    a.name = (char *)"Alice";
    a.n_chats = 1;
    a.chats = list;
    a.has_more = true;
    MESH_MSG(msg, ATTACHED, attached, &a);
    msg.corr = ask->corr;
    mesh_says(w, ROUTER1, &msg);
    char want[1024];
    snprintf(want, sizeof want,
             "{\"type\":\"welcome\",\"id\":1,\"session\":\"%016llx\",\"user\":\"alice\",\"name\":\"Alice\","
             "\"server_time_ms\":1800000000000,\"heartbeat_ms\":30000,\"limits\":{\"frame_bytes\":524288,"
             "\"text_code_points\":100000,\"group_members\":1000,\"page\":200,\"unacked\":256},\"node\":\"edge1\"}\n"
             "{\"type\":\"resync\",\"era\":\"" ERA_TEXT "\",\"inbox_seq\":10,\"chats\":[{\"chat\":\"d:x\","
             "\"kind\":\"direct\",\"peer\":\"bob\",\"last\":{\"chat\":\"d:x\",\"seq\":4,\"kind\":\"text\","
             "\"sender\":\"bob\"},\"unread\":2}],\"has_more\":true}\n"
             "{\"type\":\"live\",\"inbox_seq\":10,\"era\":\"" ERA_TEXT "\"}\n",
             (unsigned long long)id);
    assert_string_equal(hears(w, id), want);
    quiet(w);
    /* the next entry is head + 1; head itself may be acked: it is the state the client started from */
    live(w, ROUTER1, &id, 1, 11, "hi");
    message_text(want, 11, "hi");
    assert_string_equal(hears(w, id), want);
    says(w, id, "{\"type\":\"ack\",\"inbox_seq\":10}");
    turn(w);
    assert_true(only(w, ROUTER1, MESH__MSG__BODY_INBOX_ACK)->inbox_ack->inbox_seq == 10);
}

static void replay_ends_with_live(void **state)
{
    world *w = *state;
    edge_session_id id = open_socket(w, EDGE_JSON, w->token); /* token by the socket */
    says(w, id, "{\"type\":\"hello\",\"device\":\"phone\",\"cursor\":{\"era\":\"" ERA_TEXT "\",\"inbox_seq\":7}}");
    Mesh__Msg *ask = only(w, ROUTER1, MESH__MSG__BODY_ATTACH);
    assert_true(ask->attach->has_cursor && ask->attach->era == ERA && ask->attach->after == 7 && ask->attach->fresh);
    assert_true(ask->attach->acked == 7);
    Mesh__Attached a = MESH__ATTACHED__INIT;
    a.session = id;
    a.era = ERA;
    a.head = 9;
    a.after = 7;
    MESH_MSG(msg, ATTACHED, attached, &a);
    msg.corr = ask->corr;
    mesh_says(w, ROUTER1, &msg);
    assert_non_null(strstr(hears(w, id), "\"welcome\""));
    assert_null(strstr((char *)w->heard.data, "\"live\""));
    char want[600];
    live(w, ROUTER1, &id, 1, 8, "a");
    message_text(want, 8, "a");
    assert_string_equal(hears(w, id), want);
    live(w, ROUTER1, &id, 1, 9, "b");
    message_text(want, 9, "b");
    strcat(want, "{\"type\":\"live\",\"inbox_seq\":9,\"era\":\"" ERA_TEXT "\"}\n");
    assert_string_equal(hears(w, id), want);
    live(w, ROUTER1, &id, 1, 10, "c");
    message_text(want, 10, "c");
    assert_string_equal(hears(w, id), want);
}

static void names_of_token_and_store(void **state)
{
    world *w = *state;
    char *token = edge_token_make(world_key, "alice", NULL, "Tok", w->now.wall / 1000, 3600);
    edge_session_id id = open_socket(w, EDGE_JSON, token);
    says(w, id, "{\"type\":\"hello\",\"device\":\"a\"}");
    attached(w, ROUTER1, (attached_as){ .resync = true });
    assert_non_null(strstr(hears(w, id), "\"name\":\"Tok\""));
    id = open_socket(w, EDGE_JSON, token);
    says(w, id, "{\"type\":\"hello\",\"device\":\"b\"}");
    attached(w, ROUTER1, (attached_as){ .resync = true, .name = "Stored" });
    assert_non_null(strstr(hears(w, id), "\"name\":\"Stored\""));
    free(token);
}

static void before_hello(void **state)
{
    world *w = *state;
    edge_session_id id = open_socket(w, EDGE_JSON, w->token);
    says(w, id, "{\"type\":\"ping\",\"id\":5}");
    assert_error(w, id, 5, FAULT_HELLO_FIRST);
    says(w, id, "{\"type\":\"send\",\"id\":6,\"to\":\"bob\",\"client_msg_id\":\"m\",\"body\":\"x\"}");
    assert_error(w, id, 6, FAULT_HELLO_FIRST);
    says(w, id, "rubbish");
    assert_error(w, id, 0, FAULT_MALFORMED);
    assert_int_equal(w->close_code, 0);
    quiet(w);
    says(w, id, "{\"type\":\"hello\",\"id\":7,\"device\":\"phone\"}"); /* still possible */
    attached(w, ROUTER1, (attached_as){ .resync = true });
    assert_non_null(strstr(hears(w, id), "\"welcome\",\"id\":7"));
}

static void hello_in_time_or_never(void **state)
{
    world *w = *state;
    edge_session_id id = open_socket(w, EDGE_JSON, w->token);
    later(w, EDGE_HELLO_MS - 200);
    assert_string_equal(hears(w, id), "");
    assert_int_equal(w->close_code, 0);
    later(w, 300);
    assert_closed(w, id, 4100);
    says(w, id, "{\"type\":\"hello\",\"device\":\"phone\"}"); /* too late: not looked at */
    quiet(w);
    edge_core_closed(w->core, id, w->now, w->out);
    assert_int_equal(edge_core_sessions(w->core), 0);
    quiet(w);
}

static void second_hello_changes_nothing(void **state)
{
    world *w = *state;
    edge_session_id id = login(w);
    says(w, id, "{\"type\":\"hello\",\"id\":9,\"device\":\"other\"}");
    assert_error(w, id, 9, FAULT_HELLO_TWICE);
    assert_int_equal(w->close_code, 0);
    quiet(w);
    live(w, ROUTER1, &id, 1, 11, "x");
    char want[256];
    message_text(want, 11, "x");
    assert_string_equal(hears(w, id), want);
}

static void hello_with_bad_fields_may_be_said_again(void **state)
{
    world *w = *state;
    static const char *bad[] = {
        "{\"type\":\"hello\",\"id\":2}",
        "{\"type\":\"hello\",\"id\":2,\"device\":\"a b\"}",
        "{\"type\":\"hello\",\"id\":2,\"device\":"
        "\"0123456789012345678901234567890123456789012345678901234567890123x\"}",
        "{\"type\":\"hello\",\"id\":2,\"device\":\"d\",\"client\":"
        "\"0123456789012345678901234567890123456789012345678901234567890123x\"}",
        "{\"type\":\"hello\",\"id\":2,\"device\":\"d\",\"features\":["
        "\"0123456789012345678901234567890123456789012345678901234567890123x\"]}",
        "{\"type\":\"hello\",\"id\":2,\"device\":\"d\",\"features\":[\"\",\"\",\"\",\"\",\"\",\"\",\"\",\"\",\"\",\"\","
        "\"\","
        "\"\",\"\",\"\",\"\",\"\",\"\",\"\",\"\",\"\",\"\",\"\",\"\",\"\",\"\",\"\",\"\",\"\",\"\",\"\",\"\",\"\",\"\"]"
        "}",
    };
    edge_session_id id = open_socket(w, EDGE_JSON, w->token);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        says(w, id, "%s", bad[i]);
        assert_error(w, id, 2, FAULT_INVALID);
        assert_int_equal(w->close_code, 0);
        quiet(w);
    }
    says(w, id, "{\"type\":\"hello\",\"device\":\"d\"}");
    only(w, ROUTER1, MESH__MSG__BODY_ATTACH);
}

static void bad_tokens_close(void **state)
{
    world *w = *state;
    int64_t now_s = w->now.wall / 1000;
    char *old = edge_token_make(world_key, "alice", NULL, NULL, now_s - 7200, 3600);
    char *stranger = edge_token_make(world_key, "alice", "nobody", NULL, now_s, 3600);
    const struct {
        const char *token;
        uint32_t fault;
        uint16_t close;
    } rows[] = {
        { NULL, FAULT_UNAUTHORIZED, 4300 },     { "", FAULT_UNAUTHORIZED, 4300 },
        { "x.y.z", FAULT_UNAUTHORIZED, 4300 },  { old, FAULT_TOKEN_EXPIRED, 4301 },
        { stranger, FAULT_UNAUTHORIZED, 4300 }, /* a tenant that is not here */
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        edge_session_id id = open_socket(w, EDGE_JSON, rows[i].token);
        says(w, id, "{\"type\":\"hello\",\"id\":3,\"device\":\"d\"}\n{\"type\":\"ping\",\"id\":4}");
        assert_error(w, id, 3, rows[i].fault);
        assert_int_equal(w->close_code, rows[i].close);
        quiet(w);
        edge_core_closed(w->core, id, w->now, w->out);
    }
    /* the one in hello counts, not the socket's */
    edge_session_id id = open_socket(w, EDGE_JSON, w->token);
    says(w, id, "{\"type\":\"hello\",\"id\":3,\"device\":\"d\",\"token\":\"%s\"}", old);
    assert_error(w, id, 3, FAULT_TOKEN_EXPIRED);
    assert_int_equal(stat(w, "parley_edge_refused_tokens_total"), 6);
    free(old);
    free(stranger);
}

static void tokens_end_and_are_refreshed(void **state)
{
    world *w = *state;
    free(w->token);
    int64_t now_s = w->now.wall / 1000;
    w->token = edge_token_make(world_key, "alice", NULL, NULL, now_s, 20);
    edge_session_id id = login(w);
    char *bob = edge_token_make(world_key, "bob", NULL, NULL, now_s, 3600);
    char *tenant = edge_token_make(world_key, "alice", "acme", NULL, now_s, 3600);
    char *longer = edge_token_make(world_key, "alice", NULL, NULL, now_s, 100);
    says(w, id, "{\"type\":\"refresh\",\"id\":1,\"token\":\"%s\"}", bob);
    assert_error(w, id, 1, FAULT_UNAUTHORIZED);
    says(w, id, "{\"type\":\"refresh\",\"id\":1,\"token\":\"%s\"}", tenant);
    assert_error(w, id, 1, FAULT_UNAUTHORIZED);
    says(w, id, "{\"type\":\"refresh\",\"id\":1}");
    assert_error(w, id, 1, FAULT_UNAUTHORIZED);
    assert_int_equal(w->close_code, 0);
    for (int i = 0; i < 7; i++) { /* 20 s and 60 s of skew: not yet over at 70 */
        later(w, 10000);
        says(w, id, "{\"type\":\"ping\"}");
        hears(w, id);
    }
    hears(w, id);
    assert_int_equal(w->close_code, 0);
    says(w, id, "{\"type\":\"refresh\",\"id\":2,\"token\":\"%s\"}", longer);
    assert_string_equal(hears(w, id), "{\"type\":\"done\",\"id\":2}\n");
    for (int i = 0; i < 8; i++) { /* at 150 */
        later(w, 10000);
        says(w, id, "{\"type\":\"ping\"}");
        hears(w, id);
    }
    hears(w, id);
    assert_int_equal(w->close_code, 0);
    later(w, 11000);
    assert_error(w, id, 0, FAULT_TOKEN_EXPIRED);
    assert_int_equal(w->close_code, 4301);
    free(bob);
    free(tenant);
    free(longer);
}

/* ---- attach again ---- */

static void attach_is_tried_until_it_works(void **state)
{
    world *w = *state;
    edge_session_id id = open_socket(w, EDGE_JSON, w->token);
    says(w, id, "{\"type\":\"hello\",\"device\":\"phone\",\"attempt\":9007199254740991}");
    Mesh__Msg *ask = only(w, ROUTER1, MESH__MSG__BODY_ATTACH);
    assert_true(ask->attach->attempt == 9007199254740991);
    uint64_t first = ask->corr;
    later(w, 1900);
    quiet(w);
    later(w, 100); /* no answer for 2 s */
    Mesh__Msg *again = only(w, ROUTER1, MESH__MSG__BODY_ATTACH);
    assert_true(again->attach->fresh && again->corr != first && again->attach->attempt == 9007199254740991);
    assert_true(again->attach->age_ms == 2000); /* which of two sessions of a device is the later one */
    uint64_t corr = again->corr;
    static const uint32_t faults[] = { FAULT_NOT_OWNER, FAULT_UNAVAILABLE, FAULT_BUSY, FAULT_NOT_LEADER,
                                       FAULT_DISK_FULL };
    for (size_t i = 0; i < sizeof faults / sizeof *faults; i++) {
        fault(w, ROUTER1, corr, faults[i]);
        turn(w);
        quiet(w); /* not at once */
        later(w, 3100);
        again = only(w, ROUTER1, MESH__MSG__BODY_ATTACH);
        assert_true(again->attach->fresh);
        corr = again->corr;
    }
    assert_string_equal(hears(w, id), "");
    fault(w, ROUTER1, first, FAULT_REPLACED); /* the answer to one given up says nothing */
    assert_int_equal(stat(w, "parley_edge_late_answers_total"), 1);
    Mesh__Attached a = MESH__ATTACHED__INIT;
    a.session = id;
    a.era = ERA;
    a.resync = true;
    MESH_MSG(msg, ATTACHED, attached, &a);
    msg.corr = corr;
    mesh_says(w, ROUTER1, &msg);
    assert_non_null(strstr(hears(w, id), "\"welcome\""));
}

static void attach_waits_for_a_router(void **state)
{
    world *w = *state;
    edge_core_down(w->core, ROUTER1, w->now, w->out);
    edge_session_id id = open_socket(w, EDGE_JSON, w->token);
    says(w, id, "{\"type\":\"hello\",\"device\":\"phone\"}");
    turn(w);
    quiet(w);
    edge_core_up(w->core, ROUTER1, 103, w->now, w->out);
    assert_true(turn(w) > w->now.mono);
    attached(w, ROUTER1, (attached_as){ .resync = true });
    assert_non_null(strstr(hears(w, id), "\"welcome\""));
}

static void a_new_ring_moves_the_session(void **state)
{
    world *w = *state;
    edge_session_id id = login(w);
    edge_core_up(w->core, ROUTER2, 102, w->now, w->out);
    live(w, ROUTER1, &id, 1, 11, "x");
    says(w, id, "{\"type\":\"ack\",\"inbox_seq\":11}");
    turn(w);
    assert_true(only(w, ROUTER1, MESH__MSG__BODY_INBOX_ACK)->inbox_ack->inbox_seq == 11);
    hears(w, id);
    set_ring(w, false, true);
    turn(w);
    Mesh__Msg *ask = only(w, ROUTER2, MESH__MSG__BODY_ATTACH);
    const Mesh__Attach *attach = ask->attach;
    assert_true(!attach->fresh && attach->has_cursor && attach->era == ERA && attach->after == 11 &&
                attach->acked == 11);
    assert_true(attach->generation == 3 && attach->session == id && attach->attempt == ATTEMPT);
    uint64_t corr = ask->corr;
    live(w, ROUTER1, &id, 1, 12, "stray"); /* from the old owner */
    assert_string_equal(hears(w, id), "");
    assert_int_equal(stat(w, "parley_edge_strays_total"), 1);
    Mesh__Attached a = MESH__ATTACHED__INIT;
    a.session = id;
    a.era = ERA;
    a.head = 11;
    a.after = 11;
    a.generation = 3;
    MESH_MSG(msg, ATTACHED, attached, &a);
    msg.corr = corr;
    mesh_says(w, ROUTER1, &msg); /* not the one that was asked */
    assert_int_equal(stat(w, "parley_edge_mesh_malformed_total"), 1);
    a.session = id + 1; /* nor about another session */
    mesh_says(w, ROUTER2, &msg);
    assert_int_equal(stat(w, "parley_edge_mesh_malformed_total"), 2);
    a.session = id;
    mesh_says(w, ROUTER2, &msg);
    assert_string_equal(hears(w, id), ""); /* the client notices nothing */
    turn(w);                               /* an ack the old owner may have lost is said again */
    assert_true(only(w, ROUTER2, MESH__MSG__BODY_INBOX_ACK)->inbox_ack->inbox_seq == 11);
    live(w, ROUTER2, &id, 1, 12, "y");
    char want[256];
    message_text(want, 12, "y");
    assert_string_equal(hears(w, id), want);
    set_ring(w, false, true); /* nothing moved: nothing happens */
    turn(w);
    quiet(w);
}

static void a_lost_router_is_attached_again(void **state)
{
    world *w = *state;
    edge_session_id id = login(w);
    edge_core_down(w->core, ROUTER1, w->now, w->out);
    turn(w);
    quiet(w);
    edge_core_up(w->core, ROUTER1, 104, w->now, w->out);
    turn(w);
    Mesh__Msg *ask = only(w, ROUTER1, MESH__MSG__BODY_ATTACH);
    assert_true(!ask->attach->fresh && ask->attach->after == 10);
    /* reborn without a down: the same */
    edge_core_up(w->core, ROUTER1, 105, w->now, w->out);
    turn(w);
    attached(w, ROUTER1, (attached_as){ .head = 10, .after = 10 });
    turn(w);
    collect(w);
    assert_string_equal(hears(w, id), "");
    live(w, ROUTER1, &id, 1, 11, "x");
    assert_non_null(strstr(hears(w, id), "\"inbox_seq\":11"));
}

static void attaches_are_paced(void **state)
{
    world *w = *state;
    for (int i = 0; i < 600; i++) {
        char device[16];
        snprintf(device, sizeof device, "d%d", i);
        login_at(w, EDGE_JSON, device, 5);
    }
    edge_core_up(w->core, ROUTER2, 102, w->now, w->out);
    set_ring(w, false, true);
    size_t want[] = { 256, 256, 88, 0 };
    for (size_t i = 0; i < 4; i++) {
        assert_true((turn(w) == w->now.mono) == (i < 2));
        assert_int_equal(collect(w), want[i]);
    }
}

static void a_resync_in_between(void **state)
{
    world *w = *state;
    edge_session_id id = login(w);
    edge_core_up(w->core, ROUTER1, 104, w->now, w->out);
    turn(w);
    attached(w, ROUTER1, (attached_as){ .head = 3, .resync = true }); /* the store was restored */
    assert_string_equal(hears(w, id), "{\"type\":\"resync\",\"era\":\"" ERA_TEXT "\",\"inbox_seq\":3}\n"
                                      "{\"type\":\"live\",\"inbox_seq\":3,\"era\":\"" ERA_TEXT "\"}\n");
    live(w, ROUTER1, &id, 1, 4, "x");
    assert_non_null(strstr(hears(w, id), "\"inbox_seq\":4"));
}

static void replaced_closes(void **state)
{
    world *w = *state;
    edge_session_id id = login(w);
    Mesh__Replaced r = MESH__REPLACED__INIT;
    r.session = id;
    r.code = FAULT_REPLACED;
    MESH_MSG(msg, REPLACED, replaced, &r);
    mesh_says(w, ROUTER2, &msg); /* not its router */
    assert_string_equal(hears(w, id), "");
    mesh_says(w, ROUTER1, &msg);
    assert_error(w, id, 0, FAULT_REPLACED);
    assert_int_equal(w->close_code, 4001);
    edge_core_closed(w->core, id, w->now, w->out);

    collect(w);
    id = login(w); /* and as the answer to an attach */
    edge_core_up(w->core, ROUTER1, 104, w->now, w->out);
    turn(w);
    fault(w, ROUTER1, only(w, ROUTER1, MESH__MSG__BODY_ATTACH)->corr, FAULT_REPLACED);
    assert_error(w, id, 0, FAULT_REPLACED);
    assert_int_equal(w->close_code, 4001);

    id = login(w); /* a router that gives a session up for another reason: attach again */
    r.session = id;
    r.code = FAULT_NOT_OWNER;
    mesh_says(w, ROUTER1, &msg);
    later(w, 300);
    assert_false(only(w, ROUTER1, MESH__MSG__BODY_ATTACH)->attach->fresh);
    assert_string_equal(hears(w, id), "");
}

/* ---- time ---- */

static void silence_closes(void **state)
{
    world *w = *state;
    edge_session_id id = login(w);
    edge_session_id talker = login_at(w, EDGE_JSON, "talker", 10);
    for (int i = 0; i < 60; i++) {
        later(w, 990);
        heads(w, ROUTER1, id, 10); /* its router being there is no sign of life */
        heads(w, ROUTER1, talker, 10);
        if (i % 20 == 0) {
            edge_core_pong(w->core, talker, w->now);
        }
    }
    hears(w, id);
    assert_int_equal(w->close_code, 0);
    later(w, 700);
    assert_closed(w, id, 4101);
    hears(w, talker);
    assert_int_equal(w->close_code, 0);
    edge_core_closed(w->core, id, w->now, w->out);
    Mesh__Msg *msg = only(w, ROUTER1, MESH__MSG__BODY_DETACH);
    assert_string_equal(msg->detach->user, "default/alice");
    assert_true(msg->detach->session == id);
    live(w, ROUTER1, &id, 1, 11, "x"); /* gone: no harm */
    says(w, id, "{\"type\":\"ping\"}");
    edge_core_pong(w->core, id, w->now);
    edge_core_wrote(w->core, id, 0, w->now, w->out);
    edge_core_closed(w->core, id, w->now, w->out);
    quiet(w);
}

static void the_turn_says_when_to_come_back(void **state)
{
    world *w = *state;
    assert_true(turn(w) == MESH_NEVER);
    login(w);
    mesh_ms next = turn(w);
    assert_true(next > w->now.mono && next <= w->now.mono + 5000);
    int wakes = 0; /* an idle session is looked at now and then, not all the time */
    while (w->now.mono < 1000000 + 55000) {
        w->now.mono = turn(w);
        wakes++;
    }
    assert_true(wakes < 30);
}

static void nobody_is_forgotten_over_a_long_sleep(void **state)
{
    world *w = *state;
    edge_session_id ids[200];
    for (size_t i = 0; i < 200; i++) {
        later(w, 37);
        ids[i] = open_socket(w, EDGE_JSON, NULL);
    }
    w->now.mono += 3600 * 1000;
    turn(w);
    turn(w);
    for (size_t i = 0; i < 200; i++) {
        assert_closed(w, ids[i], 4100);
    }
}

static void drain_is_spread(void **state)
{
    world *w = *state;
    edge_session_id ids[10];
    for (int i = 0; i < 10; i++) {
        char device[2] = { (char)('a' + i), '\0' };
        ids[i] = login_at(w, EDGE_JSON, device, 10);
    }
    edge_session_id unproven = open_socket(w, EDGE_JSON, NULL);
    edge_core_drain(w->core, w->now);
    edge_core_drain(w->core, w->now);
    edge_session_id more;
    assert_int_equal(edge_core_open(w->core, EDGE_JSON, NULL, w->now, &more), MESH_FULL);
    assert_closed(w, unproven, 4200);
    edge_core_closed(w->core, unproven, w->now, w->out);
    size_t told = 0;
    for (int second = 0; second <= 20; second++) {
        later(w, second == 0 ? 100 : 1000);
        for (int i = 0; i < 10; i++) {
            edge_core_pong(w->core, ids[i], w->now);
            const char *heard = hears(w, ids[i]);
            if (heard[0] != '\0') {
                assert_string_equal(heard, "{\"type\":\"reconnect\",\"jitter_ms\":1000}\n");
                told++;
            }
        }
        size_t due = (size_t)(100 + second * 1000) * 11 / 20000; /* eleven sockets over 20 s */
        assert_in_range(told, due < 10 ? due : 10, due + 1);
        if (second == 1) { /* told, and what is on its way still comes */
            assert_int_equal(told, 1);
        }
    }
    later(w, 2000);
    assert_int_equal(told, 10);
    for (int i = 0; i < 10; i++) {
        assert_closed(w, ids[i], 4200);
    }
}

static void refused_by_the_shell(void **state)
{
    world *w = *state;
    edge_session_id id = login(w);
    edge_core_refuse(w->core, id, FAULT_TOO_BIG, w->now);
    edge_core_refuse(w->core, id, FAULT_TOO_BIG, w->now);
    assert_error(w, id, 0, FAULT_TOO_BIG);
    assert_int_equal(w->close_code, 1009);
    id = login_at(w, EDGE_JSON, "d", 10);
    edge_core_refuse(w->core, id, FAULT_MALFORMED, w->now);
    assert_error(w, id, 0, FAULT_MALFORMED);
    assert_int_equal(w->close_code, 4000);
    assert_int_equal(stat(w, "parley_edge_malformed_total"), 2);
}

/* The shell asks how much one message may be: little before hello. At the cap the core reads all of it. */
static void messages_are_bounded(void **state)
{
    world *w = *state;
    edge_session_id id = open_socket(w, EDGE_JSON, w->token);
    assert_int_equal(edge_core_input_max(w->core, id), EDGE_HELLO_FRAME_MAX);
    says(w, id, "rubbish");
    assert_error(w, id, 0, FAULT_MALFORMED);
    assert_int_equal(edge_core_input_max(w->core, id), EDGE_HELLO_FRAME_MAX);
    says(w, id, "{\"type\":\"hello\",\"device\":\"x\"}");
    assert_int_equal(edge_core_input_max(w->core, id), EDGE_FRAME_MAX); /* what follows hello at once */
    collect(w);
    id = login(w);
    assert_int_equal(edge_core_input_max(w->core, id), EDGE_FRAME_MAX);
    assert_int_equal(edge_core_input_max(w->core, id + 1), EDGE_HELLO_FRAME_MAX); /* nobody */
    char *ping = mesh_alloc(EDGE_FRAME_MAX + 1);
    memset(ping, ' ', EDGE_FRAME_MAX);
    memcpy(ping, "{\"type\":\"state\",\"id\":5,\"pad\":\"", 30);
    ping[EDGE_FRAME_MAX - 2] = '"';
    ping[EDGE_FRAME_MAX - 1] = '}';
    edge_core_input(w->core, id, (mesh_slice){ (uint8_t *)ping, EDGE_FRAME_MAX }, w->now, w->out);
    assert_string_equal(hears(w, id), "{\"type\":\"done\",\"id\":5}\n");
    free(ping);
}

static void sockets_are_bounded(void **state)
{
    world *w = *state;
    edge_core_destroy(&w->core);
    assert_int_equal(mesh_conf_set(w->conf, "edge.max_sockets", "3"), MESH_OK);
    w->core = edge_core_new(&(edge_core_conf){ w->conf, EDGE1, 7, world_key }, w->now);
    edge_session_id id = 0;
    for (int i = 0; i < 3; i++) {
        id = open_socket(w, EDGE_JSON, NULL);
    }
    edge_session_id more = 42;
    assert_int_equal(edge_core_open(w->core, EDGE_JSON, NULL, w->now, &more), MESH_FULL);
    assert_true(more == 42);
    edge_core_closed(w->core, id, w->now, w->out);
    open_socket(w, EDGE_JSON, NULL);
}

static void nonsense_from_the_mesh_is_counted(void **state)
{
    world *w = *state;
    edge_session_id id = login(w);
    Mesh__Lease lease = MESH__LEASE__INIT;
    MESH_MSG(msg, LEASE, lease, &lease);
    mesh_says(w, ROUTER1, &msg);
    Mesh__Msg empty = MESH__MSG__INIT;
    mesh_says(w, ROUTER1, &empty);
    assert_int_equal(stat(w, "parley_edge_mesh_malformed_total"), 2);
    Mesh__Done done = MESH__DONE__INIT;
    MESH_MSG(answer, DONE, done, &done);
    answer.corr = 999;
    mesh_says(w, ROUTER1, &answer);
    assert_int_equal(stat(w, "parley_edge_late_answers_total"), 1);
    assert_string_equal(hears(w, id), "");
    quiet(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        WORLD(hello_without_cursor_is_welcomed_and_resynced),
        WORLD(replay_ends_with_live),
        WORLD(names_of_token_and_store),
        WORLD(before_hello),
        WORLD(hello_in_time_or_never),
        WORLD(second_hello_changes_nothing),
        WORLD(hello_with_bad_fields_may_be_said_again),
        WORLD(bad_tokens_close),
        WORLD(tokens_end_and_are_refreshed),
        WORLD(attach_is_tried_until_it_works),
        WORLD(attach_waits_for_a_router),
        WORLD(a_new_ring_moves_the_session),
        WORLD(a_lost_router_is_attached_again),
        WORLD(attaches_are_paced),
        WORLD(a_resync_in_between),
        WORLD(replaced_closes),
        WORLD(silence_closes),
        WORLD(the_turn_says_when_to_come_back),
        WORLD(nobody_is_forgotten_over_a_long_sleep),
        WORLD(drain_is_spread),
        WORLD(refused_by_the_shell),
        WORLD(messages_are_bounded),
        WORLD(sockets_are_bounded),
        WORLD(nonsense_from_the_mesh_is_counted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
