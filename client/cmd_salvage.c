#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "client/args.h"
#include "client/cmd.h"
#include "store/salvage.h"

int client_cmd_salvage(int argc, char **argv)
{
    const char *acks_path = NULL;
    const char *words[2];
    const client_option options[] = {
        { "acks", "FILE", "lines `chat seq` of what was acked, recorded elsewhere: is it there?", &acks_path },
        { NULL, NULL, NULL, NULL },
    };
    const client_args args = { "parley store salvage FROM TO [--acks FILE]",
                               "Copies the stopped store FROM to TO, cuts an incomplete last record off the copy, and reports what was acked\n"
                               "and cannot be found. FROM is not touched.",
                               options, words, 2, 2 };
    int code;
    if (client_args_parse(&args, argc, argv, &code) < 0) {
        return code;
    }
    FILE *acks = NULL;
    if (acks_path && !(acks = fopen(acks_path, "re"))) {
        return client_args_fail("%s: %s", acks_path, strerror(errno));
    }
    mesh_err err = store_salvage_run(words[0], words[1], NULL, NULL, acks, stdout);
    if (acks) {
        fclose(acks);
    }
    if (err != MESH_OK) {
        client_args_fail("%s could not be salvaged: %s", words[0], mesh_err_name(err));
    }
    return err == MESH_OK ? 0 : 1;
}
