/* store/kv_quarantine.c: a database that is not to be trusted any more is moved away, never deleted and never read.
 *
 * The mark <path>.lost is on disk before anything moves, so whoever finds no database finds the mark. path itself moves
 * last: killed before that, the next open finds the same bad database again, and all begins anew. */
#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "store/kv_leveldb.h"

#define LOST ".lost"
#define QUARANTINE ".quarantine-"
#define SAME_STAMP_MAX 10

static mesh_err errno_error(void)
{
    return errno == ENOSPC || errno == EDQUOT ? MESH_NO_SPACE : MESH_IO;
}

/* Those of <path>.old are part of one. */
static bool is_quarantine(const char *name, const char *base)
{
    size_t n = strlen(base), q = strlen(QUARANTINE), size = strlen(name);
    return size > n + q && strncmp(name, base, n) == 0 && strncmp(name + n, QUARANTINE, q) == 0 &&
           (size < 4 || strcmp(name + size - 4, ".old") != 0);
}

static size_t count_quarantines(const char *path)
{
    char parent[STORE_KV_PATH];
    store_kv_path_beside(parent, path, "");
    char *slash = strrchr(parent, '/');
    const char *base = slash != NULL ? slash + 1 : path;
    size_t n = 0;
    DIR *dir = NULL;
    if (slash == NULL) {
        dir = opendir(".");
    } else {
        char name[STORE_KV_PATH];
        size_t size = slash == parent ? 1 : (size_t)(slash - parent);
        memcpy(name, parent, size);
        name[size] = '\0';
        dir = opendir(name);
    }
    for (const struct dirent *e; dir != NULL && (e = readdir(dir)) != NULL;) {
        n += is_quarantine(e->d_name, base);
    }
    if (dir != NULL) {
        closedir(dir);
    }
    return n;
}

static mesh_err mark_lost(const char *path)
{
    char name[STORE_KV_PATH];
    store_kv_path_beside(name, path, LOST);
    int fd = open(name, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    mesh_err err = fd < 0 || fsync(fd) != 0 ? errno_error() : MESH_OK;
    if (fd >= 0) {
        close(fd);
    }
    return err == MESH_OK ? store_kv_sync_parent(path) : err;
}

/* A name that nothing has: <path>.quarantine-<stamp>, or with -1, -2 ... behind it. */
static bool choose_name(const char *path, const char *stamp, char name[STORE_KV_PATH])
{
    for (int i = 0; i < SAME_STAMP_MAX; i++) {
        char number[16] = "";
        if (i > 0) {
            snprintf(number, sizeof number, "-%d", i);
        }
        int n = snprintf(name, STORE_KV_PATH, "%s" QUARANTINE "%s%s", path, stamp, number);
        if (n <= 0 || (size_t)n + sizeof ".old" > STORE_KV_PATH) {
            return false;
        }
        if (access(name, F_OK) != 0) {
            return true;
        }
    }
    return false;
}

static mesh_err move_away(const char *from, const char *to)
{
    return rename(from, to) == 0 || errno == ENOENT ? MESH_OK : errno_error();
}

mesh_err store_kv_quarantine(const char *path, const char *stamp, char *kept, size_t kept_size)
{
    char name[STORE_KV_PATH], old[STORE_KV_PATH], old_name[STORE_KV_PATH + sizeof ".old"];
    if (count_quarantines(path) >= STORE_QUARANTINES_MAX) {
        return MESH_FULL;
    }
    if (!choose_name(path, stamp, name)) {
        return MESH_IO;
    }
    mesh_err err = mark_lost(path);
    if (err == MESH_OK) {
        err = store_kv_incoming_discard(path);
    }
    if (err == MESH_OK) {
        store_kv_path_beside(old, path, ".old");
        snprintf(old_name, sizeof old_name, "%s.old", name);
        err = move_away(old, old_name);
    }
    if (err == MESH_OK) {
        err = move_away(path, name);
    }
    if (err == MESH_OK) {
        err = store_kv_sync_parent(path);
        snprintf(kept, kept_size, "%s", name);
    }
    return err;
}

bool store_kv_is_lost(const char *path)
{
    char name[STORE_KV_PATH];
    store_kv_path_beside(name, path, LOST);
    return access(name, F_OK) == 0;
}

mesh_err store_kv_regained(const char *path)
{
    char name[STORE_KV_PATH];
    store_kv_path_beside(name, path, LOST);
    return unlink(name) == 0 || errno == ENOENT ? store_kv_sync_parent(path) : MESH_IO;
}
