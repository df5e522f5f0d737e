/* Slots move from shard to shard while people talk: nobody notices. */
#include "story.h"

static sim *move_new(unsigned shards, unsigned replicas, unsigned routers, uint64_t seed)
{
    return sim_new((sim_conf){ .edges = 2, .routers = routers, .shards = shards, .replicas = replicas, .seed = seed });
}

static unsigned slot_of(sim *s, const char *id)
{
    char qid[100];
    snprintf(qid, sizeof qid, "default/%s", id);
    return sim_slot(s, qid);
}

static uint32_t shard_of(sim *s, const char *id)
{
    char qid[100];
    snprintf(qid, sizeof qid, "default/%s", id);
    return sim_shard(s, qid);
}

static const char *group_of(sim *s, sim_client *owner, const char *members)
{
    return story_acked(s, sim_create(owner, "a group", members, false), 1000)->chat;
}

/* Asked until the leader is there to hear it; done when the ring says so and nothing of it is left. */
static void move(sim *s, const char *id, uint32_t to)
{
    if (shard_of(s, id) == to) {
        return;
    }
    WITHIN(s, 20000, sim_move_slot(s, slot_of(s, id), to) && (sim_run(s, 50), sim_moving(s) || shard_of(s, id) == to));
    WITHIN(s, 20000, shard_of(s, id) == to && !sim_moving(s));
}

STORY(a_chat_moves_while_people_talk_in_it)
{
    (void)state;
    for (uint64_t seed = 0; seed < 4; seed++) {
        sim *s = move_new(3, 1, 2, 1000 + seed);
        sim_client *ann = story_person(s, "ann", "phone", "edge1");
        sim_client *hal = story_person(s, "hal", "phone", "edge2");
        sim_client *dan = story_person(s, "dan", "phone", "edge1");
        const char *chat = group_of(s, ann, "hal dan");
        sim_client *all[] = { ann, hal, dan };
        uint64_t seq = 1;
        for (uint32_t round = 0; round < 4; round++) {
            uint32_t to = (shard_of(s, chat) + 1 + round % 2) % 3;
            sim_op *ops[30];
            for (int i = 0; i < 30; i++) {
                if (i == 10) {
                    assert_true(sim_move_slot(s, slot_of(s, chat), to));
                }
                ops[i] = sim_post(all[i % 3], chat, "while it moves");
                sim_run(s, 3);
            }
            WITHIN(s, 5000, shard_of(s, chat) == to && !sim_moving(s));
            for (int i = 0; i < 30; i++) {
                story_acked(s, ops[i], 3000);
            }
            seq += 30;
            story_acked(s, sim_post(ann, chat, "and now here"), 1000);
            seq++;
            WITHIN(s, 3000, sim_find(ann, chat, seq) && sim_find(hal, chat, seq) && sim_find(dan, chat, seq));
        }
        assert_int_equal(ann->resyncs + hal->resyncs + dan->resyncs, 3); /* each one's first hello */
        story_end(&s);
    }
}

STORY(a_request_made_twice_is_one_on_both_sides_of_a_move)
{
    (void)state;
    sim *s = move_new(2, 1, 1, 1010);
    sim_client *ann = story_person(s, "ann", "phone", "edge1");
    sim_client *hal = story_person(s, "hal", "phone", "edge2");
    const char *chat = group_of(s, ann, "hal");
    sim_op *first = sim_post(ann, chat, "once");
    story_acked(s, first, 1000);
    uint64_t id = sim_sent(first)->seq;
    sim_read(hal, chat, 2);
    move(s, chat, 1 - shard_of(s, chat));
    sim_op *again = sim_again(ann, first);
    story_acked(s, again, 1000);
    assert_int_equal(sim_sent(again)->seq, id);
    assert_true(sim_sent(again)->dup);
    story_end(&s);
}

/* Live, and nothing but the way to the store changes. */
STORY(a_live_user_moves)
{
    (void)state;
    for (uint64_t seed = 0; seed < 4; seed++) {
        sim *s = move_new(3, 1, 2, 1020 + seed);
        sim_client *ann = story_person(s, "ann", "phone", "edge1");
        sim_client *pad = story_person(s, "ann", "pad", "edge2");
        sim_client *hal = story_person(s, "hal", "phone", "edge2");
        for (uint32_t round = 0; round < 3; round++) {
            uint32_t to = (shard_of(s, "ann") + 1) % 3;
            for (int i = 0; i < 30; i++) {
                if (i == 10) {
                    assert_true(sim_move_slot(s, slot_of(s, "ann"), to));
                }
                sim_send(i % 2 ? ann : hal, i % 2 ? "hal" : "ann", "while she moves");
                sim_run(s, 3);
            }
            WITHIN(s, 5000, shard_of(s, "ann") == to && !sim_moving(s));
            size_t want = (size_t)(round + 1) * 30;
            WITHIN(s, 5000, ann->n_got == want && pad->n_got == want && hal->n_got == want);
        }
        assert_int_equal(ann->resyncs + pad->resyncs + hal->resyncs, 3);
        assert_int_equal(ann->hellos, 1);
        story_end(&s);
    }
}

STORY(a_user_who_is_away_moves)
{
    (void)state;
    sim *s = move_new(2, 1, 1, 1030);
    sim_client *ann = story_person(s, "ann", "phone", "edge1");
    sim_client *hal = story_person(s, "hal", "phone", "edge2");
    story_acked(s, sim_send(hal, "ann", "before"), 1000);
    WITHIN(s, 1000, ann->n_got == 1);
    sim_run(s, 500);
    sim_bye(ann);
    for (int i = 0; i < 20; i++) {
        story_acked(s, sim_send(hal, "ann", "while she is away"), 1000);
    }
    move(s, "ann", 1 - shard_of(s, "ann"));
    for (int i = 0; i < 20; i++) {
        story_acked(s, sim_send(hal, "ann", "and has moved"), 1000);
    }
    sim_hello(ann, "edge1");
    WITHIN(s, 3000, ann->n_got == 41);
    assert_int_equal(ann->resyncs, 1);
    for (size_t i = 0; i < ann->n_got; i++) {
        assert_int_equal(ann->got[i].inbox_seq, ann->got[0].inbox_seq + i);
    }
    story_end(&s);
}

/* Long texts stand in the chat alone, where chat and inbox are of one shard: until one of them goes. */
STORY(long_texts_stay_readable_when_chat_or_user_moves)
{
    (void)state;
    static char text[3000];
    memset(text, 'x', sizeof text - 1);
    for (int which = 0; which < 4; which++) {
        sim *s = move_new(2, 1, 1, 1040 + (uint64_t)which);
        sim_client *ann = story_person(s, "ann", "phone", "edge1");
        sim_client *hal = story_person(s, "hal", "phone", "edge1");
        const char *chat = group_of(s, hal, "ann");
        WITHIN(s, 1000, ann->n_got == 1);
        sim_run(s, 500);
        sim_bye(ann);
        move(s, chat, shard_of(s, "ann"));
        for (int i = 0; i < 5; i++) {
            story_acked(s, sim_post(hal, chat, text), 1000);
        }
        sim_run(s, 1000);
        if (which % 2) {
            move(s, chat, 1 - shard_of(s, chat));
        }
        if (which / 2) {
            move(s, "ann", 1 - shard_of(s, "ann"));
        }
        sim_hello(ann, "edge1");
        WITHIN(s, 5000, ann->n_got == 6);
        for (size_t i = 1; i < ann->n_got; i++) {
            assert_string_equal(ann->got[i].message->body, text);
        }
        story_end(&s);
    }
}

STORY(back_and_forth)
{
    (void)state;
    sim *s = move_new(2, 1, 2, 1050);
    sim_client *ann = story_person(s, "ann", "phone", "edge1");
    sim_client *hal = story_person(s, "hal", "phone", "edge2");
    const char *chat = group_of(s, ann, "hal");
    for (int i = 0; i < 12; i++) {
        sim_op *op = sim_post(i % 2 ? ann : hal, chat, "again");
        move(s, i % 3 ? chat : "ann", 1 - shard_of(s, i % 3 ? chat : "ann"));
        story_acked(s, op, 2000);
    }
    WITHIN(s, 2000, sim_find(ann, chat, 13) && sim_find(hal, chat, 13));
    assert_int_equal(ann->resyncs + hal->resyncs, 2);
    story_end(&s);
}

/* The router of the recipients does not hear the chat's store: what is owed goes along. */
STORY(what_is_owed_moves_along)
{
    (void)state;
    sim *s = move_new(2, 1, 2, 1060);
    sim_client *ann = story_person(s, "ann", "phone", "edge1");
    sim_client *hal = story_person(s, "hal", "phone", "edge2");
    const char *chat = group_of(s, ann, "hal");
    WITHIN(s, 1000, hal->n_got == 1 && ann->n_got == 1);
    sim_run(s, 500);
    const char *store = sim_leader(s, shard_of(s, chat));
    sim_lose(s, "router1", store, MESH__MSG__BODY_DELIVER, 1000000);
    sim_lose(s, "router2", store, MESH__MSG__BODY_DELIVER, 1000000);
    for (int i = 0; i < 150; i++) {
        story_acked(s, sim_post(ann, chat, "owed"), 1000);
    }
    uint32_t other = 1 - shard_of(s, chat);
    move(s, chat, other);
    WITHIN(s, 5000, sim_find(ann, chat, 151) && sim_find(hal, chat, 151));
    sim_lose_none(s);
    story_end(&s);
}

/* More than fits one part, so the other shard has some of it when a leader dies; and again when it goes back. */
STORY(a_large_slot_goes_in_parts)
{
    (void)state;
    static char text[60000];
    memset(text, 'y', sizeof text - 1);
    for (mesh_ms ms = 0; ms < 40; ms += 5) {
        sim *s = move_new(2, 1, 2, 1500 + (uint64_t)ms);
        sim_client *ann = story_person(s, "ann", "phone", "edge1");
        sim_client *hal = story_person(s, "hal", "phone", "edge2");
        const char *chat = group_of(s, ann, "hal");
        for (int i = 0; i < 20; i++) {
            story_acked(s, sim_post(i % 2 ? ann : hal, chat, text), 2000);
        }
        for (int round = 0; round < 2; round++) {
            uint32_t from = shard_of(s, chat);
            char dead[32];
            snprintf(dead, sizeof dead, "%s", sim_leader(s, round ? from : 1 - from));
            assert_true(sim_move_slot(s, slot_of(s, chat), 1 - from));
            sim_run(s, 5 + ms);
            sim_kill(s, dead);
            sim_run(s, 200);
            sim_start(s, dead);
            WITHIN(s, 20000, sim_leader(s, 0) && sim_leader(s, 1));
            WITHIN(s, 20000, !sim_moving(s));
            move(s, chat, 1 - from); /* unless the leader died before it was written down */
        }
        story_acked(s, sim_post(ann, chat, "small"), 5000);
        story_end(&s);
    }
}

/* The leader of any of the shards dies at any moment of a move; it goes on and comes out once. */
STORY(leaders_die_in_every_phase)
{
    (void)state;
    for (unsigned ms = 0; ms < 60; ms += 2) {
        for (uint32_t victim = 0; victim < 3; victim++) {
            sim *s = move_new(3, ms % 4 ? 1 : 3, 2, 1100 + ms * 3 + victim);
            sim_client *ann = story_person(s, "ann", "phone", "edge1");
            sim_client *hal = story_person(s, "hal", "phone", "edge2");
            const char *chat = group_of(s, ann, "hal");
            const char *moved = ms % 3 ? chat : "ann";
            for (int i = 0; i < 20; i++) {
                sim_post(i % 2 ? ann : hal, chat, "before");
            }
            uint32_t from = shard_of(s, moved);
            uint32_t to = (from + 1 + ms % 2) % 3;
            assert_true(sim_move_slot(s, slot_of(s, moved), to));
            sim_run(s, ms);
            char dead[32];
            const char *leader = sim_leader(s, victim == 0 ? from : victim == 1 ? to : 0);
            snprintf(dead, sizeof dead, "%s", leader ? leader : "store1");
            sim_kill(s, dead);
            sim_op *op = sim_post(hal, chat, "meanwhile");
            sim_run(s, ms % 5 ? 300 : 3000);
            sim_start(s, dead);
            story_acked(s, op, 20000);
            WITHIN(s, 20000, !sim_moving(s));
            story_end(&s);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_chat_moves_while_people_talk_in_it),
        cmocka_unit_test(a_request_made_twice_is_one_on_both_sides_of_a_move),
        cmocka_unit_test(a_live_user_moves),
        cmocka_unit_test(a_user_who_is_away_moves),
        cmocka_unit_test(long_texts_stay_readable_when_chat_or_user_moves),
        cmocka_unit_test(back_and_forth),
        cmocka_unit_test(what_is_owed_moves_along),
        cmocka_unit_test(a_large_slot_goes_in_parts),
        cmocka_unit_test(leaders_die_in_every_phase),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
