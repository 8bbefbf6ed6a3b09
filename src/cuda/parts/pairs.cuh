/* SPDX-License-Identifier: Apache-2.0
 *
 * Arithmetic on two sixteen-bit floats in one word, and on the bytes and bits of words. */
#pragma once
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <stdint.h>

namespace brc {

/* (a & mask) | add in one instruction, which the compiler does not find where both are constants. */
__device__ __forceinline__ uint32_t masked_or(uint32_t a, uint32_t mask, uint32_t add)
{
    uint32_t d;
    asm("lop3.b32 %0, %1, %2, %3, 0xEA;" : "=r"(d) : "r"(a), "r"(mask), "r"(add));
    return d;
}

/* Four bytes of eight, by the nibbles of `choice`: a nibble of 8 and more gives the sign of its byte eight times. */
__device__ __forceinline__ uint32_t chosen(uint32_t low, uint32_t high, uint32_t choice)
{
    uint32_t d;
    asm("prmt.b32 %0, %1, %2, %3;" : "=r"(d) : "r"(low), "r"(high), "r"(choice));
    return d;
}

template <bool BF16> __device__ __forceinline__ uint32_t times(uint32_t a, uint32_t b)
{
    if constexpr (BF16) {
        const __nv_bfloat162 p = __hmul2(reinterpret_cast<__nv_bfloat162 &>(a), reinterpret_cast<__nv_bfloat162 &>(b));
        return reinterpret_cast<const uint32_t &>(p);
    } else {
        const __half2 p = __hmul2(reinterpret_cast<__half2 &>(a), reinterpret_cast<__half2 &>(b));
        return reinterpret_cast<const uint32_t &>(p);
    }
}

/* Both numbers of a times one of b. */
template <bool BF16, bool HIGH> __device__ __forceinline__ uint32_t times_one(uint32_t a, uint32_t b)
{
    if constexpr (BF16) {
        const auto x = reinterpret_cast<__nv_bfloat162 &>(b);
        auto y = HIGH ? __high2bfloat162(x) : __low2bfloat162(x);
        return times<true>(a, reinterpret_cast<uint32_t &>(y));
    } else {
        const auto x = reinterpret_cast<__half2 &>(b);
        auto y = HIGH ? __high2half2(x) : __low2half2(x);
        return times<false>(a, reinterpret_cast<uint32_t &>(y));
    }
}

/* Both numbers of a less one constant, given by its bits. */
template <bool BF16, uint16_t C> __device__ __forceinline__ uint32_t less(uint32_t a)
{
    if constexpr (BF16) {
        const auto d = __hsub2(reinterpret_cast<__nv_bfloat162 &>(a), __nv_bfloat162{__ushort_as_bfloat16(C), __ushort_as_bfloat16(C)});
        return reinterpret_cast<const uint32_t &>(d);
    } else {
        const auto d = __hsub2(reinterpret_cast<__half2 &>(a), __half2{__ushort_as_half(C), __ushort_as_half(C)});
        return reinterpret_cast<const uint32_t &>(d);
    }
}

/* BF16: a times b plus c, rounded once. */
__device__ __forceinline__ uint32_t bf16_times_plus(uint32_t a, uint32_t b, uint32_t c)
{
    const auto d = __hfma2(reinterpret_cast<__nv_bfloat162 &>(a), reinterpret_cast<__nv_bfloat162 &>(b), reinterpret_cast<__nv_bfloat162 &>(c));
    return reinterpret_cast<const uint32_t &>(d);
}

/* 1 / x, one unit in the last place at most from it where both are normal. */
__device__ __forceinline__ float near_reciprocal(float x)
{
    float r;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(x));
    return r;
}

/* F16: both numbers of a times M plus C, constants given by their bits. */
template <uint16_t M, uint16_t C> __device__ __forceinline__ uint32_t times_plus(uint32_t a)
{
    const auto d = __hfma2(reinterpret_cast<__half2 &>(a), __half2{__ushort_as_half(M), __ushort_as_half(M)}, __half2{__ushort_as_half(C), __ushort_as_half(C)});
    return reinterpret_cast<const uint32_t &>(d);
}

__device__ __forceinline__ float2 floats_of_f16(uint32_t a) { return __half22float2(reinterpret_cast<__half2 &>(a)); }

/* Two E4M3 codes to F16, exactly. */
__device__ __forceinline__ uint32_t f16_of_e4m3(uint16_t codes)
{
    uint32_t d;
    asm("cvt.rn.f16x2.e4m3x2 %0, %1;" : "=r"(d) : "h"(codes));
    return d;
}

/* The two and two E4M3 codes of a word. */
__device__ __forceinline__ void f16_of_e4m3_word(uint32_t codes, uint32_t &low, uint32_t &high)
{
    asm("{ .reg .b16 l, h; mov.b32 {l, h}, %2; cvt.rn.f16x2.e4m3x2 %0, l; cvt.rn.f16x2.e4m3x2 %1, h; }" : "=r"(low), "=r"(high) : "r"(codes));
}

/* One E4M3 code, nearest even. */
__device__ __forceinline__ uint32_t e4m3_of_float(float v)
{
    uint16_t two;
    asm("cvt.rn.satfinite.e4m3x2.f32 %0, %1, %2;" : "=h"(two) : "f"(0.0f), "f"(v));
    return two & 255;
}

}  // namespace brc
