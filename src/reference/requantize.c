/* SPDX-License-Identifier: Apache-2.0
 * Requantizing without arithmetic: where every value of the source has an equal in the destination, codes and scales
 * are translated and no value changes. */
#include "reference/translate.h"

/* ---------------------------------------------------------------------------------------------------- runs */

static void bounds(int64_t i, uint32_t side, int64_t n, int64_t range[2]) {
    range[0] = side == 0 ? 0 : i * side;
    range[1] = side == 0 || range[0] + side > n ? n : range[0] + side;
}

brci_region brci_region_of(const brci_translation *t, int64_t number) {
    const brc_block b = t->dst->scale.block;
    const brci_counts n = t->counts;
    brci_region region = {.number = number};
    bounds(number / n.cols / n.rows, b.batch, t->view.batch, region.batch);
    bounds(number / n.cols % n.rows, b.rows, t->view.rows, region.row);
    bounds(number % n.cols, b.cols, t->view.cols, region.col);
    return region;
}

/* The column behind `col` where a table may have another number. */
static int64_t next_column(const brc_table *table, int64_t col, int64_t end) {
    const int64_t side = table->data == NULL ? 0 : table->block.cols;
    const int64_t next = side == 0 ? end : (col / side + 1) * side;
    return next < end ? next : end;
}

static float number_at(const brc_table *table, brci_counts counts, int64_t batch, int64_t row, int64_t col,
                       float otherwise) {
    return table->data == NULL ? otherwise : brci_table_float(table, brci_table_at(table, counts, batch, row, col));
}

static brci_run run_at(const brci_translation *t, int64_t batch, int64_t row, int64_t col, int64_t end) {
    const brc_tensor *src = t->src;
    brci_run run = {.row = batch * t->view.rows + row,
                    .col = col,
                    .scale = number_at(&src->scale, t->of_scale, batch, row, col, 1),
                    .zero = number_at(&src->zero, t->of_zero, batch, row, col, 0)};
    run.m = brci_multiplier(src, run.scale, number_at(&src->global, t->of_global, batch, row, col, 1));
    end = next_column(&src->scale, col, end);
    end = next_column(&src->global, col, end);
    run.n = next_column(&src->zero, col, end) - col;
    return run;
}

int brci_each_run(const brci_translation *t, const brci_region *region, int (*visit)(void *user, const brci_run *run),
                  void *user) {
    for (int64_t batch = region->batch[0]; batch < region->batch[1]; batch++)
        for (int64_t row = region->row[0]; row < region->row[1]; row++)
            for (int64_t col = region->col[0]; col < region->col[1];) {
                const brci_run run = run_at(t, batch, row, col, region->col[1]);
                if (!visit(user, &run)) return 0;
                col += run.n;
            }
    return 1;
}

int64_t brci_run_codes(const brci_translation *t, const brci_run *run, int64_t i, uint8_t codes[BRCI_CODES]) {
    const uint8_t *row = (const uint8_t *)t->src->data + run->row * t->src->row_pitch;
    const int64_t first = run->col + i, n = run->n - i < BRCI_CODES ? run->n - i : BRCI_CODES;
    const unsigned bits = t->from->bits;
    if (bits == 8) memcpy(codes, row + first, (size_t)n);
    else if (bits == 4)
        for (int64_t k = 0; k < n; k++) codes[k] = row[(first + k) / 2] >> (first + k) % 2 * 4 & 15;
    else
        for (int64_t k = 0; k < n; k++) codes[k] = (uint8_t)brci_code_at(row, bits, first + k);
    return n;
}

void brci_put_codes(const brci_translation *t, const brci_run *run, int64_t i, int64_t n,
                    const uint8_t codes[BRCI_CODES]) {
    uint8_t *row = (uint8_t *)t->dst->data + run->row * t->dst->row_pitch;
    const int64_t first = run->col + i;
    const unsigned bits = t->to->bits;
    if (bits == 8) memcpy(row + first, codes, (size_t)n);
    else if (bits == 4)
        for (int64_t k = 0; k < n; k++) row[(first + k) / 2] |= (uint8_t)(codes[k] << (first + k) % 2 * 4);
    else
        for (int64_t k = 0; k < n; k++) brci_code_put(row, bits, first + k, codes[k]);
}

/* -------------------------------------------------------------------------------------------------- scales */

static float multiplier_of(const brci_translation *t, uint64_t code) {
    const float s = (float)brci_decode(brci_format(t->dst->scale.format), code);
    return brci_multiplier(t->dst, s, t->global);
}

int brci_put_multiplier(const brci_translation *t, int64_t number, float m, float hint) {
    const brc_format_info *f = brci_format(t->dst->scale.format);
    const float wanted[] = {t->dst->global.kind == BRC_KIND_DIVISOR ? m * t->global : m / t->global, hint};
    if (t->recipe->pow2 && (brci_bits(m) & 0x7FFFFFu) != 0) return 0;
    for (int i = 0; i < 2; i++) {
        const uint64_t code = brci_encode(f, wanted[i]);
        if (brci_bits(multiplier_of(t, code)) != brci_bits(m)) continue;
        brci_table_put(&t->dst->scale, number, code);
        return 1;
    }
    return 0;
}

static int find_largest(void *user, const brci_run *run) {
    float *largest = user;
    if (!brci_is_usable(run)) return 0;
    if (brci_absolute(run->m) > *largest) *largest = brci_absolute(run->m);
    return 1;
}

/* The source's own where there is one such number, so that its block scales may stay; else a power of two that brings
 * the largest scale into E4M3's top binade, where the most steps below it remain. */
static int choose_global(brci_translation *t) {
    const brc_tensor *src = t->src;
    const brci_region all = {.batch = {0, t->view.batch}, .row = {0, t->view.rows}, .col = {0, t->view.cols}};
    const int divides = t->dst->global.kind == BRC_KIND_DIVISOR;
    float largest = 0;
    if (!brci_each_run(t, &all, find_largest, &largest)) return 0;
    if (src->global.data != NULL && src->global.kind == t->dst->global.kind && src->global.format == BRC_F32 &&
        brci_counts_total(brci_block_counts(t->view, src->global.block)) == 1) {
        t->global = brci_table_float(&src->global, 0);
    } else if (largest > 0) {
        int top = (int)(brci_bits(largest) >> 23) - 127 - 8;
        if ((brci_bits(largest) & 0x7FFFFFu) > 0x600000u) top++; /* over 1.75 * 2^8 */
        top = top < -126 ? -126 : top > 126 ? 126 : top;
        t->global = (float)brci_power(divides ? -top : top);
    }
    brci_table_put(&t->dst->global, 0, brci_bits(t->global));
    return 1;
}

/* --------------------------------------------------------------------------------------------------- whole */

/* Rows of the first block from the left: codes below a byte are put into bits that are 0. */
static void clear_rows(const brci_translation *t, const brci_region *region) {
    const int64_t bytes = brc_row_bytes((brc_format)t->dst->format, t->view.cols);
    if (region->col[0] > 0) return;
    for (int64_t batch = region->batch[0]; batch < region->batch[1] && bytes > 0; batch++)
        for (int64_t row = region->row[0]; row < region->row[1]; row++)
            memset((uint8_t *)t->dst->data + (batch * t->view.rows + row) * t->dst->row_pitch, 0, (size_t)bytes);
}

/* Zero points that are no codes are left to arithmetic, and so are columns in another order than their groups. */
static int is_translatable(const brc_tensor *src, const brc_recipe *recipe) {
    if (src->group_index != NULL || recipe->history_length > 0) return 0;
    if (src->zero.data != NULL && (src->zero.kind == BRC_KIND_REAL || !brci_is_integer(brci_format(src->format))))
        return 0;
    return recipe->zero == BRC_NONE || brci_is_integer(brci_format(src->format));
}

int brci_translate_begin(brci_translation *t, const brc_tensor *src, const brc_recipe *recipe, brc_tensor *dst) {
    const brci_casting zeros = {.recipe = recipe, .element = brci_format(recipe->element), .input_max = 1, .global = 1};
    *t = (brci_translation){.src = src,
                            .dst = dst,
                            .recipe = recipe,
                            .from = brci_format(src->format),
                            .to = brci_format(dst->format),
                            .view = brci_tensor_view(src),
                            .global = 1,
                            .of_zeros = brci_choose(&zeros, &(brci_extent){0}).scale};
    if (!is_translatable(src, recipe)) return 0;
    for (unsigned code = 0; code < 1u << t->from->bits; code++) t->value[code] = (float)brci_decode(t->from, code);
    t->counts = brci_block_counts(t->view, dst->scale.block);
    t->of_scale = brci_block_counts(t->view, src->scale.block);
    t->of_global = brci_block_counts(t->view, src->global.block);
    t->of_zero = brci_block_counts(t->view, src->zero.block);
    return recipe->levels != 2 || choose_global(t);
}

int brci_translate_rows(brci_translation *t, int64_t first, int64_t last) {
    const int moved = t->src->zero.data != NULL || t->recipe->zero != BRC_NONE;
    for (int64_t i = first * t->counts.cols; i < last * t->counts.cols; i++) {
        const brci_region region = brci_region_of(t, i);
        clear_rows(t, &region);
        if (!(moved ? brci_translate_integers(t, &region) : brci_translate_numbers(t, &region))) return 0;
    }
    return 1;
}
