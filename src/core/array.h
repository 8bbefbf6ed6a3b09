/* SPDX-License-Identifier: Apache-2.0 */
#ifndef BRCI_ARRAY_H
#define BRCI_ARRAY_H

#include "core/status.h"

/* A shape as {product of the leading dimensions, rows, cols}. */
typedef struct brci_view {
    int64_t batch, rows, cols;
} brci_view;

brci_view brci_view_of(int rank, const int64_t *shape);
int64_t brci_elements(int rank, const int64_t *shape);

/* Rank, signs and the number of elements: after it, sums and products of the dimensions do not overflow. */
brc_status brci_shape_check(int rank, const int64_t *shape, brc_error *err);

/* A high-precision array that may be read or written; `what` names it in the error. */
brc_status brci_array_check(const brc_array *array, const char *what, brc_error *err);

#endif
