/* SPDX-License-Identifier: Apache-2.0
 *
 * What the product kernels take from the machine (src/cuda/parts/machine.cuh), for an ordinary processor. Every thread of a
 * cluster is a fiber; copies and products are done as soon as they are asked for. Addresses, swizzles, phases, fragments and
 * counts are the machine's; what is not seen here is the order in which real ones finish. Products are summed in double. */
#pragma once
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_fp8.h>
#include <cuda_runtime_api.h>
#include <stdint.h>
#include <string.h>
#include <vector_functions.h>
#include <vector_types.h>

#include <algorithm>
#include <functional>

#undef __shared__
#undef __forceinline__
#undef __grid_constant__
#undef __launch_bounds__
#define __shared__
#define __forceinline__ inline
#define __grid_constant__
#define __launch_bounds__(...)

using std::max;
using std::min;

struct emulated_index { unsigned x, y, z; };
extern emulated_index threadIdx, blockIdx, gridDim;

/* ---- emulated.cpp: fibers */
void emulated_until(const std::function<bool()> &ready);                /* lets the others run until then */
void emulated_meet(unsigned id, unsigned threads, bool wait);           /* named barriers of the block; 0 = all */
void emulated_meet_warp();
void emulated_meet_cluster();
unsigned emulated_rank(), emulated_size();
uint8_t *emulated_memory(unsigned rank);                                /* of a block of the cluster */
uint32_t &emulated_slot(unsigned lane);                                 /* of the warp */

struct emulated_barrier {
    int arrivals, missing;
    int64_t bytes;
    unsigned phase;
    void settle()
    {
        if (missing || bytes) return;
        phase++;
        missing = arrivals;
    }
};
emulated_barrier &emulated_barrier_at(uint32_t address, unsigned rank);

template <class T> inline T emulated_exchange(T v, int from)
{
    static_assert(sizeof(T) == 4, "a register");
    memcpy(&emulated_slot(threadIdx.x % 32), &v, 4);
    emulated_meet_warp();
    memcpy(&v, &emulated_slot(static_cast<unsigned>(from)), 4);
    emulated_meet_warp();
    return v;
}
template <class T> inline T __shfl_sync(unsigned, T v, int lane) { return emulated_exchange(v, lane & 31); }
template <class T> inline T __shfl_up_sync(unsigned, T v, int n) { const int lane = static_cast<int>(threadIdx.x % 32); return emulated_exchange(v, lane < n ? lane : lane - n); }
inline unsigned __ballot_sync(unsigned, bool p)
{
    unsigned all = 0;
    emulated_slot(threadIdx.x % 32) = p;
    emulated_meet_warp();
    for (unsigned lane = 0; lane < 32; lane++) all |= emulated_slot(lane) << lane;
    emulated_meet_warp();
    return all;
}
inline void __syncwarp() { emulated_meet_warp(); }
inline void __syncthreads() { emulated_meet(0, 0, true); }
inline int __ffs(unsigned x) { return __builtin_ffs(static_cast<int>(x)); }
inline int __clz(int x) { return x ? __builtin_clz(static_cast<unsigned>(x)) : 32; }
template <class T> inline T __ldg(const T *p) { return *p; }

/* What a map holds here: the view that the host described. */
struct emulated_map {
    const uint8_t *data;
    uint64_t dims[3], pitch[2];
    uint32_t box[2], bytes;
};

namespace brc {

/* The copy engine's and the tensor cores' 128-byte swizzle: sixteen-byte chunks XORed with the row, by address. */
inline uint32_t swizzled(uint32_t address) { return address ^ (address >> 7 & 7) << 4; }

inline uint32_t shared_address(const void *) { return 1024; }
inline uint32_t opaque(uint32_t x) { return x; }
template <class T> inline T emulated_load(uint32_t address, unsigned rank)
{
    T v;
    memcpy(&v, emulated_memory(rank) + address, sizeof v);
    return v;
}
inline float load_shared(uint32_t address) { return emulated_load<float>(address, emulated_rank()); }
inline float2 load_shared2(uint32_t address) { return emulated_load<float2>(address, emulated_rank()); }
inline float4 load_shared4(uint32_t address) { return emulated_load<float4>(address, emulated_rank()); }
inline uint4 load_words(uint32_t address) { return emulated_load<uint4>(address, emulated_rank()); }
inline float4 load_from(uint32_t address, uint32_t rank) { return emulated_load<float4>(address, rank); }
inline void store_to(uint32_t address, uint32_t rank, float v) { memcpy(emulated_memory(rank) + address, &v, 4); }
inline void store_shared(uint32_t address, float v) { store_to(address, emulated_rank(), v); }
template <class... Words> inline void store_matrices(uint32_t address, Words... words)
{
    const uint32_t word[] = {words...};
    const unsigned lane = threadIdx.x % 32;
    for (unsigned i = 0; i < sizeof...(Words); i++) {
        const uint32_t row = emulated_exchange(address, static_cast<int>(8 * i + lane / 4));
        memcpy(emulated_memory(emulated_rank()) + row + lane % 4 * 4, &word[i], 4);
    }
}

inline void barrier_init(uint32_t bar, uint32_t arrivals) { emulated_barrier_at(bar, emulated_rank()) = {static_cast<int>(arrivals), static_cast<int>(arrivals), 0, 0}; }
inline void barrier_init_fence() {}
inline void barrier_arrive_at(uint32_t bar, uint32_t rank)
{
    emulated_barrier &b = emulated_barrier_at(bar, rank);
    b.missing--;
    b.settle();
}
inline void barrier_arrive(uint32_t bar) { barrier_arrive_at(bar, emulated_rank()); }
inline void barrier_expect(uint32_t bar, uint32_t bytes)
{
    emulated_barrier_at(bar, emulated_rank()).bytes += bytes;
    barrier_arrive(bar);
}
inline void barrier_wait(uint32_t bar, uint32_t parity)
{
    const emulated_barrier &b = emulated_barrier_at(bar, emulated_rank());
    emulated_until([&] { return (b.phase & 1) != parity; });
}
inline void named_barrier(uint32_t id, uint32_t threads) { emulated_meet(id, threads, true); }
inline void named_barrier_arrive(uint32_t id, uint32_t threads) { emulated_meet(id, threads, false); }
inline void cluster_meet() { emulated_meet_cluster(); }
inline void cluster_sync() { emulated_meet_cluster(); }
inline uint32_t cluster_rank() { return emulated_rank(); }
inline uint32_t cluster_size() { return emulated_size(); }
inline bool elect_one() { return threadIdx.x % 32 == 0; }
template <int> inline void registers_take() {}
template <int> inline void registers_give() {}
inline void grid_wait() {}
inline void grid_launch_next() {}

constexpr uint64_t EVICT_NORMAL = 0, EVICT_FIRST = 1, EVICT_LAST = 2;
inline void tma_prefetch_map(const void *) {}
inline void async_fence() {}
template <int> inline void tma_store_wait_read() {}
inline void tma_store_wait() {}

/* One element of a box between the tensor and a block's memory. */
template <class F> inline void emulated_box(const void *map, uint32_t at, int x, int y, int z, F &&f)
{
    const emulated_map &m = *static_cast<const emulated_map *>(map);
    for (uint32_t r = 0; r < m.box[1]; r++)
        for (uint32_t c = 0; c < m.box[0]; c++) {
            const int64_t i = static_cast<int64_t>(x) + c, j = static_cast<int64_t>(y) + r;
            const bool in = i >= 0 && j >= 0 && i < static_cast<int64_t>(m.dims[0]) && j < static_cast<int64_t>(m.dims[1]) && z < static_cast<int64_t>(max<uint64_t>(m.dims[2], 1));
            const uint32_t linear = at + (r * m.box[0] + c) * m.bytes, to = m.bytes == 4 ? linear : swizzled(linear);
            const uint8_t *from = m.data + static_cast<uint64_t>(z) * m.pitch[1] + static_cast<uint64_t>(j) * m.pitch[0] + static_cast<uint64_t>(i) * m.bytes;
            f(to, in ? const_cast<uint8_t *>(from) : nullptr, m.bytes);
        }
}
inline void emulated_copy(uint32_t to, const void *map, uint32_t bar, int x, int y, int z, unsigned mask)
{
    const emulated_map &m = *static_cast<const emulated_map *>(map);
    for (unsigned rank = 0; rank < emulated_size(); rank++) {
        if (!(mask >> rank & 1)) continue;
        uint8_t *memory = emulated_memory(rank);
        emulated_box(map, to, x, y, z, [&](uint32_t at, const uint8_t *from, uint32_t bytes) {
            if (from) memcpy(memory + at, from, bytes);
            else memset(memory + at, 0, bytes);
        });
        emulated_barrier &b = emulated_barrier_at(bar, rank);
        b.bytes -= static_cast<int64_t>(m.box[0]) * m.box[1] * m.bytes;
        b.settle();
    }
}
inline void tma_load(uint32_t to, const void *map, uint32_t bar, int x, int y) { emulated_copy(to, map, bar, x, y, 0, 1u << emulated_rank()); }
inline void tma_load(uint32_t to, const void *map, uint32_t bar, int x, int y, uint64_t) { tma_load(to, map, bar, x, y); }
inline void tma_load(uint32_t to, const void *map, uint32_t bar, int x, int y, int z) { emulated_copy(to, map, bar, x, y, z, 1u << emulated_rank()); }
inline void tma_load_shared(uint32_t to, const void *map, uint32_t bar, int x, int y, uint16_t mask) { emulated_copy(to, map, bar, x, y, 0, mask); }
inline void tma_store(const void *map, uint32_t from, int x, int y, int z = 0)
{
    const uint8_t *memory = emulated_memory(emulated_rank());
    emulated_box(map, from, x, y, z, [&](uint32_t at, uint8_t *to, uint32_t bytes) { if (to) memcpy(to, memory + at, bytes); });
}

enum Fp8 { E4M3, E5M2 };
inline uint64_t tile_descriptor(uint32_t address) { return address >> 4; }
inline void wgmma_fence() {}
inline void wgmma_commit() {}
template <int> inline void wgmma_wait() {}
template <int N> inline void wgmma_pin(float (&)[N]) {}

const float *emulated_values(int format);   /* of the 256 codes */

template <int N> struct Wgmma {
    template <int TA, int TB> static void mma(float (&d)[N / 2], uint64_t a, uint64_t b, int accumulate)
    {
        const uint8_t *memory = emulated_memory(emulated_rank());
        const float *of_a = emulated_values(TA), *of_b = emulated_values(TB);
        const unsigned lane = threadIdx.x % 32, warp = threadIdx.x / 32 % 4;
        auto row = [&](uint64_t descriptor, unsigned r, const float *values, float (&x)[32]) {
            for (unsigned k = 0; k < 32; k++) x[k] = values[memory[swizzled(static_cast<uint32_t>(descriptor << 4) + r / 8 * 1024 + r % 8 * 128 + k)]];
        };
        float x[2][32], y[32];
        for (unsigned h = 0; h < 2; h++) row(a, 16 * warp + lane / 4 + 8 * h, of_a, x[h]);
        for (int i = 0; i < N / 8; i++)
            for (unsigned j = 0; j < 2; j++) {
                row(b, static_cast<unsigned>(8 * i) + 2 * (lane % 4) + j, of_b, y);
                for (unsigned h = 0; h < 2; h++) {
                    double sum = 0;
                    for (unsigned k = 0; k < 32; k++) sum += static_cast<double>(x[h][k]) * y[k];
                    float &to = d[4 * i + static_cast<int>(2 * h + j)];
                    to = static_cast<float>((accumulate ? to : 0.0) + sum);
                }
            }
    }
};

}  // namespace brc
