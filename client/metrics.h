/* client/metrics.h: what the operator's commands read out of Prometheus text. */
#ifndef CLIENT_METRICS_H
#define CLIENT_METRICS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct client_sample {
    const char *labels; /* between the braces; borrowed from the text */
    size_t size;
    uint64_t value;
} client_sample;

/* The next sample of a metric in *text_p, which moves on. False: there is none. Text may be NULL. */
bool client_metrics_next(const char **text_p, const char *name, client_sample *out);
/* The value of a label, "" when it is not there. Returns out. */
const char *client_metrics_label(const client_sample *sample, const char *label, char *out, size_t size);
/* Sum of the samples of a metric; label (as it is written, `way="in"`) picks some, NULL: all. */
uint64_t client_metrics_sum(const char *text, const char *name, const char *label);

#endif
