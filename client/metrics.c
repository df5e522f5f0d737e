#include "client/metrics.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *line_end(const char *line)
{
    return line + strcspn(line, "\n");
}

bool client_metrics_next(const char **text_p, const char *name, client_sample *out)
{
    size_t n = strlen(name);
    const char *line = *text_p;
    bool found = false;
    while (line != NULL && *line != '\0' && !found) {
        const char *end = line_end(line);
        if (strncmp(line, name, n) == 0 && line[n] == '{') {
            const char *close = memchr(line + n, '}', (size_t)(end - line) - n);
            found = close != NULL;
            if (found) {
                *out = (client_sample){ line + n + 1, (size_t)(close - line) - n - 1, strtoull(close + 1, NULL, 10) };
            }
        }
        line = *end != '\0' ? end + 1 : end;
    }
    *text_p = line;
    return found;
}

/* Where the value of label="value" begins, NULL: it is not there. */
static const char *value_of(const client_sample *sample, const char *label)
{
    size_t n = strlen(label);
    for (size_t i = 0; i + n + 2 <= sample->size; i++) {
        const char *at = sample->labels + i;
        if ((i == 0 || at[-1] == ',') && strncmp(at, label, n) == 0 && at[n] == '=' && at[n + 1] == '"') {
            return at + n + 2;
        }
    }
    return NULL;
}

const char *client_metrics_label(const client_sample *sample, const char *label, char *out, size_t size)
{
    const char *value = value_of(sample, label);
    const char *end = value != NULL ? memchr(value, '"', (size_t)(sample->labels + sample->size - value)) : NULL;
    snprintf(out, size, "%.*s", end != NULL ? (int)(end - value) : 0, end != NULL ? value : "");
    return out;
}

uint64_t client_metrics_sum(const char *text, const char *name, const char *label)
{
    uint64_t sum = 0;
    client_sample sample;
    while (client_metrics_next(&text, name, &sample)) {
        if (label == NULL || memmem(sample.labels, sample.size, label, strlen(label)) != NULL) {
            sum += sample.value;
        }
    }
    return sum;
}
