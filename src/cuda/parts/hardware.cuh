/* SPDX-License-Identifier: Apache-2.0
 *
 * What the hardware does, behind functions: tests/cuda/emulated has the same for an ordinary processor. On devices before
 * compute capability 8.9, which have no FP8, the conversions are done in integers. */
#pragma once
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <stdint.h>

namespace brc {

__device__ __forceinline__ uint4 load_wide(const void *p) { return __ldg(static_cast<const uint4 *>(p)); }

__device__ __forceinline__ uint32_t load_acquire(const uint32_t *p)
{
    uint32_t v;
    asm volatile("ld.acquire.gpu.u32 %0, [%1];" : "=r"(v) : "l"(p) : "memory");
    return v;
}

__device__ __forceinline__ uint32_t load_relaxed(const uint32_t *p)
{
    uint32_t v;
    asm volatile("ld.relaxed.gpu.u32 %0, [%1];" : "=r"(v) : "l"(p));
    return v;
}

/* Of pairs of magnitudes the larger ones: NaN loses against a number, or wins. SIGNED: of pairs of any signs, under a sign that means
 * nothing; one instruction where magnitudes first would be two, but on the pipe of integers (hopper: half as wide). */
#define BRC_LARGER(type, or_nan, kind)                                                                   \
    template <bool SIGNED> __device__ __forceinline__ uint32_t larger##or_nan##_##type(uint32_t a, uint32_t b) \
    {                                                                                                     \
        uint32_t m;                                                                                       \
        if constexpr (SIGNED) asm("max" kind BRC_SIGNED "." #type "x2 %0, %1, %2;" : "=r"(m) : "r"(a BRC_MAGNITUDE), "r"(b BRC_MAGNITUDE)); \
        else asm("max" kind "." #type "x2 %0, %1, %2;" : "=r"(m) : "r"(a), "r"(b));                       \
        return m;                                                                                         \
    }
#if __CUDA_ARCH__ >= 860
#define BRC_SIGNED ".xorsign.abs"
#define BRC_MAGNITUDE
#else
#define BRC_SIGNED
#define BRC_MAGNITUDE & 0x7FFF7FFFu
#endif
BRC_LARGER(bf16, , "")
BRC_LARGER(f16, , "")
BRC_LARGER(bf16, _or_nan, ".NaN")
BRC_LARGER(f16, _or_nan, ".NaN")
#undef BRC_LARGER
#undef BRC_SIGNED
#undef BRC_MAGNITUDE
__device__ __forceinline__ float larger_or_nan(float a, float b)
{
    float m;
    asm("max.NaN.f32 %0, %1, %2;" : "=f"(m) : "f"(a), "f"(b));
    return m;
}
/* On the pipe of multiply-adds, unlike a mask: integer instructions are what casts have too few of. */
__device__ __forceinline__ uint32_t magnitude_bf16(uint32_t a)
{
    uint32_t m;
    asm("abs.bf16x2 %0, %1;" : "=r"(m) : "r"(a));
    return m;
}
__device__ __forceinline__ uint32_t magnitude_f16(uint32_t a)
{
    uint32_t m;
    asm("abs.f16x2 %0, %1;" : "=r"(m) : "r"(a));
    return m;
}

__device__ __forceinline__ uint32_t bf16_pair(float low, float high)
{
    uint32_t p;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(p) : "f"(high), "f"(low));
    return p;
}
__device__ __forceinline__ uint32_t f16_pair(float low, float high)
{
    uint32_t p;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(p) : "f"(high), "f"(low));
    return p;
}
/* 1 / x, correctly rounded, for 2^-120 < |x| < 2^120: what __frcp_rn does without its look at the range. */
__device__ __forceinline__ float reciprocal(float x)
{
    float r;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(x));
    return __fmaf_rn(r, __fmaf_rn(-x, r, 1.0f), r);
}
/* (a & mask) ^ change in one instruction, which the compiler does not find where both are constants. */
__device__ __forceinline__ uint32_t masked_xor(uint32_t a, uint32_t mask, uint32_t change)
{
    uint32_t d;
    asm("lop3.b32 %0, %1, %2, %3, 0x6A;" : "=r"(d) : "r"(a), "r"(mask), "r"(change));
    return d;
}
/* a * b + c of pairs, rounded once. */
__device__ __forceinline__ uint32_t bf16_multiply_add(uint32_t a, uint32_t b, uint32_t c)
{
    uint32_t m;
    asm("fma.rn.bf16x2 %0, %1, %2, %3;" : "=r"(m) : "r"(a), "r"(b), "r"(c));
    return m;
}
__device__ __forceinline__ uint32_t f16_multiply_add(uint32_t a, uint32_t b, uint32_t c)
{
    uint32_t m;
    asm("fma.rn.f16x2 %0, %1, %2, %3;" : "=r"(m) : "r"(a), "r"(b), "r"(c));
    return m;
}

#if __CUDA_ARCH__ >= 890

/* Nearest even, saturating; NaN becomes 0x7F. */
__device__ __forceinline__ uint16_t e4m3_of(float low, float high)
{
    uint16_t c;
    asm("cvt.rn.satfinite.e4m3x2.f32 %0, %1, %2;" : "=h"(c) : "f"(high), "f"(low));
    return c;
}
__device__ __forceinline__ uint16_t e5m2_of(float low, float high)
{
    uint16_t c;
    asm("cvt.rn.satfinite.e5m2x2.f32 %0, %1, %2;" : "=h"(c) : "f"(high), "f"(low));
    return c;
}
__device__ __forceinline__ float2 floats_of_e4m3(uint16_t c)
{
    uint32_t h;
    asm("cvt.rn.f16x2.e4m3x2 %0, %1;" : "=r"(h) : "h"(c));
    return __half22float2(reinterpret_cast<__half2 &>(h));
}
__device__ __forceinline__ float2 floats_of_e5m2(uint16_t c)
{
    uint32_t h;
    asm("cvt.rn.f16x2.e5m2x2 %0, %1;" : "=r"(h) : "h"(c));
    return __half22float2(reinterpret_cast<__half2 &>(h));
}

#else

/* Nearest even in integers: below the smallest normal number the steps are counted by an addition, above it the fraction is
 * cut with its carry. TOP: code of the largest number. */
template <int MANTISSA, int BIAS, uint32_t TOP> __device__ __forceinline__ uint32_t fp8_of(float x)
{
    const uint32_t bits = __float_as_uint(x), magnitude = bits & 0x7FFFFFFFu;
    if (magnitude > 0x7F800000u) return 0x7F;
    uint32_t code;
    if (magnitude < (128u - BIAS) << 23) {
        const uint32_t steps = (127u + 23 - BIAS - MANTISSA + 1) << 23;         /* a float whose last bit is one step */
        code = __float_as_uint(__fadd_rn(__uint_as_float(magnitude), __uint_as_float(steps))) - steps;
    } else {
        const uint32_t cut = 23 - MANTISSA, up = (1u << (cut - 1)) - 1 + (magnitude >> cut & 1);
        code = ((magnitude + up) >> cut) - ((127u - BIAS) << MANTISSA);
    }
    return min(code, TOP) | (bits >> 24 & 0x80u);
}
__device__ __forceinline__ uint16_t e4m3_of(float low, float high)
{
    return static_cast<uint16_t>(fp8_of<3, 7, 0x7E>(low) | fp8_of<3, 7, 0x7E>(high) << 8);
}
__device__ __forceinline__ uint16_t e5m2_of(float low, float high)
{
    return static_cast<uint16_t>(fp8_of<2, 15, 0x7B>(low) | fp8_of<2, 15, 0x7B>(high) << 8);
}
/* E5M2 is the upper byte of an F16. E4M3's bits there are its value times 2^-8. */
__device__ __forceinline__ float2 floats_of_e5m2(uint16_t c)
{
    const uint32_t h = __byte_perm(c, 0, 0x1404);
    return __half22float2(reinterpret_cast<const __half2 &>(h));
}
__device__ __forceinline__ float e4m3_float(uint32_t c)
{
    const uint16_t h = static_cast<uint16_t>((c & 0x80u) << 8 | (c & 0x7Fu) << 7);
    return (c & 0x7Fu) == 0x7Fu ? __uint_as_float(0x7FC00000u) : __half2float(__ushort_as_half(h)) * 256.0f;
}
__device__ __forceinline__ float2 floats_of_e4m3(uint16_t c) { return make_float2(e4m3_float(c & 0xFFu), e4m3_float(c >> 8)); }

#endif

/* The same, which the compiler does not know. */
__device__ __forceinline__ uint4 opaque(uint4 v)
{
    asm volatile("" : "+r"(v.x), "+r"(v.y), "+r"(v.z), "+r"(v.w));
    return v;
}

/* Programmatic dependent launch: nothing of the previous kernel may be read before. */
__device__ __forceinline__ void previous_grid_wait()
{
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

}  // namespace brc
