/* SPDX-License-Identifier: Apache-2.0
 * What the writer knows of an array, and of the kinds of files that it writes. */
#ifndef BRCI_DECLARED_H
#define BRCI_DECLARED_H

#include "container/dtypes.h"
#include "container/extents.h"
#include "container/file.h"
#include "container/grown.h"

/* An array to be written. */
typedef struct brci_declared {
    const char *name;
    const brci_dtype *dtype;
    const int64_t *shape;
    int64_t bytes;
    int64_t offset; /* in the file; known when the header is */
    brci_extents written;
    uint32_t rank, shard;
} brci_declared;

/* How one kind of file is written. */
typedef struct brci_kind {
    const char *name, *ending; /* "safetensors", ".safetensors" */
    const brci_dtype *(*of_format)(brc_format format);
    const brci_dtype *(*of_word)(const char *word);
    int (*extent)(const brci_dtype *dtype, size_t rank, const int64_t *shape, int64_t *elements, int64_t *bytes);
    /* What else must hold of an array, of a pair of the metadata. */
    brc_status (*check_array)(const brci_declared *array, brc_error *err);
    brc_status (*check_pair)(const brci_pair *pair, brc_error *err);
    /* The pair as the file has it: text becomes a number where the format defines the key so. NULL = as it is. */
    brc_status (*type_pair)(brci_arena *arena, brci_pair *pair, brc_error *err);
    /* For qsort: pointers to declared arrays, by shard and then in the order of their data; and pairs, NULL = as they
     * came. */
    int (*order)(const void *left, const void *right);
    int (*pair_order)(const void *left, const void *right);
    /* The bytes before the data of one file; gives its arrays their offsets, and says where the file ends. */
    brc_status (*header)(brci_declared *const *arrays, size_t n, const brci_pair *metadata, size_t n_metadata,
                         brci_grown *header, int64_t *end, brc_error *err);
} brci_kind;

extern const brci_kind brci_safetensors_kind, brci_gguf_kind;

/* A file that may stand in the destination's folder from a checkpoint that was there before, and would be wrong of the
 * new one: BRC_EXISTS where it is there and may not be replaced; else it goes, unless one of that name is declared. */
brc_status brci_writer_replaces(brc_writer *writer, const char *name, brc_error *err);

/* The kind of a single file by its name; NULL = a folder is meant. */
const brci_kind *brci_kind_of(const char *path);

#endif
