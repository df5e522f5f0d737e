/* tests/unit/store_rig.h: one store core on a fake disk, asked like a router asks. Included by the store's unit tests.
 */
#ifndef TESTS_UNIT_STORE_RIG_H
#define TESTS_UNIT_STORE_RIG_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "mesh/alloc.h"
#include "mesh/fault.h"
#include "store.pb-c.h"
#include "store/core.h"
#include "store/key.h"
#include "store/metrics.h"
#include "tests/sim/kv_mem.c" /* the fake disk takes LevelDB's place */

#pragma GCC diagnostic ignored "-Wunused-function" /* not every test asks for everything */

#define RIG_WALL 1700000000000
#define RIG_SEEN 20000

enum { RIG_STORE, RIG_R1, RIG_R2, RIG_EDGE };

typedef struct rig_seen {
    mesh_peer to;
    Mesh__Msg *msg;
} rig_seen;

typedef struct rig {
    mesh_conf *conf;
    sim_disk *disk;
    store_kv *kv;
    store_core *core;
    mesh_out *out;
    mesh_time now;
    mesh_ms next; /* what the last turn returned */
    mesh_arena *arena;
    uint64_t corr;
    uint64_t epoch; /* put on what is asked */
    unsigned ids;
    size_t n_seen;
    rig_seen seen[RIG_SEEN]; /* everything sent since rig_forget */
} rig;

static void rig_node(rig *r, const char *name, mesh_role role)
{
    mesh_node_conf node = { .role = role };
    snprintf(node.name, sizeof node.name, "%s", name);
    if (role != MESH_EDGE) {
        snprintf(node.endpoint, sizeof node.endpoint, "inproc://%s", name);
    }
    assert_int_equal(mesh_conf_add_node(r->conf, &node), MESH_OK);
}

static void rig_open_core(rig *r)
{
    char why[256] = "";
    store_core_conf conf = { .conf = r->conf, .self = RIG_STORE, .seed = 7 };
    mesh_err err = store_core_new(&conf, r->kv, r->now, &r->core, why, sizeof why);
    if (err != MESH_OK) {
        fail_msg("store_core_new: %s: %s", mesh_err_name(err), why);
    }
}

static void rig_open(rig *r)
{
    char why[256] = "";
    store_kv_options options = { .write_buffer = 1 << 20, .block_cache = 1 << 20, .max_open_files = 100 };
    assert_int_equal(store_kv_open("/rig", &options, &r->kv, why, sizeof why), MESH_OK);
    rig_open_core(r);
}

static void rig_close(rig *r)
{
    store_core_destroy(&r->core);
    store_kv_close(&r->kv);
}

static void rig_forget(rig *r)
{
    r->n_seen = 0;
}

/* What the core wants sent joins seen. */
static void rig_drain(rig *r)
{
    mesh_peer to;
    mesh_buf frame;
    while (mesh_out_take(r->out, &to, &frame)) {
        mesh_frame_reader reader;
        /* the copy lives as long as the arena, so that messages may borrow from it */
        uint8_t *copy = mesh_arena_alloc(r->arena, frame.size);
        memcpy(copy, frame.data, frame.size);
        assert_int_equal(mesh_frame_open(&reader, (mesh_slice){ copy, frame.size }), MESH_OK);
        Mesh__Msg *msg;
        mesh_err err;
        while ((err = mesh_frame_next(&reader, r->arena, &msg, NULL)) == MESH_OK) {
            assert_true(r->n_seen < RIG_SEEN);
            r->seen[r->n_seen++] = (rig_seen){ to, msg };
        }
        assert_int_equal(err, MESH_AGAIN);
        mesh_buf_fini(&frame);
    }
}

static void rig_turn(rig *r)
{
    r->next = store_core_turn(r->core, r->now, r->out);
    rig_drain(r);
}

/* Turns and syncs until nothing moves. */
static void rig_run(rig *r)
{
    do {
        rig_turn(r);
    } while (sim_disk_flush(r->disk));
    rig_turn(r);
}

static void rig_sleep(rig *r, mesh_ms ms)
{
    for (mesh_ms end = r->now.mono + ms; r->now.mono < end;) {
        mesh_ms step = end - r->now.mono < 100 ? end - r->now.mono : 100;
        r->now.mono += step;
        r->now.wall += step;
        rig_run(r);
    }
}

static void rig_give(rig *r, mesh_peer from, Mesh__Msg *msg)
{
    mesh_buf packed = { 0 };
    Mesh__Msg *copy;
    if (msg->epoch == 0) {
        msg->epoch = r->epoch;
    }
    mesh_wire_pack(msg, &packed);
    assert_int_equal(
        mesh_wire_unpack(&mesh__msg__descriptor, mesh_buf_slice(&packed), r->arena, (ProtobufCMessage **)&copy),
        MESH_OK);
    store_core_message(r->core, from, copy, mesh_buf_slice(&packed), r->now, r->out);
    mesh_buf_fini(&packed);
    rig_drain(r);
}

static uint64_t rig_post(rig *r, mesh_peer from, Mesh__Msg *msg)
{
    msg->corr = ++r->corr;
    rig_give(r, from, msg);
    return msg->corr;
}

static Mesh__Msg *rig_answer(rig *r, uint64_t corr)
{
    for (size_t i = r->n_seen; i-- > 0;) {
        if (r->seen[i].msg->corr == corr) {
            return r->seen[i].msg;
        }
    }
    return NULL;
}

static Mesh__Msg *rig_ask_from(rig *r, mesh_peer from, Mesh__Msg *msg)
{
    uint64_t corr = rig_post(r, from, msg);
    if (rig_answer(r, corr) == NULL) {
        rig_run(r);
    }
    Mesh__Msg *answer = rig_answer(r, corr);
    if (answer == NULL) {
        fail_msg("no answer to %s", mesh_msg_kind_name(msg));
    }
    return answer;
}

static Mesh__Msg *rig_ask(rig *r, Mesh__Msg *msg)
{
    return rig_ask_from(r, RIG_R1, msg);
}

static void rig_lease(rig *r, mesh_peer router, uint64_t boot, bool leaving)
{
    Mesh__Lease lease = MESH__LEASE__INIT;
    lease.router = (char *)(uintptr_t)mesh_conf_node(r->conf, router)->name;
    lease.boot = boot;
    lease.leaving = leaving;
    MESH_MSG(msg, LEASE, lease, &lease);
    rig_give(r, router, &msg);
}

/* Slots from here on are another shard's, as far as this store knows: the outbox has to append to inboxes there. */
static void rig_set_apart(rig *r, mesh_slot first)
{
    Mesh__SlotRange there = MESH__SLOT_RANGE__INIT;
    there.first = first;
    there.last = MESH_SLOTS - 1;
    there.shard = 1;
    Mesh__SlotRange *map[1] = { &there };
    Mesh__Ring ring = MESH__RING__INIT;
    ring.epoch = 1;
    ring.n_map = 1;
    ring.map = map;
    mesh_buf value = { 0 };
    mesh_wire_pack(&ring, &value);
    store_kv_batch *batch = store_kv_batch_new();
    store_key key;
    store_key_ring(&key);
    store_kv_batch_put(batch, store_key_slice(&key), mesh_buf_slice(&value));
    assert_int_equal(store_kv_wait(r->kv, store_kv_write(r->kv, batch, true)), MESH_OK);
    store_kv_batch_destroy(&batch);
    mesh_buf_fini(&value);
}

static rig *rig_new(void)
{
    rig *r = mesh_alloc(sizeof *r);
    r->conf = mesh_conf_new();
    rig_node(r, "store1", MESH_STORE);
    rig_node(r, "router1", MESH_ROUTER);
    rig_node(r, "router2", MESH_ROUTER);
    rig_node(r, "edge1", MESH_EDGE);
    r->disk = sim_disk_new("/rig", 3);
    r->arena = mesh_arena_new();
    r->now = (mesh_time){ 1000000, RIG_WALL };
    r->out = mesh_out_new(mesh_conf_nodes(r->conf));
    r->epoch = 1;
    r->corr = 1000;
    rig_open(r);
    return r;
}

/* Router1 comes up and is alone in the ring. */
static rig *rig_with_router(rig *r)
{
    rig_run(r);
    store_core_up(r->core, RIG_R1, 11, r->now, r->out);
    rig_lease(r, RIG_R1, 11, false);
    rig_run(r);
    rig_forget(r);
    return r;
}

static rig *rig_ready(void) /* epoch 1 */
{
    return rig_with_router(rig_new());
}

static rig *rig_ready_apart(void) /* epoch 2 */
{
    rig *r = rig_new();
    store_core_destroy(&r->core);
    rig_set_apart(r, 0);
    rig_open_core(r);
    r->epoch = 2;
    return rig_with_router(r);
}

static void rig_destroy(rig *r)
{
    rig_close(r);
    sim_disk_destroy(&r->disk);
    mesh_out_destroy(&r->out);
    mesh_arena_destroy(&r->arena);
    mesh_conf_destroy(&r->conf);
    free(r);
}

/* ---- requests ---- */

static char *rig_id(rig *r)
{
    char id[32];
    snprintf(id, sizeof id, "id%u", ++r->ids);
    return mesh_arena_strdup(r->arena, id);
}

/* "ann" -> "default/ann" */
static char *rig_q(rig *r, const char *name)
{
    mesh_qid qid;
    assert_int_equal(mesh_qid_make("default", name, &qid), MESH_OK);
    return mesh_arena_strdup(r->arena, qid.s);
}

static char *rig_direct(rig *r, const char *a, const char *b)
{
    mesh_qid qid;
    mesh_id_direct(rig_q(r, a), rig_q(r, b), &qid);
    return mesh_arena_strdup(r->arena, qid.s);
}

/* A space-separated list of names. */
static char **rig_list(rig *r, const char *names, size_t *n_p)
{
    char **list = mesh_arena_alloc(r->arena, (strlen(names) + 1) * sizeof *list);
    char *copy = mesh_arena_strdup(r->arena, names);
    char *save;
    *n_p = 0;
    for (char *name = strtok_r(copy, " ", &save); name != NULL; name = strtok_r(NULL, " ", &save)) {
        list[(*n_p)++] = rig_q(r, name);
    }
    return list;
}

static int rig_by_id(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* The same by id and each once, as the edge puts members. */
static char **rig_members(rig *r, const char *names, size_t *n_p)
{
    size_t n;
    size_t kept = 0;
    char **list = rig_list(r, names, &n);
    qsort(list, n, sizeof *list, rig_by_id);
    for (size_t i = 0; i < n; i++) {
        if (kept == 0 || strcmp(list[kept - 1], list[i]) != 0) {
            list[kept++] = list[i];
        }
    }
    *n_p = kept;
    return list;
}

static Mesh__Send rig_send_body(rig *r, const char *user, const char *chat, const char *peer, const char *id,
                                const char *text)
{
    Mesh__Send send = MESH__SEND__INIT;
    send.user = rig_q(r, user);
    send.user_name = mesh_arena_strdup(r->arena, user);
    send.chat = (char *)(uintptr_t)chat;
    send.peer = peer != NULL ? rig_q(r, peer) : send.peer;
    send.client_msg_id = (char *)(uintptr_t)id;
    send.content_type = mesh_arena_strdup(r->arena, "text/plain");
    send.body = (ProtobufCBinaryData){ strlen(text), (uint8_t *)(uintptr_t)text };
    return send;
}

static Mesh__Msg *rig_send(rig *r, const char *user, const char *chat, const char *peer, const char *id,
                           const char *text)
{
    Mesh__Send send = rig_send_body(r, user, chat, peer, id, text);
    MESH_MSG(msg, SEND, send, &send);
    msg.key = send.chat;
    return rig_ask(r, &msg);
}

/* To a direct chat, which must work. */
static Mesh__Sent *rig_say(rig *r, const char *user, const char *peer, const char *text)
{
    Mesh__Msg *answer = rig_send(r, user, rig_direct(r, user, peer), peer, rig_id(r), text);
    assert_int_equal(answer->body_case, MESH__MSG__BODY_SENT);
    return answer->sent;
}

static Mesh__Msg *rig_create(rig *r, const char *user, const char *chat, const char *id, const char *members,
                             Mesh__HistoryRule rule)
{
    Mesh__ChatCreate create = MESH__CHAT_CREATE__INIT;
    create.user = rig_q(r, user);
    create.chat = rig_q(r, chat);
    create.client_msg_id = (char *)(uintptr_t)id;
    create.name = mesh_arena_strdup(r->arena, "the group");
    create.history = rule;
    create.members = rig_members(r, members, &create.n_members);
    MESH_MSG(msg, CHAT_CREATE, chat_create, &create);
    msg.key = create.chat;
    return rig_ask(r, &msg);
}

static Mesh__Msg *rig_edit(rig *r, const char *user, const char *chat, const char *id, Mesh__EditOp op, const char *arg)
{
    Mesh__ChatEdit edit = MESH__CHAT_EDIT__INIT;
    edit.user = rig_q(r, user);
    edit.chat = strchr(chat, '/') != NULL ? (char *)(uintptr_t)chat : rig_q(r, chat);
    edit.client_msg_id = (char *)(uintptr_t)id;
    edit.op = op;
    if (op == MESH__EDIT_OP__EDIT_RENAME) {
        edit.name = mesh_arena_strdup(r->arena, arg);
    } else {
        edit.members = rig_members(r, arg, &edit.n_members);
    }
    MESH_MSG(msg, CHAT_EDIT, chat_edit, &edit);
    msg.key = edit.chat;
    return rig_ask(r, &msg);
}

static Mesh__Msg *rig_post_text(rig *r, const char *user, const char *group, const char *text)
{
    return rig_send(r, user, rig_q(r, group), NULL, rig_id(r), text);
}

static Mesh__Entry rig_entry(rig *r, const char *chat, uint64_t seq, const char *sender, const char *text)
{
    Mesh__Entry entry = MESH__ENTRY__INIT;
    entry.chat = (char *)(uintptr_t)chat;
    entry.seq = seq;
    entry.id = seq + 5000;
    entry.ts_ms = (uint64_t)r->now.wall;
    entry.kind = MESH__ENTRY_KIND__ENTRY_TEXT;
    entry.sender = rig_q(r, sender);
    entry.content_type = mesh_arena_strdup(r->arena, "text/plain");
    entry.client_msg_id = rig_id(r);
    entry.count = seq;
    entry.body = (ProtobufCBinaryData){ strlen(text), (uint8_t *)(uintptr_t)text };
    return entry;
}

/* Append an entry to users' inboxes, all with the same prev. */
static Mesh__Msg *rig_append(rig *r, Mesh__Entry *entry, uint64_t prev, const char *users)
{
    Mesh__Append append = MESH__APPEND__INIT;
    char **list = rig_list(r, users, &append.n_users);
    append.entry = entry;
    append.users = mesh_arena_alloc(r->arena, append.n_users * sizeof *append.users);
    for (size_t i = 0; i < append.n_users; i++) {
        append.users[i] = mesh_arena_alloc(r->arena, sizeof *append.users[i]);
        mesh__recipient__init(append.users[i]);
        append.users[i]->user = list[i];
        append.users[i]->prev = prev;
    }
    MESH_MSG(msg, APPEND, append, &append);
    return rig_ask(r, &msg);
}

/* What a router does with a parcel. mute: its answer is lost on the way. */
static void rig_relay(rig *r, mesh_peer router, const Mesh__Deliver *deliver, bool mute)
{
    Mesh__Append append = MESH__APPEND__INIT;
    append.entry = deliver->entry;
    append.n_users = deliver->n_users;
    append.users = deliver->users;
    MESH_MSG(msg, APPEND, append, &append);
    Mesh__Msg *answer = rig_ask_from(r, router, &msg);
    assert_int_equal(answer->body_case, MESH__MSG__BODY_APPENDED);
    Mesh__Delivered delivered = MESH__DELIVERED__INIT;
    delivered.item = deliver->item;
    delivered.parcel = deliver->parcel;
    delivered.gaps = mesh_arena_alloc(r->arena, deliver->n_users * sizeof *delivered.gaps);
    for (size_t i = 0; i < deliver->n_users; i++) {
        const Mesh__AppendResult *result = answer->appended->results[i];
        assert_int_not_equal(result->state, MESH__APPEND_STATE__APPEND_REFUSED);
        if (result->state == MESH__APPEND_STATE__APPEND_GAP) {
            Mesh__Gap *gap = mesh_arena_alloc(r->arena, sizeof *gap);
            mesh__gap__init(gap);
            gap->user = deliver->users[i]->user;
            gap->expected = result->expected;
            delivered.gaps[delivered.n_gaps++] = gap;
        }
    }
    if (!mute) {
        MESH_MSG(done, DELIVERED, delivered, &delivered);
        rig_give(r, router, &done);
    }
}

static Mesh__Msg *rig_attach(rig *r, Mesh__Attach *attach, const char *user, const char *device)
{
    attach->user = rig_q(r, user);
    attach->device = mesh_arena_strdup(r->arena, device);
    MESH_MSG(msg, ATTACH, attach, attach);
    msg.key = attach->user;
    return rig_ask(r, &msg);
}

/* A hello with a cursor of the present era, or with none (after = UINT64_MAX). */
static Mesh__Msg *rig_hello(rig *r, const char *user, const char *device, uint64_t era, uint64_t after)
{
    Mesh__Attach attach = MESH__ATTACH__INIT;
    attach.session = ++r->corr;
    attach.fresh = true;
    attach.has_cursor = after != UINT64_MAX;
    attach.era = era;
    attach.after = attach.has_cursor ? after : 0;
    return rig_attach(r, &attach, user, device);
}

static Mesh__Msg *rig_ack(rig *r, const char *user, const char *device, uint64_t inbox_seq)
{
    Mesh__InboxAck ack = MESH__INBOX_ACK__INIT;
    ack.user = rig_q(r, user);
    ack.device = mesh_arena_strdup(r->arena, device);
    ack.inbox_seq = inbox_seq;
    MESH_MSG(msg, INBOX_ACK, inbox_ack, &ack);
    msg.key = ack.user;
    return rig_ask(r, &msg);
}

static Mesh__InboxPage *rig_inbox(rig *r, const char *user, uint64_t after, uint32_t limit)
{
    Mesh__InboxRead read = MESH__INBOX_READ__INIT;
    read.user = rig_q(r, user);
    read.after = after;
    read.limit = limit;
    MESH_MSG(msg, INBOX_READ, inbox_read, &read);
    msg.key = read.user;
    Mesh__Msg *answer = rig_ask(r, &msg);
    assert_int_equal(answer->body_case, MESH__MSG__BODY_INBOX_PAGE);
    return answer->inbox_page;
}

static Mesh__Msg *rig_history(rig *r, const char *user, const char *chat, Mesh__History ask)
{
    ask.user = rig_q(r, user);
    ask.chat = strchr(chat, '/') != NULL ? (char *)(uintptr_t)chat : rig_q(r, chat);
    MESH_MSG(msg, HISTORY, history, &ask);
    msg.key = ask.chat;
    return rig_ask(r, &msg);
}

/* Seqs of a page, "3 4 5". */
static const char *rig_seqs(rig *r, const Mesh__Page *page)
{
    char text[2048] = "";
    size_t at = 0;
    for (size_t i = 0; i < page->n_entries; i++) {
        at += (size_t)snprintf(text + at, sizeof text - at, "%s%llu", i > 0 ? " " : "",
                               (unsigned long long)page->entries[i]->seq);
    }
    return mesh_arena_strdup(r->arena, text);
}

static size_t rig_rows(rig *r, const char *prefix)
{
    store_kv_iter *it = store_kv_iter_new(r->kv, (mesh_slice){ (const uint8_t *)prefix, strlen(prefix) });
    size_t n = 0;
    for (store_kv_iter_first(it); store_kv_iter_valid(it); store_kv_iter_next(it)) {
        n++;
    }
    assert_int_equal(store_kv_iter_status(it), MESH_OK);
    store_kv_iter_destroy(&it);
    return n;
}

#define ASSERT_FAULT(answer, expected)                                                                                 \
    do {                                                                                                               \
        const Mesh__Msg *answer_ = (answer);                                                                           \
        assert_int_equal(answer_->body_case, MESH__MSG__BODY_FAULT);                                                   \
        assert_int_equal(answer_->fault->code, (expected));                                                            \
    } while (0)
#define ASSERT_KIND(answer, kind) assert_int_equal((answer)->body_case, MESH__MSG__BODY_##kind)

#endif
