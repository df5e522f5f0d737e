/* store/backup.h: a backup of a cluster: a directory with a database per shard, shard-0, shard-1 ..., and the file
 * "manifest", which is written last: without it the directory is no backup. The databases hold a shard's rows as the
 * state transfer gives them (store/transfer.h): the applied row and all tables, nothing of consensus.
 *
 * The manifest is lines of a word and what belongs to it:
 *   parley-backup 1
 *   version 0.1.0                    of the program that made it
 *   time 2030-01-31T12:00:00Z        when it was finished
 *   cluster, hash_key, tenants       of the cluster's config: rows can only be found with the same hash key
 *   data_format 2                    of keys and rows
 *   shards 2                         of the cluster
 *   shard 0 index 1234 era 0123456789abcdef rows 99 bytes 9999 digest <64 hex>     each shard that is in it
 *   end <64 hex>                     BLAKE2b of all lines before */
#ifndef STORE_BACKUP_H
#define STORE_BACKUP_H

#include "mesh/conf.h"
#include "store/kv.h"

#define STORE_BACKUP_FORMAT 1
#define STORE_BACKUP_DIGEST 32
#define STORE_BACKUP_PATH 4096
#define STORE_BACKUP_MANIFEST_MAX (1024 * 1024)

typedef struct store_backup_shard {
    bool there;     /* it is in the backup */
    uint64_t index; /* of the log: what the rows stand for */
    uint64_t era;   /* when it was made */
    uint64_t rows, bytes;
    uint8_t digest[STORE_BACKUP_DIGEST]; /* BLAKE2b of all rows, in order, in the form of store/kv_rows.h */
} store_backup_shard;

typedef struct store_backup {
    char *version, *time, *cluster, *hash_key, *tenants;
    unsigned data_format;
    size_t n_shards;
    store_backup_shard *shards;
} store_backup;

/* Of conf's cluster, with no shard in it yet. */
store_backup *store_backup_new(const mesh_conf *conf);
void store_backup_destroy(store_backup **backup_p);

/* dir/shard-N, where a shard's database is. Returns out. */
char *store_backup_path(char out[STORE_BACKUP_PATH], const char *dir, size_t shard);
/* Open the database of a shard. Errors: MESH_NOT_FOUND; as store_kv_open. why says more. */
MESH_MUST mesh_err store_backup_open(const char *dir, size_t shard, store_kv **kv_p, char *why, size_t why_size);
/* Read all of it, with all its checksums, and say what it holds. Errors: as open; MESH_CORRUPT no store's rows. */
MESH_MUST mesh_err store_backup_read(const char *dir, size_t shard, store_backup_shard *found, char *why,
                                     size_t why_size);
/* Read everything, and compare. Errors: as read; MESH_CORRUPT it is not what the manifest says. */
MESH_MUST mesh_err store_backup_check(const store_backup *backup, const char *dir, char *why, size_t why_size);

/* Write the manifest: whole or not at all. Errors: MESH_IO. */
MESH_MUST mesh_err store_backup_save(const store_backup *backup, const char *dir, char *why, size_t why_size);
bool store_backup_is_saved(const char *dir);
/* Errors: MESH_NOT_FOUND no manifest: no backup; MESH_MALFORMED cut off or changed; MESH_UNSUPPORTED of another
 * version's format; MESH_IO. */
MESH_MUST mesh_err store_backup_load(const char *dir, store_backup **backup_p, char *why, size_t why_size);

#endif
