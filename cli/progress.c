/* SPDX-License-Identifier: Apache-2.0
 * The line of progress, and interruption. */
#include "progress.h"

#include "print.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

enum { NANOSECONDS_BETWEEN = 100000000, COLUMNS = 80 };

static volatile sig_atomic_t stop_later, stop_asked;

static void on_signal(int number) {
    (void)number;
    if (!stop_later || stop_asked) _exit(EXIT_INTERRUPTED);
    stop_asked = 1;
}

void signals_install(void) {
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = (int)SA_RESETHAND | SA_RESTART};
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    action.sa_handler = SIG_IGN; /* a closed pipe is a failed write, which main.c sees */
    sigaction(SIGPIPE, &action, NULL);
}

void progress_begin(struct progress *progress, const char *verb) {
    const char *no_color = getenv("NO_COLOR"), *terminal = getenv("TERM");
    *progress = (struct progress){.verb = verb};
    progress->shown = isatty(STDERR_FILENO) && terminal != NULL && strcmp(terminal, "dumb") != 0;
    progress->color = no_color == NULL || no_color[0] == '\0';
    stop_later = 1;
}

static int columns(void) {
    struct winsize size;
    return ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : COLUMNS;
}

int progress_step(void *user, int64_t done, int64_t total, const char *tensor) {
    struct progress *progress = user;
    struct timespec now;
    if (stop_asked || !progress->shown) return stop_asked;
    clock_gettime(CLOCK_MONOTONIC, &now);
    const int64_t passed =
        (int64_t)(now.tv_sec - progress->last.tv_sec) * 1000000000 + (now.tv_nsec - progress->last.tv_nsec);
    if (passed < NANOSECONDS_BETWEEN) return 0;
    progress->last = now;
    const int percent = total > 0 ? (int)(100.0 * (double)done / (double)total) : 0;
    fprintf(stderr, "\r%s %s%3d%%%s ", progress->verb, progress->color ? "\033[1m" : "", percent,
            progress->color ? "\033[0m" : "");
    const int room = columns() - (int)strlen(progress->verb) - 8;
    /* A name that does not fit, or that would have to be escaped, is left out: the line must stay one line. */
    const size_t width = tensor != NULL ? print_text(NULL, tensor) : 0;
    const int fits = room > 0 && width <= (size_t)room;
    if (fits && tensor != NULL) print_text(stderr, tensor);
    if (room > 0) fprintf(stderr, "%*s", fits ? room - (int)width : room, "");
    fputc('\r', stderr);
    fflush(stderr);
    return 0;
}

void progress_end(struct progress *progress) {
    if (progress->shown && progress->last.tv_sec != 0) fprintf(stderr, "\r%*s\r", columns() - 1, "");
    progress->shown = 0;
}
