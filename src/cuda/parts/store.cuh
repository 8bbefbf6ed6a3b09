/* SPDX-License-Identifier: Apache-2.0
 *
 * From a warp's 16 rows of FP32 accumulators to D: scales, bias, rounding, and the way to memory.
 * The fragment is that of wgmma.cuh: lane l holds rows l/4 and l/4 + 8, columns 8i + 2(l%4) and + 1. */
#pragma once
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <string.h>

#include "../arguments.h"
#include "../shape.h"
#include "machine.cuh"

namespace brc {

template <bool BF16> __device__ __forceinline__ uint32_t pack16(float low, float high)
{
    uint32_t p;
    if constexpr (BF16) {
        const __nv_bfloat162 v = __floats2bfloat162_rn(low, high);
        memcpy(&p, &v, 4);
    } else {
        const __half2 v = __floats2half2_rn(low, high);
        memcpy(&p, &v, 4);
    }
    return p;
}

__device__ __forceinline__ uint32_t pack16(float low, float high, int bf16) { return bf16 ? pack16<true>(low, high) : pack16<false>(low, high); }

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

__device__ __forceinline__ int64_t bytes_of(int type) { return type == BRCI_OUT_F32 ? 4 : 2; }

/* Where the results of a tile's product go: D with its rows, and its number along the third axis of D's map; its bias. */
struct Target {
    void *d;
    const void *bias;
    int row_begin, row_end, z;
};

/* d *= row scale * column scale. low and high are the scales of the lane's two rows; of columns, one for all (strides 0), or
 * those of the tile in shared memory. */
template <int BN>
__device__ __forceinline__ void scale_fragment(const brci_gemm_args &g, float (&d)[BN / 2], float low, float high, float one, uint32_t columns, int lane)
{
    if (!g.col_stride) {
        low *= one;
        high *= one;
#pragma unroll
        for (int i = 0; i < BN / 8; i++) {
            d[4 * i] *= low;
            d[4 * i + 1] *= low;
            d[4 * i + 2] *= high;
            d[4 * i + 3] *= high;
        }
    } else {
#pragma unroll
        for (int i = 0; i < BN / 8; i++) {
            const float2 c = load_shared2(columns + 32 * i + lane % 4 * 8);
            d[4 * i] *= low * c.x;
            d[4 * i + 1] *= low * c.y;
            d[4 * i + 2] *= high * c.x;
            d[4 * i + 3] *= high * c.y;
        }
    }
}

/* One piece of sixteen-bit results into staging: 16 rows of 128 bytes, whose 16-byte chunks are XORed with the row, as the
 * copy engine's 128-byte swizzle has it; neither stmatrix nor the reads back meet a bank twice. */
template <int WIDTH, bool BF16>
__device__ __forceinline__ void stage_piece(const float *f, int lane, uint32_t staging)
{
    const uint32_t row = staging + lane % 16 * 128, flip = lane & 7;
#pragma unroll
    for (int i = 0; i < WIDTH / 16; i++, f += 8)
        store_matrices(row + ((2 * i + lane / 16) ^ flip) * 16, pack16<BF16>(f[0], f[1]), pack16<BF16>(f[2], f[3]),
                       pack16<BF16>(f[4], f[5]), pack16<BF16>(f[6], f[7]));
    if constexpr (WIDTH % 16 != 0) store_matrices(row + ((WIDTH / 8 - 1) ^ flip) * 16, pack16<BF16>(f[0], f[1]), pack16<BF16>(f[2], f[3]));
}

/* The same piece from staging to D, those rows that are the product's. */
template <int WIDTH>
__device__ __forceinline__ void write_piece(const brci_gemm_args &g, const Target &t, int row, int column, int lane, uint32_t staging)
{
    const int read_row = lane / 8, chunk = lane % 8, here = column + chunk * 8;
    if (here >= g.n || chunk * 8 >= WIDTH) return;
    uint16_t *to = static_cast<uint16_t *>(t.d) + here + (row + read_row) * g.ldd;
    uint4 v[4];
#pragma unroll
    for (int q = 0; q < 4; q++) v[q] = load_words(staging + (q * 4 + read_row) * 128 + (chunk ^ ((q * 4 + read_row) & 7)) * 16);
#pragma unroll
    for (int q = 0; q < 4; q++)
        if (row + q * 4 + read_row >= t.row_begin && row + q * 4 + read_row < t.row_end) *reinterpret_cast<uint4 *>(to + q * 4 * g.ldd) = v[q];
}

/* Sixteen-bit results, 16 rows: EACH pieces of 64 columns at a time by the copy engine, which clips at the edges and works on
 * while the warp multiplies again; a narrower last piece, and pieces that are not all the product's, by 16-byte stores. */
template <int BN, int BUFFERS, int EACH, bool GROUPS, bool BF16>
__device__ __forceinline__ void store_pieces(const brci_gemm_args &g, const Target &t, float (&d)[BN / 2], int row, int column, int lane, uint32_t staging_at, uint32_t &turn)
{
    static_assert(BUFFERS % EACH == 0 && BN / 64 % EACH == 0, "the pieces stored at a time lie side by side");
    const bool whole = !GROUPS || (row >= t.row_begin && row + 16 <= t.row_end);
#pragma unroll
    for (int at = 0; at + 64 <= BN; at += 64 * EACH) {
        const uint32_t staging = staging_at + turn * BRCI_STORE_BYTES;
        if (lane == 0) tma_store_wait_read<BUFFERS - EACH>();
        __syncwarp();
#pragma unroll
        for (int e = 0; e < EACH; e++) stage_piece<64, BF16>(d + at / 2 + e * 32, lane, staging + e * BRCI_STORE_BYTES);
        if (!whole) {
            __syncwarp();
#pragma unroll
            for (int e = 0; e < EACH; e++) write_piece<64>(g, t, row, column + at + e * 64, lane, staging + e * BRCI_STORE_BYTES);
            __syncwarp();
            continue;
        }
        turn = BUFFERS > EACH ? (turn + EACH) % BUFFERS : 0;
        async_fence();
        __syncwarp();
        if (lane == 0)
#pragma unroll
            for (int e = 0; e < EACH; e++) {
                if constexpr (GROUPS) tma_store(&g.d_map, staging + e * BRCI_STORE_BYTES, column + at + e * 64, row, t.z);
                else tma_store(&g.d_map, staging + e * BRCI_STORE_BYTES, column + at + e * 64, row);
            }
    }
    if constexpr (BN % 64 != 0) {
        constexpr int WIDTH = BN % 64, AT = BN - WIDTH;
        const uint32_t staging = staging_at + turn * BRCI_STORE_BYTES;
        if (lane == 0) tma_store_wait_read<BUFFERS - 1>();
        __syncwarp();
        stage_piece<WIDTH, BF16>(d + AT / 2, lane, staging);
        __syncwarp();
        write_piece<WIDTH>(g, t, row, column + AT, lane, staging);
        __syncwarp();
    }
}

/* Rounds and writes 16 rows, always through the warp's staging, so that neighbouring lanes write neighbouring addresses:
 * sixteen-bit results as above; F32, bias, accumulation and any alignment 32 columns at a time, one element a lane.
 * BUFFERS pieces of 2048 bytes are in turn; `turn` counts them through the kernel. */
template <int BN, int BUFFERS, int EACH, bool GROUPS>
__device__ __forceinline__ void store_fragment(const brci_gemm_args &g, const Target &t, float (&d)[BN / 2], int row, int column, int lane, uint32_t staging_at, uint32_t &turn)
{
    if (g.wide) {
        if (g.out == BRCI_OUT_BF16) store_pieces<BN, BUFFERS, EACH, GROUPS, true>(g, t, d, row, column, lane, staging_at, turn);
        else store_pieces<BN, BUFFERS, EACH, GROUPS, false>(g, t, d, row, column, lane, staging_at, turn);
        return;
    }
#pragma unroll
    for (int at = 0; at < BN; at += 32) {
        const int width = BN - at < 32 ? BN - at : 32;
        /* Even columns in a row's first half, odd ones in the second: side by side, the compiler would store them as a pair, give
         * the sums pairs of registers for it, and make half of the additions that feed them conflict over register banks. */
        const uint32_t to = staging_at + lane / 4 * 128 + lane % 4 * 4;
#pragma unroll
        for (int i = 0; i < width / 8; i++) {
            const float *f = d + (at + 8 * i) / 2;
#pragma unroll
            for (int j = 0; j < 4; j++) store_shared(to + i * 16 + j / 2 * 1024 + j % 2 * 64, f[j]);
        }
        __syncwarp();
        const int c = column + at + lane;
        if (c < g.n && lane < width) {
            const float bias = t.bias ? read_any(t.bias, c, g.bias_type) : 0.0f;
#pragma unroll 1
            for (int r = max(t.row_begin - row, 0); r < 16 && row + r < t.row_end; r++) {
                float x = load_shared(staging_at + r * 128 + lane % 2 * 64 + lane / 2 * 4);
                if (t.bias) x += bias;
                const int64_t e = (row + r) * g.ldd + c;
                if (g.accumulate) x += read_any(t.d, e, g.out);
                write_any(t.d, e, g.out, x);
            }
        }
        __syncwarp();
    }
}

}  // namespace brc
