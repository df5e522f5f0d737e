/* tests/random/random.c: random meshes, random use, random faults, each run from one seed, then the checker.
 *
 *   random [--seeds N] [--first S] [--seconds T]   run seeds S, S+1 ... until N are done or T seconds have gone
 *   random --seed S [--trace]                      run one, and print all that happened
 *
 * and with each [--shards N] [--replicas N]: a mesh of that shape; without, the seed chooses among the shapes.
 *
 * Faults come between any two steps of any node: kill -9 (a store loses what was not synced), restart, cuts both or one
 * way, stopped processes, slow, full and broken disks, with several replicas flipped bits and old copies of disks,
 * drains, jumps of the wall clock. A run is the same every time: some seeds are run twice, and the hashes of all that
 * happened must agree. */
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "mesh/clock.h"
#include "tests/sim/sim.h"

#define USERS_MAX 5
#define DEVICES_MAX 3
#define TEXT_MAX 90000
#define TRACE_LINES 120
#define TWICE_EVERY 25

typedef struct plan {
    sim *s;
    unsigned edges, routers, shards, replicas, users, devices;
    sim_client *client[USERS_MAX * DEVICES_MAX];
    unsigned rough; /* faults per thousand steps */
    unsigned texts, faults;
} plan;

extern void __sanitizer_set_death_callback(void (*callback)(void)) __attribute__((weak));
static volatile uint64_t current_seed;
static unsigned asked_shards, asked_replicas; /* 0: the seed chooses */
static struct {
    uint64_t acked, received, faults;
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

/* ---- use ---- */

static unsigned pick(plan *p, unsigned below)
{
    return (unsigned)sim_random(p->s, below);
}

static sim_client *any_client(plan *p)
{
    return p->client[pick(p, p->devices)];
}

static const char *any_user(plan *p)
{
    return any_client(p)->user;
}

/* A group some create was acked for, or NULL. */
static const char *any_group(plan *p)
{
    const char *found = NULL;
    unsigned n = 0;
    for (sim_op *op = sim_ops(p->s); op; op = op->next_all) {
        if (op->request->body_case == CLIENT__REQUEST__BODY_CHAT_CREATE && sim_sent(op) && pick(p, ++n) == 0) {
            found = sim_chat(op);
        }
    }
    return found;
}

static const char *any_chat(plan *p, const sim_client *c, uint64_t *seq)
{
    if (!c->n_got) {
        return NULL;
    }
    const Client__Message *m = c->got[pick(p, (unsigned)c->n_got)].message;
    *seq = m->seq;
    return m->chat;
}

static void fill_text(plan *p, char *text, size_t size)
{
    size_t n = pick(p, 20) == 0 ? 600 + pick(p, 1200) : 3 + pick(p, 40);
    n = pick(p, 200) == 0 ? pick(p, TEXT_MAX) : n;
    int at = snprintf(text, size, "text %u ", ++p->texts);
    for (size_t i = (size_t)at; i < n && i + 1 < size; i++) {
        text[i] = (char)('a' + (char)(i * 7 % 26));
        text[i + 1] = 0;
    }
}

static void act_send(plan *p)
{
    static char text[TEXT_MAX + 1];
    sim_client *c = any_client(p);
    const char *group = any_group(p);
    fill_text(p, text, sizeof text);
    sim_op *op = group && pick(p, 2) ? sim_post(c, group, text) : sim_send(c, any_user(p), text);
    op->keep = pick(p, 8) != 0;
}

static sim_op *any_send(plan *p)
{
    sim_op *found = NULL;
    unsigned n = 0;
    for (sim_op *op = sim_ops(p->s); op; op = op->next_all) {
        if (op->request->body_case == CLIENT__REQUEST__BODY_SEND && pick(p, ++n) == 0) {
            found = op;
        }
    }
    return found;
}

/* The same request over another socket, now and then with another body under the same id. */
static void act_again(plan *p)
{
    sim_op *old = any_send(p);
    sim_client *c = any_client(p);
    if (!old || strcmp(c->user, old->by->user) != 0) {
        return;
    }
    if (pick(p, 4)) {
        sim_again(c, old);
        return;
    }
    Client__Send send = *old->request->send;
    Client__Request request = *old->request;
    send.body = (char *)"something else";
    request.send = &send;
    sim_ask(c, &request, true);
}

static void act_group(plan *p)
{
    sim_client *c = any_client(p);
    const char *chat = any_group(p);
    char who[256];
    snprintf(who, sizeof who, "%s", any_user(p));
    if (!chat || pick(p, 12) == 0) {
        if (pick(p, 2)) {
            snprintf(who + strlen(who), sizeof who - strlen(who), " %s", any_user(p));
        }
        sim_create(c, "a group", who, pick(p, 2));
        return;
    }
    switch (pick(p, 8)) {
    case 0:
        sim_rename(c, chat, "another name");
        break;
    case 1:
        sim_leave(c, chat);
        break;
    case 2:
    case 3:
        sim_remove(c, chat, who);
        break;
    default:
        sim_add(c, chat, who);
    }
}

static void act_read(plan *p)
{
    sim_client *c = any_client(p);
    uint64_t seq = 0;
    const char *chat = any_chat(p, c, &seq);
    if (!chat) {
        return;
    }
    switch (pick(p, 5)) {
    case 0:
        sim_history(c, chat, pick(p, 2) ? seq : 0, 0, false, 1 + pick(p, 50));
        break;
    case 1:
        sim_members(c, chat);
        break;
    case 2:
        sim_chats(c, 0);
        break;
    default:
        sim_read(c, chat, seq);
    }
}

static void act_connection(plan *p)
{
    sim_client *c = any_client(p);
    if (c->stay_away) {
        if (pick(p, 3) == 0) {
            sim_forget(c, pick(p, 10));
        }
        sim_hello(c, NULL);
        return;
    }
    switch (pick(p, 6)) {
    case 0:
        sim_bye(c);
        break;
    case 1:
        sim_vanish(c);
        break;
    case 2:
        sim_vanish(c);
        sim_hello(c, NULL);
        break;
    case 3:
        sim_stall(c, pick(p, pick(p, 2) ? 100 : 4000));
        break;
    case 4:
        sim_profile(c, pick(p, 2) ? "A Name" : "Another Name");
        break;
    default:
        sim_mute(c, !c->mute);
    }
}

static void use(plan *p)
{
    unsigned n = pick(p, 100);
    if (n < 62) {
        act_send(p);
    } else if (n < 67) {
        act_again(p);
    } else if (n < 77) {
        act_group(p);
    } else if (n < 87) {
        act_read(p);
    } else {
        act_connection(p);
    }
}

/* ---- faults ---- */

static void any_node(plan *p, char out[32])
{
    unsigned stores = sim_stores(p->s);
    unsigned n = pick(p, p->edges + p->routers + stores);
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
    snprintf(out, 32, "store%u", 1 + pick(p, sim_stores(p->s)));
}

static void any_pair(plan *p, char a[32], char b[32])
{
    if (p->replicas > 1 && pick(p, 2)) { /* within a shard */
        unsigned first = pick(p, p->shards) * p->replicas + 1;
        unsigned i = pick(p, p->replicas);
        snprintf(a, 32, "store%u", first + i);
        snprintf(b, 32, "store%u", first + (i + 1 + pick(p, p->replicas - 1)) % p->replicas);
        return;
    }
    snprintf(b, 32, "router%u", 1 + pick(p, p->routers));
    if (pick(p, 2)) {
        any_store(p, a);
    } else {
        snprintf(a, 32, "edge%u", 1 + pick(p, p->edges));
    }
}

static void mend_disk(plan *p, const char *store)
{
    sim_disk_hold_at(p->s, store, false);
    sim_space_at(p->s, store, true);
    sim_disk_free_at(p->s, store);
    sim_disk_slow_at(p->s, store, 1);
}

/* A disk goes bad: a bit flips, or an old copy of it comes back. Of a shard only a minority is ever bad at a time:
 * beyond that nothing is promised. */
static void fault_rot(plan *p)
{
    char store[32];
    any_store(p, store);
    if (p->replicas < 3 || p->replicas - sim_disk_sound(p->s, store) >= (p->replicas - 1) / 2) {
        return;
    }
    switch (pick(p, 4)) {
    case 0:
        sim_disk_keep_at(p->s, store);
        break;
    case 1:
        (void)sim_disk_old_at(p->s, store);
        break;
    default:
        (void)sim_disk_flip_at(p->s, store, pick(p, 2));
    }
}

static void fault_disk(plan *p)
{
    char store[32];
    any_store(p, store);
    switch (pick(p, 7)) {
    case 0:
        sim_disk_fill_at(p->s, store);
        break;
    case 1:
        sim_disk_free_at(p->s, store);
        break;
    case 2:
        sim_disk_slow_at(p->s, store, 1 + pick(p, 40));
        break;
    case 3:
        sim_space_at(p->s, store, false);
        break;
    case 4:
        sim_disk_hold_at(p->s, store, true);
        break;
    case 5:
        sim_disk_break_at(p->s, store);
        break;
    default:
        mend_disk(p, store);
    }
}

static void fault_network(plan *p)
{
    char a[32], b[32];
    any_pair(p, a, b);
    switch (pick(p, 5)) {
    case 0:
        sim_cut(p->s, a, b);
        break;
    case 1:
        sim_cut_one(p->s, a, b);
        break;
    case 2:
        sim_cut_one(p->s, b, a);
        break;
    case 3:
        sim_heal(p->s, a, b);
        break;
    default:
        sim_heal_all(p->s);
    }
}

/* Not a fault at all: nobody may notice. Somebody's slot as often as any other one. */
static void move_slot(plan *p)
{
    unsigned slot = pick(p, 4096);
    uint64_t seq;
    const sim_client *c = any_client(p);
    const char *chat = pick(p, 2) ? any_chat(p, c, &seq) : c->user;
    char qid[128];
    if (chat && pick(p, 8)) {
        snprintf(qid, sizeof qid, "default/%s", chat);
        slot = sim_slot(p->s, qid);
    }
    sim_move_slot(p->s, slot, pick(p, p->shards));
}

static void fault(plan *p)
{
    char node[32];
    if (p->shards > 1 && pick(p, 4) == 0) {
        move_slot(p);
    }
    any_node(p, node);
    p->faults++;
    switch (pick(p, 10)) {
    case 0:
    case 1:
    case 2:
    case 3:
        sim_kill(p->s, node);
        if (pick(p, 3) == 0) {
            sim_start(p->s, node);
        }
        break;
    case 4:
    case 5:
    case 6:
        fault_network(p);
        break;
    case 7:
        if (p->replicas > 1 && pick(p, 3) == 0) {
            fault_rot(p);
        } else {
            fault_disk(p);
        }
        break;
    case 8:
        if (sim_alive(p->s, node)) {
            sim_pause(p->s, node, 1 + pick(p, pick(p, 3) ? 300 : 5000));
        }
        break;
    default:
        if (node[0] == 's') {
            sim_clock_jump(p->s, (mesh_ms)pick(p, 1200000) - 600000);
        } else if (sim_alive(p->s, node) && pick(p, 3) == 0) {
            sim_drain(p->s, node);
        }
    }
}

/* One thing gets better: a mesh that is dead most of the time shows little. */
static void repair(plan *p)
{
    char node[32];
    any_node(p, node);
    if (!sim_alive(p->s, node)) {
        sim_start(p->s, node);
    } else if (pick(p, 3) == 0) {
        sim_heal_all(p->s);
    } else if (pick(p, 3) == 0) {
        any_store(p, node);
        mend_disk(p, node);
    }
}

/* ---- a run ---- */

static void populate(plan *p)
{
    static const char *const names[USERS_MAX] = { "ann", "bob", "cyd", "dan", "eve" };
    static const char *const devices[DEVICES_MAX] = { "phone", "laptop", "tab" };
    static const mesh_ms ack_ms[] = { 0, 5, 50, 700 };
    p->users = 2 + pick(p, USERS_MAX - 1);
    for (unsigned u = 0; u < p->users; u++) {
        unsigned n = 1 + pick(p, DEVICES_MAX);
        for (unsigned d = 0; d < n; d++) {
            sim_client *c = sim_client_new(p->s, names[u], devices[d]);
            c->ack_ms = ack_ms[pick(p, 4)];
            p->client[p->devices++] = c;
            if (pick(p, 5)) {
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
    unsigned n = 3 + pick(p, 12);
    for (unsigned i = 0; i < n; i++) {
        act_send(p);
    }
    for (unsigned i = pick(p, 4); p->rough && i > 0; i--) {
        sim_run(p->s, pick(p, 6));
        fault(p);
    }
}

static void live_through(plan *p)
{
    unsigned steps = 20 + pick(p, 120);
    unsigned long_pause = 10 + pick(p, 80);
    unsigned gap_ms = 1 + pick(p, pick(p, 2) ? 8 : 60);
    unsigned mend = 5 + pick(p, 20);
    p->rough = pick(p, 8) ? 1 + pick(p, 150) : 0;
    sim_run(p->s, 300);
    sim_net_slow(p->s, pick(p, 3) ? 1 : 1 + pick(p, 30));
    for (unsigned i = 0; i < steps; i++) {
        if (pick(p, 12) == 0) {
            burst(p);
        }
        use(p);
        if (pick(p, 1000) < p->rough) {
            fault(p);
        }
        if (p->replicas > 1 && i % 8 == 0) {
            sim_check_replicas(p->s);
        }
        if (pick(p, mend) == 0) {
            repair(p);
        }
        if (p->shards > 1 && pick(p, 12) == 0) {
            move_slot(p);
        }
        if (pick(p, 3)) {
            sim_run(p->s, pick(p, gap_ms));
        }
        if (pick(p, long_pause) == 0) {
            sim_run(p->s, pick(p, pick(p, 2) ? 700 : 7000));
        }
    }
}

/* Mostly one shard: what goes wrong with several goes wrong with few seeds. */
static unsigned shards_of(uint64_t seed)
{
    static const unsigned shards[] = { 1, 2, 1, 3, 3, 1, 2, 1 };
    return shards[seed / 9 % (sizeof shards / sizeof *shards)];
}

static unsigned replicas_of(uint64_t seed)
{
    static const unsigned replicas[] = { 1, 3, 3, 1, 3, 3, 1, 3, 3, 5, 1 };
    return replicas[seed % (sizeof replicas / sizeof *replicas)];
}

static uint64_t run(uint64_t seed, bool trace, bool echo, bool *failed, char **why)
{
    plan p = { 0 };
    unsigned shape = (unsigned)(seed % 9);
    p.edges = 1 + shape % 3;
    p.routers = 1 + shape / 3;
    p.shards = asked_shards ? asked_shards : shards_of(seed);
    p.replicas = asked_replicas ? asked_replicas : replicas_of(seed);
    current_seed = seed;
    p.s = sim_new((sim_conf){ .edges = p.edges,
                              .routers = p.routers,
                              .shards = p.shards,
                              .replicas = p.replicas,
                              .log_trail_kib = seed % 3 == 0 ? 16 : 0,
                              .seed = seed,
                              .trace = trace,
                              .echo = echo });
    populate(&p);
    live_through(&p);
    sim_settle(p.s);
    sim_check(p.s);
    uint64_t hash = sim_hash(p.s);
    total.faults += p.faults;
    for (sim_op *op = sim_ops(p.s); op; op = op->next_all) {
        total.acked += sim_sent(op) != NULL;
    }
    for (const sim_client *c = sim_clients(p.s); c; c = c->next) {
        total.received += c->n_got;
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
    char shape[64] = "";
    int at = asked_shards ? snprintf(shape, sizeof shape, " --shards %u", asked_shards) : 0;
    if (asked_replicas) {
        snprintf(shape + at, sizeof shape - (size_t)at, " --replicas %u", asked_replicas);
    }
    printf("random: seed %" PRIu64 " failed (replay: --seed %" PRIu64 " --trace%s)\n%s", seed, seed, shape, complaints);
    run(seed, true, false, &failed, &text);
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
        bool again;
        uint64_t second = run(seed, false, false, &again, NULL);
        if (second != hash) {
            printf("random: seed %" PRIu64 " does not repeat: %016" PRIx64 " and %016" PRIx64 "\n", seed, hash, second);
            failed = true;
        }
    }
    return !failed;
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
    printf("random: %" PRIu64 " acked, %" PRIu64 " received, %" PRIu64 " faults\n", total.acked, total.received,
           total.faults);
    printf("random: %" PRIu64 " seeds, %" PRIu64 " failed\n", done, failures);
    return failures != 0;
}
