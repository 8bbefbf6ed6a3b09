/* SPDX-License-Identifier: Apache-2.0
 * The bytes of an array as a dialect stores it. */
#ifndef BRCI_BYTES_H
#define BRCI_BYTES_H

#include "core/status.h"
#include "dialect/dialect.h"

typedef struct brci_bytes {
    const void *at;
    int64_t n;
    void *memory; /* of packed bytes; NULL = they lie in the tensor, the pool or the map */
} brci_bytes;

brc_status brci_bytes_of(const brci_stored *stored, const brc_tensor *tensor, brci_bytes *bytes, brc_error *err);
void brci_bytes_free(brci_bytes *bytes);

#endif
