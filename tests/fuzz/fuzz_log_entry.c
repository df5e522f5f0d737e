/* A log entry as the store applies it (chunks are stamp and frame; only what the store would have put into its log) on
 * a database in memory. */
#include <stdlib.h>

#include "store/check.h"
#include "store/fsm.h"
#include "store/metrics.h"
#include "tests/fuzz/fuzz.h"
#include "tests/sim/kv_mem.h"

static void on_answer(void *arg, size_t at, const Mesh__Msg *msg, Mesh__Msg *answer)
{
    (void)at;
    (void)msg;
    mesh_buf *out = arg;
    mesh_buf_clear(out);
    mesh_wire_pack(answer, out);
}

/* Would the store have put this into its log? What it puts there itself is not checked. */
static bool loggable(mesh_slice entry)
{
    static mesh_arena *arena;
    if (arena == NULL) {
        arena = mesh_arena_new();
    }
    mesh_arena_reset(arena);
    if (entry.size <= STORE_STAMP_SIZE) {
        return false;
    }
    mesh_frame_reader reader;
    Mesh__Msg *msg;
    bool good = true;
    mesh_err err =
        mesh_frame_open(&reader, (mesh_slice){ entry.data + STORE_STAMP_SIZE, entry.size - STORE_STAMP_SIZE });
    for (unsigned n = 0; err == MESH_OK && good && n <= STORE_ENTRY_OPS; n++) {
        err = mesh_frame_next(&reader, arena, &msg, NULL);
        if (err == MESH_OK && msg->body_case != MESH__MSG__BODY_GENESIS) {
            good = store_check_kind(msg) == STORE_KIND_WRITE && store_check_fields(msg);
        }
    }
    return good && err == MESH_AGAIN;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char why[256];
    sim_disk *disk = sim_disk_new("fuzz", 1);
    store_kv *kv = NULL;
    store_kv_options options = { .write_buffer = 1 << 20, .block_cache = 1 << 20, .max_open_files = 100 };
    mesh_stats *stats = store_metrics_new();
    store_fsm *fsm = NULL;
    mesh_buf answer = { 0 };
    if (store_kv_open("fuzz", &options, &kv, why, sizeof why) != MESH_OK ||
        store_fsm_new(fuzz_conf_nodes(), 0, kv, stats, &fsm, why, sizeof why) != MESH_OK) {
        abort();
    }
    mesh_slice rest = { data, size }, entry;
    for (uint64_t index = 1; fuzz_chunk(&rest, &entry); index++) {
        if (!loggable(entry)) {
            continue;
        }
        if (store_fsm_apply(fsm, index, 1, entry, on_answer, &answer) != MESH_OK) {
            break;
        }
        sim_disk_flush_all(disk);
    }
    store_fsm_destroy(&fsm);
    store_kv_close(&kv);
    sim_disk_destroy(&disk);
    mesh_stats_destroy(&stats);
    mesh_buf_fini(&answer);
    return 0;
}
