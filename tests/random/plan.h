/* tests/random/plan.h: one run of a random mesh: what it is made of, and the two halves of what happens to it. */
#ifndef TESTS_RANDOM_PLAN_H
#define TESTS_RANDOM_PLAN_H

#include "tests/sim/sim.h"

#define USERS_MAX 5
#define DEVICES_MAX 3
#define PLAN_FAULTS 23 /* kinds of faults, in faults.c */

typedef struct plan {
    sim *s;
    unsigned edges, routers, shards, replicas, users, devices;
    sim_client *client[USERS_MAX * DEVICES_MAX];
    unsigned rough; /* faults per thousand steps */
    unsigned texts;
    uint64_t faults[PLAN_FAULTS]; /* that happened, by kind */
} plan;

unsigned plan_pick(plan *p, unsigned below);

/* ---- use.c ---- */
sim_client *plan_client(plan *p);                                     /* any */
const char *plan_chat(plan *p, const sim_client *c, uint64_t *seq_p); /* that it has got something of, or NULL */
void plan_send(plan *p);
void plan_use(plan *p); /* somebody does something */

/* ---- faults.c ---- */
void plan_fault(plan *p); /* something breaks */
void plan_repair(plan *p);
void plan_move_slot(plan *p);
void plan_noise(plan *p); /* so many messages are lost, doubled and late from now on */
const char *plan_fault_name(unsigned kind);

#endif
