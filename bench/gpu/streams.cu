/* SPDX-License-Identifier: Apache-2.0
 *
 * How fast kernels that do nothing but read and write go, by the mix of bytes: the floor of the casts, and which pattern of
 * loads and stores comes nearest. nvcc -O3 -arch=sm_90 streams.cu -o streams && ./streams */
#include <stdint.h>
#include <stdio.h>

#include <algorithm>
#include <vector>

enum { SETS = 3 };
static const size_t READ_MOST = 256u << 20;

template <int BYTES> struct Word;
template <> struct Word<16> { using type = uint4; };
template <> struct Word<8> { using type = uint2; };
template <> struct Word<4> { using type = uint32_t; };

template <int BYTES> __device__ __forceinline__ typename Word<BYTES>::type load(const uint8_t *p, bool keep)
{
    typename Word<BYTES>::type v;
    if constexpr (BYTES == 16) {
        if (keep) v = __ldg(reinterpret_cast<const uint4 *>(p));
        else asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];" : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w) : "l"(p));
    } else v = __ldg(reinterpret_cast<const typename Word<BYTES>::type *>(p));
    return v;
}
__device__ __forceinline__ uint32_t fold(uint4 v) { return v.x ^ v.y ^ v.z ^ v.w; }
__device__ __forceinline__ uint32_t fold(uint2 v) { return v.x ^ v.y; }
__device__ __forceinline__ uint32_t fold(uint32_t v) { return v; }
template <int BYTES> __device__ __forceinline__ void store(uint8_t *p, uint32_t v, bool stream)
{
    typename Word<BYTES>::type w;
    if constexpr (BYTES == 16) w = make_uint4(v, v + 1, v + 2, v + 3);
    else if constexpr (BYTES == 8) w = make_uint2(v, v + 1);
    else w = v;
    if (stream) __stcs(reinterpret_cast<typename Word<BYTES>::type *>(p), w);
    else *reinterpret_cast<typename Word<BYTES>::type *>(p) = w;
}

/* IN bytes become OUT bytes. ORDER 0: the grid's threads side by side, AHEAD strides of the whole grid under way;
 * 1: a block takes AHEAD consecutive pieces of its own, the grid strides on; PAIRED: a lane's loads are neighbours. */
template <int IN, int OUT, int AHEAD, int ORDER, bool KEEP, bool STREAM>
__global__ void __launch_bounds__(256) move(const uint8_t *in, uint8_t *out, int64_t units)
{
    const int64_t threads = static_cast<int64_t>(gridDim.x) * 256;
    if (ORDER == 0) {
        for (int64_t base = blockIdx.x * 256ll + threadIdx.x; base < units; base += threads * AHEAD) {
            typename Word<IN>::type v[AHEAD];
#pragma unroll
            for (int a = 0; a < AHEAD; a++) if (base + a * threads < units) v[a] = load<IN>(in + (base + a * threads) * IN, KEEP);
#pragma unroll
            for (int a = 0; a < AHEAD; a++) if (base + a * threads < units) store<OUT>(out + (base + a * threads) * OUT, fold(v[a]), STREAM);
        }
    } else {
        for (int64_t base = blockIdx.x * 256ll * AHEAD + threadIdx.x; base < units; base += threads * AHEAD) {
            typename Word<IN>::type v[AHEAD];
#pragma unroll
            for (int a = 0; a < AHEAD; a++) if (base + a * 256 < units) v[a] = load<IN>(in + (base + a * 256) * IN, KEEP);
#pragma unroll
            for (int a = 0; a < AHEAD; a++) if (base + a * 256 < units) store<OUT>(out + (base + a * 256) * OUT, fold(v[a]), STREAM);
        }
    }
}

template <class F> static double seconds(F f)
{
    cudaEvent_t a, b;
    cudaEventCreate(&a);
    cudaEventCreate(&b);
    std::vector<float> t;
    for (int i = 0; i < 3; i++) f(i % SETS);
    for (int r = 0; r < 5; r++) {
        cudaEventRecord(a);
        for (int i = 0; i < 12; i++) f(i % SETS);
        cudaEventRecord(b);
        cudaEventSynchronize(b);
        float ms;
        cudaEventElapsedTime(&ms, a, b);
        t.push_back(ms / 12);
    }
    std::sort(t.begin(), t.end());
    return t[2] * 1e-3;
}

static uint8_t *in[SETS], *out[SETS];

template <int IN, int OUT, int AHEAD, int ORDER, bool KEEP, bool STREAM> static void measure(double copy)
{
    const size_t most = IN > OUT ? IN : OUT;
    const int64_t units = static_cast<int64_t>(READ_MOST / most);
    const int grids[] = {132 * 4, 132 * 8, 132 * 32, static_cast<int>((units + 256 * AHEAD - 1) / (256 * AHEAD))};
    printf("%2d -> %2d, %d ahead, %s, %s, %s:", IN, OUT, AHEAD, ORDER ? "block by block " : "grid by grid   ", KEEP ? "in L1   " : "no L1   ", STREAM ? "st.cs" : "st   ");
    for (int g : grids) {
        const double t = seconds([&](int i) { move<IN, OUT, AHEAD, ORDER, KEEP, STREAM><<<g, 256>>>(in[i], out[i], units); });
        printf("  %4.0f (%.3f)", units * (IN + OUT) / t * 1e-9, units * (IN + OUT) / t / copy);
    }
    printf("\n");
}

template <int IN, int OUT> static void mix(double copy)
{
    measure<IN, OUT, 2, 0, false, true>(copy);
    measure<IN, OUT, 4, 0, false, true>(copy);
    measure<IN, OUT, 8, 0, false, true>(copy);
    measure<IN, OUT, 2, 1, false, true>(copy);
    measure<IN, OUT, 4, 1, false, true>(copy);
    measure<IN, OUT, 8, 1, false, true>(copy);
    measure<IN, OUT, 4, 1, true, true>(copy);
    measure<IN, OUT, 4, 1, false, false>(copy);
}

int main()
{
    for (int i = 0; i < SETS; i++) {
        cudaMalloc(&in[i], READ_MOST);
        cudaMalloc(&out[i], READ_MOST);
        cudaMemset(in[i], 0x5A + i, READ_MOST);
    }
    const double copy = 2.0 * READ_MOST / seconds([](int i) { cudaMemcpyAsync(out[i], in[i], READ_MOST, cudaMemcpyDeviceToDevice); });
    printf("copy %.0f GB/s. GB/s (of copy) with 4, 8, 32 blocks an SM, and without a loop\n", copy * 1e-9);
    mix<16, 16>(copy);
    mix<16, 8>(copy);
    mix<16, 4>(copy);
    mix<8, 16>(copy);
    mix<4, 16>(copy);
    return cudaDeviceSynchronize() != cudaSuccess;
}
