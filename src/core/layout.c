/* SPDX-License-Identifier: Apache-2.0 */
#include "core/layout.h"

#include <string.h>

#define FREE BRC_FREE
static const brc_layout_info rows[BRC_LAYOUT_COUNT] = {
#define BRC_LAYOUT_ROW(id, name, klass, b, r, c) [BRC_##id] = {sizeof(brc_layout_info), name, klass, {b, r, c}},
#include "breccia/layouts.def"
#undef BRC_LAYOUT_ROW
};
#undef FREE

const brc_layout_info *brc_layout_get(brc_layout layout) {
    return (unsigned)layout < BRC_LAYOUT_COUNT ? &rows[layout] : NULL;
}

brc_layout brc_layout_find(const char *name) {
    unsigned i = 0;
    while (i < BRC_LAYOUT_COUNT && (name == NULL || strcmp(rows[i].name, name) != 0)) i++;
    return (brc_layout)i;
}

brc_status brc_layout_check(brc_layout layout, brc_block block, brc_error *err) {
    const uint32_t sides[3] = {block.batch, block.rows, block.cols};
    static const char *const names[3] = {"batch", "rows", "cols"};
    if ((unsigned)layout >= BRC_LAYOUT_COUNT)
        return brci_fail(err, BRC_ARGUMENT, 0, "there is no layout %d", (int)layout);
    const uint32_t fixed[3] = {rows[layout].block.batch, rows[layout].block.rows, rows[layout].block.cols};
    for (int i = 0; i < 3; i++) {
        int free_side = fixed[i] == BRC_FREE;
        /* One number per expert is per_tensor too: a batch side of 1 where the row says the whole axis. */
        int expert = i == 0 && layout == BRC_PER_TENSOR && sides[i] == 1;
        if (sides[i] == BRC_FREE || (free_side ? sides[i] == 0 : sides[i] != fixed[i] && !expert))
            return brci_fail(err, BRC_SHAPE, 0, "%s: block %s is %lld; %s", rows[layout].name, names[i],
                             (long long)sides[i] * (sides[i] == BRC_FREE ? 0 : 1),
                             free_side ? "it must be at least 1" : "the layout fixes it");
    }
    return BRC_OK;
}

static int64_t along(int64_t n, uint32_t side) { return side == 0 ? 1 : n / side + (n % side != 0); }

brci_counts brci_block_counts(brci_view view, brc_block block) {
    return (brci_counts){along(view.batch, block.batch), along(view.rows, block.rows), along(view.cols, block.cols)};
}

brc_status brc_block_counts(int rank, const int64_t *shape, brc_block block, int64_t counts[3], brc_error *err) {
    if (shape == NULL || counts == NULL) return brci_fail(err, BRC_ARGUMENT, 0, "shape and counts must be given");
    TRY(brci_shape_check(rank, shape, err));
    brci_counts n = brci_block_counts(brci_view_of(rank, shape), block);
    counts[0] = n.batch;
    counts[1] = n.rows;
    counts[2] = n.cols;
    return BRC_OK;
}
