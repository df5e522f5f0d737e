/* store/salvage_scan.c: LevelDB's log format, read strictly. */
#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "mesh/buf.h"
#include "store/salvage.h"

#define BLOCK 32768u
#define HEADER 7u /* masked crc32c u32le, length u16le, type */
#define READ_MIN 4096u
#define READ_MAX (1u << 20)
enum { ZERO, FULL, FIRST, MIDDLE, LAST };

typedef struct scanner {
    mesh_buf file;
    uint32_t crc[8][256];
} scanner;

/* CRC-32C, eight bytes at a time (Kounavis, Berry: A Systematic Approach to Building High Performance, Software-based,
 * CRC Generators, 2005). */
static void crc_init(scanner *s)
{
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t c = i;
        for (int bit = 0; bit < 8; bit++) {
            c = (c & 1) != 0 ? (c >> 1) ^ 0x82f63b78u : c >> 1;
        }
        s->crc[0][i] = c;
    }
    for (uint32_t i = 0; i < 256; i++) {
        for (int t = 1; t < 8; t++) {
            s->crc[t][i] = (s->crc[t - 1][i] >> 8) ^ s->crc[0][s->crc[t - 1][i] & 0xff];
        }
    }
}

static uint32_t crc_of(const scanner *s, const uint8_t *p, size_t n)
{
    uint32_t c = 0xffffffffu;
    for (; n >= 8; p += 8, n -= 8) {
        uint32_t lo = mesh_get_u32le(p) ^ c;
        uint32_t hi = mesh_get_u32le(p + 4);
        c = s->crc[7][lo & 0xff] ^ s->crc[6][(lo >> 8) & 0xff] ^ s->crc[5][(lo >> 16) & 0xff] ^ s->crc[4][lo >> 24] ^
            s->crc[3][hi & 0xff] ^ s->crc[2][(hi >> 8) & 0xff] ^ s->crc[1][(hi >> 16) & 0xff] ^ s->crc[0][hi >> 24];
    }
    for (; n > 0; p++, n--) {
        c = (c >> 8) ^ s->crc[0][(c ^ *p) & 0xff];
    }
    return c ^ 0xffffffffu;
}

static mesh_err read_file(const char *path, mesh_buf *out)
{
    FILE *f = fopen(path, "rbe");
    if (f == NULL) {
        return MESH_IO;
    }
    size_t n = 1;
    for (size_t room = READ_MIN; n > 0; room = room < READ_MAX ? 2 * room : room) { /* most files are small */
        uint8_t *p = mesh_buf_grow(out, room);
        n = fread(p, 1, room, f);
        out->size -= room - n;
    }
    mesh_err err = ferror(f) ? MESH_IO : MESH_OK;
    fclose(f);
    return err;
}

static size_t block_end(size_t at, size_t size)
{
    size_t end = (at / BLOCK + 1) * BLOCK;
    return end < size ? end : size;
}

/* What is wrong with the physical record at `at`, NULL if nothing. */
static const char *check_record(const scanner *s, size_t at, size_t *length_p, unsigned *type_p)
{
    const uint8_t *p = s->file.data + at;
    size_t room = block_end(at, s->file.size) - at;
    if (room < HEADER) {
        return "a record's header is cut off";
    }
    size_t length = (size_t)(p[4] | p[5] << 8);
    unsigned type = p[6];
    *length_p = length;
    *type_p = type;
    if (type == ZERO && length == 0) {
        return NULL; /* preallocated space, as LevelDB sees it: skip the rest of the block */
    }
    if (HEADER + length > room) {
        return block_end(at, s->file.size) == s->file.size ? "a record is cut off" : "a record's length is wrong";
    }
    if (type > LAST || type == ZERO) {
        return "a record of unknown type";
    }
    uint32_t masked = mesh_get_u32le(p) - 0xa282ead8u;
    uint32_t want = (masked >> 17) | (masked << 15);
    return crc_of(s, p + 6, length + 1) == want ? NULL : "a record's checksum is wrong";
}

/* The record at `at` goes on behind the file's end. LevelDB knows the end by a block that is not full. */
static bool is_cut(const scanner *s, size_t at, size_t length)
{
    size_t end = block_end(at, s->file.size);
    return end == s->file.size && end % BLOCK != 0 && HEADER + length > end - at;
}

/* A record with a right checksum that begins a logical one. Every write is synced before the next begins, so one of
 * these behind damage says that the damaged one was on disk; middle and last pieces may belong to the torn write
 * itself. */
static bool begins_record(const scanner *s, size_t at)
{
    size_t length;
    unsigned type = at + HEADER <= s->file.size ? s->file.data[at + 6] : ZERO;
    return (type == FULL || type == FIRST) && check_record(s, at, &length, &type) == NULL;
}

/* Block starts are tried first: what follows damage usually has one. */
static bool valid_behind(const scanner *s, size_t at)
{
    for (size_t b = (at / BLOCK + 1) * BLOCK; b < s->file.size; b += BLOCK) {
        if (begins_record(s, b)) {
            return true;
        }
    }
    for (size_t b = at + 1; b + HEADER <= s->file.size; b++) {
        if (begins_record(s, b)) {
            return true;
        }
    }
    return false;
}

/* How LevelDB's reader would join the pieces; hands every whole logical record to `each` (may be NULL). */
typedef void record_fn(void *arg, mesh_slice record);

static void walk(scanner *s, store_salvage_found *found, record_fn *each, void *arg)
{
    mesh_buf whole = { 0 };
    bool open = false; /* inside a record of several pieces */
    size_t begun = 0;
    size_t at = 0;
    size_t size = s->file.size;
    *found = (store_salvage_found){ .size = size };
    while (at < size && !found->bad) {
        if ((at / BLOCK + 1) * BLOCK - at < HEADER) {
            at = block_end(at, size); /* the trailer of a block */
            continue;
        }
        size_t length = 0;
        unsigned type = ZERO;
        const char *reason = check_record(s, at, &length, &type);
        if (reason == NULL && open != (type == MIDDLE || type == LAST)) {
            reason = open ? "a record ends in the middle" : "a record without its beginning";
            reason = open || type != ZERO ? reason : NULL;
        }
        if (reason != NULL) {
            found->bad = true;
            found->bad_offset = at;
            found->reason = reason;
            found->cut = is_cut(s, at, length);
            found->valid_after = begins_record(s, at) || valid_behind(s, at);
            break;
        }
        if (type == ZERO) {
            at = block_end(at, size);
            continue;
        }
        if (!open) {
            begun = at;
            mesh_buf_clear(&whole);
        }
        mesh_buf_put(&whole, s->file.data + at + HEADER, length);
        at += HEADER + length;
        open = type == FIRST || type == MIDDLE;
        if (!open) {
            found->records++;
            found->good_end = at;
            if (each != NULL) {
                each(arg, mesh_buf_slice(&whole));
            }
        }
    }
    if (!found->bad && open) {
        found->bad = true;
        found->bad_offset = begun;
        found->reason = "the last record has no end";
        found->cut = true;
    }
    mesh_buf_fini(&whole);
}

static mesh_err scan(const char *file, store_salvage_found *found, record_fn *each, void *arg)
{
    scanner *s = calloc(1, sizeof *s);
    mesh_err err = s == NULL ? MESH_IO : read_file(file, &s->file);
    if (err == MESH_OK) {
        crc_init(s);
        walk(s, found, each, arg);
    }
    if (s != NULL) {
        mesh_buf_fini(&s->file);
    }
    free(s);
    return err;
}

mesh_err store_salvage_scan(const char *file, store_salvage_found *found)
{
    return scan(file, found, NULL, NULL);
}

/* ---- the manifest: LevelDB's VersionEdit records ---- */

static bool get_varint(mesh_slice *in, uint64_t *out)
{
    *out = 0;
    for (unsigned shift = 0; shift < 64 && in->size > 0; shift += 7) {
        uint8_t b = *in->data;
        in->data++;
        in->size--;
        *out |= (uint64_t)(b & 0x7f) << shift;
        if ((b & 0x80) == 0) {
            return true;
        }
    }
    return false;
}

static bool skip_bytes(mesh_slice *in)
{
    uint64_t n;
    if (!get_varint(in, &n) || n > in->size) {
        return false;
    }
    in->data += n;
    in->size -= (size_t)n;
    return true;
}

/* Keep the last log number that an edit sets. */
static void read_edit(void *arg, mesh_slice edit)
{
    uint64_t *log_number = arg;
    uint64_t tag, x;
    bool ok = true;
    while (ok && get_varint(&edit, &tag)) {
        switch (tag) {
        case 1: /* comparator */
            ok = skip_bytes(&edit);
            break;
        case 2: /* log number */
            ok = get_varint(&edit, &x);
            *log_number = ok ? x : *log_number;
            break;
        case 3: /* next file */
        case 4: /* last sequence */
        case 9: /* previous log, no longer used */
            ok = get_varint(&edit, &x);
            break;
        case 5: /* compaction pointer: level, key */
            ok = get_varint(&edit, &x) && skip_bytes(&edit);
            break;
        case 6: /* deleted file: level, number */
            ok = get_varint(&edit, &x) && get_varint(&edit, &x);
            break;
        case 7: /* new file: level, number, size, smallest, largest */
            ok = get_varint(&edit, &x) && get_varint(&edit, &x) && get_varint(&edit, &x) && skip_bytes(&edit) &&
                 skip_bytes(&edit);
            break;
        default:
            ok = false;
        }
    }
}

/* The first log file that the database's manifest needs; 0 if it does not say. */
static uint64_t manifest_log_number(const char *path)
{
    char file[4096];
    mesh_buf current = { 0 };
    snprintf(file, sizeof file, "%s/CURRENT", path);
    mesh_err err = read_file(file, &current);
    int n = err == MESH_OK && current.size > 1 && current.size < 256
                ? snprintf(file, sizeof file, "%s/%.*s", path, (int)current.size - 1, (const char *)current.data)
                : 0;
    mesh_buf_fini(&current);
    uint64_t number = 0;
    store_salvage_found found;
    return n > 0 && scan(file, &found, read_edit, &number) == MESH_OK ? number : 0;
}

/* ---- the files of a database ---- */

uint64_t store_salvage_log_of(const char *name)
{
    char *end;
    uint64_t n = strtoull(name, &end, 10);
    return end != name && strcmp(end, ".log") == 0 ? n : 0;
}

void store_salvage_logs(const char *path, store_salvage_log_range *logs)
{
    struct dirent **names;
    int n = scandir(path, &names, NULL, alphasort);
    *logs = (store_salvage_log_range){ .first = manifest_log_number(path) };
    for (int i = 0; i < n; i++) {
        char file[4096];
        struct stat st;
        uint64_t number = store_salvage_log_of(names[i]->d_name);
        snprintf(file, sizeof file, "%s/%s", path, names[i]->d_name);
        if (number > logs->newest && stat(file, &st) == 0 && st.st_size > 0) {
            logs->newest = number;
        }
        free(names[i]);
    }
    if (n >= 0) {
        free(names);
    }
}

static void describe(const char *file, const store_salvage_found *found, char *why, size_t why_size)
{
    snprintf(why, why_size, "%s: %s at offset %llu of %llu%s", file, found->reason,
             (unsigned long long)found->bad_offset, (unsigned long long)found->size,
             found->valid_after ? ", good records follow" : ", nothing good follows");
}

/* Scan the log files that are needed, and manifests, until one is bad. fatal_only: only log files, and the newest may
 * end inside of its last record. */
static bool find_bad(const char *path, bool fatal_only, char *why, size_t why_size)
{
    store_salvage_log_range logs;
    struct dirent **names;
    bool bad = false;
    store_salvage_logs(path, &logs);
    int n = scandir(path, &names, NULL, alphasort);
    for (int i = 0; i < n; i++) {
        char file[4096];
        store_salvage_found found;
        const char *name = names[i]->d_name;
        uint64_t number = store_salvage_log_of(name);
        bool look = number > 0 ? number >= logs.first : !fatal_only && strncmp(name, "MANIFEST-", 9) == 0;
        snprintf(file, sizeof file, "%s/%s", path, name);
        if (!bad && look && store_salvage_scan(file, &found) == MESH_OK && found.bad &&
            (!fatal_only || !found.cut || found.valid_after || number != logs.newest)) {
            describe(file, &found, why, why_size);
            bad = true;
        }
        free(names[i]);
    }
    if (n >= 0) {
        free(names);
    }
    return bad;
}

bool store_salvage_find_bad(const char *path, char *why, size_t why_size)
{
    return find_bad(path, false, why, why_size);
}

mesh_err store_salvage_check_files(const char *path, char *why, size_t why_size)
{
    char file[4096];
    uint64_t first = manifest_log_number(path);
    snprintf(file, sizeof file, "%s/%06llu.log", path, (unsigned long long)first);
    if (first > 0 && access(file, F_OK) != 0 && errno == ENOENT) {
        snprintf(why, why_size, "%s is missing", file);
        return MESH_CORRUPT;
    }
    return find_bad(path, true, why, why_size) ? MESH_CORRUPT : MESH_OK;
}
