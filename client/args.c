#include "client/args.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int client_args_fail(const char *format, ...)
{
    va_list list;
    va_start(list, format);
    fputs("parley: ", stderr);
    vfprintf(stderr, format, list);
    fputc('\n', stderr);
    va_end(list);
    return CLIENT_EXIT_USAGE;
}

bool client_args_number(const char *what, const char *text, int64_t min, int64_t max, int64_t *out)
{
    char *end;
    errno = 0;
    long long v = strtoll(text, &end, 10);
    if (errno != 0 || end == text || *end != '\0' || v < min || v > max) {
        client_args_fail("%s wants a number from %lld to %lld, not '%s'", what, (long long)min, (long long)max, text);
        return false;
    }
    *out = v;
    return true;
}

bool client_args_int(const char *name, const char *text, int64_t fallback, int64_t min, int64_t max, int64_t *out)
{
    char option[64];
    snprintf(option, sizeof option, "--%s", name);
    *out = text != NULL ? *out : fallback;
    return text == NULL || client_args_number(option, text, min, max, out);
}

static void print_help(const client_args *args)
{
    printf("usage: %s\n%s\n", args->usage, args->about);
    for (const client_option *o = args->options; o->name; o++) {
        char head[64];
        snprintf(head, sizeof head, "--%s%s%s", o->name, o->value_name ? " " : "", o->value_name ? o->value_name : "");
        printf("  %-20s %s\n", head, o->help);
    }
}

static const client_option *find_option(const client_args *args, const char *name, size_t size)
{
    for (const client_option *o = args->options; o->name; o++) {
        if (strlen(o->name) == size && memcmp(o->name, name, size) == 0) {
            return o;
        }
    }
    return NULL;
}

/* Takes argv[*i] and, when it needs one, the value after it. */
static int take_option(const client_args *args, int argc, char **argv, int *i)
{
    const char *name = argv[*i] + 2;
    size_t size = strcspn(name, "=");
    const client_option *option = find_option(args, name, size);
    if (!option) {
        return client_args_fail("unknown option %s (usage: %s)", argv[*i], args->usage);
    }
    if (!option->value_name) {
        *option->value = "";
        return name[size] == '=' ? client_args_fail("--%s takes no value", option->name) : 0;
    }
    if (name[size] == '=') {
        *option->value = name + size + 1;
        return 0;
    }
    if (*i + 1 >= argc) {
        return client_args_fail("--%s wants %s", option->name, option->value_name);
    }
    *option->value = argv[++*i];
    return 0;
}

int client_args_parse(const client_args *args, int argc, char **argv, int *exit_code)
{
    int words = 0;
    bool only_words = false;
    for (int i = 1; i < argc; i++) {
        if (!only_words && strcmp(argv[i], "--") == 0) {
            only_words = true;
        } else if (!only_words && (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0)) {
            print_help(args);
            *exit_code = 0;
            return -1;
        } else if (!only_words && strncmp(argv[i], "--", 2) == 0) {
            *exit_code = take_option(args, argc, argv, &i);
            if (*exit_code != 0) {
                return -1;
            }
        } else if (words < args->words_max) {
            args->words[words++] = argv[i];
        } else {
            *exit_code = client_args_fail("what is '%s'? (usage: %s)", argv[i], args->usage);
            return -1;
        }
    }
    if (words < args->words_min) {
        *exit_code = client_args_fail("something is missing (usage: %s)", args->usage);
        return -1;
    }
    return words;
}
