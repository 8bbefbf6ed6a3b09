/* SPDX-License-Identifier: Apache-2.0 */
#include "cpu/cast.h"

#define PIECE 4096 /* floats at a time: 16 KiB, a third or half of a first-level cache */
#define NEAR 2048  /* floats of one row that are read twice: 8 KiB, and as much that is fetched meanwhile */
#define WINDOW                                                                                                         \
    262144         /* floats of several rows that are read twice: 1 MiB, or half of it; half of a second-level cache */
#define BLOCKS 256 /* blocks whose scales are chosen together */
#define NARROW 65536   /* the same where tables encode, in less time than memory takes: 128 KiB, the next as much */
#define TABLED 2048    /* numbers of a block, which are worth a table */
#define ONWARD 16384   /* floats that are fetched in advance where blocks are done in one pass: 64 KiB */
#define PAST (4 << 20) /* bytes of a result that goes past the caches: twice a second-level cache */

static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

static int array_fits(const brc_array *a) {
    if (a->stride[a->rank - 1] != 1) return 0;
    if (a->format == BRC_F32) return (uintptr_t)a->data % sizeof(float) == 0; /* else a file with an odd header */
    return a->format == BRC_F16 || a->format == BRC_BF16;
}

/* The low end is a code of its own: Q4_1 and its kind, MLX's affine blocks. */
static int has_offsets(const brc_recipe *r) {
    return r->rule == BRC_RULE_MINMAX && (r->arith == BRC_ARITH_GGML || r->arith == BRC_ARITH_MLX);
}

/* ggml's MXFP4 and NVFP4 take the element of least error, which is the nearest, the smaller of two: as long as scaled
 * elements and errors are not rounded. That is so of all numbers below 2^22 times the scale; MXFP4's are below 8 times,
 * and NVFP4's scales follow up to 448. */
static int has_least_errors(const brc_recipe *r) { return r->arith == BRC_ARITH_GGML && r->element == BRC_E2M1; }
#define EXACT_ERRORS 0x1p30f

int brci_cpu_cast_fits(const brci_source *source, const brc_tensor *dst) {
    brci_vector_format format;
    if (!brci_is_little_endian()) return 0;
    if (source->array != NULL ? !array_fits(source->array) : !brci_cpu_read_fits(source)) return 0;
    if (!brci_vector_format_of(brci_format(dst->format), &format)) return 0;
    if (brci_block_counts(source->view, dst->scale.block).cols <= 1) return 1;
    if (source->tensor != NULL && dst->scale.block.cols % 8 != 0) return 0; /* as brci_cpu_read wants it */
    return (uint64_t)dst->scale.block.cols * format.bits % 8 == 0;
}

/* Rows of the source as floats, in pieces. */
typedef struct reader {
    const brci_kernels *kernels;
    const brci_source *source;
    int64_t bytes; /* of an element of an array */
    float piece[PIECE];
} reader;

static const uint8_t *row_at(const reader *r, int64_t row, int64_t col) {
    const brc_array *a = r->source->array;
    const int64_t rows = r->source->view.rows;
    return (const uint8_t *)a->data + brci_offset(a, row / rows, row % rows, col) * r->bytes;
}

/* Bytes from one row of an array to the next. */
static int64_t pitch_of(const reader *r) {
    const brc_array *a = r->source->array;
    return a->rank < 2 ? 0 : a->stride[a->rank - 2] * r->bytes;
}

static int is_half(const reader *r) { return r->source->array != NULL && r->source->array->format != BRC_F32; }

/* n numbers of a row: as they lie, widened, or decoded. What lies `ahead` is fetched meanwhile. */
static const float *floats(reader *r, int64_t row, int64_t col, int64_t n, int64_t ahead) {
    const brc_array *a = r->source->array;
    if (a == NULL) {
        const int64_t rows = r->source->view.rows;
        brci_cpu_read(r->kernels, r->source, row / rows, row % rows, col, n, r->piece);
        return r->piece;
    }
    const uint8_t *x = row_at(r, row, col);
    if (a->format == BRC_F32) return (const float *)(const void *)x;
    for (int64_t i = 0; ahead > 0 && i < 2 * n; i += 64) __builtin_prefetch(x + 2 * ahead + i);
    (a->format == BRC_F16 ? r->kernels->widen_f16 : r->kernels->widen_bf16)(x, n, r->piece);
    return r->piece;
}

/* Calls `visit` for `blocks` blocks of `length`, from column `col` on. Short blocks come several at a time, a long one
 * in several visits of one block each; `at` counts the columns from the first one. */
typedef void visitor(void *user, int64_t block, int64_t at, const float *x, int64_t blocks, int64_t length);

static void each_piece(reader *r, int64_t row, int64_t col, int64_t blocks, int64_t length, int64_t ahead,
                       visitor *visit, void *user) {
    if (length <= PIECE) {
        const int64_t many = PIECE / length;
        for (int64_t i = 0; i < blocks; i += many) {
            int64_t n = least(many, blocks - i);
            visit(user, i, i * length, floats(r, row, col + i * length, n * length, ahead), n, length);
        }
        return;
    }
    for (int64_t i = 0; i < blocks; i++)
        for (int64_t k = 0; k < length; k += PIECE) {
            int64_t n = least(PIECE, length - k), at = i * length + k;
            visit(user, i, at, floats(r, row, col + at, n, ahead), 1, n);
        }
}

/* What is known of some blocks, and what becomes of them. */
typedef struct batch {
    const brci_kernels *kernels;
    int with_ends, with_peaks, with_bounds, with_fits;
    brci_scales_way way;
    uint32_t limit; /* magnitudes from here on, as bits, are the reference's */
    uint32_t amax[BLOCKS];
    float low[BLOCKS], high[BLOCKS], factor[BLOCKS], zero[BLOCKS];
    brci_encoding encoding;
    brci_code_table tables[BRCI_TABLES];
    int past; /* the codes are not read soon */
    uint8_t *out;
    uint8_t staged[PIECE];
    int64_t last; /* row, where this part of the tensor ends */
    struct {      /* blocks that were measured while others were encoded */
        int64_t row, col, blocks, length;
        uint32_t amax[BRCI_TABLES];
    } ready;
} batch;

static void measure_amax(void *user, int64_t block, int64_t at, const float *x, int64_t blocks, int64_t length) {
    batch *b = user;
    (void)at;
    b->kernels->amax(x, blocks, length, b->amax + block);
}

static void measure_ends(void *user, int64_t block, int64_t at, const float *x, int64_t blocks, int64_t length) {
    batch *b = user;
    (void)at;
    (b->with_peaks ? b->kernels->peaks : b->kernels->ends)(x, blocks, length, b->low + block, b->high + block);
}

static void measure_bounds(void *user, int64_t block, int64_t at, const float *x, int64_t blocks, int64_t length) {
    batch *b = user;
    (void)at;
    b->kernels->amax(x, blocks, length, b->amax + block);
    b->kernels->bounds(x, blocks, length, b->low + block, b->high + block);
}

/* Scales, not rounded yet, instead of low ends. */
static void measure_fits(void *user, int64_t block, int64_t at, const float *x, int64_t blocks, int64_t length) {
    batch *b = user;
    (void)at;
    b->kernels->amax(x, blocks, length, b->amax + block);
    b->kernels->fits(b->encoding.format.steps, x, blocks, length, b->low + block, b->factor + block);
}

/* Extents of `blocks` blocks of some rows, and nothing else, into what is known. */
static void measure(batch *b, reader *r, int64_t row, int64_t row_end, int64_t col, int64_t blocks, int64_t length) {
    memset(b->amax, 0, (size_t)blocks * sizeof *b->amax);
    memset(b->low, 0, (size_t)blocks * sizeof *b->low);
    memset(b->high, 0, (size_t)blocks * sizeof *b->high);
    if (b->with_bounds || b->with_fits) {
        visitor *const visit = b->with_fits ? measure_fits : measure_bounds;
        for (int64_t i = row; i < row_end; i++) each_piece(r, i, col, blocks, length, 0, visit, b);
    } else if (b->with_ends) {
        for (int64_t i = row; i < row_end; i++) each_piece(r, i, col, blocks, length, 0, measure_ends, b);
        for (int64_t i = 0; i < blocks; i++) {
            const uint32_t low = brci_magnitude(b->low[i]), high = brci_magnitude(b->high[i]);
            b->amax[i] = low > high ? low : high;
        }
    } else if (is_half(r)) {
        const brc_array *a = r->source->array;
        const int64_t rows = r->source->view.rows;
        uint16_t half[BLOCKS];
        for (int64_t i = row; i < row_end;) { /* rows of one matrix lie at equal distances */
            const int64_t end = least(row_end, (i / rows + 1) * rows);
            b->kernels->amax_half(row_at(r, i, col), end - i, a->rank < 2 ? 0 : a->stride[a->rank - 2] * 2, blocks,
                                  length, b->amax);
            i = end;
        }
        for (int64_t i = 0; i < blocks; i++) half[i] = (uint16_t)b->amax[i];
        (a->format == BRC_F16 ? b->kernels->widen_f16 : b->kernels->widen_bf16)(half, blocks, b->factor);
        memcpy(b->amax, b->factor, (size_t)blocks * sizeof *b->amax);
    } else {
        for (int64_t i = row; i < row_end; i++) each_piece(r, i, col, blocks, length, 0, measure_amax, b);
    }
}

/* As `encode`, of BF16 as it lies; 0 = that is not served. */
static int encode_row_of_bf16(batch *b, const reader *r, int64_t row, int64_t col, int64_t blocks, int64_t length) {
    const brc_array *a = r->source->array;
    const int64_t many = length > PIECE ? 1 : PIECE / length, size = least(length, PIECE);
    brci_encoding e = b->encoding;
    if (a == NULL || a->format != BRC_BF16 || length % size != 0) return 0;
    for (int64_t i = 0; i < blocks; i += many)
        for (int64_t k = 0; k < length; k += size) {
            const int64_t n = least(many, blocks - i), at = i * length + k;
            uint8_t *out = b->out + at * e.format.bits / 8;
            if (e.zeros != NULL || !b->kernels->encode_bf16(&e, row_at(r, row, col + at), n, size, b->factor + i,
                                                            b->past ? b->staged : out))
                return 0;
            if (b->past) b->kernels->copy_past(b->staged, n * size * e.format.bits / 8, out);
        }
    return 1;
}

static void encode(void *user, int64_t block, int64_t at, const float *x, int64_t blocks, int64_t length) {
    batch *b = user;
    brci_encoding e = b->encoding;
    uint8_t *out = b->out + at * e.format.bits / 8;
    const int staged = b->past && ((uintptr_t)out % 64 != 0 || !b->kernels->encodes_past);
    if (e.zeros != NULL) e.zeros += block;
    e.past = b->past && !staged;
    b->kernels->encode(&e, x, blocks, length, b->factor + block, staged ? b->staged : out);
    if (staged) b->kernels->copy_past(b->staged, (blocks * length * e.format.bits + 7) / 8, out);
}

/* Whether the kernels serve all that was measured; the largest magnitude goes into `met`. */
static int ordinary(const batch *b, int64_t n, brci_extent *met) {
    uint32_t most = brci_bits(met->amax);
    b->kernels->amax((const float *)(const void *)b->amax, 1, n, &most);
    if (most >= b->limit) return 0;
    met->amax = brci_float(most);
    return 1;
}

static void choose_ggml(batch *b, const brci_casting *c, brc_tensor *dst, int64_t at, int64_t n) {
    const float *amax = (const float *)(const void *)b->amax;
    float scale[BLOCKS];
    if (b->with_fits) memcpy(scale, b->low, (size_t)n * sizeof *scale);
    else if (b->with_peaks) b->kernels->reciprocals(b->low, b->high, n, (float)c->element->min, 1, scale, b->factor);
    else b->kernels->reciprocals(b->low, amax, n, (float)c->element->max, 0, scale, b->factor);
    b->kernels->narrow_f16(scale, n, (uint8_t *)dst->scale.data + at * 2, 0);
}

/* Q4_1 and its kind: scales are the whole range over the last code, zero points the low end. */
static void choose_ranges(batch *b, const brci_casting *c, brc_tensor *dst, int64_t at, int64_t n) {
    const float most = (float)brci_format(BRC_F16)->max;
    float scale[BLOCKS], zero[BLOCKS], range[BLOCKS], none[BLOCKS] = {0};
    for (int64_t i = 0; i < n; i++) {
        const float wide = b->high[i] - b->low[i];
        range[i] = wide > FLT_MAX ? FLT_MAX : wide;
        b->zero[i] = b->low[i];
        zero[i] = b->low[i] > most ? most : b->low[i] < -most ? -most : b->low[i];
    }
    b->kernels->reciprocals(none, range, n, (float)c->element->max, 0, scale, b->factor);
    b->kernels->narrow_f16(scale, n, (uint8_t *)dst->scale.data + at * 2, 0);
    b->kernels->narrow_f16(zero, n, (uint8_t *)dst->zero.data + at * 2, 0);
}

/* What a coder says besides its factor and zero point, which is the same for all blocks. */
static void encode_as(batch *b, const brci_coder *coder) {
    b->encoding.divide = coder->divide;
    b->encoding.round_first = coder->round_first;
    b->encoding.no_minus_zero = coder->no_minus_zero;
    b->encoding.ties = coder->ties_below;
}

static void choose_each(batch *b, const brci_casting *c, brc_tensor *dst, int64_t at, int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        brci_extent extent = {.amax = brci_float(b->amax[i]), .low = b->low[i], .high = b->high[i]};
        const float ends[2] = {b->low[i], b->high[i]};
        brci_scaling s = b->with_bounds ? brci_choose_affine(c, ends, 2) : brci_choose(c, &extent);
        brci_table_put(&dst->scale, at + i, s.scale);
        if (dst->zero.data != NULL) brci_table_put(&dst->zero, at + i, s.zero);
        b->factor[i] = s.coder.factor;
        b->zero[i] = s.coder.zero;
        encode_as(b, &s.coder);
    }
}

/* What a way that is not EACH leaves to be said: the same for all blocks, so that any block says it. */
static void encode_by_way(batch *b, const brci_casting *c) {
    const brci_scaling s = brci_choose(c, &(brci_extent){.amax = 1, .high = 1});
    if (b->way == BRCI_SCALES_EACH) return;
    encode_as(b, &s.coder);
    if (b->way == BRCI_SCALES_EXPONENTS) b->encoding.divide = c->recipe->arith == BRC_ARITH_CT; /* as `exponents` */
    if (!has_least_errors(c->recipe)) return;
    b->encoding.ties = BRCI_BELOW_PLUS_ZERO;
    b->encoding.divide = b->way == BRCI_SCALES_FRACTIONS;
}

static brci_scales_way way_of(const brci_casting *c) {
    const brc_recipe *r = c->recipe;
    if (brci_is_mx_rule(r->rule)) return BRCI_SCALES_EXPONENTS;
    if (brci_has_fraction_scales(r)) return BRCI_SCALES_FRACTIONS;
    if (r->arith == BRC_ARITH_GGML) return BRCI_SCALES_GGML;
    return r->rule == BRC_RULE_AMAX && r->arith == BRC_ARITH_DIV && !r->pow2 &&
                   brci_format(r->scale)->role == BRC_HIGH && c->delayed <= 0
               ? BRCI_SCALES_RATIOS
               : BRCI_SCALES_EACH;
}

/* Scales of `n` blocks from their extents, into the tables at `at`: in vectors for the rules of small blocks. */
static void choose(batch *b, const brci_casting *c, brc_tensor *dst, int64_t at, int64_t n) {
    const brc_recipe *r = c->recipe;
    uint8_t *bytes = (uint8_t *)dst->scale.data + at * brci_format(dst->scale.format)->bits / 8;
    if (b->way == BRCI_SCALES_GGML && b->with_bounds) choose_ranges(b, c, dst, at, n);
    else if (b->way == BRCI_SCALES_GGML) choose_ggml(b, c, dst, at, n);
    else if (b->way == BRCI_SCALES_RATIOS) b->kernels->ratios(b->amax, n, r, c->element, bytes, b->factor);
    else if (b->way == BRCI_SCALES_EXPONENTS) b->kernels->exponents(b->amax, n, r, c->element, bytes, b->factor);
    else if (b->way == BRCI_SCALES_FRACTIONS)
        b->kernels->fractions(b->amax, n, r, c->element, c->global, bytes, b->factor);
    else choose_each(b, c, dst, at, n);
}

static uint8_t *codes_at(const brc_tensor *dst, int64_t row, int64_t col, uint32_t bits) {
    return (uint8_t *)dst->data + row * dst->row_pitch + col * bits / 8;
}

/* Whether every row's codes may go past the caches as they are made. */
static int goes_past(const batch *b, const brc_tensor *dst) {
    return b->past && ((uintptr_t)dst->data | (uintptr_t)dst->row_pitch) % 64 == 0;
}

/* Whether blocks of so many rows are encoded by tables. */
static int is_tabled(const batch *b, const reader *r, int64_t rows, int64_t length) {
    return b->kernels->tabulate != NULL && r->source->array != NULL && r->source->array->format == BRC_BF16 &&
           length % 64 == 0 && rows * length >= TABLED && rows <= r->source->view.rows;
}

/* Meanwhile those that come next are measured: beside these, or below. */
static int encode_by_tables(batch *b, reader *r, brc_tensor *dst, int64_t row, int64_t row_end, int64_t col,
                            int64_t blocks, int64_t length) {
    const int64_t rows = row_end - row, width = blocks * length;
    const int beside = col + 2 * width <= r->source->view.cols;
    const int64_t next_row = beside ? row : row_end, next_col = beside ? col + width : 0;
    const int known = !b->with_ends && next_row + rows <= b->last &&
                      row / r->source->view.rows == (next_row + rows - 1) / r->source->view.rows;
    const brci_tabled t = {.encoding = &b->encoding,
                           .factors = b->factor,
                           .tables = b->tables,
                           .x = row_at(r, row, col),
                           .out = codes_at(dst, row, col, b->encoding.format.bits),
                           .rows = rows,
                           .pitch = pitch_of(r),
                           .out_pitch = dst->row_pitch,
                           .blocks = blocks,
                           .length = length,
                           .past = goes_past(b, dst),
                           .next = known ? row_at(r, next_row, next_col) : NULL,
                           .amax = b->ready.amax};
    b->encoding.ahead = 0;
    b->kernels->tabulate(&b->encoding, b->factor, b->amax, blocks, b->tables);
    if (!b->kernels->encode_tabled(&t)) return 0;
    if (known) b->ready.row = next_row, b->ready.col = next_col, b->ready.blocks = blocks, b->ready.length = length;
    return 1;
}

/* Rows of one block row (rows, or batch * rows, that share their scales), blocks [from, to) of `length`, starting at
 * column `col`; 0 if something is not an ordinary number. */
static int cast_window(batch *b, reader *r, const brci_casting *c, brc_tensor *dst, int64_t row, int64_t row_end,
                       int64_t col, int64_t at, int64_t blocks, int64_t length, brci_extent *met) {
    const int ready =
        b->ready.blocks == blocks && b->ready.row == row && b->ready.col == col && b->ready.length == length;
    b->ready.blocks = 0;
    if (ready) memcpy(b->amax, b->ready.amax, (size_t)blocks * sizeof *b->amax);
    else measure(b, r, row, row_end, col, blocks, length);
    if (!ordinary(b, blocks, met)) return 0;
    choose(b, c, dst, at, blocks);
    if (is_tabled(b, r, row_end - row, length) && encode_by_tables(b, r, dst, row, row_end, col, blocks, length))
        return 1;
    b->encoding.ahead = blocks * length;
    for (int64_t i = row; i < row_end; i++) {
        b->out = codes_at(dst, i, col, b->encoding.format.bits);
        if (encode_row_of_bf16(b, r, i, col, blocks, length)) continue;
        each_piece(r, i, col, blocks, length, blocks * length, encode, b);
    }
    return 1;
}

static void begin(batch *b, reader *r, const brci_kernels *k, const brci_source *source, const brc_tensor *dst) {
    const brc_recipe *recipe = &dst->recipe;
    const int is_ggml = recipe->arith == BRC_ARITH_GGML && brci_is_integer(brci_format(dst->format));
    b->kernels = r->kernels = k;
    b->with_peaks = recipe->rule == BRC_RULE_PEAK;
    b->with_bounds = has_offsets(recipe);
    b->with_ends = recipe->rule == BRC_RULE_MINMAX || recipe->rule == BRC_RULE_NO_CLIP || b->with_peaks;
    b->encoding = (brci_encoding){.zeros = dst->zero.data != NULL ? b->zero : NULL,
                                  .divide = recipe->arith == BRC_ARITH_DIV, /* choose_each says it for the others */
                                  .ggml = b->with_bounds  ? is_ggml ? BRCI_GGML_MINMAX : BRCI_MLX_MINMAX
                                          : !is_ggml      ? BRCI_GGML_NONE
                                          : b->with_peaks ? BRCI_GGML_PEAK
                                                          : BRCI_GGML_AMAX,
                                  /* Scales follow the largest magnitude, but for ends that are left out. */
                                  .bounded = recipe->rule != BRC_RULE_NO_CLIP};
    (void)brci_vector_format_of(brci_format(dst->format), &b->encoding.format);
    b->with_fits = recipe->rule == BRC_RULE_FIT;
    if (b->with_fits) b->encoding.format.steps = brci_steps_of(dst->format, 1);
    b->limit = has_least_errors(recipe) && recipe->rule == BRC_RULE_AMAX ? brci_bits(EXACT_ERRORS) : BRCI_F32_INFINITY;
    b->ready.blocks = 0;
    b->past = source->view.batch * source->view.rows * dst->row_pitch >= PAST;
    r->source = source;
    r->bytes = source->array == NULL ? 0 : brci_format(source->array->format)->bits / 8;
}

static int rows_follow(const brc_array *a) {
    for (unsigned i = 0; i + 1 < a->rank; i++)
        if (a->stride[i] != a->stride[i + 1] * a->shape[i + 1]) return 0;
    return 1;
}

/* How far ahead of what one pass encodes it fetches, in numbers: whole rows where they do not follow each other. */
static int64_t onward(const reader *r, int follow) {
    return follow ? ONWARD : (ONWARD / r->source->view.cols + 1) * pitch_of(r) / r->bytes;
}

/* As many blocks as can be done in one pass, from row `row` on: rows of F32 that lie one behind the other are one. */
static int64_t cast_at_once(const batch *b, const reader *r, const brci_casting *c, brc_tensor *dst, int64_t row,
                            int64_t last, brci_extent *met) {
    const brc_array *a = r->source->array;
    const int64_t cols = r->source->view.cols, length = dst->scale.block.cols;
    if (row == last || b->kernels->cast_blocks == NULL || b->way == BRCI_SCALES_EACH || b->with_ends || a == NULL ||
        a->format != BRC_F32 || dst->scale.block.rows != 1 || dst->scale.block.batch == 0 || length == 0 ||
        length > PIECE / BRCI_BLOCKS_AT_ONCE)
        return 0;
    const int64_t whole = cols / length, bytes = cols * b->encoding.format.bits / 8;
    const int follow = cols % length == 0 && rows_follow(a) && dst->row_pitch == bytes;
    brci_encoding e = b->encoding;
    e.ahead = onward(r, follow);
    e.past = goes_past(b, dst);
    const brci_blocks blocks = {.encoding = &e,
                                .way = b->way,
                                .limit = b->limit,
                                .recipe = c->recipe,
                                .element = c->element,
                                .global = c->global,
                                .x = (const float *)(const void *)row_at(r, row, 0),
                                .blocks = follow ? (last - row) * whole : whole,
                                .length = length,
                                .scales = (uint8_t *)dst->scale.data + row * ((cols + length - 1) / length) *
                                                                           brci_format(dst->scale.format)->bits / 8,
                                .out = codes_at(dst, row, 0, e.format.bits)};
    uint32_t most = brci_bits(met->amax);
    const int64_t done = b->kernels->cast_blocks(&blocks, &most);
    met->amax = brci_float(most);
    return done;
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
    b.way = way_of(c);
    encode_by_way(&b, c);
    b.last = block.rows == 0 ? v.batch * v.rows
                             : (last - 1) / n.rows * v.rows + least(v.rows, ((last - 1) % n.rows + 1) * block.rows);
    for (int64_t i = first; i < last; i++) {
        int64_t done;
        while ((done = cast_at_once(&b, &r, c, dst, i, last, met)) >= n.cols) i += done / n.cols;
        if (i >= last) break;
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
        const int tabled = is_tabled(&b, &r, row_end - row, length);
        const int64_t window = row_end - row == 1 ? NEAR
                               : tabled           ? NARROW
                                                  : WINDOW,
                      most = tabled ? BRCI_TABLES : BLOCKS,
                      many = least(most, (window - 1) / ((row_end - row) * length) + 1);
        for (int64_t j = done; fine && j < whole; j += many)
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
    if (b.past) brci_stream_end();
}

int brci_cpu_measure(const brci_kernels *k, const brci_source *source, const brc_tensor *dst, int64_t first,
                     int64_t last, brci_extent *extent) {
    batch b;
    reader r;
    begin(&b, &r, k, source, dst);
    for (int64_t i = first; i < last && source->view.cols > 0; i++) {
        measure(&b, &r, i, i + 1, 0, 1, source->view.cols);
        if (!ordinary(&b, 1, extent)) return 0;
        if (b.low[0] < extent->low) extent->low = b.low[0];
        if (b.high[0] > extent->high) extent->high = b.high[0];
    }
    return 1;
}

/* What every block has in common, where there is but one. */
static void fix(batch *b, const brci_scaling *s) {
    b->factor[0] = s->coder.factor;
    b->zero[0] = s->coder.zero;
    encode_as(b, &s->coder);
}

void brci_cpu_encode(const brci_kernels *k, const brci_source *source, brc_tensor *dst, int64_t first, int64_t last,
                     const brci_scaling *s) {
    batch b;
    reader r;
    begin(&b, &r, k, source, dst);
    fix(&b, s);
    const int64_t pitch = source->array == NULL ? 0 : pitch_of(&r) / r.bytes;
    for (int64_t i = last - 1; i >= first; i--) /* the last rows measured are still near */
        for (int64_t col = 0; col < source->view.cols; col += PIECE) {
            const int64_t n = least(PIECE, source->view.cols - col);
            b.encoding.ahead = col + PIECE < source->view.cols ? PIECE : -pitch - col;
            b.out = codes_at(dst, i, col, b.encoding.format.bits);
            each_piece(&r, i, col, 1, n, b.encoding.ahead, encode, &b);
        }
    if (b.past) brci_stream_end();
}

int brci_cpu_measure_and_encode(const brci_kernels *k, const brci_source *source, brc_tensor *dst, int64_t first,
                                int64_t last, const brci_scaling *s, brci_extent *extent) {
    batch b;
    reader r;
    begin(&b, &r, k, source, dst);
    fix(&b, s);
    const float factor = b.factor[0];
    const int at_once = k->encode_measured != NULL && source->array != NULL && source->array->format == BRC_F32 &&
                        source->view.cols > 0;
    brci_encoding e = b.encoding;
    b.encoding.ahead = PIECE;
    e.ahead = at_once ? onward(&r, rows_follow(source->array)) : 0;
    e.past = goes_past(&b, dst);
    int fine = 1;
    for (int64_t i = first; fine && i < last; i++) {
        int64_t col = 0;
        if (at_once) {
            uint32_t most = brci_bits(extent->amax);
            col = k->encode_measured(&e, (const float *)(const void *)row_at(&r, i, 0), source->view.cols, factor,
                                     codes_at(dst, i, 0, e.format.bits), &most);
            if (most >= BRCI_F32_INFINITY) fine = 0;
            else extent->amax = brci_float(most);
        }
        for (; fine && col < source->view.cols; col += PIECE) {
            const int64_t n = least(PIECE, source->view.cols - col);
            measure(&b, &r, i, i + 1, col, 1, n);
            fine = ordinary(&b, 1, extent);
            if (!fine) break;
            b.factor[0] = factor; /* where halves are measured */
            b.out = codes_at(dst, i, col, b.encoding.format.bits);
            each_piece(&r, i, col, 1, n, PIECE, encode, &b);
        }
    }
    if (b.past) brci_stream_end(); /* before the reference, too, writes where this did not end */
    return fine;
}
