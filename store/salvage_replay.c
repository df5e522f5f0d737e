/* store/salvage_replay.c: the last entries of the log may have been synced when their rows were not. A copy that votes
 * of one of several replicas would wait for the others for ever; it is made the only one first, see salvage_alone.c. So
 * is one that voted alone: its rows get what its log does not say (an era, an epoch), and a replica that joined it
 * later would be given the log from its beginning. Then a core on it does what a start does, and elects itself. */
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>

#include "mesh/rand.h"
#include "store/consensus.h"
#include "store/core.h"
#include "store/group.h"
#include "store/metrics.h"
#include "store/salvage.h"
#include "store/salvage_alone.h"

#define REPLAY_MS 60000
#define MIB (1024 * 1024)

/* ---- whose it is ---- */

static mesh_peer find_store(const mesh_conf *conf, const char *name)
{
    mesh_peer peer = name[0] != '\0' ? mesh_conf_find(conf, name) : MESH_NO_PEER;
    return peer != MESH_NO_PEER && mesh_conf_node(conf, peer)->role == MESH_STORE ? peer : MESH_NO_PEER;
}

static mesh_peer only_store(const mesh_conf *conf)
{
    mesh_peer only = MESH_NO_PEER;
    for (size_t i = 0; i < mesh_conf_nodes(conf); i++) {
        if (mesh_conf_node(conf, (mesh_peer)i)->role == MESH_STORE) {
            if (only != MESH_NO_PEER) {
                return MESH_NO_PEER;
            }
            only = (mesh_peer)i;
        }
    }
    return only;
}

/* "data/store2", "data/store2/", "data/store2.quarantine-20260102T030405Z": store2. */
static mesh_peer store_of_path(const mesh_conf *conf, const char *path)
{
    char name[MESH_NODE_NAME_MAX + 1];
    size_t end = strlen(path);
    while (end > 0 && path[end - 1] == '/') {
        end--;
    }
    size_t begin = end;
    while (begin > 0 && path[begin - 1] != '/') {
        begin--;
    }
    size_t size = strcspn(path + begin, "./");
    if (size >= sizeof name) {
        return MESH_NO_PEER;
    }
    memcpy(name, path + begin, size);
    name[size] = '\0';
    return find_store(conf, name);
}

static mesh_err find_self(const store_salvage_replica *r, const store_left *left, mesh_peer *self_p, char *why,
                          size_t why_size)
{
    char name[MESH_NODE_NAME_MAX + 1];
    mesh_peer said = find_store(r->conf, store_group_node(left->address, name));
    mesh_peer self = r->node != NULL ? find_store(r->conf, r->node) : said;
    if (r->node != NULL && self == MESH_NO_PEER) {
        snprintf(why, why_size, "the config has no store %s", r->node);
        return MESH_MALFORMED;
    }
    if (self != MESH_NO_PEER && said != MESH_NO_PEER &&
        mesh_conf_node(r->conf, self)->shard != mesh_conf_node(r->conf, said)->shard) {
        snprintf(why, why_size, "this is data of %s, which is of another shard than %s", name, r->node);
        return MESH_CONFLICT;
    }
    if (self == MESH_NO_PEER && r->from != NULL) {
        self = store_of_path(r->conf, r->from);
    }
    self = self != MESH_NO_PEER ? self : only_store(r->conf);
    if (self == MESH_NO_PEER) {
        snprintf(why, why_size, "it cannot be told which store of the config this is: name it (--node)");
        return MESH_MALFORMED;
    }
    *self_p = self;
    return MESH_OK;
}

/* ---- a start ---- */

static void drop_frames(mesh_out *out)
{
    mesh_peer peer;
    mesh_buf frame;
    while (mesh_out_take(out, &peer, &frame)) {
        mesh_buf_fini(&frame);
    }
}

/* Turn until this core leads, which it does once its log is committed, and has nothing under way. */
static mesh_err settle(store_core *core, store_kv *kv, mesh_out *out)
{
    mesh_ms until = mesh_clock_now().mono + REPLAY_MS;
    while (store_core_error(core) == MESH_OK && mesh_clock_now().mono < until) {
        store_core_turn(core, mesh_clock_now(), out);
        drop_frames(out);
        if (mesh_stats_get(store_core_stats(core), STORE_M_LEADER) && store_core_quiet(core)) {
            return MESH_OK;
        }
        struct pollfd fd = { .fd = store_kv_fd(kv), .events = POLLIN };
        poll(&fd, fd.fd >= 0 ? 1 : 0, 10);
        if (fd.revents & POLLIN) {
            store_kv_fd_clear(kv);
        }
    }
    return store_core_error(core) != MESH_OK ? store_core_error(core) : MESH_IO;
}

static mesh_err lead(const mesh_conf *conf, mesh_peer self, store_kv *kv, char *why, size_t why_size)
{
    store_core_conf core_conf = { .conf = conf, .self = self, .seed = mesh_rand_seed() };
    store_core *core = NULL;
    mesh_err err = store_core_new(&core_conf, kv, mesh_clock_now(), &core, why, why_size);
    if (err == MESH_OK) {
        mesh_out *out = mesh_out_new(mesh_conf_nodes(conf));
        err = settle(core, kv, out);
        if (err != MESH_OK) {
            snprintf(why, why_size, "the end of the log could not be applied");
        }
        mesh_out_destroy(&out);
    }
    store_core_destroy(&core);
    return err;
}

static mesh_err raise_epoch(const store_salvage_replica *r, uint32_t shard, bool whole, store_kv *kv, char *why,
                            size_t why_size)
{
    uint64_t epoch;
    mesh_err err = store_salvage_raise_epoch(kv, shard, whole, &epoch);
    if (err != MESH_OK) {
        snprintf(why, why_size, "the ring or a fence cannot be read or written: %s", mesh_err_name(err));
    } else if (epoch > 0 && r->report != NULL) {
        fprintf(r->report, "epoch: what routers decided on a ring before %" PRIu64 " counts no more in this shard\n",
                epoch);
    }
    return err;
}

mesh_err store_salvage_replay_replica(void *arg, const char *path, char *why, size_t why_size)
{
    const store_salvage_replica *r = arg;
    const mesh_conf *conf = r->conf;
    store_kv_options options = { .write_buffer = (uint64_t)mesh_conf_int(conf, "store.write_buffer_mib") * MIB,
                                 .block_cache = (uint64_t)mesh_conf_int(conf, "store.block_cache_mib") * MIB,
                                 .max_open_files = (int)mesh_conf_int(conf, "store.max_open_files") };
    store_kv *kv = NULL;
    store_left left = { 0 };
    mesh_peer self = MESH_NO_PEER;
    mesh_err err = store_kv_open(path, &options, &kv, why, why_size);
    err = err == MESH_OK ? store_salvage_left(kv, &left, why, why_size) : err;
    err = err == MESH_OK ? find_self(r, &left, &self, why, why_size) : err;
    err = err == MESH_OK ? store_salvage_alone(r, self, &left, kv, why, why_size) : err;
    err = err == MESH_OK ? lead(conf, self, kv, why, why_size) : err;
    err = err == MESH_OK ? raise_epoch(r, mesh_conf_node(conf, self)->shard, left.alone, kv, why, why_size) : err;
    if (kv != NULL) {
        store_kv_close(&kv);
    }
    return err;
}

mesh_err store_salvage_replay_core(void *arg, const char *path, char *why, size_t why_size)
{
    store_salvage_replica r = { .conf = arg };
    return store_salvage_replay_replica(&r, path, why, why_size);
}
