/* SPDX-License-Identifier: Apache-2.0 */
#include "cpu/cast.h"

#define PIECE 4096   /* floats at a time: 16 KiB, half of a first-level cache */
#define WINDOW 65536 /* floats that are read twice: 256 KiB, a quarter of a second-level cache */
#define BLOCKS 256   /* blocks whose scales are chosen together */

static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

int brci_cpu_cast_fits(const brci_source *source, const brc_tensor *dst) {
    const brc_array *a = source->array;
    brci_vector_format format;
    if (!brci_is_little_endian() || a == NULL || a->stride[a->rank - 1] != 1) return 0;
    if (a->format != BRC_F32 && a->format != BRC_F16 && a->format != BRC_BF16) return 0;
    if (a->format == BRC_F32 && (uintptr_t)a->data % sizeof(float) != 0) return 0; /* a file with an odd header */
    if (!brci_vector_format_of(brci_format(dst->format), &format)) return 0;
    return brci_block_counts(source->view, dst->scale.block).cols <= 1 ||
           (uint64_t)dst->scale.block.cols * format.bits % 8 == 0;
}

/* Rows of the source as floats, in pieces. */
typedef struct reader {
    const brci_kernels *kernels;
    const brc_array *array;
    int64_t rows;
    int64_t bytes; /* of an element */
    float piece[PIECE];
} reader;

static const uint8_t *row_at(const reader *r, int64_t row, int64_t col) {
    return (const uint8_t *)r->array->data + brci_offset(r->array, row / r->rows, row % r->rows, col) * r->bytes;
}

static const float *widened(reader *r, const uint8_t *x, int64_t n) {
    (r->array->format == BRC_F16 ? r->kernels->widen_f16 : r->kernels->widen_bf16)(x, n, r->piece);
    return r->piece;
}

/* Calls `visit` for `blocks` blocks of `length`: floats as they lie, half-width types widened a piece at a time. A long
 * block comes in several visits of one block each. */
typedef void visitor(void *user, int64_t block, int64_t col, const float *x, int64_t blocks, int64_t length);

static void each_piece(reader *r, const uint8_t *x, int64_t blocks, int64_t length, visitor *visit, void *user) {
    if (r->array->format == BRC_F32) {
        visit(user, 0, 0, (const float *)(const void *)x, blocks, length);
    } else if (length <= PIECE) {
        const int64_t many = PIECE / length;
        for (int64_t i = 0; i < blocks; i += many) {
            int64_t n = least(many, blocks - i);
            visit(user, i, 0, widened(r, x + i * length * r->bytes, n * length), n, length);
        }
    } else {
        for (int64_t i = 0; i < blocks; i++)
            for (int64_t col = 0; col < length; col += PIECE) {
                int64_t n = least(PIECE, length - col);
                visit(user, i, col, widened(r, x + (i * length + col) * r->bytes, n), 1, n);
            }
    }
}

/* What is known of some blocks, and what becomes of them. */
typedef struct batch {
    const brci_kernels *kernels;
    int with_ends;
    uint32_t amax[BLOCKS];
    float low[BLOCKS], high[BLOCKS], factor[BLOCKS], zero[BLOCKS];
    brci_encoding encoding;
    int64_t length; /* of a block */
    uint8_t *out;
} batch;

static void measure(void *user, int64_t block, int64_t col, const float *x, int64_t blocks, int64_t length) {
    batch *b = user;
    (void)col;
    b->kernels->amax(x, blocks, length, b->amax + block);
    if (b->with_ends) b->kernels->ends(x, blocks, length, b->low + block, b->high + block);
}

static void encode(void *user, int64_t block, int64_t col, const float *x, int64_t blocks, int64_t length) {
    batch *b = user;
    brci_encoding e = b->encoding;
    if (e.zeros != NULL) e.zeros += block;
    b->kernels->encode(&e, x, blocks, length, b->factor + block,
                       b->out + (block * b->length + col) * e.format.bits / 8);
}

static int ordinary(const uint32_t *amax, int64_t n) {
    uint32_t most = 0;
    for (int64_t i = 0; i < n; i++) most = amax[i] > most ? amax[i] : most;
    return most < BRCI_F32_INFINITY;
}

/* Scales of F32, F16 or BF16 that are amax over the largest element, rounded to their format before use. */
static void choose_ratios(batch *b, const brci_casting *c, brc_tensor *dst, int64_t at, int64_t n) {
    const brc_format_info *f = brci_format(dst->scale.format);
    const float reach = brci_element_reach(c->element),
                of_zero = brci_is_integer(c->element) ? (float)brci_power(-(int)f->mantissa_bits) : 1;
    for (int64_t i = 0; i < n; i++) {
        float amax = brci_float(b->amax[i]), scale = amax / reach;
        scale = scale > (float)f->max ? (float)f->max : scale;
        if (f->bits == 32 && !(scale > 0)) scale = (float)f->smallest_normal;
        b->factor[i] = b->amax[i] == 0 ? of_zero : scale;
    }
    if (f->bits == 32) {
        memcpy((uint8_t *)dst->scale.data + at * 4, b->factor, (size_t)n * sizeof *b->factor);
        return;
    }
    uint16_t codes[BLOCKS];
    (dst->scale.format == BRC_F16 ? b->kernels->narrow_f16 : b->kernels->narrow_bf16)(b->factor, n, codes);
    for (int64_t i = 0; i < n; i++) {
        if (codes[i] > f->max_code) codes[i] = (uint16_t)f->max_code;
        else if (codes[i] == 0) codes[i] = (uint16_t)(1u << f->mantissa_bits);
    }
    memcpy((uint8_t *)dst->scale.data + at * 2, codes, (size_t)n * sizeof *codes);
    (dst->scale.format == BRC_F16 ? b->kernels->widen_f16 : b->kernels->widen_bf16)(codes, n, b->factor);
}

static void choose_each(batch *b, const brci_casting *c, brc_tensor *dst, int64_t at, int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        brci_extent extent = {.amax = brci_float(b->amax[i]), .low = b->low[i], .high = b->high[i]};
        brci_scaling s = brci_choose(c, &extent);
        brci_table_put(&dst->scale, at + i, s.scale);
        if (dst->zero.data != NULL) brci_table_put(&dst->zero, at + i, s.zero);
        b->factor[i] = s.coder.factor;
        b->zero[i] = s.coder.zero;
        b->encoding.divide = s.coder.divide;
        b->encoding.round_first = s.coder.round_first;
        b->encoding.no_minus_zero = s.coder.no_minus_zero;
    }
}

/* Scales of `n` blocks from their extents, into the tables at `at`: in vectors for the rules of small blocks. */
static void choose(batch *b, const brci_casting *c, brc_tensor *dst, int64_t at, int64_t n) {
    const brc_recipe *r = c->recipe;
    if (brci_is_mx_rule(r->rule) && r->arith == BRC_ARITH_RECIP) {
        b->kernels->exponents(b->amax, n, r->rule, c->element, (uint8_t *)dst->scale.data + at, b->factor);
    } else if (brci_has_fraction_scales(r) && r->arith != BRC_ARITH_CT && r->arith != BRC_ARITH_MODELOPT) {
        b->encoding.divide = r->arith == BRC_ARITH_DIV;
        b->kernels->fractions(b->amax, n, r, c->element, c->global, (uint8_t *)dst->scale.data + at, b->factor);
    } else if (r->rule == BRC_RULE_AMAX && r->arith == BRC_ARITH_DIV && !r->pow2 &&
               brci_format(r->scale)->role == BRC_HIGH && c->delayed <= 0) {
        b->encoding.divide = 1;
        choose_ratios(b, c, dst, at, n);
    } else {
        choose_each(b, c, dst, at, n);
    }
}

static uint8_t *codes_at(const brc_tensor *dst, int64_t row, int64_t col, uint32_t bits) {
    return (uint8_t *)dst->data + row * dst->row_pitch + col * bits / 8;
}

/* Rows of one block row (rows, or batch * rows, that share their scales), blocks [from, to) of `length`, starting at
 * column `col`; 0 if something is not an ordinary number. */
static int cast_window(batch *b, reader *r, const brci_casting *c, brc_tensor *dst, int64_t row, int64_t row_end,
                       int64_t col, int64_t at, int64_t blocks, int64_t length, brci_extent *met) {
    memset(b->amax, 0, (size_t)blocks * sizeof *b->amax);
    memset(b->low, 0, (size_t)blocks * sizeof *b->low);
    memset(b->high, 0, (size_t)blocks * sizeof *b->high);
    b->length = length;
    for (int64_t i = row; i < row_end; i++) each_piece(r, row_at(r, i, col), blocks, length, measure, b);
    if (!ordinary(b->amax, blocks)) return 0;
    for (int64_t i = 0; i < blocks; i++)
        if (b->amax[i] > brci_bits(met->amax)) met->amax = brci_float(b->amax[i]);
    choose(b, c, dst, at, blocks);
    for (int64_t i = row; i < row_end; i++) {
        b->out = codes_at(dst, i, col, b->encoding.format.bits);
        each_piece(r, row_at(r, i, col), blocks, length, encode, b);
    }
    return 1;
}

static void begin(batch *b, reader *r, const brci_kernels *k, const brci_source *source, const brc_tensor *dst) {
    const brc_recipe *recipe = &dst->recipe;
    b->kernels = r->kernels = k;
    b->with_ends = recipe->rule == BRC_RULE_MINMAX || recipe->rule == BRC_RULE_NO_CLIP;
    b->encoding = (brci_encoding){.zeros = dst->zero.data != NULL ? b->zero : NULL};
    (void)brci_vector_format_of(brci_format(dst->format), &b->encoding.format);
    r->array = source->array;
    r->rows = source->view.rows;
    r->bytes = brci_format(source->array->format)->bits / 8;
}

void brci_cpu_cast(const brci_kernels *k, const brci_casting *c, const brci_source *source, brc_tensor *dst,
                   int64_t first, int64_t last, brci_extent *met) {
    const brci_view v = source->view;
    const brc_block block = dst->scale.block;
    const brci_counts n = brci_block_counts(v, block);
    const int64_t length = block.cols == 0 ? v.cols : block.cols, whole = block.cols == 0 ? 1 : v.cols / length;
    batch b;
    reader r;
    if (v.cols == 0 || v.rows == 0) { /* no elements, but perhaps a scale */
        brci_reference_cast(c, source, dst, first, last, met);
        return;
    }
    begin(&b, &r, k, source, dst);
    for (int64_t i = first; i < last; i++) {
        /* Rows counted over batch * rows; a block row of several matrices is all of them. */
        int64_t matrix = i / n.rows, rows = block.rows == 0 ? v.rows : block.rows;
        int64_t row = block.batch == 0 ? 0 : matrix * v.rows,
                row_end = block.batch == 0 ? v.batch * v.rows : row + v.rows;
        int fine = block.batch != 0 || block.rows == 0 || v.batch == 1;
        brci_extent seen = {0};
        if (block.rows != 0) {
            row += i % n.rows * rows;
            row_end = least(row_end, row + rows);
        }
        const int64_t many = least(BLOCKS, WINDOW / ((row_end - row) * length + 1) + 1);
        for (int64_t j = 0; fine && j < whole; j += many)
            fine = cast_window(&b, &r, c, dst, row, row_end, j * length, i * n.cols + j, least(many, whole - j), length,
                               &seen);
        if (fine && whole < n.cols)
            fine = cast_window(&b, &r, c, dst, row, row_end, whole * length, i * n.cols + whole, 1,
                               v.cols - whole * length, &seen);
        if (!fine) {
            brci_reference_cast(c, source, dst, i, i + 1, met);
        } else if (seen.amax > met->amax) {
            met->amax = seen.amax;
        }
    }
}

int brci_cpu_measure(const brci_kernels *k, const brci_source *source, int64_t first, int64_t last,
                     brci_extent *extent) {
    batch b = {.kernels = k, .with_ends = 1};
    reader r = {.kernels = k,
                .array = source->array,
                .rows = source->view.rows,
                .bytes = brci_format(source->array->format)->bits / 8};
    b.length = source->view.cols;
    for (int64_t i = first; i < last && source->view.cols > 0; i++)
        each_piece(&r, row_at(&r, i, 0), 1, source->view.cols, measure, &b);
    extent->amax = brci_float(b.amax[0]);
    extent->low = b.low[0];
    extent->high = b.high[0];
    return ordinary(b.amax, 1);
}

void brci_cpu_encode(const brci_kernels *k, const brci_casting *c, const brci_source *source, brc_tensor *dst,
                     int64_t first, int64_t last, const brci_scaling *s) {
    batch b;
    reader r;
    (void)c;
    begin(&b, &r, k, source, dst);
    b.length = source->view.cols;
    b.factor[0] = s->coder.factor;
    b.zero[0] = s->coder.zero;
    b.encoding.divide = s->coder.divide;
    b.encoding.round_first = s->coder.round_first;
    b.encoding.no_minus_zero = s->coder.no_minus_zero;
    for (int64_t i = first; i < last && source->view.cols > 0; i++) {
        b.out = codes_at(dst, i, 0, b.encoding.format.bits);
        each_piece(&r, row_at(&r, i, 0), 1, source->view.cols, encode, &b);
    }
}
