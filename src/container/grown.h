/* SPDX-License-Identifier: Apache-2.0
 * Bytes that grow at their end. */
#ifndef BRCI_GROWN_H
#define BRCI_GROWN_H

#include "core/status.h"

#include <stddef.h>

/* Zero-initialize; free(bytes.at) when done. */
typedef struct brci_grown {
    char *at;
    size_t length, capacity;
} brci_grown;

brc_status brci_grow(brci_grown *bytes, const void *more, size_t length, brc_error *err);

#endif
