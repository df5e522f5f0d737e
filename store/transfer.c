/* store/transfer.c: the sessions of the serving side.
 *
 * An ask marks its session as waiting; a turn gives the chunk of the one that waits longest. The chunk given last is
 * kept, to be given again. Sessions are few, so they are looked for one by one. */
#include "store/transfer.h"

#include <assert.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#include "mesh/alloc.h"
#include "mesh/fault.h"
#include "store.pb-c.h"
#include "store/key.h"
#include "store/kv_rows.h"

typedef struct session {
    uint64_t id; /* 0: free */
    mesh_peer peer;
    bool replica;       /* it will need the log after these rows; a backup does not */
    uint64_t opened_by; /* corr of the ask that opened it: that ask may come twice */
    store_kv_view *view;
    uint64_t index;
    /* the chunk given last; 0 = none */
    uint64_t chunk;
    bool last;
    mesh_buf rows, key; /* key: the last one of rows */
    uint8_t sum[STORE_TRANSFER_SUM], digest[STORE_TRANSFER_SUM];
    /* what is asked for */
    uint64_t asked, corr; /* asked: chunk or chunk + 1; 0 = nothing */
    uint64_t turn;        /* of the asks, in the order they came */
    mesh_ms used;
} session;

struct store_transfer {
    store_transfer_conf conf;
    store_kv *kv;
    session sessions[STORE_TRANSFER_SESSIONS];
    uint64_t opened, turns;
    mesh_ms free_at; /* the rate allows no chunk before */
    uint64_t given;  /* lowest index of sessions given whole; STORE_TRANSFER_NONE */
    mesh_ms given_until;
    store_transfer_counts counts;
};

/* ---- what both sides agree on ---- */

void store_transfer_sum(const Mesh__StateChunk *chunk, uint8_t sum[STORE_TRANSFER_SUM])
{
    uint8_t head[25];
    crypto_generichash_state state;
    mesh_put_u64be(head, chunk->session);
    mesh_put_u64be(head + 8, chunk->chunk);
    mesh_put_u64be(head + 16, chunk->index);
    head[24] = chunk->last != 0;
    (void)crypto_generichash_init(&state, NULL, 0, STORE_TRANSFER_SUM);
    (void)crypto_generichash_update(&state, head, sizeof head);
    (void)crypto_generichash_update(&state, chunk->rows.data, chunk->rows.len);
    (void)crypto_generichash_final(&state, sum, STORE_TRANSFER_SUM);
}

void store_transfer_chain(uint8_t digest[STORE_TRANSFER_SUM], const uint8_t sum[STORE_TRANSFER_SUM])
{
    uint8_t both[2 * STORE_TRANSFER_SUM];
    memcpy(both, digest, STORE_TRANSFER_SUM);
    memcpy(both + STORE_TRANSFER_SUM, sum, STORE_TRANSFER_SUM);
    (void)crypto_generichash(digest, STORE_TRANSFER_SUM, both, sizeof both, NULL, 0);
}

bool store_transfer_copies(mesh_slice key)
{
    return key.size > 0 && (key.data[0] != 0 || (key.size == 2 && key.data[1] == 'A'));
}

mesh_err store_transfer_applied(mesh_slice value, uint64_t *index_p)
{
    mesh_arena *arena = mesh_arena_new();
    ProtobufCMessage *row;
    mesh_err err = mesh_wire_unpack(&store__applied_row__descriptor, value, arena, &row);
    if (err == MESH_OK) {
        *index_p = ((const Store__AppliedRow *)row)->index;
    }
    mesh_arena_destroy(&arena);
    return err;
}

bool store_transfer_is_replica(const mesh_conf *conf, mesh_peer self, mesh_peer peer)
{
    if (peer == self || peer >= mesh_conf_nodes(conf)) {
        return false;
    }
    const mesh_node_conf *node = mesh_conf_node(conf, peer);
    return node->role == MESH_STORE && node->shard == mesh_conf_node(conf, self)->shard;
}

/* ---- sessions ---- */

store_transfer *store_transfer_new(const store_transfer_conf *conf, store_kv *kv)
{
    store_transfer *transfer = mesh_alloc(sizeof *transfer);
    transfer->conf = *conf;
    transfer->kv = kv;
    transfer->given = STORE_TRANSFER_NONE;
    if (conf->rate > 0 && conf->rate < STORE_TRANSFER_RATE_MIN) {
        transfer->conf.rate = STORE_TRANSFER_RATE_MIN;
    }
    return transfer;
}

static void session_close(session *s)
{
    store_kv_view_destroy(&s->view);
    mesh_buf_fini(&s->rows);
    mesh_buf_fini(&s->key);
    *s = (session){ 0 };
}

void store_transfer_destroy(store_transfer **transfer_p)
{
    store_transfer *transfer = *transfer_p;
    if (transfer != NULL) {
        for (size_t i = 0; i < STORE_TRANSFER_SESSIONS; i++) {
            session_close(&transfer->sessions[i]);
        }
        free(transfer);
        *transfer_p = NULL;
    }
}

/* Its receiver is done with it, or gone; one that has all chunks may be either. */
static void session_end(store_transfer *transfer, session *s, mesh_time now)
{
    if (s->last && s->replica) {
        transfer->given = s->index < transfer->given ? s->index : transfer->given;
        transfer->given_until = now.mono + STORE_TRANSFER_GRACE_MS;
    }
    session_close(s);
}

static session *find(store_transfer *transfer, mesh_peer peer)
{
    for (size_t i = 0; i < STORE_TRANSFER_SESSIONS; i++) {
        if (transfer->sessions[i].id != 0 && transfer->sessions[i].peer == peer) {
            return &transfer->sessions[i];
        }
    }
    return NULL;
}

static session *find_free(store_transfer *transfer)
{
    for (size_t i = 0; i < STORE_TRANSFER_SESSIONS; i++) {
        if (transfer->sessions[i].id == 0) {
            return &transfer->sessions[i];
        }
    }
    return NULL;
}

static void refuse(store_transfer *transfer, mesh_peer to, uint64_t corr, mesh_fault code, const char *detail,
                   mesh_out *out)
{
    Mesh__Fault fault = MESH__FAULT__INIT;
    fault.code = code;
    fault.detail = (char *)(uintptr_t)detail;
    MESH_MSG(answer, FAULT, fault, &fault);
    answer.corr = corr;
    transfer->counts.refused++;
    mesh_out_put(out, to, &answer);
}

/* Which index the view's rows stand for; 0 when nothing was ever applied. */
static mesh_err view_index(store_kv_view *view, uint64_t *index_p)
{
    store_key key;
    mesh_buf value = { 0 };
    *index_p = 0;
    store_key_applied(&key);
    mesh_err err = store_kv_view_get(view, store_key_slice(&key), &value);
    if (err == MESH_OK && store_transfer_applied(mesh_buf_slice(&value), index_p) != MESH_OK) {
        err = MESH_CORRUPT;
    }
    mesh_buf_fini(&value);
    return err == MESH_NOT_FOUND ? MESH_OK : err;
}

/* A session for peer, new. NULL: it got a fault. */
static session *open_session(store_transfer *transfer, mesh_peer peer, uint64_t corr, uint64_t wanted, mesh_out *out)
{
    session *s = find(transfer, peer);
    if (s != NULL) {
        session_close(s); /* its receiver has begun anew */
    }
    s = find_free(transfer);
    if (s == NULL) {
        refuse(transfer, peer, corr, FAULT_BUSY, "enough sessions", out);
        return NULL;
    }
    store_kv_view *view = store_kv_view_new(transfer->kv);
    uint64_t index;
    mesh_err err = view_index(view, &index);
    if (err != MESH_OK || index < wanted) {
        refuse(transfer, peer, corr, FAULT_UNAVAILABLE, err != MESH_OK ? mesh_err_name(err) : "behind", out);
        store_kv_view_destroy(&view);
        return NULL;
    }
    *s = (session){ .peer = peer, .opened_by = corr, .view = view, .index = index };
    s->replica = store_transfer_is_replica(transfer->conf.conf, transfer->conf.self, peer);
    s->id = transfer->conf.boot + ++transfer->opened;
    s->id += s->id == 0;
    transfer->counts.sessions++;
    return s;
}

static void take_ask(store_transfer *transfer, mesh_peer from, uint64_t corr, const Mesh__StateAsk *ask, mesh_time now,
                     mesh_out *out)
{
    session *s = find(transfer, from);
    bool opens = ask->session == 0;
    if (opens && (s == NULL || s->opened_by != corr)) {
        s = open_session(transfer, from, corr, ask->wanted, out);
        if (s == NULL) {
            return;
        }
    } else if (!opens && (s == NULL || s->id != ask->session)) {
        refuse(transfer, from, corr, FAULT_NOT_FOUND, "no such session", out);
        return;
    }
    if (ask->chunk < s->chunk) {
        return; /* late: its receiver has that already */
    }
    if (ask->chunk > s->chunk + !s->last) {
        transfer->counts.bad++;
        return;
    }
    if (s->asked == 0) {
        s->turn = ++transfer->turns;
    }
    s->asked = ask->chunk;
    s->corr = corr;
    s->used = now.mono;
}

bool store_transfer_takes(const Mesh__Msg *msg)
{
    return msg->body_case == MESH__MSG__BODY_STATE_ASK || msg->body_case == MESH__MSG__BODY_STATE_DONE;
}

void store_transfer_message(store_transfer *transfer, mesh_peer from, const Mesh__Msg *msg, mesh_time now,
                            mesh_out *out)
{
    assert(store_transfer_takes(msg));
    const mesh_conf *conf = transfer->conf.conf;
    bool known =
        store_transfer_is_replica(conf, transfer->conf.self, from) || mesh_conf_node(conf, from)->role == MESH_OPERATOR;
    if (msg->body_case == MESH__MSG__BODY_STATE_DONE) {
        session *s = find(transfer, from);
        if (s != NULL && s->id == msg->state_done->session) {
            session_end(transfer, s, now);
        }
        return;
    }
    const Mesh__StateAsk *ask = msg->state_ask;
    if (msg->corr == 0 || ask->chunk == 0 || (ask->session == 0 && ask->chunk != 1)) {
        transfer->counts.bad++;
    } else if (!known || ask->shard != mesh_conf_node(conf, transfer->conf.self)->shard ||
               strcmp(ask->cluster, mesh_conf_str(conf, "cluster.name")) != 0) {
        refuse(transfer, from, msg->corr, FAULT_DENIED, "neither a replica of this shard nor an operator", out);
    } else {
        take_ask(transfer, from, msg->corr, ask, now, out);
    }
}

/* ---- giving chunks ---- */

/* The applied row leads the first chunk; after it come all tables, which lie behind everything that begins with 0x00.
 */
static mesh_err read_rows(session *s)
{
    static const uint8_t before_tables[2] = { 0, 0xff };
    mesh_slice after = { before_tables, sizeof before_tables };
    mesh_err err = MESH_OK;
    mesh_buf_clear(&s->rows);
    if (s->chunk == 0) {
        mesh_buf value = { 0 };
        store_key key;
        store_key_applied(&key);
        err = store_kv_view_get(s->view, store_key_slice(&key), &value);
        if (err == MESH_OK) {
            store_kv_rows_put(&s->rows, store_key_slice(&key), mesh_buf_slice(&value));
        }
        mesh_buf_fini(&value);
        err = err == MESH_NOT_FOUND ? MESH_OK : err;
    } else if (s->key.size > 0) {
        after = mesh_buf_slice(&s->key);
    }
    if (err == MESH_OK) {
        err = store_kv_view_read(s->view, after, STORE_TRANSFER_CHUNK - s->rows.size, &s->rows, &s->last);
    }
    if (err == MESH_OK && s->rows.size > STORE_TRANSFER_ROWS_MAX) {
        err = MESH_TOO_BIG;
    }
    return err;
}

static void fill(const session *s, Mesh__StateChunk *chunk)
{
    mesh__state_chunk__init(chunk);
    chunk->session = s->id;
    chunk->chunk = s->chunk;
    chunk->index = s->index;
    chunk->rows.data = s->rows.data;
    chunk->rows.len = s->rows.size;
    chunk->last = s->last;
    chunk->sum.data = (uint8_t *)(uintptr_t)s->sum;
    chunk->sum.len = STORE_TRANSFER_SUM;
    if (s->last) {
        chunk->digest.data = (uint8_t *)(uintptr_t)s->digest;
        chunk->digest.len = STORE_TRANSFER_SUM;
    }
}

/* Read the chunk after the last one. */
static mesh_err advance(session *s)
{
    mesh_err err = read_rows(s);
    if (err != MESH_OK) {
        return err;
    }
    mesh_slice rest = mesh_buf_slice(&s->rows), key, value, last = { NULL, 0 };
    while (store_kv_rows_next(&rest, &key, &value) == MESH_OK) {
        last = key;
    }
    if (last.size > 0 && last.data[0] != 0) {
        mesh_buf_clear(&s->key);
        mesh_buf_put(&s->key, last.data, last.size);
    }
    Mesh__StateChunk chunk;
    s->chunk++;
    fill(s, &chunk);
    store_transfer_sum(&chunk, s->sum);
    store_transfer_chain(s->digest, s->sum);
    return MESH_OK;
}

static void give(store_transfer *transfer, session *s, mesh_time now, mesh_out *out)
{
    bool again = s->asked == s->chunk;
    mesh_err err = again ? MESH_OK : advance(s);
    if (err != MESH_OK) {
        refuse(transfer, s->peer, s->corr, FAULT_UNAVAILABLE, mesh_err_name(err), out);
        session_close(s);
        return;
    }
    Mesh__StateChunk chunk;
    fill(s, &chunk);
    MESH_MSG(answer, STATE_CHUNK, state_chunk, &chunk);
    answer.corr = s->corr;
    mesh_out_put(out, s->peer, &answer);
    s->asked = 0;
    s->used = now.mono;
    transfer->counts.chunks++;
    transfer->counts.again += again;
    transfer->counts.bytes += s->rows.size;
    if (transfer->conf.rate > 0) {
        transfer->free_at = now.mono + (mesh_ms)(s->rows.size * 1000 / transfer->conf.rate);
    }
}

/* Whose ask came first; NULL when nobody waits. */
static session *next_waiting(store_transfer *transfer)
{
    session *first = NULL;
    for (size_t i = 0; i < STORE_TRANSFER_SESSIONS; i++) {
        session *s = &transfer->sessions[i];
        if (s->id != 0 && s->asked != 0 && (first == NULL || s->turn < first->turn)) {
            first = s;
        }
    }
    return first;
}

/* When something is to be done about s. */
static mesh_ms session_due(const store_transfer *transfer, const session *s, mesh_time now)
{
    if (s->asked == 0) {
        return s->used + STORE_TRANSFER_IDLE_MS;
    }
    return transfer->free_at > now.mono ? transfer->free_at : now.mono;
}

mesh_ms store_transfer_turn(store_transfer *transfer, mesh_time now, mesh_out *out)
{
    session *s = next_waiting(transfer);
    if (s != NULL && now.mono >= transfer->free_at) {
        give(transfer, s, now, out);
    }
    mesh_ms next = MESH_NEVER;
    for (size_t i = 0; i < STORE_TRANSFER_SESSIONS; i++) {
        s = &transfer->sessions[i];
        if (s->id != 0 && s->asked == 0 && now.mono - s->used >= STORE_TRANSFER_IDLE_MS) {
            session_end(transfer, s, now);
        }
        mesh_ms due = s->id != 0 ? session_due(transfer, s, now) : MESH_NEVER;
        next = due < next ? due : next;
    }
    if (transfer->given != STORE_TRANSFER_NONE && now.mono >= transfer->given_until) {
        transfer->given = STORE_TRANSFER_NONE;
    }
    if (transfer->given != STORE_TRANSFER_NONE && transfer->given_until < next) {
        next = transfer->given_until;
    }
    return next;
}

uint64_t store_transfer_oldest(const store_transfer *transfer)
{
    uint64_t oldest = transfer->given;
    for (size_t i = 0; i < STORE_TRANSFER_SESSIONS; i++) {
        const session *s = &transfer->sessions[i];
        if (s->id != 0 && s->replica && s->index < oldest) {
            oldest = s->index;
        }
    }
    return oldest;
}

store_transfer_counts store_transfer_counted(const store_transfer *transfer)
{
    return transfer->counts;
}
