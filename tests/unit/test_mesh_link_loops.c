/* Links under real loops, where a lost wake-up would cost a ping interval each, and what wakes a loop. */
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>

#include "tests/unit/link_rig.h"

#define ROUNDS 2000
typedef struct looped {
    mesh_loop *loop;
    node n;
    mesh_conf *conf;
    mesh_peer self, to;
    uint64_t rounds;
    bool done;
} looped;

static void echo(void *arg, mesh_peer from, const Mesh__Msg *msg, mesh_slice packed, mesh_time now)
{
    (void)packed;
    (void)now;
    looped *l = arg;
    uint64_t item = msg->deliver->item;
    l->rounds++;
    if (l->self == ROUTER1 || item + 1 < ROUNDS) {
        put_deliver(l->n.out, from, l->self == ROUTER1 ? item : item + 1);
    }
    l->done = item + 1 == ROUNDS;
}

static void kick(void *arg, mesh_peer peer, uint64_t boot, mesh_time now)
{
    (void)boot;
    (void)now;
    looped *l = arg;
    if (l->self != ROUTER1) {
        put_deliver(l->n.out, peer, 0);
    }
}

static mesh_ms looped_turn(void *arg, mesh_time now)
{
    looped *l = arg;
    bool more = mesh_link_receive(l->n.link, now);
    mesh_ms next = mesh_link_tick(l->n.link, now);
    mesh_link_send(l->n.link, l->n.out, now);
    if (l->done) {
        mesh_loop_stop(l->loop);
    }
    return more ? now.mono : next;
}

static void *looped_run(void *arg)
{
    looped *l = arg;
    const mesh_link_handler h = { echo, kick, NULL, NULL };
    l->n.out = mesh_out_new(N_NODES);
    mesh_err err = mesh_link_new(l->loop, l->conf, l->self, 1 + l->self, &h, l, &l->n.link);
    if (err == MESH_OK) {
        if (l->self != ROUTER1) {
            mesh_link_dial(l->n.link, ROUTER1);
        }
        mesh_loop_run(l->loop);
        mesh_link_destroy(&l->n.link);
    }
    mesh_out_destroy(&l->n.out);
    return NULL;
}

static void ping_pong(mesh_conf *c)
{
    static looped edge, router;
    edge = (looped){ .conf = c, .self = EDGE1 };
    router = (looped){ .conf = c, .self = ROUTER1 };
    edge.loop = mesh_loop_new(looped_turn, &edge);
    router.loop = mesh_loop_new(looped_turn, &router);
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, looped_run, &router), 0);
    mesh_ms before = mesh_clock_now().mono;
    looped_run(&edge);
    assert_int_equal(edge.rounds, ROUNDS);
    assert_true(mesh_clock_now().mono - before < WAIT_MS);
    pthread_join(thread, NULL);
    assert_int_equal(router.rounds, ROUNDS);
    mesh_loop_destroy(&edge.loop);
    mesh_loop_destroy(&router.loop);
}

static void loops_lose_no_wake_up(void **state)
{
    (void)state;
    ping_pong(conf);
    mesh_conf *c = mesh_conf_new();
    add_nodes(c, "inproc://test-loop", false);
    ping_pong(c);
    mesh_conf_destroy(&c);
}

typedef struct counted {
    mesh_loop *loop;
    atomic_uint turns;
} counted;

static mesh_ms count_turns(void *arg, mesh_time now)
{
    counted *c = arg;
    unsigned turns = ++c->turns;
    if (mesh_loop_stopping()) {
        mesh_loop_stop(c->loop);
    }
    return turns < 5 ? now.mono : turns < 8 ? now.mono + 2 : MESH_NEVER;
}

static void *run_counted(void *arg)
{
    mesh_loop_run(((counted *)arg)->loop);
    return NULL;
}

static void wait_turns(counted *c, unsigned turns)
{
    mesh_ms give_up = mesh_clock_now().mono + WAIT_MS;
    while (c->turns < turns) {
        assert_true(mesh_clock_now().mono < give_up);
        poll(NULL, 0, 1);
    }
}

/* Deadlines past, near and none; a wake from another thread; the signal stops every loop. */
static void loops_wake_when_they_must(void **state)
{
    (void)state;
    mesh_loop_signals();
    counted loops[2] = { 0 };
    pthread_t threads[2];
    for (size_t i = 0; i < 2; i++) {
        loops[i].loop = mesh_loop_new(count_turns, &loops[i]);
        assert_int_equal(pthread_create(&threads[i], NULL, run_counted, &loops[i]), 0);
    }
    for (size_t i = 0; i < 2; i++) {
        wait_turns(&loops[i], 8);
        unsigned before = loops[i].turns;
        mesh_loop_wake(loops[i].loop);
        wait_turns(&loops[i], before + 1);
    }
    assert_false(mesh_loop_stopping());
    kill(getpid(), SIGTERM);
    for (size_t i = 0; i < 2; i++) {
        pthread_join(threads[i], NULL);
        assert_true(loops[i].turns < 100); /* none of them spun */
        mesh_loop_destroy(&loops[i].loop);
    }
    assert_true(mesh_loop_stopping());
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(loops_lose_no_wake_up),
        cmocka_unit_test(loops_wake_when_they_must),
    };
    return cmocka_run_group_tests(tests, link_setup, link_teardown);
}
