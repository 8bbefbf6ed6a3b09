/* SPDX-License-Identifier: Apache-2.0
 *
 * D[m, n] = A[m, K] * B[n, K]^T for what the tensor copies cannot address: a K or pitch that is no multiple of 16 bytes,
 * unaligned pointers, K = 0. One block a 64x64 tile, products in FP32 on the ordinary cores; two orders slower. */
#pragma once
#include <cuda_fp16.h>
#include <cuda_fp8.h>

#include "arguments.h"
#include "parts/store.cuh"

namespace brc {

__device__ __forceinline__ float decode_fp8(uint8_t code, int e5m2)
{
    return __half2float(static_cast<__half>(__nv_cvt_fp8_to_halfraw(code, e5m2 ? __NV_E5M2 : __NV_E4M3)));
}

/* The rows of tile row0.., of several products: their product, or -1 if there are none; where they are in A and D. */
struct PlainRows { int product, weights; int64_t first, end; };

__device__ __forceinline__ PlainRows plain_rows(const brci_plain_args &g, int64_t row0)
{
    const int z = blockIdx.z;
    if (g.grouping == BRCI_GROUPS_BATCH) return {z, z, row0, g.m};
    auto entry = [&](int64_t i) { return min(max(g.group_rows[i], 0), g.m); };
    if (g.grouping == BRCI_GROUPS_MASKED) return {row0 < entry(z) ? z : -1, z, row0, entry(z)};
    if (g.grouping == BRCI_GROUPS_RAGGED) {
        const int start = z ? entry(z - 1) : 0;
        return {start + row0 < entry(z) ? 0 : -1, z, start + row0, entry(z)};
    }
    const int weights = g.group_rows[row0 / 128 * 128];
    return {weights >= 0 && weights < g.groups ? 0 : -1, weights, row0, g.m};
}

/* scaling: 0 per tensor, 1 per row, 2 blocks of 1x128 and 128x128, 3 blocks of 1x128 on both sides. */
__device__ __forceinline__ void gemm_plain(const brci_plain_args &g)
{
    __shared__ float a[32][65], b[32][65];
    const int x = threadIdx.x % 16, y = threadIdx.x / 16;
    const PlainRows rows = plain_rows(g, blockIdx.y * 64ll);
    if (rows.product < 0) return;
    const int64_t row0 = rows.first, col0 = blockIdx.x * 64ll;
    const bool scaled = g.scaling >= 2;
    const uint8_t *from_a = g.a + rows.product * g.a_step, *from_b = g.b + rows.weights * g.b_step;
    const float *row_scale = g.row_scale + rows.product * g.row_step, *col_scale = g.col_scale + rows.weights * g.col_step;
    const int64_t to_d = rows.product * g.d_step, of_bias = static_cast<int64_t>(rows.weights) * g.n;
    float sum[4][4] = {}, part[4][4] = {};
    for (int k0 = 0; k0 < g.k; k0 += 32) {
        for (int e = threadIdx.x; e < 64 * 32; e += 256) {
            const int k = e % 32, r = e / 32;
            const bool in = k0 + k < g.k;
            a[k][r] = in && row0 + r < rows.end ? decode_fp8(from_a[(row0 + r) * g.lda + k0 + k], g.a_e5m2) : 0.0f;
            b[k][r] = in && col0 + r < g.n ? decode_fp8(from_b[(col0 + r) * g.ldb + k0 + k], g.b_e5m2) : 0.0f;
        }
        __syncthreads();
        for (int k = 0; k < 32; k++)
#pragma unroll
            for (int i = 0; i < 4; i++)
#pragma unroll
                for (int j = 0; j < 4; j++) part[i][j] += a[k][y + 16 * i] * b[k][x + 16 * j];
        __syncthreads();
        if ((k0 + 32) % 128 && k0 + 32 < g.k) continue;
        const int kb = k0 / 128;
#pragma unroll
        for (int i = 0; i < 4; i++)
#pragma unroll
            for (int j = 0; j < 4; j++) {
                const int64_t r = min(row0 + y + 16 * i, rows.end - 1), c = min(col0 + x + 16 * j, static_cast<int64_t>(g.n) - 1);
                float s = 1.0f;
                if (scaled) s = row_scale[kb * g.row_pitch + r] * (g.scaling == 2 ? col_scale[c / 128 * g.col_pitch + kb] : col_scale[kb * g.col_pitch + c]);
                sum[i][j] += part[i][j] * s;
                part[i][j] = 0.0f;
            }
    }
    for (int i = 0; i < 4; i++)
        for (int j = 0; j < 4; j++) {
            const int64_t r = row0 + y + 16 * i, c = col0 + x + 16 * j;
            if (r >= rows.end || c >= g.n) continue;
            float v = sum[i][j];
            if (!scaled) v *= row_scale[r * g.row_stride] * col_scale[c * g.col_stride];
            if (g.bias) v += read_any(g.bias, of_bias + c, g.bias_type);
            const int64_t to = to_d + r * g.ldd + c;
            if (g.accumulate) v += read_any(g.d, to, g.out);
            write_any(g.d, to, g.out, v);
        }
}

}  // namespace brc
