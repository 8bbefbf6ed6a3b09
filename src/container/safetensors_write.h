/* SPDX-License-Identifier: Apache-2.0
 * The texts of a safetensors checkpoint: headers and the index. */
#ifndef BRCI_SAFETENSORS_WRITE_H
#define BRCI_SAFETENSORS_WRITE_H

#include "container/dtypes.h"
#include "container/extents.h"
#include "container/file.h"

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

/* Grown text. */
typedef struct brci_text {
    char *text;
    size_t length, capacity;
} brci_text;

/* Length and JSON of one shard's header, padded to 8 bytes, ready for the file; `arrays` are those of the shard, in the
 * order of their data, and get their offsets. `metadata` is sorted by key. */
brc_status brci_header_text(brci_declared *const *arrays, size_t n, const brci_pair *metadata, size_t n_metadata,
                            brci_text *header, brc_error *err);
/* The order of the Rust library's writer: largest alignment first, then by name. */
int brci_data_order(const brci_declared *a, const brci_declared *b);

/* model.safetensors.index.json; `arrays` are sorted by name, `shards` are file names, `total` is the bytes of all
 * arrays. */
brc_status brci_index_text(const brci_declared *const *arrays, size_t n, const char *const *shards, int64_t total,
                           brci_text *index, brc_error *err);

#endif
