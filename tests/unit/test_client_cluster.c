/* What `parley cluster` makes of metrics and configs: text in, text out. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/cluster.h"
#include "client/metrics.h"
#include "mesh/alloc.h"

enum { STORE1, STORE2, STORE3, ROUTER1, ROUTER2, EDGE1, OPERATOR, NODES };

typedef struct world {
    mesh_conf *conf;
    char texts[NODES][4096];
    const char *seen[NODES];
    mesh_buf out;
    client_view *view;
} world;

static void add(world *w, const char *name, mesh_role role, uint32_t shard)
{
    mesh_node_conf node = { .role = role, .shard = shard };
    snprintf(node.name, sizeof node.name, "%s", name);
    if (role == MESH_STORE || role == MESH_ROUTER) {
        snprintf(node.endpoint, sizeof node.endpoint, "inproc://%s", name);
    }
    assert_int_equal(mesh_conf_add_node(w->conf, &node), MESH_OK);
}

static void line(world *w, size_t node, const char *format, ...) __attribute__((format(printf, 3, 4)));

static void line(world *w, size_t node, const char *format, ...)
{
    va_list args;
    size_t n = strlen(w->texts[node]);
    va_start(args, format);
    (void)vsnprintf(w->texts[node] + n, sizeof w->texts[node] - n, format, args);
    va_end(args);
}

static void put_node(world *w, size_t i)
{
    static const char *const epochs[] = { [MESH_EDGE] = "edge", [MESH_ROUTER] = "router", [MESH_STORE] = "store" };
    const mesh_node_conf *node = mesh_conf_node(w->conf, (mesh_peer)i);
    line(w, i, "# HELP parley_build_info x\nparley_build_info{node=\"%s\",version=\"0.1.0\",config=\"%08x\"} 1\n",
         node->name, mesh_conf_sum(w->conf));
    line(w, i, "parley_uptime_seconds{node=\"%s\"} 4000\n", node->name);
    line(w, i, "parley_start_time_ms{node=\"%s\"} %zu\n", node->name, 100 + i);
    line(w, i, "parley_%s_ring_epoch{node=\"%s\"} 7\n", epochs[node->role], node->name);
    if (node->role == MESH_STORE) {
        line(w, i, "parley_store_open{node=\"%s\"} 1\nparley_store_term{node=\"%s\"} 3\n", node->name, node->name);
        line(w, i, "parley_store_last_index{node=\"%s\"} 100\n", node->name);
        line(w, i, "parley_store_commit_index{node=\"x\"} 98\nparley_store_applied_index{node=\"x\"} 95\n");
        line(w, i, "parley_store_done_index{node=\"x\"} 98\n"); /* the last three change no rows */
    }
    w->seen[i] = w->texts[i];
}

/* What the leader says of the others; a role of "" leaves one out. */
static void put_leader(world *w, size_t i, const char *const roles[3], const unsigned at[3])
{
    line(w, i, "parley_store_leader{node=\"x\"} 1\nparley_store_slots{node=\"x\",shard=\"0\"} 4096\n");
    for (size_t s = 0; s < 3; s++) {
        if (roles[s][0] != '\0') {
            line(w, i, "parley_store_member_index{node=\"x\",member=\"store%zu\",role=\"%s\"} %u\n", s + 1, roles[s],
                 at[s]);
        }
    }
    line(w, i, "parley_store_router_live{node=\"x\",router=\"router1\"} 1\n");
    line(w, i, "parley_store_router_live{node=\"x\",router=\"router2\"} 1\n");
}

static const char *const voters[3] = { "voter", "voter", "voter" };
static const unsigned all_there[3] = { 100, 100, 99 };

static world *world_new(void)
{
    world *w = mesh_alloc(sizeof *w);
    w->conf = mesh_conf_new();
    add(w, "store1", MESH_STORE, 0);
    add(w, "store2", MESH_STORE, 0);
    add(w, "store3", MESH_STORE, 0);
    add(w, "router1", MESH_ROUTER, 0);
    add(w, "router2", MESH_ROUTER, 0);
    add(w, "edge1", MESH_EDGE, 0);
    add(w, "operator", MESH_OPERATOR, 0);
    for (size_t i = 0; i < OPERATOR; i++) {
        put_node(w, i);
    }
    return w;
}

static void look(world *w)
{
    client_view_destroy(&w->view);
    w->view = client_view_new(w->conf, w->seen);
}

static void world_destroy(world *w)
{
    client_view_destroy(&w->view);
    mesh_conf_destroy(&w->conf);
    mesh_buf_fini(&w->out);
    free(w);
}

static const char *text_of(world *w, void (*print)(const client_view *, mesh_buf *))
{
    mesh_buf_clear(&w->out);
    print(w->view, &w->out);
    mesh_buf_put(&w->out, "", 1);
    return (const char *)w->out.data;
}

static void metrics_are_read(void **state)
{
    (void)state;
    static const char text[] =
        "# TYPE a_b gauge\na_b{node=\"x\",way=\"in\"} 3\na_bc{node=\"x\"} 9\na_b{node=\"x\",way=\"out\"} "
        "4\na_b 8\na_b{broken\n";
    const char *at = text;
    client_sample sample;
    char value[8];
    assert_int_equal(client_metrics_sum(text, "a_b", NULL), 7);
    assert_int_equal(client_metrics_sum(text, "a_b", "way=\"out\""), 4);
    assert_int_equal(client_metrics_sum(NULL, "a_b", NULL), 0);
    assert_true(client_metrics_next(&at, "a_b", &sample));
    assert_string_equal(client_metrics_label(&sample, "way", value, sizeof value), "in");
    assert_string_equal(client_metrics_label(&sample, "ay", value, sizeof value), "");
    assert_string_equal(client_metrics_label(&sample, "node", value, sizeof value), "x");
    assert_true(client_metrics_next(&at, "a_b", &sample));
    assert_int_equal(sample.value, 4);
    assert_false(client_metrics_next(&at, "a_b", &sample));
}

static void a_whole_cluster_is_green(void **state)
{
    (void)state;
    world *w = world_new();
    put_leader(w, STORE2, voters, all_there);
    look(w);
    assert_int_equal(client_view_problems(w->view), 0);
    assert_int_equal(client_view_shard(w->view, 0)->leader, STORE2);
    assert_int_equal(client_view_shard(w->view, 0)->voters, 3);
    assert_int_equal(client_view_node(w->view, STORE3)->lag, 1);
    const char *text = text_of(w, client_view_text);
    assert_non_null(strstr(text, "shard 0: leader store2, term 3, 3 of 3 voters, 4096 slots\n"));
    assert_non_null(strstr(text, "\nedge1        edge    -     up    0.1.0    1h 6m    epoch 7\n"));
    assert_non_null(strstr(text, "  store3       voter     last 100  commit 98  applied 98  lag 1\n"));
    assert_non_null(strstr(text, "\ngreen\n"));
    text = text_of(w, client_view_json);
    assert_non_null(strstr(text, "{\"green\":true,\"epoch\":7,"));
    assert_non_null(
        strstr(text, "{\"node\":\"store3\",\"role\":\"voter\",\"last\":100,\"commit\":98,\"applied\":98,\"lag\":1}"));
    assert_int_equal(text[strlen(text) - 1], '\n');
    world_destroy(w);
}

/* Nobody leads shard 0: what some store heard of the ring is still the ring in force. */
static void the_ring_is_known_without_its_maker(void **state)
{
    (void)state;
    world *w = world_new();
    line(w, STORE3, "parley_store_ring_epoch{node=\"store3\"} 1\nparley_store_slots{node=\"x\",shard=\"0\"} 4096\n");
    line(w, STORE3, "parley_store_map{node=\"x\",shard=\"0\",first=\"0\",last=\"4095\"} 4096\n");
    look(w);
    assert_int_equal(client_view_shard(w->view, 0)->leader, MESH_NO_PEER);
    assert_int_equal(client_view_shard(w->view, 0)->slots, 4096);
    assert_non_null(strstr(text_of(w, client_view_text), "ring: epoch 8\n")); /* 7 of before and 1 */
    world_destroy(w);
}

static void expect(world *w, const char *problem, size_t n)
{
    look(w);
    if (client_view_problems(w->view) != n || strcmp(client_view_problem(w->view, n - 1), problem) != 0) {
        fail_msg("%s", text_of(w, client_view_text));
    }
    assert_int_equal(client_view_serious(w->view), n);
    assert_null(strstr(text_of(w, client_view_text), "\ngreen\n"));
    assert_non_null(strstr(text_of(w, client_view_json), "{\"green\":false,"));
}

static void what_is_wrong_is_said(void **state)
{
    (void)state;
    world *w = world_new();
    expect(w, "shard 0 has no leader", 1);
    world_destroy(w);

    w = world_new();
    put_leader(w, STORE1, voters, all_there);
    w->seen[STORE3] = NULL;
    expect(w, "store3 is down", 1);
    w->seen[EDGE1] = NULL;
    expect(w, "edge1 is down", 2);
    world_destroy(w);

    w = world_new();
    put_leader(w, STORE1, (const char *const[]){ "voter", "voter", "spare" }, all_there);
    expect(w, "store3 was taken out of shard 0 (add-store store3 brings it back)", 1);
    world_destroy(w);

    w = world_new();
    put_leader(w, STORE1, (const char *const[]){ "voter", "voter", "" }, all_there);
    expect(w, "store3 is no member of shard 0", 1);
    world_destroy(w);

    w = world_new();
    put_leader(w, STORE1, (const char *const[]){ "voter", "voter", "standby" }, (const unsigned[]){ 100, 100, 40 });
    expect(w, "store3 has no vote in shard 0 yet: 60 entries behind", 1);
    world_destroy(w);
}

/* While its new replica takes the place of the old one a store is there twice. */
static void the_better_of_two_members_counts(void **state)
{
    (void)state;
    world *w = world_new();
    line(w, STORE1, "parley_store_member_index{node=\"x\",member=\"store3\",role=\"spare\"} 0\n");
    put_leader(w, STORE1, voters, all_there);
    look(w);
    assert_int_equal(client_view_problems(w->view), 0);
    world_destroy(w);

    w = world_new(); /* taken out, and a new replica of it has not been told yet */
    line(w, STORE1, "parley_store_member_index{node=\"x\",member=\"store3\",role=\"standby\"} 100\n");
    put_leader(w, STORE1, (const char *const[]){ "voter", "voter", "spare" }, all_there);
    expect(w, "store3 was taken out of shard 0 (add-store store3 brings it back)", 1);
    world_destroy(w);
}

static void of_two_leaders_the_later_counts(void **state)
{
    (void)state;
    world *w = world_new();
    line(w, STORE1, "parley_store_term{node=\"store1\"} 1\n"); /* 4 in sum */
    put_leader(w, STORE2, voters, all_there);
    put_leader(w, STORE1, voters, all_there);
    look(w);
    assert_int_equal(client_view_shard(w->view, 0)->leader, STORE1);
    assert_int_equal(client_view_shard(w->view, 0)->term, 4);
    world_destroy(w);
}

/* A node that only the operator's config has is no reason not to roll; one that is down is. */
static void a_new_node_is_nothing_serious(void **state)
{
    (void)state;
    world *w = world_new();
    put_leader(w, STORE1, voters, all_there);
    add(w, "store4", MESH_STORE, 1);
    add(w, "store5", MESH_STORE, 0);
    add(w, "router3", MESH_ROUTER, 0);
    const char *seen[NODES + 3] = { 0 };
    memcpy(seen, w->seen, sizeof w->seen);
    w->view = client_view_new(w->conf, seen);
    assert_true(client_view_problems(w->view) >= 6 + 4); /* all run with another config, the new ones are down */
    assert_int_equal(client_view_serious(w->view), 0);
    assert_true(client_view_node(w->view, NODES)->fresh && client_view_node(w->view, NODES + 2)->fresh);
    assert_false(client_view_node(w->view, STORE3)->fresh);
    char lone[512]; /* a shard of one store leads itself, and knows no ring */
    snprintf(lone, sizeof lone,
             "parley_build_info{config=\"%08x\"} 1\nparley_store_open{x=\"\"} 1\nparley_store_leader{x=\"\"} 1\n"
             "parley_store_member_index{member=\"store4\",role=\"voter\"} 2\n",
             mesh_conf_sum(w->conf));
    seen[NODES] = lone;
    client_view_destroy(&w->view);
    w->view = client_view_new(w->conf, seen);
    assert_int_equal(client_view_shard(w->view, 1)->leader, NODES);
    assert_int_equal(client_view_serious(w->view), 0);
    assert_true(client_view_node(w->view, NODES)->fresh);
    seen[STORE3] = NULL;
    client_view_destroy(&w->view);
    w->view = client_view_new(w->conf, seen);
    assert_int_equal(client_view_serious(w->view), 1);
    world_destroy(w);
}

static void a_node_is_put_at_the_end_of_the_list(void **state)
{
    (void)state;
    mesh_node_conf store = { .name = "store4", .role = MESH_STORE, .endpoint = "tcp://10.0.0.4:7101", .shard = 1 };
    mesh_node_conf router = { .name = "r2", .role = MESH_ROUTER, .endpoint = "tcp://10.0.0.5:7101" };
    mesh_buf out = { 0 };
    snprintf(store.public_key, sizeof store.public_key, "KEY");
    assert_true(
        client_cluster_insert("# c\ncluster\n    name = \"x\"\nnode # all of them\n    store1\n        role = store\n\n"
                              "# the edges\nedge\n    port = 1\n",
                              &store, &out));
    mesh_buf_put(&out, "", 1);
    assert_string_equal((char *)out.data,
                        "# c\ncluster\n    name = \"x\"\nnode # all of them\n    store1\n        role = store\n"
                        "    store4\n        role = store\n        endpoint = \"tcp://10.0.0.4:7101\"\n"
                        "        public_key = \"KEY\"\n        shard = 1\n"
                        "\n# the edges\nedge\n    port = 1\n");
    mesh_buf_clear(&out);
    assert_true(client_cluster_insert("node\n    a\n        role = edge", &router, &out));
    mesh_buf_put(&out, "", 1);
    assert_non_null(strstr((char *)out.data, "        role = edge\n    r2\n        role = router\n"));
    assert_null(strstr((char *)out.data, "shard"));
    mesh_buf_clear(&out);
    assert_false(client_cluster_insert("cluster\n    node = 1\nnodes\n    x\n", &router, &out));
    mesh_buf_fini(&out);
}

static void slots_are_picked(void **state)
{
    (void)state;
    world *w = world_new();
    add(w, "store4", MESH_STORE, 1);
    add(w, "store5", MESH_STORE, 2);
    const char *seen[NODES + 2] = { 0 };
    memcpy(seen, w->seen, sizeof w->seen);
    put_leader(w, STORE1, voters, all_there);
    line(w, STORE1, "parley_store_map{node=\"x\",shard=\"0\",first=\"0\",last=\"1999\"} 2000\n");
    line(w, STORE1, "parley_store_map{node=\"x\",shard=\"1\",first=\"2000\",last=\"4094\"} 2095\n");
    line(w, STORE1, "parley_store_map{node=\"x\",shard=\"2\",first=\"4095\",last=\"9999\"} 1\n");
    w->view = client_view_new(w->conf, seen);
    assert_int_equal(client_view_shard_of(w->view, 1999), 0);
    assert_int_equal(client_view_shard_of(w->view, 2000), 1);
    assert_int_equal(client_view_shard_of(w->view, 4095), 2);
    assert_int_equal(client_cluster_next_slot(w->view, 2, (client_slots){ .count = 1 }), 4094); /* 1 has most */
    assert_int_equal(client_cluster_next_slot(w->view, 1, (client_slots){ .count = 1 }), 1999);
    assert_int_equal(client_cluster_next_slot(w->view, 0, (client_slots){ 1990, 2010, 0 }), 2000);
    assert_int_equal(client_cluster_next_slot(w->view, 1, (client_slots){ 2000, 4094, 0 }), MESH_SLOTS);
    world_destroy(w);
}

static void a_command_is_filled(void **state)
{
    (void)state;
    char *text = client_cluster_fill("start {node} && wait {node}; {no}", "store1");
    assert_string_equal(text, "start store1 && wait store1; {no}");
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(metrics_are_read),
        cmocka_unit_test(a_whole_cluster_is_green),
        cmocka_unit_test(the_ring_is_known_without_its_maker),
        cmocka_unit_test(what_is_wrong_is_said),
        cmocka_unit_test(the_better_of_two_members_counts),
        cmocka_unit_test(of_two_leaders_the_later_counts),
        cmocka_unit_test(a_new_node_is_nothing_serious),
        cmocka_unit_test(a_node_is_put_at_the_end_of_the_list),
        cmocka_unit_test(slots_are_picked),
        cmocka_unit_test(a_command_is_filled),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
