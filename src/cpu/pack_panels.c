/* SPDX-License-Identifier: Apache-2.0
 * The order "panels": codes of 4 and 8 bits in panels of 16 columns (narrow.h). What is narrower, or has 6 bits, is
 * kept in the next of the two. Codes that are not finite, and scales with rules of their own, are left to "f32". */
#include "cpu/panels.h"

#include "core/codec.h"

#include <float.h>

/* Smallest to greatest of the scales that are multiplied into BF16: far from its subnormals. */
#define FOLDED 0x1p-40f
/* Of a scale: below, what dequantization rounds to a subnormal is no longer within the bound. */
#define LEAST 0x1p-100f

static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

int brci_narrow_of(const brc_format_info *f, brci_narrow *n, int16_t map[256]) {
    const int codes = 1 << f->bits;
    if (f->role != BRC_ELEMENT || f->bits > 8 || f->family == BRC_EXPONENT) return 0;
    for (int c = 0; c < 256; c++) map[c] = -1;
    if (f->bits <= 4) {
        n->kind = BRCI_NARROW_4;
        for (int c = 0; c < codes; c++) {
            n->values[c] = (float)brci_decode(f, (uint64_t)c);
            if (brci_bits(n->values[c]) & 0xFFFF) n->kind = BRCI_NARROW_FINE;
            map[c] = (int16_t)c;
        }
    } else if (f->family == BRC_INT || f->family == BRC_UINT) {
        const double unit = f->smallest;
        if (unit != 1) return 0;
        n->kind = BRCI_NARROW_BYTE;
        n->offset = f->family == BRC_INT ? 128 : 0;
        for (int c = 0; c < codes; c++) map[c] = (int16_t)((int)brci_decode(f, (uint64_t)c) + (int)n->offset);
    } else if (f->family == BRC_FLOAT) {
        const brc_format_info *to = f->bits == 8 ? f : brci_format(BRC_E4M3); /* holds all of 6 bits */
        n->kind = BRCI_NARROW_FLOAT;
        n->mantissa = to->mantissa_bits;
        n->exponent_shift = (uint32_t)(127 - to->bias) << to->mantissa_bits;
        n->quantum = (float)to->smallest;
        for (int c = 0; c < 128; c++) {
            const double value = brci_decode(to, (uint64_t)c);
            const uint32_t bits = brci_bits((float)value);
            n->high[c] = (uint8_t)(bits >> 24);
            n->low[c] = (uint8_t)(bits >> 16);
        }
        for (int c = 0; c < codes; c++) {
            const float value = (float)brci_decode(f, (uint64_t)c);
            if (brci_magnitude(value) < BRCI_F32_INFINITY) map[c] = (int16_t)brci_encode(to, value);
        }
    }
    return n->kind == BRCI_NARROW_FLOAT || n->kind == BRCI_NARROW_BYTE || f->bits <= 4;
}

static uint8_t code_at(const brc_tensor *t, unsigned bits, int64_t row, int64_t k) {
    return (uint8_t)brci_code_at((const uint8_t *)t->data + row * t->row_pitch, bits, k);
}

static int is_zero_block(const brc_tensor *t, const brc_format_info *f, int64_t row, int64_t k, int64_t end) {
    for (; k < end; k++)
        if (brci_decode(f, code_at(t, f->bits, row, k)) != 0) return 0;
    return 1;
}

/* Whether scales can be applied to a block's sum; the narrowest format in which they can be kept. */
static int scales_fit(const brc_packed *p, const brc_tensor *t, int64_t block, int narrow_scales, brci_panels *s) {
    brci_narrow *n = &s->narrow;
    float smallest = FLT_MAX, greatest = 0;
    const brc_format_info *f = brci_format(t->format);
    const float largest = (float)(f->max > -f->min ? f->max : -f->min);
    const int one_global = t->global.data == NULL || (t->global.block.batch == 0 && t->global.block.rows == 0);
    int narrow = narrow_scales && (t->scale.format == BRC_F16 || t->scale.format == BRC_BF16 ||
                                   t->scale.format == BRC_E8M0 || t->scale.format == BRC_E4M3);
    if (t->global.data != NULL && (t->scale.format != BRC_E4M3 || !one_global)) narrow = 0;
    for (int64_t i = 0; i < p->batch * p->n; i++)
        for (int64_t k = 0; k < p->k; k += block) {
            const float m = brci_multiplier_at(t, i / p->n, i % p->n, k), size = brci_absolute(m);
            const int power = t->scale.format == BRC_E8M0 && t->global.data == NULL;
            if (!(brci_magnitude(m * largest) < BRCI_F32_INFINITY) || !(size == 0 || size >= LEAST || power)) return 0;
            if (size > 0) smallest = size < smallest ? size : smallest;
            greatest = size > greatest ? size : greatest;
            if (t->scale.format == BRC_E4M3 && brci_bits(m) >> 31) narrow = 0;
            if (narrow && power && size < 0x1p-126f && !is_zero_block(t, f, i, k, least(k + block, p->k))) narrow = 0;
        }
    n->scale_format = narrow ? t->scale.format : BRC_F32;
    /* A code times a power of two, or times the 4 bits of an E4M3, may still be a number of BF16 (8 bits). */
    const unsigned bits = f->family == BRC_FLOAT ? f->mantissa_bits + 1u : f->bits;
    if (n->scale_format == BRC_E8M0 && greatest > 0 && smallest >= greatest * FOLDED) s->unfold = greatest;
    if (n->scale_format == BRC_E4M3 && bits + 4 <= 8) s->unfold = 1;
    s->fold = s->unfold != 0 && s->exact_bf16 ? 1 / s->unfold : 0;
    return 1;
}

static int plan(brc_packed *p, const brci_weight *w) {
    const brc_tensor *t = w->source.tensor;
    brci_panels *s = &p->panels;
    if (p->kernels == NULL || t == NULL || !w->along || t->group_index != NULL || p->k < BRCI_PANEL_DEPTH_LEAST ||
        p->n == 0 || p->batch == 0 || !brci_narrow_of(brci_format(t->format), &s->narrow, s->map))
        return 0;
    const int64_t unit = brci_narrow_many(s->narrow.kind),
                  block = t->scale.block.cols == 0 || t->scale.block.cols >= p->k ? p->k : t->scale.block.cols;
    if ((block != p->k && (block % unit != 0 || block > BRCI_PANEL_BLOCK_MOST)) ||
        (t->global.data != NULL && t->global.block.cols != 0))
        return 0;
    if (t->zero.data != NULL) {
        const int64_t side = t->zero.block.cols == 0 || t->zero.block.cols >= p->k ? p->k : t->zero.block.cols;
        if (side != block || s->narrow.kind == BRCI_NARROW_FLOAT) return 0;
        s->narrow.zero = t->zero.kind == BRC_KIND_REAL ? BRCI_ZERO_REAL : BRCI_ZERO_CODE;
    }
    s->exact_bf16 = s->narrow.zero == BRCI_ZERO_NONE && s->narrow.kind != BRCI_NARROW_FINE;
    if (!scales_fit(p, t, block, p->kernels->narrow_scales, s)) return 0;
    s->narrow.block = block == p->k ? 0 : block;
    s->global = s->narrow.scale_format == BRC_E4M3 && t->global.data != NULL
                    ? brci_multiplier(t, 1, brci_table_float(&t->global, 0))
                    : 1;
    s->depth = (p->k + unit - 1) / unit * unit;
    s->blocks = (p->k + block - 1) / block;
    s->panels = (p->n + BRCI_COLUMNS - 1) / BRCI_COLUMNS;
    s->code_bytes = s->depth / unit * BRCI_UNIT;
    s->scale_bytes = (s->blocks * BRCI_COLUMNS * brci_format(s->narrow.scale_format)->bits / 8 + 63) / 64 * 64;
    s->panel_bytes = s->code_bytes + s->scale_bytes * (s->narrow.zero == BRCI_ZERO_NONE ? 1 : 2);
    if (s->narrow.zero != BRCI_ZERO_NONE && s->narrow.scale_format != BRC_F32) {
        s->narrow.scale_format = BRC_F32; /* zero points are F32: the two stay of one size */
        s->scale_bytes = s->blocks * BRCI_COLUMNS * 4;
        s->panel_bytes = s->code_bytes + 2 * s->scale_bytes;
    }
    p->items = p->batch * s->panels;
    p->data_bytes = p->items * s->panel_bytes;
    return 1;
}

/* Codes of one column into a panel; 0 where one has no counterpart. */
static int pack_column(const brci_panels *s, const brc_tensor *t, int64_t row, int64_t k_end, int column,
                       uint8_t *panel) {
    const unsigned bits = brci_format(t->format)->bits;
    const uint8_t *codes = (const uint8_t *)t->data + row * t->row_pitch;
    int wrong = 0;
    if (brci_narrow_many(s->narrow.kind) == 8) {
        uint8_t *to = panel + 4 * column;
        for (int64_t k = 0; k < s->depth; k += 8, to += BRCI_UNIT) {
            uint32_t word = 0;
            if (bits == 4 && k + 8 <= k_end) memcpy(to, codes + k / 2, 4);
            else {
                for (int64_t i = 0; i < 8 && k + i < k_end; i++)
                    word |= (uint32_t)brci_code_at(codes, bits, k + i) << (4 * i);
                for (unsigned i = 0; i < 4; i++) to[i] = (uint8_t)(word >> (8 * i));
            }
        }
        return 1;
    }
    uint8_t *to = panel + column / 4 * 16 + column % 4 * 2;
    for (int64_t k = 0; k < s->depth; k += 4, to += BRCI_UNIT)
        for (int64_t i = 0; i < 4; i++) {
            const int64_t code = k + i >= k_end ? 0
                                 : bits == 8    ? codes[k + i]
                                                : (int64_t)brci_code_at(codes, bits, k + i);
            const int mapped = s->map[code];
            wrong |= mapped;
            to[(i & 1) + 8 * (i >> 1)] = (uint8_t)mapped;
        }
    return wrong >= 0;
}

typedef uint16_t words __attribute__((vector_size(16)));

static words even_then_odd(words w) {
#if defined(__clang__)
    return __builtin_shufflevector(w, w, 0, 2, 4, 6, 1, 3, 5, 7);
#else
    return __builtin_shuffle(w, (words){0, 2, 4, 6, 1, 3, 5, 7});
#endif
}

/* Codes of 8 bits of up to 16 columns, 64 of k at a time, where a panel's are the weight's but for some bits (`flip`):
 * 0 where that is not so, or a code has no counterpart. */
static int pack_bytes(const brc_packed *p, const brc_tensor *t, int64_t row, int columns, uint8_t *panel) {
    const brci_panels *s = &p->panels;
    const int flip = s->map[0];
    int most = 127; /* magnitude of the finite ones */
    if (s->map[128] < 0) return 0;
    while (most > 0 && s->map[most] < 0) most--;
    for (int c = 0; c < 256; c++)
        if (s->map[c] != ((c & 127) <= most ? c ^ flip : -1)) return 0;
    uint8_t rows[BRCI_COLUMNS][64], turned[16][128];
    uint32_t wrong = 0;
    for (int64_t k = 0; k < s->depth; k += 64) {
        const int64_t n = least(64, p->k - k), steps = least(16, (s->depth - k) / 4);
        if (n < 64 || columns < BRCI_COLUMNS) memset(rows, 0, sizeof rows);
        for (int c = 0; c < columns; c++)
            memcpy(rows[c], (const uint8_t *)t->data + (row + c) * t->row_pitch + k, (size_t)n);
        for (int c = 0; c < BRCI_COLUMNS; c++)
            for (int i = 0; i < 64; i++) {
                wrong |= (uint32_t)((rows[c][i] & 127) > most);
                rows[c][i] ^= (uint8_t)flip;
            }
        p->kernels->integer_turn((const uint8_t(*)[64])rows, turned[0]);
        for (int64_t i = 0; i < steps; i++, panel += BRCI_UNIT)
            for (int j = 0; j < BRCI_UNIT; j += 16) { /* the lower two of four columns' four, then the upper two */
                words four;
                memcpy(&four, turned[i] + j, sizeof four);
                four = even_then_odd(four);
                memcpy(panel + j, &four, sizeof four);
            }
    }
    return wrong == 0;
}

static void put_scale(const brci_panels *s, const brc_tensor *t, int64_t batch, int64_t row, int64_t k, uint8_t *to) {
    const float m = brci_multiplier_at(t, batch, row, k);
    if (s->narrow.scale_format == BRC_F32) memcpy(to, &m, sizeof m);
    else {
        const int64_t bytes = brci_format(t->scale.format)->bits / 8;
        memcpy(to, (const uint8_t *)t->scale.data + brc_table_index(t, &t->scale, batch, row, k) * bytes,
               (size_t)bytes);
    }
}

static int pack(const brc_packed *p, const brci_weight *w, int64_t first, int64_t last) {
    const brci_panels *s = &p->panels;
    const brc_tensor *t = w->source.tensor;
    const int64_t bytes = brci_format(s->narrow.scale_format)->bits / 8,
                  block = s->narrow.block == 0 ? p->k : s->narrow.block;
    for (int64_t i = first; i < last; i++) {
        uint8_t *panel = (uint8_t *)p->data + i * s->panel_bytes, *scales = panel + s->code_bytes;
        const int64_t batch = i / s->panels, n = i % s->panels * BRCI_COLUMNS;
        memset(panel, 0, (size_t)s->panel_bytes);
        const int columns = (int)least(BRCI_COLUMNS, p->n - n),
                  by_bytes = brci_format(t->format)->bits == 8 && pack_bytes(p, t, batch * p->n + n, columns, panel);
        for (int c = 0; c < columns; c++) {
            if (!by_bytes && !pack_column(s, t, batch * p->n + n + c, p->k, c, panel)) return 0;
            for (int64_t j = 0; j < s->blocks; j++) {
                put_scale(s, t, batch, n + c, j * block, scales + (j * BRCI_COLUMNS + c) * bytes);
                if (s->narrow.zero == BRCI_ZERO_NONE) continue;
                const float z = brci_table_float(&t->zero, brc_table_index(t, &t->zero, batch, n + c, j * block)),
                            put = s->narrow.zero == BRCI_ZERO_CODE ? -z : z;
                if (!(brci_magnitude(z) < BRCI_F32_INFINITY)) return 0;
                memcpy(scales + s->scale_bytes + (j * BRCI_COLUMNS + c) * 4, &put, sizeof put);
            }
        }
    }
    return 1;
}

const brci_packing brci_packing_panels = {
    .name = "panels", .plan = plan, .pack = pack, .ways = {&brci_way_bf16, &brci_way_panels, &brci_way_tiles}};
