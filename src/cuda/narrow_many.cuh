/* SPDX-License-Identifier: Apache-2.0
 *
 * D[m, n] = A[m, K] * W[n, K]^T for packed narrow weights by warpgroup products: the weights expanded into registers on their 64-row
 * side, the tokens in shared memory on the other, so that a wide tile of tokens shares one expansion.
 *
 * One warpgroup loads, WGS multiply, MW units of 64 rows each. A stage is 128 of K. g.sides warpgroups share a stage; the teams
 * that makes take the stages in turn. While the tensor cores work on one batch of steps, the next one's codes are expanded.
 * Scales that are not folded into the operands multiply the sums of their group on the way to a second set of sums.
 * Many tiles: persistent blocks, one team; two blocks of a cluster may take neighbouring rows and load the tokens once for both
 * (g.share). Few tiles: the blocks of a cluster split K, and their sums and those of the teams meet in shared memory in
 * a fixed order; so do those that the copy engine cannot write. */
#pragma once
#include "parts/narrow.cuh"
#include "parts/narrow_store.cuh"
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
            float tokens[2][2] = {{1.0f, 1.0f}, {1.0f, 1.0f}};
            if (g.token_factor)
#pragma unroll
                for (int q = 0; q < 4; q++)
                    tokens[q / 2][q % 2] = __ldg(g.token_factor + min(token + at + i + q / 2 * 8 + lane % 4 * 2 + q % 2, g.m - 1) * g.token_stride);
            const int row = i + lane / 16 * 8 + lane % 8, chunk = warp % 4 * 2 + lane / 8 % 2;
            uint32_t v[4];
#pragma unroll
            for (int q = 0; q < 2; q++) {
                v[2 * q] = pack16(f[4 * q] * factor.x * tokens[q][0] + bias.x, f[4 * q + 1] * factor.x * tokens[q][1] + bias.x, bf16);
                v[2 * q + 1] = pack16(f[4 * q + 2] * factor.y * tokens[q][0] + bias.y, f[4 * q + 3] * factor.y * tokens[q][1] + bias.y, bf16);
            }
            store_columns(to + row * 128 + ((chunk ^ row % 8) << 4), v);
        }
        async_fence();
        named_barrier(1 + group, 128);
        if (warp % 4 == 0 && lane == 0) tma_store(&g.d_map, to, n, token + at);
    }
}

template <class W, int NB, int MW, int WGS>
__device__ __forceinline__ void narrow_many(const brci_narrow_args &g)
{
    constexpr int TOKEN_BYTES = NB * 128 * W::TOKEN, ACC = NB / 2;
    /* Steps of a batch, as many as registers allow; batches of a stage. */
    constexpr int BATCH = W::FOLDED ? (NB * MW > 128 ? 1 : NB * MW > 64 ? 2 : 4) : W::TOKEN == 1 || NB > 32 || W::STEPS < 4 ? 2 : 4, BATCHES = W::STAGE_STEPS / BATCH;
    /* Registers of the loading and the multiplying threads: together no more than those at entry, or the taking never ends. */
    constexpr int ENTRY = WGS == 2 ? 168 : 96, GIVE = WGS == 2 ? 40 : 56, TAKE = WGS == 2 ? 232 : 104;
    static_assert(GIVE + TAKE * WGS <= ENTRY * (WGS + 1), "registers");
    static_assert(W::FOLDED || MW == 1, "two sets of sums for one unit");
    const uint32_t base = shared_base();
    const int warp = __shfl_sync(~0u, threadIdx.x / 32, 0), group = warp / 4, lane = threadIdx.x % 32;
    const int size = cluster_size(), place = cluster_rank(), cluster = blockIdx.x / size, clusters = gridDim.x / size;
    const int share = g.share ? size : 1, split = g.share ? 1 : size, rank = g.share ? 0 : place;       /* rank: of the K parts */
    const int k_first = static_cast<int>(static_cast<int64_t>(g.k_blocks) * rank / split);
    const int k_last = static_cast<int>(static_cast<int64_t>(g.k_blocks) * (rank + 1) / split);
    const int sides = WGS == 2 ? 2 : g.sides, teams = WGS / sides, mine = WGS == 2 ? 8 * MW : g.rows;     /* tiles of a block */
    const int high = (g.tiles + mine * share - 1) / (mine * share), units = high * g.tokens;
    const int stage_bytes = brci_many_stage_bytes(TOKEN_BYTES, mine, g.chunk_bytes);
    const uint32_t full = base, empty = base + 8 * BRCI_MANY_STAGES, staging = base + BRCI_MANY_HEAD, stages_at = staging + brci_many_staging(WGS);
    const uint32_t tables = base + BRCI_MANY_TABLES;
    /* Token tiles in groups, so that those under way find their rows in L2. */
    auto locate = [&](int unit, int &row, int &token) {
        const int first = unit / (high * g.group) * g.group, width = min(g.group, g.tokens - first), left = unit - first * high;
        row = (left / width * share + (share > 1 ? place : 0)) * mine;
        token = (first + left % width) * NB;
    };

    if (warp == 0 && elect_one()) {
        for (int i = 0; i < g.stages; i++) {
            barrier_init(full + 8 * i, 1);
            barrier_init(empty + 8 * i, 4 * sides * share);
        }
        barrier_init_fence();
        tma_prefetch_map(&g.a);
        if (g.wide) tma_prefetch_map(&g.d_map);
    }
    if (W::TOKEN == 1 && warp == 1) fill_tables(tables, lane);
    if (share > 1) cluster_sync(); else __syncthreads();
    grid_launch_next();
    /* Stages of the first filling: their tokens are sent for by the multiplying warps, as in narrow_few.cuh. */
    const int begin = cluster < units ? min(g.stages, k_last - k_first) : 0;
    auto tokens = [&](int token, int k, uint32_t bar, uint32_t at) {
#pragma unroll
        for (int i = 0; i < W::TOKEN; i++) {                             /* 128 bytes of K each */
            if (share > 1)
                tma_load_shared(at + i * NB * 128 + place * (NB * 64), &g.a, bar, k * 128 + i * 64, token + place * (NB / 2), 3);
            else
                tma_load(at + i * NB * 128, &g.a, bar, k * 128 + i * 64, token, EVICT_LAST);
        }
    };
    int first_row = 0, first_token = 0;
    if (cluster < units) locate(cluster, first_row, first_token);

    if (group == WGS) {
        registers_give<GIVE>();
        if (warp % 4 == 0 && elect_one()) {
            int stage = 0, phase = 0;
            auto weights = [&](int first, int k, uint32_t bar, uint32_t at) {
                const int tiles = max(min(mine, g.tiles - first), 0), here = min(tiles, 16 - first % 16);
                const uint64_t policy = g.tokens > 1 ? EVICT_NORMAL : EVICT_FIRST;
                barrier_expect(bar, tiles * g.chunk_bytes + TOKEN_BYTES);
                if (tiles)
                    bulk_load(at + TOKEN_BYTES, g.chunks + brci_chunk_at(first, k, g.tiles, g.k_blocks) * g.chunk_bytes, here * g.chunk_bytes, bar, policy);
                if (here < tiles)
                    bulk_load(at + TOKEN_BYTES + here * g.chunk_bytes, g.chunks + brci_chunk_at(first + here, k, g.tiles, g.k_blocks) * g.chunk_bytes,
                              (tiles - here) * g.chunk_bytes, bar, policy);
            };
            if (!g.early) grid_wait();
            for (int i = 0; i < begin; i++) weights(first_row, k_first + i, full + 8 * i, stages_at + i * stage_bytes);
            grid_wait();
            for (int unit = cluster; unit < units; unit += clusters) {
                int row, token;
                locate(unit, row, token);
                for (int k = k_first; k < k_last; k++) {
                    const uint32_t bar = full + 8 * stage, at = stages_at + stage * stage_bytes;
                    if (unit != cluster || k - k_first >= begin) {
                        barrier_wait(empty + 8 * stage, phase ^ 1);
                        weights(row, k, bar, at);
                        tokens(token, k, bar, at);
                    }
                    if (++stage == g.stages) { stage = 0; phase ^= 1; }
                }
            }
        }
        __syncwarp();
        if (split > 1) { cluster_sync(); cluster_sync(); }    /* clusters have one tile each */
        if (share > 1) cluster_meet();
        return;
    }

    grid_wait();
    if (elect_one())
#pragma unroll 1
        for (int i = warp; i < begin; i += 4 * WGS) tokens(first_token, k_first + i, full + 8 * i, stages_at + i * stage_bytes);
    __syncwarp();
    registers_take<TAKE>();
    float sum[MW][ACC];
    [[maybe_unused]] float part[W::FOLDED ? 1 : ACC];
    uint32_t a[2][MW][BATCH][4];
    const int side = group % sides, team = group / sides;
    int stage = team, phase = 0;                             /* g.stages is a multiple of teams */
    uint32_t turn = 0;
    const int own = side * MW * 4 + warp % 4;                /* this warp's first tile; the next unit's is 4 further. Tiles that are not there
                                                              * are read and multiplied as what lies behind the stage, and never looked at */
    /* Without a branch, which would end the compiler's view of what is in flight. */
    const uint32_t there = share > 1 ? lane % 2 : place;
    auto release = [&](int which) { if (lane < share) barrier_arrive_at(empty + 8 * which, there); };

    for (int unit = cluster; unit < units; unit += clusters) {
        int first, token;
        locate(unit, first, token);
#pragma unroll
        for (int u = 0; u < MW; u++)
#pragma unroll
            for (int i = 0; i < ACC; i++) sum[u][i] = 0.0f;
        int previous = -1;
        float2 factor;
        for (int k = k_first + team; k < k_last; k += teams) {
            const uint32_t at = stages_at + stage * stage_bytes, chunks = at + TOKEN_BYTES + own * g.chunk_bytes;
            const uint64_t b = tile_descriptor(at);
            barrier_wait(full + 8 * stage, phase);
            typename W::Scales scales[MW];
            uint32_t x[MW][4];
#pragma unroll
            for (int u = 0; u < MW; u++) scales[u].load(chunks + u * 4 * g.chunk_bytes, lane / 4, tables);
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
                if constexpr (!W::FOLDED) {
                    if (q * BATCH % W::STEPS == 0) {          /* a group starts: the last one's sums are wanted first */
                        const float2 next = W::factors(g, chunks, lane / 4, q * BATCH / W::STEPS);
                        if (q > 0 || previous >= 0) {
                            wgmma_wait<0>();
                            wgmma_pin(part);
                            if (q == 0) release(previous);
#pragma unroll
                            for (int i = 0; i < ACC; i++) sum[0][i] += part[i] * (i & 2 ? factor.y : factor.x);
                        }
                        factor = next;
                    }
                    wgmma_pin(part);
                } else
#pragma unroll
                    for (int u = 0; u < MW; u++) wgmma_pin(sum[u]);
                wgmma_fence();
#pragma unroll
                for (int s = 0; s < BATCH; s++) {
                    const int i = q * BATCH + s;
#pragma unroll
                    for (int u = 0; u < MW; u++) {
                        const uint64_t tokens = b + i / 4 * (NB * 8) + i % 4 * 2;
                        if constexpr (W::FOLDED) WgmmaRs<NB>::template mma<W::TYPE>(sum[u], a[q % 2][u][s], tokens, 1);
                        else WgmmaRs<NB>::template mma<W::TYPE>(part, a[q % 2][u][s], tokens, i % W::STEPS != 0);
                    }
                }
                wgmma_commit();
                if constexpr (W::FOLDED) {
#pragma unroll
                    for (int u = 0; u < MW; u++) wgmma_pin(sum[u]);
                } else wgmma_pin(part);
                wgmma_wait<1>();
                if (W::FOLDED && q == 0 && previous >= 0) release(previous);
            }
            previous = stage;
            if ((stage += teams) >= g.stages) { stage -= g.stages; phase ^= 1; }
        }
        wgmma_wait<0>();
        if constexpr (W::FOLDED) {
#pragma unroll
            for (int u = 0; u < MW; u++) wgmma_pin(sum[u]);
        } else {
            wgmma_pin(part);
            if (previous >= 0)
#pragma unroll
                for (int i = 0; i < ACC; i++) sum[0][i] += part[i] * (i & 2 ? factor.y : factor.x);
        }
        if (previous >= 0) release(previous);

        if constexpr (NB >= 32) if (g.wide && split == 1 && teams == 1 && mine % 4 == 0) {
#pragma unroll
            for (int u = 0; u < MW; u++) {
                const int unit_tile = side * MW * 4 + u * 4, tile = first + unit_tile, row = (tile + warp % 4) * 16 + lane / 4;
                if (unit_tile >= mine || tile * 16 >= g.n) continue;      /* the same for all of the warpgroup */
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
        /* ---- one tile a block: the sums, [team][token][row], where the stages were; 4 floats more than a multiple of 32 from token to token */
        const int pitch = mine * 16 + 4, sums_bytes = NB * pitch * 4, threads = WGS * 128;
        named_barrier(1 + WGS, threads);
#pragma unroll
        for (int u = 0; u < MW; u++) {
            if (own + u * 4 >= mine) continue;
            const uint32_t to = stages_at + team * sums_bytes + (lane % 4 * 2 * pitch + (own + u * 4) * 16 + lane / 4) * 4;
#pragma unroll
            for (int i = 0; i < ACC; i++)
                store_float(to + ((i / 4 * 8 + i % 2) * pitch + i / 2 % 2 * 8) * 4, sum[u][i]);
        }
        named_barrier(1 + WGS, threads);
        const int quads = min(mine, g.tiles - first) * 4, work = quads * min(NB, g.m - token);
        auto teams_sum = [&](uint32_t from, float (&v)[4]) {
            v[0] = v[1] = v[2] = v[3] = 0.0f;
            for (int q = 0; q < teams; q++) {
                const uint4 w = load_words4(from + q * sums_bytes);
                v[0] += __uint_as_float(w.x); v[1] += __uint_as_float(w.y); v[2] += __uint_as_float(w.z); v[3] += __uint_as_float(w.w);
            }
        };
        if (split > 1) {
            for (int e = threadIdx.x; e < work && teams > 1; e += threads) {
                const uint32_t from = stages_at + (e / quads * pitch + e % quads * 4) * 4;
                float v[4];
                teams_sum(from, v);
                store_floats4(from, v);
            }
            cluster_sync();
        }
        for (int e = threadIdx.x + rank * threads; e < work; e += threads * split) {
            const uint32_t from = stages_at + (e / quads * pitch + e % quads * 4) * 4;
            float v[4];
            if (split > 1) cluster_sum(from, split, v); else teams_sum(from, v);
            const int n = (first * 4 + e % quads) * 4;
            store_four(g, token + e / quads, n, row_factors(g, n), v);
        }
        if (split > 1) cluster_sync();
    }
    if (warp % 4 == 0 && lane == 0) tma_store_wait();
    if (share > 1) cluster_meet();                            /* a neighbour may still send tokens or arrive here */
}

}  // namespace brc
