#include "store/database.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "mesh/alloc.h"
#include "mesh/fault.h"
#include "mesh/log.h"
#include "mesh/rand.h"
#include "store/check.h"
#include "store/metrics.h"

#define MIB (1024 * 1024)
#define WHY_SIZE 1024

enum { STAT_FREE, STAT_LOW, STAT_OPEN, STAT_FULLS, STAT_ANSWERED_FULL, STAT_QUARANTINES, STAT_LOST, STATS };

static const mesh_stat_info stat_infos[STATS] = {
    [STAT_FREE] = { "parley_store_free_bytes", "Free space where the database lives.", MESH_GAUGE, NULL },
    [STAT_LOW] = { "parley_store_space_low", "1: writes are refused until there is more space.", MESH_GAUGE, NULL },
    [STAT_OPEN] = { "parley_store_open", "1: the database is open.", MESH_GAUGE, NULL },
    [STAT_FULLS] = { "parley_store_disk_fulls_total", "Times a write found the disk full.", MESH_COUNTER, NULL },
    [STAT_ANSWERED_FULL] = { "parley_store_refused_closed_total", "Requests refused while the database was closed.",
                             MESH_COUNTER, NULL },
    [STAT_QUARANTINES] = { "parley_store_quarantines_total", "Times this replica's data was put aside.", MESH_COUNTER,
                           NULL },
    [STAT_LOST] = { "parley_store_lost", "1: its data was put aside, and it is not back in its group yet.", MESH_GAUGE,
                    NULL },
};

struct store_database {
    const mesh_conf *conf;
    mesh_peer self;
    const mesh_node_conf *node;
    mesh_loop *loop;
    int status;
    char path[PATH_MAX];
    uint64_t opens;  /* times a database was opened */
    bool alone;      /* no other store in the shard */
    bool lost;       /* its data was put aside, and it has not voted since */
    uint64_t *boots; /* by peer, 0: down */
    mesh_out *out;
    store_kv *kv; /* with core: both or none */
    store_core *core;
    mesh_ms retry_at; /* while it is closed */
    mesh_ms space_at;
    bool space_low;
    mesh_stats *stats;
    mesh_stats *core_stats; /* of one core after the other */
};

/* ---- open and closed ---- */

/* Whoever waits in the core is told: their links stay up, they would wait for nothing. */
static void close_database(store_database *d)
{
    if (d->core != NULL) {
        store_core_refuse_all(d->core, d->out);
    }
    store_core_destroy(&d->core);
    if (d->kv != NULL) {
        if (store_kv_fd(d->kv) >= 0) {
            mesh_loop_unwatch_fd(d->loop, store_kv_fd(d->kv));
        }
        store_kv_close(&d->kv);
    }
    mesh_stats_set(d->stats, STAT_OPEN, 0);
}

static void check_space(store_database *d, mesh_time now)
{
    uint64_t free_bytes = store_kv_free_bytes(d->kv);
    bool low = free_bytes < (uint64_t)mesh_conf_int(d->conf, "store.free_min_mib") * MIB;
    d->space_at = now.mono + STORE_SPACE_MS;
    mesh_stats_set(d->stats, STAT_FREE, free_bytes);
    mesh_stats_set(d->stats, STAT_LOW, low);
    store_core_set_space(d->core, !low);
    if (low != d->space_low) {
        d->space_low = low;
        mesh_log(low ? MESH_ERROR : MESH_INFO, low ? "space_low" : "space_back",
                 "free_mib=%" PRIu64 " store.free_min_mib=%" PRId64 " writes=%s", free_bytes / MIB,
                 mesh_conf_int(d->conf, "store.free_min_mib"), low ? "refused" : "taken");
    }
}

static store_kv_options kv_options(const store_database *d)
{
    return (store_kv_options){ .write_buffer = (uint64_t)mesh_conf_int(d->conf, "store.write_buffer_mib") * MIB,
                               .block_cache = (uint64_t)mesh_conf_int(d->conf, "store.block_cache_mib") * MIB,
                               .max_open_files = (int)mesh_conf_int(d->conf, "store.max_open_files") };
}

static mesh_err open_core(store_database *d, mesh_time now, char *why)
{
    if (store_kv_fd(d->kv) >= 0) {
        mesh_loop_watch_fd(d->loop, store_kv_fd(d->kv));
    }
    store_core_conf conf = {
        .conf = d->conf, .self = d->self, .seed = mesh_rand_seed(), .path = d->path, .options = kv_options(d)
    };
    conf.lost = d->lost;
    conf.stats = d->core_stats;
    return store_core_new(&conf, d->kv, now, &d->core, why, WHY_SIZE);
}

/* why: WHY_SIZE bytes. After an error all is closed. */
static mesh_err open_once(store_database *d, mesh_time now, char *why)
{
    store_kv_options options = kv_options(d);
    why[0] = '\0';
    d->lost = !d->alone && store_kv_is_lost(d->path);
    mesh_stats_set(d->stats, STAT_LOST, d->lost);
    mesh_err err = store_kv_open(d->path, &options, &d->kv, why, WHY_SIZE);
    if (err == MESH_OK) {
        err = open_core(d, now, why);
    }
    if (err != MESH_OK) {
        close_database(d);
        return err;
    }
    mesh_stats_set(d->stats, STAT_OPEN, 1);
    d->opens++;
    check_space(d, now);
    for (size_t i = 0; i < mesh_conf_nodes(d->conf); i++) { /* opened again: the links were up all the time */
        if (d->boots[i] != 0) {
            store_core_up(d->core, (mesh_peer)i, d->boots[i], now, d->out);
        }
    }
    mesh_log(MESH_INFO, "database_open", "path=%s epoch=%" PRIu64, d->path,
             mesh_stats_get(store_core_stats(d->core), STORE_M_RING_EPOCH));
    return MESH_OK;
}

/* Say what is wrong with a database that does not open. Returns the exit status. */
static int judge(const store_database *d, mesh_err err, const char *why)
{
    if (err == MESH_FULL) {
        return 2; /* it could not be put aside either, see quarantine */
    }
    if (err == MESH_CORRUPT) {
        mesh_log(
            MESH_ERROR, "data_refused", "path=%s reason=%s next=%s", d->path, why,
            "nothing was changed; restore a backup, or see what can be saved into a copy with: parley store salvage");
        return 2;
    }
    if (err == MESH_CONFLICT) {
        mesh_log(MESH_ERROR, "data_refused", "path=%s reason=%s next=%s", d->path, why,
                 "nothing was changed; this is not the database of this node in this cluster");
        return 2;
    }
    if (err == MESH_UNSUPPORTED) {
        mesh_log(MESH_ERROR, "data_refused", "path=%s reason=%s next=%s", d->path,
                 why[0] != '\0' ? why : "a later version wrote it; downgrade is not possible",
                 "nothing was changed; run that version again, or restore a backup");
        return 2;
    }
    if (strstr(why, "LOCK") != NULL) {
        mesh_log(MESH_ERROR, "database_in_use", "path=%s reason=%s next=%s", d->path, why,
                 "another process runs this store; stop it first");
        return 1;
    }
    mesh_log(MESH_ERROR, "database_not_open", "path=%s error=%s reason=%s", d->path, mesh_err_name(err), why);
    return 1;
}

static void drop_out(store_database *d)
{
    mesh_out_destroy(&d->out);
    d->out = mesh_out_new(mesh_conf_nodes(d->conf));
}

/* Put the closed database aside. Errors: as store_kv_quarantine. */
static mesh_err quarantine(store_database *d, mesh_time now, const char *found)
{
    char stamp[32], kept[PATH_MAX + 64] = "";
    struct tm tm;
    time_t wall = (time_t)(now.wall / 1000);
    gmtime_r(&wall, &tm);
    strftime(stamp, sizeof stamp, "%Y%m%dT%H%M%SZ", &tm);
    mesh_err err = store_kv_quarantine(d->path, stamp, kept, sizeof kept);
    if (err == MESH_OK) {
        mesh_stats_add(d->stats, STAT_QUARANTINES, 1);
        mesh_log(
            MESH_ERROR, "data_quarantined", "path=%s reason=%s kept=%s next=%s", d->path, found, kept,
            "it begins without data and gets it from the other replicas; look at the disk, then delete what is kept");
    } else if (err == MESH_FULL) {
        mesh_log(MESH_ERROR, "quarantine_full", "path=%s reason=%s max=%d next=%s", d->path, found,
                 STORE_QUARANTINES_MAX,
                 "nothing was changed; this disk goes bad again and again: replace it, or delete what is kept in "
                 "*.quarantine-*, then start again");
    } else {
        mesh_log(MESH_ERROR, "quarantine_failed", "path=%s reason=%s error=%s", d->path, found, mesh_err_name(err));
    }
    return err;
}

static void wait_for_space(store_database *d, mesh_time now, const char *why)
{
    mesh_stats_add(d->stats, STAT_FULLS, 1);
    mesh_log(MESH_ERROR, "disk_full", "path=%s reason=%s next=%s", d->path, why,
             "nothing acked is lost; every request is refused until there is space");
    close_database(d);
    d->retry_at = now.mono + STORE_REOPEN_MS;
}

static void fail(store_database *d, int status)
{
    d->status = status;
    mesh_loop_stop(d->loop);
}

/* As open_once; what one of several replicas cannot trust is put aside, and it opens empty.
 * Errors: also MESH_FULL, which was logged. */
static mesh_err open_whole(store_database *d, mesh_time now, char *why)
{
    mesh_err err = open_once(d, now, why);
    if (err == MESH_CORRUPT && !d->alone) {
        err = quarantine(d, now, why);
        err = err == MESH_OK ? open_once(d, now, why) : err;
    }
    return err;
}

static void open_again(store_database *d, mesh_time now)
{
    char why[WHY_SIZE];
    mesh_err err = open_whole(d, now, why);
    if (err == MESH_NO_SPACE) {
        d->retry_at = now.mono + STORE_REOPEN_MS;
    } else if (err != MESH_OK) {
        fail(d, judge(d, err, why));
    }
}

/* The database in use is not to be trusted any more. Where it cannot be put aside, nothing goes on. */
static void abandon(store_database *d, mesh_time now, const char *found)
{
    drop_out(d);
    close_database(d);
    mesh_err err = quarantine(d, now, found);
    if (err == MESH_OK) {
        open_again(d, now);
    } else {
        fail(d, err == MESH_FULL ? 2 : 1);
    }
}

/* The entries before it are applied, its own rows are as they should be. */
static void stop_at_entry(store_database *d)
{
    mesh_log(MESH_ERROR, "data_refused", "path=%s reason=%s next=%s", d->path,
             "a later version wrote an entry of its log; downgrade is not possible",
             "nothing of that entry was done; run that version again, or restore a backup");
    fail(d, 2);
}

static void check_error(store_database *d, mesh_time now)
{
    mesh_err err = store_core_error(d->core);
    if (err != MESH_OK) {
        drop_out(d);
    }
    if (err == MESH_CORRUPT && !d->alone) {
        abandon(d, now, "a row does not read back");
    } else if (err == MESH_NO_SPACE) {
        wait_for_space(d, now, "a write failed");
    } else if (err == MESH_UNSUPPORTED) {
        stop_at_entry(d);
    } else if (err != MESH_OK) {
        mesh_log(MESH_ERROR, "disk_failed", "path=%s error=%s free_mib=%" PRIu64 " next=%s", d->path,
                 mesh_err_name(err), store_kv_free_bytes(d->kv) / MIB,
                 "nothing is acked any more; stopping, look at the disk");
        fail(d, 1);
    }
}

/* A copy of another replica's rows is ready, or this disk could not take it: what the core says about its database. */
static void check_verdict(store_database *d, mesh_time now)
{
    char why[WHY_SIZE] = "";
    store_verdict verdict = d->core != NULL ? store_core_verdict(d->core) : STORE_GO_ON;
    if (verdict == STORE_GO_ON) {
        return;
    }
    if (verdict == STORE_QUARANTINE) {
        abandon(d, now, "it is out of date, says another replica");
        return;
    }
    close_database(d);
    if (verdict == STORE_REOPEN_LATER) {
        d->retry_at = now.mono + STORE_REOPEN_MS;
        return;
    }
    mesh_err err = verdict == STORE_SWITCH ? store_kv_switch(d->path, why, sizeof why) : MESH_OK;
    mesh_log(err == MESH_OK ? MESH_INFO : MESH_ERROR, "database_replaced", "path=%s copy=%d error=%s reason=%s",
             d->path, verdict == STORE_SWITCH, mesh_err_name(err), why);
    open_again(d, now); /* whatever the switch left, opening settles */
}

/* It votes again: from here on it has the data its group counts on. */
static void check_lost(store_database *d)
{
    if (d->lost && d->core != NULL && store_core_votes(d->core)) {
        mesh_err err = store_kv_regained(d->path);
        mesh_log(err == MESH_OK ? MESH_INFO : MESH_ERROR, "data_rebuilt", "path=%s error=%s", d->path,
                 mesh_err_name(err));
        d->lost = false;
        mesh_stats_set(d->stats, STAT_LOST, 0);
    }
}

/* ---- for the owner ---- */

static void refuse(store_database *d, mesh_peer to, const Mesh__Msg *msg)
{
    store_kind kind = store_check_kind(msg);
    if (msg->corr == 0 || (kind != STORE_KIND_READ && kind != STORE_KIND_WRITE)) {
        return;
    }
    Mesh__Fault fault = MESH__FAULT__INIT;
    fault.code = d->alone ? FAULT_DISK_FULL : FAULT_NOT_LEADER;
    fault.after_ms = mesh_fault_get(fault.code)->after_ms;
    MESH_MSG(answer, FAULT, fault, &fault);
    answer.corr = msg->corr;
    answer.trace = msg->trace;
    mesh_out_put(d->out, to, &answer);
    mesh_stats_add(d->stats, STAT_ANSWERED_FULL, 1);
}

void store_database_message(store_database *d, mesh_peer from, const Mesh__Msg *msg, mesh_slice packed, mesh_time now)
{
    if (d->core != NULL) {
        store_core_message(d->core, from, msg, packed, now, d->out);
    } else {
        refuse(d, from, msg);
    }
}

void store_database_up(store_database *d, mesh_peer peer, uint64_t boot, mesh_time now)
{
    d->boots[peer] = boot;
    if (d->core != NULL) {
        store_core_up(d->core, peer, boot, now, d->out);
    }
}

void store_database_down(store_database *d, mesh_peer peer, mesh_time now)
{
    d->boots[peer] = 0;
    if (d->core != NULL) {
        store_core_down(d->core, peer, now, d->out);
    }
}

void store_database_print_stats(const store_database *d, mesh_buf *out)
{
    if (d->core != NULL) {
        mesh_stats_print(store_core_stats(d->core), d->node->name, out);
        store_core_print_group(d->core, out);
    }
    mesh_stats_print(d->stats, d->node->name, out);
}

int store_database_status(const store_database *d)
{
    return d->status;
}

store_core *store_database_core(const store_database *d)
{
    return d->core;
}

mesh_out *store_database_out(const store_database *d)
{
    return d->out;
}

const char *store_database_path(const store_database *d)
{
    return d->path;
}

mesh_ms store_database_turn(store_database *d, mesh_time now)
{
    if (d->core == NULL && now.mono >= d->retry_at) {
        open_again(d, now);
    }
    if (d->core == NULL) {
        return d->retry_at;
    }
    if (now.mono >= d->space_at) {
        check_space(d, now);
    }
    store_kv_fd_clear(d->kv);
    uint64_t before = d->opens;
    mesh_ms next = store_core_turn(d->core, now, d->out);
    check_error(d, now);
    check_verdict(d, now);
    check_lost(d);
    next = d->opens != before ? now.mono : next; /* a new one has had no turn yet */
    mesh_ms look_at = d->core != NULL ? d->space_at : d->retry_at;
    return next < look_at ? next : look_at;
}

/* ---- start and stop ---- */

/* mkdir -p. */
static bool make_dirs(const char *path)
{
    char part[PATH_MAX];
    size_t size = strlen(path);
    if (size >= sizeof part) {
        errno = ENAMETOOLONG;
        return false;
    }
    for (size_t i = 1; i <= size; i++) {
        if (path[i] == '/' || path[i] == '\0') {
            memcpy(part, path, i);
            part[i] = '\0';
            if (mkdir(part, 0700) != 0 && errno != EEXIST) {
                return false;
            }
        }
    }
    return true;
}

static bool find_path(store_database *d)
{
    const char *dir = mesh_conf_str(d->conf, "store.path");
    int n = snprintf(d->path, sizeof d->path, "%s/%s", dir, d->node->name);
    const char *reason = NULL;
    if (dir[0] == '\0') {
        reason = "it is empty";
    } else if (n <= 0 || (size_t)n >= sizeof d->path) {
        reason = "too long";
    } else if (!make_dirs(dir)) {
        reason = strerror(errno);
    }
    if (reason != NULL) {
        mesh_log(MESH_ERROR, "store_path_refused", "store.path=%s reason=%s", dir, reason);
    }
    return reason == NULL;
}

int store_database_open(store_database *d, mesh_time now)
{
    char why[WHY_SIZE];
    mesh_err err = open_whole(d, now, why);
    if (err == MESH_NO_SPACE) {
        wait_for_space(d, now, why);
        return 0;
    }
    return err == MESH_OK ? 0 : judge(d, err, why);
}

mesh_err store_database_new(const mesh_conf *conf, mesh_peer self, mesh_loop *loop, store_database **database_p)
{
    mesh_peer stores[MESH_REPLICAS_MAX];
    store_database *d = mesh_alloc(sizeof *d);
    d->conf = conf;
    d->self = self;
    d->node = mesh_conf_node(conf, self);
    d->loop = loop;
    d->alone = mesh_conf_stores(conf, d->node->shard, stores) == 1;
    d->boots = mesh_alloc(mesh_conf_nodes(conf) * sizeof *d->boots);
    d->out = mesh_out_new(mesh_conf_nodes(conf));
    d->stats = mesh_stats_new(stat_infos, STATS);
    d->core_stats = store_metrics_new();
    if (!find_path(d)) {
        store_database_destroy(&d);
        return MESH_IO;
    }
    *database_p = d;
    return MESH_OK;
}

void store_database_destroy(store_database **database_p)
{
    store_database *d = *database_p;
    if (d == NULL) {
        return;
    }
    close_database(d);
    mesh_out_destroy(&d->out);
    mesh_stats_destroy(&d->stats);
    mesh_stats_destroy(&d->core_stats);
    free(d->boots);
    free(d);
    *database_p = NULL;
}
