/* What one answer holds and what one request may hold: pages by bytes and by rows, previews, fields. */
#include "store/chat.h"
#include "store/fsm.h"
#include "tests/unit/store_rig.h"

#define GROUP "g1"

static char *filled(rig *r, size_t n)
{
    char *text = mesh_arena_alloc(r->arena, n + 1);
    memset(text, 'x', n);
    return text;
}

static Mesh__History asked(uint64_t after, uint64_t before, uint64_t around)
{
    Mesh__History h = MESH__HISTORY__INIT;
    h.limit = STORE_PAGE_ROWS + 1;
    h.after = after;
    h.before = before;
    h.around = around;
    h.from_start = after == 0 && before == 0 && around == 0;
    return h;
}

static Mesh__Page *page_of(rig *r, Mesh__History ask)
{
    Mesh__Msg *answer = rig_history(r, "ann", GROUP, ask);
    ASSERT_KIND(answer, PAGE);
    assert_true(answer->page->n_entries > 0);
    return answer->page;
}

/* ---- pages by bytes ---- */

static size_t bytes_of(Mesh__Entry *const *entries, size_t n)
{
    size_t bytes = 0;
    for (size_t i = 0; i < n; i++) {
        bytes += entries[i]->body.len;
    }
    return bytes;
}

/* No page is larger than its bytes, unless one entry is; and none is cut while the next would have had room. */
static void assert_fits(const Mesh__Page *page, const size_t *sizes, uint64_t next)
{
    size_t bytes = bytes_of(page->entries, page->n_entries);
    assert_true(page->n_entries == 1 || bytes <= STORE_PAGE_BYTES);
    assert_true(next == 0 || bytes + sizes[next] + 200 * (page->n_entries + 1) > STORE_PAGE_BYTES);
}

enum { ENTRIES = 40 };

/* A group of ann's with entries of many sizes; sizes[seq] is the size of an entry's body. */
static void story(rig *r, size_t sizes[ENTRIES + 2])
{
    ASSERT_KIND(rig_create(r, "ann", GROUP, "c", "", MESH__HISTORY_RULE__HISTORY_ALL), SENT);
    sizes[1] = 0;
    for (uint64_t seq = 2; seq <= ENTRIES; seq++) {
        sizes[seq] = seq % 10 == 5 ? STORE_PAGE_BYTES + 1000 : seq % 7 * 20000 + 10;
        ASSERT_KIND(rig_post_text(r, "ann", GROUP, filled(r, sizes[seq])), SENT);
    }
}

static void history_is_cut_by_bytes(void **state)
{
    (void)state;
    size_t sizes[ENTRIES + 2];
    rig *r = rig_ready();
    story(r, sizes);
    for (uint64_t at = 0; at < ENTRIES;) { /* onwards */
        Mesh__Page *page = page_of(r, asked(at, 0, 0));
        for (size_t i = 0; i < page->n_entries; i++) {
            assert_int_equal(page->entries[i]->seq, ++at);
            assert_int_equal(page->entries[i]->body.len, sizes[at]);
        }
        assert_int_equal(page->has_more, at < ENTRIES);
        assert_fits(page, sizes, at < ENTRIES ? at + 1 : 0);
    }
    for (uint64_t at = ENTRIES + 1; at > 1;) { /* and back */
        Mesh__Page *page = page_of(r, asked(0, at, 0));
        for (size_t i = page->n_entries; i-- > 0;) {
            assert_int_equal(page->entries[i]->seq, --at);
        }
        assert_int_equal(page->has_more, at > 1);
        assert_fits(page, sizes, at - 1);
    }
    rig_destroy(r);
}

static void what_is_around_is_cut_by_bytes(void **state)
{
    (void)state;
    size_t sizes[ENTRIES + 2];
    rig *r = rig_ready();
    story(r, sizes);
    for (uint64_t seq = 1; seq <= ENTRIES; seq++) {
        Mesh__Page *page = page_of(r, asked(0, 0, seq));
        uint64_t first = page->entries[0]->seq;
        uint64_t last = first + page->n_entries - 1;
        assert_in_range(seq, first, last);
        assert_int_equal(page->entries[page->n_entries - 1]->seq, last);
        assert_true(page->n_entries == 1 || bytes_of(page->entries, page->n_entries) <= STORE_PAGE_BYTES);
        assert_int_equal(page->has_more, first > 1);
        assert_int_equal(page->has_more_after, last < ENTRIES);
    }
    rig_destroy(r);
}

static void inbox_pages_are_cut_by_bytes(void **state)
{
    (void)state;
    size_t sizes[ENTRIES + 2];
    rig *r = rig_ready();
    story(r, sizes);
    for (uint64_t at = 0; at < ENTRIES;) {
        Mesh__Page *page = page_of(r, asked(at, 0, 0));
        for (size_t i = 0; i < page->n_entries; i++, at++) {
            Mesh__Msg *answer = rig_append(r, page->entries[i], at, "zoe");
            ASSERT_KIND(answer, APPENDED);
            assert_int_equal(answer->appended->results[0]->state, MESH__APPEND_STATE__APPEND_DONE);
        }
    }
    for (uint64_t at = 0; at < ENTRIES;) {
        Mesh__InboxPage *page = rig_inbox(r, "zoe", at, 2 * STORE_PAGE_ROWS);
        assert_int_equal(page->head, ENTRIES);
        assert_true(page->n_entries > 0);
        size_t bytes = 0;
        for (size_t i = 0; i < page->n_entries; i++) {
            assert_int_equal(page->entries[i]->inbox_seq, ++at);
            assert_int_equal(page->entries[i]->entry->seq, at);
            assert_int_equal(page->entries[i]->entry->body.len, sizes[at]);
            bytes += sizes[at];
        }
        assert_true(page->n_entries == 1 || bytes <= STORE_PAGE_BYTES);
        assert_true(at == ENTRIES || bytes + sizes[at + 1] + 200 * (page->n_entries + 1) > STORE_PAGE_BYTES);
    }
    rig_destroy(r);
}

/* ---- pages by rows ---- */

static void pages_have_so_many_rows(void **state)
{
    (void)state;
    enum { N = 2 * STORE_PAGE_ROWS + 1 };
    rig *r = rig_ready();
    ASSERT_KIND(rig_create(r, "ann", GROUP, "c", "", MESH__HISTORY_RULE__HISTORY_ALL), SENT);
    for (unsigned i = 1; i < N; i++) {
        ASSERT_KIND(rig_post_text(r, "ann", GROUP, "x"), SENT);
    }
    static const size_t wanted[] = { STORE_PAGE_ROWS, STORE_PAGE_ROWS, 1 };
    uint64_t at = 0;
    for (size_t p = 0; p < 3; p++) {
        Mesh__Page *page = page_of(r, asked(at, 0, 0));
        assert_int_equal(page->n_entries, wanted[p]);
        assert_int_equal(page->has_more, p < 2);
        for (size_t i = 0; i < page->n_entries; i++, at++) {
            assert_int_equal(page->entries[i]->seq, at + 1);
            ASSERT_KIND(rig_append(r, page->entries[i], at, "zoe"), APPENDED);
        }
    }
    at = 0;
    for (size_t p = 0; p < 3; p++) {
        Mesh__InboxPage *page = rig_inbox(r, "zoe", at, p == 0 ? STORE_PAGE_ROWS + 1 : UINT32_MAX);
        assert_int_equal(page->n_entries, wanted[p]);
        at += page->n_entries;
        assert_int_equal(page->entries[page->n_entries - 1]->inbox_seq, at);
    }
    rig_destroy(r);
}

static void lists_of_members_have_so_many_rows(void **state)
{
    (void)state;
    rig *r = rig_ready();
    char names[(2 * STORE_PAGE_ROWS + 1) * 8] = "";
    size_t at = 0;
    for (unsigned i = 0; i < 2 * STORE_PAGE_ROWS; i++) {
        at += (size_t)snprintf(names + at, sizeof names - at, "u%04u ", i);
    }
    ASSERT_KIND(rig_create(r, "ann", GROUP, "c", names, MESH__HISTORY_RULE__HISTORY_ALL), SENT);
    static const size_t wanted[] = { STORE_PAGE_ROWS, STORE_PAGE_ROWS, 1 };
    char *last = mesh_arena_strdup(r->arena, "");
    for (size_t p = 0; p < 3; p++) {
        Mesh__Members ask = MESH__MEMBERS__INIT;
        ask.user = rig_q(r, "ann");
        ask.chat = rig_q(r, GROUP);
        ask.limit = p == 0 ? STORE_PAGE_ROWS + 1 : UINT32_MAX;
        ask.after = last;
        MESH_MSG(msg, MEMBERS, members, &ask);
        msg.key = ask.chat;
        Mesh__MemberList *list = rig_ask(r, &msg)->member_list;
        assert_int_equal(list->n_members, wanted[p]);
        assert_int_equal(list->has_more, p < 2);
        assert_true(strcmp(list->members[0]->user, last) > 0);
        last = list->members[list->n_members - 1]->user;
    }
    assert_string_equal(last, "default/u0399");
    rig_destroy(r);
}

/* ---- lists of chats ---- */

enum { CHATS_LIMIT = 100, PREVIEW_BYTES = 256 }; /* of store/read.c */

static Mesh__UserChatPage *user_chats(rig *r, uint64_t before)
{
    Mesh__UserChats ask = MESH__USER_CHATS__INIT;
    ask.user = rig_q(r, "zoe");
    ask.limit = before == 0 ? CHATS_LIMIT + 1 : UINT32_MAX;
    ask.before = before;
    MESH_MSG(msg, USER_CHATS, user_chats, &ask);
    msg.key = ask.user;
    Mesh__Msg *answer = rig_ask(r, &msg);
    ASSERT_KIND(answer, USER_CHAT_PAGE);
    return answer->user_chat_page;
}

static void lists_of_chats_have_so_many_rows(void **state)
{
    (void)state;
    rig *r = rig_ready();
    for (unsigned i = 1; i <= 2 * CHATS_LIMIT + 1; i++) {
        char chat[16];
        snprintf(chat, sizeof chat, "c%u", i);
        Mesh__Entry entry = rig_entry(r, rig_q(r, chat), 1, "ann", "text");
        ASSERT_KIND(rig_append(r, &entry, 0, "zoe"), APPENDED);
    }
    static const size_t wanted[] = { CHATS_LIMIT, CHATS_LIMIT, 1 };
    uint64_t before = 0;
    uint64_t next = 2 * CHATS_LIMIT + 1;
    for (size_t p = 0; p < 3; p++) {
        Mesh__UserChatPage *page = user_chats(r, before);
        assert_int_equal(page->n_chats, wanted[p]);
        assert_int_equal(page->has_more, p < 2);
        for (size_t i = 0; i < page->n_chats; i++) {
            assert_int_equal(page->chats[i]->inbox_seq, next--);
        }
        before = next + 1;
    }
    rig_destroy(r);
}

static Mesh__Msg *heads(rig *r, char **chats, size_t n)
{
    Mesh__Heads ask = MESH__HEADS__INIT;
    ask.user = rig_q(r, "ann");
    ask.chats = mesh_arena_alloc(r->arena, n * sizeof *ask.chats);
    ask.n_chats = n;
    for (size_t i = 0; i < n; i++) {
        ask.chats[i] = mesh_arena_alloc(r->arena, sizeof *ask.chats[i]);
        mesh__head_ask__init(ask.chats[i]);
        ask.chats[i]->chat = chats[i];
    }
    MESH_MSG(msg, HEADS, heads, &ask);
    msg.key = chats[0];
    return rig_ask(r, &msg);
}

/* Whole last entries as far as a page's bytes go; of the others their beginnings, not cut within a character. */
static void lists_of_chats_end_in_previews(void **state)
{
    (void)state;
    enum { SIZE = 120000, N = 6, WHOLE = STORE_PAGE_BYTES / SIZE };
    rig *r = rig_ready();
    char *chats[N];
    for (int i = 0; i < N; i++) {
        char chat[16];
        snprintf(chat, sizeof chat, "g%d", i);
        chats[i] = rig_q(r, chat);
        char *text = filled(r, SIZE);
        memcpy(text + PREVIEW_BYTES - 1, "\xe2\x82\xac", 3); /* begins as the last byte of a preview */
        ASSERT_KIND(rig_create(r, "ann", chat, chat, "", MESH__HISTORY_RULE__HISTORY_ALL), SENT);
        ASSERT_KIND(rig_post_text(r, "ann", chat, text), SENT);
    }
    Mesh__Msg *answer = heads(r, chats, N);
    ASSERT_KIND(answer, CHAT_LIST);
    assert_int_equal(answer->chat_list->n_chats, N);
    for (size_t i = 0; i < N; i++) {
        assert_int_equal(answer->chat_list->chats[i]->last->body.len, i < WHOLE ? SIZE : PREVIEW_BYTES - 1);
    }
    rig_destroy(r);
}

static void so_many_heads_are_asked_for(void **state)
{
    (void)state;
    rig *r = rig_ready();
    ASSERT_KIND(rig_create(r, "ann", GROUP, "c", "", MESH__HISTORY_RULE__HISTORY_ALL), SENT);
    char *chats[STORE_PAGE_ROWS + 1];
    for (size_t i = 0; i < STORE_PAGE_ROWS + 1; i++) {
        chats[i] = rig_q(r, GROUP);
    }
    assert_int_equal(heads(r, chats, STORE_PAGE_ROWS)->chat_list->n_chats, STORE_PAGE_ROWS);
    ASSERT_FAULT(heads(r, chats, STORE_PAGE_ROWS + 1), FAULT_MALFORMED);
    rig_destroy(r);
}

/* ---- fields ---- */

typedef struct fields {
    size_t name, type, n_attachments, ref, file_name, file_type;
} fields;

static Mesh__Msg *send_with(rig *r, fields f)
{
    Mesh__Send send = rig_send_body(r, "ann", rig_direct(r, "ann", "bob"), "bob", rig_id(r), "text");
    Mesh__Attachment a = MESH__ATTACHMENT__INIT;
    a.ref = filled(r, f.ref);
    a.name = filled(r, f.file_name);
    a.content_type = filled(r, f.file_type);
    send.user_name = filled(r, f.name);
    send.content_type = filled(r, f.type);
    send.n_attachments = f.n_attachments;
    send.attachments = mesh_arena_alloc(r->arena, (f.n_attachments + 1) * sizeof *send.attachments);
    for (size_t i = 0; i < f.n_attachments; i++) {
        send.attachments[i] = &a;
    }
    MESH_MSG(msg, SEND, send, &send);
    msg.key = send.chat;
    return rig_ask(r, &msg);
}

/* The limits of store/check.c: more than any edge lets through, each with one beyond it. */
static void fields_of_a_send_are_bounded(void **state)
{
    (void)state;
    rig *r = rig_ready();
    ASSERT_KIND(send_with(r, (fields){ 1024, 256, 1, 4096, 4096, 256 }), SENT);
    ASSERT_KIND(send_with(r, (fields){ 5, 5, 64, 5, 5, 5 }), SENT);
    static const fields beyond[] = { { 1025, 5, 1, 5, 5, 5 }, { 5, 257, 1, 5, 5, 5 },  { 5, 5, 65, 5, 5, 5 },
                                     { 5, 5, 1, 4097, 5, 5 }, { 5, 5, 1, 5, 4097, 5 }, { 5, 5, 1, 5, 5, 257 } };
    for (size_t i = 0; i < sizeof beyond / sizeof *beyond; i++) {
        ASSERT_FAULT(send_with(r, beyond[i]), FAULT_MALFORMED);
    }
    assert_int_equal(mesh_stats_get(store_core_stats(r->core), STORE_M_BAD_MESSAGES), 6);
    ASSERT_FAULT(rig_edit(r, "ann", GROUP, "e", MESH__EDIT_OP__EDIT_RENAME, filled(r, 1025)), FAULT_MALFORMED);
    rig_destroy(r);
}

/* Members of one request, and inboxes of one append. */
static void lists_of_users_are_bounded(void **state)
{
    (void)state;
    rig *r = rig_ready();
    char *names = mesh_arena_alloc(r->arena, (STORE_GROUP_MEMBERS_MAX + 2) * 8);
    size_t at = 0;
    for (unsigned i = 0; i < STORE_GROUP_MEMBERS_MAX + 1; i++) {
        at += (size_t)sprintf(names + at, "u%04u ", i);
    }
    Mesh__Entry entry = rig_entry(r, rig_q(r, GROUP), 1, "ann", "text");
    ASSERT_KIND(rig_append(r, &entry, 0, names), APPENDED);
    ASSERT_FAULT(rig_create(r, "ann", GROUP, "c", names, MESH__HISTORY_RULE__HISTORY_ALL), FAULT_TOO_MANY_MEMBERS);
    strcpy(names + at, "zoe ");
    ASSERT_FAULT(rig_append(r, &entry, 0, names), FAULT_MALFORMED);
    ASSERT_FAULT(rig_create(r, "ann", GROUP, "c", names, MESH__HISTORY_RULE__HISTORY_ALL), FAULT_MALFORMED);
    rig_destroy(r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(history_is_cut_by_bytes),
        cmocka_unit_test(what_is_around_is_cut_by_bytes),
        cmocka_unit_test(inbox_pages_are_cut_by_bytes),
        cmocka_unit_test(pages_have_so_many_rows),
        cmocka_unit_test(lists_of_members_have_so_many_rows),
        cmocka_unit_test(lists_of_chats_have_so_many_rows),
        cmocka_unit_test(lists_of_chats_end_in_previews),
        cmocka_unit_test(so_many_heads_are_asked_for),
        cmocka_unit_test(fields_of_a_send_are_bounded),
        cmocka_unit_test(lists_of_users_are_bounded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
