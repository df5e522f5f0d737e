#include "mesh/fault.h"

#include <stddef.h>

static const mesh_fault_info faults[] = {
    { FAULT_MALFORMED, "malformed", MESH_RETRY_NO, 0, "The frame could not be read." },
    { FAULT_UNKNOWN_TYPE, "unknown_type", MESH_RETRY_NO, 0, "This type of frame is not known here." },
    { FAULT_TOO_BIG, "too_big", MESH_RETRY_NO, 0, "The frame is larger than allowed." },
    { FAULT_INVALID, "invalid", MESH_RETRY_NO, 0, "A field has a value that is not allowed." },
    { FAULT_TEXT_TOO_LONG, "text_too_long", MESH_RETRY_NO, 0, "The text is longer than allowed." },
    { FAULT_HELLO_FIRST, "hello_first", MESH_RETRY_NO, 0, "The first frame must be hello." },
    { FAULT_HELLO_TWICE, "hello_twice", MESH_RETRY_NO, 0, "hello was already said." },
    { FAULT_ACK_BEYOND, "ack_beyond", MESH_RETRY_NO, 0, "This entry was never sent here." },
    { FAULT_UNAUTHORIZED, "unauthorized", MESH_RETRY_REAUTH, 0, "The token is missing or not valid." },
    { FAULT_TOKEN_EXPIRED, "token_expired", MESH_RETRY_REAUTH, 0, "The token has ended." },
    { FAULT_NOT_FOUND, "not_found", MESH_RETRY_NO, 0, "There is no such thing, or it is not yours." },
    { FAULT_DENIED, "denied", MESH_RETRY_NO, 0, "Your role may not do this." },
    { FAULT_REPLACED, "replaced", MESH_RETRY_NO, 0, "A newer session of this device is here." },
    { FAULT_CONFLICT, "conflict", MESH_RETRY_NO, 0, "This client_msg_id was used with another content." },
    { FAULT_TOO_MANY_MEMBERS, "too_many_members", MESH_RETRY_NO, 0, "The chat would have too many members." },
    { FAULT_TOO_MANY_CHATS, "too_many_chats", MESH_RETRY_NO, 0, "The user would have too many chats." },
    { FAULT_RATE_LIMITED, "rate_limited", MESH_RETRY_SAME, 1000, "Too many requests: slow down." },
    { FAULT_BUSY, "busy", MESH_RETRY_SAME, 500, "A queue is full: slow down." },
    { FAULT_UNAVAILABLE, "unavailable", MESH_RETRY_SAME, 250, "A part is not reachable: send the same again." },
    { FAULT_DISK_FULL, "disk_full", MESH_RETRY_LATER, 5000, "Nothing can be stored at the moment." },
    { FAULT_RESYNC, "resync", MESH_RETRY_RESYNC, 0, "This cursor cannot be served." },
    { FAULT_NOT_OWNER, "not_owner", MESH_RETRY_SAME, 500, "An older ring epoch than the one in force." },
    { FAULT_NOT_LEADER, "not_leader", MESH_RETRY_SAME, 500, "Another replica leads." },
};
#define FAULTS (sizeof faults / sizeof *faults)

const mesh_fault_info *mesh_fault_get(uint32_t code)
{
    const mesh_fault_info *unavailable = NULL;
    for (size_t i = 0; i < FAULTS; i++) {
        if ((uint32_t)faults[i].code == code) {
            return &faults[i];
        }
        if (faults[i].code == FAULT_UNAVAILABLE) {
            unavailable = &faults[i];
        }
    }
    return unavailable;
}

const mesh_fault_info *mesh_fault_at(unsigned i)
{
    return i < FAULTS ? &faults[i] : NULL;
}
