/* SPDX-License-Identifier: Apache-2.0
 * Which bytes of an array have been written. */
#ifndef BRCI_EXTENTS_H
#define BRCI_EXTENTS_H

#include "core/status.h"

#include <stddef.h>

/* Disjoint ranges of bytes in rising order, none touching another. Zero-initialize. */
typedef struct brci_extents {
    struct brci_extent {
        int64_t begin, end;
    } * items;
    size_t count, capacity;
} brci_extents;

/* Adds [begin, end); BRC_EXISTS where a part of it is there already. */
brc_status brci_extents_add(brci_extents *extents, int64_t begin, int64_t end, brc_error *err);
/* How many bytes are there. */
int64_t brci_extents_bytes(const brci_extents *extents);
void brci_extents_free(brci_extents *extents);

#endif
