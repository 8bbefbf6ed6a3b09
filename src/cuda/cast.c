/* SPDX-License-Identifier: Apache-2.0
 *
 * Casts and dequantization on the GPU: check, pick the kernel's row, launch. */
#include <string.h>

#include "driver.h"

#define TRY(e)                                                                                                         \
    do {                                                                                                               \
        brc_status s_ = (e);                                                                                           \
        if (s_ != BRC_OK) return s_;                                                                                   \
    } while (0)

enum { FP8_BLOCKS, MX_BLOCKS, NV_BLOCKS, INT_BLOCKS, GIVEN, CURRENT, SQUARES, ROW, NARROW_ROW, GLOBAL_SCALE, BACK };
enum { THREADS = 256, BLOCKS_AN_SM = 8 };

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

/* An array of rows: the last dimension is contiguous, the leading ones dense. */
static brc_status rows_of(const brc_array *a, brci_cast_args *g, int64_t *pitch, int64_t *batch, brc_error *err) {
    if (a->rank < 1 || a->rank > BRC_MAX_RANK) return brci_cuda_fail(err, BRC_SHAPE, "an array of rank %d", a->rank);
    const int last = a->rank - 1;
    g->cols = a->shape[last];
    g->rows = 1;
    *batch = 1;
    for (int i = 0; i < last; i++) g->rows *= a->shape[i];
    for (int i = 0; i + 1 < last; i++) *batch *= a->shape[i];
    *pitch = last ? a->stride[last - 1] : g->cols;
    if (g->rows == 0 || g->cols == 0) return BRC_OK;
    if (a->shape[last] > 1 && a->stride[last] != 1)
        return brci_cuda_fail(err, BRC_UNSUPPORTED, "the GPU takes rows of neighbouring elements only");
    for (int i = last - 2; i >= 0; i--)
        if (a->shape[i] > 1 && a->stride[i] != a->stride[i + 1] * a->shape[i + 1])
            return brci_cuda_fail(err, BRC_UNSUPPORTED, "the GPU takes dense leading dimensions only");
    return BRC_OK;
}

static int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
static int wide_bytes(int format) { return format == BRC_F32 ? 4 : 2; }
static int code_bits(int format) {
    const brc_format_info *f = brc_format_get((brc_format)format);
    return f ? f->bits : 0;
}

/* Blocks of a persistent grid: enough groups for each thread, but no more blocks than can be resident. */
static uint32_t grid_for(int64_t work, int sms, int an_sm) {
    const int64_t most = (int64_t)sms * an_sm;
    return (uint32_t)(work < 1 ? 1 : work < most ? work : most);
}

static brc_status launch(int kernel, uint32_t grid, int cooperative, brci_cast_args *g, void *stream, brc_error *err) {
    brci_launch l = {kernel, {grid, 1, 1}, THREADS, 0, 1, cooperative, !cooperative, g};
    return brci_cuda_launch(&l, stream, err);
}

brc_status brc_cuda_cast(const brc_array *src, const brc_recipe *r, const brc_cuda_cast_options *options,
                         brc_tensor *dst, void *stream, brc_error *err) {
    const brc_cuda_cast_options none = {sizeof none, 0, 0, NULL, NULL, NULL}, *o = options ? options : &none;
    const brc_block block = r->block;
    const brc_format_info *element = brc_format_get((brc_format)r->element);
    brci_cast_args g;
    int64_t batch = 1;
    int sms = 0, shape, bits = code_bits(r->element);
    TRY(brci_cuda_ready(&sms, err));
    if (src->format != BRC_F32 && src->format != BRC_F16 && src->format != BRC_BF16)
        return brci_cuda_fail(err, BRC_FORMAT, "the GPU casts from F32, F16 and BF16");
    memset(&g, 0, sizeof g);
    TRY(rows_of(src, &g, &g.in_pitch, &batch, err));
    if (dst->format != r->element || dst->rank != src->rank)
        return brci_cuda_fail(err, BRC_SHAPE, "the destination was planned for something else");

    g.in = src->data;
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
    g.given = o->delayed;
    g.amax = o->amax;
    g.scratch = o->scratch;

    const int fp8 = r->element == BRC_E4M3 || r->element == BRC_E5M2, whole_row = block.rows == 1 && block.cols == 0;
    const int mx_rule = r->rule >= BRC_RULE_RCEIL && r->rule <= BRC_RULE_EVEN;
    if (r->arith > BRC_ARITH_RECIP)
        return brci_cuda_fail(err, BRC_UNSUPPORTED, "the GPU has no cast with arith=%s", brc_arith_name(r->arith));
    if (r->zero != BRC_NONE) return brci_cuda_fail(err, BRC_UNSUPPORTED, "the GPU has no cast with zero points");
    if (fp8 && r->scale == BRC_F32 && r->rule == BRC_RULE_AMAX && block.rows == 0 && block.cols == 0)
        shape = o->delayed ? GIVEN : CURRENT;
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

    if (shape == ROW && g.cols <= 2048) shape = NARROW_ROW;
    const int kernel = kernel_of(shape, src->format, r->element);
    if (kernel < 0)
        return brci_cuda_fail(err, BRC_UNSUPPORTED, "the GPU has no cast to %s in blocks of %u x %u", element->name,
                              block.rows, block.cols);
    if (shape == SQUARES && batch > 1 && g.rows / batch % 128)
        return brci_cuda_fail(err, BRC_UNSUPPORTED, "batches of rows that are no multiple of 128");
    if (!g.rows || !g.cols) return BRC_OK;
    if (shape == CURRENT && !g.scratch)
        return brci_cuda_fail(err, BRC_ARGUMENT, "current scaling needs %d bytes of scratch", BRC_CUDA_SCRATCH);

    const int64_t lanes = block.cols >= 8 && shape != SQUARES ? block.cols / 8 : 1,
                  blocks_row = block.cols ? ceil_div(g.cols, block.cols) : 1;
    const int64_t blocks_rows = block.rows ? ceil_div(g.rows, block.rows) : 1;
    const uint64_t low = (uint64_t)(uintptr_t)g.in | (uint64_t)g.in_pitch * (uint64_t)wide_bytes(src->format);
    const uint64_t out_low = (uint64_t)(uintptr_t)g.out | (uint64_t)g.out_pitch;
    g.wide = !(low & 15) && !(g.cols & 7) && !(out_low & (uint64_t)(bits == 8 ? 7 : bits == 4 ? 3 : 1));
    g.flat = g.wide && g.in_pitch == g.cols && g.out_pitch * 8 == g.cols * bits && !(block.cols && g.cols % block.cols);
    g.unit_row = (uint32_t)(block.cols && shape != SQUARES ? blocks_row * lanes : ceil_div(g.cols, 8));
    g.units = g.rows * g.unit_row;
    g.scale_row = blocks_row;
    g.scale_col = 1;
    if (o->scales_by_column) {
        g.scale_row = 1;
        g.scale_col = o->scale_pitch ? o->scale_pitch : blocks_rows;
    }

    if (shape == NV_BLOCKS && r->levels == 2) {
        if (!dst->global.data) return brci_cuda_fail(err, BRC_ARGUMENT, "NVFP4 with two levels needs dst->global");
        if (o->scratch) {
            brci_cast_args find = g;
            find.out = dst->global.data;
            TRY(launch(kernel_of(GLOBAL_SCALE, src->format, 0),
                       grid_for(ceil_div(g.units, THREADS * 8), sms, BLOCKS_AN_SM), 0, &find, stream, err));
        }
        g.global = dst->global.data;
    }

    uint32_t grid;
    if (shape == ROW) grid = grid_for(g.rows, sms, 64);
    else if (shape == NARROW_ROW) grid = grid_for(ceil_div(g.rows, THREADS / 32), sms, 64);
    else if (shape == SQUARES) grid = grid_for(ceil_div(g.rows, 128) * blocks_row, sms, 64);
    else if (shape == CURRENT) grid = grid_for(ceil_div(g.units, THREADS * 4), sms, 3);
    else grid = grid_for(ceil_div(g.units, THREADS * 4), sms, BLOCKS_AN_SM);
    return launch(kernel, grid, shape == CURRENT, &g, stream, err);
}

brc_status brc_cuda_dequantize(const brc_tensor *src, brc_array *dst, void *stream, brc_error *err) {
    brci_cast_args g;
    int64_t batch = 1;
    int sms = 0;
    TRY(brci_cuda_ready(&sms, err));
    if (dst->format != BRC_F32 && dst->format != BRC_F16 && dst->format != BRC_BF16)
        return brci_cuda_fail(err, BRC_FORMAT, "the GPU dequantizes to F32, F16 and BF16");
    if (src->rank != dst->rank || memcmp(src->shape, dst->shape, sizeof *src->shape * src->rank))
        return brci_cuda_fail(err, BRC_SHAPE, "source and destination differ in shape");
    if (src->zero.data || src->group_index)
        return brci_cuda_fail(err, BRC_UNSUPPORTED, "the GPU has no dequantize with zero points or a group index");
    memset(&g, 0, sizeof g);
    TRY(rows_of(dst, &g, &g.out_pitch, &batch, err));
    const int kernel = kernel_of(BACK, dst->format, src->format), bits = code_bits(src->format);
    if (kernel < 0) return brci_cuda_fail(err, BRC_UNSUPPORTED, "the GPU has no dequantize for this element format");
    if (src->scale.kind != BRC_KIND_MULTIPLIER)
        return brci_cuda_fail(err, BRC_UNSUPPORTED, "the GPU takes scales that multiply");
    if (src->global.data &&
        (src->global.block.batch || src->global.block.rows || src->global.block.cols || src->global.format != BRC_F32))
        return brci_cuda_fail(err, BRC_UNSUPPORTED, "the GPU takes one global scale in F32");
    brc_block block = src->scale.block;
    if (block.batch == 1 && batch > 1 && (!block.rows || g.rows / batch % block.rows))
        return brci_cuda_fail(err, BRC_UNSUPPORTED, "the GPU takes blocks that divide a batch's rows");
    if (!block.batch && batch > 1 && block.rows)
        return brci_cuda_fail(err, BRC_UNSUPPORTED, "the GPU has no blocks across batches");
    if (!g.rows || !g.cols) return BRC_OK;
    g.in = src->data;
    g.out = dst->data;
    g.in_pitch = src->row_pitch;
    g.scale = src->scale.data;
    g.scale_format = src->scale.format;
    if (g.scale_format != BRC_F32 && g.scale_format != BRC_E8M0 && g.scale_format != BRC_E4M3 &&
        g.scale_format != BRC_F16 && g.scale_format != BRC_BF16)
        return brci_cuda_fail(err, BRC_UNSUPPORTED, "the GPU takes scales of F32, F16, BF16, E8M0 and E4M3");
    g.global = src->global.data;
    g.global_kind = src->global.kind == BRC_KIND_MULTIPLIER ? 0 : src->global.kind == BRC_KIND_DIVISOR ? 1 : 2;
    g.global_constant = src->global.constant;
    g.block_rows = block.rows;
    g.block_cols = block.cols;
    g.scale_row = block.cols ? ceil_div(g.cols, block.cols) : 1;
    g.scale_col = 1;
    g.unit_row = (uint32_t)ceil_div(g.cols, 8);
    g.units = g.rows * g.unit_row;
    const uint64_t out_low = (uint64_t)(uintptr_t)g.out | (uint64_t)g.out_pitch * (uint64_t)wide_bytes(dst->format);
    const uint64_t in_low = (uint64_t)(uintptr_t)g.in | (uint64_t)g.in_pitch;
    g.wide = !(out_low & 15) && !(g.cols & 7) && !(block.cols & 7) &&
             !(in_low & (uint64_t)(bits == 8   ? 7
                                   : bits == 4 ? 3
                                               : 1));
    return launch(kernel, grid_for(ceil_div(g.units, THREADS * 4), sms, BLOCKS_AN_SM), 0, &g, stream, err);
}
