/* tests/random/random.c: random meshes, random use, random faults, each run from one seed, then the checker.
 *
 *   random [--seeds N] [--first S] [--seconds T]   run seeds S, S+1 ... until N are done or T seconds have gone
 *   random --seed S [--trace]                      run one, and print all that happened
 *
 * and with each [--shards N] [--replicas N]: a mesh of that shape; without, the seed chooses among the shapes below,
 * one to three edges and routers, and a short or long log trail.
 *
 * People use it (use.c) while faults come between any two steps of any node (faults.c; the table `kinds` there has the
 * weight of each). In one of 8 runs nothing breaks; else `rough` says how many faults come in a thousand steps of use,
 * up to 150, and a burst of sends has up to 3 more of its own. In a mesh of several shards slots move in every run.
 *
 *   crash            kill, restart: kill -9 of any node; a store loses a random tail of what was not synced
 *   slow or gone     stop: no turn for up to 300 ms, or up to 5 s; drain: SIGTERM of an edge or a router
 *   clock            clock-jump: the wall clocks of all, by up to 10 minutes, back or forth
 *   network          cut, one-way, heal: between two nodes that have a link; slow-link: 2 to 150 times as far; in a
 *                    third of the runs everything is up to 30 times as far
 *   messages         noise: of 10,000 up to 150 are lost, 200 come twice, 400 late by up to 30 ms, 100 ms or 4 s, in
 *                    one of 8 runs 5 times as many: of the kinds that bear it (tests/sim/noise.c). None in a third
 *   disk             slow-disk: a sync takes 2 to 41 times as long; stuck-disk: none ends; failed-write: the next one
 *                    is an error, and the process ends; disk-full, low-space; mended-disk ends these
 *   rot              flip-at-open, flip-in-use: a bit; copy-disk and old-disk: an old copy comes back. Only in shards
 *                    of 3 or 5, of a minority, and while no store of the shard is out of its group
 *   members          remove-store: an operator takes a store out of its group, for up to 6 s, then it is in again with
 *                    its data; remove-wipe: without; transfer: the leadership, to any store of the shard
 *
 * Then all heals, whoever was taken out is a member again, all is delivered, and the checker looks at everything
 * (tests/sim/check.c): what was acked is in the history, seqs have no holes, each device's list is the chat's. All the
 * time it is watched that a term has one leader, that a committed entry stays what it is, and that replicas which have
 * applied as much have the same rows (tests/sim/judge.c).
 *
 * A run is the same every time: some seeds are run twice, and the hashes of all that happened must agree. */
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "mesh/clock.h"
#include "tests/random/plan.h"

#define TRACE_LINES 120
#define TWICE_EVERY 25

extern void __sanitizer_set_death_callback(void (*callback)(void)) __attribute__((weak));
static volatile uint64_t current_seed;
static unsigned asked_shards, asked_replicas; /* 0: the seed chooses */

typedef struct shape {
    unsigned shards, replicas;
} shape;

/* What the seed chooses from: mostly several replicas, and three shards of three as often as any. */
static const shape shapes[] = {
    { 3, 3 }, { 1, 3 }, { 3, 3 }, { 1, 1 }, { 2, 3 }, { 1, 3 }, { 3, 3 }, { 1, 5 },
    { 1, 3 }, { 1, 1 }, { 2, 3 }, { 3, 1 }, { 3, 3 }, { 1, 3 }, { 2, 1 }, { 2, 5 },
};
#define SHAPES (sizeof shapes / sizeof *shapes)
#define COUNTED_MAX 9 /* shards and replicas in the summary: higher ones count as this */

static bool again; /* a run that was counted already */
static struct {
    uint64_t acked, received, faults[PLAN_FAULTS];
    sim_noise_counts noise;
    uint64_t seeds[COUNTED_MAX + 1][COUNTED_MAX + 1]; /* by shards and replicas */
} total;

/* Short stacks and a small quarantine: more seeds in the same time. A failing seed can be run again with others. */
const char *__asan_default_options(void);
const char *__asan_default_options(void)
{
    return "malloc_context_size=5:quarantine_size_mb=8";
}

static void say_seed(void)
{
    char line[64];
    int n = snprintf(line, sizeof line, "\nrandom: died in seed %" PRIu64 "\n", current_seed);
    if (write(2, line, (size_t)n) < 0) {
        _exit(1);
    }
}

static void on_abort(int number)
{
    (void)number;
    say_seed();
    _exit(1);
}

/* ---- a run ---- */

static void populate(plan *p)
{
    static const char *const names[USERS_MAX] = { "ann", "bob", "cyd", "dan", "eve" };
    static const char *const devices[DEVICES_MAX] = { "phone", "laptop", "tab" };
    static const mesh_ms ack_ms[] = { 0, 5, 50, 700 };
    p->users = 2 + plan_pick(p, USERS_MAX - 1);
    for (unsigned u = 0; u < p->users; u++) {
        unsigned n = 1 + plan_pick(p, DEVICES_MAX);
        for (unsigned d = 0; d < n; d++) {
            sim_client *c = sim_client_new(p->s, names[u], devices[d]);
            c->ack_ms = ack_ms[plan_pick(p, 4)];
            p->client[p->devices++] = c;
            if (plan_pick(p, 5)) {
                sim_hello(c, NULL);
            } else {
                c->stay_away = true;
            }
        }
    }
}

/* Many at once, and something breaks while they are on their way. */
static void burst(plan *p)
{
    unsigned n = 3 + plan_pick(p, 12);
    for (unsigned i = 0; i < n; i++) {
        plan_send(p);
    }
    for (unsigned i = plan_pick(p, 4); p->rough && i > 0; i--) {
        sim_run(p->s, plan_pick(p, 6));
        plan_fault(p);
    }
}

static void live_through(plan *p)
{
    unsigned steps = 20 + plan_pick(p, 120);
    unsigned long_pause = 10 + plan_pick(p, 80);
    unsigned gap_ms = 1 + plan_pick(p, plan_pick(p, 2) ? 8 : 60);
    unsigned mend = 5 + plan_pick(p, 20);
    p->rough = plan_pick(p, 8) ? 1 + plan_pick(p, 150) : 0;
    sim_run(p->s, 300);
    sim_net_slow(p->s, plan_pick(p, 3) ? 1 : 1 + plan_pick(p, 30));
    if (p->rough) {
        plan_noise(p);
    }
    for (unsigned i = 0; i < steps; i++) {
        if (plan_pick(p, 12) == 0) {
            burst(p);
        }
        plan_use(p);
        if (plan_pick(p, 1000) < p->rough) {
            plan_fault(p);
        }
        if (p->replicas > 1 && i % 8 == 0) {
            sim_check_replicas(p->s);
        }
        if (plan_pick(p, mend) == 0) {
            plan_repair(p);
        }
        if (p->shards > 1 && plan_pick(p, 12) == 0) {
            plan_move_slot(p);
        }
        if (plan_pick(p, 3)) {
            sim_run(p->s, plan_pick(p, gap_ms));
        }
        if (plan_pick(p, long_pause) == 0) {
            sim_run(p->s, plan_pick(p, plan_pick(p, 2) ? 700 : 7000));
        }
    }
}

static unsigned counted(unsigned n)
{
    return n < COUNTED_MAX ? n : COUNTED_MAX;
}

static void count_up(const plan *p)
{
    sim_noise_counts noise = sim_noise_counted(p->s);
    total.noise.lost += noise.lost;
    total.noise.twice += noise.twice;
    total.noise.late += noise.late;
    for (unsigned i = 0; i < PLAN_FAULTS; i++) {
        total.faults[i] += p->faults[i];
    }
    for (sim_op *op = sim_ops(p->s); op; op = op->next_all) {
        total.acked += sim_sent(op) != NULL;
    }
    for (const sim_client *c = sim_clients(p->s); c; c = c->next) {
        total.received += c->n_got;
    }
    total.seeds[counted(p->shards)][counted(p->replicas)]++;
}

static uint64_t run(uint64_t seed, bool trace, bool echo, bool *failed, char **why)
{
    plan p = { 0 };
    uint64_t mixed = seed * 0x9e3779b97f4a7c15u >> 32; /* so that neighbours have little in common */
    shape chosen = shapes[mixed % SHAPES];
    p.edges = 1 + (unsigned)(mixed / SHAPES % 3);
    p.routers = 1 + (unsigned)(mixed / SHAPES / 3 % 3);
    p.shards = asked_shards ? asked_shards : chosen.shards;
    p.replicas = asked_replicas ? asked_replicas : chosen.replicas;
    current_seed = seed;
    p.s = sim_new((sim_conf){ .edges = p.edges,
                              .routers = p.routers,
                              .shards = p.shards,
                              .replicas = p.replicas,
                              .log_trail_kib = mixed / SHAPES / 9 % 3 == 0 ? 16 : 0,
                              .has_operator = p.replicas > 1,
                              .seed = seed,
                              .trace = trace,
                              .echo = echo });
    populate(&p);
    live_through(&p);
    sim_settle(p.s);
    sim_check(p.s);
    uint64_t hash = sim_hash(p.s);
    if (!again) {
        count_up(&p);
    }
    *failed = *sim_complaints(p.s) != 0;
    if (*failed && why) {
        *why = strdup(trace ? sim_trace_text(p.s) : sim_complaints(p.s));
    }
    sim_destroy(&p.s);
    return hash;
}

static void print_last_lines(const char *text, unsigned lines)
{
    const char *at = text + strlen(text);
    while (at > text && lines) {
        at--;
        lines -= *at == '\n';
    }
    puts(at);
}

/* Run it again with the trace on: the run is the same, only slower. */
static void report(uint64_t seed, const char *complaints)
{
    char *text = NULL;
    bool failed;
    char with[64] = "";
    int at = asked_shards ? snprintf(with, sizeof with, " --shards %u", asked_shards) : 0;
    if (asked_replicas) {
        snprintf(with + at, sizeof with - (size_t)at, " --replicas %u", asked_replicas);
    }
    printf("random: seed %" PRIu64 " failed (replay: --seed %" PRIu64 " --trace%s)\n%s", seed, seed, with, complaints);
    again = true;
    run(seed, true, false, &failed, &text);
    again = false;
    if (text) {
        char *broken = strstr(text, "BROKEN");
        if (broken) {
            *strchr(broken, '\n') = 0;
        }
        print_last_lines(text, TRACE_LINES);
    }
    free(text);
}

static bool run_checked(uint64_t seed)
{
    bool failed;
    char *why = NULL;
    uint64_t hash = run(seed, false, false, &failed, &why);
    if (failed) {
        report(seed, why);
    }
    free(why);
    if (seed % TWICE_EVERY == 0 && !failed) {
        bool ignored;
        again = true;
        uint64_t second = run(seed, false, false, &ignored, NULL);
        again = false;
        if (second != hash) {
            printf("random: seed %" PRIu64 " does not repeat: %016" PRIx64 " and %016" PRIx64 "\n", seed, hash, second);
            failed = true;
        }
    }
    return !failed;
}

static void summarize(void)
{
    printf("random: %" PRIu64 " acked, %" PRIu64 " received\nrandom: messages lost %" PRIu64 ", twice %" PRIu64
           ", late %" PRIu64 "\nrandom: faults",
           total.acked, total.received, total.noise.lost, total.noise.twice, total.noise.late);
    for (unsigned i = 0; i < PLAN_FAULTS; i++) {
        printf("%s %s %" PRIu64, i ? "," : "", plan_fault_name(i), total.faults[i]);
    }
    printf("\nrandom: shards x replicas");
    const char *between = "";
    for (unsigned shards = 0; shards <= COUNTED_MAX; shards++) {
        for (unsigned replicas = 0; replicas <= COUNTED_MAX; replicas++) {
            if (total.seeds[shards][replicas]) {
                printf("%s %ux%u: %" PRIu64, between, shards, replicas, total.seeds[shards][replicas]);
                between = ",";
            }
        }
    }
    puts("");
}

int main(int argc, char **argv)
{
    uint64_t seeds = 200, first = 1, one = 0;
    int64_t seconds = 0;
    bool trace = false, single = false;
    for (int i = 1; i < argc; i++) {
        bool more = i + 1 < argc;
        if (strcmp(argv[i], "--trace") == 0) {
            trace = true;
        } else if (more && strcmp(argv[i], "--seeds") == 0) {
            seeds = strtoull(argv[++i], NULL, 10);
        } else if (more && strcmp(argv[i], "--first") == 0) {
            first = strtoull(argv[++i], NULL, 10);
        } else if (more && strcmp(argv[i], "--seconds") == 0) {
            seconds = strtoll(argv[++i], NULL, 10);
        } else if (more && strcmp(argv[i], "--seed") == 0) {
            one = strtoull(argv[++i], NULL, 10);
            single = true;
        } else if (more && strcmp(argv[i], "--shards") == 0) {
            asked_shards = (unsigned)strtoul(argv[++i], NULL, 10);
        } else if (more && strcmp(argv[i], "--replicas") == 0) {
            asked_replicas = (unsigned)strtoul(argv[++i], NULL, 10);
        } else {
            fprintf(stderr, "usage: random [--seeds N] [--first S] [--seconds T] | --seed S [--trace]\n"
                            "       and with each [--shards N] [--replicas N]\n");
            return 2;
        }
    }
    signal(SIGABRT, on_abort);
    if (__sanitizer_set_death_callback) {
        __sanitizer_set_death_callback(say_seed);
    }
    if (single) {
        bool failed;
        char *why = NULL;
        uint64_t hash = run(one, false, trace, &failed, &why);
        printf("%srandom: seed %" PRIu64 " %s, hash %016" PRIx64 "\n", why ? why : "", one, failed ? "failed" : "ok",
               hash);
        free(why);
        return failed;
    }
    uint64_t done = 0, failures = 0;
    mesh_ms end = seconds ? mesh_clock_now().mono + seconds * 1000 : MESH_NEVER;
    for (; done < seeds && mesh_clock_now().mono < end && failures < 20; done++) {
        failures += !run_checked(first + done);
        fflush(stdout);
    }
    summarize();
    printf("random: %" PRIu64 " seeds, %" PRIu64 " failed\n", done, failures);
    return failures != 0;
}
