/* SPDX-License-Identifier: Apache-2.0
 *
 * Largest magnitudes over lanes and threads. */
#pragma once
#include "convert.cuh"

namespace brc {

/* LANES neighbouring lanes share N blocks, of which every lane has seen its part: m[a] of block a. By halves each lane gives
 * away the blocks of the other half, so that in the end a lane has N / LANES whole blocks in front of m, or one of them is in
 * several lanes. */
template <int LANES, int N> struct Shared {
    static constexpr int OWN = N > LANES ? N / LANES : 1, LEAST = N < LANES ? N : LANES,
                         SPLITS = LEAST == 1 ? 0 : LEAST == 2 ? 1 : LEAST == 4 ? 2 : 3;
    static_assert(N == 1 || N == 2 || N == 4 || N == 8, "");

    template <class M> static __device__ __forceinline__ void reduce(uint32_t (&m)[N])
    {
        const int lane = threadIdx.x % 32;
#pragma unroll
        for (int s = 0, have = N; LANES >> (s + 1) > 0; s++) {
            const int d = LANES >> (s + 1);
            if (s < SPLITS) {
                have /= 2;
                const bool upper = lane & d;
#pragma unroll
                for (int i = 0; i < have; i++) {
                    const uint32_t other = __shfl_xor_sync(~0u, upper ? m[i] : m[i + have], d);
                    m[i] = M::larger(upper ? m[i + have] : m[i], other);
                }
            } else m[0] = M::larger(m[0], __shfl_xor_sync(~0u, m[0], d));
        }
    }
    /* The block in m[i] of this lane; the lanes that hold it write its scale by the first. */
    static __device__ __forceinline__ int block(int i)
    {
        int a = i;
#pragma unroll
        for (int s = 0; s < SPLITS; s++) a += threadIdx.x & (LANES >> (s + 1)) ? N >> (s + 1) : 0;
        return a;
    }
    static __device__ __forceinline__ bool first() { return !(threadIdx.x & ((LANES >> SPLITS) - 1)); }
    /* What the owner of block a has in v. */
    static __device__ __forceinline__ float of(const float (&v)[OWN], int a)
    {
        int from = threadIdx.x & 31 & ~(LANES - 1);
#pragma unroll
        for (int s = 0; s < SPLITS; s++) from += a & (N >> (s + 1)) ? LANES >> (s + 1) : 0;
        return __shfl_sync(~0u, v[a % OWN], from);
    }
};

/* Of the whole block of threads, a float's bits; every thread gets it. */
__device__ __forceinline__ float over_threads(float amax)
{
    __shared__ uint32_t part[32];
    uint32_t m = __reduce_max_sync(~0u, __float_as_uint(amax));
    if (threadIdx.x % 32 == 0) part[threadIdx.x / 32] = m;
    __syncthreads();
    m = __reduce_max_sync(~0u, threadIdx.x % 32 < blockDim.x / 32 ? part[threadIdx.x % 32] : 0u);
    __syncthreads();
    return __uint_as_float(m);
}

}  // namespace brc
