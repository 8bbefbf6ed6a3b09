/* SPDX-License-Identifier: Apache-2.0
 * Shapes of the tables that lie beside a tensor's data. */
#include "dialect/dialect.h"

#include <stdlib.h>
#include <string.h>

brc_status brci_table_shape(const brc_tensor *tensor, brc_block block, int *rank, int64_t shape[BRC_MAX_RANK],
                            brc_error *err) {
    int64_t counts[3];
    int leading = tensor->rank > 2 ? tensor->rank - 2 : 0, n = 0;
    TRY(brc_block_counts(tensor->rank, tensor->shape, block, counts, err));
    *rank = 0;
    if (block.batch == 0 && block.rows == 0 && block.cols == 0) return BRC_OK;
    for (; n < leading; n++) shape[n] = block.batch == 1 ? tensor->shape[n] : 1;
    if (block.batch > 1 && leading > 0) shape[leading - 1] = counts[0];
    if (tensor->rank >= 2) shape[n++] = counts[1];
    shape[n++] = counts[2];
    *rank = n;
    return BRC_OK;
}

int brci_same_shape(int64_t rank_a, const int64_t *a, int64_t rank_b, const int64_t *b) {
    return rank_a == rank_b && (rank_a == 0 || memcmp(a, b, (size_t)rank_a * sizeof *a) == 0);
}

static void release(brc_owned *owned) {
    free(owned->memory);
    *owned = (brc_owned){.tensor = {.size = sizeof owned->tensor}};
}

brc_status brci_owned_new(const brc_tensor *tensor, const brc_sizes *sizes, brc_owned *owned, brc_error *err) {
    size_t room = ((size_t)sizes->total + 127) / 64 * 64; /* aligned_alloc wants a multiple, and never nothing */
    void *memory = aligned_alloc(64, room);
    if (memory == NULL) return brci_fail(err, BRC_MEMORY, 0, "out of memory: %lld bytes", (long long)sizes->total);
    *owned = (brc_owned){.tensor = *tensor, .memory = memory, .release = release};
    brc_tensor_bind(&owned->tensor, sizes, memory);
    return BRC_OK;
}
