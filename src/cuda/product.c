/* SPDX-License-Identifier: Apache-2.0
 *
 * FP8 products on the GPU: check, plan, describe the operands, launch. */
#include <string.h>

#include "core/status.h"
#include "driver.h"
#include "plan.h"
#include "shape.h"

enum { PLANS = 64 };

static int out_type(int format) {
    return format == BRC_F32 ? BRCI_OUT_F32 : format == BRC_F16 ? BRCI_OUT_F16 : BRCI_OUT_BF16;
}

static brc_status check(const brc_cuda_product *p, brc_error *err) {
    TRY(brci_product_check(p, err));
    if (p->d_format != BRC_F32 && p->d_format != BRC_F16 && p->d_format != BRC_BF16)
        return brci_cuda_fail(err, BRC_FORMAT, "the result of an FP8 product is F32, F16 or BF16");
    if (p->bias && p->bias_format != BRC_F32 && p->bias_format != BRC_F16 && p->bias_format != BRC_BF16)
        return brci_cuda_fail(err, BRC_FORMAT, "the bias of an FP8 product is F32, F16 or BF16");
    if ((p->a_pitch && p->a_pitch < p->k) || (p->b_pitch && p->b_pitch < p->k) || (p->d_pitch && p->d_pitch < p->n))
        return brci_cuda_fail(err, BRC_SHAPE, "a pitch is shorter than its row");
    /* Of block scales, where there is more than one row of them. */
    const int block = p->scaling == BRC_CUDA_BLOCK, block_rows = p->scaling == BRC_CUDA_BLOCK_ROWS;
    const int64_t blocks = (p->k + 127) / 128;
    if (((block || block_rows) && blocks > 1 && p->a_scale_pitch && p->a_scale_pitch < p->m) ||
        (block_rows && blocks > 1 && p->b_scale_pitch && p->b_scale_pitch < p->n) ||
        (block && p->n > 128 && p->b_scale_pitch && p->b_scale_pitch < blocks))
        return brci_cuda_fail(err, BRC_SHAPE, "a pitch of scales is shorter than its row");
    if (p->grouping && (p->a_step < 0 || p->b_step < 0 || p->d_step < 0 || p->a_scale_step < 0 || p->b_scale_step < 0))
        return brci_cuda_fail(err, BRC_SHAPE, "a step from one product to the next is negative");
    if (p->m && p->n && (!p->d || !p->a_scale || !p->b_scale || (p->k && (!p->a || !p->b))))
        return brci_cuda_fail(err, BRC_ARGUMENT, "a pointer of the product is NULL");
    if (p->grouping > BRC_CUDA_BATCH && p->groups && p->m && !p->group_rows)
        return brci_cuda_fail(err, BRC_ARGUMENT, "products with rows known to the device need group_rows");
    TRY(brci_cuda_aligned(p->d, p->d_format, "the result", err));
    if (p->bias) TRY(brci_cuda_aligned(p->bias, p->bias_format, "the bias", err));
    TRY(brci_cuda_aligned(p->a_scale, BRC_F32, "scales of a", err));
    return brci_cuda_aligned(p->b_scale, BRC_F32, "scales of b", err);
}

/* Pitches and steps with their defaults filled in. */
typedef struct layout {
    int64_t blocks, a_pitch, b_pitch, d_pitch, a_scale_pitch, b_scale_pitch;
    int64_t a_step, b_step, d_step, a_scale_step, b_scale_step;
    int64_t a_count; /* products along a, its scales and d: 1 where all have their rows in one */
} layout;

static int64_t or_else(int64_t given, int64_t otherwise) { return given ? given : otherwise; }

static layout lay_out(const brc_cuda_product *p) {
    layout l = {0};
    const int whole = p->grouping == BRC_CUDA_BATCH || p->grouping == BRC_CUDA_MASKED;
    l.blocks = (p->k + 127) / 128;
    l.a_pitch = or_else(p->a_pitch, p->k);
    l.b_pitch = or_else(p->b_pitch, p->k);
    l.d_pitch = or_else(p->d_pitch, p->n);
    l.a_scale_pitch = or_else(p->a_scale_pitch, p->m);
    l.b_scale_pitch = or_else(p->b_scale_pitch, p->scaling == BRC_CUDA_BLOCK ? l.blocks : p->n);
    l.a_count = whole ? p->groups : 1;
    l.a_step = or_else(p->a_step, p->m * l.a_pitch);
    l.b_step = or_else(p->b_step, p->n * l.b_pitch);
    l.d_step = or_else(p->d_step, p->m * l.d_pitch);
    const int rows = p->scaling == BRC_CUDA_PER_ROW;
    l.a_scale_step = or_else(p->a_scale_step, p->scaling >= BRC_CUDA_BLOCK ? l.blocks * l.a_scale_pitch
                                              : rows                       ? p->m
                                                                           : 1);
    l.b_scale_step = or_else(p->b_scale_step, p->scaling == BRC_CUDA_BLOCK        ? (p->n + 127) / 128 * l.b_scale_pitch
                                              : p->scaling == BRC_CUDA_BLOCK_ROWS ? l.blocks * l.b_scale_pitch
                                              : rows                              ? p->n
                                                                                  : 1);
    return l;
}

/* The planner's choice, remembered by this thread: planning takes longer than launching. */
static brc_status choose(const brc_cuda_product *p, int sms, brc_cuda_plan *plan, brc_error *err) {
    static _Thread_local struct {
        int64_t m, n, k, expected;
        uint32_t kind;
        int sms, groups;
        brc_cuda_plan plan;
    } known[PLANS];
    const uint32_t kind = 1u | (uint32_t)p->a_format << 1 | (uint32_t)p->b_format << 9 |
                          (uint32_t)brci_product_mode(p) << 17 | (uint32_t)brci_addressable(p) << 20 |
                          (uint32_t)p->scaling << 21 | (uint32_t)p->grouping << 24;
    const uint64_t hash = ((uint64_t)p->m * 0x9E3779B97F4A7C15u ^ (uint64_t)p->n * 0xC2B2AE3D27D4EB4Fu ^
                           (uint64_t)p->k * 0x165667B19E3779F9u) +
                          kind;
    const int at = (int)((hash >> 40 ^ hash >> 20) % PLANS);
    if (known[at].m != p->m || known[at].n != p->n || known[at].k != p->k || known[at].kind != kind ||
        known[at].sms != sms || known[at].groups != p->groups || known[at].expected != p->expected_rows) {
        known[at].kind = 0;
        TRY(brc_cuda_plan_product(p, sms, &known[at].plan, err));
        known[at].m = p->m;
        known[at].n = p->n;
        known[at].k = p->k;
        known[at].kind = kind;
        known[at].sms = sms;
        known[at].groups = p->groups;
        known[at].expected = p->expected_rows;
    }
    *plan = known[at].plan;
    return BRC_OK;
}

static brc_status run_plain(const brc_cuda_product *p, const layout *o, void *stream, brc_error *err) {
    brci_plain_args g;
    memset(&g, 0, sizeof g);
    g.a = p->a;
    g.b = p->b;
    g.d = p->d;
    g.row_scale = p->a_scale;
    g.col_scale = p->b_scale;
    g.bias = p->bias;
    g.lda = o->a_pitch;
    g.ldb = o->b_pitch;
    g.ldd = o->d_pitch;
    g.row_pitch = o->a_scale_pitch;
    g.col_pitch = o->b_scale_pitch;
    g.m = (int32_t)p->m;
    g.n = (int32_t)p->n;
    g.k = (int32_t)p->k;
    g.row_stride = g.col_stride = p->scaling == BRC_CUDA_PER_ROW;
    g.a_e5m2 = p->a_format == BRC_E5M2;
    g.b_e5m2 = p->b_format == BRC_E5M2;
    g.scaling = p->scaling;
    g.out = out_type(p->d_format);
    g.bias_type = out_type(p->bias_format);
    g.accumulate = (p->flags & BRC_CUDA_ACCUMULATE) != 0;
    g.groups = p->grouping ? p->groups : 1;
    g.grouping = p->grouping ? p->grouping - BRC_CUDA_BATCH : BRCI_GROUPS_BATCH;
    g.group_rows = p->group_rows;
    g.a_step = o->a_step;
    g.b_step = o->b_step;
    g.d_step = o->d_step;
    g.row_step = o->a_scale_step;
    g.col_step = o->b_scale_step;
    if (p->m > 64 * 65535) return brci_cuda_fail(err, BRC_LIMIT, "the plain kernel takes at most 4194240 rows of a");
    const uint32_t deep = g.grouping == BRCI_GROUPS_INDEXED ? 1 : (uint32_t)g.groups;
    brci_launch l = {
        BRCI_KERNEL_PLAIN, {(uint32_t)((p->n + 63) / 64), (uint32_t)((p->m + 63) / 64), deep}, 256, 0, 1, 0, 0, &g};
    return brci_cuda_launch(&l, stream, err);
}

/* count, step: of the third axis, where the kernel has one. */
static brc_status view(const void *data, int64_t inner, int64_t outer, int64_t pitch, int64_t count, int64_t step,
                       int box_inner, int box_outer, int bytes, brci_map *map, brc_error *err) {
    brci_boxed v;
    memset(&v, 0, sizeof v);
    v.data = data;
    v.inner = (uint64_t)inner;
    v.outer = (uint64_t)outer;
    v.pitch = (uint64_t)pitch;
    v.count = (uint64_t)count;
    v.step = count ? (uint64_t)step : 0;
    v.box_inner = (uint32_t)box_inner;
    v.box_outer = (uint32_t)box_outer;
    v.bytes = (uint32_t)bytes;
    return brci_cuda_map(&v, map, err);
}

brc_status brc_cuda_matmul(const brc_cuda_product *p, void *stream, brc_error *err) {
    int sms = 0;
    brc_cuda_plan plan;
    TRY(check(p, err));
    TRY(brci_cuda_ready(BRCI_HOPPER, &sms, err));
    if (!p->m || !p->n || (p->grouping && !p->groups)) return BRC_OK;
    const layout o = lay_out(p);
    if (p->plan) plan = *p->plan;
    else TRY(choose(p, sms, &plan, err));
    if (plan.kernel < 0) return run_plain(p, &o, stream, err);
    if (p->plan && !brci_plan_fits(p, &plan))
        return brci_cuda_fail(err, BRC_ARGUMENT, "the plan does not fit the product");

    const brci_row *r = &brci_rows[plan.kernel];
    const int block = p->scaling == BRC_CUDA_BLOCK || p->scaling == BRC_CUDA_BLOCK_ROWS;
    brci_gemm_args g;
    memset(&g, 0, sizeof g);

    const int box_a = r->units && plan.share ? r->bn / plan.cluster
                      : r->share == BRCI_A   ? plan.tile_m / 2
                                             : plan.tile_m;
    const int box_b = r->units ? plan.rows : r->share == BRCI_B ? plan.tile_n / 2 : plan.tile_n;
    const int64_t deep = p->grouping ? p->groups : 0, a_deep = p->grouping ? o.a_count : 0;
    TRY(view(p->a, p->k, p->m, o.a_pitch, a_deep, o.a_step, 128, box_a, 1, &g.a, err));
    TRY(view(p->b, p->k, p->n, o.b_pitch, deep, o.b_step, 128, box_b, 1, &g.b, err));
    if (block)
        TRY(view(p->a_scale, p->m, o.blocks, o.a_scale_pitch * 4, a_deep, o.a_scale_step * 4, plan.tile_m, 1, 4,
                 &g.a_scale, err));
    if (p->scaling == BRC_CUDA_BLOCK_ROWS)
        TRY(view(p->b_scale, p->n, o.blocks, o.b_scale_pitch * 4, deep, o.b_scale_step * 4, plan.tile_n, 1, 4,
                 &g.b_scale, err));

    g.d = p->d;
    g.row_scale = p->a_scale;
    g.col_scale = p->b_scale;
    g.bias = p->bias;
    g.ldd = o.d_pitch;
    g.col_pitch = o.b_scale_pitch;
    g.m = (int32_t)p->m;
    g.n = (int32_t)p->n;
    g.k_steps = (int32_t)o.blocks;
    g.row_stride = g.col_stride = p->scaling == BRC_CUDA_PER_ROW;
    g.out = out_type(p->d_format);
    g.bias_type = out_type(p->bias_format);
    g.accumulate = (p->flags & BRC_CUDA_ACCUMULATE) != 0;
    g.scaled = block;
    g.early = (p->flags & BRC_CUDA_B_UNCHANGED) && !(p->flags & BRC_CUDA_NO_OVERLAP);
    g.group = plan.group;
    g.group_n = plan.group_n;
    g.rows = plan.rows;
    g.stages = plan.stages;
    g.share = plan.share;
    if (p->grouping) {
        g.groups = p->groups;
        g.grouping = p->grouping - BRC_CUDA_BATCH;
        g.group_rows = p->group_rows;
        g.d_step = o.d_step;
        g.row_step = o.a_scale_step;
        g.col_step = o.b_scale_step;
    }
    g.wide = g.out != BRCI_OUT_F32 && !g.accumulate && !(o.d_pitch & 7) && !(p->n & 7) && !((uintptr_t)p->d & 15) &&
             !(p->grouping && o.d_step & 7);
    if (!r->units) {
        const int64_t um = (int64_t)plan.tile_m * (r->share == BRCI_B ? 2 : 1),
                      un = (int64_t)plan.tile_n * (r->share == BRCI_A ? 2 : 1);
        g.tiles_m = (int32_t)((p->m + um - 1) / um);
        g.tiles_n = (int32_t)((p->n + un - 1) / un);
        g.wide = g.wide && !g.bias; /* the wide way of gemm.cuh adds no bias */
        if (g.wide) TRY(view(p->d, p->n, p->m, o.d_pitch * 2, a_deep, o.d_step * 2, 64, 16, 2, &g.d_map, err));
    }

    brci_launch l = {plan.kernel,
                     {(uint32_t)plan.grid, 1, 1},
                     BRCI_THREADS,
                     (uint32_t)plan.shared_bytes,
                     (uint32_t)plan.cluster,
                     0,
                     !(p->flags & BRC_CUDA_NO_OVERLAP),
                     &g};
    return brci_cuda_launch(&l, stream, err);
}
