/* SPDX-License-Identifier: Apache-2.0
 * What the arrays of a file may hold, by the container's own words. */
#ifndef BRCI_DTYPES_H
#define BRCI_DTYPES_H

#include "core/status.h"

#include <stddef.h>

typedef struct brci_dtype {
    const char *word;
    brc_format format;       /* BRC_NONE: blocks of GGUF */
    int order;               /* safetensors: position in the library's own list; GGUF: the type's number */
    uint32_t numbers, bytes; /* GGUF: of one block */
} brci_dtype;

/* Those of safetensors; NULL where there is none. */
const brci_dtype *brci_dtype_of_word(const char *word);
const brci_dtype *brci_dtype_of_format(brc_format format);
/* Those of GGUF. */
const brci_dtype *brci_gguf_of_word(const char *word);
const brci_dtype *brci_gguf_of_format(brc_format format);
const brci_dtype *brci_gguf_of_number(uint32_t number);

/* Elements and bytes of a whole array of safetensors. `shape` is multiplied from left to right in 64 bits, as the
 * library does, and its dimensions but the zeros must multiply to less than 2^63, so that strides fit. False if
 * something overflows; *bytes is -1 where the bits are not whole bytes. */
int brci_dtype_extent(const brci_dtype *dtype, size_t rank, const int64_t *shape, int64_t *elements, int64_t *bytes);
/* The same of GGUF; *bytes is -1 where the rows are not whole blocks. */
int brci_gguf_extent(const brci_dtype *dtype, size_t rank, const int64_t *shape, int64_t *elements, int64_t *bytes);

#endif
