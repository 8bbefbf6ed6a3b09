/* SPDX-License-Identifier: Apache-2.0
 *
 * Weights into the order of parts/narrow.cuh, once: a warp a chunk, a lane its words. Speed matters little here. */
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "arguments.h"
#include "shape.h"

namespace {

__device__ uint32_t code_at(const brci_pack_args &g, int row, int k)
{
    if (row >= g.n || k >= g.k) return 0;
    const uint8_t *p = g.in + row * g.pitch;
    return g.codes == BRCI_CODES_E4M3 ? p[k] : p[k / 2] >> (k & 1) * 4 & 15;
}

__device__ int64_t scale_at(const brci_pack_args &g, int row, int k)
{
    return (g.block_rows ? row / g.block_rows : 0) * g.scale_row + (g.block_cols ? k / g.block_cols : 0);
}

/* Where the bits of a code go in the low half of its word. */
__device__ uint32_t placed(const brci_pack_args &g, int pair, uint32_t c)
{
    if (g.codes == BRCI_CODES_INT4) return (c ^ 8) << 4 * pair;
    const uint32_t sign = c >> 3, rest = c & 7, exponent = rest >> 1, fraction = c & 1;
    if (g.activations == BRCI_FOR_BF16) {
        if (pair < 3) return sign << (15 - 3 * pair) | rest << (6 - 3 * pair);
        return fraction << 14 | sign << 13 | exponent << 10;
    }
    if (pair < 2) return sign << (15 - 3 * pair) | rest << (9 - 3 * pair);
    return pair == 2 ? sign | rest << 1 : exponent << 13 | fraction << 5 | sign << 4;
}

/* An E4M3 scale's magnitude, normal, as five bits of exponent (of scale * 2^7 in F16) and three of fraction. */
__device__ uint32_t nv_code(uint32_t c)
{
    c &= 127;
    if (c == 127) return 255;
    int exponent = static_cast<int>(c >> 3) + 15;             /* of F16, with 2^7 */
    uint32_t fraction = c & 7;
    if (exponent == 15) {                                    /* subnormal, or zero, whose codes are zeros: any scale will do */
        exponent++;
        while (fraction && !(fraction & 8)) fraction *= 2, exponent--;
    }
    return static_cast<uint32_t>(exponent) << 3 | (fraction & 7);
}

__device__ float plain_scale(const brci_pack_args &g, int row, int k)
{
    if (row >= g.n || k >= g.k) return 0.0f;
    const int64_t i = scale_at(g, row, k);
    if (g.scale_type == BRCI_OUT_F32) return static_cast<const float *>(g.scale)[i];
    if (g.scale_type == BRCI_OUT_F16) return __half2float(static_cast<const __half *>(g.scale)[i]);
    return __bfloat162float(static_cast<const __nv_bfloat16 *>(g.scale)[i]);
}

/* The largest MX exponent of a row, by all lanes of a warp. */
__device__ int row_exponent(const brci_pack_args &g, int row, int lane)
{
    int most = 0;
    if (row < g.n)
        for (int k = lane * 32; k < g.k; k += 1024) {
            const int e = static_cast<const uint8_t *>(g.scale)[scale_at(g, row, k)];
            if (e < 255) most = max(most, e);
        }
    return __reduce_max_sync(~0u, most);
}

/* A chunk in the order of NarrowWeights8. */
__device__ void pack_for_e4m3(const brci_pack_args &g, int tile, int block, int lane, uint8_t *out)
{
    for (int at = 0; at < 8; at++) {                          /* of a lane's words: step, row */
        uint32_t word = 0;
        for (int e = 0; e < 8; e++) {
            const int half = e / 4, j = e % 4, row = tile * 16 + lane / 4 + at % 2 * 8, k = block * 128 + at / 2 * 32 + half * 16 + lane % 4 * 4 + j;
            const uint32_t c = code_at(g, row, k), sign = c >> 3, rest = g.codes == BRCI_CODES_INT4 && sign ? ~c & 7 : c & 7;
            word |= rest << (16 * half + 4 * j) | sign << (half ? 3 + 8 * j : 7 + 8 * j);
        }
        reinterpret_cast<uint32_t *>(out)[at / 4 * 128 + lane * 4 + at % 4] = word;
    }
    uint8_t *scales = out + 1024;
    if (lane >= 16) return;
    const int row = tile * 16 + lane;
    if (g.scales == BRCI_SCALES_PLAIN) {
        const float s = plain_scale(g, row, block * 128);
        if (g.scale_type == BRCI_OUT_F32) *reinterpret_cast<float *>(scales + lane % 8 * 8 + lane / 8 * 4) = s;
        else
            *reinterpret_cast<uint16_t *>(scales + lane % 8 * 4 + lane / 8 * 2) =
                g.scale_type == BRCI_OUT_F16 ? __half_as_ushort(__float2half_rn(s)) : __bfloat16_as_ushort(__float2bfloat16_rn(s));
        return;
    }
    int e[4], most = 0;
    for (int i = 0; i < 4; i++) {
        const int k = block * 128 + i * 32;
        e[i] = row < g.n && k < g.k ? static_cast<const uint8_t *>(g.scale)[scale_at(g, row, k)] : 0;
        if (e[i] < 255) most = max(most, e[i]);
    }
    uint32_t word = most;
    for (int i = 0; i < 4; i++) word |= (e[i] < most - 14 ? 15u : static_cast<uint32_t>(min(e[i] - most + 14, 14))) << (16 + 4 * i);
    *reinterpret_cast<uint32_t *>(scales + lane % 8 * 8 + lane / 8 * 4) = word;
}

}  // namespace

/* One warp a row: what the row's sums are multiplied by. A NaN anywhere in a row makes all its results NaN. */
extern "C" __global__ void __launch_bounds__(256) narrow_factors(const __grid_constant__ brci_pack_args g)
{
    const int row = blockIdx.x * 8 + threadIdx.x / 32, lane = threadIdx.x % 32;
    if (row >= (g.n + 15) / 16 * 16) return;
    float factor = 1.0f;
    bool nan = false;
    if (row < g.n) {
        if (g.scales == BRCI_SCALES_MX) {
            const int shift = g.codes == BRCI_CODES_E2M1 ? 1 : 7;
            if (g.activations != BRCI_FOR_E4M3) factor = ldexpf(1.0f, row_exponent(g, row, lane) - 127 - shift);
            for (int k = lane * 32; k < g.k; k += 1024) nan |= static_cast<const uint8_t *>(g.scale)[scale_at(g, row, k)] == 255;
        }
        if (g.scales == BRCI_SCALES_NV) {
            factor = 128.0f;
            for (int k = lane * 16; k < g.k; k += 512) nan |= (static_cast<const uint8_t *>(g.scale)[scale_at(g, row, k)] & 127) == 127;
        }
        if (g.codes == BRCI_CODES_E4M3)
            for (int k = lane; k < g.k; k += 32) nan |= (code_at(g, row, k) & 127) == 127;
    }
    if (g.global) factor = g.global_kind == 1 ? factor / *g.global : g.global_kind == 2 ? factor * *g.global / g.global_constant : factor * *g.global;
    if (__any_sync(~0u, nan)) factor = __int_as_float(0x7FC00000);
    if (lane == 0) g.row_factor[row] = factor;
}

extern "C" __global__ void __launch_bounds__(256) narrow_pack(const __grid_constant__ brci_pack_args g)
{
    const int64_t chunk = static_cast<int64_t>(blockIdx.x) * 8 + threadIdx.x / 32;
    const int tile = static_cast<int>(chunk / g.k_blocks), block = static_cast<int>(chunk % g.k_blocks), lane = threadIdx.x % 32;
    if (tile >= (g.n + 15) / 16) return;
    uint8_t *out = g.chunks + brci_chunk_at(tile, block, (g.n + 15) / 16, g.k_blocks) * g.chunk_bytes;
    const int words = g.codes == BRCI_CODES_E4M3 ? 2 : 1, q = lane / 4, t = lane % 4;
    if (g.activations == BRCI_FOR_E4M3) {
        pack_for_e4m3(g, tile, block, lane, out);
        return;
    }
    for (int i = 0; i < 8; i++)
        for (int w = 0; w < words; w++) {
            uint32_t word = 0;
            for (int pair = w * 4 / words; pair < (w + 1) * 4 / words; pair++)
                for (int half = 0; half < 2; half++) {
                    const int row = tile * 16 + q + pair % 2 * 8, k = block * 128 + i * 16 + 2 * t + half + pair / 2 * 8;
                    uint32_t c = code_at(g, row, k);
                    if (g.codes == BRCI_CODES_E4M3) {
                        word |= c << (g.activations == BRCI_FOR_BF16 ? 16 * half + (pair % 2 ? 0 : 8) : 8 * half + pair % 2 * 16);
                        continue;
                    }
                    if (g.scales == BRCI_SCALES_NV && row < g.n && k < g.k) {
                        const uint8_t s = static_cast<const uint8_t *>(g.scale)[scale_at(g, row, k)];
                        c = s & 127 ? c ^ s >> 4 & 8 : 0;
                    }
                    word |= placed(g, pair, c) << 16 * half;
                }
            const int at = i * words + w;                 /* of a lane's words */
            reinterpret_cast<uint32_t *>(out)[at / 4 * 128 + lane * 4 + at % 4] = word;
        }

    uint8_t *scales = out + 1024 * words;
    const int groups = 128 / g.group;
    if (g.scales == BRCI_SCALES_PLAIN) {
        for (int e = lane; e < 16 * groups; e += 32) {
            const int i = e / 16, r = e % 16, row = tile * 16 + r;
            const float s = plain_scale(g, row, block * 128 + i * g.group);
            if (g.scale_type == BRCI_OUT_F32) {
                if (g.scale_stride || r % 8 == 0)
                    *reinterpret_cast<float *>(scales + i * 64 + r % 8 * g.scale_stride + r / 8 * 4) =
                        g.scale_stride ? s : plain_scale(g, tile * 16, block * 128);
            } else
                *reinterpret_cast<uint16_t *>(scales + i * 32 + r % 8 * 4 + r / 8 * 2) =
                    g.scale_type == BRCI_OUT_F16 ? __half_as_ushort(__float2half_rn(s)) : __bfloat16_as_ushort(__float2bfloat16_rn(s));
        }
        if (g.scale_type == BRCI_OUT_F32 && !g.scale_stride && lane < 2) reinterpret_cast<float *>(scales)[2 + lane] = 0.0f;   /* up to 16 bytes */
        return;
    }
    for (int r = 0; r < 16; r++) {
        const int row = tile * 16 + r, most = g.scales == BRCI_SCALES_MX ? row_exponent(g, row, lane) : 0;
        if (lane >= groups) continue;
        const int k = block * 128 + lane * g.group;
        const uint32_t s = row < g.n && k < g.k ? static_cast<const uint8_t *>(g.scale)[scale_at(g, row, k)] : 0;
        scales[r % 8 * 2 * groups + r / 8 * groups + lane] = static_cast<uint8_t>(g.scales == BRCI_SCALES_NV ? nv_code(s) : max(static_cast<int>(s) - most + 254, 0));
    }
}
