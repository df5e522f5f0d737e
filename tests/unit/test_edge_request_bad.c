/* Requests the edge core does not take: every bad one, too much of a thing, and too many at a time. */
#include "edge_world.h"

/* ---- bad input: the exact error, nothing to the mesh, and the session goes on ---- */

#define ID64 "0123456789012345678901234567890123456789012345678901234567890123"
#define TEN                                                                                                            \
    "{\"ref\":\"r\"},{\"ref\":\"r\"},{\"ref\":\"r\"},{\"ref\":\"r\"},{\"ref\":\"r\"},{\"ref\":\"r\"},{\"ref\":\"r\"}," \
    "{\"ref\":\"r\"},{\"ref\":\"r\"},{\"ref\":\"r\"}"

static void bad_requests(void **state)
{
    static const struct {
        const char *line; /* without type's brace and id */
        uint32_t fault;
        bool no_id; /* not JSON: the id cannot be read either */
    } rows[] = {
        { "\"send\",\"client_msg_id\":\"m\",\"body\":\"x\"", FAULT_INVALID, false },
        { "\"send\",\"chat\":\"c\",\"to\":\"u\",\"client_msg_id\":\"m\",\"body\":\"x\"", FAULT_INVALID, false },
        { "\"send\",\"chat\":\"a b\",\"client_msg_id\":\"m\",\"body\":\"x\"", FAULT_INVALID, false },
        { "\"send\",\"chat\":\"default/c\",\"client_msg_id\":\"m\",\"body\":\"x\"", FAULT_INVALID, false },
        { "\"send\",\"chat\":\"" ID64 "x\",\"client_msg_id\":\"m\",\"body\":\"x\"", FAULT_INVALID, false },
        { "\"send\",\"to\":\"\xc3\xa4\",\"client_msg_id\":\"m\",\"body\":\"x\"", FAULT_INVALID, false },
        { "\"send\",\"to\":\"acme/bob\",\"client_msg_id\":\"m\",\"body\":\"x\"", FAULT_INVALID, false },
        { "\"send\",\"chat\":\"c\",\"body\":\"x\"", FAULT_INVALID, false },
        { "\"send\",\"chat\":\"c\",\"client_msg_id\":\"" ID64 "x\",\"body\":\"x\"", FAULT_INVALID, false },
        { "\"send\",\"chat\":\"c\",\"client_msg_id\":\"a b\",\"body\":\"x\"", FAULT_INVALID, false },
        { "\"send\",\"chat\":\"c\",\"client_msg_id\":\"m\"", FAULT_INVALID, false },
        { "\"send\",\"chat\":\"c\",\"client_msg_id\":\"m\",\"body\":\"x\",\"content_type\":\"" ID64 "x\"",
          FAULT_INVALID, false },
        { "\"send\",\"chat\":\"c\",\"client_msg_id\":\"m\",\"body\":\"x\",\"content_type\":\"a\\n\"", FAULT_INVALID,
          false },
        { "\"send\",\"chat\":\"c\",\"client_msg_id\":\"m\",\"body\":\"x\",\"content_type\":\"\xc3\xa4\"", FAULT_INVALID,
          false },
        { "\"send\",\"chat\":\"c\",\"client_msg_id\":\"m\",\"attachments\":[" TEN ",{\"ref\":\"r\"}]", FAULT_INVALID,
          false },
        { "\"send\",\"chat\":\"c\",\"client_msg_id\":\"m\",\"attachments\":[{}]", FAULT_INVALID, false },
        { "\"send\",\"chat\":\"c\",\"client_msg_id\":\"m\",\"attachments\":[{\"ref\":\"r\",\"name\":\"a\\u0007\"}]",
          FAULT_INVALID, false },
        { "\"send\",\"chat\":\"c\",\"client_msg_id\":\"m\",\"attachments\":[{\"ref\":\"r\",\"content_type\":\"" ID64
          "x\"}]",
          FAULT_INVALID, false },
        { "\"send\",\"chat\":\"c\",\"client_msg_id\":\"m\",\"body\":\"a\\u0000b\"", FAULT_MALFORMED, true },
        { "\"send\",\"chat\":\"c\",\"client_msg_id\":\"m\",\"body\":\"\\ud800\"", FAULT_MALFORMED, true },
        { "\"send\",\"chat\":\"c\",\"client_msg_id\":\"m\",\"body\":7", FAULT_MALFORMED, false },
        { "\"read\",\"chat\":\"c\"", FAULT_INVALID, false },
        { "\"read\",\"seq\":1", FAULT_INVALID, false },
        { "\"history\"", FAULT_INVALID, false },
        { "\"history\",\"chat\":\"c\",\"before\":1,\"after\":1", FAULT_INVALID, false },
        { "\"history\",\"chat\":\"c\",\"before\":1,\"around\":1", FAULT_INVALID, false },
        { "\"history\",\"chat\":\"c\",\"after\":1,\"from_start\":true", FAULT_INVALID, false },
        { "\"history\",\"chat\":\"c\",\"limit\":201", FAULT_INVALID, false },
        { "\"chats\",\"limit\":101", FAULT_INVALID, false },
        { "\"members\",\"chat\":\"c\",\"limit\":201", FAULT_INVALID, false },
        { "\"members\",\"chat\":\"c\",\"after\":\"a b\"", FAULT_INVALID, false },
        { "\"members\"", FAULT_INVALID, false },
        { "\"chat.create\"", FAULT_INVALID, false },
        { "\"chat.create\",\"client_msg_id\":\"m\",\"members\":[\"\"]", FAULT_INVALID, false },
        { "\"chat.create\",\"client_msg_id\":\"m\",\"members\":[\"a/b\"]", FAULT_INVALID, false },
        { "\"chat.create\",\"client_msg_id\":\"m\",\"name\":\"a\\nb\"", FAULT_INVALID, false },
        { "\"chat.create\",\"client_msg_id\":\"m\",\"name\":\"" ID64 ID64 "x\"", FAULT_INVALID, false },
        { "\"chat.create\",\"client_msg_id\":\"m\",\"kind\":\"direct\"", FAULT_INVALID, false },
        { "\"chat.create\",\"client_msg_id\":\"m\",\"kind\":\"direct\",\"members\":[\"a\",\"b\"]", FAULT_INVALID,
          false },
        { "\"chat.create\",\"client_msg_id\":\"m\",\"kind\":\"direct\",\"members\":[\"a\"],\"name\":\"x\"",
          FAULT_INVALID, false },
        { "\"chat.create\",\"client_msg_id\":\"m\",\"kind\":\"channel\"", FAULT_MALFORMED, false },
        { "\"chat.update\",\"chat\":\"c\",\"client_msg_id\":\"m\"", FAULT_INVALID, false },
        { "\"chat.update\",\"chat\":\"c\",\"name\":\"n\"", FAULT_INVALID, false },
        { "\"chat.add\",\"chat\":\"c\",\"client_msg_id\":\"m\"", FAULT_INVALID, false },
        { "\"chat.add\",\"chat\":\"c\",\"client_msg_id\":\"m\",\"members\":[\"a b\"]", FAULT_INVALID, false },
        { "\"chat.remove\",\"client_msg_id\":\"m\",\"members\":[\"a\"]", FAULT_INVALID, false },
        { "\"chat.leave\",\"chat\":\"c\"", FAULT_INVALID, false },
        { "\"profile\"", FAULT_INVALID, false },
        { "\"profile\",\"name\":\"" ID64 "x\"", FAULT_INVALID, false },
        { "\"profile\",\"name\":\"a\\u0085\"", FAULT_INVALID, false },
        { "\"ack\",\"inbox_seq\":11", FAULT_ACK_BEYOND, false },
        { "\"typing\"", FAULT_UNKNOWN_TYPE, false },
        { "\"hello\",\"device\":\"phone\"", FAULT_HELLO_TWICE, false },
    };
    world *w = *state;
    edge_session_id id = login(w);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        says(w, id, "{\"id\":77,\"type\":%s}", rows[i].line);
        print_message("%s\n", rows[i].line);
        assert_error(w, id, rows[i].no_id ? 0 : 77, rows[i].fault);
        assert_int_equal(w->close_code, 0);
        turn(w);
        quiet(w);
        says(w, id, "{\"type\":\"state\",\"id\":78}");
        assert_string_equal(hears(w, id), "{\"type\":\"done\",\"id\":78}\n");
        later(w, 100);
    }
    assert_int_equal(stat(w, "parley_edge_errors_total"), sizeof rows / sizeof *rows);
    assert_int_equal(stat(w, "parley_edge_requests_total"), 0);
    /* without an id there would be nothing to answer to */
    static const char *kinds[] = { "send",        "read",     "history",     "chats",      "members", "chat.create",
                                   "chat.update", "chat.add", "chat.remove", "chat.leave", "refresh", "profile" };
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        says(w, id, "{\"type\":\"%s\"}", kinds[i]);
        assert_error(w, id, 0, FAULT_INVALID);
    }
    quiet(w);
}

#define ATTACHED                                                                                                       \
    "{\"type\":\"send\",\"id\":1,\"to\":\"bob\",\"client_msg_id\":\"m\",\"attachments\":[{\"ref\":\"%s\",\"name\":\"%" \
    "s\"}]}"

/* REF_MAX and FILE_NAME_MAX of edge/uplink.c. */
static void attachments_are_bounded(void **state)
{
    world *w = *state;
    edge_session_id id = login(w);
    char ref[1024 + 2];
    char name[255 + 2];
    for (size_t over = 0; over < 3; over++) {
        memset(ref, 'r', sizeof ref);
        memset(name, 'n', sizeof name);
        ref[1024 + (over == 1)] = '\0';
        name[255 + (over == 2)] = '\0';
        says(w, id, ATTACHED, ref, name);
        if (over == 0) {
            Mesh__Attachment *a = only(w, ROUTER1, MESH__MSG__BODY_SEND)->send->attachments[0];
            assert_true(strlen(a->ref) == 1024 && strlen(a->name) == 255);
        } else {
            assert_error(w, id, 1, FAULT_INVALID);
            quiet(w);
        }
    }
}

static void good_at_the_limits(void **state)
{
    world *w = *state;
    edge_session_id id = login(w);
    says(w, id,
         "{\"type\":\"send\",\"id\":1,\"to\":\"" ID64 "\",\"client_msg_id\":\"" ID64 "\",\"content_type\":\"" ID64
         "\",\"attachments\":[" TEN "]}");
    assert_int_equal(only(w, ROUTER1, MESH__MSG__BODY_SEND)->send->body.len, 0);
    says(w, id, "{\"type\":\"chat.create\",\"id\":1,\"client_msg_id\":\"m\",\"name\":\"" ID64 ID64 "\"}");
    assert_int_equal(only(w, ROUTER1, MESH__MSG__BODY_CHAT_CREATE)->chat_create->n_members, 0);
    says(w, id, "{\"type\":\"profile\",\"id\":1,\"name\":\"" ID64 "\"}");
    only(w, ROUTER1, MESH__MSG__BODY_PROFILE);
}

static void text_is_counted_in_code_points(void **state)
{
    world *w = *state;
    edge_session_id id = login(w);
    char *body = mesh_alloc(4 * (EDGE_TEXT_MAX + 1) + 1);
    for (size_t i = 0; i < EDGE_TEXT_MAX; i++) {
        memcpy(body + 4 * i, "\xf0\x9f\x98\x80", 4);
    }
    says(w, id, "{\"type\":\"send\",\"id\":1,\"chat\":\"c\",\"client_msg_id\":\"m\",\"body\":\"%s\"}", body);
    assert_int_equal(only(w, ROUTER1, MESH__MSG__BODY_SEND)->send->body.len, 4 * EDGE_TEXT_MAX);
    strcat(body, "x");
    says(w, id, "{\"type\":\"send\",\"id\":2,\"chat\":\"c\",\"client_msg_id\":\"m\",\"body\":\"%s\"}", body);
    assert_error(w, id, 2, FAULT_TEXT_TOO_LONG);
    quiet(w);
    free(body);
}

static void members_are_bounded(void **state)
{
    world *w = *state;
    edge_session_id id = login(w);
    for (int n = 999; n <= 1000; n++) {
        mesh_buf list = { 0 };
        for (int i = 0; i < n; i++) {
            mesh_buf_printf(&list, "%s\"u%d\"", i == 0 ? "" : ",", i);
        }
        mesh_buf_put(&list, "", 1);
        static const char *kinds[] = { "chat.create", "chat.add", "chat.remove" };
        for (size_t i = 0; i < 3; i++) {
            says(w, id, "{\"type\":\"%s\",\"id\":1,\"chat\":\"c\",\"client_msg_id\":\"m\",\"members\":[%s]}", kinds[i],
                 (char *)list.data);
            if (n == 999) {
                assert_int_equal(collect(w), 1);
            } else {
                assert_error(w, id, 1, FAULT_TOO_MANY_MEMBERS);
                quiet(w);
            }
        }
        mesh_buf_fini(&list);
    }
}

static void frames_of_a_message_are_bounded(void **state)
{
    world *w = *state;
    edge_session_id id = login(w);
    mesh_buf many = { 0 };
    for (int i = 0; i < 300; i++) {
        mesh_buf_puts(&many, "{\"type\":\"state\"}\n");
    }
    edge_core_input(w->core, id, mesh_buf_slice(&many), w->now, w->out);
    mesh_buf_fini(&many);
    assert_error(w, id, 0, FAULT_MALFORMED); /* one for all that was not read */
    says(w, id, "{\"type\":\"state\",\"id\":1}");
    assert_string_equal(hears(w, id), "{\"type\":\"done\",\"id\":1}\n");
}

/* ---- limits in time ---- */

static void a_burst_and_then_the_rate(void **state)
{
    world *w = *state;
    edge_session_id id = login(w); /* one */
    for (int i = 0; i < 499; i++) {
        says(w, id, i % 2 == 0 ? "{\"type\":\"state\"}" : "rubbish"); /* what cannot be read counts as well */
    }
    hears(w, id);
    says(w, id, "{\"type\":\"send\",\"id\":3,\"to\":\"bob\",\"client_msg_id\":\"m\",\"body\":\"x\"}");
    assert_non_null(strstr(hears(w, id), "{\"type\":\"error\",\"id\":3,\"code\":400,\"name\":\"rate_limited\","));
    assert_non_null(strstr((char *)w->heard.data, "\"retry\":\"same\",\"after_ms\":10}"));
    quiet(w);
    later(w, 10); /* 100 a second */
    says(w, id, "{\"type\":\"state\",\"id\":4}");
    assert_string_equal(hears(w, id), "{\"type\":\"done\",\"id\":4}\n");
    says(w, id, "{\"type\":\"state\",\"id\":5}");
    assert_error(w, id, 5, FAULT_RATE_LIMITED);
    later(w, 10);
    for (int i = 0; i < 10; i++) { /* acks cost a tenth */
        says(w, id, "{\"type\":\"ack\",\"inbox_seq\":10}");
        assert_string_equal(hears(w, id), "");
    }
    says(w, id, "{\"type\":\"ack\",\"id\":6,\"inbox_seq\":10}");
    assert_error(w, id, 6, FAULT_RATE_LIMITED);
    later(w, 20000); /* full again, and no fuller */
    for (int i = 0; i < 500; i++) {
        says(w, id, "{\"type\":\"state\"}");
    }
    assert_string_equal(hears(w, id), "");
    says(w, id, "{\"type\":\"state\"}");
    assert_error(w, id, 0, FAULT_RATE_LIMITED);
}

static void a_flood_is_closed(void **state)
{
    world *w = *state;
    edge_session_id id = login(w);
    for (int i = 0; i < 499 + 1000; i++) {
        says(w, id, "{\"type\":\"state\"}");
        hears(w, id);
        assert_int_equal(w->close_code, 0);
    }
    says(w, id, "{\"type\":\"state\"}\n{\"type\":\"state\"}");
    assert_error(w, id, 0, FAULT_RATE_LIMITED);
    assert_int_equal(w->close_code, 4103);
    assert_int_equal(stat(w, "parley_edge_limited_total"), 1001);
}

/* Frames in ms of a steady stream of so many times the rate; 0: not closed within a minute. */
static mesh_ms flood(world *w, const char *device, unsigned times)
{
    edge_session_id id = login_at(w, EDGE_JSON, device, 10);
    mesh_ms start = w->now.mono;
    while (w->now.mono < start + 60000) {
        later(w, 10); /* 100 a second is one */
        heads(w, ROUTER1, id, 10);
        for (unsigned i = 0; i < times; i++) {
            says(w, id, "{\"type\":\"state\"}");
        }
        hears(w, id);
        if (w->close_code != 0) {
            assert_int_equal(w->close_code, 4103);
            return w->now.mono - start;
        }
    }
    edge_core_closed(w->core, id, w->now, w->out);
    only(w, ROUTER1, MESH__MSG__BODY_DETACH);
    return 0;
}

static void a_steady_flood_is_closed(void **state)
{
    world *w = *state;
    assert_in_range(flood(w, "b", 5), 4000, 5000); /* the burst of 500 at 4 over, then 1,000 refusals at 3 over */
    assert_in_range(flood(w, "c", 10), 1500, 2000);
    assert_in_range(flood(w, "d", 100), 100, 200);
    assert_int_equal(flood(w, "e", 2), 0); /* refused half of the time, but as much is forgiven */
    assert_int_equal(flood(w, "f", 1), 0);
    assert_int_equal(stat(w, "parley_edge_closed_total{node=\"edge1\",reason=\"flood\"}"), 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        WORLD(bad_requests),
        WORLD(attachments_are_bounded),
        WORLD(good_at_the_limits),
        WORLD(text_is_counted_in_code_points),
        WORLD(members_are_bounded),
        WORLD(frames_of_a_message_are_bounded),
        WORLD(a_burst_and_then_the_rate),
        WORLD(a_flood_is_closed),
        WORLD(a_steady_flood_is_closed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
