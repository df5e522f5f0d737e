/* store/metrics.h: what a store counts. The texts are in store/metrics.c, in the same order. */
#ifndef STORE_METRICS_H
#define STORE_METRICS_H

#include "mesh/stats.h"
#include "store/kv.h"

enum store_metric {
    STORE_M_MESSAGES, /* chat entries stored */
    STORE_M_DUPS,     /* requests that were there already */
    STORE_M_CONFLICTS,
    STORE_M_ENTRIES, /* log entries applied */
    STORE_M_OPS,     /* messages in them */
    STORE_M_APPENDS,
    STORE_M_APPEND_DUPS,
    STORE_M_APPEND_GAPS,
    STORE_M_APPEND_REFUSED,
    STORE_M_LEFT,
    STORE_M_ATTACHES,
    STORE_M_ACKS,
    STORE_M_TRIMMED,
    STORE_M_READS,
    STORE_M_FAULTS_1, /* by group of code */
    STORE_M_FAULTS_2,
    STORE_M_FAULTS_3,
    STORE_M_FAULTS_4,
    STORE_M_FAULTS_5,
    STORE_M_SPACE_REFUSED,
    STORE_M_BAD_MESSAGES,
    STORE_M_PARCELS,
    STORE_M_RESENT,
    STORE_M_GAP_SENT,
    STORE_M_OUTBOX_ITEMS,
    STORE_M_OUTBOX_WINDOW,
    STORE_M_OUTBOX_AGE_MS,
    STORE_M_OUTBOX_ASIDE,
    STORE_M_OUTBOX_ASIDE_AGE_MS,
    STORE_M_GATHERED_BYTES,
    STORE_M_RING_EPOCH,
    STORE_M_RING_ROUTERS,
    STORE_M_LEADER,
    STORE_M_SLOTS_LEFT,
    STORE_M_SLOTS_CAME,
    STORE_M_SLOT_LEAVING,
    STORE_M_REIGNS,
    STORE_M_TERM,
    STORE_M_VOTERS,
    STORE_M_VOTES,
    STORE_M_LEVEL,
    STORE_M_LAST,
    STORE_M_COMMIT,
    STORE_M_APPLIED,
    STORE_M_DONE,
    STORE_M_FORMER,
    STORE_M_COPIES,
    STORE_M_COPIES_FAILED,
    STORE_M_COPY_SESSIONS, /* given */
    STORE_M_COPY_GIVEN,
    STORE_M_COPY_REFUSED,
    STORE_M_COPY_BAD_ASKS,
    STORE_M_COPY_BEGUN, /* taken */
    STORE_M_COPY_TAKEN,
    STORE_M_COPY_BAD,
    STORE_M_COPY_INDEX, /* of the one under way */
    STORE_M_COPY_BYTES,
    STORE_M_LOG_HELD,
    STORE_M_HOLDS_DROPPED,
    STORE_M_ABSENT, /* entries that rows name and that are not there */
    STORE_M_KV_ROWS,
    STORE_M_KV_BYTES,
    STORE_M_KV_SYNCS,
    STORE_M_KV_BATCHES,
    STORE_M_KV_QUEUED,
    STORE_METRICS
};

mesh_stats *store_metrics_new(void);
void store_metrics_begin(mesh_stats *stats); /* gauges are what the last core left: none is known yet */
void store_metrics_fault(mesh_stats *stats, uint32_t code);
void store_metrics_kv(mesh_stats *stats, const store_kv *kv);

#endif
