/* SPDX-License-Identifier: Apache-2.0
 * Products whose codes are integers times one number of their block (INT8 activations; INT8, INT4, E2M1 weights, E2M1
 * counted in halves): the dots inside a block are exact 32-bit integers, blocks are added as floats.
 *
 * The error of an element is at most (blocks + 5) * 2^-24 * sum(|a||b|): what dequantization rounds is not rounded, the
 * product of two scales, the dot as a float and each block's sum are. That is below the K*2^-24 that is promised. */
#ifndef BRCI_INTEGER_H
#define BRCI_INTEGER_H

#include "cpu/cast.h"

typedef struct brci_integer_product {
    const brci_kernels *kernels;
    const brci_multiplication *product;
    brci_integer_format a, b;
    int64_t depth;              /* of packed k: a multiple of 64 */
    int64_t length, blocks;     /* blocks of k in which neither side's scale changes */
    int64_t a_every, b_every;   /* blocks that share a scale, where it changes along k at all */
    int64_t a_scales, b_scales; /* numbers of a scale along k; 0: it does not change */
    int64_t rows;               /* of a that are packed at a time: a multiple of 16 */
    int64_t columns;            /* of b that a thread packs at a time: a multiple of 32 */
    int64_t a_bytes, b_bytes;   /* of packed a; of a thread's memory */
} brci_integer_product;

/* Whether a product is done so: both sides stored with k along the rows, integer codes, scale blocks of which one
 * side's hold a whole number of the other's. Fills `plan`, for `threads` threads. */
int brci_cpu_integer_fits(const brci_kernels *kernels, const brci_multiplication *product, int64_t threads,
                          brci_integer_product *plan);

/* Packs groups [first, last) of 16 rows of matrix `batch`, counted from row `row`. */
void brci_cpu_integer_pack(const brci_integer_product *plan, int64_t batch, int64_t row, int64_t first, int64_t last,
                           void *a);

/* Rows [row, row + rows) of the result in panels [first, last) of 32 columns; `b` is this thread's memory. */
void brci_cpu_integer_multiply(const brci_integer_product *plan, int64_t batch, int64_t row, int64_t rows,
                               int64_t first, int64_t last, const void *a, void *b);

#endif
