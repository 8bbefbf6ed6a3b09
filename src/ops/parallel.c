/* SPDX-License-Identifier: Apache-2.0
 * One pool of threads for the process, and who gets them.
 *
 * - Threads start when a call first has work for them, never more than some call could use, and then stay: asleep, but
 *   for the first SPIN nanoseconds after their work. Where one cannot be started there are fewer.
 * - A call is a list of parts. Its caller and the threads that join it take one part after the other, so a caller
 *   never waits for a thread that has not woken, and a call that gets no thread at all is done by its caller.
 * - Calls of several host threads share the pool. A thread joins a call only while all at work here, callers included,
 *   are fewer than the threads that the call may have; with eight callers on eight processors each works alone.
 * - Threads run where the caller they help may run (sched_setaffinity); the host's signals are not for them.
 * - A child of fork has none of the threads and starts its own. At exit, and before the library is unloaded, the
 * threads are ended, each after the part it is at. */
#include "ops/parallel.h"

#include "core/environment.h"
#include "core/status.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define ELEMENTS_A_PART 65536 /* below this, waking a thread costs more than it saves (bench/cpu/NOTES.md) */
#define SPIN 20000            /* ns that a thread waits awake: from one step of a call to the next, not between calls */

/* The processors that a thread may run on, which taskset and containers restrict. */
typedef struct processors {
    int known;
#if defined(__linux__)
    cpu_set_t set;
#endif
} processors;

static long processors_of_this_thread(processors *p) {
#if defined(__linux__)
    p->known = sched_getaffinity(0, sizeof p->set, &p->set) == 0;
    if (p->known) return CPU_COUNT(&p->set);
#else
    p->known = 0;
#endif
    return sysconf(_SC_NPROCESSORS_ONLN);
}

/* `here`: where the calling thread was put last. */
static void move_to(const processors *wanted, processors *here) {
#if defined(__linux__)
    if (!wanted->known || (here->known && CPU_EQUAL(&wanted->set, &here->set))) return;
    (void)sched_setaffinity(0, sizeof wanted->set,
                            &wanted->set); /* where it fails the thread stays: slower, not wrong */
    *here = *wanted;
#else
    (void)wanted;
    (void)here;
#endif
}

static uint32_t default_threads(processors *p) {
    const char *text = getenv("BRECCIA_THREADS");
    const long there = processors_of_this_thread(p);
    long n = text != NULL ? strtol(text, NULL, 10) : 0;
    if (n <= 0) n = there;
    return n < 1 ? 1 : n > BRCI_MAX_THREADS ? BRCI_MAX_THREADS : (uint32_t)n;
}

uint32_t brc_default_threads(void) {
    processors p;
    return default_threads(&p);
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

/* A call while it runs, on its caller's stack. */
typedef struct call {
    brci_work *work;
    void *job;
    int64_t items;
    uint32_t parts, threads; /* threads: how many may be at work here while this call asks for one more */
    atomic_uint next;        /* the first part that nobody has taken; 0 is the caller's */
    atomic_uint helpers;     /* threads of the pool in it; changes under the lock */
    pthread_t caller;
    processors where;
    struct call *older;
} call;

static struct {
    pthread_mutex_t lock; /* of everything here; never held while a part is done */
    pthread_cond_t wake;  /* a call would take a thread */
    pthread_cond_t done;  /* a call has no helper any more */
    call *calls;          /* those that run, newest first */
    uint32_t callers, helping, workers, sleeping, waiting;
    int closing, fork_safe;
    atomic_uint news; /* counts what happened that a thread without work should look at */
    pthread_t threads[BRCI_MAX_THREADS - 1];
} pool = {.lock = PTHREAD_MUTEX_INITIALIZER, .wake = PTHREAD_COND_INITIALIZER, .done = PTHREAD_COND_INITIALIZER};

static void run(const call *c, uint32_t part) {
    const int64_t share = c->items / c->parts, extra = c->items % c->parts, i = part;
    const uint64_t saved = brci_environment_enter();
    c->work(c->job, part, i * share + (i < extra ? i : extra), (i + 1) * share + (i + 1 < extra ? i + 1 : extra));
    brci_environment_leave(saved);
}

static void take_parts(call *c) {
    uint32_t part;
    while ((part = atomic_fetch_add_explicit(&c->next, 1, memory_order_relaxed)) < c->parts) run(c, part);
}

static int64_t nanoseconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* 1 once *word is no longer `value`, 0 after SPIN: waking a thread takes as long. */
static int spin(const atomic_uint *word, unsigned value) {
    const int64_t end = nanoseconds() + SPIN;
    do
        for (int i = 0; i < 16; i++) {
            if (atomic_load_explicit(word, memory_order_acquire) != value) return 1;
#if defined(__x86_64__)
            __builtin_ia32_pause();
#elif defined(__aarch64__)
            __asm__ volatile("yield");
#endif
        }
    while (nanoseconds() < end);
    return 0;
}

/* How many threads the call could use now. */
static uint32_t wanted(const call *c) {
    const uint32_t taken = atomic_load_explicit(&c->next, memory_order_relaxed), busy = pool.callers + pool.helping;
    const uint32_t parts = taken < c->parts ? c->parts - taken : 0, room = busy < c->threads ? c->threads - busy : 0;
    return parts < room ? parts : room;
}

static call *joinable(void) {
    call *found = NULL;
    for (call *c = pool.calls; c != NULL; c = c->older)
        if (wanted(c) > 0) found = c; /* the oldest */
    return found;
}

/* With the lock held, which is given up meanwhile. */
static void help(call *c, processors *here) {
    atomic_fetch_add_explicit(&c->helpers, 1, memory_order_relaxed);
    pool.helping++;
    pthread_mutex_unlock(&pool.lock);
    move_to(&c->where, here);
    take_parts(c);
    pthread_mutex_lock(&pool.lock);
    pool.helping--;
    /* The last look at the call: its caller may return once it sees 0. */
    if (atomic_fetch_sub_explicit(&c->helpers, 1, memory_order_release) == 1 && pool.waiting > 0)
        pthread_cond_broadcast(&pool.done);
}

static void *serve(void *unused) {
    processors here = {0};
    int rested = 0;
    (void)unused;
    pthread_mutex_lock(&pool.lock);
    while (!pool.closing) {
        call *c = joinable();
        if (c != NULL) {
            help(c, &here);
            rested = 0;
        } else if (!rested) {
            const unsigned news = atomic_load_explicit(&pool.news, memory_order_relaxed);
            pthread_mutex_unlock(&pool.lock);
            (void)spin(&pool.news, news);
            pthread_mutex_lock(&pool.lock);
            rested = 1;
        } else {
            pool.sleeping++;
            pthread_cond_wait(&pool.wake, &pool.lock);
            pool.sleeping--;
        }
    }
    pthread_mutex_unlock(&pool.lock);
    return NULL;
}

/* In a child of fork: the threads stayed with the parent, and the lock with whoever held it there. */
static void forget(void) {
    pthread_mutex_init(&pool.lock, NULL);
    pthread_cond_init(&pool.wake, NULL);
    pthread_cond_init(&pool.done, NULL);
    pool.calls = NULL;
    pool.callers = pool.helping = pool.workers = pool.sleeping = pool.waiting = 0;
}

/* Before the code of the threads is unmapped, and at exit. */
__attribute__((destructor)) static void stop(void) {
    uint32_t workers;
    pthread_mutex_lock(&pool.lock);
    pool.closing = 1;
    workers = pool.workers;
    atomic_fetch_add_explicit(&pool.news, 1, memory_order_release);
    pthread_cond_broadcast(&pool.wake);
    pthread_mutex_unlock(&pool.lock);
    for (uint32_t i = 0; i < workers; i++) pthread_join(pool.threads[i], NULL);
}

static void start(uint32_t workers) {
    static const int faults[] = {SIGBUS, SIGSEGV, SIGFPE, SIGILL}; /* a thread's own; blocked, they end the process */
    sigset_t every, before;
    if (workers > BRCI_MAX_THREADS - 1) workers = BRCI_MAX_THREADS - 1;
    if (pool.workers >= workers) return;
    if (!pool.fork_safe && pthread_atfork(NULL, NULL, forget) != 0) return;
    pool.fork_safe = 1;
    sigfillset(&every);
    for (size_t i = 0; i < sizeof faults / sizeof *faults; i++) sigdelset(&every, faults[i]);
    pthread_sigmask(SIG_SETMASK, &every, &before);
    while (pool.workers < workers && pthread_create(&pool.threads[pool.workers], NULL, serve, NULL) == 0)
        pool.workers++;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
}

/* Wakes the threads that the call could use and that are not awake already. */
static void wake_for(const call *c) {
    const uint32_t want = wanted(c), awake = pool.workers - pool.helping - pool.sleeping;
    atomic_fetch_add_explicit(&pool.news, 1, memory_order_release);
    for (uint32_t i = awake; i < want && i - awake < pool.sleeping; i++) pthread_cond_signal(&pool.wake);
}

/* Whether the calling thread is at work here already. */
static int is_inside(pthread_t self) {
    for (const call *c = pool.calls; c != NULL; c = c->older)
        if (pthread_equal(c->caller, self)) return 1;
    for (uint32_t i = 0; i < pool.workers; i++)
        if (pthread_equal(pool.threads[i], self)) return 1;
    return 0;
}

/* Offers the call to the pool; 0 where the caller does it alone. */
static int enter(call *c) {
    int fine;
    pthread_mutex_lock(&pool.lock);
    fine = !pool.closing && !is_inside(c->caller);
    if (fine) {
        c->older = pool.calls;
        pool.calls = c;
        pool.callers++;
        start(pool.helping + wanted(c));
        wake_for(c);
    }
    pthread_mutex_unlock(&pool.lock);
    return fine;
}

static void leave(call *c) {
    call **at = &pool.calls, *next;
    unsigned helpers;
    while ((helpers = atomic_load_explicit(&c->helpers, memory_order_acquire)) > 0 && spin(&c->helpers, helpers)) {}
    pthread_mutex_lock(&pool.lock);
    pool.waiting++;
    while (atomic_load_explicit(&c->helpers, memory_order_acquire) > 0) pthread_cond_wait(&pool.done, &pool.lock);
    pool.waiting--;
    while (*at != c) at = &(*at)->older;
    *at = c->older;
    pool.callers--;
    next = joinable(); /* there is room for one more thread */
    if (next != NULL) wake_for(next);
    pthread_mutex_unlock(&pool.lock);
}

void brci_parallel(uint32_t parts, int64_t items, brci_work *work, void *job) {
    call c = {.work = work, .job = job, .items = items, .parts = parts, .next = 1};
    int cancel;
    if (parts > 1) {
        c.caller = pthread_self();
        c.threads = default_threads(&c.where);
        if (c.threads < parts) c.threads = parts;
        pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancel); /* helpers hold on to this stack */
        if (enter(&c)) {
            run(&c, 0);
            take_parts(&c);
            leave(&c);
            pthread_setcancelstate(cancel, NULL);
            return;
        }
        pthread_setcancelstate(cancel, NULL);
    }
    for (uint32_t i = 0; i < parts; i++) run(&c, i);
}
