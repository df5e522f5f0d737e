/* Slots move from one shard to another, one after the other, while people write. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "mesh/clock.h"
#include "tests/bench/bench.h"
#include "tests/bench/trickle.h"

#define PAIRS 100
#define PAUSE_MS 330 /* about 300 messages/s */
#define LIMIT_US (120u * 1000000)

static pid_t move(const cluster *c, unsigned slots)
{
    char program[256], count[16];
    (void)snprintf(program, sizeof program, "%s/parley", c->options->build);
    (void)snprintf(count, sizeof count, "%u", slots);
    (void)fflush(stdout);
    pid_t pid = fork();
    if (pid < 0) {
        perror("fork");
        exit(1);
    }
    if (pid == 0) {
        if (freopen("/dev/null", "w", stdout) == NULL) {
            _exit(126);
        }
        execl(program, program, "cluster", "move-slots", "--data", c->dir, "--to", "1", "--count", count, (char *)NULL);
        _exit(127);
    }
    return pid;
}

static void run_until_moved(trickle *t, pid_t mover)
{
    uint64_t begun = mesh_clock_us();
    int status = 0;
    while (waitpid(mover, &status, WNOHANG) != mover) {
        if (mesh_clock_us() - begun > LIMIT_US) {
            kill(mover, SIGTERM);
            status = -1;
            break;
        }
        trickle_run(t, 0.1);
    }
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
        fprintf(stderr, "bench: slots have not moved\n");
        exit(1);
    }
}

void figure_slots_move(const bench_options *options)
{
    const cluster_plan plan = { .edges = 2, .routers = 1, .shards = 2, .replicas = 1 };
    cluster c;
    cluster_start_as(&c, options, &plan);
    driver *d = cluster_driver(&c, "m", 2 * PAIRS);
    driver_connect(d, 0, 2 * PAIRS);
    trickle *t = trickle_new(d, PAIRS, PAUSE_MS);
    trickle_run(t, 2);
    trickle_take_latency(t);
    trickle_run(t, options->quick ? 5 : 20);
    double before = trickle_latency(t, 99);
    unsigned slots = options->quick ? 64 : 512;
    trickle_take_latency(t);
    uint64_t begun = mesh_clock_us();
    run_until_moved(t, move(&c, slots));
    double seconds = (double)(mesh_clock_us() - begun) / 1e6;
    result_put("slots_move_p99_before", before, "ms");
    result_put("slots_move_p99", trickle_latency(t, 99), "ms");
    result_put("slots_move_per_s", slots / seconds, "slots/s");
    double worst = trickle_latency(t, 100);
    uint64_t retries;
    uint64_t messages = trickle_settle(t, &retries);
    printf("    %u slots in %.1f s; worst %.0f ms; %llu messages, each acked and delivered once; %llu tries more\n",
           slots, seconds, worst, (unsigned long long)messages, (unsigned long long)retries);
    trickle_destroy(&t);
    driver_destroy(&d);
    cluster_stop(&c);
}
