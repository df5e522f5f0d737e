/* store/kv_open.c: a LevelDB, opened the way every database of the store is. */
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "store/kv_leveldb.h"
#include "store/salvage.h"

#define KV_BLOOM_BITS 10

mesh_err store_kv_leveldb_error(const char *message)
{
    if (strstr(message, strerror(ENOSPC)) != NULL || strstr(message, strerror(EFBIG)) != NULL ||
        strstr(message, strerror(EDQUOT)) != NULL) {
        return MESH_NO_SPACE;
    }
    return strncmp(message, "Corruption", 10) == 0 ? MESH_CORRUPT : MESH_IO;
}

mesh_err store_kv_leveldb_take(char *message)
{
    if (message == NULL) {
        return MESH_OK;
    }
    mesh_err err = store_kv_leveldb_error(message);
    leveldb_free(message);
    return err;
}

static bool has_suffix(const char *name, const char *suffix)
{
    size_t n = strlen(name), s = strlen(suffix);
    return n > s && strcmp(name + n - s, suffix) == 0;
}

/* LevelDB takes a directory without CURRENT for a new database, whatever else is there; that would hide all data. The
 * rest of what it does not see is in store/salvage.h. Errors: MESH_CORRUPT. */
static mesh_err check_files(const char *path, char *why, size_t why_size)
{
    char name[STORE_KV_PATH];
    snprintf(name, sizeof name, "%s/CURRENT", path);
    if (access(name, F_OK) == 0) {
        return store_salvage_check_files(path, why, why_size);
    }
    DIR *dir = opendir(path);
    if (dir == NULL) {
        return MESH_OK; /* a new one; LevelDB says what is wrong otherwise */
    }
    mesh_err err = MESH_OK;
    for (struct dirent *e = readdir(dir); e != NULL && err == MESH_OK; e = readdir(dir)) {
        if (has_suffix(e->d_name, ".ldb") || has_suffix(e->d_name, ".sst") || has_suffix(e->d_name, ".log")) {
            snprintf(why, why_size, "%s/CURRENT is missing, %s is there", path, e->d_name);
            err = MESH_CORRUPT;
        }
    }
    closedir(dir);
    return err;
}

static void set_options(kv_database *base, const store_kv_options *options)
{
    base->options = leveldb_options_create();
    base->cache = leveldb_cache_create_lru((size_t)options->block_cache);
    base->bloom = leveldb_filterpolicy_create_bloom(KV_BLOOM_BITS);
    leveldb_options_set_create_if_missing(base->options, 1);
    leveldb_options_set_paranoid_checks(base->options, 1);
    leveldb_options_set_write_buffer_size(base->options, (size_t)options->write_buffer);
    leveldb_options_set_max_open_files(base->options, options->max_open_files);
    leveldb_options_set_cache(base->options, base->cache);
    leveldb_options_set_filter_policy(base->options, base->bloom);
    base->read = leveldb_readoptions_create();
    leveldb_readoptions_set_verify_checksums(base->read, 1);
    base->write = leveldb_writeoptions_create();
    leveldb_writeoptions_set_sync(base->write, 1);
}

mesh_err store_kv_database_open(kv_database *base, const char *path, const store_kv_options *options, char *why,
                                size_t why_size)
{
    *base = (kv_database){ 0 };
    mesh_err err = check_files(path, why, why_size);
    if (err != MESH_OK) {
        return err;
    }
    set_options(base, options);
    char *message = NULL;
    base->db = leveldb_open(base->options, path, &message);
    if (message != NULL) {
        err = store_kv_leveldb_error(message);
        if (err != MESH_CORRUPT || !store_salvage_find_bad(path, why, why_size)) {
            snprintf(why, why_size, "%s", message);
        }
        leveldb_free(message);
        store_kv_database_close(base);
    }
    return err;
}

void store_kv_database_close(kv_database *base)
{
    if (base->options == NULL) {
        return;
    }
    if (base->db != NULL) {
        leveldb_close(base->db);
    }
    leveldb_writeoptions_destroy(base->write);
    leveldb_readoptions_destroy(base->read);
    leveldb_options_destroy(base->options);
    leveldb_filterpolicy_destroy(base->bloom);
    leveldb_cache_destroy(base->cache);
    *base = (kv_database){ 0 };
}
