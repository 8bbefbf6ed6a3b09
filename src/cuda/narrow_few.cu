/* SPDX-License-Identifier: Apache-2.0
 *
 * The NARROW_FEW rows of narrow.def. */
#include "narrow_few.cuh"

namespace brc {
template <int CODES, int SCALES, int GROUP> struct FewWeights {
    using BF16 = NarrowWeights<CODES, SCALES, GROUP, true>;
    using F16 = NarrowWeights<CODES, SCALES, GROUP, false>;
    using E4M3 = NarrowWeights8<CODES, SCALES>;
};
}

#define NARROW_FEW(codes, scales, group, a, nb)                                                                               \
    extern "C" __global__ void __launch_bounds__(BRCI_FEW_THREADS, 1)                                                        \
    narrow_few_##codes##_##scales##_##group##_##a##_##nb(const __grid_constant__ brci_narrow_args g)                              \
    {                                                                                                                             \
        brc::narrow_few<brc::FewWeights<BRCI_CODES_##codes, BRCI_SCALES_##scales, group>::a, nb>(g);                 \
    }
#define NARROW_MANY(...)
#include "narrow.def"
