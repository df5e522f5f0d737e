/* What a replica takes from the others: messages that make no sense change nothing, and nothing that is said makes a
 * process fall. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/unit/group_run.h"

/* A configuration as it is encoded. */
static size_t put_conf(uint8_t out[256], unsigned n, uint8_t role)
{
    size_t at = 9;
    memset(out, 0, 256);
    out[0] = 1;
    out[1] = (uint8_t)n;
    for (unsigned i = 0; i < n; i++) {
        out[at] = (uint8_t)(i + 1);
        out[at + 8] = (uint8_t)('a' + i);
        out[at + 10] = role;
        at += 11;
    }
    return (at + 7) / 8 * 8;
}

typedef struct state_of {
    uint64_t hash, term, last, commit, reign, packets, role;
} state_of;

static state_of state(replica *r)
{
    return (
        state_of){ sim_disk_hash(r->disk),          store_consensus_term(r->cons),  store_consensus_last_index(r->cons),
                   store_consensus_commit(r->cons), store_consensus_reign(r->cons), r->g->n_packets,
                   store_consensus_role(r->cons) };
}

/* r refuses it with err, and is as it was. */
static void refused(replica *r, const Mesh__Raft *msg, mesh_err want, int line)
{
    state_of before = state(r);
    mesh_err err = store_consensus_receive(r->cons, msg, r->g->now);
    state_of after = state(r);
    if (err != want || memcmp(&before, &after, sizeof before) != 0) {
        fail_msg("line %d: %s, state %s", line, mesh_err_name(err),
                 memcmp(&before, &after, sizeof before) == 0 ? "kept" : "changed");
    }
}

#define BAD(r, m) refused(r, &(m), MESH_MALFORMED, __LINE__)
#define LATE(r, m) refused(r, &(m), MESH_STALE, __LINE__)

typedef struct scene {
    group *g;
    replica *lead, *follower, *third;
    Mesh__Raft from_lead, from_third; /* to the follower, to the leader; of the term in force; kind and rest not set */
} scene;

static scene scene_new(void)
{
    scene s = { .g = group_new(3, 17) };
    (void)elect(s.g, 2000);
    for (int i = 0; i < 10; i++) {
        put(s.g, 20);
    }
    heal(s.g);
    s.lead = leader(s.g);
    for (size_t i = 0; i < 3; i++) {
        replica *r = &s.g->r[i];
        s.third = r != s.lead ? r : s.third;
    }
    for (size_t i = 0; i < 3; i++) {
        replica *r = &s.g->r[i];
        s.follower = r != s.lead && r != s.third ? r : s.follower;
    }
    mesh__raft__init(&s.from_lead);
    s.from_lead.shard = SHARD;
    s.from_lead.term = store_consensus_term(s.lead->cons);
    s.from_third = s.from_lead;
    s.from_lead.from = s.lead->id;
    s.from_lead.from_address = s.lead->name;
    s.from_lead.to = s.follower->id;
    s.from_third.from = s.third->id;
    s.from_third.from_address = s.third->name;
    s.from_third.to = s.lead->id;
    memset(s.g->cut, 1, sizeof s.g->cut); /* nothing else happens */
    return s;
}

/* The next entries after what the follower has. */
static Mesh__Raft append_of(const scene *s, Mesh__RaftEntry **entries, size_t n)
{
    Mesh__Raft m = s->from_lead;
    m.kind = MESH__RAFT_KIND__RAFT_APPEND;
    m.index = store_consensus_last_index(s->follower->cons);
    m.index_term = m.term;
    m.entries = entries;
    m.n_entries = n;
    return m;
}

static void headers_that_do_not_fit(void **unused)
{
    (void)unused;
    scene s = scene_new();
    Mesh__Raft ok = append_of(&s, NULL, 0), m = ok;
    m.shard++;
    LATE(s.follower, m);
    m = ok;
    m.to = 4711;
    LATE(s.follower, m);
    m = ok;
    m.from = 0;
    BAD(s.follower, m);
    m = ok;
    m.from = m.to;
    BAD(s.follower, m);
    m = ok;
    m.from_address = (char *)"";
    BAD(s.follower, m);
    m = ok;
    m.from_address = s.third->name; /* another member's */
    BAD(s.follower, m);
    m = ok;
    m.term = 0;
    BAD(s.follower, m);
    m = ok;
    m.term = UINT64_MAX;
    BAD(s.follower, m);
    m = ok;
    m.index_term = 0;
    BAD(s.follower, m);
    m = ok;
    m.index = 0;
    BAD(s.follower, m);
    m = ok;
    m.index_term = m.term + 1;
    BAD(s.follower, m);
    m = ok;
    m.index = UINT64_MAX;
    BAD(s.follower, m);
    m = ok;
    m.commit = UINT64_MAX;
    BAD(s.follower, m);
    m = ok;
    m.kind = MESH__RAFT_KIND__RAFT_NONE;
    BAD(s.follower, m);
    m = ok;
    m.kind = (Mesh__RaftKind)77;
    BAD(s.follower, m);
    m = ok;
    m.kind = MESH__RAFT_KIND__RAFT_VOTE;
    m.index = m.index_term = 0; /* nobody without a log stands for election */
    BAD(s.follower, m);
    m = ok;
    m.from = 5; /* no member has an answer for us */
    m.kind = MESH__RAFT_KIND__RAFT_ELECT_NOW;
    LATE(s.follower, m);
    assert_int_equal(store_consensus_receive(s.follower->cons, &ok, s.g->now), MESH_OK);
    group_destroy(s.g);
}

static void entries_that_make_no_sense(void **unused)
{
    (void)unused;
    scene s = scene_new();
    uint8_t conf[256];
    Mesh__RaftEntry a = MESH__RAFT_ENTRY__INIT, b = a, *two[STORE_APPEND_ENTRIES + 1] = { &a, &b };
    a.term = b.term = s.from_lead.term;
    a.type = b.type = RAFT_COMMAND;
    a.payload.data = b.payload.data = conf;
    Mesh__Raft m = append_of(&s, two, 2);
    a.term = 0;
    BAD(s.follower, m);
    a.term = m.term + 1;
    BAD(s.follower, m);
    a.term = m.term - 1; /* goes back */
    BAD(s.follower, m);
    a.term = m.term;
    a.type = 0;
    BAD(s.follower, m);
    a.type = 4;
    BAD(s.follower, m);
    a.type = RAFT_COMMAND;
    a.payload.len = STORE_LOG_ENTRY_MAX + 1;
    BAD(s.follower, m);
    a.payload.len = 0;
    b.type = RAFT_CHANGE;
    b.payload.len = put_conf(conf, 3, RAFT_VOTER);
    BAD(s.follower, m); /* not the first of its message */
    two[0] = &b;
    two[1] = &a;
    for (size_t size = 0; size < b.payload.len; size++) { /* cut off */
        Mesh__RaftEntry c = b, *one = &c;
        Mesh__Raft n = append_of(&s, &one, 1);
        c.payload.len = size;
        BAD(s.follower, n);
    }
    put_conf(conf, 3, RAFT_STANDBY); /* nobody votes */
    BAD(s.follower, m);
    put_conf(conf, 3, 9);
    BAD(s.follower, m);
    b.payload.len = put_conf(conf, 0, RAFT_VOTER);
    BAD(s.follower, m);
    b.payload.len = put_conf(conf, STORE_MEMBERS_MAX + 1, RAFT_VOTER);
    BAD(s.follower, m);
    b.payload.len = put_conf(conf, 3, RAFT_VOTER);
    memset(conf + 1, 0xff, 8); /* so many */
    BAD(s.follower, m);
    put_conf(conf, 3, RAFT_VOTER);
    conf[9 + 11] = 1; /* an id twice */
    BAD(s.follower, m);
    put_conf(conf, 3, RAFT_VOTER);
    conf[9 + 11 + 8] = 'a'; /* an address twice */
    BAD(s.follower, m);
    put_conf(conf, 3, RAFT_VOTER);
    conf[b.payload.len - 1] = 1; /* not padding */
    BAD(s.follower, m);
    for (size_t i = 0; i < STORE_APPEND_ENTRIES + 1; i++) {
        two[i] = &a;
    }
    m = append_of(&s, two, STORE_APPEND_ENTRIES + 1);
    BAD(s.follower, m);
    m.n_entries = 1;
    m.index = m.index_term = 0; /* entry 1 is a configuration of term 1 */
    BAD(s.follower, m);
    group_destroy(s.g);
}

static void what_contradicts_what_is_known(void **unused)
{
    (void)unused;
    scene s = scene_new();
    Mesh__RaftEntry e = MESH__RAFT_ENTRY__INIT, *one = &e;
    e.term = s.from_lead.term + 1;
    e.type = RAFT_COMMAND;
    Mesh__Raft m = append_of(&s, &one, 1);
    m.term++;
    m.index--; /* another entry where one is committed */
    BAD(s.follower, m);
    m = append_of(&s, NULL, 0);
    m.term++;
    m.index_term++;
    BAD(s.follower, m);
    m = append_of(&s, NULL, 0); /* a second leader of the term */
    m.from = s.third->id;
    m.from_address = s.third->name;
    m.to = s.lead->id;
    BAD(s.lead, m);
    uint8_t conf[256];
    m = s.from_lead;
    m.kind = MESH__RAFT_KIND__RAFT_INSTALL;
    m.index = store_consensus_last_index(s.follower->cons) + 10;
    m.index_term = m.term;
    m.conf.data = conf;
    m.conf.len = put_conf(conf, 3, RAFT_VOTER);
    BAD(s.follower, m); /* no index of the configuration */
    m.conf_index = m.index + 1;
    BAD(s.follower, m);
    m.conf_index = 1;
    m.conf.len--;
    BAD(s.follower, m);
    m.conf.len++;
    m.index = store_consensus_commit(s.follower->cons);
    m.index_term = m.term + 1;
    m.term++;
    BAD(s.follower, m);
    m = s.from_third;
    m.kind = MESH__RAFT_KIND__RAFT_APPENDED;
    m.index = 5;
    m.rejected = 5;
    BAD(s.lead, m);
    m.rejected = store_consensus_match(s.lead->cons, s.third->id); /* late: confirmed since */
    LATE(s.lead, m);
    m.index_term = 1;
    BAD(s.lead, m);
    m = s.from_third;
    m.kind = MESH__RAFT_KIND__RAFT_VOTED;
    m.granted = true;
    LATE(s.lead, m); /* no candidate here */
    m.to = s.follower->id;
    LATE(s.follower, m);
    s.follower->cons->snapshot_ticket = 99; /* a trim is being written */
    m = s.from_lead;
    m.kind = MESH__RAFT_KIND__RAFT_INSTALL;
    m.index = store_consensus_last_index(s.follower->cons) + 10;
    m.index_term = m.term;
    m.conf.data = conf;
    m.conf.len = put_conf(conf, 3, RAFT_VOTER);
    m.conf_index = 1;
    LATE(s.follower, m);
    s.follower->cons->snapshot_ticket = 0;
    assert_int_equal(store_consensus_receive(s.follower->cons, &m, s.g->now), MESH_OK);
    assert_int_equal(store_consensus_role(s.follower->cons), STORE_WANTS_STATE);
    LATE(s.follower, m); /* and now nothing is taken */
    group_destroy(s.g);
}

/* An append that was on its way while its entries were committed and trimmed here. */
static void late_appends_do_no_harm(void **unused)
{
    (void)unused;
    scene s = scene_new();
    Mesh__RaftEntry e = MESH__RAFT_ENTRY__INIT, *many[8];
    e.term = s.from_lead.term;
    e.type = RAFT_COMMAND;
    for (size_t i = 0; i < 8; i++) {
        many[i] = &e;
    }
    uint64_t last = store_consensus_last_index(s.follower->cons);
    for (uint64_t at = 2; at <= last; at++) { /* 2: the leader's own first entry is behind 1 */
        Mesh__Raft m = append_of(&s, many, at + 8 <= last ? 8 : (size_t)(last - at));
        m.index = at;
        assert_int_equal(store_consensus_receive(s.follower->cons, &m, s.g->now), MESH_OK);
        assert_int_equal(store_consensus_last_index(s.follower->cons), last);
    }
    group_destroy(s.g);
}

/* Entries are being written when the next leader replaces them by fewer: what is reported as written is what is left.
 */
static void entries_replaced_while_written(void **unused)
{
    (void)unused;
    scene s = scene_new();
    Mesh__RaftEntry e = MESH__RAFT_ENTRY__INIT, *many[3] = { &e, &e, &e };
    uint64_t last = store_consensus_last_index(s.follower->cons);
    e.term = s.from_lead.term;
    e.type = RAFT_COMMAND;
    Mesh__Raft m = append_of(&s, many, 3);
    assert_int_equal(store_consensus_receive(s.follower->cons, &m, s.g->now), MESH_OK);
    assert_int_equal(store_consensus_last_index(s.follower->cons), last + 3);
    assert_int_equal(store_consensus_uncommitted(s.follower->cons), 3);
    m = append_of(&s, many, 1);
    m.index = last;
    m.from = s.third->id;
    m.from_address = s.third->name;
    e.term = ++m.term;
    assert_int_equal(store_consensus_receive(s.follower->cons, &m, s.g->now), MESH_OK);
    assert_int_equal(store_consensus_last_index(s.follower->cons), last + 1);
    assert_int_equal(store_consensus_uncommitted(s.follower->cons), 1);
    for (int i = 0; i < 10; i++) {
        tick(s.g);
    }
    assert_int_equal(s.follower->cons->raft.last_stored, last + 1);
    group_destroy(s.g);
}

/* ---- at random ---- */

static void bend(group *g, uint64_t *number)
{
    uint64_t odd[] = { 0, 1, 2, UINT64_MAX, 1ull << 47, 1ull << 55 };
    switch (below(g, 4)) {
    case 0:
        *number = odd[below(g, 6)];
        break;
    case 1:
        *number += 1 + below(g, 3);
        break;
    case 2:
        *number -= below(g, *number + 1) > 3 ? below(g, 4) : 0;
        break;
    default:
        *number = below(g, 300);
        break;
    }
}

static void bend_entry(group *g, Mesh__RaftEntry *e)
{
    switch (below(g, 3)) {
    case 0:
        bend(g, &e->term);
        break;
    case 1:
        e->type = (uint32_t)below(g, 5);
        break;
    default:
        e->payload.len = (size_t)below(g, e->payload.len + 1);
        break;
    }
}

/* One field in one of eight messages is another one. Terms grow slowly, or nobody could be elected for long. */
static bool change_something(group *g, size_t to, Mesh__Raft *msg)
{
    (void)to;
    if (below(g, 8) != 0) {
        return true;
    }
    uint64_t *numbers[] = { &msg->index, &msg->index_term, &msg->commit, &msg->rejected, &msg->conf_index, &msg->from };
    switch (below(g, 6)) {
    case 0:
        msg->kind = (Mesh__RaftKind)below(g, 8);
        break;
    case 1:
        msg->term += below(g, 3) - 1;
        break;
    case 2:
        msg->granted = below(g, 2) == 0;
        msg->pre_vote = below(g, 2) == 0;
        msg->disrupt = below(g, 2) == 0;
        break;
    case 3:
        if (msg->n_entries > 0) {
            msg->n_entries -= below(g, 2);
        }
        if (msg->n_entries > 0) {
            bend_entry(g, msg->entries[below(g, msg->n_entries)]);
        }
        break;
    default:
        bend(g, numbers[below(g, 6)]);
        break;
    }
    return true;
}

static void lies_make_nobody_fall(void **unused)
{
    (void)unused;
    uint64_t taken = 0, malformed = 0;
    const char *many = getenv("GROUP_SEEDS");
    uint64_t last = many != NULL ? strtoull(many, NULL, 10) : 150;
    for (uint64_t seed = 1; seed <= last; seed++) {
        group *g = group_new(seed % 2 == 0 ? 3 : 5, seed);
        g->lies = true;
        g->trail = 16 * 1024;
        g->change = change_something;
        g->twice = 100;
        g->delay = 20;
        replica_open(replica_new(g, true));
        for (int i = 0; i < 1500; i++) {
            for (size_t j = 0; j < g->n; j++) {
                replica *r = &g->r[j];
                if (store_consensus_leader(r->cons) && store_consensus_uncommitted(r->cons) < 20 && below(g, 8) == 0) {
                    (void)submit(r, below(g, 2000));
                }
                if (below(g, 30) == 0) {
                    store_consensus_trim(r->cons, r->applied, g->now);
                }
            }
            tick(g);
        }
        taken += g->taken;
        malformed += g->malformed;
        group_destroy(g);
    }
    print_message("%llu taken, %llu malformed\n", (unsigned long long)taken, (unsigned long long)malformed);
    assert_true(taken > 10000 && malformed > 1000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(headers_that_do_not_fit),        cmocka_unit_test(entries_that_make_no_sense),
        cmocka_unit_test(what_contradicts_what_is_known), cmocka_unit_test(late_appends_do_no_harm),
        cmocka_unit_test(entries_replaced_while_written), cmocka_unit_test(lies_make_nobody_fall),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
