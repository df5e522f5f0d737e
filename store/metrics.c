#include "store/metrics.h"

#define COUNTER(metric, n, h) [metric] = { .name = "parley_store_" n, .help = h, .type = MESH_COUNTER }
#define GAUGE(metric, n, h) [metric] = { .name = "parley_store_" n, .help = h, .type = MESH_GAUGE }
#define FAULTS(metric, g)                                                                                              \
    [metric] = { .name = "parley_store_faults_total",                                                                  \
                 .help = "Requests answered with a fault, by group of code",                                           \
                 .type = MESH_COUNTER,                                                                                 \
                 .labels = "group=\"" g "\"" }

static const mesh_stat_info infos[STORE_METRICS] = {
    COUNTER(STORE_M_MESSAGES, "messages_total", "Chat entries stored"),
    COUNTER(STORE_M_DUPS, "dups_total", "Requests that had been stored before"),
    COUNTER(STORE_M_CONFLICTS, "conflicts_total", "Requests with a used client_msg_id and another content"),
    COUNTER(STORE_M_ENTRIES, "entries_total", "Log entries applied"),
    COUNTER(STORE_M_OPS, "ops_total", "Messages in applied log entries"),
    COUNTER(STORE_M_APPENDS, "appends_total", "Inbox entries appended"),
    COUNTER(STORE_M_APPEND_DUPS, "append_dups_total", "Appends that were there already"),
    COUNTER(STORE_M_APPEND_GAPS, "append_gaps_total", "Appends ahead of what the inbox has"),
    COUNTER(STORE_M_APPEND_REFUSED, "append_refused_total", "Appends of an older epoch than the slot's fence"),
    COUNTER(STORE_M_LEFT, "inboxes_left_total",
            "Chat entries whose inboxes were left to the outbox, though of this shard"),
    COUNTER(STORE_M_ATTACHES, "attaches_total", "Sessions attached"),
    COUNTER(STORE_M_ACKS, "acks_total", "Cursors moved"),
    COUNTER(STORE_M_TRIMMED, "trimmed_total", "Inbox rows trimmed"),
    COUNTER(STORE_M_READS, "reads_total", "Requests answered without the log"),
    FAULTS(STORE_M_FAULTS_1, "frame"),
    FAULTS(STORE_M_FAULTS_2, "who"),
    FAULTS(STORE_M_FAULTS_3, "what"),
    FAULTS(STORE_M_FAULTS_4, "when"),
    FAULTS(STORE_M_FAULTS_5, "node"),
    COUNTER(STORE_M_SPACE_REFUSED, "space_refused_total", "Writes refused below the free-space watermark"),
    COUNTER(STORE_M_BAD_MESSAGES, "bad_messages_total", "Messages that are malformed, unknown or not from a router"),
    COUNTER(STORE_M_PARCELS, "parcels_total", "Deliveries sent to routers"),
    COUNTER(STORE_M_RESENT, "parcels_resent_total", "Deliveries sent again"),
    COUNTER(STORE_M_GAP_SENT, "gap_entries_total", "Entries sent again to fill a gap in an inbox"),
    GAUGE(STORE_M_OUTBOX_ITEMS, "outbox_items", "Entries not yet delivered to every inbox"),
    GAUGE(STORE_M_OUTBOX_WINDOW, "outbox_window", "Entries being delivered"),
    GAUGE(STORE_M_OUTBOX_AGE_MS, "outbox_age_ms", "Age of the oldest entry being delivered"),
    GAUGE(STORE_M_OUTBOX_ASIDE, "outbox_aside", "Deliveries put aside, because their router or shard does not confirm"),
    GAUGE(STORE_M_OUTBOX_ASIDE_AGE_MS, "outbox_aside_age_ms", "Age of the oldest of them"),
    GAUGE(STORE_M_GATHERED_BYTES, "gathered_bytes", "Bytes that wait for a log entry"),
    GAUGE(STORE_M_RING_EPOCH, "ring_epoch", "Epoch of the ring in force"),
    GAUGE(STORE_M_RING_ROUTERS, "ring_routers", "Live routers"),
    GAUGE(STORE_M_LEADER, "leader", "1 when this replica leads its shard"),
    COUNTER(STORE_M_SLOTS_LEFT, "slots_left_total", "Slots that moved to another shard"),
    COUNTER(STORE_M_SLOTS_CAME, "slots_came_total", "Slots that came from another shard"),
    GAUGE(STORE_M_SLOT_LEAVING, "slot_leaving", "1 while a slot is on its way to another shard"),
    COUNTER(STORE_M_REIGNS, "reigns_total", "Times this replica became the leader"),
    GAUGE(STORE_M_TERM, "term", "Raft term"),
    GAUGE(STORE_M_VOTERS, "voters", "Voters of the shard's group"),
    GAUGE(STORE_M_VOTES, "votes", "1 when this replica is one of them"),
    GAUGE(STORE_M_LEVEL, "level", "Up to which every voter knows what may stand in the log; 0: of one it is not known"),
    GAUGE(STORE_M_LAST, "last_index", "Log index of the last entry"),
    GAUGE(STORE_M_COMMIT, "commit_index", "Log index known to be committed"),
    GAUGE(STORE_M_APPLIED, "applied_index", "Log index applied to the rows"),
    GAUGE(STORE_M_DONE, "done_index", "Log index up to which nothing is left to apply; not all entries change rows"),
    GAUGE(STORE_M_FORMER, "former", "1 when this replica was taken out of its group"),
    COUNTER(STORE_M_COPIES, "copies_total", "Copies of another replica's rows that were taken over"),
    COUNTER(STORE_M_COPIES_FAILED, "copies_failed_total", "Copies that this disk did not take"),
    COUNTER(STORE_M_COPY_SESSIONS, "copy_sessions_total", "Copies of its rows begun for replicas and backups"),
    COUNTER(STORE_M_COPY_GIVEN, "copy_given_bytes_total", "Bytes of rows given to them"),
    COUNTER(STORE_M_COPY_REFUSED, "copy_refused_total", "Asks for a copy answered with a fault"),
    COUNTER(STORE_M_COPY_BAD_ASKS, "copy_bad_asks_total", "Asks for a copy that are nonsense"),
    COUNTER(STORE_M_COPY_BEGUN, "copy_begun_total", "Times this replica began to take a copy from its first chunk"),
    COUNTER(STORE_M_COPY_TAKEN, "copy_taken_bytes_total", "Bytes of rows taken from other replicas"),
    COUNTER(STORE_M_COPY_BAD, "copy_bad_chunks_total", "Chunks whose checksum or rows were wrong"),
    GAUGE(STORE_M_COPY_INDEX, "copy_index", "Log index that the copy being taken stands for; 0: none is"),
    GAUGE(STORE_M_COPY_BYTES, "copy_bytes", "Bytes of rows of it that came since the database was opened"),
    GAUGE(STORE_M_LOG_HELD, "log_held_bytes", "Bytes of the log that replicas which are behind need yet"),
    COUNTER(STORE_M_HOLDS_DROPPED, "log_holds_dropped_total",
            "Times the log was trimmed though a replica needed it: too much of it, or too little space"),
    COUNTER(STORE_M_ABSENT, "absent_rows_total",
            "Entries that were asked for, that a row names, and that are not there"),
    COUNTER(STORE_M_KV_ROWS, "kv_rows_total", "Rows written"),
    COUNTER(STORE_M_KV_BYTES, "kv_bytes_total", "Bytes of rows written"),
    COUNTER(STORE_M_KV_SYNCS, "kv_syncs_total", "Synced writes"),
    COUNTER(STORE_M_KV_BATCHES, "kv_batches_total", "Batches queued"),
    GAUGE(STORE_M_KV_QUEUED, "kv_queued_bytes", "Bytes queued for the writer"),
};

mesh_stats *store_metrics_new(void)
{
    return mesh_stats_new(infos, STORE_METRICS);
}

void store_metrics_begin(mesh_stats *stats)
{
    for (unsigned i = 0; i < STORE_METRICS; i++) {
        if (infos[i].type == MESH_GAUGE) {
            mesh_stats_set(stats, i, 0);
        }
    }
}

void store_metrics_fault(mesh_stats *stats, uint32_t code)
{
    uint32_t group = code / 100;
    if (group >= 1 && group <= 5) {
        mesh_stats_add(stats, STORE_M_FAULTS_1 + group - 1, 1);
    }
}

void store_metrics_kv(mesh_stats *stats, const store_kv *kv)
{
    store_kv_counts counts = store_kv_counted(kv);
    mesh_stats_set(stats, STORE_M_KV_ROWS, counts.rows);
    mesh_stats_set(stats, STORE_M_KV_BYTES, counts.row_bytes);
    mesh_stats_set(stats, STORE_M_KV_SYNCS, counts.syncs);
    mesh_stats_set(stats, STORE_M_KV_BATCHES, counts.batches);
    mesh_stats_set(stats, STORE_M_KV_QUEUED, counts.queued_bytes);
}
