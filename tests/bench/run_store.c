/* The store alone: this process is the cluster's only router, without people behind it. It holds a lease, sends 1:1
 * messages to the leader as fast as a window allows, and takes what the outbox gives it. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/data.h"
#include "mesh/id.h"
#include "mesh/link.h"
#include "mesh/rand.h"
#include "tests/bench/bench.h"

#define PAIRS_MAX 512
#define LEASE_MS 500
#define LEASE_CORR 1
#define SEND_CORR 2 /* and above */
#define LIMIT_MS 30000
#define WARM_MS 2000

typedef struct alone {
    mesh_loop *loop;
    mesh_link *link;
    mesh_out *out;
    uint64_t boot, epoch, corr;
    mesh_peer leader;
    unsigned pairs, window, waiting;
    mesh_qid users[2 * PAIRS_MAX], chats[PAIRS_MAX];
    uint64_t sent, answered, delivered, counted_from;
    mesh_ms next_lease, begun, counting, end; /* 0: not yet */
    mesh_ms counted_ms;
} alone;

static void die(const char *what)
{
    fprintf(stderr, "bench: the store alone: %s\n", what);
    exit(1);
}

static void put_lease(alone *a, mesh_time now)
{
    static char name[] = "router1";
    Mesh__Lease lease = MESH__LEASE__INIT;
    lease.router = name;
    lease.boot = a->boot;
    MESH_MSG(msg, LEASE, lease, &lease);
    msg.corr = LEASE_CORR;
    msg.epoch = a->epoch;
    mesh_out_put(a->out, a->leader, &msg);
    a->next_lease = now.mono + LEASE_MS;
}

static void put_send(alone *a)
{
    static uint8_t body[64] = "sixty-four bytes of text, as one line of a lively room may be..";
    static char type[] = "text/plain";
    unsigned i = (unsigned)(a->sent % a->pairs);
    char id[32];
    (void)snprintf(id, sizeof id, "m%llu", (unsigned long long)a->sent++);
    Mesh__Send send = MESH__SEND__INIT;
    send.user = a->users[2 * i].s;
    send.peer = a->users[2 * i + 1].s;
    send.chat = a->chats[i].s;
    send.client_msg_id = id;
    send.content_type = type;
    send.body.data = body;
    send.body.len = sizeof body;
    MESH_MSG(msg, SEND, send, &send);
    msg.corr = SEND_CORR + a->corr++;
    msg.epoch = a->epoch;
    msg.key = send.chat;
    mesh_out_put(a->out, a->leader, &msg);
    a->waiting++;
}

/* Everybody's inbox is of the leader's shard, so it was written with the message. */
static void on_deliver(alone *a, mesh_peer from, const Mesh__Deliver *deliver)
{
    Mesh__Delivered done = MESH__DELIVERED__INIT;
    done.item = deliver->item;
    done.parcel = deliver->parcel;
    for (size_t i = 0; i < deliver->n_users; i++) {
        done.retry = done.retry || deliver->era == 0 || deliver->users[i]->inbox_seq == 0;
    }
    MESH_MSG(msg, DELIVERED, delivered, &done);
    msg.epoch = a->epoch;
    mesh_out_put(a->out, from, &msg);
    a->delivered += !done.retry;
}

static void on_message(void *arg, mesh_peer from, const Mesh__Msg *msg, mesh_slice packed, mesh_time now)
{
    (void)packed;
    alone *a = arg;
    switch (msg->body_case) {
    case MESH__MSG__BODY_LEADING:
        a->leader = from;
        put_lease(a, now);
        break;
    case MESH__MSG__BODY_RING:
        a->epoch = msg->ring->n_routers > 0 && msg->ring->epoch > a->epoch ? msg->ring->epoch : a->epoch;
        break;
    case MESH__MSG__BODY_SENT:
        a->answered++;
        a->waiting--;
        break;
    case MESH__MSG__BODY_DELIVER:
        on_deliver(a, from, msg->deliver);
        break;
    case MESH__MSG__BODY_FAULT:
        if (msg->corr >= SEND_CORR) {
            fprintf(stderr, "bench: fault %u %s\n", msg->fault->code, msg->fault->detail);
            die("refused");
        }
        break;
    default:
        break;
    }
}

static void on_up(void *arg, mesh_peer peer, uint64_t boot, mesh_time now)
{
    (void)arg;
    (void)peer;
    (void)boot;
    (void)now;
}

static void on_down(void *arg, mesh_peer peer, mesh_time now)
{
    (void)arg;
    (void)peer;
    (void)now;
}

/* Every chat once, then warm, then counted. */
static void drive(alone *a, mesh_ms now, mesh_ms seconds_ms)
{
    if (a->begun == 0) {
        a->begun = now;
    } else if (a->counting == 0 && now - a->begun >= WARM_MS) {
        a->counting = now;
        a->counted_from = a->answered;
    } else if (a->counting != 0 && a->end == 0 && now - a->counting >= seconds_ms) {
        a->end = now;
        a->counted_ms = now - a->counting;
        a->counted_from = a->answered - a->counted_from;
    }
    while (a->end == 0 && a->waiting < a->pairs * a->window) {
        put_send(a);
    }
    if (a->end != 0 && a->waiting == 0) {
        mesh_loop_stop(a->loop);
    }
}

typedef struct turning {
    alone a;
    mesh_ms seconds_ms, limit;
} turning;

static mesh_ms turn(void *arg, mesh_time now)
{
    turning *t = arg;
    alone *a = &t->a;
    bool more = mesh_link_receive(a->link, now);
    if (now.mono >= t->limit) {
        die("time is over");
    }
    if (a->leader != MESH_NO_PEER && now.mono >= a->next_lease) {
        put_lease(a, now);
    }
    if (a->epoch > 0) {
        drive(a, now.mono, t->seconds_ms);
    }
    mesh_link_send(a->link, a->out, now);
    mesh_ms next = mesh_link_tick(a->link, now);
    return more ? now.mono : (next < now.mono + 100 ? next : now.mono + 100);
}

static void name_all(alone *a)
{
    for (unsigned i = 0; i < a->pairs; i++) {
        (void)snprintf(a->users[2 * i].s, sizeof a->users[0].s, "default/a%u", i);
        (void)snprintf(a->users[2 * i + 1].s, sizeof a->users[0].s, "default/b%u", i);
        mesh_id_direct(a->users[2 * i].s, a->users[2 * i + 1].s, &a->chats[i]);
    }
}

static double run(const cluster *c, const bench_options *options, mesh_ms seconds_ms)
{
    static const mesh_link_handler handler = { on_message, on_up, on_down, NULL };
    static turning t;
    t = (turning){ .seconds_ms = seconds_ms, .limit = mesh_clock_now().mono + LIMIT_MS + seconds_ms };
    alone *a = &t.a;
    a->boot = mesh_rand_seed();
    a->leader = MESH_NO_PEER;
    a->pairs = options->pairs < PAIRS_MAX ? options->pairs : PAIRS_MAX;
    a->window = options->window;
    name_all(a);
    char path[128], keys[128];
    (void)snprintf(path, sizeof path, "%s/cluster.conf", c->dir);
    (void)snprintf(keys, sizeof keys, "%s/keys", c->dir);
    mesh_conf *conf = client_data_conf(path);
    if (conf == NULL || mesh_link_setup(conf, keys) != MESH_OK) {
        die("no link");
    }
    a->out = mesh_out_new(mesh_conf_nodes(conf));
    a->loop = mesh_loop_new(turn, &t);
    if (mesh_link_new(a->loop, conf, mesh_conf_find(conf, "router1"), a->boot, &handler, a, &a->link) != MESH_OK) {
        die("no link");
    }
    for (unsigned i = 0; i < c->n; i++) {
        if (strcmp(c->nodes[i].role, "store") == 0) {
            mesh_link_dial(a->link, mesh_conf_find(conf, c->nodes[i].name));
        }
    }
    mesh_loop_run(a->loop);
    mesh_link_destroy(&a->link);
    mesh_loop_destroy(&a->loop);
    mesh_out_destroy(&a->out);
    mesh_link_teardown();
    mesh_conf_destroy(&conf);
    printf("    %u replicas: %llu messages answered, %llu delivered\n", c->plan.replicas,
           (unsigned long long)a->answered, (unsigned long long)a->delivered);
    return (double)a->counted_from / ((double)a->counted_ms / 1e3);
}

/* Since the start. */
static void print_counts(const cluster *c)
{
    cluster_print_stores(c);
    printf("    %.2f s of CPU\n", cluster_cpu(c, "store"));
}

void figure_store_alone(const bench_options *options)
{
    double rate[2] = { 0 };
    for (int i = 0; i < 4; i++) {
        const cluster_plan plan = { .edges = 1, .routers = 1, .shards = 1, .replicas = i % 2 == 0 ? 1 : 3 };
        cluster c;
        cluster_start_stores(&c, options, &plan);
        rate[i % 2] += run(&c, options, options->quick ? 4000 : 15000) / 2;
        print_counts(&c);
        cluster_stop(&c);
    }
    result_put("store_alone_one_throughput", rate[0], "messages/s");
    result_put("store_alone_three_throughput", rate[1], "messages/s");
    result_put("store_alone_three_of_one", rate[1] / rate[0], "ratio");
}
