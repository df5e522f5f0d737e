/* Several shards: chats and people are stored apart, and nobody notices. */
#include "story.h"

static sim *shards_new(unsigned shards, unsigned routers, uint64_t seed)
{
    return sim_new((sim_conf){ .edges = 2, .routers = routers, .shards = shards, .seed = seed });
}

/* ann, bob, cyd and dan are stored by two shards, their groups by all three; the checker reads each one's list. */
STORY(people_and_chats_of_three_shards)
{
    (void)state;
    for (uint64_t seed = 0; seed < 5; seed++) {
        sim *s = shards_new(3, 2, 900 + seed);
        sim_client *ann = story_person(s, "ann", "phone", "edge1");
        sim_client *eve = story_person(s, "eve", "phone", "edge2");
        sim_client *hal = story_person(s, "hal", "phone", "edge1");
        sim_client *dan = story_person(s, "dan", "phone", "edge2");
        assert_int_equal(sim_shard(s, "default/hal"), 0);
        assert_int_equal(sim_shard(s, "default/eve"), 1);
        assert_int_equal(sim_shard(s, "default/ann"), 1);
        assert_int_equal(sim_shard(s, "default/dan"), 2);
        sim_client *all[] = { ann, eve, hal, dan };
        for (uint32_t shard = 0; shard < 3; shard++) {
            const char *chat = story_group_at(s, all[shard], "ann eve hal dan", shard);
            for (int i = 0; i < 8; i++) {
                sim_post(all[i % 4], chat, "to everybody");
            }
        }
        story_acked(s, sim_send(ann, "hal", "over there"), 1000);
        story_acked(s, sim_send(dan, "eve", "over here"), 1000);
        story_end(&s);
    }
}

STORY(a_dead_shard_hurts_only_what_it_stores)
{
    (void)state;
    sim *s = shards_new(2, 2, 910);
    sim_client *eve = story_person(s, "eve", "phone", "edge1");
    sim_client *hal = story_person(s, "hal", "phone", "edge2");
    sim_client *ann = story_person(s, "ann", "phone", "edge1");
    const char *chat = story_group_at(s, hal, "eve ann", 0);
    story_acked(s, sim_post(eve, chat, "before"), 500);
    sim_run(s, 500);
    sim_kill(s, "store2"); /* ann's */
    size_t had = hal->n_got;
    story_acked(s, sim_post(eve, chat, "while it is dead"), 500);
    WITHIN(s, 500, hal->n_got == had + 1);
    sim_run(s, 20000);
    assert_null(sim_find(ann, chat, 3));
    sim_start(s, "store2");
    WITHIN(s, 15000, sim_find(ann, chat, 3) != NULL);
    story_end(&s);
}

/* A long text is not repeated in each inbox where the chat is at hand; elsewhere it has to be. */
STORY(long_texts_for_who_was_away)
{
    (void)state;
    static char text[3000];
    memset(text, 'x', sizeof text - 1);
    sim *s = shards_new(3, 1, 920);
    sim_client *dan = story_person(s, "dan", "phone", "edge1");
    sim_client *ann = story_person(s, "ann", "phone", "edge1");
    sim_client *hal = story_person(s, "hal", "phone", "edge1");
    sim_run(s, 500);
    sim_bye(ann);
    sim_bye(hal);
    for (uint32_t shard = 0; shard < 3; shard++) {
        story_acked(s, sim_post(dan, story_group_at(s, dan, "ann hal", shard), text), 1000);
    }
    WITHIN(s, 5000, dan->n_got > 0 && dan->got[dan->n_got - 1].message->kind == CLIENT__ENTRY_KIND__ENTRY_KIND_TEXT);
    sim_hello(ann, "edge1");
    sim_hello(hal, "edge1");
    WITHIN(s, 5000, ann->n_got == dan->n_got && hal->n_got == dan->n_got);
    for (size_t i = 0; i < ann->n_got; i++) {
        const Client__Message *m = ann->got[i].message;
        assert_true(m->kind != CLIENT__ENTRY_KIND__ENTRY_KIND_TEXT || strcmp(m->body, text) == 0);
    }
    story_end(&s);
}

/* Its links stay up while its disk is full, so nobody comes up who would tell it. */
STORY(a_store_that_opens_again_learns_the_ring)
{
    (void)state;
    sim *s = shards_new(2, 1, 930);
    sim_client *ann = story_person(s, "ann", "phone", "edge1");
    sim_client *hal = story_person(s, "hal", "phone", "edge1");
    const char *chat = story_group_at(s, hal, "ann", 1);
    sim_disk_fill_at(s, "store2");
    sim_op *op = sim_post(ann, chat, "while it is full");
    WITHIN(s, 5000, sim_store_at(s, "store2") == NULL);
    assert_non_null(sim_store_at(s, "store1"));
    sim_disk_free_at(s, "store2");
    story_acked(s, op, 15000);
    WITHIN(s, 5000, sim_find(hal, chat, 2) && sim_find(ann, chat, 2));
    story_end(&s);
}

STORY(a_broken_disk_ends_one_store)
{
    (void)state;
    sim *s = shards_new(2, 1, 940);
    sim_client *ann = story_person(s, "ann", "phone", "edge1");
    sim_client *hal = story_person(s, "hal", "phone", "edge1");
    const char *chat = story_group_at(s, hal, "ann", 1);
    sim_disk_break_at(s, "store2");
    sim_op *op = sim_post(ann, chat, "for a disk that fails");
    WITHIN(s, 5000, !sim_alive(s, "store2"));
    assert_true(sim_alive(s, "store1"));
    assert_int_equal(op->state, OP_WAITING);
    sim_start(s, "store2");
    story_acked(s, op, 15000);
    story_end(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(people_and_chats_of_three_shards), cmocka_unit_test(a_dead_shard_hurts_only_what_it_stores),
        cmocka_unit_test(long_texts_for_who_was_away),      cmocka_unit_test(a_store_that_opens_again_learns_the_ring),
        cmocka_unit_test(a_broken_disk_ends_one_store),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
