/* SPDX-License-Identifier: Apache-2.0
 * The pool of threads: every part once, from any number of host threads, in forks, nested, without threads. Also run
 * under the thread sanitizer (make test-tsan). */
#include "ops/parallel.h"

#include <dirent.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#define HOSTS 6

/* What the parts of a call did. Assertions are the calling thread's. */
typedef struct ledger {
    atomic_int times[BRCI_MAX_THREADS];
    int64_t first[BRCI_MAX_THREADS], last[BRCI_MAX_THREADS];
    pthread_t thread[BRCI_MAX_THREADS];
    int processor[BRCI_MAX_THREADS];
} ledger;

static void note(void *job, uint32_t part, int64_t first, int64_t last) {
    ledger *l = job;
    atomic_fetch_add(&l->times[part], 1);
    l->first[part] = first;
    l->last[part] = last;
    l->thread[part] = pthread_self();
#if defined(__linux__)
    l->processor[part] = sched_getcpu();
#endif
}

static int covers(const ledger *l, uint32_t parts, int64_t items) {
    int64_t at = 0;
    for (uint32_t i = 0; i < parts; i++) {
        if (atomic_load(&l->times[i]) != 1 || l->first[i] != at || l->last[i] < at) return 0;
        at = l->last[i];
    }
    return at == items;
}

static void every_part_once(void **state) {
    (void)state;
    for (uint32_t parts = 1; parts <= BRCI_MAX_THREADS; parts++)
        for (int64_t items = parts; items < parts + 70; items += 23) {
            ledger l = {0};
            brci_parallel(parts, items, note, &l);
            assert_true(covers(&l, parts, items));
        }
}

static void note_inside(void *job, uint32_t part, int64_t first, int64_t last) {
    ledger *l = job, inner = {0};
    int fine;
    brci_parallel(5, 50, note, &inner);
    fine = covers(&inner, 5, 50);
    for (int i = 0; i < 5; i++) fine &= pthread_equal(inner.thread[i], pthread_self()) != 0;
    if (fine) note(l, part, first, last);
}

static void nested_calls_stay_on_their_thread(void **state) {
    (void)state;
    for (int i = 0; i < 50; i++) {
        ledger l = {0};
        brci_parallel(4, 4, note_inside, &l);
        assert_true(covers(&l, 4, 4));
    }
}

/* Each part waits for the others, ten seconds at most. */
static void meet(void *job, uint32_t part, int64_t first, int64_t last) {
    atomic_int *met = job;
    (void)part, (void)first, (void)last;
    atomic_fetch_add(met, 1);
    for (int i = 0; i < 10000 && atomic_load(met) < 3; i++) nanosleep(&(struct timespec){0, 1000000}, NULL);
    if (atomic_load(met) < 3) atomic_store(met, -3);
}

static void parts_run_at_once(void **state) {
    atomic_int met = 0;
    (void)state;
    brci_parallel(3, 3, meet, &met);
    assert_int_equal(atomic_load(&met), 3);
}

/* The threads at work in the library at once, of all calls. */
static atomic_int at_work, most_at_work;

static void count(void *job, uint32_t part, int64_t first, int64_t last) {
    const int now = atomic_fetch_add(&at_work, 1) + 1;
    int most = atomic_load(&most_at_work);
    while (now > most && !atomic_compare_exchange_weak(&most_at_work, &most, now)) {}
    nanosleep(&(struct timespec){0, 20000}, NULL); /* others come meanwhile */
    note(job, part, first, last);
    atomic_fetch_sub(&at_work, 1);
}

static void *call_often(void *argument) {
    atomic_int *wrong = argument;
    for (uint32_t i = 0; i < 60; i++) {
        const uint32_t parts = 2 + i % 2;
        ledger l = {0};
        brci_parallel(parts, 100, count, &l);
        if (!covers(&l, parts, 100)) atomic_fetch_add(wrong, 1);
    }
    return NULL;
}

static void hosts(void *(*work)(void *), void *argument) {
    pthread_t threads[HOSTS];
    for (int i = 0; i < HOSTS; i++) assert_int_equal(pthread_create(&threads[i], NULL, work, argument), 0);
    for (int i = 0; i < HOSTS; i++) assert_int_equal(pthread_join(threads[i], NULL), 0);
}

/* Six callers of three threads each are not eighteen: beside the callers themselves there are the pool's threads, which
 * may have begun for the first of them when the others come. */
static void callers_do_not_multiply(void **state) {
    atomic_int wrong = 0;
    int allowed = (int)brc_default_threads();
    (void)state;
    allowed = allowed < 3 ? 3 : allowed;
    atomic_store(&most_at_work, 0);
    hosts(call_often, &wrong);
    assert_int_equal(atomic_load(&wrong), 0);
    assert_in_range(atomic_load(&most_at_work), 1, HOSTS + allowed - 1);
}

/* In a child the assertions of cmocka would end in the parent's code: the exit status tells. */
static int child(int (*work)(void)) {
    int status = -1;
    const pid_t pid = fork();
    if (pid == 0) {
        char command[32];
        alarm(60); /* a deadlock ends */
        snprintf(command, sizeof command, "exit %d", work());
        execl("/bin/sh", "sh", "-c", command, (char *)NULL); /* so that valgrind does not count what a child leaves */
        _exit(101);
    }
    assert_true(pid > 0);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 100;
}

static int calls_of_a_child(void) {
    for (int i = 0; i < 20; i++) {
        ledger l = {0};
        brci_parallel(3, 30, note, &l);
        if (!covers(&l, 3, 30)) return 1;
    }
    return 0;
}

static atomic_int enough;

static void *call_until_enough(void *argument) {
    atomic_int *wrong = argument;
    while (!atomic_load(&enough)) {
        ledger l = {0};
        brci_parallel(3, 30, note, &l);
        if (!covers(&l, 3, 30)) atomic_fetch_add(wrong, 1);
        sched_yield();
    }
    return NULL;
}

/* A fork meets the pool in any state: its lock held, threads at work. */
static void forks_amid_calls(void **state) {
    pthread_t threads[2];
    atomic_int wrong = 0;
    int failed = 0;
    (void)state;
    atomic_store(&enough, 0);
    for (int i = 0; i < 2; i++) assert_int_equal(pthread_create(&threads[i], NULL, call_until_enough, &wrong), 0);
    for (int i = 0; i < 20; i++) failed += child(calls_of_a_child);
    atomic_store(&enough, 1);
    for (int i = 0; i < 2; i++) assert_int_equal(pthread_join(threads[i], NULL), 0);
    assert_int_equal(failed, 0);
    assert_int_equal(atomic_load(&wrong), 0);
}

#if defined(__GLIBC__)
/* Stacks larger than the address space: no thread starts. */
static int without_threads(void) {
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    if (pthread_attr_setstacksize(&attributes, (size_t)1 << 50) != 0 || pthread_setattr_default_np(&attributes) != 0)
        return 2;
    ledger l = {0};
    brci_parallel(4, 40, note, &l);
    if (!covers(&l, 4, 40)) return 3;
    for (int i = 0; i < 4; i++)
        if (!pthread_equal(l.thread[i], pthread_self())) return 4;
    return 0;
}

static void no_thread_can_be_started(void **state) {
    (void)state;
    assert_int_equal(child(without_threads), 0);
}
#endif

#if defined(__linux__)
/* Threads that started elsewhere follow their caller. */
static void threads_stay_on_the_callers_processors(void **state) {
    cpu_set_t before, one;
    size_t only = 0;
    int fine = 1;
    (void)state;
    assert_int_equal(sched_getaffinity(0, sizeof before, &before), 0);
    while (!CPU_ISSET(only, &before)) only++;
    CPU_ZERO(&one);
    CPU_SET(only, &one);
    for (int turn = 0; turn < 50; turn++) {
        ledger l = {0}, m = {0};
        if (sched_setaffinity(0, sizeof one, &one) != 0) break;
        brci_parallel(4, 4, count, &l);
        if (sched_setaffinity(0, sizeof before, &before) != 0) break;
        for (int i = 0; i < 4; i++) fine &= l.processor[i] == (int)only;
        brci_parallel(4, 4, count, &m);
        fine &= covers(&l, 4, 4) & covers(&m, 4, 4);
    }
    assert_true(fine);
    assert_int_equal(sched_setaffinity(0, sizeof one, &one), 0);
    const uint32_t threads = getenv("BRECCIA_THREADS") == NULL ? brc_default_threads() : 1;
    assert_int_equal(sched_setaffinity(0, sizeof before, &before), 0);
    assert_int_equal(threads, 1);
}

/* Whether all threads but this one are asleep, as Linux tells it: the state in stat, after the name. */
static int others_sleep(void) {
    DIR *tasks = opendir("/proc/self/task");
    const struct dirent *task;
    int all = tasks != NULL;
    while (all && (task = readdir(tasks)) != NULL) {
        char path[300], line[256] = "";
        const char *name;
        if (atoi(task->d_name) == 0 || atoi(task->d_name) == getpid()) continue;
        snprintf(path, sizeof path, "/proc/self/task/%s/stat", task->d_name);
        FILE *stat = fopen(path, "r");
        if (stat == NULL) continue;
        name = fgets(line, sizeof line, stat) != NULL ? strrchr(line, ')') : NULL;
        all = name != NULL && name[2] == 'S';
        fclose(stat);
    }
    if (tasks != NULL) closedir(tasks);
    return all;
}

static void idle_threads_sleep(void **state) {
    ledger l = {0};
    int asleep = 0;
    (void)state;
    brci_parallel(8, 8, count, &l);
    for (int i = 0; i < 1000 && !asleep; i++) {
        nanosleep(&(struct timespec){0, 10000000}, NULL);
        asleep = others_sleep();
    }
    assert_true(asleep);
}
#endif

/* Casts and products of several hosts with any number of threads, against those of one. */
enum { ROWS = 37, COLS = 8192, FEW = 3 };

static const char *const recipes[] = {"fp8", "mxfp8", "nvfp4", "int4"};
#define RECIPES (sizeof recipes / sizeof *recipes)

typedef struct outcome {
    uint8_t codes[ROWS * COLS], scale[ROWS * COLS / 4];
    float values[ROWS * COLS], product[FEW * ROWS];
} outcome;

static float numbers[ROWS * COLS];
static outcome *expected[RECIPES];

static int compute(size_t which, uint32_t threads, outcome *o) {
    const int64_t shape[2] = {ROWS, COLS}, few[2] = {FEW, COLS}, product_shape[2] = {FEW, ROWS};
    brc_array x = brc_array_of(BRC_F32, 2, shape, numbers), a = brc_array_of(BRC_F32, 2, few, numbers),
              y = brc_array_of(BRC_F32, 2, shape, o->values), c = brc_array_of(BRC_F32, 2, product_shape, o->product);
    const brc_options options = {.size = sizeof options, .threads = threads};
    brc_recipe recipe;
    brc_owned t;
    brc_sizes sizes;
    memset(o, 0, sizeof *o);
    if (brc_recipe_parse(recipes[which], &recipe, NULL) != BRC_OK) return 0;
    if (brc_cast_new(&x, &recipe, &options, NULL, &t, NULL, NULL) != BRC_OK) return 0;
    const brc_product p = {.size = sizeof p,
                           .a = {.plain = &a},
                           .b = {.scaled = &t.tensor, .transposed = 1},
                           .out = &c,
                           .options = &options};
    const int fine = brc_tensor_sizes(&t.tensor, &sizes, NULL) == BRC_OK &&
                     brc_dequantize(&t.tensor, &options, &y, NULL) == BRC_OK && brc_matmul(&p, NULL) == BRC_OK;
    memcpy(o->codes, t.tensor.data, (size_t)sizes.data);
    memcpy(o->scale, t.tensor.scale.data, (size_t)sizes.scale);
    brc_release(&t);
    return fine;
}

static void *compute_often(void *argument) {
    atomic_int *wrong = argument;
    outcome *o = malloc(sizeof *o);
    for (uint32_t i = 0; o != NULL && i < RECIPES; i++) {
        const size_t which = i % RECIPES;
        if (!compute(which, 1 + i * 5 % 9, o) || memcmp(o, expected[which], sizeof *o) != 0) atomic_fetch_add(wrong, 1);
    }
    if (o == NULL) atomic_fetch_add(wrong, 1);
    free(o);
    return NULL;
}

static void same_bits_from_every_thread(void **state) {
    atomic_int wrong = 0;
    uint32_t seed = 3;
    (void)state;
    for (int i = 0; i < ROWS * COLS; i++) {
        seed = seed * 1664525u + 1013904223u;
        numbers[i] = (float)(int32_t)seed * 0x1p-31f;
    }
    for (size_t i = 0; i < RECIPES; i++) {
        expected[i] = malloc(sizeof *expected[i]);
        assert_non_null(expected[i]);
        assert_true(compute(i, 1, expected[i]));
    }
    hosts(compute_often, &wrong);
    for (size_t i = 0; i < RECIPES; i++) free(expected[i]);
    assert_int_equal(atomic_load(&wrong), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_part_once),
        cmocka_unit_test(nested_calls_stay_on_their_thread),
        cmocka_unit_test(parts_run_at_once),
        cmocka_unit_test(callers_do_not_multiply),
        cmocka_unit_test(forks_amid_calls),
#if defined(__GLIBC__)
        cmocka_unit_test(no_thread_can_be_started),
#endif
#if defined(__linux__)
        cmocka_unit_test(threads_stay_on_the_callers_processors),
        cmocka_unit_test(idle_threads_sleep),
#endif
        cmocka_unit_test(same_bits_from_every_thread),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
