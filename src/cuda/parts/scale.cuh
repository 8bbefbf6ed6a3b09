/* SPDX-License-Identifier: Apache-2.0
 *
 * From a block's largest magnitude to its scale: the arithmetic of src/reference/scale.c, operation for operation. */
#pragma once
#include "convert.cuh"

namespace brc {

/* As brc_arith and brc_rule number them (rules.def). */
enum { ARITH_TE, ARITH_DIV, ARITH_DEEPGEMM, ARITH_RECIP };
enum { RULE_RCEIL = 3, RULE_FLOOR, RULE_CEIL, RULE_EVEN };
enum { FORMAT_F32 = 2, FORMAT_F16 = 3, FORMAT_BF16 = 4, FORMAT_E4M3 = 5, FORMAT_E8M0 = 12 };

constexpr float LARGEST = 3.4028234663852886e38f, SMALLEST_NORMAL = 1.1754943508222875e-38f;
constexpr uint32_t INFINITY_BITS = 0x7F800000u;

/* How a block's elements are encoded: y = x * factor; or (x * shift) / factor, where the power of two `shift` keeps factor in
 * the middle of the range, so that no step of the division is subnormal. */
struct Coder { float factor, inverse, shift; bool divide; };

__device__ __forceinline__ float capped(float x) { return x > LARGEST ? LARGEST : x; }
__device__ __forceinline__ bool infinite(float x) { return __float_as_uint(x) == INFINITY_BITS; }

/* A power of two not below x, as a biased exponent. */
__device__ __forceinline__ int exponent_up(float x)
{
    const uint32_t bits = __float_as_uint(x), exponent = bits >> 23, fraction = bits & 0x7FFFFFu;
    return min(static_cast<int>(exponent + (fraction > 0 && !(exponent == 0 && fraction <= 0x400000u))), 254);
}

__device__ __forceinline__ float power_of(int biased) { return biased > 0 ? __uint_as_float(static_cast<uint32_t>(biased) << 23) : __uint_as_float(0x400000u); }

/* Never 0, infinite or NaN in the stored format. */
__device__ __forceinline__ float store_f32(float s) { return s > LARGEST ? LARGEST : __float_as_uint(s) == 0 ? SMALLEST_NORMAL : s; }

__device__ __forceinline__ float stored16(float s, int format, uint16_t *code)
{
    if (format == FORMAT_F16) {
        uint16_t c = __half_as_ushort(__float2half_rn(s));
        c = min(c, static_cast<uint16_t>(0x7BFF));
        if (!c) c = 0x400;
        *code = c;
        return __half2float(__ushort_as_half(c));
    }
    uint16_t c = __bfloat16_as_ushort(__float2bfloat16_rn(s));
    c = min(c, static_cast<uint16_t>(0x7F7F));
    if (!c) c = 0x80;
    *code = c;
    return __uint_as_float(static_cast<uint32_t>(c) << 16);
}

__device__ __forceinline__ Coder multiplier(float k) { return {k, 0.0f, 1.0f, false}; }
__device__ __forceinline__ Coder divisor(float s)
{
    const float shift = s < 1e-19f ? 0x1p64f : s > 1e19f ? 0x1p-64f : 1.0f;
    s = __fmul_rn(s, shift);
    return {s, __frcp_rn(s), shift, true};
}

/* x / s, correctly rounded wherever that can change a code: with the correctly rounded reciprocal, one step on the exact
 * residual gives the rounded quotient (Markstein 1990; Muller et al., Handbook of Floating-Point Arithmetic, 4.7). What the
 * shift of a large scale rounds away lies far below the smallest code. With these signs -0 stays -0. Infinity has no
 * residual: FINITE says that none comes here. */
template <bool FINITE> __device__ __forceinline__ void scaled(const Coder &c, float (&x)[8])
{
    if (!c.divide) {
#pragma unroll
        for (int i = 0; i < 8; i++) x[i] = __fmul_rn(x[i], c.factor);
        return;
    }
    if (c.shift != 1.0f) {
#pragma unroll
        for (int i = 0; i < 8; i++) x[i] = __fmul_rn(x[i], c.shift);
    }
#pragma unroll
    for (int i = 0; i < 8; i++) {
        const float q = __fmul_rn(x[i], c.inverse), y = __fmaf_rn(-__fmaf_rn(q, c.factor, -x[i]), c.inverse, q);
        x[i] = FINITE || fabsf(x[i]) <= LARGEST ? y : q;
    }
}

/* Floating-point elements with an F32 scale. */
template <class E, class T>
__device__ __forceinline__ Coder choose_float(const brci_cast_args &g, float amax, bool whole, float *scale)
{
    if (g.arith == ARITH_TE) {
        if (amax < g.epsilon) amax = g.epsilon;
        float k = __float_as_uint(amax) == 0 || infinite(amax) ? 1.0f : __fdiv_rn(g.reach, amax);
        if (infinite(k)) k = whole ? LARGEST : T::MAX;
        if (g.pow2) k = __uint_as_float(__float_as_uint(k) & 0xFF800000u);
        if (__float_as_uint(k) == 0) k = SMALLEST_NORMAL;
        *scale = store_f32(__fdiv_rn(1.0f, k));
        return multiplier(k);
    }
    if (g.arith == ARITH_DEEPGEMM && amax < 1e-4f) amax = 1e-4f;
    float s = __float_as_uint(amax) == 0 || infinite(amax) ? 1.0f : __fdiv_rn(amax, E::REACH);
    if (g.pow2) s = power_of(exponent_up(s));
    *scale = s = store_f32(s);
    if (infinite(amax)) return multiplier(1.0f);           /* the scale is 1: no division of an infinity */
    return g.arith == ARITH_DIV ? divisor(s) : multiplier(capped(__fdiv_rn(1.0f, s)));
}

/* E8M0 scales. TOP: exponent of the element's largest number. */
template <class E>
__device__ __forceinline__ Coder choose_mx(const brci_cast_args &g, float amax, uint8_t *scale)
{
    constexpr int MANTISSA = std::is_same_v<E, E4M3> || std::is_same_v<E, E2M3> ? 3 : std::is_same_v<E, E2M1> ? 1 : 2;
    constexpr int TOP = std::is_same_v<E, E4M3> ? 8 : std::is_same_v<E, E5M2> ? 15 : std::is_same_v<E, E3M2> ? 4 : 2;
    uint32_t bits = __float_as_uint(amax);
    int exponent = 254;
    if (bits != INFINITY_BITS) {
        if (g.rule == RULE_RCEIL) exponent = exponent_up(__fdiv_rn(amax, E::REACH));
        else {
            if (g.rule == RULE_EVEN) bits += 1u << (22 - MANTISSA);
            exponent = static_cast<int>(bits >> 23) + (g.rule == RULE_CEIL && (bits & 0x7FFFFFu)) - TOP;
            exponent = min(max(exponent, 0), 254);
        }
    }
    *scale = static_cast<uint8_t>(exponent);
    if (g.rule != RULE_RCEIL) return divisor(power_of(max(exponent, 1)));
    return multiplier(power_of(254 - exponent));
}

/* NVFP4: E4M3 scales, under a second level or none. */
__device__ __forceinline__ Coder choose_nv(const brci_cast_args &g, float amax, uint8_t *scale)
{
    const float global = g.global ? __ldg(g.global) : 1.0f;
    float block = __fdiv_rn(capped(amax), E2M1::REACH);
    if (g.global) block = g.arith == ARITH_DIV ? __fmul_rn(block, global) : __fdiv_rn(block, global);
    if (block < 0.015625f) block = 0.015625f;
    const uint8_t code = static_cast<uint8_t>(E4M3::two(block, 0.0f));
    const float s = E4M3::floats(code).x;
    *scale = code;
    if (g.arith == ARITH_DIV) {
        const float whole = g.global ? __fdiv_rn(s, global) : s;
        return divisor(__float_as_uint(whole) == 0 ? SMALLEST_NORMAL : whole);
    }
    return multiplier(capped(g.global ? __fdiv_rn(__fdiv_rn(1.0f, global), s) : __fdiv_rn(1.0f, s)));
}

/* Symmetric integers: amax over half the code range, stored in F32, F16 or BF16. */
template <class E>
__device__ __forceinline__ Coder choose_integer(const brci_cast_args &g, float amax, void *table, int64_t at, bool write)
{
    const float epsilon = g.scale_format == FORMAT_F32 ? 1.1920928955078125e-07f : g.scale_format == FORMAT_F16 ? 0.0009765625f : 0.0078125f;
    const bool recip = g.arith == ARITH_RECIP;
    const float least = recip ? (g.epsilon > 0 ? g.epsilon : epsilon) : 0.0f;
    float s = __fdiv_rn(capped(amax), E::REACH);
    if (s < least) s = least;
    if (__float_as_uint(amax) == 0 && !recip) s = epsilon;
    if (g.scale_format == FORMAT_F32) {
        s = store_f32(s);
        if (write) static_cast<float *>(table)[at] = s;
    } else {
        uint16_t code;
        s = stored16(s, g.scale_format, &code);
        if (write) static_cast<uint16_t *>(table)[at] = code;
    }
    return recip ? multiplier(capped(__fdiv_rn(1.0f, s))) : divisor(s);
}

}  // namespace brc
