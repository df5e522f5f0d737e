/* store/kv_leveldb.h: what kv.c, kv_iter.c, kv_open.c, kv_view.c, kv_incoming.c and kv_switch.c share. Internal. */
#ifndef STORE_KV_LEVELDB_H
#define STORE_KV_LEVELDB_H

#include <leveldb/c.h>
#include <pthread.h>

#include "store/kv_batch.h"
#include "store/omap.h"

#define STORE_KV_PATH 4096

typedef struct kv_database { /* a LevelDB and what it needs while it is open */
    leveldb_t *db;
    leveldb_options_t *options;
    leveldb_cache_t *cache;
    leveldb_filterpolicy_t *bloom;
    leveldb_readoptions_t *read;   /* checksums verified */
    leveldb_writeoptions_t *write; /* synced */
} kv_database;

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
    kv_database base; /* its write options are the writer's */
    store_omap *overlay;
    kv_pending *head; /* oldest batch the overlay still shows; freed only by the loop thread */
    kv_pending *spare;
    unsigned spares, iterators, views;
    uint64_t next_ticket, next_tag;
    store_kv_counts counts; /* without syncs */
    int fd;
    pthread_t writer;
    /* the writer's own */
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

/* Open or create, after a look at its files (store/salvage.h). On error everything is closed again.
 * Errors: MESH_CORRUPT, MESH_IO, MESH_NO_SPACE. */
MESH_MUST mesh_err store_kv_database_open(kv_database *base, const char *path, const store_kv_options *options,
                                          char *why, size_t why_size);
void store_kv_database_close(kv_database *base); /* also when it is closed already */
mesh_err store_kv_leveldb_error(const char *message);
/* The same of a message that LevelDB gave away, which is freed; NULL: MESH_OK. */
mesh_err store_kv_leveldb_take(char *message);
/* Settle a switch that was cut off, before path is opened. Errors: as store_kv_open. */
MESH_MUST mesh_err store_kv_settle(const char *path, char *why, size_t why_size);
/* Mark <path>.incoming, which is closed, as finished; all of it is on disk. Errors: MESH_IO, MESH_NO_SPACE. */
MESH_MUST mesh_err store_kv_mark_finished(const char *path);
bool store_kv_is_finished(const char *path);
/* The directory that path stands in. Errors: MESH_IO, MESH_NO_SPACE. */
MESH_MUST mesh_err store_kv_sync_parent(const char *path);
void store_kv_path_beside(char out[STORE_KV_PATH], const char *path, const char *suffix);
/* Make err the handle's, unless it has one. */
void store_kv_fail(store_kv *kv, mesh_err err);

#endif
