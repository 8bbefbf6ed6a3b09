/* SPDX-License-Identifier: Apache-2.0
 *
 * D[m, n] = A[m, K] * W[n, K]^T for packed narrow weights and more than a few tokens: warpgroup products, the weights expanded into
 * registers on their 64-row side, the tokens in shared memory on the other, so that a wide tile of tokens shares one expansion.
 *
 * One warpgroup loads, two multiply, MW units of 64 rows each. A stage is 128 of K. While the tensor cores work on one batch of
 * steps, the next one's codes are expanded. Scales that are not folded into the operands multiply the sums of their group on
 * the way to a second set of sums. Many tiles: persistent blocks. Few tiles: the blocks of a cluster split K, and their
 * sums meet in shared memory in a fixed order; so do those that the copy engine cannot write. */
#pragma once
#include "parts/barrier.cuh"
#include "parts/bulk.cuh"
#include "parts/narrow.cuh"
#include "parts/narrow_store.cuh"
#include "parts/tma.cuh"
#include "parts/wgmma.cuh"
#include "parts/wgmma16.cuh"
#include "shape.h"

namespace brc {

/* 64 rows by 32 tokens of a warpgroup at a time, through 4096 bytes of staging: [token][64 rows], swizzled for the copy engine. */
template <int NB>
__device__ __forceinline__ void store_unit(const brci_narrow_args &g, const float (&d)[NB / 2], float2 factor, float2 bias, int group, int warp, int lane,
                                           int n, int token, uint32_t staging, uint32_t &turn)
{
    const int bf16 = g.out == BRCI_OUT_BF16;
#pragma unroll
    for (int at = 0; at < NB; at += 32) {
        const uint32_t to = staging + turn * 4096;
        turn ^= 1;
        if (warp % 4 == 0 && lane == 0) tma_store_wait_read<1>();
        named_barrier(1 + group, 128);
#pragma unroll
        for (int i = 0; i < 32; i += 16) {
            const float *f = d + (at + i) / 2;
            const int row = i + lane / 16 * 8 + lane % 8, chunk = warp % 4 * 2 + lane / 8 % 2;
            uint32_t v[4];
#pragma unroll
            for (int q = 0; q < 2; q++) {
                v[2 * q] = pack16(f[4 * q] * factor.x + bias.x, f[4 * q + 1] * factor.x + bias.x, bf16);
                v[2 * q + 1] = pack16(f[4 * q + 2] * factor.y + bias.y, f[4 * q + 3] * factor.y + bias.y, bf16);
            }
            asm volatile("stmatrix.sync.aligned.m8n8.x4.trans.shared.b16 [%0], {%1, %2, %3, %4};"
                         :: "r"(to + row * 128 + ((chunk ^ row % 8) << 4)), "r"(v[0]), "r"(v[1]), "r"(v[2]), "r"(v[3]) : "memory");
        }
        async_fence();
        named_barrier(1 + group, 128);
        if (warp % 4 == 0 && lane == 0) tma_store(&g.d_map, to, n, token + at);
    }
}

template <class W, int NB, int MW>
__device__ __forceinline__ void narrow_many(const brci_narrow_args &g)
{
    constexpr int TILES = 8 * MW, TOKEN_BYTES = NB * 256, ACC = NB / 2;
    constexpr int BATCH = !W::FOLDED && W::STEPS < 4 ? W::STEPS : NB * MW <= 64 ? 4 : 2, BATCHES = 8 / BATCH;   /* steps of a batch; batches of a stage */
    static_assert(W::FOLDED || MW == 1, "two sets of sums for one unit");
    extern __shared__ __align__(1024) uint8_t shared[];
    uint32_t base;                                      /* opaque, or the compiler derives it anew at every stage */
    asm volatile("mov.u32 %0, %1;" : "=r"(base) : "r"(shared_address(shared)));
    base = __shfl_sync(~0u, base, 0);
    const int warp = __shfl_sync(~0u, threadIdx.x / 32, 0), group = warp / 4, lane = threadIdx.x % 32;
    const int size = cluster_size(), rank = cluster_rank(), cluster = blockIdx.x / size, clusters = gridDim.x / size;
    const int k_first = static_cast<int>(static_cast<int64_t>(g.k_blocks) * rank / size);
    const int k_last = static_cast<int>(static_cast<int64_t>(g.k_blocks) * (rank + 1) / size);
    const int high = (g.tiles + TILES - 1) / TILES, units = high * g.tokens;
    const int stage_bytes = brci_many_stage_bytes(NB, MW, g.chunk_bytes);
    const uint32_t full = base, empty = base + 8 * BRCI_MANY_STAGES, staging = base + BRCI_MANY_HEAD, stages_at = staging + BRCI_MANY_STAGING;
    /* Token tiles in groups, so that those under way find their rows in L2. */
    auto place = [&](int unit, int &row, int &token) {
        const int first = unit / (high * g.group) * g.group, width = min(g.group, g.tokens - first), left = unit - first * high;
        row = left / width * TILES;
        token = (first + left % width) * NB;
    };

    if (warp == 0 && elect_one()) {
        for (int i = 0; i < g.stages; i++) {
            barrier_init(full + 8 * i, 1);
            barrier_init(empty + 8 * i, 8);
        }
        barrier_init_fence();
        tma_prefetch_map(&g.a);
        if (g.wide) tma_prefetch_map(&g.d_map);
    }
    __syncthreads();
    grid_launch_next();

    if (group == 2) {
        registers_give<40>();
        if (warp % 4 == 0 && elect_one()) {
            int stage = 0, phase = 0;
            auto weights = [&](int first, int k, uint32_t bar, uint32_t at) {
                const int tiles = min(TILES, g.tiles - first);
                barrier_expect(bar, tiles * g.chunk_bytes + TOKEN_BYTES);
                bulk_load(at + TOKEN_BYTES, g.chunks + brci_chunk_at(first, k, g.tiles, g.k_blocks) * g.chunk_bytes, tiles * g.chunk_bytes, bar,
                          g.tokens > 1 ? EVICT_NORMAL : EVICT_FIRST);
            };
            int first_row = 0, first_token = 0;
            if (cluster < units) place(cluster, first_row, first_token);
            const int early = g.early && cluster < units ? min(g.stages, k_last - k_first) : 0;
            for (int i = 0; i < early; i++) weights(first_row, k_first + i, full + 8 * i, stages_at + i * stage_bytes);
            grid_wait();
            for (int unit = cluster; unit < units; unit += clusters) {
                int row, token;
                place(unit, row, token);
                for (int k = k_first; k < k_last; k++) {
                    const uint32_t bar = full + 8 * stage, at = stages_at + stage * stage_bytes;
                    if (unit != cluster || k - k_first >= early) {
                        barrier_wait(empty + 8 * stage, phase ^ 1);
                        weights(row, k, bar, at);
                    }
                    tma_load(at, &g.a, bar, k * 128, token, EVICT_LAST);
                    tma_load(at + NB * 128, &g.a, bar, k * 128 + 64, token, EVICT_LAST);
                    if (++stage == g.stages) { stage = 0; phase ^= 1; }
                }
            }
        }
        __syncwarp();
        if (size > 1) { cluster_sync(); cluster_sync(); }     /* clusters have one tile each */
        return;
    }

    registers_take<232>();
    grid_wait();
    float sum[MW][ACC];
    [[maybe_unused]] float part[W::FOLDED ? 1 : ACC];
    uint32_t a[2][MW][BATCH][4];
    int stage = 0, phase = 0;
    uint32_t turn = 0;
    const int own = group * MW * 4 + warp % 4;               /* this warp's first tile; the next unit's is 4 further */

    for (int unit = cluster; unit < units; unit += clusters) {
        int first, token;
        place(unit, first, token);
#pragma unroll
        for (int u = 0; u < MW; u++)
#pragma unroll
            for (int i = 0; i < ACC; i++) sum[u][i] = 0.0f;
        int previous = 0;
        float2 factor, next;
        for (int k = k_first; k < k_last; k++) {
            const uint32_t at = stages_at + stage * stage_bytes, chunks = at + TOKEN_BYTES + own * g.chunk_bytes;
            const uint64_t b = tile_descriptor(at);
            barrier_wait(full + 8 * stage, phase);
            typename W::Scales scales[MW];
            uint32_t x[MW][4];
#pragma unroll
            for (int u = 0; u < MW; u++) scales[u].load(chunks + u * 4 * g.chunk_bytes, lane / 4);
#pragma unroll
            for (int q = 0; q < BATCHES; q++) {
#pragma unroll
                for (int s = 0; s < BATCH; s++) {
                    const int i = q * BATCH + s;              /* step */
#pragma unroll
                    for (int u = 0; u < MW; u++) {
                        if (i % (4 / W::WORDS) == 0) {
                            const uint4 v = load_words4(chunks + u * 4 * g.chunk_bytes + i / (4 / W::WORDS) * 512 + lane * 16);
                            x[u][0] = v.x; x[u][1] = v.y; x[u][2] = v.z; x[u][3] = v.w;
                        }
                        W::operand(x[u] + i % (4 / W::WORDS) * W::WORDS, scales[u], i, a[q % 2][u][s]);
                    }
                }
                const bool starts = !W::FOLDED && q * BATCH % W::STEPS == 0;
                if (starts) {
                    next = W::factors(g, chunks, lane / 4, q * BATCH / W::STEPS);
                    if (q > 0 || k > k_first) {
                        wgmma_wait<0>();
                        wgmma_pin(part);
                        if (q == 0 && lane == 0) barrier_arrive(empty + 8 * previous);
                        if constexpr (!W::FOLDED)
#pragma unroll
                            for (int i = 0; i < ACC; i++) sum[0][i] += part[i] * (i & 2 ? factor.y : factor.x);
                    }
                    factor = next;
                }
                if constexpr (W::FOLDED) {
#pragma unroll
                    for (int u = 0; u < MW; u++) wgmma_pin(sum[u]);
                } else wgmma_pin(part);
                wgmma_fence();
#pragma unroll
                for (int s = 0; s < BATCH; s++) {
                    const int i = q * BATCH + s;
#pragma unroll
                    for (int u = 0; u < MW; u++) {
                        const uint64_t tokens = b + i / 4 * (NB * 8) + i % 4 * 2;
                        if constexpr (W::FOLDED) Wgmma16<NB>::template mma<W::BF16>(sum[u], a[q % 2][u][s], tokens, 1);
                        else Wgmma16<NB>::template mma<W::BF16>(part, a[q % 2][u][s], tokens, i % W::STEPS != 0);
                    }
                }
                wgmma_commit();
                if constexpr (W::FOLDED) {
#pragma unroll
                    for (int u = 0; u < MW; u++) wgmma_pin(sum[u]);
                } else wgmma_pin(part);
                wgmma_wait<1>();
                if (W::FOLDED && q == 0 && k > k_first && lane == 0) barrier_arrive(empty + 8 * previous);
            }
            previous = stage;
            if (++stage == g.stages) { stage = 0; phase ^= 1; }
        }
        wgmma_wait<0>();
        if constexpr (W::FOLDED) {
#pragma unroll
            for (int u = 0; u < MW; u++) wgmma_pin(sum[u]);
        } else {
            wgmma_pin(part);
#pragma unroll
            for (int i = 0; i < ACC; i++) sum[0][i] += part[i] * (i & 2 ? factor.y : factor.x);
        }
        if (lane == 0) barrier_arrive(empty + 8 * previous);

        if (g.wide && size == 1) {
#pragma unroll
            for (int u = 0; u < MW; u++) {
                const int tile = first + group * MW * 4 + u * 4, row = (tile + warp % 4) * 16 + lane / 4;
                if (tile * 16 >= g.n) continue;              /* the same for all of the warpgroup */
                float2 rows, bias = make_float2(0.0f, 0.0f);
                rows.x = __ldg(g.row_factor + min(row, g.n - 1));
                rows.y = __ldg(g.row_factor + min(row + 8, g.n - 1));
                if (g.bias) {
                    bias.x = read_any(g.bias, min(row, g.n - 1), g.bias_type);
                    bias.y = read_any(g.bias, min(row + 8, g.n - 1), g.bias_type);
                }
                store_unit<NB>(g, sum[u], rows, bias, group, warp, lane, tile * 16, token, staging + group * 8192, turn);
            }
            continue;
        }
        /* ---- one tile a block: the sums, [token][row], where the stages were; 4 floats more than a multiple of 32 from token to token */
        constexpr int PITCH = TILES * 16 + 4;
        named_barrier(3, 256);
#pragma unroll
        for (int u = 0; u < MW; u++) {
            const uint32_t to = stages_at + (lane % 4 * 2 * PITCH + (own + u * 4) * 16 + lane / 4) * 4;
#pragma unroll
            for (int i = 0; i < ACC; i++)
                asm volatile("st.shared.f32 [%0], %1;" :: "r"(to + (i / 4 * 8 * PITCH + i % 2 * PITCH + i / 2 % 2 * 8) * 4), "f"(sum[u][i]) : "memory");
        }
        if (size > 1) cluster_sync(); else named_barrier(3, 256);
        const int quads = min(TILES, g.tiles - first) * 4, work = quads * min(NB, g.m - token);
        for (int e = threadIdx.x + rank * 256; e < work; e += 256 * size) {
            const uint32_t from = stages_at + (e / quads * PITCH + e % quads * 4) * 4;
            float v[4];
            if (size > 1) cluster_sum(from, size, v);
            else {
                const uint4 w = load_words4(from);
                v[0] = __uint_as_float(w.x); v[1] = __uint_as_float(w.y); v[2] = __uint_as_float(w.z); v[3] = __uint_as_float(w.w);
            }
            store_four(g, token + e / quads, (first * 4 + e % quads) * 4, v);
        }
        if (size > 1) cluster_sync();
    }
    if (warp % 4 == 0 && lane == 0) tma_store_wait();
}

}  // namespace brc
