/* SPDX-License-Identifier: Apache-2.0
 * How far a long command is, on a terminal's stderr, and whether the user wants it to stop. */
#ifndef CLI_PROGRESS_H
#define CLI_PROGRESS_H

#include <stdint.h>
#include <time.h>

struct progress {
    const char *verb; /* "quantize" */
    int shown, color;
    struct timespec last;
};

/* From here on, the first SIGINT, SIGTERM, SIGQUIT, SIGHUP or SIGXCPU lets progress_step return 1, so that temporary
 * files are removed; a second of the first three kills. Before, each ends the program at once with the exit code of an
 * interruption. */
void progress_begin(struct progress *progress, const char *verb);
/* A brc_progress; `user` points to a struct progress. */
int progress_step(void *user, int64_t done, int64_t total, const char *tensor);
/* Clears the line. */
void progress_end(struct progress *progress);

/* Called once, at the start of the program. */
void signals_install(void);

#endif
