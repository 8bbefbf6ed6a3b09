/* SPDX-License-Identifier: Apache-2.0
 *
 * D[m, n] = A[m, K] * B[n, K]^T in FP8 on Hopper's tensor cores, one persistent block an SM.
 *
 * One warpgroup loads, two multiply. The loader's thread fills a ring of stages, each 128 bytes of K deep, through the
 * tensor copy engine; "full" barriers say that a stage has arrived, "empty" barriers that it may be overwritten. The two
 * multiplying warpgroups form a team in one of four ways:
 *   TOGETHER  one tile, each warpgroup half of its rows: B is read once for both
 *   BESIDE    one tile, each half of its columns: for few rows of A, and many of B
 *   TURNS     one tile each, loaded one after the other: while one warpgroup stores, the other multiplies
 *   APART     one tile each, each with a ring of its own: two independent kernels in one block
 * Except for taking turns, nothing after the roles have split makes the warpgroups wait for one another.
 *
 * The tensor cores keep about 14 bits of an FP8 product's accumulator, so by default every 128 of K is added to FP32
 * registers ("promoted"); the block scales ride on that addition. FAST leaves the whole K to the tensor cores. */
#pragma once
#include <type_traits>

#include "arguments.h"
#include "shape.h"
#include "parts/machine.cuh"
#include "parts/store.cuh"
#include "parts/walk.cuh"

namespace brc {

constexpr int gcd(int a, int b) { return b ? gcd(b, a % b) : a; }

/* MW: 64-row products a warpgroup does, one after another. BN: columns of the tile. The rest is shape.h's. */
template <int MODE, int TEAM, int MW, int BN, int SHARE>
struct GemmShape {
    static constexpr int GROUPS = 2;
    static constexpr int CLUSTER = brci_cluster(SHARE);
    static constexpr bool SEVERAL = SHARE == BRCI_GROUPS;   /* products */
    static constexpr bool FEW = brci_few_rows(TEAM, SHARE);
    static constexpr int WIDE = brci_own_columns(TEAM, BN);
    static constexpr int BM = brci_tile_rows(TEAM, MW), RINGS = brci_rings(TEAM), STAGES = brci_stages(MODE, TEAM, MW, BN);
    static constexpr int BUFFERS = brci_buffers(MODE, TEAM, MW, BN);
    /* Pieces of results stored at a time: a product's, where they have buffers of their own. Two buffers that two products
     * share are filled by turns. */
    static constexpr int EACH = WIDE >= 64 && BUFFERS % (WIDE / 64) == 0 && (BUFFERS > 2 || MW == 1) ? WIDE / 64 : 1;
    static constexpr int SENDERS = SHARE == BRCI_A || SHARE == BRCI_B ? 2 : 1;   /* blocks that write to a stage */
    static constexpr int READERS = brci_team_size(TEAM) * 4 * SENDERS;   /* warps that free one */
    static constexpr bool SCALED = brci_scaled(MODE);

    static constexpr int A_BYTES = BM * 128, B_BYTES = BN * 128, TILE_BYTES = A_BYTES + B_BYTES;
    static constexpr int A_SCALE_BYTES = brci_a_scale_bytes(MODE, TEAM, MW);
    static constexpr int SCALE_BYTES = A_SCALE_BYTES + brci_b_scale_bytes(MODE, BN);
    static constexpr int FULL_BYTES = TILE_BYTES + A_SCALE_BYTES + (MODE == BRCI_BLOCK_ROWS ? BN * 4 : 0);

    static constexpr int ALL = RINGS * STAGES;
    /* Tiles and staging start on 1024 bytes: the swizzle is a function of the address. */
    static constexpr int STAGING_AT = ALL * TILE_BYTES, SCALES_AT = STAGING_AT + GROUPS * 4 * BUFFERS * BRCI_STORE_BYTES;
    static constexpr int COLUMNS_AT = SCALES_AT + ALL * SCALE_BYTES;      /* column scales of each warpgroup's tile */
    static constexpr int BARRIERS_AT = COLUMNS_AT + GROUPS * brci_column_bytes(MODE, BN);
    static_assert(!FEW || MODE != BRCI_BLOCK_ROWS, "kernels of few rows load no rows of scales of B");
    static_assert(STAGES >= 2 && BARRIERS_AT + ALL * 16 <= brci_shared_bytes(MODE, TEAM, MW, BN), "the tile does not fit");

    /* 128-wide column blocks of B's scales that a warpgroup's columns can touch. */
    static constexpr int SPAN = (128 - gcd(WIDE, 128) + WIDE + 127) / 128;
    /* Where in their first block they can start: multiples of this. */
    static constexpr int START_STEP = MODE == BRCI_BLOCK ? gcd(WIDE, 128) : 128;
};

constexpr int WARPGROUP = 128;

/* Position in a ring of stages. */
template <int STAGES> struct Ring {
    uint32_t stage = 0, phase = 0;
    __device__ __forceinline__ void next() { if (++stage == STAGES) { stage = 0; phase ^= 1; } }
    __device__ __forceinline__ void skip(uint32_t n) { n += stage; stage = n % STAGES; phase ^= n / STAGES & 1; }
};

/* Calls f with the one of 0, STEP, .., END - STEP that x is, as a constant of the compiler. */
template <int END, int STEP, int AT = 0, class F> __device__ __forceinline__ void with_constant(int x, F &&f)
{
    if constexpr (AT + STEP >= END) f(std::integral_constant<int, AT>());
    else if (x == AT) f(std::integral_constant<int, AT>());
    else with_constant<END, STEP, AT + STEP>(x, f);
}

/* sums += acc * scales. s: of A, for the thread's two rows, with those of B's 128-wide blocks multiplied in; INSIDE: where in
 * their first block the warpgroup's columns start. All columns of the first row come before those of the second, so that neighbouring FFMAs
 * have their scale in common and read it from the operand cache: beside the other warpgroup's products, which read and write
 * their accumulators all the time, register reads are what these additions cost. */
template <int MODE, int BN, int INSIDE, int SPAN>
__device__ __forceinline__ void promote(float (&sums)[BN / 2], const float (&acc)[BN / 2], const float (&s)[2][SPAN], [[maybe_unused]] uint32_t c_scale)
{
    if constexpr (MODE == BRCI_PROMOTED) {
#pragma unroll
        for (int i = 0; i < BN / 2; i++) sums[i] += acc[i];
    } else if constexpr (MODE == BRCI_BLOCK) {
#pragma unroll
        for (int h = 0; h < 2; h++)
#pragma unroll
            for (int i = 2 * h; i < BN / 2; i += 4) {
                const float scale = s[h][(INSIDE + i / 4 * 8) / 128];   /* eight columns, four accumulators, never cross a block */
                sums[i] += acc[i] * scale;
                sums[i + 1] += acc[i + 1] * scale;
            }
    } else {
#pragma unroll
        for (int i = 0; i < BN / 8; i++) {
            const float2 c = load_shared2(c_scale + 32 * i);            /* of B, for the thread's columns */
            sums[4 * i] += acc[4 * i] * (s[0][0] * c.x);
            sums[4 * i + 1] += acc[4 * i + 1] * (s[0][0] * c.y);
            sums[4 * i + 2] += acc[4 * i + 2] * (s[1][0] * c.x);
            sums[4 * i + 3] += acc[4 * i + 3] * (s[1][0] * c.y);
        }
    }
}

template <bool FIRST, class A, class B> __device__ __forceinline__ auto &pick(A &a, B &b)
{
    if constexpr (FIRST) return a;
    else return b;
}

template <int TA, int TB, int MODE, int TEAM, int MW, int BN, int SHARE>
__device__ __forceinline__ void gemm(const brci_gemm_args &g)
{
    using S = GemmShape<MODE, TEAM, MW, BN, SHARE>;
    extern __shared__ __align__(1024) uint8_t shared[];
    const uint32_t tiles_at = __shfl_sync(~0u, opaque(shared_address(shared)), 0);
    const int warp = __shfl_sync(~0u, threadIdx.x / 32, 0), group = warp / 4;
    const uint32_t rank = S::CLUSTER > 1 ? cluster_rank() : 0;
    const int worker = blockIdx.x / S::CLUSTER, workers = gridDim.x / S::CLUSTER, lane = threadIdx.x % 32;
    using Tiles = Walk<S::BM, BN, SHARE>;
    const int k_first = SHARE == BRCI_K && rank ? g.k_steps / 2 : 0, half = (g.k_steps + rank) / 2;
    const int &k_steps = pick<SHARE == BRCI_K>(half, g.k_steps);

    auto tile = [&](int ring, uint32_t stage) { return tiles_at + (ring * S::STAGES + stage) * S::TILE_BYTES; };
    auto scales = [&](int ring, uint32_t stage) { return tiles_at + S::SCALES_AT + (ring * S::STAGES + stage) * S::SCALE_BYTES; };
    auto full = [&](int ring, uint32_t stage) { return tiles_at + S::BARRIERS_AT + (ring * S::STAGES + stage) * 16; };
    auto empty = [&](int ring, uint32_t stage) { return full(ring, stage) + 8; };
    if (warp == 0 && elect_one()) {
        for (int i = 0; i < S::ALL; i++) {
            barrier_init(full(0, i), 1);
            barrier_init(empty(0, i), S::READERS);
        }
        barrier_init_fence();
        tma_prefetch_map(&g.a);
        tma_prefetch_map(&g.b);
        if (S::SCALED) tma_prefetch_map(&g.a_scale);
        if (g.wide) tma_prefetch_map(&g.d_map);
    }
    if (S::CLUSTER > 1) cluster_meet(); else __syncthreads();
    if (!S::FEW) grid_wait();

    if (group == S::GROUPS) {
        /* ---- loading */
        registers_give<40>();
        const int ring = warp % 4;
        if (ring < S::RINGS && (S::SEVERAL || elect_one())) {
            Ring<S::STAGES> at;
            Tiles tiles(g, rank, lane);
            Place p;
            const int stride = workers * S::RINGS;
            int sent = 0;                                 /* stages whose B is on its way */
            if constexpr (S::FEW) {
                /* Weights that nothing in flight writes need not wait for the previous kernel. */
                if (!g.early) grid_wait();
                int first = worker;
                if (tiles.seek(first, stride, p))
                    for (; sent < min(k_steps, S::STAGES); sent++) {
                        barrier_expect(full(ring, sent), S::FULL_BYTES);
                        tma_load(tile(ring, sent) + S::A_BYTES, &g.b, full(ring, sent), (k_first + sent) * 128, p.column, EVICT_FIRST);
                    }
                grid_wait();
            }
            for (int unit = worker + ring * workers; tiles.seek(unit, stride, p); unit += stride) {
                if (S::SEVERAL && lane) continue;         /* finding a tile takes the warp, loading it one thread */
#pragma unroll 1
                for (int k = k_first; k < k_first + k_steps; k++, at.next()) {
                    const uint32_t bar = full(ring, at.stage), a = tile(ring, at.stage), b = a + S::A_BYTES, s = scales(ring, at.stage);
                    if constexpr (S::FEW) {
                        if (sent > 0) sent--;
                        else {
                            barrier_wait(empty(ring, at.stage), at.phase ^ 1);
                            barrier_expect(bar, S::FULL_BYTES);
                            tma_load(b, &g.b, bar, k * 128, p.column, EVICT_FIRST);
                        }
                        tma_load(a, &g.a, bar, k * 128, p.row, EVICT_LAST);
                        if constexpr (S::SCALED) tma_load(s, &g.a_scale, bar, p.row, k, EVICT_LAST);
                        continue;
                    }
                    barrier_wait(empty(ring, at.stage), at.phase ^ 1);
                    barrier_expect(bar, S::FULL_BYTES);
                    if constexpr (S::SEVERAL) {
                        tma_load(a, &g.a, bar, k * 128, p.row, p.product);
                        tma_load(b, &g.b, bar, k * 128, p.column, p.weights);
                        if constexpr (S::SCALED) tma_load(s, &g.a_scale, bar, p.row, k, p.product);
                        if constexpr (MODE == BRCI_BLOCK_ROWS) tma_load(s + S::A_SCALE_BYTES, &g.b_scale, bar, p.column, k, p.weights);
                        continue;
                    }
                    if constexpr (SHARE == BRCI_A)
                        tma_load_shared(a + rank * (S::A_BYTES / 2), &g.a, bar, k * 128, p.row + rank * (S::BM / 2), 3);
                    else
                        tma_load(a, &g.a, bar, k * 128, p.row);
                    if constexpr (SHARE == BRCI_B)
                        tma_load_shared(b + rank * (S::B_BYTES / 2), &g.b, bar, k * 128, p.column + rank * (BN / 2), 3);
                    else
                        tma_load(b, &g.b, bar, k * 128, p.column);
                    if constexpr (S::SCALED) tma_load(s, &g.a_scale, bar, p.row, k);
                    if constexpr (MODE == BRCI_BLOCK_ROWS) tma_load(s + S::A_SCALE_BYTES, &g.b_scale, bar, p.column, k);
                }
            }
            grid_launch_next();
        }
        __syncwarp();
        if (SHARE == BRCI_K) { cluster_sync(); cluster_sync(); }
    } else {
        /* ---- multiplying */
        registers_take<232>();
        if (S::FEW) grid_wait();
        constexpr int WIDE = S::WIDE, ACC = WIDE / 2;     /* columns of one 64-row product; its registers */
        constexpr bool CHAINED = MODE == BRCI_FAST;            /* one product over the whole K */
        const int ring = TEAM == BRCI_APART ? group : 0;
        const int own_row = TEAM == BRCI_TOGETHER ? group * MW * 64 : 0;         /* first row of this warpgroup in the tile */
        const int own_column = TEAM == BRCI_BESIDE ? group * WIDE : 0;
        const int thread_row = (warp % 4) * 16 + lane / 4;                  /* of a 64-row product; and + 8 */
        float acc[CHAINED ? MW : 1][ACC];
        [[maybe_unused]] float sums[CHAINED ? 1 : MW][ACC];

        auto release = [&](uint32_t stage) {
            if constexpr (S::SENDERS > 1) { if (lane < S::SENDERS) barrier_arrive_at(empty(ring, stage), lane); }
            else if (lane == 0) barrier_arrive(empty(ring, stage));
        };

        Ring<S::STAGES> at;
        uint32_t turn = 0;                                /* of the staging buffers */
        if (TEAM == BRCI_TURNS && group == 1) at.skip(k_steps);
        const int first = worker + (brci_team_size(TEAM) > 1 ? 0 : group * workers), stride = workers * S::GROUPS / brci_team_size(TEAM);
        Tiles tiles(g, rank, lane);
        Place next;

        /* B's 128x128 scales: the block columns under a tile. The next step's are fetched while this one multiplies, the
         * next tile's before this one is stored; so are its row and column scales. */
        const float *b_scale_at[S::SPAN];
        float b_scale[S::SPAN], row_next[MW][2];
        constexpr int EACH = (WIDE + WARPGROUP - 1) / WARPGROUP;   /* column scales a thread fetches */
        float column_next[EACH];
        const uint32_t columns = tiles_at + S::COLUMNS_AT + group * brci_column_bytes(MODE, BN);
        /* Zero, but not to ptxas: a scale that it knows to be equal in all lanes it moves to a uniform register as soon as it is
         * loaded, and waits for it there. */
        [[maybe_unused]] const int zero = __shfl_sync(~0u, lane, lane) / 32;
        auto approach = [&](int &unit) {
            if (!tiles.seek(unit, stride, next)) return false;
            next.column += own_column;
            if constexpr (MODE == BRCI_BLOCK) {
                const float *scales = g.col_scale + (S::SEVERAL ? next.weights * g.col_step : 0) + k_first + zero;
                const int last = (g.n - 1) / 128;
#pragma unroll
                for (int j = 0; j < S::SPAN; j++) {
                    b_scale_at[j] = scales + min(next.column / 128 + j, last) * g.col_pitch;
                    b_scale[j] = __ldg(b_scale_at[j]);
                }
            }
            if constexpr (!S::SCALED) {
                const float *scales = g.row_scale + (S::SEVERAL ? next.product * g.row_step : 0);
#pragma unroll
                for (int h = 0; h < MW; h++)
#pragma unroll
                    for (int i = 0; i < 2; i++)
                        row_next[h][i] = __ldg(scales + min(next.row + own_row + thread_row + h * 64 + i * 8, g.m - 1) * g.row_stride);
                const float *of_columns = g.col_scale + (S::SEVERAL ? next.weights * g.col_step : 0);
#pragma unroll
                for (int j = 0; j < EACH; j++)
                    column_next[j] = __ldg(of_columns + min(next.column + j * WARPGROUP + static_cast<int>(threadIdx.x % WARPGROUP), g.n - 1) * g.col_stride);
            }
            return true;
        };

        int unit = first;
        for (bool more = approach(unit); more;) {
            const Place here = next;
            /* A barrier's parity tells a phase only from its neighbours, so a warpgroup may not look at its tile's first
             * stage before the other has seen its own tile's last one. */
            if (TEAM == BRCI_TURNS && unit != worker) named_barrier(1 + group, 2 * WARPGROUP);
            auto seen = [&](int k) {
                if (TEAM == BRCI_TURNS && k == k_steps - 1 && unit + workers < g.tiles_m * g.tiles_n) named_barrier_arrive(2 - group, 2 * WARPGROUP);
            };

            if constexpr (CHAINED) {
                uint32_t previous = 0;
                for (int k = 0; k < k_steps; k++, at.next()) {
                    barrier_wait(full(ring, at.stage), at.phase);
                    seen(k);
                    const uint64_t a = tile_descriptor(tile(ring, at.stage) + own_row * 128);
                    const uint64_t b = tile_descriptor(tile(ring, at.stage) + S::A_BYTES + own_column * 128);
#pragma unroll
                    for (int h = 0; h < MW; h++) wgmma_pin(acc[h]);
                    wgmma_fence();
#pragma unroll
                    for (int kk = 0; kk < 4; kk++)
#pragma unroll
                        for (int h = 0; h < MW; h++)
                            Wgmma<WIDE>::template mma<TA, TB>(acc[h], a + h * 512 + kk * 2, b + kk * 2, k | kk);
                    wgmma_commit();
#pragma unroll
                    for (int h = 0; h < MW; h++) wgmma_pin(acc[h]);
                    wgmma_wait<1>();
                    if (k > 0) release(previous);
                    previous = at.stage;
                }
                wgmma_wait<0>();
#pragma unroll
                for (int h = 0; h < MW; h++) wgmma_pin(acc[h]);
                release(previous);
            } else {
#pragma unroll
                for (int h = 0; h < MW; h++)
#pragma unroll
                    for (int i = 0; i < ACC; i++) sums[h][i] = 0.0f;

                constexpr int UNROLL = S::START_STEP == 128 && !S::FEW ? 4 : 1;   /* where this is the only loop */
                auto walk = [&](auto inside) {
                    /* What step k needs from shared memory is fetched while step k - 1 is on the tensor cores. */
                    float s[MW][2][S::SPAN];                              /* of rows thread_row and + 8 */
                    uint64_t a_tile, b_tile;
                    auto prepare = [&](int k) {
                        a_tile = tile_descriptor(tile(ring, at.stage) + own_row * 128);
                        b_tile = tile_descriptor(tile(ring, at.stage) + S::A_BYTES + own_column * 128);
                        barrier_wait(full(ring, at.stage), at.phase);
                        seen(k);
                        if constexpr (S::SCALED) {
                            const uint32_t from = scales(ring, at.stage) + (own_row + thread_row) * 4;
#pragma unroll
                            for (int h = 0; h < MW; h++)
#pragma unroll
                                for (int i = 0; i < 2; i++) {
                                    const float a = load_shared(from + h * 256 + i * 32);
#pragma unroll
                                    for (int j = 0; j < S::SPAN; j++) s[h][i][j] = MODE == BRCI_BLOCK ? a * b_scale[j] : a;
                                }
                            if constexpr (MODE == BRCI_BLOCK) {
#pragma unroll
                                for (int j = 0; j < S::SPAN; j++) b_scale[j] = __ldg(b_scale_at[j] += k + 1 < k_steps);
                            }
                        }
                    };
                    prepare(0);
#pragma unroll UNROLL
                    for (int k = 0; k < k_steps; k++) {
                        const uint32_t stage = at.stage;
                        const uint64_t a = a_tile, b = b_tile;
                        [[maybe_unused]] const uint32_t c_scale = scales(ring, stage) + S::A_SCALE_BYTES + lane % 4 * 8;
                        at.next();
                        float now[MW][2][S::SPAN];
#pragma unroll
                        for (int h = 0; h < MW; h++)
#pragma unroll
                            for (int j = 0; j < 2 * S::SPAN; j++) now[h][j / S::SPAN][j % S::SPAN] = S::SCALED ? s[h][j / S::SPAN][j % S::SPAN] : 1.0f;
#pragma unroll
                        for (int h = 0; h < MW; h++) {
                            wgmma_pin(acc[0]);
                            wgmma_fence();
#pragma unroll
                            for (int kk = 0; kk < 4; kk++)
                                Wgmma<WIDE>::template mma<TA, TB>(acc[0], a + h * 512 + kk * 2, b + kk * 2, kk);
                            wgmma_commit();
                            wgmma_pin(acc[0]);
                            if (h == MW - 1 && k + 1 < k_steps) prepare(k + 1);
                            wgmma_wait<0>();
                            wgmma_pin(acc[0]);
                            if (h == MW - 1 && MODE != BRCI_BLOCK_ROWS) release(stage);
                            promote<MODE, WIDE, decltype(inside)::value>(sums[h], acc[0], now[h], c_scale);
                            if (h == MW - 1 && MODE == BRCI_BLOCK_ROWS) { __syncwarp(); release(stage); }
                        }
                    }
                };
                with_constant<128, S::START_STEP>(here.column % 128, walk);
            }
            if (TEAM == BRCI_TURNS) at.skip(k_steps);        /* the other warpgroup's tile */

            /* ---- storing */
            const int row = here.row + own_row + (warp % 4) * 16;
            float row_now[MW][2];
            if constexpr (!S::SCALED) {
#pragma unroll
                for (int h = 0; h < MW; h++) { row_now[h][0] = row_next[h][0]; row_now[h][1] = row_next[h][1]; }
                if (g.col_stride) {
                    named_barrier(3 + group, WARPGROUP);      /* the last tile's have been read */
#pragma unroll
                    for (int j = 0; j < EACH; j++) {
                        const int at = j * WARPGROUP + threadIdx.x % WARPGROUP;
                        if (at < WIDE) store_shared(columns + at * 4, column_next[j]);
                    }
                    named_barrier(3 + group, WARPGROUP);
                }
            }
            [[maybe_unused]] const float of_tensor = column_next[0];
            unit += stride;
            more = approach(unit);
            Target to = {g.d, g.bias, S::SEVERAL ? here.row_begin : 0, S::SEVERAL ? here.row_end : g.m, here.product};
            if constexpr (S::SEVERAL) {
                to.d = static_cast<uint8_t *>(g.d) + here.product * g.d_step * bytes_of(g.out);
                if (g.bias) to.bias = static_cast<const uint8_t *>(g.bias) + static_cast<int64_t>(here.weights) * g.n * bytes_of(g.bias_type);
            }
            const uint32_t staging = tiles_at + S::STAGING_AT + (group * 4 + warp % 4) * S::BUFFERS * BRCI_STORE_BYTES;
#pragma unroll
            for (int h = 0; h < MW; h++) {
                /* Fast accumulators are scaled where they are, as the next tile's products name them as inputs too and a copy
                 * would need registers of its own; sums through a copy, or ptxas moves them at the end of every loop above. */
                float copy[CHAINED ? 1 : ACC];
                if constexpr (!CHAINED) {
#pragma unroll
                    for (int i = 0; i < ACC; i++) copy[i] = sums[h][i];
                }
                float (&d)[ACC] = pick<CHAINED>(acc[CHAINED ? h : 0], copy);
                if constexpr (SHARE == BRCI_K) {
                    static_assert(MW == 1 && brci_team_size(TEAM) == 2, "a block finishes the part of one of its warpgroups");
                    /* The other block's ring is free once all are here: one half of this block's sums goes there, the other
                     * waits for its counterpart. */
                    const uint32_t slot = tiles_at + threadIdx.x % WARPGROUP * 4;
                    cluster_sync();
                    if (group != rank) {
#pragma unroll
                        for (int i = 0; i < ACC; i++) store_to(slot + i * WARPGROUP * 4, rank ^ 1, d[i]);
                    }
                    cluster_sync();
                    if (group != rank) break;
#pragma unroll
                    for (int i = 0; i < ACC; i++) d[i] += load_shared(slot + i * WARPGROUP * 4);
                }
                if constexpr (!S::SCALED) scale_fragment<WIDE>(g, d, row_now[h][0], row_now[h][1], of_tensor, columns, lane);
                store_fragment<WIDE, S::BUFFERS, S::EACH, S::SEVERAL>(g, to, d, row + h * 64, here.column, lane, staging, turn);
            }
        }
        if (lane == 0) tma_store_wait();
    }
    /* A block may not leave while its neighbour still writes to its memory or arrives on its barriers. */
    if (S::CLUSTER > 1) cluster_meet();
}

}  // namespace brc
