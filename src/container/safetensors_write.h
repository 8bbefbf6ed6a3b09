/* SPDX-License-Identifier: Apache-2.0
 * The index of a safetensors checkpoint; its headers are behind brci_safetensors_kind. */
#ifndef BRCI_SAFETENSORS_WRITE_H
#define BRCI_SAFETENSORS_WRITE_H

#include "container/declared.h"
#include "container/grown.h"

/* model.safetensors.index.json; `arrays` are sorted by name, `shards` are file names, `total` is the bytes of all
 * arrays. */
brc_status brci_index_text(const brci_declared *const *arrays, size_t n, const char *const *shards, int64_t total,
                           brci_grown *index, brc_error *err);

#endif
