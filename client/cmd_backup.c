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
#include "mesh/alloc.h"
#include "mesh/link.h"
#include "mesh/log.h"
#include "mesh/rand.h"
#include "store/backup.h"
#include "store/fetch.h"
#include "store/restore.h"

#define ANSWER_MS 3000
#define SILENT_MS 60000 /* without a chunk: it is given up */
#define WHY_SIZE 5000

typedef struct told { /* by a store, of itself */
    bool known, leads;
    uint64_t term, applied;
} told;

typedef enum backup_state { BACKUP_ASKING, BACKUP_COPYING, BACKUP_DONE, BACKUP_FAILED } backup_state;

typedef struct copying {
    const mesh_conf *conf;
    const char *dir;
    mesh_peer self, only; /* only: --from, MESH_NO_PEER: any */
    store_backup *backup; /* there: shards that are wanted */
    mesh_loop *loop;
    mesh_link *link;
    mesh_out *out;
    backup_state state;
    mesh_ms until; /* answers are waited for; then: the next chunk is */
    told *stores;  /* by peer */
    size_t missing;
    size_t shard; /* that is copied */
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

static mesh_peer leader_of(const copying *c, const mesh_peer *stores, size_t n)
{
    mesh_peer leader = MESH_NO_PEER;
    for (size_t i = 0; i < n; i++) {
        const told *t = &c->stores[stores[i]];
        if (t->known && t->leads && (leader == MESH_NO_PEER || t->term > c->stores[leader].term)) {
            leader = stores[i];
        }
    }
    return leader;
}

/* Followers first, the leader last; or only the one that was named. */
static size_t sources(const copying *c, mesh_peer leader, const mesh_peer *stores, size_t n, mesh_peer *peers)
{
    size_t found = 0;
    for (size_t i = 0; i < n; i++) {
        if (stores[i] != leader && c->stores[stores[i]].known && (c->only == MESH_NO_PEER || c->only == stores[i])) {
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
    mesh_peer leader = leader_of(c, stores, n);
    if (leader == MESH_NO_PEER || c->stores[leader].applied == 0) {
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
        .self = c->self,
        .path = store_backup_path(path, c->dir, c->shard),
        .options = { .write_buffer = 16u << 20, .block_cache = 4u << 20, .max_open_files = 500 },
        .seed = mesh_rand_seed(),
    };
    c->fetch = store_fetch_new(&conf, peers, found, c->stores[leader].applied, now);
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

static mesh_ms turn_copy(copying *c, mesh_time now)
{
    mesh_ms next = store_fetch_turn(c->fetch, now, c->out);
    uint64_t chunks = store_fetch_counted(c->fetch).chunks;
    mesh_err err = store_fetch_state(c->fetch);
    if (chunks != c->chunks) {
        c->chunks = chunks;
        c->until = now.mono + SILENT_MS;
    }
    if (err != MESH_AGAIN) {
        end_shard(c, err, now);
        return now.mono;
    }
    if (now.mono >= c->until) {
        fail(c, "", "no store gives its rows; those that are asked are behind, busy or gone", c->shard);
        return now.mono;
    }
    return next < c->until ? next : c->until;
}

static mesh_ms turn(void *arg, mesh_time now)
{
    copying *c = arg;
    bool more = mesh_link_receive(c->link, now);
    mesh_ms next = c->until;
    if (c->state == BACKUP_ASKING && (c->missing == 0 || now.mono >= c->until)) {
        next_shard(c, 0, now);
    }
    if (c->state == BACKUP_COPYING) {
        next = turn_copy(c, now);
    }
    mesh_link_send(c->link, c->out, now);
    mesh_ms tick = mesh_link_tick(c->link, now);
    if (mesh_loop_stopping() && c->state != BACKUP_DONE) {
        fail(c, "", "interrupted; the same command begins again", c->shard);
    }
    if (c->state == BACKUP_DONE || c->state == BACKUP_FAILED) {
        mesh_loop_stop(c->loop);
    }
    next = tick < next ? tick : next;
    return more ? now.mono : next;
}

/* ---- links ---- */

static void on_message(void *arg, mesh_peer from, const Mesh__Msg *msg, mesh_slice packed, mesh_time now)
{
    (void)packed;
    copying *c = arg;
    if (msg->body_case == MESH__MSG__BODY_STATS_TEXT && !c->stores[from].known) {
        const char *text = msg->stats_text->text;
        c->stores[from] = (told){ .known = true,
                                  .leads = client_metrics_sum(text, "parley_store_leader", NULL) == 1,
                                  .term = client_metrics_sum(text, "parley_store_term", NULL),
                                  .applied = client_metrics_sum(text, "parley_store_applied_index", NULL) };
        c->missing--;
    } else if (c->fetch != NULL && store_fetch_takes(c->fetch, msg)) {
        store_fetch_message(c->fetch, from, msg, now, c->out);
    }
}

static void on_up(void *arg, mesh_peer peer, uint64_t boot, mesh_time now)
{
    (void)boot;
    (void)now;
    copying *c = arg;
    Mesh__Stats stats = MESH__STATS__INIT;
    MESH_MSG(msg, STATS, stats, &stats);
    msg.corr = 1u + peer;
    mesh_out_put(c->out, peer, &msg);
}

static void on_down(void *arg, mesh_peer peer, mesh_time now)
{
    (void)arg;
    (void)peer;
    (void)now;
}

static bool run_links(copying *c)
{
    static const mesh_link_handler handler = { on_message, on_up, on_down, NULL };
    c->out = mesh_out_new(mesh_conf_nodes(c->conf));
    c->loop = mesh_loop_new(turn, c);
    c->until = mesh_clock_now().mono + ANSWER_MS;
    bool ok = mesh_link_new(c->loop, c->conf, c->self, mesh_rand_seed(), &handler, c, &c->link) == MESH_OK;
    for (size_t i = 0; ok && i < mesh_conf_nodes(c->conf); i++) {
        const mesh_node_conf *node = mesh_conf_node(c->conf, (mesh_peer)i);
        if (node->role == MESH_STORE && node->shard < c->backup->n_shards && c->backup->shards[node->shard].there) {
            c->missing++;
            mesh_link_dial(c->link, (mesh_peer)i);
        }
    }
    if (ok) {
        mesh_loop_run(c->loop);
    }
    store_fetch_destroy(&c->fetch);
    mesh_link_destroy(&c->link);
    mesh_loop_destroy(&c->loop);
    mesh_out_destroy(&c->out);
    return ok;
}

static bool copy_all(copying *c, const char *data)
{
    char *keys = client_data_path(data, "keys");
    c->stores = mesh_alloc(mesh_conf_nodes(c->conf) * sizeof *c->stores);
    mesh_err err = mesh_link_setup(c->conf, keys);
    bool ok = err == MESH_OK && run_links(c);
    if (err == MESH_OK) {
        mesh_link_teardown();
    }
    if (!ok) {
        snprintf(c->why, sizeof c->why, "the links cannot be set up with the keys in %.4000s", keys);
    }
    free(c->stores);
    free(keys);
    return ok && c->state == BACKUP_DONE;
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
    c->self = mesh_conf_find(c->conf, "operator");
    if (c->self == MESH_NO_PEER || mesh_conf_node(c->conf, c->self)->role != MESH_OPERATOR) {
        client_args_fail("the config knows no operator: a cluster in one process is copied while it is stopped");
        return false;
    }
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

static int make(copying *c, const char *data)
{
    if (mkdir(c->dir, 0700) != 0 && errno != EEXIST) {
        client_args_fail("%s: %s", c->dir, strerror(errno));
        return 1;
    }
    if (store_backup_is_saved(c->dir)) {
        client_args_fail("%s holds a backup already", c->dir);
        return 1;
    }
    if (!copy_all(c, data) || !finish(c)) {
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
    char *path = client_data_path(data, "cluster.conf");
    mesh_conf *conf = client_data_conf(path);
    free(path);
    if (conf == NULL) {
        return 1;
    }
    mesh_loop_signals();
    copying c = { .conf = conf, .dir = to, .backup = store_backup_new(conf) };
    code = choose(&c, shard, from) ? make(&c, data) : CLIENT_EXIT_USAGE;
    store_backup_destroy(&c.backup);
    mesh_conf_destroy(&conf);
    return code;
}
