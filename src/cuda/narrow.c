/* SPDX-License-Identifier: Apache-2.0
 *
 * Products with packed narrow weights: describe, pack, plan, launch. */
#include <string.h>

#include "core/status.h"
#include "driver.h"
#include "shape.h"

/* Every row of narrow.def. mw = 0: a row of narrow_few.cuh. */
static const struct row {
    int kind, group, activations, tokens, mw, wgs, kernel;
} rows[] = {
#define NARROW_FEW(codes, scales, group, a, nb)                                                                        \
    {BRCI_CODES_##codes * 4 + BRCI_SCALES_##scales,                                                                    \
     group,                                                                                                            \
     BRC_##a,                                                                                                          \
     nb,                                                                                                               \
     0,                                                                                                                \
     0,                                                                                                                \
     BRCI_KERNEL_NARROW_FEW_##codes##_##scales##_##group##_##a##_##nb},
#define NARROW_MANY(codes, scales, group, a, nb, mw, wgs)                                                              \
    {BRCI_CODES_##codes * 4 + BRCI_SCALES_##scales,                                                                    \
     group,                                                                                                            \
     BRC_##a,                                                                                                          \
     nb,                                                                                                               \
     mw,                                                                                                               \
     wgs,                                                                                                              \
     BRCI_KERNEL_NARROW_MANY_##codes##_##scales##_##group##_##a##_##nb##_##mw},
#include "narrow.def"
};
enum { ROWS = sizeof rows / sizeof *rows };

static const double MEMORY = 4.5e12, CACHE = 7.5e12,
                    WIDE_CACHE = 10.5e12;               /* bytes a second from memory; out of L2, few and many tokens */
static const double CLOCK = 1.7e9;                      /* Hz */
static const double START = 5.5e-6, FEW_START = 4.3e-6; /* s: launch, first bytes, last sums */

static const float NEVER = 1e9f; /* us */
enum { FEW = 16 };               /* tokens that narrow_few.cuh takes */

static int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

static int out_type(int format) {
    return format == BRC_F32 ? BRCI_OUT_F32 : format == BRC_F16 ? BRCI_OUT_F16 : BRCI_OUT_BF16;
}
static int plain(int format) { return format == BRC_F32 || format == BRC_F16 || format == BRC_BF16; }

/* ------------------------------------------------------------------------------------------------- packing */

brc_status brc_cuda_pack_plan(const brc_tensor *w, brc_format activations, brc_cuda_packed *p, brc_error *err) {
    if (!w || w->size < sizeof *w || !p)
        return brci_cuda_fail(err, BRC_ARGUMENT,
                              "the weights, or where to describe them, are missing or of another version");
    const brc_block block = w->scale.block;
    int codes, scales, group = 128, bytes;
    if (w->rank != 2) return brci_cuda_fail(err, BRC_SHAPE, "packed weights are [n, k], not of rank %d", w->rank);
    const int64_t n = w->shape[0], k = w->shape[1];
    if (n < 1 || k < 1 || n > INT32_MAX - 1024 || k > INT32_MAX - 1024)
        return brci_cuda_fail(err, BRC_SHAPE, "weights of %lld x %lld cannot be packed", (long long)n, (long long)k);
    if (activations != BRC_BF16 && activations != BRC_F16 && activations != BRC_E4M3)
        return brci_cuda_fail(err, BRC_FORMAT, "weights are packed for activations of BF16, F16 or E4M3");
    if (w->zero.data || w->group_index)
        return brci_cuda_fail(err, BRC_UNSUPPORTED, "weights with zero points or a group index cannot be packed");
    if (w->scale.kind != BRC_KIND_MULTIPLIER)
        return brci_cuda_fail(err, BRC_UNSUPPORTED, "packed weights have scales that multiply");
    if (w->global.format != BRC_NONE && w->global.format != BRC_F32)
        return brci_cuda_fail(err, BRC_UNSUPPORTED, "packed weights have a global scale in F32");
    if (w->global.format && (w->global.block.batch || w->global.block.rows || w->global.block.cols))
        return brci_cuda_fail(err, BRC_UNSUPPORTED, "packed weights have one global scale");

    const int mx = w->scale.format == BRC_E8M0 && block.rows == 1 && block.cols == 32;
    const int whole = block.cols == 0 || block.cols % 128 == 0;
    const int few = block.rows == 1 && (whole || block.cols == 32 || block.cols == 64);
    if (w->format == BRC_E2M1 && mx) codes = BRCI_CODES_E2M1, scales = BRCI_SCALES_MX, group = 32;
    else if (w->format == BRC_E2M1 && w->scale.format == BRC_E4M3 && block.rows == 1 && block.cols == 16)
        codes = BRCI_CODES_E2M1, scales = BRCI_SCALES_NV, group = 16;
    else if (w->format == BRC_INT4 && plain(w->scale.format) && few) {
        codes = BRCI_CODES_INT4, scales = BRCI_SCALES_PLAIN;
        if (!whole) group = (int)block.cols;
    } else if (w->format == BRC_E4M3 && mx) codes = BRCI_CODES_E4M3, scales = BRCI_SCALES_MX, group = 32;
    else if (w->format == BRC_E4M3 && plain(w->scale.format) && whole)
        codes = BRCI_CODES_E4M3, scales = BRCI_SCALES_PLAIN;
    else {
        const brc_format_info *e = brc_format_get((brc_format)w->format),
                              *s = brc_format_get((brc_format)w->scale.format);
        return brci_cuda_fail(err, BRC_UNSUPPORTED,
                              "there is no packed order for %s with scales of %s in blocks of %u x %u",
                              e ? e->name : "?", s ? s->name : "?", block.rows, block.cols);
    }

    if (activations == BRC_E4M3 &&
        (codes == BRCI_CODES_E4M3 || scales == BRCI_SCALES_NV || (codes == BRCI_CODES_INT4 && group != 128)))
        return brci_cuda_fail(err, BRC_UNSUPPORTED,
                              "activations of E4M3 take MXFP4 weights, and INT4 in groups that are multiples of 128");

    memset(p, 0, sizeof *p);
    p->size = (uint32_t)sizeof *p;
    p->format = w->format;
    p->scale_format = w->scale.format;
    p->activations = (uint8_t)activations;
    p->n = n;
    p->k = k;
    p->kind = codes * 4 + scales;
    p->group = group;
    if (scales == BRCI_SCALES_PLAIN) {
        /* Blocks of whole tiles have one scale a chunk. */
        const int one = w->scale.format == BRC_F32 && block.rows % 16 == 0;
        p->scale_stride = w->scale.format != BRC_F32 ? 4 : one ? 0 : 8;
        bytes = one ? 16 : 128 / group * 8 * p->scale_stride;
    } else bytes = 16 * 128 / group;
    p->chunk_bytes = (codes == BRCI_CODES_E4M3 ? 2048 : 1024) + bytes;
    p->bytes = ceil_div(n, 16) * (ceil_div(k, 128) * p->chunk_bytes + 64);
    return BRC_OK;
}

static int element_bytes(const brc_cuda_packed *p) { return p->activations == BRC_E4M3 ? 1 : 2; } /* of activations */

/* Row factors lie behind the chunks. */
static void *factors(const brc_cuda_packed *p) {
    return (uint8_t *)p->data + ceil_div(p->n, 16) * ceil_div(p->k, 128) * p->chunk_bytes;
}

brc_status brc_cuda_pack(const brc_tensor *w, const brc_cuda_packed *p, void *stream, brc_error *err) {
    brc_cuda_packed again;
    brci_pack_args g;
    if (!p) return brci_cuda_fail(err, BRC_ARGUMENT, "the packed weights are missing");
    TRY(brci_cuda_ready(BRCI_HOPPER, NULL, err));
    TRY(brc_cuda_pack_plan(w, (brc_format)p->activations, &again, err));
    again.data = p->data;
    if (memcmp(&again, p, sizeof again))
        return brci_cuda_fail(err, BRC_ARGUMENT, "the packed weights were planned for something else");
    if (!p->data || !w->data || !w->scale.data || (w->global.format && !w->global.data))
        return brci_cuda_fail(err, BRC_ARGUMENT, "a pointer of the weights is NULL");
    if ((uintptr_t)p->data & 127)
        return brci_cuda_fail(err, BRC_ARGUMENT, "packed weights start on a multiple of 128 bytes");
    TRY(brci_cuda_aligned(w->scale.data, w->scale.format, "scales of the weights", err));
    memset(&g, 0, sizeof g);
    g.in = w->data;
    g.scale = w->scale.data;
    g.global = w->global.format ? w->global.data : NULL;
    g.chunks = p->data;
    g.row_factor = factors(p);
    g.pitch = w->row_pitch;
    g.scale_row = w->scale.block.cols ? ceil_div(p->k, w->scale.block.cols) : 1;
    g.n = (int32_t)p->n;
    g.k = (int32_t)p->k;
    g.k_blocks = (int32_t)ceil_div(p->k, 128);
    g.chunk_bytes = p->chunk_bytes;
    g.codes = p->kind / 4;
    g.scales = p->kind % 4;
    g.activations = p->activations == BRC_BF16  ? BRCI_FOR_BF16
                    : p->activations == BRC_F16 ? BRCI_FOR_F16
                                                : BRCI_FOR_E4M3;
    g.group = p->group;
    g.block_rows = (int32_t)w->scale.block.rows;
    g.block_cols = (int32_t)w->scale.block.cols;
    g.scale_type = out_type(p->scale_format);
    g.scale_stride = p->scale_stride;
    g.global_kind = w->global.kind == BRC_KIND_MULTIPLIER ? 0 : w->global.kind == BRC_KIND_DIVISOR ? 1 : 2;
    g.global_constant = w->global.constant;
    const int64_t tiles = ceil_div(p->n, 16), chunks = tiles * g.k_blocks;
    if (chunks > (int64_t)INT32_MAX * 8) return brci_cuda_fail(err, BRC_LIMIT, "too many weights for one packing");
    brci_launch l = {BRCI_KERNEL_NARROW_FACTORS, {(uint32_t)(tiles * 2), 1, 1}, 256, 0, 1, 0, 0, &g};
    TRY(brci_cuda_launch(&l, stream, err));
    l.kernel = BRCI_KERNEL_NARROW_PACK;
    l.grid[0] = (uint32_t)ceil_div(chunks, 8);
    return brci_cuda_launch(&l, stream, err);
}

/* ------------------------------------------------------------------------------------------------ planning */

/* How many blocks of a cluster of this size can be resident: some processing clusters hold no multiple of it. */
static int64_t room(int sms, int cluster) {
    return (cluster < 4 ? sms : sms * 10 / 11) / cluster * cluster; /* asked of an H200's driver: 66, 30, 15 clusters */
}

static void plan_few(const brc_cuda_packed_product *p, const struct row *r, int sms, brc_cuda_packed_plan *plan) {
    const int64_t tiles = ceil_div(p->b->n, 16), blocks = ceil_div(p->b->k, 128);
    for (int cluster = 1; cluster <= 8; cluster *= 2)
        for (int side = 1; side <= BRCI_FEW_TILES; side++) {
            const int64_t groups = ceil_div(tiles, side), most = room(sms, cluster) / cluster;
            if (!most) continue;
            const int64_t deep = ceil_div(blocks, cluster), waves = ceil_div(groups, most);
            const int sides = brci_few_sides(side), teams = BRCI_FEW_WARPS / sides,
                      sums = brci_few_sums_bytes(r->tokens, sides, cluster);
            const int stage = brci_few_stage_bytes(r->tokens, element_bytes(p->b), side, p->b->chunk_bytes);
            const int stages = (BRCI_SHARED_BYTES - BRCI_FEW_HEAD - sums) / stage;
            /* Clusters have one group each, so that a second round of them would begin anew. */
            if (cluster > blocks || stages < teams || (cluster > 1 && waves > 1)) continue;
            const int64_t blocks_of_all = ceil_div(groups, waves) * cluster; /* the same number of groups in each */
            int64_t busy = blocks_of_all;
            if (busy < sms * 9 / 10) busy = sms * 9 / 10; /* fewer cannot draw the memory's full rate */
            const double weights = (double)side * p->b->chunk_bytes * (double)deep,
                         tokens = (double)r->tokens * 128 * element_bytes(p->b) * (double)deep;
            /* Rows that begin inside a group of 16 tiles and reach into the next are read in two pieces a step. */
            const double slow = 16 % side ? 1.08 : 1;
            const double memory = weights * (double)busy / MEMORY * slow,
                         cache = (weights + tokens) * (double)busy / CACHE;
            /* Of a stage, by the busiest of the four schedulers. One team alone does not hide what it waits for. */
            const double turns = (double)ceil_div(sides * teams, 4) * 4 / teams;
            /* E4M3 becomes F16 an eighth as quickly as other instructions run. */
            const double clocks = p->b->activations == BRC_E4M3       ? 128
                                  : p->b->kind / 4 == BRCI_CODES_E4M3 ? r->tokens > 8 ? 153 : 125
                                  : r->tokens > 8                     ? 118
                                                                      : 96;
            const double expand = (double)deep * turns * clocks / CLOCK, issue = (double)deep * 100 / CLOCK;
            double step = memory > cache ? memory : cache;
            if (expand > step) step = expand;
            if (issue > step) step = issue;
            if (teams == 1) step *= 1.05;
            const double t = FEW_START + (double)waves * step + 0.3e-6 + 1.2e-6 * (double)(waves - 1) +
                             (cluster > 1 ? 0.2e-6 * (cluster - 1) + 0.02e-6 * (double)p->m : 0);
            if (t * 1e6 >= plan->microseconds) continue;
            plan->microseconds = (float)(t * 1e6);
            plan->grid = (int32_t)(cluster == 1 ? blocks_of_all : groups * cluster);
            plan->cluster = cluster;
            plan->rows = side * 16;
            plan->tokens = r->tokens;
            plan->stages = (int32_t)least(stages, BRCI_FEW_STAGES) / teams * teams;
            plan->shared_bytes = BRCI_FEW_HEAD + plan->stages * stage + sums;
        }
}

/* Results that the copy engine can write. */
static int copied_out(const brc_cuda_packed_product *p) {
    const int64_t pitch = p->d_pitch ? p->d_pitch : p->b->n;
    return p->d_format != BRC_F32 && !(p->flags & BRC_CUDA_ACCUMULATE) && !(pitch & 7) && !((uintptr_t)p->d & 15);
}

/* One way of a row of narrow_many.cuh: a cluster that splits K or shares its tokens, and so many warpgroups on a stage.
 */
static void try_many(const brc_cuda_packed_product *p, const struct row *r, int sms, int cluster, int share, int tiles,
                     brc_cuda_packed_plan *plan) {
    const int sides = brci_many_sides(r->wgs, r->mw, tiles), teams = r->wgs / sides, split = share ? 1 : cluster;
    const int64_t high = ceil_div(p->b->n, 16 * tiles), wide = ceil_div(p->m, r->tokens),
                  blocks = ceil_div(p->b->k, 128);
    const int64_t units = ceil_div(high, share ? cluster : 1) * wide, most = room(sms, cluster) / cluster;
    if (!most) return;
    const int64_t waves = ceil_div(units, most), deep = ceil_div(blocks, split);
    const int token_bytes = r->tokens * 128 * element_bytes(p->b);
    const int stage = brci_many_stage_bytes(token_bytes, tiles, p->b->chunk_bytes),
              sums = (teams + (split > 1)) * r->tokens * (tiles * 16 + 4) * 4;
    /* Warps whose tile is not there read past the last stage. */
    const int past = (4 * sides * r->mw - tiles) * p->b->chunk_bytes;
    const int head = BRCI_MANY_HEAD + brci_many_staging(r->wgs) + past;
    const int stages = (int)least((BRCI_SHARED_BYTES - head) / stage, BRCI_MANY_STAGES) / teams * teams;
    const int one = split > 1 || teams > 1 || tiles % 4 || r->tokens < 32 ||
                    !copied_out(p); /* one tile a block, its sums where the stages were */
    /* A team waits for its next stage before it frees the last one. */
    if (stages < 2 * teams || split > blocks || teams > deep || (split > 1 && units > most)) return;
    if (one && (sums > stages * stage || share)) return;
    int64_t busy = least(units, most) * cluster;
    if (busy < sms * 9 / 10) busy = sms * 9 / 10;
    const double chunks = (double)tiles * p->b->chunk_bytes, tokens = (double)token_bytes / (share ? cluster : 1);
    /* Clocks of the tensor cores, and of expanding the codes. */
    const int wide_codes = p->b->activations == BRC_E4M3;
    const double tensor =
        4.0 * sides * r->mw * 2 * (r->tokens < 40 ? 20 : r->tokens / 2) / (wide_codes ? 2 : 1) * 1.08 / CLOCK;
    const double clocks = r->wgs == 2       ? 60 /* of a tile */
                          : !wide_codes     ? r->tokens > 32 ? 85 : 65
                          : r->tokens <= 8  ? 54
                          : r->tokens <= 16 ? 58
                                            : 71;
    const double expand = 4.0 * sides * r->mw * clocks / CLOCK * (r->wgs == 2 && r->mw == 1 ? 1.3 : 1) *
                          (wide_codes && teams > 2 ? 1.25 : 1);
    double step = tensor > expand ? tensor : expand;
    /* What scales the sums takes the registers' bandwidth from the products. */
    if (wide_codes && r->wgs == 2) step = (5.6 * r->tokens + 400) / CLOCK;
    const double memory = chunks * (double)busy / MEMORY, cache = (chunks + tokens) * (double)busy / WIDE_CACHE;
    if (memory > step && wide == 1) step = memory;
    if (cache > step) step = cache;
    /* Four teams get in one another's way; warps without a tile read and multiply all the same. */
    if (!wide_codes && teams > 2) step *= 1.15;
    if (!wide_codes && tiles < 4 * sides * r->mw) step *= 1.08;
    const double t = (wide_codes && r->tokens <= 16 ? FEW_START : START) +
                     (double)waves * ((double)deep * step + (one ? 1.5e-6 : 0.6e-6)) +
                     (split > 1 ? r->tokens <= 16 ? 0.3e-6 : 1.0e-6 : 0);
    if (t * 1e6 >= plan->microseconds) return;
    plan->microseconds = (float)(t * 1e6);
    plan->grid = (int32_t)((one ? units : least(units, most)) * cluster);
    plan->cluster = cluster;
    plan->share = share;
    plan->rows = 16 * tiles;
    plan->tokens = r->tokens;
    plan->stages = stages;
    plan->shared_bytes = head + stages * stage;
}

static void plan_many(const brc_cuda_packed_product *p, const struct row *r, int sms, brc_cuda_packed_plan *plan) {
    if (r->wgs == 2) try_many(p, r, sms, 2, 1, 8 * r->mw, plan);
    for (int cluster = 1; cluster <= 8; cluster *= 2)
        if (r->wgs == 2) try_many(p, r, sms, cluster, 0, 8 * r->mw, plan);
        else
            for (int tiles = 4; tiles <= 4 * r->wgs; tiles += 2) try_many(p, r, sms, cluster, 0, tiles, plan);
}

static brc_status check(const brc_cuda_packed_product *p, brc_error *err) {
    if (!p || p->size < sizeof *p)
        return brci_cuda_fail(err, BRC_ARGUMENT, "the product is missing or of another version");
    const brc_cuda_packed *b = p->b;
    if (!b || b->size != sizeof *b) return brci_cuda_fail(err, BRC_ARGUMENT, "the product has no packed weights");
    const uint32_t known = BRC_CUDA_ACCUMULATE | BRC_CUDA_B_UNCHANGED | BRC_CUDA_NO_OVERLAP;
    if (p->flags & ~known) return brci_cuda_fail(err, BRC_ARGUMENT, "flags 0x%x are not known here", p->flags & ~known);
    if (p->m < 0 || p->m > INT32_MAX - 1024) return brci_cuda_fail(err, BRC_SHAPE, "%lld rows of a", (long long)p->m);
    if (p->a_format != b->activations)
        return brci_cuda_fail(err, BRC_FORMAT, "the weights were packed for activations of another format");
    if (!plain(p->d_format)) return brci_cuda_fail(err, BRC_FORMAT, "the result is F32, F16 or BF16");
    if (p->bias && !plain(p->bias_format)) return brci_cuda_fail(err, BRC_FORMAT, "the bias is F32, F16 or BF16");
    if ((p->a_pitch && p->a_pitch < b->k) || (p->d_pitch && p->d_pitch < b->n))
        return brci_cuda_fail(err, BRC_SHAPE, "a pitch is shorter than its row");
    if (b->activations == BRC_E4M3 && p->a_scaling != BRC_CUDA_PER_TENSOR && p->a_scaling != BRC_CUDA_PER_ROW)
        return brci_cuda_fail(err, BRC_ARGUMENT, "activations of E4M3 have one scale, or one a row");
    if ((p->a_pitch ? p->a_pitch : b->k) * element_bytes(b) % 16 || (uintptr_t)p->a & 15)
        return brci_cuda_fail(err, BRC_UNSUPPORTED,
                              "rows of a must start on multiples of 16 bytes: give it such a pitch");
    TRY(brci_cuda_aligned(p->d, p->d_format, "the result", err));
    if (p->bias) TRY(brci_cuda_aligned(p->bias, p->bias_format, "the bias", err));
    return brci_cuda_aligned(p->a_scale, BRC_F32, "scales of a", err);
}

static int fits(const brc_cuda_packed_product *p, const struct row *r) {
    return r->kind == p->b->kind && r->group == p->b->group && r->activations == p->a_format &&
           (r->mw ? p->m > FEW || r->activations == BRC_E4M3 : p->m <= r->tokens);
}

/* Whether a plan, which a caller may have kept or changed, is one that its kernel can follow. */
static int plan_fits(const brc_cuda_packed_product *p, const brc_cuda_packed_plan *q) {
    if (q->size < sizeof *q || q->kernel < 0 || q->kernel >= ROWS || !fits(p, &rows[q->kernel])) return 0;
    const struct row *r = &rows[q->kernel];
    const int tiles = q->rows / 16, most = r->mw ? 4 * r->wgs * r->mw : BRCI_FEW_TILES;
    if (q->rows % 16 || tiles < 1 || tiles > most || q->tokens != r->tokens || q->stages < 1) return 0;
    if (q->cluster != 1 && q->cluster != 2 && q->cluster != 4 && q->cluster != 8) return 0;
    /* A team of narrow_many.cuh waits for its next stage before it frees the last one. */
    if (r->mw && q->stages < 2 * r->wgs / brci_many_sides(r->wgs, r->mw, tiles)) return 0;
    return q->grid > 0 && q->grid % q->cluster == 0 && q->shared_bytes > 0 && q->shared_bytes <= BRCI_SHARED_BYTES;
}

brc_status brc_cuda_plan_packed_row(const brc_cuda_packed_product *p, int sms, int row, brc_cuda_packed_plan *plan,
                                    brc_error *err) {
    TRY(check(p, err));
    if (!plan) return brci_cuda_fail(err, BRC_ARGUMENT, "the plan is missing");
    if (row < 0 || row >= ROWS)
        return brci_cuda_fail(err, BRC_NOT_FOUND, "the table of kernels for packed weights has %d rows", ROWS);
    memset(plan, 0, sizeof *plan);
    plan->size = (uint32_t)sizeof *plan;
    plan->kernel = row;
    plan->microseconds = NEVER;
    if (fits(p, &rows[row])) {
        if (rows[row].mw) plan_many(p, &rows[row], sms > 0 ? sms : 132, plan);
        else plan_few(p, &rows[row], sms > 0 ? sms : 132, plan);
    }
    if (plan->microseconds >= NEVER)
        return brci_cuda_fail(err, BRC_UNSUPPORTED, "row %d of the kernel table does not fit this product", row);
    return BRC_OK;
}

brc_status brc_cuda_plan_packed(const brc_cuda_packed_product *p, int sms, brc_cuda_packed_plan *plan, brc_error *err) {
    TRY(check(p, err));
    if (!plan) return brci_cuda_fail(err, BRC_ARGUMENT, "the plan is missing");
    plan->microseconds = NEVER;
    for (int row = 0; row < ROWS; row++) {
        brc_cuda_packed_plan candidate;
        if (brc_cuda_plan_packed_row(p, sms, row, &candidate, NULL) == BRC_OK &&
            candidate.microseconds < plan->microseconds)
            *plan = candidate;
    }
    if (plan->microseconds >= NEVER) return brci_cuda_fail(err, BRC_UNSUPPORTED, "no kernel takes this product");
    return BRC_OK;
}

/* ----------------------------------------------------------------------------------------------- launching */

enum { PLANS = 64 };

/* The planner's choice, remembered by this thread: planning takes several times as long as launching. */
static brc_status choose(const brc_cuda_packed_product *p, int sms, brc_cuda_packed_plan *plan, brc_error *err) {
    static _Thread_local struct {
        int64_t m, n, k;
        uint32_t kind, device;
        brc_cuda_packed_plan plan;
    } known[PLANS];
    const uint32_t kind = 1u | (uint32_t)copied_out(p) << 1 | (uint32_t)p->b->kind << 2 | (uint32_t)p->b->group << 8 |
                          (uint32_t)p->a_format << 16,
                   device = (uint32_t)sms << 16 | (uint32_t)p->b->chunk_bytes;
    const uint64_t hash = (uint64_t)p->m * 0x9E3779B97F4A7C15u + (uint64_t)p->b->n * 0xC2B2AE3D27D4EB4Fu +
                          (uint64_t)p->b->k * 0x165667B19E3779F9u + kind;
    const int at = (int)((hash >> 40 ^ hash >> 20) % PLANS);
    if (known[at].m != p->m || known[at].n != p->b->n || known[at].k != p->b->k || known[at].kind != kind ||
        known[at].device != device) {
        known[at].kind = 0;
        TRY(brc_cuda_plan_packed(p, sms, &known[at].plan, err));
        known[at].m = p->m;
        known[at].n = p->b->n;
        known[at].k = p->b->k;
        known[at].kind = kind;
        known[at].device = device;
    }
    *plan = known[at].plan;
    return BRC_OK;
}

brc_status brc_cuda_matmul_packed(const brc_cuda_packed_product *p, void *stream, brc_error *err) {
    int sms = 0;
    brc_cuda_packed_plan plan;
    brci_narrow_args g;
    TRY(check(p, err));
    TRY(brci_cuda_ready(BRCI_HOPPER, &sms, err));
    if (p->plan) plan = *p->plan;
    else TRY(choose(p, sms, &plan, err));
    const brc_cuda_packed *b = p->b;
    if (!p->m) return BRC_OK;
    if (!p->a || !p->d || !b->data || (b->activations == BRC_E4M3 && !p->a_scale))
        return brci_cuda_fail(err, BRC_ARGUMENT, "a pointer of the product is NULL");
    if ((uintptr_t)b->data & 127)
        return brci_cuda_fail(err, BRC_ARGUMENT, "packed weights start on a multiple of 128 bytes");
    if (p->plan && !plan_fits(p, &plan)) return brci_cuda_fail(err, BRC_ARGUMENT, "the plan does not fit the product");
    const struct row *r = &rows[plan.kernel];
    const int64_t a_pitch = p->a_pitch ? p->a_pitch : b->k;
    brci_boxed v;
    memset(&g, 0, sizeof g);
    memset(&v, 0, sizeof v);
    v.data = p->a;
    v.inner = (uint64_t)b->k;
    v.outer = (uint64_t)p->m;
    v.pitch = (uint64_t)(a_pitch * element_bytes(b));
    v.box_inner = 128 / (uint32_t)element_bytes(b);
    v.box_outer = (uint32_t)(plan.share ? r->tokens / plan.cluster : r->tokens);
    v.bytes = (uint32_t)element_bytes(b);
    TRY(brci_cuda_map(&v, &g.a, err));
    g.chunks = b->data;
    g.row_factor = factors(b);
    if (b->activations == BRC_E4M3) g.token_factor = p->a_scale;
    g.token_stride = p->a_scaling == BRC_CUDA_PER_ROW;
    g.bias = p->bias;
    g.d = p->d;
    g.ldd = p->d_pitch ? p->d_pitch : b->n;
    g.m = (int32_t)p->m;
    g.n = (int32_t)b->n;
    g.k_blocks = (int32_t)ceil_div(b->k, 128);
    g.tiles = (int32_t)ceil_div(b->n, 16);
    g.chunk_bytes = b->chunk_bytes;
    g.rows = plan.rows / 16;
    g.sides = r->mw ? brci_many_sides(r->wgs, r->mw, g.rows) : brci_few_sides(g.rows);
    g.teams = BRCI_FEW_WARPS / g.sides;
    g.heights = (int32_t)ceil_div(g.tiles, g.rows * (plan.share ? plan.cluster : 1));
    g.share = plan.share;
    g.tokens = (int32_t)ceil_div(p->m, r->tokens);
    g.group = (int32_t)least(g.tokens, 2048 / r->tokens);
    g.units = g.heights * g.tokens;
    g.sixteen = 16;
    g.stages = plan.stages;
    g.out = out_type(p->d_format);
    g.bias_type = out_type(p->bias_format);
    g.accumulate = (p->flags & BRC_CUDA_ACCUMULATE) != 0;
    g.wide = g.out != BRCI_OUT_F32 && !g.accumulate && !(g.ldd & 3) && !((uintptr_t)p->d & 7);
    if (r->mw) {
        g.wide = copied_out(p);
        memset(&v, 0, sizeof v);
        v.data = p->d;
        v.inner = (uint64_t)b->n;
        v.outer = (uint64_t)p->m;
        v.pitch = (uint64_t)g.ldd * 2;
        v.box_inner = 64;
        v.box_outer = 32;
        v.bytes = 2;
        if (g.wide) TRY(brci_cuda_map(&v, &g.d_map, err));
    }
    g.early = (p->flags & BRC_CUDA_B_UNCHANGED) && !(p->flags & BRC_CUDA_NO_OVERLAP);
    g.scale_type = out_type(b->scale_format);
    g.scale_stride = b->scale_stride;
    brci_launch l = {r->kernel,
                     {(uint32_t)plan.grid, 1, 1},
                     (uint32_t)(r->mw ? brci_many_threads(r->wgs) : BRCI_FEW_THREADS),
                     (uint32_t)plan.shared_bytes,
                     (uint32_t)plan.cluster,
                     0,
                     !(p->flags & BRC_CUDA_NO_OVERLAP),
                     &g};
    return brci_cuda_launch(&l, stream, err);
}
