/* store/kv_leveldb.h: what kv.c and kv_iter.c share. Internal to them. */
#ifndef STORE_KV_LEVELDB_H
#define STORE_KV_LEVELDB_H

#include <leveldb/c.h>
#include <pthread.h>

#include "store/kv_batch.h"
#include "store/omap.h"

typedef struct kv_pending { /* one queued batch */
    struct kv_pending *next;
    mesh_buf rows; /* the overlay's nodes borrow keys and values from here */
    size_t count;
    store_omap_node **nodes; /* of each row, in order */
    size_t nodes_cap;
    uint64_t first_tag; /* row i has tag first_tag + i; a node with another tag belongs to a later row */
    uint64_t ticket;
    bool sync;
} kv_pending;

struct store_kv {
    /* the loop thread's own */
    char *path;
    leveldb_t *db;
    leveldb_options_t *options;
    leveldb_cache_t *cache;
    leveldb_filterpolicy_t *bloom;
    leveldb_readoptions_t *read;
    store_omap *overlay;
    kv_pending *head; /* oldest batch the overlay still shows; freed only by the loop thread */
    kv_pending *spare;
    unsigned spares, iterators;
    uint64_t next_ticket, next_tag;
    store_kv_counts counts; /* without syncs */
    int fd;
    pthread_t writer;
    /* the writer's own */
    leveldb_writeoptions_t *write;
    leveldb_writebatch_t *group;
    /* shared, under lock */
    pthread_mutex_t lock;
    pthread_cond_t wake;     /* to the writer */
    pthread_cond_t progress; /* from the writer: durable or error moved */
    kv_pending *tail;
    kv_pending *todo; /* first batch not taken by the writer */
    size_t todo_bytes;
    unsigned todo_synced; /* batches from todo on that asked for sync */
    bool closing, hurry;
    uint64_t durable;
    uint64_t syncs;
    mesh_err error;
};

mesh_err store_kv_leveldb_error(const char *message);
/* Make err the handle's, unless it has one. */
void store_kv_fail(store_kv *kv, mesh_err err);

#endif
