#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/args.h"
#include "client/cmd.h"
#include "client/data.h"
#include "client/roles.h"
#include "mesh/log.h"
#include "store/restore.h"

static int restore(const mesh_conf *conf, const char *dir, const char *data)
{
    char why[5000];
    store_restore_counts counts;
    mesh_err err = store_restore_run(conf, dir, &counts, why, sizeof why);
    if (err != MESH_OK) {
        client_args_fail("restore failed: %s", why[0] != '\0' ? why : mesh_err_name(err));
        return 1;
    }
    if (mesh_conf_shards(conf) > 1) {
        printf("between shards: %" PRIu64 " inbox positions went back, %" PRIu64 " of them left a list; %" PRIu64
               " entries are owed again\n",
               counts.back, counts.left, counts.owed);
    }
    printf("restore done: %" PRIu64 " rows, %zu shards in %s; start the cluster\n", counts.rows, mesh_conf_shards(conf),
           data);
    return 0;
}

int client_cmd_restore(int argc, char **argv)
{
    const char *data = NULL, *conf_path = NULL;
    const char *words[1];
    const client_option options[] = {
        { "data", "DIR", "the new cluster's directory, with its cluster.conf", &data },
        { "conf", "FILE", "(DIR/cluster.conf)", &conf_path },
        { NULL, NULL, NULL, NULL },
    };
    const client_args args = {
        "parley restore BACKUP --data DIR",
        "Makes the stores of a new cluster from a backup. They must be empty, and the config must have the hash_key "
        "and\n"
        "the number of shards that BACKUP/manifest names. The first store of each shard gets the data, the others\n"
        "get it from there when they start. Every device is told to resync.",
        options,
        words,
        1,
        1
    };
    int code;
    if (client_args_parse(&args, argc, argv, &code) < 0) {
        return code;
    }
    if (data == NULL || strlen(words[0]) > STORE_BACKUP_PATH - 64) {
        return client_args_fail("--data is missing, or the backup's path too long (usage: %s)", args.usage);
    }
    mesh_log_setup("restore", MESH_ERROR);
    char *path = conf_path != NULL ? strdup(conf_path) : client_data_path(data, "cluster.conf");
    mesh_conf *conf = client_data_conf(path);
    free(path);
    code = 1;
    if (conf != NULL && client_roles_place(conf, data)) {
        code = restore(conf, words[0], mesh_conf_str(conf, "store.path"));
    }
    mesh_conf_destroy(&conf);
    return code;
}
