/* SPDX-License-Identifier: Apache-2.0 */
#ifndef BRCI_LAYOUT_H
#define BRCI_LAYOUT_H

#include "core/array.h"

/* Blocks along each axis. */
typedef struct brci_counts {
    int64_t batch, rows, cols;
} brci_counts;

brci_counts brci_block_counts(brci_view view, brc_block block);

static inline int64_t brci_counts_total(brci_counts n) { return n.batch * n.rows * n.cols; }

/* The block's number along an axis; a side of 0 is the whole axis. */
static inline int64_t brci_block_of(int64_t i, uint32_t side) { return side == 0 ? 0 : i / side; }

#endif
