/* SPDX-License-Identifier: Apache-2.0
 *
 * From a warp's 16 rows of FP32 accumulators to D: scales, bias, rounding, and the way to memory.
 * The fragment is that of wgmma.cuh: lane l holds rows l/4 and l/4 + 8, columns 8i + 2(l%4) and + 1. */
#pragma once
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "../arguments.h"
#include "barrier.cuh"

namespace brc {

__device__ __forceinline__ uint32_t pack16(float low, float high, int bf16)
{
    uint32_t p;
    if (bf16) asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(p) : "f"(high), "f"(low));
    else asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(p) : "f"(high), "f"(low));
    return p;
}

__device__ __forceinline__ float read_any(const void *p, int64_t i, int type)
{
    if (type == BRCI_OUT_F32) return static_cast<const float *>(p)[i];
    if (type == BRCI_OUT_F16) return __half2float(static_cast<const __half *>(p)[i]);
    return __bfloat162float(static_cast<const __nv_bfloat16 *>(p)[i]);
}

__device__ __forceinline__ void write_any(void *p, int64_t i, int type, float x)
{
    if (type == BRCI_OUT_F32) static_cast<float *>(p)[i] = x;
    else if (type == BRCI_OUT_F16) static_cast<__half *>(p)[i] = __float2half_rn(x);
    else static_cast<__nv_bfloat16 *>(p)[i] = __float2bfloat16_rn(x);
}

/* d *= row scale * column scale: per tensor (strides 0) or per row and column (strides 1). */
template <int BN>
__device__ __forceinline__ void scale_fragment(const brci_gemm_args &g, float (&d)[BN / 2], int row, int column, int lane)
{
    const int low = min(row + lane / 4, g.m - 1), high = min(row + lane / 4 + 8, g.m - 1);
    const float r0 = __ldg(g.row_scale + low * g.row_stride), r1 = __ldg(g.row_scale + high * g.row_stride);
    if (!g.col_stride) {
        const float c = __ldg(g.col_scale), s0 = r0 * c, s1 = r1 * c;
#pragma unroll
        for (int i = 0; i < BN / 8; i++) {
            d[4 * i] *= s0;
            d[4 * i + 1] *= s0;
            d[4 * i + 2] *= s1;
            d[4 * i + 3] *= s1;
        }
    } else {
#pragma unroll
        for (int i = 0; i < BN / 8; i++) {
            const int at = column + 8 * i + lane % 4 * 2;
            const float c0 = __ldg(g.col_scale + min(at, g.n - 1)), c1 = __ldg(g.col_scale + min(at + 1, g.n - 1));
            d[4 * i] *= r0 * c0;
            d[4 * i + 1] *= r0 * c1;
            d[4 * i + 2] *= r1 * c0;
            d[4 * i + 3] *= r1 * c1;
        }
    }
}

/* Rounds and writes, always through the warp's staging, so that neighbouring lanes write neighbouring addresses.
 * The usual way: sixteen-bit results, 64 columns at a time, 16 bytes a lane and 128 contiguous bytes a row; the 16-byte
 * chunks of a row are XORed with the row, so that neither stmatrix nor the reads back meet a bank twice.
 * The general way, for F32, bias, accumulation and any alignment: 32 columns at a time, one element a lane. */
template <int BN>
__device__ __forceinline__ void store_fragment(const brci_gemm_args &g, float (&d)[BN / 2], int row, int column, int lane, uint32_t staging)
{
    if (g.wide) {
        const int bf16 = g.out == BRCI_OUT_BF16, write_row = lane % 16, read_row = lane / 8, chunk = lane % 8;
#pragma unroll
        for (int at = 0; at < BN; at += 64) {
            const int width = BN - at < 64 ? BN - at : 64;
#pragma unroll
            for (int i = 0; i < width / 16; i++) {
                const float *f = d + (at + 16 * i) / 2;
                const uint32_t to = staging + write_row * 128 + ((2 * i + lane / 16) ^ (write_row & 7)) * 16;
                asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};"
                             :: "r"(to), "r"(pack16(f[0], f[1], bf16)), "r"(pack16(f[2], f[3], bf16)),
                                "r"(pack16(f[4], f[5], bf16)), "r"(pack16(f[6], f[7], bf16)) : "memory");
            }
            __syncwarp();
            const int here = column + at + chunk * 8;
            uint16_t *to = static_cast<uint16_t *>(g.d) + here;
#pragma unroll
            for (int q = 0; q < 4; q++) {
                const int r = q * 4 + read_row;
                uint4 v;
                asm volatile("ld.shared.v4.u32 {%0, %1, %2, %3}, [%4];" : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
                             : "r"(staging + r * 128 + (chunk ^ (r & 7)) * 16) : "memory");
                if (row + r < g.m && here < g.n && chunk * 8 < width)
                    *reinterpret_cast<uint4 *>(to + (row + r) * g.ldd) = v;
            }
            __syncwarp();
        }
        return;
    }
#pragma unroll
    for (int at = 0; at < BN; at += 32) {
        const int width = BN - at < 32 ? BN - at : 32;
        const uint32_t to = staging + lane / 4 * 128 + lane % 4 * 8;
#pragma unroll
        for (int i = 0; i < width / 8; i++) {
            const float *f = d + (at + 8 * i) / 2;
            asm volatile("st.shared.v2.f32 [%0], {%1, %2};" :: "r"(to + i * 32), "f"(f[0]), "f"(f[1]) : "memory");
            asm volatile("st.shared.v2.f32 [%0], {%1, %2};" :: "r"(to + i * 32 + 1024), "f"(f[2]), "f"(f[3]) : "memory");
        }
        __syncwarp();
        const int c = column + at + lane;
        if (c < g.n && lane < width) {
            const float bias = g.bias ? read_any(g.bias, c, g.bias_type) : 0.0f;
#pragma unroll 1
            for (int r = 0; r < 16 && row + r < g.m; r++) {
                float x;
                asm volatile("ld.shared.f32 %0, [%1];" : "=f"(x) : "r"(staging + r * 128 + lane * 4) : "memory");
                if (g.bias) x += bias;
                const int64_t e = (row + r) * g.ldd + c;
                if (g.accumulate) x += read_any(g.d, e, g.out);
                write_any(g.d, e, g.out, x);
            }
        }
        __syncwarp();
    }
}

}  // namespace brc
