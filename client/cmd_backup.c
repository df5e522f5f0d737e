/* client/cmd_backup.c: rows are pulled over node links with the operator's key, one shard after the other: first the
 * stores are asked how they are, then each shard's rows come from a follower that has all that the leader had applied
 * (and so acknowledged) by then, or from the leader. The manifest is written when everything was read back. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "client/args.h"
#include "client/cmd.h"
#include "client/data.h"
#include "client/metrics.h"
#include "client/operator.h"
#include "client/view.h"
#include "mesh/log.h"
#include "mesh/loop.h"
#include "mesh/rand.h"
#include "store/backup.h"
#include "store/fetch.h"
#include "store/restore.h"

#define SILENT_MS 60000 /* without a chunk: it is given up */
#define WHY_SIZE 5000

typedef enum backup_state { BACKUP_COPYING, BACKUP_DONE, BACKUP_FAILED } backup_state;

typedef struct copying {
    client_operator *op;
    const mesh_conf *conf; /* the operator's */
    const char *dir;
    mesh_peer only;       /* --from, MESH_NO_PEER: any */
    store_backup *backup; /* there: shards that are wanted */
    const char *const *texts;
    client_view *view; /* of the texts */
    backup_state state;
    mesh_ms until; /* the next chunk is waited for */
    size_t shard;  /* that is copied */
    uint64_t chunks;
    store_fetch *fetch;
    char why[WHY_SIZE];
} copying;

static void fail(copying *c, const char *format, const char *what, size_t shard)
{
    char text[WHY_SIZE];
    snprintf(text, sizeof text, "%s", what);
    snprintf(c->why, sizeof c->why, "shard %zu: %s%.4000s", shard, format, text);
    c->state = BACKUP_FAILED;
}

/* ---- whom to ask ---- */

/* Followers first, the leader last; or only the one that was named. */
static size_t sources(const copying *c, mesh_peer leader, const mesh_peer *stores, size_t n, mesh_peer *peers)
{
    size_t found = 0;
    for (size_t i = 0; i < n; i++) {
        if (stores[i] != leader && c->texts[stores[i]] != NULL && (c->only == MESH_NO_PEER || c->only == stores[i])) {
            peers[found++] = stores[i];
        }
    }
    if (c->only == MESH_NO_PEER || c->only == leader) {
        peers[found++] = leader;
    }
    return found;
}

static void begin_shard(copying *c, mesh_time now)
{
    char path[STORE_BACKUP_PATH];
    mesh_peer stores[MESH_REPLICAS_MAX], peers[MESH_REPLICAS_MAX];
    size_t n = mesh_conf_stores(c->conf, (uint32_t)c->shard, stores);
    mesh_peer leader = client_view_shard(c->view, (uint32_t)c->shard)->leader;
    uint64_t applied =
        leader != MESH_NO_PEER ? client_metrics_sum(c->texts[leader], "parley_store_applied_index", NULL) : 0;
    if (applied == 0) {
        fail(c, "", "no store says that it leads it", c->shard);
        return;
    }
    size_t found = sources(c, leader, stores, n, peers);
    if (found == 0) {
        fail(c, "", "the store of --from does not answer", c->shard);
        return;
    }
    store_fetch_conf conf = {
        .conf = c->conf,
        .self = mesh_conf_find(c->conf, "operator"),
        .path = store_backup_path(path, c->dir, c->shard),
        .options = { .write_buffer = 16u << 20, .block_cache = 4u << 20, .max_open_files = 500 },
        .seed = mesh_rand_seed(),
    };
    c->fetch = store_fetch_new(&conf, peers, found, applied, now);
    c->chunks = 0;
    c->until = now.mono + SILENT_MS;
}

/* The next one that is wanted, from `from` on. */
static void next_shard(copying *c, size_t from, mesh_time now)
{
    for (c->shard = from; c->shard < c->backup->n_shards; c->shard++) {
        if (c->backup->shards[c->shard].there) {
            c->state = BACKUP_COPYING;
            begin_shard(c, now);
            return;
        }
    }
    c->state = BACKUP_DONE;
}

/* ---- copying ---- */

static void end_shard(copying *c, mesh_err err, mesh_time now)
{
    char path[STORE_BACKUP_PATH], why[1024] = "";
    store_kv_batch *nothing = store_kv_batch_new();
    if (err == MESH_OK) {
        err = store_fetch_finish(c->fetch, nothing);
    }
    store_kv_batch_destroy(&nothing);
    store_fetch_destroy(&c->fetch);
    if (err == MESH_OK) {
        err = store_kv_switch(store_backup_path(path, c->dir, c->shard), why, sizeof why);
    }
    if (err != MESH_OK) {
        fail(c, why[0] != '\0' ? "" : "it cannot be written: ", why[0] != '\0' ? why : mesh_err_name(err), c->shard);
        return;
    }
    next_shard(c, c->shard + 1, now);
}

static void on_message(void *arg, mesh_peer from, const Mesh__Msg *msg, mesh_time now, mesh_out *out)
{
    copying *c = arg;
    if (c->fetch != NULL && store_fetch_takes(c->fetch, msg)) {
        store_fetch_message(c->fetch, from, msg, now, out);
    }
}

static bool turn(void *arg, mesh_time now, mesh_out *out)
{
    copying *c = arg;
    if (c->state != BACKUP_COPYING) {
        return false;
    }
    (void)store_fetch_turn(c->fetch, now, out);
    uint64_t chunks = store_fetch_counted(c->fetch).chunks;
    mesh_err err = store_fetch_state(c->fetch);
    if (chunks != c->chunks) {
        c->chunks = chunks;
        c->until = now.mono + SILENT_MS;
    }
    if (err != MESH_AGAIN) {
        end_shard(c, err, now);
    } else if (now.mono >= c->until) {
        fail(c, "", "no store gives its rows; those that are asked are behind, busy or gone", c->shard);
    }
    return c->state == BACKUP_COPYING;
}

static bool copy_all(copying *c)
{
    const client_operator_task task = { on_message, turn, c };
    c->texts = client_operator_look(c->op);
    c->view = client_view_new(c->conf, c->texts);
    next_shard(c, 0, mesh_clock_now());
    client_operator_run(c->op, &task);
    store_fetch_destroy(&c->fetch);
    client_view_destroy(&c->view);
    if (c->state == BACKUP_COPYING) {
        fail(c, "", "interrupted; the same command begins again", c->shard);
    }
    return c->state == BACKUP_DONE;
}

/* ---- the command ---- */

static void print_shards(const store_backup *backup)
{
    for (size_t i = 0; i < backup->n_shards; i++) {
        const store_backup_shard *s = &backup->shards[i];
        if (s->there) {
            printf("shard %zu  index %" PRIu64 "  rows %" PRIu64 "  bytes %" PRIu64 "\n", i, s->index, s->rows,
                   s->bytes);
        }
    }
}

/* Read back what came, and say in the manifest that it is all there. */
static bool finish(copying *c)
{
    mesh_err err = MESH_OK;
    bool all = true;
    for (size_t i = 0; i < c->backup->n_shards && err == MESH_OK; i++) {
        all = all && c->backup->shards[i].there;
        if (c->backup->shards[i].there) {
            err = store_backup_read(c->dir, i, &c->backup->shards[i], c->why, sizeof c->why);
        }
    }
    err = err == MESH_OK && all ? store_restore_fits(c->conf, c->dir, c->why, sizeof c->why) : err;
    return err == MESH_OK && store_backup_save(c->backup, c->dir, c->why, sizeof c->why) == MESH_OK;
}

static int check(const char *dir)
{
    char why[WHY_SIZE] = "";
    store_backup *backup = NULL;
    mesh_err err = store_backup_load(dir, &backup, why, sizeof why);
    err = err == MESH_OK ? store_backup_check(backup, dir, why, sizeof why) : err;
    if (err == MESH_OK) {
        print_shards(backup);
        printf("backup good: %s, cluster %s of %s\n", dir, backup->cluster, backup->time);
    } else {
        client_args_fail("backup bad: %s", why);
    }
    store_backup_destroy(&backup);
    return err == MESH_OK ? 0 : 1;
}

/* False: one line was printed. */
static bool choose(copying *c, const char *shard, const char *from)
{
    int64_t number = -1;
    c->only = MESH_NO_PEER;
    if (!client_args_int("shard", shard, -1, 0, (int64_t)c->backup->n_shards - 1, &number)) {
        return false;
    }
    if (from != NULL) {
        c->only = mesh_conf_find(c->conf, from);
        if (c->only == MESH_NO_PEER || mesh_conf_node(c->conf, c->only)->role != MESH_STORE) {
            client_args_fail("%s is no store", from);
            return false;
        }
        number = number < 0 ? (int64_t)mesh_conf_node(c->conf, c->only)->shard : number;
        if (number != (int64_t)mesh_conf_node(c->conf, c->only)->shard) {
            client_args_fail("%s is no store of shard %" PRId64, from, number);
            return false;
        }
    }
    for (size_t i = 0; i < c->backup->n_shards; i++) {
        c->backup->shards[i].there = number < 0 || (int64_t)i == number;
    }
    return true;
}

static int make(copying *c)
{
    if (mkdir(c->dir, 0700) != 0 && errno != EEXIST) {
        client_args_fail("%s: %s", c->dir, strerror(errno));
        return 1;
    }
    if (store_backup_is_saved(c->dir)) {
        client_args_fail("%s holds a backup already", c->dir);
        return 1;
    }
    if (!copy_all(c) || !finish(c)) {
        client_args_fail("backup failed: %s", c->why);
        return 1;
    }
    print_shards(c->backup);
    printf("backup done: %s\n", c->dir);
    return 0;
}

int client_cmd_backup(int argc, char **argv)
{
    const char *data = "data", *to = NULL, *shard = NULL, *from = NULL, *checked = NULL;
    const client_option options[] = {
        { "data", "DIR", "the cluster's directory, with the operator's key (data)", &data },
        { "to", "DIR", "where the backup goes: a directory that is new, or of a backup that was not finished", &to },
        { "shard", "N", "only this shard (all); a restore needs all", &shard },
        { "from", "NODE", "only from this store (a follower, else the leader), and only its shard", &from },
        { "check", "DIR", "make none: read the backup in DIR, with all its checksums", &checked },
        { NULL, NULL, NULL, NULL },
    };
    const client_args args = {
        "parley backup --to DIR [options]",
        "Copies every shard's rows while the cluster serves. All that was acked when the command\n"
        "was given is in the backup. See `parley restore`.",
        options,
        NULL,
        0,
        0
    };
    int code;
    if (client_args_parse(&args, argc, argv, &code) < 0) {
        return code;
    }
    mesh_log_setup("backup", MESH_ERROR);
    if (checked != NULL) {
        return check(checked);
    }
    if (to == NULL || strlen(to) > STORE_BACKUP_PATH - 64) {
        return client_args_fail("--to is missing, or too long");
    }
    mesh_loop_signals();
    copying c = { .op = client_operator_open(data), .dir = to };
    if (c.op == NULL) {
        return 1;
    }
    c.conf = client_operator_conf(c.op);
    c.backup = store_backup_new(c.conf);
    code = choose(&c, shard, from) ? make(&c) : CLIENT_EXIT_USAGE;
    store_backup_destroy(&c.backup);
    client_operator_close(&c.op);
    return code;
}
