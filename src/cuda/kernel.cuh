/* SPDX-License-Identifier: Apache-2.0
 *
 * Turns rows of kernels.def into kernels. A .cu file defines which rows it builds, so that files compile side by side. */
#pragma once
#include "gemm.cuh"
#include "gemm_plain.cuh"
#include "gemm_small.cuh"

#define BRC_GEMM(a, b, mode, team, mw, bn, share)                                                          \
    extern "C" __global__ void __launch_bounds__(BRCI_THREADS, 1)                                           \
    gemm_##a##_##b##_##mode##_##team##_##mw##_##bn##_##share(const __grid_constant__ brci_gemm_args g)      \
    {                                                                                                       \
        brc::gemm<brc::a, brc::b, BRCI_##mode, BRCI_##team, mw, bn, BRCI_##share>(g);                       \
    }
#define BRC_SMALL(a, b, units, nb)                                                                          \
    extern "C" __global__ void __launch_bounds__(BRCI_THREADS, 1)                                           \
    small_##a##_##b##_##units##_##nb(const __grid_constant__ brci_gemm_args g)                              \
    {                                                                                                       \
        brc::gemm_small<brc::a, brc::b, units, nb>(g);                                                      \
    }
#define BRC_SKIP(...)
