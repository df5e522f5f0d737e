/* A chat list is put together from several shards, and does not wait for one that says nothing. */
#include "mesh/id.h"
#include "tests/unit/router_rig.h"

enum { EDGE, ROUTER, S0A, S0B, S1, S2, SHARDS = 3 };
#define BOOT 77
#define TTL_MS 5000

/* Two stores of shard 0, one each of shards 1 and 2; each shard has a third of the slots. */
static int setup(void **state)
{
    mesh_conf *conf = mesh_conf_new();
    add_node(conf, "edge1", MESH_EDGE, 0);
    add_node(conf, "router1", MESH_ROUTER, 0);
    add_node(conf, "s0a", MESH_STORE, 0);
    add_node(conf, "s0b", MESH_STORE, 0);
    add_node(conf, "s1", MESH_STORE, 1);
    add_node(conf, "s2", MESH_STORE, 2);
    fixture *f = rig_new(conf, ROUTER, BOOT);
    for (mesh_peer i = EDGE; i <= S2; i++) {
        if (i != ROUTER) {
            up(f, i);
        }
    }
    Mesh__RingNode node = MESH__RING_NODE__INIT;
    Mesh__RingNode *nodes[] = { &node };
    Mesh__SlotRange ranges[SHARDS];
    Mesh__SlotRange *map[SHARDS];
    Mesh__Ring ring = MESH__RING__INIT;
    for (uint32_t i = 0; i < SHARDS; i++) {
        mesh__slot_range__init(map[i] = &ranges[i]);
        ranges[i].first = MESH_SLOTS * i / SHARDS;
        ranges[i].last = MESH_SLOTS * (i + 1) / SHARDS - 1;
        ranges[i].shard = i;
    }
    node.name = "router1";
    node.boot = BOOT;
    ring.epoch = 1;
    ring.routers = nodes;
    ring.n_routers = 1;
    ring.map = map;
    ring.n_map = SHARDS;
    MESH_MSG(msg, RING, ring, &ring);
    say(f, S0A, &msg);
    *state = f;
    return 0;
}

/* The nth id that begins so and is stored by this shard. */
static char *id_at(fixture *f, const char *prefix, uint32_t shard, unsigned nth)
{
    for (unsigned i = 0;; i++) {
        char id[40];
        snprintf(id, sizeof id, "default/%s%u", prefix, i);
        unsigned slot = mesh_id_slot(mesh_conf_hash_key(f->conf), id);
        if (slot >= MESH_SLOTS * shard / SHARDS && slot < MESH_SLOTS * (shard + 1) / SHARDS && nth-- == 0) {
            return mesh_arena_strdup(f->arena, id);
        }
    }
}

static char *chat_at(fixture *f, uint32_t shard)
{
    return id_at(f, "g:", shard, 0);
}

/* ---- what edge and stores say ---- */

/* A user of shard 1 asks for the list, and that store tells of these chats: the first is the newest. */
static void ask_list(fixture *f, uint32_t ttl_ms, mesh_ms after)
{
    Mesh__Chats chats = MESH__CHATS__INIT;
    chats.user = id_at(f, "u", 1, 0);
    MESH_MSG(ask, CHATS, chats, &chats);
    ask.key = chats.user;
    ask.corr = 5;
    ask.ttl_ms = ttl_ms;
    say(f, EDGE, &ask);
    f->now.mono += after;
}

static void tell_rows(fixture *f, uint64_t corr, char *const *chats, size_t n)
{
    Mesh__HeadAsk asks[16];
    Mesh__HeadAsk *list[16];
    Mesh__UserChatPage page = MESH__USER_CHAT_PAGE__INIT;
    for (size_t i = 0; i < n; i++) {
        mesh__head_ask__init(list[i] = &asks[i]);
        asks[i].chat = chats[i];
        asks[i].inbox_seq = 90 - i;
    }
    page.chats = list;
    page.n_chats = n;
    page.has_more = true;
    MESH_MSG(answer, USER_CHAT_PAGE, user_chat_page, &page);
    answer.corr = corr;
    say(f, S1, &answer);
}

static void list_of(fixture *f, uint32_t ttl_ms, mesh_ms after, char *const *chats, size_t n)
{
    ask_list(f, ttl_ms, after);
    tell_rows(f, only(f, S1, MESH__MSG__BODY_USER_CHATS)->corr, chats, n);
}

/* All that it was asked is so; elsewhere: it is not this store's. */
static void tell_heads(fixture *f, mesh_peer store, const Mesh__Msg *ask, bool elsewhere)
{
    Mesh__Summary summaries[16];
    Mesh__Summary *list[16];
    Mesh__ChatList chats = MESH__CHAT_LIST__INIT;
    for (size_t i = 0; i < ask->heads->n_chats; i++) {
        mesh__summary__init(list[i] = &summaries[i]);
        summaries[i].chat = ask->heads->chats[i]->chat;
        summaries[i].inbox_seq = ask->heads->chats[i]->inbox_seq;
        summaries[i].name = "its name";
    }
    chats.chats = list;
    chats.elsewhere = ask->heads->chats;
    *(elsewhere ? &chats.n_elsewhere : &chats.n_chats) = ask->heads->n_chats;
    MESH_MSG(msg, CHAT_LIST, chat_list, &chats);
    msg.corr = ask->corr;
    say(f, store, &msg);
}

static void tell_fault(fixture *f, mesh_peer store, uint64_t corr, uint32_t code)
{
    Mesh__Fault fault = MESH__FAULT__INIT;
    fault.code = code;
    MESH_MSG(msg, FAULT, fault, &fault);
    msg.corr = corr;
    say(f, store, &msg);
}

/* "name" of those that are known, "?" of the others, in the order of the list. */
static void expect_list(Mesh__Summary *const *list, size_t n, char *const *chats, const char *known)
{
    assert_int_equal(n, strlen(known));
    for (size_t i = 0; i < n; i++) {
        assert_string_equal(list[i]->chat, chats[i]);
        assert_int_equal(list[i]->inbox_seq, 90 - i);
        assert_int_equal(list[i]->unavailable, known[i] == '?');
        assert_string_equal(list[i]->name, known[i] == '?' ? "" : "its name");
    }
}

static void expect_answer(fixture *f, char *const *chats, const char *known)
{
    const Mesh__Msg *msg = only(f, EDGE, MESH__MSG__BODY_CHAT_LIST);
    assert_int_equal(msg->corr, 5);
    assert_true(msg->chat_list->has_more);
    assert_int_equal(msg->chat_list->n_elsewhere, 0);
    expect_list(msg->chat_list->chats, msg->chat_list->n_chats, chats, known);
    router_core_turn(f->core, f->now, f->out);
    assert_int_equal(metric_of(f, "parley_router_inflight"), 0);
}

/* ---- the tests ---- */

static void all_shards_are_asked_at_once(void **state)
{
    fixture *f = *state;
    char *chats[] = { chat_at(f, 2), chat_at(f, 0), id_at(f, "g:", 2, 1), chat_at(f, 1) };
    list_of(f, TTL_MS, 0, chats, 4);
    Mesh__Msg *zero = only(f, S0A, MESH__MSG__BODY_HEADS);
    Mesh__Msg *one = only(f, S1, MESH__MSG__BODY_HEADS);
    Mesh__Msg *two = only(f, S2, MESH__MSG__BODY_HEADS);
    assert_int_equal(zero->heads->n_chats + one->heads->n_chats, 2);
    assert_int_equal(two->heads->n_chats, 2);
    assert_int_equal(zero->ttl_ms, ROUTER_LIST_WAIT_MS);
    tell_heads(f, S1, one, false);
    tell_heads(f, S2, two, false);
    assert_int_equal(count(f, MESH__MSG__BODY_CHAT_LIST), 0);
    tell_heads(f, S0A, zero, false);
    expect_answer(f, chats, "nnnn");
    assert_int_equal(metric_of(f, "parley_router_listed_unavailable_total"), 0);
    tell_heads(f, S0A, zero, false); /* doubled: nobody waits */
    assert_int_equal(f->n_sent, 0);
    list_of(f, TTL_MS, 0, chats, 0); /* of no shard */
    assert_int_equal(only(f, EDGE, MESH__MSG__BODY_CHAT_LIST)->chat_list->n_chats, 0);
}

static void a_silent_shard_is_not_waited_for(void **state)
{
    fixture *f = *state;
    char *chats[] = { chat_at(f, 1), chat_at(f, 0), id_at(f, "d:", 0, 0), chat_at(f, 2) };
    list_of(f, TTL_MS, 0, chats, 4);
    Mesh__Msg *zero = only(f, S0A, MESH__MSG__BODY_HEADS);
    Mesh__Msg *one = only(f, S1, MESH__MSG__BODY_HEADS);
    tell_heads(f, S2, only(f, S2, MESH__MSG__BODY_HEADS), false);
    tell_heads(f, S1, one, false);
    pass(f, ROUTER_LIST_WAIT_MS - 1);
    assert_int_equal(count(f, MESH__MSG__BODY_CHAT_LIST), 0);
    pass(f, 1);
    expect_answer(f, chats, "n??n");
    Mesh__Summary **list = only(f, EDGE, MESH__MSG__BODY_CHAT_LIST)->chat_list->chats;
    assert_int_equal(list[1]->kind, MESH__CHAT_KIND__CHAT_GROUP);
    assert_int_equal(list[2]->kind, MESH__CHAT_KIND__CHAT_DIRECT);
    assert_int_equal(metric_of(f, "parley_router_listed_unavailable_total"), 2);
    tell_heads(f, S0A, zero, false); /* too late */
    assert_int_equal(f->n_sent, 0);
}

/* The list is there well before whoever asked has given it up. */
static void the_second_step_has_half_of_what_is_left(void **state)
{
    fixture *f = *state;
    char *chats[] = { chat_at(f, 0) };
    list_of(f, 1000, 400, chats, 1);
    assert_int_equal(only(f, S0A, MESH__MSG__BODY_HEADS)->ttl_ms, 300);
    pass(f, 299);
    assert_int_equal(count(f, MESH__MSG__BODY_CHAT_LIST), 0);
    pass(f, 1);
    expect_answer(f, chats, "?");
    ask_list(f, 1000, 0); /* without the user's own shard there is no list */
    pass(f, 1000);
    assert_int_equal(only(f, EDGE, MESH__MSG__BODY_FAULT)->fault->code, FAULT_UNAVAILABLE);
}

static void a_shard_that_is_down_is_known_at_once(void **state)
{
    fixture *f = *state;
    char *chats[] = { chat_at(f, 2), chat_at(f, 1) };
    down(f, S2);
    list_of(f, TTL_MS, 0, chats, 2);
    tell_heads(f, S1, only(f, S1, MESH__MSG__BODY_HEADS), false);
    expect_answer(f, chats, "?n");
    list_of(f, TTL_MS, 0, chats, 1);
    expect_answer(f, chats, "?");
}

static void a_fault_marks_only_what_was_asked_there(void **state)
{
    fixture *f = *state;
    char *chats[] = { chat_at(f, 0), chat_at(f, 1) };
    list_of(f, TTL_MS, 0, chats, 2);
    uint64_t zero = only(f, S0A, MESH__MSG__BODY_HEADS)->corr;
    tell_heads(f, S1, only(f, S1, MESH__MSG__BODY_HEADS), false);
    tell_fault(f, S0A, zero, FAULT_MALFORMED);
    expect_answer(f, chats, "?n");
}

/* A chat whose slot is on its way is asked for again, and in the end not waited for either. */
static void a_chat_on_its_way_is_asked_for_again(void **state)
{
    fixture *f = *state;
    char *chats[] = { chat_at(f, 0), chat_at(f, 1) };
    for (int arrives = 1; arrives >= 0; arrives--) {
        list_of(f, TTL_MS, 0, chats, 2);
        Mesh__Msg *zero = only(f, S0A, MESH__MSG__BODY_HEADS);
        tell_heads(f, S1, only(f, S1, MESH__MSG__BODY_HEADS), false);
        tell_heads(f, S0A, zero, true);
        zero = only(f, S0A, MESH__MSG__BODY_HEADS);
        assert_int_equal(zero->heads->n_chats, 1);
        assert_int_equal(count(f, MESH__MSG__BODY_CHAT_LIST), 0);
        if (arrives) {
            tell_heads(f, S0A, zero, false);
        } else {
            pass(f, ROUTER_LIST_WAIT_MS);
        }
        expect_answer(f, chats, arrives ? "nn" : "?n");
    }
}

static void a_new_device_is_welcomed_without_them(void **state)
{
    fixture *f = *state;
    char *chats[] = { chat_at(f, 0), chat_at(f, 1) };
    Mesh__Attach attach = MESH__ATTACH__INIT;
    attach.user = id_at(f, "u", 1, 0);
    attach.device = "phone";
    attach.session = 9;
    attach.fresh = true;
    MESH_MSG(hello, ATTACH, attach, &attach);
    hello.key = attach.user;
    hello.corr = 8;
    say(f, EDGE, &hello);
    Mesh__Attached attached = MESH__ATTACHED__INIT;
    attached.session = 9;
    attached.generation = attached.era = 1;
    attached.head = 40;
    attached.resync = true;
    MESH_MSG(answer, ATTACHED, attached, &attached);
    answer.corr = only(f, S1, MESH__MSG__BODY_ATTACH)->corr;
    say(f, S1, &answer);
    tell_rows(f, only(f, S1, MESH__MSG__BODY_USER_CHATS)->corr, chats, 2);
    tell_heads(f, S1, only(f, S1, MESH__MSG__BODY_HEADS), false);
    hello.corr = 10;
    say(f, EDGE, &hello); /* the edge asks again: it wants to hear the same answer */
    assert_int_equal(f->n_sent, 0);
    pass(f, ROUTER_LIST_WAIT_MS);
    const Mesh__Msg *welcome = only(f, EDGE, MESH__MSG__BODY_ATTACHED);
    assert_int_equal(welcome->corr, 10);
    assert_true(welcome->attached->resync && welcome->attached->has_more);
    expect_list(welcome->attached->chats, welcome->attached->n_chats, chats, "?n");
}

/* Of this chat n summaries, each with an entry. */
static void tell_many(fixture *f, mesh_peer store, uint64_t corr, char *chat, size_t n)
{
    Mesh__Entry last = MESH__ENTRY__INIT;
    Mesh__Summary summary = MESH__SUMMARY__INIT;
    Mesh__ChatList chats = MESH__CHAT_LIST__INIT;
    summary.chat = chat;
    summary.inbox_seq = 89;
    summary.name = "its name";
    summary.last = &last;
    chats.chats = mesh_arena_alloc(f->arena, n * sizeof *chats.chats);
    for (size_t i = 0; i < n; i++) {
        chats.chats[chats.n_chats++] = &summary;
    }
    MESH_MSG(msg, CHAT_LIST, chat_list, &chats);
    msg.corr = corr;
    say(f, store, &msg);
}

/* Each answer is what one message may be, and all of them together are more. */
static void an_answer_has_only_what_was_asked(void **state)
{
    fixture *f = *state;
    const size_t n = 4000;
    char *chats[] = { chat_at(f, 0), chat_at(f, 1), chat_at(f, 2) };
    list_of(f, TTL_MS, 0, chats, 3);
    Mesh__Msg *zero = only(f, S0A, MESH__MSG__BODY_HEADS);
    Mesh__Msg *one = only(f, S1, MESH__MSG__BODY_HEADS);
    Mesh__Msg *two = only(f, S2, MESH__MSG__BODY_HEADS);
    tell_many(f, S1, one->corr, chats[1], n);             /* over and over */
    tell_many(f, S2, two->corr, id_at(f, "g:", 2, 1), n); /* not asked for */
    tell_heads(f, S0A, zero, false);
    expect_answer(f, chats, "nn");
    assert_int_equal(metric_of(f, "parley_router_malformed_total"), 2 * n - 1);
}

static void rows_are_ids_and_each_once(void **state)
{
    fixture *f = *state;
    enum { N = 203 };
    Mesh__HeadAsk asks[N];
    Mesh__HeadAsk *list[N];
    Mesh__UserChatPage page = MESH__USER_CHAT_PAGE__INIT;
    for (unsigned i = 0; i < N; i++) {
        mesh__head_ask__init(list[i] = &asks[i]);
        asks[i].chat = id_at(f, "g:", 0, i);
        asks[i].inbox_seq = 1000 - i;
    }
    asks[1].chat = "no id";
    asks[2].chat = asks[0].chat;
    page.chats = list;
    page.n_chats = N;
    MESH_MSG(answer, USER_CHAT_PAGE, user_chat_page, &page);
    ask_list(f, TTL_MS, 0);
    answer.corr = only(f, S1, MESH__MSG__BODY_USER_CHATS)->corr;
    say(f, S1, &answer);
    const Mesh__Heads *heads = only(f, S0A, MESH__MSG__BODY_HEADS)->heads;
    assert_int_equal(heads->n_chats, 200);
    assert_string_equal(heads->chats[1]->chat, asks[3].chat);
    assert_int_equal(metric_of(f, "parley_router_malformed_total"), 3);
}

/* One summary of each of these two chats, the first of shard 1, with such entries. */
static Mesh__Summary **tell_long(fixture *f, Mesh__Entry *first, Mesh__Entry *second, char *name)
{
    char *chats[] = { chat_at(f, 1), chat_at(f, 0) };
    Mesh__Entry *entries[] = { first, second };
    list_of(f, TTL_MS, 0, chats, 2);
    const Mesh__Msg *asks[] = { only(f, S1, MESH__MSG__BODY_HEADS), only(f, S0A, MESH__MSG__BODY_HEADS) };
    for (size_t i = 0; i < 2; i++) {
        Mesh__Summary summary = MESH__SUMMARY__INIT;
        Mesh__Summary *list[] = { &summary };
        Mesh__ChatList said = MESH__CHAT_LIST__INIT;
        summary.chat = chats[i];
        summary.inbox_seq = 90 - i;
        summary.name = name;
        summary.last = entries[i];
        said.chats = list;
        said.n_chats = 1;
        MESH_MSG(msg, CHAT_LIST, chat_list, &said);
        msg.corr = asks[i]->corr;
        say(f, i == 0 ? S1 : S0A, &msg);
    }
    const Mesh__ChatList *list = only(f, EDGE, MESH__MSG__BODY_CHAT_LIST)->chat_list;
    assert_int_equal(list->n_chats, 2);
    assert_string_equal(list->chats[0]->chat, chats[0]);
    assert_string_equal(list->chats[1]->chat, chats[1]);
    return list->chats;
}

/* Each is within a page's bytes, both are not: of the later one comes a preview. */
static void a_list_is_bounded_in_bytes(void **state)
{
    fixture *f = *state;
    enum { BYTES = 200001 };
    Mesh__Entry entry = MESH__ENTRY__INIT;
    entry.body.data = mesh_arena_alloc(f->arena, BYTES);
    entry.body.len = BYTES;
    for (size_t i = 0; i < BYTES; i++) {
        entry.body.data[i] = i == 0 ? 'x' : i % 2 ? 0xc3 : 0xa4;
    }
    Mesh__Summary **list = tell_long(f, &entry, &entry, "its name");
    assert_int_equal(list[0]->last->body.len, BYTES);
    assert_int_equal(list[1]->last->body.len, 255); /* 256 would be within a character */
    assert_int_equal(metric_of(f, "parley_router_malformed_total"), 0);
    entry.body.len = BYTES;
    char *name = mesh_arena_alloc(f->arena, 4000);
    memset(name, 'n', 3999);
    list = tell_long(f, &entry, &entry, name); /* no store has such a name */
    assert_false(list[0]->unavailable);
    assert_true(list[1]->unavailable);
    assert_string_equal(list[1]->name, "");
    assert_int_equal(metric_of(f, "parley_router_malformed_total"), 1);
}

static void a_list_is_bounded_in_elements(void **state)
{
    fixture *f = *state;
    Mesh__Entry entry = MESH__ENTRY__INIT;
    entry.n_users = 3000;
    entry.users = mesh_arena_alloc(f->arena, entry.n_users * sizeof *entry.users);
    for (size_t i = 0; i < entry.n_users; i++) {
        entry.users[i] = "u";
    }
    Mesh__Summary **list = tell_long(f, &entry, &entry, "its name");
    assert_int_equal(list[0]->last->n_users, 3000);
    assert_int_equal(list[1]->last->n_users, 0);
}

static void ask_many(fixture *f, char *chat, unsigned n)
{
    Mesh__Read read = MESH__READ__INIT;
    mesh_buf packed = { 0 };
    read.user = id_at(f, "u", 1, 0);
    read.chat = chat;
    read.seq = 1;
    MESH_MSG(msg, READ, read, &read);
    msg.key = chat;
    msg.corr = 1;
    mesh_wire_pack(&msg, &packed);
    for (unsigned i = 0; i < n; i++) {
        router_core_message(f->core, EDGE, &msg, mesh_buf_slice(&packed), f->now, f->out);
        if (i % 1000 == 0 || i == n - 1) {
            collect(f);
        }
    }
    mesh_buf_fini(&packed);
}

/* What waits for a shard fills its part of the table and all that is common; the others still have theirs. */
static void a_dead_shard_leaves_room_for_the_others(void **state)
{
    fixture *f = *state;
    const unsigned sure = ROUTER_INFLIGHT_MAX / 2 / SHARDS;
    char *chats[] = { chat_at(f, 0), chat_at(f, 1) };
    ask_many(f, chats[0], ROUTER_INFLIGHT_MAX - (SHARDS - 1) * sure);
    assert_int_equal(count(f, MESH__MSG__BODY_FAULT), 0);
    ask_many(f, chats[0], 1);
    assert_int_equal(only(f, EDGE, MESH__MSG__BODY_FAULT)->fault->code, FAULT_BUSY);
    list_of(f, TTL_MS, 0, chats, 2);
    tell_heads(f, S1, only(f, S1, MESH__MSG__BODY_HEADS), false);
    expect_list(only(f, EDGE, MESH__MSG__BODY_CHAT_LIST)->chat_list->chats, 2, chats, "?n");
    ask_many(f, chats[1], sure - 1);
    assert_int_equal(count(f, MESH__MSG__BODY_FAULT), 0);
    list_of(f, TTL_MS, 0, chats, 2); /* its first step has the last place, so the second has none */
    assert_int_equal(only(f, EDGE, MESH__MSG__BODY_FAULT)->fault->code, FAULT_BUSY);
    assert_int_equal(metric_of(f, "parley_router_busy_total"), 3);
}

#define STORY(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
int main(void)
{
    const struct CMUnitTest tests[] = {
        STORY(all_shards_are_asked_at_once),
        STORY(a_silent_shard_is_not_waited_for),
        STORY(the_second_step_has_half_of_what_is_left),
        STORY(a_shard_that_is_down_is_known_at_once),
        STORY(a_fault_marks_only_what_was_asked_there),
        STORY(a_chat_on_its_way_is_asked_for_again),
        STORY(an_answer_has_only_what_was_asked),
        STORY(rows_are_ids_and_each_once),
        STORY(a_list_is_bounded_in_bytes),
        STORY(a_list_is_bounded_in_elements),
        STORY(a_new_device_is_welcomed_without_them),
        STORY(a_dead_shard_leaves_room_for_the_others),
    };
    return cmocka_run_group_tests_name("router chats", tests, NULL, NULL);
}
