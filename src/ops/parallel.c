/* SPDX-License-Identifier: Apache-2.0 */
#include "ops/parallel.h"

#include "core/environment.h"
#include "core/status.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

#define ELEMENTS_A_PART 65536 /* below this, starting a thread costs more than it saves */

/* Those this process may run on, which taskset and containers restrict. */
static long processors(void) {
#if defined(__linux__)
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0) return CPU_COUNT(&set);
#endif
    return sysconf(_SC_NPROCESSORS_ONLN);
}

uint32_t brc_default_threads(void) {
    const char *text = getenv("BRECCIA_THREADS");
    long n = text != NULL ? strtol(text, NULL, 10) : 0;
    if (n <= 0) n = processors();
    return n < 1 ? 1 : n > BRCI_MAX_THREADS ? BRCI_MAX_THREADS : (uint32_t)n;
}

brc_status brci_options_check(const brc_options *options, brc_error *err) {
    if (options == NULL || options->size >= sizeof *options) return BRC_OK;
    return brci_fail(err, BRC_ARGUMENT, 0, "the options are of another version");
}

uint32_t brci_parts(const brc_options *options, int64_t items, int64_t elements) {
    int64_t parts = elements / ELEMENTS_A_PART, allowed;
    if (parts > items) parts = items;
    if (parts <= 1) return 1; /* before asking the system for its processors, which takes as long as a small cast */
    allowed = options != NULL && options->threads > 0 ? options->threads : brc_default_threads();
    if (allowed > BRCI_MAX_THREADS) allowed = BRCI_MAX_THREADS;
    return (uint32_t)(parts < allowed ? parts : allowed);
}

typedef struct task {
    brci_work *work;
    void *job;
    uint32_t part;
    int64_t first, last;
} task;

static void *run(void *argument) {
    const task *t = argument;
    uint64_t saved = brci_environment_enter();
    t->work(t->job, t->part, t->first, t->last);
    brci_environment_leave(saved);
    return NULL;
}

void brci_parallel(uint32_t parts, int64_t items, brci_work *work, void *job) {
    static const int faults[] = {SIGBUS, SIGSEGV, SIGFPE, SIGILL}; /* a thread's own; blocked, they end the process */
    sigset_t every, before;
    pthread_t threads[BRCI_MAX_THREADS];
    task tasks[BRCI_MAX_THREADS];
    int started[BRCI_MAX_THREADS] = {0};
    if (parts > 1) { /* the host's signals are for the host's threads */
        sigfillset(&every);
        for (size_t i = 0; i < sizeof faults / sizeof *faults; i++) sigdelset(&every, faults[i]);
        pthread_sigmask(SIG_SETMASK, &every, &before);
    }
    for (uint32_t i = 0; i < parts; i++) {
        int64_t share = items / parts, extra = items % parts;
        tasks[i] = (task){work, job, i, i * share + (i < extra ? i : extra),
                          (i + 1) * share + (i + 1 < extra ? i + 1 : extra)};
        if (i > 0) started[i] = pthread_create(&threads[i], NULL, run, &tasks[i]) == 0;
    }
    if (parts > 1) pthread_sigmask(SIG_SETMASK, &before, NULL);
    for (uint32_t i = 0; i < parts; i++)
        if (!started[i]) run(&tasks[i]);
    for (uint32_t i = 0; i < parts; i++)
        if (started[i]) pthread_join(threads[i], NULL);
}
