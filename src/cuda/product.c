/* SPDX-License-Identifier: Apache-2.0
 *
 * FP8 products on the GPU: check, plan, describe the operands, launch. */
#include <string.h>

#include "driver.h"
#include "plan.h"
#include "shape.h"

#define TRY(e)                                                                                                         \
    do {                                                                                                               \
        brc_status s_ = (e);                                                                                           \
        if (s_ != BRC_OK) return s_;                                                                                   \
    } while (0)

enum { PLANS = 64 };

static int out_type(int format) {
    return format == BRC_F32 ? BRCI_OUT_F32 : format == BRC_F16 ? BRCI_OUT_F16 : BRCI_OUT_BF16;
}

static brc_status check(const brc_cuda_product *p, brc_error *err) {
    if (p->d_format != BRC_F32 && p->d_format != BRC_F16 && p->d_format != BRC_BF16)
        return brci_cuda_fail(err, BRC_FORMAT, "the result of an FP8 product is F32, F16 or BF16");
    if (p->bias && p->bias_format != BRC_F32 && p->bias_format != BRC_F16 && p->bias_format != BRC_BF16)
        return brci_cuda_fail(err, BRC_FORMAT, "the bias of an FP8 product is F32, F16 or BF16");
    if ((p->a_pitch && p->a_pitch < p->k) || (p->b_pitch && p->b_pitch < p->k) || (p->d_pitch && p->d_pitch < p->n))
        return brci_cuda_fail(err, BRC_SHAPE, "a pitch is shorter than its row");
    if (p->m && p->n && (!p->d || !p->a_scale || !p->b_scale || (p->k && (!p->a || !p->b))))
        return brci_cuda_fail(err, BRC_ARGUMENT, "a pointer of the product is NULL");
    return BRC_OK;
}

/* The planner's choice, remembered by this thread: planning takes longer than launching. */
static brc_status choose(const brc_cuda_product *p, int sms, brc_cuda_plan *plan, brc_error *err) {
    static _Thread_local struct {
        int64_t m, n, k;
        uint32_t kind;
        int sms;
        brc_cuda_plan plan;
    } known[PLANS];
    const uint32_t kind = 1u | (uint32_t)p->a_format << 1 | (uint32_t)p->b_format << 9 |
                          (uint32_t)brci_product_mode(p) << 17 | (uint32_t)brci_addressable(p) << 20 |
                          (uint32_t)p->scaling << 21;
    const uint64_t hash = ((uint64_t)p->m * 0x9E3779B97F4A7C15u ^ (uint64_t)p->n * 0xC2B2AE3D27D4EB4Fu ^
                           (uint64_t)p->k * 0x165667B19E3779F9u) +
                          kind;
    const int at = (int)((hash >> 40 ^ hash >> 20) % PLANS);
    if (known[at].m != p->m || known[at].n != p->n || known[at].k != p->k || known[at].kind != kind ||
        known[at].sms != sms) {
        known[at].kind = 0;
        TRY(brc_cuda_plan_product(p, sms, &known[at].plan, err));
        known[at].m = p->m;
        known[at].n = p->n;
        known[at].k = p->k;
        known[at].kind = kind;
        known[at].sms = sms;
    }
    *plan = known[at].plan;
    return BRC_OK;
}

static brc_status run_plain(const brc_cuda_product *p, void *stream, brc_error *err) {
    brci_plain_args g;
    memset(&g, 0, sizeof g);
    g.a = p->a;
    g.b = p->b;
    g.d = p->d;
    g.row_scale = p->a_scale;
    g.col_scale = p->b_scale;
    g.bias = p->bias;
    g.lda = p->a_pitch ? p->a_pitch : p->k;
    g.ldb = p->b_pitch ? p->b_pitch : p->k;
    g.ldd = p->d_pitch ? p->d_pitch : p->n;
    g.row_pitch = p->a_scale_pitch ? p->a_scale_pitch : p->m;
    g.col_pitch = p->b_scale_pitch ? p->b_scale_pitch : p->scaling == BRC_CUDA_BLOCK ? (p->k + 127) / 128 : p->n;
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
    if (p->m > 64 * 65535) return brci_cuda_fail(err, BRC_LIMIT, "the plain kernel takes at most 4194240 rows of a");
    brci_launch l = {
        BRCI_KERNEL_PLAIN, {(uint32_t)((p->n + 63) / 64), (uint32_t)((p->m + 63) / 64), 1}, 256, 0, 1, 0, 0, &g};
    return brci_cuda_launch(&l, stream, err);
}

static brc_status view(const void *data, int64_t inner, int64_t outer, int64_t pitch, int box_inner, int box_outer,
                       int bytes, brci_map *map, brc_error *err) {
    brci_view v;
    memset(&v, 0, sizeof v);
    v.data = data;
    v.inner = (uint64_t)inner;
    v.outer = (uint64_t)outer;
    v.pitch = (uint64_t)pitch;
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
    if (!p->m || !p->n) return BRC_OK;
    if (p->plan) plan = *p->plan;
    else TRY(choose(p, sms, &plan, err));
    if (plan.kernel < 0) return run_plain(p, stream, err);
    if (plan.kernel >= brci_row_count || !brci_addressable(p))
        return brci_cuda_fail(err, BRC_ARGUMENT, "the plan does not fit the product");

    const brci_row *r = &brci_rows[plan.kernel];
    const int64_t blocks = (p->k + 127) / 128, d_pitch = p->d_pitch ? p->d_pitch : p->n;
    const int64_t a_scale_pitch = p->a_scale_pitch ? p->a_scale_pitch : p->m;
    const int block = p->scaling == BRC_CUDA_BLOCK || p->scaling == BRC_CUDA_BLOCK_ROWS;
    brci_gemm_args g;
    memset(&g, 0, sizeof g);

    const int box_a = r->units && plan.share ? r->bn / plan.cluster
                      : r->share == BRCI_A   ? plan.tile_m / 2
                                             : plan.tile_m;
    const int box_b = r->units ? plan.rows : r->share == BRCI_B ? plan.tile_n / 2 : plan.tile_n;
    TRY(view(p->a, p->k, p->m, p->a_pitch ? p->a_pitch : p->k, 128, box_a, 1, &g.a, err));
    TRY(view(p->b, p->k, p->n, p->b_pitch ? p->b_pitch : p->k, 128, box_b, 1, &g.b, err));
    if (block) TRY(view(p->a_scale, p->m, blocks, a_scale_pitch * 4, plan.tile_m, 1, 4, &g.a_scale, err));
    if (p->scaling == BRC_CUDA_BLOCK_ROWS)
        TRY(view(p->b_scale, p->n, blocks, (p->b_scale_pitch ? p->b_scale_pitch : p->n) * 4, plan.tile_n, 1, 4,
                 &g.b_scale, err));

    g.d = p->d;
    g.row_scale = p->a_scale;
    g.col_scale = p->b_scale;
    g.bias = p->bias;
    g.ldd = d_pitch;
    g.col_pitch = p->b_scale_pitch ? p->b_scale_pitch : blocks;
    g.m = (int32_t)p->m;
    g.n = (int32_t)p->n;
    g.k_steps = (int32_t)blocks;
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
    g.wide = g.out != BRCI_OUT_F32 && !g.accumulate && !(d_pitch & 7) && !(p->n & 7) && !((uintptr_t)p->d & 15);
    if (!r->units) {
        const int64_t um = (int64_t)plan.tile_m * (r->share == BRCI_B ? 2 : 1),
                      un = (int64_t)plan.tile_n * (r->share == BRCI_A ? 2 : 1);
        g.tiles_m = (int32_t)((p->m + um - 1) / um);
        g.tiles_n = (int32_t)((p->n + un - 1) / un);
        g.wide = g.wide && !g.bias; /* the wide way of gemm.cuh adds no bias */
        if (g.wide) TRY(view(p->d, p->n, p->m, d_pitch * 2, 64, 16, 2, &g.d_map, err));
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
