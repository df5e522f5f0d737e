/* What is written to stderr while a test looks, as one string. It must fit into a pipe (64 KiB). */
#ifndef TESTS_UNIT_CAPTURE_H
#define TESTS_UNIT_CAPTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <unistd.h>

#include <cmocka.h>

typedef struct capture {
    int saved;
    int pipe[2];
} capture;

static inline void capture_start(capture *c)
{
    assert_int_equal(pipe(c->pipe), 0);
    c->saved = dup(STDERR_FILENO);
    assert_true(dup2(c->pipe[1], STDERR_FILENO) >= 0);
}

static inline size_t capture_stop(capture *c, char *text, size_t size)
{
    assert_true(dup2(c->saved, STDERR_FILENO) >= 0);
    (void)close(c->saved);
    (void)close(c->pipe[1]);
    size_t total = 0;
    ssize_t n;
    while (total + 1 < size && (n = read(c->pipe[0], text + total, size - 1 - total)) > 0) {
        total += (size_t)n;
    }
    text[total] = '\0';
    (void)close(c->pipe[0]);
    return total;
}

#endif
