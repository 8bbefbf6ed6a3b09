/* SPDX-License-Identifier: Apache-2.0
 *
 * D[m, n] = A[m, K] * W[n, K]^T for packed narrow weights by warpgroup products: the weights expanded into registers on their 64-row
 * side, the tokens in shared memory on the other, so that a wide tile of tokens shares one expansion.
 *
 * One warpgroup loads, WGS multiply, MW units of 64 rows each. A stage is 128 of K. g.sides warpgroups share a stage; the teams
 * that makes take the stages in turn; narrow_sums.cuh is what they do with them.
 * Many tiles: persistent blocks, one team; two blocks of a cluster may take neighbouring rows and load the tokens once for both
 * (g.share). Few tiles: the blocks of a cluster split K, and their sums and those of the teams meet in shared memory in
 * a fixed order; so do those that the copy engine cannot write. */
#pragma once
#include "narrow_sums.cuh"
#include "parts/narrow_store.cuh"
#include "shape.h"

namespace brc {

/* 64 rows by 32 tokens of a warpgroup at a time, through 4096 bytes of staging: [token][64 rows], swizzled for the copy engine. */
template <int NB, bool SCALED>
__device__ __forceinline__ void store_unit(const brci_narrow_args &g, const float (&d)[NB / 2], float2 factor, float2 bias, int group, int warp, int lane,
                                           int n, int token, uint32_t staging, uint32_t &turn)
{
    const int bf16 = g.out == BRCI_OUT_BF16;
#pragma unroll
    for (int at = 0; at < NB; at += 32) {
        const uint32_t to = staging + (NB % 64 ? turn : at / 32 % 2) * 4096;      /* in turns */
        if (NB % 64) turn ^= 1;
        if (warp % 4 == 0 && lane == 0) tma_store_wait_read<1>();
        named_barrier(1 + group, 128);
#pragma unroll
        for (int i = 0; i < 32; i += 16) {
            const float *f = d + (at + i) / 2;
            float tokens[2][2] = {{1.0f, 1.0f}, {1.0f, 1.0f}};
            if constexpr (SCALED)                             /* tokens of E4M3 */
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
    /* Registers of the loading and the multiplying threads: together no more than those at entry, or the taking never ends. */
    constexpr int ENTRY = WGS == 2 ? 168 : 96, GIVE = WGS == 2 ? 40 : 56, TAKE = WGS == 2 ? 232 : 104;
    static_assert(GIVE + TAKE * WGS <= ENTRY * (WGS + 1), "registers");
    const uint32_t base = shared_base();
    const int warp = __shfl_sync(~0u, threadIdx.x / 32, 0), group = warp / 4, lane = threadIdx.x % 32;
    const int size = cluster_size(), place = cluster_rank(), parts = 31 - __clz(size), cluster = blockIdx.x >> parts, clusters = gridDim.x >> parts;
    const bool shared = WGS == 2 && g.share;                 /* the tokens */
    const int share = shared ? size : 1, split = shared ? 1 : size, rank = shared ? 0 : place;       /* rank: of the K parts */
    const int k_first = shared ? 0 : brci_k_part(g.k_blocks, rank, parts), k_last = shared ? g.k_blocks : brci_k_part(g.k_blocks, rank + 1, parts);
    const int sides = WGS == 2 ? 2 : g.sides, teams = WGS / sides, mine = WGS == 2 ? 8 * MW : g.rows;     /* tiles of a block */
    const int stage_bytes = brci_many_stage_bytes(TOKEN_BYTES, mine, g.chunk_bytes);
    const uint32_t full = base, empty = base + 8 * BRCI_MANY_STAGES, staging = base + BRCI_MANY_HEAD, stages_at = staging + brci_many_staging(WGS);
    const uint32_t tables = base + BRCI_MANY_TABLES;
    /* Token tiles in groups, so that those under way find their rows in L2. */
    auto locate = [&](int unit, int &row, int &token) {
        if (g.tokens == 1) {                                  /* without divisions, which would come ahead of the first copy */
            row = (unit * share + (share > 1 ? place : 0)) * mine;
            token = 0;
            return;
        }
        const int first = unit / (g.heights * g.group) * g.group, width = min(g.group, g.tokens - first), left = unit - first * g.heights;
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
    const int begin = cluster < g.units ? min(g.stages, k_last - k_first) : 0;
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
    if (cluster < g.units) locate(cluster, first_row, first_token);

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
            for (int unit = cluster; unit < g.units; unit += clusters) {
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
    const int side = group % sides, team = group / sides, own = side * MW * 4 + warp % 4;
    const uint32_t there = share > 1 ? lane % 2 : place;
    ManyRing<WGS> ring = {g, base, stages_at, stage_bytes, TOKEN_BYTES, own, lane, teams, share, there, team, 0};
    uint32_t turn = 0;

    for (int unit = cluster; unit < g.units; unit += clusters) {
        int first, token;
        locate(unit, first, token);
#pragma unroll
        for (int u = 0; u < MW; u++)
#pragma unroll
            for (int i = 0; i < ACC; i++) sum[u][i] = 0.0f;
        if constexpr (W::SPLITS && MW == 2) sum_split<W, NB, MW>(ring, k_first + team, k_last, sum);
        else if constexpr (W::TOKEN == 1 && (NB >= 128 || NB <= 16)) sum_pieces<W, NB>(ring, k_first + team, k_last, sum);
        else sum_batches<W, NB, MW>(ring, k_first + team, k_last, sum);

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
                store_unit<NB, W::TOKEN == 1>(g, sum[u], rows, bias, group, warp, lane, tile * 16, token, opaque(base) + BRCI_MANY_HEAD + group * 8192, turn);
            }
            continue;
        }
        /* ---- one tile a block: the sums, [team][token][row], where the stages were; 4 floats more than a multiple of 32 from token to token.
         * Opaque, or what follows from it is worked out ahead of all products and kept. */
        const int tile = static_cast<int>(opaque(static_cast<uint32_t>(own))), pitch = static_cast<int>(opaque(static_cast<uint32_t>(mine * 16 + 4)));
        const int sums_bytes = NB * pitch * 4, threads = WGS * 128;
        if (split > 1) cluster_arrive();                      /* this block's stages may be written to */
        named_barrier(1 + WGS, threads);
#pragma unroll
        for (int u = 0; u < MW; u++) {
            if (tile + u * 4 >= mine) continue;
            const uint32_t to = stages_at + team * sums_bytes + (lane % 4 * 2 * pitch + (tile + u * 4) * 16 + lane / 4) * 4;
#pragma unroll
            for (int i = 0; i < ACC; i++)
                store_float(to + ((i / 4 * 8 + i % 2) * pitch + i / 2 % 2 * 8) * 4, sum[u][i]);
        }
        named_barrier(1 + WGS, threads);
        const int quads = min(mine, g.tiles - first) * 4, work = quads * min(NB, g.m - token);
        auto teams_sum = [&](uint32_t from, float (&v)[4]) {
            v[0] = v[1] = v[2] = v[3] = 0.0f;
#pragma unroll 2
            for (int q = 0; q < teams; q++) {
                const uint4 w = load_words4(from + q * sums_bytes);
                v[0] += __uint_as_float(w.x); v[1] += __uint_as_float(w.y); v[2] += __uint_as_float(w.z); v[3] += __uint_as_float(w.w);
            }
        };
        /* Each block finishes a part of the work, to which the others send their sums: [rank of the sender][of the part]. */
        const int part_of = (work + split - 1) / split, begins = rank * part_of;
        const uint32_t sent_at = stages_at + teams * sums_bytes;
        auto own_sums = [&](int e, float (&v)[4]) { teams_sum(stages_at + (e / quads * pitch + e % quads * 4) * 4, v); };
        if (split > 1) {
            cluster_wait();
#pragma unroll 1
            for (int e = threadIdx.x; e < work; e += threads) {
                int to = 0, at = e;
                for (; at >= part_of; at -= part_of) to++;
                float v[4];
                own_sums(e, v);
                store_four_to(sent_at + (begins + at) * 16, to, v);
            }
            cluster_sync();
        }
#pragma unroll 1
        for (int e = begins + threadIdx.x; e < min(begins + part_of, work); e += threads) {
            float v[4];
            if (split == 1) own_sums(e, v);
            else {
                v[0] = v[1] = v[2] = v[3] = 0.0f;
#pragma unroll 2
                for (int q = 0; q < split; q++) {
                    const float4 w = load_shared4(sent_at + (q * part_of + e - begins) * 16);
                    v[0] += w.x; v[1] += w.y; v[2] += w.z; v[3] += w.w;
                }
            }
            const int n = (first * 4 + e % quads) * 4;
            store_four(g, token + e / quads, n, row_factors(g, n), v);
        }
    }
    if (warp % 4 == 0 && lane == 0) tma_store_wait();
    if (share > 1) cluster_meet();                            /* a neighbour may still send tokens or arrive here */
}

}  // namespace brc
