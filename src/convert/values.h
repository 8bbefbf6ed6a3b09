/* SPDX-License-Identifier: Apache-2.0
 * The values of a tensor as doubles, whatever stores them, and the sums of what two of them differ by. Sums are in
 * double, in one order, so that the figures do not depend on the number of threads. */
#ifndef BRCI_VALUES_H
#define BRCI_VALUES_H

#include "convert/measure.h"
#include "convert/slabs.h"

/* Of the tensor, or where that is NULL of the array: plain arrays are dense and decoded where they lie. */
typedef struct brci_values {
    const brc_tensor *tensor;
    const brc_array *array;
    const float *columns; /* of a tensor: what each column is multiplied by; NULL = nothing. Set by the caller */
    brci_slabs slabs;     /* the rows of the tensor that are decoded */
} brci_values;

brc_status brci_values_begin(brci_values *values, const brc_tensor *tensor, const brc_array *array, uint32_t threads,
                             brc_error *err);
void brci_values_end(brci_values *values);

/* Sums of a difference, before the logarithms. */
typedef struct brci_sums {
    int64_t elements; /* how many there are: set by the caller */
    int64_t saturated, flushed, nonfinite;
    brci_sum signal, noise, other, product; /* other: of b*b; product: of a*b */
    double max_absolute, max_relative;
    double largest; /* magnitude of a */
} brci_sums;

/* a = the reference, b = what is judged: of the same shape, both begun anew. */
brc_status brci_sums_of(brci_values *a, brci_values *b, brci_sums *sums, brc_error *err);
void brci_sums_add(brci_sums *total, const brci_sums *sums);

#endif
