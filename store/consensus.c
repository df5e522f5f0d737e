/* store/consensus.c: the driver of libraft's pure core. See store/consensus.h for what it promises.
 *
 * Each event goes through step(): raft_step says what changed, and it is carried out in this order: term and vote
 * (synced and waited for), log entries (queued with sync; the ticket and the last index go into `flights`), messages,
 * commit. When the kv has made a ticket durable, PERSISTED_ENTRIES with the highest such index goes in, and the commit
 * index comes out.
 *
 * Two cursors: `passed` is Raft's (every committed configuration above it is fed back, or none could ever be changed
 * again); `applied` is the owner's, ahead of it after a restart. Payloads submitted here wait in `own` until they are
 * handed over; all others are read back from the log.
 *
 * What goes wrong: after a kv error nothing more is stepped: what was not durable then never commits here. */
#include "store/consensus.h"

#include <assert.h>
#include <raft.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mesh/alloc.h"
#include "store/consensus_log.h"

#if !defined(RAFT_VERSION_NUMBER) || RAFT_VERSION_NUMBER != 2201
#error "store/consensus.c is written for libraft 0.22.1: memory ownership differs in others"
#endif

#define ELECTION_MS 300
#define HEARTBEAT_MS 50
#define INSTALL_SNAPSHOT_MS 60000
#define TRIM_ENTRIES 4096 /* trim when more can go than this, or more bytes than the trail */

typedef struct flight { /* a queued log write */
    struct flight *next;
    uint64_t ticket, last;
} flight;

typedef struct own_entry { /* submitted here, not yet handed over */
    struct own_entry *next;
    uint64_t index, term;
    size_t size;
    uint8_t *payload; /* from raft_malloc: the core wants a batch it could own */
} own_entry;

struct store_consensus {
    struct raft raft;
    struct raft_update update; /* outlives the call: closing writes to it once more */
    store_kv *kv;
    store_kv_batch *batch;
    char *cluster;
    store_committed *committed;
    void *arg;
    flight *flights, *flights_last;
    own_entry *own, *own_last;
    consensus_log log;
    uint64_t passed, applied;
    uint64_t snapshot_ticket; /* a trim being written, 0 = none */
    consensus_snapshot snapshot;
    bool delivering;
    mesh_ms now;
};

/* ---- carrying out what raft_step asks for ---- */

static bool failed(const store_consensus *cons)
{
    return store_kv_error(cons->kv) != MESH_OK;
}

static mesh_err save_hard(store_consensus *cons)
{
    consensus_hard hard = { raft_current_term(&cons->raft), raft_voted_for(&cons->raft), cons->raft.id };
    consensus_hard_put(cons->batch, &hard, cons->cluster);
    return store_kv_wait(cons->kv, store_kv_write(cons->kv, cons->batch, true));
}

/* Entries of the update into the log. Truncation is implicit: an index not above the last one replaces what is there.
 */
static void save_entries(store_consensus *cons)
{
    uint64_t index = cons->update.entries.index;
    consensus_log_cut_tail(&cons->log, index, cons->batch);
    for (unsigned i = 0; i < cons->update.entries.n; i++) {
        const struct raft_entry *e = &cons->update.entries.batch[i];
        consensus_log_append(&cons->log, cons->batch, e->term, (uint8_t)e->type,
                             (mesh_slice){ e->buf.base, e->buf.len });
    }
    for (flight *f = cons->flights; f != NULL; f = f->next) { /* never report what was replaced */
        f->last = f->last < index ? f->last : index - 1;
    }
    flight *f = mesh_alloc(sizeof *f);
    f->ticket = store_kv_write(cons->kv, cons->batch, true);
    f->last = index + cons->update.entries.n - 1;
    *(cons->flights_last != NULL ? &cons->flights_last->next : &cons->flights) = f;
    cons->flights_last = f;
}

/* One event through the core. On MESH_OK whatever it asked for is done or under way. Errors: MESH_STALE the core
 * refuses (not the leader); else what ended the kv. */
static mesh_err step(store_consensus *cons, struct raft_event *event, mesh_time now)
{
    cons->now = now.mono > cons->now ? now.mono : cons->now;
    event->time = (raft_time)cons->now;
    cons->update = (struct raft_update){ 0 };
    int rc = raft_step(&cons->raft, event, &cons->update);
    if (rc != 0) {
        return MESH_STALE;
    }
    if ((cons->update.flags & (unsigned)(RAFT_UPDATE_CURRENT_TERM | RAFT_UPDATE_VOTED_FOR)) != 0) {
        mesh_err err = save_hard(cons);
        if (err != MESH_OK) {
            return err;
        }
    }
    if ((cons->update.flags & (unsigned)(RAFT_UPDATE_ENTRIES)) != 0) {
        save_entries(cons);
    }
    /* with one voter there is nobody to talk to, nor to get a snapshot from */
    assert((cons->update.flags & (unsigned)(RAFT_UPDATE_MESSAGES)) == 0 || cons->update.messages.n == 0);
    assert((cons->update.flags & (unsigned)(RAFT_UPDATE_SNAPSHOT)) == 0);
    return MESH_OK;
}

/* ---- what is committed ---- */

static void feed_configuration(store_consensus *cons, uint64_t index, mesh_slice payload)
{
    if (index <= cons->raft.configuration_committed_index) {
        return;
    }
    struct raft_event event = { .type = RAFT_CONFIGURATION };
    event.configuration.index = index;
    struct raft_buffer buf = { (void *)(uintptr_t)payload.data, payload.size };
    int rc = raft_configuration_decode(&buf, &event.configuration.conf); /* the core takes it */
    assert(rc == 0);
    mesh_err err = step(cons, &event, (mesh_time){ cons->now, 0 });
    assert(err == MESH_OK || failed(cons));
}

static void own_drop_first(store_consensus *cons)
{
    own_entry *e = cons->own;
    cons->own = e->next;
    cons->own_last = cons->own != NULL ? cons->own_last : NULL;
    raft_free(e->payload);
    free(e);
}

/* Hand over the entry at index. False: it cannot be read, and the kv is finished. */
static bool deliver_one(store_consensus *cons, uint64_t index)
{
    while (cons->own != NULL && cons->own->index < index) {
        own_drop_first(cons);
    }
    own_entry *e = cons->own;
    if (e != NULL && e->index == index) {
        cons->applied = index;
        cons->committed(cons->arg, index, e->term, (mesh_slice){ e->payload, e->size }, true);
        own_drop_first(cons);
        return true;
    }
    mesh_buf row = { 0 };
    consensus_entry entry;
    bool ok = consensus_log_read(cons->kv, index, &row, &entry) == MESH_OK;
    if (ok && entry.type == RAFT_CHANGE) {
        feed_configuration(cons, index, entry.payload);
    }
    if (ok && index > cons->applied) {
        cons->applied = index;
        if (entry.type == RAFT_COMMAND) {
            cons->committed(cons->arg, index, entry.term, entry.payload, false);
        }
    }
    mesh_buf_fini(&row);
    return ok;
}

static void deliver(store_consensus *cons)
{
    if (cons->delivering) {
        return; /* the owner came back from inside committed; the loop below goes on */
    }
    cons->delivering = true;
    while (cons->passed < raft_commit_index(&cons->raft) && !failed(cons)) {
        uint64_t index = cons->passed + 1;
        /* what the owner has applied before matters to Raft only where it is a configuration */
        if ((index > cons->applied || consensus_log_is_change(&cons->log, index)) && !deliver_one(cons, index)) {
            break;
        }
        cons->passed = index;
    }
    cons->delivering = false;
}

/* ---- opening ---- */

static mesh_err bootstrap(store_consensus *cons, const store_consensus_conf *conf)
{
    struct raft_configuration c;
    struct raft_buffer buf;
    raft_configuration_init(&c);
    int rc = raft_configuration_add(&c, conf->raft_id, conf->address, RAFT_VOTER);
    rc = rc == 0 ? raft_configuration_encode(&c, &buf) : rc;
    assert(rc == 0);
    consensus_hard hard = { 1, 0, conf->raft_id };
    consensus_hard_put(cons->batch, &hard, conf->cluster);
    consensus_log_append(&cons->log, cons->batch, 1, RAFT_CHANGE, (mesh_slice){ buf.base, buf.len });
    raft_free(buf.base);
    raft_configuration_close(&c);
    return store_kv_wait(cons->kv, store_kv_write(cons->kv, cons->batch, true));
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

static bool decode_configuration(mesh_slice bytes, struct raft_configuration *out)
{
    struct raft_buffer buf = { (void *)(uintptr_t)bytes.data, bytes.size };
    raft_configuration_init(out);
    return bytes.size > 0 && raft_configuration_decode(&buf, out) == 0;
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
        if (!decode_configuration(mesh_buf_slice(&cons->snapshot.conf), &metadata.configuration)) {
            return MESH_CORRUPT;
        }
        event.start.metadata = &metadata;
    }
    uint64_t n = cons->log.last + 1 - cons->log.first;
    event.start.start_index = cons->log.first;
    event.start.entries = start_entries(cons);
    event.start.n_entries = (unsigned)n;
    cons->passed = cons->snapshot.index > 0 ? cons->snapshot.index : 1; /* entry 1 is committed by its nature */
    mesh_err err = step(cons, &event, now);
    free_entries(event.start.entries, n);
    return err;
}

/* Load what is there into cons->log and cons->snapshot, making a new group when nothing is. */
static mesh_err load(store_consensus *cons, const store_consensus_conf *conf, consensus_hard *hard, char *why,
                     size_t why_size)
{
    char *cluster = NULL;
    mesh_err err = consensus_hard_get(cons->kv, hard, &cluster, why, why_size);
    if (err == MESH_NOT_FOUND) {
        if (!consensus_log_is_empty(cons->kv)) {
            snprintf(why, why_size, "log rows without the row that says whose they are");
            return MESH_CORRUPT;
        }
        *hard = (consensus_hard){ 1, 0, conf->raft_id };
        err = bootstrap(cons, conf);
        if (err != MESH_OK) {
            snprintf(why, why_size, "cannot write: %s", mesh_err_name(err));
            return err;
        }
    } else if (err == MESH_OK && strcmp(cluster, conf->cluster) != 0) {
        snprintf(why, why_size, "the data is of cluster %s", cluster);
        err = MESH_CONFLICT;
    }
    free(cluster);
    if (err == MESH_OK) {
        consensus_log_fini(&cons->log);
        err = consensus_log_load(cons->kv, &cons->log, &cons->snapshot, why, why_size);
    }
    if (err == MESH_OK && consensus_log_last_term(&cons->log, &cons->snapshot) > hard->term) {
        snprintf(why, why_size, "the log is of a later term than the hard state");
        err = MESH_CORRUPT;
    }
    return err;
}

static mesh_err check_applied(const store_consensus *cons, uint64_t applied, char *why, size_t why_size)
{
    if (applied > cons->log.last || applied < cons->snapshot.index) {
        snprintf(why, why_size, "applied index %llu does not fit the log %llu..%llu with snapshot %llu",
                 (unsigned long long)applied, (unsigned long long)cons->log.first, (unsigned long long)cons->log.last,
                 (unsigned long long)cons->snapshot.index);
        return MESH_CORRUPT;
    }
    return MESH_OK;
}

mesh_err store_consensus_open(const store_consensus_conf *conf, store_kv *kv, uint64_t applied, mesh_time now,
                              store_committed *committed, void *arg, store_consensus **cons_p, char *why,
                              size_t why_size)
{
    assert(conf->raft_id != 0);
    store_consensus *cons = mesh_alloc(sizeof *cons);
    cons->kv = kv;
    cons->batch = store_kv_batch_new();
    cons->cluster = mesh_strdup(conf->cluster);
    cons->committed = committed;
    cons->arg = arg;
    cons->applied = applied;
    consensus_log_init(&cons->log, conf->trail > 0 ? conf->trail : STORE_LOG_TRAIL);
    consensus_hard hard;
    mesh_err err = load(cons, conf, &hard, why, why_size);
    err = err == MESH_OK ? check_applied(cons, applied, why, why_size) : err;
    if (err == MESH_OK) {
        int rc = raft_init(&cons->raft, NULL, NULL, hard.raft_id, conf->address);
        assert(rc == 0);
        raft_seed(&cons->raft, (unsigned)conf->seed);
        raft_set_election_timeout(&cons->raft, ELECTION_MS);
        raft_set_heartbeat_timeout(&cons->raft, HEARTBEAT_MS);
        raft_set_install_snapshot_timeout(&cons->raft, INSTALL_SNAPSHOT_MS);
        raft_set_pre_vote(&cons->raft, true);
        cons->raft.tracer = NULL;
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
    deliver(cons);
    return MESH_OK;
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
    while (cons->own != NULL) {
        own_drop_first(cons);
    }
    while (cons->flights != NULL) {
        flight *f = cons->flights;
        cons->flights = f->next;
        free(f);
    }
    consensus_log_fini(&cons->log);
    mesh_buf_fini(&cons->snapshot.conf);
    store_kv_batch_destroy(&cons->batch);
    free(cons->cluster);
    free(cons);
    *cons_p = NULL;
}

/* ---- running ---- */

mesh_err store_consensus_submit(store_consensus *cons, mesh_slice payload, mesh_time now, uint64_t *index_p)
{
    if (failed(cons)) {
        return MESH_STALE;
    }
    own_entry *e = mesh_alloc(sizeof *e);
    e->term = raft_current_term(&cons->raft);
    e->size = payload.size;
    e->payload = raft_malloc(payload.size + 1); /* never NULL: the core takes NULL for no batch */
    assert(e->payload != NULL);
    memcpy(e->payload, payload.data, payload.size);
    struct raft_entry entry = { .term = e->term, .type = RAFT_COMMAND, .batch = e->payload };
    entry.buf = (struct raft_buffer){ e->payload, e->size };
    struct raft_event event = { .type = RAFT_SUBMIT };
    event.submit.entries = &entry;
    event.submit.n = 1;
    mesh_err err = step(cons, &event, now);
    if (err != MESH_OK) {
        raft_free(e->payload);
        free(e);
        return MESH_STALE;
    }
    e->index = raft_last_index(&cons->raft);
    *(cons->own_last != NULL ? &cons->own_last->next : &cons->own) = e;
    cons->own_last = e;
    *index_p = e->index;
    return MESH_OK;
}

static void report_persisted(store_consensus *cons, mesh_time now)
{
    uint64_t durable = store_kv_durable(cons->kv);
    uint64_t last = 0;
    while (cons->flights != NULL && cons->flights->ticket <= durable) {
        flight *f = cons->flights;
        last = f->last > last ? f->last : last;
        cons->flights = f->next;
        cons->flights_last = cons->flights != NULL ? cons->flights_last : NULL;
        free(f);
    }
    if (last > cons->raft.last_stored) {
        struct raft_event event = { .type = RAFT_PERSISTED_ENTRIES };
        event.persisted_entries.index = last;
        (void)step(cons, &event, now);
    }
    if (cons->snapshot_ticket != 0 && cons->snapshot_ticket <= durable && !failed(cons)) {
        struct raft_event event = { .type = RAFT_SNAPSHOT };
        event.snapshot.metadata.index = cons->snapshot.index;
        event.snapshot.metadata.term = cons->snapshot.term;
        event.snapshot.metadata.configuration_index = cons->snapshot.conf_index;
        event.snapshot.trailing = (unsigned)(cons->snapshot.index + 1 - cons->log.first);
        bool ok = decode_configuration(mesh_buf_slice(&cons->snapshot.conf), &event.snapshot.metadata.configuration);
        assert(ok);
        cons->snapshot_ticket = 0;
        (void)step(cons, &event, now);
    }
}

void store_consensus_step(store_consensus *cons, mesh_time now)
{
    if (failed(cons)) {
        return;
    }
    report_persisted(cons, now);
    if (now.mono >= store_consensus_deadline(cons) && !failed(cons)) {
        struct raft_event event = { .type = RAFT_TIMEOUT };
        (void)step(cons, &event, now);
    }
    deliver(cons);
}

mesh_ms store_consensus_deadline(const store_consensus *cons)
{
    if (failed(cons) || (store_consensus_leader(cons) && store_consensus_voters(cons) == 1)) {
        return MESH_NEVER; /* a leader alone has nobody to beat a heart for */
    }
    raft_time t = raft_timeout(&cons->raft);
    return (mesh_ms)t > cons->now ? (mesh_ms)t : cons->now + 1; /* it can lie in the past */
}

void store_consensus_trim(store_consensus *cons, uint64_t applied, mesh_time now)
{
    (void)now; /* the SNAPSHOT event follows when the rows are durable */
    if (failed(cons) || cons->snapshot_ticket != 0 || applied <= cons->snapshot.index || applied > cons->passed) {
        return;
    }
    consensus_cut cut = consensus_log_plan_cut(&cons->log, applied);
    if (cut.entries <= TRIM_ENTRIES && cut.bytes <= cons->log.trail) {
        return;
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

static struct raft *core_of(const store_consensus *cons)
{
    return (struct raft *)(uintptr_t)&cons->raft; /* the core's getters are not const; they change nothing */
}

bool store_consensus_leader(const store_consensus *cons)
{
    return raft_state(core_of(cons)) == RAFT_LEADER;
}

unsigned store_consensus_voters(const store_consensus *cons)
{
    unsigned n = 0;
    for (unsigned i = 0; i < cons->raft.configuration.n; i++) {
        n += cons->raft.configuration.servers[i].role == RAFT_VOTER;
    }
    return n;
}

unsigned store_consensus_uncommitted(const store_consensus *cons)
{
    return (unsigned)(raft_last_index(core_of(cons)) - raft_commit_index(&cons->raft));
}

uint64_t store_consensus_term(const store_consensus *cons)
{
    return raft_current_term(&cons->raft);
}

uint64_t store_consensus_last_index(const store_consensus *cons)
{
    return raft_last_index(core_of(cons));
}
