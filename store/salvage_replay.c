/* store/salvage_replay.c: the last entries of the log may have been synced when their rows were not. A core opened on
 * the copy does what a start does: elects itself, commits what the log holds, applies it. */
#include <poll.h>
#include <stdio.h>

#include "mesh/rand.h"
#include "store/core.h"
#include "store/metrics.h"
#include "store/salvage.h"

#define REPLAY_MS 60000
#define MIB (1024 * 1024)

static mesh_peer first_store(const mesh_conf *conf)
{
    for (size_t i = 0; i < mesh_conf_nodes(conf); i++) {
        if (mesh_conf_node(conf, (mesh_peer)i)->role == MESH_STORE) {
            return (mesh_peer)i;
        }
    }
    return MESH_NO_PEER;
}

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

mesh_err store_salvage_replay_core(void *arg, const char *path, char *why, size_t why_size)
{
    const mesh_conf *conf = arg;
    store_core_conf core_conf = { .conf = conf, .self = first_store(conf), .seed = mesh_rand_seed() };
    if (core_conf.self == MESH_NO_PEER) {
        snprintf(why, why_size, "the config knows no store");
        return MESH_MALFORMED;
    }
    store_kv_options options = { .write_buffer = (uint64_t)mesh_conf_int(conf, "store.write_buffer_mib") * MIB,
                                 .block_cache = (uint64_t)mesh_conf_int(conf, "store.block_cache_mib") * MIB,
                                 .max_open_files = (int)mesh_conf_int(conf, "store.max_open_files") };
    store_kv *kv = NULL;
    store_core *core = NULL;
    mesh_err err = store_kv_open(path, &options, &kv, why, why_size);
    if (err == MESH_OK) {
        err = store_core_new(&core_conf, kv, mesh_clock_now(), &core, why, why_size);
    }
    if (err == MESH_OK) {
        mesh_out *out = mesh_out_new(mesh_conf_nodes(conf));
        err = settle(core, kv, out);
        if (err != MESH_OK) {
            snprintf(why, why_size, "the end of the log could not be applied");
        }
        mesh_out_destroy(&out);
    }
    store_core_destroy(&core);
    if (kv) {
        store_kv_close(&kv);
    }
    return err;
}
