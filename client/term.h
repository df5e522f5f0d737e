/* client/term.h: text from others, made fit for a terminal. */
#ifndef CLIENT_TERM_H
#define CLIENT_TERM_H

#include <stdbool.h>

#include "mesh/buf.h"

/* Append text with every character that could move the cursor, change the screen or turn the writing direction shown as
 * "·": C0 and C1 controls, DEL, bidi controls, zero-width and line separators, broken UTF-8. With indent not NULL a
 * newline stays one, followed by indent; else it is "·" as well. */
void client_term_clean(const char *text, const char *indent, mesh_buf *out);

/* "HH:MM" local time. */
void client_term_time(uint64_t ts_ms, char out[6]);

#endif
