/* SPDX-License-Identifier: Apache-2.0
 *
 * Casts at memory speed, bit for bit the arithmetic of src/reference. What bounds them besides memory is the integer pipe, half
 * as wide as that of the multiply-adds: 10 integer instructions an element at copy speed (bench/gpu/NOTES.md). So largest
 * magnitudes are found in pairs, scales are worked out once a block and not once a lane, and elements are rounded by additions.
 * A block of threads does its share once and ends: kernels that loop over the grid reach 0.93 of the copy speed, these 1.0. */
#pragma once
#include "casts_blocks.cuh"
#include "casts_both.cuh"

namespace brc {

/* ---- one scale for the tensor */

/* The largest magnitude of this thread's share, AHEAD pieces a step, the grid over all. */
template <class S, bool FLAT> __device__ __forceinline__ float amax_in(const brci_cast_args &g)
{
    using T = Wide<S>;
    constexpr int N = FLAT ? 8 : 1;
    const int64_t step = static_cast<int64_t>(gridDim.x) * THREADS;
    uint32_t amax = 0;
    for (int64_t base = static_cast<int64_t>(blockIdx.x) * THREADS + threadIdx.x; base < g.pieces; base += step * N) {
        Source<S> source[N];
        uint4 raw[N];
        if constexpr (FLAT) load_pieces(g, source, [&](int a) { return base + a * step < g.pieces ? base + a * step : base; });
        else {
            const Place at = place<T, E4M3, false>(g, base);
            source[0].load(g, at.row, at.col, at.count);
        }
        numbers_of(g, source, raw);
#pragma unroll
        for (int a = 0; a < N; a++) amax = Numbers<T>::larger(amax, Numbers<T>::of(raw[a]));
    }
    return over_threads(Numbers<T>::whole(amax));
}
template <class S> __device__ __forceinline__ float amax_of_tensor(const brci_cast_args &g)
{
    return g.flat ? amax_in<S, true>(g) : amax_in<S, false>(g);
}

/* Encodes pieces `first`, first + step .. (AHEAD of them) under one factor; the largest magnitude met. BACKWARDS: counted from
 * the tensor's end. */
template <class S, class E, bool FLAT, bool BACKWARDS>
__device__ __forceinline__ uint32_t encode_some(const brci_cast_args &g, const Coder &c, int64_t first, int64_t step)
{
    using T = Wide<S>;
    constexpr int V = PIECE<T>, N = FLAT ? AHEAD : 1;
    Source<S> source[N];
    uint4 raw[N];
    uint32_t amax = 0;
    auto from = [&](int a) {
        const int64_t piece = first + a * step;
        return piece >= g.pieces ? -1 : BACKWARDS ? g.pieces - 1 - piece : piece;
    };
    if constexpr (FLAT) load_pieces(g, source, from);
    else if (first >= g.pieces) source[0].nothing();
    else {
        const Place at = place<T, E, false>(g, from(0));
        source[0].load(g, at.row, at.col, at.count);
    }
    numbers_of(g, source, raw);
#pragma unroll
    for (int a = 0; a < N; a++) {
        const int64_t piece = first + a * step;
        if (!BACKWARDS) amax = Numbers<T>::larger(amax, Numbers<T>::of(raw[a]));
        const uint64_t codes = encode<T, E, false>(raw[a], c, Multiplied{}, Plain{});
        if (piece >= g.pieces) continue;
        const Place at = place<T, E, FLAT>(g, BACKWARDS ? g.pieces - 1 - piece : piece);
        if constexpr (FLAT) store_piece<E::BITS, V>(static_cast<uint8_t *>(g.out) + at.out, codes, true);
        else write<T, E>(g, at.out, codes, at.count);
    }
    return amax;
}

/* The scale is given (delayed scaling); the largest magnitude as a by-product. */
template <class S, class E> __device__ __forceinline__ void cast_given(const brci_cast_args &g)
{
    using T = Wide<S>;
    const float k = __ldg(g.given);
    if (blockIdx.x == 0 && threadIdx.x == 0 && g.scale) *static_cast<float *>(g.scale) = store_f32(__fdiv_rn(1.0f, k));
    const int64_t first = static_cast<int64_t>(blockIdx.x) * (THREADS * (g.flat ? AHEAD : 1)) + threadIdx.x;
    const uint32_t m = g.flat ? encode_some<S, E, true, false>(g, multiplier(k), first, THREADS) : encode_some<S, E, false, false>(g, multiplier(k), first, THREADS);
    if (!g.amax) return;
    const float amax = over_threads(Numbers<T>::whole(m));
    /* Most blocks find a larger one there already. */
    if (threadIdx.x == 0 && amax > __uint_as_float(load_relaxed(reinterpret_cast<const uint32_t *>(g.amax)))) atomicMax(reinterpret_cast<uint32_t *>(g.amax), __float_as_uint(amax));
}

/* The scale is found first: one cooperative launch, the second reading backwards so that its beginning is still in L2. */
template <class S, class E> __device__ __forceinline__ void cast_current(const brci_cast_args &g)
{
    const float amax = amax_of_tensor<S>(g);
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
    const Coder coder = choose_float<E, Wide<S>>(g, all, true, &s);
    if (blockIdx.x == 0 && threadIdx.x == 0) {
        *static_cast<float *>(g.scale) = s;
        if (g.amax) *g.amax = all;
    }
    const int64_t step = static_cast<int64_t>(gridDim.x) * THREADS, first = static_cast<int64_t>(blockIdx.x) * THREADS + threadIdx.x;
    if (g.flat)
        for (int64_t base = first; base < g.pieces; base += step * AHEAD) encode_some<S, E, true, true>(g, coder, base, step);
    else
        for (int64_t base = first; base < g.pieces; base += step) encode_some<S, E, false, true>(g, coder, base, step);
}

/* NVFP4's second level: g = amax / (448 * 6), or its reciprocal for arith div. Without `out` the largest magnitude itself, for the
 * next kernel. */
template <class S> __device__ __forceinline__ void find_global(const brci_cast_args &g)
{
    const float amax = amax_of_tensor<S>(g);
    if (threadIdx.x) return;
    atomicMax(&g.scratch[0], __float_as_uint(amax));
    __threadfence();
    if (atomicAdd(&g.scratch[1], 1) != gridDim.x - 1) return;
    const uint32_t found = atomicExch(&g.scratch[0], 0);
    const float all = capped(__uint_as_float(found));
    g.scratch[1] = 0;
    if (!g.out) {
        g.scratch[3] = found;
        return;
    }
    float second = 1.0f;
    if (__float_as_uint(all)) {
        second = g.arith == ARITH_DIV ? capped(__fdiv_rn(2688.0f, all)) : __fdiv_rn(all, 2688.0f);
        if (g.arith != ARITH_DIV && second < SMALLEST_NORMAL) second = SMALLEST_NORMAL;
    }
    *static_cast<float *>(g.out) = second;
}

/* ---- a scale for each row: a warp or a block of threads a row, which keeps AHEAD pieces a thread and reads the rest again */

template <class S, class E, bool WARP, bool WIDE>
__device__ __forceinline__ void cast_row_in(const brci_cast_args &g)
{
    using T = Wide<S>;
    constexpr int V = PIECE<T>, KIND = std::is_same_v<E, INT8> ? INT : FP8;
    const int threads = WARP ? 32 : blockDim.x, part = WARP ? threadIdx.x % 32 : threadIdx.x;
    const int64_t row = WARP ? static_cast<int64_t>(blockIdx.x) * (THREADS / 32) + threadIdx.x / 32 : blockIdx.x;
    if (WARP && row >= g.rows) return;
    const int64_t out = row * g.out_pitch;
    auto count = [&](uint32_t piece) {
        const int64_t left = g.cols - static_cast<int64_t>(piece) * V;
        return left < V ? static_cast<int>(left) : V;
    };
    auto fetch = [&](uint32_t piece) {
        Source<S> source;
        source.template load<WIDE>(g, row, piece * V, WIDE ? V : count(piece));
        return source;
    };
    Source<S> source[AHEAD];
    uint4 kept[AHEAD];
    uint32_t m = 0;
    if (std::is_same_v<S, CODED> && g.flat)
        load_pieces(g, source, [&](int i) { return part + i * threads < g.piece_row ? row * g.piece_row + part + i * threads : -1; });
    else
#pragma unroll
        for (int i = 0; i < AHEAD; i++) {
            if (part + i * threads < g.piece_row) source[i] = fetch(part + i * threads);
            else source[i].nothing();
        }
    numbers_of(g, source, kept);
#pragma unroll
    for (int i = 0; i < AHEAD; i++) m = Extent<T, E::WATCHED>::larger(m, Extent<T, E::WATCHED>::of(kept[i]));
    for (uint32_t piece = part + AHEAD * threads; piece < g.piece_row; piece += threads) m = Extent<T, E::WATCHED>::larger(m, Extent<T, E::WATCHED>::of(fetch(piece).numbers(g)));
    auto over = [&](float amax) { return WARP ? __uint_as_float(__reduce_max_sync(~0u, __float_as_uint(amax))) : over_threads(amax); };
    float amax = over(Extent<T, E::WATCHED>::whole(m));
    bool odd = __float_as_uint(amax) >= INFINITY_BITS;
    if (E::WATCHED && odd) {
        m = 0;
        for (uint32_t piece = part; piece < g.piece_row; piece += threads) m = Numbers<T>::larger(m, Numbers<T>::of(fetch(piece).numbers(g)));
        amax = over(Numbers<T>::whole(m));
    }
    const Coder c = choose<T, E, KIND>(g, amax, Second{}, false, row * g.scale_row, part == 0);
    const bool divide = g.arith == ARITH_DIV, clamp = E::WATCHED && !(__fmul_rn(__fmul_rn(amax, c.shift), divide ? c.inverse : c.factor) < E::ROOM);
    odd |= c.shift != 1.0f;
    in_case<E, false>(divide, odd, clamp, [&](auto how, auto is) {
        auto put = [&](const uint4 &raw, uint32_t piece) {
            const uint64_t codes = encode<T, E, false>(raw, c, how, is);
            const int64_t to = out + static_cast<int64_t>(piece) * V;
            if (WIDE) store_piece<8, V>(static_cast<uint8_t *>(g.out) + to, codes, true);
            else write<T, E>(g, to, codes, count(piece));
        };
#pragma unroll
        for (int i = 0; i < AHEAD; i++)
            if (part + i * threads < g.piece_row) put(kept[i], part + i * threads);
        for (uint32_t piece = part + AHEAD * threads; piece < g.piece_row; piece += threads) put(fetch(piece).numbers(g), piece);
    });
}

template <class S, class E, bool WARP> __device__ __forceinline__ void cast_rows(const brci_cast_args &g)
{
    if (g.wide) cast_row_in<S, E, WARP, true>(g);
    else cast_row_in<S, E, WARP, false>(g);
}

/* ---- a scale for each 128x128 block: a block of threads, sixteen rows at a time */

template <class S, class E, bool WIDE>
__device__ __forceinline__ void cast_square_in(const brci_cast_args &g)
{
    using T = Wide<S>;
    constexpr int V = PIECE<T>, ACROSS = 128 / V;
    const uint32_t across = static_cast<uint32_t>((g.cols + 127) / 128), down = blockIdx.x / across, right = blockIdx.x - down * across;
    const int64_t row0 = down * 128ll + threadIdx.x / ACROSS, col = right * 128ll + threadIdx.x % ACROSS * V, left = g.cols - col;
    const int count = left < 0 ? 0 : left < V ? static_cast<int>(left) : V;
    const int rows = count == 0 ? 0 : static_cast<int>(min(g.rows - row0, static_cast<int64_t>(128)));
    Source<S> source[8];
    uint4 raw[8];
    uint32_t m = 0;
    if (std::is_same_v<S, CODED> && g.flat)
        load_pieces(g, source, [&](int i) { return 16 * i >= rows ? -1 : (row0 + 16 * i) * (g.cols / V) + col / V; });
    else
#pragma unroll
        for (int i = 0; i < 8; i++) {
            if (16 * i >= rows) source[i].nothing();
            else source[i].template load<WIDE>(g, row0 + 16 * i, static_cast<uint32_t>(col), WIDE ? V : count);
        }
    numbers_of(g, source, raw);
#pragma unroll
    for (int i = 0; i < 8; i++) m = Numbers<T>::larger(m, Numbers<T>::of(raw[i]));
    const float amax = over_threads(Numbers<T>::whole(m));
    const Coder c = choose<T, E, FP8>(g, amax, Second{}, false, down * g.scale_row + right * g.scale_col, threadIdx.x == 0);
    const bool divide = g.arith == ARITH_DIV, odd = c.shift != 1.0f || infinite(amax);
#pragma unroll
    for (int i = 0; i < 8; i++) {
        const int64_t to = (row0 + 16 * i) * g.out_pitch + col;
        if (16 * i >= rows) continue;
        uint64_t codes;
        in_case<E, false>(divide, odd, false, [&](auto how, auto is) { codes = encode<T, E, false>(raw[i], c, how, is); });
        if (WIDE) store_piece<8, V>(static_cast<uint8_t *>(g.out) + to, codes, true);
        else write<T, E>(g, to, codes, count);
    }
}

template <class S, class E> __device__ __forceinline__ void cast_squares(const brci_cast_args &g)
{
    if (g.wide) cast_square_in<S, E, true>(g);
    else cast_square_in<S, E, false>(g);
}

}  // namespace brc

/* Which rows of casts.def a .cu file builds: it defines BRC_INPUT_F32 and so on. */
#define BRC_CAST(name, threads, call) \
    extern "C" __global__ void __launch_bounds__(threads) name(const __grid_constant__ brci_cast_args g) { brc::previous_grid_wait(); brc::call; }
/* Three blocks of threads on a multiprocessor: 40 registers. */
#define BRC_CAST_ROW(name, call) \
    extern "C" __global__ void __launch_bounds__(BRCI_CAST_ROW_THREADS, 3) name(const __grid_constant__ brci_cast_args g) { brc::previous_grid_wait(); brc::call; }
#define BRC_BLOCKS(in, element, kind, block) \
    BRC_CAST(cast_##kind##_##block##_##in##_##element, brc::THREADS, cast_blocks<brc::in BRC_COMMA brc::element BRC_COMMA brc::kind BRC_COMMA block>(g))
#define BRC_WHOLE(in, element)                                                                                                          \
    BRC_FP8_##element(BRC_CAST(cast_given_##in##_##element, brc::THREADS, cast_given<brc::in BRC_COMMA brc::element>(g)))                \
    BRC_FP8_##element(BRC_CAST(cast_current_##in##_##element, brc::THREADS, cast_current<brc::in BRC_COMMA brc::element>(g)))            \
    BRC_FP8_##element(BRC_CAST(cast_squares_##in##_##element, 2048 / brc::PIECE<brc::in>, cast_squares<brc::in BRC_COMMA brc::element>(g))) \
    BRC_CAST_ROW(cast_row_##in##_##element, cast_rows<brc::in BRC_COMMA brc::element BRC_COMMA false>(g))                                \
    BRC_CAST(cast_narrow_row_##in##_##element, brc::THREADS, cast_rows<brc::in BRC_COMMA brc::element BRC_COMMA true>(g))
#define BRC_BOTH(in, element)                                                                                                          \
    BRC_BOTH_OF(cast_both_blocks_##in##_##element, brc::in, brc::element, brc::BOTH_BLOCKS)                                        \
    BRC_BOTH_OF(cast_both_mx_##in##_##element, brc::in, brc::element, brc::BOTH_MX)                                                \
    BRC_BOTH_OF(cast_both_squares_##in##_##element, brc::in, brc::element, brc::BOTH_SQUARES)                                     \
    BRC_BOTH_OF(cast_both_tensor_##in##_##element, brc::in, brc::element, brc::BOTH_TENSOR)
#define BRC_BOTH_OF(name, T, E, shape)                                                                                                 \
    extern "C" __global__ void __launch_bounds__(2048 / brc::PIECE<T>, brc::BOTH_AT_ONCE<T, shape>) name(const __grid_constant__ brci_cast_args g) \
    {                                                                                                                                  \
        brc::previous_grid_wait();                                                                                                     \
        brc::cast_both<T, E, shape>(g);                                                                                                \
    }
#define BRC_GLOBAL(in) BRC_CAST(find_global_##in, brc::THREADS, find_global<brc::in>(g))
#define BRC_COMMA ,
#define BRC_FP8_E4M3(x) x
#define BRC_FP8_E5M2(x) x
#define BRC_FP8_INT8(x)
#define BRC_SKIP(...)
