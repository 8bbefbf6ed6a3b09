/* SPDX-License-Identifier: Apache-2.0
 * Runs a test once for each instruction set of this processor: every level is chosen in a child process of its own, by
 * BRECCIA_ISA, as a user would. Memory that `shared` gives is common to all of them. */
#include "breccia/breccia.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

/* The first one is the truth: the others are compared with it. Some have products of their own only. */
enum { CASTS = 1, PRODUCTS = 2 };
static const struct {
    const char *name;
    int own;
} levels[] = {
    {"reference", CASTS | PRODUCTS}, {"generic", CASTS | PRODUCTS},
    {"neon", CASTS | PRODUCTS},      {"avx2", CASTS | PRODUCTS},
    {"avx_vnni", PRODUCTS},          {"avx512", CASTS | PRODUCTS},
    {"avx512_vnni", PRODUCTS},       {"avx512_vbmi", CASTS | PRODUCTS},
    {"amx_int8", PRODUCTS},          {"amx_bf16", PRODUCTS},
};
#define LEVELS (sizeof levels / sizeof *levels)

/* Emulators do a part of the cases: every so-many-th (BRECCIA_TEST_SHARE). */
static size_t share(void) {
    const char *text = getenv("BRECCIA_TEST_SHARE");
    return text != NULL && atol(text) > 1 ? (size_t)atol(text) : 1;
}

/* Where a level is, for the case that it does not come back. */
static char *whereabouts;

static void *shared(size_t bytes) {
    void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) abort();
    return memory;
}

__attribute__((format(printf, 2, 3))) static int wrong(int *faults, const char *format, ...) {
    va_list arguments;
    if (++*faults > 8) return 0; /* the first ones say enough */
    va_start(arguments, format);
    fprintf(stderr, "%s: ", brc_isa());
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
    return 0;
}

enum { SAME, DIFFERENT, ABSENT };

/* `work` gives the number of faults. */
static int on_level(const char *level, int (*work)(void)) {
    int status = 0;
    const pid_t pid = fork();
    if (pid == 0) {
        setenv("BRECCIA_ISA", level, 1);
        if (strcmp(brc_isa(), level) != 0) exit(ABSENT);
        exit(work() == 0 ? SAME : DIFFERENT);
    }
    if (pid < 0 || waitpid(pid, &status, 0) != pid) return DIFFERENT;
    if (WIFEXITED(status)) return WEXITSTATUS(status);
    fprintf(stderr, "%s: ended by signal %d: %s\n", level, WTERMSIG(status), whereabouts);
    return DIFFERENT;
}

/* Every level that has its own of `what`. */
static int on_every_level(int what, int (*truth)(void), int (*work)(void)) {
    int failed = 0;
    whereabouts = shared(4096);
    for (size_t i = 0; i < LEVELS; i++) {
        if ((levels[i].own & what) == 0) continue;
        const int outcome = on_level(levels[i].name, i == 0 ? truth : work);
        static const char *const words[] = {"fine", "FAILED", "skipped: not on this processor"};
        printf("%s: %s\n", levels[i].name, words[outcome > ABSENT ? DIFFERENT : outcome]);
        fflush(stdout);
        failed |= outcome != SAME && (outcome != ABSENT || i <= 1);
    }
    return failed;
}
