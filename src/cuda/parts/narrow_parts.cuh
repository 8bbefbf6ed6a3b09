/* SPDX-License-Identifier: Apache-2.0
 *
 * What the kernels for packed narrow weights take from the hardware: tests/cuda/emulated has the same for an ordinary processor. */
#pragma once
#ifdef BRC_EMULATED
#include BRC_EMULATED
#else
#include "barrier.cuh"
#include "bulk.cuh"
#include "mma.cuh"
#include "pairs.cuh"
#include "store.cuh"
#include "tma.cuh"
#include "wgmma.cuh"
#include "wgmma_rs.cuh"

namespace brc {

/* Where the block's dynamic shared memory starts; opaque, or the compiler derives it anew at every stage. */
__device__ __forceinline__ uint32_t shared_base()
{
    extern __shared__ __align__(1024) uint8_t shared[];
    uint32_t base;
    asm volatile("mov.u32 %0, %1;" : "=r"(base) : "r"(shared_address(shared)));
    return __shfl_sync(~0u, base, 0);
}

}  // namespace brc
#endif
