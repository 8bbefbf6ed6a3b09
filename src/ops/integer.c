/* SPDX-License-Identifier: Apache-2.0 */
#include "ops/integer.h"

#include "cpu/integer.h"
#include "ops/parallel.h"

#include <stdlib.h>

#define MULTIPLICATIONS 64 /* of bytes, that cost about as much as casting an element */

typedef struct job {
    brci_integer_product plan;
    int64_t batch, row, rows;
    char *a, *b; /* b: one part for each thread */
} job;

static void pack(void *argument, uint32_t part, int64_t first, int64_t last) {
    const job *j = argument;
    (void)part;
    brci_cpu_integer_pack(&j->plan, j->batch, j->row, first, last, j->a);
}

static void fill(void *argument, uint32_t part, int64_t first, int64_t last) {
    const job *j = argument;
    brci_cpu_integer_multiply(&j->plan, j->batch, j->row, j->rows, first, last, j->a, j->b + part * j->plan.b_bytes);
}

static int64_t groups_of(int64_t n, int64_t step) { return (n + step - 1) / step; }

int brci_integer_multiply(const brci_kernels *kernels, const brci_multiplication *p, const brc_options *options) {
    /* The product of three sizes may exceed 63 bits. */
    const double multiplications =
        (double)p->m * (double)p->n * (double)p->k / MULTIPLICATIONS + (double)p->n * (double)p->k;
    const int64_t panels = groups_of(p->n, BRCI_INTEGER_COLUMNS),
                  work = multiplications < 1e18 ? (int64_t)multiplications : INT64_MAX;
    const uint32_t parts = brci_parts(options, panels, work);
    job j = {.batch = 0};
    if (!brci_cpu_integer_fits(kernels, p, parts, &j.plan)) return 0;
    j.a = aligned_alloc(64, (size_t)(j.plan.a_bytes + parts * j.plan.b_bytes));
    if (j.a == NULL) return 0;
    j.b = j.a + j.plan.a_bytes;
    for (; j.batch < p->batch; j.batch++)
        for (j.row = 0; j.row < p->m; j.row += j.plan.rows) {
            j.rows = p->m - j.row < j.plan.rows ? p->m - j.row : j.plan.rows;
            const int64_t groups = groups_of(j.rows, BRCI_INTEGER_ROWS);
            brci_parallel(brci_parts(options, groups, j.rows * p->k), groups, pack, &j);
            brci_parallel(parts, panels, fill, &j);
        }
    free(j.a);
    return 1;
}
