/* store/consensus_step.c: one event through the core, and what it asks for, in this order: term and vote (synced and
 * waited for), log entries (queued with sync; the ticket and the last index go into `flights`), messages, the wish for
 * a copy of the state. Commits are handed over by consensus_deliver.
 *
 * Two cursors: `passed` is Raft's (every committed configuration above it is fed back, or none could ever be changed
 * again); `applied` is the owner's, ahead of it after a restart or when the rows were copied. Payloads submitted here
 * wait in `own` until they are handed over; all others come from the cache or are read back from the log. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "mesh/alloc.h"
#include "store/consensus_priv.h"

static bool asks(const store_consensus *cons, unsigned flags)
{
    return (cons->update.flags & flags) != 0;
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
    bool keep = cons->raft.configuration.n > 1; /* alone, nobody asks for them: own entries wait in `own` */
    consensus_log_cut_tail(&cons->log, index, cons->batch);
    consensus_cache_cut(&cons->cache, index);
    for (unsigned i = 0; i < cons->update.entries.n; i++) {
        const struct raft_entry *e = &cons->update.entries.batch[i];
        mesh_slice payload = { e->buf.base, e->buf.len };
        consensus_log_append(&cons->log, cons->batch, e->term, (uint8_t)e->type, payload);
        if (keep) {
            consensus_cache_put(&cons->cache, index + i, e->term, (uint8_t)e->type, payload);
        }
    }
    for (consensus_flight *f = cons->flights; f != NULL; f = f->next) { /* never report what was replaced */
        f->last = f->last < index ? f->last : index - 1;
    }
    consensus_flight *f = mesh_alloc(sizeof *f);
    f->ticket = store_kv_write(cons->kv, cons->batch, true);
    f->last = index + cons->update.entries.n - 1;
    *(cons->flights_last != NULL ? &cons->flights_last->next : &cons->flights) = f;
    cons->flights_last = f;
}

/* Leadership won or lost by the event. */
static void note_role(store_consensus *cons)
{
    bool leads = raft_state(&cons->raft) == RAFT_LEADER;
    if (leads == cons->led) {
        return;
    }
    cons->led = leads;
    cons->reign++;
    cons->caught_up = 0;
    cons->ready_at = raft_last_index(&cons->raft);
    consensus_own_drop_all(cons);
}

static mesh_err carry_out(store_consensus *cons)
{
    if (asks(cons, RAFT_UPDATE_CURRENT_TERM | RAFT_UPDATE_VOTED_FOR)) {
        mesh_err err = save_hard(cons);
        if (err != MESH_OK) {
            return err;
        }
    }
    if (asks(cons, RAFT_UPDATE_ENTRIES)) {
        save_entries(cons);
    }
    if (asks(cons, RAFT_UPDATE_MESSAGES)) {
        consensus_send_messages(cons);
    }
    return MESH_OK;
}

mesh_err consensus_step(store_consensus *cons, struct raft_event *event, mesh_time now)
{
    assert(!cons->wants_state); /* the core must not be stepped while it believes that something is being installed */
    cons->now = now.mono > cons->now ? now.mono : cons->now;
    event->time = (raft_time)cons->now;
    cons->update = (struct raft_update){ 0 };
    int rc = raft_step(&cons->raft, event, &cons->update);
    mesh_err err = carry_out(cons); /* a refused event may have raised the term */
    if (asks(cons, RAFT_UPDATE_ENTRIES) && cons->update.entries.batch == &cons->raft.barrier) {
        raft_free(cons->raft.barrier.batch); /* the core's own no-op; all other entries are the caller's */
    }
    note_role(cons);
    if (asks(cons, RAFT_UPDATE_SNAPSHOT)) {
        consensus_want_state(cons, &cons->update.snapshot.metadata);
    }
    return err != MESH_OK ? err : rc == 0 ? MESH_OK : MESH_STALE;
}

/* ---- entries ---- */

uint64_t consensus_term_of(const store_consensus *cons, uint64_t index)
{
    if (index >= cons->log.first && index <= cons->log.last) {
        return consensus_log_term(&cons->log, index);
    }
    return index > 0 && index == cons->snapshot.index ? cons->snapshot.term : 0;
}

mesh_err consensus_entry_get(store_consensus *cons, uint64_t index, mesh_buf *row, consensus_entry *entry)
{
    if (consensus_cache_get(&cons->cache, index, entry)) {
        return MESH_OK;
    }
    return consensus_log_read(cons->kv, index, row, entry);
}

/* ---- what was submitted here ---- */

void consensus_own_add(store_consensus *cons, consensus_own *own)
{
    *(cons->own_last != NULL ? &cons->own_last->next : &cons->own) = own;
    cons->own_last = own;
}

static consensus_own *own_take_first(store_consensus *cons)
{
    consensus_own *own = cons->own;
    cons->own = own->next;
    cons->own_last = cons->own != NULL ? cons->own_last : NULL;
    return own;
}

static void own_free(consensus_own *own)
{
    raft_free(own->payload);
    free(own);
}

void consensus_own_drop_all(store_consensus *cons)
{
    while (cons->own != NULL) {
        own_free(own_take_first(cons));
    }
}

/* ---- what is committed ---- */

static void feed_configuration(store_consensus *cons, uint64_t index, mesh_slice payload)
{
    if (index <= cons->raft.configuration_committed_index) {
        return;
    }
    struct raft_event event = { .type = RAFT_CONFIGURATION };
    event.configuration.index = index;
    bool ok = consensus_conf_decode(payload, &event.configuration.conf); /* the core takes it */
    assert(ok);
    mesh_err err = consensus_step(cons, &event, (mesh_time){ cons->now, 0 });
    assert(err == MESH_OK || consensus_failed(cons));
}

/* Hand over the entry at index. False: it cannot be read, and the kv is finished. */
static bool deliver_one(store_consensus *cons, uint64_t index)
{
    while (cons->own != NULL && cons->own->index < index) {
        own_free(own_take_first(cons));
    }
    if (cons->own != NULL && cons->own->index == index) {
        consensus_own *own = own_take_first(cons); /* the owner may submit from inside */
        cons->applied = index;
        cons->committed(cons->arg, index, own->term, (mesh_slice){ own->payload, own->size }, true);
        own_free(own);
        return true;
    }
    mesh_buf row = { 0 };
    consensus_entry entry;
    bool ok = consensus_entry_get(cons, index, &row, &entry) == MESH_OK;
    if (ok && row.size == 0) { /* from the cache, which may change while the owner has it */
        mesh_buf_put(&row, entry.payload.data, entry.payload.size);
        entry.payload = mesh_buf_slice(&row);
    }
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

/* The log has come to where the copied rows are: from now on they must fit again. */
static void no_longer_ahead(store_consensus *cons)
{
    cons->ahead = false;
    consensus_ahead_put(cons->batch, false);
    (void)store_kv_write(cons->kv, cons->batch, false);
}

void consensus_deliver(store_consensus *cons)
{
    if (cons->delivering) {
        return; /* the owner came back from inside committed; the loop below goes on */
    }
    cons->delivering = true;
    while (cons->passed < raft_commit_index(&cons->raft) && !consensus_failed(cons) && !cons->wants_state) {
        uint64_t index = cons->passed + 1;
        /* what the owner has applied before matters to Raft only where it is a configuration */
        if ((index > cons->applied || consensus_log_is_change(&cons->log, index)) && !deliver_one(cons, index)) {
            break;
        }
        cons->passed = index;
        if (cons->ahead && index >= cons->applied) {
            no_longer_ahead(cons);
        }
    }
    cons->delivering = false;
}
