/* Writes tests/fuzz/corpus/<target>/: a few good inputs of each kind and some that are nearly good. `make fuzz-seeds`.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "client.pb-c.h"
#include "edge/codec.h"
#include "tests/fuzz/seeds.h"

static const char *folder;
static unsigned number;

void seeds_begin(const char *dir, const char *name)
{
    static char path[256];
    (void)snprintf(path, sizeof path, "%s/%s", dir, name);
    if (mkdir(path, 0755) != 0 && errno != EEXIST) {
        perror(path);
        exit(1);
    }
    folder = path;
    number = 0;
}

void seeds_skip_to(unsigned n)
{
    number = n;
}

void seeds_put(const void *bytes, size_t n)
{
    char path[300];
    (void)snprintf(path, sizeof path, "%s/%02u", folder, number++);
    FILE *f = fopen(path, "we");
    if (f == NULL || fwrite(bytes, 1, n, f) != n || fclose(f) != 0) {
        perror(path);
        exit(1);
    }
}

static void text(const char *s)
{
    seeds_put(s, strlen(s));
}

void seeds_put_buf(mesh_buf *b)
{
    seeds_put(b->data, b->size);
    mesh_buf_clear(b);
}

/* ---- requests of clients ---- */

#define REQUEST(name, number_, KIND, field, value)                                                                     \
    Client__Request name = CLIENT__REQUEST__INIT;                                                                      \
    name.id = (number_);                                                                                               \
    name.body_case = CLIENT__REQUEST__BODY_##KIND;                                                                     \
    name.field = (value)

static char *members[] = { "bob", "cyd" };

static void put_requests(void (*each)(const Client__Request *request, mesh_buf *out), mesh_buf *out)
{
    Client__Cursor cursor = CLIENT__CURSOR__INIT;
    cursor.era = 77;
    cursor.inbox_seq = 3;
    Client__Hello hello = CLIENT__HELLO__INIT;
    hello.token = "a.b.c";
    hello.device = "phone";
    hello.cursor = &cursor;
    Client__Attachment file = CLIENT__ATTACHMENT__INIT, *files[] = { &file };
    file.ref = "https://example.org/1";
    file.name = "a.txt";
    Client__Send send = CLIENT__SEND__INIT;
    send.to = "bob";
    send.client_msg_id = "m1";
    send.body = "h\xc3\xa9llo \"w\\orld\"\n\xf0\x9f\x98\x80";
    send.n_attachments = 1;
    send.attachments = files;
    Client__Ack ack = CLIENT__ACK__INIT;
    ack.inbox_seq = 4;
    Client__History history = CLIENT__HISTORY__INIT;
    history.chat = "g:abc";
    history.around = 12;
    history.limit = 50;
    Client__ChatCreate create = CLIENT__CHAT_CREATE__INIT;
    create.client_msg_id = "c1";
    create.name = "room";
    create.members = members;
    create.n_members = 2;
    Client__Chats chats = CLIENT__CHATS__INIT;
    Client__State state = CLIENT__STATE__INIT;
    state.state = CLIENT__ACTIVITY__ACTIVITY_INACTIVE;
    REQUEST(r1, 1, HELLO, hello, &hello);
    REQUEST(r2, 2, SEND, send, &send);
    REQUEST(r3, 0, ACK, ack, &ack);
    REQUEST(r4, 4, HISTORY, history, &history);
    REQUEST(r5, 5, CHAT_CREATE, chat_create, &create);
    REQUEST(r6, 6, CHATS, chats, &chats);
    REQUEST(r7, 0, STATE, state, &state);
    const Client__Request *all[] = { &r1, &r2, &r3, &r4, &r5, &r6, &r7 };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        each(all[i], out);
    }
}

static void as_protobuf(const Client__Request *request, mesh_buf *out)
{
    edge_codec_put_request(EDGE_PROTOBUF, request, out);
    seeds_put_buf(out);
}

static void as_json(const Client__Request *request, mesh_buf *out)
{
    edge_codec_put_request(EDGE_JSON, request, out);
    seeds_put_buf(out);
}

static void all_in_one(const Client__Request *request, mesh_buf *out)
{
    edge_codec_put_request(EDGE_PROTOBUF, request, out);
}

/* ---- chunks ---- */

void seeds_chunk(mesh_buf *out, const char *head, const void *bytes, size_t n)
{
    size_t h = head != NULL ? 1 : 0;
    uint8_t length[2] = { (uint8_t)(n + h), (uint8_t)((n + h) >> 8) };
    mesh_buf_put(out, length, 2);
    mesh_buf_put(out, head, h);
    mesh_buf_put(out, bytes, n);
}

static void chunk_request(const Client__Request *request, mesh_buf *out)
{
    mesh_buf one = { 0 };
    edge_codec_put_request(EDGE_JSON, request, &one);
    seeds_chunk(out, "\1", one.data, one.size);
    mesh_buf_clear(&one);
    edge_codec_put_request(EDGE_PROTOBUF, request, &one);
    seeds_chunk(out, "\2", one.data, one.size);
    mesh_buf_fini(&one);
}

static void chunk_event(mesh_buf *out, const Client__Event *event)
{
    mesh_buf one = { 0 };
    edge_codec_put_event(EDGE_PROTOBUF, event, &one);
    seeds_chunk(out, NULL, one.data, one.size);
    mesh_buf_fini(&one);
}

void seeds_chunk_msg(mesh_buf *out, const char *head, const Mesh__Msg *msg)
{
    mesh_buf one = { 0 };
    mesh_wire_pack(msg, &one);
    seeds_chunk(out, head, one.data, one.size);
    mesh_buf_fini(&one);
}

/* ---- events ---- */

#define EVENT(name, number_, KIND, field, value)                                                                       \
    Client__Event name = CLIENT__EVENT__INIT;                                                                          \
    name.id = (number_);                                                                                               \
    name.body_case = CLIENT__EVENT__BODY_##KIND;                                                                       \
    name.field = (value)

static void put_events(mesh_buf *out)
{
    Client__Welcome welcome = CLIENT__WELCOME__INIT;
    welcome.session = "1";
    welcome.user = "ann";
    welcome.heartbeat_ms = 30000;
    EVENT(e1, 1, WELCOME, welcome, &welcome);
    Client__Resync resync = CLIENT__RESYNC__INIT;
    resync.era = 9;
    EVENT(e2, 0, RESYNC, resync, &resync);
    Client__Message message = CLIENT__MESSAGE__INIT;
    message.chat = "d:abc";
    message.seq = 1;
    message.kind = CLIENT__ENTRY_KIND__ENTRY_KIND_TEXT;
    message.sender = "bob";
    message.body = "hi";
    message.inbox_seq = 1;
    message.era = 9;
    EVENT(e3, 0, MESSAGE, message, &message);
    Client__Error error = CLIENT__ERROR__INIT;
    error.code = 503;
    error.name = "busy";
    error.retry = CLIENT__RETRY__RETRY_LATER;
    error.after_ms = 5;
    EVENT(e4, 2, ERROR, error, &error);
    Client__Pong pong = CLIENT__PONG__INIT;
    pong.inbox_head = 7;
    EVENT(e5, 0, PONG, pong, &pong);
    Client__Reconnect reconnect = CLIENT__RECONNECT__INIT;
    reconnect.jitter_ms = 100;
    EVENT(e6, 0, RECONNECT, reconnect, &reconnect);
    Client__Live live = CLIENT__LIVE__INIT;
    live.inbox_seq = 1;
    live.era = 9;
    EVENT(e7, 0, LIVE, live, &live);
    const Client__Event *all[] = { &e1, &e2, &e3, &e3, &e7, &e5, &e5, &e4, &e6 };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        chunk_event(out, all[i]);
    }
    seeds_put_buf(out);
    message.inbox_seq = 5; /* a hole */
    const Client__Event *hole[] = { &e1, &e2, &e3, &e1, &e2 };
    for (size_t i = 0; i < sizeof hole / sizeof *hole; i++) {
        chunk_event(out, hole[i]);
    }
    seeds_put_buf(out);
}

/* ---- between nodes ---- */

typedef struct mesh_samples {
    Mesh__Msg genesis, ring, send, create, edit, read, history, members, attach, append, ack, heads, user_chats,
        inbox_read, lease, deliver, delivered, appended, attached, sent, done, live;
} mesh_samples;

#define SAMPLE(member, KIND, field, value)                                                                             \
    m->member = (Mesh__Msg)MESH__MSG__INIT;                                                                            \
    m->member.body_case = MESH__MSG__BODY_##KIND;                                                                      \
    m->member.field = (value);                                                                                         \
    m->member.corr = 11;                                                                                               \
    m->member.epoch = 1;                                                                                               \
    m->member.key = "default/ann"

static void fill_requests(mesh_samples *m, const char *direct)
{
    static char *names[] = { "default/bob" };
    static Mesh__Genesis genesis = MESH__GENESIS__INIT;
    genesis.era = 5;
    genesis.cluster = "parley";
    SAMPLE(genesis, GENESIS, genesis, &genesis);
    static Mesh__RingNode node = MESH__RING_NODE__INIT, *nodes[] = { &node };
    node.name = "router1";
    node.boot = 7;
    static Mesh__Ring ring = MESH__RING__INIT;
    ring.epoch = 1;
    ring.n_routers = 1;
    ring.routers = nodes;
    SAMPLE(ring, RING, ring, &ring);
    static Mesh__Lease lease = MESH__LEASE__INIT;
    lease.router = "router1";
    lease.boot = 7;
    SAMPLE(lease, LEASE, lease, &lease);
    static Mesh__Send send = MESH__SEND__INIT;
    send.user = "default/ann";
    send.peer = "default/bob";
    send.chat = (char *)direct;
    send.client_msg_id = "m1";
    send.content_type = "text/plain";
    send.body = (ProtobufCBinaryData){ 2, (uint8_t *)"hi" };
    SAMPLE(send, SEND, send, &send);
    static Mesh__ChatCreate create = MESH__CHAT_CREATE__INIT;
    create.user = "default/ann";
    create.chat = "default/g:1";
    create.client_msg_id = "c1";
    create.name = "room";
    create.n_members = 1;
    create.members = names;
    SAMPLE(create, CHAT_CREATE, chat_create, &create);
    static Mesh__ChatEdit edit = MESH__CHAT_EDIT__INIT;
    edit.user = "default/ann";
    edit.chat = "default/g:1";
    edit.client_msg_id = "c2";
    edit.op = MESH__EDIT_OP__EDIT_REMOVE;
    edit.n_members = 1;
    edit.members = names;
    SAMPLE(edit, CHAT_EDIT, chat_edit, &edit);
    static Mesh__Read read = MESH__READ__INIT;
    read.user = "default/ann";
    read.chat = (char *)direct;
    read.seq = 1;
    SAMPLE(read, READ, read, &read);
    static Mesh__History history = MESH__HISTORY__INIT;
    history.user = "default/ann";
    history.chat = (char *)direct;
    history.limit = 10;
    SAMPLE(history, HISTORY, history, &history);
    static Mesh__Members list = MESH__MEMBERS__INIT;
    list.user = "default/ann";
    list.chat = "default/g:1";
    list.limit = 10;
    SAMPLE(members, MEMBERS, members, &list);
    static Mesh__Attach attach = MESH__ATTACH__INIT;
    attach.user = "default/ann";
    attach.device = "phone";
    attach.session = 3;
    attach.fresh = 1;
    attach.edge = "edge1";
    SAMPLE(attach, ATTACH, attach, &attach);
    static Mesh__InboxAck ack = MESH__INBOX_ACK__INIT;
    ack.user = "default/ann";
    ack.device = "phone";
    ack.session = 3;
    ack.inbox_seq = 1;
    SAMPLE(ack, INBOX_ACK, inbox_ack, &ack);
    static Mesh__UserChats user_chats = MESH__USER_CHATS__INIT;
    user_chats.user = "default/ann";
    user_chats.limit = 10;
    SAMPLE(user_chats, USER_CHATS, user_chats, &user_chats);
    static Mesh__InboxRead inbox_read = MESH__INBOX_READ__INIT;
    inbox_read.user = "default/ann";
    inbox_read.limit = 10;
    SAMPLE(inbox_read, INBOX_READ, inbox_read, &inbox_read);
    static Mesh__HeadAsk ask = MESH__HEAD_ASK__INIT, *asks[] = { &ask };
    ask.chat = (char *)direct;
    static Mesh__Heads heads = MESH__HEADS__INIT;
    heads.user = "default/ann";
    heads.n_chats = 1;
    heads.chats = asks;
    SAMPLE(heads, HEADS, heads, &heads);
}

static void fill_rest(mesh_samples *m, const char *direct)
{
    static Mesh__Entry entry = MESH__ENTRY__INIT;
    entry.chat = (char *)direct;
    entry.seq = 1;
    entry.id = 99;
    entry.kind = MESH__ENTRY_KIND__ENTRY_TEXT;
    entry.sender = "default/ann";
    entry.client_msg_id = "m1";
    entry.body = (ProtobufCBinaryData){ 2, (uint8_t *)"hi" };
    entry.count = 1;
    static Mesh__Recipient to = MESH__RECIPIENT__INIT, *tos[] = { &to };
    to.user = "default/ann";
    static Mesh__Append append = MESH__APPEND__INIT;
    append.entry = &entry;
    append.n_users = 1;
    append.users = tos;
    SAMPLE(append, APPEND, append, &append);
    static Mesh__Deliver deliver = MESH__DELIVER__INIT;
    deliver.item = 1;
    deliver.entry = &entry;
    deliver.n_users = 1;
    deliver.users = tos;
    SAMPLE(deliver, DELIVER, deliver, &deliver);
    static Mesh__Delivered delivered = MESH__DELIVERED__INIT;
    delivered.item = 1;
    SAMPLE(delivered, DELIVERED, delivered, &delivered);
    static Mesh__AppendResult result = MESH__APPEND_RESULT__INIT, *results[] = { &result };
    result.state = MESH__APPEND_STATE__APPEND_DONE;
    result.inbox_seq = 1;
    static Mesh__Appended appended = MESH__APPENDED__INIT;
    appended.era = 5;
    appended.n_results = 1;
    appended.results = results;
    SAMPLE(appended, APPENDED, appended, &appended);
    static Mesh__Attached attached = MESH__ATTACHED__INIT;
    attached.session = 3;
    attached.era = 5;
    SAMPLE(attached, ATTACHED, attached, &attached);
    static Mesh__Sent sent = MESH__SENT__INIT;
    sent.chat = (char *)direct;
    sent.seq = 1;
    SAMPLE(sent, SENT, sent, &sent);
    static Mesh__Done done = MESH__DONE__INIT;
    SAMPLE(done, DONE, done, &done);
    static Mesh__Target target = MESH__TARGET__INIT, *targets[] = { &target };
    target.session = 3;
    target.inbox_seq = 1;
    static Mesh__Live live = MESH__LIVE__INIT;
    live.entry = &entry;
    live.era = 5;
    live.n_targets = 1;
    live.targets = targets;
    SAMPLE(live, LIVE, live, &live);
}

static void put_mesh(const char *dir, mesh_buf *out)
{
    mesh_samples m;
    mesh_qid direct;
    mesh_id_direct("default/ann", "default/bob", &direct);
    fill_requests(&m, direct.s);
    fill_rest(&m, direct.s);
    const Mesh__Msg *to_store[] = { &m.lease, &m.attach,     &m.send,       &m.append,  &m.delivered,
                                    &m.ack,   &m.create,     &m.edit,       &m.history, &m.members,
                                    &m.heads, &m.user_chats, &m.inbox_read, &m.read,    &m.send };
    size_t n = sizeof to_store / sizeof *to_store;

    seeds_begin(dir, "frame");
    for (size_t i = 0; i < n; i++) {
        mesh_frame_put(out, to_store[i]);
        if (i % 4 == 0) {
            seeds_put(out->data, out->size);
        }
    }
    seeds_put(out->data, out->size - 3);
    out->data[0] = 2;
    seeds_put_buf(out);
    seeds_put("\1\4\0\0\0", 5);

    seeds_begin(dir, "store");
    seeds_empty_stores(out);
    for (size_t i = 0; i < n; i++) {
        seeds_chunk_msg(out, "\40", to_store[i]);
    }
    seeds_put_buf(out);
    seeds_replicas(out);
    seeds_followers(out);

    seeds_begin(dir, "log_entry");
    const Mesh__Msg *logged[] = { &m.genesis, &m.attach, &m.send, &m.append, &m.create, &m.edit, &m.ack, &m.read };
    for (size_t i = 0; i < sizeof logged / sizeof *logged; i++) {
        mesh_buf entry = { 0 }, frame = { 0 };
        mesh_frame_put(&frame, logged[i]);
        mesh_buf_put(&entry, "\0\0\0\0\1\0\0\0", 8);
        mesh_buf_put(&entry, frame.data, frame.size);
        seeds_chunk(out, NULL, entry.data, entry.size);
        mesh_buf_fini(&entry);
        mesh_buf_fini(&frame);
        seeds_put(out->data, out->size);
    }
    mesh_buf_clear(out);

    seeds_begin(dir, "router");
    seeds_chunk_msg(out, "\1", &m.ring);
    const Mesh__Msg *dialog[] = { &m.attach, &m.attached, &m.send, &m.sent, &m.deliver, &m.appended, &m.ack, &m.done };
    for (size_t i = 0; i < sizeof dialog / sizeof *dialog; i++) {
        bool from_store = i % 2 == 1 || dialog[i] == &m.deliver;
        seeds_chunk_msg(out, from_store ? "\1" : "\0", dialog[i]);
    }
    seeds_put_buf(out);

    seeds_begin(dir, "edge");
    seeds_chunk_msg(out, "\0", &m.ring);
    seeds_chunk(out, "\3", "", 0);
    put_requests(chunk_request, out);
    seeds_chunk_msg(out, "\0", &m.attached);
    seeds_chunk_msg(out, "\0", &m.sent);
    seeds_chunk_msg(out, "\0", &m.live);
    seeds_put_buf(out);
}

static void put_texts(const char *dir)
{
    seeds_begin(dir, "client_json");
    text("{\"type\":\"ping\",\"id\":1}\n{\"type\":\"ping\"}");
    text("{\"type\":\"send\",\"id\":1,\"to\":\"bob\",\"to\":\"cyd\",\"client_msg_id\":\"a\",\"body\":\"x\"}");
    text("{\"type\":\"send\",\"id\":9007199254740993,\"chat\":\"a\",\"body\":\"\\u0000\\ud800\"}");
    text("[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[");
    text("{\"type\":\"hello\",\"id\":1,\"device\":\"d\",\"cursor\":{\"era\":\"18446744073709551615\",\"inbox_seq\":"
         "1e400}}");
    text("{\"type\":\"state\",\"state\":\"inactive\"}\n\n\xff\xfe\n{}\nnull\n42");

    seeds_begin(dir, "conf");
    text("cluster\n    name = \"demo\"\n    hash_key = \"00112233445566778899aabbccddeeff\"\n    tenants = \"default "
         "x\"\n"
         "node\n    edge1\n        role = edge\n        public_key = rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7\n"
         "    store1\n        role = store\n        endpoint = tcp://127.0.0.1:7101\n"
         "        public_key = D:)Q[IlAW!ahhC2ac:9*A}h:p?([4%wOTJ%JR%cs\n        shard = 0\n"
         "edge\n    port = 8080\n    rate = 0\n");
    text("cluster\n    hash_key = \"00112233445566778899aabbccddeeff\"\n    hash_key = \"00\"\n");
    text("cluster\n  name = x\n\tname = \"\n=\n    =\n#\n");
    text("node\n    a\n        role = nothing\n    a\n        shard = 99999999999999999999\n");

    seeds_begin(dir, "token");
    text("1{\"alg\":\"HS256\",\"typ\":\"JWT\"}\n{\"sub\":\"ann\",\"exp\":1700003600,\"name\":\"Ann\",\"tenant\":"
         "\"default\"}");
    text("1{\"alg\":\"HS256\"}\n{\"sub\":\"ann\",\"exp\":1e300,\"nbf\":-1}");
    text("1{\"alg\":\"none\"}\n{\"sub\":\"ann\",\"exp\":1700003600}");
    text("1{\"alg\":\"HS512\"}\n{\"sub\":\"../ann\",\"exp\":\"soon\"}");
    text("eyJhbGciOiJub25lIn0.eyJzdWIiOiJhbm4ifQ.");
    text("..");

    seeds_begin(dir, "irc");
    text("[12:00] <ann> hello\n[12:01] * ann waves\n=== ann is now known as bob\n[12:02] <bob> hi\n=== cyd has joined "
         "#x\n");
    text("=== a is now known as a\n[12:00] <a[b]\\`^{|}> \xc3\xa9 x\n");
    text("[99:99] <> \n[12:00] <x>\n[12:00] <x> \xff\n");
    text("a.5bb.5d");

    seeds_begin(dir, "head");
    text("GET /v1/ws HTTP/1.1\r\nHost: localhost:8080\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n"
         "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
         "Sec-WebSocket-Protocol: parley.v1.json, token.a.b.c\r\nOrigin: http://localhost:8080\r\n\r\n");
    text("GET / HTTP/1.1\r\nHost: x\r\nIf-None-Match: \"a\"\r\n\r\nmore");
    text("GET /?token=x HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n");
    text("POST / HTTP/1.0\nContent-Length: 5\r\n folded\r\n\r\nhello");
}

static void put_wals(const char *dir)
{
    /* One byte of mode, then records whose checksums the target puts right. */
    static const char full[] = "\1\0\0\0\0\5\0\1hello";
    static const char pieces[] = "\1\0\0\0\0\3\0\2abc\0\0\0\0\3\0\3def\0\0\0\0\3\0\4ghi";
    static const char orphan[] = "\1\0\0\0\0\3\0\3def\0\0\0\0\3\0\1ghi";
    static const char torn[] = "\1\0\0\0\0\3\0\1abc\0\0\0\0\377\0\1gh";
    static const char wrong[] = "\0\1\2\3\4\3\0\1abc";
    static const char edit[] = "\3\0\0\0\0\41\0\1\1\32leveldb.BytewiseComparator\2\7\3\11\4\52\11\0";
    seeds_begin(dir, "wal");
    seeds_put(full, sizeof full - 1);
    seeds_put(pieces, sizeof pieces - 1);
    seeds_put(orphan, sizeof orphan - 1);
    seeds_put(torn, sizeof torn - 1);
    seeds_put(wrong, sizeof wrong - 1);
    seeds_put(edit, sizeof edit - 1);
    seeds_put("\1\0\0\0\0\0\0\0\0\0\0\0\0", 13);
}

int main(int argc, char **argv)
{
    if (argc != 2) {
        fprintf(stderr, "usage: seeds DIR\n");
        return 2;
    }
    mesh_buf out = { 0 };
    put_texts(argv[1]);
    seeds_begin(argv[1], "client_json");
    number = 50;
    put_requests(as_json, &out);
    seeds_begin(argv[1], "client_protobuf");
    put_requests(as_protobuf, &out);
    put_requests(all_in_one, &out);
    seeds_put(out.data, out.size - 1);
    seeds_put_buf(&out);
    seeds_put("\xff\xff\xff\xff\x0f", 5);
    seeds_begin(argv[1], "event");
    put_events(&out);
    put_mesh(argv[1], &out);
    put_wals(argv[1]);
    seeds_confirmed(argv[1], &out);
    seeds_states(argv[1], &out);
    mesh_buf_fini(&out);
    return 0;
}
