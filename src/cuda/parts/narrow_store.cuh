/* SPDX-License-Identifier: Apache-2.0
 *
 * The end of a product with packed weights: sums of four neighbouring rows of weights for one token to D. */
#pragma once
#include "../arguments.h"
#include "narrow_parts.cuh"

namespace brc {

__device__ __forceinline__ void store_four(const brci_narrow_args &g, int token, int n, float4 factor, float (&x)[4])
{
    x[0] *= factor.x; x[1] *= factor.y; x[2] *= factor.z; x[3] *= factor.w;
    if (g.token_factor) {
        const float t = __ldg(g.token_factor + token * g.token_stride);
        x[0] *= t; x[1] *= t; x[2] *= t; x[3] *= t;
    }
    const int64_t to = token * g.ldd + n;
    if (g.bias)
#pragma unroll
        for (int j = 0; j < 4; j++) x[j] += read_any(g.bias, min(n + j, g.n - 1), g.bias_type);
    if (g.wide && n + 4 <= g.n) {
        const int bf16 = g.out == BRCI_OUT_BF16;
        *reinterpret_cast<uint2 *>(static_cast<uint16_t *>(g.d) + to) = make_uint2(pack16(x[0], x[1], bf16), pack16(x[2], x[3], bf16));
        return;
    }
    for (int j = 0; j < 4 && n + j < g.n; j++) {
        if (g.accumulate) x[j] += read_any(g.d, to + j, g.out);
        write_any(g.d, to + j, g.out, x[j]);
    }
}

/* Factors of four rows. */
__device__ __forceinline__ float4 row_factors(const brci_narrow_args &g, int n) { return __ldg(reinterpret_cast<const float4 *>(g.row_factor + n)); }

}  // namespace brc
