/* SPDX-License-Identifier: Apache-2.0
 * What sharing a call between threads costs and gives. Casts to FP8 (fp8: two passes, mxfp8: one) of growing size, by
 * one thread and by all, interleaved, medians: called again at once, when the pool's threads are still awake, and after
 * a pause, when they sleep. */
#include <breccia/breccia.h>

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { TIMES = 41, LARGEST = 1 << 26 };

static double microseconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e6 + (double)t.tv_nsec * 1e-3;
}

static int by_size(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *times, int n) {
    qsort(times, (size_t)n, sizeof *times, by_size);
    return times[n / 2];
}

static double once(const brc_array *x, const brc_recipe *recipe, uint32_t threads, brc_tensor *t, int64_t pause) {
    const brc_options options = {.size = sizeof options, .threads = threads};
    nanosleep(&(struct timespec){0, pause}, NULL);
    const double start = microseconds();
    if (brc_cast(x, recipe, &options, NULL, t, NULL, NULL) != BRC_OK) abort();
    return microseconds() - start;
}

/* Times of 1 thread and of all, in us. */
static void compare(const char *text, int64_t rows, int64_t cols, float *numbers, int64_t pause, double found[2]) {
    const brc_array x = brc_array_of(BRC_F32, 2, (int64_t[]){rows, cols}, numbers);
    const uint32_t threads[2] = {1, brc_default_threads()};
    double times[2][TIMES];
    brc_recipe recipe;
    brc_owned t;
    const int n = rows * cols > 1 << 24 ? 7 : TIMES;
    if (brc_recipe_parse(text, &recipe, NULL) != BRC_OK) abort();
    if (brc_cast_new(&x, &recipe, NULL, NULL, &t, NULL, NULL) != BRC_OK) abort();
    for (int i = 0; i < n; i++)
        for (int j = 0; j < 2; j++) {
            (void)once(&x, &recipe, threads[j], &t.tensor, 0); /* the caches as this number of threads leaves them */
            times[j][i] = once(&x, &recipe, threads[j], &t.tensor, pause);
        }
    for (int j = 0; j < 2; j++) found[j] = median(times[j], n);
    brc_release(&t);
}

int main(void) {
    float *numbers = malloc(LARGEST * sizeof *numbers);
    if (numbers == NULL) {
        fprintf(stderr, "bench_threads: out of memory\n");
        return 5;
    }
    uint32_t random = 1;
    for (int64_t i = 0; i < LARGEST; i++) {
        random = random * 1664525u + 1013904223u;
        numbers[i] = (float)(int32_t)random * 0x1p-31f;
    }
    printf("casts by 1 and by %" PRIu32 " threads, %s, us\n", brc_default_threads(), brc_isa());
    printf("%-8s %10s | %9s %9s %6s | %9s %9s %6s\n", "recipe", "numbers", "at once 1", "all", "x", "paused 1", "all",
           "x");
    static const char *const recipes[] = {"fp8", "mxfp8"};
    for (size_t i = 0; i < sizeof recipes / sizeof *recipes; i++)
        for (int64_t rows = 32; rows * 1024 <= LARGEST; rows *= rows < 4096 ? 2 : 16) {
            double awake[2], asleep[2];
            compare(recipes[i], rows, 1024, numbers, 0, awake);
            compare(recipes[i], rows, 1024, numbers, 1000000, asleep);
            printf("%-8s %10" PRId64 " | %9.1f %9.1f %6.2f | %9.1f %9.1f %6.2f\n", recipes[i], rows * 1024, awake[0],
                   awake[1], awake[0] / awake[1], asleep[0], asleep[1], asleep[0] / asleep[1]);
        }
    free(numbers);
    return 0;
}
