/* SPDX-License-Identifier: Apache-2.0
 * The reference kernels: plain loops that define every result. They take checked arguments, work on a range of the rows
 * or blocks so that several threads can share a call, and expect the floating-point environment of core/environment.h.
 */
#ifndef BRCI_REFERENCE_H
#define BRCI_REFERENCE_H

#include "reference/scale.h"
#include "reference/source.h"

/* Extent of rows [first, last), counted over batch * rows. */
void brci_reference_extent(const brci_source *source, int64_t first, int64_t last, brci_extent *extent);

/* Casts block rows [first, last), counted over the block's batch * rows; `met` sums what they hold. */
void brci_reference_cast(const brci_casting *casting, const brci_source *source, brc_tensor *dst, int64_t first,
                         int64_t last, brci_extent *met);

/* Rows [first, last) of a source into a high-precision array of the same shape. */
void brci_reference_store(const brci_source *source, brc_array *dst, int64_t first, int64_t last);

/* A product, its operands resolved: a[batch, m, k] * b[batch, k, n], `transposed` applied on reading. */
typedef struct brci_multiplication {
    brci_source a, b;
    int transpose_a, transpose_b, accumulate;
    int64_t batch, m, n, k;
    int64_t a_batch, b_batch; /* 1 = the same for all */
    const brc_array *bias;
    brc_array *out;
} brci_multiplication;

#define BRCI_TILE 64 /* rows and columns of the result that are computed together */

int64_t brci_tiles(const brci_multiplication *product);
void brci_reference_matmul(const brci_multiplication *product, int64_t first_tile, int64_t last_tile);

#endif
