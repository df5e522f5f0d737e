/* Seeds of what stores say to each other and of their rows. In those of fuzz_store.c the first byte of a chunk says who
 * speaks, 1 and 2 are stores, and how late: 4 is 20 ms. */
#include <string.h>

#include "store.pb-c.h"
#include "store/kv_rows.h"
#include "tests/fuzz/seeds.h"

/* ---- stores of a shard ---- */

static void chunk_replica(mesh_buf *out, const char *head, Mesh__Replica *word)
{
    MESH_MSG(msg, REPLICA, replica, word);
    seeds_chunk_msg(out, head, &msg);
}

/* Both others have no data: this one begins. */
void seeds_empty_stores(mesh_buf *out)
{
    Mesh__Replica word = MESH__REPLICA__INIT;
    word.state = MESH__REPLICA_STATE__REPLICA_EMPTY;
    word.level = 2;
    chunk_replica(out, "\1", &word);
    chunk_replica(out, "\2", &word);
}

static void chunk_hold(mesh_buf *out, const char *head, uint64_t index)
{
    Mesh__StateHold hold = MESH__STATE_HOLD__INIT;
    hold.index = index;
    MESH_MSG(msg, STATE_HOLD, state_hold, &hold);
    seeds_chunk_msg(out, head, &msg);
}

/* One joins, follows, confirms more and more, is short of space, comes back with less than it had. */
void seeds_replicas(mesh_buf *out)
{
    Mesh__Replica word = MESH__REPLICA__INIT;
    Mesh__Confirmed of[2] = { MESH__CONFIRMED__INIT, MESH__CONFIRMED__INIT }, *confirmed[] = { &of[0], &of[1] };
    Mesh__Raft raft = MESH__RAFT__INIT;
    seeds_empty_stores(out);
    word.state = MESH__REPLICA_STATE__REPLICA_JOINING;
    word.raft_id = 2;
    word.level = 2;
    word.asks = 1;
    chunk_replica(out, "\101", &word);
    chunk_hold(out, "\1", 1);
    chunk_hold(out, "\2", 5);
    raft.from = 2;
    raft.to = 1;
    raft.from_address = "store2.0000000000000002";
    raft.kind = MESH__RAFT_KIND__RAFT_APPENDED;
    for (unsigned i = 1; i <= 8; i++) {
        MESH_MSG(msg, RAFT, raft, &raft);
        raft.term = 2;
        raft.index = i;
        seeds_chunk_msg(out, "\101", &msg);
    }
    word.state = MESH__REPLICA_STATE__REPLICA_MEMBER;
    word.term = 2;
    word.last_index = 8;
    word.confirmed = confirmed;
    word.n_confirmed = 2;
    of[0].raft_id = 1;
    of[0].index = 3;
    of[1].raft_id = 2;
    of[1].index = 6;
    chunk_replica(out, "\101", &word);
    word.low_space = 1;
    chunk_replica(out, "\101", &word);
    chunk_hold(out, "\1", 0);
    word.last_index = 4;
    word.asks = 0;
    chunk_replica(out, "\101", &word);
    seeds_put(out->data, out->size);
    of[0].index = 1000; /* this one has forgotten */
    chunk_replica(out, "\101", &word);
    seeds_put_buf(out);
}

/* It is this one that joins: told that it has no vote, then that it is unfit. */
void seeds_followers(mesh_buf *out)
{
    Mesh__Replica word = MESH__REPLICA__INIT;
    word.state = MESH__REPLICA_STATE__REPLICA_MEMBER;
    word.raft_id = 2;
    word.term = 3;
    word.last_index = 10;
    word.level = 2;
    word.asks = 1;
    chunk_replica(out, "\1", &word);
    word.no_vote = 1;
    chunk_replica(out, "\101", &word);
    Mesh__Raft raft = MESH__RAFT__INIT;
    raft.from = 2;
    raft.to = 1;
    raft.from_address = "store2.0000000000000002";
    raft.kind = MESH__RAFT_KIND__RAFT_APPEND;
    raft.term = 3;
    MESH_MSG(msg, RAFT, raft, &raft);
    seeds_chunk_msg(out, "\101", &msg);
    raft.kind = MESH__RAFT_KIND__RAFT_VOTE;
    raft.term = 4;
    raft.index = 10;
    raft.index_term = 3;
    seeds_chunk_msg(out, "\101", &msg);
    seeds_put(out->data, out->size);
    word.no_vote = 0;
    word.unfit = 1;
    word.term = 5;
    chunk_replica(out, "\101", &word);
    seeds_put_buf(out);
}

/* ---- what replicas have confirmed ---- */

static void put_confirmed_row(mesh_buf *out, size_t n, uint64_t *ids)
{
    uint64_t indexes[] = { 1, 2, 300, 4 };
    Store__ConfirmedRow row = STORE__CONFIRMED_ROW__INIT;
    mesh_buf value = { 0 };
    row.n_raft_ids = row.n_indexes = n;
    row.raft_ids = ids;
    row.indexes = indexes;
    mesh_wire_pack(&row, &value);
    mesh_buf_put(out, "\10", 1); /* fuzz_raft.c: start again with this row */
    seeds_chunk(out, NULL, value.data, value.size);
    seeds_chunk(out, "\6", "\1\2\2\3\4\1\5\1", 8);
    seeds_chunk(out, "\0", "", 0);
    seeds_put_buf(out);
    mesh_buf_fini(&value);
}

void seeds_confirmed(const char *dir, mesh_buf *out)
{
    seeds_begin(dir, "raft");
    seeds_skip_to(50); /* the others were found by fuzzing */
    put_confirmed_row(out, 3, (uint64_t[]){ 1, 2, 3 });
    put_confirmed_row(out, 4, (uint64_t[]){ 2, 9, 3, 8 });
    put_confirmed_row(out, 4, (uint64_t[]){ 2, 3, 2, 2 });
    put_confirmed_row(out, 0, NULL);
}

/* ---- a replica's rows ---- */

static void row(mesh_buf *rows, const char *key, size_t key_size, const char *value)
{
    store_kv_rows_put(rows, (mesh_slice){ (const uint8_t *)key, key_size },
                      (mesh_slice){ (const uint8_t *)value, strlen(value) });
}

static void put_asks(mesh_buf *out)
{
    for (unsigned i = 1; i <= 4; i++) {
        Mesh__StateAsk ask = MESH__STATE_ASK__INIT;
        ask.cluster = i < 4 ? "parley" : "elsewhere";
        ask.wanted = 5;
        ask.session = i == 2 ? 2 : 0;
        ask.chunk = i < 3 ? 1 : i;
        MESH_MSG(msg, STATE_ASK, state_ask, &ask);
        msg.corr = i < 3 ? 1 : i;
        seeds_chunk_msg(out, "\1", &msg);
    }
    Mesh__StateDone done = MESH__STATE_DONE__INIT;
    done.session = 2;
    MESH_MSG(msg, STATE_DONE, state_done, &done);
    seeds_chunk_msg(out, "\1", &msg);
    for (unsigned i = 0; i < 3; i++) {
        Mesh__StateHold hold = MESH__STATE_HOLD__INIT;
        hold.shard = i == 1;
        hold.index = 7 * (2 - i);
        MESH_MSG(word, STATE_HOLD, state_hold, &hold);
        word.key = i == 0 ? "x" : "";
        seeds_chunk_msg(out, "\1", &word);
    }
}

void seeds_states(const char *dir, mesh_buf *out)
{
    mesh_buf rows = { 0 };
    seeds_begin(dir, "state");
    row(&rows, "a", 1, "1");
    row(&rows, "b", 1, "");
    seeds_chunk(out, "\0", rows.data, rows.size);
    seeds_chunk(out, "\0", rows.data, rows.size);
    seeds_put_buf(out);
    put_asks(out);
    seeds_put_buf(out);
    for (unsigned i = 1; i <= 2; i++) {
        mesh_buf_clear(&rows);
        if (i == 1) {
            row(&rows, "\0A", 2, "\10\7");
        }
        row(&rows, i == 1 ? "c" : "m", 1, "value");
        Mesh__StateChunk body = MESH__STATE_CHUNK__INIT;
        body.session = 9;
        body.chunk = i;
        body.index = 7;
        body.rows = (ProtobufCBinaryData){ rows.size, rows.data };
        body.last = i == 2;
        MESH_MSG(msg, STATE_CHUNK, state_chunk, &body);
        seeds_chunk_msg(out, "\3", &msg);
        seeds_put(out->data, out->size);
    }
    seeds_chunk(out, "\4", "\24", 1);
    Mesh__Fault fault = MESH__FAULT__INIT;
    fault.code = 202;
    MESH_MSG(msg, FAULT, fault, &fault);
    seeds_chunk_msg(out, "\3", &msg);
    seeds_put_buf(out);
    mesh_buf_fini(&rows);
}
