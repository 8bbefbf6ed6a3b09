/* SPDX-License-Identifier: Apache-2.0
 *
 * The sums of a warpgroup of narrow_many.cuh over its stages: rows of weights, expanded into registers, by the tokens in shared memory.
 * While the tensor cores work on one batch, the next one's codes are expanded. What scales are not folded into the operands is done in
 * one of three ways:
 *   sum_batches  products of a group go to sums of their own, which are scaled on the way to the sums of all
 *   sum_pieces   as well, for so many tokens at a time that one piece's products run while another's sums are scaled
 *   sum_split    powers of two are folded in, and the sums themselves are brought from one chunk's weight to the next one's */
#pragma once
#include "parts/narrow.cuh"
#include "shape.h"

namespace brc {

/* A warp's place in the ring of stages. Stage by stage there are tokens, then chunks; its first tile is `own`, the next unit's 4 further. Tiles
 * that are not there are read and multiplied as what lies behind the stage, and never looked at. */
template <int WGS> struct ManyRing {
    const brci_narrow_args &g;
    const uint32_t base, stages_at;                           /* of the barriers, and of the stages */
    const int stage_bytes, token_bytes, own, lane, teams, share;
    const uint32_t there;                                     /* whom a lane tells that a stage is free */
    int stage, phase;                                         /* g.stages is a multiple of teams, two of them at least, as the next stage is waited for
                                                               * before the last one is free */

    __device__ __forceinline__ uint32_t at() const { return stages_at + stage * stage_bytes; }
    __device__ __forceinline__ uint32_t chunk(int u) const { return at() + token_bytes + (own + u * 4) * g.chunk_bytes; }
    __device__ __forceinline__ void wait() const { barrier_wait(base + 8 * stage, phase); }
    __device__ __forceinline__ uint32_t tables() const { return base + BRCI_MANY_TABLES; }
    __device__ __forceinline__ void next()
    {
        if ((stage += teams) >= g.stages) { stage -= g.stages; phase ^= 1; }
    }
    __device__ __forceinline__ void release(int which) const
    {
        const uint32_t empty = base + 8 * (BRCI_MANY_STAGES + which);
        /* Without a branch, which would end the compiler's view of what is in flight. Four warpgroups share no tokens with another block. */
        if constexpr (WGS == 2) { if (lane < share) barrier_arrive_at(empty, there); }
        else if (lane == 0) barrier_arrive(empty);
    }
};

/* The four words that a lane has of a chunk's steps from i on, if i is the first of them. */
template <class W> __device__ __forceinline__ void load_codes(uint32_t chunk, int lane, int i, uint32_t (&x)[4])
{
    if (i % (4 / W::WORDS)) return;
    const uint4 v = load_words4(chunk + i / (4 / W::WORDS) * 512 + lane * 16);
    x[0] = v.x; x[1] = v.y; x[2] = v.z; x[3] = v.w;
}

/* sums += part * factor, or sums *= factor: of rows g (x) and g + 8 (y). */
template <int N, int M> __device__ __forceinline__ void add_scaled(float (&sums)[N], const float (&part)[M], float2 f, int from = 0)
{
#pragma unroll
    for (int i = 0; i < M; i++) sums[from + i] += part[i] * (i & 2 ? f.y : f.x);
}
template <int N> __device__ __forceinline__ void scale_sums(float (&sums)[N], float2 f)
{
#pragma unroll
    for (int i = 0; i < N; i++) sums[i] *= i & 2 ? f.y : f.x;
}

/* a / b as sums are brought from one weight to the next; exactly 1 where nothing changes. */
__device__ __forceinline__ float ratio(float a, float b) { return a == b ? 1.0f : a * near_reciprocal(b); }

/* Step i's tokens of a stage for NB of them. */
template <int NB> __device__ __forceinline__ uint64_t step_of(uint64_t tokens, int i) { return tokens + i / 4 * (NB * 8) + i % 4 * 2; }

template <class W, int NB, int MW, class R>
__device__ __forceinline__ void sum_batches(R &r, int k, int k_last, float (&sum)[MW][NB / 2])
{
    /* Steps of a batch, as many as registers allow; batches of a stage. */
    constexpr int BATCH = W::FOLDED ? (NB * MW > 128 ? 1 : NB * MW > 64 ? 2 : 4) : W::TOKEN == 1 || NB > 32 || W::STEPS < 4 ? 2 : 4;
    constexpr int BATCHES = W::STAGE_STEPS / BATCH;
    static_assert(W::FOLDED || MW == 1, "two sets of sums for one unit");
    [[maybe_unused]] float part[W::FOLDED ? 1 : NB / 2];
    uint32_t a[2][MW][BATCH][4];
    int previous = -1;
    [[maybe_unused]] float2 factor;
    auto pin = [&] {
        if constexpr (W::FOLDED) {
#pragma unroll
            for (int u = 0; u < MW; u++) wgmma_pin(sum[u]);
        } else wgmma_pin(part);
    };
    for (; k < k_last; k += r.teams) {
        const uint64_t b = tile_descriptor(r.at());
        const uint32_t chunks = r.chunk(0);
        r.wait();
        typename W::Scales scales[MW];
        uint32_t x[MW][4];
#pragma unroll
        for (int u = 0; u < MW; u++) scales[u].load(chunks + u * 4 * r.g.chunk_bytes, r.lane / 4, r.tables());
#pragma unroll
        for (int q = 0; q < BATCHES; q++) {
#pragma unroll
            for (int s = 0; s < BATCH; s++) {
                const int i = q * BATCH + s;                  /* step */
#pragma unroll
                for (int u = 0; u < MW; u++) {
                    load_codes<W>(chunks + u * 4 * r.g.chunk_bytes, r.lane, i, x[u]);
                    W::operand(r.g, x[u] + i % (4 / W::WORDS) * W::WORDS, scales[u], i, a[q % 2][u][s]);
                }
            }
            if constexpr (!W::FOLDED)
                if (q * BATCH % W::STEPS == 0) {              /* a group starts: the last one's sums are wanted first */
                    const float2 next = W::factors(r.g, chunks, r.lane / 4, q * BATCH / W::STEPS);
                    if (q > 0 || previous >= 0) {
                        wgmma_wait<0>();
                        wgmma_pin(part);
                        if (q == 0) r.release(previous);
                        add_scaled(sum[0], part, factor);
                    }
                    factor = next;
                }
            pin();
            wgmma_fence();
#pragma unroll
            for (int s = 0; s < BATCH; s++) {
                const int i = q * BATCH + s;
#pragma unroll
                for (int u = 0; u < MW; u++) {
                    if constexpr (W::FOLDED) WgmmaRs<NB>::template mma<W::TYPE>(sum[u], a[q % 2][u][s], step_of<NB>(b, i), 1);
                    else WgmmaRs<NB>::template mma<W::TYPE>(part, a[q % 2][u][s], step_of<NB>(b, i), i % W::STEPS != 0);
                }
            }
            wgmma_commit();
            pin();
            wgmma_wait<1>();
            if (W::FOLDED && q == 0 && previous >= 0) r.release(previous);
        }
        previous = r.stage;
        r.next();
    }
    wgmma_wait<0>();
    pin();
    if constexpr (!W::FOLDED)
        if (previous >= 0) add_scaled(sum[0], part, factor);
    if (previous >= 0) r.release(previous);
}

template <class W, int NB, class R>
__device__ __forceinline__ void sum_pieces(R &r, int k, int k_last, float (&sum)[1][NB / 2])
{
    /* Of at most 64 tokens, in two sets of sums that take turns. Two stages a round, as the compiler does not see across rounds what
     * is in flight. */
    constexpr int TOKENS = NB < 64 ? NB : 64, PIECES = NB / TOKENS, STEPS = W::STAGE_STEPS;
    float piece[2][TOKENS / 2];
    uint32_t a[2][STEPS][4];
    float2 factors[2] = {make_float2(0.0f, 0.0f), make_float2(0.0f, 0.0f)};
    int stages[2] = {0, 0}, previous = -1;
    auto expand = [&](int i) {
        r.wait();
        typename W::Scales scales;
        scales.load(r.chunk(0), r.lane / 4, r.tables());
        uint32_t x[4];
#pragma unroll
        for (int s = 0; s < STEPS; s++) {
            load_codes<W>(r.chunk(0), r.lane, s, x);
            W::operand(r.g, x + s % (4 / W::WORDS) * W::WORDS, scales, s, a[i][s]);
        }
        factors[i] = W::factors(r.g, r.chunk(0), r.lane / 4, 0);
        stages[i] = r.stage;
        r.next();
    };
    /* Piece j of a round. */
    auto issue = [&](int j) {
        const uint64_t tokens = tile_descriptor(r.stages_at + stages[j / PIECES] * r.stage_bytes) + j % PIECES * (TOKENS * 8);
        wgmma_pin(piece[j % 2]);
        wgmma_fence();
#pragma unroll
        for (int s = 0; s < STEPS; s++) WgmmaRs<TOKENS>::template mma<W::TYPE>(piece[j % 2], a[j / PIECES][s], step_of<TOKENS>(tokens, s), s != 0);
        wgmma_commit();
        wgmma_pin(piece[j % 2]);
    };
    auto scale = [&](int j) {
        wgmma_pin(piece[j % 2]);
        add_scaled(sum[0], piece[j % 2], factors[j / PIECES], j % PIECES * (TOKENS / 2));
    };
#pragma unroll
    for (int i = 0; i < TOKENS / 2; i++) piece[1][i] = 0.0f;
    for (; k + r.teams < k_last; k += 2 * r.teams) {
        expand(0);
        wgmma_wait<0>();
        scale(2 * PIECES - 1);                                /* the round's before */
        if (previous >= 0) r.release(previous);
#pragma unroll
        for (int j = 0; j < 2 * PIECES; j++) {
            if (j == PIECES) expand(1);
            issue(j);
            if (j) {
                wgmma_wait<1>();
                scale(j - 1);
            }
            if (j == PIECES) r.release(stages[0]);
        }
        previous = stages[1];
    }
    const bool one = k < k_last;
    if (one) expand(0);
    wgmma_wait<0>();
    scale(2 * PIECES - 1);
    if (previous >= 0) r.release(previous);
    if (!one) return;
#pragma unroll
    for (int j = 0; j < PIECES; j++) {
        issue(j);
        wgmma_wait<0>();
        scale(j);
    }
    r.release(stages[0]);
}

template <class W, int NB, int MW, class R>
__device__ __forceinline__ void sum_split(R &r, int k, int k_last, float (&sum)[MW][NB / 2])
{
    constexpr int BATCH = 4, BATCHES = W::STAGE_STEPS / BATCH;
    uint32_t a[2][BATCH][4];
    float2 weight[MW];                                        /* of the sums, in rows g and g + 8 */
    int previous = -1;
#pragma unroll
    for (int u = 0; u < MW; u++) weight[u] = make_float2(1.0f, 1.0f);
    for (; k < k_last; k += r.teams) {
        const uint64_t b = tile_descriptor(r.at());
        r.wait();
        /* One unit after the other: while one's products run, the other's sums are brought to the weight of its next chunk. The first
         * unit's wait for everything, as the compiler does not see across rounds what is in flight. */
#pragma unroll
        for (int u = 0; u < MW; u++) {
            const float2 scale = plain_factors(r.g, r.chunk(u) + W::CODE_BYTES, r.lane / 4, 0), before = weight[u];
            uint32_t power[2], x[4];
            weight[u] = make_float2(W::split(scale.x, before.x, power[0]), W::split(scale.y, before.y, power[1]));
            const float2 change = make_float2(ratio(before.x, weight[u].x), ratio(before.y, weight[u].y));
#pragma unroll
            for (int q = 0; q < BATCHES; q++) {
#pragma unroll
                for (int s = 0; s < BATCH; s++) {
                    const int i = q * BATCH + s;
                    load_codes<W>(r.chunk(u), r.lane, i, x);
                    W::operand_split(x + i % (4 / W::WORDS) * W::WORDS, power, a[q % 2][s]);
                }
                if (q == 0) {
                    if (u == 0) wgmma_wait<0>();
                    wgmma_pin(sum[u]);
                    scale_sums(sum[u], change);
                    if (u == 0 && previous >= 0) r.release(previous);
                }
                wgmma_pin(sum[u]);
                wgmma_fence();
#pragma unroll
                for (int s = 0; s < BATCH; s++) WgmmaRs<NB>::template mma<W::TYPE>(sum[u], a[q % 2][s], step_of<NB>(b, q * BATCH + s), 1);
                wgmma_commit();
                wgmma_pin(sum[u]);
                wgmma_wait<1>();
            }
        }
        previous = r.stage;
        r.next();
    }
    wgmma_wait<0>();
#pragma unroll
    for (int u = 0; u < MW; u++) {
        wgmma_pin(sum[u]);
        scale_sums(sum[u], weight[u]);
    }
    if (previous >= 0) r.release(previous);
}

}  // namespace brc
