/* SPDX-License-Identifier: Apache-2.0
 * A scaled tensor's values as F32, some rows at a time, so that memory does not grow with the tensor.
 *
 *     brci_slabs s;
 *     TRY(brci_slabs_begin(&s, tensor, threads, err));
 *     while ((status = brci_slabs_next(&s, err)) == BRC_OK && s.rows > 0) use(s.x, s.rows * s.cols);
 *     brci_slabs_end(&s); */
#ifndef BRCI_SLABS_H
#define BRCI_SLABS_H

#include "core/status.h"

typedef struct brci_slabs {
    const brc_tensor *tensor;
    brc_options options;
    int64_t n_rows, cols; /* of the tensor; rows of all matrices together */
    int64_t matrix, most; /* rows of one matrix, of one slab */
    int64_t first, rows;  /* the current slab; rows 0 = none, or past the end */
    float *x;             /* its values, dense */
} brci_slabs;

brc_status brci_slabs_begin(brci_slabs *s, const brc_tensor *tensor, uint32_t threads, brc_error *err);
brc_status brci_slabs_next(brci_slabs *s, brc_error *err);
void brci_slabs_end(brci_slabs *s);

#endif
