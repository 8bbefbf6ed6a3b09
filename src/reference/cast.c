/* SPDX-License-Identifier: Apache-2.0 */
#include "reference/reference.h"

#define PIECE 512 /* floats read at a time, on the stack */

static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

/* A block's place in the tensor, half-open, cut at the edges. */
typedef struct range {
    int64_t batch, row, col, batch_end, row_end, col_end;
} range;

static int64_t start(int64_t i, uint32_t side) { return i * side; }
static int64_t end(int64_t i, uint32_t side, int64_t n) { return side == 0 ? n : least((i + 1) * side, n); }

static range range_of(brci_view v, brc_block block, int64_t batch, int64_t row, int64_t col) {
    return (range){start(batch, block.batch),        start(row, block.rows),       start(col, block.cols),
                   end(batch, block.batch, v.batch), end(row, block.rows, v.rows), end(col, block.cols, v.cols)};
}

static void measure(const brci_source *source, const range *r, brci_extent *extent) {
    float x[PIECE];
    for (int64_t b = r->batch; b < r->batch_end; b++)
        for (int64_t n = r->row; n < r->row_end; n++)
            for (int64_t k = r->col; k < r->col_end; k += PIECE) {
                int64_t count = least(PIECE, r->col_end - k);
                brci_read(source, b, n, k, count, x);
                brci_extend(extent, x, count);
            }
}

static uint8_t *row_of(const brc_tensor *t, brci_view v, int64_t batch, int64_t row) {
    return (uint8_t *)t->data + (batch * v.rows + row) * t->row_pitch;
}

static void encode(const brci_casting *c, const brci_source *source, const range *r, const brci_coder *coder,
                   const brc_tensor *dst) {
    float x[PIECE];
    for (int64_t b = r->batch; b < r->batch_end; b++)
        for (int64_t n = r->row; n < r->row_end; n++) {
            uint8_t *row = row_of(dst, source->view, b, n);
            for (int64_t k = r->col; k < r->col_end; k += PIECE) {
                int64_t count = least(PIECE, r->col_end - k);
                brci_read(source, b, n, k, count, x);
                for (int64_t i = 0; i < count; i++)
                    brci_code_put(row, c->element->bits, k + i, brci_encode_scaled(c->element, coder, x[i]));
            }
        }
}

/* The scale of a block from its extent; ggml's and MLX's affine ones from its numbers, of which there are few. */
static brci_scaling choose(const brci_casting *c, const brci_source *source, const range *r,
                           const brci_extent *extent) {
    float x[BRCI_GGML_BLOCK];
    const int affine = c->recipe->arith == BRC_ARITH_MLX && c->recipe->rule == BRC_RULE_MINMAX;
    if (c->recipe->arith != BRC_ARITH_GGML && !affine) return brci_choose(c, extent);
    brci_read(source, r->batch, r->row, r->col, r->col_end - r->col, x);
    return affine ? brci_choose_affine(c, x, r->col_end - r->col) : brci_choose_ggml(c, x, r->col_end - r->col);
}

/* Sub-byte codes are put into zeroed rows; padding bits stay 0. */
static void clear_rows(const brc_tensor *dst, brci_view v, const range *r) {
    if (v.cols == 0) return; /* there may be no data at all */
    for (int64_t b = r->batch; b < r->batch_end; b++)
        for (int64_t n = r->row; n < r->row_end; n++)
            memset(row_of(dst, v, b, n), 0, (size_t)brc_row_bytes((brc_format)dst->format, v.cols));
}

void brci_reference_extent(const brci_source *source, int64_t first, int64_t last, brci_extent *extent) {
    for (int64_t i = first; i < last; i++) {
        int64_t b = i / source->view.rows, n = i % source->view.rows;
        measure(source, &(range){b, n, 0, b + 1, n + 1, source->view.cols}, extent);
    }
}

void brci_reference_cast(const brci_casting *c, const brci_source *source, brc_tensor *dst, int64_t first, int64_t last,
                         brci_extent *met) {
    brci_view v = source->view;
    brc_block block = dst->scale.block;
    brci_counts n = brci_block_counts(v, block);
    for (int64_t i = first; i < last; i++) {
        range whole = range_of(v, (brc_block){block.batch, block.rows, 0}, i / n.rows, i % n.rows, 0);
        clear_rows(dst, v, &whole);
        for (int64_t j = 0; j < n.cols; j++) {
            range r = range_of(v, block, i / n.rows, i % n.rows, j);
            brci_extent extent = {0};
            brci_scaling s;
            measure(source, &r, &extent);
            s = choose(c, source, &r, &extent);
            brci_table_put(&dst->scale, i * n.cols + j, s.scale);
            if (dst->zero.data != NULL) brci_table_put(&dst->zero, i * n.cols + j, s.zero);
            encode(c, source, &r, &s.coder, dst);
            met->nan += extent.nan;
            met->infinite += extent.infinite;
            if (extent.amax > met->amax) met->amax = extent.amax;
        }
    }
}
