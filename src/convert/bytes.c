/* SPDX-License-Identifier: Apache-2.0 */
#include "convert/bytes.h"

#include <stdlib.h>
#include <string.h>

/* Rows with bytes between them become neighbours. */
static void close_rows(const brc_tensor *t, uint8_t *to, int64_t n) {
    const int64_t row = brc_row_bytes((brc_format)t->format, t->shape[t->rank - 1]);
    const uint8_t *from = t->data;
    for (int64_t at = 0; at < n; at += row, from += t->row_pitch) memcpy(to + at, from, (size_t)row);
}

static int has_gaps(const brci_stored *s, const brc_tensor *t) {
    return s->buffer == BRCI_DATA && t->row_pitch != brc_row_bytes((brc_format)t->format, t->shape[t->rank - 1]);
}

brc_status brci_bytes_of(const brci_stored *s, const brc_tensor *t, brci_bytes *bytes, brc_error *err) {
    const void *const buffers[] = {[BRCI_DATA] = t->data,
                                   [BRCI_SCALE] = t->scale.data,
                                   [BRCI_GLOBAL] = t->global.data,
                                   [BRCI_ZERO] = t->zero.data,
                                   [BRCI_GROUP_INDEX] = t->group_index};
    *bytes = (brci_bytes){.at = s->bytes, .n = brci_stored_bytes(s)};
    if (s->bytes != NULL) return BRC_OK;
    if (s->pack == NULL && !has_gaps(s, t)) {
        bytes->at = buffers[s->buffer];
        return BRC_OK;
    }
    bytes->at = bytes->memory = malloc((size_t)bytes->n + 1);
    if (bytes->memory == NULL) return brci_fail(err, BRC_MEMORY, 0, "out of memory: %lld bytes", (long long)bytes->n);
    if (s->pack != NULL) return s->pack(t, s, bytes->memory, err);
    close_rows(t, bytes->memory, bytes->n);
    return BRC_OK;
}

void brci_bytes_free(brci_bytes *bytes) { free(bytes->memory); }
