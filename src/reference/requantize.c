/* SPDX-License-Identifier: Apache-2.0
 * Requantizing without arithmetic: where every element and every scale of the source has an equal in the destination,
 * codes and scales are translated and no value changes. */
#include "reference/reference.h"

#define CODES 256

/* Destination code of each source code; 0 where some finite value or NaN has no equal. */
static int translate_codes(const brc_format_info *from, const brc_format_info *to, uint8_t map[CODES]) {
    for (unsigned code = 0; code < 1u << from->bits; code++) {
        float x = (float)brci_decode(from, code), y;
        map[code] = (uint8_t)brci_encode(to, x);
        y = (float)brci_decode(to, map[code]);
        /* The same number; a zero may lose its sign where the destination has no -0. */
        if (brci_is_nan(x) ? !brci_is_nan(y) : (x < y || x > y || brci_is_nan(y))) return 0;
    }
    return 1;
}

/* Every destination block lies inside one source block. */
static int nests(uint32_t inner, uint32_t outer) { return outer == 0 || (inner != 0 && outer % inner == 0); }

static float multiplier_at(const brc_tensor *t, int64_t batch, int64_t row, int64_t col) {
    float scale = brci_table_float(&t->scale, brc_table_index(t, &t->scale, batch, row, col)), global = 1;
    if (t->global.data != NULL) global = brci_table_float(&t->global, brc_table_index(t, &t->global, batch, row, col));
    return brci_multiplier(t, scale, global);
}

/* Calls for each destination block the source's multiplier there; stops at the first 0. */
typedef struct place {
    int64_t number, batch, row, col; /* of a block, and where it begins */
} place;

static int each_block(const brc_tensor *src, const brc_tensor *dst, int (*visit)(void *, place, float), void *user) {
    brci_counts n = brci_block_counts(brci_tensor_view(dst), dst->scale.block);
    brc_block b = dst->scale.block;
    for (int64_t i = 0; i < brci_counts_total(n); i++) {
        place at = {i, i / n.cols / n.rows * b.batch, i / n.cols % n.rows * b.rows, i % n.cols * b.cols};
        if (!visit(user, at, multiplier_at(src, at.batch, at.row, at.col))) return 0;
    }
    return 1;
}

typedef struct scales {
    const brc_tensor *src;
    const brc_table *table;
    uint64_t of_zeros; /* code of the scale that a cast gives a block of zeros */
    int pow2;          /* only powers of two may be stored */
    float largest, global;
} scales;

static int find_largest(void *user, place at, float m) {
    scales *s = user;
    (void)at;
    if (!(m > 0) || brci_is_infinite(m)) return 0; /* a NaN, negative or zero scale is not translated */
    if (m > s->largest) s->largest = m;
    return 1;
}

static int64_t end_of(int64_t begin, uint32_t side, int64_t n) {
    return side == 0 || begin + side > n ? n : begin + side;
}

static int is_zeros(const scales *s, place at) {
    const brc_block b = s->table->block;
    const brci_view v = brci_tensor_view(s->src);
    const brc_format_info *f = brci_format(s->src->format);
    for (int64_t i = at.batch; i < end_of(at.batch, b.batch, v.batch); i++)
        for (int64_t j = at.row; j < end_of(at.row, b.rows, v.rows); j++) {
            const uint8_t *codes = (const uint8_t *)s->src->data + (i * v.rows + j) * s->src->row_pitch;
            for (int64_t k = at.col; k < end_of(at.col, b.cols, v.cols); k++) {
                double x = brci_decode(f, brci_code_at(codes, f->bits, k));
                if (!(x <= 0 && x >= 0)) return 0;
            }
        }
    return 1;
}

/* The same scale in the other format; under a block of zeros any scale keeps the values. */
static int put_scale(void *user, place at, float m) {
    const scales *s = user;
    const brc_format_info *f = brci_format(s->table->format);
    uint64_t code = brci_encode(f, m / s->global);
    float back = (float)brci_decode(f, code) * s->global;
    int exact = !(s->pow2 && (brci_bits(m) & 0x7FFFFFu) != 0) && back >= m && back <= m;
    if (!exact && !is_zeros(s, at)) return 0;
    brci_table_put(s->table, at.number, exact ? code : s->of_zeros);
    return 1;
}

int brci_reference_translate(const brc_tensor *src, const brc_recipe *recipe, brc_tensor *dst) {
    brc_block from = src->scale.block, to = dst->scale.block;
    brci_view v = brci_tensor_view(src);
    uint8_t map[CODES];
    const brci_casting zeros = {.recipe = recipe, .element = brci_format(recipe->element), .input_max = 1, .global = 1};
    scales s = {.src = src,
                .table = &dst->scale,
                .of_zeros = brci_choose(&zeros, &(brci_extent){0}).scale,
                .pow2 = recipe->pow2,
                .global = 1};
    if (src->zero.data != NULL || recipe->zero != BRC_NONE || src->group_index != NULL || recipe->history_length > 0)
        return 0;
    if (!nests(to.batch, from.batch) || !nests(to.rows, from.rows) || !nests(to.cols, from.cols)) return 0;
    if (src->global.data != NULL &&
        (!nests(to.batch, src->global.block.batch) || !nests(to.rows, src->global.block.rows) ||
         !nests(to.cols, src->global.block.cols)))
        return 0;
    if (!translate_codes(brci_format(src->format), brci_format(dst->format), map)) return 0;
    if (!each_block(src, dst, find_largest, &s)) return 0;
    if (recipe->levels == 2) {
        /* A power of two that brings the largest scale into E4M3's top binade, where the most steps below it remain. */
        int top = (int)(brci_bits(s.largest) >> 23) - 127 - 8;
        if (s.largest > 0) s.global = (float)brci_power(top < -126 ? -126 : top);
        if (dst->global.kind == BRC_KIND_DIVISOR) return 0;
        brci_table_put(&dst->global, 0, brci_bits(s.global));
    }
    if (!each_block(src, dst, put_scale, &s)) return 0;
    for (int64_t r = 0; r < v.batch * v.rows && v.cols > 0; r++) {
        const uint8_t *in = (const uint8_t *)src->data + r * src->row_pitch;
        uint8_t *out = (uint8_t *)dst->data + r * dst->row_pitch;
        unsigned bits_in = brci_format(src->format)->bits, bits_out = brci_format(dst->format)->bits;
        memset(out, 0, (size_t)brc_row_bytes((brc_format)dst->format, v.cols));
        for (int64_t k = 0; k < v.cols; k++) brci_code_put(out, bits_out, k, map[brci_code_at(in, bits_in, k)]);
    }
    return 1;
}
