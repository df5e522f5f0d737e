/* store/kv.c: store/kv.h on LevelDB.
 *
 * The loop thread queues batches and puts their rows into the overlay. The writer thread takes everything that waits
 * (up to KV_GROUP_BYTES), writes it as one LevelDB batch with sync, tells the loop through the eventfd, and starts
 * again: the group grows by itself while the last one syncs. What a group held leaves the overlay when the loop thread
 * asks how far the disk is.
 *
 * Every LevelDB write is synced. An unsynced one would be lost with the tail of its log file when LevelDB has gone on
 * to the next file, while later rows survive: a hole. So batches that nobody waits for are held back instead, until one
 * that asks for sync takes them along, or KV_HOLD_MS or KV_HOLD_BYTES have passed: fewer syncs, and never a hole.
 *
 * How it fails: a failed write ends the writer for good; nothing after it is written, the ticket stands where it was.
 */
#include "store/kv_leveldb.h"

#include <assert.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

#include "mesh/alloc.h"
#include "mesh/clock.h"

#define KV_GROUP_BYTES (1024u * 1024) /* one LevelDB write; more would only add latency */
#define KV_HOLD_MS 20
#define KV_HOLD_BYTES (256u * 1024)
#define KV_SPARES 64
#define KV_SPARE_BYTES (512u * 1024)

void store_kv_fail(store_kv *kv, mesh_err err)
{
    pthread_mutex_lock(&kv->lock);
    if (kv->error == MESH_OK) {
        kv->error = err;
    }
    pthread_mutex_unlock(&kv->lock);
}

/* ---- the writer thread ---- */

static bool group_is_due(const store_kv *kv)
{
    return kv->todo != NULL && (kv->todo_synced > 0 || kv->todo_bytes >= KV_HOLD_BYTES || kv->closing || kv->hurry);
}

/* Returns the first batch of the next group, NULL when it is time to end. Called and left with the lock held. */
static kv_pending *wait_for_group(store_kv *kv)
{
    while (!group_is_due(kv)) {
        if (kv->closing) {
            return NULL;
        }
        if (kv->todo == NULL) {
            pthread_cond_wait(&kv->wake, &kv->lock);
            continue;
        }
        uint64_t until_us = mesh_clock_us() + KV_HOLD_MS * 1000;
        struct timespec until = { (time_t)(until_us / 1000000), (long)(until_us % 1000000) * 1000 };
        int rc = 0;
        while (rc == 0 && !group_is_due(kv)) {
            rc = pthread_cond_timedwait(&kv->wake, &kv->lock, &until);
        }
        if (rc == ETIMEDOUT) {
            break;
        }
    }
    return kv->todo;
}

/* Take batches off the queue, beginning with first; returns the last ticket of the group. */
static uint64_t take_group(store_kv *kv, const kv_pending *first)
{
    size_t bytes = 0;
    uint64_t last = 0;
    kv_pending *p = kv->todo;
    assert(p == first);
    while (p != NULL && (last == 0 || bytes + p->rows.size <= KV_GROUP_BYTES)) {
        bytes += p->rows.size;
        kv->todo_synced -= p->sync;
        last = p->ticket;
        p = p->next;
    }
    kv->todo = p;
    kv->todo_bytes -= bytes;
    kv->hurry = kv->hurry && p != NULL;
    return last;
}

/* Without the lock: rows of a queued batch do not change, and `next` is read only between batches of the group. */
static mesh_err write_group(store_kv *kv, const kv_pending *first, uint64_t last)
{
    leveldb_writebatch_clear(kv->group);
    for (const kv_pending *p = first;; p = p->next) {
        size_t at = 0;
        store_kv_row row;
        while (store_kv_batch_next(&p->rows, &at, &row)) {
            if (row.deleted) {
                leveldb_writebatch_delete(kv->group, (const char *)row.key.data, row.key.size);
            } else {
                leveldb_writebatch_put(kv->group, (const char *)row.key.data, row.key.size,
                                       (const char *)row.value.data, row.value.size);
            }
        }
        if (p->ticket == last) {
            break;
        }
    }
    char *message = NULL;
    leveldb_write(kv->base.db, kv->base.write, kv->group, &message);
    return store_kv_leveldb_take(message);
}

static void tell_loop(store_kv *kv)
{
    uint64_t one = 1;
    ssize_t n = write(kv->fd, &one, sizeof one); /* EAGAIN: the counter is full, so it is readable */
    assert(n == (ssize_t)sizeof one || errno == EAGAIN);
    pthread_cond_broadcast(&kv->progress);
}

static void *writer_main(void *arg)
{
    store_kv *kv = arg;
    pthread_mutex_lock(&kv->lock);
    kv_pending *first;
    while (kv->error == MESH_OK && (first = wait_for_group(kv)) != NULL) {
        uint64_t last = take_group(kv, first);
        pthread_mutex_unlock(&kv->lock);
        mesh_err err = write_group(kv, first, last);
        pthread_mutex_lock(&kv->lock);
        if (err == MESH_OK) {
            kv->durable = last;
            kv->syncs++;
        } else if (kv->error == MESH_OK) {
            kv->error = err;
        }
        tell_loop(kv);
    }
    pthread_mutex_unlock(&kv->lock);
    return NULL;
}

/* ---- open and close ---- */

static void free_pending(kv_pending *p)
{
    while (p != NULL) {
        kv_pending *next = p->next;
        mesh_buf_fini(&p->rows);
        free(p->nodes);
        free(p);
        p = next;
    }
}

/* Everything but the writer thread, which is not running. */
static void destroy(store_kv *kv)
{
    store_kv_database_close(&kv->base);
    leveldb_writebatch_destroy(kv->group);
    store_omap_destroy(&kv->overlay);
    free_pending(kv->head);
    free_pending(kv->spare);
    pthread_cond_destroy(&kv->progress);
    pthread_cond_destroy(&kv->wake);
    pthread_mutex_destroy(&kv->lock);
    if (kv->fd >= 0) {
        close(kv->fd);
    }
    free(kv->path);
    free(kv);
}

static mesh_err start_writer(store_kv *kv)
{
    sigset_t all, before;
    sigfillset(&all); /* signals belong to the program's main thread */
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int rc = pthread_create(&kv->writer, NULL, writer_main, kv);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return rc == 0 ? MESH_OK : MESH_IO;
}

mesh_err store_kv_open(const char *path, const store_kv_options *options, store_kv **kv_p, char *why, size_t why_size)
{
    store_kv *kv = mesh_alloc(sizeof *kv);
    kv->path = mesh_strdup(path);
    kv->overlay = store_omap_new(0x6b76);
    kv->next_ticket = 1;
    kv->next_tag = 1;
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_mutex_init(&kv->lock, NULL);
    pthread_cond_init(&kv->wake, &attr);
    pthread_cond_init(&kv->progress, NULL);
    pthread_condattr_destroy(&attr);
    kv->fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);

    kv->group = leveldb_writebatch_create();
    mesh_err err = store_kv_settle(path, why, why_size);
    if (err == MESH_OK) {
        err = store_kv_database_open(&kv->base, path, options, why, why_size);
    }
    if (err == MESH_OK && (kv->fd < 0 || start_writer(kv) != MESH_OK)) {
        snprintf(why, why_size, "no descriptor or thread for the writer: %s", strerror(errno));
        err = MESH_IO;
    }
    if (err != MESH_OK) {
        destroy(kv);
        return err;
    }
    *kv_p = kv;
    return MESH_OK;
}

void store_kv_close(store_kv **kv_p)
{
    store_kv *kv = *kv_p;
    if (kv == NULL) {
        return;
    }
    assert(kv->iterators == 0 && kv->views == 0); /* LevelDB asserts it too, less clearly */
    pthread_mutex_lock(&kv->lock);
    kv->closing = true;
    pthread_cond_signal(&kv->wake);
    pthread_mutex_unlock(&kv->lock);
    pthread_join(kv->writer, NULL);
    destroy(kv);
    *kv_p = NULL;
}

/* ---- writing ---- */

static kv_pending *pending_new(store_kv *kv, size_t rows)
{
    kv_pending *p = kv->spare;
    if (p != NULL) {
        kv->spare = p->next;
        kv->spares--;
        p->next = NULL;
    } else {
        p = mesh_alloc(sizeof *p);
    }
    if (p->nodes_cap < rows) {
        p->nodes = mesh_realloc(p->nodes, rows * sizeof *p->nodes);
        p->nodes_cap = rows;
    }
    return p;
}

static void pending_recycle(store_kv *kv, kv_pending *p)
{
    p->next = NULL;
    if (kv->spares >= KV_SPARES || p->rows.cap > KV_SPARE_BYTES) {
        free_pending(p);
        return;
    }
    mesh_buf_clear(&p->rows);
    p->next = kv->spare;
    kv->spare = p;
    kv->spares++;
}

static void overlay_put(store_kv *kv, kv_pending *p)
{
    size_t at = 0;
    store_kv_row row;
    p->first_tag = kv->next_tag;
    for (size_t i = 0; store_kv_batch_next(&p->rows, &at, &row); i++) {
        bool added;
        store_omap_node *node = store_omap_put(kv->overlay, row.key, &added);
        node->value = row.value;
        node->gone = row.deleted;
        node->tag = kv->next_tag++;
        p->nodes[i] = node;
    }
}

/* Forget rows that LevelDB has. Not while an iterator stands on them. */
static void purge(store_kv *kv, uint64_t durable)
{
    if (kv->iterators > 0) {
        return;
    }
    while (kv->head != NULL && kv->head->ticket <= durable) {
        kv_pending *p = kv->head;
        for (size_t i = 0; i < p->count; i++) {
            if (p->nodes[i]->tag == p->first_tag + i) {
                store_omap_delete(kv->overlay, p->nodes[i]);
            }
        }
        kv->counts.queued_bytes -= p->rows.size;
        pthread_mutex_lock(&kv->lock);
        kv->head = p->next;
        if (kv->tail == p) {
            kv->tail = NULL;
        }
        pthread_mutex_unlock(&kv->lock);
        pending_recycle(kv, p);
    }
}

uint64_t store_kv_write(store_kv *kv, store_kv_batch *batch, bool sync)
{
    kv_pending *p = pending_new(kv, batch->count);
    mesh_buf rows = p->rows;
    p->rows = batch->rows;
    p->count = batch->count;
    batch->rows = rows;
    batch->count = 0;
    p->sync = sync;
    p->ticket = kv->next_ticket++;
    overlay_put(kv, p);
    kv->counts.batches++;
    kv->counts.rows += p->count;
    kv->counts.row_bytes += p->rows.size;
    kv->counts.queued_bytes += p->rows.size;

    pthread_mutex_lock(&kv->lock);
    bool was_idle = kv->todo == NULL;
    if (kv->tail != NULL) {
        kv->tail->next = p;
    } else {
        kv->head = p;
    }
    kv->tail = p;
    if (was_idle) {
        kv->todo = p;
    }
    kv->todo_bytes += p->rows.size;
    kv->todo_synced += sync;
    if (was_idle || sync || kv->todo_bytes >= KV_HOLD_BYTES) {
        pthread_cond_signal(&kv->wake);
    }
    pthread_mutex_unlock(&kv->lock);
    return p->ticket;
}

uint64_t store_kv_durable(store_kv *kv)
{
    pthread_mutex_lock(&kv->lock);
    uint64_t durable = kv->durable;
    pthread_mutex_unlock(&kv->lock);
    purge(kv, durable);
    return durable;
}

mesh_err store_kv_wait(store_kv *kv, uint64_t ticket)
{
    assert(ticket < kv->next_ticket);
    pthread_mutex_lock(&kv->lock);
    kv->hurry = true;
    pthread_cond_signal(&kv->wake);
    while (kv->durable < ticket && kv->error == MESH_OK) {
        pthread_cond_wait(&kv->progress, &kv->lock);
    }
    mesh_err err = kv->durable >= ticket ? MESH_OK : kv->error;
    pthread_mutex_unlock(&kv->lock);
    return err;
}

/* ---- reading ---- */

mesh_err store_kv_get(store_kv *kv, mesh_slice key, mesh_buf *out)
{
    mesh_buf_clear(out);
    const store_omap_node *node = store_omap_get(kv->overlay, key);
    if (node != NULL) {
        if (node->gone) {
            return MESH_NOT_FOUND;
        }
        mesh_buf_put(out, node->value.data, node->value.size);
        return MESH_OK;
    }
    char *message = NULL;
    size_t size = 0;
    char *value = leveldb_get(kv->base.db, kv->base.read, (const char *)key.data, key.size, &size, &message);
    if (message != NULL) {
        mesh_err err = store_kv_leveldb_take(message);
        store_kv_fail(kv, err);
        return err;
    }
    if (value == NULL) {
        return MESH_NOT_FOUND;
    }
    mesh_buf_put(out, value, size);
    leveldb_free(value);
    return MESH_OK;
}

/* ---- how it is ---- */

bool store_kv_full(const store_kv *kv)
{
    return kv->counts.queued_bytes > STORE_KV_QUEUE_MAX;
}

mesh_err store_kv_error(const store_kv *kv)
{
    pthread_mutex_t *lock = (pthread_mutex_t *)&kv->lock; /* const to the caller: what it sees does not change */
    pthread_mutex_lock(lock);
    mesh_err err = kv->error;
    pthread_mutex_unlock(lock);
    return err;
}

int store_kv_fd(store_kv *kv)
{
    return kv->fd;
}

void store_kv_fd_clear(store_kv *kv)
{
    uint64_t n;
    ssize_t got = read(kv->fd, &n, sizeof n);
    (void)got; /* EAGAIN: nothing to clear */
    (void)store_kv_durable(kv);
}

uint64_t store_kv_free_bytes(store_kv *kv)
{
    struct statvfs fs;
    return statvfs(kv->path, &fs) == 0 ? (uint64_t)fs.f_bavail * fs.f_frsize : 0;
}

store_kv_counts store_kv_counted(const store_kv *kv)
{
    store_kv_counts counts = kv->counts;
    pthread_mutex_t *lock = (pthread_mutex_t *)&kv->lock;
    pthread_mutex_lock(lock);
    counts.syncs = kv->syncs;
    pthread_mutex_unlock(lock);
    return counts;
}
