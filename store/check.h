/* store/check.h: is a message from a router fit to be put into the log or looked up? Everything in it came from
 * outside. */
#ifndef STORE_CHECK_H
#define STORE_CHECK_H

#include <stdbool.h>

#include "mesh/wire.h"

typedef enum store_kind {
    STORE_KIND_UNKNOWN,
    STORE_KIND_WRITE, /* goes through the log */
    STORE_KIND_READ,  /* answered at once */
    STORE_KIND_OTHER, /* lease, delivered */
    STORE_KIND_ANSWER /* to what this store asked of another shard */
} store_kind;

store_kind store_check_kind(const Mesh__Msg *msg);
/* Ids are valid and of one tenant, strings and lists are within their bounds. */
bool store_check_fields(const Mesh__Msg *msg);

#endif
