/* router/share.h: a limit that shards share. Half of it is divided among them, so that each is sure of a part; the
 * other half is whose comes first. However many shards do not answer, what waits for them leaves that room to the
 * others. */
#ifndef ROUTER_SHARE_H
#define ROUTER_SHARE_H

#include "mesh/conf.h"

typedef struct router_share router_share;

router_share *router_share_new(const mesh_conf *conf, size_t max); /* conf: for the number of its shards */
void router_share_destroy(router_share **share_p);
/* False: neither the shard's own part nor what is common has room for so much; nothing changed. */
bool router_share_take(router_share *share, uint32_t shard, size_t amount);
void router_share_give(router_share *share, uint32_t shard, size_t amount); /* back what was taken */

#endif
