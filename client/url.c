#include "client/url.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

mesh_err client_url_parse(const char *text, client_url *out)
{
    if (strncmp(text, "wss://", 6) == 0) {
        return MESH_UNSUPPORTED;
    }
    if (strncmp(text, "ws://", 5) != 0) {
        return MESH_MALFORMED;
    }
    text += 5;
    size_t host = strcspn(text, ":/");
    if (host == 0 || host >= sizeof out->host) {
        return MESH_MALFORMED;
    }
    client_url url = { .port = 80 };
    memcpy(url.host, text, host);
    text += host;
    if (*text == ':') {
        char *end;
        long port = strtol(text + 1, &end, 10);
        if (end == text + 1 || port < 1 || port > 65535) {
            return MESH_MALFORMED;
        }
        url.port = (int)port;
        text = end;
    }
    if (*text != '\0' && *text != '/') {
        return MESH_MALFORMED;
    }
    int n = snprintf(url.path, sizeof url.path, "%s", *text && text[1] ? text : "/v1/ws");
    if (n < 0 || (size_t)n >= sizeof url.path) {
        return MESH_MALFORMED;
    }
    *out = url;
    return MESH_OK;
}
