/* The terminal client's list of chats, when the server cannot tell something of all of them. */
#include "client/chat.h"
#include "client/chat_priv.h"
#include "tests/unit/client_rig.h"

static void print(void *arg, const char *text)
{
    tell(arg, "%s", text);
}

typedef struct desk {
    fixture f;
    client_chat *chat;
} desk;

static int sit_down(void **state)
{
    desk *d = calloc(1, sizeof *d);
    client_chat_conf chat_conf = { .print = print, .arg = &d->f };
    client_session_conf conf = { .token = "t", .device = "d", .seed = 5, .in_order = true };
    d->chat = client_chat_new(&chat_conf);
    d->f.now = 1000;
    d->f.arena = mesh_arena_new();
    d->f.parsed = mesh_arena_new();
    d->f.s = client_session_new(&conf, client_chat_handler(), d->chat, d->f.now);
    client_chat_set_session(d->chat, d->f.s);
    dial(&d->f);
    welcome(&d->f);
    d->f.told[0] = '\0';
    *state = d;
    return 0;
}

static int stand_up(void **state)
{
    desk *d = *state;
    client_chat_destroy(&d->chat);
    return teardown(state); /* the fixture stands first */
}

/* "names ?" of inbox_seqs 90, 89, ...: each chat is called by its letter, and known unless it is behind a "?". */
static size_t summaries(const char *chats, Client__Summary *all, Client__Summary **list, char (*ids)[4])
{
    size_t n = 0;
    for (bool known = true; *chats; chats++) {
        if (*chats == '?') {
            known = false;
            continue;
        }
        client__summary__init(list[n] = &all[n]);
        snprintf(ids[n], sizeof ids[n], "g:%c", *chats);
        all[n].chat = ids[n];
        all[n].inbox_seq = 90 - (uint64_t)(*chats - 'a');
        all[n].name = (char *)(known ? ids[n] + 2 : "");
        all[n].unread = known ? 3 : 0;
        all[n].unavailable = !known;
        known = true;
        n++;
    }
    return n;
}

static void resync(desk *d, const char *chats)
{
    Client__Summary all[8], *list[8];
    char ids[8][4];
    Client__Resync r = CLIENT__RESYNC__INIT;
    r.era = ERA;
    r.inbox_seq = 90;
    r.n_chats = summaries(chats, all, list, ids);
    r.chats = list;
    Client__Event e = CLIENT__EVENT__INIT;
    e.body_case = CLIENT__EVENT__BODY_RESYNC;
    e.resync = &r;
    input(&d->f, &e);
}

static void answer(desk *d, const char *chats, bool has_more)
{
    Client__Summary all[8], *list[8];
    char ids[8][4];
    Client__ChatList l = CLIENT__CHAT_LIST__INIT;
    l.n_chats = summaries(chats, all, list, ids);
    l.chats = list;
    l.has_more = has_more;
    Client__Event e = CLIENT__EVENT__INIT;
    e.id = d->f.requests[0]->id;
    e.body_case = CLIENT__EVENT__BODY_CHATS;
    e.chats = &l;
    input(&d->f, &e);
}

/* It asks for the list from there on when so much time is over, and not before. */
static void asks_after(desk *d, mesh_ms ms, uint64_t before)
{
    fixture *f = &d->f;
    mesh_ms next = client_chat_turn(d->chat, f->now);
    if (ms > 0) {
        assert_int_equal(next, f->now + ms);
        assert_int_equal(client_chat_turn(d->chat, f->now + ms - 1), f->now + ms);
        f->now += ms;
        assert_int_equal(client_chat_turn(d->chat, f->now), MESH_NEVER);
    }
    take(f);
    assert_int_equal(f->n_requests, 1);
    assert_int_equal(f->requests[0]->body_case, CLIENT__REQUEST__BODY_CHATS);
    assert_int_equal(f->requests[0]->chats->before, before);
    assert_int_equal(client_chat_turn(d->chat, f->now), MESH_NEVER);
    assert_false(client_chat_busy(d->chat, '/')); /* who types does not wait for it */
}

static void what_is_not_known_is_asked_for_again(void **state)
{
    desk *d = *state;
    fixture *f = &d->f;
    resync(d, "a?bc");
    told(f, "chats:\n  1  a (3 new)\n  2  g:b  (not available now)\n  3  c (3 new)\n");
    asks_after(d, CLIENT_CHAT_AGAIN_MS, 0);
    answer(d, "a?b", true);
    asks_after(d, 0, 89); /* the next page, at once */
    answer(d, "c", false);
    told(f, "");
    asks_after(d, 2 * CLIENT_CHAT_AGAIN_MS, 0);
    answer(d, "abc", false);
    told(f, "(available again: b (3 new))\n");
    assert_int_equal(client_chat_turn(d->chat, f->now), MESH_NEVER);
    resync(d, "?ab"); /* it keeps the name, and the pauses begin anew */
    told(f, "chats:\n  1  a  (not available now)\n  2  b (3 new)\n");
    asks_after(d, CLIENT_CHAT_AGAIN_MS, 0);
}

/* Those beyond have no number. */
static void the_numbers_are_bounded(void **state)
{
    enum { N = CLIENT_CHAT_LISTED + 3 };
    desk *d = *state;
    Client__Summary *list[N];
    for (unsigned i = 0; i < N; i++) {
        char id[16];
        snprintf(id, sizeof id, "g:%u", i);
        list[i] = mesh_arena_alloc(d->f.parsed, sizeof *list[i]);
        client__summary__init(list[i]);
        list[i]->chat = mesh_arena_strdup(d->f.parsed, id);
        list[i]->name = list[i]->chat;
        list[i]->inbox_seq = N - i;
    }
    client_chat_show_list(d->chat, list, N - 4, false, true);
    d->f.told[0] = '\0';
    client_chat_show_list(d->chat, list + N - 4, 4, false, false);
    told(&d->f, "1000  g:999\n  -  g:1000\n  -  g:1001\n  -  g:1002\n");
    assert_int_equal(d->chat->n_listed, CLIENT_CHAT_LISTED);
    assert_string_equal(d->chat->listed[CLIENT_CHAT_LISTED - 1], "g:999");
    client_chat_show_list(d->chat, list, 1, false, true);
    assert_int_equal(d->chat->n_listed, 1);
}

static void the_pauses_are_bounded(void **state)
{
    desk *d = *state;
    mesh_ms pause = CLIENT_CHAT_AGAIN_MS;
    resync(d, "?a");
    for (int i = 0; i < 10; i++) {
        asks_after(d, pause < CLIENT_CHAT_AGAIN_MAX_MS ? pause : CLIENT_CHAT_AGAIN_MAX_MS, 0);
        answer(d, "?a", false);
        pause *= 2;
    }
    asks_after(d, CLIENT_CHAT_AGAIN_MAX_MS, 0);
    answer(d, "b", false); /* it is not ours any more */
    assert_int_equal(client_chat_turn(d->chat, d->f.now), MESH_NEVER);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(what_is_not_known_is_asked_for_again, sit_down, stand_up),
        cmocka_unit_test_setup_teardown(the_numbers_are_bounded, sit_down, stand_up),
        cmocka_unit_test_setup_teardown(the_pauses_are_bounded, sit_down, stand_up),
    };
    return cmocka_run_group_tests_name("client chat", tests, NULL, NULL);
}
