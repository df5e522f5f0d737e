/* What the edge still takes at each limit, and the first that it does not. */
#include "tests/unit/edge_world.h"

/* Of edge/json.h and edge/state.h, which are the edge's own. */
enum {
    EDGE_JSON_ELEMENTS = 8192,
    EDGE_ANSWERS_MAX = EDGE_SENDQ_MAX + 1024 * 1024,
    EDGE_LIMITED_MAX = 1000,
    EDGE_GROUP_MAX = 1000,
    EDGE_CHATS_MAX = 100
};

/* ---- frames ---- */

/* A ping with a member it does not know that makes n elements of the frame: commas, brackets and braces. */
static void ping_of(world *w, edge_session_id id, uint64_t request, size_t n)
{
    mesh_buf line = { 0 };
    mesh_buf_printf(&line, "{\"type\":\"ping\",\"id\":%llu,\"x\":[0", (unsigned long long)request);
    for (size_t i = 4; i < n; i++) { /* a brace, two commas and a bracket are there */
        mesh_buf_puts(&line, ",0");
    }
    mesh_buf_puts(&line, "]}");
    mesh_buf_put(&line, "", 1);
    says(w, id, "%s", (char *)line.data);
    mesh_buf_fini(&line);
}

static void elements_of_a_frame_are_bounded(void **state)
{
    world *w = *state;
    edge_session_id id = login(w);
    ping_of(w, id, 1, EDGE_JSON_ELEMENTS);
    assert_non_null(strstr(hears(w, id), "{\"type\":\"pong\",\"id\":1"));
    ping_of(w, id, 2, EDGE_JSON_ELEMENTS + 1);
    assert_error(w, id, 0, FAULT_MALFORMED);
    assert_int_equal(w->close_code, 0);
    ping_of(w, id, 3, EDGE_JSON_ELEMENTS);
    assert_non_null(strstr(hears(w, id), "{\"type\":\"pong\",\"id\":3"));
}

/* ---- hello ---- */

enum { FEATURES = 32, WORD = 64 }; /* of edge/hello.c */

static void say_hello(world *w, edge_session_id id, unsigned features, int word, int client)
{
    mesh_buf list = { 0 };
    for (unsigned i = 0; i < features; i++) {
        mesh_buf_printf(&list, "%s\"%0*u\"", i == 0 ? "" : ",", word, i);
    }
    mesh_buf_put(&list, "", 1);
    says(w, id, "{\"type\":\"hello\",\"id\":1,\"device\":\"phone\",\"client\":\"%0*u\",\"features\":[%s]}", client, 7u,
         (char *)list.data);
    mesh_buf_fini(&list);
}

static void words_of_hello_are_bounded(void **state)
{
    world *w = *state;
    edge_session_id id = open_socket(w, EDGE_JSON, w->token);
    say_hello(w, id, FEATURES + 1, WORD, WORD);
    assert_error(w, id, 1, FAULT_INVALID);
    say_hello(w, id, FEATURES, WORD + 1, WORD);
    assert_error(w, id, 1, FAULT_INVALID);
    say_hello(w, id, FEATURES, WORD, WORD + 1);
    assert_error(w, id, 1, FAULT_INVALID);
    quiet(w);
    say_hello(w, id, FEATURES, WORD, WORD);
    attached(w, ROUTER1, (attached_as){ .head = 10, .after = 10 });
    assert_non_null(strstr(hears(w, id), "{\"type\":\"welcome\",\"id\":1"));
}

/* A token's name of so many characters of four bytes. Returns the bytes of it that were taken. */
static size_t name_taken(size_t characters)
{
    char name[EDGE_NAME_MAX + 5] = "";
    edge_token_claims claims;
    uint32_t fault_code;
    for (size_t i = 0; i < characters; i++) {
        memcpy(name + 4 * i, "\xf0\x9f\x98\x80", 5);
    }
    char *token = edge_token_make(world_key, "alice", NULL, name, 1800000000, 3600);
    assert_int_equal(edge_token_check(world_key, token, 1800000000, 0, &claims, &fault_code), MESH_OK);
    free(token);
    return strlen(claims.name);
}

static void names_of_tokens_are_bounded(void **state)
{
    (void)state;
    assert_int_equal(name_taken(EDGE_NAME_CODE_POINTS), EDGE_NAME_MAX);
    assert_int_equal(name_taken(EDGE_NAME_CODE_POINTS + 1), 0); /* left out */
}

/* ---- lists ---- */

static void pages_are_bounded(void **state)
{
    world *w = *state;
    edge_session_id id = login(w);
    says(w, id, "{\"type\":\"history\",\"id\":1,\"chat\":\"c\",\"limit\":%d}", EDGE_PAGE_MAX);
    assert_int_equal(only(w, ROUTER1, MESH__MSG__BODY_HISTORY)->history->limit, EDGE_PAGE_MAX);
    says(w, id, "{\"type\":\"members\",\"id\":2,\"chat\":\"c\",\"limit\":%d}", EDGE_PAGE_MAX);
    assert_int_equal(only(w, ROUTER1, MESH__MSG__BODY_MEMBERS)->members->limit, EDGE_PAGE_MAX);
    says(w, id, "{\"type\":\"chats\",\"id\":3,\"limit\":%d}", EDGE_CHATS_MAX);
    assert_int_equal(only(w, ROUTER1, MESH__MSG__BODY_CHATS)->chats->limit, EDGE_CHATS_MAX);
    says(w, id, "{\"type\":\"history\",\"id\":4,\"chat\":\"c\",\"limit\":%d}", EDGE_PAGE_MAX + 1);
    assert_error(w, id, 4, FAULT_INVALID);
    says(w, id, "{\"type\":\"members\",\"id\":5,\"chat\":\"c\",\"limit\":%d}", EDGE_PAGE_MAX + 1);
    assert_error(w, id, 5, FAULT_INVALID);
    says(w, id, "{\"type\":\"chats\",\"id\":6,\"limit\":%d}", EDGE_CHATS_MAX + 1);
    assert_error(w, id, 6, FAULT_INVALID);
    quiet(w);
}

/* n members other than oneself, who is the one more. */
static void create(world *w, edge_session_id id, unsigned n)
{
    mesh_buf list = { 0 };
    for (unsigned i = 0; i < n; i++) {
        mesh_buf_printf(&list, "%s\"u%u\"", i == 0 ? "" : ",", i);
    }
    mesh_buf_put(&list, "", 1);
    says(w, id, "{\"type\":\"chat.create\",\"id\":1,\"client_msg_id\":\"m\",\"members\":[%s]}", (char *)list.data);
    mesh_buf_fini(&list);
}

static void groups_are_bounded(void **state)
{
    world *w = *state;
    edge_session_id id = login(w);
    create(w, id, EDGE_GROUP_MAX - 1);
    assert_int_equal(only(w, ROUTER1, MESH__MSG__BODY_CHAT_CREATE)->chat_create->n_members, EDGE_GROUP_MAX - 1);
    create(w, id, EDGE_GROUP_MAX);
    assert_error(w, id, 1, FAULT_TOO_MANY_MEMBERS);
    quiet(w);
}

/* ---- what waits for the socket, and patience ---- */

static void answers_are_bounded(void **state)
{
    world *w = *state;
    edge_session_id id = login(w);
    enum { SIZE = 400000 };
    char *body = mesh_alloc(SIZE + 1);
    memset(body, 'x', SIZE);
    uint16_t code = 0;
    const char *reason;
    size_t queued = 0;
    size_t one = 0;
    unsigned n = 0;
    while (code == 0) {
        assert_true(queued <= EDGE_ANSWERS_MAX);
        says(w, id, "{\"type\":\"history\",\"id\":%u,\"chat\":\"room\"}", ++n);
        Mesh__Entry entry = MESH__ENTRY__INIT;
        Mesh__Entry *entries[] = { &entry };
        entry.body = (ProtobufCBinaryData){ SIZE, (uint8_t *)body };
        Mesh__Page page = MESH__PAGE__INIT;
        page.n_entries = 1;
        page.entries = entries;
        MESH_MSG(msg, PAGE, page, &page);
        msg.corr = only(w, ROUTER1, MESH__MSG__BODY_HISTORY)->corr;
        mesh_says(w, ROUTER1, &msg);
        size_t left = edge_core_pending(w->core, id, &code, &reason).size;
        one = one == 0 ? left : one;
        queued = left;
    }
    assert_int_equal(code, 4102);
    assert_int_equal(queued, 0);
    assert_true(n > EDGE_ANSWERS_MAX / one && n <= EDGE_ANSWERS_MAX / one + 1);
    free(body);
}

static void patience_is_bounded(void **state)
{
    world *w = *state;
    edge_session_id id = login(w);
    unsigned limited = 0;
    for (unsigned n = 0; n < 100000; n++) {
        says(w, id, "{\"type\":\"state\",\"id\":1}");
        limited += strstr(hears(w, id), "rate_limited") != NULL ? 1 : 0;
        if (w->close_code != 0) {
            break;
        }
    }
    assert_int_equal(w->close_code, 4103);
    assert_int_equal(limited, EDGE_LIMITED_MAX + 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        WORLD(elements_of_a_frame_are_bounded),
        WORLD(words_of_hello_are_bounded),
        WORLD(names_of_tokens_are_bounded),
        WORLD(pages_are_bounded),
        WORLD(groups_are_bounded),
        WORLD(answers_are_bounded),
        WORLD(patience_is_bounded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
