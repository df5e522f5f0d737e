#include "router/share.h"

#include <assert.h>
#include <stdlib.h>

#include "mesh/alloc.h"

struct router_share {
    size_t shards;
    size_t sure;       /* of each */
    size_t common_max; /* of what they use beyond that */
    size_t common;
    size_t used[];
};

router_share *router_share_new(const mesh_conf *conf, size_t max)
{
    size_t shards = mesh_conf_shards(conf) > 0 ? mesh_conf_shards(conf) : 1;
    router_share *share = mesh_alloc(sizeof *share + shards * sizeof *share->used);
    share->shards = shards;
    share->sure = max / 2 / shards;
    share->common_max = max - share->sure * shards;
    return share;
}

void router_share_destroy(router_share **share_p)
{
    free(*share_p);
    *share_p = NULL;
}

/* A number that the config does not have counts as the last. */
static size_t *used_by(router_share *share, uint32_t shard)
{
    return &share->used[shard < share->shards ? shard : share->shards - 1];
}

static size_t beyond(const router_share *share, size_t used)
{
    return used > share->sure ? used - share->sure : 0;
}

bool router_share_take(router_share *share, uint32_t shard, size_t amount)
{
    size_t *used = used_by(share, shard);
    size_t more = beyond(share, *used + amount) - beyond(share, *used);
    if (more > share->common_max - share->common) {
        return false;
    }
    share->common += more;
    *used += amount;
    return true;
}

void router_share_give(router_share *share, uint32_t shard, size_t amount)
{
    size_t *used = used_by(share, shard);
    assert(amount <= *used);
    share->common -= beyond(share, *used) - beyond(share, *used - amount);
    *used -= amount;
}
