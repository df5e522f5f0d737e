/* store/consensus_receive.c: what others say, on its way into the core. The core believes its peers: it asserts on
 * messages that make no sense, and on some that are only late. So nothing reaches it that was not looked at here:
 *
 *   - entries that are known to be committed are not given to it again, and what comes before them is not compared: an
 *     append that begins below the commit index is made to begin there
 *   - refusals by replicas that have confirmed the index since are dropped
 *   - before a configuration, the one before it is committed and handed over: the core has room for one that is not
 *   - a replica votes whatever its own log says about its vote
 *   - messages of earlier terms are answered here: the core leaves a field of that answer unset
 *   - while a trim is being written, no copy of the state is wished for */
#include <string.h>

#include "store/consensus_priv.h"

#define TERM_MAX (1ull << 48) /* more is nonsense, and must not overflow */
#define INDEX_MAX (1ull << 56)
#define RESULT_VERSION 2 /* what 0.22.1 fills in itself */
#define VOTE_VERSION 2

/* ---- is it a message? ---- */

static bool is_from_leader(const Mesh__Raft *msg)
{
    return msg->kind == MESH__RAFT_KIND__RAFT_APPEND || msg->kind == MESH__RAFT_KIND__RAFT_INSTALL;
}

static bool well_formed_entries(const Mesh__Raft *msg)
{
    uint64_t term = msg->index_term;
    if (msg->n_entries > STORE_APPEND_ENTRIES) {
        return false;
    }
    for (size_t i = 0; i < msg->n_entries; i++) {
        const Mesh__RaftEntry *e = msg->entries[i];
        bool change = e->type == RAFT_CHANGE;
        bool first = msg->index + i == 0;
        mesh_slice payload = { e->payload.data, e->payload.len };
        if (e->term == 0 || e->term < term || e->term > msg->term || e->payload.len > STORE_LOG_ENTRY_MAX ||
            e->type < RAFT_COMMAND || e->type > RAFT_CHANGE || (change && (i > 0 || !consensus_conf_check(payload))) ||
            (first && (!change || e->term != 1))) {
            return false;
        }
        term = e->term;
    }
    return true;
}

static bool well_formed_kind(const Mesh__Raft *msg)
{
    mesh_slice conf = { msg->conf.data, msg->conf.len };
    switch (msg->kind) {
    case MESH__RAFT_KIND__RAFT_VOTE:
    case MESH__RAFT_KIND__RAFT_ELECT_NOW:
        return msg->index > 0;
    case MESH__RAFT_KIND__RAFT_VOTED:
        return msg->index == 0;
    case MESH__RAFT_KIND__RAFT_APPEND:
        return well_formed_entries(msg);
    case MESH__RAFT_KIND__RAFT_APPENDED:
        return msg->rejected == 0 || msg->index < msg->rejected;
    case MESH__RAFT_KIND__RAFT_INSTALL:
        return msg->index > 0 && msg->conf_index > 0 && msg->conf_index <= msg->index && consensus_conf_check(conf);
    default:
        return false;
    }
}

static bool well_formed(const Mesh__Raft *msg)
{
    bool has_term = msg->kind != MESH__RAFT_KIND__RAFT_APPENDED && msg->index > 0;
    return msg->from != 0 && msg->from != msg->to && msg->term > 0 && msg->term <= TERM_MAX &&
           msg->index <= INDEX_MAX && msg->commit <= INDEX_MAX && msg->rejected <= INDEX_MAX &&
           (msg->index_term > 0) == has_term && msg->index_term <= msg->term && msg->from_address[0] != 0 &&
           strlen(msg->from_address) < STORE_ADDRESS_SIZE &&
           (msg->kind == MESH__RAFT_KIND__RAFT_APPEND || msg->n_entries == 0) && well_formed_kind(msg);
}

/* ---- does it fit what is known here? ---- */

/* From a member its address must be the member's. One that is no member here may become one, or have become one; but
 * nothing was asked of it, so it has nothing to answer. */
static mesh_err check_sender(const store_consensus *cons, const Mesh__Raft *msg)
{
    const struct raft_server *member = consensus_member(cons, msg->from);
    if (member != NULL) {
        return strcmp(member->address, msg->from_address) == 0 ? MESH_OK : MESH_MALFORMED;
    }
    return is_from_leader(msg) || msg->kind == MESH__RAFT_KIND__RAFT_VOTE ? MESH_OK : MESH_STALE;
}

static mesh_err check_voted(const store_consensus *cons, const Mesh__Raft *msg)
{
    if (raft_state(consensus_core(cons)) != RAFT_CANDIDATE) {
        return MESH_STALE;
    }
    /* nobody was asked for a vote of a later term than the next one */
    return msg->granted && msg->term > raft_current_term(&cons->raft) + 1 ? MESH_MALFORMED : MESH_OK;
}

static mesh_err check_appended(const store_consensus *cons, const Mesh__Raft *msg)
{
    if (!store_consensus_leader(cons) || msg->term < raft_current_term(&cons->raft)) {
        return MESH_STALE;
    }
    return msg->rejected > 0 && msg->term == raft_current_term(&cons->raft) &&
                   msg->rejected <= store_consensus_match(cons, msg->from)
               ? MESH_STALE
               : MESH_OK;
}

/* What is committed is the same everywhere, or somebody's disk or program is broken. */
static bool contradicts(const store_consensus *cons, uint64_t index, uint64_t term)
{
    uint64_t known = index <= raft_commit_index(&cons->raft) ? consensus_term_of(cons, index) : 0;
    return known != 0 && known != term;
}

static mesh_err check_from_leader(const store_consensus *cons, const Mesh__Raft *msg)
{
    if (msg->term == raft_current_term(&cons->raft) && store_consensus_leader(cons)) {
        return MESH_MALFORMED; /* two leaders of one term */
    }
    if (msg->term < raft_current_term(&cons->raft)) {
        return MESH_OK; /* answered with the term in force */
    }
    if (msg->index > 0 && contradicts(cons, msg->index, msg->index_term)) {
        return MESH_MALFORMED;
    }
    for (size_t i = 0; i < msg->n_entries; i++) {
        if (contradicts(cons, msg->index + 1 + i, msg->entries[i]->term)) {
            return MESH_MALFORMED;
        }
    }
    bool trimming = cons->snapshot_ticket != 0 && msg->kind == MESH__RAFT_KIND__RAFT_INSTALL;
    return trimming ? MESH_STALE : MESH_OK;
}

static mesh_err check(const store_consensus *cons, const Mesh__Raft *msg)
{
    if (msg->shard != cons->shard || msg->to != cons->raft.id || cons->wants_state) {
        return MESH_STALE;
    }
    if (!well_formed(msg)) {
        return MESH_MALFORMED;
    }
    mesh_err err = check_sender(cons, msg);
    if (err != MESH_OK) {
        return err;
    }
    switch (msg->kind) {
    case MESH__RAFT_KIND__RAFT_VOTED:
        return check_voted(cons, msg);
    case MESH__RAFT_KIND__RAFT_APPENDED:
        return check_appended(cons, msg);
    case MESH__RAFT_KIND__RAFT_APPEND:
    case MESH__RAFT_KIND__RAFT_INSTALL:
        return check_from_leader(cons, msg);
    default:
        return MESH_OK;
    }
}

/* ---- into the core ---- */

static mesh_err feed(store_consensus *cons, const Mesh__Raft *msg, struct raft_message *m, mesh_time now)
{
    struct raft_event event = { .type = RAFT_RECEIVE };
    m->server_id = msg->from;
    m->server_address = msg->from_address;
    event.receive.message = m;
    return consensus_step(cons, &event, now);
}

/* The entries from `skip` on as the core wants them: one block of memory for all payloads, which it or we free. */
static void *copy_entries(const Mesh__Raft *msg, size_t skip, struct raft_entry entries[STORE_APPEND_ENTRIES])
{
    size_t bytes = 0;
    for (size_t i = skip; i < msg->n_entries; i++) {
        bytes += msg->entries[i]->payload.len;
    }
    uint8_t *batch = raft_malloc(bytes + 1);
    uint8_t *at = batch;
    for (size_t i = skip; i < msg->n_entries; i++) {
        const Mesh__RaftEntry *e = msg->entries[i];
        if (e->payload.len > 0) {
            memcpy(at, e->payload.data, e->payload.len);
        }
        entries[i - skip] = (struct raft_entry){
            .term = e->term, .type = (enum raft_entry_type)e->type, .buf = { at, e->payload.len }, .batch = batch
        };
        at += e->payload.len;
    }
    return batch;
}

/* An append that begins at `from`: an m.append_entries without entries. */
static struct raft_message append_from(const store_consensus *cons, const Mesh__Raft *msg, uint64_t from)
{
    struct raft_message m = { .type = RAFT_APPEND_ENTRIES };
    m.append_entries.term = msg->term;
    m.append_entries.prev_log_index = from;
    m.append_entries.prev_log_term = from == msg->index ? msg->index_term : consensus_term_of(cons, from);
    m.append_entries.leader_commit = msg->commit;
    return m;
}

static mesh_err feed_entries(store_consensus *cons, const Mesh__Raft *msg, uint64_t from, mesh_time now)
{
    struct raft_entry entries[STORE_APPEND_ENTRIES];
    struct raft_message m = append_from(cons, msg, from);
    size_t skip = (size_t)(from - msg->index);
    void *batch = NULL;
    if (skip < msg->n_entries) {
        batch = copy_entries(msg, skip, entries);
        m.append_entries.entries = entries;
        m.append_entries.n_entries = (unsigned)(msg->n_entries - skip);
    }
    mesh_err err = feed(cons, msg, &m, now);
    if (batch != NULL && (cons->update.flags & (unsigned)(RAFT_UPDATE_ENTRIES)) != 0) {
        raft_free(batch); /* it is in the log; otherwise the core has freed it */
    }
    return err;
}

/* A configuration was proposed only when the one before it was committed, so that one is, even where the leader does
 * not know it again since its start. */
static mesh_err settle_pending(store_consensus *cons, const Mesh__Raft *msg, uint64_t from, mesh_time now)
{
    struct raft_message m = append_from(cons, msg, from);
    uint64_t pending = cons->raft.configuration_uncommitted_index;
    if (pending <= from && pending > m.append_entries.leader_commit) {
        m.append_entries.leader_commit = pending;
    }
    mesh_err err = feed(cons, msg, &m, now);
    consensus_deliver(cons);
    return consensus_failed(cons) ? store_kv_error(cons->kv) : err;
}

static mesh_err on_append(store_consensus *cons, const Mesh__Raft *msg, mesh_time now)
{
    uint64_t commit = raft_commit_index(&cons->raft);
    uint64_t from = msg->index < commit ? commit : msg->index;
    bool change = from == msg->index && msg->n_entries > 0 && msg->entries[0]->type == RAFT_CHANGE;
    if (change && from > 0) {
        mesh_err err = settle_pending(cons, msg, from, now);
        if (err != MESH_OK || consensus_term_of(cons, from) != msg->index_term) {
            return err; /* refused: with the entries it would be as well */
        }
    }
    mesh_err err = feed_entries(cons, msg, from, now);
    cons->follows = cons->follows || (err == MESH_OK && !cons->wants_state && msg->commit > 0 &&
                                      raft_commit_index(&cons->raft) >= msg->commit);
    return err;
}

static mesh_err on_install(store_consensus *cons, const Mesh__Raft *msg, mesh_time now)
{
    struct raft_message m = { .type = RAFT_INSTALL_SNAPSHOT };
    struct raft_install_snapshot *i = &m.install_snapshot;
    i->term = msg->term;
    i->last_index = msg->index;
    i->last_term = msg->index_term;
    i->conf_index = msg->conf_index;
    bool ok = consensus_conf_decode((mesh_slice){ msg->conf.data, msg->conf.len }, &i->conf); /* the core takes it */
    return ok ? feed(cons, msg, &m, now) : MESH_MALFORMED;
}

static mesh_err on_appended(store_consensus *cons, const Mesh__Raft *msg, mesh_time now)
{
    struct raft_message m = { .type = RAFT_APPEND_ENTRIES_RESULT };
    struct raft_append_entries_result *r = &m.append_entries_result;
    r->version = RESULT_VERSION;
    r->term = msg->term;
    r->rejected = msg->rejected;
    r->last_log_index = msg->index;
    uint64_t match = store_consensus_match(cons, msg->from);
    if (msg->rejected > 0 && r->last_log_index < match) {
        r->last_log_index = match; /* late: it has confirmed more since */
    }
    return feed(cons, msg, &m, now);
}

static mesh_err on_vote(store_consensus *cons, const Mesh__Raft *msg, mesh_time now)
{
    struct raft_message m = { .type = RAFT_REQUEST_VOTE };
    struct raft_request_vote *v = &m.request_vote;
    v->version = VOTE_VERSION;
    v->term = msg->term;
    v->candidate_id = msg->from;
    v->last_log_index = msg->index;
    v->last_log_term = msg->index_term;
    v->disrupt_leader = msg->disrupt;
    v->pre_vote = msg->pre_vote;
    /* The candidate knows who votes: its log is as long as this one, or the answer is no anyway. The core would also
     * refuse when it is no voter in its own log, and believe for ever in a leader that it never stands against; a group
     * whose new voter has not heard of it could stand still. */
    struct raft_server *self = (struct raft_server *)(uintptr_t)consensus_member(cons, cons->raft.id);
    int role = self != NULL ? self->role : RAFT_VOTER;
    if (self != NULL) {
        self->role = RAFT_VOTER;
    }
    if (role != RAFT_VOTER && now.mono - cons->heard_at >= cons->raft.election_timeout) {
        v->disrupt_leader = true; /* that leader is silent */
    }
    mesh_err err = feed(cons, msg, &m, now);
    if (self != NULL) {
        self->role = role;
    }
    return err;
}

static mesh_err on_voted(store_consensus *cons, const Mesh__Raft *msg, mesh_time now)
{
    struct raft_message m = { .type = RAFT_REQUEST_VOTE_RESULT };
    struct raft_request_vote_result *r = &m.request_vote_result;
    r->version = RESULT_VERSION;
    r->term = msg->term;
    r->vote_granted = msg->granted;
    r->pre_vote = msg->pre_vote;
    return feed(cons, msg, &m, now);
}

static mesh_err on_elect_now(store_consensus *cons, const Mesh__Raft *msg, mesh_time now)
{
    struct raft_message m = { .type = RAFT_TIMEOUT_NOW };
    m.timeout_now.term = msg->term;
    m.timeout_now.last_log_index = msg->index;
    m.timeout_now.last_log_term = msg->index_term;
    return feed(cons, msg, &m, now);
}

/* A deposed leader learns the term in force. */
static mesh_err answer_deposed(store_consensus *cons, const Mesh__Raft *msg)
{
    Mesh__Raft answer = MESH__RAFT__INIT;
    answer.shard = cons->shard;
    answer.from = cons->raft.id;
    answer.to = msg->from;
    answer.from_address = cons->raft.address;
    answer.kind = MESH__RAFT_KIND__RAFT_APPENDED;
    answer.term = raft_current_term(&cons->raft);
    if (cons->send != NULL) {
        cons->send(cons->arg, msg->from, msg->from_address, &answer);
    }
    return MESH_STALE;
}

static mesh_err take(store_consensus *cons, const Mesh__Raft *msg, mesh_time now)
{
    if (is_from_leader(msg) && msg->term < raft_current_term(&cons->raft)) {
        return answer_deposed(cons, msg);
    }
    cons->heard_at = is_from_leader(msg) ? now.mono : cons->heard_at;
    switch (msg->kind) {
    case MESH__RAFT_KIND__RAFT_VOTE:
        return on_vote(cons, msg, now);
    case MESH__RAFT_KIND__RAFT_VOTED:
        return on_voted(cons, msg, now);
    case MESH__RAFT_KIND__RAFT_APPEND:
        return on_append(cons, msg, now);
    case MESH__RAFT_KIND__RAFT_APPENDED:
        return on_appended(cons, msg, now);
    case MESH__RAFT_KIND__RAFT_INSTALL:
        return on_install(cons, msg, now);
    default:
        return on_elect_now(cons, msg, now);
    }
}

mesh_err store_consensus_receive(store_consensus *cons, const Mesh__Raft *msg, mesh_time now)
{
    if (consensus_failed(cons)) {
        return store_kv_error(cons->kv);
    }
    mesh_err err = check(cons, msg);
    if (err == MESH_OK) {
        err = take(cons, msg, now);
        consensus_deliver(cons);
    }
    return err;
}
