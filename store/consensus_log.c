#include "store/consensus_log.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mesh/alloc.h"
#include "mesh/wire.h"
#include "store.pb-c.h"

#define TYPE_COMMAND 1 /* as libraft's enum raft_entry_type */
#define TYPE_CHANGE 3
#define ROW_HEAD 9 /* term, type */

static const uint8_t hard_key[2] = { 0, 'H' };
static const uint8_t log_prefix[2] = { 0, 'L' };
static const uint8_t snap_key[2] = { 0, 'S' };
static const uint8_t ahead_key[2] = { 0, 'I' };

#define KEY(k) ((mesh_slice){ (k), sizeof(k) })

typedef struct log_key {
    uint8_t bytes[10];
} log_key;

static log_key key_of(uint64_t index)
{
    log_key k = { { log_prefix[0], log_prefix[1] } };
    mesh_put_u64be(k.bytes + 2, index);
    return k;
}

/* ---- notes ---- */

static consensus_note *note_add(consensus_notes *notes, uint64_t index, uint64_t value)
{
    if (notes->n == notes->cap) {
        notes->cap = notes->cap > 0 ? notes->cap * 2 : 16;
        notes->items = mesh_realloc(notes->items, notes->cap * sizeof *notes->items);
    }
    consensus_note *note = &notes->items[notes->n++];
    *note = (consensus_note){ .index = index, .value = value };
    return note;
}

/* The last note with an index not above `index`. */
static const consensus_note *note_at(const consensus_notes *notes, uint64_t index)
{
    size_t lo = 0, hi = notes->n;
    while (lo < hi) {
        size_t mid = (lo + hi) / 2;
        if (notes->items[mid].index <= index) {
            lo = mid + 1;
        } else {
            hi = mid;
        }
    }
    return lo > 0 ? &notes->items[lo - 1] : NULL;
}

static void notes_drop_first(consensus_notes *notes, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        mesh_buf_fini(&notes->items[i].bytes);
    }
    if (n > 0) {
        memmove(notes->items, notes->items + n, (notes->n - n) * sizeof *notes->items);
        notes->n -= n;
    }
}

static void notes_cut_tail(consensus_notes *notes, uint64_t from)
{
    while (notes->n > 0 && notes->items[notes->n - 1].index >= from) {
        mesh_buf_fini(&notes->items[--notes->n].bytes);
    }
}

/* Drop what lies before first; keep the one that covers first itself when `cover`. */
static void notes_cut_head(consensus_notes *notes, uint64_t first, bool cover)
{
    size_t n = 0;
    while (n < notes->n && notes->items[n].index < first) {
        n++;
    }
    if (cover && n > 0 && (n == notes->n || notes->items[n].index > first)) {
        n--;
        notes->items[n].index = first;
    }
    notes_drop_first(notes, n);
}

void consensus_log_init(consensus_log *log, uint64_t trail)
{
    *log = (consensus_log){ .first = 1, .trail = trail };
}

void consensus_log_fini(consensus_log *log)
{
    consensus_notes *all[] = { &log->terms, &log->changes, &log->marks };
    for (size_t i = 0; i < 3; i++) {
        notes_drop_first(all[i], all[i]->n);
        free(all[i]->items);
    }
    consensus_log_init(log, log->trail);
}

/* Take note of one more entry. */
static void note_entry(consensus_log *log, uint64_t term, uint8_t type, mesh_slice payload)
{
    uint64_t index = ++log->last;
    if (log->terms.n == 0 || log->terms.items[log->terms.n - 1].value != term) {
        note_add(&log->terms, index, term);
    }
    if (type == TYPE_CHANGE) {
        mesh_buf_put(&note_add(&log->changes, index, term)->bytes, payload.data, payload.size);
    }
    if (log->marks.n == 0 || log->bytes - log->marks.items[log->marks.n - 1].value >= log->trail / STORE_LOG_MARKS) {
        note_add(&log->marks, index, log->bytes);
    }
    log->bytes += payload.size + ROW_HEAD + sizeof(log_key);
}

uint64_t consensus_log_term(const consensus_log *log, uint64_t index)
{
    assert(index >= log->first && index <= log->last);
    return note_at(&log->terms, index)->value;
}

uint64_t consensus_log_last_term(const consensus_log *log, const consensus_snapshot *snapshot)
{
    return log->last >= log->first ? consensus_log_term(log, log->last) : snapshot->term;
}

bool consensus_log_is_change(const consensus_log *log, uint64_t index)
{
    const consensus_note *note = note_at(&log->changes, index);
    return note != NULL && note->index == index;
}

mesh_slice consensus_log_change(const consensus_log *log, uint64_t index)
{
    const consensus_note *note = note_at(&log->changes, index);
    assert(note != NULL && note->index == index);
    return mesh_buf_slice(&note->bytes);
}

/* ---- writing ---- */

static void put_message(store_kv_batch *batch, mesh_slice key, const void *message)
{
    mesh_buf value = { 0 };
    mesh_wire_pack(message, &value);
    store_kv_batch_put(batch, key, mesh_buf_slice(&value));
    mesh_buf_fini(&value);
}

void consensus_hard_put(store_kv_batch *batch, const consensus_hard *hard, const char *cluster)
{
    Store__HardRow row = STORE__HARD_ROW__INIT;
    row.term = hard->term;
    row.voted_for = hard->voted_for;
    row.raft_id = hard->raft_id;
    row.cluster = (char *)(uintptr_t)cluster;
    row.format = STORE_FORMAT;
    put_message(batch, KEY(hard_key), &row);
}

void consensus_snapshot_put(store_kv_batch *batch, const consensus_snapshot *snapshot)
{
    Store__SnapRow row = STORE__SNAP_ROW__INIT;
    row.index = snapshot->index;
    row.term = snapshot->term;
    row.conf_index = snapshot->conf_index;
    row.conf.data = snapshot->conf.data;
    row.conf.len = snapshot->conf.size;
    put_message(batch, KEY(snap_key), &row);
}

void consensus_ahead_put(store_kv_batch *batch, bool ahead)
{
    if (ahead) {
        store_kv_batch_put(batch, KEY(ahead_key), (mesh_slice){ ahead_key, 0 });
    } else {
        store_kv_batch_delete(batch, KEY(ahead_key));
    }
}

void consensus_log_append(consensus_log *log, store_kv_batch *batch, uint64_t term, uint8_t type, mesh_slice payload)
{
    log_key key = key_of(log->last + 1);
    mesh_buf row = { 0 };
    mesh_put_u64be(mesh_buf_grow(&row, 8), term);
    *mesh_buf_grow(&row, 1) = type;
    mesh_buf_put(&row, payload.data, payload.size);
    store_kv_batch_put(batch, KEY(key.bytes), mesh_buf_slice(&row));
    mesh_buf_fini(&row);
    note_entry(log, term, type, payload);
}

void consensus_log_cut_tail(consensus_log *log, uint64_t from, store_kv_batch *batch)
{
    assert(from >= log->first && from <= log->last + 1);
    for (uint64_t i = from; i <= log->last; i++) {
        log_key key = key_of(i);
        store_kv_batch_delete(batch, KEY(key.bytes));
    }
    if (from <= log->last) {
        notes_cut_tail(&log->terms, from);
        notes_cut_tail(&log->changes, from);
        notes_cut_tail(&log->marks, from);
        log->last = from - 1;
    }
}

uint64_t consensus_log_bytes_after(const consensus_log *log, uint64_t index)
{
    if (index >= log->last || log->marks.n == 0) {
        return 0;
    }
    const consensus_note *mark = note_at(&log->marks, index + 1);
    return log->bytes - (mark != NULL ? mark : &log->marks.items[0])->value;
}

consensus_cut consensus_log_plan_cut(const consensus_log *log, uint64_t applied)
{
    consensus_cut cut = { .first = log->first };
    for (size_t i = log->marks.n; i-- > 0;) {
        const consensus_note *mark = &log->marks.items[i];
        if (mark->index <= applied && log->bytes - mark->value >= log->trail) {
            cut.first = mark->index > log->first ? mark->index : log->first;
            cut.entries = cut.first - log->first;
            cut.bytes = mark->value - log->marks.items[0].value;
            break;
        }
    }
    return cut;
}

void consensus_log_cut_head(consensus_log *log, consensus_cut cut, store_kv_batch *batch)
{
    assert(cut.first <= log->last);
    for (uint64_t i = log->first; i < cut.first; i++) {
        log_key key = key_of(i);
        store_kv_batch_delete(batch, KEY(key.bytes));
    }
    log->first = cut.first;
    notes_cut_head(&log->terms, cut.first, true);
    notes_cut_head(&log->marks, cut.first, true);
    notes_cut_head(&log->changes, cut.first, false);
}

/* ---- reading ---- */

mesh_err consensus_hard_get(store_kv *kv, consensus_hard *hard, char **cluster_p, char *why, size_t why_size)
{
    mesh_buf value = { 0 };
    mesh_arena *arena = mesh_arena_new();
    ProtobufCMessage *message;
    mesh_err err = store_kv_get(kv, KEY(hard_key), &value);
    if (err == MESH_OK) {
        err = mesh_wire_unpack(&store__hard_row__descriptor, mesh_buf_slice(&value), arena, &message);
    }
    if (err == MESH_OK) {
        const Store__HardRow *row = (const Store__HardRow *)message;
        *hard = (consensus_hard){ row->term, row->voted_for, row->raft_id };
        if (row->format > STORE_FORMAT) {
            snprintf(
                why, why_size,
                "it was written by a later version (format %u, this one knows up to %u); downgrade is not possible",
                row->format, (unsigned)STORE_FORMAT);
            err = MESH_UNSUPPORTED;
        } else if (row->format < STORE_FORMAT) {
            snprintf(why, why_size,
                     "it was written by an earlier version (format %u, this one knows only %u) whose keys are others; "
                     "begin with an empty database",
                     row->format, (unsigned)STORE_FORMAT);
            err = MESH_UNSUPPORTED;
        } else if (row->term == 0 || row->raft_id == 0) {
            err = MESH_MALFORMED;
        } else {
            *cluster_p = mesh_strdup(row->cluster);
        }
    }
    if (err == MESH_MALFORMED || err == MESH_CORRUPT) {
        snprintf(why, why_size, "the hard state cannot be read");
        err = MESH_CORRUPT;
    }
    mesh_arena_destroy(&arena);
    mesh_buf_fini(&value);
    return err;
}

static mesh_err snapshot_get(store_kv *kv, consensus_snapshot *snapshot)
{
    mesh_buf value = { 0 };
    mesh_arena *arena = mesh_arena_new();
    ProtobufCMessage *message;
    mesh_err err = store_kv_get(kv, KEY(snap_key), &value);
    if (err == MESH_OK) {
        err = mesh_wire_unpack(&store__snap_row__descriptor, mesh_buf_slice(&value), arena, &message);
        const Store__SnapRow *row = err == MESH_OK ? (const Store__SnapRow *)message : NULL;
        if (row != NULL && row->index > 0 && row->term > 0 && row->conf.len > 0 && row->conf_index <= row->index) {
            snapshot->index = row->index;
            snapshot->term = row->term;
            snapshot->conf_index = row->conf_index;
            mesh_buf_clear(&snapshot->conf);
            mesh_buf_put(&snapshot->conf, row->conf.data, row->conf.len);
        } else {
            err = MESH_CORRUPT;
        }
    }
    mesh_arena_destroy(&arena);
    mesh_buf_fini(&value);
    return err == MESH_NOT_FOUND ? MESH_OK : err;
}

static bool parse_row(mesh_slice value, consensus_entry *entry)
{
    if (value.size < ROW_HEAD) {
        return false;
    }
    entry->term = mesh_get_u64be(value.data);
    entry->type = value.data[8];
    entry->payload = (mesh_slice){ value.data + ROW_HEAD, value.size - ROW_HEAD };
    return entry->term > 0 && entry->type >= TYPE_COMMAND && entry->type <= TYPE_CHANGE;
}

mesh_err consensus_log_read(store_kv *kv, uint64_t index, mesh_buf *row, consensus_entry *entry)
{
    log_key key = key_of(index);
    mesh_err err = store_kv_get(kv, KEY(key.bytes), row);
    return err != MESH_OK ? err : parse_row(mesh_buf_slice(row), entry) ? MESH_OK : MESH_CORRUPT;
}

mesh_err consensus_ahead_get(store_kv *kv, bool *ahead_p)
{
    mesh_buf value = { 0 };
    mesh_err err = store_kv_get(kv, KEY(ahead_key), &value);
    mesh_buf_fini(&value);
    if (err == MESH_OK || err == MESH_NOT_FOUND) {
        *ahead_p = err == MESH_OK;
        return MESH_OK;
    }
    return err;
}

void consensus_log_clear(store_kv *kv, store_kv_batch *batch)
{
    store_kv_iter *it = store_kv_iter_new(kv, KEY(log_prefix));
    for (store_kv_iter_first(it); store_kv_iter_valid(it); store_kv_iter_next(it)) {
        store_kv_batch_delete(batch, store_kv_iter_key(it));
    }
    mesh_err err = store_kv_iter_status(it);
    (void)err; /* a row that stays is refused by the next start */
    store_kv_iter_destroy(&it);
}

bool consensus_log_is_empty(store_kv *kv)
{
    store_kv_iter *it = store_kv_iter_new(kv, KEY(log_prefix));
    store_kv_iter_first(it);
    bool empty = !store_kv_iter_valid(it);
    store_kv_iter_destroy(&it);
    mesh_buf value = { 0 };
    empty = empty && store_kv_get(kv, KEY(snap_key), &value) == MESH_NOT_FOUND;
    mesh_buf_fini(&value);
    return empty;
}

/* The row under the iterator as the log's next entry. NULL, or what is wrong with it. */
static const char *load_row(const store_kv_iter *it, consensus_log *log, uint64_t snapshot_index)
{
    mesh_slice key = store_kv_iter_key(it);
    consensus_entry entry;
    if (key.size != sizeof(log_key)) {
        return "a key of the wrong size";
    }
    uint64_t index = mesh_get_u64be(key.data + sizeof log_prefix);
    if (log->terms.n == 0) {
        if (index == 0 || index > snapshot_index + 1) {
            return "the first entry is missing";
        }
        log->first = index;
        log->last = index - 1;
    } else if (index != log->last + 1) {
        return "a hole";
    }
    if (!parse_row(store_kv_iter_value(it), &entry)) {
        return "a row that is no entry";
    }
    if (log->terms.n > 0 && entry.term < log->terms.items[log->terms.n - 1].value) {
        return "a term that goes back";
    }
    if (index == 1 && entry.type != TYPE_CHANGE) {
        return "the first entry is no configuration";
    }
    note_entry(log, entry.term, entry.type, entry.payload);
    return NULL;
}

mesh_err consensus_log_load(store_kv *kv, consensus_log *log, consensus_snapshot *snapshot, char *why, size_t why_size)
{
    mesh_err err = snapshot_get(kv, snapshot);
    if (err != MESH_OK) {
        snprintf(why, why_size, "the snapshot's row cannot be read");
        return err == MESH_MALFORMED ? MESH_CORRUPT : err;
    }
    log->first = snapshot->index + 1;
    log->last = snapshot->index;
    const char *wrong = NULL;
    store_kv_iter *it = store_kv_iter_new(kv, KEY(log_prefix));
    for (store_kv_iter_first(it); store_kv_iter_valid(it) && wrong == NULL; store_kv_iter_next(it)) {
        wrong = load_row(it, log, snapshot->index);
        if (wrong != NULL) {
            break;
        }
    }
    err = store_kv_iter_status(it);
    store_kv_iter_destroy(&it);
    if (err != MESH_OK) {
        wrong = "rows that cannot be read";
    } else if (wrong == NULL && log->last < snapshot->index) {
        wrong = "entries up to the snapshot are missing";
    }
    if (wrong != NULL) {
        snprintf(why, why_size, "the log has %s after index %llu", wrong, (unsigned long long)log->last);
        err = err == MESH_OK ? MESH_CORRUPT : err;
    }
    return err;
}
