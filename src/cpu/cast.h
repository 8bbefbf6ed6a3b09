/* SPDX-License-Identifier: Apache-2.0
 * Casts and dequantizes with the vector kernels: walks a tensor in pieces that stay in the first caches. */
#ifndef BRCI_CPU_CAST_H
#define BRCI_CPU_CAST_H

#include "cpu/kernels.h"
#include "reference/reference.h"

/* Whether the kernels serve this cast: rows of F32, F16 or BF16 without gaps, or a tensor they can read; blocks that
 * start on a byte. */
int brci_cpu_cast_fits(const brci_source *source, const brc_tensor *dst);

/* As brci_reference_cast. */
void brci_cpu_cast(const brci_kernels *kernels, const brci_casting *casting, const brci_source *source, brc_tensor *dst,
                   int64_t first, int64_t last, brci_extent *met);

/* One scale for the whole tensor, in two steps that threads share: rows [first, last) are measured, and, once the scale
 * is chosen, encoded. Measuring returns 0 where NaN or infinity was met: then nothing is known. The ends are measured
 * where dst->recipe needs them. */
int brci_cpu_measure(const brci_kernels *kernels, const brci_source *source, const brc_tensor *dst, int64_t first,
                     int64_t last, brci_extent *extent);
void brci_cpu_encode(const brci_kernels *kernels, const brci_source *source, brc_tensor *dst, int64_t first,
                     int64_t last, const brci_scaling *scaling);

/* Both in one, for a scale that does not depend on what is measured. */
int brci_cpu_measure_and_encode(const brci_kernels *kernels, const brci_source *source, brc_tensor *dst, int64_t first,
                                int64_t last, const brci_scaling *scaling, brci_extent *extent);

/* `count` values of a row from column `col` on (a multiple of 8), as brci_read; `source` as for brci_cpu_read_fits. */
int brci_cpu_read_fits(const brci_source *source);
void brci_cpu_read(const brci_kernels *kernels, const brci_source *source, int64_t batch, int64_t row, int64_t col,
                   int64_t count, float *out);

/* n numbers of a table from number `first` on. */
void brci_cpu_numbers(const brci_kernels *kernels, const brc_table *table, int64_t first, int64_t n, float *out);

int brci_cpu_store_fits(const brc_tensor *src, const brc_array *dst);

/* As brci_reference_store, for a tensor. */
void brci_cpu_store(const brci_kernels *kernels, const brc_tensor *src, brc_array *dst, int64_t first, int64_t last);

#endif
