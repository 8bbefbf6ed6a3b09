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
/* The array as a reader sees it; its shape is that of `stored`. */
brc_named_array brci_array_of_stored(const brci_stored *stored, const brci_bytes *bytes);

/* All arrays of a tensor. */
typedef struct brci_packed {
    brci_pool pool;
    brci_store store;
    brci_bytes bytes[BRCI_MAX_PARTS];
} brci_packed;

/* `origin` as in brci_dialect.store. To be freed in any case. */
brc_status brci_pack(const brci_dialect *dialect, const char *name, const brc_tensor *tensor, const brc_entry *origin,
                     brci_packed *packed, brc_error *err);
void brci_packed_free(brci_packed *packed);

/* What the dialect's own reader makes of them. The checkpoint is to be closed, and before it the tensor released, in
 * any case. BRC_UNSUPPORTED where it would not read what was to be written. */
brc_status brci_read_back(brc_dialect dialect, const brci_written *written, brci_packed *packed,
                          brc_checkpoint **checkpoint, brc_owned *owned, brc_error *err);

#endif
