#include "store/backup.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "mesh/alloc.h"
#include "mesh/clock.h"
#include "mesh/version.h"
#include "mesh/wire.h"
#include "store.pb-c.h"
#include "store/consensus_log.h"
#include "store/key.h"
#include "store/kv_rows.h"

#define READ_BYTES (1024u * 1024)
#define HEX (2 * STORE_BACKUP_DIGEST + 1)

/* ---- life ---- */

store_backup *store_backup_new(const mesh_conf *conf)
{
    store_backup *backup = mesh_alloc(sizeof *backup);
    backup->version = mesh_strdup(MESH_VERSION);
    backup->time = mesh_strdup("");
    backup->cluster = mesh_strdup(mesh_conf_str(conf, "cluster.name"));
    backup->hash_key = mesh_strdup(mesh_conf_str(conf, "cluster.hash_key"));
    backup->tenants = mesh_strdup(mesh_conf_str(conf, "cluster.tenants"));
    backup->data_format = STORE_FORMAT;
    backup->n_shards = mesh_conf_shards(conf);
    backup->shards = mesh_alloc(backup->n_shards * sizeof *backup->shards + 1);
    return backup;
}

void store_backup_destroy(store_backup **backup_p)
{
    store_backup *backup = *backup_p;
    if (backup != NULL) {
        free(backup->version);
        free(backup->time);
        free(backup->cluster);
        free(backup->hash_key);
        free(backup->tenants);
        free(backup->shards);
        free(backup);
        *backup_p = NULL;
    }
}

/* ---- databases ---- */

char *store_backup_path(char out[STORE_BACKUP_PATH], const char *dir, size_t shard)
{
    int n = snprintf(out, STORE_BACKUP_PATH, "%s/shard-%zu", dir, shard);
    assert(n > 0 && n < STORE_BACKUP_PATH);
    return out;
}

mesh_err store_backup_open(const char *dir, size_t shard, store_kv **kv_p, char *why, size_t why_size)
{
    char path[STORE_BACKUP_PATH], file[STORE_BACKUP_PATH + 16];
    store_kv_options options = { .write_buffer = 4u << 20, .block_cache = 16u << 20, .max_open_files = 500 };
    store_backup_path(path, dir, shard);
    snprintf(file, sizeof file, "%s/CURRENT", path);
    if (access(file, F_OK) != 0) { /* opening would make a new one */
        snprintf(why, why_size, "%s holds no database", path);
        return MESH_NOT_FOUND;
    }
    return store_kv_open(path, &options, kv_p, why, why_size);
}

static mesh_err read_era(store_kv_view *view, store_backup_shard *found)
{
    store_key key;
    ProtobufCMessage *row;
    mesh_buf value = { 0 };
    mesh_arena *arena = mesh_arena_new();
    store_key_shard(&key);
    mesh_err err = store_kv_view_get(view, store_key_slice(&key), &value);
    if (err == MESH_OK) {
        err = mesh_wire_unpack(&store__shard_row__descriptor, mesh_buf_slice(&value), arena, &row);
        found->era = err == MESH_OK ? ((const Store__ShardRow *)row)->era : 0;
    }
    store_key_applied(&key);
    err = err == MESH_OK ? store_kv_view_get(view, store_key_slice(&key), &value) : err;
    if (err == MESH_OK) {
        err = mesh_wire_unpack(&store__applied_row__descriptor, mesh_buf_slice(&value), arena, &row);
        found->index = err == MESH_OK ? ((const Store__AppliedRow *)row)->index : 0;
    }
    mesh_arena_destroy(&arena);
    mesh_buf_fini(&value);
    return err == MESH_NOT_FOUND || err == MESH_MALFORMED || (err == MESH_OK && found->index == 0) ? MESH_CORRUPT : err;
}

static mesh_err read_rows(store_kv_view *view, store_backup_shard *found)
{
    crypto_generichash_state state;
    mesh_buf rows = { 0 }, last = { 0 };
    bool end = false;
    mesh_err err = MESH_OK;
    (void)crypto_generichash_init(&state, NULL, 0, STORE_BACKUP_DIGEST);
    while (err == MESH_OK && !end) {
        mesh_buf_clear(&rows);
        err = store_kv_view_read(view, mesh_buf_slice(&last), READ_BYTES, &rows, &end);
        mesh_slice rest = mesh_buf_slice(&rows), key = { NULL, 0 }, value;
        while (err == MESH_OK && store_kv_rows_next(&rest, &key, &value) == MESH_OK) {
            found->rows++;
        }
        if (err == MESH_OK && key.size > 0) {
            mesh_buf_clear(&last);
            mesh_buf_put(&last, key.data, key.size);
        }
        (void)crypto_generichash_update(&state, rows.data, rows.size);
        found->bytes += rows.size;
    }
    (void)crypto_generichash_final(&state, found->digest, STORE_BACKUP_DIGEST);
    mesh_buf_fini(&rows);
    mesh_buf_fini(&last);
    return err;
}

mesh_err store_backup_read(const char *dir, size_t shard, store_backup_shard *found, char *why, size_t why_size)
{
    store_kv *kv = NULL;
    *found = (store_backup_shard){ .there = true };
    mesh_err err = store_backup_open(dir, shard, &kv, why, why_size);
    if (err != MESH_OK) {
        return err;
    }
    store_kv_view *view = store_kv_view_new(kv);
    err = read_era(view, found);
    err = err == MESH_OK ? read_rows(view, found) : err;
    if (err != MESH_OK) {
        snprintf(why, why_size, "%s/shard-%zu cannot be read: %s", dir, shard, mesh_err_name(err));
    }
    store_kv_view_destroy(&view);
    store_kv_close(&kv);
    return err;
}

mesh_err store_backup_check(const store_backup *backup, const char *dir, char *why, size_t why_size)
{
    mesh_err err = MESH_OK;
    for (size_t i = 0; i < backup->n_shards && err == MESH_OK; i++) {
        const store_backup_shard *want = &backup->shards[i];
        store_backup_shard found;
        if (!want->there) {
            continue;
        }
        err = store_backup_read(dir, i, &found, why, why_size);
        if (err == MESH_OK &&
            (found.rows != want->rows || found.bytes != want->bytes || found.index != want->index ||
             found.era != want->era || memcmp(found.digest, want->digest, sizeof found.digest) != 0)) {
            snprintf(why, why_size, "%s/shard-%zu is not what the manifest says: %" PRIu64 " of %" PRIu64 " rows", dir,
                     i, found.rows, want->rows);
            err = MESH_CORRUPT;
        }
    }
    return err;
}

/* ---- the manifest ---- */

static void manifest_path(char out[STORE_BACKUP_PATH], const char *dir, const char *suffix)
{
    int n = snprintf(out, STORE_BACKUP_PATH, "%s/manifest%s", dir, suffix);
    assert(n > 0 && n < STORE_BACKUP_PATH);
}

static void sum_of(mesh_slice text, char hex[HEX])
{
    uint8_t sum[STORE_BACKUP_DIGEST];
    (void)crypto_generichash(sum, sizeof sum, text.data, text.size, NULL, 0);
    sodium_bin2hex(hex, HEX, sum, sizeof sum);
}

static void print_manifest(const store_backup *backup, mesh_buf *text)
{
    char hex[HEX], at[32];
    time_t seconds = (time_t)(mesh_clock_now().wall / 1000);
    struct tm tm;
    (void)strftime(at, sizeof at, "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&seconds, &tm));
    mesh_buf_printf(text, "parley-backup %d\nversion %s\ntime %s\n", STORE_BACKUP_FORMAT, backup->version, at);
    mesh_buf_printf(text, "cluster %s\nhash_key %s\ntenants %s\n", backup->cluster, backup->hash_key, backup->tenants);
    mesh_buf_printf(text, "data_format %u\nshards %zu\n", backup->data_format, backup->n_shards);
    for (size_t i = 0; i < backup->n_shards; i++) {
        const store_backup_shard *s = &backup->shards[i];
        if (s->there) {
            sodium_bin2hex(hex, sizeof hex, s->digest, sizeof s->digest);
            mesh_buf_printf(
                text, "shard %zu index %" PRIu64 " era %016" PRIx64 " rows %" PRIu64 " bytes %" PRIu64 " digest %s\n",
                i, s->index, s->era, s->rows, s->bytes, hex);
        }
    }
    sum_of(mesh_buf_slice(text), hex);
    mesh_buf_printf(text, "end %s\n", hex);
}

static bool sync_dir(const char *dir)
{
    int fd = open(dir, O_RDONLY | O_CLOEXEC);
    bool ok = fd >= 0 && fsync(fd) == 0;
    if (fd >= 0) {
        close(fd);
    }
    return ok;
}

mesh_err store_backup_save(const store_backup *backup, const char *dir, char *why, size_t why_size)
{
    char draft[STORE_BACKUP_PATH], path[STORE_BACKUP_PATH];
    mesh_buf text = { 0 };
    print_manifest(backup, &text);
    manifest_path(draft, dir, ".new");
    manifest_path(path, dir, "");
    int fd = open(draft, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    bool ok = fd >= 0 && write(fd, text.data, text.size) == (ssize_t)text.size && fsync(fd) == 0;
    if (fd >= 0) {
        ok = close(fd) == 0 && ok;
    }
    ok = ok && rename(draft, path) == 0 && sync_dir(dir);
    if (!ok) {
        snprintf(why, why_size, "%s: %s", path, strerror(errno));
    }
    mesh_buf_fini(&text);
    return ok ? MESH_OK : MESH_IO;
}

bool store_backup_is_saved(const char *dir)
{
    char path[STORE_BACKUP_PATH];
    manifest_path(path, dir, "");
    return access(path, F_OK) == 0;
}

/* Text of the file, with a NUL behind it. Errors: MESH_NOT_FOUND, MESH_IO, MESH_MALFORMED it is too long. */
static mesh_err read_manifest(const char *path, mesh_buf *text)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return errno == ENOENT || errno == ENOTDIR ? MESH_NOT_FOUND : MESH_IO;
    }
    ssize_t n;
    do {
        n = read(fd, mesh_buf_grow(text, 4096), 4096);
        text->size -= 4096 - (n > 0 ? (size_t)n : 0);
    } while (n > 0 && text->size <= STORE_BACKUP_MANIFEST_MAX);
    close(fd);
    mesh_buf_put(text, "", 1);
    return n < 0 ? MESH_IO : n > 0 ? MESH_MALFORMED : MESH_OK;
}

/* Cut the last line off, if it is the right end of what stands before. */
static bool take_end(char *text)
{
    char hex[HEX], want[HEX];
    char *end = strstr(text, "\nend ");
    if (end == NULL || sscanf(end, "\nend %64[0-9a-f]", want) != 1 ||
        strcmp(end + 5 + 2 * STORE_BACKUP_DIGEST, "\n") != 0) {
        return false;
    }
    end[1] = '\0';
    sum_of((mesh_slice){ (const uint8_t *)text, strlen(text) }, hex);
    return strcmp(hex, want) == 0;
}

static bool take_shard(store_backup *backup, const char *rest)
{
    size_t i;
    char hex[HEX];
    store_backup_shard s = { .there = true };
    if (sscanf(rest, "%zu index %" SCNu64 " era %" SCNx64 " rows %" SCNu64 " bytes %" SCNu64 " digest %64[0-9a-f]", &i,
               &s.index, &s.era, &s.rows, &s.bytes, hex) != 6 ||
        i >= backup->n_shards || backup->shards[i].there ||
        sodium_hex2bin(s.digest, sizeof s.digest, hex, strlen(hex), NULL, NULL, NULL) != 0) {
        return false;
    }
    backup->shards[i] = s;
    return true;
}

static bool take_shards(store_backup *backup, const char *rest)
{
    size_t n = strtoul(rest, NULL, 10);
    if (n == 0 || n > MESH_SLOTS || backup->shards != NULL) {
        return false;
    }
    backup->n_shards = n;
    backup->shards = mesh_alloc(n * sizeof *backup->shards);
    return true;
}

/* A line without its newline. What is not known is of a later version and does not matter here. */
static bool take_line(store_backup *backup, char *line)
{
    char *rest = strchr(line, ' ');
    if (rest == NULL) {
        return false;
    }
    *rest++ = '\0';
    const struct {
        const char *word;
        char **to;
    } texts[] = { { "version", &backup->version },
                  { "time", &backup->time },
                  { "cluster", &backup->cluster },
                  { "hash_key", &backup->hash_key },
                  { "tenants", &backup->tenants } };
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        if (strcmp(line, texts[i].word) == 0) {
            free(*texts[i].to);
            *texts[i].to = mesh_strdup(rest);
            return true;
        }
    }
    if (strcmp(line, "data_format") == 0) {
        backup->data_format = (unsigned)strtoul(rest, NULL, 10);
    } else if (strcmp(line, "shards") == 0) {
        return take_shards(backup, rest);
    } else if (strcmp(line, "shard") == 0) {
        return take_shard(backup, rest);
    }
    return true;
}

static mesh_err parse(store_backup *backup, char *text)
{
    unsigned format;
    if (sscanf(text, "parley-backup %u\n", &format) != 1) {
        return MESH_MALFORMED;
    }
    if (format != STORE_BACKUP_FORMAT) {
        return MESH_UNSUPPORTED;
    }
    if (!take_end(text)) {
        return MESH_MALFORMED;
    }
    char *state = NULL;
    bool ok = true;
    for (char *line = strtok_r(text, "\n", &state); ok && line != NULL; line = strtok_r(NULL, "\n", &state)) {
        ok = take_line(backup, line);
    }
    ok = ok && backup->shards != NULL && backup->cluster != NULL && backup->hash_key != NULL &&
         backup->tenants != NULL && backup->version != NULL && backup->time != NULL;
    return ok ? MESH_OK : MESH_MALFORMED;
}

mesh_err store_backup_load(const char *dir, store_backup **backup_p, char *why, size_t why_size)
{
    char path[STORE_BACKUP_PATH];
    mesh_buf text = { 0 };
    store_backup *backup = mesh_alloc(sizeof *backup);
    manifest_path(path, dir, "");
    mesh_err err = read_manifest(path, &text);
    err = err == MESH_OK ? parse(backup, (char *)text.data) : err;
    mesh_buf_fini(&text);
    if (err != MESH_OK) {
        snprintf(why, why_size, "%s %s", path,
                 err == MESH_NOT_FOUND     ? "is not there: no backup, or one that was not finished"
                 : err == MESH_UNSUPPORTED ? "is of a format that this program does not know"
                 : err == MESH_MALFORMED   ? "is not as it was written"
                                           : "cannot be read");
        store_backup_destroy(&backup);
        return err;
    }
    *backup_p = backup;
    return MESH_OK;
}
