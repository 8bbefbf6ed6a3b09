/* SPDX-License-Identifier: Apache-2.0
 *
 * Products of one warp: D[16, 8] += A[16, 16] * B[8, 16]^T in BF16 or F16 with F32 sums, and the loads of their fragments.
 * PTX ISA 9.0, sections "mma.sync.aligned.m16n8k16" and "ldmatrix". Lane 4g + t holds of A the pairs (row, k) = (g, 2t), (g + 8, 2t),
 * (g, 2t + 8), (g + 8, 2t + 8); of B (row, k) = (g, 2t), (g, 2t + 8); of D rows g (two columns 2t, 2t + 1) and g + 8. */
#pragma once
#include <stdint.h>

namespace brc {

template <bool BF16> __device__ __forceinline__ void mma(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1)
{
    if constexpr (BF16)
        asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
            : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]) : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
    else
        asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
            : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]) : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

/* Four 8x8 matrices of sixteen-bit numbers; lanes 8i .. 8i + 7 give the addresses of the rows of matrix i. */
__device__ __forceinline__ void load_matrices(uint32_t (&m)[4], uint32_t address)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(m[0]), "=r"(m[1]), "=r"(m[2]), "=r"(m[3]) : "r"(address));
}

/* The same way back, of four transposed matrices: lanes 8i .. 8i + 7 give the addresses of the columns of matrix i. */
__device__ __forceinline__ void store_columns(uint32_t address, const uint32_t (&m)[4])
{
    asm volatile("stmatrix.sync.aligned.m8n8.x4.trans.shared.b16 [%0], {%1, %2, %3, %4};"
                 :: "r"(address), "r"(m[0]), "r"(m[1]), "r"(m[2]), "r"(m[3]) : "memory");
}

__device__ __forceinline__ void store_word(uint32_t address, uint32_t v) { asm volatile("st.shared.u32 [%0], %1;" :: "r"(address), "r"(v) : "memory"); }
__device__ __forceinline__ void store_float(uint32_t address, float v) { asm volatile("st.shared.f32 [%0], %1;" :: "r"(address), "f"(v) : "memory"); }

__device__ __forceinline__ uint32_t load_byte(uint32_t address)
{
    uint32_t v;
    asm volatile("ld.shared.u8 %0, [%1];" : "=r"(v) : "r"(address));
    return v;
}

__device__ __forceinline__ uint32_t load_word(uint32_t address)
{
    uint32_t v;
    asm volatile("ld.shared.u32 %0, [%1];" : "=r"(v) : "r"(address));
    return v;
}

__device__ __forceinline__ uint2 load_words2(uint32_t address)
{
    uint2 v;
    asm volatile("ld.shared.v2.u32 {%0, %1}, [%2];" : "=r"(v.x), "=r"(v.y) : "r"(address));
    return v;
}

__device__ __forceinline__ uint4 load_words4(uint32_t address)
{
    uint4 v;
    asm volatile("ld.shared.v4.u32 {%0, %1, %2, %3}, [%4];" : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w) : "r"(address));
    return v;
}

}  // namespace brc
