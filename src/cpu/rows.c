/* SPDX-License-Identifier: Apache-2.0
 * Few rows of a: rows of a transposed b (the result's columns) are read once and multiplied as they come. */
#include "cpu/finish.h"
#include "cpu/way.h"

#define PIECE 256 /* of k at a time */
#define ROWS 4    /* of a, up to which b is not worth packing */

static int serves(const brci_job *job, brci_needs *needs) {
    const brci_multiplication *p = job->product;
    *needs = (brci_needs){.rounds = p->batch, .multiply = p->n};
    return p->k > 0 && p->m <= ROWS && p->transpose_b && !p->transpose_a && brci_cpu_read_fits(&p->a) &&
           brci_cpu_read_fits(&p->b);
}

static void multiply(const brci_job *job, uint32_t part, int64_t first, int64_t last) {
    const brci_multiplication *p = job->product;
    const int64_t a = p->a_batch == 1 ? 0 : job->round, b = p->b_batch == 1 ? 0 : job->round;
    float x[PIECE], w[PIECE];
    (void)part;
    for (int64_t n = first; n < last; n++) {
        float sums[ROWS] = {0};
        for (int64_t k = 0; k < p->k; k += PIECE) {
            const int64_t count = brci_least(PIECE, p->k - k);
            brci_cpu_read(job->kernels, &p->b, b, n, k, count, w);
            for (int64_t m = 0; m < p->m; m++) {
                brci_cpu_read(job->kernels, &p->a, a, m, k, count, x);
                sums[m] += job->kernels->dot(x, w, count);
            }
        }
        brci_cpu_finish(job->kernels, p, job->round, 0, n, p->m, 1, sums, 1);
    }
}

const brci_way brci_way_rows = {.serves = serves, .multiply = multiply};
