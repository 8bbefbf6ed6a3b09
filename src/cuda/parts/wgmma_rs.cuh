/* SPDX-License-Identifier: Apache-2.0
 *
 * Written by wgmma.py; change that instead.
 *
 * Warpgroup products with A in registers: D[64, N] (+)= A[64, K] * B[N, K]^T, K = 16 of BF16 or F16, or 32 of E4M3: 32 bytes a step. Each warp
 * has its 16 rows of A as mma.cuh says (E4M3: four neighbouring elements instead of two); B lies in shared memory as in wgmma.cuh,
 * F32 accumulators in the same places. */
#pragma once
#include <stdint.h>

namespace brc {

enum { RS_BF16, RS_F16, RS_E4M3 };

template <int N> struct WgmmaRs;

#define BRC_WGMMA(TYPE, K, END) \
    asm volatile("{ .reg .pred p; setp.ne.b32 p, %9, 0;\n" \
                 "wgmma.mma_async.sync.aligned.m64n8k" K ".f32." TYPE "." TYPE " {" \
    "%0, %1, %2, %3" \
                 "}, {%4, %5, %6, %7}, %8, p, 1, 1" END "; }" : \
    "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]) \
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(accumulate))
template <> struct WgmmaRs<8> {
    template <int TYPE>
    static __device__ __forceinline__ void mma(float (&d)[4], const uint32_t (&a)[4], uint64_t b, int accumulate)
    {
        if constexpr (TYPE == RS_BF16) BRC_WGMMA("bf16", "16", ", 0");
        else if constexpr (TYPE == RS_F16) BRC_WGMMA("f16", "16", ", 0");
        else BRC_WGMMA("e4m3", "32", "");
    }
};
#undef BRC_WGMMA

#define BRC_WGMMA(TYPE, K, END) \
    asm volatile("{ .reg .pred p; setp.ne.b32 p, %13, 0;\n" \
                 "wgmma.mma_async.sync.aligned.m64n16k" K ".f32." TYPE "." TYPE " {" \
    "%0, %1, %2, %3, %4, %5, %6, %7" \
                 "}, {%8, %9, %10, %11}, %12, p, 1, 1" END "; }" : \
    "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]), "+f"(d[6]), "+f"(d[7]) \
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(accumulate))
template <> struct WgmmaRs<16> {
    template <int TYPE>
    static __device__ __forceinline__ void mma(float (&d)[8], const uint32_t (&a)[4], uint64_t b, int accumulate)
    {
        if constexpr (TYPE == RS_BF16) BRC_WGMMA("bf16", "16", ", 0");
        else if constexpr (TYPE == RS_F16) BRC_WGMMA("f16", "16", ", 0");
        else BRC_WGMMA("e4m3", "32", "");
    }
};
#undef BRC_WGMMA

#define BRC_WGMMA(TYPE, K, END) \
    asm volatile("{ .reg .pred p; setp.ne.b32 p, %21, 0;\n" \
                 "wgmma.mma_async.sync.aligned.m64n32k" K ".f32." TYPE "." TYPE " {" \
    "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15" \
                 "}, {%16, %17, %18, %19}, %20, p, 1, 1" END "; }" : \
    "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]), "+f"(d[6]), "+f"(d[7]), \
    "+f"(d[8]), "+f"(d[9]), "+f"(d[10]), "+f"(d[11]), "+f"(d[12]), "+f"(d[13]), "+f"(d[14]), "+f"(d[15]) \
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(accumulate))
template <> struct WgmmaRs<32> {
    template <int TYPE>
    static __device__ __forceinline__ void mma(float (&d)[16], const uint32_t (&a)[4], uint64_t b, int accumulate)
    {
        if constexpr (TYPE == RS_BF16) BRC_WGMMA("bf16", "16", ", 0");
        else if constexpr (TYPE == RS_F16) BRC_WGMMA("f16", "16", ", 0");
        else BRC_WGMMA("e4m3", "32", "");
    }
};
#undef BRC_WGMMA

#define BRC_WGMMA(TYPE, K, END) \
    asm volatile("{ .reg .pred p; setp.ne.b32 p, %37, 0;\n" \
                 "wgmma.mma_async.sync.aligned.m64n64k" K ".f32." TYPE "." TYPE " {" \
    "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15," \
    "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31" \
                 "}, {%32, %33, %34, %35}, %36, p, 1, 1" END "; }" : \
    "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]), "+f"(d[6]), "+f"(d[7]), \
    "+f"(d[8]), "+f"(d[9]), "+f"(d[10]), "+f"(d[11]), "+f"(d[12]), "+f"(d[13]), "+f"(d[14]), "+f"(d[15]), \
    "+f"(d[16]), "+f"(d[17]), "+f"(d[18]), "+f"(d[19]), "+f"(d[20]), "+f"(d[21]), "+f"(d[22]), "+f"(d[23]), \
    "+f"(d[24]), "+f"(d[25]), "+f"(d[26]), "+f"(d[27]), "+f"(d[28]), "+f"(d[29]), "+f"(d[30]), "+f"(d[31]) \
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(accumulate))
template <> struct WgmmaRs<64> {
    template <int TYPE>
    static __device__ __forceinline__ void mma(float (&d)[32], const uint32_t (&a)[4], uint64_t b, int accumulate)
    {
        if constexpr (TYPE == RS_BF16) BRC_WGMMA("bf16", "16", ", 0");
        else if constexpr (TYPE == RS_F16) BRC_WGMMA("f16", "16", ", 0");
        else BRC_WGMMA("e4m3", "32", "");
    }
};
#undef BRC_WGMMA

#define BRC_WGMMA(TYPE, K, END) \
    asm volatile("{ .reg .pred p; setp.ne.b32 p, %69, 0;\n" \
                 "wgmma.mma_async.sync.aligned.m64n128k" K ".f32." TYPE "." TYPE " {" \
    "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15," \
    "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31," \
    "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47," \
    "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63" \
                 "}, {%64, %65, %66, %67}, %68, p, 1, 1" END "; }" : \
    "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]), "+f"(d[6]), "+f"(d[7]), \
    "+f"(d[8]), "+f"(d[9]), "+f"(d[10]), "+f"(d[11]), "+f"(d[12]), "+f"(d[13]), "+f"(d[14]), "+f"(d[15]), \
    "+f"(d[16]), "+f"(d[17]), "+f"(d[18]), "+f"(d[19]), "+f"(d[20]), "+f"(d[21]), "+f"(d[22]), "+f"(d[23]), \
    "+f"(d[24]), "+f"(d[25]), "+f"(d[26]), "+f"(d[27]), "+f"(d[28]), "+f"(d[29]), "+f"(d[30]), "+f"(d[31]), \
    "+f"(d[32]), "+f"(d[33]), "+f"(d[34]), "+f"(d[35]), "+f"(d[36]), "+f"(d[37]), "+f"(d[38]), "+f"(d[39]), \
    "+f"(d[40]), "+f"(d[41]), "+f"(d[42]), "+f"(d[43]), "+f"(d[44]), "+f"(d[45]), "+f"(d[46]), "+f"(d[47]), \
    "+f"(d[48]), "+f"(d[49]), "+f"(d[50]), "+f"(d[51]), "+f"(d[52]), "+f"(d[53]), "+f"(d[54]), "+f"(d[55]), \
    "+f"(d[56]), "+f"(d[57]), "+f"(d[58]), "+f"(d[59]), "+f"(d[60]), "+f"(d[61]), "+f"(d[62]), "+f"(d[63]) \
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(accumulate))
template <> struct WgmmaRs<128> {
    template <int TYPE>
    static __device__ __forceinline__ void mma(float (&d)[64], const uint32_t (&a)[4], uint64_t b, int accumulate)
    {
        if constexpr (TYPE == RS_BF16) BRC_WGMMA("bf16", "16", ", 0");
        else if constexpr (TYPE == RS_F16) BRC_WGMMA("f16", "16", ", 0");
        else BRC_WGMMA("e4m3", "32", "");
    }
};
#undef BRC_WGMMA

}  // namespace brc
