/* SPDX-License-Identifier: Apache-2.0
 *
 * A piece of a cast: where it lies, its numbers under a scale as codes, and the scale of a block. In the kernels, S is what they read
 * and T the type of its numbers (coded.cuh). */
#pragma once
#include "coded.cuh"

namespace brc {

enum { FP8, MX, NV, INT };
constexpr int THREADS = BRCI_CAST_THREADS, AHEAD = BRCI_CAST_AHEAD;

/* Where a piece lies. Rows end with whole blocks, whatever of them exists; in the flat case everything is aligned and rows
 * follow one another without gaps, and a piece's number says it all. */
struct Place { int64_t row; uint32_t col; int64_t out; int count; };

template <class T, class E, bool FLAT> __device__ __forceinline__ Place place(const brci_cast_args &g, int64_t piece)
{
    constexpr int V = PIECE<T>;
    if constexpr (FLAT) return {0, 0, piece * (V * E::BITS / 8), V};
    const int64_t row = row_of(g, piece);
    const uint32_t col = static_cast<uint32_t>(piece - row * g.piece_row) * V;
    const int64_t left = g.cols - col;
    return {row, col, row * g.out_pitch + static_cast<int64_t>(col) * E::BITS / 8, left < 0 ? 0 : left < V ? static_cast<int>(left) : V};
}

template <class T, class E> __device__ __forceinline__ void write(const brci_cast_args &g, int64_t at, uint64_t codes, int count)
{
    auto *p = static_cast<uint8_t *>(g.out) + at;
    if (E::BITS != 6 && count == PIECE<T> && g.wide) store_piece<E::BITS, PIECE<T>>(p, codes, true);
    else store_some<E::BITS>(p, codes, count);
}

/* ---- encoding a piece */

/* How the numbers of a piece become codes. AWKWARD: NaN or infinity may be among them, or a shift is needed. CLAMP: numbers may
 * be beyond the element's largest. POWER: factors are powers of two. */
struct Plain { static constexpr bool AWKWARD = false, CLAMP = false; };
struct Clamped { static constexpr bool AWKWARD = false, CLAMP = true; };
struct Awkward { static constexpr bool AWKWARD = true, CLAMP = true; };
struct Multiplied { static constexpr bool DIVIDE = false; };
struct Divided { static constexpr bool DIVIDE = true; };

template <class T, class E, bool POWER, class HOW, class CASE>
__device__ __forceinline__ uint64_t encode(const uint4 &raw, Coder c, HOW, CASE)
{
    constexpr int V = PIECE<T>;
    if constexpr (!CASE::AWKWARD && POWER && std::is_same_v<T, BF16> && std::is_same_v<E, E2M1>) {
        const uint32_t w[4] = {raw.x, raw.y, raw.z, raw.w}, factor = __byte_perm(__float_as_uint(c.factor), 0, 0x3232);
        uint32_t two[4];
#pragma unroll
        for (int i = 0; i < 4; i++) {
            uint32_t y = bf16_multiply_add(magnitude_bf16(w[i]), factor, 0x80008000u);
            if (CASE::CLAMP) y = __vminu2(y, 0x40C040C0u);       /* 6 */
            two[i] = E2M1::two_of_bf16(y);
        }
        return E2M1::with_signs(two[0], two[1], signs_in_bytes(w[0], w[1])) | E2M1::with_signs(two[2], two[3], signs_in_bytes(w[2], w[3])) << 16;
    } else {
        float x[V];
        floats_of<T>(raw, x);
        if constexpr (CASE::AWKWARD && E::WATCHED) {
#pragma unroll
            for (int i = 0; i < V; i++) x[i] = HOW::DIVIDE ? quotient<true>(x[i], c) : __fmul_rn(x[i], c.factor);
            return encode_any<E>(x);
        } else {
            if constexpr (E::BEFORE != 1.0f && !HOW::DIVIDE) c.factor = __fmul_rn(c.factor, E::BEFORE);
#pragma unroll
            for (int i = 0; i < V; i++) {
                if (E::UNSIGNED) x[i] = fabsf(x[i]);
                x[i] = HOW::DIVIDE ? quotient<CASE::AWKWARD>(x[i], c) : __fmul_rn(x[i], c.factor);
                if (E::BEFORE != 1.0f && HOW::DIVIDE) x[i] = __fmul_rn(x[i], E::BEFORE);
                if (E::WATCHED && CASE::CLAMP) x[i] = fmaxf(fminf(x[i], E::MAX * E::BEFORE), E::LEAST * E::BEFORE);
            }
            uint32_t signs = 0;
            if constexpr (E::UNSIGNED) signs = signs_in_nibbles<T>(raw);
            return encode_ordinary<E>(x, signs);
        }
    }
}

/* Calls f(how, case) for what is the same for a whole warp: the loop in f is then free of branches. */
template <class E, bool POWER, class F> __device__ __forceinline__ void in_case(bool divide, bool odd, bool clamp, F f)
{
    if constexpr (!POWER)
        if (divide) {
            if (odd || (E::WATCHED && clamp)) f(Divided{}, Awkward{});
            else f(Divided{}, Plain{});
            return;
        }
    if constexpr (E::WATCHED) {
        if (odd) return f(Multiplied{}, Awkward{});
        if (clamp) return f(Multiplied{}, Clamped{});
    }
    f(Multiplied{}, Plain{});
}

template <class T> using Numbers = Extent<T, false>;

/* ---- the scale of a block */

template <class T, class E, int KIND>
__device__ __forceinline__ Coder choose(const brci_cast_args &g, float amax, const Second &second, bool ordinary, int64_t at, bool write)
{
    if constexpr (KIND == FP8) {
        float s;
        const Coder c = choose_float<E, T>(g, amax, false, &s);
        if (write) static_cast<float *>(g.scale)[at] = s;
        return c;
    } else if constexpr (KIND == INT) return choose_integer<E>(g, amax, g.scale, at, write);
    else {
        uint8_t s;
        const Coder c = KIND == MX ? choose_mx<E>(g, amax, &s) : ordinary ? choose_nv<true>(g, amax, second, &s) : choose_nv<false>(g, amax, second, &s);
        if (write) static_cast<uint8_t *>(g.scale)[at] = s;
        return c;
    }
}

}  // namespace brc
