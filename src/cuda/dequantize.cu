/* SPDX-License-Identifier: Apache-2.0
 *
 * Codes and scales back to wide numbers: value = f32(e * m), rounded once more to the output's type. */
#include "parts/coded.cuh"

namespace brc {

/* Stored scales: bits, which are loaded first so that other loads can be under way, and their value. One row for each format, so
 * that no branch stands between the loads: with branches there the kernels reach 0.81 of the copy speed instead of 0.96. */
struct ScaleF32 {
    static __device__ __forceinline__ uint32_t bits(const void *p, int64_t i) { return __ldg(static_cast<const uint32_t *>(p) + i); }
    static __device__ __forceinline__ float value(const brci_cast_args &, uint32_t w) { return __uint_as_float(w); }
};
struct ScaleE8M0 {
    static __device__ __forceinline__ uint32_t bits(const void *p, int64_t i) { return __ldg(static_cast<const uint8_t *>(p) + i); }
    static __device__ __forceinline__ float value(const brci_cast_args &, uint32_t w) { return float_of_e8m0(w); }
};
struct ScaleE4M3 : ScaleE8M0 {
    static __device__ __forceinline__ float value(const brci_cast_args &, uint32_t w) { return floats_of_e4m3(static_cast<uint16_t>(w)).x; }
};
struct Scale16 {
    static __device__ __forceinline__ uint32_t bits(const void *p, int64_t i) { return __ldg(static_cast<const uint16_t *>(p) + i); }
    static __device__ __forceinline__ float value(const brci_cast_args &g, uint32_t w) { return float_of_16(w, g.scale_format); }
};
template <class F> __device__ __forceinline__ void with_scale(const brci_cast_args &g, F f)
{
    if (g.scale_format == FORMAT_F32) f(ScaleF32{});
    else if (g.scale_format == FORMAT_E8M0) f(ScaleE8M0{});
    else if (g.scale_format == FORMAT_E4M3) f(ScaleE4M3{});
    else f(Scale16{});
}

__device__ __forceinline__ float with_global(const brci_cast_args &g, float s, float x)
{
    return g.global ? under_global(s, x, g.global_kind, g.global_constant) : s;
}

/* Any alignment, any block: one element a thread, one look at the table each. */
template <class E, class T>
__device__ __forceinline__ void dequantize_slowly(const brci_cast_args &g)
{
    const int64_t i = static_cast<int64_t>(blockIdx.x) * BRCI_CAST_THREADS + threadIdx.x;
    if (i >= g.rows * g.cols) return;
    const int64_t row = i / g.cols, col = i - row * g.cols;
    const int64_t scale = (g.block_rows ? row / g.block_rows : 0) * g.scale_row + (g.block_cols ? col / g.block_cols : 0) * g.scale_col;
    const uint8_t *from = static_cast<const uint8_t *>(g.in) + row * g.in_pitch + col / 8 * E::BITS;
    const int bit = static_cast<int>(col % 8) * E::BITS;
    uint32_t code = from[bit / 8];
    if (bit % 8 + E::BITS > 8) code |= static_cast<uint32_t>(from[bit / 8 + 1]) << 8;
    float e[8], m = 1.0f;
    with_scale(g, [&](auto kind) { m = decltype(kind)::value(g, decltype(kind)::bits(g.scale, scale)); });
    decode<E>(code >> bit % 8 & ((1u << E::BITS) - 1), e);
    store_float<T>(static_cast<typename T::word *>(g.out) + row * g.out_pitch + col, __fmul_rn(e[0], with_global(g, m, g.global ? __ldg(g.global) : 1.0f)));
}

template <class E, class T> constexpr int DEQUANTIZE_AHEAD = BRCI_DEQUANTIZE_AHEAD(E::BITS);

template <class E, class T, class S, bool QUADS>
__device__ __forceinline__ void put(const brci_cast_args &g, uint64_t codes, uint32_t scale, float second, typename T::word *to, bool live)
{
    constexpr int V = PIECE<T>;
    const uint64_t own = own_piece<E::BITS, V, QUADS>(codes);
    const float m = with_global(g, S::value(g, scale), second);
    float e[V];
    decode<E>(own, e);
#pragma unroll
    for (int i = 0; i < V; i++) e[i] = __fmul_rn(e[i], m);
    /* An element that is always a number gives NaN only under a scale that is none, or infinite. */
    if (live) store_floats<T>(to, e, E::WATCHED ? fabsf(m) <= LARGEST : numbers_alone(e));
}

/* Rows follow one another without gaps, and so do the scales of neighbouring pieces: the piece's number says all. */
template <class E, class T, class S>
__device__ __forceinline__ void dequantize_flat(const brci_cast_args &g)
{
    constexpr int V = PIECE<T>, AHEAD = DEQUANTIZE_AHEAD<E, T>;
    const int64_t first = static_cast<int64_t>(blockIdx.x) * (BRCI_CAST_THREADS * AHEAD);
    const uint32_t live = static_cast<uint32_t>(min(g.pieces - first, static_cast<int64_t>(BRCI_CAST_THREADS * AHEAD)));
    const uint32_t inside = static_cast<uint32_t>(first) & ((1u << g.flat_shift) - 1);
    const auto *in = static_cast<const uint8_t *>(g.in) + (first + threadIdx.x) * (V * E::BITS / 8);
    auto *out = static_cast<typename T::word *>(g.out) + (first + threadIdx.x) * V;
    const float second = g.global ? __ldg(g.global) : 1.0f;
    uint64_t codes[AHEAD];
    uint32_t scale[AHEAD];
#pragma unroll
    for (int a = 0; a < AHEAD; a++) {
        const uint32_t piece = a * BRCI_CAST_THREADS + threadIdx.x;
        if (piece < live) {
            codes[a] = load_piece<E::BITS, V, true>(in + a * (BRCI_CAST_THREADS * V * E::BITS / 8));
            scale[a] = S::bits(g.scale, (first >> g.flat_shift) + ((inside + piece) >> g.flat_shift));
        } else codes[a] = scale[a] = 0;
    }
#pragma unroll
    for (int a = 0; a < AHEAD; a++) {
        put<E, T, S, true>(g, codes[a], scale[a], second, out + a * (BRCI_CAST_THREADS * V), a * BRCI_CAST_THREADS + threadIdx.x < live);
    }
}

/* Aligned rows, blocks of powers of two. The row of the first piece is the same for all threads of a block; from there on
 * everything fits 32 bits. */
template <class E, class T, class S>
__device__ __forceinline__ void dequantize_rows(const brci_cast_args &g)
{
    constexpr int V = PIECE<T>, AHEAD = DEQUANTIZE_AHEAD<E, T>;
    const int64_t first = static_cast<int64_t>(blockIdx.x) * (BRCI_CAST_THREADS * AHEAD), row0 = row_of(g, first);
    const uint32_t at0 = static_cast<uint32_t>(first - row0 * g.piece_row), live = static_cast<uint32_t>(min(g.pieces - first, static_cast<int64_t>(BRCI_CAST_THREADS * AHEAD)));
    const uint32_t inside = static_cast<uint32_t>(row0) & ((1u << g.rows_shift) - 1), scale_row = static_cast<uint32_t>(g.scale_row);
    const auto *in = static_cast<const uint8_t *>(g.in) + row0 * g.in_pitch;
    auto *out = static_cast<typename T::word *>(g.out) + row0 * g.out_pitch;
    const int64_t scale0 = (row0 >> g.rows_shift) * g.scale_row;
    const float second = g.global ? __ldg(g.global) : 1.0f;
    uint64_t codes[AHEAD], to[AHEAD];
    uint32_t scale[AHEAD];
#pragma unroll
    for (int a = 0; a < AHEAD; a++) {
        const uint32_t piece = a * BRCI_CAST_THREADS + threadIdx.x, n = at0 + min(piece, live - 1);
        const uint32_t row = g.row_magic ? __umulhi(n, g.row_magic) >> g.row_shift : n, at = n - row * g.piece_row;
        codes[a] = load_piece<E::BITS, V, false>(in + static_cast<uint64_t>(row) * static_cast<uint32_t>(g.in_pitch) + at * (V * E::BITS / 8));
        scale[a] = S::bits(g.scale, scale0 + static_cast<uint64_t>((inside + row) >> g.rows_shift) * scale_row + (at >> g.cols_shift));
        to[a] = static_cast<uint64_t>(row) * static_cast<uint32_t>(g.out_pitch) + at * V;
    }
#pragma unroll
    for (int a = 0; a < AHEAD; a++) put<E, T, S, false>(g, codes[a], scale[a], second, out + to[a], a * BRCI_CAST_THREADS + threadIdx.x < live);
}

template <class E, class T>
__device__ __forceinline__ void dequantize(const brci_cast_args &g)
{
    if (!g.wide) return dequantize_slowly<E, T>(g);
    with_scale(g, [&](auto kind) {
        if (g.flat) dequantize_flat<E, T, decltype(kind)>(g);
        else dequantize_rows<E, T, decltype(kind)>(g);
    });
}

}  // namespace brc

#define BLOCKS(in, element, kind, block)
#define WHOLE(in, element)
#define GLOBAL(in)
#define BOTH(in, element)
#define DEQUANTIZE(element, out)                                                                                             \
    extern "C" __global__ void __launch_bounds__(BRCI_CAST_THREADS, 5) dequantize_##element##_##out(const __grid_constant__ brci_cast_args g) \
    {                                                                                                                        \
        brc::previous_grid_wait();                                                                                           \
        brc::dequantize<brc::element, brc::out>(g);                                                                          \
    }
#include "casts.def"
