/* LevelDB's log files and manifests. First byte: bit 0, checksums are put right first; bit 1, it is a manifest. */
#include <assert.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "store/salvage.h"
#include "tests/fuzz/fuzz.h"

#define BLOCK 32768u
#define HEADER 7u

static uint32_t crc32c(const uint8_t *p, size_t n)
{
    uint32_t c = 0xffffffffu;
    while (n-- > 0) {
        c ^= *p++;
        for (int i = 0; i < 8; i++) {
            c = (c & 1) != 0 ? (c >> 1) ^ 0x82f63b78u : c >> 1;
        }
    }
    return c ^ 0xffffffffu;
}

static void put_checksums_right(mesh_buf *file)
{
    size_t at = 0;
    while (at + HEADER <= file->size) {
        size_t room = BLOCK - at % BLOCK;
        uint8_t *p = file->data + at;
        size_t length = (size_t)(p[4] | p[5] << 8);
        if (room < HEADER) {
            at += room;
            continue;
        }
        if (length > room - HEADER || at + HEADER + length > file->size) {
            break;
        }
        uint32_t crc = crc32c(p + 6, length + 1);
        mesh_put_u32le(p, ((crc >> 15) | (crc << 17)) + 0xa282ead8u);
        at += HEADER + length;
    }
}

static char dir[] = "/dev/shm/parley-fuzz-XXXXXX";

static void remove_dir(void)
{
    static const char *const names[] = { "/CURRENT", "/MANIFEST-000001", "" };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char path[64];
        (void)snprintf(path, sizeof path, "%s%s", dir, names[i]);
        (void)remove(path);
    }
}

static void as_manifest(const mesh_buf *file)
{
    static char path[64];
    if (path[0] == '\0') {
        if (mkdtemp(dir) == NULL || atexit(remove_dir) != 0) {
            abort();
        }
        (void)snprintf(path, sizeof path, "%s/CURRENT", dir);
        FILE *current = fopen(path, "we");
        if (current == NULL || fputs("MANIFEST-000001\n", current) < 0 || fclose(current) != 0) {
            abort();
        }
        (void)snprintf(path, sizeof path, "%s/MANIFEST-000001", dir);
    }
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0 || write(fd, file->data, file->size) != (ssize_t)file->size || close(fd) != 0) {
        abort();
    }
    char why[512];
    (void)store_salvage_find_bad(dir, why, sizeof why);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2) {
        return 0;
    }
    mesh_buf file = { 0 };
    mesh_buf_put(&file, data + 1, size - 1);
    if ((data[0] & 1) != 0) {
        put_checksums_right(&file);
    }
    store_salvage_found found;
    if (store_salvage_scan(fuzz_file(mesh_buf_slice(&file)), &found) == MESH_OK) {
        assert(found.size == file.size && found.good_end <= found.size);
        assert(!found.bad || (found.bad_offset < found.size && found.reason != NULL));
    }
    if ((data[0] & 2) != 0) {
        as_manifest(&file);
    }
    mesh_buf_fini(&file);
    return 0;
}
