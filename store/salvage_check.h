/* store/salvage_check.h: does a database hold everything its rows speak of? Internal to salvage. */
#ifndef STORE_SALVAGE_CHECK_H
#define STORE_SALVAGE_CHECK_H

#include <stdio.h>

#include "store/kv.h"

typedef struct salvage_totals {
    uint64_t rows, missing;
    uint64_t unapplied; /* log entries whose rows are not written yet */
} salvage_totals;

/* Errors: MESH_CORRUPT the log or a row cannot be read (why); MESH_MALFORMED a line of acks (why). */
MESH_MUST mesh_err store_salvage_check(store_kv *kv, FILE *acks, FILE *report, salvage_totals *totals, char *why,
                                       size_t why_size);

#endif
