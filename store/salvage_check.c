/* store/salvage_check.c: each table is read once, in order; what a row speaks of is looked up. A thing that is missing
 * is reported once, however many rows speak of it. What belongs to a chat of another shard cannot be looked up here.
 * Which slot a chat is in only its keys tell, because the cluster's hash key may not be at hand: all chats are noted
 * first. */
#include "store/salvage_check.h"

#include <czmq.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "mesh/alloc.h"
#include "mesh/id.h"
#include "mesh/table.h"
#include "mesh/wire.h"
#include "store.pb-c.h"
#include "store/consensus_log.h"
#include "store/key.h"
#include "store/slot.h"

#define MISSING_PER_GAP_MAX 10000 /* lines for one gap; the rest of it is counted only */

typedef struct checker {
    store_kv *kv;
    store_kv_iter *seek; /* over all keys, to look things up */
    FILE *report;
    mesh_arena *arena;
    mesh_table *reported;    /* the lines themselves */
    mesh_table *chats;       /* of noted, by id: every chat with a row or an entry here */
    bool moving[MESH_SLOTS]; /* slots on their way here or from here: some of their rows may be missing rightly */
    salvage_totals *totals;
    char *why;
    size_t why_size;
} checker;

typedef struct noted {
    mesh_slot slot;
    char id[];
} noted;

static bool has_key(checker *c, const store_key *key)
{
    mesh_slice want = store_key_slice(key);
    store_kv_iter_seek(c->seek, want);
    if (!store_kv_iter_valid(c->seek)) {
        return false;
    }
    mesh_slice got = store_kv_iter_key(c->seek);
    return got.size == want.size && memcmp(got.data, want.data, want.size) == 0;
}

/* The number at the end of the last key with this prefix, 0 if there is none. */
static uint64_t last_number(checker *c, const store_key *prefix)
{
    uint64_t number = 0;
    store_kv_iter *it = store_kv_iter_new(c->kv, store_key_slice(prefix));
    store_kv_iter_last(it);
    if (store_kv_iter_valid(it)) {
        number = store_key_number(store_kv_iter_key(it));
    }
    store_kv_iter_destroy(&it);
    return number;
}

static void missing(checker *c, const char *what, const char *id, const char *unit, uint64_t number)
{
    char *line = zsys_sprintf("missing %s=%s %s=%" PRIu64, what, id, unit, number);
    if (mesh_table_get(c->reported, mesh_table_str(line)) == NULL) {
        mesh_table_put(c->reported, mesh_table_str(line), line);
        fprintf(c->report, "%s\n", line);
        c->totals->missing++;
    } else {
        free(line);
    }
}

static void missing_range(checker *c, const char *what, const char *id, const char *unit, uint64_t from, uint64_t to)
{
    for (uint64_t n = from; n <= to && n - from < MISSING_PER_GAP_MAX; n++) {
        missing(c, what, id, unit, n);
    }
    if (to - from >= MISSING_PER_GAP_MAX) {
        fprintf(c->report, "missing %s=%s and on to %s=%" PRIu64 "\n", what, id, unit, to);
        c->totals->missing += to - from + 1 - MISSING_PER_GAP_MAX;
    }
}

static void need_entry(checker *c, const char *chat, uint64_t seq)
{
    store_key key;
    const noted *n = mesh_table_get(c->chats, mesh_table_str(chat));
    if (n != NULL) {
        store_key_entry(&key, n->slot, chat, seq);
    }
    if (n == NULL || !has_key(c, &key)) {
        missing(c, "chat", chat, "seq", seq);
    }
}

/* A chat of this shard has its row or an entry here. */
static bool is_here(checker *c, const char *chat)
{
    return mesh_table_get(c->chats, mesh_table_str(chat)) != NULL;
}

static uint64_t trimmed_up_to(checker *c, mesh_slot slot, const char *user)
{
    store_key key;
    mesh_buf value = { 0 };
    ProtobufCMessage *row;
    uint64_t trimmed = 0;
    store_key_user(&key, slot, user);
    if (store_kv_get(c->kv, store_key_slice(&key), &value) == MESH_OK &&
        mesh_wire_unpack(&store__user_row__descriptor, mesh_buf_slice(&value), c->arena, &row) == MESH_OK) {
        trimmed = ((const Store__UserRow *)row)->trimmed;
    }
    mesh_buf_fini(&value);
    return trimmed;
}

/* ---- one table at a time ---- */

typedef struct row_key { /* id and second borrow from a copy of the key */
    mesh_slot slot;
    const char *id, *second;
    uint64_t number;
} row_key;

typedef mesh_err row_fn(checker *c, const row_key *key, const ProtobufCMessage *row);

/* Keys of table: byte, slot, id, and then nothing, 0x00 + number, or 0x00 + more; of the outbox: byte, number. */
static mesh_err each_row(checker *c, char table, const ProtobufCMessageDescriptor *desc, row_fn *fn)
{
    mesh_buf key = { 0 };
    mesh_err err = MESH_OK;
    store_kv_iter *it = store_kv_iter_new(c->kv, (mesh_slice){ (const uint8_t *)&table, 1 });
    for (store_kv_iter_first(it); err == MESH_OK && store_kv_iter_valid(it); store_kv_iter_next(it)) {
        mesh_slice k = store_kv_iter_key(it);
        ProtobufCMessage *row = NULL;
        if (k.size < STORE_KEY_SLOT) {
            snprintf(c->why, c->why_size, "a key of table %c is too short", table);
            err = MESH_CORRUPT;
            break;
        }
        if (table != 'o' && c->moving[(k.data[1] << 8 | k.data[2]) % MESH_SLOTS]) {
            continue;
        }
        mesh_buf_clear(&key);
        mesh_buf_put(&key, k.data + STORE_KEY_SLOT, k.size - STORE_KEY_SLOT);
        mesh_buf_put(&key, "\0", 2);
        size_t id_size = strlen((const char *)key.data);
        const char *second = (const char *)key.data + (id_size + 1 < key.size ? id_size + 1 : id_size);
        row_key parts = { .slot = (mesh_slot)(k.data[1] << 8 | k.data[2]),
                          .id = (const char *)key.data,
                          .second = second,
                          .number = k.size >= 8 ? store_key_number(k) : 0 };
        mesh_arena_reset(c->arena);
        if (desc != NULL) {
            err = mesh_wire_unpack(desc, store_kv_iter_value(it), c->arena, &row);
        }
        if (err == MESH_OK) {
            err = fn(c, &parts, row);
        } else {
            snprintf(c->why, c->why_size, "a row of table %c cannot be read", table);
            err = MESH_CORRUPT;
        }
    }
    mesh_err status = store_kv_iter_status(it);
    if (status != MESH_OK) {
        snprintf(c->why, c->why_size, "table %c cannot be read to its end", table);
        err = status;
    }
    store_kv_iter_destroy(&it);
    mesh_buf_fini(&key);
    return err;
}

/* Entries are 1, 2, 3 ...: each but the first has its predecessor. */
static mesh_err check_entry(checker *c, const row_key *at, const ProtobufCMessage *row)
{
    (void)row;
    const char *chat = at->id;
    uint64_t seq = at->number;
    store_key key;
    store_key_entry(&key, at->slot, chat, seq - 1);
    if (seq > 1 && !has_key(c, &key)) {
        store_kv_iter *it = store_kv_iter_new(c->kv, (mesh_slice){ key.data, key.size - 8 });
        store_kv_iter_seek_back(it, store_key_slice(&key));
        uint64_t before = store_kv_iter_valid(it) ? store_key_number(store_kv_iter_key(it)) : 0;
        store_kv_iter_destroy(&it);
        missing_range(c, "chat", chat, "seq", before + 1, seq - 1);
    }
    return MESH_OK;
}

static mesh_err check_dedupe(checker *c, const row_key *at, const ProtobufCMessage *row)
{
    const Store__DedupeRow *d = (const Store__DedupeRow *)row;
    if (d->seq > 0) {
        need_entry(c, d->chat[0] != 0 ? d->chat : at->id, d->seq);
    }
    return MESH_OK;
}

static mesh_err check_inbox(checker *c, const row_key *at, const ProtobufCMessage *row)
{
    const char *user = at->id;
    uint64_t seq = at->number;
    const Mesh__Entry *e = (const Mesh__Entry *)row;
    store_key key;
    store_key_inbox(&key, at->slot, user, seq - 1);
    if (seq > 1 && !has_key(c, &key)) {
        store_kv_iter *it = store_kv_iter_new(c->kv, (mesh_slice){ key.data, key.size - 8 });
        store_kv_iter_seek_back(it, store_key_slice(&key));
        uint64_t before = store_kv_iter_valid(it) ? store_key_number(store_kv_iter_key(it)) : 0;
        store_kv_iter_destroy(&it);
        uint64_t trimmed = trimmed_up_to(c, at->slot, user);
        before = before > trimmed ? before : trimmed;
        if (before + 1 < seq) {
            missing_range(c, "user", user, "inbox_seq", before + 1, seq - 1);
        }
    }
    if (e->seq > 0 && is_here(c, e->chat)) {
        need_entry(c, e->chat, e->seq);
    }
    return MESH_OK;
}

static mesh_err check_user_chat(checker *c, const row_key *at, const ProtobufCMessage *row)
{
    const char *user = at->id;
    const char *chat = at->second;
    const Store__UserChatRow *u = (const Store__UserChatRow *)row;
    store_key key;
    if (u->last_seq > 0 && is_here(c, chat)) {
        need_entry(c, chat, u->last_seq);
    }
    store_key_inbox(&key, at->slot, user, u->inbox_seq);
    if (u->inbox_seq > 0 && !has_key(c, &key) && u->inbox_seq > trimmed_up_to(c, at->slot, user)) {
        missing(c, "user", user, "inbox_seq", u->inbox_seq);
    }
    return MESH_OK;
}

static mesh_err check_device(checker *c, const row_key *at, const ProtobufCMessage *row)
{
    const char *user = at->id;
    const Store__DeviceRow *d = (const Store__DeviceRow *)row;
    store_key key;
    store_key_inboxes(&key, at->slot, user);
    uint64_t head = last_number(c, &key);
    uint64_t trimmed = trimmed_up_to(c, at->slot, user);
    head = head > trimmed ? head : trimmed;
    if (d->cursor > head) {
        missing_range(c, "user", user, "inbox_seq", head + 1, d->cursor);
    }
    return MESH_OK;
}

static mesh_err note_chat(checker *c, const row_key *at, const ProtobufCMessage *row)
{
    (void)row;
    if (!is_here(c, at->id)) {
        size_t size = strlen(at->id) + 1;
        noted *n = mesh_alloc(sizeof *n + size);
        n->slot = at->slot;
        memcpy(n->id, at->id, size);
        mesh_table_put(c->chats, mesh_table_str(n->id), n);
    }
    return MESH_OK;
}

static mesh_err check_outbox(checker *c, const row_key *at, const ProtobufCMessage *row)
{
    (void)at;
    const Store__OutboxRow *o = (const Store__OutboxRow *)row;
    for (size_t i = 0; i < o->n_items; i++) {
        if (is_here(c, o->items[i]->chat)) { /* its slot may have left: then another shard owes it */
            need_entry(c, o->items[i]->chat, o->items[i]->seq);
        }
    }
    return MESH_OK;
}

static mesh_err note_slot(checker *c, const row_key *at, const ProtobufCMessage *row)
{
    uint32_t state = ((const Store__SlotRow *)row)->state;
    c->moving[at->slot % MESH_SLOTS] = state == STORE_SLOT_LEAVING || state == STORE_SLOT_ARRIVING;
    return MESH_OK;
}

/* ---- the log, and what somebody outside remembers ---- */

static mesh_err check_log(checker *c)
{
    consensus_hard hard;
    consensus_log log;
    consensus_snapshot snapshot = { 0 };
    char *cluster = NULL;
    store_key key;
    mesh_buf value = { 0 };
    ProtobufCMessage *row;
    uint64_t applied = 0;
    consensus_log_init(&log, STORE_LOG_TRAIL);
    mesh_err err = consensus_hard_get(c->kv, &hard, &cluster, c->why, c->why_size);
    if (err == MESH_NOT_FOUND) {
        snprintf(c->why, c->why_size, "no hard state: this is no store, or nothing of it is left");
        err = MESH_CORRUPT;
    }
    err = err == MESH_OK ? consensus_log_load(c->kv, &log, &snapshot, c->why, c->why_size) : err;
    store_key_applied(&key);
    if (err == MESH_OK && store_kv_get(c->kv, store_key_slice(&key), &value) == MESH_OK &&
        mesh_wire_unpack(&store__applied_row__descriptor, mesh_buf_slice(&value), c->arena, &row) == MESH_OK) {
        applied = ((const Store__AppliedRow *)row)->index;
    }
    if (err == MESH_OK && applied > log.last) {
        snprintf(c->why, c->why_size, "rows of entry %" PRIu64 " are there, the log ends at %" PRIu64, applied,
                 log.last);
        err = MESH_CORRUPT;
    }
    applied = applied > 1 ? applied : 1; /* the first entry is the configuration: it has no rows */
    c->totals->unapplied = err == MESH_OK ? log.last - applied : 0;
    mesh_buf_fini(&value);
    mesh_buf_fini(&snapshot.conf);
    consensus_log_fini(&log);
    free(cluster);
    return err;
}

static mesh_err check_acks(checker *c, FILE *acks)
{
    char line[256], id[MESH_QID_MAX + 1], rest[2];
    for (unsigned number = 1; fgets(line, sizeof line, acks) != NULL; number++) {
        uint64_t seq;
        char qualified[MESH_QID_MAX + 16];
        if (sscanf(line, "%97s %" SCNu64 " %1s", id, &seq, rest) != 2 || seq == 0) {
            snprintf(c->why, c->why_size, "line %u of the acks is not \"chat seq\"", number);
            return MESH_MALFORMED;
        }
        snprintf(qualified, sizeof qualified, "%s%s", strchr(id, '/') != NULL ? "" : "default/", id);
        if (!mesh_qid_valid(qualified)) {
            snprintf(c->why, c->why_size, "line %u of the acks has no valid chat", number);
            return MESH_MALFORMED;
        }
        need_entry(c, qualified, seq);
    }
    return MESH_OK;
}

static mesh_err count_rows(checker *c)
{
    store_kv_iter *it = store_kv_iter_new(c->kv, (mesh_slice){ NULL, 0 });
    for (store_kv_iter_first(it); store_kv_iter_valid(it); store_kv_iter_next(it)) {
        c->totals->rows++;
    }
    mesh_err err = store_kv_iter_status(it);
    if (err != MESH_OK) {
        snprintf(c->why, c->why_size, "the rows cannot be read to their end");
    }
    store_kv_iter_destroy(&it);
    return err;
}

mesh_err store_salvage_check(store_kv *kv, FILE *acks, FILE *report, salvage_totals *totals, char *why, size_t why_size)
{
    *totals = (salvage_totals){ 0 };
    checker c = { .kv = kv, .report = report, .totals = totals, .why = why, .why_size = why_size };
    c.seek = store_kv_iter_new(kv, (mesh_slice){ NULL, 0 });
    c.arena = mesh_arena_new();
    c.reported = mesh_table_new(NULL);
    c.chats = mesh_table_new(NULL);
    static const struct {
        char table;
        const ProtobufCMessageDescriptor *desc;
        row_fn *fn;
    } tables[] = {
        { 's', &store__slot_row__descriptor, note_slot },
        { 'c', NULL, note_chat },
        { 'm', NULL, note_chat },
        { 'm', NULL, check_entry },
        { 'd', &store__dedupe_row__descriptor, check_dedupe },
        { 'i', &mesh__entry__descriptor, check_inbox },
        { 'u', &store__user_chat_row__descriptor, check_user_chat },
        { 'v', &store__device_row__descriptor, check_device },
        { 'o', &store__outbox_row__descriptor, check_outbox },
        { 'w', &store__outbox_row__descriptor, check_outbox },
    };
    mesh_err err = count_rows(&c);
    err = err == MESH_OK ? check_log(&c) : err;
    for (size_t i = 0; i < sizeof tables / sizeof tables[0] && err == MESH_OK; i++) {
        err = each_row(&c, tables[i].table, tables[i].desc, tables[i].fn);
    }
    if (err == MESH_OK && acks != NULL) {
        err = check_acks(&c, acks);
    }
    for (char *line; (line = mesh_table_take(c.reported)) != NULL;) {
        free(line);
    }
    mesh_table_destroy(&c.reported);
    for (noted *n; (n = mesh_table_take(c.chats)) != NULL;) {
        free(n);
    }
    mesh_table_destroy(&c.chats);
    mesh_arena_destroy(&c.arena);
    store_kv_iter_destroy(&c.seek);
    return err;
}
