/* SPDX-License-Identifier: Apache-2.0 */
#include "container/extents.h"

#include "container/file.h"

#include <stdlib.h>
#include <string.h>

/* The first range that ends behind `begin`. */
static size_t position_of(const brci_extents *e, int64_t begin) {
    size_t low = 0, high = e->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (e->items[middle].end <= begin) low = middle + 1;
        else high = middle;
    }
    return low;
}

brc_status brci_extents_add(brci_extents *e, int64_t begin, int64_t end, brc_error *err) {
    size_t i = position_of(e, begin);
    int left = i > 0 && e->items[i - 1].end == begin, right = i < e->count && e->items[i].begin == end;
    if (begin == end) return BRC_OK;
    if (i < e->count && e->items[i].begin < end)
        return brci_fail(err, BRC_EXISTS, 0, "bytes %lld to %lld are there already", (long long)begin, (long long)end);
    if (left && right) {
        e->items[i - 1].end = e->items[i].end;
        memmove(&e->items[i], &e->items[i + 1], (--e->count - i) * sizeof *e->items);
    } else if (left) {
        e->items[i - 1].end = end;
    } else if (right) {
        e->items[i].begin = begin;
    } else {
        TRY(brci_room(&e->items, &e->capacity, e->count, sizeof *e->items, err));
        memmove(&e->items[i + 1], &e->items[i], (e->count++ - i) * sizeof *e->items);
        e->items[i] = (struct brci_extent){begin, end};
    }
    return BRC_OK;
}

int64_t brci_extents_bytes(const brci_extents *e) {
    int64_t bytes = 0;
    for (size_t i = 0; i < e->count; i++) bytes += e->items[i].end - e->items[i].begin;
    return bytes;
}

void brci_extents_free(brci_extents *e) {
    free(e->items);
    *e = (brci_extents){0};
}
