/* Groups: who is in, and who sees what. */
#include "story.h"

STORY(life_of_a_group)
{
    (void)state;
    sim *s = story_new(2, 2, 51);
    sim_client *ann = story_person(s, "ann", "phone", "edge1");
    sim_client *bob = story_person(s, "bob", "phone", "edge2");
    sim_client *cyd = story_person(s, "cyd", "phone", "edge1");
    sim_saw(ann);
    sim_saw(bob);
    sim_saw(cyd);
    const char *g = story_acked(s, sim_create(ann, "the club", "bob", false), 500)->chat;
    story_acked(s, sim_post(bob, g, "hello"), 500);
    story_acked(s, sim_rename(ann, g, "the pub"), 500);
    story_acked(s, sim_add(ann, g, "cyd"), 500);
    story_acked(s, sim_post(cyd, g, "I am new"), 500);
    story_acked(s, sim_remove(ann, g, "bob"), 500);
    story_acked(s, sim_post(ann, g, "without bob"), 500);
    story_acked(s, sim_leave(cyd, g), 500);
    story_acked(s, sim_post(ann, g, "alone"), 500);
    WITHIN(s, 1000, ann->n_got == 9);
    sim_run(s, 200);
    char want[2000];
    snprintf(want, sizeof want,
             "message %s 1 ann ENTRY_KIND_CREATED\nmessage %s 2 bob hello\nmessage %s 3 ann ENTRY_KIND_RENAMED\n"
             "message %s 4 ann ENTRY_KIND_ADDED\nmessage %s 5 cyd I am new\nmessage %s 6 ann ENTRY_KIND_REMOVED\n",
             g, g, g, g, g, g);
    assert_string_equal(sim_saw(bob), want);
    snprintf(want, sizeof want,
             "message %s 4 ann ENTRY_KIND_ADDED\nmessage %s 5 cyd I am new\nmessage %s 6 ann ENTRY_KIND_REMOVED\n"
             "message %s 7 ann without bob\nmessage %s 8 cyd ENTRY_KIND_LEFT\n",
             g, g, g, g, g);
    assert_string_equal(sim_saw(cyd), want);
    assert_string_equal(ann->got[2].message->name, "the pub");
    assert_int_equal(ann->got[3].message->n_users, 1);
    assert_string_equal(ann->got[3].message->users[0], "cyd");
    assert_string_equal(ann->got[3].message->sender, "ann");
    story_end(&s);
}

STORY(removed_member_sees_nothing_after)
{
    (void)state;
    sim *s = story_new(2, 2, 52);
    sim_client *ann = story_person(s, "ann", "phone", "edge1");
    sim_client *bob = story_person(s, "bob", "phone", "edge2");
    sim_client *away = story_person(s, "bob", "laptop", "edge1");
    const char *g = story_acked(s, sim_create(ann, "club", "bob", false), 500)->chat;
    story_acked(s, sim_post(ann, g, "all of us"), 500);
    WITHIN(s, 500, bob->n_got == 2 && away->n_got == 2);
    sim_bye(away);
    story_acked(s, sim_remove(ann, g, "bob"), 500);
    sim_op *secret = sim_post(ann, g, "about bob");
    uint64_t secret_seq = story_acked(s, secret, 500)->seq;
    sim_hello(away, "edge2");
    WITHIN(s, 1000, sim_live(away) && away->n_got == 3 && bob->n_got == 3);
    sim_op *asked[] = { sim_post(bob, g, "let me back"), sim_members(bob, g), sim_add(bob, g, "bob"),
                        sim_history(bob, g, 0, 0, false, 50) };
    WITHIN(s, 1000, asked[3]->state == OP_DONE);
    const Client__Page *p = asked[3]->answer->page;
    assert_int_equal(p->n_messages, 3);
    assert_int_equal(p->last_seq, 3);
    for (size_t i = 0; i < 3; i++) {
        WITHIN(s, 1000, asked[i]->state != OP_WAITING);
        assert_true(asked[i]->state == OP_REFUSED || i == 1);
    }
    story_acked(s, sim_rename(ann, g, "a name that is not his to know"), 500);
    sim_op *list = sim_chats(bob, 0);
    WITHIN(s, 500, list->state == OP_DONE);
    assert_int_equal(list->answer->chats->n_chats, 1);
    for (size_t i = 0; i < list->answer->chats->n_chats; i++) {
        assert_string_equal(list->answer->chats->chats[i]->name, "club");
        assert_int_equal(list->answer->chats->chats[i]->member_count, 0);
        assert_true(list->answer->chats->chats[i]->last->seq < secret_seq);
        assert_int_equal(list->answer->chats->chats[i]->role, CLIENT__ROLE__ROLE_NONE);
    }
    sim_run(s, 1000);
    assert_int_equal(bob->n_got, 3);
    story_acked(s, sim_add(ann, g, "bob"), 500); /* and back: what was said meanwhile never comes to the inbox */
    WITHIN(s, 500, bob->n_got == 4 && away->n_got == 4);
    assert_int_equal(bob->got[3].message->seq, 6);
    assert_string_equal(bob->got[3].message->name, "a name that is not his to know");
    story_end(&s);
}

STORY(newcomer_sees_history_by_the_rule)
{
    (void)state;
    sim *s = story_new(1, 1, 53);
    sim_client *ann = story_person(s, "ann", "phone", "edge1");
    sim_client *cyd = story_person(s, "cyd", "phone", "edge1");
    const char *open = story_acked(s, sim_create(ann, "open", "bob", false), 500)->chat;
    const char *closed = story_acked(s, sim_create(ann, "closed", "bob", true), 500)->chat;
    story_acked(s, sim_post(ann, open, "old"), 500);
    story_acked(s, sim_post(ann, closed, "old"), 500);
    story_acked(s, sim_add(ann, open, "cyd"), 500);
    story_acked(s, sim_add(ann, closed, "cyd"), 500);
    sim_op *all = sim_history(cyd, open, 0, 0, false, 50);
    sim_op *some = sim_history(cyd, closed, 0, 0, false, 50);
    WITHIN(s, 500, all->state == OP_DONE && some->state == OP_DONE);
    assert_int_equal(all->answer->page->n_messages, 3);
    assert_int_equal(some->answer->page->n_messages, 1);
    assert_int_equal(some->answer->page->oldest_available, 3);
    story_end(&s);
}

STORY(only_who_may_changes_a_group)
{
    (void)state;
    sim *s = story_new(1, 1, 54);
    sim_client *ann = story_person(s, "ann", "phone", "edge1");
    sim_client *bob = story_person(s, "bob", "phone", "edge1");
    const char *g = story_acked(s, sim_create(ann, "club", "bob cyd", false), 500)->chat;
    sim_op *asked[] = { sim_remove(bob, g, "cyd"), sim_rename(bob, g, "mine"), sim_add(bob, g, "dan"),
                        sim_remove(bob, g, "ann") };
    for (size_t i = 0; i < 4; i++) {
        WITHIN(s, 500, asked[i]->state == OP_REFUSED);
        assert_int_equal(asked[i]->code, FAULT_DENIED);
    }
    story_acked(s, sim_leave(ann, g), 500); /* the owner goes: somebody else owns it */
    story_acked(s, sim_post(bob, g, "still working"), 500);
    sim_op *list = sim_members(bob, g);
    WITHIN(s, 500, list->state == OP_DONE);
    unsigned owners = 0;
    for (size_t i = 0; i < list->answer->members->n_members; i++) {
        owners += list->answer->members->members[i]->role == CLIENT__ROLE__ROLE_OWNER;
    }
    assert_int_equal(owners, 1);
    story_end(&s);
}

STORY(create_twice_is_one_group)
{
    (void)state;
    sim *s = story_new(2, 2, 55);
    sim_client *phone = story_person(s, "ann", "phone", "edge1");
    sim_client *laptop = story_person(s, "ann", "laptop", "edge2");
    sim_op *first = sim_create(phone, "club", "bob", false);
    sim_op *second = sim_again(laptop, first);
    assert_string_equal(story_acked(s, first, 500)->chat, story_acked(s, second, 500)->chat);
    WITHIN(s, 500, phone->n_got == 1 && laptop->n_got == 1);
    story_end(&s);
}

/* A request that had nothing to do was answered so, and is not done later. */
STORY(add_of_a_member_twice)
{
    (void)state;
    sim *s = story_new(2, 2, 57);
    sim_client *phone = story_person(s, "ann", "phone", "edge1");
    sim_client *laptop = story_person(s, "ann", "laptop", "edge2");
    const char *g = story_acked(s, sim_create(phone, "club", "bob", false), 500)->chat;
    sim_op *add = sim_add(phone, g, "bob");
    assert_true(story_acked(s, add, 500)->dup);
    assert_int_equal(sim_sent(add)->seq, 1);
    story_acked(s, sim_remove(phone, g, "bob"), 500);
    sim_op *late = sim_again(laptop, add);
    assert_true(story_acked(s, late, 500)->dup);
    assert_int_equal(sim_sent(late)->seq, 1);
    sim_op *list = sim_members(phone, g);
    WITHIN(s, 500, list->state == OP_DONE);
    assert_int_equal(list->answer->members->n_members, 1);
    story_end(&s);
}

STORY(twenty_talk_at_once)
{
    (void)state;
    sim *s = story_new(2, 2, 56);
    sim_client *c[20];
    char members[400] = "";
    for (unsigned i = 0; i < 20; i++) {
        char user[16];
        snprintf(user, sizeof user, "u%u", i);
        c[i] = story_person(s, user, "phone", i % 2 ? "edge1" : "edge2");
        snprintf(members + strlen(members), sizeof members - strlen(members), "%su%u", i ? " " : "", i);
    }
    const char *g = story_acked(s, sim_create(c[0], "crowd", members, false), 500)->chat;
    for (unsigned i = 0; i < 40; i++) {
        sim_post(c[i % 20], g, "everybody talks");
    }
    sim_run(s, 1000);
    for (unsigned i = 0; i < 20; i++) {
        assert_int_equal(c[i]->n_got, 41);
    }
    story_end(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(life_of_a_group),
        cmocka_unit_test(removed_member_sees_nothing_after),
        cmocka_unit_test(newcomer_sees_history_by_the_rule),
        cmocka_unit_test(only_who_may_changes_a_group),
        cmocka_unit_test(create_twice_is_one_group),
        cmocka_unit_test(add_of_a_member_twice),
        cmocka_unit_test(twenty_talk_at_once),
    };
    return cmocka_run_group_tests_name("story group", tests, NULL, NULL);
}
