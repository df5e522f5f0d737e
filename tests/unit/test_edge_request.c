/* The edge core's requests: what each becomes for the mesh, and what its answer becomes for the client. */
#include "edge_world.h"

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
    Mesh__Summary silent = MESH__SUMMARY__INIT;
    Mesh__Summary *summaries[] = { &summary, &silent };
    silent.chat = (char *)"default/d:2";
    silent.kind = MESH__CHAT_KIND__CHAT_DIRECT;
    silent.inbox_seq = 70;
    silent.unavailable = true;
    summary.chat = (char *)"default/g:1";
    summary.name = (char *)"Group";
    summary.member_count = 3;
    summary.role = MESH__ROLE__ROLE_OWNER;
    summary.inbox_seq = 80;
    summary.read_seq = 2;
    Mesh__ChatList chats = MESH__CHAT_LIST__INIT;
    chats.n_chats = 2;
    chats.chats = summaries;
    chats.has_more = true;
    MESH_MSG(answer_chats, CHAT_LIST, chat_list, &chats);
    answer(w, ROUTER1, msg->corr, &answer_chats);
    assert_string_equal(hears(w, id), "{\"type\":\"chats\",\"id\":4,\"chats\":[{\"chat\":\"g:1\",\"name\":\"Group\","
                                      "\"read_seq\":2,\"member_count\":3,\"role\":\"owner\",\"inbox_seq\":80},"
                                      "{\"chat\":\"d:2\",\"kind\":\"direct\",\"inbox_seq\":70,\"unavailable\":true}],"
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
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
