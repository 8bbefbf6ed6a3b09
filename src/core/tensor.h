/* SPDX-License-Identifier: Apache-2.0 */
#ifndef BRCI_TENSOR_H
#define BRCI_TENSOR_H

#include "core/codec.h"
#include "core/layout.h"

static inline brci_view brci_tensor_view(const brc_tensor *t) { return brci_view_of(t->rank, t->shape); }

/* Position of the number that element {batch, row, col} uses. `n` = brci_block_counts of the table's block. */
static inline int64_t brci_table_at(const brc_table *table, brci_counts n, int64_t batch, int64_t row, int64_t col) {
    return (brci_block_of(batch, table->block.batch) * n.rows + brci_block_of(row, table->block.rows)) * n.cols +
           brci_block_of(col, table->block.cols);
}

/* The i-th number as a float; the tables of a checked tensor hold nothing a float cannot. */
float brci_table_float(const brc_table *table, int64_t i);
void brci_table_put(const brc_table *table, int64_t i, uint64_t code);

/* f32 arithmetic of the value: m = what an element is multiplied by, from the block's and the global number. */
float brci_multiplier(const brc_tensor *tensor, float scale, float global);
/* The same of element {batch, row, col}. */
float brci_multiplier_at(const brc_tensor *tensor, int64_t batch, int64_t row, int64_t col);

#endif
