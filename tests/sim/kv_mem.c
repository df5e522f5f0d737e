/* tests/sim/kv_mem.c: one map holds all rows as reads see them. Each queued batch keeps what its rows replaced, so that
 * a crash can take batches back, newest first; a flush forgets what would be needed for that. */
#include "tests/sim/kv_mem.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mesh/alloc.h"
#include "store/kv_batch.h"
#include "store/kv_plan.h"
#include "store/kv_rows.h"
#include "store/omap.h"

#define FREE_BYTES (1ull << 40)

typedef struct row { /* one block: key, then value */
    size_t key_size, value_size;
    uint64_t hash; /* of both */
    uint8_t bytes[];
} row;

typedef struct undo {
    row *now; /* what the batch put, or NULL: it deleted */
    row *old; /* what was there before, or NULL */
} undo;

typedef struct queued {
    struct queued *prev, *next;
    uint64_t ticket;
    bool sync;
    size_t bytes, count;
    undo undos[];
} queued;

typedef struct incoming_rows { /* <path>.incoming */
    store_omap *rows;          /* NULL: it is not there */
    mesh_buf note;
    bool finished;
    store_kv_incoming *open;
} incoming_rows;

#define SWITCH_STEPS 3 /* out, in, delete */

struct sim_disk {
    sim_disk *next; /* in the registry */
    char *path;
    mesh_rand rand;
    store_omap *rows; /* node->value.data - offsetof(row, bytes) - key size is its row */
    queued *oldest, *newest;
    store_kv *open;
    mesh_err fail, refuse;
    uint64_t free_bytes;
    uint64_t deletes; /* so that iterators know when to look again */
    bool there;       /* the path holds a database; otherwise rows is empty */
    store_omap *old;  /* <path>.old, or NULL */
    store_omap *kept; /* by sim_disk_keep, or NULL */
    uint64_t digest;  /* sum of the hashes of rows, but for keys that begin with a zero byte */
    mesh_buf watched; /* a key */
    sim_disk_wrote *wrote;
    void *wrote_arg;
    mesh_buf flipped; /* key of the bad row; empty: none */
    bool flipped_at_open, lost;
    unsigned quarantines;
    incoming_rows incoming;
    unsigned switch_steps; /* the next switch does no more than this */
};

struct store_kv {
    sim_disk *disk; /* NULL: dead */
    uint64_t next_ticket, durable;
    mesh_err error;
    unsigned iterators, views;
    store_kv_counts counts;
};

static sim_disk *registry; /* a path is all that store_kv_open gets */

static sim_disk *find_disk(const char *path)
{
    sim_disk *disk = registry;
    while (disk != NULL && strcmp(disk->path, path) != 0) {
        disk = disk->next;
    }
    return disk;
}

#include "tests/sim/kv_mem_rows.h"

/* ---- the disk ---- */

sim_disk *sim_disk_new(const char *path, uint64_t seed)
{
    for (const sim_disk *d = registry; d != NULL; d = d->next) {
        assert(strcmp(d->path, path) != 0);
    }
    sim_disk *disk = mesh_alloc(sizeof *disk);
    disk->path = mesh_strdup(path);
    disk->rand.state = seed;
    disk->rows = store_omap_new(seed);
    disk->free_bytes = FREE_BYTES;
    disk->switch_steps = SWITCH_STEPS;
    disk->next = registry;
    registry = disk;
    return disk;
}

static queued *queue_take(sim_disk *disk, queued *q)
{
    *(q->prev != NULL ? &q->prev->next : &disk->oldest) = q->next;
    *(q->next != NULL ? &q->next->prev : &disk->newest) = q->prev;
    return q;
}

/* The oldest batch is on disk for good. */
static void settle_oldest(sim_disk *disk)
{
    queued *q = queue_take(disk, disk->oldest);
    for (size_t i = 0; i < q->count; i++) {
        free(q->undos[i].old);
    }
    if (disk->open != NULL) {
        disk->open->durable = q->ticket;
        disk->open->counts.queued_bytes -= q->bytes;
    }
    free(q);
}

/* The newest batch never was. */
static void undo_newest(sim_disk *disk)
{
    queued *q = queue_take(disk, disk->newest);
    for (size_t i = q->count; i-- > 0;) {
        undo *u = &q->undos[i];
        if (u->now != NULL || u->old != NULL) {
            mesh_slice key = row_key(u->old != NULL ? u->old : u->now);
            row *was = rows_set(disk, key, u->old);
            assert(was == u->now);
            free(was);
        }
    }
    free(q);
}

static void drop_incoming(sim_disk *disk)
{
    assert(disk->incoming.open == NULL);
    map_destroy(&disk->incoming.rows);
    mesh_buf_fini(&disk->incoming.note);
    disk->incoming.finished = false;
}

void sim_disk_destroy(sim_disk **disk_p)
{
    sim_disk *disk = *disk_p;
    if (disk == NULL) {
        return;
    }
    assert(disk->open == NULL);
    while (disk->oldest != NULL) {
        settle_oldest(disk);
    }
    drop_incoming(disk);
    map_destroy(&disk->old);
    map_destroy(&disk->kept);
    map_destroy(&disk->rows);
    mesh_buf_fini(&disk->flipped);
    mesh_buf_fini(&disk->watched);
    sim_disk **link = &registry;
    while (*link != disk) {
        link = &(*link)->next;
    }
    *link = disk->next;
    free(disk->path);
    free(disk);
    *disk_p = NULL;
}

static bool flush_to(sim_disk *disk, uint64_t ticket)
{
    store_kv *kv = disk->open;
    if (kv == NULL || kv->error != MESH_OK || disk->oldest == NULL || disk->oldest->ticket > ticket) {
        return false;
    }
    if (disk->fail != MESH_OK) {
        kv->error = disk->fail;
        return true;
    }
    while (disk->oldest != NULL && disk->oldest->ticket <= ticket) {
        settle_oldest(disk);
    }
    kv->counts.syncs++;
    return true;
}

static uint64_t last_synced(const sim_disk *disk)
{
    const queued *q = disk->newest;
    while (q != NULL && !q->sync) {
        q = q->prev;
    }
    return q != NULL ? q->ticket : 0;
}

bool sim_disk_flush(sim_disk *disk)
{
    return flush_to(disk, last_synced(disk));
}

bool sim_disk_flush_all(sim_disk *disk)
{
    return flush_to(disk, UINT64_MAX);
}

bool sim_disk_has_pending(const sim_disk *disk)
{
    return disk->open != NULL && disk->open->error == MESH_OK && last_synced(disk) > 0;
}

/* Keep a random prefix of what is queued. */
static void lose_tail(sim_disk *disk, mesh_rand *rand)
{
    uint64_t n = 0;
    for (const queued *q = disk->oldest; q != NULL; q = q->next) {
        n++;
    }
    for (uint64_t lost = mesh_rand_below(rand, n + 1); lost > 0; lost--) {
        undo_newest(disk);
    }
    while (disk->oldest != NULL) {
        settle_oldest(disk);
    }
}

static void kill_incoming(sim_disk *disk);
static mesh_err settle(sim_disk *disk);

void sim_disk_crash(sim_disk *disk, mesh_rand *rand)
{
    store_kv *kv = disk->open;
    disk->open = NULL;
    lose_tail(disk, rand);
    if (kv != NULL) {
        kv->disk = NULL;
    }
    kill_incoming(disk);
}

void sim_disk_fail(sim_disk *disk, mesh_err err)
{
    disk->fail = err;
}

void sim_disk_flip_row(sim_disk *disk, mesh_slice key)
{
    mesh_buf_clear(&disk->flipped);
    mesh_buf_put(&disk->flipped, key.data, key.size);
    disk->flipped_at_open = false;
}

bool sim_disk_flip(sim_disk *disk, mesh_rand *rand, bool at_open)
{
    size_t n = store_omap_count(disk->rows);
    if (n == 0) {
        return false;
    }
    const store_omap_node *node = store_omap_first(disk->rows);
    for (uint64_t i = mesh_rand_below(rand, n); i > 0; i--) {
        node = store_omap_next(node);
    }
    for (const queued *q = disk->oldest; q != NULL; q = q->next) {
        for (size_t i = 0; i < q->count; i++) {
            if (q->undos[i].now != NULL && store_omap_compare(row_key(q->undos[i].now), node->key) == 0) {
                return false; /* not on disk yet */
            }
        }
    }
    sim_disk_flip_row(disk, node->key);
    disk->flipped_at_open = at_open;
    return true;
}

bool sim_disk_is_flipped(const sim_disk *disk)
{
    return disk->flipped.size > 0;
}

/* As of the last sync: what is queued is taken back in the copy, newest first. */
static store_omap *durable_rows(const sim_disk *disk)
{
    store_omap *rows = store_omap_new(1);
    for (const store_omap_node *n = store_omap_first(disk->rows); n != NULL; n = store_omap_next(n)) {
        row *r = row_copy(row_of(n));
        free(map_set(rows, row_key(r), r));
    }
    for (const queued *q = disk->newest; q != NULL; q = q->prev) {
        for (size_t i = q->count; i-- > 0;) {
            const row *some = q->undos[i].old != NULL ? q->undos[i].old : q->undos[i].now;
            if (some != NULL) {
                free(map_set(rows, row_key(some), row_copy(q->undos[i].old)));
            }
        }
    }
    return rows;
}

void sim_disk_keep(sim_disk *disk)
{
    map_destroy(&disk->kept);
    if (disk->there) {
        disk->kept = durable_rows(disk);
    }
}

bool sim_disk_put_back(sim_disk *disk)
{
    assert(disk->open == NULL && disk->oldest == NULL);
    if (disk->kept == NULL) {
        return false;
    }
    map_destroy(&disk->rows);
    map_destroy(&disk->old);
    drop_incoming(disk);
    mesh_buf_clear(&disk->flipped);
    disk->rows = disk->kept;
    disk->kept = NULL;
    disk->there = true;
    sum_up(disk);
    return true;
}

unsigned sim_disk_quarantines(const sim_disk *disk)
{
    return disk->quarantines;
}

mesh_err store_kv_quarantine(const char *path, const char *stamp, char *kept, size_t kept_size)
{
    sim_disk *disk = find_disk(path);
    assert(disk != NULL && disk->open == NULL && disk->oldest == NULL);
    drop_incoming(disk);
    map_destroy(&disk->old);
    map_destroy(&disk->rows);
    mesh_buf_clear(&disk->flipped);
    disk->rows = store_omap_new(disk->rand.state);
    disk->digest = 0;
    disk->there = false;
    disk->lost = true;
    disk->quarantines++;
    snprintf(kept, kept_size, "%s.quarantine-%s", path, stamp);
    return MESH_OK;
}

bool store_kv_is_lost(const char *path)
{
    const sim_disk *disk = find_disk(path);
    return disk != NULL && disk->lost;
}

mesh_err store_kv_regained(const char *path)
{
    sim_disk *disk = find_disk(path);
    assert(disk != NULL);
    disk->lost = false;
    return MESH_OK;
}

void sim_disk_refuse(sim_disk *disk, mesh_err err)
{
    disk->refuse = err;
}

void sim_disk_set_free(sim_disk *disk, uint64_t bytes)
{
    disk->free_bytes = bytes;
}

bool sim_disk_is_open(const sim_disk *disk)
{
    return disk->open != NULL;
}

size_t sim_disk_rows(const sim_disk *disk)
{
    return store_omap_count(disk->rows);
}

uint64_t sim_disk_hash(const sim_disk *disk)
{
    uint64_t h = 0xcbf29ce484222325u; /* FNV-1a over sizes and bytes */
    for (const store_omap_node *n = store_omap_first(disk->rows); n != NULL; n = store_omap_next(n)) {
        const row *r = row_of(n);
        h = (h ^ r->key_size) * 0x100000001b3u;
        for (size_t i = 0; i < r->key_size + r->value_size; i++) {
            h = (h ^ r->bytes[i]) * 0x100000001b3u;
        }
    }
    return h;
}

uint64_t sim_disk_digest(const sim_disk *disk)
{
    return disk->digest;
}

uint64_t sim_disk_row_hash(const sim_disk *disk, mesh_slice key)
{
    const store_omap_node *node = store_omap_get(disk->rows, key);
    return node != NULL ? row_of(node)->hash : 0;
}

void sim_disk_watch(sim_disk *disk, mesh_slice key, sim_disk_wrote *fn, void *arg)
{
    mesh_buf_clear(&disk->watched);
    mesh_buf_put(&disk->watched, key.data, key.size);
    disk->wrote = fn;
    disk->wrote_arg = arg;
}

/* ---- store/kv.h ---- */

mesh_err store_kv_open(const char *path, const store_kv_options *options, store_kv **kv_p, char *why, size_t why_size)
{
    (void)options;
    sim_disk *disk = find_disk(path);
    if (disk == NULL || disk->open != NULL) {
        snprintf(why, why_size, "%s: %s", path, disk == NULL ? "no such disk" : "held by another handle");
        return MESH_IO;
    }
    mesh_err err = disk->refuse != MESH_OK ? disk->refuse : disk->fail;
    err = err == MESH_OK ? settle(disk) : err;
    if (err == MESH_OK && disk->flipped.size > 0 && disk->flipped_at_open) {
        err = MESH_CORRUPT;
    }
    if (err != MESH_OK) {
        snprintf(why, why_size, "%s: the disk refuses: %s", path, mesh_err_name(err));
        return err;
    }
    store_kv *kv = mesh_alloc(sizeof *kv);
    kv->disk = disk;
    kv->next_ticket = 1;
    disk->open = kv;
    disk->there = true;
    *kv_p = kv;
    return MESH_OK;
}

void store_kv_close(store_kv **kv_p)
{
    store_kv *kv = *kv_p;
    if (kv == NULL) {
        return;
    }
    assert(kv->iterators == 0 && kv->views == 0);
    sim_disk *disk = kv->disk;
    if (disk != NULL) {
        (void)sim_disk_flush_all(disk);
        disk->open = NULL;
        lose_tail(disk, &disk->rand); /* nothing is left unless the disk failed */
    }
    free(kv);
    *kv_p = NULL;
}

mesh_err store_kv_get(store_kv *kv, mesh_slice key, mesh_buf *out)
{
    mesh_buf_clear(out);
    const store_omap_node *node = kv->disk != NULL ? store_omap_get(kv->disk->rows, key) : NULL;
    if (node == NULL) {
        return MESH_NOT_FOUND;
    }
    if (is_flipped(kv->disk, key)) {
        return kv->error = MESH_CORRUPT;
    }
    mesh_buf_put(out, node->value.data, node->value.size);
    return MESH_OK;
}

uint64_t store_kv_write(store_kv *kv, store_kv_batch *batch, bool sync)
{
    sim_disk *disk = kv->disk;
    uint64_t ticket = kv->next_ticket++;
    if (disk != NULL) {
        queued *q = mesh_alloc(sizeof *q + batch->count * sizeof(undo));
        q->ticket = ticket;
        q->sync = sync;
        q->count = batch->count;
        q->bytes = batch->rows.size;
        size_t at = 0;
        store_kv_row r;
        mesh_slice watched = { NULL, 0 };
        for (size_t i = 0; store_kv_batch_next(&batch->rows, &at, &r); i++) {
            if (disk->watched.size > 0 && store_omap_compare(mesh_buf_slice(&disk->watched), r.key) == 0) {
                watched = r.value;
            }
            q->undos[i].now = r.deleted ? NULL : row_new(r.key, r.value);
            q->undos[i].old = rows_set(disk, r.key, q->undos[i].now);
        }
        q->prev = disk->newest;
        *(q->prev != NULL ? &q->prev->next : &disk->oldest) = q;
        disk->newest = q;
        kv->counts.batches++;
        kv->counts.rows += batch->count;
        kv->counts.row_bytes += batch->rows.size;
        kv->counts.queued_bytes += batch->rows.size;
        if (watched.size > 0) {
            disk->wrote(disk->wrote_arg, watched);
        }
    }
    mesh_buf_clear(&batch->rows);
    batch->count = 0;
    return ticket;
}

uint64_t store_kv_durable(store_kv *kv)
{
    return kv->durable;
}

mesh_err store_kv_wait(store_kv *kv, uint64_t ticket)
{
    assert(ticket < kv->next_ticket);
    if (kv->disk == NULL) {
        return MESH_IO;
    }
    (void)flush_to(kv->disk, ticket);
    return kv->durable >= ticket ? MESH_OK : kv->error;
}

bool store_kv_full(const store_kv *kv)
{
    return kv->counts.queued_bytes > STORE_KV_QUEUE_MAX;
}

mesh_err store_kv_error(const store_kv *kv)
{
    return kv->error;
}

int store_kv_fd(store_kv *kv)
{
    (void)kv;
    return -1;
}

void store_kv_fd_clear(store_kv *kv)
{
    (void)kv;
}

uint64_t store_kv_free_bytes(store_kv *kv)
{
    return kv->disk != NULL ? kv->disk->free_bytes : 0;
}

store_kv_counts store_kv_counted(const store_kv *kv)
{
    return kv->counts;
}

#include "tests/sim/kv_mem_iter.h"

#include "tests/sim/kv_mem_beside.h"
