/* A message travels, and what its sender and its readers see. */
#include "story.h"

STORY(end_to_end)
{
    (void)state;
    sim *s = story_new(2, 2, 1);
    sim_client *ann = story_person(s, "ann", "phone", "edge1");
    sim_client *bob = story_person(s, "bob", "phone", "edge2");
    sim_op *hi = sim_send(ann, "bob", "hi");
    const Client__Sent *sent = story_acked(s, hi, 200);
    assert_int_equal(sent->seq, 1);
    assert_false(sent->dup);
    assert_string_equal(sent->durable, "disk");
    WITHIN(s, 200, bob->n_got == 1 && ann->n_got == 1);
    assert_string_equal(bob->got[0].message->body, "hi");
    assert_string_equal(bob->got[0].message->sender, "ann");
    assert_int_equal(bob->got[0].message->message_id, sent->message_id);
    char saw[256];
    snprintf(saw, sizeof saw, "welcome\nresync\nlive\nmessage %s 1 ann hi\n", sent->chat);
    assert_string_equal(sim_saw(bob), saw);
    sim_op *back = sim_post(bob, sent->chat, "hello ann");
    assert_int_equal(story_acked(s, back, 200)->seq, 2);
    WITHIN(s, 200, ann->n_got == 2);
    assert_string_equal(ann->got[1].message->body, "hello ann");
    story_end(&s);
}

STORY(two_devices_in_step)
{
    (void)state;
    sim *s = story_new(3, 2, 2);
    sim_client *ann = story_person(s, "ann", "phone", "edge1");
    sim_client *phone = story_person(s, "bob", "phone", "edge2");
    sim_client *laptop = story_person(s, "bob", "laptop", "edge3");
    for (int i = 0; i < 20; i++) {
        char text[32];
        snprintf(text, sizeof text, "line %d", i);
        sim_send(ann, "bob", text);
        sim_run(s, 3);
    }
    sim_op *own = sim_send(phone, "ann", "from my phone");
    story_acked(s, own, 500);
    WITHIN(s, 500, phone->n_got == 21 && laptop->n_got == 21 && ann->n_got == 21);
    for (size_t i = 0; i < 21; i++) {
        assert_int_equal(phone->got[i].inbox_seq, laptop->got[i].inbox_seq);
        assert_int_equal(phone->got[i].message->message_id, laptop->got[i].message->message_id);
    }
    story_end(&s);
}

STORY(same_request_is_stored_once)
{
    (void)state;
    sim *s = story_new(2, 1, 3);
    sim_client *phone = story_person(s, "ann", "phone", "edge1");
    sim_client *laptop = story_person(s, "ann", "laptop", "edge2");
    sim_op *first = sim_send(phone, "bob", "once");
    sim_op *second = sim_again(laptop, first); /* the same moment, another socket */
    const Client__Sent *a = story_acked(s, first, 500);
    const Client__Sent *b = story_acked(s, second, 500);
    assert_int_equal(a->seq, b->seq);
    assert_int_equal(a->message_id, b->message_id);
    assert_true(a->dup != b->dup);
    Client__Send send = *first->request->send;
    Client__Request request = *first->request;
    send.body = (char *)"another body";
    request.send = &send;
    sim_op *conflict = sim_ask(phone, &request, true);
    WITHIN(s, 500, conflict->state == OP_REFUSED);
    assert_int_equal(conflict->code, FAULT_CONFLICT);
    WITHIN(s, 500, phone->n_got == 1 && laptop->n_got == 1);
    story_end(&s);
}

STORY(strangers_and_nothing_look_the_same)
{
    (void)state;
    sim *s = story_new(1, 1, 4);
    sim_client *ann = story_person(s, "ann", "phone", "edge1");
    sim_client *eve = story_person(s, "eve", "phone", "edge1");
    sim_op *create = sim_create(ann, "ours", "bob", false);
    const char *chat = story_acked(s, create, 500)->chat;
    sim_op *asked[] = { sim_post(eve, chat, "let me in"),
                        sim_post(eve, "g:nothing", "let me in"),
                        sim_history(eve, chat, 0, 0, false, 10),
                        sim_history(eve, "g:nothing", 0, 0, false, 10),
                        sim_members(eve, chat),
                        sim_members(eve, "g:nothing"),
                        sim_add(eve, chat, "eve"),
                        sim_add(eve, "g:nothing", "eve") };
    for (size_t i = 0; i < sizeof asked / sizeof *asked; i++) {
        WITHIN(s, 500, asked[i]->state == OP_REFUSED);
        assert_int_equal(asked[i]->code, FAULT_NOT_FOUND);
    }
    assert_int_equal(eve->n_got, 0);
    story_end(&s);
}

STORY(notes_to_oneself)
{
    (void)state;
    sim *s = story_new(1, 1, 5);
    sim_client *ann = story_person(s, "ann", "phone", "edge1");
    story_acked(s, sim_send(ann, "ann", "milk"), 500);
    story_acked(s, sim_send(ann, "ann", "bread"), 500);
    WITHIN(s, 500, ann->n_got == 2);
    assert_string_equal(ann->got[1].message->body, "bread");
    story_end(&s);
}

STORY(chat_list_counts_what_is_unread)
{
    (void)state;
    sim *s = story_new(1, 1, 6);
    sim_client *ann = story_person(s, "ann", "phone", "edge1");
    sim_client *bob = story_person(s, "bob", "phone", "edge1");
    const char *chat = "";
    for (int i = 0; i < 5; i++) {
        chat = story_acked(s, sim_send(ann, "bob", "hey"), 500)->chat;
    }
    WITHIN(s, 500, bob->n_got == 5);
    sim_op *list = sim_chats(bob, 0);
    WITHIN(s, 500, list->state == OP_DONE);
    assert_int_equal(list->answer->chats->n_chats, 1);
    const Client__Summary *sum = list->answer->chats->chats[0];
    assert_string_equal(sum->chat, chat);
    assert_string_equal(sum->peer, "ann");
    assert_int_equal(sum->unread, 5);
    assert_int_equal(sum->last->seq, 5);
    sim_op *read = sim_read(bob, chat, 3);
    WITHIN(s, 500, read->state == OP_DONE);
    sim_op *back = sim_read(bob, chat, 1); /* markers move forward only: this is done, and moves nothing */
    WITHIN(s, 500, back->state == OP_DONE);
    list = sim_chats(bob, 0);
    WITHIN(s, 500, list->state == OP_DONE);
    assert_int_equal(list->answer->chats->chats[0]->unread, 2);
    assert_int_equal(list->answer->chats->chats[0]->read_seq, 3);
    list = sim_chats(ann, 0);
    WITHIN(s, 500, list->state == OP_DONE);
    assert_int_equal(list->answer->chats->chats[0]->unread, 0);
    story_end(&s);
}

STORY(history_in_pages)
{
    (void)state;
    sim *s = story_new(1, 1, 7);
    sim_client *ann = story_person(s, "ann", "phone", "edge1");
    const char *chat = "";
    for (int i = 1; i <= 30; i++) {
        char text[16];
        snprintf(text, sizeof text, "%d", i);
        chat = story_acked(s, sim_send(ann, "bob", text), 500)->chat;
    }
    sim_op *newest = sim_history(ann, chat, 0, 0, false, 10);
    sim_op *before = sim_history(ann, chat, 21, 0, false, 10);
    sim_op *after = sim_history(ann, chat, 0, 25, false, 10);
    sim_op *oldest = sim_history(ann, chat, 0, 0, true, 10);
    WITHIN(s, 500,
           newest->state == OP_DONE && before->state == OP_DONE && after->state == OP_DONE && oldest->state == OP_DONE);
    const Client__Page *p = newest->answer->page;
    assert_int_equal(p->n_messages, 10);
    assert_int_equal(p->messages[0]->seq, 21);
    assert_true(p->has_more);
    assert_int_equal(p->last_seq, 30);
    assert_int_equal(p->oldest_available, 1);
    p = before->answer->page;
    assert_int_equal(p->messages[0]->seq, 11);
    assert_int_equal(p->messages[9]->seq, 20);
    p = after->answer->page;
    assert_int_equal(p->n_messages, 5);
    assert_int_equal(p->messages[0]->seq, 26);
    assert_false(p->has_more);
    p = oldest->answer->page;
    assert_int_equal(p->messages[0]->seq, 1);
    assert_true(p->has_more);
    story_end(&s);
}

STORY(a_run_repeats_from_its_seed)
{
    (void)state;
    uint64_t hash[2];
    char text[2][4000];
    for (int i = 0; i < 2; i++) {
        sim *s = sim_new((sim_conf){ .edges = 2, .routers = 2, .seed = 99, .trace = true });
        sim_client *ann = story_person(s, "ann", "phone", NULL);
        sim_client *bob = story_person(s, "bob", "phone", NULL);
        sim_send(ann, "bob", "hi");
        sim_kill(s, "router1");
        sim_send(bob, "ann", "ho");
        sim_run(s, 6000);
        hash[i] = sim_hash(s);
        snprintf(text[i], sizeof text[i], "%s", sim_trace_text(s));
        sim_destroy(&s);
    }
    assert_string_equal(text[0], text[1]);
    assert_true(hash[0] == hash[1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(end_to_end),
        cmocka_unit_test(two_devices_in_step),
        cmocka_unit_test(same_request_is_stored_once),
        cmocka_unit_test(strangers_and_nothing_look_the_same),
        cmocka_unit_test(notes_to_oneself),
        cmocka_unit_test(chat_list_counts_what_is_unread),
        cmocka_unit_test(history_in_pages),
        cmocka_unit_test(a_run_repeats_from_its_seed),
    };
    return cmocka_run_group_tests_name("story message", tests, NULL, NULL);
}
