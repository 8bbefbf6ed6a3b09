/* SPDX-License-Identifier: Apache-2.0 */
#include "convert/turn.h"

#include <stdlib.h>

static brc_status try_store(const brci_dialect *dialect, const char *name, const brc_tensor *tensor,
                            const brc_entry *origin, brc_error *err) {
    brci_pool pool = {0};
    brci_store store = {.pool = &pool};
    brc_status status = dialect->store(name, tensor, origin, &store, err);
    if (status == BRC_OK && pool.failed) status = brci_fail(err, BRC_MEMORY, 0, "out of memory");
    brci_pool_free(&pool);
    if (status == BRC_OK || status == BRC_MEMORY) return status;
    if (err != NULL) err->status = BRC_UNSUPPORTED;
    return BRC_UNSUPPORTED;
}

brc_status brci_settle(const brci_dialect *dialect, const char *name, brc_tensor *tensor, const brc_entry *origin,
                       brc_error *err) {
    const int any = dialect->global_kind == BRCI_ANY_KIND, has = tensor->global.format != BRC_NONE;
    const uint8_t kind = any ? BRC_KIND_MULTIPLIER : dialect->global_kind;
    if (!has || any || tensor->global.kind == kind) {
        const brc_status status = try_store(dialect, name, tensor, origin, err);
        if (status != BRC_UNSUPPORTED || !has || tensor->global.kind == kind) return status;
    }
    tensor->global = (brc_table){tensor->global.data, BRC_F32, kind, 0, tensor->global.block};
    return try_store(dialect, name, tensor, origin, err);
}

/* One number; each operation rounded to F32. */
static float turned(const brc_table *table, float g, unsigned kind) {
    if (table->kind != BRC_KIND_AMAX) return 1.0f / g;
    const float reciprocal = 1.0f / table->constant;
    return kind == BRC_KIND_DIVISOR ? table->constant / g : g * reciprocal;
}

brc_status brci_turn(brc_tensor *tensor, unsigned kind, void **memory, brc_error *err) {
    int64_t counts[3];
    TRY(brc_block_counts(tensor->rank, tensor->shape, tensor->global.block, counts, err));
    const int64_t n = counts[0] * counts[1] * counts[2];
    float *numbers = malloc((size_t)n * sizeof *numbers + 1);
    *memory = numbers;
    if (numbers == NULL) return brci_fail(err, BRC_MEMORY, 0, "out of memory");
    for (int64_t i = 0; i < n; i++) {
        const float g = (float)brc_table_number(&tensor->global, i);
        numbers[i] = turned(&tensor->global, g, kind);
        if (!(numbers[i] > 0) || numbers[i] > 3.4028234663852886e38f)
            return brci_fail(err, BRC_NONFINITE, (uint64_t)i,
                             "its global scale %g has no reciprocal in F32: its values are lost", (double)g);
    }
    tensor->global = (brc_table){numbers, BRC_F32, (uint8_t)kind, 0, tensor->global.block};
    return BRC_OK;
}
