/* SPDX-License-Identifier: Apache-2.0
 *
 * The NARROW_MANY rows of narrow.def. */
#include "narrow_many.cuh"

namespace brc {
constexpr bool IS_BF16 = true, IS_F16 = false;
}

#define NARROW_FEW(...)
#define NARROW_MANY(codes, scales, group, a, nb, mw)                                                                              \
    extern "C" __global__ void __launch_bounds__(BRCI_THREADS, 1)                                                                 \
    narrow_many_##codes##_##scales##_##group##_##a##_##nb##_##mw(const __grid_constant__ brci_narrow_args g)                      \
    {                                                                                                                             \
        brc::narrow_many<brc::NarrowWeights<BRCI_CODES_##codes, BRCI_SCALES_##scales, group, brc::IS_##a>, nb, mw>(g);            \
    }
#include "narrow.def"
