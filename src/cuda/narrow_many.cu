/* SPDX-License-Identifier: Apache-2.0
 *
 * The NARROW_MANY rows of narrow.def. */
#include "narrow_many.cuh"

namespace brc {
template <int CODES, int SCALES, int GROUP> struct Weights {
    using BF16 = NarrowWeights<CODES, SCALES, GROUP, true>;
    using F16 = NarrowWeights<CODES, SCALES, GROUP, false>;
    using E4M3 = NarrowWeights8<CODES, SCALES>;
};
}

#define NARROW_FEW(...)
#define NARROW_MANY(codes, scales, group, a, nb, mw, wgs)                                                                              \
    extern "C" __global__ void __launch_bounds__(brci_many_threads(wgs), 1)                                                                 \
    narrow_many_##codes##_##scales##_##group##_##a##_##nb##_##mw(const __grid_constant__ brci_narrow_args g)                      \
    {                                                                                                                             \
        brc::narrow_many<brc::Weights<BRCI_CODES_##codes, BRCI_SCALES_##scales, group>::a, nb, mw, wgs>(g);                           \
    }
#include "narrow.def"
