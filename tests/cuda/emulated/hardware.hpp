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
float emulated_shuffle(float v, int distance);
uint16_t emulated_encode(int format, float low, float high);
float2 emulated_decode(int format, uint16_t codes);

inline float __shfl_xor_sync(unsigned, float v, int distance) { return emulated_shuffle(v, distance); }
inline float emulated_max(float a, float b) { return a != a ? b : b != b ? a : a > b ? a : b; }
inline uint32_t __float_as_uint(float x) { uint32_t b; memcpy(&b, &x, 4); return b; }
inline float __uint_as_float(uint32_t b) { float x; memcpy(&x, &b, 4); return x; }
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
inline uint4 load_stream(const void *p) { uint4 v; memcpy(&v, p, sizeof v); return v; }
inline uint2 load_stream8(const void *p) { uint2 v; memcpy(&v, p, sizeof v); return v; }
inline uint32_t load_acquire(const uint32_t *p) { return *p; }
inline uint16_t e4m3_of(float low, float high) { return emulated_encode(5, low, high); }   /* numbers of formats.def */
inline uint16_t e5m2_of(float low, float high) { return emulated_encode(6, low, high); }
inline float2 floats_of_e4m3(uint16_t c) { return emulated_decode(5, c); }
inline float2 floats_of_e5m2(uint16_t c) { return emulated_decode(6, c); }
inline void previous_grid_wait() {}
}  // namespace brc
