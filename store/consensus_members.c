/* store/consensus_members.c: configurations as the core encodes them, changes of the members, transfer of leadership,
 * and the wish for a copy of the state. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "mesh/alloc.h"
#include "store/consensus_priv.h"

#define CONF_FORMAT 1
#define CONF_PAD 8 /* the encoding's size is a multiple of it */

/* ---- encoded: u8 format, u64le n, n times: u64le id, address with its NUL, u8 role; padded with 0 ---- */

static uint64_t get_u64le(const uint8_t *p)
{
    return mesh_get_u32le(p) | (uint64_t)mesh_get_u32le(p + 4) << 32;
}

/* One server's size at the start of rest, 0 if it is none. */
static size_t check_server(mesh_slice rest)
{
    if (rest.size < 11 || get_u64le(rest.data) == 0) {
        return 0;
    }
    const uint8_t *end = memchr(rest.data + 8, 0, rest.size - 9);
    size_t address = end != NULL ? (size_t)(end - (rest.data + 8)) : 0;
    return address > 0 && address < STORE_ADDRESS_SIZE && end[1] <= RAFT_SPARE ? 8 + address + 2 : 0;
}

static bool is_padding(mesh_slice rest)
{
    for (size_t i = 0; i < rest.size; i++) {
        if (rest.data[i] != 0) {
            return false;
        }
    }
    return rest.size < CONF_PAD;
}

bool consensus_conf_check(mesh_slice bytes)
{
    struct raft_configuration c;
    if (bytes.size < 9 || bytes.size % CONF_PAD != 0 || bytes.data[0] != CONF_FORMAT) {
        return false;
    }
    uint64_t n = get_u64le(bytes.data + 1);
    mesh_slice rest = { bytes.data + 9, bytes.size - 9 };
    bool ok = n > 0 && n <= STORE_MEMBERS_MAX;
    for (uint64_t i = 0; ok && i < n; i++) {
        size_t size = check_server(rest);
        ok = size > 0;
        rest = (mesh_slice){ rest.data + size, rest.size - size };
    }
    struct raft_buffer buf = { (void *)(uintptr_t)bytes.data, bytes.size };
    if (!ok || !is_padding(rest) || raft_configuration_decode(&buf, &c) != 0) { /* it looks for doubles */
        return false;
    }
    unsigned voters = 0;
    for (unsigned i = 0; i < c.n; i++) {
        voters += c.servers[i].role == RAFT_VOTER;
    }
    raft_configuration_close(&c);
    return voters > 0;
}

bool consensus_conf_decode(mesh_slice bytes, struct raft_configuration *out)
{
    struct raft_buffer buf = { (void *)(uintptr_t)bytes.data, bytes.size };
    raft_configuration_init(out);
    return consensus_conf_check(bytes) && raft_configuration_decode(&buf, out) == 0;
}

static struct raft_buffer encode(struct raft_configuration *c)
{
    struct raft_buffer buf;
    int rc = raft_configuration_encode(c, &buf);
    assert(rc == 0);
    raft_configuration_close(c);
    return buf;
}

static void add(struct raft_configuration *c, uint64_t raft_id, const char *address, int role)
{
    int rc = raft_configuration_add(c, raft_id, address, role);
    assert(rc == 0);
}

struct raft_buffer consensus_conf_first(const store_consensus_conf *conf)
{
    struct raft_configuration c;
    raft_configuration_init(&c);
    assert(conf->n_group <= STORE_MEMBERS_MAX);
    uint64_t last = 0;
    bool has_own = false;
    for (size_t i = 0; i < conf->n_group; i++) { /* by raft id: the bytes are the same everywhere */
        const store_replica *next = NULL;
        for (size_t j = 0; j < conf->n_group; j++) {
            const store_replica *r = &conf->group[j];
            next = r->raft_id > last && (next == NULL || r->raft_id < next->raft_id) ? r : next;
        }
        assert(next != NULL && next->address[0] != 0 && strlen(next->address) < STORE_ADDRESS_SIZE);
        add(&c, next->raft_id, next->address, RAFT_VOTER);
        has_own = has_own || next->raft_id == conf->raft_id;
        last = next->raft_id;
    }
    assert(has_own);
    return encode(&c);
}

/* ---- how it is ---- */

const struct raft_server *consensus_member(const store_consensus *cons, uint64_t raft_id)
{
    for (unsigned i = 0; i < cons->raft.configuration.n; i++) {
        if (cons->raft.configuration.servers[i].id == raft_id) {
            return &cons->raft.configuration.servers[i];
        }
    }
    return NULL;
}

unsigned store_consensus_voters(const store_consensus *cons)
{
    unsigned n = 0;
    for (unsigned i = 0; i < cons->raft.configuration.n; i++) {
        n += cons->raft.configuration.servers[i].role == RAFT_VOTER;
    }
    return n;
}

bool store_consensus_changing(const store_consensus *cons)
{
    return cons->raft.configuration_uncommitted_index != 0;
}

size_t store_consensus_configuration(const store_consensus *cons, store_replica_role *list, size_t cap)
{
    for (size_t i = 0; i < cons->raft.configuration.n && i < cap; i++) {
        const struct raft_server *s = &cons->raft.configuration.servers[i];
        list[i] = (store_replica_role){ s->id, s->address, (store_member_role)s->role };
    }
    return cons->raft.configuration.n;
}

uint64_t store_consensus_match(const store_consensus *cons, uint64_t raft_id)
{
    raft_index index = 0;
    return raft_match_index(&cons->raft, raft_id, &index) == 0 ? index : 0;
}

/* ---- a change ---- */

static const store_replica_role *find(const store_replica_role *list, size_t n, uint64_t raft_id)
{
    for (size_t i = 0; i < n; i++) {
        if (list[i].raft_id == raft_id) {
            return &list[i];
        }
    }
    return NULL;
}

static bool is_configuration(const store_replica_role *list, size_t n)
{
    size_t voters = 0;
    for (size_t i = 0; i < n; i++) {
        const store_replica_role *r = &list[i];
        if (r->raft_id == 0 || r->address[0] == 0 || strlen(r->address) >= STORE_ADDRESS_SIZE ||
            (unsigned)r->role > STORE_SPARE) {
            return false;
        }
        for (size_t j = 0; j < i; j++) {
            if (list[j].raft_id == r->raft_id || strcmp(list[j].address, r->address) == 0) {
                return false;
            }
        }
        voters += r->role == STORE_VOTER;
    }
    return n <= STORE_MEMBERS_MAX && voters > 0;
}

/* How many members differ; more than one, or a step that is not allowed: SIZE_MAX. */
static size_t steps(const store_consensus *cons, const store_replica_role *list, size_t n)
{
    size_t differ = 0, voters = 0;
    for (unsigned i = 0; i < cons->raft.configuration.n; i++) {
        const struct raft_server *s = &cons->raft.configuration.servers[i];
        const store_replica_role *r = find(list, n, s->id);
        if (r == NULL ? s->role == RAFT_VOTER : strcmp(r->address, s->address) != 0) {
            return SIZE_MAX;
        }
        if (r == NULL || (int)r->role != s->role) {
            differ += s->id == cons->raft.id ? 2 : 1; /* a leader goes by a transfer first */
        }
    }
    for (size_t i = 0; i < n; i++) {
        voters += list[i].role == STORE_VOTER;
        if (consensus_member(cons, list[i].raft_id) == NULL) {
            if (list[i].role == STORE_VOTER) {
                return SIZE_MAX;
            }
            differ++;
        }
    }
    /* the last voter elects itself without a new term, so it must be the one that leads this term */
    const store_replica_role *own = find(list, n, cons->raft.id);
    bool stays = voters > 1 || (own != NULL && own->role == STORE_VOTER);
    return differ <= 1 && stays ? differ : SIZE_MAX;
}

static mesh_err submit_own(store_consensus *cons, enum raft_entry_type type, struct raft_buffer buf, mesh_time now)
{
    struct raft_entry entry = { .term = raft_current_term(&cons->raft), .type = type, .buf = buf, .batch = buf.base };
    struct raft_event event = { .type = RAFT_SUBMIT };
    event.submit.entries = &entry;
    event.submit.n = 1;
    mesh_err err = consensus_step(cons, &event, now);
    raft_free(buf.base); /* in the log, or refused */
    return err;
}

/* A change is safe only on top of something that this leader has committed itself. */
static mesh_err commit_own_first(store_consensus *cons, mesh_time now)
{
    uint64_t term = raft_current_term(&cons->raft);
    if (consensus_term_of(cons, raft_commit_index(&cons->raft)) == term) {
        return MESH_OK;
    }
    if (consensus_term_of(cons, raft_last_index(&cons->raft)) != term) {
        struct raft_buffer nothing = { raft_calloc(1, 8), 8 };
        mesh_err err = submit_own(cons, RAFT_BARRIER, nothing, now);
        return err == MESH_OK ? MESH_AGAIN : err;
    }
    return MESH_AGAIN;
}

/* A new voter must know that it is a member, or it would not vote at all. */
static bool knows_of_itself(const store_consensus *cons, const store_replica_role *list, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        const struct raft_server *s = consensus_member(cons, list[i].raft_id);
        if (s != NULL && s->role != RAFT_VOTER && list[i].role == STORE_VOTER &&
            store_consensus_match(cons, s->id) < cons->raft.configuration_committed_index) {
            return false;
        }
    }
    return true;
}

mesh_err store_consensus_change(store_consensus *cons, const store_replica_role *list, size_t n, mesh_time now)
{
    if (consensus_failed(cons) || !store_consensus_leader(cons) || raft_transferee(&cons->raft) != 0) {
        return MESH_STALE;
    }
    if (!is_configuration(list, n)) {
        return MESH_CONFLICT;
    }
    if (store_consensus_changing(cons) || cons->raft.leader_state.promotee_id != 0) {
        return MESH_AGAIN;
    }
    size_t differ = steps(cons, list, n);
    if (differ == SIZE_MAX) {
        return MESH_DENIED;
    }
    if (!knows_of_itself(cons, list, n)) {
        return MESH_AGAIN;
    }
    mesh_err err = differ == 1 ? commit_own_first(cons, now) : MESH_OK;
    if (err != MESH_OK || differ == 0) {
        return err;
    }
    struct raft_configuration c; /* members keep their order: the core looks them up by place */
    raft_configuration_init(&c);
    for (unsigned i = 0; i < cons->raft.configuration.n; i++) {
        const struct raft_server *s = &cons->raft.configuration.servers[i];
        const store_replica_role *r = find(list, n, s->id);
        if (r != NULL) {
            add(&c, r->raft_id, r->address, (int)r->role);
        }
    }
    for (size_t i = 0; i < n; i++) {
        if (consensus_member(cons, list[i].raft_id) == NULL) {
            add(&c, list[i].raft_id, list[i].address, (int)list[i].role);
        }
    }
    cons->caught_up = 0;
    return submit_own(cons, RAFT_CHANGE, encode(&c), now);
}

/* ---- catching up, transfer ---- */

mesh_err store_consensus_catch_up(store_consensus *cons, uint64_t raft_id, mesh_time now)
{
    if (consensus_failed(cons) || !store_consensus_leader(cons)) {
        return MESH_STALE;
    }
    const struct raft_server *member = consensus_member(cons, raft_id);
    if (member == NULL || member->role == RAFT_VOTER) {
        return MESH_NOT_FOUND;
    }
    if (cons->raft.leader_state.promotee_id != 0) {
        return MESH_AGAIN;
    }
    cons->caught_up = 0;
    if (store_consensus_match(cons, raft_id) == raft_last_index(&cons->raft)) {
        cons->caught_up = raft_id; /* the core would wait for it to confirm something new */
        return MESH_OK;
    }
    struct raft_event event = { .type = RAFT_CATCH_UP };
    event.catch_up.server_id = raft_id;
    return consensus_step(cons, &event, now);
}

store_catch_up store_consensus_catch_up_state(const store_consensus *cons, uint64_t raft_id)
{
    int status = RAFT_CATCH_UP_NONE;
    if (cons->caught_up == raft_id) {
        return STORE_CATCH_UP_DONE;
    }
    if (raft_catch_up(&cons->raft, raft_id, &status) != 0) {
        return STORE_CATCH_UP_NONE;
    }
    return status == RAFT_CATCH_UP_RUNNING    ? STORE_CATCH_UP_RUNNING
           : status == RAFT_CATCH_UP_ABORTED  ? STORE_CATCH_UP_FAILED
           : status == RAFT_CATCH_UP_FINISHED ? STORE_CATCH_UP_DONE
                                              : STORE_CATCH_UP_NONE;
}

mesh_err store_consensus_transfer(store_consensus *cons, uint64_t raft_id, mesh_time now)
{
    if (consensus_failed(cons) || !store_consensus_leader(cons) || raft_transferee(&cons->raft) != 0) {
        return MESH_STALE;
    }
    const struct raft_server *member = consensus_member(cons, raft_id);
    if (raft_id == 0 ? store_consensus_voters(cons) < 2
                     : member == NULL || member->role != RAFT_VOTER || raft_id == cons->raft.id) {
        return MESH_NOT_FOUND;
    }
    struct raft_event event = { .type = RAFT_TRANSFER };
    event.transfer.server_id = raft_id;
    return consensus_step(cons, &event, now);
}

/* ---- a copy of the state ---- */

void consensus_want_state(store_consensus *cons, struct raft_snapshot_metadata *metadata)
{
    raft_id id = 0;
    const char *address = NULL;
    raft_leader(&cons->raft, &id, &address);
    struct raft_buffer buf = encode(&metadata->configuration); /* and closes it */
    cons->wants_state = true;
    cons->wanted.index = metadata->index;
    cons->wanted.term = metadata->term;
    cons->wanted.conf_index = metadata->configuration_index;
    mesh_buf_put(&cons->wanted.conf, buf.base, buf.len);
    cons->wanted_from = mesh_strdup(address != NULL ? address : "");
    raft_free(buf.base);
}

bool store_consensus_wants_state(const store_consensus *cons, store_manifest *manifest, const char **leader_address)
{
    if (cons->wants_state) {
        const consensus_snapshot *w = &cons->wanted;
        *manifest = (store_manifest){ w->index, w->term, w->conf_index, mesh_buf_slice(&w->conf) };
        *leader_address = cons->wanted_from;
    }
    return cons->wants_state;
}

void store_consensus_install_put(const store_consensus *cons, store_kv *own, store_kv_batch *batch)
{
    assert(cons->wants_state);
    consensus_hard hard = { raft_current_term(&cons->raft), raft_voted_for(&cons->raft), cons->raft.id };
    if (own != NULL) {
        consensus_log_clear(own, batch);
    }
    consensus_hard_put(batch, &hard, cons->cluster);
    consensus_snapshot_put(batch, &cons->wanted);
    consensus_ahead_put(batch, true);
    consensus_confirmed_put(cons, batch);
}
