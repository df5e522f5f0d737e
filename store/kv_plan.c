#include "store/kv_plan.h"

kv_step store_kv_plan_next(const kv_places *places)
{
    bool finished = places->incoming && places->finished;
    if (places->db && places->old) {
        return KV_DROP_OLD; /* the new one came in */
    }
    if (places->db) {
        return finished ? KV_DROP_INCOMING : KV_SETTLED; /* the old one never went out, and may have moved on */
    }
    if (finished) {
        return KV_MOVE_IN;
    }
    return places->old ? KV_MOVE_BACK : KV_SETTLED;
}
