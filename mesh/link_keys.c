/* mesh/link_keys.c: key files. One line: the secret key in z85. The public part is computed from it. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sodium.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zmq.h>

#include "mesh/link.h"
#include "mesh/link_auth.h"
#include "mesh/log.h"

#define KEY_CHARS (MESH_LINK_KEY_SIZE - 1)

static bool key_path(char path[PATH_MAX], const char *keys_dir, const char *name, const char *suffix)
{
    int n = snprintf(path, PATH_MAX, "%s/%s.key%s", keys_dir, name, suffix);
    return n > 0 && n < PATH_MAX;
}

static bool write_all(int fd, const char *bytes, size_t size)
{
    while (size > 0) {
        ssize_t n = write(fd, bytes, size);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            return false;
        }
        bytes += n;
        size -= (size_t)n;
    }
    return true;
}

static bool sync_dir(const char *path)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) {
        return false;
    }
    bool ok = fsync(fd) == 0;
    close(fd);
    return ok;
}

/* Written beside its place and renamed, so that a key file is whole or absent. */
static bool save_key(const char *keys_dir, const char *name, const char secret_key[MESH_LINK_KEY_SIZE])
{
    char path[PATH_MAX];
    char draft[PATH_MAX];
    if (!key_path(path, keys_dir, name, "") || !key_path(draft, keys_dir, name, ".new")) {
        errno = ENAMETOOLONG;
        return false;
    }
    if (mkdir(keys_dir, 0700) != 0 && errno != EEXIST) {
        return false;
    }
    unlink(draft);
    int fd = open(draft, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0) {
        return false;
    }
    bool ok = write_all(fd, secret_key, KEY_CHARS) && write_all(fd, "\n", 1) && fsync(fd) == 0;
    ok = close(fd) == 0 && ok;
    ok = ok && rename(draft, path) == 0 && sync_dir(keys_dir);
    if (!ok) {
        unlink(draft);
    }
    return ok;
}

mesh_err mesh_link_make_key(const char *keys_dir, const char *name, char public_key[MESH_LINK_KEY_SIZE])
{
    mesh_link_keys keys;
    if (zmq_curve_keypair(keys.public_key, keys.secret_key) != 0) {
        mesh_log(MESH_ERROR, "key_failed", "node=%s reason=%s", name, zmq_strerror(zmq_errno()));
        return MESH_IO;
    }
    bool ok = save_key(keys_dir, name, keys.secret_key);
    if (ok) {
        memcpy(public_key, keys.public_key, sizeof keys.public_key);
    } else {
        mesh_log(MESH_ERROR, "key_failed", "node=%s dir=%s reason=%s", name, keys_dir, strerror(errno));
    }
    sodium_memzero(&keys, sizeof keys);
    return ok ? MESH_OK : MESH_IO;
}

static const char *read_key(int fd, mesh_link_keys *keys)
{
    struct stat st;
    if (fstat(fd, &st) != 0) {
        return strerror(errno);
    }
    if ((st.st_mode & (S_IRWXG | S_IRWXO)) != 0) {
        return "others may read it: chmod 600";
    }
    char line[KEY_CHARS + 1];
    ssize_t n = read(fd, line, sizeof line);
    const char *why = "not a z85 key of 40 characters";
    if (n >= KEY_CHARS && (n == KEY_CHARS || line[KEY_CHARS] == '\n')) {
        memcpy(keys->secret_key, line, KEY_CHARS);
        keys->secret_key[KEY_CHARS] = '\0';
        if (zmq_curve_public(keys->public_key, keys->secret_key) == 0) {
            why = NULL;
        }
    }
    sodium_memzero(line, sizeof line);
    return why;
}

mesh_err mesh_link_keys_read(const char *keys_dir, const char *name, mesh_link_keys *keys)
{
    char path[PATH_MAX];
    const char *why = "name too long";
    if (key_path(path, keys_dir, name, "")) {
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd < 0) {
            why = strerror(errno);
        } else {
            why = read_key(fd, keys);
            close(fd);
        }
    }
    if (why != NULL) {
        mesh_log(MESH_ERROR, "key_refused", "node=%s dir=%s reason=%s", name, keys_dir, why);
        return MESH_IO;
    }
    return MESH_OK;
}
