/* SPDX-License-Identifier: Apache-2.0
 *
 * What the kernels for packed narrow weights (src/cuda/narrow_*.cu) take from the hardware, for an ordinary processor. The threads of
 * a cluster are fibers; whoever waits lets the others run. Copies and products are done at once, in the places the PTX manual gives
 * them: 128-byte swizzle, fragments of mma and wgmma, barriers that count arrivals and bytes. So the kernels' own order, indices
 * and waiting are what is tested, not the hardware's time. Included in place of the hardware's part of parts/narrow_parts.cuh. */
#pragma once
#include <math.h>
#include <stdint.h>
#include <string.h>
#include <vector_functions.h>
#include <vector_types.h>

#include <algorithm>

#include "cuda/arguments.h"

#undef __forceinline__
#undef __grid_constant__
#undef __launch_bounds__
#undef __global__
#undef __device__
#undef __host__
#define __forceinline__ inline
#define __grid_constant__
#define __launch_bounds__(...)
#define __global__
#define __device__
#define __host__

using std::max;
using std::min;

struct emulated_index { int x; };
extern emulated_index threadIdx, blockIdx, gridDim;

/* ---- narrow.cpp: fibers, memory, collectives */
void emulated_meet_warp();
void emulated_meet_block(int id, int threads);       /* 0 = all of the block */
void emulated_meet_cluster();
int emulated_rank();
int emulated_size();
uint8_t *emulated_shared(uint32_t address, int rank);
void emulated_barrier_init(uint32_t bar, uint32_t arrivals);
void emulated_barrier_arrive(uint32_t bar, int rank, int arrivals, int bytes);
void emulated_barrier_wait(uint32_t bar, uint32_t parity);
uint32_t *emulated_exchange(const uint32_t *mine, int words);    /* [32][words] of the warp, until its lanes meet */
float emulated_float(int format, uint32_t code);                 /* BRC_* */
uint32_t emulated_code(int format, float x);

inline float __uint_as_float(uint32_t b) { float x; memcpy(&x, &b, 4); return x; }
inline uint32_t __float_as_uint(float x) { uint32_t b; memcpy(&b, &x, 4); return b; }
inline float __int_as_float(int32_t b) { return __uint_as_float(static_cast<uint32_t>(b)); }
template <class T> inline T __ldg(const T *p) { return *p; }
inline int __shfl_sync(unsigned, int v, int) { return v; }       /* of values the whole warp has */
inline void __syncwarp() { emulated_meet_warp(); }
inline void __syncthreads() { emulated_meet_block(0, 0); }
inline int __reduce_max_sync(unsigned, int v)
{
    const uint32_t mine = static_cast<uint32_t>(v), *all = emulated_exchange(&mine, 1);
    int most = static_cast<int>(all[0]);
    for (int i = 1; i < 32; i++) most = max(most, static_cast<int>(all[i]));
    emulated_meet_warp();
    return most;
}
inline int __any_sync(unsigned, bool v)
{
    const uint32_t mine = v, *all = emulated_exchange(&mine, 1);
    uint32_t any = 0;
    for (int i = 0; i < 32; i++) any |= all[i];
    emulated_meet_warp();
    return any != 0;
}

namespace brc {

enum { EMULATED_F32 = 2, EMULATED_F16 = 3, EMULATED_BF16 = 4, EMULATED_E4M3 = 5 };      /* as formats.def numbers them */

inline uint32_t opaque(uint32_t x) { return x; }
inline uint32_t shared_base() { return 1024; }
inline bool elect_one() { return threadIdx.x % 32 == 0; }
template <int REGISTERS> inline void registers_take() {}
template <int REGISTERS> inline void registers_give() {}
inline void grid_wait() {}
inline void grid_launch_next() {}
inline int cluster_rank() { return emulated_rank(); }
inline int cluster_size() { return emulated_size(); }
inline void cluster_meet() { emulated_meet_cluster(); }
inline void cluster_sync() { emulated_meet_cluster(); }
inline void cluster_arrive() {}
inline void cluster_wait() { emulated_meet_cluster(); }
inline void named_barrier(uint32_t id, uint32_t threads) { emulated_meet_block(static_cast<int>(id), static_cast<int>(threads)); }
inline void barrier_init(uint32_t bar, uint32_t arrivals) { emulated_barrier_init(bar, arrivals); }
inline void barrier_init_fence() {}
inline void barrier_expect(uint32_t bar, uint32_t bytes) { emulated_barrier_arrive(bar, emulated_rank(), 1, static_cast<int>(bytes)); }
inline void barrier_arrive(uint32_t bar) { emulated_barrier_arrive(bar, emulated_rank(), 1, 0); }
inline void barrier_arrive_at(uint32_t bar, uint32_t rank) { emulated_barrier_arrive(bar, static_cast<int>(rank), 1, 0); }
inline void barrier_wait(uint32_t bar, uint32_t parity) { emulated_barrier_wait(bar, parity); }
inline void async_fence() {}

/* ---- shared memory */
template <class T> inline T emulated_load(uint32_t address, int rank = -1)
{
    T v;
    memcpy(&v, emulated_shared(address, rank < 0 ? emulated_rank() : rank), sizeof v);
    return v;
}
template <class T> inline void emulated_store(uint32_t address, const T &v) { memcpy(emulated_shared(address, emulated_rank()), &v, sizeof v); }
inline uint32_t load_byte(uint32_t a) { return emulated_load<uint8_t>(a); }
inline uint32_t load_word(uint32_t a) { return emulated_load<uint32_t>(a); }
inline uint2 load_words2(uint32_t a) { return emulated_load<uint2>(a); }
inline uint4 load_words4(uint32_t a) { return emulated_load<uint4>(a); }
inline float2 load_shared2(uint32_t a) { return emulated_load<float2>(a); }
inline void store_four_to(uint32_t a, uint32_t rank, const float (&v)[4]) { memcpy(emulated_shared(a, static_cast<int>(rank)), v, 16); }
inline float4 load_shared4(uint32_t a) { return emulated_load<float4>(a); }
inline int __clz(int x) { return x ? __builtin_clz(static_cast<unsigned>(x)) : 32; }
inline void store_word(uint32_t a, uint32_t v) { emulated_store(a, v); }
inline void store_float(uint32_t a, float v) { emulated_store(a, v); }

inline void load_matrices(uint32_t (&m)[4], uint32_t address)
{
    const uint32_t *all = emulated_exchange(&address, 1);
    const int lane = threadIdx.x % 32;
    for (int i = 0; i < 4; i++) m[i] = emulated_load<uint32_t>(all[8 * i + lane / 4] + lane % 4 * 4);
    emulated_meet_warp();
}
inline void store_columns(uint32_t address, const uint32_t (&m)[4])
{
    const uint32_t *all = emulated_exchange(&address, 1);
    const int lane = threadIdx.x % 32;
    for (int i = 0; i < 4; i++)
        for (int e = 0; e < 2; e++)
            emulated_store(all[8 * i + lane % 4 * 2 + e] + lane / 4 * 2, static_cast<uint16_t>(m[i] >> 16 * e));
    emulated_meet_warp();
}

/* ---- the copy engine: a map's first words are a view */
constexpr uint64_t EVICT_NORMAL = 0, EVICT_FIRST = 1, EVICT_LAST = 2;
struct emulated_view { uint8_t *data; uint64_t inner, outer, pitch; uint32_t box_inner, box_outer, bytes; };
inline void tma_prefetch_map(const void *) {}
inline void bulk_load(uint32_t to, const void *from, uint32_t bytes, uint32_t bar, uint64_t)
{
    memcpy(emulated_shared(to, emulated_rank()), from, bytes);
    emulated_barrier_arrive(bar, emulated_rank(), 0, -static_cast<int>(bytes));
}
inline void emulated_box(uint32_t to, const void *map, uint32_t bar, int x, int y, int rank)
{
    const emulated_view &v = *static_cast<const emulated_view *>(map);
    const uint32_t row_bytes = v.box_inner * v.bytes;
    for (uint32_t r = 0; r < v.box_outer; r++)
        for (uint32_t b = 0; b < row_bytes; b++) {
            const uint64_t column = static_cast<uint64_t>(x) + b / v.bytes, row = static_cast<uint64_t>(y) + r;
            const uint32_t at = to + r * row_bytes + b;
            *emulated_shared(at ^ (at >> 7 & 7) << 4, rank) = column < v.inner && row < v.outer ? v.data[row * v.pitch + column * v.bytes + b % v.bytes] : 0;
        }
    emulated_barrier_arrive(bar, rank, 0, -static_cast<int>(row_bytes * v.box_outer));
}
inline void tma_load(uint32_t to, const void *map, uint32_t bar, int x, int y, uint64_t = 0) { emulated_box(to, map, bar, x, y, emulated_rank()); }
inline void tma_load_shared(uint32_t to, const void *map, uint32_t bar, int x, int y, uint16_t mask)
{
    for (int r = 0; r < 16; r++)
        if (mask >> r & 1) emulated_box(to, map, bar, x, y, r);
}
inline void tma_store(const void *map, uint32_t from, int x, int y)
{
    const emulated_view &v = *static_cast<const emulated_view *>(map);
    const uint32_t row_bytes = v.box_inner * v.bytes;
    for (uint32_t r = 0; r < v.box_outer; r++)
        for (uint32_t b = 0; b < row_bytes; b++) {
            const uint64_t column = static_cast<uint64_t>(x) + b / v.bytes, row = static_cast<uint64_t>(y) + r;
            const uint32_t at = from + r * row_bytes + b;
            if (column < v.inner && row < v.outer) v.data[row * v.pitch + column * v.bytes + b % v.bytes] = *emulated_shared(at ^ (at >> 7 & 7) << 4, emulated_rank());
        }
}
template <int PENDING> inline void tma_store_wait_read() {}
inline void tma_store_wait() {}

/* ---- pairs of sixteen-bit floats, bytes */
inline uint32_t masked_or(uint32_t a, uint32_t mask, uint32_t add) { return (a & mask) | add; }
inline uint32_t chosen(uint32_t low, uint32_t high, uint32_t choice)
{
    const uint64_t all = static_cast<uint64_t>(high) << 32 | low;
    uint32_t d = 0;
    for (int i = 0; i < 4; i++) {
        const uint32_t c = choice >> 4 * i & 15, byte = static_cast<uint32_t>(all >> 8 * (c & 7)) & 255;
        d |= (c & 8 ? (byte & 128 ? 255u : 0u) : byte) << 8 * i;
    }
    return d;
}
inline float emulated_half(bool bf16, uint32_t a, int i) { return emulated_float(bf16 ? EMULATED_BF16 : EMULATED_F16, a >> 16 * i & 0xFFFF); }
inline uint32_t emulated_pair(bool bf16, float low, float high)
{
    const int f = bf16 ? EMULATED_BF16 : EMULATED_F16;
    return emulated_code(f, low) | emulated_code(f, high) << 16;
}
template <bool BF16> inline uint32_t times(uint32_t a, uint32_t b)
{
    return emulated_pair(BF16, emulated_half(BF16, a, 0) * emulated_half(BF16, b, 0), emulated_half(BF16, a, 1) * emulated_half(BF16, b, 1));
}
template <bool BF16, bool HIGH> inline uint32_t times_one(uint32_t a, uint32_t b)
{
    const uint32_t c = HIGH ? b >> 16 : b & 0xFFFF;
    return times<BF16>(a, c | c << 16);
}
template <bool BF16, uint16_t C> inline uint32_t less(uint32_t a)
{
    const float c = emulated_half(BF16, C, 0);
    return emulated_pair(BF16, emulated_half(BF16, a, 0) - c, emulated_half(BF16, a, 1) - c);
}
template <uint16_t M, uint16_t C> inline uint32_t times_plus(uint32_t a)
{
    const float m = emulated_half(false, M, 0), c = emulated_half(false, C, 0);
    return emulated_pair(false, fmaf(emulated_half(false, a, 0), m, c), fmaf(emulated_half(false, a, 1), m, c));
}
inline uint32_t bf16_times_plus(uint32_t a, uint32_t b, uint32_t c)
{
    return emulated_pair(true, fmaf(emulated_half(true, a, 0), emulated_half(true, b, 0), emulated_half(true, c, 0)),
                         fmaf(emulated_half(true, a, 1), emulated_half(true, b, 1), emulated_half(true, c, 1)));
}
inline float near_reciprocal(float x) { return 1 / x; }
inline float2 floats_of_f16(uint32_t a) { return make_float2(emulated_half(false, a, 0), emulated_half(false, a, 1)); }
inline uint32_t f16_of_e4m3(uint16_t c) { return emulated_pair(false, emulated_float(EMULATED_E4M3, c & 255), emulated_float(EMULATED_E4M3, c >> 8)); }
inline void f16_of_e4m3_word(uint32_t codes, uint32_t &low, uint32_t &high)
{
    low = f16_of_e4m3(static_cast<uint16_t>(codes));
    high = f16_of_e4m3(static_cast<uint16_t>(codes >> 16));
}
inline uint32_t e4m3_of_float(float v) { return emulated_code(EMULATED_E4M3, v); }
inline uint32_t pack16(float low, float high, int bf16) { return emulated_pair(bf16, low, high); }
inline float read_any(const void *p, int64_t i, int type)
{
    return type == BRCI_OUT_F32 ? static_cast<const float *>(p)[i] : emulated_half(type == BRCI_OUT_BF16, static_cast<const uint16_t *>(p)[i], 0);
}
inline void write_any(void *p, int64_t i, int type, float x)
{
    if (type == BRCI_OUT_F32) static_cast<float *>(p)[i] = x;
    else static_cast<uint16_t *>(p)[i] = static_cast<uint16_t>(emulated_pair(type == BRCI_OUT_BF16, x, 0));
}

/* ---- products: each warp's 16 rows. `element` gives element (row of 8, k) of B */
template <int TYPE, class B> inline void emulated_product(float *d, const uint32_t (&a)[4], int columns, int accumulate, B element)
{
    const int lane = threadIdx.x % 32, g = lane / 4, t = lane % 4, format = TYPE == 0 ? EMULATED_BF16 : TYPE == 1 ? EMULATED_F16 : EMULATED_E4M3;
    const int each = TYPE == 2 ? 4 : 2, bits = TYPE == 2 ? 8 : 16;
    const uint32_t *all = emulated_exchange(a, 4);
    for (int half = 0; half < 2; half++)
        for (int i = 0; i < columns / 8; i++)
            for (int e = 0; e < 2; e++) {
                float &to = d[4 * i + 2 * half + e];
                double sum = accumulate ? to : 0.0;
                for (int q = 0; q < 4; q++)
                    for (int p = 0; p < 2; p++)
                        for (int j = 0; j < each; j++) {
                            const uint32_t code = all[(g * 4 + q) * 4 + 2 * p + half] >> bits * j & ((1u << bits) - 1);
                            sum += static_cast<double>(emulated_float(format, code)) * element(8 * i + 2 * t + e, 4 * each * p + each * q + j);
                        }
                to = static_cast<float>(sum);
            }
    emulated_meet_warp();
}
template <bool BF16> inline void mma(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1)
{
    const uint32_t mine[2] = {b0, b1};
    uint32_t b[32][2];
    memcpy(b, emulated_exchange(mine, 2), sizeof b);
    emulated_meet_warp();
    emulated_product<BF16 ? 0 : 1>(d, a, 8, 1, [&](int column, int k) { return emulated_half(BF16, b[column * 4 + k % 8 / 2][k / 8], k % 2); });
}
enum { RS_BF16, RS_F16, RS_E4M3 };
inline void wgmma_fence() {}
inline void wgmma_commit() {}
template <int PENDING> inline void wgmma_wait() {}
template <int N> inline void wgmma_pin(float (&)[N]) {}
inline uint64_t tile_descriptor(uint32_t address) { return address >> 4; }
template <int N> struct WgmmaRs {
    template <int TYPE> static void mma(float (&d)[N / 2], const uint32_t (&a)[4], uint64_t b, int accumulate)
    {
        const uint32_t start = static_cast<uint32_t>(b & 0x3FFF) << 4;
        emulated_product<TYPE>(d, a, N, accumulate, [&](int row, int k) {
            const uint32_t at = start + static_cast<uint32_t>(row * 128 + k * (TYPE == 2 ? 1 : 2)), there = at ^ (at >> 7 & 7) << 4;
            return emulated_float(TYPE == 0 ? EMULATED_BF16 : TYPE == 1 ? EMULATED_F16 : EMULATED_E4M3,
                                  TYPE == 2 ? emulated_load<uint8_t>(there) : emulated_load<uint16_t>(there));
        });
    }
};

}  // namespace brc
