/* SPDX-License-Identifier: Apache-2.0
 *
 * Elements to floats and back. The unit of every cast is a piece: 16 bytes of the wide type, PIECE<T> elements (eight of a
 * sixteen-bit type, four of F32), so that a warp's loads are neighbours.
 * Each element type encodes in two ways. `one` takes any float and is the reference's arithmetic, step by step. `ordinary` takes
 * a piece of finite numbers whose magnitude is within the element's and costs a fraction: both give the same codes.
 * Rounding, saturation and NaN are those of docs/numerics.md; compile with -ftz=false -prec-div=true -fmad=false. */
#pragma once
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <stdint.h>

#include <type_traits>

#ifdef BRC_EMULATED
#include BRC_EMULATED
#else
#include "hardware.cuh"
#endif

namespace brc {

struct F32 { using word = float; static constexpr float MAX = 3.4028234663852886e38f; };
struct F16 { using word = __half; static constexpr float MAX = 65504.0f; };
struct BF16 { using word = __nv_bfloat16; static constexpr float MAX = 3.3895313892515355e38f; };

template <class T> constexpr int PIECE = 16 / static_cast<int>(sizeof(typename T::word));
constexpr uint32_t INFINITY_BITS = 0x7F800000u;

/* ---- wide numbers */

/* The first `count` elements of a piece from any address; the rest is zero. */
template <class T> __device__ __forceinline__ uint4 load_some(const typename T::word *p, int count)
{
    uint32_t w[4];
#pragma unroll
    for (int i = 0; i < 4; i++) {
        if constexpr (sizeof(typename T::word) == 4) w[i] = i < count ? __ldg(reinterpret_cast<const uint32_t *>(p) + i) : 0;
        else {
            const auto *q = reinterpret_cast<const uint16_t *>(p) + 2 * i;
            w[i] = (2 * i < count ? __ldg(q) : 0) | (2 * i + 1 < count ? static_cast<uint32_t>(__ldg(q + 1)) << 16 : 0);
        }
    }
    return make_uint4(w[0], w[1], w[2], w[3]);
}

template <class T> __device__ __forceinline__ void pair_of(uint32_t w, float &low, float &high)
{
    if constexpr (std::is_same_v<T, BF16>) {
        low = __uint_as_float(w << 16);
        high = __uint_as_float(w & 0xFFFF0000u);
    } else {
        const float2 f = __half22float2(reinterpret_cast<const __half2 &>(w));
        low = f.x;
        high = f.y;
    }
}

template <class T> __device__ __forceinline__ void floats_of(const uint4 &v, float (&x)[PIECE<T>])
{
    const uint32_t w[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
    for (int i = 0; i < 4; i++) {
        if constexpr (std::is_same_v<T, F32>) x[i] = __uint_as_float(w[i]);
        else pair_of<T>(w[i], x[2 * i], x[2 * i + 1]);
    }
}

/* The signs of four sixteen-bit numbers, bit 7 of a byte each. */
__device__ __forceinline__ uint32_t signs_in_bytes(uint32_t first, uint32_t second) { return __byte_perm(first, second, 0x7531); }
/* The signs of a piece, bit 3 of a nibble each. */
template <class T> __device__ __forceinline__ uint32_t signs_in_nibbles(const uint4 &v)
{
    uint32_t even, odd;
    if constexpr (std::is_same_v<T, F32>) {
        even = __byte_perm(v.x, v.z, 0x0073) & 0x8080u;
        odd = __byte_perm(v.y, v.w, 0x0073) & 0x8080u;
    } else {
        const uint32_t first = __byte_perm(v.x, v.y, 0x7351), second = __byte_perm(v.z, v.w, 0x7351);
        even = __byte_perm(first, second, 0x5410) & 0x80808080u;
        odd = __byte_perm(first, second, 0x7632) & 0x80808080u;
    }
    return odd | even >> 4;
}

/* Largest magnitudes. Of a piece, or of several combined, as a word: a pair of sixteen-bit numbers, or a float.
 * NAN_WINS: one NaN makes the whole NaN, so that one look at the end finds it; else NaN is left out. SIGNED: words may be of any
 * sign, which takes fewer instructions, but more of those on integers. */
template <class T, bool NAN_WINS, bool SIGNED = false> struct Extent {
    static __device__ __forceinline__ uint32_t larger(uint32_t a, uint32_t b)
    {
        if constexpr (std::is_same_v<T, BF16>) return NAN_WINS ? larger_or_nan_bf16<SIGNED>(a, b) : larger_bf16<SIGNED>(a, b);
        else if constexpr (std::is_same_v<T, F16>) return NAN_WINS ? larger_or_nan_f16<SIGNED>(a, b) : larger_f16<SIGNED>(a, b);
        else return __float_as_uint(larger_float(__uint_as_float(a), __uint_as_float(b)));
    }
    static __device__ __forceinline__ uint32_t of(const uint4 &v) { return larger(larger(word(v.x), word(v.y)), larger(word(v.z), word(v.w))); }
    static __device__ __forceinline__ float whole(uint32_t m)
    {
        float low, high;
        if constexpr (std::is_same_v<T, F32>) low = high = __uint_as_float(m);
        else pair_of<T>(m, low, high);
        m = __float_as_uint(larger_float(low, high));
        return NAN_WINS ? __uint_as_float(m) : fmaxf(__uint_as_float(m), 0.0f);
    }

private:
    static __device__ __forceinline__ uint32_t word(uint32_t w)
    {
        if constexpr (SIGNED || std::is_same_v<T, F32>) return w;
        else if constexpr (std::is_same_v<T, BF16>) return magnitude_bf16(w);
        else return magnitude_f16(w);
    }
    static __device__ __forceinline__ float larger_float(float a, float b) { return NAN_WINS ? larger_or_nan(fabsf(a), fabsf(b)) : fmaxf(fabsf(a), fabsf(b)); }
};

/* ---- elements */

/* Four codes of BITS in bytes, side by side. */
template <int BITS> __device__ __forceinline__ uint32_t packed(uint32_t bytes)
{
    if constexpr (BITS == 4) return __byte_perm(bytes | bytes >> 4, 0, 0x4420);
    else {
        const uint32_t pairs = (bytes & 0x003F003Fu) | (bytes >> 2 & 0x0FC00FC0u);
        return (pairs & 0xFFFu) | (pairs >> 4 & 0xFFF000u);
    }
}
/* Two halves of 2 N codes of four bits: code i above bits 4 i, code N + i above bits 16 + 4 i. */
template <int N> __device__ __forceinline__ uint32_t halves(uint32_t codes) { return N == 4 ? codes : (codes & 0xFFu) | (codes << 8 & 0x00FF0000u); }

constexpr float UNITS = 12582912.0f;      /* 1.5 * 2^23: a number added to it is rounded to an integer, which its low bits hold */

/* MAX is the largest number and LEAST the other end; REACH is what a block's largest magnitude becomes; magnitudes up to ROOM are
 * rounded into the range by themselves. WATCHED elements have no code for NaN and infinity.
 * ordinary(): codes of four neighbours, packed, of y = BEFORE * (x * factor or a quotient). UNSIGNED elements have piece() instead: of
 * magnitudes, all of a piece, the signs coming in bit 3 of the nibbles of `signs`. */
struct E4M3 {
    static constexpr int BITS = 8;
    static constexpr bool UNSIGNED = false, WATCHED = false;
    static constexpr float MAX = 448.0f, LEAST = -448.0f, ROOM = 448.0f, REACH = 448.0f, BEFORE = 1.0f;
    static __device__ __forceinline__ uint32_t ordinary(const float *y) { return e4m3_of(y[0], y[1]) | static_cast<uint32_t>(e4m3_of(y[2], y[3])) << 16; }
    static __device__ __forceinline__ uint32_t one(float x) { return e4m3_of(x, 0.0f) & 0xFFu; }
    static __device__ __forceinline__ void floats(uint32_t codes, float *e)
    {
        const float2 a = floats_of_e4m3(static_cast<uint16_t>(codes)), b = floats_of_e4m3(static_cast<uint16_t>(codes >> 16));
        e[0] = a.x; e[1] = a.y; e[2] = b.x; e[3] = b.y;
    }
};

struct E5M2 {
    static constexpr int BITS = 8;
    static constexpr bool UNSIGNED = false, WATCHED = false;
    static constexpr float MAX = 57344.0f, LEAST = -57344.0f, ROOM = 57344.0f, REACH = 57344.0f, BEFORE = 1.0f;
    static __device__ __forceinline__ uint32_t ordinary(const float *y) { return e5m2_of(y[0], y[1]) | static_cast<uint32_t>(e5m2_of(y[2], y[3])) << 16; }
    static __device__ __forceinline__ uint32_t one(float x) { return e5m2_of(x, 0.0f) & 0xFFu; }
    static __device__ __forceinline__ void floats(uint32_t codes, float *e)
    {
        const float2 a = floats_of_e5m2(static_cast<uint16_t>(codes)), b = floats_of_e5m2(static_cast<uint16_t>(codes >> 16));
        e[0] = a.x; e[1] = a.y; e[2] = b.x; e[3] = b.y;
    }
};

/* Small floats without infinity or NaN: a code counts the steps of its binade, so that subnormals and the carry into the
 * next exponent come out by themselves. NaN becomes +0. */
template <int EXPONENT, int MANTISSA, int TOP_CODE> struct SmallFloat {
    static constexpr int BITS = 1 + EXPONENT + MANTISSA, BIAS = (1 << (EXPONENT - 1)) - 1;
    static constexpr bool WATCHED = true;
    static __device__ __forceinline__ uint32_t one(float x)
    {
        const uint32_t bits = __float_as_uint(x), magnitude = bits & 0x7FFFFFFFu;
        if (magnitude > INFINITY_BITS) return 0;
        const uint32_t field = min(max(static_cast<int>(magnitude >> 23), 128 - BIAS), 127 + BIAS + 2);
        const float steps = rintf(fminf(__uint_as_float(magnitude), 1024.0f) * __uint_as_float((254u + MANTISSA - field) << 23));
        const uint32_t code = ((field + BIAS - 128u) << MANTISSA) + static_cast<uint32_t>(steps);
        return min(code, static_cast<uint32_t>(TOP_CODE)) | (bits >> 31 << (BITS - 1));
    }
};

/* 2 N codes of six bits: the sign at bit 15 of an F16 and the rest above bit PLACE are the value over the power of two POWER, of
 * N elements in the lower halves and N in the upper ones. */
template <int N, int PLACE, uint32_t POWER> __device__ __forceinline__ void six_bits(uint64_t codes, float *e)
{
    const uint32_t low = static_cast<uint32_t>(codes), high = static_cast<uint32_t>(codes >> 32);
    auto put = [&](uint32_t pairs, int bit, int i) {       /* codes above `bit` of each half */
        const uint32_t sign = bit < 10 ? pairs << (10 - bit) : pairs, rest = bit < PLACE ? pairs << (PLACE - bit) : pairs >> (bit - PLACE);
        pair_of<F16>(f16_multiply_add((sign & 0x80008000u) | (rest & (0x001F001Fu << PLACE)), POWER * 0x10001u, 0x80008000u), e[i], e[N + i]);
    };
    if constexpr (N == 4) {
        const uint32_t first = __byte_perm(low, high, 0x4310), second = __byte_perm(low, high, 0x5421);
        put(first, 0, 0);
        put(first, 6, 1);
        put(second, 4, 2);
        put(second, 10, 3);
    } else {
        const uint32_t both = __byte_perm(low, low << 4, 0x7610);
        put(both, 0, 0);
        put(both, 6, 1);
    }
}

/* The hardware's E4M3 and E5M2 have as many mantissa bits as E2M3 and E3M2: scaled so that the subnormals meet (BEFORE), their
 * codes are the same but for the place of the sign. */
struct E3M2 : SmallFloat<3, 2, 31> {
    static constexpr bool UNSIGNED = false;
    static constexpr float MAX = 28.0f, LEAST = -28.0f, ROOM = 29.0f, REACH = 28.0f, BEFORE = 0x1p-12f;
    static __device__ __forceinline__ uint32_t ordinary(const float *y)
    {
        const uint32_t c = E5M2::ordinary(y);
        return packed<6>((c & 0x1F1F1F1Fu) | (c >> 2 & 0x20202020u));
    }
    template <int N> static __device__ __forceinline__ void floats(uint64_t codes, float *e) { six_bits<N, 8, 0x6C00>(codes, e); }
};
struct E2M3 : SmallFloat<2, 3, 31> {
    static constexpr bool UNSIGNED = false;
    static constexpr float MAX = 7.5f, LEAST = -7.5f, ROOM = 7.625f, REACH = 7.5f, BEFORE = 0x1p-6f;
    static __device__ __forceinline__ uint32_t ordinary(const float *y)
    {
        const uint32_t c = E4M3::ordinary(y);
        return packed<6>((c & 0x1F1F1F1Fu) | (c >> 2 & 0x20202020u));
    }
    template <int N> static __device__ __forceinline__ void floats(uint64_t codes, float *e) { six_bits<N, 7, 0x7400>(codes, e); }
};
struct E2M1 : SmallFloat<2, 1, 7> {
    static constexpr bool UNSIGNED = true;
    static constexpr float MAX = 6.0f, LEAST = -6.0f, ROOM = 6.75f, REACH = 6.0f, BEFORE = 0x1p-23f;
    /* Code as a function of magnitude is concave and piecewise linear, 2y, y + 2 and y/2 + 4: the least of the three, each rounded
     * once, to an integer with ties to even. An F16 below 2^-14 counts 2^-24: conversion to it is that rounding, of two at once. */
    static __device__ __forceinline__ uint32_t two_of(float low, float high)
    {
        const uint32_t steps = f16_pair(low, high), steps1 = f16_pair(__fmul_rn(low, 0.5f), __fmul_rn(high, 0.5f));
        const uint32_t steps2 = f16_pair(__fmul_rn(low, 0.25f), __fmul_rn(high, 0.25f));
        return __viaddmin_u16x2(steps2, 0x00040004u, __viaddmin_u16x2(steps1, 0x00020002u, steps));
    }
    /* Magnitudes half a piece apart share a word, so that shifts alone put the codes in their places. */
    template <int N> static __device__ __forceinline__ uint32_t piece(const float (&y)[N], uint32_t signs)
    {
        uint32_t codes = 0;
#pragma unroll
        for (int i = N / 2 - 1; i >= 0; i--) codes = codes * 16 + two_of(y[i], y[i + N / 2]);
        return (N == 4 ? __byte_perm(codes, 0, 0x4420) : codes) | signs;
    }
    /* The same of BF16 pairs, where the multiplier is a power of two and y therefore a BF16 number. */
    static __device__ __forceinline__ uint32_t two_of_bf16(uint32_t y)
    {
        return __vminu2(__vminu2(bf16_multiply_add(y, 0x40004000u, 0x43404340u), bf16_multiply_add(y, 0x3F803F80u, 0x43424342u)),
                        bf16_multiply_add(y, 0x3F003F00u, 0x43444344u));
    }
    static __device__ __forceinline__ uint32_t with_signs(uint32_t first, uint32_t second, uint32_t signs)
    {
        return packed<4>((__byte_perm(first, second, 0x6420) & 0x07070707u) | (signs >> 4 & 0x08080808u));
    }
    /* A nibble's sign at bit 15 and the rest at 11..9 of an F16 are the value times 2^-14. */
    template <int N> static __device__ __forceinline__ void floats(uint32_t codes, float *e)
    {
        const uint32_t c = halves<N>(codes);
#pragma unroll
        for (int i = 0; i < N; i++) {
            const uint32_t top = c << (12 - 4 * i);
            pair_of<F16>(f16_multiply_add((top & 0x80008000u) | (top >> 3 & 0x0E000E00u), 0x74007400u, 0x80008000u), e[i], e[N + i]);
        }
    }
};

/* Two's complement; the reach is half the code range. NaN becomes 0. */
template <int BITS_> struct Integer {
    static constexpr int BITS = BITS_;
    static constexpr bool UNSIGNED = false, WATCHED = true;
    static constexpr float MAX = (1 << (BITS - 1)) - 1, LEAST = -MAX - 1.0f, ROOM = MAX + 1.0f, REACH = MAX + 0.5f, BEFORE = 1.0f;
    static __device__ __forceinline__ uint32_t one(float x)
    {
        const float y = x == x ? fminf(fmaxf(rintf(x), -MAX - 1.0f), MAX) : 0.0f;
        return static_cast<uint32_t>(static_cast<int32_t>(y)) & ((1u << BITS) - 1);
    }
    /* The low bits of UNITS take sixteen bits of codes, each half a range too large, side by side. */
    static __device__ __forceinline__ float several(const float *y)
    {
        constexpr int OFFSETS = BITS == 8 ? 0x8080 : 0x8888;
        float sum = 0.0f;
#pragma unroll
        for (int i = 16 / BITS - 1; i > 0; i--) sum = __fmaf_rn(sum, 1 << BITS, __fadd_rn(__fadd_rn(fminf(y[i], MAX), UNITS), -UNITS));
        return __fmaf_rn(sum, 1 << BITS, __fadd_rn(fminf(y[0], MAX), UNITS + OFFSETS));
    }
};
struct INT4 : Integer<4> {
    static __device__ __forceinline__ uint32_t ordinary(const float *y) { return (__float_as_uint(several(y)) & 0xFFFFu) ^ 0x8888u; }
    /* 1024 and the code, half a range too large, are an F16. */
    template <int N> static __device__ __forceinline__ void floats(uint32_t codes, float *e)
    {
        const uint32_t c = halves<N>(codes);
#pragma unroll
        for (int i = 0; i < N; i++)
            pair_of<F16>(f16_multiply_add(masked_xor(c >> (4 * i), 0x000F000Fu, 0x64086408u), 0x3C003C00u, 0xE408E408u), e[i], e[N + i]);
    }
};
struct INT8 : Integer<8> {
    static __device__ __forceinline__ uint32_t ordinary(const float *y)
    {
        return __byte_perm(__float_as_uint(several(y)), __float_as_uint(several(y + 2)), 0x5410) ^ 0x80808080u;
    }
    /* 2^23 and the code, half a range too large, are a float. */
    static __device__ __forceinline__ void floats(uint32_t codes, float *e)
    {
#pragma unroll
        for (int i = 0; i < 4; i++) e[i] = __fadd_rn(__uint_as_float(__byte_perm(codes ^ 0x80808080u, 0x4B000000u, 0x7440 + i)), -8388736.0f);
    }
};

/* Codes of a piece of N elements: N * BITS bits, the first element lowest. */
template <class E, int N> __device__ __forceinline__ uint64_t encode_ordinary(const float (&y)[N], uint32_t signs)
{
    if constexpr (E::UNSIGNED) return E::template piece<N>(y, signs);
    else {
        uint64_t codes = E::ordinary(y);
        if constexpr (N == 8) codes |= static_cast<uint64_t>(E::ordinary(y + 4)) << (4 * E::BITS);
        return codes;
    }
}
template <class E, int N> __device__ __forceinline__ uint64_t encode_any(const float (&y)[N])
{
    uint64_t codes = 0;
#pragma unroll
    for (int i = 0; i < N; i++) codes |= static_cast<uint64_t>(E::one(y[i])) << (E::BITS * i);
    return codes;
}
template <class E, int N> __device__ __forceinline__ void decode(uint64_t codes, float (&e)[N])
{
    if constexpr (E::BITS == 4) E::template floats<N / 2>(static_cast<uint32_t>(codes), e);
    else if constexpr (E::BITS == 6) E::template floats<N / 2>(codes, e);
    else {
        E::floats(static_cast<uint32_t>(codes), e);
        if constexpr (N == 8) E::floats(static_cast<uint32_t>(codes >> (4 * E::BITS)), e + 4);
    }
}

/* ---- codes in memory */

/* A piece's codes, its first `count`, to any address. Padding bits are 0. */
template <int BITS> __device__ __forceinline__ void store_some(uint8_t *p, uint64_t codes, int count)
{
    if (count < 8) codes &= (1ull << (count * BITS)) - 1;
#pragma unroll
    for (int i = 0; i < BITS; i++)
        if (8 * i < count * BITS) p[i] = static_cast<uint8_t>(codes >> (8 * i));
}

/* A whole piece of N elements, aligned to its size. Six-bit codes: the pieces of four neighbouring lanes are three words of
 * 32 or 64 bits, which the first three of them write; all lanes of the warp are here, those without a piece not `live`. */
template <int BITS, int N> __device__ __forceinline__ void store_piece(uint8_t *p, uint64_t codes, bool live)
{
    if constexpr (BITS == 6) {
        constexpr int SIZE = BITS * N, WORD = SIZE / 3 * 4;
        const int lane = threadIdx.x & 3, shift = (WORD - SIZE) * lane;
        uint64_t next = __shfl_down_sync(~0u, static_cast<uint32_t>(codes), 1);
        if constexpr (N == 8) next |= static_cast<uint64_t>(__shfl_down_sync(~0u, static_cast<uint32_t>(codes >> 32), 1)) << 32;
        const uint64_t word = codes >> shift | next << (SIZE - shift);
        if (!live || lane == 3) return;
        if constexpr (N == 8) __stcs(reinterpret_cast<uint2 *>(p + 2 * lane), make_uint2(static_cast<uint32_t>(word), static_cast<uint32_t>(word >> 32)));
        else __stcs(reinterpret_cast<uint32_t *>(p + lane), static_cast<uint32_t>(word));
    } else {
        if (!live) return;
        if constexpr (BITS * N == 64) __stcs(reinterpret_cast<uint2 *>(p), make_uint2(static_cast<uint32_t>(codes), static_cast<uint32_t>(codes >> 32)));
        else if constexpr (BITS * N == 32) __stcs(reinterpret_cast<uint32_t *>(p), static_cast<uint32_t>(codes));
        else __stcs(reinterpret_cast<uint16_t *>(p), static_cast<uint16_t>(codes));
    }
}

/* A whole piece, aligned to its size. Six-bit codes: bytes two or one at a time; or, with QUADS, what store_piece writes: pieces of
 * four neighbouring lanes lie side by side, and all lanes of the warp are here. */
template <int BITS, int N, bool QUADS> __device__ __forceinline__ uint64_t load_piece(const uint8_t *p)
{
    if constexpr (BITS * N == 64) {
        const uint2 v = __ldg(reinterpret_cast<const uint2 *>(p));
        return static_cast<uint64_t>(v.y) << 32 | v.x;
    } else if constexpr (BITS * N == 32) return __ldg(reinterpret_cast<const uint32_t *>(p));
    else if constexpr (BITS * N == 16) return __ldg(reinterpret_cast<const uint16_t *>(p));
    else if constexpr (QUADS) {
        const int lane = threadIdx.x & 3;
        if constexpr (N == 8) {
            const uint2 v = lane == 3 ? make_uint2(0, 0) : __ldg(reinterpret_cast<const uint2 *>(p + 2 * lane));
            return static_cast<uint64_t>(v.y) << 32 | v.x;
        } else return lane == 3 ? 0 : __ldg(reinterpret_cast<const uint32_t *>(p + lane));
    } else if constexpr (N == 8)
        return __ldg(reinterpret_cast<const uint16_t *>(p)) | static_cast<uint32_t>(__ldg(reinterpret_cast<const uint16_t *>(p) + 1)) << 16 |
               static_cast<uint64_t>(__ldg(reinterpret_cast<const uint16_t *>(p) + 2)) << 32;
    else return __ldg(p) | __ldg(p + 1) << 8 | __ldg(p + 2) << 16;
}
/* After the load, so that others can be under way: each lane's own codes. */
template <int BITS, int N, bool QUADS> __device__ __forceinline__ uint64_t own_piece(uint64_t word)
{
    if constexpr (BITS == 6 && QUADS && N == 8) {
        /* Bytes 8 - 2 lane.. of the word before and this one. */
        const int lane = threadIdx.x & 3;
        const uint32_t low = static_cast<uint32_t>(word), high = static_cast<uint32_t>(word >> 32);
        const uint32_t low0 = __shfl_up_sync(~0u, low, 1), high0 = __shfl_up_sync(~0u, high, 1), select = lane & 1 ? 0x5432 : 0x3210;
        const uint32_t a = lane == 0 ? low : lane == 3 ? low0 : high0, b = lane == 0 ? high : lane == 3 ? high0 : low, c = lane == 3 ? low : high;
        return static_cast<uint64_t>(__byte_perm(b, c, select)) << 32 | __byte_perm(a, b, select);
    } else if constexpr (BITS == 6 && QUADS) {
        const uint32_t own = static_cast<uint32_t>(word), before = __shfl_up_sync(~0u, own, 1);
        return __byte_perm(before, own, 0x7654 - 0x1111 * (threadIdx.x & 3));
    } else return word;
}

/* ---- results; NaN becomes the type's canonical one */

template <class T> __device__ __forceinline__ void store_float(typename T::word *p, float x)
{
    if constexpr (std::is_same_v<T, F32>) *p = x == x ? x : __uint_as_float(0x7FC00000u);
    else if constexpr (std::is_same_v<T, F16>) *reinterpret_cast<uint16_t *>(p) = x == x ? __half_as_ushort(__float2half_rn(x)) : 0x7E00u;
    else *reinterpret_cast<uint16_t *>(p) = x == x ? __bfloat16_as_ushort(__float2bfloat16_rn(x)) : 0x7FC0u;
}

/* That none of a piece is NaN is seen by one sum; infinities of both signs are taken for one, too. */
template <int N> __device__ __forceinline__ bool numbers_alone(const float (&x)[N])
{
    float sum = x[0];
#pragma unroll
    for (int i = 1; i < N; i++) sum = __fadd_rn(sum, x[i]);
    return sum == sum;
}

/* A piece, to a multiple of 16 bytes; where `numbers` is false there may be NaN among them. */
template <class T> __device__ __forceinline__ void store_floats(typename T::word *p, const float (&x)[PIECE<T>], bool numbers)
{
    uint32_t w[4];
#pragma unroll
    for (int i = 0; i < 4; i++) {
        if constexpr (std::is_same_v<T, F32>) w[i] = __float_as_uint(x[i]);
        else if constexpr (std::is_same_v<T, BF16>) w[i] = bf16_pair(x[2 * i], x[2 * i + 1]);
        else w[i] = f16_pair(x[2 * i], x[2 * i + 1]);
    }
    if (!numbers) {
#pragma unroll
        for (int i = 0; i < PIECE<T>; i++) store_float<T>(p + i, x[i]);
        return;
    }
    __stcs(reinterpret_cast<uint4 *>(p), make_uint4(w[0], w[1], w[2], w[3]));
}

}  // namespace brc
