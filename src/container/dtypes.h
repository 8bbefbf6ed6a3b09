/* SPDX-License-Identifier: Apache-2.0
 * Number formats as safetensors names them. */
#ifndef BRCI_DTYPES_H
#define BRCI_DTYPES_H

#include "core/status.h"

#include <stddef.h>

typedef struct brci_dtype {
    const char *word;
    brc_format format;
    int order; /* position in the library's own list */
} brci_dtype;

/* NULL where there is none. */
const brci_dtype *brci_dtype_of_word(const char *word);
const brci_dtype *brci_dtype_of_format(brc_format format);

/* Elements and bytes of a whole array. `shape` is multiplied from left to right in 64 bits, as the library does, and
 * its dimensions but the zeros must multiply to less than 2^63, so that strides fit. False if something overflows;
 * *bytes is -1 where the bits are not whole bytes. */
int brci_dtype_extent(const brci_dtype *dtype, size_t rank, const int64_t *shape, int64_t *elements, int64_t *bytes);

#endif
