/* client/args.h: options of a subcommand: --name VALUE, --name=VALUE, --flag, and words. */
#ifndef CLIENT_ARGS_H
#define CLIENT_ARGS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CLIENT_EXIT_USAGE 2

typedef struct client_option {
    const char *name;       /* without "--"; a table ends with NULL */
    const char *value_name; /* NULL: a flag */
    const char *help;
    const char **value; /* set to what stands there (borrowed from argv), "" for a flag that is given */
} client_option;

typedef struct client_args {
    const char *usage; /* one line: "parley token USER [options]" */
    const char *about; /* what it does */
    const client_option *options;
    const char **words; /* what is not an option, in order */
    int words_min;
    int words_max; /* room in words */
} client_args;

/* Parse argv[1..]. Returns the number of words, or -1 when the command shall end now with *exit_code: --help was
 * printed (0), or one line says what is wrong (CLIENT_EXIT_USAGE). */
int client_args_parse(const client_args *args, int argc, char **argv, int *exit_code);
/* A whole number of an option between min and max; text NULL gives fallback. False: one line was printed. */
bool client_args_int(const char *name, const char *text, int64_t fallback, int64_t min, int64_t max, int64_t *out);
/* The same of a word that is there; what: how the line calls it. */
bool client_args_number(const char *what, const char *text, int64_t min, int64_t max, int64_t *out);
/* Print "parley: ..." in one line on stderr and return CLIENT_EXIT_USAGE. */
int client_args_fail(const char *format, ...) __attribute__((format(printf, 1, 2)));

#endif
