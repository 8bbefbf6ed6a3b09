/* SPDX-License-Identifier: Apache-2.0
 * Sums of a product to where the output holds them. */
#ifndef BRCI_FINISH_H
#define BRCI_FINISH_H

#include "cpu/cast.h"

/* Rows [m, m + rows), columns [n, n + cols), at most BRCI_TILE_N, of the result from sums in F32, rows `width` numbers
 * apart: the bias and what is there are added, and stored once rounded. */
void brci_cpu_finish(const brci_kernels *kernels, const brci_multiplication *product, int64_t batch, int64_t m,
                     int64_t n, int64_t rows, int64_t cols, const float *sums, int64_t width);

#endif
