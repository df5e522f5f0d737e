/* store/kv_plan.h: what to do about the databases found beside each other when one is opened: the rule that settles a
 * switch cut off at any moment. Internal to the two implementations of store/kv.h, which see and do. */
#ifndef STORE_KV_PLAN_H
#define STORE_KV_PLAN_H

#include <stdbool.h>

typedef struct kv_places {
    bool db;       /* path holds a database */
    bool old;      /* <path>.old is there */
    bool incoming; /* <path>.incoming is there */
    bool finished; /* and marked as finished */
} kv_places;

typedef enum kv_step {
    KV_SETTLED,       /* nothing to do: open path */
    KV_DROP_OLD,      /* delete <path>.old */
    KV_DROP_INCOMING, /* delete <path>.incoming */
    KV_MOVE_IN,       /* <path>.incoming -> path */
    KV_MOVE_BACK      /* <path>.old -> path */
} kv_step;

/* The next step; look again after each. */
kv_step store_kv_plan_next(const kv_places *places);

#endif
