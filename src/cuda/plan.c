/* SPDX-License-Identifier: Apache-2.0
 *
 * The planner: estimates the time of every row of kernels.def that fits and takes the least. No GPU is asked.
 *
 * Large products run at the tensor cores' rate, so their time is that of the busiest multiprocessor's tiles. Products
 * of few rows run at the memory's rate, so what counts is that all multiprocessors read equal shares of B. The
 * constants were measured on an H200 (bench/gpu/NOTES.md); between chips of this family their ratios change little. */
#include "plan.h"

#include <stdio.h>
#include <string.h>

#include "driver.h"
#include "shape.h"

enum { E4M3 = BRC_E4M3, E5M2 = BRC_E5M2 };

const brci_row brci_rows[] = {
#define GEMM(a, b, mode, team, mw, bn, share, rate) {a, b, BRCI_##mode, BRCI_##team, mw, bn, BRCI_##share, rate, 0},
#define SMALL(a, b, units, nb) {a, b, -1, 0, 0, nb, 0, 0, units},
#include "kernels.def"
};
const int brci_row_count = (int)(sizeof brci_rows / sizeof *brci_rows);

static const double CLOCK = 1.5e9;                /* Hz under sustained load; 4096 multiply-adds a clock */
static const double MEMORY = 4.5e12, COPY = 64.0; /* bytes a second; bytes a clock into one multiprocessor */
static const double CACHE = 6.5e12;               /* bytes a second out of L2 */
static const double START = 3.0e-6;               /* s, launch to first product */
static const double RESULT = 0.2e-9;              /* s, for a result of few rows */
static const double ROUND = 1.5e-6;               /* s, for a further height of rows */
static const double EXCHANGE = 0.7e-6;            /* s, for the sums of blocks that split K */
static const double UNIT = 200;                   /* clocks of a unit of few rows and a step of K, of any height */
static const double PLAIN = 76e9;                 /* FLOP a second of a multiprocessor, by gemm_plain.cuh */
static const int BUSY = 100;                      /* multiprocessors that it takes to draw the memory's full rate */

static const float NEVER = 1e9f; /* us */
/* gemm_small.cuh: bytes beside the stages, and the sums that may follow. */
enum { SMALL_OUTSIDE = BRCI_SMALL_HEAD + 64 * 128 };

static int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

int brci_product_mode(const brc_cuda_product *p) {
    if (p->scaling == BRC_CUDA_BLOCK) return BRCI_BLOCK;
    if (p->scaling == BRC_CUDA_BLOCK_ROWS) return BRCI_BLOCK_ROWS;
    return p->flags & BRC_CUDA_FAST_ACCUM ? BRCI_FAST : BRCI_PROMOTED;
}

int brci_addressable(const brc_cuda_product *p) {
    const int64_t a_pitch = p->a_pitch ? p->a_pitch : p->k, b_pitch = p->b_pitch ? p->b_pitch : p->k;
    uint64_t low = (uint64_t)(uintptr_t)p->a | (uint64_t)(uintptr_t)p->b | (uint64_t)a_pitch | (uint64_t)b_pitch;
    if (p->scaling == BRC_CUDA_BLOCK || p->scaling == BRC_CUDA_BLOCK_ROWS)
        low |= (uint64_t)(uintptr_t)p->a_scale | (uint64_t)(p->a_scale_pitch ? p->a_scale_pitch : p->m) * 4;
    if (p->scaling == BRC_CUDA_BLOCK_ROWS)
        low |= (uint64_t)(uintptr_t)p->b_scale | (uint64_t)(p->b_scale_pitch ? p->b_scale_pitch : p->n) * 4;
    /* The copies want 16-byte addresses and pitches, from product to product too; K itself may be anything. */
    if (p->grouping) {
        low |= (uint64_t)p->a_step | (uint64_t)p->b_step;
        if (p->scaling >= BRC_CUDA_BLOCK) low |= (uint64_t)p->a_scale_step * 4;
        if (p->scaling == BRC_CUDA_BLOCK_ROWS) low |= (uint64_t)p->b_scale_step * 4;
    }
    return p->k > 0 && !(low & 15) && a_pitch < INT64_C(1) << 40 && b_pitch < INT64_C(1) << 40;
}

/* Rows of one product, and how many products: what the planner expects. Of several they are only known to the device.
 */
static int64_t usual_rows(const brc_cuda_product *p, int64_t *count) {
    *count = 1;
    if (p->grouping == BRC_CUDA_ONE) return p->m;
    const int64_t groups = p->groups > 0 ? p->groups : 1;
    const int whole = p->grouping == BRC_CUDA_BATCH || p->grouping == BRC_CUDA_MASKED;
    int64_t rows = p->expected_rows > 0 ? p->expected_rows : whole ? p->m : ceil_div(p->m, groups);
    if (rows > p->m) rows = p->m;
    *count = whole ? groups : least(groups, ceil_div(p->m, rows > 0 ? rows : 1));
    return rows;
}

static void plan_gemm(const brc_cuda_product *p, const brci_row *r, int sms, brc_cuda_plan *plan) {
    const int64_t steps = ceil_div(ceil_div(p->k, 128), r->share == BRCI_K ? 2 : 1);
    const int64_t um = (int64_t)plan->tile_m * (r->share == BRCI_B ? 2 : 1),
                  un = (int64_t)plan->tile_n * (r->share == BRCI_A ? 2 : 1);
    int64_t count;
    const int64_t m = usual_rows(p, &count);
    const int64_t units = count * ceil_div(m, um) * ceil_div(p->n, un), workers = sms / plan->cluster;
    if (workers < 1) return;
    plan->stages = brci_stages(r->mode, r->team, r->mw, r->bn);
    plan->shared_bytes = brci_shared_bytes(r->mode, r->team, r->mw, r->bn);
    /* The device may find more rows than expected; blocks that split K do one tile each. */
    plan->grid = (int32_t)((p->grouping          ? workers
                            : r->share == BRCI_K ? least(units, INT32_MAX / 2)
                                                 : least(units, workers)) *
                           plan->cluster);

    /* The group keeps the rows of A and B under the tiles in flight few: g rows of tiles high, the rest wide. */
    const int64_t across = ceil_div(m, um), along = ceil_div(p->n, un);
    double best = 0;
    plan->group_n = r->share == BRCI_B;
    for (int g = 1; g <= 32; g *= 2) {
        const int64_t major = plan->group_n ? along : across;
        const double live = (double)least(g, major) * (double)(plan->group_n ? un : um) +
                            (double)ceil_div(workers, least(g, major)) * (double)(plan->group_n ? um : un);
        if (g == 1 || live < best) {
            best = live;
            plan->group = g;
        }
    }

    /* Clocks that a tile's end adds: with one or two staging buffers a warp, and with more. */
    static const double last_of[][2] = {[BRCI_TOGETHER] = {2200, 1550},
                                        [BRCI_BESIDE] = {2200, 2200},
                                        [BRCI_TURNS] = {1200, 950},
                                        [BRCI_APART] = {1400, 1400}};
    /* Two tiles in flight share a multiprocessor's tensor cores when the warpgroups have one each. A last round that
     * leaves multiprocessors idle costs less than a full one: the others then run at a higher clock. */
    const double tile = (double)plan->tile_m * plan->tile_n * 128 / 4096 * (double)steps * 1000 / r->rate,
                 last = last_of[r->team][brci_buffers(r->mode, r->team, r->mw, r->bn) > 2];
    const int64_t both = r->team == BRCI_APART ? 2 : 1, slots = workers * both;
    const double rounds = (0.5 * (double)ceil_div(units, slots) + 0.5 * (double)units / (double)slots) * (double)both;
    double seconds = rounds * (tile + last) / CLOCK;
    const double bytes = (double)(m + p->n) * (double)p->k * (double)count / MEMORY;
    /* What one multiprocessor takes in; a shared operand arrives once but is written twice. */
    const double copy = rounds / (double)both * (plan->tile_m + plan->tile_n) * 128.0 * (double)steps / COPY / CLOCK;
    const int few = brci_few_rows(r->team, r->share);
    const double share =
        (double)(units * plan->cluster) / (double)ceil_div(units, workers); /* of the blocks, at a time */
    /* Kernels of few rows keep B out of L2, and read it again for a second tile of rows. */
    const double memory = !few         ? bytes * 1.1
                          : across > 1 ? bytes * 1.3
                                       : bytes * 1.05 * (share < BUSY ? BUSY / share : 1);
    if (seconds < memory) seconds = memory;
    if (seconds < copy) seconds = copy;
    if (r->share == BRCI_K) seconds += EXCHANGE * (double)ceil_div(units, workers);
    plan->microseconds = (float)(1e6 * (START + seconds));
}

static int64_t small_stage(const brci_row *r, int64_t height) { return (height + r->bn) * 128 + BRCI_SMALL_SCALES; }

static void plan_small(const brc_cuda_product *p, const brci_row *r, int sms, brc_cuda_plan *plan) {
    const int64_t steps = ceil_div(p->k, 128);
    static const struct { int split, share; } clusters[] = {{1, 1}, {2, 1}, {1, 2}};
    for (size_t c = 0; c < sizeof clusters / sizeof *clusters; c++)
        for (int rows = 8; rows <= 64; rows += 8) {
            const int split = clusters[c].split, share = clusters[c].share, cluster = split * share;
            const int64_t height = (int64_t)r->units * rows, deep = ceil_div(steps, split);
            const int64_t blocks = ceil_div(ceil_div(p->n, height) * split, cluster) * cluster;
            if (split > steps || r->bn / share < 8) continue;
            const int64_t room = sms / cluster * cluster;
            if (room < cluster) continue;
            const int64_t waves = ceil_div(blocks, room);
            if (cluster > 1 && waves > 1) continue; /* only blocks of their own go on to further rows */
            int64_t busy = ceil_div(blocks, waves);
            if (busy < BUSY) busy = BUSY;
            const double weights = (double)height * 128 * (double)deep, tokens = (double)r->bn * 128 * (double)deep;
            const double memory = weights * (double)busy / MEMORY, copy = (weights + tokens) / COPY / CLOCK;
            const double cache = (weights + tokens / share) * (double)busy / CACHE;
            const double tensor = (double)deep * r->units * UNIT / CLOCK;
            double t = memory > copy ? memory : copy;
            if (cache > t) t = cache;
            if (tensor > t) t = tensor;
            /* The results of all rounds but the last are written while the next one's weights arrive. */
            t = START + (double)waves * t + (double)(height * r->bn) * RESULT + (double)(waves - 1) * ROUND +
                (split > 1 ? 1.0e-6 : 0) + (share > 1 ? 0.3e-6 : 0);
            const int64_t stage = small_stage(r, height);
            const int64_t sums = brci_small_sum_bytes((int)height, r->bn), rounds = cluster > 1 ? 1 : waves;
            const int64_t space = BRCI_SHARED_BYTES - SMALL_OUTSIDE - (rounds > 1 ? sums : 0);
            const int64_t stages = least(space / stage, BRCI_SMALL_STAGES);
            if (stages < 3 || (rounds == 1 && sums > stages * stage)) continue;
            if (t * 1e6 < plan->microseconds) {
                plan->microseconds = (float)(t * 1e6);
                plan->rows = rows;
                plan->share = share > 1;
                plan->cluster = cluster;
                plan->grid = (int32_t)(rounds > 1 ? ceil_div(blocks, rounds) : blocks);
                plan->tile_n = (int32_t)height;
                plan->stages = (int32_t)stages;
                plan->shared_bytes = (int32_t)(SMALL_OUTSIDE + stages * stage + (rounds > 1 ? sums : 0));
            }
        }
}

static int fits(const brc_cuda_product *p, const brci_row *r) {
    if (r->a != p->a_format || r->b != p->b_format) return 0;
    if (r->units) return p->m <= r->bn && p->scaling != BRC_CUDA_BLOCK_ROWS && !p->grouping;
    if ((r->share == BRCI_GROUPS) != (p->grouping != BRC_CUDA_ONE)) return 0;
    /* Rows that a run of 128 shares with another product's must not be in one tile. */
    if (p->grouping == BRC_CUDA_INDEXED && 128 % brci_tile_rows(r->team, r->mw)) return 0;
    if (r->share == BRCI_K && p->k <= 128) return 0;
    /* Promoted sums serve where there is no kernel with fast ones. */
    const int mode = brci_product_mode(p), other = r->share == BRCI_K || r->share == BRCI_GROUPS;
    return r->mode == mode || (r->mode == BRCI_PROMOTED && mode == BRCI_FAST && other);
}

static int small_plan_fits(const brc_cuda_product *p, const brci_row *r, const brc_cuda_plan *q) {
    if (q->rows < 8 || q->rows > 64 || q->rows % 8 || q->tile_m != r->bn || q->tile_n != r->units * q->rows) return 0;
    if (q->stages < 2 || q->stages > BRCI_SMALL_STAGES || q->cluster > 4 || q->cluster == 3) return 0;
    const int split = q->share ? 1 : q->cluster, once = (int64_t)(q->grid / split) * q->tile_n >= p->n;
    const int64_t stages = q->stages * small_stage(r, q->tile_n), sums = brci_small_sum_bytes(q->tile_n, r->bn);
    if (split > ceil_div(p->k, 128) || (q->share && r->bn / q->cluster < 8)) return 0;
    /* Only blocks of their own go on to further rows; their sums then have a place of their own. */
    if (!once && q->cluster > 1) return 0;
    return (!once || sums <= stages) && q->shared_bytes >= SMALL_OUTSIDE + stages + (once ? 0 : sums);
}

int brci_plan_fits(const brc_cuda_product *p, const brc_cuda_plan *q) {
    if (q->size < sizeof *q || q->kernel < 0 || q->kernel >= brci_row_count) return 0;
    const brci_row *r = &brci_rows[q->kernel];
    if (!brci_addressable(p) || !fits(p, r) || q->grid < 1 || q->cluster < 1 || q->grid % q->cluster ||
        q->shared_bytes > BRCI_SHARED_BYTES)
        return 0;
    if (r->units) return small_plan_fits(p, r, q);
    if (q->tile_m != brci_tile_rows(r->team, r->mw) || q->tile_n != r->bn || q->cluster != brci_cluster(r->share))
        return 0;
    /* Blocks that split K do one tile each. */
    if (r->share == BRCI_K && q->grid != 2 * ceil_div(p->m, q->tile_m) * ceil_div(p->n, q->tile_n)) return 0;
    return q->shared_bytes >= brci_shared_bytes(r->mode, r->team, r->mw, r->bn) && q->group >= 1;
}

brc_status brci_product_check(const brc_cuda_product *p, brc_error *err) {
    if (!p || p->size < sizeof *p)
        return brci_cuda_fail(err, BRC_ARGUMENT, "the product is missing or of another version");
    const uint32_t known = BRC_CUDA_FAST_ACCUM | BRC_CUDA_ACCUMULATE | BRC_CUDA_B_UNCHANGED | BRC_CUDA_NO_OVERLAP;
    if (p->flags & ~known) return brci_cuda_fail(err, BRC_ARGUMENT, "flags 0x%x are not known", p->flags & ~known);
    if (p->m < 0 || p->n < 0 || p->k < 0)
        return brci_cuda_fail(err, BRC_SHAPE, "a negative shape: %lld x %lld x %lld", (long long)p->m, (long long)p->n,
                              (long long)p->k);
    if (p->m > INT32_MAX - 1024 || p->n > INT32_MAX - 1024 || p->k > INT32_MAX - 1024)
        return brci_cuda_fail(err, BRC_LIMIT, "a side of the product is beyond 2^31");
    if ((p->a_format != BRC_E4M3 && p->a_format != BRC_E5M2) || (p->b_format != BRC_E4M3 && p->b_format != BRC_E5M2))
        return brci_cuda_fail(err, BRC_FORMAT, "the operands of an FP8 product are E4M3 or E5M2");
    if (p->scaling < BRC_CUDA_PER_TENSOR || p->scaling > BRC_CUDA_BLOCK_ROWS)
        return brci_cuda_fail(err, BRC_ARGUMENT, "scaling %d is not known", (int)p->scaling);
    if (p->grouping < BRC_CUDA_ONE || p->grouping > BRC_CUDA_INDEXED)
        return brci_cuda_fail(err, BRC_ARGUMENT, "grouping %d is not known", (int)p->grouping);
    if (p->grouping != BRC_CUDA_ONE && (p->groups < 0 || p->groups > 65535))
        return brci_cuda_fail(err, BRC_LIMIT, "%d products: 0 to 65535 are possible in one call", (int)p->groups);
    return BRC_OK;
}

brc_status brc_cuda_plan_row(const brc_cuda_product *p, int sms, int row, brc_cuda_plan *plan, brc_error *err) {
    brc_status status = brci_product_check(p, err);
    if (status != BRC_OK) return status;
    if (!plan) return brci_cuda_fail(err, BRC_ARGUMENT, "the plan is missing");
    if (row < 0 || row >= brci_row_count)
        return brci_cuda_fail(err, BRC_NOT_FOUND, "the kernel table has %d rows", brci_row_count);
    const brci_row *r = &brci_rows[row];
    const int possible = brci_addressable(p) && p->m && p->n && !(p->grouping && !p->groups) && fits(p, r);
    if (sms <= 0) sms = 132;
    memset(plan, 0, sizeof *plan);
    plan->size = (uint32_t)sizeof *plan;
    plan->kernel = row;
    plan->microseconds = NEVER;
    if (possible && r->units) {
        plan->tile_m = r->bn;
        plan_small(p, r, sms, plan);
    } else if (possible) {
        plan->tile_m = brci_tile_rows(r->team, r->mw);
        plan->tile_n = r->bn;
        plan->cluster = brci_cluster(r->share);
        plan_gemm(p, r, sms, plan);
    }
    if (!plan->grid)
        return brci_cuda_fail(err, BRC_UNSUPPORTED, "row %d of the kernel table does not fit this product", row);
    return BRC_OK;
}

brc_status brc_cuda_plan_product(const brc_cuda_product *p, int sms, brc_cuda_plan *plan, brc_error *err) {
    brc_status status = brci_product_check(p, err);
    if (status != BRC_OK) return status;
    if (!plan) return brci_cuda_fail(err, BRC_ARGUMENT, "the plan is missing");
    if (sms <= 0) sms = 132;
    memset(plan, 0, sizeof *plan);
    plan->size = (uint32_t)sizeof *plan;
    plan->kernel = -1;
    plan->cluster = 1;
    plan->tile_m = plan->tile_n = 64;
    int64_t count;
    const int64_t m = usual_rows(p, &count);
    const int64_t tiles = count * ceil_div(m, 64) * ceil_div(p->n, 64);
    plan->grid = (int32_t)least(tiles, INT32_MAX);
    plan->microseconds = (float)(1e6 * (START + 2.0 * 64 * 64 * (double)ceil_div(tiles, sms) * (double)p->k / PLAIN));
    for (int row = 0; row < brci_row_count; row++) {
        brc_cuda_plan candidate;
        if (brc_cuda_plan_row(p, sms, row, &candidate, NULL) == BRC_OK && candidate.microseconds < plan->microseconds)
            *plan = candidate;
    }
    return BRC_OK;
}

size_t brc_cuda_plan_text(const brc_cuda_plan *p, char *text, size_t room) {
    static const char *const modes[] = {"fast", "promoted", "block", "block-rows"};
    static const char *const teams[] = {"together", "beside", "turns", "apart"};
    static const char *const shares[] = {"", ", a shared", ", b shared", ", split k", ", groups"};
    int length;
    if (!p) length = snprintf(text, room, "no plan");
    else if (p->kernel < 0 || p->kernel >= brci_row_count)
        length = snprintf(text, room, "plain 64x64, grid %d", (int)p->grid);
    else if (brci_rows[p->kernel].units)
        length = snprintf(
            text, room, "small %dx%d rows for %d tokens, %s %d, grid %d, %d stages, %d KB, %.1f us expected",
            brci_rows[p->kernel].units, (int)p->rows, brci_rows[p->kernel].bn, p->share ? "share" : "split",
            (int)p->cluster, (int)p->grid, (int)p->stages, (int)p->shared_bytes / 1024, (double)p->microseconds);
    else {
        const brci_row *r = &brci_rows[p->kernel];
        length = snprintf(text, room, "%s %dx%d %s%s, grid %d, group %d along %c, %d stages, %d KB, %.1f us expected",
                          modes[r->mode], (int)p->tile_m, (int)p->tile_n, teams[r->team], shares[r->share],
                          (int)p->grid, (int)p->group, p->group_n ? 'n' : 'm', (int)p->stages,
                          (int)p->shared_bytes / 1024, (double)p->microseconds);
    }
    return length < 0 ? 0 : (size_t)length;
}
