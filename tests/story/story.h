/* tests/story/story.h: what every story does first and last. A story ends with everything healed and the checker: each
 * of them also proves that nothing was lost, doubled or reordered. */
#ifndef TESTS_STORY_STORY_H
#define TESTS_STORY_STORY_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "mesh/fault.h"
#include "mesh/wire.h"
#include "tests/sim/sim.h"

#define STORY(name) static void name(void **state)
/* cond comes to hold within ms of fake time, or the story fails. */
#define WITHIN(s, ms, cond) assert_true(SIM_WAIT(s, ms, cond))

static inline sim *story_new(unsigned edges, unsigned routers, uint64_t seed)
{
    return sim_new((sim_conf){ .edges = edges, .routers = routers, .seed = seed });
}

/* A device, on this edge and live. */
static inline sim_client *story_person(sim *s, const char *user, const char *device, const char *edge)
{
    sim_client *c = sim_client_new(s, user, device);
    sim_hello(c, edge);
    WITHIN(s, 1000, sim_live(c));
    return c;
}

static inline void story_end(sim **s_p)
{
    sim_settle(*s_p);
    sim_check(*s_p);
    assert_string_equal(sim_complaints(*s_p), "");
    sim_destroy(s_p);
}

static inline unsigned long long story_metric(const mesh_stats *stats, const char *node, const char *name)
{
    mesh_buf text = { 0 };
    char want[96];
    snprintf(want, sizeof want, "\n%s{", name);
    mesh_stats_print(stats, node, &text);
    *mesh_buf_grow(&text, 1) = 0;
    const char *at = strstr((const char *)text.data, want);
    assert_non_null(at);
    unsigned long long value = strtoull(strchr(at, ' '), NULL, 10);
    mesh_buf_fini(&text);
    return value;
}

/* A metric of an edge, by its whole name. */
static inline unsigned long long story_edge_metric(sim *s, const char *edge, const char *name)
{
    return story_metric(edge_core_stats(sim_edge(s, edge)), edge, name);
}

/* The same of a store; 0 while it is dead, or its database is just being replaced. */
static inline unsigned long long story_store_metric(sim *s, const char *store, const char *name)
{
    store_core *core = sim_store_at(s, store);
    return core != NULL ? story_metric(store_core_stats(core), store, name) : 0;
}

/* Who leads the shard, as a copy of the name: nodes come and go. */
static inline void story_leader(sim *s, uint32_t shard, char name[32])
{
    WITHIN(s, 5000, sim_leader(s, shard));
    snprintf(name, 32, "%s", sim_leader(s, shard));
}

/* Done, and as what. */
static inline const Client__Sent *story_acked(sim *s, sim_op *op, mesh_ms ms)
{
    WITHIN(s, ms, op->state != OP_WAITING);
    assert_int_equal(op->state, OP_DONE);
    assert_non_null(sim_sent(op));
    return sim_sent(op);
}

/* A group that is stored by this shard; what came up elsewhere stays empty. */
static inline const char *story_group_at(sim *s, sim_client *owner, const char *members, uint32_t shard)
{
    for (int i = 0; i < 100; i++) {
        const char *chat = story_acked(s, sim_create(owner, "a group", members, false), 1000)->chat;
        char qid[100];
        snprintf(qid, sizeof qid, "default/%s", chat);
        if (sim_shard(s, qid) == shard) {
            return chat;
        }
    }
    fail_msg("no group is stored by shard %u", shard);
    return NULL;
}

#endif
