/* SPDX-License-Identifier: Apache-2.0
 *
 * What a cast reads: plain numbers, or (CODED) the codes of a tensor under its own scales, which become floats in registers. */
#pragma once
#include "scale.cuh"

namespace brc {

/* ---- stored scales */

__device__ __forceinline__ float float_of_e8m0(uint32_t w) { return w == 255 ? __uint_as_float(0x7FC00000u) : power_of(static_cast<int>(w)); }
__device__ __forceinline__ float float_of_16(uint32_t w, int format)
{
    return format == FORMAT_F16 ? __half2float(__ushort_as_half(static_cast<uint16_t>(w))) : __uint_as_float(w << 16);
}

/* m = s | f32(s*g) | f32(s/g) | f32(f32(s*amax) * f32(1/c)); x = the second level */
__device__ __forceinline__ float under_global(float s, float x, int kind, float constant)
{
    if (kind == 0) return __fmul_rn(s, x);
    if (kind == 1) return __fdiv_rn(s, x);
    return __fmul_rn(__fmul_rn(s, x), __fdiv_rn(1.0f, constant));
}

/* ---- sources */

struct CODED { using word = float; static constexpr float MAX = F32::MAX; };
/* The type of the numbers that a source's pieces hold. */
template <class T> using Wide = std::conditional_t<std::is_same_v<T, CODED>, F32, T>;

/* A piece on its way; `numbers` when it has arrived, so that several loads can be under way. Past a row's end they are 0, or NaN under
 * an awkward scale: they weigh nothing. */
template <class T> struct Source {
    uint4 raw;

    __device__ __forceinline__ void nothing() { raw = make_uint4(0, 0, 0, 0); }
    /* WHOLE: g.wide, and the piece is whole. */
    template <bool WHOLE = false> __device__ __forceinline__ void load(const brci_cast_args &g, int64_t row, uint32_t col, int count)
    {
        const auto *p = static_cast<const typename T::word *>(g.in) + row * g.in_pitch + col;
        if (WHOLE || (count == PIECE<T> && g.wide)) raw = load_wide(p);
        else raw = load_some<T>(p, count);                 /* nothing, in the rest of a row's last block */
    }
    /* By number, where rows follow one another without gaps. */
    __device__ __forceinline__ void load(const brci_cast_args &g, int64_t piece) { raw = load_wide(static_cast<const typename T::word *>(g.in) + piece * PIECE<T>); }
    __device__ __forceinline__ uint4 numbers(const brci_cast_args &) const { return raw; }
};

template <> struct Source<CODED> {
    uint32_t codes, scale;

    __device__ __forceinline__ void nothing() { codes = scale = 0; }
    template <bool = false> __device__ __forceinline__ void load(const brci_cast_args &g, int64_t row, uint32_t col, int count)
    {
        const auto *p = static_cast<const uint8_t *>(g.in) + row * g.in_pitch + static_cast<int64_t>(col) * g.from_bits / 8;
        if (count <= 0) return nothing();
        if (g.wide && g.from_bits == 8) codes = __ldg(reinterpret_cast<const uint32_t *>(p));
        else if (g.wide && g.from_bits == 4) codes = __ldg(reinterpret_cast<const uint16_t *>(p));
        else {
            codes = 0;
            for (int i = 0; 8 * i < count * g.from_bits; i++) codes |= static_cast<uint32_t>(__ldg(p + i)) << (8 * i);
        }
        const int64_t at = (row >> g.rows_shift) * g.from_scale_row + (col / 4 >> g.cols_shift);
        if (g.from_scale_format == FORMAT_F32) scale = __ldg(static_cast<const uint32_t *>(g.from_scale) + at);
        else if (g.from_scale_format == FORMAT_E8M0 || g.from_scale_format == FORMAT_E4M3) scale = __ldg(static_cast<const uint8_t *>(g.from_scale) + at);
        else scale = __ldg(static_cast<const uint16_t *>(g.from_scale) + at);
    }
    __device__ __forceinline__ void load(const brci_cast_args &g, int64_t piece)
    {
        const int64_t row = row_of(g, piece);
        load(g, row, static_cast<uint32_t>(piece - row * g.piece_row) * 4, 4);
    }
    __device__ __forceinline__ uint4 numbers(const brci_cast_args &g) const;
};

/* Pieces that are whole, by number, where rows follow one another without gaps; piece(a) < 0: nothing. What formats ask for is asked
 * once for all: a branch between loads would let each wait for the one before. */
template <class T, int N, class P> __device__ __forceinline__ void load_pieces(const brci_cast_args &g, Source<T> (&source)[N], P piece)
{
    if constexpr (!std::is_same_v<T, CODED>) {
#pragma unroll
        for (int a = 0; a < N; a++) {
            if (piece(a) < 0) source[a].nothing();
            else source[a].load(g, piece(a));
        }
    } else {
        int64_t at[N];
#pragma unroll
        for (int a = 0; a < N; a++) at[a] = max(piece(a), static_cast<int64_t>(0));
        if (g.from_bits == 8)
#pragma unroll
            for (int a = 0; a < N; a++) source[a].codes = __ldg(static_cast<const uint32_t *>(g.in) + at[a]);
        else if (g.from_bits == 4)
#pragma unroll
            for (int a = 0; a < N; a++) source[a].codes = __ldg(static_cast<const uint16_t *>(g.in) + at[a]);
        else
#pragma unroll
            for (int a = 0; a < N; a++) {
                const auto *p = static_cast<const uint8_t *>(g.in) + 3 * at[a];
                source[a].codes = __ldg(p) | static_cast<uint32_t>(__ldg(p + 1)) << 8 | static_cast<uint32_t>(__ldg(p + 2)) << 16;
            }
        if (g.from_flat)
#pragma unroll
            for (int a = 0; a < N; a++) at[a] >>= g.cols_shift;
        else
#pragma unroll
            for (int a = 0; a < N; a++) {
                const int64_t row = row_of(g, at[a]);
                at[a] = (row >> g.rows_shift) * g.from_scale_row + (at[a] - row * g.piece_row >> g.cols_shift);
            }
        if (g.from_scale_format == FORMAT_F32)
#pragma unroll
            for (int a = 0; a < N; a++) source[a].scale = __ldg(static_cast<const uint32_t *>(g.from_scale) + at[a]);
        else if (g.from_scale_format == FORMAT_E8M0 || g.from_scale_format == FORMAT_E4M3)
#pragma unroll
            for (int a = 0; a < N; a++) source[a].scale = __ldg(static_cast<const uint8_t *>(g.from_scale) + at[a]);
        else
#pragma unroll
            for (int a = 0; a < N; a++) source[a].scale = __ldg(static_cast<const uint16_t *>(g.from_scale) + at[a]);
#pragma unroll
        for (int a = 0; a < N; a++)
            if (piece(a) < 0) source[a].nothing();
    }
}

template <class E, int N> __device__ __forceinline__ void decode_pieces(const Source<CODED> (&source)[N], const float (&m)[N], uint4 (&raw)[N])
{
#pragma unroll
    for (int a = 0; a < N; a++) {
        float e[4];
        decode<E>(source[a].codes, e);
        raw[a] = make_uint4(__float_as_uint(__fmul_rn(e[0], m[a])), __float_as_uint(__fmul_rn(e[1], m[a])), __float_as_uint(__fmul_rn(e[2], m[a])),
                            __float_as_uint(__fmul_rn(e[3], m[a])));
    }
}

/* The numbers of pieces that have arrived. */
template <class T, int N> __device__ __forceinline__ void numbers_of(const brci_cast_args &g, const Source<T> (&source)[N], uint4 (&raw)[N])
{
    if constexpr (!std::is_same_v<T, CODED>) {
#pragma unroll
        for (int a = 0; a < N; a++) raw[a] = source[a].numbers(g);
    } else {
        float m[N];
        auto scales = [&](auto decoded) {
#pragma unroll
            for (int a = 0; a < N; a++) m[a] = decoded(source[a].scale);
        };
        switch (g.from_scale_format) {
        case FORMAT_F32: scales([](uint32_t w) { return __uint_as_float(w); }); break;
        case FORMAT_E8M0: scales([](uint32_t w) { return float_of_e8m0(w); }); break;
        case FORMAT_E4M3: scales([](uint32_t w) { return floats_of_e4m3(static_cast<uint16_t>(w)).x; }); break;
        default: scales([&](uint32_t w) { return float_of_16(w, g.from_scale_format); });
        }
        if (g.from_global) {
            const float x = __ldg(g.from_global);
#pragma unroll
            for (int a = 0; a < N; a++) m[a] = under_global(m[a], x, g.from_global_kind, g.from_global_constant);
        }
        switch (g.from_format) {
        case FORMAT_E4M3: decode_pieces<E4M3>(source, m, raw); break;
        case FORMAT_E5M2: decode_pieces<E5M2>(source, m, raw); break;
        case FORMAT_E3M2: decode_pieces<E3M2>(source, m, raw); break;
        case FORMAT_E2M3: decode_pieces<E2M3>(source, m, raw); break;
        case FORMAT_E2M1: decode_pieces<E2M1>(source, m, raw); break;
        case FORMAT_INT4: decode_pieces<INT4>(source, m, raw); break;
        default: decode_pieces<INT8>(source, m, raw);
        }
    }
}

__device__ __forceinline__ uint4 Source<CODED>::numbers(const brci_cast_args &g) const
{
    const Source<CODED> one[1] = {*this};
    uint4 raw[1];
    numbers_of(g, one, raw);
    return raw[0];
}

}  // namespace brc
