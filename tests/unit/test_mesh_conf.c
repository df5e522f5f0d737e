/* mesh/conf*.c: what is read, what is refused and how it says why, and that a dump reads back. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "mesh/conf.h"

#define KEY "cluster\n    hash_key = \"000102030405060708090a0b0c0d0e0f\"\n"

static char why[512];

static mesh_err load_bytes(mesh_conf *conf, const void *bytes, size_t n)
{
    char path[] = "/tmp/parley-conf-XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, bytes, n), (ssize_t)n);
    (void)close(fd);
    why[0] = '\0';
    mesh_err err = mesh_conf_load(conf, path, why, sizeof why);
    (void)unlink(path);
    return err;
}

static mesh_err load(mesh_conf *conf, const char *text)
{
    return load_bytes(conf, text, strlen(text));
}

static void refused(const char *text, const char *reason)
{
    mesh_conf *conf = mesh_conf_new();
    mesh_err err = load(conf, text);
    if (err != MESH_MALFORMED || strstr(why, reason) == NULL) {
        fail_msg("%s: \"%s\" does not say \"%s\" for:\n%s", mesh_err_name(err), why, reason, text);
    }
    mesh_conf_destroy(&conf);
}

static const char demo[] = "# a cluster\n"
                           "cluster\n"
                           "    name = \"demo\"\n"
                           "    hash_key = \"000102030405060708090A0b0c0d0e0f\"\n"
                           "    tenants = \"default acme-2\"\n"
                           "node\n"
                           "    edge1\n"
                           "        role = edge\n"
                           "        public_key = \"rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7\"\n"
                           "    router1\n"
                           "        role = router\n"
                           "        endpoint = tcp://127.0.0.1:7101 # where it listens\n"
                           "    store1\n"
                           "        role = store\n"
                           "        endpoint = \"inproc://store1\"\n"
                           "        shard = 2\n"
                           "    ops\n"
                           "        role = operator\n"
                           "edge\n"
                           "    port = 0\n"
                           "    web_dir = 'a \"quoted\" # path'\n"
                           "log\n"
                           "    level = debug\n";

static void a_whole_config_is_read(void **state)
{
    (void)state;
    mesh_conf *conf = mesh_conf_new();
    assert_int_equal(load(conf, demo), MESH_OK);
    assert_string_equal(mesh_conf_str(conf, "cluster.name"), "demo");
    assert_int_equal(mesh_conf_hash_key(conf)->bytes[10], 10);
    assert_int_equal(mesh_conf_hash_key(conf)->bytes[15], 15);
    assert_true(mesh_conf_has_tenant(conf, "acme-2"));
    assert_true(mesh_conf_has_tenant(conf, "default"));
    assert_false(mesh_conf_has_tenant(conf, "acme"));
    assert_false(mesh_conf_has_tenant(conf, ""));
    assert_int_equal(mesh_conf_nodes(conf), 4);
    mesh_peer router = mesh_conf_find(conf, "router1");
    assert_int_equal(router, 1);
    assert_int_equal(mesh_conf_node(conf, router)->role, MESH_ROUTER);
    assert_string_equal(mesh_conf_node(conf, router)->endpoint, "tcp://127.0.0.1:7101");
    assert_int_equal(mesh_conf_node(conf, 2)->shard, 2);
    assert_int_equal(strlen(mesh_conf_node(conf, 0)->public_key), 40);
    assert_int_equal(mesh_conf_find(conf, "router2"), MESH_NO_PEER);
    assert_int_equal(mesh_conf_int(conf, "edge.port"), 0);
    assert_int_equal(mesh_conf_int(conf, "edge.burst"), 500);
    assert_string_equal(mesh_conf_str(conf, "edge.web_dir"), "a \"quoted\" # path");
    assert_string_equal(mesh_conf_str(conf, "log.level"), "debug");
    mesh_conf_destroy(&conf);
    assert_null(conf);
}

static char *dump(const mesh_conf *conf)
{
    char *text = NULL;
    size_t size = 0;
    FILE *to = open_memstream(&text, &size);
    assert_non_null(to);
    mesh_conf_dump(conf, to);
    assert_int_equal(fclose(to), 0);
    return text;
}

static void a_dump_reads_back_the_same(void **state)
{
    (void)state;
    mesh_conf *conf = mesh_conf_new();
    mesh_conf *again = mesh_conf_new();
    assert_int_equal(load(conf, demo), MESH_OK);
    assert_int_equal(mesh_conf_set(conf, "edge.rate", "123"), MESH_OK);
    assert_int_equal(mesh_conf_set(conf, "store.path", "/srv/it's here"), MESH_OK);
    char *text = dump(conf);
    assert_int_equal(load(again, text), MESH_OK);
    char *text_again = dump(again);
    assert_string_equal(text, text_again);
    assert_int_equal(mesh_conf_int(again, "edge.rate"), 123);
    assert_string_equal(mesh_conf_str(again, "edge.web_dir"), "a \"quoted\" # path");
    assert_string_equal(mesh_conf_str(again, "store.path"), "/srv/it's here");
    assert_memory_equal(mesh_conf_hash_key(again), mesh_conf_hash_key(conf), sizeof(mesh_hash_key));
    assert_int_equal(mesh_conf_nodes(again), 4);
    for (mesh_peer i = 0; i < 4; i++) {
        const mesh_node_conf *a = mesh_conf_node(conf, i);
        const mesh_node_conf *b = mesh_conf_node(again, i);
        assert_string_equal(a->name, b->name);
        assert_int_equal(a->role, b->role);
        assert_string_equal(a->endpoint, b->endpoint);
        assert_string_equal(a->public_key, b->public_key);
        assert_int_equal(a->shard, b->shard);
    }
    const mesh_setting *setting;
    for (unsigned i = 0; (setting = mesh_conf_setting(i)) != NULL; i++) {
        assert_non_null(strstr(text, setting->comment));
    }
    free(text);
    free(text_again);
    mesh_conf_destroy(&conf);
    mesh_conf_destroy(&again);
}

static void unknown_and_double_keys_are_refused(void **state)
{
    (void)state;
    refused(KEY "edge\n    prot = 80\n", "edge.prot: unknown setting");
    refused(KEY "egde\n    port = 80\n", "egde.port: unknown setting");
    refused(KEY "edge\n    port = 80\n    port = 81\n", "edge.port: given twice");
    refused(KEY "edge\n    port = 80\nedge\n    rate = 81\n", "section edge given twice");
    refused(KEY "edge = 5\n", "edge: a section has no value");
    refused(KEY "edge\n    port = 80\n        deep = 1\n", "edge.port: has lines below it");
    refused(KEY "node\n    a\n        role = edge\n        colour = red\n", "node a: colour: unknown key");
    refused(KEY "node\n    a\n        role = edge\n        role = edge\n", "node a: role given twice");
    refused(KEY "node\n    a\n        role = edge\n    a\n        role = edge\n",
            "node a: name, key or endpoint is another");
}

static void bad_values_are_refused(void **state)
{
    (void)state;
    refused(KEY "edge\n    port = 65536\n", "'65536' is not a number from 0 to 65535");
    refused(KEY "edge\n    port = -1\n", "is not a number");
    refused(KEY "edge\n    port = 80x\n", "is not a number");
    refused(KEY "edge\n    port =\n", "is not a number");
    refused(KEY "edge\n    port = 99999999999999999999999\n", "is not a number");
    refused(KEY "log\n    level = loud\n", "log.level: 'loud' is not");
    refused("cluster\n    hash_key = \"00\"\n", "cluster.hash_key: must be 32 hex digits");
    refused("cluster\n    hash_key = \"0001020304050607g8090a0b0c0d0e0f\"\n", "must be 32 hex digits");
    refused("edge\n    port = 80\n", "cluster.hash_key is missing");
    refused(KEY "    tenants = \"Default\"\n", "is not a list of tenants");
    refused(KEY "    tenants = \"\"\n", "is not a list of tenants");
    refused(KEY "    name = \"my cluster\"\n", "cluster.name");
    refused(KEY "node\n    A\n        role = edge\n", "node A: name is 1 to 32");
    refused(KEY "node\n    a\n        role = king\n", "node a: role: bad value");
    refused(KEY "node\n    a\n        public_key = \"short\"\n", "node a: no role");
    refused(KEY "node\n    a\n        role = edge\n        public_key = \"short\"\n", "40 z85 characters");
    refused(KEY "node\n    a\n        role = edge\n        endpoint = tcp://h:1\n",
            "routers and stores have an endpoint");
    refused(KEY "node\n    a\n        role = store\n", "routers and stores have an endpoint");
    refused(KEY "node\n    a\n        role = store\n        endpoint = http://h\n", "tcp:// or inproc://");
    refused(KEY "node\n    a\n        role = store\n        shard = -1\n", "node a: shard: bad value");
}

static void broken_text_names_its_line(void **state)
{
    (void)state;
    refused(KEY "edge\n  port = 80\n", ":4: not ZPL");
    refused(KEY "edge\n\tport = 80\n", ":4: not ZPL");
    refused(KEY "edge\n    port 80\n", ":4: not ZPL");
    refused(KEY "log\n    level = \"info\n", ":4: not ZPL");
    refused(KEY "edge\n            port = 80\n", ":4: not ZPL");
    mesh_conf *conf = mesh_conf_new();
    assert_int_equal(load_bytes(conf, "edge\n    port\0 = 1\n", 18), MESH_MALFORMED);
    assert_non_null(strstr(why, ":2: NUL byte"));
    mesh_conf_destroy(&conf);
    char text[4000];
    memset(text, 'x', sizeof text);
    memcpy(text, "edge\n", 5);
    text[sizeof text - 1] = '\0';
    refused(text, ":2: line too long");
    conf = mesh_conf_new();
    assert_int_equal(mesh_conf_load(conf, "/nonexistent/parley.zpl", why, sizeof why), MESH_IO);
    assert_non_null(strstr(why, "No such file"));
    mesh_conf_destroy(&conf);
}

static void the_environment_wins(void **state)
{
    (void)state;
    mesh_conf *conf = mesh_conf_new();
    setenv("PARLEY_EDGE_PORT", "9999", 1);
    setenv("PARLEY_EDGE_MAX_SOCKETS_PER_ADDRESS", "7", 1);
    assert_int_equal(load(conf, KEY "edge\n    port = 80\n"), MESH_OK);
    assert_int_equal(mesh_conf_int(conf, "edge.port"), 9999);
    assert_int_equal(mesh_conf_int(conf, "edge.max_sockets_per_address"), 7);
    unsetenv("PARLEY_EDGE_MAX_SOCKETS_PER_ADDRESS");
    setenv("PARLEY_EDGE_PORT", "many", 1);
    refused(KEY, "PARLEY_EDGE_PORT: 'many' is not a number");
    unsetenv("PARLEY_EDGE_PORT");
    setenv("PARLEY_CLUSTER_HASH_KEY", "ff0102030405060708090a0b0c0d0e0f", 1);
    assert_int_equal(load(conf, "edge\n    port = 80\n"), MESH_OK);
    assert_int_equal(mesh_conf_hash_key(conf)->bytes[0], 0xff);
    unsetenv("PARLEY_CLUSTER_HASH_KEY");
    mesh_conf_destroy(&conf);
}

static void nodes_are_added_once(void **state)
{
    (void)state;
    mesh_conf *conf = mesh_conf_new();
    mesh_node_conf node = { .name = "r1", .role = MESH_ROUTER, .endpoint = "inproc://r1" };
    assert_int_equal(mesh_conf_add_node(conf, &node), MESH_OK);
    const mesh_node_conf *first = mesh_conf_node(conf, 0);
    assert_int_equal(mesh_conf_add_node(conf, &node), MESH_CONFLICT);
    (void)snprintf(node.name, sizeof node.name, "r2");
    assert_int_equal(mesh_conf_add_node(conf, &node), MESH_CONFLICT); /* the endpoint */
    node.endpoint[0] = '\0';
    assert_int_equal(mesh_conf_add_node(conf, &node), MESH_MALFORMED);
    for (int i = 1; i < MESH_NODES_MAX; i++) {
        mesh_node_conf edge = { .role = MESH_EDGE };
        (void)snprintf(edge.name, sizeof edge.name, "e%d", i);
        assert_int_equal(mesh_conf_add_node(conf, &edge), MESH_OK);
    }
    mesh_node_conf last = { .name = "last", .role = MESH_EDGE };
    assert_int_equal(mesh_conf_add_node(conf, &last), MESH_FULL);
    assert_ptr_equal(mesh_conf_node(conf, 0), first); /* pointers stay good */
    assert_int_equal(mesh_conf_set(conf, "edge.nothing", "1"), MESH_MALFORMED);
    assert_int_equal(mesh_conf_set(conf, "edge.host", "a\nb"), MESH_MALFORMED);
    assert_int_equal(mesh_conf_set(conf, "edge.host", "both \" and '"), MESH_MALFORMED);
    assert_string_equal(mesh_role_name(MESH_STORE), "store");
    mesh_conf_destroy(&conf);
}

/* ---- as a whole ---- */

static char problems[2000];

static void collect(void *arg, const char *what)
{
    (void)arg;
    size_t n = strlen(problems);
    (void)snprintf(problems + n, sizeof problems - n, "%s\n", what);
}

static void checked(const char *text, const char *expected)
{
    mesh_conf *conf = mesh_conf_new();
    assert_int_equal(load(conf, text), MESH_OK);
    problems[0] = '\0';
    size_t n = mesh_conf_check(conf, collect, NULL);
    assert_string_equal(problems, expected);
    for (const char *line = expected; (line = strchr(line, '\n')) != NULL; line++) {
        n--;
    }
    assert_int_equal(n, 0);
    mesh_conf_destroy(&conf);
}

#define EDGE "    edge1\n        role = edge\n"
#define ROUTER "    router1\n        role = router\n        endpoint = \"inproc://router1\"\n"
#define STORE(name, shard)                                                                                             \
    "    " name "\n        role = store\n        endpoint = \"inproc://" name "\"\n        shard = " shard "\n"
#define TOKENS "edge\n    token_key_file = \"/x\"\n"

static void a_cluster_is_looked_at_as_a_whole(void **state)
{
    (void)state;
    checked(KEY "node\n" EDGE ROUTER STORE("store1", "0") TOKENS, "");
    checked(KEY, "node: the cluster has no nodes\n");
    checked(KEY "node\n" EDGE, "node: the cluster has no store\n"
                               "node: the cluster has no router\n"
                               "edge.token_key_file: not set, and edges check tokens with it\n");
    checked(KEY "node\n" ROUTER STORE("store1", "0"), "node: the cluster has no edge\n");
    checked(KEY "node\n" EDGE ROUTER STORE("store1", "0") STORE("store2", "0") TOKENS,
            "node store1: shard 0 has 2 stores; a shard has 1, 3 or 5\n");
    checked(KEY "node\n" EDGE ROUTER STORE("store1", "1") TOKENS, "node: no store has shard 0, which keeps the ring\n");
    checked(KEY "node\n" EDGE ROUTER "    store1\n        role = store\n        endpoint = tcp://127.0.0.1:1\n" TOKENS,
            "node router1: its endpoint is inproc, that of store1 is tcp\n"
            "node edge1: no public_key, and links over tcp are encrypted\n"
            "node router1: no public_key, and links over tcp are encrypted\n"
            "node store1: no public_key, and links over tcp are encrypted\n");
}

#define THREE(a, b, c, shard) STORE(a, shard) STORE(b, shard) STORE(c, shard)

static void a_shard_has_one_three_or_five_stores(void **state)
{
    (void)state;
#define REST KEY "node\n" EDGE ROUTER
    checked(REST THREE("s1", "s2", "s3", "0") TOKENS, "");
    checked(REST THREE("s1", "s2", "s3", "0") STORE("s4", "0") STORE("s5", "0") TOKENS, "");
    checked(REST THREE("s1", "s2", "s3", "0") STORE("s4", "0") TOKENS,
            "node s1: shard 0 has 4 stores; a shard has 1, 3 or 5\n");
    checked(REST THREE("s1", "s2", "s3", "0") THREE("s4", "s5", "s6", "0") TOKENS,
            "node s1: shard 0 has 6 stores; a shard has 1, 3 or 5\n");
    checked(REST STORE("s1", "1") THREE("s2", "s3", "s4", "0") TOKENS, ""); /* in any order, of any size each */
    checked(REST STORE("s1", "0") STORE("s2", "1") STORE("s3", "1") TOKENS,
            "node s2: shard 1 has 2 stores; a shard has 1, 3 or 5\n");
    checked(REST STORE("s1", "0") THREE("s2", "s3", "s4", "2") TOKENS,
            "node s2: shard 2, but no store has shard 1; shards are numbered 0, 1, 2 ...\n");
    checked(REST STORE("s1", "4000") TOKENS, "node: no store has shard 0, which keeps the ring\n"
                                             "node s1: shard 4000, but no store has shard 3999; "
                                             "shards are numbered 0, 1, 2 ...\n");
}

static void stores_are_found_by_shard(void **state)
{
    (void)state;
    mesh_conf *conf = mesh_conf_new();
    mesh_peer stores[MESH_REPLICAS_MAX];
    assert_int_equal(mesh_conf_shards(conf), 0);
    assert_int_equal(load(conf, REST THREE("s1", "s2", "s3", "1") STORE("s0", "0") THREE("s4", "s5", "s6", "1")),
                     MESH_OK);
    assert_int_equal(mesh_conf_shards(conf), 2);
    assert_int_equal(mesh_conf_stores(conf, 0, stores), 1);
    assert_int_equal(stores[0], mesh_conf_find(conf, "s0"));
    assert_int_equal(mesh_conf_stores(conf, 1, stores), MESH_REPLICAS_MAX); /* no more than there is room for */
    assert_int_equal(stores[2], mesh_conf_find(conf, "s3"));
    assert_int_equal(stores[4], mesh_conf_find(conf, "s5"));
    assert_int_equal(mesh_conf_stores(conf, 2, stores), 0);
    mesh_conf_destroy(&conf);
}

static void misspelt_variables_are_named(void **state)
{
    (void)state;
    char *const environment[] = { "PARLEY_EDGE_PORT=1",
                                  "PARLEY_EDGE_PROT=1",
                                  "PARLEY_EDGE_MAX_SOCKETS_PER_ADDRESS=1",
                                  "PARLEY_STORE_=1",
                                  "PARLEY_STORE",
                                  "PARLEY=/usr/bin/parley",
                                  "PARLEY_URL=ws://x",
                                  "PARLEY_TOKEN=x",
                                  "EDGE_PROT=1",
                                  NULL };
    problems[0] = '\0';
    assert_int_equal(mesh_conf_check_environment(environment, collect, NULL), 2);
    assert_string_equal(problems, "PARLEY_EDGE_PROT: in the environment, but no such setting\n"
                                  "PARLEY_STORE_: in the environment, but no such setting\n");
}

static void files_and_values_have_a_limit(void **state)
{
    (void)state;
    const size_t max = 1024 * 1024; /* FILE_MAX of mesh/conf_file.c */
    char *text = malloc(max + 2);
    assert_non_null(text);
    size_t n = (size_t)snprintf(text, max, "%s", KEY);
    while (n < max + 1) { /* comments, no line of them too long */
        text[n] = n % 100 == 99 ? '\n' : '#';
        n++;
    }
    text[max - 1] = '\n';
    text[max] = '\n';
    mesh_conf *conf = mesh_conf_new();
    assert_int_equal(load_bytes(conf, text, max), MESH_OK);
    mesh_conf_destroy(&conf);
    conf = mesh_conf_new();
    assert_int_equal(load_bytes(conf, text, max + 1), MESH_MALFORMED);
    assert_non_null(strstr(why, "larger than 1 MiB"));
    memset(text, 'p', MESH_SETTING_MAX + 1);
    text[MESH_SETTING_MAX + 1] = '\0';
    assert_int_equal(mesh_conf_set(conf, "edge.origins", text), MESH_MALFORMED);
    text[MESH_SETTING_MAX] = '\0';
    assert_int_equal(mesh_conf_set(conf, "edge.origins", text), MESH_OK);
    assert_string_equal(mesh_conf_str(conf, "edge.origins"), text);
    mesh_conf_destroy(&conf);
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_whole_config_is_read),
        cmocka_unit_test(a_dump_reads_back_the_same),
        cmocka_unit_test(unknown_and_double_keys_are_refused),
        cmocka_unit_test(bad_values_are_refused),
        cmocka_unit_test(broken_text_names_its_line),
        cmocka_unit_test(the_environment_wins),
        cmocka_unit_test(nodes_are_added_once),
        cmocka_unit_test(files_and_values_have_a_limit),
        cmocka_unit_test(a_cluster_is_looked_at_as_a_whole),
        cmocka_unit_test(a_shard_has_one_three_or_five_stores),
        cmocka_unit_test(stores_are_found_by_shard),
        cmocka_unit_test(misspelt_variables_are_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
