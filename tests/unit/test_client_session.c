/* The client's pure half against a server made of hand-written events. */
#include "tests/unit/client_rig.h"

static void on_message(void *arg, const Client__Message *m)
{
    tell(arg, "%s/%llu ", m->chat, (unsigned long long)m->seq);
}

static void on_resync(void *arg, const Client__Resync *r)
{
    tell(arg, "resync@%llu ", (unsigned long long)r->inbox_seq);
}

static void on_answer(void *arg, uint64_t id, const Client__Event *event)
{
    fixture *f = arg;
    f->answered = id;
    f->answer_code = event->body_case == CLIENT__EVENT__BODY_ERROR ? event->error->code : 0;
    tell(f, "answer%llu ", (unsigned long long)id);
}

static const client_handler handler = { .message = on_message, .resync = on_resync, .answer = on_answer };

/* ---- the server's side ---- */

static void message(fixture *f, uint64_t inbox_seq, const char *chat, uint64_t seq)
{
    Client__Message m = CLIENT__MESSAGE__INIT;
    m.era = ERA;
    m.inbox_seq = inbox_seq;
    m.chat = (char *)chat;
    m.seq = seq;
    m.kind = CLIENT__ENTRY_KIND__ENTRY_KIND_TEXT;
    Client__Event e = CLIENT__EVENT__INIT;
    e.body_case = CLIENT__EVENT__BODY_MESSAGE;
    e.message = &m;
    input(f, &e);
}

static void resync(fixture *f, uint64_t era, uint64_t inbox_seq)
{
    Client__Resync r = CLIENT__RESYNC__INIT;
    r.era = era;
    r.inbox_seq = inbox_seq;
    Client__Event e = CLIENT__EVENT__INIT;
    e.body_case = CLIENT__EVENT__BODY_RESYNC;
    e.resync = &r;
    input(f, &e);
}

static void error(fixture *f, uint64_t id, uint32_t code, Client__Retry retry, uint32_t after_ms)
{
    Client__Error error = CLIENT__ERROR__INIT;
    error.code = code;
    error.retry = retry;
    error.after_ms = after_ms;
    error.message = (char *)"no";
    Client__Event e = CLIENT__EVENT__INIT;
    e.id = id;
    e.body_case = CLIENT__EVENT__BODY_ERROR;
    e.error = &error;
    input(f, &e);
}

static void sent(fixture *f, uint64_t id)
{
    Client__Sent sent = CLIENT__SENT__INIT;
    sent.state = CLIENT__SENT_STATE__SENT_STATE_SENT;
    Client__Event e = CLIENT__EVENT__INIT;
    e.id = id;
    e.body_case = CLIENT__EVENT__BODY_ACK;
    e.ack = &sent;
    input(f, &e);
}

static void pong(fixture *f, uint64_t id, uint64_t head)
{
    Client__Pong pong = CLIENT__PONG__INIT;
    pong.inbox_head = head;
    Client__Event e = CLIENT__EVENT__INIT;
    e.id = id;
    e.body_case = CLIENT__EVENT__BODY_PONG;
    e.pong = &pong;
    input(f, &e);
}

/* Pass time until the session wants what. */
static void wait_for(fixture *f, client_want what, mesh_ms limit)
{
    for (mesh_ms end = f->now + limit; f->now <= end; f->now++) {
        client_session_turn(f->s, f->now);
        if (client_session_want(f->s, f->now) == what) {
            return;
        }
    }
    fail_msg("the session did not want %d within %lld ms", (int)what, (long long)limit);
}

static void hang_up(fixture *f)
{
    assert_int_equal(client_session_want(f->s, f->now), CLIENT_WANT_CLOSE);
    client_session_closed(f->s, 0, f->now);
}

static void start(fixture *f, bool in_order)
{
    client_session_conf conf = { .token = "t", .device = "d", .seed = 5, .in_order = in_order };
    f->now = 1000;
    f->s = client_session_new(&conf, &handler, f, f->now);
    f->arena = mesh_arena_new();
    f->parsed = mesh_arena_new();
}

static int setup(void **state)
{
    fixture *f = calloc(1, sizeof *f);
    start(f, false);
    *state = f;
    return 0;
}

static int setup_in_order(void **state)
{
    fixture *f = calloc(1, sizeof *f);
    start(f, true);
    *state = f;
    return 0;
}

/* ---- tests ---- */

static void hello_carries_the_cursor(void **state)
{
    fixture *f = *state;
    dial(f);
    assert_null(f->requests[0]->hello->cursor);
    assert_string_equal(f->requests[0]->hello->device, "d");
    welcome(f);
    resync(f, ERA, 10);
    message(f, 11, "a", 1);
    told(f, "resync@10 a/1 ");
    client_session_closed(f->s, 0, f->now);
    wait_for(f, CLIENT_WANT_CONNECT, CLIENT_BACKOFF_CAP_MS);
    dial(f);
    assert_non_null(f->requests[0]->hello->cursor);
    assert_int_equal(f->requests[0]->hello->cursor->era, ERA);
    assert_int_equal(f->requests[0]->hello->cursor->inbox_seq, 11);
}

static uint64_t hello_number(fixture *f)
{
    dial(f);
    uint64_t attempt = f->requests[0]->hello->attempt;
    assert_int_equal(client_session_attempt(f->s), attempt);
    return attempt;
}

static void hellos_are_numbered_by_the_clock_and_always_higher(void **state)
{
    fixture *f = *state;
    assert_int_equal(hello_number(f), 0); /* nobody asked for numbers */
    client_session_destroy(&f->s);
    client_session_conf conf = { .token = "t", .device = "d", .seed = 5, .attempt = 5000 };
    f->s = client_session_new(&conf, &handler, f, f->now);
    assert_int_equal(client_session_attempt(f->s), 0);
    assert_int_equal(hello_number(f), 5000);
    for (uint64_t n = 5001; n < 5004; n++) { /* the same millisecond */
        client_session_closed(f->s, 0, f->now);
        client_session_connecting(f->s, f->now);
        client_session_opened(f->s, f->now);
        assert_int_equal(client_session_attempt(f->s), n);
    }
    client_session_closed(f->s, 0, f->now);
    f->now = 61000;
    assert_int_equal(hello_number(f), 65000);
}

static void entries_are_told_once(void **state)
{
    fixture *f = *state;
    come_live(f);
    resync(f, ERA, 0);
    message(f, 1, "a", 1);
    message(f, 1, "a", 1);
    message(f, 2, "b", 1);
    message(f, 1, "a", 1);
    message(f, 3, "a", 1); /* the same chat entry under another number */
    message(f, 4, "a", 2);
    told(f, "resync@0 a/1 b/1 a/2 ");
    assert_int_equal(client_session_counts(f->s)->duplicates, 3);
    assert_int_equal(client_session_cursor(f->s).inbox_seq, 4);
    assert_int_equal(client_session_state(f->s), CLIENT_READY);
}

static void a_hole_reconnects_with_the_cursor(void **state)
{
    fixture *f = *state;
    come_live(f);
    resync(f, ERA, 0);
    message(f, 1, "a", 1);
    message(f, 3, "a", 3);
    told(f, "resync@0 a/1 ");
    assert_int_equal(client_session_counts(f->s)->gaps, 1);
    hang_up(f);
    come_live(f);
    message(f, 2, "a", 2);
    message(f, 3, "a", 3);
    told(f, "a/2 a/3 ");
}

static void nothing_is_taken_before_a_cursor(void **state)
{
    fixture *f = *state;
    come_live(f);
    message(f, 1, "a", 1);
    told(f, "");
    hang_up(f);
    assert_false(client_session_cursor(f->s).known);
}

static void another_era_is_a_hole(void **state)
{
    fixture *f = *state;
    come_live(f);
    resync(f, ERA + 1, 0);
    message(f, 1, "a", 1);
    told(f, "resync@0 ");
    hang_up(f);
    come_live(f);
    resync(f, ERA, 5);
    message(f, 6, "a", 1); /* seqs start again in another era */
    told(f, "resync@5 a/1 ");
}

static void acks_are_cumulative_and_few(void **state)
{
    fixture *f = *state;
    come_live(f);
    resync(f, ERA, 0);
    for (uint64_t i = 1; i <= CLIENT_ACK_ENTRIES + 1; i++) {
        message(f, i, "a", i);
    }
    take(f);
    assert_int_equal(f->n_requests, 1);
    assert_int_equal(f->requests[0]->body_case, CLIENT__REQUEST__BODY_ACK);
    assert_int_equal(f->requests[0]->ack->inbox_seq, CLIENT_ACK_ENTRIES);
    assert_int_equal(f->requests[0]->id, 0);
    assert_int_equal(client_session_turn(f->s, f->now), f->now + CLIENT_ACK_MS);
    f->now += CLIENT_ACK_MS;
    client_session_turn(f->s, f->now);
    take(f);
    assert_int_equal(f->n_requests, 1);
    assert_int_equal(f->requests[0]->ack->inbox_seq, CLIENT_ACK_ENTRIES + 1);
    client_session_turn(f->s, f->now + 10 * CLIENT_ACK_MS);
    take(f);
    assert_int_equal(f->n_requests, 0);
}

static void an_unanswered_send_is_repeated_unchanged(void **state)
{
    fixture *f = *state;
    uint64_t id;
    come_live(f);
    assert_int_equal(client_session_send(f->s, "a", NULL, NULL, "hello", &id), MESH_OK);
    take(f);
    assert_int_equal(f->n_requests, 1);
    char msg_id[65];
    snprintf(msg_id, sizeof msg_id, "%s", f->requests[0]->send->client_msg_id);
    client_session_closed(f->s, 1006, f->now);
    wait_for(f, CLIENT_WANT_CONNECT, CLIENT_BACKOFF_CAP_MS);
    come_live(f);
    take(f);
    assert_int_equal(f->n_requests, 1);
    assert_int_equal(f->requests[0]->id, id);
    assert_string_equal(f->requests[0]->send->client_msg_id, msg_id);
    assert_string_equal(f->requests[0]->send->body, "hello");
    sent(f, id);
    sent(f, id); /* both tries were answered */
    assert_int_equal(client_session_waiting(f->s), 0);
    char want[32];
    snprintf(want, sizeof want, "answer%llu ", (unsigned long long)id);
    told(f, want);
}

static void a_retryable_error_is_repeated_after_its_time(void **state)
{
    fixture *f = *state;
    uint64_t id;
    come_live(f);
    assert_int_equal(client_session_send(f->s, "a", NULL, NULL, "x", &id), MESH_OK);
    take(f);
    error(f, id, FAULT_BUSY, CLIENT__RETRY__RETRY_SAME, 1000);
    mesh_ms due = client_session_turn(f->s, f->now);
    assert_in_range(due, f->now + 1000, f->now + 1500);
    client_session_turn(f->s, due - 1);
    take(f);
    assert_int_equal(f->n_requests, 0);
    f->now = due;
    client_session_turn(f->s, f->now);
    take(f);
    assert_int_equal(f->n_requests, 1);
    assert_int_equal(f->requests[0]->id, id);
    told(f, "");
    error(f, id, FAULT_DENIED, CLIENT__RETRY__RETRY_NO, 0);
    assert_int_equal(f->answered, id);
    assert_int_equal(f->answer_code, FAULT_DENIED);
    assert_int_equal(client_session_waiting(f->s), 0);
}

static void in_order_sends_wait_for_each_other(void **state)
{
    fixture *f = *state;
    uint64_t first, second, third;
    come_live(f);
    assert_int_equal(client_session_send(f->s, "a", NULL, NULL, "1", &first), MESH_OK);
    assert_int_equal(client_session_send(f->s, "a", NULL, NULL, "2", &second), MESH_OK);
    Client__History history = CLIENT__HISTORY__INIT;
    Client__Request request = CLIENT__REQUEST__INIT;
    request.body_case = CLIENT__REQUEST__BODY_HISTORY;
    request.history = &history;
    assert_int_equal(client_session_request(f->s, &request, &third), MESH_OK);
    take(f);
    assert_int_equal(f->n_requests, 2); /* the first send, and the reading that may pass */
    assert_int_equal(f->requests[0]->id, first);
    assert_int_equal(f->requests[1]->id, third);
    error(f, first, FAULT_BUSY, CLIENT__RETRY__RETRY_SAME, 100);
    take(f);
    assert_int_equal(f->n_requests, 0); /* the second does not overtake the delayed first */
    f->now = client_session_turn(f->s, f->now);
    client_session_turn(f->s, f->now);
    take(f);
    assert_int_equal(f->n_requests, 1);
    assert_int_equal(f->requests[0]->id, first);
    sent(f, first);
    take(f);
    assert_int_equal(f->n_requests, 1);
    assert_int_equal(f->requests[0]->id, second);
}

static void the_window_is_bounded(void **state)
{
    fixture *f = *state;
    come_live(f);
    uint64_t id = 0, first = 0;
    for (int i = 0; i < CLIENT_REQUESTS_MAX; i++) {
        assert_int_equal(client_session_send(f->s, "a", NULL, NULL, "x", &id), MESH_OK);
        first = first ? first : id;
    }
    assert_int_equal(client_session_send(f->s, "a", NULL, NULL, "x", &id), MESH_FULL);
    take(f);
    assert_int_equal(f->n_requests, CLIENT_WINDOW);
    sent(f, first);
    take(f);
    assert_int_equal(f->n_requests, 1);
    assert_int_equal(f->requests[0]->id, first + CLIENT_WINDOW);
}

static void backoff_is_jittered_and_capped(void **state)
{
    fixture *f = *state;
    mesh_ms most = 0;
    for (int i = 0; i < 200; i++) {
        client_session_connecting(f->s, f->now);
        client_session_closed(f->s, 0, f->now);
        mesh_ms at = client_session_turn(f->s, f->now);
        mesh_ms limit = CLIENT_BACKOFF_BASE_MS << (i < 10 ? i : 10);
        limit = limit < CLIENT_BACKOFF_CAP_MS ? limit : CLIENT_BACKOFF_CAP_MS;
        assert_in_range(at, f->now, f->now + limit);
        most = at - f->now > most ? at - f->now : most;
        f->now = at;
    }
    assert_in_range(most, CLIENT_BACKOFF_CAP_MS * 9 / 10, CLIENT_BACKOFF_CAP_MS);
}

static void reconnect_is_spread_as_told(void **state)
{
    fixture *f = *state;
    come_live(f);
    Client__Reconnect r = CLIENT__RECONNECT__INIT;
    r.after_ms = 1000;
    r.jitter_ms = 4000;
    Client__Event e = CLIENT__EVENT__INIT;
    e.body_case = CLIENT__EVENT__BODY_RECONNECT;
    e.reconnect = &r;
    input(f, &e);
    mesh_ms begin = f->now;
    assert_int_equal(client_session_want(f->s, f->now), CLIENT_WANT_NOTHING);
    wait_for(f, CLIENT_WANT_CLOSE, 5000);
    assert_in_range(f->now, begin + 1000, begin + 5000);
    hang_up(f);
    assert_int_equal(client_session_want(f->s, f->now), CLIENT_WANT_CONNECT);
}

static void a_lost_last_entry_shows_in_pong(void **state)
{
    fixture *f = *state;
    come_live(f);
    resync(f, ERA, 3);
    f->now += 30000;
    client_session_turn(f->s, f->now);
    take(f);
    assert_int_equal(f->requests[0]->body_case, CLIENT__REQUEST__BODY_PING);
    pong(f, f->requests[0]->id, 4);
    assert_int_equal(client_session_state(f->s), CLIENT_READY); /* it may be on its way */
    f->now += CLIENT_SUSPECT_MS;
    client_session_turn(f->s, f->now);
    take(f);
    assert_int_equal(f->n_requests, 1);
    pong(f, f->requests[0]->id, 4);
    hang_up(f);
    assert_int_equal(client_session_counts(f->s)->gaps, 1);
}

static void progress_clears_the_suspicion(void **state)
{
    fixture *f = *state;
    come_live(f);
    resync(f, ERA, 3);
    f->now += 30000;
    client_session_turn(f->s, f->now);
    take(f);
    pong(f, f->requests[0]->id, 5);
    message(f, 4, "a", 1);
    f->now += CLIENT_SUSPECT_MS;
    client_session_turn(f->s, f->now);
    take(f);
    pong(f, f->requests[f->n_requests - 1]->id, 5);
    assert_int_equal(client_session_state(f->s), CLIENT_READY);
}

static void silence_ends_the_connection(void **state)
{
    fixture *f = *state;
    come_live(f);
    assert_int_equal(client_session_send(f->s, "a", NULL, NULL, "x", NULL), MESH_OK);
    take(f);
    mesh_ms begin = f->now;
    wait_for(f, CLIENT_WANT_CLOSE, 20000);
    assert_in_range(f->now, begin + CLIENT_STEP_MS, begin + CLIENT_STEP_MS + 1);
}

static void no_welcome_is_given_up(void **state)
{
    fixture *f = *state;
    dial(f);
    mesh_ms begin = f->now;
    wait_for(f, CLIENT_WANT_CLOSE, 20000);
    assert_in_range(f->now, begin + CLIENT_STEP_MS, begin + CLIENT_STEP_MS + 1);
}

static void verdicts_of_close_codes(void **state)
{
    fixture *f = *state;
    come_live(f);
    client_session_closed(f->s, 4200, f->now);
    assert_int_equal(client_session_state(f->s), CLIENT_WAITING);
    assert_in_range(client_session_turn(f->s, f->now), f->now, f->now + CLIENT_BACKOFF_BASE_MS);
    wait_for(f, CLIENT_WANT_CONNECT, CLIENT_BACKOFF_BASE_MS);
    come_live(f);
    client_session_closed(f->s, 4301, f->now);
    assert_int_equal(client_session_state(f->s), CLIENT_STOPPED);
    assert_int_equal(client_session_send(f->s, "a", NULL, NULL, "x", NULL), MESH_CLOSED);
    client_session_set_token(f->s, "new");
    dial(f);
    assert_string_equal(f->requests[0]->hello->token, "new");
    welcome(f);
    client_session_closed(f->s, 4004, f->now);
    assert_int_equal(client_session_state(f->s), CLIENT_STOPPED);
    assert_int_equal(client_session_turn(f->s, f->now), MESH_NEVER);
}

static void a_refused_token_stops(void **state)
{
    fixture *f = *state;
    dial(f);
    error(f, f->requests[0]->id, FAULT_UNAUTHORIZED, CLIENT__RETRY__RETRY_REAUTH, 0);
    hang_up(f);
    assert_int_equal(client_session_state(f->s), CLIENT_STOPPED);
    assert_int_equal(client_session_stop_code(f->s), FAULT_UNAUTHORIZED);
}

static void resync_error_forgets_the_cursor(void **state)
{
    fixture *f = *state;
    come_live(f);
    resync(f, ERA, 3);
    error(f, 0, FAULT_ACK_BEYOND, CLIENT__RETRY__RETRY_RESYNC, 0);
    hang_up(f);
    dial(f);
    assert_null(f->requests[0]->hello->cursor);
}

static void nonsense_ends_the_connection(void **state)
{
    static const uint8_t bad[][6] = { { 0xff, 0xff, 0xff, 0xff, 0xff, 0x01 },
                                      { 5, 1, 2, 0, 0, 0 },
                                      { 2, 0x0f, 0x0f, 0, 0, 0 } };
    static const size_t sizes[] = { 6, 3, 3 };
    fixture *f = *state;
    for (size_t i = 0; i < 3; i++) {
        wait_for(f, CLIENT_WANT_CONNECT, CLIENT_BACKOFF_CAP_MS);
        come_live(f);
        client_session_input(f->s, (mesh_slice){ bad[i], sizes[i] }, f->arena, f->now);
        hang_up(f);
        assert_int_equal(client_session_counts(f->s)->malformed, i + 1);
    }
}

static void messages_are_cut_for_the_edge(void **state)
{
    fixture *f = *state;
    mesh_buf out = { 0 };
    char *body = calloc(1, 100001);
    memset(body, 'x', 100000);
    come_live(f);
    for (int i = 0; i < 5; i++) {
        assert_int_equal(client_session_send(f->s, "a", NULL, NULL, body, NULL), MESH_OK);
    }
    size_t messages = 0;
    while (client_session_take(f->s, &out, f->now)) {
        assert_in_range(out.size, 100000, CLIENT_MESSAGE_BYTES);
        mesh_buf_clear(&out);
        messages++;
    }
    assert_int_equal(messages, 3); /* two in one */
    free(body);
    mesh_buf_fini(&out);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(hello_carries_the_cursor),
        T(hellos_are_numbered_by_the_clock_and_always_higher),
        T(entries_are_told_once),
        T(a_hole_reconnects_with_the_cursor),
        T(nothing_is_taken_before_a_cursor),
        T(another_era_is_a_hole),
        T(acks_are_cumulative_and_few),
        T(an_unanswered_send_is_repeated_unchanged),
        T(a_retryable_error_is_repeated_after_its_time),
        cmocka_unit_test_setup_teardown(in_order_sends_wait_for_each_other, setup_in_order, teardown),
        T(the_window_is_bounded),
        T(backoff_is_jittered_and_capped),
        T(reconnect_is_spread_as_told),
        T(a_lost_last_entry_shows_in_pong),
        T(progress_clears_the_suspicion),
        T(silence_ends_the_connection),
        T(no_welcome_is_given_up),
        T(verdicts_of_close_codes),
        T(a_refused_token_stops),
        T(resync_error_forgets_the_cursor),
        T(nonsense_ends_the_connection),
        T(messages_are_cut_for_the_edge),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
