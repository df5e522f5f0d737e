#include "client/term.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

/* Bytes of the UTF-8 character at p, 0 when it is none. Text is NUL-terminated, so looking one ahead is safe. */
static size_t decode(const unsigned char *p, uint32_t *c)
{
    static const uint32_t least[5] = { 0, 0, 0x80, 0x800, 0x10000 };
    size_t n = p[0] < 0x80 ? 1 : p[0] >> 5 == 6 ? 2 : p[0] >> 4 == 14 ? 3 : p[0] >> 3 == 30 ? 4 : 0;
    if (n == 0) {
        return 0;
    }
    uint32_t v = n == 1 ? p[0] : p[0] & (0xffu >> (n + 1));
    for (size_t i = 1; i < n; i++) {
        if ((p[i] & 0xc0) != 0x80) {
            return 0;
        }
        v = v << 6 | (p[i] & 0x3f);
    }
    bool ok = v >= least[n] && v <= 0x10ffff && !(v >= 0xd800 && v <= 0xdfff);
    *c = v;
    return ok ? n : 0;
}

static bool harmful(uint32_t c)
{
    return c < 0x20 || (c >= 0x7f && c < 0xa0) || (c >= 0x200b && c <= 0x200f) || (c >= 0x2028 && c <= 0x202e) ||
           (c >= 0x2060 && c <= 0x206f) || c == 0x061c || c == 0xfeff;
}

void client_term_clean(const char *text, const char *indent, mesh_buf *out)
{
    const unsigned char *p = (const unsigned char *)text;
    while (*p) {
        uint32_t c = 0;
        size_t n = decode(p, &c);
        if (n > 0 && c == '\n' && indent) {
            mesh_buf_puts(out, "\n");
            mesh_buf_puts(out, indent);
        } else if (n > 0 && c == '\t' && indent) {
            mesh_buf_puts(out, "    ");
        } else if (n == 0 || harmful(c)) {
            mesh_buf_puts(out, "\xc2\xb7");
        } else {
            mesh_buf_put(out, p, n);
        }
        p += n > 0 ? n : 1;
    }
}

void client_term_time(uint64_t ts_ms, char out[6])
{
    time_t t = (time_t)(ts_ms / 1000);
    struct tm tm;
    if (!localtime_r(&t, &tm) || strftime(out, 6, "%H:%M", &tm) == 0) {
        snprintf(out, 6, "--:--");
    }
}
