/* SPDX-License-Identifier: Apache-2.0
 * Every finite float through every vector encoder of every instruction set here, on all processors. NaN and infinity
 * are the reference's. usage: test_cpu_exhaustive_encode [format..]; with BRECCIA_TEST_SHARE=n every n-th piece of
 * 65536. bench/cpu/NOTES.md says how long it takes. */
#include "encoders.h"

#include "ops/parallel.h"

#include <stdlib.h>
#include <time.h>

#define CHUNKS (((int64_t)1 << 32) / CHUNK)

typedef struct sweep {
    const brc_format_info *format;
    int64_t share;
    char text[BRCI_MAX_THREADS][160]; /* of each part, what is wrong */
} sweep;

static void walk(void *job, uint32_t part, int64_t first, int64_t last) {
    sweep *s = job;
    float *x = malloc(CHUNK * sizeof *x);
    int fine = x != NULL;
    for (int64_t chunk = first; fine && chunk < last; chunk++) {
        const uint32_t base = (uint32_t)(chunk * CHUNK);
        if (chunk % s->share != 0 || (base & 0x7FFFFFFFu) >= BRCI_F32_INFINITY) continue;
        for (uint32_t i = 0; i < CHUNK; i++) x[i] = brci_float(base + i);
        fine = agree(s->format, x, CHUNK, s->text[part]);
    }
    if (x == NULL) snprintf(s->text[part], sizeof s->text[part], "out of memory");
    free(x);
}

static int is_wanted(const char *name, int count, char **words) {
    for (int i = 1; i < count; i++)
        if (strcmp(words[i], name) == 0) return 1;
    return count <= 1;
}

int main(int count, char **words) {
    const char *text = getenv("BRECCIA_TEST_SHARE");
    const int64_t share = text != NULL && atol(text) > 1 ? atol(text) : 1;
    int failed = 0, done = 0;
    for (unsigned id = 1; id < BRC_FORMAT_COUNT; id++) {
        sweep s = {.format = brci_format(id), .share = share};
        struct timespec began, ended;
        if (!is_encoded(s.format) || !is_wanted(s.format->name, count, words)) continue;
        clock_gettime(CLOCK_MONOTONIC, &began);
        brci_parallel(brc_default_threads(), CHUNKS, walk, &s);
        clock_gettime(CLOCK_MONOTONIC, &ended);
        for (uint32_t part = 0; part < BRCI_MAX_THREADS; part++)
            if (s.text[part][0] != 0) failed = printf("%s\n", s.text[part]);
        printf("%s: 2^32 floats / %ld, %ld s\n", s.format->name, (long)share, (long)(ended.tv_sec - began.tv_sec));
        fflush(stdout);
        done++;
    }
    return failed != 0 || done == 0;
}
