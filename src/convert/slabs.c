/* SPDX-License-Identifier: Apache-2.0 */
#include "convert/slabs.h"

#include <stdlib.h>
#include <string.h>

#define SLAB ((int64_t)4 << 20) /* elements; more where one row of blocks has more */

/* The least number of rows that whole blocks of both sides cover; a side of 0 covers them all. */
static int64_t common_rows(int64_t a, int64_t b) {
    int64_t x = a, y = b;
    if (b == 0) return a;
    while (y != 0) {
        int64_t rest = x % y;
        x = y;
        y = rest;
    }
    return a / x * b;
}

brc_status brci_slabs_begin(brci_slabs *s, const brc_tensor *t, uint32_t threads, brc_error *err) {
    int64_t step =
        common_rows(common_rows(common_rows(1, t->scale.block.rows), t->global.block.rows), t->zero.block.rows);
    *s = (brci_slabs){.tensor = t, .options = {.size = sizeof s->options, .threads = threads}};
    s->cols = t->shape[t->rank - 1];
    s->matrix = t->rank > 1 ? t->shape[t->rank - 2] : 1;
    s->n_rows = s->matrix;
    for (int i = 0; i + 2 < t->rank; i++) s->n_rows *= t->shape[i];
    if (s->n_rows == 0 || s->cols == 0) {
        s->n_rows = 0;
        return BRC_OK;
    }
    s->most = SLAB / s->cols / step * step;
    if (s->most == 0) s->most = step;
    if (s->most > s->matrix) s->most = s->matrix;
    s->x = malloc((size_t)(s->most * s->cols) * sizeof *s->x);
    return s->x == NULL ? brci_fail(err, BRC_MEMORY, 0, "out of memory") : BRC_OK;
}

/* The part of a table that belongs to rows from `row` of matrix `batch` on. */
static brc_table table_from(const brc_tensor *t, const brc_table *table, int64_t batch, int64_t row) {
    brc_table part = *table;
    brc_tensor plain = *t;
    if (table->data == NULL) return part;
    plain.group_index = NULL; /* the start of the row, not the group of a column */
    part.data = (uint8_t *)table->data +
                brc_table_index(&plain, table, batch, row, 0) * (brc_format_get((brc_format)table->format)->bits / 8);
    return part;
}

brc_status brci_slabs_next(brci_slabs *s, brc_error *err) {
    const brc_tensor *t = s->tensor;
    s->first += s->rows;
    const int64_t batch = s->matrix == 0 ? 0 : s->first / s->matrix, row = s->first - batch * s->matrix;
    s->rows = s->first >= s->n_rows ? 0 : s->matrix - row < s->most ? s->matrix - row : s->most;
    if (s->rows == 0) return BRC_OK;
    brc_tensor slab = *t;
    slab.rank = 2;
    slab.shape[0] = s->rows;
    slab.shape[1] = s->cols;
    slab.data = (uint8_t *)t->data + s->first * t->row_pitch;
    slab.scale = table_from(t, &t->scale, batch, row);
    slab.global = table_from(t, &t->global, batch, row);
    slab.zero = table_from(t, &t->zero, batch, row);
    brc_array array = brc_array_of(BRC_F32, 2, slab.shape, s->x);
    return brc_dequantize(&slab, &s->options, &array, err);
}

void brci_slabs_end(brci_slabs *s) { free(s->x); }
