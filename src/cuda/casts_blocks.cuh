/* SPDX-License-Identifier: Apache-2.0
 *
 * Casts with a scale for each 1 x BLOCK elements. */
#pragma once
#include "parts/encode.cuh"
#include "parts/lanes.cuh"

namespace brc {

/* The number of a block of threads' share. Backwards, what another kernel has read last is still in L2. */
__device__ __forceinline__ int64_t share_of(const brci_cast_args &g) { return g.backwards ? gridDim.x - 1 - blockIdx.x : blockIdx.x; }

template <class S, class E, int KIND, int BLOCK, bool FLAT>
__device__ __forceinline__ void cast_blocks_in(const brci_cast_args &g, int64_t share)
{
    using T = Wide<S>;
    constexpr int V = PIECE<T>, LANES = BLOCK / V, N = FLAT ? AHEAD : 1;
    using Lanes = Shared<LANES, N>;
    const int64_t first = share * (THREADS * N);
    const uint32_t live = static_cast<uint32_t>(min(g.pieces - first, static_cast<int64_t>(THREADS * N)));
    const int64_t one = FLAT ? 0 : min(first + threadIdx.x, g.pieces - 1);
    const Place at = place<T, E, false>(g, one);
    auto *out = static_cast<uint8_t *>(g.out) + (first + threadIdx.x) * (V * E::BITS / 8);
    Source<S> source[N];
    uint4 raw[N];
    uint32_t m[N];
    if constexpr (!FLAT) source[0].load(g, at.row, at.col, threadIdx.x < live ? at.count : 0);
    else load_pieces(g, source, [&](int a) { return a * THREADS + threadIdx.x < live ? first + threadIdx.x + a * THREADS : -1; });
    numbers_of(g, source, raw);
#pragma unroll
    for (int a = 0; a < N; a++) m[a] = Extent<T, E::WATCHED>::of(raw[a]);
    Lanes::template reduce<Extent<T, E::WATCHED>>(m);

    float amax[Lanes::OWN];
    bool odd = false;
#pragma unroll
    for (int i = 0; i < Lanes::OWN; i++) {
        amax[i] = Extent<T, E::WATCHED>::whole(m[i]);
        odd |= __float_as_uint(amax[i]) >= INFINITY_BITS;
    }
    if constexpr (E::WATCHED) {
        odd = __any_sync(~0u, odd);
        if (odd) {
#pragma unroll
            for (int a = 0; a < N; a++) m[a] = Numbers<T>::of(raw[a]);
            Lanes::template reduce<Numbers<T>>(m);
#pragma unroll
            for (int i = 0; i < Lanes::OWN; i++) amax[i] = Numbers<T>::whole(m[i]);
        }
    }

    Second second{};
    bool ordinary = false;
    if constexpr (KIND == NV) {
        second = second_of(g);
        ordinary = true;
#pragma unroll
        for (int i = 0; i < Lanes::OWN; i++) ordinary &= ordinary_nv(g, amax[i], second);
        ordinary = !__any_sync(~0u, !ordinary);
        odd |= !ordinary && g.arith != ARITH_DIV;
    }
    float factor[Lanes::OWN], inverse[Lanes::OWN], shift[Lanes::OWN];
    bool beyond = false;
#pragma unroll
    for (int i = 0; i < Lanes::OWN; i++) {
        const uint32_t piece = Lanes::block(i) * THREADS + threadIdx.x;
        const bool write = Lanes::first() && piece < live;
        int64_t block = at.row * g.scale_row + at.col / BLOCK * g.scale_col;
        if constexpr (FLAT) {
            block = first / LANES + piece / LANES;
            if (g.scale_col != 1 && write) {
                const int64_t row = row_of(g, first + piece);
                block = row * g.scale_row + (first + piece - row * g.piece_row) / LANES * g.scale_col;
            }
        }
        const Coder c = choose<T, E, KIND>(g, amax[i], second, ordinary, block, write);
        factor[i] = c.factor;
        inverse[i] = c.inverse;
        shift[i] = c.shift;
        odd |= c.shift != 1.0f;
        /* In the element's units. */
        if constexpr (E::WATCHED) beyond |= !(__fmul_rn(__fmul_rn(amax[i], c.shift), c.inverse != 0.0f ? c.inverse : c.factor) < E::ROOM);
    }
    const bool divide = KIND != MX && g.arith == ARITH_DIV;
    if (divide) odd = __any_sync(~0u, odd);
    const bool clamp = E::WATCHED && __any_sync(~0u, beyond);
    in_case<E, KIND == MX>(divide, odd, clamp, [&](auto how, auto is) {
#pragma unroll
        for (int a = 0; a < N; a++) {
            const bool here = a * THREADS + threadIdx.x < live;
            Coder c = {Lanes::of(factor, a), 0.0f, 1.0f};
            if constexpr (how.DIVIDE) c.inverse = Lanes::of(inverse, a);
            if constexpr (how.DIVIDE && is.AWKWARD) c.shift = Lanes::of(shift, a);
            const uint64_t codes = encode<T, E, KIND == MX>(raw[a], c, how, is);
            if constexpr (FLAT) store_piece<E::BITS, V>(out + a * (THREADS * V * E::BITS / 8), codes, here);
            else if (here && at.count > 0) write<T, E>(g, at.out, codes, at.count);
        }
    });
}

/* NVFP4 without special cases: the second level and all magnitudes are such that no step is subnormal or infinite, and no code is
 * cut. False, with nothing written, where a warp meets anything else. */
template <class S> __device__ __forceinline__ bool cast_nv(const brci_cast_args &g, int64_t share)
{
    using T = Wide<S>;
    constexpr int V = PIECE<T>, LANES = 16 / V, N = AHEAD;
    using Lanes = Shared<LANES, N>;
    using Largest = Extent<T, true, true>;
    const int64_t first = share * (THREADS * N);
    const uint32_t live = static_cast<uint32_t>(min(g.pieces - first, static_cast<int64_t>(THREADS * N)));
    Source<S> source[N];
    uint4 raw[N];
    uint32_t m[N];
    load_pieces(g, source, [&](int a) { return first + min(a * THREADS + threadIdx.x, live - 1); });
    numbers_of(g, source, raw);
    const float second = g.global ? __ldg(g.global) : 1.0f, inverse = reciprocal(second);
#pragma unroll
    for (int a = 0; a < N; a++) m[a] = Largest::of(raw[a]);
    Lanes::template reduce<Largest>(m);

    float amax[Lanes::OWN], block[Lanes::OWN], factor[Lanes::OWN];
#pragma unroll
    for (int i = 0; i < Lanes::OWN; i++) {
        amax[i] = Largest::whole(m[i]);
        block[i] = quotient<false>(quotient<false>(amax[i], {E2M1::REACH, 1.0f / E2M1::REACH, 1.0f}), {second, inverse, 1.0f});
        block[i] = fmaxf(block[i], 0.015625f);
    }
    const uint16_t codes = e4m3_of(block[0], block[Lanes::OWN - 1]);
    const float2 both = floats_of_e4m3(codes);
    bool inside = g.arith != ARITH_DIV && second > 1e-18f && second < 1e18f;
#pragma unroll
    for (int i = 0; i < Lanes::OWN; i++) {
        const float s = i ? both.y : both.x;
        factor[i] = quotient<false>(inverse, {s, reciprocal(s), 1.0f});
        inside &= __fmul_rn(amax[i], factor[i]) < E2M1::ROOM;
        factor[i] = __fmul_rn(factor[i], E2M1::BEFORE);
    }
    if (__any_sync(~0u, !inside)) return false;
    auto *scale = static_cast<uint8_t *>(g.scale) + first / LANES;
    auto *out = static_cast<uint8_t *>(g.out) + (first + threadIdx.x) * (V / 2);
#pragma unroll
    for (int i = 0; i < Lanes::OWN; i++) {
        const uint32_t piece = Lanes::block(i) * THREADS + threadIdx.x;
        if (Lanes::first() && piece < live) scale[piece / LANES] = static_cast<uint8_t>(i ? codes >> 8 : codes);
    }
#pragma unroll
    for (int a = 0; a < N; a++) {
        const float f = Lanes::of(factor, a);
        float y[V];
        floats_of<T>(raw[a], y);
#pragma unroll
        for (int i = 0; i < V; i++) y[i] = __fmul_rn(fabsf(y[i]), f);
        store_piece<4, V>(out + a * (THREADS * V / 2), E2M1::piece(y, signs_in_nibbles<T>(raw[a])), a * THREADS + threadIdx.x < live);
    }
    return true;
}

template <class S, class E, int KIND, int BLOCK>
__device__ __forceinline__ void cast_blocks(const brci_cast_args &g)
{
    const int64_t share = share_of(g);
    if constexpr (KIND == NV) {
        if (g.flat && g.scale_col == 1 && cast_nv<S>(g, share)) return;
        const int several = g.flat ? AHEAD : 1;
#pragma unroll 1
        for (int i = 0; i < several; i++)
            if ((share * several + i) * THREADS < g.pieces) cast_blocks_in<S, E, NV, BLOCK, false>(g, share * several + i);
    } else if (g.flat) cast_blocks_in<S, E, KIND, BLOCK, true>(g, share);
    else cast_blocks_in<S, E, KIND, BLOCK, false>(g, share);
}

}  // namespace brc
