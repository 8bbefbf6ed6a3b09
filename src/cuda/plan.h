/* SPDX-License-Identifier: Apache-2.0
 *
 * Which kernel, and how: a pure function of the product's shape. */
#ifndef BRCI_CUDA_PLAN_H
#define BRCI_CUDA_PLAN_H

#include <breccia/breccia_cuda.h>

/* A row of kernels.def. units = 0: a GEMM row; else a SMALL row, whose bn is its number of tokens. */
typedef struct brci_row {
    int a, b, mode, team, mw, bn, share, rate, units;
} brci_row;

extern const brci_row brci_rows[];
extern const int brci_row_count;

/* What must hold of any product, whichever kernel runs it. */
brc_status brci_product_check(const brc_cuda_product *p, brc_error *err);
/* Whether a plan, which a caller may have kept or changed, is one that its kernel can follow for this product. */
int brci_plan_fits(const brc_cuda_product *p, const brc_cuda_plan *plan);
/* The mode of kernels.def that a product asks for. */
int brci_product_mode(const brc_cuda_product *p);
/* Whether the tensor copies can address the operands. */
int brci_addressable(const brc_cuda_product *p);

#endif
