/* SPDX-License-Identifier: Apache-2.0
 *
 * The SMALL rows of kernels.def, and the kernel for everything else. */
#include "kernel.cuh"

#define GEMM BRC_SKIP
#define SMALL BRC_SMALL
#include "kernels.def"

extern "C" __global__ void __launch_bounds__(256) gemm_plain(const __grid_constant__ brci_plain_args g) { brc::gemm_plain(g); }
