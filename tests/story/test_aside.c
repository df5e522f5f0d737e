/* One of three shards has no majority for a minute, under load: those who are stored elsewhere do not notice, and when
 * it is back everybody gets everything. */
#include "story.h"

#define SICK_MS 60000
#define POST_MS 200
#define LATENCY_MS 100 /* from a request to the other person's screen; a quarter of it without any trouble */

typedef struct party {
    sim *s;
    sim_client *hal, *dan, *eve; /* of shards 0, 2 and 1 */
    const char *chats[2];        /* all three are in them; of shards 0 and 2 */
    unsigned posts;
    mesh_ms slowest;
    const char *text;
} party;

/* One of hal and dan posts to one of the groups; the other one has it soon. */
static void post(party *p)
{
    sim_client *from = p->posts % 2 == 0 ? p->hal : p->dan;
    sim_client *to = from == p->hal ? p->dan : p->hal;
    const char *chat = p->chats[p->posts++ / 2 % 2];
    mesh_ms begun = sim_now(p->s);
    uint64_t seq = story_acked(p->s, sim_post(from, chat, p->text), LATENCY_MS)->seq;
    WITHIN(p->s, LATENCY_MS, sim_find(to, chat, seq) != NULL);
    mesh_ms took = sim_now(p->s) - begun;
    p->slowest = took > p->slowest ? took : p->slowest;
    sim_run(p->s, POST_MS > took ? POST_MS - took : 1);
}

static void begin(party *p, unsigned routers, uint64_t seed)
{
    p->s = sim_new((sim_conf){ .edges = 2, .routers = routers, .shards = 3, .replicas = 3, .seed = seed });
    p->hal = story_person(p->s, "hal", "phone", "edge1");
    p->dan = story_person(p->s, "dan", "phone", "edge2");
    p->eve = story_person(p->s, "eve", "phone", "edge2");
    assert_int_equal(sim_shard(p->s, "default/hal"), 0);
    assert_int_equal(sim_shard(p->s, "default/eve"), 1);
    assert_int_equal(sim_shard(p->s, "default/dan"), 2);
    p->chats[0] = story_group_at(p->s, p->hal, "dan eve", 0);
    p->chats[1] = story_group_at(p->s, p->dan, "hal eve", 2);
    for (mesh_ms end = sim_now(p->s) + 3000; sim_now(p->s) < end;) {
        post(p);
    }
}

/* Stores 4 to 6 are shard 1. */
static void lose_the_majority(party *p)
{
    sim_kill(p->s, "store4");
    sim_kill(p->s, "store6");
}

static void get_it_back(party *p)
{
    sim_start(p->s, "store4");
    sim_start(p->s, "store6");
}

static void a_minute_without(party *p)
{
    lose_the_majority(p);
    size_t had = p->eve->n_got;
    for (mesh_ms end = sim_now(p->s) + SICK_MS; sim_now(p->s) < end;) {
        post(p);
    }
    assert_in_range(p->eve->n_got, had, had + 1);
    get_it_back(p);
    for (mesh_ms end = sim_now(p->s) + 5000; sim_now(p->s) < end;) {
        post(p);
    }
    WITHIN(p->s, 25000, p->eve->n_got >= p->posts);
    print_message("%u posts, the slowest took %lld ms\n", p->posts, (long long)p->slowest);
}

STORY(a_shard_without_majority_holds_up_nobody_else)
{
    (void)state;
    party p = { .text = "hello" };
    begin(&p, 2, 960);
    a_minute_without(&p);
    story_end(&p.s);
}

/* More than the window of the outbox holds is owed to the dead shard, by one other shard. */
STORY(more_than_a_window_is_owed_to_a_dead_shard)
{
    (void)state;
    enum { BURST = 20 };
    party p = { .text = "hello" };
    begin(&p, 1, 961);
    lose_the_majority(&p);
    for (unsigned n = 0; n < STORE_OUTBOX_WINDOW + 500; n += BURST) {
        sim_op *op = NULL;
        for (unsigned i = 0; i < BURST; i++) {
            op = sim_post(i % 2 == 0 ? p.dan : p.hal, p.chats[0], p.text);
        }
        WITHIN(p.s, LATENCY_MS, sim_sent(op) != NULL);
        WITHIN(p.s, LATENCY_MS, sim_find(p.dan, p.chats[0], sim_sent(op)->seq) != NULL);
        sim_run(p.s, POST_MS);
    }
    get_it_back(&p);
    story_end(&p.s);
}

/* Routers come and go meanwhile, and so do the leaders of the outboxes. */
STORY(everything_else_changes_while_a_shard_is_dead)
{
    (void)state;
    party p = { .text = "hello" };
    begin(&p, 3, 962);
    lose_the_majority(&p);
    for (unsigned i = 0; i < 12; i++) {
        for (unsigned k = 0; k < 10; k++) {
            sim_post(k % 2 == 0 ? p.hal : p.dan, p.chats[k / 2 % 2], "while everything changes");
            sim_run(p.s, 100);
        }
        const char *node = i % 2 == 0 ? "router2" : sim_leader(p.s, i % 4 == 1 ? 0 : 2);
        if (node != NULL) {
            sim_kill(p.s, node);
            sim_run(p.s, 4000);
            sim_start(p.s, node);
        }
    }
    get_it_back(&p);
    story_end(&p.s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_shard_without_majority_holds_up_nobody_else),
        cmocka_unit_test(more_than_a_window_is_owed_to_a_dead_shard),
        cmocka_unit_test(everything_else_changes_while_a_shard_is_dead),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
