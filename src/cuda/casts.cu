/* SPDX-License-Identifier: Apache-2.0
 *
 * Casts and dequantization at memory speed. A thread works on groups of eight neighbouring elements (a 16-byte load of a
 * sixteen-bit type) and has several loads under way before it uses the first; lanes that share a scale block find its
 * largest magnitude by shuffles. Bit for bit the arithmetic of src/reference. */
#include <type_traits>

#include "arguments.h"
#include "parts/scale.cuh"

namespace brc {

enum { FP8, MX, NV, INT };

/* Where a group lies. Rows end with whole blocks, whatever of them exists; in the flat case, when everything is aligned and
 * rows follow one another without gaps, a group's number says it all, and the kernels have no other branch in their loop. */
struct Group { int64_t row; uint32_t col; int64_t in, out; int count; };

template <int BITS, bool FLAT> __device__ __forceinline__ Group group_at(const brci_cast_args &g, int64_t unit)
{
    if constexpr (FLAT) return {0, 0, unit * 8, unit * BITS, 8};
    const int64_t row = unit / g.unit_row;
    const uint32_t col = static_cast<uint32_t>(unit - row * g.unit_row) * 8;
    const int64_t left = g.cols - col;
    return {row, col, row * g.in_pitch + col, row * g.out_pitch + col / 8 * BITS, left < 0 ? 0 : left < 8 ? static_cast<int>(left) : 8};
}

template <class T, bool FLAT> __device__ __forceinline__ Raw<T> read(const brci_cast_args &g, const Group &at)
{
    const auto *p = static_cast<const typename T::word *>(g.in) + at.in;
    if constexpr (FLAT) return load_raw<T>(p);
    if (at.count == 0) return Raw<T>{};                    /* the rest of a row's last block */
    return g.wide ? load_raw<T>(p) : load_some<T>(p, at.count);
}

/* Groups that a thread has under way at one time. */
template <class T, bool FLAT> constexpr int AHEAD = !FLAT ? 1 : sizeof(typename T::word) == 4 ? 2 : 4;

/* NaN does not count: fmaxf returns its other operand. */
__device__ __forceinline__ float amax_of(const float (&x)[8])
{
    float m = 0.0f;
#pragma unroll
    for (int i = 0; i < 8; i++) m = fmaxf(m, fabsf(x[i]));
    return m;
}

template <int LANES> __device__ __forceinline__ float amax_over(float m)
{
#pragma unroll
    for (int d = LANES / 2; d > 0; d /= 2) m = fmaxf(m, __shfl_xor_sync(~0u, m, d));
    return m;
}

/* Of the whole block of threads; every thread gets it. */
__device__ __forceinline__ float amax_of_block(float m)
{
    __shared__ float part[32];
    m = amax_over<32>(m);
    if (threadIdx.x % 32 == 0) part[threadIdx.x / 32] = m;
    __syncthreads();
    m = amax_over<32>(threadIdx.x % 32 < blockDim.x / 32 ? part[threadIdx.x % 32] : 0.0f);
    __syncthreads();
    return m;
}

/* ---- a scale for each 1 x BLOCK elements */

template <class T, class E, int KIND, int BLOCK, bool FLAT>
__device__ __forceinline__ void cast_blocks_in(const brci_cast_args &g)
{
    constexpr int LANES = BLOCK / 8, N = AHEAD<T, FLAT>;
    const int64_t threads = static_cast<int64_t>(gridDim.x) * blockDim.x, first = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
    /* Warps stay whole: the shuffles name all lanes, and a block's lanes lie in one warp. */
    for (int64_t base = first - threadIdx.x % 32; base < g.units; base += threads * N) {
        Group at[N];
        Raw<T> raw[N];
#pragma unroll
        for (int a = 0; a < N; a++) {
            const int64_t unit = base + a * threads + threadIdx.x % 32;
            at[a] = group_at<E::BITS, FLAT>(g, unit < g.units ? unit : 0);
            raw[a] = read<T, FLAT>(g, at[a]);
        }
#pragma unroll
        for (int a = 0; a < N; a++) {
            const int64_t unit = base + a * threads + threadIdx.x % 32;
            const bool here = unit < g.units, leader = here && unit % LANES == 0;
            float x[8];
            floats_of(raw[a], x);
            const float amax = amax_over<LANES>(here ? amax_of(x) : 0.0f);
            int64_t block = unit / LANES;
            if (!FLAT) block = at[a].row * g.scale_row + at[a].col / BLOCK * g.scale_col;
            else if (leader && g.scale_col != 1) {
                const int64_t row = g.units <= 0xFFFFFFFFll ? static_cast<uint32_t>(unit) / g.unit_row : unit / g.unit_row;
                block = row * g.scale_row + (unit - row * g.unit_row) / LANES * g.scale_col;
            }
            Coder coder;
            if constexpr (KIND == FP8) {
                float s;
                coder = choose_float<E, T>(g, amax, false, &s);
                if (leader) static_cast<float *>(g.scale)[block] = s;
            } else if constexpr (KIND == INT) {
                coder = choose_integer<E>(g, amax, g.scale, block, leader);
            } else {
                uint8_t s;
                coder = KIND == MX ? choose_mx<E>(g, amax, &s) : choose_nv(g, amax, &s);
                if (leader) static_cast<uint8_t *>(g.scale)[block] = s;
            }
            scaled<KIND == FP8>(coder, x);
            if (here && at[a].count > 0) store_codes<E::BITS>(static_cast<uint8_t *>(g.out) + at[a].out, encode_eight<E>(x), FLAT || g.wide, at[a].count);
        }
    }
}

template <class T, class E, int KIND, int BLOCK>
__device__ __forceinline__ void cast_blocks(const brci_cast_args &g)
{
    if (g.flat) cast_blocks_in<T, E, KIND, BLOCK, true>(g);
    else cast_blocks_in<T, E, KIND, BLOCK, false>(g);
}

/* ---- the largest magnitude of the tensor */

template <class T, bool FLAT> __device__ __forceinline__ float amax_in(const brci_cast_args &g)
{
    constexpr int N = AHEAD<T, FLAT> * (FLAT ? 2 : 1);
    const int64_t threads = static_cast<int64_t>(gridDim.x) * blockDim.x, first = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
    float amax = 0.0f;
    for (int64_t base = first; base < g.units; base += threads * N) {
        Raw<T> raw[N];
#pragma unroll
        for (int a = 0; a < N; a++) {
            const int64_t unit = base + a * threads;
            raw[a] = read<T, FLAT>(g, group_at<8, FLAT>(g, unit < g.units ? unit : first));   /* what counts twice does not matter */
        }
#pragma unroll
        for (int a = 0; a < N; a++) {
            float x[8];
            floats_of(raw[a], x);
            amax = fmaxf(amax, amax_of(x));
        }
    }
    return amax_of_block(amax);
}

template <class T> __device__ __forceinline__ float amax_of_tensor(const brci_cast_args &g)
{
    return g.flat ? amax_in<T, true>(g) : amax_in<T, false>(g);
}

/* ---- one scale for the tensor, given: delayed scaling, the largest magnitude as a by-product */

template <class T, class E, bool FLAT>
__device__ __forceinline__ float encode_in(const brci_cast_args &g, const Coder &coder, bool backwards)
{
    constexpr int N = AHEAD<T, FLAT>;
    const int64_t threads = static_cast<int64_t>(gridDim.x) * blockDim.x, first = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
    float amax = 0.0f;
    for (int64_t base = first; base < g.units; base += threads * N) {
        Group at[N];
        Raw<T> raw[N];
#pragma unroll
        for (int a = 0; a < N; a++) {
            const int64_t unit = base + a * threads, in = unit < g.units ? unit : first;
            at[a] = group_at<E::BITS, FLAT>(g, backwards ? g.units - 1 - in : in);
            raw[a] = read<T, FLAT>(g, at[a]);
        }
#pragma unroll
        for (int a = 0; a < N; a++) {
            float x[8];
            floats_of(raw[a], x);
            amax = fmaxf(amax, amax_of(x));
            scaled<true>(coder, x);
            if (base + a * threads < g.units)
                store_codes<E::BITS>(static_cast<uint8_t *>(g.out) + at[a].out, encode_eight<E>(x), FLAT || g.wide, at[a].count);
        }
    }
    return amax;
}

/* Encodes the tensor under one scale; the largest magnitude that this thread met. */
template <class T, class E> __device__ __forceinline__ float encode_all(const brci_cast_args &g, const Coder &coder, bool backwards)
{
    return g.flat ? encode_in<T, E, true>(g, coder, backwards) : encode_in<T, E, false>(g, coder, backwards);
}

template <class T, class E> __device__ __forceinline__ void cast_given(const brci_cast_args &g)
{
    const float k = __ldg(g.given);
    if (blockIdx.x == 0 && threadIdx.x == 0 && g.scale) *static_cast<float *>(g.scale) = store_f32(__fdiv_rn(1.0f, k));
    const float amax = amax_of_block(encode_all<T, E>(g, multiplier(k), false));
    if (g.amax && threadIdx.x == 0) atomicMax(reinterpret_cast<uint32_t *>(g.amax), __float_as_uint(amax));
}

/* ---- one scale for the tensor, found first: one cooperative launch, the second reading backwards so that its beginning is
 * still in L2 */

template <class T, class E> __device__ __forceinline__ void cast_current(const brci_cast_args &g)
{
    const float amax = amax_of_tensor<T>(g);
    __shared__ float all;
    if (threadIdx.x == 0) {
        atomicMax(&g.scratch[0], __float_as_uint(amax));
        __threadfence();
        atomicAdd(&g.scratch[1], 1);
        while (load_acquire(&g.scratch[1]) < gridDim.x) {}
        all = __uint_as_float(load_acquire(&g.scratch[0]));
        if (atomicAdd(&g.scratch[2], 1) == gridDim.x - 1) {     /* the last to look leaves it as it was found */
            g.scratch[0] = g.scratch[1] = g.scratch[2] = 0;
        }
    }
    __syncthreads();
    float s;
    const Coder coder = choose_float<E, T>(g, all, true, &s);
    if (blockIdx.x == 0 && threadIdx.x == 0) {
        *static_cast<float *>(g.scale) = s;
        if (g.amax) *g.amax = all;
    }
    encode_all<T, E>(g, coder, true);
}

/* ---- NVFP4's second level: g = amax / (448 * 6), or its reciprocal for arith div */

template <class T> __device__ __forceinline__ void find_global(const brci_cast_args &g)
{
    const float amax = amax_of_tensor<T>(g);
    if (threadIdx.x) return;
    atomicMax(&g.scratch[0], __float_as_uint(amax));
    __threadfence();
    if (atomicAdd(&g.scratch[1], 1) != gridDim.x - 1) return;
    const float all = capped(__uint_as_float(atomicExch(&g.scratch[0], 0)));
    g.scratch[1] = 0;
    float second = 1.0f;
    if (__float_as_uint(all)) {
        second = g.arith == ARITH_DIV ? capped(__fdiv_rn(2688.0f, all)) : __fdiv_rn(all, 2688.0f);
        if (g.arith != ARITH_DIV && second < SMALLEST_NORMAL) second = SMALLEST_NORMAL;
    }
    *static_cast<float *>(g.out) = second;
}

/* ---- a scale for each row: THREADS threads keep up to KEEP groups each in registers and read the rest again */

template <class T, class E, int THREADS>
__device__ __forceinline__ void cast_rows(const brci_cast_args &g)
{
    constexpr int KEEP = sizeof(typename T::word) == 4 ? 4 : 8;
    const int part = threadIdx.x % THREADS, rows_here = blockDim.x / THREADS;
    for (int64_t row = static_cast<int64_t>(blockIdx.x) * rows_here + threadIdx.x / THREADS; row - threadIdx.x / THREADS < g.rows; row += static_cast<int64_t>(gridDim.x) * rows_here) {
        const bool live = row < g.rows;
        const int64_t in = row * g.in_pitch, out = row * g.out_pitch;
        auto fetch = [&](uint32_t unit) {
            const int64_t left = g.cols - 8ll * unit;
            return read<T, false>(g, Group{row, unit * 8, in + 8ll * unit, 0, left < 8 ? static_cast<int>(left) : 8});
        };
        auto put = [&](uint32_t unit, float (&x)[8], const Coder &coder) {
            const int64_t left = g.cols - 8ll * unit;
            scaled<!std::is_same_v<E, INT8>>(coder, x);
            store_codes<E::BITS>(static_cast<uint8_t *>(g.out) + out + static_cast<int64_t>(unit) * E::BITS, encode_eight<E>(x), g.wide, left < 8 ? static_cast<int>(left) : 8);
        };
        Raw<T> kept[KEEP];
        float amax = 0.0f;
        if (live) {
#pragma unroll
            for (int i = 0; i < KEEP; i++) if (part + i * THREADS < g.unit_row) kept[i] = fetch(part + i * THREADS);
#pragma unroll
            for (int i = 0; i < KEEP; i++) if (part + i * THREADS < g.unit_row) {
                float x[8];
                floats_of(kept[i], x);
                amax = fmaxf(amax, amax_of(x));
            }
            for (uint32_t unit = part + KEEP * THREADS; unit < g.unit_row; unit += THREADS) {
                float x[8];
                floats_of(fetch(unit), x);
                amax = fmaxf(amax, amax_of(x));
            }
        }
        amax = THREADS == 32 ? amax_over<32>(amax) : amax_of_block(amax);
        if (!live) continue;
        Coder coder;
        if constexpr (std::is_same_v<E, INT8>) coder = choose_integer<E>(g, amax, g.scale, row * g.scale_row, part == 0);
        else {
            float s;
            coder = choose_float<E, T>(g, amax, false, &s);
            if (part == 0) static_cast<float *>(g.scale)[row * g.scale_row] = s;
        }
#pragma unroll
        for (int i = 0; i < KEEP; i++) if (part + i * THREADS < g.unit_row) {
            float x[8];
            floats_of(kept[i], x);
            put(part + i * THREADS, x, coder);
        }
        for (uint32_t unit = part + KEEP * THREADS; unit < g.unit_row; unit += THREADS) {
            float x[8];
            floats_of(fetch(unit), x);
            put(unit, x, coder);
        }
    }
}

/* ---- a scale for each 128x128 block: 256 threads a block, 16 lanes a row of it */

template <class T, class E>
__device__ __forceinline__ void cast_squares(const brci_cast_args &g)
{
    const int64_t across = (g.cols + 127) / 128, tiles = across * ((g.rows + 127) / 128);
    for (int64_t tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
        const int64_t row0 = tile / across * 128 + threadIdx.x / 16, col = tile % across * 128 + threadIdx.x % 16 * 8, left = g.cols - col;
        const int count = left < 0 ? 0 : left < 8 ? static_cast<int>(left) : 8;
        Raw<T> raw[8];
        float amax = 0.0f;
#pragma unroll
        for (int i = 0; i < 8; i++)
            if (row0 + 16 * i < g.rows && count) raw[i] = read<T, false>(g, Group{0, 0, (row0 + 16 * i) * g.in_pitch + col, 0, count});
#pragma unroll
        for (int i = 0; i < 8; i++)
            if (row0 + 16 * i < g.rows && count) {
                float x[8];
                floats_of(raw[i], x);
                amax = fmaxf(amax, amax_of(x));
            }
        amax = amax_of_block(amax);
        float s;
        const Coder coder = choose_float<E, T>(g, amax, false, &s);
        if (threadIdx.x == 0) static_cast<float *>(g.scale)[tile / across * g.scale_row + tile % across * g.scale_col] = s;
#pragma unroll
        for (int i = 0; i < 8; i++)
            if (row0 + 16 * i < g.rows && count) {
                float x[8];
                floats_of(raw[i], x);
                scaled<true>(coder, x);
                store_codes<E::BITS>(static_cast<uint8_t *>(g.out) + (row0 + 16 * i) * g.out_pitch + col / 8 * E::BITS, encode_eight<E>(x), g.wide, count);
            }
    }
}

/* ---- back */

__device__ __forceinline__ float scale_at(const brci_cast_args &g, int64_t i)
{
    switch (g.scale_format) {
    case FORMAT_F32: return __ldg(static_cast<const float *>(g.scale) + i);
    case FORMAT_E8M0: {
        const uint32_t e = __ldg(static_cast<const uint8_t *>(g.scale) + i);
        return e == 255 ? __uint_as_float(0x7FC00000u) : power_of(static_cast<int>(e));
    }
    case FORMAT_E4M3: return E4M3::floats(__ldg(static_cast<const uint8_t *>(g.scale) + i)).x;
    case FORMAT_F16: return __half2float(__ldg(static_cast<const __half *>(g.scale) + i));
    default: return __uint_as_float(static_cast<uint32_t>(__ldg(static_cast<const uint16_t *>(g.scale) + i)) << 16);
    }
}

/* m = s | f32(s*g) | f32(s/g) | f32(f32(s*amax) * f32(1/c)) */
__device__ __forceinline__ float with_global(const brci_cast_args &g, float s)
{
    if (!g.global) return s;
    const float x = __ldg(g.global);
    if (g.global_kind == 0) return __fmul_rn(s, x);
    if (g.global_kind == 1) return __fdiv_rn(s, x);
    return __fmul_rn(__fmul_rn(s, x), __fdiv_rn(1.0f, g.global_constant));
}

/* Any alignment, any block: one element a thread, one look at the table each. */
template <class E, class T>
__device__ __forceinline__ void dequantize_slowly(const brci_cast_args &g)
{
    const int64_t threads = static_cast<int64_t>(gridDim.x) * blockDim.x, all = g.rows * g.cols;
    for (int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < all; i += threads) {
        const int64_t row = i / g.cols, col = i - row * g.cols;
        const int64_t scale = (g.block_rows ? row / g.block_rows : 0) * g.scale_row + (g.block_cols ? col / g.block_cols : 0) * g.scale_col;
        const uint8_t *from = static_cast<const uint8_t *>(g.in) + row * g.in_pitch + col / 8 * E::BITS;
        const int bit = static_cast<int>(col % 8) * E::BITS;
        uint32_t code = from[bit / 8];
        if (bit % 8 + E::BITS > 8) code |= static_cast<uint32_t>(from[bit / 8 + 1]) << 8;
        store_float<T>(static_cast<typename T::word *>(g.out) + row * g.out_pitch + col, __fmul_rn(decode_one<E>(code >> bit % 8), with_global(g, scale_at(g, scale))));
    }
}

template <class E, class T>
__device__ __forceinline__ void dequantize(const brci_cast_args &g)
{
    if (!g.wide) return dequantize_slowly<E, T>(g);
    constexpr int N = sizeof(typename T::word) == 4 || E::BITS != 8 ? 2 : 4;
    const int64_t threads = static_cast<int64_t>(gridDim.x) * blockDim.x, first = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
    for (int64_t base = first; base < g.units; base += threads * N) {
        uint64_t codes[N];
        float m[N];
        int64_t row[N];
        uint32_t col[N];
#pragma unroll
        for (int a = 0; a < N; a++) {
            const int64_t unit = base + a * threads;
            if (unit >= g.units) continue;
            row[a] = g.units <= 0xFFFFFFFFll ? static_cast<uint32_t>(unit) / g.unit_row : unit / g.unit_row;
            col[a] = static_cast<uint32_t>(unit - row[a] * g.unit_row) * 8;
            codes[a] = load_codes<E::BITS>(static_cast<const uint8_t *>(g.in) + row[a] * g.in_pitch + col[a] / 8 * E::BITS);
            m[a] = scale_at(g, (g.block_rows ? static_cast<uint32_t>(row[a]) / g.block_rows : 0) * g.scale_row + (g.block_cols ? col[a] / g.block_cols : 0) * g.scale_col);
        }
#pragma unroll
        for (int a = 0; a < N; a++) {
            const int64_t unit = base + a * threads;
            if (unit >= g.units) continue;
            auto *to = static_cast<typename T::word *>(g.out) + row[a] * g.out_pitch + col[a];
            const float s = with_global(g, m[a]);
            float e[8];
            decode_eight<E>(codes[a], e);
#pragma unroll
            for (int i = 0; i < 8; i++) e[i] = __fmul_rn(e[i], s);
            store_floats<T>(to, e);
        }
    }
}

}  // namespace brc

#define BRC_CAST(name, threads, call) \
    extern "C" __global__ void __launch_bounds__(threads) name(const __grid_constant__ brci_cast_args g) { brc::previous_grid_wait(); brc::call; }
#define BLOCKS(in, element, kind, block) \
    BRC_CAST(cast_##kind##_##block##_##in##_##element, 256, cast_blocks<brc::in BRC_COMMA brc::element BRC_COMMA brc::kind BRC_COMMA block>(g))
#define WHOLE(in, element)                                                                                  \
    BRC_FP8_##element(BRC_CAST(cast_given_##in##_##element, 256, cast_given<brc::in BRC_COMMA brc::element>(g)))     \
    BRC_FP8_##element(BRC_CAST(cast_current_##in##_##element, 256, cast_current<brc::in BRC_COMMA brc::element>(g))) \
    BRC_FP8_##element(BRC_CAST(cast_squares_##in##_##element, 256, cast_squares<brc::in BRC_COMMA brc::element>(g))) \
    BRC_CAST(cast_row_##in##_##element, 256, cast_rows<brc::in BRC_COMMA brc::element BRC_COMMA 256>(g))    \
    BRC_CAST(cast_narrow_row_##in##_##element, 256, cast_rows<brc::in BRC_COMMA brc::element BRC_COMMA 32>(g))
#define GLOBAL(in) BRC_CAST(find_global_##in, 256, find_global<brc::in>(g))
#define DEQUANTIZE(element, out) BRC_CAST(dequantize_##element##_##out, 256, dequantize<brc::element BRC_COMMA brc::out>(g))
#define BRC_COMMA ,
#define BRC_FP8_E4M3(x) x
#define BRC_FP8_E5M2(x) x
#define BRC_FP8_INT8(x)
#include "casts.def"
