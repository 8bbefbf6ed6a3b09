/* SPDX-License-Identifier: Apache-2.0 */
#include "container/dtypes.h"

#include "breccia/breccia_file.h"

#include <string.h>

enum {
#define DTYPE(word, format) ORDER_##format,
#include "container/dtypes.def"
#undef DTYPE
    DTYPE_COUNT
};

static const brci_dtype dtypes[DTYPE_COUNT] = {
#define DTYPE(word, format) {word, BRC_##format, ORDER_##format, 0, 0},
#include "container/dtypes.def"
#undef DTYPE
};

static const brci_dtype gguf_types[] = {
#define GGUF_TYPE(number, word, format, numbers, bytes) {#word, BRC_##format, number, numbers, bytes},
#include "container/gguf_types.def"
#undef GGUF_TYPE
};
#define GGUF_TYPES (sizeof gguf_types / sizeof *gguf_types)

const brci_dtype *brci_dtype_of_word(const char *word) {
    for (size_t i = 0; i < DTYPE_COUNT; i++)
        if (strcmp(dtypes[i].word, word) == 0) return &dtypes[i];
    return NULL;
}

const brci_dtype *brci_dtype_of_format(brc_format format) {
    for (size_t i = 0; i < DTYPE_COUNT; i++)
        if (dtypes[i].format == format) return &dtypes[i];
    return NULL;
}

const brci_dtype *brci_gguf_of_word(const char *word) {
    for (size_t i = 0; i < GGUF_TYPES; i++)
        if (strcmp(gguf_types[i].word, word) == 0) return &gguf_types[i];
    return NULL;
}

const brci_dtype *brci_gguf_of_format(brc_format format) {
    for (size_t i = 0; i < GGUF_TYPES && format != BRC_NONE; i++)
        if (gguf_types[i].format == format) return &gguf_types[i];
    return NULL;
}

const brci_dtype *brci_gguf_of_number(uint32_t number) {
    for (size_t i = 0; i < GGUF_TYPES; i++)
        if ((uint32_t)gguf_types[i].order == number) return &gguf_types[i];
    return NULL;
}

/* Elements of a shape; false where they, or those of the same shape without its zeros, exceed 63 bits. */
static int count_elements(size_t rank, const int64_t *shape, uint64_t *count) {
    int64_t product = 1;
    *count = 1;
    for (size_t i = 0; i < rank; i++) {
        if (shape[i] < 0 || __builtin_mul_overflow(*count, (uint64_t)shape[i], count)) return 0;
        if (shape[i] > 0 && __builtin_mul_overflow(product, shape[i], &product)) return 0;
    }
    return 1;
}

int brci_gguf_extent(const brci_dtype *dtype, size_t rank, const int64_t *shape, int64_t *elements, int64_t *bytes) {
    uint64_t count;
    if (!count_elements(rank, shape, &count)) return 0;
    *elements = (int64_t)count;
    *bytes = -1;
    if ((rank > 0 ? shape[rank - 1] : 1) % dtype->numbers != 0) return 1;
    return !__builtin_mul_overflow(*elements / dtype->numbers, (int64_t)dtype->bytes, bytes);
}

int brci_dtype_extent(const brci_dtype *dtype, size_t rank, const int64_t *shape, int64_t *elements, int64_t *bytes) {
    uint64_t count, bits;
    if (!count_elements(rank, shape, &count)) return 0;
    if (__builtin_mul_overflow(count, (uint64_t)brc_format_get(dtype->format)->bits, &bits)) return 0;
    *elements = (int64_t)count; /* at most `product` */
    *bytes = bits % 8 == 0 ? (int64_t)(bits / 8) : -1;
    return 1;
}

const char *brc_safetensors_dtype(brc_format format) {
    const brci_dtype *dtype = brci_dtype_of_format(format);
    return dtype == NULL ? NULL : dtype->word;
}

brc_format brc_safetensors_format(const char *dtype) {
    const brci_dtype *found = dtype == NULL ? NULL : brci_dtype_of_word(dtype);
    return found == NULL ? BRC_NONE : found->format;
}
