/* The store's key-value layer on real LevelDB: reads see what is queued, order, group commit, kill -9, a full disk, and
 * what open refuses. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <poll.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "mesh/clock.h"
#include "tests/unit/kv_model.h"

static char root[64];
static const store_kv_options options = { 4u << 20, 4u << 20, 200 };

static const char *dir_named(const char *name)
{
    static char path[128];
    snprintf(path, sizeof path, "%s/%s", root, name);
    return path;
}

static store_kv *open_ok(const char *path)
{
    store_kv *kv = NULL;
    char why[512] = "";
    mesh_err err = store_kv_open(path, &options, &kv, why, sizeof why);
    if (err != MESH_OK) {
        fail_msg("open: %s: %s", mesh_err_name(err), why);
    }
    return kv;
}

static uint64_t put(store_kv *kv, const char *key, const char *value, bool sync)
{
    store_kv_batch *batch = store_kv_batch_new();
    store_kv_batch_put(batch, text(key), text(value));
    uint64_t ticket = store_kv_write(kv, batch, sync);
    store_kv_batch_destroy(&batch);
    return ticket;
}

static void expect(store_kv *kv, const char *key, const char *value)
{
    mesh_buf out = { 0 };
    mesh_err err = store_kv_get(kv, text(key), &out);
    assert_int_equal(err, value == NULL ? MESH_NOT_FOUND : MESH_OK);
    if (value != NULL) {
        assert_int_equal(store_omap_compare(mesh_buf_slice(&out), text(value)), 0);
    }
    mesh_buf_fini(&out);
}

static void same_as_a_model(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 4; seed++) {
        char name[16];
        snprintf(name, sizeof name, "model%d", (int)seed);
        const char *path = dir_named(name);
        mesh_rand r = { seed };
        kv_model *m = calloc(1, sizeof *m);
        store_kv_batch *batch = store_kv_batch_new();
        store_kv *kv = open_ok(path);
        for (int i = 0; i < 1500; i++) {
            model_write(m, kv, batch, &r, mesh_rand_below(&r, 4) == 0);
            if (mesh_rand_below(&r, 3) == 0) {
                (void)store_kv_durable(kv); /* rows move from the overlay to LevelDB at some time of its own */
            }
            model_walk(m, kv, &r);
            if (i % 300 == 299) {
                model_check(m, kv);
                store_kv_close(&kv);
                kv = open_ok(path);
                model_check(m, kv);
            }
        }
        store_kv_close(&kv);
        store_kv_batch_destroy(&batch);
        free(m);
    }
}

static void iterator_lives_through_writes(void **state)
{
    (void)state;
    store_kv *kv = open_ok(dir_named("through"));
    uint64_t ticket = 0;
    for (int i = 0; i < 50; i++) {
        char key[16];
        snprintf(key, sizeof key, "k%02d", i);
        ticket = put(kv, key, key, true);
    }
    store_kv_iter *it = store_kv_iter_new(kv, text("k"));
    store_kv_iter_first(it);
    for (int i = 0; i < 50; i++) {
        char key[16];
        snprintf(key, sizeof key, "k%02d", i);
        assert_int_equal(store_omap_compare(store_kv_iter_key(it), text(key)), 0);
        if (i == 10) { /* rows become durable and get another version under the iterator */
            assert_int_equal(store_kv_wait(kv, put(kv, "k10", "new", true)), MESH_OK);
            assert_true(store_kv_durable(kv) > ticket);
        }
        store_kv_iter_next(it);
    }
    assert_false(store_kv_iter_valid(it));
    store_kv_iter_destroy(&it);
    (void)store_kv_durable(kv);
    assert_int_equal(store_kv_counted(kv).queued_bytes, 0);
    expect(kv, "k10", "new");
    store_kv_close(&kv);
}

static void tickets_and_eventfd(void **state)
{
    (void)state;
    store_kv *kv = open_ok(dir_named("tickets"));
    assert_int_equal(store_kv_durable(kv), 0);
    assert_int_equal(put(kv, "a", "1", false), 1);
    assert_int_equal(put(kv, "b", "2", false), 2);
    assert_int_equal(put(kv, "c", "3", true), 3);
    struct pollfd p = { .fd = store_kv_fd(kv), .events = POLLIN };
    while (store_kv_durable(kv) < 3) {
        assert_int_equal(poll(&p, 1, 10000), 1);
        store_kv_fd_clear(kv);
    }
    assert_int_equal(put(kv, "a", "4", false), 4); /* nobody asks for sync: it still gets there */
    while (store_kv_durable(kv) < 4) {
        assert_int_equal(poll(&p, 1, 10000), 1);
        store_kv_fd_clear(kv);
    }
    assert_int_equal(put(kv, "a", "5", false), 5);
    assert_int_equal(store_kv_wait(kv, 5), MESH_OK);
    assert_int_equal(store_kv_error(kv), MESH_OK);
    assert_true(store_kv_free_bytes(kv) > 0);
    store_kv_counts counts = store_kv_counted(kv);
    assert_int_equal(counts.batches, 5);
    assert_int_equal(counts.rows, 5);
    assert_true(counts.syncs >= 3 && counts.syncs <= 5);
    store_kv_close(&kv);
}

/* What is queued counts until the loop has taken note that it is on disk, so the writer's speed does not matter here.
 */
static void so_much_is_queued(void **state)
{
    (void)state;
    enum { SIZE = 600 * 1024 }; /* two of them are more than one LevelDB write takes */
    store_kv *kv = open_ok(dir_named("queue"));
    char *value = calloc(1, SIZE + 1);
    memset(value, 'v', SIZE);
    uint64_t last = 0;
    uint64_t n = 0;
    char key[16];
    while (!store_kv_full(kv)) {
        assert_true(store_kv_counted(kv).queued_bytes <= STORE_KV_QUEUE_MAX);
        snprintf(key, sizeof key, "q%03d", (int)++n);
        last = put(kv, key, value, true);
    }
    assert_in_range(store_kv_counted(kv).queued_bytes, STORE_KV_QUEUE_MAX + 1, STORE_KV_QUEUE_MAX + SIZE + 100);
    assert_int_equal(n, STORE_KV_QUEUE_MAX / SIZE + 1);
    expect(kv, "q001", value);
    assert_int_equal(store_kv_wait(kv, last), MESH_OK);
    assert_true(store_kv_full(kv)); /* on disk, but not yet out of the queue */
    assert_int_equal(store_kv_durable(kv), last);
    assert_false(store_kv_full(kv));
    assert_int_equal(store_kv_counted(kv).queued_bytes, 0);
    assert_int_equal(store_kv_counted(kv).syncs, n); /* each batch alone */
    expect(kv, "q001", value);
    expect(kv, key, value);
    assert_int_equal(store_kv_wait(kv, put(kv, "after", "it goes on", true)), MESH_OK);
    store_kv_close(&kv);
    free(value);
}

static void waiting_batches_share_a_sync(void **state)
{
    (void)state;
    store_kv *kv = open_ok(dir_named("share"));
    uint64_t last = 0;
    for (int i = 0; i < 5000; i++) {
        char key[16];
        snprintf(key, sizeof key, "%d", i);
        last = put(kv, key, "v", true);
    }
    assert_int_equal(store_kv_wait(kv, last), MESH_OK);
    assert_true(store_kv_counted(kv).syncs < 4000);
    store_kv_close(&kv);
}

/* LevelDB's background thread does not survive a fork: a child is this program again, with other arguments. */
static pid_t start_child(const char *what, const char *path, int fd)
{
    pid_t child = fork();
    if (child == 0) {
        char number[16];
        snprintf(number, sizeof number, "%d", fd);
        execl("/proc/self/exe", "test_store_kv", what, path, number, (char *)NULL);
        _exit(9);
    }
    return child;
}

/* The child writes for ever and tells each durable ticket through the pipe. */
static int write_for_ever(const char *path, int fd)
{
    store_kv *kv = NULL;
    char why[256];
    if (store_kv_open(path, &options, &kv, why, sizeof why) != MESH_OK) {
        return 3;
    }
    uint64_t told = 0;
    for (;;) {
        for (int i = 0; i < 5; i++) {
            char key[32];
            store_kv_batch *batch = store_kv_batch_new();
            uint64_t ticket = store_kv_counted(kv).batches + 1;
            snprintf(key, sizeof key, "a%llu", (unsigned long long)ticket);
            store_kv_batch_put(batch, text(key), text("x"));
            key[0] = 'b';
            store_kv_batch_put(batch, text(key), text("y"));
            (void)store_kv_write(kv, batch, i == 4);
            store_kv_batch_destroy(&batch);
        }
        uint64_t durable = store_kv_durable(kv);
        if (durable > told) {
            told = durable;
            if (write(fd, &told, sizeof told) != sizeof told) {
                return 4;
            }
        }
    }
}

static void killed_store_keeps_what_was_durable(void **state)
{
    (void)state;
    const char *path = dir_named("killed");
    for (int round = 0; round < 5; round++) {
        char rm[192];
        snprintf(rm, sizeof rm, "rm -rf %s", path);
        assert_int_equal(system(rm), 0);
        int fds[2];
        assert_int_equal(pipe(fds), 0);
        pid_t child = start_child("for-ever", path, fds[1]);
        close(fds[1]);
        uint64_t told = 0, got = 0;
        while (got < (uint64_t)(50 + round * 77)) {
            assert_int_equal(read(fds[0], &told, sizeof told), sizeof told);
            got++;
        }
        kill(child, SIGKILL);
        while (read(fds[0], &got, sizeof got) == sizeof got) {
            told = got;
        }
        int status;
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_true(WIFSIGNALED(status));
        close(fds[0]);

        store_kv *kv = open_ok(path);
        bool ended = false;
        for (uint64_t t = 1; t <= told + 2000; t++) {
            char a[32], b[32];
            mesh_buf out = { 0 };
            snprintf(a, sizeof a, "a%llu", (unsigned long long)t);
            snprintf(b, sizeof b, "b%llu", (unsigned long long)t);
            bool has_a = store_kv_get(kv, text(a), &out) == MESH_OK;
            bool has_b = store_kv_get(kv, text(b), &out) == MESH_OK;
            mesh_buf_fini(&out);
            assert_int_equal(has_a, has_b); /* all of a batch or nothing */
            assert_true(has_a || t > told); /* durable is there */
            assert_false(has_a && ended);   /* a prefix */
            ended = ended || !has_a;
        }
        store_kv_close(&kv);
    }
}

/* RLIMIT_FSIZE makes a short write, as a full disk does. In a child, whose limit it is. */
static int fill_the_disk(const char *path, int fd)
{
    signal(SIGXFSZ, SIG_IGN);
    struct rlimit limit = { 300000, RLIM_INFINITY };
    setrlimit(RLIMIT_FSIZE, &limit);
    store_kv *kv = NULL;
    char why[256];
    if (store_kv_open(path, &options, &kv, why, sizeof why) != MESH_OK) {
        return 3;
    }
    char value[1001];
    memset(value, 'v', 1000);
    value[1000] = 0;
    uint64_t durable = 0;
    mesh_err err = MESH_OK;
    for (int i = 1; err == MESH_OK && i < 2000; i++) {
        char key[16];
        snprintf(key, sizeof key, "%d", i);
        err = store_kv_wait(kv, put(kv, key, value, true));
        durable = store_kv_durable(kv);
    }
    if (err != MESH_NO_SPACE || store_kv_error(kv) != MESH_NO_SPACE) {
        return 4;
    }
    /* space comes back: this handle must stay finished all the same */
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_FSIZE, &limit);
    for (int i = 0; i < 20; i++) {
        if (store_kv_wait(kv, put(kv, "later", "x", true)) != MESH_NO_SPACE || store_kv_durable(kv) != durable) {
            return 5;
        }
    }
    if (write(fd, &durable, sizeof durable) != sizeof durable) {
        return 6;
    }
    store_kv_close(&kv);
    return 0;
}

static void full_disk_ends_the_handle(void **state)
{
    (void)state;
    const char *path = dir_named("full");
    int fds[2];
    assert_int_equal(pipe(fds), 0);
    pid_t child = start_child("full", path, fds[1]);
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
    uint64_t durable = 0;
    assert_int_equal(read(fds[0], &durable, sizeof durable), sizeof durable);
    assert_true(durable > 100);
    close(fds[0]);
    close(fds[1]);
    store_kv *kv = open_ok(path); /* the torn end is what a crash leaves too */
    mesh_buf out = { 0 };
    for (uint64_t i = 1; i <= durable; i++) {
        char key[16];
        snprintf(key, sizeof key, "%d", (int)i);
        assert_int_equal(store_kv_get(kv, text(key), &out), MESH_OK);
    }
    mesh_buf_fini(&out);
    expect(kv, "later", NULL);
    store_kv_close(&kv);
}

static void build_closed(const char *path)
{
    store_kv *kv = open_ok(path);
    for (int i = 0; i < 200; i++) {
        char key[16];
        snprintf(key, sizeof key, "k%03d", i);
        assert_int_equal(store_kv_wait(kv, put(kv, key, "some value of a row", true)), MESH_OK);
    }
    store_kv_close(&kv);
}

static void refused(const char *path, mesh_err want, const char *names)
{
    store_kv *kv = NULL;
    char why[512] = "";
    assert_int_equal(store_kv_open(path, &options, &kv, why, sizeof why), want);
    assert_null(kv);
    if (strstr(why, names) == NULL) {
        fail_msg("'%s' does not say '%s'", why, names);
    }
}

static void shell(const char *format, const char *path)
{
    char command[512];
    snprintf(command, sizeof command, format, path, path);
    assert_int_equal(system(command), 0);
}

static void flipped_bit_is_refused_with_file_and_offset(void **state)
{
    (void)state;
    const char *path = dir_named("flipped");
    build_closed(path);
    char command[512];
    snprintf(command, sizeof command, "f=$(ls %s/*.log); printf X | dd of=$f bs=1 seek=3000 conv=notrunc 2>/dev/null",
             path);
    assert_int_equal(system(command), 0);
    refused(path, MESH_CORRUPT, ".log: a record's checksum is wrong at offset ");
}

static void missing_files_are_refused(void **state)
{
    (void)state;
    const char *path = dir_named("missing");
    build_closed(path);
    shell("mv %s/CURRENT %s.current", path);
    refused(path, MESH_CORRUPT, "CURRENT is missing");
    shell("mv %2$s.current %1$s/CURRENT", path);
    shell("mv %s/*.log %s.log", path);
    refused(path, MESH_CORRUPT, ".log is missing");
    shell("mv %2$s.log %1$s/000003.log", path);
    store_kv *kv = open_ok(path);
    expect(kv, "k199", "some value of a row");
    refused(path, MESH_IO, "LOCK"); /* open twice */
    store_kv_close(&kv);
    refused(dir_named("no/parent"), MESH_IO, "no/parent");
}

static void unreadable_row_ends_the_handle(void **state)
{
    (void)state;
    const char *path = dir_named("rotten");
    store_kv *kv = open_ok(path);
    char value[4001];
    for (int i = 0; i < 3000; i++) { /* several memtables: rows are in table files */
        char key[16];
        snprintf(key, sizeof key, "k%04d", i);
        for (int j = 0; j < 4000; j++) {
            value[j] = (char)('a' + (i * 31 + j * j) % 26);
        }
        value[4000] = 0;
        (void)put(kv, key, value, true);
    }
    store_kv_close(&kv);
    char command[512];
    snprintf(command, sizeof command,
             "for f in %s/*.ldb; do printf XXXX | dd of=$f bs=1 seek=2000 conv=notrunc 2>/dev/null; done", path);
    assert_int_equal(system(command), 0);
    char why[512] = "";
    mesh_err err = store_kv_open(path, &options, &kv, why, sizeof why);
    if (err == MESH_OK) {
        mesh_err worst = MESH_OK;
        mesh_buf out = { 0 };
        for (int i = 0; i < 3000; i++) {
            char key[16];
            snprintf(key, sizeof key, "k%04d", i);
            mesh_err e = store_kv_get(kv, text(key), &out);
            assert_true(e == MESH_OK || e == MESH_CORRUPT); /* never "not there" */
            worst = e != MESH_OK ? e : worst;
        }
        mesh_buf_fini(&out);
        assert_int_equal(worst, MESH_CORRUPT);
        assert_int_equal(store_kv_error(kv), MESH_CORRUPT);
        store_kv_close(&kv);
    } else {
        assert_int_equal(err, MESH_CORRUPT);
    }
}

/* One byte, in the middle of a table file: rows of that block are MESH_CORRUPT by every way of reading, others are
 * right. */
static void flipped_byte_in_a_table(void **state)
{
    (void)state;
    const char *path = dir_named("byte");
    char key[16], value[64];
    store_kv *kv = open_ok(path);
    for (int i = 0; i < 3000; i++) {
        snprintf(key, sizeof key, "k%04d", i);
        snprintf(value, sizeof value, "value %d and %u", i, (unsigned)i * 2654435761u);
        (void)put(kv, key, value, true);
    }
    store_kv_close(&kv);
    kv = open_ok(path); /* what the log holds goes into a table file */
    store_kv_close(&kv);
    shell("f=$(ls %s/*.ldb | tail -n 1); s=$(($(stat -c %%s $f) / 2)); b=$(od -An -tu1 -j $s -N1 $f); "
          "printf \"\\\\$(printf %%o $((b ^ 16)))\" | dd of=$f bs=1 seek=$s conv=notrunc 2>/dev/null",
          path);
    kv = open_ok(path);
    mesh_buf out = { 0 };
    unsigned bad = 0, scanned = 0;
    for (int i = 0; i < 3000; i++) {
        snprintf(key, sizeof key, "k%04d", i);
        snprintf(value, sizeof value, "value %d and %u", i, (unsigned)i * 2654435761u);
        mesh_err err = store_kv_get(kv, text(key), &out);
        bad += err == MESH_CORRUPT;
        assert_true(err == MESH_CORRUPT || (err == MESH_OK && out.size == strlen(value)));
        assert_true(err == MESH_CORRUPT || memcmp(out.data, value, out.size) == 0);
    }
    assert_true(bad > 0 && bad < 1000);
    assert_int_equal(store_kv_error(kv), MESH_CORRUPT);
    store_kv_close(&kv);
    kv = open_ok(path);
    store_kv_iter *it = store_kv_iter_new(kv, text("k"));
    for (store_kv_iter_first(it); store_kv_iter_valid(it); store_kv_iter_next(it)) {
        scanned++;
    }
    assert_true(scanned < 3000);
    store_kv_iter_destroy(&it); /* who does not ask for the status is told by the handle */
    assert_int_equal(store_kv_error(kv), MESH_CORRUPT);
    store_kv_close(&kv);
    mesh_buf_fini(&out);
}

static void quarantine_keeps_and_marks(void **state)
{
    (void)state;
    const char *path = dir_named("aside");
    char kept[512], why[256];
    build_closed(path);
    assert_false(store_kv_is_lost(path));
    for (int i = 0; i < STORE_QUARANTINES_MAX; i++) { /* one and the same second */
        assert_int_equal(store_kv_quarantine(path, "20260101T000000Z", kept, sizeof kept), MESH_OK);
        assert_true(store_kv_is_lost(path));
        store_kv *kv = open_ok(path);
        expect(kv, "k199", NULL);
        store_kv_close(&kv);
    }
    assert_int_equal(store_kv_quarantine(path, "20260101T000001Z", kept, sizeof kept), MESH_FULL);
    store_kv *kv = open_ok(path);
    store_kv_close(&kv);
    snprintf(kept, sizeof kept, "%s.quarantine-20260101T000000Z", path);
    assert_int_equal(store_kv_open(kept, &options, &kv, why, sizeof why), MESH_OK); /* as it was */
    expect(kv, "k199", "some value of a row");
    store_kv_close(&kv);
    assert_int_equal(store_kv_regained(path), MESH_OK);
    assert_false(store_kv_is_lost(path));
    assert_int_equal(store_kv_regained(path), MESH_OK);
}

static int make_root(void **state)
{
    (void)state;
    snprintf(root, sizeof root, "/dev/shm/parley-kv-XXXXXX"); /* memory: no power is cut here, so syncs need not cost */
    if (mkdtemp(root) != NULL) {
        return 0;
    }
    snprintf(root, sizeof root, "/tmp/parley-kv-XXXXXX");
    return mkdtemp(root) == NULL;
}

static int remove_root(void **state)
{
    (void)state;
    char rm[128];
    snprintf(rm, sizeof rm, "rm -rf %s", root);
    return system(rm);
}

int main(int argc, char **argv)
{
    if (argc == 4) {
        return strcmp(argv[1], "full") == 0 ? fill_the_disk(argv[2], atoi(argv[3]))
                                            : write_for_ever(argv[2], atoi(argv[3]));
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(same_as_a_model),
        cmocka_unit_test(iterator_lives_through_writes),
        cmocka_unit_test(tickets_and_eventfd),
        cmocka_unit_test(so_much_is_queued),
        cmocka_unit_test(waiting_batches_share_a_sync),
        cmocka_unit_test(killed_store_keeps_what_was_durable),
        cmocka_unit_test(full_disk_ends_the_handle),
        cmocka_unit_test(flipped_bit_is_refused_with_file_and_offset),
        cmocka_unit_test(missing_files_are_refused),
        cmocka_unit_test(unreadable_row_ends_the_handle),
        cmocka_unit_test(flipped_byte_in_a_table),
        cmocka_unit_test(quarantine_keeps_and_marks),
    };
    return cmocka_run_group_tests(tests, make_root, remove_root);
}
