#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes wgmma.cuh and wgmma_rs.cuh: one wrapper per accumulator width, because inline assembly must name every register."""

WIDTHS = [8, 16, 32, 56, 64, 96, 112, 128, 144, 160, 176, 192, 208, 224, 240, 256]

HEAD = """/* SPDX-License-Identifier: Apache-2.0
 *
 * Written by wgmma.py; change that instead.
 *
 * Warpgroup products on the tensor cores: D[64, N] (+)= A[64, 32] * B[N, 32]^T of FP8 in shared memory, FP32 accumulators.
 * PTX ISA 9.0, section "Asynchronous Warpgroup Level Matrix Instructions". Both operands are K-major with the 128-byte
 * swizzle. Thread t of warp w holds rows 16w + t/4 and + 8, columns 8i + 2(t%4) and + 1: d[4i], d[4i+1] of the first
 * row, d[4i+2], d[4i+3] of the second. */
#pragma once
#include <stdint.h>

namespace brc {

enum Fp8 { E4M3, E5M2 };

/* Descriptor of a K-major tile whose rows are 128 swizzled bytes: start address, no leading offset, 1024 bytes from
 * one group of eight rows to the next, swizzle mode 1 (128 bytes). Add 2 for the next 32 bytes of K. */
__device__ __forceinline__ uint64_t tile_descriptor(uint32_t address)
{
    return (uint64_t)((address & 0x3FFFF) >> 4 | 1u << 16) | (uint64_t)(64u | 1u << 30) << 32;
}

__device__ __forceinline__ void wgmma_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ __forceinline__ void wgmma_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
template <int PENDING> __device__ __forceinline__ void wgmma_wait() { asm volatile("wgmma.wait_group.sync.aligned %0;" :: "n"(PENDING) : "memory"); }

/* Tells the compiler that the accumulators change here: the products above write them behind its back. */
template <int N> __device__ __forceinline__ void wgmma_pin(float (&d)[N])
{
#pragma unroll
    for (int i = 0; i < N; i++) asm volatile("" : "+f"(d[i]) :: "memory");
}

template <int N> struct Wgmma;

#define BRC_WGMMA(TYPES)                                                                        \\
    asm volatile("{ .reg .pred p; setp.ne.b32 p, %" BRC_P ", 0;\\n"                              \\
                 "wgmma.mma_async.sync.aligned.m64n" BRC_N "k32.f32." TYPES " {" BRC_D "}, %"    \\
                 BRC_A ", %" BRC_B ", p, 1, 1; }" : BRC_REGISTERS : "l"(a), "l"(b), "r"(accumulate))
#define BRC_WGMMA_ANY                                                                           \\
    if constexpr (TA == E4M3 && TB == E4M3) BRC_WGMMA("e4m3.e4m3");                              \\
    else if constexpr (TA == E4M3 && TB == E5M2) BRC_WGMMA("e4m3.e5m2");                         \\
    else if constexpr (TA == E5M2 && TB == E4M3) BRC_WGMMA("e5m2.e4m3");                         \\
    else BRC_WGMMA("e5m2.e5m2")
"""

TAIL = """
#undef BRC_WGMMA
#undef BRC_WGMMA_ANY
}  // namespace brc
"""




def wrapper(n):
    r = n // 2
    rows = []
    row = ""
    regs = [f"%{i}" for i in range(r)]
    groups = [", ".join(regs[i:i + 16]) for i in range(0, r, 16)]
    text = [f"#define BRC_N \"{n}\""]
    text.append("#define BRC_D " + " \\\n    ".join(
        '"' + g + ("," if i + 1 < len(groups) else "") + '"' for i, g in enumerate(groups)))
    text.append(f'#define BRC_A "{r}"\n#define BRC_B "{r + 1}"\n#define BRC_P "{r + 2}"')
    regs = [f'"+f"(d[{i}])' for i in range(r)]
    groups = [", ".join(regs[i:i + 8]) for i in range(0, r, 8)]
    text.append("#define BRC_REGISTERS " + ", \\\n    ".join(groups))
    text.append(f"""template <> struct Wgmma<{n}> {{
    template <int TA, int TB>
    static __device__ __forceinline__ void mma(float (&d)[{r}], uint64_t a, uint64_t b, int accumulate)
    {{
        BRC_WGMMA_ANY;
    }}
}};
#undef BRC_N
#undef BRC_D
#undef BRC_A
#undef BRC_B
#undef BRC_P
#undef BRC_REGISTERS
""")
    return "\n".join(text)


WIDTHS_RS = [8, 16, 32, 64, 128]

HEAD_RS = """/* SPDX-License-Identifier: Apache-2.0
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
"""


def wrapper_rs(n):
    r = n // 2
    regs = [f"%{i}" for i in range(r)]
    d = " \\\n    ".join('"' + ", ".join(regs[i:i + 16]) + ("," if i + 16 < r else "") + '"' for i in range(0, r, 16))
    out = ", \\\n    ".join(", ".join(f'"+f"(d[{j}])' for j in range(i, min(i + 8, r))) for i in range(0, r, 8))
    return f"""#define BRC_WGMMA(TYPE, K, END) \\
    asm volatile("{{ .reg .pred p; setp.ne.b32 p, %{r + 5}, 0;\\n" \\
                 "wgmma.mma_async.sync.aligned.m64n{n}k" K ".f32." TYPE "." TYPE " {{" \\
    {d} \\
                 "}}, {{%{r}, %{r + 1}, %{r + 2}, %{r + 3}}}, %{r + 4}, p, 1, 1" END "; }}" : \\
    {out} \\
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(accumulate))
template <> struct WgmmaRs<{n}> {{
    template <int TYPE>
    static __device__ __forceinline__ void mma(float (&d)[{r}], const uint32_t (&a)[4], uint64_t b, int accumulate)
    {{
        if constexpr (TYPE == RS_BF16) BRC_WGMMA("bf16", "16", ", 0");
        else if constexpr (TYPE == RS_F16) BRC_WGMMA("f16", "16", ", 0");
        else BRC_WGMMA("e4m3", "32", "");
    }}
}};
#undef BRC_WGMMA
"""


if __name__ == "__main__":
    import pathlib
    pathlib.Path(__file__).with_name("wgmma_rs.cuh").write_text(HEAD_RS + "\n" + "\n".join(wrapper_rs(n) for n in WIDTHS_RS) + "\n}  // namespace brc\n")
    pathlib.Path(__file__).with_name("wgmma.cuh").write_text(HEAD + "\n" + "\n".join(wrapper(n) for n in WIDTHS) + TAIL)
