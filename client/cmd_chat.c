/* client/cmd_chat.c: the shell of `parley chat`: standard input, standard output, the cursor's file, the loop. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "client/args.h"
#include "client/chat.h"
#include "client/cmd.h"
#include "client/data.h"
#include "mesh/loop.h"
#include "mesh/rand.h"

#define STATE_SIZE 59 /* era, inbox_seq, number of the last hello: one write of one size, so that it is whole */
#define ATTEMPT_MAX ((1ull << 53) - 1)
#define WAITING_MAX 1000 /* requests without an answer; more input has to wait */
#define LINE_MAX_BYTES (400u * 1024)
#define END_WAIT_MS 30000 /* after the end of input, for what is on its way */

typedef struct shell {
    mesh_loop *loop;
    client_chat *chat;
    client_session *session;
    mesh_buf in;
    bool watched; /* stdin can be polled: a terminal or a pipe, not a file */
    bool watching;
    bool tty;
    bool eof;
    bool ended; /* end of input, and all of it taken, or /quit */
    mesh_ms end_at;
    mesh_ms linger;
    int state_fd;         /* -1: none */
    client_cursor cursor; /* as in the state file, like attempt */
    uint64_t attempt;
    uv_poll_t poll;
} shell;

/* ---- output ---- */

static void prompt(const shell *sh)
{
    if (sh->tty && !sh->ended) {
        fputs("> ", stdout);
        fflush(stdout);
    }
}

static void print(void *arg, const char *text)
{
    shell *sh = arg;
    if (sh->tty) {
        fputs("\r\x1b[K", stdout);
    }
    fputs(text, stdout);
    fflush(stdout);
    prompt(sh);
}

static void save_state(const shell *sh)
{
    char line[STATE_SIZE + 1];
    if (sh->state_fd < 0) {
        return;
    }
    snprintf(line, sizeof line, "%016llx %020llu %020llu\n", (unsigned long long)sh->cursor.era,
             (unsigned long long)sh->cursor.inbox_seq, (unsigned long long)sh->attempt);
    if (pwrite(sh->state_fd, line, STATE_SIZE, 0) != STATE_SIZE) {
        fprintf(stderr, "parley: the state file cannot be written: %s\n", strerror(errno));
        exit(1); /* going on would ack what the next start does not know of */
    }
}

static void stored(void *arg, client_cursor cursor)
{
    shell *sh = arg;
    sh->cursor = cursor;
    save_state(sh);
}

static void hello(void *arg, uint64_t attempt)
{
    shell *sh = arg;
    sh->attempt = attempt;
    save_state(sh);
}

/* The number of a hello may be missing: it was not always there. An era of 0 is no cursor yet. */
static bool open_state(shell *sh, const char *path)
{
    char line[STATE_SIZE + 1] = "";
    unsigned long long era, seq;
    unsigned long long attempt = 0;
    sh->state_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    ssize_t n = sh->state_fd < 0 ? -1 : pread(sh->state_fd, line, STATE_SIZE, 0);
    if (n < 0) {
        client_args_fail("%s: %s", path, strerror(errno));
        return false;
    }
    if (n > 0 && (sscanf(line, "%16llx %20llu %20llu\n", &era, &seq, &attempt) < 2 || attempt >= ATTEMPT_MAX)) {
        client_args_fail("%s is no state file", path);
        return false;
    }
    if (n > 0) {
        sh->cursor = (client_cursor){ era != 0, era, seq };
        sh->attempt = attempt;
    }
    return true;
}

/* ---- input ---- */

static void end_input(shell *sh)
{
    if (!sh->ended) {
        sh->ended = true;
        sh->end_at = mesh_clock_now().mono + sh->linger;
    }
}

static void take_lines(shell *sh)
{
    uint8_t *newline;
    while (!sh->ended && sh->in.size > 0 && !client_chat_busy(sh->chat, (char)sh->in.data[0]) &&
           client_session_waiting(sh->session) < WAITING_MAX &&
           (newline = memchr(sh->in.data, '\n', sh->in.size)) != NULL) {
        size_t n = (size_t)(newline - sh->in.data);
        *newline = '\0';
        if (n > 0 && newline[-1] == '\r') {
            newline[-1] = '\0';
        }
        if (!client_chat_line(sh->chat, (const char *)sh->in.data)) {
            sh->linger = 0;
            end_input(sh);
        }
        mesh_buf_shift(&sh->in, n + 1);
        prompt(sh);
    }
    if (sh->eof && sh->in.size == 0) {
        end_input(sh);
    }
}

static void read_input(shell *sh)
{
    ssize_t n = read(STDIN_FILENO, mesh_buf_grow(&sh->in, 4096), 4096);
    sh->in.size -= 4096 - (n > 0 ? (size_t)n : 0);
    if (n < 0 && (errno == EINTR || errno == EAGAIN)) {
        return;
    }
    if (n <= 0) {
        sh->eof = true;
        sh->end_at = mesh_clock_now().mono + END_WAIT_MS;
    } else if (sh->in.size > LINE_MAX_BYTES && !memchr(sh->in.data, '\n', sh->in.size)) {
        client_args_fail("a line of more than %u bytes: that is no message", LINE_MAX_BYTES);
        mesh_buf_clear(&sh->in);
        sh->eof = true;
    }
    if (sh->eof && sh->in.size > 0) {
        mesh_buf_put(&sh->in, "\n", 1); /* an empty line is nothing */
    }
}

static void on_stdin(uv_poll_t *poll, int status, int events)
{
    (void)status;
    (void)events;
    read_input(poll->data);
}

static void watch_input(shell *sh, bool want)
{
    if (sh->watched && want != sh->watching) {
        sh->watching = want;
        if (want) {
            uv_poll_start(&sh->poll, UV_READABLE, on_stdin);
        } else {
            uv_poll_stop(&sh->poll);
        }
    }
}

/* ---- loop ---- */

static bool finished(const shell *sh, mesh_ms now)
{
    if (mesh_loop_stopping() || client_session_state(sh->session) == CLIENT_STOPPED) {
        return true;
    }
    if (sh->eof && !sh->ended && now >= sh->end_at) {
        return true; /* nobody is there to take the rest of the input */
    }
    bool waiting = client_session_waiting(sh->session) > 0 && now < sh->end_at + END_WAIT_MS;
    return sh->ended && now >= sh->end_at && !waiting;
}

static mesh_ms turn(void *arg, mesh_time now)
{
    shell *sh = arg;
    if (!sh->chat) {
        return MESH_NEVER; /* the loop only turns to let go of things */
    }
    bool room = client_session_waiting(sh->session) < WAITING_MAX && !sh->eof && sh->in.size < LINE_MAX_BYTES;
    watch_input(sh, room);
    if (!sh->watched && room) {
        read_input(sh);
    }
    take_lines(sh);
    client_chat_flush(sh->chat);
    mesh_ms next = client_chat_turn(sh->chat, now.mono);
    if (finished(sh, now.mono)) {
        mesh_loop_stop(sh->loop);
    }
    if (!sh->watched && !sh->eof) {
        return room ? now.mono : now.mono + 10; /* a file cannot be waited for */
    }
    return sh->ended && now.mono + 20 < next ? now.mono + 20 : next;
}

static int talk(shell *sh, const client_url *url, const client_session_conf *conf)
{
    client_socket *cs;
    client_chat_conf chat_conf = { .tty = sh->tty, .print = print, .stored = stored, .hello = hello, .arg = sh };
    sh->loop = mesh_loop_new(turn, sh);
    if (client_socket_new(mesh_loop_uv(sh->loop), 16, &cs) != MESH_OK) {
        mesh_loop_destroy(&sh->loop);
        client_args_fail("libwebsockets does not start");
        return 1;
    }
    sh->chat = client_chat_new(&chat_conf);
    client_conn *conn = client_socket_open(cs, url, NULL, conf, client_chat_handler(), sh->chat);
    sh->session = client_conn_session(conn);
    client_chat_set_session(sh->chat, sh->session);
    sh->watched = uv_poll_init(mesh_loop_uv(sh->loop), &sh->poll, STDIN_FILENO) == 0;
    sh->poll.data = sh;
    mesh_loop_run(sh->loop);

    int code = client_session_state(sh->session) == CLIENT_STOPPED || (sh->eof && !sh->ended) ||
                       client_session_waiting(sh->session) > 0
                   ? 1
                   : 0;
    if (client_session_waiting(sh->session) > 0) {
        client_args_fail("%zu requests had no answer", client_session_waiting(sh->session));
    }
    client_chat_destroy(&sh->chat);
    client_conn_close(&conn);
    if (sh->watched) {
        uv_close((uv_handle_t *)&sh->poll, NULL);
    }
    client_socket_destroy(&cs);
    mesh_buf_fini(&sh->in);
    mesh_loop_destroy(&sh->loop);
    return code;
}

int client_cmd_chat(int argc, char **argv)
{
    const char *url = NULL, *port = NULL, *dir = NULL, *token = NULL, *user = NULL, *name = NULL, *device = "terminal",
               *state = NULL, *linger = NULL;
    const client_option options[] = {
        { "user", "USER", "who you are, with the token key in --data", &user },
        { "name", "NAME", "display name, with --user", &name },
        { "token", "TOKEN", "who you are (parley token USER makes one)", &token },
        { "data", "DIR", "the cluster's directory, for its token key and port (data)", &dir },
        { "url", "URL", "where to connect (ws://127.0.0.1:8080/v1/ws)", &url },
        { "port", "PORT", "the same on this machine", &port },
        { "device", "ID", "one live session per device: give each its own (terminal)", &device },
        { "state", "FILE", "keep the place in the inbox here, to go on from there at the next start", &state },
        { "linger", "SECONDS", "keep listening after the end of input (0)", &linger },
        { NULL, NULL, NULL, NULL },
    };
    const client_args args = { "parley chat --user USER | --token TOKEN [options]",
                               "Talks in the terminal. /help there lists the commands.",
                               options,
                               NULL,
                               0,
                               0 };
    int code;
    int64_t seconds;
    client_url target;
    shell sh = { .tty = isatty(STDIN_FILENO) && isatty(STDOUT_FILENO), .state_fd = -1 };
    if (client_args_parse(&args, argc, argv, &code) < 0) {
        return code;
    }
    if ((user == NULL) == (token == NULL)) {
        return client_args_fail("one of --user and --token is needed (usage: %s)", args.usage);
    }
    if (!mesh_id_valid(device)) {
        return client_args_fail("'%s' is no device id: 1 to 64 of A-Z a-z 0-9 _ . : -", device);
    }
    if (!client_args_int("linger", linger, 0, 0, 1000000, &seconds) ||
        !client_data_target(url, port, dir ? dir : "data", &target)) {
        return CLIENT_EXIT_USAGE;
    }
    if (state && !open_state(&sh, state)) {
        return 1;
    }
    sh.linger = seconds * 1000;
    char *made = user ? client_data_token(dir ? dir : "data", user, NULL, name, CLIENT_TOKEN_TTL_S) : NULL;
    if (user && !made) {
        return 1;
    }
    mesh_loop_signals();
    uint64_t wall = (uint64_t)mesh_clock_now().wall;
    client_session_conf conf = { .token = made ? made : token,
                                 .device = device,
                                 .software = "parley chat",
                                 .cursor = sh.cursor,
                                 .attempt = wall > sh.attempt ? wall : sh.attempt + 1,
                                 .seed = mesh_rand_seed(),
                                 .in_order = true };
    code = talk(&sh, &target, &conf);
    free(made);
    if (sh.state_fd >= 0) {
        close(sh.state_fd);
    }
    return code;
}
