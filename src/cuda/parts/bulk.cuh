/* SPDX-License-Identifier: Apache-2.0
 *
 * Bulk copies of plain bytes, global to shared memory: addresses and sizes are multiples of 16. PTX ISA 9.0, section "cp.async.bulk". */
#pragma once
#include <stdint.h>

namespace brc {

__device__ __forceinline__ void bulk_load(uint32_t to, const void *from, uint32_t bytes, uint32_t bar, uint64_t policy)
{
    asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint [%0], [%1], %2, [%3], %4;"
                 :: "r"(to), "l"(from), "r"(bytes), "r"(bar), "l"(policy) : "memory");
}

}  // namespace brc
