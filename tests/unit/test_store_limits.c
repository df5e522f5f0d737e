/* Where lists, counts and numbers end: pages, chats of a user, what former members see, cursors of another era. */
#include "store/salvage.h"
#include "tests/unit/store_rig.h"

static char *many(rig *r, const char *prefix, unsigned n)
{
    char *names = mesh_arena_alloc(r->arena, n * 16 + 1);
    char *to = names;
    for (unsigned i = 0; i < n; i++) {
        to += sprintf(to, "%s%04u ", prefix, i);
    }
    return names;
}

static Mesh__ChatList *heads(rig *r, const char *user, char **chats, size_t n)
{
    Mesh__Heads ask = MESH__HEADS__INIT;
    ask.user = rig_q(r, user);
    ask.chats = mesh_arena_alloc(r->arena, n * sizeof *ask.chats);
    for (size_t i = 0; i < n; i++) {
        ask.chats[i] = mesh_arena_alloc(r->arena, sizeof *ask.chats[i]);
        mesh__head_ask__init(ask.chats[i]);
        ask.chats[i]->chat = chats[i];
    }
    ask.n_chats = n;
    MESH_MSG(msg, HEADS, heads, &ask);
    msg.key = chats[0];
    Mesh__Msg *answer = rig_ask(r, &msg);
    ASSERT_KIND(answer, CHAT_LIST);
    return answer->chat_list;
}

static Mesh__Summary *head(rig *r, const char *user, char *chat)
{
    return heads(r, user, &chat, 1)->chats[0];
}

static Mesh__History after(uint64_t seq)
{
    Mesh__History h = MESH__HISTORY__INIT;
    h.after = seq;
    h.limit = 200;
    h.from_start = seq == 0;
    return h;
}

/* ---- what the other side takes (the rig unpacks like any receiver) ---- */

/* A group whose 21 entries name 900 users each. */
static void crowd(rig *r)
{
    char *names = many(r, "u", 900);
    ASSERT_KIND(rig_create(r, "ann", "g1", "c", names, MESH__HISTORY_RULE__HISTORY_ALL), SENT);
    for (int i = 0; i < 10; i++) {
        ASSERT_KIND(rig_edit(r, "ann", "g1", rig_id(r), MESH__EDIT_OP__EDIT_REMOVE, names), SENT);
        ASSERT_KIND(rig_edit(r, "ann", "g1", rig_id(r), MESH__EDIT_OP__EDIT_ADD, names), SENT);
    }
}

static void pages_of_crowds_are_cut(void **state)
{
    (void)state;
    rig *r = rig_ready();
    crowd(r);
    uint64_t at = 0;
    while (at < 21) {
        Mesh__Page *page = rig_history(r, "ann", "g1", after(at))->page;
        assert_in_range(page->n_entries, 1, 4);
        assert_int_equal(page->has_more, at + page->n_entries < 21);
        for (size_t i = 0; i < page->n_entries; i++) {
            assert_int_equal(page->entries[i]->seq, ++at);
            assert_in_range(page->entries[i]->n_users, 900, 901);
            ASSERT_KIND(rig_append(r, page->entries[i], at - 1, "ann"), APPENDED);
        }
    }
    Mesh__History last = MESH__HISTORY__INIT;
    last.limit = 200;
    assert_string_equal(rig_seqs(r, rig_history(r, "ann", "g1", last)->page), "18 19 20 21");
    for (at = 0; at < 21;) {
        Mesh__InboxPage *page = rig_inbox(r, "ann", at, 200);
        assert_in_range(page->n_entries, 1, 4);
        for (size_t i = 0; i < page->n_entries; i++) {
            assert_int_equal(page->entries[i]->inbox_seq, ++at);
            assert_in_range(page->entries[i]->entry->n_users, 900, 901);
        }
    }
    rig_destroy(r);
}

static void a_list_of_crowds_leaves_users_out(void **state)
{
    (void)state;
    rig *r = rig_ready();
    char *names = many(r, "u", 999);
    char *chats[60];
    for (int i = 0; i < 60; i++) {
        char chat[16];
        snprintf(chat, sizeof chat, "g%d", i);
        chats[i] = rig_q(r, chat);
        ASSERT_KIND(rig_create(r, "ann", chat, chat, names, MESH__HISTORY_RULE__HISTORY_ALL), SENT);
        rig_forget(r);
    }
    Mesh__ChatList *list = heads(r, "ann", chats, 60);
    assert_int_equal(list->n_chats, 60);
    size_t users = 0;
    for (size_t i = 0; i < list->n_chats; i++) {
        users += list->chats[i]->last->n_users;
        assert_int_equal(list->chats[i]->member_count, 1000);
    }
    assert_in_range(users, 1000, STORE_PAGE_ELEMENTS);
    rig_destroy(r);
}

static void numbers_beyond_the_head_are_beyond(void **state)
{
    (void)state;
    rig *r = rig_ready();
    char *chat = rig_direct(r, "ann", "bob");
    for (int i = 0; i < 5; i++) {
        rig_say(r, "ann", "bob", "text");
    }
    static const uint64_t far[] = { 6, UINT64_MAX - 1, UINT64_MAX };
    for (size_t i = 0; i < 3; i++) {
        Mesh__Page *page = rig_history(r, "bob", chat, after(far[i]))->page;
        assert_string_equal(rig_seqs(r, page), "");
        assert_false(page->has_more);
        Mesh__History h = MESH__HISTORY__INIT;
        h.limit = 2;
        h.before = far[i];
        page = rig_history(r, "bob", chat, h)->page;
        assert_string_equal(rig_seqs(r, page), "4 5");
        assert_true(page->has_more);
        h.before = 0;
        h.around = far[i];
        page = rig_history(r, "bob", chat, h)->page;
        assert_string_equal(rig_seqs(r, page), "5");
        assert_true(page->has_more);
        assert_false(page->has_more_after);
        h.limit = 1;
        assert_false(rig_history(r, "bob", chat, h)->page->has_more_after);
        assert_int_equal(rig_inbox(r, "bob", far[i], 5)->n_entries, 0);
    }
    rig_destroy(r);
}

static void members_go_on_after_anybody(void **state)
{
    (void)state;
    rig *r = rig_ready();
    rig_create(r, "ann", "g1", "c", "bob cat dan eve", MESH__HISTORY_RULE__HISTORY_ALL);
    rig_edit(r, "ann", "g1", "r", MESH__EDIT_OP__EDIT_REMOVE, "cat");
    static const struct {
        const char *after;
        const char *first;
        size_t n;
    } cases[] = { { "a", "default/ann", 4 },   { "bob", "default/dan", 2 }, { "bz", "default/dan", 2 },
                  { "cat", "default/dan", 2 }, { "eve", NULL, 0 },          { "zoe", NULL, 0 } };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        Mesh__Members ask = MESH__MEMBERS__INIT;
        ask.user = rig_q(r, "ann");
        ask.chat = rig_q(r, "g1");
        ask.after = rig_q(r, cases[i].after);
        MESH_MSG(msg, MEMBERS, members, &ask);
        msg.key = ask.chat;
        Mesh__MemberList *list = rig_ask(r, &msg)->member_list;
        assert_int_equal(list->n_members, cases[i].n);
        assert_true(cases[i].n == 0 || strcmp(list->members[0]->user, cases[i].first) == 0);
    }
    rig_destroy(r);
}

/* ---- what is whose to know ---- */

static void who_was_removed_sees_the_chat_as_it_was(void **state)
{
    (void)state;
    rig *r = rig_ready();
    char *chat = rig_q(r, "g1");
    rig_create(r, "ann", "g1", "c", "bob cat dan", MESH__HISTORY_RULE__HISTORY_ALL);
    rig_edit(r, "ann", "g1", "r", MESH__EDIT_OP__EDIT_REMOVE, "cat");
    rig_edit(r, "dan", "g1", "l", MESH__EDIT_OP__EDIT_LEAVE, "");
    rig_edit(r, "ann", "g1", "n", MESH__EDIT_OP__EDIT_RENAME, "without cat");
    static const char *const gone[] = { "cat", "dan" };
    for (size_t i = 0; i < 2; i++) {
        Mesh__Summary *s = head(r, gone[i], chat);
        assert_string_equal(s->name, "the group");
        assert_int_equal(s->member_count, 0);
        assert_int_equal(s->role, MESH__ROLE__ROLE_NONE);
        assert_int_equal(s->last->seq, 2 + i);
    }
    assert_string_equal(head(r, "bob", chat)->name, "without cat");
    assert_int_equal(head(r, "bob", chat)->member_count, 2);
    rig_destroy(r);
}

static void nothing_is_unread_after_ones_own_message(void **state)
{
    (void)state;
    rig *r = rig_ready();
    char *chat = rig_direct(r, "ann", "bob");
    rig_say(r, "ann", "bob", "one");
    rig_say(r, "ann", "bob", "two");
    assert_int_equal(head(r, "bob", chat)->unread, 2);
    rig_say(r, "bob", "ann", "three"); /* not in bob's inbox yet: his own_count is still 0 */
    assert_int_equal(head(r, "bob", chat)->unread, 0);
    assert_int_equal(head(r, "ann", chat)->unread, 3); /* what she has sent is known from her inbox, empty here */
    rig_destroy(r);
}

/* ---- said again ---- */

static void a_direct_send_is_the_same_by_user_and_by_chat(void **state)
{
    (void)state;
    rig *r = rig_ready();
    char *chat = rig_direct(r, "ann", "bob");
    assert_int_equal(rig_send(r, "ann", chat, "bob", "a", "hi")->sent->seq, 1);
    Mesh__Msg *again = rig_send(r, "ann", chat, NULL, "a", "hi");
    ASSERT_KIND(again, SENT);
    assert_true(again->sent->dup);
    assert_int_equal(again->sent->seq, 1);
    ASSERT_FAULT(rig_send(r, "ann", chat, NULL, "a", "ho"), FAULT_CONFLICT);
    rig_destroy(r);
}

static void an_edit_without_effect_stays_without(void **state)
{
    (void)state;
    rig *r = rig_ready();
    rig_create(r, "ann", "g1", "c", "bob", MESH__HISTORY_RULE__HISTORY_ALL);
    Mesh__Sent *first = rig_edit(r, "ann", "g1", "a", MESH__EDIT_OP__EDIT_ADD, "bob")->sent;
    assert_true(first->dup);
    assert_int_equal(first->seq, 1);
    rig_edit(r, "ann", "g1", "r", MESH__EDIT_OP__EDIT_REMOVE, "bob");
    Mesh__Msg *again = rig_edit(r, "ann", "g1", "a", MESH__EDIT_OP__EDIT_ADD, "bob");
    ASSERT_KIND(again, SENT);
    assert_true(again->sent->dup);
    assert_int_equal(again->sent->seq, 1);
    assert_int_equal(again->sent->id, first->id);
    ASSERT_FAULT(rig_post_text(r, "bob", "g1", "x"), FAULT_DENIED); /* still out */
    ASSERT_FAULT(rig_edit(r, "ann", "g1", "a", MESH__EDIT_OP__EDIT_ADD, "cat"), FAULT_CONFLICT);
    rig_destroy(r);
}

static void members_come_sorted_and_once(void **state)
{
    (void)state;
    rig *r = rig_ready();
    static const char *const wrong[] = { "cat bob", "bob bob", "bob dan cat" };
    for (size_t i = 0; i < 3; i++) {
        Mesh__ChatCreate create = MESH__CHAT_CREATE__INIT;
        create.user = rig_q(r, "ann");
        create.chat = rig_q(r, "g1");
        create.client_msg_id = rig_id(r);
        create.members = rig_list(r, wrong[i], &create.n_members);
        MESH_MSG(msg, CHAT_CREATE, chat_create, &create);
        msg.key = create.chat;
        ASSERT_FAULT(rig_ask(r, &msg), FAULT_MALFORMED);
        Mesh__ChatEdit edit = MESH__CHAT_EDIT__INIT;
        edit.user = create.user;
        edit.chat = create.chat;
        edit.client_msg_id = create.client_msg_id;
        edit.op = MESH__EDIT_OP__EDIT_ADD;
        edit.members = create.members;
        edit.n_members = create.n_members;
        MESH_MSG(second, CHAT_EDIT, chat_edit, &edit);
        second.key = edit.chat;
        ASSERT_FAULT(rig_ask(r, &second), FAULT_MALFORMED);
    }
    rig_destroy(r);
}

/* ---- inboxes ---- */

static void append(rig *r, const char *chat, uint64_t seq, const char *user)
{
    Mesh__Entry entry = rig_entry(r, rig_q(r, chat), seq, "zoe", "text");
    Mesh__Msg *answer = rig_append(r, &entry, seq - 1, user);
    ASSERT_KIND(answer, APPENDED);
    assert_int_equal(answer->appended->results[0]->state, MESH__APPEND_STATE__APPEND_DONE);
    rig_forget(r);
}

static void old_entries_go_even_if_nobody_acks(void **state)
{
    (void)state;
    rig *r = rig_ready();
    uint64_t seq = 0;
    while (seq < 600) {
        append(r, "g1", ++seq, "bob");
    }
    assert_int_equal(rig_rows(r, "i"), 600);
    r->now.wall += STORE_INBOX_KEEP_MS + 1000;
    while (seq < 600 + 3 * 128) {
        append(r, "g1", ++seq, "bob");
    }
    assert_in_range(rig_rows(r, "i"), 3 * 128, 3 * 128 + 128); /* the old ones went, no young one did */
    assert_true(rig_inbox(r, "bob", 599, 5)->trimmed);
    assert_false(rig_inbox(r, "bob", 600, 5)->trimmed);
    assert_int_equal(rig_inbox(r, "bob", 600, 5)->entries[0]->inbox_seq, 601);
    rig_close(r);
    rig_open(r);
    rig_run(r);
    assert_true(rig_inbox(r, "bob", 599, 5)->trimmed);
    assert_int_equal(rig_inbox(r, "bob", 600, 5)->head, seq);
    rig_destroy(r);
}

static void a_user_has_so_many_chats(void **state)
{
    (void)state;
    rig *r = rig_ready();
    rig_create(r, "ann", "old", "c", "cat", MESH__HISTORY_RULE__HISTORY_ALL);
    rig_create(r, "bob", "bobs", "c", "cat", MESH__HISTORY_RULE__HISTORY_ALL);
    for (unsigned i = 0; i + 2 < STORE_USER_CHATS_MAX; i++) { /* "bobs" is there, and g1 will be */
        char chat[16];
        snprintf(chat, sizeof chat, "x%u", i);
        append(r, chat, 1, "bob");
    }
    append(r, "x7", 2, "bob"); /* no new chat */
    ASSERT_KIND(rig_create(r, "bob", "g1", "c", "", MESH__HISTORY_RULE__HISTORY_ALL), SENT);
    rig_close(r);
    rig_open(r);
    rig_run(r);
    ASSERT_FAULT(rig_create(r, "bob", "g2", "d", "", MESH__HISTORY_RULE__HISTORY_ALL), FAULT_TOO_MANY_CHATS);
    ASSERT_FAULT(rig_create(r, "ann", "g3", "d", "bob cat", MESH__HISTORY_RULE__HISTORY_ALL), FAULT_TOO_MANY_CHATS);
    ASSERT_FAULT(rig_edit(r, "ann", "old", "a", MESH__EDIT_OP__EDIT_ADD, "bob dan"), FAULT_TOO_MANY_CHATS);
    ASSERT_FAULT(rig_send(r, "ann", rig_direct(r, "ann", "bob"), "bob", "m", "hi"), FAULT_TOO_MANY_CHATS);
    ASSERT_FAULT(rig_send(r, "bob", rig_direct(r, "ann", "bob"), "ann", "m", "hi"), FAULT_TOO_MANY_CHATS);
    ASSERT_KIND(rig_post_text(r, "bob", "bobs", "what is there goes on"), SENT);
    ASSERT_KIND(rig_edit(r, "bob", "bobs", "e", MESH__EDIT_OP__EDIT_ADD, "dan"), SENT);
    ASSERT_KIND(rig_edit(r, "ann", "old", "b", MESH__EDIT_OP__EDIT_ADD, "dan"), SENT);
    append(r, "late", 1, "bob"); /* a message is never refused */

    Mesh__UserChats ask = MESH__USER_CHATS__INIT;
    ask.user = rig_q(r, "bob");
    ask.limit = 3;
    MESH_MSG(msg, USER_CHATS, user_chats, &ask);
    msg.key = ask.user;
    Mesh__UserChatPage *page = rig_ask(r, &msg)->user_chat_page;
    assert_int_equal(page->n_chats, 3);
    assert_string_equal(page->chats[0]->chat, "default/late");
    assert_string_equal(page->chats[1]->chat, "default/bobs");
    assert_string_equal(page->chats[2]->chat, "default/g1");
    rig_destroy(r);
}

static void a_new_era_voids_every_cursor(void **state)
{
    (void)state;
    rig *r = rig_ready();
    for (uint64_t seq = 1; seq <= 5; seq++) {
        append(r, "g1", seq, "bob");
    }
    uint64_t era = rig_hello(r, "bob", "phone", 0, UINT64_MAX)->attached->era;
    assert_false(rig_hello(r, "bob", "phone", era, 3)->attached->resync);
    store_core_destroy(&r->core);
    assert_int_equal(store_salvage_put_era(r->kv, 4711), MESH_OK);
    store_kv_close(&r->kv);
    rig_open(r);
    rig_run(r);
    Mesh__Attached *attached = rig_hello(r, "bob", "phone", era, 3)->attached;
    assert_true(attached->resync);
    assert_int_equal(attached->era, 4711);
    assert_int_equal(attached->head, 5);
    assert_false(rig_hello(r, "bob", "phone", 4711, 3)->attached->resync);
    rig_destroy(r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pages_of_crowds_are_cut),
        cmocka_unit_test(a_list_of_crowds_leaves_users_out),
        cmocka_unit_test(numbers_beyond_the_head_are_beyond),
        cmocka_unit_test(members_go_on_after_anybody),
        cmocka_unit_test(who_was_removed_sees_the_chat_as_it_was),
        cmocka_unit_test(nothing_is_unread_after_ones_own_message),
        cmocka_unit_test(a_direct_send_is_the_same_by_user_and_by_chat),
        cmocka_unit_test(an_edit_without_effect_stays_without),
        cmocka_unit_test(members_come_sorted_and_once),
        cmocka_unit_test(old_entries_go_even_if_nobody_acks),
        cmocka_unit_test(a_user_has_so_many_chats),
        cmocka_unit_test(a_new_era_voids_every_cursor),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
