/* SPDX-License-Identifier: Apache-2.0
 * Products in F32: both operands are dequantized into packed panels, tiles of the result stay in registers for all of
 * k. */
#ifndef BRCI_CPU_MATMUL_H
#define BRCI_CPU_MATMUL_H

#include "cpu/cast.h"

/* Whether both operands can be read by the kernels. */
int brci_cpu_matmul_fits(const brci_multiplication *product);

/* Columns of the result that share one packing of b, and bytes of that packing and of one thread's part of a. */
typedef struct brci_slab {
    int64_t columns, b_bytes, a_bytes, rows; /* rows: of a that a thread packs at once */
} brci_slab;

/* 0 where k is too long for packing. */
int brci_cpu_slab(const brci_kernels *kernels, const brci_multiplication *product, brci_slab *packing);

/* Packs panels [first, last) of `tile_n` columns, counted from column `column` of matrix `batch`. */
void brci_cpu_pack(const brci_kernels *kernels, const brci_multiplication *product, int64_t batch, int64_t column,
                   int64_t first, int64_t last, float *b);

/* Rows [first, last) of the result, columns [column, column_end), from packed b; `a` is this thread's memory. */
void brci_cpu_multiply(const brci_kernels *kernels, const brci_multiplication *product, int64_t batch, int64_t column,
                       int64_t column_end, int64_t first, int64_t last, const float *b, float *a, int64_t rows);

/* Few rows of a: rows [first, last) of a transposed b (its columns) are read once and multiplied as they come. */
void brci_cpu_stream(const brci_kernels *kernels, const brci_multiplication *product, int64_t batch, int64_t first,
                     int64_t last);

/* Rows [m, m + rows), columns [n, n + cols) of the result from sums in F32, rows `width` numbers apart: the bias and
 * what is there are added, and stored once rounded. */
void brci_cpu_finish(const brci_multiplication *product, int64_t batch, int64_t m, int64_t n, int64_t rows,
                     int64_t cols, const float *sums, int64_t width);

#define BRCI_STREAM_ROWS 4 /* of a, up to which b is streamed instead of packed */

#endif
