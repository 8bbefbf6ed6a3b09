/* SPDX-License-Identifier: Apache-2.0 */
#include "container/grown.h"

#include <stdlib.h>
#include <string.h>

brc_status brci_grow(brci_grown *b, const void *more, size_t length, brc_error *err) {
    if (b->capacity - b->length < length) {
        size_t capacity = 2 * b->capacity + length + 4096;
        char *grown = realloc(b->at, capacity);
        if (grown == NULL) return brci_fail(err, BRC_MEMORY, 0, "no memory for a header");
        b->at = grown;
        b->capacity = capacity;
    }
    if (length > 0) memcpy(b->at + b->length, more, length);
    b->length += length;
    return BRC_OK;
}
