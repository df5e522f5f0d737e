/* The edge core's requests: what each becomes for the mesh, what its answer becomes for the client, every bad one, and
 * what happens when no answer comes. */
#include "capture.h"
#include "edge_world.h"

static void answer(world *w, mesh_peer from, uint64_t corr, Mesh__Msg *msg)
{
    msg->corr = corr;
    mesh_says(w, from, msg);
}

static void done(world *w, uint64_t corr)
{
    Mesh__Done d = MESH__DONE__INIT;
    MESH_MSG(msg, DONE, done, &d);
    answer(w, ROUTER1, corr, &msg);
}

static void sent(world *w, uint64_t corr, const char *chat)
{
    Mesh__Sent s = MESH__SENT__INIT;
    s.chat = (char *)(uintptr_t)chat;
    s.seq = 5;
    s.id = UINT64_C(1) << 60;
    s.ts_ms = 1800000000123;
    s.dup = true;
    s.durable = (char *)"disk";
    s.client_msg_id = (char *)"m1";
    MESH_MSG(msg, SENT, sent, &s);
    answer(w, ROUTER1, corr, &msg);
}

#define SENT_TEXT(id, chat)                                                                                            \
    "{\"type\":\"ack\",\"id\":" id ",\"state\":\"sent\",\"durable\":\"disk\",\"chat\":\"" chat                         \
    "\",\"seq\":5,\"message_id\":\"1152921504606846976\",\"ts_ms\":1800000000123,\"dup\":true,\"client_msg_id\":"      \
    "\"m1\"}\n"

/* ---- each kind ---- */

static void send_to_a_chat(void **state)
{
    world *w = *state;
    edge_session_id id = login(w);
    says(w, id,
         "{\"type\":\"send\",\"id\":1,\"chat\":\"room\",\"client_msg_id\":\"m1\",\"body\":\"h\xc3\xa4\","
         "\"attachments\":["
         "{\"ref\":\"r1\",\"name\":\"n\",\"content_type\":\"image/png\",\"size\":77},{\"ref\":\"r2\"}]}");
    Mesh__Msg *msg = only(w, ROUTER1, MESH__MSG__BODY_SEND);
    assert_string_equal(msg->key, "default/room");
    assert_true(msg->corr != 0 && msg->ttl_ms == 5000 && msg->trace != 0);
    const Mesh__Send *send = msg->send;
    assert_string_equal(send->user, "default/alice");
    assert_string_equal(send->chat, "default/room");
    assert_string_equal(send->peer, "");
    assert_string_equal(send->client_msg_id, "m1");
    assert_string_equal(send->content_type, "text/plain");
    assert_int_equal(send->body.len, 3);
    assert_memory_equal(send->body.data, "h\xc3\xa4", 3);
    assert_int_equal(send->n_attachments, 2);
    assert_string_equal(send->attachments[0]->ref, "r1");
    assert_string_equal(send->attachments[0]->content_type, "image/png");
    assert_true(send->attachments[0]->size == 77);
    assert_string_equal(send->attachments[1]->ref, "r2");
    assert_string_equal(hears(w, id), "");
    uint64_t corr = msg->corr;
    sent(w, corr, "default/room");
    assert_string_equal(hears(w, id), SENT_TEXT("1", "room"));
    sent(w, corr, "default/room"); /* once is enough */
    assert_string_equal(hears(w, id), "");
    assert_int_equal(stat(w, "parley_edge_late_answers_total"), 1);
}

static void send_to_a_user(void **state)
{
    world *w = *state;
    edge_session_id id = login(w);
    mesh_qid want;
    mesh_id_direct("default/alice", "default/bob", &want);
    says(
        w, id,
        "{\"type\":\"send\",\"id\":2,\"to\":\"bob\",\"client_msg_id\":\"m1\",\"body\":\"x\",\"content_type\":\"a/b\"}");
    Mesh__Msg *msg = only(w, ROUTER1, MESH__MSG__BODY_SEND);
    assert_string_equal(msg->key, want.s);
    assert_string_equal(msg->send->chat, want.s);
    assert_string_equal(msg->send->peer, "default/bob");
    assert_string_equal(msg->send->content_type, "a/b");
    sent(w, msg->corr, want.s);
    assert_non_null(strstr(hears(w, id), mesh_qid_bare(want.s)));
    assert_null(strstr((char *)w->heard.data, "default/"));
    /* by its id: the store knows whether it is there */
    says(w, id, "{\"type\":\"send\",\"id\":3,\"chat\":\"%s\",\"client_msg_id\":\"m1\",\"body\":\"x\"}",
         mesh_qid_bare(want.s));
    msg = only(w, ROUTER1, MESH__MSG__BODY_SEND);
    assert_string_equal(msg->send->chat, want.s);
    assert_string_equal(msg->send->peer, "");
    fault(w, ROUTER1, msg->corr, FAULT_NOT_FOUND);
    assert_error(w, id, 3, FAULT_NOT_FOUND);
}

static void other_tenants_do_not_meet(void **state)
{
    world *w = *state;
    free(w->token);
    w->token = edge_token_make(world_key, "alice", "acme", NULL, w->now.wall / 1000, 3600);
    edge_session_id id = login(w);
    says(w, id, "{\"type\":\"send\",\"id\":1,\"to\":\"bob\",\"client_msg_id\":\"m\",\"body\":\"x\"}");
    Mesh__Msg *msg = only(w, ROUTER1, MESH__MSG__BODY_SEND);
    assert_string_equal(msg->send->user, "acme/alice");
    assert_string_equal(msg->send->peer, "acme/bob");
    mesh_qid want;
    mesh_id_direct("acme/alice", "acme/bob", &want);
    assert_string_equal(msg->send->chat, want.s);
}

static void read_history_members_chats(void **state)
{
    world *w = *state;
    edge_session_id id = login(w);
    says(w, id, "{\"type\":\"read\",\"id\":1,\"chat\":\"room\",\"seq\":8}");
    Mesh__Msg *msg = only(w, ROUTER1, MESH__MSG__BODY_READ);
    assert_string_equal(msg->read->user, "default/alice");
    assert_true(msg->read->seq == 8 && strcmp(msg->key, "default/room") == 0);
    done(w, msg->corr);
    assert_string_equal(hears(w, id), "{\"type\":\"done\",\"id\":1}\n");

    says(w, id, "{\"type\":\"history\",\"id\":2,\"chat\":\"room\"}");
    msg = only(w, ROUTER1, MESH__MSG__BODY_HISTORY);
    assert_true(msg->history->limit == 50 && !msg->history->from_start);
    Mesh__Attachment file = MESH__ATTACHMENT__INIT;
    Mesh__Attachment *files[] = { &file };
    file.ref = (char *)"r";
    file.size = 3;
    char *users[] = { (char *)"default/eve" };
    Mesh__Entry entry = MESH__ENTRY__INIT;
    Mesh__Entry *entries[] = { &entry };
    entry.chat = (char *)"default/room";
    entry.seq = 1;
    entry.id = 9;
    entry.ts_ms = 4;
    entry.kind = MESH__ENTRY_KIND__ENTRY_ADDED;
    entry.sender = (char *)"default/bob";
    entry.sender_name = (char *)"Bob";
    entry.client_msg_id = (char *)"c";
    entry.content_type = (char *)"text/plain";
    entry.body = (ProtobufCBinaryData){ 2, (uint8_t *)"hi" };
    entry.n_attachments = 1;
    entry.attachments = files;
    entry.count = 6;
    entry.n_users = 1;
    entry.users = users;
    entry.name = (char *)"Room";
    entry.chat_kind = MESH__CHAT_KIND__CHAT_DIRECT;
    Mesh__Page page = MESH__PAGE__INIT;
    page.chat = (char *)"default/room";
    page.n_entries = 1;
    page.entries = entries;
    page.has_more = page.has_more_after = true;
    page.oldest_available = 1;
    page.last_seq = 12;
    MESH_MSG(answer_page, PAGE, page, &page);
    answer(w, ROUTER1, msg->corr, &answer_page);
    assert_string_equal(
        hears(w, id), "{\"type\":\"page\",\"id\":2,\"chat\":\"room\",\"messages\":[{\"chat\":\"room\",\"seq\":1,"
                      "\"message_id\":\"9\",\"ts_ms\":4,\"kind\":\"added\",\"sender\":\"bob\",\"sender_name\":\"Bob\","
                      "\"client_msg_id\":\"c\",\"content_type\":\"text/plain\",\"body\":\"hi\",\"attachments\":["
                      "{\"ref\":\"r\",\"size\":3}],\"count\":6,\"users\":[\"eve\"],\"name\":\"Room\","
                      "\"chat_kind\":\"direct\"}],\"has_more\":true,\"has_more_after\":true,\"oldest_available\":1,"
                      "\"last_seq\":12}\n");
    says(w, id, "{\"type\":\"history\",\"id\":2,\"chat\":\"room\",\"around\":7,\"limit\":200}");
    msg = only(w, ROUTER1, MESH__MSG__BODY_HISTORY);
    assert_true(msg->history->around == 7 && msg->history->limit == 200);
    says(w, id, "{\"type\":\"history\",\"id\":2,\"chat\":\"room\",\"from_start\":true}");
    assert_true(only(w, ROUTER1, MESH__MSG__BODY_HISTORY)->history->from_start);

    says(w, id, "{\"type\":\"members\",\"id\":3,\"chat\":\"room\",\"after\":\"bob\",\"limit\":10}");
    msg = only(w, ROUTER1, MESH__MSG__BODY_MEMBERS);
    assert_string_equal(msg->members->after, "default/bob");
    assert_int_equal(msg->members->limit, 10);
    Mesh__Member member = MESH__MEMBER__INIT;
    Mesh__Member *list[] = { &member };
    member.user = (char *)"default/carl";
    member.role = MESH__ROLE__ROLE_ADMIN;
    member.read_seq = 2;
    Mesh__MemberList members = MESH__MEMBER_LIST__INIT;
    members.chat = (char *)"default/room";
    members.n_members = 1;
    members.members = list;
    MESH_MSG(answer_members, MEMBER_LIST, member_list, &members);
    answer(w, ROUTER1, msg->corr, &answer_members);
    assert_string_equal(hears(w, id),
                        "{\"type\":\"members\",\"id\":3,\"chat\":\"room\",\"members\":[{\"user\":\"carl\","
                        "\"role\":\"admin\",\"read_seq\":2}]}\n");

    says(w, id, "{\"type\":\"chats\",\"id\":4,\"before\":90}");
    msg = only(w, ROUTER1, MESH__MSG__BODY_CHATS);
    assert_string_equal(msg->key, "default/alice");
    assert_true(msg->chats->before == 90 && msg->chats->limit == 50);
    Mesh__Summary summary = MESH__SUMMARY__INIT;
    Mesh__Summary *summaries[] = { &summary };
    summary.chat = (char *)"default/g:1";
    summary.name = (char *)"Group";
    summary.member_count = 3;
    summary.role = MESH__ROLE__ROLE_OWNER;
    summary.inbox_seq = 80;
    summary.read_seq = 2;
    Mesh__ChatList chats = MESH__CHAT_LIST__INIT;
    chats.n_chats = 1;
    chats.chats = summaries;
    chats.has_more = true;
    MESH_MSG(answer_chats, CHAT_LIST, chat_list, &chats);
    answer(w, ROUTER1, msg->corr, &answer_chats);
    assert_string_equal(hears(w, id), "{\"type\":\"chats\",\"id\":4,\"chats\":[{\"chat\":\"g:1\",\"name\":\"Group\","
                                      "\"read_seq\":2,\"member_count\":3,\"role\":\"owner\",\"inbox_seq\":80}],"
                                      "\"has_more\":true}\n");
}

static void chats_are_made_and_changed(void **state)
{
    world *w = *state;
    edge_session_id id = login(w);
    mesh_qid group, direct, notes;
    mesh_id_group("default/alice", "m1", &group);
    mesh_id_direct("default/alice", "default/bob", &direct);
    mesh_id_direct("default/alice", "default/alice", &notes);
    says(w, id,
         "{\"type\":\"chat.create\",\"id\":1,\"client_msg_id\":\"m1\",\"name\":\"R\",\"history\":\"from_join\","
         "\"members\":[\"carl\",\"bob\",\"alice\",\"bob\"]}");
    Mesh__Msg *msg = only(w, ROUTER1, MESH__MSG__BODY_CHAT_CREATE);
    const Mesh__ChatCreate *create = msg->chat_create;
    assert_string_equal(msg->key, group.s);
    assert_string_equal(create->chat, group.s);
    assert_string_equal(create->name, "R");
    assert_int_equal(create->kind, MESH__CHAT_KIND__CHAT_GROUP);
    assert_int_equal(create->history, MESH__HISTORY_RULE__HISTORY_FROM_JOIN);
    assert_int_equal(create->n_members, 2); /* each once, without oneself, in order */
    assert_string_equal(create->members[0], "default/bob");
    assert_string_equal(create->members[1], "default/carl");
    sent(w, msg->corr, group.s);
    assert_non_null(strstr(hears(w, id), mesh_qid_bare(group.s)));

    says(w, id,
         "{\"type\":\"chat.create\",\"id\":2,\"client_msg_id\":\"m1\",\"kind\":\"direct\",\"members\":[\"bob\"]}");
    create = only(w, ROUTER1, MESH__MSG__BODY_CHAT_CREATE)->chat_create;
    assert_string_equal(create->chat, direct.s);
    assert_int_equal(create->kind, MESH__CHAT_KIND__CHAT_DIRECT);
    assert_string_equal(create->members[0], "default/bob");
    says(w, id,
         "{\"type\":\"chat.create\",\"id\":2,\"client_msg_id\":\"m1\",\"kind\":\"direct\",\"members\":[\"alice\"]}");
    create = only(w, ROUTER1, MESH__MSG__BODY_CHAT_CREATE)->chat_create;
    assert_string_equal(create->chat, notes.s);
    assert_string_equal(create->members[0], "default/alice");

    static const struct {
        const char *line;
        Mesh__EditOp op;
        const char *name;
        const char *member;
    } edits[] = {
        { "\"chat.update\",\"name\":\"New\"", MESH__EDIT_OP__EDIT_RENAME, "New", NULL },
        { "\"chat.add\",\"members\":[\"eve\",\"eve\"]", MESH__EDIT_OP__EDIT_ADD, "", "default/eve" },
        { "\"chat.remove\",\"members\":[\"eve\"]", MESH__EDIT_OP__EDIT_REMOVE, "", "default/eve" },
        { "\"chat.leave\"", MESH__EDIT_OP__EDIT_LEAVE, "", NULL },
    };
    for (size_t i = 0; i < sizeof edits / sizeof *edits; i++) {
        says(w, id, "{\"id\":3,\"chat\":\"room\",\"client_msg_id\":\"m1\",\"type\":%s}", edits[i].line);
        msg = only(w, ROUTER1, MESH__MSG__BODY_CHAT_EDIT);
        assert_string_equal(msg->key, "default/room");
        assert_string_equal(msg->chat_edit->user, "default/alice");
        assert_string_equal(msg->chat_edit->chat, "default/room");
        assert_string_equal(msg->chat_edit->client_msg_id, "m1");
        assert_string_equal(msg->chat_edit->name, edits[i].name);
        assert_int_equal(msg->chat_edit->op, edits[i].op);
        assert_int_equal(msg->chat_edit->n_members, edits[i].member != NULL);
        if (edits[i].member != NULL) {
            assert_string_equal(msg->chat_edit->members[0], edits[i].member);
        }
        sent(w, msg->corr, "default/room");
        assert_string_equal(hears(w, id), SENT_TEXT("3", "room"));
    }
}

static void names_ride_on_messages(void **state)
{
    world *w = *state;
    edge_session_id id = login(w);
    says(w, id, "{\"type\":\"profile\",\"id\":1,\"name\":\"\xc3\x84nn\"}");
    Mesh__Msg *msg = only(w, ROUTER1, MESH__MSG__BODY_PROFILE);
    assert_string_equal(msg->key, "default/alice");
    assert_string_equal(msg->profile->name, "\xc3\x84nn");
    uint64_t corr = msg->corr;
    says(w, id, "{\"type\":\"send\",\"id\":2,\"to\":\"bob\",\"client_msg_id\":\"m\",\"body\":\"x\"}");
    assert_string_equal(only(w, ROUTER1, MESH__MSG__BODY_SEND)->send->user_name, ""); /* not before it is so */
    done(w, corr);
    assert_string_equal(hears(w, id), "{\"type\":\"done\",\"id\":1}\n");
    says(w, id, "{\"type\":\"send\",\"id\":3,\"to\":\"bob\",\"client_msg_id\":\"m\",\"body\":\"x\"}");
    assert_string_equal(only(w, ROUTER1, MESH__MSG__BODY_SEND)->send->user_name, "\xc3\x84nn");
    says(w, id, "{\"type\":\"profile\",\"id\":4,\"name\":\"Other\"}");
    fault(w, ROUTER1, only(w, ROUTER1, MESH__MSG__BODY_PROFILE)->corr, FAULT_DISK_FULL);
    assert_error(w, id, 4, FAULT_DISK_FULL);
    says(w, id, "{\"type\":\"chat.leave\",\"id\":5,\"chat\":\"r\",\"client_msg_id\":\"m\"}");
    assert_string_equal(only(w, ROUTER1, MESH__MSG__BODY_CHAT_EDIT)->chat_edit->user_name, "\xc3\x84nn");
}

static void answered_by_the_edge(void **state)
{
    world *w = *state;
    edge_session_id id = login(w);
    says(w, id, "{\"type\":\"state\",\"state\":\"inactive\"}");
    assert_string_equal(hears(w, id), "");
    says(w, id,
         "{\"type\":\"state\",\"id\":1,\"state\":\"active\"}\n{\"type\":\"ping\",\"id\":2}\n{\"type\":\"ping\"}");
    assert_string_equal(hears(w, id),
                        "{\"type\":\"done\",\"id\":1}\n"
                        "{\"type\":\"pong\",\"id\":2,\"inbox_head\":10,\"server_time_ms\":1800000000000}\n"
                        "{\"type\":\"pong\",\"inbox_head\":10,\"server_time_ms\":1800000000000}\n");
    quiet(w);
}

static void requests_may_follow_hello_at_once(void **state)
{
    world *w = *state;
    edge_session_id id = open_socket(w, EDGE_JSON, w->token);
    says(w, id,
         "{\"type\":\"hello\",\"id\":1,\"device\":\"d\"}\n"
         "{\"type\":\"send\",\"id\":2,\"chat\":\"room\",\"client_msg_id\":\"m1\",\"body\":\"x\"}");
    assert_int_equal(collect(w), 2);
    assert_int_equal(w->sent[1].msg->body_case, MESH__MSG__BODY_SEND);
    sent(w, w->sent[1].msg->corr, "default/room");
    assert_string_equal(hears(w, id), SENT_TEXT("2", "room"));
}

static void protobuf_is_the_same(void **state)
{
    world *w = *state;
    edge_session_id id = login_at(w, EDGE_PROTOBUF, "p", 10);
    Client__Send send = CLIENT__SEND__INIT;
    send.chat = (char *)"room";
    send.client_msg_id = (char *)"m1";
    send.body = (char *)"x";
    Client__Request request = CLIENT__REQUEST__INIT;
    request.id = 6;
    request.body_case = CLIENT__REQUEST__BODY_SEND;
    request.send = &send;
    mesh_buf frame = { 0 };
    edge_codec_put_request(EDGE_PROTOBUF, &request, &frame);
    edge_codec_put_request(EDGE_PROTOBUF, &request, &frame);
    mesh_buf_puts(&frame, "\x01");
    edge_core_input(w->core, id, mesh_buf_slice(&frame), w->now, w->out);
    mesh_buf_fini(&frame);
    assert_int_equal(collect(w), 2);
    uint64_t corr = w->sent[0].msg->corr;
    hears(w, id); /* the error about the last byte */
    sent(w, corr, "default/room");
    hears(w, id);
    mesh_arena *arena = mesh_arena_new();
    edge_codec_reader reader;
    Client__Event *event = NULL;
    edge_codec_open(&reader, EDGE_PROTOBUF, (mesh_slice){ w->heard.data, w->heard.size - 1 });
    assert_int_equal(edge_codec_event(&reader, arena, &event), MESH_OK);
    assert_true(event->id == 6 && event->body_case == CLIENT__EVENT__BODY_ACK && event->ack->seq == 5);
    mesh_arena_destroy(&arena);
}

/* ---- bad input: the exact error, nothing to the mesh, and the session goes on ---- */

#define ID64 "0123456789012345678901234567890123456789012345678901234567890123"
#define TEN                                                                                                            \
    "{\"ref\":\"r\"},{\"ref\":\"r\"},{\"ref\":\"r\"},{\"ref\":\"r\"},{\"ref\":\"r\"},{\"ref\":\"r\"},{\"ref\":\"r\"}," \
    "{\"ref\":\"r\"},{\"ref\":\"r\"},{\"ref\":\"r\"}"

static void bad_requests(void **state)
{
    static const struct {
        const char *line; /* without type's brace and id */
        uint32_t fault;
        bool no_id; /* not JSON: the id cannot be read either */
    } rows[] = {
        { "\"send\",\"client_msg_id\":\"m\",\"body\":\"x\"", FAULT_INVALID, false },
        { "\"send\",\"chat\":\"c\",\"to\":\"u\",\"client_msg_id\":\"m\",\"body\":\"x\"", FAULT_INVALID, false },
        { "\"send\",\"chat\":\"a b\",\"client_msg_id\":\"m\",\"body\":\"x\"", FAULT_INVALID, false },
        { "\"send\",\"chat\":\"default/c\",\"client_msg_id\":\"m\",\"body\":\"x\"", FAULT_INVALID, false },
        { "\"send\",\"chat\":\"" ID64 "x\",\"client_msg_id\":\"m\",\"body\":\"x\"", FAULT_INVALID, false },
        { "\"send\",\"to\":\"\xc3\xa4\",\"client_msg_id\":\"m\",\"body\":\"x\"", FAULT_INVALID, false },
        { "\"send\",\"to\":\"acme/bob\",\"client_msg_id\":\"m\",\"body\":\"x\"", FAULT_INVALID, false },
        { "\"send\",\"chat\":\"c\",\"body\":\"x\"", FAULT_INVALID, false },
        { "\"send\",\"chat\":\"c\",\"client_msg_id\":\"" ID64 "x\",\"body\":\"x\"", FAULT_INVALID, false },
        { "\"send\",\"chat\":\"c\",\"client_msg_id\":\"a b\",\"body\":\"x\"", FAULT_INVALID, false },
        { "\"send\",\"chat\":\"c\",\"client_msg_id\":\"m\"", FAULT_INVALID, false },
        { "\"send\",\"chat\":\"c\",\"client_msg_id\":\"m\",\"body\":\"x\",\"content_type\":\"" ID64 "x\"",
          FAULT_INVALID, false },
        { "\"send\",\"chat\":\"c\",\"client_msg_id\":\"m\",\"body\":\"x\",\"content_type\":\"a\\n\"", FAULT_INVALID,
          false },
        { "\"send\",\"chat\":\"c\",\"client_msg_id\":\"m\",\"body\":\"x\",\"content_type\":\"\xc3\xa4\"", FAULT_INVALID,
          false },
        { "\"send\",\"chat\":\"c\",\"client_msg_id\":\"m\",\"attachments\":[" TEN ",{\"ref\":\"r\"}]", FAULT_INVALID,
          false },
        { "\"send\",\"chat\":\"c\",\"client_msg_id\":\"m\",\"attachments\":[{}]", FAULT_INVALID, false },
        { "\"send\",\"chat\":\"c\",\"client_msg_id\":\"m\",\"attachments\":[{\"ref\":\"r\",\"name\":\"a\\u0007\"}]",
          FAULT_INVALID, false },
        { "\"send\",\"chat\":\"c\",\"client_msg_id\":\"m\",\"attachments\":[{\"ref\":\"r\",\"content_type\":\"" ID64
          "x\"}]",
          FAULT_INVALID, false },
        { "\"send\",\"chat\":\"c\",\"client_msg_id\":\"m\",\"body\":\"a\\u0000b\"", FAULT_MALFORMED, true },
        { "\"send\",\"chat\":\"c\",\"client_msg_id\":\"m\",\"body\":\"\\ud800\"", FAULT_MALFORMED, true },
        { "\"send\",\"chat\":\"c\",\"client_msg_id\":\"m\",\"body\":7", FAULT_MALFORMED, false },
        { "\"read\",\"chat\":\"c\"", FAULT_INVALID, false },
        { "\"read\",\"seq\":1", FAULT_INVALID, false },
        { "\"history\"", FAULT_INVALID, false },
        { "\"history\",\"chat\":\"c\",\"before\":1,\"after\":1", FAULT_INVALID, false },
        { "\"history\",\"chat\":\"c\",\"before\":1,\"around\":1", FAULT_INVALID, false },
        { "\"history\",\"chat\":\"c\",\"after\":1,\"from_start\":true", FAULT_INVALID, false },
        { "\"history\",\"chat\":\"c\",\"limit\":201", FAULT_INVALID, false },
        { "\"chats\",\"limit\":101", FAULT_INVALID, false },
        { "\"members\",\"chat\":\"c\",\"limit\":201", FAULT_INVALID, false },
        { "\"members\",\"chat\":\"c\",\"after\":\"a b\"", FAULT_INVALID, false },
        { "\"members\"", FAULT_INVALID, false },
        { "\"chat.create\"", FAULT_INVALID, false },
        { "\"chat.create\",\"client_msg_id\":\"m\",\"members\":[\"\"]", FAULT_INVALID, false },
        { "\"chat.create\",\"client_msg_id\":\"m\",\"members\":[\"a/b\"]", FAULT_INVALID, false },
        { "\"chat.create\",\"client_msg_id\":\"m\",\"name\":\"a\\nb\"", FAULT_INVALID, false },
        { "\"chat.create\",\"client_msg_id\":\"m\",\"name\":\"" ID64 ID64 "x\"", FAULT_INVALID, false },
        { "\"chat.create\",\"client_msg_id\":\"m\",\"kind\":\"direct\"", FAULT_INVALID, false },
        { "\"chat.create\",\"client_msg_id\":\"m\",\"kind\":\"direct\",\"members\":[\"a\",\"b\"]", FAULT_INVALID,
          false },
        { "\"chat.create\",\"client_msg_id\":\"m\",\"kind\":\"direct\",\"members\":[\"a\"],\"name\":\"x\"",
          FAULT_INVALID, false },
        { "\"chat.create\",\"client_msg_id\":\"m\",\"kind\":\"channel\"", FAULT_MALFORMED, false },
        { "\"chat.update\",\"chat\":\"c\",\"client_msg_id\":\"m\"", FAULT_INVALID, false },
        { "\"chat.update\",\"chat\":\"c\",\"name\":\"n\"", FAULT_INVALID, false },
        { "\"chat.add\",\"chat\":\"c\",\"client_msg_id\":\"m\"", FAULT_INVALID, false },
        { "\"chat.add\",\"chat\":\"c\",\"client_msg_id\":\"m\",\"members\":[\"a b\"]", FAULT_INVALID, false },
        { "\"chat.remove\",\"client_msg_id\":\"m\",\"members\":[\"a\"]", FAULT_INVALID, false },
        { "\"chat.leave\",\"chat\":\"c\"", FAULT_INVALID, false },
        { "\"profile\"", FAULT_INVALID, false },
        { "\"profile\",\"name\":\"" ID64 "x\"", FAULT_INVALID, false },
        { "\"profile\",\"name\":\"a\\u0085\"", FAULT_INVALID, false },
        { "\"ack\",\"inbox_seq\":11", FAULT_ACK_BEYOND, false },
        { "\"typing\"", FAULT_UNKNOWN_TYPE, false },
        { "\"hello\",\"device\":\"phone\"", FAULT_HELLO_TWICE, false },
    };
    world *w = *state;
    edge_session_id id = login(w);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        says(w, id, "{\"id\":77,\"type\":%s}", rows[i].line);
        print_message("%s\n", rows[i].line);
        assert_error(w, id, rows[i].no_id ? 0 : 77, rows[i].fault);
        assert_int_equal(w->close_code, 0);
        turn(w);
        quiet(w);
        says(w, id, "{\"type\":\"state\",\"id\":78}");
        assert_string_equal(hears(w, id), "{\"type\":\"done\",\"id\":78}\n");
        later(w, 100);
    }
    assert_int_equal(stat(w, "parley_edge_errors_total"), sizeof rows / sizeof *rows);
    assert_int_equal(stat(w, "parley_edge_requests_total"), 0);
    /* without an id there would be nothing to answer to */
    static const char *kinds[] = { "send",        "read",     "history",     "chats",      "members", "chat.create",
                                   "chat.update", "chat.add", "chat.remove", "chat.leave", "refresh", "profile" };
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        says(w, id, "{\"type\":\"%s\"}", kinds[i]);
        assert_error(w, id, 0, FAULT_INVALID);
    }
    quiet(w);
}

#define ATTACHED                                                                                                       \
    "{\"type\":\"send\",\"id\":1,\"to\":\"bob\",\"client_msg_id\":\"m\",\"attachments\":[{\"ref\":\"%s\",\"name\":\"%" \
    "s\"}]}"

/* REF_MAX and FILE_NAME_MAX of edge/uplink.c. */
static void attachments_are_bounded(void **state)
{
    world *w = *state;
    edge_session_id id = login(w);
    char ref[1024 + 2];
    char name[255 + 2];
    for (size_t over = 0; over < 3; over++) {
        memset(ref, 'r', sizeof ref);
        memset(name, 'n', sizeof name);
        ref[1024 + (over == 1)] = '\0';
        name[255 + (over == 2)] = '\0';
        says(w, id, ATTACHED, ref, name);
        if (over == 0) {
            Mesh__Attachment *a = only(w, ROUTER1, MESH__MSG__BODY_SEND)->send->attachments[0];
            assert_true(strlen(a->ref) == 1024 && strlen(a->name) == 255);
        } else {
            assert_error(w, id, 1, FAULT_INVALID);
            quiet(w);
        }
    }
}

static void good_at_the_limits(void **state)
{
    world *w = *state;
    edge_session_id id = login(w);
    says(w, id,
         "{\"type\":\"send\",\"id\":1,\"to\":\"" ID64 "\",\"client_msg_id\":\"" ID64 "\",\"content_type\":\"" ID64
         "\",\"attachments\":[" TEN "]}");
    assert_int_equal(only(w, ROUTER1, MESH__MSG__BODY_SEND)->send->body.len, 0);
    says(w, id, "{\"type\":\"chat.create\",\"id\":1,\"client_msg_id\":\"m\",\"name\":\"" ID64 ID64 "\"}");
    assert_int_equal(only(w, ROUTER1, MESH__MSG__BODY_CHAT_CREATE)->chat_create->n_members, 0);
    says(w, id, "{\"type\":\"profile\",\"id\":1,\"name\":\"" ID64 "\"}");
    only(w, ROUTER1, MESH__MSG__BODY_PROFILE);
}

static void text_is_counted_in_code_points(void **state)
{
    world *w = *state;
    edge_session_id id = login(w);
    char *body = mesh_alloc(4 * (EDGE_TEXT_MAX + 1) + 1);
    for (size_t i = 0; i < EDGE_TEXT_MAX; i++) {
        memcpy(body + 4 * i, "\xf0\x9f\x98\x80", 4);
    }
    says(w, id, "{\"type\":\"send\",\"id\":1,\"chat\":\"c\",\"client_msg_id\":\"m\",\"body\":\"%s\"}", body);
    assert_int_equal(only(w, ROUTER1, MESH__MSG__BODY_SEND)->send->body.len, 4 * EDGE_TEXT_MAX);
    strcat(body, "x");
    says(w, id, "{\"type\":\"send\",\"id\":2,\"chat\":\"c\",\"client_msg_id\":\"m\",\"body\":\"%s\"}", body);
    assert_error(w, id, 2, FAULT_TEXT_TOO_LONG);
    quiet(w);
    free(body);
}

static void members_are_bounded(void **state)
{
    world *w = *state;
    edge_session_id id = login(w);
    for (int n = 999; n <= 1000; n++) {
        mesh_buf list = { 0 };
        for (int i = 0; i < n; i++) {
            mesh_buf_printf(&list, "%s\"u%d\"", i == 0 ? "" : ",", i);
        }
        mesh_buf_put(&list, "", 1);
        static const char *kinds[] = { "chat.create", "chat.add", "chat.remove" };
        for (size_t i = 0; i < 3; i++) {
            says(w, id, "{\"type\":\"%s\",\"id\":1,\"chat\":\"c\",\"client_msg_id\":\"m\",\"members\":[%s]}", kinds[i],
                 (char *)list.data);
            if (n == 999) {
                assert_int_equal(collect(w), 1);
            } else {
                assert_error(w, id, 1, FAULT_TOO_MANY_MEMBERS);
                quiet(w);
            }
        }
        mesh_buf_fini(&list);
    }
}

static void frames_of_a_message_are_bounded(void **state)
{
    world *w = *state;
    edge_session_id id = login(w);
    mesh_buf many = { 0 };
    for (int i = 0; i < 300; i++) {
        mesh_buf_puts(&many, "{\"type\":\"state\"}\n");
    }
    edge_core_input(w->core, id, mesh_buf_slice(&many), w->now, w->out);
    mesh_buf_fini(&many);
    assert_error(w, id, 0, FAULT_MALFORMED); /* one for all that was not read */
    says(w, id, "{\"type\":\"state\",\"id\":1}");
    assert_string_equal(hears(w, id), "{\"type\":\"done\",\"id\":1}\n");
}

/* ---- limits in time ---- */

static void a_burst_and_then_the_rate(void **state)
{
    world *w = *state;
    edge_session_id id = login(w); /* one */
    for (int i = 0; i < 499; i++) {
        says(w, id, i % 2 == 0 ? "{\"type\":\"state\"}" : "rubbish"); /* what cannot be read counts as well */
    }
    hears(w, id);
    says(w, id, "{\"type\":\"send\",\"id\":3,\"to\":\"bob\",\"client_msg_id\":\"m\",\"body\":\"x\"}");
    assert_non_null(strstr(hears(w, id), "{\"type\":\"error\",\"id\":3,\"code\":400,\"name\":\"rate_limited\","));
    assert_non_null(strstr((char *)w->heard.data, "\"retry\":\"same\",\"after_ms\":10}"));
    quiet(w);
    later(w, 10); /* 100 a second */
    says(w, id, "{\"type\":\"state\",\"id\":4}");
    assert_string_equal(hears(w, id), "{\"type\":\"done\",\"id\":4}\n");
    says(w, id, "{\"type\":\"state\",\"id\":5}");
    assert_error(w, id, 5, FAULT_RATE_LIMITED);
    later(w, 10);
    for (int i = 0; i < 10; i++) { /* acks cost a tenth */
        says(w, id, "{\"type\":\"ack\",\"inbox_seq\":10}");
        assert_string_equal(hears(w, id), "");
    }
    says(w, id, "{\"type\":\"ack\",\"id\":6,\"inbox_seq\":10}");
    assert_error(w, id, 6, FAULT_RATE_LIMITED);
    later(w, 20000); /* full again, and no fuller */
    for (int i = 0; i < 500; i++) {
        says(w, id, "{\"type\":\"state\"}");
    }
    assert_string_equal(hears(w, id), "");
    says(w, id, "{\"type\":\"state\"}");
    assert_error(w, id, 0, FAULT_RATE_LIMITED);
}

static void a_flood_is_closed(void **state)
{
    world *w = *state;
    edge_session_id id = login(w);
    for (int i = 0; i < 499 + 1000; i++) {
        says(w, id, "{\"type\":\"state\"}");
        hears(w, id);
        assert_int_equal(w->close_code, 0);
    }
    says(w, id, "{\"type\":\"state\"}\n{\"type\":\"state\"}");
    assert_error(w, id, 0, FAULT_RATE_LIMITED);
    assert_int_equal(w->close_code, 4103);
    assert_int_equal(stat(w, "parley_edge_limited_total"), 1001);
}

/* Frames in ms of a steady stream of so many times the rate; 0: not closed within a minute. */
static mesh_ms flood(world *w, const char *device, unsigned times)
{
    edge_session_id id = login_at(w, EDGE_JSON, device, 10);
    mesh_ms start = w->now.mono;
    while (w->now.mono < start + 60000) {
        later(w, 10); /* 100 a second is one */
        for (unsigned i = 0; i < times; i++) {
            says(w, id, "{\"type\":\"state\"}");
        }
        hears(w, id);
        if (w->close_code != 0) {
            assert_int_equal(w->close_code, 4103);
            return w->now.mono - start;
        }
    }
    return 0;
}

static void a_steady_flood_is_closed(void **state)
{
    world *w = *state;
    assert_in_range(flood(w, "b", 5), 4000, 5000); /* the burst of 500 at 4 over, then 1,000 refusals at 3 over */
    assert_in_range(flood(w, "c", 10), 1500, 2000);
    assert_in_range(flood(w, "d", 100), 100, 200);
    assert_int_equal(flood(w, "e", 2), 0); /* refused half of the time, but as much is forgiven */
    assert_int_equal(flood(w, "f", 1), 0);
    assert_int_equal(stat(w, "parley_edge_closed_total{node=\"edge1\",reason=\"flood\"}"), 3);
}

static void open_requests_are_bounded(void **state)
{
    world *w = *state;
    edge_session_id id = login(w);
    for (int i = 0; i < EDGE_REQUESTS_MAX; i++) {
        says(w, id, "{\"type\":\"chats\",\"id\":1}");
    }
    assert_int_equal(collect(w), EDGE_REQUESTS_MAX);
    uint64_t corr = w->sent[0].msg->corr;
    says(w, id, "{\"type\":\"chats\",\"id\":2}");
    assert_error(w, id, 2, FAULT_BUSY);
    quiet(w);
    fault(w, ROUTER1, corr, FAULT_NOT_LEADER); /* internal: shown as unavailable */
    assert_error(w, id, 1, FAULT_UNAVAILABLE);
    says(w, id, "{\"type\":\"chats\",\"id\":3}");
    only(w, ROUTER1, MESH__MSG__BODY_CHATS);
}

static void no_answer_in_time(void **state)
{
    world *w = *state;
    edge_session_id id = login(w);
    says(w, id, "{\"type\":\"chats\",\"id\":1}");
    uint64_t corr = only(w, ROUTER1, MESH__MSG__BODY_CHATS)->corr;
    mesh_ms next = later(w, 4000);
    assert_true(next <= w->now.mono + 1000);
    assert_string_equal(hears(w, id), "");
    says(w, id, "{\"type\":\"chats\",\"id\":2}");
    collect(w);
    later(w, 1000);
    assert_error(w, id, 1, FAULT_UNAVAILABLE);
    fault(w, ROUTER1, corr, FAULT_NOT_FOUND); /* too late */
    assert_string_equal(hears(w, id), "");
    later(w, 4000);
    assert_error(w, id, 2, FAULT_UNAVAILABLE);
    assert_int_equal(stat(w, "parley_edge_requests_waiting"), 0);
}

static void a_lost_router_answers_at_once(void **state)
{
    world *w = *state;
    edge_session_id id = login(w);
    for (int i = 1; i <= 3; i++) {
        says(w, id, "{\"type\":\"chats\",\"id\":%d}", i);
    }
    collect(w);
    edge_core_down(w->core, ROUTER2, w->now, w->out); /* another one */
    assert_string_equal(hears(w, id), "");
    edge_core_down(w->core, ROUTER1, w->now, w->out);
    const char *heard = hears(w, id);
    for (int i = 1; i <= 3; i++) {
        char want[64];
        snprintf(want, sizeof want, "\"id\":%d,\"code\":402", i);
        assert_non_null(strstr(heard, want));
    }
    assert_int_equal(stat(w, "parley_edge_requests_lost_total"), 3);
    says(w, id, "{\"type\":\"chats\",\"id\":4}"); /* nobody to ask */
    assert_error(w, id, 4, FAULT_UNAVAILABLE);
    quiet(w);
}

static void a_router_that_leaves_the_ring(void **state)
{
    world *w = *state;
    edge_session_id id = login(w);
    edge_core_up(w->core, ROUTER2, 102, w->now, w->out);
    says(w, id, "{\"type\":\"chats\",\"id\":1}");
    collect(w);
    set_ring(w, true, true);
    assert_string_equal(hears(w, id), ""); /* still there */
    set_ring(w, false, true);
    assert_error(w, id, 1, FAULT_UNAVAILABLE);
    says(w, id, "{\"type\":\"chats\",\"id\":2}");
    collect(w);
    assert_int_equal(w->sent[0].to, ROUTER2);
}

static void a_closed_session_hears_no_answers(void **state)
{
    world *w = *state;
    edge_session_id id = login(w);
    says(w, id, "{\"type\":\"chats\",\"id\":1}");
    uint64_t corr = only(w, ROUTER1, MESH__MSG__BODY_CHATS)->corr;
    edge_core_closed(w->core, id, w->now, w->out);
    collect(w);
    fault(w, ROUTER1, corr, FAULT_NOT_FOUND);
    later(w, 10000);
    edge_core_down(w->core, ROUTER1, w->now, w->out);
    assert_int_equal(stat(w, "parley_edge_late_answers_total"), 1);
    assert_int_equal(stat(w, "parley_edge_requests_waiting"), 0);
    quiet(w);
}

static void an_answer_of_another_kind(void **state)
{
    world *w = *state;
    edge_session_id id = login(w);
    says(w, id, "{\"type\":\"chats\",\"id\":1}");
    uint64_t corr = only(w, ROUTER1, MESH__MSG__BODY_CHATS)->corr;
    done(w, corr);
    assert_string_equal(hears(w, id), "");
    fault(w, ROUTER2, corr, FAULT_NOT_FOUND); /* not who was asked */
    assert_string_equal(hears(w, id), "");
    assert_int_equal(stat(w, "parley_edge_mesh_malformed_total"), 2);
    fault(w, ROUTER1, corr, FAULT_NOT_FOUND);
    assert_error(w, id, 1, FAULT_NOT_FOUND);
}

/* ---- the log ---- */

static void a_trace_can_be_followed(void **state)
{
    world *w = *state;
    static char log[60000];
    char line[256];
    capture c;
    mesh_log_setup("edge1", MESH_DEBUG);
    capture_start(&c);
    edge_session_id id = login(w);
    says(w, id, "{\"type\":\"chats\",\"id\":1}");
    Mesh__Msg *ask = only(w, ROUTER1, MESH__MSG__BODY_CHATS);
    uint64_t trace = ask->trace;
    fault(w, ROUTER1, ask->corr, FAULT_BUSY);
    edge_core_closed(w->core, id, w->now, w->out);
    (void)capture_stop(&c, log, sizeof log);
    mesh_log_level(MESH_WARN);
    snprintf(line, sizeof line,
             " level=debug node=edge1 event=request trace=%016llx type=chats session=%016llx user=default/alice "
             "key=default/alice to=router1\n",
             (unsigned long long)trace, (unsigned long long)id);
    assert_non_null(strstr(log, line));
    snprintf(line, sizeof line, " event=answer trace=%016llx type=fault fault=busy session=%016llx\n",
             (unsigned long long)trace, (unsigned long long)id);
    assert_non_null(strstr(log, line));
    snprintf(line, sizeof line,
             " level=info node=edge1 event=session_started session=%016llx user=default/alice device=phone",
             (unsigned long long)id);
    assert_non_null(strstr(log, line));
    snprintf(line, sizeof line,
             " level=info node=edge1 event=session_ended session=%016llx user=default/alice device=phone "
             "reason=left ms=0\n",
             (unsigned long long)id);
    assert_non_null(strstr(log, line));
    assert_null(strstr(log, w->token));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        WORLD(send_to_a_chat),
        WORLD(send_to_a_user),
        WORLD(other_tenants_do_not_meet),
        WORLD(read_history_members_chats),
        WORLD(chats_are_made_and_changed),
        WORLD(names_ride_on_messages),
        WORLD(answered_by_the_edge),
        WORLD(requests_may_follow_hello_at_once),
        WORLD(protobuf_is_the_same),
        WORLD(bad_requests),
        WORLD(attachments_are_bounded),
        WORLD(good_at_the_limits),
        WORLD(text_is_counted_in_code_points),
        WORLD(members_are_bounded),
        WORLD(frames_of_a_message_are_bounded),
        WORLD(a_burst_and_then_the_rate),
        WORLD(a_flood_is_closed),
        WORLD(a_steady_flood_is_closed),
        WORLD(a_trace_can_be_followed),
        WORLD(open_requests_are_bounded),
        WORLD(no_answer_in_time),
        WORLD(a_lost_router_answers_at_once),
        WORLD(a_router_that_leaves_the_ring),
        WORLD(a_closed_session_hears_no_answers),
        WORLD(an_answer_of_another_kind),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
