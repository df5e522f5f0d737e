/* build/bench.json: {name: {value, unit, command}}. */
#include <jansson.h>
#include <stdio.h>

#include "tests/bench/bench.h"

static json_t *results;
static const char *given = "";

void result_command(const char *command)
{
    given = command;
}

void result_load(const char *path)
{
    results = json_load_file(path, 0, NULL);
    if (!json_is_object(results)) {
        json_decref(results);
        results = json_object();
    }
}

void result_put(const char *name, double value, const char *unit)
{
    char rounded[32];
    (void)snprintf(rounded, sizeof rounded, value >= 1000 ? "%.0f" : "%.3g", value);
    printf("%-34s %10s %s\n", name, rounded, unit);
    (void)fflush(stdout);
    json_t *one = json_pack("{s:f, s:s, s:s}", "value", value, "unit", unit, "command", given);
    json_object_set_new(results, name, one);
}

void result_save(const char *path)
{
    if (json_dump_file(results, path, JSON_INDENT(2) | JSON_REAL_PRECISION(6) | JSON_SORT_KEYS) != 0) {
        perror(path);
    }
    json_decref(results);
}
