/* SPDX-License-Identifier: Apache-2.0
 *
 * Elements to floats and back, eight at a time: the unit of every cast, 16 bytes of a sixteen-bit type.
 * Rounding, saturation and NaN are those of docs/numerics.md; compile with -ftz=false -prec-div=true -fmad=false. */
#pragma once
#include <stdint.h>

#include <type_traits>

/* What the hardware does, behind functions: tests/cuda/emulated has the same for an ordinary processor. */
#ifdef BRC_EMULATED
#include BRC_EMULATED
#else
#include <cuda_bf16.h>
#include <cuda_fp16.h>

namespace brc {

__device__ __forceinline__ uint4 load_stream(const void *p)
{
    uint4 v;
    asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];" : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w) : "l"(p));
    return v;
}

__device__ __forceinline__ uint2 load_stream8(const void *p)
{
    uint2 v;
    asm volatile("ld.global.nc.L1::no_allocate.v2.u32 {%0, %1}, [%2];" : "=r"(v.x), "=r"(v.y) : "l"(p));
    return v;
}

__device__ __forceinline__ uint32_t load_acquire(const uint32_t *p)
{
    uint32_t v;
    asm volatile("ld.acquire.gpu.u32 %0, [%1];" : "=r"(v) : "l"(p) : "memory");
    return v;
}

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

/* Programmatic dependent launch: nothing of the previous kernel may be read before. */
__device__ __forceinline__ void previous_grid_wait() { asm volatile("griddepcontrol.wait;" ::: "memory"); }

}  // namespace brc
#endif

namespace brc {

struct F32 { using word = float; static constexpr float MAX = 3.4028234663852886e38f; };
struct F16 { using word = __half; static constexpr float MAX = 65504.0f; };
struct BF16 { using word = __nv_bfloat16; static constexpr float MAX = 3.3895313892515355e38f; };

/* Eight numbers as they lie in memory; raw, so that several loads can be under way before the first is used. */
template <class T> struct Raw { uint4 v[sizeof(typename T::word) / 2]; };

template <class T> __device__ __forceinline__ Raw<T> load_raw(const typename T::word *p)
{
    Raw<T> r;
#pragma unroll
    for (int i = 0; i < int(sizeof r / 16); i++) r.v[i] = load_stream(reinterpret_cast<const uint4 *>(p) + i);
    return r;
}

/* The same from any address, only `count` of them; the rest is zero. */
template <class T> __device__ __forceinline__ Raw<T> load_some(const typename T::word *p, int count)
{
    Raw<T> r;
    uint32_t w[sizeof r / 4];
#pragma unroll
    for (int i = 0; i < int(sizeof r / 4); i++) {
        if constexpr (sizeof(typename T::word) == 4) w[i] = i < count ? __ldg(reinterpret_cast<const uint32_t *>(p) + i) : 0;
        else {
            const auto *q = reinterpret_cast<const uint16_t *>(p) + 2 * i;
            w[i] = (2 * i < count ? __ldg(q) : 0) | (2 * i + 1 < count ? static_cast<uint32_t>(__ldg(q + 1)) << 16 : 0);
        }
    }
#pragma unroll
    for (int i = 0; i < int(sizeof r / 16); i++) r.v[i] = make_uint4(w[4 * i], w[4 * i + 1], w[4 * i + 2], w[4 * i + 3]);
    return r;
}

__device__ __forceinline__ void floats_of(const Raw<F32> &r, float (&x)[8])
{
#pragma unroll
    for (int i = 0; i < 2; i++) {
        x[4 * i] = __uint_as_float(r.v[i].x); x[4 * i + 1] = __uint_as_float(r.v[i].y);
        x[4 * i + 2] = __uint_as_float(r.v[i].z); x[4 * i + 3] = __uint_as_float(r.v[i].w);
    }
}

__device__ __forceinline__ void floats_of(const Raw<BF16> &r, float (&x)[8])
{
    const uint32_t w[4] = {r.v[0].x, r.v[0].y, r.v[0].z, r.v[0].w};
#pragma unroll
    for (int i = 0; i < 4; i++) {
        x[2 * i] = __uint_as_float(w[i] << 16);
        x[2 * i + 1] = __uint_as_float(w[i] & 0xFFFF0000u);
    }
}

__device__ __forceinline__ void floats_of(const Raw<F16> &r, float (&x)[8])
{
    const uint32_t w[4] = {r.v[0].x, r.v[0].y, r.v[0].z, r.v[0].w};
#pragma unroll
    for (int i = 0; i < 4; i++) {
        const float2 f = __half22float2(reinterpret_cast<const __half2 &>(w[i]));
        x[2 * i] = f.x;
        x[2 * i + 1] = f.y;
    }
}

/* ---- elements. Codes of eight elements in the low 8 * BITS bits of a word, the first lowest. */

struct E4M3 {
    static constexpr int BITS = 8;
    static constexpr float MAX = 448.0f, REACH = 448.0f;
    static __device__ __forceinline__ uint32_t two(float low, float high) { return e4m3_of(low, high); }
    static __device__ __forceinline__ float2 floats(uint16_t c) { return floats_of_e4m3(c); }
};

struct E5M2 {
    static constexpr int BITS = 8;
    static constexpr float MAX = 57344.0f, REACH = 57344.0f;
    static __device__ __forceinline__ uint32_t two(float low, float high) { return e5m2_of(low, high); }
    static __device__ __forceinline__ float2 floats(uint16_t c) { return floats_of_e5m2(c); }
};

/* Small floats without infinity or NaN: a code counts the steps of its binade, so that subnormals and the carry into the
 * next exponent come out by themselves. NaN becomes +0. */
template <int EXPONENT, int MANTISSA, int TOP_CODE> struct SmallFloat {
    static constexpr int BITS = 1 + EXPONENT + MANTISSA, BIAS = (1 << (EXPONENT - 1)) - 1;
    static __device__ __forceinline__ uint32_t one(float x)
    {
        const uint32_t bits = __float_as_uint(x), magnitude = bits & 0x7FFFFFFFu;
        if (magnitude > 0x7F800000u) return 0;
        const uint32_t field = min(max(static_cast<int>(magnitude >> 23), 128 - BIAS), 127 + BIAS + 2);
        const float steps = rintf(fminf(__uint_as_float(magnitude), 1024.0f) * __uint_as_float((254u + MANTISSA - field) << 23));
        const uint32_t code = ((field + BIAS - 128u) << MANTISSA) + static_cast<uint32_t>(steps);
        return min(code, static_cast<uint32_t>(TOP_CODE)) | (bits >> 31 << (BITS - 1));
    }
    static __device__ __forceinline__ float value(uint32_t c)
    {
        const uint32_t magnitude = c & ((1u << (BITS - 1)) - 1), field = magnitude >> MANTISSA, fraction = magnitude & ((1u << MANTISSA) - 1);
        const float v = field ? __uint_as_float((field + 127 - BIAS) << 23 | fraction << (23 - MANTISSA))
                              : static_cast<float>(fraction) * __uint_as_float((128u - BIAS - MANTISSA) << 23);
        return c >> (BITS - 1) & 1 ? -v : v;
    }
};
struct E3M2 : SmallFloat<3, 2, 31> { static constexpr float MAX = 28.0f, REACH = 28.0f; };
struct E2M3 : SmallFloat<2, 3, 31> { static constexpr float MAX = 7.5f, REACH = 7.5f; };
struct E2M1 : SmallFloat<2, 1, 7> { static constexpr float MAX = 6.0f, REACH = 6.0f; };

/* Two's complement; the reach is half the code range. NaN becomes 0. */
template <int BITS_> struct Integer {
    static constexpr int BITS = BITS_;
    static constexpr float MAX = (1 << (BITS - 1)) - 1, REACH = MAX + 0.5f;
    static __device__ __forceinline__ uint32_t one(float x)
    {
        const float y = x == x ? fminf(fmaxf(rintf(x), -MAX - 1.0f), MAX) : 0.0f;
        return static_cast<uint32_t>(static_cast<int32_t>(y)) & ((1u << BITS) - 1);
    }
    static __device__ __forceinline__ float value(uint32_t c) { return static_cast<float>(static_cast<int32_t>(c << (32 - BITS)) >> (32 - BITS)); }
};
struct INT4 : Integer<4> {};
struct INT8 : Integer<8> {};

template <class E> __device__ __forceinline__ uint64_t encode_eight(const float (&y)[8])
{
    uint64_t codes = 0;
#pragma unroll
    for (int i = 0; i < 8; i += 2) {
        if constexpr (std::is_same_v<E, E4M3> || std::is_same_v<E, E5M2>)
            codes |= static_cast<uint64_t>(E::two(y[i], y[i + 1])) << (8 * i);
        else
            codes |= static_cast<uint64_t>(E::one(y[i]) | E::one(y[i + 1]) << E::BITS) << (E::BITS * i);
    }
    return codes;
}

template <class E> __device__ __forceinline__ void decode_eight(uint64_t codes, float (&e)[8])
{
#pragma unroll
    for (int i = 0; i < 8; i += 2) {
        if constexpr (std::is_same_v<E, E4M3> || std::is_same_v<E, E5M2>) {
            const float2 f = E::floats(static_cast<uint16_t>(codes >> (8 * i)));
            e[i] = f.x;
            e[i + 1] = f.y;
        } else {
            const uint32_t two = static_cast<uint32_t>(codes >> (E::BITS * i));
            e[i] = E::value(two & ((1u << E::BITS) - 1));
            e[i + 1] = E::value(two >> E::BITS & ((1u << E::BITS) - 1));
        }
    }
}

template <class E> __device__ __forceinline__ float decode_one(uint64_t codes)
{
    if constexpr (std::is_same_v<E, E4M3> || std::is_same_v<E, E5M2>) return E::floats(static_cast<uint16_t>(codes & 0xFF)).x;
    else return E::value(static_cast<uint32_t>(codes) & ((1u << E::BITS) - 1));
}

/* Eight codes are BITS bytes. */
template <int BITS> __device__ __forceinline__ void store_codes(uint8_t *p, uint64_t codes, bool wide, int count)
{
    if (wide) {
        if constexpr (BITS == 8) __stcs(reinterpret_cast<uint2 *>(p), make_uint2(static_cast<uint32_t>(codes), static_cast<uint32_t>(codes >> 32)));
        else if constexpr (BITS == 4) __stcs(reinterpret_cast<uint32_t *>(p), static_cast<uint32_t>(codes));
        else
#pragma unroll
            for (int i = 0; i < 3; i++) reinterpret_cast<uint16_t *>(p)[i] = static_cast<uint16_t>(codes >> (16 * i));
        return;
    }
    if (count < 8) codes &= (1ull << (count * BITS)) - 1;          /* padding bits are 0 */
#pragma unroll
    for (int i = 0; i < BITS; i++)
        if (8 * i < count * BITS) p[i] = static_cast<uint8_t>(codes >> (8 * i));
}

template <int BITS> __device__ __forceinline__ uint64_t load_codes(const uint8_t *p)
{
    if constexpr (BITS == 8) {
        const uint2 v = load_stream8(p);
        return static_cast<uint64_t>(v.y) << 32 | v.x;
    } else if constexpr (BITS == 4) {
        return __ldg(reinterpret_cast<const uint32_t *>(p));
    } else {
        uint64_t codes = 0;
#pragma unroll
        for (int i = 0; i < 3; i++) codes |= static_cast<uint64_t>(__ldg(reinterpret_cast<const uint16_t *>(p) + i)) << (16 * i);
        return codes;
    }
}

/* Results; NaN becomes the type's canonical one. */
template <class T> __device__ __forceinline__ uint32_t bits_of(float x)
{
    if constexpr (std::is_same_v<T, F32>) return x == x ? __float_as_uint(x) : 0x7FC00000u;
    else if constexpr (std::is_same_v<T, F16>) return x == x ? __half_as_ushort(__float2half_rn(x)) : 0x7E00u;
    else return x == x ? __bfloat16_as_ushort(__float2bfloat16_rn(x)) : 0x7FC0u;
}

template <class T> __device__ __forceinline__ void store_float(typename T::word *p, float x)
{
    if constexpr (std::is_same_v<T, F32>) *p = __uint_as_float(bits_of<T>(x));
    else *reinterpret_cast<uint16_t *>(p) = static_cast<uint16_t>(bits_of<T>(x));
}

/* Eight of them, to a multiple of 16 bytes. */
template <class T> __device__ __forceinline__ void store_floats(typename T::word *p, const float (&x)[8])
{
    uint32_t w[8];
#pragma unroll
    for (int i = 0; i < 8; i++) w[i] = bits_of<T>(x[i]);
    if constexpr (std::is_same_v<T, F32>) {
        __stcs(reinterpret_cast<uint4 *>(p), make_uint4(w[0], w[1], w[2], w[3]));
        __stcs(reinterpret_cast<uint4 *>(p) + 1, make_uint4(w[4], w[5], w[6], w[7]));
    } else
        __stcs(reinterpret_cast<uint4 *>(p), make_uint4(w[0] | w[1] << 16, w[2] | w[3] << 16, w[4] | w[5] << 16, w[6] | w[7] << 16));
}

}  // namespace brc
