#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/args.h"
#include "client/cmd.h"
#include "client/data.h"
#include "edge/token.h"
#include "mesh/alloc.h"

static int print_token(const char *path, const char *user, const char *tenant, const char *name, int64_t ttl)
{
    mesh_buf key = { 0 };
    int code = 0;
    if (client_data_token_key(path, &key) != MESH_OK) {
        client_args_fail("%s is no token key (%d bytes or more)", path, 32);
        code = 1;
    } else {
        char *token = edge_token_make(mesh_buf_slice(&key), user, tenant, name, mesh_clock_now().wall / 1000, ttl);
        puts(token);
        free(token);
    }
    mesh_buf_fini(&key);
    return code;
}

int client_cmd_token(int argc, char **argv)
{
    const char *name = NULL, *tenant = NULL, *ttl = NULL, *dir = "data", *key = NULL, *user = NULL;
    const client_option options[] = {
        { "name", "NAME", "display name", &name },
        { "tenant", "TENANT", "the user's tenant (default)", &tenant },
        { "ttl", "SECONDS", "how long it is good (30 days)", &ttl },
        { "data", "DIR", "the cluster's directory, with its token.key (data)", &dir },
        { "key", "FILE", "a key file instead", &key },
        { NULL, NULL, NULL, NULL },
    };
    const client_args args = {
        "parley token USER [options]", "Makes a token that lets USER in.", options, &user, 1, 1
    };
    int code;
    int64_t seconds;
    if (client_args_parse(&args, argc, argv, &code) < 0) {
        return code;
    }
    if (!client_args_int("ttl", ttl, CLIENT_TOKEN_TTL_S, -1000000, 3650LL * 24 * 3600, &seconds)) {
        return CLIENT_EXIT_USAGE;
    }
    if (!mesh_id_valid(user)) {
        return client_args_fail("'%s' is no user id: 1 to 64 of A-Z a-z 0-9 _ . : -", user);
    }
    if (tenant && !mesh_tenant_valid(tenant)) {
        return client_args_fail("'%s' is no tenant: 1 to 32 of a-z 0-9 -", tenant);
    }
    if (name && !edge_token_name_valid(name, EDGE_NAME_CODE_POINTS)) {
        return client_args_fail("the name must be 1 to %d characters", EDGE_NAME_CODE_POINTS);
    }
    char *path = key ? mesh_strdup(key) : client_data_path(dir, "token.key");
    code = print_token(path, user, tenant, name, seconds);
    free(path);
    return code;
}
