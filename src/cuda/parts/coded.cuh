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
    __device__ __forceinline__ uint4 numbers(const brci_cast_args &g) const
    {
        float e[4], m = 1.0f;
        switch (g.from_scale_format) {
        case FORMAT_F32: m = __uint_as_float(scale); break;
        case FORMAT_E8M0: m = float_of_e8m0(scale); break;
        case FORMAT_E4M3: m = floats_of_e4m3(static_cast<uint16_t>(scale)).x; break;
        default: m = float_of_16(scale, g.from_scale_format);
        }
        if (g.from_global) m = under_global(m, __ldg(g.from_global), g.from_global_kind, g.from_global_constant);
        switch (g.from_format) {
        case FORMAT_E4M3: decode<E4M3>(codes, e); break;
        case FORMAT_E5M2: decode<E5M2>(codes, e); break;
        case FORMAT_E3M2: decode<E3M2>(codes, e); break;
        case FORMAT_E2M3: decode<E2M3>(codes, e); break;
        case FORMAT_E2M1: decode<E2M1>(codes, e); break;
        case FORMAT_INT4: decode<INT4>(codes, e); break;
        default: decode<INT8>(codes, e);
        }
#pragma unroll
        for (int i = 0; i < 4; i++) e[i] = __fmul_rn(e[i], m);
        return make_uint4(__float_as_uint(e[0]), __float_as_uint(e[1]), __float_as_uint(e[2]), __float_as_uint(e[3]));
    }
};

}  // namespace brc
