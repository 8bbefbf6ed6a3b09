/* SPDX-License-Identifier: Apache-2.0
 *
 * D[m, n] = A[m, K] * B[n, K]^T for few rows m (tokens) and a large B (weights): every byte of B is read once, and the
 * time is that of reading it. The weights take the 64-row side of the tensor cores, the tokens the narrow one, so that
 * no product is wasted on absent tokens.
 *
 * A block owns UNITS * g.rows weight rows: any multiple of 8 rows up to 64 makes a unit, so a planner can give all
 * SMs the same number of bytes. A unit's product still covers 64 rows; those past g.rows are the next bytes of
 * shared memory, whatever they hold, and are never looked at. The blocks of a cluster share the rows and split K;
 * their sums meet in shared memory in a fixed order, so that equal inputs give equal bits. Or (g.share) they have rows
 * of their own and share the tokens, each loading its part of them for all. Blocks without a cluster may do several heights
 * of rows, one after the other: the next weights arrive while results are written.
 * Always promoted each 128 of K: the tensor cores wait for memory anyway. */
#pragma once
#include "arguments.h"
#include "shape.h"
#include "parts/machine.cuh"
#include "parts/store.cuh"

namespace brc {

/* Shared memory: barriers, then the stages (weights, tokens), one unit of slack for the last product's unused rows, then
 * the token scales of every stage. The final sums reuse the stages. */
template <int TA, int TB, int UNITS, int NB>
__device__ __forceinline__ void gemm_small(const brci_gemm_args &g)
{
    constexpr int MINE = UNITS / 2;                     /* units of a warpgroup */
    constexpr int ACC = NB / 2;
    extern __shared__ __align__(1024) uint8_t shared[];
    const uint32_t base = __shfl_sync(~0u, opaque(shared_address(shared)), 0);
    const int warp = __shfl_sync(~0u, threadIdx.x / 32, 0), group = warp / 4, lane = threadIdx.x % 32;
    const int place = cluster_rank(), size = cluster_size();
    const int share = g.share ? size : 1, split = g.share ? 1 : size, rank = g.share ? 0 : place;   /* rank: of the K parts */
    const int parts = 31 - __clz(split), height = UNITS * g.rows, row_step = (gridDim.x >> parts) * height;
    const int k_first = brci_k_part(g.k_steps, rank, parts), k_last = brci_k_part(g.k_steps, rank + 1, parts);
    const int weight_bytes = height * 128, stage_bytes = weight_bytes + NB * 128;
    const uint32_t stages_at = base + BRCI_SMALL_HEAD, scales_at = stages_at + g.stages * stage_bytes + 64 * 128;
    const bool once = row_step >= g.n;                 /* else a block has several heights of rows, one after the other */
    const uint32_t sums_at = once ? stages_at : scales_at + g.stages * BRCI_SMALL_SCALES;
    const uint32_t full = base, empty = base + 8 * BRCI_SMALL_STAGES;

    if (elect_one()) {
        if (warp == 0) { tma_prefetch_map(&g.b); tma_prefetch_map(&g.a); }
#pragma unroll 1
        for (int i = warp; i < g.stages; i += BRCI_THREADS / 32) {
            barrier_init(full + 8 * i, 1);
            barrier_init(empty + 8 * i, 8 * share);
        }
        barrier_init_fence();
    }
    __syncwarp();
    if (share > 1) cluster_meet(); else __syncthreads();
    grid_launch_next();
    /* Stages of the first filling: their tokens are sent for by the multiplying warps, so that they are not queued behind
     * the weights of all stages. */
    const int begin = min(g.stages, k_last - k_first);
    auto tokens = [&](int k, int stage) {
        const uint32_t at = stages_at + stage * stage_bytes, bar = full + 8 * stage;
        if (share > 1) {
            const int part = NB / share;
            tma_load_shared(at + weight_bytes + place * part * 128, &g.a, bar, k * 128, place * part, static_cast<uint16_t>((1 << share) - 1));
        } else
            tma_load(at + weight_bytes, &g.a, bar, k * 128, 0, EVICT_LAST);
        if (g.scaled) tma_load(scales_at + stage * BRCI_SMALL_SCALES, &g.a_scale, bar, 0, k, EVICT_LAST);
    };

    auto weights = [&](int row, int k, uint32_t at, uint32_t bar) {
        barrier_expect(bar, stage_bytes + (g.scaled ? NB * 4 : 0));
#pragma unroll
        for (int u = 0; u < UNITS; u++)
            tma_load(at + u * g.rows * 128, &g.b, bar, k * 128, row + u * g.rows, EVICT_FIRST);
    };
    int first_row = (blockIdx.x >> parts) * height;
    if (group == 2) {
        registers_give<40>();
        if (warp % 4 == 0 && elect_one()) {
            /* Weights that nothing in flight writes need not wait for the previous kernel. */
            int filled = begin, stage = 0, phase = 0, row = first_row;
            if (!g.early) grid_wait();
            for (int i = 0; i < begin; i++) weights(row, k_first + i, stages_at + i * stage_bytes, full + 8 * i);
            grid_wait();
            do {
#pragma unroll 1
                for (int k = k_first; k < k_last; k++) {
                    if (filled > 0) filled--;
                    else {
                        barrier_wait(empty + 8 * stage, phase ^ 1);
                        weights(row, k, stages_at + stage * stage_bytes, full + 8 * stage);
                        tokens(k, stage);
                    }
                    if (++stage == g.stages) { stage = 0; phase ^= 1; }
                }
                row += row_step;
            } while (row < g.n);
        }
        __syncwarp();
        if (split > 1) { cluster_sync(); cluster_sync(); }
        if (share > 1) cluster_meet();
        return;
    }

    registers_take<232>();
    grid_wait();
    if (elect_one())
#pragma unroll 1
        for (int i = warp; i < begin; i += 8) tokens(k_first + i, i);
    __syncwarp();
    const int unit_row = warp % 4 * 16 + lane / 4;      /* of a unit; and + 8 */
    auto release = [&](int stage) {
        if (share > 1) { if (lane < share) barrier_arrive_at(empty + 8 * stage, lane); }
        else if (lane == 0) barrier_arrive(empty + 8 * stage);
    };
    int stage = 0, phase = 0;
    do {
        float sum[MINE][ACC], acc[ACC];
#pragma unroll
        for (int u = 0; u < MINE; u++)
#pragma unroll
            for (int i = 0; i < ACC; i++) sum[u][i] = 0.0f;

        int w_scale[MINE][2];                               /* the next 128x128 scales over this thread's rows; there are < 2^31 */
        float w_next[MINE][2];
#pragma unroll
        for (int u = 0; u < MINE; u++)
#pragma unroll
            for (int h = 0; h < 2; h++) {
                const int row = min(first_row + (group * MINE + u) * g.rows + unit_row + 8 * h, g.n - 1);
                w_scale[u][h] = row / 128 * static_cast<int>(g.col_pitch) + k_first;
                w_next[u][h] = g.scaled && k_first < k_last ? __ldg(g.col_scale + w_scale[u][h]) : 1.0f;
            }

        for (int k = k_first; k < k_last; k++) {
            float w[MINE][2];
#pragma unroll
            for (int u = 0; u < MINE; u++)
#pragma unroll
                for (int h = 0; h < 2; h++) {
                    w[u][h] = w_next[u][h];
                    if (g.scaled) w_next[u][h] = __ldg(g.col_scale + (w_scale[u][h] += k + 1 < k_last));
                }
            barrier_wait(full + 8 * stage, phase);
            const uint32_t at = stages_at + stage * stage_bytes, scales = scales_at + stage * BRCI_SMALL_SCALES + lane % 4 * 8;
#pragma unroll
            for (int u = 0; u < MINE; u++) {
                const uint64_t a = tile_descriptor(at + (group * MINE + u) * g.rows * 128), b = tile_descriptor(at + weight_bytes);
                wgmma_pin(acc);
                wgmma_fence();
#pragma unroll
                for (int kk = 0; kk < 4; kk++) Wgmma<NB>::template mma<TB, TA>(acc, a + kk * 2, b + kk * 2, kk);
                wgmma_commit();
                wgmma_pin(acc);
                wgmma_wait<0>();
                if (!g.scaled) {
                    if (u == MINE - 1) release(stage);
#pragma unroll
                    for (int i = 0; i < ACC; i++) sum[u][i] += acc[i];
                } else {
#pragma unroll
                    for (int i = 0; i < NB / 8; i++) {
                        const float2 c = load_shared2(scales + 32 * i);
                        const float s = c.x, t = c.y;
                        sum[u][4 * i] += acc[4 * i] * (s * w[u][0]);
                        sum[u][4 * i + 1] += acc[4 * i + 1] * (t * w[u][0]);
                        sum[u][4 * i + 2] += acc[4 * i + 2] * (s * w[u][1]);
                        sum[u][4 * i + 3] += acc[4 * i + 3] * (t * w[u][1]);
                    }
                    if (u == MINE - 1) { __syncwarp(); release(stage); }
                }
            }
            if (++stage == g.stages) { stage = 0; phase ^= 1; }
        }

        /* ---- the sums, [token][row] in shared memory; the pitch is 4 more than a multiple of 16 floats, so that the four
         * token pairs of a quad and the eight rows of a warp's quads fall into different banks */
        const int pitch = height + 4;
        named_barrier(1, 256);
#pragma unroll
        for (int u = 0; u < MINE; u++)
#pragma unroll
            for (int h = 0; h < 2; h++) {
                if (unit_row + 8 * h >= g.rows) continue;
                const uint32_t to = sums_at + (lane % 4 * 2 * pitch + (group * MINE + u) * g.rows + unit_row + 8 * h) * 4;
#pragma unroll
                for (int i = 0; i < NB / 8; i++) {
                    store_shared(to + 8 * i * pitch * 4, sum[u][4 * i + 2 * h]);
                    store_shared(to + (8 * i + 1) * pitch * 4, sum[u][4 * i + 2 * h + 1]);
                }
            }
        if (split > 1) cluster_sync(); else named_barrier(1, 256);

        /* A thread keeps its four rows and walks over tokens, so that rows' scales are read once and the loads overlap. */
        const int quads = height / 4, width = 32 - __clz(quads - 1), row = (threadIdx.x & ((1 << width) - 1)) * 4, n = first_row + row;
        const int tokens = min(g.m, NB), step = (256 >> width) * split;
        if (row < height && n < g.n) {
            float c[4];
#pragma unroll
            for (int j = 0; j < 4; j++) c[j] = g.scaled ? 1.0f : __ldg(g.col_scale + min(n + j, g.n - 1) * g.col_stride);
#pragma unroll 4
            for (int token = rank * (256 >> width) + (threadIdx.x >> width); token < tokens; token += step) {
                const uint32_t from = sums_at + (token * pitch + row) * 4;
                float x[4];
                if (split == 1) {
                    const float4 v = load_shared4(from);
                    x[0] = v.x; x[1] = v.y; x[2] = v.z; x[3] = v.w;
                } else {
                    x[0] = x[1] = x[2] = x[3] = 0.0f;
                    for (int q = 0; q < split; q++) {
                        const float4 v = load_from(from, q);
                        x[0] += v.x; x[1] += v.y; x[2] += v.z; x[3] += v.w;
                    }
                }
                const float r = g.scaled ? 1.0f : __ldg(g.row_scale + token * g.row_stride);
                const int64_t to = token * g.ldd + n;
#pragma unroll
                for (int j = 0; j < 4; j++) {
                    if (!g.scaled) x[j] *= r * c[j];
                    if (g.bias) x[j] += read_any(g.bias, min(n + j, g.n - 1), g.bias_type);
                }
                if (g.wide) {
                    const int bf16 = g.out == BRCI_OUT_BF16;
                    *reinterpret_cast<uint2 *>(static_cast<uint16_t *>(g.d) + to) = make_uint2(pack16(x[0], x[1], bf16), pack16(x[2], x[3], bf16));
                    continue;
                }
                for (int j = 0; j < 4 && n + j < g.n; j++) {
                    if (g.accumulate) x[j] += read_any(g.d, to + j, g.out);
                    write_any(g.d, to + j, g.out, x[j]);
                }
            }
        }
        if (split > 1) cluster_sync();
        first_row += row_step;
    } while (first_row < g.n);
    if (share > 1) cluster_meet();   /* a neighbour may still send tokens or arrive here */
}

}  // namespace brc
