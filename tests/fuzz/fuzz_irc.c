/* IRC logs, their lines, and nicks as ids. */
#include <assert.h>
#include <string.h>

#include "client/irc.h"
#include "tests/fuzz/fuzz.h"

static void nick_there_and_back(mesh_slice bytes)
{
    char id[MESH_ID_MAX + 1], nick[MESH_ID_MAX + 1];
    if (bytes.size <= CLIENT_IRC_NICK_MAX && client_irc_id(bytes, id) == MESH_OK) {
        assert(mesh_id_valid(id));
        if (memchr(bytes.data, '\0', bytes.size) == NULL) {
            assert(client_irc_nick(id, nick) == MESH_OK);
            assert(strlen(nick) == bytes.size && memcmp(nick, bytes.data, bytes.size) == 0);
        }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    mesh_slice bytes = { data, size };
    client_irc_line line;
    if (client_irc_parse(bytes, &line) == MESH_OK && line.kind != CLIENT_IRC_SKIP) {
        nick_there_and_back(line.nick);
    }
    nick_there_and_back(bytes);
    char text[MESH_ID_MAX + 8], nick[MESH_ID_MAX + 1];
    size_t n = size < sizeof text - 1 ? size : sizeof text - 1;
    memcpy(text, data, n);
    text[n] = '\0';
    (void)!client_irc_nick(text, nick);
    client_irc_log log = { 0 };
    char why[200];
    if (client_irc_read(bytes, &log, why, sizeof why) == MESH_OK) {
        for (size_t i = 0; i < log.n_entries; i++) {
            assert(log.entries[i].user < log.n_users);
        }
        client_irc_fini(&log);
    }
    return 0;
}
