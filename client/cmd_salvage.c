#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "client/args.h"
#include "client/cmd.h"
#include "client/data.h"
#include "mesh/alloc.h"
#include "store/salvage.h"

static mesh_conf *find_conf(const char *path, const char *from)
{
    char *beside = NULL;
    if (!path) {
        size_t size = strlen(from);
        while (size > 0 && from[size - 1] == '/') {
            size--;
        }
        while (size > 0 && from[size - 1] != '/') {
            size--;
        }
        beside = mesh_alloc(size + sizeof "cluster.conf");
        memcpy(beside, from, size);
        strcat(beside, "cluster.conf");
        path = access(beside, R_OK) == 0 ? beside : NULL;
    }
    mesh_conf *conf = path ? client_data_conf(path) : NULL;
    free(beside);
    return conf;
}

/* What an operator should know before anything else. */
static void say_first(const mesh_conf *conf)
{
    mesh_peer stores[MESH_REPLICAS_MAX];
    for (size_t shard = 0; shard < mesh_conf_shards(conf); shard++) {
        if (mesh_conf_stores(conf, (uint32_t)shard, stores) > 1) {
            puts(
                "note: a single bad replica needs no salvage: move its directory away and start the store, and its\n"
                "peers rebuild it. This is for a shard of which no other replica is left. The copy becomes a group of\n"
                "one; the other stores of the shard then begin with empty directories and join it.");
            fflush(stdout);
            return;
        }
    }
}

static int salvage(const char *const words[2], const store_salvage_replica *replica, FILE *acks)
{
    if (!replica->conf) {
        fputs("without the cluster's config the end of the log is not applied: what it holds counts as missing; and\n"
              "the copy of one of several replicas stays one, which cannot lead alone\n",
              stderr);
    } else {
        say_first(replica->conf);
    }
    mesh_err err = store_salvage_run(words[0], words[1], replica->conf ? store_salvage_replay_replica : NULL,
                                     (void *)(uintptr_t)replica, acks, stdout);
    if (err != MESH_OK) {
        client_args_fail("%s could not be salvaged: %s", words[0], mesh_err_name(err));
    }
    return err == MESH_OK ? 0 : 1;
}

int client_cmd_salvage(int argc, char **argv)
{
    const char *acks_path = NULL, *conf_path = NULL, *node = NULL, *unproven = "keep";
    const char *words[2];
    const client_option options[] = {
        { "acks", "FILE", "lines `chat seq` of what was acked, recorded elsewhere: is it there?", &acks_path },
        { "conf", "FILE", "the cluster's config (cluster.conf beside FROM): with it the end of the log is applied",
          &conf_path },
        { "node", "NAME", "the store FROM is of (what the data says; else FROM's last part)", &node },
        { "unproven", "keep|cut", "of one of several replicas: entries that may or may not have been committed (keep)",
          &unproven },
        { NULL, NULL, NULL, NULL },
    };
    const client_args args = {
        "parley store salvage FROM TO [--acks FILE] [--unproven keep|cut]",
        "Copies the stopped store FROM to TO, cuts an incomplete last record off the copy, and reports what was acked\n"
        "and cannot be found. FROM is not touched. A single bad replica needs no salvage: its peers rebuild it. When\n"
        "all replicas of a shard are lost, the copy of one becomes a group of one, which the others join empty.",
        options,
        words,
        2,
        2
    };
    int code;
    if (client_args_parse(&args, argc, argv, &code) < 0) {
        return code;
    }
    if (strcmp(unproven, "keep") != 0 && strcmp(unproven, "cut") != 0) {
        return client_args_fail("--unproven is keep or cut, not %s", unproven);
    }
    FILE *acks = NULL;
    if (acks_path && !(acks = fopen(acks_path, "re"))) {
        return client_args_fail("%s: %s", acks_path, strerror(errno));
    }
    mesh_conf *conf = find_conf(conf_path, words[0]);
    store_salvage_replica replica = {
        .conf = conf, .node = node, .from = words[0], .cut = strcmp(unproven, "cut") == 0, .report = stdout
    };
    code = salvage(words, &replica, acks);
    mesh_conf_destroy(&conf);
    if (acks) {
        fclose(acks);
    }
    return code;
}

int client_cmd_new_era(int argc, char **argv)
{
    const char *words[1];
    const client_option options[] = { { NULL, NULL, NULL, NULL } };
    const client_args args = {
        "parley store new-era DIR",
        "For the stopped store DIR that was put back from a backup: clients may have seen more than it holds, so the\n"
        "place each has kept in its inbox is void and it starts from a resync. `store salvage` does this by itself.",
        options,
        words,
        1,
        1
    };
    int code;
    if (client_args_parse(&args, argc, argv, &code) < 0) {
        return code;
    }
    char why[512] = "";
    uint64_t era;
    if (store_salvage_new_era(words[0], &era, why, sizeof why) != MESH_OK) {
        client_args_fail("%s", why);
        return 1;
    }
    printf("%s has a new era\n", words[0]);
    return 0;
}
