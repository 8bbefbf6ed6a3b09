/* SPDX-License-Identifier: Apache-2.0
 *
 * What the cast kernels (src/cuda/casts.cu) take from CUDA, for an ordinary processor: a kernel's threads are fibers that
 * take turns at shuffles and barriers. The arithmetic, the indices and the order of operations are the kernels' own; the
 * FP8 conversions are those of the library's codec. Included in place of the hardware's part of convert.cuh. */
#pragma once
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime_api.h>
#include <stdint.h>
#include <string.h>
#include <vector_functions.h>
#include <vector_types.h>

#include <algorithm>
#include <cmath>

#undef __shared__
#undef __forceinline__
#undef __grid_constant__
#undef __launch_bounds__
#define __shared__ static          /* blocks run one after another */
#define __forceinline__ inline
#define __grid_constant__
#define __launch_bounds__(...)
#define __syncthreads emulated_barrier
#define fmaxf emulated_max         /* the hardware's treats signalling NaN as any NaN */

using std::max;
using std::min;

struct emulated_index { unsigned x; };
extern emulated_index threadIdx, blockIdx, blockDim, gridDim;
void emulated_barrier();
uint32_t emulated_from_lane(uint32_t v, unsigned lane);
uint32_t emulated_largest(uint32_t v);
inline unsigned emulated_lane() { return threadIdx.x % 32; }
uint16_t emulated_encode(int format, float low, float high);
float2 emulated_decode(int format, uint16_t codes);

inline uint32_t __shfl_xor_sync(unsigned, uint32_t v, int distance) { return emulated_from_lane(v, emulated_lane() ^ static_cast<unsigned>(distance)); }
inline uint32_t __shfl_up_sync(unsigned, uint32_t v, unsigned distance) { return emulated_from_lane(v, emulated_lane() - min(distance, emulated_lane())); }
inline uint32_t __shfl_down_sync(unsigned, uint32_t v, unsigned distance) { return emulated_from_lane(v, min(emulated_lane() + distance, 31u)); }
inline uint32_t __reduce_max_sync(unsigned, uint32_t v) { return emulated_largest(v); }
inline bool __any_sync(unsigned, bool v) { return emulated_largest(v); }
inline uint32_t __umulhi(uint32_t a, uint32_t b) { return static_cast<uint32_t>(static_cast<uint64_t>(a) * b >> 32); }
inline uint32_t __byte_perm(uint32_t a, uint32_t b, uint32_t select)
{
    const uint64_t both = static_cast<uint64_t>(b) << 32 | a;
    uint32_t r = 0;
    for (int i = 0; i < 4; i++) r |= static_cast<uint32_t>(both >> (select >> (4 * i) & 7) * 8 & 0xFF) << (8 * i);
    return r;
}
inline uint32_t __vminu2(uint32_t a, uint32_t b) { return min(a & 0xFFFFu, b & 0xFFFFu) | min(a >> 16, b >> 16) << 16; }
inline uint32_t __vmaxu2(uint32_t a, uint32_t b) { return max(a & 0xFFFFu, b & 0xFFFFu) | max(a >> 16, b >> 16) << 16; }
inline uint32_t __viaddmin_u16x2(uint32_t a, uint32_t b, uint32_t c)
{
    return min(((a & 0xFFFFu) + (b & 0xFFFFu)) & 0xFFFFu, c & 0xFFFFu) | min(((a >> 16) + (b >> 16)) & 0xFFFFu, c >> 16) << 16;
}
inline float emulated_max(float a, float b) { return a != a ? b : b != b ? a : a > b ? a : b; }
inline uint32_t __float_as_uint(float x) { uint32_t b; memcpy(&b, &x, 4); return b; }
inline float __uint_as_float(uint32_t b) { float x; memcpy(&x, &b, 4); return x; }
inline float __shfl_sync(unsigned, float v, int lane) { return __uint_as_float(emulated_from_lane(__float_as_uint(v), static_cast<unsigned>(lane))); }
inline float __fadd_rn(float a, float b) { volatile float r = a + b; return r; }
inline float __fmul_rn(float a, float b) { volatile float r = a * b; return r; }
inline float __fdiv_rn(float a, float b) { volatile float r = a / b; return r; }
inline float __frcp_rn(float a) { volatile float r = 1.0f / a; return r; }
inline float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
template <class T> inline T __ldg(const T *p) { return *p; }
template <class T> inline void __stcs(T *p, T v) { *p = v; }
inline uint32_t atomicMax(uint32_t *p, uint32_t v) { const uint32_t old = *p; *p = max(old, v); return old; }
inline uint32_t atomicAdd(uint32_t *p, uint32_t v) { const uint32_t old = *p; *p += v; return old; }
inline uint32_t atomicExch(uint32_t *p, uint32_t v) { const uint32_t old = *p; *p = v; return old; }
inline void __threadfence() {}

namespace brc {
inline uint4 load_wide(const void *p) { uint4 v; memcpy(&v, p, sizeof v); return v; }
inline uint32_t load_acquire(const uint32_t *p) { return *p; }
inline uint32_t load_relaxed(const uint32_t *p) { return *p; }
/* Numbers of formats.def. */
inline uint16_t e4m3_of(float low, float high) { return emulated_encode(5, low, high); }
inline uint16_t e5m2_of(float low, float high) { return emulated_encode(6, low, high); }
inline float2 floats_of_e4m3(uint16_t c) { return emulated_decode(5, c); }
inline float2 floats_of_e5m2(uint16_t c) { return emulated_decode(6, c); }

/* Of two sixteen-bit magnitudes with infinity at TOP: a number before a NaN. */
template <uint32_t TOP> inline uint32_t larger_number(uint32_t a, uint32_t b) { return a > TOP ? b : b > TOP ? a : max(a, b); }
template <uint32_t TOP> inline uint32_t larger_pair(uint32_t a, uint32_t b)
{
    return larger_number<TOP>(a & 0xFFFFu, b & 0xFFFFu) | larger_number<TOP>(a >> 16, b >> 16) << 16;
}
inline uint32_t magnitude_bf16(uint32_t a) { return a & 0x7FFF7FFFu; }
inline uint32_t magnitude_f16(uint32_t a) { return a & 0x7FFF7FFFu; }
/* The sign means nothing: it is that of the product. */
template <uint32_t TOP> inline uint32_t larger_magnitude(uint32_t a, uint32_t b)
{
    return larger_pair<TOP>(a & 0x7FFF7FFFu, b & 0x7FFF7FFFu) | ((a ^ b) & 0x80008000u);
}
template <bool SIGNED> inline uint32_t larger_bf16(uint32_t a, uint32_t b) { return SIGNED ? larger_magnitude<0x7F80>(a, b) : larger_pair<0x7F80>(a, b); }
template <bool SIGNED> inline uint32_t larger_f16(uint32_t a, uint32_t b) { return SIGNED ? larger_magnitude<0x7C00>(a, b) : larger_pair<0x7C00>(a, b); }
inline uint32_t bf16_pair(float low, float high) { return __bfloat16_as_ushort(__float2bfloat16_rn(low)) | static_cast<uint32_t>(__bfloat16_as_ushort(__float2bfloat16_rn(high))) << 16; }
inline uint32_t f16_pair(float low, float high) { return __half_as_ushort(__float2half_rn(low)) | static_cast<uint32_t>(__half_as_ushort(__float2half_rn(high))) << 16; }
template <uint32_t TOP> inline uint32_t larger_pair_or_nan(uint32_t a, uint32_t b)
{
    const uint32_t m = __vmaxu2(a, b);
    return ((m & 0xFFFFu) > TOP ? 0x7FFFu : m & 0xFFFFu) | (m >> 16 > TOP ? 0x7FFFu : m >> 16) << 16;
}
template <bool SIGNED> inline uint32_t larger_or_nan_bf16(uint32_t a, uint32_t b) { return larger_pair_or_nan<0x7F80>(SIGNED ? a & 0x7FFF7FFFu : a, SIGNED ? b & 0x7FFF7FFFu : b); }
template <bool SIGNED> inline uint32_t larger_or_nan_f16(uint32_t a, uint32_t b) { return larger_pair_or_nan<0x7C00>(SIGNED ? a & 0x7FFF7FFFu : a, SIGNED ? b & 0x7FFF7FFFu : b); }
inline float larger_or_nan(float a, float b) { return a != a || b != b ? __uint_as_float(0x7FFFFFFFu) : max(a, b); }
inline float reciprocal(float x) { return __frcp_rn(x); }
/* In double: exact for sixteen-bit operands, so that one rounding remains. */
inline uint32_t bf16_multiply_add(uint32_t a, uint32_t b, uint32_t c)
{
    uint32_t r = 0;
    for (int i = 0; i < 32; i += 16) {
        auto value = [i](uint32_t w) { return static_cast<double>(__uint_as_float(w >> i << 16)); };
        const double exact = value(a) * value(b) + value(c);
        float f = static_cast<float>(exact);                            /* to odd, so that the second rounding is the only one */
        if (static_cast<double>(f) != exact && !(__float_as_uint(f) & 1)) f = __uint_as_float(__float_as_uint(f) + ((std::fabs(static_cast<double>(f)) < std::fabs(exact)) ? 1 : -1));
        r |= static_cast<uint32_t>(__bfloat16_as_ushort(__float2bfloat16_rn(f))) << i;
    }
    return r;
}
inline uint32_t f16_multiply_add(uint32_t a, uint32_t b, uint32_t c)
{
    const float2 x = __half22float2(reinterpret_cast<const __half2 &>(a)), y = __half22float2(reinterpret_cast<const __half2 &>(b)), z = __half22float2(reinterpret_cast<const __half2 &>(c));
    const __half2 h = __floats2half2_rn(x.x * y.x + z.x, x.y * y.y + z.y);     /* exact in float where it is used */
    return reinterpret_cast<const uint32_t &>(h);
}
inline uint4 opaque(uint4 v) { return v; }
inline uint32_t masked_xor(uint32_t a, uint32_t mask, uint32_t change) { return (a & mask) ^ change; }
inline void previous_grid_wait() {}
}  // namespace brc
