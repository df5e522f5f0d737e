/* store/salvage.c: copy, cut, open, check, new era. See store/salvage.h. */
#include "store/salvage.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "mesh/rand.h"
#include "store/kv.h"
#include "store/salvage_check.h"

#define PATH_MAX_HERE 4096

static mesh_err errno_error(void)
{
    return errno == ENOSPC || errno == EDQUOT || errno == EFBIG ? MESH_NO_SPACE : MESH_IO;
}

static bool is_database_file(const char *name)
{
    size_t n = strlen(name);
    const char *dot = n > 4 ? name + n - 4 : "";
    return strcmp(name, "CURRENT") == 0 || strncmp(name, "MANIFEST-", 9) == 0 || strcmp(dot, ".log") == 0 ||
           strcmp(dot, ".ldb") == 0 || strcmp(dot, ".sst") == 0;
}

static mesh_err copy_file(const char *from, const char *to)
{
    static const size_t chunk = 1u << 20;
    mesh_err err = MESH_OK;
    int in = open(from, O_RDONLY | O_CLOEXEC);
    int out = open(to, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    char *buf = malloc(chunk);
    if (in < 0 || out < 0 || buf == NULL) {
        err = errno_error();
    }
    ssize_t n = 1;
    while (err == MESH_OK && (n = read(in, buf, chunk)) > 0) {
        for (ssize_t done = 0, w; err == MESH_OK && done < n; done += w) {
            w = write(out, buf + done, (size_t)(n - done));
            if (w < 0) {
                err = errno_error();
            }
        }
    }
    if (err == MESH_OK && (n < 0 || fsync(out) != 0)) {
        err = errno_error();
    }
    free(buf);
    if (in >= 0) {
        close(in);
    }
    if (out >= 0) {
        close(out);
    }
    return err;
}

/* A running store holds a lock on this file. */
static bool is_open_elsewhere(const char *from)
{
    char file[PATH_MAX_HERE];
    snprintf(file, sizeof file, "%s/LOCK", from);
    int fd = open(file, O_RDONLY | O_CLOEXEC);
    struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
    bool held = fd >= 0 && fcntl(fd, F_GETLK, &lock) == 0 && lock.l_type != F_UNLCK;
    if (fd >= 0) {
        close(fd);
    }
    return held;
}

static mesh_err copy_database(const char *from, const char *to, FILE *report)
{
    if (is_open_elsewhere(from)) {
        fprintf(report, "refused: %s is open in another process\n", from);
        return MESH_CONFLICT;
    }
    DIR *dir = opendir(from);
    if (dir == NULL) {
        fprintf(report, "refused: %s: %s\n", from, strerror(errno));
        return MESH_IO;
    }
    mesh_err err = MESH_OK;
    if (mkdir(to, 0700) != 0) {
        err = errno == EEXIST ? MESH_CONFLICT : errno_error();
        fprintf(report, "refused: %s: %s\n", to, strerror(errno));
    }
    for (struct dirent *e = err == MESH_OK ? readdir(dir) : NULL; e != NULL && err == MESH_OK; e = readdir(dir)) {
        if (is_database_file(e->d_name)) {
            char a[PATH_MAX_HERE], b[PATH_MAX_HERE];
            snprintf(a, sizeof a, "%s/%s", from, e->d_name);
            snprintf(b, sizeof b, "%s/%s", to, e->d_name);
            err = copy_file(a, b);
            if (err != MESH_OK) {
                fprintf(report, "refused: %s: %s\n", a, strerror(errno));
            }
        }
    }
    closedir(dir);
    return err;
}

static void refuse_file(FILE *report, const char *file, const store_salvage_found *found)
{
    fprintf(report, "refused: %s: %s at offset %" PRIu64 " of %" PRIu64 "%s\n", file, found->reason, found->bad_offset,
            found->size, found->valid_after ? ", good records follow" : "");
}

/* Look at one file of the copy; cut it if it is the newest log file and only its end is torn. */
static mesh_err mend_file(const char *file, bool newest, FILE *report)
{
    store_salvage_found found;
    mesh_err err = store_salvage_scan(file, &found);
    if (err != MESH_OK) {
        fprintf(report, "refused: %s cannot be read\n", file);
        return err;
    }
    if (!found.bad) {
        return MESH_OK;
    }
    if (!newest || found.valid_after) {
        refuse_file(report, file, &found);
        return MESH_CORRUPT;
    }
    if (truncate(file, (off_t)found.good_end) != 0) {
        fprintf(report, "refused: %s: %s\n", file, strerror(errno));
        return MESH_IO;
    }
    fprintf(report,
            "cut: %s: %s at offset %" PRIu64 "; %" PRIu64 " of %" PRIu64 " bytes and %" PRIu64 " records kept\n", file,
            found.reason, found.bad_offset, found.good_end, found.size, found.records);
    return MESH_OK;
}

static mesh_err mend(const char *path, FILE *report)
{
    char file[PATH_MAX_HERE], why[PATH_MAX_HERE + 64];
    store_salvage_log_range logs;
    struct dirent **names;
    store_salvage_logs(path, &logs);
    int n = scandir(path, &names, NULL, alphasort);
    mesh_err err = n < 0 ? MESH_IO : MESH_OK;
    for (int i = 0; i < n; i++) {
        const char *name = names[i]->d_name;
        uint64_t number = store_salvage_log_of(name);
        if (err == MESH_OK && (number > 0 ? number >= logs.first : strncmp(name, "MANIFEST-", 9) == 0)) {
            snprintf(file, sizeof file, "%s/%s", path, name);
            err = mend_file(file, number > 0 && number == logs.newest, report);
        }
        free(names[i]);
    }
    if (n >= 0) {
        free(names);
    }
    if (err == MESH_OK) {
        err = store_salvage_check_files(path, why, sizeof why);
        if (err != MESH_OK) {
            fprintf(report, "refused: %s\n", why);
        }
    }
    return err;
}

static mesh_err open_copy(const char *path, store_kv **kv_p, FILE *report)
{
    char why[PATH_MAX_HERE + 256];
    store_kv_options options = { .write_buffer = 64u << 20, .block_cache = 64u << 20, .max_open_files = 500 };
    mesh_err err = store_kv_open(path, &options, kv_p, why, sizeof why);
    if (err != MESH_OK) {
        fprintf(report, "refused: %s\n", why);
    }
    return err;
}

static mesh_err check_copy(const char *path, FILE *acks, FILE *report)
{
    char why[512] = "";
    salvage_totals totals;
    store_kv *kv = NULL;
    mesh_err err = open_copy(path, &kv, report);
    if (err != MESH_OK) {
        return err;
    }
    err = store_salvage_check(kv, acks, report, &totals, why, sizeof why);
    if (err == MESH_OK) {
        err = store_salvage_put_era(kv, mesh_rand_seed());
        err = err == MESH_NOT_FOUND ? MESH_OK : err; /* an empty one: it gets its era when it starts */
        snprintf(why, sizeof why, "the new era could not be written");
    }
    store_kv_close(&kv);
    if (err != MESH_OK) {
        fprintf(report, "refused: %s: %s\n", path, why);
        return err;
    }
    if (totals.unapplied > 0) {
        fprintf(report,
                "unapplied: %" PRIu64 " log entries at the end have no rows yet: a store writes them when it starts\n",
                totals.unapplied);
    }
    fprintf(report, "salvaged: %" PRIu64 " rows, %" PRIu64 " missing\n", totals.rows, totals.missing);
    return MESH_OK;
}

mesh_err store_salvage_run(const char *from, const char *to, store_salvage_replay *replay, void *arg, FILE *acks,
                           FILE *report)
{
    char why[512] = "";
    store_kv *kv = NULL;
    mesh_err err = copy_database(from, to, report);
    err = err == MESH_OK ? mend(to, report) : err;
    err = err == MESH_OK ? open_copy(to, &kv, report) : err; /* before replay: what is refused here is LevelDB's say */
    store_kv_close(&kv);
    if (err == MESH_OK && replay != NULL) {
        err = replay(arg, to, why, sizeof why);
        if (err != MESH_OK) {
            fprintf(report, "refused: %s: %s\n", to, why);
        }
    }
    return err == MESH_OK ? check_copy(to, acks, report) : err;
}
