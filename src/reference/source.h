/* SPDX-License-Identifier: Apache-2.0
 * What an operation reads: a plain array or a scaled tensor, as floats. */
#ifndef BRCI_SOURCE_H
#define BRCI_SOURCE_H

#include "core/tensor.h"

typedef struct brci_source {
    const brc_array *array; /* one of the two */
    const brc_tensor *tensor;
    brci_view view;
} brci_source;

brci_source brci_source_array(const brc_array *array);
brci_source brci_source_tensor(const brc_tensor *tensor);

/* `count` neighbouring values of a row, from column `col` on. */
void brci_read(const brci_source *source, int64_t batch, int64_t row, int64_t col, int64_t count, float *out);

/* Where an element of a strided array lies, in elements from its data pointer. */
int64_t brci_offset(const brc_array *array, int64_t batch, int64_t row, int64_t col);

#endif
