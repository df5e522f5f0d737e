/* client/cmd.h: the subcommands of `parley`, one file each (client/cmd_<name>.c). argv[0] is the subcommand's name.
 * They return the exit status: 0 done, 1 it failed, 2 it was called wrongly. */
#ifndef CLIENT_CMD_H
#define CLIENT_CMD_H

int client_cmd_edge(int argc, char **argv); /* cmd_node.c: the three roles are started alike */
int client_cmd_router(int argc, char **argv);
int client_cmd_store(int argc, char **argv); /* and `store salvage`, `store new-era` */
int client_cmd_serve(int argc, char **argv);
int client_cmd_init(int argc, char **argv);
int client_cmd_token(int argc, char **argv);
int client_cmd_config(int argc, char **argv);
int client_cmd_status(int argc, char **argv);
int client_cmd_cluster(int argc, char **argv);
int client_cmd_backup(int argc, char **argv);
int client_cmd_restore(int argc, char **argv);
int client_cmd_wait(int argc, char **argv);
int client_cmd_chat(int argc, char **argv);
int client_cmd_replay(int argc, char **argv);
int client_cmd_salvage(int argc, char **argv);
int client_cmd_new_era(int argc, char **argv); /* cmd_salvage.c */

#endif
