/* SPDX-License-Identifier: Apache-2.0
 * The line of progress, interruption, and files that change under the reader. */
#include "progress.h"

#include "print.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

enum { NANOSECONDS_BETWEEN = 100000000, COLUMNS = 80 };

static volatile sig_atomic_t stop_later, stop_asked, insisted;

/* What ends a program, and whether asking twice ends it at once: a terminal that closes sends SIGHUP more than once,
 * and a used-up time limit SIGXCPU each second; the temporary files are to be removed all the same. */
static const struct ending {
    int number, insists;
} endings[] = {{SIGINT, 1}, {SIGTERM, 1}, {SIGQUIT, 1}, {SIGHUP, 0}, {SIGXCPU, 0}};
enum { ENDINGS = sizeof endings / sizeof *endings };

static void on_ending(int number) {
    int insists = 0;
    for (int i = 0; i < ENDINGS; i++)
        if (endings[i].number == number) insists = endings[i].insists;
    if (!stop_later || (insists && insisted)) _exit(EXIT_INTERRUPTED);
    stop_asked = 1;
    insisted |= insists;
}

/* A mapped file that became shorter has no bytes to read (mmap(2)). While temporary files are to be removed, zeros
 * stand in for them until progress_step stops the conversion; else there is nothing to clean, and the program ends. */
static void on_missing_bytes(int number, siginfo_t *info, void *context) {
    static const char text[] = "breccia: a file became shorter while it was read\n";
    const uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), at = (uintptr_t)info->si_addr & ~(page - 1);
    (void)context;
    if (info->si_code != BUS_ADRERR) {
        signal(number, SIG_DFL); /* a fault of another kind happens again, and ends the program */
        return;
    }
    stop_asked = 1;
    if (stop_later && mmap((void *)at, page, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) != MAP_FAILED)
        return;
    if (write(STDERR_FILENO, text, sizeof text - 1) < 0) { /* nobody to tell */
    }
    _exit(EXIT_IO);
}

void signals_install(void) {
    struct sigaction action = {.sa_handler = on_ending, .sa_flags = SA_RESTART}, before;
    for (int i = 0; i < ENDINGS; i++)
        if (sigaction(endings[i].number, NULL, &before) == 0 && before.sa_handler != SIG_IGN) /* as nohup asks for */
            sigaction(endings[i].number, &action, NULL);
    action.sa_handler = SIG_IGN; /* a closed pipe and a file that may not grow are failed writes, which are reported */
    sigaction(SIGPIPE, &action, NULL);
    sigaction(SIGXFSZ, &action, NULL);
    action = (struct sigaction){.sa_sigaction = on_missing_bytes, .sa_flags = SA_SIGINFO};
    sigaction(SIGBUS, &action, NULL);
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
