/* Between link, database and core.
 *
 *   database: OPEN --no space--> CLOSED --every STORE_REOPEN_MS--> OPEN; any other failure of the disk ends the
 * process: what the kernel did with pages it could not write is not known, only a new start reads what is there.
 *   stopping: RUN -> GRACE: still serving -> FINISH: takes no more requests, finishes what is in the log, for which it
 * still talks to the other stores of the shard -> gone.
 *
 * While the database is closed the links stay up and every request is answered, reads too: there is nothing to read
 * from. A lone store says FAULT_DISK_FULL, one of several FAULT_NOT_LEADER, so that the others are asked. Everything
 * that was acked is on the disk and is there when it opens again.
 *
 * Data that cannot be trusted (MESH_CORRUPT, or the leader says that it is out of date): a lone store touches nothing
 * and ends. One of several puts it aside (store_kv_quarantine) and begins without: the others bring it all back. What
 * the core wanted sent in the turn in which it failed is dropped. */
#include "store/serve.h"

#include <assert.h>
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
#include "mesh/link.h"
#include "mesh/log.h"
#include "mesh/rand.h"
#include "mesh/version.h"
#include "store/check.h"
#include "store/core.h"
#include "store/kv.h"
#include "store/metrics.h"

#define MIB (1024 * 1024)
#define WHY_SIZE 1024

enum {
    SERVE_STAT_FREE,
    SERVE_STAT_LOW,
    SERVE_STAT_OPEN,
    SERVE_STAT_FULLS,
    SERVE_STAT_ANSWERED_FULL,
    SERVE_STAT_QUARANTINES,
    SERVE_STAT_LOST,
    SERVE_STATS
};

static const mesh_stat_info stat_infos[SERVE_STATS] = {
    [SERVE_STAT_FREE] = { "parley_store_free_bytes", "Free space where the database lives.", MESH_GAUGE, NULL },
    [SERVE_STAT_LOW] = { "parley_store_space_low", "1: writes are refused until there is more space.", MESH_GAUGE,
                         NULL },
    [SERVE_STAT_OPEN] = { "parley_store_open", "1: the database is open.", MESH_GAUGE, NULL },
    [SERVE_STAT_FULLS] = { "parley_store_disk_fulls_total", "Times a write found the disk full.", MESH_COUNTER, NULL },
    [SERVE_STAT_ANSWERED_FULL] = { "parley_store_refused_closed_total",
                                   "Requests refused while the database was closed.", MESH_COUNTER, NULL },
    [SERVE_STAT_QUARANTINES] = { "parley_store_quarantines_total", "Times this replica's data was put aside.",
                                 MESH_COUNTER, NULL },
    [SERVE_STAT_LOST] = { "parley_store_lost", "1: its data was put aside, and it is not back in its group yet.",
                          MESH_GAUGE, NULL },
};

typedef enum serve_state { SERVE_RUN, SERVE_GRACE, SERVE_FINISH } serve_state;

typedef struct serve {
    const mesh_conf *conf;
    mesh_peer self;
    const mesh_node_conf *node;
    serve_state state;
    int status;
    mesh_ms grace_until, stop_at;
    char path[PATH_MAX];
    unsigned routers_up;
    uint64_t opens;  /* times a database was opened */
    bool alone;      /* no other store in the shard */
    bool lost;       /* its data was put aside, and it has not voted since */
    uint64_t *boots; /* by peer, 0: down */
    mesh_loop *loop;
    mesh_link *link;
    mesh_out *out;
    store_kv *kv; /* with core: both or none */
    store_core *core;
    mesh_ms retry_at; /* while it is closed */
    mesh_ms space_at;
    bool space_low;
    mesh_stats *stats;
} serve;

/* ---- the database ---- */

static void close_database(serve *s)
{
    if (s->core != NULL) {
        store_core_refuse_all(s->core, s->out); /* their links stay up: they would wait for nothing */
    }
    store_core_destroy(&s->core);
    if (s->kv != NULL) {
        if (store_kv_fd(s->kv) >= 0) {
            mesh_loop_unwatch_fd(s->loop, store_kv_fd(s->kv));
        }
        store_kv_close(&s->kv);
    }
    mesh_stats_set(s->stats, SERVE_STAT_OPEN, 0);
}

static void check_space(serve *s, mesh_time now)
{
    uint64_t free_bytes = store_kv_free_bytes(s->kv);
    bool low = free_bytes < (uint64_t)mesh_conf_int(s->conf, "store.free_min_mib") * MIB;
    s->space_at = now.mono + STORE_SPACE_MS;
    mesh_stats_set(s->stats, SERVE_STAT_FREE, free_bytes);
    mesh_stats_set(s->stats, SERVE_STAT_LOW, low);
    store_core_set_space(s->core, !low);
    if (low != s->space_low) {
        s->space_low = low;
        mesh_log(low ? MESH_ERROR : MESH_INFO, low ? "space_low" : "space_back",
                 "free_mib=%" PRIu64 " store.free_min_mib=%" PRId64 " writes=%s", free_bytes / MIB,
                 mesh_conf_int(s->conf, "store.free_min_mib"), low ? "refused" : "taken");
    }
}

static store_kv_options kv_options(const serve *s)
{
    return (store_kv_options){ .write_buffer = (uint64_t)mesh_conf_int(s->conf, "store.write_buffer_mib") * MIB,
                               .block_cache = (uint64_t)mesh_conf_int(s->conf, "store.block_cache_mib") * MIB,
                               .max_open_files = (int)mesh_conf_int(s->conf, "store.max_open_files") };
}

static mesh_err open_core(serve *s, mesh_time now, char *why)
{
    if (store_kv_fd(s->kv) >= 0) {
        mesh_loop_watch_fd(s->loop, store_kv_fd(s->kv));
    }
    store_core_conf conf = {
        .conf = s->conf, .self = s->self, .seed = mesh_rand_seed(), .path = s->path, .options = kv_options(s)
    };
    conf.lost = s->lost;
    return store_core_new(&conf, s->kv, now, &s->core, why, WHY_SIZE);
}

/* why: WHY_SIZE bytes. After an error all is closed. */
static mesh_err open_database(serve *s, mesh_time now, char *why)
{
    store_kv_options options = kv_options(s);
    why[0] = '\0';
    s->lost = !s->alone && store_kv_is_lost(s->path);
    mesh_stats_set(s->stats, SERVE_STAT_LOST, s->lost);
    mesh_err err = store_kv_open(s->path, &options, &s->kv, why, WHY_SIZE);
    if (err == MESH_OK) {
        err = open_core(s, now, why);
    }
    if (err != MESH_OK) {
        close_database(s);
        return err;
    }
    mesh_stats_set(s->stats, SERVE_STAT_OPEN, 1);
    s->opens++;
    check_space(s, now);
    for (size_t i = 0; i < mesh_conf_nodes(s->conf); i++) { /* opened again: the links were up all the time */
        if (s->boots[i] != 0) {
            store_core_up(s->core, (mesh_peer)i, s->boots[i], now, s->out);
        }
    }
    mesh_log(MESH_INFO, "database_open", "path=%s epoch=%" PRIu64, s->path,
             mesh_stats_get(store_core_stats(s->core), STORE_M_RING_EPOCH));
    return MESH_OK;
}

/* Say what is wrong with a database that does not open. Returns the exit status. */
static int refuse_database(const serve *s, mesh_err err, const char *why)
{
    if (err == MESH_FULL) {
        return 2; /* it could not be put aside either, see quarantine */
    }
    if (err == MESH_CORRUPT) {
        mesh_log(
            MESH_ERROR, "data_refused", "path=%s reason=%s next=%s", s->path, why,
            "nothing was changed; restore a backup, or see what can be saved into a copy with: parley store salvage");
        return 2;
    }
    if (err == MESH_CONFLICT) {
        mesh_log(MESH_ERROR, "data_refused", "path=%s reason=%s next=%s", s->path, why,
                 "nothing was changed; this is not the database of this node in this cluster");
        return 2;
    }
    if (err == MESH_UNSUPPORTED) {
        mesh_log(MESH_ERROR, "data_refused", "path=%s reason=%s next=%s", s->path,
                 why[0] != '\0' ? why : "a later version wrote it; downgrade is not possible",
                 "nothing was changed; run that version again, or restore a backup");
        return 2;
    }
    if (strstr(why, "LOCK") != NULL) {
        mesh_log(MESH_ERROR, "database_in_use", "path=%s reason=%s next=%s", s->path, why,
                 "another process runs this store; stop it first");
        return 1;
    }
    mesh_log(MESH_ERROR, "database_not_open", "path=%s error=%s reason=%s", s->path, mesh_err_name(err), why);
    return 1;
}

static void drop_out(serve *s)
{
    mesh_out_destroy(&s->out);
    s->out = mesh_out_new(mesh_conf_nodes(s->conf));
}

/* Put the closed database aside. Errors: as store_kv_quarantine. */
static mesh_err quarantine(serve *s, mesh_time now, const char *found)
{
    char stamp[32], kept[PATH_MAX + 64] = "";
    struct tm tm;
    time_t wall = (time_t)(now.wall / 1000);
    gmtime_r(&wall, &tm);
    strftime(stamp, sizeof stamp, "%Y%m%dT%H%M%SZ", &tm);
    mesh_err err = store_kv_quarantine(s->path, stamp, kept, sizeof kept);
    if (err == MESH_OK) {
        mesh_stats_add(s->stats, SERVE_STAT_QUARANTINES, 1);
        mesh_log(
            MESH_ERROR, "data_quarantined", "path=%s reason=%s kept=%s next=%s", s->path, found, kept,
            "it begins without data and gets it from the other replicas; look at the disk, then delete what is kept");
    } else if (err == MESH_FULL) {
        mesh_log(MESH_ERROR, "quarantine_full", "path=%s reason=%s max=%d next=%s", s->path, found,
                 STORE_QUARANTINES_MAX,
                 "nothing was changed; this disk goes bad again and again: replace it, or delete what is kept in "
                 "*.quarantine-*, then start again");
    } else {
        mesh_log(MESH_ERROR, "quarantine_failed", "path=%s reason=%s error=%s", s->path, found, mesh_err_name(err));
    }
    return err;
}

static void wait_for_space(serve *s, mesh_time now, const char *why)
{
    mesh_stats_add(s->stats, SERVE_STAT_FULLS, 1);
    mesh_log(MESH_ERROR, "disk_full", "path=%s reason=%s next=%s", s->path, why,
             "nothing acked is lost; every request is refused until there is space");
    close_database(s);
    s->retry_at = now.mono + STORE_REOPEN_MS;
}

static void fail(serve *s, int status)
{
    s->status = status;
    mesh_loop_stop(s->loop);
}

/* As open_database; what one of several replicas cannot trust is put aside, and it opens empty.
 * Errors: also MESH_FULL, which was logged. */
static mesh_err open_whole(serve *s, mesh_time now, char *why)
{
    mesh_err err = open_database(s, now, why);
    if (err == MESH_CORRUPT && !s->alone) {
        err = quarantine(s, now, why);
        err = err == MESH_OK ? open_database(s, now, why) : err;
    }
    return err;
}

static void reopen_database(serve *s, mesh_time now)
{
    char why[WHY_SIZE];
    mesh_err err = open_whole(s, now, why);
    if (err == MESH_NO_SPACE) {
        s->retry_at = now.mono + STORE_REOPEN_MS;
    } else if (err != MESH_OK) {
        fail(s, refuse_database(s, err, why));
    }
}

/* The database in use is not to be trusted any more. Where it cannot be put aside, nothing goes on. */
static void abandon_database(serve *s, mesh_time now, const char *found)
{
    drop_out(s);
    close_database(s);
    mesh_err err = quarantine(s, now, found);
    if (err == MESH_OK) {
        reopen_database(s, now);
    } else {
        fail(s, err == MESH_FULL ? 2 : 1);
    }
}

static void check_error(serve *s, mesh_time now)
{
    mesh_err err = store_core_error(s->core);
    if (err != MESH_OK) {
        drop_out(s);
    }
    if (err == MESH_CORRUPT && !s->alone) {
        abandon_database(s, now, "a row does not read back");
    } else if (err == MESH_NO_SPACE) {
        wait_for_space(s, now, "a write failed");
    } else if (err == MESH_UNSUPPORTED) {
        fail(s, refuse_database(s, err, ""));
    } else if (err != MESH_OK) {
        mesh_log(MESH_ERROR, "disk_failed", "path=%s error=%s free_mib=%" PRIu64 " next=%s", s->path,
                 mesh_err_name(err), store_kv_free_bytes(s->kv) / MIB,
                 "nothing is acked any more; stopping, look at the disk");
        fail(s, 1);
    }
}

/* A copy of another replica's rows is ready, or this disk could not take it: what the core says about its database. */
static void check_verdict(serve *s, mesh_time now)
{
    char why[WHY_SIZE] = "";
    store_verdict verdict = s->core != NULL ? store_core_verdict(s->core) : STORE_GO_ON;
    if (verdict == STORE_GO_ON) {
        return;
    }
    if (verdict == STORE_QUARANTINE) {
        abandon_database(s, now, "it is out of date, says the leader");
        return;
    }
    close_database(s);
    if (verdict == STORE_REOPEN_LATER) {
        s->retry_at = now.mono + STORE_REOPEN_MS;
        return;
    }
    mesh_err err = verdict == STORE_SWITCH ? store_kv_switch(s->path, why, sizeof why) : MESH_OK;
    mesh_log(err == MESH_OK ? MESH_INFO : MESH_ERROR, "database_replaced", "path=%s copy=%d error=%s reason=%s",
             s->path, verdict == STORE_SWITCH, mesh_err_name(err), why);
    reopen_database(s, now); /* whatever the switch left, opening settles */
}

/* It votes again: from here on it has the data its group counts on. */
static void check_lost(serve *s)
{
    if (s->lost && s->core != NULL && store_core_votes(s->core)) {
        mesh_err err = store_kv_regained(s->path);
        mesh_log(err == MESH_OK ? MESH_INFO : MESH_ERROR, "data_rebuilt", "path=%s error=%s", s->path,
                 mesh_err_name(err));
        s->lost = false;
        mesh_stats_set(s->stats, SERVE_STAT_LOST, 0);
    }
}

/* ---- between link and core ---- */

static void answer_closed(serve *s, mesh_peer to, const Mesh__Msg *msg)
{
    store_kind kind = store_check_kind(msg);
    if (msg->corr == 0 || (kind != STORE_KIND_READ && kind != STORE_KIND_WRITE)) {
        return;
    }
    Mesh__Fault fault = MESH__FAULT__INIT;
    fault.code = s->alone ? FAULT_DISK_FULL : FAULT_NOT_LEADER;
    fault.after_ms = mesh_fault_get(fault.code)->after_ms;
    MESH_MSG(answer, FAULT, fault, &fault);
    answer.corr = msg->corr;
    answer.trace = msg->trace;
    mesh_out_put(s->out, to, &answer);
    mesh_stats_add(s->stats, SERVE_STAT_ANSWERED_FULL, 1);
}

/* What an operator may want of a store whatever its database does. */
static void operate(serve *s, mesh_peer from, const Mesh__Msg *msg)
{
    static char closed[] = "its database is closed";
    bool drain = msg->operate->op == MESH__OPERATE_OP__OPERATE_DRAIN;
    Mesh__Done done = MESH__DONE__INIT;
    Mesh__Fault fault = MESH__FAULT__INIT;
    fault.code = FAULT_UNAVAILABLE;
    fault.detail = closed;
    MESH_MSG(yes, DONE, done, &done);
    MESH_MSG(no, FAULT, fault, &fault);
    Mesh__Msg *answer = drain ? &yes : &no;
    answer->corr = msg->corr;
    mesh_out_put(s->out, from, answer);
    if (drain) {
        mesh_log(MESH_INFO, "drained_by", "operator=%s", mesh_conf_node(s->conf, from)->name);
        mesh_loop_stop_all();
    }
}

static void on_message(void *arg, mesh_peer from, const Mesh__Msg *msg, mesh_slice packed, mesh_time now)
{
    serve *s = arg;
    if (msg->body_case == MESH__MSG__BODY_OPERATE &&
        (s->core == NULL || msg->operate->op == MESH__OPERATE_OP__OPERATE_DRAIN)) {
        operate(s, from, msg);
        return;
    }
    if (s->state == SERVE_FINISH && mesh_conf_node(s->conf, from)->role != MESH_STORE) {
        return;
    }
    if (msg->trace != 0) {
        mesh_log(MESH_DEBUG, "received", "trace=%016" PRIx64 " type=%s from=%s", msg->trace, mesh_msg_kind_name(msg),
                 mesh_conf_node(s->conf, from)->name);
    }
    if (s->core != NULL) {
        store_core_message(s->core, from, msg, packed, now, s->out);
    } else {
        answer_closed(s, from, msg);
    }
}

static void on_up(void *arg, mesh_peer peer, uint64_t boot, mesh_time now)
{
    serve *s = arg;
    s->boots[peer] = boot;
    s->routers_up += mesh_conf_node(s->conf, peer)->role == MESH_ROUTER;
    if (s->core != NULL) {
        store_core_up(s->core, peer, boot, now, s->out);
    }
}

static void on_down(void *arg, mesh_peer peer, mesh_time now)
{
    serve *s = arg;
    s->boots[peer] = 0;
    s->routers_up -= mesh_conf_node(s->conf, peer)->role == MESH_ROUTER;
    if (s->core != NULL) {
        store_core_down(s->core, peer, now, s->out);
    }
}

static void print_stats(void *arg, mesh_buf *out)
{
    serve *s = arg;
    if (s->core != NULL) {
        mesh_stats_print(store_core_stats(s->core), s->node->name, out);
        store_core_print_group(s->core, out);
    }
    mesh_stats_print(s->stats, s->node->name, out);
    mesh_link_print_stats(s->link, s->node->name, out);
}

/* ---- the loop ---- */

static mesh_ms earlier(mesh_ms a, mesh_ms b)
{
    return a < b ? a : b;
}

static bool is_inproc(const serve *s)
{
    return strncmp(s->node->endpoint, "inproc://", 9) == 0;
}

/* Over inproc all nodes stop together: the routers are drained through this store, so it goes last. */
static void check_stop(serve *s, mesh_time now)
{
    if (s->state == SERVE_RUN && mesh_loop_stopping()) {
        s->state = SERVE_GRACE;
        s->grace_until = now.mono + (is_inproc(s) ? STORE_WAIT_ROUTERS_MS : STORE_GRACE_MS);
        s->stop_at = s->grace_until + (is_inproc(s) ? STORE_GRACE_MS : STORE_STOP_MS);
        mesh_log(MESH_INFO, "store_stopping", "routers=%u", s->routers_up);
        if (s->core != NULL) {
            store_core_leave(s->core);
        }
    }
    if (s->state == SERVE_GRACE && (s->routers_up == 0 || now.mono >= s->grace_until)) {
        s->state = SERVE_FINISH;
    }
}

static mesh_ms turn_database(serve *s, mesh_time now)
{
    if (s->core == NULL && now.mono >= s->retry_at) {
        reopen_database(s, now);
    }
    if (s->core == NULL) {
        return s->retry_at;
    }
    if (now.mono >= s->space_at) {
        check_space(s, now);
    }
    store_kv_fd_clear(s->kv);
    uint64_t before = s->opens;
    mesh_ms next = store_core_turn(s->core, now, s->out);
    check_error(s, now);
    check_verdict(s, now);
    check_lost(s);
    next = s->opens != before ? now.mono : next; /* a new one has had no turn yet */
    return earlier(next, s->core != NULL ? s->space_at : s->retry_at);
}

static mesh_ms turn(void *arg, mesh_time now)
{
    serve *s = arg;
    check_stop(s, now);
    bool more = (s->state != SERVE_FINISH || !s->alone) && mesh_link_receive(s->link, now);
    mesh_ms next = mesh_link_tick(s->link, now);
    next = earlier(next, turn_database(s, now));
    mesh_link_send(s->link, s->out, now);
    if (s->state == SERVE_GRACE) {
        next = earlier(next, s->grace_until);
    } else if (s->state == SERVE_FINISH) {
        next = earlier(next, s->stop_at);
        if (s->core == NULL || store_core_quiet(s->core) || now.mono >= s->stop_at) {
            mesh_loop_stop(s->loop);
        }
    }
    return more ? now.mono : next;
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

static bool find_path(serve *s)
{
    const char *dir = mesh_conf_str(s->conf, "store.path");
    int n = snprintf(s->path, sizeof s->path, "%s/%s", dir, s->node->name);
    const char *reason = NULL;
    if (dir[0] == '\0') {
        reason = "it is empty";
    } else if (n <= 0 || (size_t)n >= sizeof s->path) {
        reason = "too long";
    } else if (!make_dirs(dir)) {
        reason = strerror(errno);
    }
    if (reason != NULL) {
        mesh_log(MESH_ERROR, "store_path_refused", "store.path=%s reason=%s", dir, reason);
    }
    return reason == NULL;
}

/* Of two stores of a shard the earlier in the node list dials. */
static void dial_peers(serve *s)
{
    mesh_peer stores[MESH_REPLICAS_MAX];
    size_t n = mesh_conf_stores(s->conf, s->node->shard, stores);
    for (size_t i = 0; i < n; i++) {
        if (stores[i] > s->self) {
            mesh_link_dial(s->link, stores[i]);
        }
    }
}

/* Returns an exit status, 0: running. A disk that is full at start is waited for like one that fills up later. */
static int start(serve *s)
{
    static const mesh_link_handler handler = {
        .message = on_message, .up = on_up, .down = on_down, .stats = print_stats
    };
    char why[WHY_SIZE];
    mesh_time now = mesh_clock_now();
    if (!find_path(s)) {
        return 1;
    }
    mesh_peer stores[MESH_REPLICAS_MAX];
    s->alone = mesh_conf_stores(s->conf, s->node->shard, stores) == 1;
    mesh_err err = open_whole(s, now, why);
    if (err == MESH_NO_SPACE) {
        wait_for_space(s, now, why);
    } else if (err != MESH_OK) {
        return refuse_database(s, err, why);
    }
    uint64_t boot = mesh_rand_seed();
    err = mesh_link_new(s->loop, s->conf, s->self, boot, &handler, s, &s->link);
    if (err != MESH_OK) {
        mesh_log(MESH_ERROR, "store_not_started", "error=%s", mesh_err_name(err));
        return 1;
    }
    dial_peers(s);
    mesh_log(MESH_INFO, "store_started", "version=%s endpoint=%s shard=%" PRIu32 " path=%s boot=%016" PRIx64,
             MESH_VERSION, s->node->endpoint, s->node->shard, s->path, boot);
    return 0;
}

int store_serve_run(const mesh_conf *conf, mesh_peer self)
{
    serve *s = mesh_alloc(sizeof *s);
    s->conf = conf;
    s->self = self;
    s->node = mesh_conf_node(conf, self);
    s->boots = mesh_alloc(mesh_conf_nodes(conf) * sizeof *s->boots);
    s->out = mesh_out_new(mesh_conf_nodes(conf));
    s->stats = mesh_stats_new(stat_infos, SERVE_STATS);
    s->loop = mesh_loop_new(turn, s);
    int status = start(s);
    if (status == 0) {
        mesh_loop_run(s->loop);
        status = s->status;
        mesh_log(MESH_INFO, "store_stopped", "status=%d quiet=%d", status,
                 s->core == NULL || store_core_quiet(s->core));
    }
    mesh_link_destroy(&s->link);
    close_database(s);
    mesh_loop_destroy(&s->loop);
    mesh_out_destroy(&s->out);
    mesh_stats_destroy(&s->stats);
    free(s->boots);
    free(s);
    return status;
}
