/* store/kv_switch.c: the directories of a database and of the ones beside it, and how one takes the other's place. What
 * to do is decided in store/kv_plan.c; here it is looked and done.
 *
 * An incoming database is finished when the file FINISHED is in it. The file goes along when the directory is renamed,
 * and is the first to go when it is deleted, so that half of a database is never taken for a whole one. */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "store/kv_leveldb.h"
#include "store/kv_plan.h"
#include "store/salvage.h"

#define FINISHED ".incoming/FINISHED"
#define DELETE_FDS 16

static mesh_err errno_error(void)
{
    return errno == ENOSPC || errno == EDQUOT ? MESH_NO_SPACE : MESH_IO;
}

void store_kv_path_beside(char out[STORE_KV_PATH], const char *path, const char *suffix)
{
    int n = snprintf(out, STORE_KV_PATH, "%s%s", path, suffix);
    assert(n > 0 && n < STORE_KV_PATH);
}

static bool is_there(const char *path, const char *suffix)
{
    char name[STORE_KV_PATH];
    store_kv_path_beside(name, path, suffix);
    return access(name, F_OK) == 0;
}

bool store_kv_is_finished(const char *path)
{
    return is_there(path, FINISHED);
}

static mesh_err sync_path(const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    mesh_err err = fd < 0 || fsync(fd) != 0 ? errno_error() : MESH_OK;
    if (fd >= 0) {
        close(fd);
    }
    return err;
}

/* The directory that path stands in. */
mesh_err store_kv_sync_parent(const char *path)
{
    char parent[STORE_KV_PATH];
    store_kv_path_beside(parent, path, "");
    char *slash = strrchr(parent, '/');
    if (slash == NULL) {
        return sync_path(".");
    }
    slash[slash == parent ? 1 : 0] = '\0';
    return sync_path(parent);
}

mesh_err store_kv_mark_finished(const char *path)
{
    char name[STORE_KV_PATH];
    store_kv_path_beside(name, path, FINISHED);
    int fd = open(name, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    mesh_err err = fd < 0 || fsync(fd) != 0 ? errno_error() : MESH_OK;
    if (fd >= 0) {
        close(fd);
    }
    store_kv_path_beside(name, path, ".incoming");
    if (err == MESH_OK) {
        err = sync_path(name);
    }
    return err == MESH_OK ? store_kv_sync_parent(path) : err;
}

static int delete_one(const char *name, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st;
    (void)type;
    (void)ftw;
    return remove(name) == 0 || errno == ENOENT ? 0 : -1;
}

static mesh_err delete_tree(const char *path, const char *suffix)
{
    char name[STORE_KV_PATH];
    store_kv_path_beside(name, path, suffix);
    bool gone = nftw(name, delete_one, DELETE_FDS, FTW_DEPTH | FTW_PHYS) == 0 || errno == ENOENT;
    return gone ? store_kv_sync_parent(path) : MESH_IO;
}

mesh_err store_kv_incoming_discard(const char *path)
{
    char name[STORE_KV_PATH];
    if (!is_there(path, ".incoming")) {
        return MESH_OK;
    }
    if (store_kv_is_finished(path)) {
        store_kv_path_beside(name, path, FINISHED);
        if (unlink(name) != 0) {
            return MESH_IO;
        }
        store_kv_path_beside(name, path, ".incoming");
        mesh_err err = sync_path(name);
        if (err != MESH_OK) {
            return err;
        }
    }
    return delete_tree(path, ".incoming");
}

/* A directory without CURRENT and with something else in it is a damaged database, and is not written over. */
static mesh_err move_dir(const char *path, const char *from, const char *to)
{
    char a[STORE_KV_PATH], b[STORE_KV_PATH];
    store_kv_path_beside(a, path, from);
    store_kv_path_beside(b, path, to);
    if (rename(a, b) != 0) {
        return errno == ENOTEMPTY || errno == EEXIST ? MESH_CORRUPT : errno_error();
    }
    return store_kv_sync_parent(path);
}

/* The mark has done its work then; where it is left over it does no harm. */
static mesh_err move_in(const char *path)
{
    char mark[STORE_KV_PATH];
    mesh_err err = move_dir(path, ".incoming", "");
    store_kv_path_beside(mark, path, "/FINISHED");
    if (err == MESH_OK) {
        (void)unlink(mark);
    }
    return err;
}

static kv_places look(const char *path)
{
    return (kv_places){ .db = is_there(path, "/CURRENT"),
                        .old = is_there(path, ".old"),
                        .incoming = is_there(path, ".incoming"),
                        .finished = store_kv_is_finished(path) };
}

/* Another process that has path open is not to lose what it is filling beside it. */
static bool is_open_elsewhere(const char *path)
{
    char name[STORE_KV_PATH];
    store_kv_path_beside(name, path, "/LOCK");
    int fd = open(name, O_RDONLY | O_CLOEXEC);
    struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
    bool held = fd >= 0 && fcntl(fd, F_GETLK, &lock) == 0 && lock.l_type != F_UNLCK;
    if (fd >= 0) {
        close(fd);
    }
    return held;
}

static mesh_err take_step(const char *path, kv_step step)
{
    switch (step) {
    case KV_DROP_OLD:
        return delete_tree(path, ".old");
    case KV_DROP_INCOMING:
        return store_kv_incoming_discard(path);
    case KV_MOVE_IN:
        return move_in(path);
    case KV_MOVE_BACK:
        return move_dir(path, ".old", "");
    default:
        return MESH_OK;
    }
}

mesh_err store_kv_settle(const char *path, char *why, size_t why_size)
{
    static const char *const what[] = {
        [KV_DROP_OLD] = ".old cannot be deleted",
        [KV_DROP_INCOMING] = ".incoming cannot be deleted",
        [KV_MOVE_IN] = ".incoming cannot be moved to its place",
        [KV_MOVE_BACK] = ".old cannot be moved back to its place",
    };
    mesh_err err = MESH_OK;
    kv_step step = KV_SETTLED;
    for (kv_places places = look(path); err == MESH_OK; places = look(path)) {
        step = store_kv_plan_next(&places);
        if (step == KV_SETTLED) {
            break;
        }
        if (is_open_elsewhere(path)) {
            snprintf(why, why_size, "%s is open in another process", path);
            return MESH_IO;
        }
        err = take_step(path, step);
    }
    if (err != MESH_OK) {
        snprintf(why, why_size, "%s%s: %s", path, what[step],
                 err == MESH_CORRUPT ? "CURRENT is missing, other files are there" : strerror(errno));
    }
    return err;
}

mesh_err store_kv_switch(const char *path, char *why, size_t why_size)
{
    char incoming[STORE_KV_PATH];
    kv_places places = look(path);
    store_kv_path_beside(incoming, path, ".incoming");
    if (!places.finished) {
        snprintf(why, why_size, "%s is not there, or not finished", incoming);
        return MESH_NOT_FOUND;
    }
    mesh_err err = store_salvage_check_files(incoming, why, why_size);
    if (err != MESH_OK) {
        return err;
    }
    if (places.db && places.old) {
        err = delete_tree(path, ".old");
    }
    if (err == MESH_OK && places.db) {
        err = move_dir(path, "", ".old");
    }
    if (err != MESH_OK) {
        snprintf(why, why_size, "%s cannot be moved to %s.old: %s", path, path, strerror(errno));
        return err == MESH_CORRUPT ? MESH_IO : err;
    }
    return store_kv_settle(path, why, why_size);
}
