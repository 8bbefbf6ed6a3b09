/* SPDX-License-Identifier: Apache-2.0
 * One side of a product as F32, in the order a kernel reads it. */
#ifndef BRCI_CPU_SIDE_H
#define BRCI_CPU_SIDE_H

#include "cpu/cast.h"

/* As brci_cpu_read, but of any side. `col` is a multiple of 8. */
void brci_read_side(const brci_kernels *kernels, const brci_source *side, int64_t batch, int64_t row, int64_t col,
                    int64_t count, float *out);

/* panel[k][i] = side[outer + i][first + k], i < outers, k < depth; columns of the panel up to `width` are 0. `along`: k
 * runs along the stored rows. `first` is a multiple of 8. */
void brci_pack_panel(const brci_kernels *kernels, const brci_source *side, int64_t batch, int along, int64_t outer,
                     int64_t outers, int64_t first, int64_t depth, int64_t width, float *panel);

#endif
