/* SPDX-License-Identifier: Apache-2.0
 *
 * Casts and dequantization on the GPU: check, pick the kernel's row, launch. */
#include <stddef.h>
#include <string.h>

#include "core/array.h"
#include "driver.h"

enum { THREADS = BRCI_CAST_THREADS };
enum {
    FP8_BLOCKS,
    MX_BLOCKS,
    NV_BLOCKS,
    INT_BLOCKS,
    GIVEN,
    CURRENT,
    SQUARES,
    ROW,
    NARROW_ROW,
    GLOBAL_SCALE,
    BOTH_FP8_BLOCKS,
    BOTH_MX_BLOCKS,
    BOTH_SQUARES,
    BOTH_TENSOR,
    BACK
};

/* In the place of a source's format: codes and scales. */
enum { CODED = 255, BRC_CODED = CODED };

/* Every row of casts.def: what it does, from what, to what. */
static const struct row {
    int shape, in, element, block, kernel;
} rows[] = {
#define BLOCKS(in, element, kind, block)                                                                               \
    {kind##_BLOCKS, BRC_##in, BRC_##element, block, BRCI_KERNEL_cast_##kind##_##block##_##in##_##element},
#define WHOLE(in, element)                                                                                             \
    WHOLE_##element(in){ROW, BRC_##in, BRC_##element, 0, BRCI_KERNEL_cast_row_##in##_##element},                       \
        {NARROW_ROW, BRC_##in, BRC_##element, 0, BRCI_KERNEL_cast_narrow_row_##in##_##element},
#define WHOLE_FP8(in, element)                                                                                         \
    {GIVEN, BRC_##in, BRC_##element, 0, BRCI_KERNEL_cast_given_##in##_##element},                                      \
        {CURRENT, BRC_##in, BRC_##element, 0, BRCI_KERNEL_cast_current_##in##_##element},                              \
        {SQUARES, BRC_##in, BRC_##element, 128, BRCI_KERNEL_cast_squares_##in##_##element},
#define WHOLE_E4M3(in) WHOLE_FP8(in, E4M3)
#define WHOLE_E5M2(in) WHOLE_FP8(in, E5M2)
#define WHOLE_INT8(in)
#define GLOBAL(in) {GLOBAL_SCALE, BRC_##in, 0, 0, BRCI_KERNEL_find_global_##in},
#define BOTH(in, element)                                                                                              \
    {BOTH_FP8_BLOCKS, BRC_##in, BRC_##element, 0, BRCI_KERNEL_cast_both_blocks_##in##_##element},                      \
        {BOTH_MX_BLOCKS, BRC_##in, BRC_##element, 0, BRCI_KERNEL_cast_both_mx_##in##_##element},                       \
        {BOTH_SQUARES, BRC_##in, BRC_##element, 0, BRCI_KERNEL_cast_both_squares_##in##_##element},                    \
        {BOTH_TENSOR, BRC_##in, BRC_##element, 0, BRCI_KERNEL_cast_both_tensor_##in##_##element},
#define DEQUANTIZE(element, out) {BACK, BRC_##out, BRC_##element, 0, BRCI_KERNEL_dequantize_##element##_##out},
#include "casts.def"
#undef WHOLE_FP8
};

static int kernel_of(int shape, int in, int element) {
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (rows[i].shape == shape && rows[i].in == in && (rows[i].element == element || shape == GLOBAL_SCALE))
            return rows[i].kernel;
    return -1;
}

/* A checked array of rows: the last dimension is contiguous, the leading ones dense. */
static brc_status rows_of(const brc_array *a, brci_cast_args *g, int64_t *pitch, int64_t *batch, brc_error *err) {
    const int last = a->rank - 1;
    g->cols = a->shape[last];
    g->rows = 1;
    *batch = 1;
    for (int i = 0; i < last; i++) g->rows *= a->shape[i];
    for (int i = 0; i + 1 < last; i++) *batch *= a->shape[i];
    *pitch = last ? a->stride[last - 1] : g->cols;
    if (g->rows == 0 || g->cols == 0) return BRC_OK;
    if (g->cols > INT64_C(1) << 33) return brci_cuda_fail(err, BRC_LIMIT, "a row of more than 2^33 numbers");
    if (a->shape[last] > 1 && a->stride[last] != 1)
        return brci_cuda_fail(err, BRC_UNSUPPORTED, "the GPU takes rows of neighbouring elements only");
    for (int i = last - 2; i >= 0; i--)
        if (a->shape[i] > 1 && a->stride[i] != a->stride[i + 1] * a->shape[i + 1])
            return brci_cuda_fail(err, BRC_UNSUPPORTED, "the GPU takes dense leading dimensions only");
    return BRC_OK;
}

static int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
/* Of the numbers; codes become F32. */
static int wide_bytes(int format) { return format == BRC_F32 || format == CODED ? 4 : 2; }
static int code_bits(int format) {
    const brc_format_info *f = brc_format_get((brc_format)format);
    return f ? f->bits : 0;
}

static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

static brc_status launch(int kernel, int64_t grid, uint32_t threads, int cooperative, brci_cast_args *g, void *stream,
                         brc_error *err) {
    brci_launch l = {kernel, {(uint32_t)grid, 1, 1}, threads, 0, 1, cooperative, !cooperative, g};
    if (grid > INT32_MAX) return brci_cuda_fail(err, BRC_OVERFLOW, "too many blocks of threads");
    return brci_cuda_launch(&l, stream, err);
}

/* Rows of `row` pieces, and how a kernel divides by it: floor(piece * ceil(2^(31 + s) / row) / 2^(31 + s)) with 2^s >=
 * row is exact below 2^31 (Granlund and Montgomery 1994, theorem 4.2). */
static void divide_rows(brci_cast_args *g, int64_t row) {
    uint32_t shift = 1;
    g->piece_row = (uint32_t)row;
    g->pieces = g->rows * row;
    while (shift < 31 && (int64_t)1 << shift < row) shift++;
    g->row_magic = row < 2 ? 0 : (uint32_t)((((uint64_t)1 << (31 + shift)) + (uint64_t)row - 1) / (uint64_t)row);
    g->row_shift = shift - 1;
}

/* Whether rows of numbers start on 16 bytes, and rows of codes on a multiple of a piece's. */
static int wide_aligned(const void *data, int64_t pitch, int format) {
    return !(((uint64_t)(uintptr_t)data | (uint64_t)pitch * (uint64_t)wide_bytes(format)) & 15);
}
static int codes_aligned(const void *data, int64_t pitch, int bits, int64_t piece) {
    const int64_t size = bits == 6 ? (piece == 8 ? 2 : 1) : piece * bits / 8;
    return !(((uint64_t)(uintptr_t)data | (uint64_t)pitch) & (uint64_t)(size - 1));
}

/* The caller's options, those of earlier versions too. */
static brc_status options_of(const brc_cuda_cast_options *given, brc_cuda_cast_options *o, brc_error *err) {
    memset(o, 0, sizeof *o);
    if (!given) return BRC_OK;
    if (given->size != sizeof *o && given->size != offsetof(brc_cuda_cast_options, transposed))
        return brci_cuda_fail(err, BRC_ARGUMENT, "the options are of another version");
    memcpy(o, given, given->size);
    return BRC_OK;
}

/* A grid over the tensor finds its largest magnitude, or NVFP4's second level from it into `to`. */
static brc_status find(const brci_cast_args *g, int format, int sms, void *to, void *stream, brc_error *err) {
    brci_cast_args finding = *g;
    finding.out = to;
    return launch(kernel_of(GLOBAL_SCALE, format, 0), least(ceil_div(g->pieces, THREADS * 8), sms * 8), THREADS, 0,
                  &finding, stream, err);
}

/* The kind of cast that gives the transpose as well; -1 = there is none. */
static int both_of(int shape) {
    static const struct {
        int alone, both;
    } kinds[] = {{FP8_BLOCKS, BOTH_FP8_BLOCKS},
                 {MX_BLOCKS, BOTH_MX_BLOCKS},
                 {SQUARES, BOTH_SQUARES},
                 {GIVEN, BOTH_TENSOR},
                 {CURRENT, BOTH_TENSOR}};
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (kinds[i].alone == shape) return kinds[i].both;
    return -1;
}

/* Whether a destination's table of scales is one that the recipe fills. */
static brc_status scales_fit(const brc_tensor *t, const brc_recipe *r, const char *what, brc_error *err) {
    const brc_block planned = t->scale.block;
    if (!t->scale.data) return BRC_OK;
    if (t->scale.format != r->scale || planned.rows != r->block.rows || planned.cols != r->block.cols)
        return brci_cuda_fail(err, BRC_SHAPE, "%s were planned for another recipe", what);
    return brci_cuda_aligned(t->scale.data, t->scale.format, what, err);
}

static brc_status cast_both(brci_cast_args *g, int shape, int format, int rank, const brc_recipe *r, int sms,
                            const brc_cuda_cast_options *o, void *stream, brc_error *err) {
    const brc_tensor *t = o->transposed;
    const int kernel = kernel_of(both_of(shape), format, r->element);
    if (kernel < 0 || rank != 2)
        return brci_cuda_fail(
            err, BRC_UNSUPPORTED,
            "the GPU casts with the transpose matrices to FP8 per tensor, 1x128 and 128x128, and MXFP8");
    if (t->format != r->element || t->rank != 2 || t->shape[0] != g->cols || t->shape[1] != g->rows)
        return brci_cuda_fail(err, BRC_SHAPE, "the transposed destination was planned for something else");
    TRY(scales_fit(t, r, "the transposed destination's scales", err));
    if (!t->data || (!t->scale.data && both_of(shape) != BOTH_TENSOR))
        return brci_cuda_fail(err, BRC_ARGUMENT, "a pointer of the transposed destination is NULL");
    const int64_t high = r->block.rows ? r->block.rows : INT32_MAX, wide = r->block.cols ? r->block.cols : INT32_MAX;
    g->turned = t->data;
    g->turned_scale = t->scale.data;
    g->turned_pitch = t->row_pitch;
    g->turned_scale_row = o->scales_by_column ? 1 : ceil_div(g->rows, wide);
    g->turned_scale_col = o->scales_by_column ? ceil_div(g->cols, high) : 1;
    g->turned_wide = !(((uint64_t)(uintptr_t)t->data | (uint64_t)t->row_pitch) & 15);
    if (shape == CURRENT) {
        TRY(find(g, format, sms, NULL, stream, err));
        g->backwards = 1;
    }
    /* How casts_both.cuh counts its tiles. */
    divide_rows(g, BRCI_BOTH_RUN * ceil_div(g->cols, BRCI_BOTH_TILE));
    return launch(kernel, ceil_div(g->rows, BRCI_BOTH_RUN * BRCI_BOTH_TILE) * g->piece_row,
                  128u * (uint32_t)wide_bytes(format), 0, g, stream, err);
}

static brc_status tensor_is_there(const brc_tensor *t, const char *what, brc_error *err) {
    if (t && t->size >= sizeof *t) return BRC_OK;
    return brci_cuda_fail(err, BRC_ARGUMENT, "%s is missing or of another version", what);
}
static int same_shape(const brc_tensor *t, int rank, const int64_t *shape) {
    return t->rank == rank && !memcmp(t->shape, shape, (size_t)rank * sizeof *shape);
}

/* A cast of what g says of the source: in, in_pitch, rows, cols, from_*. `format`: of its numbers, or CODED; rank and
 * shape have been checked. */
static brc_status cast_from(brci_cast_args g, int format, int rank, const int64_t *extent, int64_t batch, int sms,
                            const brc_recipe *r, const brc_cuda_cast_options *options, brc_tensor *dst, void *stream,
                            brc_error *err) {
    const brc_cuda_cast_options o = *options;
    const brc_block block = r->block;
    const brc_format_info *element = brc_format_get((brc_format)r->element);
    int shape, bits = code_bits(r->element);
    if (dst->format != r->element || !same_shape(dst, rank, extent))
        return brci_cuda_fail(err, BRC_SHAPE, "the destination was planned for something else");
    TRY(scales_fit(dst, r, "the destination's scales", err));
    TRY(brci_cuda_aligned(g.in, format, "the source", err));

    g.out = dst->data;
    g.scale = dst->scale.data;
    g.out_pitch = dst->row_pitch;
    g.arith = r->arith;
    g.rule = r->rule;
    g.pow2 = r->pow2;
    g.scale_format = r->scale;
    g.epsilon = r->epsilon;
    g.reach = (float)element->max;
    for (int32_t i = 0; i < r->margin; i++) g.reach *= 0.5f;
    for (int32_t i = 0; i > r->margin; i--) g.reach *= 2.0f;
    g.given = o.delayed;
    g.amax = o.amax;
    g.scratch = o.scratch;

    const int fp8 = r->element == BRC_E4M3 || r->element == BRC_E5M2, whole_row = block.rows == 1 && block.cols == 0;
    const int mx_rule = r->rule >= BRC_RULE_RCEIL && r->rule <= BRC_RULE_EVEN;
    if (r->zero != BRC_NONE) return brci_cuda_fail(err, BRC_UNSUPPORTED, "the GPU has no cast with zero points");
    if (r->arith > BRC_ARITH_RECIP)
        return brci_cuda_fail(err, BRC_UNSUPPORTED, "the GPU has no cast with arith=%s",
                              brc_arith_name((brc_arith)r->arith));
    if (fp8 && r->scale == BRC_F32 && r->rule == BRC_RULE_AMAX && block.rows == 0 && block.cols == 0)
        shape = o.delayed ? GIVEN : CURRENT;
    else if (fp8 && r->scale == BRC_F32 && r->rule == BRC_RULE_AMAX && whole_row) shape = ROW;
    else if (fp8 && r->scale == BRC_F32 && r->rule == BRC_RULE_AMAX && block.rows == 1 && block.cols == 128)
        shape = FP8_BLOCKS;
    else if (fp8 && r->scale == BRC_F32 && r->rule == BRC_RULE_AMAX && block.rows == 128 && block.cols == 128)
        shape = SQUARES;
    else if (mx_rule && r->scale == BRC_E8M0 && block.rows == 1 && block.cols == 32) shape = MX_BLOCKS;
    else if (r->element == BRC_E2M1 && r->scale == BRC_E4M3 && r->rule == BRC_RULE_AMAX && block.rows == 1 &&
             block.cols == 16)
        shape = NV_BLOCKS;
    else if (r->element == BRC_INT8 && r->rule == BRC_RULE_AMAX && whole_row) shape = ROW;
    else if (r->element == BRC_INT4 && r->rule == BRC_RULE_AMAX && block.rows == 1 && block.cols == 128)
        shape = INT_BLOCKS;
    else
        return brci_cuda_fail(err, BRC_UNSUPPORTED, "the GPU has no cast to %s in blocks of %u x %u",
                              element ? element->name : "?", block.rows, block.cols);

    if (shape == ROW && g.cols * wide_bytes(format) <= 32 * 16 * BRCI_CAST_AHEAD) shape = NARROW_ROW;
    const int kernel = kernel_of(shape, format, r->element);
    if (kernel < 0)
        return brci_cuda_fail(err, BRC_UNSUPPORTED, "the GPU has no cast to %s in blocks of %u x %u", element->name,
                              block.rows, block.cols);
    if (shape == SQUARES && batch > 1 && g.rows / batch % 128)
        return brci_cuda_fail(err, BRC_UNSUPPORTED, "batches of rows that are no multiple of 128");
    if (!g.rows || !g.cols) return BRC_OK;
    if (!g.in || !g.out || (!g.scale && shape != GIVEN) || (format == CODED && !g.from_scale))
        return brci_cuda_fail(err, BRC_ARGUMENT, "a pointer of the cast is NULL");
    if (shape == CURRENT && !g.scratch)
        return brci_cuda_fail(err, BRC_ARGUMENT, "current scaling needs %d bytes of scratch", BRC_CUDA_SCRATCH);

    const int64_t piece = 16 / wide_bytes(format), blocks_row = block.cols ? ceil_div(g.cols, block.cols) : 1;
    const int64_t blocks_rows = block.rows ? ceil_div(g.rows, block.rows) : 1;
    divide_rows(&g, block.cols && shape != SQUARES ? blocks_row * (block.cols / piece) : ceil_div(g.cols, piece));
    g.wide = g.cols % piece == 0 && codes_aligned(g.out, g.out_pitch, bits, piece) &&
             (format == CODED ? codes_aligned(g.in, g.in_pitch, g.from_bits, piece)
                              : wide_aligned(g.in, g.in_pitch, format));
    g.flat = g.wide && g.in_pitch == (format == CODED ? g.cols * g.from_bits / 8 : g.cols) &&
             g.out_pitch * 8 == g.cols * bits && !(block.cols && g.cols % block.cols) &&
             !(bits == 6 && (uintptr_t)g.out & 7);
    g.scale_row = blocks_row;
    g.scale_col = 1;
    if (o.scales_by_column) {
        g.scale_row = 1;
        g.scale_col = o.scale_pitch ? o.scale_pitch : blocks_rows;
    }

    if (o.transposed) return cast_both(&g, shape, format, rank, r, sms, &o, stream, err);
    if (shape == NV_BLOCKS && r->levels == 2) {
        if (!dst->global.data) return brci_cuda_fail(err, BRC_ARGUMENT, "NVFP4 with two levels needs dst->global");
        if (o.scratch) {
            TRY(find(&g, format, sms, dst->global.data, stream, err));
            g.backwards = 1;
        }
        g.global = dst->global.data;
    }

    const int64_t share = THREADS * (g.flat ? BRCI_CAST_AHEAD : 1); /* pieces of a block of threads */
    int64_t grid = ceil_div(g.pieces, share);
    uint32_t threads = THREADS;
    if (shape == CURRENT) grid = least(grid, sms * 4);
    if (shape == NARROW_ROW) grid = ceil_div(g.rows, THREADS / 32);
    if (shape == SQUARES) {
        grid = ceil_div(g.rows, 128) * blocks_row;
        threads = 2048 / (uint32_t)piece;
    }
    if (shape == ROW) {
        grid = g.rows;
        threads = (uint32_t)least(ceil_div(g.piece_row, BRCI_CAST_AHEAD * 32) * 32, BRCI_CAST_ROW_THREADS);
    }
    return launch(kernel, grid, threads, shape == CURRENT, &g, stream, err);
}

brc_status brc_cuda_cast(const brc_array *src, const brc_recipe *r, const brc_cuda_cast_options *options,
                         brc_tensor *dst, void *stream, brc_error *err) {
    brc_cuda_cast_options o;
    brci_cast_args g;
    int64_t batch = 1;
    int sms = 0;
    TRY(options_of(options, &o, err));
    TRY(brci_array_check(src, "the source", err));
    TRY(brc_recipe_check(r, err));
    TRY(tensor_is_there(dst, "the destination", err));
    TRY(brci_cuda_ready(BRCI_ANY_DEVICE, &sms, err));
    if (src->format != BRC_F32 && src->format != BRC_F16 && src->format != BRC_BF16)
        return brci_cuda_fail(err, BRC_FORMAT, "the GPU casts from F32, F16 and BF16");
    memset(&g, 0, sizeof g);
    TRY(rows_of(src, &g, &g.in_pitch, &batch, err));
    g.in = src->data;
    return cast_from(g, src->format, src->rank, src->shape, batch, sms, r, &o, dst, stream, err);
}

/* What the kernels know of stored tensors, and the block of a scale, in rows of all batches. */
static brc_status stored(const brc_tensor *src, int64_t rows_all, int64_t batch, brc_block *block, brc_error *err) {
    const int format = src->scale.format;
    if (src->zero.data || src->group_index)
        return brci_cuda_fail(err, BRC_UNSUPPORTED, "the GPU has no dequantize with zero points or a group index");
    if (kernel_of(BACK, BRC_F32, src->format) < 0)
        return brci_cuda_fail(err, BRC_UNSUPPORTED, "the GPU has no dequantize for this element format");
    if (src->scale.kind != BRC_KIND_MULTIPLIER)
        return brci_cuda_fail(err, BRC_UNSUPPORTED, "the GPU takes scales that multiply");
    if (src->global.data &&
        (src->global.block.batch || src->global.block.rows || src->global.block.cols || src->global.format != BRC_F32))
        return brci_cuda_fail(err, BRC_UNSUPPORTED, "the GPU takes one global scale in F32");
    *block = src->scale.block;
    if (block->batch == 1 && batch > 1 && !block->rows && rows_all / batch <= UINT32_MAX)
        block->rows = (uint32_t)(rows_all / batch);
    if (block->batch == 1 && batch > 1 && (!block->rows || rows_all / batch % block->rows))
        return brci_cuda_fail(err, BRC_UNSUPPORTED, "the GPU takes blocks that divide a batch's rows");
    if (!block->batch && batch > 1 && block->rows)
        return brci_cuda_fail(err, BRC_UNSUPPORTED, "the GPU has no blocks across batches");
    if (format != BRC_F32 && format != BRC_E8M0 && format != BRC_E4M3 && format != BRC_F16 && format != BRC_BF16)
        return brci_cuda_fail(err, BRC_UNSUPPORTED, "the GPU takes scales of F32, F16, BF16, E8M0 and E4M3");
    return brci_cuda_aligned(src->scale.data, format, "the source's scales", err);
}

static int global_kind(const brc_tensor *src) {
    return src->global.kind == BRC_KIND_MULTIPLIER ? 0 : src->global.kind == BRC_KIND_DIVISOR ? 1 : 2;
}

/* n = 2^shift, or 31: the whole axis (n = 0), or no power of two. */
static uint32_t shift_of(int64_t n) {
    uint32_t shift = 0;
    while (shift < 31 && (int64_t)1 << shift != n) shift++;
    return shift;
}

brc_status brc_cuda_requantize(const brc_tensor *src, const brc_recipe *r, const brc_cuda_cast_options *options,
                               brc_tensor *dst, void *stream, brc_error *err) {
    brc_cuda_cast_options o;
    brci_cast_args g;
    brc_block block;
    int64_t batch = 1;
    int sms = 0;
    TRY(options_of(options, &o, err));
    TRY(tensor_is_there(src, "the source", err));
    TRY(tensor_is_there(dst, "the destination", err));
    TRY(brci_shape_check(src->rank, src->shape, err));
    TRY(brc_recipe_check(r, err));
    TRY(brci_cuda_ready(BRCI_ANY_DEVICE, &sms, err));
    if (!same_shape(dst, src->rank, src->shape))
        return brci_cuda_fail(err, BRC_SHAPE, "source and destination differ in shape");
    /* Of the values, which are nowhere in memory. */
    const brc_array view = brc_array_of(BRC_F32, src->rank, src->shape, NULL);
    memset(&g, 0, sizeof g);
    TRY(rows_of(&view, &g, &g.in_pitch, &batch, err));
    TRY(stored(src, g.rows, batch, &block, err));
    g.in = src->data;
    g.in_pitch = src->row_pitch;
    g.from_scale = src->scale.data;
    g.from_global = src->global.data;
    g.from_scale_row = block.rows ? block.cols ? ceil_div(g.cols, block.cols) : 1 : 0;
    g.from_format = src->format;
    g.from_bits = code_bits(src->format);
    g.from_scale_format = src->scale.format;
    g.from_global_kind = global_kind(src);
    g.from_global_constant = src->global.constant;
    g.rows_shift = shift_of(block.rows);
    g.cols_shift = block.cols % 4 ? 31 : shift_of(block.cols / 4);
    g.from_flat = block.rows == 1 && block.cols && g.cols % block.cols == 0;
    if ((block.rows && g.rows_shift == 31) || (block.cols && g.cols_shift == 31) || g.rows > INT32_MAX)
        return brci_cuda_fail(err, BRC_UNSUPPORTED,
                              "the GPU requantizes from blocks whose sides are powers of two, 4 columns or more");
    return cast_from(g, CODED, src->rank, src->shape, batch, sms, r, &o, dst, stream, err);
}

brc_status brc_cuda_dequantize(const brc_tensor *src, brc_array *dst, void *stream, brc_error *err) {
    brci_cast_args g;
    brc_block block;
    int64_t batch = 1;
    int sms = 0;
    TRY(tensor_is_there(src, "the source", err));
    TRY(brci_array_check(dst, "the destination", err));
    TRY(brci_cuda_ready(BRCI_ANY_DEVICE, &sms, err));
    if (dst->format != BRC_F32 && dst->format != BRC_F16 && dst->format != BRC_BF16)
        return brci_cuda_fail(err, BRC_FORMAT, "the GPU dequantizes to F32, F16 and BF16");
    if (!same_shape(src, dst->rank, dst->shape))
        return brci_cuda_fail(err, BRC_SHAPE, "source and destination differ in shape");
    memset(&g, 0, sizeof g);
    TRY(rows_of(dst, &g, &g.out_pitch, &batch, err));
    TRY(stored(src, g.rows, batch, &block, err));
    const int kernel = kernel_of(BACK, dst->format, src->format), bits = code_bits(src->format);
    if (!g.rows || !g.cols) return BRC_OK;
    if (!src->data || !src->scale.data)
        return brci_cuda_fail(err, BRC_ARGUMENT, "a pointer of the scaled tensor is NULL");
    TRY(brci_cuda_aligned(dst->data, dst->format, "the destination", err));
    g.in = src->data;
    g.out = dst->data;
    g.in_pitch = src->row_pitch;
    g.scale = src->scale.data;
    g.scale_format = src->scale.format;
    g.global = src->global.data;
    g.global_kind = global_kind(src);
    g.global_constant = src->global.constant;
    g.block_rows = block.rows;
    g.block_cols = block.cols;
    const int64_t piece = 16 / wide_bytes(dst->format), pieces_of_block = block.cols / piece;
    g.scale_row = block.rows ? block.cols ? ceil_div(g.cols, block.cols) : 1 : 0;
    g.scale_col = block.cols ? 1 : 0;
    divide_rows(&g, ceil_div(g.cols, piece));
    g.rows_shift = shift_of(block.rows);
    g.cols_shift = shift_of(pieces_of_block);
    g.wide = g.cols % piece == 0 && wide_aligned(g.out, g.out_pitch, dst->format) &&
             codes_aligned(g.in, g.in_pitch, bits, piece) && (!block.rows || g.rows_shift < 31) &&
             (!block.cols || (block.cols % piece == 0 && g.cols_shift < 31));
    /* Neighbouring pieces have neighbouring scales: blocks along rows that divide them, whole rows, or one scale. */
    const int64_t run = block.rows == 0  ? block.cols == 0 ? INT32_MAX : 0
                        : block.rows > 1 ? 0
                        : block.cols     ? pieces_of_block
                                         : g.piece_row;
    g.flat_shift = shift_of(run);
    g.flat = g.wide && g.out_pitch == g.cols && g.in_pitch * 8 == g.cols * bits &&
             (g.flat_shift < 31 || (run == INT32_MAX && g.pieces < INT32_MAX)) &&
             !(block.cols && g.cols % block.cols) && !(bits == 6 && (g.cols & 31 || (uintptr_t)g.in & 7));
    if (g.in_pitch > UINT32_MAX || g.out_pitch > UINT32_MAX || g.scale_row > UINT32_MAX) g.wide = g.flat;
    const int64_t share = THREADS * BRCI_DEQUANTIZE_AHEAD(bits),
                  grid = g.wide ? ceil_div(g.pieces, share) : ceil_div(g.rows * g.cols, THREADS);
    return launch(kernel, grid, THREADS, 0, &g, stream, err);
}
