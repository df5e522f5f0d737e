/* Somebody puts an old copy of one replica's disk back: whoever leads by then, it is put aside and built anew from the
 * others, and nothing that was acked is missing. */
#include "story.h"

#define TOLD_MS 1500 /* until all know, and on disk, what each has confirmed */

typedef struct trio {
    sim *s;
    sim_client *ann, *bob;
    char lead[32], old[32], other[32];
    unsigned sent;
} trio;

static void talk(trio *t, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        story_acked(t->s, sim_send(t->ann, "bob", "one of many"), 15000);
    }
    t->sent += n;
}

/* The disk of `old` is remembered; then it gets more. */
static trio trio_new(uint64_t seed)
{
    trio t = { .s = sim_new((sim_conf){ .edges = 1, .routers = 1, .replicas = 3, .seed = seed }) };
    t.ann = story_person(t.s, "ann", "phone", "edge1");
    t.bob = story_person(t.s, "bob", "phone", "edge1");
    talk(&t, 3);
    WITHIN(t.s, 5000, sim_leader(t.s, 0));
    snprintf(t.lead, sizeof t.lead, "%s", sim_leader(t.s, 0));
    unsigned lead = (unsigned)(t.lead[5] - '0');
    snprintf(t.old, sizeof t.old, "store%u", lead % 3 + 1);
    snprintf(t.other, sizeof t.other, "store%u", (lead + 1) % 3 + 1);
    sim_disk_keep_at(t.s, t.old);
    talk(&t, 10);
    sim_run(t.s, TOLD_MS);
    return t;
}

static void put_back(const trio *t)
{
    if (sim_alive(t->s, t->old)) {
        sim_kill(t->s, t->old);
    }
    assert_true(sim_disk_stale_at(t->s, t->old));
    sim_start(t->s, t->old);
}

static void trio_end(trio *t)
{
    WITHIN(t->s, 20000, sim_disk_quarantines_at(t->s, t->old) == 1 && sim_disk_sound(t->s, t->old) == 3);
    talk(t, 3);
    WITHIN(t->s, 5000, t->bob->n_got == t->sent);
    assert_int_equal(sim_disk_quarantines_at(t->s, t->lead) + sim_disk_quarantines_at(t->s, t->other), 0);
    story_end(&t->s);
}

/* Whoever leads has never had a confirmation of it. */
STORY(in_another_reign)
{
    (void)state;
    for (uint64_t seed = 0; seed < 6; seed++) {
        trio t = trio_new(1300 + seed);
        sim_kill(t.s, t.old);
        sim_kill(t.s, t.lead);
        sim_kill(t.s, t.other);
        sim_start(t.s, t.lead);
        sim_start(t.s, t.other);
        talk(&t, 2);
        put_back(&t);
        trio_end(&t);
    }
}

STORY(when_all_begin_again)
{
    (void)state;
    for (uint64_t seed = 0; seed < 6; seed++) {
        trio t = trio_new(1310 + seed);
        sim_kill(t.s, t.lead);
        sim_kill(t.s, t.other);
        put_back(&t);
        sim_run(t.s, (mesh_ms)sim_random(t.s, 3000));
        sim_start(t.s, t.other);
        sim_run(t.s, (mesh_ms)sim_random(t.s, 300));
        sim_start(t.s, t.lead);
        trio_end(&t);
    }
}

STORY(while_the_leader_is_down)
{
    (void)state;
    for (uint64_t seed = 0; seed < 6; seed++) {
        trio t = trio_new(1320 + seed);
        sim_kill(t.s, t.lead);
        put_back(&t);
        WITHIN(t.s, 2000, sim_disk_quarantines_at(t.s, t.old) == 1);
        sim_run(t.s, 5000);
        assert_null(sim_leader(t.s, 0)); /* one of three alone knows not what was acked */
        sim_start(t.s, t.lead);
        trio_end(&t);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(in_another_reign),
        cmocka_unit_test(when_all_begin_again),
        cmocka_unit_test(while_the_leader_is_down),
    };
    return cmocka_run_group_tests_name("story old disk", tests, NULL, NULL);
}
