/* mesh/fault.h: every error a client can be told, in one table. docs/protocol.md lists the same codes; a check in
 * `make lint` holds the two together. The store, the router and the edge put the code on a mesh Fault; the edge turns
 * it into the client's error frame or close code. */
#ifndef MESH_FAULT_H
#define MESH_FAULT_H

#include <stdint.h>

typedef enum mesh_retry {
    MESH_RETRY_NO,
    MESH_RETRY_SAME,
    MESH_RETRY_LATER,
    MESH_RETRY_REAUTH,
    MESH_RETRY_RESYNC
} mesh_retry;

typedef enum mesh_fault {
    FAULT_NONE = 0,
    /* the frame */
    FAULT_MALFORMED = 100, /* not JSON or protobuf, wrong type, duplicate key, too deep, number out of range */
    FAULT_UNKNOWN_TYPE = 101,
    FAULT_TOO_BIG = 102, /* frame over EDGE_FRAME_MAX: the socket is closed */
    FAULT_INVALID = 103, /* a field's value breaks a documented rule; the message names it */
    FAULT_TEXT_TOO_LONG = 104,
    FAULT_HELLO_FIRST = 105, /* anything else before hello */
    FAULT_HELLO_TWICE = 106,
    FAULT_ACK_BEYOND = 107, /* ack of an entry that was never sent here */
    /* who */
    FAULT_UNAUTHORIZED = 200, /* token absent, unsigned, of another algorithm, wrong */
    FAULT_TOKEN_EXPIRED = 201,
    FAULT_NOT_FOUND = 202, /* no such chat, or not yours: the same answer */
    FAULT_DENIED = 203,    /* your role may not */
    FAULT_REPLACED = 204,  /* a newer session of this device */
    /* what */
    FAULT_CONFLICT = 300, /* this client_msg_id was used with another content */
    FAULT_TOO_MANY_MEMBERS = 301,
    FAULT_TOO_MANY_CHATS = 302,
    /* when */
    FAULT_RATE_LIMITED = 400,
    FAULT_BUSY = 401,        /* a queue is full: slow down */
    FAULT_UNAVAILABLE = 402, /* a part is down or too slow: outcome unknown, send the same again */
    FAULT_DISK_FULL = 403,   /* writes are refused until space is back; reads go on */
    FAULT_RESYNC = 404,      /* this cursor cannot be served: start from resync */
    /* between nodes only, never shown */
    FAULT_NOT_OWNER = 500, /* an older epoch than the one in force */
    FAULT_NOT_LEADER = 501
} mesh_fault;

typedef struct mesh_fault_info {
    mesh_fault code;
    const char *name; /* snake_case, stable */
    mesh_retry retry;
    uint32_t after_ms;   /* default hint for same and later */
    const char *message; /* default text */
} mesh_fault_info;

/* Never NULL: an unknown code answers FAULT_UNAVAILABLE's row. Borrowed for ever. */
const mesh_fault_info *mesh_fault_get(uint32_t code);
/* Row i, NULL past the end: for docs and tests. */
const mesh_fault_info *mesh_fault_at(unsigned i);

#endif
