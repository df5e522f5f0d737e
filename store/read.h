/* store/read.h: requests answered at once from the rows (which show everything applied). Answers borrow from arena. */
#ifndef STORE_READ_H
#define STORE_READ_H

#include "store/fsm.h"

void store_read_history(store_fsm *fsm, mesh_arena *arena, const Mesh__Msg *msg, Mesh__Msg *answer);
void store_read_members(store_fsm *fsm, mesh_arena *arena, const Mesh__Msg *msg, Mesh__Msg *answer);
void store_read_heads(store_fsm *fsm, mesh_arena *arena, const Mesh__Msg *msg, Mesh__Msg *answer);
void store_read_user_chats(store_fsm *fsm, mesh_arena *arena, const Mesh__Msg *msg, Mesh__Msg *answer);
void store_read_inbox(store_fsm *fsm, mesh_arena *arena, const Mesh__Msg *msg, Mesh__Msg *answer);

/* Any of them, by msg's kind, which is one of STORE_KIND_READ. */
void store_read(store_fsm *fsm, mesh_arena *arena, const Mesh__Msg *msg, Mesh__Msg *answer);

/* What an entry, in whatever holds it in a list, is of MESH_WIRE_ELEMENTS. */
size_t store_read_elements(const Mesh__Entry *entry);

#endif
