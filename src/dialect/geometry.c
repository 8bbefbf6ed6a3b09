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

brc_layout brci_layout_of(brc_block block, int hardware) {
    if (block.rows == 0 && block.cols == 0) return BRC_PER_TENSOR;
    if (block.rows == 0) return BRC_PER_COLUMN;
    if (block.rows == 1 && block.cols == 0) return BRC_PER_CHANNEL;
    return block.rows == 1 && !hardware ? BRC_PER_BLOCK_K : BRC_PER_BLOCK_MN;
}

static int is_one(const brc_named_array *a) { return a->rank == 0 || (a->rank == 1 && a->shape[0] == 1); }

int brci_table_fits(const brc_tensor *tensor, brc_block block, const brc_named_array *array) {
    int64_t shape[BRC_MAX_RANK];
    int rank;
    if (brci_table_shape(tensor, block, &rank, shape, NULL) != BRC_OK) return 0;
    return rank == 0 ? is_one(array) : brci_same_shape(rank, shape, array->rank, array->shape);
}

int brci_guess_block(const brc_tensor *tensor, const brc_named_array *scale, brc_block *block) {
    const int64_t columns = tensor->shape[tensor->rank - 1];
    const brc_block square = {1, 128, 128};
    *block = (brc_block){0, 0, 0};
    if (is_one(scale)) return 1;
    if (scale->rank != tensor->rank || scale->shape[scale->rank - 1] < 1) return 0;
    const int64_t count = scale->shape[scale->rank - 1], group = columns / count;
    *block = (brc_block){1, 1, count == 1 || group > INT32_MAX ? 0 : (uint32_t)group};
    const int usual = count == 1 || (columns % count == 0 && group >= 8 && (group & (group - 1)) == 0);
    if (usual && brci_table_fits(tensor, *block, scale)) return 1;
    *block = square;
    return brci_table_fits(tensor, square, scale);
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

static int64_t table_bytes(const brc_tensor *tensor, const brc_table *table) {
    int64_t counts[3];
    if (table->format == BRC_NONE ||
        brc_block_counts(tensor->rank, tensor->shape, table->block, counts, NULL) != BRC_OK)
        return 0;
    return counts[0] * counts[1] * counts[2] * (brc_format_get((brc_format)table->format)->bits / 8);
}

static int64_t aligned(int64_t bytes) { return (bytes + 63) / 64 * 64; }

brc_status brci_owned_of(const brc_tensor *tensor, int with_index, brc_owned *owned, brc_error *err) {
    int64_t rows = 1, cols = tensor->shape[tensor->rank - 1];
    for (int i = 0; i + 1 < tensor->rank; i++) rows *= tensor->shape[i];
    brc_sizes sizes = {.data = rows * tensor->row_pitch,
                       .scale = table_bytes(tensor, &tensor->scale),
                       .global = table_bytes(tensor, &tensor->global),
                       .zero = table_bytes(tensor, &tensor->zero)};
    const int64_t tables = aligned(sizes.data) + aligned(sizes.scale) + aligned(sizes.global) + aligned(sizes.zero);
    sizes.total = tables + (with_index ? cols * (int64_t)sizeof(int32_t) : 0);
    TRY(brci_owned_new(tensor, &sizes, owned, err));
    if (with_index) owned->tensor.group_index = (int32_t *)(void *)((uint8_t *)owned->memory + tables);
    memset(owned->memory, 0, (size_t)sizes.total);
    return BRC_OK;
}
