/* SPDX-License-Identifier: Apache-2.0
 *
 * Bulk tensor copies, global to shared memory (TMA). PTX ISA 9.0, section "cp.async.bulk.tensor".
 * x counts elements along the contiguous axis, y rows. What lies outside the tensor arrives as zeros, and the barrier
 * always receives the bytes of a full box. */
#pragma once
#include <stdint.h>

namespace brc {

/* Cache policies: what the copy leaves in L2. The encodings are those that createpolicy.fractional produces for fraction 1. */
constexpr uint64_t EVICT_NORMAL = 0x1000000000000000ull, EVICT_FIRST = 0x12F0000000000000ull, EVICT_LAST = 0x14F0000000000000ull;

__device__ __forceinline__ void tma_prefetch_map(const void *map)
{
    asm volatile("prefetch.tensormap [%0];" :: "l"(map) : "memory");
}

__device__ __forceinline__ void tma_load(uint32_t to, const void *map, uint32_t bar, int x, int y)
{
    asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3}], [%4];"
                 :: "r"(to), "l"(map), "r"(x), "r"(y), "r"(bar) : "memory");
}

__device__ __forceinline__ void tma_load(uint32_t to, const void *map, uint32_t bar, int x, int y, uint64_t policy)
{
    asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint "
                 "[%0], [%1, {%2, %3}], [%4], %5;"
                 :: "r"(to), "l"(map), "r"(x), "r"(y), "r"(bar), "l"(policy) : "memory");
}

/* The same from a tensor of three axes. */
__device__ __forceinline__ void tma_load(uint32_t to, const void *map, uint32_t bar, int x, int y, int z)
{
    asm volatile("cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3, %4}], [%5];"
                 :: "r"(to), "l"(map), "r"(x), "r"(y), "r"(z), "r"(bar) : "memory");
}

/* To the same offset, and the barrier at the same offset, in every block of the cluster named in the mask. */
__device__ __forceinline__ void tma_load_shared(uint32_t to, const void *map, uint32_t bar, int x, int y, uint16_t mask)
{
    asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster "
                 "[%0], [%1, {%2, %3}], [%4], %5;"
                 :: "r"(to), "l"(map), "r"(x), "r"(y), "r"(bar), "h"(mask) : "memory");
}

/* A box from shared memory to the tensor; what lies outside it is not written. The writer fences with async_fence first. */
__device__ __forceinline__ void tma_store(const void *map, uint32_t from, int x, int y)
{
    asm volatile("cp.async.bulk.tensor.2d.global.shared::cta.bulk_group [%0, {%1, %2}], [%3];\n"
                 "cp.async.bulk.commit_group;" :: "l"(map), "r"(x), "r"(y), "r"(from) : "memory");
}

__device__ __forceinline__ void tma_store(const void *map, uint32_t from, int x, int y, int z)
{
    asm volatile("cp.async.bulk.tensor.3d.global.shared::cta.bulk_group [%0, {%1, %2, %3}], [%4];\n"
                 "cp.async.bulk.commit_group;" :: "l"(map), "r"(x), "r"(y), "r"(z), "r"(from) : "memory");
}

/* Until at most this many of the thread's stores have not yet been read out of shared memory. */
template <int PENDING> __device__ __forceinline__ void tma_store_wait_read() { asm volatile("cp.async.bulk.wait_group.read %0;" :: "n"(PENDING) : "memory"); }
__device__ __forceinline__ void tma_store_wait() { asm volatile("cp.async.bulk.wait_group 0;" ::: "memory"); }

/* Ordinary writes to shared memory before, the copy engine's reads after. */
__device__ __forceinline__ void async_fence() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

}  // namespace brc
