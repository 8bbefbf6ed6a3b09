/* SPDX-License-Identifier: Apache-2.0
 *
 * From a block's largest magnitude to its scale: the arithmetic of src/reference/scale.c, operation for operation. */
#pragma once
#include "../arguments.h"
#include "convert.cuh"

namespace brc {

/* The row of a piece. */
__device__ __forceinline__ int64_t row_of(const brci_cast_args &g, int64_t piece)
{
    if (g.pieces >= 0x80000000ll) return piece / g.piece_row;
    return g.row_magic ? __umulhi(static_cast<uint32_t>(piece), g.row_magic) >> g.row_shift : static_cast<uint32_t>(piece);
}

/* As brc_arith and brc_rule number them (rules.def). */
enum { ARITH_TE, ARITH_DIV, ARITH_DEEPGEMM, ARITH_RECIP };
enum { RULE_RCEIL = 3, RULE_FLOOR, RULE_CEIL, RULE_EVEN };
enum { FORMAT_F32 = 2, FORMAT_F16, FORMAT_BF16, FORMAT_E4M3, FORMAT_E5M2, FORMAT_E3M2 = 9, FORMAT_E2M3, FORMAT_E2M1, FORMAT_E8M0, FORMAT_INT4 = 15, FORMAT_INT8 = 19 };

constexpr float LARGEST = 3.4028234663852886e38f, SMALLEST_NORMAL = 1.1754943508222875e-38f;

/* How a block's elements are encoded: y = x * factor, or, where the recipe divides, x / factor, both multiplied by the power of
 * two `shift` that keeps factor in the middle of the range, so that no step of the division is subnormal. */
struct Coder { float factor, inverse, shift; };

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

__device__ __forceinline__ Coder multiplier(float k) { return {k, 0.0f, 1.0f}; }
__device__ __forceinline__ Coder divisor(float s)
{
    const float shift = s < 1e-19f ? 0x1p64f : s > 1e19f ? 0x1p-64f : 1.0f;
    s = __fmul_rn(s, shift);
    return {s, reciprocal(s), shift};
}

/* x / s, correctly rounded wherever that can change a code: with the correctly rounded reciprocal, one step on the exact
 * residual gives the rounded quotient (Markstein 1990; Muller et al., Handbook of Floating-Point Arithmetic, 4.7). With these
 * signs -0 stays -0. Infinity has no residual, and a shift may be needed: AWKWARD says that there may be such. What the shift of
 * a large scale rounds away lies far below the smallest code. */
template <bool AWKWARD> __device__ __forceinline__ float quotient(float x, const Coder &c)
{
    if (AWKWARD) x = __fmul_rn(x, c.shift);
    const float q = __fmul_rn(x, c.inverse), y = __fmaf_rn(-__fmaf_rn(q, c.factor, -x), c.inverse, q);
    return !AWKWARD || fabsf(x) <= LARGEST ? y : q;
}

/* amax / reach. */
template <class E> __device__ __forceinline__ float over_reach(float amax)
{
    if (amax > 1e-30f && amax <= LARGEST) return quotient<false>(amax, {E::REACH, 1.0f / E::REACH, 1.0f});
    return __fdiv_rn(amax, E::REACH);
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
    float s = __float_as_uint(amax) == 0 || infinite(amax) ? 1.0f : over_reach<E>(amax);
    if (g.pow2) s = power_of(exponent_up(s));
    *scale = s = store_f32(s);
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
        if (g.rule == RULE_RCEIL) exponent = exponent_up(over_reach<E>(amax));
        else {
            if (g.rule == RULE_EVEN) bits += 1u << (22 - MANTISSA);
            exponent = static_cast<int>(bits >> 23) + (g.rule == RULE_CEIL && (bits & 0x7FFFFFu)) - TOP;
            exponent = min(max(exponent, 0), 254);
        }
    }
    *scale = static_cast<uint8_t>(exponent);
    /* Division by a power of two not below 2^-126 is multiplication by its reciprocal. */
    return multiplier(power_of(254 - (g.rule == RULE_RCEIL ? exponent : max(exponent, 1))));
}

/* NVFP4's second level: the number, its rounded reciprocal, and whether divisions by it have no subnormal step. */
struct Second { float number, inverse; bool there, ordinary; };
__device__ __forceinline__ Second second_of(const brci_cast_args &g)
{
    const float x = g.global ? __ldg(g.global) : 1.0f;
    const bool ordinary = x > 1e-18f && x < 1e18f;
    return {x, ordinary ? reciprocal(x) : __frcp_rn(x), g.global != nullptr, ordinary};
}

/* NVFP4: E4M3 scales, under a second level or none. ORDINARY: arith is not DIV, and no step of a division is subnormal. */
__device__ __forceinline__ bool ordinary_nv(const brci_cast_args &g, float amax, const Second &second)
{
    return g.arith != ARITH_DIV && second.ordinary && amax < 1e18f && (amax > 1e-18f || __float_as_uint(amax) == 0);
}
template <bool ORDINARY>
__device__ __forceinline__ Coder choose_nv(const brci_cast_args &g, float amax, const Second &second, uint8_t *scale)
{
    float block = ORDINARY ? quotient<false>(amax, {E2M1::REACH, 1.0f / E2M1::REACH, 1.0f}) : __fdiv_rn(capped(amax), E2M1::REACH);
    if (ORDINARY) block = quotient<false>(block, {second.number, second.inverse, 1.0f});       /* by 1 where there is none */
    else if (second.there) block = g.arith == ARITH_DIV ? __fmul_rn(block, second.number) : __fdiv_rn(block, second.number);
    const uint32_t code = E4M3::one(fmaxf(block, 0.015625f));
    const float s = floats_of_e4m3(static_cast<uint16_t>(code)).x;
    *scale = static_cast<uint8_t>(code);
    if (ORDINARY) return multiplier(quotient<false>(second.inverse, {s, reciprocal(s), 1.0f}));
    if (g.arith == ARITH_DIV) {
        const float whole = second.there ? __fdiv_rn(s, second.number) : s;
        return divisor(__float_as_uint(whole) == 0 ? SMALLEST_NORMAL : whole);
    }
    return multiplier(capped(second.there ? __fdiv_rn(second.inverse, s) : __fdiv_rn(1.0f, s)));
}

/* Symmetric integers: amax over half the code range, stored in F32, F16 or BF16. */
template <class E>
__device__ __forceinline__ Coder choose_integer(const brci_cast_args &g, float amax, void *table, int64_t at, bool write)
{
    const float epsilon = g.scale_format == FORMAT_F32 ? 1.1920928955078125e-07f : g.scale_format == FORMAT_F16 ? 0.0009765625f : 0.0078125f;
    const bool recip = g.arith == ARITH_RECIP;
    const float least = recip ? (g.epsilon > 0 ? g.epsilon : epsilon) : 0.0f;
    float s = over_reach<E>(capped(amax));
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
