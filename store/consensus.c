/* store/consensus.c: opening, running and trimming; one event is carried out in store/consensus_step.c.
 *
 * What goes wrong: after a kv error nothing more is stepped: what was not durable then never commits here. The same
 * holds once a copy of the state is wanted: the core would neither vote nor append until it is told that it has one. */
#include "store/consensus.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mesh/alloc.h"
#include "store/consensus_priv.h"

#define INSTALL_TIMES 2    /* election timeouts until a leader asks again whether a replica has its copy */
#define TRIM_ENTRIES 4096  /* trim when more can go than this, or more bytes than the trail */
#define TRIM_AT_ONCE 16384 /* entries: one write deletes them, and others wait for it */

/* ---- opening ---- */

static mesh_err write_hard(store_consensus *cons, const consensus_hard *hard)
{
    consensus_hard_put(cons->batch, hard, cons->cluster);
    return store_kv_wait(cons->kv, store_kv_write(cons->kv, cons->batch, true));
}

/* A new database: entry 1 is the group's configuration, the same on all. A joiner's log is empty. */
static mesh_err bootstrap(store_consensus *cons, const store_consensus_conf *conf, const consensus_hard *hard)
{
    if (conf->n_group > 0) {
        struct raft_buffer buf = consensus_conf_first(conf);
        consensus_log_append(&cons->log, cons->batch, 1, RAFT_CHANGE, (mesh_slice){ buf.base, buf.len });
        raft_free(buf.base);
    }
    return write_hard(cons, hard);
}

/* The core wants term and type of every entry, and the payload of configurations. Everything given to it is its own. */
static struct raft_entry *start_entries(store_consensus *cons)
{
    uint64_t n = cons->log.last + 1 - cons->log.first;
    struct raft_entry *entries = n > 0 ? raft_calloc(n, sizeof *entries) : NULL;
    for (uint64_t i = 0; i < n; i++) {
        uint64_t index = cons->log.first + i;
        entries[i].term = consensus_log_term(&cons->log, index);
        entries[i].type = RAFT_COMMAND;
        if (consensus_log_is_change(&cons->log, index)) {
            mesh_slice payload = consensus_log_change(&cons->log, index);
            entries[i].type = RAFT_CHANGE;
            entries[i].buf.base = raft_malloc(payload.size);
            entries[i].buf.len = payload.size;
            memcpy(entries[i].buf.base, payload.data, payload.size);
            entries[i].batch = entries[i].buf.base;
        }
    }
    return entries;
}

static void free_entries(struct raft_entry *entries, uint64_t n)
{
    for (uint64_t i = 0; i < n; i++) {
        raft_free(entries[i].batch);
    }
    raft_free(entries);
}

static mesh_err start(store_consensus *cons, const consensus_hard *hard, mesh_time now)
{
    struct raft_snapshot_metadata metadata = { 0 };
    struct raft_event event = { .type = RAFT_START };
    event.start.term = hard->term;
    event.start.voted_for = hard->voted_for;
    if (cons->snapshot.index > 0) {
        metadata.index = cons->snapshot.index;
        metadata.term = cons->snapshot.term;
        metadata.configuration_index = cons->snapshot.conf_index;
        if (!consensus_conf_decode(mesh_buf_slice(&cons->snapshot.conf), &metadata.configuration)) {
            return MESH_CORRUPT;
        }
        event.start.metadata = &metadata;
    }
    uint64_t n = cons->log.last + 1 - cons->log.first;
    event.start.start_index = cons->log.first;
    event.start.entries = start_entries(cons);
    event.start.n_entries = (unsigned)n;
    /* entry 1 is committed by its nature */
    cons->passed = cons->snapshot.index > 0 ? cons->snapshot.index : cons->log.last > 0 ? 1 : 0;
    mesh_err err = consensus_step(cons, &event, now);
    free_entries(event.start.entries, n);
    return err;
}

/* What a database that is not new must be like. NULL, or what is wrong with it. */
static const char *check_loaded(const store_consensus *cons, const consensus_hard *hard, uint64_t applied)
{
    bool has_log = cons->log.last >= cons->log.first || cons->snapshot.index > 0;
    if (!has_log && (hard->voted_for != 0 || applied > 0)) { /* a joiner has never voted */
        return "there is no log at all";
    }
    if (consensus_log_last_term(&cons->log, &cons->snapshot) > hard->term) {
        return "the log is of a later term than the hard state";
    }
    if (store_consensus_confirmed(cons, hard->raft_id) > cons->log.last) {
        return "the log ends before what this replica has confirmed";
    }
    for (size_t i = 0; i < cons->log.changes.n; i++) {
        if (!consensus_conf_check(mesh_buf_slice(&cons->log.changes.items[i].bytes))) {
            return "the log has a configuration that is none";
        }
    }
    return NULL;
}

static mesh_err check_applied(store_consensus *cons, uint64_t applied, char *why, size_t why_size)
{
    mesh_err err = consensus_ahead_get(cons->kv, &cons->ahead);
    if (err == MESH_OK && ((applied > cons->log.last && !cons->ahead) || applied < cons->snapshot.index)) {
        snprintf(why, why_size, "applied index %llu does not fit the log %llu..%llu with snapshot %llu",
                 (unsigned long long)applied, (unsigned long long)cons->log.first, (unsigned long long)cons->log.last,
                 (unsigned long long)cons->snapshot.index);
        err = MESH_CORRUPT;
    }
    return err;
}

/* Is this the only voter of the last configuration? */
static bool votes_alone(const store_consensus *cons, uint64_t raft_id)
{
    const consensus_notes *changes = &cons->log.changes;
    struct raft_configuration c;
    mesh_slice bytes = mesh_buf_slice(changes->n > 0 ? &changes->items[changes->n - 1].bytes : &cons->snapshot.conf);
    if (!consensus_conf_decode(bytes, &c)) {
        return false;
    }
    bool alone = false;
    unsigned voters = 0;
    for (unsigned i = 0; i < c.n; i++) {
        bool votes = c.servers[i].role == RAFT_VOTER;
        voters += votes;
        alone = alone || (votes && c.servers[i].id == raft_id);
    }
    raft_configuration_close(&c);
    return alone && voters == 1;
}

/* The core lets the only voter lead again in the term it has. But others may have got entries of that term that were
 * not on its disk when it died, so it begins another one. */
static mesh_err next_term(store_consensus *cons, consensus_hard *hard)
{
    if (!votes_alone(cons, hard->raft_id)) {
        return MESH_OK;
    }
    hard->term++;
    hard->voted_for = hard->raft_id;
    return write_hard(cons, hard);
}

static mesh_err load_old(store_consensus *cons, consensus_hard *hard, uint64_t applied, char *why, size_t why_size)
{
    mesh_err err = consensus_log_load(cons->kv, &cons->log, &cons->snapshot, why, why_size);
    if (err == MESH_OK && (err = consensus_confirmed_load(cons)) != MESH_OK) {
        snprintf(why, why_size, "what replicas have confirmed cannot be read");
    }
    const char *wrong = err == MESH_OK ? check_loaded(cons, hard, applied) : NULL;
    if (wrong != NULL) {
        snprintf(why, why_size, "%s", wrong);
        err = MESH_CORRUPT;
    }
    err = err == MESH_OK ? check_applied(cons, applied, why, why_size) : err;
    return err == MESH_OK ? next_term(cons, hard) : err;
}

static mesh_err load_new(store_consensus *cons, const store_consensus_conf *conf, consensus_hard *hard, char *why,
                         size_t why_size)
{
    if (!consensus_log_is_empty(cons->kv)) {
        snprintf(why, why_size, "log rows without the row that says whose they are");
        return MESH_CORRUPT;
    }
    *hard = (consensus_hard){ 1, 0, conf->raft_id };
    mesh_err err = bootstrap(cons, conf, hard);
    if (err != MESH_OK) {
        snprintf(why, why_size, "cannot write: %s", mesh_err_name(err));
    }
    return err;
}

/* Load what is there into cons->log and cons->snapshot, making a new replica when nothing is. */
static mesh_err load(store_consensus *cons, const store_consensus_conf *conf, uint64_t applied, consensus_hard *hard,
                     char *why, size_t why_size)
{
    char *cluster = NULL;
    mesh_err err = consensus_hard_get(cons->kv, hard, &cluster, why, why_size);
    if (err == MESH_NOT_FOUND) {
        err = load_new(cons, conf, hard, why, why_size);
    } else if (err == MESH_OK && strcmp(cluster, conf->cluster) != 0) {
        snprintf(why, why_size, "the data is of cluster %s", cluster);
        err = MESH_CONFLICT;
    } else if (err == MESH_OK) {
        err = load_old(cons, hard, applied, why, why_size);
    }
    free(cluster);
    return err;
}

static void init_core(store_consensus *cons, const store_consensus_conf *conf, uint64_t raft_id)
{
    int rc = raft_init(&cons->raft, NULL, NULL, raft_id, conf->address);
    assert(rc == 0);
    mesh_ms election_ms = conf->election_ms > 0 ? conf->election_ms : STORE_ELECTION_MS;
    raft_seed(&cons->raft, (unsigned)conf->seed);
    raft_set_election_timeout(&cons->raft, (unsigned)election_ms);
    raft_set_heartbeat_timeout(&cons->raft, (unsigned)cons->heartbeat_ms);
    /* short: what is sent again is a manifest, and a replica that comes back with a copy older than the leader's last
     * trim is not heard before */
    raft_set_install_snapshot_timeout(&cons->raft, (unsigned)(INSTALL_TIMES * election_ms));
    raft_set_max_inflight_entries(&cons->raft, STORE_APPEND_ENTRIES);
    raft_set_pre_vote(&cons->raft, true);
    cons->raft.tracer = NULL;
}

mesh_err store_consensus_open(const store_consensus_conf *conf, store_kv *kv, uint64_t applied, mesh_time now,
                              store_committed *committed, void *arg, store_consensus **cons_p, char *why,
                              size_t why_size)
{
    assert(conf->raft_id != 0);
    store_consensus *cons = mesh_alloc(sizeof *cons);
    cons->kv = kv;
    cons->batch = store_kv_batch_new();
    cons->arena = mesh_arena_new();
    cons->cluster = mesh_strdup(conf->cluster);
    cons->shard = conf->shard;
    cons->committed = committed;
    cons->send = conf->send;
    cons->arg = arg;
    cons->applied = applied;
    cons->heartbeat_ms = conf->heartbeat_ms > 0 ? conf->heartbeat_ms : STORE_HEARTBEAT_MS;
    consensus_log_init(&cons->log, conf->trail > 0 ? conf->trail : STORE_LOG_TRAIL);
    consensus_hard hard;
    mesh_err err = load(cons, conf, applied, &hard, why, why_size);
    if (err == MESH_OK) {
        init_core(cons, conf, hard.raft_id);
        err = start(cons, &hard, now);
        if (err != MESH_OK) {
            snprintf(why, why_size, "raft does not start on this log: %s", mesh_err_name(err));
        }
    }
    if (err != MESH_OK) {
        store_consensus_close(&cons);
        return err;
    }
    *cons_p = cons;
    consensus_deliver(cons);
    return MESH_OK;
}

uint64_t store_consensus_stored_id(store_kv *kv)
{
    consensus_hard hard = { 0 };
    char *cluster = NULL;
    char why[256];
    mesh_err err = consensus_hard_get(kv, &hard, &cluster, why, sizeof why);
    free(cluster);
    return err == MESH_NOT_FOUND && consensus_log_is_empty(kv) ? 0 : hard.raft_id != 0 ? hard.raft_id : 1;
}

void store_consensus_close(store_consensus **cons_p)
{
    store_consensus *cons = *cons_p;
    if (cons == NULL) {
        return;
    }
    if (cons->raft.address != NULL) {
        raft_close(&cons->raft, NULL);
    }
    consensus_own_drop_all(cons);
    while (cons->flights != NULL) {
        consensus_flight *f = cons->flights;
        cons->flights = f->next;
        free(f);
    }
    consensus_log_fini(&cons->log);
    consensus_cache_fini(&cons->cache);
    mesh_buf_fini(&cons->snapshot.conf);
    mesh_buf_fini(&cons->wanted.conf);
    mesh_arena_destroy(&cons->arena);
    store_kv_batch_destroy(&cons->batch);
    free(cons->wanted_from);
    free(cons->cluster);
    free(cons);
    *cons_p = NULL;
}

/* ---- running ---- */

static bool stopped(const store_consensus *cons)
{
    return consensus_failed(cons) || cons->wants_state;
}

mesh_err store_consensus_submit(store_consensus *cons, mesh_slice payload, mesh_time now, uint64_t *index_p)
{
    if (payload.size > STORE_LOG_ENTRY_MAX) {
        return MESH_TOO_BIG;
    }
    if (stopped(cons) || !store_consensus_leader(cons)) {
        return MESH_STALE;
    }
    consensus_own *own = mesh_alloc(sizeof *own);
    own->term = raft_current_term(&cons->raft);
    own->size = payload.size;
    own->payload = raft_malloc(payload.size + 1); /* never NULL: the core takes NULL for no batch */
    assert(own->payload != NULL);
    memcpy(own->payload, payload.data, payload.size);
    struct raft_entry entry = { .term = own->term, .type = RAFT_COMMAND, .batch = own->payload };
    entry.buf = (struct raft_buffer){ own->payload, own->size };
    struct raft_event event = { .type = RAFT_SUBMIT };
    event.submit.entries = &entry;
    event.submit.n = 1;
    if (consensus_step(cons, &event, now) != MESH_OK) {
        raft_free(own->payload);
        free(own);
        return MESH_STALE;
    }
    own->index = raft_last_index(&cons->raft);
    consensus_own_add(cons, own);
    *index_p = own->index;
    return MESH_OK;
}

static void report_persisted(store_consensus *cons, mesh_time now)
{
    uint64_t durable = store_kv_durable(cons->kv);
    uint64_t last = 0;
    while (cons->flights != NULL && cons->flights->ticket <= durable) {
        consensus_flight *f = cons->flights;
        last = f->last > last ? f->last : last;
        cons->flights = f->next;
        cons->flights_last = cons->flights != NULL ? cons->flights_last : NULL;
        free(f);
    }
    if (last > cons->raft.last_stored) {
        struct raft_event event = { .type = RAFT_PERSISTED_ENTRIES };
        event.persisted_entries.index = last;
        mesh_err err = consensus_step(cons, &event, now);
        assert(err == MESH_OK || consensus_failed(cons));
    }
}

/* A trim is on disk: the core may forget what went. */
static void report_trimmed(store_consensus *cons, mesh_time now)
{
    if (cons->snapshot_ticket == 0 || cons->snapshot_ticket > store_kv_durable(cons->kv)) {
        return;
    }
    struct raft_event event = { .type = RAFT_SNAPSHOT };
    event.snapshot.metadata.index = cons->snapshot.index;
    event.snapshot.metadata.term = cons->snapshot.term;
    event.snapshot.metadata.configuration_index = cons->snapshot.conf_index;
    event.snapshot.trailing = (unsigned)(cons->snapshot.index + 1 - cons->log.first);
    bool ok = consensus_conf_decode(mesh_buf_slice(&cons->snapshot.conf), &event.snapshot.metadata.configuration);
    assert(ok);
    cons->snapshot_ticket = 0;
    mesh_err err = consensus_step(cons, &event, now);
    assert(err == MESH_OK || consensus_failed(cons));
}

/* When the core wants its next timeout; it can lie in the past. A leader counts members that get nothing, too, so it
 * would be asked all the time; more often than it beats is of no use, and it would take slow followers for lost. */
static mesh_ms due(const store_consensus *cons)
{
    bool leads = store_consensus_leader(cons);
    if (stopped(cons) || (leads && cons->raft.configuration.n == 1)) {
        return MESH_NEVER; /* a leader alone has nobody to beat a heart for */
    }
    mesh_ms t = (mesh_ms)raft_timeout(&cons->raft);
    mesh_ms least = cons->last_timeout + cons->heartbeat_ms;
    return leads && t < least ? least : t;
}

void store_consensus_step(store_consensus *cons, mesh_time now)
{
    if (!stopped(cons)) {
        report_persisted(cons, now);
    }
    if (!stopped(cons)) {
        report_trimmed(cons, now);
    }
    if (now.mono >= due(cons)) {
        struct raft_event event = { .type = RAFT_TIMEOUT };
        cons->last_timeout = now.mono;
        mesh_err err = consensus_step(cons, &event, now);
        assert(err == MESH_OK || consensus_failed(cons));
    }
    if (!stopped(cons)) {
        consensus_deliver(cons);
        consensus_confirmed_save(cons, now);
    }
}

mesh_ms store_consensus_deadline(const store_consensus *cons)
{
    mesh_ms t = due(cons), save = stopped(cons) ? MESH_NEVER : consensus_confirmed_due(cons);
    t = t < save ? t : save;
    return t > cons->now ? t : cons->now + 1;
}

void store_consensus_trim(store_consensus *cons, uint64_t applied, mesh_time now)
{
    (void)now; /* the SNAPSHOT event follows when the rows are durable */
    if (stopped(cons) || cons->snapshot_ticket != 0 || applied <= cons->snapshot.index || applied > cons->passed ||
        applied < cons->raft.configuration_committed_index) {
        return;
    }
    consensus_cut cut = consensus_log_plan_cut(&cons->log, applied);
    if (cut.entries <= TRIM_ENTRIES && cut.bytes <= cons->log.trail) {
        return;
    }
    if (cut.entries > TRIM_AT_ONCE) {
        cut.first = cons->log.first + TRIM_AT_ONCE;
    }
    struct raft_buffer buf;
    int rc = raft_configuration_encode(&cons->raft.configuration_committed, &buf);
    assert(rc == 0);
    cons->snapshot.index = applied;
    cons->snapshot.term = consensus_log_term(&cons->log, applied);
    cons->snapshot.conf_index = cons->raft.configuration_committed_index;
    mesh_buf_clear(&cons->snapshot.conf);
    mesh_buf_put(&cons->snapshot.conf, buf.base, buf.len);
    raft_free(buf.base);
    consensus_snapshot_put(cons->batch, &cons->snapshot);
    consensus_log_cut_head(&cons->log, cut, cons->batch);
    cons->snapshot_ticket = store_kv_write(cons->kv, cons->batch, true);
}

/* ---- how it is ---- */

uint64_t store_consensus_goes_on_from(const store_consensus *cons)
{
    return cons->snapshot.index + 1 == cons->log.first ? cons->snapshot.index : cons->log.first;
}

uint64_t store_consensus_log_bytes(const store_consensus *cons, uint64_t index)
{
    return consensus_log_bytes_after(&cons->log, index);
}

bool store_consensus_follows(const store_consensus *cons)
{
    return cons->follows || store_consensus_leader(cons);
}

store_role store_consensus_role(const store_consensus *cons)
{
    if (cons->wants_state) {
        return STORE_WANTS_STATE;
    }
    int state = raft_state(consensus_core(cons));
    return state == RAFT_LEADER ? STORE_LEADER : state == RAFT_CANDIDATE ? STORE_CANDIDATE : STORE_FOLLOWER;
}

bool store_consensus_leader(const store_consensus *cons)
{
    return store_consensus_role(cons) == STORE_LEADER;
}

bool store_consensus_ready(const store_consensus *cons)
{
    return store_consensus_leader(cons) && cons->passed >= cons->ready_at;
}

uint64_t store_consensus_reign(const store_consensus *cons)
{
    return cons->reign;
}

const char *store_consensus_leader_address(const store_consensus *cons)
{
    raft_id id = 0;
    const char *address = NULL;
    raft_leader(consensus_core(cons), &id, &address);
    return id != 0 && address != NULL ? address : "";
}

uint64_t store_consensus_id(const store_consensus *cons)
{
    return cons->raft.id;
}

unsigned store_consensus_uncommitted(const store_consensus *cons)
{
    return (unsigned)(raft_last_index(consensus_core(cons)) - raft_commit_index(&cons->raft));
}

uint64_t store_consensus_term(const store_consensus *cons)
{
    return raft_current_term(&cons->raft);
}

uint64_t store_consensus_last_index(const store_consensus *cons)
{
    return raft_last_index(consensus_core(cons));
}

uint64_t store_consensus_commit(const store_consensus *cons)
{
    return raft_commit_index(&cons->raft);
}

uint64_t store_consensus_done(const store_consensus *cons)
{
    return cons->applied > cons->passed ? cons->applied : cons->passed;
}
