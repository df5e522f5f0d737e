/* A shard of three without its majority: it hurts whom and what it stores, and nobody else. It is shard 0, which also
 * keeps the ring. */
#include "story.h"

#include "mesh/id.h"

#define OUTAGE_MS 60000
#define TALK_MS 250        /* from one word to the next */
#define LATENCY_MS 300     /* of an ack, and of a delivery: with three replicas and two shards on the way */
#define WELCOME_MS 3000    /* of a new device: it waits 1.5 s for the chats of the dead shard */
#define RECOVERED_MS 20000 /* after the stores are there again */

static sim *three_by_three(uint64_t seed)
{
    return sim_new((sim_conf){ .edges = 2, .routers = 2, .shards = 3, .replicas = 3, .seed = seed });
}

static uint32_t shard_of(sim *s, const char *id)
{
    mesh_qid qid;
    assert_int_equal(mesh_qid_make("default", id, &qid), MESH_OK);
    return sim_shard(s, qid.s);
}

static bool owned_by(sim *s, const char *id, const char *router)
{
    mesh_qid qid;
    assert_int_equal(mesh_qid_make("default", id, &qid), MESH_OK);
    return router == NULL || strcmp(sim_owner(s, qid.s), router) == 0;
}

/* Somebody stored by this shard, whose sessions this router has (NULL: any). */
static sim_client *person_at(sim *s, const char *prefix, uint32_t shard, const char *router, const char *edge)
{
    for (int i = 0; i < 1000; i++) {
        char id[16];
        snprintf(id, sizeof id, "%s%d", prefix, i);
        if (shard_of(s, id) == shard && owned_by(s, id, router)) {
            return story_person(s, id, "phone", edge);
        }
    }
    fail_msg("nobody is stored by shard %u", shard);
    return NULL;
}

static const char *group_at(sim *s, sim_client *owner, const char *members, uint32_t shard, const char *router)
{
    for (int i = 0; i < 100; i++) {
        const char *chat = story_acked(s, sim_create(owner, "a group", members, false), 1000)->chat;
        if (shard_of(s, chat) == shard && owned_by(s, chat, router)) {
            return chat;
        }
    }
    fail_msg("no group is stored by shard %u", shard);
    return NULL;
}

/* Two of the three of shard 0. */
static void kill_majority(sim *s)
{
    sim_kill(s, "store1");
    sim_kill(s, "store2");
}

static void heal(sim *s)
{
    sim_start(s, "store1");
    sim_start(s, "store2");
}

/* One word, and how long ack and delivery took: as short as ever. */
static void talk(sim *s, sim_client *from, sim_client *to, const char *chat)
{
    mesh_ms begun = sim_now(s);
    uint64_t seq = story_acked(s, sim_post(from, chat, "a word"), LATENCY_MS)->seq;
    WITHIN(s, begun + LATENCY_MS - sim_now(s), sim_find(to, chat, seq) != NULL);
    sim_run(s, begun + TALK_MS - sim_now(s));
}

static const Client__Summary *listed(Client__Summary *const *chats, size_t n, const char *chat)
{
    for (size_t i = 0; i < n; i++) {
        if (strcmp(chats[i]->chat, chat) == 0) {
            return chats[i];
        }
    }
    fail_msg("%s is not in the list", chat);
    return NULL;
}

/* The list has this chat, with or without what its own shard knows. */
static void expect_listed(Client__Summary *const *chats, size_t n, const char *chat, bool unavailable)
{
    const Client__Summary *summary = listed(chats, n, chat);
    assert_int_equal(summary->unavailable, unavailable);
    assert_true(summary->inbox_seq > 0);
    assert_string_equal(summary->name, unavailable ? "" : "a group");
    assert_true((summary->last == NULL) == unavailable);
}

static void list_chats(sim *s, sim_client *c, const char *chat, bool unavailable)
{
    Client__Chats chats = CLIENT__CHATS__INIT;
    Client__Request request = CLIENT__REQUEST__INIT;
    chats.limit = 100;
    request.body_case = CLIENT__REQUEST__BODY_CHATS;
    request.chats = &chats;
    sim_op *op = sim_ask(c, &request, false);
    WITHIN(s, WELCOME_MS, op->state != OP_WAITING);
    assert_int_equal(op->state, OP_DONE);
    expect_listed(op->answer->chats->chats, op->answer->chats->n_chats, chat, unavailable);
}

STORY(others_talk_on_and_new_devices_are_welcomed)
{
    (void)state;
    for (uint64_t seed = 0; seed < 3; seed++) {
        sim *s = three_by_three(1700 + seed);
        sim_client *eve = person_at(s, "eve", 1, NULL, "edge1");
        sim_client *dan = person_at(s, "dan", 2, NULL, "edge2");
        sim_client *hal = person_at(s, "hal", 0, NULL, "edge1");
        char members[160];
        snprintf(members, sizeof members, "%s %s", dan->user, hal->user);
        const char *dead = group_at(s, eve, members, 0, NULL);
        const char *mixed = group_at(s, eve, members, 1, NULL); /* hal's inbox cannot have what is said here */
        const char *other = group_at(s, eve, dan->user, 2, NULL);
        talk(s, eve, dan, dead);
        talk(s, eve, hal, mixed);
        talk(s, dan, eve, other);

        kill_majority(s);
        sim_op *waits = sim_post(dan, dead, "for later");
        size_t had = hal->n_got;
        mesh_ms end = sim_now(s) + OUTAGE_MS;
        while (sim_now(s) < end - OUTAGE_MS / 2) {
            talk(s, eve, dan, mixed);
            talk(s, dan, eve, other);
        }
        sim_client *tablet = sim_client_new(s, eve->user, "tablet");
        sim_hello(tablet, "edge2");
        WITHIN(s, WELCOME_MS, sim_live(tablet));
        expect_listed(tablet->resync->chats, tablet->resync->n_chats, dead, true);
        expect_listed(tablet->resync->chats, tablet->resync->n_chats, mixed, false);
        expect_listed(tablet->resync->chats, tablet->resync->n_chats, other, false);
        list_chats(s, dan, dead, true);
        while (sim_now(s) < end) {
            talk(s, dan, tablet, mixed);
            talk(s, eve, dan, other);
        }
        assert_int_equal(waits->state, OP_WAITING);
        assert_int_equal(hal->n_got, had);

        heal(s);
        uint64_t seq = story_acked(s, waits, RECOVERED_MS)->seq;
        WITHIN(s, RECOVERED_MS, sim_find(eve, dead, seq) && sim_find(tablet, dead, seq) && sim_find(hal, dead, seq));
        list_chats(s, tablet, dead, false);
        list_chats(s, hal, mixed, false);
        story_end(&s);
    }
}

/* Who is stored by the dead shard cannot come in, and is not told anything wrong; the old ring stays in force. */
STORY(a_router_that_dies_meanwhile_is_missed_until_it_heals)
{
    (void)state;
    for (uint64_t seed = 0; seed < 3; seed++) {
        sim *s = three_by_three(1720 + seed);
        sim_client *eve = person_at(s, "eve", 1, "router1", "edge1");
        sim_client *dan = person_at(s, "dan", 2, "router1", "edge2");
        sim_client *fay = person_at(s, "fay", 1, "router2", "edge1");
        sim_client *hal = sim_client_new(s, "hal", "phone");
        assert_int_equal(shard_of(s, "hal"), 0);
        char members[160];
        snprintf(members, sizeof members, "%s %s", dan->user, fay->user);
        const char *chat = group_at(s, eve, members, 1, "router1");
        talk(s, eve, dan, chat);
        talk(s, eve, fay, chat);

        kill_majority(s);
        sim_hello(hal, "edge1");
        for (int i = 0; i < 20; i++) {
            talk(s, fay, eve, chat);
        }
        sim_kill(s, "router2");
        size_t had = fay->n_got;
        for (int i = 0; i < 60; i++) { /* long after its lease is over */
            talk(s, i % 2 ? eve : dan, i % 2 ? dan : eve, chat);
        }
        assert_true(sim_ring_has(s, "edge1", "router2") && sim_ring_has(s, "edge2", "router2"));
        assert_int_equal(fay->n_got, had);
        assert_false(sim_live(hal));
        sim_start(s, "router2"); /* another life of it: nobody can take that into the ring */
        for (int i = 0; i < 20; i++) {
            talk(s, i % 2 ? eve : dan, i % 2 ? dan : eve, chat);
        }
        heal(s);
        WITHIN(s, RECOVERED_MS, fay->n_got == eve->n_got && sim_live(hal));
        story_end(&s);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(others_talk_on_and_new_devices_are_welcomed),
        cmocka_unit_test(a_router_that_dies_meanwhile_is_missed_until_it_heals),
    };
    return cmocka_run_group_tests_name("story dead shard", tests, NULL, NULL);
}
