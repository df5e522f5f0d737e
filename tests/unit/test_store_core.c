/* The store's rules for chats and inboxes, asked through messages. */
#include "tests/unit/store_rig.h"

/* ---- start ---- */

static void new_database_gets_an_era_first(void **state)
{
    (void)state;
    rig *r = rig_new();
    Mesh__Send send = rig_send_body(r, "ann", rig_direct(r, "ann", "bob"), "bob", "a", "hi");
    MESH_MSG(msg, SEND, send, &send);
    msg.key = send.chat;
    uint64_t corr = rig_post(r, RIG_R1, &msg);
    ASSERT_FAULT(rig_answer(r, corr), FAULT_UNAVAILABLE);
    rig_run(r);
    Mesh__Msg *answer = rig_hello(r, "ann", "phone", 0, UINT64_MAX);
    ASSERT_KIND(answer, ATTACHED);
    uint64_t era = answer->attached->era;
    assert_int_not_equal(era, 0);
    rig_close(r);
    rig_open(r);
    rig_run(r);
    assert_int_equal(rig_hello(r, "ann", "phone", 0, UINT64_MAX)->attached->era, era);
    rig_destroy(r);
}

static void data_of_another_cluster_is_refused(void **state)
{
    (void)state;
    rig *r = rig_ready();
    rig_close(r);
    char why[256] = "";
    assert_int_equal(mesh_conf_set(r->conf, "cluster.name", "other"), MESH_OK);
    store_kv_options options = { 0 };
    assert_int_equal(store_kv_open("/rig", &options, &r->kv, why, sizeof why), MESH_OK);
    store_core_conf conf = { .conf = r->conf, .self = RIG_STORE, .seed = 7 };
    assert_int_equal(store_core_new(&conf, r->kv, r->now, &r->core, why, sizeof why), MESH_CONFLICT);
    assert_int_not_equal(why[0], '\0');
    rig_destroy(r);
}

/* ---- send ---- */

static void first_message_makes_the_direct_chat(void **state)
{
    (void)state;
    rig *r = rig_ready();
    char *chat = rig_direct(r, "ann", "bob");
    Mesh__Msg *answer = rig_send(r, "ann", chat, "bob", "a", "hi");
    ASSERT_KIND(answer, SENT);
    assert_int_equal(answer->sent->seq, 1);
    assert_string_equal(answer->sent->durable, "disk");
    assert_string_equal(answer->sent->chat, chat);
    assert_string_equal(answer->sent->client_msg_id, "a");
    assert_false(answer->sent->dup);
    assert_int_equal(answer->sent->ts_ms, RIG_WALL);
    assert_int_equal(answer->sent->id >> 22, RIG_WALL);
    Mesh__Sent *second = rig_send(r, "bob", chat, NULL, "a", "hello")->sent; /* the same id of another sender */
    assert_int_equal(second->seq, 2);
    assert_true(second->id > answer->sent->id);
    rig_destroy(r);
}

static void ids_grow_when_the_clock_goes_back(void **state)
{
    (void)state;
    rig *r = rig_ready();
    uint64_t first = rig_say(r, "ann", "bob", "1")->id;
    r->now.wall -= 3600 * 1000;
    uint64_t second = rig_say(r, "ann", "bob", "2")->id;
    assert_true(second > first);
    rig_close(r);
    rig_open(r);
    rig_run(r);
    assert_true(rig_say(r, "ann", "bob", "3")->id > second);
    rig_destroy(r);
}

static void a_repeated_send_is_answered_from_the_first(void **state)
{
    (void)state;
    rig *r = rig_ready();
    char *chat = rig_direct(r, "ann", "bob");
    Mesh__Sent *first = rig_send(r, "ann", chat, "bob", "a", "hi")->sent;
    rig_say(r, "bob", "ann", "in between");
    Mesh__Sent *again = rig_send(r, "ann", chat, "bob", "a", "hi")->sent;
    assert_true(again->dup);
    assert_int_equal(again->seq, first->seq);
    assert_int_equal(again->id, first->id);
    assert_int_equal(again->ts_ms, first->ts_ms);
    ASSERT_FAULT(rig_send(r, "ann", chat, "bob", "a", "ho"), FAULT_CONFLICT);

    Mesh__Send renamed = rig_send_body(r, "ann", chat, "bob", "a", "hi");
    renamed.user_name = mesh_arena_strdup(r->arena, "Ann B.");
    MESH_MSG(msg, SEND, send, &renamed);
    msg.key = chat;
    assert_true(rig_ask(r, &msg)->sent->dup);
    rig_destroy(r);
}

static void the_same_send_twice_in_one_entry_is_stored_once(void **state)
{
    (void)state;
    rig *r = rig_ready();
    char *chat = rig_direct(r, "ann", "bob");
    Mesh__Send send = rig_send_body(r, "ann", chat, "bob", "a", "hi");
    MESH_MSG(msg, SEND, send, &send);
    msg.key = chat;
    uint64_t one = rig_post(r, RIG_R1, &msg);
    uint64_t two = rig_post(r, RIG_R2, &msg);
    rig_run(r);
    assert_int_equal(rig_answer(r, one)->sent->seq, 1);
    assert_false(rig_answer(r, one)->sent->dup);
    assert_int_equal(rig_answer(r, two)->sent->seq, 1);
    assert_true(rig_answer(r, two)->sent->dup);
    assert_int_equal(rig_rows(r, "m"), 1);
    rig_destroy(r);
}

static void nothing_is_acked_before_it_is_synced(void **state)
{
    (void)state;
    rig *r = rig_ready();
    Mesh__Send send = rig_send_body(r, "ann", rig_direct(r, "ann", "bob"), "bob", "a", "hi");
    MESH_MSG(msg, SEND, send, &send);
    msg.key = send.chat;
    uint64_t corr = rig_post(r, RIG_R1, &msg);
    for (int i = 0; i < 5; i++) {
        rig_turn(r);
        assert_null(rig_answer(r, corr));
    }
    sim_disk_flush(r->disk);
    rig_turn(r);
    assert_non_null(rig_answer(r, corr));
    rig_destroy(r);
}

static void sends_gather_while_others_are_written(void **state)
{
    (void)state;
    rig *r = rig_ready();
    uint64_t entries = mesh_stats_get(store_core_stats(r->core), STORE_M_ENTRIES);
    for (int i = 0; i < 100; i++) {
        Mesh__Send send = rig_send_body(r, "ann", rig_direct(r, "ann", "bob"), "bob", rig_id(r), "hi");
        MESH_MSG(msg, SEND, send, &send);
        msg.key = send.chat;
        rig_post(r, RIG_R1, &msg);
        rig_turn(r);
    }
    assert_false(store_core_quiet(r->core));
    rig_run(r);
    assert_true(store_core_quiet(r->core));
    assert_int_equal(rig_rows(r, "m"), 100);
    assert_int_equal(mesh_stats_get(store_core_stats(r->core), STORE_M_ENTRIES) - entries,
                     5); /* 4 with one, 1 with 96 */
    rig_destroy(r);
}

static void who_may_not_send_finds_nothing(void **state)
{
    (void)state;
    rig *r = rig_ready();
    char *chat = rig_direct(r, "ann", "bob");
    ASSERT_FAULT(rig_send(r, "ann", chat, NULL, "a", "no such chat"), FAULT_NOT_FOUND);
    ASSERT_FAULT(rig_send(r, "ann", chat, "eve", "a", "not of these two"), FAULT_INVALID);
    rig_say(r, "ann", "bob", "hi");
    ASSERT_FAULT(rig_send(r, "eve", chat, "bob", "a", "stranger"), FAULT_NOT_FOUND);
    ASSERT_FAULT(rig_send(r, "eve", rig_q(r, "g1"), NULL, "a", "no group"), FAULT_NOT_FOUND);
    assert_int_equal(rig_rows(r, "m"), 1);
    assert_int_equal(rig_say(r, "ann", "ann", "a note")->seq, 1);
    rig_destroy(r);
}

/* ---- chats ---- */

static void a_group_is_made_once(void **state)
{
    (void)state;
    rig *r = rig_ready();
    Mesh__Msg *answer = rig_create(r, "ann", "g1", "c", "bob cat bob ann", MESH__HISTORY_RULE__HISTORY_ALL);
    ASSERT_KIND(answer, SENT);
    assert_int_equal(answer->sent->seq, 1);
    assert_true(rig_create(r, "ann", "g1", "c", "bob cat bob ann", MESH__HISTORY_RULE__HISTORY_ALL)->sent->dup);
    ASSERT_FAULT(rig_create(r, "ann", "g1", "c", "bob", MESH__HISTORY_RULE__HISTORY_ALL), FAULT_CONFLICT);
    ASSERT_FAULT(rig_create(r, "eve", "g1", "c", "bob", MESH__HISTORY_RULE__HISTORY_ALL), FAULT_CONFLICT);
    ASSERT_FAULT(rig_create(r, "ann", "d:x", "e", "bob", MESH__HISTORY_RULE__HISTORY_ALL), FAULT_INVALID);

    Mesh__Page *page = rig_history(r, "cat", "g1", (Mesh__History)MESH__HISTORY__INIT)->page;
    assert_int_equal(page->n_entries, 1);
    Mesh__Entry *created = page->entries[0];
    assert_int_equal(created->kind, MESH__ENTRY_KIND__ENTRY_CREATED);
    assert_string_equal(created->name, "the group");
    assert_int_equal(created->count, 0);
    assert_int_equal(created->n_users, 3);
    assert_string_equal(created->users[0], "default/ann");
    assert_string_equal(created->users[2], "default/cat");

    Mesh__Members ask = MESH__MEMBERS__INIT;
    ask.user = rig_q(r, "bob");
    ask.chat = rig_q(r, "g1");
    ask.limit = 2;
    MESH_MSG(msg, MEMBERS, members, &ask);
    msg.key = ask.chat;
    Mesh__MemberList *list = rig_ask(r, &msg)->member_list;
    assert_int_equal(list->n_members, 2);
    assert_true(list->has_more);
    assert_int_equal(list->members[0]->role, MESH__ROLE__ROLE_OWNER);
    ask.after = list->members[1]->user;
    list = rig_ask(r, &msg)->member_list;
    assert_int_equal(list->n_members, 1);
    assert_false(list->has_more);
    assert_string_equal(list->members[0]->user, "default/cat");
    ask.user = rig_q(r, "eve");
    ASSERT_FAULT(rig_ask(r, &msg), FAULT_NOT_FOUND);
    rig_destroy(r);
}

static char *many(rig *r, const char *prefix, unsigned n)
{
    char *names = mesh_arena_alloc(r->arena, n * 16);
    for (unsigned i = 0; i < n; i++) {
        sprintf(names + strlen(names), "%s%04u ", prefix, i);
    }
    return names;
}

static void a_group_has_room_for_a_thousand(void **state)
{
    (void)state;
    rig *r = rig_ready();
    ASSERT_FAULT(
        rig_create(r, "ann", "g1", "c", many(r, "u", STORE_GROUP_MEMBERS_MAX), MESH__HISTORY_RULE__HISTORY_ALL),
        FAULT_TOO_MANY_MEMBERS);
    ASSERT_KIND(
        rig_create(r, "ann", "g1", "d", many(r, "u", STORE_GROUP_MEMBERS_MAX - 1), MESH__HISTORY_RULE__HISTORY_ALL),
        SENT);
    ASSERT_FAULT(rig_edit(r, "ann", "g1", "e", MESH__EDIT_OP__EDIT_ADD, "bob"), FAULT_TOO_MANY_MEMBERS);
    assert_int_equal(rig_edit(r, "ann", "g1", "f", MESH__EDIT_OP__EDIT_REMOVE, "u0000")->sent->seq, 2);
    assert_int_equal(rig_edit(r, "ann", "g1", "g", MESH__EDIT_OP__EDIT_ADD, "bob")->sent->seq, 3);
    /* a long list of users does not make a thousand long inbox rows */
    Mesh__Page *page = rig_history(r, "ann", "g1", (Mesh__History)MESH__HISTORY__INIT)->page;
    Mesh__Entry *created = page->entries[0];
    ASSERT_KIND(rig_append(r, created, 0, "ann"), APPENDED);
    Mesh__InboxPage *inbox = rig_inbox(r, "ann", 0, 10);
    assert_int_equal(inbox->entries[0]->entry->n_users, STORE_GROUP_MEMBERS_MAX);
    assert_true(store_kv_counted(r->kv).row_bytes > 0);
    rig_destroy(r);
}

static Mesh__Msg *create_direct(rig *r, const char *user, const char *other, const char *chat, const char *id)
{
    Mesh__ChatCreate create = MESH__CHAT_CREATE__INIT;
    create.user = rig_q(r, user);
    create.chat = (char *)(uintptr_t)chat;
    create.kind = MESH__CHAT_KIND__CHAT_DIRECT;
    create.client_msg_id = (char *)(uintptr_t)id;
    create.members = rig_list(r, other, &create.n_members);
    MESH_MSG(msg, CHAT_CREATE, chat_create, &create);
    msg.key = create.chat;
    return rig_ask(r, &msg);
}

static void a_direct_chat_is_the_same_from_both_sides(void **state)
{
    (void)state;
    rig *r = rig_ready();
    char *chat = rig_direct(r, "ann", "bob");
    ASSERT_FAULT(create_direct(r, "ann", "cat", chat, "c"), FAULT_INVALID);
    ASSERT_FAULT(create_direct(r, "ann", "bob cat", chat, "c"), FAULT_INVALID);
    Mesh__Sent *first = create_direct(r, "ann", "bob", chat, "c")->sent;
    assert_int_equal(first->seq, 1);
    assert_false(first->dup);
    Mesh__Sent *other = create_direct(r, "bob", "ann", chat, "x")->sent;
    assert_true(other->dup);
    assert_int_equal(other->seq, 1);
    assert_int_equal(other->id, first->id);
    assert_int_equal(rig_say(r, "bob", "ann", "hi")->seq, 2);
    for (int op = MESH__EDIT_OP__EDIT_RENAME; op <= MESH__EDIT_OP__EDIT_LEAVE; op++) {
        ASSERT_FAULT(rig_edit(r, "ann", chat, rig_id(r), (Mesh__EditOp)op, "cat"), FAULT_DENIED);
    }
    rig_destroy(r);
}

static void only_the_owner_edits_a_group(void **state)
{
    (void)state;
    rig *r = rig_ready();
    rig_create(r, "ann", "g1", "c", "bob", MESH__HISTORY_RULE__HISTORY_ALL);
    ASSERT_FAULT(rig_edit(r, "bob", "g1", "e1", MESH__EDIT_OP__EDIT_RENAME, "x"), FAULT_DENIED);
    ASSERT_FAULT(rig_edit(r, "bob", "g1", "e2", MESH__EDIT_OP__EDIT_ADD, "cat"), FAULT_DENIED);
    ASSERT_FAULT(rig_edit(r, "bob", "g1", "e3", MESH__EDIT_OP__EDIT_REMOVE, "ann"), FAULT_DENIED);
    ASSERT_FAULT(rig_edit(r, "eve", "g1", "e4", MESH__EDIT_OP__EDIT_RENAME, "x"), FAULT_NOT_FOUND);
    ASSERT_FAULT(rig_edit(r, "ann", "g1", "e5", MESH__EDIT_OP__EDIT_REMOVE, "bob ann"), FAULT_DENIED);
    ASSERT_FAULT(rig_edit(r, "ann", "g1", "e6", MESH__EDIT_OP__EDIT_NONE, ""), FAULT_INVALID);
    assert_int_equal(rig_edit(r, "ann", "g1", "n", MESH__EDIT_OP__EDIT_RENAME, "new")->sent->seq, 2);
    Mesh__Sent *again = rig_edit(r, "ann", "g1", "n", MESH__EDIT_OP__EDIT_RENAME, "new")->sent;
    assert_true(again->dup);
    assert_int_equal(again->seq, 2);
    ASSERT_FAULT(rig_edit(r, "ann", "g1", "n", MESH__EDIT_OP__EDIT_RENAME, "newer"), FAULT_CONFLICT);

    Mesh__Sent *added = rig_edit(r, "ann", "g1", "a", MESH__EDIT_OP__EDIT_ADD, "cat bob cat dan")->sent;
    assert_int_equal(added->seq, 3);
    Mesh__Entry *entry = rig_history(r, "cat", "g1", (Mesh__History)MESH__HISTORY__INIT)->page->entries[2];
    assert_int_equal(entry->kind, MESH__ENTRY_KIND__ENTRY_ADDED);
    assert_int_equal(entry->n_users, 2);
    Mesh__Sent *nothing = rig_edit(r, "ann", "g1", "b", MESH__EDIT_OP__EDIT_ADD, "cat bob")->sent;
    assert_true(nothing->dup);
    assert_int_equal(nothing->seq, 3);
    assert_int_equal(nothing->id, added->id);
    nothing = rig_edit(r, "ann", "g1", "b2", MESH__EDIT_OP__EDIT_REMOVE, "eve")->sent;
    assert_true(nothing->dup);
    rig_destroy(r);
}

static Mesh__Role role_of(rig *r, const char *asker, const char *user)
{
    Mesh__Members ask = MESH__MEMBERS__INIT;
    ask.user = rig_q(r, asker);
    ask.chat = rig_q(r, "g1");
    MESH_MSG(msg, MEMBERS, members, &ask);
    msg.key = ask.chat;
    Mesh__MemberList *list = rig_ask(r, &msg)->member_list;
    for (size_t i = 0; i < list->n_members; i++) {
        if (strcmp(list->members[i]->user, rig_q(r, user)) == 0) {
            return list->members[i]->role;
        }
    }
    return MESH__ROLE__ROLE_NONE;
}

static void an_owner_who_leaves_passes_it_on(void **state)
{
    (void)state;
    rig *r = rig_ready();
    rig_create(r, "ann", "g1", "c", "zoe", MESH__HISTORY_RULE__HISTORY_ALL);
    rig_edit(r, "ann", "g1", "a", MESH__EDIT_OP__EDIT_ADD, "bob"); /* later than zoe */
    Mesh__Sent *left = rig_edit(r, "ann", "g1", "l", MESH__EDIT_OP__EDIT_LEAVE, "")->sent;
    assert_int_equal(left->seq, 3);
    assert_int_equal(role_of(r, "bob", "zoe"), MESH__ROLE__ROLE_OWNER);
    assert_int_equal(role_of(r, "bob", "bob"), MESH__ROLE__ROLE_MEMBER);
    ASSERT_FAULT(rig_post_text(r, "ann", "g1", "x"), FAULT_DENIED);
    ASSERT_FAULT(rig_edit(r, "ann", "g1", "l2", MESH__EDIT_OP__EDIT_LEAVE, ""), FAULT_DENIED);
    assert_true(rig_edit(r, "ann", "g1", "l", MESH__EDIT_OP__EDIT_LEAVE, "")->sent->dup); /* dedupe before membership */
    rig_edit(r, "zoe", "g1", "l", MESH__EDIT_OP__EDIT_LEAVE, "");
    rig_edit(r, "bob", "g1", "l", MESH__EDIT_OP__EDIT_LEAVE, ""); /* the last one: nobody is left */
    ASSERT_FAULT(rig_post_text(r, "bob", "g1", "x"), FAULT_DENIED);
    rig_destroy(r);
}

static void being_added_again_has_a_limit(void **state)
{
    (void)state;
    rig *r = rig_ready();
    rig_create(r, "ann", "g1", "c", "", MESH__HISTORY_RULE__HISTORY_ALL);
    for (unsigned i = 0; i < STORE_SPANS_MAX; i++) {
        ASSERT_KIND(rig_edit(r, "ann", "g1", rig_id(r), MESH__EDIT_OP__EDIT_ADD, "bob"), SENT);
        ASSERT_KIND(rig_edit(r, "ann", "g1", rig_id(r), MESH__EDIT_OP__EDIT_REMOVE, "bob"), SENT);
    }
    ASSERT_FAULT(rig_edit(r, "ann", "g1", rig_id(r), MESH__EDIT_OP__EDIT_ADD, "bob"), FAULT_INVALID);
    rig_close(r);
    rig_open(r);
    rig_run(r);
    ASSERT_KIND(rig_history(r, "bob", "g1", (Mesh__History)MESH__HISTORY__INIT), PAGE);
    rig_destroy(r);
}

/* ---- history ---- */

static Mesh__History before(uint64_t seq, uint32_t limit)
{
    Mesh__History h = MESH__HISTORY__INIT;
    h.before = seq;
    h.limit = limit;
    return h;
}

static Mesh__History after(uint64_t seq, uint32_t limit)
{
    Mesh__History h = MESH__HISTORY__INIT;
    h.after = seq;
    h.limit = limit;
    return h;
}

static Mesh__History around(uint64_t seq, uint32_t limit)
{
    Mesh__History h = MESH__HISTORY__INIT;
    h.around = seq;
    h.limit = limit;
    return h;
}

static void history_pages_both_ways(void **state)
{
    (void)state;
    rig *r = rig_ready();
    char *chat = rig_direct(r, "ann", "bob");
    for (int i = 0; i < 20; i++) {
        rig_say(r, "ann", "bob", "text");
    }
    struct {
        Mesh__History ask;
        const char *seqs;
        bool more, more_after;
    } cases[] = {
        { before(0, 3), "18 19 20", true, false },     { before(18, 3), "15 16 17", true, false },
        { before(3, 3), "1 2", false, false },         { before(1, 3), "", false, false },
        { before(99, 2), "19 20", true, false },       { after(17, 5), "18 19 20", false, false },
        { after(3, 2), "4 5", true, false },           { after(20, 2), "", false, false },
        { around(10, 5), "8 9 10 11 12", true, true }, { around(1, 4), "1 2 3 4", false, true },
        { around(20, 4), "19 20", true, false },       { around(10, 1), "10", true, true },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        Mesh__Page *page = rig_history(r, "bob", chat, cases[i].ask)->page;
        assert_string_equal(rig_seqs(r, page), cases[i].seqs);
        assert_int_equal(page->has_more, cases[i].more);
        assert_int_equal(page->has_more_after, cases[i].more_after);
        assert_int_equal(page->oldest_available, 1);
        assert_int_equal(page->last_seq, 20);
    }
    Mesh__History start = MESH__HISTORY__INIT;
    start.from_start = true;
    start.limit = 2;
    Mesh__Page *page = rig_history(r, "bob", chat, start)->page;
    assert_string_equal(rig_seqs(r, page), "1 2");
    assert_true(page->has_more);
    assert_string_equal(page->entries[0]->chat, chat);
    assert_int_equal(page->entries[1]->count, 2);
    ASSERT_FAULT(rig_history(r, "eve", chat, start), FAULT_NOT_FOUND);
    ASSERT_FAULT(rig_history(r, "eve", "g9", start), FAULT_NOT_FOUND);
    rig_destroy(r);
}

static void a_page_is_cut_by_bytes(void **state)
{
    (void)state;
    rig *r = rig_ready();
    char *text = mesh_alloc(100001);
    memset(text, 'x', 100000);
    for (int i = 0; i < 5; i++) {
        rig_say(r, "ann", "bob", text);
    }
    Mesh__Page *page = rig_history(r, "ann", rig_direct(r, "ann", "bob"), before(0, 50))->page;
    assert_string_equal(rig_seqs(r, page), "4 5");
    assert_true(page->has_more);
    char *huge = mesh_alloc(500001);
    memset(huge, 'y', 500000);
    rig_say(r, "ann", "bob", huge);
    page = rig_history(r, "ann", rig_direct(r, "ann", "bob"), before(0, 50))->page;
    assert_string_equal(rig_seqs(r, page), "6"); /* one larger than a page goes alone */
    assert_true(page->has_more);
    free(text);
    free(huge);
    rig_destroy(r);
}

/* seq 1 created, 2..3 texts, 4 cat added, 5 text, 6 cat removed, 7 text, 8 cat added, 9 text */
static void story(rig *r, Mesh__HistoryRule rule)
{
    rig_create(r, "ann", "g1", "c", "bob", rule);
    rig_post_text(r, "ann", "g1", "2");
    rig_post_text(r, "ann", "g1", "3");
    rig_edit(r, "ann", "g1", "a1", MESH__EDIT_OP__EDIT_ADD, "cat");
    rig_post_text(r, "ann", "g1", "5");
    rig_edit(r, "ann", "g1", "r1", MESH__EDIT_OP__EDIT_REMOVE, "cat");
    rig_post_text(r, "ann", "g1", "7");
}

static void a_removed_member_sees_up_to_the_removal(void **state)
{
    (void)state;
    rig *r = rig_ready();
    story(r, MESH__HISTORY_RULE__HISTORY_ALL);
    Mesh__Page *page = rig_history(r, "cat", "g1", before(0, 50))->page;
    assert_string_equal(rig_seqs(r, page), "1 2 3 4 5 6");
    assert_int_equal(page->last_seq, 6);
    assert_string_equal(rig_seqs(r, rig_history(r, "cat", "g1", after(5, 50))->page), "6");
    assert_string_equal(rig_seqs(r, rig_history(r, "cat", "g1", around(7, 50))->page), "1 2 3 4 5 6");
    rig_edit(r, "ann", "g1", "a2", MESH__EDIT_OP__EDIT_ADD, "cat");
    assert_string_equal(rig_seqs(r, rig_history(r, "cat", "g1", before(0, 50))->page), "1 2 3 4 5 6 7 8");
    rig_destroy(r);
}

static void from_join_hides_what_was_before_and_between(void **state)
{
    (void)state;
    rig *r = rig_ready();
    story(r, MESH__HISTORY_RULE__HISTORY_FROM_JOIN);
    Mesh__Page *page = rig_history(r, "cat", "g1", before(0, 50))->page;
    assert_string_equal(rig_seqs(r, page), "4 5 6");
    assert_int_equal(page->oldest_available, 4);
    rig_edit(r, "ann", "g1", "a2", MESH__EDIT_OP__EDIT_ADD, "cat");
    rig_post_text(r, "ann", "g1", "9");
    page = rig_history(r, "cat", "g1", before(0, 50))->page;
    assert_string_equal(rig_seqs(r, page), "4 5 6 8 9");
    assert_false(page->has_more);
    assert_string_equal(rig_seqs(r, rig_history(r, "cat", "g1", before(8, 2))->page), "5 6");
    assert_string_equal(rig_seqs(r, rig_history(r, "cat", "g1", after(5, 2))->page), "6 8");
    assert_string_equal(rig_seqs(r, rig_history(r, "cat", "g1", around(7, 2))->page), "6 8");
    assert_string_equal(rig_seqs(r, rig_history(r, "bob", "g1", before(0, 50))->page), "1 2 3 4 5 6 7 8 9");
    rig_destroy(r);
}

/* ---- markers and heads ---- */

static Mesh__Msg *mark_read(rig *r, const char *user, const char *chat, uint64_t seq)
{
    Mesh__Read read = MESH__READ__INIT;
    read.user = rig_q(r, user);
    read.chat = strchr(chat, '/') != NULL ? (char *)(uintptr_t)chat : rig_q(r, chat);
    read.seq = seq;
    MESH_MSG(msg, READ, read, &read);
    msg.key = read.chat;
    return rig_ask(r, &msg);
}

static Mesh__ChatList *heads(rig *r, const char *user, char **chats, size_t n, uint64_t own_count)
{
    Mesh__Heads ask = MESH__HEADS__INIT;
    ask.user = rig_q(r, user);
    ask.chats = mesh_arena_alloc(r->arena, n * sizeof *ask.chats);
    for (size_t i = 0; i < n; i++) {
        ask.chats[i] = mesh_arena_alloc(r->arena, sizeof *ask.chats[i]);
        mesh__head_ask__init(ask.chats[i]);
        ask.chats[i]->chat = chats[i];
        ask.chats[i]->own_count = own_count;
        ask.chats[i]->inbox_seq = 70 + i;
    }
    ask.n_chats = n;
    MESH_MSG(msg, HEADS, heads, &ask);
    msg.key = chats[0];
    Mesh__Msg *answer = rig_ask(r, &msg);
    ASSERT_KIND(answer, CHAT_LIST);
    return answer->chat_list;
}

static void unread_counts_messages_after_the_marker(void **state)
{
    (void)state;
    rig *r = rig_ready();
    char *chat = rig_direct(r, "ann", "bob");
    for (int i = 0; i < 5; i++) {
        rig_say(r, "ann", "bob", "text");
    }
    Mesh__Summary *s = heads(r, "bob", &chat, 1, 0)->chats[0];
    assert_int_equal(s->unread, 5);
    assert_int_equal(s->last->seq, 5);
    assert_string_equal(s->last->chat, chat);
    assert_string_equal(s->peer, "default/ann");
    assert_int_equal(s->kind, MESH__CHAT_KIND__CHAT_DIRECT);
    assert_int_equal(s->inbox_seq, 70);
    assert_int_equal(s->member_count, 2);
    ASSERT_KIND(mark_read(r, "bob", chat, 3), DONE);
    ASSERT_KIND(mark_read(r, "bob", chat, 2), DONE); /* only forward */
    s = heads(r, "bob", &chat, 1, 0)->chats[0];
    assert_int_equal(s->unread, 2);
    assert_int_equal(s->read_seq, 3);
    assert_int_equal(heads(r, "bob", &chat, 1, 4)->chats[0]->unread, 1);
    assert_int_equal(heads(r, "ann", &chat, 1, 5)->chats[0]->unread, 0);
    ASSERT_FAULT(mark_read(r, "bob", chat, 6), FAULT_INVALID);
    ASSERT_FAULT(mark_read(r, "eve", chat, 1), FAULT_NOT_FOUND);
    ASSERT_FAULT(mark_read(r, "eve", "g9", 1), FAULT_NOT_FOUND);
    rig_close(r);
    rig_open(r);
    rig_run(r);
    assert_int_equal(heads(r, "bob", &chat, 1, 0)->chats[0]->unread, 2);
    rig_destroy(r);
}

static void heads_show_only_ones_own_chats(void **state)
{
    (void)state;
    rig *r = rig_ready();
    story(r, MESH__HISTORY_RULE__HISTORY_ALL);
    rig_say(r, "ann", "bob", "secret");
    char *chats[3] = { rig_direct(r, "ann", "bob"), rig_q(r, "g9"), rig_q(r, "g1") };
    Mesh__ChatList *list = heads(r, "cat", chats, 3, 0);
    assert_int_equal(list->n_chats, 1);
    Mesh__Summary *s = list->chats[0];
    assert_string_equal(s->chat, "default/g1");
    assert_int_equal(s->last->seq, 6); /* the removal */
    assert_int_equal(s->last->kind, MESH__ENTRY_KIND__ENTRY_REMOVED);
    assert_int_equal(s->role, MESH__ROLE__ROLE_NONE);
    assert_int_equal(s->unread, 1); /* what was said while there */
    assert_int_equal(s->inbox_seq, 72);
    assert_string_equal(s->name, "the group");
    assert_string_equal(s->peer, "");
    rig_destroy(r);
}

/* ---- inboxes ---- */

static Mesh__AppendResult *append(rig *r, uint64_t seq, uint64_t prev, const char *user)
{
    Mesh__Entry entry = rig_entry(r, rig_q(r, "g1"), seq, "ann", "text");
    Mesh__Msg *answer = rig_append(r, &entry, prev, user);
    ASSERT_KIND(answer, APPENDED);
    assert_int_not_equal(answer->appended->era, 0);
    return answer->appended->results[0];
}

static void an_inbox_takes_each_entry_once_in_order(void **state)
{
    (void)state;
    rig *r = rig_ready();
    Mesh__AppendResult *result = append(r, 3, 0, "bob"); /* joined at 3 */
    assert_int_equal(result->state, MESH__APPEND_STATE__APPEND_DONE);
    assert_int_equal(result->inbox_seq, 1);
    result = append(r, 3, 0, "bob");
    assert_int_equal(result->state, MESH__APPEND_STATE__APPEND_DUP);
    assert_int_equal(result->inbox_seq, 1);
    result = append(r, 5, 4, "bob");
    assert_int_equal(result->state, MESH__APPEND_STATE__APPEND_GAP);
    assert_int_equal(result->expected, 3);
    result = append(r, 4, 3, "bob");
    assert_int_equal(result->state, MESH__APPEND_STATE__APPEND_DONE);
    assert_int_equal(result->inbox_seq, 2);
    result = append(r, 9, 4, "bob"); /* was away from 5 to 8 */
    assert_int_equal(result->state, MESH__APPEND_STATE__APPEND_DONE);
    result = append(r, 7, 6, "bob");
    assert_int_equal(result->state, MESH__APPEND_STATE__APPEND_DUP);
    assert_int_equal(result->inbox_seq, 3);

    rig_close(r);
    rig_open(r);
    rig_run(r);
    assert_int_equal(append(r, 10, 9, "bob")->inbox_seq, 4);
    Mesh__InboxPage *page = rig_inbox(r, "bob", 1, 2);
    assert_int_equal(page->n_entries, 2);
    assert_int_equal(page->head, 4);
    assert_int_equal(page->entries[0]->inbox_seq, 2);
    assert_int_equal(page->entries[0]->entry->seq, 4);
    assert_string_equal(page->entries[0]->entry->chat, "default/g1");
    assert_int_equal(page->entries[1]->entry->seq, 9);
    assert_int_equal(rig_inbox(r, "bob", 4, 2)->n_entries, 0);
    assert_int_equal(rig_inbox(r, "nobody", 0, 2)->head, 0);
    rig_destroy(r);
}

static void many_users_are_answered_in_order(void **state)
{
    (void)state;
    rig *r = rig_ready();
    append(r, 1, 0, "bob");
    Mesh__Entry entry = rig_entry(r, rig_q(r, "g1"), 2, "ann", "text");
    Mesh__Appended *appended = rig_append(r, &entry, 1, "ann bob ann")->appended;
    assert_int_equal(appended->n_results, 3);
    assert_int_equal(appended->results[0]->state, MESH__APPEND_STATE__APPEND_GAP);
    assert_int_equal(appended->results[1]->state, MESH__APPEND_STATE__APPEND_DONE);
    assert_int_equal(appended->results[2]->state, MESH__APPEND_STATE__APPEND_GAP);
    rig_destroy(r);
}

static void long_bodies_are_read_from_the_chat(void **state)
{
    (void)state;
    rig *r = rig_ready();
    char text[2000];
    memset(text, 'x', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    rig_say(r, "ann", "bob", text);
    Mesh__Entry *stored = rig_history(r, "bob", rig_direct(r, "ann", "bob"), before(0, 5))->page->entries[0];
    rig_append(r, stored, 0, "bob ann");
    store_key key;
    mesh_buf value = { 0 };
    store_key_inbox(&key, mesh_id_slot(mesh_conf_hash_key(r->conf), "default/bob"), "default/bob", 1);
    assert_int_equal(store_kv_get(r->kv, store_key_slice(&key), &value), MESH_OK);
    assert_true(value.size < 300);
    mesh_buf_fini(&value);
    Mesh__Entry *read = rig_inbox(r, "bob", 0, 5)->entries[0]->entry;
    assert_int_equal(read->body.len, sizeof text - 1);
    assert_false(read->body_elsewhere);
    assert_string_equal(read->chat, stored->chat);
    assert_int_equal(read->id, stored->id);
    rig_destroy(r);
}

static void a_deposed_router_is_refused(void **state)
{
    (void)state;
    rig *r = rig_ready();
    append(r, 1, 0, "bob");
    r->epoch = 5;
    ASSERT_KIND(rig_hello(r, "bob", "phone", 0, UINT64_MAX), ATTACHED);
    r->epoch = 4;
    Mesh__AppendResult *result = append(r, 2, 1, "bob");
    assert_int_equal(result->state, MESH__APPEND_STATE__APPEND_REFUSED);
    Mesh__Msg *answer = rig_hello(r, "bob", "phone", 0, UINT64_MAX);
    ASSERT_FAULT(answer, FAULT_NOT_OWNER);
    assert_int_equal(answer->fault->expected, 5);
    rig_close(r);
    rig_open(r);
    rig_run(r);
    ASSERT_FAULT(rig_hello(r, "bob", "phone", 0, UINT64_MAX), FAULT_NOT_OWNER);
    r->epoch = 5;
    assert_int_equal(append(r, 2, 1, "bob")->state, MESH__APPEND_STATE__APPEND_DONE);
    rig_destroy(r);
}

static void a_cursor_that_cannot_be_served_gets_resync(void **state)
{
    (void)state;
    rig *r = rig_ready();
    for (uint64_t seq = 1; seq <= 5; seq++) {
        append(r, seq, seq - 1, "bob");
    }
    Mesh__Attached *a = rig_hello(r, "bob", "phone", 0, UINT64_MAX)->attached;
    assert_true(a->resync);
    assert_int_equal(a->head, 5);
    assert_int_equal(a->after, 5);
    uint64_t era = a->era;
    a = rig_hello(r, "bob", "phone", era, 2)->attached;
    assert_false(a->resync);
    assert_int_equal(a->after, 2);
    assert_true(rig_hello(r, "bob", "phone", era + 1, 2)->attached->resync);
    assert_true(rig_hello(r, "bob", "phone", era, 6)->attached->resync);
    assert_false(rig_hello(r, "bob", "phone", era, 5)->attached->resync);
    assert_false(rig_hello(r, "new", "phone", era, 0)->attached->resync);
    rig_destroy(r);
}

static void the_later_hello_wins(void **state)
{
    (void)state;
    rig *r = rig_ready();
    Mesh__Attached *first = rig_hello(r, "bob", "phone", 0, UINT64_MAX)->attached;
    assert_int_equal(first->generation, 1);
    Mesh__Attach again = MESH__ATTACH__INIT;
    again.session = 1;
    again.has_cursor = true;
    again.era = first->era;
    again.generation = 1;
    Mesh__Msg *answer = rig_attach(r, &again, "bob", "phone");
    ASSERT_KIND(answer, ATTACHED);
    assert_int_equal(answer->attached->generation, 1);
    assert_int_equal(rig_hello(r, "bob", "phone", 0, UINT64_MAX)->attached->generation, 2);
    ASSERT_FAULT(rig_attach(r, &again, "bob", "phone"), FAULT_REPLACED);
    ASSERT_KIND(rig_attach(r, &again, "bob", "tablet"), ATTACHED);
    rig_destroy(r);
}

/* generation 0: a fresh hello */
static Mesh__Msg *attach_of(rig *r, uint64_t attempt, uint64_t generation)
{
    Mesh__Attach attach = MESH__ATTACH__INIT;
    attach.session = 100 + attempt;
    attach.fresh = generation == 0;
    attach.generation = generation;
    attach.attempt = attempt;
    return rig_attach(r, &attach, "bob", "phone");
}

static uint64_t generation_of(rig *r, uint64_t attempt, uint64_t generation)
{
    Mesh__Msg *answer = attach_of(r, attempt, generation);
    ASSERT_KIND(answer, ATTACHED);
    return answer->attached->generation;
}

static void an_older_attempt_does_not_raise_the_generation(void **state)
{
    (void)state;
    rig *r = rig_ready();
    assert_int_equal(generation_of(r, 7, 0), 1);
    assert_int_equal(generation_of(r, 7, 0), 1); /* asked again: its answer was lost */
    rig_sleep(r, 50000);
    ASSERT_FAULT(attach_of(r, 6, 0), FAULT_REPLACED);
    assert_int_equal(generation_of(r, 7, 1), 1); /* nothing has changed; heard of again */
    rig_sleep(r, 50000);
    ASSERT_FAULT(attach_of(r, 6, 0), FAULT_REPLACED);
    assert_int_equal(generation_of(r, 8, 0), 2);
    ASSERT_FAULT(attach_of(r, 7, 1), FAULT_REPLACED);
    rig_close(r);
    rig_open(r);
    rig_run(r);
    ASSERT_FAULT(attach_of(r, 7, 0), FAULT_REPLACED);
    assert_int_equal(generation_of(r, 8, 2), 2);
    rig_destroy(r);
}

static void a_device_that_stops_counting_gets_in(void **state)
{
    (void)state;
    rig *r = rig_ready();
    ASSERT_KIND(attach_of(r, 7, 0), ATTACHED);
    assert_int_equal(generation_of(r, 0, 0), 2);
    ASSERT_FAULT(attach_of(r, 7, 1), FAULT_REPLACED); /* by the generation: the row has no number any more */
    assert_int_equal(generation_of(r, 3, 0), 3);
    rig_destroy(r);
}

/* Its clock was set back, and it kept nothing: it is let in when the device was not heard of for a minute. */
static void a_lower_attempt_gets_in_after_a_minute(void **state)
{
    (void)state;
    rig *r = rig_ready();
    ASSERT_KIND(attach_of(r, 1000, 0), ATTACHED);
    rig_sleep(r, 59000);
    ASSERT_FAULT(attach_of(r, 5, 0), FAULT_REPLACED); /* which does not count as heard of */
    rig_sleep(r, 1100);
    assert_int_equal(generation_of(r, 5, 0), 2);
    ASSERT_FAULT(attach_of(r, 4, 0), FAULT_REPLACED);
    r->now.wall -= 61000; /* the store's own clock */
    assert_int_equal(generation_of(r, 3, 0), 3);
    rig_destroy(r);
}

/* What an older hello got in that minute's absence is taken back by the session that is still there. */
static void a_higher_attempt_takes_the_row_back(void **state)
{
    (void)state;
    rig *r = rig_ready();
    ASSERT_KIND(attach_of(r, 7, 0), ATTACHED);
    rig_sleep(r, 61000);
    assert_int_equal(generation_of(r, 6, 0), 2);
    assert_int_equal(generation_of(r, 7, 1), 3);
    ASSERT_FAULT(attach_of(r, 6, 2), FAULT_REPLACED);
    assert_int_equal(generation_of(r, 7, 9), 9);
    rig_destroy(r);
}

static void the_longest_unused_device_is_dropped(void **state)
{
    (void)state;
    rig *r = rig_ready();
    for (unsigned i = 0; i <= STORE_DEVICES_MAX; i++) {
        char device[16];
        snprintf(device, sizeof device, "dev%02u", (i + 5) % 40);
        r->now.wall += 1000;
        ASSERT_KIND(rig_hello(r, "bob", device, 0, UINT64_MAX), ATTACHED);
    }
    assert_int_equal(rig_rows(r, "v"), STORE_DEVICES_MAX);
    ASSERT_FAULT(rig_ack(r, "bob", "dev05", 0), FAULT_NOT_FOUND); /* the first one */
    ASSERT_KIND(rig_ack(r, "bob", "dev06", 0), DONE);
    rig_destroy(r);
}

static void cursors_only_move_forward(void **state)
{
    (void)state;
    rig *r = rig_ready();
    uint64_t era = rig_hello(r, "bob", "phone", 0, UINT64_MAX)->attached->era;
    for (uint64_t seq = 1; seq <= 300; seq++) {
        append(r, seq, seq - 1, "bob");
    }
    ASSERT_FAULT(rig_ack(r, "bob", "phone", 301), FAULT_ACK_BEYOND);
    ASSERT_KIND(rig_ack(r, "bob", "phone", 100), DONE);
    ASSERT_KIND(rig_ack(r, "bob", "phone", 50), DONE);
    assert_int_equal(rig_rows(r, "i"), 300);
    ASSERT_KIND(rig_ack(r, "bob", "phone", 200), DONE); /* passes 128 */
    assert_int_equal(rig_rows(r, "i"), 100);
    assert_true(rig_inbox(r, "bob", 199, 5)->trimmed);
    assert_false(rig_inbox(r, "bob", 200, 5)->trimmed);
    assert_int_equal(rig_inbox(r, "bob", 200, 5)->entries[0]->inbox_seq, 201);
    ASSERT_KIND(rig_ack(r, "bob", "phone", 300), DONE); /* the last row stays: it is the head */
    assert_int_equal(rig_rows(r, "i"), 1);
    assert_false(rig_hello(r, "bob", "phone", era, 299)->attached->resync);
    assert_true(rig_hello(r, "bob", "phone", era, 298)->attached->resync);
    rig_close(r);
    rig_open(r);
    rig_run(r);
    assert_int_equal(append(r, 301, 300, "bob")->inbox_seq, 301);
    assert_true(rig_inbox(r, "bob", 298, 5)->trimmed);
    rig_destroy(r);
}

static void the_slowest_device_holds_its_rows_for_a_month(void **state)
{
    (void)state;
    rig *r = rig_ready();
    uint64_t era = rig_hello(r, "bob", "phone", 0, UINT64_MAX)->attached->era;
    rig_hello(r, "bob", "tablet", 0, UINT64_MAX);
    for (uint64_t seq = 1; seq <= 600; seq++) {
        append(r, seq, seq - 1, "bob");
    }
    rig_ack(r, "bob", "phone", 500);
    assert_int_equal(rig_rows(r, "i"), 600);
    Mesh__Attach again = MESH__ATTACH__INIT; /* forwarded 400, acked 130: the tablet keeps 130 */
    again.has_cursor = true;
    again.era = era;
    again.generation = 1;
    again.after = 400;
    again.acked = 130;
    ASSERT_KIND(rig_attach(r, &again, "bob", "tablet"), ATTACHED);
    rig_ack(r, "bob", "phone", 520);
    assert_int_equal(rig_rows(r, "i"), 470);
    r->now.wall += STORE_INBOX_KEEP_MS + 1000;
    append(r, 601, 600, "bob");
    rig_ack(r, "bob", "phone", 601);
    rig_ack(r, "bob", "phone", 601);
    assert_int_equal(rig_rows(r, "i"), 470 + 1); /* no multiple of 128 was passed */
    for (uint64_t seq = 602; seq <= 650; seq++) {
        append(r, seq, seq - 1, "bob");
    }
    rig_ack(r, "bob", "phone", 650);
    assert_int_equal(rig_rows(r, "i"), 50); /* old ones are gone, the young ones stay for the tablet */
    assert_true(rig_hello(r, "bob", "tablet", era, 130)->attached->resync);
    rig_destroy(r);
}

static void a_name_is_kept(void **state)
{
    (void)state;
    rig *r = rig_ready();
    Mesh__Profile profile = MESH__PROFILE__INIT;
    profile.user = rig_q(r, "bob");
    profile.name = mesh_arena_strdup(r->arena, "Bob");
    MESH_MSG(msg, PROFILE, profile, &profile);
    msg.key = profile.user;
    ASSERT_KIND(rig_ask(r, &msg), DONE);
    rig_close(r);
    rig_open(r);
    rig_run(r);
    assert_string_equal(rig_hello(r, "bob", "phone", 0, UINT64_MAX)->attached->name, "Bob");
    rig_destroy(r);
}

static Mesh__UserChatPage *user_chats(rig *r, const char *user, uint64_t before_seq, uint32_t limit)
{
    Mesh__UserChats ask = MESH__USER_CHATS__INIT;
    ask.user = rig_q(r, user);
    ask.before = before_seq;
    ask.limit = limit;
    MESH_MSG(msg, USER_CHATS, user_chats, &ask);
    msg.key = ask.user;
    Mesh__Msg *answer = rig_ask(r, &msg);
    ASSERT_KIND(answer, USER_CHAT_PAGE);
    return answer->user_chat_page;
}

static void chats_come_newest_first(void **state)
{
    (void)state;
    rig *r = rig_ready();
    for (int i = 0; i < 7; i++) {
        char chat[8];
        snprintf(chat, sizeof chat, "g%d", (i * 3) % 7);
        Mesh__Entry entry = rig_entry(r, rig_q(r, chat), 1, i == 6 ? "bob" : "ann", "text");
        rig_append(r, &entry, 0, "bob");
    }
    Mesh__UserChatPage *page = user_chats(r, "bob", 0, 3);
    assert_int_equal(page->n_chats, 3);
    assert_true(page->has_more);
    assert_string_equal(page->chats[0]->chat, "default/g4");
    assert_int_equal(page->chats[0]->inbox_seq, 7);
    assert_int_equal(page->chats[0]->own_count, 1);
    assert_int_equal(page->chats[1]->own_count, 0);
    page = user_chats(r, "bob", page->chats[2]->inbox_seq, 10);
    assert_int_equal(page->n_chats, 4);
    assert_false(page->has_more);
    assert_int_equal(page->chats[0]->inbox_seq, 4);
    assert_int_equal(page->chats[3]->inbox_seq, 1);
    assert_int_equal(user_chats(r, "bob", 0, 7)->has_more, false);
    assert_int_equal(user_chats(r, "nobody", 0, 0)->n_chats, 0);
    rig_destroy(r);
}

/* ---- what is refused ---- */

static void nonsense_is_counted_and_dropped(void **state)
{
    (void)state;
    rig *r = rig_ready();
    uint64_t bad = mesh_stats_get(store_core_stats(r->core), STORE_M_BAD_MESSAGES);
    Mesh__Send good = rig_send_body(r, "ann", rig_direct(r, "ann", "bob"), "bob", "a", "hi");
    Mesh__Send sends[6];
    for (int i = 0; i < 6; i++) {
        sends[i] = good;
    }
    char *key = good.chat;
    static char empty[] = "", bare[] = "ann", other[] = "other/bob", bad_id[] = "a b";
    sends[0].user = bare;
    sends[1].user = empty;
    sends[2].peer = other; /* another tenant's */
    sends[3].client_msg_id = empty;
    sends[4].client_msg_id = bad_id;
    sends[5].chat = other;
    for (int i = 0; i < 6; i++) {
        MESH_MSG(msg, SEND, send, &sends[i]);
        msg.key = key;
        ASSERT_FAULT(rig_ask(r, &msg), FAULT_MALFORMED);
    }
    MESH_MSG(unkeyed, SEND, send, &good);
    ASSERT_FAULT(rig_ask(r, &unkeyed), FAULT_MALFORMED);
    Mesh__Genesis genesis = MESH__GENESIS__INIT; /* only the store says this, and only to itself */
    MESH_MSG(own, GENESIS, genesis, &genesis);
    ASSERT_FAULT(rig_ask(r, &own), FAULT_MALFORMED);
    MESH_MSG(edge, SEND, send, &good);
    edge.key = key;
    ASSERT_FAULT(rig_ask_from(r, RIG_EDGE, &edge), FAULT_MALFORMED);
    Mesh__Append append_bad = MESH__APPEND__INIT; /* no entry */
    MESH_MSG(hollow, APPEND, append, &append_bad);
    ASSERT_FAULT(rig_ask(r, &hollow), FAULT_MALFORMED);
    rig_forget(r);
    hollow.corr = 0;
    rig_give(r, RIG_R1, &hollow);
    rig_run(r);
    assert_int_equal(r->n_seen, 0);
    assert_int_equal(mesh_stats_get(store_core_stats(r->core), STORE_M_BAD_MESSAGES) - bad, 11);
    assert_int_equal(rig_rows(r, "m"), 0);
    rig_destroy(r);
}

static void without_space_writes_are_refused_and_reads_go_on(void **state)
{
    (void)state;
    rig *r = rig_ready();
    rig_say(r, "ann", "bob", "hi");
    store_core_set_space(r->core, false);
    char *chat = rig_direct(r, "ann", "bob");
    ASSERT_FAULT(rig_send(r, "ann", chat, "bob", "x", "hi"), FAULT_DISK_FULL);
    ASSERT_KIND(rig_history(r, "ann", chat, before(0, 5)), PAGE);
    ASSERT_KIND(rig_hello(r, "ann", "phone", 0, UINT64_MAX), ATTACHED);
    store_core_set_space(r->core, true);
    ASSERT_KIND(rig_send(r, "ann", chat, "bob", "x", "hi"), SENT);
    rig_destroy(r);
}

static void too_much_at_once_is_busy(void **state)
{
    (void)state;
    rig *r = rig_ready();
    char *text = mesh_alloc(400001);
    memset(text, 'x', 400000);
    uint64_t corr = 0;
    unsigned n = 0;
    for (; n < 60 && (corr == 0 || rig_answer(r, corr) == NULL); n++) {
        Mesh__Send send = rig_send_body(r, "ann", rig_direct(r, "ann", "bob"), "bob", rig_id(r), text);
        MESH_MSG(msg, SEND, send, &send);
        msg.key = send.chat;
        corr = rig_post(r, RIG_R1, &msg);
    }
    ASSERT_FAULT(rig_answer(r, corr), FAULT_BUSY);
    assert_int_equal(n, STORE_GATHER_MAX / 400000 + 2);
    rig_run(r);
    assert_int_equal(rig_rows(r, "m"), n - 1);
    ASSERT_KIND(rig_send(r, "ann", rig_direct(r, "ann", "bob"), "bob", "x", "hi"), SENT);
    free(text);
    rig_destroy(r);
}

static void a_failed_disk_ends_it(void **state)
{
    (void)state;
    rig *r = rig_ready();
    sim_disk_fail(r->disk, MESH_NO_SPACE);
    Mesh__Send send = rig_send_body(r, "ann", rig_direct(r, "ann", "bob"), "bob", "a", "hi");
    MESH_MSG(msg, SEND, send, &send);
    msg.key = send.chat;
    uint64_t corr = rig_post(r, RIG_R1, &msg);
    rig_run(r);
    rig_run(r);
    assert_null(rig_answer(r, corr));
    assert_int_equal(store_core_error(r->core), MESH_NO_SPACE);
    sim_disk_fail(r->disk, MESH_OK);
    rig_close(r);
    rig_open(r);
    rig_run(r);
    ASSERT_KIND(rig_send(r, "ann", rig_direct(r, "ann", "bob"), "bob", "a", "hi"), SENT);
    rig_destroy(r);
}

static void a_router_that_is_gone_gets_no_answer(void **state)
{
    (void)state;
    rig *r = rig_ready();
    Mesh__Send send = rig_send_body(r, "ann", rig_direct(r, "ann", "bob"), "bob", "a", "hi");
    MESH_MSG(msg, SEND, send, &send);
    msg.key = send.chat;
    uint64_t corr = rig_post(r, RIG_R1, &msg);
    rig_turn(r);
    store_core_down(r->core, RIG_R1, r->now, r->out);
    store_core_up(r->core, RIG_R1, 12, r->now, r->out);
    rig_run(r);
    assert_null(rig_answer(r, corr));
    assert_true(rig_send(r, "ann", send.chat, "bob", "a", "hi")->sent->dup);
    rig_destroy(r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(new_database_gets_an_era_first),
        cmocka_unit_test(data_of_another_cluster_is_refused),
        cmocka_unit_test(first_message_makes_the_direct_chat),
        cmocka_unit_test(ids_grow_when_the_clock_goes_back),
        cmocka_unit_test(a_repeated_send_is_answered_from_the_first),
        cmocka_unit_test(the_same_send_twice_in_one_entry_is_stored_once),
        cmocka_unit_test(nothing_is_acked_before_it_is_synced),
        cmocka_unit_test(sends_gather_while_others_are_written),
        cmocka_unit_test(who_may_not_send_finds_nothing),
        cmocka_unit_test(a_group_is_made_once),
        cmocka_unit_test(a_group_has_room_for_a_thousand),
        cmocka_unit_test(a_direct_chat_is_the_same_from_both_sides),
        cmocka_unit_test(only_the_owner_edits_a_group),
        cmocka_unit_test(an_owner_who_leaves_passes_it_on),
        cmocka_unit_test(being_added_again_has_a_limit),
        cmocka_unit_test(history_pages_both_ways),
        cmocka_unit_test(a_page_is_cut_by_bytes),
        cmocka_unit_test(a_removed_member_sees_up_to_the_removal),
        cmocka_unit_test(from_join_hides_what_was_before_and_between),
        cmocka_unit_test(unread_counts_messages_after_the_marker),
        cmocka_unit_test(heads_show_only_ones_own_chats),
        cmocka_unit_test(an_inbox_takes_each_entry_once_in_order),
        cmocka_unit_test(many_users_are_answered_in_order),
        cmocka_unit_test(long_bodies_are_read_from_the_chat),
        cmocka_unit_test(a_deposed_router_is_refused),
        cmocka_unit_test(a_cursor_that_cannot_be_served_gets_resync),
        cmocka_unit_test(the_later_hello_wins),
        cmocka_unit_test(an_older_attempt_does_not_raise_the_generation),
        cmocka_unit_test(a_device_that_stops_counting_gets_in),
        cmocka_unit_test(a_lower_attempt_gets_in_after_a_minute),
        cmocka_unit_test(a_higher_attempt_takes_the_row_back),
        cmocka_unit_test(the_longest_unused_device_is_dropped),
        cmocka_unit_test(cursors_only_move_forward),
        cmocka_unit_test(the_slowest_device_holds_its_rows_for_a_month),
        cmocka_unit_test(a_name_is_kept),
        cmocka_unit_test(chats_come_newest_first),
        cmocka_unit_test(nonsense_is_counted_and_dropped),
        cmocka_unit_test(without_space_writes_are_refused_and_reads_go_on),
        cmocka_unit_test(too_much_at_once_is_busy),
        cmocka_unit_test(a_failed_disk_ends_it),
        cmocka_unit_test(a_router_that_is_gone_gets_no_answer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
