/* The store of the bare parts: a loop, a writer thread, LevelDB. What the loop gathered in a turn is one log row,
 * synced; the rows it means are written with the next synced batch. */
#include <errno.h>
#include <leveldb/c.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>
#include <zmq.h>

#include "mesh/alloc.h"
#include "tests/bench/bare.h"

#define DRAIN_FRAMES 256
#define TRIM_EVERY 128
#define APPLIED_SIZE 16 /* of the value of the applied row */

typedef struct group { /* one log entry, or the rows of one */
    struct group *next;
    leveldb_writebatch_t *batch;
    mesh_buf records; /* of a log entry: what to apply when it is on disk */
    int sync;
} group;

typedef struct store {
    void *router;
    const bare_conf *conf;
    leveldb_t *db;
    mesh_buf gather, frame, out;
    uint64_t index, applied;
    uint64_t *seq, *inbox, *trimmed; /* per pair */
    group *rows;                     /* being filled */
    pthread_mutex_t lock;
    pthread_cond_t wake;
    group *todo, **todo_last;
    unsigned todo_synced;
    group *done, **done_last; /* log entries that are on disk */
    int fd;
} store;

static void put(store *s, group *g, mesh_slice key, const void *value, size_t n)
{
    leveldb_writebatch_put(g->batch, (const char *)key.data, key.size, value, n);
    atomic_fetch_add_explicit(&s->conf->shared->rows, 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&s->conf->shared->row_bytes, key.size + n, memory_order_relaxed);
}

static void drop(store *s, group *g, mesh_slice key)
{
    leveldb_writebatch_delete(g->batch, (const char *)key.data, key.size);
    atomic_fetch_add_explicit(&s->conf->shared->rows, 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&s->conf->shared->row_bytes, key.size, memory_order_relaxed);
}

static group *group_new(int sync)
{
    group *g = mesh_alloc(sizeof *g);
    g->batch = leveldb_writebatch_create();
    g->sync = sync;
    return g;
}

static void group_destroy(group *g)
{
    leveldb_writebatch_destroy(g->batch);
    mesh_buf_fini(&g->records);
    free(g);
}

/* ---- the writer thread ---- */

static group *take_todo(store *s)
{
    pthread_mutex_lock(&s->lock);
    while (s->todo_synced == 0) {
        pthread_cond_wait(&s->wake, &s->lock);
    }
    group *first = s->todo;
    s->todo = NULL;
    s->todo_last = &s->todo;
    s->todo_synced = 0;
    pthread_mutex_unlock(&s->lock);
    return first;
}

static void *writer(void *arg)
{
    store *s = arg;
    leveldb_writeoptions_t *synced = leveldb_writeoptions_create();
    leveldb_writeoptions_set_sync(synced, 1);
    leveldb_writebatch_t *all = leveldb_writebatch_create();
    for (;;) {
        group *first = take_todo(s);
        leveldb_writebatch_clear(all);
        for (group *g = first; g != NULL; g = g->next) {
            leveldb_writebatch_append(all, g->batch);
        }
        char *message = NULL;
        leveldb_write(s->db, synced, all, &message);
        bare_check(message == NULL, message);
        atomic_fetch_add(&s->conf->shared->syncs, 1);
        pthread_mutex_lock(&s->lock);
        while (first != NULL) {
            group *g = first;
            first = g->next;
            g->next = NULL;
            if (g->sync) {
                *s->done_last = g;
                s->done_last = &g->next;
            } else {
                group_destroy(g);
            }
        }
        pthread_mutex_unlock(&s->lock);
        uint64_t one = 1;
        bare_check(write(s->fd, &one, sizeof one) == sizeof one, "eventfd");
    }
    return NULL;
}

static void submit(store *s, group *g)
{
    pthread_mutex_lock(&s->lock);
    *s->todo_last = g;
    s->todo_last = &g->next;
    s->todo_synced += (unsigned)g->sync;
    if (g->sync) {
        pthread_cond_signal(&s->wake);
    }
    pthread_mutex_unlock(&s->lock);
}

/* ---- keys ---- */

static mesh_slice key(mesh_buf *k, char table, const char *id, const char *id2, uint64_t number)
{
    mesh_buf_clear(k);
    mesh_buf_put(k, &table, 1);
    mesh_buf_puts(k, id);
    if (id2 != NULL) {
        mesh_buf_put(k, "", 1);
        mesh_buf_puts(k, id2);
    }
    if (number != 0) {
        uint8_t be[8];
        mesh_put_u64be(be, number);
        mesh_buf_put(k, "", 1);
        mesh_buf_put(k, be, sizeof be);
    }
    return mesh_buf_slice(k);
}

typedef struct names {
    char chat[64], user[2][32], request[40];
} names;

static names names_of(uint32_t pair, uint32_t n)
{
    names out;
    uint32_t spread = pair * 2654435761u; /* chats' ids are hashes */
    (void)snprintf(out.chat, sizeof out.chat, "default/d:%08xabcdefghijklmnopqrstuvwx", spread);
    for (unsigned i = 0; i < 2; i++) {
        (void)snprintf(out.user[i], sizeof out.user[i], "default/u%05u", 2 * pair + i);
    }
    (void)snprintf(out.request, sizeof out.request, "%08xabcdefgh%08xabcdefgh", n * 2654435761u, pair);
    return out;
}

/* ---- applying ---- */

static void put_inboxes(store *s, group *g, const bare_record *r, mesh_buf *k)
{
    names id = names_of(r->pair, r->n);
    uint64_t seq = ++s->inbox[r->pair];
    const char *filler = bare_filler() + (r->pair * 64 + r->n) % 2048;
    for (unsigned i = 0; i < 2; i++) {
        put(s, g, key(k, 'i', id.user[i], NULL, seq), filler, 194);
        put(s, g, key(k, 'u', id.user[i], id.chat, 0), filler, 8);
    }
}

static void apply_send(store *s, group *g, const bare_record *r, mesh_buf *k)
{
    names id = names_of(r->pair, r->n);
    uint64_t seq = ++s->seq[r->pair];
    const char *filler = bare_filler() + (r->pair * 64 + r->n) % 2048;
    put(s, g, key(k, 'm', id.chat, NULL, seq), filler, 150);
    char dedupe[160];
    (void)snprintf(dedupe, sizeof dedupe, "%s%c%s", id.user[0], 1, id.request);
    put(s, g, key(k, 'd', id.chat, dedupe, 0), filler, 12);
    if (s->conf->commits == 1) {
        put_inboxes(s, g, r, k);
    }
    bare_put(&s->out, BARE_MESH_SENT, r->pair, r->n);
    bare_put(&s->out, BARE_DELIVER, r->pair, r->n);
}

static void apply_append(store *s, group *g, const bare_record *r, mesh_buf *k)
{
    put_inboxes(s, g, r, k);
    bare_put(&s->out, BARE_APPENDED, r->pair, r->n);
}

static void apply_ack(store *s, group *g, const bare_record *r, mesh_buf *k)
{
    names id = names_of(r->pair, r->n);
    put(s, g, key(k, 'v', id.user[1], "device1", 0), bare_filler(), 16);
    /* what every device has goes, in portions */
    for (; s->trimmed[r->pair] + TRIM_EVERY <= r->n; s->trimmed[r->pair] += TRIM_EVERY) {
        for (unsigned i = 0; i < 2; i++) {
            for (uint64_t seq = 1; seq <= TRIM_EVERY; seq++) {
                drop(s, g, key(k, 'i', id.user[i], NULL, s->trimmed[r->pair] + seq));
            }
        }
    }
}

static void apply(store *s, const mesh_buf *records)
{
    static mesh_buf k;
    group *g = group_new(0);
    size_t at = 0;
    const bare_record *r;
    size_t owed = 0, delivered = 0;
    s->applied++;
    while ((r = bare_next(records, &at)) != NULL) {
        switch (r->kind) {
        case BARE_MESH_SEND:
            apply_send(s, g, r, &k);
            owed++;
            break;
        case BARE_APPEND:
            apply_append(s, g, r, &k);
            break;
        case BARE_MESH_ACK:
            apply_ack(s, g, r, &k);
            break;
        default:
            delivered++;
            break;
        }
    }
    if (owed > 0) {
        char value[64 * 1024];
        size_t n = owed * 50 < sizeof value ? owed * 50 : sizeof value; /* chat and seq of each */
        memset(value, 'o', n);
        put(s, g, key(&k, 'o', "", NULL, s->applied), value, n);
    }
    if (delivered > 0) {
        drop(s, g, key(&k, 'o', "", NULL, s->applied > 2 ? s->applied - 2 : 1));
    }
    put(s, g, (mesh_slice){ (const uint8_t *)"\0A", 2 }, bare_filler(), APPLIED_SIZE);
    submit(s, g);
}

static void commit_gathered(store *s)
{
    if (s->gather.size == 0) {
        return;
    }
    static mesh_buf k;
    group *g = group_new(1);
    g->records = s->gather;
    s->gather = (mesh_buf){ 0 };
    mesh_buf_clear(&k);
    mesh_buf_put(&k, "\0L", 2);
    uint8_t be[8];
    mesh_put_u64be(be, ++s->index);
    mesh_buf_put(&k, be, sizeof be);
    put(s, g, mesh_buf_slice(&k), g->records.data, g->records.size);
    submit(s, g);
}

static void take_done(store *s)
{
    uint64_t n;
    ssize_t got = read(s->fd, &n, sizeof n);
    (void)got;
    pthread_mutex_lock(&s->lock);
    group *done = s->done;
    s->done = NULL;
    s->done_last = &s->done;
    pthread_mutex_unlock(&s->lock);
    while (done != NULL) {
        group *g = done;
        done = g->next;
        apply(s, &g->records);
        group_destroy(g);
    }
}

static leveldb_t *open_database(const char *path)
{
    leveldb_options_t *options = leveldb_options_create(); /* as the store's: store/kv.c */
    leveldb_options_set_create_if_missing(options, 1);
    leveldb_options_set_paranoid_checks(options, 1);
    leveldb_options_set_write_buffer_size(options, 64u << 20);
    leveldb_options_set_max_open_files(options, 1000);
    leveldb_options_set_cache(options, leveldb_cache_create_lru(128u << 20));
    leveldb_options_set_filter_policy(options, leveldb_filterpolicy_create_bloom(10));
    char *message = NULL;
    leveldb_t *db = leveldb_open(options, path, &message);
    bare_check(message == NULL, message);
    return db;
}

void bare_store(const bare_conf *conf)
{
    char path[160];
    (void)snprintf(path, sizeof path, "%s/db", conf->dir);
    store s = { .conf = conf, .db = open_database(path), .fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC) };
    s.seq = mesh_alloc(conf->pairs * sizeof *s.seq);
    s.inbox = mesh_alloc(conf->pairs * sizeof *s.inbox);
    s.trimmed = mesh_alloc(conf->pairs * sizeof *s.trimmed);
    s.todo_last = &s.todo;
    s.done_last = &s.done;
    pthread_mutex_init(&s.lock, NULL);
    pthread_cond_init(&s.wake, NULL);
    pthread_t thread;
    bare_check(pthread_create(&thread, NULL, writer, &s) == 0, "thread");
    s.router = bare_listen(zmq_ctx_new(), conf->store, &conf->store_key);
    for (;;) {
        zmq_pollitem_t items[2] = { { .socket = s.router, .events = ZMQ_POLLIN },
                                    { .fd = s.fd, .events = ZMQ_POLLIN } };
        bare_check(zmq_poll(items, 2, -1) >= 0 || errno == EINTR, "poll");
        char from[8];
        for (int i = 0; i < DRAIN_FRAMES && bare_receive(s.router, from, &s.frame); i++) {
            mesh_buf_put(&s.gather, s.frame.data, s.frame.size);
        }
        if ((items[1].revents & ZMQ_POLLIN) != 0) {
            take_done(&s);
        }
        commit_gathered(&s);
        if (s.out.size > 0) {
            bare_send(s.router, "r0", &s.out);
        }
    }
}
