/* Requests of the edge core on their way: when no answer comes, or a wrong one, and how one is followed in the log. */
#include "capture.h"
#include "edge_world.h"

static void open_requests_are_bounded(void **state)
{
    world *w = *state;
    edge_session_id id = login(w);
    for (int i = 0; i < EDGE_REQUESTS_MAX; i++) {
        says(w, id, "{\"type\":\"chats\",\"id\":1}");
    }
    assert_int_equal(collect(w), EDGE_REQUESTS_MAX);
    uint64_t corr = w->sent[0].msg->corr;
    says(w, id, "{\"type\":\"chats\",\"id\":2}");
    assert_error(w, id, 2, FAULT_BUSY);
    quiet(w);
    fault(w, ROUTER1, corr, FAULT_NOT_LEADER); /* internal: shown as unavailable */
    assert_error(w, id, 1, FAULT_UNAVAILABLE);
    says(w, id, "{\"type\":\"chats\",\"id\":3}");
    only(w, ROUTER1, MESH__MSG__BODY_CHATS);
}

static void no_answer_in_time(void **state)
{
    world *w = *state;
    edge_session_id id = login(w);
    says(w, id, "{\"type\":\"chats\",\"id\":1}");
    uint64_t corr = only(w, ROUTER1, MESH__MSG__BODY_CHATS)->corr;
    mesh_ms next = later(w, 4000);
    assert_true(next <= w->now.mono + 1000);
    assert_string_equal(hears(w, id), "");
    says(w, id, "{\"type\":\"chats\",\"id\":2}");
    collect(w);
    later(w, 1000);
    assert_error(w, id, 1, FAULT_UNAVAILABLE);
    fault(w, ROUTER1, corr, FAULT_NOT_FOUND); /* too late */
    assert_string_equal(hears(w, id), "");
    later(w, 4000);
    assert_error(w, id, 2, FAULT_UNAVAILABLE);
    assert_int_equal(stat(w, "parley_edge_requests_waiting"), 0);
}

static void a_lost_router_answers_at_once(void **state)
{
    world *w = *state;
    edge_session_id id = login(w);
    for (int i = 1; i <= 3; i++) {
        says(w, id, "{\"type\":\"chats\",\"id\":%d}", i);
    }
    collect(w);
    edge_core_down(w->core, ROUTER2, w->now, w->out); /* another one */
    assert_string_equal(hears(w, id), "");
    edge_core_down(w->core, ROUTER1, w->now, w->out);
    const char *heard = hears(w, id);
    for (int i = 1; i <= 3; i++) {
        char want[64];
        snprintf(want, sizeof want, "\"id\":%d,\"code\":402", i);
        assert_non_null(strstr(heard, want));
    }
    assert_int_equal(stat(w, "parley_edge_requests_lost_total"), 3);
    says(w, id, "{\"type\":\"chats\",\"id\":4}"); /* nobody to ask */
    assert_error(w, id, 4, FAULT_UNAVAILABLE);
    quiet(w);
}

static void a_router_that_leaves_the_ring(void **state)
{
    world *w = *state;
    edge_session_id id = login(w);
    edge_core_up(w->core, ROUTER2, 102, w->now, w->out);
    says(w, id, "{\"type\":\"chats\",\"id\":1}");
    collect(w);
    set_ring(w, true, true);
    assert_string_equal(hears(w, id), ""); /* still there */
    set_ring(w, false, true);
    assert_error(w, id, 1, FAULT_UNAVAILABLE);
    says(w, id, "{\"type\":\"chats\",\"id\":2}");
    collect(w);
    assert_int_equal(w->sent[0].to, ROUTER2);
}

static void a_closed_session_hears_no_answers(void **state)
{
    world *w = *state;
    edge_session_id id = login(w);
    says(w, id, "{\"type\":\"chats\",\"id\":1}");
    uint64_t corr = only(w, ROUTER1, MESH__MSG__BODY_CHATS)->corr;
    edge_core_closed(w->core, id, w->now, w->out);
    collect(w);
    fault(w, ROUTER1, corr, FAULT_NOT_FOUND);
    later(w, 10000);
    edge_core_down(w->core, ROUTER1, w->now, w->out);
    assert_int_equal(stat(w, "parley_edge_late_answers_total"), 1);
    assert_int_equal(stat(w, "parley_edge_requests_waiting"), 0);
    quiet(w);
}

static void an_answer_of_another_kind(void **state)
{
    world *w = *state;
    edge_session_id id = login(w);
    says(w, id, "{\"type\":\"chats\",\"id\":1}");
    uint64_t corr = only(w, ROUTER1, MESH__MSG__BODY_CHATS)->corr;
    done(w, corr);
    assert_string_equal(hears(w, id), "");
    fault(w, ROUTER2, corr, FAULT_NOT_FOUND); /* not who was asked */
    assert_string_equal(hears(w, id), "");
    assert_int_equal(stat(w, "parley_edge_mesh_malformed_total"), 2);
    fault(w, ROUTER1, corr, FAULT_NOT_FOUND);
    assert_error(w, id, 1, FAULT_NOT_FOUND);
}

static void a_trace_can_be_followed(void **state)
{
    world *w = *state;
    static char log[60000];
    char line[256];
    capture c;
    mesh_log_setup("edge1", MESH_DEBUG);
    capture_start(&c);
    edge_session_id id = login(w);
    says(w, id, "{\"type\":\"chats\",\"id\":1}");
    Mesh__Msg *ask = only(w, ROUTER1, MESH__MSG__BODY_CHATS);
    uint64_t trace = ask->trace;
    fault(w, ROUTER1, ask->corr, FAULT_BUSY);
    edge_core_closed(w->core, id, w->now, w->out);
    (void)capture_stop(&c, log, sizeof log);
    mesh_log_level(MESH_WARN);
    snprintf(line, sizeof line,
             " level=debug node=edge1 event=request trace=%016llx type=chats session=%016llx user=default/alice "
             "key=default/alice to=router1\n",
             (unsigned long long)trace, (unsigned long long)id);
    assert_non_null(strstr(log, line));
    snprintf(line, sizeof line, " event=answer trace=%016llx type=fault fault=busy session=%016llx\n",
             (unsigned long long)trace, (unsigned long long)id);
    assert_non_null(strstr(log, line));
    snprintf(line, sizeof line,
             " level=info node=edge1 event=session_started session=%016llx user=default/alice device=phone",
             (unsigned long long)id);
    assert_non_null(strstr(log, line));
    snprintf(line, sizeof line,
             " level=info node=edge1 event=session_ended session=%016llx user=default/alice device=phone "
             "reason=left ms=0\n",
             (unsigned long long)id);
    assert_non_null(strstr(log, line));
    assert_null(strstr(log, w->token));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        WORLD(a_trace_can_be_followed),
        WORLD(open_requests_are_bounded),
        WORLD(no_answer_in_time),
        WORLD(a_lost_router_answers_at_once),
        WORLD(a_router_that_leaves_the_ring),
        WORLD(a_closed_session_hears_no_answers),
        WORLD(an_answer_of_another_kind),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
