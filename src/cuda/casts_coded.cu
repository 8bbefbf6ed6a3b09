/* SPDX-License-Identifier: Apache-2.0
 *
 * The casts of casts.def from codes and scales: requantization. */
#include "casts.cuh"

/* Left to itself the compiler aims at more threads and spills. */
#undef BRC_CAST
#define BRC_CAST(name, threads, call)                                                                            \
    extern "C" __global__ void __launch_bounds__(threads, 1024 / (threads)) name(const __grid_constant__ brci_cast_args g) \
    {                                                                                                            \
        brc::previous_grid_wait();                                                                               \
        brc::call;                                                                                               \
    }

#undef BRC_CAST_ROW
#define BRC_CAST_ROW(name, ...) \
    extern "C" __global__ void __launch_bounds__(BRCI_CAST_ROW_THREADS, 2) name(const __grid_constant__ brci_cast_args g) { brc::previous_grid_wait(); brc::__VA_ARGS__; }

#define BLOCKS(in, element, kind, block) BRC_FROM_##in(BRC_BLOCKS(in, element, kind, block))
#define WHOLE(in, element) BRC_FROM_##in(BRC_WHOLE(in, element))
#define GLOBAL(in) BRC_FROM_##in(BRC_GLOBAL(in))
#define BOTH BRC_SKIP
#define DEQUANTIZE BRC_SKIP
#define BRC_FROM_F32(...)
#define BRC_FROM_F16(...)
#define BRC_FROM_CODED(...) __VA_ARGS__
#define BRC_FROM_BF16(...)
#include "casts.def"
