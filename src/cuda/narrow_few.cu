/* SPDX-License-Identifier: Apache-2.0
 *
 * The NARROW_FEW rows of narrow.def. */
#include "narrow_few.cuh"

namespace brc {
constexpr bool IS_BF16 = true, IS_F16 = false;
}

#define NARROW_FEW(codes, scales, group, a, nb)                                                                               \
    extern "C" __global__ void __launch_bounds__(BRCI_FEW_THREADS, 1)                                                        \
    narrow_few_##codes##_##scales##_##group##_##a##_##nb(const __grid_constant__ brci_narrow_args g)                              \
    {                                                                                                                             \
        brc::narrow_few<brc::NarrowWeights<BRCI_CODES_##codes, BRCI_SCALES_##scales, group, brc::IS_##a>, nb>(g);                 \
    }
#define NARROW_MANY(...)
#include "narrow.def"
