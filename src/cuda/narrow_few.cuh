/* SPDX-License-Identifier: Apache-2.0
 *
 * D[m, n] = A[m, K] * W[n, K]^T for packed narrow weights and at most 16 tokens: every byte of W is read once, and the time is
 * that of reading it. The instructions that expand the codes are the second limit, so products are those of single warps
 * (mma.cuh), which need no waiting for one another; the weights are their 16-row side.
 *
 * One warp loads. A stage holds 128 of K: the chunks of the block's g.rows tiles and the tokens. The stages' first tokens are sent
 * for by the multiplying warps, so that they are not queued behind the weights of all stages.
 * 15 warps multiply: g.sides of them share a stage, two tiles each, and as many such teams as that makes take the stages in turn:
 * the fewer stages are held at one time, the more are on their way. What the division leaves over is idle. The teams' sums, and
 * those of the cluster's blocks, which split K, meet in shared memory in a fixed order: each block finishes a part of the results,
 * to which the others send their sums.
 * What comes ahead of the first byte, and after the last, is a third of the time of small weights: no divisions there, barriers
 * made by all warps, factors of the results loaded early. */
#pragma once
#include "parts/narrow.cuh"
#include "parts/narrow_store.cuh"
#include "shape.h"

namespace brc {

/* A step of 16 of K, or of 32 of E4M3: as F16, which holds it exactly, in two steps of which each takes the first or the last 16 of K. A lane has four
 * neighbours in K there, of which the first two pass as what a step of F16 has at 2t, the others as what it has at 2t + 8. */
template <class W> __device__ __forceinline__ void multiply(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&tokens)[2])
{
    if constexpr (W::TYPE != RS_E4M3) mma<W::TYPE == RS_BF16>(d, a, tokens[0], tokens[1]);
    else
#pragma unroll
        for (int i = 0; i < 2; i++) {
            uint32_t wide[4], first, second;
            f16_of_e4m3_word(a[2 * i], wide[0], wide[2]);
            f16_of_e4m3_word(a[2 * i + 1], wide[1], wide[3]);
            f16_of_e4m3_word(tokens[i], first, second);
            mma<false>(d, wide, first, second);
        }
}

template <class W, int NB>
__device__ __forceinline__ void narrow_few(const brci_narrow_args &g)
{
    constexpr int HALVES = NB / 8, WARPS = BRCI_FEW_WARPS, TOKEN_BYTES = NB * 128 * W::TOKEN, PIECES = 1 + (BRCI_FEW_TILES + 14) / 16;
    const uint32_t base = shared_base();
    const int warp = __shfl_sync(~0u, threadIdx.x / 32, 0), lane = threadIdx.x % 32;
    const int size = cluster_size(), rank = cluster_rank(), parts = 31 - __clz(size), cluster = blockIdx.x >> parts, clusters = gridDim.x >> parts;
    const int k_first = brci_k_part(g.k_blocks, rank, parts), k_last = brci_k_part(g.k_blocks, rank + 1, parts);
    const int groups = g.heights, sides = g.sides, teams = g.teams;
    const int pitch = sides * 32 + 4, sums_bytes = NB * pitch * 4;   /* 4 floats more than a multiple of 32 from token to token, against bank conflicts */
    const int stage_bytes = brci_few_stage_bytes(NB, W::TOKEN, g.rows, g.chunk_bytes);
    const uint32_t full = base, empty = base + 8 * BRCI_FEW_STAGES, stages_at = base + BRCI_FEW_HEAD, sums_at = stages_at + g.stages * stage_bytes;

    const uint32_t tables = base + BRCI_FEW_TABLES;
    if (W::TOKEN == 1 && warp == WARPS) fill_tables(tables, lane);
    if (elect_one()) {
#pragma unroll 1
        for (int i = warp; i < g.stages; i += WARPS + 1) {
            barrier_init(full + 8 * i, 1);
            barrier_init(empty + 8 * i, sides);
        }
        barrier_init_fence();
        if (warp == 0) tma_prefetch_map(&g.a);
    }
    __syncthreads();
    grid_launch_next();
    if (size > 1) cluster_arrive();
    auto tokens = [&](int k, uint32_t bar, uint32_t at) {
#pragma unroll
        for (int i = 0; i < W::TOKEN; i++) tma_load(at + i * NB * 128, &g.a, bar, k * 128 + i * 64, 0, EVICT_LAST);   /* 128 bytes of K each */
    };

    const int begin = cluster < groups ? min(g.stages, k_last - k_first) : 0;      /* stages of the first filling */

    if (warp == WARPS) {
        /* ---- loading */
        if (elect_one()) {
            int stage = 0, phase = 0;
            for (int group = cluster; group < groups; group += clusters) {
                /* The chunks of a step, in pieces that lie in one group of 16 tiles: where they are changes by a constant. */
                const int first = group * g.rows, tiles = min(g.rows, g.tiles - first);
                const uint8_t *from[PIECES];
                int next[PIECES], bytes[PIECES];
#pragma unroll
                for (int i = 0, done = 0; i < PIECES; i++) {
                    const int tile = first + done, here = min(tiles - done, 16 - tile % 16);
                    from[i] = g.chunks + brci_chunk_at(tile, k_first, g.tiles, g.k_blocks) * g.chunk_bytes;
                    next[i] = min(g.tiles - tile / 16 * 16, 16) * g.chunk_bytes;
                    bytes[i] = here * g.chunk_bytes;
                    done += here;
                }
                const int all = tiles * g.chunk_bytes + TOKEN_BYTES;
                auto weights = [&](uint32_t bar, uint32_t at) {
                    barrier_expect(bar, all);
                    at += TOKEN_BYTES;
#pragma unroll
                    for (int i = 0; i < PIECES; i++) {
                        if (i == 0 || bytes[i]) bulk_load(at, from[i], bytes[i], bar, EVICT_FIRST);
                        at += bytes[i];
                        from[i] += next[i];
                    }
                };
                int k = k_first;
                if (group == cluster) {
                    /* Weights that nothing in flight writes need not wait for the previous kernel. */
                    if (!g.early) grid_wait();
                    for (; k < k_first + begin; k++, stage++) weights(full + 8 * stage, stages_at + stage * stage_bytes);
                    grid_wait();
                    if (stage == g.stages) { stage = 0; phase = 1; }
                }
                for (; k < k_last; k++) {
                    const uint32_t bar = full + 8 * stage, at = stages_at + stage * stage_bytes;
                    barrier_wait(empty + 8 * stage, phase ^ 1);
                    weights(bar, at);
                    tokens(k, bar, at);
                    if (++stage == g.stages) { stage = 0; phase ^= 1; }
                }
            }
        }
        __syncwarp();
        if (size > 1) { cluster_wait(); cluster_sync(); }     /* clusters have one group each */
        return;
    }

    /* ---- multiplying */
    grid_wait();
    if (elect_one())
#pragma unroll 1
        for (int i = warp; i < begin; i += WARPS) tokens(k_first + i, full + 8 * i, stages_at + i * stage_bytes);
    __syncwarp();
    const int side = warp % sides, team = warp / sides, row = lane / 4;
    /* Where this lane's rows of the tokens' 8x8 matrices start; two matrices are neighbours in K, the next two 8 tokens or 16 of K on. */
    const int matrix = lane / 8, token_row = HALVES == 2 ? matrix / 2 * 8 + lane % 8 : lane % 8, k_chunk = HALVES == 2 ? matrix % 2 : matrix;
    const uint32_t token_at = token_row * 128, token_flip = token_row % 8;
    int stage = team, phase = 0;                         /* g.stages is a multiple of teams */
    int late = 0;                                        /* the next group's first stage is not always the first team's */

    for (int group = cluster; group < groups; group += clusters) {
        const int tiles = min(g.rows, g.tiles - group * g.rows), quads = tiles * 4, work = quads * g.m;
        /* A thread takes four rows of one token at a time: of this block's part of the work, [first, last). */
        const int threads = WARPS * 32, share = (work + size - 1) >> parts, first = rank * share, last = min(first + share, work);
        auto rows_of = [&](int e) { return (group * g.rows * 4 + e % quads) * 4; };
        const int own = min(first + static_cast<int>(threadIdx.x), work - 1);
        const float4 early_factors = row_factors(g, rows_of(own));
        float sum[2][HALVES][4];
#pragma unroll
        for (int j = 0; j < 2; j++)
#pragma unroll
            for (int h = 0; h < HALVES; h++)
#pragma unroll
                for (int i = 0; i < 4; i++) sum[j][h][i] = 0.0f;

        for (int k = team == teams ? k_last : k_first + (team + teams - late) % teams; k < k_last; k += teams) {
            const uint32_t at = stages_at + stage * stage_bytes;
            barrier_wait(full + 8 * stage, phase);
            if (side < tiles) {
                const uint32_t chunk[2] = {at + TOKEN_BYTES + side * g.chunk_bytes, at + TOKEN_BYTES + (side + sides) * g.chunk_bytes};
                typename W::Scales scales[2];
                uint32_t b[2][HALVES][2], x[2][4];
                [[maybe_unused]] float part[2][HALVES][4];
#pragma unroll
                for (int j = 0; j < 2; j++) scales[j].load(chunk[j], row, tables);
#pragma unroll
                for (int i = 0; i < W::STAGE_STEPS; i++) {   /* steps of 32 bytes of K */
                    if (i % (4 / W::WORDS) == 0)
#pragma unroll
                        for (int j = 0; j < 2; j++) {
                            const uint4 v = load_words4(chunk[j] + i / (4 / W::WORDS) * 512 + lane * 16);
                            x[j][0] = v.x; x[j][1] = v.y; x[j][2] = v.z; x[j][3] = v.w;
                        }
                    if (HALVES == 2 || i % 2 == 0) {
                        uint32_t m[4];
                        load_matrices(m, at + i / 4 * (NB * 128) + token_at + (((i % 4 * 2 + k_chunk) ^ token_flip) << 4));
#pragma unroll
                        for (int h = 0; h < 2; h++) {
                            uint32_t (&to)[2] = HALVES == 2 ? b[0][h % HALVES] : b[h][0];
                            to[0] = m[2 * h];
                            to[1] = m[2 * h + 1];
                        }
                    }
                    const uint32_t (&tokens)[HALVES][2] = b[HALVES == 2 ? 0 : i % 2];
#pragma unroll
                    for (int j = 0; j < 2; j++) {
                        uint32_t a[4];
                        W::operand(g, x[j] + i % (4 / W::WORDS) * W::WORDS, scales[j], i, a);
                        if constexpr (W::FOLDED) {
#pragma unroll
                            for (int h = 0; h < HALVES; h++) multiply<W>(sum[j][h], a, tokens[h]);
                            continue;
                        }
#pragma unroll
                        for (int h = 0; h < HALVES; h++) {
                            if (i % W::STEPS == 0) part[j][h][0] = part[j][h][1] = part[j][h][2] = part[j][h][3] = 0.0f;
                            multiply<W>(part[j][h], a, tokens[h]);
                        }
                        if (i % W::STEPS == W::STEPS - 1) {
                            const float2 f = W::factors(g, chunk[j], row, i / W::STEPS);
#pragma unroll
                            for (int h = 0; h < HALVES; h++) {
                                sum[j][h][0] += part[j][h][0] * f.x;
                                sum[j][h][1] += part[j][h][1] * f.x;
                                sum[j][h][2] += part[j][h][2] * f.y;
                                sum[j][h][3] += part[j][h][3] * f.y;
                            }
                        }
                    }
                }
            }
            __syncwarp();
            if (lane == 0) barrier_arrive(empty + 8 * stage);
            if ((stage += teams) >= g.stages) { stage -= g.stages; phase ^= 1; }
        }
        late = (late + k_last - k_first) % teams;

        /* ---- the teams' sums, [team][token][row] */
        const uint32_t mine = sums_at + team * sums_bytes + (lane % 4 * 2 * pitch + row) * 4;
        named_barrier(1, WARPS * 32);
#pragma unroll
        for (int h = 0; h < HALVES; h++) {
            if (h * 8 + lane % 4 * 2 >= g.m || team == teams) break;
#pragma unroll
            for (int j = 0; j < 2; j++) {
                if (side + j * sides >= tiles) break;
                const uint32_t to = mine + (h * 8 * pitch + (side + j * sides) * 16) * 4;
#pragma unroll
                for (int i = 0; i < 4; i++)
                    store_float(to + (i % 2 * pitch + i / 2 * 8) * 4, sum[j][h][i]);
            }
        }
        named_barrier(1, WARPS * 32);

        auto teams_sum = [&](uint32_t from, float (&x)[4]) {
            x[0] = x[1] = x[2] = x[3] = 0.0f;
#pragma unroll 2
            for (int q = 0; q < teams; q++) {
                const uint4 v = load_words4(from + q * sums_bytes);
                x[0] += __uint_as_float(v.x); x[1] += __uint_as_float(v.y); x[2] += __uint_as_float(v.z); x[3] += __uint_as_float(v.w);
            }
        };
        const uint32_t sent_at = sums_at + teams * sums_bytes;                /* [rank of the sender][of the part] */
        if (size > 1) {
            cluster_wait();
            for (int e = threadIdx.x; e < work; e += threads) {
                int to = 0, place = e;
                for (; place >= share; place -= share) to++;
                float x[4];
                teams_sum(sums_at + (e / quads * pitch + e % quads * 4) * 4, x);
                store_four_to(sent_at + (rank * share + place) * 16, to, x);
            }
            cluster_sync();
        }
        for (int e = first + threadIdx.x; e < last; e += threads) {
            float x[4];
            if (size == 1) teams_sum(sums_at + (e / quads * pitch + e % quads * 4) * 4, x);
            else {
                x[0] = x[1] = x[2] = x[3] = 0.0f;
                for (int q = 0; q < size; q++) {
                    const float4 v = load_shared4(sent_at + (q * share + e - first) * 16);
                    x[0] += v.x; x[1] += v.y; x[2] += v.z; x[3] += v.w;
                }
            }
            store_four(g, e / quads, rows_of(e), e == own ? early_factors : row_factors(g, rows_of(e)), x);
        }
    }
}

}  // namespace brc
