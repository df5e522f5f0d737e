#include "mesh/utf8.h"

#include <string.h>

#define HIGH_BITS UINT64_C(0x8080808080808080)

static bool tail(uint8_t c)
{
    return (c & 0xc0) == 0x80;
}

/* Size of the well-formed sequence of two or more bytes at p, 0 when it is none. The second byte's range carries all
 * the rules: overlong forms, surrogates and the upper end. */
static size_t sequence(const uint8_t *p, size_t n)
{
    uint8_t c = p[0];
    if (c >= 0xc2 && c <= 0xdf) {
        return n >= 2 && tail(p[1]) ? 2 : 0;
    }
    if (c >= 0xe0 && c <= 0xef) {
        if (n < 3 || !tail(p[1]) || !tail(p[2])) {
            return 0;
        }
        bool wrong = (c == 0xe0 && p[1] < 0xa0) || (c == 0xed && p[1] > 0x9f);
        return wrong ? 0 : 3;
    }
    if (c >= 0xf0 && c <= 0xf4) {
        if (n < 4 || !tail(p[1]) || !tail(p[2]) || !tail(p[3])) {
            return 0;
        }
        bool wrong = (c == 0xf0 && p[1] < 0x90) || (c == 0xf4 && p[1] > 0x8f);
        return wrong ? 0 : 4;
    }
    return 0;
}

bool mesh_utf8_valid(const uint8_t *bytes, size_t n, size_t *code_points)
{
    size_t count = 0;
    size_t i = 0;
    while (i < n) {
        uint64_t eight;
        if (n - i >= sizeof eight) { /* most text is ASCII */
            memcpy(&eight, bytes + i, sizeof eight);
            if ((eight & HIGH_BITS) == 0) {
                i += sizeof eight;
                count += sizeof eight;
                continue;
            }
        }
        size_t size = bytes[i] < 0x80 ? 1 : sequence(bytes + i, n - i);
        if (size == 0) {
            return false;
        }
        i += size;
        count++;
    }
    if (code_points != NULL) {
        *code_points = count;
    }
    return true;
}
