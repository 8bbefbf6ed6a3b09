/* SPDX-License-Identifier: Apache-2.0
 *
 * The rows of kernels.def with E5M2 on either side, and the BLOCK_ROWS rows. */
#include "kernel.cuh"

#define BRC_ROW_FAST BRC_SKIP
#define BRC_ROW_PROMOTED BRC_SKIP
#define BRC_ROW_BLOCK BRC_SKIP
#define BRC_ROW_BLOCK_ROWS BRC_GEMM

#define BRC_TYPES_E4M3_E4M3(mode, ...) BRC_ROW_##mode(E4M3, E4M3, mode, __VA_ARGS__)
#define BRC_TYPES_E4M3_E5M2(mode, ...) BRC_GEMM(E4M3, E5M2, mode, __VA_ARGS__)
#define BRC_TYPES_E5M2_E4M3(mode, ...) BRC_GEMM(E5M2, E4M3, mode, __VA_ARGS__)
#define BRC_TYPES_E5M2_E5M2(mode, ...) BRC_GEMM(E5M2, E5M2, mode, __VA_ARGS__)
#define GEMM(a, b, mode, team, mw, bn, share, rate) BRC_TYPES_##a##_##b(mode, team, mw, bn, share)
#define SMALL BRC_SKIP
#include "kernels.def"
