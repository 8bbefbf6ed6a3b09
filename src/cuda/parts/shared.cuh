/* SPDX-License-Identifier: Apache-2.0
 *
 * Shared memory by 32-bit addresses, a block's own and that of the other blocks of its cluster. */
#pragma once
#include <stdint.h>

namespace brc {

__device__ __forceinline__ uint32_t shared_address(const void *p) { return static_cast<uint32_t>(__cvta_generic_to_shared(p)); }

/* The same value, whose origin the compiler forgets: it would otherwise derive it anew wherever it is used. */
__device__ __forceinline__ uint32_t opaque(uint32_t x)
{
    uint32_t y;
    asm volatile("mov.u32 %0, %1;" : "=r"(y) : "r"(x));
    return y;
}

__device__ __forceinline__ float load_shared(uint32_t address)
{
    float v;
    asm volatile("ld.shared.f32 %0, [%1];" : "=f"(v) : "r"(address));
    return v;
}

__device__ __forceinline__ float2 load_shared2(uint32_t address)
{
    float2 v;
    asm volatile("ld.shared.v2.f32 {%0, %1}, [%2];" : "=f"(v.x), "=f"(v.y) : "r"(address));
    return v;
}

/* Four floats in the shared memory of another block of the cluster. */
__device__ __forceinline__ float4 load_from(uint32_t address, uint32_t rank)
{
    float4 v;
    asm volatile("{ .reg .b32 there; mapa.shared::cluster.u32 there, %4, %5;\n"
                 "  ld.shared::cluster.v4.f32 {%0, %1, %2, %3}, [there]; }"
                 : "=f"(v.x), "=f"(v.y), "=f"(v.z), "=f"(v.w) : "r"(address), "r"(rank) : "memory");
    return v;
}

__device__ __forceinline__ void store_to(uint32_t address, uint32_t rank, float v)
{
    asm volatile("{ .reg .b32 there; mapa.shared::cluster.u32 there, %0, %1;\n"
                 "  st.shared::cluster.f32 [there], %2; }" :: "r"(address), "r"(rank), "f"(v) : "memory");
}

__device__ __forceinline__ void store_four_to(uint32_t address, uint32_t rank, const float (&v)[4])
{
    asm volatile("{ .reg .b32 there; mapa.shared::cluster.u32 there, %0, %1;\n"
                 "  st.shared::cluster.v4.f32 [there], {%2, %3, %4, %5}; }" :: "r"(address), "r"(rank), "f"(v[0]), "f"(v[1]), "f"(v[2]), "f"(v[3]) : "memory");
}

__device__ __forceinline__ float4 load_shared4(uint32_t address)
{
    float4 v;
    asm volatile("ld.shared.v4.f32 {%0, %1, %2, %3}, [%4];" : "=f"(v.x), "=f"(v.y), "=f"(v.z), "=f"(v.w) : "r"(address));
    return v;
}

__device__ __forceinline__ uint4 load_words(uint32_t address)
{
    uint4 v;
    asm volatile("ld.shared.v4.u32 {%0, %1, %2, %3}, [%4];" : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w) : "r"(address));
    return v;
}

__device__ __forceinline__ void store_shared(uint32_t address, float v) { asm volatile("st.shared.f32 [%0], %1;" :: "r"(address), "f"(v) : "memory"); }

/* Four, or two, 8x8 matrices of sixteen-bit numbers: lane l holds row l/4, columns 2(l%4) and + 1, and names the address of a
 * row: of row l%8 of matrix l/8. */
__device__ __forceinline__ void store_matrices(uint32_t address, uint32_t a, uint32_t b, uint32_t c, uint32_t d)
{
    asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};" :: "r"(address), "r"(a), "r"(b), "r"(c), "r"(d) : "memory");
}
__device__ __forceinline__ void store_matrices(uint32_t address, uint32_t a, uint32_t b)
{
    asm volatile("stmatrix.sync.aligned.m8n8.x2.shared.b16 [%0], {%1, %2};" :: "r"(address), "r"(a), "r"(b) : "memory");
}

}  // namespace brc
