/* Sessions: coming back, falling behind, losing an entry on the way, being replaced. */
#include "story.h"

#include "edge/close.h"

#include <stdlib.h>

static void talk(sim *s, sim_client *from, const char *to, int n)
{
    for (int i = 0; i < n; i++) {
        char text[32];
        snprintf(text, sizeof text, "line %d", i);
        sim_send(from, to, text);
        if (i % 10 == 9) {
            sim_run(s, 20);
        }
    }
}

STORY(offline_device_catches_up_on_another_edge)
{
    (void)state;
    sim *s = story_new(2, 2, 11);
    sim_client *ann = story_person(s, "ann", "phone", "edge1");
    sim_client *bob = story_person(s, "bob", "phone", "edge1");
    talk(s, ann, "bob", 5);
    WITHIN(s, 500, bob->n_got == 5);
    sim_bye(bob);
    sim_run(s, 100);
    talk(s, ann, "bob", 300);
    sim_run(s, 1000);
    assert_int_equal(bob->n_got, 5);
    sim_hello(bob, "edge2");
    WITHIN(s, 1000, sim_live(bob) && bob->n_got == 305);
    assert_int_equal(bob->resyncs, 1);
    story_end(&s);
}

STORY(lost_last_entry_is_healed_by_heads)
{
    (void)state;
    sim *s = story_new(1, 1, 12);
    sim_client *ann = story_person(s, "ann", "phone", "edge1");
    sim_client *bob = story_person(s, "bob", "phone", "edge1");
    sim_run(s, 100);
    sim_lose(s, "edge1", "router1", MESH__MSG__BODY_LIVE, 5);
    story_acked(s, sim_send(ann, "bob", "lost on its last way"), 500);
    sim_run(s, 100);
    assert_int_equal(bob->n_got, 0);
    sim_lose_none(s);
    WITHIN(s, 2 * ROUTER_HEADS_MS + 1000, bob->n_got == 1 && ann->n_got == 1);
    story_end(&s);
}

STORY(gap_at_the_edge_attaches_again)
{
    (void)state;
    sim *s = story_new(1, 1, 13);
    sim_client *ann = story_person(s, "ann", "phone", "edge1");
    sim_client *bob = story_person(s, "bob", "phone", "edge1");
    sim_run(s, 100);
    sim_lose(s, "edge1", "router1", MESH__MSG__BODY_LIVE, 1);
    story_acked(s, sim_send(ann, "bob", "one"), 500);
    sim_run(s, 100);
    assert_int_equal(bob->n_got, 0);
    sim_lose_none(s);
    story_acked(s, sim_send(ann, "bob", "two"), 500);
    WITHIN(s, 500, bob->n_got == 2);
    assert_string_equal(bob->got[0].message->body, "one");
    story_end(&s);
}

STORY(slow_device_is_paused_and_then_fed)
{
    (void)state;
    sim *s = story_new(2, 2, 14);
    sim_client *ann = story_person(s, "ann", "phone", "edge1");
    sim_client *slow = story_person(s, "bob", "phone", "edge2");
    sim_client *quick = story_person(s, "bob", "laptop", "edge1");
    sim_mute(slow, true);
    talk(s, ann, "bob", 400);
    WITHIN(s, 5000, quick->n_got == 400);
    sim_run(s, 15000);
    assert_int_equal(slow->n_got, ROUTER_CREDIT);
    assert_true(sim_live(slow));
    sim_mute(slow, false);
    WITHIN(s, 1000, slow->n_got == 400);
    story_end(&s);
}

/* More than its queue takes: what does not fit waits at the router, and comes when there is room. */
STORY(reader_that_stalls_gets_all_of_it)
{
    (void)state;
    sim *s = story_new(1, 1, 25);
    sim_client *ann = story_person(s, "ann", "phone", "edge1");
    sim_client *bob = story_person(s, "bob", "phone", "edge1");
    static char text[30001];
    memset(text, 'x', sizeof text - 1);
    sim_stall(bob, 6000);
    for (int i = 0; i < 100; i++) {
        sim_send(ann, "bob", text);
        sim_run(s, 10);
    }
    sim_run(s, 2000);
    assert_int_equal(bob->n_got, 0);
    assert_int_not_equal(story_edge_metric(s, "edge1", "parley_edge_starved_total"), 0);
    WITHIN(s, 5000, bob->n_got == 100);
    story_end(&s);
}

STORY(later_hello_wins)
{
    (void)state;
    sim *s = story_new(2, 2, 15);
    sim_client *ann = story_person(s, "ann", "phone", "edge1");
    sim_client *old = story_person(s, "bob", "phone", "edge1");
    talk(s, ann, "bob", 3);
    WITHIN(s, 500, old->n_got == 3);
    sim_client *fresh = sim_client_new(s, "bob", "phone");
    fresh->has_cursor = true;
    fresh->era = old->era;
    fresh->cursor = fresh->first = fresh->acked = old->cursor;
    sim_hello(fresh, "edge2");
    WITHIN(s, 1000, sim_live(fresh) && old->state == SIM_OFFLINE);
    assert_int_equal(old->close_code, EDGE_CLOSE_REPLACED);
    assert_int_equal(old->replaced, 1);
    talk(s, ann, "bob", 3);
    WITHIN(s, 500, fresh->n_got == 3);
    assert_int_equal(old->n_got, 3);
    story_end(&s);
}

STORY(later_hello_wins_on_the_same_edge)
{
    (void)state;
    sim *s = story_new(1, 1, 16);
    sim_client *old = story_person(s, "bob", "phone", "edge1");
    sim_client *fresh = story_person(s, "bob", "phone", "edge1");
    WITHIN(s, 1000, old->state == SIM_OFFLINE);
    assert_int_equal(old->replaced, 1);
    assert_true(sim_live(fresh));
    sim_run(s, 15000);
    assert_true(sim_live(fresh));
    assert_int_equal(fresh->reconnects, 0);
    story_end(&s);
}

STORY(resync_without_a_cursor)
{
    (void)state;
    sim *s = story_new(1, 1, 17);
    sim_client *ann = story_person(s, "ann", "phone", "edge1");
    const char *chat = "";
    for (int i = 0; i < 7; i++) {
        chat = story_acked(s, sim_send(ann, "bob", "before"), 500)->chat;
    }
    sim_run(s, 200);
    sim_client *bob = story_person(s, "bob", "phone", "edge1");
    assert_int_equal(bob->resyncs, 1);
    assert_int_equal(bob->n_got, 0);
    assert_int_equal(bob->first, 7);
    assert_int_equal(bob->resync->n_chats, 1);
    assert_string_equal(bob->resync->chats[0]->chat, chat);
    assert_int_equal(bob->resync->chats[0]->unread, 7);
    talk(s, ann, "bob", 1);
    WITHIN(s, 500, bob->n_got == 1);
    story_end(&s);
}

STORY(resync_for_a_cursor_of_another_era)
{
    (void)state;
    sim *s = story_new(1, 1, 18);
    sim_client *ann = story_person(s, "ann", "phone", "edge1");
    sim_client *bob = story_person(s, "bob", "phone", "edge1");
    talk(s, ann, "bob", 4);
    WITHIN(s, 500, bob->n_got == 4);
    uint64_t era = bob->era;
    sim_bye(bob);
    bob->era ^= 1;
    bob->resync_fine = true;
    sim_hello(bob, "edge1");
    WITHIN(s, 1000, sim_live(bob));
    assert_int_equal(bob->resyncs, 2);
    assert_true(bob->era == era);
    assert_int_equal(bob->cursor, 4);
    story_end(&s);
}

STORY(resync_for_a_cursor_beyond_the_head)
{
    (void)state;
    sim *s = story_new(1, 1, 19);
    sim_client *ann = story_person(s, "ann", "phone", "edge1");
    sim_client *bob = story_person(s, "bob", "phone", "edge1");
    talk(s, ann, "bob", 4);
    WITHIN(s, 500, bob->n_got == 4);
    sim_bye(bob);
    bob->cursor = 1000;
    bob->resync_fine = true;
    sim_hello(bob, "edge1");
    WITHIN(s, 1000, sim_live(bob));
    assert_int_equal(bob->resyncs, 2);
    assert_int_equal(bob->cursor, 4);
    story_end(&s);
}

STORY(device_that_lost_its_last_entries_gets_them_again)
{
    (void)state;
    sim *s = story_new(2, 1, 20);
    sim_client *ann = story_person(s, "ann", "phone", "edge1");
    sim_client *bob = story_person(s, "bob", "phone", "edge1");
    bob->mute = true;
    talk(s, ann, "bob", 20);
    WITHIN(s, 500, bob->n_got == 20);
    sim_vanish(bob);
    sim_forget(bob, 15);
    assert_int_equal(bob->cursor, 5);
    sim_hello(bob, "edge2");
    WITHIN(s, 1000, sim_live(bob) && bob->n_got == 35);
    story_end(&s);
}

STORY(ack_beyond_what_was_sent_moves_nothing)
{
    (void)state;
    sim *s = story_new(1, 1, 21);
    sim_client *ann = story_person(s, "ann", "phone", "edge1");
    sim_client *bob = story_person(s, "bob", "phone", "edge1");
    bob->mute = true;
    Client__Ack ack = CLIENT__ACK__INIT;
    Client__Request request = CLIENT__REQUEST__INIT;
    ack.inbox_seq = 500;
    request.body_case = CLIENT__REQUEST__BODY_ACK;
    request.ack = &ack;
    sim_op *op = sim_ask(bob, &request, false);
    WITHIN(s, 500, op->state == OP_REFUSED);
    assert_int_equal(op->code, FAULT_ACK_BEYOND);
    talk(s, ann, "bob", 300);
    sim_run(s, 3000);
    assert_int_equal(bob->n_got, ROUTER_CREDIT);
    story_end(&s);
}

/* The first socket is half open: nobody is there any more, but its edge keeps trying to attach it. */
STORY(hello_that_waited_does_not_push_out_a_later_one)
{
    (void)state;
    sim *s = story_new(2, 1, 22);
    sim_client *ann = story_person(s, "ann", "phone", "edge2");
    sim_client *bob = sim_client_new(s, "bob", "phone");
    sim_run(s, 300);
    sim_cut(s, "edge1", "router1");
    WITHIN(s, 3000, !sim_linked(s, "edge1", "router1"));
    sim_run(s, 2000);
    sim_hello(bob, "edge1");
    sim_run(s, 500);
    sim_vanish(bob);
    sim_hello(bob, "edge2");
    WITHIN(s, 1000, sim_live(bob));
    sim_heal(s, "edge1", "router1");
    sim_run(s, 5000);
    assert_true(sim_live(bob));
    talk(s, ann, "bob", 1);
    WITHIN(s, 500, bob->n_got == 1);
    story_end(&s);
}

/* The first socket reaches its edge after the second one reached another: that was stuck. */
STORY(hello_that_a_stuck_edge_sees_late_does_not_push_out_a_later_one)
{
    (void)state;
    sim *s = story_new(2, 1, 26);
    sim_client *ann = story_person(s, "ann", "phone", "edge2");
    sim_client *bob = sim_client_new(s, "bob", "phone");
    sim_run(s, 300);
    unsigned long long attaches = story_edge_metric(s, "edge1", "parley_edge_attaches_total");
    sim_pause(s, "edge1", 1500);
    sim_hello(bob, "edge1");
    sim_run(s, 100);
    sim_vanish(bob);
    sim_hello(bob, "edge2");
    WITHIN(s, 1000, sim_live(bob));
    sim_run(s, 5000);
    assert_true(sim_live(bob));
    assert_int_equal(bob->replaced + bob->reconnects, 0);
    assert_int_equal(story_edge_metric(s, "edge1", "parley_edge_attaches_total"), attaches + 1);
    talk(s, ann, "bob", 1);
    WITHIN(s, 500, bob->n_got == 1);
    story_end(&s);
}

/* The same, while no router knows of the later one: the store does. */
STORY(hello_that_a_stuck_edge_sees_late_does_not_take_the_device)
{
    (void)state;
    sim *s = story_new(2, 1, 27);
    story_person(s, "ann", "phone", "edge2");
    sim_client *bob = sim_client_new(s, "bob", "phone");
    sim_run(s, 300);
    sim_pause(s, "edge1", 1500);
    sim_hello(bob, "edge1");
    sim_run(s, 100);
    sim_vanish(bob);
    sim_hello(bob, "edge2");
    WITHIN(s, 1000, sim_live(bob));
    sim_cut(s, "edge2", "router1");
    WITHIN(s, 3000, !sim_linked(s, "edge2", "router1"));
    sim_run(s, 2000);
    sim_kill(s, "edge1");
    WITHIN(s, 3000, !sim_linked(s, "edge1", "router1"));
    sim_run(s, 500);
    sim_heal(s, "edge2", "router1");
    sim_run(s, 5000);
    assert_true(sim_live(bob));
    assert_int_equal(bob->replaced + bob->reconnects, 0);
    story_end(&s);
}

/* What every device has acked is trimmed. A device that lags keeps what it needs; a cursor from before that is told so.
 */
STORY(trimmed_inbox)
{
    (void)state;
    sim *s = sim_new((sim_conf){ .edges = 2, .routers = 2, .seed = 24, .no_readers = true });
    sim_client *ann = story_person(s, "ann", "phone", "edge1");
    sim_client *bob = story_person(s, "bob", "phone", "edge1");
    sim_client *lags = story_person(s, "bob", "laptop", "edge2");
    talk(s, ann, "bob", 50);
    WITHIN(s, 2000, lags->n_got == 50 && bob->n_got == 50);
    sim_run(s, 200);
    sim_bye(lags);
    talk(s, ann, "bob", 450);
    WITHIN(s, 5000, bob->n_got == 500);
    sim_run(s, 200);
    sim_hello(lags, "edge1");
    WITHIN(s, 2000, sim_live(lags) && lags->n_got == 500);
    assert_int_equal(lags->resyncs, 1);
    sim_run(s, 500);
    talk(s, ann, "bob", 10); /* now both have acked nearly all of it */
    WITHIN(s, 2000, lags->n_got == 510 && bob->n_got == 510);
    sim_client *old = sim_client_new(s, "bob", "tablet");
    old->has_cursor = true;
    old->era = bob->era;
    old->resync_fine = true;
    sim_hello(old, "edge2");
    WITHIN(s, 2000, sim_live(old));
    assert_int_equal(old->resyncs, 1);
    assert_int_equal(old->n_got, 0);
    assert_int_equal(old->cursor, 510);
    sim_settle(s);
    assert_string_equal(sim_complaints(s), "");
    sim_destroy(&s);
}

STORY(heads_are_repeated_and_not_more_often)
{
    (void)state;
    sim *s = sim_new((sim_conf){ .edges = 1, .routers = 1, .seed = 23, .trace = true });
    story_person(s, "ann", "phone", "edge1");
    sim_run(s, 100); /* the reader has left */
    const char *text = sim_trace_text(s);
    size_t before = strlen(text);
    sim_run(s, 4 * ROUTER_HEADS_MS);
    unsigned n = 0;
    text = sim_trace_text(s);
    for (const char *at = text + before; (at = strstr(at, ": session_heads")) != NULL; at++) {
        n++;
    }
    assert_in_range(n, 3, 5);
    story_end(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(offline_device_catches_up_on_another_edge),
        cmocka_unit_test(lost_last_entry_is_healed_by_heads),
        cmocka_unit_test(gap_at_the_edge_attaches_again),
        cmocka_unit_test(slow_device_is_paused_and_then_fed),
        cmocka_unit_test(reader_that_stalls_gets_all_of_it),
        cmocka_unit_test(later_hello_wins),
        cmocka_unit_test(later_hello_wins_on_the_same_edge),
        cmocka_unit_test(resync_without_a_cursor),
        cmocka_unit_test(resync_for_a_cursor_of_another_era),
        cmocka_unit_test(resync_for_a_cursor_beyond_the_head),
        cmocka_unit_test(device_that_lost_its_last_entries_gets_them_again),
        cmocka_unit_test(ack_beyond_what_was_sent_moves_nothing),
        cmocka_unit_test(hello_that_waited_does_not_push_out_a_later_one),
        cmocka_unit_test(hello_that_a_stuck_edge_sees_late_does_not_push_out_a_later_one),
        cmocka_unit_test(hello_that_a_stuck_edge_sees_late_does_not_take_the_device),
        cmocka_unit_test(trimmed_inbox),
        cmocka_unit_test(heads_are_repeated_and_not_more_often),
    };
    return cmocka_run_group_tests_name("story session", tests, NULL, NULL);
}
