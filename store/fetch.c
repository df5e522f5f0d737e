/* store/fetch.c: asking, checking, putting. One peer at a time, one chunk at a time.
 *
 * The note, which is put with each chunk's rows, holds what the next ask and check need:
 *   u8 1, u64be session, u64be chunk to ask for (0: all are there), u64be index, digest so far, name of the peer
 * A note of a session that is over costs one ask, which says so. */
#include "store/fetch.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "mesh/alloc.h"
#include "mesh/fault.h"
#include "mesh/rand.h"
#include "store/key.h"
#include "store/kv_rows.h"
#include "store/transfer.h"

#define NOTE_VERSION 1
#define NOTE_HEAD (1 + 8 + 8 + 8 + STORE_TRANSFER_SUM)

typedef enum fetch_state { FETCH_ASKING, FETCH_RESTING, FETCH_COMPLETE, FETCH_FINISHED, FETCH_FAILED } fetch_state;

#define TO(state) (1u << (state))
static const uint32_t moves[] = {
    [FETCH_ASKING] = TO(FETCH_RESTING) | TO(FETCH_COMPLETE) | TO(FETCH_FAILED), /* a chunk is asked for */
    [FETCH_RESTING] = TO(FETCH_ASKING) | TO(FETCH_FAILED),                      /* no peer would */
    [FETCH_COMPLETE] = TO(FETCH_FINISHED),                                      /* all chunks are on disk */
    [FETCH_FINISHED] = 0,
    [FETCH_FAILED] = 0, /* by our own disk */
};

struct store_fetch {
    store_fetch_conf conf; /* its path is ours */
    mesh_peer peers[STORE_FETCH_PEERS];
    size_t n, at;    /* at: who is asked */
    size_t refusals; /* since a chunk came */
    uint64_t wanted;
    mesh_rand rand;
    fetch_state state;
    mesh_err error;
    mesh_ms deadline; /* of the answer, or of the rest */
    unsigned tries;   /* asks for this chunk */
    uint64_t corr;    /* of all of these */
    /* the stream */
    uint64_t session; /* 0: none yet */
    uint64_t chunk;   /* asked for */
    uint64_t index;
    uint8_t digest[STORE_TRANSFER_SUM];
    store_kv_incoming *in;
    store_fetch_counts counts;
};

static void move(store_fetch *fetch, fetch_state to)
{
    assert((moves[fetch->state] & TO(to)) != 0);
    fetch->state = to;
}

static void fail(store_fetch *fetch, mesh_err err)
{
    fetch->error = err;
    store_kv_incoming_close(&fetch->in);
    move(fetch, FETCH_FAILED);
}

/* ---- the incoming database ---- */

static mesh_err open_incoming(store_fetch *fetch)
{
    char why[256];
    return store_kv_incoming_open(fetch->conf.path, &fetch->conf.options, &fetch->in, why, sizeof why);
}

/* Empty and open. */
static void open_empty(store_fetch *fetch)
{
    if (fetch->in != NULL && store_kv_incoming_note(fetch->in).size == 0 &&
        store_kv_incoming_last_key(fetch->in).size == 0) {
        return;
    }
    store_kv_incoming_close(&fetch->in);
    mesh_err err = store_kv_incoming_discard(fetch->conf.path);
    err = err == MESH_OK ? open_incoming(fetch) : err;
    if (err != MESH_OK) {
        fail(fetch, err);
    }
}

static void put_note(const store_fetch *fetch, mesh_buf *note)
{
    const char *name = mesh_conf_node(fetch->conf.conf, fetch->peers[fetch->at])->name;
    *mesh_buf_grow(note, 1) = NOTE_VERSION;
    mesh_put_u64be(mesh_buf_grow(note, 8), fetch->session);
    mesh_put_u64be(mesh_buf_grow(note, 8), fetch->chunk);
    mesh_put_u64be(mesh_buf_grow(note, 8), fetch->index);
    mesh_buf_put(note, fetch->digest, STORE_TRANSFER_SUM);
    mesh_buf_puts(note, name);
}

/* Take up what the note says. False: it is none of ours, of a peer that is not asked, or of too old rows. */
static bool take_note(store_fetch *fetch, mesh_slice note)
{
    if (note.size <= NOTE_HEAD || note.data[0] != NOTE_VERSION || mesh_get_u64be(note.data + 17) < fetch->wanted) {
        return false;
    }
    for (size_t i = 0; i < fetch->n; i++) {
        const char *name = mesh_conf_node(fetch->conf.conf, fetch->peers[i])->name;
        if (strlen(name) == note.size - NOTE_HEAD && memcmp(name, note.data + NOTE_HEAD, strlen(name)) == 0) {
            fetch->at = i;
            fetch->session = mesh_get_u64be(note.data + 1);
            fetch->chunk = mesh_get_u64be(note.data + 9);
            fetch->index = mesh_get_u64be(note.data + 17);
            memcpy(fetch->digest, note.data + 25, STORE_TRANSFER_SUM);
            return fetch->session != 0 && fetch->chunk != 1;
        }
    }
    return false;
}

/* ---- whom to ask, and for what ---- */

static void new_ask(store_fetch *fetch, mesh_time now)
{
    fetch->tries = 0;
    fetch->corr = mesh_rand_next(&fetch->rand);
    fetch->corr += fetch->corr == 0;
    fetch->deadline = now.mono;
}

/* From the beginning, with the peer whose turn it is. */
static void begin(store_fetch *fetch, mesh_time now)
{
    fetch->session = 0;
    fetch->chunk = 1;
    fetch->index = 0;
    memset(fetch->digest, 0, sizeof fetch->digest);
    fetch->counts.begun++;
    open_empty(fetch);
    new_ask(fetch, now);
}

static void end_session(const store_fetch *fetch, mesh_out *out)
{
    if (fetch->session != 0) {
        Mesh__StateDone done = MESH__STATE_DONE__INIT;
        done.session = fetch->session;
        MESH_MSG(msg, STATE_DONE, state_done, &done);
        mesh_out_put(out, fetch->peers[fetch->at], &msg);
    }
}

/* Another peer; a rest when each had its turn and none gave anything. */
static void next_peer(store_fetch *fetch, mesh_time now, mesh_out *out)
{
    end_session(fetch, out);
    fetch->at = (fetch->at + 1) % fetch->n;
    fetch->session = 0;
    if (++fetch->refusals >= fetch->n) {
        fetch->refusals = 0;
        fetch->deadline = now.mono + STORE_FETCH_REST_MS;
        move(fetch, FETCH_RESTING);
    } else {
        begin(fetch, now);
    }
}

void store_fetch_offer(store_fetch *fetch, mesh_peer peer)
{
    for (size_t i = 0; i < fetch->n; i++) {
        if (fetch->peers[i] == peer) {
            return;
        }
    }
    if (fetch->n < STORE_FETCH_PEERS) {
        fetch->peers[fetch->n++] = peer;
    }
}

static void send_ask(store_fetch *fetch, mesh_time now, mesh_out *out)
{
    const mesh_conf *conf = fetch->conf.conf;
    Mesh__StateAsk ask = MESH__STATE_ASK__INIT;
    ask.cluster = (char *)(uintptr_t)mesh_conf_str(conf, "cluster.name");
    ask.shard = mesh_conf_node(conf, fetch->peers[fetch->at])->shard;
    ask.session = fetch->session;
    ask.wanted = fetch->wanted;
    ask.chunk = fetch->chunk;
    MESH_MSG(msg, STATE_ASK, state_ask, &ask);
    msg.corr = fetch->corr;
    mesh_out_put(out, fetch->peers[fetch->at], &msg);
    fetch->tries++;
    fetch->counts.asks++;
    fetch->deadline = now.mono + STORE_FETCH_ASK_MS;
}

store_fetch *store_fetch_new(const store_fetch_conf *conf, const mesh_peer *peers, size_t n, uint64_t wanted,
                             mesh_time now)
{
    assert(n > 0 && n <= STORE_FETCH_PEERS && wanted > 0);
    store_fetch *fetch = mesh_alloc(sizeof *fetch);
    fetch->conf = *conf;
    fetch->conf.path = mesh_strdup(conf->path);
    memcpy(fetch->peers, peers, n * sizeof *peers);
    fetch->n = n;
    fetch->wanted = wanted;
    fetch->rand.state = conf->seed;
    fetch->state = FETCH_ASKING;
    mesh_err err = open_incoming(fetch);
    if (err == MESH_OK && take_note(fetch, store_kv_incoming_note(fetch->in))) {
        fetch->counts.resumed = 1;
        new_ask(fetch, now);
        if (fetch->chunk == 0) {
            move(fetch, FETCH_COMPLETE);
        }
    } else if (err == MESH_NO_SPACE || err == MESH_IO) {
        fail(fetch, err);
    } else {
        fetch->at = 0; /* nothing there, or nothing that helps */
        begin(fetch, now);
    }
    return fetch;
}

void store_fetch_destroy(store_fetch **fetch_p)
{
    store_fetch *fetch = *fetch_p;
    if (fetch != NULL) {
        store_kv_incoming_close(&fetch->in);
        free((char *)(uintptr_t)fetch->conf.path);
        free(fetch);
        *fetch_p = NULL;
    }
}

mesh_ms store_fetch_turn(store_fetch *fetch, mesh_time now, mesh_out *out)
{
    if (fetch->state == FETCH_RESTING && now.mono >= fetch->deadline) {
        move(fetch, FETCH_ASKING);
        begin(fetch, now);
    }
    if (fetch->state == FETCH_ASKING && now.mono >= fetch->deadline && fetch->tries >= STORE_FETCH_TRIES) {
        next_peer(fetch, now, out);
    }
    if (fetch->state == FETCH_ASKING && now.mono >= fetch->deadline) {
        send_ask(fetch, now, out);
    }
    return fetch->state == FETCH_ASKING || fetch->state == FETCH_RESTING ? fetch->deadline : MESH_NEVER;
}

/* ---- what comes ---- */

/* Are these rows that may be copied, the applied row with the right index first of all? */
static bool rows_are_good(const store_fetch *fetch, const Mesh__StateChunk *chunk)
{
    mesh_slice rest = { chunk->rows.data, chunk->rows.len }, key, value;
    mesh_err err;
    bool lead = fetch->chunk == 1;
    while ((err = store_kv_rows_next(&rest, &key, &value)) == MESH_OK) {
        uint64_t index = 0;
        bool applied = key.data[0] == 0;
        if (!store_transfer_copies(key) || applied != lead ||
            (applied && (store_transfer_applied(value, &index) != MESH_OK || index != chunk->index))) {
            return false;
        }
        lead = false;
    }
    return err == MESH_AGAIN && !lead && (chunk->rows.len > 0 || chunk->last);
}

static bool is_sum(ProtobufCBinaryData bytes, const uint8_t sum[STORE_TRANSFER_SUM])
{
    return bytes.len == STORE_TRANSFER_SUM && memcmp(bytes.data, sum, STORE_TRANSFER_SUM) == 0;
}

/* Is it what the stream goes on with? digest: with this chunk in it. */
static bool chunk_is_good(const store_fetch *fetch, const Mesh__StateChunk *chunk, uint8_t digest[STORE_TRANSFER_SUM])
{
    uint8_t sum[STORE_TRANSFER_SUM];
    store_transfer_sum(chunk, sum);
    memcpy(digest, fetch->digest, STORE_TRANSFER_SUM);
    store_transfer_chain(digest, sum);
    return is_sum(chunk->sum, sum) && (!chunk->last || is_sum(chunk->digest, digest)) && chunk->session != 0 &&
           chunk->chunk == fetch->chunk && (fetch->session == 0 || chunk->session == fetch->session) &&
           (fetch->chunk == 1 || chunk->index == fetch->index) && rows_are_good(fetch, chunk);
}

static void put_chunk(store_fetch *fetch, const Mesh__StateChunk *chunk, mesh_time now, mesh_out *out)
{
    mesh_buf note = { 0 };
    fetch->session = chunk->session;
    fetch->index = chunk->index;
    fetch->chunk = chunk->last ? 0 : fetch->chunk + 1;
    put_note(fetch, &note);
    mesh_err err =
        store_kv_incoming_put(fetch->in, (mesh_slice){ chunk->rows.data, chunk->rows.len }, mesh_buf_slice(&note));
    mesh_buf_fini(&note);
    if (err == MESH_MALFORMED) { /* its keys do not ascend */
        fetch->counts.rows_bad++;
        next_peer(fetch, now, out);
        return;
    }
    if (err != MESH_OK) {
        end_session(fetch, out);
        fail(fetch, err);
        return;
    }
    fetch->refusals = 0;
    fetch->counts.chunks++;
    fetch->counts.bytes += chunk->rows.len;
    if (chunk->last) {
        end_session(fetch, out);
        move(fetch, FETCH_COMPLETE);
        return;
    }
    new_ask(fetch, now);
    send_ask(fetch, now, out);
}

static void take_chunk(store_fetch *fetch, const Mesh__StateChunk *chunk, mesh_time now, mesh_out *out)
{
    uint8_t digest[STORE_TRANSFER_SUM];
    if (!chunk_is_good(fetch, chunk, digest)) {
        fetch->counts.rows_bad++;
        next_peer(fetch, now, out);
    } else if (chunk->index < fetch->wanted) {
        fetch->session = chunk->session; /* so that it is told */
        next_peer(fetch, now, out);
    } else {
        memcpy(fetch->digest, digest, sizeof digest);
        put_chunk(fetch, chunk, now, out);
    }
}

static void take_fault(store_fetch *fetch, const Mesh__Fault *fault, mesh_time now, mesh_out *out)
{
    bool lost = fault->code == FAULT_NOT_FOUND && fetch->session != 0;
    fetch->session = 0; /* there is none, or none any more */
    if (lost) {
        begin(fetch, now);
    } else {
        next_peer(fetch, now, out);
    }
}

bool store_fetch_takes(const store_fetch *fetch, const Mesh__Msg *msg)
{
    return msg->body_case == MESH__MSG__BODY_STATE_CHUNK ||
           (msg->body_case == MESH__MSG__BODY_FAULT && fetch->state == FETCH_ASKING && msg->corr == fetch->corr);
}

void store_fetch_message(store_fetch *fetch, mesh_peer from, const Mesh__Msg *msg, mesh_time now, mesh_out *out)
{
    assert(msg->body_case == MESH__MSG__BODY_STATE_CHUNK || msg->body_case == MESH__MSG__BODY_FAULT);
    if (fetch->state != FETCH_ASKING || from != fetch->peers[fetch->at] || msg->corr != fetch->corr ||
        fetch->tries == 0) {
        return;
    }
    if (msg->body_case == MESH__MSG__BODY_STATE_CHUNK) {
        take_chunk(fetch, msg->state_chunk, now, out);
    } else {
        take_fault(fetch, msg->fault, now, out);
    }
    (void)store_fetch_turn(fetch, now, out);
}

/* ---- the end ---- */

mesh_err store_fetch_state(const store_fetch *fetch)
{
    switch (fetch->state) {
    case FETCH_ASKING:
    case FETCH_RESTING:
        return MESH_AGAIN;
    default:
        return fetch->error;
    }
}

uint64_t store_fetch_index(const store_fetch *fetch)
{
    return fetch->index;
}

mesh_err store_fetch_finish(store_fetch *fetch, store_kv_batch *extra)
{
    mesh_err err = store_kv_incoming_finish(&fetch->in, extra);
    fetch->error = err;
    move(fetch, FETCH_FINISHED);
    return err;
}

store_fetch_counts store_fetch_counted(const store_fetch *fetch)
{
    return fetch->counts;
}
