/* Reading a whole database out while it is written, filling another one beside it, and putting that in its place: on
 * real LevelDB and real directories. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "mesh/rand.h"
#include "store/kv.h"
#include "store/kv_plan.h"
#include "store/kv_rows.h"
#include "store/omap.h"

static char root[64];
static const store_kv_options options = { 1u << 20, 4u << 20, 200 };

static mesh_slice text(const char *s)
{
    return (mesh_slice){ (const uint8_t *)s, strlen(s) };
}

static const char *dir_named(const char *name)
{
    static char path[128];
    snprintf(path, sizeof path, "%s/%s", root, name);
    return path;
}

static void shell(const char *format, const char *path)
{
    char command[512];
    snprintf(command, sizeof command, format, path, path);
    assert_int_equal(system(command), 0);
}

static bool there(const char *path, const char *suffix)
{
    char name[256];
    snprintf(name, sizeof name, "%s%s", path, suffix);
    return access(name, F_OK) == 0;
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

static void refused(const char *path, mesh_err want, const char *names)
{
    store_kv *kv = NULL;
    char why[512] = "";
    assert_int_equal(store_kv_open(path, &options, &kv, why, sizeof why), want);
    if (strstr(why, names) == NULL) {
        fail_msg("'%s' does not say '%s'", why, names);
    }
}

static uint64_t put(store_kv *kv, const char *key, const char *value)
{
    store_kv_batch *batch = store_kv_batch_new();
    store_kv_batch_put(batch, text(key), text(value));
    uint64_t ticket = store_kv_write(kv, batch, true);
    store_kv_batch_destroy(&batch);
    return ticket;
}

static void holds(store_kv *kv, const char *key, const char *value)
{
    mesh_buf out = { 0 };
    mesh_err err = store_kv_get(kv, text(key), &out);
    if (err != (value == NULL ? MESH_NOT_FOUND : MESH_OK) ||
        (value != NULL && store_omap_compare(mesh_buf_slice(&out), text(value)) != 0)) {
        fail_msg("%s is not %s", key, value != NULL ? value : "absent");
    }
    mesh_buf_fini(&out);
}

/* ---- views ---- */

/* Batch i puts a<i> and b<i>, deletes b<i - 1>, and says in n that it was there. */
static void write_numbered(store_kv *kv, store_kv_batch *batch, unsigned i, mesh_rand *r)
{
    char key[16], value[16];
    snprintf(key, sizeof key, "a%07u", i);
    snprintf(value, sizeof value, "%u", i);
    store_kv_batch_put(batch, text(key), text(value));
    key[0] = 'b';
    store_kv_batch_put(batch, text(key), text(value));
    snprintf(key, sizeof key, "b%07u", i - 1);
    store_kv_batch_delete(batch, text(key));
    store_kv_batch_put(batch, text("n"), text(value));
    (void)store_kv_write(kv, batch, mesh_rand_below(r, 3) == 0);
}

typedef struct reading {
    store_kv_view *view;
    mesh_buf after;
    unsigned as, bs, b, n;
    bool end;
} reading;

static void read_some(reading *g, mesh_rand *r)
{
    mesh_buf rows = { 0 };
    mesh_slice key, value, rest, last;
    size_t max = 1 + (size_t)mesh_rand_below(r, 3000);
    assert_int_equal(store_kv_view_read(g->view, mesh_buf_slice(&g->after), max, &rows, &g->end), MESH_OK);
    assert_int_equal(store_kv_rows_check(mesh_buf_slice(&rows), mesh_buf_slice(&g->after), &last), MESH_OK);
    rest = mesh_buf_slice(&rows);
    unsigned count = 0;
    for (; store_kv_rows_next(&rest, &key, &value) == MESH_OK; count++) {
        char number[16] = "";
        memcpy(number, value.data, value.size);
        unsigned v = (unsigned)atoi(number);
        if (key.data[0] == 'a') {
            assert_int_equal(v, ++g->as); /* every one of them */
        } else if (key.data[0] == 'b') {
            g->bs++;
            g->b = v;
        } else {
            g->n = v;
        }
    }
    assert_true(rows.size <= max || count == 1);
    assert_true(count > 0 || g->end);
    mesh_buf_clear(&g->after);
    if (last.size > 0) {
        mesh_buf_put(&g->after, last.data, last.size);
    }
    mesh_buf_fini(&rows);
}

static void view_is_one_moment(void **state)
{
    (void)state;
    const char *path = dir_named("moment");
    store_kv *kv = open_ok(path);
    store_kv_batch *batch = store_kv_batch_new();
    mesh_rand r = { 4 };
    reading views[3] = { 0 };
    unsigned n = 0, done = 0, later = 0;
    while (done < 12) {
        for (int i = 0; i < 40; i++) {
            write_numbered(kv, batch, ++n, &r);
        }
        (void)store_kv_durable(kv);
        reading *g = &views[mesh_rand_below(&r, 3)];
        if (g->view == NULL) {
            g->view = store_kv_view_new(kv);
            g->n = 0;
            g->as = g->bs = g->b = 0;
            g->end = false;
            mesh_buf_clear(&g->after);
        }
        for (int i = 0; i < 8 && !g->end; i++) {
            read_some(g, &r);
        }
        if (g->end) {
            assert_int_equal(g->as, g->n);
            assert_int_equal(g->bs, g->n > 0);
            assert_int_equal(g->b, g->n);
            later += n > g->n + 40;
            store_kv_view_destroy(&g->view);
            done++;
        }
    }
    assert_true(later > 3); /* writes did go on meanwhile */
    for (size_t i = 0; i < 3; i++) {
        store_kv_view_destroy(&views[i].view);
        mesh_buf_fini(&views[i].after);
    }
    store_kv_batch_destroy(&batch);
    store_kv_close(&kv);
}

static void view_of_nothing_and_of_large_rows(void **state)
{
    (void)state;
    store_kv *kv = open_ok(dir_named("large"));
    mesh_buf rows = { 0 }, value = { 0 };
    bool end = false;
    store_kv_view *view = store_kv_view_new(kv);
    assert_int_equal(store_kv_view_read(view, text(""), 1000, &rows, &end), MESH_OK);
    assert_true(end && rows.size == 0);
    char *large = malloc(100001);
    memset(large, 'x', 100000);
    large[100000] = 0;
    (void)put(kv, "b", large);
    (void)put(kv, "a", "1");
    (void)put(kv, "c", "");
    assert_int_equal(store_kv_wait(kv, put(kv, "d", "2")), MESH_OK);
    assert_int_equal(store_kv_view_get(view, text("a"), &value), MESH_NOT_FOUND); /* it is older */
    store_kv_view_destroy(&view);
    view = store_kv_view_new(kv);
    assert_int_equal(store_kv_view_get(view, text("a"), &value), MESH_OK);
    assert_int_equal(value.size, 1);
    mesh_buf_puts(&rows, "before");
    assert_int_equal(store_kv_view_read(view, text(""), 1000, &rows, &end), MESH_OK);
    assert_true(!end && rows.size == 6 + STORE_KV_ROW_HEAD + 2);
    mesh_buf_clear(&rows);
    assert_int_equal(store_kv_view_read(view, text("a"), 1000, &rows, &end), MESH_OK);
    assert_true(!end && rows.size == STORE_KV_ROW_HEAD + 1 + 100000);
    mesh_buf_clear(&rows);
    assert_int_equal(store_kv_view_read(view, text("b5"), 1000, &rows, &end), MESH_OK); /* a key that is not there */
    assert_true(end && rows.size == 2 * STORE_KV_ROW_HEAD + 3);
    mesh_buf_clear(&rows);
    assert_int_equal(store_kv_view_read(view, text("d"), 1000, &rows, &end), MESH_OK);
    assert_true(end && rows.size == 0);
    store_kv_view_destroy(&view);
    store_kv_close(&kv);
    mesh_buf_fini(&rows);
    mesh_buf_fini(&value);
    free(large);
}

static void view_of_rotten_tables(void **state)
{
    (void)state;
    const char *path = dir_named("rotten");
    store_kv *kv = open_ok(path);
    char value[4001];
    for (int i = 0; i < 1500; i++) { /* several memtables: rows are in table files */
        char key[16];
        snprintf(key, sizeof key, "k%04d", i);
        for (int j = 0; j < 4000; j++) {
            value[j] = (char)('a' + (i * 31 + j * j) % 26);
        }
        value[4000] = 0;
        (void)put(kv, key, value);
    }
    store_kv_close(&kv);
    kv = open_ok(path); /* what is left in the log file goes to a table as well */
    shell("for f in %s/*.ldb; do printf XXXX | dd of=$f bs=1 seek=2000 conv=notrunc 2>/dev/null; done", path);
    store_kv_view *view = store_kv_view_new(kv);
    mesh_buf rows = { 0 }, after = { 0 };
    mesh_slice last;
    bool end = false;
    mesh_err err = MESH_OK;
    while (err == MESH_OK && !end) {
        err = store_kv_view_read(view, mesh_buf_slice(&after), 100000, &rows, &end);
        if (err == MESH_OK) {
            assert_int_equal(store_kv_rows_check(mesh_buf_slice(&rows), mesh_buf_slice(&after), &last), MESH_OK);
            mesh_buf_clear(&after);
            mesh_buf_put(&after, last.data, last.size);
            mesh_buf_clear(&rows);
        }
    }
    assert_int_equal(err, MESH_CORRUPT);
    assert_int_equal(rows.size, 0);
    store_kv_view_destroy(&view);
    store_kv_close(&kv);
    mesh_buf_fini(&rows);
    mesh_buf_fini(&after);
}

/* ---- the incoming database ---- */

static store_kv_incoming *incoming_ok(const char *path)
{
    store_kv_incoming *in = NULL;
    char why[512] = "";
    mesh_err err = store_kv_incoming_open(path, &options, &in, why, sizeof why);
    if (err != MESH_OK) {
        fail_msg("incoming: %s: %s", mesh_err_name(err), why);
    }
    return in;
}

/* Rows of one letter each: the key, with the value v. */
static mesh_err put_letters(store_kv_incoming *in, const char *letters, const char *note)
{
    mesh_buf rows = { 0 };
    for (; *letters != 0; letters++) {
        store_kv_rows_put(&rows, (mesh_slice){ (const uint8_t *)letters, 1 }, text("v"));
    }
    mesh_err err = store_kv_incoming_put(in, mesh_buf_slice(&rows), text(note));
    mesh_buf_fini(&rows);
    return err;
}

static void expect_at(const store_kv_incoming *in, const char *last, const char *note)
{
    assert_int_equal(store_omap_compare(store_kv_incoming_last_key(in), text(last)), 0);
    assert_int_equal(store_omap_compare(store_kv_incoming_note(in), text(note)), 0);
}

static void finish_ok(store_kv_incoming **in_p, const char *key, const char *value)
{
    store_kv_batch *extra = store_kv_batch_new();
    store_kv_batch_put(extra, text(key), text(value));
    assert_int_equal(store_kv_incoming_finish(in_p, extra), MESH_OK);
    assert_null(*in_p);
    assert_int_equal(store_kv_batch_rows(extra), 0);
    store_kv_batch_destroy(&extra);
}

static void incoming_takes_good_rows_only(void **state)
{
    (void)state;
    const char *path = dir_named("rows");
    store_kv_incoming *in = incoming_ok(path);
    mesh_buf rows = { 0 };
    expect_at(in, "", "");
    assert_int_equal(put_letters(in, "bd", "1"), MESH_OK);
    expect_at(in, "d", "1");
    assert_int_equal(put_letters(in, "d", "2"), MESH_MALFORMED);
    assert_int_equal(put_letters(in, "c", "2"), MESH_MALFORMED);
    assert_int_equal(put_letters(in, "ee", "2"), MESH_MALFORMED);
    assert_int_equal(put_letters(in, "fe", "2"), MESH_MALFORMED);
    static const char *const bad[] = {
        "\1",                           /* cut in the head */
        "\1\0\0\0\0\0\0",               /* the same */
        "\0\0\0\0\1\0\0\0x",            /* no key */
        "\2\0\0\0\0\0\0\0x",            /* longer than it is */
        "\1\0\0\0\2\0\0\0xy",           /* the same */
        "\1\0\0\0\377\377\377\377xy",   /* far longer */
        "\377\377\377\377\1\0\0\0xy",   /* the same */
        "\377\377\377\377\2\0\0\0xy",   /* the sum turns over in 32 bits */
        "\1\0\0\0\0\0\0\0x\1\0\0\0\0\0" /* something behind it */
    };
    static const size_t sizes[] = { 1, 7, 9, 9, 10, 10, 10, 10, 15 };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        /* from the heap, so that a read beyond the end is seen */
        mesh_buf_clear(&rows);
        mesh_buf_put(&rows, bad[i], sizes[i]);
        uint8_t *copy = malloc(sizes[i]);
        memcpy(copy, rows.data, sizes[i]);
        assert_int_equal(store_kv_incoming_put(in, (mesh_slice){ copy, sizes[i] }, text("2")), MESH_MALFORMED);
        free(copy);
    }
    expect_at(in, "d", "1"); /* nothing of it left a trace */
    assert_int_equal(store_kv_incoming_put(in, text(""), text("3")), MESH_OK);
    expect_at(in, "d", "3");
    store_kv_incoming_close(&in);
    in = incoming_ok(path);
    expect_at(in, "d", "3");
    assert_int_equal(put_letters(in, "xyz", "4"), MESH_OK);
    store_kv_incoming_close(&in);
    assert_int_equal(store_kv_incoming_discard(path), MESH_OK);
    assert_int_equal(store_kv_incoming_discard(path), MESH_OK); /* nothing there */
    in = incoming_ok(path);
    expect_at(in, "", "");
    mesh_buf_clear(&rows);
    store_kv_rows_put(&rows, (mesh_slice){ (const uint8_t *)"\0A", 2 }, text("v"));
    assert_int_equal(store_kv_incoming_put(in, mesh_buf_slice(&rows), text("5")), MESH_OK);
    assert_int_equal(store_omap_compare(store_kv_incoming_last_key(in), (mesh_slice){ (const uint8_t *)"\0A", 2 }), 0);
    mesh_buf_clear(&rows);
    store_kv_rows_put(&rows, (mesh_slice){ (const uint8_t *)"\0I", 2 }, text("v"));
    assert_int_equal(store_kv_incoming_put(in, mesh_buf_slice(&rows), text("6")), MESH_MALFORMED);
    store_kv_incoming_close(&in);
    in = incoming_ok(path); /* the note is behind the last row here */
    assert_int_equal(store_omap_compare(store_kv_incoming_last_key(in), (mesh_slice){ (const uint8_t *)"\0A", 2 }), 0);
    assert_int_equal(put_letters(in, "a", "7"), MESH_OK);
    store_kv_incoming_close(&in);
    mesh_buf_fini(&rows);
}

/* The child puts for ever, three rows at a time, and tells of each put through the pipe. */
static int put_for_ever(const char *path, int fd)
{
    store_kv_incoming *in = NULL;
    char why[256], key[32], note[16];
    if (store_kv_incoming_open(path, &options, &in, why, sizeof why) != MESH_OK) {
        return 3;
    }
    static uint8_t value[5000];
    for (unsigned i = (unsigned)store_kv_incoming_last_key(in).size == 0 ? 1 : 1000000;; i++) {
        mesh_buf rows = { 0 };
        for (int k = 0; k < 3; k++) {
            snprintf(key, sizeof key, "k%07u/%d", i, k);
            store_kv_rows_put(&rows, text(key), (mesh_slice){ value, sizeof value });
        }
        snprintf(note, sizeof note, "%07u", i);
        if (store_kv_incoming_put(in, mesh_buf_slice(&rows), text(note)) != MESH_OK ||
            write(fd, &i, sizeof i) != sizeof i) {
            return 4;
        }
        mesh_buf_fini(&rows);
    }
}

static void killed_incoming_is_gone_on_with(void **state)
{
    (void)state;
    const char *path = dir_named("kill");
    for (unsigned round = 0; round < 4; round++) {
        int fds[2];
        assert_int_equal(pipe(fds), 0);
        pid_t child = fork();
        if (child == 0) { /* LevelDB's thread does not survive a fork: this program again */
            char number[16];
            snprintf(number, sizeof number, "%d", fds[1]);
            execl("/proc/self/exe", "test_store_kv_view", path, number, (char *)NULL);
            _exit(9);
        }
        close(fds[1]);
        unsigned told = 0, i;
        while (told % 1000000 < 40 + round * 130 && read(fds[0], &i, sizeof i) == sizeof i) {
            told = i;
        }
        assert_int_equal(kill(child, SIGKILL), 0);
        while (read(fds[0], &i, sizeof i) == sizeof i) {
            told = i;
        }
        close(fds[0]);
        int status;
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_true(WIFSIGNALED(status));
        store_kv_incoming *in = incoming_ok(path);
        mesh_slice last = store_kv_incoming_last_key(in), note = store_kv_incoming_note(in);
        char number[16] = "";
        assert_true(last.size == 10 && note.size == 7 && memcmp(last.data + 1, note.data, 7) == 0);
        assert_memory_equal(last.data + 8, "/2", 2);
        memcpy(number, note.data, 7);
        i = (unsigned)strtoul(number, NULL, 10);
        assert_true(i == told || i == told + 1); /* killed between put and telling */
        store_kv_incoming_close(&in);
        if (round % 2 == 1) {
            assert_int_equal(store_kv_incoming_discard(path), MESH_OK);
        }
    }
}

static void full_disk_ends_the_incoming(void **state)
{
    (void)state;
    const char *path = dir_named("full");
    store_kv_incoming *in = incoming_ok(path);
    assert_int_equal(put_letters(in, "a", "1"), MESH_OK);
    struct rlimit before, low = { 300000, 0 };
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    low.rlim_max = before.rlim_max;
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &low), 0);
    mesh_err err = MESH_OK;
    static uint8_t value[30000];
    for (int i = 0; err == MESH_OK && i < 1000; i++) {
        char key[16];
        mesh_buf rows = { 0 };
        snprintf(key, sizeof key, "k%04d", i);
        store_kv_rows_put(&rows, text(key), (mesh_slice){ value, sizeof value });
        err = store_kv_incoming_put(in, mesh_buf_slice(&rows), text("2"));
        mesh_buf_fini(&rows);
    }
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
    assert_int_equal(err, MESH_NO_SPACE);
    store_kv_incoming_close(&in);
    assert_int_equal(store_kv_incoming_discard(path), MESH_OK);
}

/* ---- the switch ---- */

/* path holds "which" = old; beside it, if asked, one with "which" = new, finished or not. */
static void build(const char *path, bool incoming, bool finished)
{
    store_kv *kv = open_ok(path);
    assert_int_equal(store_kv_wait(kv, put(kv, "which", "old")), MESH_OK);
    store_kv_close(&kv);
    if (incoming) {
        store_kv_incoming *in = incoming_ok(path);
        assert_int_equal(put_letters(in, "abc", "note"), MESH_OK);
        if (finished) {
            finish_ok(&in, "which", "new");
        }
        store_kv_incoming_close(&in);
    }
}

static void expect_settled(const char *path, const char *which, bool incoming)
{
    bool new = strcmp(which, "new") == 0;
    for (int i = 0; i < 2; i++) { /* and it stays so */
        store_kv *kv = open_ok(path);
        holds(kv, "which", which);
        holds(kv, "b", new ? "v" : NULL);
        mesh_buf note = { 0 };
        assert_int_equal(store_kv_get(kv, (mesh_slice){ (const uint8_t *)"\0I", 2 }, &note), MESH_NOT_FOUND);
        mesh_buf_fini(&note);
        assert_false(there(path, ".old"));
        assert_int_equal(there(path, ".incoming"), incoming);
        store_kv_close(&kv);
    }
}

static mesh_err switch_now(const char *path)
{
    char why[512] = "";
    mesh_err err = store_kv_switch(path, why, sizeof why);
    assert_true(err == MESH_OK || why[0] != 0);
    return err;
}

static void switched(void **state)
{
    (void)state;
    const char *path = dir_named("switched");
    build(path, true, true);
    store_kv_incoming *in = NULL;
    char why[512] = "";
    assert_int_equal(store_kv_incoming_open(path, &options, &in, why, sizeof why), MESH_CONFLICT);
    assert_int_equal(switch_now(path), MESH_OK);
    assert_false(there(path, ".old") || there(path, "/FINISHED"));
    expect_settled(path, "new", false);
    assert_int_equal(switch_now(path), MESH_NOT_FOUND);
    in = incoming_ok(path); /* and once more, with what a failed deletion left */
    finish_ok(&in, "which", "newer");
    shell("mkdir %s.old && touch %s.old/000007.ldb", path);
    assert_int_equal(switch_now(path), MESH_OK);
    store_kv *kv = open_ok(path);
    holds(kv, "which", "newer");
    holds(kv, "b", NULL);
    assert_false(there(path, ".old"));
    store_kv_close(&kv);
    in = incoming_ok(dir_named("fresh")); /* in the place of nothing */
    finish_ok(&in, "which", "first");
    assert_int_equal(switch_now(dir_named("fresh")), MESH_OK);
    kv = open_ok(dir_named("fresh"));
    holds(kv, "which", "first");
    store_kv_close(&kv);
}

/* The directories as each moment of a switch leaves them. */
static void killed_at_each_step(void **state)
{
    (void)state;
    static const struct {
        const char *moment;
        bool incoming, finished;
        const char *then; /* a command; both %s are the path */
        const char *which;
        bool left; /* the incoming one is still there */
    } steps[] = {
        { "while it fills", true, false, ": %s", "old", true },
        { "finished", true, true, ": %s", "old", false },
        { "discarding", true, true, "rm %s.incoming/FINISHED %s.incoming/CURRENT", "old", true },
        { "moved out", true, true, "mv %s %s.old", "new", false },
        { "moved out, incoming not finished", true, false, "mv %s %s.old", "old", true },
        { "moved out, no incoming", false, false, "mv %s %s.old", "old", false },
        { "moved in", true, true, "p=%s; mv $p $p.old && mv $p.incoming $p", "new", false },
        { "deleting", true, true, "p=%s; mv $p $p.old && mv $p.incoming $p && rm $p.old/CURRENT $p.old/*.log", "new",
          false },
        { "deleted but the directory", true, true, "p=%s; mv $p $p.old && mv $p.incoming $p && rm $p.old/*", "new",
          false },
        { "an empty directory in its place", false, false, "p=%s; mv $p $p.old && mkdir $p", "old", false },
    };
    for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) {
        char name[32];
        snprintf(name, sizeof name, "killed%d", (int)i);
        const char *path = dir_named(name);
        print_message("%s\n", steps[i].moment);
        build(path, steps[i].incoming, steps[i].finished);
        shell(steps[i].then, path);
        expect_settled(path, steps[i].which, steps[i].left);
        if (steps[i].left && strcmp(steps[i].moment, "discarding") != 0) { /* to go on with */
            store_kv_incoming *in = incoming_ok(path);
            expect_at(in, "c", "note");
            store_kv_incoming_close(&in);
        }
    }
}

static void plan(void **state)
{
    (void)state;
    static const kv_step want[16] = {
        /* bits: 1 db, 2 old, 4 incoming, 8 finished */
        KV_SETTLED, KV_SETTLED,       KV_MOVE_BACK, KV_DROP_OLD, /* no incoming */
        KV_SETTLED, KV_SETTLED,       KV_MOVE_BACK, KV_DROP_OLD, /* one under way */
        KV_SETTLED, KV_SETTLED,       KV_MOVE_BACK, KV_DROP_OLD, /* none */
        KV_MOVE_IN, KV_DROP_INCOMING, KV_MOVE_IN,   KV_DROP_OLD, /* a finished one */
    };
    for (unsigned i = 0; i < 16; i++) {
        kv_places places = { (i & 1) != 0, (i & 2) != 0, (i & 4) != 0, (i & 8) != 0 };
        assert_int_equal(store_kv_plan_next(&places), want[i]);
    }
}

static void damage_is_refused(void **state)
{
    (void)state;
    const char *path = dir_named("damage");
    build(path, true, true);
    shell("cp -r %s.incoming %s.good", path);
    shell("f=$(ls %s.incoming/*.log); printf X | dd of=$f bs=1 seek=9 conv=notrunc 2>/dev/null", path);
    assert_int_equal(switch_now(path), MESH_CORRUPT); /* nothing was moved */
    assert_true(there(path, "/CURRENT") && there(path, ".incoming") && !there(path, ".old"));
    shell("rm -r %1$s.incoming; mv %1$s.good %1$s.incoming", path);
    assert_int_equal(switch_now(path), MESH_OK);
    shell("f=$(ls %s/*.log); printf X | dd of=$f bs=1 seek=9 conv=notrunc 2>/dev/null", path);
    refused(path, MESH_CORRUPT, ".log: a record's checksum is wrong at offset ");

    path = dir_named("hidden"); /* damage in the place where the old one must go back to */
    build(path, false, false);
    shell("cp -r %s %s.old && rm %1$s/CURRENT", path);
    refused(path, MESH_CORRUPT, "CURRENT is missing");
    assert_true(there(path, ".old"));
}

static int make_root(void **state)
{
    (void)state;
    snprintf(root, sizeof root, "/dev/shm/parley-view-XXXXXX"); /* memory: no power is cut here */
    if (mkdtemp(root) != NULL) {
        return 0;
    }
    snprintf(root, sizeof root, "/tmp/parley-view-XXXXXX");
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
    if (argc == 3) {
        return put_for_ever(argv[1], atoi(argv[2]));
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(view_is_one_moment),
        cmocka_unit_test(view_of_nothing_and_of_large_rows),
        cmocka_unit_test(view_of_rotten_tables),
        cmocka_unit_test(incoming_takes_good_rows_only),
        cmocka_unit_test(killed_incoming_is_gone_on_with),
        cmocka_unit_test(full_disk_ends_the_incoming),
        cmocka_unit_test(switched),
        cmocka_unit_test(killed_at_each_step),
        cmocka_unit_test(plan),
        cmocka_unit_test(damage_is_refused),
    };
    return cmocka_run_group_tests(tests, make_root, remove_root);
}
