/* tests/random/faults.c: what breaks, at random. Each kind has a weight; one that cannot happen now (nothing to flip,
 * no other replica) happens not at all, and another one is drawn. */
#include "tests/random/plan.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DRAWS 4       /* before nothing breaks */
#define EVEN_TRIES 20 /* looks whether all replicas have the same */

static void any_node(plan *p, char out[32])
{
    unsigned stores = sim_stores(p->s);
    unsigned n = plan_pick(p, p->edges + p->routers + stores);
    if (n < p->edges) {
        snprintf(out, 32, "edge%u", n + 1);
    } else if (n < p->edges + p->routers) {
        snprintf(out, 32, "router%u", n - p->edges + 1);
    } else {
        snprintf(out, 32, "store%u", n - p->edges - p->routers + 1);
    }
}

static void any_store(plan *p, char out[32])
{
    snprintf(out, 32, "store%u", 1 + plan_pick(p, sim_stores(p->s)));
}

static void any_pair(plan *p, char a[32], char b[32])
{
    if (p->replicas > 1 && plan_pick(p, 2)) { /* within a shard */
        unsigned first = plan_pick(p, p->shards) * p->replicas + 1;
        unsigned i = plan_pick(p, p->replicas);
        snprintf(a, 32, "store%u", first + i);
        snprintf(b, 32, "store%u", first + (i + 1 + plan_pick(p, p->replicas - 1)) % p->replicas);
        return;
    }
    snprintf(b, 32, "router%u", 1 + plan_pick(p, p->routers));
    if (plan_pick(p, 2)) {
        any_store(p, a);
    } else {
        snprintf(a, 32, "edge%u", 1 + plan_pick(p, p->edges));
    }
}

static uint32_t shard_of(const plan *p, const char *store)
{
    return (uint32_t)((strtoul(store + strlen("store"), NULL, 10) - 1) / p->replicas);
}

static void mend_disk(plan *p, const char *store)
{
    sim_disk_hold_at(p->s, store, false);
    sim_space_at(p->s, store, true);
    sim_disk_free_at(p->s, store);
    sim_disk_slow_at(p->s, store, 1);
}

/* ---- processes ---- */

static bool kill_one(plan *p)
{
    char node[32];
    any_node(p, node);
    bool lived = sim_alive(p->s, node);
    sim_kill(p->s, node);
    return lived;
}

static bool restart(plan *p)
{
    char node[32];
    any_node(p, node);
    sim_kill(p->s, node);
    sim_start(p->s, node);
    return true;
}

static bool pause_one(plan *p)
{
    char node[32];
    any_node(p, node);
    if (sim_alive(p->s, node)) {
        sim_pause(p->s, node, 1 + plan_pick(p, plan_pick(p, 3) ? 300 : 5000));
    }
    return sim_alive(p->s, node);
}

static bool drain(plan *p)
{
    char node[32];
    any_node(p, node);
    if (node[0] == 's' || !sim_alive(p->s, node)) {
        return false;
    }
    sim_drain(p->s, node);
    return true;
}

static bool clock_jump(plan *p)
{
    sim_clock_jump(p->s, (mesh_ms)plan_pick(p, 1200000) - 600000);
    return true;
}

/* ---- the network ---- */

static bool cut(plan *p)
{
    char a[32], b[32];
    any_pair(p, a, b);
    sim_cut(p->s, a, b);
    return true;
}

static bool cut_one_way(plan *p)
{
    char a[32], b[32];
    any_pair(p, a, b);
    if (plan_pick(p, 2)) {
        sim_cut_one(p->s, a, b);
    } else {
        sim_cut_one(p->s, b, a);
    }
    return true;
}

static bool slow_link(plan *p)
{
    char a[32], b[32];
    any_pair(p, a, b);
    sim_link_slow(p->s, a, b, 2 + plan_pick(p, plan_pick(p, 2) ? 20 : 150));
    return true;
}

static bool heal(plan *p)
{
    char a[32], b[32];
    any_pair(p, a, b);
    if (plan_pick(p, 2)) {
        sim_heal(p->s, a, b);
    } else {
        sim_heal_all(p->s);
    }
    return true;
}

void plan_noise(plan *p)
{
    unsigned times = plan_pick(p, 8) ? 1 : 5;
    sim_noise noise = { .lost = times * plan_pick(p, 150),
                        .twice = times * plan_pick(p, 200),
                        .late = times * plan_pick(p, 400) };
    noise.late_ms = 1 + plan_pick(p, plan_pick(p, 2) ? 100 : 4000);
    sim_noise_set(p->s, plan_pick(p, 3) ? noise : (sim_noise){ 0 });
}

static bool noise(plan *p)
{
    plan_noise(p);
    return true;
}

/* ---- disks ---- */

static bool full_disk(plan *p)
{
    char store[32];
    any_store(p, store);
    sim_disk_fill_at(p->s, store);
    return true;
}

static bool low_space(plan *p)
{
    char store[32];
    any_store(p, store);
    sim_space_at(p->s, store, false);
    return true;
}

static bool slow_disk(plan *p)
{
    char store[32];
    any_store(p, store);
    sim_disk_slow_at(p->s, store, 2 + plan_pick(p, 40));
    return true;
}

static bool stuck_disk(plan *p)
{
    char store[32];
    any_store(p, store);
    sim_disk_hold_at(p->s, store, true);
    return true;
}

static bool failed_write(plan *p)
{
    char store[32];
    any_store(p, store);
    sim_disk_break_at(p->s, store);
    return sim_alive(p->s, store);
}

static bool better_disk(plan *p)
{
    char store[32];
    any_store(p, store);
    mend_disk(p, store);
    return true;
}

/* Of a shard only a minority is ever bad at a time, and none while a store is out of the group: beyond that nothing is
 * promised. */
static bool may_rot(plan *p, char store[32])
{
    any_store(p, store);
    uint32_t shard = shard_of(p, store);
    return p->replicas >= 3 && !sim_operated(p->s, shard) &&
           p->replicas - sim_disk_sound(p->s, store) < (p->replicas - 1) / 2;
}

static bool flip_at_open(plan *p)
{
    char store[32];
    return may_rot(p, store) && sim_disk_flip_at(p->s, store, true);
}

static bool flip_in_use(plan *p)
{
    char store[32];
    return may_rot(p, store) && sim_disk_flip_at(p->s, store, false);
}

/* All of a shard: which one comes back, and when, is drawn later. */
static bool copy_disks(plan *p)
{
    char store[32];
    any_store(p, store);
    for (unsigned i = 0, first = shard_of(p, store) * p->replicas; p->replicas >= 3 && i < p->replicas; i++) {
        snprintf(store, sizeof store, "store%u", first + i + 1);
        sim_disk_keep_at(p->s, store);
    }
    return p->replicas >= 3;
}

/* An old copy comes back when the others can know that it is old, and then they must find out (tests/sim/stale.c). */
static bool old_disk(plan *p)
{
    char store[32];
    if (!may_rot(p, store)) {
        return false;
    }
    sim_noise_set(p->s, (sim_noise){ 0 }); /* words may be lost, but not for longer than a store waits for them */
    bool done = sim_disk_old_at(p->s, store);
    for (unsigned i = 0; i < EVEN_TRIES && !done; i++) {
        sim_run(p->s, 1 + plan_pick(p, 20));
        done = !sim_operated(p->s, shard_of(p, store)) && sim_disk_old_at(p->s, store);
    }
    return done;
}

/* ---- members ---- */

/* While all the others have their data: of those who are left no majority may be lost. */
static bool may_remove(const plan *p, const char *store)
{
    return p->replicas > 1 && sim_disk_sound(p->s, store) == p->replicas;
}

static bool remove_store(plan *p)
{
    char store[32];
    any_store(p, store);
    return may_remove(p, store) && sim_remove_store(p->s, store, plan_pick(p, 6000), false);
}

static bool remove_and_wipe(plan *p)
{
    char store[32];
    any_store(p, store);
    return may_remove(p, store) && sim_remove_store(p->s, store, plan_pick(p, 6000), true);
}

static bool transfer_leader(plan *p)
{
    char store[32];
    any_store(p, store);
    uint32_t shard = shard_of(p, store);
    return p->replicas > 1 && sim_transfer_leader(p->s, shard, plan_pick(p, 4) ? store : "");
}

/* ---- all of them ---- */

static const struct {
    const char *name;
    unsigned weight;
    bool (*make)(plan *p); /* false: it cannot be now */
} kinds[PLAN_FAULTS] = {
    { "kill", 260, kill_one },
    { "restart", 100, restart },
    { "stop", 100, pause_one },
    { "drain", 30, drain },
    { "clock-jump", 50, clock_jump },
    { "cut", 60, cut },
    { "one-way", 110, cut_one_way },
    { "slow-link", 30, slow_link },
    { "heal", 90, heal },
    { "noise", 20, noise },
    { "disk-full", 15, full_disk },
    { "low-space", 15, low_space },
    { "slow-disk", 25, slow_disk },
    { "stuck-disk", 15, stuck_disk },
    { "failed-write", 15, failed_write },
    { "mended-disk", 15, better_disk },
    { "flip-at-open", 12, flip_at_open },
    { "flip-in-use", 12, flip_in_use },
    { "copy-disk", 20, copy_disks },
    { "old-disk", 20, old_disk },
    { "remove-store", 40, remove_store },
    { "remove-wipe", 25, remove_and_wipe },
    { "transfer", 50, transfer_leader },
};

const char *plan_fault_name(unsigned kind)
{
    return kinds[kind].name;
}

static unsigned draw(plan *p)
{
    unsigned all = 0, kind = 0;
    for (unsigned i = 0; i < PLAN_FAULTS; i++) {
        all += kinds[i].weight;
    }
    unsigned at = plan_pick(p, all);
    while (at >= kinds[kind].weight) {
        at -= kinds[kind++].weight;
    }
    return kind;
}

void plan_fault(plan *p)
{
    if (p->shards > 1 && plan_pick(p, 4) == 0) {
        plan_move_slot(p);
    }
    for (unsigned i = 0; i < DRAWS; i++) {
        unsigned kind = draw(p);
        if (kinds[kind].make(p)) {
            p->faults[kind]++;
            return;
        }
    }
}

/* Not a fault at all: nobody may notice. Somebody's slot as often as any other one. */
void plan_move_slot(plan *p)
{
    unsigned slot = plan_pick(p, 4096);
    uint64_t seq;
    const sim_client *c = plan_client(p);
    const char *chat = plan_pick(p, 2) ? plan_chat(p, c, &seq) : c->user;
    char qid[128];
    if (chat && plan_pick(p, 8)) {
        snprintf(qid, sizeof qid, "default/%s", chat);
        slot = sim_slot(p->s, qid);
    }
    sim_move_slot(p->s, slot, plan_pick(p, p->shards));
}

/* One thing gets better: a mesh that is dead most of the time shows little. */
void plan_repair(plan *p)
{
    char node[32];
    any_node(p, node);
    if (!sim_alive(p->s, node)) {
        sim_start(p->s, node);
    } else if (plan_pick(p, 3) == 0) {
        sim_heal_all(p->s);
    } else if (plan_pick(p, 3) == 0) {
        any_store(p, node);
        mend_disk(p, node);
    }
}
